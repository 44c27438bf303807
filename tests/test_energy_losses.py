"""Losses of energies against the table they come from, score matching and noise contrasts against closed forms."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import LIMIT

from ravine._tree import Fixed
from ravine.core import Row
from ravine.dist import Gaussian
from ravine.models.energy import Dense, Harmonium
from ravine.models.energy_net import AnswerNet, EnergyNet
from ravine.models.units import BinaryUnits, GaussianUnits
from ravine.nets import MLP
from ravine.objectives.contrast import Contrast
from ravine.objectives.energy_losses import (
    Discriminative,
    EnergyLoss,
    HingeLoss,
    JointContrast,
    LogLoss,
    LVQ2Loss,
    MCELoss,
    MEELoss,
    NLLLoss,
    PerceptronLoss,
    SquareExponentialLoss,
    SquareSquareLoss,
    free_energy,
    most_offending,
)
from ravine.objectives.noise_contrastive import FromLaw, NoiseContrastive, StartOfPath
from ravine.objectives.score_matching import (
    DenoisingScoreMatching,
    ScoreMatching,
    SlicedScoreMatching,
    denoised,
    score,
)
from ravine.rules.contrast import Part

# The table of LeCun et al. 2006: the loss, its margin, and its formula of the energies e and the place c in numpy.
others = lambda e, c: np.delete(e, c).min()  # noqa: E731
TABLE = {
    "energy": (EnergyLoss(), None, lambda e, c: e[c]),
    "perceptron": (PerceptronLoss(), 0.0, lambda e, c: e[c] - e.min()),
    "hinge": (HingeLoss(0.7), 0.7, lambda e, c: max(0, 0.7 + e[c] - others(e, c))),
    "log": (LogLoss(), math.inf, lambda e, c: np.log(1 + np.exp(e[c] - others(e, c)))),
    "lvq2": (LVQ2Loss(1.5), 0.0, lambda e, c: min(1.5, max(0, e[c] - others(e, c)))),
    "mce": (MCELoss(), math.inf, lambda e, c: 1 / (1 + np.exp(-(e[c] - others(e, c))))),
    "square-square": (SquareSquareLoss(0.7), 0.7, lambda e, c: e[c] ** 2 + max(0, 0.7 - others(e, c)) ** 2),
    "square-exponential": (SquareExponentialLoss(0.6), math.inf, lambda e, c: e[c] ** 2 + 0.6 * np.exp(-others(e, c))),
    "nll": (NLLLoss(2.0), math.inf, lambda e, c: e[c] + np.log(np.exp(-2 * e).sum()) / 2),
    "mee": (MEELoss(2.0), math.inf, lambda e, c: 1 - np.exp(-2 * e[c]) / np.exp(-2 * e).sum()),
}
PAIRED = ("hinge", "log", "lvq2", "mce", "square-square", "square-exponential")  # look at one wrong answer


@pytest.mark.parametrize("name", TABLE)
def test_a_loss_is_its_formula(name, x64):
    loss, margin, formula = TABLE[name]
    stream = np.random.default_rng(0)
    for e, c in zip(2 * stream.normal(size=(50, 4)), stream.integers(4, size=50), strict=True):
        assert float(loss(jnp.asarray(e), int(c))) == pytest.approx(formula(e, c), abs=1e-12)
        assert float(jax.jit(loss)(jnp.asarray(e), jnp.asarray(c))) == pytest.approx(formula(e, c), abs=1e-12)
    assert loss.margin == margin


@pytest.mark.parametrize("name", TABLE)
def test_the_right_answer_is_pulled_down_and_a_wrong_one_pushed_up_until_the_margin(name, x64):
    loss, margin, _ = TABLE[name]
    slope = jax.grad(loss)
    for gap in (-0.9, -0.3, 0.31, 0.65, 0.75, 3.0):
        _, wrong = np.asarray(slope(jnp.array([0.0, gap]), 0))
        assert wrong < 0 if margin is not None and gap < margin else wrong == 0
    right, wrong = np.asarray(slope(jnp.array([0.5, 0.1]), 0))
    assert right > 0 and (wrong < 0 or margin is None)


@pytest.mark.parametrize("name", TABLE)
def test_only_the_most_offending_answer_is_pushed_or_all_of_them(name, x64):
    energies = jnp.array([0.4, 0.9, 0.1, 0.5])
    slope = np.asarray(jax.grad(TABLE[name][0])(energies, 0))
    assert slope[0] > 0
    pushed = {"energy": [], "nll": [1, 2, 3], "mee": [1, 2, 3]}.get(name, [2])
    assert np.flatnonzero(slope[1:] < 0).tolist() == [i - 1 for i in pushed]
    assert (slope[1:][[i not in pushed for i in (1, 2, 3)]] == 0).all()
    assert int(most_offending(energies, 0)) == 2 and int(most_offending(energies, 2)) == 0


# --- learning two answers: what collapses


class TwoSided(eqx.Module):
    """E(x, y) = |f(x) - g(y)|^2, which is zero everywhere where both sides are constant."""

    f: MLP
    g: jax.Array

    def answers(self, row):
        return jnp.sum((self.f(row.x)[None] - self.g) ** 2, axis=1)


def two_sided(scale: float) -> TwoSided:
    f = MLP(2, 2, (8,), jnp.tanh, key=jr.key(0))
    f = eqx.tree_at(lambda f: f.layers[-1].weight, f, scale * f.layers[-1].weight)
    return TwoSided(f, scale * jr.normal(jr.key(1), (3, 2)))


def three_groups() -> Row:
    y = np.arange(60) % 3
    places = np.array([[1, 0], [-0.5, 0.9], [-0.5, -0.9]])
    return Row(jnp.asarray(places[y] + 0.2 * np.random.default_rng(0).normal(size=(60, 2))), y=jnp.asarray(y))


def descended(loss, scale: float, rate: float, steps: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """The energies (rows, answers) before and after gradient descent."""
    batch, objective, optimiser = three_groups(), Discriminative(loss), optax.sgd(rate)
    model, rest = eqx.partition(two_sided(scale), eqx.is_inexact_array)

    def step(carry, _):
        model, state = carry
        slope = jax.grad(lambda m: objective(eqx.combine(m, rest), batch, key=jr.key(0))[0])(model)
        updates, state = optimiser.update(slope, state)
        return (optax.apply_updates(model, updates), state), None

    run = jax.jit(lambda m: jax.lax.scan(step, (m, optimiser.init(m)), None, length=steps)[0][0])
    energies = lambda m: np.asarray(jax.vmap(eqx.combine(m, rest).answers)(batch))  # noqa: E731
    return energies(model), energies(run(model))


def gaps(energies: np.ndarray) -> np.ndarray:
    y = np.arange(60) % 3
    wrong = np.where(np.eye(3, dtype=bool)[y], np.inf, energies).min(axis=1)
    return wrong - energies[np.arange(60), y]


@pytest.mark.parametrize("name", TABLE)
def test_without_a_margin_above_zero_a_flat_surface_is_good_enough(name):
    """From energies that are nearly the same everywhere: they stay so, or a gap opens."""
    loss, margin, _ = TABLE[name]
    before, after = descended(loss, 0.03, 0.1)
    assert before.max() < 0.1
    if not margin:
        assert after.max() < 0.01 and gaps(after).max() < 0.01
    else:
        assert gaps(after).mean() > min(margin, 1.0) and (gaps(after) > 0).all()


@pytest.mark.parametrize("name", TABLE)
def test_only_the_plain_energy_flattens_a_surface_that_is_not(name):
    before, after = descended(TABLE[name][0], 1.0, 0.03, 6000)
    assert before.max() > 2
    if name == "energy":
        assert after.max() < 0.05
    else:
        assert after.max() > 1 and (gaps(after) > 0).mean() >= 2 / 3


# --- what the likelihood loss is elsewhere


def test_the_likelihood_loss_of_quadratic_energies_is_least_where_a_gaussian_fits_best(x64):
    """Answers are a fine grid: its sum is the integral to rounding."""
    y, grid = np.random.default_rng(0).normal(0.3, 0.7, size=20), jnp.arange(-12, 12, 0.05)
    places = jnp.asarray(np.round((y + 12) / 0.05).astype(int))
    y = np.asarray(grid[places])

    def loss(theta):
        energies = 0.5 * ((grid - theta[0]) * jnp.exp(-theta[1])) ** 2
        return jnp.mean(jax.vmap(lambda c: NLLLoss()(energies, c))(places)) + jnp.log(0.05)

    best = jnp.array([y.mean(), np.log(y.std())])
    assert np.abs(jax.jit(jax.grad(loss))(best)).max() < 1e-12
    assert float(loss(best)) == pytest.approx(0.5 * np.log(2 * np.pi * np.e * y.var()), abs=1e-12)
    assert (np.linalg.eigvalsh(jax.jit(jax.hessian(loss))(best)) > 0.1).all()


def test_a_cold_likelihood_is_the_perceptron(x64):
    stream = np.random.default_rng(1)
    for e in stream.normal(size=(20, 5)):
        for beta in (10.0, 1e2, 1e4):
            apart = float(NLLLoss(beta)(jnp.asarray(e), 1) - PerceptronLoss()(jnp.asarray(e), 1))
            assert -1e-12 <= apart <= np.log(5) / beta
        cold, hard = (jax.grad(loss)(jnp.asarray(e), 1) for loss in (NLLLoss(1e4), PerceptronLoss()))
        np.testing.assert_allclose(cold, hard, atol=1e-6)
    assert float(free_energy(jnp.array([1.0, 2.0]), 1e4)) == pytest.approx(1.0, abs=1e-4)


SCORES = np.array([[0.2, -0.1], [0.4, 0.3], [-0.5, 0.6]])
MOVES = np.array([[0.1, -0.2], [0.3, 0.0]])
PATHS = list(itertools.product((0, 1), repeat=3))
FORWARD, BEST = 2.7136361954029407, 1.1  # log-sum-exp over all paths, and the best: listed in numpy


def path_energies(scores):
    steps = lambda p: MOVES[p[0], p[1]] + MOVES[p[1], p[2]]  # noqa: E731
    return -jnp.stack([sum(scores[i, s] for i, s in enumerate(p)) + steps(p) for p in PATHS])


def test_the_likelihood_of_paths_is_the_loss_of_a_conditional_random_field(x64):
    energies = path_energies(jnp.asarray(SCORES))
    assert float(-free_energy(energies)) == pytest.approx(FORWARD, abs=1e-12)
    after = np.exp(SCORES[0])  # forwards through the chain, not path by path
    for emission in SCORES[1:]:
        after = (after @ np.exp(MOVES)) * np.exp(emission)
    assert np.log(after.sum()) == pytest.approx(FORWARD, abs=1e-12)
    for c in range(8):
        assert float(NLLLoss()(energies, c)) == pytest.approx(FORWARD + float(energies[c]), abs=1e-12)
        assert float(PerceptronLoss()(energies, c)) == pytest.approx(BEST + float(energies[c]), abs=1e-12)
    share = np.exp(-np.asarray(energies) - FORWARD)
    free = np.array([[sum(share[i] for i, p in enumerate(PATHS) if p[t] == s) for s in (0, 1)] for t in range(3)])
    slope = jax.grad(lambda s: NLLLoss()(path_energies(s), 5))(jnp.asarray(SCORES))
    np.testing.assert_allclose(slope, free - np.eye(2)[list(PATHS[5])], atol=1e-12)


# --- the objective


def answering() -> AnswerNet:
    net = MLP(2, 3, (5,), jnp.tanh, key=jr.key(3))
    return AnswerNet(net, Fixed(Gaussian(jnp.zeros(2), jnp.ones(2))), jnp.array(0.3))


def test_rows_without_a_label_and_of_no_weight_do_not_count(x64):
    model, rows = answering(), three_groups()
    some = Row(rows.x[:4], y=jnp.array([0, -1, 2, 1]), y_mask=jnp.array([True, False, True, True]),
               weight=jnp.array([1.0, 1.0, 2.0, 0.0]))  # fmt: skip
    told = Row(rows.x[jnp.array([0, 2, 2])], y=jnp.array([0, 2, 2]))
    of = lambda m, batch: Discriminative(HingeLoss())(m, batch, key=jr.key(0))[0]  # noqa: E731
    value = eqx.filter_jit(eqx.filter_value_and_grad(of))
    for ours, theirs in zip(jax.tree.leaves(value(model, some)), jax.tree.leaves(value(model, told)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    _, seen = Discriminative()(model, told, key=jr.key(0))
    energies = np.asarray(jax.vmap(model.answers)(told))
    assert float(seen["accuracy"]) == pytest.approx((energies.argmin(axis=1) == [0, 2, 2]).mean())
    wrong = np.where(np.eye(3, dtype=bool)[[0, 2, 2]], np.inf, energies).min(axis=1)
    assert float(seen["gap"]) == pytest.approx((wrong - energies[np.arange(3), [0, 2, 2]]).mean())


@pytest.mark.slow
def test_a_joint_contrast_is_the_sum_of_both_and_wants_answers(x64):
    model, rows = answering(), three_groups()
    other = jnp.asarray(np.random.default_rng(5).normal(size=(7, 2)))
    joint, seen = JointContrast(NLLLoss(), 0.5)(model, rows, other, key=jr.key(0))
    told = Discriminative()(model, rows, key=jr.key(0))[0]
    apart = Contrast(0.0, Part("net"))(model, rows, other, key=jr.key(0))[0]
    assert float(joint) == pytest.approx(float(told + 0.5 * apart), abs=1e-12)
    assert set(seen) == {"accuracy", "gap", "energy_data", "energy_model"}
    with pytest.raises(TypeError, match="no answers"):
        JointContrast()(quadratic(), rows, other, key=jr.key(0))


# --- score matching


class Quadratic(eqx.Module):
    """x' A x / 2 + b' x, of which only the symmetric part of A counts."""

    a: jax.Array
    b: jax.Array

    def __call__(self, x):
        return 0.5 * x @ self.a @ x + self.b @ x


def quadratic(cells: int = 2, wide: float = 2.0) -> EnergyNet:
    base = Fixed(Gaussian(jnp.zeros(cells), jnp.full(cells, wide)))
    return EnergyNet(Quadratic(jnp.zeros((cells, cells)), jnp.zeros(cells)), base, jnp.array(0.0))


def correlated(rows: int, seed: int = 0) -> np.ndarray:
    mix = np.array([[1.0, 0.0, 0.0], [0.6, 0.5, 0.0], [-0.3, 0.4, 0.8]])
    return np.random.default_rng(seed).normal(size=(rows, 3)) @ mix.T + [0.5, -1.0, 0.0]


@eqx.filter_jit
def solved(objective, model: EnergyNet, batch: Row, key) -> tuple[jax.Array, jax.Array]:
    """Precision and linear term of the least loss, which is quadratic in both: one step of Newton's."""
    cells = model.net.b.size
    upper = np.triu_indices(cells)

    def loss(theta):
        a = jnp.zeros((cells, cells)).at[upper].set(theta[: len(upper[0])])
        net = Quadratic(a + jnp.triu(a, 1).T, theta[len(upper[0]) :])
        return objective(eqx.tree_at(lambda m: m.net, model, net), batch, key=key)[0]

    zero = jnp.zeros(len(upper[0]) + cells)
    theta = -jnp.linalg.solve(jax.hessian(loss)(zero), jax.grad(loss)(zero))
    a = jnp.zeros((cells, cells)).at[upper].set(theta[: len(upper[0])])
    return a + jnp.triu(a, 1).T + jnp.diag(1 / model.base.value.scale**2), theta[len(upper[0]) :]


@pytest.mark.parametrize("weighted", [False, True])
def test_score_matching_of_a_gaussian_finds_the_precision_of_the_sample(weighted, x64):
    X = correlated(40)
    weight = np.random.default_rng(2).integers(0, 3, size=40).astype(float) if weighted else np.ones(40)
    batch = Row(jnp.asarray(X), weight=jnp.asarray(weight) if weighted else None)
    precision, linear = solved(ScoreMatching(), quadratic(3), batch, jr.key(0))
    mean = weight @ X / weight.sum()
    covariance = (X - mean).T @ ((X - mean) * weight[:, None]) / weight.sum()
    np.testing.assert_allclose(precision, np.linalg.inv(covariance), rtol=1e-9)
    np.testing.assert_allclose(linear, -np.linalg.solve(covariance, mean), rtol=1e-9, atol=1e-9)


def bent(cells: int = 3) -> EnergyNet:
    base = Fixed(Gaussian(jnp.zeros(cells), jnp.full(cells, 1.5)))
    return EnergyNet(MLP(cells, 1, (6,), jnp.tanh, key=jr.key(4)), base, jnp.array(0.0))


def harmonium() -> Harmonium:
    """With real visible units."""
    visible = GaussianUnits().sized((3,))
    weight = jnp.asarray(np.random.default_rng(3).normal(size=(3, 4)))
    return Harmonium(visible, BinaryUnits().sized((4,)), Dense(weight), Fixed(visible))


@pytest.mark.parametrize("made", [bent, harmonium])
def test_the_explicit_loss_is_its_formula(made, x64):
    model, x = made(), jnp.array([0.3, -0.2, 1.1])
    h, psi = 1e-5, lambda x: np.asarray(score(model, x))
    rise = [(psi(x + h * e) - psi(x - h * e))[i] / (2 * h) for i, e in enumerate(np.eye(3))]
    step = [float(model.energy(x + h * e) - model.energy(x - h * e)) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(psi(x), -np.array(step), rtol=1e-8)
    assert float(ScoreMatching().loss(model, x)) == pytest.approx(0.5 * (psi(x) ** 2).sum() + sum(rise), rel=1e-8)


@pytest.mark.parametrize("slices", [1, 3])
def test_sliced_score_matching_is_unbiased_for_the_explicit_loss_and_its_slope(slices, x64):
    model, x = bent(), jnp.array([0.3, -0.2, 1.1])
    sliced = eqx.filter_value_and_grad(lambda m, k: SlicedScoreMatching(slices).loss(m, x, key=k))
    value = lambda tree: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])  # noqa: E731
    made = np.asarray(jax.jit(jax.vmap(lambda k: value(sliced(model, k))))(jr.split(jr.key(0), 4000)))
    explicit = eqx.filter_value_and_grad(lambda m: ScoreMatching().loss(m, x))
    truth = np.asarray(jax.jit(lambda: value(explicit(model)))())
    error = made.std(axis=0, ddof=1) / np.sqrt(len(made))
    moving = error > 1e-12
    assert moving.sum() > 10  # the others are exact at every draw
    assert (np.abs(made.mean(axis=0) - truth)[moving] < LIMIT * error[moving]).all()
    np.testing.assert_allclose(made.mean(axis=0)[~moving], truth[~moving], atol=1e-10)


def test_in_one_dimension_a_slice_is_all_there_is(x64):
    model, x = bent(1), jnp.array([0.3])
    assert float(SlicedScoreMatching().loss(model, x, key=jr.key(1))) == pytest.approx(
        float(ScoreMatching().loss(model, x)), abs=1e-12
    )


def test_denoising_of_a_gaussian_finds_the_linear_denoiser(x64):
    """Rows of N(0, 1), noise of variance s2: r(x) = x / (1 + s2), and (r(x) - x) / s2 is the score of the noisy law."""
    noise = 0.5
    found = []
    for i in range(30):
        X = np.random.default_rng(i).normal(size=(2000, 1))
        precision, _ = solved(DenoisingScoreMatching(noise), quadratic(1), Row(jnp.asarray(X)), jr.key(i))
        found.append(float(precision[0, 0]))
    error = np.std(found, ddof=1) / np.sqrt(len(found))
    assert error < 0.01 and abs(np.mean(found) - 1 / (1 + noise**2)) < LIMIT * error
    best = eqx.tree_at(lambda m: m.net.a, quadratic(1), jnp.array([[1 / (1 + noise**2) - 0.25]]))
    for x in (-1.3, 0.0, 2.0):
        made = float(denoised(best, jnp.array([x]), noise)[0])
        assert made == pytest.approx(x / (1 + noise**2), abs=1e-12)
        assert (made - x) / noise**2 == pytest.approx(-x / (1 + noise**2), abs=1e-12)


def test_denoising_is_explicit_score_matching_of_noisy_rows(x64):
    """Vincent 2011: the slopes of both have the same mean over the noise; here at a row, of a net."""
    model, x, noise = bent(2), jnp.array([0.4, -0.7]), 0.6
    flat = lambda tree: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])  # noqa: E731
    there = eqx.filter_grad(lambda m, k: DenoisingScoreMatching(noise).loss(m, x, key=k) / noise**2)
    here = eqx.filter_grad(lambda m, x: ScoreMatching().loss(m, x))

    def one(key):
        noisy = x + noise * jr.normal(key, x.shape, x.dtype)  # the draw that the loss makes of this key
        return flat(there(model, key)) - flat(here(model, noisy))

    made = np.asarray(jax.jit(jax.vmap(one))(jr.split(jr.key(0), 20_000)))
    error = made.std(axis=0, ddof=1) / np.sqrt(len(made))
    moving = error > 1e-12
    assert moving.sum() > 10 and (np.abs(made.mean(axis=0))[moving] < LIMIT * error[moving]).all()


# --- noise contrasts


def gaussian_noise(wide: float) -> FromLaw:
    return FromLaw(Gaussian(jnp.zeros(1), jnp.full(1, wide)))


@pytest.mark.parametrize("ratio", [1, 5])
def test_noise_contrasts_recover_log_z_of_a_gaussian(ratio, x64):
    """Precision and offset of a one-dimensional Gaussian, by Newton's method: the loss is a logistic regression."""
    spread = 0.8
    objective = NoiseContrastive(ratio, gaussian_noise(1.5))

    @jax.jit
    def found(X, key):
        def loss(theta):
            model = quadratic(1)
            model = eqx.tree_at(lambda m: (m.net.a, m.offset), model, (theta[0].reshape(1, 1), theta[1]))
            return objective(model, Row(X), key=key)[0]

        newton = lambda _, t: t - jnp.linalg.solve(jax.hessian(loss)(t), jax.grad(loss)(t))  # noqa: E731
        return jax.lax.fori_loop(0, 12, newton, jnp.array([1.0, 0.0]))

    draws = lambda i: jnp.asarray(spread * np.random.default_rng(i).normal(size=(2000, 1)))  # noqa: E731
    made = np.stack([found(draws(i), jr.key(i)) for i in range(30)])
    truth = np.array([1 / spread**2 - 0.25, np.log(spread * np.sqrt(2 * np.pi))])
    error = made.std(axis=0, ddof=1) / np.sqrt(len(made))
    assert (error < 0.03).all() and (np.abs(made.mean(axis=0) - truth) < LIMIT * error).all()


def test_the_start_of_the_path_is_a_law_of_noise(x64):
    grid = jnp.linspace(-15, 15, 3001)[:, None]
    model = eqx.tree_at(lambda m: m.net, bent(1), MLP(1, 1, (3,), key=jr.key(0)))
    log_p = jax.vmap(lambda x: StartOfPath().log_prob(model, x))(grid)
    assert float(jnp.sum(jnp.exp(log_p)) * 0.01) == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(log_p, jax.vmap(model.base.value.log_prob)(grid), atol=1e-12)
    draws = jax.vmap(lambda k: StartOfPath().draw(model, key=k))(jr.split(jr.key(0), 4000))
    assert abs(float(jnp.mean(draws))) < LIMIT * 1.5 / np.sqrt(4000)


@pytest.mark.slow
def test_noise_contrasts_are_their_formula_and_want_an_offset(x64):
    model, rows = bent(1), Row(jnp.array([[0.3], [1.2]]), weight=jnp.array([1.0, 3.0]))
    made, seen = NoiseContrastive(4, gaussian_noise(1.5))(model, rows, key=jr.key(7))
    _, second = jr.split(jr.key(7))
    ratio = lambda x: float(-model.energy(x) - model.base.value.log_prob(x))  # noqa: E731
    losses = []
    for x, key in zip(rows.x, jr.split(second, 2), strict=True):
        noise = [model.base.value.sample(key=k) for k in jr.split(key, 4)]
        share = lambda x: 1 / (1 + 4 * np.exp(-ratio(x)))  # noqa: E731
        losses.append(-np.log(share(x)) - sum(np.log(1 - share(y)) for y in noise))
    assert float(made) == pytest.approx(0.25 * losses[0] + 0.75 * losses[1], abs=1e-10)
    assert 0 <= float(seen["told_apart"]) <= 1
    with pytest.raises(TypeError, match="no offset"):
        NoiseContrastive()(harmonium(), Row(jnp.zeros((1, 3))), key=jr.key(0))


# --- missing cells


HOLES = {"explicit": ScoreMatching(20), "sliced": SlicedScoreMatching(2, 20), "noise": NoiseContrastive(2, fill=20)}


@pytest.mark.parametrize("name", HOLES)
def test_rows_with_holes_leave_the_true_model_where_it_is(name, x64):
    """At the law that made the rows the mean slope is zero, with missing cells drawn given the others."""
    X = correlated(4000, seed=8)[:, :2] - [0.5, -1.0]
    covariance = np.array([[1.0, 0.6], [0.6, 0.61]])
    a = jnp.asarray(np.linalg.inv(covariance) - np.eye(2) / 4)
    offset = jnp.asarray(0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1])
    model = eqx.tree_at(lambda m: (m.net.a, m.offset), quadratic(2), (a, offset))
    mask = np.random.default_rng(9).uniform(size=X.shape) > 0.3
    batch = Row(jnp.asarray(np.where(mask, X, 0)), mask=jnp.asarray(mask))

    def slope(row, key):
        one = jax.tree.map(lambda leaf: leaf[None], row)
        loss = lambda m: HOLES[name](m, one, key=key)[0]  # noqa: E731
        made = eqx.filter_grad(loss)(model)
        return jnp.concatenate([made.net.a.ravel(), made.net.b, made.offset[None]])

    made = np.asarray(jax.jit(jax.vmap(slope))(batch, jr.split(jr.key(1), len(X))))
    error = made.std(axis=0, ddof=1) / np.sqrt(len(made))
    assert np.isfinite(made).all()
    assert (np.abs(made.mean(axis=0)) <= LIMIT * error + 1e-12).all()
