"""Restricted Boltzmann machine of which few hidden units know a label. Fernandez-de-Cossio-Diaz et al. 2023.

Fernandez-de-Cossio-Diaz, Cocco & Monasson, *Disentangling representations in restricted Boltzmann machines without
adversaries*, Physical Review X 13, 021003, arXiv:2206.11600. The paper has figures and no table of numbers; what is
measured here is printed by `ravine reproduce disentangled`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree
from sklearn.utils.validation import check_is_fitted

from ravine._check import Absent, require, shown, whole
from ravine._containers import as_given
from ravine._jax import Precision, highest_matmul, precision
from ravine._tree import AbstractSchedule, Fixed, Part, row_keys
from ravine.core import AbstractDraw, AbstractEvidence, Row
from ravine.data import Schema
from ravine.energies import EnergyModel
from ravine.evidence import Normalised
from ravine.evidence.likelihood import held_cells
from ravine.labelled import LabelledModel
from ravine.models.disentangled import constrained, relabelled, with_labels
from ravine.models.energy import Harmonium
from ravine.models.units import AbstractUnits, BinaryUnits
from ravine.objectives import Contrast, PseudoLikelihood
from ravine.rules import AbstractNegatives, Contrastive, Optimiser, Persistent
from ravine.rules.projections import AbstractProjection, ZeroSum, disentangling, with_second_order
from ravine.train import Stage
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
        places, times = _places(self.classes_, label, len(values)), whole("sweeps", sweeps)
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


class DisentangledRBM(Editing):
    """A restricted Boltzmann machine that keeps what is linear in a label out of all hidden units but a few.

    The weights of the constrained units are projected after each step, so that the covariance of their inputs with the
    label is zero over the training rows: to rounding, which is why the precision is double unless it is told otherwise.
    What that costs in log-likelihood is the difference from the same recipe with all units released.

    Parameters
    ----------
    hidden, free : number of hidden units, and how many of them are released.
    visible, units : types of the visible units, by default those for the kind of cells, and of the hidden ones.
    second_order : weight of the penalty on what products of two constrained inputs tell of the label.
    gauge : of the weights: ``ZeroSum()``, or ``UnitNorm()`` for Gaussian hidden units.
    negatives : where the negative phase comes from. Where chains hardly cross from rows of one label to those of the
        other, ``ContrastiveDivergence(k)`` keeps the shares of the labels as they are.
    rate, momentum, decay, follow, batch_size, steps, sweeps : as for the recipe `RBM`.

    Examples
    --------
    >>> stream = np.random.default_rng(0)
    >>> y = stream.integers(0, 2, size=80)
    >>> X = (stream.uniform(size=(80, 4)) < (0.2 + 0.6 * y)[:, None]).astype(float)
    >>> model = DisentangledRBM(hidden=3, steps=50, random_state=0).fit(X, y)
    >>> model.edit(X[:5], label=1).shape, model.constraint_residual() < 1e-12
    ((5, 4), True)
    """

    hidden: int = 100
    free: int = 1
    visible: AbstractUnits | None = None
    units: AbstractUnits = BinaryUnits()
    second_order: float = 0.0
    gauge: AbstractProjection = ZeroSum()
    negatives: AbstractNegatives = Persistent(1, 100)
    rate: float | AbstractSchedule = 0.01
    momentum: float = 0.0
    decay: float = 0.0
    follow: float = 0.01
    batch_size: int = 100
    steps: int = 20_000
    sweeps: int = 1000
    evidence: AbstractEvidence = Normalised()
    validation: float = 0.0
    precision: Precision = "float64"

    kinds: ClassVar[tuple[str, ...]] = ("binary", "levels", "real")

    def build(self, schema: Schema, *, key: PRNGKeyArray) -> Harmonium:
        """Visible units at the rates of the data, weights near zero, and nothing known of labels yet."""
        visible = schema.units(self.visible)
        hidden = self.units.sized((self.hidden,))
        coupling = constrained(0.01 * jr.normal(key, (visible.size, self.hidden)), self.free, self.class_count())
        return Harmonium(visible, hidden, coupling, Fixed(visible), sweeps=self.sweeps)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of contrastive learning, projected after each step."""
        contrast = with_second_order(Contrast(self.decay, Part("coupling.weight")), self.second_order)
        rule = Contrastive(contrast, self.negatives, Optimiser(optax.sgd, (self.rate, self.momentum)))
        rule = disentangling(rule, self.gauge, self.follow)
        return [Stage(rule, self.steps, self.batch_size, prepare=with_labels, judge=PseudoLikelihood(10))]


def _inputs(block: Row, model: Harmonium, draw: AbstractDraw | None, key: PRNGKeyArray) -> Float[Array, "n hidden"]:
    return jax.vmap(lambda row: model.coupling.up(model.filled(row)))(drawn(block, draw, key))


def _edited(
    block: Row, model: Harmonium, draw: AbstractDraw | None, sweeps: Int[Array, ""], key: PRNGKeyArray
) -> PyTree[Array]:
    keys = row_keys(key, held_cells(block))
    return jax.vmap(lambda row, k: relabelled(model, row, row.y, sweeps, key=k))(drawn(block, draw, key), keys)


def _places(classes: np.ndarray, label: Any, rows: int) -> Int[np.ndarray, " rows"]:
    """The number of the class that is asked for in each row."""
    wanted = np.asarray(label, object)
    good = wanted.shape in ((), (rows,))
    require(good, "label", f"one label, or {rows}", f"shape {wanted.shape}", "give one for each row")
    found = _members(classes, np.broadcast_to(wanted, (rows,)))
    unknown = np.broadcast_to(wanted, (rows,))[~found.any(axis=1)][:1].tolist()
    require(not unknown, "label", f"one of {shown(classes.tolist())}", shown(unknown), "choose one")
    return np.argmax(found, axis=1)


def _members(classes: np.ndarray, labels: Any) -> Bool[np.ndarray, "rows classes"]:
    """Which class each label is; none for what is no class."""
    return np.asarray(labels, object).ravel()[:, None] == np.asarray(classes, object)[None]


def _covariances(fitted: Any, X: Any, y: Any) -> Float[np.ndarray, "constrained labels"]:
    """Of the inputs of the constrained units with each label but the first."""
    model, free = fitted.model_, fitted.free
    if X is None:
        with precision(fitted.precision):
            known = model.coupling.directions(model.visible)
        return np.asarray(model.coupling.weight[:, free:], float).T @ np.asarray(known, float)
    require(y is not None, "constraint_residual", "the labels of the rows", "none", "give y")
    inputs, member = np.asarray(fitted.inputs(X), float)[:, free:], _members(fitted.classes_, y)
    known = member.any(axis=1)
    inputs, member = inputs[known], member[known, 1:].astype(float)
    return (inputs - inputs.mean(axis=0)).T @ (member - member.mean(axis=0)) / len(member)
