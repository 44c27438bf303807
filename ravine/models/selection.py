"""A selector of cells and a classifier that sees only what was selected."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDistribution, AbstractGradient, Row, Scalar
from ravine.posteriors import OneNode


class Selective(eqx.Module):
    """``S ~ select(x)``, ``y ~ softmax(classify(x_S))``: cells outside of S are 0 to the classifier.

    Where the row's reading tells which cells are missing, the classifier is told of those in S. ``row.y`` holds the
    probability of each class.

    Attributes
    ----------
    read : the row as a vector; standardised, so that 0 is what a cell that is not seen is filled with.
    select : from that vector to a law over k-hot vectors, one entry per cell.
    classify : from the vector, 0 outside of S, to one logit for each class.
    gradient : an estimator that learns beside the model, if any.

    Examples
    --------
    >>> import jax.random as jr
    >>> from ravine._tree import Fixed
    >>> from ravine.dist import Conditional, KHot
    >>> from ravine.nets import MLP
    >>> from ravine.recognisers import Filled
    >>> read = Filled(Fixed(jnp.zeros(3)))
    >>> select = Conditional(MLP(3, 3, (4,), key=jr.key(0)), KHot(2), (3,))
    >>> model = Selective(read, select, MLP(3, 2, (4,), key=jr.key(1)))
    >>> row = Row(jnp.array([1.0, -1.0, 0.5]), y=jnp.array([0.2, 0.8]))
    >>> float(model.log_likelihood(model.posterior(row).distribution.mode(), row)) < 0
    True
    """

    read: Callable[[Row], Array]
    select: Callable[[Array], AbstractDistribution]
    classify: Callable[[Array], Array]
    gradient: AbstractGradient | None = None

    def posterior(self, row: Row) -> OneNode:
        """q(S | x)."""
        return OneNode(self.select(self.read(row)))

    def log_shares(self, z: Float[Array, " cells"], row: Row) -> Float[Array, " classes"]:
        """log q(y | x_S) of every class, in nats."""
        seen = self.read(row).reshape(-1, z.size) * z[None]
        return jax.nn.log_softmax(self.classify(seen.ravel()))

    def log_likelihood(self, z: Float[Array, " cells"], row: Row) -> Scalar:
        """``sum_y p(y | x) log q(y | x_S)``, in nats."""
        return jnp.sum(row.y * self.log_shares(z, row))


def learning(gradient: AbstractGradient, inputs: int, cells: int, *, key: PRNGKeyArray) -> AbstractGradient | None:
    """The estimator with its learned parts, for one node of so many cells; None where it has none."""
    made = gradient.learning(inputs, (cells,), key=key)
    return None if made is gradient else made
