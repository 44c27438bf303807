"""Rules turn (model, state, batch, key) into the next model; schedules are numbers that change with the step."""

from ravine._tree import Cosine, Decay, Linear, Power, Staircase
from ravine.rules.chains import ContrastiveTop, HeldLabels
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
from ravine.rules.descend import Descend, Optimiser, gradient_descent
from ravine.rules.dictionary import MOD
from ravine.rules.em import EM
from ravine.rules.incremental import Incremental
from ravine.rules.layers import Greedy
from ravine.rules.projections import (
    AbstractProjection,
    IncomingNorm,
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
    "ContrastiveTop",
    "Cosine",
    "Decay",
    "Descend",
    "EM",
    "Every",
    "FastWeights",
    "Greedy",
    "Guarded",
    "HeldLabels",
    "InTurn",
    "IncomingNorm",
    "Incremental",
    "Linear",
    "MOD",
    "NormClip",
    "Optimiser",
    "Persistent",
    "Power",
    "Projected",
    "Redrawn",
    "Repeat",
    "SecondOrder",
    "Staircase",
    "Successive",
    "Tempered",
    "Uncorrelated",
    "UnitNorm",
    "ZeroSum",
    "centred",
    "disentangling",
    "gradient_descent",
    "with_second_order",
]
