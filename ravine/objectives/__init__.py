"""Objectives turn (model, batch, key) into one number to lower."""

from ravine.objectives.bounds import ELBO, IWAE, AnalyticELBO, DReG, StickingTheLanding
from ravine.objectives.exact import MaximumLikelihood

__all__ = ["ELBO", "IWAE", "AnalyticELBO", "DReG", "MaximumLikelihood", "StickingTheLanding"]
