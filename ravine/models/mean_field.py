r"""Mean-field inference for sigmoid belief nets.

Saul, Jaakkola & Jordan 1996, *Mean field theory for sigmoid belief networks*, JAIR 4:61-76.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float

from ravine._special import softplus
from ravine.core import (
    AbstractGenerator,
    AbstractInference,
    Latent,
    Row,
    Scalar,
)
from ravine.dist import Bernoulli
from ravine.models.labelled import Whatever
from ravine.models.sigmoid_layers import Layers, SeenCells, SigmoidLayers
from ravine.posteriors import AbstractBounded, Chain, OneNode

LARGEST = 30.0  # log odds of a unit under q: beyond, one more nat of confidence changes nothing that a float can hold


class Factors(eqx.Module):
    r"""The variational parameters of a row.

    Attributes
    ----------
    odds : log odds of :math:`\mu` of the units of each hidden layer, top first.
    tilts : :math:`\xi`, between 0 and 1, of each unit that has parents: the hidden layers but the top one, the cells.
    """

    odds: Layers
    tilts: Layers

    def means(self) -> Layers:
        r""":math:`\mu`."""
        return tuple(map(jax.nn.sigmoid, self.odds))


class MeanFieldInference(AbstractInference):
    r"""The best factorised :math:`q(z) = \prod_i \mu_i^{z_i} (1 - \mu_i)^{1 - z_i}` of a row, by its own bound.

    With :math:`a_i = \sum_j W_{ij} z_j + b_i` and one more parameter :math:`\xi_i` for each unit with parents,

    .. math::
        \log p(x) \ge \sum_i \left( \mu_i E[a_i] - \xi_i E[a_i] - \log E[e^{-\xi_i a_i} + e^{(1 - \xi_i) a_i}] \right)
        + \sum_i H(\mu_i)

    where :math:`\mu_i` of a cell is its value; missing cells are left out. Every round goes through the layers from the
    lowest. Each unit in turn goes to :math:`\mu = \sigma(\text{slope of the bound without } H)`: the bound without H is
    convex in one unit's mean, so that its tangent lies below it, and this is where tangent and H are highest. Each
    :math:`\xi` makes a step of Newton's method, or a shorter one that is known to be safe. No step lowers the bound.

    Layers must be of bits, and the maps between them affine. The bound is one on log p(x); of the posterior
    probabilities of single units it bounds none.

    Parameters
    ----------
    rounds : how often all units are gone through, from the means that the net has without a row.

    Examples
    --------
    >>> import jax.random as jr
    >>> from ravine.dist import Bits
    >>> from ravine.models.belief_net import belief_net
    >>> p = belief_net((2, 3), "-", Bits(), jnp.full(4, 0.25), key=jr.key(0))
    >>> row = Row(jnp.array([1.0, 0.0, 1.0, 1.0]))
    >>> [layer.shape for layer in MeanFieldInference()(p, row).mean()]
    [(2,), (3,)]
    >>> bounds = MeanFieldInference(rounds=5).climb(p, row)
    >>> bool((bounds[1:] >= bounds[:-1] - 1e-6).all())
    True
    """

    rounds: int = eqx.field(static=True, default=20)

    def __call__(self, generator: AbstractGenerator, row: Row) -> MeanFieldPosterior:
        """The settled posterior, through which no gradient flows; its bound has that of the generator."""
        layers, cells = SigmoidLayers.of(generator, "MeanFieldInference"), SeenCells.of(row)
        factors = self.settled(layers, cells)
        return MeanFieldPosterior(mean_field_bound(layers, cells, factors), _law(layers, factors), factors)

    def settled(self, layers: SigmoidLayers, cells: SeenCells) -> Factors:
        """The parameters after all rounds."""
        layers, cells = stop_gradient((layers, cells))
        first = start(layers)
        return stop_gradient(jax.lax.fori_loop(0, self.rounds, lambda _, f: improved(layers, cells, f), first))

    def climb(self, generator: AbstractGenerator, row: Row) -> Float[Array, " rounds"]:
        """The bound on log p(row), in nats, after each round."""
        layers, cells = SigmoidLayers.of(generator, "MeanFieldInference"), SeenCells.of(row)

        def one(factors: Factors, _: None) -> tuple[Factors, Scalar]:
            factors = improved(layers, cells, factors)
            return factors, mean_field_bound(layers, cells, factors)

        return jax.lax.scan(one, start(layers), None, self.rounds)[1]


class MeanFieldPosterior(AbstractBounded):
    """Independent bits.

    Attributes
    ----------
    log_bound : the bound on log p(row) that was reached, in nats; its gradient is that at held parameters.
    law : of the latent.
    factors : the parameters behind it.
    """

    log_bound: Scalar
    law: OneNode | Chain
    factors: Factors

    def mean(self) -> Latent:
        return self.law.mean()


def _law(layers: SigmoidLayers, factors: Factors) -> OneNode | Chain:
    first, *others = map(Bernoulli, factors.odds)
    return OneNode(first) if layers.alone else Chain(first, tuple(map(Whatever, others)))


def start(layers: SigmoidLayers) -> Factors:
    """Means from the top down, and the tilts that would be best if no unit had a variance."""
    odds, tilts = [layers.top], []
    for i in range(1, len(layers.weights) + 1):
        below = layers.odds(i, tuple(map(jax.nn.sigmoid, odds)))
        odds.append(jnp.clip(below, -LARGEST, LARGEST))
        tilts.append(jax.nn.sigmoid(below))
    return Factors((jnp.clip(odds[0], -LARGEST, LARGEST), *odds[1:-1]), tuple(tilts))


def mean_field_bound(layers: SigmoidLayers, cells: SeenCells, factors: Factors) -> Scalar:
    """The bound on log p of the observed cells at any parameters, in nats; see `MeanFieldInference`."""
    means = factors.means()
    total = jnp.sum(means[0] * layers.top - softplus(layers.top))
    for i, (weight, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
        value, seen = _below(cells, means, i)
        fit = value * (weight @ means[i] + bias) - _softplus_above(weight, bias, factors.odds[i], factors.tilts[i])
        total = total + jnp.sum(jnp.where(seen, fit, 0))
    entropies = [softplus(odds) - odds * mean for odds, mean in zip(factors.odds, means, strict=True)]
    return total + sum(map(jnp.sum, entropies))


def improved(layers: SigmoidLayers, cells: SeenCells, factors: Factors) -> Factors:
    """The parameters after one round."""
    odds, tilts = list(factors.odds), list(factors.tilts)
    for i in reversed(range(len(odds))):
        means = tuple(map(jax.nn.sigmoid, odds))
        value, seen = _below(cells, means, i)
        weight, bias = layers.weights[i], layers.biases[i]
        pull = layers.odds(i, means) + jnp.where(seen, value - tilts[i], 0) @ weight
        odds[i] = _better_odds(weight, bias, odds[i], tilts[i], pull, seen)
        tilts[i] = _better_tilts(weight, bias, odds[i], tilts[i])
    return Factors(tuple(odds), tuple(tilts))


def _below(cells: SeenCells, means: Layers, i: int) -> tuple[Float[Array, " below"], Bool[Array, " below"]]:
    """Means of the units below layer ``i``, and which of them count."""
    if i + 1 == len(means):
        return cells.x, cells.seen
    return means[i + 1], jnp.ones(means[i + 1].shape, bool)


# --- the law of a = W z + b under independent bits


def _tilted(
    weight: Float[Array, "below above"], bias: Float[Array, " below"], odds: Float[Array, " above"], by: Array
) -> tuple[Float[Array, " below"], Float[Array, "below above"]]:
    """log E[exp(by a)], and the log odds of the bits when the law is weighted so."""
    moved = odds[None, :] + by[:, None] * weight
    return by * bias + jnp.sum(softplus(moved) - softplus(odds)[None, :], axis=1), moved


def _softplus_above(weight: Array, bias: Array, odds: Array, tilts: Array) -> Float[Array, " below"]:
    """The bound on E[log(1 + exp(a))] from above."""
    low, high = (_tilted(weight, bias, odds, by)[0] for by in (-tilts, 1 - tilts))
    return tilts * (weight @ jax.nn.sigmoid(odds) + bias) + jnp.logaddexp(low, high)


def _better_tilts(weight: Array, bias: Array, odds: Array, tilts: Array) -> Float[Array, " below"]:
    """Tilts whose bound is no higher: it is convex in each, and its curvature is at most a quarter of a squared range.

    Its slope is E[a] less the mean under a law that is weighted with exp(-tilt a) + exp((1 - tilt) a), its curvature
    the variance under that law.
    """
    (low, below), (high, above) = (_tilted(weight, bias, odds, by) for by in (-tilts, 1 - tilts))
    share, mean = jax.nn.sigmoid(low - high), weight @ jax.nn.sigmoid(odds) + bias
    first, second = (jnp.sum(weight * jax.nn.sigmoid(moved), axis=1) + bias for moved in (below, above))
    here, there = (_variance(weight, moved) for moved in (below, above))
    slope = mean - (share * first + (1 - share) * second)
    curve = share * here + (1 - share) * there + share * (1 - share) * (first - second) ** 2
    newton = _descended(tilts, slope, curve)
    safe = _descended(tilts, slope, 0.25 * jnp.sum(jnp.abs(weight), axis=1) ** 2)
    lower = _softplus_above(weight, bias, odds, newton) <= tilts * mean + jnp.logaddexp(low, high)
    return jnp.where(lower, newton, safe)


def _variance(weight: Array, odds: Float[Array, "below above"]) -> Float[Array, " below"]:
    return jnp.sum(weight**2 * jax.nn.sigmoid(odds) * jax.nn.sigmoid(-odds), axis=1)


def _descended(tilts: Array, slope: Array, curve: Array) -> Float[Array, " below"]:
    return jnp.clip(tilts - slope / jnp.maximum(curve, jnp.finfo(curve.dtype).eps), 0, 1)


def _better_odds(
    weight: Float[Array, "below above"],
    bias: Array,
    odds: Array,
    tilts: Array,
    pull: Array,
    seen: Bool[Array, " below"],
) -> Float[Array, " above"]:
    """Log odds of the units of a layer, each in turn given the others.

    ``pull`` is the slope of what is linear in the means; the slope of the rest follows the turns through the log ratio
    of its two expectations.
    """
    lean = _tilted(weight, bias, odds, -tilts)[0] - _tilted(weight, bias, odds, 1 - tilts)[0]

    def turn(lean: Array, unit: tuple[Array, Scalar, Scalar]) -> tuple[Array, Scalar]:
        column, before, pull = unit
        share = jax.nn.sigmoid(lean)
        (down, log_down), (up, log_up) = (_factor(before, by * column) for by in (-tilts, 1 - tilts))
        slope = share * down + (1 - share) * up
        after = jnp.clip(pull - jnp.sum(jnp.where(seen, slope, 0)), -LARGEST, LARGEST)
        new_down, new_up = (_factor(after, by * column)[1] for by in (-tilts, 1 - tilts))
        return lean + (new_down - log_down) - (new_up - log_up), after

    return jax.lax.scan(turn, lean, (weight.T, odds, pull))[1]


def _factor(odds: Scalar, t: Float[Array, " below"]) -> tuple[Float[Array, " below"], Float[Array, " below"]]:
    r"""The slope of :math:`\log(1 - \mu + \mu e^t)` in :math:`\mu`, and this number itself; t may be large."""
    on, off, small = jax.nn.sigmoid(odds), jax.nn.sigmoid(-odds), jnp.exp(-jnp.abs(t))
    scaled = jnp.where(t > 0, off * small + on, off + on * small)
    return -jnp.sign(t) * jnp.expm1(-jnp.abs(t)) / scaled, jnp.maximum(t, 0) + jnp.log(scaled)
