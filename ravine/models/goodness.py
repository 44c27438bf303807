"""Layers that learn to be good at real rows and bad at others. Hinton 2022, arXiv:2212.13345.

A layer sees its input at unit mean square, so that how good the layer below was is hidden from it.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._check import complaint, require
from ravine._tree import Running
from ravine.core import Scalar
from ravine.nets._init import glorot, linear

EPS = 1e-8
Vector = Float[Array, " n"]


def normalised(x: Vector) -> Vector:
    """The direction of a vector, at a mean square of 1; 0 stays 0.

    Examples
    --------
    >>> [round(float(x), 4) for x in normalised(jnp.array([3.0, 4.0]))]
    [0.8485, 1.1314]
    """
    return x * jax.lax.rsqrt(jnp.mean(x**2) + EPS)


class AbstractGoodness(eqx.Module):
    """How good the activities of a layer are, less the threshold: the log odds that its input is real."""

    @abc.abstractmethod
    def __call__(self, y: Vector) -> Scalar:
        """The log odds."""


class SumOfSquares(AbstractGoodness):
    r""":math:`\sum_j y_j^2 - \theta`.

    Parameters
    ----------
    threshold : :math:`\theta`; None is the number of units.
    """

    threshold: float | None = None

    def __call__(self, y: Vector) -> Scalar:
        return jnp.sum(y**2) - (y.size if self.threshold is None else self.threshold)


class MeanOfSquares(AbstractGoodness):
    r""":math:`\frac 1 n \sum_j y_j^2 - \theta`.

    Parameters
    ----------
    threshold : :math:`\theta`.
    """

    threshold: float = 2.0

    def __call__(self, y: Vector) -> Scalar:
        return jnp.mean(y**2) - self.threshold


class Minus(AbstractGoodness):
    """Little activity is good: the negative of another goodness, as predictive coding would have it.

    Parameters
    ----------
    of : the other.
    """

    of: AbstractGoodness = SumOfSquares()

    def __call__(self, y: Vector) -> Scalar:
        return -self.of(y)


class AbstractRectifier(eqx.Module):
    """The nonlinearity of a layer: the positive part, and what of its slope learning sees."""

    @abc.abstractmethod
    def __call__(self, a: Vector) -> Vector:
        """The activities."""


class Rectified(AbstractRectifier):
    """The positive part with its own slope: a unit that is silent for every row learns no more."""

    def __call__(self, a: Vector) -> Vector:
        return jax.nn.relu(a)


class RectifiedThrough(AbstractRectifier):
    """The positive part, whose slope is taken to be 1 everywhere: silent units hear what their peers ask of them.

    A sum of squares asks nothing of a unit at 0, where its own slope is 0. So layers one above the other learn the
    same with `Rectified`, unless peers are pulled together; in nets with moments a unit may be silent and not at 0.
    """

    def __call__(self, a: Vector) -> Vector:
        return a + stop_gradient(jax.nn.relu(a) - a)


class LocalUnits(eqx.Module):
    """An affine map of an image whose units each see one window of it, with weights of their own.

    Parameters
    ----------
    weight : shape (windows, units of a window, cells of a window).
    bias : shape (windows, units of a window).
    image : (height, width, channels).
    side, stride : of the windows, in pixels.
    """

    weight: Float[Array, "windows units cells"]
    bias: Float[Array, "windows units"]
    image: tuple[int, int, int] = eqx.field(static=True)
    side: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)

    def __call__(self, x: Vector) -> Float[Array, " units"]:
        """What the units of all windows receive."""
        seen = x[jnp.asarray(windows(self.image, self.side, self.stride))]
        return (jnp.einsum("wuc,wc->wu", self.weight, seen) + self.bias).ravel()


def windows(image: tuple[int, int, int], side: int, stride: int) -> np.ndarray:
    """The places of the cells that each window holds, shape (windows, cells of a window).

    Examples
    --------
    >>> windows((2, 3, 1), 2, 1).tolist()
    [[0, 1, 3, 4], [1, 2, 4, 5]]
    """
    places = np.arange(math.prod(image)).reshape(image)
    seen = np.lib.stride_tricks.sliding_window_view(places, (side, side), axis=(0, 1))[::stride, ::stride]
    return seen.reshape(seen.shape[0] * seen.shape[1], -1)


class Local(eqx.Module):
    """The size of a layer of which each unit sees one window of an image.

    Parameters
    ----------
    units : at each window.
    side, stride : of the windows, in pixels.
    """

    units: int = eqx.field(static=True, default=8)
    side: int = eqx.field(static=True, default=9)
    stride: int = eqx.field(static=True, default=3)


class GoodLayer(eqx.Module):
    """An affine map of the direction of its input, and a rectifier.

    Parameters
    ----------
    affine : the map.
    rectifier : the nonlinearity.
    usual : mean activity of each unit, which follows the batches.
    """

    affine: Callable[[Array], Array]
    rectifier: AbstractRectifier
    usual: Running

    def __call__(self, x: Vector) -> Float[Array, " units"]:
        """The activities."""
        return self.rectifier(self.affine(normalised(x)))


def good_layers(
    inputs: int,
    sizes: tuple[int | Local, ...],
    rectifier: AbstractRectifier,
    image: tuple[int, ...] | None,
    *,
    key: PRNGKeyArray,
) -> tuple[GoodLayer, ...]:
    """Layers of so many units, each above the other; the lowest ones may be local where rows are images.

    Raises
    ------
    ValueError
        When there is no layer, or one is local above no image.
    """
    require(len(sizes) > 0, "layers", "one at least", "none", "give the units of each, such as (500, 500)")
    layers, below = [], None if image is None else (*image, 1)[:3]
    for size, k in zip(sizes, jr.split(key, len(sizes)), strict=True):
        affine, below = _affine(inputs, size, below, key=k)
        inputs = cast(Array, affine.bias).size
        layers.append(GoodLayer(affine, rectifier, Running(jnp.zeros(inputs))))
    return tuple(layers)


def _affine(
    inputs: int, size: int | Local, image: tuple[int, ...] | None, *, key: PRNGKeyArray
) -> tuple[eqx.nn.Linear | LocalUnits, tuple[int, int, int] | None]:
    """The map, and the image that its units make."""
    if not isinstance(size, Local):
        return linear(*glorot(((size, inputs),), key=key)), None
    if image is not None and math.prod(image) != inputs:
        do = "show the label in its first cells, place=FirstCells()"
        raise complaint("place", "an image alone below Local", f"{inputs} cells for {math.prod(image)} pixels", do)
    if image is None or min(image[:2]) < size.side:
        got = "none" if image is None else f"one of {' x '.join(map(str, image))}"
        do = "give rows of shape (rows, height, width), or a number of units"
        raise complaint("layers", f"an image of at least {size.side} rows and columns below Local", got, do)
    high, wide = ((n - size.side) // size.stride + 1 for n in image[:2])
    cells = size.side**2 * image[2]
    noise = jr.uniform(key, (high * wide, size.units, cells), minval=-1) * math.sqrt(6 / (cells + size.units))
    whole = (image[0], image[1], image[2])
    made = LocalUnits(noise, jnp.zeros((high * wide, size.units)), whole, size.side, size.stride)
    return made, (high, wide, size.units)
