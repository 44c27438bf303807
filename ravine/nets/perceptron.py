"""One layer of a net as a part of its own: what a layer that is a random variable predicts of the next."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.nets._init import glorot, linear, vector
from ravine.nets.activations import identity
from ravine.nets.mlp import affine

Activation = Callable[[Array], Array]


class Perceptron(eqx.Module):
    """``after(W before(h) + b)``.

    Parameters
    ----------
    layer : the affine map.
    before, after : module-level functions; static.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Perceptron(linear(jnp.ones((1, 2))), after=jnp.tanh)(jnp.zeros(2)).tolist()
    [0.0]
    """

    layer: eqx.nn.Linear
    before: Activation = eqx.field(static=True, default=identity)
    after: Activation = eqx.field(static=True, default=identity)

    def __call__(self, h: Array) -> Float[Array, " outputs"]:
        """The outputs for one input of any shape, raveled first."""
        return self.after(affine(self.layer, self.before(vector(h, self.layer.weight.shape[1]))))


def perceptrons(
    widths: tuple[int, ...], activation: Activation, *, key: PRNGKeyArray, bias: Array | None = None
) -> tuple[Perceptron, ...]:
    """The layers of a net ``W_L f(... f(W_1 x + b_1) ...) + b_L``, Glorot uniform; the activation is in the layers.

    Parameters
    ----------
    widths : of the input, of each hidden layer and of the output.
    activation : of all layers but the last.
    bias : start of the bias of the last layer; 0 when None.

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> [layer.layer.weight.shape for layer in perceptrons((4, 3, 2), jnp.tanh, key=jr.key(0))]
    [(3, 4), (2, 3)]
    """
    *inner, last = glorot(tuple((above, below) for below, above in pairwise(widths)), key=key)
    return (*(Perceptron(linear(weight), after=activation) for weight in inner), Perceptron(linear(last, bias)))


def potentials(
    widths: tuple[int, ...], activation: Activation, *, key: PRNGKeyArray, bias: Array | None = None
) -> tuple[Perceptron, ...]:
    """The same with the activation in front of each map but the first: layers hold what the activation is applied to.

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> [layer.before.__name__ for layer in potentials((4, 3, 2), jnp.tanh, key=jr.key(0))]
    ['identity', 'tanh']
    """
    *inner, last = glorot(tuple((above, below) for below, above in pairwise(widths)), key=key)
    layers = (*map(linear, inner), linear(last, bias))
    return tuple(Perceptron(layer, before=activation if i else identity) for i, layer in enumerate(layers))
