"""What the report looks at: the rows it was given, thinned where they are many, and what the model says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ravine._check import require, shown
from ravine._containers import flattened, image_axes
from ravine.core import LogLikelihood
from ravine.data.frames import given
from ravine.evaluation import Evaluation, evaluation

ROWS = 10_000  # looked at in all
SCORED = 500  # rows whose log p(x) is estimated; where it is exact, all are scored
MAPPED = 1_500
SAMPLES = 1_000
MOST_LEVELS = 30  # a column of text with more values than this is left out of the charts
FEW_LEVELS = 12  # integers with at most so many values are shown value by value


@dataclass(frozen=True)
class Column:
    """One column as floats, NaN where missing; ``levels`` are the names of 0, 1, 2, ... where it holds no numbers."""

    name: str
    values: np.ndarray
    levels: tuple[str, ...] | None = None

    def known(self) -> np.ndarray:
        """The observed values."""
        return self.values[~np.isnan(self.values)]

    def shown(self) -> bool:
        """Whether it can be drawn: something was observed, and it is not an identifier."""
        return bool(self.known().size) and (self.levels is None or len(self.levels) <= MOST_LEVELS)


def columns(tables: Sequence[Any], names: Sequence[str] | None) -> list[list[Column]]:
    """The columns of tables that have the same ones, in the same codes."""
    read = [list(given(table)) for table in tables]
    titles = names or [column.name for column in read[0]]
    made = [_coded(title, [one.cells for one in same]) for title, *same in zip(titles, *read, strict=True)]
    return [list(one) for one in zip(*made, strict=True)]


def _coded(name: str, cells: Sequence[np.ndarray]) -> list[Column]:
    if all(one.dtype.kind == "f" for one in cells):
        return [Column(name, one) for one in cells]
    found = dict.fromkeys(str(v) for one in cells for v in one.tolist() if not _missing(v))
    levels = tuple(sorted(found))
    place = {level: float(i) for i, level in enumerate(levels)}
    codes = [[math.nan if _missing(v) else place[str(v)] for v in one.tolist()] for one in cells]
    return [Column(name, np.asarray(one, float), levels) for one in codes]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def take(X: Any, places: np.ndarray) -> Any:
    """Rows of an array or a data frame, in its own kind."""
    return X.iloc[places] if hasattr(X, "iloc") else np.asarray(X[places])


def some(rows: int, most: int) -> np.ndarray:
    """At most so many places, the same ones every time."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


@dataclass(frozen=True)
class Looked:
    """The rows of a report, and their likelihood.

    Attributes
    ----------
    model : the fitted estimator.
    X : rows that are looked at, images as flat rows.
    places : where these rows are in the table that the user gave.
    given : how many rows that table has.
    scored : which of X were scored, in order.
    log_p : their log p(x) in nats.
    evaluation : the mean of it, and what kind of number it is.
    labels : one for each row of X, or None.
    unseen : whether the fit has not seen the rows; None when nobody knows.
    learned : rows that the fit has seen, where somebody gave them.
    """

    model: Any
    X: Any
    places: np.ndarray
    given: int
    scored: np.ndarray
    log_p: np.ndarray
    evaluation: Evaluation
    labels: np.ndarray | None
    unseen: bool | None
    learned: Any = None

    @property
    def image(self) -> tuple[int, ...] | None:
        """The shape of a row that is an image."""
        return self.model.schema_.image_shape

    @property
    def classes(self) -> bool:
        """Whether the latent cause is a class."""
        return hasattr(self.model, "predict_proba")

    @property
    def held(self) -> tuple[int, ...]:
        """Columns that the model is given, and of which it has no law."""
        return tuple(self.model.given_columns())

    def drawn(self, rows: int) -> Any:
        """New rows; where columns must be given, those of the first rows."""
        if self.held:
            return self.model.sample_given(take(self.X, np.arange(min(rows, len(self.places)))))[0]
        return self.model.sample(rows)

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the columns, where the training data had any."""
        return self.model.schema_.names

    def images(self, rows: Any) -> np.ndarray:
        """Flat rows as images."""
        shape = self.image or ()
        return np.asarray(rows, float).reshape(-1, *shape)


def look_at(model: Any, X: Any, labels: Any, unseen: bool | None, learned: Any = None) -> Looked:
    """Choose rows and score them.

    Raises
    ------
    ValueError
        When there are no rows, or as many labels as rows are not given.
    """
    rows = len(X) if hasattr(X, "__len__") else 0
    require(rows, "the rows of the report", "at least one", "none", "give some")
    labels = None if labels is None else np.asarray(labels).ravel()
    same = labels is None or len(labels) == rows
    require(same, "labels", f"{rows}, one for each row", f"{0 if labels is None else len(labels)}", "give one for each")
    places = some(rows, ROWS)
    X = take(X if hasattr(X, "iloc") or hasattr(X, "shape") else np.asarray(X), places)
    X = X if hasattr(X, "iloc") else flattened(X) if image_axes(X) else X
    scored = some(len(places), ROWS if model.evidence.direction == "exact" else SCORED)
    got = model.log_likelihood(take(X, scored))
    return Looked(
        model=model,
        X=X,
        places=places,
        given=rows,
        scored=scored,
        log_p=np.asarray(got.value, float),
        evaluation=_evaluation(model, take(X, scored), got),
        labels=None if labels is None else labels[places],
        unseen=unseen,
        learned=None if learned is None else flattened(learned) if image_axes(learned) else learned,
    )


def _evaluation(model: Any, X: Any, got: LogLikelihood) -> Evaluation:
    return evaluation(got, model._scored_cells(model._ready(X)), model.schema_, model.seed_)


def label_names(labels: np.ndarray, most: int = 10) -> tuple[list[str], np.ndarray] | None:
    """The names of labels and each row's place among them; None when they are a quantity.

    Beyond ``most`` names the rarest are put together.

    Examples
    --------
    >>> label_names(np.array(["b", "a", "b"]))[1].tolist()
    [1, 0, 1]
    """
    if labels.dtype.kind == "f" and len(np.unique(labels[np.isfinite(labels)])) > most:
        return None
    plain = [shown(v) if isinstance(v, bytes) else str(v) for v in labels.tolist()]
    names, codes, counts = np.unique(plain, return_inverse=True, return_counts=True)
    order = np.argsort(names) if len(names) <= most else np.sort(np.argsort(-counts, kind="stable")[: most - 1])
    if labels.dtype.kind in "iu" and len(names) <= most:
        order = np.array(sorted(range(len(names)), key=lambda i: float(names[i])))
    rank = np.full(len(names), len(order))
    rank[order] = np.arange(len(order))
    kept = [str(names[i]) for i in order] + (["other"] if len(order) < len(names) else [])
    return kept, rank[codes]
