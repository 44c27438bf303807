"""Whether made-up rows give away training rows: how near they come to one, against rows that the fit never saw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from ravine.diagnose import Copies, copies

ROWS = 2_000  # new rows whose distances are measured
LEAST = 20  # rows of each kind
SAME = 1e-4  # standard deviations: single precision has rounded a copy
SURE = 3.0  # standard errors
NEAR = 0.55  # share of pairs below which nobody is warned
CAUTION = "This is a check for copied rows, not a guarantee such as differential privacy."

Cells = tuple[Float[np.ndarray, "_ d"], Bool[np.ndarray, "_ d"]]  # values, and which were observed


@dataclass(frozen=True)
class Privacy:
    """How near made-up rows come to training rows.

    Attributes
    ----------
    exact, expected : share of the new rows, and of held-out rows (NaN without any), that equal a training row.
    nearer, error : share of pairs of a new row and a held-out row in which the new one is nearer to its closest
        training row, and its standard error when both have one law; 1/2 is what rows of new people give, 1 a copy.
    near : new rows that nearly repeat one training row, beside held-out rows that do; None without held-out rows.
    rows : numbers of new rows, of training rows and of held-out rows.
    """

    exact: float
    expected: float
    nearer: float
    error: float
    near: Copies | None
    rows: tuple[int, int, int]

    def good(self) -> bool | None:
        """True when no sign of copying was seen, None when there were no held-out rows to compare with."""
        if self._repeats():
            return False
        if self.near is None:
            return None
        return self.near.z < SURE and not self._too_near()

    def _repeats(self) -> bool:
        """More exact copies than held-out rows have by chance."""
        n, m = self.rows[0], self.rows[2]
        if not m or math.isnan(self.expected):
            return self.exact > 0
        pooled = (self.exact * n + self.expected * m + 1) / (n + m + 2)
        return self.exact - self.expected > SURE * math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))

    def _too_near(self) -> bool:
        return self.nearer > NEAR and self.nearer - 0.5 > SURE * self.error

    def words(self) -> str:
        """What was found, and what it is not."""
        return " ".join(line for line in (self._exact(), self._near(), self._leak(), CAUTION) if line)

    def _exact(self) -> str:
        count = round(self.exact * self.rows[0])
        beside = "" if math.isnan(self.expected) else f"; of held-out rows {100 * self.expected:.2g} %"
        return f"{count:,} of {self.rows[0]:,} new rows equal a training row ({100 * self.exact:.2g} %{beside})."

    def _near(self) -> str:
        if self.near is None:
            return "How near they come could not be judged: that takes 20 rows that the fit has not seen."
        share = f"{100 * self.nearer:.1f} +- {100 * self.error:.1f} %"
        return f"New rows are nearer to a training row than held-out rows are in {share} of pairs (50 % is expected)."

    def _leak(self) -> str:
        if self.near is None or self.good():
            return ""
        if self._repeats() or self.near.z >= SURE:
            return "Training rows leak into the new rows: do not share them; use a smaller model or stop earlier."
        return "They are too near: the model has learned training rows by heart, or draws only typical rows."

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; None stands for what could not be computed."""
        near = None if self.near is None else dict(self.near.finding().numbers)
        numbers = {"exact": self.exact, "exact_held_out": self.expected, "nearer": self.nearer, "error": self.error}
        known = {name: None if math.isnan(value) else value for name, value in numbers.items()}
        return {"good": self.good(), **known, "copies": near, "rows": list(self.rows), "caution": CAUTION}


def privacy(train: Cells, held_out: Cells, made: Float[np.ndarray, "m d"]) -> Privacy:
    """Compare distances to the closest training row, of made-up rows and of rows that the fit has not seen.

    Distances are those of `ravine.diagnose.copies`: root mean squares over the cells that both rows have, in standard
    deviations; a category counts once per level. ``nearer`` is the statistic of Mann & Whitney (1947) over m and n
    rows, and its standard error under equal laws :math:`((m + n + 1) / 12 m n)^{1/2}`; ties make it smaller.
    """
    some = made[:ROWS]
    exact, m, n = _equal((some, np.ones(some.shape, bool)), train), len(some), len(held_out[0])
    rows, expected = (m, len(train[0]), n), _equal(held_out, train) if n else math.nan
    if min(m, n) < LEAST or len(np.unique(train[0], axis=0)) < 2:
        return Privacy(exact, expected, math.nan, math.nan, None, rows)
    near = copies(train, held_out, some)
    return Privacy(exact, expected, near.nearer, math.sqrt((m + n + 1) / (12 * m * n)), near, rows)


def _equal(rows: Cells, train: Cells) -> float:
    """Share of rows that equal a training row, up to rounding, on all cells; holes must be the same."""
    x, seen = train
    mean = np.where(seen, x, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    spread = np.sqrt(np.where(seen, (x - mean) ** 2, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1))
    scale = np.where(spread > np.finfo(np.float32).eps * (1 + np.abs(mean)), spread, 1)
    known, asked = (np.where(mask, (cells - mean) / scale, 1e6) for cells, mask in (train, rows))
    distance, _ = cKDTree(known).query(asked, p=np.inf, distance_upper_bound=SAME)
    return float(np.mean(np.isfinite(distance)))
