"""Neural generative coding: what moves the cells, what synapses learn, norms, groups, and the law on top."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import LIMIT
from sklearn.datasets import load_digits

from ravine._check import Complaint
from ravine._tree import Fixed, trainable
from ravine.core import Row
from ravine.data import ArraySource, Schema
from ravine.dist import Gaussian
from ravine.evidence import AroundSettled
from ravine.models.diagonal_components import DiagonalCovariance
from ravine.models.errors import CorrelatedErrors, UnitErrors
from ravine.models.families import Diagonal, Full
from ravine.models.mixture import Mixture
from ravine.models.neural_coding import (
    Competition,
    FittedTop,
    NeuralCircuit,
    NeuralCoder,
    Separate,
    SlopedTranspose,
)
from ravine.nets import identity
from ravine.objectives import Hebbian
from ravine.recipes.neural_generative_coding import PDH, SYNAPSES, T1, T1_SIGMA, T2_LSIGMA, NeuralGenerativeCoding
from ravine.recognisers import NeuralSettling
from ravine.rules import Descend, IncomingNorm, Projected

MEMBERS = {"t1": T1, "t1-sigma": T1_SIGMA, "t2-lsigma": T2_LSIGMA, "pdh": PDH}
SMALL = Competition(2, 3, 0.15, 0.1)
WIDTHS = (5, 4, 4, 3)
ROW = np.array([1.0, 0.0, 1.0, 1.0, 0.0])


def wired(name: str) -> NeuralCircuit:
    circuit = MEMBERS[name]
    return circuit if circuit.competition is None else dataclasses.replace(circuit, competition=SMALL)


def coder(name: str = "t1", settling=None, spread: float = 0.7, seed: int = 0) -> NeuralCoder:
    how = settling or NeuralSettling(20, 0.1, 1e-3, MEMBERS[name].sparsity)
    return wired(name)(WIDTHS, (Diagonal(), 2), how, spread, key=jr.key(seed))


def placed(seed: int = 1) -> tuple[jax.Array, ...]:
    """Some state of all layers, the lowest first."""
    stream = np.random.default_rng(seed)
    return tuple(jnp.asarray(stream.normal(size=n)) for n in WIDTHS[1:])


# --- what moves the cells


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mask", [None, np.array([True, False, True, True, False])], ids=["whole", "holes"])
def test_a_step_of_t1_is_a_step_down_its_discrepancy(mask):
    """With neither leak nor Laplace prior, by automatic differentiation."""
    model, z = coder("t1"), placed()
    row = Row(jnp.asarray(ROW), None if mask is None else jnp.asarray(mask))
    down = jax.grad(lambda z: model.discrepancy(z[::-1], row))(z)
    assert all(np.allclose(a, -b, atol=1e-13) for a, b in zip(model.pressure(z, row), down, strict=True))
    assert max(float(jnp.abs(leaf).max()) for leaf in down) > 0.1
    begun = eqx.tree_at(lambda m: m.settling, model, NeuralSettling(1, 0.1, 0.0, 0.0))
    zero = model.resting(row)
    slope = jax.grad(lambda z: model.discrepancy(z[::-1], row))(zero)
    for at, g in zip(begun.posterior(row).latent[::-1], slope, strict=True):
        assert np.allclose(at, -0.1 * g, atol=1e-13)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MEMBERS)
def test_two_steps_of_each_member_by_hand(name):
    model, x = coder(name, NeuralSettling(2, 0.1, 0.01, 0.3)), ROW
    circuit, w = model.circuit, [np.asarray(a) for a in model.weights]
    phi = (lambda v: np.tanh(v)) if name == "t1" else (lambda v: np.maximum(v, 0))
    outward = (lambda v: np.maximum(v, 0)) if name == "pdh" else (lambda v: v)
    precisions = [np.eye(4), np.eye(4)]
    if circuit.correlated:
        precisions = [np.tril(e.root).T @ np.tril(e.root) for e in model.errors]
    z = [np.zeros(n) for n in WIDTHS[1:]]
    for _ in range(2):
        a = [phi(layer) for layer in z]
        into = [w[i] @ a[i] for i in range(3)]
        if circuit.skips:
            into = [into[0] + np.asarray(model.skips[0]) @ a[1], into[1] + np.asarray(model.skips[1]) @ a[2], into[2]]
        e = [x - 1 / (1 + np.exp(-into[0]))]
        e += [precisions[i - 1] @ (z[i - 1] - outward(into[i])) for i in (1, 2)]
        new = []
        for i in range(3):
            if name in ("t1", "t1-sigma"):
                drive = w[i].T @ e[i]
            else:
                drive = np.asarray(circuit.feedback.matrices[i]) @ e[i]
            drive = drive * (1 - np.tanh(z[i]) ** 2) if name == "t1" else drive
            lateral = np.asarray(SMALL.matrix(len(a[i]), (2, 2, 3)[i])) @ a[i] if circuit.competition else 0
            own = e[i + 1] if i < 2 else 0
            new.append(z[i] + 0.1 * (drive - own - lateral - 0.01 * z[i] - 0.3 * np.sign(z[i])))
        z = new
    for layer, at in zip(model.posterior(Row(jnp.asarray(x))).latent[::-1], z, strict=True):
        assert np.allclose(layer, at, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_linear_t1_reaches_the_golden_fixed_point():
    """The lower of two layers between a top that is held and one real cell: its energy is that of the closed form."""
    first, second = np.array([[0.5, -0.2], [0.1, 0.3], [0.4, 0.0]]), np.array([[0.3, -0.5, 0.2]])
    circuit = NeuralCircuit(identity, identity, SlopedTranspose())
    weights, top = (jnp.asarray(second), jnp.asarray(first)), Fixed(two_bumps(2))
    model = NeuralCoder(circuit, weights, (), (UnitErrors(),), UnitErrors(), top, NeuralSettling())
    row, held = Row(jnp.asarray([0.7])), jnp.asarray([1.0, 2.0])
    z = (jnp.zeros(3), held)
    for _ in range(300):
        z = (z[0] + 0.1 * model.pressure(z, row)[0], held)
    assert abs(float(model.discrepancy(z[::-1], row)) - 0.32014492753623186) < 1e-12
    rest = np.linalg.solve(np.eye(3) + second.T @ second, first @ [1.0, 2.0] + second.T @ [0.7])
    assert np.allclose(z[0], rest, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_linear_t1_with_a_leak_settles_where_the_linear_system_says():
    first, second = np.random.default_rng(2).normal(size=(4, 3)), np.random.default_rng(3).normal(size=(5, 4))
    circuit = NeuralCircuit(identity, identity, SlopedTranspose())
    settling = NeuralSettling(5_000, 0.03, 0.2)
    weights = (jnp.asarray(second), jnp.asarray(first))
    model = NeuralCoder(circuit, weights, (), (UnitErrors(),), UnitErrors(), Fixed(two_bumps(3)), settling)
    system = np.block([[np.eye(4) + second.T @ second, -first], [-first.T, first.T @ first]]) + 0.2 * np.eye(7)
    rest = np.linalg.solve(system, np.concatenate([second.T @ ROW, np.zeros(3)]))
    got = model.posterior(Row(jnp.asarray(ROW))).latent[::-1]
    assert np.allclose(np.concatenate(got), rest, atol=1e-9)


def test_groups_inhibit_their_own_and_excite_themselves():
    made = np.asarray(Competition(2, 3, 0.5, 0.25).matrix(6, 3))
    want = 0.25 * np.kron(np.eye(2), np.ones((3, 3)))
    np.fill_diagonal(want, -0.5)
    assert np.allclose(made, want, atol=1e-7)


# --- what synapses learn


def changes(model: NeuralCoder, batch: Row):
    parameters, rest = trainable(model)
    return jax.grad(lambda p: Hebbian()(eqx.combine(p, rest), batch, key=jr.key(0))[0])(parameters)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MEMBERS)
def test_synapses_learn_products_of_what_they_join(name):
    model = coder(name)
    rows = jnp.asarray(np.random.default_rng(0).integers(0, 2, (3, 5)).astype(float))
    got, w, s, e, p = changes(model, Row(rows)), [0, 0, 0], [0, 0], [0, 0, 0], [0, 0]
    for x in rows:
        z = model.posterior(Row(x)).latent[::-1]
        a, error = [model.circuit.activation(layer) for layer in z], model.error_cells(z, Row(x))
        w = [old - jnp.outer(error[i], a[i]) / 3 for i, old in enumerate(w)]
        s = [old - jnp.outer(error[i], a[i + 1]) / 3 for i, old in enumerate(s)]
        e = [old - jnp.outer(a[i], error[i]) / 3 for i, old in enumerate(e)]
        if model.circuit.correlated:
            for i, own in enumerate(model.errors):
                raw = z[i] - model.predictions(z)[i + 1]
                root = jnp.tril(own.root)
                p[i] = p[i] + (jnp.tril(jnp.outer(root @ raw, raw)) - jnp.diag(1 / jnp.diagonal(root))) / 3
    assert all(np.allclose(g, v, atol=1e-12) for g, v in zip(got.weights, w, strict=True))
    assert all(np.allclose(g, v, atol=1e-12) for g, v in zip(got.skips, s, strict=False))
    assert len(got.skips) == (2 if name == "pdh" else 0)
    if isinstance(model.circuit.feedback, Separate):
        assert all(np.allclose(g, v, atol=1e-12) for g, v in zip(got.circuit.feedback.matrices, e, strict=True))
    if model.circuit.correlated:
        assert all(np.allclose(g.root, v, atol=1e-12) for g, v in zip(got.errors, p, strict=True))
    moved = [leaf for leaf in jax.tree.leaves(got) if bool(jnp.any(leaf != 0))]
    assert len(moved) == {"t1": 3, "t1-sigma": 5, "t2-lsigma": 8, "pdh": 10}[name]


@pytest.mark.usefixtures("x64")
def test_of_t1_the_products_are_the_slope_of_the_discrepancy():
    model, x = coder("t1"), jnp.asarray(ROW)
    latent = model.posterior(Row(x)).latent
    parameters, rest = trainable(model)
    want = jax.grad(lambda p: eqx.combine(p, rest).discrepancy(latent, Row(x)))(parameters)
    got = changes(model, Row(x[None]))
    assert all(np.allclose(a, b, atol=1e-12) for a, b in zip(got.weights, want.weights, strict=True))
    value = Hebbian()(model, Row(x[None]), key=jr.key(0))
    assert np.isclose(value[0], model.discrepancy(latent, Row(x)), atol=1e-12)
    assert np.isclose(value[1]["discrepancy"], value[0], atol=1e-12)


@pytest.mark.parametrize("name", ["t1", "pdh"])
def test_no_cell_gets_more_than_its_norm(name):
    """After a step of learning, every matrix of every kind; those that are short stay as they are."""
    model, batch = coder(name, spread=2.0), Row(jnp.asarray(np.tile(ROW, (3, 1)), jnp.float32))
    short = eqx.tree_at(lambda m: m.weights[1], model, 0.01 * model.weights[1])
    rule = Projected(Descend(Hebbian()), IncomingNorm(SYNAPSES, 1.0))
    state = rule.init(short, batch, key=jr.key(0))
    after = rule.step(short, state, batch, key=jr.key(0), step=jnp.array(0))[0]
    feedback = after.circuit.feedback
    matrices = [*after.weights, *after.skips, *(feedback.matrices if isinstance(feedback, Separate) else ())]
    norms = [np.linalg.norm(np.asarray(m), axis=1) for m in matrices]
    assert all(n.max() <= 1 + 1e-6 for n in norms)
    assert sum(bool(np.isclose(n.max(), 1, atol=1e-5)) for n in norms) >= len(norms) - 1
    bare = rule.rule.step(short, state, batch, key=jr.key(0), step=jnp.array(0))[0]
    assert np.array_equal(after.weights[1], bare.weights[1])
    assert len(matrices) == (3 if name == "t1" else 8)


# --- as a law of rows


def two_bumps(n: int) -> Mixture:
    means = jnp.asarray(np.stack([-np.ones(n), np.linspace(0.5, 1.5, n)]))
    return Mixture(jnp.asarray([0.3, -0.2]), DiagonalCovariance(means, jnp.asarray(np.full((2, n), 0.6))))


def with_top(model: NeuralCoder) -> NeuralCoder:
    n = model.weights[-1].shape[1]
    return eqx.tree_at(lambda m: m.top, model, Fixed(two_bumps(n)), is_leaf=lambda node: isinstance(node, Fixed))


@pytest.mark.usefixtures("x64")
def test_rows_are_predicted_from_the_top_down():
    model, top = coder("pdh"), jnp.asarray([0.5, 1.0, -0.2])
    w, s, relu = model.weights, model.skips, lambda v: jnp.maximum(v, 0)
    second = relu(w[2] @ relu(top))
    first = relu(w[1] @ relu(second) + s[1] @ relu(top))
    want = jax.nn.sigmoid(w[0] @ relu(first) + s[0] @ relu(second))
    assert np.allclose(model.likelihood(top).mean(), want, atol=1e-14)
    assert np.allclose(model.likelihood((top, second)).mean(), want, atol=1e-14)
    assert not np.allclose(model.likelihood((top, second, first + 1)).mean(), want)


@pytest.mark.usefixtures("x64")
def test_the_law_of_rows_is_normalised_and_sampled_around_the_settled_top():
    """One top cell: log p of all 8 rows by quadrature, which add up to 1; the estimate agrees, from below."""
    model = with_top(T1((3, 2, 1), (Diagonal(), 2), NeuralSettling(30), 1.5, key=jr.key(2)))
    rows = jnp.asarray([[a, b, c] for a in (0.0, 1.0) for b in (0.0, 1.0) for c in (0.0, 1.0)])
    grid = jnp.linspace(-10, 12, 4_001)
    joint = jax.vmap(lambda x: jax.vmap(lambda z: model.log_joint(z[None], Row(x)))(grid))(rows)
    exact = np.asarray(jax.nn.logsumexp(joint, axis=1)) + np.log(22 / 4_000)
    assert abs(np.exp(exact).sum() - 1) < 1e-9
    value, error = AroundSettled(20_000, widen=1.5)(model, Row(rows), key=jr.key(0))
    assert np.all(np.abs(value - exact) < LIMIT * np.asarray(error) + 1e-3)
    assert np.all(np.asarray(error) < 0.05)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("family", [Diagonal, Full])
def test_the_curvature_of_the_law_on_top(family):
    """Far from all but one component: its precision, and the Gauss-Newton part of the likelihood."""
    model = coder("t1")
    means, wide = jnp.asarray([[0.0, 0.0, 0.0], [40.0, 40.0, 40.0]]), jnp.asarray([0.5, 1.0, 2.0])
    shapes = jnp.stack([wide, wide]) if family is Diagonal else jnp.stack([jnp.diag(wide)] * 2)
    top = Fixed(Mixture(jnp.zeros(2), family().of(means, shapes)))
    model = eqx.tree_at(lambda m: m.top, model, top, is_leaf=lambda node: isinstance(node, Fixed))
    z, row = jnp.asarray([0.1, -0.3, 0.2]), Row(jnp.asarray(ROW))
    logits = lambda z: model.likelihood(z).logits  # noqa: E731
    share = jax.nn.sigmoid(logits(z))
    slope = jax.jacfwd(logits)(z)
    want = np.diag(1 / np.asarray(wide)) + np.asarray(slope.T @ ((share * (1 - share))[:, None] * slope))
    assert np.allclose(model.curvature(z, row), want, atol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_top_is_fitted_to_where_it_settles():
    """Two kinds of rows and two components: means and shares are those of each kind's settled tops."""
    stream = np.random.default_rng(0)
    kinds = np.array([[1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0]])
    labels = stream.integers(0, 2, 60)
    rows = kinds[labels]
    rows[np.arange(60), 2] = stream.integers(0, 2, 60)
    model = coder("t1", NeuralSettling(40, 0.1), spread=1.0)
    fitted = FittedTop(Diagonal(), 2, rows=60, passes=30)(model, ArraySource(Row(jnp.asarray(rows))), key=jr.key(0))
    tops = np.stack([np.asarray(model.settled(Row(jnp.asarray(x)))) for x in rows])
    mixture = fitted.top.value
    order = np.argsort(np.asarray(mixture.components.means)[:, 0])
    own = sorted((tops[labels == c] for c in (0, 1)), key=lambda t: t[:, 0].mean())
    found = np.asarray(mixture.components.means)[order]
    assert np.allclose(found, [t.mean(axis=0) for t in own], atol=1e-6)
    assert np.allclose(jax.nn.softmax(mixture.logits)[order], [len(t) / 60 for t in own], atol=1e-6)
    assert isinstance(jax.tree.leaves(fitted.prior().laws, is_leaf=lambda n: isinstance(n, Gaussian))[0], Gaussian)


# --- the recipe


def patterns(rows: int = 80) -> np.ndarray:
    stream = np.random.default_rng(0)
    kinds = np.array([[1, 1, 1, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1, 1, 0]])
    X = kinds[stream.integers(0, 2, rows)]
    return np.where(stream.random(X.shape) < 0.03, 1 - X, X).astype(float)


def fitted(circuit: NeuralCircuit = T1, **fields) -> NeuralGenerativeCoding:
    given = {"hidden": (12, 6), "components": 2, "steps": 150, "batch_size": 40, "rate": 1e-2} | fields
    given |= {"settling_steps": 20, "validation": 0.0, "random_state": 0, "evidence": AroundSettled(100)}
    return NeuralGenerativeCoding(circuit=circuit, **given).fit(patterns())


@pytest.mark.slow
def test_learning_lowers_the_discrepancy_and_completes_patterns():
    """Observed cells are never altered; missing ones follow the kind of the row."""
    model, X = fitted(), patterns(20)
    lines = [line["discrepancy"] for line in model.history_ if line.get("discrepancy") is not None]
    assert lines[-1] < 0.7 * lines[0]
    holes = X.copy()
    holes[:, 5:] = np.nan
    for made in (model.impute(holes), *model.impute(holes, draws=2)):
        assert np.array_equal(made[:, :5], X[:, :5])
        assert np.isin(made, (0, 1)).all()
    assert np.mean(model.impute(holes)[:, 5:] == X[:, 5:]) > 0.85
    assert np.mean(np.abs(model.reconstruct(X) - X)) < 0.35
    top, lower = model.layers(X)
    assert np.array_equal(top, model.transform(X))
    assert lower.shape == (20, 12)


def test_sparsity_is_the_share_of_active_cells():
    model, X = fitted(steps=30), patterns(7)
    top, lower = model.layers(X)
    assert np.allclose(model.sparsity(X), [np.mean(lower > 0), np.mean(top > 0)], atol=1e-7)


@pytest.mark.slow
def test_log_p_is_a_bound_and_rows_are_drawn():
    model, X = fitted(), patterns(10)
    got = model.log_likelihood(X)
    assert got.direction == "lower"
    assert got.value.mean() > -8 * np.log(2)  # better than coins
    assert model.sample(5).shape == (5, 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t1-sigma", "t2-lsigma", "pdh"])
def test_the_other_members_learn(name):
    model = fitted(wired(name), hidden=(12, 6))
    lines = [line["discrepancy"] for line in model.history_ if line.get("discrepancy") is not None]
    assert lines[-1] < 0.85 * lines[0]
    assert np.isfinite(model.score(patterns(6)))


def test_only_cells_settle_so():
    with pytest.raises(Complaint, match="NeuralSettling: expected a net of cells"):
        NeuralSettling()(UnitErrors(), Row(jnp.ones(2)))
    assert isinstance(coder("t1-sigma").errors[0], CorrelatedErrors)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t1", "pdh"])
def test_real_digits_are_reconstructed_better_than_by_their_mean(name):
    """8 x 8 digits as bits: the discrepancy falls in every fifth of learning; the cross-entropy is below the mean's."""
    X = (load_digits().data > 7).astype(float)
    train, test = X[:1500], X[1500:]
    circuit = MEMBERS[name] if name == "t1" else dataclasses.replace(PDH, competition=Competition(8, 8, 0.15, 0.1))
    fields = {"hidden": (64, 64), "components": 10, "steps": 150, "batch_size": 100, "settling_steps": 20}
    model = NeuralGenerativeCoding(circuit=circuit, validation=0.0, random_state=0, rate=3e-3, **fields)
    rule = model.stages(len(train))[0].rule
    net, batch = model.build(Schema((64,), "binary"), key=jr.key(0)), Row(jnp.asarray(train, jnp.float32))
    found, order = [], np.random.default_rng(0).permutation(np.tile(np.arange(1500), 10))
    step, state = eqx.filter_jit(rule.step), rule.init(net, batch, key=jr.key(0))
    for i, places in enumerate(order.reshape(150, 100)):
        net, state, metrics = step(net, state, Row(batch.x[places]), key=jr.key(i), step=jnp.array(i))
        found.append(float(metrics["discrepancy"]))
    fifths = np.mean(np.reshape(found, (5, 30)), axis=1)
    assert np.all(np.diff(fifths) < 0)
    shown = jax.jit(jax.vmap(lambda x: net.likelihood(net.posterior(Row(x)).latent).mean()))
    made = shown(jnp.asarray(test, jnp.float32))
    nats = lambda p: -np.sum(test * np.log(p) + (1 - test) * np.log1p(-p), axis=1).mean()  # noqa: E731
    mean = np.broadcast_to(np.clip(train.mean(axis=0), 1e-3, 1 - 1e-3), test.shape)
    assert nats(np.clip(np.asarray(made, float), 1e-6, 1 - 1e-6)) < 0.8 * nats(mean)


def test_layers_that_are_not_made_of_whole_groups_are_refused():
    with pytest.raises(ValueError, match="hidden: expected a multiple of the 12 cells of a group, got 6; change it"):
        NeuralGenerativeCoding(hidden=(6, 18)).fit(np.eye(4))
    with pytest.raises(ValueError, match="hidden: expected a multiple of the 18 cells of a group, got 12"):
        NeuralGenerativeCoding(hidden=(12, 12)).fit(np.eye(4))
