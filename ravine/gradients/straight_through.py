r"""Biased gradients for bits and categoricals that pretend that a discrete draw is smooth.

Each draws D exactly and evaluates the cost at D. Backwards, D is replaced by a smooth function of the logits: with
:math:`J_q v = q \odot v - q \langle q, v \rangle`, the Jacobian of a softmax at q, each is a sum of such terms. A bit
is a categorical of two classes.
"""

from __future__ import annotations

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._tree import AbstractSchedule, number
from ravine.core import AbstractDistribution
from ravine.gradients._classes import Classes, conditioned, logits_of, not_classes, one_hot, tilt, value_of, zero
from ravine.gradients.pathwise import AbstractPathwise

Temperature = float | Array | AbstractSchedule

FAINT = 1e-3  # a probability below which the gap is its expansion around 0


class AbstractStraightThrough(AbstractPathwise):
    """Estimators for bits and categoricals that draw one vector of shares for each cell, hard or soft."""

    biased: ClassVar[bool] = True

    @abc.abstractmethod
    def shares(self, logits: Classes, *, key: PRNGKeyArray) -> Classes:
        """The draw of each cell, with a gradient to its logits."""

    def drawn(self, d: AbstractDistribution, *, key: PRNGKeyArray) -> Array:
        return value_of(d, self.shares(logits_of(d), key=key))

    def refuses(self, d: AbstractDistribution) -> str | None:
        return not_classes(d)


class StraightThrough(AbstractStraightThrough):
    """Backwards the softmax of the logits over ``temperature``. Bengio et al. 2013, arXiv:1308.3432, section 3.

    A temperature that is a schedule is slope annealing (Chung et al. 2017, arXiv:1609.01704).

    Examples
    --------
    >>> from ravine.dist import OneHot
    >>> float(StraightThrough()(jnp.sum, OneHot(jnp.zeros((2, 3))), key=jr.key(0)))
    2.0
    """

    temperature: Temperature = 1.0

    def shares(self, logits: Classes, *, key: PRNGKeyArray) -> Classes:
        t = _above_zero(self.temperature, logits)
        return _drawn(logits, key) + tilt(jax.nn.softmax(logits / t), logits) / t


class GumbelSoftmax(AbstractStraightThrough):
    """The draw itself is soft, forwards too: softmax((logits + Gumbel noise) / temperature).

    Jang, Gu & Poole 2017, arXiv:1611.01144; Maddison, Mnih & Teh 2017, arXiv:1611.00712. The value is the cost at a
    soft draw, no bound on anything; `hard` gives the estimator that looks at discrete draws with the same noise.

    Examples
    --------
    >>> from ravine.dist import OneHot
    >>> got = GumbelSoftmax(0.5)(lambda z: jnp.max(z), OneHot(jnp.zeros(3)), key=jr.key(0))
    >>> 1 / 3 < float(got) < 1
    True
    """

    temperature: Temperature = 1.0

    def shares(self, logits: Classes, *, key: PRNGKeyArray) -> Classes:
        noisy = logits + jr.gumbel(key, logits.shape, logits.dtype)
        return jax.nn.softmax(noisy / _above_zero(self.temperature, logits))

    def hard(self) -> StraightThroughGumbel:
        return StraightThroughGumbel(self.temperature)


class StraightThroughGumbel(AbstractStraightThrough):
    """Forwards the class of the largest noisy logit, backwards the Gumbel-Softmax. Jang et al. 2017, section 2.2.

    Examples
    --------
    >>> from ravine.dist import OneHot
    >>> float(StraightThroughGumbel(0.5)(jnp.max, OneHot(jnp.zeros(3)), key=jr.key(0)))
    1.0
    """

    temperature: Temperature = 1.0

    def shares(self, logits: Classes, *, key: PRNGKeyArray) -> Classes:
        t = _above_zero(self.temperature, logits)
        noisy = logits + jr.gumbel(key, logits.shape, logits.dtype)
        return one_hot(jnp.argmax(noisy, axis=-1), logits) + tilt(jax.nn.softmax(noisy / t), logits) / t


class GumbelRao(AbstractStraightThrough):
    """`StraightThroughGumbel` averaged over ``draws`` of the noise that gives the same class; no more cost evaluations.

    Paulus, Maddison & Krause 2021, arXiv:2010.04838, equation 9. The conditional noise is held constant in the
    gradient: with one draw it has the law of `StraightThroughGumbel`.

    Examples
    --------
    >>> from ravine.dist import OneHot
    >>> float(GumbelRao(0.1, draws=5)(jnp.max, OneHot(jnp.zeros(3)), key=jr.key(0)))
    1.0
    """

    temperature: Temperature = 0.5
    draws: int = eqx.field(static=True, default=10)

    def shares(self, logits: Classes, *, key: PRNGKeyArray) -> Classes:
        t = _above_zero(self.temperature, logits)
        first, noise = jr.split(key)
        drawn = _drawn(logits, first)
        soft = lambda k: tilt(jax.nn.softmax(conditioned(logits, drawn, key=k) / t), logits)  # noqa: E731
        return drawn + jnp.mean(jax.vmap(soft)(jr.split(noise, self.draws)), axis=0) / t


class ReinMax(AbstractStraightThrough):
    """Second order in the logits, by Heun's method: ``2 J_{(D + p_t) / 2} - J_p / 2``.

    Liu et al. 2023, arXiv:2304.08612, algorithm 2; p_t is the softmax at the temperature. Unbiased where the cost is
    quadratic and ``temperature`` is 1.

    Examples
    --------
    >>> from ravine.dist import OneHot
    >>> float(ReinMax()(jnp.max, OneHot(jnp.zeros(3)), key=jr.key(0)))
    1.0
    """

    temperature: Temperature = 1.0

    def shares(self, logits: Classes, *, key: PRNGKeyArray) -> Classes:
        drawn, soft = _drawn(logits, key), jax.nn.softmax(logits / _above_zero(self.temperature, logits))
        return drawn + 2 * tilt((drawn + soft) / 2, logits) - 0.5 * tilt(jax.nn.softmax(logits), logits)


class DARN(AbstractStraightThrough):
    """First-order expansion of the cost at the draw, to a point where all classes are equal: no correction of its mean.

    Each cell is moved by ``<f'(D), D - 1/K> grad log q(D)``, K the number of classes. Gregor et al. 2014,
    arXiv:1310.8499, as Jang, Gu & Poole 2017 compare it. Unbiased for bits where the cost is quadratic, and there the
    same as ``ReinMax(1.0)``; with more classes it is not.

    Examples
    --------
    >>> from ravine.dist import OneHot
    >>> float(DARN()(jnp.max, OneHot(jnp.zeros(3)), key=jr.key(0)))
    1.0
    """

    def shares(self, logits: Classes, *, key: PRNGKeyArray) -> Classes:
        drawn = _drawn(logits, key)
        log_q = jnp.sum(drawn * jax.nn.log_softmax(logits), axis=-1, keepdims=True)
        return drawn + (drawn - 1 / logits.shape[-1]) * zero(log_q)


class GappedStraightThrough(AbstractStraightThrough):
    """Backwards a softmax of logits moved so that the drawn class leads by ``gap``. Fan et al. 2022, arXiv:2206.07235.

    The drawn logit is lifted to the largest one, the others pushed at least ``gap`` below it; no Gumbel noise.
    ``gap=None`` is the paper's GST-p, a gap of ``-log(1 - p_D) / p_D``.

    Examples
    --------
    >>> from ravine.dist import OneHot
    >>> float(GappedStraightThrough()(jnp.max, OneHot(jnp.zeros(3)), key=jr.key(0)))
    1.0
    """

    temperature: Temperature = 1.0
    gap: float | None = 1.0

    def shares(self, logits: Classes, *, key: PRNGKeyArray) -> Classes:
        t, drawn = _above_zero(self.temperature, logits), _drawn(logits, key)
        return drawn + tilt(jax.nn.softmax(self.moved(logits, drawn) / t), logits) / t

    def moved(self, logits: Classes, drawn: Classes) -> Classes:
        """The logits with the drawn class in the lead."""
        top = jnp.max(logits, axis=-1, keepdims=True)
        gap = mean_gap(logits, drawn) if self.gap is None else self.gap
        return jnp.where(drawn > 0, top, jnp.minimum(logits, top - gap))


def mean_gap(logits: Classes, drawn: Classes) -> Float[Array, "... 1"]:
    """``-log(1 - p_D) / p_D``: by how much the largest noisy logit leads on average when it is that of D."""
    others = jax.nn.logsumexp(jnp.where(drawn > 0, -jnp.inf, logits), axis=-1, keepdims=True)
    log_rest = others - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    share = jnp.sum(drawn * jax.nn.softmax(logits), axis=-1, keepdims=True)
    faint = share < FAINT  # there both terms of the quotient round to 0
    return jnp.where(faint, 1 + share / 2, -log_rest / jnp.where(faint, 1, share))


def _drawn(logits: Classes, key: PRNGKeyArray) -> Classes:
    return one_hot(jr.categorical(key, logits), logits)


def _above_zero(temperature: Temperature, logits: Classes) -> Array:
    return number(temperature).astype(logits.dtype)
