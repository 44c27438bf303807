"""Energies that are nets, of rows or of rows and answers, on top of a Gaussian that makes them normalisable.

LeCun et al. 2006; Du & Mordatch 2019, arXiv:1903.08689; Grathwohl et al. 2020, arXiv:1912.03263.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Self, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._tree import Fixed
from ravine.core import AbstractEnergy, AbstractKernel, Row, Scalar
from ravine.dist import OneHot
from ravine.models.moves import AbstractMoves, HamiltonianMoves
from ravine.posteriors import OneNode

Point = Float[Array, "..."]


class AbstractNetEnergy(AbstractEnergy):
    r"""What a net adds to the energy of a Gaussian.

    .. math:: E(x) = \tfrac12 |(x - m) / s|^2 + f(x) + c

    It has a partition function where f falls more slowly than the square grows: by bounded activations, or by those
    that grow as their input does, such as softplus and silu. Along the path f and c grow with beta.

    Parameters
    ----------
    net : from the cells of a row to numbers.
    base : the Gaussian; no rule moves it.
    offset : c; after noise-contrastive estimation the log partition function of what is without it.
    moves : the kernel.
    strength : how far along the path.
    sweeps : how many steps of the kernel make a draw.
    """

    net: Callable[[Point], Array]
    base: Fixed
    offset: Scalar
    moves: AbstractMoves = HamiltonianMoves()
    strength: Fixed = Fixed(1.0)
    sweeps: int = eqx.field(static=True, default=200, kw_only=True)

    @abc.abstractmethod
    def surplus(self, x: Point) -> Scalar:
        """What the net adds."""

    def energy(self, position: Point) -> Scalar:
        alone = jnp.sum(self._base_energy(position))
        return alone + self.strength.value * (self.surplus(position) + self.offset)

    def lifted(self, row: Row) -> Row:
        return row

    def shown(self, position: Point) -> Point:
        return position

    def kernel(self, row: Row | None = None) -> AbstractKernel:
        return self.moves(self, row)

    def at(self, beta: Scalar) -> Self:
        return dataclasses.replace(self, strength=Fixed(beta * self.strength.value))

    def start(self, *, key: PRNGKeyArray) -> Point:
        return self.base.value.sample(key=key)

    def log_start(self, row: Row | None = None) -> Scalar:
        free = jnp.log(self.base.value.scale) + 0.5 * math.log(2 * math.pi)
        if row is None:
            return jnp.sum(free)
        seen = jnp.ones(free.shape, bool) if row.mask is None else row.mask
        return jnp.sum(jnp.where(seen, -self._base_energy(row.x), free))

    def completed(self, row: Row) -> Point:
        """The cells of a row; the missing ones at the mean of the base."""
        return row.clamp(self.base.value.location)

    def _base_energy(self, x: Point) -> Point:
        return 0.5 * ((x - self.base.value.location) / self.base.value.scale) ** 2


class EnergyNet(AbstractNetEnergy):
    """A net with one number out on top of a Gaussian: any density of real cells, up to its partition function.

    Examples
    --------
    >>> from ravine.dist import Gaussian
    >>> base = Fixed(Gaussian(jnp.zeros(2), jnp.ones(2)))
    >>> model = EnergyNet(lambda x: 0.5 * jnp.sum(x**2), base, jnp.array(0.0))
    >>> float(model.energy(jnp.ones(2))), round(float(model.log_start()), 4)
    (2.0, 1.8379)
    """

    def surplus(self, x: Point) -> Scalar:
        return jnp.reshape(self.net(x), ())


class AnswerNet(AbstractNetEnergy):
    r"""A net with an energy for each answer: a classifier, and the density of rows when the answer is summed out.

    .. math:: p(y \mid x) \propto e^{-f_y(x)}, \qquad f(x) = -\log \sum_y e^{-f_y(x)}

    f and the energy are free energies: the higher they are, the less a row is like those that were learned. Grathwohl
    et al. 2020, arXiv:1912.03263; Liu, Wang, Owens & Li 2020, arXiv:2010.03759, for the score of odd rows.

    Examples
    --------
    >>> from ravine.dist import Gaussian
    >>> base = Fixed(Gaussian(jnp.zeros(1), jnp.ones(1)))
    >>> model = AnswerNet(lambda x: jnp.stack([-x[0], x[0]]), base, jnp.array(0.0))
    >>> [round(float(share), 3) for share in model.posterior(Row(jnp.array([1.0]))).mean()]
    [0.881, 0.119]
    """

    def surplus(self, x: Point) -> Scalar:
        return -jax.nn.logsumexp(-self.net(x))

    def answers(self, row: Row) -> Float[Array, " answers"]:
        """The energy of each answer, without what all of them share; missing cells at the mean of the base."""
        return self.net(self.completed(row))

    def posterior(self, row: Row) -> OneNode:
        """p(y | x), exact; missing cells at the mean of the base."""
        return OneNode(OneHot(-self.answers(row)))


def landscape(
    model: AbstractEnergy, low: tuple[float, float], high: tuple[float, float], n: int = 100
) -> Float[Array, "n n"]:
    """The energy of a model of two cells on a grid between two corners; the first cell turns slowest.

    Examples
    --------
    >>> from ravine.dist import Gaussian
    >>> base = Fixed(Gaussian(jnp.zeros(2), jnp.ones(2)))
    >>> landscape(EnergyNet(jnp.sum, base, jnp.array(0.0)), (0.0, 0.0), (1.0, 1.0), 2).tolist()
    [[0.0, 1.5], [1.5, 3.0]]
    """
    sides = [jnp.linspace(a, b, n) for a, b in zip(low, high, strict=True)]
    points = jnp.stack(jnp.meshgrid(*sides, indexing="ij"), axis=-1)
    return jax.lax.map(jax.vmap(cast(Callable[[PyTree], Scalar], model.energy)), points)
