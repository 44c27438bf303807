"""Gradients of importance-weighted bounds over discrete latents: each draw has a signal of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDistribution, AbstractPosterior, Cost, Scalar
from ravine.gradients._classes import zero
from ravine.posteriors import AbstractManyDraws


class VIMCO(AbstractManyDraws):
    r"""Leave-one-out signals for the importance-weighted bound. Mnih & Rezende 2016, arXiv:1602.06725, equation 12.

    .. math:: \sum_j (L - L_{-j}) \nabla\log q(z_j) + \sum_j \tilde w_j \nabla\log w_j

    where :math:`L_{-j}` has the weight of draw j replaced by the geometric mean of the others. Unbiased, as many cost
    evaluations as the bound has draws, at any depth; any law. Use it as ``IWAE(k, VIMCO())``.

    Examples
    --------
    >>> from ravine.dist import Bernoulli
    >>> from ravine.posteriors import OneNode
    >>> q = OneNode(Bernoulli(jnp.zeros(2)))
    >>> float(VIMCO().bound(lambda z, log_q: jnp.asarray(3.0), q, 5, key=jr.key(0)))
    3.0
    """

    biased: ClassVar[bool] = False

    def bound(self, log_weight: Cost, posterior: AbstractPosterior, k: int, *, key: PRNGKeyArray) -> Scalar:
        if k < 2:
            raise ValueError(f"VIMCO: expected a bound with at least 2 draws, got {k}; use ELBO(RLOO(2)).")

        def one(key: PRNGKeyArray) -> tuple[Scalar, Scalar]:
            z = stop_gradient(posterior.sample(key=key)[0])
            log_q = posterior.log_prob(z)
            return log_weight(z, log_q), log_q

        log_w, log_q = jax.vmap(one)(jr.split(key, k))
        value = logsumexp(log_w) - jnp.log(k)
        return value + jnp.sum(stop_gradient(value - _without_each(log_w)) * zero(log_q))

    def __call__(self, cost: Callable[[Array], Scalar], d: AbstractDistribution, *, key: PRNGKeyArray) -> Scalar:
        raise TypeError("VIMCO is made for importance-weighted bounds: IWAE(k, VIMCO()); for other costs use RLOO(k).")

    def refuses(self, d: AbstractDistribution) -> str | None:
        return None

    def calls(self, d: AbstractDistribution) -> int:
        return 1


def _without_each(log_w: Float[Array, " k"]) -> Float[Array, " k"]:
    """The bound with each weight in turn replaced by the geometric mean of the others."""
    k = log_w.size
    filled = (jnp.sum(log_w) - log_w) / (k - 1)
    table = jnp.where(jnp.eye(k, dtype=bool), filled[:, None], log_w[None, :])
    return logsumexp(table, axis=1) - jnp.log(k)
