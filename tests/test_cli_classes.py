"""The command line of classifiers: what it prints and writes, what is refused, and how trials are told."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from networks import Lenient, TinyNetwork
from test_cli import assert_refused

import ravine as rv
from ravine.data import Dataset, load_dataset, read_table, write_table
from ravine.registry import catalogue
from ravine.reproduce import labelled
from ravine.trial import Trial

# what a file names is compared with a plain array
pytestmark = pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")

FAST = ["--set", "steps=200", "--set", "rate=0.03"]
IRIS = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """The recipes have names."""
    table = {"tiny-network": ("networks", "TinyNetwork"), "lenient": ("networks", "Lenient")}
    monkeypatch.setattr(catalogue, "CLASSIFIERS", table)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Flowers as a file, with their kinds in a column of text whose name has a space."""
    path = tmp_path_factory.mktemp("tables") / "flowers.csv"
    iris = load_dataset("iris")
    kinds = np.array(["setosa", "versicolor", "virginica"])[iris.labels[0]]
    pd.DataFrame(iris.train, columns=list(IRIS)).assign(**{"the kind": kinds}).to_csv(path, index=False)
    return path


@pytest.fixture
def folder(shell, tmp_path) -> Path:
    """A run on the flowers that come with scikit-learn."""
    assert shell("fit", "tiny-network", "iris", *FAST, "--out", tmp_path / "run")[0] == 0
    return tmp_path / "run"


# --- what there is


def test_a_classifier_is_listed_and_described(shell):
    known = json.loads(shell("list", "--json")[1])["recipes"]
    assert known["tiny-network"].startswith("A network with one hidden layer that tells classes.")
    status, out, err = shell("info", "tiny-network")
    assert (status, err) == (0, "") and "hidden = 4" in out and "label = None" in out and "shares of the largest" in out
    assert_refused(shell("info", "tiny-netwrok"), "tiny-network")


def test_trials_say_what_is_reported(shell, monkeypatch):
    trials = {
        "small": Trial("iris", accuracy=0.9),
        "other": Trial("iris"),
        "both": Trial("iris", {}, -3.0, accuracy=1.0),
    }
    monkeypatch.setattr(TinyNetwork, "trials", trials)
    out = shell("info", "tiny-network")[1]
    assert "small: iris; reported 90.00 % right\n" in out and "other: iris; no reported number\n" in out
    assert "both: iris; reported -3.0 nats and 100.00 % right\n" in out


# --- fit, and what follows


def test_labels_beside_a_built_in_set_are_learned_and_told(shell, folder, tmp_path):
    """The split is that of every recipe: 135 rows to learn from, 15 that were not seen."""
    iris, model = load_dataset("iris"), rv.load(folder)
    kept = json.loads((folder / "recipe.json").read_text())["numbers"]["test"]
    assert model.schema_.rows == 135 and kept["rows"] == 15 and model.classes_.tolist() == [0, 1, 2]
    order = np.random.default_rng(0).permutation(150)
    test = np.sort(order[:15])
    assert kept["accuracy"] == model.score(iris.train[test], iris.labels[0][test]) > 0.8
    frame = pd.DataFrame(iris.train, columns=list(IRIS))
    again = TinyNetwork(steps=200, rate=0.03, kind="real", random_state=0, progress=False)
    again.fit(frame.iloc[np.sort(order[15:])], iris.labels[0][np.sort(order[15:])])
    np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))


def test_score_prints_the_share_of_right_classes(shell, folder):
    iris = load_dataset("iris")
    expected = rv.load(folder).evaluate(iris.train, iris.labels[0])
    assert shell("score", folder, "iris") == (0, f"{expected}\n", "")
    got = json.loads(shell("score", folder, "iris", "--json")[1])
    assert got == expected._asdict() | {"words": str(expected)} and got["rows"] == 150


def test_classes_and_features_are_written(shell, folder, tmp_path):
    iris, model = load_dataset("iris"), rv.load(folder)
    classes, features = tmp_path / "classes.csv", tmp_path / "features.parquet"
    assert shell("predict", folder, "iris", "--out", classes)[0] == 0
    told = pd.read_csv(classes)
    assert list(told.columns) == ["class", "p(0)", "p(1)", "p(2)"]
    assert (told["class"] == model.predict(iris.train)).all()
    np.testing.assert_allclose(told.iloc[:, 1:], model.predict_proba(iris.train), rtol=1e-12)
    assert shell("encode", folder, "iris", "--out", features)[0] == 0
    made = read_table(features)
    np.testing.assert_array_equal(made.x, model.transform(iris.train))
    assert made.names == tuple(f"tinynetwork{i}" for i in range(4))


def test_labels_may_be_a_column_of_a_file(shell, table, tmp_path):
    run = tmp_path / "run"
    status, out, err = shell("fit", "tiny-network", table, *FAST, "--label", "the kind", "--out", run, "--json")
    assert (status, err) == (0, "") and json.loads(out)["rows"] == 15
    model = rv.load(run)
    assert model.label == "the kind" and model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert list(model.feature_names_in_) == list(IRIS)
    frame = pd.read_csv(table)
    rows, kinds = frame[list(IRIS)], frame["the kind"]
    assert json.loads(shell("score", run, table, "--json")[1])["accuracy"] == model.score(rows, kinds) > 0.9
    assert shell("predict", run, table, "--out", tmp_path / "classes.csv")[0] == 0
    assert (pd.read_csv(tmp_path / "classes.csv")["class"] == model.predict(rows)).all()
    write_table(tmp_path / "bare.csv", rows.to_numpy(), IRIS)  # rows to be told, without the column
    assert shell("predict", run, tmp_path / "bare.csv", "--out", tmp_path / "classes.csv")[0] == 0
    assert_refused(shell("score", run, tmp_path / "bare.csv"), "a data frame with a column 'the kind'")


@pytest.mark.slow
def test_a_model_of_rows_takes_its_labels_from_a_column_too(shell, table, tmp_path):
    words = ["--set", "steps=2", "--set", "latents=1", "--set", "hidden=(3,)", "--test-size", "0", "--out", tmp_path]
    assert shell("fit", "semi-supervised-gumbel", table, *words, "--label", "the kind")[0] == 0
    assert rv.load(tmp_path).label == "the kind"


def test_rows_without_a_label_are_learned_from_where_a_recipe_can(shell, table, tmp_path):
    frame = pd.read_csv(table)
    frame.loc[::2, "the kind"] = None
    frame.to_csv(tmp_path / "few.csv", index=False)
    words = [tmp_path / "few.csv", *FAST, "--label", "the kind", "--out", tmp_path / "run"]
    assert_refused(shell("fit", "tiny-network", *words), "y: expected a label for every row, got none in 6")
    assert shell("fit", "lenient", *words)[0] == 0
    model = rv.load(tmp_path / "run")
    assert isinstance(model, Lenient) and model.schema_.rows == 135
    assert json.loads(shell("score", tmp_path / "run", tmp_path / "few.csv", "--json")[1])["rows"] == 75


def test_a_run_goes_on(shell, tmp_path):
    words = ["tiny-network", "iris", "--out", tmp_path / "run", "--set"]
    assert shell("fit", *words, "steps=20")[0] == 0 and shell("fit", *words, "steps=40", "--resume")[0] == 0
    assert shell("fit", "tiny-network", "iris", "--set", "steps=40", "--out", tmp_path / "whole")[0] == 0
    X = load_dataset("iris").train
    one, other = (rv.load(tmp_path / name).transform(X) for name in ("run", "whole"))
    assert np.isfinite(one).all() and one.shape == other.shape
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 40


def test_images_keep_their_shape(shell, tmp_path):
    assert shell("fit", "tiny-network", "digits", "--set", "steps=2", "--out", tmp_path)[0] == 0
    assert rv.load(tmp_path).schema_.image_shape == (8, 8)


# --- what makes no sense


@pytest.mark.parametrize("command", ["sample", "impute", "report", "diagnose", "anomalies", "synthesize"])
def test_verbs_of_a_density_are_refused_in_one_line(command, shell, folder, tmp_path):
    needs = {"sample": ["--out"], "impute": ["iris", "--out"], "synthesize": ["iris", "--out"]}
    words = [*needs.get(command, []), *([tmp_path / "x.csv"] if command in needs else [])]
    said = "this command: expected a model of rows, got TinyNetwork, a classifier; score, predict and encode are for"
    assert_refused(shell(command, folder, *words), said)
    assert not (tmp_path / "x.csv").exists()


def test_other_mistakes_are_one_line(shell, folder, table, tmp_path):
    write_table(tmp_path / "bare.csv", load_dataset("iris").train, IRIS)
    assert_refused(shell("fit", "tiny-network", table), "labels beside the rows, got none; name their column: --label")
    assert_refused(shell("fit", "tiny-network", table, "--label", "kind"), "a data frame with a column 'kind'")
    assert_refused(shell("fit", "vae", table, "--label", "the kind"), "field of vae", "label")
    assert_refused(shell("score", folder, tmp_path / "bare.csv"), "labels of the rows, got none; ask ravine predict")
    assert_refused(shell("score", folder, "wine"), "columns")
    assert_refused(shell("compare", "iris", "--recipes", "tiny-network"), "recipes for rows, got 'tiny-network'")
    frame = pd.read_csv(table)
    frame.iloc[3, 1] = np.nan
    frame.to_csv(tmp_path / "holes.csv", index=False)
    said = "TinyNetwork, X: expected complete rows, got NaN in row 3, column 'sepal width (cm)'; fill the cell"
    assert_refused(shell("fit", "tiny-network", tmp_path / "holes.csv", "--label", "the kind", "--test-size", 0), said)


def test_how_easily_it_is_fooled(shell, folder):
    got = json.loads(shell("diagnose", folder, "--robustness", "--json")[1])
    assert got["accuracy"][0] >= got["accuracy"][-1]


# --- reproduce


@pytest.fixture
def moons(monkeypatch) -> Dataset:
    """The recipe with a trial on two half circles."""
    fields = {"steps": 300, "hidden": 8, "rate": 0.03, "kind": "real"}
    trials = {"small": Trial("moons", fields, source="a table of nobody", accuracy=0.875)}
    trials["few"] = Trial("moons", fields | {"validation": 0.0}, labels=10)
    monkeypatch.setattr(TinyNetwork, "trials", trials)
    monkeypatch.setattr(Lenient, "trials", trials)
    return load_dataset("moons")


def gallery() -> Any:
    """The module that makes the pages."""
    path = Path(__file__).parent.parent / "docs" / "gallery.py"
    spec: Any = importlib.util.spec_from_file_location("gallery", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reproduce_reports_the_share_of_right_classes(shell, moons, tmp_path):
    status, out, err = shell("reproduce", "tiny-network", "--seeds", "2", "--out", tmp_path)
    assert (status, err) == (0, "") and out.count("seed ") == 2
    result = json.loads((tmp_path / "result.json").read_text())
    shares = [rv.load(tmp_path / f"seed-{s}").score(moons.test, moons.labels[1]) for s in (0, 1)]
    got = result["measured"]
    assert (
        got["seeds"] == shares and got["accuracy"] == pytest.approx(np.mean(shares), abs=1e-15) and got["rows"] == 1000
    )
    assert got["test error, %"] == pytest.approx(100 * (1 - np.mean(shares)), abs=1e-12)
    errors = [np.sqrt(p * (1 - p) / 1000) for p in shares]
    assert got["standard_error"] == pytest.approx(np.mean(errors), abs=1e-12) and 0.8 < min(shares) < 1
    assert result["reported"] == {"accuracy": 0.875, "source": "a table of nobody"}
    assert result["fields"]["hidden"] == "8" and result["seconds"] > 0 and result["device"]
    assert result["command"] == "ravine reproduce tiny-network --scale small --seeds 2"
    assert {"done", "seconds", "held_out", "loss"} == set(result["curve"][-1])
    line = f"measured {100 * got['accuracy']:.2f} +- {100 * got['standard_error']:.2f} % right (test error "
    assert f"{line}{got['test error, %']:.2f} %); reported 87.50 % (a table of nobody)" in out
    page = gallery().measurement(result)
    share, error = 100 * got["accuracy"], 100 * got["standard_error"]
    assert f"| measured | {share:.2f} ± {error:.2f} % right |" in page and "held-out rows during training" in page
    assert "| reported | 87.50 % right (a table of nobody) |" in page and result["command"] in page
    each = ", ".join(f"{100 * (1 - share):.2f}" for share in got["seeds"])
    assert f"| test error | {100 - share:.2f} % ({each}) of 1000 rows |" in page
    table = "\n".join(gallery().overview([result, result]))
    assert f"| `small` | moons | 87.50 % | {share:.2f} ± {error:.2f} % right | 2 |" in table
    recipe = gallery().Recipe(tmp_path, "TinyNetwork", "Of nobody. 1900.")
    assert f"{share:.2f} ± {error:.2f} % right" in gallery().index([recipe], [result])


def test_reproduce_from_a_few_labels(shell, moons, tmp_path):
    """Without rows that are held out the curve is that of the training loss."""
    assert_refused(shell("reproduce", "tiny-network", "--scale", "few"), "expected a label for every row, got none in")
    status, out, _ = shell("reproduce", "lenient", "--scale", "few", "--out", tmp_path)
    assert status == 0 and "; the paper reports no such number" in out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["labels of each class"] == 10 and "accuracy" not in result
    assert set(result["curve"][0]) == {"done", "seconds", "loss"}
    page = gallery().measurement(result)
    assert "The loss on the training rows." in page and "| reported |  |" in page
    told = labelled(moons.labels[0], 10, seed=0)
    fields = {"steps": 300, "hidden": 8, "rate": 0.03, "kind": "real", "validation": 0.0, "random_state": 0}
    other = Lenient(**fields, progress=False).fit(moons.train, told)
    assert result["measured"]["accuracy"] == other.score(moons.test, moons.labels[1])
    again = json.loads(shell("score", tmp_path, "moons", "--json")[1])  # of the test rows, where a set has some
    assert again["accuracy"] == result["measured"]["accuracy"] and again["rows"] == 1000


def test_reproduce_needs_labels(shell, monkeypatch):
    monkeypatch.setattr(TinyNetwork, "trials", {"small": Trial("fa-tutorial"), "other": Trial("iris")})
    assert_refused(
        shell("reproduce", "tiny-network"), "fa-tutorial: expected labels of training and test rows, got none"
    )
    assert_refused(shell("reproduce", "tiny-network", "--scale", "other"), "no test rows")
