"""Nets that read bits as signs around their mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._tree import Fixed, Running
from ravine.nets.activations import tanh
from ravine.nets.mlp import MLP

Links = Literal["-", "~"]
INNER = {"-": 0, "~": 2}  # hidden layers of a link


class Signed(eqx.Module):
    """``net(2 x / top - 1 - centre)``: bits as -1 and 1, less their mean, through which no gradient flows.

    The activities of Maddison, Mnih and Teh 2017, arXiv:1611.00712, section 5; levels are spread evenly between.

    Parameters
    ----------
    net : from a vector to a vector.
    centre : mean of the signs, of their shape; a `Running` one is told by `ravine.objectives.Centring`.
    layer : which layer of latents is read, as the generator lists them; of no use with a `Fixed` centre.
    top : the largest value, of which 1 is the sign: 1 of bits, 4 of five levels.

    Examples
    --------
    >>> Signed(jnp.negative, Fixed(jnp.array([0.0, 0.5])))(jnp.array([1.0, 0.0])).tolist()
    [-1.0, 1.5]
    """

    net: Callable[[Array], Array]
    centre: Fixed | Running
    layer: int = eqx.field(static=True, default=0)
    top: int = eqx.field(static=True, default=1)

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The outputs for bits, or for numbers between 0 and 1 that stand for them."""
        return self.net(self.signs(x) - stop_gradient(self.centre.value))

    def signs(self, x: Float[Array, " inputs"]) -> Float[Array, " inputs"]:
        """Values from 0 to ``top`` as numbers from -1 to 1."""
        return 2 / self.top * x - 1


class Logged(eqx.Module):
    """``net(log(1 + x))``: counts, which may be large.

    Examples
    --------
    >>> Logged(jnp.exp)(jnp.array([0.0, 3.0])).tolist()
    [1.0, 4.0]
    """

    net: Callable[[Array], Array]

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The outputs for counts."""
        return self.net(jnp.log1p(x))


def linked(
    inputs: int, outputs: int, upper: int, links: Links, *, key: PRNGKeyArray, bias: Array | None = None
) -> MLP:  # fmt: skip
    """The net of a link between layers of bits: affine (``"-"``), or with two tanh layers of ``upper`` units (``"~"``).

    Examples
    --------
    >>> import jax.random as jr
    >>> [layer.weight.shape for layer in linked(4, 3, 2, "~", key=jr.key(0)).layers]
    [(2, 4), (2, 2), (3, 2)]
    """
    return MLP(inputs, outputs, (upper,) * INNER[links], tanh, key=key, bias=bias)


def centred(size: int) -> Running:
    """The centre that a layer of bits begins with: as many ones as zeros."""
    return Running(jnp.zeros(size))
