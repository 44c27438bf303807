"""Holes: intervals of cells against dense algebra, multiple imputation against its promised coverage, Rubin's rules.

The coverage tests repeat a whole study: draw a table, make holes at random given what is seen, complete it m times from
refits to bootstrap resamples, analyse every table, pool, and see whether the interval holds the truth.
"""

import functools

import equinox as eqx
import helpers
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import ravine as rv
from ravine.core import Row
from ravine.dist import Homoscedastic, Real
from ravine.evidence import drawn_completion
from ravine.gradients import Pathwise
from ravine.imputation import (
    cell_quantile,
    imputed_interval,
    intervals,
    missing_patterns,
    multiple_impute,
    named_tables,
    pool,
    refitted,
    resample,
)
from ravine.imputation.credible import _completed
from ravine.models.correlated_components import FullCovariance
from ravine.models.directed import Helmholtz
from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
from ravine.models.mixture import Mixture
from ravine.objectives import IWAE, AnalyticELBO
from ravine.rules import EM

SEEN = np.array([True, False, True])


def linear() -> LinearGaussian:
    return LinearGaussian(
        jnp.asarray(helpers.W), jnp.asarray(helpers.B), DiagonalNoise(jnp.full(3, helpers.NOISE**0.5))
    )


def gaussian() -> Mixture:
    covariance = helpers.W @ helpers.W.T + helpers.NOISE * np.eye(3)
    return Mixture(jnp.zeros(1), FullCovariance.of(jnp.asarray(helpers.B)[None], jnp.asarray(covariance)[None]))


def holed_row(mask: np.ndarray = SEEN) -> Row:
    return Row(jnp.where(mask, helpers.X, 0.0), jnp.asarray(mask))


def table(rows: int = 40, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, 3)) * [1.0, 30.0, 0.1] + [0.0, 100.0, 0.0]
    X[rng.random(X.shape) < 0.25] = np.nan
    X[3] = np.nan
    return X


class Traced(eqx.Module):
    """An objective that counts how often it is traced."""

    inner: AnalyticELBO = AnalyticELBO(Pathwise())

    def __call__(self, model, batch, *, key):
        TRACES.append(1)
        return self.inner(model, batch, key=key)


TRACES: list[int] = []


@functools.cache
def fitted(name: str):
    small = {
        "mixture": functools.partial(rv.GaussianMixture, components=1, iterations=20),
        "vae": functools.partial(
            rv.VAE, latents=1, hidden=(4,), steps=20, batch_size=16, particles=20, objective=Traced()
        ),
    }
    return small[name](random_state=0, progress=False).fit(table())


# --- intervals


@functools.partial(jax.jit, static_argnums=0)
def quantiles(make, rows, ps):
    return jax.vmap(lambda row: jax.vmap(lambda p: cell_quantile(make(), row, p))(ps))(rows)


@pytest.mark.parametrize("make", [linear, gaussian])
def test_a_quantile_is_that_of_the_dense_conditional(make, x64):
    masks, ps = np.array([SEEN, [False, False, True], [False] * 3]), np.array([0.025, 0.5, 0.9])
    rows = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(holed_row, masks))
    for mask, found in zip(masks, np.asarray(quantiles(make, rows, jnp.asarray(ps))), strict=True):
        mean, covariance, _ = helpers.dense(mask)
        want = stats.norm.ppf(ps[:, None], mean, np.sqrt(np.diag(covariance)))
        np.testing.assert_allclose(found[:, ~mask], want, rtol=1e-8, atol=1e-8)
        np.testing.assert_array_equal(found[:, mask], np.tile(helpers.X[mask], (3, 1)))


def two_groups() -> Mixture:
    means, wide = jnp.array([[0.0, -2.0], [0.0, 5.0]]), jnp.stack([jnp.eye(2), 4 * jnp.eye(2)])
    return Mixture(jnp.log(jnp.array([0.3, 0.7])), FullCovariance.of(means, wide))


def test_a_quantile_of_a_mixture_inverts_its_distribution_function(x64):
    row, ps = Row(jnp.array([[1.0, 0.0]]), jnp.array([[True, False]])), np.array([0.01, 0.4, 0.975])
    first, second = 0.3 * stats.norm.pdf(1), 0.7 * stats.norm.pdf(1, scale=2)
    share = first / (first + second)
    for p, at in zip(ps, np.asarray(quantiles(two_groups, row, jnp.asarray(ps)))[0, :, 1], strict=True):
        assert share * stats.norm.cdf(at, -2, 1) + (1 - share) * stats.norm.cdf(at, 5, 2) == pytest.approx(p, abs=1e-10)


def test_a_model_without_closed_form_has_no_exact_quantile():
    with pytest.raises(TypeError, match="Helmholtz.*draws"):
        cell_quantile(helpers.linear_exact(), holed_row(), jnp.asarray(0.5))


def test_draws_that_share_their_latents_follow_the_conditional(x64):
    """4.5 standard errors on 4 numbers: a correct code fails for one seed in 37,000."""
    model = Helmholtz(helpers.linear_generator(), helpers.ExactLinear())
    mean, covariance, _ = helpers.dense(SEEN)
    draw = jax.jit(jax.vmap(lambda key: _completed(model, holed_row(), 20, 2, key)))
    many = draw(jr.split(jr.key(0), 4000))
    np.testing.assert_array_equal(np.asarray(many)[..., SEEN], np.broadcast_to(helpers.X[SEEN], (4000, 2, 2)))
    cell = np.asarray(many)[..., 1]
    assert helpers.worst(cell, float(mean[0])) < helpers.LIMIT
    assert helpers.worst((cell - mean[0]) ** 2, float(covariance[0, 0])) < helpers.LIMIT


@pytest.mark.parametrize("name", ["mixture", pytest.param("vae", marks=pytest.mark.slow)])
def test_intervals_keep_what_was_seen_and_grow_with_the_level(name):
    X = table()
    low, high = intervals(fitted(name), X, 0.9, draws=99)
    wider = intervals(fitted(name), X, 0.98, draws=99)
    holes = np.isnan(X)
    np.testing.assert_array_equal(low[~holes], X[~holes])
    np.testing.assert_array_equal(high[~holes], X[~holes])
    assert (low[holes] < high[holes]).all()
    assert (wider[0][holes] <= low[holes]).all() and (wider[1][holes] >= high[holes]).all()
    alone = intervals(fitted(name), X[3:4], 0.9, draws=99)
    np.testing.assert_array_equal(alone[:, 0], np.stack([low, high])[:, 3])


def test_intervals_hold_the_imputation():
    low, high = fitted("mixture").impute(table(), interval=0.5)
    filled = fitted("mixture").impute(table())
    assert ((low <= filled) & (filled <= high)).all()


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_is_a_probability(level):
    with pytest.raises(ValueError, match="interval: expected a probability"):
        intervals(fitted("mixture"), table(), level)


# --- tables of the user's kind


def patients() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    age = np.round(rng.normal(50, 10, size=60))
    frame = pd.DataFrame({"age": age, "pulse": 60 + 0.3 * age + rng.normal(size=60)})
    frame = frame.set_axis([f"p{i}" for i in range(60)])
    frame["group"] = pd.Categorical(np.where(age > 50, "old", np.where(age > 40, "middle", "young")))
    return frame.astype({"age": "Int64"}).mask(rng.random((60, 3)) < 0.2)


@pytest.mark.slow
def test_what_a_shell_asks_for_comes_as_frames():
    """Columns of several kinds: what was seen is kept, and so are data types; a category has no interval."""
    X = patients()
    fields = {"latents": 1, "hidden": (4,), "objective": IWAE(2, Pathwise()), "steps": 20, "particles": 20}
    fields |= {"likelihood": Real()}
    model = rv.MIWAE(random_state=0, progress=False, **fields).fit(X)
    made = named_tables(model, X, interval=0.9)
    assert list(made) == ["", "-low", "-high"]
    for name, frame in made.items():
        assert (frame.dtypes == X.dtypes).all() and frame.index.equals(X.index)
        pd.testing.assert_frame_equal(frame.where(X.notna()), X)
        np.testing.assert_array_equal(frame.isna(), X.isna() & np.array([False, False, name != ""]))
    middle, low, high = (frame["pulse"] for frame in made.values())
    assert (low <= middle).mean() > 0.9 and (middle <= high).mean() > 0.9
    pd.testing.assert_frame_equal(model.impute(X.iloc[5:6]), made[""].iloc[5:6])


def test_draws_and_completed_tables_are_numbered():
    X = table()
    some, proper = (named_tables(fitted("mixture"), X, **{what: 2}) for what in ("draws", "m"))
    assert list(some) == list(proper) == ["-1", "-2"]
    np.testing.assert_array_equal(some["-2"], fitted("mixture").impute(X, draws=2)[1])
    np.testing.assert_array_equal(proper["-2"], multiple_impute(fitted("mixture"), X, 2)[1])
    assert list(named_tables(fitted("mixture"), X)) == [""]


def test_a_shell_asks_for_one_thing():
    with pytest.raises(ValueError, match="impute: expected one of draws, interval, m"):
        named_tables(fitted("mixture"), table(), draws=2, m=2)
    with pytest.raises(ValueError, match="interval: expected a probability"):
        imputed_interval(fitted("mixture"), table(), 2.0)


def test_intervals_are_of_the_kind_that_was_given():
    frame = pd.DataFrame(table(), columns=["a", "b", "c"], index=range(10, 50))
    ends = imputed_interval(fitted("mixture"), table(), 0.9)
    np.testing.assert_array_equal(np.stack(ends), intervals(fitted("mixture"), table(), 0.9))
    named = rv.GaussianMixture(components=1, iterations=20, random_state=0, progress=False).fit(frame)
    ends = imputed_interval(named, frame, 0.9)
    assert ends.low.index.equals(frame.index) and list(ends.high) == list(frame)
    assert (ends.low <= ends.high).all(axis=None)


# --- Rubin's rules


def test_pooling_by_hand():
    """W = 0.5, B = 1, m = 3: T = 11/6, lambda = 8/11; with 20 degrees of freedom those of Barnard & Rubin."""
    pooled = pool([1.0, 2.0, 3.0], [0.5, 0.5, 0.5], freedom=20)
    of_draws, observed = 2 / (8 / 11) ** 2, (3 / 11) * 20 * 21 / 23
    assert pooled.standard_error == pytest.approx((11 / 6) ** 0.5)
    assert pooled.missing_information == pytest.approx(8 / 11)
    assert pooled.freedom == pytest.approx(1 / (1 / of_draws + 1 / observed))
    assert pool([1.0, 2.0, 3.0], [0.5] * 3).freedom == pytest.approx(of_draws)
    reach = stats.t.ppf(0.975, pooled.freedom) * (11 / 6) ** 0.5
    np.testing.assert_allclose(pooled.interval(), [2 - reach, 2 + reach])


def test_tables_that_agree_are_one_table():
    q, u = np.array([[1.0, -2.0]] * 4), np.array([[0.25, 4.0]] * 4)
    pooled = pool(q, u)
    np.testing.assert_array_equal(pooled.estimate, q[0])
    np.testing.assert_allclose(pooled.standard_error, [0.5, 2.0])
    assert (pooled.missing_information == 0).all() and np.isinf(pooled.freedom).all()
    np.testing.assert_allclose(pooled.interval(0.9)[1], q[0] + stats.norm.ppf(0.95) * np.array([0.5, 2.0]))
    np.testing.assert_allclose(pool(q, u, freedom=8).freedom, 8 * 9 / 11)


@pytest.mark.parametrize(
    "arguments",
    [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, 2.0], [1.0, -1.0]), ([1.0, np.nan], [1.0, 1.0]), (1.0, 1.0)],
)
def test_what_cannot_be_pooled_is_refused(arguments):
    with pytest.raises(ValueError, match="pool: expected"):
        pool(*arguments)


# --- patterns


def test_patterns_are_counted():
    X = np.array([[1, 2, 3], [np.nan, 2, np.nan], [1, 2, 3], [np.nan, 1, np.nan], [1, np.nan, 1]])
    found = missing_patterns(X)
    assert found.names == ("x0", "x1", "x2") and found.counts.tolist() == [2, 2, 1]
    assert found.patterns.tolist() == [[False] * 3, [True, False, True], [False, True, False]]
    np.testing.assert_allclose(found.shares, [0.4, 0.2, 0.4])
    assert found.counts.sum() == len(X)
    lines = str(found).splitlines()
    assert lines[0] == "5 rows, 3 patterns; . observed, x missing" and lines[-1].split() == ["1", ".x."]


def test_patterns_of_a_frame_have_its_names():
    frame = pd.DataFrame({"age": pd.array([1, None], dtype="Int64"), "city": ["a", None]})
    assert missing_patterns(frame).names == ("age", "city") and missing_patterns(frame).shares.tolist() == [0.5, 0.5]


def test_many_patterns_are_cut():
    X = np.where(np.array([[i >> j & 1 for j in range(5)] for i in range(32)], bool), np.nan, 1.0)
    assert str(missing_patterns(X)).endswith("12 more patterns") and len(missing_patterns(X).counts) == 32


@pytest.mark.parametrize("X, names", [(np.zeros(3), None), (np.zeros((0, 2)), None), (np.zeros((2, 2)), ["a"])])
def test_what_is_no_table_has_no_patterns(X, names):
    with pytest.raises(ValueError, match="expected"):
        missing_patterns(X, names)


# --- resamples and refits


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(1, 4), st.floats(0.3, 1.0), st.integers(0, 1000))
def test_a_resample_loses_no_column(rows, columns, share, seed):
    stream = np.random.default_rng(seed)
    mask = stream.random((rows, columns)) < share
    places = resample(mask, stream)
    assert places.shape == (rows,) and ((0 <= places) & (places < rows)).all()
    assert (mask[np.unique(places)].sum(axis=0) >= np.minimum(mask.sum(axis=0), 2)).all()


def test_a_table_that_cannot_be_resampled_is_refused():
    with pytest.raises(ValueError, match="multiple_impute.*1 in column 0"):
        resample(np.eye(40, dtype=bool), np.random.default_rng(0))


def test_a_refit_is_a_fit_to_the_resampled_rows(x64):
    X, model = table(), fitted("mixture")
    row, key = model._row(X), jr.key(7)
    again = refitted(model, model.schema_, row, key=key)
    places = resample(~np.isnan(X), stream_of(key))
    by_hand = rv.GaussianMixture(components=1, iterations=20, random_state=0).fit(X[places]).model_
    np.testing.assert_allclose(again.components.means, by_hand.components.means, rtol=1e-9)
    np.testing.assert_allclose(again.components.factors, by_hand.components.factors, rtol=1e-9)
    assert not np.allclose(again.components.means, model.model_.components.means)


def stream_of(key) -> np.random.Generator:
    words = np.asarray(jr.key_data(key)).tolist()
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([*words, 2])))


@pytest.mark.parametrize("name", ["mixture", pytest.param("vae", marks=pytest.mark.slow)])
def test_completed_tables_differ_in_their_holes_alone(name):
    X = table()
    tables = multiple_impute(fitted(name), X, 3)
    holes = np.isnan(X)
    assert tables.shape == (3, *X.shape) and np.isfinite(tables).all()
    np.testing.assert_array_equal(tables[:, ~holes], np.broadcast_to(X[~holes], (3, (~holes).sum())))
    assert (np.ptp(tables[:, holes], axis=0) > 0).all()
    before = len(TRACES)
    again = multiple_impute(fitted(name), X.astype(np.float32), 2)
    np.testing.assert_allclose(again, tables[:2], rtol=1e-4)
    assert again.dtype == np.float32 and len(TRACES) == before, "a refit has compiled the training again"


@pytest.mark.slow
def test_every_table_has_parameters_of_its_own():
    """Means of the 400 holes of a column with 10 numbers: their variance between tables is that of a mean of 10 and of
    one of 400 together, 41 / 400; with the parameters of the fit it would be 1 / 400. Of 10 tables one set in 10,000 of
    the proper ones is below 3 / 400, and one in 700 of the others above.
    """
    X = np.concatenate([np.random.default_rng(0).normal(size=(10, 1)), np.full((400, 1), np.nan)])
    model = rv.GaussianMixture(components=1, iterations=3, random_state=0, progress=False).fit(X)
    means = multiple_impute(model, X, 10)[:, 10:, 0].mean(axis=1)
    assert means.var(ddof=1) > 3 / 400 * X[:10].var()


def test_rows_that_look_alike_are_not_filled_alike():
    X = np.concatenate([table(), np.full((2, 3), np.nan)])
    made = multiple_impute(fitted("mixture"), X, 1)[0]
    assert not np.isclose(made[-1], made[-2]).any() and not np.isclose(made[-1], made[3]).any()


# --- coverage: a Gaussian truth, the second column missing at random given the first and the other way round

MEAN, COVARIANCE = np.array([1.0, -2.0]), np.array([[1.0, 0.6], [0.6, 1.0]])
# what is analysed: the mean of the second column and the slopes of each column on the other
TRUTH = np.array([MEAN[1], 0.6, 0.6])


def with_holes(key, rows: int):
    """A table and its mask; the second column is missing, half of it, with a probability that grows with the first."""
    here, there = jr.split(key)
    x = MEAN[None] + jr.normal(here, (rows, 2)) @ np.linalg.cholesky(COVARIANCE).T
    hole = jr.uniform(there, (rows,)) < jax.nn.sigmoid(x[:, 0] - MEAN[0])
    mask = jnp.stack([jnp.ones(rows, bool), ~hole], axis=1)
    return Row(jnp.where(mask, x, 0), mask, weight=jnp.ones(rows))


def learned(batch: Row, iterations: int) -> Mixture:
    """One Gaussian by exact EM."""
    rule, model = EM(-jnp.inf), Mixture(jnp.zeros(1), FullCovariance.broad(batch, 1))
    state = rule.init(model, batch, key=jr.key(0))
    arrays, static = eqx.partition((model, state), eqx.is_array)

    def step(_, arrays):
        model, state = eqx.combine(arrays, static)
        return eqx.filter(rule.step(model, state, batch, key=jr.key(0), step=jnp.array(0))[:2], eqx.is_array)

    return eqx.combine(jax.lax.fori_loop(0, iterations, step, arrays), static)[0]


def analysed(x):
    """The three estimates and their squared standard errors from a complete table."""
    rows, centred = len(x), x - jnp.mean(x, axis=0, keepdims=True)
    squares, product = jnp.sum(centred**2, axis=0), centred[:, 0] @ centred[:, 1]
    left = (squares - product**2 / squares[::-1]) / (rows - 2)  # of each column given the other
    estimates = jnp.stack([jnp.mean(x[:, 1]), product / squares[0], product / squares[1]])
    return estimates, jnp.stack([squares[1] / (rows - 1) / rows, left[1] / squares[0], left[0] / squares[1]])


def moments(x, weight):
    """Means, variances and covariance of two columns; the variances without Bessel's correction."""
    mean = weight @ x / jnp.sum(weight)
    centred = x - mean[None]
    second = (weight[:, None] * centred).T @ centred / jnp.sum(weight)
    return jnp.array([mean[0], mean[1], second[0, 0], second[1, 1], second[0, 1]])


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def studies(keys, rows: int, m: int, iterations: int):
    """Every study twice: parameters learned anew for each of m tables, and the fitted parameters for all of them.

    And the moments that were learned from the table with its holes, and those of its complete rows.
    """

    def completed(batch, model, key):
        return analysed(jax.vmap(lambda row, k: drawn_completion(model, row, 1, key=k))(batch, jr.split(key, rows)))

    def study(key):
        make, *fill = jr.split(key, m + 1)
        batch = with_holes(make, rows)
        known = learned(batch, iterations)

        def both(key):
            draw, place = jr.split(key)
            again = jax.tree.map(lambda leaf: leaf[jr.randint(place, (rows,), 0, rows)], batch)
            return completed(batch, learned(again, iterations), draw), completed(batch, known, draw)

        covariance = known.components.factors[0] @ known.components.factors[0].T
        means = known.components.means[0]
        of_model = jnp.array([means[0], means[1], covariance[0, 0], covariance[1, 1], covariance[0, 1]])
        complete = moments(batch.x, jnp.all(batch.mask, axis=1).astype(float))
        return *jax.vmap(both)(jnp.stack(fill)), of_model, complete

    return jax.lax.map(study, keys)


def coverage(estimates, variances, rows: int) -> tuple[float, float]:
    """Share of 95 % intervals that hold the truth, and its standard error; a study is the independent unit."""
    q, u = (np.moveaxis(np.asarray(part), 1, 0) for part in (estimates, variances))
    low, high = pool(q, u, freedom=np.array([rows - 1, rows - 2, rows - 2])).interval(0.95)
    held = ((low <= TRUTH) & (TRUTH <= high)).mean(axis=1)
    return float(held.mean()), float(held.std(ddof=1) / len(held) ** 0.5)


@pytest.mark.slow
def test_multiple_imputation_covers_and_its_improper_form_does_not(x64):
    """240 studies: the proper share is within 4.5 standard errors of 0.95 (false failures: 1 in 150,000 seeds).

    That the improper one is not is seen with the same bound, but with a weaker guarantee: its share is near 0.89, five
    standard errors off, so that about one seed in three would not show it.
    """
    proper, improper, of_model, complete = studies(jr.split(jr.key(0), 240), 100, 8, 12)
    (share, error), (less, its_error) = coverage(*proper, 100), coverage(*improper, 100)
    assert abs(share - 0.95) < helpers.LIMIT * error
    assert abs(less - 0.95) > helpers.LIMIT * its_error
    moments_are_recovered(np.asarray(of_model), np.asarray(complete), 100)


def moments_are_recovered(of_model: np.ndarray, complete: np.ndarray, rows: int) -> None:
    """Missing at random: the model is right within Monte Carlo error, the complete rows are far off.

    Of two columns of which one is complete, the rows where the other is observed are also all that available-case
    estimates of its mean, its variance and the covariance use. Maximum likelihood may err by 2 / rows.
    """
    truth = np.array([*MEAN, 1.0, 1.0, 0.6])
    off = np.abs(of_model.mean(axis=0) - truth) - 2 / rows * np.array([0, 0, 1, 1, 1])
    assert (off < helpers.LIMIT * of_model.std(axis=0) / len(of_model) ** 0.5).all()
    far = np.abs(helpers.z_scores(complete, truth))
    assert far[1] > 20 and far[4] > 10


@pytest.mark.slow
def test_coverage_in_a_thousand_studies(x64):
    """The promised 93.5 to 96.5 %, pooled over the three parameters; the improper version is outside.

    3,000 intervals that are nearly independent: at a true coverage of 0.95 the share has a standard error of 0.0041,
    so that 1 seed in 4,000 would fail. The improper share is near 0.90, five of its standard errors below 0.935.
    """
    proper, improper, *_ = studies(jr.split(jr.key(1), 1000), 200, 20, 15)
    assert 0.935 <= coverage(*proper, 200)[0] <= 0.965
    assert not 0.935 <= coverage(*improper, 200)[0] <= 0.965


# --- the oracle: the conditional of the model that the rows were drawn from


def factor_table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of a one-factor model, the same with holes, and the oracle's conditional means."""
    rng, loading, noise = np.random.default_rng(0), np.array([1.0, -0.8, 0.6, 1.2]), 0.5
    X = rng.normal(size=(1000, 1)) * loading + noise * rng.normal(size=(1000, 4)) + [0, 3, -3, 1]
    holed = np.where(rng.random(X.shape) < 0.25, np.nan, X)
    seen = ~np.isnan(holed)
    pull = np.where(seen, holed - [0, 3, -3, 1], 0) @ loading / noise**2
    cause = pull / (1 + seen @ loading**2 / noise**2)
    return X, holed, np.where(seen, X, cause[:, None] * loading + [0, 3, -3, 1])


# The bound with one draw would bend the loadings: a linear recogniser cannot be exact for every pattern of holes. With
# 20 draws little of that is left.
LINEAR = {
    "factor analysis": lambda: rv.FactorAnalysis(latents=1, random_state=0, tol=1e-6),
    "linear VAE": lambda: rv.MIWAE(
        latents=1,
        hidden=(),
        likelihood=Homoscedastic(jnp.zeros(4)),
        rate=1e-2,
        steps=3000,
        particles=1000,
        random_state=0,
        progress=False,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_model_imputes_as_the_oracle_does(name):
    """Parameters learned from 1,000 rows are off by three per cent or so; the oracle is off by a half or more."""
    X, holed, oracle = factor_table()
    holes = np.isnan(holed)
    made = LINEAR[name]().fit(holed).impute(holed)
    apart = np.sqrt(((made - oracle)[holes] ** 2).mean())
    assert apart < 0.15 * np.sqrt(((oracle - X)[holes] ** 2).mean())
