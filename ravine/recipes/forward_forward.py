"""Forward-Forward. Hinton 2022, *The Forward-Forward algorithm: some preliminary investigations*, arXiv:2212.13345.

Section 3.3: rows with their label. The settings of the trials were chosen on training rows that were held out: with
larger rates ever more units fall silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule
from ravine.data import Schema
from ravine.good_classifier import HARD, GoodClassifier, good_trial
from ravine.models.forward_forward import (
    AbstractLabelPlace,
    AbstractReadOut,
    Appended,
    FirstCells,
    GoodnessReadOut,
    GoodNet,
    affine_head,
)
from ravine.models.goodness import (
    AbstractGoodness,
    AbstractRectifier,
    Local,
    Rectified,
    SumOfSquares,
    good_layers,
)
from ravine.objectives.goodness import AbstractOthers, LocalGoodness, WrongLabel
from ravine.rules import Descend, Optimiser
from ravine.train import Stage
from ravine.trial import Trial

CORNER: dict[str, Any] = HARD | {"place": FirstCells()}


class ForwardForward(GoodClassifier):
    """Layers that are good at rows with their own label and bad at rows with another; no slope crosses layers.

    Parameters
    ----------
    layers : units of the layers, the lowest first; ``Local(units, side, stride)`` sees windows of images.
    goodness : ``SumOfSquares()``, ``MeanOfSquares(2.0)``, or ``Minus`` of one of them.
    rectifier : ``Rectified()``, or ``RectifiedThrough()``, by which silent units learn too where ``peers`` is not 0.
    place : where the label is shown: ``Appended()`` behind the row, or ``FirstCells()`` in place of some of them.
    others : the rows to be bad at: ``WrongLabel()``, ``LikelyWrongLabel()``.
    read_out : what tells the label: ``GoodnessReadOut()``, or ``SoftmaxReadOut()`` in one pass.
    peers : weight of what keeps units from being silent, or busy, for all rows; the paper's code has 0.03.
    decay : weight of half the squared weights of the affine read-out.
    rate : step size of Adam, a number or a schedule; wide layers want a smaller one.
    batch_size, steps : rows per step, and the number of steps.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.random.default_rng(0).integers(0, 2, size=80)
    >>> X = np.where(np.arange(6)[None] < 3, y[:, None], 1 - y[:, None])
    >>> model = ForwardForward(layers=(16, 16), steps=200, rate=1e-2, random_state=0).fit(X, y)
    >>> model.score(X, y), model.log_odds(X[:3], y[:3]).shape
    (1.0, (3, 2))
    """

    layers: tuple[int | Local, ...] = (500, 500)
    goodness: AbstractGoodness = SumOfSquares()
    rectifier: AbstractRectifier = Rectified()
    place: AbstractLabelPlace = Appended()
    others: AbstractOthers = WrongLabel()
    read_out: AbstractReadOut = GoodnessReadOut()
    peers: float = 0.0
    decay: float = 0.0
    rate: float | AbstractSchedule = 5e-4
    batch_size: int = 100
    steps: int = 18_000
    validation: float = 0.0
    standardise: bool = False

    trials: ClassVar[Mapping[str, Trial]] = {
        "small": good_trial(CORNER, 2, 500, 30, None, " has larger nets only"),
        "paper": good_trial(CORNER, 4, 2000, 60, 0.9864, ""),
    }

    def build(self, schema: Schema, classes: int = 2, *, key: PRNGKeyArray) -> GoodNet:
        """Layers sized for the data, and an affine read-out where something asks for it."""
        inputs = self.place.inputs(schema.width, classes)
        layers = good_layers(inputs, self.layers, self.rectifier, schema.image_shape, key=key)
        head = affine_head(layers, self.read_out.skip, classes, self.read_out.affine or self.others.asks)
        told = (self.goodness, self.read_out, classes)
        return GoodNet(layers, head, *told, self.place, image=schema.image_shape)

    def stages(self, rows: int) -> list[Stage]:
        """One stage in which all layers learn at once."""
        rule = Descend(LocalGoodness(self.others, self.peers, self.decay), Optimiser(optax.adam, (self.rate,)))
        return [Stage(rule, self.steps, self.batch_size)]
