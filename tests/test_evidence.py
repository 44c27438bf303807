"""Importance-sampled log-likelihoods and completions on models where both are known."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import (
    CELLS,
    LIMIT,
    LOG_P,
    MODELS,
    NOISE,
    B,
    ExactLinear,
    W,
    X,
    binary_rows,
    cast,
    dense,
    equations,
    linear_generator,
    linear_mean_field,
    worst,
)
from scipy.special import logsumexp

from ravine._tree import row_keys
from ravine.core import AbstractLatentModel, AbstractTractable, Row
from ravine.dist import FullGaussian
from ravine.evidence import Exact, ImportanceWeighted, drawn_completion, expected_completion, held_cells, weighted_draws
from ravine.evidence.likelihood import _accumulate
from ravine.models.directed import Helmholtz
from ravine.posteriors import OneNode

pytestmark = pytest.mark.usefixtures("x64")

HOLE = np.array([True, False, True])
NONE = np.zeros(CELLS, bool)


def holed(mask: np.ndarray) -> Row:
    return Row(jnp.asarray(np.where(mask, X, 0.0)), jnp.asarray(mask))


def rows() -> Row:
    """X complete, X with a hole, an empty row, and another complete one."""
    masks = np.array([[True] * 3, HOLE, NONE, [True] * 3])
    return Row(jnp.asarray(np.where(masks, [X, X, X, 2 * X], 0.0)), jnp.asarray(masks))


def wide() -> Helmholtz:
    """A recogniser with heavier spread than the posterior, so that its weights are bounded."""
    return linear_mean_field(0.2, 1.4)


def evaluated(model: Helmholtz, k: int, block: int = 50):
    """The evidence of a batch as numpy arrays."""
    score = jax.jit(lambda batch, key: ImportanceWeighted(k, block)(model, batch, key=key))
    return lambda batch, key: [np.asarray(answer) for answer in score(batch, key)]


def repeated(model: Helmholtz, k: int, times: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and standard errors for the complete row X under many keys."""
    batch = Row(jnp.asarray(X)[None])
    one = lambda key: ImportanceWeighted(k)(model, batch, key=key)  # noqa: E731
    value, error = jax.jit(jax.vmap(one))(jr.split(jr.key(k), times))
    return np.asarray(value)[:, 0], np.asarray(error)[:, 0]


# log p(x).


def test_many_draws_reach_log_p_of_complete_partial_and_empty_rows():
    value, error = evaluated(wide(), 5000)(rows(), jr.key(0))
    truth = np.array([LOG_P, dense(HOLE)[2]])
    assert np.all(np.abs(value[:2] - truth) < LIMIT * error[:2])
    assert np.all(error[:2] < 0.03)
    assert (float(value[2]), float(error[2])) == (0.0, 0.0)


def test_at_the_exact_posterior_there_is_no_error():
    value, error = evaluated(Helmholtz(linear_generator(), ExactLinear()), 7, 3)(rows(), jr.key(1))
    np.testing.assert_allclose(value[:3], [LOG_P, dense(HOLE)[2], 0.0], atol=1e-12)
    np.testing.assert_allclose(error, 0, atol=1e-7)


def test_blocks_equal_one_sum_over_the_same_draws():
    k, block = 137, 50
    model, batch, key = wide(), rows(), jr.key(2)
    value, error = evaluated(model, k, block)(batch, key)

    def log_weights(row, key):
        size = -(-k // -(-k // block))
        keys = jax.vmap(lambda i: jr.split(jr.fold_in(key, i), size))(jnp.arange(-(-k // size))).ravel()[:k]
        z, log_q = jax.vmap(lambda key: model.posterior(row).sample(key=key))(keys)
        return jax.vmap(lambda z: model.log_joint(z, row))(z) - log_q

    kept = np.array([0, 1, 3])
    keyed = jax.jit(lambda batch: jax.vmap(log_weights)(batch, row_keys(key, held_cells(batch))))
    log_w = np.asarray(keyed(batch))[kept]
    w = np.exp(log_w - log_w.max(axis=1, keepdims=True))
    np.testing.assert_allclose(np.asarray(value)[kept], logsumexp(log_w, axis=1) - np.log(k), rtol=1e-12)
    np.testing.assert_allclose(np.asarray(error)[kept], w.std(axis=1) / w.mean(axis=1) / np.sqrt(k), rtol=1e-9)


def test_accumulating_blocks_survives_any_size_of_weight():
    log_w = np.array([[-np.inf, -np.inf], [-4000.0, -np.inf], [-3999.0, -5000.0], [3000.0, 2999.0], [-10.0, 3001.0]])
    start = jnp.array(-jnp.inf), jnp.array(0.0), jnp.array(0.0)
    sums = jax.jit(lambda blocks: functools.reduce(_accumulate, blocks, start))(list(jnp.asarray(log_w)))
    top, first, second = map(float, sums)
    assert top + np.log(first) == pytest.approx(logsumexp(log_w), rel=1e-14)
    assert 2 * top + np.log(second) == pytest.approx(logsumexp(2 * log_w), rel=1e-14)


def test_memory_does_not_grow_with_the_number_of_draws():
    def largest(k):
        traced = jax.make_jaxpr(lambda key: ImportanceWeighted(k)(wide(), rows(), key=key))(jr.key(0))
        sizes = [v.aval.size for e in equations(traced.jaxpr) for v in e.outvars if hasattr(v.aval, "size")]
        return max(sizes)

    assert largest(50_000) <= 1.1 * largest(500)  # blocks of 128 and of 125 draws


def test_the_standard_error_is_calibrated():
    value, error = repeated(wide(), 400, 200)
    assert 0.8 < np.std((value - LOG_P) / error) < 1.25
    assert np.ptp(error) > 0


def test_the_likelihood_is_unbiased_and_its_logarithm_is_a_lower_bound():
    value, _ = repeated(wide(), 5, 20_000)
    assert worst(np.exp(value - LOG_P)[:, None], 1.0) < LIMIT
    assert value.mean() < LOG_P - LIMIT * value.std() / np.sqrt(len(value))


def test_the_method_and_direction_travel_with_the_number():
    assert (ImportanceWeighted(7).method(), ImportanceWeighted.direction) == ("importance-7", "lower")
    assert (Exact().method(), Exact.direction) == ("closed-form", "exact")


# A row and its neighbours.


def test_a_row_alone_scores_as_among_others_in_any_order():
    score = evaluated(wide(), 20)
    together, _ = score(rows(), jr.key(3))
    order = np.array([3, 1, 0, 2])
    turned, _ = score(Row(rows().x[order], rows().mask[order]), jr.key(3))
    np.testing.assert_allclose(turned, together[order], rtol=1e-13)
    alone, _ = score(Row(jnp.asarray(X)[None]), jr.key(3))
    np.testing.assert_allclose(alone, together[:1], rtol=1e-13)
    other, _ = score(rows(), jr.key(4))
    assert np.all(np.abs(np.asarray(other - together))[[0, 1, 3]] > 1e-6)


def test_the_key_of_a_row_reads_values_mask_and_context():
    full, hole, context = jnp.ones((1, CELLS), bool), jnp.asarray(HOLE)[None], jnp.ones((1, 1))

    @jax.jit
    def words(x):
        batches = [Row(x), Row(x, full), Row(2 * x), Row(x, hole), Row(x, context=context), Row(x, context=2 * context)]
        return [jr.key_data(row_keys(jr.key(0), held_cells(batch)))[0, 1] for batch in batches]

    plain, masked, *others = map(int, words(jnp.asarray(X)[None]))
    assert plain == masked
    assert len({plain, *others}) == 5


@pytest.mark.parametrize("name", ["vae", "one-hot", "belief-net"])
def test_every_model_has_finite_evidence_and_an_empty_row_scores_zero(name):
    """In single precision, which must stay single where double is the default."""
    model, batch = cast((MODELS[name](), binary_rows()), jnp.float32)
    value, error = map(np.asarray, evaluated(model, 30)(batch, jr.key(0)))
    assert value.dtype == error.dtype == np.float32
    assert np.all(np.isfinite(value)) and np.all(error[:2] > 0)
    assert (value[2], error[2]) == (0.0, 0.0)


# Missing cells.


@pytest.mark.parametrize("mask", [HOLE, NONE], ids=str)
def test_completions_follow_the_conditional_gaussian(mask):
    model, row, n = Helmholtz(linear_generator(), ExactLinear()), holed(mask), 20_000

    @jax.jit
    def completions(keys):
        mean = jax.vmap(lambda key: expected_completion(model, row, 2, key=key))(keys)
        return mean, jax.vmap(lambda key: drawn_completion(model, row, 2, key=key))(keys)

    mean, covariance, _ = dense(mask)
    filled, drawn = map(np.asarray, completions(jr.split(jr.key(0), n)))
    for x in (filled, drawn):
        assert np.all(x[:, mask] == X[mask])
        assert worst(x[:, ~mask], mean) < LIMIT
    residual = drawn[:, ~mask] - mean
    assert worst((residual[:, :, None] * residual[:, None, :]).reshape(n, -1), covariance.ravel()) < LIMIT


def test_completions_with_a_wrong_recogniser_converge():
    """The recogniser reads the hole as a zero; importance weights put that right."""
    row, key = holed(HOLE), jr.key(1)

    @jax.jit
    def answers(key):
        draws = jax.vmap(lambda key: drawn_completion(wide(), row, 300, key=key))(jr.split(key, 2000))
        share = weighted_draws(wide(), row, 50, key=key)[1]
        return expected_completion(wide(), row, 20_000, key=key), draws, share, wide().posterior(row).mean()

    mean, covariance, _ = dense(HOLE)
    filled, draws, share, z = map(np.asarray, answers(key))
    assert filled[~HOLE] == pytest.approx(mean, abs=0.03)
    assert draws[:, ~HOLE].mean() == pytest.approx(mean[0], abs=0.06)
    assert draws[:, ~HOLE].std() == pytest.approx(np.sqrt(covariance[0, 0]), rel=0.06)
    assert share.sum() == pytest.approx(1.0)
    assert abs(W[1] @ z + B[1] - mean[0]) > 0.1


def test_a_complete_row_is_returned_as_it_came():
    row = Row(jnp.asarray(X))
    kinds = expected_completion, drawn_completion
    both = jax.jit(lambda key: [kind(wide(), row, 2, key=key) for kind in kinds])(jr.key(0))
    assert np.all(np.asarray(both) == X)


class Scores(AbstractLatentModel):
    """A model that can score a row but has no p(x | z) to hold."""

    def sample(self, context=None, *, key):
        return jnp.zeros(2), jnp.zeros(CELLS)

    def log_prior(self, z, row):
        return -0.5 * z @ z

    def log_likelihood(self, z, row):
        return jnp.zeros(())

    def posterior(self, row):
        return OneNode(FullGaussian(jnp.zeros(2), jnp.eye(2)))


@pytest.mark.parametrize("completion", [expected_completion, drawn_completion])
def test_a_model_without_a_likelihood_to_hold_fills_nothing(completion):
    with pytest.raises(TypeError, match="Scores has no likelihood"):
        jax.eval_shape(lambda key: completion(Scores(), holed(HOLE), 2, key=key), jr.key(0))


class Known(AbstractTractable):
    """The linear-Gaussian model by its marginal: everything about x is exact, and z is never needed."""

    def law(self) -> FullGaussian:
        return FullGaussian(jnp.asarray(B), jnp.asarray(np.linalg.cholesky(W @ W.T + NOISE * np.eye(CELLS))))

    def sample(self, context=None, *, key):
        return (), self.law().sample(key=key)

    def log_prior(self, z, row):
        return jnp.zeros(())

    def log_likelihood(self, z, row):
        return self.law().log_prob(row.x, row.mask)

    def posterior(self, row):
        raise AssertionError("an exact model was sampled")

    def log_evidence(self, row):
        return self.law().log_prob(row.x, row.mask)

    def conditional(self, row):
        return self.law().condition(row.x, row.mask)


def test_exact_models_are_not_sampled():
    @jax.jit
    def answers(batch, keys):
        row = jax.tree.map(lambda leaf: leaf[1], batch)
        value, error = Exact()(Known(), batch, key=jr.key(0))
        drawn = jax.vmap(lambda key: drawn_completion(Known(), row, 3, key=key))(keys)
        return value, error, expected_completion(Known(), row, 3, key=jr.key(0)), drawn

    value, error, filled, drawn = map(np.asarray, answers(rows(), jr.split(jr.key(0), 5000)))
    mean, covariance, log_p = dense(HOLE)
    np.testing.assert_allclose(value[:3], [LOG_P, log_p, 0.0], atol=1e-12)
    assert np.all(error == 0)
    np.testing.assert_allclose(filled, np.where(HOLE, X, mean[0]), rtol=1e-12)
    assert np.all(drawn[:, HOLE] == X[HOLE])
    assert worst(drawn[:, ~HOLE], mean) < LIMIT
    assert worst((drawn[:, ~HOLE] - mean) ** 2, covariance[0]) < LIMIT
