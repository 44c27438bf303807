"""Ravine: latent-variable generative models behind one interface.

Names load when they are first used: importing Ravine imports neither JAX nor scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ravine.anomalies import anomalies as anomalies
    from ravine.compare import compare as compare
    from ravine.core import LogLikelihood as LogLikelihood
    from ravine.core import Row as Row
    from ravine.data import Schema as Schema
    from ravine.data import Sequences as Sequences
    from ravine.data import dataset_names as dataset_names
    from ravine.data import load_dataset as load_dataset
    from ravine.data import read_table as read_table
    from ravine.diagnose import gradient_table as gradient_table
    from ravine.estimator import LatentVariableModel as LatentVariableModel
    from ravine.evaluation import Evaluation as Evaluation
    from ravine.recipes.boltzmann_machine import BoltzmannMachine as BoltzmannMachine
    from ravine.recipes.classification_rbm import ClassificationRBM as ClassificationRBM
    from ravine.recipes.concrete_vae import ConcreteVAE as ConcreteVAE
    from ravine.recipes.contractive_autoencoder import ContractiveAutoencoder as ContractiveAutoencoder
    from ravine.recipes.coupled_network import CoupledClassifier as CoupledClassifier
    from ravine.recipes.coupled_network import CoupledNetwork as CoupledNetwork
    from ravine.recipes.deep_belief_net import DeepBeliefClassifier as DeepBeliefClassifier
    from ravine.recipes.deep_belief_net import DeepBeliefNet as DeepBeliefNet
    from ravine.recipes.deep_boltzmann_machine import DeepBoltzmannMachine as DeepBoltzmannMachine
    from ravine.recipes.disentangled_rbm import DisentangledRBM as DisentangledRBM
    from ravine.recipes.energy_based import EnergyBased as EnergyBased
    from ravine.recipes.energy_based import EnergyClassifier as EnergyClassifier
    from ravine.recipes.factor_analysis import FactorAnalysis as FactorAnalysis
    from ravine.recipes.factor_analysis import VariationalFactorAnalysis as VariationalFactorAnalysis
    from ravine.recipes.forward_forward import ForwardForward as ForwardForward
    from ravine.recipes.gaussian_mixture import GaussianMixture as GaussianMixture
    from ravine.recipes.gaussian_rbm import GaussianRBM as GaussianRBM
    from ravine.recipes.gumbel_vae import GumbelVAE as GumbelVAE
    from ravine.recipes.helmholtz_machine import HelmholtzMachine as HelmholtzMachine
    from ravine.recipes.hidden_markov_model import HiddenMarkovModel as HiddenMarkovModel
    from ravine.recipes.igr_vae import IGRVAE as IGRVAE
    from ravine.recipes.imle_vae import IMLEVAE as IMLEVAE
    from ravine.recipes.latent_class import LatentClass as LatentClass
    from ravine.recipes.latent_class_analysis import LatentClassAnalysis as LatentClassAnalysis
    from ravine.recipes.latent_tree import LatentTreeClassifier as LatentTreeClassifier
    from ravine.recipes.learning_to_explain import LearningToExplain as LearningToExplain
    from ravine.recipes.linear_dynamical_system import LinearDynamicalSystem as LinearDynamicalSystem
    from ravine.recipes.miwae import MIWAE as MIWAE
    from ravine.recipes.mixed_factor_analysis import MixedFactorAnalysis as MixedFactorAnalysis
    from ravine.recipes.neural_generative_coding import NeuralGenerativeCoding as NeuralGenerativeCoding
    from ravine.recipes.predictive_coding import PredictiveCoding as PredictiveCoding
    from ravine.recipes.predictive_coding import PredictiveCodingClassifier as PredictiveCodingClassifier
    from ravine.recipes.probabilistic_pca import ProbabilisticPCA as ProbabilisticPCA
    from ravine.recipes.product_of_experts import ProductOfExpertsClassifier as ProductOfExpertsClassifier
    from ravine.recipes.rbm import RBM as RBM
    from ravine.recipes.semi_supervised_gumbel import SemiSupervisedGumbel as SemiSupervisedGumbel
    from ravine.recipes.sigmoid_belief_net import SigmoidBeliefNet as SigmoidBeliefNet
    from ravine.recipes.sparse_coding import SparseCoding as SparseCoding
    from ravine.recipes.stacked_denoising import DenoisingAutoencoder as DenoisingAutoencoder
    from ravine.recipes.stacked_denoising import StackedDenoising as StackedDenoising
    from ravine.recipes.structured_prediction import StructuredPrediction as StructuredPrediction
    from ravine.recipes.unsupervised_forward_forward import UnsupervisedForwardForward as UnsupervisedForwardForward
    from ravine.recipes.vae import VAE as VAE
    from ravine.registry import load as load
    from ravine.report import report as report
    from ravine.sequence_model import SequenceModel as SequenceModel
    from ravine.synthesis import synthesize as synthesize
    from ravine.train import Stage as Stage

_HOMES = {
    "BoltzmannMachine": "ravine.recipes.boltzmann_machine",
    "ClassificationRBM": "ravine.recipes.classification_rbm",
    "ConcreteVAE": "ravine.recipes.concrete_vae",
    "ContractiveAutoencoder": "ravine.recipes.contractive_autoencoder",
    "CoupledClassifier": "ravine.recipes.coupled_network",
    "CoupledNetwork": "ravine.recipes.coupled_network",
    "DeepBeliefClassifier": "ravine.recipes.deep_belief_net",
    "DeepBeliefNet": "ravine.recipes.deep_belief_net",
    "DeepBoltzmannMachine": "ravine.recipes.deep_boltzmann_machine",
    "DenoisingAutoencoder": "ravine.recipes.stacked_denoising",
    "DisentangledRBM": "ravine.recipes.disentangled_rbm",
    "EnergyBased": "ravine.recipes.energy_based",
    "EnergyClassifier": "ravine.recipes.energy_based",
    "Evaluation": "ravine.evaluation",
    "FactorAnalysis": "ravine.recipes.factor_analysis",
    "ForwardForward": "ravine.recipes.forward_forward",
    "GaussianMixture": "ravine.recipes.gaussian_mixture",
    "GaussianRBM": "ravine.recipes.gaussian_rbm",
    "GumbelVAE": "ravine.recipes.gumbel_vae",
    "HelmholtzMachine": "ravine.recipes.helmholtz_machine",
    "HiddenMarkovModel": "ravine.recipes.hidden_markov_model",
    "IGRVAE": "ravine.recipes.igr_vae",
    "IMLEVAE": "ravine.recipes.imle_vae",
    "LatentClass": "ravine.recipes.latent_class",
    "LatentClassAnalysis": "ravine.recipes.latent_class_analysis",
    "LatentTreeClassifier": "ravine.recipes.latent_tree",
    "LatentVariableModel": "ravine.estimator",
    "LearningToExplain": "ravine.recipes.learning_to_explain",
    "LinearDynamicalSystem": "ravine.recipes.linear_dynamical_system",
    "LogLikelihood": "ravine.core",
    "MIWAE": "ravine.recipes.miwae",
    "MixedFactorAnalysis": "ravine.recipes.mixed_factor_analysis",
    "NeuralGenerativeCoding": "ravine.recipes.neural_generative_coding",
    "PredictiveCoding": "ravine.recipes.predictive_coding",
    "PredictiveCodingClassifier": "ravine.recipes.predictive_coding",
    "ProbabilisticPCA": "ravine.recipes.probabilistic_pca",
    "ProductOfExpertsClassifier": "ravine.recipes.product_of_experts",
    "RBM": "ravine.recipes.rbm",
    "Row": "ravine.core",
    "Schema": "ravine.data",
    "SemiSupervisedGumbel": "ravine.recipes.semi_supervised_gumbel",
    "SequenceModel": "ravine.sequence_model",
    "Sequences": "ravine.data",
    "SigmoidBeliefNet": "ravine.recipes.sigmoid_belief_net",
    "SparseCoding": "ravine.recipes.sparse_coding",
    "StackedDenoising": "ravine.recipes.stacked_denoising",
    "Stage": "ravine.train",
    "StructuredPrediction": "ravine.recipes.structured_prediction",
    "UnsupervisedForwardForward": "ravine.recipes.unsupervised_forward_forward",
    "VAE": "ravine.recipes.vae",
    "VariationalFactorAnalysis": "ravine.recipes.factor_analysis",
    "anomalies": "ravine.anomalies",
    "compare": "ravine.compare",
    "dataset_names": "ravine.data",
    "gradient_table": "ravine.diagnose",
    "load": "ravine.registry",
    "load_dataset": "ravine.data",
    "read_table": "ravine.data",
    "report": "ravine.report",
    "synthesize": "ravine.synthesis",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ravine' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
