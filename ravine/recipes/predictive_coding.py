"""Predictive coding. Millidge, Seth & Buckley 2021, *Predictive coding: a theoretical and experimental review*.

arXiv:2107.12979. As a classifier the net of Whittington & Bogacz 2017, *An approximation of the error backpropagation
algorithm in a predictive coding network with local Hebbian synaptic plasticity*, with hidden layers of 500 and 500; as
a generative model that of Rao & Ballard 1999, *Predictive coding in the visual cortex*, with bits or numbers below.
The stiffness of the classifier in the trials was chosen on training rows that were held out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Fixed, Linear
from ravine.core import AbstractEvidence, AbstractRule
from ravine.data import Schema
from ravine.evidence import AroundSettled
from ravine.models.errors import (
    AbstractErrors,
    AbstractRealErrors,
    BitErrors,
    ClassErrors,
    LearnedErrors,
    UnitErrors,
    WeightedErrors,
)
from ravine.models.predictive_coding import PredictiveGenerator, PredictiveNet, UpwardGuess
from ravine.nets import potentials, relu, tanh
from ravine.network_classifier import NetworkClassifier
from ravine.objectives import Energy
from ravine.recognisers import AbstractSettling, Filled, FixedPredictions, GradientSettling, IncrementalSettling
from ravine.rules import Descend, Incremental, Optimiser
from ravine.settled import SettlingModel
from ravine.train import Stage
from ravine.trial import Trial

NGC_LEARN = "ngc-learn, demonstration 3: a net of the same size with batches of 256, settling for 20 steps"
NO_NUMBER = "no source that we know of reports log p(x) of such a model"
LONG: dict[str, Any] = {"steps": 6_000, "rate": Linear(1e-3, 0.0, 6_000.0), "batch_size": 256, "validation": 0.0}
WAYS: dict[str, dict[str, Any]] = {
    "small": {"settling": GradientSettling(20, 0.003), "stiffness": 10.0},
    "small-back-propagated": {"settling": FixedPredictions(2)},
}


def learned(settling: AbstractSettling, rate: float | AbstractSchedule, decay: float = 0.0) -> AbstractRule:
    """Adam on the energy of the settled point; or while it settles, if that is how."""
    optimiser = Optimiser(optax.adam, (rate,))
    if isinstance(settling, IncrementalSettling):
        return Incremental(settling.steps, settling.rate, optimiser)
    return Descend(Energy(decay), optimiser)


def cell_errors(schema: Schema) -> AbstractErrors:
    """Those for the kind of the cells: of reals the precision is learned."""
    return BitErrors() if schema.kind == "binary" else LearnedErrors(jnp.zeros(schema.width))


def real_errors(precision: float) -> AbstractRealErrors:
    """Errors of a hidden layer."""
    return UnitErrors() if precision == 1 else WeightedErrors(precision)


def first_guess(
    wanted: bool, schema: Schema, widths: tuple[int, ...], activation: Callable, *, key: PRNGKeyArray
) -> UpwardGuess | None:
    """From a row, its missing cells filled with their means, to where all layers may settle; None unless wanted."""
    read = Filled(Fixed(jnp.asarray(schema.base)))
    return UpwardGuess(read, potentials(widths, activation, key=key)) if wanted else None


class PredictiveCodingClassifier(NetworkClassifier):
    """A net from rows to labels that learns from where its hidden layers settle when both ends are held.

    Without a label the layers are at rest where a forward pass puts them, and labels are told by that.

    Parameters
    ----------
    hidden : cells of the hidden layers.
    activation : of these, where the next layer reads them.
    settling : ``GradientSettling(steps, rate)``; ``IncrementalSettling(steps, rate)``, during which weights learn;
        ``FixedPredictions(steps)``, which with as many steps as hidden layers is back-propagation.
    stiffness : precision of the hidden layers; the higher, the less they leave the forward pass, and the nearer
        learning is to back-propagation. Settling runs away where it, times the rate of settling, times 1 and the square
        of the largest singular value of the weights, is above 2; weights grow while they learn.
    errors : of the label: ``ClassErrors()``, or ``UnitErrors()`` for squares.
    rate : step size of Adam, a number or a schedule.
    batch_size, steps : rows per step, and the number of steps at most.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> model = PredictiveCodingClassifier(hidden=(8,), steps=300, rate=1e-2, random_state=0).fit(X, X[:, 1] > 0)
    >>> model.transform(X).shape, bool(model.score(X, X[:, 1] > 0) > 0.9)
    ((200, 8), True)
    """

    hidden: tuple[int, ...] = (500, 500)
    activation: Callable = relu
    settling: AbstractSettling = GradientSettling(20, 0.03)
    stiffness: float = 1.0
    errors: AbstractErrors = ClassErrors()
    rate: float | AbstractSchedule = 1e-3
    batch_size: int = 256
    steps: int = 10_000

    trials: ClassVar[Mapping[str, Trial]] = {
        scale: Trial("mnist-grey", LONG | way, None, NGC_LEARN, accuracy=0.9809) for scale, way in WAYS.items()
    }

    def build(self, schema: Schema, classes: int = 2, *, key: PRNGKeyArray) -> PredictiveNet:
        """A net sized for the data."""
        read = Filled(Fixed(jnp.zeros(schema.shape)))
        links = potentials((schema.width, *self.hidden, classes), self.activation, key=key)
        errors = (*(real_errors(self.stiffness) for _ in self.hidden), self.errors)
        return PredictiveNet(read, links, errors, self.settling)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent."""
        return [Stage(learned(self.settling, self.rate), self.steps, self.batch_size, judge=Energy())]


class PredictiveCoding(SettlingModel):
    """Layers of latents that predict one another from the top down to the cells, and settle on a row.

    It learns from the settled point alone, which has no width: weights would grow and latents shrink for ever if no
    ``decay`` held them. `score_samples` is log p(x) by importance sampling around the settled point, a lower bound.

    Parameters
    ----------
    latents : cells of the top layer.
    hidden : cells of the layers below it, the lowest first.
    activation : of all layers of latents, where the next one reads them.
    settling : ``GradientSettling(steps, rate)``, or ``IncrementalSettling(steps, rate)``, during which weights learn.
    stiffness : precision of the hidden layers; that of the top is 1.
    hybrid : begin where a network guesses that the layers will settle, and let it learn that.
    rate : step size of Adam, a number or a schedule.
    decay : weight of half the sum of the squared weights.
    batch_size, steps : rows per step, and the number of steps at most.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).integers(0, 2, size=(60, 1)) * np.ones((1, 4))
    >>> model = PredictiveCoding(latents=2, hidden=(4,), steps=50, random_state=0).fit(X)
    >>> model.transform(X).shape, model.log_likelihood(X[:2]).direction
    ((60, 2), 'lower')
    """

    latents: int = 20
    hidden: tuple[int, ...] = (128,)
    activation: Callable = tanh
    settling: AbstractSettling = GradientSettling(50, 0.1)
    stiffness: float = 1.0
    hybrid: bool = False
    rate: float | AbstractSchedule = 1e-3
    decay: float = 1e-3
    batch_size: int = 100
    steps: int = 5_000
    standardise: bool = True
    evidence: AbstractEvidence = AroundSettled(1000)

    kinds: ClassVar[tuple[str, ...]] = ("binary", "real")
    trials: ClassVar[Mapping[str, Trial]] = {"small": Trial("mnist", {"steps": 5_000}, None, NO_NUMBER)}

    def build(self, schema: Schema, *, key: PRNGKeyArray) -> PredictiveGenerator:
        """A net sized for the data."""
        down, up = jr.split(key)
        widths, errors = (self.latents, *self.hidden[::-1], schema.width), cell_errors(schema)
        base = schema.link().start(jnp.asarray(schema.base))[: schema.width]
        links = potentials(widths, self.activation, key=down, bias=base)
        free = (UnitErrors(), *(real_errors(self.stiffness) for _ in self.hidden))
        guess = first_guess(self.hybrid, schema, widths[::-1], self.activation, key=up)
        top = Fixed(jnp.zeros(self.latents))
        return PredictiveGenerator(top, links, (*free, errors), self.settling, guess)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent."""
        return [Stage(learned(self.settling, self.rate, self.decay), self.steps, self.batch_size, judge=Energy())]
