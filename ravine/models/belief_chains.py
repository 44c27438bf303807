"""Gibbs sampling of the hidden units of a sigmoid belief net.

Neal 1992, *Connectionist learning of belief networks*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._check import complaint
from ravine._special import softplus
from ravine._tree import row_keys
from ravine.core import (
    AbstractDistribution,
    AbstractGenerator,
    AbstractGradient,
    AbstractInference,
    AbstractKernel,
    Cost,
    Draw,
    Latent,
    Metrics,
    Row,
    Scalar,
    walk,
)
from ravine.dist import Bernoulli
from ravine.models.sigmoid_layers import Layers, SeenCells, SigmoidLayers
from ravine.posteriors import AbstractVisited

Take = Callable[[Scalar, Any], Array]  # (log odds of a unit, what is told of it) to its next value


class UnitGibbs(AbstractKernel):
    r"""Every hidden unit of a belief net in turn, given all others and the observed cells of a row.

    The log odds of a unit are those that its parents give it, and what its children say:

    .. math:: a_j + \sum_i z_i W_{ij} - \log(1 + e^{a_i^{j=1}}) + \log(1 + e^{a_i^{j=0}})

    Units of a layer are tied by the children they share, so they take turns one by one, the top layer first. Each turn
    leaves the posterior as it is, and so does the scan. A position is the tuple of hidden layers; missing cells are
    summed out. A step tells ``log_move``, the log of the probability of its move.

    Parameters
    ----------
    layers : the net.
    cells : the row.
    """

    layers: SigmoidLayers
    cells: SeenCells

    def init(self, position: Layers, *, key: PRNGKeyArray) -> Layers:
        return position

    def step(self, state: Layers, *, key: PRNGKeyArray) -> tuple[Layers, Metrics]:
        return self.drawn(lambda d, key: d.sample(key=key), state, key=key)

    def position(self, state: Layers) -> Layers:
        return state

    def start(self, *, key: PRNGKeyArray) -> Layers:
        """A draw of the net without a row."""
        z: Layers = ()
        for i, k in enumerate(jr.split(key, len(self.layers.weights))):
            z = (*z, Bernoulli(self.layers.odds(i, z)).sample(key=k))
        return z

    def drawn(self, draw: Draw, state: Layers, *, key: PRNGKeyArray) -> tuple[Layers, Metrics]:
        """A scan whose units are taken by ``draw(law, key=key)``."""
        keys = [jr.split(k, z.size) for k, z in zip(jr.split(key, len(state)), state, strict=True)]
        state, log_move = self._scan(lambda odds, k: draw(Bernoulli(odds), key=k), state, keys)
        return state, {"log_move": log_move}

    def log_step(self, before: Layers, after: Layers) -> Scalar:
        """The log of the probability that a scan leads from one position to the other."""
        return self._scan(lambda odds, bit: bit, before, after)[1]

    def _scan(self, take: Take, state: Layers, told: PyTree) -> tuple[Layers, Scalar]:
        total, layers = jnp.zeros((), self.layers.top.dtype), list(state)
        for i in range(len(layers)):
            last = i + 1 == len(layers)
            below = self.cells.x if last else layers[i + 1]
            seen = self.cells.seen if last else jnp.ones(below.shape, bool)
            layers[i], log_move = self._layer(take, i, layers, (jnp.where(seen, below, 0), seen), told[i])
            total = total + log_move
        return tuple(layers), total

    def _layer(self, take: Take, i: int, layers: list[Array], below: tuple, told: PyTree) -> tuple[Array, Scalar]:
        """The units of a layer in turn; the odds of those below follow."""
        value, seen = below

        def turn(odds: Array, unit: tuple) -> tuple[Array, tuple[Array, Scalar]]:
            column, old, own, hint = unit
            off = odds - column * old
            gain = value * column - softplus(off + column) + softplus(off)
            here = own + jnp.sum(jnp.where(seen, gain, 0))
            bit = take(here, hint)
            return off + column * bit, (bit, bit * here - softplus(here))

        each = (self.layers.weights[i].T, layers[i], self.layers.odds(i, layers), told)
        _, (bits, log_moves) = jax.lax.scan(turn, self.layers.odds(i + 1, layers), each)
        return bits, jnp.sum(log_moves)


class GibbsSampling(AbstractInference):
    """The posterior of a belief net by a chain that draws each hidden unit given all others, see `UnitGibbs`.

    A chain begins at a draw of the net without the row. Layers must be of bits, and the maps between them affine.
    Learn with `MonteCarloEM`: no gradient passes through a draw.

    Parameters
    ----------
    scans : through all units, before a state is used.
    draws : states behind a posterior mean, each a scan after the one before.
    seed : of the chains behind posterior means; these are a function of the row.

    Examples
    --------
    >>> from ravine.dist import Bits
    >>> from ravine.models.belief_net import belief_net
    >>> p = belief_net((2, 3), "-", Bits(), jnp.full(4, 0.25), key=jr.key(0))
    >>> posterior = GibbsSampling(scans=10)(p, Row(jnp.array([1.0, 0.0, 1.0, 1.0])))
    >>> [layer.shape for layer in posterior.visited(5, key=jr.key(1))[0]]
    [(5, 2), (5, 3)]
    """

    scans: int = eqx.field(static=True, default=100)
    draws: int = eqx.field(static=True, default=100)
    seed: int = eqx.field(static=True, default=0)

    def __call__(self, generator: AbstractGenerator, row: Row) -> GibbsPosterior:
        """Chains given the row; nothing is drawn yet."""
        layers, cells = stop_gradient((SigmoidLayers.of(generator, "GibbsSampling"), SeenCells.of(row)))
        key = row_keys(jr.key(self.seed), jax.tree.map(lambda leaf: leaf[None], cells))[0]
        return GibbsPosterior(UnitGibbs(layers, cells), key, self.scans, self.draws)


class GibbsPosterior(AbstractVisited):
    r"""Where chains are after so many scans.

    ``sample`` gives the state z after one more scan, and :math:`\log T(z \mid z')` of that scan from the state z'
    before. With these as weights, :math:`p(x, z) / T(z \mid z')` has the mean p(x) whatever the law of z': bounds and
    evidence that weigh draws stay what they say they are. The law of z itself has no known density.

    Attributes
    ----------
    kernel : one scan.
    key : of the chains behind means.
    scans, draws : before a state is used, and behind a mean.
    """

    kernel: UnitGibbs
    key: PRNGKeyArray
    scans: int = eqx.field(static=True)
    draws: int = eqx.field(static=True)

    def visited(self, k: int, *, key: PRNGKeyArray) -> tuple[Latent, Float[Array, " k"]]:
        first, go = jr.split(key)

        def on(z: Layers, key: PRNGKeyArray) -> tuple[Layers, tuple[Layers, Scalar]]:
            z, told = self.kernel.step(z, key=key)
            return z, (z, told["log_move"])

        states, log_moves = jax.lax.scan(on, self._settled(first), jr.split(go, k))[1]
        return self.kernel.layers.latent(states), log_moves

    def drawn(self, draw: Draw, *, key: PRNGKeyArray) -> tuple[Latent, Scalar]:
        first, go = jr.split(key)
        z, told = self.kernel.drawn(draw, self._settled(first), key=go)
        return self.kernel.layers.latent(z), told["log_move"]

    def log_prob(self, z: Latent) -> Scalar:
        """There is none.

        Raises
        ------
        ValueError
            Always.
        """
        do = "learn with MonteCarloEM(), weigh draws with ImportanceWeighted"
        raise complaint("log q(z)", "a posterior with a density", "the draws of GibbsSampling", do)

    def mean(self) -> Latent:
        """The mean of the states of a chain, which is the same whenever it is asked for."""
        return jax.tree.map(lambda z: jnp.mean(z, axis=0), self.visited(self.draws, key=self.key)[0])

    def nodes(self) -> tuple[AbstractDistribution, ...]:
        """Independent bits of these means."""
        return tuple(Bernoulli(jax.scipy.special.logit(mean)) for mean in jax.tree.leaves(self.mean()))

    def expect(self, cost: Cost, gradient: AbstractGradient, *, key: PRNGKeyArray) -> Scalar:
        """The mean cost of the states of a chain; no estimator is needed, as no gradient passes through them."""
        return jnp.mean(jax.vmap(cost)(*self.visited(self.draws, key=key)))

    def _settled(self, key: PRNGKeyArray) -> Layers:
        begin, go = jr.split(key)
        return walk(self.kernel, self.kernel.start(key=begin), self.scans, key=go)
