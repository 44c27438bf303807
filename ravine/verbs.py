"""What a fitted model answers about a batch, in compiled blocks of a few fixed sizes.

A block is padded with copies of its first row, so neither a new number of rows nor a single row compiles again.
The key of a row depends on the fitted key and on what the row holds: alone or among others it gets the same answer.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._jax import highest_matmul
from ravine._tree import row_keys
from ravine.core import AbstractDirected, AbstractDraw, AbstractEvidence, AbstractLatentModel, LogLikelihood, Row
from ravine.evidence import drawn_completion, expected_completion, held_cells

SIZES = (16, 256)


def blockwise(answer: Callable[[Row], PyTree], batch: Row) -> PyTree:
    """``answer(block)`` over blocks of the batch, joined again, as numpy arrays."""
    batch = jax.tree.map(np.asarray, batch)
    rows = jax.tree.leaves(batch.x)[0].shape[0]
    parts, start = [], 0
    while start < rows:
        left = rows - start
        size = next((size for size in SIZES if left <= size), SIZES[-1])
        real = min(left, size)
        places = np.concatenate([np.arange(start, start + real), np.full(size - real, start)])
        block = jax.tree.map(lambda leaf, places=places: jnp.asarray(leaf[places]), batch)
        parts.append(jax.tree.map(lambda leaf, real=real: np.asarray(leaf)[:real], answer(block)))
        start += real
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def log_likelihood(
    model: PyTree, evidence: AbstractEvidence, batch: Row, draw: AbstractDraw | None, *, key: PRNGKeyArray
) -> LogLikelihood:
    """log p(x) of every row in nats, in the units the model sees."""
    with highest_matmul():
        value, error = blockwise(lambda block: _evidence(model, evidence, block, draw, key), batch)
    return LogLikelihood(value, error, evidence.direction, evidence.method())


@eqx.filter_jit
def _evidence(
    model: PyTree, evidence: AbstractEvidence, block: Row, draw: AbstractDraw | None, key: PRNGKeyArray
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    return evidence(model, drawn(block, draw, key), key=key)


def drawn(block: Row, draw: AbstractDraw | None, key: PRNGKeyArray) -> Row:
    """The block with the random part of its reading done, by keys of the rows themselves."""
    if draw is None:
        return block
    return jax.vmap(lambda row, k: draw(row, key=k))(block, row_keys(jr.fold_in(key, 1), held_cells(block)))


def latent_mean(model: AbstractLatentModel, batch: Row, draw: AbstractDraw | None, *, key: PRNGKeyArray) -> np.ndarray:
    """Posterior means, one flat vector per row."""
    return blockwise(lambda block: _latent_mean(model, block, draw, key), batch)


@eqx.filter_jit
def _latent_mean(model: AbstractLatentModel, block: Row, draw: AbstractDraw | None, key: PRNGKeyArray) -> Array:
    return jax.vmap(lambda row: flat(model.posterior(row).mean()))(drawn(block, draw, key))


def flat(latent: PyTree[Array]) -> Float[Array, " n"]:
    """A latent as one vector."""
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(latent)])


def unflat(vector: Float[Array, " n"], like: PyTree) -> PyTree[Array]:
    """The inverse of `flat`, in the shape of ``like``."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([int(np.prod(leaf.shape)) for leaf in leaves])[:-1].tolist()
    pieces = jnp.split(vector, ends)
    return jax.tree.unflatten(structure, [p.reshape(leaf.shape) for p, leaf in zip(pieces, leaves, strict=True)])


def decoded_mean(model: AbstractDirected, latents: np.ndarray, like: PyTree) -> np.ndarray:
    """E[x | z] for rows of flat latents."""
    return blockwise(lambda block: _decoded_mean(model, block.x, like), Row(jnp.asarray(latents)))


@eqx.filter_jit
def _decoded_mean(model: AbstractDirected, latents: Array, like: PyTree) -> Array:
    return jax.vmap(lambda z: model.likelihood(unflat(z, like)).mean())(latents)


def completed(
    model: AbstractLatentModel, batch: Row, draw: AbstractDraw | None, particles: int, *, key: PRNGKeyArray
) -> np.ndarray:
    """E[x | observed cells] of every row; observed cells as they came."""
    return blockwise(lambda block: _completed(model, block, draw, particles, key), batch)


@eqx.filter_jit
def _completed(
    model: AbstractLatentModel, block: Row, draw: AbstractDraw | None, particles: int, key: PRNGKeyArray
) -> Array:
    keys = row_keys(key, held_cells(block))
    return jax.vmap(lambda row, k: expected_completion(model, row, particles, key=k))(drawn(block, draw, key), keys)


def completions(
    model: AbstractLatentModel, batch: Row, draw: AbstractDraw | None, particles: int, draws: int, *, key: PRNGKeyArray
) -> np.ndarray:
    """``draws`` draws of every row given its observed cells, shape (draws, rows, ...)."""
    made = blockwise(lambda block: _completions(model, block, draw, particles, draws, key), batch)
    return np.moveaxis(made, 1, 0)


@eqx.filter_jit
def _completions(
    model: AbstractLatentModel, block: Row, draw: AbstractDraw | None, particles: int, draws: int, key: PRNGKeyArray
) -> Array:
    keys = row_keys(key, held_cells(block))

    def one(row: Row, key: PRNGKeyArray) -> Array:
        return jax.vmap(lambda k: drawn_completion(model, row, particles, key=k))(jr.split(key, draws))

    return jax.vmap(one)(drawn(block, draw, key), keys)


def samples(model: PyTree, n: int, *, key: PRNGKeyArray) -> np.ndarray:
    """``n`` draws of x. The i-th is a function of the key and i: asking for more leaves the first ones as they were."""
    return blockwise(lambda block: _samples(model, block.x, key), Row(jnp.asarray(np.arange(n))))


@eqx.filter_jit
def _samples(model: PyTree, places: Array, key: PRNGKeyArray) -> Array:
    return jax.vmap(lambda i: model.sample(key=jr.fold_in(key, i))[1])(places)
