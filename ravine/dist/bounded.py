"""Laws over real cells with limits: a Gaussian cut off at them (truncated), or one that piles up there (censored)."""

from __future__ import annotations

import math

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import lax
from jax.scipy.special import erfc
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDistribution, AbstractReparametrised, Scalar
from ravine.dist._cells import HALF_LOG_2PI, filled, pair, total

Cells = Float[Array, "..."]

_FAR = 1e18  # stands for infinity, in scales: its square is still a number in single precision
_JOIN, _LEVELS = 6.0, 16  # where the continued fraction takes over, and how deep it goes: 5e-15 off there
_NODES, _WEIGHTS = ((1 + np.polynomial.legendre.leggauss(12)[0]) / 2, np.polynomial.legendre.leggauss(12)[1] / 2)
_STEPS = 8


def _mills(t: Cells) -> tuple[Cells, Cells]:
    r"""Mills' ratio :math:`M(t) = (1 - \Phi(t)) / \varphi(t)` and :math:`N(t) = 1 - t M(t)`, for ``t >= 0``.

    Far out by Laplace's continued fraction, M = 1 / (t + 1 / (t + 2 / (t + 3 / ...))), which gives both without
    cancellation, and so their derivatives (Abramowitz and Stegun 1964, 26.2.14).
    """
    far = t > _JOIN
    below, above = jnp.where(far, _JOIN, t), jnp.where(far, t, _JOIN)
    near = math.sqrt(math.pi / 2) * jnp.exp(0.5 * below**2) * erfc(below / math.sqrt(2))
    fraction = jnp.zeros_like(t)
    for level in range(_LEVELS, 0, -1):
        fraction = level / (above + fraction)
    ratio = 1 / (above + fraction)
    return jnp.where(far, ratio, near), jnp.where(far, fraction * ratio, 1 - below * near)


def _quadrature(width: Cells) -> tuple[Cells, Cells]:
    """Points in [0, width] and their weights, on a last axis."""
    w = width[..., None]
    nodes, weights = (jnp.asarray(a, w.dtype).reshape((1,) * width.ndim + (-1,)) for a in (_NODES, _WEIGHTS))
    return w * nodes, w * weights


def _moments(width: Cells, slope: Cells) -> tuple[Cells, Cells]:
    r""":math:`\int_0^w e^{-d (n + d/2)} dd` and :math:`\int_0^w d\, e^{-d (n + d/2)} dd`, for w, n >= 0.

    Where the exponent stays above -4 by Gauss-Legendre quadrature with 12 points, which is exact to rounding there;
    else as a difference of two tails, of which the second is the smaller by far. Neither loses digits.
    """
    drop = width * (slope + 0.5 * width)
    narrow = drop < 4
    d, weight = _quadrature(jnp.where(narrow, width, 0))
    density = weight * jnp.exp(-d * (slope[..., None] + 0.5 * d))
    (near, near_rest), (far, far_rest) = _mills(slope), _mills(slope + width)
    left = jnp.exp(-drop)
    mass = jnp.where(narrow, jnp.sum(density, axis=-1), near - left * far)
    moment = jnp.where(narrow, jnp.sum(d * density, axis=-1), near_rest - left * (width * far + far_rest))
    return mass, moment


def _within(x: Cells, low: Cells, high: Cells) -> Cells:
    """``x``, or the limit it passes; unlike that of ``jnp.clip``, the derivative at a limit is that of ``x``."""
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


def _scales(limit: Cells, origin: Cells, scale: Cells) -> Cells:
    """How many scales a limit lies above the origin; an infinite one very many."""
    known = jnp.isfinite(limit)
    return jnp.where(known, (jnp.where(known, limit, origin) - origin) / scale, jnp.sign(limit) * _FAR)


def _quantile(mass: Cells, width: Cells, slope: Cells) -> Cells:
    """The d in [0, width] up to which `_moments` has this mass; differentiable in mass and slope.

    Newton's method on the logarithm of the mass that is left, a convex function of d, from two bounds that lie above
    the root: it descends to it. The last step, on the mass itself, carries the derivative.
    """
    least = jnp.finfo(mass.dtype)
    fixed, n, w = lax.stop_gradient((mass, slope, width))
    ratio = _mills(n)[0]
    nats = jnp.maximum(-jnp.log1p(-jnp.minimum(fixed / ratio, 1 - least.eps)), least.tiny)
    start = jnp.minimum(nats * ratio, 2 * nats / (n + jnp.sqrt(n**2 + 2 * nats)))

    def excess(d: Cells) -> Cells:
        return (_moments(d, n)[0] - fixed) * jnp.exp(d * (n + 0.5 * d))

    def nearer(_: Array, d: Cells) -> Cells:
        ahead = _mills(n + d)[0]
        return jnp.clip(d - ahead * jnp.log1p(jnp.maximum(excess(d) / ahead, least.eps - 1)), 0, w)

    d = lax.stop_gradient(lax.fori_loop(0, _STEPS, nearer, jnp.minimum(start, w)))
    density = jnp.exp(-d * (n + 0.5 * d))
    last = d - (_moments(d, slope)[0] - mass) / density
    return jnp.where(last > width, width, jnp.where(last < 0, 0, last))


class TruncatedGaussian(AbstractReparametrised):
    r"""Independent normal cells given that each lies in its interval :math:`[a_i, b_i]`; any event shape.

    .. math::
        \log p(x) = \sum_i \log\varphi(z_i) - \log s_i - \log\big(\Phi(\tfrac{b_i - m_i}{s_i})
        - \Phi(\tfrac{a_i - m_i}{s_i})\big), \quad z_i = (x_i - m_i)/s_i

    A density on the closed interval, :math:`-\infty` outside. Everything is computed relative to the point of the
    interval that is nearest to the location, so that neither an interval thousands of scales away nor one that is
    a millionth of a scale wide loses digits. A limit may be infinite.

    Parameters
    ----------
    location, scale : of the normal law before it is cut off; the scale positive.
    low, high : the limits of each cell, low < high. All four have one shape.

    Raises
    ------
    ValueError
        When the parameters differ in shape, or a value is not of that shape.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> one = jnp.ones(1)
    >>> d = TruncatedGaussian(0 * one, one, 0 * one, jnp.inf * one)  # the half normal law: mean sqrt(2 / pi)
    >>> round(float(d.mean()[0]), 4), float(d.log_prob(-one))
    (0.7979, -inf)
    """

    location: Float[Array, "..."]
    scale: Float[Array, "..."]
    low: Float[Array, "..."]
    high: Float[Array, "..."]

    def __check_init__(self) -> None:
        for name in ("scale", "low", "high"):
            pair(f"location and {name} of a TruncatedGaussian", self.location, getattr(self, name))

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """A draw by the inverse distribution function; its derivative in the parameters is exact, once."""
        nearest, slope, left, right = self._around()
        (below, _), (above, _) = _moments(left, slope), _moments(right, slope)
        mass = jr.uniform(key, self.location.shape, self.location.dtype) * (below + above)
        up = mass >= below
        d = _quantile(jnp.where(up, mass - below, below - mass), jnp.where(up, right, left), slope)
        return _within(nearest + self.scale * jnp.where(up, d, -d), self.low, self.high)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed cells, in nats; minus infinity when one lies outside its interval."""
        x = filled(value, mask, self.location)
        nearest, slope, left, right = self._around()
        inside = (self.low <= x) & (x <= self.high)
        away = (jnp.where(inside, x, nearest) - nearest) / self.scale
        mass = _moments(left, slope)[0] + _moments(right, slope)[0]
        cells = -away * ((nearest - self.location) / self.scale + 0.5 * away) - jnp.log(self.scale) - jnp.log(mass)
        return total(jnp.where(inside, cells, -jnp.inf), mask)

    def mean(self) -> Array:
        """The expectation, from the first moments of the density to both sides of its highest point."""
        nearest, slope, left, right = self._around()
        (below, down), (above, up) = _moments(left, slope), _moments(right, slope)
        return nearest + self.scale * (up - down) / (below + above)

    def _around(self) -> tuple[Cells, Cells, Cells, Cells]:
        """The highest point of the density, its distance to the location, and both limits' to it, in scales."""
        nearest = _within(self.location, self.low, self.high)
        slope = jnp.abs(nearest - self.location) / self.scale
        left, right = -_scales(self.low, nearest, self.scale), _scales(self.high, nearest, self.scale)
        return nearest, slope, left, right


def _log_tail(t: Cells) -> Cells:
    r""":math:`\log(1 - \Phi(t))`, from Mills' ratio on the side where it is small."""
    positive = t > 0
    size = jnp.where(positive, t, -t)
    log_small = jnp.log(_mills(size)[0]) - 0.5 * size**2 - HALF_LOG_2PI
    return jnp.where(positive, log_small, jnp.log1p(-0.5 * erfc(size / math.sqrt(2))))


def _beyond(t: Cells) -> Cells:
    r""":math:`E[\max(Z - t, 0)] = \varphi(t) - t (1 - \Phi(t))` of a standard normal Z."""
    positive = t > 0
    loss = jnp.exp(-0.5 * t**2 - HALF_LOG_2PI) * _mills(jnp.where(positive, t, -t))[1]
    return jnp.where(positive, 0, -t) + loss


def _gain(start: Cells, stop: Cells) -> Cells:
    r""":math:`\int (1 - \Phi(t)) dt` from start to stop, by quadrature where the difference would lose digits."""
    narrow = stop - start < 2
    d, weight = _quadrature(jnp.where(narrow, stop - start, 0))
    few = jnp.sum(0.5 * weight * erfc((start[..., None] + d) / math.sqrt(2)), axis=-1)
    return jnp.where(narrow, few, _beyond(start) - _beyond(stop))


class CensoredGaussian(AbstractDistribution):
    r"""Independent normal cells of which only what lies between two limits is seen; any event shape.

    What lies at or beyond a limit is recorded as that limit, which so has the mass of its tail: with
    :math:`z = (x - m)/s`,

    .. math::
        p(x) = \prod_i \begin{cases} \Phi((a_i - m_i)/s_i) & x_i \le a_i \\ \varphi(z_i) / s_i & a_i < x_i < b_i \\
        1 - \Phi((b_i - m_i)/s_i) & x_i \ge b_i \end{cases}

    a density by Lebesgue's measure between the limits and by counting at them (Tobin 1958, *Estimation of
    relationships for limited dependent variables*). A limit may be infinite. The draw is no smooth function of the
    parameters, for its log density jumps where it meets a limit: no `AbstractReparametrised`.

    Parameters
    ----------
    location, scale : of the normal law before it is censored; the scale positive.
    low, high : the limits of each cell, low < high. All four have one shape.

    Raises
    ------
    ValueError
        When the parameters differ in shape, or a value is not of that shape.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> one = jnp.ones(1)
    >>> d = CensoredGaussian(0 * one, one, 0 * one, jnp.inf * one)
    >>> float(jnp.exp(d.log_prob(0 * one))), round(float(d.mean()[0]), 4)
    (0.5, 0.3989)
    """

    location: Float[Array, "..."]
    scale: Float[Array, "..."]
    low: Float[Array, "..."]
    high: Float[Array, "..."]

    def __check_init__(self) -> None:
        for name in ("scale", "low", "high"):
            pair(f"location and {name} of a CensoredGaussian", self.location, getattr(self, name))

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """A normal draw, moved to the limit that it passes."""
        noise = jr.normal(key, self.location.shape, self.location.dtype)
        return _within(self.location + self.scale * noise, self.low, self.high)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed cells between the limits plus log mass of those at them, in nats."""
        x = filled(value, mask, self.location)
        below, above = x <= self.low, x >= self.high
        z = (jnp.where(below | above, self.location, x) - self.location) / self.scale
        density = -0.5 * z**2 - jnp.log(self.scale) - HALF_LOG_2PI
        limit = jnp.where(below, self.low, jnp.where(above, self.high, self.location))
        out = (limit - self.location) / self.scale
        return total(jnp.where(below | above, _log_tail(jnp.where(below, -out, out)), density), mask)

    def mean(self) -> Array:
        """The expectation of what is recorded: the point nearest to the location, and what is gained to both sides."""
        nearest = _within(self.location, self.low, self.high)
        here, low, high = (_scales(x, self.location, self.scale) for x in (nearest, self.low, self.high))
        return nearest + self.scale * (_gain(here, high) - _gain(-here, -low))
