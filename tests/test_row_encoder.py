"""Recipes that code rows and give them back: the contract, missing cells, what is kept, and what each is good for."""

from __future__ import annotations

import dataclasses
import functools
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import pytest
from helpers import some
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import ravine as rv
from ravine import _monitor, fitting
from ravine._check import Complaint
from ravine._spell import spell
from ravine._tree import Linear
from ravine.core import Row
from ravine.data.rectangles import rectangles
from ravine.models.autoencoder import AffineReading, LogisticReading
from ravine.models.sparse_coding import NonnegativeShrinkage
from ravine.objectives import Denoising, GaussianNoise, LeastCost, Masking, Reconstruction, SaltAndPepper
from ravine.recipes.contractive_autoencoder import ContractiveAutoencoder
from ravine.recipes.sparse_coding import ATOMS, SparseCoding
from ravine.recipes.stacked_denoising import DenoisingAutoencoder, StackedDenoising
from ravine.registry import parse
from ravine.row_encoder import Encoding, RowEncoder
from ravine.rules import MOD, Descend, gradient_descent
from ravine.train import train

QUIET: dict[str, Any] = {"random_state": 0, "progress": False}
ENCODERS: dict[str, Any] = {
    "denoising": functools.partial(DenoisingAutoencoder, layers=(6, 3), passes=2, **QUIET),
    "contractive": functools.partial(ContractiveAutoencoder, layers=(5,), passes=2, **QUIET),
    "sparse": functools.partial(SparseCoding, atoms=7, penalty=0.3, **QUIET),
}
CODES = {"denoising": 3, "contractive": 5, "sparse": 7}


def table(n: int = 80) -> np.ndarray:
    """Four columns of unlike scales that have two causes."""
    stream = np.random.default_rng(0)
    return stream.normal(size=(n, 2)) @ stream.normal(size=(2, 4)) * [1, 10, 0.1, 1] + [5, 0, 0, -3]


@functools.cache
def fitted(name: str) -> RowEncoder:
    return ENCODERS[name](steps=200).fit(table())


# --- the contract


@pytest.mark.parametrize("name", some(ENCODERS, "sparse"))
def test_what_an_encoder_answers(name):
    model, X = fitted(name), table()
    H = model.transform(X)
    assert isinstance(model.model_, Encoding) and H.shape == (80, CODES[name]) and H.dtype == np.float64
    assert model.transform(X.astype(np.float32)).dtype == np.float32
    np.testing.assert_array_equal(model.reconstruct(X), model.inverse_transform(H))
    np.testing.assert_array_equal(model.transform(X[[7]]), H[[7]])
    prefix = type(model).__name__.lower()
    assert list(model.get_feature_names_out()) == [f"{prefix}{i}" for i in range(CODES[name])]
    standard = (X - X.mean(axis=0)) / X.std(axis=0)
    row = Row(jnp.asarray(standard[0], jnp.float32))
    np.testing.assert_allclose(H[0], model.model_.code(row), atol=1e-5)
    away = np.asarray(model.model_.decoded(jnp.asarray(H[0], jnp.float32)), float)
    np.testing.assert_allclose(model.reconstruct(X)[0], away * X.std(axis=0) + X.mean(axis=0), rtol=1e-4, atol=1e-4)
    cleaned = np.asarray(model.model_.denoised(row), float)
    np.testing.assert_allclose(model.denoise(X)[0], cleaned * X.std(axis=0) + X.mean(axis=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_more_is_given_back_after_training(name):
    """The error of a row there and back, in units of the deviation of its columns: less than half that of the mean."""
    X = table()
    error = lambda made: float(np.mean(((made - X) / X.std(axis=0)) ** 2))  # noqa: E731
    longer = ENCODERS[name](steps=1500, **{} if name == "sparse" else {"layers": (6,), "rate": 1e-2}).fit(X)
    assert error(longer.denoise(X)) < 0.5 and error(X.mean(axis=0)) == pytest.approx(1)


@pytest.mark.slow
def test_frames_and_images_come_back_as_they_came():
    frame = pd.DataFrame(table(), columns=list("abcd"), index=range(100, 180))
    model = ENCODERS["denoising"](steps=2).fit(frame)
    for made in (model.reconstruct(frame), model.denoise(frame), model.impute(frame)):
        assert isinstance(made, pd.DataFrame) and list(made) == list("abcd") and made.index[0] == 100
    assert list(model.sample(3)) == list("abcd")
    assert model.set_output(transform="pandas").transform(frame).shape == (80, 3)
    images = load_digits().images[:50]
    grey = ENCODERS["denoising"](steps=2, kind="levels", levels=17).fit(images)
    assert grey.denoise(images).shape == grey.reconstruct(images).shape == (50, 8, 8)
    assert grey.schema_.image_shape == (8, 8)


def test_a_pipeline_goes_on_with_the_codes():
    X, y = load_digits(return_X_y=True)
    X, y = X[:600], y[:600]
    first = DenoisingAutoencoder(layers=(100,), steps=600, kind="levels", levels=17, **QUIET)
    pipe = make_pipeline(first, LogisticRegression(max_iter=500)).fit(X[:400], y[:400])
    assert pipe.score(X[400:], y[400:]) > 0.8


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_survives_a_pickle(name):
    model = fitted(name)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.transform(table()), model.transform(table()))


@pytest.mark.parametrize("name", ENCODERS)
def test_what_was_saved_answers_to_the_bit(name, tmp_path):
    model = fitted(name)
    again = rv.load(model.save(tmp_path))
    np.testing.assert_array_equal(again.transform(table()), model.transform(table()), strict=True)
    np.testing.assert_array_equal(again.denoise(table()), model.denoise(table()), strict=True)
    assert again.get_params().keys() == model.get_params().keys()


def test_a_run_that_was_killed_goes_on_to_the_bit(monkeypatch, tmp_path):
    monkeypatch.setattr(fitting, "train", functools.partial(train, chunk=7))
    monkeypatch.setattr(_monitor, "CHECKPOINT_SECONDS", -1.0)
    recipe = ENCODERS["denoising"](steps=30)
    whole = clone(recipe).fit(table())
    clone(recipe).set_params(steps=12).fit(table(), folder=tmp_path)
    again = clone(recipe).fit(table(), folder=tmp_path, resume=True)
    assert again.history_[-1]["done"] == whole.history_[-1]["done"]
    once_more = clone(recipe).fit(table(), folder=tmp_path / "new")
    for one, other in zip(jax.tree.leaves(whole.model_), jax.tree.leaves(once_more.model_), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


# --- missing cells, weights, refusals


def holed(name: str = "") -> np.ndarray:
    X = table()
    X[np.random.default_rng(1).uniform(size=X.shape) < 0.3] = np.nan
    return X


@pytest.mark.parametrize("name", ENCODERS)
def test_missing_cells_are_borne_and_filled(name):
    X = holed()
    model = ENCODERS[name](steps=100).fit(X)
    assert np.isfinite(model.transform(X)).all() and np.isfinite(model.denoise(X)).all()
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(model.model_))
    empty = np.full((1, 4), np.nan)
    assert np.isfinite(model.transform(empty)).all()
    if name == "sparse":
        assert (model.transform(empty) == 0).all()


@pytest.mark.parametrize("name", ENCODERS)
def test_holes_are_filled_with_what_comes_back_and_nothing_else_changes(name):
    X, model = holed(), fitted(name)
    full, gone = model.impute(X), np.isnan(X)
    np.testing.assert_array_equal(full[~gone], X[~gone])
    np.testing.assert_array_equal(full[gone], model.denoise(X)[gone])


@pytest.mark.parametrize("name", ENCODERS)
def test_how_near_rows_come_back(name):
    """Standardised columns: the squared distance of a cell to its mean is 1 on average."""
    model, X = fitted(name), holed()
    made, seen = model.reconstruct(X), ~np.isnan(X)
    scaled = (made - X) / table().std(axis=0)
    each = np.array([row[kept] @ row[kept] / kept.sum() for row, kept in zip(scaled, seen, strict=True) if kept.any()])
    got = model.evaluate(X)
    assert got.squared_error == pytest.approx(each.mean(), rel=1e-4) and got.rows == len(each)
    assert got.standard_error == pytest.approx(each.std(ddof=1) / len(each) ** 0.5, rel=1e-4)
    spread = ((X - table().mean(axis=0)) / table().std(axis=0))[seen]
    assert model.score(X) == pytest.approx(1 - np.sum(scaled[seen] ** 2) / np.sum(spread**2), rel=1e-4)
    with pytest.raises(Complaint, match="X: expected an observed cell, got none"):
        model.evaluate(np.full((2, 4), np.nan))


def test_a_missing_cell_is_seen_as_one_that_was_masked():
    model, X = fitted("denoising"), table()
    gone, masked = X.copy(), X.copy()
    gone[:, 1], masked[:, 1] = np.nan, X[:, 1].mean()
    np.testing.assert_allclose(model.transform(gone), model.transform(masked), atol=1e-6)


@pytest.mark.parametrize("name", ENCODERS)
def test_rows_of_no_weight_are_no_rows(name):
    X, weight = table(), (np.arange(80) < 50).astype(float)
    some = ENCODERS[name](steps=5).fit(X, sample_weight=weight)
    alone = ENCODERS[name](steps=5).fit(X[:50], sample_weight=np.ones(50))
    np.testing.assert_array_equal(some.transform(X), alone.transform(X))


def test_rows_apart_say_when_to_stop():
    X = table()
    model = ENCODERS["denoising"](steps=2000, patience=2, layers=(6,), rate=0.05).fit(X[:40], held_out=X[40:])
    assert model.history_[-1]["stopped"] and model.history_[-1]["done"] < 2000
    sparse = ENCODERS["sparse"](steps=400, patience=2).fit(X[:40], held_out=X[40:])
    assert np.isfinite(sparse.history_[-1]["held_out"])


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "an infinite cell": (np.where(np.eye(80, 4), np.inf, 0.0), {}, "expected finite numbers, got inf"),
    "a field": (table(), {"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
    "counts": (table() ** 2 // 1, {"kind": "count"}, "expected binary or levels or real cells"),
    "a share": (table(), {"validation": 1.0}, "validation: expected a share"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(name, monkeypatch):
    monkeypatch.setattr("ravine.row_encoder.fit", None)
    X, fields, line = REFUSED[name]
    with pytest.raises(ValueError, match=line) as caught:
        ENCODERS["denoising"](**fields).fit(X)
    assert "\n" not in str(caught.value)


def test_codes_of_another_width_are_refused():
    with pytest.raises(Complaint, match="H: expected 3 columns, one for each code, got 2; give what transform returns"):
        fitted("denoising").inverse_transform(np.zeros((2, 2)))
    with pytest.raises(Complaint, match="resume: expected a folder to go on from, got None"):
        ENCODERS["denoising"]().fit(table(), resume=True)
    with pytest.raises(NotFittedError):
        ENCODERS["denoising"]().denoise(table())


# --- what each is made of


@pytest.mark.slow
def test_cells_are_read_as_what_they_are():
    digits = load_digits().data[:60]
    build = lambda X, **fields: ENCODERS["denoising"](steps=1, **fields).fit(X).model_  # noqa: E731
    real, bits = build(table()), build((digits > 8).astype(float))
    assert isinstance(real.layers[0].lower, AffineReading) and isinstance(bits.layers[0].lower, LogisticReading)
    assert all(isinstance(layer.upper, LogisticReading) for layer in real.layers)
    grey = ENCODERS["denoising"](steps=1, kind="levels", levels=17).fit(digits)
    assert grey.model_.top == 16 and grey.denoise(digits).max() < 16
    row = Row(jnp.asarray(digits[0], jnp.float32))
    assert float(grey.model_.presented(row, 0).x.max()) == digits[0].max() / 16
    start = grey.build(grey.schema_, key=jr.key(0)).layers[0].back.bias
    np.testing.assert_allclose(jax.nn.sigmoid(start), np.clip(digits.mean(axis=0) / 16, 1e-3, 1 - 1e-3), rtol=1e-4)
    drawn = ENCODERS["denoising"](steps=1, binarise="dynamic", levels=17).fit(digits)
    assert drawn.model_.top == 1 and drawn.schema_.divisor == 16


def noisy(n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Ones and zeros that come in blocks of six, and a copy in which 30 % are put out."""
    stream = np.random.default_rng(0)
    clean = np.repeat(stream.integers(0, 2, size=(n, 4)), 6, axis=1).astype(float)
    return clean, clean * (stream.uniform(size=clean.shape) > 0.3)


@pytest.mark.slow
def test_denoising_undoes_what_a_plain_autoencoder_keeps():
    """The mean error of cells of other rows: at most a third of that of the corruption, and below the plain one's."""
    clean, spoilt = noisy()
    made = {}
    for name, learning in (("denoising", Denoising(Masking(0.3))), ("plain", Reconstruction())):
        model = DenoisingAutoencoder(layers=(30,), learning=learning, steps=1500, rate=3e-3, **QUIET).fit(clean[:500])
        made[name] = np.abs(model.denoise(spoilt[500:]) - clean[500:]).mean()
    given = np.abs(spoilt - clean)[500:].mean()
    assert made["denoising"] < given / 3 and made["denoising"] < made["plain"]


@pytest.mark.slow
def test_a_chain_makes_rows_of_the_kind_of_the_data():
    """Cells of a block are alike in what is drawn, and blocks are not; the first draws stay when more are asked for."""
    clean, _ = noisy()
    learning = Denoising(SaltAndPepper(0.25))
    model = DenoisingAutoencoder(layers=(30,), learning=learning, steps=1500, rate=3e-3, passes=20, **QUIET).fit(clean)
    drawn = model.sample(60)
    assert drawn.shape == (60, 24) and (0 <= drawn).all() and (drawn <= 1).all()
    blocks = drawn.reshape(60, 4, 6)
    assert blocks.std(axis=2).mean() < 0.1 and blocks.mean(axis=2).std(axis=0).min() > 0.3
    np.testing.assert_array_equal(model.sample(5), drawn[:5])
    assert (model.sample(5, random_state=1) != drawn[:5]).any()
    row = np.repeat([1.0, 0.0, 0.0, 1.0], 6)[None]
    model.model_ = dataclasses.replace(model.model_, passes=1)
    begun = model.sample(40, start=row)
    near, far = (np.abs(made - row).mean() for made in (begun, drawn))
    assert near < far / 2 and not np.allclose(begun[0], begun[1])
    np.testing.assert_array_equal(model.sample(3, start=row), begun[:3])


def test_the_penalty_contracts():
    """The mean squared norm of the Jacobian of the units is at most a fourth of what it is without."""
    X = table()
    jacobian = lambda weight: np.mean([  # noqa: E731
        float(model.model_.layers[0].contraction(x)) for model in (
            ContractiveAutoencoder(layers=(5,), weight=weight, steps=400, rate=1e-2, **QUIET).fit(X),
        ) for x in jnp.asarray((X - X.mean(axis=0)) / X.std(axis=0), jnp.float32)[:40]
    ])  # fmt: skip
    assert jacobian(10.0) < jacobian(0.0) / 4


@pytest.mark.parametrize("learning", [MOD(), Descend(LeastCost(), gradient_descent(0.3), on=ATOMS)])
def test_sparse_codes_of_one_sign(learning):
    X = np.abs(table())
    model = ENCODERS["sparse"](steps=50, shrinkage=NonnegativeShrinkage(), learning=learning, standardise=False).fit(X)
    H = model.transform(X)
    assert (H >= 0).all() and (H == 0).mean() > 0.2
    assert np.linalg.norm(np.asarray(model.model_.dictionary), axis=0).max() < 1 + 1e-5
    np.testing.assert_array_equal(model.model_.centre.value, np.float32(X.mean(axis=0)))
    denser = ENCODERS["sparse"](steps=50, penalty=0.03).fit(table()).transform(table())
    assert (denser == 0).mean() < (
        ENCODERS["sparse"](steps=50, penalty=1.0).fit(table()).transform(table()) == 0
    ).mean()


# --- the classifier


def blocks(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Which of two halves is on, in rows a fifth of whose cells are put out."""
    stream = np.random.default_rng(0)
    y = stream.integers(0, 2, size=n)
    on = np.repeat(np.stack([y, 1 - y], axis=1), 6, axis=1)
    return on * (stream.uniform(size=on.shape) > 0.2), y


def small(**fields: Any) -> StackedDenoising:
    return StackedDenoising(**{"layers": (8, 6), "steps": 100, "tuning": 200, "tuning_rate": 1e-2, **QUIET} | fields)


@pytest.mark.slow
def test_a_stack_becomes_a_classifier():
    X, y = blocks()
    model = small(passes=3).fit(X[:150], np.array(["left", "right"])[1 - y[:150]])
    assert model.score(X[150:], np.array(["left", "right"])[1 - y[150:]]) > 0.95
    assert model.transform(X).shape == (200, 6) and model.sample(4).shape == (4, 12)
    features = jax.vmap(lambda x: model.model_.features(Row(x)))(jnp.asarray(X, jnp.float32))
    np.testing.assert_allclose(model.transform(X.astype(float)), features, atol=1e-6)
    bare = dataclasses.replace(model.model_, network=None)
    cleaned = jax.vmap(lambda x: bare.denoised(Row(x)))(jnp.asarray(X, jnp.float32))
    np.testing.assert_allclose(model.denoise(X.astype(float)), cleaned, atol=1e-6)
    assert not np.allclose(model.transform(X), jax.vmap(lambda x: bare.code(Row(x)))(jnp.asarray(X, jnp.float32)))


def test_layers_learn_from_all_rows_and_the_network_from_labels():
    """Other labels, the same layers, to the bit; rows without a label count for the layers."""
    X, y = blocks()
    one, other = small(validation=0.0).fit(X, y), small(validation=0.0).fit(X, 1 - y)
    fewer = small(validation=0.0).fit(X, np.where(np.arange(200) < 20, y, None))
    for model in (other, fewer):
        for a, b in zip(jax.tree.leaves(one.model_.layers), jax.tree.leaves(model.model_.layers), strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
    assert (np.asarray(one.model_.network.weights[0]) != np.asarray(fewer.model_.network.weights[0])).any()
    assert fewer.score(X, y) > 0.9


def test_the_network_may_learn_from_spoilt_rows():
    """With every cell put out there is nothing to learn from but how often each class comes."""
    X, y = blocks()
    clean, blind = small(validation=0.0).fit(X, y), small(validation=0.0, tuning_corruption=Masking(1.0)).fit(X, y)
    for a, b in zip(jax.tree.leaves(clean.model_.layers), jax.tree.leaves(blind.model_.layers), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)
    assert clean.score(X, y) > 0.95
    told = blind.predict_proba(np.zeros((1, 12)))[0]
    np.testing.assert_allclose(told, [np.mean(y == 0), np.mean(y == 1)], atol=0.02)


def test_a_classifier_wants_whole_rows():
    X, y = blocks()
    model = small(steps=1, tuning=1).fit(X, y)
    broken = X[:2].astype(float)
    broken[1, 3] = np.nan
    for verb in (model.predict, model.denoise):
        with pytest.raises(Complaint, match="StackedDenoising, X: expected complete rows, got NaN in row 1, column 3"):
            verb(broken)


# --- outlines of rectangles


def probed(features: np.ndarray, wide: np.ndarray, rows: int) -> float:
    """The error of a logistic regression on other rows; its penalty is chosen on the last fourth of those it has."""
    cut = 3 * rows // 4
    fit = lambda strength, n: LogisticRegression(C=strength, max_iter=1000).fit(features[:n], wide[:n])  # noqa: E731
    best = max((0.003, 0.03, 0.3, 3.0), key=lambda c: fit(c, cut).score(features[cut:rows], wide[cut:rows]))
    return 1 - fit(best, rows).score(features[rows:], wide[rows:])


@pytest.mark.slow
@pytest.mark.parametrize("share, layers, most", [(0.1, (500,), 0.75), (0.4, (500, 500), 0.5)])
def test_units_tell_wide_from_tall_better_than_pixels(share, layers, most):
    """Of 1,200 rectangles: the error of a linear probe beside that of raw pixels, seed by seed.

    Three fourths at most where a tenth of the cells is masked; half at most where four tenths are, with a layer more.
    """
    for seed in range(3):
        images, wide = rectangles(6_200, seed=100 + seed)
        X = images.reshape(len(images), -1)
        learning = Denoising(Masking(share))
        model = DenoisingAutoencoder(layers=layers, learning=learning, steps=1500, validation=0.0, **QUIET).fit(
            X[:1200]
        )
        assert probed(model.transform(X), wide, 1200) <= most * probed(X, wide, 1200)


@pytest.mark.slow
def test_noise_may_be_a_schedule_and_text():
    falling = Denoising(Masking(Linear(0.8, 0.2, 10.0)))
    model = ENCODERS["denoising"](learning=falling, steps=10).fit(noisy(50)[0])
    assert model.sample(2).shape == (2, 24) and float(model.model_.corruption.value.nu) == pytest.approx(0.2)
    noise = Denoising(GaussianNoise(0.5))
    assert parse(spell(noise)) == noise and "GaussianNoise(sd=0.5)" in spell(noise)
