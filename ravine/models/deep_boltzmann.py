"""Layers of units of which neighbours act on each other: deep Boltzmann machines. Salakhutdinov & Hinton 2009."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, Self, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from ravine._check import require
from ravine._tree import Fixed
from ravine.core import AbstractDistribution, AbstractEnergy, AbstractRule, Metrics, Row, Scalar
from ravine.kernels import Gibbs
from ravine.models.energy import AbstractCoupling, CentredHarmonium, Harmonium
from ravine.models.unit_groups import Beside, Together, state_count, total
from ravine.models.units import AbstractUnits, BinaryUnits, Field
from ravine.posteriors import OneNode

Layers = tuple[PyTree[Array], ...]
LISTED = 10.0  # bits of what is listed for every row


class Stacked(AbstractCoupling):
    """Every layer with the next one. The visible statistics are those of the even layers, the hidden those of the odd.

    Parameters
    ----------
    weights : one matrix between each layer and the next, shape (below, above).

    Examples
    --------
    >>> Stacked((jnp.ones((2, 3)), jnp.ones((3, 1)))).up(jnp.array([1.0, 0.0, 5.0])).tolist()
    [6.0, 6.0, 6.0]
    """

    weights: tuple[Float[Array, "_ _"], ...]

    def up(self, visible: Field) -> Field:
        return self._onto(1, visible)

    def down(self, hidden: Field) -> Field:
        return self._onto(0, hidden)

    def sizes(self) -> tuple[int, ...]:
        """Statistics of each layer, from the lowest."""
        return (self.weights[0].shape[0], *(weight.shape[1] for weight in self.weights))

    def _onto(self, first: int, others: Field) -> Field:
        """The fields on every second layer from ``first`` on, given the statistics of the others."""
        sizes = self.sizes()
        ends = np.cumsum(sizes[1 - first :: 2])[:-1].tolist()
        state = dict(zip(range(1 - first, len(sizes), 2), jnp.split(others, ends), strict=True))
        return jnp.concatenate([self._into(layer, state) for layer in range(first, len(sizes), 2)])

    def _into(self, layer: int, state: dict[int, Field]) -> Field:
        below = state[layer - 1] @ self.weights[layer - 1] if layer > 0 else jnp.array(0.0)
        return below + (self.weights[layer] @ state[layer + 1] if layer + 1 in state else jnp.array(0.0))


class Copied(AbstractCoupling):
    """Copies of one group of units with copies of another, all by the same weights."""

    weight: Float[Array, "lower upper"]
    below: int = eqx.field(static=True, default=1)
    above: int = eqx.field(static=True, default=1)

    def up(self, visible: Field) -> Field:
        return jnp.tile(jnp.sum(visible.reshape(self.below, -1), axis=0) @ self.weight, self.above)

    def down(self, hidden: Field) -> Field:
        return jnp.tile(self.weight @ jnp.sum(hidden.reshape(self.above, -1), axis=0), self.below)


class DeepBoltzmann(AbstractEnergy):
    r"""A visible layer, and layers of hidden units above it.

    .. math:: E(v, h) = U(v) + \sum_l U(h_l) - s(v)^\top W_1 h_1 - \sum_l h_l^\top W_{l+1} h_{l+1}

    Layers act on their neighbours only, so the even ones are independent given the odd ones: it is a harmonium between
    the two. A position is a state (v, h2, h4, ...) of the even layers; the odd ones are summed out.

    Parameters
    ----------
    pair : the harmonium; its units are ``Beside`` of the even and of the odd layers, its coupling is `Stacked`.

    Examples
    --------
    >>> model = DeepBoltzmann.of(BinaryUnits().sized((4,)), (3, 2), key=jr.key(0))
    >>> model.coupling.sizes(), bool(abs(model.log_partition() - 9 * jnp.log(2)) < 0.1)
    ((4, 3, 2), True)
    """

    pair: Harmonium
    sweeps: int = eqx.field(static=True, default=1000, kw_only=True)

    @staticmethod
    def of(visible: AbstractUnits, layers: tuple[int, ...], sweeps: int = 1000, *, key: PRNGKeyArray) -> DeepBoltzmann:
        """Layers of so many bits above visible units; weights near zero.

        Raises
        ------
        ValueError
            When there are not two hidden layers at least.
        """
        require(len(layers) > 1, "layers", "two hidden layers at least", f"{len(layers)}", "use RBM for one")
        groups = (visible, *(BinaryUnits().sized((size,)) for size in layers))
        sizes, keys = [group.size for group in groups], jr.split(key, len(layers))
        weights = tuple(0.01 * jr.normal(k, pair) for k, pair in zip(keys, itertools.pairwise(sizes), strict=True))
        even, odd = Beside(groups[::2]), Beside(groups[1::2])
        return DeepBoltzmann(Harmonium(even, odd, Stacked(weights), Fixed(even)), sweeps=sweeps)

    @property
    def coupling(self) -> AbstractCoupling:
        """The weights."""
        return self.pair.coupling

    # --- the law

    def energy(self, position: Layers) -> Scalar:
        return self.pair.energy(position)

    def lifted(self, row: Row) -> Row:
        """The row with room for the even hidden layers, which it does not hold; one that was lifted stays as it is."""
        if isinstance(row.x, tuple):
            return row
        blank = self.pair.visible.blank()[1:]
        seen = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), row.x) if row.mask is None else row.mask
        free = tuple(jnp.zeros(leaf.shape, bool) for leaf in blank)
        return dataclasses.replace(row, x=(row.x, *blank), mask=(seen, *free))

    def shown(self, position: Layers) -> PyTree[Array]:
        return position[0]

    def kernel(self, row: Row | None = None) -> Gibbs:
        return self.pair.kernel(row)

    def at(self, beta: Scalar) -> Self:
        return dataclasses.replace(self, pair=self.pair.at(beta))

    def start(self, *, key: PRNGKeyArray) -> Layers:
        return self.pair.start(key=key)

    def log_start(self, row: Row | None = None) -> Scalar:
        return self.pair.log_start(row)

    # --- mean field

    def mean_field(self, row: Row, rounds: int = 50) -> Layers:
        """The position of a row that was `lifted`, with what it does not hold at its mean-field expectation.

        Even and odd layers take turns. Each goes to the best means given the others, so that no round lowers the bound.
        """
        return row.clamp(self.pair.visible(self._settled(row, rounds)[0]).mean())

    def log_bound(self, row: Row | None = None, rounds: int = 50) -> Scalar:
        r"""A lower bound on the log of the sum of exp(-E) over all that a row that was `lifted` does not hold.

        .. math:: \sum_i \Phi_i(f_i) - f_i m_i + \sum_j \Phi_j(W^\top m)_j, \quad m = \Phi'(f)

        over what is free of the even layers, i, and the odd ones, j: it is -E and the entropy of the mean field.
        Without a row it is a bound on log Z; of a row, less log Z, one on log p(row). In nats.
        """
        visible, row = self.pair.visible, _whole(self.pair.visible, row)
        field, s = self._settled(row, rounds)
        pick = lambda m, u, c: jnp.where(m, -u, c)  # noqa: E731
        even = jax.tree.map(pick, row.mask, visible.energy(row.x), visible.cumulant(field))
        free = jnp.where(self._seen(row), 0, field * s)
        return total(even) - jnp.sum(free) + total(self.pair.hidden.cumulant(self.pair.coupling.up(s)))

    def posterior(self, row: Row) -> OneNode:
        """The mean field of all hidden layers; the latent is their tuple, from the lowest."""
        field, s = self._settled(self.lifted(row), 50)
        even, odd = self.pair.visible(field), self.pair.hidden(self.pair.coupling.up(s))
        return OneNode(Together(tuple(_interleaved(cast(Together, even).laws, cast(Together, odd).laws)[1:])))

    def likelihood(self, z: Layers, context: PyTree = None) -> AbstractDistribution:
        """p(v | h)."""
        return cast(Together, self.pair.visible(self.pair.down(z[::2]))).laws[0]

    def _settled(self, row: Row, rounds: int) -> tuple[Field, Field]:
        """The field on the even layers at the mean field, and their expected statistics."""
        pair, known, seen = self.pair, self.pair.visible.statistic(row.x), self._seen(row)
        field = lambda s: pair.coupling.down(pair.hidden.mean(pair.coupling.up(s)))  # noqa: E731
        told = lambda field: jnp.where(seen, known, pair.visible.mean(field))  # noqa: E731
        s = jax.lax.fori_loop(0, rounds, lambda _, s: told(field(s)), told(pair.visible.still))
        return field(s), told(field(s))

    def _seen(self, row: Row) -> Bool[Array, " statistics"]:
        """Which statistics of the even layers a row holds."""
        if row.mask is None:
            return jnp.ones(self.pair.visible.size, bool)
        return self.pair.visible.spread(jax.tree.map(lambda m: m.astype(float), row.mask)) > 0

    # --- centring

    def offsets(self, positions: PyTree[Array]) -> tuple[Field, Field]:
        """Mean statistics of the even layers and of the odd ones, for a batch of positions, or of rows."""
        whole = jax.vmap(lambda x: self.mean_field(self.lifted(Row(x)), 5))(positions)
        return self.pair.offsets(whole)

    def centred(self, offsets: tuple[Field, Field]) -> CentredDeep:
        """The same law, with parameters of statistics less their offsets."""
        return CentredDeep(self.pair.centred(offsets), sweeps=self.sweeps)

    # --- layer by layer

    def layers(self) -> list[AbstractUnits]:
        """The units of each layer, from the lowest."""
        return _interleaved(cast(Beside, self.pair.visible).groups, cast(Beside, self.pair.hidden).groups)

    def machines(self) -> tuple[Harmonium, ...]:
        """Each pair of neighbouring layers as a machine of its own.

        A layer with another one beyond the pair stands in for it: its partner sees it twice. Salakhutdinov & Hinton
        2009, section 2.2.
        """
        units, weights, made = self.layers(), cast(Stacked, self.coupling).weights, []
        for i, weight in enumerate(weights):
            below, above = 1 + (i < len(weights) - 1), 1 + (i > 0)
            lower, upper = Beside((units[i],) * below), Beside((units[i + 1],) * above)
            made.append(Harmonium(lower, upper, Copied(weight, below, above), Fixed(lower)))
        return tuple(made)

    def composed(self, machines: tuple[Harmonium, ...]) -> Self:
        """The net of such machines; a layer between two of them has the mean of its biases in both."""
        lower, upper = (
            [_first(machine.visible) for machine in machines],
            [_first(machine.hidden) for machine in machines],
        )
        units = [lower[0], *map(_mean, zip(lower[1:], upper[:-1], strict=True)), upper[-1]]
        even, odd = Beside(tuple(units[::2])), Beside(tuple(units[1::2]))
        coupling = Stacked(tuple(cast(Copied, machine.coupling).weight for machine in machines))
        return dataclasses.replace(
            self, pair=dataclasses.replace(self.pair, visible=even, hidden=odd, coupling=coupling)
        )

    # --- small ones

    def log_partition(self) -> Scalar:
        """log Z in nats, exact: the states of the even or of the odd layers are listed, those that are fewer."""
        return self.pair.log_partition()

    def bits(self) -> float:
        """log2 of the number of states that `log_partition` lists."""
        return self.pair.bits()

    def log_unnormalised(self, row: Row) -> Scalar:
        """log of the sum of exp(-E) over all that a row does not hold: the odd layers are listed."""
        return self.pair.log_unnormalised(row)

    def hidden_bits(self) -> float:
        """log2 of the number of states of the odd layers."""
        return self.pair.hidden_bits()

    def completable(self, row: Row) -> Bool[Array, ""]:
        """Whether the even hidden layers, and the cells that a row lacks, have at most 2^10 states together."""
        left = LISTED - math.log2(state_count(self._deep()))
        return self._cells().completable(Row(row.x[0], mask=row.mask[0]), left) & (left >= 0)

    def completions(self, row: Row) -> tuple[Layers, Bool[Array, " n"]]:
        """Every completion of a row that is `completable`, and which of them count once."""
        deep = self._deep()
        choices = deep.choices()
        left = LISTED - sum(map(math.log2, choices))
        cells, once = self._cells().completions(Row(row.x[0], mask=row.mask[0]), max(left, 0.0))
        strides, count = np.cumprod([1, *choices[:-1]]), math.prod(choices)
        above = jax.vmap(deep.state)(jnp.arange(count)[:, None] // strides[None] % np.asarray(choices)[None])
        many = once.shape[0]
        below = jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), cells)
        tiled = jax.tree.map(lambda leaf: jnp.tile(leaf, (many, *(1,) * (leaf.ndim - 1))), above)
        return (below, *tiled), jnp.repeat(once, count)

    def _deep(self) -> Beside:
        """The even hidden layers."""
        return Beside(cast(Beside, self.pair.visible).groups[1:])

    def _cells(self) -> Harmonium:
        """What lists the values of cells: the visible layer in place of the even ones."""
        return dataclasses.replace(self.pair, visible=_first(self.pair.visible))


def _interleaved(even: tuple[Any, ...], odd: tuple[Any, ...]) -> list[Any]:
    return [one for pair in itertools.zip_longest(even, odd) for one in pair if one is not None]


def _first(units: AbstractUnits) -> AbstractUnits:
    return cast(Beside, units).groups[0]


def _mean(units: tuple[AbstractUnits, ...]) -> AbstractUnits:
    """Units with the mean parameters of several."""
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *units)


def _whole(units: AbstractUnits, row: Row | None) -> Row:
    """A row with a mask of every cell; one that holds none where there is no row."""
    x = units.blank() if row is None else row.x
    cells = units.cumulant(units.still)
    mask = jax.tree.map(lambda c: jnp.full(c.shape, row is not None), cells)
    return Row(x, mask=mask if row is None or row.mask is None else row.mask)


class CentredDeep(AbstractEnergy):
    """A deep Boltzmann machine with parameters of statistics less their offsets. Montavon & Mueller 2012."""

    model: CentredHarmonium
    sweeps: int = eqx.field(static=True, default=1000, kw_only=True)

    @property
    def coupling(self) -> AbstractCoupling:
        """That of the machine: the same in both."""
        return self.model.coupling

    def plain(self) -> DeepBoltzmann:
        """The machine of this law."""
        return DeepBoltzmann(self.model.plain(), sweeps=self.sweeps)

    def energy(self, position: Layers) -> Scalar:
        return self.model.energy(position)

    def lifted(self, row: Row) -> Row:
        return self.plain().lifted(row)

    def shown(self, position: Layers) -> PyTree[Array]:
        return position[0]

    def kernel(self, row: Row | None = None) -> Gibbs:
        return self.model.kernel(row)

    def at(self, beta: Scalar) -> DeepBoltzmann:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.plain().at(beta)

    def start(self, *, key: PRNGKeyArray) -> Layers:
        return self.model.start(key=key)

    def log_start(self, row: Row | None = None) -> Scalar:
        return self.model.log_start(row)


class Pairwise(AbstractRule):
    """A rule for each pair of neighbouring layers, as a machine that sees what those below make of a row.

    All of them learn at once; the model is what they compose. Salakhutdinov & Hinton 2009, section 2.2.
    """

    rule: AbstractRule

    def init(self, model: DeepBoltzmann, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        machines = model.machines()
        seen, keys = _climbed(machines, batch), jr.split(key, len(machines))
        ready = zip(machines, seen, keys, strict=True)
        return machines, tuple(self.rule.init(machine, rows, key=k) for machine, rows, k in ready)

    def step(
        self, model: DeepBoltzmann, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[DeepBoltzmann, PyTree, Metrics]:
        machines, inner, metrics = *state, {}
        ready, after = zip(machines, inner, _climbed(machines, batch), jr.split(key, len(machines)), strict=True), []
        for i, (machine, own, rows, k) in enumerate(ready):
            machine, own, report = self.rule.step(machine, own, rows, key=k, step=step)
            after.append((_tied(machine), own))
            metrics |= {f"{i}.{name}": value for name, value in report.items()}
        machines, inner = zip(*after, strict=True)
        return model.composed(machines), (machines, inner), metrics


def _climbed(machines: tuple[Harmonium, ...], batch: Row) -> list[Row]:
    """What each machine sees of a batch: probabilities from below."""
    seen = []
    for machine in machines:
        times = len(cast(Beside, machine.visible).groups)
        mask = None if batch.mask is None else (batch.mask,) * times
        seen.append(dataclasses.replace(batch, x=(batch.x,) * times, mask=mask))
        above = jax.vmap(lambda row, m=machine: m.hidden(m.coupling.up(m.filled(row, 5))).mean()[0])(seen[-1])
        batch = dataclasses.replace(batch, x=above, mask=None)
    return seen


def _tied(machine: Harmonium) -> Harmonium:
    """The machine with equal copies."""
    even = lambda units: Beside((_mean(units.groups),) * len(units.groups))  # noqa: E731
    return dataclasses.replace(machine, visible=even(machine.visible), hidden=even(machine.hidden))
