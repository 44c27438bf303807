"""Score-function gradients of bits from a pair of opposite draws: ARM and DisARM."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDistribution, AbstractGradient, Scalar
from ravine.dist import Bernoulli
from ravine.gradients._classes import zero

Cells = Float[Array, "..."]


class AbstractAntithetic(AbstractGradient):
    """The cost at bits drawn with uniforms u, and with 1 - u: two evaluations for each of ``k`` pairs."""

    k: eqx.AbstractVar[int]
    biased: ClassVar[bool] = False

    @abc.abstractmethod
    def slope(self, logits: Cells, u: Cells, pair: tuple[Cells, Cells]) -> Cells:
        """What the difference of the two costs is multiplied with, for each logit."""

    def __call__(self, cost: Callable[[Array], Scalar], d: AbstractDistribution, *, key: PRNGKeyArray) -> Scalar:
        logits = d.logits  # pyright: ignore[reportAttributeAccessIssue]  (`refuses` has asked)

        def one(key: PRNGKeyArray) -> Scalar:
            u = jr.uniform(key, logits.shape, logits.dtype)
            pair = _bits(u, logits), _bits(1 - u, logits)
            here, there = cost(pair[0]), cost(pair[1])
            slope = stop_gradient((here - there) * self.slope(logits, u, pair))
            return (here + there) / 2 + jnp.sum(slope * zero(logits))

        return jnp.mean(jax.vmap(one)(jr.split(key, self.k)))

    def refuses(self, d: AbstractDistribution) -> str | None:
        return None if isinstance(d, Bernoulli) else "it is made for Bernoulli"

    def calls(self, d: AbstractDistribution) -> int:
        return 2 * self.k


class ARM(AbstractAntithetic):
    """Augment-REINFORCE-merge: ``(f(1[u < p]) - f(1[u > 1 - p])) (1/2 - u)``. Yin & Zhou 2019, arXiv:1807.11143.

    Examples
    --------
    >>> value = lambda l: ARM()(lambda z: 3.0 + 0.0 * z.sum(), Bernoulli(l), key=jr.key(0))
    >>> jnp.abs(jax.grad(value)(jnp.zeros(2))).tolist()
    [0.0, 0.0]
    """

    k: int = eqx.field(static=True, default=1)

    def slope(self, logits: Cells, u: Cells, pair: tuple[Cells, Cells]) -> Cells:
        return 0.5 - u


class DisARM(AbstractAntithetic):
    """`ARM` averaged over all uniforms that give the same pair; its variance is never larger.

    ``(f(b) - f(b')) (-1)^b' 1[b != b'] sigmoid(|logit|) / 2``. Dong, Mnih & Tucker 2020, arXiv:2006.10680, equation 6;
    Yin et al. 2020, arXiv:2004.14992 (U2G).

    Examples
    --------
    >>> value = lambda l: DisARM()(lambda z: 3.0 + 0.0 * z.sum(), Bernoulli(l), key=jr.key(0))
    >>> jnp.abs(jax.grad(value)(jnp.zeros(2))).tolist()
    [0.0, 0.0]
    """

    k: int = eqx.field(static=True, default=1)

    def slope(self, logits: Cells, u: Cells, pair: tuple[Cells, Cells]) -> Cells:
        return (pair[0] - pair[1]) * jax.nn.sigmoid(jnp.abs(logits)) / 2


def _bits(u: Cells, logits: Cells) -> Cells:
    return (u < jax.nn.sigmoid(logits)).astype(logits.dtype)
