"""Learning a coupled pair: a way up and a way down that share their weights, and a machine on top."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine.core import Metrics, Row, Scalar, averaged, weights


class AbstractTelling(eqx.Module):
    """How the labels of rows are learned, beside how rows are; minus log p(y | x) in nats."""

    weight: eqx.AbstractVar[float]

    @abc.abstractmethod
    def __call__(self, model: Any, row: Row) -> Scalar:
        """The loss of one row, whose label is known."""


class LocalTelling(AbstractTelling):
    """The machine on top alone learns to tell the label, at the probabilities that the way up gives.

    Parameters
    ----------
    weight : of the loss, beside the mean of the other terms over the rows.
    """

    weight: float = 200.0

    def __call__(self, model: Any, row: Row) -> Scalar:
        return _untold(model.told_locally(row), row)


class BackPropagated(AbstractTelling):
    """The way up learns, too, by back-propagation of the loss of the label.

    Parameters
    ----------
    weight : of the loss, beside the mean of the other terms over the rows.
    """

    weight: float = 200.0

    def __call__(self, model: Any, row: Row) -> Scalar:
        return _untold(-model.answers(row), row)


class Coupled(eqx.Module):
    r"""Wake-sleep of two ways with a machine on top, from scratch and all at once.

    .. math::
        -\sum_l \log p(h_{l-1} \mid h_l) + F(h_L, y) - F(h_L^-, y^-) - \sum_l \log q(h_l^- \mid h_{l-1}^-)
        - \lambda \log p(y \mid h_L)

    The states h are drawn on the way up from the data, the states :math:`h^-` on the way down from where chains of the
    machine are. Every conditional learns from draws of the opposite direction; where both ways have the same weights,
    both terms act on them. The label of a row without one is summed out. Flach, Shekhovtsov & Fikar 2017,
    arXiv:1709.08524, couple the ways; the objective is our reading of it.

    Parameters
    ----------
    telling : how labels are learned; None leaves them out.
    """

    telling: AbstractTelling | None = None

    def __call__(
        self, model: Any, batch: Row, negatives: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[Scalar, Metrics]:
        climb, fall = jr.split(key)
        down, data = averaged(lambda row, key: self.waking(model, row, key=key), batch, key=climb)
        chains = jax.tree.leaves(negatives)[0].shape[0]
        up = jnp.mean(jax.vmap(lambda x, k: self.dreaming(model, x, key=k))(negatives, jr.split(fall, chains)))
        contrast = data - jnp.mean(jax.vmap(model.top.energy)(negatives))
        label = jnp.zeros(()) if self.telling is None else self._told(model, batch, self.telling)
        return down + contrast + up + label, {"wake": down, "contrast": contrast, "sleep": up, "label": label}

    def waking(self, model: Any, row: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Scalar]:
        """What the way down lowers for one row, and the energy of its topmost states."""
        *z, last = stop_gradient(model).posterior(row).sample(key=key)[0]
        z = (*z, model.top.told(last, row))
        states = (model.entered(row), *z)
        down = _summed(-layer.down(h).log_prob(x) for layer, x, h in zip(model.layers, states, z, strict=False))
        return down, model.top.row_energy(z[-1], row)

    def dreaming(self, model: Any, position: PyTree[Array], *, key: PRNGKeyArray) -> Scalar:
        """What the way up lowers for one chain."""
        h = model.top.shown(position)
        z, x = stop_gradient(model).descended(h, key=key)
        states = (x, *z)
        return _summed(-layer.up(x).log_prob(h) for layer, x, h in zip(model.layers, states, z, strict=False))

    def _told(self, model: Any, batch: Row, telling: AbstractTelling) -> Scalar:
        known = weights(batch) * _known(batch)
        losses = jax.vmap(lambda row: telling(model, row))(batch)
        return telling.weight * (known @ losses) / jnp.maximum(jnp.sum(known), jnp.finfo(known.dtype).tiny)


def _untold(logits: Float[Array, " classes"], row: Row) -> Scalar:
    return -jax.nn.log_softmax(logits)[jnp.maximum(row.y, 0)]


def _known(batch: Row) -> Array:
    rows = weights(batch).shape[0]
    return jnp.ones(rows, bool) if batch.y_mask is None else batch.y_mask


def _summed(terms: Any) -> Scalar:
    return sum(terms, jnp.zeros(()))
