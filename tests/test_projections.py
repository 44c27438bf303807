"""Constraints on labels, hard and soft: golden numbers, laws that stay, gradients, class means by numpy."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from ravine._check import Complaint
from ravine._tree import Fixed
from ravine.core import AbstractRule, Row
from ravine.data import ArraySource
from ravine.models import disentangled
from ravine.models.disentangled import Constrained, LabelMeans, constrained, label_means, with_labels
from ravine.models.energy import Dense, Harmonium
from ravine.models.units import BinaryUnits, GaussianUnits, PottsUnits, RectifiedUnits, SoftmaxUnits
from ravine.objectives import Contrast
from ravine.rules import Centred, Contrastive, ContrastiveDivergence, Projected
from ravine.rules.projections import (
    NormClip,
    SecondOrder,
    Successive,
    Uncorrelated,
    UnitNorm,
    ZeroSum,
    disentangling,
    label_moments,
    second_order,
    uncorrelated,
    with_second_order,
)

pytestmark = pytest.mark.usefixtures("x64")


def normal(*shape: int, seed: int = 0) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def machine(visible: Any, hidden: Any, labels: int = 1, free: int = 1, seed: int = 0) -> Harmonium:
    """A harmonium with parameters of no special values, told of class means at random."""
    told = LabelMeans(normal(labels + 1, visible.size, seed=seed + 1), jnp.ones(labels + 1) / (labels + 1))
    coupling = Constrained(normal(visible.size, hidden.size, seed=seed), Fixed(told), free)
    moved = lambda units, k: jax.tree.map(lambda leaf: leaf + normal(*leaf.shape, seed=seed + k), units)  # noqa: E731
    return Harmonium(moved(visible, 2), moved(hidden, 3), coupling, Fixed(visible))


def bits(n: int) -> BinaryUnits:
    return BinaryUnits().sized((n,))


def potts(n: int, levels: int = 3) -> PottsUnits:
    return PottsUnits(levels=levels).sized((n,))


# --- the hard constraint


def test_golden_projection():
    """q = (1, 2, -1); the first column is orthogonal to it already."""
    q, weight = jnp.array([[1.0], [2.0], [-1.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    want = np.array([[1.0, -1 / 6], [0.0, 2 / 3], [1.0, 7 / 6]])
    np.testing.assert_allclose(uncorrelated(weight, q), want, atol=1e-12)


DIRECTIONS = {
    "one": lambda: normal(6, 1, seed=5),
    "three": lambda: normal(6, 3, seed=6),
    "dependent": lambda: jnp.repeat(normal(6, 1, seed=7), 3, axis=1),
    "zero": lambda: jnp.zeros((6, 2)),
    "more than there are statistics": lambda: normal(6, 9, seed=8),
}


@pytest.mark.parametrize("name", DIRECTIONS)
def test_it_is_an_orthogonal_projection(name):
    """Idempotent, and by Pythagoras what is kept and what is taken away are at right angles."""
    weight, directions = normal(6, 4), DIRECTIONS[name]()
    kept = uncorrelated(weight, directions)
    np.testing.assert_allclose(uncorrelated(kept, directions), kept, atol=1e-12)
    np.testing.assert_allclose(directions.T @ kept, 0, atol=1e-12)
    total = float(jnp.sum(kept**2) + jnp.sum((weight - kept) ** 2))
    assert np.isclose(total, float(jnp.sum(weight**2)), rtol=1e-13)
    rank = np.linalg.matrix_rank(np.asarray(directions))
    assert np.isclose(float(jnp.sum(uncorrelated(jnp.eye(6), directions) ** 2)), 6 - rank)  # and no more is gone


def test_only_constrained_units_are_projected():
    model = machine(bits(5), bits(4), labels=2, free=2)
    after = Uncorrelated()(model)
    np.testing.assert_array_equal(after.coupling.weight[:, :2], model.coupling.weight[:, :2])
    q = model.coupling.directions(model.visible)
    np.testing.assert_allclose(q.T @ after.coupling.weight[:, 2:], 0, atol=1e-12)
    assert float(jnp.max(jnp.abs(q.T @ after.coupling.weight[:, :2]))) > 0.1
    others = lambda m: eqx.tree_at(lambda m: m.coupling.weight, m, jnp.zeros(()))  # noqa: E731
    assert bool(eqx.tree_equal(others(after), others(model)))


def test_the_metric_is_that_of_the_statistics():
    """Gaussian units learn scales: it is the input, which divides by them, that must not tell the label."""
    visible = GaussianUnits().sized((4,))
    rows, label = normal(50, 4, seed=4), jnp.arange(50) % 2
    rows = rows + 2.0 * label[:, None]
    means = jnp.stack([rows[label == k].mean(axis=0) for k in range(2)])
    model = machine(visible, bits(3), free=1)
    told = Fixed(LabelMeans(means, jnp.array([0.5, 0.5])))
    model = dataclasses.replace(model, coupling=dataclasses.replace(model.coupling, labels=told))
    scale = np.exp(np.asarray(model.visible.log_scale))
    assert scale.max() > 1.3 * scale.min()

    def covariance(model):
        inputs = (np.asarray(rows) / scale**2) @ np.asarray(model.coupling.weight)
        return np.cov(inputs.T, np.asarray(label))[-1, :-1]

    assert np.abs(covariance(Uncorrelated()(model))[1:]).max() < 1e-13
    plain = dataclasses.replace(model, visible=visible)  # scales of 1: the metric of standardised cells
    wrong = dataclasses.replace(Uncorrelated()(plain), visible=model.visible)
    assert np.abs(covariance(wrong)[1:]).max() > 1e-2


def test_a_coupling_without_labels_is_refused():
    model = Harmonium(bits(2), bits(2), Dense(jnp.ones((2, 2))), Fixed(bits(2)))
    with pytest.raises(Complaint, match="knows labels, got Dense"):
        Uncorrelated()(model)


# --- gauges and bounds


def states(model: Harmonium) -> Any:
    """All visible states."""
    units = model.visible
    return [units.state(jnp.asarray(d)) for d in itertools.product(*(range(n) for n in units.choices()))]


def log_law(model: Harmonium) -> np.ndarray:
    energy = np.array([float(model.energy(x)) for x in states(model)])
    return -energy - np.logaddexp.reduce(-energy)


@pytest.mark.parametrize("hidden", [BinaryUnits(), GaussianUnits(), RectifiedUnits()], ids=lambda u: type(u).__name__)
def test_zero_sum_is_a_gauge(hidden):
    model = machine(potts(3), hidden.sized((2,)))
    after = ZeroSum()(model)
    assert float(jnp.max(jnp.abs(after.coupling.weight.reshape(3, 3, 2).sum(axis=1)))) < 1e-14
    assert float(jnp.max(jnp.abs(after.visible.bias.sum(axis=-1)))) < 1e-14
    np.testing.assert_allclose(log_law(after), log_law(model), atol=1e-12)
    assert not np.allclose(after.coupling.weight, model.coupling.weight)
    np.testing.assert_allclose(ZeroSum()(after).coupling.weight, after.coupling.weight, atol=1e-15)


def test_zero_sum_leaves_other_units_alone():
    model = machine(bits(3), bits(2))
    assert bool(eqx.tree_equal(ZeroSum()(model), model))


def test_the_constraint_holds_after_the_gauge():
    """Also where the covariances do not sum to zero over the levels, so that the gauge breaks what was projected."""
    model = machine(potts(3), bits(4))
    q = model.coupling.directions(model.visible)
    broken = Successive((Uncorrelated(), ZeroSum()))(model)
    assert float(jnp.max(jnp.abs(q.T @ broken.coupling.weight[:, 1:]))) > 0.01
    kept = Successive((ZeroSum(), Uncorrelated()))(model)
    np.testing.assert_allclose(q.T @ kept.coupling.weight[:, 1:], 0, atol=1e-12)


def test_unit_norm_is_a_gauge():
    model = machine(potts(2), GaussianUnits().sized((3,)))
    after = UnitNorm()(model)
    np.testing.assert_allclose(jnp.linalg.norm(after.coupling.weight, axis=0), 1, rtol=1e-14)
    np.testing.assert_allclose(log_law(after), log_law(model), atol=1e-12)
    gone = eqx.tree_at(lambda m: m.coupling.weight, model, model.coupling.weight.at[:, 1].set(0))
    assert bool(jnp.all(jnp.isfinite(UnitNorm()(gone).hidden.log_scale)))
    with pytest.raises(Complaint, match="GaussianUnits, got BinaryUnits"):
        UnitNorm()(machine(bits(2), bits(2)))


def test_norms_are_bounded_column_by_column():
    model = machine(bits(6), bits(4))
    before = np.asarray(model.coupling.weight)
    norms = np.linalg.norm(before, axis=0)
    bound = float(np.median(norms))
    after = np.asarray(NormClip(bound)(model).coupling.weight)
    np.testing.assert_allclose(np.linalg.norm(after, axis=0), np.minimum(norms, bound), rtol=1e-14)
    np.testing.assert_allclose(after[:, norms < bound], before[:, norms < bound], rtol=1e-14)
    zero = eqx.tree_at(lambda m: m.coupling.weight, model, jnp.zeros((6, 4)))
    assert float(jnp.max(jnp.abs(NormClip(bound)(zero).coupling.weight))) == 0


def test_equal_projections_are_equal_and_their_numbers_are_leaves():
    one, two = (Successive((ZeroSum(), NormClip(2.0), Uncorrelated(), UnitNorm())) for _ in range(2))
    assert one == two and jax.tree.leaves(one) == [2.0]
    assert Uncorrelated() == Uncorrelated() and hash(Uncorrelated()) == hash(Uncorrelated())


# --- the constraint in training


class Along(AbstractRule):
    """A rule that moves the weights of all units along the forbidden directions, and nothing else."""

    def init(self, model, batch, *, key):
        return None

    def step(self, model, state, batch, *, key, step):
        weight, told = model.coupling.weight, model.coupling.labels.value
        moved = weight + told.covariance() @ jnp.ones((1, weight.shape[1]))
        return eqx.tree_at(lambda m: m.coupling.weight, model, moved), state, {}


def test_mean_fields_are_left_alone():
    """Inside the centring the projection undoes a step along q whole; around it the biases keep their part of it."""
    model = Uncorrelated()(machine(bits(4), bits(3), free=1))
    rows = jnp.asarray(np.array(list(itertools.product([0.0, 1.0], repeat=4)))[5:])

    def after(rule):
        batch, step = Row(rows), jnp.array(0)
        return rule.step(model, rule.init(model, batch, key=jr.key(0)), batch, key=jr.key(0), step=step)[0]

    kept, pushed = after(disentangling(Along(), ZeroSum())), after(Projected(Centred(Along()), Uncorrelated()))
    for made in (kept, pushed):
        np.testing.assert_allclose(made.coupling.weight[:, 1:], model.coupling.weight[:, 1:], atol=1e-13)
    released = model.offsets(rows)[1][0] * model.coupling.directions(model.visible)[:, 0]
    np.testing.assert_allclose(kept.visible.bias, model.visible.bias - released, atol=1e-13)
    assert np.abs(pushed.visible.bias - kept.visible.bias).max() > 0.1


def test_the_constraint_is_kept_while_it_learns():
    """By contrastive divergence, whatever the gauge; the weights of the released units see the label."""
    stream, label = np.random.default_rng(0), np.arange(60) % 2
    rows = (stream.uniform(size=(60, 5)) < np.array([0.15, 0.85])[label][:, None]).astype(float)
    means = jnp.asarray([rows[label == k].mean(axis=0) for k in range(2)])
    model = machine(bits(5), GaussianUnits().sized((4,)), free=1)
    told = Fixed(LabelMeans(means, jnp.array([0.5, 0.5])))
    model = dataclasses.replace(model, coupling=dataclasses.replace(model.coupling, labels=told))
    rule = disentangling(Contrastive(Contrast(), ContrastiveDivergence(1)), UnitNorm())
    batch, step = Row(jnp.asarray(rows), y=jnp.asarray(label)), jax.jit(rule.step)
    state = rule.init(model, batch, key=jr.key(0))
    for i in range(5):
        model, state, _ = step(model, state, batch, key=jr.key(i), step=jnp.array(i))
    inputs = rows @ np.asarray(model.coupling.weight)
    covariance = np.cov(inputs.T, label)[-1, :-1]
    assert np.abs(covariance[1:]).max() < 1e-14 < 1e-3 < abs(covariance[0])


# --- what is known of the labels


def units(kind: str) -> Any:
    return {"bits": BinaryUnits(), "reals": GaussianUnits(), "levels": PottsUnits(levels=3)}[kind].sized((4,))


def untold(kind: str, classes: int = 3, free: int = 1, hidden: int = 5) -> Harmonium:
    visible = units(kind)
    weight = jnp.asarray(np.random.default_rng(3).normal(size=(visible.size, hidden)))
    coupling = constrained(weight, free, classes)
    return Harmonium(visible, BinaryUnits().sized((hidden,)), coupling, Fixed(visible))


def labelled_rows(kind: str, n: int = 40) -> Row:
    """Some cells missing, some labels unknown, weights of 1 and 2; one cell was never seen in class 2."""
    stream = np.random.default_rng(1)
    y = stream.integers(3, size=n)
    x = stream.normal(size=(n, 4)) + y[:, None] if kind == "reals" else stream.integers(0, 2, size=(n, 4)) + 0.0
    mask = (stream.uniform(size=(n, 4)) < 0.8) & ~((np.arange(4) == 2) & (y == 2)[:, None])
    known, weight = stream.uniform(size=n) < 0.7, 1.0 + stream.integers(2, size=n)
    arrays = (np.where(mask, x, 0), mask, np.where(known, y, -1), known, weight)
    x, mask, y, known, weight = map(jnp.asarray, arrays)
    return Row(x, mask=mask, y=y, y_mask=known, weight=weight)


@pytest.mark.parametrize("kind", ["bits", "reals", "levels"])
def test_class_means_against_numpy(kind, monkeypatch):
    """Missing cells at their mean over the labelled rows; the covariance with each label is that of numpy."""
    rows, model = labelled_rows(kind), untold(kind)
    told = label_means(model, rows)
    each = 3 if kind == "levels" else 1
    s = np.asarray(jax.vmap(model.visible.statistic)(rows.x))
    seen, known = np.repeat(np.asarray(rows.mask), each, axis=1), np.asarray(rows.y_mask)
    s, seen, y, w = s[known], seen[known], np.asarray(rows.y)[known], np.asarray(rows.weight)[known]
    mean = np.array([np.average(s[seen[:, i], i], weights=w[seen[:, i]]) for i in range(s.shape[1])])
    filled = np.where(seen, s, mean)
    np.testing.assert_allclose(told.shares, [w[y == k].sum() / w.sum() for k in range(3)], rtol=1e-12)
    want = [np.average(filled[y == k], axis=0, weights=w[y == k]) for k in range(3)]
    np.testing.assert_allclose(told.means, want, atol=1e-12)
    u = np.eye(3)[y][:, 1:]
    away, labels = (z - np.average(z, axis=0, weights=w) for z in (filled, u))
    np.testing.assert_allclose(told.covariance(), (w[:, None] * away).T @ labels / w.sum(), atol=1e-12)
    np.testing.assert_allclose(told.overall(), mean, atol=1e-12)
    monkeypatch.setattr(disentangled, "AT_ONCE", 7)
    again = label_means(model, rows)
    np.testing.assert_allclose(again.means, told.means, atol=1e-13)


def test_a_model_is_told_by_its_source():
    rows, model = labelled_rows("levels"), untold("levels")
    told = with_labels(model, ArraySource(rows), key=jr.key(0))
    rates = np.asarray(jax.nn.softmax(told.visible.bias, axis=-1))
    np.testing.assert_allclose(rates.ravel(), np.maximum(told.coupling.labels.value.overall(), 1e-4), atol=1e-3)
    assert told.base.value is told.visible
    with pytest.raises(Complaint, match="labels, got none"):
        with_labels(model, ArraySource(Row(rows.x)), key=jr.key(0))


def test_a_class_that_no_row_has_is_average():
    rows = Row(jnp.array([[0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]]), y=jnp.array([0, 1]))
    told = label_means(untold("bits"), rows)
    np.testing.assert_allclose(told.means[2], [0.5, 1.0, 0.0, 0.5])
    assert float(told.shares[2]) == 0 and float(jnp.max(jnp.abs(told.covariance()[:, 1]))) == 0


# --- the soft constraint


def moments(weight: np.ndarray, s: np.ndarray, u: np.ndarray) -> np.ndarray:
    """W'QW with Q formed, one row at a time."""
    q = np.zeros((u.shape[1], s.shape[1], s.shape[1]))
    for row, labels in zip(s, u, strict=True):
        q += labels[:, None, None] * np.outer(row, row)[None] / len(s)
    return weight.T @ q @ weight


def test_moments_by_products():
    weight, s, u = normal(5, 3), normal(20, 5, seed=1), normal(20, 2, seed=2)
    np.testing.assert_allclose(label_moments(weight, s, u), moments(*map(np.asarray, (weight, s, u))), atol=1e-13)


def test_the_estimate_of_the_square_has_no_bias():
    """The mean over all pairs of rows that two draws may give, of which the square of one draw is not the mean."""
    weight, s, u = normal(4, 3), normal(6, 4, seed=1), normal(6, 2, seed=2)
    pair = jax.jit(lambda at: second_order(weight, s[at], u[at]))
    drawn = [float(pair(jnp.asarray(at))) for at in itertools.product(range(6), repeat=2)]
    assert np.isclose(np.mean(drawn), np.sum(moments(*map(np.asarray, (weight, s, u))) ** 2), rtol=1e-12)


def test_the_gradient_of_the_penalty():
    """2 Q W (W'QW) for each label, for half the sum of squares; against it and against differences.

    Both halves of the batch are the same rows, so that the estimate is the square itself.
    """
    weight, s, u = normal(4, 3), normal(10, 4, seed=1), normal(10, 2, seed=2)
    twice = lambda rows: jnp.concatenate([rows, rows])  # noqa: E731
    loss = jax.jit(lambda w: 0.5 * second_order(w, twice(s), twice(u)))
    slope, q = np.asarray(jax.grad(loss)(weight)), moments(np.eye(4), np.asarray(s), np.asarray(u))
    w = np.asarray(weight)
    np.testing.assert_allclose(slope, sum(2 * one @ w @ (w.T @ one @ w) for one in q), rtol=1e-10, atol=1e-10)
    for i, j in itertools.product(range(4), range(3)):
        step = np.zeros((4, 3))
        step[i, j] = 1e-5
        near = (loss(weight + step) - loss(weight - step)) / 2e-5
        assert np.isclose(float(near), slope[i, j], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("visible", [BinaryUnits(), GaussianUnits(), PottsUnits()], ids=lambda u: type(u).__name__)
def test_the_penalty_beside_a_contrast(visible):
    """Against numpy, for plain and for centred machines: only the weights of constrained units matter."""
    model = machine(visible.sized((4,)), bits(3), labels=2)
    x = jnp.abs(normal(8, 4, seed=9)) // 1 % 2
    y, known = jnp.arange(8) % 3, jnp.arange(8) != 2
    batch = Row(x, y=y, y_mask=known, weight=1.0 + jnp.arange(8) % 2)
    inner, key = Contrast(), jr.key(0)
    plain = inner(model, batch, x, key=key)[0]
    told = model.coupling.labels.value
    scale = np.exp(-2 * np.asarray(model.visible.log_scale)) if isinstance(visible, GaussianUnits) else 1.0
    s = np.asarray(jax.vmap(model.visible.statistic)(x)) - scale * np.asarray(told.overall())
    share = np.where(known, batch.weight, 0) / np.mean(np.where(known, batch.weight, 0))
    u = share[:, None] * (np.eye(3)[np.asarray(y)][:, 1:] - np.asarray(told.shares)[1:])
    w = np.asarray(model.coupling.weight)[:, 1:]
    want = np.sum(moments(w, s[:4], u[:4]) * moments(w, s[4:], u[4:]))
    offsets = model.offsets(x)
    for machine_ in (model, model.centred(offsets)):
        loss, metrics = SecondOrder(inner, 0.3)(machine_, batch, x, key=key)
        assert np.isclose(float(metrics["second_order"]), want, rtol=1e-10)
        assert np.isclose(float(loss - plain), 0.15 * want, rtol=1e-8)
    assert with_second_order(inner, 0.0) is inner and isinstance(with_second_order(inner, 0.1), SecondOrder)


def test_softmax_units_have_no_zero_sum():
    """Their levels are cells of their own: nothing is done to them."""
    model = machine(SoftmaxUnits().sized((2, 3)), bits(2))
    assert bool(eqx.tree_equal(ZeroSum()(model), model))
