"""Distributions: a table of laws times what must hold of every law.

Each statistical comparison is refused beyond 4.5 standard errors, which a correct law fails with probability 7e-6 per
number; about 100 numbers are compared, so a fresh seed would fail less than once in a thousand runs. The seed is fixed.
"""

import itertools
import math
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
    IGR,
    Bernoulli,
    Beta,
    BinaryConcrete,
    Binomial,
    CensoredGaussian,
    Concrete,
    ContinuousBernoulli,
    Dirichlet,
    ExpConcrete,
    FullGaussian,
    Gamma,
    Gaussian,
    LowRankGaussian,
    MarkovPath,
    Mixed,
    NegativeBinomial,
    Numpyro,
    NumpyroReparametrised,
    OneHot,
    Poisson,
    StudentT,
    Subset,
    TruncatedGaussian,
    VonMises,
    ZeroInflated,
)

KEY = jr.key(20260101)
A, B = np.array([0.5, -1.0, 2.0]), np.array([0.7, 1.5, 0.3])
FACTOR = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.5, 0.4, 0.5]])
LOADING = np.array([[1.0, 0.2], [-0.5, 0.7], [0.3, -1.1]])
X = [0.3, -2.0, 2.2]


def a(values):
    """An array of the default float type."""
    return jnp.asarray(values, float)


def cells(log_density):
    """Marginal of independent cells: the missing ones are dropped."""
    return lambda d, x, mask: np.sum(np.asarray(log_density(d, x))[mask])


def normal(d):
    """Mean and covariance of a normal vector, dense."""
    mean = np.asarray(d.location)
    if isinstance(d, FullGaussian):
        return mean, np.asarray(d.factor @ d.factor.T)
    return mean, np.asarray(d.loading @ d.loading.T + jnp.diag(d.scale**2))


def sub_block(d, x, mask):
    mean, covariance = normal(d)
    return st.multivariate_normal.logpdf(x[mask], mean[mask], covariance[np.ix_(mask, mask)]) if mask.any() else 0.0


def gaussian(d, x):
    return st.norm.logpdf(x, d.location, d.scale)


def laplace(d, x):
    return st.laplace.logpdf(x, d.parameters["loc"], d.parameters["scale"])


def gamma(d, x):
    return st.gamma.logpdf(x, d.parameters["concentration"], scale=1 / d.parameters["rate"])


def continuous_bernoulli(d, x):
    """In the paper's notation, with the rate instead of the logit."""
    rate = expit(np.asarray(d.logits))
    return x * np.log(rate) + (1 - x) * np.log1p(-rate) + np.log(2 * np.arctanh(1 - 2 * rate) / (1 - 2 * rate))


def one_hot(d, x):
    return x * log_softmax(np.asarray(d.logits), axis=-1)


def negative_binomial(d, x):
    """In scipy's notation, with the number of successes and their probability."""
    dispersion = np.exp(d.log_dispersion)
    return st.nbinom.logpmf(x, 1 / dispersion, 1 / (1 + dispersion * np.exp(d.log_mean)))


def zero_inflated(d, x):
    extra = expit(np.asarray(d.logits))
    return np.log(extra * (x == 0) + (1 - extra) * st.poisson.pmf(x, np.exp(d.law.log_rate)))


def zero_inflated_variance(d):
    square = d.law.mean() + d.law.mean() ** 2
    return expit(-np.asarray(d.logits)) * square - d.mean() ** 2


def truncated(d):
    ends = [(np.asarray(end) - d.location) / d.scale for end in (d.low, d.high)]
    return st.truncnorm(*ends, d.location, d.scale)


def censored(d, x):
    normal = st.norm(d.location, d.scale)
    return np.where(x <= d.low, normal.logcdf(d.low), np.where(x >= d.high, normal.logsf(d.high), normal.logpdf(x)))


def censored_variance(d):
    """Of the values at a million even quantiles."""
    quantiles = st.norm.ppf((np.arange(1e6) + 0.5) / 1e6)
    return [np.var(np.clip(m + s * quantiles, a, b)) for m, s, a, b in zip(*jax.tree.leaves(d), strict=True)]


def mixed(d, x, mask):
    """A normal cell, a categorical of three, a bit and another normal cell; a categorical is seen whole or not."""
    normal, classes, bits = d.parts
    whole = mask & (np.all(mask[1:4]) | ~np.isin(np.arange(6), [1, 2, 3]))
    scores = np.zeros(6)
    scores[[0, 5]], scores[4] = gaussian(normal, x[[0, 5]]), st.bernoulli.logpmf(x[4], expit(float(bits.logits[0])))
    scores[1:4] = one_hot(classes, x[None, 1:4])
    return np.sum(scores[whole])


def mixed_variance(d):
    normal, *rest = d.parts
    p = np.concatenate([np.ravel(part.mean()) for part in rest])
    return np.concatenate([normal.scale[:1] ** 2, p * (1 - p), normal.scale[1:] ** 2])


def concrete(d, x):
    """Maddison et al. 2017, definition 1, without logarithms; in log space without the volume of the exponential."""
    x = np.exp(x) if isinstance(d, ExpConcrete) else x
    n, t, w = x.shape[-1], np.asarray(d.temperature)[..., None], np.exp(d.logits)
    ratio = np.prod(w * x ** (-t - 1), axis=-1) / np.sum(w * x**-t, axis=-1) ** n
    ratio = ratio * np.prod(x, axis=-1) if isinstance(d, ExpConcrete) else ratio
    return np.log(math.factorial(n - 1) * np.asarray(d.temperature) ** (n - 1) * ratio)


def vectors(log_density):
    """Marginal of independent vectors: those not seen whole are dropped."""
    return lambda d, x, mask: np.sum(np.asarray(log_density(d, x))[np.all(mask, axis=-1)])


def gumbel_moment(d, f):
    """Expectation of f(draw) of cells of three classes, over a grid of two differences of Gumbels."""
    u = np.arange(-35, 35, 0.1)
    first, second = np.meshgrid(u, u)
    mass = 2 * np.exp(-first - second) / (1 + np.exp(-first) + np.exp(-second)) ** 3 * 0.01
    noise = np.stack([first, second, np.zeros_like(first)], -1)
    points = [(np.asarray(cell) + noise) / t for cell, t in zip(d.logits, np.asarray(d.temperature), strict=True)]
    points = log_softmax(np.stack(points), axis=-1)
    points = points if isinstance(d, ExpConcrete) else np.exp(points)
    return np.sum(f(points) * mass[..., None], axis=(1, 2))


def gumbel_variance(d):
    return gumbel_moment(d, np.square) - gumbel_moment(d, lambda x: x) ** 2


def dirichlet(d, x):
    return np.array([st.dirichlet.logpdf(v, c) for v, c in zip(x, np.asarray(d.concentration), strict=True)])


def dirichlet_variance(d):
    return d.mean() * (1 - d.mean()) / (1 + jnp.sum(d.concentration, axis=-1, keepdims=True))


def subset(d, x, mask):
    """Of the observed items, by adding up the table of all subsets."""
    table = np.array(list(itertools.product([0, 1], repeat=x.size)), float)
    table = table[table.sum(axis=1) == d.k]
    weight = np.exp(table @ np.asarray(d.logits))
    fits = np.all(table[:, mask] == x[mask], axis=1)
    return np.log(weight[fits].sum() / weight.sum())


def path(d, x, mask):
    """Of the observed steps, by adding up the probabilities of all paths."""
    steps, k = x.shape
    first, moves = (np.exp(log_softmax(np.asarray(part), axis=-1)) for part in (d.start, d.moves))
    each = np.array(list(itertools.product(range(k), repeat=steps)))
    chance = first[each[:, 0]] * np.prod([moves[t, each[:, t], each[:, t + 1]] for t in range(steps - 1)], axis=0)
    fits = np.all(np.where(mask.all(axis=1), each == x.argmax(axis=1), True), axis=1)
    return np.log(chance[fits].sum() / chance.sum())


def von_mises_variance(d):
    angle = np.linspace(-np.pi, np.pi, 20_001)[:-1, None]
    density = st.vonmises.pdf(angle, np.asarray(d.concentration))
    return np.sum(angle**2 * density, axis=0) / np.sum(density, axis=0)


class Law(NamedTuple):
    """How to make a distribution, a value, an independent log density of the observed cells, the variance."""

    make: Callable
    x: list
    log_prob: Callable
    variance: Callable


LAWS = {
    "gaussian": Law(lambda: Gaussian(a(A), a(B)), X, cells(gaussian), lambda d: d.scale**2),
    "gaussian-matrix": Law(
        lambda: Gaussian(a([[0.1, 2.0], [-1.0, 0.0]]), a([[1.0, 0.1], [3.0, 0.5]])),
        [[1.0, 2.0], [-3.0, 0.1]],
        cells(gaussian),
        lambda d: d.scale**2,
    ),
    "full-gaussian": Law(lambda: FullGaussian(a(A), a(FACTOR)), X, sub_block, lambda d: np.diag(normal(d)[1])),
    "low-rank-gaussian": Law(
        lambda: LowRankGaussian(a(A), a(LOADING), a(B)), X, sub_block, lambda d: np.diag(normal(d)[1])
    ),
    "student-t": Law(
        lambda: StudentT(a(A), a(B), a([12.0, 15.0, 30.0])),
        X,
        cells(lambda d, x: st.t.logpdf(x, d.freedom, d.location, d.scale)),
        lambda d: d.scale**2 * d.freedom / (d.freedom - 2),
    ),
    "continuous-bernoulli": Law(
        lambda: ContinuousBernoulli(a([-3.0, 0.3, 0.01, 8.0])),
        [0.1, 0.0, 0.7, 1.0],
        cells(continuous_bernoulli),
        lambda d: 1 / d.logits**2 - 0.25 / np.sinh(d.logits / 2) ** 2,
    ),
    "bernoulli": Law(
        lambda: Bernoulli(a([[-2.0, 0.0, 0.5], [3.0, 1.0, -1.0]])),
        [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]],
        cells(lambda d, x: st.bernoulli.logpmf(x, expit(np.asarray(d.logits)))),
        lambda d: d.mean() * (1 - d.mean()),
    ),
    "one-hot": Law(
        lambda: OneHot(a([0.0, 1.0, -1.0])), [0.0, 0.0, 1.0], cells(one_hot), lambda d: d.mean() * (1 - d.mean())
    ),
    "one-hots": Law(
        lambda: OneHot(a([[0.0, 1.0, -1.0], [2.0, 0.0, 0.5]])),
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]],
        cells(one_hot),
        lambda d: d.mean() * (1 - d.mean()),
    ),
    "binomial": Law(
        lambda: Binomial(a([-2.0, 0.0, 1.5]), 7),
        [0.0, 3.0, 7.0],
        cells(lambda d, x: st.binom.logpmf(x, d.total, expit(np.asarray(d.logits)))),
        lambda d: d.mean() * (1 - d.mean() / d.total),
    ),
    "poisson": Law(
        lambda: Poisson(a([-1.0, 0.5, 3.0])),
        [0.0, 2.0, 17.0],
        cells(lambda d, x: st.poisson.logpmf(x, np.exp(d.log_rate))),
        lambda d: np.exp(d.log_rate),
    ),
    "negative-binomial": Law(
        lambda: NegativeBinomial(a([-1.0, 0.5, 2.0]), a([0.0, -1.0, -4.0])),
        [0.0, 2.0, 17.0],
        cells(negative_binomial),
        lambda d: np.exp(d.log_mean) + np.exp(d.log_dispersion + 2 * d.log_mean),
    ),
    "zero-inflated": Law(
        lambda: ZeroInflated(Poisson(a([0.1, 0.5, 2.0])), a([-2.0, 1.0, 0.5])),
        [0.0, 3.0, 0.0],
        cells(zero_inflated),
        zero_inflated_variance,
    ),
    "truncated-gaussian": Law(
        lambda: TruncatedGaussian(a(A), a([0.7, 1.5, 4.0]), a([0.0, 1.5, -2.0]), a([1.1, 4.0, 2.5])),
        [0.3, 2.0, 1.9],
        cells(lambda d, x: truncated(d).logpdf(x)),
        lambda d: truncated(d).var(),
    ),
    "censored-gaussian": Law(
        lambda: CensoredGaussian(a(A), a(B), a([0.0, -3.0, 1.9]), a([1.1, np.inf, 2.1])),
        [0.0, 1.0, 2.2],
        cells(censored),
        censored_variance,
    ),
    "exp-concrete": Law(
        lambda: ExpConcrete(a([[0.0, 1.0, -1.0], [2.0, 0.0, 0.5]]), a([0.5, 2.0])),
        np.log([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]),
        vectors(concrete),
        gumbel_variance,
    ),
    "concrete": Law(
        lambda: Concrete(a([[0.0, 1.0, -1.0], [2.0, 0.0, 0.5]]), a([0.7, 2.0])),
        [[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]],
        vectors(concrete),
        gumbel_variance,
    ),
    "binary-concrete": Law(
        lambda: BinaryConcrete(a([-2.0, 0.0, 1.5]), a([0.5, 1.0, 2.0])),
        [0.3, -2.0, 1.0],
        cells(lambda d, x: st.logistic.logpdf(x, d.mean(), 1 / d.temperature)),
        lambda d: (np.pi / d.temperature) ** 2 / 3,
    ),
    "igr": Law(lambda: IGR(a([A]), a([B]), a(0.5)), [X], cells(gaussian), lambda d: d.scale**2),
    "gamma": Law(
        lambda: Gamma(a([2.0, 0.7, 30.0]), a([1.0, 3.0, 2.0])),
        [2.5, 0.1, 11.0],
        cells(lambda d, x: st.gamma.logpdf(x, d.concentration, scale=1 / d.rate)),
        lambda d: d.concentration / d.rate**2,
    ),
    "beta": Law(
        lambda: Beta(a([2.0, 0.7, 30.0]), a([1.0, 0.8, 20.0])),
        [0.9, 0.1, 0.55],
        cells(lambda d, x: st.beta.logpdf(x, d.a, d.b)),
        lambda d: st.beta.var(d.a, d.b),
    ),
    "dirichlet": Law(
        lambda: Dirichlet(a([[2.0, 0.7, 1.0], [5.0, 6.0, 7.0]])),
        [[0.25, 0.25, 0.5], [0.5, 0.25, 0.25]],
        vectors(dirichlet),
        dirichlet_variance,
    ),
    "von-mises": Law(
        lambda: VonMises(a(A), a([0.5, 4.0, 50.0])),
        [0.3, -2.0, 2.2],
        cells(lambda d, x: st.vonmises.logpdf(x, d.concentration, d.location)),
        von_mises_variance,
    ),
    "subset": Law(
        lambda: Subset(a([0.3, -1.0, 2.0, 0.0, 0.7]), 2),
        [0.0, 1.0, 0.0, 0.0, 1.0],
        subset,
        lambda d: d.mean() * (1 - d.mean()),
    ),
    "mixed": Law(
        lambda: Mixed(
            (Gaussian(a(A[:2]), a(B[:2])), OneHot(a([[0.0, 1.0, -1.0]])), Bernoulli(a([0.5]))),
            ((0, 5), (1, 2, 3), (4,)),
        ),
        [0.3, 0.0, 1.0, 0.0, 1.0, -2.0],
        mixed,
        mixed_variance,
    ),
    "markov-path": Law(
        lambda: MarkovPath(a([0.5, -1.0, 0.2]), a([[[0.0, 1.0, -1.0], A, B], [B, [1.0, 1.0, 0.0], A]])),
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]],
        path,
        lambda d: d.mean() * (1 - d.mean()),
    ),
    "numpyro-laplace": Law(
        lambda: NumpyroReparametrised(nd.Laplace, {"loc": a(A), "scale": a(B)}),
        X,
        cells(laplace),
        lambda d: 2 * d.parameters["scale"] ** 2,
    ),
    "numpyro-gamma": Law(
        lambda: Numpyro(nd.Gamma, {"concentration": a([2.0, 0.9]), "rate": a([1.0, 3.0])}),
        [2.5, 0.1],
        cells(gamma),
        lambda d: d.parameters["concentration"] / d.parameters["rate"] ** 2,
    ),
}
WHOLE = (OneHot, MarkovPath, ExpConcrete, Concrete, Dirichlet)  # a vector is seen or missing whole
REJECTED = (
    Gamma,
    Beta,
    Dirichlet,
    VonMises,
)  # drawn by rejection: the derivative is that of the law, not of the program
LAW = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
# One law of each family where a property takes long to compile; every law by `make test-all`.
FEW = {"gaussian", "low-rank-gaussian", "bernoulli", "one-hots", "poisson", "beta", "concrete", "mixed"}


def few(laws):
    """The laws by name, those beyond `FEW` marked slow."""
    marked = [pytest.param(law, marks=[] if name in FEW else pytest.mark.slow) for name, law in laws.items()]
    return pytest.mark.parametrize("law", marked, ids=laws)


def those(kind):
    """The laws of the table with a capability."""
    found = {name: law for name, law in LAWS.items() if isinstance(law.make(), kind)}
    return few(found)


def masks(d, x, n=6):
    """Everything, nothing, and random masks; some vectors are seen or missing whole."""
    shape = (*x.shape[:-1], 1) if isinstance(d, WHOLE) else x.shape
    some = [np.random.default_rng(i).random(shape) < 0.5 for i in range(n)]
    return [np.broadcast_to(m, x.shape) for m in (np.ones(shape, bool), np.zeros(shape, bool), *some)]


def finite(tree):
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree))


def z_scores(samples, expected):
    """Distance of the samples' mean from what it should be, in standard errors; rounding is no distance."""
    samples = np.asarray(samples)
    distance = np.abs(np.mean(samples, axis=0) - np.asarray(expected))
    return np.where(distance < 1e-9, 0, distance / np.maximum(np.std(samples, axis=0) / len(samples) ** 0.5, 1e-12))


@LAW
def test_log_prob_is_that_of_an_independent_implementation(law, x64):
    d, x = law.make(), np.asarray(law.x)
    want = law.log_prob(d, x, np.ones(x.shape, bool))
    np.testing.assert_allclose(d.log_prob(a(x)), want, rtol=1e-9, atol=1e-9)


@LAW
def test_masked_log_prob_is_the_marginal(law, x64):
    d, x = law.make(), np.asarray(law.x)
    score = jax.jit(lambda x, mask: d.log_prob(x, mask))
    for mask in masks(d, x):
        got = score(a(np.where(mask, x, np.nan)), jnp.asarray(mask))
        np.testing.assert_allclose(got, law.log_prob(d, x, mask), rtol=1e-9, atol=1e-9)
        if not mask.any():
            assert got == 0


@LAW
def test_gradient_is_blind_to_what_hides_under_the_mask(law, x64):
    d, x = law.make(), np.asarray(law.x)
    score = eqx.filter_jit(lambda d, x, mask: eqx.filter_grad(lambda dx: dx[0].log_prob(dx[1], mask))((d, x)))
    for mask in masks(d, x):
        unseen, other = (score(d, a(np.where(mask, x, hole)), jnp.asarray(mask)) for hole in (np.nan, 1))
        assert finite(unseen)
        assert eqx.tree_equal(unseen, other)
        assert np.all(np.asarray(unseen[1])[~mask] == 0)


@few(LAWS)
def test_draws_have_the_mean_and_the_variance(law, x64):
    d = law.make()
    samples = jax.jit(lambda keys: jax.vmap(lambda k: d.sample(key=k))(keys))(jr.split(KEY, 20_000))
    assert np.max(z_scores(samples, d.mean())) < 4.5
    assert np.max(z_scores((samples - d.mean()[None]) ** 2, law.variance(d))) < 4.5


@few(LAWS)
def test_vmap_equals_a_loop_and_jit_equals_eager(law, x64):
    d, keys = law.make(), jr.split(KEY, 2)
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.9 * leaf]), d)
    f = lambda d, k: (d.log_prob(a(law.x)), d.sample(key=k), d.mean())  # noqa: E731
    together = jax.jit(jax.vmap(f))(both, keys)
    for i in range(2):
        alone = f(jax.tree.map(lambda leaf, i=i: leaf[i], both), keys[i])
        for got, want in zip(together, alone, strict=True):
            np.testing.assert_allclose(got[i], want, rtol=1e-9, atol=1e-12)


@LAW
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_type_of_the_numbers_is_that_of_the_parameters(law, dtype):
    with jax.enable_x64(True):
        d = jax.tree.map(lambda leaf: leaf.astype(dtype), law.make())
        x = jnp.asarray(law.x, dtype)
        f = lambda d, x: (d.sample(key=KEY), d.mean(), d.log_prob(x), d.log_prob(x, x > 0))  # noqa: E731
        numbers = jax.eval_shape(f, d, x)
    assert {n.dtype.name for n in numbers} == {dtype}
    assert [n.shape for n in numbers] == [x.shape, x.shape, (), ()]


@LAW
def test_a_value_of_another_shape_is_refused(law):
    d, x = law.make(), a(law.x)
    with pytest.raises(ValueError, match="shape"):
        d.log_prob(jnp.stack([x, x]))
    with pytest.raises(ValueError, match="shape"):
        d.log_prob(x, jnp.ones((2, *x.shape), bool))


@those(AbstractReparametrised)
def test_pathwise_gradient_is_the_derivative_of_the_draw_and_of_the_mean(law, x64):
    """Along one direction: of each draw with its noise held, by finite differences; on average, that of the mean."""
    d, keys = law.make(), jr.split(KEY, 4000)
    turn = jax.tree.map(lambda leaf: 0.1 * jnp.cos(jnp.arange(1.0, 1 + leaf.size).reshape(leaf.shape)), d)
    if isinstance(d, StudentT):  # the freedom moves the draw through a rejection sampler: its derivative is implicit
        turn = eqx.tree_at(lambda d: d.freedom, turn, jnp.zeros_like(d.freedom))
    draw = jax.jit(lambda d: jax.jvp(lambda d: jax.vmap(lambda k: d.sample(key=k))(keys), (d,), (turn,)))
    after, before = (draw(jax.tree.map(lambda leaf, t, e=e: leaf + e * t, d, turn))[0] for e in (1e-6, -1e-6))
    slope = draw(d)[1]
    if not isinstance(d, REJECTED):
        np.testing.assert_allclose(slope, (after - before) / 2e-6, rtol=1e-4, atol=1e-6)
    assert np.max(z_scores(slope, jax.jvp(lambda d: d.mean(), (d,), (turn,))[1])) < 4.5


@those(AbstractDiscrete)
def test_the_support_lists_everything_once(law, x64):
    d = law.make()
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


def log_triangle():
    """Logarithms of points of the simplex of three classes, and their weight in dx1 dx2 / (x1 x2 x3)."""
    u = np.arange(-70, 70, 0.2)
    odds = np.stack([*np.meshgrid(u, u), np.zeros((u.size, u.size))], -1).reshape(-1, 3)
    return log_softmax(odds, axis=-1), np.full(len(odds), 0.04)


def triangle():
    points, weights = log_triangle()
    return np.exp(points), weights * np.exp(np.sum(points, axis=-1))


def positive():
    u = np.arange(-40, 8, 0.05)
    return np.exp(u)[:, None], 0.05 * np.exp(u)


def turn():
    angle = np.linspace(-np.pi, np.pi, 400, endpoint=False) + np.pi / 400
    return angle[:, None], np.full(400, np.pi / 200)


MASSES = {
    "gaussian": (lambda: Gaussian(a(A[:1]), a(B[:1])), lambda: line(1)),
    "full-gaussian": (lambda: FullGaussian(a(A[:2]), a(FACTOR[:2, :2])), lambda: line(2)),
    "low-rank-gaussian": (lambda: LowRankGaussian(a(A[:2]), a(LOADING[:2]), a(B[:2])), lambda: line(2)),
    "student-t": (lambda: StudentT(a(A[:1]), a(B[:1]), a([2.5])), lambda: line(1)),
    "continuous-bernoulli": (lambda: ContinuousBernoulli(a([2.0])), interval),
    "continuous-bernoulli-small": (lambda: ContinuousBernoulli(a([-0.2])), interval),
    "poisson": (lambda: Poisson(a([1.0])), naturals),
    "binary-concrete": (lambda: BinaryConcrete(a([0.7]), a([1.5])), lambda: line(1)),
    "concrete": (lambda: Concrete(a([0.4, -0.3, 0.0]), a(1.5)), triangle),
    "exp-concrete": (lambda: ExpConcrete(a([0.4, -0.3, 0.0]), a(0.8)), log_triangle),
    "gamma": (lambda: Gamma(a([2.5]), a([1.3])), positive),
    "beta": (lambda: Beta(a([3.0]), a([2.0])), interval),
    "dirichlet": (lambda: Dirichlet(a([3.0, 2.0, 2.5])), triangle),
    "von-mises": (lambda: VonMises(a([0.0]), a([2.0])), turn),
}


@pytest.mark.parametrize("name", MASSES)
def test_the_density_integrates_to_one_and_to_the_mean(name, x64):
    d, (points, weights) = MASSES[name][0](), MASSES[name][1]()
    density = np.exp(jax.vmap(d.log_prob)(jnp.asarray(points))) * weights
    np.testing.assert_allclose(np.sum(density), 1, atol=1e-6)
    if name != "student-t":  # its tails are cut too soon for a first moment
        np.testing.assert_allclose(density @ points, d.mean(), atol=1e-6)
