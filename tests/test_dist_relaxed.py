"""Relaxed laws, implicit derivatives and subsets: what holds of one of them and not of all laws.

Statistical comparisons are refused beyond 4.5 standard errors, which a correct law fails with probability 7e-6 per
number; about 60 numbers are compared. The seed is fixed.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats as st
from helpers import LIMIT, some

from ravine.dist import (
    IGR,
    BinaryConcrete,
    Concrete,
    ExpConcrete,
    Identity,
    Planar,
    StickBreaking,
    Subset,
    VonMises,
    fit_pmf,
    fit_prior,
    has_kl,
)
from ravine.dist.angles import implicit_slope
from ravine.dist.positive import _gamma_with_slope

KEY = jr.key(20260101)
LOGITS = [[50.0, -50.0, 0.0], [-50.0, -50.0, 50.0], [0.0, 0.0, 0.0]]
RELAXED = {"exp-concrete": ExpConcrete, "concrete": Concrete, "binary-concrete": BinaryConcrete}


def draws(d, n, f=lambda x: x):
    return np.asarray(jax.jit(lambda keys: jax.vmap(lambda k: f(d.sample(key=k)))(keys))(jr.split(KEY, n)))


def shares_z(shares, p, n):
    return np.abs(shares - p) / np.sqrt(np.maximum(p * (1 - p), 1e-9) / n)


# ---- Concrete -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RELAXED)
def test_single_precision_stays_finite_at_every_temperature(name):
    """1e5 draws of three cells at each: the draw, its score, and the gradient through both."""

    def one(logits, temperature, key):
        d = RELAXED[name](logits, temperature)
        y = d.sample(key=key)
        return d.log_prob(y) + jnp.sum(d.relaxed(y)), y

    graded = jax.vmap(jax.value_and_grad(one, argnums=(0, 1), has_aux=True), (None, None, 0))
    run = jax.jit(lambda *args: jax.tree.map(lambda a: jnp.all(jnp.isfinite(a)), graded(*args)))
    for temperature in (1e-4, 0.01, 0.5, 10.0):
        sound = run(jnp.array(LOGITS, "float32"), jnp.float32(temperature), jr.split(KEY, 100_000))
        assert all(jax.tree.leaves(sound)), (temperature, sound)


@pytest.mark.parametrize("temperature", [0.1, 5.0])
def test_the_largest_coordinate_has_the_law_of_the_discrete_cell(temperature):
    d = ExpConcrete(jnp.array([0.0, 1.0, -1.0, 0.5]), temperature)
    shares = np.mean(draws(d, 50_000, lambda y: jax.nn.one_hot(jnp.argmax(y), 4)), axis=0)
    assert np.max(shares_z(shares, np.asarray(d.discrete().mean()), 50_000)) < LIMIT
    b = BinaryConcrete(jnp.array([0.7]), temperature)
    assert shares_z(np.mean(draws(b, 50_000) > 0), float(b.discrete().mean()[0]), 50_000) < LIMIT


def test_relaxed_points_and_names():
    y = jnp.log(jnp.array([0.2, 0.3, 0.5]))
    d = ExpConcrete(jnp.zeros(3), 0.5)
    np.testing.assert_allclose(d.relaxed(y), [0.2, 0.3, 0.5], rtol=1e-6)
    assert not has_kl(d, d)
    with pytest.raises(ValueError, match="temperature of a ExpConcrete"):
        ExpConcrete(jnp.zeros((2, 3)), jnp.ones(3))


def test_two_classes_are_a_binary_cell(x64):
    """log p(y) of two classes in dx1 / (x1 x2) = d logit is that of the logit."""
    y = jax.nn.log_softmax(jnp.array([0.8, -0.4]))
    two = ExpConcrete(jnp.array([0.3, -0.2]), 0.7).log_prob(y)
    np.testing.assert_allclose(two, BinaryConcrete(jnp.array([0.5]), 0.7).log_prob(y[:1] - y[1:]), rtol=1e-12)


@pytest.mark.parametrize("temperature", [1e-3, 1.0])
def test_mean_points_in_their_limits(temperature, x64):
    """Cold: the class probabilities. Two classes at temperature 1: by quadrature over the logistic noise."""
    if temperature < 0.1:
        mean = Concrete(jnp.array([0.0, 1.0, -30.0]), temperature).mean()
        np.testing.assert_allclose(mean, jax.nn.softmax(jnp.array([0.0, 1.0, -30.0])), atol=1e-5)
        return
    u = (np.arange(200_000) + 0.5) / 200_000
    want = np.mean(1 / (1 + np.exp(-0.7) * (1 - u) / u))
    np.testing.assert_allclose(Concrete(jnp.array([0.7, 0.0]), temperature).mean()[0], want, atol=1e-8)


# ---- IGR ------------------------------------------------------------------------------------------------------------

MAPS = {
    "identity": lambda: Identity(2.0),
    "stick-breaking": StickBreaking,
    "planar": lambda: Planar(
        jnp.array([[0.5, -2.0, 1.0]] * 2), jnp.array([[1.0, 0.7, -0.3], [0.2, 1.5, 0.1]]), jnp.ones(2)
    ),
}
LOCATION, SCALE = [0.3, -0.5, 0.8], [0.6, 1.0, 1.5]


@pytest.mark.parametrize("name", some(MAPS, "stick-breaking"))
def test_the_density_of_a_point_is_that_of_the_change_of_variables(name, x64):
    d, y = IGR(jnp.array(LOCATION), jnp.array(SCALE), 0.7, MAPS[name]()), jnp.array([0.4, -0.9, 1.1])
    x = d.relaxed(y)
    jacobian = jax.jacfwd(d.relaxed)(y)[:-1]
    np.testing.assert_allclose(jnp.sum(x), 1, rtol=1e-12)
    np.testing.assert_allclose(d.inverse(x), y, rtol=1e-9)
    want = d.log_prob(y) - jnp.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(d.log_prob_simplex(x), want, rtol=1e-9)
    # and its derivative in the point, also through the inverse that is found by bisection
    slope = jax.jacfwd(d.inverse)(x)
    np.testing.assert_allclose(slope[:, :-1] - slope[:, -1:], jnp.linalg.inv(jacobian), rtol=1e-6, atol=1e-8)


def winners(d):
    """How often each coordinate is the largest, of 4e5 draws."""
    y = d.location[None, None] + d.scale[None, None] * jr.normal(KEY, (400_000, 1, d.location.size))
    best = jnp.argmax(jax.jit(lambda y: d.log_relaxed(y))(y), axis=-1)[:, 0]
    return np.bincount(np.asarray(best), minlength=d.location.size + 1) / 400_000


@pytest.mark.parametrize("name", some(["identity", "stick-breaking"], "identity"))
def test_class_probabilities_are_those_of_draws(name):
    d = IGR(jnp.array(LOCATION), jnp.array(SCALE), 0.3, MAPS[name]())
    shares = winners(d)
    assert np.max(shares_z(shares, np.asarray(d.class_probs()), 400_000)) < LIMIT
    np.testing.assert_allclose(d.discrete().mean(), d.class_probs(), atol=1e-6)


def test_class_probabilities_of_a_planar_map_are_refused():
    with pytest.raises(ValueError, match="expected Identity or StickBreaking as the map, got Planar; count draws"):
        IGR(jnp.zeros(3), jnp.ones(3), 0.5, MAPS["planar"]()).class_probs()


@pytest.mark.slow
def test_a_uniform_prior_is_fitted():
    np.testing.assert_allclose(fit_prior(jnp.full(5, 0.2), 0.5, steps=150).class_probs(), 0.2, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("law", [st.binom(12, 0.3), st.poisson(3)], ids=["binomial", "poisson"])
def test_stick_breaking_fits_a_mass_function(law):
    """By its own class probabilities to 0.01 in total, and by 4e5 draws through softmax++ at temperature 0.01."""
    pmf = law.pmf(np.arange(13))
    pmf = pmf / pmf.sum()
    d = fit_pmf(jnp.asarray(pmf, "float32"), 0.01)
    p = np.asarray(d.class_probs())
    assert np.sum(np.abs(p[:-1] - pmf)) < 0.01
    shares = winners(d)
    assert np.sum(np.abs(shares[:-1] - pmf)) < 0.02


# ---- implicit derivatives -------------------------------------------------------------------------------------------

LEVELS = np.array([1e-4, 0.01, 0.3, 0.7, 0.99])


def quantile_slope(quantile, parameter):
    h = 1e-4 * parameter
    return (quantile(parameter + h) - quantile(parameter - h)) / (2 * h)


@pytest.mark.parametrize("concentration", [0.1, 1.0, 100.0])
def test_gamma_draws_move_as_quantiles_do(concentration, x64):
    log_quantile = lambda c: np.log(st.gamma(c).ppf(LEVELS))  # noqa: E731
    c, one = jnp.full(5, concentration), jnp.ones(5)
    got = jax.jvp(lambda c: _gamma_with_slope(jnp.asarray(log_quantile(concentration)), c), (c,), (one,))[1]
    np.testing.assert_allclose(got, quantile_slope(log_quantile, concentration), rtol=1e-5)


@pytest.mark.parametrize("concentration", [0.01, 1.0, 30.0, 1e5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_von_mises_draws_move_as_quantiles_do(concentration, dtype, x64):
    z = st.vonmises(concentration).ppf(LEVELS)
    got = implicit_slope(jnp.asarray(z, dtype), jnp.full(5, concentration, dtype))
    want = quantile_slope(lambda k: st.vonmises(k).ppf(LEVELS), concentration)
    np.testing.assert_allclose(got, want, rtol=1e-3 if dtype == "float32" else 1e-4)


def test_von_mises_gradients_of_expectations(x64):
    """d/dk E[cos z] = 1/2 (1 + I2/I0) - A^2 by the moments of the law; within 4.5 standard errors."""
    k = jnp.array([0.3, 3.0, 200.0])
    f = lambda k, key: jnp.cos(VonMises(0 * k, k).sample(key=key))  # noqa: E731
    slope = jax.jit(jax.vmap(lambda key: jax.jvp(lambda k: f(k, key), (k,), (jnp.ones(3),))[1]))(jr.split(KEY, 20_000))
    angle = np.linspace(-np.pi, np.pi, 20_001)[:-1, None]
    mass = np.exp(np.asarray(k) * (np.cos(angle) - 1))
    mass = mass / mass.sum(axis=0)
    want = np.sum(mass * np.cos(angle) ** 2, axis=0) - np.sum(mass * np.cos(angle), axis=0) ** 2
    assert np.all(np.abs(np.mean(slope, axis=0) - want) < LIMIT * np.std(slope, axis=0) / len(slope) ** 0.5)


@pytest.mark.parametrize("concentration", [1e-3, 1.0, 1e6])
def test_von_mises_draws_have_their_law_in_single_precision(concentration):
    """Kolmogorov-Smirnov, refused below p = 1e-5; at high concentration draws must still be distinct."""
    z = draws(VonMises(jnp.zeros(1), jnp.full(1, concentration)), 20_000)[:, 0]
    assert st.kstest(z.astype(float), st.vonmises(concentration).cdf).pvalue > 1e-5
    assert len(np.unique(z)) > 19_000


# ---- subsets --------------------------------------------------------------------------------------------------------


def test_subsets_by_enumeration(x64):
    logits = jnp.asarray(2 * np.random.default_rng(0).normal(size=6))
    d = Subset(logits, 3)
    support = d.support()
    mass = jax.vmap(d.log_prob)(support)
    direct = jax.nn.log_softmax(support @ logits)
    np.testing.assert_allclose(mass, direct, rtol=1e-12)
    np.testing.assert_allclose(d.mode(), support[np.argmax(direct)])
    wanted = jax.jacrev(lambda free: jax.nn.softmax(support @ free) @ support)(logits)
    np.testing.assert_allclose(jax.jacrev(lambda free: Subset(free, 3).mean())(logits), wanted, atol=1e-12)
    z = draws(d, 50_000)
    codes = (z @ 2.0 ** np.arange(6)).astype(int)
    shares = np.bincount(codes, minlength=64)[(np.asarray(support) @ 2.0 ** np.arange(6)).astype(int)] / len(z)
    assert np.max(shares_z(shares, np.exp(direct), len(z))) < LIMIT


@pytest.mark.parametrize("n, k", [(2, 1), (3, 2), (5, 2)])
def test_the_slope_of_a_mean_is_right_where_logits_are_equal(n, k, x64):
    """The second derivative of ``jnp.logaddexp`` is wrong at ties."""
    support = Subset(jnp.zeros(n), k).support()
    wanted = np.cov(support, rowvar=False, bias=True)  # all subsets are equally likely
    np.testing.assert_allclose(jax.jacrev(lambda free: Subset(free, k).mean())(jnp.zeros(n)), wanted, atol=1e-12)


@pytest.mark.parametrize("k", [0, 1, 5, 6])
def test_draws_have_exactly_k_items_at_extreme_logits_in_single_precision(k):
    d = Subset(jnp.array([[50.0, -50.0, 50.0, -50.0, 0.0, 50.0]] * 2, "float32"), k)
    z = draws(d, 2000)
    assert np.all(z.sum(axis=-1) == k)
    score = jax.value_and_grad(lambda logits, z: Subset(logits, k).log_prob(z))
    for part in (*jax.vmap(score, (None, 0))(d.logits, z[:50]), d.mean()):
        assert np.all(np.isfinite(part))
    np.testing.assert_allclose(d.mean().sum(axis=-1), k, rtol=1e-4)


@pytest.mark.slow
def test_an_impossible_part_of_a_subset_has_no_mass():
    d, seen = Subset(jnp.zeros(3), 2), jnp.array([True, True, False])
    assert d.log_prob(jnp.array([0.0, 0.0, 0.0]), seen) == -jnp.inf
    with pytest.raises(ValueError, match="k of a Subset must be from 0 to 3"):
        Subset(jnp.zeros(3), 4)
