"""Distributions: a table of laws times what must hold of every law.

Each statistical comparison is refused beyond 4.5 standard errors, which a correct law fails with probability 7e-6 per
number; about 150 numbers are compared, so a fresh seed would fail once in a thousand runs. The seed is fixed.
"""

import itertools
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as nd
import pytest
import scipy.stats as st
from scipy.special import expit, log_softmax

from ravine.core import AbstractDiscrete, AbstractReparametrised
from ravine.dist import (
    Ancestral,
    Bernoulli,
    Binomial,
    Bits,
    Classes,
    Conditional,
    ContinuousBernoulli,
    Counts,
    FullGaussian,
    Gaussian,
    HeavyTailed,
    Homoscedastic,
    Levels,
    LowRankGaussian,
    Numpyro,
    NumpyroReparametrised,
    OneHot,
    Poisson,
    Real,
    StudentT,
    UnitInterval,
    has_kl,
    kl,
    kl_cells,
    kl_cells_formula,
    kl_formula,
)
from ravine.dist.continuous import log_partition

A, B = np.array([0.5, -1.0, 2.0]), np.array([0.7, 1.5, 0.3])
FACTOR = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.5, 0.4, 0.5]])
LOADING = np.array([[1.0, 0.2], [-0.5, 0.7], [0.3, -1.1]])


def a(values):
    """An array of the default float type."""
    return jnp.asarray(values, float)


def cells(log_density):
    """Marginal of independent cells: the missing ones are dropped."""
    return lambda d, x, mask: np.sum(log_density(d, x)[mask])


def vector(d):
    """Mean and covariance of a normal vector, dense."""
    if isinstance(d, Gaussian):
        return np.asarray(d.location), np.diag(np.asarray(d.scale) ** 2)
    if isinstance(d, FullGaussian):
        return np.asarray(d.location), np.asarray(d.factor @ d.factor.T)
    return np.asarray(d.location), np.asarray(d.loading @ d.loading.T + jnp.diag(d.scale**2))


def sub_block(d, x, mask):
    mean, covariance = vector(d)
    if not mask.any():
        return 0.0
    return st.multivariate_normal.logpdf(x[mask], mean[mask], covariance[np.ix_(mask, mask)])


def continuous_bernoulli(d, x):
    """In the paper's notation, with the rate instead of the logit."""
    rate = expit(np.asarray(d.logits))
    return x * np.log(rate) + (1 - x) * np.log1p(-rate) + np.log(2 * np.arctanh(1 - 2 * rate) / (1 - 2 * rate))


def continuous_bernoulli_variance(d):
    logits = np.asarray(d.logits)
    return 1 / logits**2 - 0.25 / np.sinh(logits / 2) ** 2


def one_hot(d, x, mask):
    return np.sum((x * log_softmax(np.asarray(d.logits), axis=-1))[mask])


class Law(NamedTuple):
    """How to make a distribution, an independent log density of its observed cells, its variance."""

    make: Callable
    log_prob: Callable
    variance: Callable


LAWS = {
    "gaussian": Law(
        lambda: Gaussian(a(A), a(B)), cells(lambda d, x: st.norm.logpdf(x, d.location, d.scale)), lambda d: d.scale**2
    ),
    "gaussian-matrix": Law(
        lambda: Gaussian(a([[0.1, 2.0], [-1.0, 0.0]]), a([[1.0, 0.1], [3.0, 0.5]])),
        cells(lambda d, x: st.norm.logpdf(x, d.location, d.scale)),
        lambda d: d.scale**2,
    ),
    "full-gaussian": Law(lambda: FullGaussian(a(A), a(FACTOR)), sub_block, lambda d: np.diag(vector(d)[1])),
    "low-rank-gaussian": Law(
        lambda: LowRankGaussian(a(A), a(LOADING), a(B)), sub_block, lambda d: np.diag(vector(d)[1])
    ),
    "student-t": Law(
        lambda: StudentT(a(A), a(B), a([12.0, 15.0, 30.0])),
        cells(lambda d, x: st.t.logpdf(x, d.freedom, d.location, d.scale)),
        lambda d: d.scale**2 * d.freedom / (d.freedom - 2),
    ),
    "continuous-bernoulli": Law(
        lambda: ContinuousBernoulli(a([-3.0, 0.3, 0.01, 40.0])),
        cells(continuous_bernoulli),
        continuous_bernoulli_variance,
    ),
    "bernoulli": Law(
        lambda: Bernoulli(a([[-2.0, 0.0, 0.5], [3.0, 1.0, -1.0]])),
        cells(lambda d, x: st.bernoulli.logpmf(x, expit(np.asarray(d.logits)))),
        lambda d: d.mean() * (1 - d.mean()),
    ),
    "one-hot": Law(lambda: OneHot(a([0.0, 1.0, -1.0])), one_hot, lambda d: d.mean() * (1 - d.mean())),
    "one-hots": Law(
        lambda: OneHot(a([[0.0, 1.0, -1.0], [2.0, 0.0, 0.5]])), one_hot, lambda d: d.mean() * (1 - d.mean())
    ),
    "binomial": Law(
        lambda: Binomial(a([-2.0, 0.0, 1.5]), 7),
        cells(lambda d, x: st.binom.logpmf(x, d.total, expit(np.asarray(d.logits)))),
        lambda d: d.mean() * (1 - d.mean() / d.total),
    ),
    "poisson": Law(
        lambda: Poisson(a([-1.0, 0.5, 3.0])),
        cells(lambda d, x: st.poisson.logpmf(x, np.exp(d.log_rate))),
        lambda d: np.exp(d.log_rate),
    ),
    "numpyro-laplace": Law(
        lambda: NumpyroReparametrised(nd.Laplace, {"loc": a(A), "scale": a(B)}),
        cells(lambda d, x: st.laplace.logpdf(x, d.parameters["loc"], d.parameters["scale"])),
        lambda d: 2 * d.parameters["scale"] ** 2,
    ),
    "numpyro-gamma": Law(
        lambda: Numpyro(nd.Gamma, {"concentration": a([2.0, 0.9]), "rate": a([1.0, 3.0])}),
        cells(lambda d, x: st.gamma.logpdf(x, d.parameters["concentration"], scale=1 / d.parameters["rate"])),
        lambda d: d.parameters["concentration"] / d.parameters["rate"] ** 2,
    ),
}
LAW = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
REPARAMETRISED = pytest.mark.parametrize(
    "law",
    [law for law in LAWS.values() if isinstance(law.make(), AbstractReparametrised)],
    ids=[name for name, law in LAWS.items() if isinstance(law.make(), AbstractReparametrised)],
)
KEY = jr.key(20260101)


def draws(d, n, key=KEY):
    return eqx.filter_jit(lambda d: jax.vmap(lambda k: d.sample(key=k))(jr.split(key, n)))(d)


def masks(d, x, n=6):
    """Everything, nothing, and random masks; a one-hot vector is seen or missing whole."""
    shape = (*x.shape[:-1], 1) if isinstance(d, OneHot) else x.shape
    some = [np.random.default_rng(i).random(shape) < 0.5 for i in range(n)]
    return [np.broadcast_to(m, x.shape) for m in (np.ones(shape, bool), np.zeros(shape, bool), *some)]


def finite(tree):
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree))


def z_scores(samples, expected):
    error = np.std(samples, axis=0) / np.sqrt(len(samples))
    return np.abs(np.mean(samples, axis=0) - expected) / np.maximum(error, 1e-12)


# ---- every law ------------------------------------------------------------------------------------------------------


@LAW
def test_log_prob_is_that_of_an_independent_implementation(law, x64):
    d = law.make()
    for x in draws(d, 20):
        want = law.log_prob(d, np.asarray(x), np.ones(x.shape, bool))
        np.testing.assert_allclose(d.log_prob(x), want, rtol=1e-9, atol=1e-9)


@LAW
def test_masked_log_prob_is_the_marginal(law, x64):
    d = law.make()
    x = np.asarray(d.sample(key=KEY))
    for mask in masks(d, x):
        holed = jnp.asarray(np.where(mask, x, np.nan))
        got = d.log_prob(holed, jnp.asarray(mask))
        np.testing.assert_allclose(got, law.log_prob(d, x, mask), rtol=1e-9, atol=1e-9)
        if not mask.any():
            assert got == 0


@LAW
def test_gradient_is_blind_to_what_hides_under_the_mask(law, x64):
    d = law.make()
    x = np.asarray(d.sample(key=KEY))
    for mask in masks(d, x):
        score = eqx.filter_grad(lambda dx, mask: dx[0].log_prob(dx[1], mask))
        unseen, other = (score((d, jnp.asarray(np.where(mask, x, hole))), jnp.asarray(mask)) for hole in (np.nan, 1))
        assert finite(unseen)
        assert eqx.tree_equal(unseen, other)
        assert np.all(np.asarray(unseen[1])[~mask] == 0)


@LAW
def test_draws_have_the_mean_and_the_variance(law, x64):
    d = law.make()
    samples = np.asarray(draws(d, 20_000))
    assert np.max(z_scores(samples, np.asarray(d.mean()))) < 4.5
    squares = (samples - np.asarray(d.mean())) ** 2
    assert np.max(z_scores(squares, np.asarray(law.variance(d)))) < 4.5


@LAW
def test_vmap_equals_a_loop_and_jit_equals_eager(law, x64):
    d = law.make()
    xs, keys = draws(d, 4), jr.split(KEY, 4)
    moved = jax.tree.map(lambda leaf: jnp.stack([leaf * (1 - 0.1 * i) for i in range(4)]), d)
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], moved) for i in range(4)]
    got = jax.vmap(lambda d, x, k: (d.log_prob(x), d.sample(key=k), d.mean()))(moved, xs, keys)
    for i, one in enumerate(each):
        want = one.log_prob(xs[i]), one.sample(key=keys[i]), one.mean()
        jitted = eqx.filter_jit(lambda d, x, k: (d.log_prob(x), d.sample(key=k), d.mean()))(one, xs[i], keys[i])
        for g, w, j in zip(got, want, jitted, strict=True):
            np.testing.assert_allclose(g[i], w, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(j, w, rtol=1e-12, atol=1e-12)


@LAW
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_type_of_the_numbers_is_that_of_the_parameters(law, dtype):
    with jax.enable_x64(True):
        d = jax.tree.map(lambda leaf: leaf.astype(dtype), law.make())
        x = d.sample(key=KEY)
        mask = jnp.zeros(x.shape, bool).at[0].set(True)
        numbers = (x, d.log_prob(x), d.log_prob(x, mask), d.mean())
        assert {n.dtype.name for n in numbers} == {dtype}
        assert x.shape == d.mean().shape


@LAW
def test_a_value_of_another_shape_is_refused(law):
    d = law.make()
    x = d.sample(key=KEY)
    with pytest.raises(ValueError, match="shape"):
        d.log_prob(jnp.stack([x, x]))
    with pytest.raises(ValueError, match="shape"):
        d.log_prob(x, jnp.ones((2, *x.shape), bool))


# ---- densities are normalised ---------------------------------------------------------------------------------------


def line(cells):
    """Points and weights that integrate over the whole of R^cells, by x = tan(angle)."""
    angle, weight = np.polynomial.legendre.leggauss(400 if cells == 1 else 160)
    angle, weight = angle * np.pi / 2, weight * np.pi / 2
    weight = weight * (1 + np.tan(angle) ** 2)
    points = np.stack(np.meshgrid(*[np.tan(angle)] * cells), -1).reshape(-1, cells)
    return points, np.prod(np.stack(np.meshgrid(*[weight] * cells), -1).reshape(-1, cells), -1)


def interval():
    x, weight = np.polynomial.legendre.leggauss(200)
    return (x[:, None] + 1) / 2, weight / 2


def naturals():
    return np.arange(200.0)[:, None], np.ones(200)


MASSES = {
    "gaussian": (lambda: Gaussian(a(A[:1]), a(B[:1])), lambda: line(1)),
    "full-gaussian": (lambda: FullGaussian(a(A[:2]), a(FACTOR[:2, :2])), lambda: line(2)),
    "low-rank-gaussian": (lambda: LowRankGaussian(a(A[:2]), a(LOADING[:2]), a(B[:2])), lambda: line(2)),
    "student-t": (lambda: StudentT(a(A[:1]), a(B[:1]), a([2.5])), lambda: line(1)),
    "continuous-bernoulli": (lambda: ContinuousBernoulli(a([2.0])), interval),
    "continuous-bernoulli-small": (lambda: ContinuousBernoulli(a([-0.2])), interval),
    "poisson": (lambda: Poisson(a([1.0])), naturals),
}


@pytest.mark.parametrize("name", MASSES)
def test_the_density_integrates_to_one_and_to_the_mean(name, x64):
    d, (points, weights) = MASSES[name][0](), MASSES[name][1]()
    density = np.exp(jax.vmap(d.log_prob)(jnp.asarray(points))) * weights
    np.testing.assert_allclose(np.sum(density), 1, atol=1e-6)
    if name != "student-t":  # its tails are cut too soon for a first moment
        np.testing.assert_allclose(density @ points, d.mean(), atol=1e-6)


@pytest.mark.parametrize("name", [n for n, law in LAWS.items() if isinstance(law.make(), AbstractDiscrete)])
def test_the_support_lists_everything_once(name, x64):
    d = LAWS[name].make()
    support = d.support()
    mass = np.exp(jax.vmap(d.log_prob)(support))
    assert len(np.unique(np.asarray(support).reshape(len(support), -1), axis=0)) == len(support)
    np.testing.assert_allclose(np.sum(mass), 1, atol=1e-12)
    np.testing.assert_allclose(np.tensordot(mass, support, 1), d.mean(), atol=1e-12)


@pytest.mark.parametrize("d", [Bernoulli(jnp.zeros(21)), OneHot(jnp.zeros((7, 8))), Binomial(jnp.zeros(3), 127)])
def test_a_support_beyond_two_to_the_twenty_is_refused(d):
    with pytest.raises(ValueError, match=r"at most 2\^20"):
        d.support()


def test_a_support_of_one_million_is_listed():
    assert Bernoulli(jnp.zeros((4, 5))).support().shape == (2**20, 4, 5)


# ---- gradients through draws ----------------------------------------------------------------------------------------


def directional(f, d, eps=1e-6):
    """Finite difference of f along a fixed direction, and the same by differentiation."""
    leaves, tree = jax.tree.flatten(d)
    turn = [0.1 * jr.normal(jr.key(i), leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)]
    step = lambda t: f(jax.tree.unflatten(tree, [leaf + t * v for leaf, v in zip(leaves, turn, strict=True)]))  # noqa: E731
    return (step(eps) - step(-eps)) / (2 * eps), jax.grad(step)(0.0)


@REPARAMETRISED
def test_pathwise_gradient_is_the_derivative_of_the_draw(law, x64):
    f = jax.jit(lambda d: jnp.sum(jnp.sin(jax.vmap(lambda k: d.sample(key=k))(jr.split(KEY, 50)))))
    difference, derivative = directional(f, law.make())
    np.testing.assert_allclose(derivative, difference, rtol=1e-5, atol=1e-6)


@REPARAMETRISED
def test_pathwise_gradient_is_that_of_the_mean(law, x64):
    d = law.make()
    weight = jnp.arange(1.0, 1 + d.mean().size).reshape(d.mean().shape)
    draw = eqx.filter_grad(lambda d, k: jnp.sum(weight * d.sample(key=k)))
    each = eqx.filter_jit(jax.vmap(draw, in_axes=(None, 0)))(d, jr.split(KEY, 4000))
    want = eqx.filter_grad(lambda d: jnp.sum(weight * d.mean()))(d)
    for got, exact in zip(jax.tree.leaves(each), jax.tree.leaves(want), strict=True):
        spread = np.std(got, axis=0) > 0
        np.testing.assert_allclose(np.mean(got, axis=0)[~spread], np.asarray(exact)[~spread], atol=1e-9)
        assert np.all(z_scores(np.asarray(got), np.asarray(exact))[spread] < 4.5)


# ---- single precision at the edge -----------------------------------------------------------------------------------

EXTREMES = {
    "bernoulli": (Bernoulli, [0.0, 1.0]),
    "binomial": (lambda logits: Binomial(logits, 255), [0.0, 255.0]),
    "continuous-bernoulli": (ContinuousBernoulli, [0.0, 1.0]),
    "one-hot": (OneHot, [0.0, 1.0]),
    "poisson": (Poisson, [0.0, 9.0]),
}


@pytest.mark.parametrize("size", [40.0, -40.0, 0.0])
@pytest.mark.parametrize("name", EXTREMES)
def test_single_precision_stays_finite_at_extreme_logits(name, size):
    make, values = EXTREMES[name]
    for first, second in itertools.product(values, values):
        x, logits = jnp.array([first, second], "float32"), jnp.array([size, -size], "float32")
        value, slope = jax.value_and_grad(lambda p, x=x: make(p).log_prob(x))(logits)
        assert finite((value, slope))
        assert finite(jax.grad(lambda p: jnp.sum(make(p).mean()))(logits))
    assert finite(draws(make(logits), 1000))


@pytest.mark.parametrize("size", [40.0, 1e-3, 0.0])
def test_continuous_bernoulli_draws_have_finite_gradients_in_single_precision(size):
    logits = jnp.array([size, -size], "float32")
    slope = jax.jacobian(lambda p: jax.vmap(lambda k: ContinuousBernoulli(p).sample(key=k))(jr.split(KEY, 2000)))
    assert finite(slope(logits))


def test_likely_bits_keep_their_digits():
    logits = jnp.array([20.0, -20.0], "float32")
    np.testing.assert_allclose(Bernoulli(logits).log_prob(jnp.array([1.0, 0.0])), -2 * np.log1p(np.exp(-20)), rtol=1e-5)


# ---- particular laws ------------------------------------------------------------------------------------------------

GOLDEN = {
    0.1: 1.010338559490854,
    0.3: 0.7505877508804588,
    0.499: 0.6931485138955898,
    0.5: 0.6931471805599453,
    0.9: 1.010338559490854,
}


@pytest.mark.parametrize("rate", GOLDEN)
def test_continuous_bernoulli_normaliser(rate, x64):
    logit = jnp.log(rate) - jnp.log1p(-rate)
    np.testing.assert_allclose(jax.nn.softplus(logit) - log_partition(logit), GOLDEN[rate], rtol=1e-12)


@pytest.mark.parametrize("edge", [0.5, -0.5, 0.0])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_continuous_bernoulli_normaliser_is_smooth_across_its_branches(edge, order, x64):
    f = log_partition
    for _ in range(order):
        f = jax.grad(f)
    np.testing.assert_allclose(f(jnp.asarray(edge - 1e-9)), f(jnp.asarray(edge + 1e-9)), atol=1e-8)


@pytest.mark.parametrize("edge", [0.02, -0.02, 0.0])
def test_continuous_bernoulli_draw_is_smooth_across_its_branches(edge, x64):
    draw = lambda logit: ContinuousBernoulli(jnp.full(100, logit)).sample(key=KEY)  # noqa: E731
    for f in (draw, jax.jacfwd(draw)):
        np.testing.assert_allclose(f(jnp.asarray(edge - 1e-9)), f(jnp.asarray(edge + 1e-9)), atol=1e-6)


@pytest.mark.parametrize("name", ["bernoulli", "one-hot", "one-hots"])
def test_discrete_log_prob_is_linear_in_the_value(name, x64):
    d = LAWS[name].make()
    support = d.support()
    share = jax.nn.softmax(jr.normal(KEY, (len(support),)))
    mixed = share @ jax.vmap(d.log_prob)(support)
    np.testing.assert_allclose(d.log_prob(jnp.tensordot(share, support, 1)), mixed, rtol=1e-12)


@pytest.mark.parametrize("name", ["bernoulli", "one-hots", "binomial", "poisson"])
@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_integers_and_flags_are_values_too(name, dtype):
    d = LAWS[name].make()
    x = jnp.minimum(d.sample(key=KEY), 1)
    assert d.log_prob(x.astype(dtype)) == d.log_prob(x)


def test_a_one_hot_mask_may_lack_the_classes():
    d = LAWS["one-hots"].make()
    x, mask = d.sample(key=KEY), jnp.array([True, False])
    assert d.log_prob(x, mask) == d.log_prob(x, jnp.array([[True] * 3, [True, False, True]]))
    assert d.log_prob(x, mask) != d.log_prob(x)


def test_student_t_has_a_mean_only_above_one_degree_of_freedom():
    d = StudentT(jnp.ones(2), jnp.ones(2), jnp.array([1.0, 1.5]))
    assert np.array_equal(np.isnan(d.mean()), [True, False])


def test_large_poisson_rates_are_drawn():
    assert jnp.all(Poisson(jnp.array([20.0, 50.0, 88.0])).sample(key=KEY) > 1e8)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussian(jnp.zeros(2), jnp.ones(3)),
        lambda: StudentT(jnp.zeros(2), jnp.ones(2), jnp.ones(1)),
        lambda: FullGaussian(jnp.zeros(2), jnp.eye(3)),
        lambda: LowRankGaussian(jnp.zeros(2), jnp.ones((3, 1)), jnp.ones(2)),
    ],
)
def test_parameters_that_do_not_agree_are_refused(make):
    with pytest.raises((ValueError, TypeError)):  # TypeError is the type checker's, which looks first in tests
        make()


# ---- a vector given some of its cells -------------------------------------------------------------------------------


PATTERNS = list(itertools.product([True, False], repeat=3))
PATTERN = pytest.mark.parametrize("mask", PATTERNS)


def dense_condition(mean, covariance, x, mask):
    """Bishop 2006, equations 2.81 and 2.82."""
    gain = covariance[np.ix_(~mask, mask)] @ np.linalg.inv(covariance[np.ix_(mask, mask)])
    location, spread = x.copy(), np.zeros_like(covariance)
    location[~mask] = mean[~mask] + gain @ (x - mean)[mask]
    spread[np.ix_(~mask, ~mask)] = covariance[np.ix_(~mask, ~mask)] - gain @ covariance[np.ix_(mask, ~mask)]
    return location, spread


@PATTERN
def test_conditioning_is_the_dense_formula(mask, x64):
    d, x, mask = LAWS["full-gaussian"].make(), np.array([0.3, -2.0, 1.0]), np.array(mask)
    want = dense_condition(*vector(d), x, mask)
    holed, seen = jnp.asarray(np.where(mask, x, np.nan)), jnp.asarray(mask)
    for condition in (FullGaussian.condition, eqx.filter_jit(FullGaussian.condition)):
        got = condition(d, holed, seen)
        np.testing.assert_allclose(got.mean(), want[0], atol=1e-12)
        np.testing.assert_allclose(got.factor @ got.factor.T, want[1], atol=1e-12)
        assert np.array_equal(got.factor, np.tril(got.factor))
        assert np.all(np.diagonal(got.factor)[~mask] > 0)
        assert np.array_equal(got.sample(key=KEY)[seen], x[mask])


@PATTERN
def test_joint_is_observed_times_conditional(mask, x64):
    d, x, mask = LAWS["full-gaussian"].make(), a([0.3, -2.0, 1.0]), jnp.asarray(mask)
    parts = d.log_prob(x, mask) + d.condition(x, mask).log_prob(x, ~mask)
    np.testing.assert_allclose(parts, d.log_prob(x), rtol=1e-12)


def test_conditioning_is_vmapped_and_differentiable(x64):
    d = LAWS["full-gaussian"].make()
    patterns = jnp.asarray(PATTERNS)
    xs = jnp.where(patterns, 1.0, jnp.nan)
    together = jax.vmap(d.condition)(xs, patterns)
    for i, (x, mask) in enumerate(zip(xs, patterns, strict=True)):
        alone = d.condition(x, mask)
        np.testing.assert_allclose(together.location[i], alone.location, atol=1e-12)
        np.testing.assert_allclose(together.factor[i], alone.factor, atol=1e-12)
    f = lambda d: jnp.sum(jnp.sin(jax.vmap(lambda x, m: d.condition(x, m).sample(key=KEY))(xs, patterns)))  # noqa: E731
    assert finite(jax.grad(f)(d))
    difference, derivative = directional(f, d)
    np.testing.assert_allclose(derivative, difference, rtol=1e-6)


def test_conditioning_without_a_mask_holds_everything():
    d = LAWS["full-gaussian"].make().condition(jnp.arange(3.0))
    assert np.array_equal(d.sample(key=KEY), [0, 1, 2])


def test_conditioning_keeps_its_digits_when_a_cell_is_nearly_known():
    """The second cell is the first plus noise of 1e-5: in single precision its variance is below the rounding of 1."""
    d = FullGaussian(jnp.zeros(2, "float32"), jnp.array([[1, 0], [1, 1e-5]], "float32"))
    held = d.condition(jnp.array([1.0, 0.0], "float32"), jnp.array([True, False]))
    np.testing.assert_allclose(held.factor[1, 1], 1e-5, rtol=1e-3)
    np.testing.assert_allclose(held.location, [1, 1], rtol=1e-4)


def test_low_rank_keeps_its_digits_when_the_noise_is_small(x64):
    d = LowRankGaussian(a(A), a(LOADING), a([1e-4] * 3))
    x = d.sample(key=KEY)
    single = jax.tree.map(lambda leaf: leaf.astype("float32"), d)
    np.testing.assert_allclose(single.log_prob(x.astype("float32")), d.log_prob(x), rtol=0.02)


# ---- divergences ----------------------------------------------------------------------------------------------------

PAIRS = {
    "gaussian": lambda: (Gaussian(a(A), a(B)), Gaussian(a(-A), a(B[::-1]))),
    "gaussian-full": lambda: (Gaussian(a(A), a(B)), FullGaussian(a(-A), a(FACTOR))),
    "gaussian-low-rank": lambda: (Gaussian(a(A), a(B)), LowRankGaussian(a(-A), a(LOADING), a(B[::-1]))),
    "full-gaussian": lambda: (FullGaussian(a(A), a(FACTOR)), Gaussian(a(-A), a(B))),
    "full": lambda: (FullGaussian(a(A), a(FACTOR)), FullGaussian(a(-A), a(FACTOR[::-1, ::-1].T))),
    "full-low-rank": lambda: (FullGaussian(a(A), a(FACTOR)), LowRankGaussian(a(-A), a(LOADING), a(B))),
    "low-rank-gaussian": lambda: (LowRankGaussian(a(A), a(LOADING), a(B)), Gaussian(a(-A), a(B))),
    "low-rank-full": lambda: (LowRankGaussian(a(A), a(LOADING), a(B)), FullGaussian(a(-A), a(FACTOR))),
    "low-rank": lambda: (LowRankGaussian(a(A), a(LOADING), a(B)), LowRankGaussian(a(-A), a(LOADING[:, :1]), a(B))),
    "bernoulli": lambda: (Bernoulli(a([-2.0, 0.0, 3.0])), Bernoulli(a([1.0, -1.0, 2.0]))),
    "one-hot": lambda: (OneHot(a([[0.0, 1.0], [2.0, -1.0]])), OneHot(a([[1.0, 1.0], [0.0, 0.5]]))),
    "binomial": lambda: (Binomial(a([-2.0, 0.0]), 5), Binomial(a([1.0, -1.0]), 5)),
    "poisson": lambda: (Poisson(a([-1.0, 2.0])), Poisson(a([0.5, 1.5]))),
    "continuous-bernoulli": lambda: (ContinuousBernoulli(a([-3.0, 0.1])), ContinuousBernoulli(a([1.0, 0.0]))),
    "numpyro": lambda: (
        Numpyro(nd.Gamma, {"concentration": a([2.0]), "rate": a([1.0])}),
        Numpyro(nd.Gamma, {"concentration": a([1.5]), "rate": a([2.0])}),
    ),
    "numpyro-reparametrised": lambda: (
        NumpyroReparametrised(nd.Normal, {"loc": a(A), "scale": a(B)}),
        Numpyro(nd.Normal, {"loc": a(-A), "scale": a(B)}),
    ),
}
PAIR = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)


@PAIR
def test_divergence_is_the_mean_log_ratio(pair, x64):
    q, p = pair()
    xs = draws(q, 20_000)
    ratio = np.asarray(jax.vmap(lambda x: q.log_prob(x) - p.log_prob(x))(xs))
    assert z_scores(ratio, np.asarray(kl(q, p))) < 4.5
    assert has_kl(q, p)


@PAIR
def test_divergence_from_itself_is_zero_with_a_zero_gradient(pair, x64):
    for d in pair():
        value, slope = eqx.filter_value_and_grad(lambda q, d=d: kl(q, d))(d)
        np.testing.assert_allclose([value, *(np.max(np.abs(s)) for s in jax.tree.leaves(slope))], 0, atol=1e-12)


@PAIR
def test_divergence_under_jit_and_vmap(pair, x64):
    q, p = pair()
    np.testing.assert_allclose(eqx.filter_jit(kl)(q, p), kl(q, p), rtol=1e-12)
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (q, p))
    np.testing.assert_allclose(jax.vmap(kl)(*twice), jnp.stack([kl(q, p)] * 2), rtol=1e-12)


@pytest.mark.parametrize("name", ["gaussian", "bernoulli", "one-hot", "binomial", "poisson", "continuous-bernoulli"])
def test_divergence_is_the_sum_over_cells(name, x64):
    q, p = PAIRS[name]()
    each = kl_cells(q, p)
    alone = jax.vmap(kl)(q, p)
    np.testing.assert_allclose(each, alone, rtol=1e-12)
    np.testing.assert_allclose(jnp.sum(each), kl(q, p), rtol=1e-12)


def test_divergence_golden(x64):
    q = Gaussian(a([0.5, -1.0]), jnp.exp(0.5 * a([-0.3, 0.4])))
    np.testing.assert_allclose(kl(q, Gaussian(a([0.0, 0.0]), a([1.0, 1.0]))), 0.6913214591614941, rtol=1e-12)


@pytest.mark.parametrize("name", [n for n in PAIRS if "low-rank" in n or "full" in n])
def test_divergence_of_vectors_is_the_dense_formula(name, x64):
    q, p = PAIRS[name]()
    (mq, sq), (mp, sp) = vector(q), vector(p)
    inverse = np.linalg.inv(sp)
    quadratic = np.trace(inverse @ sq) + (mq - mp) @ inverse @ (mq - mp) - len(mq)
    want = 0.5 * (quadratic + np.linalg.slogdet(sp)[1] - np.linalg.slogdet(sq)[1])
    np.testing.assert_allclose(kl(q, p), want, rtol=1e-12)


@pytest.mark.parametrize("name", ["bernoulli", "one-hot", "poisson", "continuous-bernoulli"])
def test_divergence_stays_finite_and_positive_in_single_precision(name):
    make = EXTREMES[name][0]
    for u, v in itertools.product([-40.0, 0.0, 40.0], repeat=2):
        logits = jnp.array([u, 0.0], "float32"), jnp.array([v, 0.0], "float32")
        value, slope = jax.value_and_grad(lambda q, p: kl(make(q), make(p)), argnums=(0, 1))(*logits)
        assert finite((value, slope))
        assert value >= -1e-6


@pytest.mark.parametrize("f", [kl, kl_cells])
def test_a_pair_without_a_closed_form_is_refused(f):
    q, p = Gaussian(jnp.zeros(2), jnp.ones(2)), StudentT(jnp.zeros(2), jnp.ones(2), jnp.ones(2))
    assert not has_kl(q, p)
    with pytest.raises(TypeError, match="Gaussian and StudentT; use ELBO, whose KL is sampled"):
        f(q, p)


def test_dependent_cells_have_no_divergence_per_cell():
    q = LAWS["full-gaussian"].make()
    with pytest.raises(TypeError, match="FullGaussian and FullGaussian; use ELBO"):
        kl_cells(q, q)


def test_a_numpyro_pair_without_a_closed_form_is_refused():
    q = Numpyro(nd.Gumbel, {"loc": jnp.zeros(1), "scale": jnp.ones(1)})
    p = Numpyro(nd.Cauchy, {"loc": jnp.zeros(1), "scale": jnp.ones(1)})
    with pytest.raises(TypeError, match="Gumbel and Cauchy; use ELBO"):
        kl(q, p)


@pytest.mark.parametrize(
    ("q", "p"),
    [
        (Gaussian(jnp.zeros(2), jnp.ones(2)), Gaussian(jnp.zeros(1), jnp.ones(1))),
        (Gaussian(jnp.zeros(2), jnp.ones(2)), FullGaussian(jnp.zeros(3), jnp.eye(3))),
        (Bernoulli(jnp.zeros(2)), Bernoulli(jnp.zeros(1))),
        (OneHot(jnp.zeros(2)), OneHot(jnp.zeros(3))),
        (Binomial(jnp.zeros(2), 3), Binomial(jnp.zeros(2), 4)),
    ],
)
def test_laws_over_different_events_are_refused(q, p):
    with pytest.raises(ValueError, match="kl"):
        kl(q, p)


def test_others_add_pairs():
    class Still(Gaussian): ...

    class Moving(Gaussian): ...

    kl_formula(Still, Moving)(lambda q, p: jnp.asarray(3.0))
    kl_cells_formula(Moving, Still)(lambda q, p: jnp.ones(2))
    still, moving = Still(jnp.zeros(2), jnp.ones(2)), Moving(jnp.zeros(2), jnp.ones(2))
    assert kl(still, moving) == 3
    assert kl(moving, still) == 2


# ---- numpyro --------------------------------------------------------------------------------------------------------


def dirichlet(rows=2):
    return Numpyro(nd.Dirichlet, {"concentration": jnp.ones((rows, 3)) * jnp.array([[1.0, 2.0, 3.0]])})


def test_numpyro_events_are_scored_whole(x64):
    d = dirichlet()
    x = d.sample(key=KEY)
    want = st.dirichlet.logpdf(np.asarray(x[0]), [1, 2, 3])
    holed = x.at[1].set(jnp.nan)
    score = eqx.filter_value_and_grad(lambda d: d.log_prob(holed, jnp.array([True, False])))
    value, slope = score(d)
    np.testing.assert_allclose(value, want, rtol=1e-9)
    assert finite(slope)
    with pytest.raises(ValueError, match=r"mask of Dirichlet must have shape \(2,\)"):
        d.log_prob(x, jnp.ones((2, 3), bool))


def test_a_family_without_gradients_is_not_reparametrised():
    with pytest.raises(TypeError, match="a draw of Poisson has no gradient"):
        NumpyroReparametrised(nd.Poisson, {"rate": jnp.ones(1)})


@pytest.mark.parametrize("make", [dirichlet, lambda: Binomial(jnp.zeros(2), 3), lambda: Gaussian(a(A), a(B))])
def test_laws_of_one_form_trace_once(make):
    traces = []
    score = eqx.filter_jit(lambda d, x: traces.append(0) or d.log_prob(x))
    for d in (make(), jax.tree.map(lambda leaf: 2 * leaf, make())):
        score(d, d.mean())
    assert len(traces) == 1


def test_numpyro_is_imported_only_when_used():
    program = "import sys, ravine.dist; sys.exit('numpyro' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# ---- links and chains -----------------------------------------------------------------------------------------------

LINKS = {
    "bits": (Bits(), 1, Bernoulli),
    "real": (Real(floor=0.1), 2, Gaussian),
    "homoscedastic": (Homoscedastic(jnp.zeros((2, 3)), floor=0.1), 1, Gaussian),
    "homoscedastic-shared": (Homoscedastic(jnp.zeros(())), 1, Gaussian),
    "heavy-tailed": (HeavyTailed(floor=0.1), 3, StudentT),
    "levels": (Levels(5), 1, Binomial),
    "counts": (Counts(), 1, Poisson),
    "unit-interval": (UnitInterval(), 1, ContinuousBernoulli),
    "classes": (Classes(), 1, OneHot),
}
LINK = pytest.mark.parametrize(("link", "each", "law"), LINKS.values(), ids=LINKS)


@LINK
def test_links_make_laws_of_the_right_shape(link, each, law):
    shape = (2, 3)
    assert link.size(shape) == each * 6
    d = link(jr.normal(KEY, (each * 6,)), shape)
    assert type(d) is law
    assert d.mean().shape == d.sample(key=KEY).shape == shape
    assert jnp.isfinite(d.log_prob(d.sample(key=KEY)))
    again = link(jr.normal(KEY, (each * 6,)).reshape(each, 2, 3), shape)
    assert eqx.tree_equal(d, again)


@LINK
def test_links_refuse_another_number_of_numbers(link, each, law):
    with pytest.raises(ValueError, match=rf"needs {6 * each} numbers, got 7"):
        link(jnp.zeros(7), (2, 3))


@LINK
def test_links_start_near_the_mean(link, each, law):
    mean = jnp.array([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]])
    raw = link.start(mean)
    assert raw.shape == (link.size(mean.shape),)
    np.testing.assert_allclose(link(raw, mean.shape).mean(), mean, atol=0.06)


@LINK
def test_links_of_one_form_are_equal(link, each, law):
    copy = jax.tree.unflatten(jax.tree.structure(link), jax.tree.leaves(link))
    assert jax.tree.structure(copy) == jax.tree.structure(link)
    assert all(eqx.is_array(leaf) for leaf in jax.tree.leaves(link))


def test_scales_have_a_floor():
    raw = jnp.full(3, -200.0)
    assert Real(floor=0.25)(raw[:2], (1,)).scale == 0.25
    assert HeavyTailed(floor=0.25)(raw, (1,)).scale == 0.25
    assert Homoscedastic(raw[:1], floor=0.25)(raw[:1], (1,)).scale == 0.25


def test_real_reads_means_then_scales():
    d = Real(floor=0.0)(jnp.arange(4.0), (2,))
    np.testing.assert_allclose(d.location, [0, 1])
    np.testing.assert_allclose(d.scale, np.log1p(np.exp([2, 3])), rtol=1e-6)


def test_levels_need_two():
    with pytest.raises(ValueError, match="at least 2 levels, got 1"):
        Levels(1)


def test_conditionals_ravel_parent_and_context():
    net = eqx.nn.Linear(6, 8, key=KEY)
    law = Conditional(net, Real(), (2, 2))
    parent, context = jnp.arange(4.0).reshape(2, 2), {"label": jnp.array([1, 0])}
    want = Real()(net(jnp.array([0.0, 1.0, 2.0, 3.0, 1.0, 0.0])), (2, 2))
    assert eqx.tree_equal(law(parent, context), want)
    split = law((parent[0], parent[1]), context)
    assert eqx.tree_equal(split, want)


def chain():
    k1, k2 = jr.split(KEY)
    middle = Conditional(eqx.nn.Linear(2, 3, key=k1), Bits(), (3,))
    last = Conditional(eqx.nn.Linear(3, 4, key=k2), Classes(), (2, 2))
    return Ancestral(Bernoulli(a([0.5, -1.0])), middle, last)


def test_a_chain_scores_the_product_of_its_links(x64):
    d = chain()
    z1, z2, z3 = d.sample(key=KEY)
    assert (z1.shape, z2.shape, z3.shape) == ((2,), (3,), (2, 2))
    parts = d.first.log_prob(z1) + d.conditionals[0](z1).log_prob(z2) + d.conditionals[1](z2).log_prob(z3)
    np.testing.assert_allclose(d.log_prob((z1, z2, z3)), parts, rtol=1e-12)


def test_a_chain_sums_to_one_and_draws_what_it_scores(x64):
    d = chain()
    supports = [
        Bernoulli(a([0.0] * 2)).support(),
        Bernoulli(a([0.0] * 3)).support(),
        OneHot(a([[0.0] * 2] * 2)).support(),
    ]
    places = np.array(list(itertools.product(*map(range, map(len, supports)))))
    values = tuple(s[places[:, i]] for i, s in enumerate(supports))
    mass = np.exp(jax.vmap(d.log_prob)(values))
    np.testing.assert_allclose(np.sum(mass), 1, rtol=1e-12)
    for samples, value in zip(draws(d, 20_000), values, strict=True):
        assert np.max(z_scores(np.asarray(samples), np.tensordot(mass, value, 1))) < 4.5


def test_a_chain_of_affine_means_has_their_mean(x64):
    d = Ancestral(Gaussian(a(A), a(B)), Conditional(eqx.nn.Linear(3, 2, key=KEY), Homoscedastic(a([0.0, 0.0])), (2,)))
    for samples, mean in zip(draws(d, 20_000), d.mean(), strict=True):
        assert np.max(z_scores(np.asarray(samples), np.asarray(mean))) < 4.5


def test_a_chain_refuses_masks_and_short_tuples():
    d = chain()
    value = d.sample(key=KEY)
    with pytest.raises(ValueError, match="tuple of 3 values, got 2"):
        d.log_prob(value[:2])
    with pytest.raises(ValueError, match="cannot marginalise"):
        d.log_prob(value, jax.tree.map(lambda z: z > 0, value))
