"""The missing cells of a row given the observed ones: exact where the model allows it, by weighted draws elsewhere."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine.core import AbstractDistribution, AbstractEnergy, AbstractTractable, Latent, Row, walk
from ravine.posteriors import AbstractVisited, Point


def expected_completion(model: PyTree, row: Row, k: int, *, key: PRNGKeyArray) -> Array:
    """E[x | observed cells], observed cells untouched.

    Exact for an `AbstractTractable`. For an `AbstractEnergy` the mean over ``k`` further sweeps of a chain in which the
    observed cells are held. Otherwise the mean of p(x | z) over ``k`` draws of q(z | x) weighted by
    p(x, z) / q(z | x), as in Mattei & Frellsen 2019 (MIWAE, arXiv:1812.02633, equation 12); over the states of a chain
    where the posterior is met by one; at the settled point where latents settle.
    """
    if isinstance(model, AbstractTractable):
        return row.clamp(model.conditional(row).mean())
    if isinstance(model, AbstractEnergy):
        return row.clamp(_chain_mean(model, row, k, key=key))
    z, share = weighted_draws(model, row, k, key=key)
    means = jax.vmap(lambda z: _likelihood(model, z, row).mean())(z)
    return row.clamp(jnp.tensordot(share, means, 1))


def drawn_completion(model: PyTree, row: Row, k: int, *, key: PRNGKeyArray) -> Array:
    """One draw of the missing cells given the observed ones.

    By the end of a chain for an `AbstractEnergy`, by sampling-importance-resampling where else it is not exact.
    """
    key, pick, noise = jr.split(key, 3)
    if isinstance(model, AbstractTractable):
        return row.clamp(model.conditional(row).sample(key=noise))
    if isinstance(model, AbstractEnergy):
        return row.clamp(model.shown(model.settled(model.lifted(row), key=noise)))
    z, share = weighted_draws(model, row, k, key=key)
    chosen = jr.categorical(pick, jnp.log(share))
    return row.clamp(_likelihood(model, jax.tree.map(lambda leaf: leaf[chosen], z), row).sample(key=noise))


def _chain_mean(model: AbstractEnergy, row: Row, k: int, *, key: PRNGKeyArray) -> Array:
    """Mean of the cells over ``k`` sweeps, after those that make a draw."""
    known, (begin, go) = model.lifted(row), jr.split(key)
    kernel = model.kernel(known)

    def on(i: Array, carry: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
        position, sums = carry
        position = walk(kernel, position, 1, key=jr.fold_in(go, i))
        return position, sums + model.shown(position)

    first = model.settled(known, key=begin)
    return jax.lax.fori_loop(0, k, on, (first, jnp.zeros_like(row.x)))[1] / k


def weighted_draws(model: PyTree, row: Row, k: int, *, key: PRNGKeyArray) -> tuple[Latent, Float[Array, " n"]]:
    """``k`` draws of q(z | x) and their normalised importance weights under p(z | x).

    Where a chain draws from p(z | x) itself, ``k`` of its states in order, which count alike. Where latents settle at a
    point, that point alone.
    """
    posterior = model.posterior(row)
    if isinstance(posterior, Point):
        return jax.tree.map(lambda leaf: leaf[None], posterior.latent), jnp.ones(1)
    if isinstance(posterior, AbstractVisited):
        z, log_moves = posterior.visited(k, key=key)
        return z, jnp.full_like(log_moves, 1 / k)
    z, log_q = jax.vmap(lambda k: posterior.sample(key=k))(jr.split(key, k))
    log_w = jax.vmap(lambda z: model.log_joint(z, row))(z) - log_q
    return z, jax.nn.softmax(log_w)


@runtime_checkable
class Decoding(Protocol):
    """A model that has p(x | z)."""

    def likelihood(self, z: Latent, context: PyTree = None) -> AbstractDistribution:
        """p(x | z)."""
        ...


def _likelihood(model: PyTree, z: Latent, row: Row) -> AbstractDistribution:
    if not isinstance(model, Decoding):
        raise TypeError(f"{type(model).__name__} has no likelihood p(x | z) to fill cells from.")
    return model.likelihood(z, row.context)
