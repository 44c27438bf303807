"""Classification by a restricted Boltzmann machine. Larochelle & Bengio 2008.

*Classification using discriminative restricted Boltzmann machines*: one machine of rows and labels, whose p(y | x) has
a closed form. See `ravine reproduce classification-rbm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import jax.random as jr
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Fixed, Linear
from ravine.core import AbstractEvidence
from ravine.data import Schema
from ravine.energies import Dreaming, EnergyModel
from ravine.evidence import Normalised
from ravine.labelled import LabelledModel
from ravine.models.energy import Dense, Harmonium
from ravine.models.experts import Proper
from ravine.models.labelled_energy import (
    AbstractLabelContrast,
    LabelDiscriminative,
    LabelGenerative,
    LabelHybrid,
    LabelledHarmonium,
)
from ravine.models.unit_groups import Beside
from ravine.models.units import AbstractUnits, BinaryUnits, SoftmaxUnits
from ravine.rules import AbstractNegatives, Contrastive, ContrastiveDivergence, Projected, gradient_descent
from ravine.train import Stage
from ravine.trial import Trial

GREY = {"rate": Linear(0.1, 0.0, 10_000.0)}
FULL = "Larochelle & Bengio 2008; their table is not at hand"
TRIALS = {
    "small": Trial("mnist-grey", GREY, None, FULL, 10_000),
    "small-generative": Trial("mnist-grey", GREY | {"objective": LabelGenerative()}, None, FULL, 10_000),
    "small-discriminative": Trial("mnist-grey", GREY | {"objective": LabelDiscriminative()}, None, FULL, 10_000),
    "small-100": Trial("mnist-grey", GREY | {"objective": LabelGenerative()}, None, "100 labels; in no table", 10),
}


class ClassificationRBM(Dreaming, EnergyModel, LabelledModel):
    """A restricted Boltzmann machine of rows and labels. Some rows may have none.

    `predict_proba` is p(y | x), exact; `score_samples` is log p(x), the label summed out.

    Parameters
    ----------
    hidden : number of hidden units.
    visible : type of the units of a row; None picks the one for the kind of cells.
    units : type of the hidden units.
    objective : ``LabelGenerative()`` learns p(x, y), ``LabelDiscriminative()`` p(y | x), and ``LabelHybrid(0.01)`` the
        second with a share of the first.
    negatives : where the negative phase comes from.
    rate : step size of gradient descent, a number or a schedule.
    momentum : of gradient descent.
    batch_size, steps : rows per step, and the number of steps.
    sweeps : Gibbs sweeps that make a draw.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.random.default_rng(0).integers(0, 2, size=80)
    >>> X = np.repeat(y[:, None], 4, axis=1)
    >>> model = ClassificationRBM(hidden=3, steps=200, rate=0.5, random_state=0).fit(X, y)
    >>> model.predict(X[:5]).tolist() == y[:5].tolist(), model.log_likelihood(X).direction
    (True, 'exact')
    """

    hidden: int = 500
    visible: AbstractUnits | None = None
    units: AbstractUnits = BinaryUnits()
    objective: AbstractLabelContrast = LabelHybrid()
    negatives: AbstractNegatives = ContrastiveDivergence(1)
    rate: float | AbstractSchedule = 0.05
    momentum: float = 0.9
    batch_size: int = 100
    steps: int = 10_000
    sweeps: int = 1000
    standardise: bool = True
    evidence: AbstractEvidence = Normalised()
    validation: float = 0.0

    kinds: ClassVar[tuple[str, ...]] = ("binary", "levels", "real")
    trials: ClassVar[Mapping[str, Trial]] = TRIALS

    def build(self, schema: Schema, *, key: PRNGKeyArray) -> LabelledHarmonium:
        """Cells at the rates of the data beside an even label, weights near zero."""
        label = SoftmaxUnits().sized((self.class_count(),))
        visible, hidden = Beside((schema.units(self.visible), label)), self.units.sized((self.hidden,))
        weight = 0.01 * jr.normal(key, (visible.size, hidden.size))
        pair = Harmonium(visible, hidden, Dense(weight), Fixed(visible), sweeps=self.sweeps)
        return LabelledHarmonium(pair, sweeps=self.sweeps)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of contrastive learning."""
        optimiser = gradient_descent(self.rate, self.momentum)
        rule = Projected(Contrastive(self.objective, self.negatives, optimiser, fill=3), Proper())
        return [Stage(rule, self.steps, self.batch_size)]
