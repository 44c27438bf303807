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
from ravine.rules.projections import (
    AbstractProjection,
    NormClip,
    SecondOrder,
    Successive,
    Uncorrelated,
    UnitNorm,
    ZeroSum,
    disentangling,
    with_second_order,
)
from ravine.rules.watch import Best, Guarded

__all__ = [
    "AbstractNegatives",
    "AbstractProjection",
    "Best",
    "Centred",
    "Contrastive",
    "ContrastiveDivergence",
    "Descend",
    "EM",
    "Every",
    "FastWeights",
    "Greedy",
    "Guarded",
    "InTurn",
    "NormClip",
    "Optimiser",
    "Persistent",
    "Projected",
    "Redrawn",
    "Repeat",
    "SecondOrder",
    "Successive",
    "Tempered",
    "Uncorrelated",
    "UnitNorm",
    "ZeroSum",
    "centred",
    "disentangling",
    "with_second_order",
]
