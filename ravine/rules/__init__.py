"""Rules turn (model, state, batch, key) into the next model."""

from ravine.rules.combine import Every, InTurn, Redrawn, Repeat
from ravine.rules.descend import Descend, Optimiser
from ravine.rules.em import EM
from ravine.rules.watch import Best, Guarded

__all__ = ["EM", "Best", "Descend", "Every", "Guarded", "InTurn", "Optimiser", "Redrawn", "Repeat"]
