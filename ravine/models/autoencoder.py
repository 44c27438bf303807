r"""Autoencoders: a layer that codes cells and gives them back, and stacks of such layers.

.. math:: h = s(x W + b), \quad \hat x = s'(h V + c), \quad V = W^\top \text{ or weights of its own}

Vincent, Larochelle, Lajoie, Bengio & Manzagol 2010, *Stacked denoising autoencoders: learning useful representations in
a deep network with a local denoising criterion*. What is to be given back, and of what, is the objective's business.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._check import require
from ravine._tree import Fixed, unfix
from ravine.core import Row, Scalar
from ravine.models.feed_forward import FeedForward
from ravine.nets._init import glorot

SLOPE = 4  # logistic units are a fourth as steep as the linear ones for which Glorot and Bengio chose their limit
EDGE = 1e-3  # the rate of a cell that never changes is kept this far from 0 and 1: its log odds are finite

Cells = Float[Array, " cells"]
Corrupting = Callable[..., tuple[Cells, Any]]
Codes = Float[Array, " units"]


class AbstractReading(eqx.Module):
    """How the numbers that an affine map gives are read as cells, or as the units of a layer."""

    @abc.abstractmethod
    def mean(self, a: Cells) -> Cells:
        """The value of each cell."""

    @abc.abstractmethod
    def slope(self, a: Cells) -> Cells:
        """The derivative of `mean`, cell by cell."""

    @abc.abstractmethod
    def losses(self, a: Cells, x: Cells) -> Cells:
        """What each cell costs when it should have been ``x``; its derivative in a is the mean less x."""

    @abc.abstractmethod
    def sample(self, a: Cells, *, key: PRNGKeyArray) -> Cells:
        """A draw of each cell."""

    @abc.abstractmethod
    def start(self, rates: Cells) -> Cells:
        """The numbers whose means are these."""


class LogisticReading(AbstractReading):
    """Cells between 0 and 1, bits and grey values, by cross-entropy in nats; the units of most layers.

    Of grey values the least loss is their entropy, not 0.
    """

    def mean(self, a: Cells) -> Cells:
        return jax.nn.sigmoid(a)

    def slope(self, a: Cells) -> Cells:
        return jax.nn.sigmoid(a) * jax.nn.sigmoid(-a)

    def losses(self, a: Cells, x: Cells) -> Cells:
        return jax.nn.softplus(a) - x * a

    def sample(self, a: Cells, *, key: PRNGKeyArray) -> Cells:
        return jr.bernoulli(key, jax.nn.sigmoid(a)).astype(a.dtype)

    def start(self, rates: Cells) -> Cells:
        return jax.scipy.special.logit(jnp.clip(rates, EDGE, 1 - EDGE))


class AffineReading(AbstractReading):
    """Real cells, by half the squared error; a draw is the mean, since the error says nothing of a spread."""

    def mean(self, a: Cells) -> Cells:
        return a

    def slope(self, a: Cells) -> Cells:
        return jnp.ones_like(a)

    def losses(self, a: Cells, x: Cells) -> Cells:
        return 0.5 * (x - a) ** 2

    def sample(self, a: Cells, *, key: PRNGKeyArray) -> Cells:
        return a

    def start(self, rates: Cells) -> Cells:
        return rates


class AbstractBack(eqx.Module):
    """The way back from the units of a layer to its cells."""

    @abc.abstractmethod
    def __call__(self, h: Codes, weight: Float[Array, "cells units"]) -> Cells:
        """The numbers that are read as cells, given the units and the weights of the way there."""


class TiedBack(AbstractBack):
    """The weights of the way there, transposed, and a bias; both ways teach the same weights."""

    bias: Cells

    def __call__(self, h: Codes, weight: Float[Array, "cells units"]) -> Cells:
        return h @ weight.T + self.bias


class SeparateBack(AbstractBack):
    """Weights of its own, and a bias."""

    weight: Float[Array, "units cells"]
    bias: Cells

    def __call__(self, h: Codes, weight: Float[Array, "cells units"]) -> Cells:
        return h @ self.weight + self.bias


class Autoencoder(eqx.Module):
    """One layer: cells to units, and back.

    Parameters
    ----------
    lower, upper : how cells and units are read, ``LogisticReading()`` or ``AffineReading()``.
    weight : W, shape (cells, units).
    bias : b, of the units.
    back : the way back, `TiedBack` or `SeparateBack`.

    Examples
    --------
    >>> layer = Autoencoder(AffineReading(), AffineReading(), jnp.ones((2, 1)), jnp.zeros(1), TiedBack(jnp.zeros(2)))
    >>> layer.reconstructed(jnp.array([1.0, 2.0])).tolist()
    [3.0, 3.0]
    """

    lower: AbstractReading
    upper: AbstractReading
    weight: Float[Array, "cells units"]
    bias: Codes
    back: AbstractBack

    def code(self, x: Cells) -> Codes:
        """The units of some cells."""
        return self.upper.mean(x @ self.weight + self.bias)

    def decoded(self, h: Codes) -> Cells:
        """The cells that some units stand for."""
        return self.lower.mean(self.back(h, self.weight))

    def reconstructed(self, x: Cells) -> Cells:
        """The cells there and back."""
        return self.decoded(self.code(x))

    def losses(self, seen: Cells, x: Cells) -> Cells:
        """What each cell costs when ``seen`` goes there and back, and ``x`` is wanted."""
        return self.lower.losses(self.back(self.code(seen), self.weight), x)

    def contraction(self, x: Cells) -> Scalar:
        r"""The squared Frobenius norm of the Jacobian of the units, :math:`\sum_j s'(a_j)^2 \lVert W_j \rVert^2`.

        For logistic units :math:`s'(a_j) = h_j (1 - h_j)`: Rifai, Vincent, Muller, Glorot & Bengio 2011, *Contractive
        auto-encoders: explicit invariance during feature extraction*.
        """
        slope = self.upper.slope(x @ self.weight + self.bias)
        return slope**2 @ jnp.sum(self.weight**2, axis=0)

    def up(self, x: Cells, *, key: PRNGKeyArray) -> Codes:
        """A draw of the units."""
        return self.upper.sample(x @ self.weight + self.bias, key=key)

    def down(self, h: Codes, *, key: PRNGKeyArray) -> Cells:
        """A draw of the cells."""
        return self.lower.sample(self.back(h, self.weight), key=key)


class StackedAutoencoder(eqx.Module):
    """Layers, each of which codes the units of the one below; and perhaps a network that they became.

    A missing cell goes in as 0: as `ravine.objectives.Masking` leaves it out.

    Parameters
    ----------
    layers : the lowest first.
    rates : means of the cells as the lowest layer sees them; `Fixed`.
    corruption : how cells are spoilt at each pass of a chain, ``(x, *, key) -> (spoilt, which)``; `Fixed`, or None.
    top : what the cells of a row are divided by: the highest of its levels, else 1.
    passes : up and down again, that make a draw.
    network : the way up with a read-out of labels on top, once it was made; else None.

    Examples
    --------
    >>> model = autoencoder_stack((3, 2), LogisticReading(), jnp.full(4, 0.5), key=jr.key(0))
    >>> h = model.code(Row(jnp.ones(4)))
    >>> h.shape, model.decoded(h).shape
    ((2,), (4,))
    """

    layers: tuple[Autoencoder, ...]
    rates: Fixed
    corruption: Fixed | None = None
    top: int = eqx.field(static=True, default=1)
    passes: int = eqx.field(static=True, default=100)
    network: FeedForward | None = None

    # --- the way up and the way down

    def entered(self, row: Row) -> Cells:
        """What the lowest layer sees."""
        return row.x.ravel() / self.top

    def code(self, row: Row, layers: int | None = None) -> Codes:
        """The units of the topmost layer, or of the first so many."""
        h = self.entered(row)
        for layer in self.layers[:layers]:
            h = layer.code(h)
        return h

    def decoded(self, h: Codes, layers: int | None = None) -> Cells:
        """The cells of a row that the units of the topmost layer stand for, or those of the first so many."""
        for layer in reversed(self.layers[:layers]):
            h = layer.decoded(h)
        return h * self.top

    def denoised(self, row: Row) -> Cells:
        """The row as the lowest layer gives it back, the only one that has seen rows."""
        return self.decoded(self.code(row, 1), 1)

    def sample(self, context: None = None, *, key: PRNGKeyArray) -> tuple[Codes, Cells]:
        """Units and cells at the end of a chain from cells that are drawn each on its own, at the rates of the data."""
        begin, go = jr.split(key)
        lowest = self.layers[0]
        return self.walked(lowest.lower.sample(lowest.lower.start(unfix(self.rates)), key=begin), key=go)

    def walked(self, x: Cells, *, key: PRNGKeyArray) -> tuple[Codes, Cells]:
        """Units and cells at the end of a chain from cells as the lowest layer sees them; the last cells are means.

        A pass spoils the cells as they were spoilt for learning, draws every layer of units upwards, then every layer
        down again. Of a single layer whose cells are drawn from means of what was spoilt, this is a chain whose law
        tends to that of the data: Bengio, Yao, Alain & Vincent 2013, arXiv:1305.6663.
        """
        go, spoil, climb, fall = jr.split(key, 4)
        x = jax.lax.fori_loop(0, self.passes - 1, lambda i, x: self._passed(x, key=jr.fold_in(go, i)), x)
        h = self._climbed(self._spoilt(x, key=spoil), key=climb)
        return h, self.layers[0].decoded(self._fallen(h, key=fall)) * self.top

    def _passed(self, x: Cells, *, key: PRNGKeyArray) -> Cells:
        spoil, climb, fall, last = jr.split(key, 4)
        h = self._climbed(self._spoilt(x, key=spoil), key=climb)
        return self.layers[0].down(self._fallen(h, key=fall), key=last)

    def _spoilt(self, x: Cells, *, key: PRNGKeyArray) -> Cells:
        corruption = unfix(self.corruption)
        return x if corruption is None else corruption(x, key=key)[0]

    def _climbed(self, x: Cells, *, key: PRNGKeyArray) -> Codes:
        for layer, k in zip(self.layers, jr.split(key, len(self.layers)), strict=True):
            x = layer.up(x, key=k)
        return x

    def _fallen(self, h: Codes, *, key: PRNGKeyArray) -> Float[Array, " lowest"]:
        """The units of the lowest layer."""
        for layer, k in zip(reversed(self.layers[1:]), jr.split(key, len(self.layers)), strict=False):
            h = layer.down(h, key=k)
        return h

    # --- greedy learning

    def machine(self, i: int) -> Autoencoder:
        """Layer i."""
        return self.layers[i]

    def presented(self, row: Row, i: int) -> Row:
        """What layer i is to give back: the cells of a row, or their codes by the layers below."""
        return dataclasses.replace(row, x=self.code(row, i), mask=None if i or row.mask is None else row.mask.ravel())

    def spoilt(self, row: Row, corruption: Corrupting, *, key: PRNGKeyArray) -> Row:
        """The row with its cells spoilt as the lowest layer sees them, in the units of the row again."""
        return dataclasses.replace(
            row, x=jnp.reshape(corruption(self.entered(row), key=key)[0] * self.top, row.x.shape)
        )

    # --- labels

    def features(self, row: Row) -> Codes:
        """The units that a read-out sees: those of the network, where there is one."""
        return self.code(row) if self.network is None else self.network.features(self.entered(row))

    def logits(self, row: Row) -> Float[Array, " classes"]:
        """log p(y | x) of each class by the network, up to a constant, in nats."""
        assert self.network is not None, "a stack tells labels once it has become a network"
        return self.network(self.entered(row))

    def answers(self, row: Row) -> Float[Array, " classes"]:
        """The energy of each class: minus its logit."""
        return -self.logits(row)

    def to_mlp(self, classes: int) -> FeedForward:
        """The way up as a network of its own, with a read-out that knows nothing yet.

        Raises
        ------
        ValueError
            When the units of a layer are not logistic.
        """
        names = [type(layer.upper).__name__ for layer in self.layers if not isinstance(layer.upper, LogisticReading)]
        require(not names, "a network", "layers of logistic units", ", ".join(names), "read them as LogisticReading()")
        units, dtype = self.layers[-1].bias.size, self.layers[-1].bias.dtype
        ways = [(layer.weight, layer.bias) for layer in self.layers]
        weights, biases = zip(*ways, (jnp.zeros((units, classes), dtype), jnp.zeros(classes, dtype)), strict=True)
        return FeedForward(weights, biases)


@dataclasses.dataclass(frozen=True)
class ToClassifier:
    """A preparation: the way up becomes a network, which then learns from labels; the layers stay as they are."""

    classes: int

    def __call__(self, model: StackedAutoencoder, source: Any, *, key: PRNGKeyArray) -> StackedAutoencoder:
        """The stack with its network."""
        return dataclasses.replace(model, network=model.to_mlp(self.classes))


Tie = Literal["transposed", "separate"]
BACK: dict[str, Callable[[Float[Array, "cells units"], Cells], AbstractBack]] = {
    "transposed": lambda weight, bias: TiedBack(bias),
    "separate": lambda weight, bias: SeparateBack(weight.T, bias),
}


def autoencoder_stack(
    sizes: tuple[int, ...],
    lowest: AbstractReading,
    base: Float[Array | np.ndarray, " cells"],
    tie: Tie = "transposed",
    *,
    corruption: Any = None,
    top: int = 1,
    passes: int = 100,
    key: PRNGKeyArray,
) -> StackedAutoencoder:
    """Layers of so many logistic units above cells that begin at their means, ``base``.

    Weights are uniform, within four times Glorot's limit; those back begin as the transpose of those there.

    Examples
    --------
    >>> model = autoencoder_stack((5,), AffineReading(), jnp.zeros(2), "separate", key=jr.key(0))
    >>> model.layers[0].weight.shape, model.layers[0].back.weight.shape
    ((2, 5), (5, 2))
    """
    ends = (jnp.size(base), *sizes)
    weights = [SLOPE * weight for weight in glorot(tuple(zip(ends[:-1], ends[1:], strict=True)), key=key)]
    lowers = (lowest, *(LogisticReading() for _ in sizes[1:]))
    means = jnp.asarray(base, weights[0].dtype)
    starts = (lowest.start(means), *(jnp.zeros(size) for size in sizes[:-1]))
    layers = [
        Autoencoder(lower, LogisticReading(), weight, jnp.zeros(weight.shape[1]), BACK[tie](weight, start))
        for lower, weight, start in zip(lowers, weights, starts, strict=True)
    ]
    return StackedAutoencoder(
        tuple(layers), Fixed(means), None if corruption is None else Fixed(corruption), top, passes
    )
