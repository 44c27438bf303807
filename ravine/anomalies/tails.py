"""How unlikely a row is among rows that the model makes up itself, of which the same cells are looked at."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ravine.anomalies.cells import Cells, log_p, made_up
from ravine.core import AbstractEvidence
from ravine.evidence import ImportanceWeighted

STOP = 10  # draws that are at most as likely, after which a row with holes is known to be ordinary
FIRST = 32  # draws of the first round; every round doubles them
COARSE = 64  # importance samples behind a tail probability
TOGETHER = 2**17  # rows that are scored at a time
FAR = 1e12  # nats; -inf would spoil means


@dataclass
class Count:
    """For each row, how many of the model's own rows were looked at, and how many were at most as likely.

    ``stop`` is the number of those after which no more are looked at.
    """

    value: Float[np.ndarray, " n"]
    stop: Float[np.ndarray, " n"]
    hits: Int[np.ndarray, " n"] = field(init=False)
    draws: Int[np.ndarray, " n"] = field(init=False)
    sums: Float[np.ndarray, "3 n"] = field(init=False)

    def __post_init__(self) -> None:
        self.hits, self.draws = (np.zeros(len(self.value), int) for _ in range(2))
        self.sums = np.zeros((3, len(self.value)))

    def going(self) -> Bool[np.ndarray, " n"]:
        """Rows that need more draws."""
        return self.hits < self.stop

    def add(self, rows: Int[np.ndarray, " m"], scores: Float[np.ndarray, "m k"]) -> None:
        """Take in more draws of some rows, of which the last that count are those that end the row."""
        hits = self.hits[rows, None] + np.cumsum(scores <= self.value[rows, None], axis=1)
        ends = hits >= self.stop[rows, None]
        used = np.where(ends.any(axis=1), np.argmax(ends, axis=1) + 1, scores.shape[1])
        self.hits[rows] = hits[np.arange(len(rows)), used - 1]
        self.draws[rows] += used
        far = np.clip(scores, -FAR, FAR)
        self.sums[:, rows] += np.stack([np.full(len(rows), float(scores.shape[1])), far.sum(1), (far**2).sum(1)])

    def tail(self) -> Float[np.ndarray, " n"]:
        """The p-values."""
        return np.where(self.going(), (self.hits + 1) / (self.draws + 1), self.hits / np.maximum(self.draws, 1))

    def below(self) -> Float[np.ndarray, " n"]:
        """How far a row lies below the mean of the draws, in their standard deviations: orders rows of one p-value."""
        count, total, squares = self.sums
        mean = total / count
        spread = np.sqrt(np.maximum(squares / count - mean**2, np.finfo(np.float32).eps * (1 + mean**2)))
        return (mean - np.clip(self.value, -FAR, FAR)) / spread


def tail_probabilities(model: Any, cells: Cells, draws: int) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    r"""Of each row, how many rows of the model are at most as likely on the same cells, and how far it is below them.

    With l draws of which g score at most as much, :math:`p = (g + 1) / (l + 1)` when all draws were used. A row with
    holes needs draws of its own, so it stops at the tenth that scores at most as much and has :math:`p = 10 / l` (Besag
    & Clifford 1991, *Sequential Monte Carlo p-values*, section 3). Both are exact under the model: a row from it has
    :math:`P(p \le \alpha) \le \alpha`. The draws depend on which cells are observed and on nothing else, so a row
    alone has the p-value that it has among others. Importance sampling uses at most 64 draws of z here, for the row and
    for the model's rows alike: any score gives an exact p-value.
    """
    evidence = coarse(model.evidence)
    value, _ = log_p(model, cells, evidence)
    made = made_up(model, draws)
    keys, which = np.unique(np.packbits(cells.seen, axis=1), axis=0, return_inverse=True)
    which, patterns = which.ravel(), np.unpackbits(keys, axis=1, count=cells.seen.shape[1]).astype(bool)
    first = np.array([zlib.crc32(key.tobytes()) % draws for key in keys])  # else early draws would decide for all rows
    count = Count(value, np.where(cells.seen.all(axis=1), np.inf, STOP))
    for start, end in _rounds(draws):
        going = count.going()
        for some in _portions(np.unique(which[going]), end - start):
            chosen = (first[some, None] + np.arange(start, end)) % draws
            scores = _scores(model, made[chosen], patterns[some], evidence)
            rows = np.flatnonzero(going & np.isin(which, some))
            count.add(rows, scores[np.searchsorted(some, which[rows])])
    return count.tail(), count.below()


def coarse(evidence: AbstractEvidence) -> AbstractEvidence:
    """A way to evaluate log p(x) that is cheap enough to be used a thousand times a row."""
    return ImportanceWeighted(COARSE) if isinstance(evidence, ImportanceWeighted) and evidence.k > COARSE else evidence


def _rounds(draws: int) -> Iterator[tuple[int, int]]:
    start, end = 0, min(FIRST, draws)
    while start < draws:
        yield start, end
        start, end = end, min(2 * end, draws)


def _portions(patterns: Int[np.ndarray, " p"], draws: int) -> Iterator[Int[np.ndarray, " q"]]:
    size = max(1, TOGETHER // draws)
    yield from (patterns[start : start + size] for start in range(0, len(patterns), size))


def _scores(
    model: Any, made: Float[np.ndarray, "p k d"], patterns: Bool[np.ndarray, "p d"], evidence: AbstractEvidence
) -> Float[np.ndarray, "p k"]:
    seen = np.repeat(patterns, made.shape[1], axis=0)
    x = np.where(seen, made.reshape(seen.shape), 0)
    return log_p(model, Cells(x, seen), evidence)[0].reshape(made.shape[:2])
