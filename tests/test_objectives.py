"""Variational bounds: against a model whose every number is known, and over the table of objectives."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import (
    BEST_MEAN_FIELD,
    CELLS,
    LIMIT,
    LOG_P,
    MODELS,
    OBJECTIVES,
    PAIRS,
    POSTERIOR_COVARIANCE,
    POSTERIOR_MEAN,
    Affine,
    ExactLinear,
    Quadrature,
    X,
    binary_rows,
    cast,
    dense,
    estimates,
    exactly,
    flat,
    linear_exact,
    linear_generator,
    linear_mean_field,
    per_row,
    posterior_parts,
    row_of,
    with_gradient,
    worst,
)

from ravine._tree import Fixed, Linear, parameter_count, resolve
from ravine.core import AbstractRecogniser, Row
from ravine.dist import Ancestral, Conditional, Gaussian, Homoscedastic, Real
from ravine.gradients import RLOO, Enumerate, Pathwise
from ravine.models.directed import Directed, Helmholtz
from ravine.objectives import ELBO, IWAE, AnalyticELBO, DReG, StickingTheLanding
from ravine.posteriors import Chain
from ravine.recognisers import Amortised, Filled

pytestmark = pytest.mark.usefixtures("x64")

N = 20_000
GENERATOR = slice(1, 11)  # columns of an estimate on the linear-Gaussian model: value, generator, recogniser
RECOGNISER = slice(11, None)


def on_x(objective):
    """The estimate of an objective for the row X, as a function of (model, key)."""
    return lambda model, key: per_row(objective, model, Row(jnp.asarray(X)), key)


def tilted() -> Helmholtz:
    return MODELS["linear-gaussian"]()


# The linear-Gaussian model.


def test_the_reference_numbers_agree_with_dense_algebra():
    covariance, mean = posterior_parts()
    assert dense(np.ones(CELLS, bool))[2] == pytest.approx(LOG_P, abs=1e-12)
    np.testing.assert_allclose(covariance, POSTERIOR_COVARIANCE, atol=1e-8)
    np.testing.assert_allclose(mean(jnp.asarray(X)), POSTERIOR_MEAN, atol=1e-8)
    assert parameter_count(tilted().p) == GENERATOR.stop - GENERATOR.start


@pytest.mark.parametrize("objective", [ELBO(Quadrature()), AnalyticELBO(Quadrature())], ids=["elbo", "analytic"])
def test_best_mean_field_bound(objective):
    best = exactly(lambda model: on_x(objective)(model, jr.key(0)), linear_mean_field())
    assert best[0] == pytest.approx(BEST_MEAN_FIELD, abs=1e-10)
    np.testing.assert_allclose(best[RECOGNISER], 0, atol=1e-9)


SAMPLED = {"elbo": ELBO(Pathwise()), "analytic": AnalyticELBO(Pathwise()), "sticking": StickingTheLanding()}


@pytest.mark.parametrize("name", SAMPLED)
def test_sampled_bounds_have_the_exact_value_and_gradient_on_average(name):
    exact = exactly(lambda model: on_x(ELBO(Quadrature()))(model, jr.key(0)), tilted())
    assert worst(estimates(on_x(SAMPLED[name]), tilted(), N), exact) < LIMIT


def test_at_the_exact_posterior_every_draw_gives_log_p_and_sticking_the_landing_has_no_noise():
    draws = estimates(on_x(StickingTheLanding()), linear_exact(), 50)
    np.testing.assert_allclose(draws[:, 0], LOG_P, rtol=1e-12)
    np.testing.assert_allclose(draws[:, RECOGNISER], 0, atol=1e-11)
    noisy = estimates(on_x(ELBO(Pathwise())), linear_exact(), 50)
    np.testing.assert_allclose(noisy[:, 0], LOG_P, rtol=1e-12)
    assert noisy[:, RECOGNISER].std(axis=0).max() > 0.1
    np.testing.assert_allclose(noisy[:, GENERATOR], draws[:, GENERATOR], atol=1e-11)


@pytest.mark.slow
def test_importance_weighted_bounds_rise_with_k_and_stay_below_log_p():
    def values(k):
        keys = jr.split(jr.key(k), N)
        return np.asarray(jax.jit(jax.vmap(lambda key: on_x(IWAE(k, Pathwise()))(tilted(), key)))(keys))

    bounds = {k: values(k) for k in (1, 2, 5, 50)}
    means = np.array([v.mean() for v in bounds.values()])
    errors = np.array([v.std() / np.sqrt(N) for v in bounds.values()])
    assert np.all(np.diff(means) > LIMIT * np.hypot(errors[1:], errors[:-1]))
    assert np.all(means < LOG_P + LIMIT * errors)
    assert means[-1] == pytest.approx(LOG_P, abs=0.02)
    exact = jax.jit(lambda: on_x(ELBO(Quadrature()))(tilted(), jr.key(0)))()
    assert abs(means[0] - float(exact)) < LIMIT * errors[0]


def test_doubly_reparametrised_gradients():
    iwae, dreg = (estimates(on_x(objective), tilted(), N) for objective in (IWAE(5, Pathwise()), DReG(5)))
    np.testing.assert_allclose(dreg[:, 0], iwae[:, 0], rtol=1e-12)
    np.testing.assert_allclose(dreg[:, GENERATOR], iwae[:, GENERATOR], atol=1e-10)
    assert worst((dreg - iwae)[:, RECOGNISER], 0.0) < LIMIT
    assert np.all(dreg[:, RECOGNISER].var(axis=0) < iwae[:, RECOGNISER].var(axis=0))


def test_doubly_reparametrised_with_one_draw_is_sticking_the_landing():
    keep = lambda model, key: on_x(StickingTheLanding())(model, jr.split(key, 1)[0])  # noqa: E731
    np.testing.assert_allclose(
        estimates(on_x(DReG(1)), tilted(), 20), estimates(keep, tilted(), 20), rtol=1e-10, atol=1e-10
    )


# Weights on the divergence.


def test_beta_weighs_prior_and_entropy_and_may_be_a_schedule():
    at = lambda beta: on_x(ELBO(Pathwise(2), beta=beta))(tilted(), jr.key(5))  # noqa: E731
    row, key = Row(jnp.asarray(X)), jr.key(5)

    @jax.jit
    def answers(step):
        scheduled = resolve(ELBO(Pathwise(2), beta=Linear(0.0, 1.0, 4.0)), step)
        cost = lambda z, log_q: tilted().log_likelihood(z, row)  # noqa: E731
        fit = tilted().posterior(row).expect(cost, Pathwise(2), key=key)
        return fit, at(0.0), at(0.25), at(1.0), on_x(scheduled)(tilted(), key)

    fit, none, quarter, one, scheduled = map(float, answers(1))
    assert none == pytest.approx(fit, rel=1e-12)
    assert quarter == pytest.approx(0.75 * none + 0.25 * one, rel=1e-12)
    assert scheduled == pytest.approx(quarter, rel=1e-12)


@pytest.mark.parametrize("kind, where", [(ELBO, "beta"), (AnalyticELBO, "beta"), (AnalyticELBO, "free_bits")])
def test_an_unresolved_schedule_is_named(kind, where):
    objective = kind(Pathwise(), **{where: Linear(0.0, 1.0, 4.0)})
    with pytest.raises(TypeError, match="Linear must be resolved"):
        objective(tilted(), binary_rows(), key=jr.key(0))


def row_wise() -> tuple[Helmholtz, Row]:
    """A posterior that is the row itself: N(x, 1) for two of three cells, so that cell j diverges by x_j^2 / 2."""
    mean = Affine(jnp.eye(2, CELLS), jnp.zeros(2))
    q = Amortised(Filled(Fixed(jnp.zeros(CELLS))), Conditional(mean, Homoscedastic(jnp.zeros(()), 0.0), (2,)))
    return Helmholtz(linear_generator(), q), Row(jnp.array([[1.0, 0.4, 0.0], [2.0, 0.2, 0.0]]))


def analytic(beta: float, free_bits: float):
    """Loss, metrics, and the gradient of the loss in the means of the recogniser."""
    model, batch = row_wise()
    objective = AnalyticELBO(Quadrature(), beta, free_bits)
    loss, slope = with_gradient(lambda model: objective(model, batch, key=jr.key(0))[0], model)
    return loss, objective(model, batch, key=jr.key(0))[1], slope.q.conditional.net.bias


def test_free_bits_floor_the_divergence_of_a_cell_averaged_over_the_batch():
    cells = np.array([(1.0 + 4.0) / 4, (0.16 + 0.04) / 4])
    floored, plain = jax.jit(lambda: (analytic(2.0, 0.5), analytic(0.0, 0.0)))()
    (loss, metrics, slope), (fit, _, without_divergence) = floored, plain
    assert float(metrics["kl"]) == pytest.approx(cells.sum())
    assert float(metrics["elbo"]) == pytest.approx(-float(fit) - cells.sum())
    assert float(loss) == pytest.approx(float(fit) + 2.0 * (cells[0] + 0.5))
    np.testing.assert_allclose(slope - without_divergence, [2.0 * 1.5, 0.0], atol=1e-12)


def test_correlated_latents_share_one_divergence():
    def values(free_bits):
        objective, batch = AnalyticELBO(Pathwise(1000), free_bits=free_bits), Row(jnp.asarray(X)[None])
        return objective(linear_exact(), batch, key=jr.key(0))

    (loss, metrics), (floored, _) = jax.jit(lambda: (values(0.0), values(9.0)))()
    assert float(loss) == pytest.approx(-LOG_P, abs=0.2)
    assert float(floored - loss) == pytest.approx(9.0 - float(metrics["kl"]), rel=1e-12)


def test_a_schedule_of_free_bits():
    scheduled = resolve(AnalyticELBO(Quadrature(), free_bits=Linear(1.0, 0.0, 10.0)), jnp.array(5))
    assert float(scheduled.free_bits) == 0.5


def test_divergence_of_a_known_pair():
    """KL(N((0.5, -1), variances exp(-0.3), exp(0.4)) || N(0, I))."""
    mean, log_scale = Affine(jnp.zeros((2, CELLS)), jnp.array([0.5, -1.0])), jnp.array([-0.15, 0.2])
    q = Amortised(Filled(Fixed(jnp.zeros(CELLS))), Conditional(mean, Homoscedastic(log_scale, 0.0), (2,)))
    model = Helmholtz(linear_generator(), q)
    objective, batch = AnalyticELBO(Pathwise()), Row(jnp.asarray(X)[None])
    _, metrics = jax.jit(lambda: objective(model, batch, key=jr.key(0)))()
    assert float(metrics["kl"]) == pytest.approx(0.6913214591614941, abs=1e-14)


# Rows, masks and weights.


@pytest.mark.parametrize("objective, name", PAIRS)
def test_rows_stand_alone_and_what_a_mask_hides_is_never_felt(objective, name):
    """In single precision, which must stay single where double is the default.

    Row 3 is row 1 with NaN where nothing was observed; the batch agrees with a loop over its rows.
    """
    batch, loss = cast(binary_rows(), jnp.float32), OBJECTIVES[objective][0]
    batch = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[1:2]]), batch)
    batch = eqx.tree_at(lambda b: b.x, batch, batch.x.at[3, 1].set(jnp.nan))

    @jax.jit
    def answers(batch, key):
        model, keys = cast(MODELS[name](), jnp.float32), jr.split(key, 3)[jnp.array([0, 1, 2, 1])]
        slopes = jax.vmap(lambda row, key: with_gradient(lambda m: per_row(loss, m, row, key), model))(batch, keys)
        return slopes, jax.lax.map(lambda pair: per_row(loss, model, *pair), (batch, keys))

    slopes, loop = answers(batch, jr.key(1))
    table = flat(slopes, lead=1)
    assert table.dtype == loop.dtype == np.float32
    np.testing.assert_allclose(table[:, 0], loop, rtol=1e-5)
    assert np.all(np.isfinite(table))
    np.testing.assert_allclose(table[3], table[1], rtol=1e-5, atol=1e-6)
    assert np.abs(table[0] - table[1]).max() > 1e-3


def without(model: Helmholtz, keep: np.ndarray) -> Helmholtz:
    """The model of the kept cells alone."""
    p, q = model.p.conditional, model.q.conditional
    fill, count = model.q.read.fill.value, (int(keep.sum()),)
    generator = Directed(model.p.prior_law, Conditional(Affine(p.net.weight[keep], p.net.bias[keep]), p.link, count))
    rest = q.net.bias + q.net.weight[:, ~keep] @ fill[~keep]
    mean = Conditional(Affine(q.net.weight[:, keep], rest), q.link, q.shape)
    return Helmholtz(generator, Amortised(Filled(Fixed(fill[keep])), mean))


REMOVED = {
    "linear-gaussian": [*SAMPLED.values(), IWAE(3, Pathwise()), DReG(3)],
    "bits": [ELBO(Enumerate()), ELBO(RLOO(2)), AnalyticELBO(Enumerate()), IWAE(3, RLOO(2))],
}


@pytest.mark.parametrize("name", REMOVED)
def test_missing_cells_are_as_if_the_model_had_none(name):
    keep, x = np.array([True, False, True]), jnp.array([1.0, 0.0, 1.0])

    @jax.jit
    def both(x):
        model, less = MODELS[name](), without(MODELS[name](), keep)
        rows = (model, Row(x, jnp.asarray(keep))), (less, Row(x[keep]))
        return [[per_row(loss, m, row, jr.key(2)) for loss in REMOVED[name]] for m, row in rows]

    masked, removed = both(x)
    np.testing.assert_allclose(masked, removed, rtol=1e-12)


def test_a_row_without_observed_cells_has_bound_zero_at_the_exact_posterior():
    model = Helmholtz(linear_generator(), ExactLinear())
    masks = jnp.array([[True, True, True], [True, False, True], [False, False, False]])
    batch = Row(jnp.where(masks, jnp.asarray(X)[None], 0), masks)
    loss = lambda row: per_row(ELBO(Pathwise()), model, row, jr.key(0))  # noqa: E731
    values = jax.jit(jax.vmap(loss))(batch)
    np.testing.assert_allclose(values, [LOG_P, dense(np.array(masks[1]))[2], 0.0], atol=1e-12)


@pytest.mark.parametrize("objective", ["elbo-enumerate", "iwae-pathwise", "analytic"])
def test_the_loss_is_the_mean_over_rows_by_weight(objective):
    loss, (name, *_) = OBJECTIVES[objective]
    weight = jnp.array([1.0, 3.0, 0.0])

    @jax.jit
    def answers(batch):
        model, keys = MODELS[name](), jr.split(jr.key(4), 3)
        weighted = eqx.tree_at(lambda b: b.weight, batch, weight, is_leaf=lambda leaf: leaf is None)
        rows = jax.vmap(lambda row, key: per_row(loss, model, row, key))(batch, keys)
        return rows, loss(model, batch, key=jr.key(4)), loss(model, weighted, key=jr.key(4))

    rows, (plain, metrics), (weighted, _) = answers(binary_rows())
    assert float(plain) == pytest.approx(-float(rows.mean()), rel=1e-12)
    assert float(weighted) == pytest.approx(-float(rows @ weight / 4), rel=1e-12)
    assert float(metrics["iwae" if "iwae" in objective else "elbo"]) == pytest.approx(float(rows.mean()), rel=1e-12)


def test_compiled_and_plain_agree():
    model, row = tilted(), row_of(binary_rows(), 1)
    plain = per_row(DReG(2), model, row, jr.key(0))
    assert float(plain) == pytest.approx(float(jax.jit(lambda: per_row(DReG(2), model, row, jr.key(0)))()), rel=1e-12)


# Precision and structure.


def test_single_and_double_precision_agree():
    def loss(wide):
        with jax.enable_x64(wide):
            model, batch = cast((MODELS["belief-net"](), binary_rows()), jnp.float64 if wide else jnp.float32)
            return float(jax.jit(lambda: ELBO(Enumerate())(model, batch, key=jr.key(0))[0])())

    assert loss(False) == pytest.approx(loss(True), rel=1e-5)


class Given(AbstractRecogniser):
    """The same posterior for every row."""

    posterior: Chain

    def __call__(self, generator, row):
        return self.posterior


@pytest.mark.parametrize("objective", [StickingTheLanding(), DReG(2)], ids=["sticking", "dreg"])
def test_a_network_may_hold_its_activation_as_a_leaf(objective):
    net = Conditional(eqx.nn.MLP(2, 4, 3, 1, key=jr.key(0)), Real(), (2,))
    first = Gaussian(jnp.zeros(2), jnp.ones(2))
    p = Directed(Ancestral(first, net), linear_generator().conditional)
    model = Helmholtz(p, Given(Chain(first, (net,))))
    shape = jax.eval_shape(lambda: objective.bound(model, Row(jnp.asarray(X)), key=jr.key(0)))
    assert shape.shape == ()
