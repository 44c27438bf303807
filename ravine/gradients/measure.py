"""Measure-valued gradients: a derivative of a density as a difference of two densities. Any cost, cell by cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDistribution, AbstractGradient, Scalar
from ravine.dist import Gaussian, Poisson
from ravine.gradients._classes import zero

OneCost = Callable[[Array], Scalar]


class MeasureValued(AbstractGradient):
    r"""``d/dp E[f] = c (E_+[f] - E_-[f])`` for each parameter of each cell, the other cells as drawn.

    Mohamed, Rosca, Figurnov & Mnih 2020, arXiv:1906.10652, section 6 and table 1. The mean of a Gaussian:
    :math:`c = 1 / (\sigma \sqrt{2 \pi})`, both sides of a Rayleigh distance; its scale: :math:`c = 1 / \sigma`, a
    double-sided Maxwell and the Gaussian itself; the rate of a Poisson law: f(x + 1) - f(x). Unbiased and without a
    derivative of the cost; for n cells 3 n + 1 cost evaluations of a Gaussian, n + 1 of a Poisson node. Bits and
    categoricals have `LocalExpectation`, which is the same idea.

    Examples
    --------
    >>> slope = jax.grad(lambda m: MeasureValued()(jnp.sum, Poisson(m), key=jr.key(0)))(jnp.zeros(2))
    >>> slope.tolist()
    [1.0, 1.0]
    """

    biased: ClassVar[bool] = False

    def __call__(self, cost: OneCost, d: AbstractDistribution, *, key: PRNGKeyArray) -> Scalar:
        return _poisson(cost, d, key) if isinstance(d, Poisson) else _gaussian(cost, d, key)

    def refuses(self, d: AbstractDistribution) -> str | None:
        return None if isinstance(d, (Gaussian, Poisson)) else "it is made for Gaussian and Poisson"

    def calls(self, d: AbstractDistribution) -> int:
        return 1 + d.mean().size * (1 if isinstance(d, Poisson) else 3)


def _poisson(cost: OneCost, d: Poisson, key: PRNGKeyArray) -> Scalar:
    z = stop_gradient(d.sample(key=key))
    value = cost(z)
    more = _changed(cost, z, z + 1)
    slope = jnp.exp(d.log_rate) * (more - value)  # the derivative in the logarithm of the rate
    return value + jnp.sum(stop_gradient(slope) * zero(d.log_rate))


def _gaussian(cost: OneCost, d: AbstractDistribution, key: PRNGKeyArray) -> Scalar:
    location, scale = d.location, d.scale  # pyright: ignore[reportAttributeAccessIssue]  (`refuses` has asked)
    first, second, third = jr.split(key, 3)
    z = stop_gradient(d.sample(key=first))
    value = cost(z)
    shape, dtype = location.shape, location.dtype
    distance = jnp.sqrt(2 * jr.exponential(second, shape, dtype))  # a Rayleigh law
    far = jr.maxwell(third, shape, dtype) * jr.rademacher(jr.fold_in(third, 1), shape, dtype)
    up, down, out = (_changed(cost, z, location + scale * step) for step in (distance, -distance, far))
    of_location = (up - down) / (scale * jnp.sqrt(2 * jnp.pi).astype(dtype))
    of_scale = (out - value) / scale
    return value + jnp.sum(stop_gradient(of_location) * zero(location) + stop_gradient(of_scale) * zero(scale))


def _changed(cost: OneCost, z: Float[Array, "..."], other: Float[Array, "..."]) -> Float[Array, "..."]:
    """The cost with one cell after the other as in ``other``."""
    flat, new = z.ravel(), stop_gradient(other).ravel()
    at = lambda i: cost(flat.at[i].set(new[i]).reshape(z.shape))  # noqa: E731
    return jax.vmap(at)(jnp.arange(flat.size)).reshape(z.shape)
