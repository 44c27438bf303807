"""Strict settings for every test: no silent broadcasting across ranks, no warnings."""

import gc
import os
from pathlib import Path

gc.set_threshold(100_000, 20, 20)  # tracing makes many small objects that stay

# unoptimised machine code compiles several times faster; results agree to rounding
UNOPTIMISED = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {UNOPTIMISED}"

import jax  # noqa: E402
import jax.random as jr  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

# Examples in docstrings that take long to compile; the verbs they show are tested elsewhere too.
DEAR = (
    "LatentClass",
    "LatentTreeClassifier",
    "LearningToExplain",
    "StructuredPrediction",
    "IMLEVAE",
    "MIWAE",
    "SigmoidBeliefNet",
    "HelmholtzMachine",
    "IGRVAE",
    "ConcreteVAE",
    "BoltzmannMachine",
    "DeepBoltzmannMachine",
    "DisentangledRBM",
    "EnergyBased",
    "GaussianRBM",
    "DeepBeliefNet",
    "DeepBeliefClassifier",
    "multiple_impute",
    "anomalies",
    "gradient_table",
    "imputed_interval",
    "ClassificationRBM",
    "SemiSupervisedGumbel",
    "CoupledClassifier",
    "CoupledNetwork",
    "found",
    "activation_maximisation",
    "adversarial_examples",
    "learning_alignment",
    "MonteCarloEM",
    "VariationalEM",
    "MeanFieldInference",
    "RELAX",
)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # what is imported by now is never looked through again


def pytest_collection_modifyitems(items):
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.name.rsplit(".", 1)[-1] in DEAR:
            item.add_marker(pytest.mark.slow)


MAPS = 30_000  # of memory; a process has 65,530 on common systems, and every compiled program maps some


@pytest.fixture(scope="module", autouse=True)
def forget(request):
    """Drop the compiled programs after a file when they have become many; always where slow tests run too."""
    yield
    maps, brief = Path("/proc/self/maps"), request.config.option.markexpr == "not slow"
    if not brief or not maps.exists() or maps.read_bytes().count(b"\n") > MAPS:
        jax.clear_caches()


@pytest.fixture
def forgetful(forget):
    """The same around a single test, however many there are, for those that compile as much as other files do."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture
def key():
    return jr.key(20260101)


@pytest.fixture
def x64():
    """Double precision inside one test; the setting is restored afterwards."""
    with jax.enable_x64(True):
        yield
