"""The Kalman filter and smoother of a sequence in a number of rounds that grows with the logarithm of its length."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Bool, Float

from ravine.models.linear_dynamical import Filtered, LinearDynamical
from ravine.models.state_path import StatePath


class Link(NamedTuple):
    r"""What some adjacent steps make of the state before them, and what their cells say of it.

    .. math::
        z_t \mid z_s, x_{s+1:t} \sim N(A z_s + b, C), \; p(x_{s+1:t} \mid z_s) \propto \exp(e^T z_s - z_s^T J z_s / 2)
    """

    transition: Float[Array, "*t k k"]
    shift: Float[Array, "*t k"]
    covariance: Float[Array, "*t k k"]
    push: Float[Array, "*t k"]
    precision: Float[Array, "*t k k"]


def filtered_in_parallel(model: LinearDynamical, x: Float[Array, "t d"], seen: Bool[Array, "t d"]) -> Filtered:
    """What `LinearDynamical.filtered` gives, by an associative scan: Särkkä & García-Fernández 2021, IEEE TAC 66, 299.

    Its work is that of the sequential pass times a constant, in rounds whose number is the logarithm of T: it is for
    long sequences and for machines that do many things at once. It carries covariances, so fewer digits are right than
    in the sequential pass, which carries factors.

    Parameters
    ----------
    model : the state space model.
    x, seen : the sequence and which of its cells were observed, shape (T, d).

    Returns
    -------
    Filtered
        The same laws and log densities as those of the sequential pass.

    Examples
    --------
    >>> from ravine.dist import FullGaussian
    >>> from ravine.models.linear_gaussian import DiagonalNoise
    >>> one = jnp.ones((1, 1))
    >>> walk = LinearDynamical(FullGaussian(jnp.zeros(1), one), one, one, one, jnp.zeros(1), DiagonalNoise(jnp.ones(1)))
    >>> found = filtered_in_parallel(walk, jnp.array([[4.0], [0.0]]), jnp.array([[True], [False]]))
    >>> found.means.round(1).tolist()
    [[2.0], [2.0]]
    """
    x = jnp.where(seen, x, 0)
    links = jax.lax.associative_scan(jax.vmap(_joined), _links(model, x, seen))
    roots = jnp.linalg.cholesky(links.covariance)
    ahead, ahead_roots, gains, shifts, factors = jax.vmap(model.move)(links.shift, roots)
    predicted = jnp.concatenate([model.initial.location[None], ahead])
    predicted_roots = jnp.concatenate([model.initial.lower()[None], ahead_roots])
    seen = seen & jnp.all(gains == gains)  # the gains are solved for before the next factorisation, see `Row.after`
    means, corrected, evidence = jax.vmap(model.correct)(predicted[:-1], predicted_roots[:-1], x, seen)
    return Filtered(predicted, predicted_roots, means, corrected, evidence, gains, shifts, factors)


def moments_in_parallel(
    path: StatePath,
) -> tuple[Float[Array, "steps k"], Float[Array, "steps k k"], Float[Array, "t k k"]]:
    """What `StatePath.moments` gives, by an associative scan from the end; no digits are lost.

    Examples
    --------
    >>> from ravine.dist import FullGaussian
    >>> one = jnp.ones((1, 1, 1))
    >>> path = StatePath(FullGaussian(jnp.ones(1), jnp.ones((1, 1))), one, jnp.ones((1, 1)), one)
    >>> [part.ravel().tolist() for part in moments_in_parallel(path)]
    [[2.0, 1.0], [2.0, 1.0], [1.0]]
    """
    lower = path.last.lower()
    gains = jnp.concatenate([path.gains, jnp.zeros_like(lower)[None]])
    shifts = jnp.concatenate([path.shifts, path.last.location[None]])
    factors = jnp.concatenate([path.factors, lower[None]])

    def joined(later: tuple, earlier: tuple) -> tuple:
        gain, shift, covariance = earlier
        carried = gain @ later[2] @ gain.T + covariance
        return gain @ later[0], gain @ later[1] + shift, carried

    links = gains, shifts, factors @ jnp.swapaxes(factors, 1, 2)
    _, means, covariances = jax.lax.associative_scan(jax.vmap(joined), links, reverse=True)
    return means, covariances, covariances[1:] @ jnp.swapaxes(path.gains, 1, 2)


def _links(model: LinearDynamical, x: Float[Array, "t d"], seen: Bool[Array, "t d"]) -> Link:
    """The link of each step; the first comes from no state before it."""
    steps, k = x.shape[0], model.transition.shape[0]
    later = steps - 1
    # a first step whose transition is 0 makes all steps alike, and all are factorised at once
    transition = jnp.zeros((steps, k, k), x.dtype).at[1:].set(jnp.broadcast_to(model.transition, (later, k, k)))
    drift = jnp.zeros((steps, k), x.dtype).at[0].set(model.initial.location)
    process = jnp.broadcast_to(jnp.tril(model.process), (later, k, k))
    roots = jnp.concatenate([model.initial.lower()[None], process])
    scale = model.noise_scale()

    def link(transition: Array, drift: Array, root: Array, x: Array, seen: Array) -> Link:
        shown = jnp.where(seen[:, None], model.loading / scale[:, None], 0)
        residual = jnp.where(seen, (x - model.bias) / scale, 0) - shown @ drift
        spread, eye = shown @ root, jnp.eye(k, dtype=root.dtype)
        shrunk = cho_solve((jnp.linalg.cholesky(eye + spread.T @ spread), True), eye)
        told = shown.T - (shown.T @ spread) @ shrunk @ spread.T
        covariance = root @ shrunk @ root.T
        forward = transition - root @ (root.T @ (told @ (shown @ transition)))
        shift = drift + root @ (root.T @ (told @ residual))
        return Link(
            forward, shift, covariance, transition.T @ (told @ residual), transition.T @ told @ shown @ transition
        )

    return jax.vmap(link)(transition, drift, roots, x, seen)


def _joined(first: Link, then: Link) -> Link:
    """The link of the steps of both."""
    middle = jnp.linalg.inv(jnp.eye(first.shift.size, dtype=first.shift.dtype) + first.covariance @ then.precision)
    forward = then.transition @ middle
    shift = forward @ (first.shift + first.covariance @ then.push) + then.shift
    covariance = forward @ first.covariance @ then.transition.T + then.covariance
    back = first.transition.T @ middle.T
    push = back @ (then.push - then.precision @ first.shift) + first.push
    precision = back @ then.precision @ first.transition + first.precision
    return Link(forward @ first.transition, shift, covariance, push, precision)
