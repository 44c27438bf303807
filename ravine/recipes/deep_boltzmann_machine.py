"""Deep Boltzmann machine. Salakhutdinov & Hinton 2009, *Deep Boltzmann machines*, AISTATS.

Layers learn in pairs first, as the paper has it, but all pairs at once; then together. Without the first the upper
layers stay unused. Gradients are centred, as in Montavon & Mueller 2012.
"""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule
from ravine.core import AbstractEvidence, AbstractRule
from ravine.data import Schema
from ravine.energies import EnergyModel
from ravine.evidence import Normalised
from ravine.models.boltzmann import AbstractFill, Filling, MeanField
from ravine.models.deep_boltzmann import DeepBoltzmann, Pairwise
from ravine.objectives import Contrast
from ravine.rules import AbstractNegatives, Contrastive, Persistent, centred, gradient_descent
from ravine.train import Stage


def in_pairs(steps: int | None, rule: AbstractRule, batch: int) -> list[Stage]:
    """A stage in which pairs of neighbouring layers learn on their own; none where there are no steps."""
    return [Stage(Pairwise(rule), some, batch) for some in (steps,) if some]


class DeepBoltzmannMachine(EnergyModel):
    """Layers of bits that act on those of the next layer, in both directions.

    Parameters
    ----------
    layers : units of each hidden layer, from the lowest; two at least.
    pairs : steps in which pairs of neighbouring layers learn on their own before; None for none.
    pairs_rate : step size of gradient descent in these, a number or a schedule.
    positive : what stands for the hidden units of a row, such as ``MeanField(10)`` or ``Drawn(10)``.
    negatives : where the negative phase comes from, such as ``Persistent(5, 100)`` or ``Tempered(20)``.
    rate : step size of gradient descent, a number or a schedule.
    momentum : of gradient descent.
    decay : weight of half the sum of the squared weights.
    follow : weight of a batch in the means that gradients are centred at; 0 does not centre them.
    batch_size, steps : rows per step, and the number of steps.
    sweeps : Gibbs sweeps that make a draw.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).integers(0, 2, size=(40, 1)) * np.ones((1, 3))
    >>> model = DeepBoltzmannMachine(layers=(2, 2), pairs=50, steps=50, random_state=0).fit(X)
    >>> model.transform(X).shape, model.log_partition().direction
    ((40, 4), 'exact')
    """

    layers: tuple[int, ...] = (500, 1000)
    pairs: int | None = 10_000
    pairs_rate: float | AbstractSchedule = 0.05
    positive: AbstractFill = MeanField(10)
    negatives: AbstractNegatives = Persistent(5, 100)
    rate: float | AbstractSchedule = 0.01
    momentum: float = 0.0
    decay: float = 0.0
    follow: float = 0.01
    batch_size: int = 100
    steps: int = 20_000
    sweeps: int = 1000
    evidence: AbstractEvidence = Normalised()
    validation: float = 0.0

    kinds: ClassVar[tuple[str, ...]] = ("binary",)

    def build(self, schema: Schema, *, key: PRNGKeyArray) -> DeepBoltzmann:
        """Cells at the rates of the data, weights near zero."""
        return DeepBoltzmann.of(schema.units(None), self.layers, self.sweeps, key=key)

    def stages(self, rows: int) -> list[Stage]:
        """Pairs of layers on their own, then all layers together."""
        first = in_pairs(self.pairs, self._contrast(self.pairs_rate), self.batch_size)
        return [*first, Stage(Filling(self.positive, self._contrast(self.rate)), self.steps, self.batch_size)]

    def _contrast(self, rate: float | AbstractSchedule) -> AbstractRule:
        optimiser = gradient_descent(rate, self.momentum)
        return centred(Contrastive(Contrast(self.decay), self.negatives, optimiser), self.follow)
