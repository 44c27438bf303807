"""The law of cells that are -1 or 1."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDistribution, Scalar
from ravine.dist import Bernoulli


class Signs(AbstractDistribution):
    """Independent cells of -1 and 1, with log odds ``logits`` of a 1."""

    logits: Float[Array, "..."]

    def sample(self, *, key: PRNGKeyArray) -> Array:
        return 2 * Bernoulli(self.logits).sample(key=key) - 1

    def log_prob(self, value: Array, mask: Array | None = None) -> Scalar:
        return Bernoulli(self.logits).log_prob((value + 1) / 2, mask)

    def mean(self) -> Array:
        return jnp.tanh(0.5 * self.logits)
