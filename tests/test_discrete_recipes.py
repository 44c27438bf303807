"""Recipes with discrete latents: their bounds against enumeration, and models that are trained relaxed."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import LIMIT, MODELS, binary_rows, some, worst
from scipy.special import expit, logsumexp

import ravine as rv
from ravine._tree import Fixed, Running, is_running, trainable
from ravine.core import Row
from ravine.data import Schema, load_dataset
from ravine.dist import IGR, Bernoulli, BinaryConcrete, IGRClasses, Rounded, even, fit_prior, relaxed_law
from ravine.evidence import ImportanceWeighted
from ravine.fitting import hardened
from ravine.gradients import NVIL, REBAR, RLOO, SIMPLE, VIMCO, DisARM, Enumerate, Pathwise, ScoreFunction
from ravine.models.directed import Learned
from ravine.nets import Signed
from ravine.objectives import ELBO, IWAE, AnalyticELBO, Centring, DReG, Relaxed
from ravine.posteriors import OneNode
from ravine.rules import Descend, Optimiser

TINY: dict[str, dict[str, Any]] = {
    "SigmoidBeliefNet": {"layers": (2, 3)},
    "ConcreteVAE": {"layers": (3,)},
    "IGRVAE": {"latents": 2, "classes": 3, "hidden": (5,)},
    "IMLEVAE": {"groups": 2, "items": 4, "chosen": 2, "hidden": (5,)},
}
WIDTHS = {"SigmoidBeliefNet": 5, "ConcreteVAE": 3, "IGRVAE": 6, "IMLEVAE": 8}
CENTRES = (np.array([0.3, -0.2]), np.array([0.1, 0.4, -0.5]))


def tiny(name: str, **fields: Any) -> Any:
    return getattr(rv, name)(**TINY[name] | fields)


def schema(columns: int = 4) -> Schema:
    return Schema.infer(np.array([[1.0] * columns, [0.0] * columns, [0.0] * columns, [1.0, *[0.0] * (columns - 1)]]))


def off_centre(model: Any) -> Any:
    """The model with every running mean away from 0, and a learned prior away from even."""
    signed = lambda node: isinstance(node, Signed)  # noqa: E731

    def moved(node: Any) -> Any:
        running = signed(node) and isinstance(node.centre, Running)
        return Signed(node.net, Running(jnp.asarray(CENTRES[node.layer])), node.layer) if running else node

    model = jax.tree.map(moved, model, is_leaf=signed)
    return eqx.tree_at(lambda m: m.p.prior_law.first.logits, model, jnp.array([0.6, -0.9]))


@functools.cache
def net() -> Any:
    """A belief net with layers of 2 and 3 bits, and tanh units between them."""
    return off_centre(tiny("SigmoidBeliefNet", links="~").build(schema(), key=jr.key(3)))


# --- the belief net against enumeration


def straight(link: Signed, x: np.ndarray, centre: np.ndarray) -> np.ndarray:
    h = 2 * x - 1 - centre
    for i, layer in enumerate(link.net.layers):
        h = np.asarray(layer.weight) @ (np.tanh(h) if i else h) + np.asarray(layer.bias)
    return h


def log_bits(logits: np.ndarray, x: np.ndarray) -> float:
    return float(np.sum(np.log(np.where(x == 1, expit(logits), expit(-logits)))))


def joint_and_proposal(model: Any, x: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log p(x, z) and log q(z | x) of all 32 latents, without Ravine."""
    log_p, log_q = [], []
    for bits in itertools.product([0.0, 1.0], repeat=5):
        top, low = np.array(bits[:2]), np.array(bits[2:])
        down, shown = model.p.prior_law.conditionals[0].net, model.p.conditional.net
        prior = log_bits(np.asarray(model.p.prior_law.first.logits), top)
        prior += log_bits(straight(down, top, CENTRES[0]), low)
        log_p.append(prior + log_bits(straight(shown, low, CENTRES[1]), x))
        first = log_bits(straight(model.q.first.net, x, 2 * base - 1), low)
        log_q.append(first + log_bits(straight(model.q.steps[0].net, low, CENTRES[1]), top))
    return np.array(log_p), np.array(log_q)


@pytest.mark.parametrize("k", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_bounds_of_a_belief_net_are_those_of_enumeration(k, x64):
    model, x = net(), np.array([1.0, 0.0, 1.0, 1.0])
    log_p, log_q = joint_and_proposal(model, x, np.asarray(schema().base))
    q, log_w, row = np.exp(log_q), log_p - log_q, Row(jnp.asarray(x))
    assert q.sum() == pytest.approx(1) and np.ptp(log_w) > 1
    bound = [ELBO(Enumerate()), IWAE(2, Enumerate())][k - 1].bound
    one = q @ log_w
    pairs = q @ (np.logaddexp(log_w[:, None], log_w[None]) - np.log(2)) @ q
    got = float(jax.jit(lambda: bound(model, row, key=jr.key(0)))())
    assert got == pytest.approx([one, pairs][k - 1], abs=1e-10) and pairs > one + 0.01


@pytest.mark.slow
def test_many_draws_reach_the_evidence_of_enumeration(x64):
    model, x = net(), np.array([1.0, 0.0, 1.0, 1.0])
    row, log_p = Row(jnp.asarray(x)), joint_and_proposal(model, x, np.asarray(schema().base))[0]
    many = jax.jit(lambda: ImportanceWeighted(4000)(model, jax.tree.map(lambda a: a[None], row), key=jr.key(1)))()
    assert abs(float(many[0][0]) - logsumexp(log_p)) < LIMIT * float(many[1][0])


def test_a_belief_net_lists_its_layers_top_first(x64):
    z, x = net().sample(key=jr.key(0))
    assert [layer.shape for layer in z] == [(2,), (3,)] and x.shape == (4,)
    got = net().p.conditional.net.net.layers[-1].bias
    np.testing.assert_allclose(expit(np.asarray(got)), np.clip(schema().base, 0.01, 0.99))


@pytest.mark.parametrize(
    "gradient", [NVIL(width=3), REBAR(), VIMCO(), RLOO(2), DisARM()], ids=lambda g: type(g).__name__
)
def test_what_an_estimator_learns_stands_beside_the_model(gradient):
    made = tiny("SigmoidBeliefNet", objective=IWAE(2, gradient)).build(schema(), key=jr.key(0))
    assert isinstance(made, Learned) == isinstance(gradient, NVIL | REBAR)


# --- centred activities


@pytest.mark.slow
def test_centres_follow_the_mean_activities_and_nothing_else(x64):
    model, objective = net(), ELBO(Enumerate())
    batch = Row(jnp.array([[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]]), weight=jnp.array([1.0, 3.0]))
    (after, metrics), (plain, same) = stepped(model, Centring(objective), batch), stepped(model, objective, batch)
    assert metrics["loss"] == same["loss"]
    means = jax.vmap(lambda row: model.posterior(row).mean())(batch)
    top, low = (np.array([1, 3]) @ np.asarray(z) / 4 for z in means)
    nets = after.p.prior_law.conditionals[0].net, after.q.steps[0].net, after.p.conditional.net
    for link, layer, mean in zip(nets, (0, 1, 1), (top, low, low), strict=True):
        np.testing.assert_allclose(link.centre.value, 0.9 * CENTRES[layer] + 0.1 * (2 * mean - 1), rtol=1e-12)
    np.testing.assert_array_equal(plain.p.conditional.net.centre.value, CENTRES[1])
    for a, b in zip(jax.tree.leaves(still(after)), jax.tree.leaves(still(plain)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-14)


def stepped(model: Any, objective: Any, batch: Row) -> tuple[Any, Any]:
    """The model and the metrics after one step of descent."""
    rule = Descend(objective, Optimiser(optax.sgd, (0.1,)))

    @eqx.filter_jit
    def step(model):
        state = rule.init(model, batch, key=jr.key(0))
        return rule.step(model, state, batch, key=jr.key(1), step=jnp.array(0))

    after, _, metrics = step(model)
    return after, metrics


def still(model: Any) -> Any:
    """The arrays of a model that are no running means."""
    return eqx.filter(jax.tree.map(lambda n: None if is_running(n) else n, model, is_leaf=is_running), eqx.is_array)


# --- relaxed models


def igr() -> Any:
    return tiny("IGRVAE").build(schema(3), key=jr.key(1))


RELAXED = {
    "bits": (MODELS["bits"], ELBO(Pathwise())),
    "belief-net": (MODELS["belief-net"], IWAE(2, Pathwise())),
    "one-hot": (MODELS["one-hot"], ELBO(Pathwise())),
    "igr": (igr, AnalyticELBO(Pathwise())),
}


@pytest.mark.parametrize("name", some(RELAXED, "bits"))
def test_the_gradient_of_a_relaxed_bound_is_its_slope_at_the_same_noise(name, x64):
    make, objective = RELAXED[name]
    objective, batch = Relaxed(objective), binary_rows()
    parameters, rest = trainable(jax.tree.map(jnp.asarray, make()))
    loss = jax.jit(lambda p: objective(eqx.combine(p, rest), batch, key=jr.key(5))[0])
    leaves, structure = jax.tree.flatten(parameters)
    way = [jr.normal(jr.key(i), leaf.shape) for i, leaf in enumerate(leaves)]
    at = lambda h: loss(jax.tree.unflatten(structure, [a + h * v for a, v in zip(leaves, way, strict=True)]))  # noqa: E731
    slope = sum(jnp.vdot(g, v) for g, v in zip(jax.tree.leaves(jax.jit(jax.grad(loss))(parameters)), way, strict=True))
    assert float((at(1e-5) - at(-1e-5)) / 2e-5) == pytest.approx(float(slope), rel=1e-6)
    assert abs(float(slope)) > 0.01


def test_a_relaxed_bound_is_made_of_relaxed_densities_and_points(x64):
    model, row, key = MODELS["bits"](), Row(jnp.array([1.0, 0.0, 1.0])), jr.key(7)
    got = []

    def cost(z, log_q):
        got.append(z)
        return log_q

    q = np.asarray(model.posterior(row).nodes()[0].logits)
    p = np.asarray(model.prior().logits)
    kept = OneNode(BinaryConcrete(jnp.asarray(q), 0.8)).expect(cost, Pathwise(), key=key)
    y = np.asarray(got[0])
    density = lambda l, t: np.sum(np.log(t) - t * y + l - 2 * np.log1p(np.exp(l - t * y)))  # noqa: E731, E741
    assert float(kept) == pytest.approx(density(q, 0.8))
    soft = expit(y)
    logits = np.asarray(model.p.conditional.net(jnp.asarray(soft)))
    fit = np.sum(np.where(np.asarray(row.x) == 1, np.log(expit(logits)), np.log(expit(-logits))))
    bounds: list[Any] = []

    def spy(relaxed, batch, *, key):
        bounds.append(ELBO(Pathwise()).bound(relaxed, row, key=key))
        return bounds[0], {}

    Relaxed(spy, 0.8, 0.3)(model, row, key=key)
    assert float(bounds[0]) == pytest.approx(fit + density(p, 0.3) - density(q, 0.8), rel=1e-10)


@pytest.mark.parametrize("name", some(["bits", "belief-net"], "bits"))
def test_a_cold_relaxed_bound_is_that_of_the_discrete_model_where_nothing_diverges(name, x64):
    """Where q(z | x) = p(z) the densities cancel, and cold points are bits."""
    model, row = MODELS[name](), Row(jnp.array([1.0, 0.0, 1.0]))
    if name == "bits":
        still = jax.tree.map(jnp.zeros_like, model.q.conditional.net)
        still = eqx.tree_at(lambda n: n.bias, still, model.prior().logits)
        model = eqx.tree_at(lambda m: m.q.conditional.net, model, still)
    else:
        nets = lambda m: (m.p.prior_law.conditionals[0].net.weight, m.q.first.net.weight, m.q.steps[0].net.weight)  # noqa: E731
        model = eqx.tree_at(nets, model, tuple(map(jnp.zeros_like, nets(model))))
        ends = lambda m: (m.q.first.net.bias, m.q.steps[0].net.bias)  # noqa: E731
        model = eqx.tree_at(ends, model, (model.p.prior_law.conditionals[0].net.bias, model.p.prior_law.first.logits))
    exact = float(ELBO(Enumerate()).bound(model, row, key=jr.key(0)))
    batch = jax.tree.map(lambda leaf: leaf[None], row)
    cold = Relaxed(ELBO(Pathwise()), 1e-4, 1e-4)
    draws = -jax.jit(jax.vmap(lambda k: cold(model, batch, key=k)[0]))(jr.split(jr.key(1), 4000))
    assert worst(np.asarray(draws)[:, None], exact) < LIMIT


def test_early_stopping_looks_at_the_discrete_bound():
    hard = hardened(Centring(Relaxed(DReG(3), 0.5)))
    assert hard == Centring(IWAE(3, ScoreFunction()))
    assert hardened(Relaxed(AnalyticELBO(Pathwise()))) == IWAE(1, ScoreFunction())


def test_what_has_no_relaxation_is_refused():
    with pytest.raises(TypeError, match="Gaussian has no relaxation; Bernoulli, OneHot and Rounded have one"):
        Relaxed(ELBO(Pathwise()))(MODELS["vae"](), binary_rows(), key=jr.key(0))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"classes": 1}, "classes of a rounded IGR: expected at least 2, got 1"),
        ({"temperature": 0.0}, "above 0, got 0"),
    ],
)
def test_an_igr_vae_needs_classes_and_warmth(fields, line):
    with pytest.raises(ValueError, match=line):
        tiny("IGRVAE", **fields).build(schema(), key=jr.key(0))


# --- rounded Gaussians


@pytest.mark.parametrize("classes", some([2, 3, 10], 3))
def test_even_classes_are_even(classes, x64):
    np.testing.assert_allclose(even((2, classes), 0.7).mean(), 1 / classes, atol=1e-6)


@pytest.mark.slow
def test_even_classes_are_what_fitting_finds(x64):
    fitted = fit_prior(jnp.full(5, 0.2), 0.7)
    np.testing.assert_allclose(fitted.location, even((5,), 0.7).soft.location, atol=1e-4)


def test_a_rounded_law_is_that_of_the_largest_coordinate(x64):
    soft = IGRClasses(0.3)(jnp.array([0.5, -0.4, 0.2, 1.0, 0.3, -1.0, 0.6, 0.1]), (2, 3))
    assert relaxed_law(soft, 0.9) is soft.soft

    @jax.jit
    def answers() -> tuple:
        values, keys = soft.support(), jr.split(jr.key(0), 20_000)
        points = soft.soft.relaxed(jax.vmap(lambda k: soft.soft.sample(key=k))(keys))
        drawn = jax.vmap(lambda k: soft.sample(key=k))(keys)
        return values, jax.vmap(soft.log_prob)(values), jax.nn.one_hot(jnp.argmax(points, -1), 3), drawn, soft.mean()

    values, log_mass, rounded, drawn, mean = map(np.asarray, answers())
    assert np.exp(log_mass).sum() == pytest.approx(1)
    np.testing.assert_allclose(np.tensordot(np.exp(log_mass), values, 1), mean, atol=1e-12)
    assert worst(rounded.reshape(20_000, -1), mean.ravel()) < LIMIT
    assert worst(drawn.reshape(20_000, -1), mean.ravel()) < LIMIT


def test_the_divergence_of_igr_is_that_of_the_gaussians(x64):
    model, batch = igr(), binary_rows()
    metrics = jax.jit(lambda: Relaxed(AnalyticELBO(Pathwise()))(model, batch, key=jr.key(0))[1])()
    total = 0.0
    for i in range(3):
        q = model.posterior(jax.tree.map(lambda leaf, i=i: leaf[i], batch)).nodes()[0].soft
        m, s = np.asarray(q.location), np.asarray(q.scale)
        m0 = np.asarray(model.prior().soft.location)
        total += np.sum(-np.log(s) + (s**2 + (m - m0) ** 2) / 2 - 0.5) / 3
    assert float(metrics["kl"]) == pytest.approx(total) and total > 1e-4
    assert isinstance(model.prior(), Rounded) and isinstance(model.prior().soft, IGR)
    assert isinstance(model.p.prior_law, Fixed)


# --- the recipes


def digits() -> tuple[np.ndarray, np.ndarray]:
    X = (load_dataset("digits").train >= 8).astype(float)
    return X[:1500], X[1500:]


QUICK = {"steps": 30, "random_state": 0, "particles": 20, "batch_size": 20, "evidence": ImportanceWeighted(8)}


@pytest.mark.parametrize("name", some(TINY))
def test_a_recipe_answers_in_discrete_terms(name, tmp_path):
    X = (np.random.default_rng(0).uniform(size=(80, 5)) < [0.2, 0.8, 0.5, 0.4, 0.6]).astype(float)
    X[::7, 2] = np.nan
    model = tiny(name, **QUICK).fit(X)
    code = model.transform(X[:9])
    assert code.shape == (9, WIDTHS[name]) and (code >= 0).all() and (code <= 1).all()
    assert set(np.unique(model.sample(20))) <= {0.0, 1.0} and model.sample(4).shape == (4, 5)
    filled = model.impute(X[:8])
    assert filled.shape == (8, 5) and not np.isnan(filled).any()
    np.testing.assert_array_equal(filled[~np.isnan(X[:8])], X[:8][~np.isnan(X[:8])])
    latent, _ = model.model_.sample(key=jr.key(0))
    assert all(set(np.unique(layer)) <= {0.0, 1.0} for layer in jax.tree.leaves(latent))
    again = rv.load(model.save(tmp_path))
    np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
    assert again.objective == model.objective


LEARNING: dict[str, tuple[str, dict[str, Any]]] = {
    "concrete": ("ConcreteVAE", {"layers": (16,), "rate": 1e-2}),
    "concrete-tanh": ("ConcreteVAE", {"layers": (8, 16), "links": "~", "rate": 5e-3}),
    "vimco": ("SigmoidBeliefNet", {"layers": (16,), "rate": 1e-2}),
    "nvil": ("SigmoidBeliefNet", {"layers": (8, 16), "objective": ELBO(NVIL(width=16)), "rate": 5e-3}),
    "disarm": ("SigmoidBeliefNet", {"layers": (16,), "objective": ELBO(DisARM()), "rate": 1e-2}),
    "igr": ("IGRVAE", {"latents": 8, "classes": 4, "hidden": (64,), "rate": 1e-2, "temperature": 0.2}),
}


@pytest.mark.parametrize("name", some(LEARNING))
def test_a_recipe_learns_that_pixels_belong_together(name):
    """Held-out bits of digits are told at least 3 nats better than by independent pixels."""
    train_rows, held = digits()
    share = (train_rows.sum(axis=0) + 1) / (len(train_rows) + 2)
    alone = (held * np.log(share) + (1 - held) * np.log1p(-share)).sum(axis=1).mean()
    recipe, fields = LEARNING[name]
    fields = fields | {"steps": 600 if name == "concrete" else 2000, "batch_size": 50, "random_state": 0}
    model = getattr(rv, recipe)(kind="binary", evidence=ImportanceWeighted(32), **fields).fit(train_rows)
    assert model.score(held) > alone + 3


@pytest.mark.parametrize("recipe", [rv.IMLEVAE, rv.IGRVAE])
def test_the_divergence_comes_in_slowly(recipe):
    weight = recipe(steps=300).objective.beta
    assert [float(weight(jnp.array(step))) for step in (0, 50, 100, 300)] == [0.0, 0.5, 1.0, 1.0]
    assert float(recipe(warm_up=0.0).objective.beta(jnp.array(1))) == 1.0
    with pytest.raises(ValueError, match="warm_up: expected a share from 0 to 1, got 2.0"):
        recipe(warm_up=2.0).stages(100)


SUBSETS: dict[str, Any] = {"groups": 4, "items": 8, "chosen": 4, "hidden": (64,), "rate": 3e-3, "batch_size": 50}


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [rv.IMLEVAE.gradient, SIMPLE(), RLOO(4)])
def test_latent_subsets_tell_more_than_independent_pixels(gradient):
    """Of held-out digits, by more than five standard errors of what independent pixels tell."""
    train_rows, held = digits()
    share = (train_rows.sum(axis=0) + 1) / (len(train_rows) + 2)
    alone = (held * np.log(share) + (1 - held) * np.log1p(-share)).sum(axis=1)
    fields = SUBSETS | {"gradient": gradient, "steps": 2000, "evidence": ImportanceWeighted(32), "random_state": 0}
    model = rv.IMLEVAE(kind="binary", **fields).fit(train_rows)
    assert model.score(held) > alone.mean() + 5 * alone.std() / np.sqrt(len(held))


@pytest.mark.slow
def test_running_centres_reach_the_mean_activities():
    train_rows, _ = digits()
    model = rv.SigmoidBeliefNet(kind="binary", layers=(16,), steps=500, rate=5e-3, random_state=0).fit(train_rows)
    activity = 2 * model.transform(train_rows).mean(axis=0) - 1
    centre = np.asarray(model.model_.p.conditional.net.centre.value)
    off = np.abs(centre - activity).max()
    # an activity is within 1 of 0: batches of 64 and a decay of 0.9 leave a spread of sqrt(0.1 / 1.9 / 64) at most
    assert off < LIMIT * 0.029 and off < 0.5 * np.abs(activity).max()
    assert isinstance(model.model_.prior().first, Bernoulli)


@pytest.mark.parametrize(
    ("generator", "widths"), [(None, [4, 5, 8]), ((), [8]), ((6,), [6, 8])], ids=["reversed", "affine", "its own"]
)
def test_a_generator_may_have_widths_of_its_own(generator, widths):
    """The paper's net has an affine recogniser and one layer in the generator."""
    recipe = rv.GumbelVAE(latents=2, classes=3, hidden=(5, 4), generator=generator)
    model = recipe.build(Schema((8,), "binary"), key=jr.key(0))
    sizes = lambda law: [layer.weight.shape[0] for layer in law.net.layers]  # noqa: E731
    assert sizes(model.p.conditional) == widths and sizes(model.q.conditional) == [5, 4, 6]


@pytest.mark.slow
def test_a_prior_of_classes_is_learned_only_when_asked():
    """Data of two kinds, one of them rare: a learned prior gives one class of the latent less."""
    X = np.repeat([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], [270, 30], axis=0)
    fields = {"latents": 1, "classes": 2, "hidden": (8,), "steps": 800, "rate": 1e-2, "gradient": Enumerate()}
    for learned in (False, True):
        model = rv.GumbelVAE(**fields, learned_prior=learned, validation=0.0, random_state=0, progress=False).fit(X)
        shares = np.sort(np.asarray(model.model_.prior().mean()).ravel())
        np.testing.assert_allclose(shares, [0.1, 0.9] if learned else [0.5, 0.5], atol=0.02)
        best = 0.1 * np.log(0.1) + 0.9 * np.log(0.9)
        assert model.score(X) == pytest.approx(best if learned else np.log(0.5), abs=0.05)
