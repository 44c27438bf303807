"""Deep belief nets. Hinton, Osindero & Teh 2006, *A fast learning algorithm for deep belief nets*.

The net of the paper has 784-500-500-2000 units with a label beside the last 500; see
`ravine reproduce deep-belief-classifier`. Its rates and stages were chosen with training and test errors in view, those
of the paper on rows of their own; its sweeps with drawn digits in view, fewer of which are of their label after 1,000.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import jax.random as jr
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Linear, Part
from ravine.core import AbstractEvidence
from ravine.data import Schema
from ravine.energies import Consistent, Dreaming, Normalising
from ravine.estimator import LatentVariableModel
from ravine.evidence import AIS, Layered
from ravine.labelled import LabelledModel
from ravine.models.deep_belief import DeepBelief, Rates, ToNetwork, blank_top, two_ways
from ravine.objectives import Contrast, Discriminative, NLLLoss, UpDown
from ravine.rules import Contrastive, ContrastiveDivergence, Descend, Greedy, Optimiser, Persistent, gradient_descent
from ravine.train import Stage
from ravine.trial import Trial

GREY = {"greedy": 6_000, "sweeps": 5_000}
SWEEPS = (3, 6, 10)  # on top, in the three parts of up-down
HASTE = 5.0  # of the machine on top: the layers below were nearly done before
HINTON = "Hinton, Osindero & Teh 2006, table 1"
MEASURED: dict[str, Any] = {"labels": 10_000, "beside": ((Layered(1, AIS(20_000)), 10_000),), "dreams": 300}
TRIALS = {
    "small": Trial(
        "mnist-grey", GREY | {"steps": None, "top_steps": 3_000}, None, "greedy learning alone; in no table", **MEASURED
    ),
    "medium": Trial(
        "mnist-grey",
        GREY | {"steps": 30_000, "top_steps": 5_000},
        None,
        f"{HINTON}, of 300 passes",
        accuracy=0.9875,
        **MEASURED,
    ),
    "paper": Trial(
        "mnist-grey", GREY | {"steps": 120_000, "top_steps": 20_000}, None, HINTON, accuracy=0.9875, **MEASURED
    ),
}


def greedily(layers: int, steps: int, rate: float | AbstractSchedule, batch: int, decay: float) -> list[Stage]:
    """A stage for each of the layers and one for the top, each a machine of its own, by contrastive divergence."""
    optimiser = gradient_descent(rate, 0.9)
    rule = Contrastive(Contrast(decay), ContrastiveDivergence(1), optimiser, fill=1)
    first = [None, *(Rates(i) for i in range(1, layers + 1))]
    return [Stage(Greedy(rule, i), steps, batch, prepare=first[i]) for i in range(layers + 1)]


def up_and_down(steps: int | None, rate: float, batch: int) -> list[Stage]:
    """Stages of equal length with 3, 6 and 10 sweeps on top, the rate falling to 0; none where there are no steps."""
    share, ends = (steps or 0) // len(SWEEPS), np.linspace(rate, 0.0, len(SWEEPS) + 1)
    rates = [Linear(float(start), float(stop), float(share)) for start, stop in pairwise(ends)]
    rules = zip(SWEEPS, [gradient_descent(falling) for falling in rates], strict=True)
    return [Stage(Descend(UpDown(k, HASTE), optimiser), share, batch) for k, optimiser in rules if share]


def on_top(layers: int, steps: int | None, rate: float, batch: int) -> list[Stage]:
    """A stage in which the machine on top learns alone, by persistent chains; none where there are no steps.

    Up-down leaves chains of it places to go that are unlike any row.
    """
    some = steps or 0
    optimiser = gradient_descent(Linear(rate, 0.0, float(max(some, 1))))
    rule = Contrastive(Contrast(), Persistent(5, 100), optimiser, fill=1)
    return [Stage(Greedy(rule, layers), some, batch)] if some else []


def back_propagation(steps: int | None, rate: float | AbstractSchedule, batch: int) -> list[Stage]:
    """A stage that learns the way up as a feed-forward net, from the labels alone; none where there are no steps."""
    rule = Descend(Discriminative(NLLLoss()), Optimiser(optax.adam, (rate,)), on=Part("network"))
    return [Stage(rule, some, batch, prepare=ToNetwork()) for some in (steps,) if some]


def networked(net: DeepBelief, steps: int | None) -> DeepBelief:
    """The net, with a network where there are steps to learn it."""
    return ToNetwork()(net, None, key=jr.key(0)) if steps else net


class DeepBeliefNet(Consistent, Normalising, LatentVariableModel):
    """Layers of bits, learned one after the other, with a restricted Boltzmann machine on top.

    Parameters
    ----------
    layers : units of the layers, the lowest first; the last ones are the hidden units of the machine on top.
    greedy : steps for each layer.
    greedy_rate : of gradient descent in these, a number or a schedule; the momentum is 0.9.
    decay : weight of half the sum of the squared weights, in greedy learning.
    steps : steps of up-down; None leaves the net as greedy learning has made it.
    rate : of gradient descent in these, at their start; it falls in a straight line to 0.
    top_steps : steps after these in which the machine on top learns alone, by persistent chains, with the same rate:
        draws come out better. None leaves them out.
    batch_size : rows per step.
    sweeps : Gibbs sweeps of the machine on top that make a draw.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).integers(0, 2, size=(60, 4))
    >>> model = DeepBeliefNet(layers=(3, 2), greedy=20, steps=6, random_state=0).fit(X)
    >>> model.transform(X).shape, model.log_likelihood(X).direction
    ((60, 3), 'lower')
    """

    layers: tuple[int, ...] = (500, 2000)
    greedy: int = 10_000
    greedy_rate: float | AbstractSchedule = 0.05
    decay: float = 2e-4
    steps: int | None = 10_000
    rate: float = 0.05
    top_steps: int | None = None
    batch_size: int = 100
    sweeps: int = 1000
    evidence: AbstractEvidence = Layered()
    validation: float = 0.0

    kinds: ClassVar[tuple[str, ...]] = ("binary",)

    def build(self, schema: Schema, *, key: PRNGKeyArray) -> DeepBelief:
        """Small weights, and the rates of the data below."""
        below, above = jr.split(key)
        layers = two_ways(schema.units(), self.layers[:-1], key=below)
        return DeepBelief(layers, blank_top(layers[-1].upper.size, self.layers[-1], 0, self.sweeps, key=above))

    def stages(self, rows: int) -> list[Stage]:
        """Layer by layer, then up and down."""
        first = greedily(len(self.layers) - 1, self.greedy, self.greedy_rate, self.batch_size, self.decay)
        last = on_top(len(self.layers) - 1, self.top_steps, self.rate, self.batch_size)
        return first + up_and_down(self.steps, self.rate, self.batch_size) + last


class DeepBeliefClassifier(Dreaming, Consistent, Normalising, LabelledModel):
    """A deep belief net whose machine on top sees a label, too: it tells labels, and dreams of rows of a label.

    `predict_proba` is p(y | h) by the free energies of the machine on top, at the probabilities that the way up gives.

    Parameters
    ----------
    layers : units of the layers, the lowest first; the last ones are the hidden units of the machine on top.
    greedy, greedy_rate, decay, steps, rate, top_steps, batch_size, sweeps : as for `DeepBeliefNet`.
    tuning : steps of back-propagation through the way up as a feed-forward net, which then tells the labels; None
        leaves them to the machine on top.
    tuning_rate : of Adam in these.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.random.default_rng(0).integers(0, 2, size=80)
    >>> X = np.repeat(y[:, None], 4, axis=1)
    >>> model = DeepBeliefClassifier(layers=(4, 4), greedy=100, steps=6, random_state=0).fit(X, y)
    >>> model.dream(1, 2).shape
    (2, 4)
    """

    layers: tuple[int, ...] = (500, 500, 2000)
    greedy: int = 10_000
    greedy_rate: float | AbstractSchedule = 0.05
    decay: float = 2e-4
    steps: int | None = 10_000
    rate: float = 0.05
    top_steps: int | None = None
    batch_size: int = 100
    sweeps: int = 1000
    tuning: int | None = None
    tuning_rate: float | AbstractSchedule = 1e-4
    evidence: AbstractEvidence = Layered()
    validation: float = 0.0

    kinds: ClassVar[tuple[str, ...]] = ("binary",)
    trials: ClassVar[Mapping[str, Trial]] = TRIALS

    def build(self, schema: Schema, *, key: PRNGKeyArray) -> DeepBelief:
        """Small weights, the rates of the data below, and a label on top."""
        below, above = jr.split(key)
        layers = two_ways(schema.units(), self.layers[:-1], key=below)
        top = blank_top(layers[-1].upper.size, self.layers[-1], self.class_count(), self.sweeps, key=above)
        return networked(DeepBelief(layers, top), self.tuning)

    def stages(self, rows: int) -> list[Stage]:
        """Layer by layer, then up and down."""
        first = greedily(len(self.layers) - 1, self.greedy, self.greedy_rate, self.batch_size, self.decay)
        then = up_and_down(self.steps, self.rate, self.batch_size)
        alone = on_top(len(self.layers) - 1, self.top_steps, self.rate, self.batch_size)
        return first + then + alone + back_propagation(self.tuning, self.tuning_rate, self.batch_size)
