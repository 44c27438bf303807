"""Laws over real cells that are independent of one another: Gaussian, Student's t, continuous Bernoulli."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractReparametrised, Scalar
from ravine.dist._cells import HALF_LOG_2PI, filled, pair, total


class Gaussian(AbstractReparametrised):
    r"""Independent normal cells, :math:`x_i \sim N(m_i, s_i^2)`; any event shape.

    .. math:: \log p(x) = -\sum_i \tfrac12 ((x_i - m_i)/s_i)^2 + \log s_i + \tfrac12 \log 2\pi

    Parameters
    ----------
    location : the mean of each cell.
    scale : the standard deviation of each cell, positive; same shape.

    Raises
    ------
    ValueError
        When location and scale differ in shape, or a value is not of that shape.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = Gaussian(jnp.zeros(2), jnp.ones(2))
    >>> round(float(d.log_prob(jnp.array([0.0, 1.0]))), 4)
    -2.3379
    """

    location: Float[Array, "..."]
    scale: Float[Array, "..."]

    def __check_init__(self) -> None:
        pair("location and scale of a Gaussian", self.location, self.scale)

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Location plus scale times standard normal noise; the event's shape."""
        return self.location + self.scale * jr.normal(key, self.location.shape, self.location.dtype)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed cells, in nats."""
        z = (filled(value, mask, self.location) - self.location) / self.scale
        return total(-0.5 * z**2 - jnp.log(self.scale) - HALF_LOG_2PI, mask)

    def mean(self) -> Array:
        """The location."""
        return self.location


class StudentT(AbstractReparametrised):
    r"""Independent cells of Student's t with ``freedom`` degrees of freedom, moved and scaled; any event shape.

    .. math::
        \log p(x) = \sum_i \log\Gamma(\tfrac{\nu+1}2) - \log\Gamma(\tfrac\nu2) - \tfrac12\log(\nu\pi) - \log s
        - \tfrac{\nu+1}2 \log(1 + z^2/\nu), \quad z = (x - m)/s

    Student 1908, *The probable error of a mean*. The draw is differentiable in all three parameters (that of the
    freedom is the implicit derivative of the gamma draw, Figurnov et al. 2018, arXiv:1805.08498).

    Parameters
    ----------
    location, scale, freedom : one number per cell, of one shape; scale and freedom positive.

    Raises
    ------
    ValueError
        When the parameters differ in shape, or a value is not of that shape.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> one = jnp.ones(1)
    >>> round(float(StudentT(0 * one, one, one).log_prob(jnp.zeros(1))), 4)  # Cauchy: log(1 / pi)
    -1.1447
    """

    location: Float[Array, "..."]
    scale: Float[Array, "..."]
    freedom: Float[Array, "..."]

    def __check_init__(self) -> None:
        pair("location and scale of a StudentT", self.location, self.scale)
        pair("location and freedom of a StudentT", self.location, self.freedom)

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Location plus scale times a standard t draw; the event's shape."""
        return self.location + self.scale * jr.t(key, self.freedom, self.location.shape, self.location.dtype)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed cells, in nats."""
        z = (filled(value, mask, self.location) - self.location) / self.scale
        half = 0.5 * (self.freedom + 1)
        constant = gammaln(half) - gammaln(0.5 * self.freedom) - 0.5 * jnp.log(jnp.pi * self.freedom)
        return total(constant - jnp.log(self.scale) - half * jnp.log1p(z**2 / self.freedom), mask)

    def mean(self) -> Array:
        """The location; NaN where freedom <= 1, for there the expectation does not exist."""
        return jnp.where(self.freedom > 1, self.location, jnp.nan)


def log_partition(logits: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Log normaliser of the continuous Bernoulli, :math:`A(l) = \log\int_0^1 e^{lv} dv = \log((e^l - 1)/l)`.

    Near 0 the series of :math:`l/2 + \log(\sinh u / u)`, :math:`u = l/2`, is used: the closed form would divide 0 by 0,
    and its derivative loses digits long before. In the usual notation :math:`\log C(\lambda) = softplus(l) - A(l)`.
    """
    small = jnp.abs(logits) < 0.5
    u2 = jnp.where(small, 0.5 * logits, 0) ** 2
    series = u2 * (1 / 6 + u2 * (-1 / 180 + u2 * (1 / 2835 + u2 * (-1 / 37800 + u2 / 467775))))
    positive = logits > 0
    size = jnp.where(small, 1, jnp.where(positive, logits, -logits))
    closed = jnp.where(positive, logits, 0) + jnp.log(-jnp.expm1(-size) / size)
    return jnp.where(small, 0.5 * logits + series, closed)


def _quantile(u: Float[Array, "..."], logits: Float[Array, "..."]) -> Float[Array, "..."]:
    """Inverse distribution function of the continuous Bernoulli, log(1 + u (e^l - 1)) / l, smooth through l = 0.

    Computed for -|l| and mirrored, so that no exponential overflows.
    """
    positive, small = logits > 0, jnp.abs(logits) < 0.02
    v = jnp.where(positive, 1 - u, u)
    slope = jnp.where(small, -1, jnp.where(positive, -logits, logits))
    closed = jnp.log1p(v * jnp.expm1(slope)) / slope
    t, spread = jnp.where(small, logits, 0), u * (1 - u)
    series = u + t * spread * (1 / 2 + t * ((1 - 2 * u) / 6 + t * (1 - 6 * spread) / 24))
    return jnp.where(small, series, jnp.where(positive, 1 - closed, closed))


class ContinuousBernoulli(AbstractReparametrised):
    r"""Independent cells in [0, 1], of density proportional to :math:`\lambda^v (1 - \lambda)^{1 - v}`; any shape.

    With logits :math:`l = \log(\lambda / (1 - \lambda))`,

    .. math:: \log p(v) = \sum_i l_i v_i - A(l_i), \qquad A(l) = \log\frac{e^l - 1}{l}

    Loaiza-Ganem and Cunningham 2019, *The continuous Bernoulli*, arXiv:1907.06845, equations 4 to 8. Unlike the
    Bernoulli log mass at a fractional value, this is a normalised density.

    Parameters
    ----------
    logits : one per cell; 0 is the uniform law.

    Raises
    ------
    ValueError
        When a value is not of the shape of ``logits``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = ContinuousBernoulli(jnp.zeros(3))
    >>> float(d.log_prob(jnp.array([0.1, 0.5, 0.9])))
    0.0
    """

    logits: Float[Array, "..."]

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """A draw by the inverse distribution function, differentiable in the logits."""
        dtype = self.logits.dtype
        # 0 is left out: mirrored it becomes 1, whose quantile has an infinite derivative in single precision
        u = jr.uniform(key, self.logits.shape, dtype, minval=float(jnp.finfo(dtype).eps))
        return _quantile(u, self.logits)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed cells, in nats; values are taken to lie in [0, 1]."""
        v = filled(value, mask, self.logits)
        return total(v * self.logits - log_partition(self.logits), mask)

    def mean(self) -> Array:
        """The derivative of the log normaliser, :math:`1 / (1 - e^{-l}) - 1 / l`."""
        return jax.grad(lambda logits: jnp.sum(log_partition(logits)))(self.logits)
