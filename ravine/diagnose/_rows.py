"""Rows, cells and the laws of a model, as the diagnostics need them."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray, PyTree

from ravine._jax import key_words
from ravine._tree import row_keys
from ravine.core import AbstractLatentModel, AbstractTractable, Row, rows_in
from ravine.evidence import held_cells


def chosen(batch: Row, places: np.ndarray) -> Row:
    """The rows at these places."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[places], batch)


def some(batch: Row, rows: int, *, key: PRNGKeyArray) -> tuple[Row, np.ndarray]:
    """At most so many rows, drawn by the key, in their order; and their places. Rows without any cell are left out."""
    places = np.flatnonzero(mask_of(batch).any(axis=1))
    if len(places) > rows:
        places = np.sort(stream(key).permutation(places)[:rows])
    return chosen(batch, places), places


def stream(key: PRNGKeyArray) -> np.random.Generator:
    """Numpy's random numbers from a key."""
    return np.random.default_rng(key_words(key).tolist())


def placed(batch: Row) -> Row:
    """The rows with their places, as they came or counted from 0."""
    if batch.index is not None:
        return batch
    return eqx.tree_at(lambda r: r.index, batch, jnp.arange(rows_in(batch)), is_leaf=lambda leaf: leaf is None)


def place_keys(key: PRNGKeyArray, block: Row) -> Key[Array, " n"]:
    """One key per row from what it holds and its place.

    Other keys of rows are equal for equal rows, which binary tables are full of: they would all lose the same cells.
    """
    return row_keys(key, (held_cells(block), block.index))


def cells_of(tree: PyTree, lead: int = 1) -> Float[np.ndarray, "..."]:
    """The cells of rows as float64, one vector a row, after ``lead`` axes."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(*leaf.shape[:lead], -1) for leaf in leaves], axis=-1)


def mask_of(batch: Row) -> Bool[np.ndarray, "n d"]:
    """Which cells were observed, one vector a row."""
    if batch.mask is None:
        width = sum(int(np.prod(leaf.shape[1:])) for leaf in jax.tree.leaves(batch.x))
        return np.ones((rows_in(batch), width), bool)
    return np.concatenate(
        [np.asarray(leaf).reshape(rows_in(batch), -1) for leaf in jax.tree.leaves(batch.mask)], axis=1
    )


def nodes_of(model: AbstractLatentModel, batch: Row) -> tuple[Any, ...]:
    """The stochastic nodes of a row's posterior, with shapes for arrays: nothing is computed."""
    row = jax.tree.map(lambda leaf: leaf[0], batch)
    return eqx.filter_eval_shape(lambda model, row: model.posterior(row).nodes(), model, row)


def exact_part(model: Any) -> AbstractTractable | None:
    """Who knows log p(x) in closed form: the model, its generator, or nobody."""
    generator = getattr(model, "p", None)
    known = (part for part in (model, generator) if isinstance(part, AbstractTractable))
    return next(known, None)


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean over rows and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
