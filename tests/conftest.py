"""Strict settings for every test: no silent broadcasting across ranks, no warnings."""

import jax
import jax.random as jr
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key():
    return jr.key(20260101)


@pytest.fixture
def x64():
    """Double precision inside one test; the setting is restored afterwards."""
    with jax.enable_x64(True):
        yield
