"""Whether made-up rows look like the real ones: columns, pairs of columns, and a classifier that tries to tell them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from ravine.diagnose import TwoSample, two_sample

SPLITS = 5  # random halves of the real rows
ROWS = 4_000  # of each kind, at most
TOLD = 500  # rows of each kind that the classifier sees
PAIRED = 200  # columns whose pairs are looked at
SURE = 3.0  # standard deviations of what halves of the real rows give
FEWEST = 40  # rows below which nothing is compared


@dataclass(frozen=True)
class Compared:
    """A distance between real and made-up rows, beside the same distance between two halves of the real rows.

    Attributes
    ----------
    distance, reference : of each column or pair, the mean over random halves.
    spread : standard deviation of the reference over halves, pooled over columns or pairs.
    """

    distance: Float[np.ndarray, "..."]
    reference: Float[np.ndarray, "..."]
    spread: float

    def off(self) -> Bool[np.ndarray, "..."]:
        """Where it is larger than chance explains: by three deviations, and half as large again."""
        return (self.distance > self.reference + SURE * self.spread) & (self.distance > 1.5 * self.reference)

    def worst(self) -> int:
        """Place of the largest distance, flat."""
        return int(np.argmax(self.distance))


@dataclass(frozen=True)
class Fidelity:
    """How well made-up rows follow the law of the real ones.

    Attributes
    ----------
    names : of the columns that are compared.
    columns : per column, the Kolmogorov-Smirnov distance; of a category without order the total variation distance.
    pairs : per pair of columns (columns, columns), the difference of their association: of the rank correlation; of
        categories the largest one over levels.
    paired : which columns the pairs are of.
    told : a classifier that tries to tell the rows apart; None when there are too few.
    """

    names: tuple[str, ...]
    columns: Compared
    pairs: Compared
    paired: tuple[int, ...]
    told: TwoSample | None

    def good(self) -> bool:
        """Whether no column, pair or classifier tells the rows from real ones."""
        sure = self.told is None or self.told.finding().level == "good"
        return sure and not self.columns.off().any() and not self.pairs.off().any()

    def words(self) -> str:
        """What was found, the worst by name."""
        lines = [self._columns(), self._pairs(), *([] if self.told is None else [self.told.finding().words])]
        return " ".join(
            line.replace("samples", "new rows").replace("data in", "real rows in") for line in lines if line
        )

    def _columns(self) -> str:
        got, off = self.columns, int(self.columns.off().sum())
        if not off:
            return f"Each column is as close to the real one as two halves of the real rows are ({_mean(got)})."
        at = got.worst()
        which = f"{off} of {len(self.names)} columns differ" if len(self.names) > 1 else "The column differs"
        far = f"{self.names[at]!r} by {got.distance[at]:.2f}, where halves of the real rows differ by"
        return f"{which} from the real ones, most {far} {got.reference[at]:.2f}."

    def _pairs(self) -> str:
        got, off = self.pairs, int(self.pairs.off().sum() // 2)
        if len(self.paired) < 2:
            return ""
        if not off:
            return f"The association of each pair is as close as in two halves ({_mean(got)})."
        a, b = (self.names[self.paired[i]] for i in np.unravel_index(got.worst(), got.distance.shape))
        many = len(self.paired) * (len(self.paired) - 1) // 2
        far = f"{a!r} and {b!r} by {got.distance.max():.2f}"
        chance = f"halves of the real rows by {got.reference.ravel()[got.worst()]:.2f}"
        return f"The association of {off} of {many} pairs is off, most that of {far}, {chance}."

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, by column."""
        far = zip(self.names, self.columns.distance.tolist(), self.columns.reference.tolist(), strict=True)
        told = None if self.told is None else dict(self.told.finding().numbers)
        upper = np.triu_indices(len(self.paired), 1)
        means = [float(each[upper].mean()) if len(upper[0]) else None for each in self._both()]
        return {
            "good": self.good(),
            "columns": {name: {"distance": a, "halves": b} for name, a, b in far},
            "pairs": {"mean_difference": means[0], "halves": means[1], "off": int(self.pairs.off().sum() // 2)},
            "classifier": told,
        }

    def _both(self) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs.distance, self.pairs.reference


def _mean(got: Compared) -> str:
    size = got.distance.size if got.distance.ndim == 1 else got.distance.size - len(got.distance)
    return f"mean distance {got.distance.sum() / size:.3f}, halves {got.reference.sum() / size:.3f}"


@dataclass(frozen=True)
class Columns:
    """What is compared of a table: codes (rows, columns) with NaN where missing, and the columns without an order."""

    names: tuple[str, ...]
    unordered: Bool[np.ndarray, " d"]


def fidelity(
    real: Float[np.ndarray, "n d"], made: Float[np.ndarray, "m d"], columns: Columns, *, stream: np.random.Generator
) -> Fidelity | None:
    """Compare rows with real ones, and two random halves of the real ones with each other; None where all are few.

    Halves and the made-up rows that stand against one are equally many, so both distances are as noisy.
    """
    kept = (~np.isnan(real)).any(axis=0) & (~np.isnan(made)).any(axis=0)
    real, made = (x[stream.permutation(len(x))[:ROWS]][:, kept] for x in (real, made))
    names = tuple(columns.names[j] for j in np.flatnonzero(kept))
    unordered = columns.unordered[kept]
    half = min(len(real) // 2, len(made))
    if half < FEWEST // 2 or not names:
        return None
    paired = np.unique(np.linspace(0, len(names) - 1, min(PAIRED, len(names))).astype(int))
    far = lambda a, b: _distances(a, b, unordered)  # noqa: E731
    apart = lambda a, b: _association(a[:, paired], b[:, paired], unordered[paired])  # noqa: E731
    halves = [_halves(real, made, half, stream) for _ in range(SPLITS)]
    each, both = (_compared(distance, halves) for distance in (far, apart))
    return Fidelity(names, each, both, tuple(paired.tolist()), _told(real, made, unordered, stream))


def _halves(real: np.ndarray, made: np.ndarray, half: int, stream: np.random.Generator) -> tuple[np.ndarray, ...]:
    order, chosen = stream.permutation(len(real)), stream.permutation(len(made))
    return real[order[:half]], real[order[half : 2 * half]], made[chosen[:half]]


def _compared(distance: Callable[..., np.ndarray], halves: list[tuple[np.ndarray, ...]]) -> Compared:
    made = np.mean([distance(a, c) for a, _, c in halves], axis=0)
    chance = np.stack([distance(a, b) for a, b, _ in halves])
    return Compared(made, chance.mean(axis=0), float(np.sqrt(chance.var(axis=0, ddof=1).mean())))


def _distances(a: np.ndarray, b: np.ndarray, unordered: Bool[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    return np.array([_distance(a[:, j], b[:, j], bool(unordered[j])) for j in range(a.shape[1])])


def _distance(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " m"], unordered: bool) -> float:
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    if not len(a) or not len(b):
        return 0.0
    values, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    parts = np.split(place.ravel(), [len(a)])
    p, q = (np.bincount(part, minlength=len(values)) / len(part) for part in parts)
    if unordered:
        return float(0.5 * np.abs(p - q).sum())
    return float(np.abs(np.cumsum(p - q)).max())


def _association(a: np.ndarray, b: np.ndarray, unordered: Bool[np.ndarray, " d"]) -> Float[np.ndarray, "d d"]:
    cells, owner = _cells(np.concatenate([a, b]), unordered)
    far = np.abs(_correlation(cells[: len(a)]) - _correlation(cells[len(a) :]))
    starts = np.searchsorted(owner, np.arange(a.shape[1]))
    far = np.maximum.reduceat(np.maximum.reduceat(far, starts, axis=0), starts, axis=1)
    np.fill_diagonal(far, 0)
    return far


def _cells(x: Float[np.ndarray, "n d"], unordered: Bool[np.ndarray, " d"]) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of ordered columns and a bit for each level of the others, NaN where missing; and whose they are."""
    made, owner = [], []
    for j, column in enumerate(x.T):
        known = ~np.isnan(column)
        levels = np.unique(column[known]) if unordered[j] else [0.0]
        for level in levels:
            cells = np.full(len(column), np.nan)
            cells[known] = column[known] == level if unordered[j] else rankdata(column[known])
            made.append(cells)
            owner.append(j)
    return np.stack(made, axis=1), np.array(owner)


def _correlation(cells: Float[np.ndarray, "n w"]) -> Float[np.ndarray, "w w"]:
    """Correlations over the rows that hold both cells; 0 for a cell that does not vary."""
    seen = ~np.isnan(cells)
    x = np.where(seen, cells - np.where(seen, cells, 0).sum(0) / np.maximum(seen.sum(0), 1), 0)
    here = seen.astype(float)
    count = np.maximum(here.T @ here, 1)
    mean, square = x.T @ here / count, (x**2).T @ here / count
    variance = np.maximum(square - mean**2, 0)
    scale = np.sqrt(variance * variance.T)
    varies = scale > np.finfo(np.float32).eps * (1 + np.sqrt(square * square.T))
    return np.where(varies, (x.T @ x / count - mean * mean.T) / np.where(varies, scale, 1), 0)


def _told(real: np.ndarray, made: np.ndarray, unordered: np.ndarray, stream: np.random.Generator) -> TwoSample | None:
    """The classifier on rows with the same holes, each filled with the mean of its column."""
    rows = min(len(real), len(made), TOLD)
    real, made = real[:rows], made[:rows]
    made = np.where(np.isnan(real), np.nan, made)
    cells, _ = _cells(np.concatenate([real, made]), unordered)
    seen = ~np.isnan(cells)
    mean = np.where(seen, cells, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    cells = np.where(seen, cells, mean)
    return two_sample(cells[:rows], cells[rows:], stream=stream)
