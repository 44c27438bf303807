"""Recipes whose model goes from a row to its class: the contract, labels in every form, and what is kept of a run."""

from __future__ import annotations

import functools
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from networks import Lenient, TinyNetwork, groups, tiny
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator

import ravine as rv
from ravine import _monitor, fitting
from ravine._check import Complaint
from ravine._containers import image_axes
from ravine.core import Row
from ravine.diagnose import output_gradients
from ravine.diagnose.outputs import seen
from ravine.fitting import Plan
from ravine.labels import Classifying, log_shares, unlabelled
from ravine.registry import catalogue
from ravine.rules import Guarded
from ravine.train import train


@pytest.fixture(scope="module")
def fitted() -> TinyNetwork:
    return tiny(steps=300).fit(*groups())


@pytest.fixture
def known(monkeypatch):
    """The recipe has a name, so that it can be loaded."""
    monkeypatch.setattr(catalogue, "CLASSIFIERS", {"tiny-network": ("networks", "TinyNetwork")})


# --- scikit-learn's own checks

# It asks for a variable of the environment to be set before scipy is imported.
LEFT_OUT = ("check_array_api_input",)
WEIGHTS = "check_sample_weight_equivalence_on_dense_data"  # a repeated row is in another batch than a weight of 2


@pytest.mark.parametrize("recipe", [TinyNetwork, Lenient])
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_own_checks(recipe, forgetful):
    failed, count = {}, 0
    for estimator, check in estimator_checks_generator(recipe(steps=100)):
        title = getattr(check, "func", check).__name__
        if title in LEFT_OUT:
            continue
        count += 1
        try:
            check(estimator)
        except Exception as error:
            failed[title] = f"{type(error).__name__}: {error}"
    assert {title: why for title, why in failed.items() if title != WEIGHTS} == {}
    assert WEIGHTS in failed and count > 55


# --- what it says


def nats(model: TinyNetwork, values: np.ndarray) -> np.ndarray:
    """log p(y | x) written out, for values as the model sees them."""
    below, top = (np.asarray(net.layers[0].weight, float) for net in (model.model_.below, model.model_.top))
    at, on = (np.asarray(net.layers[0].bias, float) for net in (model.model_.below, model.model_.top))
    logits = np.tanh(values @ below.T + at) @ top.T + on
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_it_says_what_the_network_says(fitted):
    X, y = groups()
    seen = (X - X.mean(axis=0)) / X.std(axis=0)
    shares = fitted.predict_proba(X)
    np.testing.assert_allclose(shares, np.exp(nats(fitted, seen)), atol=1e-5)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)
    assert (fitted.predict(X) == fitted.classes_[shares.argmax(axis=1)]).all() and is_classifier(fitted)
    assert fitted.score(X, y) == (fitted.predict(X) == y).mean() > 0.95
    assert fitted.log_loss(X, y) == pytest.approx(log_loss(y, shares), abs=1e-12)
    weight = np.arange(120.0)
    assert fitted.log_loss(X, y, weight) == pytest.approx(log_loss(y, shares, sample_weight=weight), abs=1e-12)
    with pytest.raises(Complaint, match=r"y: expected one of \['a', 'b', 'c'\], got \['d'\]; leave these rows out"):
        fitted.log_loss(X[:2], ["a", "d"])


def test_features_are_those_of_the_network(fitted):
    X, y = groups()
    seen = (X - X.mean(axis=0)) / X.std(axis=0)
    below = fitted.model_.below.layers[0]
    made = fitted.transform(X)
    truth = np.tanh(seen @ np.asarray(below.weight, float).T + np.asarray(below.bias, float))
    np.testing.assert_allclose(made, truth, atol=1e-5)
    assert made.dtype == np.float64 and fitted.transform(X.astype(np.float32)).dtype == np.float32
    frame = clone(fitted).set_output(transform="pandas").fit(pd.DataFrame(X), y).transform(pd.DataFrame(X))
    assert list(frame.columns) == [f"tinynetwork{i}" for i in range(4)] == list(fitted.get_feature_names_out())
    np.testing.assert_array_equal(frame.to_numpy(), made)
    assert make_pipeline(fitted, LogisticRegression()).fit(X, y).score(X, y) > 0.95


def test_a_row_alone_is_told_as_among_others(fitted):
    X = groups()[0]
    np.testing.assert_array_equal(fitted.predict_proba(X[[7]]), fitted.predict_proba(X)[[7]])


def test_what_looks_inside_a_model_finds_its_log_shares(fitted):
    assert isinstance(fitted.model_, Classifying) and not isinstance(fitted.model_.below, Classifying)
    row = fitted._row(groups()[0][:1])
    found = log_shares(jax.tree.map(lambda leaf: leaf[0], row), fitted.model_)
    np.testing.assert_allclose(np.exp(found), fitted.predict_proba(groups()[0][:1])[0], atol=1e-6)


def test_images_keep_their_shape():
    X, y = load_digits(return_X_y=True)
    X, y = X[:200].reshape(-1, 8, 8) / 16, y[:200]
    model = tiny(hidden=16, steps=300).fit(X, y)
    assert model.schema_.image_shape == image_axes(X) == (8, 8) and model.n_features_in_ == 64
    assert model.score(X, y) > 0.9
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(X.reshape(200, 64)))
    deep = tiny(steps=2).fit(np.stack([X, X, X], axis=-1), y)
    assert deep.schema_.image_shape == (8, 8, 3) and deep.transform(np.stack([X, X, X], axis=-1)).shape == (200, 4)


def test_grey_values_go_in_as_shares_and_nothing_is_drawn(monkeypatch):
    X, y = load_digits(n_class=3, return_X_y=True)
    model = tiny(steps=200, binarise="dynamic", levels=17).fit(X, y)
    assert model.score(X, y) > 0.95 and model.schema_.draw() is not None
    np.testing.assert_allclose(model.predict_proba(X), np.exp(nats(model, X / 16)), atol=1e-5)
    assert seen(model, X[:2], log_shares).row.x.max() == 1  # what can be moved by a little
    rules = []
    stopped = lambda recipe, plan, *rest: rules.append(plan.stages[0].rule) or 1 / 0  # noqa: E731
    monkeypatch.setattr("ravine.network_classifier.fit", stopped)
    with pytest.raises(ZeroDivisionError):
        tiny(binarise="dynamic", levels=17).fit(X, y)
    assert isinstance(rules[0].rule, Guarded) and len(np.unique(rules[0].held_out.x)) > 2


def test_slopes_of_shares_and_features_are_those_of_differences():
    """In the units of the table."""
    X, y = groups()
    model = tiny(steps=100, precision="float64").fit(X, y)
    labels, features = output_gradients(model, X[:3], labels=["b"]), output_gradients(model, X[:3])
    for j in range(4):
        step = 1e-5 * np.eye(4)[j]
        up, down = (np.log(model.predict_proba(X[:3] + sign * step))[:, 1] for sign in (1, -1))
        np.testing.assert_allclose(labels[:, 0, j], (up - down) / 2e-5, rtol=1e-4, atol=1e-8)
        up, down = (model.transform(X[:3] + sign * step) for sign in (1, -1))
        np.testing.assert_allclose(features[:, :, j], (up - down) / 2e-5, rtol=1e-4, atol=1e-8)


def test_the_share_of_right_classes_is_told_with_its_error(fitted):
    X, y = groups()
    labels = np.where(np.arange(120) < 20, "zz", y).astype(object)
    labels[100:] = None
    got = fitted.evaluate(X, labels)
    right = (fitted.predict(X) == labels)[:100]
    assert (got.accuracy, got.rows, got.seed) == (right.mean(), 100, fitted.seed_)
    assert got.standard_error == pytest.approx(right.std() / 10, abs=1e-12) and 0.03 < got.standard_error < 0.05
    share, error = 100 * got.accuracy, 100 * got.standard_error
    assert str(got) == f"{share:.2f} +- {error:.2f} % right (100 rows; 4 real cells (standardised))"
    with pytest.raises(Complaint, match="y: expected labels of some rows, got none"):
        fitted.evaluate(X[:2], [None, np.nan])
    assert tiny(steps=2).fit(X, y == "a").evaluate(X, ["a"] * 120).accuracy == 0
    signs = tiny(steps=200).fit(X, np.where(y == "a", -1, 1))
    assert signs.evaluate(X, np.where(y == "a", -1, 1)).rows == 120
    assert signs.evaluate(X, [-1, 1, 2] * 40).rows == 120  # -1 is a class of the fit


# --- labels


def numbers() -> np.ndarray:
    return np.searchsorted(["a", "b", "c"], groups()[1])


@pytest.mark.parametrize(
    "labels, classes",
    [
        (lambda n: n.tolist(), [0, 1, 2]),
        (lambda n: n > 0, [False, True]),
        (lambda n: n / 1.0, [0.0, 1.0, 2.0]),
        (lambda n: 2 * (n > 0) - 1, [-1, 1]),
        (lambda n: pd.Series(n).astype("Int64"), [0, 1, 2]),
        (lambda n: pd.Categorical.from_codes(n, ["x", "y", "z"]), ["x", "y", "z"]),
        (lambda n: n.astype(object), [0, 1, 2]),
    ],
)
def test_labels_of_any_kind(labels, classes):
    X, y = groups()[0], labels(numbers())
    model = tiny(steps=200).fit(X, y)
    assert model.classes_.tolist() == classes and (model.predict(X) == np.asarray(y)).mean() > 0.9
    other = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(other.predict(X), model.predict(X))


def test_labels_may_be_a_column(fitted):
    X, y = groups()
    frame = pd.DataFrame(X, columns=list("pqrs"))
    apart = tiny().fit(frame, y, held_out=(frame[:30], y[:30]))
    within = tiny(label="group").fit(frame.assign(group=y), held_out=(frame[:30], y[:30]))
    assert (within.predict_proba(frame) == apart.predict_proba(frame)).all()
    with pytest.raises(Complaint, match="TinyNetwork requires y to be passed"):
        tiny().fit(frame)


def wanting(none: Any) -> Any:
    """Labels of which every third is missing."""
    if none == -1:
        return np.where(np.arange(120) % 3, numbers(), -1)
    return [none if i % 3 == 0 else label for i, label in enumerate(groups()[1] if none is None else numbers())]


@pytest.mark.parametrize("none", [None, np.nan, -1])
def test_rows_without_a_label_are_refused_or_learned_from(none):
    X, y = groups()[0], wanting(none)
    with pytest.raises(Complaint, match="y: expected a label for every row, got none in 40 rows; give them"):
        tiny().fit(X, y)
    model = Lenient(steps=300, random_state=0, progress=False).fit(X, y)
    truth = groups()[1] if none is None else numbers()
    assert len(model.classes_) == 3 and model.score(X, truth) > 0.9
    assert model.classes_.dtype.kind in "iOf" and model.classes_.tolist() in (["a", "b", "c"], [0, 1, 2])


def as_numpy(plan: Plan) -> tuple[Row, np.ndarray, Row]:
    """The rows, which of them are learned from, and the rows that are held out."""
    source: Any = plan.source
    held: Any = plan.stages[0].rule
    return *jax.tree.map(np.asarray, (source.source.row, source.places)), jax.tree.map(np.asarray, held.held_out)


@pytest.mark.parametrize("weighted", [False, True])
def test_what_learns_sees_codes_and_which_are_known_and_holds_out_labelled_rows(weighted, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "ravine.network_classifier.fit", lambda recipe, plan, *rest: seen.append(as_numpy(plan)) or 1 / 0
    )
    X, codes, weight = groups()[0], np.where(np.arange(120) % 3, numbers(), -1), np.arange(120.0) % 4
    recipe = Lenient(random_state=0, standardise=False, precision="float64", validation=0.25)
    with pytest.raises(ZeroDivisionError):
        recipe.fit(X, wanting(None), weight if weighted else None)
    count = 90 if weighted else 120
    row, places, held = seen[0]
    X, codes, weight = (part[weight > 0] if weighted else part for part in (X, codes, weight))
    np.testing.assert_array_equal(row.x[:count], X)
    np.testing.assert_array_equal(row.y[:count], codes)
    np.testing.assert_array_equal(row.y_mask[:count], codes >= 0)
    assert row.y.dtype == jnp.int32 and row.y_mask.dtype == bool
    assert (row.weight is not None) == weighted and (not weighted or (row.weight[:count] == weight).all())
    apart = np.setdiff1d(np.arange(count), places)
    assert len(apart) == (codes >= 0).sum() // 4 and (codes[apart] >= 0).all()
    real = np.flatnonzero(held.weight)
    assert sorted(held.x[real, 0].tolist()) == sorted(X[apart, 0].tolist()) and held.y_mask[real].all()
    whose = [int(np.flatnonzero(X[:, 0] == first)[0]) for first in held.x[real, 0]]
    np.testing.assert_array_equal(held.y[real], codes[whose])
    np.testing.assert_array_equal(held.weight[real], weight[whose] if weighted else np.ones(len(whose)))


def test_rows_of_no_weight_are_no_rows():
    X, y = groups()
    weight = (np.arange(120) < 80).astype(float)
    some = tiny().fit(X, np.where(weight, y, None), weight)
    np.testing.assert_array_equal(some.predict_proba(X), tiny().fit(X[:80], y[:80], np.ones(80)).predict_proba(X))


# --- held-out rows


def test_the_best_model_on_held_out_rows_is_kept():
    """Labels that nothing tells: the network learns the training rows, and does worse on others after a while."""
    stream = np.random.default_rng(0)
    X, y = stream.normal(size=(60, 20)), stream.integers(0, 2, size=60)
    other = stream.normal(size=(200, 20)), stream.integers(0, 2, size=200)
    fields: dict[str, Any] = {"hidden": 20, "rate": 0.003, "steps": 2000}
    model = tiny(patience=5, **fields).fit(X, y, held_out=other)
    assert model.history_[-1]["stopped"] and model.history_[-1]["done"] < 2000
    assert model.log_loss(*other) == pytest.approx(model.history_[-1]["held_out"], rel=1e-4)
    assert tiny(validation=0.0, **fields).fit(X, y).log_loss(*other) > 2 * model.log_loss(*other)


@pytest.mark.parametrize(
    "held_out, line",
    [
        (np.zeros((3, 4)), r"held_out: expected a pair \(X, y\), got ndarray; give rows and their labels"),
        ((np.zeros((3, 4)), ["a", "b"]), "y: expected 3 labels, one for each row, got 2; give one for each"),
        ((np.zeros((1, 4)), ["z"]), r"held_out, y: expected labels among \['a', 'b', 'c'\], got \['z'\]; leave out"),
        ((np.full((1, 4), np.nan), ["a"]), "TinyNetwork, X: expected complete rows, got NaN in row 0, column 0; fill"),
        ((np.zeros((1, 3)), ["a"]), "X has 3 features, but TinyNetwork is expecting 4"),
    ],
)
def test_held_out_rows_that_cannot_be_are_refused_in_one_line(held_out, line, monkeypatch):
    monkeypatch.setattr("ravine.network_classifier.fit", None)
    with pytest.raises(ValueError, match=line) as caught:
        tiny().fit(*groups(), held_out=held_out)
    assert "\n" not in str(caught.value)


# --- files


def test_what_was_saved_answers_to_the_bit(known, fitted, tmp_path):
    X = groups()[0]
    again = rv.load(fitted.save(tmp_path))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X), strict=True)
    np.testing.assert_array_equal(again.transform(X), fitted.transform(X), strict=True)
    np.testing.assert_array_equal(again.classes_, fitted.classes_, strict=True)
    assert again.get_params() == fitted.get_params() and list(again.get_feature_names_out())[0] == "tinynetwork0"
    with pytest.raises(NotFittedError):
        tiny().save(tmp_path / "none")


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_run_that_was_killed_goes_on_to_the_bit(precision, monkeypatch, tmp_path):
    """From every checkpoint, as a copy of the folder would have it."""
    monkeypatch.setattr(fitting, "train", functools.partial(train, chunk=7))
    monkeypatch.setattr(_monitor, "CHECKPOINT_SECONDS", -1.0)
    save, moments = _monitor.save_checkpoint, []

    def watched(folder: Path, *rest: Any) -> None:
        save(folder, *rest)
        moments.append(shutil.copytree(folder, tmp_path / f"moment-{len(moments)}"))

    recipe = tiny(steps=60, precision=precision)
    whole = clone(recipe).fit(*groups())
    monkeypatch.setattr(_monitor, "save_checkpoint", watched)
    kept = clone(recipe).fit(*groups(), folder=tmp_path / "run")
    monkeypatch.setattr(_monitor, "save_checkpoint", save)
    assert len(moments) > 5
    for moment in [tmp_path / "run", *moments[::3]]:
        again = clone(recipe).fit(*groups(), folder=moment, resume=True)
        for other in (kept, again):
            for one, two in zip(jax.tree.leaves(whole.model_), jax.tree.leaves(other.model_), strict=True):
                np.testing.assert_array_equal(one, two, strict=True)


def test_a_fit_can_be_cut_short():
    model = tiny(steps=1_000_000, max_seconds=0.2).fit(*groups())
    assert model.history_[-1]["done"] < 1_000_000 and model.score(*groups()) > 0.9


# --- refusals


def holed(value: float) -> np.ndarray:
    X = groups()[0].copy()
    X[3, 1] = value
    return X


REFUSED: Mapping[str, tuple[Any, Any, dict[str, Any], str]] = {
    "a hole": (lambda: holed(np.nan), None, {}, "TinyNetwork, X: expected complete rows, got NaN in row 3, column 1"),
    "an infinite cell": (
        lambda: holed(np.inf),
        None,
        {},
        r"expected finite numbers, got inf at \[3, 1\]; write NaN",
    ),
    "too few labels": (None, ["a", "b"], {}, "y: expected 120 labels, one for each row, got 2; give one for each"),
    "one class": (None, ["a"] * 120, {}, r"y: expected labels of two classes at least, got 1 class, \['a'\]; add rows"),
    "no labels": (None, [None] * 120, {}, "y: expected a label for every row, got none in 120 rows; give them"),
    "reals": (None, np.linspace(0, 1, 120), {}, "Unknown label type: continuous"),
    "infinite labels": (None, np.full(120, np.inf), {}, "Input y contains infinity"),
    "numbers and text": (
        None,
        np.array([1, "a"] * 60, object),
        {},
        "y: expected labels that are all numbers, or all",
    ),
    "a share": (None, None, {"validation": 1.0}, "validation: expected a share"),
    "a field": (None, None, {"hidden": 0}, "TinyNetwork, hidden: expected a whole number of at least 1, got 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(name, monkeypatch):
    """Before anything is traced."""
    monkeypatch.setattr("ravine.network_classifier.fit", None)
    X, y, fields, line = REFUSED[name]
    with pytest.raises(ValueError, match=line) as caught:
        tiny(**fields).fit(groups()[0] if X is None else X(), groups()[1] if y is None else y)
    assert "\n" not in str(caught.value)


def test_going_on_needs_a_folder():
    with pytest.raises(Complaint, match="resume: expected a folder to go on from, got None; name it: folder="):
        tiny().fit(*groups(), resume=True)


def test_a_hole_is_refused_by_name(fitted):
    frame = pd.DataFrame(groups()[0], columns=["one", "two", "three", "four"])
    model = tiny(steps=2).fit(frame, groups()[1])
    broken = frame[:3].assign(three=[0.0, np.nan, 1.0])
    for verb in (model.predict, model.predict_proba, model.transform):
        with pytest.raises(Complaint, match="X: expected complete rows, got NaN in row 1, column 'three'; fill the"):
            verb(broken)


def test_what_marks_a_row_without_a_label():
    assert unlabelled(np.array([0.0, np.nan, -1.0, 1.0])).tolist() == [False, True, True, False]
    assert unlabelled(np.array([-1, 1, -1])).tolist() == [False] * 3
    assert unlabelled(np.array(["-1", "a", "b"])).tolist() == [False] * 3
    assert unlabelled(np.array([None, "a", "b"], object)).tolist() == [True, False, False]
    assert unlabelled(np.array([-1.5, -1.0, 2.0, 3.0])).tolist() == [False] * 4
