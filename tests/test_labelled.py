"""Rows of which some have a label: bounds against quadrature, labels in every form, and what is learned from few."""

from __future__ import annotations

import pickle
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import pytest
from helpers import LIMIT, worst
from scipy.special import log_softmax, logsumexp
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import ravine as rv
from ravine._check import Complaint
from ravine._tree import Fixed
from ravine.cli import main
from ravine.core import Row
from ravine.data import Schema
from ravine.dist import Gaussian
from ravine.evidence import ImportanceWeighted
from ravine.gradients import RLOO, Enumerate, GumbelSoftmax, ReinMax, StraightThroughGumbel
from ravine.labelled import coded, evened
from ravine.nets import tanh
from ravine.objectives import SemiSupervised

ROW = np.array([1.0, 0.0, 1.0])


def recipe(**fields: Any) -> rv.SemiSupervisedGumbel:
    usual = {"latents": 1, "hidden": (4,), "steps": 30, "random_state": 0, "progress": False}
    return rv.SemiSupervisedGumbel(**usual | fields)


@pytest.fixture(scope="module")
def model() -> Any:
    """Two classes, a style of one number, three bits; parameters away from where they begin."""
    made = recipe(activation=tanh).build(Schema.infer(np.eye(3)), key=jr.key(0))
    arrays, rest = jax.tree.flatten(made)
    keys = jr.split(jr.key(1), len(arrays))
    moved = [a + 0.3 * jr.normal(k, a.shape) if hasattr(a, "dtype") and a.dtype.kind == "f" else a
             for a, k in zip(arrays, keys, strict=True)]  # fmt: skip
    made = jax.tree.unflatten(rest, moved)
    return eqx.tree_at(lambda m: m.p.style, made, Fixed(Gaussian(jnp.zeros(1), jnp.ones(1))))


# --- against quadrature, in numpy


def net(mlp: Any, x: np.ndarray) -> np.ndarray:
    h = x
    for i, layer in enumerate(mlp.layers):
        h = np.asarray(layer.weight) @ (np.tanh(h) if i else h) + np.asarray(layer.bias)
    return h


def log_x(model: Any, y: int, z: float) -> float:
    logits = net(model.p.conditional.net, np.array([*np.eye(2)[y], z]))
    return -float(np.sum(np.logaddexp(0, np.where(ROW > 0.5, -logits, logits))))


def known_bound(model: Any, y: int) -> float:
    """L(x, y) - log p(y), by Gauss-Hermite quadrature."""
    law = model.q.style(jnp.asarray(np.eye(2)[y]), jnp.asarray(ROW))
    m, s = float(law.location[0]), float(law.scale[0])
    points, mass = np.polynomial.hermite_e.hermegauss(60)
    fit = sum(w * log_x(model, y, m + s * e) for e, w in zip(points, mass / mass.sum(), strict=True))
    return fit - (0.5 * (m**2 + s**2 - 1) - np.log(s))


def truth(model: Any) -> tuple[list[float], float, np.ndarray]:
    """L(x, y) of both classes, U(x), and q(y | x)."""
    prior = log_softmax(np.asarray(model.p.shares.logits, float))
    log_q = log_softmax(np.asarray(model.q.label(jnp.asarray(ROW)).logits, float))
    each = [known_bound(model, y) for y in range(2)]
    unknown = sum(np.exp(log_q[y]) * (each[y] + prior[y] - log_q[y]) for y in range(2))
    return [each[y] + prior[y] for y in range(2)], unknown, log_q


@pytest.mark.parametrize("gradient", [Enumerate(), RLOO(2)], ids=repr)
def test_bounds_are_those_of_quadrature(model, gradient):
    """4000 draws; each mean is within 4.5 standard errors."""
    exact, unknown, log_q = truth(model)
    objective, keys = SemiSupervised(gradient), jr.split(jr.key(2), 4000)

    def drawn(row: Row) -> np.ndarray:
        return np.asarray(jax.jit(jax.vmap(lambda k: jnp.stack(objective.terms(model, row, key=k))))(keys))

    for y in range(2):
        bound, label = drawn(Row(jnp.asarray(ROW), y=jnp.array(y), y_mask=jnp.array(True))).T
        assert worst(bound, np.asarray(exact[y])) < LIMIT
        np.testing.assert_allclose(label, log_q[y], rtol=1e-4)
    bound, label = drawn(Row(jnp.asarray(ROW), y=jnp.array(-1), y_mask=jnp.array(False))).T
    assert worst(bound, np.asarray(unknown)) < LIMIT and (label == 0).all()


def test_the_likelihood_sums_over_classes_and_styles(model):
    prior = log_softmax(np.asarray(model.p.shares.logits, float))
    points, mass = np.polynomial.hermite_e.hermegauss(80)
    terms = [prior[y] + np.log(w) + log_x(model, y, e) for y in range(2)
             for e, w in zip(points, mass / mass.sum(), strict=True)]  # fmt: skip
    value, error = ImportanceWeighted(20_000)(model, Row(jnp.asarray(ROW)[None]), key=jr.key(0))
    assert abs(float(value[0]) - logsumexp(terms)) < LIMIT * float(error[0]) + 1e-5


@pytest.mark.slow
def test_the_loss_adds_the_shares_of_known_labels(model):
    batch = Row(jnp.asarray(np.stack([ROW] * 3)), y=jnp.array([0, -1, 1]), y_mask=jnp.array([True, False, True]))
    (plain, metrics), (more, _) = (SemiSupervised(Enumerate(), a)(model, batch, key=jr.key(0)) for a in (0.0, 2.0))
    log_q = truth(model)[2]
    assert np.isclose(float(metrics["log_label"]), log_q.mean(), rtol=1e-4)
    assert np.isclose(float(plain - more), 2 * log_q.mean(), rtol=1e-4)


# --- labels


@pytest.mark.parametrize(
    ("y", "classes", "codes"),
    [
        ([1, -1, 0, 3], [0, 1, 3], [1, -1, 0, 2]),
        ([1.0, np.nan, 0.0, -1.0], [0.0, 1.0], [1, -1, 0, -1]),
        (["b", None, "a", "b"], ["a", "b"], [1, -1, 0, 1]),
        (pd.Series(["b", pd.NA, "a", "b"], dtype="string"), ["a", "b"], [1, -1, 0, 1]),
        (pd.Categorical(["b", None, "a", "b"]), ["a", "b"], [1, -1, 0, 1]),
        ([-0.5, 0.5, np.nan, -1.0], [-1.0, -0.5, 0.5], [1, 2, -1, 0]),
        ([True, False, True, False], [False, True], [1, 0, 1, 0]),
    ],
)
def test_rows_without_a_label_are_marked_as_people_mark_them(y, classes, codes):
    found, places = coded(y, 4)
    assert found.tolist() == classes and places.tolist() == codes


@pytest.mark.parametrize(
    ("y", "words"),
    [(None, "the name of their column"), ([1, 0], "got 2"), ([1, 1, -1, -1], "two classes"), ([-1] * 4, "two classes")],
)
def test_labels_that_cannot_be_are_one_line(y, words):
    with pytest.raises(Complaint, match=words):
        recipe().fit(np.eye(4), y)


def test_repeated_rows_and_their_weights_sum_to_the_rows():
    codes = np.where(np.arange(50) % 10 == 0, 1, -1)
    places, scale = evened(np.arange(3, 50), codes, np.arange(50.0))
    count = np.bincount(places, minlength=50)
    assert np.allclose(count * scale, np.where(np.arange(50) >= 3, np.arange(50.0), 0))
    assert abs((codes[places] >= 0).mean() - 0.5) < 0.1


# --- learning


def few_labels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Binary digits, the labels of five rows of each class, and the truth."""
    X, y = load_digits(return_X_y=True)
    some = np.full(len(y), -1)
    for c in range(10):
        some[np.random.default_rng(c).permutation(np.flatnonzero(y == c))[:5]] = c
    return (X > 7).astype(float), some, y


GRADIENTS = {
    "gumbel": GumbelSoftmax(0.7),
    "straight-through": StraightThroughGumbel(0.5),  # hotter ones are too biased
    "reinmax": ReinMax(1.3),
    "rloo": RLOO(2),
    "enumerate": Enumerate(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GRADIENTS)
def test_rows_without_labels_help(name):
    """Better, by three standard errors of the paired difference, than a classifier of the labelled rows alone.

    On the 1,747 rows whose label is not told, of which the model has seen four in five without it.
    """
    X, some, y = few_labels()
    alone, others = LogisticRegression(max_iter=1000).fit(X[some >= 0], some[some >= 0]), some < 0
    fields = {"latents": 8, "hidden": (128,), "steps": 4000, "patience": 100, "gradient": GRADIENTS[name]}
    seen = (some >= 0) | (np.random.default_rng(10).uniform(size=len(y)) < 0.8)
    right = recipe(**fields).fit(X[seen], some[seen]).predict(X[others]) == y[others]
    gain = right.astype(float) - (alone.predict(X[others]) == y[others])
    assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5


def two_groups() -> tuple[np.ndarray, np.ndarray]:
    """Forty rows, and the labels of half of them."""
    X = np.random.default_rng(0).normal(size=(40, 3)) + np.repeat([[0.0], [3.0]], 20, axis=0)
    y = np.array(["low"] * 20 + ["high"] * 20, dtype=object)
    y[::2] = None
    return X, y


@pytest.mark.slow
def test_a_fitted_model_comes_back_with_its_labels(tmp_path):
    X, y = two_groups()
    model = recipe().fit(X, y)
    assert model.classes_.tolist() == ["high", "low"] and set(model.predict(X)) <= {"high", "low"}
    assert np.allclose(model.predict_proba(X).sum(axis=1), 1, atol=1e-5)
    model.save(tmp_path / "run")
    for other in (rv.load(tmp_path / "run"), pickle.loads(pickle.dumps(model))):
        assert (other.predict_proba(X) == model.predict_proba(X)).all() and (other.predict(X) == model.predict(X)).all()
        assert (other.score_samples(X) == model.score_samples(X)).all()
    assert model.sample(3).shape == (3, 3) and model.transform(X).shape == (40, 3)
    for name in ("partial_fit", "fit_seeds"):
        assert not hasattr(model, name)


@pytest.mark.slow
def test_images_may_be_seen_through_convolutions(tmp_path):
    """With holes, back from its file, and refused for rows that are no images."""
    digits, y = load_digits(return_X_y=True)
    X = digits[:300].reshape(-1, 8, 8)
    X[0, :2, :3] = np.nan
    some = np.where(np.arange(300) < 100, y[:300], -1)
    model = recipe(channels=(4, 8), hidden=(16,), steps=300, rate=3e-3, levels=17).fit(X, some)
    assert (model.predict(X[100:]) == y[100:300]).mean() > 0.5
    model.save(tmp_path / "run")
    assert (rv.load(tmp_path / "run").predict_proba(X) == model.predict_proba(X)).all()
    filled = model.impute(X)
    assert np.isfinite(filled).all() and (filled[1:] == X[1:]).all()
    with pytest.raises(Complaint, match="channels: expected rows that are images"):
        recipe(channels=(4,)).fit(digits[:300], some)


@pytest.mark.slow
def test_labels_may_be_a_column(tmp_path, monkeypatch, capsys):
    X, y = two_groups()
    table = pd.DataFrame(X, columns=list("abc")).assign(group=y)
    one, other = recipe(label="group").fit(table), recipe().fit(table[list("abc")], y)
    assert (one.predict_proba(table[list("abc")]) == other.predict_proba(table[list("abc")])).all()
    monkeypatch.chdir(tmp_path)
    table.to_csv("table.csv", index=False)
    quick = ["--set", "label=group", "--set", "steps=20", "--set", "latents=1", "--set", "hidden=(4,)"]
    assert main(["fit", "semi-supervised-gumbel", "table.csv", *quick, "--out", "run"]) == 0
    for command in ("predict", "encode"):
        assert main([command, "run", "table.csv", "--out", f"{command}.csv"]) == 0
    assert main(["score", "run", "table.csv"]) == 0 and main(["diagnose", "run"]) == 0
    told = pd.read_csv("predict.csv")
    assert list(told) == ["class", "p(high)", "p(low)"] and set(told["class"]) <= {"high", "low"}
    np.testing.assert_allclose(told["p(high)"] + told["p(low)"], 1, atol=1e-5)
    capsys.readouterr()
    for words, said in ((["label=colour"], "'colour'"), ([], "label")):
        asked = [part for word in words for part in ("--set", word)]
        assert main(["fit", "semi-supervised-gumbel", "table.csv", *asked]) == 2
        line = capsys.readouterr().err
        assert said in line and line.count("\n") == 1


@pytest.mark.slow
def test_a_mixture_tells_classes_in_the_shell(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "gaussian-mixture", "iris", "--set", "components=2", "--out", "run"]) == 0
    assert main(["predict", "run", "iris", "--out", "told.csv"]) == 0
    told = pd.read_csv("told.csv")
    assert list(told) == ["class", "p(0)", "p(1)"] and len(told) == 150
    assert (told[["p(0)", "p(1)"]].to_numpy().argmax(axis=1) == told["class"]).all()
    assert main(["fit", "factor-analysis", "iris", "--out", "other"]) == 0
    capsys.readouterr()
    assert main(["predict", "other", "iris", "--out", "x.csv"]) == 2
    assert "a model with classes" in capsys.readouterr().err
