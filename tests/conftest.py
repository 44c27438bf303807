"""Strict settings for every test: no silent broadcasting across ranks, no warnings."""

import gc
import os

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
    "MIWAE",
    "SigmoidBeliefNet",
    "IGRVAE",
    "ConcreteVAE",
    "multiple_impute",
    "anomalies",
    "gradient_table",
    "imputed_interval",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.name.rsplit(".", 1)[-1] in DEAR:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def forget():
    """Drop the compiled programs of a file when it is done: each maps memory, and a process has only so many maps."""
    yield
    jax.clear_caches()


@pytest.fixture
def forgetful(forget):
    """The same after a single test, for those that compile as much as other files do."""
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
