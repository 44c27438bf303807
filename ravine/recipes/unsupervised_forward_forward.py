"""Forward-Forward without labels. Hinton 2022, *The Forward-Forward algorithm: some preliminary investigations*.

arXiv:2212.13345, section 3.2: hybrids of two images. The settings of the trials are those of `ForwardForward`; in the
largest, cells are hidden while the layers learn, which the paper does not do: else they know the rows by heart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule
from ravine.data import Schema
from ravine.good_classifier import REVIVED, GoodClassifier, good_trial
from ravine.models.forward_forward import (
    AbstractReadOut,
    GoodNet,
    Nowhere,
    SoftmaxReadOut,
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
from ravine.objectives.goodness import AbstractOthers, Hybrids, LocalGoodness
from ravine.rules import Descend, Optimiser
from ravine.train import Stage
from ravine.trial import Trial


class UnsupervisedForwardForward(GoodClassifier):
    """Layers that are good at rows and bad at hybrids of two rows; an affine map tells the label from what they make.

    Rows without a label teach the layers as well.

    Parameters
    ----------
    layers, goodness, rectifier, peers, decay, rate, batch_size, steps : as for `ForwardForward`.
    others : the rows to be bad at: ``Hybrids(rounds, hidden)``, in patches that are larger for more rounds, with a
        share of the cells hidden.
    read_out : ``SoftmaxReadOut(skip)``, which leaves out so many of the lowest layers.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.random.default_rng(0).integers(0, 2, size=80)
    >>> X = np.where(np.arange(6)[None] < 3, y[:, None], 1 - y[:, None])
    >>> model = UnsupervisedForwardForward(layers=(16, 16), steps=200, rate=1e-2, random_state=0).fit(X, y)
    >>> model.score(X, y), model.transform(X).shape
    (1.0, (80, 16))
    """

    layers: tuple[int | Local, ...] = (1000, 1000, 1000, 1000)
    goodness: AbstractGoodness = SumOfSquares()
    rectifier: AbstractRectifier = Rectified()
    others: AbstractOthers = Hybrids()
    read_out: AbstractReadOut = SoftmaxReadOut()
    peers: float = 0.0
    decay: float = 0.0
    rate: float | AbstractSchedule = 5e-4
    batch_size: int = 100
    steps: int = 18_000
    validation: float = 0.0
    standardise: bool = False

    labels_needed: ClassVar[bool] = False
    shows: ClassVar[bool] = False
    trials: ClassVar[Mapping[str, Trial]] = {
        "small": good_trial(REVIVED, 4, 1000, 30, None, " has larger nets only"),
        "paper": good_trial(REVIVED | {"others": Hybrids(2, 0.3)}, 4, 2000, 60, 0.9863, ""),
    }

    def build(self, schema: Schema, classes: int = 2, *, key: PRNGKeyArray) -> GoodNet:
        """Layers sized for the data, and an affine read-out."""
        layers = good_layers(schema.width, self.layers, self.rectifier, schema.image_shape, key=key)
        head = affine_head(layers, self.read_out.skip, classes, True)
        told = (self.goodness, self.read_out, classes)
        return GoodNet(layers, head, *told, Nowhere(), image=schema.image_shape)

    def stages(self, rows: int) -> list[Stage]:
        """One stage in which all layers, and the read-out, learn at once."""
        rule = Descend(LocalGoodness(self.others, self.peers, self.decay), Optimiser(optax.adam, (self.rate,)))
        return [Stage(rule, self.steps, self.batch_size)]
