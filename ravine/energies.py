"""Estimators of energies: what they answer beyond the verbs of every recipe."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from sklearn.utils.validation import check_is_fitted

from ravine._check import require, shown, whole
from ravine._jax import highest_matmul, precision
from ravine.core import AbstractEnergy, Row
from ravine.estimator import LatentVariableModel
from ravine.evidence import AbstractPartition, PartitionFunction
from ravine.evidence.normalised import usual_partition
from ravine.verbs import blockwise, drawn


class Normalising:
    """What an estimator with a log partition function answers."""

    model_: Any
    precision: Any
    _key: Any

    def log_partition(self, partition: AbstractPartition | None = None) -> PartitionFunction:
        """log Z in nats, in the units that the model sees; of a deep belief net that of the machine on top.

        Parameters
        ----------
        partition : ``Enumerated()`` or ``AIS(...)``; None lists the states where they are few, and anneals elsewhere.
        """
        check_is_fitted(self)
        with precision(self.precision), highest_matmul():
            machine = getattr(self.model_, "top", self.model_)
            return (partition or usual_partition(machine))(machine, key=jr.fold_in(self._key(), 8))


class EnergyModel(Normalising, LatentVariableModel):
    """A recipe whose model is an energy: `score_samples` is log p(x) with log Z listed or annealed, never less."""

    def free_energy(self, X: Any) -> np.ndarray:
        """Minus the log of the unnormalised density of each row, shape (rows,); rows must be complete."""
        values = self._ready(X)
        with precision(self.precision), highest_matmul():
            return np.asarray(blockwise(_energies, self._row(values), self.model_, self.schema_.draw(), self._key()))


def _energies(block: Row, model: AbstractEnergy, draw: Any, key: Any) -> jax.Array:
    return jax.vmap(lambda row: model.energy(model.lifted(row).x))(drawn(block, draw, key))


class Dreaming:
    """What an estimator with labels answers that makes rows of a label."""

    model_: Any
    schema_: Any
    classes_: np.ndarray
    precision: Any
    _key: Any
    _outward: Any

    def dream(self, label: Any, n_samples: int = 1) -> np.ndarray:
        """Rows of a label, shape (n_samples, columns): chains with the label held. Bits are given as probabilities."""
        check_is_fitted(self)
        found = np.flatnonzero(self.classes_ == label)
        known = ", ".join(map(str, self.classes_.tolist()))
        require(len(found) == 1, "label", f"one of {known}", shown(label), "choose one")
        rows, place = whole("n_samples", n_samples), int(found[0])
        with precision(self.precision):
            label_bits = jnp.eye(len(self.classes_))[place]
            made = blockwise(_dreamt, Row(jnp.arange(rows)), self.model_, label_bits, jr.fold_in(self._key(), 9))
        return self._outward(self.schema_.decode(made))


def _dreamt(block: Row, model: Any, label: jax.Array, key: Any) -> jax.Array:
    return jax.vmap(lambda i: model.made(label, key=jr.fold_in(key, i)))(block.x)
