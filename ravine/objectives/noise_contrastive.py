"""Noise-contrastive estimation: telling rows from noise, by a model that learns its own log normaliser."""

from __future__ import annotations

import abc
import math
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray, PyTree

from ravine.core import AbstractDistribution, AbstractEnergy, Metrics, Row, Scalar, averaged
from ravine.objectives.score_matching import filled


class AbstractNoiseSource(eqx.Module):
    """A law of positions that can be drawn from and evaluated."""

    @abc.abstractmethod
    def draw(self, model: AbstractEnergy, *, key: PRNGKeyArray) -> PyTree[Array]:
        """One position."""

    @abc.abstractmethod
    def log_prob(self, model: AbstractEnergy, position: PyTree[Array]) -> Scalar:
        """Its log density, in nats."""


class StartOfPath(AbstractNoiseSource):
    """The independent cells where annealing of the model starts; for an `EnergyNet` its Gaussian base."""

    def draw(self, model: AbstractEnergy, *, key: PRNGKeyArray) -> PyTree[Array]:
        return model.start(key=key)

    def log_prob(self, model: AbstractEnergy, position: PyTree[Array]) -> Scalar:
        return -model.at(jnp.array(0.0)).energy(position) - model.log_start()


class FromLaw(AbstractNoiseSource):
    """A law of one's own."""

    law: AbstractDistribution

    def draw(self, model: AbstractEnergy, *, key: PRNGKeyArray) -> Array:
        return self.law.sample(key=key)

    def log_prob(self, model: AbstractEnergy, position: Array) -> Scalar:
        return self.law.log_prob(position)


@runtime_checkable
class SelfNormalised(Protocol):
    """An energy with a number that is learned and added to it: what makes exp(-energy) a density."""

    offset: Scalar


class NoiseContrastive(eqx.Module):
    r"""Logistic regression of rows against noise, with the log-ratio of their densities as the logit.

    .. math:: G(x) = -E(x) - \log p_n(x), \qquad
        L = -E_p \log \sigma(G(x) - \log \nu) - \nu E_n \log(1 - \sigma(G(x) - \log \nu))

    Gutmann & Hyvarinen 2010, AISTATS, 297-304; 2012, JMLR 13, equation 8. Its least value is where exp(-E) is the
    density of the rows: the offset of the energy becomes its log partition function. It is hard where noise is
    easily told from rows.

    Parameters
    ----------
    ratio : :math:`\nu`, draws of noise for each row.
    noise : the law of the noise.
    fill : steps that draw what a row does not hold.
    """

    ratio: int = eqx.field(static=True, default=10)
    noise: AbstractNoiseSource = StartOfPath()
    fill: int = eqx.field(static=True, default=10)

    def __call__(self, model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        if not isinstance(model, SelfNormalised):
            raise TypeError(f"{type(model).__name__} has no offset to learn its log normaliser by, as EnergyNet has.")
        first, second = jr.split(key)
        rows = filled(model, batch, self.fill, key=first)
        loss, right = averaged(lambda row, key: self.loss(model, row.x, key=key), rows, key=second)
        return loss, {"told_apart": right}

    def loss(self, model: AbstractEnergy, x: PyTree[Array], *, key: PRNGKeyArray) -> tuple[Scalar, Scalar]:
        """An estimate of the loss of one position, and the share of it and its noise that is told apart."""
        draws = jax.vmap(lambda k: self.noise.draw(model, key=k))(jr.split(key, self.ratio))
        here, there = self._logit(model, x), jax.vmap(lambda y: self._logit(model, y))(jax.lax.stop_gradient(draws))
        right = 0.5 * (here > -math.log(self.ratio)) + 0.5 * jnp.mean(there < -math.log(self.ratio))
        return jax.nn.softplus(-here) + jnp.sum(jax.nn.softplus(there)), right

    def _logit(self, model: AbstractEnergy, x: PyTree[Array]) -> Scalar:
        log_noise = jax.lax.stop_gradient(self.noise.log_prob(model, x))
        return -model.energy(x) - log_noise - math.log(self.ratio)
