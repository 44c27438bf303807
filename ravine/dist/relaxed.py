"""Smooth stand-ins for discrete cells: the Concrete (Gumbel-softmax) laws, in log space and on the simplex."""

from __future__ import annotations

import abc
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDiscrete, AbstractReparametrised, Scalar
from ravine.dist._cells import check, filled, floating, total, uniform, whole, within
from ravine.dist.discrete import Bernoulli, OneHot

STEP = 0.4  # of the trapezoid rules; the integrands are analytic in a strip of half-width pi/2: error exp(-pi^2 / STEP)
EULER = float(np.euler_gamma)


class AbstractRelaxed(AbstractReparametrised):
    """A continuous law that stands for a discrete one: its draws, rounded, have that law or come near it."""

    @abc.abstractmethod
    def relaxed(self, value: Array) -> Array:
        """The point of the simplex, or of the interval (0, 1), that a draw stands for."""

    @abc.abstractmethod
    def discrete(self) -> AbstractDiscrete:
        """The law of the rounded draw."""


def gumbel(key: PRNGKeyArray, like: Float[Array, "..."]) -> Float[Array, "..."]:
    """Standard Gumbel noise of the array's shape and type, never infinite: in single precision -2.9 to 16.7."""
    # log1p, because log of a number that rounds to 1 is 0 on some devices
    return -jnp.log(-jnp.log1p(-uniform(key, like.shape, like.dtype)))


def logistic(key: PRNGKeyArray, like: Float[Array, "..."]) -> Float[Array, "..."]:
    """Standard logistic noise of the array's shape and type, never infinite: in single precision within 16.7 of 0."""
    u = uniform(key, like.shape, like.dtype)
    return jnp.log(u) - jnp.log1p(-u)


def _heat(temperature: Float[Array, "..."] | float, like: Float[Array, "..."]) -> Float[Array, "..."]:
    """The temperature as an array that meets one of ``like``'s shape without promotion of rank."""
    t = jnp.asarray(temperature, like.dtype)
    return t[..., None] if 0 < t.ndim < like.ndim else t


def _check_heat(name: str, temperature: Float[Array, "..."] | float, shape: tuple[int, ...]) -> None:
    if jnp.shape(temperature) not in ((), shape):
        got = jnp.shape(temperature)
        raise ValueError(f"temperature of a {name} must have shape () or {shape}, one per cell, got {got}.")


def _log_density(
    log_point: Float[Array, "... classes"], logits: Float[Array, "... classes"], heat: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Log density of each ExpConcrete cell, invariant to a constant added to its logits."""
    classes = logits.shape[-1]
    shares = jnp.sum(jax.nn.log_softmax(logits - heat * log_point), axis=-1)
    scale = jnp.log(heat if heat.ndim == 0 else heat[..., 0])
    return math.lgamma(classes) + (classes - 1) * scale + shares


def _points(low: float, high: float, dtype: np.dtype) -> Float[Array, " nodes"]:
    return jnp.asarray(np.arange(low, high, STEP), dtype)


def _first(
    logits: Float[Array, "... classes"], heat: Float[Array, "..."]
) -> tuple[Float[Array, " nodes"], Float[Array, "nodes ... classes"]]:
    r"""Nodes z and the share of the relaxed mass that each class has at each of them, times the step.

    With independent Gumbels G, G' and :math:`h(v) = P(G + t G' \le -v)`, a Laplace transform of the normaliser turns
    the n-dimensional expectation of the softmax into :math:`-\int h'(v + l_k) \prod_{i \ne k} h(v + l_i) dv`. Here
    :math:`v = \max(1, t) z - \max_i l_i`.
    """
    wide, narrow = jnp.maximum(heat, 1), jnp.minimum(heat, 1 / heat)
    inner = _points(-4.0, 40.0, logits.dtype)
    log_weight = -inner - jnp.exp(-inner) + math.log(STEP)
    z = _points(-26.0 - math.log(logits.shape[-1]), 6.0, logits.dtype)
    across = (1,) * logits.ndim
    away = (logits - jnp.max(logits, axis=-1, keepdims=True)) / wide
    u = z.reshape(-1, *across) + away[None]
    exponent = u[..., None] + (narrow[None, ..., None] if narrow.ndim else narrow) * inner.reshape(1, *across, -1)
    scores = log_weight.reshape(1, *across, -1) - jnp.exp(exponent)
    log_h = jax.nn.logsumexp(scores, axis=-1)
    log_slope = jax.nn.logsumexp(scores + exponent, axis=-1)
    return z, STEP * jnp.exp(log_slope - log_h + jnp.sum(log_h, axis=-1, keepdims=True))


def _mean_point(logits: Float[Array, "... classes"], heat: Float[Array, "..."]) -> Float[Array, "... classes"]:
    """Expectation of softmax((l + G) / t)."""
    return jnp.sum(_first(logits, heat)[1], axis=0)


def _mean_log_point(logits: Float[Array, "... classes"], heat: Float[Array, "..."]) -> Float[Array, "... classes"]:
    """Expectation of log softmax((l + G) / t): that of (l + G) / t, less that of the log normaliser."""
    z, shares = _first(logits, heat)
    centre = jnp.tensordot(z, jnp.sum(shares, axis=-1), 1)[..., None]
    away = logits - jnp.max(logits, axis=-1, keepdims=True)
    return (away + jnp.maximum(heat, 1) * centre) / heat + EULER * (1 + 1 / heat)


class ExpConcrete(AbstractRelaxed):
    r"""Independent Concrete cells in log space: a draw y is the logarithm of a point on the simplex.

    With Gumbel noise G, :math:`y = \log\mathrm{softmax}((l + G) / t)`, and

    .. math:: \log p(y) = \sum_i \log (n-1)! + (n-1) \log t + \sum_k (l_k - t y_k) - n \log\sum_k e^{l_k - t y_k}

    the density with respect to :math:`dx_1 \cdots dx_{n-1} / \prod_{k=1}^n x_k`, x = exp(y), in which no class is
    special. Maddison, Mnih and Teh 2017, *The Concrete distribution*, arXiv:1611.00712, appendix C; the same law is the
    Gumbel-softmax of Jang, Gu and Poole 2017, arXiv:1611.01144. Ratios of densities, and so divergences, are those of
    `Concrete`, but stay finite at temperatures at which points of the simplex round to its corners. The largest
    entry of y is that of a draw of `discrete` at every temperature.

    Parameters
    ----------
    logits : unnormalised log probabilities, finite, shape (..., classes).
    temperature : positive, a number or an array of the cells' shape (...); 2/3 is a good single value.

    Raises
    ------
    ValueError
        When the temperature, a value or a mask has another shape.

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> d = ExpConcrete(jnp.zeros(3), 0.5)
    >>> y = d.sample(key=jr.key(0))
    >>> round(float(jnp.sum(d.relaxed(y))), 4)
    1.0
    >>> round(float(d.log_prob(jnp.full(3, -jnp.log(3.0)))), 4)  # log(2! / 4 / 3^3)
    -3.989
    """

    logits: Float[Array, "... classes"]
    temperature: Float[Array, "..."] | float

    def __check_init__(self) -> None:
        _check_heat("ExpConcrete", self.temperature, self.logits.shape[:-1])

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Logarithms of points of the simplex."""
        return jax.nn.log_softmax((self.logits + gumbel(key, self.logits)) / _heat(self.temperature, self.logits))

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed cells, in nats; a cell is observed when all its classes are."""
        check(value, None, self.logits.shape)
        seen = whole(mask, self.logits.shape)
        y = value if seen is None else jnp.where(seen[..., None], value, 0)
        return total(_log_density(y, self.logits, _heat(self.temperature, self.logits)), seen)

    def mean(self) -> Array:
        """Expectation of y, by nested trapezoid rules; error below 1e-8 of a Gumbel's spread over the temperature."""
        return _mean_log_point(self.logits, _heat(self.temperature, self.logits))

    def relaxed(self, value: Array) -> Array:
        """The point of the simplex, exp(y)."""
        return jnp.exp(value)

    def discrete(self) -> OneHot:
        """The one-hot law with the same logits: that of the largest entry, exactly."""
        return OneHot(self.logits)


class Concrete(AbstractRelaxed):
    r"""Independent Concrete cells on the simplex, :math:`x = \mathrm{softmax}((l + G) / t)`.

    .. math:: \log p(x) = \sum_i \log (n-1)! + (n-1) \log t + \sum_k (l_k - (t + 1) \log x_k)
        - n \log\sum_k e^{l_k - t \log x_k}

    the density of the first n - 1 coordinates. Maddison, Mnih and Teh 2017, arXiv:1611.00712, definition 1. Draws round
    to corners of the simplex when the temperature is low; there the density is that of the nearest point with
    coordinates of at least 3e-29 (in single precision), which is finite but tells draws apart no more: optimise with
    `ExpConcrete`, whose divergences are the same.

    Parameters
    ----------
    logits : unnormalised log probabilities, finite, shape (..., classes).
    temperature : positive, a number or an array of the cells' shape (...).

    Raises
    ------
    ValueError
        When the temperature, a value or a mask has another shape.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = Concrete(jnp.zeros(2), 1.0)  # two classes at temperature 1: uniform
    >>> round(float(jnp.exp(d.log_prob(jnp.array([0.2, 0.8])))), 4)
    1.0
    """

    logits: Float[Array, "... classes"]
    temperature: Float[Array, "..."] | float

    def __check_init__(self) -> None:
        _check_heat("Concrete", self.temperature, self.logits.shape[:-1])

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Points of the simplex; those of `ExpConcrete` with the same key, exponentiated."""
        return jax.nn.softmax((self.logits + gumbel(key, self.logits)) / _heat(self.temperature, self.logits))

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed cells, in nats; a cell is observed when all its classes are."""
        check(value, None, self.logits.shape)
        seen = whole(mask, self.logits.shape)
        x = floating(value, self.logits)
        y = jnp.log(within(x if seen is None else jnp.where(seen[..., None], x, 1)))
        return total(_log_density(y, self.logits, _heat(self.temperature, self.logits)) - jnp.sum(y, axis=-1), seen)

    def mean(self) -> Array:
        """Expectation of the point, by nested trapezoid rules; error below 1e-8 (5e-6 in single precision)."""
        return _mean_point(self.logits, _heat(self.temperature, self.logits))

    def relaxed(self, value: Array) -> Array:
        """The value itself, a point of the simplex."""
        return value

    def discrete(self) -> OneHot:
        """The one-hot law with the same logits: that of the largest coordinate, exactly."""
        return OneHot(self.logits)


class BinaryConcrete(AbstractRelaxed):
    r"""Independent binary Concrete cells in logit space: a draw y is the logit of a number in (0, 1); any event shape.

    With logistic noise L, :math:`y = (l + L) / t`, and

    .. math:: \log p(y) = \sum_i \log t - t y_i + l_i - 2\,\mathrm{softplus}(l_i - t y_i)

    Maddison, Mnih and Teh 2017, *The Concrete distribution*, arXiv:1611.00712, appendix C. The sign of y is that of a
    draw of `discrete` at every temperature.

    Parameters
    ----------
    logits : log odds of a one, finite; their shape is the event's.
    temperature : positive, a number or an array of the logits' shape.

    Raises
    ------
    ValueError
        When the temperature or a value is not of the shape of ``logits``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = BinaryConcrete(jnp.zeros(2), 2.0)
    >>> round(float(d.log_prob(jnp.zeros(2))), 4)  # log(2 / 4), twice
    -1.3863
    >>> d.relaxed(jnp.zeros(2)).tolist()
    [0.5, 0.5]
    """

    logits: Float[Array, "..."]
    temperature: Float[Array, "..."] | float

    def __check_init__(self) -> None:
        _check_heat("BinaryConcrete", self.temperature, self.logits.shape)

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Logits of numbers in (0, 1)."""
        return (self.logits + logistic(key, self.logits)) / _heat(self.temperature, self.logits)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed cells, in nats."""
        heat = _heat(self.temperature, self.logits)
        away = self.logits - heat * filled(value, mask, self.logits)
        # symmetric in ``away``; with its absolute value no two large terms cancel
        return total(jnp.log(heat) - jnp.abs(away) - 2 * jax.nn.softplus(-jnp.abs(away)), mask)

    def mean(self) -> Array:
        """Expectation of y, the logits over the temperature."""
        return self.logits / _heat(self.temperature, self.logits)

    def relaxed(self, value: Array) -> Array:
        """The number in (0, 1), sigmoid(y)."""
        return jax.nn.sigmoid(value)

    def discrete(self) -> Bernoulli:
        """The Bernoulli law with the same logits: that of the sign, exactly."""
        return Bernoulli(self.logits)
