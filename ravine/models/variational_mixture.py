"""Bayesian mixtures: beliefs about all parameters, learned by coordinate ascent on a bound of the evidence."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ravine.core import AbstractConjugate, AbstractDirected, AbstractDistribution, Row, Scalar, weights
from ravine.dist import OneHot
from ravine.models.beliefs import AbstractBeliefs, AbstractShares
from ravine.models.components import AbstractLaws
from ravine.models.laws import Held
from ravine.models.mixture import AbstractMixture
from ravine.posteriors import OneNode


class Predictive(AbstractMixture):
    """A mixture that is not learned itself: ``logits`` of shape (k,), and k laws.

    Examples
    --------
    >>> from ravine.models.student_laws import CellStudentLaws
    >>> one = jnp.ones((1, 1))
    >>> round(float(Predictive(jnp.zeros(1), CellStudentLaws(0 * one, one, one)).log_evidence(Row(jnp.zeros(1)))), 3)
    -1.145
    """

    logits: Float[Array, " k"]
    components: AbstractLaws


class VariationalMixture(AbstractDirected, AbstractConjugate):
    r"""A mixture of Gaussians whose parameters are random too, and independent of the classes under q.

    .. math:: \log p(X) \ge \sum_n \log \sum_c e^{E[\log \pi_c] + E[\log p(x_n \mid c)]} - KL(q(\theta) \| p(\theta))

    Attias 1999, UAI, 21-30; Bishop 2006, section 10.2. One pass of `EM` is one round of coordinate ascent: its
    objective, the sum over rows less the divergence of the beliefs (`log_penalty`), is the bound, and does not fall.
    Missing cells are integrated out along with the classes; a row of which nothing is known tells nothing.

    What is said of a row afterwards is said by the predictive mixture, of Student's laws: `log_evidence` is the log
    density of the row with the parameters integrated out under q.

    Parameters
    ----------
    shares : `DirichletShares`, or `StickShares` for a truncated Dirichlet process.
    beliefs : `NormalWishart` or `NormalGamma`.

    Examples
    --------
    >>> from ravine.models.beliefs import DirichletShares, NormalGamma
    >>> belief = NormalGamma(jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.ones((1, 1)))
    >>> model = VariationalMixture(DirichletShares(jnp.ones(1)), belief)
    >>> round(float(model.log_evidence(Row(jnp.zeros(1)))), 3)  # a Cauchy law of scale sqrt 2
    -1.491
    """

    shares: AbstractShares
    beliefs: AbstractBeliefs

    def predictive(self) -> Predictive:
        """The mixture with the parameters integrated out under q."""
        return Predictive(jnp.log(self.shares.mean()), self.beliefs.predictive())

    def prior(self, context: PyTree = None) -> OneHot:
        return self.predictive().prior(context)

    def likelihood(self, z: Float[Array, " k"], context: PyTree = None) -> AbstractDistribution:
        return self.predictive().likelihood(z, context)

    def posterior(self, row: Row) -> OneNode:
        return self.predictive().posterior(row)

    def log_evidence(self, row: Row) -> Scalar:
        return self.predictive().log_evidence(row)

    def conditional(self, row: Row) -> Held:
        return self.predictive().conditional(row)

    @classmethod
    def from_responsibilities(
        cls, batch: Row, responsibilities: Float[Array, "n k"], shares: AbstractShares, beliefs: AbstractBeliefs
    ) -> Self:
        """Beliefs after rows whose class probabilities are given; ``shares`` and ``beliefs`` are those before."""
        heavy = weights(batch)[:, None] * jnp.where(_told(batch)[:, None], responsibilities, 0)
        _, collect = beliefs.components().evaluate(batch)
        return cls(shares, beliefs).maximise((jnp.sum(heavy, axis=0), collect(heavy)))

    def statistics(self, row: Row) -> tuple[PyTree[Array], Scalar]:
        components = self.beliefs.components()
        joint = self._expected_log(row, components.log_prob_all(row))
        told = ~row.is_empty()
        share = jnp.where(told, jax.nn.softmax(joint), 0)
        return (share, components.statistics(row, share)), jnp.where(told, jax.nn.logsumexp(joint), 0)

    def expected(self, batch: Row) -> tuple[PyTree[Array], Scalar]:
        log_prob, collect = self.beliefs.components().evaluate(batch)
        joint = self._expected_log(batch, log_prob)
        weight = jnp.where(_told(batch), weights(batch), 0)
        heavy = weight[:, None] * jax.nn.softmax(joint, axis=1)
        return (jnp.sum(heavy, axis=0), collect(heavy)), weight @ jax.nn.logsumexp(joint, axis=1)

    def maximise(self, statistics: PyTree[Array]) -> Self:
        counts, sums = statistics
        return type(self)(self.shares.maximise(counts), self.beliefs.maximise(sums, counts))

    def log_penalty(self) -> Scalar:
        return -self.shares.divergence() - self.beliefs.divergence()

    def _expected_log(self, row: Row, log_prob: Float[Array, "*n k"]) -> Float[Array, "*n k"]:
        """E[log share] + E[log p(x | component)], from the densities under `AbstractBeliefs.components`."""
        return log_prob + self.beliefs.doubt(row) + jnp.broadcast_to(self.shares.expected_log(), log_prob.shape)


def _told(batch: Row) -> Array:
    """Which rows have an observed cell."""
    return jnp.ones(batch.x.shape[0], bool) if batch.mask is None else jnp.any(batch.mask, axis=1)
