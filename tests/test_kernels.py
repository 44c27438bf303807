"""Markov kernels leave laws as they are: one step each from many independent exact draws, and moments of the ends.

Ends are independent, so their means are compared in standard errors, see `helpers`: with other seeds one of the 600 or
so numbers compared here would be more than 4.5 standard errors off once in 250 runs.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from energies import energy_of, flat_states, nodes, pick, points, random_rbm, table, tabulated
from helpers import LIMIT
from jaxtyping import Array

from ravine.core import Row, walk
from ravine.kernels import HMC, Gibbs, Langevin, Metropolis, Tempering

pytestmark = pytest.mark.usefixtures("x64")

N = 40_000


class Quadratic(eqx.Module):
    """A normal law in two dimensions with correlation 0.8 and unlike scales."""

    centre: Array = eqx.field(default_factory=lambda: jnp.array([0.5, -1.0]))
    covariance: Array = eqx.field(default_factory=lambda: jnp.array([[1.0, 0.56], [0.56, 0.49]]))

    def energy(self, position: Array) -> Array:
        away = position - self.centre
        return 0.5 * away @ jnp.linalg.solve(self.covariance, away)


class DoubleWell(eqx.Module):
    """Two modes with a hill of 2 nats between them, one of which is heavier."""

    def energy(self, position: Array) -> Array:
        return jnp.sum(2 * (position**2 - 1) ** 2 - 0.3 * position)


class Walled(eqx.Module):
    """An exponential law: nothing below 0, where the energy is what ``beyond`` says."""

    beyond: float = jnp.inf

    def energy(self, position: Array) -> Array:
        return jnp.sum(jnp.where(position >= 0, position, self.beyond))


def normal_draws(model: Quadratic, n: int, seed: int = 0) -> np.ndarray:
    z = np.random.default_rng(seed).normal(size=(n, 2))
    return np.asarray(model.centre) + z @ np.linalg.cholesky(np.asarray(model.covariance)).T


def well() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and their masses."""
    places, log_weights = nodes(-3.0, 3.0, 400)
    log_mass = np.array([-float(DoubleWell().energy(jnp.array([x]))) for x in places]) + log_weights
    mass = np.exp(log_mass - log_mass.max())
    return places[:, None], mass / mass.sum()


def well_grid() -> tuple[np.ndarray, np.ndarray]:
    """Points 1.5e-5 apart, and the density there up to a factor."""
    grid = np.linspace(-3, 3, 400_001)
    return grid, np.exp(-(2 * (grid**2 - 1) ** 2 - 0.3 * grid))


def well_draws(n: int, seed: int = 0) -> np.ndarray:
    """By the inverse distribution function."""
    grid, density = well_grid()
    below = np.cumsum(0.5 * (density[1:] + density[:-1]))
    return np.interp(np.random.default_rng(seed).random(n) * below[-1], below, grid[1:])[:, None]


def moments(x: np.ndarray) -> np.ndarray:
    """Cells, products of two, fourth powers, and on which side of 0.7 a cell lies."""
    products = np.einsum("ni,nj->nij", x, x).reshape(len(x), -1)
    return np.concatenate([x, products, x**4, (x > 0.7).astype(float)], axis=1)


def away(ends: np.ndarray, truth: np.ndarray) -> float:
    """The largest distance of mean moments from the truth, in standard errors."""
    found = moments(ends)
    return float(np.max(np.abs(found.mean(axis=0) - truth) / (found.std(axis=0, ddof=1) / np.sqrt(len(found)))))


def normal_truth(model: Quadratic) -> np.ndarray:
    points, weights = np.polynomial.hermite_e.hermegauss(8)
    places = np.stack(np.meshgrid(points, points), axis=-1).reshape(-1, 2)
    mass = np.outer(weights, weights).ravel() / weights.sum() ** 2
    x = np.asarray(model.centre) + places @ np.linalg.cholesky(np.asarray(model.covariance)).T
    truth = mass @ moments(x)
    spread, centre = np.sqrt(np.diag(np.asarray(model.covariance))), np.asarray(model.centre)
    return np.concatenate([truth[:-2], jax.scipy.stats.norm.sf((0.7 - centre) / spread)])


@eqx.filter_jit
def stepped(kernel: Any, starts: Array, key: Array) -> tuple[Array, Any]:
    """One step from each start, each a chain of its own."""
    keys = jr.split(key, starts.shape[0])
    step = lambda x, k: kernel.step(kernel.init(x, key=k), key=k)  # noqa: E731
    states, told = jax.vmap(step)(starts, keys)
    return jax.vmap(kernel.position)(states), told


# Kernels that follow the gradient.

EXACT = {
    "hmc": lambda model, row=None: HMC(model, row, 0.35, 5),
    "hmc-1": lambda model, row=None: HMC(model, row, 0.5, 1),
    "metropolis": lambda model, row=None: Metropolis(model, row, 0.25),
}
every_exact = pytest.mark.parametrize("name", EXACT)


@every_exact
def test_a_correlated_normal_law_is_left_as_it_is(name):
    model = Quadratic()
    starts = normal_draws(model, N)
    ends, told = stepped(EXACT[name](model), jnp.asarray(starts), jr.key(0))
    assert away(np.asarray(ends), normal_truth(model)) < LIMIT
    assert 0.2 < float(told["accepted"].mean()) < 0.97  # the test does something, and most of the chain moves
    assert np.mean(np.any(np.asarray(ends) != starts, axis=1)) == pytest.approx(float(told["accepted"].mean()))


@every_exact
def test_two_wells_are_left_as_they_are(name):
    places, mass = well()
    truth = mass @ moments(places)
    starts = well_draws(N)
    grid, density = well_grid()
    edge = np.concatenate([truth[:-1], [density[grid > 0.7].sum() / density.sum()]])
    ends, told = stepped(EXACT[name](DoubleWell()), jnp.asarray(starts), jr.key(1))
    assert away(np.asarray(ends), edge) < LIMIT
    assert 0.2 < float(told["accepted"].mean()) < 0.97


def test_without_the_test_of_metropolis_the_law_is_another():
    """Langevin at the same size: what the tests above would see."""
    model = Quadratic()
    ends, _ = stepped(Langevin(model, None, 0.25), jnp.asarray(normal_draws(model, N)), jr.key(0))
    assert away(np.asarray(ends), normal_truth(model)) > 2 * LIMIT


@every_exact
def test_a_law_with_a_wall_is_left_as_it_is(name):
    """Proposals beyond the wall, of infinite energy, are refused."""
    starts = np.random.default_rng(2).exponential(size=(N, 1))
    ends, told = stepped(EXACT[name](Walled()), jnp.asarray(starts), jr.key(2))
    assert float(jnp.min(ends)) >= 0 and float(told["accepted"].mean()) < 0.97
    assert away(np.asarray(ends), np.array([1.0, 2.0, 24.0, np.exp(-0.7)])) < LIMIT


@pytest.mark.parametrize("beyond", [np.nan, np.inf])
def test_proposals_that_are_not_finite_are_refused(beyond):
    """Also those whose slope is not finite, and far leaps."""
    for kernel in (
        HMC(Walled(beyond), None, 30.0, 3),
        HMC(DoubleWell(), None, 1e150, 4),
        HMC(DoubleWell(), None, 1e300, 9),
    ):
        ends, told = stepped(kernel, jnp.full((50, 1), 0.5), jr.key(3))
        assert np.isfinite(ends).all()
        refused = np.asarray(told["accepted"]) == 0
        assert refused.any() and np.all(np.asarray(ends)[refused] == 0.5)


def test_a_chain_leaves_where_the_energy_is_infinite():
    ends, told = stepped(HMC(Walled(), None, 1.0, 3), jnp.full((200, 1), -0.5), jr.key(3))
    assert np.all(np.asarray(ends)[np.asarray(told["accepted"]) == 1] >= 0) and float(told["accepted"].mean()) > 0.1


def test_metropolis_is_one_leap():
    """Of the square root of its size; what it accepts is Langevin's proposal."""
    model, starts = Quadratic(), jnp.asarray(normal_draws(Quadratic(), 500))
    ends, told = stepped(Metropolis(model, None, 0.16), starts, jr.key(4))
    others, _ = stepped(HMC(model, None, 0.4, 1), starts, jr.key(4))
    assert np.array_equal(ends, others)
    moved = np.asarray(told["accepted"]) == 1
    drift = starts - 0.08 * jax.vmap(jax.grad(model.energy))(starts)
    noise = np.asarray((ends - drift) / 0.4)[moved]
    assert np.all(np.abs(noise) < 5) and 0.5 < noise.std() < 1.2


def test_a_leap_is_the_leapfrog():
    """Three leaps by hand, from the end of an accepted proposal back to its beginning: the integrator is reversible."""
    model, size, steps = Quadratic(), 0.1, 3
    slope = jax.grad(model.energy)
    start, key = jnp.array([0.2, -0.9]), jr.key(5)
    push = jr.normal(jr.split(key)[0], (2,), float)
    x, p = start, push
    for _ in range(steps):
        p = p - 0.5 * size * slope(x)
        x = x + size * p
        p = p - 0.5 * size * slope(x)
    got, told = HMC(model, None, size, steps).step(start, key=key)
    assert float(told["accepted"]) == 1
    np.testing.assert_allclose(got, x, rtol=1e-12)


# Langevin.


@pytest.mark.parametrize("size", [1.0, 0.5, 0.25, 0.1])
def test_langevin_is_wrong_by_a_known_amount(size):
    """On a standard normal law its own has the variance 1 / (1 - size / 4), from which it does not move."""
    model = Quadratic(jnp.zeros(2), jnp.eye(2))
    variance = 1 / (1 - size / 4)
    truth = np.concatenate([np.zeros(2), variance * np.eye(2).ravel(), [3 * variance**2] * 2])
    truth = np.concatenate([truth, jax.scipy.stats.norm.sf(0.7 / np.sqrt([variance] * 2))])
    starts = np.random.default_rng(6).normal(size=(N, 2)) * np.sqrt(variance)
    ends, _ = stepped(Langevin(model, None, size), jnp.asarray(starts), jr.key(6))
    assert away(np.asarray(ends), truth) < LIMIT


def test_langevins_error_falls_with_its_size():
    """On two wells, after 16 units of time from exact draws; the standard error is 0.004 or less."""
    places, mass = well()
    truth = float(mass @ places[:, 0] ** 2)
    starts = jnp.asarray(well_draws(20_000, 3))

    def error(size):
        ends = jax.vmap(lambda x, k: walk(Langevin(DoubleWell(), None, size), x, round(16 * 0.05 / size), key=k))(
            starts, jr.split(jr.key(7), len(starts))
        )
        return abs(float(jnp.mean(ends**2)) - truth)

    large, middle, small = (error(size) for size in (0.16, 0.08, 0.02))
    assert large > middle + 0.01 > small + 0.02 and small < 0.01


def test_langevin_with_less_noise():
    model, starts, key = Quadratic(), jnp.asarray(normal_draws(Quadratic(), 200)), jr.key(8)
    slope = jax.vmap(jax.grad(model.energy))(starts)
    still, half, whole = (stepped(Langevin(model, None, 0.2, noise), starts, key)[0] for noise in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(still, starts - 0.1 * slope, rtol=1e-12)
    np.testing.assert_allclose(half, 0.5 * (still + whole), rtol=1e-9, atol=1e-12)


# Held cells.

HOLDING = EXACT | {"langevin": lambda model, row=None: Langevin(model, row, 0.1)}
ROW = Row(jnp.array([0.25, 0.0]), jnp.array([True, False]))


@pytest.mark.parametrize("name", HOLDING)
def test_held_cells_never_move(name):
    """Bit for bit; the others do; and a row that holds everything stays."""
    starts = jnp.asarray(normal_draws(Quadratic(), 300))
    ends = jax.vmap(lambda x, k: walk(HOLDING[name](Quadratic(), ROW), x, 5, key=k))(starts, jr.split(jr.key(9), 300))
    assert np.all(np.asarray(ends)[:, 0] == 0.25) and np.all(np.asarray(ends)[:, 1] != np.asarray(starts)[:, 1])
    whole = Row(jnp.array([0.25, 3.0]))
    ends, _ = stepped(HOLDING[name](Quadratic(), whole), starts, jr.key(9))
    assert np.all(np.asarray(ends) == [0.25, 3.0])


class Kinked(eqx.Module):
    """The slope in the first cell is infinite at 0."""

    def energy(self, position: Array) -> Array:
        return jnp.sqrt(position[0]) + 0.5 * position[1] ** 2


@pytest.mark.parametrize("name", HOLDING)
def test_a_held_cell_may_lie_where_the_slope_is_infinite(name):
    row = Row(jnp.zeros(2), jnp.array([True, False]))
    ends, _ = stepped(HOLDING[name](Kinked(), row), jnp.ones((50, 2)), jr.key(10))
    assert np.all(np.asarray(ends)[:, 0] == 0) and np.mean(np.asarray(ends)[:, 1] != 1) > 0.5


@every_exact
def test_the_law_of_the_other_cells_is_left_as_it_is(name):
    """That of the second cell of a normal law given the first."""
    model = Quadratic()
    (a, b), (_, d) = np.asarray(model.covariance)
    mean, spread = float(model.centre[1]) + b / a * (0.25 - 0.5), np.sqrt(d - b**2 / a)
    starts = np.stack([np.full(N, 0.25), mean + spread * np.random.default_rng(11).normal(size=N)], axis=1)
    ends, told = stepped(EXACT[name](model, ROW), jnp.asarray(starts), jr.key(11))
    got = np.asarray(ends)[:, 1] - mean
    assert abs(got.mean()) < LIMIT * spread / np.sqrt(N)
    assert abs((got**2).mean() - spread**2) < LIMIT * np.sqrt(2 / N) * spread**2
    assert 0.2 < float(told["accepted"].mean()) < 0.99


def test_gibbs_holds_cells_of_any_units():
    model = energy_of("mixed binary")
    row = Row((jnp.array([0.3]), jnp.array([1.0, 0.0])), (jnp.array([True]), jnp.array([False, True])))
    start = model.start(key=jr.key(0))
    kernel = Gibbs(model, row)
    ends = jax.jit(jax.vmap(lambda key: walk(kernel, start, 3, key=key)))(jr.split(jr.key(12), 100))
    assert np.all(np.asarray(ends[0]) == 0.3) and np.all(np.asarray(ends[1])[:, 1] == 0)
    assert 0.1 < np.asarray(ends[1])[:, 0].mean() < 0.9
    assert kernel.init(start, key=jr.key(0))[0].tolist() == [0.3]


def test_a_walk_is_so_many_steps():
    model, start, key = Quadratic(), jnp.array([0.2, -0.9]), jr.key(13)
    kernel = HMC(model, None, 0.3, 2)
    begin, go = jr.split(key)
    x = kernel.init(start, key=begin)
    for i in range(4):
        x, _ = kernel.step(x, key=jr.fold_in(go, i))
    np.testing.assert_allclose(walk(kernel, start, 4, key=key), x, rtol=1e-12)
    np.testing.assert_allclose(walk(kernel, start, 1, key=key), kernel.step(start, key=go)[0], rtol=1e-12)


@pytest.mark.parametrize("name", HOLDING)
def test_precision_follows_the_position(name):
    single = Quadratic(jnp.zeros(2, jnp.float32), jnp.eye(2, dtype=jnp.float32))
    kernel = HOLDING[name](single)
    state, _ = jax.eval_shape(lambda x: kernel.step(x, key=jr.key(0)), jnp.zeros(2, jnp.float32))
    assert state.dtype == jnp.float32


# Tempering.

BETAS = (0.0, 0.3, 0.7, 1.0)


def ladder(name: str) -> tuple[Any, list[np.ndarray]]:
    """A small energy, and its law at each temperature."""
    found = table(name)
    at = [tabulated(found.model.at(jnp.array(beta)), found.v, found.h) for beta in BETAS]
    return found, [rung.law() for rung in at]


def product_draws(found: Any, laws: list[np.ndarray], n: int, seed: int) -> Any:
    """Independent draws of each rung."""
    stream = np.random.default_rng(seed)
    places = np.stack([stream.choice(len(law), size=n, p=law / law.sum()) for law in laws], axis=1)
    return places, pick(found.v.states, jnp.asarray(places))


@pytest.mark.parametrize("name", ["golden", "beside binary"])
def test_tempering_leaves_the_product_of_the_laws_as_it_is(name):
    found, laws = ladder(name)
    _, starts = product_draws(found, laws, N, 14)
    kernel = Tempering(found.model, jnp.array(BETAS))
    ends, told = jax.jit(jax.vmap(lambda x, k: kernel.step(x, key=k)))(starts, jr.split(jr.key(14), N))
    assert 0.3 < float(told["exchanged"].mean()) < 0.999
    nodes_of, cells = flat_states(found.v.states), flat_states(ends).shape[1] // len(BETAS)
    chains = [flat_states(pick_rung(ends, i)) for i in range(len(BETAS))]
    means = [law @ nodes_of for law in laws]
    for i, chain in enumerate(chains):
        squares = laws[i] @ np.einsum("ni,nj->nij", nodes_of, nodes_of).reshape(found.v.number, -1)
        products = np.einsum("ni,nj->nij", chain, chain).reshape(N, -1)
        assert z(chain, means[i]) < LIMIT and z(products, squares) < LIMIT
        for j in range(i):  # chains are independent of one another
            crossed = np.einsum("ni,nj->nij", chains[j], chain).reshape(N, -1)
            assert z(crossed, np.outer(means[j], means[i]).ravel()) < LIMIT
    assert cells == nodes_of.shape[1]


def pick_rung(states: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[:, i], states)


def z(draws: np.ndarray, truth: np.ndarray) -> float:
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    return float(np.max(np.abs(draws.mean(axis=0) - truth) / (error + 1e-9)))


@pytest.mark.parametrize("first", [0, 1])
def test_odds_of_an_exchange(first):
    """Its probability is min(1, r), with log r by the energies of all pairs; others stay."""
    model = random_rbm(5, 4, 15, 1.5)
    kernel, pairs = Tempering(model, jnp.array(BETAS)), [(0, 1), (2, 3)] if first == 0 else [(1, 2)]

    def odds(state):
        energy = lambda i, x: float(model.at(jnp.array(BETAS[i])).energy(state[x]))  # noqa: E731
        return [energy(i, i) + energy(j, j) - energy(i, j) - energy(j, i) for i, j in pairs]

    states = (jr.uniform(jr.key(16), (20, 4, 5)) < 0.5).astype(float)
    state = next(state for state in states if all(-3 < log_r < -0.1 for log_r in odds(state)))
    log_r = odds(state)
    ends, share = jax.vmap(lambda key: kernel._exchanged(state, first, key=key))(jr.split(jr.key(17), N))
    ends = np.asarray(ends)
    taken = np.stack([np.all(ends[:, i] == np.asarray(state[j]), axis=1) for i, j in pairs], axis=1)
    for k, (i, j) in enumerate(pairs):
        chance = min(1.0, np.exp(log_r[k]))
        assert abs(taken[:, k].mean() - chance) <= LIMIT * np.sqrt(chance * (1 - chance) / N)
        assert np.all(ends[:, j] == np.where(taken[:, k, None], state[i], state[j]))
    np.testing.assert_allclose(share, taken.mean(axis=1))
    assert first == 0 or np.all(ends[:, [0, 3]] == np.asarray(state)[None, [0, 3]])


@pytest.mark.slow
def test_tempering_begins_at_one_place_and_shows_the_last_chain():
    model = energy_of("beside binary")
    kernel, start = Tempering(model, jnp.array(BETAS)), model.start(key=jr.key(0))
    state = kernel.init(start, key=jr.key(0))
    assert jax.tree.map(jnp.shape, state) == ((4, 2), (4, 3))
    moved, _ = kernel.step(state, key=jr.key(1))
    assert eqx.tree_equal(kernel.position(moved), jax.tree.map(lambda leaf: leaf[3], moved))


def test_tempering_holds_cells():
    model = energy_of("golden")
    row = Row(jnp.array([1.0, 0.0, 0.0, 0.0]), jnp.array([True, True, False, False]))
    kernel = Tempering(model, jnp.array(BETAS), row)
    start = row.clamp(jnp.ones(4))
    ends = jax.jit(jax.vmap(lambda key: walk(kernel, start, 3, key=key)))(jr.split(jr.key(18), 100))
    assert np.all(np.asarray(ends)[:, :2] == [1, 0]) and 0 < np.asarray(ends)[:, 2:].mean() < 1


@pytest.mark.slow
def test_points_of_a_support_are_all_different():
    """The listings that these tests rest on."""
    for name in ("golden", "convolution", "beside count", "potts softmaxes"):
        model = energy_of(name)
        for units in (model.visible, model.hidden):
            flat = flat_states(points(units).states)
            assert len(np.unique(flat, axis=0)) == len(flat)
