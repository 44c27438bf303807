"""Gaussian components whose cells are independent: a variance per cell, or one per component."""

from __future__ import annotations

from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ravine._tree import Fixed, unfix
from ravine.core import Row, Scalar
from ravine.dist import Gaussian
from ravine.dist._cells import HALF_LOG_2PI
from ravine.models.components import AbstractComponents, Collect, rounding, supported
from ravine.models.correlated_components import broad_moments, centred, check_shapes, constants


class CellMoments(NamedTuple):
    """Sums over the observed cells of each column: how many, x and x squared, x minus the family's centre."""

    counts: Float[Array, "k d"]
    first: Float[Array, "k d"]
    second: Float[Array, "k d"]


class DiagonalCovariance(AbstractComponents):
    """Gaussian components of independent cells. Missing cells drop out of every sum.

    Parameters
    ----------
    means, scales : mean and standard deviation of each cell, shape (k, d).
    reg_covar : added to every fitted variance, in the squared units of the data.
    centre : shape (d,), a constant near the data, for the accuracy of sums of squares; unless given, mean of ``means``.

    Examples
    --------
    >>> two = DiagonalCovariance(jnp.array([[0.0], [4.0]]), jnp.ones((2, 1)))
    >>> two.law(jnp.array([0.0, 1.0])).mean().tolist()
    [4.0]
    """

    means: Float[Array, "k d"]
    scales: Float[Array, "k d"]
    reg_covar: Fixed
    centre: Fixed

    def __init__(self, means: Array, scales: Array, reg_covar: float | Fixed = 1e-6, centre: Fixed | None = None):
        self.means, self.scales = means, scales
        self.reg_covar, self.centre = constants(means, reg_covar, centre)

    def __check_init__(self) -> None:
        check_shapes("DiagonalCovariance", self.means, self.scales, self.means.shape)

    @classmethod
    def of(cls, means: Array, variances: Array, reg_covar: float = 1e-6) -> Self:
        """The components with these variances, shape (k, d)."""
        return cls(means, jnp.sqrt(variances), reg_covar)

    @classmethod
    def broad(cls, batch: Row, k: int, reg_covar: float = 1e-6) -> Self:
        """k equal components as wide as the data: what a start is fitted from."""
        mean, scale = broad_moments(batch, reg_covar)
        return cls(jnp.tile(mean, (k, 1)), jnp.tile(scale, (k, 1)), reg_covar)

    def size(self) -> int:
        return self.means.shape[0]

    def law(self, z: Float[Array, " k"]) -> Gaussian:
        return Gaussian(z @ self.means, z @ jnp.abs(self.scales))

    def given(self, row: Row) -> Gaussian:
        return Gaussian(self.means, jnp.abs(self.scales))

    def log_prob_all(self, row: Row) -> Float[Array, " k"]:
        return jax.vmap(lambda law: law.log_prob(row.x, row.mask))(self.given(row))

    def statistics(self, row: Row, share: Float[Array, " k"]) -> CellMoments:
        return _moments(row, share, self.centre)

    def evaluate(self, batch: Row) -> tuple[Float[Array, "n k"], Collect]:
        return _evaluate(batch, self.means, jnp.abs(self.scales), self.centre)

    def maximise(self, statistics: CellMoments, counts: Float[Array, " k"]) -> Self:
        mean, squares = _centre_out(statistics, self.means, self.centre)
        scales = _fitted_scales(squares, statistics.second, statistics.counts, self)
        return type(self)(mean, scales, self.reg_covar, self.centre)

    def log_penalty(self) -> Scalar:
        return jnp.zeros((), self.means.dtype)


class SphericalCovariance(AbstractComponents):
    """Gaussian components with one standard deviation each for all cells, ``scales`` of shape (k,).

    The other fields are those of `DiagonalCovariance`.

    Examples
    --------
    >>> SphericalCovariance(jnp.zeros((2, 3)), jnp.array([1.0, 2.0])).given(Row(jnp.zeros(3))).scale.tolist()
    [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    """

    means: Float[Array, "k d"]
    scales: Float[Array, " k"]
    reg_covar: Fixed
    centre: Fixed

    def __init__(self, means: Array, scales: Array, reg_covar: float | Fixed = 1e-6, centre: Fixed | None = None):
        self.means, self.scales = means, scales
        self.reg_covar, self.centre = constants(means, reg_covar, centre)

    def __check_init__(self) -> None:
        check_shapes("SphericalCovariance", self.means, self.scales, self.means.shape[:1])

    @classmethod
    def of(cls, means: Array, variances: Array, reg_covar: float = 1e-6) -> Self:
        """The components with these variances, shape (k,)."""
        return cls(means, jnp.sqrt(variances), reg_covar)

    @classmethod
    def broad(cls, batch: Row, k: int, reg_covar: float = 1e-6) -> Self:
        """k equal components as wide as the data: what a start is fitted from."""
        mean, scale = broad_moments(batch, reg_covar)
        return cls(jnp.tile(mean, (k, 1)), jnp.full((k,), jnp.sqrt(jnp.mean(scale**2))), reg_covar)

    def size(self) -> int:
        return self.means.shape[0]

    def law(self, z: Float[Array, " k"]) -> Gaussian:
        return Gaussian(z @ self.means, jnp.broadcast_to(z @ jnp.abs(self.scales), self.means.shape[1:]))

    def given(self, row: Row) -> Gaussian:
        return Gaussian(self.means, self._by_cell())

    def log_prob_all(self, row: Row) -> Float[Array, " k"]:
        return jax.vmap(lambda law: law.log_prob(row.x, row.mask))(self.given(row))

    def statistics(self, row: Row, share: Float[Array, " k"]) -> CellMoments:
        return _moments(row, share, self.centre)

    def evaluate(self, batch: Row) -> tuple[Float[Array, "n k"], Collect]:
        return _evaluate(batch, self.means, self._by_cell(), self.centre)

    def maximise(self, statistics: CellMoments, counts: Float[Array, " k"]) -> Self:
        mean, squares = _centre_out(statistics, self.means, self.centre)
        cells, second = jnp.sum(statistics.counts, axis=1), jnp.sum(statistics.second, axis=1)
        scales = _fitted_scales(jnp.sum(squares, axis=1), second, cells, self)
        return type(self)(mean, scales, self.reg_covar, self.centre)

    def log_penalty(self) -> Scalar:
        return jnp.zeros((), self.means.dtype)

    def _by_cell(self) -> Float[Array, "k d"]:
        return jnp.broadcast_to(jnp.abs(self.scales)[:, None], self.means.shape)


def _moments(row: Row, share: Float[Array, " k"], centre: Fixed) -> CellMoments:
    """One row's sums; a missing cell adds nothing."""
    seen = jnp.ones(row.x.shape, bool) if row.mask is None else row.mask
    x = jnp.where(seen, row.x - unfix(centre), 0)
    return CellMoments(*(jnp.outer(share, part) for part in (seen.astype(share.dtype), x, x**2)))


def _evaluate(
    batch: Row, means: Float[Array, "k d"], scales: Float[Array, "k d"], centre: Fixed
) -> tuple[Float[Array, "n k"], Collect]:
    """The squared residuals expanded around the centre, so that all is matrix products."""
    x = centred(batch, centre)
    precision, offset = scales**-2, means - unfix(centre)[None]
    constant = offset**2 * precision + 2 * (jnp.log(scales) + HALF_LOG_2PI)
    seen = jnp.ones(x.shape, x.dtype) if batch.mask is None else batch.mask.astype(x.dtype)
    square = x**2 @ precision.T - 2 * x @ (offset * precision).T + seen @ constant.T
    return -0.5 * square, lambda shares: CellMoments(shares.T @ seen, shares.T @ x, shares.T @ x**2)


def _centre_out(moments: CellMoments, before: Float[Array, "k d"], centre: Fixed) -> tuple[Array, Array]:
    """The means, as before where nothing was seen, and the sums of squares around them."""
    alive = supported(moments.counts)
    mean = moments.first / jnp.where(alive, moments.counts, 1)
    squares = jnp.where(alive, moments.second - mean * moments.first, 0)
    return jnp.where(alive, mean + unfix(centre)[None], before), squares


def _fitted_scales(
    squares: Array, second: Array, counts: Array, before: DiagonalCovariance | SphericalCovariance
) -> Array:
    """Root mean squares, as before where rows or digits do not suffice; ``second`` are the squares about the centre."""
    share = 1 / jnp.where(supported(counts), counts, 1)
    variance = share * squares + unfix(before.reg_covar)
    sound = supported(counts) & (variance > rounding(share * second))
    return jnp.where(sound, jnp.sqrt(jnp.where(sound, variance, 1)), before.scales)
