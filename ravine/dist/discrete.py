"""Laws over discrete cells that are independent of one another: Bernoulli, one-hot, binomial, Poisson."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDiscrete, AbstractDistribution, Scalar
from ravine.dist._cells import check, filled, floating, grid, total, whole


def _log_trials(value: Array, trials: int, logits: Float[Array, "..."]) -> Float[Array, "..."]:
    """``value * l - trials * softplus(l)``, without the cancellation of two large terms when l is large."""
    up = logits > 0
    return (value - trials * up) * logits - trials * jax.nn.softplus(jnp.where(up, -logits, logits))


class Bernoulli(AbstractDiscrete):
    r"""Independent binary cells, :math:`P(x_i = 1) = \sigma(l_i)`; any event shape.

    .. math:: \log p(x) = \sum_i x_i \log\sigma(l_i) + (1 - x_i) \log\sigma(-l_i)

    ``log_prob`` is linear in the value: between 0 and 1 it is the negative cross-entropy, which relaxed samples and
    grey pixels are scored with. It is a log mass at 0 and 1 only, and no density in between.

    Parameters
    ----------
    logits : log odds of a one, finite; their shape is the event's.

    Raises
    ------
    ValueError
        When a value is not of the shape of ``logits``, or `support` would list more than 2^20 values.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = Bernoulli(jnp.zeros(2))
    >>> round(float(d.log_prob(jnp.array([1.0, 0.0]))), 4)
    -1.3863
    >>> d.support().shape
    (4, 2)
    """

    logits: Float[Array, "..."]

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Zeros and ones of the logits' type."""
        return jr.bernoulli(key, jax.nn.sigmoid(self.logits)).astype(self.logits.dtype)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log mass of the observed cells, in nats."""
        return total(_log_trials(filled(value, mask, self.logits), 1, self.logits), mask)

    def mean(self) -> Array:
        """Probability of a one."""
        return jax.nn.sigmoid(self.logits)

    def support(self) -> Array:
        """All 2^n binary arrays, shape ``(2^n, *event)``."""
        return jnp.asarray(grid(2, self.logits.size), self.logits.dtype).reshape(-1, *self.logits.shape)


class OneHot(AbstractDiscrete):
    r"""Independent categorical cells as one-hot vectors; the last axis of the event lists the classes.

    .. math:: \log p(x) = \sum_i \sum_c x_{ic} \log \mathrm{softmax}(l_i)_c

    ``log_prob`` is linear in the value, so a relaxed (soft) one-hot vector has a score and a gradient. A mask has the
    event's shape or lacks its last axis; a categorical counts as observed when all its classes are.

    Parameters
    ----------
    logits : unnormalised log probabilities, finite, shape (..., classes).

    Raises
    ------
    ValueError
        When a value or a mask has another shape, or `support` would list more than 2^20 values.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = OneHot(jnp.log(jnp.array([0.5, 0.25, 0.25])))
    >>> round(float(jnp.exp(d.log_prob(jnp.array([0.0, 1.0, 0.0])))), 4)
    0.25
    >>> OneHot(jnp.zeros((2, 3))).support().shape
    (9, 2, 3)
    """

    logits: Float[Array, "... classes"]

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """One-hot vectors of the logits' type."""
        return jax.nn.one_hot(jr.categorical(key, self.logits), self.logits.shape[-1], dtype=self.logits.dtype)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log mass of the observed categoricals, in nats."""
        check(value, None, self.logits.shape)
        seen = whole(mask, self.logits.shape)
        x = floating(value, self.logits)
        x = x if seen is None else jnp.where(seen[..., None], x, 0)
        return total(jnp.sum(x * jax.nn.log_softmax(self.logits), axis=-1), seen)

    def mean(self) -> Array:
        """Probability of each class."""
        return jax.nn.softmax(self.logits)

    def support(self) -> Array:
        """Every combination of classes, shape (classes^n, ..., classes)."""
        shape, dtype = self.logits.shape, self.logits.dtype
        codes = grid(shape[-1], math.prod(shape[:-1]))
        return jax.nn.one_hot(codes, shape[-1], dtype=dtype).reshape(-1, *shape)


class Codes(AbstractDiscrete):
    r"""Independent categorical cells as numbers 0 .. classes - 1; the last axis of the logits lists the classes.

    .. math:: P(x_i = c) = \mathrm{softmax}(l_i)_c

    Parameters
    ----------
    logits : unnormalised log probabilities, finite, shape (..., classes); the event lacks the last axis.

    Raises
    ------
    ValueError
        When a value is of another shape, or `support` would list more than 2^20 values.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = Codes(jnp.log(jnp.array([[0.5, 0.25, 0.25]])))
    >>> round(float(jnp.exp(d.log_prob(jnp.array([2.0])))), 4), float(d.mean()[0])
    (0.25, 0.75)
    """

    logits: Float[Array, "... classes"]

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Codes, of the logits' type."""
        return jr.categorical(key, self.logits).astype(self.logits.dtype)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log mass of the observed cells, in nats."""
        x = filled(value, mask, self.logits[..., 0]).astype(jnp.int32)
        cells = jnp.take_along_axis(jax.nn.log_softmax(self.logits), x[..., None], axis=-1)[..., 0]
        return total(cells, mask)

    def mean(self) -> Array:
        """The expected code of each cell."""
        return jax.nn.softmax(self.logits) @ jnp.arange(self.logits.shape[-1], dtype=self.logits.dtype)

    def support(self) -> Array:
        """Every combination of codes, shape (classes^n, ...)."""
        shape, dtype = self.logits.shape, self.logits.dtype
        return jnp.asarray(grid(shape[-1], math.prod(shape[:-1])), dtype).reshape(-1, *shape[:-1])


class Binomial(AbstractDiscrete):
    r"""Independent counts of ones in ``total`` trials, 0..total; any event shape.

    .. math:: \log p(x) = \sum_i \log\binom{n}{x_i} + x_i \log\sigma(l_i) + (n - x_i) \log\sigma(-l_i)

    Parameters
    ----------
    logits : log odds of a one in each trial, finite.
    total : number of trials n, a static positive integer.

    Raises
    ------
    ValueError
        When a value is not of the shape of ``logits``, or `support` would list more than 2^20 values.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = Binomial(jnp.zeros(1), 2)
    >>> round(float(jnp.exp(d.log_prob(jnp.ones(1)))), 4)
    0.5
    """

    logits: Float[Array, "..."]
    total: int = eqx.field(static=True)

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Counts of the logits' type."""
        return jr.binomial(key, self.total, jax.nn.sigmoid(self.logits), dtype=self.logits.dtype)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log mass of the observed cells, in nats."""
        x = filled(value, mask, self.logits)
        ways = math.lgamma(self.total + 1) - gammaln(x + 1) - gammaln(self.total - x + 1)
        return total(ways + _log_trials(x, self.total, self.logits), mask)

    def mean(self) -> Array:
        """Trials times the probability of a one."""
        return self.total * jax.nn.sigmoid(self.logits)

    def support(self) -> Array:
        """Every array of counts, shape ``((total + 1)^n, *event)``."""
        codes = grid(self.total + 1, self.logits.size)
        return jnp.asarray(codes, self.logits.dtype).reshape(-1, *self.logits.shape)


class Poisson(AbstractDistribution):
    r"""Independent counts, :math:`x_i \sim \mathrm{Poisson}(e^{r_i})`; any event shape.

    .. math:: \log p(x) = \sum_i x_i r_i - e^{r_i} - \log x_i!

    Parameters
    ----------
    log_rate : logarithm of the expected count of each cell.

    Raises
    ------
    ValueError
        When a value is not of the shape of ``log_rate``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> round(float(Poisson(jnp.zeros(1)).log_prob(jnp.zeros(1))), 4)
    -1.0
    """

    log_rate: Float[Array, "..."]

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Counts of the log rate's type, at most the largest integer there is, also where the rate overflows."""
        rate = jnp.minimum(jnp.exp(self.log_rate), jnp.finfo(self.log_rate.dtype).max)
        return jr.poisson(key, rate).astype(self.log_rate.dtype)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log mass of the observed cells, in nats."""
        x = filled(value, mask, self.log_rate)
        return total(x * self.log_rate - jnp.exp(self.log_rate) - gammaln(x + 1), mask)

    def mean(self) -> Array:
        """The expected count."""
        return jnp.exp(self.log_rate)
