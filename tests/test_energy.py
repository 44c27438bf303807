"""Units, couplings and small energies of every pairing, against sums over all states and quadrature.

Random draws are compared with exact expectations, see `helpers`: with other seeds one of the 1,500 or so numbers
compared here, many of them equal, would be more than 4.5 standard errors off at most once in 100 runs.
"""

from __future__ import annotations

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from energies import (
    CONVOLUTION,
    GOLDEN,
    PAIRINGS,
    QUICK,
    UNITS,
    Table,
    clamped_sweep,
    energy_of,
    flat_states,
    held,
    likeliest,
    log_sums,
    masks,
    numbers,
    pick,
    points,
    random_rbm,
    rows_of,
    table,
    tabulated,
    worst_feature,
)
from helpers import LIMIT, flat, some
from scipy.special import erfcx, logsumexp

from ravine._tree import Fixed, trainable
from ravine.core import Row
from ravine.kernels import Gibbs
from ravine.models.energy import CentredHarmonium, Convolution, Dense, Harmonium, Scaled
from ravine.models.unit_groups import Beside, CountUnits, log_sum, state_count
from ravine.models.units import (
    BinaryUnits,
    GaussianUnits,
    PottsUnits,
    RectifiedUnits,
    SoftmaxUnits,
    SpinUnits,
    wide,
)
from ravine.objectives import Contrast

pytestmark = pytest.mark.usefixtures("x64")

N = 20_000
every_unit = pytest.mark.parametrize("name", UNITS)
quick_first = some(PAIRINGS, *QUICK)
every_pairing = pytest.mark.parametrize("name", [*quick_first, GOLDEN, CONVOLUTION])
quick_pairing = pytest.mark.parametrize("name", [*QUICK, GOLDEN])
countable = [name for name in PAIRINGS if min(map(state_count, (UNITS[part](0) for part in name.split()))) < np.inf]


def close(got, want, size=1e-12):
    """Within ``size`` times (1 + the largest of the array)."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        assert np.max(np.abs(a - b), initial=0) <= size * (1 + np.max(np.abs(b), initial=0))


# Golden values: four visible and three hidden bits, computed elsewhere in numpy.

V0 = (1.0, 0.0, 1.0, 0.0)
MEAN = [0.4670663, 0.49489456, 0.51628201, 0.53381252]
MEAN_PRODUCT = [
    [0.28644172, 0.17233223, 0.2318709],
    [0.28728712, 0.16621002, 0.27581909],
    [0.26927224, 0.18502752, 0.30880013],
    [0.26120517, 0.21962531, 0.31202656],
]
SLOPE = [
    [0.33411846, 0.19704365, 0.25644706],
    [-0.28728712, -0.16621002, -0.27581909],
    [0.35128794, 0.18434835, 0.17951783],
    [-0.26120517, -0.21962531, -0.31202656],
]
EXPECTED_CD_1 = [
    [0.32412891, 0.19195389, 0.25018076],
    [-0.29279442, -0.1680562, -0.27765593],
    [0.35334096, 0.18810235, 0.18533515],
    [-0.25543272, -0.21315393, -0.30252726],
]


def test_golden_numbers():
    found, v = table(GOLDEN), jnp.array(V0)
    model = found.model
    assert float(model.log_partition()) == pytest.approx(4.900068755769949, abs=1e-12)
    assert float(model.energy(v)) == pytest.approx(-2.000156417105811, abs=1e-12)
    assert float(-model.energy(v) - model.log_partition()) == pytest.approx(-2.8999123386641417, abs=1e-12)
    close(found.law() @ flat_states(found.v.states), np.array(MEAN), 1e-7)
    product = np.einsum("vh,vi,hj->ij", found.joint_law(), flat_states(found.v.states), flat_states(found.h.states))
    close(product, np.array(MEAN_PRODUCT), 1e-7)


def test_golden_slope_of_log_p():
    model = energy_of(GOLDEN)
    weighted = lambda w: dataclasses.replace(model, coupling=Dense(w))  # noqa: E731
    log_p = lambda w: -weighted(w).energy(jnp.array(V0)) - weighted(w).log_partition()  # noqa: E731
    close(jax.grad(log_p)(model.coupling.weight), np.array(SLOPE), 1e-7)


def test_golden_update_of_contrastive_divergence():
    """The mean over all ends of the chain of what `Contrast` says of each."""
    found = table(GOLDEN)
    start = flat_states(found.v.states).tolist().index(list(V0))

    def update(weight, end):
        model = dataclasses.replace(found.model, coupling=Dense(weight))
        return -Contrast()(model, Row(jnp.array([V0])), end[None], key=jr.key(0))[0]

    each = jax.vmap(lambda end: jax.grad(update)(found.model.coupling.weight, end))(found.v.states)
    close(np.tensordot(found.sweep()[start], each, 1), np.array(EXPECTED_CD_1), 1e-7)


# Units.


def fields(units, count=3):
    return [numbers((units.size,), seed) for seed in range(70, 70 + count)]


def minus_energies(units, states):
    """-U of every state, summed over its cells."""
    return np.asarray(-jax.vmap(lambda x: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(units.energy(x))))(states))


def log_laws(units, field, states):
    return np.asarray(jax.vmap(units(field).log_prob)(states))


def cumulant(units, field):
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(units.cumulant(field)))


@every_unit
def test_statistic_energy_cumulant_law_and_mean_agree(name):
    units = UNITS[name](1)
    support = points(units)
    statistic = np.asarray(jax.vmap(units.statistic)(support.states))
    assert statistic.shape == (support.number, units.size)
    for field in fields(units):
        free = statistic @ np.asarray(field) + minus_energies(units, support.states)
        phi = float(cumulant(units, field))
        assert phi == pytest.approx(logsumexp(free + support.log_weight), abs=1e-12)
        close(log_laws(units, field, support.states), free - phi)
        mass = np.exp(free - phi + support.log_weight)
        close(units.mean(field), mass @ statistic)
        close(jax.grad(lambda f: cumulant(units, f))(field), mass @ statistic, 1e-11)
        close(flat(units(field).mean()), mass @ flat_states(support.states))


@every_unit
def test_draws_are_of_the_law(name):
    units = UNITS[name](1)
    field = fields(units, 1)[0]
    support = points(units)
    mass = np.exp(log_laws(units, field, support.states) + support.log_weight)
    drawn = jax.jit(jax.vmap(lambda key: units(field).sample(key=key)))(jr.split(jr.key(1), N))
    assert {leaf.dtype for leaf in jax.tree.leaves(drawn)} == {jnp.dtype(float)}
    assert worst_feature(flat_states(drawn), mass, flat_states(support.states)) < LIMIT


@every_unit
def test_part_of_the_way_is_a_mixture_of_energies(name):
    """At 0 and 1 the units themselves; between, up to a constant, the mean of both energies."""
    first, second = UNITS[name](1), UNITS[name](2)
    states, field = points(first).states, fields(first, 1)[0]
    ends = [minus_energies(units, states) for units in (first, second)]
    for share in (0.0, 0.3, 1.0):
        between = minus_energies(first.towards(second, jnp.array(share)), states)
        away = between - (1 - share) * ends[0] - share * ends[1]
        assert np.ptp(away) < 1e-12 * (1 + np.ptp(between))
    for share, units in ((0.0, first), (1.0, second)):
        moved = first.towards(second, jnp.array(share))
        close(log_laws(moved, field, states), log_laws(units, field, states))
        close(moved.cumulant(field), units.cumulant(field))


@every_unit
def test_pushed_units_are_those_under_a_field(name):
    """Their law, and their cumulant up to a constant, under any further field."""
    units = UNITS[name](1)
    push, field, other = fields(units)
    pushed, states = units.pushed(push), points(units).states
    close(log_laws(pushed, field, states), log_laws(units, push + field, states))
    close(log_laws(pushed, units.still, states), log_laws(units, push, states))
    rise = lambda units, a, b: cumulant(units, a) - cumulant(units, b)  # noqa: E731
    close(rise(pushed, field, other), rise(units, push + field, push + other))


BASES = {
    "binary": (BinaryUnits(), (2, 2), [[0.2, 0.5], [0.9, 0.4]]),
    "spin": (SpinUnits(), (3,), [-0.9, 0.0, 0.3]),
    "gaussian": (GaussianUnits(), (2,), [-3.0, 0.5]),
    "potts": (PottsUnits(levels=4), (2,), [0.3, 2.9]),
    "softmax": (SoftmaxUnits(), (2, 3), [[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]]),
    "count": (CountUnits(total=3), (3,), [0.6, 1.5, 0.9]),
}


@pytest.mark.parametrize("name", BASES)
def test_sized_units_have_the_base_rates(name):
    kind, shape, base = BASES[name]
    units = kind.sized(shape, np.array(base))
    close(units(units.still).mean(), np.array(base))
    plain = kind.sized(shape)
    assert plain.shape == units.shape == shape and np.ptp(np.asarray(plain(plain.still).mean())) < 1e-12
    assert plain.size == len(plain.still) == len(plain.statistic(plain.blank()))


def test_sized_units_side_by_side_and_at_extreme_rates():
    kind = Beside((BinaryUnits(), GaussianUnits()))
    units = kind.sized(((2,), (1,)), (np.array([0.0, 1.0]), np.array([7.0])))
    bits, reals = units(units.still).mean()
    close(bits, np.array([0.01, 0.99]))
    close(reals, np.array([7.0]))
    close(RectifiedUnits().sized((2,), np.array([1.0, 2.0])).bias, np.array([1.0, 2.0]))
    extreme = PottsUnits(levels=3).sized((2,), np.array([0.0, 2.0]))
    close(extreme(extreme.still).mean(), np.array([0.02, 1.98]))


@every_unit
def test_a_number_of_each_cell_is_given_to_its_statistics(name):
    """Statistics change only where cells do, which is how known ones are told from others."""
    units = UNITS[name](1)
    support, patterns = points(units), masks(units)
    statistic = np.asarray(jax.vmap(units.statistic)(support.states))
    for i in range(len(jax.tree.leaves(patterns)[0])):
        mask = pick(patterns, i)
        seen = np.asarray(units.spread(jax.tree.map(lambda m: m.astype(float), mask))) > 0
        groups = held(support, mask).held
        for group in range(groups.max() + 1):
            assert np.all(np.ptp(statistic[groups == group][:, seen], axis=0) == 0)
        assert all(np.ptp(column) > 0 for column in statistic[groups == 0][:, ~seen].T)


@every_unit
def test_a_law_marginalises_cells_that_are_masked(name):
    units = UNITS[name](1)
    support, patterns, field = points(units), masks(units), fields(units, 1)[0]
    law = units(field)
    whole = log_laws(units, field, support.states)
    for i in range(len(jax.tree.leaves(patterns)[0])):
        mask = pick(patterns, i)
        groups = held(support, mask)
        some = np.unique(groups.held, return_index=True)[1][:5]
        got = [float(law.log_prob(pick(support.states, j), mask)) for j in some]
        close(np.array(got), np.array(log_sums(whole + groups.log_weight, groups.held))[groups.held[some]])


def test_rectified_units_far_below_zero():
    """The sum of the two large terms would cancel; scipy's scaled error function does not."""
    units = RectifiedUnits((1,), jnp.zeros(1))
    for push in (0.0, -5.0, -9.99, -10.01, -12.0, -30.0, -1000.0):
        exact = 0.5 * np.log(np.pi / 2) + np.log(erfcx(-push / np.sqrt(2)))
        assert float(units.cumulant(jnp.array([push]))[0]) == pytest.approx(exact, abs=2e-6)
        slope = jax.grad(lambda f: units.cumulant(f)[0])(jnp.array([push]))
        close(slope, units.mean(jnp.array([push])), 2e-6)
    assert float(units.energy(jnp.array([-0.1]))[0]) == np.inf


def test_units_without_a_size_say_so():
    with pytest.raises(ValueError, match=r"sized\(shape\)"):
        wide(None, (2,))


# Couplings.


def by_hand(filters, image):
    """A convolution without padding, place by place."""
    maps, _, high, across = filters.shape
    rows, columns = image.shape[1] - high + 1, image.shape[2] - across + 1
    out = np.zeros((maps, rows, columns))
    for m, i, j in itertools.product(range(maps), range(rows), range(columns)):
        out[m, i, j] = np.sum(filters[m] * image[:, i : i + high, j : j + across])
    return out


def test_a_convolution_is_the_sum_over_places():
    filters, picture = numbers((3, 2, 2, 3), 1), numbers((2, 4, 5), 2)
    coupling = Convolution(filters, (2, 4, 5))
    want = by_hand(np.asarray(filters), np.asarray(picture))
    assert coupling.maps() == want.shape
    close(coupling.up(picture.ravel()), want.ravel())


COUPLINGS = {
    "dense": lambda: (Dense(numbers((4, 3), 1)), 4, 3),
    "convolution": lambda: (Convolution(numbers((2, 1, 2, 2), 1), (1, 3, 4)), 12, 12),
    "scaled": lambda: (Scaled(Dense(numbers((4, 3), 1)), jnp.array(0.3)), 4, 3),
}


@pytest.mark.parametrize("name", COUPLINGS)
def test_down_is_the_transpose_of_up(name):
    coupling, visible, hidden = COUPLINGS[name]()
    up = np.stack([coupling.up(row) for row in jnp.eye(visible)])
    down = np.stack([coupling.down(row) for row in jnp.eye(hidden)])
    close(up, down.T)
    assert np.ptp(up) > 0.1


def test_a_scaled_coupling_is_weaker():
    weight, s = numbers((4, 3), 1), numbers((4,), 2)
    close(Scaled(Dense(weight), jnp.array(0.3)).up(s), 0.3 * Dense(weight).up(s))


# Every pairing: the law.


def weighed(found: Table, difference):
    """The largest difference where the law has mass; far nodes of reals are only there to close integrals."""
    return float(np.max(np.abs(difference) * np.minimum(1, found.law() * 1e6)))


@every_pairing
def test_the_energy_of_visible_units_sums_the_hidden_ones_out(name):
    found = table(name)
    size = 1 + np.max(np.abs(found.minus_free))
    assert weighed(found, found.minus_free - found.log_marginal()) < 1e-11 * size
    assert weighed(found, found.end - found.minus_free) < 1e-12 * size


@every_pairing
def test_the_conditional_laws_are_those_of_the_joint_law(name):
    found = table(name)
    given_v = found.joint - found.minus_free[:, None]
    close(found.up, given_v)
    given_h = found.joint.T - logsumexp(found.joint + found.v.log_weight[:, None], axis=0)[:, None]
    mass = found.joint_law().sum(axis=0)[:, None]
    assert np.max(np.abs(found.down - given_h) * np.minimum(1, mass * 1e6)) < 1e-11 * (1 + np.abs(given_h).max())


@every_pairing
def test_a_sweep_leaves_the_law_as_it_is(name):
    """Exactly, and in balance with its reverse, which chains back along a path rely on."""
    found = table(name)
    sweep, law = found.sweep(), found.law()
    assert np.max(np.abs(law @ sweep - law)) < 1e-12
    flow = law[:, None] * sweep
    assert np.max(np.abs(flow - flow.T)) < 1e-13
    assert np.max(np.abs(sweep - law)) > 1e-4  # it is not simply a draw of the law


@every_pairing
def test_a_sweep_with_held_cells_leaves_their_conditional_law_as_it_is(name):
    """For every mask and what it may hold: the visible units are drawn given the hidden ones, the held put back."""
    found = table(name)
    sweep, patterns = found.sweep(), masks(found.model.visible)
    for i in range(1, min(len(jax.tree.leaves(patterns)[0]), 64) - 1):
        groups = held(found.v, pick(patterns, i))
        for group in likeliest(groups.held, found.law(), 16):
            inside, moved = clamped_sweep(sweep, groups, groups.held == group)
            log_law = (found.log_marginal() + groups.log_weight)[inside]
            law = np.exp(log_law - logsumexp(log_law))
            assert np.max(np.abs(law @ moved - law)) < 1e-12


# Every pairing: what the library draws.


@eqx.filter_jit
def _drawn(model, place, row, keys):
    """Ends of one sweep from a place, of one with held cells, and starts of the path."""
    free = jax.vmap(lambda key: Gibbs(model).step(place, key=key)[0])(keys)
    clamped = jax.vmap(lambda key: model.swept(place, row, key=key))(keys)
    return free, clamped, jax.vmap(lambda key: model.start(key=key))(keys)


@quick_pairing
def test_sweeps_and_starts_are_drawn_from_these_laws(name):
    found = table(name)
    patterns = masks(found.model.visible)
    place = int(np.argmax(found.law()))
    row = pick(rows_of(found, [place], pick(patterns, len(jax.tree.leaves(patterns)[0]) // 2)), 0)
    free, clamped, starts = _drawn(found.model, pick(found.v.states, place), row, jr.split(jr.key(2), N))
    sweep, nodes = found.sweep()[place], flat_states(found.v.states)
    assert worst_feature(flat_states(free), sweep, nodes) < LIMIT
    assert worst_feature(flat_states(clamped), sweep, flat_states(jax.vmap(row.clamp)(found.v.states))) < LIMIT
    begin = logsumexp(found.start + found.h.log_weight, axis=1) + found.v.log_weight
    assert worst_feature(flat_states(starts), np.exp(begin - logsumexp(begin)), nodes) < LIMIT


def test_a_draw_rises_along_the_path_and_then_walks():
    """Four sweeps from a start: at one half, at 1, and two more."""
    found = table(GOLDEN)
    model = dataclasses.replace(found.model, sweeps=4)
    half = tabulated(model.at(jnp.array(0.5)), found.v, found.h).sweep()
    begin = logsumexp(found.start, axis=1)
    law = np.exp(begin - logsumexp(begin)) @ half @ np.linalg.matrix_power(found.sweep(), 3)
    position, shown = jax.jit(jax.vmap(lambda key: model.sample(key=key)))(jr.split(jr.key(3), N))
    assert eqx.tree_equal(position, shown)
    assert worst_feature(flat_states(position), law, flat_states(found.v.states)) < LIMIT
    row = Row(jnp.array([1.0, 0.0, 0.0, 1.0]), jnp.array([True, True, False, True]))
    settled = jax.vmap(lambda key: model.settled(row, key=key))(jr.split(jr.key(4), 50))
    assert np.all(flat_states(settled)[:, [0, 1, 3]] == [1, 0, 1]) and np.ptp(flat_states(settled)[:, 2]) == 1


# Every pairing: partition functions.


@eqx.filter_jit
def _partitions(model):
    return model.log_partition(), model.at(jnp.array(0.0)).log_partition(), model.log_start()


@pytest.mark.parametrize("name", some(countable, *QUICK))
def test_log_partition_is_the_sum_over_all_pairs_of_states(name):
    found = table(name)
    log_z, log_z_0, log_start = (float(value) for value in _partitions(found.model))
    assert log_z == pytest.approx(found.log_z(), abs=1e-11)
    brute = logsumexp(found.start + found.h.log_weight + found.v.log_weight[:, None])
    assert (log_z_0, log_start) == pytest.approx((brute, brute), abs=1e-11)
    assert found.model.bits() == pytest.approx(np.log2(min(listed(found.model.visible), listed(found.model.hidden))))


def listed(units):
    """How many states the library can list; what it cannot, it does not."""
    parts = units.groups if isinstance(units, Beside) else (units,)
    return np.prod([points(part).number if hasattr(part, "choices") else np.inf for part in parts])


@pytest.mark.parametrize("name", some([n for n in PAIRINGS if n not in countable], "mixed mixed", "gaussian gaussian"))
def test_what_cannot_be_listed_is_annealed_instead(name):
    found = table(name)
    with pytest.raises(ValueError, match="finitely many states.*annealing"):
        found.model.log_partition()
    assert found.model.bits() == np.inf
    brute = logsumexp(found.start + found.h.log_weight + found.v.log_weight[:, None])
    assert float(found.model.log_start()) == pytest.approx(brute, abs=1e-11)


@quick_pairing
def test_the_path_begins_at_independent_cells(name):
    found = table(name)
    base, hidden = found.model.base.value, found.model.hidden
    alone = minus_energies(base, found.v.states)[:, None] + minus_energies(hidden, found.h.states)
    close(found.start, alone)


@pytest.mark.parametrize("visible, hidden", [(4, 7), (7, 4), (5, 5)])
def test_blocks_of_states_add_up_to_the_sum_over_all(visible, hidden):
    model = random_rbm(visible, hidden, 1)
    whole = float(model.log_partition())
    for at_once in (1, 3, 16, 1000):
        got = log_sum(model.hidden, model._with_hidden, at_once)
        assert float(got) == pytest.approx(whole, abs=1e-12)


@quick_pairing
def test_slopes_of_the_energy_and_of_log_z_are_expectations(name):
    """Against automatic differentiation of sums over all states."""
    found = table(name)
    place = pick(found.v.states, int(np.argmax(found.law())))
    arrays, rest = trainable(found.model)
    got, want = _slopes(arrays, rest, place, found.v, found.h, bool(np.isfinite(found.model.bits())))
    close(got, want, 1e-10)
    assert max(np.max(np.abs(leaf)) for leaf in jax.tree.leaves(got)) > 1e-2


@eqx.filter_jit
def _slopes(arrays, rest, place, v, h, whole):
    """Of the energy at a place, and of log Z if it can be listed; and the same by brute force."""

    def energies(arrays):
        model = eqx.combine(arrays, rest)
        return model.energy(place), model.log_partition() if whole else 0.0

    def brute(arrays):
        model = eqx.combine(arrays, rest)
        row = lambda a: jax.nn.logsumexp(jax.vmap(lambda b: -model.joint_energy(a, b))(h.states) + h.log_weight)  # noqa: E731
        total = jax.nn.logsumexp(jax.vmap(row)(v.states) + v.log_weight) if whole else 0.0
        return -row(place), total

    return jax.jacrev(energies)(arrays), jax.jacrev(brute)(arrays)


# Every pairing: holes.


@eqx.filter_jit
def _holed(model, rows):
    """For rows with one mask: the sum over what they lack by hidden states and by completions, and the start."""
    summed = jax.vmap(model.log_unnormalised)(rows) if np.isfinite(state_count(model.hidden)) else None
    completions, counts = jax.vmap(model.completions)(rows)
    each = jnp.where(counts, -jax.vmap(jax.vmap(model.energy))(completions), -jnp.inf)
    listed = jax.nn.logsumexp(each, axis=1)
    return summed, jax.vmap(model.completable)(rows), listed, counts.sum(axis=1), jax.vmap(model.log_start)(rows)


@quick_pairing
def test_missing_cells_are_summed_over(name):
    """Rows that hold any of the cells: all hidden states listed, all completions listed, and the start of the path."""
    found = table(name)
    patterns, log_marginal = masks(found.model.visible), found.log_marginal()
    begin = logsumexp(found.start + found.h.log_weight, axis=1)
    few = name.split()[0] in ("binary", "spin", "potts", GOLDEN)
    for i in range(len(jax.tree.leaves(patterns)[0])):
        groups = held(found.v, pick(patterns, i))
        best = np.resize(likeliest(groups.held, found.law(), 6), 6)  # as many for every mask, one program for all
        some = np.array([np.argmax(groups.held == group) for group in best])
        whole = bool(all(np.all(leaf) for leaf in jax.tree.leaves(pick(patterns, i))))
        summed, can, completed, counted, start = _holed(found.model, rows_of(found, some, pick(patterns, i)))
        want = np.array(log_sums(log_marginal + groups.log_weight, groups.held))[groups.held[some]]
        if summed is not None:
            assert np.max(np.abs(np.asarray(summed) - want)) < 1e-10
        assert np.all(np.asarray(can) == (few or whole))
        if few or whole:
            assert np.max(np.abs(np.asarray(completed) - want)) < 1e-10
            assert np.all(np.asarray(counted) == np.sum(groups.held == groups.held[some][0]))
        wanted = np.array(log_sums(begin + groups.log_weight, groups.held))[groups.held[some]]
        assert np.max(np.abs(np.asarray(start) - wanted)) < 1e-10


def test_few_missing_cells_are_completed_and_many_are_not():
    model, x = random_rbm(6, 3, 2), jnp.ones(6)
    rows = [Row(x, jnp.arange(6) >= missing) for missing in range(7)]
    assert [bool(model.completable(row, 3.5)) for row in rows] == [True] * 4 + [False] * 3
    levels = dataclasses.replace(model, visible=PottsUnits((6,), 3, jnp.zeros((6, 3))))
    assert [bool(levels.completable(row, 3.5)) for row in rows] == [True] * 3 + [False] * 4
    states, counts = model.completions(rows[2], 3.5)
    listed = {tuple(state) for state, once in zip(np.asarray(states).tolist(), counts, strict=True) if once}
    assert listed == {(a, b, 1.0, 1.0, 1.0, 1.0) for a in (0.0, 1.0) for b in (0.0, 1.0)} and int(counts.sum()) == 4
    assert bool(model.completable(Row(x))) and int(model.completions(Row(x))[1].sum()) == 1


@pytest.mark.parametrize("name", ["binary spin", "potts binary", "beside binary", "mixed gaussian", "spin rectified"])
def test_the_guess_of_missing_cells_is_a_fixed_point(name):
    found = table(name)
    model, patterns = found.model, masks(found.model.visible)
    for i in (0, 1, len(jax.tree.leaves(patterns)[0]) - 1):
        mask = pick(patterns, i)
        row = pick(rows_of(found, [3], mask), 0)
        s, known = model.filled(row), model.visible.statistic(row.x)
        seen = np.asarray(model.visible.spread(jax.tree.map(lambda m: m.astype(float), mask))) > 0
        guess = model.visible.mean(model.coupling.down(model.hidden.mean(model.coupling.up(s))))
        close(s, np.where(seen, known, guess), 1e-5)
        close(flat(model.posterior(row).mean()), flat(model.hidden(model.coupling.up(s)).mean()))


def test_posterior_of_a_whole_row_is_exact():
    found = table("spin rectified")
    mean = np.exp(found.up + found.h.log_weight) @ flat_states(found.h.states)
    got = jax.vmap(lambda x: found.model.posterior(Row(x)).mean())(found.v.states)
    close(flat_states(got), mean, 1e-11)


@pytest.mark.parametrize("name, want", [("binary spin", [0, 1]), ("spin binary", [-1, 1]), ("potts binary", [0, 1, 2])])
def test_values_of_a_cell_are_listed(name, want):
    assert energy_of(name).values().tolist() == want


# Offsets.


@quick_pairing
def test_centring_leaves_the_law_as_it_is(name):
    """Energies are those of before to rounding, whatever the offsets; so is the model that comes back."""
    found = table(name)
    model = found.model
    for offsets in (
        eqx.filter_jit(type(model).offsets)(model, found.v.states),
        (numbers((model.visible.size,), 8), numbers((model.hidden.size,), 9)),
    ):
        centred = model.centred(offsets)
        assert isinstance(centred, CentredHarmonium) and isinstance(centred.plain(), Harmonium)
        got = jax.vmap(centred.energy)(found.v.states)
        close(got, -found.minus_free, 1e-12)
        close(centred.plain(), model, 1e-14)


def test_offsets_are_means_of_statistics():
    found = table(GOLDEN)
    mu, lam = found.model.offsets(found.v.states)
    close(mu, flat_states(found.v.states).mean(axis=0))
    close(lam, (np.exp(found.up) @ flat_states(found.h.states)).mean(axis=0))


def test_parameters_of_a_centred_model_are_of_differences():
    """E = U(v) + U(h) - (s - mu)' W (t - lambda) with the biases that are its parameters, up to a constant."""
    found = table(GOLDEN)
    mu, lam = numbers((4,), 8), numbers((3,), 9)
    centred = found.model.centred((mu, lam))
    inner = centred.model
    s, t = flat_states(found.v.states), flat_states(found.h.states)
    biases = (s @ np.asarray(inner.visible.bias))[:, None] + t @ np.asarray(inner.hidden.bias)
    direct = biases + (s - np.asarray(mu)) @ np.asarray(inner.coupling.weight) @ (t - np.asarray(lam)).T
    assert np.ptp(direct - found.joint) < 1e-12
    assert isinstance(centred.offsets, Fixed) and len(jax.tree.leaves(trainable(centred)[0])) == 3
