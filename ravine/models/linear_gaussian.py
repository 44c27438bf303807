"""Factor analysis and probabilistic PCA: Gaussian causes, a linear map, independent Gaussian noise; all exact."""

from __future__ import annotations

import abc
from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float, PyTree

from ravine._tree import Fixed, unfix
from ravine.core import AbstractConjugate, AbstractDirected, Row, Scalar, weights
from ravine.dist import FullGaussian, Gaussian, LowRankGaussian
from ravine.dist._cells import HALF_LOG_2PI
from ravine.models.laws import Held
from ravine.models.starts import column_moments, standardised
from ravine.posteriors import OneNode

MANY = 1000  # columns whose correlation matrix is too large to take apart when there are fewer rows


class AbstractNoise(eqx.Module):
    """Independent Gaussian noise on the d cells of a row, and how EM fits its size.

    A variance below ``floor`` (in the squared units of the data) is set to it: a column that does not vary, or that one
    cause explains completely, would have infinite density.
    """

    @classmethod
    @abc.abstractmethod
    def of(cls, variances: Float[Array, " d"]) -> Self:
        """The noise of its kind that is closest to these variances."""

    @abc.abstractmethod
    def scale(self, cells: int) -> Float[Array, " d"]:
        """Standard deviation of each cell."""

    @abc.abstractmethod
    def maximise(self, squares: Float[Array, " d"], counts: Float[Array, " d"]) -> Self:
        """The noise whose likelihood is highest, from each column's sum of squared residuals and its weight."""


class DiagonalNoise(AbstractNoise):
    """A standard deviation per column, shape (d,): factor analysis.

    Examples
    --------
    >>> DiagonalNoise(jnp.ones(2)).maximise(jnp.array([8.0, 0.0]), jnp.array([2.0, 0.0])).scale(2).tolist()
    [2.0, 1.0]
    """

    scales: Float[Array, " d"]
    floor: Fixed = Fixed(1e-6)

    @classmethod
    def of(cls, variances: Float[Array, " d"]) -> Self:
        return cls(jnp.sqrt(variances))

    def scale(self, cells: int) -> Float[Array, " d"]:
        return jnp.abs(self.scales)

    def maximise(self, squares: Float[Array, " d"], counts: Float[Array, " d"]) -> Self:
        return type(self)(_root_mean(squares, counts, self.scales, self.floor), self.floor)


class IsotropicNoise(AbstractNoise):
    """One standard deviation for all columns, shape (): probabilistic PCA, Tipping & Bishop 1999, JRSS B 61, 611-622.

    Examples
    --------
    >>> IsotropicNoise(jnp.array(2.0)).scale(3).tolist()
    [2.0, 2.0, 2.0]
    """

    scales: Scalar
    floor: Fixed = Fixed(1e-6)

    @classmethod
    def of(cls, variances: Float[Array, " d"]) -> Self:
        return cls(jnp.sqrt(jnp.mean(variances)))

    def scale(self, cells: int) -> Float[Array, " d"]:
        return jnp.full((cells,), jnp.abs(self.scales))

    def maximise(self, squares: Float[Array, " d"], counts: Float[Array, " d"]) -> Self:
        return type(self)(_root_mean(jnp.sum(squares), jnp.sum(counts), self.scales, self.floor), self.floor)


def _root_mean(squares: Array, counts: Array, before: Array, floor: Fixed) -> Array:
    """Square root of the mean square, at least the floor's; as before where nothing was seen."""
    seen = counts > 0
    mean = squares / jnp.where(seen, counts, 1)
    return jnp.where(seen, jnp.sqrt(jnp.maximum(mean, jnp.asarray(unfix(floor), mean.dtype))), before)


class Regression(NamedTuple):
    """Sums for the regression of each column on the causes and 1, u = (z, 1); over rows where the column was observed.

    ``causes`` is the sum of E[u u'] over all rows; ``squares`` and ``products`` are of x minus the model's centre.
    """

    outer: Float[Array, "d u u"]
    products: Float[Array, "d u"]
    squares: Float[Array, " d"]
    causes: Float[Array, "u u"]


class LinearGaussian(AbstractDirected, AbstractConjugate):
    r"""Factor analysis: :math:`z \sim N(0, I_k)`, :math:`x = b + W z + e`, :math:`e \sim N(0, \mathrm{diag}(\psi))`.

    .. math:: p(z \mid x_o) = N(G W_o^T \psi_o^{-1} (x_o - b_o), G), \qquad G = (I + W_o^T \psi_o^{-1} W_o)^{-1}

    where o are the observed cells: only k x k systems are solved, and missing cells drop out exactly. Rubin & Thayer
    1982, Psychometrika 47, 69-76. The maximisation step is the parameter-expanded one of Liu, Rubin & Wu 1998,
    Biometrika 85, 755-770: the causes are fitted with a free mean and covariance, which is then folded into W and b.
    That keeps the likelihood from falling, as in plain EM, and takes fewer iterations.

    Parameters
    ----------
    loading : W, shape (d, k).
    bias : b, shape (d,). Wrap it in `Fixed` to hold it during learning.
    noise : `DiagonalNoise` (factor analysis) or `IsotropicNoise` (probabilistic PCA).
    centre : shape (d,), a constant near the data that keeps sums of squares accurate; the bias unless given.

    Raises
    ------
    ValueError
        When the shapes of loading and bias do not agree.

    Examples
    --------
    >>> model = LinearGaussian(jnp.ones((2, 1)), jnp.zeros(2), DiagonalNoise(jnp.ones(2)))
    >>> row = Row(jnp.array([2.0, 0.0]), jnp.array([True, False]))
    >>> model.conditional(row).mean().round(3).tolist()
    [2.0, 1.0]
    >>> round(float(model.log_evidence(row)), 4)  # N(2; 0, 2)
    -2.2655
    """

    loading: Float[Array, "d k"]
    bias: Float[Array, " d"] | Fixed
    noise: AbstractNoise
    centre: Fixed

    def __init__(self, loading: Array, bias: Array | Fixed, noise: AbstractNoise, centre: Fixed | None = None):
        shapes = jnp.shape(loading), jnp.shape(unfix(bias))
        if len(shapes[0]) != 2 or shapes[1] != shapes[0][:1]:
            raise ValueError(f"LinearGaussian needs a loading (d, k) and a bias (d,), got {shapes[0]} and {shapes[1]}.")
        self.loading, self.bias, self.noise = loading, bias, noise
        self.centre = Fixed(unfix(bias)) if centre is None else centre

    @classmethod
    def from_moments(cls, batch: Row, causes: int, noise: type[AbstractNoise] = DiagonalNoise) -> Self:
        """A start for learning: principal components of the standardised columns, missing cells at their column's mean.

        Tipping & Bishop 1999, equation 15, on the correlation matrix; ``batch`` holds the rows, ``causes`` is k.
        """
        mean, scale = column_moments(batch)
        rows, columns = batch.x.shape
        wide = columns > max(rows, MANY)
        loading = scale[:, None] * (_thin(batch, causes) if wide else _components(_correlations(batch), causes))
        # a column that the components explain completely would never be explained less: leave it a little noise
        unexplained = jnp.maximum(scale**2 - jnp.sum(loading**2, axis=1), 0.01 * scale**2)
        return cls(loading, mean, noise.of(unexplained))

    def prior(self, context: PyTree = None) -> Gaussian:
        k, dtype = self.loading.shape[1], self.loading.dtype
        return Gaussian(jnp.zeros(k, dtype), jnp.ones(k, dtype))

    def likelihood(self, z: Float[Array, " k"], context: PyTree = None) -> Gaussian:
        return Gaussian(unfix(self.bias) + self.loading @ z, self.noise_scale())

    def posterior(self, row: Row) -> OneNode:
        mean, covariance = self._causes(row)
        return OneNode(FullGaussian(mean, jnp.linalg.cholesky(covariance)))

    def log_evidence(self, row: Row) -> Scalar:
        return LowRankGaussian(unfix(self.bias), self.loading, self.noise_scale()).log_prob(row.x, row.mask)

    def conditional(self, row: Row) -> Held:
        mean, covariance = self._causes(row)
        loading = self.loading @ jnp.linalg.cholesky(covariance)
        law = LowRankGaussian(unfix(self.bias) + self.loading @ mean, loading, self.noise_scale())
        return Held.observed(law, row)

    def statistics(self, row: Row) -> tuple[Regression, Scalar]:
        mean, covariance = self._causes(row)
        u = jnp.append(mean, 1)
        outer = jnp.outer(u, u).at[:-1, :-1].add(covariance)
        mask = jnp.ones(row.x.shape, bool) if row.mask is None else row.mask
        residual = jnp.where(mask, row.x - unfix(self.centre), 0)
        by_column = mask[:, None, None] * outer[None]
        return Regression(by_column, jnp.outer(residual, u), residual**2, outer), self.log_evidence(row)

    def expected(self, batch: Row) -> tuple[Regression, Scalar]:
        return _whole(self, batch) if batch.mask is None else _with_holes(self, batch)

    def maximise(self, statistics: Regression) -> Self:
        bias, centre = unfix(self.bias), unfix(self.centre)
        held = isinstance(self.bias, Fixed)
        counts = statistics.outer[:, -1, -1]
        before = jnp.column_stack([self.loading, bias - centre])
        if held:
            theta = jax.vmap(_hold_last)(statistics.outer, statistics.products, bias - centre)
        else:
            theta = jax.vmap(_regress)(statistics.outer, statistics.products)
        theta = jnp.where((counts > 0)[:, None], theta, before)
        explained = jnp.einsum("du,due->de", theta, statistics.outer) - 2 * statistics.products
        squares = statistics.squares + jnp.sum(theta * explained, axis=1)
        loading, shift = _fold(theta[:, :-1], statistics.causes, held)
        bias = self.bias if held else theta[:, -1] + shift + centre
        return type(self)(loading, bias, self.noise.maximise(squares, counts), self.centre)

    def log_penalty(self) -> Scalar:
        return jnp.zeros((), self.loading.dtype)

    def noise_scale(self) -> Float[Array, " d"]:
        """Standard deviation of the noise of each cell."""
        return self.noise.scale(self.loading.shape[0])

    def _causes(self, row: Row) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
        """Mean and covariance of p(z | observed cells)."""
        seen = jnp.ones(row.x.shape, bool) if row.mask is None else row.mask
        scaled = jnp.where(seen[:, None], self.loading / self.noise_scale()[:, None], 0)
        residual = jnp.where(seen, (row.x - unfix(self.bias)) / self.noise_scale(), 0)
        eye = jnp.eye(scaled.shape[1], dtype=scaled.dtype)
        covariance = cho_solve((jnp.linalg.cholesky(eye + scaled.T @ scaled), True), eye)
        return covariance @ (scaled.T @ residual), covariance


def _regress(outer: Float[Array, "u u"], products: Float[Array, " u"]) -> Float[Array, " u"]:
    """Least squares of one column on the causes and 1."""
    return cho_solve((jnp.linalg.cholesky(outer), True), products)


def _hold_last(outer: Float[Array, "u u"], products: Float[Array, " u"], last: Scalar) -> Float[Array, " u"]:
    """The same with the coefficient of 1 given."""
    return jnp.append(_regress(outer[:-1, :-1], products[:-1] - last * outer[:-1, -1]), last)


def _fold(loading: Float[Array, "d k"], causes: Float[Array, "u u"], held: bool) -> tuple[Array, Array]:
    """The loading, and the shift of the bias, when causes of the mean and covariance in ``causes`` are made standard.

    With a held bias the causes keep mean 0. Fewer rows than causes leave the loading as it is.
    """
    weight = causes[-1, -1]
    moments = causes / jnp.where(weight > 0, weight, 1)
    mean = jnp.zeros_like(moments[:-1, -1]) if held else moments[:-1, -1]
    root = jnp.linalg.cholesky(moments[:-1, :-1] - jnp.outer(mean, mean))
    root = jnp.where(jnp.all(jnp.isfinite(root)), root, jnp.eye(mean.size, dtype=root.dtype))
    return loading @ root, loading @ mean


def _augmented(
    mean: Float[Array, "n k"], weight: Float[Array, " n"], centred: Float[Array, "n d"]
) -> tuple[Float[Array, "n u"], Float[Array, "d u"], Float[Array, " d"]]:
    """E[u] of every row, and the weighted sums of its products with the cells and of the squared cells."""
    u = jnp.concatenate([mean, jnp.ones((mean.shape[0], 1), mean.dtype)], axis=1)
    heavy = weight[:, None] * centred
    return u, heavy.T @ u, jnp.sum(heavy * centred, axis=0)


def _whole(model: LinearGaussian, batch: Row) -> tuple[Regression, Scalar]:
    """Sums over complete rows: one posterior covariance serves them all."""
    weight, scale, cells = weights(batch), model.noise_scale(), model.loading.shape[0]
    scaled = model.loading / scale[:, None]
    residual = (batch.x - unfix(model.bias)[None]) / scale[None]
    eye = jnp.eye(scaled.shape[1], dtype=scaled.dtype)
    root = jnp.linalg.cholesky(eye + scaled.T @ scaled)
    covariance = cho_solve((root, True), eye)
    mean = residual @ (scaled @ covariance)
    u, products, squares = _augmented(mean, weight, batch.x - unfix(model.centre)[None])
    outer = (weight[:, None] * u).T @ u
    outer = outer.at[:-1, :-1].add(jnp.sum(weight) * covariance)
    square = jnp.sum((residual - mean @ scaled.T) ** 2, axis=1) + jnp.sum(mean**2, axis=1)
    constant = jnp.sum(jnp.log(jnp.diagonal(root))) + jnp.sum(jnp.log(scale)) + cells * HALF_LOG_2PI
    evidence = -0.5 * weight @ square - jnp.sum(weight) * constant
    return Regression(jnp.broadcast_to(outer, (cells, *outer.shape)), products, squares, outer), evidence


def _with_holes(model: LinearGaussian, batch: Row) -> tuple[Regression, Scalar]:
    """Sums over rows with missing cells: a k x k system per row, matrix products for all else."""
    weight, scale, (cells, k) = weights(batch), model.noise_scale(), model.loading.shape
    scaled, seen = model.loading / scale[:, None], batch.mask.astype(model.loading.dtype)
    residual = jnp.where(batch.mask, (batch.x - unfix(model.bias)[None]) / scale[None], 0)
    eye = jnp.eye(k, dtype=scaled.dtype)
    precision = seen @ (scaled[:, :, None] * scaled[:, None, :]).reshape(cells, k * k)
    root = jnp.linalg.cholesky(precision.reshape(-1, k, k) + eye[None])
    covariance = jax.vmap(lambda r: cho_solve((r, True), eye))(root)
    mean = jnp.einsum("nkl,nl->nk", covariance, residual @ scaled)
    centred = jnp.where(batch.mask, batch.x - unfix(model.centre)[None], 0)
    u, products, squares = _augmented(mean, weight, centred)
    each = (u[:, :, None] * u[:, None, :]).at[:, :-1, :-1].add(covariance).reshape(-1, (k + 1) ** 2)
    outer = ((weight[:, None] * seen).T @ each).reshape(cells, k + 1, k + 1)
    left = jnp.where(batch.mask, residual - mean @ scaled.T, 0)
    log_det = jnp.sum(jnp.log(jnp.diagonal(root, axis1=1, axis2=2)), axis=1) + seen @ jnp.log(scale)
    square = jnp.sum(left**2, axis=1) + jnp.sum(mean**2, axis=1)
    value = -0.5 * square - log_det - jnp.sum(seen, axis=1) * HALF_LOG_2PI
    return Regression(outer, products, squares, (weight @ each).reshape(k + 1, k + 1)), weight @ value


def _correlations(batch: Row) -> Float[Array, "d d"]:
    """Correlations of the columns with missing cells at their means, which shrinks them and keeps them consistent."""
    standard, weight = standardised(batch), weights(batch)
    correlation = (weight[:, None] * standard).T @ standard / jnp.sum(weight)
    return correlation.at[jnp.diag_indices(standard.shape[1])].set(1)


def _components(correlation: Float[Array, "d d"], k: int) -> Float[Array, "d k"]:
    """The loading of probabilistic PCA: eigenvectors times the root of what their eigenvalues exceed the others by."""
    values, vectors = jnp.linalg.eigh(correlation)
    rest = jnp.sum(values[: max(values.size - k, 0)]) / max(values.size - k, 1)
    loading = (vectors * jnp.sqrt(jnp.maximum(values - rest, 0))[None, :])[:, ::-1][:, :k]
    return jnp.pad(loading, ((0, 0), (0, k - loading.shape[1])))


def _thin(batch: Row, k: int) -> Float[Array, "d k"]:
    """`_components` of the correlations of more columns than rows, from the products of rows: eigenvalues are the same.

    Holes shrink a correlation of a column with itself too here.
    """
    weight = weights(batch)
    rows = jnp.sqrt(weight / jnp.sum(weight))[:, None] * standardised(batch)
    n, d = rows.shape
    values, vectors = jnp.linalg.eigh(rows @ rows.T)
    values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
    rest = (d - jnp.sum(values)) / max(d - k, 1)
    length = jnp.sqrt(jnp.where(values > rest, values, 1))
    loading = (rows.T @ vectors) * (jnp.sqrt(jnp.maximum(values - rest, 0)) / length)[None]
    return jnp.pad(loading, ((0, 0), (0, k - loading.shape[1])))
