"""The score-function gradient with a leave-one-out baseline. Kool, van Hoof & Welling 2019; Mnih & Rezende 2016."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDistribution, AbstractPosterior, Cost, Latent, Scalar
from ravine.posteriors import AbstractTrajectoryGradient


class ScoreFunction(AbstractTrajectoryGradient):
    """``mean_i (f_i - mean_{j != i} f_j) grad log q(z_i) + grad f_i``. Unbiased; ``k`` cost evaluations; any law.

    With ``k = 1`` there is nobody to leave out and the baseline is 0 (REINFORCE).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ravine.dist import Bernoulli
    >>> float(ScoreFunction(4)(lambda z: 3.0 + 0.0 * z.sum(), Bernoulli(jnp.zeros(2)), key=jr.key(0)))
    3.0
    """

    k: int = eqx.field(static=True, default=2)
    biased: ClassVar[bool] = False

    def __call__(self, cost: Callable[[Array], Scalar], d: AbstractDistribution, *, key: PRNGKeyArray) -> Scalar:
        z = stop_gradient(jax.vmap(lambda k: d.sample(key=k))(jr.split(key, self.k)))
        return self._surrogate(jax.vmap(cost)(z), jax.vmap(d.log_prob)(z))

    def over(self, cost: Cost, posterior: AbstractPosterior, *, key: PRNGKeyArray) -> Scalar:
        def one(k: PRNGKeyArray) -> tuple[Scalar, Scalar]:
            z: Latent = stop_gradient(posterior.sample(key=k)[0])
            log_q = posterior.log_prob(z)
            return cost(z, log_q), jnp.sum(log_q)

        return self._surrogate(*jax.vmap(one)(jr.split(key, self.k)))

    def refuses(self, d: AbstractDistribution) -> str | None:
        return None

    def _surrogate(self, costs: Float[Array, " k"], log_q: Float[Array, " k"]) -> Scalar:
        others = (jnp.sum(costs) - costs) / max(self.k - 1, 1)
        signal = stop_gradient(costs - others)
        return jnp.mean(costs + signal * (log_q - stop_gradient(log_q)))
