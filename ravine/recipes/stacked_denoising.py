"""Stacked denoising autoencoders. Vincent, Larochelle, Lajoie, Bengio & Manzagol 2010, JMLR 11, 3371-3408, table 3.

*Stacked denoising autoencoders: learning useful representations in a deep network with a local denoising criterion.*
Rates, steps and sizes were chosen on rows held out of the training rows, or drawn for it. The trials ``small`` and
``rect-small`` spoil rows while the network learns from labels, too, which the paper does not; ``small-clean``,
``rect-clean`` and ``paper`` show it clean rows, and stop where those held out are told worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Linear, Part
from ravine.core import Objective
from ravine.data import Schema
from ravine.models.autoencoder import (
    StackedAutoencoder,
    Tie,
    ToClassifier,
)
from ravine.network_classifier import NetworkClassifier
from ravine.objectives import Denoising, Discriminative, FromSpoilt, Masking, NLLLoss
from ravine.objectives.denoising import AbstractCorruption
from ravine.row_encoder import RowEncoder, Wanders, layer_by_layer, stack_of
from ravine.rules import Descend, Optimiser
from ravine.train import Stage
from ravine.trial import Trial

VINCENT = "Vincent et al. 2010, table 3, SDAE-3"
DIGITS: dict[str, Any] = {"binarise": "none", "kind": "levels", "levels": 256}
ANEW = f"{VINCENT} (nu = 10 %); there of other draws, 1,000 of them for training"


def spoilt_trial(data: str, nu: float, steps: int, tuning: int, reported: float, of: str, **fields: Any) -> Trial:
    """Rows are spoilt while the network learns from labels, too, for all steps."""
    spoils = {"tuning_corruption": Masking(nu), "validation": 0.0}
    falls = {"tuning_rate": Linear(1e-3, 0.0, float(tuning)), "steps": steps, "tuning": tuning}
    return Trial(data, spoils | falls | fields, None, of, accuracy=reported, labels=10_000)


def clean_trial(data: str, steps: int, tuning: int, reported: float, of: str, **fields: Any) -> Trial:
    """The network sees clean rows, until those that are held out are told worse."""
    held = {"steps": steps, "tuning": tuning, "validation": 1 / 6}
    return Trial(data, held | fields, None, of, accuracy=reported, labels=10_000)


TRIALS = {
    "small": spoilt_trial("mnist-grey", 0.25, 5_000, 10_000, 0.9872, f"{VINCENT} (nu = 25 %)", **DIGITS),
    "small-clean": clean_trial("mnist-grey", 5_000, 15_000, 0.9872, f"{VINCENT} (nu = 25 %)", **DIGITS),
    "paper": clean_trial("mnist-grey", 25_000, 50_000, 0.9872, f"{VINCENT} (nu = 25 %)", **DIGITS),
    "rect-small": spoilt_trial(
        "rect", 0.3, 6_000, 4_000, 0.9801, ANEW, learning=Denoising(Masking(0.3)), batch_size=50
    ),
    "rect-clean": clean_trial("rect", 3_000, 3_000, 0.9801, ANEW, learning=Denoising(Masking(0.1)), batch_size=50),
}


class DenoisingAutoencoder(Wanders, RowEncoder):
    """Layers of logistic units, each of which learned to undo the corruption of what the layer below says of a row.

    Parameters
    ----------
    layers : units of the layers, the lowest first.
    learning : what each layer lowers, such as ``Denoising(Masking(0.25))``, ``Denoising(SaltAndPepper(0.1),
        Emphasis(1.0, 0.2))``, ``Denoising(GaussianNoise(0.3))``, or ``Reconstruction()`` for a plain one.
    way_back : ``"transposed"`` for the weights of the way there, or ``"separate"`` for others.
    rate : step size of Adam, a number or a schedule.
    batch_size, steps : rows per step, and the number of steps for each layer at most.
    passes : up and down again, that make a draw.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.repeat(np.random.default_rng(0).integers(0, 2, size=(60, 1)), 4, axis=1)
    >>> model = DenoisingAutoencoder(layers=(3, 2), steps=20, passes=3, random_state=0).fit(X)
    >>> model.transform(X).shape, model.denoise(X).shape, model.sample(5).shape
    ((60, 2), (60, 4), (5, 4))
    """

    layers: tuple[int, ...] = (500,)
    learning: Objective = Denoising(Masking(0.25))
    way_back: Tie = "transposed"
    rate: float | AbstractSchedule = 1e-3
    batch_size: int = 100
    steps: int = 10_000
    passes: int = 100

    def build(self, schema: Schema, *, key: PRNGKeyArray) -> StackedAutoencoder:
        """Layers that know no more than the means of the cells."""
        return stack_of(schema, self.layers, self.way_back, self.learning, self.steps, self.passes, key=key)

    def stages(self, rows: int) -> list[Stage]:
        """Layer by layer."""
        return layer_by_layer(self.learning, len(self.layers), self.rate, self.steps, self.batch_size)


class StackedDenoising(Wanders, NetworkClassifier):
    """Denoising autoencoders, one on top of the other, that become a network, which then learns from labels.

    Rows without a label are learned from as well. ``transform`` gives the topmost units of the network;
    ``denoise`` and ``sample`` are answers of the autoencoders, which labels do not change.

    Parameters
    ----------
    layers, learning, way_back, rate, steps, batch_size, passes : as for `DenoisingAutoencoder`.
    tuning : steps of the network at most.
    tuning_rate : of Adam in these; None lets it fall from 3e-4 to 0 in a straight line.
    tuning_corruption : how rows are spoilt while the network learns; None, as in the paper, leaves them as they are.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.random.default_rng(0).integers(0, 2, size=80)
    >>> X = np.repeat(y[:, None], 4, axis=1)
    >>> model = StackedDenoising(layers=(4, 4), steps=20, tuning=500, tuning_rate=0.03, passes=3, random_state=0)
    >>> model = model.fit(X, y)
    >>> model.score(X, y), model.sample(2).shape
    (1.0, (2, 4))
    """

    layers: tuple[int, ...] = (1000, 1000, 1000)
    learning: Objective = Denoising(Masking(0.25))
    way_back: Tie = "transposed"
    rate: float | AbstractSchedule = 1e-3
    batch_size: int = 100
    steps: int = 10_000
    passes: int = 100
    tuning: int = 10_000
    tuning_rate: float | AbstractSchedule | None = None
    tuning_corruption: AbstractCorruption | None = None

    labels_needed: ClassVar[bool] = False
    trials: ClassVar[Mapping[str, Trial]] = TRIALS

    def build(self, schema: Schema, classes: int = 2, *, key: PRNGKeyArray) -> StackedAutoencoder:
        """Layers that know no more than the means of the cells, and a network of them."""
        made = stack_of(schema, self.layers, self.way_back, self.learning, self.steps, self.passes, key=key)
        return ToClassifier(classes)(made, None, key=key)

    def stages(self, rows: int) -> list[Stage]:
        """Layer by layer, then the network."""
        first = layer_by_layer(self.learning, len(self.layers), self.rate, self.steps, self.batch_size)
        adam = Optimiser(optax.adam, (self.tuning_rate or Linear(3e-4, 0.0, float(self.tuning)),))
        told = FromSpoilt(Discriminative(NLLLoss()), self.tuning_corruption)
        rule = Descend(told, adam, on=Part("network"))
        return [*first, Stage(rule, self.tuning, self.batch_size, prepare=ToClassifier(self.class_count()))]
