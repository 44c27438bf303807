"""Models fitted by exact expectation-maximisation: a table of them times what must hold of each.

Exact means exact: what has a closed form is compared with dense linear algebra in numpy, in double precision.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import LIMIT, LOG_P, NOISE, POSTERIOR_COVARIANCE, POSTERIOR_MEAN, B, W, X, cast, row_of, z_scores
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn import decomposition, mixture
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning

from ravine._tree import Fixed, Power, trainable
from ravine.core import Row, summed
from ravine.data.generated import LOADING, fa_tutorial
from ravine.data.generated import NOISE as DEVIATIONS
from ravine.dist import FullGaussian
from ravine.gradients import Enumerate
from ravine.models.correlated_components import FullCovariance, TiedCovariance
from ravine.models.diagonal_components import DiagonalCovariance, SphericalCovariance
from ravine.models.families import Diagonal, MixtureStart, Spread
from ravine.models.linear_gaussian import DiagonalNoise, IsotropicNoise, LinearGaussian
from ravine.models.mixture import Mixture
from ravine.models.restarts import BestOf
from ravine.models.starts import nearest_seeds
from ravine.objectives import ELBO
from ravine.rules.em import EM

pytestmark = pytest.mark.usefixtures("x64")
N, D, K = 60, 4, 3

# most of the time of these tests is compilation, and most of that is optimisation for speed

# Starts: functions of a batch, a key and the ridge on fitted variances.


def mixture_of(family: Any) -> Callable[..., Mixture]:
    def start(batch: Row, key: Any, ridge: Any = 1e-6) -> Mixture:
        components = family.broad(batch, K)
        components = eqx.tree_at(lambda c: c.reg_covar, components, Fixed(jnp.asarray(ridge)))
        return Mixture.from_responsibilities(batch, nearest_seeds(batch, K, key=key), components)

    return eqx.filter_jit(start)


def factors_with(noise: Any) -> Callable[..., LinearGaussian]:
    def start(batch: Row, key: Any, ridge: Any = 1e-6) -> LinearGaussian:
        model = LinearGaussian(jr.normal(key, (D, 2)), jnp.mean(batch.x, axis=0), noise.of(jnp.ones(D)))
        return eqx.tree_at(lambda m: m.noise.floor, model, Fixed(jnp.asarray(ridge)))

    return eqx.filter_jit(start)


FAMILIES = {
    "full": FullCovariance,
    "tied": TiedCovariance,
    "diag": DiagonalCovariance,
    "spherical": SphericalCovariance,
}
MODELS: dict[str, Callable[..., Any]] = {name: mixture_of(family) for name, family in FAMILIES.items()} | {
    "factor-analysis": factors_with(DiagonalNoise),
    "probabilistic-pca": factors_with(IsotropicNoise),
}
every_model = pytest.mark.parametrize("name", MODELS)
every_family = pytest.mark.parametrize("name", FAMILIES)
with_and_without = pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])

# Data: correlated columns around three places, far from 0.


def rows(seed: int, holes: float = 0.0, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    places, mixing = 4 * rng.normal(size=(K, D)), rng.normal(size=(D, D))
    x = 10 + places[rng.integers(K, size=n)] + rng.normal(size=(n, D)) @ mixing
    return x, rng.random((n, D)) >= holes


WHOLE, EMPTY, PARTLY = 0, 3, 7  # rows of `batch_of` with all cells observed, none, and some


def batch_of(seed: int, holes: bool) -> Row:
    """Weighted rows, one of weight 0; with ``holes`` 30 % of the cells are missing."""
    x, mask = rows(seed, 0.3)
    mask[[WHOLE, EMPTY, PARTLY]] = [[True] * D, [False] * D, [True, False, True, False]]
    weight = np.random.default_rng(seed).uniform(0.5, 2, N)
    weight[5] = 0
    if not holes:
        return Row(jnp.asarray(x), weight=jnp.asarray(weight))
    return Row(jnp.asarray(np.where(mask, x, 0)), jnp.asarray(mask), weight=jnp.asarray(weight))


def measure(model: Any, batch: Row) -> dict[str, Any]:
    """Everything that is compared, compiled once per kind of model."""
    sums, total = model.expected(batch)
    by_row = jax.vmap(lambda row: (model.log_evidence(row), model.posterior(row).mean(), model.conditional(row).mean()))
    evidence, latent, completed = by_row(batch)
    return {
        "expected": (sums, total),
        "summed": summed(model, batch),
        "next": model.maximise(sums),
        "evidence": evidence,
        "latent": latent,
        "completed": completed,
    }


measured = eqx.filter_jit(measure)
iterate = eqx.filter_jit(lambda model, batch: model.maximise(model.expected(batch)[0]))
evidence = eqx.filter_jit(lambda model, batch: jax.vmap(model.log_evidence)(batch))


@functools.cache
def example(name: str) -> Any:
    """A model of every kind, moved by one iteration away from a symmetric start."""
    batch = batch_of(1, True)
    return measured(MODELS[name](batch, jr.key(1)), batch)["next"]


@eqx.filter_jit
def look(model: Any, row: Row, z: Any, value: Any) -> dict[str, Any]:
    """One row in detail: densities at every z, and at one complete value; 4000 draws."""
    law, posterior, keys = model.conditional(row), model.posterior(row), jr.split(jr.key(0), 4000)
    return {
        "joint": jax.vmap(lambda z: model.log_joint(z, row))(z),
        "posterior": jax.vmap(posterior.log_prob)(z),
        "latent": posterior.mean(),
        "prior": model.prior().mean(),
        "evidence": model.log_evidence(row),
        "completed": law.mean(),
        "log_prob": law.log_prob(value),
        "draws": jax.vmap(lambda key: law.sample(key=key))(keys),
        "rows": jax.vmap(lambda key: model.sample(key=key)[1])(keys),
    }


AXIS = np.linspace(-9, 9, 181)
GRID = np.stack(np.meshgrid(AXIS, AXIS), axis=-1).reshape(-1, 2)


@functools.cache
def looked(name: str, i: int) -> dict[str, Any]:
    """`look` at row ``i``, at every class or on a fine grid of two causes; the value is the row, holes are 9."""
    row = row_of(batch_of(2, True), i)
    z = jnp.eye(K) if name in FAMILIES else jnp.asarray(GRID)
    return look(example(name), row, z, jnp.where(row.mask, row.x, 9.0))


@eqx.filter_jit
def run(rule: EM, model: Any, batch: Row, steps: Any) -> tuple[Any, Any, dict[str, Any]]:
    """``steps`` passes over one batch; the model, the rule's state and the metrics of at most 100 passes, else 0."""
    arrays, static = eqx.partition((model, rule.init(model, batch, key=jr.key(0))), eqx.is_array)

    def one(step: Any, carry: Any) -> Any:
        arrays, history = carry
        model, state = eqx.combine(arrays, static)
        model, state, metrics = rule.step(model, state, batch, key=jr.key(0), step=step)
        history = {name: history[name].at[step].set(value, mode="drop") for name, value in metrics.items()}
        return eqx.filter((model, state), eqx.is_array), history

    start = arrays, {"objective": jnp.zeros(100), "stopped": jnp.zeros(100, bool), "undone": jnp.zeros(100, int)}
    arrays, history = jax.lax.fori_loop(0, steps, one, start)
    return *eqx.combine(arrays, static), {name: value[:100] for name, value in history.items()}


def fitted(rule: EM, model: Any, batch: Row, steps: int) -> tuple[Any, dict[str, np.ndarray]]:
    """`run`, without compiling again for another tolerance or another number of steps."""
    rule = jax.tree.map(lambda leaf: jnp.asarray(leaf, float) if isinstance(leaf, float) else leaf, rule)
    model, _, history = run(rule, model, batch, jnp.asarray(steps))
    return model, {name: np.asarray(value)[:steps] for name, value in history.items()}


def gaussians(model: Any) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Log weight, mean and dense covariance of each Gaussian that a model is made of."""
    if isinstance(model, LinearGaussian):
        loading = np.asarray(model.loading)
        return [(0.0, np.asarray(model.bias), loading @ loading.T + np.diag(np.asarray(model.noise_scale()) ** 2))]
    laws = [model.components.law(z) for z in jnp.eye(K)]
    full = lambda law: law.factor @ law.factor.T if isinstance(law, FullGaussian) else jnp.diag(law.scale**2)  # noqa: E731
    log_weights = jax.nn.log_softmax(model.logits)
    return [(float(w), np.asarray(d.mean()), np.asarray(full(d))) for w, d in zip(log_weights, laws, strict=True)]


def dense(model: Any, x: np.ndarray, seen: np.ndarray) -> tuple[float, np.ndarray]:
    """log p(observed cells) and E[x | observed cells], by inverting covariance blocks."""
    logs, means = [], []
    for log_weight, mean, covariance in gaussians(model):
        block = covariance[np.ix_(seen, seen)]
        gain = covariance[:, seen] @ np.linalg.inv(block)
        density = multivariate_normal(mean[seen], block).logpdf(x[seen]) if seen.any() else 0.0
        logs.append(log_weight + density)
        means.append(mean + gain @ (x - mean)[seen])
    total = logsumexp(logs)
    return total, np.where(seen, x, np.exp(logs - total) @ np.asarray(means))


def close(got: Any, want: Any, size: float) -> None:
    """All numbers of two trees agree within ``size`` times (1 + the largest of their array)."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        assert np.max(np.abs(a - b), initial=0) <= size * (1 + np.max(np.abs(b), initial=0))


# What holds of every model.


@every_model
@with_and_without
def test_matrix_products_equal_the_sum_over_rows(name, holes):
    found = measured(example(name), batch_of(2, holes))
    close(found["expected"], found["summed"], 1e-10)


@every_model
def test_a_mask_without_holes_changes_nothing(name):
    batch = batch_of(2, False)
    ones = Row(batch.x, jnp.ones((N, D), bool), weight=batch.weight)
    close(measured(example(name), ones), measured(example(name), batch), 1e-10)


@every_model
def test_em_never_falls(name):
    """Ten data sets, complete and with 30 % missing, without and with the usual ridge: 40 problems at once.

    The ridge of a mixture is scikit-learn's, added after the maximisation; no penalty makes that step exact, so the
    likelihood may fall by its square. The floor of factor analysis is exact.
    """
    cases = [(seed, holes, ridge) for seed in range(10) for holes in (0.0, 0.3) for ridge in (0.0, 1e-6)]
    x, mask = (np.stack(part) for part in zip(*(rows(seed, holes, 150) for seed, holes, _ in cases), strict=True))
    batch = Row(jnp.asarray(np.where(mask, x, 0)), jnp.asarray(mask))
    keys = jr.split(jr.key(0), len(cases))
    ridges = jnp.asarray([ridge for _, _, ridge in cases])
    fit = lambda batch, key, ridge: run(EM(tol=-jnp.inf), MODELS[name](batch, key, ridge), batch, 25)  # noqa: E731
    history = np.asarray(eqx.filter_jit(jax.vmap(fit))(batch, keys, ridges)[2]["objective"])[:, :25]
    assert np.isfinite(history).all()
    assert (np.diff(history, axis=1) >= -1e-9 * np.abs(history[:, 1:])).all()
    assert np.median(history[:, -1] - history[:, 0]) > 1e-3


@every_model
@with_and_without
def test_evidence_and_completion_are_those_of_the_dense_law(name, holes):
    batch = batch_of(2, holes)
    seen = np.asarray(batch.mask) if holes else np.ones((N, D), bool)
    each = [dense(example(name), *pair) for pair in zip(np.asarray(batch.x), seen, strict=True)]
    logs, means = zip(*each, strict=True)
    found = measured(example(name), batch)
    close(found["evidence"], np.array(logs), 1e-10)
    close(found["completed"], np.array(means), 1e-10)
    assert (np.asarray(found["completed"])[seen] == np.asarray(batch.x)[seen]).all()


@every_model
def test_evidence_integrates_the_joint_and_the_posterior_is_exact(name):
    """By the sum over classes, or on a fine grid over two causes; log p(x, z) - log p(z | x) is log p(x) at any z."""
    found = looked(name, PARTLY)
    cell = 1.0 if name in FAMILIES else (AXIS[1] - AXIS[0]) ** 2
    assert logsumexp(found["joint"]) + np.log(cell) == pytest.approx(float(found["evidence"]), abs=1e-8)
    rest = found["joint"] - found["posterior"] - found["evidence"]
    assert np.max(np.abs(rest) / (1 + np.abs(found["joint"]))) < 1e-10


@every_model
def test_a_row_without_observed_cells_scores_exactly_zero(name):
    found, batch = looked(name, EMPTY), batch_of(2, True)
    assert float(found["evidence"]) == 0.0
    alone = eqx.tree_at(lambda b: b.weight, batch, jnp.zeros(N).at[EMPTY].set(2.0))
    assert float(measured(example(name), alone)["expected"][1]) == 0.0
    close(found["latent"], found["prior"], 1e-12)
    close(found["completed"], dense(example(name), np.zeros(D), np.zeros(D, bool))[1], 1e-10)


@every_model
@pytest.mark.parametrize("hidden", [np.nan, 1e30])
def test_what_is_missing_cannot_be_seen(name, hidden):
    """Neither in its own row nor in any other."""
    batch = batch_of(2, True)
    other = eqx.tree_at(lambda b: b.x, batch, jnp.where(batch.mask, batch.x, hidden))
    close(measured(example(name), other), measured(example(name), batch), 0)


@every_model
@with_and_without
def test_a_whole_weight_is_that_many_rows(name, holes):
    batch, counts = batch_of(2, holes), np.tile([0, 1, 2], N // 3)
    weighted = eqx.tree_at(lambda b: b.weight, batch, jnp.asarray(counts, float))
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, counts, axis=0), batch)
    repeated = eqx.tree_at(lambda b: b.weight, repeated, jnp.ones(N))
    one, other = (measured(example(name), b) for b in (weighted, repeated))
    close((one["expected"], one["next"]), (other["expected"], other["next"]), 1e-10)


@every_model
def test_a_row_alone_is_as_among_others(name):
    among = measured(example(name), batch_of(2, True))
    for i in (WHOLE, EMPTY, PARTLY):
        alone = looked(name, i)
        for part in ("evidence", "latent", "completed"):
            close(among[part][i], alone[part], 1e-12)


@every_model
def test_draws_given_a_row_hold_what_is_observed(name):
    found, row = looked(name, PARTLY), row_of(batch_of(2, True), PARTLY)
    x, seen = np.asarray(row.x), np.asarray(row.mask)
    draws = np.asarray(found["draws"])
    assert (draws[:, seen] == x[seen]).all()
    assert np.max(np.abs(z_scores(draws[:, ~seen], np.asarray(found["completed"])[~seen]))) < LIMIT
    # p(missing | observed) p(observed) = p(all)
    joint = dense(example(name), np.where(seen, x, 9.0), np.ones(D, bool))[0]
    assert float(found["log_prob"] + found["evidence"]) == pytest.approx(joint, rel=1e-10)
    whole = looked(name, WHOLE)
    assert np.ptp(whole["draws"], axis=0).max() == 0.0 and float(whole["log_prob"]) == 0.0


@every_model
def test_draws_have_the_moments_of_the_dense_law(name):
    parts = gaussians(example(name))
    mean = sum(np.exp(w) * m for w, m, _ in parts)
    second = sum(np.exp(w) * (c + np.outer(m - mean, m - mean)) for w, m, c in parts)
    for i, part in ((WHOLE, "rows"), (EMPTY, "draws")):
        x = np.asarray(looked(name, i)[part]) - mean
        products = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
        assert np.max(np.abs(z_scores(np.hstack([x, products]), np.hstack([np.zeros(D), second.ravel()])))) < LIMIT


@pytest.mark.parametrize("name", ["full", "diag", "factor-analysis"])
def test_gradients_pass_holes(name):
    batch = batch_of(2, True)
    batch = eqx.tree_at(lambda b: b.x, batch, jnp.where(batch.mask, batch.x, jnp.nan))
    parameters, rest = trainable(example(name))
    total = lambda parameters: jnp.sum(jax.vmap(eqx.combine(parameters, rest).log_evidence)(batch))  # noqa: E731
    for leaf in jax.tree.leaves(eqx.filter_jit(jax.grad(total))(parameters)):
        assert jnp.isfinite(leaf).all() and jnp.any(leaf != 0)


# The rule.


def test_passes_in_batches_equal_passes_over_all():
    batch = batch_of(4, True)
    start = example("full")
    whole, history = fitted(EM(tol=0.0), start, batch, 3)
    parts = jax.tree.map(lambda leaf: leaf.reshape(4, N // 4, *leaf.shape[1:]), batch)
    rule, model, objective = EM(tol=0.0, batches=jnp.array(4), block=7), start, []
    state = rule.init(model, row_of(parts, 0), key=jr.key(0))
    one = eqx.filter_jit(lambda model, state, batch, step: rule.step(model, state, batch, key=jr.key(0), step=step))
    for step in range(12):
        model, state, report = one(model, state, row_of(parts, step % 4), jnp.array(step))
        objective.append(float(report["objective"]))
        if step < 3:
            close(model, start, 0)
    close(model, whole, 1e-10)
    close(np.array(objective[3::4]), history["objective"], 1e-10)


def test_blocks_change_nothing():
    batch, start = batch_of(2, True), example("full")
    close(fitted(EM(block=7), start, batch, 2)[0], fitted(EM(), start, batch, 2)[0], 1e-10)


def test_online_em_comes_near_batch_em():
    x = jnp.asarray(rows(5, n=2000)[0])
    start = MODELS["diag"](Row(x[:N]), jr.key(0))
    best, _ = fitted(EM(tol=0.0), start, Row(x), 100)
    rule, order = EM(rate=Power(-0.6)), jr.permutation(jr.key(1), jnp.tile(jnp.arange(2000), 10)).reshape(-1, 50)

    @eqx.filter_jit
    def online(model):
        state = rule.init(model, Row(x[:50]), key=jr.key(0))

        def one(carry, step):
            model, state, metrics = rule.step(*carry, Row(x[order[step]]), key=jr.key(0), step=step)
            return (model, state), metrics["stopped"]

        return jax.lax.scan(one, (model, state), jnp.arange(len(order)))

    (model, _), stopped = online(start)
    score = lambda model: float(evidence(model, Row(x)).mean())  # noqa: E731
    assert score(start) < score(best) - 0.02
    assert score(best) - score(model) < 0.005
    assert not np.any(stopped)


def test_the_first_online_step_is_a_batch_step_and_the_next_are_not():
    batch, start = batch_of(2, True), example("diag")
    first, _ = fitted(EM(rate=0.25), start, batch, 1)
    close(first, measured(start, batch)["next"], 1e-10)
    (a, _), (b, _) = measured(start, batch)["expected"][0], measured(first, batch)["expected"][0]
    counts = 0.75 * a + 0.25 * b
    second, _ = fitted(EM(rate=0.25), start, batch, 2)
    close(jax.nn.softmax(second.logits), counts / jnp.sum(counts), 1e-10)


def test_a_rule_that_stopped_leaves_the_model_alone():
    batch, start = batch_of(4, True), example("full")
    model, history = fitted(EM(tol=0.01), start, batch, 30)
    last = int(np.argmax(history["stopped"]))
    rises = np.diff(history["objective"])
    assert 1 < last < 28 and history["stopped"][last:].all()
    assert (rises[: last - 1] >= 0.01).all() and rises[last - 1] < 0.01
    close(model, fitted(EM(tol=0.01), start, batch, last + 1)[0], 0)
    assert float(jnp.max(jnp.abs(measured(model, batch)["next"].components.means - model.components.means))) > 1e-6


def test_other_numbers_do_not_compile_again():
    traced = []

    @eqx.filter_jit
    def one(rule, model, batch):
        traced.append(1)
        return rule.step(model, rule.init(model, batch, key=jr.key(0)), batch, key=jr.key(0), step=jnp.array(0))[0]

    batch = batch_of(2, True)
    for tol, seed in ((1e-3, 1), (0.5, 2), (0.0, 3)):
        one(EM(jnp.asarray(tol)), MODELS["diag"](batch, jr.key(seed), jnp.asarray(tol)), batch)
    assert len(traced) == 1


# Mixtures.


@every_family
def test_equals_scikit_learn(name):
    """From the same weights, means and covariances: after 7 passes, and on the pass where learning stops."""
    x = rows(6)[0]
    batch = Row(jnp.asarray(x), weight=jnp.ones(N))
    start = example(name)
    parts = gaussians(start)
    covariances = np.stack([c for _, _, c in parts])
    diagonals = np.einsum("kii->ki", covariances)
    shaped = {"full": covariances, "tied": covariances[0], "diag": diagonals, "spherical": diagonals[:, 0]}
    precision = np.linalg.inv(shaped[name]) if name in ("full", "tied") else 1 / shaped[name]
    given = {"weights_init": np.exp([w for w, _, _ in parts]), "means_init": np.stack([m for _, m, _ in parts])}
    given |= {"precisions_init": precision, "n_components": K, "covariance_type": name}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = mixture.GaussianMixture(tol=0, max_iter=7, **given).fit(x)
        stopping = mixture.GaussianMixture(tol=1e-3, **given).fit(x)
    ours, history = fitted(EM(tol=-1.0), start, batch, 7)
    assert history["objective"] == pytest.approx(np.array(theirs.lower_bounds_), abs=1e-6)
    close(jax.nn.softmax(ours.logits), theirs.weights_, 1e-6)
    means, covariances = (np.stack(part) for part in zip(*((m, c) for _, m, c in gaussians(ours)), strict=True))
    close(means, theirs.means_, 1e-6)
    shapes = {"full": lambda c: c, "tied": lambda c: np.tile(c, (K, 1, 1)), "diag": lambda c: c[:, :, None] * np.eye(D)}
    close(covariances, shapes.get(name, lambda c: c[:, None, None] * np.eye(D))(theirs.covariances_), 1e-6)
    close(evidence(ours, batch), theirs.score_samples(x), 1e-6)
    stopped = fitted(EM(tol=1e-3), start, batch, 100)[1]["stopped"]
    assert int(np.argmax(stopped)) + 1 == stopping.n_iter_ > 3


def test_means_are_recovered_through_holes():
    rng = np.random.default_rng(0)
    truth = np.array([[0.0, 0, 0, 0], [6, 6, 0, 0], [0, 6, 6, 6]]) + 100
    x, mask = truth[rng.integers(3, size=900)] + rng.normal(size=(900, 4)), rng.random((900, 4)) > 0.3
    batch = Row(jnp.asarray(np.where(mask, x, 0)), jnp.asarray(mask))
    model, _ = fitted(EM(), MODELS["full"](batch, jr.key(0)), batch, 40)
    found = np.asarray(model.components.means)
    order = np.argmin(np.linalg.norm(found[:, None] - truth[None], axis=-1), axis=0)
    assert sorted(order) == [0, 1, 2]
    assert np.max(np.abs(found[order] - truth)) < 0.3


@every_family
def test_single_precision_far_from_zero(name):
    """Columns of spread 1 at 1000: one iteration in float32 agrees with float64 to a few units of its last place."""
    x = (rows(7)[0] * 0.3 + 1000).astype(np.float32)
    batch = Row(jnp.asarray(x, float), weight=jnp.ones(N))
    start = MODELS[name](Row(batch.x, jnp.ones((N, D), bool), weight=batch.weight), jr.key(0))
    start = cast(cast(start, jnp.float32), float)
    want = measured(start, batch)["next"]
    got = iterate(cast(start, jnp.float32), cast(batch, jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype("float32")}
    for (_, m32, c32), (_, m64, c64) in zip(gaussians(got), gaussians(want), strict=True):
        assert np.max(np.abs(m32 - m64)) < 3e-4 and np.max(np.abs(c32 - c64)) < 1e-3 * np.max(c64)


@every_family
def test_a_component_without_rows_keeps_its_law(name):
    model, batch = example(name), batch_of(2, False)
    model = eqx.tree_at(lambda m: m.components.means, model, model.components.means.at[2].set(1e6))
    after = measured(model, batch)["next"]
    close(after.components.means[2], model.components.means[2], 1e-14)
    assert float(jax.nn.softmax(after.logits)[2]) < 1e-15
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


@every_family
def test_a_degenerate_component_keeps_its_covariance(name):
    """Six equal rows have no spread, and nothing is added to it."""
    x = jnp.asarray(rows(9)[0]).at[:6].set(50.0)
    batch = Row(x, weight=jnp.ones(N))
    model = eqx.tree_at(lambda m: m.components.reg_covar, example(name), Fixed(jnp.array(0.0)))
    model = eqx.tree_at(lambda m: m.components.means, model, model.components.means.at[0].set(50.0))
    for _ in range(3):
        found = measured(model, batch)
        model = found["next"]
        assert np.isfinite(found["evidence"]).all()
    close(model.components.means[0], jnp.full(D, 50.0), 1e-10)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(model))


@every_family
def test_a_soft_class_has_the_mixed_mean(name):
    z = jnp.array([0.2, 0.5, 0.3])
    close(example(name).likelihood(z).mean(), z @ example(name).components.means, 1e-12)


def test_the_bound_summed_over_classes_is_the_likelihood():
    batch = batch_of(2, True)
    parameters, rest = trainable(example("diag"))
    share = batch.weight / jnp.sum(batch.weight)
    bound = lambda p: ELBO(Enumerate())(eqx.combine(p, rest), batch, key=jr.key(0))[0]  # noqa: E731
    exact = lambda p: -share @ jax.vmap(eqx.combine(p, rest).log_evidence)(batch)  # noqa: E731
    close(*(eqx.filter_jit(jax.value_and_grad(loss))(parameters) for loss in (bound, exact)), 1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mixture(jnp.zeros(2), DiagonalCovariance(jnp.zeros((3, 1)), jnp.ones((3, 1)))),
        lambda: DiagonalCovariance(jnp.zeros((3, 1)), jnp.ones((3, 2))),
        lambda: SphericalCovariance(jnp.zeros((3, 1)), jnp.ones(2)),
        lambda: FullCovariance(jnp.zeros((3, 2)), jnp.ones((3, 3, 3))),
        lambda: TiedCovariance(jnp.zeros((3, 2)), jnp.ones((3, 3))),
        lambda: LinearGaussian(jnp.zeros((3, 2)), jnp.zeros(2), DiagonalNoise(jnp.ones(3))),
    ],
)
def test_parameters_that_do_not_fit_together_are_refused(make):
    with pytest.raises(ValueError, match="needs"):
        make()


# Factor analysis.


def test_golden_linear_gaussian():
    for noise in (DiagonalNoise(jnp.full(3, NOISE**0.5)), IsotropicNoise(jnp.array(NOISE**0.5))):
        model, row = LinearGaussian(jnp.asarray(W), jnp.asarray(B), noise), Row(jnp.asarray(X))
        posterior = model.posterior(row).distribution
        assert float(model.log_evidence(row)) == pytest.approx(LOG_P, abs=1e-10)
        assert np.asarray(posterior.mean()) == pytest.approx(POSTERIOR_MEAN, abs=1e-8)
        assert np.asarray(posterior.factor @ posterior.factor.T) == pytest.approx(POSTERIOR_COVARIANCE, abs=1e-8)


def test_the_tutorial_data():
    """Yang 2022, arXiv:2208.07818: evidence of the true model, and the ceiling of every zero-mean Gaussian."""
    data, ceiling = fa_tutorial(), -3.932797511923263
    train, test = Row(jnp.asarray(data.train)), Row(jnp.asarray(data.test))
    truth = LinearGaussian(jnp.asarray(LOADING), Fixed(jnp.zeros(3)), DiagonalNoise(jnp.asarray(DEVIATIONS)))
    assert float(evidence(truth, test).mean()) == pytest.approx(-3.970451758801384, abs=1e-10)
    assert float(evidence(truth, train).mean()) == pytest.approx(-3.934836900537360, abs=1e-10)
    start = LinearGaussian(jr.normal(jr.key(0), (3, 2)), Fixed(jnp.zeros(3)), DiagonalNoise(jnp.ones(3)))
    model, _ = fitted(EM(tol=1e-12), start, train, 2000)
    assert not np.any(np.asarray(model.bias.value))
    reached = float(evidence(model, train).mean())
    assert ceiling - 1e-4 < reached <= ceiling + 1e-12


@pytest.mark.parametrize("causes", [1, 3])
def test_reaches_scikit_learn_on_wine(causes):
    x = load_wine().data
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    theirs = decomposition.FactorAnalysis(causes, tol=1e-10, max_iter=20_000).fit(x).score(x)
    batch = Row(jnp.asarray(x))
    model, _ = fitted(EM(tol=1e-9), LinearGaussian.from_moments(batch, causes), batch, 600)
    ours = float(evidence(model, batch).mean())
    assert ours == pytest.approx(theirs, rel=1e-4) and ours >= theirs - 1e-5 * abs(theirs)


def test_probabilistic_pca_reaches_its_closed_form():
    """Tipping & Bishop 1999, equations 7 and 8, on data with more columns than causes."""
    x = rows(10)[0]
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    rest = values[2:].mean()
    best = -0.5 * (np.log(values[:2]).sum() + 2 * np.log(rest) + D * (1 + np.log(2 * np.pi)))
    batch = Row(jnp.asarray(x), weight=jnp.ones(N))
    model, _ = fitted(EM(tol=-1.0), LinearGaussian.from_moments(batch, 2, IsotropicNoise), batch, 300)
    assert float(evidence(model, batch).mean()) == pytest.approx(best, rel=1e-8)
    assert float(jnp.abs(model.noise.scales)) ** 2 == pytest.approx(rest, rel=1e-4)


@pytest.mark.slow
def test_a_constant_column_and_one_never_seen():
    """The first gets the smallest noise allowed, the second keeps what it had."""
    x, mask = rows(11, 0.2)
    x[:, 1], mask[:, 2] = 7.0, False
    batch = Row(jnp.asarray(np.where(mask, x, 0)), jnp.asarray(mask))
    start = LinearGaussian.from_moments(batch, 2)
    model, history = fitted(EM(tol=-1.0), start, batch, 25)
    assert np.isfinite(history["objective"]).all()
    scale, law = np.asarray(model.noise_scale()), model.conditional(row_of(batch, 0))
    assert scale[1] == pytest.approx(1e-3) and scale[2] == start.noise_scale()[2]
    assert np.isfinite(np.asarray(law.mean())).all()


@pytest.mark.slow
def test_fixed_bias_stays_and_free_bias_moves():
    batch = batch_of(2, True)
    free = example("factor-analysis")
    held = LinearGaussian(free.loading, Fixed(free.bias), free.noise)
    close(fitted(EM(), held, batch, 1)[0].bias.value, free.bias, 0)
    assert float(jnp.max(jnp.abs(measured(free, batch)["next"].bias - free.bias))) > 1e-3
    assert (np.diff(fitted(EM(tol=-1.0), held, batch, 25)[1]["objective"]) > -1e-9).all()


def test_the_best_of_several_starts_is_as_good_as_the_best_alone():
    """Each start is learned from to its end; a start on a group of its own finds less than all."""
    batch = batch_of(4, True)
    start = MixtureStart(Spread(), Diagonal(), 4)
    ends = []
    for key in jr.split(jr.key(3), 6):
        model, before = start(batch, key=key), -np.inf
        for _ in range(300):
            now = float(batch.weight @ evidence(model, batch)) / float(jnp.sum(batch.weight))
            if now - before < 1e-6:
                break
            model, before = iterate(model, batch), now
        ends.append(now)
    best = eqx.filter_jit(BestOf(start, 6, 1e-6, 300))(batch, key=jr.key(3))
    found = float(batch.weight @ evidence(best, batch)) / float(jnp.sum(batch.weight))
    assert max(ends) > min(ends) + 1e-3
    np.testing.assert_allclose(found, max(ends), atol=1e-6)


def test_one_start_is_as_it_was():
    batch, start = batch_of(4, True), MixtureStart(Spread(), Diagonal(), 4)
    assert eqx.tree_equal(BestOf(start)(batch, key=jr.key(3)), start(batch, key=jr.key(3)))
