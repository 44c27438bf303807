"""Strict settings for every test: no silent broadcasting across ranks, no warnings."""

import os

# unoptimised machine code compiles several times faster; results agree to rounding
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=1"

import jax  # noqa: E402
import jax.random as jr  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key():
    return jr.key(20260101)


@pytest.fixture
def x64():
    """Double precision inside one test; the setting is restored afterwards."""
    with jax.enable_x64(True):
        yield
