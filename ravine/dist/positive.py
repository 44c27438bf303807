"""Laws whose draws come from rejection samplers and are differentiable all the same: gamma, beta, Dirichlet.

A draw z solves F(z; parameters) = u for noise u, so that dz = -(dF/d parameters) / p(z), whatever the sampler did: the
implicit reparameterisation of Figurnov, Mohamed and Mnih 2018, arXiv:1805.08498.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractReparametrised, Scalar
from ravine.dist._cells import check, filled, floating, pair, total, whole, within


@jax.custom_jvp
def _gamma_with_slope(log_draw: Float[Array, "..."], concentration: Float[Array, "..."]) -> Float[Array, "..."]:
    """The logarithm of a standard gamma draw, with the derivative that its law gives it."""
    del concentration
    return log_draw


@_gamma_with_slope.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    log_draw, concentration = primals
    # below, the distribution function is z^a / Gamma(a + 1) to rounding, and z itself may underflow
    small = log_draw < math.log(float(jnp.finfo(log_draw.dtype).eps))
    draw = jnp.exp(jnp.where(small, 0, log_draw))
    near = (digamma(concentration + 1) - log_draw) / concentration
    far = jax.lax.random_gamma_grad(concentration, draw) / draw  # pyright: ignore[reportCallIssue]
    slope = jnp.where(small, near, far)
    return log_draw, slope * tangents[1]


def log_gamma_draw(key: PRNGKeyArray, concentration: Float[Array, "..."]) -> Float[Array, "..."]:
    """Logarithm of a Gamma(concentration, 1) draw: no underflow at small concentrations, and an implicit derivative."""
    held = jax.lax.stop_gradient(concentration)
    return _gamma_with_slope(jr.loggamma(key, held, dtype=concentration.dtype), concentration)


def log_beta(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Logarithm of the beta function."""
    return gammaln(a) + gammaln(b) - gammaln(a + b)


class Gamma(AbstractReparametrised):
    r"""Independent positive cells; any event shape.

    .. math:: \log p(x) = \sum_i a \log b - \log\Gamma(a) + (a - 1) \log x_i - b x_i

    The draw is differentiable in both parameters by implicit reparameterisation (Figurnov et al. 2018,
    arXiv:1805.08498). Draws and values below 3e-29 (in single precision) count as that number.

    Parameters
    ----------
    concentration, rate : a and b, positive, of one shape.

    Raises
    ------
    ValueError
        When the parameters differ in shape, or a value is not of that shape.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = Gamma(jnp.ones(2), 2 * jnp.ones(2))
    >>> round(float(d.log_prob(jnp.array([0.5, 1.0]))), 4)  # 2 log 2 - 3
    -1.6137
    """

    concentration: Float[Array, "..."]
    rate: Float[Array, "..."]

    def __check_init__(self) -> None:
        pair("concentration and rate of a Gamma", self.concentration, self.rate)

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Positive numbers; the event's shape."""
        return within(jnp.exp(log_gamma_draw(key, self.concentration)) / self.rate)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed cells, in nats."""
        x = filled(value, mask, self.rate)
        x = within(x if mask is None else jnp.where(mask, x, 1))
        known = self.concentration * jnp.log(self.rate) - gammaln(self.concentration)
        return total(known + (self.concentration - 1) * jnp.log(x) - self.rate * x, mask)

    def mean(self) -> Array:
        """Concentration over rate."""
        return self.concentration / self.rate


class Beta(AbstractReparametrised):
    r"""Independent cells in (0, 1); any event shape.

    .. math:: \log p(x) = \sum_i (a - 1) \log x_i + (b - 1) \log(1 - x_i) - \log B(a, b)

    A draw is :math:`\sigma(\log g_a - \log g_b)` of two gamma draws, differentiable in both parameters by implicit
    reparameterisation (Figurnov et al. 2018, arXiv:1805.08498). Draws and values that round to 0 or 1 count as the
    nearest number that does not.

    Parameters
    ----------
    a, b : positive, of one shape; the mean is a / (a + b).

    Raises
    ------
    ValueError
        When the parameters differ in shape, or a value is not of that shape.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = Beta(2 * jnp.ones(1), jnp.ones(1))
    >>> round(float(jnp.exp(d.log_prob(jnp.array([0.25])))), 4)
    0.5
    """

    a: Float[Array, "..."]
    b: Float[Array, "..."]

    def __check_init__(self) -> None:
        pair("a and b of a Beta", self.a, self.b)

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Numbers in (0, 1); the event's shape."""
        key_a, key_b = jr.split(key)
        return _inside(jax.nn.sigmoid(log_gamma_draw(key_a, self.a) - log_gamma_draw(key_b, self.b)))

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed cells, in nats."""
        x = filled(value, mask, self.a)
        x = _inside(x if mask is None else jnp.where(mask, x, 0.5))
        return total((self.a - 1) * jnp.log(x) + (self.b - 1) * jnp.log1p(-x) - log_beta(self.a, self.b), mask)

    def mean(self) -> Array:
        """Expectation of one draw, a / (a + b)."""
        return self.a / (self.a + self.b)


def _inside(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Numbers of [0, 1], moved off its ends."""
    return jnp.minimum(within(x), 1 - float(jnp.finfo(x.dtype).epsneg))


class Dirichlet(AbstractReparametrised):
    r"""Independent points of the simplex; the last axis of the event lists the classes.

    .. math:: \log p(x) = \sum_i \log\Gamma(\textstyle\sum_k a_k) - \sum_k \log\Gamma(a_k) + (a_k - 1) \log x_k

    the density of the first n - 1 coordinates. A draw is the softmax of log gamma draws, differentiable in the
    concentration by implicit reparameterisation (Figurnov et al. 2018, arXiv:1805.08498). A mask has the event's shape
    or lacks its last axis; a point counts as observed when all its coordinates are. Draws and values below 3e-29 (in
    single precision) count as that number.

    Parameters
    ----------
    concentration : positive, shape (..., classes).

    Raises
    ------
    ValueError
        When a value or a mask has another shape.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = Dirichlet(jnp.ones(3))
    >>> round(float(jnp.exp(d.log_prob(jnp.array([0.2, 0.3, 0.5])))), 4)
    2.0
    """

    concentration: Float[Array, "... classes"]

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Points of the simplex; the event's shape."""
        return within(jax.nn.softmax(log_gamma_draw(key, self.concentration)))

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed points, in nats."""
        check(value, None, self.concentration.shape)
        seen = whole(mask, self.concentration.shape)
        x = floating(value, self.concentration)
        log_x = jnp.log(within(x if seen is None else jnp.where(seen[..., None], x, 1)))
        inside = jnp.sum((self.concentration - 1) * log_x, axis=-1)
        return total(inside - log_multivariate_beta(self.concentration), seen)

    def mean(self) -> Array:
        """The concentration over its sum."""
        return self.concentration / jnp.sum(self.concentration, axis=-1, keepdims=True)


def log_multivariate_beta(concentration: Float[Array, "... classes"]) -> Float[Array, "..."]:
    """Log normaliser of the Dirichlet law."""
    return jnp.sum(gammaln(concentration), axis=-1) - gammaln(jnp.sum(concentration, axis=-1))
