"""The study of products of experts: its kernel, its sums over a grid, and what it says of a result."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import LIMIT
from scipy.special import expit, logsumexp
from scipy.stats import norm

from ravine.core import Row
from ravine.data import Dataset
from ravine.studies import experts as study

LINE = np.arange(-6.0, 6.0, 0.1)
TOLD = {
    "location": [[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]],
    "scale": [[0.4, 2.0], [0.5, 0.5], [1.5, 0.4]],
    "log_odds": [0.5, -0.5, 1.0],
    "log_volume": np.log(20.0),
    "base": [[0.2, 0.0], [1.5, 1.2]],
}


def density(x: np.ndarray) -> np.ndarray:
    """The product of `TOLD`, unnormalised, by its formula; the base is a Gaussian factor."""
    bumps = norm.pdf(x[:, None], TOLD["location"], TOLD["scale"]).prod(axis=2)
    share, flat = expit(TOLD["log_odds"]), np.exp(-TOLD["log_volume"])
    return norm.pdf(x, *TOLD["base"]).prod(axis=1) * (share * bumps + (1 - share) * flat).prod(axis=1)


def moments(x: np.ndarray) -> np.ndarray:
    """First and second moments, and how near a point is to one of the bumps."""
    near = np.exp(-4 * np.sum((x - np.array([-1.0, 0.5])) ** 2, axis=1))
    return np.stack([*x.T, *(x**2).T, x[:, 0] * x[:, 1], near], axis=1)


def test_one_sweep_leaves_the_product_as_it_is(x64):
    """Chains that start at draws of the law have its moments after a step; the truth is a sum over a grid."""
    points, stream = study.grid(LINE), np.random.default_rng(0)
    p = density(points) / density(points).sum()
    begin = points[stream.choice(len(points), size=40_000, p=p)] + stream.uniform(-0.05, 0.05, size=(40_000, 2))
    kernel = study._product(TOLD).kernel()
    step = jax.jit(jax.vmap(lambda x, key: kernel.position(kernel.step(kernel.init(x, key=key), key=key)[0])))
    after = moments(np.asarray(step(jnp.asarray(begin), jr.split(jr.key(1), len(begin)))))
    before = moments(begin)  # of the same law up to the width of a cell
    error = after.std(axis=0) / np.sqrt(len(after))
    assert np.all(np.abs(after.mean(axis=0) - p @ moments(points)) < LIMIT * error + 0.002), (after.mean(axis=0), error)
    moved = np.corrcoef(before[:, 0], after[:, 0])[0, 1]
    assert 0.05 < moved < 0.9


def test_a_sweep_holds_the_cells_of_a_row(x64):
    """Given one coordinate the other one has the moments of its conditional law."""
    line, stream = np.arange(-8.0, 8.0, 0.01), np.random.default_rng(0)
    points = np.stack([np.full(len(line), 0.9), line], axis=1)
    p = density(points) / density(points).sum()
    begin = points[stream.choice(len(line), size=40_000, p=p)]
    row = Row(jnp.array([0.9, 0.0]), mask=jnp.array([True, False]))
    kernel = study._product(TOLD).kernel(row)
    step = jax.jit(jax.vmap(lambda x, key: kernel.step(kernel.init(x, key=key), key=key)[0]))
    after = np.asarray(step(jnp.asarray(begin), jr.split(jr.key(1), len(begin))))
    assert np.all(after[:, 0] == 0.9)
    for power in (1, 2):
        truth, made = p @ line**power, after[:, 1] ** power
        assert abs(made.mean() - truth) < LIMIT * made.std() / np.sqrt(len(made))


def test_sums_over_the_grid(x64, monkeypatch):
    """log Z, the share of a square and the log densities of points against a sum of the formula on another grid."""
    line = np.arange(-9.0, 9.0, 0.04)
    monkeypatch.setattr(study, "LINE", np.arange(-9.0, 9.0, 0.05) + 0.025)
    model, points = study._product(TOLD), study.grid(line)
    p = density(points)
    base = norm.logpdf(TOLD["base"][0], *TOLD["base"]).sum()  # the factor of the model is 1 at its top
    assert study.log_partition(model) == pytest.approx(np.log(p.sum() * 0.04**2) - base, abs=1e-6)
    near = np.abs(points - study.EMPTY).max(axis=1) < 0.5
    assert study.at_the_empty_place(model) == pytest.approx(p[near].sum() / p.sum(), rel=2e-3)
    some = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(study.minus_energies(model, some), np.log(density(some)) - base, rtol=1e-10)
    np.testing.assert_allclose(study._told(model)["location"], TOLD["location"])


def test_the_law_of_the_rows():
    line = np.arange(-4.0, 4.0, 0.05)
    assert logsumexp(study.log_law(study.grid(line))) + 2 * np.log(0.05) == pytest.approx(0, abs=1e-9)
    rows = study.clusters(5000, 0)
    near = np.abs(rows[:, None] - study.places()).max(axis=2).argmin(axis=1)
    counts = np.bincount(near, minlength=24)
    assert np.abs(rows - study.EMPTY).max(axis=1).min() > 0.2
    assert np.abs(counts - 5000 / 24).max() < LIMIT * np.sqrt(5000 / 24)


@pytest.mark.slow
def test_a_few_steps_on_clusters_help(monkeypatch):
    monkeypatch.setattr(study, "LINE", np.arange(-9.0, 9.0, 0.1))
    monkeypatch.setattr(study, "ROWS", 500)
    settings = {"data": "clusters", "experts": 12, "steps": 300, "rate": 0.1}
    result = {"settings": settings, "found": study.found([0], **settings)}
    numbers = {what: values[0] for what, values in result["found"]["measured"].items()}
    assert numbers["log p, before learning"] + 0.3 < numbers[study.PRODUCT] < numbers[study.LAW]
    assert 0 < numbers["% of the product at the empty place"] < 20
    assert 0 <= numbers["experts that are strips"] <= 12
    text = study.words(result)
    assert f"| {study.LAW} | {numbers[study.LAW]:.4g} |  |" in text
    assert f"{numbers[study.LAW] - numbers[study.PRODUCT]:.3f} below the law" in text
    figure = study.picture(result)
    assert len(figure.axes) == 3 and len(figure.axes[0].patches) == 12


@pytest.mark.slow
def test_digits_in_small(monkeypatch):
    """Two classes whose bits differ; the study knows the paper's protocol, not its data."""
    stream = np.random.default_rng(0)
    y = np.repeat([3, 7], 100)
    x = 255 * (stream.uniform(size=(200, 6)) < np.where(y[:, None] == 3, 0.1, 0.9))
    hints = {"image_shape": (2, 3), "levels": 256, "binarise": "dynamic"}
    data = Dataset("two", x[::2], None, x[1::2], (y[::2], y[1::2]), hints, "made up")
    monkeypatch.setattr(study, "load_dataset", lambda name: data)
    settings = {"data": "digits", "experts": 3, "steps": 40, "rate": 0.1}
    result = {"settings": settings, "found": study.found([0, 1], **settings)}
    measured = result["found"]["measured"]
    assert len(measured[study.SCORES]) == 2 and len(measured[study.NEIGHBOUR]) == 1
    assert max(measured[study.SCORES]) <= 3 and result["found"]["shown"]["rejected"][0] == np.mean(
        measured[study.SCORES]
    )
    assert "% wrong, smallest free energy alone" in study.words(result) and "standard error" in study.words(result)
    assert len(study.picture(result).axes) == 2


def test_words_say_what_falls_short():
    """Of numbers made up for this: a product below the mixture, scores worse than the nearest neighbour."""
    told = {study.PRODUCT: [-3.0, -2.0], study.LAW: [-1.0, -1.0], study.MIXTURE: [-2.5, -2.5]}
    text = study.words({"settings": {"data": "clusters"}, "found": {"measured": told}})
    assert "1.500 below the law" in text and "in 1 of 2 seeds" in text and "| -2.5 | -3 to -2 |" in text
    told = {study.SCORES: [10.0], study.NEIGHBOUR: [3.0]}
    text = study.words({"settings": {"data": "digits"}, "found": {"measured": told}})
    assert "worse than the nearest neighbour by 7.00 points" in text and "standard error of 0.30 points" in text


def test_rejected_rows_are_the_least_sure():
    shares = np.array([[0.51, 0.49], [0.9, 0.1], [0.45, 0.55], [0.2, 0.8]])
    codes = np.array([1, 0, 1, 0])
    assert [study.kept_wrong(shares, codes, share) for share in (0.0, 0.25, 0.5)] == [50, pytest.approx(100 / 3), 50]
