"""Up-down: the fine-tuning of deep belief nets. Hinton, Osindero & Teh 2006, section 5 and appendix B."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from ravine.core import AbstractEnergy, Metrics, Row, Scalar, averaged, walk


@runtime_checkable
class TwoWays(Protocol):
    """A net with a way up and a way down, and an energy on top."""

    layers: tuple[Any, ...]
    top: AbstractEnergy

    def entered(self, row: Row) -> Array:
        """What the way up begins with."""
        ...


class UpDown(eqx.Module):
    r"""Contrastive wake-sleep.

    Wake: states drawn on the way up, from which the way down learns to give back each layer. On top: a contrast of the
    topmost states, and the label, with those after ``sweeps`` Gibbs sweeps. Sleep: from there a way down, from whose
    states the way up learns. Its slope is the sum of the three; no way learns from itself.

    .. math::
        -\sum_l \log p(h_{l-1} \mid h_l) + c \, [F(h_L) - F(h_L^-)] - \sum_l \log q(h_l^- \mid h_{l-1}^-)

    Parameters
    ----------
    sweeps : of the machine on top, between what the way up gives and what the way down begins with.
    haste : c; the machine on top, of which the other terms know nothing, learns so much faster than the layers.
    """

    sweeps: int = eqx.field(static=True, default=3)
    haste: float = eqx.field(static=True, default=1.0)

    def __call__(self, model: TwoWays, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        return averaged(lambda row, key: self.loss(model, row, key=key), batch, key=key)

    def loss(self, model: TwoWays, row: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        """The loss of one row, and its parts."""
        still, (climb, chain, fall) = jax.lax.stop_gradient(model), jr.split(key, 3)
        wake = self._climbed(still, row, climb)
        here = Row(wake[-1], y=row.y, y_mask=row.y_mask)
        known = still.top.lifted(here)
        begin, go = jr.split(chain)
        first = known.x if known.mask is None else known.clamp(walk(still.top.kernel(known), known.x, 1, key=begin))
        last = walk(still.top.kernel(), first, self.sweeps, key=go)
        sleep = self._fallen(still, still.top.shown(last), fall)
        down = [-layer.down(h).log_prob(x) for layer, x, h in zip(model.layers, wake[:-1], wake[1:], strict=True)]
        up = [-layer.up(x).log_prob(h) for layer, x, h in zip(model.layers, sleep[:-1], sleep[1:], strict=True)]
        contrast = model.top.energy(first) - model.top.energy(last)
        parts = {"wake": sum(down, jnp.array(0.0)), "contrast": contrast, "sleep": sum(up, jnp.array(0.0))}
        return parts["wake"] + self.haste * contrast + parts["sleep"], parts

    def _climbed(self, model: TwoWays, row: Row, key: PRNGKeyArray) -> list[Array]:
        states = [model.entered(row)]
        for layer, k in zip(model.layers, jr.split(key, len(model.layers)), strict=True):
            states.append(layer.up(states[-1]).sample(key=k))
        return states

    def _fallen(self, model: TwoWays, h: Array, key: PRNGKeyArray) -> list[Array]:
        """States from the top down, the lowest first; the cells are means, as in the paper."""
        states = [h]
        for layer, k in zip(reversed(model.layers[1:]), jr.split(key, len(model.layers)), strict=False):
            states.append(layer.down(states[-1]).sample(key=k))
        states.append(model.layers[0].down(states[-1]).mean())
        return states[::-1]
