"""Data frames as columns of plain numpy arrays, and back. Only a frame that the user brings makes pandas load."""

from __future__ import annotations

import numbers
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ravine._check import complaint, shown
from ravine.data.arrays import EXACT, as_table

DAY = 86_400 * 10**6  # microseconds: nanoseconds reach from 1678 to 2262 only
ARROW = re.compile(r"(u?int\d+|float|double|bool|(large_)?string)\[pyarrow\]")  # those that work as pandas' own


def is_frame(X: Any) -> bool:
    """True for a pandas data frame.

    Examples
    --------
    >>> is_frame(np.zeros((2, 2)))
    False
    """
    kind = type(X)  # asked of the class: a frame makes its `dtypes` anew each time
    return hasattr(kind, "iloc") and hasattr(kind, "dtypes") and getattr(X, "ndim", 0) == 2


def without(X: Any, name: str | None) -> Any:
    """A data frame without a column where it has it; anything else as it is."""
    return X.drop(columns=name) if is_frame(X) and name in X.columns else X


class Given(NamedTuple):
    """A column as the user gave it.

    ``cells`` are floats with NaN where missing (days for dates), or objects with None. ``dtype`` is as pandas writes
    it, and ``ordered`` for a category whose ``levels`` are in order; ``levels`` are those that the dtype lists.
    """

    name: str
    dtype: str
    cells: np.ndarray
    levels: tuple[Any, ...] | None = None

    def missing(self) -> np.ndarray:
        """Which cells hold nothing."""
        return np.isnan(self.cells) if self.cells.dtype.kind == "f" else np.array([v is None for v in self.cells], bool)


def given(X: Any) -> Iterator[Given]:
    """Every column of a data frame or of an array of numbers.

    Examples
    --------
    >>> [(column.name, column.cells.tolist()) for column in given(np.array([[1.0, 2.0]]))]
    [('x0', [1.0]), ('x1', [2.0])]
    """
    if not is_frame(X):
        for j, cells in enumerate(as_table(X).astype(float).T):
            yield Given(f"x{j}", "float64", cells)
        return
    for name, series in X.items():
        dtype, name = str(series.dtype), str(name)
        levels = _levels(series.dtype, dtype, name)
        ordered = dtype == "category" and series.dtype.ordered
        yield Given(name, "ordered" if ordered else dtype, _cells(series, dtype, name, levels), levels)


def _levels(kind: Any, dtype: str, name: str) -> tuple[Any, ...] | None:
    if dtype == "category":
        return tuple(_plain(level, name) for level in kind.categories)
    return (False, True) if getattr(kind, "kind", "O") == "b" else None


def taken(X: Any, places: np.ndarray) -> Any:
    """Some rows of a table, by their places.

    Examples
    --------
    >>> taken(np.arange(3)[:, None], np.array([2, 0])).tolist()
    [[2], [0]]
    """
    return X.iloc[places] if is_frame(X) else X[places]


def is_mixed(X: Any) -> bool:
    """True for a frame with a column that is not of plain numbers."""
    return is_frame(X) and any(getattr(dtype, "kind", "O") not in "biuf" for dtype in X.dtypes)


def _cells(series: Any, dtype: str, name: str, levels: tuple[Any, ...] | None) -> np.ndarray:
    kind = getattr(series.dtype, "kind", "O")
    if dtype.endswith("[pyarrow]") and not ARROW.fullmatch(dtype):
        do = "convert it, as by astype('datetime64[us]') or astype('str')"
        raise complaint(f"column {shown(name)}", "numbers, text, categories or dates", dtype, do)
    if dtype == "category":
        return np.array([*(levels or ()), None], object)[series.array.codes]  # the code of a missing cell is -1
    if isinstance(series.dtype, np.dtype) and kind in "biuf":
        return np.asarray(series, float)
    if kind in "biuf":
        return series.to_numpy(dtype=float, na_value=np.nan)
    if kind == "M":
        return _days(series)
    if kind in "mc":
        do = "convert it to numbers, text or dates"
        raise complaint(f"column {shown(name)}", "numbers, text, categories or dates", dtype, do)
    import pandas

    values = np.asarray(series, object)
    pairs = zip(values.tolist(), pandas.isna(values).tolist(), strict=True)
    cells = [None if gone else _plain(value, name) for value, gone in pairs]
    if dtype == "object" and any(cell is not None for cell in cells) and all(map(_is_number, cells)):
        return np.array([np.nan if cell is None else cell for cell in cells], float)
    return np.array(cells, object)


def _is_number(cell: Any) -> bool:
    """Nothing, or a number that is no bit and that a float holds: such objects are a column of numbers."""
    return cell is None or type(cell) is float or (type(cell) is int and abs(cell) <= EXACT)


def _plain(value: Any, name: str) -> Any:
    """A level as a Python number or text."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise complaint(f"column {shown(name)}", "numbers or text", shown(value), "convert it to text")


def _days(series: Any) -> np.ndarray:
    """Days since 1970 in universal time, NaN where missing."""
    if series.dt.tz is not None:
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    stamps = series.to_numpy("datetime64[us]")
    return np.where(np.isnat(stamps), np.nan, stamps.astype(np.int64) / DAY)


def series(cells: np.ndarray, known: np.ndarray, dtype: str, levels: tuple[Any, ...] | None, index: Any = None) -> Any:
    """A pandas column of this dtype from cells, missing where not ``known``; ``levels`` are those of a category."""
    import pandas

    if dtype.startswith("datetime64"):
        return _dates(cells, known, dtype, index)
    if dtype in ("category", "ordered"):
        place = {level: i for i, level in enumerate(levels or dict.fromkeys(cells[known].tolist()))}
        codes = [place[cell] if here else -1 for cell, here in zip(cells.tolist(), known.tolist(), strict=True)]
        made = pandas.Categorical.from_codes(codes, list(place), ordered=dtype == "ordered")
        return pandas.Series(made, index=index)
    if cells.dtype.kind == "O":
        cells[~known] = None
        values = cells if dtype == "object" else pandas.array(cells, dtype=dtype)  # straight to it is much faster
        return pandas.Series(values, index=index).astype(dtype)
    cells = cells.astype(float)
    nullable, integer = dtype[:1].isupper() or dtype == "boolean", dtype[:1] in "iuIUb"
    numbers = pandas.Series(np.where(known, np.rint(cells) if integer else cells, np.nan), index=index)
    if dtype == "float64" or (not known.all() and integer and not nullable):
        return numbers  # a dtype without missing values cannot be kept
    return numbers.astype("Int64").astype(dtype) if nullable and dtype[:1] in "IU" else numbers.astype(dtype)


def _dates(cells: np.ndarray, known: np.ndarray, dtype: str, index: Any) -> Any:
    """A pandas column of dates from days since 1970."""
    import pandas

    stamps = np.full(len(cells), np.datetime64("NaT"), "datetime64[us]")
    # days hold no finer fractions
    stamps[known] = np.rint(cells[known].astype(float) * DAY).astype(np.int64).astype("datetime64[us]")
    dates = pandas.Series(stamps, index=index)
    return dates.dt.tz_localize("UTC").astype(dtype) if "," in dtype else dates.astype(dtype)
