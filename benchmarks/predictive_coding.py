"""Training by predictive coding: Ravine's loop against careful ones in PyTorch, eager and compiled.

Grey digits, a net 784-500-500-10 that settles for 20 steps of 0.1, batches of 256 rows, Adam, the same starting
weights; the slopes of both sides are compared before they are timed. One peer takes the slope of the whole energy by
autograd at every step, as public implementations do; the other writes it out, and makes the prediction of the first
layer once. The second kind of settling is with fixed predictions, which is back-propagation. An epoch is 234 steps.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import predictive_coding_torch as peers
import torch
from common import Contender, Effort, fastest, ratio, report, shown, spread, steps, take_turns, warmed
from vae import FOREVER, PIXELS

from ravine.core import Row
from ravine.data import ArraySource, Schema, load_dataset
from ravine.fitting import staged
from ravine.labels import told
from ravine.models.predictive_coding import PredictiveNet
from ravine.objectives import Energy
from ravine.recipes.predictive_coding import PredictiveCodingClassifier
from ravine.recognisers import AbstractSettling, FixedPredictions, GradientSettling
from ravine.train import train

HIDDEN, CLASSES, BATCH, RATE = (500, 500), 10, 256, 1e-3
WAYS: dict[str, tuple[AbstractSettling, dict[str, peers.Way]]] = {
    "settling": (
        GradientSettling(peers.SETTLE, peers.PACE),
        {"autograd": peers.by_autograd, "by hand": peers.by_hand},
    ),
    "fixed predictions": (FixedPredictions(len(HIDDEN)), {"by hand": peers.fixed}),
}


def main(effort: Effort) -> None:
    """Compare slopes, time both kinds of settling, and report."""
    data, origin = digits()
    results = {name: compare(*way, data, effort) for name, way in WAYS.items()}
    names = ["ravine / autograd", "ravine / by hand", "ravine / compiled by hand", "ravine epoch", "by hand epoch"]
    cells = [[kind, *(shown(found[n]) if n in found else "-" for n in names)] for kind, found in results.items()]
    columns = ["net", "times autograd", "times by hand", "times compiled", "seconds an epoch", "by hand"]
    report("predictive_coding", columns, cells, {"data": origin, "rounds": effort.rounds, "sizes": results})


def digits() -> tuple[tuple[np.ndarray, np.ndarray], str]:
    """Grey MNIST where the environment variable RAVINE_DATA says it lies; noise otherwise."""
    try:
        found = load_dataset("mnist-grey")
    except Exception as error:  # not there, and nowhere to fetch it from
        stream = np.random.default_rng(0)
        rows, labels = stream.random((60_000, PIXELS), np.float32), stream.integers(0, CLASSES, 60_000)
        return (rows, labels), f"noise ({type(error).__name__})"
    assert found.labels is not None
    rows = (np.asarray(found.train, np.float32) / 255).reshape(-1, PIXELS)
    return (rows, np.asarray(found.labels[0], np.int64)), "mnist-grey"


def compare(
    settling: AbstractSettling, ways: dict[str, peers.Way], data: tuple[np.ndarray, np.ndarray], effort: Effort
) -> dict[str, Any]:
    """Ratios for one kind of settling."""
    recipe = PredictiveCodingClassifier(hidden=HIDDEN, settling=settling, rate=RATE, batch_size=BATCH, steps=FOREVER)
    rows, labels = data
    source, schema = ArraySource(told(Row(jnp.asarray(rows)), labels)), Schema((PIXELS,), "real")
    model = recipe.build(schema, CLASSES, key=jr.key(0))
    notes: dict[str, Any] = {"slopes apart": {name: apart(model, way, data) for name, way in ways.items()}}
    run = train(model, staged(recipe, schema, source.rows, None, jr.key(0)), source, key=jr.key(1))
    work = (data, arrays_of(model), BATCH, RATE)
    contenders = [Contender("ravine", steps(run))]
    contenders += [fastest(peers.contenders(name, way, *work)) for name, way in ways.items()]
    try:
        contenders.append(fastest(peers.compiled("compiled by hand", ways["by hand"], *work)))
    except Exception as error:  # no compiler, or one that this PyTorch cannot use
        notes["compiled by hand"] = f"{type(error).__name__}: {error}".splitlines()[0]
    rates = take_turns([warmed(contender) for contender in contenders], effort)
    return notes | _summary(rates, len(rows) // BATCH)


def arrays_of(model: PredictiveNet) -> list[np.ndarray]:
    """Weights and biases, layer by layer."""
    links: Any = model.links
    return [np.asarray(array) for link in links for array in (link.layer.weight, link.layer.bias)]


def apart(model: PredictiveNet, way: peers.Way, data: tuple[np.ndarray, np.ndarray]) -> float:
    """How far the slopes of PyTorch are from ours, over the largest of ours, in double precision.

    In single precision a unit that is on with one and off with the other moves a slope by a hundredth.
    """
    x, y = data[0][:BATCH].astype(np.float64), data[1][:BATCH]
    with jax.enable_x64(True):
        batch, double = told(Row(jnp.asarray(x)), y), jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model)
        ours = arrays_of(eqx.filter_jit(eqx.filter_grad(lambda m: Energy()(m, batch, key=jr.key(0))[0]))(double))
        net = peers.Net(arrays_of(double))
    way(net, torch.from_numpy(x), torch.from_numpy(np.ascontiguousarray(y)))
    theirs = [array.grad.numpy() for array in net.arrays if array.grad is not None]
    away = float(max(abs(a - b).max() / abs(b).max() for a, b in zip(theirs, ours, strict=True)))
    assert away < 1e-9, f"the two sides do not learn alike: {away}"
    return away


def _summary(rates: dict[str, list[float]], steps_an_epoch: int) -> dict[str, Any]:
    plain = {name.partition(",")[0]: values for name, values in rates.items()}
    ratios = {f"ravine / {peer}": ratio(plain["ravine"], plain[peer]) for peer in plain if peer != "ravine"}
    epochs = {f"{name} epoch": spread(steps_an_epoch / v for v in values) for name, values in plain.items()}
    return ratios | epochs | {"contenders": list(rates)}


if __name__ == "__main__":
    from common import QUICK

    main(QUICK)
