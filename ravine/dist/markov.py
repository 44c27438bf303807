"""Paths of a Markov chain with finitely many states."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDiscrete, Scalar
from ravine.dist._cells import check, grid, whole


class MarkovPath(AbstractDiscrete):
    r"""The path of a Markov chain over k states: one-hot steps, shape (steps, k).

    .. math:: \log p(z) = \log \pi_{z_1} + \sum_{t=2}^{T} \log A^{(t)}_{z_{t-1} z_t}

    Like `OneHot` it is linear in every step of the value, so that a soft path has a score and a gradient.

    Parameters
    ----------
    start : unnormalised log probabilities of the first state, shape (k,); minus infinity forbids a state.
    moves : those of the next state, a row for each present one, shape (steps - 1, k, k). No row may forbid everything.

    Raises
    ------
    ValueError
        When a value or a mask has another shape, or `support` would list more than 2^20 paths.

    Examples
    --------
    >>> chain = MarkovPath(jnp.zeros(2), jnp.log(jnp.array([[[0.9, 0.1], [0.2, 0.8]]])))
    >>> [round(float(chance), 4) for chance in chain.mean()[1]]
    [0.55, 0.45]
    >>> round(float(jnp.exp(chain.log_prob(jnp.array([[1.0, 0.0], [1.0, 0.0]])))), 4)
    0.45
    """

    start: Float[Array, " k"]
    moves: Float[Array, "s k k"]

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """A path, of the logits' type."""
        keys = jr.split(key, self.moves.shape[0] + 1)
        first = jr.categorical(keys[0], self.start)

        def step(state: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
            moves, key = at
            after = jr.categorical(key, moves[state])
            return after, after

        _, states = jax.lax.scan(step, first, (self.moves, keys[1:]))
        return jax.nn.one_hot(jnp.append(first, states), self.start.size, dtype=self.start.dtype)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log probability of the observed steps, in nats; a step is observed where all its states are."""
        shape = (self.moves.shape[0] + 1, self.start.size)
        check(value, None, shape)
        seen = whole(mask, shape)
        start, moves = jax.nn.log_softmax(self.start), jax.nn.log_softmax(self.moves)
        if seen is None:
            return _weighed(value[0], start) + _weighed(value[:-1, :, None] * value[1:, None, :], moves)
        certain = jnp.where(seen[:, None], safe_log(value), 0)
        return jnp.where(jnp.any(seen), jnp.sum(filtered(start, jnp.exp(moves), certain)[1]), 0)

    def mean(self) -> Array:
        """The probability of every state at every step."""
        first = jax.nn.softmax(self.start)
        step = lambda now, moves: (now @ jax.nn.softmax(moves),) * 2  # noqa: E731
        return jnp.concatenate([first[None], jax.lax.scan(step, first, self.moves)[1]])

    def support(self) -> Array:
        """Every path, shape (k^steps, steps, k)."""
        codes = jnp.asarray(grid(self.start.size, self.moves.shape[0] + 1))
        return jax.nn.one_hot(codes, self.start.size, dtype=self.start.dtype)


def _weighed(value: Float[Array, "..."], log_prob: Float[Array, "..."]) -> Scalar:
    """Sum of the products, where nothing times a forbidden state's minus infinity is nothing."""
    return jnp.sum(jnp.where(value > 0, value * jnp.where(value > 0, log_prob, 0), 0))


def safe_log(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The logarithm, minus infinity at 0 with a derivative of 0."""
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), -jnp.inf)


def filtered(
    start: Float[Array, " k"], moves: Float[Array, "*s k k"], log_prob: Float[Array, "t *n k"]
) -> tuple[Float[Array, "t *n k"], Float[Array, "t *n"]]:
    r"""The forward pass: p(state at t | steps up to t), and the logarithm of p(step t | those before it).

    The largest term of the product of prediction and density is taken out before it leaves the logarithms, so that
    a step that is unlikely under every state does no harm.

    Parameters
    ----------
    start : log probabilities of the first state.
    moves : probabilities of the next one, a row for each present one; the same at all steps unless there is a leading
        axis of steps - 1.
    log_prob : log densities of each step under each state, in nats; 0 for a step that is not there.

    Examples
    --------
    >>> moves = jnp.array([[0.7, 0.3], [0.3, 0.7]])
    >>> umbrellas = jnp.log(jnp.array([[0.9, 0.2], [0.9, 0.2], [0.1, 0.8]]))
    >>> states, _ = filtered(jnp.log(jnp.array([0.5, 0.5])), moves, umbrellas)
    >>> [round(float(chance), 3) for chance in states[1]]
    [0.883, 0.117]
    """
    along = moves if moves.ndim == 3 else None

    def correct(predicted: Array, density: Array) -> tuple[Array, Array]:
        joint = predicted + density
        norm = jax.nn.logsumexp(joint, axis=-1)
        return jnp.exp(joint - jnp.where(jnp.isfinite(norm), norm, 0)[..., None]), norm

    def step(state: Array, at: tuple[Array | None, Array]) -> tuple[Array, tuple[Array, Array]]:
        here, density = at
        after, norm = correct(safe_log(state @ (moves if here is None else here)), density)
        return after, (after, norm)

    first, norm = correct(jnp.broadcast_to(start, log_prob.shape[1:]), log_prob[0])
    _, (states, norms) = jax.lax.scan(step, first, (along, log_prob[1:]))
    return jnp.concatenate([first[None], states]), jnp.concatenate([norm[None], norms])
