"""Boltzmann machines against lists of all their states, and what they learn.

The statistical tests have fixed seeds and a limit of 4.5 standard errors: with another seed each number fails once in
150,000 times.
"""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import LIMIT, flat, some, z_scores
from scipy.special import expit, logsumexp

from ravine._tree import Fixed, Linear, trainable
from ravine.core import Row, walk
from ravine.evidence import AIS, Normalised
from ravine.models.boltzmann import Boltzmann, Drawn, Filling, MeanField
from ravine.models.units import BinaryUnits
from ravine.objectives import Contrast
from ravine.recipes.boltzmann_machine import BoltzmannMachine
from ravine.rules import Contrastive, ContrastiveDivergence, Optimiser, Persistent, centred
from ravine.verbs import log_likelihood

H, J = np.array([0.1, -0.2, 0.3]), np.array([0.5, -0.3, 0.8])  # couplings of (0, 1), (0, 2), (1, 2)


def golden() -> Boltzmann:
    base = Fixed(BinaryUnits((3,), jnp.array([0.4, -0.1, 0.2])))
    return Boltzmann(BinaryUnits((3,), jnp.asarray(H)), jnp.asarray(J), base, visible=2)


def machine(units: int, visible: int, seed: int = 0, strength: float = 1.0) -> Boltzmann:
    stream = np.random.default_rng(seed)
    bias, base = (BinaryUnits((units,), jnp.asarray(stream.normal(size=units))) for _ in range(2))
    coupling = strength * stream.normal(size=units * (units - 1) // 2)
    return Boltzmann(bias, jnp.asarray(coupling), Fixed(base), visible)


def listed(model: Boltzmann) -> tuple[np.ndarray, np.ndarray]:
    """Every state, and minus its energy, pair by pair."""
    states = np.array(list(itertools.product([0.0, 1.0], repeat=model.units.size)))
    value = states @ np.asarray(model.units.bias)
    for weight, (i, j) in zip(
        np.asarray(model.coupling), itertools.combinations(range(states.shape[1]), 2), strict=True
    ):
        value = value + weight * states[:, i] * states[:, j]
    return states, value


def agreeing(states: np.ndarray, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Which states hold the observed ones of the first cells."""
    return np.all((states[:, : len(x)] == x) | ~mask, axis=1)


# --- the law


def test_the_three_units_of_the_tutorial(x64):
    """Jordan et al. 1999, section 6.3, on three units; the numbers were found by listing eight states in numpy."""
    model = golden()
    assert float(model.log_partition()) == pytest.approx(2.537694853069171, abs=1e-12)
    assert float(model.log_bound()) == pytest.approx(2.5127937271729466, abs=1e-6)
    np.testing.assert_allclose(model.mean_field(), [0.55629497, 0.6465289, 0.65708587], atol=1e-6)
    of_bias = lambda b: eqx.tree_at(lambda m: m.units.bias, model, b).log_partition()  # noqa: E731
    np.testing.assert_allclose(jax.grad(of_bias)(model.units.bias), [0.55510033, 0.6395234, 0.65094386], atol=1e-6)


def test_the_energy_and_log_z_are_those_of_a_list(x64):
    model = machine(6, 4)
    states, value = listed(model)
    np.testing.assert_allclose(-jax.vmap(model.energy)(jnp.asarray(states)), value, atol=1e-12)
    assert float(model.log_partition()) == pytest.approx(logsumexp(value), abs=1e-12)
    np.testing.assert_array_equal(model.matrix(), model.matrix().T)
    np.testing.assert_array_equal(jnp.diagonal(model.matrix()), 0)


def test_a_single_unit_is_a_coin(x64):
    model = machine(1, 1)
    b = float(model.units.bias[0])
    assert float(model.log_partition()) == pytest.approx(np.log1p(np.exp(b)), abs=1e-12)
    assert float(model.log_bound()) == pytest.approx(np.log1p(np.exp(b)), abs=1e-12)
    assert model.swept(jnp.zeros(1), None, key=jr.key(0)).shape == (1,)


def test_the_path_begins_at_the_base_and_ends_at_the_machine(x64):
    model = machine(5, 3)
    states, value = listed(model)
    np.testing.assert_allclose(-jax.vmap(model.at(jnp.array(1.0)).energy)(jnp.asarray(states)), value, atol=1e-12)
    alone = states @ np.asarray(model.base.value.bias)
    np.testing.assert_allclose(-jax.vmap(model.at(jnp.array(0.0)).energy)(jnp.asarray(states)), alone, atol=1e-12)
    assert float(model.log_start()) == pytest.approx(logsumexp(alone), abs=1e-12)
    x, mask = np.array([1.0, 0.0, 1.0]), np.array([True, False, True])
    row = model.lifted(Row(jnp.asarray(x * mask), jnp.asarray(mask)))
    assert float(model.log_start(row)) == pytest.approx(logsumexp(alone[agreeing(states, x, mask)]), abs=1e-12)


def test_lifting_twice_is_lifting_once():
    model = machine(5, 3)
    once = model.lifted(Row(jnp.array([1.0, 0.0, 1.0])))
    assert once.mask.tolist() == [True] * 3 + [False] * 2
    twice = model.lifted(once)
    assert twice is once and model.shown(once.x).tolist() == [1.0, 0.0, 1.0]


# --- chains


def transitions(model: Boltzmann, held: np.ndarray, states: np.ndarray) -> np.ndarray:
    """The law of `visited`, exactly: every outcome of every visit, with its probability from a table of energies.

    That the sweep itself uses these probabilities is asked of it: a hair below each a unit is 1, a hair above it is 0.
    """
    value = {tuple(s): v for s, v in zip(*listed(model), strict=True)}
    size = states.shape[1]
    order, found = [*range(size), *range(size - 2, -1, -1)], np.zeros((len(states),) * 2)
    starts, luck, ends = [], [], []
    for start in states:
        for outcome in itertools.product([0.0, 1.0], repeat=len(order)):
            s, weight, hair = list(start), 1.0, []
            for i, bit in zip(order, outcome, strict=True):
                on, off = (value[(*s[:i], b, *s[i + 1 :])] for b in (1.0, 0.0))
                p = expit(on - off)
                hair.append(p * (1 - 1e-9) if bit else p + (1 - p) * 1e-9)
                weight *= (p if bit else 1 - p) if not held[i] else 0.5
                s[i] = s[i] if held[i] else bit
            found[np.flatnonzero((states == start).all(1))[0], np.flatnonzero((states == s).all(1))[0]] += weight
            starts.append(start), luck.append(hair), ends.append(s)
    went = jax.jit(jax.vmap(lambda x, u: model.visited(x, jnp.asarray(held), u)))(*map(jnp.asarray, (starts, luck)))
    np.testing.assert_array_equal(went, ends)
    return found


@pytest.mark.parametrize("held", [(False, False, False), (False, True, False)])
def test_the_sweep_is_reversible_and_leaves_the_law_as_it_is(held, x64):
    model = golden()
    states, value = listed(model)
    law = np.exp(value - logsumexp(value))
    flow = law[:, None] * transitions(model, np.array(held), states)
    np.testing.assert_allclose(flow.sum(axis=1), law, atol=1e-12)
    np.testing.assert_allclose(flow, flow.T, atol=1e-12)
    assert (flow > 0).sum() == (64 if not any(held) else 32)


def test_a_sweep_in_one_order_would_not_be_reversible(x64):
    """What the sweep back is for: without it detailed balance fails by far."""
    model = golden()
    states, value = listed(model)
    one_way = np.eye(8)
    for i in range(3):
        at = np.zeros((8, 8))
        for a, s in enumerate(states):
            to = [np.flatnonzero((states == np.where(np.arange(3) == i, b, s)).all(1))[0] for b in (0.0, 1.0)]
            at[a, to] = np.exp(value[to] - logsumexp(value[to]))
        one_way = one_way @ at
    flow = np.exp(value - logsumexp(value))[:, None] * one_way
    assert np.abs(flow - flow.T).max() > 1e-3


def test_sweeps_with_held_cells_draw_the_rest(x64):
    model = golden()
    states, value = listed(model)
    x, mask = np.array([1.0, 0.0]), np.array([True, False])
    row = model.lifted(Row(jnp.asarray(x), jnp.asarray(mask)))
    draw = lambda k: walk(model.kernel(row), row.clamp(model.start(key=k)), 10, key=k)  # noqa: E731
    drawn = np.asarray(jax.jit(jax.vmap(draw))(jr.split(jr.key(1), 20_000)))
    left = agreeing(states, x, mask)
    share = np.exp(value[left] - logsumexp(value[left]))
    assert (drawn[:, 0] == 1).all()
    assert np.abs(z_scores(drawn[:, 1:], share @ states[left][:, 1:])).max() < LIMIT


# --- mean field


@eqx.filter_jit
def bounds(models: Boltzmann, X: jax.Array, rounds: int) -> tuple[jax.Array, jax.Array]:
    """On log Z of each machine, and on the sum of what each row leaves open."""
    one = lambda m: (m.log_bound(None, rounds), jax.vmap(lambda x: m.log_bound(m.lifted(Row(x)), rounds))(X))  # noqa: E731
    return eqx.filter_vmap(one)(models)


def test_the_bound_is_never_above_and_never_falls(x64):
    machines = [machine(7, 4, seed, strength) for seed in range(4) for strength in (0.5, 2.0, 6.0)]
    X = np.array(list(itertools.product([0.0, 1.0], repeat=4)))
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *machines)
    of_z, of_rows = zip(*(bounds(together, jnp.asarray(X), rounds) for rounds in (0, 1, 2, 20)), strict=True)
    lists = [listed(one) for one in machines]
    log_z = np.array([logsumexp(value) for _, value in lists])
    rows = np.array([[logsumexp(value[agreeing(s, x, np.ones(4, bool))]) for x in X] for s, value in lists])
    for found, exact in ((np.array(of_z), log_z), (np.array(of_rows), rows)):
        assert (found <= exact + 1e-12).all() and np.diff(found, axis=0).min() > -1e-12
        assert 0 < np.mean(exact - found[-1]) < 1 < np.mean(exact - found[0])


def test_the_mean_field_is_a_fixed_point_and_exact_without_couplings(x64):
    model = machine(6, 3)
    row = model.lifted(Row(jnp.array([1.0, 0.0, 1.0])))
    m = np.asarray(eqx.filter_jit(Boltzmann.mean_field)(model, row, 200))
    np.testing.assert_allclose(
        m[3:], expit(np.asarray(model.units.bias) + np.asarray(model.matrix()) @ m)[3:], atol=1e-9
    )
    np.testing.assert_array_equal(m[:3], [1.0, 0.0, 1.0])
    np.testing.assert_allclose(model.posterior(row).mean(), m[3:], atol=1e-7)
    alone = dataclasses.replace(model, coupling=0 * model.coupling)
    assert float(alone.log_bound()) == pytest.approx(float(alone.log_partition()), abs=1e-12)


@pytest.mark.slow
def test_the_slope_at_the_mean_field_is_that_of_the_bound(x64):
    """E is linear in each unit, so the contrast of positions at their mean field lowers minus the bound."""
    model = machine(6, 3, strength=0.7)
    batch = Row(jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), jnp.array([[True, True, False], [True, True, True]]))
    parts, rest = trainable(model)
    rows = jax.vmap(model.lifted)(batch)
    x = jax.jit(jax.vmap(lambda r: MeanField(300)(model, r, key=jr.key(0))))(rows)
    pulled = jax.grad(lambda p: jnp.mean(jax.vmap(eqx.combine(p, rest).energy)(x)))(parts)

    @jax.jit
    def at(p):
        return -jnp.mean(jax.vmap(lambda r: eqx.combine(p, rest).log_bound(r, 300))(rows))

    step, numbers = 1e-5, []
    for i in range(model.coupling.size):
        moved = [eqx.tree_at(lambda m: m.coupling, parts, parts.coupling.at[i].add(s)) for s in (step, -step)]
        numbers.append(float(at(moved[0]) - at(moved[1])) / (2 * step))
    np.testing.assert_allclose(pulled.coupling, numbers, atol=1e-8)


# --- rows with and without holes


def holes() -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(5)
    X, mask = (stream.random((9, 4)) < 0.5) * 1.0, stream.random((9, 4)) < 0.5
    mask[0], mask[1] = True, False
    return X * mask, mask


@pytest.mark.parametrize("units", some([7, 14], 7))
def test_rows_score_what_a_list_of_states_says(units, x64):
    """Seven units are summed over row by row; of fourteen the missing ones are completed."""
    model = machine(units, 4, strength=0.6)
    states, value = listed(model)
    X, mask = holes()
    got = log_likelihood(model, Normalised(), Row(jnp.asarray(X), jnp.asarray(mask)), None, key=jr.key(0))
    want = [logsumexp(value[agreeing(states, x, m)]) - logsumexp(value) for x, m in zip(X, mask, strict=True)]
    few = (~mask).sum(axis=1) + units - 4 <= (10 if units > 12 else 99)
    np.testing.assert_allclose(np.asarray(got.value)[few], np.array(want)[few], atol=1e-10)
    assert few.sum() < len(X) or got.direction == "exact"
    assert got.value[1] == 0 and mask[1].sum() == 0
    assert bool(jax.vmap(lambda x, m: model.completable(model.lifted(Row(x, m))))(X, mask)[few].all())


@pytest.mark.slow
def test_a_row_with_more_unknown_is_annealed(x64):
    model = machine(15, 3, strength=0.3)  # 12 hidden units: 12 of 15 bits, more than are listed for each row
    states, value = listed(model)
    X = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    got = log_likelihood(model, Normalised(steps=300, chains=20), Row(jnp.asarray(X)), None, key=jr.key(0))
    full = np.ones(3, bool)
    want = np.array([logsumexp(value[agreeing(states, x, full)]) - logsumexp(value) for x in X])
    assert got.direction == "estimate" and (np.asarray(got.standard_error) < 0.2).all()
    assert (np.abs(np.asarray(got.value) - want) < LIMIT * np.asarray(got.standard_error)).all()


def test_annealing_finds_log_z(x64):
    model = machine(8, 4)
    found = AIS(steps=300, chains=100)(model, key=jr.key(0))
    assert 0 < found.standard_error < 0.1
    assert abs(found.value - float(model.log_partition())) < 4 * found.standard_error


# --- learning


def slope(model, positions: jnp.ndarray, negatives: jnp.ndarray):
    parts, rest = trainable(model)
    loss = lambda p: Contrast()(eqx.combine(p, rest), Row(positions), negatives, key=jr.key(0))[0]  # noqa: E731
    return jax.grad(loss)(parts)


@pytest.mark.slow
def test_centring_keeps_the_law_and_turns_the_slope(x64):
    model, stream = machine(5, 3), np.random.default_rng(0)
    data, other = (jnp.asarray(stream.random((6, 5)) < 0.5, float) for _ in range(2))
    mu = eqx.filter_jit(model.offsets)(data)
    np.testing.assert_allclose(mu, data.mean(axis=0), atol=1e-12)
    there = model.centred(mu)
    np.testing.assert_allclose(jax.vmap(there.energy)(data), jax.vmap(model.energy)(data), atol=1e-12)
    np.testing.assert_allclose(there.plain().units.bias, model.units.bias, atol=1e-12)
    away = [np.asarray(x) - np.asarray(mu) for x in (data, other)]
    want = (-away[0].T @ away[0] / 6 + away[1].T @ away[1] / 6)[np.triu_indices(5, 1)]
    np.testing.assert_allclose(slope(there, data, other).model.coupling, want, atol=1e-12)


def test_offsets_of_rows_take_hidden_units_at_their_mean_field():
    model = machine(5, 3)
    X = jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    got = eqx.filter_jit(model.offsets)(X)
    assert got.shape == (5,)
    np.testing.assert_allclose(got[:3], X.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("fill", [Drawn(5), MeanField(5)], ids=lambda f: type(f).__name__)
def test_filling_hands_over_whole_positions(fill):
    model = machine(5, 3)
    X, mask = jnp.array([[1.0, 0.0, 1.0]]), jnp.array([[True, True, False]])
    filled = eqx.filter_jit(Filling(fill, Contrastive(Contrast()))._filled)(model, Row(X, mask), jr.key(0))
    assert filled.mask is None and filled.x.shape == (1, 5) and filled.x[0, :2].tolist() == [1.0, 0.0]


@eqx.filter_jit
def once(rule: Filling, model: Boltzmann, batch: Row):
    """One step of a rule."""
    return rule.step(model, rule.init(model, batch, key=jr.key(0)), batch, key=jr.key(1), step=jnp.array(0))


def test_a_step_goes_down_the_centred_slope():
    """One step of the rule, with negatives that are the data themselves after no sweep at all, changes nothing."""
    model = machine(5, 3)
    batch = Row(jnp.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]))
    rule = Filling(MeanField(5), Contrastive(Contrast(), ContrastiveDivergence(0), Optimiser(optax.sgd, (0.1,))))
    after, *_ = once(rule, model, batch)
    np.testing.assert_allclose(flat(trainable(after)[0]), flat(trainable(model)[0]), atol=1e-6)
    rule = Filling(MeanField(5), centred(Contrastive(Contrast(), Persistent(1, 10)), 0.1))
    after, *_ = once(rule, model, batch)
    assert isinstance(after, Boltzmann) and np.abs(flat(trainable(after)[0]) - flat(trainable(model)[0])).max() > 1e-3


PARITY = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]] * 10, float)


@pytest.mark.slow
def test_a_hidden_unit_learns_what_no_pairs_of_cells_tell():
    """Of the parity of three bits all pairs are independent: log 8 without hidden units, log 4 at best with some."""
    fields = {"rate": Linear(0.6, 0.0, 3000.0), "steps": 3000, "follow": 0.0, "positive": Drawn(5), "random_state": 0}
    alone = BoltzmannMachine(hidden=None, **fields).fit(PARITY)
    assert alone.score(PARITY) == pytest.approx(-np.log(8), abs=0.05)
    assert -np.log(4) > BoltzmannMachine(hidden=4, **fields).fit(PARITY).score(PARITY) > -1.6


@pytest.mark.slow
def test_the_verbs_of_the_recipe():
    model = BoltzmannMachine(hidden=2, steps=20, sweeps=20, random_state=0).fit(PARITY)
    assert model.transform(PARITY).shape == (40, 2) and model.reconstruct(PARITY).shape == (40, 3)
    assert set(np.unique(model.sample(20))) <= {0.0, 1.0}
    assert model.log_partition().direction == "exact" and model.log_likelihood(PARITY).direction == "exact"
    holed = np.where(np.arange(3) == 1, np.nan, PARITY)
    states, value = listed(model.model_)
    here = [agreeing(states, np.nan_to_num(x), ~np.isnan(x)) for x in holed[:4]]
    np.testing.assert_allclose(
        model.score_samples(holed)[:4], [logsumexp(value[h]) - logsumexp(value) for h in here], atol=1e-4
    )
    full = model.impute(holed)
    np.testing.assert_array_equal(full[:, [0, 2]], PARITY[:, [0, 2]])
    assert set(np.unique(full)) <= {0.0, 1.0}
