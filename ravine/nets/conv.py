"""Convolutional nets for images: an encoder to a vector and a decoder from one.

Images are (height, width) or (height, width, channels), as files and arrays have them; a raveled image will do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.nets._init import Shape, glorot, linear, start, vector

Activation = Callable[[Array], Array]
WINDOW = (3, 3)
PLACES = tuple(itertools.product(range(3), repeat=2))  # of a window
# [even or odd cell of twice the size, a cell or its next, place in the window]: 1 where that place links the two
TAPS = np.array([[[0, 1, 0], [0, 0, 0]], [[1, 0, 0], [0, 0, 1]]])


def _image(shape: Shape) -> Shape:
    if len(shape) not in (2, 3):
        raise ValueError(f"an image has shape (height, width) or (height, width, channels), got {shape}.")
    return (*shape, 1)[:3]


def _sides(shape: Shape, levels: int) -> list[tuple[int, int]]:
    """Height and width before and after each halving, rounded up."""
    height, width = shape[:2]
    return [(-(-height // 2**level), -(-width // 2**level)) for level in range(levels + 1)]


class Halving(eqx.Module):
    """A convolution of stride 2 with 3 x 3 windows: sides are halved, rounded up; channels come first.

    On a CPU it is a product of matrices: within a loop, where training lives, XLA's own convolutions are far
    slower there (github.com/jax-ml/jax/issues/12868).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Halving.of(jnp.ones((4, 1, 3, 3)))(jnp.zeros((1, 5, 6))).shape
    (4, 3, 3)
    """

    conv: eqx.nn.Conv2d

    @classmethod
    def of(cls, weight: Float[Array, "out in 3 3"]) -> Self:
        """With these weights, and bias 0."""
        out, into = weight.shape[:2]
        shell = eqx.filter_eval_shape(lambda: eqx.nn.Conv2d(into, out, 3, stride=2, padding=1, key=jr.key(0)))
        return cls(eqx.tree_at(lambda layer: (layer.weight, layer.bias), shell, (weight, jnp.zeros((out, 1, 1)))))

    def __call__(self, x: Float[Array, "in h w"]) -> Float[Array, "out h2 w2"]:
        return lax.platform_dependent(x, cpu=lambda x: self.products(x), default=lambda x: self.conv(x))

    def products(self, x: Float[Array, "in h w"]) -> Float[Array, "out h2 w2"]:
        """Each window as a column, times the weights."""
        height, width = (-(-n // 2) for n in x.shape[1:])
        around = jnp.pad(x, ((0, 0), (1, 1), (1, 1)))
        windows = jnp.stack([around[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2] for i, j in PLACES])
        weight = self.conv.weight.reshape(*self.conv.weight.shape[:2], len(PLACES))
        return jnp.einsum("oik,kihw->ohw", weight, windows) + jnp.asarray(self.conv.bias)


class Doubling(eqx.Module):
    """The transpose of a `Halving`, to an image with these sides, of which each is twice that before or one less.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Doubling.of(jnp.ones((1, 4, 3, 3)), (5, 6), biased=True)(jnp.zeros((4, 3, 3))).shape
    (1, 5, 6)
    """

    conv: eqx.nn.ConvTranspose2d
    sides: tuple[int, int] = eqx.field(static=True)

    @classmethod
    def of(cls, weight: Float[Array, "out in 3 3"], sides: tuple[int, int], biased: bool) -> Self:
        """With these weights, and bias 0 or none."""
        out, into = weight.shape[:2]
        # an even side needs one more row than 2 n - 1
        form = {"stride": 2, "padding": 1, "output_padding": tuple(1 - n % 2 for n in sides), "use_bias": biased}
        shell = eqx.filter_eval_shape(lambda: eqx.nn.ConvTranspose2d(into, out, 3, **form, key=jr.key(0)))
        new = weight, jnp.zeros((out, 1, 1)) if biased else None
        none = lambda leaf: leaf is None  # noqa: E731
        return cls(eqx.tree_at(lambda layer: (layer.weight, layer.bias), shell, new, is_leaf=none), sides)

    def __call__(self, x: Float[Array, "in h w"]) -> Float[Array, "out h2 w2"]:
        return lax.platform_dependent(x, cpu=lambda x: self.products(x), default=lambda x: self.conv(x))

    def products(self, x: Float[Array, "in h w"]) -> Float[Array, "out h2 w2"]:
        """Each cell and its next ones, times the weights of the four cells that it becomes."""
        (out, into), (height, width) = self.conv.weight.shape[:2], x.shape[1:]
        taps = jnp.asarray(TAPS, x.dtype)
        weight = jnp.einsum("pda,qeb,oiab->pqodei", taps, taps, self.conv.weight).reshape(4 * out, 4 * into)
        around = jnp.pad(x, ((0, 0), (0, 1), (0, 1)))
        near = jnp.concatenate([around[:, i : i + height, j : j + width] for i in (0, 1) for j in (0, 1)])
        parts = jnp.einsum("ok,khw->ohw", weight, near).reshape(2, 2, out, height, width)
        whole = parts.transpose(2, 3, 0, 4, 1).reshape(out, 2 * height, 2 * width)
        cut = whole[:, : self.sides[0], : self.sides[1]]
        return cut if self.conv.bias is None else cut + self.conv.bias


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

    layers: tuple[Halving, ...]
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
        self.layers, self.leave = tuple(map(Halving.of, inner)), linear(last, bias)

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
    layers: tuple[Doubling, ...]
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
        self.layers = tuple(map(Doubling.of, inner, sides[-2::-1], biased))

    def __call__(self, x: Array) -> Float[Array, " outputs"]:
        """The outputs for one input of any shape, raveled first."""
        h = self.enter(vector(x, self.enter.weight.shape[1])).reshape(self.small)
        for layer in self.layers:
            h = layer(self.activation(h))
        cells = h.reshape(-1, self.shape[2], *self.shape[:2])
        return jnp.ravel(jnp.moveaxis(cells, 1, -1)) + self.bias
