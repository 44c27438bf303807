"""The recipes of predictive coding: what they tell, fill, and say of log p(x), and that they are kept."""

from __future__ import annotations

import functools
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone

from ravine.evidence import AroundSettled
from ravine.models.errors import UnitErrors, WeightedErrors
from ravine.recipes.predictive_coding import PredictiveCoding, PredictiveCodingClassifier
from ravine.recognisers import AbstractSettling, FixedPredictions, GradientSettling, IncrementalSettling
from ravine.rules import Incremental

SMALL = {"hidden": (16,), "steps": 200, "batch_size": 50, "rate": 1e-2, "validation": 0.0, "random_state": 0}


SETTLING = GradientSettling(10, 0.1)


def moons(rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Two classes that no line parts."""
    X = np.random.default_rng(0).normal(size=(rows, 2))
    return X, np.where(X[:, 0] * X[:, 1] > 0, "same", "other")


@functools.cache
def classifier(settling: AbstractSettling = SETTLING, **fields) -> PredictiveCodingClassifier:
    return PredictiveCodingClassifier(settling=settling, **SMALL | fields).fit(*moons())


@pytest.mark.parametrize(
    "settling",
    [GradientSettling(10, 0.1), pytest.param(FixedPredictions(1), marks=pytest.mark.slow), IncrementalSettling(5, 0.1)],
    ids=["gradient", "fixed", "incremental"],
)
def test_classes_that_no_line_parts_are_told(settling):
    model, (X, y) = classifier(settling), moons()
    assert model.score(X, y) > 0.9
    assert model.transform(X).shape == (200, 16)
    assert np.allclose(model.predict_proba(X).sum(axis=1), 1, atol=1e-6)
    assert set(model.predict(X)) <= {"same", "other"}


def test_labels_are_told_by_the_forward_pass_alone():
    """However long the layers settle."""
    model, (X, _) = classifier(), moons(5)
    longer = pickle.loads(pickle.dumps(model))
    longer.model_ = type(model.model_)(
        model.model_.read, model.model_.links, model.model_.errors, GradientSettling(500, 0.3)
    )
    assert np.array_equal(model.predict_proba(X), longer.predict_proba(X))


def test_squares_and_stiffness_are_parts():
    made = PredictiveCodingClassifier(errors=UnitErrors(), stiffness=3.0, **SMALL | {"steps": 5}).fit(*moons(60))
    first, last = made.model_.errors
    assert isinstance(first, WeightedErrors)
    assert float(first.precision.value) == 3
    assert isinstance(last, UnitErrors)
    assert isinstance(PredictiveCodingClassifier(settling=IncrementalSettling()).stages(10)[0].rule, Incremental)


@pytest.mark.slow
def test_a_fitted_classifier_is_kept():
    model, (X, y) = classifier(), moons()
    again = clone(model).fit(X, y)
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))


# --- rows


def patterns(rows: int = 100) -> np.ndarray:
    stream = np.random.default_rng(0)
    kinds = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    X = kinds[stream.integers(0, 2, rows)]
    return np.where(stream.random(X.shape) < 0.03, 1 - X, X).astype(float)


@functools.cache
def coder(**fields) -> PredictiveCoding:
    given = {"latents": 2, "hidden": (8,), "steps": 300, "batch_size": 50, "rate": 1e-2, "decay": 1e-2}
    given |= {"settling": GradientSettling(20, 0.1), "validation": 0.0, "evidence": AroundSettled(200)}
    return PredictiveCoding(random_state=0, **given | fields).fit(patterns())


@pytest.mark.parametrize("hybrid", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_patterns_are_completed_and_observed_cells_stay(hybrid):
    model, X = coder(hybrid=hybrid), patterns(30)
    holes = X.copy()
    holes[:, 3:] = np.nan
    for made in (model.impute(holes), *model.impute(holes, draws=2)):
        assert np.array_equal(made[:, :3], X[:, :3])
        assert np.isin(made, (0, 1)).all()
    assert np.mean(model.impute(holes)[:, 3:] == X[:, 3:]) > 0.85
    assert np.mean(np.abs(model.reconstruct(X) - X)) < 0.3
    top, lower = model.layers(X)
    assert np.array_equal(top, model.transform(X))
    assert (top.shape, lower.shape) == ((30, 2), (30, 8))
    assert model.inverse_transform(top).shape == X.shape


@pytest.mark.slow
def test_log_p_is_a_bound_above_that_of_coins_and_rises_with_draws():
    """Over 100 rows; four times as many draws lie above with 4.5 standard errors, or the draws hardly matter."""
    model, X = coder(), patterns()
    got = model.log_likelihood(X)
    assert got.direction == "lower"
    assert got.value.mean() > -6 * np.log(2) + 1
    few = pickle.loads(pickle.dumps(model))
    few.evidence = AroundSettled(2)
    assert few.score(X) < model.score(X) + 0.05
    assert model.sample(4).shape == (4, 6)


def test_a_row_alone_scores_as_among_others():
    model, X = coder(), patterns(6)
    assert np.array_equal(model.score_samples(X)[2:3], model.score_samples(X[2:3]))


@pytest.mark.slow
def test_weights_can_learn_while_latents_settle():
    model = coder(settling=IncrementalSettling(10, 0.1))
    assert model.score(patterns()) > -6 * np.log(2) + 1


@pytest.mark.slow
def test_real_cells_have_a_learned_precision():
    """The precision of a cell is that of the errors left where rows have settled; rows are not independent cells."""
    stream = np.random.default_rng(0)
    X = np.sign(stream.normal(size=(200, 1))) * np.array([2.0, -2.0, 2.0]) + 0.5 * stream.normal(size=(200, 3))
    fields = {"latents": 1, "hidden": (8,), "steps": 1_500, "rate": 1e-2, "settling": GradientSettling(100, 0.02)}
    model = PredictiveCoding(validation=0.0, random_state=0, **fields).fit(X)
    deviation = np.exp(-0.5 * np.asarray(model.model_.errors[-1].logs))
    left = np.sqrt(np.mean((model.reconstruct(X) - X) ** 2, axis=0)) / X.std(axis=0)
    np.testing.assert_allclose(deviation, left, rtol=0.2)  # a running mean over batches, in steps of Adam
    assert np.all(deviation < 0.35)
    independent = -np.log(X.std(axis=0) * np.sqrt(2 * np.pi * np.e)).sum()
    assert model.score(X) > independent + 0.5


@pytest.mark.slow
def test_columns_of_ones_and_zeros_start_at_their_rates():
    model = PredictiveCoding(latents=2, hidden=(3,), steps=1, rate=1e-9, validation=0.0, random_state=0)
    bias = model.fit(patterns()).model_.links[-1].layer.bias
    assert np.allclose(1 / (1 + np.exp(-np.asarray(bias))), patterns().mean(axis=0), atol=1e-4)
    assert jnp.ndim(bias) == 1
