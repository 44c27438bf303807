"""Unnormalised laws, and the chains that draw from them."""

from __future__ import annotations

import abc
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ravine.core.laws import Latent
from ravine.core.row import Metrics, Row, Scalar


class AbstractKernel(eqx.Module):
    """A Markov kernel: one step of a chain that leaves a law as it is. Its memory is its state."""

    @abc.abstractmethod
    def init(self, position: PyTree[Array], *, key: PRNGKeyArray) -> PyTree:
        """The state of a chain that starts at a position."""

    @abc.abstractmethod
    def step(self, state: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Metrics]:
        """The next state, and what may be worth seeing, such as whether a proposal was accepted."""

    @abc.abstractmethod
    def position(self, state: PyTree) -> PyTree[Array]:
        """Where the chain is."""


class AbstractEnergy(eqx.Module):
    """An unnormalised law, p(position) proportional to exp(-energy(position)), and a path to it from independent cells.

    A position is what a chain moves over: the cells of a row, and whatever else is not summed out.

    Attributes
    ----------
    sweeps : how many steps of its kernel make a draw.
    """

    sweeps: eqx.AbstractVar[int]

    @abc.abstractmethod
    def energy(self, position: PyTree[Array]) -> Scalar:
        """Minus the log of the unnormalised density of a position."""

    @abc.abstractmethod
    def lifted(self, row: Row) -> Row:
        """The row with a position as ``x``; its mask is True where the row holds a cell, None where it holds all."""

    @abc.abstractmethod
    def shown(self, position: PyTree[Array]) -> PyTree[Array]:
        """The cells of a row at a position."""

    @abc.abstractmethod
    def kernel(self, row: Row | None = None) -> AbstractKernel:
        """A kernel that leaves the law as it is; given a row that was `lifted`, that of the cells it does not hold."""

    @abc.abstractmethod
    def at(self, beta: Scalar) -> Self:
        """The energy part of the way: at 0 that of independent cells, at 1 itself."""

    @abc.abstractmethod
    def start(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        """A draw of the law at 0."""

    @abc.abstractmethod
    def log_start(self, row: Row | None = None) -> Scalar:
        """log of the sum of exp(-energy) at 0, over the cells that a row that was `lifted` does not hold."""

    def sample(self, context: PyTree = None, *, key: PRNGKeyArray) -> tuple[Latent, PyTree[Array]]:
        """A position after ``sweeps`` steps, in the first half of which the energy is reached, and the row it shows."""
        position = self.settled(None, key=key)
        return position, self.shown(position)

    def settled(self, row: Row | None, *, key: PRNGKeyArray) -> PyTree[Array]:
        """Where a chain is after ``sweeps`` steps, given a row that was `lifted`."""
        begin, rise, go = jr.split(key, 3)
        first, half = self.start(key=begin), max(self.sweeps // 2, 1)
        first = first if row is None else row.clamp(first)

        def warm(i: Int[Array, ""], position: PyTree) -> PyTree:
            kernel = self.at((i + 1) / jnp.asarray(half, float)).kernel(row)
            return walk(kernel, position, 1, key=jr.fold_in(rise, i))

        position = jax.lax.fori_loop(0, half, warm, first)
        return walk(self.kernel(row), position, self.sweeps - half, key=go)


def walk(kernel: AbstractKernel, position: PyTree[Array], steps: int, *, key: PRNGKeyArray) -> PyTree[Array]:
    """Where a chain is after so many steps."""
    begin, go = jr.split(key)
    state = kernel.init(position, key=begin)
    if steps == 1:
        return kernel.position(kernel.step(state, key=go)[0])
    dynamic, static = eqx.partition(state, eqx.is_array)

    def on(i: Int[Array, ""], dynamic: PyTree) -> PyTree:
        return eqx.filter(kernel.step(eqx.combine(dynamic, static), key=jr.fold_in(go, i))[0], eqx.is_array)

    return kernel.position(eqx.combine(jax.lax.fori_loop(0, steps, on, dynamic), static))
