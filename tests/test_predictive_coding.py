"""Predictive coding: closed forms of linear nets, back-propagation, local learning, and what settles where."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import NOISE, B, W, X, affine, dense, some

from ravine._check import Complaint
from ravine._tree import Fixed, trainable
from ravine.core import Row
from ravine.evidence import drawn_completion, expected_completion
from ravine.models.errors import (
    BitErrors,
    ClassErrors,
    CorrelatedErrors,
    LearnedErrors,
    UnitErrors,
    WeightedErrors,
)
from ravine.models.predictive_coding import PredictiveGenerator, PredictiveNet, UpwardGuess, linear_energy
from ravine.nets import MLP, perceptrons, potentials, relu, sigmoid, tanh
from ravine.objectives import Energy
from ravine.posteriors import Point
from ravine.recognisers import FixedPredictions, GradientSettling, IncrementalSettling
from ravine.rules import Incremental, Optimiser, gradient_descent

LOWEST = 0.32014492753623186  # of the golden net, by its closed form
FIRST = np.array([[0.5, -0.2], [0.1, 0.3], [0.4, 0.0]])
SECOND = np.array([[0.3, -0.5, 0.2]])
ENDS = np.array([1.0, 2.0]), np.array([0.7])


class Linear(eqx.Module):
    """``weight z``."""

    weight: jax.Array

    def __call__(self, z):
        return self.weight @ z


class FromRow(eqx.Module):
    """The cells of a row."""

    def __call__(self, row):
        return row.x


def linear_net(weights, settling) -> PredictiveNet:
    """A net of linear maps between real cells; the label is one of two, or one number."""
    links = tuple(Linear(jnp.asarray(w)) for w in weights)
    return PredictiveNet(FromRow(), links, (UnitErrors(),) * len(links), settling)


def settled_energy(weights, x, y, steps, rate=0.1) -> float:
    """F after so many steps with both ends held, the far one at any numbers."""
    top, *links = (Linear(jnp.asarray(w)) for w in weights)
    first = Fixed(top(jnp.asarray(x)))
    model = PredictiveGenerator(first, tuple(links), (UnitErrors(),) * len(weights), GradientSettling(steps, rate))
    row = Row(jnp.asarray(y))
    return float(model.held(row).energy(model.posterior(row).latent))


# --- linear nets


@pytest.mark.usefixtures("x64")
def test_a_linear_net_settles_at_the_golden_energy():
    exact = linear_energy((jnp.asarray(FIRST), jnp.asarray(SECOND)), *map(jnp.asarray, ENDS))
    assert abs(float(exact) - LOWEST) < 1e-14
    path = [settled_energy((FIRST, SECOND), *ENDS, steps) for steps in (0, 1, 5, 20, 100, 400)]
    assert all(before > after for before, after in zip(path[:4], path[1:5], strict=True))
    assert path[0] - LOWEST > 1e-2
    assert abs(path[-1] - LOWEST) < 1e-12


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("widths", [(2, 1), (3, 4, 2), (2, 3, 4, 2), (3, 2, 2, 4, 3)])
def test_the_closed_form_is_the_least_energy_of_any_linear_net(widths):
    """Against the least squares of all errors at once; and settling ends there."""
    stream = np.random.default_rng(len(widths))
    weights = [0.6 * stream.normal(size=shape) for shape in zip(widths[1:], widths[:-1], strict=True)]
    x, y = stream.normal(size=widths[0]), stream.normal(size=widths[-1])
    ends = np.cumsum((0, *widths[1:-1]))
    system, goal = [], []
    for i, weight in enumerate(weights):  # e_l = A_l z - b_l in all hidden cells z at once
        block = np.zeros((weight.shape[0], ends[-1]))
        if i + 1 < len(weights):
            block[:, ends[i] : ends[i + 1]] = np.eye(weight.shape[0])
        if i:
            block[:, ends[i - 1] : ends[i]] = -weight
        system.append(block)
        begun, ended = i == 0, i + 1 == len(weights)
        goal.append((weight @ x if begun else np.zeros(len(weight))) - (y if ended else 0))
    system, goal = np.concatenate(system), np.concatenate(goal)
    left = system @ np.linalg.lstsq(system, goal, rcond=None)[0] - goal
    exact = float(linear_energy(tuple(map(jnp.asarray, weights)), jnp.asarray(x), jnp.asarray(y)))
    assert abs(exact - 0.5 * left @ left) < 1e-12
    assert abs(settled_energy(weights, x, y, 2_000) - exact) < 1e-8


# --- learning


def batch_of(cells: int, classes: int, rows: int = 7) -> Row:
    stream = np.random.default_rng(cells)
    return Row(
        jnp.asarray(stream.normal(size=(rows, cells))),
        y=jnp.asarray(stream.integers(0, classes, rows), jnp.int32),
        y_mask=jnp.ones(rows, bool),
    )


def slope(objective, model, batch):
    parameters, rest = trainable(model)
    return jax.grad(lambda p: objective(eqx.combine(p, rest), batch, key=jr.key(0))[0])(parameters)


def plain(kind: str):
    """The loss of the forward pass, as one writes it."""

    def loss(model, batch, *, key):
        def one(row):
            out, label = model.logits(row), jax.nn.one_hot(row.y, model.logits(row).size, dtype=row.x.dtype)
            return -label @ jax.nn.log_softmax(out) if kind == "classes" else 0.5 * jnp.sum((label - out) ** 2)

        return jnp.mean(jax.vmap(one)(batch)), {}

    return loss


def furthest(one, other) -> float:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(jnp.max(jnp.abs(a - b))) for a, b in pairs)


NETS = {
    "no hidden layer": lambda key: perceptrons((4, 3), tanh, key=key),
    "one, tanh": lambda key: perceptrons((4, 5, 3), tanh, key=key),
    "two, relu": lambda key: perceptrons((4, 6, 5, 3), relu, key=key),
    "two, of potentials": lambda key: potentials((4, 6, 5, 3), sigmoid, key=key),
    "five, tanh": lambda key: perceptrons((4, 3, 4, 3, 4, 3, 2), tanh, key=key),
    "nets as links": lambda key: tuple(
        MLP(a, b, (4,), key=k) for a, b, k in zip((4, 3, 2), (3, 2, 3), jr.split(key, 3), strict=True)
    ),
}


def net(name: str, settling, kind: str = "classes", hidden=UnitErrors, seed: int = 3) -> PredictiveNet:
    links = NETS[name](jr.key(seed))
    last = ClassErrors() if kind == "classes" else UnitErrors()
    return PredictiveNet(FromRow(), links, (*(hidden() for _ in links[1:]), last), settling)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["classes", "squares"])
@pytest.mark.parametrize("name", some(NETS, "one, tanh", "two, of potentials", "nets as links"))
def test_with_fixed_predictions_learning_is_back_propagation(name, kind):
    depth = len(NETS[name](jr.key(0))) - 1
    model = net(name, FixedPredictions(depth), kind)
    batch = batch_of(4, int(model.logits(Row(jnp.zeros(4))).size))
    want = slope(plain(kind), model, batch)
    assert furthest(slope(Energy(), model, batch), want) < 1e-10
    if depth > 1:  # the lowest layer has not heard of the error
        early = dataclasses.replace(model, settling=FixedPredictions(depth - 1))
        assert furthest(slope(Energy(), early, batch), want) > 1e-4


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("settling", [FixedPredictions(2), FixedPredictions(300, 0.2)], ids=["at once", "slowly"])
def test_precisions_of_hidden_layers_leave_back_propagation_as_it_is(settling):
    model = net("two, relu", settling, hidden=lambda: WeightedErrors(7.0))
    batch = batch_of(4, 3)
    assert furthest(slope(Energy(), model, batch), slope(plain("classes"), model, batch)) < 1e-10


@pytest.mark.usefixtures("x64")
def test_learning_is_local():
    """dW = Pi e f'(.) z' at the settled point, for each layer, by the formula of one row."""
    links = perceptrons((4, 3, 2), tanh, key=jr.key(1))
    model = PredictiveNet(FromRow(), links, (WeightedErrors(2.0), WeightedErrors(0.5)), GradientSettling(7, 0.1))
    row = Row(jnp.asarray([0.3, -1.0, 0.8, 0.1]), y=jnp.asarray(1))
    got = slope(lambda m, r, *, key: Energy().loss(m, r), model, row).links
    (first, second), x = ((np.asarray(k.layer.weight), np.asarray(k.layer.bias)) for k in links), np.asarray(row.x)
    z, y = np.tanh(first[0] @ x + first[1]), np.array([0.0, 1.0])
    below = z.copy()
    for _ in range(7):
        e, above = 2 * (z - below), 0.5 * (y - second[0] @ z - second[1])
        z = z + 0.1 * (-e + second[0].T @ above)
    e, above = 2 * (z - below), 0.5 * (y - second[0] @ z - second[1])
    assert np.allclose(model.posterior(row).latent[0], z, atol=1e-13)
    assert np.allclose(-got[1].layer.weight, np.outer(above, z), atol=1e-12)
    assert np.allclose(-got[0].layer.weight, np.outer(e * (1 - below**2), x), atol=1e-12)
    assert np.allclose(-got[0].layer.bias, e * (1 - below**2), atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_learned_precision_follows_its_own_slope():
    """dF / d log Pi = (Pi e^2 - 1) / 2."""
    links, logs = perceptrons((4, 3, 2), tanh, key=jr.key(1)), jnp.asarray([0.2, -0.4, 0.1])
    model = PredictiveNet(FromRow(), links, (LearnedErrors(logs), ClassErrors()), GradientSettling(5, 0.1))
    row = Row(jnp.ones(4), y=jnp.asarray(0))
    e = model.posterior(row).latent[0] - links[0](row.x)
    got = slope(lambda m, r, *, key: Energy().loss(m, r), model, row).errors[0].logs
    assert np.allclose(got, 0.5 * (jnp.exp(logs) * e**2 - 1), atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_without_a_label_the_forward_pass_is_at_rest():
    model = net("two, relu", GradientSettling(10, 0.1))
    row = Row(jnp.linspace(-1, 1, 4), y=jnp.asarray(0), y_mask=jnp.asarray(False))
    begun, ended = model.held(row).start, model.posterior(row).latent
    assert all(np.array_equal(a, b) for a, b in zip(begun, ended, strict=True))
    assert np.allclose(model.features(row), ended[-1], atol=0)
    got = slope(lambda m, r, *, key: Energy().loss(m, r), model, row)
    assert all(not jnp.any(leaf) for leaf in jax.tree.leaves(got))
    told = dataclasses.replace(row, y_mask=jnp.asarray(True))
    assert float(jnp.max(jnp.abs(model.posterior(told).latent[0] - begun[0]))) > 1e-3


@pytest.mark.usefixtures("x64")
def test_decay_is_half_the_sum_of_squared_matrices():
    model, batch = net("one, tanh", FixedPredictions(1)), batch_of(4, 3)
    more = furthest(slope(Energy(0.1), model, batch), slope(Energy(), model, batch))
    values = [float(Energy(d)(model, batch, key=jr.key(0))[0]) for d in (0.0, 0.1)]
    matrices = [np.asarray(link.layer.weight) for link in model.links]
    assert np.isclose(values[1] - values[0], 0.05 * sum(np.sum(m**2) for m in matrices), atol=1e-12)
    assert np.isclose(more, 0.1 * max(np.abs(m).max() for m in matrices), atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_guess_learns_to_be_where_the_layers_settle():
    """Its gradient is that of a squared distance alone, and the links learn what they would learn without it."""
    links, errors = perceptrons((2, 3, 4), tanh, key=jr.key(0)), (UnitErrors(), UnitErrors(), BitErrors())
    guess = UpwardGuess(FromRow(), perceptrons((4, 3, 2), tanh, key=jr.key(1)))
    model = PredictiveGenerator(jnp.asarray([0.1, -0.2]), links, errors, GradientSettling(4, 0.1), guess)
    row = Row(jnp.asarray([1.0, 0.0, 1.0, 1.0]))
    got = slope(lambda m, r, *, key: Energy().loss(m, r), model, row)
    z = model.posterior(row).latent
    apart = lambda g: 0.5 * sum(jnp.sum((a - b) ** 2) for a, b in zip(g(row), z, strict=True))  # noqa: E731
    parameters, rest = trainable(guess)
    assert furthest(got.guess, jax.grad(lambda p: apart(eqx.combine(p, rest)))(parameters)) < 1e-14
    parameters, rest = trainable(links)
    cost = lambda p: dataclasses.replace(model, links=eqx.combine(p, rest)).held(row).energy(z)  # noqa: E731
    assert furthest(got.links, jax.grad(cost)(parameters)) < 1e-14
    assert model.held(row).start[0].shape == (2,)
    assert np.array_equal(model.held(row).start[0], guess(row)[0])


@pytest.mark.usefixtures("x64")
def test_weights_and_latents_move_together():
    """Three steps of plain descent in both, at the same states, by hand; a row of weight 0 does not count."""
    model, batch = net("one, tanh", IncrementalSettling(3, 0.2)), batch_of(4, 3)
    batch = dataclasses.replace(batch, weight=jnp.asarray([1.0, 2.0, 0.0, 1.0, 1.0, 0.5, 1.0]))
    rule = Incremental(3, 0.2, gradient_descent(0.05))
    state, luck = rule.init(model, batch, key=jr.key(0)), {"key": jr.key(0), "step": jnp.array(0)}
    after, _, metrics = rule.step(model, state, batch, **luck)
    share = batch.weight / jnp.sum(batch.weight)
    parameters, rest = trainable(model)
    z = jax.vmap(lambda row: model.held(row).start)(batch)

    def energies(p, z):
        return jax.vmap(lambda row, z: eqx.combine(p, rest).held(row).energy(z))(batch, z)

    for _ in range(3):
        last = float(share @ energies(parameters, z))
        g = jax.grad(lambda p, z=z: share @ energies(p, z))(parameters)
        pull = jax.grad(lambda z, p=parameters: jnp.sum(energies(p, z)))(z)
        parameters = jax.tree.map(lambda w, d: w - 0.05 * d, parameters, g)
        z = jax.tree.map(lambda w, d: w - 0.2 * d, z, pull)
    assert furthest(trainable(after)[0], parameters) < 1e-13
    assert np.isclose(float(metrics["energy"]), last, atol=1e-13)
    empty = dataclasses.replace(batch, weight=jnp.zeros(7))
    still = rule.step(model, state, empty, **luck)[0]
    assert furthest(trainable(still)[0], trainable(model)[0]) == 0


def test_incremental_learning_lowers_the_energy():
    model, batch = net("two, relu", IncrementalSettling()), batch_of(4, 3)
    batch = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf, batch)
    rule, found = Incremental(10, 0.1, Optimiser(optax.adam, (1e-2,))), []
    state = rule.init(model, batch, key=jr.key(0))
    for i in range(8):
        model, state, metrics = rule.step(model, state, batch, key=jr.key(i), step=jnp.array(i))
        found.append(float(metrics["energy"]))
    assert found[-1] < 0.5 * found[0]


# --- errors


def root(n: int = 3) -> jnp.ndarray:
    return jnp.asarray(np.eye(n) + 0.3 * np.random.default_rng(1).normal(size=(n, n)))


ERRORS = {
    "unit": UnitErrors,
    "fixed": lambda: WeightedErrors(jnp.asarray([0.5, 2.0, 3.0])),
    "one for all": lambda: WeightedErrors(2.5),
    "learned": lambda: LearnedErrors(jnp.asarray([0.3, -0.5, 0.1])),
    "correlated": lambda: CorrelatedErrors(root()),
    "bits": BitErrors,
    "classes": ClassErrors,
}
REAL = ["unit", "fixed", "one for all", "learned", "correlated"]
PLACE = np.array([0.4, -1.1, 0.6])


def value_of(name: str) -> jnp.ndarray:
    return jnp.asarray({"bits": [1.0, 0.0, 1.0], "classes": [0.0, 1.0, 0.0]}.get(name, [0.9, -0.3, 1.7]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ERRORS)
def test_an_energy_is_minus_a_log_density(name):
    errors, value, at = ERRORS[name](), value_of(name), jnp.asarray(PLACE)
    constant = 1.5 * np.log(2 * np.pi) if name in REAL else 0.0
    assert np.isclose(errors(value, at), -errors.law(at).log_prob(value) - constant, atol=1e-12)
    mask = jnp.asarray([True, False, True])
    cells = jnp.asarray(np.where(mask, value, np.nan)) if name != "classes" else value
    constant = np.log(2 * np.pi) if name in REAL else 0.0
    assert np.isclose(errors(cells, at, mask), -errors.law(at).log_prob(value, mask) - constant, atol=1e-12)
    assert np.isfinite(jax.grad(lambda p: errors(cells, p, mask))(at)).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ERRORS)
def test_the_curvature_is_the_second_derivative(name):
    errors, value, at = ERRORS[name](), value_of(name), jnp.asarray(PLACE)
    for mask in (None, jnp.asarray([True, False, True])):
        if mask is not None and name == "correlated":
            with pytest.raises(ValueError, match="expected complete cells"):
                errors.curved(jnp.eye(3), at, mask)
            continue
        want = jax.hessian(lambda p, mask=mask: errors(value, p, mask))(at)
        assert np.allclose(errors.curved(jnp.eye(3), at, mask), want, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", REAL)
def test_weighing_is_the_slope_and_moving_undoes_it(name):
    errors, e = ERRORS[name](), jnp.asarray(PLACE)
    assert np.allclose(errors.weighted(e), jax.grad(lambda v: errors(v, jnp.zeros(3)))(e), atol=1e-12)
    assert np.allclose(errors.moved(errors.weighted(e)), e, atol=1e-12)


# --- generators


def generator(settling=None, guess=None) -> PredictiveGenerator:
    """Layers of 2 and 3 cells above 4 bits."""
    links = perceptrons((2, 3, 4), tanh, key=jr.key(0))
    errors = (UnitErrors(), WeightedErrors(2.0), BitErrors())
    return PredictiveGenerator(Fixed(jnp.asarray([0.1, -0.2])), links, errors, settling or GradientSettling(9), guess)


def linear_model(settling=None) -> PredictiveGenerator:
    """The linear-Gaussian model whose every number is known."""
    link = eqx.tree_at(lambda a: (a.weight, a.bias), affine(2, 3, 0), (jnp.asarray(W), jnp.asarray(B)))
    errors = (UnitErrors(), WeightedErrors(1 / NOISE))
    return PredictiveGenerator(Fixed(jnp.zeros(2)), (link,), errors, settling or GradientSettling(500, 0.05))


@pytest.mark.usefixtures("x64")
def test_the_energy_is_minus_the_log_joint_of_the_generator():
    model, z = generator(), (jnp.asarray([0.3, 1.0]), jnp.asarray([-0.5, 0.2, 0.7]))
    for mask in (None, jnp.asarray([True, False, True, True])):
        row = Row(jnp.asarray([1.0, 0.0, 0.0, 1.0]), mask)
        constant = 2.5 * np.log(2 * np.pi)
        assert np.isclose(model.held(row).energy(z) + model.log_joint(z, row), -constant, atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_curvature_of_all_layers():
    """The second derivative where links are affine; elsewhere without the derivatives of links, and positive."""
    model, row = linear_model(), Row(jnp.asarray(X), jnp.asarray([True, False, True]))
    z = (jnp.asarray([0.3, -0.2]),)
    hessian = jax.hessian(lambda z: model.held(row).energy((z,)))(z[0])
    assert np.allclose(model.curvature(z, row), hessian, atol=1e-12)
    model, row = generator(), Row(jnp.asarray([1.0, 0.0, 0.0, 1.0]), jnp.asarray([True, True, False, True]))
    z = (jnp.asarray([0.3, 1.0]), jnp.asarray([-0.5, 0.2, 0.7]))
    held = model.held(row)

    def residual(v):
        inner, lowest = jnp.sqrt(2.0) * (v[2:] - model.links[0](v[:2])), _rooted(held, z) * model.links[1](v[2:])
        return jnp.concatenate([v[:2], inner, lowest])

    slopes = jax.jacfwd(residual)(jnp.concatenate(z))
    assert np.allclose(model.curvature(z, row), slopes.T @ slopes, atol=1e-12)
    assert np.linalg.eigvalsh(model.curvature(z, row)).min() > 0


def _rooted(held, z) -> jnp.ndarray:
    share = jax.nn.sigmoid(held.predictions(z)[-1])
    return jnp.sqrt(jnp.where(held.mask, share * (1 - share), 0))


@pytest.mark.usefixtures("x64")
def test_layers_that_are_not_given_are_where_they_are_predicted():
    model, top = generator(), jnp.asarray([0.3, 1.0])
    below = model.links[0](top)
    assert np.allclose(model.likelihood(top).mean(), model.likelihood((top, below)).mean(), atol=0)
    assert not np.allclose(model.likelihood(top).mean(), model.likelihood((top, below + 1)).mean())
    z, x = model.sample(key=jr.key(0))
    assert [layer.shape for layer in z] == [(2,), (3,)]
    assert x.shape == (4,)


@pytest.mark.usefixtures("x64")
def test_a_linear_model_completes_patterns_exactly():
    """Where the layers settle with some cells held, the others are at their conditional mean; held ones do not move."""
    mask = np.array([True, False, True])
    row = Row(jnp.asarray(np.where(mask, X, 0)), jnp.asarray(mask))
    mean = dense(mask)[0]
    made = expected_completion(linear_model(), row, 10, key=jr.key(0))
    assert np.allclose(np.asarray(made)[~mask], mean, atol=1e-8)
    assert np.array_equal(np.asarray(made)[mask], X[mask])
    one = drawn_completion(linear_model(), row, 10, key=jr.key(1))
    assert np.array_equal(np.asarray(one)[mask], X[mask])
    assert np.asarray(one)[~mask] != np.asarray(made)[~mask]


def test_a_point_has_no_density():
    point = Point((jnp.ones(2),), (jnp.ones(2),))
    assert point.nodes() == ()
    with pytest.raises(TypeError, match="no density"):
        point.log_prob((jnp.ones(2),))
    with pytest.raises(TypeError, match="AroundSettled"):
        point.sample(key=jr.key(0))


def test_what_does_not_settle_is_refused():
    row = Row(jnp.ones(4))
    with pytest.raises(Complaint, match="GradientSettling: expected a model of layers that settle"):
        GradientSettling()(Linear(jnp.eye(4)), row)
    with pytest.raises(Complaint, match="errors of each of 2 predicted layers, got 1"):
        PredictiveNet(FromRow(), (jnp.tanh, jnp.tanh), (UnitErrors(),), GradientSettling())


def test_settling_compares_by_value_and_is_traced_once():
    """Two nets of equal settling are one program."""
    traces = []

    @eqx.filter_jit
    def point(model, row):
        traces.append(1)
        return model.posterior(row).mean()

    for seed in range(2):
        made = net("one, tanh", GradientSettling(3, 0.1), seed=seed)
        point(made, Row(jnp.ones(4), y=jnp.asarray(0)))
    assert len(traces) == 1
