"""Divergences: a table of pairs of laws, against Monte Carlo, dense formulas and themselves.

One comparison per pair is statistical, refused beyond 4.5 standard errors: a correct formula fails it with probability
7e-6, the table with 1e-4 for a fresh seed. The seed is fixed.
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as nd
import pytest

from ravine.dist import (
    IGR,
    Bernoulli,
    Beta,
    Binomial,
    ContinuousBernoulli,
    Dirichlet,
    FullGaussian,
    Gamma,
    Gaussian,
    LowRankGaussian,
    Numpyro,
    NumpyroReparametrised,
    OneHot,
    Poisson,
    StudentT,
    Subset,
    VonMises,
    has_kl,
    has_kl_cells,
    kl,
    kl_cells,
    kl_cells_formula,
    kl_formula,
)

KEY = jr.key(20260101)
A, B = np.array([0.5, -1.0, 2.0]), np.array([0.7, 1.5, 0.3])
FACTOR = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.5, 0.4, 0.5]])
LOADING = np.array([[1.0, 0.2], [-0.5, 0.7], [0.3, -1.1]])


def a(values):
    """An array of the default float type."""
    return jnp.asarray(values, float)


def finite(tree):
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree))


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
    "gamma": lambda: (Gamma(a([2.0, 0.7]), a([1.0, 3.0])), Gamma(a([1.5, 2.0]), a([2.0, 0.5]))),
    "beta": lambda: (Beta(a([2.0, 0.7]), a([1.0, 3.0])), Beta(a([1.5, 2.0]), a([2.0, 0.5]))),
    "dirichlet": lambda: (Dirichlet(a([[2.0, 0.7, 1.0]])), Dirichlet(a([[1.5, 1.0, 3.0]]))),
    "von-mises": lambda: (VonMises(a([0.5, 2.0]), a([1.0, 30.0])), VonMises(a([1.0, 1.8]), a([2.0, 7.0]))),
    "subset": lambda: (Subset(a([[2.0, 0.7, 1.0, 0.0]]), 2), Subset(a([[-1.0, 0.3, 0.4, 1.0]]), 2)),
    "igr": lambda: (IGR(a([A]), a([B]), 0.5), IGR(a([-A]), a([B[::-1]]), 0.5)),
    "numpyro": lambda: (
        Numpyro(nd.Gamma, {"concentration": a([2.0]), "rate": a([1.0])}),
        Numpyro(nd.Gamma, {"concentration": a([1.5]), "rate": a([2.0])}),
    ),
    "numpyro-reparametrised": lambda: (
        NumpyroReparametrised(nd.Normal, {"loc": a(A), "scale": a(B)}),
        Numpyro(nd.Normal, {"loc": a(-A), "scale": a(B)}),
    ),
}
SHORT = {"gaussian", "full", "low-rank-gaussian", "bernoulli", "one-hot", "poisson", "continuous-bernoulli"}
MARKED = [pytest.param(pair, id=name, marks=[] if name in SHORT else pytest.mark.slow) for name, pair in PAIRS.items()]
PAIR = pytest.mark.parametrize("pair", MARKED)


@PAIR
def test_divergence_is_the_mean_log_ratio(pair, x64):
    q, p = pair()

    def ratio(key):
        x = q.sample(key=key)
        return q.log_prob(x) - p.log_prob(x)

    ratios = np.asarray(jax.jit(jax.vmap(ratio))(jr.split(KEY, 20_000)))
    assert abs(np.mean(ratios) - kl(q, p)) < 4.5 * np.std(ratios) / len(ratios) ** 0.5
    assert has_kl(q, p)


@PAIR
def test_divergence_from_itself_is_zero_with_a_zero_gradient(pair, x64):
    q = pair()[0]
    value, slope = eqx.filter_jit(eqx.filter_value_and_grad(lambda d: kl(d, q)))(q)
    for number in (value, *jax.tree.leaves(slope)):
        np.testing.assert_allclose(number, 0, atol=1e-12)


@PAIR
def test_divergence_under_jit_and_vmap(pair, x64):
    q, p = pair()
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (q, p))
    np.testing.assert_allclose(jax.jit(jax.vmap(kl))(*twice), np.full(2, kl(q, p)), rtol=1e-12)


@pytest.mark.parametrize(
    "name", ["gaussian", "bernoulli", "one-hot", "binomial", "poisson", "continuous-bernoulli", "dirichlet"]
)
def test_divergence_is_the_sum_over_cells(name, x64):
    q, p = PAIRS[name]()
    assert has_kl_cells(q, p)
    each = kl_cells(q, p)
    alone = jax.vmap(kl)(q, p)
    np.testing.assert_allclose(each, alone, rtol=1e-12)
    np.testing.assert_allclose(jnp.sum(each), kl(q, p), rtol=1e-12)


def test_divergence_golden(x64):
    q = Gaussian(a([0.5, -1.0]), jnp.exp(0.5 * a([-0.3, 0.4])))
    np.testing.assert_allclose(kl(q, Gaussian(a([0.0, 0.0]), a([1.0, 1.0]))), 0.6913214591614941, rtol=1e-12)


def normal(d):
    """Mean and covariance of a normal vector, dense."""
    if isinstance(d, Gaussian):
        return np.asarray(d.location), np.diag(np.asarray(d.scale) ** 2)
    if isinstance(d, FullGaussian):
        return np.asarray(d.location), np.asarray(d.factor @ d.factor.T)
    return np.asarray(d.location), np.asarray(d.loading @ d.loading.T + jnp.diag(d.scale**2))


@pytest.mark.parametrize("name", [n for n in PAIRS if "low-rank" in n or "full" in n])
def test_divergence_of_vectors_is_the_dense_formula(name, x64):
    q, p = PAIRS[name]()
    (mq, sq), (mp, sp) = normal(q), normal(p)
    inverse = np.linalg.inv(sp)
    quadratic = np.trace(inverse @ sq) + (mq - mp) @ inverse @ (mq - mp) - len(mq)
    want = 0.5 * (quadratic + np.linalg.slogdet(sp)[1] - np.linalg.slogdet(sq)[1])
    np.testing.assert_allclose(kl(q, p), want, rtol=1e-12)


@pytest.mark.parametrize("make", [Bernoulli, ContinuousBernoulli, OneHot, Poisson])
def test_divergence_stays_finite_and_positive_in_single_precision(make):
    q, p = jnp.array(list(itertools.product([-40.0, 0.0, 40.0], repeat=4)), "float32").reshape(2, -1, 2)
    score = jax.value_and_grad(lambda q, p: kl(make(q), make(p)), argnums=(0, 1))
    values, slopes = jax.jit(jax.vmap(score))(q, p)
    assert finite((values, slopes))
    assert np.all(values >= -1e-6)  # rounding


@pytest.mark.parametrize("f", [kl, kl_cells])
def test_a_pair_without_a_closed_form_is_refused(f):
    q, p = Gaussian(jnp.zeros(2), jnp.ones(2)), StudentT(jnp.zeros(2), jnp.ones(2), jnp.ones(2))
    assert not has_kl(q, p)
    with pytest.raises(TypeError, match="Gaussian and StudentT; use ELBO, whose KL is sampled"):
        f(q, p)


def test_dependent_cells_have_no_divergence_per_cell():
    q = FullGaussian(a(A), a(FACTOR))
    assert has_kl(q, q) and not has_kl_cells(q, q)
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
        (Subset(jnp.zeros(3), 2), Subset(jnp.zeros(3), 1)),
        (IGR(jnp.zeros(2), jnp.ones(2), 0.5), IGR(jnp.zeros(2), jnp.ones(2), 0.7)),
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
