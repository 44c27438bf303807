"""A table whose columns are of several kinds: what the columns hold, and the way to what a model sees and back."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar, Union

import numpy as np

from ravine._check import require, shown
from ravine.data.columns import AbstractColumn, Date, Numeric
from ravine.data.discrete import Binary, Category, Constant, Count
from ravine.data.draws import Dequantise
from ravine.data.frames import Given, given, is_frame, series
from ravine.data.inference import infer, wishes
from ravine.data.kinds import Dequantised, as_real, from_json, to_json
from ravine.data.plan import Dequantisation, Measure
from ravine.data.schema import Schema
from ravine.dist import AbstractLink, Censored, HeavyTailed, MixedLink, Real, Within

AnySchema = Union[Schema, "TableSchema"]


class UnseenLevel(UserWarning):
    """A category held a level that the training data did not: such a cell counts as missing."""


@dataclass(frozen=True)
class TableSchema:
    """The columns of a table, and the invertible map of a row to the cells that a model sees, side by side.

    A table is coded as floats ``(rows, columns)`` first, then seen as cells ``(rows, width)``: see
    `ravine.data.columns`. It answers what `ravine.data.Schema` answers, so that a recipe need not tell them apart.

    Attributes
    ----------
    columns : one for each column of the user's table, in its order.
    framed : the user's table is a data frame, and so is what comes back.
    holes : the training data had missing cells.
    rows : number of training rows.

    Examples
    --------
    >>> schema = TableSchema.infer(np.array([[0.0, 2.5], [1.0, np.nan], [1.0, 3.5]]), {})
    >>> schema.describe()
    '2 columns: 1 binary, 1 numeric, with missing values'
    >>> values, mask = schema.encode(np.array([[1.0, np.nan]]), "float32")
    >>> values.tolist(), mask.tolist()
    ([[1.0, 0.0]], [[True, False]])
    """

    columns: tuple[AbstractColumn, ...]
    framed: bool = False
    holes: bool = False
    rows: int = 0

    levels: ClassVar[int] = 0
    binarise: ClassVar[str] = "none"
    image_shape: ClassVar[None] = None
    image: ClassVar[bool] = False

    def __post_init__(self) -> None:
        do = "declare one of another kind: columns={name: kind}"
        require(self.width, "the table", "a column to be modelled", "constants and identifiers only", do)

    @classmethod
    def infer(
        cls, X: Any, columns: Mapping[Any, Any] | None = None, dequantise: Dequantisation = "none"
    ) -> TableSchema:
        """Look at the training data, a data frame or an array, and decide what each column holds.

        Parameters
        ----------
        columns : kinds that are known better, by name: ``{"visits": "count", "size": ("ordinal", ["S", "M", "L"])}``.
        dequantise : ``"uniform"`` shows a model of reals the whole codes of discrete columns, with noise added.

        Raises
        ------
        ValueError
            One line that names the column: an unknown kind, cells that cannot be of it, a name that is not there.
        """
        made, found = inferred(X, columns), list(given(X))
        if dequantise == "uniform":
            made = tuple(as_real(column, column.code(cells.cells)) for column, cells in zip(made, found, strict=True))
        return cls(made, is_frame(X), any(column.missing().any() for column in found), len(X))

    @property
    def dequantise(self) -> Dequantisation:
        """``uniform`` when some column of whole codes is seen with noise, so that a likelihood is a lower bound."""
        return "uniform" if any(isinstance(column, Dequantised) for column in self.columns) else "none"

    @property
    def kind(self) -> str:
        """``real`` when a model of reals can hold every cell, else ``mixed``."""
        return "real" if all(type(c.link()) is Real for c in self.columns if c.width) else "mixed"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name of each column of the user's table."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first cell of each column, and after the last."""
        return (0, *np.cumsum([column.width for column in self.columns]).tolist())

    @property
    def width(self) -> int:
        """Number of cells of one row as a model sees it."""
        return self.starts[-1]

    @property
    def shape(self) -> tuple[int]:
        """Event shape of one row as a model sees it."""
        return (self.width,)

    @property
    def base(self) -> tuple[float, ...]:
        """Mean of each cell in training."""
        return tuple(mean for column in self.columns for mean in column.base)

    @property
    def counts(self) -> tuple[int, ...]:
        """Cells that are counts without a limit: a network should see their logarithm."""
        return tuple(at for column, at in zip(self.columns, self.starts[:-1], strict=True) if isinstance(column, Count))

    @property
    def measure(self) -> Measure:
        """The base measure of log p(row): ``mixed`` when some columns are counted and others have a density."""
        kinds: set[Measure] = {column.measure for column in self.columns if column.width}
        return kinds.pop() if len(kinds) == 1 else "mixed"

    def code(self, X: Any) -> np.ndarray:
        """The user's table as floats ``(rows, columns)``: numbers, places of levels, days; NaN where missing.

        Raises
        ------
        ValueError
            When the columns are not those of the training data, or hold text instead of numbers.
        """
        found = list(given(X))
        got, want = tuple(column.name for column in found), self.names
        same = got == want if is_frame(X) and self.framed else len(got) == len(want)
        do = "give the columns of the training data, in their order"
        require(same, "the columns", shown(want, 200), shown(got, 200), do)
        made = np.empty((len(X), len(want)))
        for j, (column, cells) in enumerate(zip(self.columns, found, strict=True)):
            _refuse_other_numbers(column, cells)
            made[:, j] = column.code(cells.cells)
            if _levels(column):
                _warn_of_unseen(cells, made[:, j])
        return made

    def encode(self, codes: np.ndarray, dtype: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """What a model sees of a coded table: cells ``(rows, width)``, and a mask or None when nothing is missing.

        Raises
        ------
        ValueError
            When a value is outside the support of its column; the line names it.
        """
        cells, mask = np.zeros((len(codes), self.width), dtype), np.ones((len(codes), self.width), bool)
        for column, at, values in zip(self.columns, self._slices(), codes.T, strict=True):
            known = ~np.isnan(values)
            mask[:, at] = known[:, None]
            cells[known, at] = column.encode(values[known])
        return cells, None if mask.all() else mask

    def point(self, cells: Any) -> np.ndarray:
        """The codes ``(..., columns)`` of cells ``(..., width)``, drawn or mean: values that the columns can hold."""
        cells = np.asarray(cells, np.float64)
        made = [column.point(cells[..., at]) for column, at in zip(self.columns, self._slices(), strict=True)]
        return np.stack(made, axis=-1)

    def decode(self, cells: Any) -> np.ndarray:
        """As `point`: a table of several kinds has no values between."""
        return self.point(cells)

    def log_det(self, mask: Any = None, cells: Any = None) -> Any:
        """``log |d cells / d table|`` in nats, summed over the observed columns: log p(table) = log p(cells) + log_det.

        Parameters
        ----------
        mask, cells : ``(..., width)``, as `encode` gives them.
        """
        cells = np.asarray(cells, np.float64)
        known = np.ones(cells.shape, bool) if mask is None else np.asarray(mask)
        total = np.zeros(cells.shape[:-1])
        for column, at in zip(self.columns, self._slices(), strict=True):
            if column.width:
                total += np.where(known[..., at.start], column.log_det(cells[..., at]), 0.0)
        return total

    def link(self, chosen: AbstractLink | None = None) -> AbstractLink:
        """How the output of a network becomes a law over a row; ``chosen`` stands for the law of real cells.

        Columns of one kind, and with as many levels, are cells of one law: it is computed, and compiled, once.

        Raises
        ------
        ValueError
            When the chosen law is not one of real cells.
        """
        good = chosen is None or isinstance(chosen, (Real, HeavyTailed))
        require(good, "likelihood", "None, or a law of real cells: Real, HeavyTailed", shown(chosen), "choose another")
        alike: dict[tuple[AbstractLink, tuple[int, ...]], list[tuple[AbstractLink, range]]] = {}
        for column, start in zip(self.columns, self.starts[:-1], strict=True):
            if column.width:
                link = column.link()
                link = chosen if chosen is not None and type(link) is Real else link
                part = alike.setdefault((_family(link), column.shape()), [])
                part.append((link, range(start, start + column.width)))
        links = tuple(_joined([link for link, _ in part]) for part in alike.values())
        places = tuple(tuple(chain(*(cells for _, cells in part))) for part in alike.values())
        return MixedLink(links, places, tuple((len(part), *shape) for (_, shape), part in alike.items()))

    def draw(self) -> Dequantise | None:
        """The noise on the cells of dequantised columns; None when there are none."""
        if self.dequantise == "none":
            return None
        scales = (c.scale if isinstance(c, Dequantised) else math.inf for c in self.columns for _ in range(c.width))
        return Dequantise(1, tuple(scales))

    def frame(self, codes: np.ndarray, index: Any = None) -> Any:
        """The user's kind of table from codes ``(rows, columns)``: their data types, levels and order."""
        if not self.framed:
            return self._numbers(codes)
        import pandas

        frame = pandas.DataFrame({c.name: _series(c, values) for c, values in zip(self.columns, codes.T, strict=True)})
        return frame if index is None else frame.set_axis(index, axis=0)

    def filled(self, X: Any, codes: np.ndarray) -> Any:
        """``X`` with its missing cells taken from ``codes`` ``(..., columns)``: observed cells stay as they are.

        More leading axes give a list of tables, or for an array more leading axes.
        """
        if codes.ndim > 2:
            made = [self.filled(X, one) for one in codes]
            return made if self.framed else np.stack(made)
        if not is_frame(X):
            return np.where(np.isnan(X), self._numbers(codes), X)
        made, holes = X.copy(), X.isna().to_numpy()
        for j in np.flatnonzero(holes.any(axis=0)).tolist():
            column = _series(self.columns[j], codes[:, j], X.index)
            made.isetitem(j, column if holes[:, j].all() else _kept(X.iloc[:, j], column, holes[:, j]))
        return made

    def describe(self) -> str:
        """One line: how many columns of which kind."""
        plain = (column.of if isinstance(column, Dequantised) else column for column in self.columns)
        counts = Counter(column.kind for column in plain)
        parts = [f"{n} {kind}" + ("" if _modelled(kind) else " (not modelled)") for kind, n in sorted(counts.items())]
        noise = ", whole numbers dequantised" if self.dequantise != "none" else ""
        return f"{len(self.columns)} columns: {', '.join(parts)}{noise}" + (
            ", with missing values" if self.holes else ""
        )

    def lines(self) -> list[str]:
        """A line for each column: its name and kind."""
        room = max(len(one_name) for one_name in self.names)
        return [f"{column.name:<{room}}  {column.words()}" for column in self.columns]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and text; floats survive to the bit."""
        columns = [to_json(column) for column in self.columns]
        return {"columns": columns, "framed": self.framed, "holes": self.holes, "rows": self.rows}

    @classmethod
    def from_json(cls, fields: Any) -> TableSchema:
        """The inverse of `to_json`; raises ``ValueError`` when a field is missing, unknown or of the wrong kind."""
        good = isinstance(fields, Mapping) and set(fields) == {"columns", "framed", "holes", "rows"}
        good = good and isinstance(fields["columns"], list) and isinstance(fields["rows"], int)
        require(good, "the schema", "columns, framed, holes and rows", shown(fields, 200), "use a file of `save`")
        columns = tuple(map(from_json, fields["columns"]))
        return cls(columns, bool(fields["framed"]), bool(fields["holes"]), fields["rows"])

    def _numbers(self, codes: np.ndarray) -> np.ndarray:
        return np.column_stack([_numbers(c, codes[:, j]) for j, c in enumerate(self.columns)])

    def _slices(self) -> list[slice]:
        return [slice(a, b) for a, b in zip(self.starts[:-1], self.starts[1:], strict=True)]


def inferred(X: Any, columns: Mapping[Any, Any] | None = None) -> tuple[AbstractColumn, ...]:
    """What each column of a data frame or of an array holds; raises as `TableSchema.infer`.

    Examples
    --------
    >>> [column.kind for column in inferred(np.array([[0.0, 2.5, 7.0], [1.0, 1.5, 7.0]]))]
    ['binary', 'numeric', 'constant']
    """
    require(len(X), "the data", "at least one row", "0 rows", "check how it was made")
    found = list(given(X))
    names = [column.name for column in found]
    twice = [name for name, count in Counter(names).items() if count > 1]
    require(not twice, "the columns", "distinct names", f"{shown(twice[:1])} twice", "rename one")
    wanted = wishes(columns, names)
    return tuple(infer(column, wanted.get(column.name)) for column in found)


def schema_from_json(fields: Any) -> AnySchema:
    """The schema of a file, of one kind of cells or of several."""
    return (TableSchema if isinstance(fields, Mapping) and "columns" in fields else Schema).from_json(fields)


def _family(link: AbstractLink) -> AbstractLink:
    """The link that columns whose law is computed as one have in common: limits may differ from cell to cell."""
    return dataclasses.replace(link, low=(0.0,), high=(1.0,)) if isinstance(link, (Within, Censored)) else link


def _joined(links: list[AbstractLink]) -> AbstractLink:
    """The link of all cells from the links of each; those with limits list them."""
    first, *others = links
    if not others or not isinstance(first, (Within, Censored)):
        return first
    low, high = (tuple(end for link in links for end in getattr(link, name)) for name in ("low", "high"))
    return dataclasses.replace(first, low=low, high=high)


def _kept(given: Any, filled: Any, holes: np.ndarray) -> Any:
    """A column of the user's with its holes filled, in its own data type where that can hold the values."""
    if str(given.dtype) == "category":
        listed = filled.cat.categories if str(filled.dtype) == "category" else filled[holes].dropna().unique()
        known = given.cat.categories
        given = given.cat.add_categories([level for level in listed if level not in known])
        filled = filled.astype(object).where(holes).astype(given.dtype)
    elif given.dtype.kind == "M" and filled.dtype.kind == "M":
        filled = (filled.dt.tz_localize("UTC") if filled.dt.tz is None else filled).dt.tz_convert(given.dt.tz)
    for dtype in (given.dtype, filled.dtype):
        with contextlib.suppress(TypeError, ValueError):  # a data type that cannot hold the values
            return given.astype(dtype).where(~holes, filled)
    return given.astype(object).where(~holes, filled)


def _series(column: AbstractColumn, codes: np.ndarray, index: Any = None) -> Any:
    """A column of a data frame from its codes, NaN where missing."""
    known = ~np.isnan(codes)
    return series(column.value(np.where(known, codes, 0.0)), known, column.dtype, _levels(column), index)


def _levels(column: AbstractColumn) -> tuple[Any, ...]:
    """The levels of a column that has such, dequantised or not."""
    column = column.of if isinstance(column, Dequantised) else column
    return column.levels if isinstance(column, (Binary, Category)) else ()


def _modelled(kind: str) -> bool:
    return kind not in ("constant", "identifier")


def _refuse_other_numbers(column: AbstractColumn, cells: Given) -> None:
    """Days are numbers to a model, so dates must not be taken for measurements, nor the other way round."""
    dated = cells.dtype.startswith("datetime64")
    if isinstance(column, (Numeric, Count)) and dated != isinstance(column, Date) and not cells.missing().all():
        want, got = ("numbers", "dates") if dated else ("dates", "numbers")
        require(cells.cells.dtype.kind != "f", f"column {shown(column.name)}", want, got, "give the training columns")


def _warn_of_unseen(column: Given, codes: np.ndarray) -> None:
    unseen = np.isnan(codes) & ~column.missing()
    if unseen.any():
        what, some = f"column {shown(column.name)}", shown(column.cells[unseen][0])
        words = f"{what}: {int(unseen.sum())} cells count as missing: training had no such level, for example {some}."
        warnings.warn(words, UnseenLevel, stacklevel=4)


def _numbers(column: AbstractColumn, codes: np.ndarray) -> np.ndarray:
    """The cells of a column that was given as numbers."""
    known, column = ~np.isnan(codes), column.of if isinstance(column, Dequantised) else column
    if isinstance(column, (Numeric, Count)) and not isinstance(column, Constant):
        return codes
    return np.where(known, np.asarray(column.value(np.where(known, codes, 0.0)), float), np.nan)
