"""Recipes by name: for the shell, and for loading what was saved."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ravine._check import Complaint, complaint, one_line, shown, translated
from ravine._spell import kebab, spell
from ravine.registry.grammar import parse
from ravine.registry.names import fits, hint_text, hints, suited, unknown

RECIPES: Mapping[str, tuple[str, str]] = {
    "boltzmann-machine": ("ravine.recipes.boltzmann_machine", "BoltzmannMachine"),
    "classification-rbm": ("ravine.recipes.classification_rbm", "ClassificationRBM"),
    "concrete-vae": ("ravine.recipes.concrete_vae", "ConcreteVAE"),
    "contractive-autoencoder": ("ravine.recipes.contractive_autoencoder", "ContractiveAutoencoder"),
    "coupled-classifier": ("ravine.recipes.coupled_network", "CoupledClassifier"),
    "coupled-network": ("ravine.recipes.coupled_network", "CoupledNetwork"),
    "deep-belief-classifier": ("ravine.recipes.deep_belief_net", "DeepBeliefClassifier"),
    "deep-belief-net": ("ravine.recipes.deep_belief_net", "DeepBeliefNet"),
    "deep-boltzmann-machine": ("ravine.recipes.deep_boltzmann_machine", "DeepBoltzmannMachine"),
    "denoising-autoencoder": ("ravine.recipes.stacked_denoising", "DenoisingAutoencoder"),
    "disentangled-rbm": ("ravine.recipes.disentangled_rbm", "DisentangledRBM"),
    "energy-based": ("ravine.recipes.energy_based", "EnergyBased"),
    "energy-classifier": ("ravine.recipes.energy_based", "EnergyClassifier"),
    "factor-analysis": ("ravine.recipes.factor_analysis", "FactorAnalysis"),
    "forward-forward": ("ravine.recipes.forward_forward", "ForwardForward"),
    "gaussian-mixture": ("ravine.recipes.gaussian_mixture", "GaussianMixture"),
    "gaussian-rbm": ("ravine.recipes.gaussian_rbm", "GaussianRBM"),
    "gumbel-vae": ("ravine.recipes.gumbel_vae", "GumbelVAE"),
    "helmholtz-machine": ("ravine.recipes.helmholtz_machine", "HelmholtzMachine"),
    "hidden-markov-model": ("ravine.recipes.hidden_markov_model", "HiddenMarkovModel"),
    "igrvae": ("ravine.recipes.igr_vae", "IGRVAE"),
    "imlevae": ("ravine.recipes.imle_vae", "IMLEVAE"),
    "latent-class": ("ravine.recipes.latent_class", "LatentClass"),
    "latent-class-analysis": ("ravine.recipes.latent_class_analysis", "LatentClassAnalysis"),
    "latent-tree-classifier": ("ravine.recipes.latent_tree", "LatentTreeClassifier"),
    "linear-dynamical-system": ("ravine.recipes.linear_dynamical_system", "LinearDynamicalSystem"),
    "miwae": ("ravine.recipes.miwae", "MIWAE"),
    "mixed-factor-analysis": ("ravine.recipes.mixed_factor_analysis", "MixedFactorAnalysis"),
    "neural-generative-coding": ("ravine.recipes.neural_generative_coding", "NeuralGenerativeCoding"),
    "predictive-coding": ("ravine.recipes.predictive_coding", "PredictiveCoding"),
    "predictive-coding-classifier": ("ravine.recipes.predictive_coding", "PredictiveCodingClassifier"),
    "probabilistic-pca": ("ravine.recipes.probabilistic_pca", "ProbabilisticPCA"),
    "rbm": ("ravine.recipes.rbm", "RBM"),
    "semi-supervised-gumbel": ("ravine.recipes.semi_supervised_gumbel", "SemiSupervisedGumbel"),
    "sigmoid-belief-net": ("ravine.recipes.sigmoid_belief_net", "SigmoidBeliefNet"),
    "sparse-coding": ("ravine.recipes.sparse_coding", "SparseCoding"),
    "stacked-denoising": ("ravine.recipes.stacked_denoising", "StackedDenoising"),
    "structured-prediction": ("ravine.recipes.structured_prediction", "StructuredPrediction"),
    "unsupervised-forward-forward": ("ravine.recipes.unsupervised_forward_forward", "UnsupervisedForwardForward"),
    "vae": ("ravine.recipes.vae", "VAE"),
    "variational-factor-analysis": ("ravine.recipes.factor_analysis", "VariationalFactorAnalysis"),
}
CLASSIFIERS: Mapping[str, tuple[str, str]] = {}  # networks from a row to its class: no models of rows
EXPLAINERS: Mapping[str, tuple[str, str]] = {  # neither: they can be loaded, but are not for the shell
    "learning-to-explain": ("ravine.recipes.learning_to_explain", "LearningToExplain"),
    "product-of-experts-classifier": ("ravine.recipes.product_of_experts", "ProductOfExpertsClassifier"),
}

STUDIES: Mapping[str, str] = {
    "bars-and-stripes": "ravine.studies.bars_and_stripes",
    "disentangled": "ravine.studies.disentangled",
    "experts": "ravine.studies.experts",
    "few-labels": "ravine.studies.few_labels",
    "local-learning": "ravine.studies.local_learning",
    "one-bit": "ravine.studies.one_bit",
    "prototypes": "ravine.studies.prototypes",
}  # no models; `ravine reproduce` runs them


def recipes() -> dict[str, tuple[str, str]]:
    """Every recipe: its name in the shell, and the module and class it lives in. Imports nothing.

    Examples
    --------
    >>> recipes()["vae"]
    ('ravine.recipes.vae', 'VAE')
    """
    return {**RECIPES, **CLASSIFIERS}


def recipe(name: str) -> Any:
    """The class of a recipe, such as ``recipe("vae")``.

    Raises
    ------
    ValueError
        When there is none of this name; the line lists the closest.
    """
    return _class(*home(name))


def study(name: str) -> ModuleType:
    """The module of a study, which must be in `STUDIES`.

    Examples
    --------
    >>> list(study("one-bit").SCALES)
    ['small', 'close']
    """
    return importlib.import_module(STUDIES[name])


def home(name: str) -> tuple[str, str]:
    """The module and class of a recipe; raises like `recipe`."""
    known = recipes()
    if name not in known:
        raise unknown("recipe", name, known, kebab(name[:99]), "choose one; `ravine list` shows all")
    return known[name]


def _class(module: str, attribute: str) -> Any:
    return getattr(importlib.import_module(module), attribute)


def made(name: str, settings: Mapping[str, Any], **others: Any) -> Any:
    """A recipe with these fields; one that is given as text is read by the grammar of `ravine.registry.parse`.

    ``others`` are fields as they are; ``settings`` win over them.

    Raises
    ------
    ValueError
        When there is no such recipe or field, a text is outside the grammar, or its value is of another type.
    """
    cls = recipe(name)
    fields = {field: _setting(name, cls, field, value) for field, value in settings.items()}
    return cls(**others | fields)


def _setting(name: str, cls: type, field: str, value: Any) -> Any:
    _check_field(name, cls, field)
    if not isinstance(value, str):
        return value
    hint = hints(cls).get(field, Any)
    with _prefixed(f"{name}, {field}"):
        value = parse(value, expects=hint)
    if not fits(value, hint):
        raise complaint(f"{name}, {field}", hint_text(hint), shown(value), "change the value")
    return suited(value, hint)


def _check_field(name: str, cls: type, field: str) -> None:
    known = inspect.signature(cls).parameters
    if field not in known:
        raise unknown(f"field of {name}", field, known, do=f"choose one; `ravine info {name}` shows all")


def reading(name: str, hints_of_data: Mapping[str, Any]) -> dict[str, Any]:
    """What a data set says of itself, as far as the recipe has fields for it: kind, levels, binarise, ..."""
    known = inspect.signature(recipe(name)).parameters
    return {field: value for field, value in hints_of_data.items() if field in known}


def load(folder: str | os.PathLike[str]) -> Any:
    """The fitted estimator that was saved in a folder. Reads arrays and JSON; runs nothing that the files name.

    Raises
    ------
    ValueError
        One line: no run folder, damaged or edited files, a newer format, an unknown recipe, part or field.
    """
    from ravine.checkpoint import RECIPE, load_record

    record, path = load_record(folder), Path(folder) / RECIPE
    with _prefixed(str(path)):
        cls = _class(*(EXPLAINERS.get(record["recipe"]) or home(record["recipe"])))
        for field in record["fields"]:
            _check_field(record["recipe"], cls, field)
        fields = {field: _read(cls, field, text) for field, text in record["fields"].items()}
    with translated(str(path), "the record of a fitted model", "restore the folder from a copy, or fit and save again"):
        return cls._restore(record, fields, Path(folder))


def _read(cls: type, field: str, text: str) -> Any:
    """The value of a text; the default itself where it says the same, so that it prints as what was not chosen."""
    default = inspect.signature(cls).parameters[field].default
    value = parse(text)
    return default if spell(value, defaults=True) == spell(default, defaults=True) else value


@contextlib.contextmanager
def _prefixed(where: str) -> Iterator[None]:
    """Say where a complaint of the body comes from."""
    try:
        yield
    except Complaint as error:
        raise Complaint(one_line(f"{where}: {error}")) from error.__cause__
