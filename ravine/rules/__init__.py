"""Rules turn (model, state, batch, key) into the next model."""

from ravine.rules.combine import Every, InTurn, Redrawn, Repeat
from ravine.rules.contrast import (
    AbstractNegatives,
    Centred,
    Contrastive,
    ContrastiveDivergence,
    FastWeights,
    Persistent,
    Projected,
    Tempered,
    centred,
)
from ravine.rules.descend import Descend, Optimiser
from ravine.rules.em import EM
from ravine.rules.layers import Greedy
from ravine.rules.watch import Best, Guarded

__all__ = [
    "EM",
    "AbstractNegatives",
    "Best",
    "Centred",
    "Contrastive",
    "ContrastiveDivergence",
    "Descend",
    "Every",
    "FastWeights",
    "Greedy",
    "Guarded",
    "InTurn",
    "Optimiser",
    "Persistent",
    "Projected",
    "Redrawn",
    "Repeat",
    "Tempered",
    "centred",
]
