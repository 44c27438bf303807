r"""Invertible maps from :math:`R^{n-1}` onto the simplex of n classes, in log space; the parts of an `IGR`.

All end in softmax++, :math:`x_k = e^{\eta_k / t} / (\sum_j e^{\eta_j / t} + \delta)` for k < n, the rest being the last
coordinate. Potapczynski, Loaiza-Ganem and Cunningham 2020, arXiv:1912.09588, sections 3 and 4.
"""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import Scalar
from ravine.dist._cells import HALF_LOG_2PI, within

ROOTS, ROOT_WEIGHTS = np.polynomial.legendre.leggauss(128)
REACH = 8.5  # standard deviations beyond which a normal law has no mass


class AbstractSimplexMap(eqx.Module):
    """An invertible map onto (part of) the simplex: something that happens to y, then softmax++."""

    delta: eqx.AbstractVar[float]

    @abc.abstractmethod
    def before(self, y: Float[Array, "... cuts"]) -> tuple[Float[Array, "... cuts"], Float[Array, "..."]]:
        """What softmax++ is applied to, and the log determinant of its derivative in y."""

    @abc.abstractmethod
    def undo(self, eta: Float[Array, "... cuts"]) -> Float[Array, "... cuts"]:
        """The inverse of `before`."""

    def log_point(self, y: Float[Array, "... cuts"], temperature: Float[Array, ""]) -> Float[Array, "... classes"]:
        """Logarithm of the point of the simplex, shape (..., classes)."""
        return self._plus(self.before(y)[0], temperature)

    def pull(self, log_point: Float[Array, "... classes"], temperature: Float[Array, ""]) -> Float[Array, "... cuts"]:
        """The y of a point given by its logarithm: the inverse of `log_point`."""
        odds = log_point[..., :-1] - log_point[..., -1:]
        return self.undo(temperature * (odds + math.log(self.delta)))

    def log_det(self, y: Float[Array, "... cuts"], temperature: Float[Array, ""]) -> Float[Array, "..."]:
        """Log determinant of the derivative of the point's first coordinates in y."""
        eta, log_det = self.before(y)
        return log_det - y.shape[-1] * jnp.log(temperature) + jnp.sum(self._plus(eta, temperature), axis=-1)

    def _plus(self, eta: Float[Array, "... cuts"], temperature: Float[Array, ""]) -> Float[Array, "... classes"]:
        last = jnp.full_like(eta[..., :1], math.log(self.delta))
        return jax.nn.log_softmax(jnp.concatenate([eta / temperature, last], axis=-1))


class AbstractCountable(AbstractSimplexMap):
    """A map of which the class probabilities are integrals in one dimension."""

    @abc.abstractmethod
    def class_probs(
        self, location: Float[Array, " cuts"], scale: Float[Array, " cuts"], temperature: Float[Array, ""]
    ) -> Float[Array, " classes"]:
        """Probability that each coordinate of one cell is the largest, when y is normal."""


class Identity(AbstractCountable):
    """softmax++ alone; any point of the simplex has a y.

    The last class wins where every y is below ``temperature * log(delta)``; a small ``delta`` starves it.

    Parameters
    ----------
    delta : what the last class has in place of an exponential, positive; static.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> y = jnp.array([0.3, -1.0])
    >>> bool(jnp.allclose(Identity().pull(Identity().log_point(y, 0.5), 0.5), y, atol=1e-4))
    True
    """

    delta: float = eqx.field(static=True, default=1.0)

    def before(self, y: Float[Array, "... cuts"]) -> tuple[Array, Array]:
        return y, jnp.zeros_like(y[..., 0])

    def undo(self, eta: Float[Array, "... cuts"]) -> Array:
        return eta

    def class_probs(
        self, location: Float[Array, " cuts"], scale: Float[Array, " cuts"], temperature: Float[Array, ""]
    ) -> Array:
        r"""By 128-point Gauss-Legendre quadrature.

        .. math:: \int_c^\infty N(u; m_k, s_k) \prod_{j \ne k} \Phi((u - m_j)/s_j) du, \quad c = t \log\delta
        """
        cut = temperature * math.log(self.delta)
        low = jnp.maximum((cut - location) / scale, -REACH)
        width = 0.5 * jnp.maximum(REACH - low, 0)
        z = low[:, None] + width[:, None] * jnp.asarray(ROOTS[None] + 1, location.dtype)
        u = location[:, None] + scale[:, None] * z
        below = ndtr((u[..., None] - location[None, None]) / scale[None, None])
        others = jnp.prod(jnp.where(jnp.eye(location.size, dtype=bool)[:, None], 1, below), axis=-1)
        weights = jnp.asarray(ROOT_WEIGHTS, location.dtype)
        first = width * ((others * jnp.exp(-0.5 * z**2 - HALF_LOG_2PI)) @ weights)
        last = jnp.prod(ndtr((cut - location) / scale))
        return jnp.append(first, last)


class Planar(AbstractSimplexMap):
    r"""Planar layers, :math:`y + \hat u \tanh(w \cdot y + b)`, and then softmax++ with delta 1.

    :math:`\hat u = u + (\mathrm{softplus}(w \cdot u) - 1 - w \cdot u) w / |w|^2` makes every layer
    invertible (Rezende and Mohamed 2015, arXiv:1505.05770, appendix A.1); its inverse is found by bisection along w and
    one Newton step, which gives it its derivative.

    Parameters
    ----------
    u, w : directions, shape (layers, cuts); no w may be 0.
    b : offsets, shape (layers,).

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> g, y = Planar.start(2, key=jr.key(0)), jnp.array([0.3, -1.0])
    >>> bool(jnp.allclose(g.pull(g.log_point(y, 0.5), 0.5), y, atol=1e-4))
    True
    """

    u: Float[Array, "layers cuts"]
    w: Float[Array, "layers cuts"]
    b: Float[Array, " layers"]
    delta: ClassVar[float] = 1.0

    @classmethod
    def start(cls, cuts: int, layers: int = 2, *, key: PRNGKeyArray) -> Self:
        """Random small layers for points of ``cuts + 1`` classes."""
        key_u, key_w = jr.split(key)
        draw = lambda k: jr.normal(k, (layers, cuts)) / math.sqrt(cuts)  # noqa: E731
        return cls(draw(key_u), draw(key_w), jnp.zeros(layers))

    def before(self, y: Float[Array, "... cuts"]) -> tuple[Array, Array]:
        log_det = jnp.zeros_like(y[..., 0])
        for u, w, b in zip(self.u, self.w, self.b, strict=True):
            u, pull = _invertible(u, w)
            bend = jnp.tanh(y @ w + b)
            y, log_det = y + bend[..., None] * u, log_det + jnp.log1p(pull * (1 - bend**2))
        return y, log_det

    def undo(self, eta: Float[Array, "... cuts"]) -> Array:
        for u, w, b in zip(self.u[::-1], self.w[::-1], self.b[::-1], strict=True):
            u, pull = _invertible(u, w)
            along = _along(eta @ w, pull, b)
            eta = eta - jnp.tanh(along + b)[..., None] * u
        return eta


def _invertible(u: Float[Array, " cuts"], w: Float[Array, " cuts"]) -> tuple[Float[Array, " cuts"], Scalar]:
    """The corrected direction of a layer, and its product with w, which is above -1."""
    push = w @ u
    pull = jax.nn.softplus(push) - 1
    return u + (pull - push) * w / (w @ w), pull


def _along(target: Float[Array, "..."], pull: Scalar, b: Scalar) -> Float[Array, "..."]:
    """The a with a + pull tanh(a + b) = target, which is monotone in a, between target -+ pull."""
    held = jax.lax.stop_gradient
    goal, slope, offset = held(target), held(pull), held(b)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        under = middle + slope * jnp.tanh(middle + offset) < goal
        return jnp.where(under, middle, low), jnp.where(under, high, middle)

    ends = goal - jnp.abs(slope), goal + jnp.abs(slope)
    a = 0.5 * sum(jax.lax.fori_loop(0, 60, halve, ends))
    bend = jnp.tanh(a + offset)
    excess = a + pull * jnp.tanh(a + b) - target
    return a - excess / (1 + slope * (1 - bend**2))


class StickBreaking(AbstractCountable):
    r"""Pieces of a stick, :math:`\eta_k = \sigma(y_k) \prod_{i<k} \sigma(-y_i)`, and then softmax++ with delta 1.

    The classes have an order and may be countably many, of which the first n - 1 are kept. Since every piece is
    positive, the last class of softmax++ has probability 0. Points fill a part of the simplex only: the pull of
    another point is a number, and meaningless.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> y = jnp.array([0.3, -1.0])
    >>> bool(jnp.allclose(StickBreaking().pull(StickBreaking().log_point(y, 0.5), 0.5), y, atol=1e-4))
    True
    """

    delta: ClassVar[float] = 1.0

    def before(self, y: Float[Array, "... cuts"]) -> tuple[Array, Array]:
        rest = jnp.cumsum(jax.nn.log_sigmoid(-y), axis=-1)
        log_eta = jax.nn.log_sigmoid(y) + rest - jax.nn.log_sigmoid(-y)
        return jnp.exp(log_eta), jnp.sum(log_eta + jax.nn.log_sigmoid(-y), axis=-1)

    def undo(self, eta: Float[Array, "... cuts"]) -> Array:
        return jnp.log(within(eta)) - jnp.log(within(1 - jnp.cumsum(eta, axis=-1)))

    def class_probs(
        self, location: Float[Array, " cuts"], scale: Float[Array, " cuts"], temperature: Float[Array, ""]
    ) -> Array:
        """By backward recursion over the pieces, on a grid of how large the largest so far is for what is left."""
        del temperature  # the largest piece is the largest coordinate
        return _longest_piece(location, scale)


# The longest piece of a stick. After some breaks let rho be the longest piece over what is left, and c = logit(rho).
# The next piece is the longest so far when y > c; then rho = e^y. Otherwise rho grows by 1 + e^y. Once rho >= 1 the
# longest so far stays it. So a break is a Markov kernel on the line of c with an absorbing end: a matrix on a grid.

MESH = 0.4
GRID = MESH * np.arange(-28.0, 29.0)
FEW, FEW_WEIGHTS = np.polynomial.legendre.leggauss(24)


def _spread(c: Float[Array, "nodes points"], mass: Float[Array, "nodes points"]) -> Float[Array, "nodes nodes"]:
    """A matrix that applies ``sum(mass * f(c))`` to the values of f on the grid, by cubic interpolation (Keys 1981)."""
    inside = jnp.clip(c, GRID[1], GRID[-2])
    t = jnp.abs(inside[:, None, :] - jnp.asarray(GRID, c.dtype)[None, :, None]) / MESH
    near = 1 + t * t * (1.5 * t - 2.5)
    far = 2 + t * (-4 + t * (2.5 - 0.5 * t))
    return jnp.sum(mass[:, None, :] * jnp.where(t < 1, near, jnp.where(t < 2, far, 0)), axis=-1)


def _between(low: Array, high: Array, location: Scalar, scale: Scalar) -> tuple[Array, Array]:
    """Nodes y between two ends, one pair per point of the grid, and their normal mass."""
    low, high = (jnp.clip((end - location) / scale, -REACH, REACH) for end in (low, high))
    half = 0.5 * jnp.maximum(high - low, 0)[:, None]
    z = low[:, None] + half * jnp.asarray(FEW[None] + 1, low.dtype)
    mass = half * jnp.exp(-0.5 * z**2 - HALF_LOG_2PI) * jnp.asarray(FEW_WEIGHTS[None], low.dtype)
    return location + scale * z, mass


def _logit_of_log(log_ratio: Array) -> Array:
    """c of log rho < 0."""
    log_ratio = jnp.minimum(log_ratio, -float(jnp.finfo(log_ratio.dtype).eps))
    return log_ratio - jnp.log(-jnp.expm1(log_ratio))


def _kernel(location: Scalar, scale: Scalar) -> tuple[Array, Array, Array, Array]:
    """Of one break: matrix and absorbed mass where the longest piece stays, and where the new one becomes it."""
    c = jnp.asarray(GRID, location.dtype)
    cdf = lambda y: ndtr((y - location) / scale)  # noqa: E731
    y, mass = _between(jnp.full_like(c, -1e9), jnp.minimum(c, -c), location, scale)
    stay = _spread(_logit_of_log(jax.nn.log_sigmoid(c)[:, None] + jax.nn.softplus(y)), mass)
    y, mass = _between(c, jnp.zeros_like(c), location, scale)
    new = _spread(_logit_of_log(y), mass)
    return stay, jnp.maximum(cdf(c) - cdf(-c), 0), new, 1 - cdf(jnp.maximum(c, 0))


def _longest_piece(location: Float[Array, " cuts"], scale: Float[Array, " cuts"]) -> Float[Array, " classes"]:
    """Probability that each piece is the longest, and 0 for the last class."""
    kernels = jax.vmap(_kernel)(location, scale)
    classes = jnp.arange(location.size)

    def back(carry: tuple[Array, Array], step: tuple) -> tuple[tuple[Array, Array], None]:
        (lasts, wins), (k, stay, stays, new, absorbs) = carry, step
        wins = jnp.where((classes == k)[:, None], (new @ lasts + absorbs)[None], wins @ (stay + new).T)
        return (stay @ lasts + stays, wins), None

    # nothing breaks after the last piece; piece k can win only once it is there
    start = jnp.ones(GRID.size, location.dtype), jnp.zeros((location.size, GRID.size), location.dtype)
    wins = jax.lax.scan(back, start, (classes, *kernels), reverse=True)[0][1][:, 0]
    return jnp.append(wins, 0)
