"""Gradients that follow the draw itself. Kingma & Welling 2014, arXiv:1312.6114, section 2.4."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from ravine.core import AbstractDistribution, AbstractPosterior, AbstractReparametrised, Cost, Scalar
from ravine.posteriors import AbstractTrajectoryGradient


class AbstractPathwise(AbstractTrajectoryGradient):
    """Each node is drawn as a differentiable function of its parameters, or as a stand-in for one.

    A whole posterior is drawn layer by layer and the cost evaluated once at its end, at any depth.
    """

    differentiates: ClassVar[bool] = True

    @abc.abstractmethod
    def drawn(self, d: AbstractDistribution, *, key: PRNGKeyArray) -> Array:
        """One draw of ``d`` (or what stands for it) that carries a gradient to the parameters."""

    def __call__(self, cost: Callable[[Array], Scalar], d: AbstractDistribution, *, key: PRNGKeyArray) -> Scalar:
        return self._mean(lambda k: cost(self.drawn(d, key=k)), key)

    def over(self, cost: Cost, posterior: AbstractPosterior, *, key: PRNGKeyArray) -> Scalar:
        return self._mean(lambda k: cost(*posterior.drawn(self.drawn, key=k)), key)

    def calls(self, d: AbstractDistribution) -> int:
        return 1

    def _mean(self, draw: Callable[[PRNGKeyArray], Scalar], key: PRNGKeyArray) -> Scalar:
        """The mean cost of `calls` draws."""
        return draw(key)


class Pathwise(AbstractPathwise):
    """Differentiate through the draw: z = g(parameters, noise). Unbiased, ``k`` cost evaluations.

    Needs a cost that is differentiable in z and distributions whose draws are (`AbstractReparametrised`).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ravine.dist import Gaussian
    >>> slope = jax.grad(lambda m: Pathwise()(jnp.sum, Gaussian(m, jnp.ones(3)), key=jr.key(0)))(jnp.zeros(3))
    >>> slope.tolist()
    [1.0, 1.0, 1.0]
    """

    k: int = eqx.field(static=True, default=1)
    biased: ClassVar[bool] = False

    def drawn(self, d: AbstractDistribution, *, key: PRNGKeyArray) -> Array:
        return d.sample(key=key)

    def refuses(self, d: AbstractDistribution) -> str | None:
        return None if isinstance(d, AbstractReparametrised) else "its draws are not differentiable"

    def calls(self, d: AbstractDistribution) -> int:
        return self.k

    def _mean(self, draw: Callable[[PRNGKeyArray], Scalar], key: PRNGKeyArray) -> Scalar:
        if self.k == 1:
            return draw(key)
        return jnp.mean(jax.vmap(draw)(jr.split(key, self.k)))
