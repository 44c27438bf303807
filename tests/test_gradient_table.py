"""The table of gradient estimators on cases whose truth is known."""

import json

import jax.random as jr
import numpy as np
import pytest
from helpers import MODELS, binary_rows

import ravine as rv
from ravine.diagnose.estimators import Estimated, GradientTable
from ravine.diagnose.gradients import cross, estimator_table, squared_distance
from ravine.gradients import RLOO, DisARM, GumbelSoftmax, Pathwise
from ravine.objectives import ELBO, IWAE, StickingTheLanding


@pytest.fixture(scope="module")
def bits() -> GradientTable:
    """Three bits for every row: the exact gradient is the reference."""
    return estimator_table(MODELS["bits"](), ELBO(RLOO(2)), binary_rows(), key=jr.key(0), draws=512)


@pytest.mark.slow
def test_the_exact_gradient_judges_where_states_are_few(bits):
    assert bits.reference == "the exact gradient" and bits.draws == 512 and bits.current == "RLOO()"
    assert bits["Enumerate()"].variance < 1e-9 and not bits["Enumerate()"].seen_biased


@pytest.mark.slow
def test_what_is_declared_is_what_is_seen(bits):
    """Sixteen groups, a threshold of three jackknife errors: at most two of twelve unbiased ones may be above it."""
    honest = [row for row in bits.rows if not row.declared_biased]
    assert len(honest) >= 10 and sum(row.seen_biased for row in honest) <= 2
    assert bits["GumbelSoftmax()"].seen_biased and bits["GumbelSoftmax()"].bias()[0] != "<"


def test_more_draws_have_less_noise(bits):
    assert bits["RLOO(k=4)"].variance < bits["RLOO()"].variance < bits["ScoreFunction()"].variance
    assert bits["RLOO(k=4)"].evaluations == 2 * bits["RLOO()"].evaluations == 4


def test_words_come_first(bits):
    first = str(bits).split("\n\n")[0]
    assert first.startswith("Use Enumerate(): unbiased") and "trained with RLOO()" in first
    assert "| RLOO(k=4) |" in bits.markdown()
    assert json.loads(json.dumps(bits.to_json()))["rows"][0]["name"] == "Enumerate()"


def test_a_picture_shows_every_estimator_that_is_noisy(bits, tmp_path):
    figure = bits.plot(tmp_path / "made.png")
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert "DisARM()" in names and "Enumerate()" not in names and (tmp_path / "made.png").stat().st_size > 5000


@pytest.mark.slow
def test_an_importance_weighted_bound_has_its_own_estimator():
    table = estimator_table(MODELS["bits"](), IWAE(3, RLOO(2)), binary_rows(), key=jr.key(0), draws=64)
    assert "VIMCO()" in {row.name for row in table.rows} and table.reference.endswith(
        tuple(row.name for row in table.rows)
    )


@pytest.mark.parametrize("known", [True, False], ids=["a known vector", "means of it"])
def test_the_squared_distance_is_right_on_average(known):
    """400 repetitions; the mean is within 4.5 standard errors, and the jackknife knows the spread within a third."""
    stream, found = np.random.default_rng(0), []
    shift, noise = np.full(30, 0.05), 0.5
    for _ in range(400):
        first = shift + noise * stream.normal(size=(16, 30))
        second = np.zeros((1, 30)) if known else noise * stream.normal(size=(16, 30))
        found.append(squared_distance(first, second))
    value, error = np.array(found).T
    assert abs(value.mean() - (shift**2).sum()) < 4.5 * value.std() / 20
    assert 0.67 < np.sqrt((error**2).mean()) / value.std() < 1.5


def test_scalar_products_of_different_rows_have_no_noise_term():
    rows = np.random.default_rng(0).normal(size=(5, 3))
    pairs = [rows[i] @ rows[j] for i in range(5) for j in range(5) if i != j]
    assert cross(rows) == pytest.approx(np.mean(pairs))


def estimated(name: str, biased: bool, variance: float, bias: float = 0.0, seconds: float = 1.0) -> Estimated:
    return Estimated(name, biased, 1, bias**2, 1e-6, variance, seconds, 1.0)


@pytest.mark.parametrize(
    "rows, words",
    {
        "noise is worth its bias": (
            [estimated("A", False, 4.0), estimated("B", True, 1.0, 0.3)],
            "Use A: unbiased.* B has 4 times less noise for its time, at a bias of 0.300",
        ),
        "a bias without gain is not named": (
            [estimated("A", False, 1.0), estimated("B", True, 2.0, 0.3)],
            "for its time.$",
        ),
        "time counts": ([estimated("A", False, 1.0, seconds=9.0), estimated("B", False, 2.0)], "Use B"),
        "a small bias is named": (
            [estimated("A", False, 9.0), estimated("B", True, 1.0, 0.5), estimated("C", True, 2.0, 0.01)],
            "C has a bias of 0.010 only",
        ),
        "only biased ones": ([estimated("B", True, 1.0, 0.3)], "B has the least noise for its time, with a bias"),
    }.values(),
)
def test_recommendations_say_why(rows, words):
    import re

    assert re.search(words, GradientTable(tuple(rows), "the truth", 32, 1).recommendation())


@pytest.mark.slow
def test_bad_requests_are_one_line():
    model = MODELS["linear-gaussian"]()
    with pytest.raises(ValueError, match="the objective: expected one with a gradient estimator"):
        estimator_table(model, StickingTheLanding(), binary_rows(), key=jr.key(0))
    with pytest.raises(ValueError, match="draws: expected a whole number"):
        estimator_table(model, ELBO(Pathwise()), binary_rows(), key=jr.key(0), draws=8)
    mixture = rv.GaussianMixture(components=1, iterations=2).fit(np.random.default_rng(0).normal(size=(9, 2)))
    with pytest.raises(ValueError, match="GaussianMixture: expected a recipe that learns by a gradient"):
        rv.gradient_table(mixture, np.zeros((3, 2)))


@pytest.mark.slow
def test_one_argument_changes_the_estimator():
    X = (np.random.default_rng(0).uniform(size=(40, 5)) < 0.4).astype(float)
    fields = {"latents": 1, "classes": 3, "hidden": (4,), "steps": 3, "random_state": 0, "progress": False}
    for gradient in (GumbelSoftmax(0.7), RLOO(3)):
        model = rv.GumbelVAE(gradient=gradient, **fields).fit(X)
        assert np.isfinite(model.score(X)) and model.transform(X).shape == (40, 3)
    with pytest.raises(TypeError, match="DisARM cannot differentiate through OneHot: .*RLOO"):
        rv.GumbelVAE(gradient=DisARM(), **fields).fit(X)
