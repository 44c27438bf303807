"""Which row of a batch makes something go wrong, and which of its columns: found by replacing all the others."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ravine._check import shown
from ravine.core import Row, rows_in, weights

MOST_ROWS = 2**16  # rows among which the widest value of a column is looked for
MOST_SINGLE = 256  # columns that are left out one at a time, when no single one is enough


class Culprit(NamedTuple):
    """Which row of a batch, and in words which of its columns holds what."""

    row: int
    words: str


def culprit(batch: Row, wrong: Callable[[Row], bool], schema: Any = None) -> Culprit | None:
    """The first row of a batch that is wrong beside rows of medians, and the column that makes it so.

    None when the batch is wrong without any of its values, or no single row is. About ``2 log2(rows * columns)``
    evaluations of ``wrong``, all of one shape.
    """
    x = batch.x
    if not _holds_amounts(x):
        return None
    plain = _medians(batch)

    def kept(keep: Bool[np.ndarray, "n ..."]) -> bool:
        held = jnp.asarray(keep.reshape(keep.shape + (1,) * (x.ndim - keep.ndim)))
        return wrong(eqx.tree_at(lambda b: b.x, batch, jnp.where(held, x, plain)))

    rows = rows_in(batch)
    if kept(np.zeros((rows, 1), bool)):
        return None
    row = first_enough(rows, lambda some: kept(some[:, None]))
    if row is None:
        return None
    owner, here = _owners(schema, x), np.arange(rows)[:, None] == row
    within = lambda some: kept(here & some[owner].reshape(1, *x.shape[1:]))  # noqa: E731
    column = first_enough(int(owner[-1]) + 1, within)
    return Culprit(row, "" if column is None else f", {_value(x[row], column, schema)}")


def missed_column(batch: Row, wrong: Callable[[Row], bool], schema: Any = None) -> int | None:
    """The first column that is enough for a batch to be wrong when all others are marked missing.

    None when the batch is wrong with no cell observed, or no column is enough. It finds what `culprit` cannot: values
    that the model had taken up before its first step, in the start of a bias or of a scale.
    """
    x = batch.x
    if not _holds_amounts(x):
        return None
    owner, mask = _owners(schema, x), np.ones(x.shape, bool) if batch.mask is None else np.asarray(batch.mask)

    def seen(some: Bool[np.ndarray, " columns"]) -> bool:
        held = jnp.asarray(mask & some[owner].reshape(1, *x.shape[1:]))
        masked = eqx.tree_at(lambda b: (b.x, b.mask), batch, (jnp.where(held, x, 0), held), is_leaf=lambda n: n is None)
        return wrong(masked)

    columns = int(owner[-1]) + 1
    return None if seen(np.zeros(columns, bool)) else first_enough(columns, seen)


def first_enough(units: int, wrong: Callable[[Bool[np.ndarray, " units"]], bool]) -> int | None:
    """The first of some units that alone is enough for things to go wrong, by halving; ``wrong`` is told which to keep.

    When only several together are enough: the first without which things go right; None when there is none.

    Examples
    --------
    >>> first_enough(10, lambda keep: keep[7])
    7
    >>> first_enough(10, lambda keep: keep[3] and keep[6])
    3
    """
    low, high, every = 0, units, np.arange(units)
    while high - low > 1:
        middle = (low + high) // 2
        if wrong((every >= low) & (every < middle)):
            high = middle
        elif wrong((every >= middle) & (every < high)):
            low = middle
        else:
            return next((i for i in range(min(units, MOST_SINGLE)) if not wrong(every != i)), None)
    return low


def widest(source: Any, schema: Any, column: int | None = None) -> tuple[str, float]:
    """The value farthest from its column's median, among the first rows of a source, in words; and how far it is."""
    rows, places = source.block(np.arange(min(source.rows, MOST_ROWS)))
    batch = jax.tree.map(lambda leaf: leaf[places], rows)
    if not _holds_amounts(batch.x):
        return "", 0.0
    owner, x = _owners(schema, batch.x), np.asarray(batch.x, np.float64)
    seen = np.ones(x.shape, bool) if batch.mask is None else np.asarray(batch.mask)
    away = np.where(seen, np.abs(x - np.asarray(_medians(batch))), 0).reshape(len(places), -1)
    away = away if column is None else np.where(owner == column, away, -1)
    row, cell = np.unravel_index(int(np.argmax(away)), away.shape)
    number = row if batch.index is None else int(batch.index[row])
    return f"row {number}, {_value(batch.x[row], int(owner[cell]), schema)}", float(away[row, cell])


def _holds_amounts(x: Any) -> bool:
    """Whether the cells are numbers that can be too large; word numbers cannot."""
    return eqx.is_inexact_array(x) and x.ndim > 1


def _medians(batch: Row) -> Array:
    """What each cell usually holds, where it was observed; 0 where it never was."""
    x = np.asarray(batch.x)
    seen = np.broadcast_to(np.asarray(weights(batch) > 0).reshape(-1, *[1] * (x.ndim - 1)), x.shape)
    seen = seen if batch.mask is None else seen & np.asarray(batch.mask)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns without a value
        middle = np.nanmedian(np.where(seen, x, np.nan), axis=0, keepdims=True)
    return jnp.asarray(np.nan_to_num(middle).astype(x.dtype))


def _owners(schema: Any, x: Array) -> Int[np.ndarray, " cells"]:
    """The column of the user's table that each cell belongs to."""
    starts = getattr(schema, "starts", None)
    cells = np.arange(int(np.prod(x.shape[1:])))
    return cells if starts is None else np.searchsorted(np.asarray(starts), cells, side="right") - 1


def _value(row: Array, column: int, schema: Any) -> str:
    """A column and what the row holds there, in the user's units."""
    cells = np.asarray(row, np.float64) if schema is None else np.asarray(schema.decode(row))
    return f"{named(column, schema)} = {cells.ravel()[column]:.6g}"


def named(column: int, schema: Any) -> str:
    """A column by its name, or its number."""
    names = getattr(schema, "names", None)
    return f"column {shown(names[column]) if names else column}"
