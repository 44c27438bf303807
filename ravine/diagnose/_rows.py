"""Rows, cells and the laws of a model, as the diagnostics need them."""

from __future__ import annotations

from typing import Any, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray, PyTree

from ravine._jax import key_words
from ravine._tree import row_keys
from ravine.core import AbstractDirected, AbstractTractable, Row, rows_in
from ravine.evidence import drawn_completion, held_cells, weighted_draws
from ravine.verbs import blockwise, few, samples


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


def _is_weighted(model: Any) -> TypeGuard[AbstractDirected]:
    """Whether cells are drawn by weighing latents first: there is a p(x | z), and nothing in closed form."""
    return isinstance(model, AbstractDirected) and not isinstance(model, AbstractTractable)


def cells_given(
    model: AbstractDirected, latents: PyTree, context: PyTree = None, *, key: PRNGKeyArray
) -> Float[np.ndarray, "n ..."]:
    """One draw of p(x | z) for each of n latents.

    Whoever needs cells draws them here: laws of counts and of heavy tails take long to compile, and do so once.
    """
    each = jax.tree.map(jnp.asarray, (latents, context))
    return blockwise(_cells_given, placed(Row(each[0], context=each[1])), model, key, seldom=True)


def _cells_given(block: Row, model: AbstractDirected, key: PRNGKeyArray) -> Float[Array, "n ..."]:
    keys = jax.vmap(jr.fold_in, in_axes=(None, 0))(key, jnp.asarray(block.index))
    return jax.vmap(lambda row, k: model.likelihood(row.x, row.context).sample(key=k))(block, keys)


def made_rows(model: PyTree, rows: int, context: PyTree = None, *, key: PRNGKeyArray) -> Float[np.ndarray, "n ..."]:
    """Rows drawn from the model, given the context of so many rows, in turn, where there is any."""
    if not _is_weighted(model):
        return samples(model, rows, key=key)
    above, below = jr.split(key)
    beside = jax.tree.map(lambda leaf: np.asarray(leaf)[np.arange(rows) % len(leaf)], context)
    latents = blockwise(_priors, Row(jnp.arange(rows), context=beside), model, above, seldom=True)
    return cells_given(model, latents, beside, key=below)


def _priors(block: Row, model: AbstractDirected, key: PRNGKeyArray) -> PyTree[Array]:
    return jax.vmap(lambda row: model.prior(row.context).sample(key=jr.fold_in(key, row.x)))(block)


def completions(
    model: PyTree, batch: Row, particles: int, draws: int, *, key: PRNGKeyArray
) -> Float[np.ndarray, "n draws ..."]:
    """Draws of every row given its observed cells, by keys that depend on what the row holds and on its place.

    Where nothing is exact, latents are drawn and weighted once for each row, and all draws are picked among them.
    """
    batch = placed(batch)
    if not _is_weighted(model):
        return blockwise(_completions, batch, model, particles, draws, key, seldom=True)
    above, below = jr.split(key)
    latents = blockwise(_latents, batch, model, particles, draws, above, block=few(True), seldom=True)
    each = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), latents)
    context = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf), draws, axis=0), batch.context)
    made = cells_given(model, each, context, key=below)
    seen, x = (np.asarray(part)[:, None] for part in (batch.mask, batch.x))
    return np.where(seen, x, made.reshape(-1, draws, *made.shape[1:]))


def _completions(
    block: Row, model: PyTree, particles: int, draws: int, key: PRNGKeyArray
) -> Float[Array, "n draws ..."]:
    def one(row: Row, key: PRNGKeyArray) -> Float[Array, "draws ..."]:
        # one draw after the other: side by side they would need the memory of so many rows
        return jax.lax.map(lambda k: drawn_completion(model, row, particles, key=k), jr.split(key, draws))

    return jax.vmap(one)(block, place_keys(key, block))


def _latents(
    block: Row, model: PyTree, particles: int, draws: int, key: PRNGKeyArray
) -> PyTree[Float[Array, "n draws ..."]]:
    def one(row: Row, key: PRNGKeyArray) -> PyTree[Array]:
        here, there = jr.split(key)
        z, share = weighted_draws(model, row, particles, key=here)
        chosen = jr.categorical(there, jnp.log(share), shape=(draws,))
        return jax.tree.map(lambda leaf: leaf[chosen], z)

    return jax.vmap(one)(block, place_keys(key, block))


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


def nodes_of(model: PyTree, batch: Row) -> tuple[Any, ...]:
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
