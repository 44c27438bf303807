"""Products of experts: closed forms, quadrature, what is learned from clusters, and models of classes side by side."""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from energies import random_rbm
from helpers import LIMIT, worst
from scipy.special import log_expit, logsumexp
from scipy.stats import norm

from ravine._tree import Fixed, Part
from ravine.core import Row, walk
from ravine.data import ArraySource
from ravine.evidence import AIS, even_betas, forward
from ravine.models.energy import Dense, Harmonium
from ravine.models.experts import (
    Apart,
    ClassExperts,
    GaussianExpert,
    HiddenUnit,
    Many,
    ProductOfExperts,
    Proper,
    StudentTExpert,
    UniGauss,
    combined,
)
from ravine.models.moves import HamiltonianMoves
from ravine.models.units import BinaryUnits, GaussianUnits, RectifiedUnits
from ravine.objectives import Contrast
from ravine.rules import Contrastive, ContrastiveDivergence, Optimiser
from ravine.train import Stage, train


def numbers(shape: tuple[int, ...], seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


# --- experts


def test_the_product_of_two_gaussians_is_known(x64):
    one, other = GaussianExpert.of([0.0], [1.0]), GaussianExpert.of([3.0], [0.5])
    both = combined([one, other])
    assert float(both.location[0]) == pytest.approx(2.4, abs=1e-15)
    assert float(both.variance()[0]) == pytest.approx(0.2, abs=1e-15)
    x = jnp.linspace(-3, 5, 9)[:, None]
    apart = jax.vmap(lambda x: one.energy(x) + other.energy(x) - both.energy(x))(x)
    np.testing.assert_allclose(apart, apart[0], rtol=1e-13)  # the same law, up to a constant


def test_experts_say_what_their_formulas_say(x64):
    stream, x = np.random.default_rng(0), np.array([0.3, -1.2])
    w, m, s = stream.normal(size=2), stream.normal(size=2), np.array([0.4, 1.5])
    log_share, log_rest = log_expit(0.7), log_expit(-0.7)
    experts = {
        "gaussian": (GaussianExpert.of(m, s), np.sum((x - m) ** 2 / (2 * s**2))),
        "unigauss": (
            UniGauss(GaussianExpert.of(m, s), jnp.array(0.7), Fixed(jnp.log(20.0))),
            -np.logaddexp(log_share + norm.logpdf(x, m, s).sum(), log_rest - np.log(20)),
        ),
        "student": (StudentTExpert(jnp.asarray(w), jnp.log(1.7)), 1.7 * np.log(1 + (w @ x) ** 2 / 2)),
        "hidden": (HiddenUnit(jnp.asarray(w), jnp.array(0.4)), -np.log(1 + np.exp(0.4 + w @ x))),
    }
    for name, (expert, truth) in experts.items():
        assert float(expert.energy(jnp.asarray(x))) == pytest.approx(truth, rel=1e-12), name


def test_experts_of_one_kind_are_one_expert(x64):
    weight, bias, x = numbers((4, 3), 0), numbers((4,), 1), numbers((3,), 2)
    alone = [HiddenUnit(w, b).energy(x) for w, b in zip(weight, bias, strict=True)]
    assert float(Many(HiddenUnit(weight, bias)).energy(x)) == pytest.approx(float(sum(alone)), rel=1e-13)


def gaussian_machine() -> Harmonium:
    visible = GaussianUnits((3,), numbers((3,), 0), 0.3 * numbers((3,), 1))
    return Harmonium(visible, BinaryUnits((5,), numbers((5,), 2)), Dense(numbers((3, 5), 3)), Fixed(visible))


@pytest.mark.slow
def test_hidden_units_and_a_gaussian_are_a_restricted_boltzmann_machine(x64):
    machine = gaussian_machine()
    precision = jnp.exp(-2 * machine.visible.log_scale)
    units = Many(HiddenUnit((machine.coupling.weight * precision[:, None]).T, machine.hidden.bias))
    gaussian = GaussianExpert(machine.visible.bias, machine.visible.log_scale)
    product, x = ProductOfExperts((gaussian, units), Fixed(gaussian)), 2 * numbers((20, 3), 4)
    np.testing.assert_allclose(jax.vmap(product.energy)(x), jax.vmap(machine.energy)(x), rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(jax.grad(product.energy))(x), jax.vmap(jax.grad(machine.energy))(x), rtol=1e-10)


# --- the path, log Z, and missing cells, against quadrature


def product(d: int) -> ProductOfExperts:
    """Each kind of expert in d dimensions; two of one kind are `Many`."""
    flat, stream = jnp.log(50.0), np.random.default_rng(d)
    draw = lambda *shape: jnp.asarray(stream.normal(size=shape))  # noqa: E731
    experts = (
        Fixed(GaussianExpert.of(np.full(d, 0.2), np.full(d, 1.5))),
        Many(UniGauss(GaussianExpert(draw(2, d), jnp.full((2, d), -0.7)), draw(2), Fixed(jnp.full(2, flat)))),
        StudentTExpert(draw(d), jnp.array(0.3)),
        HiddenUnit(2 * draw(d), draw()),
    )
    return ProductOfExperts(experts, Fixed(GaussianExpert.of(np.zeros(d), np.full(d, 1.2))), HamiltonianMoves(0.3, 5))


NODES, MASS = (part * 9 for part in np.polynomial.legendre.leggauss(160))


@functools.cache
def table(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of a product rule on [-9, 9]^d, and minus the energy and log weight there, added."""
    with jax.enable_x64(True):
        places = np.stack(np.meshgrid(*[NODES] * d, indexing="ij"), axis=-1).reshape(-1, d)
        log_mass = np.log(np.stack(np.meshgrid(*[MASS] * d, indexing="ij"), axis=-1)).sum(axis=-1).ravel()
        return places, log_mass - np.asarray(jax.jit(jax.vmap(product(d).energy))(jnp.asarray(places)))


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 2])
def test_annealing_finds_what_quadrature_finds(d, x64):
    """400 chains; the mean of their weights is within 4.5 standard errors of Z."""
    log_z = logsumexp(table(d)[1])
    betas = even_betas(60)
    run = eqx.filter_jit(lambda model, keys: jax.vmap(lambda k: forward(model, betas, key=k))(keys))
    log_w = np.asarray(run(product(d), jr.split(jr.key(d), 400)))
    assert worst(np.exp(log_w - log_z)[:, None], 1.0) < LIMIT
    found = AIS(60, 100)(product(d), key=jr.key(9))
    assert found.direction == "lower" and abs(found.value - log_z) < LIMIT * found.standard_error + 0.01


@pytest.mark.slow
def test_a_cell_that_is_known_is_held(x64):
    """The integral over the other coordinate, by chains in which one is held; 400 of them."""
    model, known = product(2), 0.7
    row = Row(jnp.array([known, 0.0]), mask=jnp.array([True, False]))
    value = jax.vmap(lambda x: -model.energy(jnp.stack([jnp.asarray(known), x])))(jnp.asarray(NODES))
    truth = logsumexp(np.asarray(value) + np.log(MASS))
    log_w = jax.jit(jax.vmap(lambda k: forward(model, even_betas(60), row, key=k)))(jr.split(jr.key(3), 400))
    assert worst(np.exp(np.asarray(log_w) - truth)[:, None], 1.0) < LIMIT
    end = walk(model.kernel(row), row.clamp(model.start(key=jr.key(0))), 3, key=jr.key(1))
    assert float(end[0]) == known and float(end[1]) != 0


def test_the_path_leads_from_the_base_to_the_product(x64):
    model, x = product(2), numbers((2,), 5)
    assert float(model.at(jnp.array(1.0)).energy(x)) == pytest.approx(float(model.energy(x)), rel=1e-13)
    assert float(model.at(jnp.array(0.0)).energy(x)) == pytest.approx(float(model.base.value.energy(x)), rel=1e-13)
    assert float(model.log_start()) == pytest.approx(np.log(2 * np.pi * 1.2**2), rel=1e-12)


@pytest.mark.slow
def test_draws_have_the_moments_of_quadrature(x64):
    """1000 chains of 100 steps; first and second moments are within 4.5 standard errors."""
    places, log_mass = table(2)
    share = np.exp(log_mass - logsumexp(log_mass))
    drawn = jax.jit(jax.vmap(lambda k: product(2).settled(None, key=k)))(jr.split(jr.key(6), 1000))
    moments = lambda x: np.concatenate([x, x**2, x[:, :1] * x[:, 1:]], axis=1)  # noqa: E731
    assert worst(moments(np.asarray(drawn)), share @ moments(places)) < LIMIT


# --- the clusters of Hinton 2002


def clusters(seed: int) -> np.ndarray:
    """500 points in nine round clusters on a grid."""
    stream = np.random.default_rng(seed)
    return stream.choice([-2.0, 0.0, 2.0], size=(500, 2)) + 0.2 * stream.normal(size=(500, 2))


def unigauss_product(experts: int) -> ProductOfExperts:
    stream = np.random.default_rng(2)
    centres, scales = stream.uniform(-3, 3, size=(experts, 2)), stream.uniform(0.5, 2, size=(experts, 2))
    bumps = GaussianExpert(jnp.asarray(centres), jnp.log(jnp.asarray(scales)))
    flat = Many(UniGauss(bumps, jnp.zeros(experts), Fixed(jnp.full(experts, jnp.log(100.0)))))
    wide = Fixed(GaussianExpert.of([0.0, 0.0], [2.0, 2.0]))
    return ProductOfExperts((wide, flat), wide)


@pytest.mark.slow
def test_fifteen_experts_find_clusters_by_contrastive_divergence():
    """Held-out log p, by quadrature, against the best Gaussian and against the law that made the rows."""
    X, held = clusters(0), clusters(1)
    objective = Contrast(of=Part("experts"))
    rule = Contrastive(objective, ContrastiveDivergence(1), Optimiser(optax.adam, (0.05,)))
    source = ArraySource(Row(jnp.asarray(X, jnp.float32)))
    *_, last = train(unigauss_product(15), [Stage(rule, 400, 100)], source, key=jr.key(1))
    line = np.linspace(-8, 8, 321)
    grid = jnp.asarray(np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2), jnp.float32)
    minus = eqx.filter_jit(lambda model, x: -jax.vmap(model.energy)(x))
    log_z = logsumexp(np.asarray(minus(last.state.model, grid), float)) + 2 * np.log(line[1] - line[0])
    learned = float(np.mean(np.asarray(minus(last.state.model, jnp.asarray(held, jnp.float32))))) - log_z
    gaussian = norm.logpdf(held, X.mean(axis=0), X.std(axis=0)).sum(axis=1).mean()
    truth = (logsumexp(norm.logpdf(held[:, :, None], [-2, 0, 2], 0.2), axis=2) - np.log(3)).sum(axis=1).mean()
    assert gaussian + 1.5 < learned < truth
    scales = np.exp(np.asarray(last.state.model.experts[1].experts.gaussian.log_scale))
    assert (scales.max(axis=1) > 4 * scales.min(axis=1)).sum() >= 5  # one coordinate each: clusters are where two meet


# --- models side by side


def three() -> tuple[Apart, list[Harmonium]]:
    alone = [random_rbm(4, 3, seed, 0.5) for seed in range(3)]
    arrays, rest = zip(*(eqx.partition(model, eqx.is_array) for model in alone), strict=True)
    return Apart(eqx.combine(jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays), rest[0])), alone


def bits(shape: tuple[int, ...], seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 2, size=shape), float)


@pytest.mark.slow
def test_energies_side_by_side_are_those_alone(x64):
    together, alone = three()
    x, key = bits((3, 4), 0), jr.key(4)
    keys, kernel = jr.split(key, 3), together.kernel()
    assert float(together.energy(x)) == pytest.approx(sum(float(m.energy(v)) for m, v in zip(alone, x, strict=True)))
    np.testing.assert_allclose(together.of(x[0]), [m.energy(x[0]) for m in alone], rtol=1e-13)
    end = kernel.position(kernel.step(kernel.init(x, key=key), key=key)[0])
    steps = [m.kernel().step(v, key=k)[0] for m, v, k in zip(alone, x, keys, strict=True)]
    assert (np.asarray(end) == np.stack(steps)).all()
    found = AIS(100, 200)(together, key=jr.key(5))
    truth = sum(float(m.log_partition()) for m in alone)
    assert abs(found.value - truth) < LIMIT * found.standard_error + 0.01


@pytest.mark.slow
def test_models_side_by_side_learn_as_alone(x64):
    together, alone = three()
    data, other, row = bits((6, 3, 4), 1), bits((5, 3, 4), 2), Row
    slope = lambda of: eqx.filter_grad(  # noqa: E731
        lambda model, x, negatives: Contrast(0.1, Part(of))(model, row(x), negatives, key=jr.key(0))[0]
    )
    both = slope("energies.coupling")(together, data, other).energies
    for c, model in enumerate(alone):
        own = slope("coupling")(model, data[:, c], other[:, c])
        for part in (lambda m: m.coupling.weight, lambda m: m.visible.bias, lambda m: m.hidden.bias):
            np.testing.assert_allclose(part(both)[c], part(own), atol=1e-12)


def test_class_scores_are_free_energies(x64):
    together, alone = three()
    model = ClassExperts(together, 2 * jnp.eye(3), jnp.arange(3.0))
    x = bits((4,), 3)
    scores = np.array([-float(m.energy(x)) for m in alone])
    np.testing.assert_allclose(model.log_scores(x), scores, rtol=1e-13)
    np.testing.assert_allclose(model.logits(x), 2 * scores + np.arange(3), rtol=1e-13)


# --- machines that stay laws


@pytest.mark.parametrize("hidden", [GaussianUnits, RectifiedUnits])
def test_a_proper_machine_of_reals_has_a_finite_integral(hidden, x64):
    visible = GaussianUnits((3,), numbers((3,), 0), jnp.array([-9.0, 0.3, -0.2]))
    machine = Harmonium(visible, hidden().sized((4,)), Dense(9 * numbers((3, 4), 1)), Fixed(visible))
    kept = Proper(0.2, 0.9)(machine)
    np.testing.assert_allclose(np.exp(kept.visible.log_scale), [0.2, np.exp(0.3), np.exp(-0.2)])
    scaled = np.asarray(kept.coupling.weight) * np.exp(-np.asarray(kept.visible.log_scale))[:, None]
    assert np.linalg.norm(scaled, 2) == pytest.approx(0.9, rel=1e-9)
    again = Proper(0.2, 0.9)(kept)
    np.testing.assert_allclose(again.coupling.weight, kept.coupling.weight, rtol=1e-9)
    far = jnp.asarray(np.linalg.svd(scaled)[0][:, 0]) * jnp.exp(kept.visible.log_scale) * 100
    assert float(kept.energy(far)) > 100 and float(kept.energy(-far)) > 100


def test_bits_are_left_alone_and_machines_inside_others_are_reached(x64):
    machine, plain = gaussian_machine(), random_rbm(4, 3, 0)
    low = eqx.tree_at(lambda m: m.visible.log_scale, machine, jnp.full(3, -9.0))
    for kept in (Proper(0.1)(low), Proper(0.1)(low.centred(low.offsets(numbers((5, 3), 7)))).plain()):
        np.testing.assert_allclose(np.exp(kept.visible.log_scale), 0.1)
        assert (kept.coupling.weight == machine.coupling.weight).all()
    assert eqx.tree_equal(Proper()(plain), plain)
    assert eqx.tree_equal(Proper()(three()[0]), three()[0])
