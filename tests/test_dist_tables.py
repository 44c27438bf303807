"""The laws and links of table columns: exact sums, far tails, limits of parameters, mixed cells in one vector.

Statistical comparisons are refused beyond 4.5 standard errors, which a correct law fails with probability 7e-6 each;
about 60 numbers are compared here, with fixed seeds.
"""

import functools
import itertools
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats as st
from scipy.special import expit, logit

from ravine._spell import spell
from ravine._tree import Fixed
from ravine.core import Row
from ravine.dist import (
    Bernoulli,
    Bits,
    Censored,
    CensoredGaussian,
    Classes,
    Conditional,
    Counts,
    Gaussian,
    ManyZeros,
    Mixed,
    MixedLink,
    NegativeBinomial,
    OneHot,
    Ordered,
    Overdispersed,
    Poisson,
    Real,
    TruncatedGaussian,
    Within,
    ZeroInflated,
)
from ravine.models.directed import Directed
from ravine.registry import parse

KEY = jr.key(20260101)
INF = np.inf


def a(values):
    """An array of the default float type."""
    return jnp.asarray(values, float)


def finite(tree):
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree))


@eqx.filter_jit
def scored(law, x):
    """Log probability of each of many values."""
    return jax.vmap(lambda x: law.log_prob(x))(x)


@eqx.filter_jit
def averaged(law, x):
    """Log probability of each of many values, and the law's mean."""
    return jax.vmap(lambda x: law.log_prob(x))(x), law.mean()


@eqx.filter_jit
def drawn(law, keys):
    return jax.vmap(lambda key: law.sample(key=key))(keys)


gauss = functools.cache(np.polynomial.legendre.leggauss)


def legendre(low, high, points=401):
    x, weight = gauss(points)
    return low + (high - low) * (x + 1) / 2, weight * (high - low) / 2


def naturals(count=2000):
    return np.arange(float(count)), np.ones(count)


def recorded(low, high, far=9.0):
    """Values and weights under which a censored law sums: quadrature between the limits, 1 at each that is finite."""
    x, weight = legendre(max(low, -far), min(high, far), 399 + math.isinf(low) + math.isinf(high))
    ends = [end for end in (low, high) if math.isfinite(end)]
    return np.concatenate([ends, x]), np.concatenate([np.ones(len(ends)), weight])


# ---- every law sums to one, and to its mean -------------------------------------------------------------------------

WHOLE = {
    "negative-binomial": (lambda: NegativeBinomial(a(1.0), a(0.0)), naturals),
    "negative-binomial-poisson": (lambda: NegativeBinomial(a(3.0), a(-INF)), naturals),
    "negative-binomial-wide": (lambda: NegativeBinomial(a(-1.0), a(3.0)), naturals),
    "zero-inflated-poisson": (lambda: ZeroInflated(Poisson(a(1.0)), a(0.5)), naturals),
    "zero-inflated": (lambda: ZeroInflated(NegativeBinomial(a(1.0), a(-0.5)), a(-1.0)), naturals),
    "truncated": (lambda: TruncatedGaussian(a(0.3), a(0.7), a(-1.0), a(2.0)), lambda: legendre(-1, 2)),
    "truncated-tail": (lambda: TruncatedGaussian(a(-40.0), a(1.0), a(0.0), a(1.0)), lambda: legendre(0, 1)),
    "truncated-half": (lambda: TruncatedGaussian(a(-3.0), a(1.0), a(0.0), a(INF)), lambda: legendre(0, 6)),
    "truncated-nowhere": (lambda: TruncatedGaussian(a(0.5), a(1.0), a(-INF), a(INF)), lambda: legendre(-9, 10)),
    "truncated-flat": (lambda: TruncatedGaussian(a(5.0), a(1e7), a(1.0), a(2.0)), lambda: legendre(1, 2)),
    "censored": (lambda: CensoredGaussian(a(0.2), a(0.7), a(-0.5), a(1.0)), lambda: recorded(-0.5, 1)),
    "censored-above": (lambda: CensoredGaussian(a(0.2), a(0.9), a(-INF), a(1.0)), lambda: recorded(-INF, 1)),
    "censored-away": (lambda: CensoredGaussian(a(9.0), a(1.0), a(0.0), a(1.5)), lambda: recorded(0, 1.5)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_law_sums_to_one_and_to_its_mean(name, x64):
    law, (x, weight) = WHOLE[name][0](), WHOLE[name][1]()
    scores, mean = averaged(law, a(x))
    mass = np.exp(scores) * weight
    np.testing.assert_allclose(math.fsum(mass), 1, atol=1e-10)
    np.testing.assert_allclose(math.fsum(mass * x), mean, rtol=1e-10, atol=1e-10)


# ---- counts ---------------------------------------------------------------------------------------------------------


def exact_negative_binomial(x, log_mean, log_dispersion):
    """From the product of Gamma(x + r) / Gamma(r), term by term, in extended precision."""
    log_mean, log_dispersion = np.longdouble(log_mean), np.longdouble(log_dispersion)
    mean, dispersion = np.exp(log_mean), np.exp(log_dispersion)
    k = np.arange(x, dtype=np.longdouble)
    rising = np.log1p(dispersion * k) - np.log1p(k) + log_mean
    return float(np.sum(rising) - (x + 1 / dispersion) * np.log1p(dispersion * mean))


MILLIONS = [
    (10**6, 13.8, -30.0),
    (10**6, 13.81, -10.0),
    (10**6, 13.83, -30.0),
    (10**6, 9.0, 1.0),
    (4, 1.0, -25.0),
    (9, 14.0, 2.0),
    (2, -3.0, 4),
]


def score_of_counts(parameters, x):
    return NegativeBinomial(parameters[0], parameters[1]).log_prob(x)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 2e-11), ("float32", 4e-5)])
def test_large_counts_keep_their_digits(dtype, tolerance):
    with jax.enable_x64(True):
        x, *parameters = (jnp.asarray(column, dtype) for column in zip(*MILLIONS, strict=True))
        got = jax.jit(jax.vmap(score_of_counts))(tuple(parameters), x)
    assert got.dtype == dtype
    for value, count, log_mean, log_dispersion in zip(*np.asarray([got, x, *parameters], float), strict=True):
        want = exact_negative_binomial(int(count), log_mean, log_dispersion)
        # what the rounding of log count and log mean, both below 16, amounts to
        slack = abs(count - math.exp(log_mean)) * 16 * float(jnp.finfo(dtype).eps)
        assert abs(value - want) < tolerance * (1 + abs(want)) + slack


def test_without_dispersion_counts_are_poisson(x64):
    x, log_mean = np.array([0.0, 1.0, 3.0, 30.0, 1e5]), np.array([0.1, -2.0, 1.0, 3.0, 11.5])
    want = st.poisson.logpmf(x, np.exp(log_mean))
    score = jax.jit(jax.vmap(score_of_counts))
    for log_dispersion in (-60.0, -300.0, -INF):
        got = score((a(log_mean), jnp.full(5, log_dispersion)), a(x))
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-8)


def test_counts_in_the_limits_of_their_parameters_have_finite_gradients():
    grid = np.array(list(itertools.product(*[[-200.0, -40.0, 0.0, 40.0, 85.0]] * 2, [0, 1, 7, 8, 1e6])), "float32")
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(score_of_counts)))(grid[:, :2], grid[:, 2])
    assert finite((value, slope))


def test_the_slope_in_the_parameters_is_that_of_the_exact_mass(x64):
    """At counts around 8, where Stirling's series begins, by central differences."""
    cases = list(itertools.product([1.2], [-4.0, -2.08, 1.1], [0.0, 1.0, 6.0, 9.0]))
    slopes = jax.jit(jax.vmap(jax.grad(score_of_counts)))(a(cases)[:, :2], a(cases)[:, 2])
    for (m, k, x), slope in zip(cases, slopes, strict=True):
        for got, step in zip(slope, 1e-5 * np.eye(2), strict=True):
            up, down = (exact_negative_binomial(int(x), m + e * step[0], k + e * step[1]) for e in (1, -1))
            np.testing.assert_allclose(got, (up - down) / 2e-5, rtol=1e-6, atol=1e-6)


def test_a_law_that_is_not_one_number_per_cell_cannot_have_extra_zeros():
    with pytest.raises((ValueError, TypeError), match="one number per cell"):
        ZeroInflated(Poisson(jnp.zeros(3)), jnp.zeros(2))


# ---- draws have the frequencies -------------------------------------------------------------------------------------


def truncated(location, scale, low, high):
    return st.truncnorm((low - location) / scale, (high - location) / scale, location, scale)


def inflated(x):
    return 0.5 * (x >= 0) + 0.5 * st.nbinom.cdf(x, 2.0, 1 / (1 + 0.5 * math.e))


# a law, its distribution function, and where that is compared
DRAWS = {
    "negative-binomial": (
        lambda: NegativeBinomial(a(1.0), a(math.log(0.5))),
        lambda x: st.nbinom.cdf(x, 2.0, 1 / (1 + 0.5 * math.e)),
        range(9),
    ),
    "zero-inflated": (lambda: ZeroInflated(NegativeBinomial(a(1.0), a(math.log(0.5))), a(0.0)), inflated, range(7)),
    "truncated": (
        lambda: TruncatedGaussian(a(0.3), a(0.7), a(-1.0), a(2.0)),
        truncated(0.3, 0.7, -1, 2).cdf,
        np.linspace(-0.8, 1.8, 9),
    ),
    "truncated-tail": (
        lambda: TruncatedGaussian(a(-40.0), a(1.0), a(0.0), a(1.0)),
        truncated(-40, 1, 0, 1).cdf,
        np.array([0.003, 0.01, 0.03, 0.1]),
    ),
    "truncated-flat": (
        lambda: TruncatedGaussian(a(5.0), a(1e7), a(1.0), a(2.0)),
        lambda x: x - 1,
        np.linspace(1.1, 1.9, 9),
    ),
    "censored": (
        lambda: CensoredGaussian(a(0.2), a(0.7), a(-0.5), a(1.0)),
        lambda x: np.where(x < -0.5, 0, np.where(x >= 1, 1, st.norm.cdf(x, 0.2, 0.7))),
        np.array([-0.51, -0.5, 0.0, 0.9, 1.0]),
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_have_the_frequencies(name, x64, n=20_000):
    make, distribution, at = DRAWS[name]
    law, at = make(), np.asarray(at, float)
    draws = np.asarray(drawn(law, jr.split(KEY, n)))
    share, want = np.mean(draws[:, None] <= at, axis=0), distribution(at)
    assert np.all(np.abs(share - want) <= 4.5 * np.sqrt(want * (1 - want) / n))


# ---- limits ---------------------------------------------------------------------------------------------------------


class Cut(NamedTuple):
    """A truncated law, and where it is scored."""

    location: float
    scale: float
    low: float
    high: float
    x: float


CUTS = {
    "inside": Cut(0.3, 0.7, -1.0, 2.0, 0.0),
    "at-the-limit": Cut(0.3, 0.7, -1.0, 2.0, 2.0),
    "wide": Cut(0.3, 0.7, -2.0, 3.0, 0.0),
    "beside": Cut(-1.0, 0.5, 0.0, 1.0, 0.7),
    "40-below": Cut(-40.0, 1.0, 0.0, 1.0, 0.1),
    "40-above": Cut(41.0, 1.0, 0.0, 1.0, 0.9),
    "10000-below": Cut(-10.0, 1e-3, 0.0, 1.0, 1e-7),
    "near-tail": Cut(-2.0, 1.0, 0.0, 30.0, 3.0),
    "half": Cut(1.0, 2.0, 0.0, INF, 0.5),
    "other-half": Cut(4.0, 0.5, -INF, 0.0, -0.2),
    "narrow": Cut(3.0, 1.0, 1.0, 1.001, 1.0005),
    "flat": Cut(5.0, 1e7, 1.0, 2.0, 1.5),
}


def reference(cut):
    """Log density and mean by quadrature in double precision of the density relative to its highest value."""
    peak = min(max(cut.location, cut.low), cut.high)
    tilt = (peak - cut.location) / cut.scale
    reach = 80 / (abs(tilt) + math.sqrt(tilt**2 + 80))  # where the density has fallen by e^-40
    ends = [min(max((end - peak) / cut.scale, -reach), reach) for end in (cut.low, cut.high)]
    d, weight = legendre(*ends)
    mass = weight * np.exp(-d * (tilt + d / 2))
    away = (cut.x - peak) / cut.scale
    log_density = -away * (tilt + away / 2) - math.log(cut.scale) - math.log(mass.sum())
    return log_density, peak + cut.scale * (mass @ d) / mass.sum()


def cut_answers(*cut):
    """Log density with its derivatives in location and scale, mean."""
    law = TruncatedGaussian(*cut[:4])
    score = jax.value_and_grad(lambda m, s: TruncatedGaussian(m, s, *cut[2:4]).log_prob(cut[4]), (0, 1))
    return *score(*cut[:2]), law.mean()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 2e-12), ("float32", 4e-6)])
def test_truncation_keeps_its_digits(dtype, tolerance):
    """In single precision the reference gets the rounded parameters."""
    with jax.enable_x64(True):
        columns = [jnp.asarray(column, dtype) for column in zip(*CUTS.values(), strict=True)]
        scores, slopes, means = jax.tree.map(np.asarray, jax.jit(jax.vmap(cut_answers))(*columns))
    assert finite((scores, slopes, means))
    for name, score, mean, *cut in zip(CUTS, scores, means, *columns, strict=True):
        cut = Cut(*map(float, cut))
        want, expected = reference(cut)
        np.testing.assert_allclose(score, want, rtol=tolerance, atol=tolerance, err_msg=name)
        peak = min(max(cut.location, cut.low), cut.high)
        np.testing.assert_allclose(mean - peak, expected - peak, rtol=10 * tolerance, atol=tolerance, err_msg=name)


def test_truncation_agrees_with_scipy_and_its_slopes_with_differences(x64):
    scores, slopes, _ = jax.jit(jax.vmap(cut_answers))(*map(a, zip(*CUTS.values(), strict=True)))
    for name, score, *slope in zip(CUTS, scores, *slopes, strict=True):
        cut = CUTS[name]
        if name not in ("10000-below", "flat", "narrow"):  # where scipy loses digits
            np.testing.assert_allclose(score, truncated(*cut[:4]).logpdf(cut.x), rtol=1e-10, err_msg=name)
        for field, got in zip(Cut._fields[:2], slope, strict=True):
            step = 1e-4 * cut.scale
            ends = (reference(cut._replace(**{field: getattr(cut, field) + e}))[0] for e in (step, -step))
            want = np.subtract(*ends) / (2 * step)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 / cut.scale, err_msg=name)


@pytest.mark.parametrize("kind", [TruncatedGaussian, CensoredGaussian])
def test_laws_with_limits_are_smooth_across_their_branches(kind, x64):
    """Where the location meets a limit, where quadrature gives way to tails, where the continued fraction begins."""

    def answers(m):
        law = kind(m, a(1.0), a(0.0), a(1.0))
        return law.log_prob(a(0.25)), law.log_prob(a(0.0)), law.mean()

    both = jax.jit(jax.vmap(lambda m: jax.jvp(answers, (m,), (1.0,))))
    below, at, above = (both(a([0.0, 1.0, -2.0, -3.5, 4.5, -8.0, 9.0]) + e) for e in (-1e-9, 0.0, 1e-9))
    for got, same, want in zip(*map(jax.tree.leaves, (below, at, above)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-7)
        np.testing.assert_allclose(same, want, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [TruncatedGaussian, CensoredGaussian])
def test_laws_with_limits_are_finite_everywhere(kind, dtype):
    """Score, mean, draw and all their derivatives, thousands of scales away and at infinite limits."""
    limits = [(0, 1), (0, 1e-3), (-INF, 1), (0, INF), (-INF, INF)]
    cases = itertools.product((-1e6, -40, 0, 1e6), (1e-3, 1, 1e6), limits, (0, 1e-3))
    grid = np.array([(m, s, *ends, x) for m, s, ends, x in cases])

    def answers(p):
        law = kind(*p[:4])
        return law.log_prob(p[4]), law.mean(), law.sample(key=KEY)

    with jax.enable_x64(True):
        points = tuple(np.asarray(grid.T, dtype))
        values, slopes = jax.jit(jax.vmap(lambda p: (answers(p), jax.jacfwd(answers)(p))))(points)
    assert finite((values, slopes))
    _, mean, draw = map(np.asarray, values)
    assert np.all((points[2] <= draw) & (draw <= points[3]))
    width = np.where(np.isfinite(points[3] - points[2]), points[3] - points[2], 0)
    assert np.all((points[2] - 1e-6 * width <= mean) & (mean <= points[3] + 1e-6 * width))


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_truncated_draws_invert_the_distribution_function(dtype):
    """At every slope and width the mass up to the draw is what was asked for."""
    from ravine.dist.bounded import _moments, _quantile

    random = np.random.default_rng(0)
    slope = np.where(random.random(5000) < 0.3, 0, 10 ** random.uniform(-4, 6, 5000))
    width = np.where(random.random(5000) < 0.1, 1e18, 10 ** random.uniform(-7, 3, 5000))
    with jax.enable_x64(True):
        slope, width, share = (jnp.asarray(x, dtype) for x in (slope, width, random.random(5000)))
        whole = _moments(width, slope)[0]
        d = jax.jit(_quantile)(share * whole, width, slope)
        error = jnp.abs(_moments(d, slope)[0] / whole - share)
        assert np.all(d <= width) and np.max(error) < 8 * jnp.finfo(dtype).eps


def test_a_value_outside_a_truncated_law_is_impossible(x64):
    law = TruncatedGaussian(a([0.0, 5.0]), a([1.0, 1.0]), a([0.0, 0.0]), a([1.0, 1.0]))
    score = jax.jit(jax.value_and_grad(lambda law, mask: law.log_prob(a([-0.1, 0.5]), mask)))
    value, slope = score(law, jnp.array([True, True]))
    assert value == -INF and finite(slope)
    assert finite(score(law, jnp.array([False, True])))


def test_a_censored_value_has_the_mass_of_its_tail(x64):
    law = CensoredGaussian(a([-7.0] * 4), a([0.5] * 4), a([-INF, 0.0, 0.0, -9.0]), a([0.0, INF, 1.0, -8.0]))
    want = [st.norm.logsf(14), st.norm.logpdf(16) - math.log(0.5), st.norm.logcdf(14), st.norm.logcdf(-4)]
    np.testing.assert_allclose(law.log_prob(a([0.0, 1.0, -3.0, -9.0])), sum(want), rtol=1e-12)
    np.testing.assert_allclose(law.mean()[0], -7, rtol=1e-12)


# ---- links ----------------------------------------------------------------------------------------------------------


def test_ordered_classes_are_steps_of_a_cumulative_link(x64):
    raw = jr.normal(KEY, (2, 5), float)
    p = Ordered()(raw, (2, 5)).mean()
    location, first, steps = raw[:, :1], raw[:, 1:2], np.log1p(np.exp(raw[:, 2:]))
    cuts = np.cumsum(np.concatenate([first, steps], 1), 1)
    np.testing.assert_allclose(np.cumsum(p, 1)[:, :-1], expit(cuts - location), rtol=1e-12)
    support = OneHot(Ordered()(raw[0], (5,)).logits).support()
    np.testing.assert_allclose(np.sum(np.exp(scored(Ordered()(raw[0], (5,)), support))), 1, atol=1e-12)
    assert Ordered()(raw[0, :1], (1,)).mean().tolist() == [1.0]


@pytest.mark.parametrize("steps", [-200.0, 0.0, 200.0])
@pytest.mark.parametrize("location", [-200.0, 0.0, 200.0])
def test_ordered_classes_stay_possible_far_out(location, steps):
    """Where sigmoids saturate and cuts meet: log probabilities and gradients are finite in single precision."""
    raw = jnp.array([location, 0.0, steps, steps], "float32")
    score = jax.jit(jax.vmap(jax.value_and_grad(lambda raw, x: Ordered()(raw, (4,)).log_prob(x)), (None, 0)))
    value, slope = score(raw, jnp.eye(4, dtype="float32"))
    assert finite((value, slope))


def test_a_class_of_no_width_has_the_logarithm_of_its_width():
    """Between cuts at 0 and softplus(-200): log sigma(0) twice, and -200."""
    law = Ordered()(jnp.array([0.0, 0.0, -200.0], "float32"), (3,))
    np.testing.assert_allclose(law.log_prob(jnp.eye(3)[1]), -2 * math.log(2) - 200, rtol=1e-6)


@pytest.mark.parametrize("mean", [[0.2, 0.5, 0.3], [0.02, 0.08, 0.9]])
def test_ordered_starts_at_the_shares(mean, x64):
    np.testing.assert_allclose(Ordered()(Ordered().start(a(mean)), (3,)).mean(), mean, rtol=1e-12)
    nothing = Ordered()(Ordered().start(a([0.0, 1.0, 0.0])), (3,)).mean()
    np.testing.assert_allclose(nothing, np.array([0.01, 1, 0.01]) / 1.02, rtol=1e-12)


MEANS = {
    "within": (Within((0.0, -5.0, 0.0), (1.0, 5.0, INF)), [0.95, 1.0, 0.5], [0.95, 1.0, 0.5]),
    "within-edge": (Within((0.0,), (1.0,)), [0.0, 0.5, 1.0], [0.01, 0.5, 0.99]),
    "censored": (Censored((0.0, -5.0, -INF), (1.0, 5.0, 0.0)), [0.95, 1.0, -0.5], [0.95, 1.0, -0.5]),
    "censored-edge": (Censored((-0.1,), (1.0,)), [0.0, 0.0, 9.0], [0.0, 0.0, 0.989]),
    "overdispersed": (Overdispersed(), [0.0, 3.0, 1e4], [0.01, 3.0, 1e4]),
    "many-zeros": (ManyZeros(), [0.0, 3.0, 1e4], [0.01, 3.0, 1e4]),
}


@pytest.mark.parametrize("name", MEANS)
def test_table_links_start_at_the_mean_exactly(name, x64):
    link, mean, want = MEANS[name]
    np.testing.assert_allclose(link(link.start(a(mean)), (3,)).mean(), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [Within, Censored])
def test_limits_are_read_per_cell_and_have_a_floor(kind):
    link = kind((0, -1), (1, INF), floor=0.25)
    law = link(jnp.array([[0.1, 0.2], [-200.0, 0.0]]), (1, 2))
    assert (law.low.tolist(), law.high.tolist()) == ([[0, -1]], [[1, INF]])
    assert law.location.tolist() == [[pytest.approx(0.1), pytest.approx(0.2)]] and law.scale[0, 0] == 0.25
    assert link == kind((0.0, -1.0), (1.0, INF), floor=0.25) != kind((0.0, -1.0), (1.0, 2.0), floor=0.25)
    for low, high in [((0.0,), (0.0,)), ((0.0, 1.0), (2.0,)), ((), ()), ((math.nan,), (1.0,))]:
        with pytest.raises(ValueError, match=f"limits of {kind.__name__}: expected .* got low="):
            kind(low, high)
    with pytest.raises(ValueError, match="expected 1 or 3 limits, got 2"):
        link(jnp.zeros(6), (3,))


# ---- cells of several kinds in one vector ---------------------------------------------------------------------------

LINKS = (Real(0.1), Classes(), Ordered(), Counts(), Censored((0.0,), (2.0,)), Bits())
PLACES = ((0, 9), (1, 2, 3, 5, 6, 7), (11, 10, 4), (8,), (12,), (13,))
SHAPES = ((2,), (2, 3), (1, 3), (1,), (1,), (1,))
TABLE = MixedLink(LINKS, PLACES, SHAPES)
VALUE = [0.3, 0, 1, 0, 0, 1, 0, 0, 4, -1.2, 0, 1, 0.7, 1]
NUMBERS = TABLE.size((14,))


@pytest.mark.slow
def test_a_mixed_law_is_its_parts_side_by_side(x64):
    raw, x = jr.normal(KEY, (NUMBERS,), float), a(VALUE)
    law, end = TABLE(raw, (14,)), 0
    mean, score = np.zeros(14), 0.0
    for link, place, shape in zip(LINKS, PLACES, SHAPES, strict=True):
        part = link(raw[end : end + link.size(shape)], shape)
        end += link.size(shape)
        part_score, part_mean = averaged(part, x[np.array(place)].reshape(1, *shape))
        mean[list(place)] = np.ravel(part_mean)
        score += part_score[0]
    assert end == NUMBERS == 4 + 6 + 3 + 1 + 2 + 1
    got_score, got_mean = averaged(law, x[None])
    np.testing.assert_allclose(got_mean, mean, rtol=1e-12)
    np.testing.assert_allclose(got_score[0], score, rtol=1e-12)


@pytest.mark.slow
def test_a_mixed_law_draws_what_each_column_can_hold(x64):
    raw = jr.normal(KEY, (NUMBERS,), float)
    draws = np.asarray(drawn(TABLE(raw, (14,)), jr.split(KEY, 400)))
    for one_hot in ([1, 2, 3], [5, 6, 7], [11, 10, 4]):
        assert np.all(np.sort(draws[:, one_hot], axis=1) == [0, 0, 1])
    assert np.all(draws[:, 8] == np.round(draws[:, 8])) and np.ptp(draws[:, 0]) > 1
    assert np.all((draws[:, 12] >= 0) & (draws[:, 12] <= 2)) and set(draws[:, 13]) == {0, 1}
    assert finite(scored(TABLE(raw, (14,)), a(draws)))
    error = np.std(draws, axis=0) / 20
    assert np.all(np.abs(np.mean(draws, axis=0) - TABLE(raw, (14,)).mean()) < 4.5 * error + 1e-9)


def test_a_mixed_law_sums_to_one_and_to_its_mean(x64):
    """Over classes, counts and an interval at once."""
    parts = (OneHot(a([[0.3, -0.2]])), Poisson(a([0.1])), TruncatedGaussian(a([0.1]), a([0.5]), a([0.0]), a([1.0])))
    law = Mixed(parts, ((3, 0), (2,), (1,)))
    (count, _), (x, weight) = naturals(20), legendre(0, 1, 20)
    grid = np.array([(1 - c, v, n, c) for c in (0, 1) for v in x for n in count])
    mass = np.exp(scored(law, a(grid))) * np.tile(np.repeat(weight, len(count)), 2)
    np.testing.assert_allclose(np.sum(mass), 1, atol=1e-10)
    np.testing.assert_allclose(mass @ grid, law.mean(), atol=1e-10)


def test_holes_in_a_mixed_row_are_marginalised_and_never_flow_back(x64):
    raw = jr.normal(KEY, (NUMBERS,), float)
    whole = np.ones(14, bool)
    whole[[0, 5, 6, 7, 8, 12]] = False
    score = jax.jit(jax.value_and_grad(lambda raw, x, mask: TABLE(raw, (14,)).log_prob(x, mask), argnums=(0, 1)))
    seen = score(raw, a(VALUE), jnp.asarray(whole))
    unseen = score(raw, jnp.where(jnp.asarray(whole), a(VALUE), jnp.nan), jnp.asarray(whole))
    assert finite(unseen) and eqx.tree_equal(seen, unseen)
    law = TABLE(raw, (14,))
    classes, counts = law.parts[1].logits[0], law.parts[2]
    want = law.parts[0].log_prob(a([0, -1.2]), jnp.array([False, True])) + OneHot(classes).log_prob(a([0, 1, 0]))
    want += counts.log_prob(a([[1, 0, 0]])) + law.parts[5].log_prob(a([1]))
    np.testing.assert_allclose(seen[0], want, rtol=1e-12)
    assert score(raw, jnp.full(14, jnp.nan), jnp.zeros(14, bool))[0] == 0


def test_a_mixed_link_starts_at_the_means(x64):
    mean = a([0.3, 0.2, 0.5, 0.3, 0.4, 0.1, 0.1, 0.8, 4.0, -1.2, 0.4, 0.2, 0.7, 0.4])
    np.testing.assert_allclose(TABLE(TABLE.start(mean), (14,)).mean(), mean, rtol=1e-9)


def test_a_mixed_link_is_a_likelihood():
    """Of a directed model of a table with holes: jitted, mapped over rows, and traced once for equal links."""
    traced = []

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def score(p, z, rows):
        traced.append(p)
        return jnp.mean(jax.vmap(p.log_joint)(z, rows))

    conditional = Conditional(eqx.nn.Linear(2, NUMBERS, key=KEY), TABLE, (14,))
    p = Directed(Fixed(Gaussian(jnp.zeros(2), jnp.ones(2))), conditional)
    x, mask = jnp.tile(jnp.array(VALUE), (3, 1)), jnp.ones((3, 14), bool).at[1, 8].set(False).at[2, 1:4].set(False)
    rows = Row(jnp.where(mask, x, 0), mask)
    z = jr.normal(KEY, (3, 2))
    one, slope = score(p, z, rows)
    equal = MixedLink((*LINKS[:4], Censored((0,), (2,)), Bits()), PLACES, SHAPES)
    assert score(eqx.tree_at(lambda p: p.conditional.link, p, equal), z, rows)[0] == one and len(traced) == 1
    single = eqx.filter_jit(lambda p, z, row: p.log_joint(z, row))
    alone = [single(p, z[i], jax.tree.map(lambda leaf, i=i: leaf[i], rows)) for i in range(3)]
    np.testing.assert_allclose(one, np.mean(alone), rtol=1e-5)
    assert finite(eqx.filter(slope.conditional.net, eqx.is_array))
    assert jax.eval_shape(lambda: p.sample(key=KEY)[1]).shape == (14,)


def test_links_of_tables_are_written_and_read_back():
    text = "MixedLink(links=(Counts(), Classes()), places=((1,), (0, 2)), shapes=((1,), (1, 2)))"
    link = MixedLink((Counts(), Classes()), ((1,), (0, 2)), ((1,), (1, 2)))
    assert spell(link) == text and parse(text) == link != TABLE
    for link in (TABLE, ManyZeros(), Overdispersed(), Within((-INF, 0), (0, 1), floor=0.5)):
        for read in (parse(spell(link)), parse(spell(link, defaults=True))):
            assert read == link and jax.tree.structure(read) == jax.tree.structure(link) and spell(read) == spell(link)
    assert hash(parse(spell(TABLE))) == hash(TABLE)


WRONG = {
    "twice": (((0, 1), (1,)), r"a Mixed: expected each of 0\.\.2 once in its places, got \(\(0, 1\), \(1,\)\)"),
    "gap": (((0, 3), (1,)), r"each of 0\.\.2 once"),
    "negative": (((0, -1), (1,)), r"each of 0\.\.2 once"),
    "few": (((0,), (1,)), r"part 0 of a Mixed: expected 2 places for its event of shape \(2,\), got 1"),
    "many": (((0, 1), (2,), (3,)), "expected places for each part, got 3 for 2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_places_that_are_no_partition_are_refused(name):
    places, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        Mixed((Bernoulli(jnp.zeros(2)), Poisson(jnp.zeros(1))), places)
    with pytest.raises(ValueError, match="MixedLink"):
        MixedLink((Bits(), Counts()), places, ((2,), (1,)))


def test_other_mistakes_with_a_mixed_link_are_refused():
    with pytest.raises(ValueError, match="as many of both, got 1 and 2"):
        MixedLink((Bits(),), ((0,), (1,)), ((1,), (1,)))
    with pytest.raises(ValueError, match="for each part, got 0 for 0"):
        Mixed((), ())
    with pytest.raises(ValueError, match=r"expected shape \(14,\), got \(2, 7\)"):
        TABLE.size((2, 7))
    with pytest.raises(ValueError, match=f"needs {NUMBERS} numbers, got 7"):
        TABLE(jnp.zeros(7), (14,))
    with pytest.raises(ValueError, match=r"shape \(14,\)"):
        TABLE(jnp.zeros(NUMBERS), (14,)).log_prob(jnp.zeros((2, 14)))
    with pytest.raises(ValueError, match="mask must have"):
        TABLE(jnp.zeros(NUMBERS), (14,)).log_prob(jnp.zeros(14), jnp.ones((2, 14), bool))


def test_the_logits_of_a_pair_of_classes_are_those_of_a_bit():
    """Two ordered classes: one cut, the log odds of the upper class are location minus cut."""
    law = Ordered()(jnp.array([0.7, -0.2]), (2,))
    np.testing.assert_allclose(logit(float(law.mean()[1])), 0.9, rtol=1e-5)
