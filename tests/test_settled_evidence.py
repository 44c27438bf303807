"""log p(x) by importance sampling around settled points: against closed forms and quadrature, and from below."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import LIMIT, LOG_P, NOISE, B, W, X, affine, dense, some
from scipy import stats

from ravine._check import Complaint
from ravine._tree import Fixed
from ravine.core import Row
from ravine.dist import FullStudentT
from ravine.evidence import AroundSettled, DiagonalSpread, FullSpread
from ravine.evidence.settled import Around, covariance_factor
from ravine.models.errors import BitErrors, UnitErrors, WeightedErrors
from ravine.models.predictive_coding import PredictiveGenerator
from ravine.nets import perceptrons, tanh
from ravine.recognisers import GradientSettling

REPEATS = 400


def linear_model(steps: int = 100) -> PredictiveGenerator:
    link = eqx.tree_at(lambda a: (a.weight, a.bias), affine(2, 3, 0), (jnp.asarray(W), jnp.asarray(B)))
    errors = (UnitErrors(), WeightedErrors(1 / NOISE))
    return PredictiveGenerator(Fixed(jnp.zeros(2)), (link,), errors, GradientSettling(steps, 0.05))


def repeated(way: AroundSettled, model: PredictiveGenerator, row: Row, repeats: int = REPEATS):
    """Many independent estimates of log p(x) of one row, and their standard errors."""
    batch = jax.tree.map(lambda leaf: leaf[None], row)
    one = jax.jit(lambda key: tuple(part[0] for part in way(model, batch, key=key)))
    values, errors = jax.lax.map(one, jr.split(jr.key(5), repeats))
    return np.asarray(values), np.asarray(errors)


def around(*, k: int, **how) -> AroundSettled:
    return AroundSettled(k, **how)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("climb", [0, 1])
def test_of_a_linear_model_each_weight_is_exact(climb):
    """The proposal that is not widened is the posterior: at once by Newton's method, else where it has settled."""
    model = linear_model(1_000 if climb == 0 else 0)
    value, error = repeated(around(k=3, widen=1.0, climb=climb), model, Row(jnp.asarray(X)), 3)
    assert np.abs(value - LOG_P).max() < 1e-7
    assert error.max() < 1e-6


@pytest.mark.usefixtures("x64")
def test_the_bound_rises_to_the_golden_value_from_below():
    """Mean log of k weights, 400 times: below log p(x), rising with k, and in the limit there; 4.5 standard errors.

    An estimator that adds log k where it has to subtract it would be above by 2 log k.
    """
    found = {}
    for k in (1, 4, 16, 256):
        values, _ = repeated(around(k=k, widen=2.0), linear_model(), Row(jnp.asarray(X)))
        found[k] = values.mean(), values.std() / np.sqrt(REPEATS)
        assert found[k][0] < LOG_P + LIMIT * found[k][1]
    gaps = {k: LOG_P - mean for k, (mean, _) in found.items()}
    assert gaps[1] > LIMIT * found[1][1] > 0  # one draw is far below
    assert gaps[1] > 2 * gaps[4] > 4 * gaps[16]
    assert abs(gaps[256]) < LIMIT * found[256][1] + 0.01


@pytest.mark.usefixtures("x64")
def test_the_mean_weight_is_unbiased_and_its_error_is_told():
    values, errors = repeated(around(k=50, widen=1.5), linear_model(), Row(jnp.asarray(X)))
    shares = np.exp(values - LOG_P)
    assert abs(shares.mean() - 1) < LIMIT * shares.std() / np.sqrt(REPEATS)
    assert np.isclose(np.mean(errors), values.std(), rtol=0.2)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("how", [{"freedom": 5.0}, {"spread": DiagonalSpread(), "widen": 1.3}], ids=["t", "diagonal"])
def test_other_proposals_agree(how):
    mask = np.array([True, False, True])
    row = Row(jnp.asarray(np.where(mask, X, 0)), jnp.asarray(mask))
    values, errors = repeated(around(k=400, **how), linear_model(), row, 50)
    assert abs(values.mean() - dense(mask)[2]) < LIMIT * values.std() / np.sqrt(50) + np.mean(errors**2)
    assert np.all(errors > 0)


def bent() -> PredictiveGenerator:
    """One cell, one cell, and three bits, with weights that bend."""
    links = perceptrons((1, 1, 3), tanh, key=jr.key(0))
    links = jax.tree.map(lambda leaf: 1.5 + leaf if eqx.is_inexact_array(leaf) and leaf.ndim == 2 else leaf, links)
    return PredictiveGenerator(
        Fixed(jnp.asarray([0.2])), links, (UnitErrors(), WeightedErrors(2.0), BitErrors()), GradientSettling(30, 0.2)
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("freedom", some([None, 8.0], None))
def test_a_bent_net_agrees_with_quadrature(freedom):
    model, row = bent(), Row(jnp.asarray([1.0, 0.0, 1.0]), jnp.asarray([True, True, True]))
    grid = jnp.linspace(-8, 8, 801)
    joint = jax.vmap(lambda a: jax.vmap(lambda b: model.log_joint((a[None], b[None]), row))(grid))(grid)
    exact = float(jax.nn.logsumexp(joint)) + 2 * np.log(16 / 800)
    values, errors = repeated(around(k=1000, widen=1.2, freedom=freedom), model, row, 20)
    assert abs(values.mean() - exact) < LIMIT * values.std() / np.sqrt(20) + np.mean(errors**2)
    assert values.std() < 0.05
    assert repeated(around(k=1, widen=1.2, freedom=freedom), model, row)[0].mean() < exact


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_proposal_lies_at_the_top_of_the_joint_law():
    """Newton's method makes up for settling that has not begun, and never goes down."""
    model, row = dataclasses.replace(bent(), settling=GradientSettling(0)), Row(jnp.asarray([1.0, 0.0, 1.0]))
    energies = []
    for climb in (0, 1, 2, 6):
        centre = Around(model, around(k=1, climb=climb)).posterior(row).mean()
        energies.append(-float(model.log_joint((centre[:1], centre[1:]), row)))
    assert energies == sorted(energies, reverse=True)
    slope = jax.grad(lambda z: model.log_joint((z[:1], z[1:]), row))(centre)
    assert np.abs(slope).max() < 1e-3 < energies[0] - energies[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_row_without_cells_scores_zero():
    row = Row(jnp.zeros((1, 3)), jnp.zeros((1, 3), bool))
    value, error = around(k=5)(linear_model(), row, key=jr.key(0))
    assert (float(value[0]), float(error[0])) == (0, 0)


def test_what_the_number_is_called():
    way = AroundSettled(200)
    assert (way.direction, way.method()) == ("lower", "importance-200 around the settled point")
    with pytest.raises(Complaint, match="AroundSettled: expected a model of latents that settle"):
        way(UnitErrors(), Row(jnp.ones((1, 2))), key=jr.key(0))
    assert FullSpread() == FullSpread()


@pytest.mark.usefixtures("x64")
def test_the_factor_of_an_inverse():
    a = np.random.default_rng(0).normal(size=(5, 5))
    precision = a @ a.T + np.eye(5)
    factor = np.asarray(covariance_factor(jnp.asarray(precision)))
    assert np.allclose(factor, np.linalg.cholesky(np.linalg.inv(precision)), atol=1e-12)


# --- the heavy-tailed law


def heavy() -> tuple[FullStudentT, np.ndarray]:
    factor = np.array([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-0.3, 0.4, 0.7]])
    return FullStudentT(jnp.asarray([0.5, -1.0, 2.0]), jnp.asarray(factor), jnp.asarray(4.0)), factor @ factor.T


@pytest.mark.usefixtures("x64")
def test_students_t_of_a_vector_has_the_density_of_scipy():
    law, shape = heavy()
    at, seen = np.array([0.1, 0.7, -1.4]), np.array([True, False, True])
    assert np.isclose(
        law.log_prob(jnp.asarray(at)), stats.multivariate_t(law.location, shape, 4).logpdf(at), atol=1e-12
    )
    some = stats.multivariate_t(np.asarray(law.location)[seen], shape[np.ix_(seen, seen)], 4).logpdf(at[seen])
    assert np.isclose(law.log_prob(jnp.asarray(np.where(seen, at, np.nan)), jnp.asarray(seen)), some, atol=1e-12)
    assert np.array_equal(law.mean(), law.location)


@pytest.mark.usefixtures("x64")
def test_draws_of_students_t_have_its_law():
    """The squared distance over d follows Fisher's F(d, freedom): Kolmogorov-Smirnov, false failure 1 in 100,000."""
    law, shape = heavy()
    drawn = np.asarray(jax.vmap(lambda k: law.sample(key=k))(jr.split(jr.key(3), 20_000)))
    away = drawn - np.asarray(law.location)
    squares = np.einsum("ni,ij,nj->n", away, np.linalg.inv(shape), away) / 3
    assert stats.kstest(squares, stats.f(3, 4).cdf).pvalue > 1e-5
    direction = away[:, 0] / np.sqrt(shape[0, 0])
    assert stats.kstest(direction, stats.t(4).cdf).pvalue > 1e-5
