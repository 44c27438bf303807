"""Products of experts, one for each class. Hinton 2002.

*Training products of experts by minimizing contrastive divergence*, the section on digits: a machine of 100 hidden bits
for each digit of the USPS set, and a logistic regression on their unnormalised log scores. That set is not at hand.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Fixed, Part
from ravine.class_models import ClassModels
from ravine.data import Schema
from ravine.models.energy import Dense, Harmonium
from ravine.models.experts import Apart, ClassExperts, Proper
from ravine.models.units import BinaryUnits
from ravine.objectives import Contrast
from ravine.rules import AbstractNegatives, Contrastive, ContrastiveDivergence, Projected, gradient_descent
from ravine.train import Stage


class ProductOfExpertsClassifier(ClassModels):
    """A restricted Boltzmann machine for each class, told apart by their unnormalised log scores.

    `log_scores` is what each says of a row; the classes are a logistic regression on all of them.

    Parameters
    ----------
    hidden : number of hidden units of each machine: its experts.
    negatives : where the negative phase comes from.
    rate : step size of gradient descent, a number or a schedule.
    momentum : of gradient descent.
    decay : weight of half the sum of the squared weights.
    batch_size, steps : rows of each class per step, and the number of steps.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.repeat([0, 1], 40)
    >>> X = np.repeat(y[:, None], 4, axis=1)
    >>> model = ProductOfExpertsClassifier(hidden=3, steps=20, random_state=0).fit(X, y)
    >>> model.score(X, y), model.log_scores(X).shape
    (1.0, (80, 2))
    """

    hidden: int = 100
    negatives: AbstractNegatives = ContrastiveDivergence(1)
    rate: float | AbstractSchedule = 0.1
    momentum: float = 0.8
    decay: float = 2e-4
    batch_size: int = 100
    steps: int = 6_000

    def build(self, schema: Schema, classes: int = 2, *, key: PRNGKeyArray) -> ClassExperts:
        """Machines that begin at the rates of all data, with weights near zero."""
        visible, hidden = schema.units(), BinaryUnits().sized((self.hidden,))

        def machine(key: PRNGKeyArray) -> Harmonium:
            weight = 0.01 * jr.normal(key, (visible.size, hidden.size))
            return Harmonium(visible, hidden, Dense(weight), Fixed(visible))

        experts = Apart(eqx.filter_vmap(machine)(jr.split(key, classes)))
        return ClassExperts(experts, jnp.eye(classes), jnp.zeros(classes))

    def stages(self, rows: int) -> list[Stage]:
        """One stage of contrastive divergence, for all machines at once."""
        objective = Contrast(self.decay, Part("energies.coupling"))
        rule = Contrastive(objective, self.negatives, gradient_descent(self.rate, self.momentum))
        return [Stage(Projected(rule, Proper()), self.steps, self.batch_size)]
