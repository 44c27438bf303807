"""Forward-Forward over time. Hinton 2022, *The Forward-Forward algorithm: some preliminary investigations*.

arXiv:2212.13345, section 3.4: layers that see their neighbours again and again. The settings of the trials are those of
`ForwardForward`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule
from ravine.data import Schema
from ravine.good_classifier import HARD, GoodClassifier, good_trial
from ravine.models.forward_forward import (
    AbstractReadOut,
    GoodnessReadOut,
    RecurrentNet,
    affine_head,
    from_above,
)
from ravine.models.goodness import (
    AbstractGoodness,
    AbstractRectifier,
    Rectified,
    SumOfSquares,
    good_layers,
)
from ravine.objectives.goodness import AbstractOthers, LocalGoodness, WrongLabel
from ravine.rules import Descend, Optimiser
from ravine.train import Stage
from ravine.trial import Trial


class RecurrentForwardForward(GoodClassifier):
    """Layers that see both neighbours, again and again: the row below, the label above, and each a moment ago.

    Parameters
    ----------
    layers, goodness, rectifier, others, read_out, peers, decay, rate, batch_size, steps : as for `ForwardForward`.
    moments : how often all layers move at once.
    damping : share of what a layer was in what it becomes.
    heard : the first and the last of the moments whose goodness tells the label, from 1.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.random.default_rng(0).integers(0, 2, size=80)
    >>> X = np.where(np.arange(6)[None] < 3, y[:, None], 1 - y[:, None])
    >>> model = RecurrentForwardForward(layers=(16, 16), steps=200, rate=1e-2, random_state=0).fit(X, y)
    >>> model.score(X, y)
    1.0
    """

    layers: tuple[int, ...] = (500, 500)
    goodness: AbstractGoodness = SumOfSquares()
    rectifier: AbstractRectifier = Rectified()
    others: AbstractOthers = WrongLabel()
    read_out: AbstractReadOut = GoodnessReadOut()
    moments: int = 8
    damping: float = 0.3
    heard: tuple[int, int] = (3, 5)
    peers: float = 0.0
    decay: float = 0.0
    rate: float | AbstractSchedule = 5e-4
    batch_size: int = 100
    steps: int = 18_000
    validation: float = 0.0
    standardise: bool = False

    trials: ClassVar[Mapping[str, Trial]] = {
        "small": good_trial(HARD, 2, 500, 30, 0.9869, ", with two layers of 2,000 units")
    }

    def build(self, schema: Schema, classes: int = 2, *, key: PRNGKeyArray) -> RecurrentNet:
        """Layers sized for the data, with maps from above, and an affine read-out where something asks for it."""
        up, down = jr.split(key)
        layers = good_layers(schema.width, self.layers, self.rectifier, None, key=up)
        head = affine_head(layers, self.read_out.skip, classes, self.read_out.affine or self.others.asks)
        time = {"moments": self.moments, "damping": self.damping, "heard": self.heard}
        downs = from_above(layers, classes, key=down)
        return RecurrentNet(layers, head, self.goodness, self.read_out, classes, downs, **time)

    def stages(self, rows: int) -> list[Stage]:
        """One stage in which all layers learn at once, at every moment."""
        rule = Descend(LocalGoodness(self.others, self.peers, self.decay), Optimiser(optax.adam, (self.rate,)))
        return [Stage(rule, self.steps, self.batch_size)]
