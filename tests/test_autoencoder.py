"""Autoencoders: losses written out, corruption, closed forms, greedy stacks, the network they become, the recipes."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import LIMIT

from ravine._tree import Fixed, Layer, Linear, Part
from ravine.core import Row
from ravine.data import ArraySource
from ravine.dist import Gaussian
from ravine.models.autoencoder import (
    AffineReading,
    Autoencoder,
    LogisticReading,
    SeparateBack,
    StackedAutoencoder,
    Tie,
    TiedBack,
    ToClassifier,
    autoencoder_stack,
)
from ravine.models.energy_net import EnergyNet
from ravine.objectives import (
    Contractive,
    Denoising,
    DenoisingScoreMatching,
    Discriminative,
    Emphasis,
    FromSpoilt,
    GaussianNoise,
    Masking,
    NLLLoss,
    OfLayer,
    Reconstruction,
    SaltAndPepper,
)
from ravine.rules import Descend, Optimiser, gradient_descent
from ravine.train import Stage, train

N = 20_000
KINDS = {"grey": LogisticReading(), "real": AffineReading()}
CORRUPTIONS = {"masking": Masking, "salt": SaltAndPepper, "noise": GaussianNoise}


def layer(lower: Any = None, upper: Any = None, tie: Tie = "separate", cells: int = 5, units: int = 3) -> Autoencoder:
    """A layer with random weights."""
    stream = np.random.default_rng(3)
    number = lambda *shape: jnp.asarray(stream.normal(size=shape))  # noqa: E731
    weight, bias, away, down = number(cells, units), number(units), number(units, cells), number(cells)
    back = TiedBack(down) if tie == "transposed" else SeparateBack(away, down)
    return Autoencoder(lower or LogisticReading(), upper or LogisticReading(), weight, bias, back)


def identity(cells: int = 4) -> Autoencoder:
    """Cells go through as they are."""
    eye, zero = jnp.eye(cells), jnp.zeros(cells)
    return Autoencoder(AffineReading(), AffineReading(), eye, zero, SeparateBack(eye, zero))


def rows(n: int = 6, cells: int = 5, real: bool = False) -> Row:
    stream = np.random.default_rng(1)
    return Row(jnp.asarray(stream.normal(size=(n, cells)) if real else stream.uniform(size=(n, cells))))


# --- losses


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("tie", ["transposed", "separate"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_what_numpy_writes_out(kind, tie):
    made, x = layer(KINDS[kind], tie=tie), rows().x
    squash = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    back = np.asarray(made.weight).T if tie == "transposed" else np.asarray(made.back.weight)
    h = squash(np.asarray(x) @ np.asarray(made.weight) + np.asarray(made.bias))
    a = h @ back + np.asarray(made.back.bias)
    if kind == "grey":
        p = squash(a)
        costs = -(x * np.log(p) + (1 - x) * np.log(1 - p))
    else:
        costs = 0.5 * (x - a) ** 2
    found, metrics = Reconstruction()(made, Row(x), key=jr.key(0))
    np.testing.assert_allclose(found, np.asarray(costs).sum(axis=1).mean(), rtol=1e-12)
    assert metrics == {}
    np.testing.assert_allclose(jax.vmap(made.reconstructed)(x), squash(a) if kind == "grey" else a, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_the_slope_of_a_tied_layer_is_the_sum_of_both_ways():
    """Not twice that of one way: a tied layer's gradient is that of an untied one, its two parts added."""
    one = layer(tie="transposed")
    two = dataclasses.replace(one, back=SeparateBack(one.weight.T, one.back.bias))
    slope = lambda m: eqx.filter_grad(lambda m: Reconstruction()(m, rows(), key=jr.key(0))[0])(m)  # noqa: E731
    tied, apart = slope(one), slope(two)
    np.testing.assert_allclose(tied.weight, apart.weight + apart.back.weight.T, rtol=1e-12)
    assert len(jax.tree.leaves(one)) == len(jax.tree.leaves(two)) - 1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", KINDS)
def test_readings_are_derivatives_of_each_other(kind):
    reading, a = KINDS[kind], jnp.linspace(-3.0, 3.0, 7)
    x = jnp.full(7, 0.3)
    slopes = jax.vmap(jax.grad(lambda a, x: reading.losses(a[None], x[None])[0]))(a, x)
    np.testing.assert_allclose(slopes, reading.mean(a) - x, atol=1e-12)
    turns = jax.vmap(jax.grad(lambda a: reading.mean(a[None])[0]))(a)
    np.testing.assert_allclose(reading.slope(a), turns, atol=1e-12)
    rates = jnp.array([0.2, 0.5, 0.9])
    np.testing.assert_allclose(reading.mean(reading.start(rates)), rates, atol=1e-12)


class Quadratic(eqx.Module):
    """x' A x / 2."""

    a: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return 0.5 * x @ self.a @ x


# --- corruption


@pytest.mark.usefixtures("x64")
def test_what_is_wanted_is_the_clean_row():
    """Everything masked, and weights that change nothing: the loss is that of the row against nothing but zeros."""
    x = rows(cells=4, real=True).x
    found, _ = Denoising(Masking(1.0))(identity(), Row(x), key=jr.key(0))
    np.testing.assert_allclose(found, 0.5 * np.mean(np.sum(np.asarray(x) ** 2, axis=1)), rtol=1e-14)
    assert Reconstruction()(identity(), Row(x), key=jr.key(0))[0] == 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_without_corruption_it_is_the_autoencoder_to_the_bit(name, kind):
    made, batch = layer(KINDS[kind]), rows()
    ask = lambda objective: jax.jit(  # noqa: E731
        lambda m: jax.value_and_grad(lambda m: objective(m, batch, key=jr.key(0))[0])(m)
    )(made)
    for one, other in zip(*map(jax.tree.leaves, map(ask, (Denoising(CORRUPTIONS[name](0.0)), Reconstruction()))),
                          strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("nu", [0.1, 0.4])
@pytest.mark.parametrize("name", ["masking", "salt"])
def test_so_many_cells_are_spoilt(name, nu):
    """Of 20,000 cells within 4.5 standard errors; another seed would fail a correct share once in 150,000 times."""
    x = jnp.full(N, 0.5)
    seen, hit = CORRUPTIONS[name](nu)(x, key=jr.key(5))
    assert abs(np.mean(hit) - nu) < LIMIT * np.sqrt(nu * (1 - nu) / N)
    np.testing.assert_array_equal(seen[~hit], x[~hit])
    if name == "masking":
        assert (np.asarray(seen[hit]) == 0).all()
    else:
        high = np.asarray(seen[hit])
        assert set(high.tolist()) == {0.0, 1.0} and abs(high.mean() - 0.5) < LIMIT * 0.5 / np.sqrt(len(high))
    other, _ = CORRUPTIONS[name](nu)(x, key=jr.key(6))
    assert (np.asarray(other) != np.asarray(seen)).any()


def test_noise_has_its_deviation():
    """The mean square of 20,000 draws within 4.5 standard errors of its truth."""
    seen, hit = GaussianNoise(0.3)(jnp.ones(N), key=jr.key(5))
    square = (np.asarray(seen, float) - 1) ** 2
    assert np.asarray(hit).all() and abs(square.mean() / 0.09 - 1) < LIMIT * np.sqrt(2 / N)
    assert abs(np.mean(np.asarray(seen, float)) - 1) < LIMIT * 0.3 / np.sqrt(N)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["masking", "salt"])
def test_emphasis_parts_the_loss(name):
    """The loss of the spoilt cells and that of the others add up to the whole, and each counts as it is told to."""
    made, row, key = layer(), Row(rows().x[0]), jr.key(2)
    corruption = CORRUPTIONS[name](0.5)
    part = lambda *weights: float(Denoising(corruption, Emphasis(*weights)).loss(made, row, key=key))  # noqa: E731
    seen, hit = corruption(row.x, key=key)
    costs = np.asarray(made.losses(seen, row.x))
    assert 0 < np.sum(hit) < 5
    np.testing.assert_allclose(part(1.0, 0.0), costs[np.asarray(hit)].sum(), rtol=1e-12)
    np.testing.assert_allclose(part(0.0, 1.0), costs[~np.asarray(hit)].sum(), rtol=1e-12)
    np.testing.assert_allclose(part(2.0, 0.3), 2 * part(1.0, 0.0) + 0.3 * part(0.0, 1.0), rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("objective", [Reconstruction(), Denoising(SaltAndPepper(0.5)), Contractive(0.3)])
def test_a_missing_cell_costs_nothing_and_tells_nothing(objective):
    made, row = layer(), Row(rows().x[0].at[1].set(0.0), jnp.array([True, False, True, True, True]))
    ask = lambda made: objective.loss(made, row, **{"key": jr.key(0)} if isinstance(objective, Denoising) else {})  # noqa: E731
    one = lambda made: ask(made)[0] if isinstance(objective, Contractive) else ask(made)  # noqa: E731
    slope = jax.grad(one)(made)
    assert float(slope.back.bias[1]) == 0 and (np.asarray(slope.back.weight[:, 1]) == 0).all()
    assert (np.asarray(slope.back.bias)[[0, 2, 3, 4]] != 0).all()
    if not isinstance(objective, Contractive):
        assert (np.asarray(slope.weight[1]) == 0).all()


# --- closed forms


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", KINDS)
def test_the_contraction_is_the_squared_norm_of_the_jacobian(kind):
    made, x = layer(upper=KINDS[kind]), rows().x[0]
    truth = jnp.sum(jax.jacfwd(made.code)(x) ** 2)
    np.testing.assert_allclose(made.contraction(x), truth, rtol=1e-12)
    if kind == "grey":
        h = np.asarray(made.code(x))
        np.testing.assert_allclose(truth, np.sum((h * (1 - h)) ** 2 * np.sum(np.asarray(made.weight) ** 2, axis=0)))
    loss, told = Contractive(0.7).loss(made, Row(x))
    np.testing.assert_allclose(loss, Reconstruction().loss(made, Row(x)) + 0.7 * truth, rtol=1e-12)
    np.testing.assert_allclose(told["contraction"], truth, rtol=1e-12)


S = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])  # covariance of cells
NOISE = 0.8  # deviation


def wiener() -> np.ndarray:
    """W* = S (S + N)^-1."""
    return S @ np.linalg.inv(S + NOISE**2 * np.eye(3))


def gaussian_rows(n: int, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).multivariate_normal(np.zeros(3), S, size=n))


def linear(weight: Any) -> Autoencoder:
    """A linear layer whose way there changes nothing: x W."""
    return dataclasses.replace(identity(3), back=SeparateBack(jnp.asarray(weight), jnp.zeros(3)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("weight", [wiener().T, np.eye(3), np.diag([0.3, -1.0, 2.0])], ids=["best", "one", "other"])
def test_the_loss_of_a_linear_denoiser(weight):
    """1/2 tr((W - I) S (W - I)' + W N W') and its slope, of 20,000 rows, ten numbers within 4.5 standard errors."""
    x, objective = gaussian_rows(N, 0), Denoising(GaussianNoise(NOISE))
    one = lambda w, x, key: objective.loss(linear(w), Row(x), key=key)  # noqa: E731
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(one), in_axes=(None, 0, 0)))(
        jnp.asarray(weight), x, jr.split(jr.key(1), N)
    )
    w = weight.T
    truth = 0.5 * np.trace((w - np.eye(3)) @ S @ (w - np.eye(3)).T + NOISE**2 * w @ w.T)
    turn = ((w - np.eye(3)) @ S + NOISE**2 * w).T
    draws = np.concatenate([np.asarray(value)[:, None], np.asarray(slope).reshape(N, 9)], axis=1)
    off = draws.mean(axis=0) - np.concatenate([[truth], turn.ravel()])
    assert (np.abs(off) < LIMIT * draws.std(axis=0) / np.sqrt(N)).all()
    assert np.allclose(turn, 0, atol=1e-12) == np.allclose(weight, wiener().T)


@pytest.mark.usefixtures("x64")
def test_the_linear_optimum_is_reached():
    """Noise of a known draw: gradient descent ends at least squares exactly, which is Wiener's filter up to its error.

    Nine numbers from 40 draws of 2,000 rows, within 4.5 standard errors of the mean of 40.
    """
    objective, ends = Denoising(GaussianNoise(NOISE)), []
    for seed in range(40):
        x, key = gaussian_rows(2_000, seed), jr.key(seed)
        seen = jax.vmap(lambda x, k: GaussianNoise(NOISE)(x, key=k)[0])(x, jr.split(key, 2_000))
        squares = np.linalg.lstsq(np.asarray(seen), np.asarray(x), rcond=None)[0]
        ends.append(squares.T)
        if seed == 0:
            ask = jax.jit(jax.grad(lambda w: objective(linear(w), Row(x), key=key)[0]))  # noqa: B023
            w = jnp.zeros((3, 3))
            for _ in range(200):
                w = w - 0.5 * ask(w)
            np.testing.assert_allclose(w, squares, atol=1e-10)
    error = np.std(ends, axis=0, ddof=1) / np.sqrt(40)
    assert (np.abs(np.mean(ends, axis=0) - wiener()) < LIMIT * error + 1e-3).all()


@pytest.mark.usefixtures("x64")
def test_training_reaches_the_linear_optimum():
    """With fresh noise at every step and a rate that falls, within 0.03 of Wiener's filter, from 1 away."""
    data = ArraySource(Row(gaussian_rows(N, 1)))
    rule = Descend(Denoising(GaussianNoise(NOISE)), gradient_descent(Linear(0.1, 0.0, 2000.0)), on=Part("back"))
    *_, last = train(linear(jnp.zeros((3, 3))), [Stage(rule, 2000, 100)], data, key=jr.key(0))
    np.testing.assert_allclose(np.asarray(last.state.model.back.weight).T, wiener(), atol=0.03)
    assert np.abs(wiener()).max() > 0.5


@pytest.mark.usefixtures("x64")
def test_the_best_denoiser_of_a_gaussian_tells_the_score_of_noisy_rows():
    """r(x) = x / (1 + s2) is where the slope of the loss is 0, and (r(x) - x) / s2 is the score of N(0, 1 + s2)."""
    s2, x = 0.49, jnp.linspace(-2.0, 2.0, 9)
    clean = jnp.asarray(np.random.default_rng(0).normal(size=(100_000, 1)))
    objective = Denoising(GaussianNoise(float(np.sqrt(s2))))

    def one(gain: jax.Array, x: jax.Array, key: jax.Array) -> jax.Array:
        made = dataclasses.replace(identity(1), back=SeparateBack(gain[None, None], jnp.zeros(1)))
        return objective.loss(made, Row(x), key=key)

    slopes = jax.jit(jax.vmap(jax.grad(one), in_axes=(None, 0, 0)))
    draws = lambda gain: np.asarray(slopes(jnp.asarray(gain), clean, jr.split(jr.key(1), 100_000)))  # noqa: E731
    best, other = draws(1 / (1 + s2)), draws(1.0)
    assert abs(best.mean()) < LIMIT * best.std() / np.sqrt(len(best)) < other.mean()
    noisy = jax.vmap(jax.grad(lambda x: -0.5 * x**2 / (1 + s2)))(x)
    np.testing.assert_allclose((x / (1 + s2) - x) / s2, noisy, atol=1e-14)


@pytest.mark.usefixtures("x64")
def test_denoising_is_denoising_score_matching():
    """Of a model whose score is (r(x) - x) / s2 the two losses are the same, divided by s2, draw by draw."""
    sd, weight = 0.6, jnp.asarray([[0.7, 0.1], [0.1, 0.4]])
    made = dataclasses.replace(identity(2), back=SeparateBack(weight, jnp.zeros(2)))

    base = Fixed(Gaussian(jnp.zeros(2), jnp.ones(2)))  # adds x'x / 2
    model = EnergyNet(Quadratic((jnp.eye(2) - weight) / sd**2 - jnp.eye(2)), base, jnp.array(0.0))
    x, key = jnp.array([0.3, -1.2]), jr.key(4)
    one = Denoising(GaussianNoise(sd)).loss(made, Row(x), key=key)
    other = DenoisingScoreMatching(sd).loss(model, x, key=key)
    np.testing.assert_allclose(one / sd**2, other, rtol=1e-12)


# --- stacks


def stack(lowest: str = "grey", tie: Tie = "transposed") -> StackedAutoencoder:
    return autoencoder_stack((4, 3), KINDS[lowest], jnp.full(5, 0.4), tie, key=jr.key(0))


@pytest.mark.parametrize("i", [0, 1])
@pytest.mark.parametrize("tie", ["transposed", "separate"])
def test_a_layer_learns_alone(i, tie):
    """With an optimiser that moves what has no slope, too."""
    model, data = stack(tie=tie), ArraySource(rows(20))
    rule = Descend(OfLayer(i, Denoising(Masking(0.3))), Optimiser(optax.adamw, (1e-2,)), on=Layer(i))
    *_, last = train(model, [Stage(rule, 20, 10)], data, key=jr.key(1))
    for j, (before, after) in enumerate(zip(model.layers, last.state.model.layers, strict=True)):
        pairs = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
        for one, other in pairs:
            assert bool((np.asarray(one) == np.asarray(other)).all()) == (i != j)


@pytest.mark.usefixtures("x64")
def test_the_next_layer_spoils_clean_codes():
    model, batch, key = stack(), rows(), jr.key(7)
    codes = jax.vmap(model.layers[0].code)(batch.x)
    found, _ = OfLayer(1, Denoising(Masking(0.4)))(model, batch, key=key)
    truth, _ = Denoising(Masking(0.4))(model.layers[1], Row(codes), key=key)
    np.testing.assert_array_equal(found, truth)
    kept = model.presented(Row(batch.x[0], jnp.array([True] * 4 + [False])), 1)
    assert kept.mask is None and kept.x.shape == (4,)
    assert model.presented(Row(batch.x[0], jnp.array([True] * 4 + [False])), 0).mask.tolist() == [True] * 4 + [False]


@pytest.mark.usefixtures("x64")
def test_a_stack_begins_at_the_means_of_the_cells():
    model = stack()
    np.testing.assert_allclose(jax.nn.sigmoid(model.layers[0].back.bias), 0.4, rtol=1e-12)
    assert (np.asarray(stack("real").layers[0].back.bias) == 0.4).all()
    limit = 4 * np.sqrt(6 / 9)
    weight = np.asarray(model.layers[0].weight)
    assert np.abs(weight).max() < limit and np.abs(weight).max() > 0.5 * limit
    apart = stack(tie="separate")
    np.testing.assert_array_equal(apart.layers[0].back.weight, apart.layers[0].weight.T)


@pytest.mark.usefixtures("x64")
def test_the_ways_of_a_stack():
    model, row = stack(), Row(rows().x[0])
    first, second = model.layers
    np.testing.assert_array_equal(model.code(row), second.code(first.code(row.x)))
    h = jnp.array([0.2, 0.9, 0.4])
    np.testing.assert_array_equal(model.decoded(h), first.decoded(second.decoded(h)))
    np.testing.assert_array_equal(model.denoised(row), first.reconstructed(row.x))
    grey = dataclasses.replace(model, top=255)
    np.testing.assert_allclose(grey.code(Row(255 * row.x)), model.code(row), rtol=1e-12)
    np.testing.assert_allclose(grey.decoded(h), 255 * model.decoded(h), rtol=1e-12)
    np.testing.assert_allclose(grey.presented(Row(255 * row.x), 0).x, row.x, rtol=1e-12)


def bits(n: int) -> np.ndarray:
    return np.array(list(itertools.product((0.0, 1.0), repeat=n)))


@pytest.mark.usefixtures("x64")
def test_draws_are_those_of_the_chain():
    """Spoilt, up and down twice, by listing every state: four means within 4.5 standard errors of 20,000 draws."""
    spoil, form = Masking(0.3), {"passes": 2, "key": jr.key(2)}
    model = autoencoder_stack((2, 2), LogisticReading(), jnp.array([0.3, 0.6]), corruption=spoil, **form)
    states = bits(2)

    def law(mean: Any, sources: np.ndarray) -> np.ndarray:
        """The chance of every state of bits, from each source."""
        p = np.stack([np.asarray(mean(jnp.asarray(source))) for source in sources])
        return np.prod(np.where(states[None] == 1, p[:, None], 1 - p[:, None]), axis=2)

    low, high = model.layers
    masked = np.prod(
        np.where(states[None] == states[:, None], 1 - 0.3 * states[:, None], 0.3 * states[:, None]), axis=2
    )
    up, down = masked @ law(low.code, states) @ law(high.code, states), law(high.decoded, states)
    start = law(lambda h: jnp.array([0.3, 0.6]), states[:1])[0]
    once = start @ up @ down @ law(low.decoded, states)
    units = once @ up @ down
    means = units @ np.stack([np.asarray(low.decoded(jnp.asarray(h))) for h in states])
    topmost, drawn = jax.jit(jax.vmap(lambda k: model.sample(key=k)))(jr.split(jr.key(3), N))
    for found, truth in ((drawn, means), (topmost, (once @ up) @ states)):
        draws = np.asarray(found)
        assert (np.abs(draws.mean(axis=0) - truth) < LIMIT * draws.std(axis=0) / np.sqrt(N)).all()


# --- the network


@pytest.mark.usefixtures("x64")
def test_the_network_is_the_way_up_and_parts_from_it():
    model, batch = stack(), dataclasses.replace(rows(), y=jnp.array([0, 1, 2, 0, 1, 2]))
    made = ToClassifier(3)(model, None, key=jr.key(0))
    row = Row(batch.x[0])
    np.testing.assert_array_equal(made.features(row), model.code(row))
    np.testing.assert_array_equal(made.logits(row), np.zeros(3))
    rule = Descend(Discriminative(NLLLoss()), Optimiser(optax.adamw, (1e-2,)), on=Part("network"))
    *_, last = train(made, [Stage(rule, 30, 6)], ArraySource(batch), key=jr.key(1))
    after = last.state.model
    for one, other in zip(jax.tree.leaves(made.layers), jax.tree.leaves(after.layers), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.allclose(after.features(row), made.features(row))
    network = after.network
    np.testing.assert_allclose(after.logits(row), after.features(row) @ network.weights[-1] + network.biases[-1])
    np.testing.assert_array_equal(after.answers(row), -after.logits(row))


class Recorded(eqx.Module):
    """The sum of the cells that an objective is shown, and as a metric the cells themselves."""

    def __call__(self, model: Any, batch: Row, *, key: Any) -> tuple[Any, dict[str, Any]]:
        return jnp.sum(batch.x), {"cells": batch.x, "labels": batch.y}


@pytest.mark.parametrize("corruption", [None, Masking(0.0), Masking(0.4), SaltAndPepper(0.4)])
def test_labels_are_learned_from_spoilt_rows(corruption):
    """Grey values of 0 to 8; of 20,000 x 5 cells a share is off by 5 deviations in 1 of a million seeds."""
    cells = jr.randint(jr.key(0), (N, 5), 1, 8).astype(float)
    batch, model = Row(cells, y=jnp.arange(N)), dataclasses.replace(stack(), top=8)
    _, seen = FromSpoilt(Recorded(), corruption)(model, batch, key=jr.key(1))
    shown = np.asarray(seen["cells"])
    np.testing.assert_array_equal(seen["labels"], batch.y)
    changed = ~np.isclose(shown, cells, atol=1e-5)
    share = 0.0 if corruption is None else float(corruption.nu)
    assert abs(changed.mean() - share) <= 5 * (share * (1 - share) / changed.size) ** 0.5
    ends = {0.0} if isinstance(corruption, Masking) else {0.0, 8.0}
    assert set(np.unique(shown[changed])) == (ends if share else set())
    other = FromSpoilt(Recorded(), corruption)(model, batch, key=jr.key(2))[1]["cells"]
    assert (other != shown).any() == bool(share)


def test_a_stack_of_linear_units_is_no_network():
    made = StackedAutoencoder((identity(),), Fixed(jnp.zeros(4)))
    with pytest.raises(ValueError, match="a network: expected layers of logistic units, got AffineReading; read them"):
        made.to_mlp(2)
