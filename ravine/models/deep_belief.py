"""Deep belief nets: a restricted Boltzmann machine on top, layers that each give the one below underneath.

Hinton, Osindero & Teh 2006, *A fast learning algorithm for deep belief nets*.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, Self, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._check import require
from ravine._tree import Fixed, unfix
from ravine.core import AbstractDistribution, Row, Scalar
from ravine.models.energy import AbstractCoupling, Dense, Harmonium
from ravine.models.feed_forward import FeedForward
from ravine.models.labelled_energy import LabelledHarmonium
from ravine.models.tops import AbstractNormalisedTop
from ravine.models.unit_groups import Beside
from ravine.models.units import AbstractUnits, BinaryUnits, SoftmaxUnits
from ravine.posteriors import Chain

Latents = tuple[PyTree[Array], ...]
Top = Harmonium | LabelledHarmonium | AbstractNormalisedTop
AT_ONCE = 10_000  # rows whose activities say at which rates the units of a layer begin


class AbstractTwoWay(eqx.Module):
    """Two neighbouring layers, with a way up and a way down."""

    lower: eqx.AbstractVar[AbstractUnits]
    upper: eqx.AbstractVar[AbstractUnits]

    @abc.abstractmethod
    def ways(self) -> tuple[AbstractCoupling, AbstractCoupling]:
        """The couplings of the way up and of the way down; the lower statistics are their visible ones."""

    def up(self, x: Array) -> AbstractDistribution:
        """q(upper | lower)."""
        return self.upper(self.ways()[0].up(self.lower.statistic(x)))

    def down(self, h: PyTree[Array]) -> AbstractDistribution:
        """p(lower | upper)."""
        return self.lower(self.ways()[1].down(self.upper.statistic(h)))

    def tied(self) -> Harmonium:
        """The two layers as a machine of their own, with the generative weights both ways."""
        base = dataclasses.replace(self.lower, bias=jnp.zeros_like(cast(Any, self.lower).bias))
        return Harmonium(self.lower, self.upper, self.ways()[1], Fixed(base))

    @abc.abstractmethod
    def learned(self, machine: Harmonium) -> AbstractTwoWay:
        """The layers as such a machine has learned them, both ways alike."""


class TwoWay(AbstractTwoWay):
    """Two neighbouring layers with separate weights up and down.

    Parameters
    ----------
    lower, upper : units, with the biases that the way down and the way up use.
    recognition, generative : couplings of the way up and of the way down.
    """

    lower: AbstractUnits
    upper: AbstractUnits
    recognition: AbstractCoupling
    generative: AbstractCoupling

    def ways(self) -> tuple[AbstractCoupling, AbstractCoupling]:
        return self.recognition, self.generative

    def learned(self, machine: Harmonium) -> TwoWay:
        return TwoWay(machine.visible, machine.hidden, machine.coupling, machine.coupling)


class Tied(AbstractTwoWay):
    """Two neighbouring layers with the same weights up and down, transposed.

    On their own they are a restricted Boltzmann machine: its two conditionals share their weights so.

    Parameters
    ----------
    lower, upper : units, with the biases that the way down and the way up use.
    coupling : that of both ways.
    """

    lower: AbstractUnits
    upper: AbstractUnits
    coupling: AbstractCoupling

    def ways(self) -> tuple[AbstractCoupling, AbstractCoupling]:
        return self.coupling, self.coupling

    def learned(self, machine: Harmonium) -> Tied:
        return Tied(machine.visible, machine.hidden, machine.coupling)


class DeepBelief(eqx.Module):
    r"""A deep belief net, and the recogniser that climbs it.

    .. math:: p(x, h_1, ..., h_L) = p(x \mid h_1) \cdots p(h_{L-1} \mid h_L) \, e^{-F(h_L)} / Z

    with the free energy F of the machine on top, whose visible units are those of the last layer, beside a label where
    there are labels. The latents are (h_1, ..., h_L).

    Parameters
    ----------
    layers : the lowest first.
    top : the machine on top.
    network : the way up as a net of its own that tells labels, once it was made; else None.
    """

    layers: tuple[AbstractTwoWay, ...]
    top: Top
    network: FeedForward | None = None

    # --- the way up and the way down

    def posterior(self, row: Row) -> Chain:
        """q(h_1 | x) q(h_2 | h_1) ..., layer by layer."""
        first, *others = self.layers
        return Chain(first.up(self.entered(row)), tuple(layer.up for layer in others))

    def entered(self, row: Row) -> Array:
        """The cells; a missing one is what the lowest units are on their own."""
        lower = self.layers[0].lower
        return row.x if row.mask is None else row.clamp(lower(lower.still).mean())

    def climbed(self, row: Row, layers: int | None = None) -> PyTree[Array]:
        """The probabilities of the units of a layer, each computed from those of the layer below."""
        x = self.entered(row)
        for layer in self.layers[:layers]:
            x = layer.up(x).mean()
        return x

    def likelihood(self, z: Latents, context: PyTree = None) -> AbstractDistribution:
        """p(x | h_1)."""
        return self.layers[0].down(z[0])

    def log_joint(self, z: Latents, row: Row) -> Scalar:
        """log p(x, h) of the observed cells, in nats, but for log Z of the machine on top."""
        value = self.layers[0].down(z[0]).log_prob(row.x, row.mask)
        for layer, lower, upper in zip(self.layers[1:], z[:-1], z[1:], strict=True):
            value = value + layer.down(upper).log_prob(lower)
        return value + self.log_top(z[-1])

    def log_top(self, h: PyTree[Array]) -> Scalar:
        """Minus the free energy of the machine on top, the label summed out."""
        return -(self.top.energy(h) if isinstance(self.top, Harmonium) else self.top.cells_energy(h))

    def descended(self, h: PyTree[Array], *, key: PRNGKeyArray) -> tuple[Latents, Array]:
        """The latents below the top, and a row, drawn on the way down."""
        drawn = [h]
        for layer, k in zip(reversed(self.layers), jr.split(key, len(self.layers)), strict=True):
            drawn.append(layer.down(drawn[-1]).sample(key=k))
        return tuple(reversed(drawn[:-1])), drawn[-1]

    def alternated(self, row: Row, sweeps: int, *, key: PRNGKeyArray) -> Array:
        """The missing cells of a row by turns of the way up and the way down, the observed ones held.

        The mean of p(x | h_1) over the second half of ``sweeps``. Of a single pair with the same weights both ways this
        is Gibbs sampling; what is on top takes no part in it.
        """

        def turn(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            (x, sums), (climb, fall) = carry, jr.split(jr.fold_in(key, i))
            z, _ = self.posterior(Row(x)).sample(key=climb)
            latents, drawn = self.descended(z[-1], key=fall)
            return row.clamp(drawn), sums + (i >= sweeps // 2) * self.likelihood(latents).mean()

        first = self.entered(row)
        _, sums = jax.lax.fori_loop(0, sweeps, turn, (first, jnp.zeros_like(first)))
        return row.clamp(sums / (sweeps - sweeps // 2))

    def sample(self, context: PyTree = None, *, key: PRNGKeyArray) -> tuple[Latents, Array]:
        """A draw of the machine on top by its chain, and one way down."""
        chain, below = jr.split(key)
        return self.descended(self.top.shown(self.top.sample(key=chain)[0]), key=below)

    # --- labels

    def label_shares(self, row: Row) -> Float[Array, " classes"]:
        """p(y | h_L), at the probabilities that the way up gives; what the network says, where there is one."""
        return jax.nn.softmax(-self.answers(row))

    def answers(self, row: Row) -> Float[Array, " classes"]:
        """The energy of each label, up to a constant."""
        if self.network is not None:
            return -self.network(self.layers[0].lower.statistic(self.entered(row)))
        return -cast(LabelledHarmonium, self.top).label_logits(self.climbed(row))

    def told_locally(self, row: Row) -> Float[Array, " classes"]:
        """log p(y | x) up to a constant, from which nothing learns but what is on top."""
        layers = cast(LabelledHarmonium, self.top).telling(self.layers)
        return -dataclasses.replace(self, layers=layers).answers(row)

    def feed_forward(self) -> FeedForward:
        """The way up, with the hidden units on top, and the weights of the label as the read-out."""
        pair = cast(LabelledHarmonium, self.top).pair
        groups, weight = cast(Beside, pair.visible).groups, cast(Dense, pair.coupling).weight
        bits, label, above = groups[0].size, cast(SoftmaxUnits, groups[1]), cast(BinaryUnits, pair.hidden)
        ups = tuple((cast(Dense, layer.ways()[0]).weight, cast(Any, layer.upper).bias) for layer in self.layers)
        ends = ((weight[:bits], cast(Array, above.bias)), (weight[bits:].T, cast(Array, label.bias)))
        weights, biases = zip(*ups, *ends, strict=True)
        return FeedForward(weights, biases)

    def made(self, label: Float[Array, " classes"], *, key: PRNGKeyArray) -> Array:
        """The mean of a row of a label: a chain on top with the label held, then a way down. Pixels stay means.

        The chain begins where the way up leads from cells without a field, as in the paper.
        """
        lower = self.layers[0].lower
        cells, up, chain, below = jr.split(key, 4)
        noise = lower.sized(lower.blank().shape)
        first, _ = self.posterior(Row(noise(noise.still).sample(key=cells))).sample(key=up)
        last = cast(LabelledHarmonium, self.top).made_from(first[-1], label, key=chain)
        return self.likelihood(self.descended(last, key=below)[0]).mean()

    # --- greedy learning

    def machine(self, i: int) -> Top:
        """Layer i and the one above as a machine of their own; past the last layer, the one on top."""
        return self.top if i == len(self.layers) else self.layers[i].tied()

    def with_machine(self, i: int, machine: Any) -> Self:
        """The net with what such a machine has learned."""
        if i == len(self.layers):
            return dataclasses.replace(self, top=machine)
        layers = tuple(layer.learned(machine) if j == i else layer for j, layer in enumerate(self.layers))
        return dataclasses.replace(self, layers=layers)

    def presented(self, row: Row, i: int) -> Row:
        """What layer i sees of a row: probabilities from below."""
        return row if i == 0 else dataclasses.replace(row, x=self.climbed(row, i), mask=None)


@dataclasses.dataclass(frozen=True)
class ToNetwork:
    """A preparation: the way up becomes a feed-forward net, which is then learned by back-propagation."""

    def __call__(self, model: DeepBelief, source: Any, *, key: PRNGKeyArray) -> DeepBelief:
        """The net with its network."""
        return dataclasses.replace(model, network=model.feed_forward())


@dataclasses.dataclass(frozen=True)
class Rates:
    """A preparation: the units of layer i begin at the rates at which the layers below have them."""

    layer: int

    def __call__(self, model: DeepBelief, source: Any, *, key: PRNGKeyArray) -> DeepBelief:
        """The net whose layer i begins so."""
        return _at_rates(model, _first(source), self.layer)


@dataclasses.dataclass(frozen=True)
class AnnealedFromRows:
    """A preparation: annealing of the machine on top sets out from the rates at which rows switch its units on.

    A machine may have regions between which no chain travels, and one that sets out from elsewhere may miss the one
    where the rows are. It is a choice of where annealing begins: the law stays as it is.
    """

    def __call__(self, model: DeepBelief, source: Any, *, key: PRNGKeyArray) -> DeepBelief:
        """The net with that start; a law on top that is normalised needs none."""
        if isinstance(model.top, Harmonium | LabelledHarmonium):
            return _based(model, _first(source))
        return model


def _first(source: Any) -> Row:
    """The first rows of a source, as many as are looked at to learn rates."""
    block, places = source.block(np.arange(min(source.rows, AT_ONCE))[None])
    return jax.tree.map(lambda leaf: leaf[jnp.asarray(places[0])], block)


def _rates(model: DeepBelief, seen: Row, layers: int) -> AbstractUnits:
    """Units on their own with the rates at which rows switch those of a layer on."""
    rate = jnp.mean(jax.vmap(lambda row: model.climbed(row, layers))(seen), axis=0)
    return BinaryUnits().sized(rate.shape, rate)


@eqx.filter_jit
def _based(model: DeepBelief, seen: Row) -> DeepBelief:
    units = _rates(model, seen, len(model.layers))
    if isinstance(model.top, Harmonium):
        return dataclasses.replace(model, top=dataclasses.replace(model.top, base=Fixed(units)))
    top = cast(LabelledHarmonium, model.top)
    base = Fixed(Beside((units, cast(Beside, unfix(top.pair.base)).groups[1])))
    return dataclasses.replace(model, top=dataclasses.replace(top, pair=dataclasses.replace(top.pair, base=base)))


@eqx.filter_jit
def _at_rates(model: DeepBelief, seen: Row, i: int) -> DeepBelief:
    units = _rates(model, seen, i)
    if i < len(model.layers):
        return model.with_machine(i, dataclasses.replace(model.machine(i), visible=units))
    if isinstance(model.top, Harmonium):
        return model.with_machine(i, dataclasses.replace(model.top, visible=units, base=Fixed(units)))
    pair = cast(LabelledHarmonium, model.top).pair
    visible = Beside((units, cast(Beside, pair.visible).groups[1]))
    pair = dataclasses.replace(pair, visible=visible, base=Fixed(visible))
    return model.with_machine(i, dataclasses.replace(model.top, pair=pair))


def unfolded(machine: Harmonium) -> DeepBelief:
    """A net of the same law as a machine of bits: the first two of the infinitely many layers that it stands for.

    Its lowest layer and its top share the weights of the machine, the right way up and upside down.

    Examples
    --------
    >>> bits = lambda n: BinaryUnits().sized((n,))
    >>> machine = Harmonium(bits(3), bits(2), Dense(jnp.ones((3, 2))), Fixed(bits(3)))
    >>> net = unfolded(machine)
    >>> bool(jnp.isclose(net.top.log_partition(), machine.log_partition()))
    True
    """
    weight, hidden = cast(Dense, machine.coupling).weight, cast(BinaryUnits, machine.hidden)
    layer = TwoWay(machine.visible, hidden, machine.coupling, machine.coupling)
    base = Fixed(BinaryUnits().sized(hidden.shape))
    return DeepBelief((layer,), Harmonium(hidden, machine.visible, Dense(weight.T), base, sweeps=machine.sweeps))


def two_ways(lowest: AbstractUnits, sizes: tuple[int, ...], *, key: PRNGKeyArray) -> tuple[TwoWay, ...]:
    """Layers of so many bits above the lowest units, with small weights that are alike both ways.

    Raises
    ------
    ValueError
        When there are none: a net has a layer below the machine on top.
    """
    do = "add a layer, or fit an RBM"
    require(len(sizes) > 0, "layers", "two sizes at least, the last one of the machine on top", "one", do)
    layers, lower = [], lowest
    for size, k in zip(sizes, jr.split(key, len(sizes)), strict=True):
        upper, coupling = BinaryUnits().sized((size,)), Dense(0.01 * jr.normal(k, (lower.size, size)))
        layers.append(TwoWay(lower, upper, coupling, coupling))
        lower = upper
    return tuple(layers)


def blank_top(units: int, hidden: int, classes: int, sweeps: int, *, key: PRNGKeyArray) -> Top:
    """A machine on ``units`` bits with small weights; beside a label where there are ``classes``."""
    bits, rest = BinaryUnits().sized((units,)), BinaryUnits().sized((hidden,))
    visible = Beside(groups=(bits, SoftmaxUnits().sized((classes,)))) if classes else bits
    weight = 0.01 * jr.normal(key, (units + classes, hidden))
    machine = Harmonium(visible, rest, Dense(weight), Fixed(visible), sweeps=sweeps)
    return LabelledHarmonium(machine, sweeps=sweeps) if classes else machine
