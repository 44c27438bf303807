"""What a mixture is a mixture of: one family of laws, k of them, fitted together from shared rows."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ravine.core import AbstractDistribution, Row, Scalar

Collect = Callable[[Float[Array, "n k"]], PyTree[Array]]


class AbstractLaws(eqx.Module):
    """k laws of one row, p(x | component)."""

    @abc.abstractmethod
    def size(self) -> int:
        """The number k of components."""

    @abc.abstractmethod
    def law(self, z: Float[Array, " k"]) -> AbstractDistribution:
        """p(x | z) for a one-hot z; for a soft z its mean is linear in z."""

    @abc.abstractmethod
    def given(self, row: Row) -> AbstractDistribution:
        """p(x | observed cells, component): one distribution with a leading axis of k.

        What it says of the observed cells themselves is not used.
        """

    @abc.abstractmethod
    def log_prob_all(self, row: Row) -> Float[Array, " k"]:
        """log p(observed cells | component) for each of them, in nats."""


class AbstractComponents(AbstractLaws):
    """k laws of one row, and how EM fits them.

    A new family gives the law of one component, the exact density of the observed cells, and the statistics of one row.
    `evaluate` may be `one_by_one` until matrix products are worth writing; the result must be the same.
    """

    @abc.abstractmethod
    def statistics(self, row: Row, share: Float[Array, " k"]) -> PyTree[Array]:
        """E[T(x) | observed cells, component], each component's times its share of the row."""

    @abc.abstractmethod
    def evaluate(self, batch: Row) -> tuple[Float[Array, "n k"], Collect]:
        """`log_prob_all` of every row, and a function from shares (n, k) to the sum of `statistics` over rows."""

    @abc.abstractmethod
    def maximise(self, statistics: PyTree[Array], counts: Float[Array, " k"]) -> Self:
        """The components of highest expected log-likelihood; ``counts`` are the sums of the shares.

        A component that no row supports, or whose fit would be degenerate, keeps what it had.
        """

    @abc.abstractmethod
    def log_penalty(self) -> Scalar:
        """What `maximise` raises besides the expected log-likelihood; 0 for none."""


def one_by_one(components: AbstractComponents, batch: Row) -> tuple[Float[Array, "n k"], Collect]:
    """`AbstractComponents.evaluate` a row at a time."""

    def collect(shares: Float[Array, "n k"]) -> PyTree[Array]:
        each = jax.vmap(components.statistics)(batch, shares)
        return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), each)

    return jax.vmap(components.log_prob_all)(batch), collect


def rounding(squares: Float[Array, "..."]) -> Float[Array, "..."]:
    """The smallest variance that a mean square about the centre tells from none: below it digits have cancelled."""
    return 16 * jnp.finfo(squares.dtype).eps * squares


def supported(counts: Float[Array, "k ..."]) -> Bool[Array, "k ..."]:
    """Whether a component has a share of the weight that rounding cannot have made."""
    return counts > jnp.finfo(counts.dtype).eps * jnp.sum(counts, axis=0, keepdims=True)
