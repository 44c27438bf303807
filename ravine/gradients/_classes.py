"""Discrete nodes as categoricals: a bit has two classes, one and zero."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDistribution
from ravine.dist import Bernoulli, OneHot

Classes = Float[Array, "... classes"]


def logits_of(d: AbstractDistribution) -> Classes:
    """Unnormalised log probabilities of the classes of each cell."""
    if isinstance(d, Bernoulli):
        return jnp.stack([d.logits, jnp.zeros_like(d.logits)], axis=-1)
    return d.logits  # pyright: ignore[reportAttributeAccessIssue]  (`refuses` has asked)


def value_of(d: AbstractDistribution, shares: Classes) -> Array:
    """A value of ``d`` from a (soft) one-hot vector for each cell."""
    return shares[..., 0] if isinstance(d, Bernoulli) else shares


def not_classes(d: AbstractDistribution) -> str | None:
    """Why a law is not made of bits or categoricals; None when it is."""
    return None if isinstance(d, (Bernoulli, OneHot)) else "it is made for Bernoulli and OneHot"


def zero(x: Array) -> Array:
    """0 with the gradient of ``x``."""
    return x - stop_gradient(x)


def tilt(share: Classes, logits: Classes) -> Classes:
    """0 with the Jacobian of a softmax at ``share``: J v = q v - q <q, v> in the logits."""
    q = stop_gradient(share)
    slope = zero(logits)
    return q * (slope - jnp.sum(q * slope, axis=-1, keepdims=True))


def one_hot(code: Array, logits: Classes) -> Classes:
    """One-hot vectors of class numbers, of the logits' type."""
    return jax.nn.one_hot(code, logits.shape[-1], dtype=logits.dtype)


def conditioned(logits: Classes, drawn: Classes, *, key: PRNGKeyArray) -> Classes:
    """Noisy normalised logits given that the largest is that of ``drawn``. Maddison, Tarlow & Minka 2014."""
    log_p = jax.nn.log_softmax(logits)
    e = jr.exponential(key, logits.shape, logits.dtype)
    e = jnp.maximum(e, jnp.finfo(logits.dtype).tiny)
    first = jnp.sum(drawn * e, axis=-1, keepdims=True)
    # of classes with almost no mass e / p may overflow: -log(e / p + first), through logarithms
    others = -jnp.logaddexp(jnp.log(e) - log_p, jnp.log(first))
    return jnp.where(drawn > 0, -jnp.log(first), others)
