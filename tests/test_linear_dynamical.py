"""Linear dynamical systems, in double precision, against the dense joint law of all states and cells of a sequence."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import LIMIT, row_of, z_scores
from scipy.linalg import block_diag
from scipy.stats import multivariate_normal
from test_factorisations import free_to_meet

from ravine.core import Row, summed
from ravine.dist import FullGaussian
from ravine.models.linear_dynamical import LinearDynamical
from ravine.models.linear_gaussian import DiagonalNoise
from ravine.models.parallel_scan import filtered_in_parallel, moments_in_parallel
from ravine.rules.em import EM

pytestmark = pytest.mark.usefixtures("x64")
N, T, D, K, AHEAD = 8, 5, 3, 2, 2
WHOLE, GAPS, SHORT, ONE, NONE, UNSEEN = range(6)  # rows of `batch_of`; the last two have no observed cell
LENGTHS = [5, 5, 3, 1, 0, 5, 4, 5]


def system(seed: int = 0) -> LinearDynamical:
    rng = np.random.default_rng(seed)

    def factor() -> Any:
        return jnp.asarray(np.tril(0.3 * rng.normal(size=(K, K)), -1) + np.diag(rng.uniform(0.4, 1, K)))

    initial = FullGaussian(jnp.asarray(rng.normal(size=K)), factor())
    transition = jnp.asarray([[0.9, 0.3], [-0.4, 0.7]])
    loading, bias = jnp.asarray(rng.normal(size=(D, K))), jnp.asarray(rng.normal(size=D) + 5)
    return LinearDynamical(initial, transition, factor(), loading, bias, DiagonalNoise(jnp.array([0.3, 0.8, 0.5])), T)


def batch_of(seed: int = 1) -> Row:
    """Sequences with holes, missing steps, unequal lengths with garbage after their ends, and weights, one of 0."""
    rng = np.random.default_rng(seed)
    mask = rng.random((N, T, D)) < 0.7
    mask[WHOLE], mask[UNSEEN], mask[GAPS] = True, False, True
    mask[GAPS, [1, 4]], mask[GAPS, 2, 0] = False, False
    mask[SHORT, 0], mask[ONE, 0] = [False, True, True], [True, False, True]
    weight = rng.uniform(0.5, 2, N)
    weight[6] = 0
    x = 5 + np.cumsum(rng.normal(size=(N, T, D)), axis=1)
    return Row(*map(jnp.asarray, (x, mask)), length=jnp.asarray(LENGTHS), weight=jnp.asarray(weight))


def whole_batch() -> Row:
    batch = batch_of()
    return Row(batch.x, weight=batch.weight)


def seen_of(batch: Row) -> np.ndarray:
    return np.asarray(batch.mask) & (np.arange(T)[None, :, None] < np.asarray(batch.length)[:, None, None])


# The dense law.


def joint(model: LinearDynamical, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of all states, then all cells."""
    a, b, c = (np.asarray(part) for part in (model.transition, model.bias, model.loading))
    first, own = (np.asarray(root @ root.T) for root in (model.initial.factor, model.process))
    power = functools.partial(np.linalg.matrix_power, a)
    lift = np.block([[power(t - s) if t >= s else np.zeros((K, K)) for s in range(steps)] for t in range(steps)])
    z = lift[:, :K] @ np.asarray(model.initial.location)
    cov = lift @ block_diag(first, *[own] * (steps - 1)) @ lift.T
    big, noise = np.kron(np.eye(steps), c), np.tile(np.asarray(model.noise_scale()) ** 2, steps)
    mean = np.concatenate([z, big @ z + np.tile(b, steps)])
    return mean, np.block([[cov, cov @ big.T], [big @ cov, big @ cov @ big.T + np.diag(noise)]])


def given(model: LinearDynamical, x: Any, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and covariance of all states and cells given the seen ones, and the log density of these."""
    mean, cov = joint(model, len(seen))
    known = np.concatenate([np.zeros(len(seen) * K, bool), seen.ravel()])
    value = np.asarray(x).ravel()[seen.ravel()]
    block = cov[np.ix_(known, known)]
    gain = np.linalg.solve(block, cov[known]).T if known.any() else np.zeros((len(mean), 0))
    log_prob = multivariate_normal(mean[known], block).logpdf(value) if known.any() else 0.0
    return mean + gain @ (value - mean[known]), cov - gain @ cov[known], float(log_prob)


def states(steps: int) -> slice:
    return slice(0, steps * K)


def close(got: Any, want: Any, size: float) -> None:
    """All numbers of two trees agree within ``size`` times (1 + the largest of their array)."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        assert np.max(np.abs(a - b), initial=0) <= size * (1 + np.max(np.abs(b), initial=0))


# What is compared, compiled once; each part waits for the one before it, see test_factorisations.py.


@eqx.filter_jit
def look(model: LinearDynamical, batch: Row, z: Any, value: Any) -> dict[str, Any]:
    def one(row: Row) -> dict[str, Any]:
        found: dict[str, Any] = {"evidence": model.log_evidence(row)}
        row = row.after(found["evidence"])
        found["smooth"] = model.smooth(row)
        row = row.after(found["smooth"][0])
        found["filter"] = model.filter(row)
        row = row.after(found["filter"][0])
        found["forecast"] = model.forecast(row, AHEAD)
        posterior = model.posterior(row.after(found["forecast"][0]))
        found["posterior"] = posterior.log_prob(z)
        law = model.conditional(row.after(found["posterior"]))
        return found | {"joint": model.log_joint(z, row), "completed": law.mean(), "other": law.log_prob(value)}

    return jax.vmap(one)(batch)


@functools.cache
def looked() -> dict[str, Any]:
    return look(system(), batch_of(), *place())


def place() -> tuple[Any, Any]:
    """A path of states and a complete sequence."""
    rng = np.random.default_rng(3)
    return jnp.asarray(rng.normal(size=(T, K))), jnp.asarray(5 + rng.normal(size=(T, D)))


expect = eqx.filter_jit(lambda model, batch: model.expected(batch))
maximised = eqx.filter_jit(lambda model, statistics: model.maximise(statistics))


@eqx.filter_jit
def fit(model: LinearDynamical, batch: Row, steps: int) -> tuple[LinearDynamical, Any]:
    """So many passes of EM, and the objective before each, in nats per unit of weight."""
    rule = EM(tol=-jnp.inf)
    arrays, static = eqx.partition((model, rule.init(model, batch, key=jr.key(0))), eqx.is_array)

    def one(arrays: Any, step: Any) -> Any:
        model, state = eqx.combine(arrays, static)
        model, state, metrics = rule.step(model, state, batch, key=jr.key(0), step=step)
        return eqx.filter((model, state), eqx.is_array), metrics["objective"]

    arrays, history = jax.lax.scan(one, arrays, jnp.arange(steps))
    return eqx.combine(arrays, static)[0], history


# One sequence.


def test_everything_is_that_of_the_dense_law():
    found, batch, model = looked(), batch_of(), system()
    for i, seen in enumerate(seen_of(batch)):
        mean, cov, log_prob = given(model, batch.x[i], seen)
        means, covariances, crosses = (np.asarray(part[i]) for part in found["smooth"])
        blocks = cov[states(T), states(T)].reshape(T, K, T, K)
        assert float(found["evidence"][i]) == pytest.approx(log_prob, rel=1e-11, abs=1e-11)
        close(means, mean[states(T)].reshape(T, K), 1e-11)
        close(covariances, np.stack([blocks[t, :, t] for t in range(T)]), 1e-11)
        close(crosses, np.stack([blocks[t + 1, :, t] for t in range(T - 1)]), 1e-11)
        exists = (np.arange(T) < LENGTHS[i])[:, None]
        cells = np.where(seen, np.asarray(batch.x[i]), np.where(exists, mean[T * K :].reshape(T, D), 0))
        close(found["completed"][i], cells, 1e-11)


def test_the_filter_knows_the_past_only():
    found, batch = looked()["filter"], batch_of()
    for i, seen in enumerate(seen_of(batch)):
        for t in range(T):
            past = seen & (np.arange(T) <= t)[:, None]
            mean, cov, _ = given(system(), batch.x[i], past)
            here = slice(t * K, (t + 1) * K)
            close((found[0][i, t], found[1][i, t]), (mean[here], cov[here, here]), 1e-11)


def test_forecasts_begin_where_the_sequence_ends():
    found, batch = looked()["forecast"], batch_of()
    for i, seen in enumerate(seen_of(batch)):
        steps = T + AHEAD
        x, more = np.zeros((steps, D)), np.zeros((steps, D), bool)
        x[:T], more[:T] = batch.x[i], seen
        mean, cov, _ = given(system(), x, more)
        for ahead in range(AHEAD):
            here = slice(steps * K + (LENGTHS[i] + ahead) * D, steps * K + (LENGTHS[i] + ahead + 1) * D)
            close((found[0][i, ahead], found[1][i, ahead]), (mean[here], cov[here, here]), 1e-11)


def test_the_posterior_is_the_joint_over_the_evidence():
    found = looked()
    close(found["joint"] - found["posterior"], found["evidence"], 1e-11)


def test_sequences_without_observed_cells_score_exactly_zero():
    evidence = np.asarray(looked()["evidence"])
    assert (evidence[[NONE, UNSEEN]] == 0).all() and (evidence[[WHOLE, GAPS, SHORT, ONE]] != 0).all()


def test_the_density_of_missing_cells_is_the_dense_one():
    """Of those that exist; a complete sequence has none."""
    found, batch, value = looked()["other"], batch_of(), np.asarray(place()[1])
    for i, seen in enumerate(seen_of(batch)):
        mean, cov, _ = given(system(), batch.x[i], seen)
        free = ~seen & (np.arange(T) < LENGTHS[i])[:, None]
        if not free.any():
            assert float(found[i]) == 0.0
            continue
        at = T * K + np.flatnonzero(free)
        want = multivariate_normal(mean[at], cov[np.ix_(at, at)]).logpdf(value[free])
        assert float(found[i]) == pytest.approx(want, rel=1e-10)


@eqx.filter_jit
def draw(model: LinearDynamical, row: Row, mask: Any, n: int) -> dict[str, Any]:
    posterior, keys = model.posterior(row), jr.split(jr.key(0), n)
    (node,), z = posterior.nodes(), posterior.mean()
    law = model.conditional(row.after(z))
    paths, scores = jax.vmap(lambda key: posterior.sample(key=key))(keys)
    return {
        "paths": paths,
        "scores": scores,
        "cells": jax.vmap(lambda key: law.sample(key=key))(keys),
        "both": jax.vmap(lambda key: model.sample(key=key))(keys),
        "marginal": node.log_prob(z + 1, mask),
        "again": posterior.log_prob(paths[0]),
    }


@functools.cache
def drawn() -> dict[str, Any]:
    return draw(system(), row_of(batch_of(), GAPS), jnp.asarray(np.arange(T * K).reshape(T, K) % 3 > 0), 4000)


def right(draws: Any, mean: np.ndarray, cov: np.ndarray) -> None:
    """Mean and covariance within 4.5 standard errors; a right number fails once in 150,000 seeds."""
    away = np.asarray(draws).reshape(len(draws), -1) - mean
    products = (away[:, :, None] * away[:, None, :]).reshape(len(away), -1)
    scores = z_scores(np.hstack([away, products]), np.concatenate([np.zeros(mean.size), cov.ravel()]))
    assert np.max(np.abs(scores)) < LIMIT


def test_draws_of_states_and_of_cells_have_the_moments_of_the_dense_law():
    batch, found = batch_of(), drawn()
    seen = seen_of(batch)[GAPS]
    mean, cov, _ = given(system(), batch.x[GAPS], seen)
    right(found["paths"], mean[states(T)], cov[states(T), states(T)])
    free, cells = np.flatnonzero(~seen), np.asarray(found["cells"])
    at = T * K + free
    right(cells.reshape(len(cells), -1)[:, free], mean[at], cov[np.ix_(at, at)])
    assert (cells[:, seen] == np.asarray(batch.x[GAPS])[seen][None]).all()
    both = np.hstack([np.asarray(part).reshape(len(cells), -1) for part in found["both"]])
    right(both, *joint(system(), T))


def test_a_path_scores_its_draws_and_its_marginals():
    batch, found = batch_of(), drawn()
    mean, cov, _ = given(system(), batch.x[GAPS], seen_of(batch)[GAPS])
    some = np.flatnonzero(np.arange(T * K) % 3 > 0)
    want = multivariate_normal(mean[some], cov[np.ix_(some, some)]).logpdf(mean[some] + 1)
    assert float(found["marginal"]) == pytest.approx(want, rel=1e-10)
    path = multivariate_normal(mean[states(T)], cov[states(T), states(T)])
    close(found["scores"], path.logpdf(np.asarray(found["paths"]).reshape(-1, T * K)), 1e-10)
    assert float(found["again"]) == pytest.approx(float(found["scores"][0]), rel=1e-12)


@eqx.filter_jit
def slopes(model: LinearDynamical, batch: Row) -> LinearDynamical:
    return eqx.filter_grad(lambda model: batch.weight @ jax.vmap(model.log_evidence)(batch))(model)


@pytest.mark.parametrize("hidden", [np.nan, 1e30])
def test_what_is_missing_or_beyond_the_end_is_never_read(hidden):
    batch = batch_of()
    other = eqx.tree_at(lambda b: b.x, batch, jnp.where(seen_of(batch), batch.x, hidden))
    close(look(system(), other, *place()), looked(), 0)
    close(expect(system(), other), expect(system(), batch), 0)
    found = slopes(system(), other)
    close(found, slopes(system(), batch), 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert float(jnp.min(jnp.abs(found.transition))) > 1e-3


# Learning.


def test_expected_is_the_sum_over_rows():
    total = eqx.filter_jit(summed)
    for batch in (batch_of(), whole_batch()):
        close(expect(system(), batch), total(system(), batch), 1e-10)
    ones = jnp.ones((N, T, D), bool), jnp.full(N, T)
    masked = Row(batch.x, ones[0], length=ones[1], weight=batch.weight)
    close(expect(system(), masked), expect(system(), batch), 1e-10)


def test_a_whole_weight_is_that_many_rows():
    batch, counts = batch_of(), np.array([2, 0, 1, 3, 1, 0, 1, 0])  # eight in all: one compilation
    weighted = eqx.tree_at(lambda b: b.weight, batch, jnp.asarray(counts, float))
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, counts, axis=0), batch)
    repeated = eqx.tree_at(lambda b: b.weight, repeated, jnp.ones(N))
    one, other = expect(system(), weighted), expect(system(), repeated)
    close(one, other, 1e-11)
    close(maximised(system(), one[0]), maximised(system(), other[0]), 1e-9)


def test_sequences_and_last_steps_without_observations_say_nothing():
    batch = batch_of()
    only = lambda rows: eqx.tree_at(lambda b: b.weight, batch, jnp.zeros(N).at[jnp.asarray(rows)].set(2.0))  # noqa: E731
    close(expect(system(), only([NONE, UNSEEN])), jax.tree.map(jnp.zeros_like, expect(system(), batch)), 0)
    close(expect(system(), only([GAPS, NONE, UNSEEN])), expect(system(), only([GAPS])), 0)
    cut = eqx.tree_at(lambda b: b.length, batch, batch.length.at[GAPS].set(4))
    close(expect(system(), cut), expect(system(), batch), 0)
    nothing = expect(system(), only([NONE, UNSEEN]))[0]
    close(maximised(system(), nothing), system(), 0)


def parameters(model: LinearDynamical) -> tuple[Any, ...]:
    initial = model.initial.location, model.initial.factor
    return *initial, model.transition, model.process, model.loading, model.bias, model.noise_scale()


def complete_data(values: Any, x: Any, seen: Any, alive: Any, weight: Any, z: Any, zz: Any) -> Any:
    """Expected log p(x, z) over living steps, by moments z (n, T, k) and zz (n, T, k, T, k); without constants."""
    m, root, a, process, c, b, scale = values

    def normal(count: Any, second: Any, root: Any) -> Any:
        return -0.5 * count * jnp.linalg.slogdet(root @ root.T)[1] - 0.5 * jnp.trace(
            jnp.linalg.solve(root @ root.T, second)
        )

    first, pairs, same = weight * alive[:, 0], weight[:, None] * alive[:, 1:], jnp.einsum("ntitj->ntij", zz)
    mean = jnp.einsum("n,nk->k", first, z[:, 0])
    start = jnp.einsum("n,nij->ij", first, same[:, 0]) - jnp.outer(mean, m) - jnp.outer(m, mean)
    total = normal(jnp.sum(first), start + jnp.sum(first) * jnp.outer(m, m), root)
    before, after = (jnp.einsum("nt,ntij->ij", pairs, part) for part in (same[:, :-1], same[:, 1:]))
    cross = jnp.einsum("nt,ntitj->ij", pairs, zz[:, 1:, :, :-1])
    total += normal(jnp.sum(pairs), after - a @ cross.T - cross @ a.T + a @ before @ a.T, process)
    away = x - jnp.einsum("dk,ntk->ntd", c, z) - b[None, None]
    spread = same - z[..., :, None] * z[..., None, :]
    square = away**2 + jnp.einsum("di,ntij,dj->ntd", c, spread, c)
    each = -0.5 * square / scale[None, None] ** 2 - jnp.log(scale)[None, None]
    return total + jnp.sum(weight[:, None, None] * jnp.where(seen, each, 0))


def test_maximise_ends_where_the_expected_log_likelihood_is_flat():
    model, batch = system(), batch_of()
    seen = seen_of(batch)
    alive = np.cumsum(seen.any(axis=2)[:, ::-1], axis=1)[:, ::-1] > 0
    laws = [given(model, *pair) for pair in zip(batch.x, seen, strict=True)]
    z = np.stack([mean[states(T)] for mean, _, _ in laws])
    zz = np.stack([cov[states(T), states(T)] for _, cov, _ in laws]) + z[:, :, None] * z[:, None, :]
    moments = jnp.asarray(z.reshape(N, T, K)), jnp.asarray(zz.reshape(N, T, K, T, K))
    given_data = batch.x, *map(jnp.asarray, (seen, alive * 1.0)), batch.weight, *moments
    slope = jax.jit(jax.grad(complete_data))
    after = maximised(model, expect(model, batch)[0])
    before = slope(parameters(model), *given_data)
    assert min(float(jnp.max(jnp.abs(part))) for part in before) > 0.1
    flat = slope(parameters(after), *given_data)
    assert max(float(jnp.max(jnp.abs(part))) for part in flat) < 1e-9 * max(float(jnp.max(jnp.abs(b))) for b in before)


def test_em_never_falls():
    """From the dense law's neighbour and from `from_moments`, also when the floor of the first state binds."""
    batch = batch_of()
    start = eqx.filter_jit(lambda batch: LinearDynamical.from_moments(batch, K))(batch)
    assert start.steps == T
    for model in (system(), start):
        fitted, history = fit(model, batch, 20)
        history = np.asarray(history)
        assert np.isfinite(history).all() and (np.diff(history) >= -1e-10 * np.abs(history[1:])).all()
        assert history[-1] - history[0] > 0.1
    alone = eqx.tree_at(lambda b: b.weight, batch, jnp.zeros(N).at[WHOLE].set(1.0))
    fitted, history = fit(eqx.tree_at(lambda m: m.floor.value, system(), 0.2), alone, 20)
    assert (np.diff(np.asarray(history)) >= -1e-10 * np.abs(np.asarray(history)[1:])).all()
    variances = np.linalg.eigvalsh(np.asarray(fitted.initial.factor @ fitted.initial.factor.T))
    assert variances == pytest.approx([0.2, 0.2])  # one sequence fits its first state exactly


def test_a_fit_of_generated_sequences_is_at_least_as_likely_as_the_truth():
    """More states than columns too: the second state is seen through the first alone."""
    truth = LinearDynamical(
        FullGaussian(jnp.zeros(2), jnp.eye(2)),
        jnp.array([[0.95, 0.3], [-0.3, 0.9]]),
        0.3 * jnp.eye(2),
        jnp.array([[1.0, 0.0]]),
        jnp.array([3.0]),
        DiagonalNoise(jnp.array([0.4])),
        20,
    )
    x = jax.jit(jax.vmap(lambda key: truth.sample(key=key)[1]))(jr.split(jr.key(4), 16))
    batch = Row(x, weight=jnp.ones(16))
    start = LinearDynamical.from_moments(batch, 2)
    _, history = fit(start, batch, 40)
    best = float(expect(truth, batch)[1]) / 16
    assert float(history[0]) < best < float(history[-1]) < best + 1


NILE = """
1120 1160 963 1210 1160 1160 813 1230 1370 1140 995 935 1110 994 1020 960 1180 799 958 1140 1100 1210 1150
1250 1260 1220 1030 1100 774 840 874 694 940 833 701 916 692 1020 1050 969 831 726 456 824 702 1120 1100 832
764 821 768 845 864 862 698 845 744 796 1040 759 781 865 845 944 984 897 822 1010 771 676 649 846 812 742 801
1040 860 874 848 890 744 749 838 1050 918 986 797 923 975 815 1020 906 901 1170 912 746 919 718 714 740
"""


def test_the_nile_is_as_published():
    """Durbin & Koopman 2012, Time series analysis by state space methods, 2.10: variances 15099 and 1469.1.

    They start from a law without information, and so without the first year; here that law is very wide. The R package
    statespacer reports -6.334646 per year of 100 for the same model, in which the first year costs half of log 2 pi.
    """
    x = jnp.asarray(np.array(NILE.split(), float))[:, None]
    one = jnp.ones((1, 1))

    def level(scales: Any) -> Any:
        initial = FullGaussian(jnp.zeros(1), 1e5 * one)
        model = LinearDynamical(initial, one, scales[1] * one, one, jnp.zeros(1), DiagonalNoise(scales[:1]))
        return model.log_evidence(Row(x))

    best = jnp.sqrt(jnp.array([15099.0, 1469.1]))
    value, slope = eqx.filter_jit(jax.value_and_grad(level))(best)
    first = multivariate_normal(0, 1e10 + 15099).logpdf(float(x[0, 0]))
    assert float(value) - first - 0.5 * np.log(2 * np.pi) == pytest.approx(-633.4646, abs=2e-4)
    assert np.max(np.abs(np.asarray(slope * best))) < 2e-3  # nats per unit of the logarithm of a deviation


def test_shapes_that_do_not_agree_are_refused():
    model = system()
    with pytest.raises(ValueError, match=r"needs a transition \(2, 2\)"):
        LinearDynamical(model.initial, jnp.eye(3), model.process, model.loading, model.bias, model.noise)


# The same in parallel.


@eqx.filter_jit
def both_ways(model: LinearDynamical, x: Any, seen: Any) -> Any:
    found = model.filtered(x, seen)
    known = jnp.all(found.means == found.means)  # the second pass waits for the first
    other = filtered_in_parallel(model, x, seen & known)
    squared = lambda f: f._replace(roots=f.roots @ jnp.swapaxes(f.roots, 1, 2))  # noqa: E731
    moments = found.path().moments(), moments_in_parallel(other.path())
    return (squared(found), moments[0]), (squared(other), moments[1])


@pytest.mark.parametrize("steps", [1, 37])
def test_scans_in_parallel_equal_the_sequential_ones(steps):
    rng = np.random.default_rng(5)
    x, seen = 5 + np.cumsum(rng.normal(size=(steps, D)), axis=0), rng.random((steps, D)) < 0.6
    seen[5:9] = False
    sequential, parallel = both_ways(system(), jnp.asarray(np.where(seen, x, np.nan)), jnp.asarray(seen))
    close(parallel, sequential, 1e-10)


def test_no_factorisations_of_many_rows_may_wait_for_one_another():
    batch, model, value = batch_of(), system(), place()[1]

    def completed(model: LinearDynamical, batch: Row) -> Any:
        laws = jax.vmap(model.conditional)(batch)
        return jax.vmap(lambda law: (law.mean(), law.log_prob(value)))(laws)

    def parallel(model: LinearDynamical, batch: Row) -> Any:
        return jax.vmap(lambda row: filtered_in_parallel(model, row.x, row.mask))(batch)

    for function in (expect, slopes, eqx.filter_jit(completed), eqx.filter_jit(parallel)):
        assert free_to_meet(function.lower(model, batch).compile().compiled.as_text()) == []
    twice = eqx.filter_jit(lambda model, batch: (completed(model, batch), parallel(model, batch)))
    assert free_to_meet(twice.lower(model, batch).compile().compiled.as_text())
