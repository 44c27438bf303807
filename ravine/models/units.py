r"""Groups of units of one type, on which other groups act through a field.

.. math:: p(x \mid f) = \exp(f \cdot s(x) - U(x) - \Phi(f))

U is the energy of the units alone, s their statistics, which couple to other groups, and :math:`\Phi` the cumulant
function, which makes it normalised. Welling, Rosen-Zvi & Hinton 2005, *Exponential family harmoniums*.
A group without a ``bias`` says only of which type it is; `sized` makes one for cells of a shape.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, log_ndtr
from jaxtyping import Array, Float, Int, PyTree

from ravine._check import complaint
from ravine._special import softplus
from ravine.core import AbstractDistribution, Scalar
from ravine.dist import Bernoulli, Codes, Gaussian, OneHot, TruncatedGaussian
from ravine.models.signs import Signs

Cells = Float[Array, "..."]
Field = Float[Array, " _statistics"]
LEAST = 0.01  # what a mean rate is kept away from 0 and 1


class AbstractUnits(eqx.Module):
    """A group of units of one type."""

    @abc.abstractmethod
    def sized(self, shape: tuple[int, ...], base: Float[Array | np.ndarray, "..."] | None = None) -> Self:
        """Such units for cells of a shape, on their own with the means ``base``; without it, at their simplest."""

    @abc.abstractmethod
    def statistic(self, x: PyTree[Array]) -> Field:
        """What couples to other groups, as one vector."""

    @abc.abstractmethod
    def energy(self, x: PyTree[Array]) -> PyTree[Cells]:
        """U of each cell."""

    @abc.abstractmethod
    def cumulant(self, field: Field) -> PyTree[Cells]:
        """The cumulant function of each cell."""

    @abc.abstractmethod
    def __call__(self, field: Field) -> AbstractDistribution:
        """The law of the state under a field."""

    @abc.abstractmethod
    def mean(self, field: Field) -> Field:
        """The expected statistics under a field."""

    @abc.abstractmethod
    def towards(self, other: Any, share: Scalar) -> Self:
        """Units part of the way to others of the same type, in their natural parameters."""

    def pushed(self, field: Field) -> Self:
        """Units that are on their own as these are under a field."""
        bias = getattr(self, "bias")  # noqa: B009
        return dataclasses.replace(self, bias=bias + field.reshape(bias.shape))

    def spread(self, cells: PyTree[Array]) -> Field:
        """A number of each cell, given to each of its statistics."""
        return jnp.repeat(cells.ravel(), self.size // max(cells.size, 1))

    @property
    def size(self) -> int:
        """The number of statistics."""
        return int(jax.eval_shape(self.statistic, self.blank()).shape[0])

    @property
    def still(self) -> Field:
        """No field at all."""
        return jnp.zeros(self.size)

    @abc.abstractmethod
    def blank(self) -> PyTree[Array]:
        """A state of the right shape, all zeros."""


class AbstractCountable(AbstractUnits):
    """Units of finitely many states each, which can be listed."""

    @abc.abstractmethod
    def choices(self) -> tuple[int, ...]:
        """How many states each cell has, cell by cell."""

    @abc.abstractmethod
    def state(self, digits: Int[Array, " cells"]) -> PyTree[Array]:
        """The state whose cells are in the choices of these numbers."""


def wide(bias: Cells | None, shape: tuple[int, ...]) -> Cells:
    """The bias of each cell."""
    if bias is None:
        raise complaint("units", "a bias", "units without a size", "call sized(shape) first")
    return jnp.broadcast_to(bias, shape)


def _mixed(start: PyTree, stop: PyTree, share: Scalar) -> PyTree:
    return jax.tree.map(lambda a, b: (1 - share) * a + share * b, start, stop)


class BinaryUnits(AbstractCountable):
    r"""0 or 1, :math:`U(x) = -b x`; :math:`\Phi(f) = \log(1 + e^{b + f})`.

    Examples
    --------
    >>> units = BinaryUnits().sized((3,), jnp.array([0.5, 0.5, 0.9]))
    >>> units(jnp.zeros(3)).mean().round(2).tolist()
    [0.5, 0.5, 0.8999999761581421]
    """

    shape: tuple[int, ...] = eqx.field(static=True, default=())
    bias: Cells | None = None

    def sized(self, shape: tuple[int, ...], base: Float[Array | np.ndarray, "..."] | None = None) -> BinaryUnits:
        if base is None:
            return BinaryUnits(shape, jnp.zeros(shape))
        rate = jnp.clip(jnp.asarray(base).reshape(shape), LEAST, 1 - LEAST)
        return BinaryUnits(shape, jnp.log(rate / (1 - rate)))

    def statistic(self, x: Cells) -> Field:
        return x.ravel()

    def energy(self, x: Cells) -> Cells:
        return -wide(self.bias, self.shape) * x

    def cumulant(self, field: Field) -> Cells:
        return softplus(self._logits(field))

    def __call__(self, field: Field) -> Bernoulli:
        return Bernoulli(self._logits(field))

    def mean(self, field: Field) -> Field:
        return jax.nn.sigmoid(self._logits(field)).ravel()

    def blank(self) -> Cells:
        return jnp.zeros(self.shape)

    def towards(self, other: Any, share: Scalar) -> Self:
        return dataclasses.replace(self, bias=_mixed(self.bias, other.bias, share))

    def choices(self) -> tuple[int, ...]:
        return (2,) * math.prod(self.shape)

    def state(self, digits: Int[Array, " cells"]) -> Cells:
        return digits.reshape(self.shape).astype(wide(self.bias, self.shape).dtype)

    def _logits(self, field: Field) -> Cells:
        return wide(self.bias, self.shape) + field.reshape(self.shape)


class SpinUnits(AbstractCountable):
    r"""-1 or 1, :math:`U(x) = -b x`; :math:`\Phi(f) = \log 2 \cosh(b + f)`."""

    shape: tuple[int, ...] = eqx.field(static=True, default=())
    bias: Cells | None = None

    def sized(self, shape: tuple[int, ...], base: Float[Array | np.ndarray, "..."] | None = None) -> SpinUnits:
        if base is None:
            return SpinUnits(shape, jnp.zeros(shape))
        mean = jnp.clip(jnp.asarray(base).reshape(shape), 2 * LEAST - 1, 1 - 2 * LEAST)
        return SpinUnits(shape, jnp.arctanh(mean))

    def statistic(self, x: Cells) -> Field:
        return x.ravel()

    def energy(self, x: Cells) -> Cells:
        return -wide(self.bias, self.shape) * x

    def cumulant(self, field: Field) -> Cells:
        push = self._push(field)
        return jnp.abs(push) + jax.nn.softplus(-2 * jnp.abs(push))

    def __call__(self, field: Field) -> Signs:
        return Signs(2 * self._push(field))

    def mean(self, field: Field) -> Field:
        return jnp.tanh(self._push(field)).ravel()

    def blank(self) -> Cells:
        return jnp.zeros(self.shape)

    def towards(self, other: Any, share: Scalar) -> Self:
        return dataclasses.replace(self, bias=_mixed(self.bias, other.bias, share))

    def choices(self) -> tuple[int, ...]:
        return (2,) * math.prod(self.shape)

    def state(self, digits: Int[Array, " cells"]) -> Cells:
        return (2 * digits - 1).reshape(self.shape).astype(wide(self.bias, self.shape).dtype)

    def _push(self, field: Field) -> Cells:
        return wide(self.bias, self.shape) + field.reshape(self.shape)


class GaussianUnits(AbstractUnits):
    r"""Reals, :math:`U(x) = (x - b)^2 / 2 \sigma^2`, with statistics :math:`x / \sigma^2` and learned variance.

    .. math:: \Phi(f) = \tfrac12 \log 2 \pi \sigma^2 + (2 b f + f^2) / 2 \sigma^2

    so that under a field the mean is :math:`b + f`. Cho, Ilin & Raiko 2011, *Improved learning of Gaussian-Bernoulli
    restricted Boltzmann machines*.
    """

    shape: tuple[int, ...] = eqx.field(static=True, default=())
    bias: Cells | None = None
    log_scale: Cells | None = None

    def sized(self, shape: tuple[int, ...], base: Float[Array | np.ndarray, "..."] | None = None) -> GaussianUnits:
        bias = jnp.zeros(shape) if base is None else jnp.asarray(base).reshape(shape)
        return GaussianUnits(shape, bias, jnp.zeros(shape))

    def statistic(self, x: Cells) -> Field:
        return (x * self._precision()).ravel()

    def energy(self, x: Cells) -> Cells:
        return 0.5 * self._precision() * (x - wide(self.bias, self.shape)) ** 2

    def cumulant(self, field: Field) -> Cells:
        f, b = field.reshape(self.shape), wide(self.bias, self.shape)
        whole = 0.5 * math.log(2 * math.pi) + wide(self.log_scale, self.shape)
        return whole + self._precision() * f * (b + 0.5 * f)

    def __call__(self, field: Field) -> Gaussian:
        b = wide(self.bias, self.shape)
        return Gaussian(b + field.reshape(self.shape), jnp.exp(wide(self.log_scale, self.shape)))

    def mean(self, field: Field) -> Field:
        return self.statistic(wide(self.bias, self.shape) + field.reshape(self.shape))

    def blank(self) -> Cells:
        return jnp.zeros(self.shape)

    def towards(self, other: Any, share: Scalar) -> Self:
        here, there = self._precision(), other._precision()
        precision = _mixed(here, there, share)
        pull = _mixed(here * wide(self.bias, self.shape), there * wide(other.bias, other.shape), share)
        return dataclasses.replace(self, bias=pull / precision, log_scale=-0.5 * jnp.log(precision))

    def _precision(self) -> Cells:
        return jnp.exp(-2 * wide(self.log_scale, self.shape))


class RectifiedUnits(AbstractUnits):
    r"""Reals not below 0, :math:`U(x) = x^2 / 2 - b x`: rectified linear units whose law is a truncated normal one.

    .. math:: \Phi(f) = \tfrac12 (b + f)^2 + \log \sqrt{2 \pi}\, \mathrm N(b + f)

    with the standard normal distribution function N. Tubiana & Monasson 2017, arXiv:1611.06759.
    """

    shape: tuple[int, ...] = eqx.field(static=True, default=())
    bias: Cells | None = None

    def sized(self, shape: tuple[int, ...], base: Float[Array | np.ndarray, "..."] | None = None) -> RectifiedUnits:
        return RectifiedUnits(shape, jnp.zeros(shape) if base is None else jnp.asarray(base).reshape(shape))

    def statistic(self, x: Cells) -> Field:
        return x.ravel()

    def energy(self, x: Cells) -> Cells:
        return jnp.where(x >= 0, 0.5 * x * x - wide(self.bias, self.shape) * x, jnp.inf)

    def cumulant(self, field: Field) -> Cells:
        push = self._push(field)
        far, close = jnp.minimum(push, -10), jnp.maximum(push, -10)
        series = -jnp.log(-far) + jnp.log1p(-1 / far**2 + 3 / far**4 - 15 / far**6)  # the sum would cancel
        near = 0.5 * close**2 + log_ndtr(close) + 0.5 * math.log(2 * math.pi)
        return jnp.where(push < -10, series, near)

    def __call__(self, field: Field) -> TruncatedGaussian:
        push = self._push(field)
        return TruncatedGaussian(push, jnp.ones_like(push), jnp.zeros_like(push), jnp.full_like(push, jnp.inf))

    def mean(self, field: Field) -> Field:
        return self(field).mean().ravel()

    def blank(self) -> Cells:
        return jnp.zeros(self.shape)

    def towards(self, other: Any, share: Scalar) -> Self:
        return dataclasses.replace(self, bias=_mixed(self.bias, other.bias, share))

    def _push(self, field: Field) -> Cells:
        return wide(self.bias, self.shape) + field.reshape(self.shape)


class PottsUnits(AbstractCountable):
    r"""One of ``levels`` values, as a number 0, 1, ...; :math:`U(x) = -b_x`, and :math:`\Phi(f)` a log of a sum.

    The statistics are one 0 or 1 for each cell and level.
    """

    shape: tuple[int, ...] = eqx.field(static=True, default=())
    levels: int = eqx.field(static=True, default=2)
    bias: Cells | None = None

    def sized(self, shape: tuple[int, ...], base: Float[Array | np.ndarray, "..."] | None = None) -> PottsUnits:
        """The law with the least structure that has the means ``base``: the log odds are linear in the level."""
        if base is None:
            return PottsUnits(shape, self.levels, jnp.zeros((*shape, self.levels)))
        top = self.levels - 1
        rate = jnp.clip(jnp.asarray(base).reshape(shape) / top, LEAST, 1 - LEAST)
        ways = gammaln(top + 1.0) - gammaln(jnp.arange(top + 1) + 1.0) - gammaln(top - jnp.arange(top + 1) + 1.0)
        slope = jnp.tensordot(jnp.log(rate / (1 - rate)), jnp.arange(self.levels, dtype=float), 0)
        return PottsUnits(shape, self.levels, jnp.broadcast_to(ways, slope.shape) + slope)

    def statistic(self, x: Cells) -> Field:
        return jax.nn.one_hot(x.astype(jnp.int32), self.levels, dtype=x.dtype).ravel()

    def energy(self, x: Cells) -> Cells:
        bias = wide(self.bias, (*self.shape, self.levels))
        return -jnp.take_along_axis(bias, x.astype(jnp.int32)[..., None], axis=-1)[..., 0]

    def cumulant(self, field: Field) -> Cells:
        return jax.nn.logsumexp(self._logits(field), axis=-1)

    def __call__(self, field: Field) -> Codes:
        return Codes(self._logits(field))

    def mean(self, field: Field) -> Field:
        return jax.nn.softmax(self._logits(field)).ravel()

    def blank(self) -> Cells:
        return jnp.zeros(self.shape)

    def towards(self, other: Any, share: Scalar) -> Self:
        return dataclasses.replace(self, bias=_mixed(self.bias, other.bias, share))

    def choices(self) -> tuple[int, ...]:
        return (self.levels,) * math.prod(self.shape)

    def state(self, digits: Int[Array, " cells"]) -> Cells:
        return digits.reshape(self.shape).astype(wide(self.bias, (*self.shape, self.levels)).dtype)

    def _logits(self, field: Field) -> Cells:
        shape = (*self.shape, self.levels)
        return wide(self.bias, shape) + field.reshape(shape)


class SoftmaxUnits(AbstractCountable):
    r"""One of several classes, as a vector with a single 1; the last axis of ``shape`` lists the classes.

    `PottsUnits` in another spelling: what hidden units and groups of labels are.
    """

    shape: tuple[int, ...] = eqx.field(static=True, default=())
    bias: Cells | None = None

    def sized(self, shape: tuple[int, ...], base: Float[Array | np.ndarray, "..."] | None = None) -> SoftmaxUnits:
        share = jnp.ones(shape) if base is None else jnp.clip(jnp.asarray(base).reshape(shape), LEAST**2, 1)
        return SoftmaxUnits(shape, jnp.log(share))

    def statistic(self, x: Cells) -> Field:
        return x.ravel()

    def energy(self, x: Cells) -> Cells:
        return -jnp.sum(wide(self.bias, self.shape) * x, axis=-1)

    def cumulant(self, field: Field) -> Cells:
        return jax.nn.logsumexp(self._logits(field), axis=-1)

    def __call__(self, field: Field) -> OneHot:
        return OneHot(self._logits(field))

    def mean(self, field: Field) -> Field:
        return jax.nn.softmax(self._logits(field)).ravel()

    def blank(self) -> Cells:
        return jnp.zeros(self.shape)

    def towards(self, other: Any, share: Scalar) -> Self:
        return dataclasses.replace(self, bias=_mixed(self.bias, other.bias, share))

    def choices(self) -> tuple[int, ...]:
        return (self.shape[-1],) * math.prod(self.shape[:-1])

    def state(self, digits: Int[Array, " cells"]) -> Cells:
        dtype = wide(self.bias, self.shape).dtype
        return jax.nn.one_hot(digits.reshape(self.shape[:-1]), self.shape[-1], dtype=dtype)

    def _logits(self, field: Field) -> Cells:
        return wide(self.bias, self.shape) + field.reshape(self.shape)
