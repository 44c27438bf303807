"""The pathwise (reparameterised) gradient. Kingma & Welling 2014, arXiv:1312.6114, section 2.4."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from ravine.core import AbstractDistribution, AbstractPosterior, AbstractReparametrised, Cost, Scalar
from ravine.posteriors import AbstractTrajectoryGradient


class Pathwise(AbstractTrajectoryGradient):
    """Differentiate through the draw itself: z = g(parameters, noise). Unbiased, ``k`` cost evaluations.

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

    def __call__(self, cost: Callable[[Array], Scalar], d: AbstractDistribution, *, key: PRNGKeyArray) -> Scalar:
        return self._mean(lambda k: cost(d.sample(key=k)), key)

    def over(self, cost: Cost, posterior: AbstractPosterior, *, key: PRNGKeyArray) -> Scalar:
        return self._mean(lambda k: cost(*posterior.sample(key=k)), key)

    def refuses(self, d: AbstractDistribution) -> str | None:
        if isinstance(d, AbstractReparametrised):
            return None
        return "its draws are not differentiable; use ScoreFunction(k) or, for few values, Enumerate()"

    def _mean(self, draw: Callable[[PRNGKeyArray], Scalar], key: PRNGKeyArray) -> Scalar:
        if self.k == 1:
            return draw(key)
        return jnp.mean(jax.vmap(draw)(jr.split(key, self.k)))
