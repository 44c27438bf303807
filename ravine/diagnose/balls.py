"""Balls around a row: how far it may be moved, and which way leads uphill fastest."""

from __future__ import annotations

import abc
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import Scalar

HALVINGS = 60  # of the interval that holds by how much a move is to be shortened

Move = Float[Array, " cells"]


class Box(NamedTuple):
    """The moves that leave every cell in its range; no move is one of them."""

    low: Move
    high: Move

    def clip(self, move: Move) -> Move:
        """The nearest move that does."""
        return jnp.clip(move, self.low, self.high)


class AbstractBall(eqx.Module):
    """All moves of at most some length. A subclass is a norm.

    Attributes
    ----------
    name : class variable; what the norm is called.
    """

    name: eqx.AbstractClassVar[str]

    @abc.abstractmethod
    def norm(self, move: Move) -> Scalar:
        """The length of a move."""

    @abc.abstractmethod
    def steepest(self, slope: Move) -> Move:
        """The move of length 1 along which a function with this slope rises fastest; none where it is level."""

    @abc.abstractmethod
    def project(self, move: Move, radius: float | Scalar, box: Box) -> Move:
        """The move of at most this length, and in the box, that is nearest in the Euclidean sense."""

    @abc.abstractmethod
    def draw(self, like: Move, *, key: PRNGKeyArray) -> Move:
        """A move that is uniform in the ball of radius 1."""


class Linf(AbstractBall):
    """The largest change of a cell.

    Examples
    --------
    >>> Linf().project(jnp.array([3.0, -0.5]), 1.0, Box(jnp.full(2, -9.0), jnp.full(2, 9.0))).tolist()
    [1.0, -0.5]
    """

    name: ClassVar[str] = "linf"

    def norm(self, move: Move) -> Scalar:
        return jnp.max(jnp.abs(move))

    def steepest(self, slope: Move) -> Move:
        return jnp.sign(slope)

    def project(self, move: Move, radius: float | Scalar, box: Box) -> Move:
        return box.clip(jnp.clip(move, -radius, radius))

    def draw(self, like: Move, *, key: PRNGKeyArray) -> Move:
        return jr.uniform(key, like.shape, like.dtype, -1, 1)


class L2(AbstractBall):
    r"""The Euclidean length of a move.

    The nearest move in a ball and a box is the one that is shortened, then clipped,
    :math:`\mathrm{clip}(t\, d)` with the largest :math:`t \le 1` for which it is in the ball.

    Examples
    --------
    >>> [round(float(cell), 4) for cell in L2().project(jnp.array([3.0, 4.0]), 1.0, Box(-jnp.ones(2), jnp.ones(2)))]
    [0.6, 0.8]
    """

    name: ClassVar[str] = "l2"

    def norm(self, move: Move) -> Scalar:
        return jnp.linalg.norm(move)

    def steepest(self, slope: Move) -> Move:
        largest = jnp.max(jnp.abs(slope))  # first: squares of small numbers would be 0
        even = slope / jnp.where(largest > 0, largest, 1)
        return even / jnp.where(largest > 0, jnp.linalg.norm(even), 1)

    def project(self, move: Move, radius: float | Scalar, box: Box) -> Move:
        whole = box.clip(move)

        def halved(_: Array, ends: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
            middle = 0.5 * (ends[0] + ends[1])
            fits = self.norm(box.clip(middle * move)) <= radius
            return jnp.where(fits, middle, ends[0]), jnp.where(fits, ends[1], middle)

        none, all_ = jnp.zeros((), move.dtype), jnp.ones((), move.dtype)
        share = jax.lax.fori_loop(0, HALVINGS, halved, (none, all_))[0]
        return jnp.where(self.norm(whole) <= radius, whole, box.clip(share * move))

    def draw(self, like: Move, *, key: PRNGKeyArray) -> Move:
        way, far = jr.split(key)
        return self.steepest(jr.normal(way, like.shape, like.dtype)) * jr.uniform(far) ** (1 / like.size)
