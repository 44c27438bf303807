"""Some columns given the others: likelihoods and draws against enumeration, and what every verb then means."""

from __future__ import annotations

import itertools
import json
import pickle
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import pytest
from helpers import LIMIT, some
from scipy.special import expit, log_softmax, logsumexp

import ravine as rv
from ravine._check import Complaint
from ravine.cli.entry import main
from ravine.core import Row
from ravine.data import Schema
from ravine.evidence import ImportanceWeighted
from ravine.gradients import NVIL, REBAR, RLOO, VIMCO, Pathwise, StraightThroughGumbel
from ravine.objectives import ELBO, IWAE, Relaxed

GIVEN = (0, 3)  # of five columns
FREE = (1, 2, 4)


def drawn_rows(n: int, seed: int = 0) -> np.ndarray:
    """Three pairs of equal bits: the first of each pair in front."""
    bits = np.random.default_rng(seed).integers(0, 2, size=(n, 3)).astype(float)
    return np.concatenate([bits, bits], axis=1)


def recipe(**fields: Any) -> rv.StructuredPrediction:
    return rv.StructuredPrediction(**{"layers": (4,), "steps": 30, "random_state": 0, "progress": False} | fields)


def trained(layers: tuple[Any, ...]) -> rv.StructuredPrediction:
    """Two small layers after a little training, so that no parameter is where it began."""
    rows = np.random.default_rng(1).integers(0, 2, size=(50, 5)).astype(float)
    return recipe(given=GIVEN, layers=layers, links="~", rate=0.05, evidence=ImportanceWeighted(4000)).fit(rows)


@pytest.fixture(scope="module")
def fitted() -> rv.StructuredPrediction:
    return trained((2, 3))


# --- against enumeration, in numpy


def straight(link: Any, x: np.ndarray) -> np.ndarray:
    """What a net of signs gives."""
    h = 2 * x.ravel() - 1 - np.asarray(link.centre.value)
    for i, layer in enumerate(link.net.layers):
        h = np.asarray(layer.weight) @ (np.tanh(h) if i else h) + np.asarray(layer.bias)
    return h


def log_bits(raw: np.ndarray, x: np.ndarray) -> float:
    p = expit(raw)
    return float(np.sum(np.where(np.asarray(x) > 0.5, np.log(p), np.log1p(-p))))


def log_layer(raw: np.ndarray, z: np.ndarray) -> float:
    """Of bits, or of one-hot vectors in rows."""
    return log_bits(raw, z) if z.ndim == 1 else float(np.sum(z * log_softmax(raw.reshape(z.shape), axis=1)))


def every(layer: int | tuple[int, int]) -> list[np.ndarray]:
    if isinstance(layer, int):
        return [np.array(bits, float) for bits in itertools.product((0, 1), repeat=layer)]
    return [np.eye(layer[1])[list(classes)] for classes in itertools.product(range(layer[1]), repeat=layer[0])]


def log_p(net: Any, row: np.ndarray, layers: tuple[Any, Any] = (2, 3)) -> float:
    """log p(the free cells of a row that are not NaN | the given cells), summed over both layers of latents."""
    first, seen = straight(net.first.net, row[list(GIVEN)]), [j for j in FREE if not np.isnan(row[j])]
    terms = []
    for a in every(layers[0]):
        second = straight(net.steps[0].net, a)
        for b in every(layers[1]):
            x = straight(net.conditional.net, b)
            terms.append(log_layer(first, a) + log_layer(second, b) + log_bits(x[seen], row[seen]))
    return float(logsumexp(terms))


@pytest.mark.parametrize("layers", some([(2, 3), ((2, 3), (1, 4)), (2, (2, 3))], (2, 3)))
def test_the_likelihood_is_that_of_the_free_cells_given_the_others(layers):
    rows = np.array(
        [[1, 0, 1, 0, 0], [0, 1, 1, 1, 1], [1, np.nan, 0, 1, np.nan], [0, np.nan, np.nan, 1, np.nan]], float
    )
    fitted = trained(layers)
    got, exact = fitted.log_likelihood(rows), [log_p(fitted.model_.p, row, layers) for row in rows]
    assert got.direction == "lower" and got.value[3] == exact[3] == 0 or abs(exact[3]) < 1e-12
    # the log of a mean lies below by half its variance: 4000 draws leave far less than a standard error
    assert np.all(np.abs(got.value - exact) <= LIMIT * got.standard_error + 1e-5), (got.value, exact)


@pytest.mark.slow
def test_probabilities_of_the_free_cells_sum_to_one(fitted):
    rows = [np.insert(free, (0, 2), (1.0, 0.0)) for free in every(3)]
    assert np.isclose(sum(np.exp(log_p(fitted.model_.p, row)) for row in rows), 1)
    got = fitted.log_likelihood(np.array(rows))
    error = np.sqrt(np.sum((np.exp(got.value) * got.standard_error) ** 2))
    assert abs(np.exp(got.value).sum() - 1) < LIMIT * error + 1e-5


@pytest.mark.slow
def test_draws_follow_the_law_of_what_is_missing(fitted):
    """Frequencies of the four ways to fill two cells, each within 4.5 standard errors of enumeration."""
    row, draws = np.array([[1, np.nan, 0, 0, np.nan]]), 4000
    made = np.asarray(fitted.set_params(particles=2000).impute(row, draws=draws))[:, 0]
    assert (made[:, [0, 2, 3]] == row[0, [0, 2, 3]]).all()
    ways = [np.array([1, a, 0, 0, b]) for a, b in itertools.product((0.0, 1.0), repeat=2)]
    exact = np.exp(np.array([log_p(fitted.model_.p, way) for way in ways]) - log_p(fitted.model_.p, row[0]))
    share = np.array([(made == way).all(axis=1).mean() for way in ways])
    spread = np.sqrt(exact * (1 - exact) * (1 / draws + 1 / 2000))  # of the draws, and of the particles behind them
    assert np.all(np.abs(share - exact) < LIMIT * spread), (share, exact)


def test_without_a_context_there_is_no_law(fitted):
    with pytest.raises(TypeError, match="needs these"):
        fitted.model_.p.prior()
    z, x = fitted.model_.sample(jnp.array([1.0, 0.0]), key=jr.key(0))
    assert [layer.shape for layer in z] == [(2,), (3,)] and x[jnp.array(GIVEN)].tolist() == [1.0, 0.0]


# --- learning: copies of the given bits, which independent columns cannot tell

BASE = -3 * np.log(2)
LEARNERS = {
    "relaxed": Relaxed(IWAE(1, Pathwise()), 2 / 3, 2 / 3),
    "vimco": IWAE(5, VIMCO()),
    "rloo": ELBO(RLOO(4)),
    "nvil": ELBO(NVIL(width=8)),
    "straight-through": ELBO(StraightThroughGumbel(1.0)),
    "rebar": ELBO(REBAR()),
}


@pytest.mark.parametrize("layers", [(8,), pytest.param(((8, 3),), marks=pytest.mark.slow)], ids=["bits", "classes"])
@pytest.mark.parametrize("name", some(LEARNERS, "relaxed"))
def test_every_estimator_learns_what_follows_from_what_is_given(name, layers):
    model = recipe(given=3, layers=layers, steps=600, rate=1e-2, objective=LEARNERS[name]).fit(drawn_rows(400))
    fresh = drawn_rows(100, seed=1)
    assert model.score(fresh) > BASE / 4
    asked = np.concatenate([fresh[:, :3], 1 - fresh[:, 3:]], axis=1)  # what is not given must not be looked at
    assert (np.asarray(model.reconstruct(asked)) == fresh).mean() > 0.95


# --- units


@pytest.mark.slow
def test_a_density_is_of_the_free_columns_alone():
    rows = np.random.default_rng(0).normal(size=(60, 3))
    score = lambda scale: recipe(given=1).fit(rows * scale).score_samples(rows * scale)  # noqa: E731
    plain = score(np.ones(3))
    assert np.allclose(score(np.array([10.0, 1.0, 1.0])), plain, atol=1e-3)
    assert np.allclose(score(np.array([1.0, 10.0, 1.0])), plain - np.log(10), atol=1e-3)


def test_bits_per_dimension_count_the_free_cells():
    rows = drawn_rows(40)
    model = recipe(given=3).fit(rows)
    got = model.evaluate(rows)
    assert np.isclose(got.bits_per_dim, -got.log_likelihood / (3 * np.log(2)))


# --- verbs


def frame(n: int = 120) -> pd.DataFrame:
    stream = np.random.default_rng(0)
    group, size = stream.choice(["a", "b", "c"], n), stream.poisson(3, n)
    width = 2.0 * (group == "a") + stream.normal(size=n)
    kind = pd.Categorical(np.where(stream.uniform(size=n) < 0.9, group, "c"))
    return pd.DataFrame({"group": pd.Categorical(group), "width": width, "size": size, "kind": kind})


@pytest.mark.slow
def test_a_frame_goes_through_every_verb(tmp_path):
    table = frame()
    model = recipe(given=("group", "size")).fit(table)
    asked = table.head(6).copy()
    asked.loc[asked.index[:3], ["width", "kind"]] = np.nan
    filled = model.impute(asked)
    assert filled.dtypes.equals(table.dtypes) and not filled.isna().any().any()
    assert filled[["group", "size"]].equals(table.head(6)[["group", "size"]])
    assert filled.iloc[3:].equals(table.iloc[3:6])
    again = model.sample_given(table.head(4), draws=2)
    assert len(again) == 2 and all(one[["group", "size"]].equals(table.head(4)[["group", "size"]]) for one in again)
    assert model.reconstruct(table.head(4)).dtypes.equals(table.dtypes) and not asked.head(3).notna().all(axis=None)
    model.save(tmp_path / "run")
    loaded = rv.load(tmp_path / "run")
    for other in (loaded, pickle.loads(pickle.dumps(model))):
        assert (other.score_samples(table) == model.score_samples(table)).all()
    assert loaded.given == ("group", "size") and loaded.transform(table).shape == (120, 4)


@pytest.mark.slow
def test_rows_alone_get_the_answer_they_get_among_others(fitted):
    rows = np.random.default_rng(2).integers(0, 2, size=(20, 5)).astype(float)
    for verb in (fitted.score_samples, fitted.transform, fitted.reconstruct):
        assert (np.asarray(verb(rows))[7:8] == np.asarray(verb(rows[7:8]))).all()


def test_what_cannot_be_asked_is_one_line(fitted, tmp_path, capsys):
    rows = np.random.default_rng(2).integers(0, 2, size=(30, 5)).astype(float)
    assert not hasattr(fitted, "sample") and not hasattr(fitted, "inverse_transform")
    with pytest.raises(Complaint, match="sample_given"):
        fitted.sample(3)
    with pytest.raises(Complaint, match="reconstruct"):
        fitted.inverse_transform(np.zeros((1, 5)))
    with pytest.raises(Complaint, match="score_samples"):
        rv.anomalies(fitted, rows)
    with pytest.raises(Complaint, match="sample_given"):
        rv.synthesize(fitted, rows)
    fitted.save(tmp_path / "run")
    assert main(["sample", str(tmp_path / "run"), "--out", str(tmp_path / "new.csv")]) == 2
    said = capsys.readouterr().err
    assert "sample_given" in said and said.count("\n") == 1 and not (tmp_path / "new.csv").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (6, "some of 6"),
        (("x",), "names or places"),
        ((1, 1), "each once"),
        ((), "some of 6"),
        ((-1,), "names or places"),
    ],
)
def test_a_wrong_choice_of_columns_is_one_line(given, words):
    with pytest.raises(Complaint, match=words) as raised:
        recipe(given=given).fit(drawn_rows(20))
    assert "\n" not in str(raised.value)


def test_a_hole_in_a_given_column_is_refused():
    rows = drawn_rows(20)
    model, holed = recipe(given=3).fit(rows), rows.copy()
    holed[4, 2] = np.nan
    for ask in (model.score, model.impute, recipe(given=3).fit):
        with pytest.raises(Complaint, match="NaN in row 4"):
            ask(holed)


@pytest.mark.slow
def test_conditional_numbers_are_not_ranked_among_others():
    rows = drawn_rows(60)
    told = rv.compare(rows, {"half": recipe(given=3), "all": rv.SigmoidBeliefNet(layers=(2,), steps=20)})
    assert "half: not ranked: given" in str(told).replace("\n  ", " ")


@pytest.mark.slow
def test_a_diagnosis_and_a_report_draw_the_rest_of_real_rows(fitted, tmp_path):
    rows = np.random.default_rng(2).integers(0, 2, size=(60, 5)).astype(float)
    found = {one.name: one for one in fitted.diagnose(rows[:40], rows[40:]).findings}
    assert "samples" in found and "latents" not in found
    assert json.dumps(found["samples"].numbers)
    rv.report(fitted, rows, tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_a_model_is_built_without_data():
    """The bound of one draw is the mean of log p(x | z) under the law of z: the proposal has no weight."""
    model = recipe(given=2).build(Schema.infer(drawn_rows(8)), key=jr.key(0))
    row = Row(jnp.ones(6), jnp.arange(6) >= 2, context=jnp.ones(2))
    z, log_q = model.posterior(row).sample(key=jr.key(1))
    assert float(model.log_prior(z, row) - log_q) == 0
