r"""Giving cells back: plainly, from a corrupted copy, or with units that hardly move when the cells do.

.. math:: \sum_i \ell(\hat x_i(\tilde x), x_i), \quad \tilde x \sim q(\tilde x \mid x)

What is wanted is always the clean x. Vincent, Larochelle, Lajoie, Bengio & Manzagol 2010, *Stacked denoising
autoencoders*; Rifai, Vincent, Muller, Glorot & Bengio 2011, *Contractive auto-encoders: explicit invariance during
feature extraction*. Cells that a row does not hold go in as 0, and cost nothing.
"""

from __future__ import annotations

import abc
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ravine._tree import AbstractSchedule, number
from ravine.core import Metrics, Objective, Row, Scalar, averaged, rows_in

Number = float | AbstractSchedule | Array
Cells = Float[Array, " cells"]
Hit = Bool[Array, " cells"]


@runtime_checkable
class Reconstructing(Protocol):
    """A layer that gives cells back."""

    def losses(self, seen: Cells, x: Cells) -> Cells:
        """What each cell costs when ``seen`` goes in and ``x`` is wanted."""
        ...


@runtime_checkable
class Contracting(Reconstructing, Protocol):
    """A layer that gives cells back, and knows how much its units move with them."""

    def contraction(self, x: Cells) -> Scalar:
        """The sum of the squared derivatives of all units in all cells."""
        ...


@runtime_checkable
class Stack(Protocol):
    """Layers, each of which gives back what the layers below make of a row."""

    def machine(self, i: int) -> Any:
        """Layer i."""
        ...

    def presented(self, row: Row, i: int) -> Row:
        """What layer i is to give back."""
        ...

    def spoilt(self, row: Row, corruption: Any, *, key: PRNGKeyArray) -> Row:
        """The row with its cells spoilt."""
        ...


class AbstractCorruption(eqx.Module):
    """How cells are spoilt."""

    @abc.abstractmethod
    def __call__(self, x: Cells, *, key: PRNGKeyArray) -> tuple[Cells, Hit]:
        """The spoilt cells, and which of them were chosen to be spoilt."""


class Masking(AbstractCorruption):
    """Each cell is 0 with probability ``nu``.

    Examples
    --------
    >>> Masking(1.0)(jnp.ones(2), key=jr.key(0))[0].tolist()
    [0.0, 0.0]
    """

    nu: Number = 0.25

    def __call__(self, x: Cells, *, key: PRNGKeyArray) -> tuple[Cells, Hit]:
        hit = _chosen(x, self.nu, key)
        return jnp.where(hit, 0, x), hit


class SaltAndPepper(AbstractCorruption):
    """Each cell is ``low`` or ``high``, by a fair coin, with probability ``nu``.

    Examples
    --------
    >>> sorted(set(SaltAndPepper(1.0)(jnp.full(20, 0.5), key=jr.key(0))[0].tolist()))
    [0.0, 1.0]
    """

    nu: Number = 0.25
    low: float = eqx.field(static=True, default=0.0)
    high: float = eqx.field(static=True, default=1.0)

    def __call__(self, x: Cells, *, key: PRNGKeyArray) -> tuple[Cells, Hit]:
        choice, coin = jr.split(key)
        hit = _chosen(x, self.nu, choice)
        return jnp.where(hit, jnp.where(jr.bernoulli(coin, 0.5, x.shape), self.high, self.low), x), hit


class GaussianNoise(AbstractCorruption):
    """Every cell is off by a draw of N(0, ``sd`` squared), in the units that the model sees.

    Examples
    --------
    >>> GaussianNoise(0.0)(jnp.ones(2), key=jr.key(0))[0].tolist()
    [1.0, 1.0]
    """

    sd: Number = 0.3

    def __call__(self, x: Cells, *, key: PRNGKeyArray) -> tuple[Cells, Hit]:
        return x + number(self.sd) * jr.normal(key, x.shape, x.dtype), jnp.ones(x.shape, bool)


class Emphasis(eqx.Module):
    """How much the cells count that were spoilt, and how much the others: alpha and beta of Vincent et al. 2010.

    ``Emphasis(1.0, 0.0)`` asks for the spoilt cells alone.
    """

    spoilt: float = 1.0
    others: float = 1.0


class Reconstruction(eqx.Module):
    """The plain autoencoder: cells are given back from themselves, in nats for each row."""

    def __call__(self, model: Reconstructing, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        return averaged(lambda row, key: self.loss(model, row), batch, key=key), {}

    def loss(self, model: Reconstructing, row: Row) -> Scalar:
        """The loss of one row."""
        return _held(model.losses(row.x, row.x), row)


class Denoising(eqx.Module):
    """Cells are given back from a spoilt copy, in nats for each row.

    Parameters
    ----------
    corruption : ``Masking(0.25)``, ``SaltAndPepper(0.25)`` or ``GaussianNoise(0.3)``; with a share of 0 this is
        `Reconstruction`.
    emphasis : how much the spoilt cells count, and the others.
    """

    corruption: AbstractCorruption = Masking()
    emphasis: Emphasis = Emphasis()

    def __call__(self, model: Reconstructing, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        return averaged(lambda row, key: self.loss(model, row, key=key), batch, key=key), {}

    def loss(self, model: Reconstructing, row: Row, *, key: PRNGKeyArray) -> Scalar:
        """The loss of one row and one spoilt copy of it."""
        seen, hit = self.corruption(row.x, key=key)
        seen = seen if row.mask is None else jnp.where(row.mask, seen, 0)
        share = jnp.where(hit, self.emphasis.spoilt, self.emphasis.others).astype(row.x.dtype)
        return _held(share * model.losses(seen, row.x), row)


class Contractive(eqx.Module):
    r"""Cells are given back, and the units are kept from moving with them.

    .. math:: \sum_i \ell(\hat x_i(x), x_i) + \lambda \lVert J_f(x) \rVert_F^2

    Metrics are ``contraction``, the squared norm of the Jacobian.

    Parameters
    ----------
    weight : :math:`\lambda`.
    """

    weight: Number = 0.1

    def __call__(self, model: Contracting, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        return averaged(lambda row, key: self.loss(model, row), batch, key=key)

    def loss(self, model: Contracting, row: Row) -> tuple[Scalar, Metrics]:
        """The loss of one row, and its penalty."""
        penalty = model.contraction(row.x)
        return Reconstruction().loss(model, row) + number(self.weight) * penalty, {"contraction": penalty}


class OfLayer(eqx.Module):
    """An objective of layer ``i`` of a stack, which is to give back the clean codes of the layers below.

    To be lowered ``on=Layer(i)``: nothing else is then differentiated, or moves.
    """

    i: int = eqx.field(static=True)
    objective: Objective

    def __call__(self, model: Stack, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        seen = jax.vmap(lambda row: model.presented(row, self.i))(batch)
        return self.objective(model.machine(self.i), seen, key=key)


class FromSpoilt(eqx.Module):
    """Another objective of a stack, such as `Discriminative`, where every row is spoilt anew before it is seen.

    Parameters
    ----------
    objective : of the spoilt rows, with the labels of the clean ones.
    corruption : of cells as the lowest layer sees them; None leaves the other objective as it is.
    """

    objective: Objective
    corruption: AbstractCorruption | None = Masking()

    def __call__(self, model: Stack, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        if self.corruption is None:
            return self.objective(model, batch, key=key)
        spoil, go = jr.split(key)
        each = jr.split(spoil, rows_in(batch))
        seen = jax.vmap(lambda row, key: model.spoilt(row, self.corruption, key=key))(batch, each)
        return self.objective(model, seen, key=go)


def _chosen(x: Cells, share: Number, key: PRNGKeyArray) -> Hit:
    return jr.uniform(key, x.shape, x.dtype) < number(share)


def _held(losses: Cells, row: Row) -> Scalar:
    """The sum over the cells that a row holds."""
    return jnp.sum(losses if row.mask is None else jnp.where(row.mask, losses, 0))
