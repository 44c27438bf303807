"""Sums over sequences from which a `ravine.models.linear_dynamical.LinearDynamical` is fitted, and where it starts."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Bool, Float

from ravine._tree import Fixed, unfix
from ravine.core import Row, Scalar, weights
from ravine.dist import FullGaussian
from ravine.models.state_path import lower_root

LEAST = 0.05  # share of the variance of a state that a start leaves to its noise


class Motion(NamedTuple):
    """Expected sums over the steps of sequences, up to the last step of each at which something was observed.

    With u = (z, 1), the first three are sums over observed cells of E[u u'], x u' and x^2, x being away from the
    model's centre; ``first`` is the sum of E[u u'] over first steps, and the others are over pairs of adjacent steps.
    """

    outer: Float[Array, "d u u"]
    products: Float[Array, "d u"]
    squares: Float[Array, " d"]
    first: Float[Array, "u u"]
    before: Float[Array, "k k"]
    after: Float[Array, "k k"]
    cross: Float[Array, "k k"]
    pairs: Scalar

    def initial(self, old: FullGaussian, floor: Fixed) -> FullGaussian:
        """The law of the first state; the old one when no sequence has any."""
        count = self.first[-1, -1]
        first = self.first / jnp.where(count > 0, count, 1)
        mean = first[:-1, -1]
        new = FullGaussian(mean, floored(first[:-1, :-1] - jnp.outer(mean, mean), floor))
        return jax.tree.map(lambda new, old: jnp.where(count > 0, new, old), new, old)

    def dynamics(self, transition: Array, process: Array, floor: Fixed) -> tuple[Array, Array]:
        """Transition and factor of the process; the given ones when there are no pairs of steps."""
        moved = self.pairs > 0
        before = jnp.where(moved, self.before, jnp.eye(self.before.shape[0], dtype=self.before.dtype))
        slope = solved(before, self.cross.T).T
        crossed = slope @ self.cross.T
        rest = self.after - crossed - crossed.T + slope @ before @ slope.T
        factor = floored(rest / jnp.where(moved, self.pairs, 1), floor)
        return jnp.where(moved, slope, transition), jnp.where(moved, factor, process)

    def shown(self, before: Float[Array, "d u"]) -> tuple[Float[Array, "d u"], Float[Array, " d"]]:
        """Loading and shift of each column, side by side, and its sum of squared residuals; unseen: ``before``."""
        seen = self.outer[:, -1, -1] > 0
        outer = jnp.where(seen[:, None, None], self.outer, jnp.eye(before.shape[1], dtype=before.dtype)[None])
        theta = jnp.where(seen[:, None], jax.vmap(solved)(outer, self.products), before)
        explained = jnp.einsum("du,due->de", theta, self.outer) - 2 * self.products
        return theta, self.squares + jnp.sum(theta * explained, axis=1)


def solved(matrix: Float[Array, "k k"], right: Float[Array, "k ..."]) -> Float[Array, "k ..."]:
    """The solution of a system whose matrix is positive definite."""
    return cho_solve((jnp.linalg.cholesky(matrix), True), right)


def floored(covariance: Float[Array, "k k"], floor: Fixed) -> Float[Array, "k k"]:
    """The lower factor of the best covariance of which no variance, in any direction, is below the floor."""
    values, vectors = jnp.linalg.eigh((covariance + covariance.T) / 2)
    least = jnp.asarray(unfix(floor), covariance.dtype)
    return lower_root(vectors * jnp.sqrt(jnp.maximum(values, least))[None, :])


def existing(row: Row) -> Bool[Array, " t"]:
    """Which steps of a sequence exist."""
    steps = jnp.arange(row.x.shape[0])
    return steps < (steps.size if row.length is None else row.length)


def seen_cells(row: Row) -> Bool[Array, "t d"]:
    """Which cells of a sequence exist and were observed."""
    exists = jnp.broadcast_to(existing(row)[:, None], row.x.shape)
    return exists if row.mask is None else exists & row.mask


def alive(seen: Bool[Array, "t d"]) -> Bool[Array, " t"]:
    """The steps up to the last at which something was observed: the others say nothing of any parameter."""
    return jnp.cumsum(jnp.any(seen, axis=1)[::-1])[::-1] > 0


def with_one(z: Float[Array, "... k"]) -> Float[Array, "... u"]:
    """Every vector with a 1 at its end."""
    return jnp.concatenate([z, jnp.ones((*z.shape[:-1], 1), z.dtype)], axis=-1)


def moves(
    outer: Float[Array, "t u u"], cross: Float[Array, "pairs k k"], counts: Float[Array, " t"]
) -> tuple[Array, Array, Array, Array, Array]:
    """The last five parts of a `Motion`, from E[u u'] of each step and E[z_{t+1} z_t'], weighted by step."""
    pairs, states = counts[1:], outer[:, :-1, :-1]
    before, after = jnp.tensordot(pairs, states[:-1], 1), jnp.tensordot(pairs, states[1:], 1)
    return counts[0] * outer[0], before, after, jnp.tensordot(pairs, cross, 1), jnp.sum(pairs)


def windows(batch: Row, length: int) -> Row:
    """Every step of every sequence as a row of its own, followed by the steps after it, ``length`` in all.

    Rows come sequence by sequence; one whose own step has no observed cell weighs nothing.
    """
    (n, steps, d), seen = batch.x.shape, jax.vmap(seen_cells)(batch)
    x = jnp.where(seen, batch.x, 0)

    def beside(cells: Array) -> Array:
        cells = jnp.pad(cells, ((0, 0), (0, length - 1), (0, 0)))
        ahead = [cells[:, i : i + steps] for i in range(length)]
        return jnp.concatenate(ahead, axis=2).reshape(n * steps, length * d)

    weight = weights(batch)[:, None] * jnp.any(seen, axis=2)
    return Row(beside(x), beside(seen), weight=weight.ravel())


def in_time(scores: Float[Array, "n t k"], pairs: Float[Array, "n pairs"]) -> tuple[Array, Array]:
    """The regression of states, each of variance about 1, on those before them, and a factor of what is left.

    A small ridge serves where there are fewer pairs than states.
    """
    before, after = scores[:, :-1], scores[:, 1:]
    count = jnp.maximum(jnp.sum(pairs), 1)
    second = jnp.einsum("nt,ntj,ntk->jk", pairs, before, before) / count
    cross = jnp.einsum("nt,ntj,ntk->jk", pairs, after, before) / count
    slope = solved(second + 1e-3 * jnp.eye(second.shape[0], dtype=second.dtype), cross.T).T
    away = after - before @ slope.T
    return slope, floored(jnp.einsum("nt,ntj,ntk->jk", pairs, away, away) / count, Fixed(LEAST))
