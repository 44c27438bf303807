"""Recipes learn what their papers say they learn, and every recipe file has the form of one."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import Quadrature
from training import same as same_arrays

import ravine as rv
from ravine import recipes, registry
from ravine._tree import Fixed, Part, as_arrays
from ravine.core import Row
from ravine.data import ArraySource, Schema, load_dataset, rows
from ravine.data.generated import LOADING, NOISE
from ravine.evidence import ExactGenerator, ImportanceWeighted
from ravine.gradients import Pathwise
from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
from ravine.objectives import AnalyticELBO
from ravine.recipes.factor_analysis import TRUE_MODEL
from ravine.rules import EM, Descend, Optimiser
from ravine.train import Stage, train

EXPLAINERS = {
    "LearningToExplain",
    "ProductOfExpertsClassifier",
}  # no models of rows: not for the shell
FILES = sorted(Path(inspect.getfile(recipes)).parent.glob("[!_]*.py"))

# Yang 2022, section 3: mean log-likelihood in nats a row of the true model on the test rows, and of the best zero-mean
# Gaussian on the training rows.
TRUE, CEILING = -3.970451758801384, -3.932797511923263


def tutorial() -> tuple[np.ndarray, np.ndarray]:
    data = load_dataset("fa-tutorial")
    return data.train, data.test


def mean_evidence(model, X: np.ndarray) -> float:
    return float(jnp.mean(jax.jit(jax.vmap(model.log_evidence))(Row(jnp.asarray(X)))))


def zero_mean(loading, noise) -> LinearGaussian:
    return LinearGaussian(jnp.asarray(loading), Fixed(jnp.zeros(3)), DiagonalNoise(jnp.asarray(noise)))


# --- factor analysis


def test_the_true_model_scores_what_the_tutorial_says(x64):
    train_rows, test_rows = tutorial()
    assert mean_evidence(zero_mean(LOADING, NOISE), test_rows) == pytest.approx(TRUE, abs=1e-12)
    assert TRUE_MODEL.reported == TRUE
    second = train_rows.T @ train_rows / len(train_rows)
    ceiling = -1.5 * np.log(2 * np.pi * np.e) - 0.5 * np.linalg.slogdet(second)[1]
    assert ceiling == pytest.approx(CEILING, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_a_zero_mean_fit_climbs_to_the_ceiling_and_never_above(seed, x64):
    X = tutorial()[0]
    model = zero_mean(np.random.default_rng(seed).normal(size=(3, 2)), np.ones(3))
    chunks = list(train(model, [Stage(EM(tol=0.0), 300)], ArraySource(Row(jnp.asarray(X))), key=jr.key(seed)))
    last, climb = chunks[-1], np.concatenate([chunk.metrics["objective"] for chunk in chunks])
    assert (np.diff(climb) > -1e-12).all() and climb[-1] - climb[0] > 0.1
    assert CEILING - 0.01 < climb[-1] <= CEILING + 1e-12
    assert mean_evidence(last.state.model, X) <= CEILING + 1e-12


def test_factor_analysis_finds_the_tutorials_model():
    X, held = tutorial()
    model = rv.FactorAnalysis(latents=2, random_state=0).fit(X)
    assert TRUE - 0.01 < model.score(held) < TRUE + 0.002
    centred = X - X.mean(axis=0)  # the recipe learns the mean too: its own ceiling is that of the covariance
    best = -1.5 * np.log(2 * np.pi * np.e) - 0.5 * np.linalg.slogdet(centred.T @ centred / len(X))[1]
    assert best - 0.01 < model.score(X) <= best + 1e-12


@pytest.mark.slow
def test_variational_factor_analysis_approaches_the_true_model():
    X, held = tutorial()
    model = rv.VariationalFactorAnalysis(latents=2, random_state=0).fit(X)
    evidence = model.score(held)
    assert TRUE - 0.03 < evidence < TRUE + 0.002
    value = AnalyticELBO(Quadrature(2)).terms
    batch = rows(held, model.schema_, dtype=np.float32)
    fit, cells = jax.jit(jax.vmap(lambda row: value(model.model_, row, key=jr.key(0))))(batch)
    elbo = float(jnp.mean(fit - jnp.sum(cells, axis=1))) + float(model.schema_.log_det())
    assert evidence - 0.1 < elbo < evidence


@pytest.mark.slow
def test_learning_one_half_closes_the_gap_and_learning_the_other_opens_it(x64):
    """Yang 2022, section 3.3: the two steps of EM, seen by freezing one half of the pair at a time."""
    X = tutorial()[0]
    schema = Schema.infer(X, standardise=True)
    source = ArraySource(rows(X, schema, dtype=np.float64))
    batch = rows(X, schema, dtype=np.float64)

    @eqx.filter_jit
    def evaluated(model):
        """The bound, with its expectation done exactly, and what it bounds."""
        loss, _ = AnalyticELBO(Quadrature(2))(model, batch, key=jr.key(0))
        return -loss, jnp.mean(ExactGenerator()(model, batch, key=jr.key(0))[0])

    def learned(model, half, key):
        rule = Descend(AnalyticELBO(Pathwise()), Optimiser(optax.adam, (1e-2,)), on=Part(half))
        *_, last = train(model, [Stage(rule, 1000, batch_size=100)], source, key=key)
        return last.state.model, *map(float, evaluated(last.state.model))

    model = rv.VariationalFactorAnalysis(latents=2).build(schema, key=jr.key(1))
    elbo, evidence = map(float, evaluated(model))
    for i in range(2):
        frozen = model.p
        model, closer, same = learned(model, "q", jr.key(2 * i))
        assert same == evidence and same_arrays(model.p, as_arrays(frozen))
        assert closer > elbo and 0 <= evidence - closer < 0.2 * (evidence - elbo)
        frozen = model.q
        model, elbo, higher = learned(model, "p", jr.key(2 * i + 1))
        assert same_arrays(model.q, as_arrays(frozen))
        assert elbo > closer and higher > evidence and higher - elbo > 2 * (evidence - closer)
        evidence = higher


# --- the variational auto-encoder


@pytest.mark.slow
def test_a_vae_learns_that_pixels_belong_together():
    """Better on held-out digits than independent columns with the same law, by far."""
    data = load_dataset("digits").train
    X, held = data[:1500], data[1500:]
    model = rv.VAE(
        kind="levels", levels=17, latents=10, hidden=(64,), steps=500, rate=2e-3, random_state=0,
        evidence=ImportanceWeighted(50),
    ).fit(X)  # fmt: skip
    got = model.evaluate(held)
    share = (X.sum(axis=0) + 1) / (16 * len(X) + 2)
    choose = np.array([np.prod([(16 - j) / (j + 1) for j in range(k)]) for k in range(17)])
    alone = np.log(choose)[held.astype(int)] + held * np.log(share) + (16 - held) * np.log1p(-share)
    assert got.direction == "lower" and got.measure == "counting"
    assert got.log_likelihood > alone.sum(axis=1).mean() + 20
    assert got.standard_error < 5


@pytest.mark.slow
def test_a_mixture_finds_the_classes_of_iris():
    from sklearn.datasets import load_iris
    from sklearn.metrics import adjusted_rand_score
    from sklearn.mixture import GaussianMixture

    X, y = load_iris(return_X_y=True)
    best = rv.GaussianMixture(components=3, n_init=3, random_state=0).fit(X)
    theirs = GaussianMixture(3, n_init=3, random_state=0).fit(X)
    assert best.score(X) > theirs.score(X) - 0.01
    assert adjusted_rand_score(y, best.predict(X)) > 0.85


# --- the form of a recipe


def classes() -> list[tuple[str, ast.ClassDef]]:
    return [(path.name, node) for path in FILES for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ClassDef)]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_opens_with_its_paper(path):
    header = ast.get_docstring(ast.parse(path.read_text()))
    assert re.search(r"\b(19|20)\d\d\b", header.splitlines()[0])
    assert re.search(r"arXiv:|\*[A-Z]", header), "neither a number of arXiv nor the title of a paper"
    assert len(header.splitlines()) >= 3


@pytest.mark.parametrize("node", [pytest.param(node, id=node.name) for _, node in classes()])
def test_a_recipe_is_short_and_has_no_branches(node):
    assert node.end_lineno - node.lineno + 1 <= 70
    assert not [n for n in ast.walk(node) if isinstance(n, (ast.If, ast.IfExp, ast.For, ast.While, ast.Try))]


@pytest.mark.parametrize("name", registry.recipes())
def test_a_recipe_is_its_fields(name):
    cls = registry.recipe(name)
    made, documented = cls(), "\n".join(inspect.getdoc(base) or "" for base in cls.__mro__)
    for field in dataclasses.fields(cls):
        assert field.kw_only and getattr(made, field.name) == field.default
        assert re.search(rf"^(\w+, )*{field.name}(, \w+)* :", documented, re.M), field.name
    assert {node.name for _, node in classes()} == {home[1] for home in registry.recipes().values()} | EXPLAINERS
    with pytest.raises(TypeError):
        cls(3)
    assert "if " not in inspect.getsource(cls.build) and len(cls().stages(100)) >= 1
