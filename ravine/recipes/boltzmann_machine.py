"""Boltzmann machine. Ackley, Hinton & Sejnowski 1985, *A learning algorithm for Boltzmann machines*.

Its mean field is the fully factorised one of Jordan, Ghahramani, Jaakkola & Saul 1999, section 6.3. Hidden units learn
little by it from small couplings: the bound is best where they do not act on each other.
"""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Fixed
from ravine.core import AbstractEvidence
from ravine.data import Schema
from ravine.energies import EnergyModel
from ravine.evidence import Normalised
from ravine.models.boltzmann import AbstractFill, Boltzmann, Drawn, Filling
from ravine.models.units import BinaryUnits
from ravine.objectives import Contrast
from ravine.rules import AbstractNegatives, Contrastive, Persistent, centred, gradient_descent
from ravine.train import Stage


class BoltzmannMachine(EnergyModel):
    """Bits that all act on each other; some are the cells of a row, the others are hidden.

    Units are drawn one after the other, so that a sweep takes time with the square of their number.

    Parameters
    ----------
    hidden : number of hidden units; with None there are none, and all that is learned is of pairs of cells.
    positive : what stands for the hidden units of a row, such as ``Drawn(10)`` or ``MeanField(10)``.
    negatives : where the negative phase comes from, such as ``ContrastiveDivergence(1)`` or ``Persistent(1, 100)``.
    rate : step size of gradient descent, a number or a schedule.
    momentum : of gradient descent.
    decay : weight of half the sum of the squared couplings.
    follow : weight of a batch in the means that gradients are centred at; 0 does not centre them.
    batch_size, steps : rows per step, and the number of steps.
    sweeps : Gibbs sweeps that make a draw.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).integers(0, 2, size=(40, 1)) * np.ones((1, 3))
    >>> model = BoltzmannMachine(hidden=1, steps=50, random_state=0).fit(X)
    >>> model.sample(2).shape, model.log_partition().direction
    ((2, 3), 'exact')
    """

    hidden: int | None = 10
    positive: AbstractFill = Drawn(10)
    negatives: AbstractNegatives = Persistent(1, 100)
    rate: float | AbstractSchedule = 0.01
    momentum: float = 0.0
    decay: float = 0.0
    follow: float = 0.01
    batch_size: int = 100
    steps: int = 10_000
    sweeps: int = 200
    evidence: AbstractEvidence = Normalised()
    validation: float = 0.0

    kinds: ClassVar[tuple[str, ...]] = ("binary",)

    def build(self, schema: Schema, *, key: PRNGKeyArray) -> Boltzmann:
        """Biases at the rates of the data, couplings near zero."""
        rates = jnp.concatenate([jnp.asarray(schema.base), jnp.full(self.hidden or 0, 0.5)])
        units, size = BinaryUnits().sized(rates.shape, rates), rates.size
        coupling = 0.01 * jr.normal(key, (size * (size - 1) // 2,))
        return Boltzmann(units, coupling, Fixed(units), schema.width, sweeps=self.sweeps)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of contrastive learning."""
        optimiser = gradient_descent(self.rate, self.momentum)
        rule = Contrastive(Contrast(self.decay), self.negatives, optimiser)
        return [Stage(Filling(self.positive, centred(rule, self.follow)), self.steps, self.batch_size)]
