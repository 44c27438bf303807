"""Every kind of column by its word; columns in files, and as a model of reals sees them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ravine._check import complaint, require, shown
from ravine.data.columns import AbstractColumn, Bounded, Censored, Date, Numeric, Positive, within_type
from ravine.data.discrete import Binary, Category, Constant, Count, Identifier, Ordinal
from ravine.data.plan import EDGE
from ravine.dist import AbstractLink, Real

KINDS: dict[str, type[AbstractColumn]] = {
    cls.kind: cls
    for cls in (Numeric, Positive, Bounded, Censored, Date, Binary, Count, Category, Ordinal, Constant, Identifier)
}


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
        if isinstance(self.of, (Binary, Category)):
            return np.clip(codes, 0, len(self.of.levels) - 1)
        return within_type(np.maximum(codes, 0), self.dtype)

    def value(self, codes: np.ndarray) -> np.ndarray:
        return self.of.value(codes)

    def log_det(self, cells: np.ndarray) -> np.ndarray:
        return np.full(cells.shape[:-1], -math.log(self.scale))

    def words(self) -> str:
        return f"{self.of.words()}, dequantised"


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
