"""Models whose latent is a class and a style; the class of some rows is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ravine._tree import Fixed, unfix
from ravine.core import (
    AbstractDirected,
    AbstractDistribution,
    AbstractGenerator,
    AbstractPosterior,
    AbstractRecogniser,
    Latent,
    Row,
)
from ravine.dist import Ancestral, OneHot
from ravine.posteriors import Chain
from ravine.recognisers import Filled


class Whatever(eqx.Module):
    """The same law whatever came before it."""

    law: AbstractDistribution

    def __call__(self, parent: PyTree[Array]) -> AbstractDistribution:
        return self.law


class Labelled(AbstractDirected):
    r"""A class, a style that does not depend on it, and a row from both: :math:`p(y) \, p(z) \, p(x \mid y, z)`.

    The latent is ``(y, z)`` with y one-hot. M2 of Kingma, Rezende, Mohamed & Welling 2014, arXiv:1406.5298.

    Parameters
    ----------
    shares : the law of the class.
    style : the law of z; `Fixed` when it is not learned.
    conditional : from y and z side by side to the law of a row.

    Examples
    --------
    >>> import jax.random as jr
    >>> from ravine.dist import Bits, Conditional, Gaussian
    >>> from ravine.nets import MLP
    >>> net = Conditional(MLP(5, 4, (8,), key=jr.key(0)), Bits(), (4,))
    >>> p = Labelled(OneHot(jnp.zeros(3)), Fixed(Gaussian(jnp.zeros(2), jnp.ones(2))), net)
    >>> (y, z), x = p.sample(key=jr.key(1))
    >>> y.shape, z.shape, x.shape
    ((3,), (2,), (4,))
    """

    shares: OneHot
    style: AbstractDistribution | Fixed
    conditional: Callable[..., AbstractDistribution]

    def prior(self, context: PyTree = None) -> Ancestral:
        return Ancestral(self.shares, Whatever(unfix(self.style)))

    def likelihood(self, z: Latent, context: PyTree = None) -> AbstractDistribution:
        return self.conditional(z[0], z[1])


class ClassThenStyle(AbstractRecogniser):
    """``q(y | x) q(z | x, y)``: the class first.

    Parameters
    ----------
    read : how a row is seen.
    label : from a row to the law of its class.
    style : from a class and a row to the law of its style.
    """

    read: Filled
    label: Callable[..., Any]
    style: Callable[..., AbstractDistribution]

    def __call__(self, generator: AbstractGenerator, row: Row) -> AbstractPosterior:
        seen = self.read(row)
        return Chain(self.label(seen), (eqx.Partial(self.style, context=seen),))


def one_hot(row: Row, classes: int) -> Float[Array, " classes"]:
    """The class of a row, whose ``y`` is its number; nothing but zeros where it has none."""
    return jnp.asarray(jnp.arange(classes) == (-1 if row.y is None else row.y), row.x.dtype)
