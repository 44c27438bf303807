"""Bits that all act on each other: a Boltzmann machine. Ackley, Hinton & Sejnowski 1985.

Its mean field is that of Peterson & Anderson 1987; Jordan, Ghahramani, Jaakkola & Saul 1999, section 6.3, show that it
is a bound. The rules that take the data side of a contrast from it serve every energy with hidden units.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Protocol, Self, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.special import xlog1py, xlogy
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ravine._tree import Fixed, unfix
from ravine.core import AbstractEnergy, AbstractRule, Metrics, Row, Scalar, rows_in, walk
from ravine.dist import Bernoulli
from ravine.kernels import Gibbs
from ravine.models.unit_groups import log_sum, total
from ravine.models.units import BinaryUnits, wide
from ravine.posteriors import OneNode

Bits = Float[Array, " units"]
LISTED = 10  # bits of what is listed for every row


class Boltzmann(AbstractEnergy):
    r"""Bits of which each acts on each other one; the first ``visible`` of them are the cells of a row.

    .. math:: E(s) = -b^\top s - \tfrac12 s^\top J s, \quad J = J^\top, \ J_{ii} = 0

    A position holds all units. Along the path the couplings grow with beta, and the biases go from those of ``base``
    to their own.

    Parameters
    ----------
    units : all units with their biases.
    coupling : J above its diagonal, row by row.
    base : units on their own with the rates of the data: where annealing starts.
    visible : how many units are cells of a row.
    sweeps : how many Gibbs sweeps make a draw.

    Examples
    --------
    >>> units = BinaryUnits().sized((3,))
    >>> model = Boltzmann(units, jnp.zeros(3), Fixed(units), visible=2)
    >>> float(model.log_partition()), 3 * math.log(2)
    (2.079441547393799, 2.0794415416798357)
    """

    units: BinaryUnits
    coupling: Float[Array, " pairs"]
    base: Fixed | BinaryUnits
    visible: int = eqx.field(static=True)
    sweeps: int = eqx.field(static=True, default=200, kw_only=True)

    # --- the law

    def energy(self, position: Bits) -> Scalar:
        return total(self.units.energy(position)) - 0.5 * position @ self.matrix() @ position

    def matrix(self) -> Float[Array, "units units"]:
        """J."""
        upper = jnp.zeros((self.units.size,) * 2, self.coupling.dtype)
        upper = upper.at[np.triu_indices(self.units.size, 1)].set(self.coupling)
        return upper + upper.T

    def log_odds(self, position: Bits) -> Bits:
        """Of each unit to be 1, given the others."""
        return wide(self.units.bias, self.units.shape) + self.matrix() @ position

    def lifted(self, row: Row) -> Row:
        """The row with units for the hidden ones, which it does not hold; one that was lifted stays as it is."""
        if row.x.shape == self.units.shape:
            return row
        seen = jnp.ones(row.x.shape, bool) if row.mask is None else row.mask
        room = (0, self.units.size - self.visible)
        return dataclasses.replace(row, x=jnp.pad(row.x, room), mask=jnp.pad(seen, room))

    def shown(self, position: Bits) -> Float[Array, " visible"]:
        return position[: self.visible]

    # --- chains

    def kernel(self, row: Row | None = None) -> Gibbs:
        return Gibbs(self, row)

    def swept(self, position: Bits, row: Row | None, *, key: PRNGKeyArray) -> Bits:
        """Every unit given the others, one after the other, then the same in reverse: so the sweep is reversible."""
        luck = jr.uniform(key, (2 * self.units.size - 1,), position.dtype)
        return self.visited(position if row is None else row.clamp(position), self._held(row), luck)

    def visited(self, position: Bits, held: Bool[Array, " units"], luck: Float[Array, " visits"]) -> Bits:
        """The sweep, as a function of one number of 0 to 1 for each visit: a unit is 1 where it is below its odds."""
        there = np.arange(self.units.size)
        order = np.concatenate([there, there[-2::-1]])
        return self._in_turn(position, held, order, lambda i, p: (luck[i] < p).astype(p.dtype))

    def _in_turn(
        self, position: Bits, held: Bool[Array, " units"], order: np.ndarray, choose: Callable[[Array, Scalar], Scalar]
    ) -> Bits:
        """Every unit in order becomes what ``choose(visit, probability of 1)`` says; those that are held stay."""
        matrix = self.matrix()

        def one(state: tuple[Bits, Bits], at: tuple[Int[Array, ""], Int[Array, ""]]) -> tuple[tuple[Bits, Bits], None]:
            (s, odds), (visit, i) = state, at
            new = jnp.where(held[i], s[i], choose(visit, jax.nn.sigmoid(odds[i])))
            return (s.at[i].set(new), odds + matrix[i] * (new - s[i])), None

        start = (position, self.log_odds(position))
        return jax.lax.scan(one, start, (jnp.arange(len(order)), jnp.asarray(order)))[0][0]

    def at(self, beta: Scalar) -> Self:
        units = unfix(self.base).towards(self.units, beta)
        return dataclasses.replace(self, units=units, coupling=beta * self.coupling)

    def start(self, *, key: PRNGKeyArray) -> Bits:
        base = unfix(self.base)
        return base(base.still).sample(key=key)

    def log_start(self, row: Row | None = None) -> Scalar:
        base, held = unfix(self.base), self._held(row)
        x = base.still if row is None else row.x
        return jnp.sum(jnp.where(held, -base.energy(x), base.cumulant(base.still)))

    def _held(self, row: Row | None) -> Bool[Array, " units"]:
        if row is None or row.mask is None:
            return jnp.full(self.units.shape, row is not None)
        return row.mask

    # --- mean field

    def mean_field(self, row: Row | None = None, rounds: int = 50) -> Bits:
        r"""The means of the best law of independent units, given a row that was `lifted`; it holds what it holds.

        .. math:: m_i = \sigma(b_i + \sum_j J_{ij} m_j)

        One unit after the other, which never lowers the bound; a fixed point where ``rounds`` are enough.
        """
        held, order = self._held(row), np.arange(self.units.size)
        first = self.units.mean(self.units.still)
        first = first if row is None else row.clamp(first)
        again = lambda _, m: self._in_turn(m, held, order, lambda i, p: p)  # noqa: E731
        return jax.lax.fori_loop(0, rounds, again, first)

    def log_bound(self, row: Row | None = None, rounds: int = 50) -> Scalar:
        r"""A lower bound on the log of the sum of exp(-E) over the units that a row that was `lifted` does not hold.

        .. math:: b^\top m + \tfrac12 m^\top J m + \sum_i H(m_i)

        Without a row it is a bound on log Z, in nats; of a row, less log Z, one on log p(row).
        """
        m = self.mean_field(row, rounds)
        entropy = -xlogy(m, m) - xlog1py(1 - m, -m)
        return jnp.sum(jnp.where(self._held(row), 0, entropy)) - self.energy(m)

    def posterior(self, row: Row) -> OneNode:
        """p(h | v) at its mean field; so are missing cells."""
        odds = self.log_odds(self.mean_field(self.lifted(row)))
        return OneNode(Bernoulli(odds[self.visible :]))

    def likelihood(self, z: Float[Array, " hidden"], context: PyTree = None) -> Bernoulli:
        """p(v | h) at its mean field: cells act on each other, too."""
        free = jnp.arange(self.units.size) < self.visible
        row = Row(jnp.pad(z, (self.visible, 0)), mask=~free)
        return Bernoulli(self.log_odds(self.mean_field(row))[: self.visible])

    # --- centring

    def offsets(self, positions: Float[Array, "n cells"]) -> Bits:
        """Mean units of a batch of rows; the hidden ones at their mean field."""
        whole = jax.vmap(lambda x: self.mean_field(self.lifted(Row(x)), 5))(positions)
        return jnp.mean(whole, axis=0)

    def centred(self, offsets: Bits) -> CentredBoltzmann:
        """The same law, with parameters of units less their offsets."""
        pushed = self.units.pushed(self.matrix() @ offsets)
        return CentredBoltzmann(dataclasses.replace(self, units=pushed), Fixed(offsets), sweeps=self.sweeps)

    # --- small ones

    def log_partition(self) -> Scalar:
        """log Z in nats, exact, by listing all states."""
        return log_sum(self.units, lambda s: -self.energy(s))

    def bits(self) -> float:
        """log2 of the number of states that `log_partition` lists."""
        return float(self.units.size)

    def log_unnormalised(self, row: Row) -> Scalar:
        """log of the sum of exp(-E) over the units that a row does not hold: each term comes 2^held times."""
        times = jnp.sum(self._held(row)) * math.log(2)
        return log_sum(self.units, lambda s: -self.energy(row.clamp(s))) - times

    def hidden_bits(self) -> float:
        """log2 of the number of states that `log_unnormalised` lists."""
        return self.bits()

    def completable(self, row: Row) -> Bool[Array, ""]:
        """Whether a row that was `lifted` lacks at most `LISTED` units."""
        return jnp.sum(~self._held(row)) <= LISTED

    def completions(self, row: Row) -> tuple[Float[Array, "n units"], Bool[Array, " n"]]:
        """Every completion of a row that is `completable`, and which of them count once."""
        held, many = self._held(row), min(LISTED, self.units.size)
        places = jnp.argsort(held, stable=True)[:many]  # the missing ones first
        digits = jnp.arange(2**many)[:, None] >> jnp.arange(many)[None] & 1
        full = jnp.zeros((2**many, self.units.size)).at[:, places].set(digits.astype(float))
        return jax.vmap(row.clamp)(full), jnp.all((digits == 0) | ~held[places][None], axis=1)


class CentredBoltzmann(AbstractEnergy):
    r"""A Boltzmann machine with parameters of units less their offsets.

    .. math:: E(s) = -b^\top s - \tfrac12 (s - \mu)^\top J (s - \mu)

    It is the law of `plain`; only gradients with respect to its parameters are others. Montavon & Mueller 2012.
    """

    model: Boltzmann
    offsets: Fixed
    sweeps: int = eqx.field(static=True, default=200, kw_only=True)

    @property
    def coupling(self) -> Float[Array, " pairs"]:
        """That of the machine: the same in both."""
        return self.model.coupling

    def plain(self) -> Boltzmann:
        """The machine of this law."""
        return dataclasses.replace(self.model, units=self.model.units.pushed(-self.model.matrix() @ self.offsets.value))

    def energy(self, position: Bits) -> Scalar:
        return self.plain().energy(position)

    def lifted(self, row: Row) -> Row:
        return self.model.lifted(row)

    def shown(self, position: Bits) -> Float[Array, " visible"]:
        return self.model.shown(position)

    def kernel(self, row: Row | None = None) -> Gibbs:
        return self.plain().kernel(row)

    def at(self, beta: Scalar) -> Boltzmann:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.plain().at(beta)

    def start(self, *, key: PRNGKeyArray) -> Bits:
        return self.model.start(key=key)

    def log_start(self, row: Row | None = None) -> Scalar:
        return self.model.log_start(row)


# --- the side of the data


@runtime_checkable
class MeanFielded(Protocol):
    """An energy with a mean field."""

    def mean_field(self, row: Row, rounds: int) -> PyTree[Array]:
        """The position of a row that was `lifted`, with what it does not hold at its expectation."""
        ...


class AbstractFill(eqx.Module):
    """How a whole position is made of a row, which holds only some of its cells."""

    @abc.abstractmethod
    def __call__(self, model: PyTree, row: Row, *, key: PRNGKeyArray) -> PyTree[Array]:
        """The position; ``row`` was `lifted` by the model."""


class Drawn(AbstractFill):
    """What a row does not hold is drawn given what it holds, by ``sweeps`` sweeps. Ackley, Hinton & Sejnowski 1985."""

    sweeps: int = eqx.field(static=True, default=10)

    def __call__(self, model: AbstractEnergy, row: Row, *, key: PRNGKeyArray) -> PyTree[Array]:
        begin, go = jr.split(key)
        return walk(model.kernel(row), row.clamp(model.start(key=begin)), self.sweeps, key=go)


class MeanField(AbstractFill):
    """What a row does not hold is at its mean field: the slope of a lower bound. Salakhutdinov & Hinton 2009.

    It is that slope where the energy is linear in each of these cells, given the others, or sums out what is not.
    """

    rounds: int = eqx.field(static=True, default=10)

    def __call__(self, model: MeanFielded, row: Row, *, key: PRNGKeyArray) -> PyTree[Array]:
        return model.mean_field(row, self.rounds)


class Filling(AbstractRule):
    """A rule that is given whole positions in place of rows.

    The model must leave alone a row that was `lifted`, when it lifts it again.
    """

    fill: AbstractFill
    rule: AbstractRule

    def init(self, model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        fill, key = jr.split(key)
        return self.rule.init(model, self._filled(model, batch, fill), key=key)

    def step(
        self, model: AbstractEnergy, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[AbstractEnergy, PyTree, Metrics]:
        fill, key = jr.split(key)
        return self.rule.step(model, state, self._filled(model, batch, fill), key=key, step=step)

    def _filled(self, model: AbstractEnergy, batch: Row, key: PRNGKeyArray) -> Row:
        rows, keys = jax.vmap(model.lifted)(batch), jr.split(key, rows_in(batch))
        return dataclasses.replace(rows, x=jax.vmap(lambda row, k: self.fill(model, row, key=k))(rows, keys), mask=None)
