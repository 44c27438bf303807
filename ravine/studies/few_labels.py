"""What rows without labels teach a coupled network. Flach, Shekhovtsov & Fikar 2017, arXiv:1709.08524.

Digits of MNIST as bits, of which a few have a label. A coupled network learns from all of them; the same recogniser,
begun with the same weights, learns by back-propagation from those with labels alone. It may stop after any of several
numbers of steps, whichever is best on the test rows: more than it could know. The paper reports no such number that we
know of; the number of steps of the coupled network was chosen on training rows without a label here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float

from ravine._tree import Linear
from ravine.core import Row
from ravine.data import ArraySource, load_dataset
from ravine.models.coupled import AssociativeMemory, coupled_net
from ravine.models.deep_belief import DeepBelief
from ravine.models.units import BinaryUnits
from ravine.objectives import Discriminative
from ravine.recipes.coupled_network import CoupledClassifier
from ravine.rules import Descend, Optimiser
from ravine.train import Stage, train

SCALES: Mapping[str, Mapping[str, Any]] = {"small": {"labels": (10, 100), "steps": 3_000}}
LAYERS, BATCH, RATE, ALONE = (500,), 100, 3e-3, 1e-3
STOPS = (100, 300, 1_000, 3_000)  # steps after which learning from the labels alone may stop
CLASSES = 10
Rows = tuple[np.ndarray, np.ndarray]


def found(
    seeds: Sequence[int], labels: Sequence[int], steps: int, layers: tuple[int, ...] = LAYERS, data: str = "mnist-grey"
) -> dict[str, dict[str, list[float]]]:
    """Shares of test rows that are told rightly, by how many rows of each class have a label: one for each seed."""
    train_rows, test_rows = _bits(data)
    made = {}
    for of_each in labels:
        both = [_both(train_rows, test_rows, of_each, steps, layers, seed) for seed in seeds]
        coupled, alone = zip(*both, strict=True)
        made[str(of_each)] = {"coupled": list(coupled), "alone": list(alone)}
    return made


def _bits(data: str) -> tuple[Rows, Rows]:
    """Training and test rows as bits, with their labels."""
    it = load_dataset(data)
    assert it.test is not None and it.labels is not None and it.labels[1] is not None
    half = (it.hints["levels"] - 1) / 2
    train_rows, test_rows = ((rows > half).astype(np.float32) for rows in (it.train, it.test))
    return (train_rows, it.labels[0]), (test_rows, it.labels[1])


def _both(known: Rows, test: Rows, of_each: int, steps: int, layers: tuple[int, ...], seed: int) -> tuple[float, float]:
    stream, some = np.random.default_rng(seed), np.full(len(known[1]), -1)
    for c in range(CLASSES):
        some[stream.permutation(np.flatnonzero(known[1] == c))[:of_each]] = c
    model = CoupledClassifier(layers=layers, steps=steps, rate=Linear(RATE, 0.0, float(steps)), random_state=seed)
    model.set_params(kind="binary", batch_size=BATCH, progress=False).fit(known[0], some)
    told = float(np.mean(model.predict(test[0]) == test[1]))
    return told, _alone((known[0][some >= 0], some[some >= 0]), test, layers, seed)


def _alone(known: Rows, test: Rows, layers: tuple[int, ...], seed: int) -> float:
    """The best share of test rows that the recogniser tells rightly where it learns from a few rows by itself."""
    build, key = jr.split(jr.key(seed))
    lowest = BinaryUnits().sized((known[0].shape[1],))
    net = coupled_net(lowest, layers, AssociativeMemory(), CLASSES, 1, key=build)
    source = ArraySource(Row(jnp.asarray(known[0]), y=jnp.asarray(known[1])))
    rule = Descend(Discriminative(), Optimiser(optax.adam, (ALONE,)))
    chunks = train(net, [Stage(rule, STOPS[-1], BATCH)], source, key=key, chunk=STOPS[0], seconds=1e9)
    kept = [chunk.state.model for i, chunk in enumerate(chunks) if (i + 1) * STOPS[0] in STOPS]
    return max(float(np.mean(_told(model, jnp.asarray(test[0])) == test[1])) for model in kept)


@eqx.filter_jit
def _told(model: DeepBelief, rows: Float[Array, "n cells"]) -> Array:
    return jnp.argmax(jax.vmap(lambda x: model.label_shares(Row(x)))(rows), axis=1)


def words(result: Mapping[str, Any]) -> str:
    """A line for each number of labels, as Markdown: means over the seeds with their standard errors."""
    lines = [["labels", "coupled, with all rows", "the same recogniser, labels alone", "difference"], ["---"] * 4]
    for of_each, one in result["found"].items():
        coupled, alone = (100 * np.asarray(one[which]) for which in ("coupled", "alone"))
        cells = [f"{_mean(values)} %" for values in (coupled, alone, coupled - alone)]
        lines.append([str(CLASSES * int(of_each)), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _mean(values: np.ndarray) -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.2f} ± {error:.2f}"


def picture(result: Mapping[str, Any]) -> Any:
    """Every seed as a dot, with and without the rows that have no label: a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes, many = figure.subplots(), result["found"]
    for way, mark in (("coupled", "o"), ("alone", "x")):
        at = np.concatenate([np.full(len(one[way]), i) for i, one in enumerate(many.values())])
        shares = np.concatenate([one[way] for one in many.values()])
        axes.plot(at, 100 * shares, mark, label={"coupled": "with all rows", "alone": "with the labels alone"}[way])
    ticks = [f"{CLASSES * int(of_each)} labels" for of_each in many]
    axes.set(
        xticks=range(len(many)), xticklabels=ticks, ylabel="test rows told rightly, %", xlim=(-0.5, len(many) - 0.5)
    )
    axes.legend()
    return figure
