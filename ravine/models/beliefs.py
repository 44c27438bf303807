"""Beliefs about the components of a Gaussian mixture and about their shares: conjugate, so that bounds are exact."""

from __future__ import annotations

import abc
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import digamma, gammaln, multigammaln
from jaxtyping import Array, Float, PyTree

from ravine._tree import Fixed, unfix
from ravine.core import Row, Scalar
from ravine.models.components import AbstractComponents, AbstractLaws
from ravine.models.correlated_components import FullCovariance, Moments, lower
from ravine.models.diagonal_components import CellMoments, DiagonalCovariance
from ravine.models.starts import column_moments
from ravine.models.student_laws import CellStudentLaws, StudentLaws


class AbstractBeliefs(eqx.Module):
    """What is believed of the parameters of k components."""

    @abc.abstractmethod
    def components(self) -> AbstractComponents:
        """Components with the believed mean, and the inverse of the believed mean precision."""

    @abc.abstractmethod
    def doubt(self, row: Row) -> Float[Array, "*n k"]:
        """Expected log density of a row, or of each row of a batch, less that under `components`, in nats."""

    @abc.abstractmethod
    def predictive(self) -> AbstractLaws:
        """The laws of a row when its component is known and the parameters are integrated out."""

    @abc.abstractmethod
    def maximise(self, statistics: PyTree[Array], counts: Float[Array, " k"]) -> Self:
        """Beliefs after the sums of `components` over rows, whose shares are given: prior plus data."""

    @abc.abstractmethod
    def divergence(self) -> Scalar:
        """Divergence of the beliefs from the prior, in nats."""


class NormalWishart(AbstractBeliefs):
    r"""Means and precision matrices of Gaussian components, a normal and a Wishart law each.

    .. math:: \Lambda_c \sim W(\nu_c, (\nu_c V_c)^{-1}), \qquad \mu_c \sim N(m_c, (\beta_c \Lambda_c)^{-1})

    Bishop 2006, *Pattern recognition and machine learning*, section 10.2.

    Parameters
    ----------
    means : m, shape (k, d).
    factors : lower Cholesky factors of V, the inverse of the mean precision, shape (k, d, d).
    strength : beta, how many rows the belief in the mean is worth, shape (k,).
    freedom : nu, the same for the precision, above d - 1, shape (k,).
    prior : the beliefs before any row, a `NormalWishart` of one component; as above unless given.

    Examples
    --------
    >>> belief = NormalWishart(jnp.zeros((1, 2)), jnp.eye(2)[None], jnp.ones(1), 2 * jnp.ones(1))
    >>> float(belief.divergence())
    0.0
    """

    means: Float[Array, "k d"]
    factors: Float[Array, "k d d"]
    strength: Float[Array, " k"]
    freedom: Float[Array, " k"]
    prior: Fixed

    def __init__(self, means: Array, factors: Array, strength: Array, freedom: Array, prior: Fixed | None = None):
        self.means, self.factors, self.strength, self.freedom = means, factors, strength, freedom
        self.prior = Fixed((means, factors, strength, freedom)) if prior is None else prior

    @classmethod
    def broad(cls, batch: Row, k: int, strength: float = 1.0, freedom: float | None = None) -> Self:
        """The prior of scikit-learn: one row at the mean of the data, and as many as columns with its variances."""
        mean, scale = column_moments(batch)
        d, ones = mean.size, jnp.ones(k, mean.dtype)
        worth = float(d if freedom is None else freedom)
        factor = jnp.diag(scale) / worth**0.5
        return cls(jnp.tile(mean, (k, 1)), jnp.tile(factor, (k, 1, 1)), strength * ones, worth * ones)

    def components(self) -> FullCovariance:
        return FullCovariance(self.means, self.factors, 0.0, Fixed(jnp.mean(unfix(self.prior)[0], axis=0)))

    def doubt(self, row: Row) -> Float[Array, "*n k"]:
        """The same for every row, for missing cells are filled by q before it is asked what is expected of them."""
        d = self.means.shape[1]
        same = 0.5 * (_digammas(self.freedom, d) + d * (jnp.log(2 / self.freedom) - 1 / self.strength))
        return jnp.broadcast_to(same, (*row.x.shape[:-1], same.size))

    def predictive(self) -> StudentLaws:
        freedom = self.freedom - self.means.shape[1] + 1
        spread = self.freedom / freedom * (1 + 1 / self.strength)
        return StudentLaws(self.means, jnp.sqrt(spread)[:, None, None] * lower(self.factors), freedom)

    def maximise(self, statistics: Moments, counts: Float[Array, " k"]) -> Self:
        means, factors, strength, freedom = unfix(self.prior)
        centre = jnp.mean(means, axis=0)[None]
        away = means - centre
        scatter = statistics.second + freedom[:, None, None] * (factors @ jnp.swapaxes(factors, 1, 2))
        scatter = scatter + strength[:, None, None] * away[:, :, None] * away[:, None, :]
        total, worth = strength + counts, freedom + counts
        mean = (strength[:, None] * away + statistics.first) / total[:, None]
        spread = scatter - total[:, None, None] * mean[:, :, None] * mean[:, None, :]
        factors = jnp.linalg.cholesky(spread / worth[:, None, None])
        return type(self)(mean + centre, factors, total, worth, self.prior)

    def divergence(self) -> Scalar:
        means, factors, strength, freedom = unfix(self.prior)
        d, own, before = means.shape[1], lower(self.factors), lower(factors)
        white = jax.vmap(lambda own, other: solve_triangular(own, other, lower=True))
        ratio = strength / self.strength
        moved = jnp.sum(white(own, (self.means - means)[:, :, None]) ** 2, axis=(1, 2))
        mean = 0.5 * (d * (ratio - 1 - jnp.log(ratio)) + strength * moved)
        trace = jnp.sum(white(own, before) ** 2, axis=(1, 2)) * freedom
        log_det = _log_det(own, self.freedom) - _log_det(before, freedom)
        gammas = multigammaln(0.5 * freedom, d) - multigammaln(0.5 * self.freedom, d)
        shape = 0.5 * (self.freedom - freedom) * _digammas(self.freedom, d) + gammas
        return jnp.sum(mean + shape + 0.5 * freedom * log_det + 0.5 * (trace - self.freedom * d))


class NormalGamma(AbstractBeliefs):
    r"""Means and precisions of independent cells: :math:`\lambda_{ci} \sim \Gamma(\nu_{ci}/2, \nu_{ci} V_{ci}/2)`.

    :math:`\mu_{ci} \sim N(m_{ci}, 1 / (\beta_{ci} \lambda_{ci}))`; a missing cell tells nothing of its column.

    Parameters
    ----------
    means : m, shape (k, d).
    scales : the root of V, the inverse of the mean precision, shape (k, d).
    strength, freedom : beta and nu, as in `NormalWishart`, shape (k, d).
    prior : the four arrays of the beliefs before any row; as above unless given.

    Examples
    --------
    >>> belief = NormalGamma(jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.ones((1, 2)), jnp.ones((1, 2)))
    >>> float(belief.divergence())
    0.0
    """

    means: Float[Array, "k d"]
    scales: Float[Array, "k d"]
    strength: Float[Array, "k d"]
    freedom: Float[Array, "k d"]
    prior: Fixed

    def __init__(self, means: Array, scales: Array, strength: Array, freedom: Array, prior: Fixed | None = None):
        self.means, self.scales, self.strength, self.freedom = means, scales, strength, freedom
        self.prior = Fixed((means, scales, strength, freedom)) if prior is None else prior

    @classmethod
    def broad(cls, batch: Row, k: int, strength: float = 1.0, freedom: float = 1.0) -> Self:
        """One row at the mean of the data, with its variances."""
        mean, scale = (jnp.tile(part, (k, 1)) for part in column_moments(batch))
        return cls(mean, scale / jnp.sqrt(freedom), jnp.full_like(mean, strength), jnp.full_like(mean, freedom))

    def components(self) -> DiagonalCovariance:
        return DiagonalCovariance(self.means, self.scales, 0.0, Fixed(jnp.mean(unfix(self.prior)[0], axis=0)))

    def doubt(self, row: Row) -> Float[Array, "*n k"]:
        """The sum over the cells that are observed."""
        seen = jnp.ones(row.x.shape, self.means.dtype) if row.mask is None else row.mask.astype(self.means.dtype)
        half = 0.5 * self.freedom
        return seen @ (0.5 * (digamma(half) - jnp.log(half) - 1 / self.strength)).T

    def predictive(self) -> CellStudentLaws:
        return CellStudentLaws(self.means, self.scales * jnp.sqrt(1 + 1 / self.strength), self.freedom)

    def maximise(self, statistics: CellMoments, counts: Float[Array, " k"]) -> Self:
        means, scales, strength, freedom = unfix(self.prior)
        centre = jnp.mean(means, axis=0)[None]
        total, worth = strength + statistics.counts, freedom + statistics.counts
        away = means - centre
        mean = (strength * away + statistics.first) / total
        spread = statistics.second + freedom * scales**2 + strength * away**2 - total * mean**2
        return type(self)(mean + centre, jnp.sqrt(spread / worth), total, worth, self.prior)

    def divergence(self) -> Scalar:
        means, scales, strength, freedom = unfix(self.prior)
        ratio, half, before = strength / self.strength, 0.5 * self.freedom, 0.5 * freedom
        moved = ((self.means - means) / self.scales) ** 2
        mean = 0.5 * (ratio - 1 - jnp.log(ratio) + strength * moved)
        rate, prior = half * self.scales**2, before * scales**2
        gammas = gammaln(before) - gammaln(half) + (half - before) * digamma(half)
        return jnp.sum(mean + gammas + before * jnp.log(rate / prior) + half * (prior / rate - 1))


def _digammas(freedom: Float[Array, " k"], d: int) -> Float[Array, " k"]:
    """Expected log determinant of a standard Wishart matrix, less d log 2."""
    return jnp.sum(digamma(0.5 * (freedom[:, None] - jnp.arange(d)[None])), axis=1)


def _log_det(factors: Float[Array, "k d d"], freedom: Float[Array, " k"]) -> Float[Array, " k"]:
    """Log determinant of nu V, the inverse of the Wishart law's scale matrix."""
    d = factors.shape[-1]
    return 2 * jnp.sum(jnp.log(jnp.diagonal(factors, axis1=1, axis2=2)), axis=1) + d * jnp.log(freedom)


class AbstractShares(eqx.Module):
    """What is believed of the shares of k components."""

    @abc.abstractmethod
    def expected_log(self) -> Float[Array, " k"]:
        """Expectation of the logarithm of every share."""

    @abc.abstractmethod
    def mean(self) -> Float[Array, " k"]:
        """Expectation of every share."""

    @abc.abstractmethod
    def maximise(self, counts: Float[Array, " k"]) -> Self:
        """Beliefs after so many rows of each component."""

    @abc.abstractmethod
    def divergence(self) -> Scalar:
        """Divergence of the beliefs from the prior, in nats."""


class DirichletShares(AbstractShares):
    """Shares from a Dirichlet law, whose ``prior`` concentration, shape (k,), is what is believed before any row.

    Examples
    --------
    >>> DirichletShares(jnp.ones(2)).maximise(jnp.array([2.0, 0.0])).mean().tolist()
    [0.75, 0.25]
    """

    concentration: Float[Array, " k"]
    prior: Fixed

    def __init__(self, concentration: Array, prior: Fixed | None = None):
        self.concentration, self.prior = concentration, Fixed(concentration) if prior is None else prior

    def expected_log(self) -> Float[Array, " k"]:
        return digamma(self.concentration) - digamma(jnp.sum(self.concentration))

    def mean(self) -> Float[Array, " k"]:
        return self.concentration / jnp.sum(self.concentration)

    def maximise(self, counts: Float[Array, " k"]) -> Self:
        return type(self)(unfix(self.prior) + counts, self.prior)

    def divergence(self) -> Scalar:
        own, prior = self.concentration, unfix(self.prior)
        normaliser = lambda c: jnp.sum(gammaln(c)) - gammaln(jnp.sum(c))  # noqa: E731
        return normaliser(prior) - normaliser(own) + (own - prior) @ self.expected_log()


class StickShares(AbstractShares):
    """Shares broken off a stick, one after the other: a Dirichlet process cut off after k components.

    Each break is Beta(``taken``, ``left``), shape (k - 1,); the last component takes the rest. A priori a break is
    Beta(1, ``concentration``). Blei & Jordan 2006, Bayesian Analysis 1, 121-144.

    Examples
    --------
    >>> StickShares.of(3, 1.0).mean().tolist()
    [0.5, 0.25, 0.25]
    """

    taken: Float[Array, " s"]
    left: Float[Array, " s"]
    concentration: Fixed

    @classmethod
    def of(cls, k: int, concentration: float) -> Self:
        """What is believed before any row."""
        return cls(jnp.ones(k - 1), jnp.full(k - 1, float(concentration)), Fixed(jnp.asarray(float(concentration))))

    def expected_log(self) -> Float[Array, " k"]:
        took, passed = self._expected_logs()
        return jnp.append(took, 0) + jnp.append(jnp.zeros(1, passed.dtype), jnp.cumsum(passed))

    def mean(self) -> Float[Array, " k"]:
        share = self.taken / (self.taken + self.left)
        return jnp.append(share, 1) * jnp.append(jnp.ones(1, share.dtype), jnp.cumprod(1 - share))

    def maximise(self, counts: Float[Array, " k"]) -> Self:
        later = jnp.cumsum(counts[::-1])[::-1][1:]
        return type(self)(1 + counts[:-1], unfix(self.concentration) + later, self.concentration)

    def divergence(self) -> Scalar:
        took, passed = self._expected_logs()
        prior = unfix(self.concentration)
        own = gammaln(self.taken + self.left) - gammaln(self.taken) - gammaln(self.left)
        return jnp.sum(own - jnp.log(prior) + (self.taken - 1) * took + (self.left - prior) * passed)

    def _expected_logs(self) -> tuple[Float[Array, " s"], Float[Array, " s"]]:
        """Of what is taken at each break, and of what is left."""
        total = digamma(self.taken + self.left)
        return digamma(self.taken) - total, digamma(self.left) - total
