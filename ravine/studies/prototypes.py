"""What weights that are each other's transpose are good for. Flach, Shekhovtsov & Fikar 2017, arXiv:1709.08524.

Rows are one of ten random patterns of 64 bits, a tenth of whose bits are turned. A recogniser and a generator of 64, 32
and 10 units learn them with labels, each layer from draws of the other way, once with weights that both ways share, and
once with weights of their own. The laws on top are the simplest: every bit alone. Told are unseen rows; made are rows
of every label, which a true law would put at the distance of real rows from their pattern. The paper's own experiment
is not known to us; the patterns are our stand-in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ravine._tree import Linear
from ravine.models.coupled import Independent, Pairing
from ravine.objectives import LocalTelling
from ravine.recipes.coupled_network import CoupledClassifier
from ravine.rules import Persistent

SCALES: Mapping[str, Mapping[str, Any]] = {"small": {"rows": 2_000, "steps": 6_000}}
WAYS: tuple[Pairing, ...] = ("transposed", "separate")
PATTERNS, BITS, TURNED, MADE, RATE, BATCH = 10, 64, 0.1, 100, 3e-3, 64
Rows = tuple[np.ndarray, np.ndarray]


def found(seeds: Sequence[int], rows: int, steps: int) -> dict[str, dict[str, list[float]]]:
    """Shares told rightly, shares made as asked, and bits away from the pattern asked for, by way and seed.

    Examples
    --------
    >>> got = found([0], rows=50, steps=2)
    >>> list(got), sorted(got["separate"]), len(got["real"]["away"])
    (['transposed', 'separate', 'real'], ['asked', 'away', 'told'], 1)
    """
    made: dict[str, dict[str, list[float]]] = {name: {"told": [], "asked": [], "away": []} for name in (*WAYS, "real")}
    for seed in seeds:
        patterns = np.random.default_rng(seed).integers(0, 2, size=(PATTERNS, BITS))
        known, unseen = (near(patterns, rows, 1000 * seed + i) for i in (1, 2))
        for way in WAYS:
            model = _fitted(way, known, steps, seed)
            dreams = np.concatenate([model.dream(label, MADE) for label in range(PATTERNS)])
            right = float(np.mean(model.predict(unseen[0]) == unseen[1]))
            _noted(made[way], right, patterns, (dreams, np.repeat(np.arange(PATTERNS), MADE)))
        nearest = np.mean(_distances(unseen[0], patterns).argmin(axis=1) == unseen[1])
        _noted(made["real"], float(nearest), patterns, unseen)
    return made


def near(patterns: np.ndarray, rows: int, seed: int) -> Rows:
    """Rows near patterns, and which pattern each is near.

    Examples
    --------
    >>> X, y = near(np.zeros((2, 1000)), 3, seed=0)
    >>> X.shape, bool(abs(X.mean() - 0.1) < 0.02)
    ((3, 1000), True)
    """
    stream = np.random.default_rng(seed)
    y = stream.integers(0, len(patterns), size=rows)
    turned = stream.uniform(size=(rows, patterns.shape[1])) < TURNED
    return np.where(turned, 1 - patterns[y], patterns[y]).astype(float), y


def _fitted(way: Pairing, known: Rows, steps: int, seed: int) -> CoupledClassifier:
    model = CoupledClassifier(layers=(64, 32), top=Independent(), pairing=way, random_state=seed, progress=False)
    model.set_params(negatives=Persistent(1, BATCH), telling=LocalTelling(1.0), batch_size=BATCH)
    return model.set_params(rate=Linear(RATE, 0.0, float(steps)), steps=steps).fit(*known)


def _noted(made: dict[str, list[float]], told: float, patterns: np.ndarray, rows: Rows) -> None:
    away, label = _distances(rows[0], patterns), rows[1]
    made["told"].append(told)
    made["asked"].append(float(np.mean(away.argmin(axis=1) == label)))
    made["away"].append(float(f"{away[np.arange(len(label)), label].mean():.6g}"))


def _distances(rows: np.ndarray, patterns: np.ndarray) -> np.ndarray:
    """Bits that differ; of probabilities, how many are expected to. Shape (rows, patterns)."""
    return np.abs(rows[:, None] - patterns[None]).sum(axis=2)


def words(result: Mapping[str, Any]) -> str:
    """A line for each way, and one for real rows, as Markdown: means over the seeds."""
    heads = ["weights", "unseen rows told rightly", "made rows nearest to the pattern asked for", "bits away from it"]
    lines = [heads, ["---"] * len(heads)]
    for name, one in result["found"].items():
        told, asked, away = (float(np.mean(one[which])) for which in ("told", "asked", "away"))
        called = "real rows, by the nearest pattern" if name == "real" else name
        lines.append([called, f"{100 * told:.1f} %", f"{100 * asked:.1f} %", f"{away:.2f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def picture(result: Mapping[str, Any]) -> Any:
    """Every seed as a dot: how far made rows are from the pattern asked for. A matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes, ways = figure.subplots(), result["found"]
    for i, one in enumerate(ways.values()):
        axes.plot(one["away"], np.full(len(one["away"]), i), "o", color="C0", alpha=0.7)
    axes.set(yticks=range(len(ways)), yticklabels=list(ways), xlabel="bits away from the pattern", ylim=(2.5, -0.5))
    return figure
