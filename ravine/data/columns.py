"""Kinds of table columns. Each codes the user's cells as numbers, shows the codes to a model, and finds the way back.

Three forms of one column: the user's cells (text, dates, numbers), one code per row (a float, NaN where missing), and
what a model sees, the cells of one row: a standardised number, a bit, a count, or one cell for each level.
"""

from __future__ import annotations

import abc
import functools
import math
import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ravine._check import complaint, require, shown
from ravine.data.plan import Measure
from ravine.dist import AbstractLink, Real, Within
from ravine.dist import Censored as CensoredLink


@dataclass(frozen=True)
class AbstractColumn(abc.ABC):
    """One column of a table.

    Attributes
    ----------
    name : of the column.
    dtype : of the user's cells, as pandas writes it; what comes back has it too.
    kind : class variable; the word for such a column in ``columns={name: kind}``.
    measure : class variable; what its log-likelihood is a density against.
    """

    name: str
    dtype: str

    kind: ClassVar[str]
    measure: ClassVar[Measure] = "lebesgue"

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """How many cells a model sees; 0 when the column is not modelled."""

    @property
    @abc.abstractmethod
    def base(self) -> tuple[float, ...]:
        """Mean of each cell in training."""

    @abc.abstractmethod
    def link(self) -> AbstractLink:
        """How the output of a network becomes a law of the cells."""

    @abc.abstractmethod
    def encode(self, codes: np.ndarray) -> np.ndarray:
        """The cells ``(rows, width)`` of codes without NaN.

        Raises
        ------
        ValueError
            When a code is outside the support of the column.
        """

    @abc.abstractmethod
    def point(self, cells: np.ndarray) -> np.ndarray:
        """The codes ``(...,)`` of cells ``(..., width)``, be they drawn or means: a value the column can hold."""

    def code(self, values: np.ndarray) -> np.ndarray:
        """The codes of the user's cells, which come as floats here; NaN is missing."""
        if missing(values).all():
            return np.full(len(values), np.nan)
        require(values.dtype.kind == "f", f"column {shown(self.name)}", "numbers", "text", "give the training columns")
        return values

    def value(self, codes: np.ndarray) -> np.ndarray:
        """The user's cells of codes without NaN."""
        return codes

    def log_det(self, cells: np.ndarray) -> np.ndarray:
        """``log |d cell / d value|`` in nats of cells ``(..., width)``: log p(value) = log p(cell) + log_det."""
        return np.zeros(cells.shape[:-1])

    def shape(self) -> tuple[int, ...]:
        """The event's shape of its law; () for a single cell."""
        return ()

    def words(self) -> str:
        """The kind, with what it depends on."""
        return self.kind

    def _refuse(self, bad: np.ndarray, values: np.ndarray, expected: str) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            do = "check the values, or declare another kind of column; NaN is missing"
            raise complaint(f"column {shown(self.name)}, row {row}", expected, f"{values[row]:g}", do)


@dataclass(frozen=True)
class Numeric(AbstractColumn):
    """Real numbers, seen with mean 0 and variance 1: (x - shift) / scale.

    When all were ``whole``, what is drawn or imputed is rounded; the likelihood is still a density.
    """

    shift: float = 0.0
    scale: float = 1.0
    whole: bool = False
    kind = "numeric"

    def __post_init__(self) -> None:
        good = all(map(math.isfinite, (self.shift, self.scale))) and self.scale > 0
        require(good, f"column {shown(self.name)}", "a finite shift and a positive scale", "others", "infer them again")

    @property
    def width(self) -> int:
        return 1

    @property
    def base(self) -> tuple[float, ...]:
        return (0.0,)

    def link(self) -> AbstractLink:
        return Real()

    def encode(self, codes: np.ndarray) -> np.ndarray:
        self._refuse(np.isinf(codes), codes, "finite numbers")
        return ((codes - self.shift) / self.scale)[:, None]

    def point(self, cells: np.ndarray) -> np.ndarray:
        return self.rounded(cells[..., 0] * self.scale + self.shift)

    def rounded(self, codes: np.ndarray) -> np.ndarray:
        """The codes, as whole numbers where all were, and none that the data type of the column cannot hold."""
        return within_type(np.rint(codes) if self.whole else codes, self.dtype)

    def log_det(self, cells: np.ndarray) -> np.ndarray:
        return np.full(cells.shape[:-1], -math.log(self.scale))


@dataclass(frozen=True)
class Positive(Numeric):
    """Positive numbers, seen as their standardised logarithm; an imputed one is the median, exp(E[log x])."""

    kind = "positive"

    def encode(self, codes: np.ndarray) -> np.ndarray:
        self._refuse((codes <= 0) | np.isinf(codes), codes, "positive numbers")
        return ((np.log(codes) - self.shift) / self.scale)[:, None]

    def point(self, cells: np.ndarray) -> np.ndarray:
        values = self.rounded(np.exp(np.clip(cells[..., 0] * self.scale + self.shift, -700, 700)))
        return np.maximum(values, 1.0) if self.whole else values

    def log_det(self, cells: np.ndarray) -> np.ndarray:
        return -math.log(self.scale) - (cells[..., 0] * self.scale + self.shift)


@dataclass(frozen=True)
class Bounded(Numeric):
    """Numbers between two limits, standardised, with a Gaussian that is ``cut`` off at the limits, or goes beyond."""

    low: float = 0.0
    high: float = 1.0
    cut: bool = True
    kind = "bounded"

    def link(self) -> AbstractLink:
        return Within(*self._ends()) if self.cut else Real()

    def encode(self, codes: np.ndarray) -> np.ndarray:
        self._refuse((codes < self.low) | (codes > self.high), codes, f"numbers between {self.low:g} and {self.high:g}")
        return ((codes - self.shift) / self.scale)[:, None]

    def point(self, cells: np.ndarray) -> np.ndarray:
        return np.clip(self.rounded(cells[..., 0] * self.scale + self.shift), self.low, self.high)

    def _ends(self) -> tuple[tuple[float], tuple[float]]:
        """The limits as a model sees them."""
        return ((self.low - self.shift) / self.scale,), ((self.high - self.shift) / self.scale,)

    def words(self) -> str:
        return f"bounded by {self.low:g} and {self.high:g}"


@dataclass(frozen=True)
class Censored(Bounded):
    """Numbers recorded as a limit when they lie beyond it: a density between the limits, a mass at each."""

    kind = "censored"
    measure = "mixed"

    def link(self) -> AbstractLink:
        return CensoredLink(*self._ends())

    def log_det(self, cells: np.ndarray) -> np.ndarray:
        (low,), (high,) = self._ends()
        room = 1e-6 * (1 + abs(cells[..., 0]))  # cells are rounded to single precision
        between = (cells[..., 0] > low + room) & (cells[..., 0] < high - room)
        return np.where(between, -math.log(self.scale), 0.0)

    def words(self) -> str:
        return f"censored at {self.low:g} and {self.high:g}"


@dataclass(frozen=True)
class Date(Numeric):
    """Points in time; the code is days since 1970, the density is per day. ``whole`` when all were at midnight."""

    kind = "date"

    def point(self, cells: np.ndarray) -> np.ndarray:
        days = cells[..., 0] * self.scale + self.shift
        return within_type(np.rint(days) if self.whole else np.rint(days * 86400) / 86400, self.dtype)


def within_type(codes: np.ndarray, dtype: str) -> np.ndarray:
    """The codes, those that a data type cannot hold at its nearest end: a draw may lie beyond all that was observed."""
    return np.clip(codes, *_limits(dtype))


@functools.cache
def _limits(dtype: str) -> tuple[float, float]:
    """The smallest and the largest code that a data type holds; infinite where it is not narrower than a float64."""
    if dtype.startswith("datetime64"):
        days = 106_751.0 if "[ns" in dtype else 1e8  # nanoseconds reach from 1678 to 2262
        return -days, days
    known = re.fullmatch(r"(u?int|float)(8|16|32|64)", dtype.removesuffix("[pyarrow]").lower())
    if known is None or known[0] == "float64":
        return -math.inf, math.inf
    if known[1] == "float":
        return float(np.finfo(known[0]).min), float(np.finfo(known[0]).max)
    ends = np.iinfo(known[0])
    return float(ends.min), min(float(ends.max), math.nextafter(float(ends.max) + 1, 0))


def missing(values: np.ndarray) -> np.ndarray:
    """Which cells hold nothing."""
    return np.isnan(values) if values.dtype.kind == "f" else np.array([v is None for v in values], bool)
