"""Sparse coding: codes against coordinate descent, bounds on how fast they are found, dictionaries that are known."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import some
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import Lasso

from ravine._tree import Fixed, Linear, Part
from ravine.core import Row
from ravine.data import ArraySource
from ravine.models.sparse_coding import (
    FISTA,
    ISTA,
    AfterSteps,
    FromRows,
    GapBelow,
    NonnegativeShrinkage,
    SoftShrinkage,
    SparseCoder,
    largest_curvature,
    random_dictionary,
)
from ravine.objectives import LeastCost
from ravine.recipes.sparse_coding import SparseCoding
from ravine.rules import MOD, Descend, NormClip, Optimiser, Projected
from ravine.train import Stage, train

ATOMS = Part("dictionary")
LONG = FISTA(AfterSteps(5_000))
SHRINKAGES = {"soft": SoftShrinkage(), "nonnegative": NonnegativeShrinkage()}


def small(shrinkage: Any = SHRINKAGES["soft"], pursuit: Any = LONG, penalty: float = 0.4) -> SparseCoder:
    """Five cells and three atoms, all of which lie near each other."""
    stream = np.random.default_rng(2)
    dictionary = stream.normal(size=(5, 3)) + np.arange(5.0)[:, None]
    return SparseCoder(jnp.asarray(dictionary), Fixed(jnp.zeros(5)), Fixed(jnp.asarray(penalty)), shrinkage, pursuit)


def targets(n: int = 8) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(n, 5)) * 3


def descended(dictionary: np.ndarray, x: np.ndarray, penalty: float, positive: bool) -> np.ndarray:
    """The same problem by scikit-learn, which divides the error by the number of cells."""
    found = Lasso(penalty / len(x), fit_intercept=False, positive=positive, tol=1e-15, max_iter=1_000_000)
    return found.fit(dictionary, x).coef_


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # it asks for less than rounding allows
@pytest.mark.parametrize("name", SHRINKAGES)
def test_codes_are_those_of_coordinate_descent(name):
    model, dictionary = small(SHRINKAGES[name]), np.asarray(small().dictionary)
    found = jax.jit(jax.vmap(lambda x: model.code(Row(x))))(jnp.asarray(targets()))
    truth = np.stack([descended(dictionary, x, 0.4, name == "nonnegative") for x in targets()])
    np.testing.assert_allclose(found, truth, atol=1e-8)
    assert 0 < (truth == 0).mean() < 1 and ((truth < 0).any() == (name == "soft"))
    np.testing.assert_array_equal(np.asarray(found) == 0, truth == 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_missing_cell_has_no_part_in_the_error():
    model, x = small(pursuit=FISTA(AfterSteps(20_000))), targets()[0]
    mask = np.array([True, False, True, True, False])
    truth = descended(np.asarray(model.dictionary)[mask], x[mask], 0.4, False)
    for filled in (0.0, 9.0):
        row = Row(jnp.where(mask, x, filled), jnp.asarray(mask))
        np.testing.assert_allclose(model.code(row), truth, atol=1e-8)
        slope = jax.grad(lambda m: LeastCost().loss(m, row)[0])(model).dictionary  # noqa: B023
        assert (np.asarray(slope)[~mask] == 0).all() and (np.asarray(slope)[mask] != 0).any()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SHRINKAGES)
def test_optimal_codes_satisfy_the_conditions(name):
    """Atoms in use pull with the penalty, others with less: an oracle that knows no algorithm."""
    model, x = small(SHRINKAGES[name]), jnp.asarray(targets()[1])
    problem = model.problem(Row(x))
    h = np.asarray(model.code(Row(x)))
    pull = -np.asarray(problem.slope(jnp.asarray(h)))
    np.testing.assert_allclose(pull[h != 0], 0.4 * np.sign(h[h != 0]), atol=1e-9)
    rest = pull[h == 0] if name == "nonnegative" else np.abs(pull[h == 0])
    assert (rest < 0.4).all() and abs(float(problem.gap(jnp.asarray(h)))) < 1e-9


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SHRINKAGES)
def test_the_gap_is_at_least_how_far_there_is_to_go(name):
    model, x = small(SHRINKAGES[name]), jnp.asarray(targets()[2])
    problem = model.problem(Row(x))
    least = float(problem.value(model.code(Row(x))))
    for h in np.abs(np.random.default_rng(0).normal(size=(20, 3))):
        left = float(problem.value(jnp.asarray(h))) - least
        assert float(problem.gap(jnp.asarray(h))) >= left > 1e-3


@pytest.mark.usefixtures("x64")
def test_the_gap_says_when_to_stop():
    """At the first look at which it is small enough: not before, and not much later."""
    x, tolerance = jnp.asarray(targets()[3]), 1e-4
    allowed = tolerance * 0.5 * float(jnp.sum(x**2))
    gap = lambda steps: float(  # noqa: E731
        small().problem(Row(x)).gap(small(pursuit=FISTA(AfterSteps(steps))).code(Row(x)))
    )
    first = next(steps for steps in range(10, 1000, 10) if gap(steps) <= allowed)
    assert first > 10
    stopped = small(pursuit=FISTA(GapBelow(tolerance))).code(Row(x))
    np.testing.assert_array_equal(stopped, small(pursuit=FISTA(AfterSteps(first))).code(Row(x)))
    short = small(pursuit=FISTA(GapBelow(1e-12, 7))).code(Row(x))
    np.testing.assert_array_equal(short, small(pursuit=FISTA(AfterSteps(7))).code(Row(x)))


@pytest.mark.usefixtures("x64")
def test_momentum_keeps_the_faster_bound_which_plain_shrinkage_breaks():
    """Beck & Teboulle 2009: L |h*|^2 / 2k without momentum, 2 L |h*|^2 / (k + 1)^2 with it, at every k.

    A row that an ill-conditioned dictionary makes of its weakest direction, for which plain steps need longest.
    """
    stream = np.random.default_rng(0)
    turn, _ = np.linalg.qr(stream.normal(size=(40, 40)))
    dictionary = jnp.asarray(turn * np.linspace(0.03, 1.0, 40) ** 2 @ np.linalg.qr(stream.normal(size=(40, 40)))[0])
    x = dictionary @ jnp.asarray(np.linalg.svd(dictionary)[2][-5:].sum(axis=0))
    model = SparseCoder(dictionary, Fixed(jnp.zeros(40)), Fixed(jnp.asarray(1e-6)))
    problem, steep = model.problem(Row(x)), largest_curvature(dictionary)

    def path(pursuit: Any) -> np.ndarray:
        def one(state: Any, _: None) -> tuple[Any, jax.Array]:
            state = pursuit.step(problem, state, steep)
            return state, problem.value(state[0])

        return np.asarray(jax.lax.scan(one, pursuit.start(jnp.zeros(40)), None, length=3000)[1])

    best = FISTA(AfterSteps(200_000))(problem, steep)
    least, size, k = float(problem.value(best)), float(steep * jnp.sum(best**2)), np.arange(1, 3001)
    assert float(problem.gap(best)) < 1e-10
    plain, fast = path(ISTA()) - least, path(FISTA()) - least
    assert (plain <= size / (2 * k)).all() and (fast <= 2 * size / (k + 1) ** 2).all()
    assert (plain > 2 * size / (k + 1) ** 2).any() and (np.diff(plain) <= 1e-12).all()


@pytest.mark.usefixtures("x64")
def test_the_curvature_is_the_largest_eigenvalue():
    for shape in ((5, 3), (3, 5)):
        dictionary = np.random.default_rng(1).normal(size=shape)
        truth = np.linalg.norm(dictionary, 2) ** 2
        assert truth < float(largest_curvature(jnp.asarray(dictionary))) < 1.001 * truth


# --- learning a dictionary


@pytest.mark.usefixtures("x64")
def test_the_slope_in_the_dictionary_is_that_of_the_least_cost():
    """Central differences of the cost at codes that are found anew."""
    model, batch = small(), Row(jnp.asarray(targets(3)))
    cost = jax.jit(lambda d: LeastCost()(dataclasses.replace(model, dictionary=d), batch, key=jr.key(0))[0])
    slope = np.asarray(jax.grad(cost)(model.dictionary))
    for i, j in np.ndindex(5, 3):
        step = np.zeros((5, 3))
        step[i, j] = 1e-5
        apart = float(cost(model.dictionary + step)) - float(cost(model.dictionary - step))
        np.testing.assert_allclose(slope[i, j], apart / 2e-5, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_the_closed_form_is_least_squares_and_keeps_atoms_that_are_not_needed():
    model, x = small(), targets()
    codes = np.random.default_rng(4).normal(size=(8, 3)) * [1, 1, 0]
    weight = np.array([1.0, 2.0, 0.0, 1.0, 1.0, 3.0, 1.0, 1.0])
    made = model.refitted(Row(jnp.asarray(x), weight=jnp.asarray(weight)), jnp.asarray(codes), 1e-12)
    root = np.sqrt(weight)[:, None]
    truth = np.linalg.lstsq(root * codes[:, :2], root * x, rcond=None)[0].T
    np.testing.assert_allclose(made.dictionary[:, :2], truth, atol=1e-8)
    np.testing.assert_allclose(made.dictionary[:, 2], model.dictionary[:, 2], atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("holes", [False, True])
def test_coding_and_refitting_in_turn_lowers_the_cost(holes):
    """With holes too, where the closed form is a bound: 20 times, at codes that are as good as they can be."""
    x = targets(40)
    mask = jnp.asarray(np.random.default_rng(0).uniform(size=x.shape) > 0.3) if holes else None
    batch = Row(jnp.asarray(x if mask is None else np.where(mask, x, 0.0)), mask)
    model, rule = small(pursuit=FISTA(GapBelow(1e-12, 20_000))), MOD(1e-9)
    step = jax.jit(lambda model: rule.step(model, None, batch, key=jr.key(0), step=jnp.array(0)))
    costs = []
    for _ in range(20):
        model, _, metrics = step(model)
        costs.append(float(metrics["loss"]))
    assert (np.diff(costs) < 1e-9).all() and costs[-1] < 0.9 * costs[0]


def synthetic(rows: int = 1500, cells: int = 20, atoms: int = 30, active: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are sums of three of thirty atoms, and a little noise; the atoms."""
    stream = np.random.default_rng(0)
    truth = stream.normal(size=(cells, atoms))
    truth /= np.linalg.norm(truth, axis=0)
    codes = np.zeros((rows, atoms))
    for code in codes:
        code[stream.choice(atoms, active, replace=False)] = stream.choice([-1, 1], active) * stream.uniform(
            1, 2, active
        )
    return codes @ truth.T + 0.01 * stream.normal(size=(rows, cells)), truth


def recovered(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of atoms that were found, each by another one, at a cosine of 0.99: whatever their order and sign."""
    cosines = np.abs((found / np.linalg.norm(found, axis=0)).T @ truth)
    one, other = linear_sum_assignment(-cosines)
    return float(np.mean(cosines[one, other] > 0.99))


LEARNING = {
    "gradient": (Descend(LeastCost(), Optimiser(optax.adam, (Linear(5e-2, 0.0, 800.0),)), on=ATOMS), 800, 100),
    "closed form": (MOD(), 80, None),
}


@pytest.mark.parametrize("name", some(LEARNING))
def test_a_dictionary_is_found_again(name):
    """At least 90 % of thirty atoms; of a random dictionary none. A larger penalty turns the atoms a little."""
    x, truth = synthetic()
    rule, steps, batch = LEARNING[name]
    start = random_dictionary(20, 30, key=jr.key(0))
    pursuit = FISTA(GapBelow(1e-3, 200))
    model = SparseCoder(start, Fixed(jnp.zeros(20)), Fixed(jnp.asarray(0.1)), SoftShrinkage(), pursuit)
    stage = Stage(Projected(rule, NormClip(1.0, ATOMS)), steps, batch, prepare=FromRows())
    *_, last = train(model, [stage], ArraySource(Row(jnp.asarray(x, jnp.float32))), key=jr.key(1))
    found = np.asarray(last.state.model.dictionary, float)
    assert recovered(np.asarray(start, float), truth) == 0
    assert np.linalg.norm(found, axis=0).max() <= 1 + 1e-5
    assert recovered(found, truth) >= 0.9


@pytest.mark.usefixtures("x64")
def test_a_dictionary_begins_with_rows():
    x = targets(6)
    model = SparseCoder(jnp.ones((5, 4)), Fixed(jnp.full(5, 0.5)), Fixed(jnp.asarray(0.1)))
    made = FromRows()(model, ArraySource(Row(jnp.asarray(x))), key=jr.key(0)).dictionary
    np.testing.assert_allclose(np.linalg.norm(made, axis=0), 1, rtol=1e-12)
    rows = (x - 0.5) / np.linalg.norm(x - 0.5, axis=1, keepdims=True)
    cosines = rows @ np.asarray(made)
    assert (cosines.max(axis=0) > 0.999).all() and len(set(cosines.argmax(axis=0).tolist())) == 4
    assert not np.allclose(cosines.max(axis=0), 1, atol=1e-9)


def test_a_recipe_learns_its_dictionary_as_it_is_asked():
    X = np.random.default_rng(0).laplace(size=(30, 3))
    adam = Descend(LeastCost(), Optimiser(optax.adam, (1e-2,)), on=Part("dictionary"))
    fitted = [SparseCoding(atoms=4, steps=3, learning=rule, random_state=0).fit(X) for rule in (None, adam, MOD())]
    plain, same, closed = (np.asarray(model.model_.dictionary) for model in fitted)
    assert np.array_equal(plain, same)
    assert np.abs(plain - closed).max() > 1e-2
