"""Laws that exact models return: one of several drawn at random, one for each step, one with some cells known."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ravine.core import AbstractDistribution, Row, Scalar
from ravine.dist.markov import MarkovPath, filtered


class MixtureLaw(AbstractDistribution):
    r"""One of k laws, drawn with probabilities softmax(``logits``): :math:`p(x) = \sum_c \pi_c p_c(x)`.

    Parameters
    ----------
    logits : unnormalised log probabilities, shape (k,).
    laws : one distribution with a leading axis of k on every array.

    Examples
    --------
    >>> from ravine.dist import Gaussian
    >>> two = MixtureLaw(jnp.zeros(2), Gaussian(jnp.array([[-1.0], [3.0]]), jnp.ones((2, 1))))
    >>> two.mean().tolist()
    [1.0]
    """

    logits: Float[Array, " k"]
    laws: AbstractDistribution

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """A law, then a draw of it."""
        pick, draw = jr.split(key)
        chosen = jr.categorical(pick, self.logits)
        return jax.tree.map(lambda leaf: leaf[chosen], self.laws).sample(key=draw)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log of the mixed density of the observed cells, in nats."""
        each = jax.vmap(lambda law: law.log_prob(value, mask))(self.laws)
        return jax.nn.logsumexp(jax.nn.log_softmax(self.logits) + each)

    def mean(self) -> Array:
        """The mixed expectation."""
        means = jax.vmap(lambda law: law.mean())(self.laws)
        return jnp.tensordot(jax.nn.softmax(self.logits), means, 1)


class Stepwise(AbstractDistribution):
    """Independent steps: ``laws`` is one distribution with a leading axis of steps, and so is the event.

    Examples
    --------
    >>> from ravine.dist import Gaussian
    >>> Stepwise(Gaussian(jnp.array([[1.0], [2.0]]), jnp.ones((2, 1)))).mean().tolist()
    [[1.0], [2.0]]
    """

    laws: AbstractDistribution

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """A draw of every step."""
        keys = jr.split(key, jax.tree.leaves(self.laws)[0].shape[0])
        return jax.vmap(lambda law, key: law.sample(key=key))(self.laws, keys)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed cells, in nats."""
        return jnp.sum(jax.vmap(lambda law, *cells: law.log_prob(*cells))(self.laws, value, mask))

    def mean(self) -> Array:
        """Expectation of every step."""
        return jax.vmap(lambda law: law.mean())(self.laws)


class SwitchedLaw(AbstractDistribution):
    """Steps whose laws are picked by the path of a Markov chain; ``laws`` has leading axes of steps and of states.

    Examples
    --------
    >>> from ravine.dist import Gaussian
    >>> stay = MarkovPath(jnp.zeros(2), jnp.log(jnp.eye(2))[None])
    >>> laws = Gaussian(jnp.array([[[-1.0], [1.0]], [[-1.0], [3.0]]]), jnp.ones((2, 2, 1)))
    >>> SwitchedLaw(stay, laws).mean().tolist()
    [[0.0], [1.0]]
    """

    path: MarkovPath
    laws: AbstractDistribution

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """A path, then a draw of every step's law."""
        key_z, key_x = jr.split(key)
        picked = jnp.argmax(self.path.sample(key=key_z), axis=-1)
        laws = jax.vmap(lambda law, state: jax.tree.map(lambda leaf: leaf[state], law))(self.laws, picked)
        return Stepwise(laws).sample(key=key_x)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed cells, all paths summed out, in nats."""
        by_state = jax.vmap(lambda laws, *cells: jax.vmap(lambda law: law.log_prob(*cells))(laws))
        start, moves = jax.nn.log_softmax(self.path.start), jax.nn.softmax(self.path.moves)
        return jnp.sum(filtered(start, moves, by_state(self.laws, value, mask))[1])

    def mean(self) -> Array:
        """Expectation of every step, over the paths too."""
        means = jax.vmap(jax.vmap(lambda law: law.mean()))(self.laws)
        return jax.vmap(lambda share, mean: jnp.tensordot(share, mean, 1))(self.path.mean(), means)


class Held(AbstractDistribution):
    """A law of a whole event whose cells in ``seen`` are known to be ``value``; ``law`` speaks for the others.

    Examples
    --------
    >>> from ravine.dist import Gaussian
    >>> Held(Gaussian(jnp.zeros(2), jnp.ones(2)), jnp.array([5.0, 0.0]), jnp.array([True, False])).mean().tolist()
    [5.0, 0.0]
    """

    law: AbstractDistribution
    value: Array
    seen: Bool[Array, "..."]

    @classmethod
    def observed(cls, law: AbstractDistribution, row: Row) -> Self:
        """The law with the observed cells of a row held."""
        return cls(law, row.x, jnp.ones(row.x.shape, bool) if row.mask is None else row.mask)

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """A draw of the law, the known cells put back."""
        return jnp.where(self.seen, self.value, self.law.sample(key=key))

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the cells that are not known, in nats; the known ones have none."""
        free = ~self.seen
        return self.law.log_prob(value, free if mask is None else free & mask)

    def mean(self) -> Array:
        """Expectation; the known cells are as they are."""
        return jnp.where(self.seen, self.value, self.law.mean())
