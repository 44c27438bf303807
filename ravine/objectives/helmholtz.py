"""Learning a generator and a recogniser each from draws of the other: no gradient passes through a draw.

Hinton, Dayan, Frey & Neal 1995, *The wake-sleep algorithm for unsupervised neural networks*; Bornschein & Bengio 2015,
arXiv:1406.2751; Flach, Schlesinger & Shekhovtsov 2023, arXiv:2307.09883.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jax.scipy.special import logsumexp
from jaxtyping import Array, PRNGKeyArray

from ravine.core import AbstractDirected, AbstractLatentModel, Latent, Metrics, Row, Scalar, averaged
from ravine.dist import Ancestral
from ravine.posteriors import Several


class WakeSleep(eqx.Module):
    r"""The wake-sleep algorithm.

    Wake: latents drawn by the recogniser, from which the generator learns. Sleep: rows drawn by the generator, from
    which the recogniser learns. The value is minus the bound, of one draw; the gradient that of

    .. math:: -E_{q(z \mid x)}[\log p(x, z)] - E_{p(x', z')}[\log q(z' \mid x')]

    where the laws under the expectations are held: it is not the gradient of the bound. Where rows have holes, those
    that are dreamt have the same.
    """

    def __call__(self, model: AbstractLatentModel, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        return averaged(lambda row, key: self.loss(model, row, key=key), batch, key=key)

    def loss(self, model: AbstractLatentModel, row: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        """The loss of one row, and its parts."""
        wake, sleep = jr.split(key)
        z, log_q = stop_gradient(model).posterior(row).sample(key=wake)
        log_p, dreamt = model.log_joint(z, row), recalled(model, row, key=sleep)
        return _valued(log_q - log_p, -log_p - dreamt), {"elbo": log_p - log_q, "sleep": dreamt}


class ReweightedWakeSleep(eqx.Module):
    r"""Reweighted wake-sleep: ``k`` draws of the recogniser, weighed by how well the generator knows them.

    .. math:: w_i \propto p(x, z_i) / q(z_i \mid x), \quad
        -\sum_i w_i \log p(x, z_i), \quad -\sum_i w_i \log q(z_i \mid x)

    are what the generator and the recogniser lower, with the weights held. The value is minus the importance-weighted
    bound. Bornschein & Bengio 2015, arXiv:1406.2751, who let the recogniser learn from dreams as well.

    Parameters
    ----------
    k : draws for each row.
    sleep : share of the recogniser's lesson that comes from dreams; 0 never dreams.
    """

    k: int = eqx.field(static=True, default=5)
    sleep: float = eqx.field(static=True, default=0.5)

    def __call__(self, model: AbstractLatentModel, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        return averaged(lambda row, key: self.loss(model, row, key=key), batch, key=key)

    def loss(self, model: AbstractLatentModel, row: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        """The loss of one row, and its parts."""
        wake, sleep = jr.split(key)
        z, log_q = Several(stop_gradient(model).posterior(row), self.k).sample(key=wake)
        log_p = jax.vmap(lambda z: model.log_joint(z, row))(z)
        bound = logsumexp(log_p - log_q) - jnp.log(self.k)
        weight = jax.nn.softmax(stop_gradient(log_p) - log_q)
        told = weight @ Several(model.posterior(row), self.k).log_prob(z)
        dreamt = recalled(model, row, key=sleep) if self.sleep else jnp.zeros_like(told)
        lesson = weight @ log_p + (1 - self.sleep) * told + self.sleep * dreamt
        return _valued(-bound, -lesson), {"iwae": bound, "sleep": dreamt}


class Equilibrium(eqx.Module):
    r"""Symmetric equilibrium learning: decoder and encoder are players, each with a utility of its own.

    .. math::
        L_p = E_{x}\, E_{q(z \mid x)} [\log p(x \mid z)], \quad L_q = E_{z}\, E_{p(x \mid z)} [\log q(z \mid x)]

    Each follows the gradient of its own utility, with the law of the other held. The laws of x and of z are met by
    draws alone: the prior needs no density, and may be a sample, or the draws of another model. Of a hierarchy, the
    conditionals of the lower layers belong to the decoder. Latents that are known, in ``row.y`` where ``row.y_mask``
    says so, stand in for those that the encoder draws, and are told to it. Flach, Schlesinger & Shekhovtsov 2023,
    arXiv:2307.09883.

    The value is minus the sum of the utilities: no bound, and what an equilibrium maximises only in part.
    """

    def __call__(self, model: AbstractDirected, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        return averaged(lambda row, key: self.loss(model, row, key=key), batch, key=key)

    def loss(self, model: Any, row: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        """The loss of one row, and the two utilities."""
        wake, sleep = jr.split(key)
        z, _ = stop_gradient(model).posterior(row).sample(key=wake)
        told = jnp.zeros(())
        if row.y is not None:
            known = jnp.array(True) if row.y_mask is None else row.y_mask
            z = jax.tree.map(lambda given, drawn: jnp.where(known, given, drawn), row.y, z)
            told = jnp.where(known, model.posterior(row).log_prob(z), 0.0)
        decoder = model.log_likelihood(z, row) + _below(model, z, row)
        encoder = recalled(model, row, key=sleep)
        return -decoder - encoder - told, {"decoder": decoder, "encoder": encoder}


def recalled(model: AbstractLatentModel, row: Row, *, key: PRNGKeyArray) -> Scalar:
    """log q(z | x) of latents and a row that the generator draws, which has the holes of the given one; in nats."""
    z, x = stop_gradient(model).sample(row.context, key=key)
    seen = x if row.mask is None else jax.tree.map(lambda cell, known: jnp.where(known, cell, 0), x, row.mask)
    return model.posterior(dataclasses.replace(row, x=seen)).log_prob(z)


def _valued(value: Scalar, slope: Scalar) -> Scalar:
    """The value of the one, the gradient of the other."""
    return slope + stop_gradient(value - slope)


def _below(model: AbstractDirected, z: Latent, row: Row) -> Array:
    """log p of all layers but the top one, given that one above."""
    prior = model.prior(row.context)
    if not isinstance(prior, Ancestral):
        return jnp.zeros(())
    laws = zip(prior.conditionals, z[:-1], z[1:], strict=True)
    return jnp.asarray(sum(conditional(above).log_prob(below) for conditional, above, below in laws))
