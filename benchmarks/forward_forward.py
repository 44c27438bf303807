"""Forward-Forward: Ravine's loop against the same algorithm in PyTorch.

784 cells, two layers of 500 units and four of 2,000, batches of 100 rows with their label and 100 with a wrong one,
Adam, the same starting weights. Steps per second are epochs per second, with as many rows.
"""

from __future__ import annotations

from typing import Any

import forward_forward_torch
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from common import (
    Contender,
    Effort,
    fastest,
    ratio,
    report,
    shown,
    single_thread_or_all,
    spread,
    steps,
    take_turns,
    warmed,
)
from vae import FOREVER, PIXELS, binary_digits

from ravine.core import Row
from ravine.data import ArraySource, Schema
from ravine.fitting import Plan, staged
from ravine.recipes._forward_forward import ForwardForward
from ravine.train import train

BATCH, RATE = 100, 5e-4
SIZES = {"2 x 500": (500, 500), "4 x 2000": (2000,) * 4}


def main(effort: Effort) -> None:
    """Let all take turns at every size, and report."""
    data, origin = binary_digits()
    labels = np.random.default_rng(0).integers(0, 10, size=len(data))  # what they are takes no time
    found, names = {}, []
    for size, layers in SIZES.items():
        everybody, notes = contenders(data, labels, layers)
        names += [contender.name for contender in everybody]
        rates = take_turns([warmed(one) for one in everybody], effort)
        found[f"{size}, batch {BATCH}"] = notes | summary({n.partition(",")[0]: r for n, r in rates.items()}, len(data))
    rows = [[size, name, shown(v)] for size, one in found.items() for name, v in one.items() if "median" in v]
    noted = {"data": origin, "rounds": effort.rounds, "contenders": names, "sizes": found}
    report("forward_forward", ["size", "what", "median (range)"], rows, noted)


def contenders(data: np.ndarray, labels: np.ndarray, layers: tuple[int, ...]) -> tuple[list[Contender], dict[str, Any]]:
    """The contenders, each at its best; and why one is missing, if it is."""
    ours = planned(data, labels, layers)
    weights = [np.asarray(layer.affine.weight) for layer in ours.model.layers]
    work = (data, labels, weights, BATCH, RATE, single_thread_or_all())
    fit = Contender("ravine", steps(train(ours.model, ours.stages, ours.source, key=ours.key)))
    everybody = [fit, fastest(forward_forward_torch.contenders(*work))]
    try:
        return [*everybody, fastest(forward_forward_torch.compiled(*work))], {}
    except Exception as error:  # no compiler, or one that this PyTorch cannot use
        return everybody, {"compiled torch": f"{type(error).__name__}: {error}".splitlines()[0]}


def planned(data: np.ndarray, labels: np.ndarray, layers: tuple[int, ...]) -> Plan:
    """What ``fit`` runs."""
    recipe = ForwardForward(layers=layers, rate=RATE, batch_size=BATCH, steps=FOREVER)
    schema, key = Schema((PIXELS,), "binary", base=tuple(data.mean(axis=0).tolist())), jr.key(0)
    model = recipe.build(schema, 10, key=key)
    row = Row(jnp.asarray(data), y=jnp.asarray(labels, jnp.int32), y_mask=jnp.ones(len(data), bool))
    return Plan(model, staged(recipe, schema, len(data), None, key), ArraySource(row), key)


def summary(rates: dict[str, list[float]], rows: int) -> dict[str, Any]:
    """Ratios, and epochs per second."""
    ratios = {f"ravine / {name}": ratio(rates["ravine"], rates[name]) for name in rates if name != "ravine"}
    return ratios | {
        "epochs per second": {name: spread(v * BATCH / rows for v in values) for name, values in rates.items()}
    }


if __name__ == "__main__":
    from common import QUICK

    main(QUICK)
