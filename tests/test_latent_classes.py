"""Mixtures and factors of cells of several kinds, and models of reals that see whole codes with noise."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ravine as rv
from ravine._tree import trainable
from ravine.core import Row
from ravine.data import TableSchema
from ravine.data.columns import Bounded, Censored
from ravine.data.kinds import Dequantised
from ravine.data.table import schema_from_json
from ravine.dist import Bits, Classes, Counts, MixedLink, Real
from ravine.models.latent_classes import LatentClasses, Linked
from ravine.nets import LinearPredictor
from ravine.objectives import MaximumLikelihood

LINK = MixedLink((Real(), Bits(), Classes()), ((0,), (1,), (2, 3, 4)), ((1,), (1,), (1, 3)))
NUMBERS = np.random.default_rng(3).normal(size=(2, 6))
LOGITS = np.array([0.4, -0.3])
# the number 0.7, the bit 1, the second of three levels
X = np.array([0.7, 1.0, 0.0, 1.0, 0.0])
MASKS = {
    "whole": [True] * 5,
    "no number": [False, True, True, True, True],
    "no bit": [True, False, True, True, True],
    "no level": [True, True, False, False, False],
    "empty": [False] * 5,
}


def model() -> LatentClasses:
    return LatentClasses(jnp.asarray(LOGITS), Linked(jnp.asarray(NUMBERS), LINK, (5,)))


def by_hand(mask: list[bool]) -> np.ndarray:
    """log p(observed cells, class) from the formulas of the laws."""
    scale = 1e-3 + np.log1p(np.exp(NUMBERS[:, 1]))
    number = stats.norm.logpdf(X[0], NUMBERS[:, 0], scale)
    bit = -np.log1p(np.exp(-NUMBERS[:, 2]))
    level = NUMBERS[:, 4] - np.log(np.exp(NUMBERS[:, 3:]).sum(axis=1))
    return LOGITS - np.log(np.exp(LOGITS).sum()) + mask[0] * number + mask[1] * bit + mask[2] * level


@pytest.mark.parametrize("name", MASKS)
def test_a_latent_class_model_is_what_enumeration_says(name, x64):
    mask = MASKS[name]
    row = Row(jnp.asarray(X), jnp.asarray(mask))
    joint = by_hand(mask)
    want = np.log(np.exp(joint).sum())
    assert float(model().log_evidence(row)) == pytest.approx(want, abs=1e-12)
    np.testing.assert_allclose(model().posterior(row).mean(), np.exp(joint - want), atol=1e-12)
    mean = model().conditional(row).mean()
    np.testing.assert_allclose(mean[np.array(mask)], X[np.array(mask)])
    expected = np.exp(joint - want) @ np.column_stack([NUMBERS[:, 0], 1 / (1 + np.exp(-NUMBERS[:, 2]))])
    for cell in range(2):
        assert mask[cell] or float(mean[cell]) == pytest.approx(expected[cell], abs=1e-12)


def test_the_mean_is_linear_in_the_class(x64):
    one, other, half = (model().likelihood(jnp.asarray(z)).mean() for z in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]))
    np.testing.assert_allclose(half, 0.5 * (one + other), atol=1e-12)


@pytest.mark.slow
def test_maximum_likelihood_climbs_as_em_does(x64):
    """Its gradient is the expected gradient of the complete data, by Fisher's identity."""
    batch = Row(jnp.asarray(np.stack([X, X * 0.5])), weight=jnp.array([1.0, 3.0]))
    parameters, rest = trainable(model())

    def loss(p):
        return MaximumLikelihood()(eqx.combine(p, rest), batch, key=jr.key(0))[0]

    def complete(p):
        made = eqx.combine(p, rest)
        shares = jax.lax.stop_gradient(jax.vmap(lambda row: model().posterior(row).mean())(batch))
        joint = jax.vmap(made._log_joint_all)(Row(batch.x))
        return -jnp.sum(jnp.asarray([0.25, 0.75])[:, None] * shares * joint)

    pairs = zip(
        jax.tree.leaves(jax.grad(loss)(parameters)), jax.tree.leaves(jax.grad(complete)(parameters)), strict=True
    )
    for one, other in pairs:
        np.testing.assert_allclose(one, other, atol=1e-12)
        assert np.abs(one).max() > 0.01


def columns(rows: int, seed: int = 0) -> pd.DataFrame:
    """Three classes seen through a number, a bit, a count and a level."""
    stream = np.random.default_rng(seed)
    c = stream.integers(0, 3, rows)
    return pd.DataFrame(
        {
            "number": stream.normal(4.0 * c, 1.0),
            "bit": np.where(stream.random(rows) < np.array([0.1, 0.5, 0.9])[c], "yes", "no"),
            "level": pd.Categorical.from_codes((c + (stream.random(rows) < 0.2)) % 3, list("pqr")),
        }
    )


def true_log_prob(table: pd.DataFrame) -> np.ndarray:
    bit, level = (table["bit"] == "yes").to_numpy(), table["level"].cat.codes.to_numpy()
    total = 0.0
    for c, share in enumerate((0.1, 0.5, 0.9)):
        number = stats.norm.pdf(table["number"], 4.0 * c, 1.0)
        chance = np.where(level == c, 0.8, np.where(level == (c + 1) % 3, 0.2, 0.0))
        total = total + number * np.where(bit, share, 1 - share) * chance / 3
    return np.log(total)


@pytest.mark.slow
def test_three_classes_are_found():
    fitted = rv.LatentClass(components=3, steps=1500, random_state=0).fit(columns(2000))
    fresh = columns(2000, seed=1)
    short = true_log_prob(fresh) - fitted.score_samples(fresh)
    assert abs(short.mean()) < 0.02  # 20 parameters cost about 20 / (2 * 2000) nats a row
    assert fitted.predict_proba(fresh).shape == (2000, 3)


@pytest.mark.slow
def test_one_class_is_independent_columns():
    table = columns(500)
    fitted = rv.LatentClass(components=1, steps=1500, batch_size=500, validation=0.0, random_state=0).fit(table)
    number = stats.norm.logpdf(table["number"], table["number"].mean(), table["number"].std(ddof=0))
    shares = [
        np.log(table[name].map(table[name].value_counts(normalize=True)).astype(float)) for name in ("bit", "level")
    ]
    np.testing.assert_allclose(fitted.score_samples(table), number + sum(shares), atol=2e-3)


@pytest.mark.slow
def test_factors_move_locations_alone():
    fitted = rv.MixedFactorAnalysis(latents=1, steps=200, random_state=0).fit(columns(300))
    predictor = fitted.model_.p.conditional.net
    assert isinstance(predictor, LinearPredictor)
    low, high = (fitted.model_.likelihood(jnp.array([z])) for z in (-1.0, 1.0))
    assert (low.parts[0].scale == high.parts[0].scale).all() and (low.mean() != high.mean()).all()
    with pytest.raises(ValueError, match="each of 2 places, got 1"):
        LinearPredictor(jnp.ones((1, 3)), jnp.zeros(4), (0, 2))


@pytest.mark.slow
def test_mixed_factors_of_real_cells_come_to_factor_analysis():
    stream = np.random.default_rng(0)
    rows = stream.normal(size=(800, 1)) @ stream.normal(size=(1, 5)) + 0.5 * stream.normal(size=(800, 5))
    exact = rv.FactorAnalysis(latents=1, random_state=0).fit(rows[:600]).score(rows[600:])
    mixed = rv.MixedFactorAnalysis(latents=1, steps=3000, random_state=0).fit(rows[:600]).evaluate(rows[600:])
    assert mixed.direction == "lower" and mixed.log_likelihood == pytest.approx(exact, abs=0.03)


# --- whole codes seen by a model of reals


@pytest.mark.slow
def test_the_bound_of_a_dequantised_column_is_below_its_mass():
    """E_u log p(k + u) <= log of the mass between k and k + 1, and equals its integral."""
    counts = np.random.default_rng(0).poisson(6.0, size=400)
    table = pd.DataFrame({"count": counts, "other": np.random.default_rng(1).normal(size=400)})
    fitted = rv.GaussianMixture(components=1, columns={}, dequantise="uniform", random_state=0).fit(table)
    got = fitted.log_likelihood(table)
    assert got.direction == "lower" and fitted.schema_.measure == "mixed"
    assert isinstance(fitted.schema_, TableSchema)
    column = fitted.schema_.columns[0]
    assert isinstance(column, Dequantised)
    laws = fitted.model_.components
    centre = np.asarray(laws.means)[0, 0] * column.scale + column.shift
    spread = np.asarray(laws.factors)[0, 0, 0] * column.scale
    alone = fitted.score_samples(table.assign(other=np.nan))
    mass = np.log(stats.norm.cdf(counts + 1, centre, spread) - stats.norm.cdf(counts, centre, spread))
    # the mean square about the centre at a uniform place is that of the middle of the cell and a twelfth
    bound = stats.norm.logpdf(counts + 0.5, centre, spread) - 1 / 24 / spread**2
    assert (bound < mass).all()
    noise = (alone - bound) / (np.abs(counts + 0.5 - centre) / np.sqrt(12) / spread**2 + 0.1)
    assert abs(noise.mean()) < 4.5 / 20 and np.abs(alone - bound).max() > 0.01  # 400 rows, deviations of at most 1


def test_dequantised_columns_go_through_a_file_and_back_to_the_table():
    table = columns(50)
    schema = TableSchema.infer(table, {"number": ("bounded", -10, 20)}, "uniform")
    assert schema.kind == "real" and schema.dequantise == "uniform" and schema.measure == "mixed"
    assert schema_from_json(schema.to_json()) == schema
    codes = schema.code(table)
    cells, mask = schema.encode(codes, "float32")
    draw = schema.draw()
    assert mask is None and draw is not None
    noisy = jax.vmap(lambda x, key: draw(Row(x), key=key).x)(jnp.asarray(cells), jr.split(jr.key(0), 50))
    assert (noisy[:, 0] == cells[:, 0]).all() and (noisy[:, 1:] > cells[:, 1:]).all()
    np.testing.assert_allclose(schema.point(np.asarray(noisy)), codes, atol=1e-5)
    pd.testing.assert_frame_equal(
        schema.frame(schema.point(np.asarray(noisy)))[["bit", "level"]], table[["bit", "level"]]
    )
    assert isinstance(schema.columns[0], Bounded) and type(schema.columns[0].link()) is Real


def test_a_density_with_masses_is_no_column_of_reals():
    table = columns(50).assign(number=lambda t: t["number"].clip(0, None))
    with pytest.raises(ValueError, match="column 'number', for a model of reals"):
        rv.GaussianMixture(columns={"number": ("censored", 0, 100)}, dequantise="uniform").fit(table)
    assert isinstance(TableSchema.infer(table, {"number": ("censored", 0, 100)}).columns[0], Censored)


def test_without_whole_codes_nothing_is_a_bound():
    table = columns(60)[["number"]].assign(second=np.linspace(0, 1, 60))
    fitted = rv.GaussianMixture(components=1, columns={}, dequantise="uniform", random_state=0).fit(table)
    assert fitted.evaluate(table).direction == "exact" and fitted.schema_.draw() is None


@pytest.mark.slow
def test_a_chosen_law_is_used_for_every_class():
    counts = np.random.default_rng(0).poisson(3.0, size=(60, 2))
    fitted = rv.LatentClass(likelihood=Counts(), kind="count", steps=20, random_state=0).fit(counts)
    assert dataclasses.asdict(fitted.model_.components.link) == {} and fitted.evaluate(counts).direction == "exact"
