"""Forward-Forward: what a step costs, what silent units learn, where recurrent nets rest, what each recipe learns."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from sklearn.datasets import load_digits

from ravine.core import Row
from ravine.data import Schema
from ravine.models.forward_forward import FirstCells, GoodnessReadOut, RecurrentNet, SoftmaxReadOut, from_above
from ravine.models.goodness import MeanOfSquares, Minus, Rectified, RectifiedThrough, SumOfSquares, good_layers
from ravine.objectives.goodness import Hybrids, LikelyWrongLabel, LocalGoodness, WrongLabel
from ravine.recipes._recurrent_forward_forward import RecurrentForwardForward
from ravine.recipes.forward_forward import ForwardForward
from ravine.recipes.unsupervised_forward_forward import UnsupervisedForwardForward

CELLS, CLASSES, ROWS = 13, 3, 8
SCHEMA = Schema((CELLS,), "real")


def rows() -> Row:
    stream = np.random.default_rng(0)
    y = jnp.asarray(stream.integers(0, CLASSES, size=ROWS), jnp.int32)
    return Row(jnp.asarray(stream.uniform(size=(ROWS, CELLS))), y=y, y_mask=jnp.ones(ROWS, bool))


def slopes(recipe: Any, model: Any) -> Any:
    objective = recipe.stages(ROWS)[0].rule.objective
    return eqx.filter_grad(lambda m: objective(m, rows(), key=jr.key(1))[0])(model)


# --- what a step costs


def products(jaxpr: Any) -> Iterator[tuple[tuple[int, ...], ...]]:
    """The shapes of both sides of every matrix product, in it and below it."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield tuple(sorted(v.aval.shape for v in equation.invars))
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from products(inner)


def with_weights(recipe: Any) -> collections.Counter:
    """How many products of each shape a step has: those of rows with weights, and of rows with slopes."""
    model = recipe.build(SCHEMA, CLASSES, key=jr.key(0))
    parameters, rest = eqx.partition(model, eqx.is_inexact_array)
    made = jax.make_jaxpr(lambda p: slopes(recipe, eqx.combine(p, rest)))(parameters)
    found = collections.Counter(products(made.jaxpr))
    large = lambda shape: len(shape) == 2 and min(shape) > CLASSES  # noqa: E731
    return collections.Counter({shapes: n for shapes, n in found.items() if all(map(large, shapes))})


def test_a_step_has_two_products_for_each_layer():
    """One for the activities of rows and others together, one for the slopes of the weights: none for its input's."""
    both, found = 2 * ROWS, with_weights(ForwardForward(layers=(7, 5), place=FirstCells()))
    want = {((7, 13), (both, 13)): 1, ((7, both), (both, 13)): 1, ((5, 7), (both, 7)): 1, ((5, both), (both, 7)): 1}
    assert dict(found) == {tuple(sorted(shapes)): n for shapes, n in want.items()}


def test_a_moment_does_not_look_at_the_row_again():
    found = with_weights(RecurrentForwardForward(layers=(7, 5), moments=6))
    of_cells = [n for shapes, n in found.items() if any(CELLS in shape for shape in shapes)]
    assert of_cells == [1, 1]
    assert found[((5, 7), (16, 7))] == 7  # upwards: before the first moment, and at each
    assert found[((7, 5), (16, 5))] == 6  # downwards
    assert found[((5, 16), (16, 7))] == found[((7, 16), (16, 5))] == 6  # and the slopes of both


# --- silent units


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("goodness", [SumOfSquares(), MeanOfSquares(), Minus()], ids=lambda g: type(g).__name__)
@pytest.mark.parametrize(("peers", "learns"), [(0.0, False), (0.5, True)])
def test_silent_units_learn_from_their_peers_alone(goodness, peers, learns):
    found = {}
    for rectifier in (Rectified(), RectifiedThrough()):
        recipe = ForwardForward(layers=(7, 5), goodness=goodness, rectifier=rectifier, peers=peers)
        model = recipe.build(SCHEMA, CLASSES, key=jr.key(0))
        silent = eqx.tree_at(lambda m: m.layers[0].affine.bias, model, jnp.zeros(7).at[2].set(-100.0))
        found[type(rectifier)] = slopes(recipe, silent).layers[0].affine.weight
    assert not np.any(found[Rectified][2]) and np.any(found[Rectified][3])
    assert bool(np.any(found[RectifiedThrough][2])) == learns
    if not learns:
        np.testing.assert_array_equal(found[RectifiedThrough], found[Rectified])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_units_that_were_not_silent_a_moment_ago_learn_by_any_slope():
    """An activity is 0.3 of what it was: its goodness has a slope though the unit is silent now."""
    found = []
    for rectifier in (Rectified(), RectifiedThrough()):
        recipe = RecurrentForwardForward(layers=(7, 5), rectifier=rectifier)
        model = recipe.build(SCHEMA, CLASSES, key=jr.key(0))
        quieted = lambda down: eqx.tree_at(lambda d: d.bias, down, down.bias.at[2].set(-100.0))  # noqa: E731
        model = eqx.tree_at(lambda m: m.downs[0], model, quieted(model.downs[0]))  # at the start nothing came down
        found.append(bool(np.any(slopes(recipe, model).layers[0].affine.weight[2])))
    assert found == [False, True]


# --- where recurrent nets rest


def recurrent(scale: float, **time: Any) -> RecurrentNet:
    layers, key = good_layers(CELLS, (5, 4), Rectified(), None, key=jr.key(0)), jr.key(1)
    downs = jax.tree.map(lambda leaf: scale * leaf, from_above(layers, CLASSES, key=key))
    return RecurrentNet(layers, None, SumOfSquares(), SoftmaxReadOut(), CLASSES, downs, **time)


@pytest.mark.usefixtures("x64")
def test_with_nothing_from_above_nets_rest_where_one_pass_leaves_them():
    model, seen = recurrent(0.0), jnp.concatenate([rows().x[0], jnp.eye(CLASSES)[1]])
    low = model.layers[0](rows().x[0])
    np.testing.assert_allclose(jnp.stack(model.activities(seen)[::2]), jnp.tile(low, (8, 1)), atol=1e-12)
    np.testing.assert_allclose(
        jnp.stack(model.activities(seen)[1::2]), jnp.tile(model.layers[1](low), (8, 1)), atol=1e-12
    )


@pytest.mark.usefixtures("x64")
def test_where_nets_rest_does_not_depend_on_the_damping():
    """It solves y = f(W below + V above), which no damping moves."""
    x, label = rows().x[0], jnp.eye(CLASSES)[1]
    ends = []
    for damping, moments in ((0.3, 80), (0.6, 160)):
        model = recurrent(0.5, damping=damping, moments=moments)
        ends.append(model.activities(jnp.concatenate([x, label]))[-2:])
    low, high = ends[0]
    unit = lambda v: v / jnp.sqrt(jnp.mean(v**2) + 1e-8)  # noqa: E731
    one, two = (layer.affine for layer in model.layers)
    np.testing.assert_allclose(low, jnp.maximum(one(unit(x)) + model.downs[0](unit(high)), 0), atol=1e-10)
    np.testing.assert_allclose(high, jnp.maximum(two(unit(low)) + model.downs[1](label), 0), atol=1e-10)
    np.testing.assert_allclose(jnp.concatenate(ends[0]), jnp.concatenate(ends[1]), atol=1e-10)
    assert not np.allclose(low, model.layers[0](x), atol=1e-2)  # they have moved from where they began


@pytest.mark.parametrize("heard", [(0, 5), (3, 9), (5, 3)])
def test_moments_that_do_not_exist(heard):
    with pytest.raises(ValueError, match="heard must name two of the moments 1 to 8"):
        recurrent(1.0, heard=heard)


# --- what each recipe learns


QUICK = {
    "softmax": (ForwardForward, {"read_out": SoftmaxReadOut(0), "others": LikelyWrongLabel()}),
    "hybrids": (UnsupervisedForwardForward, {"read_out": SoftmaxReadOut(0)}),
    "recurrent": (RecurrentForwardForward, {"moments": 5, "others": WrongLabel()}),
}


@pytest.mark.parametrize("name", QUICK)
def test_digits_are_told_apart_after_a_few_steps(name):
    cls, fields = QUICK[name]
    X, y = load_digits(return_X_y=True)
    X = X.reshape(-1, 8, 8) / 16 if name == "hybrids" else X / 16
    sizes = {"layers": (32, 16), "steps": 150, "rate": 3e-3, "random_state": 0, "progress": False}
    assert cls(**(sizes | fields)).fit(X[:1400], y[:1400]).score(X[1400:], y[1400:]) > 0.3  # chance is 0.1


def test_the_objective_counts_as_many_rows_as_others():
    """Without what layers make of rows all odds are alike: half are parted, or fewer."""
    model = ForwardForward(layers=(7,)).build(SCHEMA, CLASSES, key=jr.key(0))
    still = jax.tree.map(jnp.zeros_like, eqx.filter(model, eqx.is_inexact_array))
    model = eqx.combine(still, eqx.filter(model, eqx.is_inexact_array, inverse=True))
    loss, seen = LocalGoodness()(model, rows(), key=jr.key(0))
    assert float(loss) == pytest.approx(np.logaddexp(0, 7) + np.logaddexp(0, -7), rel=1e-6)
    assert float(seen["parted"]) == 0.5


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (ForwardForward(others=Hybrids()), r"read_out: expected SoftmaxReadOut\(\) beside Hybrids"),
        (UnsupervisedForwardForward(others=WrongLabel()), r"others: expected Hybrids\(\) where no label is shown"),
        (UnsupervisedForwardForward(read_out=GoodnessReadOut()), "read_out: expected Soft"),
        (ForwardForward(layers=()), "layers: expected one at least, got none"),
        (ForwardForward(read_out=GoodnessReadOut(2)), "read_out, skip: expected fewer than the 2 layers, got 2"),
        (UnsupervisedForwardForward(batch_size=1), "batch_size: expected two rows at least"),
    ],
    ids=lambda it: it[:16] if isinstance(it, str) else "",
)
def test_what_would_learn_nothing_is_refused(recipe, message):
    with pytest.raises(ValueError, match=message):
        recipe.fit(np.eye(12), np.arange(12) % 3)


def test_what_a_label_weighs_goes_with_the_unit_of_the_cells():
    """The same rows in another unit are told alike, to the bit where the factor is a power of two."""
    X, y = load_digits(return_X_y=True)
    fields = {"layers": (16, 8), "steps": 30, "rate": 3e-3, "random_state": 0, "progress": False}
    found = [ForwardForward(**fields).fit(s * X[:300], y[:300]).log_odds(s * X[:9], y[:9]) for s in (1 / 16, 1.0)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
