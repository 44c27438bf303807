"""Objectives turn (model, batch, key) into one number to lower."""

from ravine.objectives.bounds import ELBO, IWAE, AnalyticELBO, DReG, StickingTheLanding, warming
from ravine.objectives.centring import Centring
from ravine.objectives.contrast import Contrast, ExactLikelihood, PseudoLikelihood, pseudo_log_likelihood
from ravine.objectives.coupled import AbstractTelling, BackPropagated, Coupled, LocalTelling
from ravine.objectives.cross_entropy import CrossEntropy
from ravine.objectives.denoising import (
    AbstractCorruption,
    Contractive,
    Denoising,
    Emphasis,
    FromSpoilt,
    GaussianNoise,
    Masking,
    OfLayer,
    Reconstruction,
    SaltAndPepper,
)
from ravine.objectives.energy_losses import (
    Discriminative,
    EnergyLoss,
    HingeLoss,
    JointContrast,
    LogLoss,
    LVQ2Loss,
    MCELoss,
    MEELoss,
    NLLLoss,
    PerceptronLoss,
    SquareExponentialLoss,
    SquareSquareLoss,
)
from ravine.objectives.exact import MaximumLikelihood
from ravine.objectives.expectation import MonteCarloEM, VariationalEM
from ravine.objectives.helmholtz import Equilibrium, ReweightedWakeSleep, WakeSleep
from ravine.objectives.information import InformationBound
from ravine.objectives.labelled import SemiSupervised
from ravine.objectives.noise_contrastive import FromLaw, NoiseContrastive, StartOfPath
from ravine.objectives.relaxed import Relaxed
from ravine.objectives.score_matching import DenoisingScoreMatching, ScoreMatching, SlicedScoreMatching
from ravine.objectives.settled import Energy, Hebbian
from ravine.objectives.sparse_coding import LeastCost
from ravine.objectives.up_down import UpDown

__all__ = [
    "AbstractCorruption",
    "AbstractTelling",
    "AnalyticELBO",
    "BackPropagated",
    "Centring",
    "Contractive",
    "Contrast",
    "Coupled",
    "CrossEntropy",
    "DReG",
    "Denoising",
    "DenoisingScoreMatching",
    "Discriminative",
    "ELBO",
    "Energy",
    "Emphasis",
    "EnergyLoss",
    "Equilibrium",
    "ExactLikelihood",
    "FromLaw",
    "Hebbian",
    "FromSpoilt",
    "GaussianNoise",
    "HingeLoss",
    "IWAE",
    "InformationBound",
    "JointContrast",
    "LVQ2Loss",
    "LeastCost",
    "LocalTelling",
    "LogLoss",
    "MCELoss",
    "MEELoss",
    "Masking",
    "MaximumLikelihood",
    "MonteCarloEM",
    "NLLLoss",
    "NoiseContrastive",
    "OfLayer",
    "PerceptronLoss",
    "PseudoLikelihood",
    "Reconstruction",
    "Relaxed",
    "ReweightedWakeSleep",
    "SaltAndPepper",
    "ScoreMatching",
    "SemiSupervised",
    "SlicedScoreMatching",
    "SquareExponentialLoss",
    "SquareSquareLoss",
    "StartOfPath",
    "StickingTheLanding",
    "UpDown",
    "VariationalEM",
    "WakeSleep",
    "pseudo_log_likelihood",
    "warming",
]
