r"""Biased gradients for subsets of fixed size: a soft subset, or exact draws with the Jacobian of the shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jaxtyping import Array, PRNGKeyArray

from ravine._tree import number
from ravine.core import AbstractDistribution, Scalar
from ravine.dist import Subset
from ravine.dist.relaxed import gumbel
from ravine.gradients._classes import zero
from ravine.gradients.pathwise import AbstractPathwise
from ravine.gradients.score import ScoreFunction
from ravine.gradients.straight_through import Temperature


class ConcreteSubset(AbstractPathwise):
    r"""The draw is soft, forwards too: the largest, item by item, of k Gumbel-Softmax vectors with the same logits.

    .. math:: V_i = \max_{j \le k} C^j_i, \qquad C^j = \mathrm{softmax}((l + G^j) / t)

    Chen, Song, Wainwright & Jordan 2018, arXiv:1802.07814, section 3.3. In the limit of low temperatures it is a set of
    k items drawn *with* replacement, of at most k members; `hard` looks at draws of the law itself.

    Examples
    --------
    >>> soft = ConcreteSubset(0.1)(jnp.sum, Subset(jnp.zeros(6), 2), key=jr.key(0))
    >>> 0 < float(soft) < 2.001
    True
    """

    temperature: Temperature = 0.1
    biased: ClassVar[bool] = True

    def drawn(self, d: AbstractDistribution, *, key: PRNGKeyArray) -> Array:
        logits = d.logits  # pyright: ignore[reportAttributeAccessIssue]  (`refuses` has asked)
        noise = gumbel(key, jnp.broadcast_to(logits, (d.k, *logits.shape)))  # pyright: ignore[reportAttributeAccessIssue]
        return jnp.max(jax.nn.softmax((logits[None] + noise) / number(self.temperature).astype(logits.dtype)), axis=0)

    def refuses(self, d: AbstractDistribution) -> str | None:
        return _no_subset(d)

    def hard(self) -> ScoreFunction:
        return ScoreFunction()


class SIMPLE(AbstractPathwise):
    """Forwards an exact draw, backwards the exact shares of the items, `Subset.mean`, as if they had been the draw.

    Ahmed, Zeng, Niepert & Van den Broeck 2023, arXiv:2210.01941. ``k`` draws, and cost evaluations.

    Examples
    --------
    >>> value = lambda l: SIMPLE()(lambda z: z[0], Subset(l, 1), key=jr.key(0))  # linear: exact at every draw
    >>> print(jax.grad(value)(jnp.log(jnp.array([3.0, 1.0]))).round(4))
    [ 0.1875 -0.1875]
    """

    k: int = eqx.field(static=True, default=1)
    biased: ClassVar[bool] = True

    def drawn(self, d: AbstractDistribution, *, key: PRNGKeyArray) -> Array:
        return stop_gradient(d.sample(key=key)) + zero(d.mean())

    def refuses(self, d: AbstractDistribution) -> str | None:
        return _no_subset(d)

    def calls(self, d: AbstractDistribution) -> int:
        return self.k

    def _mean(self, draw: Callable[[PRNGKeyArray], Scalar], key: PRNGKeyArray) -> Scalar:
        return jnp.mean(jax.vmap(draw)(jr.split(key, self.k)))


def _no_subset(d: AbstractDistribution) -> str | None:
    return None if isinstance(d, Subset) else "it is made for Subset"
