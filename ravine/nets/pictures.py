"""Nets of rows that may be images: with convolutions, or without."""

from __future__ import annotations

import math

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._check import require
from ravine.nets._init import Shape, vector
from ravine.nets.conv import Activation, ConvDecoder, ConvEncoder
from ravine.nets.mlp import MLP


class ConvReader(eqx.Module):
    """Convolutions of an image, then an MLP that also sees the numbers before it.

    Parameters
    ----------
    beside : how many numbers come before the image; they join after the convolutions.
    inputs : how many numbers come in all: those, and one or several planes of the image's size, such as its mask.
    outputs : how many numbers come out.
    image : (height, width) or (height, width, channels).
    channels : feature maps after each halving of the sides.
    hidden : widths after the convolutions; the numbers beside join the first.
    activation : a module-level function; static.
    key : seeds the weights.
    bias : start of the output bias; 0 when None.

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> net = ConvReader(2, 2 + 16, 3, image=(4, 4), channels=(5,), hidden=(6,), key=jr.key(0))
    >>> net(jnp.zeros(18)).shape
    (3,)
    """

    conv: ConvEncoder
    rest: MLP
    beside: int = eqx.field(static=True)
    planes: Shape = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        beside: int,
        inputs: int,
        outputs: int,
        image: Shape,
        channels: tuple[int, ...],
        hidden: tuple[int, ...],
        activation: Activation = jnp.tanh,
        *,
        key: PRNGKeyArray,
        bias: Array | None = None,
    ) -> None:
        first, second = jr.split(key)
        height, width, colours = (*image, 1)[:3]
        planes = (inputs - beside) // math.prod(image)
        self.beside, self.planes, self.activation = beside, (planes, height, width, colours), activation
        self.conv = ConvEncoder((height, width, planes * colours), hidden[0], channels, activation, key=first)
        self.rest = MLP(beside + hidden[0], outputs, hidden[1:], activation, key=second, bias=bias)

    def __call__(self, x: Array) -> Float[Array, " outputs"]:
        """The outputs for one row, of any shape."""
        x = vector(x, self.beside + math.prod(self.planes))
        planes = jnp.moveaxis(x[self.beside :].reshape(self.planes), 0, -2)
        seen = self.activation(self.conv(planes))
        return self.rest(jnp.concatenate([x[: self.beside], seen]))


class ConvWriter(eqx.Module):
    """An MLP, then transposed convolutions to an image.

    Parameters
    ----------
    inputs, outputs : how many numbers go in, and come out: a multiple of the image's cells.
    image : (height, width) or (height, width, channels).
    channels : feature maps, those nearest to the image first.
    hidden : widths before the convolutions.
    activation : a module-level function; static.
    key : seeds the weights.
    bias : start of the output bias, one number per output; 0 when None.

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> ConvWriter(3, 32, image=(4, 4), channels=(5,), hidden=(6,), key=jr.key(0))(jnp.zeros(3)).shape
    (32,)
    """

    rest: MLP
    conv: ConvDecoder
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        image: Shape,
        channels: tuple[int, ...],
        hidden: tuple[int, ...],
        activation: Activation = jnp.tanh,
        *,
        key: PRNGKeyArray,
        bias: Array | None = None,
    ) -> None:
        first, second = jr.split(key)
        self.rest = MLP(inputs, hidden[-1], hidden[:-1], activation, key=first)
        self.conv = ConvDecoder(hidden[-1], image, outputs, channels, activation, key=second, bias=bias)
        self.activation = activation

    def __call__(self, x: Array) -> Float[Array, " outputs"]:
        """The outputs for one input of any shape."""
        return self.conv(self.activation(self.rest(x)))


def reader(
    inputs: int,
    outputs: int,
    hidden: tuple[int, ...],
    activation: Activation,
    image: Shape | None = None,
    channels: tuple[int, ...] = (),
    beside: int = 0,
    *,
    key: PRNGKeyArray,
    bias: Array | None = None,
) -> MLP | ConvReader:
    """An `MLP`, or a `ConvReader` where there are channels.

    Raises
    ------
    ValueError
        When there are channels and rows are no images, or no hidden layer joins what the convolutions see.

    Examples
    --------
    >>> import jax.random as jr
    >>> type(reader(16, 2, (5,), jnp.tanh, (4, 4), (3,), key=jr.key(0))).__name__
    'ConvReader'
    """
    if not channels:
        return MLP(inputs, outputs, hidden, activation, key=key, bias=bias)
    return ConvReader(beside, inputs, outputs, _image(image, hidden), channels, hidden, activation, key=key, bias=bias)


def writer(
    inputs: int,
    outputs: int,
    hidden: tuple[int, ...],
    activation: Activation,
    image: Shape | None = None,
    channels: tuple[int, ...] = (),
    *,
    key: PRNGKeyArray,
    bias: Array | None = None,
) -> MLP | ConvWriter:
    """An `MLP`, or a `ConvWriter` where there are channels; errors are those of `reader`.

    Examples
    --------
    >>> import jax.random as jr
    >>> type(writer(2, 16, (5,), jnp.tanh, key=jr.key(0))).__name__
    'MLP'
    """
    if not channels:
        return MLP(inputs, outputs, hidden, activation, key=key, bias=bias)
    return ConvWriter(inputs, outputs, _image(image, hidden), channels, hidden, activation, key=key, bias=bias)


def _image(image: Shape | None, hidden: tuple[int, ...]) -> Shape:
    do = "give rows of shape (rows, height, width), or channels=()"
    require(image is not None, "channels", "rows that are images", "rows of columns", do)
    require(hidden, "hidden", "one width at least beside channels", "none", "set hidden, such as hidden=(256,)")
    assert image is not None
    return image
