r"""Score matching: the slope of the log-density is fitted, which no partition function changes.

With :math:`\psi = -\nabla E`, the score of the model, and the Fisher divergence to the law of the data,

.. math:: \tfrac12 E |\psi - \nabla \log p|^2 = E[\operatorname{tr} \nabla \psi + \tfrac12 |\psi|^2] + \text{constant}

Hyvarinen 2005, JMLR 6, 695-709 (explicit); Vincent 2011, *A connection between score matching and denoising
autoencoders*; Song, Garg, Shi & Ermon 2019, arXiv:1905.07088 (sliced). All of them need cells that are real, and say
nothing of how much mass lies in modes that are far apart.

Cells that a row does not hold are drawn given the others before, by ``fill`` steps of the model's kernel, and are not
differentiated: Uehara, Matsuda & Kim 2020, arXiv:1903.03630.
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._tree import AbstractSchedule, number
from ravine.core import AbstractEnergy, Metrics, Row, Scalar, averaged, rows_in, walk

Point = Float[Array, "..."]
Number = float | AbstractSchedule | Array


def score(model: AbstractEnergy, x: Point) -> Point:
    r"""The slope of the log-density, :math:`\psi(x) = -\nabla E(x)`."""
    return -jax.grad(model.energy)(x)


def denoised(model: AbstractEnergy, x: Point, noise: Number) -> Point:
    r"""The mean of what a noisy row was, :math:`x + \sigma^2 \psi(x)`, by a model of noisy rows.

    Robbins 1956; what a denoising autoencoder learns. ``noise`` is the standard deviation :math:`\sigma`.
    """
    return x + number(noise) ** 2 * score(model, x)


class ScoreMatching(eqx.Module):
    r"""Explicit: :math:`E[\tfrac12 |\psi(x)|^2 + \operatorname{tr} \nabla \psi(x)]`. Hyvarinen 2005, theorem 1.

    The trace takes one derivative for each cell: for rows of few cells.

    Parameters
    ----------
    fill : steps that draw what a row does not hold.
    """

    fill: int = eqx.field(static=True, default=10)

    def __call__(self, model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        rows = filled(model, batch, self.fill, key=key)
        return averaged(lambda row, key: self.loss(model, row.x), rows, key=key), {}

    def loss(self, model: AbstractEnergy, x: Point) -> Scalar:
        """The loss of one position."""
        slope = lambda v: score(model, v.reshape(x.shape)).ravel()  # noqa: E731
        turns = jax.vmap(lambda e: jax.jvp(slope, (x.ravel(),), (e,))[1])(jnp.eye(x.size, dtype=x.dtype))
        return 0.5 * jnp.sum(slope(x.ravel()) ** 2) + jnp.trace(turns)


class SlicedScoreMatching(eqx.Module):
    r"""The trace along random directions of signs, :math:`E_v[v^\top \nabla \psi(x) v]`: two derivatives at any width.

    Unbiased for `ScoreMatching`; Song et al. 2019, equation 8, with the square of the score in full.

    Parameters
    ----------
    slices : directions for each row.
    fill : steps that draw what a row does not hold.
    """

    slices: int = eqx.field(static=True, default=1)
    fill: int = eqx.field(static=True, default=10)

    def __call__(self, model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        first, second = jr.split(key)
        rows = filled(model, batch, self.fill, key=first)
        return averaged(lambda row, key: self.loss(model, row.x, key=key), rows, key=second), {}

    def loss(self, model: AbstractEnergy, x: Point, *, key: PRNGKeyArray) -> Scalar:
        """An estimate of the loss of one position."""

        def along(key: PRNGKeyArray) -> tuple[Scalar, Scalar]:
            v = jr.rademacher(key, x.shape, x.dtype)
            slope, turn = jax.jvp(lambda x: score(model, x), (x,), (v,))
            return 0.5 * jnp.sum(slope**2), jnp.sum(v * turn)

        half, trace = jax.vmap(along)(jr.split(key, self.slices))
        return jnp.mean(half + trace)


class DenoisingScoreMatching(eqx.Module):
    r"""The score of noisy rows, :math:`\tfrac12 E |\sigma \psi(x + \sigma \epsilon) + \epsilon|^2`. Vincent 2011.

    The least loss is at the law of the data with the noise added, not at that of the data: it is as much too wide. The
    square of the deviation is multiplied in, so that the loss is of the order of the number of cells.

    Parameters
    ----------
    noise : standard deviation :math:`\sigma` of the noise in the units that the model sees; a number or a schedule.
    fill : steps that draw what a row does not hold.
    """

    noise: Number = 0.1
    fill: int = eqx.field(static=True, default=10)

    def __call__(self, model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        first, second = jr.split(key)
        rows = filled(model, batch, self.fill, key=first)
        return averaged(lambda row, key: self.loss(model, row.x, key=key), rows, key=second), {}

    def loss(self, model: AbstractEnergy, x: Point, *, key: PRNGKeyArray) -> Scalar:
        """An estimate of the loss of one position."""
        sigma, shock = number(self.noise), jr.normal(key, x.shape, x.dtype)
        return 0.5 * jnp.sum((sigma * score(model, x + sigma * shock) + shock) ** 2)


def filled(model: AbstractEnergy, batch: Row, steps: int, *, key: PRNGKeyArray) -> Row:
    """The batch with whole positions in place of rows: what a row does not hold is drawn, and is no parameter."""
    rows = jax.vmap(model.lifted)(batch)
    if rows.mask is None:
        return rows

    def one(row: Row, key: PRNGKeyArray) -> PyTree[Array]:
        begin, go = jr.split(key)
        return walk(model.kernel(row), row.clamp(model.start(key=begin)), steps, key=go)

    made = jax.lax.stop_gradient(jax.vmap(one)(rows, jr.split(key, rows_in(batch))))
    return dataclasses.replace(rows, x=made, mask=None)
