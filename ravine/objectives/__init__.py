"""Objectives turn (model, batch, key) into one number to lower."""

from ravine.objectives.bounds import ELBO, IWAE, AnalyticELBO, DReG, StickingTheLanding

__all__ = ["ELBO", "IWAE", "AnalyticELBO", "DReG", "StickingTheLanding"]
