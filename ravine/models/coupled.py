"""Coupled pairs: a recogniser and a generator of logistic layers whose weights are each other's transpose.

Flach, Shekhovtsov & Fikar 2017, *Generative learning for deep networks*, arXiv:1709.08524.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Literal, cast

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray

from ravine._check import complaint, require
from ravine.models.deep_belief import AbstractTwoWay, DeepBelief, Tied, Top, TwoWay, blank_top
from ravine.models.energy import AbstractCoupling, Convolution, Dense
from ravine.models.tops import Factorised, PerClass
from ravine.models.unit_groups import Beside
from ravine.models.units import AbstractUnits, BinaryUnits, SoftmaxUnits

Image = tuple[int, int, int]  # channels, height, width
Pairing = Literal["transposed", "separate"]
PAIRINGS: dict[str, Callable[[AbstractUnits, AbstractUnits, AbstractCoupling], AbstractTwoWay]] = {
    "transposed": Tied,
    "separate": lambda lower, upper, coupling: TwoWay(lower, upper, coupling, coupling),
}


class AbstractOnTop(eqx.Module):
    """What is on top of a coupled pair: the law of its topmost bits, and of the label."""

    @abc.abstractmethod
    def upper(self, units: int, classes: int) -> AbstractUnits:
        """The units of the topmost layer."""

    @abc.abstractmethod
    def __call__(self, units: int, classes: int, sweeps: int, *, key: PRNGKeyArray) -> Top:
        """The law of their states, before anything is learned."""


class AssociativeMemory(AbstractOnTop):
    """A restricted Boltzmann machine of the topmost bits beside the label. Hinton, Osindero & Teh 2006.

    Parameters
    ----------
    hidden : its hidden units.
    """

    hidden: int = eqx.field(static=True, default=500)

    def upper(self, units: int, classes: int) -> AbstractUnits:
        return BinaryUnits().sized((units,))

    def __call__(self, units: int, classes: int, sweeps: int, *, key: PRNGKeyArray) -> Top:
        return blank_top(units, self.hidden, classes, sweeps, key=key)


class ClassMeans(AbstractOnTop):
    """The topmost bits are independent, each with a rate for each label."""

    def upper(self, units: int, classes: int) -> AbstractUnits:
        return BinaryUnits().sized((units,))

    def __call__(self, units: int, classes: int, sweeps: int, *, key: PRNGKeyArray) -> Top:
        logits = 0.01 * jr.normal(key, (classes, units))
        return PerClass(logits=logits, label=SoftmaxUnits().sized((classes,)))


class Independent(AbstractOnTop):
    """The topmost bits are independent, and the label is one more unit beside them."""

    def upper(self, units: int, classes: int) -> AbstractUnits:
        return Beside((BinaryUnits().sized((units,)), SoftmaxUnits().sized((classes,))))

    def __call__(self, units: int, classes: int, sweeps: int, *, key: PRNGKeyArray) -> Top:
        return Factorised(logits=jnp.zeros(units), label=SoftmaxUnits().sized((classes,)))


class Maps(eqx.Module):
    """The size of a layer of maps, each of which looks at the image below through one filter.

    Parameters
    ----------
    count : maps.
    side : of the filter, in pixels.
    stride : from one window to the next.
    """

    count: int = eqx.field(static=True, default=16)
    side: int = eqx.field(static=True, default=5)
    stride: int = eqx.field(static=True, default=2)

    def coupling(self, image: Image | None, *, key: PRNGKeyArray) -> Convolution:
        """With the units of an image, or of maps; the filters are small.

        Raises
        ------
        ValueError
            When these units are no image, or one of fewer rows or columns than a filter has.
        """
        expected, got = f"an image of at least {self.side} rows and columns", "none" if image is None else str(image)
        fits = image is not None and min(image[1:]) >= self.side
        require(fits, "layers", expected, got, "give rows of shape (rows, height, width), or smaller filters")
        channels, high, wide = cast(Image, image)
        filters = 0.01 * jr.normal(key, (self.count, channels, self.side, self.side))
        return Convolution(filters, (channels, high, wide), self.stride)


def grey(shape: tuple[int, ...]) -> Image:
    """(1, height, width) of an image without colours.

    Raises
    ------
    ValueError
        When it has some.

    Examples
    --------
    >>> grey((28, 28))
    (1, 28, 28)
    """
    high, wide, *channels = shape
    require(channels in ([], [1]), "layers", "images of one channel for maps", str(shape), "give grey ones")
    return 1, high, wide


def coupled_net(
    lowest: AbstractUnits,
    sizes: tuple[int | Maps, ...],
    on_top: AbstractOnTop,
    classes: int,
    sweeps: int,
    pairing: Pairing = "transposed",
    image: tuple[int, ...] | None = None,
    *,
    key: PRNGKeyArray,
) -> DeepBelief:
    """A coupled pair of so many bits above the lowest units, with small weights; layers below the last may be maps.

    The lowest units are those of an ``image`` of (height, width), or None.

    Raises
    ------
    ValueError
        When the topmost layer is one of maps, or a layer of maps has no image below.

    Examples
    --------
    >>> from ravine.core import Row
    >>> net = coupled_net(BinaryUnits().sized((4,)), (3,), Independent(), 2, 1, key=jr.key(0))
    >>> [leaf.shape for leaf in net.posterior(Row(jnp.ones(4))).mean()[0]]
    [(3,), (2,)]
    """
    *below, last = sizes
    if not isinstance(last, int):
        raise complaint("layers", "a number of units in the topmost layer", repr(last), "add a layer above it")
    layers, lower, *keys = [], lowest, *jr.split(key, len(sizes) + 1)
    maps = None if image is None else grey(image)
    for size, k in zip(below, keys, strict=False):
        upper, coupling, maps = _layer(lower, maps, size, key=k)
        layers.append(PAIRINGS[pairing](lower, upper, coupling))
        lower = upper
    upper = on_top.upper(last, classes)
    layers.append(PAIRINGS[pairing](lower, upper, _dense(lower, upper.size, key=keys[-2])))
    return DeepBelief(tuple(layers), on_top(last, classes, sweeps, key=keys[-1]))


def _layer(
    lower: AbstractUnits, image: Image | None, size: int | Maps, *, key: PRNGKeyArray
) -> tuple[AbstractUnits, AbstractCoupling, Image | None]:
    """The bits above, the coupling to them, and their maps."""
    if isinstance(size, int):
        return BinaryUnits().sized((size,)), _dense(lower, size, key=key), None
    coupling = size.coupling(image, key=key)
    maps = coupling.maps()
    return BinaryUnits().sized((math.prod(maps),)), coupling, maps


def _dense(lower: AbstractUnits, size: int, *, key: PRNGKeyArray) -> Dense:
    return Dense(0.01 * jr.normal(key, (lower.size, size)))
