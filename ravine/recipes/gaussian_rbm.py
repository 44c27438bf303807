"""Gaussian restricted Boltzmann machine of real columns, with learned variances. Cho, Ilin & Raiko 2011.

*Improved learning of Gaussian-Bernoulli restricted Boltzmann machines*; Liao et al. 2022, arXiv:2210.10318, on what
makes them learn. A mixture of 2^hidden Gaussians of one diagonal covariance, whose means share their parts.
"""

from __future__ import annotations

from typing import ClassVar

import jax.random as jr
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Fixed
from ravine.core import AbstractEvidence
from ravine.data import Schema
from ravine.energies import EnergyModel
from ravine.evidence import Normalised
from ravine.models.energy import Dense, Harmonium
from ravine.models.experts import Proper
from ravine.models.units import AbstractUnits, BinaryUnits
from ravine.objectives import Contrast
from ravine.rules import AbstractNegatives, Contrastive, Persistent, Projected, centred, gradient_descent
from ravine.train import Stage


class GaussianRBM(EnergyModel):
    """Real columns and hidden units that act on each other; the variance of each column is learned.

    With at most 12 hidden bits rows with missing cells have an exact likelihood, with at most 20 complete ones have.

    Parameters
    ----------
    hidden : number of hidden units.
    units : type of the hidden units: ``BinaryUnits()``, ``RectifiedUnits()``, ``GaussianUnits()``, ``SpinUnits()``.
    negatives : where the negative phase comes from.
    rate : step size of gradient descent, a number or a schedule.
    momentum : of gradient descent.
    least : no column's standard deviation falls below it, in what the model sees.
    decay : weight of half the sum of the squared weights.
    follow : weight of a batch in the means that gradients are centred at; 0 does not centre them.
    batch_size, steps : rows per step, and the number of steps.
    sweeps : Gibbs sweeps that make a draw.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(100, 1)) * np.ones((1, 3))
    >>> model = GaussianRBM(hidden=3, steps=50, random_state=0).fit(X)
    >>> model.sample(2).shape, model.log_likelihood(X).direction
    ((2, 3), 'exact')
    """

    hidden: int = 12
    units: AbstractUnits = BinaryUnits()
    negatives: AbstractNegatives = Persistent(5, 100)
    rate: float | AbstractSchedule = 0.01
    momentum: float = 0.0
    least: float = 0.1
    decay: float = 0.0
    follow: float = 0.01
    batch_size: int = 100
    steps: int = 20_000
    sweeps: int = 1000
    standardise: bool = True
    evidence: AbstractEvidence = Normalised()
    validation: float = 0.0

    kinds: ClassVar[tuple[str, ...]] = ("real",)

    def build(self, schema: Schema, *, key: PRNGKeyArray) -> Harmonium:
        """Visible units at the means of the data, weights near zero."""
        visible, hidden = schema.units(), self.units.sized((self.hidden,))
        weight = 0.01 * jr.normal(key, (visible.size, hidden.size))
        return Harmonium(visible, hidden, Dense(weight), Fixed(visible), sweeps=self.sweeps)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of contrastive learning."""
        optimiser = gradient_descent(self.rate, self.momentum)
        rule = Projected(Contrastive(Contrast(self.decay), self.negatives, optimiser), Proper(self.least))
        return [Stage(centred(rule, self.follow), self.steps, self.batch_size)]
