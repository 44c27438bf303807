"""Restricted Boltzmann machine. Hinton 2002, *Training products of experts by minimizing contrastive divergence*.

With 500 hidden units and the digits of MNIST, as Salakhutdinov & Murray 2008 evaluate it; see `ravine reproduce rbm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import jax.random as jr
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Fixed, Linear
from ravine.core import AbstractEvidence
from ravine.data import Schema
from ravine.energies import EnergyModel
from ravine.evidence import AIS, RAISE, Normalised
from ravine.models.energy import Dense, Harmonium
from ravine.models.units import AbstractUnits, BinaryUnits
from ravine.objectives import Contrast, PseudoLikelihood
from ravine.rules import AbstractNegatives, Contrastive, Persistent, centred, gradient_descent
from ravine.train import Stage
from ravine.trial import Trial

MURRAY = "Salakhutdinov & Murray 2008 evaluate such a machine, learned by CD-25; their table is not at hand"
LONG = {"hidden": 500, "decay": 1e-5}
BESIDE = ((Normalised(AIS(20_000)), 10_000), (RAISE(5_000, 8), 500))
TRIALS = {
    "small": Trial("mnist", LONG | {"steps": 40_000, "rate": Linear(0.05, 0.0, 40_000.0)}, None, MURRAY, beside=BESIDE),
    "paper": Trial(
        "mnist",
        LONG | {"steps": 150_000, "rate": Linear(0.05, 0.0, 150_000.0), "negatives": Persistent(2, 200)},
        None,
        MURRAY,
        beside=BESIDE,
    ),
}


class RBM(EnergyModel):
    """Visible and hidden units that act on each other: a product of as many experts as there are hidden units.

    Parameters
    ----------
    hidden : number of hidden units.
    visible : type of the visible units; None picks the one for the kind of cells.
    units : type of the hidden units, such as ``BinaryUnits()``, ``SpinUnits()``, ``RectifiedUnits()``.
    negatives : where the negative phase comes from, such as ``ContrastiveDivergence(1)`` or ``Persistent(1, 100)``.
    rate : step size of gradient descent, a number or a schedule.
    momentum : of gradient descent.
    decay : weight of half the sum of the squared weights.
    follow : weight of a batch in the means that gradients are centred at; 0 does not centre them.
    batch_size, steps : rows per step, and the number of steps.
    sweeps : Gibbs sweeps that make a draw.
    spread : standard deviation of the weights before the first step.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).integers(0, 2, size=(40, 1)) * np.ones((1, 3))
    >>> model = RBM(hidden=2, steps=50, random_state=0).fit(X)
    >>> model.sample(2).shape, model.log_partition().direction
    ((2, 3), 'exact')
    """

    hidden: int = 500
    visible: AbstractUnits | None = None
    units: AbstractUnits = BinaryUnits()
    negatives: AbstractNegatives = Persistent(1, 100)
    rate: float | AbstractSchedule = 0.01
    momentum: float = 0.0
    decay: float = 0.0
    follow: float = 0.01
    batch_size: int = 100
    steps: int = 20_000
    sweeps: int = 1000
    spread: float = 0.01
    evidence: AbstractEvidence = Normalised()
    validation: float = 0.0

    kinds: ClassVar[tuple[str, ...]] = ("binary", "levels", "real")
    trials: ClassVar[Mapping[str, Trial]] = TRIALS

    def build(self, schema: Schema, *, key: PRNGKeyArray) -> Harmonium:
        """Visible units at the rates of the data, weights near zero."""
        visible = schema.units(self.visible)
        hidden = self.units.sized((self.hidden,))
        weight = self.spread * jr.normal(key, (visible.size, hidden.size))
        return Harmonium(visible, hidden, Dense(weight), Fixed(visible), sweeps=self.sweeps)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of contrastive learning."""
        optimiser = gradient_descent(self.rate, self.momentum)
        rule = Contrastive(Contrast(self.decay), self.negatives, optimiser)
        return [Stage(centred(rule, self.follow), self.steps, self.batch_size, judge=PseudoLikelihood(10))]
