"""Models whose latent is a class and a style; the class of some rows is known."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, PyTree

from ravine._tree import Fixed, unfix
from ravine.core import (
    AbstractDirected,
    AbstractDistribution,
    Latent,
)
from ravine.dist import Ancestral, OneHot


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
    >>> import jax.numpy as jnp
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
