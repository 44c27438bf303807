"""Rows that are unlike the rest, the oddest first, and which of their cells are to blame."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np

from ravine._check import require, whole
from ravine.anomalies.blame import Judged, judged
from ravine.anomalies.cells import Cells, Part, cells_of, in_words, parts_of
from ravine.anomalies.found import Anomalies, OddCell, OddRow
from ravine.anomalies.tails import tail_probabilities

__all__ = ["Anomalies", "OddCell", "OddRow", "anomalies"]

TOP = 20  # rows, unless asked for
DRAWS = 999


def anomalies(model: Any, X: Any, top: int | None = None, *, blame: bool = True, draws: int = DRAWS) -> Anomalies:
    r"""Rank rows by how unlikely they are under a fitted model, and say which cells of the first are to blame.

    Rows are ranked by their tail probability: the share of rows drawn from the model that, of the *same* observed
    cells, score at most as much. So a row with holes is not taken for a likely one because it has fewer cells. It is
    an exact p-value under the model: among n rows of the model itself about n / 1000 have one of at most 1 / 1000.
    Rows with one tail probability are in the order of how far they lie below the draws, in their standard deviations.

    To find the cells, each observed one is hidden in turn. ``log_p`` of a cell is
    :math:`\log p(x_j \mid x_{-j}) = \log p(x) - \log p(x_{-j})`, and ``nats``, by which cells are ordered, how much
    log p(x) rises when the cell takes the value that the model expects there: the likeliest of the imputation and a
    few conditional draws. It does not depend on units; for a Gaussian it is half the squared z-score. Where log p(x)
    is a bound, both are differences of bounds, hence estimates. An image of more than 200 cells is hidden in at most
    100 patches. In a table of more than 200 columns neighbouring columns are hidden together first, and one by one
    in the three worst groups of a row.

    Parameters
    ----------
    model : a fitted estimator.
    X : rows, array, data frame or images, shape (rows, ...); NaN where a cell is missing. They are not altered.
    top : how many rows are listed; at most 20 unless given.
    blame : look for the cells to blame in the listed rows.
    draws : rows drawn from the model; the smallest tail probability is 1 / (draws + 1).

    Raises
    ------
    ValueError
        When the model is not fitted, there are no rows, or they do not suit the model.

    Examples
    --------
    >>> import ravine as rv
    >>> X = np.random.default_rng(0).normal(size=(200, 1)) + 0.3 * np.random.default_rng(1).normal(size=(200, 3))
    >>> model = rv.FactorAnalysis(latents=1, random_state=0).fit(X)
    >>> X[7, 1] += 5
    >>> found = anomalies(model, X, top=1, draws=99)
    >>> found.odd[0].place, found.odd[0].cells[0].name
    (7, "column 'x1'")
    """
    draws = whole("draws", draws)
    require(hasattr(X, "__len__") and len(X), "the rows", "at least one", "none", "give some")
    whole_rows = "a model of whole rows, which rows are compared with"
    good = hasattr(model, "sample") and getattr(model, "of_rows", True)
    require(good, "anomalies", whole_rows, type(model).__name__, "rank rows by score_samples(X)")
    limit = TOP if top is None else whole("top", top)
    cells, values = cells_of(model, X)
    got = model.log_likelihood(X)
    tail, below = tail_probabilities(model, cells, draws)
    order = np.lexsort((-below, tail))
    first = order[:limit]
    listed, nats = _listed(model, cells.at(first), values[first]) if blame else ([()] * len(first), None)
    labels = X.index[first].tolist() if hasattr(X, "iloc") else first.tolist()
    odd = tuple(
        OddRow(rank + 1, int(i), label, float(got.value[i]), float(got.standard_error[i]), float(tail[i]), cells)
        for rank, (i, label, cells) in enumerate(zip(first, labels, listed, strict=True))
    )
    shape = model.schema_.image_shape
    kept = nats if nats is None or shape is None else nats.reshape(len(nats), *shape)
    return Anomalies(odd, np.asarray(got.value), tail, order, kept, draws, got.direction, got.method)


def _listed(model: Any, cells: Cells, values: np.ndarray) -> tuple[list[tuple[OddCell, ...]], np.ndarray]:
    """The cells of each row, the worst first, and their nats in the place of each cell of the table."""
    parts = parts_of(model)
    found = judged(model, cells, parts)
    expected = model._outward(model.schema_.point(found.expected))
    nats = np.full(values.shape, np.nan)
    for row, part, value in zip(found.row, found.part, found.nats, strict=True):
        nats[row, list(parts[part].columns)] = value
    nats[np.isnan(values)] = np.nan
    return [_of_row(model, i, found, parts, values[i], expected) for i in range(len(values))], nats


def _of_row(
    model: Any, i: int, found: Judged, parts: list[Part], values: np.ndarray, expected: np.ndarray
) -> tuple[OddCell, ...]:
    mine = np.flatnonzero(found.row == i)
    mine = mine[np.argsort(-found.nats[mine], kind="stable")]
    schema, made = model.schema_, []
    for k in mine.tolist():
        part = parts[found.part[k]]
        there, wanted = in_words(schema, part, values), in_words(schema, part, expected[k])
        numbers = (float(each[k]) for each in (found.nats, found.error, found.log_p))
        made.append(OddCell(part.name, there, wanted, *numbers))
    return tuple(made)


class _Callable(types.ModuleType):
    """``ravine.anomalies`` names this module as soon as it was imported: it can be called like the function."""

    def __call__(self, *arguments: Any, **options: Any) -> Anomalies:
        return anomalies(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
