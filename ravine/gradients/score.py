"""Score-function gradients: cost times the slope of log q. Any law, any cost, no derivative of the cost in z."""

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

from ravine.core import AbstractDistribution, AbstractPosterior, Cost, Latent, Scalar
from ravine.gradients._classes import zero
from ravine.posteriors import AbstractTrajectoryGradient


class AbstractScore(AbstractTrajectoryGradient):
    """``mean_i signal_i grad log q(z_i) + grad f_i`` over ``k`` whole draws: k cost evaluations at any depth."""

    k: eqx.AbstractVar[int]
    biased: ClassVar[bool] = False

    @abc.abstractmethod
    def signals(self, costs: Float[Array, " k"]) -> Float[Array, " k"]:
        """What the slope of each log q is multiplied with."""

    def lessons(self, costs: Float[Array, " k"]) -> Scalar:
        """A term of value 0 from which the learned parts, if any, learn."""
        return jnp.zeros((), costs.dtype)

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

    def calls(self, d: AbstractDistribution) -> int:
        return self.k

    def _surrogate(self, costs: Float[Array, " k"], log_q: Float[Array, " k"]) -> Scalar:
        moved = costs + stop_gradient(self.signals(costs)) * zero(log_q)
        return jnp.mean(moved) + self.lessons(costs)


class ScoreFunction(AbstractScore):
    """``mean_i f_i grad log q(z_i)``, without a baseline: REINFORCE. Williams 1992, Machine Learning 8, 229-256.

    Unbiased, and noisy when the cost is far from 0.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ravine.dist import Bernoulli
    >>> float(ScoreFunction(4)(lambda z: 3.0 + 0.0 * z.sum(), Bernoulli(jnp.zeros(2)), key=jr.key(0)))
    3.0
    """

    k: int = eqx.field(static=True, default=1)

    def signals(self, costs: Float[Array, " k"]) -> Float[Array, " k"]:
        return costs


class RLOO(AbstractScore):
    """The baseline of each draw is the mean cost of the others: ``mean_i (f_i - mean_{j != i} f_j) grad log q(z_i)``.

    Unbiased; adding a constant to the cost changes nothing. Kool, van Hoof & Welling 2019, "Buy 4 REINFORCE samples,
    get a baseline for free!"; the same estimator is VarGrad of Richter et al. 2020, arXiv:2010.10436.

    Raises
    ------
    ValueError
        When ``k`` is below 2: nobody is left.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ravine.dist import Bernoulli
    >>> value = lambda l: RLOO(2)(lambda z: 3.0 + 0.0 * z.sum(), Bernoulli(l), key=jr.key(0))
    >>> jax.grad(value)(jnp.zeros(2)).tolist()
    [0.0, 0.0]
    """

    k: int = eqx.field(static=True, default=2)

    def __check_init__(self) -> None:
        if self.k < 2:
            raise ValueError(f"RLOO: expected k of at least 2, got {self.k}; use ScoreFunction(1) for a single draw.")

    def signals(self, costs: Float[Array, " k"]) -> Float[Array, " k"]:
        return costs - (jnp.sum(costs) - costs) / (self.k - 1)
