"""Kinds of table columns. Each codes the user's cells as numbers, shows the codes to a model, and finds the way back.

Three forms of one column: the user's cells (text, dates, numbers), one code per row (a float, NaN where missing), and
what a model sees, the cells of one row: a standardised number, a bit, a count, or one cell for each level.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ravine._check import complaint, require, shown, whole
from ravine.data.plan import EDGE, Measure
from ravine.dist import AbstractLink, Bits, Classes, ManyZeros, Ordered, Overdispersed, Real, Within
from ravine.dist import Censored as CensoredLink

Level = str | int | float | bool


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
        if _missing(values).all():
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
        """The codes, as whole numbers where all were."""
        return np.rint(codes) if self.whole else codes

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
        return np.rint(days) if self.whole else np.rint(days * 86400) / 86400


@dataclass(frozen=True)
class Binary(AbstractColumn):
    """One of two levels; the code, and what a model sees, is 0 for the first and 1 for the second."""

    levels: tuple[Level, ...] = (0, 1)
    mean: float = 0.5
    kind = "binary"
    measure = "counting"

    def __post_init__(self) -> None:
        _check_levels(self.name, self.levels, 2)

    @property
    def width(self) -> int:
        return 1

    @property
    def base(self) -> tuple[float, ...]:
        return (self.mean,)

    def link(self) -> AbstractLink:
        return Bits()

    def code(self, values: np.ndarray) -> np.ndarray:
        return _places(values, self.levels)

    def encode(self, codes: np.ndarray) -> np.ndarray:
        return codes[:, None]

    def point(self, cells: np.ndarray) -> np.ndarray:
        return (cells[..., 0] >= 0.5).astype(float)

    def value(self, codes: np.ndarray) -> np.ndarray:
        return _listed(self.levels)[codes.astype(int)]

    def words(self) -> str:
        return f"binary: {shown(self.levels[0], 20)} or {shown(self.levels[1], 20)}"


@dataclass(frozen=True)
class Count(AbstractColumn):
    """Whole numbers from 0 without a limit; ``inflated`` when zeros have a cause of their own."""

    mean: float = 1.0
    inflated: bool = False
    kind = "count"
    measure = "counting"

    @property
    def width(self) -> int:
        return 1

    @property
    def base(self) -> tuple[float, ...]:
        return (self.mean,)

    def link(self) -> AbstractLink:
        return ManyZeros() if self.inflated else Overdispersed()

    def encode(self, codes: np.ndarray) -> np.ndarray:
        bad = (codes < 0) | (codes != np.floor(codes)) | np.isinf(codes)
        self._refuse(bad, codes, "whole numbers of at least 0")
        return codes[:, None]

    def point(self, cells: np.ndarray) -> np.ndarray:
        return np.maximum(np.rint(cells[..., 0]), 0)


@dataclass(frozen=True)
class Category(AbstractColumn):
    """One of several levels without an order; a model sees a cell for each, one of which is 1."""

    levels: tuple[Level, ...] = ()
    shares: tuple[float, ...] = ()
    kind = "category"
    measure = "counting"

    def __post_init__(self) -> None:
        _check_levels(self.name, self.levels)
        fits = len(self.shares) == len(self.levels)
        require(fits, f"column {shown(self.name)}", "a share for each level", f"{len(self.shares)}", "infer them again")

    @property
    def width(self) -> int:
        return len(self.levels)

    @property
    def base(self) -> tuple[float, ...]:
        return self.shares

    def link(self) -> AbstractLink:
        return Classes()

    def shape(self) -> tuple[int, ...]:
        return (self.width,)

    def code(self, values: np.ndarray) -> np.ndarray:
        return _places(values, self.levels)

    def encode(self, codes: np.ndarray) -> np.ndarray:
        return (codes[:, None] == np.arange(self.width)).astype(float)

    def point(self, cells: np.ndarray) -> np.ndarray:
        return np.argmax(cells, axis=-1).astype(float)

    def value(self, codes: np.ndarray) -> np.ndarray:
        return _listed(self.levels)[codes.astype(int)]

    def words(self) -> str:
        return f"{self.kind} of {self.width} levels"


@dataclass(frozen=True)
class Ordinal(Category):
    """One of several levels in an order; an imputed one is the median level."""

    kind = "ordinal"

    def link(self) -> AbstractLink:
        return Ordered()

    def point(self, cells: np.ndarray) -> np.ndarray:
        return np.argmax(np.cumsum(cells, axis=-1) >= 0.5 * cells.sum(axis=-1, keepdims=True), axis=-1).astype(float)


@dataclass(frozen=True)
class Dequantised(AbstractColumn):
    """A column of whole codes seen as one real cell: (code + u - shift) / scale with u drawn from [0, 1) at each look.

    E_u[log p(code + u)] is at most log P(code): Theis, van den Oord & Bethge 2016, arXiv:1511.01844, section 3.1.
    """

    of: AbstractColumn
    shift: float = 0.5
    scale: float = 1.0
    kind = "dequantised"
    measure = "counting"

    @classmethod
    def fitted(cls, column: AbstractColumn, codes: np.ndarray) -> Dequantised:
        """The column seen with mean 0 and variance 1."""
        known = codes[~np.isnan(codes)]
        return cls(column.name, column.dtype, column, float(known.mean() + 0.5), math.sqrt(known.var() + 1 / 12))

    @property
    def width(self) -> int:
        return 1

    @property
    def base(self) -> tuple[float, ...]:
        return (0.0,)

    def link(self) -> AbstractLink:
        return Real()

    def code(self, values: np.ndarray) -> np.ndarray:
        return self.of.code(values)

    def encode(self, codes: np.ndarray) -> np.ndarray:
        self.of.encode(codes)
        return ((codes - self.shift) / self.scale)[:, None]

    def point(self, cells: np.ndarray) -> np.ndarray:
        codes = np.floor(cells[..., 0] * self.scale + self.shift + EDGE)
        return np.clip(codes, 0, len(self.of.levels) - 1 if isinstance(self.of, (Binary, Category)) else None)

    def value(self, codes: np.ndarray) -> np.ndarray:
        return self.of.value(codes)

    def log_det(self, cells: np.ndarray) -> np.ndarray:
        return np.full(cells.shape[:-1], -math.log(self.scale))

    def words(self) -> str:
        return f"{self.of.words()}, dequantised"


@dataclass(frozen=True)
class Constant(AbstractColumn):
    """A column with one value, or none: it is not modelled, and comes back as it was."""

    constant: Level | None = None
    kind = "constant"

    @property
    def width(self) -> int:
        return 0

    @property
    def base(self) -> tuple[float, ...]:
        return ()

    def link(self) -> AbstractLink:
        raise complaint(f"column {shown(self.name)}", "a column that is modelled", self.kind, "leave it out")

    def code(self, values: np.ndarray) -> np.ndarray:
        return np.where(_missing(values), np.nan, 0.0)

    def encode(self, codes: np.ndarray) -> np.ndarray:
        return np.zeros((len(codes), 0))

    def point(self, cells: np.ndarray) -> np.ndarray:
        return np.full(cells.shape[:-1], np.nan if self.constant is None else 0.0)

    def value(self, codes: np.ndarray) -> np.ndarray:
        return _listed((self.constant,))[np.zeros(len(codes), int)]

    def words(self) -> str:
        return f"{self.kind}, not modelled"


@dataclass(frozen=True)
class Identifier(Constant):
    """Names of rows: not modelled, and missing in what is drawn."""

    kind = "identifier"


def as_real(column: AbstractColumn, codes: np.ndarray) -> AbstractColumn:
    """The column as a model of reals can hold it: whole codes are dequantised, limits are not those of the law.

    Raises
    ------
    ValueError
        When the column has a density and masses besides.
    """
    if isinstance(column, Censored):
        do = "choose a recipe for mixed tables, or declare it numeric"
        what = f"column {shown(column.name)}, for a model of reals"
        raise complaint(what, "a density or masses", "a density with a mass at each limit", do)
    if isinstance(column, Bounded):
        return dataclasses.replace(column, cut=False)
    return Dequantised.fitted(column, codes) if isinstance(column, (Binary, Count, Category)) else column


KINDS: dict[str, type[AbstractColumn]] = {
    cls.kind: cls
    for cls in (Numeric, Positive, Bounded, Censored, Date, Binary, Count, Category, Ordinal, Constant, Identifier)
}


def to_json(column: AbstractColumn) -> dict[str, Any]:
    """The fields of a column as plain numbers, text and lists.

    Examples
    --------
    >>> from_json(to_json(Numeric("a", "float64", 1.0, 2.0)))
    Numeric(name='a', dtype='float64', shift=1.0, scale=2.0, whole=False)
    """
    fields = {field.name: getattr(column, field.name) for field in dataclasses.fields(column)}
    return {"kind": column.kind, **{name: _plain(value) for name, value in fields.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, AbstractColumn):
        return to_json(value)
    return list(value) if isinstance(value, tuple) else value


def from_json(fields: Any) -> AbstractColumn:
    """The inverse of `to_json`; raises ``ValueError`` when the fields are those of no column."""
    do = "use a file that was written by `save`"
    kinds = KINDS | {Dequantised.kind: Dequantised}
    known = isinstance(fields, dict) and fields.get("kind") in kinds
    require(known, "a column of the schema", f"a kind among {', '.join(kinds)}", shown(fields, 100), do)
    cls, given = kinds[fields["kind"]], {k: v for k, v in fields.items() if k != "kind"}
    if cls is Dequantised and "of" in given:
        given["of"] = from_json(given["of"])
    want = {f.name for f in dataclasses.fields(cls)}
    require(set(given) == want, f"a {cls.kind} column of the schema", f"{sorted(want)}", f"{sorted(given)}", do)
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return cls(**values)


def _check_levels(name: str, levels: tuple[Level, ...], count: int | None = None) -> None:
    many = whole(f"column {shown(name)}, number of levels", len(levels), 2)
    good = len(set(levels)) == many and count in (None, many)
    require(good, f"column {shown(name)}", f"{count or 'several'} different levels", shown(levels), "list each once")


def _listed(levels: tuple[Any, ...]) -> np.ndarray:
    """The levels as an array: of numbers when all are, else of objects."""
    if all(isinstance(level, (int, float)) for level in levels):
        return np.asarray(levels)
    return np.array(levels, dtype=object)


def _missing(values: np.ndarray) -> np.ndarray:
    return np.isnan(values) if values.dtype.kind == "f" else np.array([v is None for v in values], bool)


def _places(values: np.ndarray, levels: tuple[Level, ...]) -> np.ndarray:
    """Which level each cell holds; NaN when it is missing, or none of them."""
    place = {level: float(i) for i, level in enumerate(levels)}
    return np.array([place.get(value, math.nan) for value in values.tolist()], float)
