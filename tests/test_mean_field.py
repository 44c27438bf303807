"""Classical inference for sigmoid belief nets against enumeration: mean field, Gibbs sampling, the exact posterior.

Estimates are asked to be within 4.5 standard errors; see helpers.py for what that means.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import LIMIT, MODELS, affine, some, z_scores
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logsumexp

import ravine as rv
from ravine._check import Complaint
from ravine._spell import spell
from ravine._tree import Fixed, Running, trainable
from ravine.core import AbstractInference, Row, walk
from ravine.dist import Ancestral, Bernoulli, Bits, Conditional, OneHot, Real
from ravine.evidence import EnumeratedLatents, ImportanceWeighted, Variational, expected_completion, weighted_draws
from ravine.gradients import RLOO, Enumerate
from ravine.models.belief_chains import GibbsSampling, UnitGibbs
from ravine.models.belief_net import belief_net
from ravine.models.directed import Directed, Helmholtz
from ravine.models.mean_field import Factors, MeanFieldInference, improved, mean_field_bound, start
from ravine.models.sigmoid_layers import SeenCells, SigmoidLayers
from ravine.nets import MLP, Signed
from ravine.objectives import ELBO, MonteCarloEM, VariationalEM
from ravine.recognisers import BottomUp, ExactInference
from ravine.registry import parse, parts

pytestmark = pytest.mark.usefixtures("x64")

CELLS = 4
ROW = jnp.array([1.0, 0.0, 1.0, 1.0])
HOLE = jnp.array([True, True, False, True])
NETS = [((3,), 0), *(pytest.param(*net, marks=pytest.mark.slow) for net in [((2, 2, 2), 2), ((2, 3), 1), ((2, 4), 3)])]
every_net = pytest.mark.parametrize("layers, seed", NETS)
either_mask = pytest.mark.parametrize("mask", [None, HOLE], ids=["whole", "hole"])


def wild(layers: tuple[int, ...], seed: int, scale: float = 1.0, cells: int = CELLS) -> Directed:
    """A belief net with large weights, and centres away from 0."""
    net = belief_net(layers, "-", Bits(), jnp.full(cells, 0.3), key=jr.key(seed))
    arrays, rest = eqx.partition(net, eqx.is_array)
    leaves, tree = jax.tree.flatten(arrays)
    stream = np.random.default_rng(seed)
    moved = [leaf + scale * np.clip(stream.normal(size=leaf.shape), -2, 2) / 2 for leaf in leaves]
    return eqx.combine(jax.tree.unflatten(tree, moved), rest)


def states(layers: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Every state of all hidden units, as a tuple of layers."""
    all_bits = np.array(list(itertools.product((0.0, 1.0), repeat=sum(layers))))
    return tuple(np.split(all_bits, np.cumsum(layers)[:-1], axis=1))


# Compiled once for each form of net.
infer = eqx.filter_jit(lambda inference, net, row: inference(net, row))
bound_at = eqx.filter_jit(mean_field_bound)
joint_of = eqx.filter_jit(lambda net, every, row: jax.vmap(lambda z: net.log_joint(z, row))(every))
moves = eqx.filter_jit(
    lambda kernel, every: jax.vmap(lambda a: jax.vmap(lambda b: kernel.log_step(a, b))(every))(every)
)


@eqx.filter_jit
def rounds_from(read: SigmoidLayers, cells: SeenCells, factors: Factors) -> Any:
    """The bound after each of 40 rounds."""

    def one(factors: Factors, _: None) -> tuple[Factors, Any]:
        factors = improved(read, cells, factors)
        return factors, mean_field_bound(read, cells, factors)

    return jax.lax.scan(one, factors, None, 40)[1]


def agrees(place: np.ndarray, chance: np.ndarray) -> None:
    """Frequencies of states are their chances, those that are met less than 50 times on average taken together."""
    seen, often = np.bincount(place, minlength=len(chance)), chance * len(place) >= 50
    pooled = lambda numbers: np.append(numbers[often], numbers[~often].sum())  # noqa: E731
    seen, chance = pooled(seen / len(place)), pooled(chance)
    assert np.max(np.abs(seen - chance) / np.sqrt(np.maximum(chance * (1 - chance), 1e-12) / len(place))) < LIMIT


def log_joint(net: Any, layers: tuple[int, ...], row: Row) -> np.ndarray:
    """log p(x, z) of every state, by the densities of the generator itself."""
    return np.asarray(joint_of(net, tuple(map(jnp.asarray, states(layers))), row))


def exact(net: Any, layers: tuple[int, ...], row: Row) -> tuple[float, np.ndarray]:
    """log p(x), and p(z | x) of every state."""
    log_p = log_joint(net, layers, row)
    return float(logsumexp(log_p)), np.exp(log_p - logsumexp(log_p))


def parameters(layers: tuple[int, ...], seed: int, cells: int = CELLS) -> Factors:
    """Variational parameters anywhere."""
    stream = np.random.default_rng(seed)
    sizes = (*layers, cells)
    odds = tuple(jnp.asarray(stream.normal(size=n) * 2) for n in layers)
    return Factors(odds, tuple(jnp.asarray(stream.uniform(size=n)) for n in sizes[1:]))


def listed_bound(net: Directed, x: np.ndarray, seen: np.ndarray, factors: Factors) -> float:
    """The bound of Saul, Jaakkola & Jordan by listing the states of the parents of each layer, in numpy."""
    layers = SigmoidLayers.of(net, "test")
    means = [expit(np.asarray(odds)) for odds in factors.odds]
    total = means[0] @ np.asarray(layers.top) - np.logaddexp(0, layers.top).sum()
    for mean in means:
        total -= (mean * np.log(mean) + (1 - mean) * np.log1p(-mean)).sum()
    for i, tilt in enumerate(map(np.asarray, factors.tilts)):
        parents = np.array(list(itertools.product((0.0, 1.0), repeat=len(means[i]))))
        mass = np.prod(np.where(parents == 1, means[i], 1 - means[i]), axis=1)
        a = parents @ np.asarray(layers.weights[i]).T + np.asarray(layers.biases[i])
        above = tilt * (mass @ a) + np.log(mass @ (np.exp(-tilt * a) + np.exp((1 - tilt) * a)))
        last = i + 1 == len(means)
        child, count = (x, seen) if last else (means[i + 1], np.ones(len(tilt), bool))
        total += ((child * (mass @ a) - above)[count]).sum()
    return float(total)


def row_with(mask: Any = None) -> Row:
    seen = jnp.ones(CELLS, bool) if mask is None else mask
    return Row(jnp.where(seen, ROW, 0.0), seen)


def both(net: Directed, mask: Any = None) -> tuple[SigmoidLayers, SeenCells, Row]:
    row = row_with(mask)
    return SigmoidLayers.of(net, "test"), SeenCells.of(row), row


def golden() -> Directed:
    linear = eqx.nn.Linear(2, 3, key=jr.key(0))
    weight, bias = jnp.array([[1.0, -1.0], [0.5, 0.5], [-2.0, 1.0]]), jnp.array([0.1, -0.2, 0.3])
    linear = eqx.tree_at(lambda m: (m.weight, m.bias), linear, (weight, bias))
    return Directed(Bernoulli(jnp.array([0.2, -0.4])), Conditional(linear, Bits(), (3,)))


GOLDEN_ROW = Row(jnp.array([1.0, 0.0, 1.0]))
GOLDEN_LOG_P, GOLDEN_MEAN = -2.40459650587176, [0.31173973, 0.32534647]


# --- reading the net


@every_net
def test_layers_are_the_nets_whatever_their_reading(layers, seed):
    """Signs less a mean that is not 0, as zeros and ones."""
    net = wild(layers, seed)
    read = SigmoidLayers.of(net, "test")
    for state in zip(*states(layers), strict=True):
        laws = (*(law(jnp.asarray(z)) for law, z in zip(net.prior().conditionals, state, strict=False)),)
        laws = (*laws, net.likelihood(tuple(map(jnp.asarray, state))))
        for i, law in enumerate(laws, 1):
            np.testing.assert_allclose(read.odds(i, tuple(map(jnp.asarray, state))), law.logits, atol=1e-12)
    assert all(float(jnp.max(jnp.abs(law.net.centre.value))) > 0.05 for law in (*net.prior().conditionals,))


def test_what_is_no_affine_net_of_bits_is_refused_in_one_line():
    bits, key, row = Bernoulli(jnp.zeros(2)), jr.key(0), Row(jnp.ones(3))
    base, line = jnp.full(3, 0.5), Conditional(eqx.nn.Linear(2, 3, key=key), Bits(), (3,))
    wrong = {
        "an MLP of 3 layers": belief_net((2,), "~", Bits(), base, key=key),
        "Real": belief_net((2,), "-", Real(), base, key=key),
        "OneHot": Directed(OneHot(jnp.zeros((1, 2))), line),
        "shape": Directed(Bernoulli(jnp.zeros((2, 1))), line),
        "function": Directed(bits, lambda z: Bernoulli(jnp.zeros(3))),
        "Affine": Directed(bits, Conditional(affine(2, 3, 0), Bits(), (3,))),
        "Helmholtz": Helmholtz(Directed(bits, line), MeanFieldInference()),
    }
    for inference in (MeanFieldInference(), GibbsSampling()):
        for got, net in wrong.items():
            with pytest.raises(Complaint, match=got) as caught:
                inference(net, row)
            message = str(caught.value)
            assert message.startswith(type(inference).__name__) and 'links="-"' in message and "\n" not in message


# --- golden values


def test_golden_values_of_the_exact_posterior():
    posterior = ExactInference()(golden(), GOLDEN_ROW)
    assert float(posterior.log_bound) == pytest.approx(GOLDEN_LOG_P, abs=1e-12)
    np.testing.assert_allclose(posterior.mean(), GOLDEN_MEAN, atol=1e-8)
    model = Helmholtz(golden(), MeanFieldInference())
    value, error = EnumeratedLatents()(model, Row(GOLDEN_ROW.x[None]), key=jr.key(0))
    assert float(value[0]) == pytest.approx(GOLDEN_LOG_P, abs=1e-12) and float(error[0]) == 0


def test_mean_field_of_the_golden_net_is_where_a_general_optimiser_ends():
    """The five parameters of the bound that is listed in numpy, by BFGS from the same start."""
    net, x, seen = golden(), np.asarray(GOLDEN_ROW.x), np.ones(3, bool)
    unpack = lambda v: Factors((jnp.asarray(v[:2]),), (jnp.asarray(expit(v[2:])),))  # noqa: E731
    first = start(SigmoidLayers.of(net, "test"))
    begin = np.concatenate([first.odds[0], np.log(first.tilts[0]) - np.log1p(-first.tilts[0])])
    found = minimize(lambda v: -listed_bound(net, x, seen, unpack(v)), begin, options={"gtol": 1e-9})
    posterior = infer(MeanFieldInference(200), net, GOLDEN_ROW)
    assert float(posterior.log_bound) == pytest.approx(-found.fun, abs=1e-9)
    np.testing.assert_allclose(posterior.mean(), expit(found.x[:2]), atol=1e-5)
    assert -found.fun < GOLDEN_LOG_P and GOLDEN_LOG_P + found.fun < 0.05
    assert MeanFieldInference()(net, GOLDEN_ROW).mean().shape == (2,)  # as the prior has it: no tuple of one layer


def test_gibbs_sampling_of_the_golden_net():
    """The mean of 400 chains of 50 states each; with another seed it would fail once in 75,000 times."""
    posterior = GibbsSampling(scans=20)(golden(), GOLDEN_ROW)
    means = jax.vmap(lambda k: posterior.visited(50, key=k)[0].mean(axis=0))(jr.split(jr.key(1), 400))
    assert np.max(np.abs(z_scores(np.asarray(means), np.asarray(GOLDEN_MEAN)))) < LIMIT


# --- the bound


@every_net
@either_mask
def test_the_bound_is_that_of_enumeration(layers, seed, mask):
    net = wild(layers, seed)
    read, cells, _ = both(net, mask)
    for other in range(3):
        factors = parameters(layers, 10 * seed + other)
        want = listed_bound(net, np.asarray(cells.x), np.asarray(cells.seen), factors)
        assert float(bound_at(read, cells, factors)) == pytest.approx(want, abs=1e-11)


@every_net
@either_mask
def test_the_bound_is_below_the_elbo_and_that_below_log_p(layers, seed, mask):
    """At parameters anywhere, and where they settle; the middle number is E_q[log p - log q], listed."""
    net = wild(layers, seed)
    read, cells, row = both(net, mask)
    log_p, _ = exact(net, layers, row)
    settled = infer(MeanFieldInference(50), net, row)
    for factors in (*(parameters(layers, 10 * seed + i) for i in range(3)), settled.factors):
        laws = [Bernoulli(odds) for odds in factors.odds]
        per_layer = [jax.vmap(law.log_prob)(jnp.asarray(z)) for law, z in zip(laws, states(layers), strict=True)]
        log_q = np.asarray(sum(per_layer))
        elbo = np.exp(log_q) @ (log_joint(net, layers, row) - log_q)
        bound = float(bound_at(read, cells, factors))
        assert bound < elbo + 1e-12 and elbo < log_p + 1e-12
    assert elbo == pytest.approx(
        float(ELBO(Enumerate()).bound(Helmholtz(net, MeanFieldInference(50)), row, key=jr.key(0)))
    )
    assert bound == pytest.approx(float(settled.log_bound), abs=1e-12) and log_p - bound < 1.0


@every_net
def test_the_best_tilts_are_tightest(layers, seed):
    """At the settled means: those of one half lose, and so do others; each is the minimum that Brent's method finds."""
    net = wild(layers, seed, scale=2.0)
    read, cells, row = both(net)
    settled = infer(MeanFieldInference(500), net, row).factors
    best = float(bound_at(read, cells, settled))
    at = lambda tilts: float(bound_at(read, cells, Factors(settled.odds, tilts)))  # noqa: E731
    half = at(tuple(jnp.full_like(tilt, 0.5) for tilt in settled.tilts))
    assert half < best - 1e-3
    for other in range(5):
        assert at(parameters(layers, other).tilts) < best
    for i, tilts in enumerate(settled.tilts):
        for j in range(tilts.size):
            moved = lambda t, i=i, j=j: tuple(  # noqa: E731
                tilt.at[j].set(t) if k == i else tilt for k, tilt in enumerate(settled.tilts)
            )
            found = minimize_scalar(lambda t, m=moved: -at(m(t)), bounds=(0, 1), method="bounded")
            assert -found.fun <= best + 1e-12 and float(tilts[j]) == pytest.approx(found.x, abs=1e-4)


@pytest.mark.parametrize("scale", [0.5, 3.0, 12.0])
@every_net
@either_mask
def test_no_round_lowers_the_bound(layers, seed, mask, scale):
    """From the start that is used and from others; weights up to 48 in zeros and ones."""
    net = wild(layers, seed, scale)
    read, cells, _ = both(net, mask)
    for factors in (start(read), *(parameters(layers, i) for i in range(3))):
        bounds = np.asarray(rounds_from(read, cells, factors))
        begin = float(bound_at(read, cells, factors))
        assert np.isfinite(bounds).all() and bounds[0] >= begin - 1e-12
        assert (np.diff(bounds) >= -1e-12 * np.maximum(1, np.abs(bounds[:-1]))).all()


@pytest.mark.slow
def test_bounds_along_the_way_are_those_of_so_many_rounds():
    net, row = wild((2, 3), 1), Row(ROW, HOLE)
    climb = MeanFieldInference(4).climb(net, row)
    for rounds in range(1, 5):
        assert float(MeanFieldInference(rounds)(net, row).log_bound) == pytest.approx(
            float(climb[rounds - 1]), abs=1e-13
        )
    assert climb[-1] > climb[0] + 1e-3


@pytest.mark.parametrize("layers", [(3,), (2, 3)])
@either_mask
def test_without_weights_the_bound_is_log_p(layers, mask):
    net = wild(layers, 4)
    flat = lambda node: eqx.tree_at(lambda n: n.weight, node, 0 * node.weight)  # noqa: E731
    linear = lambda node: isinstance(node, eqx.nn.Linear)  # noqa: E731
    net = jax.tree.map(lambda n: flat(n) if linear(n) else n, net, is_leaf=linear)
    row = row_with(mask)
    log_p, _ = exact(net, layers, row)
    posterior = infer(MeanFieldInference(1), net, row)
    assert float(posterior.log_bound) == pytest.approx(log_p, abs=1e-12)
    for got, want in zip(posterior.mean(), net.prior().mean(), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)


@every_net
@either_mask
def test_a_settled_row_is_a_stationary_point(layers, seed, mask):
    """Central differences of the bound in every log odds and every tilt."""
    net = wild(layers, seed)
    read, cells, row = both(net, mask)
    settled = infer(MeanFieldInference(3000), net, row).factors
    flat, back = jax.flatten_util.ravel_pytree(settled)
    bound = jax.jit(jax.vmap(lambda v: mean_field_bound(read, cells, back(v))))
    step = 1e-5 * jnp.eye(flat.size)
    slope = (bound(flat[None] + step) - bound(flat[None] - step)) / 2e-5
    assert float(jnp.max(jnp.abs(slope))) < 1e-8
    elsewhere, _ = jax.flatten_util.ravel_pytree(parameters(layers, seed))
    assert float(jnp.max(jnp.abs(bound(elsewhere[None] + step) - bound(elsewhere[None] - step)))) / 2e-5 > 0.05


# --- holes


def without(net: Directed, mask: Any) -> Directed:
    """The net of the cells that are seen."""
    get = lambda n: (n.conditional.net.net.layers[0].weight, n.conditional.net.net.layers[0].bias)  # noqa: E731
    weight, bias = get(net)
    cut = eqx.tree_at(get, net, (weight[mask], bias[mask]))
    return dataclasses.replace(cut, conditional=dataclasses.replace(cut.conditional, shape=(int(mask.sum()),)))


@every_net
def test_a_hole_is_a_cell_that_does_not_exist(layers, seed):
    net = wild(layers, seed)
    small = without(net, np.asarray(HOLE))
    row, rest = row_with(HOLE), Row(ROW[np.asarray(HOLE)])
    for inference in (MeanFieldInference(30), ExactInference()):
        holed, whole = infer(inference, net, row), infer(inference, small, rest)
        assert float(holed.log_bound) == pytest.approx(float(whole.log_bound), abs=1e-12)
        for got, want in zip(holed.mean(), whole.mean(), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-12)
    (read, cells, _), few = both(net, HOLE), SeenCells.of(rest)
    z = tuple(jnp.asarray(layer[[3, -2]]) for layer in states(layers))
    before, after = (tuple(layer[i] for layer in z) for i in (0, 1))
    move = UnitGibbs(read, cells).log_step(before, after)
    assert float(move) == pytest.approx(float(UnitGibbs(SigmoidLayers.of(small, ""), few).log_step(before, after)))


def test_what_a_hole_holds_makes_no_difference():
    net = wild((2, 3), 1)
    for inference in (MeanFieldInference(), ExactInference(), GibbsSampling(5, 5)):
        one, other = (inference(net, Row(ROW.at[2].set(value), HOLE)) for value in (0.0, jnp.nan))
        for got, want in zip(one.mean(), other.mean(), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.slow
def test_a_row_without_cells_is_the_prior():
    net, row = wild((2, 3), 1), Row(jnp.zeros(CELLS), jnp.zeros(CELLS, bool))
    posterior = ExactInference()(net, row)
    assert float(posterior.log_bound) == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(posterior.mean()[0], net.prior().first.mean(), atol=1e-12)
    assert float(MeanFieldInference()(net, row).log_bound) < 0
    batch = jax.tree.map(lambda leaf: leaf[None], row)
    for evidence in (EnumeratedLatents(), Variational()):
        value, _ = evidence(Helmholtz(net, MeanFieldInference()), batch, key=jr.key(0))
        assert float(value[0]) == 0


# --- Gibbs sampling


def transitions(kernel: UnitGibbs, layers: tuple[int, ...]) -> np.ndarray:
    return np.exp(moves(kernel, tuple(map(jnp.asarray, states(layers)))))


@either_mask
@pytest.mark.parametrize("layers, seed", [((2, 4), 3), ((3,), 0), ((2, 2, 2), 2)])
def test_a_scan_leaves_the_exact_posterior_as_it_is(layers, seed, mask):
    """The whole transition matrix of up to 64 states."""
    net = wild(layers, seed)
    read, cells, row = both(net, mask)
    _, posterior = exact(net, layers, row)
    matrix = transitions(UnitGibbs(read, cells), layers)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(posterior @ matrix, posterior, atol=1e-12)
    assert matrix.min() > 0 and np.abs(matrix - posterior[None]).max() > 0.01
    assert np.abs(np.linalg.matrix_power(matrix, 500) - posterior[None]).max() < 1e-9


def test_scans_are_drawn_with_these_probabilities():
    """64 frequencies of 20,000 moves from one state; with another seed it would fail once in 2,300 times."""
    layers, draws = (2, 4), 20_000
    net = wild(layers, 3)
    read, cells, _ = both(net, HOLE)
    kernel, every = UnitGibbs(read, cells), states(layers)
    before = tuple(jnp.asarray(layer[37]) for layer in every)
    z, told = jax.jit(jax.vmap(lambda k: kernel.step(before, key=k)))(jr.split(jr.key(5), draws))
    again = jax.vmap(lambda after: kernel.log_step(before, after))(z)
    np.testing.assert_allclose(told["log_move"], again, atol=1e-12)
    place = np.concatenate(z, axis=1).astype(int) @ (2 ** np.arange(6)[::-1])
    agrees(place, transitions(kernel, layers)[37])


def test_a_chain_begins_at_the_net_without_a_row():
    """Means of 4,000 starts; with another seed one of 5 numbers would fail once in 30,000 times."""
    net = wild((2, 3), 1)
    read, cells, _ = both(net)
    z = jax.vmap(lambda k: UnitGibbs(read, cells).start(key=k))(jr.split(jr.key(2), 4000))
    prior = ExactInference()(net, Row(ROW, jnp.zeros(CELLS, bool))).mean()
    assert max(np.max(np.abs(z_scores(np.asarray(a), np.asarray(b)))) for a, b in zip(z, prior, strict=True)) < LIMIT


@pytest.mark.parametrize("scans", some([1, 30], 1))
def test_weights_of_draws_have_the_mean_p_of_x(scans):
    """However short the chain; 40,000 weights. The mean of their logs is where enumeration has it, below log p(x)."""
    layers = (2, 3)
    net = wild(layers, 1)
    read, cells, row = both(net, HOLE)
    posterior = GibbsSampling(scans)(net, row)

    def weight(key):
        z, log_q = posterior.sample(key=key)
        return net.log_joint(z, row) - log_q

    log_w = np.asarray(jax.jit(jax.vmap(weight))(jr.split(jr.key(3), 40_000)))
    log_p, joint = exact(net, layers, row)[0], log_joint(net, layers, row)
    assert np.abs(z_scores(np.exp(log_w)[:, None], np.exp(log_p))).max() < LIMIT
    matrix, prior = transitions(UnitGibbs(read, cells), layers), exact(net, layers, row_with(~HOLE & HOLE))[1]
    before = prior @ np.linalg.matrix_power(matrix, scans)
    bound = before @ (matrix * (joint[None] - np.log(matrix))).sum(axis=1)
    assert np.abs(z_scores(log_w[:, None], bound)).max() < LIMIT and bound < log_p


def test_states_of_a_chain_are_steps_of_its_kernel():
    net, row = wild((2, 3), 1), Row(ROW)
    posterior = GibbsSampling(3)(net, row)
    z, log_moves = posterior.visited(4, key=jr.key(1))
    for i in range(3):
        before, after = (tuple(layer[j] for layer in z) for j in (i, i + 1))
        assert float(posterior.kernel.log_step(before, after)) == pytest.approx(float(log_moves[i + 1]), abs=1e-12)
    moved = walk(posterior.kernel, tuple(layer[0] for layer in z), 1, key=jr.key(2))
    assert [layer.shape for layer in moved] == [(2,), (3,)]


@pytest.mark.slow
def test_a_posterior_mean_by_a_chain_is_a_function_of_the_row():
    net = wild((2, 3), 1)
    rows = Row(jnp.array([[1.0, 0, 1, 1], [0, 0, 1, 0], [1, 0, 1, 1]]))
    made = jax.vmap(lambda row: GibbsSampling(5, 20)(net, row).mean()[1])(rows)
    alone = GibbsSampling(5, 20)(net, Row(rows.x[1])).mean()[1]
    np.testing.assert_array_equal(made[0], made[2])
    np.testing.assert_array_equal(made[1], alone)
    assert np.any(np.asarray(GibbsSampling(5, 20, seed=1)(net, Row(rows.x[1])).mean()[1]) != np.asarray(alone))


def test_draws_have_no_density_and_say_so():
    posterior = GibbsSampling(5, 5)(wild((2, 3), 1), Row(ROW))
    with pytest.raises(Complaint, match="MonteCarloEM"):
        posterior.log_prob(posterior.mean())
    assert [node.mean().shape for node in posterior.nodes()] == [(2,), (3,)]


def test_holes_are_filled_by_the_states_of_a_chain():
    """E[x | rest] of a missing cell against enumeration; the mean of 300 chains of 20 states."""
    layers = (2, 3)
    net, row = wild(layers, 1), Row(ROW, HOLE)
    model = Helmholtz(net, GibbsSampling(50))
    _, posterior = exact(net, layers, row)
    shown = jax.vmap(lambda z: net.likelihood(z).mean())(tuple(map(jnp.asarray, states(layers))))
    truth = posterior @ np.asarray(shown)
    filled = jax.jit(jax.vmap(lambda k: expected_completion(model, row, 20, key=k)))(jr.split(jr.key(4), 300))
    filled = np.asarray(filled)
    assert np.all(filled[:, [0, 1, 3]] == np.asarray(ROW)[[0, 1, 3]])
    assert np.abs(z_scores(filled[:, 2:3], truth[2])).max() < LIMIT and filled[:, 2].std() > 0
    z, share = weighted_draws(model, row, 7, key=jr.key(0))
    assert z[1].shape == (7, 3) and np.all(np.asarray(share) == 1 / 7)


# --- the exact posterior


@every_net
@either_mask
def test_the_exact_posterior_is_that_of_enumeration(layers, seed, mask):
    net = wild(layers, seed)
    row, every = row_with(mask), tuple(map(jnp.asarray, states(layers)))
    log_p, share = exact(net, layers, row)
    posterior = infer(ExactInference(), net, row)
    assert float(posterior.log_bound) == pytest.approx(log_p, abs=1e-12)
    np.testing.assert_allclose(np.exp(jax.vmap(posterior.log_prob)(every)), share, atol=1e-12)
    for got, layer in zip(posterior.mean(), states(layers), strict=True):
        np.testing.assert_allclose(got, share @ layer, atol=1e-12)
    cost = lambda z, log_q: jnp.sum(z[0]) * jnp.sum(z[-1]) + log_q  # noqa: E731
    want = share @ (states(layers)[0].sum(axis=1) * states(layers)[-1].sum(axis=1) + np.log(share))
    assert float(posterior.expect(cost, Enumerate(), key=jr.key(0))) == pytest.approx(want, abs=1e-12)


def test_draws_of_the_exact_posterior():
    """32 frequencies of 20,000 draws; with another seed it would fail once in 4,600 times."""
    layers, draws = (2, 3), 20_000
    net, row = wild(layers, 1), Row(ROW, HOLE)
    posterior = ExactInference()(net, row)
    z, log_q = jax.jit(jax.vmap(lambda k: posterior.sample(key=k)))(jr.split(jr.key(6), draws))
    place = np.concatenate(z, axis=1).astype(int) @ (2 ** np.arange(5)[::-1])
    share = exact(net, layers, row)[1]
    np.testing.assert_allclose(np.exp(log_q), share[place], atol=1e-12)
    agrees(place, share)


def test_enumeration_takes_any_nets_and_any_discrete_latents():
    """Tanh units between layers, a latent of classes, a latent that is no tuple."""
    net = belief_net((2, 3), "~", Bits(), jnp.full(CELLS, 0.3), key=jr.key(8))
    assert float(ExactInference()(net, Row(ROW)).log_bound) == pytest.approx(exact(net, (2, 3), Row(ROW))[0], abs=1e-12)
    for name in ("one-hot", "bits"):
        model, row = MODELS[name](), Row(ROW[:3])
        every = model.p.prior().support()
        log_p = jax.vmap(lambda z, model=model, row=row: model.log_joint(z, row))(every)
        posterior = ExactInference()(model.p, row)
        assert float(posterior.log_bound) == pytest.approx(float(logsumexp(log_p)), abs=1e-6)
        share = np.exp(np.asarray(log_p) - logsumexp(log_p))
        np.testing.assert_allclose(posterior.mean(), np.tensordot(share, np.asarray(every), 1), atol=1e-6)


def test_what_cannot_be_listed_is_refused_in_one_line():
    many = belief_net((12, 12), "-", Bits(), jnp.full(CELLS, 0.3), key=jr.key(0))
    with pytest.raises(Complaint, match=r"at most 2\^20 pairs .* got 2\^24"):
        ExactInference()(many, Row(ROW))
    with pytest.raises(Complaint, match="discrete units, got Gaussian"):
        ExactInference()(MODELS["vae"]().p, Row(ROW[:3]))
    with pytest.raises(ValueError, match="2\\^40 values"):
        ExactInference()(belief_net((40,), "-", Bits(), jnp.full(CELLS, 0.3), key=jr.key(0)), Row(ROW))


# --- learning


def flattened(loss: Any, model: Any) -> tuple[Any, Any]:
    """The loss as a function of one vector of parameters, and where the model is."""
    arrays, rest = trainable(model)
    flat, back = jax.flatten_util.ravel_pytree(arrays)
    return lambda v: loss(eqx.combine(back(v), rest)), flat


def slope(loss: Any, model: Any) -> np.ndarray:
    """The gradient in every parameter by JAX."""
    at, flat = flattened(loss, model)
    return np.asarray(jax.jit(jax.grad(at))(flat))


def differences(loss: Any, model: Any) -> np.ndarray:
    """The same by central differences."""
    at, flat = flattened(loss, model)
    step, many = 1e-5 * jnp.eye(flat.size), jax.jit(jax.vmap(at))
    return np.asarray(many(flat[None] + step) - many(flat[None] - step)) / 2e-5


def still(net: Directed) -> Directed:
    """The net with centres that no rule may change: no gradient reaches them."""
    signed = lambda node: isinstance(node, Signed)  # noqa: E731
    fixed = lambda n: Signed(n.net, Fixed(n.centre.value), n.layer) if signed(n) else n  # noqa: E731
    return jax.tree.map(fixed, net, is_leaf=signed)


@every_net
@either_mask
def test_the_step_of_variational_em_is_the_slope_of_the_bound(layers, seed, mask):
    """At held parameters of q; and, where these are a stationary point, of the bound that settles anew."""
    net = still(wild(layers, seed))
    _, cells, row = both(net, mask)
    batch = jax.tree.map(lambda leaf: leaf[None], row)
    held = infer(MeanFieldInference(2000), net, row).factors
    want = differences(lambda p: -mean_field_bound(SigmoidLayers.of(p, ""), cells, held), net)
    anew = differences(lambda p: -MeanFieldInference(2000)(p, row).log_bound, net)
    got = slope(lambda p: VariationalEM()(Helmholtz(p, MeanFieldInference(2000)), batch, key=jr.key(0))[0], net)
    np.testing.assert_allclose(got, want, atol=1e-8)
    np.testing.assert_allclose(got, anew, atol=1e-6)
    assert np.abs(got).max() > 0.05


@pytest.mark.slow
def test_no_gradient_reaches_a_running_centre():
    net, row = wild((2, 3), 1), Row(ROW)
    parameters, rest = trainable(net)
    got = jax.grad(lambda p: MeanFieldInference(5)(eqx.combine(p, rest), row).log_bound)(parameters)
    running = lambda node: isinstance(node, Running)  # noqa: E731
    centres = [node for node in jax.tree.leaves(got, is_leaf=running) if running(node)]
    assert len(centres) == 2 and all(np.all(np.asarray(centre.value) == 0) for centre in centres)


@either_mask
def test_expectation_maximisation_by_the_exact_posterior_is_maximum_likelihood(mask):
    layers = (2, 3)
    net, row = still(wild(layers, 1)), row_with(mask)
    batch = jax.tree.map(lambda leaf: leaf[None], row)
    every = tuple(map(jnp.asarray, states(layers)))
    log_p = lambda p: -jax.nn.logsumexp(jax.vmap(lambda z: p.log_joint(z, row))(every))  # noqa: E731
    got = slope(lambda p: VariationalEM()(Helmholtz(p, ExactInference()), batch, key=jr.key(0))[0], net)
    want = differences(log_p, net)
    np.testing.assert_allclose(got, want, atol=1e-8)


@pytest.mark.slow
def test_the_step_of_monte_carlo_em_is_the_slope_of_log_p():
    """20,000 chains of 40 scans, by when no start is told apart from another: all parameters, and the bound's side."""
    layers = (2, 3)
    net, row = still(wild(layers, 1)), Row(ROW, HOLE)
    read, cells, _ = both(net, HOLE)
    matrix = np.linalg.matrix_power(transitions(UnitGibbs(read, cells), layers), 40)
    assert np.abs(matrix - matrix[:1]).max() < 1e-6
    every = tuple(map(jnp.asarray, states(layers)))
    want = differences(lambda p: jax.nn.logsumexp(jax.vmap(lambda z: p.log_joint(z, row))(every)), net)
    arrays, rest = trainable(net)

    def one(key):
        bound = lambda a: MonteCarloEM(1).bound(Helmholtz(eqx.combine(a, rest), GibbsSampling(40)), row, key=key)  # noqa: E731
        value, slope = jax.value_and_grad(bound)(arrays)
        return value, jax.flatten_util.ravel_pytree(slope)[0]

    values, found = jax.jit(jax.vmap(one))(jr.split(jr.key(9), 20_000))
    assert np.max(np.abs(z_scores(np.asarray(found), want))) < LIMIT
    assert float(jnp.mean(values)) < exact(net, layers, row)[0]


@pytest.mark.slow
def test_objectives_refuse_inference_they_cannot_learn_from():
    net, batch = wild((2,), 0), Row(ROW[None])
    with pytest.raises(Complaint, match=r"VariationalEM: .*MeanFieldInference\(\)"):
        VariationalEM()(Helmholtz(net, GibbsSampling(2)), batch, key=jr.key(0))
    with pytest.raises(Complaint, match=r"MonteCarloEM: .*GibbsSampling\(\)"):
        MonteCarloEM()(Helmholtz(net, MeanFieldInference(2)), batch, key=jr.key(0))
    with pytest.raises(Complaint, match=r"Variational: .*MeanFieldInference\(\)"):
        Variational()(Helmholtz(net, GibbsSampling(2)), batch, key=jr.key(0))


# --- evidence


@pytest.mark.slow
def test_evidence_of_a_net_with_classical_inference():
    """The bound, the truth between, and importance weights of the settled q, 4,000 draws."""
    layers = (2, 3)
    net, row = wild(layers, 1), Row(ROW, HOLE)
    batch, model = jax.tree.map(lambda leaf: leaf[None], row), Helmholtz(net, MeanFieldInference(50))
    log_p, _ = exact(net, layers, row)
    bound, _ = Variational()(model, batch, key=jr.key(0))
    ready = Variational().prepared(model, key=jr.key(0))
    assert (ready.direction, ready.method()) == ("lower", "mean-field")
    assert float(bound[0]) == pytest.approx(float(MeanFieldInference(50)(net, row).log_bound), abs=1e-12)
    assert log_p - 1 < float(bound[0]) < log_p
    value, error = ImportanceWeighted(4000)(model, batch, key=jr.key(1))
    assert abs(float(value[0]) - log_p) < LIMIT * float(error[0])
    value, error = EnumeratedLatents()(model, batch, key=jr.key(1))
    assert float(value[0]) == pytest.approx(log_p, abs=1e-12) and EnumeratedLatents().direction == "exact"


# --- the recipe

INFERENCES: dict[str, tuple[AbstractInference, Any]] = {
    "mean-field": (MeanFieldInference(5), VariationalEM()),
    "exact": (ExactInference(), VariationalEM()),
    "gibbs": (GibbsSampling(3, 5), MonteCarloEM(2)),
    "mean-field, estimator": (MeanFieldInference(5), ELBO(RLOO(2))),
}


@pytest.mark.slow
def test_the_default_of_the_recipe_learns_a_recognition_network():
    model = rv.SigmoidBeliefNet(layers=(2,), steps=5, random_state=0).fit(np.eye(4)).model_
    assert rv.SigmoidBeliefNet().inference is None and isinstance(model.q, BottomUp)


@pytest.mark.parametrize("name", some(INFERENCES))
def test_a_recipe_with_classical_inference(name, tmp_path):
    """Fitted on rows with holes, asked everything, saved and loaded."""
    inference, objective = INFERENCES[name]
    X = (np.random.default_rng(0).uniform(size=(40, 4)) < 0.4).astype(float)
    X[::3, 1] = np.nan
    fields = {"layers": (2, 3), "steps": 20, "evidence": ImportanceWeighted(16), "particles": 20}
    recipe = rv.SigmoidBeliefNet(inference=inference, objective=objective, random_state=0, **fields)
    model = recipe.fit(X)
    assert model.transform(X[:5]).shape == (5, 5) and model.log_likelihood(X[:5]).direction == "lower"
    assert np.isfinite(model.score_samples(X[:5])).all()
    filled = model.impute(X[:5])
    assert set(np.unique(filled)) <= {0.0, 1.0} and np.all(filled[~np.isnan(X[:5])] == X[:5][~np.isnan(X[:5])])
    again = rv.load(model.save(tmp_path / "net"))
    assert again.inference == inference and np.all(again.transform(X[:5]) == model.transform(X[:5]))


def test_tanh_links_are_refused_by_the_recipe_in_one_line():
    recipe = rv.SigmoidBeliefNet(
        layers=(2,), links="~", inference=MeanFieldInference(), objective=VariationalEM(), steps=3
    )
    with pytest.raises(Complaint, match='MeanFieldInference: expected affine maps between layers, .*links="-"'):
        recipe.fit(np.eye(4))


def test_inference_is_written_as_text():
    for part in (MeanFieldInference(7), GibbsSampling(5), ExactInference(8), VariationalEM(), MonteCarloEM(3)):
        assert parse(spell(part)) == part
    assert "Unlooked" not in parts() and "BottomUp" not in parts()


def bars(n: int, seed: int) -> np.ndarray:
    """Rows of 3 x 3: each of six bars with a chance of a quarter, a twentieth of the cells turned over."""
    stream = np.random.default_rng(seed)
    on = stream.uniform(size=(n, 6)) < 0.25
    shown = np.maximum(on[:, :3, None], on[:, None, 3:]).reshape(n, 9).astype(float)
    return np.abs(shown - (stream.uniform(size=(n, 9)) < 0.05))


@pytest.mark.slow
def test_variational_em_learns_bars_as_well_as_a_recognition_network():
    """The same net learned by both for as many steps: held-out log p(x) by enumeration, and what each knows of it."""
    train_rows, test_rows = bars(1000, 0), bars(500, 1)
    fields = {"layers": (6,), "steps": 1500, "rate": 0.01, "evidence": EnumeratedLatents(), "random_state": 0}
    amortised = rv.SigmoidBeliefNet(**fields).fit(train_rows)
    settled = rv.SigmoidBeliefNet(inference=MeanFieldInference(), objective=VariationalEM(), **fields).fit(train_rows)
    network, mean_field = amortised.score(test_rows), settled.score(test_rows)
    bound = settled.set_params(evidence=Variational()).score(test_rows)
    elbo = amortised.set_params(evidence=ImportanceWeighted(1)).score(test_rows)
    assert mean_field > network - 0.1 and bound < mean_field
    assert mean_field - bound < network - elbo


def test_a_density_is_asked_for_in_vain_in_one_line():
    recipe = rv.SigmoidBeliefNet(layers=(2,), inference=GibbsSampling(2), steps=3)
    with pytest.raises(Complaint, match=r"log q\(z\): expected .*MonteCarloEM\(\)"):
        recipe.fit(np.eye(4))


@pytest.mark.slow
def test_single_precision_stays_single_and_bounded():
    with jax.enable_x64(False):
        net = belief_net((8, 20), "-", Bits(), jnp.full(30, 0.3), key=jr.key(0))
        row = Row((jr.uniform(jr.key(1), (30,)) < 0.4).astype(jnp.float32))
        posterior, climb = MeanFieldInference()(net, row), MeanFieldInference(30).climb(net, row)
        assert posterior.log_bound.dtype == jnp.float32 and posterior.mean()[1].dtype == jnp.float32
        assert bool((climb[1:] >= climb[:-1] - 1e-4).all())
        assert GibbsSampling(2, 2)(net, row).mean()[1].dtype == jnp.float32


@pytest.mark.slow
def test_an_mlp_of_one_layer_and_a_linear_layer_without_bias_are_affine():
    plain = Directed(
        Ancestral(
            Bernoulli(jnp.zeros(2)), Conditional(eqx.nn.Linear(2, 3, use_bias=False, key=jr.key(0)), Bits(), (3,))
        ),
        Conditional(MLP(3, 4, (), key=jr.key(1)), Bits(), (2, 2)),
    )
    row = Row(ROW.reshape(2, 2), HOLE.reshape(2, 2))
    log_p = exact(plain, (2, 3), row)[0]
    assert float(ExactInference()(plain, row).log_bound) == pytest.approx(log_p, abs=1e-12)
    assert log_p - 1 < float(MeanFieldInference(50)(plain, row).log_bound) < log_p
