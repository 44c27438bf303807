"""Nonlinearities as plain named functions: they compare by value, pickle, and can be spelled in a file."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array


def tanh(x: Array) -> Array:
    """Hyperbolic tangent."""
    return jnp.tanh(x)


def relu(x: Array) -> Array:
    """Positive part, ``max(x, 0)``."""
    return jax.nn.relu(x)


def silu(x: Array) -> Array:
    """``x * sigmoid(x)``."""
    return jax.nn.silu(x)


def gelu(x: Array) -> Array:
    """Gaussian error linear unit, by its tanh approximation."""
    return jax.nn.gelu(x)


def softplus(x: Array) -> Array:
    """``log(1 + exp(x))``."""
    return jax.nn.softplus(x)


def sigmoid(x: Array) -> Array:
    """Logistic function."""
    return jax.nn.sigmoid(x)


def elu(x: Array) -> Array:
    """``x`` where positive, else ``exp(x) - 1``."""
    return jax.nn.elu(x)


def identity(x: Array) -> Array:
    """``x`` as it is."""
    return x
