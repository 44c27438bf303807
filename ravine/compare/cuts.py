"""Columns as variables of finitely many states, and the law of a value inside its state.

The state of a level is the level itself. Numbers are cut into intervals, and every interval holds a normalised law of
its own, so that the probability of a state times the law inside it has the base measure of the column.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Union

import numpy as np

MOST = 16  # intervals of a column
ROWS_PER_CELL = 5  # so many rows are wanted for each pair of intervals of two columns
SHARPEST = 0.1  # narrowest interval and tail, in deviations of the column: repeated values must not make a spike

Variable = Union["Levels", "Pieces", "Whole", "Recorded"]


@dataclass(frozen=True)
class Levels:
    """A variable whose states are its levels 0, 1, .. ``states`` - 1."""

    states: int
    numbers: int = 0

    def places(self, values: np.ndarray) -> np.ndarray:
        """The state of each value."""
        return values.astype(int)

    def log_within(self, values: np.ndarray) -> np.ndarray:
        """Log law of each value given its state, in nats."""
        return np.zeros(len(values))


@dataclass(frozen=True)
class Pieces:
    """A real variable cut at ``edges``: uniform between two edges or limits, exponential beyond the last ones.

    State b holds the values above the edge b - 1, up to the edge b itself. A tail has the density
    ``exp(-distance / scale) / scale``, which fits best when the scale is the mean distance of its values.

    Examples
    --------
    >>> pieces = Pieces((0.0, 2.0), (1.0, 1.0))
    >>> pieces.places(np.array([-1.0, 0.5, 9.0])).tolist()
    [0, 1, 2]
    >>> np.exp(pieces.log_within(np.array([-1.0, 0.5]))).round(4).tolist()
    [0.3679, 0.5]
    """

    edges: tuple[float, ...]
    tails: tuple[float, float]
    low: float = -math.inf
    high: float = math.inf

    @property
    def states(self) -> int:
        """Number of intervals."""
        return len(self.edges) + 1

    @property
    def numbers(self) -> int:
        """How many numbers the cut has learned."""
        return len(self.edges) + math.isinf(self.low) + math.isinf(self.high)

    def places(self, values: np.ndarray) -> np.ndarray:
        """The interval of each value."""
        return np.searchsorted(self.edges, values, side="left")

    def log_within(self, values: np.ndarray) -> np.ndarray:
        """Log density of each value given its interval, in nats."""
        ends, at = np.array([self.low, *self.edges, self.high]), self.places(values)
        made = -np.log(ends[at + 1] - ends[at])  # -inf in an open interval, replaced below
        for open_, state, scale, edge in (
            (math.isinf(self.low), 0, self.tails[0], self.edges[0]),
            (math.isinf(self.high), len(self.edges), self.tails[1], self.edges[-1]),
        ):
            tail = -math.log(scale) - np.abs(values - edge) / scale
            made = np.where(open_ & (at == state), tail, made)
        return made


@dataclass(frozen=True)
class Whole:
    """Whole numbers in groups that begin at ``starts``: uniform in a group, geometric in the last if it has no end.

    ``end`` is the number after the largest; ``tail`` is the mean excess in a group without an end.

    Examples
    --------
    >>> whole = Whole((0, 1, 4), None, 1.0)
    >>> np.exp(whole.log_within(np.array([0.0, 2.0, 4.0, 5.0]))).round(4).tolist()
    [1.0, 0.3333, 0.5, 0.25]
    """

    starts: tuple[int, ...]
    end: int | None
    tail: float = 0.0

    @property
    def states(self) -> int:
        """Number of groups."""
        return len(self.starts)

    @property
    def numbers(self) -> int:
        """How many numbers the cut has learned."""
        return len(self.starts) - 1 + (self.end is None)

    def places(self, values: np.ndarray) -> np.ndarray:
        """The group of each value."""
        return np.searchsorted(self.starts, values, side="right") - 1

    def log_within(self, values: np.ndarray) -> np.ndarray:
        """Log probability of each value given its group, in nats."""
        at, last = self.places(values), self.starts[-1]
        ends = np.array([*self.starts[1:], self.end or last + 1])
        made = -np.log(ends[at] - np.asarray(self.starts)[at])
        if self.end is not None:
            return made
        stay = self.tail / (1 + self.tail)
        return np.where(at == self.states - 1, math.log1p(-stay) + (values - last) * math.log(stay), made)


@dataclass(frozen=True)
class Recorded:
    """A real variable that is recorded as a limit beyond it: a state for each limit, and pieces between."""

    low: float
    high: float
    inner: Pieces

    @property
    def states(self) -> int:
        """Number of intervals and limits."""
        return self.inner.states + 2

    @property
    def numbers(self) -> int:
        """How many numbers the cut has learned."""
        return self.inner.numbers

    def places(self, values: np.ndarray) -> np.ndarray:
        """0 at the lower limit, the last state at the upper one, an interval between."""
        inside = 1 + self.inner.places(values)
        return np.where(values <= self.low, 0, np.where(values >= self.high, self.states - 1, inside))

    def log_within(self, values: np.ndarray) -> np.ndarray:
        """Log density between the limits, in nats; 0 at a limit."""
        between = (values > self.low) & (values < self.high)
        return np.where(between, self.inner.log_within(np.where(between, values, self.inner.edges[0])), 0.0)


def intervals(seen: int, most: int = MOST) -> int:
    """How many intervals so many values are worth: a pair of columns has the square of it.

    Examples
    --------
    >>> intervals(150), intervals(10_000)
    (5, 16)
    """
    return int(min(most, max(2, math.sqrt(seen / ROWS_PER_CELL))))


def pieces(seen: np.ndarray, most: int = MOST, low: float = -math.inf, high: float = math.inf) -> Pieces:
    """Real values cut at their quantiles; between ``low`` and ``high`` where the column has limits."""
    if not len(seen):
        seen = np.array([max(low, min(high, 0.0))])
    least, count = SHARPEST * _spread(seen), intervals(len(seen), most)
    edges: list[float] = []
    for edge in np.quantile(seen, np.arange(1, count) / count):
        apart = edge - (edges[-1] if edges else low) >= least and high - edge >= least
        edges += [float(edge)] if apart else []
    edges = edges or [_middle(seen, low, high)]
    below, above = edges[0] - seen[seen <= edges[0]], seen[seen > edges[-1]] - edges[-1]
    tails = [max(float(part.mean()) if len(part) else 0.0, least) for part in (below, above)]
    return Pieces(tuple(edges), (tails[0], tails[1]), low, high)


def whole(seen: np.ndarray, most: int = MOST, end: int | None = None) -> Whole:
    """Whole numbers in groups: one for each number when they are few, else between quantiles."""
    top = end - 1 if end is not None else int(seen.max(initial=0.0))
    if top < most:
        starts = np.arange(top + 1)
    else:
        count = intervals(len(seen), most)
        quantiles = np.quantile(seen, np.arange(1, count) / count) if len(seen) else []
        starts = np.unique([0, *np.floor(quantiles).astype(int).tolist()])
    excess = seen[seen >= starts[-1]] - starts[-1]
    # half a number more than was seen: larger ones than the largest may come
    tail = 0.0 if end is not None else float((excess.sum() + 0.5) / (len(excess) + 1))
    return Whole(tuple(starts.tolist()), end, tail)


def recorded(seen: np.ndarray, low: float, high: float, most: int = MOST) -> Recorded:
    """Values with a mass at the limits."""
    return Recorded(low, high, pieces(seen[(seen > low) & (seen < high)], most, low, high))


def _spread(seen: np.ndarray) -> float:
    """The deviation, by quartiles where they say less: a wild value must not hide the others."""
    quarter, three = np.quantile(seen, [0.25, 0.75])
    deviation, middle = float(seen.std()), float(three - quarter) / 1.349
    spread = min(deviation, middle) if middle > 0 else deviation
    return spread if spread > 0 else max(abs(float(seen[0])), 1.0)


def _middle(seen: np.ndarray, low: float, high: float) -> float:
    """A single edge: the median, or what lies between two limits."""
    median = float(np.median(seen))
    return median if low < median < high else (low + high) / 2 if math.isfinite(high - low) else median
