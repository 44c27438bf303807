"""Laws over counts that are independent of one another and vary more than a Poisson count, or are zero more often."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._check import require
from ravine.core import AbstractDistribution, Scalar
from ravine.dist._cells import HALF_LOG_2PI, filled, pair, total
from ravine.dist.discrete import Poisson

_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)  # DLMF 5.11.1; 2e-13 off at 8


def _remainder(z: Float[Array, "..."], log_z: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""What Stirling's formula leaves out, :math:`\log\Gamma(z) - (z - 1/2) \log z + z - \tfrac12 \log 2\pi`."""
    small = z < 8
    near = gammaln(1 + jnp.where(small, z, 1)) - (z + 0.5) * log_z + z - HALF_LOG_2PI
    w = 1 / jnp.where(small, 8, z)
    series = jnp.zeros_like(w)
    for coefficient in reversed(_STIRLING):
        series = coefficient + w**2 * series
    return jnp.where(small, near, w * series)


def _log_mixed(v: Float[Array, "..."], t: Float[Array, "..."]) -> Float[Array, "..."]:
    r""":math:`\log(\sigma(v) + \sigma(-v) e^t)`, with all its digits also where it is nearly 0."""
    near = jnp.abs(t) < 1
    close = jnp.log1p(jax.nn.sigmoid(-v) * jnp.expm1(jnp.where(near, t, 0)))
    return jnp.where(near, close, jnp.logaddexp(-jax.nn.softplus(-v), t - jax.nn.softplus(v)))


class NegativeBinomial(AbstractDistribution):
    r"""Independent counts 0, 1, 2, ... of mean :math:`m` and variance :math:`m + a m^2`; any event shape.

    With :math:`m` the mean, :math:`a` the dispersion and :math:`r = 1 / a` (the number of successes, also called size),

    .. math::
        p(x) = \prod_i \frac{\Gamma(x_i + r)}{\Gamma(r)\, x_i!} \Big(\frac{1}{1 + a m}\Big)^r
        \Big(\frac{a m}{1 + a m}\Big)^{x_i}

    A Poisson count whose rate is gamma distributed (Greenwood and Yule 1920); Cameron and Trivedi 2013, *Regression
    Analysis of Count Data*, call it NB2. The Poisson law is the limit of no dispersion. It is computed from the
    deviance and Stirling's remainders (Loader 2000, *Fast and accurate computation of binomial probabilities*), so
    that counts of a million keep their digits and the limit is reached smoothly. A dispersion below the 2.5th power
    of the machine precision is taken to be that, which no count below 1e10 can tell from 0.

    Parameters
    ----------
    log_mean : logarithm of the expected count of each cell.
    log_dispersion : logarithm of the dispersion; same shape.

    Raises
    ------
    ValueError
        When the parameters differ in shape, or a value is not of that shape.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = NegativeBinomial(jnp.zeros(2), jnp.zeros(2))  # geometric: 1/2, 1/4, 1/8, ...
    >>> round(float(jnp.exp(d.log_prob(jnp.array([0.0, 2.0])))), 4)
    0.0625
    """

    log_mean: Float[Array, "..."]
    log_dispersion: Float[Array, "..."]

    def __check_init__(self) -> None:
        pair("log_mean and log_dispersion of a NegativeBinomial", self.log_mean, self.log_dispersion)

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Counts of the log mean's type: Poisson, with a rate drawn from a gamma law."""
        rate, count = jr.split(key)
        log_size = -self._log_dispersion()
        size = jnp.maximum(jnp.exp(log_size), jnp.finfo(log_size.dtype).tiny)
        log_gamma = jr.loggamma(rate, size, self.log_mean.shape, self.log_mean.dtype)
        return Poisson(self.log_mean + log_gamma - log_size).sample(key=count)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log mass of the observed cells, in nats."""
        x = filled(value, mask, self.log_mean)
        log_size = -self._log_dispersion()
        size, log_odds = jnp.exp(log_size), self.log_mean - log_size
        nothing = -size * jax.nn.softplus(log_odds)
        some = jnp.where(x > 0, x, 1)
        log_x, log_both = jnp.log(some), jnp.log(some + size)
        v, t = log_x - log_size, log_x - self.log_mean
        deviance = some * _log_mixed(v, t) + size * _log_mixed(-v, -t)
        spread = 0.5 * (jax.nn.softplus(v) + log_x) + HALF_LOG_2PI
        rest = _remainder(some + size, log_both) - _remainder(size, log_size) - _remainder(some, log_x)
        return total(jnp.where(x > 0, rest - spread - deviance, nothing), mask)

    def mean(self) -> Array:
        """The expected count."""
        return jnp.exp(self.log_mean)

    def _log_dispersion(self) -> Float[Array, "..."]:
        return jnp.maximum(self.log_dispersion, 2.5 * math.log(jnp.finfo(self.log_dispersion.dtype).eps))


class ZeroInflated(AbstractDistribution):
    r"""Counts with extra zeros: each cell is 0 with probability :math:`\sigma(l_i)`, else a count from a law.

    .. math::
        P(0) = \sigma(l) + \sigma(-l)\, p(0), \qquad P(x) = \sigma(-l)\, p(x) \quad (x > 0)

    in log space; Lambert 1992, *Zero-inflated Poisson regression*. Any event shape.

    Parameters
    ----------
    law : over independent counts, such as `Poisson` or `NegativeBinomial`: every array of it has the event's shape,
        so that each cell can be scored by itself.
    logits : log odds of an extra zero; their shape is the event's.

    Raises
    ------
    ValueError
        When an array of the law is not of the shape of ``logits``, or a value is not.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = ZeroInflated(Poisson(jnp.zeros(1)), jnp.zeros(1))
    >>> round(float(jnp.exp(d.log_prob(jnp.zeros(1)))), 4)  # (1 + 1/e) / 2
    0.6839
    """

    law: AbstractDistribution
    logits: Float[Array, "..."]

    def __check_init__(self) -> None:
        for leaf in jax.tree.leaves(self.law):
            got = jnp.shape(leaf)
            what, do = "the law inside a ZeroInflated", "give it one number per cell"
            require(got == self.logits.shape, what, f"arrays of shape {self.logits.shape}", f"{got}", do)

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Counts of the law's type."""
        extra, count = jr.split(key)
        return jnp.where(jr.bernoulli(extra, jax.nn.sigmoid(self.logits)), 0, self.law.sample(key=count))

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log mass of the observed cells, in nats."""
        x = filled(value, mask, self.logits)
        count = self._log_counts(x) - jax.nn.softplus(self.logits)
        zero = jnp.logaddexp(-jax.nn.softplus(-self.logits), count)
        return total(jnp.where(x == 0, zero, count), mask)

    def mean(self) -> Array:
        """The expected count of the law times the probability that it is asked."""
        return jax.nn.sigmoid(-self.logits) * self.law.mean()

    def _log_counts(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Log mass of each cell under the law, which by itself only tells their sum."""
        cells, x = jax.tree.map(jnp.ravel, (self.law, x))
        return jax.vmap(lambda law, x: law.log_prob(x))(cells, x).reshape(self.logits.shape)
