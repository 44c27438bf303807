"""Chains of conditionals: the law of (z1, z2, ...) where each depends on the one before."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray, PyTree

from ravine._tree import Fixed, unfix
from ravine.core import AbstractDistribution, Latent, Scalar
from ravine.dist.links import AbstractLink, Shape


class Conditional(eqx.Module):
    """A network and a link: the law of a child given its parent, ``link(net(parent), shape)``.

    Parameters
    ----------
    net : maps a vector to ``link.size(shape)`` numbers.
    link : turns these into a distribution.
    shape : shape of the child.

    Examples
    --------
    >>> import equinox as eqx, jax.numpy as jnp, jax.random as jr
    >>> from ravine.dist import Bits
    >>> p = Conditional(eqx.nn.Linear(3, 4, key=jr.key(0)), Bits(), (2, 2))
    >>> p(jnp.zeros(3)).mean().shape
    (2, 2)
    """

    net: Callable[[Array], Array]
    link: AbstractLink
    shape: Shape = eqx.field(static=True)

    def __call__(self, parent: PyTree[Array], context: PyTree[Array] = None) -> AbstractDistribution:
        """The child's law; parent and context, of any structure and shape, are raveled and concatenated."""
        parts = [jnp.ravel(leaf) for leaf in jax.tree.leaves((parent, context))]
        return self.link(self.net(jnp.concatenate(parts)), self.shape)


class Ancestral(AbstractDistribution):
    r"""The law of a tuple: z1 from ``first``, then each from its conditional given the one before.

    .. math:: \log p(z_1, \dots, z_L) = \log p(z_1) + \sum_l \log p(z_{l+1} \mid z_l)

    Parameters
    ----------
    first : the law of z1; in a `Fixed` if it is not learned.
    conditionals : callables from z_l to the law of z_{l+1}, such as `Conditional`.

    Raises
    ------
    ValueError
        When `log_prob` gets a tuple of another length, or a mask: no link of the chain can be left out exactly.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ravine.dist import Bernoulli
    >>> d = Ancestral(Bernoulli(jnp.zeros(2)), Bernoulli)
    >>> round(float(d.log_prob((jnp.ones(2), jnp.zeros(2)))), 4)  # -2 log 2 - 2 softplus(1)
    -4.0128
    """

    root: AbstractDistribution | Fixed
    conditionals: tuple[Callable[[Array], AbstractDistribution], ...]

    def __init__(
        self, first: AbstractDistribution | Fixed, *conditionals: Callable[[Array], AbstractDistribution]
    ) -> None:
        self.root = first
        self.conditionals = conditionals

    @property
    def first(self) -> AbstractDistribution:
        """The law of z1."""
        return unfix(self.root)

    def sample(self, *, key: PRNGKeyArray) -> Latent:
        """A tuple with one draw per link of the chain."""
        keys = jr.split(key, 1 + len(self.conditionals))
        draws = [self.first.sample(key=keys[0])]
        for conditional, k in zip(self.conditionals, keys[1:], strict=True):
            draws.append(conditional(draws[-1]).sample(key=k))
        return tuple(draws)

    def log_prob(self, value: Latent, mask: PyTree = None) -> Scalar:
        """Log density of the whole tuple, in nats."""
        if mask is not None:
            raise ValueError("Ancestral cannot marginalise under a mask, got one; score complete tuples, mask=None.")
        if len(value) != 1 + len(self.conditionals):
            raise ValueError(f"Ancestral needs a tuple of {1 + len(self.conditionals)} values, got {len(value)}.")
        laws = zip(self.conditionals, value[:-1], value[1:], strict=True)
        return self.first.log_prob(value[0]) + sum(law(z).log_prob(child) for law, z, child in laws)

    def mean(self) -> Latent:
        """The mean of z1, then the mean of each conditional at the mean before it.

        This is the expectation for z1, and for later ones whose conditional mean is affine in the one before;
        otherwise it is an approximation, to be replaced by an average over draws.
        """
        means = [self.first.mean()]
        for conditional in self.conditionals:
            means.append(conditional(means[-1]).mean())
        return tuple(means)
