"""Special functions against numpy in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ravine._special import softplus

NEAR = np.geomspace(1e-12, 1, 200)
PLACES = np.concatenate([np.linspace(-80, 120, 4001), NEAR, -NEAR])


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_softplus_to_the_last_places(precision):
    with jax.enable_x64(precision == "float64"):
        x = jnp.asarray(PLACES, precision)
        got, slope = jax.jit(softplus)(x), jax.vmap(jax.grad(softplus))(x)
    exact = np.asarray(x, np.float64)
    assert got.dtype == x.dtype
    np.testing.assert_allclose(got, np.logaddexp(0, exact), rtol=4 * np.finfo(precision).eps)
    np.testing.assert_allclose(slope, 1 / (1 + np.exp(-exact)), rtol=4 * np.finfo(precision).eps)


def test_softplus_far_away():
    assert softplus(jnp.array([-jnp.inf, jnp.inf])).tolist() == [0, np.inf]
    assert np.isnan(softplus(jnp.array(jnp.nan)))
