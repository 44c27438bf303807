r"""Perturb and maximise: random states as the most likely ones of logits with noise.

Papandreou & Yuille 2011, *Perturb-and-MAP random fields*. With Gumbel noise on every state the draws have the law
itself. Noise on the logits alone is the same for bits and categoricals, and close to it elsewhere.
"""

from __future__ import annotations

import abc
import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.lax import top_k
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.special import loggamma

from ravine.core import AbstractDistribution
from ravine.dist import AbstractSolved, Bernoulli, OneHot, Subset
from ravine.dist.relaxed import gumbel, uniform
from ravine.gradients._classes import one_hot

Logits = Float[Array, "..."]

LOW, HIGH, POINTS = -3.2, 25.0, 2001  # Gumbel quantiles at probabilities of 2e-11 and 1 - 1e-11


class AbstractPerturbation(eqx.Module):
    """Noise on the logits of a law. A bit is a choice of two: its noise is the difference of two."""

    @abc.abstractmethod
    def cells(self, like: Logits, k: int, *, key: PRNGKeyArray) -> Logits:
        """Noise of the array's shape and type, for states that have ``k`` of the cells set."""

    def drawn(self, d: AbstractDistribution, *, key: PRNGKeyArray) -> Logits:
        """Noise for the logits of ``d``."""
        like: Logits = d.logits  # pyright: ignore[reportAttributeAccessIssue]  (`unsolved` has asked)
        if not isinstance(d, Bernoulli):
            return self.cells(like, max(d.k, 1) if isinstance(d, Subset) else 1, key=key)
        up, down = jr.split(key)
        return self.cells(like, 1, key=up) - self.cells(like, 1, key=down)


class GumbelNoise(AbstractPerturbation):
    """A standard Gumbel number for every logit, whatever the states are.

    Subsets are then drawn one item after the other without replacement (Yellott 1977, *Journal of Mathematical
    Psychology* 15): a law of its own, whose marginals are near those of `ravine.dist.Subset`.

    Examples
    --------
    >>> GumbelNoise().drawn(Subset(jnp.zeros((2, 5)), 3), key=jr.key(0)).shape
    (2, 5)
    """

    def cells(self, like: Logits, k: int, *, key: PRNGKeyArray) -> Logits:
        return gumbel(key, like)


class ExactNoise(AbstractPerturbation):
    r"""Noise whose perturbed maxima have the law itself: of bits, categoricals and subsets.

    Gumbel noise, but for subsets. There bits with logits :math:`l_i - c` that add up to k have the law of the subset,
    whatever c is, and a bit is set where :math:`l_i` and logistic noise exceed c. So a subset is drawn, and then noise
    given its bits: the k items above c are those of the subset. With c the bits add up to k on average.

    Examples
    --------
    >>> d = Subset(jnp.array([4.0, 0.0, 0.0, -4.0]), 2)
    >>> draw = lambda key: map_state(d, d.logits + ExactNoise().drawn(d, key=key))
    >>> found = jax.vmap(draw)(jr.split(jr.key(0), 2000))
    >>> bool(jnp.max(jnp.abs(found.mean(axis=0) - d.mean())) < 0.05)
    True
    """

    def cells(self, like: Logits, k: int, *, key: PRNGKeyArray) -> Logits:
        return gumbel(key, like)

    def drawn(self, d: AbstractDistribution, *, key: PRNGKeyArray) -> Logits:
        if not isinstance(d, Subset):
            return GumbelNoise().drawn(d, key=key)
        first, second = jr.split(key)
        z, away = d.sample(key=first), d.logits - _level(d)
        # a logistic number is log U - log(1 - U): U in the upper part, of size sigma(l - c), where the bit is set
        share = jax.nn.log_sigmoid(jnp.where(z > 0, away, -away)) + jnp.log(uniform(second, away.shape, away.dtype))
        far = jnp.log(-jnp.expm1(jnp.minimum(share, -jnp.finfo(away.dtype).tiny))) - share
        return jnp.where(z > 0, far, -far)


class SumOfGamma(AbstractPerturbation):
    r"""Noise of which k add up to one Gumbel number, for subsets of k items; a Gumbel number for bits and categoricals.

    .. math:: \lim_{s \to \infty} \frac1k \Big( \sum_{i=1}^s \mathrm{Gamma}(1/k, \mathrm{scale}\ k/i) - \log s \Big)

    Niepert et al. 2021, arXiv:2106.01798, theorem 1, which stops at s = 10. The limit is drawn here from a table of its
    quantiles, from its characteristic function :math:`\Gamma(1 - i \omega)^{1/k}`: as fast as Gumbel noise.

    Each subset as a whole gets Gumbel noise, but subsets that share items get nearly the same: its draws vary less than
    those of the law, and marginals are farther off than with `GumbelNoise`.

    Examples
    --------
    >>> draws = SumOfGamma().drawn(Subset(jnp.zeros((1000, 20)), 10), key=jr.key(0))
    >>> bool(abs(draws.mean() - 0.5772 / 10) < 0.02)
    True
    """

    def cells(self, like: Logits, k: int, *, key: PRNGKeyArray) -> Logits:
        noise = gumbel(key, like)
        if k == 1:
            return noise
        place = (jnp.clip(noise, LOW, HIGH) - LOW) * ((POINTS - 1) / (HIGH - LOW))
        left = jnp.minimum(place.astype(jnp.int32), POINTS - 2)
        table, share = jnp.asarray(_quantiles(k), like.dtype), place - left
        return (1 - share) * table[left] + share * table[left + 1]


def _level(d: Subset) -> Float[Array, "... 1"]:
    """A constant which, taken off the logits, makes independent bits add up to about k: by bisection."""
    rest = math.log(d.logits.shape[-1] + 1)
    ends = (jnp.min(d.logits, -1, keepdims=True) - rest, jnp.max(d.logits, -1, keepdims=True) + rest)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (ends[0] + ends[1])
        many = jnp.sum(jax.nn.sigmoid(d.logits - middle), -1, keepdims=True) > d.k
        return jnp.where(many, middle, ends[0]), jnp.where(many, ends[1], middle)

    low, high = jax.lax.fori_loop(0, 12, halve, ends)
    return 0.5 * (low + high)


@functools.cache
def _quantiles(k: int) -> np.ndarray:
    """Quantiles of the k-th part of a Gumbel number, at those of Gumbel numbers between ``LOW`` and ``HIGH``."""
    apart = 0.04  # of frequencies: the distribution function repeats itself after 2 pi / 0.04
    size = 2 ** int(np.ceil(np.log2(21 * k / apart + 2**12)))  # to where the function is below 1e-14
    frequency = (np.arange(size) + 0.5) * apart
    first = -2 * np.pi / apart / 4
    x = first + 2 * np.pi / (apart * size) * np.arange(size)
    wave = np.exp(loggamma(1 - 1j * frequency) / k - 1j * frequency * first)
    # F(x) = 1/2 - 1/pi sum_j Im[phi(w_j) exp(-i w_j x)] / (j + 1/2), at all x by one Fourier transform
    turn = np.exp(-0.5j * apart * (x - first))
    below = 0.5 - np.imag(np.fft.fft(wave / (np.arange(size) + 0.5)) * turn) / np.pi
    safe = (below > 1e-12) & (below < 1 - 1e-12)
    inside = slice(np.argmax(safe), size - np.argmax(safe[::-1]))
    return np.interp(np.linspace(LOW, HIGH, POINTS), -np.log(-np.log(below[inside])), x[inside])


def map_state(d: AbstractDistribution, logits: Logits) -> Logits:
    """The most likely state of a law of the kind of ``d`` with these logits."""
    if isinstance(d, Bernoulli):
        return (logits > 0).astype(logits.dtype)
    if isinstance(d, OneHot):
        return one_hot(jnp.argmax(logits, axis=-1), logits)
    if isinstance(d, Subset):
        return jnp.sum(one_hot(top_k(logits, d.k)[1], logits), axis=-2)  # faster than `Subset.mode`, which sorts
    return d.map_state(logits)  # pyright: ignore[reportAttributeAccessIssue]


def unsolved(d: AbstractDistribution) -> str | None:
    """Why the most likely state of a law cannot be had; None when it can."""
    if isinstance(d, (Bernoulli, OneHot, Subset, AbstractSolved)):
        return None
    return "it is made for Bernoulli, OneHot, Subset and laws with a solver (AbstractSolved)"
