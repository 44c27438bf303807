"""log Z by annealing against enumeration, and log p(x) of energies: exact, annealed and bounded, and with holes.

Estimates are compared with exact numbers in standard errors, see `helpers`: of the 150 or so comparisons here one
would, with other seeds and nothing wrong, be more than 4.5 off once in 1,000 runs. The tests of many random machines
state rates of their own.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from energies import (
    GOLDEN,
    Table,
    energy_of,
    flat_states,
    held,
    likeliest,
    log_sums,
    masks,
    pick,
    points,
    random_rbm,
    rows_of,
    table,
    tabulated,
)
from helpers import LIMIT, some, worst
from scipy.special import logsumexp

from ravine.core import Row
from ravine.evidence import (
    AIS,
    RAISE,
    Enumerated,
    Normalised,
    adapted_betas,
    backward,
    bracketed,
    even_betas,
    forward,
    normalised,
)
from ravine.evidence.annealing import _along, bootstrap_error, log_mean
from ravine.evidence.normalised import ByChains, usual_partition
from ravine.verbs import log_likelihood

pytestmark = pytest.mark.usefixtures("x64")

N = 6_000


# Random machines of up to 20 hidden units: estimates and brackets of log Z.

SHAPES = ((12, 6), (15, 10), (20, 15), (25, 20))
SPREADS = (0.2, 0.4, 0.6, 0.8, 1.0)  # standard deviation of the weights


def hidden_law(model: Any) -> tuple[float, np.ndarray, np.ndarray]:
    """log Z and the probability of every hidden state, and the log odds of each visible bit on its own."""
    weight, b, c = (np.asarray(p) for p in (model.coupling.weight, model.visible.bias, model.hidden.bias))
    places = np.arange(2 ** len(c))
    blocks = np.array_split(places, max(1, len(places) // 2**14))
    log_mass = np.concatenate(
        [bits_of(at, len(c)) @ c + np.logaddexp(0, bits_of(at, len(c)) @ weight.T + b).sum(1) for at in blocks]
    )
    return float(logsumexp(log_mass)), np.exp(log_mass - logsumexp(log_mass)), weight


def bits_of(places: np.ndarray, count: int) -> np.ndarray:
    return (places[:, None] >> np.arange(count)) & 1


def exact_draws(model: Any, mass: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Independent draws of the visible bits: a hidden state of all, then the bits given it."""
    stream = np.random.default_rng(seed)
    h = bits_of(stream.choice(len(mass), size=n, p=mass), model.hidden.size)
    odds = h @ np.asarray(model.coupling.weight).T + np.asarray(model.visible.bias)
    return (stream.random(odds.shape) < 1 / (1 + np.exp(-odds))).astype(float)


def annealed(shape: tuple[int, int], spread: float, seed: int, steps: int) -> tuple[float, Any]:
    """Exact log Z, and the bracket of 100 chains in each direction."""
    model = random_rbm(*shape, seed, spread)
    log_z, mass, _ = hidden_law(model)
    starts = jnp.asarray(exact_draws(model, mass, 100, seed + 1))
    return log_z, bracketed(model, starts, steps, 100, key=jr.key(seed))


def checked(found: list[tuple[float, Any]]) -> None:
    """Every estimate within 4 standard errors, and at most one bracket that misses."""
    assert all(abs(got.value - log_z) < 4 * got.standard_error < 0.5 for log_z, got in found)
    assert sum(not got.low < log_z < got.high for log_z, got in found) <= 1
    assert all(got.bracket and got.high - got.low < 0.5 for _, got in found)


def test_log_z_of_small_machines():
    """Five of 8 hidden units. By normal tails it fails for one choice of seeds in 6,000, see below."""
    found = [annealed((10, 8), spread, 30 + i, 400) for i, spread in enumerate(SPREADS)]
    checked(found)
    for i, (spread, (log_z, _)) in enumerate(zip(SPREADS, found, strict=True)):
        assert float(random_rbm(10, 8, 30 + i, spread).log_partition()) == pytest.approx(log_z, abs=1e-10)


@pytest.mark.slow
def test_log_z_of_twenty_machines():
    """Up to 20 hidden units and weights of standard deviation 1, 100 chains of 1,000 temperatures.

    Over 40 keys for each of 20 such machines no estimate was more than 2.9 standard errors off, and no bracket missed.
    The distances had mean square 0.87; by normal tails this test fails for one choice of seeds in 570 at most.
    """
    found = [
        annealed(shape, spread, 5 * i + j, 1000) for i, shape in enumerate(SHAPES) for j, spread in enumerate(SPREADS)
    ]
    checked(found)


# One chain.

ANNEALED = ["golden", "spin potts", "potts rectified", "count gaussian", "beside softmax", "gaussian binary"]
BACK = [name for name in ANNEALED if name != "gaussian binary"]  # draws of nodes are no exact draws of reals
BETAS = (0.0, 0.1, 0.35, 0.6, 1.0)


def unlike_one(log_w: Any, log_z: float) -> float:
    """Distance of the mean of w / Z from 1 in standard errors."""
    w = np.exp(np.asarray(log_w) - log_z)
    return abs(w.mean() - 1) / (w.std(ddof=1) / np.sqrt(len(w)))


def above(values: Any, truth: Any) -> float:
    """How many standard errors a mean lies above the truth."""
    values = np.asarray(values)
    return (values.mean() - truth) / (values.std(ddof=1) / np.sqrt(len(values)))


@eqx.filter_jit
def forwards(model: Any, row: Row | None, keys: Any) -> Any:
    return jax.vmap(lambda key: forward(model, jnp.array(BETAS), row, key=key))(keys)


@eqx.filter_jit
def backwards(model: Any, starts: Any, row: Row | None, keys: Any) -> Any:
    return jax.vmap(lambda x, key: backward(model, jnp.array(BETAS), x, row, key=key))(starts, keys)


def drawn(found: Table, law: np.ndarray, seed: int) -> Any:
    return pick(found.v.states, np.random.default_rng(seed).choice(found.v.number, size=N, p=law / law.sum()))


@pytest.mark.parametrize("name", some(ANNEALED, "golden", "spin potts", "count gaussian"))
def test_the_mean_weight_of_a_chain_is_z(name):
    found = table(name)
    log_w = forwards(found.model, None, jr.split(jr.key(0), N))
    assert unlike_one(log_w, found.log_z()) < LIMIT
    assert above(log_w, found.log_z()) < -LIMIT


@pytest.mark.parametrize("name", BACK)
def test_the_mean_reciprocal_weight_of_a_chain_back_is_that_of_z(name):
    found = table(name)
    log_w = backwards(found.model, drawn(found, found.law(), 1), None, jr.split(jr.key(1), N))
    assert unlike_one(-log_w, -found.log_z()) < LIMIT
    assert above(log_w, found.log_z()) > LIMIT


@pytest.mark.parametrize("name", ["golden", "beside softmax"])
def test_with_held_cells_z_is_the_sum_over_the_others(name):
    found = table(name)
    patterns = masks(found.model.visible)
    mask = pick(patterns, len(jax.tree.leaves(patterns)[0]) // 2)
    groups = held(found.v, mask)
    group = likeliest(groups.held, found.law(), 1)[0]
    inside = np.flatnonzero(groups.held == group)
    log_z = log_sums(found.log_marginal() + groups.log_weight, groups.held)[group]
    row = pick(rows_of(found, inside[:1], mask), 0)
    log_w = forwards(found.model, row, jr.split(jr.key(2), N))
    assert unlike_one(log_w, log_z) < LIMIT
    law = np.where(groups.held == group, found.law(), 0)
    log_w = backwards(found.model, drawn(found, law, 3), row, jr.split(jr.key(3), N))
    assert unlike_one(-log_w, -log_z) < LIMIT


@pytest.mark.slow
def test_betas_rise_from_0_to_1():
    for name, steps in (("golden", 60), ("potts rectified", 7)):
        betas = np.asarray(eqx.filter_jit(adapted_betas)(energy_of(name), steps, key=jr.key(4)))
        assert betas.shape == (steps + 1,) and (betas[0], betas[-1]) == (0, 1)
        assert np.all(np.diff(betas) > 0)
    free = random_rbm(4, 3, 0, 0.0)  # nothing changes along its path
    betas = eqx.filter_jit(adapted_betas)(eqx.tree_at(lambda m: m.base.value, free, free.visible), 20, key=jr.key(4))
    np.testing.assert_allclose(betas, even_betas(20), atol=5e-3)


def test_steps_add_alike_to_a_weight():
    """Standard deviations of what 60 steps add to log w: twice as alike as with even steps, or more."""
    model = random_rbm(12, 8, 3, 2.5)

    @eqx.filter_jit
    def gains(betas, keys):
        return jax.vmap(lambda key: _along(model, betas, model.start(key=key), None, False, key=key)[1])(keys)

    def unlike(betas):
        spread = np.asarray(gains(betas, jr.split(jr.key(6), 1000))).std(axis=0)
        return spread.std() / spread.mean()

    assert 2 * unlike(eqx.filter_jit(adapted_betas)(model, 60, key=jr.key(5))) < unlike(even_betas(60))


def test_error_of_a_log_mean():
    """The bootstrap agrees with sd(w) / (mean(w) sqrt(n)) where n is large."""
    log_w = 50 + 0.4 * np.random.default_rng(0).normal(size=4000)
    w = np.exp(log_w - 50)
    assert float(log_mean(jnp.asarray(log_w))) == pytest.approx(50 + np.log(w.mean()), abs=1e-12)
    error = w.std(ddof=1) / w.mean() / np.sqrt(4000)
    assert float(bootstrap_error(jnp.asarray(log_w), key=jr.key(7))) == pytest.approx(error, rel=0.1)


# What is said of log Z.


@pytest.mark.slow
def test_partition_functions_say_what_they_are():
    model, key = energy_of(GOLDEN), jr.key(8)
    exact = Enumerated()(model, key=key)
    assert (exact.direction, exact.standard_error, exact.low) == ("exact", 0.0, None)
    assert exact.value == pytest.approx(4.900068755769949, abs=1e-12) and "exact" in str(exact)
    found = AIS(50, 40)(model, key=key)
    assert (found.direction, found.method, found.bracket) == ("lower", "ais-50x40", False)
    assert abs(found.value - exact.value) < 4 * found.standard_error and "[" not in str(found)
    assert exact.deviation == 0 and found.deviation == pytest.approx(found.standard_error * 40**0.5, rel=0.3)
    both = AIS(50, 40, back=True)(model, key=key)
    assert both[:4] == found[:4] and both.low and both.high and both.low < exact.value < both.high
    assert not both.bracket and "no bracket" in str(both)
    assert str(bracketed(model, jnp.ones((5, 4)), 20, 5, key=key)).endswith("(bracket)")


def test_what_is_too_large_to_list_is_annealed():
    small, large = random_rbm(30, 20, 0), random_rbm(30, 21, 0)
    assert isinstance(usual_partition(small), Enumerated) and isinstance(usual_partition(large), AIS)
    assert isinstance(usual_partition(energy_of("gaussian gaussian")), AIS)
    with pytest.raises(ValueError, match=r"2\^10 states.*2\^20.*AIS") as caught:
        Enumerated(10)(small, key=jr.key(0))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"2\^25 states"):
        Enumerated()(energy_of("gaussian gaussian"), key=jr.key(0))


# log p of rows.

HOLED = ["golden", "spin potts", "potts softmaxes", "count binary", "beside spin", "mixed binary", "gaussian softmax"]


def all_masks(found: Table) -> tuple[Row, np.ndarray, np.ndarray]:
    """Rows of every mask that hold what is likely, their log p by brute force, and which of them are empty."""
    patterns, rows, truth, empty = masks(found.model.visible), [], [], []
    for i in range(len(jax.tree.leaves(patterns)[0])):
        mask = pick(patterns, i)
        groups = held(found.v, mask)
        best = likeliest(groups.held, found.law(), 3)
        rows.append(rows_of(found, [int(np.argmax(groups.held == group)) for group in best], mask))
        log_p = log_sums(found.log_marginal() + groups.log_weight - found.log_z(), groups.held)
        truth += [log_p[group] for group in best]
        empty += [i == 0] * len(best)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *rows), np.array(truth), np.array(empty)


def scored(evidence: Any, model: Any, batch: Row, seed: int = 9) -> Any:
    return log_likelihood(model, evidence, batch, None, key=jr.key(seed))


@pytest.mark.parametrize("name", some(HOLED, "golden", "mixed binary"))
def test_rows_with_holes_have_their_marginal_probability(name):
    found = table(name)
    batch, truth, empty = all_masks(found)
    got = scored(Normalised(), found.model, batch)
    np.testing.assert_allclose(got.value, truth, atol=1e-10)
    assert np.all(np.asarray(got.value)[empty] == 0) and not np.any(got.standard_error)
    assert (got.direction, got.method, got.shared_error) == ("exact", "enumerated", 0.0)


@pytest.mark.parametrize("name", HOLED)
def test_whole_rows_have_their_probability(name):
    found = table(name)
    some = likeliest(np.arange(found.v.number), found.law(), 12)
    got = scored(Normalised(), found.model, rows_of(found, some))
    np.testing.assert_allclose(got.value, (found.minus_free - found.log_z())[some], atol=1e-10)


def test_an_annealed_log_z_is_shared_by_all_rows():
    """Then log p errs high; its error is no row's own."""
    found = table(GOLDEN)
    batch, truth, empty = all_masks(found)
    got = scored(Normalised(AIS(30, 20)), found.model, batch)
    assert (got.direction, got.method) == ("upper", "ais-30x20")
    off = (np.asarray(got.value) - truth)[~empty]
    assert np.ptp(off) < 1e-10 and 0 < abs(off[0]) < LIMIT * got.shared_error < 0.5
    assert np.all(np.asarray(got.value)[empty] == 0) and not np.any(got.standard_error)


HIDDEN_LISTED, CELLS_LISTED = 12.0, -1.0


@pytest.mark.parametrize("bits", [HIDDEN_LISTED, CELLS_LISTED])
def test_hidden_states_or_missing_cells_are_listed(bits, monkeypatch):
    """The same numbers either way."""
    monkeypatch.setattr(normalised, "HIDDEN_BITS", bits)
    for name in ("golden", "spin potts", "potts gaussian"):
        found = table(name)
        batch, truth, _ = all_masks(found)
        got = scored(Normalised(), found.model, batch)
        assert got.direction == "exact"
        np.testing.assert_allclose(got.value, truth, atol=1e-10)


def mixed_rows() -> tuple[Any, Row, np.ndarray]:
    """Fourteen bits: whole rows, some with a few holes, with many, and an empty one; log p by brute force."""
    model = random_rbm(14, 5, 11, 0.7)
    stream = np.random.default_rng(12)
    holes = [0, 3, 14, 11, 12, 1, 13, 0]
    mask = np.stack([stream.permutation(14) >= n for n in holes])
    x = np.where(mask, stream.integers(0, 2, size=mask.shape), 0).astype(float)
    batch = Row(jnp.asarray(x), jnp.asarray(mask))
    states = bits_of(np.arange(2**14), 14).astype(float)
    log_p = -np.asarray(jax.vmap(model.energy)(jnp.asarray(states)))
    log_p -= logsumexp(log_p)
    truth = [logsumexp(log_p[np.all(states[:, m] == row[m], axis=1)]) for row, m in zip(x, mask, strict=True)]
    return model, batch, np.array(truth)


MANY = [3, 4, 6]  # places of the rows with more than ten holes that are not empty


@pytest.mark.slow
def test_rows_with_many_holes_are_annealed(monkeypatch):
    """Where hidden states cannot be listed: an estimate with an error of its own, and called one."""
    monkeypatch.setattr(normalised, "HIDDEN_BITS", CELLS_LISTED)
    model, batch, truth = mixed_rows()
    got = scored(Normalised(steps=200, chains=200), model, batch)
    value, error = np.asarray(got.value), np.asarray(got.standard_error)
    few = np.setdiff1d(np.arange(8), [*MANY, 2])
    np.testing.assert_allclose(value[few], truth[few], atol=1e-10)
    assert np.all(error[few] == 0) and (value[2], error[2]) == (0, 0)
    assert np.all(np.abs(value - truth)[MANY] < LIMIT * error[MANY]) and np.all((0 < error[MANY]) & (error[MANY] < 0.1))
    assert np.all(value[MANY] != truth[MANY])
    assert (got.direction, got.shared_error) == ("estimate", 0.0)
    assert got.method == "enumerated, holes by ais-200x200"


def test_without_rows_of_many_holes_the_answer_is_exact(monkeypatch):
    monkeypatch.setattr(normalised, "HIDDEN_BITS", CELLS_LISTED)
    model, batch, truth = mixed_rows()
    some = np.array([0, 1, 5, 7])
    got = scored(Normalised(), model, pick(batch, some))
    assert got.direction == "exact"
    np.testing.assert_allclose(got.value, truth[some], atol=1e-10)


@pytest.mark.parametrize("bits", [HIDDEN_LISTED, CELLS_LISTED])
def test_a_row_alone_scores_as_among_others(bits, monkeypatch):
    """In any order; what other rows hold, and what a hole hides, cannot be seen."""
    monkeypatch.setattr(normalised, "HIDDEN_BITS", bits)
    model, batch, _ = mixed_rows()
    evidence = Normalised(steps=30, chains=5)
    together = np.asarray(scored(evidence, model, batch).value)
    order = np.array([5, 3, 7, 0, 6, 2, 1, 4])
    turned = scored(evidence, model, pick(batch, order)).value
    np.testing.assert_allclose(turned, together[order], atol=1e-11)
    for i in (0, 1, 3, 4):
        alone = scored(evidence, model, pick(batch, np.array([i]))).value
        np.testing.assert_allclose(alone, together[[i]], atol=1e-11)
    other = eqx.tree_at(lambda b: (b.x, b.mask), batch, (batch.x.at[7].set(0), batch.mask.at[7].set(False)))
    changed = np.asarray(scored(evidence, model, other).value)
    np.testing.assert_allclose(changed[:7], together[:7], atol=1e-11)
    assert changed[7] == 0


def test_the_error_of_annealed_holes_is_calibrated():
    """Over 200 keys."""
    model, batch, truth = mixed_rows()
    row = pick(batch, np.array([4]))
    log_z = model.log_partition()
    once = lambda key: ByChains(log_z, 0.0, "exact", even_betas(20), 40)(model, row, key=key)  # noqa: E731
    value, error = (np.asarray(part)[:, 0] for part in eqx.filter_jit(jax.vmap(once))(jr.split(jr.key(13), 200)))
    assert 0.8 < np.std((value - truth[4]) / error) < 1.25


# The bound by chains from the row.


def strong() -> Table:
    """A machine for which three temperatures are few."""
    model = random_rbm(6, 4, 3, 1.2)
    return tabulated(model, points(model.visible), points(model.hidden))


@pytest.mark.parametrize("name", some(["strong", "count gaussian", "beside binary"], "beside binary"))
def test_raise_is_the_law_of_the_annealed_chain(name):
    """At every state, against products of transition matrices. So it adds up to 1; its logarithm lies below log p.

    That is so on average over draws of the model, here with five chains, and over 1,000 keys.
    """
    found = strong() if name == "strong" else table(name)
    ready: Any = eqx.filter_jit(RAISE(2, 5).prepared)(found.model, key=jr.key(14))
    once = lambda key: ready(found.model, Row(found.v.states), key=key)[0]  # noqa: E731
    value = np.asarray(eqx.filter_jit(jax.vmap(once))(jr.split(jr.key(15), 1000)))
    begin = logsumexp(found.start + found.h.log_weight, axis=1) + found.v.log_weight
    exact = np.exp(begin - logsumexp(begin))
    for beta in np.asarray(ready.betas)[1:]:
        exact = exact @ tabulated(found.model.at(jnp.array(beta)), found.v, found.h).sweep()
    assert worst(np.exp(value), exact) < LIMIT
    assert worst(np.exp(value).sum(axis=1, keepdims=True), 1.0) < LIMIT
    law = found.law()
    assert above(value @ law, law @ np.log(law)) < -LIMIT


def test_raise_says_what_it_is_and_refuses_holes():
    model = energy_of(GOLDEN)
    evidence = RAISE(10, 5)
    whole = Row(jnp.ones((2, 4)), jnp.ones((2, 4), bool))
    got = scored(evidence, model, whole)
    assert (got.direction, got.method, got.shared_error) == ("lower", "raise-10x5", 0.0)
    assert got.value[0] == got.value[1] and np.all(np.asarray(got.standard_error) > 0)
    with pytest.raises(ValueError, match=r"without missing cells.*1 with.*impute") as caught:
        scored(evidence, model, Row(jnp.ones((2, 4)), jnp.ones((2, 4), bool).at[0, 2].set(False)))
    assert "\n" not in str(caught.value)


def test_states_of_the_golden_machine_add_up_to_one():
    found = table(GOLDEN)
    got = scored(Normalised(), found.model, Row(found.v.states))
    assert np.exp(np.asarray(got.value)).sum() == pytest.approx(1, abs=1e-12)
    assert len(np.unique(flat_states(found.v.states), axis=0)) == 16
