"""From the user's table to rows a model can train on: all in memory, or read from a mapped file as they are needed."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ravine._check import complaint, require, shown
from ravine.core import Row, rows_in, weights
from ravine.data.arrays import as_table
from ravine.data.schema import Schema
from ravine.data.table import AnySchema


def rows(X: Any, schema: AnySchema, *, y: Any = None, weight: Any = None, dtype: Any) -> Row:
    """A batch with one row per row of X: encoded values, mask (None when nothing is NaN), and place in the data.

    Parameters
    ----------
    X : table in the user's units, (rows, columns).
    y : labels, (rows, ...); NaN means unlabelled.
    weight : sample weights, (rows,), not negative.
    dtype : floating type of x, weight and real labels.

    Raises
    ------
    ValueError
        When X does not fit the schema, or y or weight do not fit X.

    Examples
    --------
    >>> batch = rows([[0.5], [float("nan")]], Schema((1,), "real"), dtype="float32")
    >>> batch.x.tolist(), batch.mask.tolist(), batch.index.tolist()
    ([[0.5], [0.0]], [[True], [False]], [0, 1])
    """
    _available(dtype)
    values, mask = schema.encode(X, dtype)
    labels, known = _labels(y, len(values), dtype)
    weight = _weights(weight, len(values), dtype)
    return _row(np.arange(len(values)), x=values, mask=mask, y=labels, y_mask=known, weight=weight)


def roomy(rows: int) -> int:
    """A number of rows from a short list that is at least this one: data of nearly one size compile once.

    Examples
    --------
    >>> roomy(3), roomy(300), roomy(50_000)
    (64, 512, 50176)
    """
    return max(64, 1 << (rows - 1).bit_length()) if rows <= 1024 else -(-rows // 1024) * 1024


def padded(batch: Row) -> Row:
    """The batch with rows of weight 0 added up to `roomy`; its weights are then always given."""
    rows, full = rows_in(batch), roomy(rows_in(batch))
    batch = eqx.tree_at(lambda b: b.weight, batch, weights(batch), is_leaf=lambda node: node is None)
    return jax.tree.map(lambda leaf: jnp.pad(leaf, [(0, full - rows)] + [(0, 0)] * (leaf.ndim - 1)), batch)


class ArraySource:
    """Rows that are all in memory.

    Examples
    --------
    >>> source = ArraySource(rows([[0.0], [1.0]], Schema((1,), "binary"), dtype="float32"))
    >>> source.rows, source.block(np.array([1]))[1].tolist()
    (2, [1])
    """

    def __init__(self, row: Row):
        self.rows, self.whole = rows_in(row), padded(row)
        self.row = self.whole if row.weight is not None else eqx.tree_at(lambda b: b.weight, self.whole, None)

    def block(self, positions: np.ndarray) -> tuple[Row, np.ndarray]:
        """Every row, some padding after them, and the positions as they are."""
        return self.row, positions

    def all(self) -> Row:
        """Every row, in order, with padding of weight 0 after them."""
        return self.whole


class MappedSource:
    """Rows of a memory-mapped array that may be larger than memory: a block is read and encoded when it is asked for.

    The same positions give the same batch as `ArraySource`, to the bit. On construction the file is read once, block
    by block, to check its values and to see whether any is missing.

    Parameters
    ----------
    array : (rows, columns) or (rows, height, width[, channels]), as from ``numpy.load(path, mmap_mode="r")``.
    schema, dtype, weight, y : as in `rows`.

    Examples
    --------
    >>> source = MappedSource(np.eye(3), Schema((3,), "binary"), "float32")
    >>> batch, places = source.block(np.array([2, 0]))
    >>> batch.x[places].tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    def __init__(self, array: np.ndarray, schema: Schema, dtype: Any, weight: Any = None, y: Any = None):
        _available(dtype)
        self.array, self.schema, self.dtype, self.rows = as_table(array), schema, dtype, len(array)
        got = math.prod(array.shape[1:])
        require(got == schema.width, "the file", f"{schema.width} columns", f"{got}", "give the training columns")
        self.labels, self.known = _labels(y, self.rows, dtype)
        self.weight = _weights(weight, self.rows, dtype)
        self.holes = schema.inspect(self.array)

    def block(self, positions: np.ndarray) -> tuple[Row, np.ndarray]:
        """The rows named, and where each lies in the block; -1 (padding) stays -1 and is row 0 of the data.

        The block is filled up with repeats to a power of two, so that blocks of nearly one size compile once.
        """
        positions = np.asarray(positions)
        wanted = positions.ravel()
        pads = bool((wanted < 0).any())
        places = np.where(positions < 0, -1, np.arange(wanted.size).reshape(positions.shape) + pads)
        wanted = np.concatenate([np.zeros(int(pads), wanted.dtype), np.maximum(wanted, 0)])
        full = 1 << max(0, wanted.size - 1).bit_length()
        wanted = np.concatenate([wanted, np.full(full - wanted.size, wanted[-1] if wanted.size else 0, wanted.dtype)])
        return self._read(wanted), places

    def all(self) -> Row:
        """Refused: rows that do not fit in memory cannot be taken at once."""
        raise complaint("a mapped file", "training by batches", "a rule that takes all rows", "give a batch size")

    def _read(self, wanted: np.ndarray) -> Row:
        order = np.argsort(wanted, kind="stable")  # forward reads: a disk is slow at anything else
        block = np.empty((len(wanted), *self.array.shape[1:]), self.array.dtype)
        block[order] = self.array[wanted[order]]
        values, mask = self.schema.encode(block, self.dtype)
        if mask is None and self.holes:
            mask = np.ones(values.shape, bool)
        beside = {"y": self.labels, "y_mask": self.known, "weight": self.weight}
        beside = {name: None if part is None else part[wanted] for name, part in beside.items()}
        return _row(wanted, x=values, mask=mask, **beside)


def _row(index: np.ndarray, **parts: np.ndarray | None) -> Row:
    arrays: dict[str, Any] = {name: None if a is None else jnp.asarray(a) for name, a in parts.items()}
    return Row(index=jnp.asarray(index.astype(np.int32)), **arrays)


def _available(dtype: Any) -> None:
    got = jax.dtypes.canonicalize_dtype(dtype)
    do = "work inside ravine._jax.precision('float64')"
    require(got == np.dtype(dtype), "dtype", f"a type of the precision in use, {got}", shown(str(dtype)), do)


def _weights(weight: Any, count: int, dtype: Any) -> np.ndarray | None:
    if weight is None:
        return None
    weight = np.asarray(weight)
    good = (
        weight.dtype.kind in "buif" and weight.shape == (count,) and np.isfinite(weight).all() and (weight >= 0).all()
    )
    got = f"shape {weight.shape}, type {weight.dtype}"
    require(good, "weight", f"{count} finite numbers of at least 0", got, "give one for each row")
    return weight.astype(dtype)


def _labels(y: Any, count: int, dtype: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Labels with 0 for NaN, and which are known (None when all are)."""
    if y is None:
        return None, None
    y = np.asarray(y)
    good = y.dtype.kind in "buif" and y.ndim >= 1 and len(y) == count
    require(
        good, "y", f"{count} numbers", f"shape {y.shape}, type {y.dtype}", "give one label for each row, as a number"
    )
    if y.dtype.kind != "f":
        return y.astype(np.int32), None
    known = ~np.isnan(y)
    return np.where(known, y, 0).astype(dtype), None if known.all() else known
