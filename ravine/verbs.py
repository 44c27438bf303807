"""What a fitted model answers about a batch, in compiled blocks of one fixed size for each question.

The last block is padded with copies of its first row, so neither a new number of rows nor a single row compiles again,
and every row is rounded as in any other company. Its key depends on the fitted key and on what the row holds. So a row
alone gets, to the bit, the answer that it gets among others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ravine._jax import hasty_jit, highest_matmul, on_processor
from ravine._tree import row_keys
from ravine.core import (
    AbstractDraw,
    AbstractEvidence,
    AbstractTractable,
    LogLikelihood,
    Row,
)
from ravine.evidence import drawn_completion, expected_completion, held_cells

BLOCK, FEW = 16, 4  # rows that are computed together: of most questions, and where many draws of each are weighted
ROWS = 256  # rows that one call of a compiled program may go through, block by block
CELLS = 2**18  # of a block, and sixteen times as many of a call: longer rows come in smaller company

Answer = Callable[..., PyTree]  # answer(block, *arguments): arrays with a leading axis of rows


def blockwise(answer: Answer, batch: Row, *arguments: Any, block: int = BLOCK, seldom: bool = False) -> PyTree:
    """``answer(block, *arguments)`` over the blocks of a batch, joined again, as numpy arrays.

    ``answer`` is a function of a module, so that it is compiled once. The size of a ``block`` may depend on the
    question, never on the number of rows: see `few`. A question that is asked ``seldom`` is compiled in haste.
    """
    program = _in_blocks_seldom if seldom else _in_blocks
    batch, rows, parts = jax.tree.map(np.asarray, batch), jax.tree.leaves(batch.x)[0].shape[0], []
    block, call = _company(batch, block)
    for start in range(0, rows, call):
        left = min(call, rows - start)
        places = np.concatenate([np.arange(start, start + left), np.full(call - left, start)]).reshape(-1, block)
        blocks = jax.tree.map(lambda leaf, places=places: jnp.asarray(leaf[places]), batch)
        made = program(answer, blocks, jnp.asarray(-(-left // block)), arguments)
        parts.append(
            jax.tree.map(
                lambda leaf, left=left: np.asarray(leaf).reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:])[:left],
                made,
            )
        )
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _company(batch: Row, block: int) -> tuple[int, int]:
    """How many rows make a block, and a call: so many, and fewer where a row has many cells; powers of two."""
    cells = max(1, sum(int(np.prod(leaf.shape[1:])) for leaf in jax.tree.leaves(batch.x)))
    power = lambda most, room: 1 << (max(1, min(most, room // cells)).bit_length() - 1)  # noqa: E731
    block = power(block, CELLS)
    return block, max(block, power(ROWS, 16 * CELLS))


def few(weighted: bool, rows: int = FEW) -> int:
    """How many rows make a block of a question: fewer where many draws of each are ``weighted``.

    A single row waits for a whole block. One row of many draws keeps a processor busy, if a little less well than many
    rows do; an accelerator it leaves idle.
    """
    return rows if weighted and on_processor() else BLOCK


def _through(answer: Answer, blocks: Row, count: Int[Array, ""], arguments: tuple[Any, ...]) -> PyTree:
    """The answers to the first ``count`` blocks, one after the other; zeros for the others."""

    def one(i: Int[Array, ""]) -> PyTree:
        return answer(jax.tree.map(lambda leaf: leaf[i], blocks), *arguments)

    shapes, size = jax.eval_shape(one, count), jax.tree.leaves(blocks)[0].shape[0]
    nothing = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), shapes)
    fill = lambda i, made: jax.tree.map(lambda all_, new: all_.at[i].set(new), made, one(i))  # noqa: E731
    return jax.lax.fori_loop(0, count, fill, nothing)


_in_blocks, _in_blocks_seldom = eqx.filter_jit(_through), hasty_jit(_through)


def log_likelihood(
    model: PyTree, evidence: AbstractEvidence, batch: Row, draw: AbstractDraw | None, *, key: PRNGKeyArray
) -> LogLikelihood:
    """log p(x) of every row in nats, in the units the model sees."""
    with highest_matmul():
        ready = evidence.prepared(model, key=key)
        parts = [(at, own) for at, own in ready.parts(model, batch) if len(at)]
        found = [_evaluated(model, own, batch, at, draw, key) for at, own in parts]
    order = np.argsort(np.concatenate([at for at, _ in parts]))
    value, error = (np.concatenate(leaves)[order] for leaves in zip(*found, strict=True))
    last = max((own for _, own in parts), key=lambda own: own.direction == "estimate")
    return LogLikelihood(value, error, last.direction, last.method(), ready.shared_error())


def _evaluated(
    model: PyTree,
    evidence: AbstractEvidence,
    batch: Row,
    places: np.ndarray,
    draw: AbstractDraw | None,
    key: PRNGKeyArray,
) -> tuple[np.ndarray, np.ndarray]:
    whole = len(places) == jax.tree.leaves(batch.x)[0].shape[0]
    rows = batch if whole else jax.tree.map(lambda leaf: np.asarray(leaf)[places], batch)
    size = few(evidence.direction not in ("exact", "upper"))
    return blockwise(_evidence, rows, model, evidence, draw, key, block=size)


def _evidence(
    block: Row, model: PyTree, evidence: AbstractEvidence, draw: AbstractDraw | None, key: PRNGKeyArray
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    return evidence(model, drawn(block, draw, key), key=key)


def drawn(block: Row, draw: AbstractDraw | None, key: PRNGKeyArray) -> Row:
    """The block with the random part of its reading done, by keys of the rows themselves."""
    if draw is None:
        return block
    return jax.vmap(lambda row, k: draw(row, key=k))(block, row_keys(jr.fold_in(key, 1), held_cells(block)))


def latent_mean(model: PyTree, batch: Row, draw: AbstractDraw | None, *, key: PRNGKeyArray) -> np.ndarray:
    """Posterior means, one flat vector per row."""
    return blockwise(_latent_mean, batch, model, draw, key)


def _latent_mean(block: Row, model: PyTree, draw: AbstractDraw | None, key: PRNGKeyArray) -> Array:
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


def decoded_mean(model: PyTree, latents: np.ndarray, like: PyTree) -> np.ndarray:
    """E[x | z] for rows of flat latents."""
    return blockwise(_decoded_mean, Row(jnp.asarray(latents)), model, like)


def _decoded_mean(block: Row, model: PyTree, like: PyTree) -> Array:
    return jax.vmap(lambda z: model.likelihood(unflat(z, like)).mean())(block.x)


def completed(model: PyTree, batch: Row, draw: AbstractDraw | None, particles: int, *, key: PRNGKeyArray) -> np.ndarray:
    """E[x | observed cells] of every row; observed cells as they came."""
    return blockwise(_completed, batch, model, draw, particles, key, block=_completing(model))


def _completing(model: PyTree) -> int:
    return few(not isinstance(model, AbstractTractable), 1)


def _completed(block: Row, model: PyTree, draw: AbstractDraw | None, particles: int, key: PRNGKeyArray) -> Array:
    keys = row_keys(key, held_cells(block))
    return jax.vmap(lambda row, k: expected_completion(model, row, particles, key=k))(drawn(block, draw, key), keys)


def completions(
    model: PyTree, batch: Row, draw: AbstractDraw | None, particles: int, draws: int, *, key: PRNGKeyArray
) -> np.ndarray:
    """``draws`` draws of every row given its observed cells, shape (draws, rows, ...)."""
    made = blockwise(_completions, batch, model, draw, particles, draws, key, block=_completing(model))
    return np.moveaxis(made, 1, 0)


def _completions(
    block: Row, model: PyTree, draw: AbstractDraw | None, particles: int, draws: int, key: PRNGKeyArray
) -> Array:
    keys = row_keys(key, held_cells(block))

    def one(row: Row, key: PRNGKeyArray) -> Array:
        return jax.vmap(lambda k: drawn_completion(model, row, particles, key=k))(jr.split(key, draws))

    return jax.vmap(one)(drawn(block, draw, key), keys)


def samples(model: PyTree, n: int, *, key: PRNGKeyArray) -> np.ndarray:
    """``n`` draws of x. The i-th is a function of the key and i: asking for more leaves the first ones as they were."""
    return blockwise(_samples, Row(jnp.asarray(np.arange(n))), model, key)


def _samples(block: Row, model: PyTree, key: PRNGKeyArray) -> Array:
    return jax.vmap(lambda i: model.sample(key=jr.fold_in(key, i))[1])(block.x)
