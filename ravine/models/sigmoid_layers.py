"""The layers of a sigmoid belief net as affine maps of zeros and ones: what its classical inference works on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import equinox as eqx
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float

from ravine._check import require
from ravine._tree import unfix
from ravine.core import AbstractDistribution, AbstractGenerator, Latent, Row
from ravine.dist import Ancestral, Bernoulli, Bits, Conditional
from ravine.models.directed import Directed
from ravine.nets import MLP, Signed

Layers = tuple[Float[Array, " _"], ...]


class SeenCells(eqx.Module):
    """The cells of a row side by side, and which of them are observed; 0 where they are not."""

    x: Float[Array, " cells"]
    seen: Bool[Array, " cells"]

    @staticmethod
    def of(row: Row) -> SeenCells:
        """Those of a row."""
        x = row.x.ravel() if jnp.issubdtype(row.x.dtype, jnp.floating) else row.x.ravel().astype(float)
        seen = jnp.ones(x.shape, bool) if row.mask is None else row.mask.ravel()
        return SeenCells(jnp.where(seen, x, 0), seen)


class SigmoidLayers(eqx.Module):
    r"""Log odds of the units of each layer given the one above, top first.

    .. math:: a_1 = t, \quad a_{l+1} = W_l z_l + b_l, \quad P(z_{l,i} = 1) = \sigma(a_{l,i})

    The last map leads to the cells. Units are 0 or 1 here, whatever the nets read: one that reads signs less their
    mean, :math:`V (2 z - 1 - c) + d`, has :math:`W = 2 V` and :math:`b = d - V (1 + c)`.

    Attributes
    ----------
    top : t, log odds of the units that have no parents.
    weights, biases : W of shape (below, above) and b of each map.
    alone : whether the latent of the net is the array of its one layer rather than a tuple of layers.

    Examples
    --------
    >>> import jax.random as jr
    >>> from ravine.models.belief_net import belief_net
    >>> p = belief_net((2, 3), "-", Bits(), jnp.full(4, 0.25), key=jr.key(0))
    >>> [weight.shape for weight in SigmoidLayers.of(p, "MeanFieldInference").weights]
    [(3, 2), (4, 3)]
    """

    top: Float[Array, " units"]
    weights: tuple[Float[Array, "_ _"], ...]
    biases: tuple[Float[Array, " _"], ...]
    alone: bool = eqx.field(static=True)

    @staticmethod
    def of(generator: AbstractGenerator, what: str) -> SigmoidLayers:
        """Those of a generator; ``what`` needs them.

        Raises
        ------
        ValueError
            When it is no net of bits, or a map between its layers is not affine.
        """
        do = 'use links="-" and cells of 0 and 1, or another inference'
        require(isinstance(generator, Directed), what, "a belief net", type(generator).__name__, do)
        law, last = unfix(cast(Directed, generator).prior_law), cast(Directed, generator).conditional
        layered = isinstance(law, Ancestral)
        first, laws = (law.first, (*law.conditionals, last)) if layered else (law, (last,))
        require(isinstance(first, Bernoulli), what, "bits on top", type(first).__name__, do)
        top = cast(Bernoulli, first).logits
        require(top.ndim == 1, what, "layers of one axis", f"shape {top.shape}", do)
        weights, biases = zip(*(_affine(law, what, do) for law in laws), strict=True)
        return SigmoidLayers(top, weights, biases, not layered)

    def latent(self, layers: tuple[Float[Array, "..."], ...]) -> Latent:
        """The layers as the latent of the net."""
        return layers[0] if self.alone else layers

    def odds(self, i: int, layers: Sequence[Float[Array, " _"]]) -> Float[Array, " _"]:
        """Log odds of layer ``i``, or of the cells after the last one, given the layers: of bits, or of their means."""
        return self.top if i == 0 else self.weights[i - 1] @ layers[i - 1] + self.biases[i - 1]


def _affine(law: Callable[[Latent], AbstractDistribution], what: str, do: str) -> tuple[Array, Array]:
    """W and b of a conditional."""
    require(isinstance(law, Conditional), what, "a net between layers", type(law).__name__, do)
    link = cast(Conditional, law).link
    require(isinstance(link, Bits), what, "bits in every layer and cell", type(link).__name__, do)
    return affine_map(cast(Conditional, law).net, what, do)


def affine_map(net: Any, what: str, do: str) -> tuple[Float[Array, "below above"], Float[Array, " below"]]:
    """W and b of a net that is affine in zeros and ones; no gradient reaches a centre.

    Raises
    ------
    ValueError
        When it is none: ``what`` needs one, and ``do`` says what else there is.
    """
    if isinstance(net, Signed):
        weight, bias = affine_map(net.net, what, do)
        return 2 / net.top * weight, bias - weight @ (1 + stop_gradient(net.centre.value))
    if isinstance(net, MLP) and len(net.layers) == 1:
        return affine_map(net.layers[0], what, do)
    got = f"an MLP of {len(net.layers)} layers" if isinstance(net, MLP) else type(net).__name__
    require(isinstance(net, eqx.nn.Linear), what, "affine maps between layers", got, do)
    linear = cast(eqx.nn.Linear, net)
    return linear.weight, jnp.zeros(linear.weight.shape[0]) if linear.bias is None else linear.bias
