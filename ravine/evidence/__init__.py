"""Ways to evaluate log p(x), each with its direction, and the law of missing cells."""

from ravine.evidence.annealing import adapted_betas, backward, even_betas, forward
from ravine.evidence.completion import drawn_completion, expected_completion, weighted_draws
from ravine.evidence.layered import Layered
from ravine.evidence.likelihood import EnumeratedLatents, Exact, ExactGenerator, ImportanceWeighted, held_cells
from ravine.evidence.normalised import RAISE, Normalised
from ravine.evidence.partition import AIS, AbstractPartition, Enumerated, PartitionFunction, bracketed
from ravine.evidence.settled import AbstractSpread, AroundSettled, DiagonalSpread, FullSpread
from ravine.evidence.variational import Variational

__all__ = [
    "AIS",
    "RAISE",
    "AbstractPartition",
    "AbstractSpread",
    "AroundSettled",
    "DiagonalSpread",
    "Enumerated",
    "EnumeratedLatents",
    "Exact",
    "ExactGenerator",
    "FullSpread",
    "ImportanceWeighted",
    "Layered",
    "Normalised",
    "PartitionFunction",
    "Variational",
    "adapted_betas",
    "backward",
    "bracketed",
    "drawn_completion",
    "even_betas",
    "expected_completion",
    "forward",
    "held_cells",
    "weighted_draws",
]
