"""What a fitted recipe promises its user: holes, units, directions, weights, containers and files, for every recipe."""

import copy
import functools
import json
import pickle
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import joblib
import numpy as np
import pandas as pd
import pytest
from helpers import Quadrature, some
from sklearn.exceptions import NotFittedError

import ravine as rv
from ravine import answers, nets
from ravine._jax import precision
from ravine._tree import Power, trainable
from ravine.checkpoint import load_record
from ravine.core import Row
from ravine.data import Schema, rows
from ravine.dist import Bits, Counts, HeavyTailed, Levels, Real, UnitInterval
from ravine.evidence import ImportanceWeighted
from ravine.fitting import blank
from ravine.gradients import Pathwise
from ravine.models.families import Diagonal, Given
from ravine.objectives import IWAE, AnalyticELBO, MaximumLikelihood

# Recipes, small. `EXACT` have a closed form for everything, `LEARNED` descend on minibatches.
RECIPES = {
    "vae": functools.partial(
        rv.VAE,
        latents=2,
        hidden=(6,),
        steps=40,
        particles=20,
        evidence=ImportanceWeighted(20, block=10),
        random_state=0,
    ),
    "variational-factor-analysis": functools.partial(
        rv.VariationalFactorAnalysis, latents=2, steps=40, particles=20, random_state=0
    ),
    "miwae": functools.partial(
        rv.MIWAE,
        latents=2,
        hidden=(6,),
        objective=IWAE(2, Pathwise()),
        steps=40,
        particles=20,
        evidence=ImportanceWeighted(20, block=10),
        random_state=0,
    ),
    "latent-class": functools.partial(rv.LatentClass, components=2, steps=40, random_state=0),
    "mixed-factor-analysis": functools.partial(
        rv.MixedFactorAnalysis,
        latents=2,
        hidden=(6,),
        steps=40,
        particles=20,
        evidence=ImportanceWeighted(20, block=10),
        random_state=0,
    ),
    "gaussian-mixture": functools.partial(rv.GaussianMixture, components=2, iterations=20, random_state=0),
    "factor-analysis": functools.partial(rv.FactorAnalysis, latents=1, iterations=20, random_state=0),
}
EXACT = ("gaussian-mixture", "factor-analysis")
LEARNED = ("vae", "miwae", "variational-factor-analysis", "latent-class", "mixed-factor-analysis")
SAMPLED = ("vae", "miwae", "mixed-factor-analysis")  # whose log p(x) is a bound by importance sampling
TOLD = ("vae", "variational-factor-analysis", "mixed-factor-analysis")  # whose recogniser sees which cells are missing
TOLERANCE = dict.fromkeys(LEARNED, 1e-4) | dict.fromkeys(EXACT, 1e-10)

ROWS, COLUMNS, EMPTY = 60, 4, 3  # row EMPTY of the table has no observed cell


def table(holes: bool = True) -> np.ndarray:
    """Two groups of correlated rows in unlike units."""
    rng = np.random.default_rng(0)
    causes = np.column_stack([rng.normal(size=ROWS), 3.0 * (np.arange(ROWS) % 2)])
    X = causes @ rng.normal(size=(2, COLUMNS)) + 0.3 * rng.normal(size=(ROWS, COLUMNS))
    X = X * [1.0, 10.0, 0.1, 1.0] + [0.0, 50.0, 0.0, -3.0]
    if holes:
        X[rng.random(X.shape) < 0.15] = np.nan
        X[EMPTY] = np.nan
    return X


@functools.cache
def fitted(name: str):
    return RECIPES[name]().fit(table())


def few() -> np.ndarray:
    """Rows with and without holes, the empty one among them."""
    return table()[:10]


def parameters(model) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(trainable(model.model_)[0])]


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(parameters(one), parameters(other), strict=True))


def refused(action, *words) -> None:
    """ValueError, one printable line that holds these words."""
    with pytest.raises(ValueError) as caught:
        action()
    assert str(caught.value).isprintable()
    for word in words:
        assert word in str(caught.value)


# The others are of the family of the VAE, and take part in the checks of every recipe in `make test-all`.
DEFAULT = ("vae", "gaussian-mixture", "factor-analysis")
every = pytest.mark.parametrize("name", some(RECIPES, *DEFAULT))


# --- missing cells


@every
def test_training_with_holes_gives_finite_parameters(name):
    model = fitted(name)
    assert model.schema_.holes and model.complete_
    assert all(np.isfinite(leaf).all() for leaf in parameters(model))


@pytest.mark.parametrize("name", TOLD)
def test_a_recogniser_is_told_of_holes_it_was_trained_with(name):
    read = fitted(name).model_.q.read
    assert read.tells and read.inputs() == 2 * COLUMNS
    x = jnp.zeros(COLUMNS)
    unlike = [read(Row(x, jnp.array(mask))) for mask in ([True] * COLUMNS, [True, False, True, True])]
    assert (unlike[0] != unlike[1]).any()


@every
def test_a_hole_in_one_row_changes_no_other(name):
    model, X = fitted(name), few()
    before = model.score_samples(X)
    X[0, 1] = np.nan
    after = model.score_samples(X)
    assert before[0] != after[0]
    np.testing.assert_allclose(after[1:], before[1:], atol=TOLERANCE[name], rtol=0)


VERBS = {
    "score_samples": lambda m, X: m.score_samples(X)[:, None],
    "transform": lambda m, X: m.transform(X),
    "reconstruct": lambda m, X: m.reconstruct(X),
    "impute": lambda m, X: m.impute(X),
    "draws": lambda m, X: np.moveaxis(m.impute(X, draws=3), 0, 2).reshape(len(X), -1),
}


@every
def test_a_row_alone_gets_the_answer_it_gets_among_others(name):
    model, X = fitted(name), few()
    whole = int(np.flatnonzero(~np.isnan(X).any(axis=1))[0])
    for verb, answer in VERBS.items():
        among = answer(model, X)
        for i in (whole, EMPTY, 4):
            assert np.array_equal(answer(model, X[[i]]), among[[i]]), f"{verb} {i}"
        np.testing.assert_allclose(answer(model, X[::-1]), among[::-1], rtol=1e-5, atol=1e-5, err_msg=verb)


@every
def test_an_empty_row_scores_exactly_zero(name):
    got = fitted(name).log_likelihood(few())
    assert got.value[EMPTY] == 0 and got.standard_error[EMPTY] == 0
    assert np.isfinite(got.value).all() and (np.delete(got.value, EMPTY) != 0).all()
    assert (got.standard_error == 0).all() == (name not in SAMPLED)


@every
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_imputing_never_alters_an_observed_cell(name, dtype):
    model, X = fitted(name), few().astype(dtype)
    seen = ~np.isnan(X)
    filled, draws = model.impute(X), model.impute(X, draws=3)
    assert filled.dtype == draws.dtype == dtype and filled.shape == X.shape and draws.shape == (3, *X.shape)
    assert np.isfinite(filled).all() and np.isfinite(draws).all()
    assert (filled[seen].view(np.uint8) == X[seen].view(np.uint8)).all()
    assert all((draw[seen].view(np.uint8) == X[seen].view(np.uint8)).all() for draw in draws)
    assert (draws[0][~seen] != draws[1][~seen]).all()
    np.testing.assert_array_equal(model.impute(filled), filled)


def dense_conditional(mean, covariance, x):
    """E[missing | observed] of a Gaussian, and log p(observed), by dense algebra."""
    seen = ~np.isnan(x)
    residual, inside = (x - mean)[seen], covariance[np.ix_(seen, seen)]
    gain = covariance[np.ix_(~seen, seen)] @ np.linalg.inv(inside)
    square = residual @ np.linalg.solve(inside, residual)
    value = -0.5 * (square + np.linalg.slogdet(2 * np.pi * inside)[1]) if seen.any() else 0.0
    return mean[~seen] + gain @ residual, value


def gaussians(model) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Log weight, mean and covariance of each component."""
    m = model.model_
    if isinstance(model, rv.FactorAnalysis):
        loading = np.asarray(m.loading)
        return [(0.0, np.asarray(m.bias), loading @ loading.T + np.diag(np.asarray(m.noise_scale()) ** 2))]
    weight, factors = np.asarray(m.logits) - np.logaddexp.reduce(m.logits), np.asarray(m.components.factors)
    return [(w, np.asarray(mean), f @ f.T) for w, mean, f in zip(weight, m.components.means, factors, strict=True)]


@pytest.mark.parametrize("name", EXACT)
def test_exact_models_equal_dense_algebra(name):
    model, X = fitted(name), few()
    filled, scores = model.impute(X), model.score_samples(X)
    for i, x in enumerate(X):
        parts = [(w, *dense_conditional(mean, covariance, x)) for w, mean, covariance in gaussians(model)]
        log_joint = np.array([w + value for w, _, value in parts])
        total = np.logaddexp.reduce(log_joint)
        expected = np.exp(log_joint - total) @ np.array([mean for _, mean, _ in parts])
        np.testing.assert_allclose(filled[i, np.isnan(x)], expected, atol=1e-8, rtol=1e-8)
        np.testing.assert_allclose(scores[i], 0 if np.isnan(x).all() else total, atol=1e-8)


# --- likelihoods


@every
def test_the_score_is_the_mean_of_the_rows(name):
    model, X = fitted(name), few()
    rows_, weight = model.score_samples(X), np.arange(10.0)
    assert model.score(X) == np.mean(rows_)
    np.testing.assert_allclose(model.score(X, sample_weight=weight), weight @ rows_ / weight.sum())
    refused(lambda: model.score(X, sample_weight=np.zeros(10)), "non-zero")
    assert (model.score_samples(X) == rows_).all()


@every
def test_an_evaluation_says_all_that_is_needed_to_compare(name):
    model, X = fitted(name), few()
    got, each = model.evaluate(X), model.log_likelihood(X)
    cells = np.count_nonzero(~np.isnan(X))
    assert got.log_likelihood == pytest.approx(each.value.mean())
    assert got.standard_error == pytest.approx(each.value.std(ddof=1) / np.sqrt(10))
    assert got.bits_per_dim == pytest.approx(-each.value.sum() / (cells * np.log(2)))
    assert (got.rows, got.measure, got.seed) == (10, "lebesgue", model.seed_)
    assert (got.direction, got.method) == (("lower", "importance-20") if name in SAMPLED else ("exact", "closed-form"))
    assert got.treated == model.schema_.describe() and "missing" in got.treated
    assert f"{got.log_likelihood:.3f} +- {got.standard_error:.3f} nats per row" in str(got)
    assert model.evaluate(X[:1]).standard_error == each.standard_error[0]


UNITS = {name: RECIPES[name] for name in (*LEARNED, "factor-analysis")}
UNITS["gaussian-mixture"] = functools.partial(RECIPES["gaussian-mixture"], standardise=True)  # its floor has a unit


@pytest.mark.parametrize("name", some(UNITS, *DEFAULT))
def test_likelihoods_are_in_the_users_units(name):
    """Another unit shifts the density by log |d new / d old|; with a power of two no more than rounding."""
    X = table()
    unit, slack = (10.0, 1e-9) if name == "factor-analysis" else (8.0, 1e-12 if name == "gaussian-mixture" else 1e-5)
    small, large = (UNITS[name]().fit(x) for x in (X, unit * X))
    shift = np.count_nonzero(~np.isnan(X), axis=1) * np.log(unit)
    np.testing.assert_allclose(large.score_samples(unit * X), small.score_samples(X) - shift, rtol=0, atol=slack)
    assert small.evaluate(X).direction == ("lower" if name in SAMPLED else "exact")


def digits(n: int = 40) -> np.ndarray:
    from ravine.data import load_dataset

    return load_dataset("digits").train[:n].reshape(n, 8, 8)


@functools.cache
def digit_vae(**treatment):
    kept = dict(treatment)
    return RECIPES["vae"](**kept).fit(digits())


TREATMENTS = {
    "levels": ({"kind": "levels", "levels": 17}, "64 cells as 17-level counts", "counting", set(range(17))),
    "binary": (
        {"binarise": "threshold", "threshold": 8.0},
        "64 binary cells (1 where at least 8)",
        "counting",
        {0, 16},
    ),
    "dynamic": (
        {"binarise": "dynamic", "levels": 17},
        "64 binary cells (dynamic binarisation of 17 levels)",
        "counting",
        {0, 16},
    ),
    "dequantised": (
        {"dequantise": "uniform", "levels": 17},
        "64 real cells dequantised from 17 levels (standardised)",
        "counting",
        set(range(17)),
    ),
    "reals": ({"kind": "real"}, "64 real cells (standardised)", "lebesgue", None),
}  # fmt: skip


QUICK = ("reals",)


@pytest.mark.parametrize("treatment", some(TREATMENTS, *QUICK))
def test_a_number_says_how_the_data_were_treated(treatment):
    fields, treated, measure, values = TREATMENTS[treatment]
    model, X = digit_vae(**fields), digits(12)
    got = model.evaluate(X)
    assert (got.treated, got.measure, got.direction) == (treated, measure, "lower")
    assert model.evaluate(X) == got  # dynamic binarisation and noise are drawn by the rows' own keys
    drawn = model.sample(4)
    assert drawn.shape == (4, 64) and (values is None or set(np.unique(drawn)) <= values)
    assert model.reconstruct(X).shape == X.shape
    holed = X.copy()
    holed[:, 2] = np.nan
    for filled in (model.impute(holed), *model.impute(holed, draws=2)):
        assert filled.shape == X.shape and (np.delete(filled, 2, axis=1) == np.delete(X, 2, axis=1)).all()
        assert values is None or set(np.unique(filled[:, 2])) <= values


@pytest.mark.slow
def test_a_dequantised_mixture_is_a_lower_bound():
    X = np.random.default_rng(0).integers(0, 5, size=(500, 2)).astype(float)
    model = rv.GaussianMixture(kind="levels", levels=5, dequantise="uniform", random_state=0).fit(X)
    got = model.evaluate(X)
    assert (got.direction, got.measure, got.treated) == ("lower", "counting", "2 real cells dequantised from 5 levels")
    assert got.log_likelihood < 0  # a probability
    assert set(np.unique(model.sample(50))) <= set(range(5))
    # the expected integer is half a level below the expected real number; the noise of 500 rows, drawn once to learn
    # and once to answer, moves the mean by 0.018 (one standard deviation)
    np.testing.assert_allclose(model.reconstruct(X).mean(axis=0), X.mean(axis=0), atol=4.5 * 0.018)


@pytest.mark.parametrize("name", (*EXACT, "variational-factor-analysis"))
def test_a_model_of_reals_refuses_what_is_declared_discrete(name):
    X = (table(holes=False) > 0).astype(float)
    for treatment in ({"kind": "binary"}, {"levels": 2}, {"binarise": "static"}, {"kind": "count"}):
        refused(lambda t=treatment: RECIPES[name](**t).fit(X), "expected real cells", "dequantise")
    assert RECIPES[name](iterations=1).fit(X).schema_.kind == "real" if name in EXACT else True


@pytest.mark.parametrize(
    "likelihood, fields",
    [
        (Bits(), {}),
        (Levels(5), {}),
        (Counts(), {}),
        (UnitInterval(), {}),
        (Real(), {"binarise": "threshold", "threshold": 0.0}),
        (Levels(2), {"kind": "levels", "levels": 3}),
    ],
    ids=repr,
)
def test_a_law_that_cannot_hold_the_cells_is_refused(likelihood, fields):
    X = table(holes=False) if fields.get("kind") is None else np.zeros((20, 2))
    refused(lambda: RECIPES["vae"](likelihood=likelihood, **fields).fit(X), "likelihood: expected a law of", "choose")


@pytest.mark.slow
def test_a_law_may_be_chosen():
    X = 1 / (1 + np.exp(-table(holes=False)))
    for likelihood, fields in ((UnitInterval(), {"standardise": False}), (HeavyTailed(), {})):
        model = RECIPES["vae"](likelihood=likelihood, **fields).fit(X)
        assert type(model.model_.p.conditional.link) is type(likelihood) and np.isfinite(model.score(X))


# --- weights

START = Given((0.5, 0.5), ((0.0,) * COLUMNS, (1.0,) * COLUMNS), ((1.0,) * COLUMNS,) * 2)


@pytest.mark.parametrize(
    "recipe",
    [
        functools.partial(rv.GaussianMixture, covariance=Diagonal(), start=START, iterations=5),
        functools.partial(rv.FactorAnalysis, iterations=5),
    ],
)
def test_em_from_one_start_counts_a_row_as_often_as_its_weight_says(recipe):
    X, weight = table(), np.arange(ROWS) % 3
    weighted, repeated = recipe().fit(X, sample_weight=weight), recipe().fit(np.repeat(X, weight, axis=0))
    for one, other in zip(parameters(weighted), parameters(repeated), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in LEARNED if name in DEFAULT])
def test_integer_weights_equal_repeated_rows_in_the_expected_gradient(name, x64):
    """With the expectation over the latents exact or done by quadrature, the gradient of a batch has no noise."""
    recipe, X, weight = RECIPES[name](), table(), np.arange(ROWS) % 3
    schema = Schema.infer(X, standardise=True)
    parameters_, rest = trainable(recipe.build(schema, key=jr.key(0)))

    def gradient(batch):
        objective = MaximumLikelihood() if name == "latent-class" else AnalyticELBO(Quadrature(3))
        loss = lambda p: objective(eqx.combine(p, rest), batch, key=jr.key(1))[0]  # noqa: E731
        return jax.tree.leaves(jax.jit(jax.grad(loss))(parameters_))

    weighted = gradient(rows(X, schema, weight=weight, dtype=np.float64))
    repeated = gradient(rows(np.repeat(X, weight, axis=0), schema, dtype=np.float64))
    assert max(np.abs(g).max() for g in repeated) > 0.01
    for one, other in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)


@every
def test_a_row_of_weight_zero_is_left_out(name):
    X, weight = table(), np.ones(ROWS)
    weight[5:15] = 0
    X[5:15] *= 1000
    one, other = (
        RECIPES[name]().fit(X, sample_weight=weight),
        RECIPES[name]().fit(X[weight > 0], sample_weight=np.ones(50)),
    )
    assert same(one, other) and one.schema_ == other.schema_


# --- containers


@every
def test_what_goes_in_as_a_frame_comes_out_as_one(name):
    frame = pd.DataFrame(table(), columns=list("abcd"), index=[f"r{i}" for i in range(ROWS)])
    model, part = RECIPES[name](steps=2).fit(frame) if name in LEARNED else RECIPES[name]().fit(frame), frame.iloc[:10]
    for made in (model.impute(part), model.reconstruct(part)):
        assert isinstance(made, pd.DataFrame)
        assert list(made.columns) == list("abcd") and list(made.index) == list(part.index)
    assert isinstance(model.impute(part, draws=2), np.ndarray)
    drawn = model.sample(4)
    assert isinstance(drawn, pd.DataFrame) and list(drawn.columns) == list("abcd")
    assert model.schema_.names == tuple("abcd")
    plain = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(plain.sample(4), drawn)
    with pytest.raises(ValueError, match="feature names"):
        model.score(part[["b", "a", "c", "d"]])
    with pytest.warns(UserWarning, match="valid feature names"):
        model.score(part.to_numpy())


@every
def test_samples_are_fixed_by_the_seed_and_their_place(name):
    model = fitted(name)
    first = model.sample(8)
    assert first.shape == (8, COLUMNS) and np.isfinite(first).all() and len(np.unique(first[:, 0])) == 8
    assert (model.sample(3) == first[:3]).all()
    assert (model.sample(8, random_state=1) != first).all()
    again = model.sample(8, random_state=np.random.RandomState(1))
    assert (again == model.sample(8, random_state=1)).all()
    for n in (0, -1):
        refused(lambda n=n: model.sample(n), "n_samples")
    for m in (0, -1):
        refused(lambda m=m: model.impute(few(), draws=m), "draws")


@every
def test_latents_and_back(name):
    model, X = fitted(name), few()
    Z = model.transform(X)
    assert Z.shape == (10, len(model.get_feature_names_out())) and Z.dtype == np.float64
    np.testing.assert_allclose(model.inverse_transform(Z), model.reconstruct(X), rtol=1e-6)
    assert model.inverse_transform(Z.astype(np.float32)).dtype == np.float32
    refused(lambda: model.inverse_transform(Z[:, :0]), "0 feature")
    refused(lambda: model.inverse_transform(np.hstack([Z, Z])), "one for each latent")
    refused(lambda: model.inverse_transform(Z * np.nan), "NaN")


@every
def test_nothing_is_answered_before_fit(name):
    for verb in ("score_samples", "transform", "impute", "reconstruct", "inverse_transform", "evaluate"):
        with pytest.raises(NotFittedError):
            getattr(RECIPES[name](), verb)(few())
    with pytest.raises(NotFittedError):
        RECIPES[name]().sample()


def test_a_mixture_names_the_class(key):
    model, X = fitted("gaussian-mixture"), few()
    shares = model.predict_proba(X)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (model.predict(X) == shares.argmax(axis=1)).all()
    np.testing.assert_allclose(shares[EMPTY], np.exp([w for w, _, _ in gaussians(model)]), rtol=1e-6)


# --- learning


@every
def test_a_seed_fixes_the_fit(name):
    made = lambda seed: RECIPES[name](random_state=seed).fit(table())  # noqa: E731
    one, two = made(1), made(np.random.RandomState(1))
    assert same(one, two) and one.seed_ == two.seed_
    assert name == "factor-analysis" or not same(one, made(2))


BAD_FIELDS = [
    ("vae", {"latents": 0}, "latents: expected a whole number of at least 1, got 0"),
    ("vae", {"latents": 2.0}, "got 2.0"),
    ("vae", {"latents": True}, "got True"),
    ("vae", {"hidden": (8, 0)}, "hidden"),
    ("vae", {"hidden": 8}, "hidden"),
    ("vae", {"rate": "fast"}, "rate: expected a finite number or AbstractSchedule"),
    ("vae", {"rate": float("nan")}, "got nan"),
    ("vae", {"steps": 0}, "steps"),
    ("vae", {"batch_size": -1}, "batch_size"),
    ("vae", {"objective": "elbo"}, "objective"),
    ("vae", {"activation": 3}, "activation"),
    ("vae", {"evidence": 1000}, "evidence: expected AbstractEvidence, got 1000"),
    ("vae", {"likelihood": "bits"}, "likelihood: expected AbstractLink or None"),
    ("vae", {"validation": 1.0}, "validation"),
    ("vae", {"precision": "float16"}, "precision: expected one of 'float32', 'float64'"),
    ("vae", {"standardise": 1}, "standardise: expected True or False"),
    ("vae", {"kind": "bits"}, "kind"),
    ("vae", {"max_seconds": float("inf")}, "max_seconds"),
    ("gaussian-mixture", {"covariance": "full"}, "covariance: expected AbstractFamily"),
    ("gaussian-mixture", {"components": 0}, "components"),
    ("factor-analysis", {"iterations": 0}, "iterations"),
]


@pytest.mark.parametrize("name, fields, words", BAD_FIELDS, ids=lambda v: "-".join(v) if isinstance(v, dict) else "")
def test_a_field_is_checked_when_training_starts(name, fields, words):
    recipe = RECIPES[name]().set_params(**fields)
    refused(lambda: recipe.fit(table()), words)
    assert not hasattr(recipe, "model_")


@pytest.mark.slow
def test_partial_fit_goes_on():
    X = table(holes=False)
    vae = RECIPES["vae"]()
    scores = [vae.partial_fit(X).score(X) for _ in range(3)]
    assert scores[0] < scores[1] < scores[2] and vae._going[1] == 3
    halves = RECIPES["vae"](batch_size=30)
    halves.partial_fit(X[:30]).partial_fit(X[30:])
    assert halves._going[1] == 2 and halves.schema_.rows == 30
    assert not hasattr(rv.GaussianMixture(), "partial_fit") and not hasattr(rv.FactorAnalysis(), "partial_fit")


@pytest.mark.slow
def test_online_em_learns_in_passes():
    X = table(holes=False)
    online = rv.GaussianMixture(components=2, batch_size=20, rate=Power(-0.6), random_state=0)
    scores = [online.partial_fit(X).score(X) for _ in range(4)]
    offline = rv.GaussianMixture(components=2, random_state=0).fit(X).score(X)
    one = rv.GaussianMixture(components=1, random_state=0).fit(X).score(X)
    assert one + 0.5 < scores[-1] <= offline + 1e-9 and scores[-1] >= scores[0] - 1e-9


def test_fits_of_several_seeds_equal_each_alone():
    X, seeds = table(), [3, 4]
    for name in ("vae", "gaussian-mixture"):
        together = RECIPES[name]().fit_seeds(X, seeds)
        for seed, model in zip(seeds, together, strict=True):
            alone = RECIPES[name](random_state=seed).fit(X)
            np.testing.assert_allclose(model.transform(X), alone.transform(X), rtol=1e-4, atol=1e-5)
    assert len(RECIPES["factor-analysis"]().fit_seeds(X, 2)) == 2
    refused(lambda: RECIPES["factor-analysis"]().fit_seeds(X, 0), "seeds")


def test_rows_for_early_stopping_may_be_given():
    X = table()
    given, own = RECIPES["vae"]().fit(X[:50], held_out=X[50:]), RECIPES["vae"]().fit(X[:50])
    assert all("held_out" in model.history_[-1] for model in (given, own))
    assert given.history_[-1]["held_out"] != own.history_[-1]["held_out"]
    refused(lambda: RECIPES["vae"]().fit(X, held_out=X[:, :2]), "features")


def test_a_run_in_a_folder_goes_on(tmp_path):
    X, make = table(), functools.partial(RECIPES["vae"], validation=0.0)
    whole = make().fit(X, folder=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == whole.history_ and lines[-1]["step"] == 40
    again = make().fit(X, folder=tmp_path, resume=True)
    assert same(whole, again) and again.history_ == []
    refused(lambda: make(random_state=1).fit(X, folder=tmp_path, resume=True), "random_state")
    refused(lambda: make().fit(X, resume=True), "resume", "folder")
    unwritten = make(activation=lambda x: x)
    refused(lambda: unwritten.fit(X, folder=tmp_path), "lambda")  # before training, not after


@pytest.mark.parametrize("name", some(LEARNED, "vae"))
def test_a_large_mapped_file_is_read_as_needed_and_gives_the_same_bits(name, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", table())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    loaded = RECIPES[name]().fit(mapped)
    monkeypatch.setattr(answers, "MAPPED_BYTES", 0)
    read = RECIPES[name]().fit(mapped)
    assert same(loaded, read)
    np.testing.assert_array_equal(read.score_samples(mapped), loaded.score_samples(table()))


def test_a_large_mapped_file_needs_batches_for_em(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "MAPPED_BYTES", 0)
    np.save(tmp_path / "x.npy", table())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    refused(lambda: RECIPES["factor-analysis"]().fit(mapped), "batch")
    batches = RECIPES["factor-analysis"](batch_size=16).fit(mapped)
    for one, other in zip(parameters(batches), parameters(fitted("factor-analysis")), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8)


# --- what an analyst asks


@pytest.mark.slow
def test_an_estimator_answers_an_analyst():
    model, X = fitted("factor-analysis"), table()
    low, high = model.impute(X, interval=0.9)
    holes = np.isnan(X)
    assert (low[~holes] == X[~holes]).all() and (low[holes] < high[holes]).all()
    tables = model.multiple_impute(X, m=2)
    assert (tables[:, ~holes] == X[~holes]).all() and (tables[0] != tables[1])[holes].all()
    assert model.missing_patterns(X).counts.sum() == ROWS
    found = model.diagnose(X[:40], X[40:])
    assert {"latents", "generalisation", "samples"} <= {finding.name for finding in found.findings}, str(found)
    refused(lambda: model.impute(X, draws=2, interval=0.9), "draws or interval")


# --- files


@every
def test_a_saved_model_answers_to_the_bit(name, tmp_path):
    model, X = fitted(name), few()
    read = rv.load(model.save(tmp_path / "kept", {"note": 1}))
    assert type(read) is type(model) and repr(read) == repr(model)
    assert (read.score_samples(X) == model.score_samples(X)).all()
    assert (read.sample(3) == model.sample(3)).all() and (read.impute(X) == model.impute(X)).all()
    record = json.loads((tmp_path / "kept" / "recipe.json").read_text())
    assert record["recipe"] == name and record["format"] == 1 and record["ravine"] == rv.__version__
    assert record["fields"]["random_state"] == "0" and record["data"]["rows"] == ROWS
    count = sum(leaf.size for leaf in parameters(model))
    assert record["numbers"] == {"parameters": count, "note": 1}
    assert Schema.from_json(record["schema"]) == model.schema_
    assert read.fit(X).score(X) == RECIPES[name]().fit(X).score(X)


def test_a_stream_of_random_numbers_is_kept_as_its_seed(tmp_path):
    model = RECIPES["gaussian-mixture"](random_state=np.random.RandomState(5)).fit(table())
    read = rv.load(model.save(tmp_path))
    assert read.random_state is None and read.seed_ == model.seed_
    assert (read.sample(3) == model.sample(3)).all()


def test_files_of_the_future_and_of_others_are_refused(tmp_path):
    folder = fitted("factor-analysis").save(tmp_path / "kept")
    path = folder / "recipe.json"
    record = json.loads(path.read_text())
    for change, words in (
        ({"format": 99}, "newer"), ({"recipe": "nope"}, "do not belong together"), ({"schema": {}}, "belong"),
        ({"fields": {}}, "belong"), ({"format": None}, "format"),
    ):  # fmt: skip
        path.write_text(json.dumps(record | change))
        refused(lambda: rv.load(folder), words)
    path.write_text("{")
    refused(lambda: rv.load(folder), "recipe.json")
    path.unlink()
    refused(lambda: rv.load(folder), "recipe.json")
    refused(lambda: rv.load(tmp_path / "absent"), "recipe.json")


@every
def test_copies_answer_to_the_bit(name, tmp_path):
    model, X = fitted(name), few()
    joblib.dump(model, tmp_path / "model.joblib")
    for other in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib"), copy.deepcopy(model)):
        assert (other.score_samples(X) == model.score_samples(X)).all()
        assert same(other, model) and other.history_ == model.history_


@every
def test_a_blank_model_has_the_shapes_of_a_fitted_one(name):
    model = fitted(name)
    with precision(model.precision):
        empty = blank(model, model.schema_, jr.key(0))
    shapes = lambda tree: [leaf.shape for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape")]  # noqa: E731
    assert shapes(empty) == shapes(model.model_)


def test_a_record_names_every_field(tmp_path):
    model = RECIPES["vae"](activation=nets.relu, likelihood=None, steps=1).fit(table())
    record = load_record(model.save(tmp_path))
    assert set(record["fields"]) == set(model.get_params()) and record["fields"]["activation"] == "relu"
    assert replace(model.schema_) == rv.load(tmp_path).schema_
    assert rv.load(tmp_path).set_params(likelihood=Bits()).likelihood == Bits()
