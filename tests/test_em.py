"""Models fitted by exact expectation-maximisation: a table of them times what must hold of each.

Exact means exact: what has a closed form is compared with dense linear algebra in numpy, in double precision.
"""

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

from ravine._tree import Fixed, Power
from ravine.core import Row, summed
from ravine.data.generated import LOADING, fa_tutorial
from ravine.data.generated import NOISE as DEVIATIONS
from ravine.dist import FullGaussian
from ravine.gradients import Enumerate
from ravine.models.correlated_components import FullCovariance, TiedCovariance
from ravine.models.diagonal_components import DiagonalCovariance, SphericalCovariance
from ravine.models.linear_gaussian import DiagonalNoise, IsotropicNoise, LinearGaussian
from ravine.models.mixture import Mixture
from ravine.models.starts import nearest_seeds
from ravine.objectives import ELBO
from ravine.rules.em import EM

pytestmark = pytest.mark.usefixtures("x64")
N, D, K = 40, 4, 3

# Starts: functions of a batch, a key and the ridge on fitted variances.


def mixture_of(family: Any) -> Callable[..., Mixture]:
    def start(batch: Row, key: Any, ridge: Any = 1e-6) -> Mixture:
        components = family.broad(batch, K)
        components = eqx.tree_at(lambda c: c.reg_covar, components, Fixed(jnp.asarray(ridge)))
        return Mixture.from_responsibilities(batch, nearest_seeds(batch, K, key=key), components)

    return start


def factors_with(noise: Any) -> Callable[..., LinearGaussian]:
    def start(batch: Row, key: Any, ridge: Any = 1e-6) -> LinearGaussian:
        model = LinearGaussian(jr.normal(key, (D, 2)), jnp.mean(batch.x, axis=0), noise.of(jnp.ones(D)))
        return eqx.tree_at(lambda m: m.noise.floor, model, Fixed(jnp.asarray(ridge)))

    return start


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
with_and_without = pytest.mark.parametrize("holes", [False, True], ids=["complete", "holes"])

# Data: correlated columns around three places, far from 0.


def rows(seed: int, holes: float = 0.0, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    places, mixing = 4 * rng.normal(size=(K, D)), rng.normal(size=(D, D))
    x = 10 + places[rng.integers(K, size=n)] + rng.normal(size=(n, D)) @ mixing
    return x, rng.random((n, D)) >= holes


def batch_of(seed: int, holes: bool) -> Row:
    """With ``holes``: 30 % missing, a row without any cell, and weights, one of them 0."""
    x, mask = rows(seed, 0.3)
    if not holes:
        return Row(jnp.asarray(x))
    mask[3] = False
    weight = np.random.default_rng(seed).uniform(0.5, 2, N)
    weight[5] = 0
    return Row(jnp.asarray(np.where(mask, x, 0)), jnp.asarray(mask), weight=jnp.asarray(weight))


expected = eqx.filter_jit(lambda model, batch: model.expected(batch))
iterate = eqx.filter_jit(lambda model, batch: model.maximise(model.expected(batch)[0]))
by_row = eqx.filter_jit(summed)
evidence = eqx.filter_jit(lambda model, batch: jax.vmap(model.log_evidence)(batch))


def example(name: str) -> Any:
    """A model of every kind, moved by one iteration away from symmetric starts; made once."""
    if name not in EXAMPLES:
        batch = batch_of(1, True)
        EXAMPLES[name] = iterate(MODELS[name](batch, jr.key(1)), batch)
    return EXAMPLES[name]


EXAMPLES: dict[str, Any] = {}


@eqx.filter_jit
def run(rule: EM, model: Any, batch: Row, steps: int) -> tuple[Any, Any, dict[str, Any]]:
    """``steps`` passes over one batch; the model, the rule's state and the metrics of each pass."""
    arrays, static = eqx.partition((model, rule.init(model, batch, key=jr.key(0))), eqx.is_array)

    def one(arrays: Any, step: Any) -> tuple[Any, Any]:
        model, state = eqx.combine(arrays, static)
        model, state, metrics = rule.step(model, state, batch, key=jr.key(0), step=step)
        return eqx.filter((model, state), eqx.is_array), metrics

    arrays, metrics = jax.lax.scan(one, arrays, jnp.arange(steps))
    return *eqx.combine(arrays, static), metrics


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
    batch = batch_of(2, holes)
    close(expected(example(name), batch), by_row(example(name), batch), 1e-10)


@every_model
def test_a_mask_without_holes_changes_nothing(name):
    batch = batch_of(2, False)
    ones = Row(batch.x, jnp.ones((N, D), bool), weight=jnp.ones(N))
    close(expected(example(name), ones), expected(example(name), batch), 1e-10)


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
    fit = lambda batch, key, ridge: run(EM(tol=-jnp.inf), MODELS[name](batch, key, ridge), batch, 25)[2]["objective"]  # noqa: E731
    history = np.asarray(eqx.filter_jit(jax.vmap(fit))(batch, keys, ridges))
    assert np.isfinite(history).all()
    rise = np.diff(history, axis=1) / np.abs(history[:, :-1])
    assert (rise >= -1e-9).all()
    assert np.median(history[:, -1] - history[:, 0]) > 1e-3


@every_model
def test_log_evidence_is_that_of_the_dense_marginal(name):
    batch = batch_of(2, True)
    want = [dense(example(name), *pair)[0] for pair in zip(np.asarray(batch.x), np.asarray(batch.mask), strict=True)]
    close(evidence(example(name), batch), np.array(want), 1e-10)
    complete = Row(jnp.asarray(rows(2)[0]))
    want = [dense(example(name), x, np.ones(D, bool))[0] for x in np.asarray(complete.x)]
    close(evidence(example(name), complete), np.array(want), 1e-10)


@every_model
def test_log_evidence_integrates_the_joint(name):
    """The sum over classes, or a fine grid over two causes."""
    model, row = example(name), row_of(batch_of(2, True), 0)
    axis = np.linspace(-9, 9, 241)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    z, cell = (jnp.eye(K), 1.0) if name in FAMILIES else (jnp.asarray(grid), (axis[1] - axis[0]) ** 2)
    joint = np.asarray(jax.vmap(lambda z: model.log_joint(z, row))(z))
    assert logsumexp(joint) + np.log(cell) == pytest.approx(float(model.log_evidence(row)), abs=1e-8)


@every_model
@with_and_without
def test_the_posterior_is_exact(name, holes):
    """log p(x, z) - log p(z | x) is log p(x) whatever z."""
    model, row = example(name), row_of(batch_of(2, holes), 0)
    z = jnp.eye(K) if name in FAMILIES else jr.normal(jr.key(0), (5, 2))
    rest = jax.vmap(lambda z: model.log_joint(z, row) - model.posterior(row).log_prob(z))(z)
    close(rest, jnp.full(len(z), model.log_evidence(row)), 1e-10)


@every_model
def test_a_row_without_observed_cells_scores_exactly_zero(name):
    empty = row_of(batch_of(2, True), 3)
    model = example(name)
    assert float(model.log_evidence(empty)) == 0.0
    batch = Row(empty.x[None], empty.mask[None])
    assert float(model.expected(batch)[1]) == 0.0
    close(model.posterior(empty).mean(), model.prior().mean(), 1e-12)
    close(model.conditional(empty).mean(), dense(model, np.zeros(D), np.zeros(D, bool))[1], 1e-10)


@every_model
def test_what_is_missing_in_a_row_cannot_be_seen(name):
    """Not in that row, and not in any other, be it NaN or a number."""
    batch = batch_of(2, True)
    for hidden in (jnp.nan, 1e30):
        other = eqx.tree_at(lambda b: b.x, batch, jnp.where(batch.mask, batch.x, hidden))
        close(evidence(example(name), other), evidence(example(name), batch), 0)
        close(expected(example(name), other), expected(example(name), batch), 0)


@every_model
@with_and_without
def test_a_whole_weight_is_that_many_rows(name, holes):
    batch, counts = batch_of(2, holes), np.arange(N) % 4
    weighted = eqx.tree_at(lambda b: b.weight, batch, jnp.asarray(counts, float), is_leaf=lambda leaf: leaf is None)
    bare = eqx.tree_at(lambda b: b.weight, batch, None, is_leaf=lambda leaf: leaf is None)
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, counts, axis=0), bare)
    close(iterate(example(name), weighted), iterate(example(name), repeated), 1e-10)
    close(expected(example(name), weighted), expected(example(name), repeated), 1e-10)


@every_model
def test_conditional_is_that_of_the_dense_law_and_holds_what_is_observed(name):
    model, batch = example(name), batch_of(2, True)
    row = row_of(batch, int(np.argmin(np.abs(np.asarray(batch.mask).sum(axis=1) - 2))))
    x, seen = np.asarray(row.x), np.asarray(row.mask)
    law = model.conditional(row)
    close(law.mean(), dense(model, x, seen)[1], 1e-10)
    draws = np.asarray(jax.vmap(lambda key: law.sample(key=key))(jr.split(jr.key(0), 4000)))
    assert (draws[:, seen] == x[seen]).all()
    assert np.max(np.abs(z_scores(draws[:, ~seen], np.asarray(law.mean())[~seen]))) < LIMIT
    # p(missing | observed) p(observed) = p(all), at any value of the missing cells
    for draw in draws[:3]:
        joint = law.log_prob(jnp.asarray(draw)) + model.log_evidence(row)
        assert float(joint) == pytest.approx(dense(model, draw, np.ones(D, bool))[0], abs=1e-8)
    whole = model.conditional(Row(row.x))
    assert (np.asarray(whole.sample(key=jr.key(0))) == x).all() and float(whole.log_prob(row.x)) == 0.0


@every_model
def test_a_batch_is_its_rows(name):
    model, batch = example(name), batch_of(2, True)
    together = jax.vmap(
        lambda row: (model.log_evidence(row), model.posterior(row).mean(), model.conditional(row).mean())
    )(batch)
    for i in (0, 3):
        row = row_of(batch, i)
        alone = model.log_evidence(row), model.posterior(row).mean(), model.conditional(row).mean()
        close(jax.tree.map(lambda leaf: leaf[i], together), alone, 1e-12)


@every_model
def test_draws_have_the_moments_of_the_dense_law(name):
    model, parts = example(name), gaussians(example(name))
    mean = sum(np.exp(w) * m for w, m, _ in parts)
    second = sum(np.exp(w) * (c + np.outer(m - mean, m - mean)) for w, m, c in parts)
    x = np.asarray(jax.vmap(lambda key: model.sample(key=key)[1])(jr.split(jr.key(0), 4000))) - mean
    products = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    assert np.max(np.abs(z_scores(np.hstack([x, products]), np.hstack([np.zeros(D), second.ravel()])))) < LIMIT


@every_model
def test_gradients_pass_holes(name):
    batch = batch_of(2, True)
    batch = eqx.tree_at(lambda b: b.x, batch, jnp.where(batch.mask, batch.x, jnp.nan))
    gradient = eqx.filter_jit(eqx.filter_grad(lambda model: jnp.sum(jax.vmap(model.log_evidence)(batch))))(
        example(name)
    )
    assert all(
        jnp.isfinite(leaf).all() and jnp.any(leaf != 0) for leaf in jax.tree.leaves((gradient,)) if leaf.size > 1
    )


# The rule.


def test_passes_in_batches_equal_passes_over_all():
    x, mask = rows(4, 0.3)
    batch = Row(jnp.asarray(np.where(mask, x, 0)), jnp.asarray(mask))
    start = MODELS["full"](batch, jr.key(2))
    whole, _, metrics = run(EM(tol=0.0), start, batch, 3)
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
    close(np.array(objective[3::4]), metrics["objective"], 1e-10)


def test_blocks_change_nothing():
    batch = batch_of(2, True)
    start = example("full")
    close(run(EM(block=7), start, batch, 2)[0], run(EM(), start, batch, 2)[0], 1e-10)


def test_online_em_comes_near_batch_em():
    x = jnp.asarray(rows(5, n=2000)[0])
    start = MODELS["diag"](Row(x[:N]), jr.key(0))
    best, _, _ = run(EM(tol=0.0), start, Row(x), 100)
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
    assert score(start) < score(best) - 0.1
    assert score(best) - score(model) < 0.01
    assert not np.any(stopped)


def test_the_first_online_step_is_a_batch_step():
    batch = batch_of(2, True)
    close(run(EM(rate=0.1), example("full"), batch, 1)[0], iterate(example("full"), batch), 1e-10)


def test_a_rule_that_stopped_leaves_the_model_alone():
    batch = Row(jnp.asarray(rows(2)[0]))
    _, _, metrics = run(EM(tol=0.05), example("full"), batch, 30)
    objective, stopped = np.asarray(metrics["objective"]), np.asarray(metrics["stopped"])
    last = int(np.argmax(stopped))
    assert 1 < last < 28 and stopped[last:].all()
    assert (np.diff(objective[: last + 1]) >= [0.05] * (last - 1) + [0]).all() and objective[last] - objective[
        last - 1
    ] < 0.05
    assert (objective[last + 1 :] == objective[last + 1]).all() and objective[last + 1] > objective[last]


def test_other_numbers_do_not_compile_again():
    traced = []

    @eqx.filter_jit
    def one(rule, model, batch):
        traced.append(1)
        return rule.step(model, rule.init(model, batch, key=jr.key(0)), batch, key=jr.key(0), step=jnp.array(0))[0]

    batch = batch_of(2, True)
    for tol, seed in ((1e-3, 1), (0.5, 2), (0.0, 3)):
        one(EM(jnp.asarray(tol)), MODELS["full"](batch, jr.key(seed), tol), batch)
    assert len(traced) == 1


# Mixtures.


@pytest.mark.parametrize("name", FAMILIES)
def test_equals_scikit_learn(name):
    """From the same weights, means and covariances: after 7 passes, and on the pass where learning stops."""
    x = rows(6, n=300)[0]
    start = iterate(MODELS[name](Row(jnp.asarray(x[:50])), jr.key(0)), Row(jnp.asarray(x[:50])))
    parts = gaussians(start)
    covariances = np.stack([c for _, _, c in parts])
    shaped = {
        "full": covariances,
        "tied": covariances[0],
        "diag": np.einsum("kii->ki", covariances),
        "spherical": covariances[:, 0, 0],
    }
    precision = np.linalg.inv(shaped[name]) if name in ("full", "tied") else 1 / shaped[name]
    given = {"weights_init": np.exp([w for w, _, _ in parts]), "means_init": np.stack([m for _, m, _ in parts])}
    given |= {"precisions_init": precision, "n_components": K, "covariance_type": name}
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(mixture._base.ConvergenceWarning)
        theirs = mixture.GaussianMixture(tol=0, max_iter=7, **given).fit(x)
        stopping = mixture.GaussianMixture(tol=1e-3, **given).fit(x)
    ours, _, _ = run(EM(tol=-1.0), start, Row(jnp.asarray(x)), 7)
    close(np.exp(ours.logits), theirs.weights_, 1e-6)
    means, covariances = (np.stack(part) for part in zip(*((m, c) for _, m, c in gaussians(ours)), strict=True))
    close(means, theirs.means_, 1e-6)
    shapes = {"full": lambda c: c, "tied": lambda c: np.tile(c, (K, 1, 1)), "diag": lambda c: c[:, :, None] * np.eye(D)}
    dense_of = shapes.get(name, lambda c: c[:, None, None] * np.eye(D))
    close(covariances, dense_of(theirs.covariances_), 1e-6)
    close(evidence(ours, Row(jnp.asarray(x))), theirs.score_samples(x), 1e-6)
    stopped = np.asarray(run(EM(tol=1e-3), start, Row(jnp.asarray(x)), 100)[2]["stopped"])
    assert int(np.argmax(stopped)) + 1 == stopping.n_iter_


def test_means_are_recovered_through_holes():
    rng = np.random.default_rng(0)
    truth = np.array([[0.0, 0, 0, 0], [6, 6, 0, 0], [0, 6, 6, 6]]) + 100
    x, mask = truth[rng.integers(3, size=1500)] + rng.normal(size=(1500, 4)), rng.random((1500, 4)) > 0.3
    batch = Row(jnp.asarray(np.where(mask, x, 0)), jnp.asarray(mask))
    model, _, _ = run(EM(), MODELS["full"](batch, jr.key(0)), batch, 60)
    found = np.asarray(model.components.means)
    order = np.argmin(np.linalg.norm(found[:, None] - truth[None], axis=-1), axis=0)
    assert sorted(order) == [0, 1, 2]
    assert np.max(np.abs(found[order] - truth)) < 0.25


@pytest.mark.parametrize("name", FAMILIES)
def test_single_precision_far_from_zero(name):
    """Columns of spread 1 at 1000: one iteration in float32 agrees with float64 to a few units of its last place."""
    x = rows(7, n=200)[0] * 0.3 + 1000
    x = x.astype(np.float32).astype(np.float64)
    start = cast(cast(MODELS[name](Row(jnp.asarray(x)), jr.key(0)), jnp.float32), jnp.float64)
    want = iterate(start, Row(jnp.asarray(x)))
    got = iterate(cast(start, jnp.float32), Row(jnp.asarray(x, jnp.float32)))
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype("float32")}
    for (_, m32, c32), (_, m64, c64) in zip(gaussians(got), gaussians(want), strict=True):
        assert np.max(np.abs(m32 - m64)) < 3e-4 and np.max(np.abs(c32 - c64)) < 1e-3 * np.max(c64)


def test_a_component_without_rows_keeps_its_law():
    x = jnp.asarray(rows(8)[0])
    for name, family in FAMILIES.items():
        components = family.broad(Row(x), K)
        components = eqx.tree_at(lambda c: c.means, components, components.means.at[2].set(1e6))
        after = iterate(Mixture(jnp.zeros(K), components), Row(x))
        assert np.isfinite([float(jnp.sum(leaf)) for leaf in jax.tree.leaves(after)]).all(), name
        close(after.components.means[2], components.means[2], 0)
        assert float(jax.nn.softmax(after.logits)[2]) < 1e-15


@pytest.mark.parametrize("name", FAMILIES)
def test_a_degenerate_component_keeps_its_covariance(name):
    """Six equal rows have no spread, and nothing is added to it."""
    x = jnp.concatenate([jnp.asarray(rows(9)[0]), jnp.full((6, D), 50.0)])
    batch = Row(x)
    shares = jnp.zeros((N + 6, 2)).at[:N, 0].set(1).at[N:, 1].set(1)
    model = Mixture.from_responsibilities(batch, shares, FAMILIES[name].broad(batch, 2, 0.0))
    close(model.components.means[1], jnp.full(D, 50.0), 1e-10)
    assert np.isfinite(np.asarray(evidence(iterate(model, batch), batch))).all()


def test_a_soft_class_has_the_mixed_mean():
    z = jnp.array([0.2, 0.5, 0.3])
    for name in FAMILIES:
        model = example(name)
        close(model.likelihood(z).mean(), z @ model.components.means, 1e-12)


def test_the_bound_summed_over_classes_is_the_likelihood():
    model, batch = example("full"), batch_of(2, True)
    bound = eqx.filter_jit(eqx.filter_value_and_grad(lambda m: ELBO(Enumerate())(m, batch, key=jr.key(0))[0]))
    share = batch.weight / jnp.sum(batch.weight)
    exact = eqx.filter_jit(eqx.filter_value_and_grad(lambda m: -share @ jax.vmap(m.log_evidence)(batch)))
    close(bound(model), exact(model), 1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mixture(jnp.zeros(2), DiagonalCovariance(jnp.zeros((3, 1)), jnp.ones((3, 1)))),
        lambda: DiagonalCovariance(jnp.zeros((3, 1)), jnp.ones((3, 2))),
        lambda: SphericalCovariance(jnp.zeros((3, 1)), jnp.ones(2)),
        lambda: FullCovariance(jnp.zeros((3, 2)), jnp.ones((3, 2, 1))),
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
    model, _, _ = run(EM(tol=1e-12), start, train, 2000)
    assert not np.any(np.asarray(model.bias.value))
    reached = float(evidence(model, train).mean())
    assert ceiling - 1e-4 < reached <= ceiling + 1e-12


@pytest.mark.parametrize("causes", [1, 3, 5])
def test_reaches_scikit_learn_on_wine(causes):
    x = load_wine().data
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    theirs = decomposition.FactorAnalysis(causes, tol=1e-10, max_iter=20_000).fit(x).score(x)
    batch = Row(jnp.asarray(x))
    model, _, _ = run(EM(tol=1e-9), LinearGaussian.from_moments(batch, causes), batch, 600)
    ours = float(evidence(model, batch).mean())
    assert ours == pytest.approx(theirs, rel=1e-4) and ours >= theirs - 1e-5 * abs(theirs)


def test_probabilistic_pca_reaches_its_closed_form():
    """Tipping & Bishop 1999, equations 7 and 8, on data with more columns than causes."""
    x = rows(10, n=300)[0]
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    rest = values[2:].mean()
    best = -0.5 * (np.log(values[:2]).sum() + 2 * np.log(rest) + D * (1 + np.log(2 * np.pi)))
    batch = Row(jnp.asarray(x))
    model, _, metrics = run(EM(tol=0.0), LinearGaussian.from_moments(batch, 2, IsotropicNoise), batch, 300)
    assert float(evidence(model, batch).mean()) == pytest.approx(best, rel=1e-8)
    assert float(jnp.abs(model.noise.scales)) ** 2 == pytest.approx(rest, rel=1e-4)


def test_a_constant_column_and_one_never_seen():
    """The first gets the smallest noise allowed, the second keeps what it had."""
    x, mask = rows(11, 0.2)
    x[:, 1], mask[:, 2] = 7.0, False
    batch = Row(jnp.asarray(np.where(mask, x, 0)), jnp.asarray(mask))
    start = LinearGaussian.from_moments(batch, 2)
    model, _, metrics = run(EM(tol=-1.0), start, batch, 25)
    assert np.isfinite(metrics["objective"]).all()
    scale, law = np.asarray(model.noise_scale()), model.conditional(row_of(batch, 0))
    assert scale[1] == pytest.approx(1e-3) and scale[2] == start.noise_scale()[2]
    assert np.isfinite(np.asarray(law.mean())).all()


def test_fixed_bias_stays_and_free_bias_moves():
    batch = batch_of(2, True)
    free = example("factor-analysis")
    held = LinearGaussian(free.loading, Fixed(free.bias), free.noise)
    close(iterate(held, batch).bias.value, free.bias, 0)
    assert float(jnp.max(jnp.abs(iterate(free, batch).bias - free.bias))) > 1e-3
    history = np.asarray(run(EM(tol=-1.0), held, batch, 25)[2]["objective"])
    assert (np.diff(history) > -1e-9).all()
