"""The law of a path of states, each Gaussian given the one after it: what a Kalman filter leaves behind."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ravine.core import AbstractReparametrised, Scalar
from ravine.dist import FullGaussian
from ravine.dist._cells import HALF_LOG_2PI, check


def lower_root(columns: Float[Array, "d n"]) -> Float[Array, "d d"]:
    """The Cholesky factor of ``columns @ columns.T``, by a QR factorisation: squares would lose half the digits.

    There are at least as many columns as rows.
    """
    lower = jnp.linalg.qr(columns.T, mode="r").T
    return lower * jnp.where(jnp.diagonal(lower) < 0, -1, 1)[None, :]


def log_density(away: Float[Array, "t k"], factors: Float[Array, "t k k"]) -> Scalar:
    """Summed log densities, in nats, of independent normal vectors: their distances from their means, and factors."""
    noise = jax.vmap(lambda factor, r: solve_triangular(factor, r, lower=True))(factors, away)
    log_det = jnp.sum(jnp.log(jnp.diagonal(factors, axis1=1, axis2=2)))
    return -0.5 * jnp.sum(noise**2) - log_det - away.size * HALF_LOG_2PI


class StatePath(AbstractReparametrised):
    r"""A path of T states of k numbers, each Gaussian given the one after it.

    .. math:: z_T \sim N(m, L L^T), \qquad z_t \mid z_{t+1} \sim N(G_t z_{t+1} + h_t, L_t L_t^T)

    This is the posterior of a linear Gaussian state space model. Draws are those of the forward filter and backward
    sampler (Carter & Kohn 1994, Biometrika 81, 541-553), and `moments` are those of the Rauch-Tung-Striebel smoother
    (1965, AIAA Journal 3, 1445-1450), here a sum of positive terms.

    Parameters
    ----------
    last : the law of the last state, (k,).
    gains, shifts, factors : G, h and the lower Cholesky factors L of the others in the order of time, shapes
        (T - 1, k, k), (T - 1, k) and (T - 1, k, k).

    Examples
    --------
    >>> one = jnp.ones((1, 1, 1))
    >>> path = StatePath(FullGaussian(jnp.ones(1), jnp.ones((1, 1))), one, jnp.ones((1, 1)), one)
    >>> path.mean().tolist()
    [[2.0], [1.0]]
    >>> path.moments()[1].ravel().tolist()
    [2.0, 1.0]
    """

    last: FullGaussian
    gains: Float[Array, "t k k"]
    shifts: Float[Array, "t k"]
    factors: Float[Array, "t k k"]

    def sample(self, *, key: PRNGKeyArray) -> Float[Array, "steps k"]:
        """One path, shape (T, k)."""
        shape = (self.shifts.shape[0] + 1, self.shifts.shape[1])
        return self._from_noise(jr.normal(key, shape, self.shifts.dtype))

    def log_prob(self, value: Array, mask: Bool[Array, "steps k"] | None = None) -> Scalar:
        """Log density in nats; with a mask that of the marginal, by a matrix of (T k, T k)."""
        check(value, mask, (self.shifts.shape[0] + 1, self.shifts.shape[1]))
        if mask is not None:
            return self.dense().log_prob(value[::-1].ravel(), mask[::-1].ravel())
        away = value[:-1] - self.shifts - jnp.einsum("tij,tj->ti", self.gains, value[1:])
        away = jnp.concatenate([away, (value[-1] - self.last.location)[None]])
        factors = jnp.concatenate([jnp.tril(self.factors), self.last.lower()[None]])
        return log_density(away, factors)

    def mean(self) -> Float[Array, "steps k"]:
        """The smoothed means, shape (T, k)."""
        return self._from_noise(jnp.zeros((self.shifts.shape[0] + 1, self.shifts.shape[1]), self.shifts.dtype))

    def moments(self) -> tuple[Float[Array, "steps k"], Float[Array, "steps k k"], Float[Array, "t k k"]]:
        """Means, covariances, and the covariances of each state with the one before it, Cov(z_{t+1}, z_t)."""

        def back(after: Array, step: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            gain, factor = step
            cross = after @ gain.T
            here = gain @ cross + factor @ factor.T
            return here, (here, cross)

        lower = self.last.lower()
        end = lower @ lower.T
        _, (earlier, crosses) = jax.lax.scan(back, end, (self.gains, self.factors), reverse=True)
        return self.mean(), jnp.concatenate([earlier, end[None]]), crosses

    def dense(self) -> FullGaussian:
        """The law of all T k numbers, the last state first: in that order the factor is triangular."""
        noise = jnp.zeros((self.shifts.shape[0] + 1, self.shifts.shape[1]), self.shifts.dtype)
        turned = lambda noise: self._from_noise(noise.reshape(self.mean().shape)[::-1])[::-1].ravel()  # noqa: E731
        return FullGaussian(turned(noise.ravel()), jax.jacfwd(turned)(noise.ravel()))

    def _from_noise(self, noise: Float[Array, "steps k"]) -> Float[Array, "steps k"]:
        """The path that standard normal noise of its own shape makes."""

        def back(after: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
            gain, own = step
            here = gain @ after + own
            return here, here

        end = self.last.location + self.last.lower() @ noise[-1]
        own = self.shifts + jnp.einsum("tij,tj->ti", self.factors, noise[:-1])
        _, earlier = jax.lax.scan(back, end, (self.gains, own), reverse=True)
        return jnp.concatenate([earlier, end[None]])
