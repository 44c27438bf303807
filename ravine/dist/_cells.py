"""Fill, compute, mask: the three steps every masked density takes, in that order, so that no NaN flows back."""

from __future__ import annotations

import math

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from ravine.core import Scalar

LIMIT = 2**20
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def check(value: Array, mask: Array | None, shape: tuple[int, ...]) -> None:
    """Refuse a value or a mask that is not of the event's shape."""
    if jnp.shape(value) != shape:
        raise ValueError(f"value must have the event's shape {shape}, got {jnp.shape(value)}; a batch needs jax.vmap.")
    if mask is not None and jnp.shape(mask) != shape:
        raise ValueError(f"mask must have the event's shape {shape}, got {jnp.shape(mask)}; a batch needs jax.vmap.")


def floating(value: Array, like: Array) -> Array:
    """Counts and flags as numbers of ``like``'s type; floating values as they are."""
    return value if jnp.issubdtype(jnp.result_type(value), jnp.floating) else jnp.asarray(value, like.dtype)


def filled(value: Array, mask: Array | None, like: Array) -> Array:
    """The value as floats, 0 where it was not observed; ``like`` has the event's shape."""
    check(value, mask, like.shape)
    value = floating(value, like)
    return value if mask is None else jnp.where(mask, value, 0)


def total(cells: Float[Array, "..."], mask: Array | None) -> Scalar:
    """Sum over the observed cells."""
    return jnp.sum(cells if mask is None else jnp.where(mask, cells, 0))


def grid(levels: int, cells: int) -> Shaped[np.ndarray, "values cells"]:
    """Every assignment of ``levels`` values to ``cells`` cells; the first cell turns slowest.

    Raises ``ValueError`` when there are more than 2^20 of them.
    """
    if levels**cells > LIMIT:
        raise ValueError(f"the support has {levels}^{cells} values, at most 2^20 can be listed; sample instead.")
    place = levels ** np.arange(cells)[::-1]
    return np.arange(levels**cells)[:, None] // place[None, :] % levels


def pair(name: str, first: Array, second: Array) -> None:
    """Refuse two parameters of different shapes."""
    if jnp.shape(first) != jnp.shape(second):
        raise ValueError(f"{name} must have one shape, got {jnp.shape(first)} and {jnp.shape(second)}.")


def whole(mask: Array | None, shape: tuple[int, ...]) -> Array | None:
    """Which vectors along the last axis are seen; a mask may have the event's shape or lack that axis.

    A vector counts as observed when all of its entries are.
    """
    if mask is None:
        return None
    if mask.shape not in (shape, shape[:-1]):
        raise ValueError(f"mask must have shape {shape} or {shape[:-1]}, got {mask.shape}; a batch needs jax.vmap.")
    return mask if mask.ndim < len(shape) else jnp.all(mask, axis=-1)


def within(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Positive numbers, the smallest of them raised to where a logarithm and its derivative are still numbers."""
    return jnp.maximum(x, float(jnp.finfo(x.dtype).tiny) ** 0.75)


def uniform(key: PRNGKeyArray, shape: tuple[int, ...], dtype: DTypeLike) -> Float[Array, "..."]:
    """Uniform noise in the middles of equal cells of (0, 1): never 0 or 1, and 1 minus it is exact."""
    return jr.uniform(key, shape, dtype) + 0.5 * float(jnp.finfo(dtype).eps)
