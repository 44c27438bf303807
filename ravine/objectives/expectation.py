"""Expectation-maximisation by gradient: the posterior is worked out for each row, and the generator learns from it."""

from __future__ import annotations

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import PRNGKeyArray

from ravine._check import require
from ravine.core import AbstractLatentModel, Metrics, Row, Scalar, averaged
from ravine.posteriors import AbstractBounded, AbstractVisited


class AbstractByBound(eqx.Module):
    """Learning that raises the mean of a bound on log p(x)."""

    @abc.abstractmethod
    def bound(self, model: AbstractLatentModel, row: Row, *, key: PRNGKeyArray) -> Scalar:
        """The bound of one row, in nats."""

    def __call__(self, model: AbstractLatentModel, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        value = averaged(lambda row, key: self.bound(model, row, key=key), batch, key=key)
        return -value, {"elbo": value}


class VariationalEM(AbstractByBound):
    """The bound on log p(x) at which the inference of the model settles; the generator climbs it at held settlement.

    Where inference has found a stationary point of its bound, that is the gradient of the settled bound as a function
    of the generator. With `ExactInference` the bound is log p(x). Neal & Hinton 1998, *A view of the EM algorithm that
    justifies incremental, sparse, and other variants*; Saul, Jaakkola & Jordan 1996.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import jax.random as jr
    >>> from ravine.dist import Bits
    >>> from ravine.models.belief_net import belief_net
    >>> from ravine.models.directed import Helmholtz
    >>> from ravine.models.mean_field import MeanFieldInference
    >>> p = belief_net((2,), "-", Bits(), jnp.full(3, 0.5), key=jr.key(0))
    >>> loss, metrics = VariationalEM()(Helmholtz(p, MeanFieldInference()), Row(jnp.ones((1, 3))), key=jr.key(1))
    >>> bool(loss == -metrics["elbo"])
    True
    """

    def bound(self, model: AbstractLatentModel, row: Row, *, key: PRNGKeyArray) -> Scalar:
        """The bound of one row, in nats.

        Raises
        ------
        ValueError
            When the posterior of the model knows no bound.
        """
        posterior = model.posterior(row)
        got, do = type(posterior).__name__, "set inference=MeanFieldInference(), or learn with ELBO(...)"
        require(isinstance(posterior, AbstractBounded), "VariationalEM", "inference by a bound", got, do)
        assert isinstance(posterior, AbstractBounded)
        return posterior.log_bound


class MonteCarloEM(AbstractByBound):
    r"""Mean of log p(x, z) over ``k`` states of a chain that draws from p(z | x), for the generator to raise.

    Its gradient is that of log p(x) once the chain has settled. The value that is shown is the mean of
    :math:`\log p(x, z) - \log T(z \mid z')` with T the probability of the move to z, a lower bound on log p(x) on
    average. Wei & Tanner 1990; Neal 1992, *Connectionist learning of belief networks*.

    Parameters
    ----------
    k : states, each a step of the chain after the one before.

    Examples
    --------
    >>> import jax.random as jr
    >>> from ravine.dist import Bits
    >>> from ravine.models.belief_chains import GibbsSampling
    >>> from ravine.models.belief_net import belief_net
    >>> from ravine.models.directed import Helmholtz
    >>> p = belief_net((2,), "-", Bits(), jnp.full(3, 0.5), key=jr.key(0))
    >>> model = Helmholtz(p, GibbsSampling(scans=5))
    >>> bool(MonteCarloEM()(model, Row(jnp.ones((1, 3))), key=jr.key(1))[0] > 0)
    True
    """

    k: int = eqx.field(static=True, default=10)

    def bound(self, model: AbstractLatentModel, row: Row, *, key: PRNGKeyArray) -> Scalar:
        """The bound of one row, in nats, on average over chains.

        Raises
        ------
        ValueError
            When the posterior of the model is met by no chain.
        """
        posterior = model.posterior(row)
        got, do = type(posterior).__name__, "set inference=GibbsSampling(), or learn with ELBO(...)"
        require(isinstance(posterior, AbstractVisited), "MonteCarloEM", "inference by a chain", got, do)
        assert isinstance(posterior, AbstractVisited)
        z, log_moves = stop_gradient(posterior.visited(self.k, key=key))
        return jnp.mean(jax.vmap(lambda z: model.log_joint(z, row))(z) - log_moves)
