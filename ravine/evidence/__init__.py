"""Ways to evaluate log p(x), each with its direction, and the law of missing cells."""

from ravine.evidence.completion import drawn_completion, expected_completion, weighted_draws
from ravine.evidence.likelihood import Exact, ExactGenerator, ImportanceWeighted, held_cells

__all__ = [
    "Exact",
    "ExactGenerator",
    "ImportanceWeighted",
    "drawn_completion",
    "expected_completion",
    "held_cells",
    "weighted_draws",
]
