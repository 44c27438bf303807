"""Links for the columns of tables: ordered classes, counts that vary much or are often zero, cells with limits."""

from __future__ import annotations

import math
from collections.abc import Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ravine._check import require, shown
from ravine.dist.bounded import CensoredGaussian, TruncatedGaussian
from ravine.dist.counts import NegativeBinomial, ZeroInflated
from ravine.dist.discrete import OneHot
from ravine.dist.links import AbstractLink, Shape, _parts

Limits = tuple[float, ...]


def _softplus_inverse(y: Float[Array, "..."]) -> Float[Array, "..."]:
    return y + jnp.log(-jnp.expm1(-y))


class Ordered(AbstractLink):
    r"""One-hot cells whose classes have an order: cumulative logits; the last axis of the shape lists the C classes.

    .. math:: P(\text{class} \le c) = \sigma(\kappa_c - \eta), \qquad \kappa_c = \kappa_{c-1} + \mathrm{softplus}(r_c)

    McCullagh 1980, *Regression models for ordinal data*, the proportional-odds model. For each categorical C numbers:
    the location :math:`\eta`, the first cut :math:`\kappa_0`, and the :math:`r_c` of the others. The probabilities of
    classes are differences, :math:`\sigma(b) - \sigma(a) = \sigma(b)\,\sigma(-a)\,(1 - e^{a - b})`, and
    :math:`1 - e^{-\mathrm{softplus}(r)} = \sigma(r)`, so their logarithms are sums that lose nothing.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> p = Ordered()(jnp.array([0.0, 0.0, 0.0]), (3,)).mean()  # cuts at 0 and log 2
    >>> [round(float(x), 4) for x in p]
    [0.5, 0.1667, 0.3333]
    """

    def size(self, shape: Shape) -> int:
        """One number a class: location, first cut, and the steps to the others."""
        return math.prod(shape)

    def __call__(self, raw: Array, shape: Shape) -> OneHot:
        """One-hot law whose logits are the log probabilities of the classes."""
        numbers = _parts(raw, shape, 1)[0]
        location, first, steps = numbers[..., :1], numbers[..., 1:2], numbers[..., 2:]
        over = jnp.cumsum(jnp.concatenate([first - location, jax.nn.softplus(steps)], axis=-1), axis=-1)
        certain = jnp.zeros_like(location)
        up_to = jnp.concatenate([-jax.nn.softplus(-over), certain], axis=-1)
        beyond = jnp.concatenate([certain, -jax.nn.softplus(over)], axis=-1)
        gap = jnp.concatenate([certain, -jax.nn.softplus(-steps), certain], axis=-1)
        return OneHot(up_to + beyond + gap[..., : numbers.shape[-1]])

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """Location 0 and the cuts of these shares, each at least one in a hundred."""
        share = jnp.maximum(mean, 0.01)
        up_to = jnp.cumsum(share, axis=-1)[..., :-1] / jnp.sum(share, axis=-1, keepdims=True)
        cuts = jnp.log(up_to) - jnp.log1p(-up_to)
        gaps = jnp.diff(cuts, axis=-1)
        numbers = [jnp.zeros_like(mean[..., :1]), cuts[..., :1], _softplus_inverse(gaps)]
        return jnp.concatenate(numbers, axis=-1).ravel()

    def locations(self, shape: Shape) -> tuple[int, ...]:
        """The location; cuts are what the classes have in common."""
        return tuple(range(0, math.prod(shape), shape[-1]))


class Overdispersed(AbstractLink):
    """Counts that vary more than a Poisson count: a log mean and a log dispersion each.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Overdispersed()(jnp.zeros(4), (2,)).mean().tolist()
    [1.0, 1.0]
    """

    def size(self, shape: Shape) -> int:
        """Two numbers a cell: all log means, then all log dispersions."""
        return 2 * math.prod(shape)

    def __call__(self, raw: Array, shape: Shape) -> NegativeBinomial:
        """Negative binomial with independent cells."""
        log_mean, log_dispersion = _parts(raw, shape, 2)
        return NegativeBinomial(log_mean, log_dispersion)

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """Logarithms of the means, at least one in a hundred, and dispersions of 1."""
        return jnp.concatenate([jnp.log(jnp.maximum(mean, 0.01)).ravel(), jnp.zeros(mean.size, mean.dtype)])


class ManyZeros(AbstractLink):
    """Counts with extra zeros that vary more than Poisson counts: log mean, log dispersion and log odds of a zero.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> ManyZeros()(jnp.zeros(3), (1,)).mean().tolist()
    [0.5]
    """

    def size(self, shape: Shape) -> int:
        """Three numbers a cell: all log means, then all log dispersions, then all log odds of an extra zero."""
        return 3 * math.prod(shape)

    def __call__(self, raw: Array, shape: Shape) -> ZeroInflated:
        """Zero-inflated negative binomial with independent cells."""
        log_mean, log_dispersion, logits = _parts(raw, shape, 3)
        return ZeroInflated(NegativeBinomial(log_mean, log_dispersion), logits)

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """The means, at least one in a hundred, dispersions of 1, and an extra zero with probability 0.12."""
        logits = jnp.full(mean.size, -2.0, mean.dtype)
        log_mean = jnp.log(jnp.maximum(mean, 0.01)).ravel() + jax.nn.softplus(logits)
        return jnp.concatenate([log_mean, jnp.zeros(mean.size, mean.dtype), logits])


def _limits(values: Iterable[float | int]) -> Limits:
    return tuple(map(float, values))


class AbstractLimited(AbstractLink):
    """Real cells with limits: a location and a scale each; see `Within` and `Censored`."""

    low: eqx.AbstractVar[Limits]
    high: eqx.AbstractVar[Limits]
    floor: eqx.AbstractVar[float]

    def __check_init__(self) -> None:
        ordered = len(self.low) == len(self.high) > 0 and all(a < b for a, b in zip(self.low, self.high, strict=True))
        got = f"low={shown(self.low)}, high={shown(self.high)}"
        what, do = f"the limits of {type(self).__name__}", "give both as tuples, with one number per cell or for all"
        require(ordered, what, "as many low as high ones, each low one below its high one", got, do)

    def size(self, shape: Shape) -> int:
        """Two numbers a cell: all locations, then all scales."""
        return 2 * math.prod(shape)

    def start(self, mean: Float[Array, "..."]) -> Float[Array, " size"]:
        """Numbers whose law has this mean, kept off the limits; scales of 1 or of a quarter of a narrower interval.

        The mean rises with the location, which is found by bisection.
        """
        low, high = self._ends(mean.shape, mean.dtype)
        unit = jnp.minimum(1, 0.25 * (high - low))
        number = _softplus_inverse(jnp.maximum(unit - self.floor, 0.1 * unit))
        scale = self.floor + jax.nn.softplus(number)
        margin = jnp.minimum(0.04 * scale, 0.01 * (high - low))
        goal = jnp.clip(mean, low + margin, high - margin)

        def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            middle = 0.5 * (ends[0] + ends[1])
            above = self(jnp.stack([middle, number]), mean.shape).mean() > goal
            return jnp.where(above, ends[0], middle), jnp.where(above, middle, ends[1])

        ends = lax.fori_loop(0, 50, halve, (goal - 40 * scale, goal + 40 * scale))
        return jnp.concatenate([ends[0].ravel(), number.ravel()])

    def _numbers(self, raw: Array, shape: Shape) -> tuple[Array, Array, Array, Array]:
        """Location, scale and limits, each of the event's shape."""
        location, scale = _parts(raw, shape, 2)
        return location, self.floor + jax.nn.softplus(scale), *self._ends(shape, location.dtype)

    def _ends(self, shape: Shape, dtype: DTypeLike) -> tuple[Array, Array]:
        cells = math.prod(shape)
        what, do = f"an event of shape {shape} of {type(self).__name__}", "give one number per cell, or one for all"
        require(len(self.low) in (1, cells), what, f"1 or {cells} limits", f"{len(self.low)}", do)
        low, high = (jnp.broadcast_to(jnp.asarray(ends, dtype), (cells,)) for ends in (self.low, self.high))
        return low.reshape(shape), high.reshape(shape)


class Within(AbstractLimited):
    """Real cells that cannot leave an interval: truncated Gaussian, its scale = floor + softplus(number).

    Parameters
    ----------
    low, high : the limits, a number for each cell in row-major order or one for all; may be infinite. Static.
    floor : smallest scale.

    Raises
    ------
    ValueError
        When a low limit is not below its high one, or there are more of one than of the other; when an event has
        another number of cells.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Within((0.0,), (1.0,))(jnp.array([0.5, 0.5, 0.0, 3.0]), (2,)).mean().tolist()
    [0.5, 0.5]
    """

    low: Limits = eqx.field(static=True, converter=_limits)
    high: Limits = eqx.field(static=True, converter=_limits)
    floor: float = eqx.field(static=True, default=1e-3)

    def __call__(self, raw: Array, shape: Shape) -> TruncatedGaussian:
        """Truncated Gaussian with independent cells."""
        return TruncatedGaussian(*self._numbers(raw, shape))


class Censored(AbstractLimited):
    """Real cells that are recorded as the limit they pass: censored Gaussian, scale = floor + softplus(number).

    Parameters
    ----------
    low, high : the limits, a number for each cell in row-major order or one for all; may be infinite. Static.
    floor : smallest scale.

    Raises
    ------
    ValueError
        When a low limit is not below its high one, or there are more of one than of the other; when an event has
        another number of cells.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> Censored((-1.0,), (1.0,))(jnp.array([-50.0, 0.0]), (1,)).mean().tolist()
    [-1.0]
    """

    low: Limits = eqx.field(static=True, converter=_limits)
    high: Limits = eqx.field(static=True, converter=_limits)
    floor: float = eqx.field(static=True, default=1e-3)

    def __call__(self, raw: Array, shape: Shape) -> CensoredGaussian:
        """Censored Gaussian with independent cells."""
        return CensoredGaussian(*self._numbers(raw, shape))
