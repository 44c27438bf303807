"""Estimators of models whose latents settle: what they answer beyond the verbs of every recipe."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ravine._containers import as_given
from ravine._jax import precision
from ravine.core import Row
from ravine.estimator import LatentVariableModel
from ravine.verbs import blockwise, drawn


class SettlingModel(LatentVariableModel):
    """A recipe whose model settles on a row: `transform` is where its top layer does.

    `impute` lets the layers settle with the observed cells held, and fills the others as they are predicted then: it
    completes patterns. Draws of `impute` differ by the noise of the cells alone.
    """

    def reconstruct(self, X: Any) -> Any:
        """Every row as the lowest of its settled layers predict it; observed cells too."""
        values = self._ready(X)
        with precision(self.precision):
            row, draw = self._row(values), self.schema_.draw()
            made = self._outward(self.schema_.decode(blockwise(_reconstructed, row, self.model_, draw, self._key())))
        return as_given(X, made.astype(values.dtype))

    def layers(self, X: Any) -> list[np.ndarray]:
        """Where each layer settles, the top one first; arrays of shape (rows, cells of the layer)."""
        values = self._ready(X)
        with precision(self.precision):
            return list(blockwise(_settled, self._row(values), self.model_, self.schema_.draw(), self._key()))


def _reconstructed(block: Row, model: Any, draw: Any, key: Any) -> Array:
    def one(row: Row) -> Array:
        return model.likelihood(model.posterior(row).latent, row.context).mean()

    return jax.vmap(one)(drawn(block, draw, key))


def _settled(block: Row, model: Any, draw: Any, key: Any) -> tuple[Array, ...]:
    return jax.vmap(lambda row: tuple(map(jnp.ravel, model.posterior(row).latent)))(drawn(block, draw, key))


class Firing:
    """What an estimator of rate-coded cells answers about them."""

    model_: Any
    schema_: Any
    precision: Any
    _key: Any
    _ready: Any
    _row: Any

    def sparsity(self, X: Any) -> np.ndarray:
        """The share of cells of each layer that are active, above 0, when settled on a row; the lowest layer first.

        Returns
        -------
        Means over rows, shape (layers,).
        """
        values = self._ready(X)
        with precision(self.precision):
            shares = blockwise(_active, self._row(values), self.model_, self.schema_.draw(), self._key())
        return np.mean(np.asarray(shares, float), axis=0)


def _active(block: Row, model: Any, draw: Any, key: Any) -> Float[Array, "n layers"]:
    return jax.vmap(model.active)(drawn(block, draw, key))
