"""Estimators of energies: what they answer beyond the verbs of every recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from sklearn.utils.validation import check_is_fitted

from ravine._check import require, shown, whole
from ravine._jax import highest_matmul, precision
from ravine._tree import row_keys
from ravine.core import AbstractEnergy, Row, walk
from ravine.diagnose import Approximations, ConsistencyGap, TopEnergies, approximations, consistency_gap, top_energies
from ravine.diagnose.diagnosis import presented
from ravine.estimator import LatentVariableModel
from ravine.evidence import AbstractPartition, PartitionFunction, held_cells
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
        """Minus the log of the unnormalised density of each row, shape (rows,).

        Raises
        ------
        ValueError
            When a cell is missing: what the others say of it is an integral that `score_samples` makes.
        """
        values = self._ready(X)
        holes = np.count_nonzero(np.isnan(values))
        require(not holes, "free_energy", "complete rows", f"{holes} missing cells", "ask score_samples")
        with precision(self.precision), highest_matmul():
            return np.asarray(blockwise(_energies, self._row(values), self.model_, self.schema_.draw(), self._key()))

    def unroll(self, X: Any, marks: Sequence[int] = (1, 10, 100)) -> np.ndarray:
        """Chains that begin at rows: where they are after so many sweeps, shape (len(marks), rows, columns).

        Parameters
        ----------
        X : where the chains begin; missing cells are drawn first.
        marks : increasing numbers of sweeps.
        """
        values = self._ready(X)
        with precision(self.precision):
            row, draw, key = self._row(values), self.schema_.draw(), jr.fold_in(self._key(), 10)
            made = blockwise(_unrolled, row, self.model_, draw, tuple(marks), key)
        return np.stack([self._outward(self.schema_.decode(one)) for one in np.moveaxis(made, 1, 0)])

    def receptive_fields(self) -> np.ndarray:
        """Weights of each hidden unit to the visible statistics, shape (hidden units, statistics)."""
        check_is_fitted(self)
        with precision(self.precision):
            return np.asarray(self.model_.receptive_fields())


def _unrolled(block: Row, model: AbstractEnergy, draw: Any, marks: tuple[int, ...], key: Any) -> jax.Array:
    block = drawn(block, draw, key)

    def one(row: Row, key: Any) -> jax.Array:
        known = model.lifted(row)
        begin, go = jr.split(key)
        first = known.x
        if known.mask is not None:
            first = walk(model.kernel(known), known.clamp(model.start(key=begin)), 20, key=go)
        shown, position, done = [], first, 0
        for i, mark in enumerate(marks):
            steps, done = mark - done, mark
            position = walk(model.kernel(), position, steps, key=jr.fold_in(go, i)) if steps else position
            shown.append(model.shown(position))
        return jnp.stack(shown)

    return jax.vmap(one)(block, row_keys(key, held_cells(block)))


def _energies(block: Row, model: AbstractEnergy, draw: Any, key: Any) -> jax.Array:
    return jax.vmap(lambda row: model.energy(model.lifted(row).x))(drawn(block, draw, key))


class Consistent:
    """What an estimator answers that has a way up and a way down: whether they agree."""

    model_: Any
    schema_: Any
    precision: Any
    _key: Any
    _ready: Any
    _row: Any
    _outward: Any

    def consistency_gap(self, X: Any, draws: int = 1000) -> ConsistencyGap:
        """How far apart the joint laws of rows and the way up, and of the way down, are: see `ravine.diagnose`."""
        with precision(self.precision):
            return consistency_gap(self.model_, self._presented(X), draws, key=jr.fold_in(self._key(), 14))

    def approximations(self, X: Any) -> Approximations:
        """How far the way up is from the exact posterior, where all states can be listed: see `ravine.diagnose`."""
        with precision(self.precision), highest_matmul():
            return approximations(self.model_, self._presented(X))

    def top_energies(self, X: Any, draws: int = 100) -> TopEnergies:
        """Whether what is on top is, by its own chains, where rows lead to: see `ravine.diagnose`."""
        with precision(self.precision):
            return top_energies(self.model_, self._presented(X), draws, key=jr.fold_in(self._key(), 17))

    def alternate(self, X: Any, sweeps: int = 200) -> np.ndarray:
        """Rows with missing cells filled by turns of the way up and the way down, shape (rows, columns); bits as means.

        Where rows have many cells `impute` needs more draws than there is time for. This chain is exact Gibbs sampling
        of one pair with the same weights both ways, and an approximation elsewhere.
        """
        values, turns = self._ready(X), whole("sweeps", sweeps)
        with precision(self.precision):
            row, draw, key = self._row(values), self.schema_.draw(), jr.fold_in(self._key(), 16)
            made = self.schema_.decode(blockwise(_alternated, row, self.model_, draw, turns, key))
        return self._outward(np.where(np.isnan(values), made.reshape(values.shape), values))

    def _presented(self, X: Any) -> Row:
        return presented(self._row(self._ready(X)), self.schema_.draw(), key=jr.fold_in(self._key(), 15))


def _alternated(block: Row, model: Any, draw: Any, sweeps: int, key: Any) -> jax.Array:
    rows = drawn(block, draw, key)
    return jax.vmap(lambda row, key: model.alternated(row, sweeps, key=key))(rows, row_keys(key, held_cells(block)))


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
