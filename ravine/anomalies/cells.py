"""The cells of rows as a model sees them, what they score, and what the model would put in their place."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Bool, Float

from ravine import verbs
from ravine._jax import precision
from ravine.core import AbstractEvidence, Row
from ravine.data import Schema, TableSchema
from ravine.data.columns import Date

PATCHES = 100  # in one image
CELLS = 200  # of an image that are looked at one by one


class Cells(NamedTuple):
    """Rows of cells as the model sees them, 0 where not observed, and which were observed."""

    x: Float[np.ndarray, "n d"]
    seen: Bool[np.ndarray, "n d"]

    def at(self, places: Any) -> Cells:
        """Some of the rows."""
        return Cells(self.x[places], self.seen[places])

    def without(self, gone: Bool[np.ndarray, "n d"]) -> Cells:
        """The rows with more cells that are not observed."""
        return Cells(np.where(gone, 0, self.x), self.seen & ~gone)


def cells_of(model: Any, X: Any) -> tuple[Cells, np.ndarray]:
    """The rows as the model sees them, random reading done, and as numbers in the user's units."""
    values = model._ready(X)
    with precision(model.precision):
        row, draw = model._row(values), model.schema_.draw()
        if draw is not None:  # once: a hidden cell must not change how the others are read
            row = verbs.blockwise(verbs.drawn, row, draw, model._key())
    x = np.asarray(row.x)
    return Cells(x, np.ones(x.shape, bool) if row.mask is None else np.asarray(row.mask)), values


def log_p(model: Any, cells: Cells, evidence: AbstractEvidence | None = None) -> tuple[np.ndarray, np.ndarray]:
    """log p(observed cells) of every row and its Monte Carlo error, nats, in the user's units."""
    with precision(model.precision):
        row = _row(model, cells)
        got = verbs.log_likelihood(model.model_, evidence or model.evidence, row, None, key=model._key())
    value = np.asarray(got.value, float) + np.asarray(model.schema_.log_det(cells.seen, cells.x))
    return np.where(np.isnan(value), -np.inf, value), np.asarray(got.standard_error, float)


def _row(model: Any, cells: Cells) -> Row:
    return Row(jnp.asarray(cells.x.astype(model.precision)), jnp.asarray(cells.seen))


def made_up(model: Any, rows: int) -> np.ndarray:
    """New rows of the model, as it sees them; the first stay the same when more are asked for."""
    with precision(model.precision):
        drawn = verbs.samples(model.model_, rows, key=jr.fold_in(model._key(), 6))
    return possible(model.schema_, drawn)


def fillings(model: Any, cells: Cells, draws: int) -> np.ndarray:
    """What may stand in the missing cells: the imputation first, then conditional draws; (1 + draws, rows, cells)."""
    with precision(model.precision):
        row, key = _row(model, cells), jr.fold_in(model._key(), 3)
        made = verbs.completed(model.model_, row, None, model.particles, key=key)[None]
        if draws:
            more = verbs.completions(model.model_, row, None, model.particles, draws, key=key)
            made = np.concatenate([made, more])
    return np.where(cells.seen, cells.x, possible(model.schema_, made))


def possible(schema: Schema | TableSchema, made: np.ndarray) -> np.ndarray:
    """Cells that the columns can hold, nearest to these: whole numbers, levels."""
    if isinstance(schema, Schema) and schema.kind == "real":
        return made
    flat = schema.point(made).reshape(-1, _columns(schema))
    return schema.encode(flat, made.dtype)[0].reshape(made.shape)


def _columns(schema: Schema | TableSchema) -> int:
    return len(schema.columns) if isinstance(schema, TableSchema) else schema.width


@dataclass(frozen=True)
class Part:
    """Cells that are hidden together: a column, neighbouring columns, or a patch of an image.

    Attributes
    ----------
    name : in words.
    columns : which columns of the user's table.
    cells : which cells of the model.
    """

    name: str
    columns: tuple[int, ...]
    cells: tuple[int, ...]


def parts_of(model: Any) -> list[Part]:
    """What is looked at in a row: pixels or patches of an image, else the columns that are modelled."""
    schema = model.schema_
    if schema.image_shape is not None:
        return list(_patches(schema.image_shape))
    names = schema.names or tuple(f"x{j}" for j in range(_columns(schema)))
    starts = schema.starts if isinstance(schema, TableSchema) else range(schema.width + 1)
    ends = itertools.pairwise(starts)
    return [Part(f"column {n!r}", (j,), tuple(range(*at))) for j, (n, at) in enumerate(zip(names, ends, strict=True))]


def _patches(shape: tuple[int, ...]) -> Iterator[Part]:
    height, width, *_ = shape
    side = 1
    while math.prod(shape) > CELLS and -(-height // side) * -(-width // side) > PATCHES:
        side += 1
    places = np.arange(math.prod(shape)).reshape(height, width, -1)
    for i, j in itertools.product(range(0, height, side), range(0, width, side)):
        inside = tuple(places[i : i + side, j : j + side].ravel().tolist())
        yield Part(f"{_span('line', i, side, height)}, {_span('column', j, side, width)}", inside, inside)


def _span(word: str, start: int, side: int, size: int) -> str:
    last = min(start + side, size) - 1
    return f"{word} {start}" if last == start else f"{word}s {start}-{last}"


def in_words(schema: Schema | TableSchema, part: Part, codes: np.ndarray) -> str | float:
    """What a part of a row holds, from its codes (columns,): a number, a date, a level; the mean of several cells."""
    known = codes[list(part.columns)]
    if len(known) > 1 or isinstance(schema, Schema):
        return float(np.nanmean(known))
    column = schema.columns[part.columns[0]]
    if isinstance(column, Date):
        stamp = np.datetime64(int(round(float(known[0]) * 86400)), "s")
        return str(stamp.astype("datetime64[D]") if column.whole else stamp)
    value = column.value(known)[0]
    return str(value) if isinstance(value, (str, bool, np.bool_)) else float(value)
