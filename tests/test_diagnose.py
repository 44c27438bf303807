"""Each diagnostic on a case whose truth is known, and all of them together.

Random estimates are asked to lie within 4.5 standard errors of the truth: see `helpers`.
"""

from __future__ import annotations

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats
from helpers import (
    BEST_MEAN_FIELD,
    CELLS,
    LIMIT,
    LOG_P,
    MODELS,
    POSTERIOR_COVARIANCE,
    POSTERIOR_MEAN,
    Affine,
    B,
    FullLinear,
    W,
    X,
    binary_rows,
    estimates,
    linear_exact,
    linear_mean_field,
    posterior_parts,
)

import ravine as rv
from ravine._tree import Fixed, Linear
from ravine.cli import main
from ravine.cli.diagnosis import divided
from ravine.core import LogLikelihood, Row
from ravine.data import Binarise, Dataset
from ravine.diagnose import (
    Effort,
    GradientNoise,
    ImportanceTail,
    PartNoise,
    Search,
    copies,
    diagnose,
    generalisation,
    gradient_noise,
    importance_tail,
    imputation_calibration,
    inference_gaps,
    latent_use,
    no_gaps,
    odd_rows,
    pareto_k,
    pareto_shape,
    two_sample,
)
from ravine.dist import Bits, Conditional, Gaussian, Homoscedastic
from ravine.gradients import Pathwise
from ravine.models.directed import Directed, Helmholtz
from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
from ravine.objectives import ELBO, AnalyticELBO
from ravine.recognisers import Amortised, Filled

SCALE = np.full(CELLS, 0.5)
SHIFT, STRETCH = 0.3, 1.7
SEARCH = Search(draws=8, judges=16)
EFFORT = Effort(rows=60, few=8, draws=20, particles=10, search=Search(20, 4, 8, 20))


def generator() -> LinearGaussian:
    return LinearGaussian(jnp.asarray(W), jnp.asarray(B), DiagonalNoise(jnp.asarray(SCALE)))


def exact_pair(model: Helmholtz) -> Helmholtz:
    """The pair with the same generator in closed form."""
    return Helmholtz(generator(), model.q)


def rows_of(model, n: int, seed: int = 0) -> Row:
    return Row(jax.jit(jax.vmap(lambda k: model.sample(key=k)[1]))(jr.split(jr.key(seed), n)))


def gaussian_kl(mean, covariance, other_mean, other) -> float:
    inverse, away = np.linalg.inv(other), np.asarray(other_mean) - np.asarray(mean)
    log_dets = np.linalg.slogdet(other)[1] - np.linalg.slogdet(covariance)[1]
    return 0.5 * (np.trace(inverse @ covariance) + away @ inverse @ away - len(away) + log_dets)


# Latents.


def test_divergences_and_spread_of_a_known_posterior(x64):
    batch = rows_of(generator(), 50)
    use = latent_use(linear_mean_field(SHIFT, STRETCH), batch, key=jr.key(0))
    covariance, mean = posterior_parts()
    m = np.asarray(batch.x) @ np.asarray(mean.weight).T + np.asarray(mean.bias) + SHIFT
    variance = STRETCH**2 / np.diag(np.linalg.inv(covariance))
    kl = 0.5 * (variance + m**2 - 1 - np.log(variance))
    np.testing.assert_allclose(use.kl, kl.mean(axis=0), rtol=1e-10)
    assert use.total == pytest.approx(kl.sum(axis=1).mean())
    np.testing.assert_allclose(use.spread, m.var(axis=0), rtol=1e-10)
    assert (use.active, use.collapsed) == (2, False)


def test_correlated_latents_show_the_divergence_of_their_marginals(x64):
    batch = Row(jnp.asarray(X)[None])
    use = latent_use(linear_exact(), batch, key=jr.key(0))
    variance = np.diag(POSTERIOR_COVARIANCE)
    np.testing.assert_allclose(use.kl, 0.5 * (variance + POSTERIOR_MEAN**2 - 1 - np.log(variance)), rtol=1e-6)
    truth = gaussian_kl(POSTERIOR_MEAN, POSTERIOR_COVARIANCE, np.zeros(2), np.eye(2))
    assert use.total == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("name, units", [("one-hot", 2), ("belief-net", 5)])
def test_discrete_latents_count_as_units(name, units):
    use = latent_use(MODELS[name](), binary_rows(), key=jr.key(0), draws=400)
    assert len(use.spread) == units and use.total > 0 and np.isfinite(use.reliance)


def two_factors(seed: int, rows: int = 300) -> np.ndarray:
    stream = np.random.default_rng(seed)
    return stream.normal(size=(rows, 2)) @ stream.normal(size=(2, 5)) + 0.3 * stream.normal(size=(rows, 5))


def fitted(seed: int, beta: float) -> tuple[rv.VAE, Row]:
    X = two_factors(seed)
    objective = AnalyticELBO(Pathwise(), beta=beta)
    model = rv.VAE(latents=2, hidden=(8,), objective=objective, rate=2e-2, steps=300, validation=0.0, random_state=seed)
    return model.fit(X), model._row(model._checked(X))


@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 20), marks=pytest.mark.slow)], ids=["one", "rest"])
def test_collapse_is_told_from_health(seeds):
    """Collapsed by a beta of 100, or by a generator that is cut off from z; each verdict must be right."""
    for seed in seeds:
        healthy, batch = fitted(seed, 1.0)
        forced, _ = fitted(seed, 100.0)
        first = lambda model: model.p.conditional.net.layers[0].weight  # noqa: E731
        deaf = eqx.tree_at(first, healthy.model_, replace_fn=jnp.zeros_like)
        verdicts = [latent_use(model, batch, key=jr.key(seed)) for model in (healthy.model_, forced.model_, deaf)]
        assert [use.collapsed for use in verdicts] == [False, True, True], seed
        assert [use.finding().level == "warning" for use in verdicts] == [False, True, True]
        assert "Posterior collapse" in verdicts[1].finding().words and "free bits" in verdicts[1].finding().words


# The recogniser.


def test_gaps_of_a_weak_recogniser_equal_their_closed_forms(x64):
    batch = Row(jnp.stack([jnp.asarray(X), -jnp.asarray(X), jnp.zeros(CELLS)]))
    model = exact_pair(linear_mean_field(SHIFT, STRETCH))
    gaps = inference_gaps(model, batch, key=jr.key(0), search=SEARCH)
    covariance, _ = posterior_parts()
    best = 1 / np.diag(np.linalg.inv(covariance))
    approximation = gaussian_kl(np.zeros(2), np.diag(best), np.zeros(2), covariance)
    lost = gaussian_kl(np.full(2, SHIFT), np.diag(STRETCH**2 * best), np.zeros(2), covariance)
    np.testing.assert_allclose(gaps.approximation, approximation, atol=1e-3)
    np.testing.assert_allclose(gaps.amortisation, lost - approximation, atol=1e-3)
    assert gaps.approximation[0] == pytest.approx(LOG_P - BEST_MEAN_FIELD, abs=1e-3)
    assert gaps.log_evidence[0] == pytest.approx(LOG_P)
    assert (gaps.direction, gaps.method) == ("exact", "closed form")
    assert gaps.finding().level == "warning"


def test_a_family_with_correlations_leaves_no_approximation_gap(x64):
    _, mean = posterior_parts()
    q = FullLinear(Affine(mean.weight, mean.bias - SHIFT), jnp.eye(2))
    gaps = inference_gaps(Helmholtz(generator(), q), Row(jnp.asarray(X)[None]), key=jr.key(0), search=SEARCH)
    truth = gaussian_kl(POSTERIOR_MEAN - SHIFT, np.eye(2), POSTERIOR_MEAN, POSTERIOR_COVARIANCE)
    assert gaps.approximation[0] == pytest.approx(0, abs=1e-3)
    assert gaps.amortisation[0] == pytest.approx(truth, abs=1e-3)


def test_without_a_closed_form_the_approximation_gap_is_sampled(x64):
    batch = Row(jnp.tile(jnp.asarray(X), (2, 1)))
    search = Search(draws=8, judges=16, evidence=4000)
    gaps = inference_gaps(linear_mean_field(SHIFT, STRETCH), batch, key=jr.key(0), search=search)
    assert (gaps.direction, gaps.method) == ("lower", "importance-4000")
    assert abs(gaps.log_evidence[0] - LOG_P) < LIMIT * gaps.error[0] < 0.02
    assert gaps.approximation[0] == pytest.approx(LOG_P - BEST_MEAN_FIELD, abs=1e-3 + LIMIT * gaps.error[0])


@pytest.mark.parametrize(
    "name, words", [("bits", "q is a Bernoulli"), ("two-layers", "q has 2 layers"), (None, "posterior is exact")]
)
def test_gaps_are_refused_where_they_make_no_sense(name, words):
    model, batch = generator() if name is None else MODELS[name](), binary_rows()
    assert words in (no_gaps(model, batch) or "")
    with pytest.raises(ValueError, match=words):
        inference_gaps(model, batch, key=jr.key(0))


def test_a_good_recogniser_is_called_good(x64):
    gaps = inference_gaps(exact_pair(linear_exact()), rows_of(generator(), 4), key=jr.key(0), search=SEARCH)
    assert np.max(np.abs(gaps.amortisation)) < 1e-3 and gaps.finding().level == "good"


# Importance weights.


@pytest.mark.parametrize("k", [-0.5, 0.0, 0.3, 0.7, 1.2])
def test_the_shape_of_pareto_draws_is_found(k):
    """100 sets of 2,000; the pull to 1/2 is undone, and 0.01 is left for the bias of the estimator, which is O(1/m)."""
    draws = scipy.stats.genpareto.rvs(k, size=(100, 2000), random_state=np.random.default_rng(0))
    shapes = (np.array([pareto_shape(d) for d in draws]) * 2010 - 5) / 2000
    assert abs(shapes.mean() - k) < LIMIT * shapes.std(ddof=1) / 10 + 0.01
    assert shapes.std(ddof=1) < 1.3 * max(1 + k, 0.7) / np.sqrt(2000)


@pytest.mark.parametrize("narrow", [0.2, 0.5, 0.95])
def test_weights_of_a_proposal_that_is_too_narrow_have_the_tail_of_the_theory(narrow):
    """p = N(0, 1), q = N(0, s^2): log w = z^2 (1/s^2 - 1) / 2 + const, so P(w > t) ~ t^(-1/k) with k = 1 - s^2."""
    z = np.sqrt(narrow) * np.random.default_rng(1).normal(size=(60, 20_000))
    found = pareto_k(0.5 * z**2 * (1 / narrow - 1))
    # the tail has a slowly varying factor 1 / sqrt(log t), which moves the fit by a few hundredths
    assert found.mean() == pytest.approx(1 - narrow, abs=0.08)


def test_a_bad_proposal_is_flagged_and_a_good_one_is_not():
    batch = rows_of(generator(), 40)
    tails = [
        importance_tail(exact_pair(model), batch, key=jr.key(0), draws=500)
        for model in (linear_mean_field(0.0, 0.3), linear_mean_field(0.0, 1.4), linear_exact())
    ]
    assert [tail.heavy > 0.5 for tail in tails] == [True, False, False]
    assert [tail.finding().level for tail in tails] == ["warning", "good", "good"]
    assert tails[2].effective == pytest.approx(500, rel=1e-3) and tails[0].effective.mean() < 200
    one = jax.tree.map(lambda leaf: leaf[3:4], batch)
    alone = importance_tail(exact_pair(linear_mean_field(0.0, 0.3)), one, key=jr.key(0), draws=500)
    assert alone.k[0] == tails[0].k[3]


def test_equal_weights_have_no_tail_and_few_are_refused():
    rounded = -800 + np.float32(1e-5) * np.random.default_rng(0).integers(-3, 4, size=(2, 100))
    assert pareto_k(rounded.astype(float)).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="at least 25 weights"):
        pareto_k(np.zeros((1, 20)))


# Gradients.


class Noisy(eqx.Module):
    """A loss whose gradient is 2 p plus noise of standard deviation 3 in p, and a constant in q."""

    scale: float | Linear = 1.0

    def __call__(self, model, batch, *, key):
        noise = 3.0 * jr.normal(key, model.p.shape)
        return self.scale * (jnp.sum(model.p**2) + model.p @ noise + 0.5 * jnp.sum(model.q)), {}


class Both(eqx.Module):
    p: jax.Array
    q: jax.Array
    prior: Fixed


@pytest.mark.parametrize("scale", [1.0, Linear(7.0, 1.0, 10.0)], ids=["number", "schedule"])
def test_signal_and_variance_have_their_closed_forms(x64, scale):
    model, draws = Both(jnp.array([1.0, -2.0]), jnp.zeros(4), Fixed(jnp.ones(3))), 4000
    noise = gradient_noise(model, Noisy(scale), Row(jnp.zeros((1, 1))), key=jr.key(0), draws=draws)
    p, q = noise.parts["p"], noise.parts["q"]
    assert list(noise.parts) == ["p", "q"] and (p.parameters, q.parameters) == (2, 4)
    # E[g] = (2, -4), Var[g] = 9 each: the estimate of the signal has variance sum 4 E[g]^2 Var[g] / R, of the other
    # 2 * 2 * 81 / R
    assert abs(p.signal - 20) < LIMIT * np.sqrt(4 * 20 * 9 / draws)
    assert abs(p.variance - 18) < LIMIT * np.sqrt(4 * 81 / draws)
    assert q.signal == pytest.approx(4 * 0.25) and q.variance == pytest.approx(0, abs=1e-20)


def test_noise_alone_has_no_signal(x64):
    """20,000 gradients of mean 0 and variance 9; the variance of mean^2 - s^2 / R is 2 (9 / R)^2 R / (R - 1)."""
    n, draws = 20_000, 4
    model = Both(jnp.zeros(n), jnp.zeros(4), Fixed(jnp.ones(3)))
    p = gradient_noise(model, Noisy(), Row(jnp.zeros((1, 1))), key=jr.key(0), draws=draws).parts["p"]
    assert abs(p.signal) < LIMIT * np.sqrt(n * 2 * (9 / draws) ** 2 * draws / (draws - 1))


@pytest.mark.slow
def test_parts_of_a_pair_agree_with_draws_one_by_one(x64):
    model, batch, draws = MODELS["vae"](), binary_rows(), 3000
    noise = gradient_noise(model, ELBO(Pathwise()), batch, key=jr.key(0), draws=draws)
    for name in ("p", "q"):
        value = lambda part, key, name=name: ELBO(Pathwise())(  # noqa: E731
            eqx.tree_at(lambda m: getattr(m, name), model, part), batch, key=key
        )[0]
        gradients = estimates(value, getattr(model, name), draws, seed=1)[:, 1:]
        part, variance = noise.parts[name], gradients.var(axis=0, ddof=1).sum()
        signal = (gradients.mean(axis=0) ** 2).sum() - variance / draws
        assert part.variance == pytest.approx(variance, rel=0.15)
        assert part.signal == pytest.approx(signal, rel=0.15)


def test_a_faint_gradient_is_named():
    loud, faint = PartNoise(1.0, 1.0, 3), PartNoise(0.001, 1.0, 3)
    found = GradientNoise({"p": loud, "q": faint}, 32).finding()
    assert found.level == "note" and "A step of q is mostly noise" in found.words
    assert GradientNoise({"p": loud}, 32).finding().level == "good"
    assert PartNoise(-0.1, 1.0, 3).ratio == 0.0 and PartNoise(1.0, 0.0, 3).ratio == np.inf


# Likelihoods.


def scored(values, method: str = "closed-form") -> LogLikelihood:
    values = np.asarray(values, float)
    return LogLikelihood(values, np.zeros(len(values)), "exact", method)


def test_overfitting_is_a_difference_of_means(x64):
    stream = np.random.default_rng(0)
    train, same, worse = stream.normal(size=200), stream.normal(size=100), stream.normal(-1, 1, size=100)
    assert generalisation(scored(train), scored(same)).finding().level == "good"
    found = generalisation(scored(train), scored(worse))
    assert found.gap == pytest.approx(train.mean() - worse.mean())
    assert found.error == pytest.approx(np.sqrt(train.var(ddof=1) / 200 + worse.var(ddof=1) / 100))
    assert found.finding().level == "warning" and "overfits" in found.finding().words
    assert "easier" in generalisation(scored(worse), scored(train)).finding().words
    with pytest.raises(ValueError, match="evaluate both in one way"):
        generalisation(scored(train), scored(worse, "importance-100"))
    with pytest.raises(ValueError, match="at least 2 rows"):
        generalisation(scored(train), scored(worse[:1]))


@pytest.mark.slow
def test_a_model_that_memorised_its_rows_is_seen_to_overfit():
    train, fresh = (rows_of(generator(), 30, seed) for seed in (0, 1))
    fit = rv.GaussianMixture(components=15, random_state=0).fit(np.asarray(train.x, float))
    gap = generalisation(*(fit.log_likelihood(np.asarray(b.x, float)) for b in (train, fresh)))
    assert gap.finding().level == "warning"


def test_planted_rows_are_odd_and_chance_is_not():
    """Half a squared normal has the longest tail of any Gaussian model's log p(x): one row in 7,000 is passed over."""
    stream = np.random.default_rng(0)
    chance = [len(odd_rows(-0.5 * stream.chisquare(1, size=500)).places) for _ in range(100)]
    assert np.sum(chance) <= scipy.stats.poisson.ppf(1 - 6.8e-6, 50_000 * 1.4e-4)
    planted = np.append(stream.normal(size=200), [-40.0, -60.0])
    found = odd_rows(planted, np.arange(202) + 1000)
    assert found.places.tolist() == [1201, 1200] and found.finding().numbers["odd"] == 2
    assert "rows 1201 (-60.0 nats), 1200" in found.finding().words
    assert odd_rows(np.zeros(50)).finding().level == "good"


# Samples.


def test_equal_laws_are_told_apart_as_rarely_as_chance_allows():
    """120 pairs: z has mean 0 and standard deviation 1; it passes 3 in about one case of 700."""
    stream = np.random.default_rng(0)
    kinds = [lambda: stream.normal(size=(2, 30, 3)), lambda: (stream.random((2, 30, 6)) < 0.2) + 0.0]
    found = [two_sample(*kinds[i % 2](), stream=stream) for i in range(120)]
    z, accuracy = np.array([(each.z, each.accuracy) for each in found]).T
    assert abs(accuracy.mean() - 0.5) < LIMIT * accuracy.std() / np.sqrt(120)
    assert abs(z.mean()) < LIMIT * z.std() / np.sqrt(120)
    assert z.std() == pytest.approx(1, abs=LIMIT / np.sqrt(240) + 0.05)  # 0.05: 200 exchanges, and few rows
    assert np.count_nonzero(z > 3) < 5  # with odds of 4e-6


@pytest.mark.parametrize("change", ["shift", "scale", "correlation", "constant"])
def test_a_changed_law_is_told_apart(change):
    stream = np.random.default_rng(0)
    x, y = stream.normal(size=(2, 150, 4))
    mixed = np.linalg.cholesky(0.3 * np.eye(4) + 0.7).T
    y = {"shift": y + 0.7, "scale": 1.7 * y, "correlation": y @ mixed, "constant": 0 * y}[change]
    found = two_sample(x, y, stream=stream)
    assert found.z > 3 and found.finding().level != "good"
    assert found.finding().numbers["accuracy"] == found.accuracy > 0.55


def test_columns_that_never_vary_tell_nothing():
    found = two_sample(np.ones((30, 2)), np.ones((40, 2)), stream=np.random.default_rng(0))
    assert (found.accuracy, found.z, found.rows) == (0.5, 0.0, 30)
    with pytest.raises(ValueError, match="at least 20 rows"):
        two_sample(np.ones((30, 2)), np.ones((19, 2)), stream=np.random.default_rng(0))


def seen(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x, np.ones(x.shape, bool)


def test_copied_rows_are_counted():
    stream = np.random.default_rng(0)
    train, held, fresh = stream.normal(size=(3, 300, 6)) * np.array([1, 1, 1, 1, 1, 1e4])
    half = np.where(np.arange(300)[:, None] < 150, train + 1e-3 * stream.normal(size=(300, 6)), fresh)
    copied, clean = copies(seen(train), seen(held), half), copies(seen(train), seen(held), fresh)
    assert copied.share == pytest.approx(0.5, abs=0.03) and copied.expected < 0.03
    assert [found.finding().level for found in (copied, clean)] == ["warning", "good"]
    assert clean.nearer == pytest.approx(0.5, abs=0.1) and copied.nearer > 0.7
    twice = copies(seen(np.concatenate([train, train])), seen(held), half)  # a repeated row is not its own rival
    assert twice == copied


def test_a_copy_is_found_through_holes():
    stream = np.random.default_rng(0)
    train, held, fresh = stream.normal(size=(3, 200, 12))
    holes = [stream.random(train.shape) < 0.8 for _ in range(2)]
    masked = lambda x, mask: (np.where(mask, x, 0), mask)  # noqa: E731
    found = [copies(masked(train, holes[0]), masked(held, holes[1]), made) for made in (train, fresh)]
    assert found[0].share > 0.95 and found[1].z < 3


def test_rows_that_repeat_by_chance_are_no_copies():
    stream = np.random.default_rng(0)
    train, held, fresh = (stream.random((3, 400, 5)) < 0.3) + 0.0
    found = copies(seen(train), seen(held), fresh)
    assert found.expected > 0.5 and found.z < 3
    with pytest.raises(ValueError, match="distinct training rows"):
        copies(seen(np.ones((30, 2))), seen(held[:, :2]), fresh[:, :2])


# Imputations.


def test_intervals_of_the_right_model_hold_what_they_say():
    batch = rows_of(generator(), 3000)
    found = imputation_calibration(generator(), batch, key=jr.key(0), draws=39)
    z = (np.array(found.coverage) - [0.5, 0.8, 0.95]) / np.array(found.error)
    assert np.max(np.abs(z)) < LIMIT and max(found.error) < 0.02
    assert found.cells == pytest.approx(0.2 * batch.x.size, rel=0.2)
    assert np.isnan(found.log_score) and found.finding().level == "good"


@pytest.mark.parametrize("noise, word", [(0.05, "narrow"), (2.0, "wide")])
def test_wrong_intervals_are_named(noise, word):
    wrong = LinearGaussian(jnp.asarray(W), jnp.asarray(B), DiagonalNoise(jnp.full(CELLS, noise)))
    batch = rows_of(generator(), 400)
    found = imputation_calibration(wrong, batch, key=jr.key(0), draws=39).finding()
    assert found.level == "warning" and f"too {word}" in found.words


def independent_bits(logits: list[float]) -> Helmholtz:
    """Cells that do not depend on z."""
    d = len(logits)
    p = Directed(
        Fixed(Gaussian(jnp.zeros(1), jnp.ones(1))),
        Conditional(Affine(jnp.zeros((d, 1)), jnp.asarray(logits)), Bits(), (d,)),
    )
    law = Conditional(Affine(jnp.zeros((1, d)), jnp.zeros(1)), Homoscedastic(jnp.zeros(1), 0.0), (1,))
    return Helmholtz(p, Amortised(Filled(Fixed(jnp.zeros(d))), law))


@pytest.mark.slow
def test_log_scores_of_independent_bits_have_their_expectation():
    """Of m draws c ~ Binomial(m, p) equal a one: E[log((c + 1/2) / (m + 1))] by summation."""
    logits, m = [-1.0, 0.5, 2.0], 39
    model = independent_bits(logits)
    found = imputation_calibration(model, rows_of(model, 2000), key=jr.key(0), draws=m, particles=2)
    p, c = scipy.special.expit(np.array(logits)), np.arange(m + 1)
    given = lambda q: scipy.stats.binom.pmf(c, m, q) @ np.log((c + 0.5) / (m + 1))  # noqa: E731
    truth = np.mean([q * given(q) + (1 - q) * given(1 - q) for q in p])
    assert abs(found.log_score - truth) < LIMIT * found.score_error < 0.1
    assert found.base_score == pytest.approx(np.mean(p * np.log(p) + (1 - p) * np.log(1 - p)), abs=0.05)
    wrong = imputation_calibration(
        independent_bits([2.0, -2.0, -2.0]), rows_of(model, 300), key=jr.key(0), draws=m, particles=2
    )
    assert wrong.coverage == () and wrong.finding().level == "warning"


def test_there_must_be_cells_to_hide():
    with pytest.raises(ValueError, match="rows with 2 observed cells"):
        imputation_calibration(
            generator(),
            Row(jnp.ones((4, 3)), jnp.tile(jnp.array([True, False, False]), (4, 1))),
            key=jr.key(0),
            draws=39,
        )
    with pytest.raises(ValueError, match="40 i - 1"):
        imputation_calibration(generator(), Row(jnp.ones((4, 3))), key=jr.key(0), draws=50)


# All of it.

NAMES = (
    "latents",
    "recogniser",
    "importance weights",
    "gradient",
    "generalisation",
    "odd rows",
    "samples",
    "copies",
    "imputations",
)


def grey_rows(seed: int, n: int = 40) -> Row:
    """Grey values with holes; row 5 has no cell at all."""
    x = jr.uniform(jr.key(seed), (n, CELLS))
    mask = jr.bernoulli(jr.key(seed + 100), 0.8, x.shape).at[5].set(False)
    return Row(jnp.where(mask, x, 0), mask)


@pytest.mark.slow
def test_a_diagnosis_has_every_finding_in_words_and_json():
    """Rows with holes, drawn as bits."""
    held = grey_rows(1)
    found = diagnose(MODELS["vae"](), grey_rows(0), held, key=jr.key(2), draw=Binarise(), effort=EFFORT)
    assert tuple(finding.name for finding in found.findings) == NAMES
    assert [name for name, _ in found.left_out] == ["hidden units"]
    assert all(finding.words.endswith(".") and len(finding.words) < 600 for finding in found.findings)
    assert found["odd rows"].numbers["rows"] == np.count_nonzero(np.asarray(held.mask).any(axis=1)) < 40
    assert {"log_score", "base_score", "cells"} <= set(found["imputations"].numbers)
    assert set(found["gradient"].numbers) == {f"{k}_{p}" for k in ("signal", "variance", "ratio") for p in "pq"}
    assert str(found).splitlines()[0] == str(found["latents"])
    again = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [finding["name"] for finding in again["findings"]] == list(NAMES)


@pytest.mark.slow
def test_an_odd_row_is_named_by_its_place():
    train, held = rows_of(generator(), 70, 0), rows_of(generator(), 60, 1)
    held = eqx.tree_at(lambda r: r.x, held, held.x.at[7].add(50.0))
    found = diagnose(linear_mean_field(SHIFT, STRETCH), train, held, key=jr.key(0), effort=EFFORT)
    assert "rows 7 (" in found["odd rows"].words and found["imputations"].numbers["coverage_0.95"] > 0.5


@pytest.mark.slow
def test_discrete_layers_and_few_rows_leave_some_out():
    found = diagnose(MODELS["belief-net"](), grey_rows(0, 15), key=jr.key(2), draw=Binarise(), effort=EFFORT)
    assert {finding.name for finding in found.findings} == {"latents", "importance weights", "odd rows", "imputations"}
    assert "discrete" in dict(found.left_out)["gradient"] and "too few" in dict(found.left_out)["samples"]


@pytest.mark.slow
def test_what_does_not_apply_is_left_out_with_a_reason():
    found = diagnose(generator(), rows_of(generator(), 30), key=jr.key(0), effort=EFFORT)
    reasons = dict(found.left_out)
    assert set(reasons) == {"recogniser", "importance weights", "gradient", "generalisation", "copies", "hidden units"}
    assert "posterior is exact" in reasons["recogniser"] and "held-out" in reasons["generalisation"]
    assert "[left out] recogniser: the model's posterior is exact" in str(found)
    assert found.to_json()["left_out"] == reasons


def test_bad_models_and_rows_are_refused_in_one_line():
    broken = eqx.tree_at(lambda m: m.loading, generator(), jnp.full((CELLS, 2), jnp.nan))
    found = diagnose(broken, Row(jnp.ones((3, CELLS))), key=jr.key(0))
    assert [finding.name for finding in found.findings] == ["parameters"] and found.findings[0].level == "warning"
    with pytest.raises(ValueError, match="at least 2 rows with an observed cell, got 1"):
        diagnose(generator(), Row(jnp.ones((1, CELLS))), key=jr.key(0))


def test_numbers_that_are_not_finite_become_null():
    tail = ImportanceTail(np.array([np.inf, 0.2]), np.ones(2), 100).finding()
    assert tail.to_json()["numbers"]["largest_k"] is None


# The command.


@pytest.mark.slow
def test_the_command_finds_the_rows_again_and_speaks(tmp_path, capsys):
    table, run = tmp_path / "rows.npy", tmp_path / "run"
    np.save(table, two_factors(0, 100))
    words = ["fit", "factor-analysis", str(table), "--seed", "3", "--test-size", "0.3", "--out", str(run)]
    assert main(words) == 0 and main(["diagnose", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "70 and 30 rows" in next(f for f in found["findings"] if f["name"] == "generalisation")["words"]
    model, kept = rv.load(run), Dataset(str(table), np.load(table))
    train, held_out = divided(kept, model)
    assert (len(train), len(held_out)) == (70, 30)
    np.testing.assert_allclose(train.mean(axis=0), np.asarray(model.model_.bias), atol=1e-3)
    assert len(np.unique(np.concatenate([train, held_out]), axis=0)) == 100
    np.save(table, two_factors(0, 60))
    assert main(["diagnose", str(run)]) == 2
    assert "expected at least 70 rows, got 60" in capsys.readouterr().err
