"""Two groups of units that act on each other: restricted Boltzmann machines of any pairing of unit types.

Smolensky 1986 (harmonium); Hinton 2002, *Training products of experts by minimizing contrastive divergence*;
Welling, Rosen-Zvi & Hinton 2005 for units other than bits.
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ravine._tree import Fixed, unfix
from ravine.core import AbstractDistribution, AbstractEnergy, AbstractPosterior, Row, Scalar
from ravine.kernels import Gibbs
from ravine.models.unit_groups import Beside, countable, log_sum, state_count, total
from ravine.models.units import AbstractCountable, AbstractUnits, Field
from ravine.posteriors import OneNode


class AbstractCoupling(eqx.Module):
    """The bilinear part of an energy, :math:`-s(v) W t(h)`, as the fields that it makes."""

    @abc.abstractmethod
    def up(self, visible: Field) -> Field:
        """The field on the hidden units, given the statistics of the visible ones."""

    @abc.abstractmethod
    def down(self, hidden: Field) -> Field:
        """The field on the visible units, given the statistics of the hidden ones."""


class Dense(AbstractCoupling):
    """Every visible statistic with every hidden one."""

    weight: Float[Array, "visible hidden"]

    def up(self, visible: Field) -> Field:
        return visible @ self.weight

    def down(self, hidden: Field) -> Field:
        return self.weight @ hidden


class Convolution(AbstractCoupling):
    """Filters that are shared by all places of an image; hidden units are maps of places. Lee et al. 2009.

    A product of matrices: within a loop, where training lives, XLA's own convolutions are far slower on a CPU.

    Parameters
    ----------
    filters : shape (maps, channels, height, width).
    image : (channels, height, width) of the visible statistics.
    stride : from one window to the next, in both directions.
    """

    filters: Float[Array, "maps channels high wide"]
    image: tuple[int, int, int] = eqx.field(static=True)
    stride: int = eqx.field(static=True, default=1)

    def up(self, visible: Field) -> Field:
        image, (_, high, wide), step = visible.reshape(self.image), self.maps(), self.stride
        places = itertools.product(*map(range, self.filters.shape[2:]))
        cut = [image[:, i : i + step * (high - 1) + 1 : step, j : j + step * (wide - 1) + 1 : step] for i, j in places]
        weight = self.filters.reshape(*self.filters.shape[:2], -1)
        return jnp.einsum("mck,kchw->mhw", weight, jnp.stack(cut)).ravel()

    def down(self, hidden: Field) -> Field:
        like = jax.ShapeDtypeStruct((math.prod(self.image),), self.filters.dtype)
        return jax.linear_transpose(self.up, like)(hidden)[0]

    def maps(self) -> tuple[int, int, int]:
        """The shape of the hidden units."""
        many, _, *window = self.filters.shape
        high, wide = ((side - size) // self.stride + 1 for side, size in zip(self.image[1:], window, strict=True))
        return many, high, wide


class Scaled(AbstractCoupling):
    """A coupling, weaker or stronger by a factor."""

    coupling: AbstractCoupling
    factor: Scalar

    def up(self, visible: Field) -> Field:
        return self.factor * self.coupling.up(visible)

    def down(self, hidden: Field) -> Field:
        return self.factor * self.coupling.down(hidden)


class Harmonium(AbstractEnergy):
    r"""A restricted Boltzmann machine: visible and hidden units, and a coupling between the two groups.

    .. math:: E(v, h) = U(v) + U(h) - s(v)^\top W t(h)

    A position is a state of the visible units; the hidden ones are summed out,

    .. math:: F(v) = U(v) - \Phi_h(W^\top s(v))

    Along the path the coupling grows with beta, and the visible units go from ``base`` to their own.

    Parameters
    ----------
    visible, hidden : the units.
    coupling : of the statistics of the visible and of the hidden units.
    base : visible units that have the rates of the data on their own: where annealing starts.
    sweeps : how many Gibbs sweeps make a draw.

    Examples
    --------
    >>> from ravine.models.units import BinaryUnits
    >>> bits = lambda n: BinaryUnits().sized((n,))
    >>> model = Harmonium(bits(2), bits(3), Dense(jnp.zeros((2, 3))), Fixed(bits(2)))
    >>> float(model.log_partition()), 5 * math.log(2)
    (3.465735912322998, 3.4657359027997265)
    """

    visible: AbstractUnits
    hidden: AbstractUnits
    coupling: AbstractCoupling
    base: Fixed | AbstractUnits
    sweeps: int = eqx.field(static=True, default=1000, kw_only=True)

    # --- the law

    def energy(self, position: PyTree[Array]) -> Scalar:
        return total(self.visible.energy(position)) - total(self.hidden.cumulant(self.up(position)))

    def joint_energy(self, v: PyTree[Array], h: PyTree[Array]) -> Scalar:
        """E(v, h)."""
        alone = total(self.visible.energy(v)) + total(self.hidden.energy(h))
        return alone - self.up(v) @ self.hidden.statistic(h)

    def up(self, v: PyTree[Array]) -> Field:
        """The field on the hidden units."""
        return self.coupling.up(self.visible.statistic(v))

    def down(self, h: PyTree[Array]) -> Field:
        """The field on the visible units."""
        return self.coupling.down(self.hidden.statistic(h))

    def lifted(self, row: Row) -> Row:
        return row

    def shown(self, position: PyTree[Array]) -> PyTree[Array]:
        return position

    # --- chains

    def told(self, h: PyTree[Array], row: Row) -> PyTree[Array]:
        """The visible units on top of a net, for a row: what the way up has drawn."""
        return h

    def row_energy(self, h: PyTree[Array], row: Row) -> Scalar:
        """Their energy."""
        return self.energy(h)

    def kernel(self, row: Row | None = None) -> Gibbs:
        return Gibbs(self, row)

    def swept(self, position: PyTree[Array], row: Row | None, *, key: PRNGKeyArray) -> PyTree[Array]:
        """New visible units, given hidden ones that were drawn given the old."""
        first, second = jr.split(key)
        h = self.hidden(self.up(position)).sample(key=first)
        v = self.visible(self.down(h)).sample(key=second)
        return v if row is None else row.clamp(v)

    def at(self, beta: Scalar) -> Self:
        visible = unfix(self.base).towards(self.visible, beta)
        return dataclasses.replace(self, visible=visible, coupling=Scaled(self.coupling, beta))

    def start(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        base = unfix(self.base)
        return base(base.still).sample(key=key)

    def log_start(self, row: Row | None = None) -> Scalar:
        base = unfix(self.base)
        hidden, cells = total(self.hidden.cumulant(self.hidden.still)), base.cumulant(base.still)
        if row is None:
            return hidden + total(cells)
        seen = jax.tree.map(lambda c: jnp.ones(c.shape, bool), cells) if row.mask is None else row.mask
        pick = lambda known, held, free: jnp.where(known, -held, free)  # noqa: E731
        return hidden + total(jax.tree.map(pick, seen, base.energy(row.x), cells))

    # --- latents

    def posterior(self, row: Row) -> AbstractPosterior:
        """p(h | v), exact; with missing cells, at their mean-field expectation given the others."""
        return OneNode(self.hidden(self.coupling.up(self.filled(row))))

    def filled(self, row: Row, rounds: int = 50) -> Field:
        """The statistics of the visible units; those of missing cells at the mean-field fixed point."""
        known = self.visible.statistic(row.x)
        if row.mask is None:
            return known
        seen = self._seen(row.mask)

        def again(_: Int[Array, ""], s: Field) -> Field:
            guess = self.visible.mean(self.coupling.down(self.hidden.mean(self.coupling.up(s))))
            return jnp.where(seen, known, 0.5 * (s + guess))

        start = jnp.where(seen, known, self.visible.mean(self.visible.still))
        return jax.lax.fori_loop(0, rounds, again, start)

    def _seen(self, mask: PyTree[Array]) -> Array:
        """Which statistics are known."""
        ones = jax.tree.map(lambda m: m.astype(float), mask)
        return self.visible.spread(ones) > 0

    def receptive_fields(self) -> Float[Array, "hidden visible"]:
        """The field on the visible units that each hidden statistic makes."""
        return jax.vmap(self.coupling.down)(jnp.eye(self.hidden.size))

    def likelihood(self, z: PyTree[Array], context: PyTree = None) -> AbstractDistribution:
        """p(v | h)."""
        return self.visible(self.down(z))

    def values(self) -> Float[Array, " values"]:
        """What a visible cell may hold."""
        units = countable(self.visible)
        cells = len(units.choices())
        return jnp.stack([units.state(jnp.full(cells, d)).ravel()[0] for d in range(units.choices()[0])])

    # --- centring

    def offsets(self, positions: PyTree[Array]) -> tuple[Field, Field]:
        """Mean statistics of a batch of visible units, and of the hidden ones given these."""
        s = jax.vmap(self.visible.statistic)(positions)
        t = jax.vmap(lambda one: self.hidden.mean(self.coupling.up(one)))(s)
        return jnp.mean(s, axis=0), jnp.mean(t, axis=0)

    def centred(self, offsets: tuple[Field, Field]) -> CentredHarmonium:
        """The same law, with parameters of statistics less their offsets."""
        there = CentredHarmonium(self, Fixed(offsets))
        return CentredHarmonium(there._shifted(1.0), Fixed(offsets), sweeps=self.sweeps)

    # --- small ones

    def log_partition(self) -> Scalar:
        """log Z in nats, exact: all states of the group that has fewer are listed.

        Raises
        ------
        ValueError
            When neither group has a finite number of states.
        """
        up = state_count(self.hidden) <= state_count(self.visible)
        if up:
            return log_sum(countable(self.hidden), self._with_hidden)
        return log_sum(countable(self.visible), lambda v: -self.energy(v))

    def bits(self) -> float:
        """log2 of the number of states that `log_partition` lists."""
        return math.log2(min(state_count(self.hidden), state_count(self.visible)))

    def hidden_bits(self) -> float:
        """log2 of the number of hidden states."""
        return math.log2(state_count(self.hidden))

    def completable(self, row: Row, bits: float = 10.0) -> Bool[Array, ""]:
        """Whether the cells that a row does not hold have at most 2^``bits`` values together."""
        if row.mask is None:
            return jnp.array(True)
        if not isinstance(row.mask, jax.Array) or math.isinf(state_count(self.visible)):
            return jnp.all(jnp.asarray([jnp.all(leaf) for leaf in jax.tree.leaves(row.mask)]))
        return jnp.sum(~row.mask) <= self._listed_cells(bits)

    def completions(self, row: Row, bits: float = 10.0) -> tuple[PyTree[Array], Bool[Array, " n"]]:
        """Every completion of a row that is `completable`, and which of them count once."""
        if row.mask is None or not self._listed_cells(bits):
            return jax.tree.map(lambda leaf: leaf[None], row.x), jnp.ones(1, bool)
        units, mask = countable(self.visible), row.mask.ravel()
        choices, cells = units.choices()[0], min(self._listed_cells(bits), mask.size)
        digits = jnp.arange(choices**cells)[:, None] // (choices ** jnp.arange(cells))[None] % choices
        places = jnp.argsort(mask, stable=True)[:cells]  # the missing ones first
        full = jnp.zeros((len(digits), mask.size), int).at[:, places].set(digits)
        once = jnp.all((digits == 0) | ~mask[places][None], axis=1)
        return jax.vmap(lambda d: row.clamp(units.state(d)))(full), once

    def _listed_cells(self, bits: float) -> int:
        """How many cells of so many bits; none where the cells are no single array of countable ones."""
        units = self.visible
        if isinstance(units, Beside) or not isinstance(units, AbstractCountable):
            return 0
        same = len(units.choices()) == units.blank().size
        return int(bits // math.log2(units.choices()[0])) if same else 0

    def _with_hidden(self, h: PyTree[Array]) -> Scalar:
        """Minus the energy of hidden units, the visible ones summed out."""
        return total(self.visible.cumulant(self.down(h))) - total(self.hidden.energy(h))

    def log_unnormalised(self, row: Row) -> Scalar:
        """log of the sum of exp(-E) over all hidden states, which are listed, and over all missing cells.

        Salakhutdinov, Mnih & Hinton 2007 on why it is that sum which missing cells call for.
        """
        if row.mask is None:
            return -self.energy(row.x)
        seen, known = self._seen(row.mask), self.visible.statistic(row.x)
        alone = total(jax.tree.map(lambda m, u: jnp.where(m, u, 0), row.mask, self.visible.energy(row.x)))

        def given(h: PyTree[Array]) -> Scalar:
            field = self.down(h)
            free = jax.tree.map(lambda m, c: jnp.where(m, 0, c), row.mask, self.visible.cumulant(field))
            return total(free) + jnp.sum(jnp.where(seen, field * known, 0)) - alone - total(self.hidden.energy(h))

        return log_sum(countable(self.hidden), given)


class CentredHarmonium(AbstractEnergy):
    r"""A harmonium with parameters of statistics less their offsets.

    .. math:: E(v, h) = U(v) + U(h) - (s(v) - \mu)^\top W (t(h) - \lambda)

    It is the law of `plain`; only gradients with respect to its parameters are others.
    """

    model: Harmonium
    offsets: Fixed
    sweeps: int = eqx.field(static=True, default=1000, kw_only=True)

    @property
    def coupling(self) -> AbstractCoupling:
        """That of the harmonium: the same in both."""
        return self.model.coupling

    def plain(self) -> Harmonium:
        """The harmonium of this law."""
        return self._shifted(-1.0)

    def energy(self, position: PyTree[Array]) -> Scalar:
        return self.plain().energy(position)

    def lifted(self, row: Row) -> Row:
        return self.model.lifted(row)

    def shown(self, position: PyTree[Array]) -> PyTree[Array]:
        return position

    def kernel(self, row: Row | None = None) -> Gibbs:
        return self.plain().kernel(row)

    def at(self, beta: Scalar) -> Harmonium:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.plain().at(beta)

    def start(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        return self.model.start(key=key)

    def log_start(self, row: Row | None = None) -> Scalar:
        return self.plain().log_start(row)

    def _shifted(self, sign: float) -> Harmonium:
        mu, lam = self.offsets.value
        model = self.model
        visible = model.visible.pushed(sign * model.coupling.down(lam))
        return dataclasses.replace(model, visible=visible, hidden=model.hidden.pushed(sign * model.coupling.up(mu)))
