"""What log p(x) of training rows and held-out rows tells: overfitting, and rows that are unlike the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ravine._check import require
from ravine.core import LogLikelihood
from ravine.diagnose._rows import mean_and_error
from ravine.diagnose.words import Finding

FAR = 8.0  # robust standard deviations below the median
DECILE = 1.2815515655446004  # of a normal law
SURE = 3.0  # standard errors
LISTED = 5


@dataclass(frozen=True)
class Generalisation:
    """Mean log p(x) of training rows minus that of held-out rows.

    Attributes
    ----------
    gap, error : the difference and its standard error, Monte Carlo noise included; nats per row.
    train, held_out : the two means.
    spread : standard deviation of log p(x) over held-out rows.
    rows : numbers of rows.
    """

    gap: float
    error: float
    train: float
    held_out: float
    spread: float
    rows: tuple[int, int]

    def finding(self) -> Finding:
        """The verdict in words."""
        numbers = {"gap": self.gap, "error": self.error, "train": self.train, "held_out": self.held_out}
        facts = (
            f"Training rows score {self.gap:.3g} +- {self.error:.2g} nats above held-out rows "
            f"({self.train:.2f} and {self.held_out:.2f}; {self.rows[0]} and {self.rows[1]} rows)"
        )
        sure = abs(self.gap) > SURE * self.error
        if sure and self.gap < 0:
            words = f"{facts}: held-out rows are the easier ones. Was the split random?"
            return Finding("generalisation", "note", words, numbers)
        if sure:
            words = f"{facts}: the model overfits. Try early stopping, more data, fewer latents or a smaller network."
            level = "warning" if self.gap > self.spread / 4 else "note"
            return Finding("generalisation", level, words, numbers)
        return Finding("generalisation", "good", f"{facts}: no sign of overfitting.", numbers)


def generalisation(train: LogLikelihood, held_out: LogLikelihood) -> Generalisation:
    """Gap between training rows and held-out rows, both evaluated in the same way.

    Raises
    ------
    ValueError
        When the two were evaluated by different methods, or one of them has fewer than two rows.

    Examples
    --------
    >>> def scored(values):
    ...     return LogLikelihood(np.array(values), np.zeros(len(values)), "exact", "closed-form")
    >>> generalisation(scored([-1.0, -2.0]), scored([-2.0, -4.0])).gap
    1.5
    """
    same = train.method == held_out.method
    require(same, "generalisation", f"two {train.method} values", held_out.method, "evaluate both in one way")
    fewest = min(len(train.value), len(held_out.value))
    require(fewest > 1, "generalisation", "at least 2 rows of each kind", f"{fewest}", "give more")
    (mean, error), (other, other_error) = (mean_and_error(np.asarray(each.value)) for each in (train, held_out))
    spread = float(np.std(held_out.value, ddof=1))
    rows = len(train.value), len(held_out.value)
    return Generalisation(mean - other, float(np.hypot(error, other_error)), mean, other, spread, rows)


@dataclass(frozen=True)
class OddRows:
    """Rows whose log p(x) is far below the rest, the lowest first.

    Attributes
    ----------
    places : where they stand in the batch that was given.
    log_p : theirs, in nats.
    z : how many robust standard deviations they lie from the median (negative).
    rows : how many rows were looked at.
    """

    places: Int[np.ndarray, " k"]
    log_p: Float[np.ndarray, " k"]
    z: Float[np.ndarray, " k"]
    rows: int

    def finding(self) -> Finding:
        """The verdict in words."""
        numbers = {"odd": float(len(self.places)), "rows": float(self.rows)}
        if not len(self.places):
            words = f"None of {self.rows} rows has a log p(x) far below the rest."
            return Finding("odd rows", "good", words, numbers)
        numbers |= {"lowest": float(self.log_p[0]), "lowest_z": float(self.z[0])}
        shown = zip(self.places[:LISTED], self.log_p[:LISTED], strict=True)
        listed = ", ".join(f"{place} ({value:.1f} nats)" for place, value in shown)
        more = " and others" if len(self.places) > LISTED else ""
        words = (
            f"{len(self.places)} of {self.rows} rows lie far below the rest in log p(x): rows {listed}{more}, counted "
            "from 0. Look at them: errors in the data, or a kind that the model has not learned."
        )
        return Finding("odd rows", "note", words, numbers)


def odd_rows(log_p: Float[np.ndarray, " n"], places: Int[np.ndarray, " n"] | None = None, far: float = FAR) -> OddRows:
    """Rows whose log p(x) lies more than ``far`` robust standard deviations below the median.

    The robust standard deviation is the distance of the lowest decile from the median over 1.28, which equals the usual
    one for normal values and follows the long lower tail that log p(x) has in few dimensions: with rows of a single
    normal cell, 8 of it are passed with probability 1.4e-4.

    Parameters
    ----------
    log_p : per row, in nats.
    places : what to call each row; 0, 1, ... unless given.

    Examples
    --------
    >>> odd_rows(np.append(np.random.default_rng(0).normal(size=99), -30.0)).places.tolist()
    [99]
    """
    log_p = np.asarray(log_p, np.float64)
    places = np.arange(len(log_p)) if places is None else places
    low, middle = np.quantile(log_p, [0.1, 0.5])
    scale = max((middle - low) / DECILE, np.finfo(np.float32).eps * (1 + abs(middle)))
    z = (log_p - middle) / scale
    order = np.argsort(z, kind="stable")[: np.count_nonzero(z < -far)]
    return OddRows(places[order], log_p[order], z[order], len(log_p))
