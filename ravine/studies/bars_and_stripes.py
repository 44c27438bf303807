"""Where the negative phase comes from, on images of whole rows or whole columns. Hinton 2002; Tieleman 2008.

A restricted Boltzmann machine of bits learns the bars and the stripes of a small image: the same steps, the same rate,
plain gradients, and chains that begin at the data, or that go on from step to step. All likelihoods are exact, of all
states. Contrastive divergence of one sweep puts mass where its chains never go; ten sweeps, and chains that go on, do
not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ravine._tree import Linear
from ravine.recipes.rbm import RBM
from ravine.rules import AbstractNegatives, ContrastiveDivergence, FastWeights, Persistent, Tempered

SCALES: Mapping[str, Mapping[str, Any]] = {
    "small": {"side": 3, "hidden": 8, "steps": 20_000},
    "4x4": {"side": 4, "hidden": 12, "steps": 30_000},
}
LEARNERS: Mapping[str, AbstractNegatives] = {
    "CD-1": ContrastiveDivergence(1),
    "CD-10": ContrastiveDivergence(10),
    "PCD-1": Persistent(1, 100),
    "fast weights": FastWeights(1, 100),
    "tempered": Tempered(20, 5),
}
BATCH, RATE, SPREAD, COPIES = 32, 0.05, 0.1, 40


def found(
    seeds: Sequence[int], side: int, hidden: int, steps: int, learners: Sequence[str] = tuple(LEARNERS)
) -> dict[str, list[float]]:
    """The exact mean log-likelihood of the images in nats, for each way to learn and each seed.

    Examples
    --------
    >>> got = found([0, 1], side=2, hidden=2, steps=3, learners=["CD-1"])
    >>> list(got), len(got["CD-1"])
    (['CD-1'], 2)
    """
    images, rate = bars_and_stripes(side), Linear(RATE, 0.0, float(steps))
    rows = np.tile(images, (COPIES, 1))  # so that batches differ
    made = {}
    for name in learners:
        model = RBM(hidden=hidden, negatives=LEARNERS[name], rate=rate, follow=0.0, batch_size=BATCH, steps=steps)
        model.set_params(spread=SPREAD, progress=False)
        fits = model.fit_seeds(rows, list(seeds))
        made[name] = [float(f"{fit.score(images):.6g}") for fit in fits]
    return made


def bars_and_stripes(side: int) -> np.ndarray:
    """Every image of whole rows, and every one of whole columns: all on and all off come twice.

    Examples
    --------
    >>> bars_and_stripes(2).shape
    (8, 4)
    """
    bits = (np.arange(2**side)[:, None] >> np.arange(side)) & 1
    across = np.repeat(bits[:, :, None], side, axis=2)
    return np.concatenate([across, across.transpose(0, 2, 1)]).reshape(-1, side * side).astype(float)


def most(side: int) -> float:
    """What no model can exceed: the mean log-likelihood of the images under their own law.

    Examples
    --------
    >>> round(most(3), 3)
    -2.599
    """
    share = np.unique(bars_and_stripes(side), axis=0, return_counts=True)[1] / 2 ** (side + 1)
    return float(share @ np.log(share))


def words(result: Mapping[str, Any]) -> str:
    """A line for each way to learn, as Markdown: the mean over the seeds, the worst and the best."""
    side = result["settings"]["side"]
    lines = [["negatives", "mean log-likelihood, nats", "worst seed", "best seed"], ["---"] * 4]
    lines += [[name, *(f"{f(v):.3f}" for f in (np.mean, np.min, np.max))] for name, v in result["found"].items()]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\nNo model can exceed {most(side):.3f}; fair coins reach {-(side**2) * np.log(2):.3f}.\n"


def picture(result: Mapping[str, Any]) -> Any:
    """Every seed as a dot, and what no model can exceed: a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes, side = figure.subplots(), result["settings"]["side"]
    for i, values in enumerate(result["found"].values()):
        axes.plot(np.full(len(values), i), values, "o", color="C0", alpha=0.7)
    axes.axhline(most(side), color="grey", lw=1, ls="--", label="the law of the images")
    axes.set(xticks=range(len(result["found"])), xticklabels=list(result["found"]), ylabel="log-likelihood, nats")
    axes.set(title=f"bars and stripes of {side} x {side} pixels")
    axes.legend(fontsize="small")
    return figure
