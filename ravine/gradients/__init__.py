"""Estimators of E_{z~d}[cost(z)]: the value is right, the gradient is as each declares."""

from ravine.gradients.enumeration import Enumerate
from ravine.gradients.pathwise import Pathwise
from ravine.gradients.score import ScoreFunction

__all__ = ["Enumerate", "Pathwise", "ScoreFunction"]
