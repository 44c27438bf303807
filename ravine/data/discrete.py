"""Kinds of table columns that hold levels or whole numbers, and those that are not modelled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ravine._check import complaint, require, shown, whole
from ravine.data.arrays import EXACT
from ravine.data.columns import AbstractColumn, missing, within_type
from ravine.dist import AbstractLink, Bits, Classes, ManyZeros, Ordered, Overdispersed

Level = str | int | float | bool
OBJECTS = ("object", "str", "string", "category", "ordered")  # data types whose cells come back as they were


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
        return _listed(self.levels, self.dtype)[codes.astype(int)]

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
        self._refuse(codes > EXACT, codes, f"counts of at most {EXACT:.3g}")
        return codes[:, None]

    def point(self, cells: np.ndarray) -> np.ndarray:
        return within_type(np.maximum(np.rint(cells[..., 0]), 0), self.dtype)


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
        return _listed(self.levels, self.dtype)[codes.astype(int)]

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
        return np.where(missing(values), np.nan, 0.0)

    def encode(self, codes: np.ndarray) -> np.ndarray:
        return np.zeros((len(codes), 0))

    def point(self, cells: np.ndarray) -> np.ndarray:
        return np.full(cells.shape[:-1], np.nan if self.constant is None else 0.0)

    def value(self, codes: np.ndarray) -> np.ndarray:
        return _listed((self.constant,), self.dtype)[np.zeros(len(codes), int)]

    def words(self) -> str:
        return f"{self.kind}, not modelled"


@dataclass(frozen=True)
class Identifier(Constant):
    """Names of rows: not modelled, and missing in what is drawn."""

    kind = "identifier"


def _check_levels(name: str, levels: tuple[Level, ...], count: int | None = None) -> None:
    many = whole(f"column {shown(name)}, number of levels", len(levels), 2)
    good = len(set(levels)) == many and count in (None, many)
    require(good, f"column {shown(name)}", f"{count or 'several'} different levels", shown(levels), "list each once")


def _listed(levels: tuple[Any, ...], dtype: str) -> np.ndarray:
    """The levels as an array: of numbers, NaN for None, when all are and the column holds no objects; else of these."""
    if dtype not in OBJECTS and all(level is None or isinstance(level, (int, float)) for level in levels):
        return np.asarray([math.nan if level is None else level for level in levels])
    return np.array(levels, dtype=object)


def _places(values: np.ndarray, levels: tuple[Level, ...]) -> np.ndarray:
    """Which level each cell holds; NaN when it is missing, or none of them."""
    place = {level: float(i) for i, level in enumerate(levels)}
    return np.array([place.get(value, math.nan) for value in values.tolist()], float)
