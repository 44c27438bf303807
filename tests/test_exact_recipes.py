"""Probabilistic principal components and latent class analysis against closed forms and sums over classes."""

import numpy as np
import pytest
from helpers import some
from scipy import stats
from sklearn.datasets import load_wine

import ravine as rv

WINE = load_wine().data[:, :6] / load_wine().data[:, :6].std(axis=0)


def closed_form(X, causes):
    """Mean log-likelihood at the maximum: Tipping & Bishop 1999, equations 7 to 9."""
    values = np.linalg.eigvalsh(np.cov(X.T, bias=True))[::-1]
    noise = values[causes:].mean()
    log_det = np.log(values[:causes]).sum() + (X.shape[1] - causes) * np.log(noise)
    return -0.5 * (X.shape[1] * np.log(2 * np.pi) + log_det + X.shape[1]), noise


@pytest.mark.parametrize("causes", [1, 3])
def test_complete_rows_reach_the_closed_form(causes):
    model = rv.ProbabilisticPCA(latents=causes, tol=1e-12, iterations=5000, random_state=0).fit(WINE)
    want, noise = closed_form(WINE, causes)
    np.testing.assert_allclose(model.score(WINE), want, atol=1e-6)
    np.testing.assert_allclose(np.asarray(model.model_.noise_scale()) ** 2, noise, rtol=1e-3)
    d = WINE.shape[1]
    assert model.free_parameters() == d + 1 + d * causes - causes * (causes - 1) // 2


def test_rows_with_holes_have_the_density_of_what_is_seen():
    holes = np.where(np.random.default_rng(0).random(WINE.shape) < 0.3, np.nan, WINE)
    model = rv.ProbabilisticPCA(latents=2, random_state=0).fit(holes)
    loading, noise = np.asarray(model.model_.loading), np.asarray(model.model_.noise_scale()) ** 2
    covariance = loading @ loading.T + np.diag(noise)
    mean = model.inverse_transform(np.zeros((1, 2)))[0]
    for row, got, full in zip(holes[:20], model.score_samples(holes[:20]), model.impute(holes[:20]), strict=True):
        seen = ~np.isnan(row)
        block = covariance[np.ix_(seen, seen)]
        np.testing.assert_allclose(got, stats.multivariate_normal(mean[seen], block).logpdf(row[seen]), atol=1e-9)
        filled = mean + covariance[:, seen] @ np.linalg.solve(block, (row - mean)[seen])
        np.testing.assert_allclose(full[~seen], filled[~seen], atol=1e-9)


def classed(kind, rows=600, seed=0):
    """Rows of two classes, and which class each is of."""
    stream = np.random.default_rng(seed)
    z = stream.integers(0, 2, rows)
    made = {
        "binary": lambda: stream.random((rows, 6)) < np.where(z, 0.85, 0.2)[:, None],
        "levels": lambda: np.minimum(stream.poisson(0.4 + 1.5 * z[:, None], (rows, 6)), 2),
        "count": lambda: stream.poisson(np.where(z, 6.0, 2.0)[:, None], (rows, 6)),
    }[kind]()
    return made.astype(float), z


def by_cell(model, X, kind):
    """log p(cell | class) of every cell, shape (rows, classes, columns), 0 where it is missing."""
    laws, x = model.model_.components, np.nan_to_num(X)[:, None]
    if kind == "binary":
        each = stats.bernoulli(1 / (1 + np.exp(-np.asarray(laws.logits)))[None]).logpmf(x)
    elif kind == "count":
        each = stats.poisson(np.exp(np.asarray(laws.log_rate))[None]).logpmf(x)
    else:
        shares = np.exp(np.asarray(laws.logits))
        shares = shares / shares.sum(axis=-1, keepdims=True)
        each = np.log(np.stack([shares[:, range(6), row.astype(int)] for row in np.nan_to_num(X)]))
    return np.where(np.isnan(X)[:, None], 0, each)


@pytest.mark.parametrize("kind", some(["binary", "levels", "count"], "binary", "levels"))
def test_classes_are_summed_out_and_found(kind):
    X, z = classed(kind)
    X[np.random.default_rng(1).random(X.shape) < 0.2] = np.nan
    model = rv.LatentClassAnalysis(kind=kind, levels=3 if kind == "levels" else None, random_state=0).fit(X)
    shares = np.exp(np.asarray(model.model_.logits))
    joint = np.log(shares / shares.sum()) + by_cell(model, X, kind).sum(axis=-1)
    total = np.logaddexp.reduce(joint, axis=1)
    np.testing.assert_allclose(model.score_samples(X), total, atol=1e-9)
    np.testing.assert_allclose(model.predict_proba(X), np.exp(joint - total[:, None]), atol=1e-9)
    right = np.mean(model.predict(X) == z)
    assert max(right, 1 - right) > 0.85
    filled = model.impute(X)
    assert not np.isnan(filled).any() and (filled[~np.isnan(X)] == X[~np.isnan(X)]).all()


def test_without_smoothing_the_likelihood_is_at_its_top():
    X, _ = classed("binary")
    model = rv.LatentClassAnalysis(smoothing=0.0, tol=1e-12, iterations=5000, random_state=0).fit(X)
    shares, logits = (np.asarray(part) for part in (model.model_.logits, model.model_.components.logits))
    weight = model.predict_proba(X)
    # at a maximum each parameter is the mean of what it stands for, under the classes that it implies
    np.testing.assert_allclose(np.exp(shares) / np.exp(shares).sum(), weight.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), (weight.T @ X) / weight.sum(axis=0)[:, None], atol=1e-5)
    assert model.free_parameters() == 1 + 2 * 6


def test_several_starts_are_no_worse_than_one_in_the_middle():
    X, _ = classed("binary", 200, seed=3)
    alone = [
        rv.LatentClassAnalysis(components=6, smoothing=0.0, random_state=seed).fit(X).score(X) for seed in range(5)
    ]
    best = rv.LatentClassAnalysis(components=6, smoothing=0.0, n_init=8, random_state=0).fit(X).score(X)
    assert np.ptp(alone) > 1e-3 and best >= np.median(alone)


def test_what_cannot_be_held_is_refused_in_one_line():
    for model, X, words in (
        (rv.LatentClassAnalysis(), np.random.default_rng(0).normal(size=(20, 2)), "cells"),
        (rv.ProbabilisticPCA(kind="binary"), classed("binary")[0], "real cells"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            model.fit(X)
        assert "\n" not in str(caught.value)
