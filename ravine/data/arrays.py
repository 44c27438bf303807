"""Arrays as users bring them: checked once, summarised column by column, read in blocks so that files may be mapped."""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ravine._check import complaint, require, shown, whole

BLOCK_CELLS = 2**19
EXACT = 2**53  # beyond it float64 skips integers
LARGEST = 1e150  # its square is still a float64

Names = tuple[str, ...] | None


class Summary(NamedTuple):
    """Per column, over the observed cells: how many, the extremes, the sum, and whether all are integers."""

    seen: np.ndarray
    low: np.ndarray
    high: np.ndarray
    total: np.ndarray
    whole: np.ndarray

    def mean(self) -> np.ndarray:
        """Mean of each column, within its range whatever the rounding; 0 where nothing was observed."""
        seen = self.seen > 0
        low, high = np.where(seen, self.low, 0), np.where(seen, self.high, 0)
        return np.clip(self.total / np.maximum(self.seen, 1), low, high)

    def infinite(self) -> bool:
        """True when some cell is infinite."""
        return bool(np.isinf(np.concatenate([self.low, self.high])[np.tile(self.seen > 0, 2)]).any())

    def within(self, top: float, integers: bool = True) -> bool:
        """True when every observed cell is between 0 and ``top``, and an integer if those are asked for."""
        good = (self.low >= 0) & (self.high <= top) & (self.whole | (not integers))
        return bool(np.all(good | (self.seen == 0)))


def as_table(data: Any, what: str = "the data") -> np.ndarray:
    """Rows of numbers as an array of two or more axes, copied only when they must be converted; NaN is missing.

    Parameters
    ----------
    data : array, memory-mapped array, nested list or data frame; bool, integer or real cells.
    what : what to call it in a message.

    Raises
    ------
    ValueError
        When there is no row, no column, no second axis, text, complex numbers, objects, or an integer that
        float64 cannot hold.

    Examples
    --------
    >>> as_table([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    array = _numbers(data, what)
    advice = "use X.reshape(-1, 1) for one column" if array.ndim == 1 else "give one row per datum"
    require(2 <= array.ndim <= 4, what, "a table of rows and columns", f"shape {array.shape}", advice)
    require(array.shape[0] > 0, what, "at least one row", "0 rows", "check how it was made")
    require(math.prod(array.shape[1:]) > 0, what, "at least one column", "0 columns", "check how it was made")
    _refuse_huge_integers(array, what)
    return array


def _numbers(data: Any, what: str) -> np.ndarray:
    if isinstance(data, np.ma.MaskedArray):
        data = np.ma.filled(data.astype(float), np.nan)
    array = data if isinstance(data, np.ndarray) else _converted(data, what)
    if array.dtype == object:
        array = _from_objects(data, array, what)
    good = array.dtype.kind in "buif"
    require(
        good, what, "numbers", f"cells of type {array.dtype}", "encode text, dates and complex numbers as real columns"
    )
    return array.view(np.uint8) if array.dtype == bool else array


def _converted(data: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(data)
    except Exception as error:
        raise complaint(
            what, "rows of equal length", shown(type(data).__name__), "pad the short rows with NaN"
        ) from error


def _from_objects(data: Any, array: np.ndarray, what: str) -> np.ndarray:
    """Object cells as floats when each is a number or a missing value, as in a frame with nullable columns."""
    for place, cell in np.ndenumerate(array):
        missing = cell is None or type(cell).__name__ in ("NAType", "NaTType")
        good = missing or isinstance(cell, numbers.Real)
        require(good, what, "numbers", f"{shown(cell)} at {list(place)}", "encode text as numbers; NaN is missing")
    frame = hasattr(data, "columns") and hasattr(data, "to_numpy")
    return data.to_numpy(dtype=float, na_value=np.nan) if frame else array.astype(float)


def _refuse_huge_integers(array: np.ndarray, what: str) -> None:
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8:
        return
    for start, block in blocks(array):
        huge = (block > EXACT) | (block < -EXACT)
        if huge.any():
            place = first(huge, start)
            got = f"{block[huge][0]} at {place}"
            raise complaint(
                what, "integers below 2**53, which float64 holds exactly", got, "drop or rescale the column"
            )


def blocks(array: np.ndarray, cells: int = BLOCK_CELLS) -> Iterator[tuple[int, np.ndarray]]:
    """Consecutive slices of about ``cells`` cells, each as (number of its first row, two-axis array).

    Examples
    --------
    >>> [(start, block.shape) for start, block in blocks(np.zeros((5, 2)), cells=4)]
    [(0, (2, 2)), (2, (2, 2)), (4, (1, 2))]
    """
    rows = max(1, cells // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), rows):
        block = np.asarray(array[start : start + rows])
        yield start, block.reshape(len(block), -1)


def first(bad: np.ndarray, start: int = 0, names: Names = None) -> str:
    """The first True cell of a two-axis array as ``[row, column]``, with the column's name if it has one.

    Examples
    --------
    >>> first(np.array([[False, True]]), start=7, names=("a", "b"))
    "[7, 1] (column 'b')"
    """
    row, column = (int(i) for i in np.argwhere(bad)[0])
    name = f" (column {shown(names[column])})" if names else ""
    return f"[{start + row}, {column}]{name}"


def refuse_infinite(array: np.ndarray, what: str, names: Names = None) -> None:
    """Raise when a cell is infinite, naming the first such row and column, counted from 0."""
    if array.dtype.kind != "f":
        return
    for start, block in blocks(array):
        infinite = np.isinf(block)
        if infinite.any():
            got = f"{block[infinite][0]} at {first(infinite, start, names)}"
            raise complaint(what, "finite numbers", got, "write NaN if it is missing, or remove the row")


def summarise(array: np.ndarray) -> Summary:
    """One pass over the data.

    Examples
    --------
    >>> summarise(np.array([[1.0, np.nan], [2.0, 0.5]])).seen.tolist()
    [2, 1]
    """
    width = math.prod(array.shape[1:])
    summary = Summary(
        np.zeros(width, int), np.full(width, np.inf), np.full(width, -np.inf), np.zeros(width), np.ones(width, bool)
    )
    for _, block in blocks(array):
        merged = _merged_integers if block.dtype.kind in "iu" else _merged
        summary = merged(summary, block)
    return summary


def _merged_integers(before: Summary, x: np.ndarray) -> Summary:
    return Summary(
        before.seen + len(x),
        np.minimum(before.low, x.min(axis=0)),
        np.maximum(before.high, x.max(axis=0)),
        before.total + x.sum(axis=0, dtype=np.float64),
        before.whole,
    )


def _merged(before: Summary, x: np.ndarray) -> Summary:
    x = x.astype(np.float64)
    known = ~np.isnan(x)
    filled = np.where(known, x, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite cells are refused afterwards, by name
        total = before.total + filled.sum(axis=0)
    return Summary(
        before.seen + known.sum(axis=0),
        np.minimum(before.low, np.where(known, x, np.inf).min(axis=0)),
        np.maximum(before.high, np.where(known, x, -np.inf).max(axis=0)),
        total,
        before.whole & (filled == np.floor(filled)).all(axis=0),
    )


def spread(array: np.ndarray, summary: Summary) -> np.ndarray:
    """Standard deviation of the observed cells of each column; 0 where a column is constant up to rounding."""
    squares, mean = np.zeros_like(summary.total), summary.mean()
    for _, block in blocks(array):
        squares += np.nansum((block.astype(np.float64) - mean) ** 2, axis=0)
    deviation = np.sqrt(squares / np.maximum(summary.seen, 1))
    size = np.where(summary.seen > 0, np.maximum(np.abs(summary.low), np.abs(summary.high)), 0.0)
    varies = (summary.low < summary.high) & (deviation > 8 * np.finfo(float).eps * size)
    return np.where(varies & (deviation >= np.finfo(float).tiny), deviation, 0.0)


def share_at_least(array: np.ndarray, threshold: float, summary: Summary) -> np.ndarray:
    """Share of the observed cells of each column that reach the threshold."""
    reached = sum((block >= threshold).sum(axis=0) for _, block in blocks(array))
    return reached / np.maximum(summary.seen, 1)


def column_names(names: Sequence[Any] | None, data: Any, width: int) -> Names:
    """The given names, or those of a data frame whose columns are all called by text; None when there are none."""
    if names is None and hasattr(data, "columns"):
        names = [c for c in data.columns if isinstance(c, str)]
        names = names if len(names) == width else None
    if names is None:
        return None
    listed = tuple(str(name) for name in names)
    require(len(listed) == width, "names", f"{width} names", f"{len(listed)}", "name every column once")
    twice = [name for name, count in Counter(listed).items() if count > 1]
    require(not twice, "the columns", "distinct names", f"{shown(twice[:1])} twice", "rename one")
    return listed


def image_axes(image_shape: Sequence[int] | None, array: np.ndarray) -> tuple[int, ...] | None:
    """The shape of one row as an image: as given, else from an array with more than two axes, else None."""
    if image_shape is None:
        return array.shape[1:] if array.ndim > 2 else None
    axes, width = tuple(whole("image_shape", int(n)) for n in image_shape), math.prod(array.shape[1:])
    require(math.prod(axes) == width, "image_shape", f"a shape of {width} cells", f"{axes}", "give height, width")
    return axes
