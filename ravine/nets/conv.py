"""Convolutional nets for images: an encoder to a vector and a decoder from one.

Images are (height, width) or (height, width, channels), as files and arrays have them; a raveled image will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.nets._init import Shape, glorot, linear, start, vector

Activation = Callable[[Array], Array]
WINDOW = (3, 3)


def _image(shape: Shape) -> Shape:
    if len(shape) not in (2, 3):
        raise ValueError(f"an image has shape (height, width) or (height, width, channels), got {shape}.")
    return (*shape, 1)[:3]


def _sides(shape: Shape, levels: int) -> list[tuple[int, int]]:
    """Height and width before and after each halving, rounded up."""
    height, width = shape[:2]
    return [(-(-height // 2**level), -(-width // 2**level)) for level in range(levels + 1)]


def _down(weight: Float[Array, "out in 3 3"]) -> eqx.nn.Conv2d:
    """A convolution of stride 2 with these weights and bias 0: sides are halved, rounded up."""
    out, into = weight.shape[:2]
    shell = eqx.filter_eval_shape(lambda: eqx.nn.Conv2d(into, out, 3, stride=2, padding=1, key=jr.key(0)))
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), shell, (weight, jnp.zeros((out, 1, 1))))


def _up(weight: Float[Array, "out in 3 3"], side: tuple[int, int], biased: bool) -> eqx.nn.ConvTranspose2d:
    """Its transpose, to an image with these sides: an even side needs one more row than 2 n - 1."""
    out, into = weight.shape[:2]
    form = {"stride": 2, "padding": 1, "output_padding": tuple(1 - n % 2 for n in side), "use_bias": biased}
    shell = eqx.filter_eval_shape(lambda: eqx.nn.ConvTranspose2d(into, out, 3, **form, key=jr.key(0)))
    new = weight, jnp.zeros((out, 1, 1)) if biased else None
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), shell, new, is_leaf=lambda leaf: leaf is None)


class ConvEncoder(eqx.Module):
    """Convolutions of stride 2 with 3 x 3 windows, then an affine layer to a vector.

    Striding in place of pooling: Springenberg et al. 2015, *Striving for simplicity*, arXiv:1412.6806.

    Parameters
    ----------
    shape : of the image, (height, width) or (height, width, channels); any sides.
    outputs : how many numbers come out.
    channels : feature maps after each halving of the sides.
    activation : a module-level function; static.
    key : seeds the weights, Glorot uniform; biases start at 0.
    bias : start of the output bias, shape (outputs,); 0 when None.

    Raises
    ------
    ValueError
        When the shape is no image's, or the bias or an input has another size.

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> ConvEncoder((7, 6), 4, channels=(2, 3), key=jr.key(0))(jnp.zeros((7, 6))).shape
    (4,)
    """

    layers: tuple[eqx.nn.Conv2d, ...]
    leave: eqx.nn.Linear
    shape: Shape = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        shape: Shape,
        outputs: int,
        channels: tuple[int, ...] = (32, 64),
        activation: Activation = jax.nn.silu,
        *,
        key: PRNGKeyArray,
        bias: Array | None = None,
    ) -> None:
        self.shape, self.activation = _image(shape), activation
        maps = (self.shape[2], *channels)
        windows = [(out, into, *WINDOW) for into, out in zip(maps[:-1], maps[1:], strict=True)]
        features = maps[-1] * math.prod(_sides(self.shape, len(channels))[-1])
        *inner, last = glorot((*windows, (outputs, features)), key=key)
        self.layers, self.leave = tuple(map(_down, inner)), linear(last, bias)

    def __call__(self, x: Array) -> Float[Array, " outputs"]:
        """The outputs for one image, of its own shape or raveled."""
        h = jnp.moveaxis(vector(x, math.prod(self.shape)).reshape(self.shape), -1, 0)
        for layer in self.layers:
            h = self.activation(layer(h))
        return self.leave(jnp.ravel(h))


class ConvDecoder(eqx.Module):
    """An affine layer to small feature maps, then transposed convolutions of stride 2 that double the sides.

    Radford, Metz and Chintala 2016, *Unsupervised representation learning with deep convolutional generative
    adversarial networks*, arXiv:1511.06434, section 3, without batch normalisation.

    Parameters
    ----------
    inputs : how many numbers go in.
    shape : of the image that comes out, (height, width) or (height, width, channels); any sides.
    outputs : ``link.size(shape)``, a multiple of the image's cells; all first numbers come first, in the image's order.
    channels : feature maps, those nearest to the image first, as in `ConvEncoder`.
    activation : a module-level function; static.
    key : seeds the weights, Glorot uniform; biases start at 0.
    bias : start of the output bias, one number per output, such as the logits of each pixel's base rate; 0 when None.

    Raises
    ------
    ValueError
        When the shape is no image's, outputs is no multiple of its cells, or the bias or an input has another size.

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> ConvDecoder(4, (7, 6), 84, channels=(2, 3), key=jr.key(0))(jnp.zeros(4)).shape
    (84,)
    """

    enter: eqx.nn.Linear
    layers: tuple[eqx.nn.ConvTranspose2d, ...]
    bias: Float[Array, " outputs"]
    small: Shape = eqx.field(static=True)
    shape: Shape = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        shape: Shape,
        outputs: int,
        channels: tuple[int, ...] = (32, 64),
        activation: Activation = jax.nn.silu,
        *,
        key: PRNGKeyArray,
        bias: Array | None = None,
    ) -> None:
        self.shape, self.activation, self.bias = _image(shape), activation, start(bias, outputs)
        if outputs % math.prod(shape) or not channels:
            cells = f"outputs must be a multiple of the {math.prod(shape)} cells"
            raise ValueError(f"{cells} and channels not empty, got {outputs} and {channels}.")
        sides, maps = _sides(self.shape, len(channels)), (outputs // math.prod(self.shape[:2]), *channels)
        self.small = (maps[-1], *sides[-1])
        windows = [(out, into, *WINDOW) for out, into in zip(maps[:-1], maps[1:], strict=True)]
        first, *inner = glorot(((math.prod(self.small), inputs), *windows[::-1]), key=key)
        self.enter = linear(first)
        # the last layer has no bias of its own: `bias` is one number for each pixel instead of each channel
        biased = [True] * (len(channels) - 1) + [False]
        self.layers = tuple(map(_up, inner, sides[-2::-1], biased))

    def __call__(self, x: Array) -> Float[Array, " outputs"]:
        """The outputs for one input of any shape, raveled first."""
        h = self.enter(vector(x, self.enter.weight.shape[1])).reshape(self.small)
        for layer in self.layers:
            h = layer(self.activation(h))
        cells = h.reshape(-1, self.shape[2], *self.shape[:2])
        return jnp.ravel(jnp.moveaxis(cells, 1, -1)) + self.bias
