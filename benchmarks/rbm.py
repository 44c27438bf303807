"""Training a restricted Boltzmann machine: Ravine's loop against scikit-learn's and a careful one in PyTorch.

784 binary pixels, 500 hidden units, batches of 100 rows, plain gradient descent, the same starting weights. Ravine and
PyTorch learn by CD-1. scikit-learn's `BernoulliRBM` learns by PCD-1, with single precision: the chains go on where they
were, with as many matrix products and random numbers in a step. Five products make a step; their operations over its
time, beside those of the fastest of several matrix products, are the share of the machine's peak.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import rbm_torch
import torch
from common import (
    PEAK_SIZE,
    Contender,
    Effort,
    cores,
    fastest,
    ratio,
    report,
    shown,
    single_thread_or_all,
    spread,
    steps,
    take_turns,
    throughput,
    warmed,
    with_threads,
)
from sklearn.neural_network import BernoulliRBM
from vae import FOREVER, PIXELS, binary_digits

from ravine.core import Row
from ravine.data import ArraySource, Schema
from ravine.fitting import Plan, plan
from ravine.models.energy import Harmonium
from ravine.recipes.rbm import RBM
from ravine.rules import ContrastiveDivergence
from ravine.train import train

HIDDEN, BATCH, RATE = 500, 100, 0.01
OPERATIONS = 5 * 2 * BATCH * PIXELS * HIDDEN
PRODUCTS = {
    "rows and weights": ((BATCH, PIXELS), (PIXELS, HIDDEN)),
    "rows and rows": ((PIXELS, BATCH), (BATCH, HIDDEN)),
    "square": ((PEAK_SIZE, PEAK_SIZE), (PEAK_SIZE, PEAK_SIZE)),
}


def main(effort: Effort) -> None:
    """Let all take turns, and report."""
    data, origin = binary_digits()
    contenders, notes = everybody(data)
    rates = take_turns([warmed(c) for c in [*contenders, *products()]], effort)
    peaks = {name: rates.pop(name) for name in PRODUCTS}
    found = notes | summary({name.partition(",")[0]: rate for name, rate in rates.items()}, peaks, len(data))
    rows = [[name, shown(value, "%" if "share" in name else "")] for name, value in found.items() if "median" in value]
    size = f"{PIXELS}-{HIDDEN}, batch {BATCH}, CD-1"
    names = [contender.name for contender in contenders]
    noted = {"data": origin, "rounds": effort.rounds, "contenders": names, "sizes": {size: found}}
    report("rbm", ["what", "median (range)"], rows, noted)


def everybody(data: np.ndarray) -> tuple[list[Contender], dict[str, Any]]:
    """The contenders, each at its best; and why one is missing, if it is."""
    ours = planned(data)
    start = functools.partial(
        rbm_torch.machine, np.asarray(ours.model.coupling.weight), np.asarray(ours.model.visible.bias)
    )
    work = (data, start, BATCH, RATE, single_thread_or_all())
    fit = Contender("ravine", steps(train(ours.model, ours.stages, ours.source, key=ours.key)))
    found = [fit, fastest(scikit_learn(data, ours.model)), fastest(rbm_torch.eager(*work))]
    try:
        return [*found, fastest(rbm_torch.compiled(*work))], {}
    except Exception as error:  # no compiler, or one that this PyTorch cannot use
        return found, {"compiled torch": f"{type(error).__name__}: {error}".splitlines()[0]}


def planned(data: np.ndarray) -> Plan:
    """What ``fit`` runs: steps that are not finite are undone."""
    recipe = RBM(
        hidden=HIDDEN, negatives=ContrastiveDivergence(1), rate=RATE, follow=0.0, batch_size=BATCH, steps=FOREVER
    )
    schema = Schema((PIXELS,), "binary", base=tuple(data.mean(axis=0).tolist()))
    return plan(recipe, schema, ArraySource(Row(jnp.asarray(data))), None, key=jr.key(0))


def scikit_learn(data: np.ndarray, model: Harmonium) -> list[Contender]:
    """The loop within ``BernoulliRBM.fit``, without the checks before it; its batches follow the data."""

    def loop() -> Callable[[float], float]:
        made = BernoulliRBM(n_components=HIDDEN, learning_rate=RATE, batch_size=BATCH, n_iter=0).fit(data[:BATCH])
        made.components_ = np.array(model.coupling.weight.T, order="F")
        made.intercept_visible_ = np.array(model.visible.bias)
        starts, stream = itertools.cycle(range(0, len(data) - BATCH + 1, BATCH)), np.random.RandomState(0)

        def one() -> int:
            first = next(starts)
            made._fit(data[first : first + BATCH], stream)
            return 1

        return functools.partial(throughput, one)

    return [with_threads("scikit-learn", threads, loop()) for threads in single_thread_or_all()]


def products() -> list[Contender]:
    """Floating-point operations per second of the better of JAX's and PyTorch's product, for several sizes."""
    return [Contender(name, product(*shapes)) for name, shapes in PRODUCTS.items()]


def product(left: tuple[int, int], right: tuple[int, int]) -> Callable[[float], float]:
    """The better of the two products of arrays of these shapes."""
    stream = np.random.default_rng(0)
    a, b = (stream.standard_normal(shape, np.float32) for shape in (left, right))
    x, y, s, t = jnp.asarray(a), jnp.asarray(b), torch.from_numpy(a), torch.from_numpy(b)
    dot, operations = jax.jit(jnp.dot), 2.0 * left[0] * left[1] * right[1]

    def with_jax() -> float:
        dot(x, y).block_until_ready()
        return operations

    def with_torch() -> float:
        torch.mm(s, t)
        return operations

    def rate(seconds: float) -> float:
        torch.set_num_threads(cores())
        return max(throughput(one, seconds / 2, 2) for one in (with_jax, with_torch))

    return rate


def summary(rates: dict[str, list[float]], peaks: dict[str, list[float]], rows: int) -> dict[str, Any]:
    """Ratios, shares of the peak of each round, epochs per second, and how fast the products were."""
    peak = [max(each) for each in zip(*peaks.values(), strict=True)]
    ratios = {f"ravine / {name}": ratio(rates["ravine"], rates[name]) for name in rates if name != "ravine"}
    shares = {f"{name} share": ratio([OPERATIONS * v for v in values], peak) for name, values in rates.items()}
    paces = {name: spread(value * BATCH / rows for value in values) for name, values in rates.items()}
    speeds = {name: spread(value / 1e9 for value in values) for name, values in peaks.items()}
    return ratios | shares | {"epochs per second": paces, "gigaflops of a product": speeds}


if __name__ == "__main__":
    from common import QUICK

    main(QUICK)
