"""The von Mises law of angles, with a draw that is differentiable in both parameters."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.special import i0e, i1e
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractReparametrised, Scalar
from ravine.dist._cells import filled, pair, total, uniform

NODES, WEIGHTS = (0.5 * part for part in np.polynomial.legendre.leggauss(48))
NODES = NODES + 0.5  # on (0, 1)


def mean_cosine(concentration: Float[Array, "..."]) -> Float[Array, "..."]:
    """Expectation of the cosine of the angle from the location, I1(k) / I0(k)."""
    return i1e(concentration) / i0e(concentration)


def _shortfall(concentration: Float[Array, "..."]) -> Float[Array, "..."]:
    """``1 - mean_cosine``, by its expansion for large concentrations, where the difference has no digits left."""
    large = concentration > 100
    r = 1 / jnp.where(large, concentration, 100)
    series = r * (1 / 2 + r * (1 / 8 + r * (1 / 8 + r * (25 / 128 + r * 13 / 32))))
    return jnp.where(large, series, 1 - mean_cosine(jnp.where(large, 1, concentration)))


def _half_turn(angle: Float[Array, "..."]) -> Float[Array, "..."]:
    """``1 - cos``, without its cancellation near 0."""
    return 2 * jnp.sin(0.5 * angle) ** 2


def implicit_slope(angle: Float[Array, "..."], concentration: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Derivative of a centred draw in the concentration, :math:`-(\partial F / \partial k) / p(z)`.

    For z > 0 it is :math:`-\int_0^z (\cos t - A) e^{k (\cos t - \cos z)} dt`, which equals the integral from z
    to pi with the other sign; that with the smaller exponents is taken, by Gauss-Legendre quadrature. Odd in z.
    """
    z, k = jnp.abs(angle), concentration
    inner = k * _half_turn(z) < 2
    # beyond the end the integrand is below e^-36 of its start
    end = jnp.arccos(jnp.maximum(jnp.cos(z) - 36 / k, -1))
    low, high = jnp.where(inner, 0, z), jnp.where(inner, z, jnp.maximum(end, z))
    nodes, weights = jnp.asarray(NODES, z.dtype), jnp.asarray(WEIGHTS, z.dtype)
    across = (1,) * z.ndim
    t = low[..., None] + (high - low)[..., None] * nodes.reshape(*across, -1)
    fall = _half_turn(t)
    growth = jnp.exp(k[..., None] * (_half_turn(z)[..., None] - fall))
    parts = (_shortfall(k)[..., None] - fall) * growth * weights.reshape(*across, -1)
    integral = (high - low) * jnp.sum(parts, axis=-1)
    return jnp.sign(angle) * jnp.where(inner, -integral, integral)


@jax.custom_jvp
def _with_slope(angle: Float[Array, "..."], concentration: Float[Array, "..."]) -> Float[Array, "..."]:
    """A centred draw, with the derivative that its law gives it."""
    del concentration
    return angle


@_with_slope.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return primals[0], implicit_slope(*primals) * tangents[1]


def _proposal(concentration: Float[Array, "..."]) -> tuple[Array, Array]:
    """Best and Fisher's wrapped Cauchy: its scale in the tangent of half the angle, and (1 - rho)^2 / (2 rho).

    Written without differences of near numbers, so that it holds from 0 to concentrations of 1e6 in single precision.
    """
    k = concentration
    root = jnp.sqrt(1 + 4 * k**2)
    tau = 1 + root
    rho = 2 * k * jnp.sqrt(tau) / ((jnp.sqrt(tau) + math.sqrt(2)) * tau)
    gap = jnp.where(k > 1, (jnp.sqrt(2 * tau) - 1 - 1 / (root + 2 * k)) / (2 * jnp.maximum(k, 1)), 1 - rho)
    return gap / (1 + rho), gap**2 / (2 * jnp.maximum(rho, float(jnp.finfo(k.dtype).tiny) ** 0.25))


def _centred(key: PRNGKeyArray, concentration: Float[Array, "..."]) -> Float[Array, "..."]:
    """Draws with location 0, by rejection; two of three proposals at least are accepted.

    Numpyro's sampler takes the angle from its cosine, which leaves 200 distinct draws at a concentration of 1e6.
    """
    scale, q = _proposal(concentration)
    best = jnp.clip(1 / concentration - q, 0, 2)

    def attempt(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        key, angle, done = carry
        key, key_u, key_v = jr.split(key, 3)
        u, v = (uniform(k, angle.shape, angle.dtype) for k in (key_u, key_v))
        new = 2 * jnp.arctan(scale * jnp.tan(math.pi * (u - 0.5)))
        fall = _half_turn(new)
        accepted = jnp.log(v) < concentration * (best - fall) + jnp.log((q + fall) / (q + best))
        return key, jnp.where(done, angle, new), done | accepted

    start = key, jnp.zeros_like(concentration), jnp.zeros(concentration.shape, bool)
    return jax.lax.while_loop(lambda carry: ~jnp.all(carry[2]), attempt, start)[1]


class VonMises(AbstractReparametrised):
    r"""Independent angles in radians, the normal law of the circle; any event shape.

    .. math:: \log p(x) = \sum_i k \cos(x_i - m) - \log(2\pi I_0(k))

    The density is that of one turn, wherever it begins: a value may be any angle. Draws lie within pi of the location,
    which is then their mean in the usual sense too. They are differentiable in both parameters, in the concentration
    by implicit reparameterisation (Figurnov et al. 2018, arXiv:1805.08498); the sampler is that of
    Best and Fisher 1979, *Applied Statistics* 28.

    Parameters
    ----------
    location : mean direction m, radians.
    concentration : k, positive, same shape; about one over the variance when large.

    Raises
    ------
    ValueError
        When the parameters differ in shape, or a value is not of that shape.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = VonMises(jnp.zeros(1), jnp.ones(1))
    >>> round(float(d.log_prob(jnp.zeros(1))), 4), round(float(d.log_prob(jnp.array([2 * jnp.pi]))), 4)
    (-1.0738, -1.0738)
    """

    location: Float[Array, "..."]
    concentration: Float[Array, "..."]

    def __check_init__(self) -> None:
        pair("location and concentration of a VonMises", self.location, self.concentration)

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Angles within pi of the location."""
        held = jax.lax.stop_gradient(self.concentration)
        return self.location + _with_slope(_centred(key, held), self.concentration)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed cells, in nats per radian."""
        away = filled(value, mask, self.location) - self.location
        peak = math.log(2 * math.pi) + jnp.log(i0e(self.concentration))
        return total(-self.concentration * _half_turn(away) - peak, mask)

    def mean(self) -> Array:
        """The location: the mean direction, and the mean of the draws."""
        return self.location
