"""Directed generators p(z) p(x | z), and their pairing with a recogniser."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
from jaxtyping import PRNGKeyArray, PyTree

from ravine._tree import Fixed, unfix
from ravine.core import (
    AbstractDirected,
    AbstractDistribution,
    AbstractGradient,
    AbstractLatentModel,
    AbstractPosterior,
    AbstractRecogniser,
    Latent,
    Objective,
    Row,
)


class Directed(AbstractDirected):
    """``z ~ prior``, ``x ~ conditional(z)``.

    Wrap the prior in `Fixed` when it is not learned. For several stochastic layers the prior is an
    ``Ancestral`` distribution over the tuple of layers and the conditional reads the last of them; of a chain, the
    first law alone may be in a `Fixed`.

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> from ravine.dist import Bits, Conditional, Gaussian
    >>> from ravine.nets import MLP
    >>> prior = Fixed(Gaussian(jnp.zeros(2), jnp.ones(2)))
    >>> p = Directed(prior, Conditional(MLP(2, 5, (8,), key=jr.key(0)), Bits(), (5,)))
    >>> z, x = p.sample(key=jr.key(1))
    >>> z.shape, x.shape
    ((2,), (5,))
    """

    prior_law: AbstractDistribution | Fixed
    conditional: Callable[[Latent], AbstractDistribution]

    def prior(self, context: PyTree = None) -> AbstractDistribution:
        return unfix(self.prior_law)

    def likelihood(self, z: Latent, context: PyTree = None) -> AbstractDistribution:
        return self.conditional(z[-1] if isinstance(z, tuple) else z)


class Helmholtz(AbstractDirected, AbstractLatentModel):
    """A generator ``p`` and a recogniser ``q`` that proposes z for a row."""

    p: AbstractDirected
    q: AbstractRecogniser

    def prior(self, context: PyTree = None) -> AbstractDistribution:
        return self.p.prior(context)

    def likelihood(self, z: Latent, context: PyTree = None) -> AbstractDistribution:
        return self.p.likelihood(z, context)

    def posterior(self, row: Row) -> AbstractPosterior:
        return self.q(self.p, row)


class Learned(AbstractDirected, AbstractLatentModel):
    """A model together with the gradient estimator that learns beside it, such as a baseline or a control variate.

    ``ELBO()`` and its like, without an estimator or with one of the same kind, take this one. Everything else is the
    model's. `with_learned` makes one where an estimator learns.
    """

    model: Helmholtz
    gradient: AbstractGradient

    def prior(self, context: PyTree = None) -> AbstractDistribution:
        return self.model.prior(context)

    def likelihood(self, z: Latent, context: PyTree = None) -> AbstractDistribution:
        return self.model.likelihood(z, context)

    def posterior(self, row: Row) -> AbstractPosterior:
        return self.model.posterior(row)


def with_learned(
    model: Helmholtz,
    learner: AbstractGradient | Objective,
    inputs: int,
    latents: Sequence[int],
    *,
    key: PRNGKeyArray,
) -> Helmholtz | Learned:
    """The model, with its gradient estimator beside it if that has parts that learn.

    Parameters
    ----------
    learner : the estimator, or the objective that holds one.
    inputs : cells of a row.
    latents : cells of each stochastic node, in the order of the posterior.
    """
    is_gradient = lambda node: isinstance(node, AbstractGradient)  # noqa: E731
    held = [node for node in jax.tree.leaves(learner, is_leaf=is_gradient) if is_gradient(node)]
    learning = [(node, node.learning(inputs, latents, key=key)) for node in held]
    moving = [after for before, after in learning if after is not before]
    return Learned(model, moving[0]) if moving else model
