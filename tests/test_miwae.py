"""MIWAE: what its network is told, what its objective counts, and that it fills holes better than the column mean."""

import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer

import ravine as rv
from ravine.core import Row
from ravine.data import Schema
from ravine.dist import HeavyTailed, Real, StudentT
from ravine.evidence import ImportanceWeighted
from ravine.gradients import Pathwise
from ravine.models.missingness import AbstractMissingness, AtRandom, OwnLogistic, SelfMasking
from ravine.objectives import IWAE


def curve(rows: int = 400, seed: int = 0) -> np.ndarray:
    """Four columns that bend around one hidden number, with noise of a tenth of their spread."""
    rng = np.random.default_rng(seed)
    t = rng.normal(size=rows)
    X = np.column_stack([t, t**2 - 1, np.sin(2 * t), np.abs(t)]) + 0.1 * rng.normal(size=(rows, 4))
    return (X - X.mean(axis=0)) / X.std(axis=0)


def holed(X: np.ndarray, share: float = 0.3) -> np.ndarray:
    return np.where(np.random.default_rng(1).random(X.shape) < share, np.nan, X)


def small(**fields) -> rv.MIWAE:
    tiny = {"latents": 2, "hidden": (16,), "objective": IWAE(5, Pathwise()), "progress": False, "random_state": 0}
    return rv.MIWAE(**(tiny | fields))


@pytest.mark.slow
def test_the_recogniser_sees_zeros_and_no_mask():
    schema = Schema.infer(holed(curve()), standardise=True)
    model = small().build(schema, key=jr.key(0))
    assert schema.holes and model.q.read.inputs() == 4
    whole = Row(jnp.array([0.3, 0.0, -1.0, 0.0]), jnp.ones(4, bool))
    with_holes = Row(whole.x, jnp.array([True, False, True, False]))
    read = [np.asarray(model.q.read(row)) for row in (whole, with_holes)]
    np.testing.assert_allclose(read[0], read[1], atol=1e-6)


def test_missing_cells_are_absent_from_the_likelihood():
    schema = Schema.infer(holed(curve()), standardise=True)
    model = small().build(schema, key=jr.key(0))
    mask, z = jnp.array([True, False, True, False]), jnp.ones(2)
    law = model.likelihood(z)
    assert isinstance(law, StudentT) and bool((law.freedom > 2).all())
    x = jnp.array([0.3, 0.0, -1.0, 0.0])
    seen = np.asarray([0, 2])
    part = StudentT(law.location[seen], law.scale[seen], law.freedom[seen])
    assert float(model.log_likelihood(z, Row(x, mask))) == pytest.approx(float(part.log_prob(x[seen])), rel=1e-6)


def test_the_objective_is_the_importance_weighted_bound_of_the_observed_cells():
    """Against a sum written out over the same draws."""
    schema = Schema.infer(holed(curve()), standardise=True)
    model = small().build(schema, key=jr.key(0))
    row, k = Row(jnp.array([0.3, 0.0, -1.0, 0.0]), jnp.array([True, False, True, False])), 5
    got = jax.jit(lambda key: IWAE(k, Pathwise()).bound(model, row, key=key))
    bounds = np.asarray([got(jr.key(i)) for i in range(200)])
    draws = jax.jit(jax.vmap(lambda key: _log_weight(model, row, key)))(jr.split(jr.key(9), 200 * k))
    by_hand = jax.nn.logsumexp(draws.reshape(200, k), axis=1) - np.log(k)
    apart = (bounds.mean() - float(by_hand.mean())) / np.hypot(bounds.std(), by_hand.std()) * 200**0.5
    assert abs(apart) < 4.5


def _log_weight(model, row: Row, key):
    z, log_q = model.posterior(row).sample(key=key)
    return model.likelihood(z).log_prob(row.x, row.mask) - 0.5 * jnp.sum(z**2) - jnp.log(2 * jnp.pi) - log_q


@pytest.mark.slow
def test_holes_are_filled_better_than_by_regressions():
    """The columns hang together in bends that no linear rule follows."""
    X = curve()
    given = holed(X)
    filled = small(steps=400, rate=5e-3, particles=100).fit(given).impute(given)
    holes = np.isnan(given)
    np.testing.assert_array_equal(filled[~holes], given[~holes])
    linear = IterativeImputer(random_state=0, tol=0.1).fit_transform(given)
    error, base = ((filled - X)[holes] ** 2).mean(), ((linear - X)[holes] ** 2).mean()
    assert error < 0.9 * base < 0.9 * (X[holes] ** 2).mean()


@functools.cache
def briefly() -> rv.MIWAE:
    """A model that has seen a few batches: enough for what must hold of every model."""
    fields = {"steps": 4, "particles": 20, "likelihood": Real(), "evidence": ImportanceWeighted(10)}
    return small(**fields).fit(holed(curve()))


@pytest.mark.parametrize("verb", ["transform", "impute"])
def test_a_row_alone_is_answered_as_among_others(verb):
    """To the bit, with holes, with none, and with nothing observed."""
    given = holed(curve())[:40]
    given[3], given[4] = np.nan, curve()[4]
    ask = getattr(briefly(), verb)
    among = ask(given)
    for i in (0, 3, 4, 39):
        np.testing.assert_array_equal(ask(given[i : i + 1]), among[i : i + 1])
    np.testing.assert_array_equal(ask(given[::-1]), among[::-1])


def test_integers_are_refused_as_such():
    with pytest.raises(ValueError, match="real"):
        small(steps=2, kind="count").fit(np.arange(40.0).reshape(20, 2))


# --- cells that are missing for what they hold


def test_a_mechanism_is_a_probability_of_masks():
    mechanism = OwnLogistic(jnp.array([0.5, -1.0]), jnp.array([0.1, -0.3]))
    masks = jnp.array([[a, b] for a in (True, False) for b in (True, False)])
    total = sum(float(jnp.exp(mechanism.log_prob(mask, jnp.array([0.7, -1.2])))) for mask in masks)
    assert total == pytest.approx(1.0, rel=1e-6)
    surely = OwnLogistic(jnp.array([50.0]), jnp.zeros(1))
    assert float(surely.log_prob(jnp.array([False]), jnp.ones(1))) == pytest.approx(0.0, abs=1e-6)
    assert float(surely.log_prob(jnp.array([True]), jnp.ones(1))) == pytest.approx(-50.0)


def test_the_bound_counts_the_mask_and_draws_the_missing_cells():
    """log w of a draw equals the terms of the paper's equation, written out."""
    schema = Schema.infer(holed(curve()), standardise=True)
    plain = small(likelihood=Real()).build(schema, key=jr.key(0))
    model = SelfMasking(1.5)(plain, 4)
    row = Row(jnp.array([0.3, 0.0, -1.0, 0.0]), jnp.array([True, False, True, False]))

    @jax.jit
    def both(key):
        (z, x), log_q = model.posterior(row).sample(key=key)
        log_w = model.log_joint((z, x), row) - log_q
        first = plain.posterior(row)
        logits = 1.5 * jnp.where(row.mask, row.x, x)
        of_mask = jnp.sum(jnp.where(row.mask, jax.nn.log_sigmoid(-logits), jax.nn.log_sigmoid(logits)))
        return log_w, plain.log_joint(z, row) - first.log_prob(z) + of_mask

    for i in range(5):
        got, want = both(jr.key(i))
        assert float(got) == pytest.approx(float(want), rel=1e-4)


def self_masked(rows: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Three Gaussian columns of one cause; the second is missing with log odds 3 (x - 3)."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, 1)) + 0.5 * rng.normal(size=(rows, 3)) + [0.0, 3.0, -1.0]
    gone = rng.random(rows) < 1 / (1 + np.exp(-3 * (X[:, 1] - 3)))
    given = X.copy()
    given[gone, 1] = np.nan
    return X, given


@functools.cache
def assuming(missingness: AbstractMissingness) -> rv.MIWAE:
    fields = {"latents": 1, "hidden": (), "likelihood": Real(), "objective": IWAE(5, Pathwise())}
    fields |= {"rate": 3e-2, "steps": 600, "batch_size": 100, "particles": 50}
    return small(**fields, missingness=missingness).fit(self_masked()[1])


def bias(filled: np.ndarray) -> float:
    """How far the mean of the second column is from the truth."""
    return filled[:, 1].mean() - self_masked()[0][:, 1].mean()


@pytest.mark.slow
def test_a_declared_mechanism_removes_most_of_the_bias():
    """Gaussian columns and a logistic curve: the mean is identified. Filling holes with the mean leaves its bias."""
    given, model = self_masked()[1], assuming(SelfMasking(1.0))
    filled_with_mean = np.where(np.isnan(given), np.nanmean(given, axis=0), given)
    assert bias(filled_with_mean) < -0.5 and abs(bias(model.impute(given))) < 0.1
    mechanism, scale = model.model_.mechanism, np.nanstd(given[:, 1])
    assert 1.5 < float(mechanism.slope[1]) / scale < 6.0  # log odds per unit of the column; 3 in truth
    assert (np.asarray(mechanism.level)[[0, 2]] < -3).all()  # columns without holes are hardly ever missing


@pytest.mark.slow
def test_an_undeclared_mechanism_leaves_a_bias():
    given = self_masked()[1]
    off = [abs(bias(assuming(assumed).impute(given))) for assumed in (AtRandom(), SelfMasking(1.0))]
    assert off[0] > 0.2 and off[1] < off[0] / 3


@pytest.mark.slow
def test_a_recipe_with_a_mechanism_is_saved_and_loaded(tmp_path):
    given, model = self_masked()[1], assuming(SelfMasking(1.0))
    model.save(tmp_path / "run")
    loaded = rv.load(tmp_path / "run")
    assert loaded.missingness == model.missingness
    np.testing.assert_array_equal(loaded.impute(given), model.impute(given))


@pytest.mark.slow
def test_a_recipe_with_a_mechanism_answers():
    given = self_masked(60)[1]
    fields = {"steps": 4, "particles": 5, "evidence": ImportanceWeighted(5), "likelihood": HeavyTailed(0.1)}
    model = small(missingness=SelfMasking(1.0), **fields).fit(given)
    assert np.isfinite(model.score_samples(given)).all() and model.sample(5).shape == (5, 3)
    assert np.isfinite(model.impute(given)).all() and model.transform(given).shape[0] == 60
