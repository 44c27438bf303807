"""Recipes of restricted Boltzmann machines: with labels, of real columns, and one for each class."""

from __future__ import annotations

import dataclasses
import functools
import itertools
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
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_normal
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.utils.estimator_checks import check_estimator

import ravine as rv
from ravine._check import Complaint
from ravine._tree import Fixed
from ravine.class_models import calibrated, side_by_side
from ravine.core import Row
from ravine.data import Schema
from ravine.evidence import AIS, Enumerated, Normalised
from ravine.models.energy import Dense, Harmonium
from ravine.models.experts import ClassExperts
from ravine.models.labelled_energy import LabelDiscriminative, LabelGenerative, LabelHybrid, LabelledHarmonium
from ravine.models.unit_groups import Beside
from ravine.models.units import BinaryUnits, GaussianUnits, RectifiedUnits, SoftmaxUnits
from ravine.recipes.classification_rbm import ClassificationRBM
from ravine.recipes.gaussian_rbm import GaussianRBM
from ravine.recipes.product_of_experts import ProductOfExpertsClassifier
from ravine.rules import ContrastiveDivergence

CELLS, CLASSES, HIDDEN = 6, 3, 4
slow = pytest.mark.slow


def numbers(shape: tuple[int, ...], seed: int) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def bits(n: int) -> np.ndarray:
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


# --- rows and labels, by listing every state in numpy


def machine(cells: Any = None) -> LabelledHarmonium:
    """Six cells and a label of three classes, and four hidden bits."""
    cells = BinaryUnits((CELLS,), numbers((CELLS,), 0)) if cells is None else cells
    visible = Beside((cells, SoftmaxUnits((CLASSES,), numbers((CLASSES,), 1))))
    hidden = BinaryUnits((HIDDEN,), numbers((HIDDEN,), 2))
    return LabelledHarmonium(Harmonium(visible, hidden, Dense(numbers((CELLS + CLASSES, HIDDEN), 3)), Fixed(visible)))


@functools.cache
def listed() -> np.ndarray:
    """log of the sum over hidden states of exp(-E), of all cells (rows) and labels (columns)."""
    b, d, c, w = (np.asarray(numbers(shape, seed), float) for shape, seed in
                  [((CELLS,), 0), ((CLASSES,), 1), ((HIDDEN,), 2), ((CELLS + CLASSES, HIDDEN), 3)])  # fmt: skip
    x, h, y = bits(CELLS), bits(HIDDEN), np.eye(CLASSES)
    minus = (x @ b)[:, None, None] + (y @ d)[None, :, None] + h @ c
    minus = minus + (x @ w[:CELLS] @ h.T)[:, None] + (y @ w[CELLS:] @ h.T)[None]
    return logsumexp(minus, axis=2)


def test_the_share_of_a_label_is_that_of_the_list(x64):
    logits = jax.jit(jax.vmap(machine().label_logits))(jnp.asarray(bits(CELLS)))
    np.testing.assert_allclose(softmax(np.asarray(logits), axis=1), softmax(listed(), axis=1), rtol=1e-11)
    posterior = machine().posterior(Row(jnp.asarray(bits(CELLS)[37])))
    np.testing.assert_allclose(posterior.first.mean(), softmax(listed()[37]), rtol=1e-11)


def test_energies_of_rows_and_log_z_are_those_of_the_list(x64):
    x, model = jnp.asarray(bits(CELLS)), machine()
    np.testing.assert_allclose(-jax.vmap(model.cells_energy)(x), logsumexp(listed(), axis=1), rtol=1e-11)
    pairs = jax.vmap(lambda x: jax.vmap(lambda y: -model.energy((x, y)))(jnp.eye(CLASSES)))(x)
    np.testing.assert_allclose(pairs, listed(), rtol=1e-11)
    assert float(model.log_partition()) == pytest.approx(logsumexp(listed()), rel=1e-12)


def marginals(mask: np.ndarray, row: np.ndarray) -> np.ndarray:
    """log of the sum over what the mask leaves open, for each label."""
    fits = (bits(CELLS)[:, mask] == row[mask]).all(axis=1)
    return logsumexp(listed()[fits], axis=0)


@pytest.mark.parametrize("missing", [(), (0,), (1, 4), range(CELLS)])
def test_missing_cells_and_labels_are_summed_out(missing, x64):
    """p(y | observed cells), log p(observed cells), and log p(observed cells, label)."""
    model, row, mask = machine(), bits(CELLS)[37], np.ones(CELLS, bool)
    mask[list(missing)] = False
    given = Row(jnp.asarray(row * mask), mask=jnp.asarray(mask))
    np.testing.assert_allclose(jax.nn.softmax(model.row_logits(given)), softmax(marginals(mask, row)), rtol=1e-10)
    scored = Normalised(Enumerated())
    alone = eqx.tree_at(lambda r: (r.x, r.mask), given, (given.x[None], given.mask[None]))
    value = scored(model, alone, key=jr.key(0))[0][0]
    truth = logsumexp(marginals(mask, row)) - logsumexp(listed())
    assert float(value) == pytest.approx(0.0 if len(missing) == CELLS else truth, abs=1e-10)
    told = Row(alone.x, alone.mask, jnp.array([2]), jnp.array([True]))
    if len(missing) < CELLS:
        value = scored(model, told, key=jr.key(0))[0][0]
        assert float(value) == pytest.approx(marginals(mask, row)[2] - logsumexp(listed()), abs=1e-10)


def test_few_missing_cells_are_listed_where_many_hidden_units_are_not(x64):
    """The completions of a row without a label and two of its cells: each counts once."""
    model, row, mask = machine(), bits(CELLS)[37], np.ones(CELLS, bool)
    mask[[1, 4]] = False
    known = model.lifted(Row(jnp.asarray(row * mask), mask=jnp.asarray(mask)))
    assert bool(model.completable(known))
    made, once = model.completions(known)
    total = logsumexp(-np.asarray(jax.vmap(model.energy)(made)), b=np.asarray(once, float))
    assert total == pytest.approx(logsumexp(marginals(mask, row)), rel=1e-11)
    assert int(once.sum()) == 4 * CLASSES


@pytest.mark.parametrize("kind", [GaussianUnits, RectifiedUnits])
def test_a_label_of_real_cells_is_exact_too(kind, x64):
    cells = kind().sized((CELLS,), np.asarray(numbers((CELLS,), 5)))
    model, x = machine(cells), jnp.abs(numbers((CELLS,), 6))
    h, labels = jnp.asarray(bits(HIDDEN)), jnp.eye(CLASSES)
    minus = jax.vmap(lambda y: jax.vmap(lambda h: -model.pair.joint_energy((x, y), h))(h))(labels)
    truth = softmax(logsumexp(np.asarray(minus), axis=1))
    np.testing.assert_allclose(jax.nn.softmax(model.label_logits(x)), truth, rtol=1e-10)


# --- what is lowered


def batch(known: tuple[bool, ...]) -> Row:
    """Three rows, some of which have their label; weights differ. Filled, as a rule gives it."""
    x, y = jnp.asarray(bits(CELLS)[[3, 17, 60]]), jnp.array([0, 2, 1])
    rows = Row(x, y=y, y_mask=jnp.asarray(known), weight=jnp.array([1.0, 2.0, 0.5]))
    return eqx.tree_at(lambda r: r.x, rows, (x, jax.nn.one_hot(y, CLASSES)))


def test_losses_are_those_of_the_list(x64):
    rows, weight = batch((True, False, True)), np.array([1.0, 2.0, 0.5])
    model, table = machine(), listed()[[3, 17, 60]]
    other = (jnp.asarray(bits(CELLS)[[5, 9]]), jnp.eye(CLASSES)[:2])
    value = lambda loss: loss(model, rows, other, key=jr.key(0))[0]  # noqa: E731
    data = np.array([-table[0, 0], -logsumexp(table[1]), -table[2, 1]])
    negative = -np.mean([listed()[5, 0], listed()[9, 1]])
    square = np.sum(np.asarray(numbers((CELLS + CLASSES, HIDDEN), 3)) ** 2)
    generative = weight @ data / weight.sum() - negative
    log_p = table - logsumexp(table, axis=1, keepdims=True)
    told = -(1.0 * log_p[0, 0] + 0.5 * log_p[2, 1]) / 1.5
    assert float(value(LabelGenerative())) == pytest.approx(generative, rel=1e-10)
    assert float(value(LabelGenerative(0.3))) == pytest.approx(generative + 0.15 * square, rel=1e-10)
    assert float(value(LabelDiscriminative())) == pytest.approx(told, rel=1e-10)
    assert float(value(LabelHybrid(0.2))) == pytest.approx(told + 0.2 * generative, rel=1e-10)


def test_without_labels_nothing_is_told_and_rows_alone_are_learned(x64):
    rows, other = batch((False,) * 3), (jnp.asarray(bits(CELLS)[:2]), jnp.eye(CLASSES)[:2])
    assert float(LabelDiscriminative()(machine(), rows, other, key=jr.key(0))[0]) == 0
    bare = eqx.tree_at(lambda r: (r.y, r.y_mask), rows, (None, None))
    both = [LabelGenerative()(machine(), r, other, key=jr.key(0))[0] for r in (rows, bare)]
    assert float(both[0]) == float(both[1])


def test_a_row_keeps_its_label_where_it_is_filled(x64):
    """Positions of rows with and without a label; without any doubt there is no mask, and nothing is filled."""
    model, x = machine(), jnp.asarray(bits(CELLS)[5])
    sure = model.lifted(Row(x, y=jnp.array(1)))
    assert sure.mask is None and sure.x[1].tolist() == [0, 1, 0] and int(sure.y) == 1
    told, untold = (model.lifted(Row(x, y=jnp.array(y), y_mask=jnp.array(y >= 0))) for y in (1, -1))
    assert bool(told.mask[1]) and told.x[1].tolist() == [0, 1, 0]
    assert not bool(untold.mask[1]) and untold.x[1].tolist() == [0, 0, 0] and bool(untold.mask[0].all())


def test_rows_of_a_label_have_its_law(x64):
    """Means of 3000 chains with the label held, against p(x | y) of the list; 4.5 standard errors."""
    model = dataclasses.replace(machine(), sweeps=60)
    made = np.asarray(jax.jit(jax.vmap(lambda k: model.made(jnp.eye(CLASSES)[1], key=k)))(jr.split(jr.key(0), 3000)))
    truth = softmax(listed()[:, 1]) @ bits(CELLS)
    assert worst(made, truth) < LIMIT
    assert model.receptive_fields().shape == (HIDDEN, CELLS)


# --- the classification recipe


@functools.cache
def digits() -> tuple[np.ndarray, ...]:
    """Binary digits, 1203 to learn from and 594 to be told, and their labels."""
    X, y = load_digits(return_X_y=True)
    return tuple(train_test_split((X > 7).astype(float), y, test_size=0.33, random_state=0, stratify=y))


@functools.cache
def linear_error() -> float:
    X, held, y, truth = digits()
    return 1 - LogisticRegression(max_iter=2000).fit(X, y).score(held, truth)


OBJECTIVES = {
    "generative": (LabelGenerative(), 2000),
    "discriminative": (LabelDiscriminative(), 1500),
    "hybrid": (LabelHybrid(0.01), 1500),
}


def classification(**fields: Any) -> ClassificationRBM:
    return ClassificationRBM(**{"hidden": 6, "steps": 50, "random_state": 0, "progress": False} | fields)


@slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_digits_are_told_better_than_by_a_line(name):
    """On 594 rows that were not learned from, beside logistic regression on the same cells."""
    X, held, y, truth = digits()
    objective, steps = OBJECTIVES[name]
    fields = {"hidden": 60, "batch_size": 50, "rate": 0.1, "momentum": 0.8}
    model = classification(objective=objective, steps=steps, **fields).fit(X, y)
    assert np.mean(model.predict(held) != truth) < linear_error()


def two_groups() -> tuple[np.ndarray, np.ndarray]:
    """Sixty rows of five bits, and the label of all of them; a bit is that of the label in nine of ten cells."""
    stream = np.random.default_rng(0)
    y = np.array(["no", "yes"])[stream.integers(0, 2, size=60)]
    X = (y == "yes")[:, None] ^ (stream.uniform(size=(60, 5)) < 0.1)
    return X.astype(float), y


@pytest.mark.slow
def test_weights_begin_as_wide_as_said():
    X = np.random.default_rng(0).integers(0, 2, size=(20, 40))
    model = rv.RBM(hidden=50, spread=0.2, rate=0.0, steps=1, random_state=0, progress=False).fit(X)
    assert np.std(model.receptive_fields()) == pytest.approx(0.2, rel=0.05)


def test_a_fitted_model_answers_and_comes_back():
    X, y = two_groups()
    model = classification(objective=LabelGenerative(), rate=0.1, steps=300).fit(X, y)
    other = pickle.loads(pickle.dumps(model))
    assert model.score_samples(X).shape == (60,) and model.log_likelihood(X).direction == "exact"
    assert np.mean(model.predict(X) == y) > 0.9 and (other.predict_proba(X) == model.predict_proba(X)).all()
    every = bits(5)
    assert logsumexp(model.score_samples(every)) == pytest.approx(0, abs=1e-4)  # the label is summed out
    assert model.dream("yes", 20).mean() > 0.7 > 0.3 > model.dream("no", 20).mean()
    assert model.sample(4).shape == (4, 5) and model.transform(X).shape == (60, 2 + 6)
    assert not hasattr(model, "partial_fit") and model.log_partition().direction == "exact"
    with pytest.raises(Complaint, match="label: expected one of no, yes"):
        model.dream("maybe")


@pytest.mark.slow
def test_few_labels_and_holes_are_enough():
    """Ten labels, and one cell in ten missing: the labels of others are told, and holes are filled with 0 or 1."""
    X, y = two_groups()
    some = np.where(np.arange(60) < 10, y, None)
    X[np.random.default_rng(1).uniform(size=X.shape) < 0.1] = np.nan
    model = classification(objective=LabelGenerative(), rate=0.1, steps=300, sweeps=50, particles=50).fit(X, some)
    assert np.mean(model.predict(X[10:]) == y[10:]) > 0.9
    filled = model.impute(X)
    assert np.isin(filled, (0, 1)).all() and (filled == X)[~np.isnan(X)].all()
    assert np.isfinite(model.score_samples(X)).all()


# --- real columns


def gaussian(hidden: Any = BinaryUnits(), count: int = 4, cells: int = 3) -> Harmonium:  # noqa: B008
    visible = GaussianUnits((cells,), numbers((cells,), 0), 0.3 * numbers((cells,), 1))
    units = hidden.sized((count,), np.asarray(numbers((count,), 2)))
    return Harmonium(visible, units, Dense(0.15 * numbers((cells, count), 3)), Fixed(visible))


def test_gaussian_hidden_units_make_a_gaussian(x64):
    """The closed form: precision of both groups together, hidden ones integrated out. log Z by annealing, too."""
    model = eqx.tree_at(lambda m: m.hidden.log_scale, gaussian(GaussianUnits()), 0.2 * numbers((4,), 5))
    s2, t2 = (np.exp(2 * np.asarray(units.log_scale)) for units in (model.visible, model.hidden))
    scaled = np.asarray(model.coupling.weight) / s2[:, None] / t2
    precision = np.block([[np.diag(1 / s2), -scaled], [-scaled.T, np.diag(1 / t2)]])
    bias = np.concatenate([np.asarray(model.visible.bias) / s2, np.asarray(model.hidden.bias) / t2])
    covariance = np.linalg.inv(precision)
    mean = covariance @ bias
    law = multivariate_normal(mean[:3], covariance[:3, :3])
    alone = 0.5 * np.sum(np.asarray(model.visible.bias) ** 2 / s2) + 0.5 * np.sum(
        np.asarray(model.hidden.bias) ** 2 / t2
    )
    log_z = 3.5 * np.log(2 * np.pi) + 0.5 * np.linalg.slogdet(covariance)[1] + 0.5 * bias @ mean - alone
    x = 2 * np.asarray(numbers((20, 3), 6))
    np.testing.assert_allclose(-jax.vmap(model.energy)(jnp.asarray(x)) - log_z, law.logpdf(x), rtol=1e-10)
    found = AIS(200, 100)(model, key=jr.key(0))
    assert abs(found.value - log_z) < LIMIT * found.standard_error + 0.01


def components(model: Harmonium) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The 2^h Gaussians that hidden bits mix: log shares, means, variances."""
    b, s2 = np.asarray(model.visible.bias), np.exp(2 * np.asarray(model.visible.log_scale))
    h, w, c = bits(4), np.asarray(model.coupling.weight), np.asarray(model.hidden.bias)
    means = b + h @ w.T
    log_share = h @ c + np.sum((means**2 - b**2) / (2 * s2), axis=1)
    return log_share - logsumexp(log_share), means, s2


@pytest.mark.parametrize("holes", [(), (0,), (0, 2)])
def test_hidden_bits_make_a_mixture_whose_holes_are_exact(holes, x64):
    model, mask = gaussian(), np.ones(3, bool)
    mask[list(holes)] = False
    log_share, means, s2 = components(model)
    x = np.asarray(numbers((5, 3), 7))
    each = [multivariate_normal(m[mask], np.diag(s2[mask])).logpdf(x[:, mask]) for m in means]
    truth = logsumexp(np.stack(each) + log_share[:, None], axis=0)
    rows = Row(jnp.asarray(x * mask), mask=jnp.asarray(np.broadcast_to(mask, x.shape)))
    evidence = Normalised().prepared(model, key=jr.key(0))
    assert evidence.direction == "exact"
    np.testing.assert_allclose(evidence(model, rows, key=jr.key(0))[0], truth, rtol=1e-9)


def real(**fields: Any) -> GaussianRBM:
    return GaussianRBM(**{"steps": 600, "random_state": 0, "progress": False} | fields)


SETS = {"iris": load_iris, "wine": load_wine, "breast-cancer": load_breast_cancer, "diabetes": load_diabetes,
        "digits": load_digits}  # fmt: skip


@pytest.mark.parametrize("name", [n if n == "wine" else pytest.param(n, marks=slow) for n in SETS])
def test_real_columns_are_learned_better_than_by_independent_gaussians(name):
    """Exact log p of rows that were not learned from; at the rate that is the default, and nothing but finite steps."""
    X, held = train_test_split(SETS[name]().data, test_size=0.3, random_state=0)
    spread = np.where(X.std(axis=0) > 0, X.std(axis=0), 1)
    alone = -0.5 * ((held - X.mean(axis=0)) / spread) ** 2 - np.log(spread) - 0.5 * np.log(2 * np.pi)
    model = real(steps=600 if name == "wine" else 3000).fit(X)
    found = model.log_likelihood(held)
    assert found.direction == "exact" and np.mean(found.value) > alone.sum(axis=1).mean()
    scale = np.exp(np.asarray(model.model_.visible.log_scale))
    assert np.isfinite(scale).all() and scale.min() > 0.0999


@pytest.mark.slow
def test_a_column_that_never_varies_and_one_of_two_values_stay_finite():
    stream = np.random.default_rng(0)
    X = np.stack([stream.normal(size=80), np.full(80, 3.0), stream.integers(0, 2, size=80)], axis=1)
    model = real(steps=1500, rate=0.05, least=0.2).fit(X)
    scale = np.exp(np.asarray(model.model_.visible.log_scale))
    assert scale[1] == pytest.approx(0.2, rel=1e-5) and np.isfinite(model.score_samples(X)).all()


@pytest.mark.slow
@pytest.mark.parametrize("units", [GaussianUnits(), RectifiedUnits()], ids=["gaussian", "rectified"])
def test_hidden_reals_stay_a_law(units):
    """Columns that are nearly the same pull the weights to where there is no integral."""
    stream = np.random.default_rng(0)
    X = stream.normal(size=(200, 1)) + 0.05 * stream.normal(size=(200, 6))
    model = real(hidden=2, units=units, steps=400, evidence=Normalised(AIS(100, 50))).fit(X)
    scaled = np.asarray(model.model_.coupling.weight) / np.exp(np.asarray(model.model_.visible.log_scale))[:, None]
    if isinstance(units, GaussianUnits):
        scaled = scaled / np.exp(np.asarray(model.model_.hidden.log_scale))
    assert np.linalg.norm(scaled, 2) < 0.9901 and np.isfinite(model.score_samples(X)).all()


@pytest.mark.slow
def test_a_row_with_holes_is_exact_and_is_filled():
    stream = np.random.default_rng(0)
    X = stream.choice([-2.0, 2.0], size=(100, 1)) + 0.3 * stream.normal(size=(100, 3))
    X[::7, 1] = np.nan
    model = real(hidden=3, rate=0.05, steps=800, sweeps=100).fit(X)
    assert model.log_likelihood(X).direction == "exact"
    gap = np.abs(model.impute(X)[::7, 1] - X[::7, [0, 2]].mean(axis=1))
    assert np.median(gap) < 1  # the other mode is 4 away


# --- one machine for each class


def experts(**fields: Any) -> ProductOfExpertsClassifier:
    return ProductOfExpertsClassifier(**{"hidden": 5, "steps": 30, "random_state": 0, "progress": False} | fields)


def test_every_row_of_a_class_is_listed_and_small_classes_begin_again():
    codes = np.repeat([0, 1, 2], [5, 2, 3])
    places = side_by_side(codes, np.arange(2))
    assert places.shape == (5, 3) and (codes[places] == np.arange(3)).all()
    counts = np.bincount(places.ravel(), minlength=10)
    assert (counts[:5] == 1).all() and set(counts[5:7]) <= {2, 3} and set(counts[7:]) <= {1, 2}


@pytest.mark.parametrize("classes", [2, 3])
def test_the_map_of_scores_is_that_of_scikit_learn(classes):
    stream = np.random.default_rng(0)
    codes = stream.integers(0, classes, size=200)
    scores = 30 * stream.normal(size=(200, classes)) + 40 * np.eye(classes)[codes] - 500
    machines = experts(hidden=2).build(Schema.infer(bits(2)), classes, key=jr.key(0)).experts
    blank = ClassExperts(machines, jnp.eye(classes), jnp.zeros(classes))
    made = calibrated(blank, scores, codes, 1.0)
    logits = scores @ np.asarray(made.weight, float).T + np.asarray(made.bias)
    centred = scores - scores.mean(axis=1, keepdims=True)
    theirs = (
        LogisticRegression(max_iter=1000).fit(centred / centred.std(), codes).predict_proba(centred / centred.std())
    )
    np.testing.assert_allclose(softmax(logits, axis=1), theirs, atol=2e-3)


@pytest.mark.slow
def test_digits_are_told_by_a_machine_for_each():
    """On 594 rows that were not learned from; the grey values of a cell are probabilities of bits."""
    X, y = load_digits(return_X_y=True)
    X, held, y, truth = train_test_split(X, y, test_size=0.33, random_state=0, stratify=y)
    linear = 1 - LogisticRegression(max_iter=5000).fit(X / 16, y).score(held / 16, truth)
    model = experts(hidden=40, steps=400, batch_size=20, binarise="dynamic", levels=17).fit(X, y)
    assert 1 - model.score(held, truth) < linear
    assert model.log_scores(held).shape == (594, 10) and model.decision_function(held).shape == (594, 10)
    shares = model.predict_proba(held)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)
    assert np.mean(shares.max(axis=1)[model.predict(held) == truth]) > np.mean(shares.max(axis=1))


@pytest.mark.slow
def test_scores_are_those_of_the_machine_of_a_class(tmp_path):
    X, y = two_groups()
    model = experts().fit(X, y)
    for c in range(2):
        alone = jax.tree.map(lambda leaf, c=c: leaf[c], model.model_.experts.energies)
        np.testing.assert_allclose(model.log_scores(X)[:, c], -jax.vmap(alone.energy)(jnp.asarray(X, jnp.float32)),
                                   rtol=1e-4)  # fmt: skip
    assert model.decision_function(X).shape == (60,) and set(model.predict(X)) <= {"no", "yes"}
    other = pickle.loads(pickle.dumps(model))
    assert (other.predict_proba(X) == model.predict_proba(X)).all()
    model.save(tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_classifier_wants_two_classes_and_complete_rows():
    X, y = two_groups()
    with pytest.raises(Complaint, match="at least 2 classes"):
        experts().fit(X, np.zeros(60))
    for field, value in {"strength": 0.0, "validation": 0.2}.items():
        with pytest.raises(Complaint, match=f"{field}: expected"):
            experts(**{field: value}).fit(X, y)
    X[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        experts().fit(X, y)


def test_labels_may_be_a_column():
    X, y = two_groups()
    frame = pd.DataFrame(X).set_axis(list("abcde"), axis=1)
    apart = experts().fit(frame, y)
    within = experts(label="group").fit(frame.assign(group=y))
    assert (within.log_scores(frame) == apart.log_scores(frame)).all()
    with pytest.raises(Complaint, match="requires y to be passed"):
        experts().fit(frame)


@slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_own_checks_of_the_classifier(forgetful):
    check_estimator(experts(random_state=None, negatives=ContrastiveDivergence(1)))
