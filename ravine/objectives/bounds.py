"""Variational bounds on log p(x). Each is a loss to lower (the negative bound, averaged over the batch by weight)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._check import require
from ravine._tree import AbstractSchedule, Linear, number
from ravine.core import (
    AbstractDirected,
    AbstractDistribution,
    AbstractGradient,
    AbstractLatentModel,
    AbstractPosterior,
    AbstractReparametrised,
    Cost,
    Latent,
    Metrics,
    Row,
    Scalar,
    averaged,
)
from ravine.dist import has_kl_cells, kl, kl_cells
from ravine.posteriors import AbstractManyDraws, Several, check


class ELBO(eqx.Module):
    """Evidence lower bound, sampled: ``E_q[log p(x | z) + beta (log p(z) - log q(z | x))]``.

    Kingma & Welling 2014 (arXiv:1312.6114), estimator A; any posterior, any gradient estimator. With ``beta = 1`` it
    is a lower bound on log p(x) in nats; ``beta`` may be a schedule (Higgins et al. 2017; Bowman et al. 2016).
    Without a gradient estimator that of the model is taken, which learns with it: see `ravine.models.Learned`.
    """

    gradient: AbstractGradient | None = None
    beta: float | AbstractSchedule = 1.0

    def __call__(self, model: AbstractLatentModel, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        value = averaged(lambda row, key: self.bound(model, row, key=key), batch, key=key)
        return -value, {"elbo": value}

    def bound(self, model: AbstractLatentModel, row: Row, *, key: PRNGKeyArray) -> Scalar:
        """The bound of one row, in nats."""

        def cost(z: Latent, log_q: Scalar) -> Scalar:
            return model.log_likelihood(z, row) + number(self.beta) * (model.log_prior(z, row) - log_q)

        return _raised(cost, model.posterior(row), _estimator(self.gradient, model, row), key)


class AnalyticELBO(eqx.Module):
    """Evidence lower bound with the divergence in closed form: ``E_q[log p(x | z)] - beta KL(q(z | x) || p(z))``.

    Estimator B of Kingma & Welling 2014. Needs one stochastic node and a pair of distributions whose divergence is
    known. ``free_bits`` (nats per latent cell, Kingma et al. 2016, arXiv:1606.04934, eq. 15) stops pushing down the
    divergence of a cell, averaged over the batch, once it is below that number; ``beta`` and ``free_bits`` may be
    schedules. Without a gradient estimator that of the model is taken, as by `ELBO`.
    """

    gradient: AbstractGradient | None = None
    beta: float | AbstractSchedule = 1.0
    free_bits: float | AbstractSchedule = 0.0

    def __call__(self, model: AbstractDirected, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        fit, cells = averaged(lambda row, key: self.terms(model, row, key=key), batch, key=key)
        divergence = jnp.sum(cells)
        loss = -fit + number(self.beta) * jnp.sum(jnp.maximum(cells, number(self.free_bits)))
        return loss, {"elbo": fit - divergence, "kl": divergence}

    def terms(self, model: AbstractDirected, row: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Float[Array, "..."]]:
        """The reconstruction term and the divergence of each latent cell, for one row, in nats."""
        posterior = model.posterior(row)  # pyright: ignore[reportAttributeAccessIssue]
        if len(posterior.nodes()) != 1:
            raise TypeError(
                "AnalyticELBO needs a posterior with one stochastic node; use ELBO, whose divergence is sampled."
            )
        gradient = _estimator(self.gradient, model, row)
        fit = _raised(lambda z, log_q: model.log_likelihood(z, row), posterior, gradient, key)
        return fit, _divergence(posterior.nodes()[0], model.prior(row.context))


def _divergence(q: AbstractDistribution, p: AbstractDistribution) -> Float[Array, "..."]:
    """KL(q || p) per independent cell; as one cell where cells are correlated."""
    return kl_cells(q, p) if has_kl_cells(q, p) else kl(q, p)[None]


class IWAE(eqx.Module):
    """Importance-weighted bound ``E[log 1/k sum_i p(x, z_i) / q(z_i | x)]``. Burda, Grosse & Salakhutdinov 2016.

    Increases with ``k`` towards log p(x); ``k = 1`` is the ELBO. arXiv:1509.00519, equation 8.
    """

    k: int = eqx.field(static=True)
    gradient: AbstractGradient | None = None

    def __call__(self, model: AbstractLatentModel, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        value = averaged(lambda row, key: self.bound(model, row, key=key), batch, key=key)
        return -value, {"iwae": value}

    def bound(self, model: AbstractLatentModel, row: Row, *, key: PRNGKeyArray) -> Scalar:
        """The bound of one row, in nats."""
        posterior, gradient = model.posterior(row), _estimator(self.gradient, model, row)
        if isinstance(gradient, AbstractManyDraws):
            check(gradient, posterior)
            return gradient.bound(lambda z, log_q: model.log_joint(z, row) - log_q, posterior, self.k, key=key)

        def cost(z: Latent, log_q: Float[Array, " k"]) -> Scalar:
            log_w = jax.vmap(lambda z: model.log_joint(z, row))(z) - log_q
            return logsumexp(log_w) - jnp.log(self.k)

        return _raised(cost, Several(posterior, self.k), gradient, key)


class StickingTheLanding(eqx.Module):
    """The ELBO with the score term of log q dropped. Roeder, Wu & Duvenaud 2017, arXiv:1703.09194.

    Same value as `ELBO`; the pathwise gradient has zero variance where q is the exact posterior.
    """

    def __call__(self, model: AbstractLatentModel, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        value = averaged(lambda row, key: self.bound(model, row, key=key), batch, key=key)
        return -value, {"elbo": value}

    def bound(self, model: AbstractLatentModel, row: Row, *, key: PRNGKeyArray) -> Scalar:
        """The bound of one row, in nats."""
        posterior = model.posterior(row)
        fixed = _stopped(posterior)
        z, _ = _differentiable(posterior).sample(key=key)
        return model.log_joint(z, row) - fixed.log_prob(z)


class DReG(eqx.Module):
    """The importance-weighted bound with doubly reparameterised gradients. Tucker et al. 2019, arXiv:1810.04152.

    Same value as `IWAE`; the recogniser follows ``sum_i w_i^2 d log w_i / dz_i dz_i / dphi`` with w normalised
    (equation 8), whose signal-to-noise does not vanish as ``k`` grows; the generator follows the usual gradient.
    """

    k: int = eqx.field(static=True, default=5)

    def __call__(self, model: AbstractLatentModel, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        value = averaged(lambda row, key: self.bound(model, row, key=key), batch, key=key)
        return -value, {"iwae": value}

    def bound(self, model: AbstractLatentModel, row: Row, *, key: PRNGKeyArray) -> Scalar:
        """The bound of one row, in nats."""
        posterior = model.posterior(row)
        fixed = _stopped(posterior)

        z, _ = Several(_differentiable(posterior), self.k).sample(key=key)
        log_w = jax.vmap(lambda z: model.log_joint(z, row) - fixed.log_prob(z))
        share = stop_gradient(jax.nn.softmax(log_w(z)))
        # each z_i carries w_i back to the recogniser, on top of the w_i that log-sum-exp gives it already
        return logsumexp(log_w(jax.vmap(_scale_gradient)(z, share))) - jnp.log(self.k)


def _estimator(gradient: AbstractGradient | None, model: object, row: Row) -> AbstractGradient:
    """That of the objective, or the one of its kind that has learned beside the model, for this row."""
    held = getattr(model, "gradient", None)
    found = held if gradient is None or type(held) is type(gradient) else gradient
    if found is None:
        raise TypeError("neither the objective nor the model has a gradient estimator: name one, as in ELBO(RLOO(2)).")
    return found.given(row)


def _raised(cost: Cost, posterior: AbstractPosterior, gradient: AbstractGradient, key: PRNGKeyArray) -> Scalar:
    """E[cost]; the estimator is asked for the opposite, because what it learns goes downhill with its cost."""
    return -posterior.expect(lambda z, log_q: -cost(z, log_q), gradient, key=key)


def _differentiable(posterior: AbstractPosterior) -> AbstractPosterior:
    for node in posterior.nodes():
        if not isinstance(node, AbstractReparametrised):
            raise TypeError(
                f"This objective needs draws that are differentiable; {type(node).__name__} has none: use ELBO or IWAE."
            )
    return posterior


def _stopped(posterior: AbstractPosterior) -> AbstractPosterior:
    arrays, rest = eqx.partition(posterior, eqx.is_array)  # the activation of a network may be a leaf too
    return eqx.combine(stop_gradient(arrays), rest)


def _scale_gradient(z: Latent, share: Scalar) -> Latent:
    """``z`` forwards, to the bit; its gradient times ``share`` backwards."""
    return jax.tree.map(lambda leaf: stop_gradient(leaf) + share * (leaf - stop_gradient(leaf)), z)


def warming(share: float, steps: int) -> Linear:
    """A weight of the divergence that goes from 0 to 1 over a share of the steps, for latents that would stay unused.

    Raises
    ------
    ValueError
        When the share is none.

    Examples
    --------
    >>> float(warming(0.5, 100)(jnp.array(25)))
    0.5
    """
    require(0 <= share <= 1, "warm_up", "a share from 0 to 1", f"{share}", "change it")
    return Linear(0.0, 1.0, max(1.0, share * steps))
