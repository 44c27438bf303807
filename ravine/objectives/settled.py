"""Learning from where latents have settled: local, for no gradient passes through the settling."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import PRNGKeyArray, PyTree

from ravine._tree import AbstractSchedule, number, trainable
from ravine.core import Metrics, Row, Scalar, averaged


class Energy(eqx.Module):
    r"""The energy of the settled point, which is held: what the errors there cost, in nats up to a constant.

    .. math:: F = \sum_l \tfrac12 e_l^\top \Pi_l e_l - \tfrac12 \log|\Pi_l|, \qquad
        -\partial F / \partial W_l = \Pi_l e_l \, f_l'(\cdot)\, z_{l-1}^\top

    so that each link learns from the layer that it reads and the error of the one that it predicts. Its value is no
    bound on log p(x). Where a model guesses where it will settle, the guess learns to be there, by squared distance.

    Parameters
    ----------
    decay : weight of half the sum of the squared weights, matrices and kernels alone; biases are left out.
    """

    decay: float | AbstractSchedule | jax.Array = 0.0

    def __call__(self, model: Any, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        loss, metrics = averaged(lambda row, key: self.loss(model, row), batch, key=key)
        return loss + 0.5 * number(self.decay) * squares(model), metrics

    def loss(self, model: Any, row: Row) -> tuple[Scalar, Metrics]:
        """The loss of one row, and its parts."""
        point = still(model).posterior(row)
        layers = model.held(row)
        energy = layers.missed(point.latent, layers.predictions(point.read))
        if getattr(model, "guess", None) is None:
            return energy, {"energy": energy}
        away = (0.5 * jnp.sum((z - at) ** 2) for z, at in zip(model.guess(row), point.latent, strict=True))
        missed = sum(away, jnp.zeros(()))
        return energy + missed, {"energy": energy, "guess": missed}


class Hebbian(eqx.Module):
    r"""Products of errors and activities: what synapses learn from the two cells that they join.

    .. math:: \Delta W = e_l\, \phi(z_{l+1})^\top, \qquad \Delta E = \phi(z_{l+1})\, e_l^\top

    The value is the total discrepancy, the sum of what all errors cost; the gradient is minus these products, and is
    that of the discrepancy only where no function lies between a product and what it predicts. Ororbia & Kifer 2022,
    arXiv:2012.03405.
    """

    def __call__(self, model: Any, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        return averaged(lambda row, key: self.loss(model, row), batch, key=key)

    def loss(self, model: Any, row: Row) -> tuple[Scalar, Metrics]:
        """The loss of one row, and the discrepancy."""
        point = still(model).posterior(row)
        slope, value = model.lesson(point.latent, row), model.discrepancy(point.latent, row)
        return slope + stop_gradient(value - slope), {"discrepancy": value}


def still(model: PyTree) -> PyTree:
    """The model, through which no gradient flows."""
    arrays, rest = eqx.partition(model, eqx.is_inexact_array)
    return eqx.combine(stop_gradient(arrays), rest)


def squares(model: PyTree) -> Scalar:
    """The sum of the squares of all weights that a rule may change, those of vectors and single numbers left out."""
    leaves = [leaf for leaf in jax.tree.leaves(trainable(model)[0]) if leaf.ndim > 1]
    return sum((jnp.sum(leaf**2) for leaf in leaves), jnp.zeros(()))
