"""Criteria and standard errors against closed forms and scikit-learn; pictures of exact models."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import some
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture

import ravine as rv
from ravine.models.families import Diagonal, Full, Spherical, Tied
from ravine.pictures import ellipses, loadings, series, signal

X = load_iris().data
FAMILIES = {"full": Full(), "diag": Diagonal(), "tied": Tied(), "spherical": Spherical()}


def waves(count=12, steps=20):
    """Sequences of two levels, which may start in either."""
    stream = np.random.default_rng(0)
    level = np.cumsum(stream.random((count, steps)) < 0.2, axis=1) % 2 ^ (np.arange(count) % 2)[:, None]
    return 4.0 * level[..., None] + stream.normal(size=(count, steps, 2))


@pytest.mark.parametrize("name", some(FAMILIES, "full", "tied"))
def test_criteria_are_those_of_scikit_learn(name):
    fit = {"tol": 1e-8, "random_state": 0}
    ours = rv.GaussianMixture(components=2, covariance=FAMILIES[name], iterations=1000, **fit).fit(X)
    theirs = GaussianMixture(2, covariance_type=name, max_iter=1000, **fit).fit(X)
    assert ours.free_parameters() == theirs._n_parameters()
    np.testing.assert_allclose([ours.aic(X), ours.bic(X)], [theirs.aic(X), theirs.bic(X)], rtol=1e-6)


COUNTS = {
    "factors": (rv.FactorAnalysis(latents=2, random_state=0), np.c_[X, X[:, :1] * X[:, 1:2]], 5 * 2 - 1 + 5 + 5),
    "one cause": (rv.FactorAnalysis(latents=1, random_state=0), X, 4 + 4 + 4),
    "states": (rv.HiddenMarkovModel(states=2, random_state=0), waves(), 1 + 2 + 2 * (2 + 3)),
    "bits": (rv.HiddenMarkovModel(states=2, random_state=0), (waves() > 2).astype(float), 1 + 2 + 2 * 2),
    # of 11 numbers one is the scale of the state
    "level": (rv.LinearDynamicalSystem(latents=1, random_state=0), waves(), 2 + 2 + 2 + 2 + 2 - 1),
}


@pytest.mark.parametrize("name", some(COUNTS, "factors", "states", "level"))
def test_what_changes_no_probability_is_no_parameter(name):
    model, rows, want = COUNTS[name]
    model = model.fit(rows)
    assert model.free_parameters() == want
    count = rows.shape[0] * (rows.shape[1] if rows.ndim == 3 else 1)
    np.testing.assert_allclose(model.bic(rows), np.log(count) * want - 2 * model.score_samples(rows).sum(), rtol=1e-12)
    np.testing.assert_allclose(model.aic(rows), 2 * want - 2 * model.score_samples(rows).sum(), rtol=1e-12)


def test_the_standard_error_of_means_and_shares_is_the_one_of_the_books():
    stream = np.random.default_rng(0)
    rows = np.concatenate([stream.normal(-40, 1, (100, 1)), stream.normal(40, 2, (300, 1))])
    model = rv.GaussianMixture(components=2, random_state=0).fit(rows)
    order = np.argsort(model.model_.components.means[:, 0])
    means = model.standard_errors(rows, lambda m: m.components.means[:, 0])
    want = [rows[:100].std() / 10, rows[100:].std() / np.sqrt(300)]
    np.testing.assert_allclose(means.standard_error[order], want, rtol=1e-5)
    np.testing.assert_allclose(means.value[order], [rows[:100].mean(), rows[100:].mean()], rtol=1e-9)
    shares = model.standard_errors(rows, lambda m: jax.nn.softmax(m.logits))
    np.testing.assert_allclose(shares.standard_error, np.sqrt(0.25 * 0.75 / 400), rtol=1e-5)


def test_what_the_data_cannot_fix_has_no_standard_error():
    model = rv.FactorAnalysis(latents=2, iterations=3000, tol=1e-12, random_state=0).fit(np.c_[X, X[:, :1] * X[:, 1:2]])
    rows = np.c_[X, X[:, :1] * X[:, 1:2]]
    turned = model.standard_errors(rows, lambda m: m.loading)
    assert np.isinf(turned.standard_error).all()
    fixed = model.standard_errors(rows, lambda m: (m.loading @ m.loading.T)[0])
    assert np.isfinite(fixed.standard_error).all() and (fixed.standard_error > 0).all()


def test_criteria_want_exact_numbers():
    model = rv.FactorAnalysis(latents=1, iterations=5, dequantise="uniform", kind="levels", levels=9).fit(np.floor(X))
    with pytest.raises(ValueError, match="exact log-likelihoods"):
        model.bic(np.floor(X))


@pytest.mark.parametrize("recipe", [rv.LinearDynamicalSystem, rv.HiddenMarkovModel])
def test_the_band_of_a_series_is_around_what_is_expected(recipe, tmp_path):
    rows = waves(3)
    rows[0, 4:7] = np.nan
    model = recipe(iterations=20, random_state=0).fit(rows)
    one = rv.Sequences(rows[0])
    low, middle, high = signal(model, one, 0.9)
    want = model.reconstruct(rows[0])
    assert (low <= middle + 1e-9).all() and (middle <= high + 1e-9).all()
    # 400 draws whose spread is at most the range of the data: six standard errors of their mean, on 40 means
    away = 6 * np.nanstd(rows) / np.sqrt(400)
    assert np.abs(middle - want).max() < away
    assert (high - low)[4:7].mean() > (high - low)[10:].mean()
    figure = series(model, rows, which=0, ahead=3, path=tmp_path / "one.png")
    assert len(figure.axes) == 2 and (tmp_path / "one.png").stat().st_size > 1000
    stripes = len([patch for patch in figure.axes[0].patches])
    assert (stripes > 0) == hasattr(model, "predict")
    for wrong in ({"which": 7}, {"level": 2.0}, {"ahead": -1}):
        with pytest.raises(ValueError, match="expected"):
            series(model, rows, **wrong)


def test_ellipses_and_loadings(tmp_path):
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = rv.GaussianMixture(components=3, random_state=0).fit(frame)
    figure = ellipses(model, frame, (0, 2), path=tmp_path / "rings.png")
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), len(axes.lines)) == ("a", "c", 3) and (
        tmp_path / "rings.png"
    ).exists()
    ring = axes.lines[0].get_xydata()
    share = model.predict_proba(frame)[:, 0]
    mean = np.average(X[:, [0, 2]], axis=0, weights=share)
    spread = np.linalg.inv(np.cov(X[:, [0, 2]].T, aweights=share))
    np.testing.assert_allclose(np.einsum("ni,ij,nj->n", ring - mean, spread, ring - mean), 4, rtol=1e-9)
    causes = rv.FactorAnalysis(latents=2, iterations=5, random_state=0).fit(frame)
    shown = loadings(causes).axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown, np.asarray(jnp.asarray(causes.model_.loading)))
    with pytest.raises(ValueError, match="classes"):
        ellipses(causes, frame)
    with pytest.raises(ValueError, match="linear model"):
        loadings(model)
