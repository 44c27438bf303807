"""Hidden Markov models against the sum over all paths, for every family of laws, with holes and unequal lengths.

All in double precision, with sequences so short that every path can be listed.
"""

import functools
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import LIMIT, some, z_scores

from ravine._tree import Fixed
from ravine.core import Row, summed
from ravine.dist import MarkovPath
from ravine.dist.markov import filtered
from ravine.gradients import ScoreFunction
from ravine.models.correlated_components import FullCovariance, TiedCovariance
from ravine.models.diagonal_components import DiagonalCovariance, SphericalCovariance
from ravine.models.discrete_components import BitComponents, CodeComponents, CountComponents, MixedComponents
from ravine.models.hidden_markov import HiddenMarkov
from ravine.rules.em import EM

pytestmark = pytest.mark.usefixtures("x64")
K, D, T, N = 3, 2, 4, 12
PATHS = np.array(list(itertools.product(range(K), repeat=T)))


def means(rng: Any) -> Any:
    return jnp.asarray(2 * rng.normal(size=(K, D)))


FAMILIES: dict[str, Any] = {
    "full": lambda r: FullCovariance.of(means(r), jnp.tile(jnp.array([[2.0, 0.5], [0.5, 1.0]]), (K, 1, 1))),
    "tied": lambda r: TiedCovariance.of(means(r), jnp.array([[2.0, 0.5], [0.5, 1.0]])),
    "diag": lambda r: DiagonalCovariance(means(r), jnp.asarray(r.uniform(0.5, 2, (K, D)))),
    "spherical": lambda r: SphericalCovariance(means(r), jnp.asarray(r.uniform(0.5, 2, K))),
    "bits": lambda r: BitComponents(means(r), Fixed(jnp.asarray(0.5))),
    "codes": lambda r: CodeComponents(jnp.asarray(r.normal(size=(K, D, 3))), Fixed(jnp.asarray(0.5))),
    "counts": lambda r: CountComponents(jnp.asarray(r.normal(size=(K, D))), Fixed(jnp.asarray(0.1))),
    "mixed": lambda r: MixedComponents(
        jnp.asarray(r.normal(size=(K, 2))),
        DiagonalCovariance(jnp.asarray(2 * r.normal(size=(2 * K, D))), jnp.ones((2 * K, D))),
    ),
}
every_family = pytest.mark.parametrize("name", some(FAMILIES, "full", "bits"))
with_and_without = pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])


def model_of(name: str) -> HiddenMarkov:
    rng = np.random.default_rng(7)
    moves = rng.normal(size=(K, K))
    moves[0, 2] = -np.inf  # a move that never happens
    return HiddenMarkov(jnp.asarray(rng.normal(size=K)), jnp.asarray(moves), FAMILIES[name](rng), T)


EMPTY, SHORT, GONE = 2, 4, 5  # sequences with no observed cell, of two steps, and of none


@functools.cache
def batch_of(name: str, holes: bool) -> Row:
    """Weighted sequences drawn from the model, of unequal lengths; what lies beyond the end is rubbish."""
    rng, keys = np.random.default_rng(1), jr.split(jr.key(3), N)
    x = np.array(jax.vmap(lambda key: model_of(name).sample(key=key)[1])(keys))
    length = rng.integers(1, T + 1, size=N)
    length[[EMPTY, SHORT, GONE]] = T, 2, 0
    there = np.arange(T)[None] < length[:, None]
    x[~there] = 1.0
    weight = rng.uniform(0.5, 2, N)
    weight[7] = 0
    if not holes:
        return Row(jnp.asarray(x), length=jnp.asarray(length), weight=jnp.asarray(weight))
    mask = (rng.random((N, T, D)) < 0.6) & there[..., None]
    mask[EMPTY], mask[0, 1] = False, False
    return Row(
        jnp.asarray(np.where(mask, x, 0)), jnp.asarray(mask), length=jnp.asarray(length), weight=jnp.asarray(weight)
    )


def row_of(batch: Row, i: int) -> Row:
    return jax.tree.map(lambda leaf: leaf[i], batch)


@eqx.filter_jit
def by_paths(model: HiddenMarkov, row: Row) -> dict[str, Any]:
    """Everything from the joint probability with each of the paths, one cell after the other."""
    there = jnp.arange(T) < (T if row.length is None else row.length)
    mask = (jnp.ones((T, D), bool) if row.mask is None else row.mask) & there[:, None]
    density = jax.vmap(lambda x, m: model.components.log_prob_all(Row(x, m)))(row.x, mask)
    start, moves = model.prior().start, model.prior().moves[0]
    z = jnp.asarray(PATHS)
    prior = start[z[:, 0]] + sum(moves[z[:, t - 1], z[:, t]] for t in range(1, T))
    joint = prior + sum(density[t, z[:, t]] for t in range(T))
    share = jax.nn.softmax(joint)
    hot = jax.nn.one_hot(z, K)
    pairs = (jnp.arange(1, T) < (T if row.length is None else row.length)).astype(float)
    return {
        "joint": joint,
        "evidence": jax.nn.logsumexp(joint),
        "share": share,
        "states": jnp.tensordot(share, hot, 1),
        "moves": jnp.einsum("p,pti,ptj,t->ij", share, hot[:, :-1], hot[:, 1:], pairs),
        "mask": mask,
    }


@eqx.filter_jit
def answered(model: HiddenMarkov, row: Row) -> dict[str, Any]:
    posterior, hot = model.posterior(row), jax.nn.one_hot(jnp.asarray(PATHS), K)
    counts, evidence = model.statistics(row)
    return {
        "evidence": model.log_evidence(row),
        "statistics evidence": evidence,
        "log q": jax.vmap(posterior.log_prob)(hot),
        "joint": jax.vmap(lambda z: model.log_joint(z, row))(hot),
        "states": posterior.mean(),
        "moves": counts.moves,
        "first": counts.first,
        "steps": counts.steps,
        "path": model.decode(row),
    }


close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-10)


@every_family
@with_and_without
def test_every_answer_equals_the_sum_over_all_paths(name: str, holes: bool):
    model, batch = model_of(name), batch_of(name, holes)
    for i in range(6):
        row = row_of(batch, i)
        want, came = by_paths(model, row), answered(model, row)
        close(came["evidence"], want["evidence"])
        close(came["statistics evidence"], want["evidence"])
        close(came["joint"], want["joint"])
        close(np.exp(came["log q"]), want["share"])
        close(came["states"], want["states"])
        close(came["moves"], want["moves"])
        length = int(row.length)
        close(came["first"], want["states"][0] * (length > 0))
        close(came["steps"], want["states"][:length].sum(axis=0))


@every_family
def test_a_sequence_of_which_nothing_is_known_has_exactly_no_nats(name: str):
    model, batch = model_of(name), batch_of(name, True)
    assert float(answered(model, row_of(batch, EMPTY))["evidence"]) == 0
    assert float(answered(model, row_of(batch, GONE))["evidence"]) == 0


@every_family
@with_and_without
def test_the_decoded_path_is_the_likeliest(name: str, holes: bool):
    model, batch = model_of(name), batch_of(name, holes)
    for i in range(6):
        row = row_of(batch, i)
        length = int(row.length)
        joint, (path, value) = by_paths(model, row)["joint"], answered(model, row)["path"]
        # the moves after the end are not part of the path: the likeliest of those that then stay where they are
        moves = np.asarray(model.prior().moves[0])
        after = [sum(moves[p[t - 1], p[t]] for t in range(max(length, 1), T)) for p in PATHS]
        still = np.array([all(p[t] == p[t - 1] for t in range(max(length, 1), T)) for p in PATHS])
        joint = np.where(still, np.asarray(joint) - np.where(still, after, 0), -np.inf)
        np.testing.assert_allclose(value, joint.max(), rtol=1e-9)
        assert PATHS[joint.argmax()].tolist() == path.tolist()


@every_family
@with_and_without
def test_sums_as_matrix_products_equal_the_sum_over_rows(name: str, holes: bool):
    model, batch = model_of(name), batch_of(name, holes)
    fast, slow = eqx.filter_jit(lambda m, b: m.expected(b))(model, batch), eqx.filter_jit(summed)(model, batch)
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@eqx.filter_jit
def iterated(model: HiddenMarkov, batch: Row) -> tuple[HiddenMarkov, Any]:
    rule = EM(tol=-jnp.inf)
    state = rule.init(model, batch, key=jr.key(0))

    def step(carry: Any, _: None) -> Any:
        model, state = carry
        model, state, metrics = rule.step(model, state, batch, key=jr.key(0), step=jnp.array(0))
        return (model, state), metrics["objective"]

    (model, _), objective = jax.lax.scan(step, (model, state), length=30)
    return model, objective


@every_family
@with_and_without
def test_likelihood_never_falls_and_forbidden_moves_stay_so(name: str, holes: bool):
    after, objective = iterated(model_of(name), batch_of(name, holes))
    assert np.all(np.diff(objective) > -1e-10)
    assert objective[-1] > objective[0] + 0.01
    path = jax.nn.one_hot(jnp.array([0, 2, 1, 1]), K)
    assert float(after.prior().log_prob(path)) == -np.inf


@every_family
def test_the_step_of_em_is_a_maximum_of_what_is_expected(name: str):
    """The slope of the likelihood is that of the expected complete likelihood, and vanishes where EM has ended."""
    batch = batch_of(name, True)
    model = model_of(name)
    for _ in range(40):
        model, objective = iterated(model, batch)
        if objective[-1] - objective[-2] < 1e-13:
            break

    def log_p(start: Any, moves: Any) -> Any:
        moved = eqx.tree_at(lambda m: (m.start, m.moves), model, (start, moves))
        return batch.weight @ jax.vmap(moved.log_evidence)(batch)

    slope = jax.jit(jax.grad(log_p, (0, 1)))(model.start, model.moves)
    assert max(float(jnp.max(jnp.abs(part))) for part in slope) < 2e-4


def test_what_lies_beyond_the_end_has_no_effect():
    model, batch = model_of("full"), batch_of("full", True)
    loud = eqx.tree_at(
        lambda b: b.x, batch, jnp.where((jnp.arange(T)[None] < batch.length[:, None])[..., None], batch.x, 1e9)
    )
    for a, b in zip(jax.tree.leaves(model.expected(batch)), jax.tree.leaves(model.expected(loud)), strict=True):
        assert np.array_equal(a, b)
    slope = jax.jit(jax.grad(lambda c: jnp.sum(jax.vmap(eqx.tree_at(lambda m: m.start, model, c).log_evidence)(loud))))
    assert np.all(np.isfinite(slope(model.start)))


def test_a_longer_frame_of_zeros_changes_nothing():
    model, batch = model_of("full"), batch_of("full", True)
    widen = lambda leaf: jnp.pad(leaf, ((0, 0), (0, 3), (0, 0)))  # noqa: E731
    wide = eqx.tree_at(lambda b: (b.x, b.mask), batch, (widen(batch.x), widen(batch.mask)))
    for a, b in zip(jax.tree.leaves(model.expected(batch)), jax.tree.leaves(model.expected(wide)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_weights_are_repetitions():
    model, batch = model_of("full"), batch_of("full", True)
    times = np.arange(N) % 3
    weighted = eqx.tree_at(lambda b: b.weight, batch, jnp.asarray(times, float))
    several = jax.tree.map(
        lambda leaf: jnp.repeat(leaf, times, axis=0), eqx.tree_at(lambda b: b.weight, batch, jnp.ones(N))
    )
    for a, b in zip(jax.tree.leaves(model.expected(weighted)), jax.tree.leaves(model.expected(several)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", some(["full", "bits", "codes", "counts"], "full"))
def test_holes_are_filled_from_the_law_of_all_paths(name: str):
    """4000 draws against exact moments; one correct run in 150,000 a number would fail."""
    model, row = model_of(name), row_of(batch_of(name, True), 0)
    law, keys = model.conditional(row), jr.split(jr.key(5), 4000)
    want, seen = by_paths(model, row), np.asarray(row.mask)
    laws = jax.vmap(lambda x, m: model.components.given(Row(x, m)))(row.x, want["mask"])
    by_state = np.asarray(jax.vmap(jax.vmap(lambda law: law.mean()))(laws))
    filled = np.einsum("tk,tkd->td", want["states"], by_state)
    close(np.asarray(law.mean())[~seen], filled[~seen])
    assert np.array_equal(np.asarray(law.mean())[seen], np.asarray(row.x)[seen])
    draws = np.asarray(jax.vmap(lambda key: law.sample(key=key))(keys))
    assert np.max(np.abs(z_scores(draws[:, ~seen], filled[~seen]))) < LIMIT
    assert np.all(draws[:, seen] == np.asarray(row.x)[seen])
    value = jnp.asarray(draws[0])
    whole = eqx.tree_at(lambda r: (r.x, r.mask), row, (value, jnp.ones((T, D), bool)))
    full = eqx.tree_at(lambda r: r.length, row, jnp.array(T))
    close(
        law.log_prob(value),
        model.log_evidence(eqx.tree_at(lambda r: r.length, whole, jnp.array(T))) - model.log_evidence(full),
    )


@pytest.mark.parametrize("name", some(["full", "bits"], "full"))
def test_paths_drawn_visit_states_as_often_as_they_are_likely(name: str):
    model, row = model_of(name), row_of(batch_of(name, True), 0)
    posterior, keys = model.posterior(row), jr.split(jr.key(6), 4000)
    paths = np.asarray(jax.vmap(lambda key: posterior.sample(key=key)[0])(keys))
    share = np.asarray(by_paths(model, row)["share"])
    place = (paths.argmax(axis=-1) * K ** np.arange(T - 1, -1, -1)).sum(axis=1)
    often = np.bincount(place, minlength=K**T)
    spread = np.sqrt(4000 * share * (1 - share))
    likely = share > 1e-3
    assert np.max(np.abs(often - 4000 * share)[likely] / spread[likely]) < LIMIT
    assert often[share < 1e-9].sum() == 0


# Values known from textbooks: Russell & Norvig's umbrella, as in the tests of others; the doctor of the encyclopaedia.


def umbrella() -> HiddenMarkov:
    laws = BitComponents(jnp.log(jnp.array([[0.9 / 0.1], [0.2 / 0.8]])))
    return HiddenMarkov(jnp.zeros(2), jnp.log(jnp.array([[0.7, 0.3], [0.3, 0.7]])), laws, 5)


def test_the_umbrella():
    row = Row(jnp.array([[1.0], [1.0], [0.0], [1.0], [1.0]]))
    model = umbrella()
    path, value = model.decode(row)
    assert round(float(model.log_evidence(row)), 4) == -3.3725
    assert (path.tolist(), round(float(value), 4)) == ([0, 0, 1, 0, 0], -4.4590)
    states = np.asarray(model.posterior(row).mean())[:, 0]
    np.testing.assert_allclose(states, [0.8673, 0.8204, 0.3075, 0.8204, 0.8673], atol=5e-5)


def test_the_doctor():
    laws = CodeComponents(jnp.log(jnp.array([[[0.5, 0.4, 0.1]], [[0.1, 0.3, 0.6]]])))
    model = HiddenMarkov(jnp.log(jnp.array([0.6, 0.4])), jnp.log(jnp.array([[0.7, 0.3], [0.4, 0.6]])), laws, 3)
    path, value = model.decode(Row(jnp.array([[0.0], [1.0], [2.0]])))
    assert path.tolist() == [0, 0, 1]
    assert round(float(jnp.exp(value)), 5) == 0.01512


def test_a_step_that_no_state_allows_has_minus_infinite_nats_and_no_state():
    states, norms = filtered(jnp.log(jnp.array([0.5, 0.5])), jnp.eye(2), jnp.array([[0.0, -jnp.inf], [-jnp.inf, 0.0]]))
    assert norms.tolist() == [np.log(0.5), -np.inf]
    assert states.tolist() == [[1, 0], [0, 0]]


def test_steps_far_from_every_state_do_not_underflow():
    model = model_of("diag")
    row = Row(jnp.full((T, D), 1e4))
    want = by_paths(model, row)
    close(model.log_evidence(row), want["evidence"])
    close(model.posterior(row).mean(), want["states"])


def test_learning_from_states_that_are_known_counts_them():
    batch = batch_of("diag", False)
    hot = jax.nn.one_hot(jnp.asarray(np.random.default_rng(0).integers(K, size=(N, T))), K, dtype=float)
    model = HiddenMarkov.from_responsibilities(batch, hot, model_of("diag").components)
    there = np.arange(T)[None] < np.asarray(batch.length)[:, None]
    w, z = np.asarray(batch.weight), np.asarray(hot)
    counts = 1 + sum(w[n] * np.outer(z[n, t - 1], z[n, t]) for n in range(N) for t in range(1, T) if there[n, t])
    np.testing.assert_allclose(np.exp(model.moves), counts / counts.sum(axis=1, keepdims=True), rtol=1e-9)
    share = w[:, None, None] * z * there[..., None]
    mean = np.einsum("ntk,ntd->kd", share, batch.x) / share.sum(axis=(0, 1))[:, None]
    np.testing.assert_allclose(model.components.means, mean, rtol=1e-9)


# The law of paths by itself.


def path_law() -> MarkovPath:
    rng = np.random.default_rng(2)
    return MarkovPath(jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal(size=(2, 3, 3))))


def test_the_score_function_learns_paths():
    """The mean of the estimated slopes is the slope of the mean; one correct run in 150,000 a number would fail."""
    cost = lambda z: jnp.sum(z * jnp.arange(9.0).reshape(3, 3))  # noqa: E731
    slope = jax.grad(lambda law, key: ScoreFunction()(cost, law, key=key))
    keys = jr.split(jr.key(0), 4000)
    draws = np.asarray(jax.jit(jax.vmap(lambda key: slope(path_law(), key).start))(keys))
    want = jax.grad(lambda law: jnp.sum(law.mean() * jnp.arange(9.0).reshape(3, 3)))(path_law()).start
    assert np.max(np.abs(z_scores(draws, np.asarray(want)))) < LIMIT
