"""What holds of one law and not of all: golden values, digits, extreme logits, smooth joints between formulas."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from ravine.dist import (
    Bernoulli,
    Binomial,
    CensoredGaussian,
    ContinuousBernoulli,
    FullGaussian,
    Gaussian,
    LowRankGaussian,
    NegativeBinomial,
    OneHot,
    Ordered,
    Poisson,
    StudentT,
    TruncatedGaussian,
    ZeroInflated,
)
from ravine.dist.continuous import log_partition

KEY = jr.key(20260101)
DISCRETE = {
    "bernoulli": (Bernoulli, [[-2.0, 0.0, 0.5], [3.0, 1.0, -1.0]], [[0, 1, 1], [1, 0, 1]]),
    "one-hot": (OneHot, [[0.0, 1.0, -1.0], [2.0, 0.0, 0.5]], [[0, 1, 0], [1, 0, 0]]),
    "binomial": (lambda logits: Binomial(logits, 7), [-2.0, 0.0, 1.5], [0, 1, 1]),
    "poisson": (Poisson, [-1.0, 0.5, 3.0], [0, 1, 1]),
    "negative-binomial": (lambda p: NegativeBinomial(p, -p), [-1.0, 0.5, 3.0], [0, 1, 1]),
    "zero-inflated": (lambda p: ZeroInflated(Poisson(p), -p), [-1.0, 0.5, 3.0], [0, 1, 1]),
}


def finite(tree):
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree))


EXTREMES = {
    "bernoulli": (Bernoulli, [0.0, 1.0]),
    "binomial": (lambda logits: Binomial(logits, 255), [0.0, 255.0]),
    "continuous-bernoulli": (ContinuousBernoulli, [0.0, 1.0]),
    "one-hot": (OneHot, [0.0, 1.0]),
    "poisson": (Poisson, [0.0, 9.0]),
    "negative-binomial": (lambda p: NegativeBinomial(p, p[::-1]), [0.0, 1e6]),
    "ordered": (lambda p: Ordered()(p, (2,)), [0.0, 1.0]),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_single_precision_stays_finite_at_extreme_logits(name):
    make, values = EXTREMES[name]
    pairs = list(itertools.product([40.0, -40.0, 0.0], repeat=2))
    logits, xs = jnp.array(pairs, "float32"), jnp.array(list(itertools.product(values, values)), "float32")
    score = jax.vmap(jax.value_and_grad(lambda p, x: make(p).log_prob(x)), (None, 0))
    edge = lambda p: (score(p, xs), jax.jacobian(lambda p: make(p).mean())(p))  # noqa: E731
    assert finite(jax.jit(jax.vmap(edge))(logits))
    keys = jr.split(KEY, (len(pairs), 1000))
    assert finite(jax.jit(jax.vmap(lambda p, ks: jax.vmap(lambda k: make(p).sample(key=k))(ks)))(logits, keys))


def test_continuous_bernoulli_draws_have_finite_gradients_in_single_precision():
    logits = jnp.array([40.0, -40.0, 1e-3, 0.0], "float32")
    slope = jax.jacfwd(lambda p, k: ContinuousBernoulli(p).sample(key=k))
    assert finite(jax.jit(jax.vmap(slope, (None, 0)))(logits, jr.split(KEY, 2000)))


def test_likely_bits_keep_their_digits():
    logits = jnp.array([20.0, -20.0], "float32")
    np.testing.assert_allclose(Bernoulli(logits).log_prob(jnp.array([1.0, 0.0])), -2 * np.log1p(np.exp(-20)), rtol=1e-5)


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
    both = jax.jit(lambda logit: jax.jvp(draw, (logit,), (1.0,)))
    np.testing.assert_allclose(both(edge - 1e-9), both(edge + 1e-9), atol=1e-6)


@pytest.mark.parametrize("name", ["bernoulli", "one-hot"])
def test_discrete_log_prob_is_linear_in_the_value(name, x64):
    make, parameters, _ = DISCRETE[name]
    d = make(jnp.array(parameters))
    support = d.support()
    share = np.random.default_rng(0).dirichlet(np.ones(len(support)))
    mixed = share @ jax.vmap(d.log_prob)(support)
    np.testing.assert_allclose(d.log_prob(jnp.tensordot(share, support, 1)), mixed, rtol=1e-12)


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_integers_and_flags_are_values_too(name, dtype):
    make, parameters, x = DISCRETE[name]
    d = make(jnp.array(parameters))
    assert d.log_prob(jnp.array(x, dtype)) == d.log_prob(jnp.array(x, float))


def test_a_one_hot_mask_may_lack_the_classes():
    d, x, mask = OneHot(jnp.array([[0.0, 1.0], [2.0, 0.0]])), jnp.eye(2), jnp.array([True, False])
    assert d.log_prob(x, mask) == OneHot(d.logits[0]).log_prob(x[0])
    assert d.log_prob(x, mask) == d.log_prob(x, jnp.array([[True, True], [True, False]]))


def test_student_t_draws_know_how_the_freedom_moves_their_variance(x64):
    """By implicit differentiation: within 4.5 standard errors of d/dv v / (v - 2) = -2 / (v - 2)^2."""
    freedom, one = jnp.array([12.0, 30.0]), jnp.ones(2)
    square = lambda freedom, k: StudentT(0 * one, one, freedom).sample(key=k) ** 2  # noqa: E731
    slope = jax.jit(jax.vmap(lambda k: jax.jvp(lambda v: square(v, k), (freedom,), (one,))[1]))(jr.split(KEY, 20_000))
    error = np.std(slope, axis=0) / len(slope) ** 0.5
    assert np.all(np.abs(np.mean(slope, axis=0) + 2 / (freedom - 2) ** 2) < 4.5 * error)


def test_student_t_has_a_mean_only_above_one_degree_of_freedom():
    d = StudentT(jnp.ones(2), jnp.ones(2), jnp.array([1.0, 1.5]))
    assert np.array_equal(np.isnan(d.mean()), [True, False])


@pytest.mark.parametrize("log_rate", [20.0, 50.0, 200.0])
def test_large_poisson_rates_are_drawn(log_rate):
    """Also one that overflows, for which jax draws 0."""
    assert jnp.all(Poisson(jnp.full(2, log_rate, "float32")).sample(key=KEY) > 1e8)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gaussian(jnp.zeros(2), jnp.ones(3)),
        lambda: StudentT(jnp.zeros(2), jnp.ones(2), jnp.ones(1)),
        lambda: NegativeBinomial(jnp.zeros(2), jnp.ones(3)),
        lambda: ZeroInflated(Poisson(jnp.zeros(2)), jnp.ones(3)),
        lambda: TruncatedGaussian(jnp.zeros(2), jnp.ones(2), jnp.zeros(1), jnp.ones(2)),
        lambda: CensoredGaussian(jnp.zeros(2), jnp.ones(2), jnp.zeros(2), jnp.ones(1)),
        lambda: FullGaussian(jnp.zeros(2), jnp.eye(3)),
        lambda: LowRankGaussian(jnp.zeros(2), jnp.ones((3, 1)), jnp.ones(2)),
    ],
)
def test_parameters_that_do_not_agree_are_refused(make):
    with pytest.raises((ValueError, TypeError)):  # TypeError is the type checker's, which looks first in tests
        make()
