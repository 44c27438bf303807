"""Objectives turn (model, batch, key) into one number to lower."""

from ravine.objectives.bounds import ELBO, IWAE, AnalyticELBO, DReG, StickingTheLanding, warming
from ravine.objectives.centring import Centring
from ravine.objectives.contrast import Contrast, ExactLikelihood, PseudoLikelihood, pseudo_log_likelihood
from ravine.objectives.cross_entropy import CrossEntropy
from ravine.objectives.energy_losses import Discriminative, NLLLoss
from ravine.objectives.exact import MaximumLikelihood
from ravine.objectives.information import InformationBound
from ravine.objectives.labelled import SemiSupervised
from ravine.objectives.relaxed import Relaxed
from ravine.objectives.up_down import UpDown

__all__ = [
    "ELBO",
    "IWAE",
    "AnalyticELBO",
    "Centring",
    "Contrast",
    "CrossEntropy",
    "DReG",
    "Discriminative",
    "ExactLikelihood",
    "InformationBound",
    "MaximumLikelihood",
    "NLLLoss",
    "PseudoLikelihood",
    "Relaxed",
    "SemiSupervised",
    "StickingTheLanding",
    "UpDown",
    "pseudo_log_likelihood",
    "warming",
]
