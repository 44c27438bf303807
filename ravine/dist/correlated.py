"""Gaussians whose cells depend on one another: a full covariance, and a low-rank one plus a diagonal."""

from __future__ import annotations

import jax.numpy as jnp
import jax.random as jr
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractReparametrised, Scalar
from ravine.dist._cells import HALF_LOG_2PI, filled, pair


def observed_factor(factor: Float[Array, "d d"], mask: Array | None) -> Float[Array, "d d"]:
    """Cholesky factor of the covariance in which missing cells were made standard and independent."""
    if mask is None:
        return factor
    seen = mask[:, None] & mask[None, :]
    return jnp.linalg.cholesky(jnp.where(seen, factor @ factor.T, jnp.eye(mask.size, dtype=factor.dtype)))


class FullGaussian(AbstractReparametrised):
    r"""A normal vector with any covariance, :math:`x \sim N(m, L L^T)`.

    .. math:: \log p(x) = -\tfrac12 |L^{-1}(x - m)|^2 - \sum_i \log L_{ii} - \tfrac d2 \log 2\pi

    Under a mask the density is that of the observed sub-vector, exactly: :math:`N(x_o; m_o, (L L^T)_{oo})`.

    Parameters
    ----------
    location : the mean, shape (d,).
    factor : the lower Cholesky factor of the covariance, shape (d, d), positive on its diagonal; only the lower
        triangle is read, so a factor may be trained.

    Raises
    ------
    ValueError
        When the shapes do not agree, or a value is not of shape (d,).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = FullGaussian(jnp.zeros(2), jnp.array([[1.0, 0.0], [1.0, 1.0]]))
    >>> round(float(d.log_prob(jnp.array([0.0, 7.0]), jnp.array([True, False]))), 4)
    -0.9189
    >>> d.condition(jnp.array([2.0, 0.0]), jnp.array([True, False])).mean().tolist()
    [2.0, 2.0]
    """

    location: Float[Array, " d"]
    factor: Float[Array, "d d"]

    def __check_init__(self) -> None:
        d = jnp.shape(self.location)
        if len(d) != 1 or jnp.shape(self.factor) != d + d:
            raise ValueError(f"FullGaussian needs shapes (d,) and (d, d), got {d} and {jnp.shape(self.factor)}.")

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Location plus factor times standard normal noise, shape (d,)."""
        return self.location + self.lower() @ jr.normal(key, self.location.shape, self.location.dtype)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed sub-vector, in nats."""
        residual = filled(value, mask, self.location) - self.location
        if mask is not None:
            residual = jnp.where(mask, residual, 0)
        factor = observed_factor(self.lower(), mask)
        cells = self.location.size if mask is None else jnp.sum(mask)
        z = solve_triangular(factor, residual, lower=True)
        return -0.5 * z @ z - jnp.sum(jnp.log(jnp.diagonal(factor))) - cells * HALF_LOG_2PI

    def mean(self) -> Array:
        """The location."""
        return self.location

    def lower(self) -> Float[Array, "d d"]:
        """The factor with zeros above its diagonal."""
        return jnp.tril(self.factor)

    def condition(self, value: Array, mask: Array | None = None) -> FullGaussian:
        r"""Law of all cells given the observed ones: those are held at their values, with zero rows in the factor.

        The missing cells m have precision :math:`P_{mm}`, :math:`P = (L L^T)^{-1}`, and mean
        :math:`m_m - P_{mm}^{-1} P_{mo} (x_o - m_o)`. A triangular root of :math:`P_{mm}` comes from a QR factorisation
        of the columns of :math:`L^{-1}`, which keeps twice the digits that a difference of covariances would.

        Parameters
        ----------
        value : shape (d,); read where ``mask`` is True.
        mask : shape (d,), True where observed; None when everything was.

        Returns
        -------
        FullGaussian
            Its draws agree with ``value`` in every observed cell. It has no density over those; score the others
            with ``log_prob(x, ~mask)``.
        """
        mask = jnp.ones(self.location.shape, bool) if mask is None else mask
        residual = jnp.where(mask, filled(value, mask, self.location) - self.location, 0)
        missing = ~mask
        eye = jnp.eye(mask.size, dtype=self.factor.dtype)
        root = solve_triangular(self.factor, eye, lower=True)
        stacked = jnp.concatenate([jnp.where(missing[None, :], root, 0), jnp.where(mask[None, :], eye, 0)])
        # reversing the columns before and both axes after turns the upper factor of QR into a lower one
        lower = jnp.linalg.qr(stacked[:, ::-1], mode="r")[::-1, ::-1]
        lower = lower * jnp.where(jnp.diagonal(lower) < 0, -1, 1)[:, None]
        free = missing[:, None] & missing[None, :]
        factor = jnp.where(free, solve_triangular(lower, eye, lower=True), 0)
        shift = factor @ (factor.T @ (root.T @ (root @ residual)))
        return FullGaussian(jnp.where(mask, value, self.location - shift), factor)


class LowRankGaussian(AbstractReparametrised):
    r"""A normal vector with covariance :math:`W W^T + \mathrm{diag}(s^2)`, the law of factor analysis.

    With :math:`M = I + W^T D^{-1} W`, :math:`D = \mathrm{diag}(s^2)` over the observed cells, r the residual and
    :math:`z = M^{-1} W^T D^{-1} r`,

    .. math:: \log p(x) = -\tfrac12\big(|D^{-1/2}(r - W z)|^2 + |z|^2 + \log|M| + \log|D| + n \log 2\pi\big)

    which is Woodbury's identity and the determinant lemma (Petersen and Pedersen 2012, *The matrix cookbook*, 156 and
    24) written as a sum of squares, so that small noise costs no digits. Only k x k systems are solved; the marginal
    under a mask is exact.

    Parameters
    ----------
    location : the mean, shape (d,).
    loading : W, shape (d, k).
    scale : standard deviation of the independent noise, shape (d,), positive.

    Raises
    ------
    ValueError
        When the shapes do not agree, or a value is not of shape (d,).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = LowRankGaussian(jnp.zeros(2), jnp.ones((2, 1)), jnp.ones(2))
    >>> round(float(d.log_prob(jnp.zeros(2))), 4)  # covariance [[2, 1], [1, 2]]
    -2.3872
    """

    location: Float[Array, " d"]
    loading: Float[Array, "d k"]
    scale: Float[Array, " d"]

    def __check_init__(self) -> None:
        pair("location and scale of a LowRankGaussian", self.location, self.scale)
        d, loading = jnp.shape(self.location), jnp.shape(self.loading)
        if len(loading) != 2 or loading[:1] != d:
            raise ValueError(f"LowRankGaussian needs shapes (d,), (d, k) and (d,), got {d} and loading {loading}.")

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """Location plus loading times k factors plus scaled noise, shape (d,)."""
        key_z, key_e = jr.split(key)
        z = jr.normal(key_z, self.loading.shape[1:], self.location.dtype)
        return self.location + self.loading @ z + self.scale * jr.normal(key_e, self.scale.shape, self.scale.dtype)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed sub-vector, in nats."""
        seen = jnp.ones(self.location.shape, bool) if mask is None else mask
        residual = jnp.where(seen, filled(value, mask, self.location) - self.location, 0)
        square, log_det = woodbury(self, residual[:, None], seen)
        return -0.5 * (square + log_det) - jnp.sum(seen) * HALF_LOG_2PI

    def mean(self) -> Array:
        """The location."""
        return self.location


def woodbury(d: LowRankGaussian, columns: Float[Array, "d n"], seen: Array) -> tuple[Scalar, Scalar]:
    """Trace of C' S^-1 C and log determinant of S, the covariance of the cells in ``seen``; C is 0 elsewhere."""
    scale = jnp.where(seen, d.scale, 1)[:, None]
    loading = jnp.where(seen[:, None], d.loading, 0) / scale
    columns = columns / scale
    inner = jnp.linalg.cholesky(jnp.eye(loading.shape[1], dtype=loading.dtype) + loading.T @ loading)
    factors = cho_solve((inner, True), loading.T @ columns)
    square = jnp.sum((columns - loading @ factors) ** 2) + jnp.sum(factors**2)
    return square, 2 * jnp.sum(jnp.log(jnp.diagonal(inner))) + 2 * jnp.sum(jnp.log(scale))
