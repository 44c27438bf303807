"""A heavy-tailed law of cells that depend on one another."""

from __future__ import annotations

import jax.numpy as jnp
import jax.random as jr
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractReparametrised, Scalar
from ravine.dist._cells import filled
from ravine.dist.correlated import FullGaussian, observed_factor


class FullStudentT(AbstractReparametrised):
    r"""A vector of Student's t with ``freedom`` degrees of freedom: a normal one over the root of a common chi-square.

    .. math::
        \log p(x) = \log\frac{\Gamma((\nu + d)/2)}{\Gamma(\nu/2)} - \tfrac d2 \log(\nu\pi) - \sum_i \log L_{ii}
        - \tfrac{\nu + d}2 \log\bigl(1 + |L^{-1}(x - m)|^2 / \nu\bigr)

    Cells are not independent even where L is diagonal. Under a mask the density is that of the observed sub-vector.
    Kotz & Nadarajah 2004, *Multivariate t distributions and their applications*, equation 1.1.

    Parameters
    ----------
    location : the centre, shape (d,).
    factor : lower Cholesky factor of the scale matrix, shape (d, d), positive on its diagonal; only the lower triangle
        is read.
    freedom : degrees of freedom, above 0.

    Raises
    ------
    ValueError
        When the shapes do not agree, or a value is not of shape (d,).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> d = FullStudentT(jnp.zeros(1), jnp.eye(1), jnp.array(1.0))
    >>> round(float(d.log_prob(jnp.zeros(1))), 4)  # Cauchy: log(1 / pi)
    -1.1447
    """

    location: Float[Array, " d"]
    factor: Float[Array, "d d"]
    freedom: Float[Array, ""]

    def __check_init__(self) -> None:
        d = jnp.shape(self.location)
        if len(d) != 1 or jnp.shape(self.factor) != d + d:
            raise ValueError(f"FullStudentT needs shapes (d,) and (d, d), got {d} and {jnp.shape(self.factor)}.")

    def sample(self, *, key: PRNGKeyArray) -> Array:
        """A normal draw, divided by the root of a chi-square over its degrees of freedom; shape (d,)."""
        noise, common = jr.split(key)
        dtype = self.location.dtype
        chi = 2 * jr.gamma(common, 0.5 * self.freedom, dtype=dtype)
        away = jnp.tril(self.factor) @ jr.normal(noise, self.location.shape, dtype)
        return self.location + away * jnp.sqrt(self.freedom / chi)

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        """Log density of the observed sub-vector, in nats."""
        residual = filled(value, mask, self.location) - self.location
        if mask is not None:
            residual = jnp.where(mask, residual, 0)
        factor = observed_factor(jnp.tril(self.factor), mask)
        cells = self.location.size if mask is None else jnp.sum(mask)
        half = 0.5 * (self.freedom + cells)
        square = jnp.sum(solve_triangular(factor, residual, lower=True) ** 2)
        constant = gammaln(half) - gammaln(0.5 * self.freedom) - 0.5 * cells * jnp.log(jnp.pi * self.freedom)
        return constant - jnp.sum(jnp.log(jnp.diagonal(factor))) - half * jnp.log1p(square / self.freedom)

    def mean(self) -> Array:
        """The location; NaN where freedom <= 1, for there the expectation does not exist."""
        return jnp.where(self.freedom > 1, self.location, jnp.nan)

    def condition(self, value: Array, mask: Array | None = None) -> FullStudentT:
        r"""Law of all cells given the observed ones, which are held at their values as in `FullGaussian.condition`.

        The missing cells have the location of the normal law, :math:`\nu + n` degrees of freedom for n observed cells,
        and its scale matrix times :math:`(\nu + q) / (\nu + n)`, with q their squared distance. Kotz & Nadarajah 2004,
        section 1.11.
        """
        normal = FullGaussian(self.location, self.factor)
        seen = jnp.ones(self.location.shape, bool) if mask is None else mask
        residual = jnp.where(seen, filled(value, seen, self.location) - self.location, 0)
        square = jnp.sum(solve_triangular(observed_factor(normal.lower(), seen), residual, lower=True) ** 2)
        given, freedom = normal.condition(value, mask), self.freedom + jnp.sum(seen)
        return FullStudentT(given.location, given.factor * jnp.sqrt((self.freedom + square) / freedom), freedom)
