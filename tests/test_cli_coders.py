"""The command line of models that code rows and have no law of them: what it prints and writes, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import test_cli
from test_cli import assert_refused

import ravine as rv
from ravine.data import load_dataset, read_table

CODERS = {
    "denoising-autoencoder": ["--set", "layers=(6, 3)", "--set", "passes=2"],
    "contractive-autoencoder": ["--set", "layers=(3,)", "--set", "passes=2"],
    "sparse-coding": ["--set", "atoms=3", "--set", "pursuit=FISTA(AfterSteps(20))"],
}


@pytest.fixture(scope="module", params=CODERS)
def folder(request, tmp_path_factory):
    """A run on the flowers that come with scikit-learn."""
    path = tmp_path_factory.mktemp("coders") / request.param
    words = ["fit", request.param, "iris", *CODERS[request.param], "--set", "steps=50", "--out", str(path)]
    assert test_cli.main(words) == 0
    return path


def test_a_coder_is_fitted_scored_and_asked(shell, folder, tmp_path):
    frame, model = pd.DataFrame(load_dataset("iris").train, columns=list(test_cli.IRIS)), rv.load(folder)
    kept = json.loads((folder / "recipe.json").read_text())["numbers"]["test"]
    order = np.random.default_rng(0).permutation(150)
    assert kept["rows"] == 15 and kept["explained"] == model.score(frame.iloc[np.sort(order[:15])])
    expected = model.evaluate(frame)
    assert shell("score", folder, "iris") == (0, f"{expected}\n", "")
    assert json.loads(shell("score", folder, "iris", "--json")[1]) == expected._asdict() | {"words": str(expected)}
    assert shell("encode", folder, "iris", "--out", tmp_path / "codes.parquet")[0] == 0
    codes = read_table(tmp_path / "codes.parquet")
    np.testing.assert_array_equal(codes.x, model.transform(frame))
    assert codes.names == tuple(model.get_feature_names_out())
    frame.iloc[::3, 1] = np.nan
    frame.to_csv(tmp_path / "holes.csv", index=False)
    assert shell("impute", folder, tmp_path / "holes.csv", "--out", tmp_path / "full.csv")[::2] == (0, "")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "full.csv"), model.impute(frame), rtol=1e-12)


def test_a_coder_draws_where_it_can(shell, folder, tmp_path):
    out = tmp_path / "drawn.csv"
    if folder.name == "sparse-coding":
        assert_refused(shell("sample", folder, "--out", out), "expected a model of rows, got SparseCoding, a coder")
        assert not out.exists()
    else:
        assert shell("sample", folder, "-n", "3", "--seed", "4", "--out", out)[0] == 0
        np.testing.assert_allclose(pd.read_csv(out), rv.load(folder).sample(3, random_state=4), rtol=1e-12)


@pytest.mark.parametrize("words", [("report",), ("diagnose",), ("anomalies",), ("impute", "iris", "--draws", "2")])
def test_verbs_of_a_density_are_refused(words, shell, folder, tmp_path):
    command, *more = words
    out = ["--out", tmp_path / "x.csv"] if command == "impute" else []
    assert_refused(shell(command, folder, *more, *out), "this command: expected a model of rows", "a coder of rows")
    assert_refused(shell("predict", folder, "iris", "--out", tmp_path / "x.csv"), "a model with classes")
    assert not (tmp_path / "x.csv").exists()
