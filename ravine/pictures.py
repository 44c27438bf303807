"""Pictures of fitted exact models: smoothed series with paths of states, ellipses of mixtures, loadings of causes.

Needs matplotlib (``pip install ravine[plot]``).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from ravine import verbs
from ravine._check import require, whole
from ravine._jax import folded_key, precision
from ravine.core import Row
from ravine.data.sequences import Sequences
from ravine.diagnose._pictures import saved
from ravine.sequence_model import SequenceModel

DRAWS = 400


def series(
    model: SequenceModel, X: Any, which: int = 0, *, ahead: int = 0, level: float = 0.9, path: Any = None
) -> Any:
    """One sequence, a frame for each column: what was seen, what is expected of each step, what follows.

    The line is E[step | latents] averaged over p(latents | whole sequence), and the band holds its central ``level``.
    After the last step come forecasts, whose band is of the cells themselves. Behind is the path of states, where
    there is one. At most eight columns are shown.

    Parameters
    ----------
    model : a fitted model of sequences.
    X : sequences in any container.
    which : the number of the sequence that is shown.
    ahead : how many steps are forecast.
    level : probability of the bands.
    path : a file to write, such as ``"series.png"``.

    Returns
    -------
    The figure.

    Raises
    ------
    ValueError
        When there is no such sequence, or the level is no probability.
    """
    from matplotlib.figure import Figure

    require(0 < level < 1, "level", "a probability between 0 and 1", f"{level}", "ask for one such as 0.9")
    sequences = model.read(X)
    require(0 <= which < len(sequences), "which", f"a number below {len(sequences)}", f"{which}", "count from 0")
    one = Sequences(np.asarray(sequences[which], float))
    low, middle, high = signal(model, one, level)
    names = list(getattr(model, "feature_names_in_", [f"x{i}" for i in range(one.steps.shape[1])]))[:8]
    figure = Figure(figsize=(8, 0.7 + 1.5 * len(names)), layout="constrained")
    frames = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    steps = np.arange(len(one.steps))
    for i, (axes, name) in enumerate(zip(frames, names, strict=True)):
        axes.fill_between(steps, low[:, i], high[:, i], color="tab:blue", alpha=0.25, lw=0)
        axes.plot(steps, middle[:, i], color="tab:blue", lw=1.2)
        axes.plot(steps, one.steps[:, i], ".", color="0.2", ms=3)
        axes.set_ylabel(name)
        axes.margins(x=0.01)
    if hasattr(model, "predict"):
        _states(frames, model.predict(one).steps[:, 0])  # pyright: ignore[reportAttributeAccessIssue]
    if ahead:
        _forecasts(frames, model, one, whole("ahead", ahead), level)
    frames[-1].set_xlabel("step")
    return saved(figure, path)


def signal(model: SequenceModel, one: Sequences, level: float) -> np.ndarray:
    """Low end, mean and high end of E[step | latents] over the posterior of the latents, shape (3, steps, columns)."""
    with precision(model.precision):
        row = model._row(one)
        drawn = verbs.blockwise(_signals, row, model.model_, folded_key(model._key(), 5))[0]
        drawn = model.schema_.decode(drawn)[:, : len(one.steps)]
    ends = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.stack([ends[0], drawn.mean(axis=0), ends[1]])


def _signals(block: Row, model: Any, key: PRNGKeyArray) -> Array:
    def one(row: Row) -> Array:
        law = model.posterior(row)
        return jax.vmap(lambda k: model.likelihood(law.sample(key=k)[0]).mean())(jr.split(key, DRAWS))

    return jax.vmap(one)(block)


def _states(frames: Any, states: np.ndarray) -> None:
    """Stripes behind the frames, one tone for each state."""
    starts = np.flatnonzero(np.diff(states, prepend=states[0] - 1))
    ends = [*starts[1:], len(states)]
    for axes in frames:
        for start, end in zip(starts, ends, strict=True):
            axes.axvspan(start - 0.5, end - 0.5, color=f"C{int(states[start]) % 10}", alpha=0.12, lw=0)


def _forecasts(frames: Any, model: SequenceModel, one: Sequences, ahead: int, level: float) -> None:
    steps = len(one.steps) + np.arange(ahead)
    mean, (low, high) = model.forecast(one, ahead)[0], (ends[0] for ends in model.forecast(one, ahead, interval=level))
    for i, axes in enumerate(frames):
        axes.fill_between(steps, low[:, i], high[:, i], color="tab:orange", alpha=0.25, lw=0)
        axes.plot(steps, mean[:, i], color="tab:orange", lw=1.2)


def ellipses(model: Any, X: Any, columns: tuple[int, int] = (0, 1), *, path: Any = None) -> Any:
    """Rows in two columns, coloured by their class, with two standard deviations around the mean of each class.

    Means and spreads are those of the rows under the probabilities of `predict_proba`, so they stand for any law that
    the classes may have. Rows where one of the two cells is missing are left out.

    Parameters
    ----------
    model : a fitted model with classes, such as `GaussianMixture`.
    X : rows.
    columns : the places of two columns.
    path : a file to write.

    Returns
    -------
    The figure.
    """
    from matplotlib.figure import Figure

    require(hasattr(model, "predict_proba"), "ellipses", "a model with classes", type(model).__name__, "fit a mixture")
    cells, shares = np.asarray(X, float)[:, list(columns)], np.asarray(model.predict_proba(X))
    seen = ~np.isnan(cells).any(axis=1)
    cells, shares = cells[seen], shares[seen]
    figure = Figure(figsize=(5, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.scatter(*cells.T, c=[f"C{i % 10}" for i in shares.argmax(axis=1)], s=8, lw=0, alpha=0.7)
    angle = np.linspace(0, 2 * np.pi, 100)
    for i, share in enumerate(shares.T):
        if share.sum() > 1:
            mean = np.average(cells, axis=0, weights=share)
            values, axes_of = np.linalg.eigh(np.cov(cells.T, aweights=share))
            ring = 2 * axes_of @ (np.sqrt(np.maximum(values, 0))[:, None] * np.stack([np.cos(angle), np.sin(angle)]))
            axes.plot(*(mean[:, None] + ring), color=f"C{i % 10}", lw=1.5)
    names = getattr(model, "feature_names_in_", [f"x{i}" for i in range(np.shape(X)[1])])
    axes.set(xlabel=names[columns[0]], ylabel=names[columns[1]])
    return saved(figure, path)


def loadings(model: Any, *, path: Any = None) -> Any:
    """What one standard deviation of each cause adds to each column, in the units of the model, as a table of colours.

    Parameters
    ----------
    model : a fitted model whose cells are linear in its causes, such as `FactorAnalysis`.
    path : a file to write.

    Returns
    -------
    The figure.
    """
    from matplotlib.figure import Figure

    there = hasattr(getattr(model, "model_", None), "loading")
    require(there, "loadings", "a fitted linear model of causes", type(model).__name__, "fit factor analysis")
    weights = np.asarray(model.model_.loading)
    names = getattr(model, "feature_names_in_", [f"x{i}" for i in range(len(weights))])
    figure = Figure(figsize=(1.8 + 0.5 * weights.shape[1], 0.8 + 0.28 * len(weights)), layout="constrained")
    axes = figure.subplots()
    most = float(np.abs(weights).max()) or 1.0
    shown = axes.imshow(weights, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    axes.set_yticks(np.arange(len(weights)), list(names))
    axes.set_xticks(np.arange(weights.shape[1]))
    axes.set_xlabel("cause")
    figure.colorbar(shown)
    return saved(figure, path)


__all__ = ["ellipses", "loadings", "series", "signal"]
