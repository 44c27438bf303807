"""Energies that are nets, against quadrature, and the recipes that learn them."""

import inspect
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import LIMIT

from ravine._spell import spell
from ravine._tree import Fixed, Part, as_arrays, trainable
from ravine.core import Row, walk
from ravine.data import load_dataset
from ravine.dist import Gaussian
from ravine.energies import EnergyModel
from ravine.evidence import AIS, RAISE, Normalised, expected_completion
from ravine.models.energy_net import AnswerNet, EnergyNet, landscape
from ravine.models.moves import AbstractMoves, HamiltonianMoves, LangevinMoves, MetropolisMoves
from ravine.nets import MLP
from ravine.objectives.contrast import Contrast
from ravine.objectives.energy_losses import Discriminative, JointContrast, MEELoss, NLLLoss, SquareSquareLoss
from ravine.objectives.noise_contrastive import NoiseContrastive
from ravine.objectives.score_matching import DenoisingScoreMatching, ScoreMatching, SlicedScoreMatching
from ravine.recipes.energy_based import EnergyBased, EnergyClassifier
from ravine.rules import Contrastive, ContrastiveDivergence, Descend, Optimiser, Persistent
from ravine.train import Stage

SIDE, REACH = 301, 7.0
AXIS = np.linspace(-REACH, REACH, SIDE)
CELL = (AXIS[1] - AXIS[0]) ** 2


def base(wide: float = 1.3) -> Fixed:
    return Fixed(Gaussian(jnp.array([0.2, -0.4]), jnp.full(2, wide)))


class Ring(eqx.Module):
    """A low ring with a dent."""

    depth: jax.Array

    def __call__(self, x):
        return self.depth * jnp.tanh(3 * (jnp.sqrt(jnp.sum(x**2) + 0.01) - 1.2) ** 2) + 0.8 * jnp.tanh(x[0])


LEAPS = HamiltonianMoves(0.25, 5)


def ring(moves: AbstractMoves = LEAPS, sweeps: int = 60) -> EnergyNet:
    return EnergyNet(Ring(jnp.array(2.0)), base(), jnp.array(0.4), moves, sweeps=sweeps)


def answering() -> AnswerNet:
    net = MLP(2, 3, (5,), jnp.tanh, key=jr.key(3))
    net = eqx.tree_at(lambda n: n.layers[-1].weight, net, 3 * net.layers[-1].weight)
    return AnswerNet(net, base(), jnp.array(-0.3), HamiltonianMoves(0.25, 5), sweeps=60)


def density(model) -> tuple[np.ndarray, float]:
    """Shares of the cells of a grid, and log Z."""
    energy = np.asarray(landscape(model, (-REACH, -REACH), (REACH, REACH), SIDE), float)
    mass = np.exp(-energy) * CELL
    return mass / mass.sum(), float(np.log(mass.sum()))


MODELS = {"rows": ring, "rows and answers": answering}


@pytest.mark.parametrize("name", MODELS)
def test_the_path_starts_at_the_base_and_ends_at_the_energy(name, x64):
    model, x = MODELS[name](), jnp.array([0.3, -1.1])
    assert float(model.at(jnp.array(1.0)).energy(x)) == pytest.approx(float(model.energy(x)), abs=1e-12)
    first, half = model.at(jnp.array(0.0)), model.at(jnp.array(0.5))
    law = model.base.value
    log_p = -float(first.energy(x)) - float(model.log_start())
    assert log_p == pytest.approx(float(law.log_prob(x)), abs=1e-12)
    assert density(first)[1] == pytest.approx(float(model.log_start()), abs=1e-4)
    assert float(half.energy(x)) == pytest.approx(float(first.energy(x) + model.energy(x)) / 2, abs=1e-12)
    assert float(half.at(jnp.array(0.5)).energy(x)) == pytest.approx(
        float(model.at(jnp.array(0.25)).energy(x)), abs=1e-12
    )
    held = Row(x, mask=jnp.array([True, False]))
    line = -0.5 * ((x[0] - 0.2) / 1.3) ** 2 + math.log(1.3 * math.sqrt(2 * math.pi))
    assert float(model.log_start(held)) == pytest.approx(float(line), abs=1e-12)
    assert float(model.log_start(Row(x))) == pytest.approx(-float(first.energy(x)), abs=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_annealing_finds_log_z_as_quadrature_does(name):
    model = MODELS[name]()
    found, truth = AIS(400, 200)(model, key=jr.key(0)), density(model)[1]
    assert found.standard_error < 0.1 and abs(found.value - truth) < LIMIT * found.standard_error


def test_no_rule_moves_the_base_or_the_path():
    learned = trainable(as_arrays(ring()))[0]
    assert jax.tree.leaves(learned.base) == []
    assert jax.tree.leaves(learned.strength) == [] and len(jax.tree.leaves(learned)) == 2


@pytest.mark.slow
def test_rows_with_holes_are_scored_as_quadrature_scores_them():
    model = ring()
    share, log_z = density(model)
    x = jnp.array([[0.7, 0.0], [0.7, -0.9], [0.0, 0.0]])
    mask = jnp.array([[True, False], [True, True], [False, False]])
    ready = Normalised(AIS(400, 200), 200, 100).prepared(model, key=jr.key(0))
    batch = Row(x, mask=mask)
    value, error = np.zeros(3), np.zeros(3)
    for at, own in ready.parts(model, batch):
        rows = jax.tree.map(lambda leaf, at=at: leaf[at], batch)
        value[at], error[at] = own(model, rows, key=jr.key(1))
    line = jax.vmap(lambda b: -model.energy(jnp.stack([jnp.array(0.7), b])))(jnp.asarray(AXIS, jnp.float32))
    truth = [float(jax.nn.logsumexp(line)) + np.log(AXIS[1] - AXIS[0]) - log_z, -float(model.energy(x[1])) - log_z, 0]
    spread = np.sqrt(error**2 + ready.shared_error() ** 2)
    assert (np.abs(value[:2] - truth[:2]) < LIMIT * spread[:2]).all() and spread[:2].max() < 0.1
    assert value[2] == 0 and error[1] == 0


@pytest.mark.slow
def test_chains_from_a_row_bound_its_density_from_below():
    model = ring()
    x = jnp.array([[0.7, -0.9], [1.2, 0.1], [-1.0, -0.6]])
    value, error = RAISE(300, 100)(model, Row(x), key=jr.key(0))
    truth = -np.asarray(jax.vmap(model.energy)(x)) - density(model)[1]
    assert (value < truth + LIMIT * error).all() and (value > truth - 0.3).all()


EXACT = {"metropolis": MetropolisMoves(0.06), "hamiltonian": LEAPS}


def moments(points: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.array([weight @ f(points) for f in FEATURES])


FEATURES = (
    lambda p: p[:, 0],
    lambda p: p[:, 1],
    lambda p: p[:, 0] ** 2,
    lambda p: p[:, 1] ** 2,
    lambda p: np.hypot(p[:, 0], p[:, 1]),
    lambda p: (p[:, 0] > 0.5).astype(float),
)
GRID = np.stack(np.meshgrid(AXIS, AXIS, indexing="ij"), axis=-1).reshape(-1, 2)


@pytest.mark.parametrize("name", EXACT)
def test_moves_leave_the_law_as_it_is(name):
    """From exact draws, picked from a fine grid and jittered, ten steps on."""
    model = ring(EXACT[name])
    share = density(model)[0].ravel()
    stream = np.random.default_rng(0)
    first = GRID[stream.choice(len(GRID), size=4000, p=share)] + stream.uniform(-0.5, 0.5, (4000, 2)) * CELL**0.5
    after = jax.jit(jax.vmap(lambda x, k: walk(model.kernel(), x, 10, key=k)))(
        jnp.asarray(first, jnp.float32), jr.split(jr.key(0), 4000)
    )
    points = np.asarray(after)
    assert np.mean(np.any(points != first, axis=1)) > 0.9
    values = np.stack([f(points) for f in FEATURES])
    error = values.std(axis=1, ddof=1) / np.sqrt(4000)
    assert (np.abs(values.mean(axis=1) - moments(GRID, share)) < LIMIT * error + 1e-3).all()


def test_small_langevin_steps_nearly_leave_the_law_and_hold_what_is_held():
    model = ring(LangevinMoves(0.01))
    share = density(model)[0].ravel()
    stream = np.random.default_rng(0)
    first = jnp.asarray(GRID[stream.choice(len(GRID), size=4000, p=share)], jnp.float32)
    run = lambda row: jax.vmap(lambda x, k: walk(model.kernel(row), x, 20, key=k))  # noqa: E731
    points = np.asarray(jax.jit(run(None))(first, jr.split(jr.key(0), 4000)))
    assert np.abs(moments(points, np.full(4000, 1 / 4000)) - moments(GRID, share)).max() < 0.06
    held = Row(jnp.array([0.5, 0.0]), mask=jnp.array([True, False]))
    points = np.asarray(jax.jit(run(held))(first, jr.split(jr.key(0), 4000)))
    assert (points[:, 0] == 0.5).all() and points[:, 1].std() > 0.1


@pytest.mark.parametrize("name", MODELS)
def test_draws_have_the_moments_of_the_law(name):
    model = MODELS[name]()
    points = np.asarray(jax.jit(jax.vmap(lambda k: model.sample(key=k)[1]))(jr.split(jr.key(0), 3000)))
    values = np.stack([f(points) for f in FEATURES])
    error = values.std(axis=1, ddof=1) / np.sqrt(3000)
    assert (np.abs(values.mean(axis=1) - moments(GRID, density(model)[0].ravel())) < LIMIT * error + 1e-3).all()


# --- answers


def test_the_free_energy_sums_the_answers_out(x64):
    model, x = answering(), jnp.array([0.4, -0.8])
    energies = np.asarray(model.answers(Row(x)))
    alone = float(model.at(jnp.array(0.0)).energy(x))
    assert float(model.energy(x)) == pytest.approx(alone - 0.3 - np.log(np.exp(-energies).sum()), abs=1e-12)
    shares = np.asarray(model.posterior(Row(x)).mean())
    np.testing.assert_allclose(shares, np.exp(-energies) / np.exp(-energies).sum(), atol=1e-12)
    # the slope of log p(y | x) and that of log p(x) add up to the slope of minus the energy of both
    y = 1
    joint = jax.grad(lambda x: -model.answers(Row(x))[y] - model.at(jnp.array(0.0)).energy(x))(x)
    told = jax.grad(lambda x: -NLLLoss()(model.answers(Row(x)), y))(x)
    np.testing.assert_allclose(told - jax.grad(model.energy)(x), joint, atol=1e-12)
    hole = Row(jnp.array([0.4, 0.0]), mask=jnp.array([True, False]))
    np.testing.assert_allclose(model.answers(hole), model.answers(Row(jnp.array([0.4, -0.4]))), atol=1e-12)


def test_a_landscape_is_the_energy_at_each_place():
    model = ring()
    made = np.asarray(landscape(model, (-1.0, 0.0), (1.0, 2.0), 5))
    assert made.shape == (5, 5)
    assert made[1, 4] == pytest.approx(float(model.energy(jnp.array([-0.5, 2.0]))), rel=1e-5)


# --- recipes


def moons() -> tuple[np.ndarray, np.ndarray]:
    data = load_dataset("moons")
    return data.train, data.test


def adam(rate: float) -> Optimiser:
    return Optimiser(optax.adam, (rate,))


QUICK = {"hidden": (32,), "steps": 300, "sweeps": 20, "evidence": Normalised(AIS(100, 20), 50, 10), "random_state": 0}
LEARNING = {
    "persistent": Contrastive(Contrast(0.0, Part("net")), Persistent(1, 100), adam(1e-2)),
    "divergence": Contrastive(Contrast(0.0, Part("net")), ContrastiveDivergence(3), adam(1e-2)),
    "explicit": Descend(ScoreMatching(), adam(1e-2)),
    "sliced": Descend(SlicedScoreMatching(), adam(1e-2)),
    "denoising": Descend(DenoisingScoreMatching(0.2), adam(1e-2)),
    "noise": Descend(NoiseContrastive(5), adam(1e-2)),
}
LEAST = {"persistent": 0.05, "divergence": 0.1, "explicit": 0.15, "sliced": 0.15, "denoising": 0.1, "noise": 0.2}


def gaussian_score(X: np.ndarray, held: np.ndarray) -> float:
    """Mean log-likelihood of the best Gaussian with independent cells: what the net starts from."""
    z = (held - X.mean(axis=0)) / X.std(axis=0)
    return float(np.mean(np.sum(-0.5 * z**2 - np.log(X.std(axis=0)) - 0.5 * np.log(2 * np.pi), axis=1)))


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNING)
def test_every_way_to_learn_leaves_the_gaussian_behind(name):
    """In 300 steps; the numbers of whole runs are those of `ravine reproduce`."""
    X, held = moons()
    model = EnergyBased(**QUICK, learning=LEARNING[name]).fit(X)
    log_z = density(model.model_)[1]
    score = float(np.mean(-model.free_energy(held))) - log_z + float(model.schema_.log_det())
    assert score > gaussian_score(X, held) + LEAST[name]
    got = model.evaluate(held[:64])
    assert got.direction == "upper" and np.isfinite(got.log_likelihood)
    exact = float(np.mean(-model.free_energy(held[:64]))) - log_z + float(model.schema_.log_det())
    assert abs(got.log_likelihood - exact) < LIMIT * model.log_likelihood(held[:2]).shared_error + 0.01
    if name == "noise":
        assert abs(log_z) < 0.3  # the offset has learned it


@pytest.mark.slow
def test_the_verbs_of_a_net_of_energies():
    X, held = moons()
    X = X.copy()
    X[:50, 1] = np.nan
    model = EnergyBased(**QUICK, learning=LEARNING["noise"], particles=30).fit(X)
    assert model.sample(5).shape == (5, 2) and (model.sample(5) == model.sample(7)[:5]).all()
    holes = held[:6].copy()
    holes[:3, 1] = np.nan
    filled = model.impute(holes)
    assert (filled[~np.isnan(holes)] == holes[~np.isnan(holes)]).all() and np.isfinite(filled).all()
    draws = model.impute(holes, draws=3)
    assert draws.shape == (3, 6, 2) and len(np.unique(draws[:, 0, 1])) == 3 and (draws[:, 4] == holes[4]).all()
    assert model.log_likelihood(holes).direction == "estimate" and model.log_likelihood(held[:4]).direction == "upper"
    assert model.free_energy(held[:4]).shape == (4,)
    np.testing.assert_allclose(np.diff(model.free_energy(held[:4])), -np.diff(model.score_samples(held[:4])), atol=1e-4)
    for verb in ("transform", "fit_transform", "inverse_transform", "reconstruct", "receptive_fields"):
        assert not hasattr(model, verb)
        with pytest.raises(ValueError, match="EnergyBased has no latents"):
            getattr(model, verb)(held)


@pytest.mark.slow
def test_a_diagnosis_speaks_of_no_hidden_units():
    X = moons()[0][:120]
    told = str(EnergyBased(**QUICK, learning=LEARNING["noise"], particles=30).fit(X).diagnose(X))
    assert "samples: A classifier" in told and "the model has no hidden units" in told


def test_imputing_gives_the_conditional_mean():
    """Of the ring, by quadrature along the missing cell."""
    model = ring(sweeps=100)
    row = Row(jnp.array([0.5, 0.0]), mask=jnp.array([True, False]))
    made = jax.jit(jax.vmap(lambda k: expected_completion(model, row, 100, key=k)))(jr.split(jr.key(0), 200))
    made = np.asarray(made)
    energy = np.asarray(jax.vmap(lambda b: model.energy(jnp.stack([jnp.array(0.5), b])))(jnp.asarray(AXIS, float)))
    share = np.exp(-energy) / np.exp(-energy).sum()
    error = made[:, 1].std(ddof=1) / np.sqrt(len(made))
    assert (made[:, 0] == 0.5).all() and error < 0.05
    assert abs(made[:, 1].mean() - share @ AXIS) < LIMIT * error


def test_a_rule_is_a_field_like_any_other():
    """It is compared by value, spelled as text, and refused where it is none."""
    a, b = (EnergyBased(learning=Descend(ScoreMatching(), adam(1e-3))) for _ in range(2))
    assert a.learning == b.learning and spell(a.learning).startswith("Descend(objective=ScoreMatching()")
    assert "HamiltonianMoves" in spell(a.moves, defaults=True)
    with pytest.raises(ValueError, match="learning: expected AbstractRule or None"):
        EnergyBased(learning="score").fit(moons()[0])
    with pytest.raises(ValueError, match="real cells"):
        EnergyBased(kind="binary").fit(np.eye(4))
    assert isinstance(a.stages(100)[0], Stage)


def test_trials_are_of_fields_that_there_are():
    for recipe in (EnergyBased, EnergyClassifier):
        known = inspect.signature(recipe).parameters
        for trial in recipe.trials.values():
            assert set(trial.fields) <= set(known) and load_dataset(trial.data).test is not None
            recipe(**trial.fields)
            spell(dict(trial.fields))


def pinwheel() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    data = load_dataset("pinwheel")
    return data.train, data.labels[0], data.test, data.labels[1]


@pytest.mark.parametrize("loss", [NLLLoss(), MEELoss(), SquareSquareLoss()], ids=lambda loss: type(loss).__name__)
def test_a_classifier_of_energies_tells_the_arms_apart(loss):
    X, y, held, truth = pinwheel()
    rule = Descend(Discriminative(loss), adam(1e-2))
    model = EnergyClassifier(**(QUICK | {"steps": 600}), learning=rule).fit(X, np.array(list("abcde"))[y])
    assert (model.predict(held) == np.array(list("abcde"))[truth]).mean() > 0.95
    shares = model.predict_proba(held)
    assert shares.shape == (1000, 5) and np.allclose(shares.sum(axis=1), 1, atol=1e-5)
    energies = np.asarray(jax.vmap(lambda x: model.model_.answers(Row(x)))(model._row(model._checked(held)).x))
    assert (shares.argmax(axis=1) == energies.argmin(axis=1)).all()


@pytest.mark.slow
def test_a_joint_model_learns_from_rows_without_a_label_and_knows_odd_rows():
    X, y, held, truth = pinwheel()
    some = np.where(np.arange(1000) < 100, y, -1)
    rule = Contrastive(JointContrast(), Persistent(1, 100), adam(5e-3))
    model = EnergyClassifier(**(QUICK | {"steps": 1000, "hidden": (32, 32)}), learning=rule).fit(X, some)
    assert isinstance(model, EnergyModel) and (model.predict(held) == truth).mean() > 0.95
    odd = np.random.default_rng(0).uniform(-2.5, 2.5, size=(1000, 2))
    here, there = model.free_energy(held), model.free_energy(odd)
    assert np.mean(here[:, None] < there[None, :]) > 0.8  # area under the curve of an odd row's detection
    assert model.log_likelihood(held[:2]).direction == "upper" and model.transform(held[:2]).shape == (2, 5)
    for verb in ("inverse_transform", "reconstruct"):
        with pytest.raises(ValueError, match="no law of rows given a label"):
            getattr(model, verb)(held)
