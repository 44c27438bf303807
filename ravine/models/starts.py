"""Where learning may start: moments of the observed cells, and groups of rows that lie close together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import Row, weights


def column_moments(batch: Row) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """Weighted mean and standard deviation of each column's observed cells; 1 for a column that does not vary.

    Examples
    --------
    >>> batch = Row(jnp.array([[1.0, 5.0], [3.0, 0.0]]), jnp.array([[True, True], [True, False]]))
    >>> [part.tolist() for part in column_moments(batch)]
    [[2.0, 5.0], [1.0, 1.0]]
    """
    weight = jnp.broadcast_to(weights(batch)[:, None], batch.x.shape)
    weight = weight if batch.mask is None else jnp.where(batch.mask, weight, 0)
    x = batch.x if batch.mask is None else jnp.where(batch.mask, batch.x, 0)
    counts = jnp.maximum(jnp.sum(weight, axis=0), jnp.finfo(x.dtype).tiny)
    seen, far = weight > 0, jnp.finfo(x.dtype).max
    low, high = jnp.min(jnp.where(seen, x, far), axis=0), jnp.max(jnp.where(seen, x, -far), axis=0)
    # a column that does not vary is its mean to the last digit, whatever a sum has rounded
    mean = jnp.where(low <= high, jnp.clip(jnp.sum(weight * x, axis=0) / counts, low, high), 0)
    away = jnp.where(seen, x - mean[None], 0)
    # squares of very large and very small numbers are none: a power of two is taken out first, which rounds nothing
    unit = jnp.ldexp(jnp.ones_like(mean), jnp.frexp(jnp.max(jnp.abs(away), axis=0))[1])
    variance = jnp.sum(weight * (away / unit[None]) ** 2, axis=0) / counts
    # what rounding leaves of a constant column is no spread
    varies = jnp.sqrt(variance) * unit > 16 * jnp.finfo(x.dtype).eps * jnp.abs(mean)
    return mean, jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)) * jnp.where(varies, unit, 1), 1)


def standardised(batch: Row) -> Float[Array, "n d"]:
    """The rows with every column of mean 0 and standard deviation 1; missing cells at the mean."""
    mean, scale = column_moments(batch)
    cells = (batch.x - mean[None]) / scale[None]
    return cells if batch.mask is None else jnp.where(batch.mask, cells, 0)


def nearest_seeds(batch: Row, k: int, *, key: PRNGKeyArray) -> Float[Array, "n k"]:
    """Responsibilities of 0 and 1: each row belongs to the nearest of ``k`` rows that were drawn far apart.

    Distances are between standardised rows, missing cells at their column's mean. A seed is drawn with probability
    proportional to its weight times the squared distance to the nearest seed so far: k-means++, Arthur & Vassilvitskii
    2007, SODA, 1027-1035.

    Examples
    --------
    >>> batch = Row(jnp.array([[0.0], [0.1], [9.0], [9.1]]))
    >>> groups = nearest_seeds(batch, 2, key=jr.key(0)).argmax(axis=1).tolist()
    >>> groups[0] == groups[1] != groups[2] == groups[3]
    True
    """
    x, weight = standardised(batch), weights(batch)

    def add(nearest: Float[Array, " n"], key: PRNGKeyArray) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        mass = weight * jnp.where(jnp.any(jnp.isfinite(nearest)), nearest, 1)
        mass = jnp.where(jnp.sum(mass) > 0, mass, weight)
        seed = x[jr.categorical(key, jnp.log(mass))]
        distance = jnp.sum((x - seed[None]) ** 2, axis=1)
        return jnp.minimum(nearest, distance), distance

    _, distances = jax.lax.scan(add, jnp.full(x.shape[:1], jnp.inf, x.dtype), jr.split(key, k))
    return jax.nn.one_hot(jnp.argmin(distances, axis=0), k, dtype=x.dtype)
