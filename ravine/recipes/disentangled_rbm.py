"""Restricted Boltzmann machine of which few hidden units know a label. Fernandez-de-Cossio-Diaz et al. 2023.

Fernandez-de-Cossio-Diaz, Cocco & Monasson, *Disentangling representations in restricted Boltzmann machines without
adversaries*, Physical Review X 13, 021003, arXiv:2206.11600. The paper has figures and no table of numbers; what is
measured here is printed by `ravine reproduce disentangled`.
"""

from __future__ import annotations

from typing import ClassVar

import jax.random as jr
from jaxtyping import PRNGKeyArray

from ravine._jax import Precision
from ravine._tree import AbstractSchedule, Fixed, Part
from ravine.core import AbstractEvidence
from ravine.data import Schema
from ravine.editing import Editing
from ravine.evidence import Normalised
from ravine.models.disentangled import constrained, with_labels
from ravine.models.energy import Harmonium
from ravine.models.units import AbstractUnits, BinaryUnits
from ravine.objectives import Contrast, PseudoLikelihood
from ravine.rules import AbstractNegatives, Contrastive, Persistent, gradient_descent
from ravine.rules.projections import AbstractProjection, ZeroSum, disentangling, with_second_order
from ravine.train import Stage


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
    >>> import numpy as np
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
        rule = Contrastive(contrast, self.negatives, gradient_descent(self.rate, self.momentum))
        rule = disentangling(rule, self.gauge, self.follow)
        return [Stage(rule, self.steps, self.batch_size, prepare=with_labels, judge=PseudoLikelihood(10))]
