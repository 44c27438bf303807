"""Explanations of a classifier: the bound against sums over all subsets, and what is found where it is known."""

from __future__ import annotations

import copy
import functools
import itertools
import pickle
import subprocess
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import pytest
from helpers import LIMIT, estimates, exactly, worst
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator

import ravine as rv
from ravine._tree import Fixed
from ravine.cli import main
from ravine.core import Row
from ravine.data import Schema
from ravine.data.generated import EXPLAINED, xor
from ravine.dist import Subset
from ravine.gradients import (
    AIMLE,
    IMLE,
    NVIL,
    RLOO,
    SIMPLE,
    VIMCO,
    ConcreteSubset,
    Enumerate,
    GumbelSoftmax,
    Pathwise,
    ScoreFunction,
)
from ravine.models.selection import Selective
from ravine.objectives import InformationBound
from ravine.recognisers import Filled

slow = pytest.mark.slow
SMALL: dict[str, Any] = {"k": 1, "hidden": (8,), "predictor": (8,), "random_state": 0, "progress": False}


def explainer(**fields: Any) -> rv.LearningToExplain:
    return rv.LearningToExplain(**SMALL | fields)


# The bound and its gradient.


def model_and_rows() -> tuple[Selective, Row]:
    """Five features, two of them selected; three classes."""
    stream = np.random.default_rng(1)
    made = explainer(k=2, hidden=(3,), predictor=(4,)).build(Schema((5,), "real"), 3, key=jr.key(2))
    return made, Row(jnp.asarray(stream.normal(size=(2, 5))), y=jnp.asarray(stream.dirichlet(np.ones(3), size=2)))


PAIRS = np.array([[float(i in pair) for i in range(5)] for pair in itertools.combinations(range(5), 2)])


def summed(batch: Row, model: Selective) -> jax.Array:
    """The negative bound, written out over the ten pairs."""
    total = 0.0
    for x, y in zip(batch.x, batch.y, strict=True):
        weight = jnp.exp(PAIRS @ model.select.net(x))
        raw = jnp.stack([model.classify(jnp.asarray(pair) * x) for pair in PAIRS])
        log_shares = raw - jnp.log(jnp.sum(jnp.exp(raw), axis=1, keepdims=True))
        total = total - weight @ (log_shares @ y) / jnp.sum(weight) / len(batch.x)
    return total


@slow
@pytest.mark.parametrize("gradient", [RLOO(3), ScoreFunction()])
def test_the_gradient_is_that_of_the_sum_over_all_subsets(gradient, x64):
    """75 numbers within 4.5 standard errors: another seed would fail a correct one once in 2,000 times."""
    model, batch = model_and_rows()
    objective = InformationBound(gradient)
    draws = estimates(lambda m, key: objective(m, batch, key=key)[0], model, 10_000)
    truth = exactly(functools.partial(summed, batch), model)
    assert worst(draws, truth) < LIMIT and np.linalg.norm(truth[1:]) > 0.1


@slow
@pytest.mark.parametrize("gradient", [SIMPLE(), IMLE(3.0), ConcreteSubset(0.3)])
def test_values_are_as_declared(gradient, x64):
    """Exact draws have the right value, one number within 4.5 standard errors; soft ones have another, as do slopes."""
    model, batch = model_and_rows()
    draws = estimates(lambda m, key: InformationBound(gradient)(m, batch, key=key)[0], model, 10_000)
    truth = exactly(functools.partial(summed, batch), model)
    assert (worst(draws[:, :1], truth[0]) < LIMIT) == (not isinstance(gradient, ConcreteSubset))
    assert gradient.biased and worst(draws[:, 1:], truth[1:]) > 2 * LIMIT


def test_enumeration_is_exact(x64):
    model, batch = model_and_rows()
    objective = InformationBound(Enumerate())
    found = exactly(lambda m: objective(m, batch, key=jr.key(0))[0], model)
    np.testing.assert_allclose(found, exactly(functools.partial(summed, batch), model), atol=1e-12)


class Table(eqx.Module):
    """The logits of two classes for each of the 27 things that can be seen of three signs."""

    logits: jax.Array

    def __call__(self, seen: jax.Array) -> jax.Array:
        return self.logits[(seen + 1).astype(int) @ jnp.array([9, 3, 1])]


CUBE = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))
CHANCE = np.array([0.9, 0.8, 0.3, 0.1, 0.75, 0.6, 0.2, 0.05])  # of class 1 at each corner


def conditional(k: int) -> tuple[np.ndarray, dict[tuple[float, ...], float]]:
    """p(y = 1 | x_S) for all subsets of size k and all that can be seen, and H(Y | X_S) of each subset in nats."""
    table, entropy = np.full(27, 0.5), {}
    for chosen in itertools.combinations(range(3), k):
        z = np.isin(np.arange(3), chosen).astype(float)
        seen = CUBE * z
        share = np.array([CHANCE[np.all(seen == row, axis=1)].mean() for row in seen])
        table[(seen + 1).astype(int) @ [9, 3, 1]] = share
        entropy[tuple(z)] = float(-np.mean(share * np.log(share) + (1 - share) * np.log(1 - share)))
    return table, entropy


@pytest.mark.parametrize("k", [1, 2])
def test_the_best_classifier_reaches_minus_the_conditional_entropy_and_no_other_does(k, x64):
    """Subsets drawn without a look at x: sum_S q(S) H(Y | X_S) is known, and so is the information."""
    share, entropy = conditional(k)
    logits = jnp.array([0.7, -0.2, 0.4])
    select = lambda x: Subset(logits, k)  # noqa: E731
    best = Selective(Filled(Fixed(jnp.zeros(3))), select, Table(jnp.asarray(np.log([1 - share, share]).T)))
    batch = Row(jnp.asarray(CUBE), y=jnp.asarray(np.stack([1 - CHANCE, CHANCE], axis=1)))
    value = jax.jit(lambda table: InformationBound(Enumerate())(_with(best, table), batch, key=jr.key(0))[1]["bound"])
    law = Subset(logits, k)
    most = -sum(float(jnp.exp(law.log_prob(jnp.array(z)))) * h for z, h in entropy.items())
    assert float(value(best.classify.logits)) == pytest.approx(most, abs=1e-12)
    mean = CHANCE.mean()
    whole = -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean))
    assert 0.01 < whole + most < np.log(2)  # the information about Y that is in X_S
    for i in range(20):
        moved = best.classify.logits + 0.3 * jr.normal(jr.key(i), (27, 2))
        assert float(value(moved)) < most - 1e-4


def _with(model: Selective, table: jax.Array) -> Selective:
    return eqx.tree_at(lambda m: m.classify.logits, model, table)


@pytest.mark.slow
def test_a_fit_approaches_the_best_bound_from_below():
    """Of three signs one is told: no classifier of it can do better than the share of each class among equals."""
    X, shares = np.tile(CUBE, (50, 1)), np.tile(np.stack([1 - CHANCE, CHANCE], axis=1), (50, 1))
    model = explainer(steps=400, rate=1e-2).fit(X, shares)
    seen = CUBE * model.transform(CUBE)
    told = np.array([CHANCE[np.all(seen == row, axis=1)].mean() for row in seen])
    most = float(np.mean(CHANCE * np.log(told) + (1 - CHANCE) * np.log(1 - told)))
    assert most - 0.01 < model.bound(X, shares) <= most + 1e-6
    assert set(conditional(1)[1]) >= {tuple(z) for z in model.transform(CUBE)}


# Estimators for subsets.


def test_simple_is_exact_where_the_cost_is_linear(x64):
    slope, logits = jnp.array([3.0, -1.0, 0.5, 2.0]), jnp.array([0.4, -0.3, 1.0, 0.0])
    one = lambda free, key: SIMPLE(2)(lambda z: z @ slope, Subset(free, 2), key=key)  # noqa: E731
    exact = jax.jit(jax.grad(lambda free: Enumerate()(lambda z: z @ slope, Subset(free, 2), key=jr.key(0))))(logits)
    found = jax.jit(jax.vmap(jax.grad(one), (None, 0)))(logits, jr.split(jr.key(0), 5))
    np.testing.assert_allclose(found, np.tile(exact, (5, 1)), atol=1e-12)


def test_simple_is_exact_where_logits_are_equal(x64):
    found = jax.jit(jax.grad(lambda free: SIMPLE()(lambda z: z[0], Subset(free, 1), key=jr.key(0))))(jnp.zeros(2))
    np.testing.assert_allclose(found, [0.25, -0.25], atol=1e-12)


def test_a_cold_soft_subset_is_one_drawn_with_replacement(x64):
    """An item is in it unless k draws miss it: 1 - (1 - p)^k; five numbers within 4.5 standard errors."""
    logits, gradient = jnp.array([0.5, 0.0, -1.0, 0.3, 1.0]), ConcreteSubset(1e-4)
    drawn = jax.jit(jax.vmap(lambda key: gradient.drawn(Subset(logits, 3), key=key)))(jr.split(jr.key(0), 10_000))
    assert worst(np.asarray(drawn), 1 - (1 - np.asarray(jax.nn.softmax(logits))) ** 3) < LIMIT
    assert gradient.hard() == ScoreFunction() and SIMPLE().hard() == SIMPLE()


# What is known to be relevant.


@pytest.mark.parametrize("name", EXPLAINED)
def test_only_what_is_called_relevant_matters(name):
    make, k = EXPLAINED[name]
    made, again, other = make(500), make(500), make(500, seed=1)
    np.testing.assert_array_equal(made.x, again.x)
    assert not np.any(made.x == other.x) and (made.relevant.sum(axis=1) == k).all()
    np.testing.assert_allclose(made.shares.sum(axis=1), 1)
    # two rows that agree in what is relevant to them have the same shares, whatever else they hold
    mixed = np.where(made.relevant, made.x, np.random.default_rng(3).normal(size=made.x.shape))
    np.testing.assert_allclose(_shares(name, mixed), made.shares, rtol=1e-12)
    assert np.ptp(made.shares[:, 1]) > 0.5


def _shares(name: str, x: np.ndarray) -> np.ndarray:
    """The probabilities once more, as they are written in the docstrings."""
    orange = lambda a: a[:, 0] ** 2 + a[:, 1] ** 2 + a[:, 2] ** 2 + a[:, 3] ** 2 - 4  # noqa: E731
    bent = lambda a: -100 * np.sin(0.2 * a[:, 0]) + abs(a[:, 1]) + a[:, 2] + np.exp(-a[:, 3]) - 2.4  # noqa: E731
    odds = {
        "xor": lambda: x[:, 0] * x[:, 1],
        "orange skin": lambda: orange(x),
        "nonlinear additive": lambda: bent(x),
        "switch": lambda: np.where(x[:, 9] > 0, orange(x), bent(x[:, 4:8])),
    }[name]()
    one = np.where(odds > 0, 1 / (1 + np.exp(-np.abs(odds))), np.exp(-np.abs(odds)) / (1 + np.exp(-np.abs(odds))))
    return np.stack([1 - one, one], axis=1)


@slow
@pytest.mark.parametrize("gradient", [SIMPLE(), RLOO(4), IMLE(10.0), AIMLE(rate=1e-3)])
def test_the_two_features_of_xor_are_found(gradient):
    """Neither tells anything alone. Of eight others two would be right in one row of 45."""
    data, fresh = xor(10_000), xor(500, seed=1)
    model = explainer(k=2, gradient=gradient, hidden=(64,), predictor=(64, 64), steps=1000, rate=3e-3, batch_size=100)
    model.fit(data.x, data.shares)
    found = model.explain(fresh.x)
    assert np.isin(found.features, [0, 1]).mean() > 0.95
    assert model.score(fresh.x, fresh.shares) > 0.9
    entropy = -np.mean(np.sum(fresh.shares * np.log(fresh.shares), axis=1))
    assert -entropy - 0.02 < model.bound(fresh.x, fresh.shares) <= -entropy
    assert model.bound(fresh.x, fresh.shares) > -np.log(2) + 0.03


# The estimator.


@pytest.fixture(scope="module")
def signs() -> tuple[pd.DataFrame, np.ndarray]:
    """The class is the sign of column "b"."""
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 3)), columns=["a", "b", "c"])
    return X, np.where(X["b"] > 0, "up", "down")


@pytest.fixture(scope="module")
def fitted(signs) -> rv.LearningToExplain:
    return explainer(steps=200, rate=1e-2).fit(*signs)


@pytest.mark.slow
def test_names_and_classes_are_kept(signs, fitted):
    X, y = signs
    found = fitted.explain(X)
    assert found.names.shape == found.features.shape == (300, 1) and (found.names == "b").mean() > 0.95
    np.testing.assert_allclose(found.inclusion.sum(axis=1), 1, atol=1e-5)
    assert list(fitted.classes_) == ["down", "up"] and list(fitted.get_feature_names_out()) == ["a", "b", "c"]
    assert fitted.score(X, y) == (fitted.predict(X) == y).mean() > 0.95
    shares = fitted.predict_proba(X)
    assert shares.shape == (300, 2) and (fitted.classes_[shares.argmax(axis=1)] == fitted.predict(X)).all()
    truth = np.stack([y == "down", y == "up"], axis=1)
    assert fitted.bound(X, y) == pytest.approx(np.log(shares)[truth].mean(), abs=1e-6)
    frame = fitted.set_output(transform="pandas").transform(X)
    fitted.set_output(transform="default")
    assert list(frame.columns) == ["a", "b", "c"] and (frame.to_numpy().sum(axis=1) == 1).all()
    np.testing.assert_array_equal(frame.to_numpy().argmax(axis=1), found.features[:, 0])


def test_a_row_alone_is_explained_as_among_others(signs, fitted):
    X = signs[0]
    some = [fitted.explain(X.iloc[[i]]).inclusion[0] for i in (0, 17, 299)]
    np.testing.assert_array_equal(some, fitted.explain(X).inclusion[[0, 17, 299]])


def test_copies_answer_alike(signs, fitted):
    X, y = signs
    for again in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
        assert again.history_ == fitted.history_
    fresh = clone(fitted)
    assert not hasattr(fresh, "model_") and fresh.get_params() == fitted.get_params()
    np.testing.assert_array_equal(fresh.fit(X, y).predict_proba(X), fitted.predict_proba(X))


@slow
@pytest.mark.parametrize("learned", [False, True])
def test_what_was_saved_answers_to_the_bit_in_another_process(learned, signs, fitted, tmp_path):
    """Classes are text here; the black box is not kept. Then in double precision, with an estimator that learns."""
    X, y = signs
    box = FrozenEstimator(LogisticRegression().fit(X, y))
    model = copy.copy(fitted).set_params(black_box=box)
    if learned:
        model = explainer(steps=20, precision="float64", black_box=box, gradient=AIMLE(rate=0.5)).fit(X)
    X.to_pickle(tmp_path / "rows")
    code = (
        "import pickle, sys, pandas as pd, ravine as rv\n"
        f"rows, model = pd.read_pickle({str(tmp_path / 'rows')!r}), rv.load({str(model.save(tmp_path / 'run'))!r})\n"
        "told = model.explain(rows), model.predict_proba(rows), model.predict(rows), model.get_params()\n"
        f"pickle.dump(told, open({str(tmp_path / 'told')!r}, 'wb'))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    found, shares, classes, fields = pickle.loads((tmp_path / "told").read_bytes())
    for ours, theirs in zip((*model.explain(X), model.predict_proba(X)), (*found, shares), strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)
    assert (classes == model.predict(X)).all() and classes.dtype == y.dtype
    assert fields == model.get_params(deep=False) | {"black_box": None}


def test_the_shell_refuses_what_is_no_model_of_rows(fitted, tmp_path, capsys):
    assert main(["score", str(fitted.save(tmp_path)), "digits"]) == 2
    assert "expected a model of rows, got LearningToExplain; use it from Python" in capsys.readouterr().err


@pytest.mark.parametrize("classes", [[3, 7], [True, False], [0.5, 1.5], np.array(["a", "b"], dtype=object)])
def test_classes_of_any_kind_are_kept(classes, signs, fitted, tmp_path):
    model = copy.copy(fitted)
    model.classes_ = np.unique(np.asarray(classes))
    again = rv.load(model.save(tmp_path))
    np.testing.assert_array_equal(again.classes_, model.classes_, strict=True)


def test_a_black_box_is_asked(signs):
    X, y = signs
    box = LogisticRegression().fit(X, y)
    model = explainer(steps=150, rate=1e-2, black_box=FrozenEstimator(box))
    asked = clone(model).fit(X)
    told = explainer(steps=150, rate=1e-2).fit(X, box.predict_proba(X))
    np.testing.assert_array_equal(asked.predict_proba(X), told.predict_proba(X))
    assert list(asked.classes_) == ["down", "up"] and list(told.classes_) == [0, 1]
    assert asked.score(X) == asked.score(X, box.predict(X)) > 0.95
    assert asked.bound(X) == pytest.approx(told.bound(X, box.predict_proba(X)))


@pytest.mark.slow
def test_holes_are_no_values():
    """A missing cell may hold anything, and a selected one tells at most that it is missing."""
    stream = np.random.default_rng(0)
    X = stream.normal(size=(300, 3))
    y = X[:, 1] > 0
    X[::5, 1] = np.nan
    model = explainer(steps=200, rate=1e-2).fit(X, y)
    assert (model.explain(X).features[1::5] == 1).mean() > 0.9 and np.isfinite(model.predict_proba(X)).all()
    assert model.schema_.holes and model.score(X[1::5], y[1::5]) > 0.95
    row = Row(jnp.array([0.3, 9.0, -1.0]), jnp.array([True, False, True]), y=jnp.array([0.5, 0.5]))
    for chosen in (jnp.array([0.0, 1.0, 0.0]), jnp.array([1.0, 1.0, 0.0])):
        other = eqx.tree_at(lambda r: r.x, row, jnp.array([0.3, -7.0, -1.0]))
        np.testing.assert_array_equal(model.model_.log_shares(chosen, row), model.model_.log_shares(chosen, other))


def test_cells_that_are_not_selected_are_not_seen(fitted):
    row = Row(jnp.array([0.3, 9.0, -1.0]))
    other = Row(jnp.array([5.0, 9.0, 2.0]))
    z = jnp.array([0.0, 1.0, 0.0])
    np.testing.assert_array_equal(fitted.model_.log_shares(z, row), fitted.model_.log_shares(z, other))
    assert not np.array_equal(fitted.model_.log_shares(1 - z, row), fitted.model_.log_shares(1 - z, other))


@pytest.mark.parametrize("gradient", [AIMLE(rate=0.5), pytest.param(NVIL(width=3), marks=slow)])
def test_what_an_estimator_learns_stands_in_the_model(gradient, signs):
    X, y = signs
    model = explainer(steps=20, gradient=gradient).fit(X, y)
    assert type(model.model_.gradient) is type(gradient)
    if isinstance(gradient, AIMLE):
        assert float(model.model_.gradient.learned.value) != gradient.beta
    assert explainer(gradient=IMLE(1.0)).build(Schema((3,), "real"), key=jr.key(0)).gradient is None


@slow
def test_weights_leave_rows_out(signs):
    X, y = signs
    weight = (np.arange(300) < 200).astype(float)
    model = explainer(steps=30)
    np.testing.assert_array_equal(
        clone(model).fit(X, y, weight).predict_proba(X), model.fit(X[:200], y[:200], np.ones(200)).predict_proba(X)
    )


UNFIT = np.array([[0.5, 0.6], [1.0, 0.0]])
REFUSED = [
    ({"k": 4}, "y", "k: expected at most 3, the number of features, got 4; choose fewer"),
    ({"k": 0}, "y", "k: expected a whole number of at least 1, got 0"),
    ({"gradient": GumbelSoftmax()}, "y", "an estimator for subsets, got GumbelSoftmax: .*; use AIMLE, .*SIMPLE"),
    ({"gradient": Pathwise()}, "y", "an estimator for subsets, got Pathwise: its draws are not differentiable"),
    ({"gradient": VIMCO()}, "y", "an estimator for subsets, got VIMCO: it is made for importance-weighted bounds; use"),
    ({"gradient": "rloo"}, "y", "gradient: expected AbstractGradient, got 'rloo'"),
    ({"validation": 1.0}, "y", "validation: expected a share"),
    ({}, np.tile(UNFIT, (150, 1)), "y: expected rows of probabilities that add up to 1"),
    ({}, np.full(300, np.inf), "Input y contains infinity"),
    ({}, np.arange(5), "y: expected 300 rows, got 5"),
    ({}, None, "requires y to be passed"),
    ({"black_box": 3}, None, "black_box: expected a classifier with predict_proba, got 3"),
    ({"black_box": LogisticRegression()}, None, "black_box: expected a fitted classifier, got one that is not; fit it"),
]


@pytest.mark.parametrize("fields, y, line", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(fields, y, line, signs, monkeypatch):
    """Before anything is traced."""
    monkeypatch.setattr("ravine.explainer.fit", None)
    with pytest.raises(ValueError, match=line) as caught:
        explainer(**fields).fit(signs[0], signs[1] if isinstance(y, str) else y)
    assert "\n" not in str(caught.value)


def test_new_classes_have_no_share(signs, fitted):
    with pytest.raises(ValueError, match="y: expected classes of the fit, .* got \\['left'\\]; leave these rows out"):
        fitted.bound(signs[0][:2], ["up", "left"])
    assert fitted.score(signs[0][:1], ["left"]) == 0.0


def test_an_infinite_cell_is_refused_with_its_column(signs, fitted):
    broken = signs[0][:2].assign(c=[0.0, np.inf])
    for call in (fitted.predict, lambda X: explainer().fit(X, ["up", "down"])):
        with pytest.raises(ValueError, match="column 'c'"):
            call(broken)


# As for the recipes of tests/test_sklearn.py: our own test of weights stands in for the first.
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": "a repeated row meets another batch than a weight of 2 does",
    "check_array_api_input": "it asks for a variable of the environment to be set before scipy is imported",
}


@slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_own_checks(forgetful):
    made = explainer(steps=60, hidden=(4,), rate=1e-2, batch_size=20, random_state=None)
    found = check_estimator(made, expected_failed_checks=EXPECTED_FAILURES, on_fail=None)
    failed = {one["check_name"]: one["exception"] for one in found if one["status"] == "failed"}
    assert failed == {} and len(found) > 45
