"""How the data are read: which fields of a recipe say so, and what its log-likelihoods are densities against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ravine._record import wants_table
from ravine.compare.cuts import Levels, Variable, pieces, recorded, whole
from ravine.data import AnySchema, Schema, TableSchema
from ravine.data.columns import AbstractColumn, Bounded, Censored
from ravine.data.discrete import Binary as BinaryColumn
from ravine.data.discrete import Category, Constant, Count
from ravine.data.frames import is_frame
from ravine.recipes.vae import VAE

Reading = dict[str, Any]  # fields of a recipe: columns, or kind, levels, binarise and threshold

MOST_CELLS = 4_096  # intervals of all columns together


def reading_of_data(X: Any, columns: Any) -> Reading:
    """How a recipe for all kinds of cells reads these rows, unless it is told more.

    Examples
    --------
    >>> reading_of_data(np.array([[0.0], [1.0]]), None)
    {'kind': 'binary'}
    """
    if wants_table(VAE(columns=columns), X):
        return {"columns": columns or {}}
    return {"kind": Schema.infer(X).kind}


def reading_of_fit(fitted: Any) -> Reading:
    """How a fitted recipe has read its rows, before any dequantisation."""
    schema = fitted.schema_
    if isinstance(schema, TableSchema):
        return {"columns": fitted.columns or {}}
    if schema.binarise != "none":
        told = {"kind": "binary", "binarise": schema.binarise, "threshold": schema.threshold}
        return told | ({"levels": schema.levels} if schema.levels else {})
    if schema.dequantise == "none" or not schema.levels:
        counts = schema.dequantise != "none"
        return {"kind": "count" if counts else schema.kind} | ({"levels": schema.levels} if schema.levels else {})
    return {"kind": "binary"} if schema.levels == 2 else {"kind": "levels", "levels": schema.levels}


def fields_for(cls: Any, reading: Reading, X: Any) -> Reading:
    """The fields that make a recipe read the rows so: one for real cells sees the others through uniform noise."""
    kind = schema_of(X, reading).kind
    if kind in cls.kinds or "real" not in cls.kinds:
        return reading
    fields = {name: value for name, value in reading.items() if (name, value) != ("binarise", "static")}
    return fields | {"dequantise": "uniform"}


def schema_of(X: Any, reading: Reading) -> AnySchema:
    """What the columns of these rows hold."""
    return TableSchema.infer(X, reading["columns"]) if "columns" in reading else Schema.infer(X, **reading)


def footing(schema: AnySchema, given: Sequence[int] = ()) -> tuple[str, ...]:
    """The base measure of each column in words: two log-likelihoods may be ranked when these are equal.

    Columns that are given have none.

    Examples
    --------
    >>> footing(Schema((2,), "real")), footing(Schema((1,), "binary", binarise="threshold", threshold=0.5))
    (('density', 'density'), ('probability (1 where at least 0.5)',))
    """
    words = _footing(schema)
    return tuple("given" if j in given else word for j, word in enumerate(words))


def _footing(schema: AnySchema) -> tuple[str, ...]:
    if isinstance(schema, TableSchema):
        return tuple(map(_measure, schema.columns))
    word = {"lebesgue": "density", "counting": "probability"}[schema.measure]
    if schema.binarise == "threshold":
        word += f" (1 where at least {schema.threshold:g})"
    if schema.binarise == "dynamic":
        word += " (bits drawn from the cells)"
    return (word,) * schema.width


def _measure(column: AbstractColumn) -> str:
    if isinstance(column, Constant):
        return "not modelled"
    if isinstance(column, Censored):
        return f"density between {column.low:g} and {column.high:g}, probability there"
    return {"lebesgue": "density", "counting": "probability"}[column.measure]


def variables(schema: AnySchema, values: np.ndarray) -> tuple[Variable, ...]:
    """A variable for each column of the training values, see `values_of`."""
    most = max(2, min(16, MOST_CELLS // values.shape[1]))
    seen = [column[~np.isnan(column)] for column in values.T]
    if isinstance(schema, TableSchema):
        kept = [column for column in schema.columns if column.width]
        return tuple(_variable(column, cells, most) for column, cells in zip(kept, seen, strict=True))
    if schema.kind == "real":
        return tuple(pieces(cells, most) for cells in seen)
    end = {"binary": 2, "levels": schema.levels, "count": None}[schema.kind]
    return tuple(whole(cells, most, end) for cells in seen)


def _variable(column: AbstractColumn, seen: np.ndarray, most: int) -> Variable:
    if isinstance(column, (BinaryColumn, Category)):
        return Levels(len(column.levels))
    if isinstance(column, Count):
        return whole(seen, most)
    if not isinstance(column, Bounded):
        return pieces(seen, most)
    (low,), (high,) = column._ends()
    return recorded(seen, low, high, most) if isinstance(column, Censored) else pieces(seen, most, low, high)


def values_of(X: Any, schema: AnySchema) -> tuple[np.ndarray, np.ndarray]:
    """One value for each modelled column, shape (rows, columns), NaN where missing, and log_det of each row in nats.

    Levels are their places, numbers are as a model sees them: log p(row) = log p(values) + log_det.
    """
    codes = schema.code(X) if isinstance(schema, TableSchema) else X
    cells, mask = schema.encode(codes, np.float64)
    rows = len(cells)
    known = np.ones(cells.shape, bool) if mask is None else mask
    log_det = np.broadcast_to(np.asarray(schema.log_det(known, cells), float), (rows,))
    if not isinstance(schema, TableSchema):
        return np.where(known, cells, np.nan).reshape(rows, -1), log_det
    made = []
    for j, (column, at) in enumerate(zip(schema.columns, schema.starts[:-1], strict=True)):
        if column.width:
            levelled = isinstance(column, Category)
            made.append(codes[:, j] if levelled else np.where(known[:, at], cells[:, at], np.nan))
    return np.column_stack(made), log_det


def column_names(X: Any, width: int) -> list[str]:
    """The names of the columns of the user's rows."""
    return [str(name) for name in X.columns] if is_frame(X) else [f"x{j}" for j in range(width)]
