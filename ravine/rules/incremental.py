"""Predictive coding in which the weights learn while the latents settle."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ravine._tree import resolve, trainable
from ravine.core import AbstractRule, Metrics, Row, weights
from ravine.rules.descend import Optimiser


class Incremental(AbstractRule):
    r"""Weights and latents go down one energy together, from where the latents start: a step of each at a time.

    .. math::
        z \leftarrow z - \eta\, \partial F / \partial z, \qquad
        W \leftarrow W - \text{update}(\partial F / \partial W)

    both at the same state. Nothing waits for an end of settling, and each step of the rule makes ``steps`` steps of the
    optimiser. Salvatori, Song, Yordanov, Millidge et al. 2024, *A stable, fast, and fully automatic learning algorithm
    for predictive coding networks*, arXiv:2212.00720.

    Metrics are ``energy`` at the last of the steps and ``gradient_norm`` there, in the weights.

    Parameters
    ----------
    steps : of settling, and of the optimiser, for each batch.
    rate : :math:`\eta`.
    optimiser : of the weights; a schedule counts batches.
    """

    steps: int = eqx.field(static=True, default=20)
    rate: float = eqx.field(static=True, default=0.1)
    optimiser: Optimiser = Optimiser()

    def init(self, model: PyTree, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        return self.optimiser.at(jnp.array(0)).init(trainable(model)[0])

    def step(
        self, model: PyTree, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, Metrics]:
        parameters, rest = trainable(model)
        optimiser, share = resolve(self.optimiser, step).at(step), _shares(batch)

        def energies(parameters: PyTree, z: PyTree) -> Array:
            one = eqx.combine(parameters, rest)
            return jax.vmap(lambda row, z: one.held(row).energy(z))(batch, z)

        def both(carry: PyTree, _: None) -> tuple[PyTree, Metrics]:
            parameters, state, z = carry
            found, pull = jax.vjp(energies, parameters, z)
            gradient, slope = pull(share)
            updates, state = optimiser.update(gradient, state, parameters)
            z = jax.tree.map(lambda own, slope: own - self.rate * _each(slope, share), z, slope)
            norm = optax.tree.norm(gradient)
            return (optax.apply_updates(parameters, updates), state, z), {
                "energy": share @ found,
                "gradient_norm": norm,
            }

        start = jax.vmap(lambda row: model.held(row).start)(batch)
        (parameters, state, _), metrics = jax.lax.scan(both, (parameters, state, start), None, self.steps)
        return eqx.combine(parameters, rest), state, jax.tree.map(lambda values: values[-1], metrics)


def _shares(batch: Row) -> Array:
    """What each row counts in the mean."""
    weight = weights(batch)
    return weight / jnp.maximum(jnp.sum(weight), jnp.finfo(weight.dtype).tiny)


def _each(slope: Any, share: Array) -> Array:
    """The slope of each row's own energy, from that of the mean; a row that does not count stays where it is."""
    share = share.reshape(-1, *(1,) * (slope.ndim - 1))
    return jnp.where(share > 0, slope / jnp.where(share > 0, share, 1), 0)
