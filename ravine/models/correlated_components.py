"""Gaussian components whose cells are correlated: a covariance each, or one for all."""

from __future__ import annotations

import os
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float

from ravine._check import require
from ravine._tree import Fixed, unfix
from ravine.core import Row, Scalar
from ravine.dist import FullGaussian
from ravine.dist._cells import HALF_LOG_2PI
from ravine.models.components import AbstractComponents, Collect, rounding, supported
from ravine.models.starts import column_moments


class Moments(NamedTuple):
    """Sums of x and of x x', minus the family's centre; ``second`` has no leading axis when all components share it."""

    first: Float[Array, "k d"]
    second: Float[Array, "*k d d"]


class FullCovariance(AbstractComponents):
    r"""Gaussian components with a mean and a covariance each, :math:`N(m_c, L_c L_c^T)`.

    Missing cells are marginalised: their conditional means and covariances enter the statistics, as in Ghahramani &
    Jordan 1994, *Supervised learning from incomplete data via an EM approach*, NIPS 6.

    Parameters
    ----------
    means : shape (k, d).
    factors : lower Cholesky factors of the covariances, shape (k, d, d).
    reg_covar : added to the diagonal of every fitted covariance, in the squared units of the data.
    centre : shape (d,), a constant near the data, for the accuracy of sums of squares; unless given, mean of ``means``.

    Examples
    --------
    >>> two = FullCovariance.of(jnp.array([[0.0, 0.0], [4.0, 0.0]]), jnp.stack([jnp.eye(2), 4 * jnp.eye(2)]))
    >>> [round(float(v), 4) for v in two.log_prob_all(Row(jnp.zeros(2), jnp.array([True, False])))]
    [-0.9189, -3.6121]
    """

    means: Float[Array, "k d"]
    factors: Float[Array, "k d d"]
    reg_covar: Fixed
    centre: Fixed

    def __init__(self, means: Array, factors: Array, reg_covar: float | Fixed = 1e-6, centre: Fixed | None = None):
        self.means, self.factors = means, factors
        self.reg_covar, self.centre = constants(means, reg_covar, centre)

    def __check_init__(self) -> None:
        check_shapes("FullCovariance", self.means, self.factors, self.means.shape + self.means.shape[-1:])

    @classmethod
    def of(cls, means: Array, covariances: Array, reg_covar: float = 1e-6) -> Self:
        """The components with these covariances, shape (k, d, d)."""
        return cls(means, jnp.linalg.cholesky(covariances), reg_covar)

    @classmethod
    def broad(cls, batch: Row, k: int, reg_covar: float = 1e-6) -> Self:
        """k equal components as wide as the data, uncorrelated: what a start is fitted from."""
        room_for(k, batch)
        mean, scale = broad_moments(batch, reg_covar)
        return cls(jnp.tile(mean, (k, 1)), jnp.tile(jnp.diag(scale), (k, 1, 1)), reg_covar)

    def size(self) -> int:
        return self.means.shape[0]

    def law(self, z: Float[Array, " k"]) -> FullGaussian:
        return FullGaussian(z @ self.means, jnp.tensordot(z, lower(self.factors), 1))

    def given(self, row: Row) -> FullGaussian:
        mask = jnp.ones(row.x.shape, bool) if row.mask is None else row.mask
        return jax.vmap(lambda m, f: FullGaussian(m, f).condition(row.x, mask))(self.means, lower(self.factors))

    def log_prob_all(self, row: Row) -> Float[Array, " k"]:
        return jax.vmap(lambda m, f: FullGaussian(m, f).log_prob(row.x, row.mask))(self.means, lower(self.factors))

    def statistics(self, row: Row, share: Float[Array, " k"]) -> Moments:
        return _moments(self, row, share)

    def evaluate(self, batch: Row) -> tuple[Float[Array, "n k"], Collect]:
        roots, offsets = inverse(lower(self.factors)), self.means - unfix(self.centre)[None]
        x = centred(batch, self.centre)
        if batch.mask is not None:
            return _complete(x, batch.mask, roots, offsets[:, None])
        return _whitened(x, roots, offsets), lambda shares: _outer_sums(shares, x)

    def maximise(self, statistics: Moments, counts: Float[Array, " k"]) -> Self:
        alive = supported(counts)
        share = 1 / jnp.where(alive, counts, 1)
        mean = share[:, None] * statistics.first
        second = share[:, None, None] * statistics.second
        factors, sound = fitted_factor(second, mean[:, :, None] * mean[:, None, :], self.reg_covar)
        sound = sound & alive
        means = jnp.where(alive[:, None], mean + unfix(self.centre)[None], self.means)
        factors = jnp.where(sound[:, None, None], factors, self.factors)
        return type(self)(means, factors, self.reg_covar, self.centre)

    def log_penalty(self) -> Scalar:
        return jnp.zeros((), self.means.dtype)


class TiedCovariance(AbstractComponents):
    """Gaussian components with a mean each and one covariance, ``factor`` its lower Cholesky factor, shape (d, d).

    The other fields are those of `FullCovariance`.

    Examples
    --------
    >>> TiedCovariance.of(jnp.zeros((3, 2)), jnp.eye(2)).size()
    3
    """

    means: Float[Array, "k d"]
    factor: Float[Array, "d d"]
    reg_covar: Fixed
    centre: Fixed

    def __init__(self, means: Array, factor: Array, reg_covar: float | Fixed = 1e-6, centre: Fixed | None = None):
        self.means, self.factor = means, factor
        self.reg_covar, self.centre = constants(means, reg_covar, centre)

    def __check_init__(self) -> None:
        check_shapes("TiedCovariance", self.means, self.factor, self.means.shape[-1:] * 2)

    @classmethod
    def of(cls, means: Array, covariance: Array, reg_covar: float = 1e-6) -> Self:
        """The components with this covariance, shape (d, d)."""
        return cls(means, jnp.linalg.cholesky(covariance), reg_covar)

    @classmethod
    def broad(cls, batch: Row, k: int, reg_covar: float = 1e-6) -> Self:
        """k equal components as wide as the data, uncorrelated: what a start is fitted from."""
        room_for(1, batch)
        mean, scale = broad_moments(batch, reg_covar)
        return cls(jnp.tile(mean, (k, 1)), jnp.diag(scale), reg_covar)

    def size(self) -> int:
        return self.means.shape[0]

    def law(self, z: Float[Array, " k"]) -> FullGaussian:
        return FullGaussian(z @ self.means, lower(self.factor))

    def given(self, row: Row) -> FullGaussian:
        mask = jnp.ones(row.x.shape, bool) if row.mask is None else row.mask
        return jax.vmap(lambda m: FullGaussian(m, lower(self.factor)).condition(row.x, mask))(self.means)

    def log_prob_all(self, row: Row) -> Float[Array, " k"]:
        return jax.vmap(lambda m: FullGaussian(m, lower(self.factor)).log_prob(row.x, row.mask))(self.means)

    def statistics(self, row: Row, share: Float[Array, " k"]) -> Moments:
        return _pooled(_moments(self, row, share))

    def evaluate(self, batch: Row) -> tuple[Float[Array, "n k"], Collect]:
        root, offsets = inverse(lower(self.factor)[None]), self.means - unfix(self.centre)[None]
        x = centred(batch, self.centre)
        if batch.mask is not None:
            log_prob, collect_each = _complete(x, batch.mask, root, offsets[None])
            return log_prob, lambda shares: _pooled(collect_each(shares))

        heavy = lambda shares: jnp.sum(shares, axis=1)[:, None] * x  # noqa: E731
        return _whitened(x, root, offsets), lambda shares: Moments(shares.T @ x, heavy(shares).T @ x)

    def maximise(self, statistics: Moments, counts: Float[Array, " k"]) -> Self:
        alive = supported(counts)
        mean = statistics.first / jnp.where(alive, counts, 1)[:, None]
        between = (jnp.where(alive, counts, 0)[:, None] * mean).T @ mean
        factor, sound = fitted_factor(statistics.second / jnp.sum(counts), between / jnp.sum(counts), self.reg_covar)
        means = jnp.where(alive[:, None], mean + unfix(self.centre)[None], self.means)
        factor = jnp.where(sound, factor, self.factor)
        return type(self)(means, factor, self.reg_covar, self.centre)

    def log_penalty(self) -> Scalar:
        return jnp.zeros((), self.means.dtype)


def check_shapes(name: str, means: Array, other: Array, want: tuple[int, ...]) -> None:
    """Refuse parameters of a family that do not fit together."""
    if jnp.ndim(means) != 2 or jnp.shape(other) != want:
        raise ValueError(f"{name} needs means (k, d) and, with them, {want}; got {means.shape} and {other.shape}.")


def broad_moments(batch: Row, reg_covar: float) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """Mean and standard deviation of each column, none so small that its square is no number beside the others."""
    mean, scale = column_moments(batch)
    return mean, jnp.maximum(scale, jnp.sqrt(jnp.asarray(reg_covar, scale.dtype)))


def room_for(matrices: int, batch: Row, copies: int = 4) -> None:
    """Refuse so many covariance matrices, and the copies that computing takes, when they do not fit in memory."""
    columns = batch.x.shape[1]
    needed, there = matrices * copies * columns**2 * batch.x.dtype.itemsize, memory()
    do = "use covariance=Diagonal(), or fewer columns"
    got = f"{needed / 2**30:.0f} GB for {columns} columns"
    require(needed <= there, "the covariances of the data", f"at most {there / 2**30:.0f} GB of memory", got, do)


def memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**34


def constants(means: Array, reg_covar: float | Fixed, centre: Fixed | None) -> tuple[Fixed, Fixed]:
    """The fields that no rule may change."""
    reg_covar = reg_covar if isinstance(reg_covar, Fixed) else Fixed(jnp.asarray(reg_covar, means.dtype))
    return reg_covar, Fixed(jnp.mean(means, axis=0)) if centre is None else centre


def centred(batch: Row, centre: Fixed) -> Float[Array, "n d"]:
    """The rows minus the centre, 0 where not observed."""
    x = batch.x - unfix(centre)[None]
    return x if batch.mask is None else jnp.where(batch.mask, x, 0)


def lower(factors: Float[Array, "*k d d"]) -> Float[Array, "*k d d"]:
    """The part of a factor that counts: lower triangle, positive diagonal. A gradient step may leave others."""
    factors = jnp.tril(factors)
    diagonal = jnp.diagonal(factors, axis1=-2, axis2=-1)
    return factors * jnp.where(diagonal < 0, -1, 1)[..., None, :]


def inverse(factors: Float[Array, "k d d"]) -> Float[Array, "k d d"]:
    """Inverses of lower triangular matrices: with them whitening is a matrix product, not a solve per component."""
    eye = jnp.eye(factors.shape[-1], dtype=factors.dtype)
    return jax.vmap(lambda factor: solve_triangular(factor, eye, lower=True))(factors)


def fitted_factor(
    second: Float[Array, "*k d d"], square: Float[Array, "*k d d"], reg_covar: Fixed
) -> tuple[Float[Array, "*k d d"], Bool[Array, "*k"]]:
    """Factor of the mean product less the product of means plus ``reg_covar``, and whether it is more than rounding."""
    eye = jnp.broadcast_to(jnp.eye(second.shape[-1], dtype=second.dtype), second.shape)
    factor = jnp.linalg.cholesky(second - square + unfix(reg_covar) * eye)
    pivots, squares = (jnp.diagonal(part, axis1=-2, axis2=-1) for part in (factor, second))
    return factor, jnp.all(pivots**2 > rounding(squares), axis=-1)


def _whitened(
    x: Float[Array, "n d"], roots: Float[Array, "r d d"], offsets: Float[Array, "k d"]
) -> Float[Array, "n k"]:
    """Log densities of complete rows: all residuals are whitened by one matrix product."""
    n, d = x.shape
    shift = jnp.sum(roots * offsets[:, None, :], axis=2)
    residual = (x @ roots.reshape(-1, d).T).reshape(n, -1, d) - shift[None]
    return -0.5 * jnp.sum(residual**2, axis=-1) + (_log_diagonal(roots) - d * HALF_LOG_2PI)[None]


def _log_diagonal(factors: Float[Array, "*k d d"]) -> Float[Array, "*k"]:
    return jnp.sum(jnp.log(jnp.diagonal(factors, axis1=-2, axis2=-1)), axis=-1)


def _outer_sums(shares: Float[Array, "n k"], x: Float[Array, "n d"]) -> Moments:
    """Sums of shares times x and times x x', one component after the other: each product then stays in the cache."""
    columns = x.T
    second = jax.lax.map(lambda share: (share[None] * columns) @ x, shares.T)
    return Moments(shares.T @ x, second)


def _complete(
    x: Float[Array, "n d"], mask: Bool[Array, "n d"], roots: Float[Array, "r d d"], offsets: Float[Array, "r m d"]
) -> tuple[Float[Array, "n k"], Collect]:
    """Log densities of the observed cells, and the moments with the missing ones integrated out.

    ``m`` components share each of the ``r`` covariances. With precision P, the missing cells have covariance
    P_mm^-1 and mean shift -P_mm^-1 P_mo (x_o - m_o), and log det of the observed block is log det P_mm - log det P.
    """
    n, d = x.shape
    room_for(n * roots.shape[0], Row(x), copies=3)  # each row has missing cells of its own
    precision = jnp.swapaxes(roots, 1, 2) @ roots
    narrow, log_det = jax.vmap(lambda row: _free_part(precision, ~row))(mask)
    residual = jnp.where(mask[:, None, None], x[:, None, None] - offsets[None], 0)
    pull = jnp.einsum("nrmi,rij->nrmj", residual, precision)
    shift = jnp.einsum("nrij,nrmi->nrmj", narrow, jnp.einsum("nrij,nrmj->nrmi", narrow, pull))
    residual = residual - shift
    square = jnp.sum(jnp.einsum("rij,nrmj->nrmi", roots, residual) ** 2, axis=-1)
    cells = jnp.sum(mask, axis=1).astype(x.dtype)
    constant = (_log_diagonal(roots)[None] - log_det)[:, :, None] - (cells * HALF_LOG_2PI)[:, None, None]

    def collect(shares: Float[Array, "n k"]) -> Moments:
        shares = shares.reshape(square.shape)
        filled = residual + offsets[None]
        heavy = shares[..., None] * filled
        spread = jnp.sum(shares, axis=2)[:, :, None, None] * narrow
        second = jnp.einsum("nrmd,nrme->rde", heavy, filled) + jnp.einsum("nrid,nrie->rde", spread, narrow)
        return Moments(jnp.sum(heavy, axis=0).reshape(-1, d), second)

    return (constant - 0.5 * square).reshape(n, -1), collect


def _free_part(precision: Float[Array, "r d d"], missing: Bool[Array, " d"]) -> tuple[Array, Array]:
    """V with V' V the conditional covariance of the missing cells, and half the log determinant of their precision."""
    free = (missing[:, None] & missing[None, :])[None]
    factor = jnp.linalg.cholesky(jnp.where(free, precision, jnp.eye(missing.size, dtype=precision.dtype)[None]))
    return jnp.where(missing[None, None, :], inverse(factor), 0), _log_diagonal(factor)


def _moments(components: FullCovariance | TiedCovariance, row: Row, share: Float[Array, " k"]) -> Moments:
    """One row's moments under each component, from the dense conditional laws."""
    laws = components.given(row)
    filled = laws.location - unfix(components.centre)[None]
    second = filled[:, :, None] * filled[:, None, :] + laws.factor @ jnp.swapaxes(laws.factor, 1, 2)
    return Moments(share[:, None] * filled, share[:, None, None] * second)


def _pooled(moments: Moments) -> Moments:
    """The second moments of all components together."""
    return Moments(moments.first, jnp.sum(moments.second, axis=0))
