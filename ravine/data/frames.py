"""Data frames as columns of plain numpy arrays, and back. Only a frame that the user brings makes pandas load."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ravine._check import complaint, shown

DAY = 86_400 * 10**9  # nanoseconds


def is_frame(X: Any) -> bool:
    """True for a pandas data frame.

    Examples
    --------
    >>> is_frame(np.zeros((2, 2)))
    False
    """
    return hasattr(X, "iloc") and hasattr(X, "dtypes") and getattr(X, "ndim", 0) == 2


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
        for j, cells in enumerate(np.asarray(X, float).T):
            yield Given(f"x{j}", "float64", cells)
        return
    for j, (name, kind) in enumerate(zip(X.columns, X.dtypes, strict=True)):
        series = X.iloc[:, j]
        dtype = "ordered" if str(kind) == "category" and kind.ordered else str(kind)
        yield Given(str(name), dtype, _cells(series, str(name)), _levels(kind, str(name)))


def _levels(dtype: Any, name: str) -> tuple[Any, ...] | None:
    if str(dtype) == "category":
        return tuple(_plain(level, name) for level in dtype.categories)
    return (False, True) if getattr(dtype, "kind", "O") == "b" else None


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


def _cells(series: Any, name: str) -> np.ndarray:
    kind = getattr(series.dtype, "kind", "O")
    if str(series.dtype) == "category":
        series = series.astype(object)
    elif kind in "biuf":
        return series.to_numpy(dtype=float, na_value=np.nan)
    elif kind == "M":
        return _days(series)
    elif kind in "mc":
        do = "convert it to numbers, text or dates"
        raise complaint(f"column {shown(name)}", "numbers, text, categories or dates", str(series.dtype), do)
    missing = series.isna().to_numpy()
    return np.array([None if gone else _plain(v, name) for v, gone in zip(series, missing, strict=True)], object)


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
    stamps = series.to_numpy("datetime64[ns]")
    return np.where(np.isnat(stamps), np.nan, stamps.astype(np.int64) / DAY)


def series(cells: np.ndarray, known: np.ndarray, dtype: str, levels: tuple[Any, ...]) -> Any:
    """A pandas column of this dtype from cells, missing where not ``known``; ``levels`` are those of a category."""
    import pandas

    if dtype.startswith("datetime64"):
        stamps = np.full(len(cells), np.datetime64("NaT"), "datetime64[ns]")
        micro = np.rint(cells[known].astype(float) * (DAY // 1000)).astype(np.int64)  # days hold no finer fractions
        stamps[known] = (micro * 1000).astype("datetime64[ns]")
        dates = pandas.Series(stamps)
        return dates.dt.tz_localize("UTC").astype(dtype) if "," in dtype else dates.astype(dtype)
    if dtype in ("category", "ordered"):
        place = {level: i for i, level in enumerate(levels or dict.fromkeys(cells[known].tolist()))}
        codes = [place[cell] if here else -1 for cell, here in zip(cells.tolist(), known, strict=True)]
        return pandas.Series(pandas.Categorical.from_codes(codes, list(place), ordered=dtype == "ordered"))
    if cells.dtype.kind == "O":
        cells[~known] = None
        return pandas.Series(cells).astype(dtype)
    cells = cells.astype(float)
    nullable, integer = dtype[:1].isupper() or dtype == "boolean", dtype[:1] in "iuIUb"
    numbers = pandas.Series(np.where(known, np.rint(cells) if integer else cells, np.nan))
    if not known.all() and integer and not nullable:
        return numbers  # a dtype without missing values cannot be kept
    return numbers.astype("Int64").astype(dtype) if nullable and dtype[:1] in "IU" else numbers.astype(dtype)
