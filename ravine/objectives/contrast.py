"""What is lowered by learning from contrasts: the energy of data, against that of negatives."""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._check import require
from ravine._tree import Part
from ravine.core import AbstractEnergy, Metrics, Row, Scalar, walk


@runtime_checkable
class ContrastObjective(Protocol):
    """A loss of a batch of positions and of positions to tell them from; memoryless."""

    def __call__(
        self, model: AbstractEnergy, batch: Row, negatives: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[Scalar, Metrics]:
        """The loss to lower, and metrics; ``batch.x`` are positions."""
        ...


class Contrast(eqx.Module):
    r"""Mean energy of the data less that of the negatives.

    Where the negatives are draws of the model, its slope is minus that of the mean log-likelihood:

    .. math:: -\nabla \log p(x) = \nabla E(x) - E_{x' \sim p}[\nabla E(x')]

    Parameters
    ----------
    decay : half of the weight of the sum of squares of the parameters in ``of``.
    of : what decays.
    """

    decay: float = 0.0
    of: Part = eqx.field(static=True, default=Part("coupling"))

    def __call__(
        self, model: AbstractEnergy, batch: Row, negatives: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[Scalar, Metrics]:
        data, other = _mean_energy(model, batch), jnp.mean(jax.vmap(model.energy)(negatives))
        leaves = jax.tree.leaves(eqx.filter(self.of.get(model), eqx.is_inexact_array))
        penalty = 0.5 * self.decay * sum((jnp.sum(leaf**2) for leaf in leaves), jnp.array(0.0))
        return data - other + penalty, {"energy_data": data, "energy_model": other}


def _mean_energy(model: AbstractEnergy, batch: Row) -> Scalar:
    return _mean(jax.vmap(model.energy)(batch.x), batch)


def _mean(value: Float[Array, " n"], batch: Row) -> Scalar:
    if batch.weight is None:
        return jnp.mean(value)
    return batch.weight @ value / jnp.maximum(jnp.sum(batch.weight), jnp.finfo(value.dtype).tiny)


@runtime_checkable
class Summing(Protocol):
    """An energy that sums over what a row does not hold."""

    def log_unnormalised(self, row: Row) -> Scalar:
        """log of the sum of exp(-energy) over what a row that was `lifted` does not hold."""
        ...


class ExactLikelihood(eqx.Module):
    """Minus the mean log-likelihood, in nats, with the partition function by listing all states: for small models.

    What a row does not hold, such as missing cells, is summed over.

    Raises
    ------
    ValueError
        When rows hold no whole position, and the model has no list of what completes them.
    """

    def __call__(self, model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        rows = jax.vmap(model.lifted)(batch)
        loss = self._data(model, rows) + model.log_partition()  # pyright: ignore[reportAttributeAccessIssue]
        return loss, {"log_likelihood": -loss}

    def _data(self, model: AbstractEnergy, rows: Row) -> Scalar:
        """Mean free energy of the rows."""
        if rows.mask is None:
            return _mean_energy(model, rows)
        do = "learn by Contrastive, which draws the rest"
        require(isinstance(model, Summing), "ExactLikelihood", "rows that hold whole positions", "parts of them", do)
        return -_mean(jax.vmap(cast(Summing, model).log_unnormalised)(rows), rows)


class PseudoLikelihood(eqx.Module):
    r"""Minus a pseudo-log-likelihood, :math:`\sum_i \log p(x_i \mid x_{-i})`: of no partition function, no likelihood.

    Besag 1975. For a model of cells with finitely many values each. The sum is over ``cells`` cells of each row that
    are drawn anew each time, and scaled up to all of them; ``cells=None`` takes every one. Missing cells are drawn
    first, given the others, by 10 sweeps, and have no part in the sum.

    Parameters
    ----------
    cells : how many cells of each row.
    """

    cells: int | None = eqx.field(static=True, default=None)

    def __call__(self, model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        rows = jax.vmap(model.lifted)(batch)
        keys = jax.random.split(key, jax.tree.leaves(rows.x)[0].shape[0])
        mean = _mean(jax.vmap(lambda row, k: self._of(model, row, k))(rows, keys), batch)
        return -mean, {"pseudo_log_likelihood": mean}

    def _of(self, model: AbstractEnergy, row: Row, key: PRNGKeyArray) -> Scalar:
        """Of one row, which was lifted."""
        if row.mask is None:
            return pseudo_log_likelihood(model, row.x, self.cells, key=key)
        begin, go, choose = jax.random.split(key, 3)
        filled = walk(model.kernel(row), row.clamp(model.start(key=begin)), 10, key=go)
        return pseudo_log_likelihood(model, filled, self.cells, row.mask, key=choose)


@runtime_checkable
class Alternatives(Protocol):
    """An energy whose position is an array of cells with the same few values each."""

    def values(self) -> Float[Array, " values"]:
        """What a cell may hold."""
        ...


def pseudo_log_likelihood(
    model: AbstractEnergy, x: Array, cells: int | None = None, mask: Array | None = None, *, key: PRNGKeyArray
) -> Scalar:
    """The sum of log p(cell | all other cells) over the observed cells, in nats, or an estimate from so many cells."""
    count = x.size if cells is None else min(cells, x.size)
    places = jnp.arange(x.size) if cells is None else jax.random.permutation(key, x.size)[:count]
    if not isinstance(model, Alternatives):
        raise TypeError(f"{type(model).__name__} has no list of what a cell may hold.")
    values, here = model.values(), model.energy(x)

    def one(i: Array) -> Scalar:
        others = jax.vmap(lambda value: model.energy(x.ravel().at[i].set(value).reshape(x.shape)))(values)
        return -here - jax.nn.logsumexp(-others)

    counted = jnp.ones(x.size) if mask is None else mask.ravel().astype(here.dtype)
    return x.size / count * jnp.sum(counted[places] * jax.vmap(one)(places))
