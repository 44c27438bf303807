"""Estimators of energies: what they answer beyond the verbs of every recipe."""

from __future__ import annotations

from typing import Any

import jax
import jax.random as jr
import numpy as np
from sklearn.utils.validation import check_is_fitted

from ravine._jax import highest_matmul, precision
from ravine.core import AbstractEnergy, Row
from ravine.estimator import LatentVariableModel
from ravine.evidence import AbstractPartition, PartitionFunction
from ravine.evidence.normalised import usual_partition
from ravine.verbs import blockwise, drawn


class EnergyModel(LatentVariableModel):
    """A recipe whose model is an energy: `score_samples` is log p(x) with log Z listed or annealed, never less."""

    def log_partition(self, partition: AbstractPartition | None = None) -> PartitionFunction:
        """log Z in nats, in the units that the model sees.

        Parameters
        ----------
        partition : ``Enumerated()`` or ``AIS(...)``; None lists the states where they are few, and anneals elsewhere.
        """
        check_is_fitted(self)
        with precision(self.precision), highest_matmul():
            return (partition or usual_partition(self.model_))(self.model_, key=jr.fold_in(self._key(), 8))

    def free_energy(self, X: Any) -> np.ndarray:
        """Minus the log of the unnormalised density of each row, shape (rows,); rows must be complete."""
        values = self._ready(X)
        with precision(self.precision), highest_matmul():
            return np.asarray(blockwise(_energies, self._row(values), self.model_, self.schema_.draw(), self._key()))


def _energies(block: Row, model: AbstractEnergy, draw: Any, key: Any) -> jax.Array:
    return jax.vmap(lambda row: model.energy(model.lifted(row).x))(drawn(block, draw, key))
