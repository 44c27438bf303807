"""The Helmholtz machine: layers of any law against enumeration, quadrature and closed forms, and what it learns.

Estimates are asked to be within 4.5 standard errors; see helpers.py for what that means. A test of a gradient asks it
of fewer than 150 numbers, so with another seed it would fail once in 1,000 times.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import LIMIT, Quadrature, estimates, exactly, some, worst
from scipy.special import expit, log_softmax, logsumexp
from scipy.stats import binom, multivariate_normal

import ravine as rv
from ravine._check import Complaint
from ravine._spell import spell
from ravine._tree import Fixed, Linear, Running, trainable
from ravine.core import Row
from ravine.data import Schema
from ravine.dist import (
    Bernoulli,
    Bits,
    Classes,
    Counts,
    Gaussian,
    HeavyTailed,
    Levels,
    OneHot,
    Poisson,
    Real,
    SharedCovariance,
    Within,
)
from ravine.evidence import EnumeratedLatents, ImportanceWeighted
from ravine.gradients import Enumerate, Pathwise
from ravine.latent_layers import LatentLayer, as_layers
from ravine.models.belief_net import belief_net, layered_net
from ravine.models.directed import Helmholtz
from ravine.nets import MLP, Logged, Signed, centred, linked
from ravine.objectives import ELBO, IWAE, Centring, Equilibrium, ReweightedWakeSleep, WakeSleep
from ravine.recipes.helmholtz_machine import HelmholtzMachine
from ravine.recognisers import Filled, bits_upwards, layers_upwards
from ravine.registry import parse

CELLS = 3
X = np.array([1.0, 0.0, 1.0])
BASE = jnp.array([0.3, 0.6, 0.5])
N = 20_000

NETS = {
    "classes": as_layers((2, LatentLayer((3,), Classes(), hidden=(2,)), 2)),
    "levels": as_layers((LatentLayer((1,), Levels(3)), LatentLayer((2,), hidden=(2,)))),
}


def moved(model: Any, seed: int = 0, size: float = 0.7) -> Any:
    """The model with every number that may change, and every running mean, away from where it starts."""
    parameters, rest = trainable(model)
    stream = np.random.default_rng(seed)
    away = lambda leaf: jnp.asarray(leaf + size * stream.normal(size=leaf.shape))  # noqa: E731
    return eqx.combine(jax.tree.map(away, parameters), rest)


def machine(
    layers: tuple[LatentLayer, ...], link: Any = None, base: Any = BASE, seed: int = 0, size: float = 0.7
) -> Helmholtz:
    """A generator and its recogniser, from wild starts; where ``size`` is small, the two are not far apart."""
    p = layered_net(layers, link or Bits(), base, key=jr.key(seed))
    return moved(Helmholtz(p, layers_upwards(layers, Filled(Fixed(base)), key=jr.key(seed + 1))), seed, size)


@functools.cache
def every(name: str) -> tuple[jnp.ndarray, ...]:
    """All states of the layers of a net, side by side."""
    values = [np.asarray(layer.start().support()) for layer in NETS[name]]
    return tuple(jnp.asarray(np.stack(column)) for column in zip(*itertools.product(*values), strict=True))


# --- the same net as ever where all layers are bits


@pytest.mark.parametrize("links", ["-", "~"])
def test_layers_of_bits_make_the_belief_net_as_it_was(links):
    """Leaf by leaf against the formula of layers of bits: a net for each pair of layers, its key split from one."""
    sizes, link, base = (2, 4, 3), Real(), jnp.full((2, 2), 0.3)
    widths, keys = (*sizes, link.size(base.shape)), jr.split(jr.key(5), 3)
    nets = [linked(a, b, a, links, key=k) for a, b, k in zip(widths[:-2], widths[1:-1], keys[:-1], strict=True)]
    nets.append(linked(3, widths[-1], 3, links, key=keys[-1], bias=link.start(base)))
    want = [jnp.zeros(2), *(Signed(net, centred(n), i) for i, (net, n) in enumerate(zip(nets, sizes, strict=True)))]
    p = belief_net(sizes, links, link, base, key=jr.key(5))
    got = [p.prior_law.first.logits, *(law.net for law in (*p.prior_law.conditionals, p.conditional))]
    assert eqx.tree_equal(want, got)

    read, keys = Filled(Fixed(base), tells=True), jr.split(jr.key(6), 3)
    first = linked(8, 3, 3, links, key=keys[2])
    above = [linked(3, 4, 4, links, key=keys[1]), linked(4, 2, 2, links, key=keys[0])]
    q = bits_upwards(sizes, links, read, key=jr.key(6))
    assert eqx.tree_equal([first, *above], [law.net.net for law in (q.first, *q.steps)])
    assert [law.net.layer for law in q.steps] == [2, 1]
    np.testing.assert_allclose(q.first.net.centre.value, [-0.4] * 4 + [1.0] * 4, atol=1e-6)


def test_the_recipe_makes_the_belief_net_of_its_bits():
    """Numbers mean bits: the leaves of the recipe of belief nets, and of the layers written out."""
    schema = Schema.infer(np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    made = [
        HelmholtzMachine(layers=layers).build(schema, key=jr.key(0))
        for layers in ((2, 3), (LatentLayer((2,)), LatentLayer((3,), Bits())))
    ]
    want = rv.SigmoidBeliefNet(layers=(2, 3)).build(schema, key=jr.key(0))
    assert eqx.tree_equal(made[0], want) and eqx.tree_equal(made[1], want)


def test_deterministic_layers_are_mirrored():
    """On the way down 2-5-4-3 and 3-6-3 units; on the way up 3-6-3 and 3-4-5-2."""
    model = machine((LatentLayer((2,), hidden=(5, 4)), LatentLayer((3,), hidden=(6,))))
    shapes = lambda law: [layer.weight.shape for layer in law.net.net.layers]  # noqa: E731
    assert shapes(model.p.prior_law.conditionals[0]) == [(5, 2), (4, 5), (3, 4)]
    assert shapes(model.p.conditional) == shapes(model.q.first) == [(6, 3), (3, 6)]
    assert shapes(model.q.steps[0]) == [(4, 3), (5, 4), (2, 5)]
    assert model.p.conditional.net.net.activation(jnp.ones(())) == jnp.tanh(1.0)


# --- how layers are read, and their priors


def test_every_law_is_read_in_its_way():
    layers = as_layers(
        (2, LatentLayer((2,), Levels(5)), LatentLayer((2,), Counts()), LatentLayer((2,), Real()),
         LatentLayer((2,), Classes()))
    )  # fmt: skip
    net = MLP(2, 3, (), key=jr.key(0))
    readers = [layer.read(net, i) for i, layer in enumerate(layers)]
    assert [type(r) for r in readers[:3]] == [Signed, Signed, Logged] and readers[3] is net and readers[4] is net
    assert readers[1].layer == 1 and isinstance(readers[1].centre, Running)
    for reader, seen in zip(readers, [(-1, 5), (-1, 0.5), (0, np.log(4)), (0, 3), (0, 3)], strict=True):
        np.testing.assert_allclose(reader(jnp.array([0.0, 3.0])), net(jnp.asarray(seen, jnp.float32)), atol=1e-5)


def test_priors_are_learned_where_their_numbers_may_be_any():
    """Bits, classes, levels, subsets and counts are learned; real numbers are standard normal, and held."""
    learned = {Bits(): Bernoulli, Classes(): OneHot, Counts(): Poisson}
    for link, law in learned.items():
        prior = LatentLayer((2,), link).prior()
        assert isinstance(prior, law) and all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(prior))
    held = [LatentLayer((2,), link).prior() for link in (Real(), HeavyTailed(), Within((0.0,), (1.0,)))]
    assert all(isinstance(prior, Fixed) for prior in held) and not jax.tree.leaves(trainable(held)[0])
    assert isinstance(held[0].value, Gaussian)
    np.testing.assert_array_equal([held[0].value.location, held[0].value.scale], [[0, 0], [1, 1]])


def following(tree: Any) -> list[Signed]:
    """The nets whose centre is told."""
    signed = lambda node: isinstance(node, Signed)  # noqa: E731
    nodes = [node for node in jax.tree.leaves(tree, is_leaf=signed) if signed(node)]
    return [node for node in nodes if isinstance(node.centre, Running)]


@pytest.mark.slow
def test_centres_follow_bits_and_levels_and_nothing_else(x64):
    """After one lesson each centre holds 0.9 of itself and 0.1 of the mean, spread from -1 to 1."""
    layers = as_layers((2, LatentLayer((2,), Levels(4)), LatentLayer((2,), Counts()), LatentLayer((1,), Real())))
    model, batch = machine(layers), Row(jnp.asarray(X[None]))
    parameters, rest = trainable(model)
    objective = Centring(WakeSleep())
    slope = jax.grad(lambda p: objective(eqx.combine(p, rest), batch, key=jr.key(0))[0])(parameters)
    told, nets = following(slope), following(model)
    assert [net.layer for net in nets] == [0, 1, 1]
    means = model.posterior(Row(jnp.asarray(X))).mean()
    for net, heard in zip(nets, told, strict=True):
        after = net.centre.value + heard.centre.moved(heard.centre).value
        seen = 2 * np.asarray(means[net.layer]) / (3 if net.layer else 1) - 1
        np.testing.assert_allclose(after, 0.9 * np.asarray(net.centre.value) + 0.1 * seen, atol=1e-12)


# --- bounds against enumeration, without Ravine


def numbers(read: Any, x: np.ndarray, centre: np.ndarray | None, top: int = 1) -> np.ndarray:
    """The outputs of a net for what it reads: signs around a centre, or, where there is none, what is there."""
    h = x if centre is None else 2 * x / top - 1 - centre
    for i, layer in enumerate((read.net if centre is not None else read).layers):
        h = np.asarray(layer.weight) @ (np.tanh(h) if i else h) + np.asarray(layer.bias)
    return h


def log_mass(link: Any, raw: np.ndarray, x: np.ndarray) -> float:
    if isinstance(link, Classes):
        return float(log_softmax(raw) @ x)
    return float(binom(getattr(link, "count", 2) - 1, expit(raw)).logpmf(x).sum())


def seen_by(read: Any) -> tuple[np.ndarray | None, int]:
    return (np.asarray(read.centre.value), read.top) if isinstance(read, Signed) else (None, 1)


def listed(name: str, model: Helmholtz, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log p(x, z) and log q(z | x) of every latent."""
    links, log_p, log_q = [layer.law for layer in NETS[name]], [], []
    first = model.p.prior_law.first.logits
    laws, climbs = (*model.p.prior_law.conditionals, model.p.conditional), (model.q.first, *model.q.steps)
    for z in zip(*map(np.asarray, every(name)), strict=True):
        here = log_mass(links[0], np.asarray(first), z[0])
        for law, above, link, below in zip(laws, z, (*links[1:], Bits()), (*z[1:], x), strict=True):
            here += log_mass(link, numbers(law.net, above, *seen_by(law.net)), below)
        log_p.append(here)
        up = zip(climbs, (x, *z[:0:-1]), links[::-1], z[::-1], strict=True)
        log_q.append(sum(log_mass(link, numbers(law.net, low, *seen_by(law.net)), high) for law, low, link, high in up))
    return np.array(log_p), np.array(log_q)


@pytest.mark.parametrize("name", some(NETS, "levels"))
def test_bounds_of_mixed_layers_lie_below_the_exact_log_p(name, x64):
    """Two bounds and log p(x) equal those of a listing written out by hand, and stand in their order."""
    model, row = machine(NETS[name]), Row(jnp.asarray(X))
    log_p, log_q = listed(name, model, X)
    q, log_w = np.exp(log_q), log_p - log_q
    assert q.sum() == pytest.approx(1) and np.ptp(log_w) > 1
    one, evidence = q @ log_w, logsumexp(log_p)
    pairs = q @ (np.logaddexp(log_w[:, None], log_w[None]) - np.log(2)) @ q
    assert one + 0.01 < pairs < evidence - 0.01
    bound = lambda objective: float(jax.jit(lambda: objective.bound(model, row, key=jr.key(0)))())  # noqa: E731
    assert bound(ELBO(Enumerate())) == pytest.approx(one, abs=1e-10)
    if name == "levels":  # the pairs of the other net are too many to trace one inside the other
        assert bound(IWAE(2, Enumerate())) == pytest.approx(pairs, abs=1e-10)
    got = EnumeratedLatents()(model, jax.tree.map(lambda leaf: leaf[None], row), key=jr.key(0))[0][0]
    assert float(got) == pytest.approx(evidence, abs=1e-10)


@pytest.mark.parametrize("name", some(NETS, "levels"))
def test_a_missing_cell_is_summed_out(name, x64):
    """log p of the observed cells is that of a sum over the values of the others; of no cell it is 0."""
    model, mask = machine(NETS[name]), np.array([True, False, True])
    whole = [listed(name, model, np.where(mask, X, value))[0] for value in (0.0, 1.0)]
    z = every(name)
    hole = jax.vmap(lambda z: model.log_joint(z, Row(jnp.asarray(X * mask), jnp.asarray(mask))))(z)
    np.testing.assert_allclose(hole, np.logaddexp(*whole), atol=1e-10)
    rows = Row(jnp.stack([jnp.asarray(X * mask), jnp.zeros(3)]), jnp.stack([jnp.asarray(mask), jnp.zeros(3, bool)]))
    value = EnumeratedLatents()(model, rows, key=jr.key(0))[0]
    np.testing.assert_allclose(value, [logsumexp(whole), 0], atol=1e-10)


# --- gradients against enumeration


def lessons(name: str, model: Helmholtz, row: Row) -> dict[str, Any]:
    """What the three objectives mean to a still model, listed: the waking part, the sleeping part, the prior's."""
    z = every(name)
    log_q = jax.vmap(model.posterior(row).log_prob)(z)
    x = jnp.array(list(itertools.product((0.0, 1.0), repeat=CELLS)))
    chance = jnp.exp(jax.vmap(lambda x: jax.vmap(lambda z: model.log_joint(z, Row(x)))(z))(x))

    def sleeping(m: Helmholtz) -> Any:
        shown = lambda x: x if row.mask is None else jnp.where(row.mask, x, 0.0)  # noqa: E731
        told = lambda x: jax.vmap(m.posterior(Row(shown(x), row.mask)).log_prob)(z)  # noqa: E731
        return jnp.sum(chance * jax.vmap(told)(x))

    known = lambda m: jax.vmap(lambda z: m.log_joint(z, row))(z)  # noqa: E731
    told = lambda m: jax.vmap(m.posterior(row).log_prob)(z)  # noqa: E731
    top = lambda m: jax.vmap(m.prior().first.log_prob)(z[0])  # noqa: E731
    return {"log_q": log_q, "known": known, "told": told, "top": top, "sleeping": sleeping}


def wanted(name: str, objective: Any, model: Helmholtz, row: Row) -> np.ndarray:
    """Value and gradient of an objective by listing."""
    part = lessons(name, model, row)
    q, log_w = jnp.exp(part["log_q"]), part["known"](model) - part["log_q"]
    if isinstance(objective, Equilibrium):
        value = lambda m: -q @ (part["known"](m) - part["top"](m)) - part["sleeping"](m)  # noqa: E731
        return exactly(value, model)
    if isinstance(objective, WakeSleep):
        slope = exactly(lambda m: -q @ part["known"](m) - part["sleeping"](m), model)
        return np.concatenate([[-q @ log_w], slope[1:]])
    both = jnp.stack(jnp.broadcast_arrays(log_w[:, None], log_w[None]), axis=-1)
    chance, share = q[:, None] * q[None], jax.nn.softmax(both, axis=-1)
    each = jnp.sum(chance * share[..., 0], axis=1) + jnp.sum(chance * share[..., 1], axis=0)
    rest = 1 - objective.sleep
    loss = lambda m: -each @ (part["known"](m) + rest * part["told"](m)) - objective.sleep * part["sleeping"](m)  # noqa: E731
    bound = jnp.sum(chance * (jax.nn.logsumexp(both, axis=-1) - jnp.log(2)))
    return np.concatenate([[-bound], exactly(loss, model)[1:]])


OBJECTIVES = {"wake-sleep": WakeSleep(), "reweighted": ReweightedWakeSleep(2, 0.3), "equilibrium": Equilibrium()}


@pytest.mark.parametrize("mask", some([None, (True, False, True)], (True, False, True)), ids=["whole", "with a hole"])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", some(NETS, "classes"))
def test_objectives_of_mixed_layers_equal_enumeration(name, objective, mask, x64):
    """Value and gradient of 20,000 estimates, every number of both nets."""
    model = machine(NETS[name])
    row = Row(jnp.asarray(X), None if mask is None else jnp.asarray(mask))
    row = row if mask is None else Row(row.x * row.mask, row.mask)
    want = wanted(name, OBJECTIVES[objective], model, row)
    found = estimates(lambda m, key: OBJECTIVES[objective].loss(m, row, key=key)[0], model, N)
    assert want.size < 150 and np.abs(want).max() > 0.1
    assert worst(found, want) < LIMIT


# --- real layers


def linear_machine(law: Any, seed: int = 0) -> Helmholtz:
    """Two layers of real numbers, 2 over 3, and three cells; all maps affine, no scale moves with what is above."""
    layers = (LatentLayer((2,), law[0]), LatentLayer((3,), law[1]))
    model = machine(layers, Real(), jnp.zeros(CELLS), seed)
    weight = lambda law: _net(law).layers[0].weight  # noqa: E731
    parts = lambda m: (*m.p.prior_law.conditionals, m.p.conditional, m.q.first, *m.q.steps)  # noqa: E731
    still = (eqx.tree_at(weight, law, weight(law).at[_means(law) :].set(0.0)) for law in parts(model))
    return eqx.tree_at(parts, model, tuple(still))


def _net(law: Any) -> Any:
    return law.net.net if isinstance(law.net, Signed) else law.net


def _means(law: Any) -> int:
    return int(np.prod(law.shape))


def marginal(model: Helmholtz) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the cells by the algebra of linear maps."""
    mean, covariance = np.zeros(2), np.eye(2)
    for law in (*model.p.prior_law.conditionals, model.p.conditional):
        layer, n = _net(law).layers[0], _means(law)
        weight, bias = np.asarray(layer.weight)[:n], np.asarray(layer.bias)
        if isinstance(law.link, SharedCovariance):
            factor = np.tril(np.asarray(law.link.factor), -1) + np.diag(np.abs(np.diagonal(law.link.factor)))
            noise = factor @ factor.T
        else:
            noise = np.diag((1e-3 + np.log1p(np.exp(bias[n:]))) ** 2)
        mean, covariance = weight @ mean + bias[:n], weight @ covariance @ weight.T + noise
    return mean, covariance


LAWS = {
    "diagonal": lambda: (Real(), Real()),
    "full": lambda: (Real(), SharedCovariance(jnp.array([[1.0, 0, 0], [0.4, 0.7, 0], [-0.3, 0.5, 0.9]]))),
}


@pytest.mark.parametrize("law", some(LAWS, "full"))
def test_a_linear_net_of_two_real_layers_has_the_marginal_of_its_maps(law, x64):
    """The joint density is Gaussian: its curvature holds the covariance of the cells, to rounding."""
    model, sizes = linear_machine(LAWS[law]()), (2, 5)

    def log_joint(v: Any) -> Any:
        top, low, x = jnp.split(v, sizes)
        return model.log_joint((top, low), Row(x))

    covariance = np.linalg.inv(-np.asarray(jax.hessian(log_joint)(jnp.zeros(8))))
    mean = covariance @ np.asarray(jax.grad(log_joint)(jnp.zeros(8)))
    want_mean, want = marginal(model)
    np.testing.assert_allclose(covariance[5:, 5:], want, atol=1e-10)
    np.testing.assert_allclose(mean[5:], want_mean, atol=1e-10)
    peak = -0.5 * (8 * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1])
    assert float(log_joint(jnp.asarray(mean))) == pytest.approx(peak, abs=1e-10)
    drawn = np.asarray(jax.vmap(lambda key: model.sample(key=key)[1])(jr.split(jr.key(3), N))) - want_mean
    assert worst(np.einsum("ni,nj->nij", drawn, drawn).reshape(N, -1), want.ravel()) < LIMIT


@pytest.mark.parametrize("law", some(LAWS, "diagonal"))
def test_the_bound_of_wake_sleep_lies_below_the_exact_log_p_of_a_linear_net(law, x64):
    """The mean of 20,000 one-draw bounds is that of quadrature, and quadrature is below the closed form."""
    model, row = linear_machine(LAWS[law]()), Row(jnp.array([0.7, -0.4, 0.9]))
    exact = multivariate_normal(*marginal(model)).logpdf(np.asarray(row.x))
    bound = float(jax.jit(lambda: ELBO(Quadrature(2)).bound(model, row, key=jr.key(0)))())
    assert bound < exact - 0.1
    losses = jax.jit(jax.vmap(lambda key: WakeSleep().loss(model, row, key=key)[0]))(jr.split(jr.key(1), N))
    assert worst(-np.asarray(losses)[:, None], bound) < LIMIT
    weighed = jax.vmap(lambda key: ReweightedWakeSleep(50, 0.0).loss(model, row, key=key)[0])
    many = -np.asarray(jax.jit(weighed)(jr.split(jr.key(2), 2000)))
    assert bound < many.mean() < exact + LIMIT * many.std() / np.sqrt(len(many))


def test_the_pathwise_gradient_of_real_layers_is_that_of_quadrature(x64):
    model, row = linear_machine(LAWS["diagonal"]()), Row(jnp.array([0.7, -0.4, 0.9]))
    want = exactly(lambda m: ELBO(Quadrature(3)).bound(m, row, key=jr.key(0)), model)
    found = estimates(lambda m, key: ELBO(Pathwise()).bound(m, row, key=key), model, N)
    assert want.size < 150 and worst(found, want) < LIMIT


def test_a_real_layer_over_bits_against_quadrature(x64):
    """One real number over two bits over three cells: log p of every row by 80 points of a Gauss-Hermite rule."""
    model = machine((LatentLayer((1,), Real(), hidden=(3,)), LatentLayer((2,))), size=0.3)
    # a proposal that is narrower than the prior by a factor of 1.4 or more has weights without a variance
    wide = lambda m: m.q.steps[0].net.net.layers[-1].bias  # noqa: E731
    model = eqx.tree_at(wide, model, wide(model) + jnp.array([0.0, 2.0]))
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    bits = jnp.array(list(itertools.product((0.0, 1.0), repeat=2)))
    steps = model.prior().conditionals[0]
    above = jax.vmap(lambda z: jax.vmap(steps(z).log_prob)(bits))(jnp.asarray(points[:, None]))
    law = weights / weights.sum() @ np.exp(np.asarray(above))
    rows = jnp.array(list(itertools.product((0.0, 1.0), repeat=CELLS)))
    shown = jax.vmap(lambda b: jax.vmap(model.likelihood((jnp.zeros(1), b)).log_prob)(rows))(bits)
    exact = np.log(law @ np.exp(np.asarray(shown)))
    assert np.exp(exact).sum() == pytest.approx(1, abs=1e-9)
    value, error = ImportanceWeighted(20_000)(model, Row(rows), key=jr.key(0))
    assert np.max(np.abs(np.asarray(value) - exact) / np.asarray(error)) < LIMIT and np.max(error) < 0.05
    losses = jax.jit(jax.vmap(lambda key: WakeSleep().loss(model, Row(rows[5]), key=key)[0]))(jr.split(jr.key(1), 5000))
    assert np.mean(losses) - LIMIT * np.std(losses) / np.sqrt(5000) > -exact[5]


# --- learning


def problem() -> tuple[np.ndarray, np.ndarray, float]:
    """Rows of four cells, all different ones with their shares, and the largest log-likelihood there is."""
    stream = np.random.default_rng(0)
    cause = stream.uniform(size=(400, 2)) < [0.5, 0.3]
    chance = np.where(cause[:, :1], [0.9, 0.9, 0.1, 0.5], [0.1, 0.2, 0.7, 0.5])
    chance[:, 3] = np.where(cause[:, 1], 0.95, 0.05)
    rows = (stream.uniform(size=(400, 4)) < chance).astype(float)
    values, counts = np.unique(rows, axis=0, return_counts=True)
    share = counts / counts.sum()
    return rows, values, float(share @ np.log(share))


LEARNED = {"steps": 2000, "batch_size": 100, "rate": Linear(0.03, 0.0, 2000.0), "validation": 0.0}
TINY = {"bits": (2, 3), "classes": (2, LatentLayer((4,), Classes(), hidden=(4,)))}


@functools.cache
def learned(name: str, objective: Any) -> tuple[float, ...]:
    """The mean exact log-likelihood of the rows that were learned from, of three seeds."""
    rows, _, _ = problem()
    recipe = HelmholtzMachine(layers=TINY[name], objective=objective, evidence=EnumeratedLatents(), **LEARNED)
    return tuple(recipe.set_params(random_state=seed).fit(rows).score(rows) for seed in range(3))


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_wake_sleep_learns_up_to_the_exact_log_likelihood(name):
    """Within 0.01 nats of the most there is, where cells that know nothing of each other are 0.3 below; three seeds."""
    rows, values, best = problem()
    apart = np.log(1 - np.abs(rows - rows.mean(axis=0))).sum(axis=1).mean()
    assert len(values) == 16 and apart < best - 0.3
    plain, weighed = learned(name, WakeSleep()), learned(name, ReweightedWakeSleep(5))
    assert max(*plain, *weighed) < best + 1e-5
    assert min(*plain, *weighed) > best - 0.01
    assert np.mean(weighed) > np.mean(plain) - 0.001


# --- the recipe

MIXED = (LatentLayer((2, 3), Classes(), hidden=(4,)), 2, LatentLayer((2,), Real()), LatentLayer((2,), Counts()))
QUICK = {"steps": 10, "batch_size": 20, "random_state": 0, "particles": 10, "evidence": ImportanceWeighted(8)}


def table() -> np.ndarray:
    made = (np.random.default_rng(0).uniform(size=(40, 4)) < 0.4).astype(float)
    made[::3, 1] = np.nan
    return made


@pytest.mark.slow
def test_a_machine_of_mixed_layers_answers_and_is_kept(tmp_path):
    """Fitted on rows with holes, asked everything, saved and loaded."""
    X = table()
    model = HelmholtzMachine(layers=MIXED, **QUICK).fit(X)
    code, whole = model.transform(X), ~np.isnan(X)
    assert code.shape == (40, 12) and model.inverse_transform(code).shape == X.shape
    np.testing.assert_allclose(code[:, :6].reshape(40, 2, 3).sum(axis=2), 1, rtol=1e-5)
    filled = model.impute(X)
    assert set(np.unique(filled)) <= {0.0, 1.0} and np.all(filled[whole] == X[whole])
    assert model.log_likelihood(X).direction == "lower" and model.sample(5).shape == (5, 4)
    again = rv.load(model.save(tmp_path / "machine"))
    assert again.layers == MIXED
    np.testing.assert_array_equal(again.transform(X), code)
    np.testing.assert_array_equal(again.score_samples(X[:3]), model.score_samples(X[:3]))


@pytest.mark.parametrize("objective", some([WakeSleep(), Equilibrium(), ELBO(Pathwise())], ELBO(Pathwise())))
def test_a_machine_of_real_layers_learns_by_every_objective(objective):
    layers = (LatentLayer((2,), Real(), hidden=(4,)), LatentLayer((3,), Real()))
    model = HelmholtzMachine(layers=layers, objective=objective, **QUICK).fit(table())
    assert model.transform(table()).shape == (40, 5) and np.isfinite(model.score(table()))
    np.testing.assert_array_equal(model.model_.prior().first.scale, [1, 1])


@pytest.mark.slow
def test_a_law_with_arrays_of_its_own_is_learned_on_both_sides():
    layers = (LatentLayer((2,), Real()), LatentLayer((3,), SharedCovariance(jnp.eye(3))))
    model = HelmholtzMachine(layers=layers, objective=ELBO(Pathwise()), **QUICK).fit(table()).model_
    p, q = model.p.prior_law.conditionals[0].link.factor, model.q.first.link.factor
    assert np.any(p != jnp.eye(3)) and np.any(q != jnp.eye(3)) and np.any(p != q)


def test_the_shell_spells_a_layer():
    text = "(LatentLayer((2, 3), Classes(), hidden=(4,)), 2, LatentLayer((2,), Real()), LatentLayer((2,), Counts()))"
    assert parse(text) == MIXED and parse(spell(MIXED)) == MIXED
    assert parse("LatentLayer((3,), Levels(5))") == LatentLayer((3,), Levels(5))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("LatentLayer((0,))", "shape of a LatentLayer: expected a whole number of at least 1, got 0"),
        ("LatentLayer((2,), Bits(), hidden=(0,))", "hidden of a LatentLayer: expected a whole number of at least 1"),
        ("LatentLayer(())", "expected at least one axis"),
        ("LatentLayer((3,), KHot(5))", "KHot.*expected a law of shape \\(3,\\), got k of a Subset must be from 0 to 3"),
        ("LatentLayer((3,), Within((0.0, 0.0), (1.0, 1.0)))", "expected 1 or 3 limits, got 2"),
        ("LatentLayer((2,), Pathwise())", "law=.*where AbstractLink is needed"),
        ("LatentLayer(3)", "shape=3 where tuple\\[int, ...\\] is needed"),
    ],
)
def test_a_bad_layer_is_refused_in_one_line(text, line):
    with pytest.raises(Complaint, match=line) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layers", [(), (0,), (2.5,), (True,)])
def test_a_machine_without_layers_is_refused_in_one_line(layers):
    with pytest.raises(Complaint, match="layers: expected") as caught:
        HelmholtzMachine(layers=layers, steps=3).fit(table())
    assert "\n" not in str(caught.value)


def test_trials_are_fields_of_the_recipe():
    assert set(HelmholtzMachine.trials) == {"small", "small-wake-sleep"}
    for trial in HelmholtzMachine.trials.values():
        made = HelmholtzMachine(**trial.fields)
        assert made.rate == Linear(3e-3, 0.0, float(made.steps)) and made.patience * made.steps // 20 >= made.steps
        assert trial.reported is None and parse(spell(dict(trial.fields))) == trial.fields
