"""Layers of latents of any law, with deterministic layers between them: what the nets of both directions are made of.

Dayan, Hinton, Neal & Zemel 1995, *The Helmholtz machine*; Rezende, Mohamed & Wierstra 2014, arXiv:1401.4082, for layers
of Gaussian noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array

from ravine._check import require, shown, translated, whole
from ravine._tree import Fixed
from ravine.core import AbstractDistribution
from ravine.dist import (
    AbstractLink,
    Bernoulli,
    Binomial,
    Bits,
    Counts,
    Gaussian,
    Levels,
    ManyZeros,
    NegativeBinomial,
    OneHot,
    Overdispersed,
    Poisson,
    Subset,
    ZeroInflated,
)
from ravine.nets import INNER, MLP, Links, Logged, Signed, centred

Shape = tuple[int, ...]

# Laws that are of some kind whatever numbers they hold: a prior of theirs may be learned by any step.
FREE = (Bernoulli, Binomial, NegativeBinomial, OneHot, Poisson, Subset, ZeroInflated)


class LatentLayer(eqx.Module):
    """A stochastic layer of a net, and the deterministic ones between it and what is below it: a layer, or the data.

    How the nets on either side read the layer depends on its law:

    - bits as -1 and 1, less their running mean; levels likewise, spread evenly from -1 to 1,
    - counts as log(1 + x),
    - all others, such as real numbers and one-hot vectors, as they are.

    Parameters
    ----------
    shape : of a draw; for `Classes` and other laws of groups the last axis lists what a group chooses from.
    law : how numbers become the law of the layer: ``Bits()``, ``Classes()``, ``Real()``, ``Counts()``, ``Levels(5)``,
        ...
    hidden : widths of the deterministic layers of tanh units from this layer down; the recogniser has them in reverse.

    Raises
    ------
    ValueError
        When there is no such law, or a layer without units.

    Examples
    --------
    >>> from ravine.dist import Classes
    >>> LatentLayer((20, 10), Classes(), hidden=(200,)).cells()
    200
    >>> LatentLayer((0,))
    Traceback (most recent call last):
    ravine._check.Complaint: shape of a LatentLayer: expected a whole number of at least 1, got 0; change it.
    """

    shape: Shape = eqx.field(static=True)
    law: AbstractLink = Bits()
    hidden: tuple[int, ...] = eqx.field(static=True, default=())

    def __check_init__(self) -> None:
        for name, sizes in (("shape", self.shape), ("hidden", self.hidden)):
            for size in sizes:
                whole(f"{name} of a LatentLayer", size)
        require(self.shape, "shape of a LatentLayer", "at least one axis", "()", "write (1,) for a single cell")
        what = f"a LatentLayer of {shown(self.law)}"
        with translated(what, f"a law of shape {self.shape}", "change one of them"):
            draw = eqx.filter_eval_shape(lambda key: self.start().sample(key=key), jr.key(0))
        require(draw.shape == self.shape, what, f"draws of shape {self.shape}", f"{draw.shape}", "change one of them")

    def cells(self) -> int:
        """How many numbers a draw holds."""
        return math.prod(self.shape)

    def start(self) -> AbstractDistribution:
        """The law of the numbers 0."""
        return self.law(jnp.zeros(self.law.size(self.shape)), self.shape)

    def prior(self) -> AbstractDistribution | Fixed:
        """The law of the layer where nothing is above it.

        Of bits, classes, subsets, levels and counts it is learned, and begins even, or with a mean of 1. Of real
        numbers it is standard normal, and held: a map from them can do whatever a learned one could. Others are held at
        what the numbers 0 stand for.
        """
        law = self.start()
        if isinstance(law, FREE):
            return law
        return Fixed(Gaussian(jnp.zeros(self.shape), jnp.ones(self.shape)) if isinstance(law, Gaussian) else law)

    def read(self, net: MLP, place: int) -> Callable[[Array], Array]:
        """The net, as it sees this layer, which is the one at ``place`` among the latents of the generator."""
        match self.law:
            case Bits():
                return Signed(net, centred(self.cells()), place)
            case Levels(count=count):
                return Signed(net, centred(self.cells()), place, count - 1)
            case Counts() | Overdispersed() | ManyZeros():
                return Logged(net)
        return net


def as_layers(layers: Iterable[int | LatentLayer]) -> tuple[LatentLayer, ...]:
    """The layers, those that are given as a number being so many bits.

    Raises ``ValueError`` when there are none.

    Examples
    --------
    >>> from ravine.dist import Classes
    >>> [layer.shape for layer in as_layers((3, LatentLayer((2, 4), Classes())))]
    [(3,), (2, 4)]
    """
    made = tuple(
        layer if isinstance(layer, LatentLayer) else LatentLayer((whole("layers", layer),)) for layer in layers
    )
    require(made, "layers", "at least one layer", "()", "name one")
    return made


def bits_linked(layers: Iterable[int], links: Links) -> tuple[LatentLayer, ...]:
    """Layers of so many bits each; below each nothing (``"-"``), or two layers of as many tanh units (``"~"``).

    Examples
    --------
    >>> [layer.hidden for layer in bits_linked((2, 3), "~")]
    [(2, 2), (3, 3)]
    """
    return tuple(LatentLayer((bits,), hidden=(bits,) * INNER[links]) for bits in layers)
