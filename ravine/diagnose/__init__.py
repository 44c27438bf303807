"""What went wrong with a fit, words first: collapsed latents, gaps of q, noise, overfitting, samples, imputations.

And what is inside it: slopes, dreams of its units, rows that fool it, latents at work, how learning is aligned.
"""

from ravine.diagnose.activation import Activation, Ascent, activation_maximisation
from ravine.diagnose.alignment import Alignment, alignment, learning_alignment, rule_alignment
from ravine.diagnose.attacks import (
    FGSM,
    PGD,
    AbstractAttack,
    AdversarialExamples,
    RobustAccuracy,
    adversarial_examples,
    robust_accuracy,
)
from ravine.diagnose.balls import L2, AbstractBall, Linf
from ravine.diagnose.consistency import Approximations, ConsistencyGap, approximations, consistency_gap
from ravine.diagnose.cost import StepCost, step_cost
from ravine.diagnose.diagnosis import Effort, diagnose
from ravine.diagnose.estimators import Estimated, GradientTable
from ravine.diagnose.gaps import Gaps, Search, inference_gaps, no_gaps
from ravine.diagnose.gradients import estimator_table, gradient_table
from ravine.diagnose.importance import ImportanceTail, importance_tail, pareto_k, pareto_shape
from ravine.diagnose.imputation import ImputationCalibration, imputation_calibration
from ravine.diagnose.latents import LatentUse, latent_use
from ravine.diagnose.likelihoods import Generalisation, OddRows, generalisation, odd_rows
from ravine.diagnose.noise import GradientNoise, PartNoise, gradient_noise
from ravine.diagnose.outputs import Range, cell_range, output_gradients
from ravine.diagnose.regions import TopEnergies, top_energies
from ravine.diagnose.samples import Copies, TwoSample, copies, two_sample
from ravine.diagnose.traversals import Traversal, latent_traversal
from ravine.diagnose.units import UnitUse, unit_use
from ravine.diagnose.words import Diagnosis, Finding

__all__ = [
    "AbstractAttack",
    "AbstractBall",
    "Activation",
    "AdversarialExamples",
    "Alignment",
    "Approximations",
    "Ascent",
    "ConsistencyGap",
    "Copies",
    "Diagnosis",
    "Effort",
    "Estimated",
    "FGSM",
    "Finding",
    "Gaps",
    "Generalisation",
    "GradientNoise",
    "GradientTable",
    "ImportanceTail",
    "ImputationCalibration",
    "L2",
    "LatentUse",
    "Linf",
    "OddRows",
    "PGD",
    "PartNoise",
    "Range",
    "RobustAccuracy",
    "Search",
    "StepCost",
    "TopEnergies",
    "Traversal",
    "TwoSample",
    "UnitUse",
    "activation_maximisation",
    "adversarial_examples",
    "alignment",
    "approximations",
    "cell_range",
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
    "latent_traversal",
    "latent_use",
    "learning_alignment",
    "no_gaps",
    "odd_rows",
    "output_gradients",
    "pareto_k",
    "pareto_shape",
    "robust_accuracy",
    "rule_alignment",
    "step_cost",
    "top_energies",
    "two_sample",
    "unit_use",
]
