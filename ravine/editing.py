"""Recipes of which some hidden units know a label: they edit rows into rows of another label."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree
from sklearn.utils.validation import check_is_fitted

from ravine._check import Absent, require, whole
from ravine._containers import as_given
from ravine._jax import highest_matmul, precision
from ravine._tree import row_keys
from ravine.core import AbstractDraw, Row
from ravine.energies import EnergyModel
from ravine.evidence.likelihood import held_cells
from ravine.labelled import LabelledModel
from ravine.labels import members, places_of
from ravine.models.disentangled import relabelled
from ravine.models.energy import Harmonium
from ravine.verbs import blockwise, drawn


class Editing(LabelledModel, EnergyModel):
    """A recipe with released hidden units, which may know a label, and constrained ones, whose inputs do not.

    It learns from labels but is a model of rows alone: `score_samples` is log p(x), and `transform` gives the mean of
    the hidden units, the released ones first.
    """

    def inputs(self, X: Any) -> np.ndarray:
        """The input of every hidden unit without its bias, the released ones first; shape (rows, hidden)."""
        values = self._ready(X)
        with precision(self.precision), highest_matmul():
            return blockwise(_inputs, self._row(values), self.model_, self.schema_.draw(), self._key())

    def edit(self, X: Any, label: Any, sweeps: int = 1) -> Any:
        """Rows like those of X but of another label, in the same kind of container.

        The released units are drawn at their mean input for the label, the constrained ones given the row; the cells
        are drawn given both. Further sweeps draw the constrained units and the cells in turn.

        Parameters
        ----------
        X : rows; a missing cell counts as its mean-field expectation.
        label : one for all rows, or one for each.
        sweeps : how often the cells are drawn; the more, the less is left of the row.
        """
        values = self._ready(X)
        places, times = places_of(self.classes_, label, len(values)), whole("sweeps", sweeps)
        with precision(self.precision):
            row = dataclasses.replace(self._row(values), y=jnp.asarray(places, jnp.int32))
            beside = self.model_, self.schema_.draw(), jnp.asarray(times), jr.fold_in(self._key(), 10)
            made = blockwise(_edited, row, *beside)
        return as_given(X, self._outward(self.schema_.point(made)).astype(values.dtype))

    def constraint_residual(self, X: Any = None, y: Any = None) -> float:
        """The largest covariance, without its sign, of the input of a constrained unit with a label.

        Parameters
        ----------
        X, y : rows and their labels; without them it is that of the training rows, as the model remembers them.
        """
        check_is_fitted(self)
        return float(np.max(np.abs(_covariances(self, X, y)), initial=0))

    @property
    def predict(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Absent: this is a model of rows, not of their labels."""
        raise Absent(f"{type(self).__name__} does not tell labels; fit a classifier to transform(X).")

    @property
    def predict_proba(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Absent, as `predict` is."""
        raise Absent(f"{type(self).__name__} does not tell labels; fit a classifier to transform(X).")


def _inputs(block: Row, model: Harmonium, draw: AbstractDraw | None, key: PRNGKeyArray) -> Float[Array, "n hidden"]:
    return jax.vmap(lambda row: model.coupling.up(model.filled(row)))(drawn(block, draw, key))


def _edited(
    block: Row, model: Harmonium, draw: AbstractDraw | None, sweeps: Int[Array, ""], key: PRNGKeyArray
) -> PyTree[Array]:
    keys = row_keys(key, held_cells(block))
    return jax.vmap(lambda row, k: relabelled(model, row, row.y, sweeps, key=k))(drawn(block, draw, key), keys)


def _covariances(fitted: Any, X: Any, y: Any) -> Float[np.ndarray, "constrained labels"]:
    """Of the inputs of the constrained units with each label but the first."""
    model, free = fitted.model_, fitted.free
    if X is None:
        with precision(fitted.precision):
            known = model.coupling.directions(model.visible)
        return np.asarray(model.coupling.weight[:, free:], float).T @ np.asarray(known, float)
    require(y is not None, "constraint_residual", "the labels of the rows", "none", "give y")
    inputs, member = np.asarray(fitted.inputs(X), float)[:, free:], members(fitted.classes_, y)
    known = member.any(axis=1)
    inputs, member = inputs[known], member[known, 1:].astype(float)
    return (inputs - inputs.mean(axis=0)).T @ (member - member.mean(axis=0)) / len(member)
