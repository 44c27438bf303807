"""Forward-Forward: golden values, no slope across layers, what rows are told from, the moments of recurrent nets.

Statistical tests are wrong for 1 key in 150,000 (4.5 standard errors); keys are fixed.
"""

from __future__ import annotations

from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import some
from jax.lax import stop_gradient
from sklearn.datasets import load_digits

from ravine._tree import Running
from ravine.core import Row
from ravine.models.forward_forward import (
    Appended,
    FirstCells,
    GoodnessReadOut,
    GoodNet,
    Nowhere,
    RecurrentNet,
    SoftmaxReadOut,
    affine_head,
    from_above,
)
from ravine.models.goodness import (
    GoodLayer,
    Local,
    LocalUnits,
    MeanOfSquares,
    Minus,
    Rectified,
    RectifiedThrough,
    SumOfSquares,
    good_layers,
    normalised,
    windows,
)
from ravine.nets._init import linear
from ravine.objectives.goodness import Hybrids, LikelyWrongLabel, LocalGoodness, WrongLabel, blurred
from ravine.recipes._recurrent_forward_forward import RecurrentForwardForward
from ravine.recipes.forward_forward import ForwardForward
from ravine.recipes.unsupervised_forward_forward import UnsupervisedForwardForward

CELLS, CLASSES = 6, 3


SUMS, BEHIND, GOOD = GoodnessReadOut(), Appended(), SumOfSquares(2.0)


def net(read_out: Any = SUMS, place: Any = BEHIND, sizes=(5, 4, 3), goodness=GOOD, image=None, seed=0):
    """Layers with random weights and biases, and an affine read-out."""
    inputs = place.inputs(CELLS, CLASSES)
    layers = good_layers(inputs, sizes, Rectified(), image, key=jr.key(seed))
    made = GoodNet(
        layers, affine_head(layers, read_out.skip, CLASSES, True), goodness, read_out, CLASSES, place, image=image
    )
    return shaken(made, seed)


def recurrent(seed=0, **time) -> RecurrentNet:
    layers = good_layers(CELLS, (5, 4), Rectified(), None, key=jr.key(seed))
    head, downs = affine_head(layers, 0, CLASSES, True), from_above(layers, CLASSES, key=jr.key(seed + 1))
    return shaken(RecurrentNet(layers, head, SumOfSquares(2.0), GoodnessReadOut(), CLASSES, downs, **time), seed)


def shaken(made, seed):
    stream = np.random.default_rng(seed)

    def moved(leaf):
        return leaf + 0.3 * jnp.asarray(stream.normal(size=leaf.shape)) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(moved, made)


def batch(n: int = 8, seed: int = 0) -> Row:
    stream = np.random.default_rng(seed)
    x, y = stream.uniform(size=(n, CELLS)), stream.integers(0, CLASSES, size=n)
    return Row(jnp.asarray(x), y=jnp.asarray(y, jnp.int32), y_mask=jnp.ones(n, bool))


# --- one layer


@pytest.mark.usefixtures("x64")
def test_golden_layer():
    weight = jnp.array([[0.2, 0.1, -0.3], [-0.4, 0.3, 0.1]])

    def layer(weight):
        return GoodLayer(linear(weight), Rectified(), Running(jnp.zeros(2)))

    x, good = jnp.array([1.0, 2.0, -1.0]), SumOfSquares(2.0)
    np.testing.assert_allclose(layer(weight)(x), [0.49497475, 0.07071068], atol=1e-8)
    odds = good(layer(weight)(x))
    assert float(odds) + 2 == pytest.approx(0.25, abs=1e-8)
    assert float(jax.nn.sigmoid(odds)) == pytest.approx(0.14804719803, abs=1e-9)
    slope = jax.grad(lambda w: jax.nn.softplus(-good(layer(w)(x))))(weight)
    want = [[-0.596367, -1.192734, 0.596367], [-0.085195, -0.170391, 0.085195]]
    np.testing.assert_allclose(slope, want, atol=1e-6)
    np.testing.assert_allclose(layer(weight)(7.0 * x), layer(weight)(x), atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_kinds_of_goodness():
    y = jnp.array([1.0, 2.0, 0.0])
    found = [
        float(good(y)) for good in (SumOfSquares(), SumOfSquares(1.0), MeanOfSquares(2.0), Minus(SumOfSquares(1.0)))
    ]
    np.testing.assert_allclose(found, [5 - 3, 5 - 1, 5 / 3 - 2, 1 - 5])
    assert float(jnp.mean(normalised(y) ** 2)) == pytest.approx(1, abs=1e-7) and not np.any(normalised(jnp.zeros(3)))


def test_what_silent_units_learn():
    a = jnp.array([-1.0, 2.0])
    slopes = [jax.jacobian(f)(a) for f in (Rectified(), RectifiedThrough())]
    np.testing.assert_array_equal(slopes[0], np.diag([0.0, 1.0]))
    np.testing.assert_array_equal(slopes[1], np.eye(2))
    assert RectifiedThrough()(a).tolist() == Rectified()(a).tolist() == [0, 2]


@pytest.mark.usefixtures("x64")
def test_local_units_see_their_window():
    (layer,) = good_layers(30, (Local(2, 3, 2),), Rectified(), (5, 6), key=jr.key(0))
    units = layer.affine
    assert isinstance(units, LocalUnits) and units.weight.shape == (4, 2, 9) and layer.usual.value.shape == (8,)
    image = np.random.default_rng(0).normal(size=(5, 6))
    seen = [image[i : i + 3, j : j + 3].ravel() for i in (0, 2) for j in (0, 2)]
    want = np.einsum("wuc,wc->wu", units.weight, seen)
    np.testing.assert_allclose(units(jnp.asarray(image.ravel())), want.ravel(), atol=1e-12)
    assert windows((5, 6, 2), 3, 2).shape == (4, 18)


def test_layers_that_do_not_fit():
    with pytest.raises(
        ValueError, match="layers: expected an image of at least 3 rows and columns below Local, got none"
    ):
        good_layers(30, (Local(2, 3, 2),), Rectified(), None, key=jr.key(0))
    with pytest.raises(ValueError, match="layers: expected one at least, got none"):
        good_layers(30, (), Rectified(), None, key=jr.key(0))
    with pytest.raises(ValueError, match="place: expected an image alone below Local, got 32 cells for 30 pixels"):
        good_layers(32, (Local(2, 3, 2),), Rectified(), (5, 6), key=jr.key(0))
    with pytest.raises(ValueError, match="FirstCells needs 10 cells"):
        FirstCells().inputs(4, 10)
    with pytest.raises(ValueError, match="affine read-out"):
        GoodNet(net().layers, None, SumOfSquares(), GoodnessReadOut(), CLASSES, Appended()).read(jnp.ones(CELLS))


# --- labels


def test_labels_leave_other_cells_as_they_are():
    x, label = jnp.arange(1.0, 7.0), jnp.array([0.0, 1.0, 0.0])
    assert FirstCells()(x, label).tolist() == [0, 6, 0, 4, 5, 6]
    assert Appended(2.0)(-x, label).tolist() == [-1, -2, -3, -4, -5, -6, 0, 12, 0]
    assert Appended()(0 * x, label).tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert Nowhere()(x, label).tolist() == x.tolist() and FirstCells().inputs(6, 3) == 6 == Appended().inputs(3, 3)


@pytest.mark.usefixtures("x64")
def test_what_tells_the_label():
    row = Row(batch(1).x[0])
    for skip in (0, 1):
        model = net(GoodnessReadOut(skip))
        want = []
        for label in np.eye(CLASSES):
            y, sums = jnp.concatenate([row.x, jnp.max(row.x) * label]), []
            for layer in model.layers:
                y = jnp.maximum(layer.affine(y / jnp.sqrt(jnp.mean(y**2) + 1e-8)), 0)
                sums.append(float(jnp.sum(y**2)) - 2)
            want.append(sum(sums[skip:]))
        np.testing.assert_allclose(model.logits(row), want, atol=1e-10)
    model = net(SoftmaxReadOut(1))
    assert model.features(row).shape == (7,)
    np.testing.assert_allclose(model.logits(row), model.head(model.features(row)), atol=1e-12)


# --- what is lowered


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "others", some([WrongLabel(), LikelyWrongLabel(), Hybrids()], LikelyWrongLabel()), ids=lambda o: type(o).__name__
)
def test_no_slope_crosses_layers(others):
    """The loss of layer l does not move with the weights of layer l - 1: all of a layer's slope is its own loss's."""
    model, rows = net(), batch()

    def terms(model) -> jax.Array:
        both = jnp.concatenate(others(model, rows, key=jr.key(1)))
        return jnp.stack(
            [jnp.sum(jax.vmap(model.goodness)(y)) for y in jax.vmap(lambda s: model.activities(s, stop_gradient))(both)]
        )

    slopes: Any = eqx.filter_jacrev(terms)(model)
    for owner, layer in enumerate(slopes.layers):
        for term in range(3):
            assert bool(np.any(layer.affine.weight[term])) == (term == owner)
    uncut: Any = eqx.filter_jacrev(
        lambda m: jnp.stack([m.goodness(y) for y in m.activities(m.shown(rows.x[0], jnp.eye(3)[0]))])
    )(model)
    assert np.any(uncut.layers[0].affine.weight[2])  # without the cut it does


@pytest.mark.usefixtures("x64")
def test_the_loss_is_that_of_the_paper():
    model, rows = net(), batch()
    loss, seen = LocalGoodness(WrongLabel())(model, rows, key=jr.key(3))
    real, others = (np.asarray(one) for one in WrongLabel()(model, rows, key=jr.key(3)))
    soft, total, parted = (lambda a: np.logaddexp(0, a)), 0.0, []
    for sign, inputs in ((1, real), (-1, others)):
        for x in inputs:
            odds = np.array([float(model.goodness(y)) for y in model.activities(jnp.asarray(x))])
            total, parted = total + soft(-sign * odds).sum() / len(real), [*parted, *(sign * odds > 0)]
    assert float(seen["local"]) == pytest.approx(total, abs=1e-10) and float(seen["parted"]) == pytest.approx(
        np.mean(parted)
    )
    weighed = eqx.tree_at(lambda r: r.weight, rows, jnp.array([1.0] + [0.0] * 7), is_leaf=lambda leaf: leaf is None)
    alone, _ = LocalGoodness(WrongLabel())(model, weighed, key=jr.key(3))
    first = sum(
        float(jax.nn.softplus(-s * model.goodness(y)))
        for s, x in ((1, real[0]), (-1, others[0]))
        for y in model.activities(jnp.asarray(x))
    )
    label = -float(jax.nn.log_softmax(model.read(rows.x[0]))[rows.y[0]])
    assert float(alone) == pytest.approx(first + label, abs=1e-10)
    assert float(loss) == pytest.approx(total + float(seen["label"]), abs=1e-10)


@pytest.mark.usefixtures("x64")
def test_the_read_out_teaches_nobody_but_itself():
    model, rows = net(), batch()
    slopes = eqx.filter_grad(lambda m: LocalGoodness(WrongLabel())._read(m, rows, [])["label"])(model)
    assert np.any(slopes.head.weight) and not any(np.any(layer.affine.weight) for layer in slopes.layers)


@pytest.mark.usefixtures("x64")
def test_peers_are_pulled_together():
    model, rows = net(), batch()

    def told(weight):
        return eqx.filter_grad(lambda m: LocalGoodness(WrongLabel(), peers=weight)(m, rows, key=jr.key(0))[0])(model)

    without, with_ = told(0.0), told(0.5)
    real, _ = WrongLabel()(model, rows, key=jr.key(0))
    for i, layer in enumerate(model.layers):
        mean = jnp.mean(jnp.stack([model.activities(x)[i] for x in real]), axis=0)
        np.testing.assert_allclose(
            layer.usual.moved(without.layers[i].usual).value, 0.1 * (mean - layer.usual.value), atol=1e-10
        )

    def penalty(weight):
        y = jax.vmap(lambda x: eqx.tree_at(lambda la: la.affine.weight, model.layers[0], weight)(x))(real)
        return jnp.sum(now * (jnp.mean(y, axis=0)))

    held = jnp.mean(jax.vmap(model.layers[0])(real), axis=0)
    usual = 0.9 * model.layers[0].usual.value + 0.1 * held
    now = 0.5 * (usual - jnp.mean(usual))  # what half the weighed sum of squares asks of each unit
    want = jax.grad(penalty)(model.layers[0].affine.weight)
    np.testing.assert_allclose(with_.layers[0].affine.weight - without.layers[0].affine.weight, want, atol=1e-10)


# --- what rows are told from


def test_wrong_labels_are_wrong_and_each_as_often():
    rows, n = batch(3000), 3000
    real, others = WrongLabel()(net(), rows, key=jr.key(0))
    shown, wrong = np.argmax(real[:, CELLS:], axis=1), np.argmax(others[:, CELLS:], axis=1)
    np.testing.assert_array_equal(shown, rows.y)
    np.testing.assert_array_equal(real[:, :CELLS], others[:, :CELLS])
    share = np.mean((wrong - shown) % CLASSES == 1)
    assert not np.any(wrong == shown) and abs(share - 0.5) < 4.5 * np.sqrt(0.25 / n)


def test_likely_wrong_labels_are_drawn_as_the_read_out_has_them():
    model, n = net(SoftmaxReadOut(0)), 4000
    rows = Row(jnp.tile(batch(1).x, (n, 1)), y=jnp.zeros(n, jnp.int32))
    _, others = LikelyWrongLabel()(model, rows, key=jr.key(0))
    wrong = np.argmax(others[:, CELLS:], axis=1)
    share = jax.nn.softmax(model.read(rows.x[0])[1:])[0]
    assert not np.any(wrong == 0) and abs(np.mean(wrong == 1) - share) < 4.5 * np.sqrt(share * (1 - share) / n)


def test_hybrids_are_of_two_rows_in_patches():
    image, n = (12, 10), 200
    x = jnp.broadcast_to(jnp.arange(1.0, n + 1)[:, None], (n, 120))
    wide: Any = GoodNet((), None, SumOfSquares(), GoodnessReadOut(), CLASSES, Nowhere(), image=image)
    real, others = Hybrids()(wide, Row(x), key=jr.key(0))
    np.testing.assert_array_equal(real, x)
    first = np.asarray(others == x)
    second = np.where(first, np.nan, others)
    assert np.all(np.nanmax(second, axis=1) == np.nanmin(second, axis=1))  # the others are of one other row
    share = first.mean(axis=1)
    assert abs(share.mean() - 0.5) < 4.5 * share.std() / np.sqrt(n)

    def alike(mask):
        return np.mean(mask[:, :, 1:] == mask[:, :, :-1])

    assert (
        alike(first.reshape(n, *image)) > 0.8
        and 0.45 < alike(np.asarray(jr.bernoulli(jr.key(1), 0.5, (n, *image)))) < 0.55
    )
    real, dark = Hybrids(hidden=0.3)(wide, Row(x), key=jr.key(0))
    np.testing.assert_array_equal(real, np.where(real > 0, x, 0))
    np.testing.assert_array_equal(dark, np.where(real > 0, others, 0))  # the same cells of both
    assert abs(np.mean(real == 0) - 0.3) < 4.5 * np.sqrt(0.3 * 0.7 / real.size)
    colours = Hybrids().mask((12, 10, 3), key=jr.key(0))
    assert np.all(colours == colours[:, :, :1]) and Hybrids().mask((7,), key=jr.key(0)).shape == (7,)


def test_a_blur_keeps_what_is_even_and_the_sum():
    even = jnp.full((4, 5), 0.3)
    np.testing.assert_allclose(blurred(blurred(even, 0), 1), even, atol=1e-7)
    spot = jnp.zeros((5, 5)).at[2, 2].set(16.0)
    np.testing.assert_allclose(blurred(blurred(spot, 0), 1)[1:4, 1:4], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])


# --- neighbours above and below


@pytest.mark.usefixtures("x64")
def test_moments_by_hand():
    model, x, label = recurrent(moments=2, damping=0.3, heard=(2, 2)), batch(1).x[0], jnp.array([0.0, 1.0, 0.0])
    one, two = model.layers
    unit, relu = (lambda v: v / jnp.sqrt(jnp.mean(v**2) + 1e-8)), (lambda v: jnp.maximum(v, 0))
    a = relu(one.affine(unit(x)))
    b = relu(two.affine(unit(a)))
    for _ in range(2):
        new = 0.3 * a + 0.7 * relu(one.affine(unit(x)) + model.downs[0](unit(b)))
        b = 0.3 * b + 0.7 * relu(two.affine(unit(a)) + model.downs[1](label))
        a = new
    found = model.activities(model.shown(x, label))
    np.testing.assert_allclose(found[2], a, atol=1e-10)
    np.testing.assert_allclose(found[3], b, atol=1e-10)
    np.testing.assert_allclose(model.goodness_of(x, label), [jnp.sum(a**2) - 2, jnp.sum(b**2) - 2], atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_moments_that_are_heard():
    model, x, label = recurrent(moments=6, heard=(3, 5)), batch(1).x[0], jnp.array([1.0, 0.0, 0.0])
    each = [float(model.goodness(y)) for y in model.activities(model.shown(x, label))[::2]]
    assert float(model.goodness_of(x, label)[0]) == pytest.approx(np.mean(each[2:5]), abs=1e-12)


@pytest.mark.usefixtures("x64")
def test_no_slope_crosses_moments_nor_neighbours():
    model, x, label = recurrent(moments=3, heard=(1, 3)), batch(1).x[0], jnp.array([1.0, 0.0, 0.0])
    last = lambda m: m.goodness(m.activities(m.shown(x, label), stop_gradient)[-2])  # noqa: E731  # layer 0, moment 3
    slopes = eqx.filter_grad(last)(model)
    assert np.any(slopes.layers[0].affine.weight) and np.any(slopes.downs[0].weight)
    assert not np.any(slopes.layers[1].affine.weight) and not np.any(slopes.downs[1].weight)
    held, affine = model.activities(model.shown(x, label)), cast(Any, model.layers[0].affine)
    before = [normalised(held[2]), normalised(held[3])]  # both layers at moment 2

    def mine(w):
        return 0.3 * held[2] + 0.7 * jax.nn.relu(
            eqx.tree_at(lambda a: a.weight, affine, w)(normalised(x)) + model.downs[0](before[1])
        )

    want = jax.grad(lambda w: jnp.sum(mine(w) ** 2))(affine.weight)
    np.testing.assert_allclose(slopes.layers[0].affine.weight, want, atol=1e-10)


# --- the recipes


def digits(images: bool = False):
    X, y = load_digits(return_X_y=True)
    X = X / 16
    X = X.reshape(-1, 8, 8) if images else X
    return X[:1400], y[:1400], X[1400:], y[1400:]


PEERS = {"peers": 0.03, "rectifier": RectifiedThrough()}
RECIPES = {
    "goodness": (ForwardForward, {}, False),
    "softmax": (ForwardForward, {"read_out": SoftmaxReadOut(0), "others": LikelyWrongLabel()} | PEERS, False),
    "local": (ForwardForward, {"layers": (Local(8, 4, 2), 128), "place": FirstCells()}, True),
    "hybrids": (UnsupervisedForwardForward, {"read_out": SoftmaxReadOut(0)}, True),
    "recurrent": (RecurrentForwardForward, {"moments": 6}, False),
}
LEARNT = {"goodness": 0.85, "softmax": 0.85, "local": 0.8, "hybrids": 0.85, "recurrent": 0.85}  # chance is 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_digits_are_told(name):
    cls, fields, images = RECIPES[name]
    X, y, X_test, y_test = digits(images)
    model = cls(**({"layers": (128, 128), "steps": 1_000, "rate": 1e-3, "random_state": 0} | fields), progress=False)
    assert model.fit(X, y).score(X_test, y_test) > LEARNT[name]


def test_verbs(tmp_path):

    X, y, X_test, y_test = digits()
    model = ForwardForward(layers=(32, 16), place=FirstCells(), steps=150, rate=3e-3, random_state=0, progress=False)
    model.fit(X, y)
    assert model.score(X_test, y_test) > 0.3  # chance is 0.1
    odds = model.log_odds(X_test, y_test)
    told = np.stack([model.log_odds(X_test[:5], label).sum(axis=1) for label in range(10)], axis=1)
    np.testing.assert_array_equal(np.argmax(told, axis=1), model.predict(X_test[:5]))
    assert odds.shape == (397, 2) and model.log_odds(X_test[:2]).shape == (2, 2)
    others = model.negatives(X_test[:20], y_test[:20])
    np.testing.assert_allclose(others[:, 10:], X_test[:20, 10:], atol=1e-6)
    assert not np.any(np.argmax(others[:, :10], axis=1) == y_test[:20])
    assert model.transform(X_test).shape == (397, 48)
    with pytest.raises(ValueError, match="y: expected one of"):
        model.log_odds(X_test, 11)


def test_rows_without_a_label_teach_layers_too():
    X, y, *_ = digits(images=True)
    few = np.where(np.arange(1400) < 100, y, -1)
    fields = {"layers": (16, 16), "steps": 20, "random_state": 0, "progress": False}
    model = UnsupervisedForwardForward(**fields).fit(X, few)
    assert model.predict(X[:3]).shape == (3,)
    with pytest.raises(ValueError, match="a label for every row"):
        ForwardForward(**fields).fit(X, few)
