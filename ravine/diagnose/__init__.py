"""What went wrong with a fit, words first: collapsed latents, gaps of q, noise, overfitting, samples, imputations."""

from ravine.diagnose.consistency import Approximations, ConsistencyGap, approximations, consistency_gap
from ravine.diagnose.diagnosis import Effort, diagnose
from ravine.diagnose.estimators import Estimated, GradientTable
from ravine.diagnose.gaps import Gaps, Search, inference_gaps, no_gaps
from ravine.diagnose.gradients import estimator_table, gradient_table
from ravine.diagnose.importance import ImportanceTail, importance_tail, pareto_k, pareto_shape
from ravine.diagnose.imputation import ImputationCalibration, imputation_calibration
from ravine.diagnose.latents import LatentUse, latent_use
from ravine.diagnose.likelihoods import Generalisation, OddRows, generalisation, odd_rows
from ravine.diagnose.noise import GradientNoise, PartNoise, gradient_noise
from ravine.diagnose.samples import Copies, TwoSample, copies, two_sample
from ravine.diagnose.units import UnitUse, unit_use
from ravine.diagnose.words import Diagnosis, Finding

__all__ = [
    "Approximations",
    "ConsistencyGap",
    "Copies",
    "Diagnosis",
    "Effort",
    "Estimated",
    "Finding",
    "Gaps",
    "Generalisation",
    "GradientNoise",
    "GradientTable",
    "ImportanceTail",
    "ImputationCalibration",
    "LatentUse",
    "OddRows",
    "PartNoise",
    "Search",
    "TwoSample",
    "UnitUse",
    "approximations",
    "consistency_gap",
    "copies",
    "diagnose",
    "estimator_table",
    "generalisation",
    "gradient_noise",
    "gradient_table",
    "importance_tail",
    "imputation_calibration",
    "inference_gaps",
    "latent_use",
    "no_gaps",
    "odd_rows",
    "pareto_k",
    "pareto_shape",
    "two_sample",
    "unit_use",
]
