"""Training by Forward-Forward: Ravine's loop against a careful one in PyTorch, eager and compiled.

Grey digits with their label in the first cells against the same with a wrong one, batches of 100 rows and as many
others, Adam, the same starting weights; the slopes of both sides are compared before they are timed. A layer's two
products (activities, slopes of its weights) over a step's time, beside the fastest of several matrix products, are the
share of the machine's peak. An epoch is 600 steps.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import equinox as eqx
import forward_forward_torch
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import torch
from common import (
    Contender,
    Effort,
    fastest,
    matmul_peak,
    ratio,
    report,
    shown,
    spread,
    steps,
    take_turns,
    warmed,
)
from forward_forward_torch import Layers
from vae import FOREVER, PIXELS

from ravine.core import Row
from ravine.data import ArraySource, Schema, load_dataset
from ravine.fitting import staged
from ravine.labels import told
from ravine.models.forward_forward import FirstCells
from ravine.objectives.goodness import AbstractOthers, GoodLayers, LocalGoodness, Pair, WrongLabel
from ravine.recipes.forward_forward import ForwardForward
from ravine.train import train

BATCH, RATE, CLASSES = 100, 5e-4, 10
SIZES = ((500, 500), (2000, 2000, 2000, 2000))
PRODUCTS = 2 * 2 * 2 * BATCH  # operations of a step per weight: two products of rows and as many others


class Given(AbstractOthers):
    """What is seen of rows and of others, as it was given."""

    pair: Pair

    def __call__(self, model: GoodLayers, batch: Row, *, key: jax.Array) -> Pair:
        return self.pair


def main(effort: Effort) -> None:
    """Compare slopes, time every size, and report."""
    data, labels, origin = digits()
    results = {name(layers): compare(layers, data, labels, effort) for layers in SIZES}
    columns = ["network", "times torch", "times compiled", "share of peak", "torch's share", "seconds an epoch"]
    names = ["ravine / torch", "ravine / compiled torch", "ravine share", "torch share", "ravine epoch"]
    cells = [[size, *(_cell(result, n) for n in names)] for size, result in results.items()]
    report("forward_forward", columns, cells, {"data": origin, "rounds": effort.rounds, "sizes": results})


def _cell(result: dict[str, Any], name: str) -> str:
    return shown(result[name], "%" if "share" in name else "") if name in result else "-"


def name(layers: tuple[int, ...]) -> str:
    """A network, and the batch it trains on."""
    return f"{'-'.join(map(str, (PIXELS, *layers)))}, batch {BATCH}"


def digits() -> tuple[np.ndarray, np.ndarray, str]:
    """Grey MNIST where the environment variable RAVINE_DATA says it lies; noise otherwise."""
    try:
        found = load_dataset("mnist-grey")
    except Exception as error:  # not there, and nowhere to fetch it from
        stream = np.random.default_rng(0)
        rows, labels = stream.random((60_000, PIXELS), np.float32), stream.integers(0, CLASSES, 60_000)
        return rows, labels, f"noise ({type(error).__name__})"
    assert found.labels is not None
    return (np.asarray(found.train, np.float32) / 255).reshape(-1, PIXELS), found.labels[0], "mnist-grey"


def compare(layers: tuple[int, ...], data: np.ndarray, labels: np.ndarray, effort: Effort) -> dict[str, Any]:
    """Ratios and shares of the machine's peak for one size of network."""
    recipe = ForwardForward(layers=layers, place=FirstCells(), rate=RATE, batch_size=BATCH, steps=FOREVER)
    source = ArraySource(told(Row(jnp.asarray(data)), labels))
    schema, key = Schema((PIXELS,), "real"), jr.key(0)
    model = recipe.build(schema, CLASSES, key=key)
    work = (data, labels, functools.partial(Layers, arrays_of(model)), BATCH, RATE)
    away = apart(model, data[:BATCH], labels[:BATCH])
    run = train(model, staged(recipe, schema, source.rows, None, key), source, key=key)
    contenders, notes = [Contender("ravine", steps(run)), fastest(forward_forward_torch.eager(*work))], {}
    try:
        contenders.append(fastest(forward_forward_torch.compiled(*work)))
    except Exception as error:  # no compiler, or one that this PyTorch cannot use
        notes["compiled torch"] = f"{type(error).__name__}: {error}".splitlines()[0]
    rates = take_turns([*map(warmed, contenders), warmed(matmul_peak())], effort)
    weights = sum(a * b for a, b in itertools.pairwise((PIXELS, *layers)))
    return {"slopes apart": away} | notes | _summary(rates, PRODUCTS * weights, len(data) / BATCH)


def arrays_of(model: Any) -> list[np.ndarray]:
    """Weights and biases, layer by layer."""
    return [np.asarray(array) for layer in model.layers for array in (layer.affine.weight, layer.affine.bias)]


def apart(model: Any, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """How far the slopes of PyTorch are from ours, over the largest of ours; a thousandth is too far."""
    batch = told(Row(jnp.asarray(x)), y)
    pair = WrongLabel()(model, batch, key=jr.key(1))
    slopes = eqx.filter_grad(lambda m: LocalGoodness(Given(pair))(m, batch, key=jr.key(2))[0])(model)
    ours, layers, away = arrays_of(slopes), Layers(arrays_of(model)), {}
    seen = torch.from_numpy(np.concatenate([np.asarray(one) for one in pair]))
    sign = torch.cat([torch.ones(len(x)), -torch.ones(len(x))])
    for way in (forward_forward_torch.by_autograd, forward_forward_torch.by_hand):
        way(layers, seen, sign)
        found = [array.grad.numpy() for array in layers.arrays]
        away[way.__name__] = float(max(abs(a - b).max() / abs(b).max() for a, b in zip(found, ours, strict=True)))
    assert max(away.values()) < 1e-3, f"the two sides do not learn alike: {away}"
    return away


def _summary(rates: dict[str, list[float]], operations: int, steps_an_epoch: float) -> dict[str, Any]:
    peak = rates.pop("peak")
    plain = {name.partition(",")[0]: values for name, values in rates.items()}
    ratios = {f"ravine / {peer}": ratio(plain["ravine"], plain[peer]) for peer in plain if peer != "ravine"}
    shares = {f"{name} share": ratio([operations * v for v in values], peak) for name, values in plain.items()}
    epochs = {f"{name} epoch": spread(steps_an_epoch / v for v in values) for name, values in plain.items()}
    notes = {"contenders": list(rates), "peak gigaflops": spread(v / 1e9 for v in peak)}
    return ratios | shares | epochs | notes


if __name__ == "__main__":
    from common import QUICK

    main(QUICK)
