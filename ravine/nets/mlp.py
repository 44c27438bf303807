"""Fully connected nets: a plain stack of layers, and one with skip connections."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.nets._init import glorot, linear, vector

Activation = Callable[[Array], Array]


class MLP(eqx.Module):
    r"""Affine layers with an activation between them, :math:`h_{l+1} = f(W_l h_l + b_l)`; none after the last.

    Weights start as Glorot uniform, biases at 0, both of the default float type.

    Parameters
    ----------
    inputs, outputs : how many numbers go in and out.
    hidden : width of each hidden layer; ``()`` is a single affine map.
    activation : a module-level function such as ``jnp.tanh``; static, so that two nets of one form trace once.
    key : seeds the weights.
    bias : start of the output bias, shape (outputs,), such as the logits of the data's base rates; 0 when None.

    Raises
    ------
    ValueError
        When the bias or an input has another size.

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> MLP(4, 2, hidden=(8,), key=jr.key(0))(jnp.zeros((2, 2))).tolist()
    [0.0, 0.0]
    """

    layers: tuple[eqx.nn.Linear, ...]
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: tuple[int, ...] = (200, 200),
        activation: Activation = jnp.tanh,
        *,
        key: PRNGKeyArray,
        bias: Array | None = None,
    ) -> None:
        widths = (inputs, *hidden, outputs)
        *inner, last = glorot(tuple(zip(widths[1:], widths[:-1], strict=True)), key=key)
        self.layers = (*map(linear, inner), linear(last, bias))
        self.activation = activation

    def __call__(self, x: Array) -> Float[Array, " outputs"]:
        """The outputs for one input of any shape, raveled first."""
        h = vector(x, self.layers[0].weight.shape[1])
        for layer in self.layers[:-1]:
            h = self.activation(affine(layer, h))
        return affine(self.layers[-1], h)


def affine(layer: eqx.nn.Linear, h: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
    """``W h + b``, with h on the left: rows and draws that are mapped over become rows of one product as they lie."""
    product = h @ layer.weight.T
    return product if layer.bias is None else product + layer.bias


def mirrored(hidden: tuple[int, ...], instead: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Widths of the hidden layers of the net on the other side: the same in reverse, or others where they are given.

    Examples
    --------
    >>> mirrored((512, 256)), mirrored((512, 256), ())
    ((256, 512), ())
    """
    return hidden[::-1] if instead is None else instead


class ResBlock(eqx.Module):
    r"""One residual step, :math:`h + W_2 f(W_1 \mathrm{norm}(h))`.

    He, Zhang, Ren and Sun 2016, *Identity mappings in deep residual networks*, arXiv:1603.05027, with layer
    normalisation (Ba, Kiros and Hinton 2016, arXiv:1607.06450) in place of batch normalisation: one row at a time.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> ResBlock(jnp.zeros((2, 3)), jnp.zeros((3, 2)), jnp.tanh)(jnp.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    norm: eqx.nn.LayerNorm
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    activation: Activation = eqx.field(static=True)

    def __init__(self, first: Array, second: Array, activation: Activation) -> None:
        self.norm = eqx.nn.LayerNorm(first.shape[1])
        self.first, self.second = linear(first), linear(second)
        self.activation = activation

    def __call__(self, h: Float[Array, " width"]) -> Float[Array, " width"]:
        """The input plus its correction."""
        return h + self.second(self.activation(self.first(self.norm(h))))


class ResMLP(eqx.Module):
    """An affine layer, residual blocks of one width, and an affine layer: trains at depths where `MLP` does not.

    Parameters
    ----------
    inputs, outputs : how many numbers go in and out.
    width : size of the stream that the blocks add to.
    blocks : how many residual blocks.
    activation : a module-level function; static.
    key : seeds the weights.
    bias : start of the output bias, shape (outputs,); 0 when None.

    Raises
    ------
    ValueError
        When the bias or an input has another size.

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> ResMLP(4, 2, width=8, blocks=1, key=jr.key(0))(jnp.zeros(4)).shape
    (2,)
    """

    enter: eqx.nn.Linear
    blocks: tuple[ResBlock, ...]
    leave: eqx.nn.Linear

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 200,
        blocks: int = 2,
        activation: Activation = jax.nn.silu,
        *,
        key: PRNGKeyArray,
        bias: Array | None = None,
    ) -> None:
        square = (width, width)
        enter, *inner, leave = glorot(((width, inputs), *[square] * (2 * blocks), (outputs, width)), key=key)
        self.enter, self.leave = linear(enter), linear(leave, bias)
        self.blocks = tuple(ResBlock(a, b, activation) for a, b in zip(inner[::2], inner[1::2], strict=True))

    def __call__(self, x: Array) -> Float[Array, " outputs"]:
        """The outputs for one input of any shape, raveled first."""
        h = self.enter(vector(x, self.enter.weight.shape[1]))
        for block in self.blocks:
            h = block(h)
        return self.leave(h)
