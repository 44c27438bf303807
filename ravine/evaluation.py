"""A mean log-likelihood, a share of right classes or an error there and back, and all it takes to compare it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ravine.core import Direction, LogLikelihood
from ravine.data import AnySchema


class Evaluation(NamedTuple):
    """Mean log-likelihood of some rows, and everything needed to compare it with another.

    ``log_likelihood`` and ``standard_error`` are in nats per row; the error is that of the mean over the rows and
    includes the Monte Carlo noise, that of log Z too. ``bits_per_dim`` is in bits per observed cell. ``direction``
    says on which side of the truth the value is expected. ``per_step`` is the mean in nats per step of sequences at
    which something was observed; None for rows.
    """

    log_likelihood: float
    standard_error: float
    rows: int
    bits_per_dim: float
    direction: Direction
    method: str
    measure: str
    treated: str
    seed: int
    per_step: float | None = None

    def __str__(self) -> str:
        kind = {"lower": "lower bound", "upper": "upper bound"}.get(self.direction, self.direction)
        row = "row" if self.per_step is None else "sequence"
        number = f"{self.log_likelihood:.3f} +- {self.standard_error:.3f} nats per {row}"
        number += "" if self.per_step is None else f", {self.per_step:.3f} per step"
        return f"{number} ({kind}, {self.method}, {self.rows} {row}s; {self.treated})"


class Accuracy(NamedTuple):
    """The share of some rows that were given their right class.

    ``standard_error`` is that of the share over the rows, ``sqrt(p (1 - p) / rows)``.
    """

    accuracy: float
    standard_error: float
    rows: int
    treated: str
    seed: int

    def __str__(self) -> str:
        number = f"{100 * self.accuracy:.2f} +- {100 * self.standard_error:.2f} % right"
        return f"{number} ({self.rows} rows; {self.treated})"


class Faithfulness(NamedTuple):
    """How near rows come back from their codes.

    ``squared_error`` is the mean over rows of that of their observed cells, as the model reads them, and
    ``standard_error`` its own. ``explained`` is R^2, the share of the squared distances from the means of the training
    data that are gone.
    """

    squared_error: float
    standard_error: float
    explained: float
    rows: int
    treated: str
    seed: int

    def __str__(self) -> str:
        number = f"{self.squared_error:.4g} +- {self.standard_error:.2g} squared error of a cell there and back"
        return f"{number}, R^2 {self.explained:.3f} ({self.rows} rows; {self.treated})"


def faithfulness(
    away: Float[np.ndarray, "rows cells"], spread: Float[np.ndarray, "rows cells"], schema: AnySchema, seed: int
) -> Faithfulness:
    """Of how far cells come back from where they were, and how far these are from their means; NaN where missing.

    Rows without an observed cell are left out.

    Examples
    --------
    >>> from ravine.data import Schema
    >>> away = np.array([[0.5, -0.5], [0.1, np.nan]])
    >>> print(faithfulness(away, np.array([[1.0, 1.0], [-1.0, np.nan]]), Schema((2,), "real"), seed=0))
    0.13 +- 0.12 squared error of a cell there and back, R^2 0.830 (2 rows; 2 real cells)
    """
    seen = ~np.isnan(away)
    kept = seen.any(axis=1)
    each = np.sum(away**2, axis=1, where=seen)[kept] / np.sum(seen, axis=1)[kept]
    total = float(np.sum(spread**2, where=seen))
    explained = 1 - float(np.sum(away**2, where=seen)) / max(total, np.finfo(float).tiny)
    error = float(np.std(each, ddof=1) / len(each) ** 0.5) if len(each) > 1 else 0.0
    return Faithfulness(float(np.mean(each)), error, explained, len(each), schema.describe(), seed)


def accuracy(right: Bool[np.ndarray, " rows"], schema: AnySchema, seed: int) -> Accuracy:
    """The share of the rows that were told right.

    Examples
    --------
    >>> from ravine.data import Schema
    >>> print(accuracy(np.array([True, True, True, False]), Schema((2,), "real"), seed=0))
    75.00 +- 21.65 % right (4 rows; 2 real cells)
    """
    share = float(np.mean(right))
    return Accuracy(share, (share * (1 - share) / len(right)) ** 0.5, len(right), schema.describe(), seed)


def evaluation(got: LogLikelihood, cells: int, schema: AnySchema, seed: int, steps: int | None = None) -> Evaluation:
    """The evaluation of rows that observe so many cells in all, or of sequences of so many steps.

    Examples
    --------
    >>> got = LogLikelihood(np.array([-2.0, -4.0]), np.zeros(2), "exact", "closed-form")
    >>> from ravine.data import Schema
    >>> print(evaluation(got, 4, Schema((2,), "real"), seed=0))
    -3.000 +- 1.000 nats per row (exact, closed-form, 2 rows; 2 real cells)
    """
    rows, total = len(got.value), float(np.sum(got.value))
    spread = float(np.std(got.value, ddof=1)) if rows > 1 else float(got.standard_error[0])
    return Evaluation(
        log_likelihood=total / rows,
        standard_error=(spread**2 / rows + got.shared_error**2) ** 0.5,
        rows=rows,
        bits_per_dim=-total / (max(cells, 1) * float(np.log(2.0))),
        direction=got.direction,
        method=got.method,
        measure=schema.measure,
        treated=schema.describe(),
        seed=seed,
        per_step=None if steps is None else total / max(steps, 1),
    )
