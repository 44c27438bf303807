"""Finite mixtures: a hidden class per row, and one law per class; every number is exact."""

from __future__ import annotations

from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ravine.core import (
    AbstractConjugate,
    AbstractDirected,
    AbstractDistribution,
    AbstractTractable,
    Row,
    Scalar,
    weights,
)
from ravine.dist import OneHot
from ravine.models.components import AbstractComponents, AbstractLaws
from ravine.models.laws import Held, MixtureLaw
from ravine.posteriors import OneNode


class AbstractMixture(AbstractDirected, AbstractTractable):
    """A class z, one of k, then a row of that class. The latent is one-hot, of shape (k,)."""

    logits: eqx.AbstractVar[Float[Array, " k"]]
    components: eqx.AbstractVar[AbstractLaws]

    def __check_init__(self) -> None:
        if jnp.shape(self.logits) != (self.components.size(),):
            name, k = type(self).__name__, self.components.size()
            raise ValueError(f"{name} of {k} components needs logits of shape ({k},), got {self.logits.shape}.")

    def prior(self, context: PyTree = None) -> OneHot:
        return OneHot(self.logits)

    def likelihood(self, z: Float[Array, " k"], context: PyTree = None) -> AbstractDistribution:
        return self.components.law(z)

    def posterior(self, row: Row) -> OneNode:
        joint = self._log_joint_all(row)
        return OneNode(OneHot(joint - jax.nn.logsumexp(joint)))

    def log_evidence(self, row: Row) -> Scalar:
        return jnp.where(row.is_empty(), 0, jax.nn.logsumexp(self._log_joint_all(row)))

    def conditional(self, row: Row) -> Held:
        joint = self._log_joint_all(row)
        return Held.observed(MixtureLaw(joint, self.components.given(row.after(joint))), row)

    def _log_joint_all(self, row: Row) -> Float[Array, " k"]:
        """log p(observed cells, class) for every class."""
        return jax.nn.log_softmax(self.logits) + self.components.log_prob_all(row)


class Mixture(AbstractMixture, AbstractConjugate):
    r"""A class z, one of k, then a row of that class: :math:`p(x) = \sum_c \pi_c\, p_c(x)`; all of it exact.

    .. math:: p(z = c \mid x) = \pi_c\, p_c(x) / p(x)

    Dempster, Laird & Rubin 1977, JRSS B 39, 1-38, section 4.3. The latent is one-hot, of shape (k,).

    Parameters
    ----------
    logits : unnormalised log probabilities of the classes, shape (k,).
    components : the k laws, such as `FullCovariance` or `DiagonalCovariance`.

    Raises
    ------
    ValueError
        When there are not as many logits as components.

    Examples
    --------
    >>> from ravine.models.diagonal_components import DiagonalCovariance
    >>> model = Mixture(jnp.zeros(2), DiagonalCovariance(jnp.array([[-2.0, 0.0], [2.0, 8.0]]), jnp.ones((2, 2))))
    >>> row = Row(jnp.array([0.0, 0.0]), jnp.array([True, False]))
    >>> model.posterior(row).mean().tolist()
    [0.5, 0.5]
    >>> model.conditional(row).mean().tolist()
    [0.0, 4.0]
    """

    logits: Float[Array, " k"]
    components: AbstractComponents

    @classmethod
    def from_responsibilities(
        cls, batch: Row, responsibilities: Float[Array, "n k"], components: AbstractComponents
    ) -> Self:
        """The mixture that fits rows whose class probabilities are given: one maximisation step.

        ``components`` fill the missing cells and say which family to fit, such as ``FullCovariance.broad(batch, k)``.
        """
        shares = weights(batch)[:, None] * responsibilities
        _, collect = components.evaluate(batch)
        before = cls(jnp.zeros(shares.shape[1], shares.dtype), components)
        return before.maximise((jnp.sum(shares, axis=0), collect(shares)))

    def statistics(self, row: Row) -> tuple[PyTree[Array], Scalar]:
        share = jax.nn.softmax(self._log_joint_all(row))
        return (share, self.components.statistics(row, share)), self.log_evidence(row)

    def expected(self, batch: Row) -> tuple[PyTree[Array], Scalar]:
        log_prob, collect = self.components.evaluate(batch)
        joint = log_prob + jax.nn.log_softmax(self.logits)[None]
        evidence = jax.nn.logsumexp(joint, axis=1)
        weight = weights(batch)
        shares = weight[:, None] * jnp.exp(joint - evidence[:, None])
        if batch.mask is not None:
            evidence = jnp.where(jnp.any(batch.mask, axis=1), evidence, 0)
        return (jnp.sum(shares, axis=0), collect(shares)), weight @ evidence

    def maximise(self, statistics: PyTree[Array]) -> Self:
        counts, sums = statistics
        floor = jnp.finfo(counts.dtype).eps * jnp.sum(counts)
        return type(self)(jnp.log((counts + floor) / jnp.sum(counts)), self.components.maximise(sums, counts))

    def log_penalty(self) -> Scalar:
        return self.components.log_penalty()
