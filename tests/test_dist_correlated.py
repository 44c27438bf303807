"""Normal vectors: the missing cells given the observed ones, and digits kept where a covariance would lose them."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from ravine.dist import FullGaussian, LowRankGaussian, kl

KEY = jr.key(20260101)
MEAN, X = np.array([0.5, -1.0, 2.0]), np.array([0.3, -2.0, 1.0])
FACTOR = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.5, 0.4, 0.5]])
PATTERNS = list(itertools.product([True, False], repeat=3))
PATTERN = pytest.mark.parametrize("mask", PATTERNS)


def make():
    return FullGaussian(jnp.asarray(MEAN, float), jnp.asarray(FACTOR, float))


def dense_condition(x, mask):
    """Bishop 2006, *Pattern recognition and machine learning*, equations 2.81 and 2.82."""
    covariance = FACTOR @ FACTOR.T
    gain = covariance[np.ix_(~mask, mask)] @ np.linalg.inv(covariance[np.ix_(mask, mask)])
    location, spread = x.copy(), np.zeros_like(covariance)
    location[~mask] = MEAN[~mask] + gain @ (x - MEAN)[mask]
    spread[np.ix_(~mask, ~mask)] = covariance[np.ix_(~mask, ~mask)] - gain @ covariance[np.ix_(mask, ~mask)]
    return location, spread


@pytest.fixture(scope="module")
def condition():
    """Compiled once for all patterns."""
    return eqx.filter_jit(FullGaussian.condition)


@PATTERN
def test_conditioning_is_the_dense_formula(mask, condition, x64):
    mask = np.array(mask)
    want = dense_condition(X, mask)
    got = condition(make(), jnp.asarray(np.where(mask, X, np.nan)), jnp.asarray(mask))
    np.testing.assert_allclose(got.mean(), want[0], atol=1e-12)
    np.testing.assert_allclose(got.factor @ got.factor.T, want[1], atol=1e-12)
    assert np.array_equal(got.factor, np.tril(got.factor))
    assert np.all(np.diagonal(got.factor)[~mask] > 0)
    assert np.array_equal(got.sample(key=KEY)[mask], X[mask])


@PATTERN
def test_joint_is_observed_times_conditional(mask, condition, x64):
    d, x, mask = make(), jnp.asarray(X), jnp.asarray(mask)
    parts = d.log_prob(x, mask) + condition(d, x, mask).log_prob(x, ~mask)
    np.testing.assert_allclose(parts, d.log_prob(x), rtol=1e-12)


def test_conditioning_under_vmap_without_jit_is_the_loop(condition, x64):
    d, patterns = make(), jnp.asarray(PATTERNS)
    xs = jnp.where(patterns, 1.0, jnp.nan)
    together = jax.vmap(d.condition)(xs, patterns)
    for i, (x, mask) in enumerate(zip(xs, patterns, strict=True)):
        alone = condition(d, x, mask)
        np.testing.assert_allclose(together.location[i], alone.location, atol=1e-12)
        np.testing.assert_allclose(together.factor[i], alone.factor, atol=1e-12)


def test_conditioning_is_differentiable_under_every_pattern(x64):
    patterns = jnp.asarray(PATTERNS)
    xs = jnp.where(patterns, 1.0, jnp.nan)

    def f(factor):
        held = jax.vmap(FullGaussian(jnp.asarray(MEAN), factor).condition)(xs, patterns)
        return jnp.sum(jnp.sin(jax.vmap(lambda d: d.sample(key=KEY))(held)))

    turn = np.tril(np.cos(np.arange(9.0).reshape(3, 3)))
    slope = jax.jit(jax.grad(f))(jnp.asarray(FACTOR))
    f = jax.jit(f)
    difference = (f(jnp.asarray(FACTOR + 1e-6 * turn)) - f(jnp.asarray(FACTOR - 1e-6 * turn))) / 2e-6
    assert np.all(np.isfinite(slope))
    np.testing.assert_allclose(np.sum(slope * turn), difference, rtol=1e-6)


def test_conditioning_without_a_mask_holds_everything():
    assert np.array_equal(make().condition(jnp.arange(3.0)).sample(key=KEY), [0, 1, 2])


def test_only_the_lower_triangle_of_a_factor_is_read(x64):
    d, other = make(), FullGaussian(jnp.asarray(MEAN), jnp.asarray(FACTOR + np.triu(np.ones((3, 3)), 1)))
    x, mask = jnp.asarray(X), jnp.array([True, False, True])
    f = jax.jit(lambda d: (d.sample(key=KEY), d.log_prob(x), d.log_prob(x, mask), d.condition(x, mask), kl(d, make())))
    assert eqx.tree_equal(f(d), f(other))


def test_conditioning_keeps_its_digits_when_a_cell_is_nearly_known():
    """The second cell is the first plus noise of 1e-5: in single precision its variance is below the rounding of 1."""
    d = FullGaussian(jnp.zeros(2, "float32"), jnp.array([[1, 0], [1, 1e-5]], "float32"))
    held = d.condition(jnp.array([1.0, 0.0], "float32"), jnp.array([True, False]))
    np.testing.assert_allclose(held.factor[1, 1], 1e-5, rtol=1e-3)
    np.testing.assert_allclose(held.location, [1, 1], rtol=1e-4)


def test_low_rank_keeps_its_digits_when_the_noise_is_small(x64):
    loading = jnp.array([[1.0, 0.2], [-0.5, 0.7], [0.3, -1.1], [0.0, 0.4]])
    d = LowRankGaussian(jnp.zeros(4), loading, jnp.full(4, 1e-4))
    x = loading @ jnp.array([1.0, -0.5]) + 1e-4 * jnp.array([1.0, -1.0, 0.5, 2.0])
    single, value = jax.tree.map(lambda leaf: leaf.astype("float32"), (d, x))
    exact = jax.tree.map(lambda leaf: leaf.astype("float64"), (single, value))
    np.testing.assert_allclose(single.log_prob(value), exact[0].log_prob(exact[1]), rtol=0.02)
