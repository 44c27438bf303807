"""Models of sequences: containers, verbs, files and the shell. The laws themselves are tested beside each model."""

import json
import os
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import some
from sklearn.base import clone

import ravine as rv
from ravine._tree import Power
from ravine.core import Row
from ravine.data import Sequences
from ravine.models.families import Diagonal

LENGTHS = (9, 4, 12, 1, 7)


def steps(kind="real", seed=0):
    """Steps of five sequences in two groups, with holes; some steps hold nothing."""
    stream = np.random.default_rng(seed)
    groups = np.cumsum(stream.random(sum(LENGTHS)) < 0.3) % 2
    made = {
        "real": stream.normal(size=(len(groups), 2)) + 4 * groups[:, None],
        "binary": (stream.random((len(groups), 2)) < np.where(groups, 0.9, 0.2)[:, None]).astype(float),
        "levels": (stream.integers(0, 2, (len(groups), 2)) + groups[:, None]).astype(float),
        "count": stream.poisson(np.where(groups, 6.0, 1.0)[:, None], (len(groups), 2)).astype(float),
    }[kind]
    made[stream.random(made.shape) < 0.15] = np.nan
    made[:2] = 1  # whatever the draw, the first steps are seen
    return made


def data(kind="real", seed=0):
    return Sequences(steps(kind, seed), LENGTHS)


FEW = {"iterations": 8, "tol": 0.0, "random_state": 0}
MODELS = {
    "hidden": ("real", rv.HiddenMarkovModel(**FEW)),
    "parts": ("real", rv.HiddenMarkovModel(mixtures=2, covariance=Diagonal(1e-2), **FEW)),
    "bits": ("binary", rv.HiddenMarkovModel(**FEW)),
    "codes": ("levels", rv.HiddenMarkovModel(kind="levels", **FEW)),
    "counts": ("count", rv.HiddenMarkovModel(kind="count", **FEW)),
    "dynamical": ("real", rv.LinearDynamicalSystem(latents=1, **FEW)),
    "isotropic": ("real", rv.LinearDynamicalSystem(latents=1, noise="isotropic", standardise=False, **FEW)),
}
STATES = [name for name in MODELS if not name.startswith(("dynamical", "isotropic"))]
FITTED = {}


def fitted(name):
    if name not in FITTED:
        X = data(MODELS[name][0])
        FITTED[name] = (X, other(name).fit(X))
    return FITTED[name]


def other(name, **fields):
    """An unfitted model of the table, with some fields changed."""
    return clone(MODELS[name][1]).set_params(**fields)


every = pytest.mark.parametrize("name", some(MODELS, "hidden", "dynamical"))
stated = pytest.mark.parametrize("name", some(STATES, "hidden", "bits"))


def padded(X):
    made = X.padded(X.steps, int(X.lengths.max()), np.nan)
    return made


def frame(X, shuffled=True):
    """A row per step, in any order, with whose it is and when."""
    made = pd.DataFrame(X.steps, columns=["x0", "x1"])
    made.insert(0, "when", np.concatenate([np.arange(n) for n in X.lengths]))
    made.insert(0, "who", np.repeat([f"s{i}" for i in range(len(X))], X.lengths))
    return made.sample(frac=1, random_state=1) if shuffled else made


@every
def test_a_score_is_the_density_of_each_sequence_alone_in_the_units_of_the_user(name):
    X, model = fitted(name)
    with jax.enable_x64(True):
        for part, got in list(zip(X, model.score_samples(X), strict=True))[:2]:
            values, mask = model.schema_.encode(part, "float64")
            row = Row(jnp.asarray(values), None if mask is None else jnp.asarray(mask))
            units = float(np.sum(model.schema_.log_det(np.ones(values.shape, bool) if mask is None else mask)))
            np.testing.assert_allclose(got, float(model.model_.log_evidence(row)) + units, rtol=1e-9, atol=1e-9)
    assert model.score(X) == np.mean(model.score_samples(X))
    told = model.evaluate(X)
    assert (told.rows, told.direction) == (5, "exact")
    steps = np.sum(~np.isnan(X.steps).all(axis=1))
    np.testing.assert_allclose(told.per_step, model.score_samples(X).sum() / steps, rtol=1e-12)
    assert "nats per sequence" in str(told) and "5 sequences" in str(told)
    np.testing.assert_allclose(
        told.bits_per_dim, -model.score_samples(X).sum() / np.sum(~np.isnan(X.steps)) / np.log(2), rtol=1e-12
    )


@pytest.mark.parametrize("name", ["dynamical"])
def test_in_other_units_a_density_is_another(name):
    X, model = fitted(name)
    tens = Sequences(10 * X.steps, X.lengths)
    other = rv.LinearDynamicalSystem(latents=1, **FEW).fit(tens)
    seen = np.array([np.sum(~np.isnan(part)) for part in X])
    np.testing.assert_allclose(other.score_samples(tens), model.score_samples(X) - seen * np.log(10), atol=1e-6)


@every
def test_every_container_gives_the_same_answers(name):
    X, model = fitted(name)
    want, latents, whole = model.score_samples(X), model.transform(X).steps, model.impute(X).steps
    parts = list(X)
    np.testing.assert_allclose(model.score_samples(parts), want, atol=1e-9)
    for got, part in zip(model.transform(parts), X.cut(latents), strict=True):
        np.testing.assert_allclose(got, part, atol=1e-9)
    np.testing.assert_allclose(model.score_samples(parts[2]), want[2:3], atol=1e-9)  # one array is one sequence
    np.testing.assert_allclose(model.impute(parts[2]), X.cut(whole)[2], atol=1e-9)
    # an array of equal lengths: steps of NaN at the end tell nothing, and change nothing
    boxed = padded(X)
    np.testing.assert_allclose(model.score_samples(boxed), want, atol=1e-9)
    assert model.impute(boxed).shape == boxed.shape and not np.isnan(model.impute(boxed)).any()
    np.testing.assert_allclose(X.joined(model.impute(boxed)), whole, atol=1e-6)


@every
def test_rows_of_a_data_frame_come_back_in_their_places(name):
    X = data(MODELS[name][0])
    table = frame(X)
    told = other(name, sequence="who", order="when").fit(table)
    # sequences are numbered as they first appear: learning sees the same ones in another order
    by_name = dict(zip(pd.unique(table["who"]), told.score_samples(table), strict=True))
    np.testing.assert_allclose([by_name[f"s{i}"] for i in range(5)], told.score_samples(frame(X, shuffled=False)))
    made, latents = told.impute(table), told.transform(table)
    assert list(made.columns) == list(table.columns) and made.index.equals(table.index)
    seen = table[["x0", "x1"]].notna().to_numpy()
    assert (made[["x0", "x1"]].to_numpy()[seen] == table[["x0", "x1"]].to_numpy()[seen]).all()
    sorted_, straight = told.impute(frame(X, shuffled=False)), made.sort_index()
    np.testing.assert_allclose(straight[["x0", "x1"]], sorted_[["x0", "x1"]], atol=1e-6)
    assert list(latents.columns[:2]) == ["who", "when"] and len(latents) == len(table)
    ahead = told.forecast(table, 2)
    assert list(ahead.columns) == ["who", "ahead", "x0", "x1"] and len(ahead) == 10
    assert list(told.sample(2, 3).columns) == ["who", "when", "x0", "x1"]
    low, high = told.impute(table, interval=0.8)
    assert (low["x0"] <= high["x0"]).all() and (low["x0"] < high["x0"]).any()


@every
def test_holes_are_filled_by_their_mean_given_all_that_is_seen(name):
    X, model = fitted(name)
    made = model.impute(X)
    known = ~np.isnan(X.steps)
    np.testing.assert_array_equal(made.steps[known], X.steps[known])
    with jax.enable_x64(True):
        for part, got in list(zip(X, made, strict=True))[1:3]:
            values, mask = model.schema_.encode(part, "float64")
            mask = np.ones(values.shape, bool) if mask is None else mask
            mean = model.model_.conditional(Row(jnp.asarray(values), jnp.asarray(mask))).mean()
            np.testing.assert_allclose(got[~mask], model.schema_.point(mean)[~mask], atol=1e-8)
    draws = model.impute(X, draws=4)
    assert len(draws) == 4 and all((one.steps[known] == X.steps[known]).all() for one in draws)
    assert any((one.steps != draws[0].steps).any() for one in draws[1:])


@every
def test_a_forecast_is_what_unseen_steps_would_be(name):
    X, model = fitted(name)
    longer = [np.concatenate([part, np.full((3, 2), np.nan)]) for part in X]
    want = np.stack([part[-3:] for part in model.impute(longer)])
    np.testing.assert_allclose(model.forecast(X, 3), want, atol=1e-8)
    np.testing.assert_allclose(model.forecast(X, 1)[:, 0], want[:, 0], atol=1e-8)
    low, high = model.forecast(X, 2, interval=0.9)
    assert low.shape == high.shape == (5, 2, 2) and (low <= high).all() and (low < high).any()
    assert len(model.forecast(X, 2, draws=3)) == 3


@every
def test_samples_are_repeated_and_as_long_as_asked(name):
    X, model = fitted(name)
    assert model.sample(2).shape == (2, max(LENGTHS), 2) and model.sample(3, 5).shape == (3, 5, 2)
    np.testing.assert_array_equal(model.sample(3, 5)[:2], model.sample(2, 5))
    assert (model.sample(2, 5, random_state=1) != model.sample(2, 5)).any()


@every
def test_a_fitted_model_comes_back_from_files_and_pickles(name, tmp_path):
    X, model = fitted(name)
    for again in (rv.load(model.save(tmp_path / "run")), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
        np.testing.assert_array_equal(again.sample(2), model.sample(2))
        np.testing.assert_array_equal(again.forecast(X, 2), model.forecast(X, 2))


@every
def test_weights_count_sequences_and_batches_change_nothing(name):
    X, model = fitted(name)
    twice = other(name).fit(X[[0, 1, 2, 2, 4]])
    heavy = other(name).fit(X, sample_weight=[1, 1, 2, 0, 1])
    split = other(name, batch_size=2).fit(X)
    # k-means++ draws rows by their weight: from the same start on, the sums are the same
    if name not in STATES:
        np.testing.assert_allclose(heavy.score_samples(X), twice.score_samples(X), rtol=1e-6)
    assert np.isfinite(heavy.score_samples(X)).all()
    np.testing.assert_allclose(split.score_samples(X), model.score_samples(X), rtol=1e-6)


@pytest.mark.parametrize("name", ["hidden", "dynamical"])
def test_learning_goes_up_and_goes_on_line(name):
    X, model = fitted(name)
    assert other(name, iterations=1).fit(X).score(X) < model.score(X)
    online = other(name, rate=Power(-0.6), batch_size=2).fit(X)
    assert online.score(X) > model.score(X) - 10
    before = online.score(X)
    assert np.isfinite(online.partial_fit(X).score(X)) and online.score(X) != before


@stated
def test_paths_are_those_of_viterbi_and_shares_sum_to_one(name):
    X, model = fitted(name)
    paths, shares = model.predict(list(X)), model.predict_proba(list(X))
    for part, path, share in zip(X, paths, shares, strict=True):
        assert path.shape == (len(part),) and path.dtype.kind == "i"
        np.testing.assert_allclose(share.sum(axis=1), 1, atol=1e-9)
        with jax.enable_x64(True):
            values, mask = model.schema_.encode(part, "float64")
            row = Row(jnp.asarray(values), None if mask is None else jnp.asarray(mask))
            np.testing.assert_array_equal(path, model.model_.decode(row)[0])
    assert list(model.predict(X).steps[:, 0]) == list(np.concatenate(paths))


@every
def test_expected_steps_of_latents(name):
    X, model = fitted(name)
    made = model.inverse_transform(model.transform(list(X)))
    np.testing.assert_allclose(np.concatenate(made), np.concatenate(model.reconstruct(list(X))), atol=1e-9)
    with jax.enable_x64(True):
        latents = jnp.asarray(model.transform(list(X))[2])
        want = model.schema_.decode(model.model_.likelihood(latents).mean())
    np.testing.assert_allclose(made[2], want, atol=1e-9)


def test_no_hole_and_one_length_is_computed_without_a_mask():
    X = np.random.default_rng(0).normal(size=(6, 8, 2))
    fast = rv.LinearDynamicalSystem(latents=1, **FEW).fit(X)
    slow = rv.LinearDynamicalSystem(latents=1, **FEW).fit([*X, np.full((8, 2), np.nan)], sample_weight=[1] * 6 + [0])
    np.testing.assert_allclose(fast.score(X), slow.score(X), rtol=1e-9)
    with jax.enable_x64(True):
        assert fast._row(fast.read(X)).mask is None and fast._row(fast.read(X)).length is None
        assert fast._row(fast.read([*X, X[0, :3]])).mask is None


@pytest.mark.parametrize("name", ["hidden", "dynamical"])
def test_what_lies_beyond_the_end_of_a_complete_sequence_tells_nothing(name):
    model = fitted(name)[1]
    X = np.random.default_rng(0).normal(size=(2, 12, 2))
    parts = [X[0], X[1, :5]]
    with jax.enable_x64(True):
        row = Row(jnp.asarray(model.schema_.encode(parts[1], "float64")[0]))
        want = float(model.model_.log_evidence(row)) + 5 * float(model.schema_.log_det())
        latents = np.asarray(model.model_.posterior(row).mean())
    np.testing.assert_allclose(model.score_samples(parts)[1], want, rtol=1e-9)
    np.testing.assert_allclose(model.transform(parts)[1], latents, atol=1e-9)


def test_best_of_several_starts():
    X = data("real", 3)
    alone = [other("hidden", states=3, random_state=seed).fit(X).score(X) for seed in range(5)]
    assert np.ptp(alone) > 0.1  # where they lead to differs
    assert other("hidden", states=3, n_init=8).fit(X).score(X) >= np.median(alone)


A = np.ones((4, 2))
REFUSED = {
    "nothing": (lambda: [], "at least one"),
    "numbers": (lambda: [1.0, 2.0], "arrays of shape"),
    "unequal columns": (lambda: [A, np.ones((3, 3))], "as many columns in each"),
    "lengths": (lambda: Sequences(A, [1, 2]), "a sum of 4"),
    "no length": (lambda: Sequences(A, [0, 4]), "at least 1"),
    "four axes": (lambda: np.ones((2, 2, 2, 2)), "at most 3 axes"),
    "infinite": (lambda: np.full((4, 2), np.inf), "finite"),
    "text": (lambda: [["a", "b"]], "numbers"),
    "an empty sequence": (lambda: [A, np.ones((0, 2))], "at least one row"),
}


@pytest.mark.parametrize("bad", REFUSED)
def test_what_are_no_sequences_is_refused_in_one_line(bad):
    make, words = REFUSED[bad]
    with pytest.raises(ValueError, match=words) as caught:
        rv.HiddenMarkovModel(**FEW).fit(make())
    assert "\n" not in str(caught.value)


def test_mistakes_of_columns_and_questions_are_one_line():
    X, model = fitted("hidden")
    table = frame(X)
    named = rv.LinearDynamicalSystem(latents=1, sequence="who", order="when", **FEW).fit(table)
    cases = [
        (lambda: named.score(table.drop(columns="who")), "one called 'who'"),
        (lambda: named.score(table[["who", "when", "x1", "x0"]]), "in their order"),
        (lambda: named.score([A]), "data frame"),
        (lambda: named.score(table.assign(who=None)), "a value in every row"),
        (lambda: model.score([np.ones((3, 3))]), "2 columns"),
        (lambda: model.impute(X, draws=2, interval=0.5), "one at a time"),
        (lambda: model.forecast(X, 0), "steps"),
        (lambda: model.forecast(X, 1, interval=1.5), "between 0 and 1"),
        (lambda: model.inverse_transform([np.ones((3, 5))]), "2 columns"),
        (lambda: rv.LinearDynamicalSystem(noise="loud").fit(X), "noise"),
        (lambda: rv.HiddenMarkovModel(kind="levels", levels=2, **FEW).fit(data("count")), "between 0 and 1"),
    ]
    for ask, words in cases:
        with pytest.raises(ValueError, match=words) as caught:
            ask()
        assert "\n" not in str(caught.value)
    for verb in ("diagnose", "multiple_impute", "missing_patterns"):
        with pytest.raises(AttributeError, match="describes tables"):
            getattr(model, verb)
    for ask in (lambda: rv.anomalies(model, X), lambda: rv.compare(A, [model]), lambda: rv.synthesize(model, X)):
        with pytest.raises(ValueError, match="expected"):
            ask()


def test_from_the_shell(shell, tmp_path):
    frame(data(), shuffled=False).to_csv(tmp_path / "long.csv", index=False)
    run, table = str(tmp_path / "run"), str(tmp_path / "long.csv")
    told = ("--set", "sequence=who", "--set", "order=when", "--set", "iterations=5", "--json")
    status, out, err = shell("fit", "hidden-markov-model", table, *told, "--test-size", "0.4", "--out", run)
    assert (status, err) == (0, "") and json.loads(out)["rows"] == 2
    assert json.loads(shell("score", run, table, "--json")[1])["rows"] == 5
    columns = {
        ("impute", run, table): ["who", "when", "x0", "x1"],
        ("encode", run, table): ["who", "when", "hiddenmarkovmodel0", "hiddenmarkovmodel1"],
        ("predict", run, table): ["who", "when", "state", "p(0)", "p(1)"],
        ("forecast", run, table, "--steps", "2"): ["who", "ahead", "x0", "x1"],
        ("sample", run, "-n", "2"): ["who", "when", "x0", "x1"],
    }
    for command, want in columns.items():
        status, out, err = shell(*command, "--out", str(tmp_path / "made.csv"))
        assert (status, err) == (0, "")
        assert list(pd.read_csv(tmp_path / "made.csv").columns) == want
    assert shell("impute", run, table, "--interval", "0.9", "--out", str(tmp_path / "i.csv"))[::2] == (0, "")
    assert (tmp_path / "i-low.csv").exists() and (tmp_path / "i-high.csv").exists()
    assert shell("forecast", run, table, "--draws", "2", "--out", str(tmp_path / "f.csv"))[::2] == (0, "")
    assert (tmp_path / "f-2.csv").exists()
    assert shell("fit", "hidden-markov-model", table, "--set", "sequence=nobody")[2].startswith("ravine: the columns: ")
    for command in (("diagnose", run, table), ("compare", table, "--recipes", "hidden-markov-model")):
        status, out, err = shell(*command)
        assert status != 0 and err.count("\n") == 1


@pytest.mark.skipif(not os.environ.get("RAVINE_DATA"), reason="the environment variable RAVINE_DATA names no folder")
def test_a_built_in_set_of_sequences_from_the_shell(shell, tmp_path):
    run, made = str(tmp_path / "run"), tmp_path / "made.csv"
    few = ("--set", "states=2", "--set", "iterations=2")
    status, out, err = shell("fit", "hidden-markov-model", "jsb-chorales", *few, "--json", "--out", run)
    told = json.loads(out)
    assert (status, err) == (0, "") and told["rows"] == 77 and -14 < told["per_step"] < -9
    assert shell("predict", run, "jsb-chorales", "--out", str(made))[::2] == (0, "")
    table = pd.read_csv(made)
    assert list(table.columns) == ["sequence", "step", "state", "p(0)", "p(1)"] and len(table) == 4_725
    status, _, err = shell("fit", "rbm", "jsb-chorales")
    assert status != 0 and "a recipe for sequences" in err and err.count("\n") == 1
