"""The command line: what it prints and writes, and one line for every mistake."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from bad_files import bad_files
from damaged_files import damaged_copies
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

import ravine as rv
from ravine.cli import main
from ravine.data import load_dataset, read_table, write_table
from ravine.evidence import AIS, Layered
from ravine.gradients import Enumerate, StraightThrough
from ravine.recipes.factor_analysis import TRUE_MODEL
from ravine.recipes.vae import VAE
from ravine.reproduce import _active, took
from ravine.studies import one_bit
from ravine.trial import Trial

# what a file names is compared with a plain array
pytestmark = pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")

COMMANDS = ("list", "info", "fit", "score", "sample", "encode", "predict", "impute", "forecast", "compare", "diagnose",
            "report", "anomalies", "synthesize", "reproduce")  # fmt: skip
TINY = ["--set", "steps=20", "--set", "hidden=(4,)", "--set", "latents=2", "--set", "evidence=ImportanceWeighted(k=5)"]
EM = ["--set", "iterations=5"]
IRIS = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of factor analysis on iris."""
    path = tmp_path_factory.mktemp("runs") / "iris"
    assert main(["fit", "factor-analysis", "iris", *EM, "--out", str(path)]) == 0
    return path


def assert_refused(got, *words) -> None:
    """Exit status 2, nothing on standard output, one line on standard error that holds these words."""
    status, out, err = got
    assert (status, out) == (2, "")
    assert err.startswith("ravine: ") and err.endswith("\n") and err[:-1].isprintable() and len(err) < 700, err
    for word in words:
        assert word in err


# a process started in the background of a shell ignores Ctrl-C, and so do its children
START = """import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from ravine.cli import main
raise SystemExit(main())"""


@contextlib.contextmanager
def process(*words, **options) -> Iterator[subprocess.Popen]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", START, *map(str, words)], **pipes, **options) as run:
        try:
            yield run
        finally:
            run.kill()


# --- what there is


def test_list(shell):
    status, out, err = shell("list")
    assert (status, err) == (0, "") and "gaussian-mixture" in out and "fa-tutorial" in out
    known = json.loads(shell("list", "--json")[1])
    assert set(known) == {"recipes", "data", "studies"}
    studies = ["bars-and-stripes", "disentangled", "experts", "few-labels", "local-learning", "one-bit", "prototypes"]
    assert list(known["studies"]) == studies
    assert known["recipes"]["vae"].startswith("Variational auto-encoder.")


@pytest.mark.parametrize("recipe", ["vae", "gaussian-mixture", "factor-analysis", "variational-factor-analysis"])
def test_info_shows_paper_trials_and_fields(shell, recipe):
    status, out, err = shell("info", recipe)
    assert (status, err) == (0, "")
    assert (
        out.startswith(f"{recipe}: ") and "arXiv:" in out and "standardise = " in out and "random_state = None" in out
    )
    assert ("; reported " in out) == (recipe != "gaussian-mixture")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_needs_nothing_heavy(command):
    """How fast it answers is measured in `benchmarks/startup.py`."""
    heavy = {"jax", "numpy", "sklearn", "pandas", "rich.markdown"}
    code = (
        "import sys; from ravine.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *command.split(), "--help"], capture_output=True, text=True)
    *text, last = done.stdout.splitlines()
    assert done.returncode == 0 and done.stderr == "" and text[0].startswith(f"Usage: ravine {command}".rstrip())
    assert last == "[]"


def test_version(shell):
    assert shell("--version") == (0, f"{rv.__version__}\n", "")


# --- fit, and what follows


def test_a_fitted_folder_holds_all_that_is_promised(folder):
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "recipe.json", "checkpoint", "metrics.jsonl"} <= names
    record = json.loads((folder / "recipe.json").read_text())
    assert record["recipe"] == "factor-analysis" and record["fields"]["iterations"] == "5"
    assert record["numbers"]["checksum"] == load_dataset("iris").checksum
    assert record["numbers"]["test"]["bound"] == "exact" and record["data"]["names"] == list(IRIS)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 5


def test_score_prints_the_number_with_what_it_means(shell, folder):
    status, out, err = shell("score", folder, "iris")
    expected = rv.load(folder).evaluate(load_dataset("iris").train)
    assert (status, out, err) == (0, f"{expected}\n", "")
    got = json.loads(shell("score", folder, "iris", "--json")[1])
    assert got["log_likelihood"] == expected.log_likelihood and got["standard_error"] == expected.standard_error
    assert (got["rows"], got["bound"], got["method"]) == (150, "exact", "closed-form")
    assert got["bits_per_dim"] == expected.bits_per_dim and got["seed"] == expected.seed


def test_fit_prints_one_object_and_a_seed_repeats_it(shell):
    run = lambda *words: json.loads(shell("fit", "vae", "iris", *TINY, "--json", *words)[1])  # noqa: E731
    one, two, other = run("--seed", "7"), run("--seed", "7"), run("--seed", "8")
    assert one == two != other
    assert (one["recipe"], one["data"], one["out"], one["complete"]) == ("vae", "iris", None, True)
    assert (one["rows"], one["bound"], one["method"]) == (15, "lower", "importance-5")


@pytest.mark.slow
def test_the_share_for_the_test_may_be_chosen(shell):
    status, out, _ = shell("fit", "factor-analysis", "iris", *EM, "--test-size", "0.5")
    assert status == 0 and "75 rows" in out
    status, out, _ = shell("fit", "factor-analysis", "iris", *EM, "--test-size", "0")
    assert status == 0 and "test rows" not in out
    _, out, _ = shell("fit", "factor-analysis", "moons", *EM)  # has test rows of its own
    assert "1000 rows" in out


def test_parts_are_written_as_in_python(shell, tmp_path):
    words = ["--set", "covariance=Diagonal(reg_covar=1e-3)", "--set", "components=3", "--set", "start=Spread()"]
    assert shell("fit", "gaussian-mixture", "iris", *words, *EM, "--out", tmp_path)[0] == 0
    model = rv.load(tmp_path)
    assert repr(model.covariance) == "Diagonal(reg_covar=0.001)" and model.components == 3
    given = "start=Given((0.5, 0.5), ((5.0, 3.0, 1.5, 0.2), (6.0, 3.0, 4.5, 1.5)), ((1.0,)*4,)*2)".replace(
        "((1.0,)*4,)*2", "((1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0))"
    )
    assert shell("fit", "gaussian-mixture", "iris", "--set", given, *words[:2], *EM)[0] == 0


def test_discrete_data_reach_a_model_of_reals_only_as_declared(shell):
    assert_refused(shell("fit", "gaussian-mixture", "digits"), "17-level counts", "dequantise='uniform'")
    status, out, _ = shell("fit", "factor-analysis", "digits", *EM, "--set", "dequantise=uniform")
    assert status == 0 and "lower bound" in out and "dequantised from 17 levels" in out


def test_resume_goes_on_where_it_was(shell, tmp_path):
    words = ["vae", "iris", *TINY, "--out", tmp_path]
    assert shell("fit", *words)[0] == 0
    before = rv.load(tmp_path)
    status, out, err = shell("fit", *words[:3], "steps=30", *words[4:], "--resume", "--json")
    assert (status, err) == (0, "") and json.loads(out)["complete"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines}) and lines[-1]["step"] == 30
    assert rv.load(tmp_path).score(load_dataset("iris").train) != before.score(load_dataset("iris").train)
    assert_refused(shell("fit", *words, "--resume", "--seed", "1"), "random_state")
    assert_refused(shell("fit", *words[:-2], "--resume"), "--out")


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".npy", ".npz", ".parquet"])
def test_samples_and_latents_are_written_in_every_format(shell, folder, tmp_path, ending):
    new, latents = tmp_path / f"new{ending}", tmp_path / f"latents{ending}"
    assert shell("sample", folder, "-n", "7", "--out", new)[:2] == (0, f"{new}: 7 rows, 4 columns\n")
    table, model = read_table(new), rv.load(folder)
    np.testing.assert_array_equal(table.x, model.sample(7))
    assert table.names == (None if ending == ".npy" else IRIS)
    assert shell("encode", folder, "iris", "--out", latents)[0] == 0
    table = read_table(latents)
    np.testing.assert_array_equal(table.x, model.transform(load_dataset("iris").train))
    assert table.names == (None if ending == ".npy" else ("factoranalysis0", "factoranalysis1"))


def test_other_samples_by_another_seed(shell, folder, tmp_path):
    drawn = []
    for i, words in enumerate([[], [], ["--seed", "1"]]):
        assert shell("sample", folder, "--number", "3", "--out", tmp_path / f"{i}.npy", *words)[0] == 0
        drawn.append(np.load(tmp_path / f"{i}.npy"))
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).all()


def holed_iris(path) -> np.ndarray:
    X = load_dataset("iris").train.copy()
    X[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
    X[3] = np.nan
    write_table(path, X, IRIS)
    return X


def test_holes_are_filled_and_observed_cells_kept_to_the_letter(shell, tmp_path):
    X = holed_iris(tmp_path / "holes.csv")
    assert shell("fit", "gaussian-mixture", tmp_path / "holes.csv", *EM, "--out", tmp_path / "run")[0] == 0
    got = shell("impute", tmp_path / "run", tmp_path / "holes.csv", "--out", tmp_path / "filled.csv")
    assert got == (0, f"{tmp_path / 'filled.csv'}: 150 rows, 4 columns\n", "")
    before, after = (
        [line.split(",") for line in (tmp_path / name).read_text().splitlines()] for name in ("holes.csv", "filled.csv")
    )
    assert before[0] == after[0]
    kept = [
        (b, a) for row, other in zip(before, after, strict=True) for b, a in zip(row, other, strict=True) if b != "nan"
    ]
    assert len(kept) > 400 and all(b == a for b, a in kept)
    filled = read_table(tmp_path / "filled.csv").x
    assert np.isfinite(filled).all() and (filled[~np.isnan(X)] == X[~np.isnan(X)]).all()
    assert "with missing values" in shell("score", tmp_path / "run", tmp_path / "holes.csv")[1]


@pytest.mark.slow
def test_a_table_of_text_numbers_and_dates_is_fitted_drawn_and_filled(shell, tmp_path):
    table = pd.DataFrame(
        {
            "city": ["Rome", "Oslo", None, "Rome"] * 20,
            "rooms": [1, 2, 2, 3] * 20,
            "rent": np.linspace(500.5, 900.25, 80),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(80), unit="D"),
        }
    )
    data, run, new, filled = (tmp_path / name for name in ("rent.csv", "run", "new.csv", "filled.parquet"))
    table.to_csv(data, index=False)
    declared = ["--set", "columns={'rooms': ('ordinal', [1, 2, 3])}"]
    status, out, err = shell("fit", "vae", data, *TINY, *declared, "--out", run)
    assert (status, err) == (0, "")
    assert "city   binary: 'Oslo' or 'Rome'\nrooms  ordinal of 3 levels\nrent   numeric\nsince  date\n" in out
    assert "4 columns: 1 binary, 1 date, 1 numeric, 1 ordinal, with missing values" in out
    assert shell("sample", run, "-n", "9", "--out", new) == (0, f"{new}: 9 rows, 4 columns\n", "")
    drawn = read_table(new).x
    assert (
        set(drawn["city"]) <= {"Rome", "Oslo"} and set(drawn["rooms"]) <= {1, 2, 3} and drawn["since"].dtype.kind == "M"
    )
    assert shell("impute", run, data, "--out", filled)[0] == 0
    made = read_table(filled).x
    assert not made.isna().any().any() and (made["city"] == table["city"])[table["city"].notna()].all()
    assert json.loads(shell("score", run, data, "--json")[1])["measure"] == "mixed"
    assert_refused(shell("fit", "gaussian-mixture", data), "GaussianMixture", "vae")


def test_draws_are_numbered_files(shell, folder, tmp_path):
    X = holed_iris(tmp_path / "holes.parquet")
    out = tmp_path / "filled.csv.gz"
    assert shell("impute", folder, tmp_path / "holes.parquet", "--out", out, "--draws", "2")[0] == 0
    assert not out.exists()
    one, two = (read_table(tmp_path / f"filled-{i}.csv.gz").x for i in (1, 2))
    assert (one[~np.isnan(X)] == X[~np.isnan(X)]).all() and (one != two).sum() == np.isnan(X).sum()
    assert_refused(shell("impute", folder, "iris", "--out", out, "--draws", "0"), "draws")
    assert_refused(shell("impute", folder, "iris", "--out", out, "--draws", "2", "--interval", "0.9"), "one of draws")


@pytest.mark.slow
def test_intervals_and_multiple_imputations_are_files(shell, folder, tmp_path):
    X = holed_iris(tmp_path / "holes.parquet")
    words = ("impute", folder, tmp_path / "holes.parquet", "--out", tmp_path / "filled.csv")
    assert shell(*words, "--interval", "0.9")[0] == 0 and shell(*words, "--multiple", "2")[0] == 0
    made = {end: read_table(tmp_path / f"filled{end}.csv").x for end in ("", "-low", "-high", "-1", "-2")}
    holes = np.isnan(X)
    assert all((table[~holes] == X[~holes]).all() for table in made.values())
    assert (made["-low"][holes] < made[""][holes]).all() and (made[""][holes] < made["-high"][holes]).all()
    assert (made["-1"] != made["-2"])[holes].all()


def test_columns_must_be_those_of_the_training_data(shell, folder, tmp_path):
    X = load_dataset("iris").train
    write_table(tmp_path / "swapped.csv", X[:, ::-1], IRIS[::-1])
    assert_refused(shell("score", folder, tmp_path / "swapped.csv"), "columns", "petal width")
    write_table(tmp_path / "narrow.npy", X[:, :3])
    assert_refused(shell("score", folder, tmp_path / "narrow.npy"), "3 features")
    np.save(tmp_path / "plain.npy", X)
    assert shell("score", folder, tmp_path / "plain.npy")[0] == 0


@pytest.mark.slow
def test_images_keep_their_shape(shell, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, size=(20, 3, 4), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    words = ["--set", "kind=real", *TINY, "--out", tmp_path / "run"]
    assert shell("fit", "vae", tmp_path / "images.npy", *words)[0] == 0
    assert rv.load(tmp_path / "run").schema_.image_shape == (3, 4)


# --- reproduce


def test_reproduce_prints_the_reported_number_beside_ours(shell, tmp_path):
    status, out, err = shell("reproduce", "factor-analysis", "--out", tmp_path)
    assert (status, err) == (0, "") and "reported -3.97 (the true model" in out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["reported"]["log_likelihood"] == TRUE_MODEL.reported
    assert result["measured"]["log_likelihood"] == rv.load(tmp_path).score(load_dataset("fa-tutorial").test)
    assert abs(result["measured"]["log_likelihood"] - TRUE_MODEL.reported) < 0.02
    assert result["measured"]["rows"] == 1000 and result["command"] == "ravine reproduce factor-analysis --scale small"


@pytest.mark.slow
def test_reproduce_with_seeds_reports_their_mean(shell, tmp_path, monkeypatch):
    fields = {"steps": 5, "hidden": (4,), "latents": 2, "kind": "real"}
    monkeypatch.setattr(VAE, "trials", {"small": Trial("moons", fields, None, "a picture only")})
    status, out, err = shell("reproduce", "vae", "--seeds", "2", "--out", tmp_path)
    assert (status, err) == (0, "")
    result = json.loads((tmp_path / "result.json").read_text())
    assert out.count("seed ") == 2 and "a picture only" in out
    assert result["measured"]["log_likelihood"] == np.mean(result["measured"]["seeds"]) and len(result["curve"]) > 0
    assert result["command"].endswith("--seeds 2") and (tmp_path / "seed-1" / "model.safetensors").exists()
    assert_refused(shell("reproduce", "vae", "--scale", "paper"), "paper", "small")


@pytest.mark.slow
def test_reproduce_from_a_few_labels_reports_the_share_of_right_classes(shell, tmp_path, monkeypatch):
    fields = {"steps": 200, "hidden": (8,), "latents": 1, "kind": "real", "rate": 1e-2, "validation": 0.0}
    trial = Trial("moons", fields, None, "a picture only", labels=20, accuracy=0.9)
    monkeypatch.setattr(rv.SemiSupervisedGumbel, "trials", {"small": trial})
    status, out, err = shell("reproduce", "semi-supervised-gumbel", "--out", tmp_path)
    assert (status, err) == (0, "")
    got, data = json.loads((tmp_path / "result.json").read_text())["accuracy"], load_dataset("moons")
    assert got["measured"] == np.mean(rv.load(tmp_path).predict(data.test) == data.labels[1]) > 0.7
    assert f"accuracy {100 * got['measured']:.2f} %, reported 90.00 %" in out and got["labels of each class"] == 20
    monkeypatch.setattr(rv.SemiSupervisedGumbel, "trials", {"small": Trial("fa-tutorial", fields, labels=2)})
    assert_refused(shell("reproduce", "semi-supervised-gumbel"), "fa-tutorial", "labels")


def test_the_seconds_of_a_run_that_went_on_are_added(tmp_path):
    lines = [{"seconds": seconds} for seconds in (1.0, 4.0, 0.5, 2.0, 1.0)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert took(tmp_path / "metrics.jsonl") == 4 + 2 + 1 and took(tmp_path / "none") == 0


@pytest.mark.slow
def test_reproduce_has_what_it_makes_of_a_label_told_and_evaluates_in_other_ways(shell, tmp_path, monkeypatch):
    fields = {
        "layers": (3, 3),
        "greedy": 100,
        "steps": 30,
        "sweeps": 20,
        "kind": "binary",
        "binarise": "threshold",
        "threshold": 0.0,
    }
    trial = Trial("moons", fields, None, labels=500, tested=30, beside=((Layered(1, AIS(50, 20)), 20),), dreams=3)
    monkeypatch.setattr(rv.DeepBeliefClassifier, "trials", {"small": trial})
    status, out, err = shell("reproduce", "deep-belief-classifier", "--out", tmp_path)
    assert (status, err) == (0, "") and "beside: " in out and "dreams: " in out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["measured"]["rows"] == 30
    assert [one["rows"] for one in result["beside"]] == [20] and result["beside"][0]["direction"] == "estimate"
    told, model, data = result["dreams"], rv.load(tmp_path), load_dataset("moons")
    assert len(told["each label"]) == 2 and told["of each label"] == 3 and 0.9 < told["judge"] <= 1
    judge = make_pipeline(PCA(2), SVC(C=5)).fit(data.train, data.labels[0])
    assert told["each label"][1] == np.mean(judge.predict(model.dream(1, 3)) == 1)
    made, known = np.concatenate([model.dream(c, 3) for c in (0, 1)]), np.repeat([0, 1], 3)
    assert told["student"]["measured"] == SVC(C=5).fit(made, known).score(data.test, data.labels[1])
    (machine,), found = result["log_partition"], model.log_partition(AIS(50, 20))
    assert machine["value"] == pytest.approx(found.value) and machine["deviation"] == pytest.approx(found.deviation)


def test_reproduce_tells_which_cells_are_active(capsys):
    """Of test rows; nothing where no cells fire."""
    kept, dataset = types.SimpleNamespace(sparsity=lambda X: np.array([0.25, len(X) / 2000])), load_dataset("moons")
    share = len(dataset.test[:1000]) / 2000
    assert _active(dataset, [kept, kept]) == {"active": [[0.25, share]] * 2}
    assert f"0.25, {share:.2f}" in capsys.readouterr().out and _active(dataset, [kept, object()]) == {}


def test_reproduce_runs_a_study(shell, tmp_path, monkeypatch):
    """The exact gradient finds the better bit; the one straight through does not know which it is."""
    monkeypatch.setattr(one_bit, "ESTIMATORS", (Enumerate(), StraightThrough()))
    monkeypatch.setattr(one_bit, "SCALES", {"small": {"target": 0.4, "steps": 1000}})
    status, out, err = shell("reproduce", "one-bit", "--seeds", "3", "--seed", "5", "--out", tmp_path)
    assert (status, err) == (0, "") and "| `Enumerate()` | " in out and "| 3 of 3 | 0 |" in out
    result = json.loads((tmp_path / "result.json").read_text())
    exact, straight = result["found"].values()
    assert exact["last"][0] == exact["last"][2] < 0.4**2 + 0.1 * (0.6**2 - 0.4**2) < min(straight["last"])
    assert np.all(np.diff(exact["cost"]) < 0) and max(exact["deviation"]) == 0 < min(straight["deviation"])
    assert result["seeds"] == [5, 6, 7] and (tmp_path / "curves.png").stat().st_size > 10_000
    assert_refused(shell("reproduce", "one-bit", "--scale", "paper"), "paper", "small")
    assert "(b - 0.45)^2" in shell("info", "one-bit")[1] and "target 0.4, steps 1000" in shell("info", "one-bit")[1]


# --- mistakes


@pytest.mark.parametrize(
    "words, said",
    [
        (["nope"], ["nope", "--help"]),
        (["list", "more"], ["more"]),
        (["info"], ["RECIPE"]),
        (["info", "vea"], ["vae"]),
        (["fit"], ["RECIPE"]),
        (["fit", "vae"], ["DATA"]),
        (["fit", "nope", "iris"], ["recipe", "ravine list", "nope"]),
        (["fit", "vae", "irsi"], ["iris"]),
        (["fit", "vae", "/absent.csv"], ["/absent.csv"]),
        (["fit", "vae", "iris", "extra"], ["extra"]),
        (["fit", "vae", "iris", "--bogus"], ["--bogus"]),
        (["fit", "vae", "iris", "--seed", "one"], ["--seed", "one"]),
        (["fit", "vae", "iris", "--seed", "-1"], ["--seed", "-1"]),
        (["fit", "vae", "iris", "--test-size", "1"], ["--test-size", "1.0"]),
        (["fit", "vae", "iris", "--resume"], ["--out"]),
        (["fit", "vae", "iris", "--set"], ["--set"]),
        (["fit", "vae", "iris", "--set", "latents"], ["name=value"]),
        (["fit", "vae", "iris", "--set", "latent=3"], ["latents"]),
        (["fit", "vae", "iris", "--set", "latents=0"], ["latents", "at least 1", "got 0"]),
        (["fit", "vae", "iris", "--set", "latents=2.5"], ["latents", "int", "2.5"]),
        (["fit", "vae", "iris", "--set", "latents=many"], ["latents", "many"]),
        (["fit", "vae", "iris", "--set", "latents=__import__('os')"], ["latents"]),
        (["fit", "vae", "iris", "--set", "kind=bits"], ["'binary'", "bits"]),
        (["fit", "vae", "iris", "--set", "kind=levels"], ["whole numbers", "5.1"]),
        (["fit", "vae", "iris", "--set", "precision=half"], ["float32", "half"]),
        (["fit", "vae", "iris", "--set", "evidence=Exactly()"], ["Exact"]),
        (["fit", "gaussian-mixture", "iris", "--set", "covariance=Round()"], ["Round"]),
        (["fit", "gaussian-mixture", "iris", "--set", "covariance=Full(reg=1)"], ["reg_covar"]),
        (["fit", "gaussian-mixture", "iris", "--set", "start=Given((1.0,), ((0.0,),), ((1.0,),))"], ["Given", "2"]),
        (["score"], ["FOLDER"]),
        (["score", "/absent", "iris"], ["recipe.json"]),
        (["sample", "/absent"], ["--out"]),
        (["sample", "/absent", "--out", "x.txt"], [".csv", ".txt"]),
        (["sample", "/absent", "--out", "x.csv", "-n", "few"], ["-n", "few"]),
        (["encode", "/absent", "iris", "--out", "x"], [".parquet"]),
        (["impute", "/absent", "iris", "--out", "x.csv", "--draws", "some"], ["--draws"]),
        (["reproduce", "vae", "--scale", "large"], ["small", "paper"]),
        (["reproduce", "gaussian-mixture"], ["trial", "none"]),
        (["reproduce", "factor-analysis", "--resume"], ["folder"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(shell, words, said):
    assert_refused(shell(*words), *said)


def test_samples_are_at_least_one(shell, folder, tmp_path):
    assert_refused(shell("sample", folder, "-n", "0", "--out", tmp_path / "x.csv"), "n_samples")
    assert_refused(shell("sample", folder, "--out", tmp_path / "no" / "such" / "x.csv"), "x.csv")
    assert_refused(shell("fit", "factor-analysis", "iris", *EM, "--out", folder / "recipe.json"), "recipe.json")


@pytest.mark.parametrize("seed", [3])
def test_malformed_data_are_one_line(shell, tmp_path, seed):
    for path in bad_files(tmp_path, 200, seed):
        assert_refused(shell("fit", "factor-analysis", path))


def test_damaged_models_are_one_line(shell, folder, tmp_path):
    run, model = tmp_path / "run", tmp_path / "run" / "model.safetensors"
    (tmp_path / "copies").mkdir()
    shutil.copytree(folder, run)
    count = 0
    for kind, path in damaged_copies(folder / "model.safetensors", tmp_path / "copies"):
        shutil.rmtree(model) if model.is_dir() else model.unlink()
        path.rename(model)
        status, out, err = shell("score", run, "iris")
        assert (status, out) == (2, "") and err.count("\n") == 1 and "Traceback" not in err, f"{kind}: {err}"
        count += 1
    assert count == 200


# --- processes


@pytest.mark.slow
def test_a_plain_run_says_nothing_on_standard_error(tmp_path):
    words = ["fit", "factor-analysis", "iris", *EM, "--out", tmp_path / "run"]
    with process(*words) as run:
        out, err = run.communicate()
    assert (run.returncode, err) == (0, "") and "kept in" in out


@pytest.mark.slow
def test_ctrl_c_saves_and_resume_completes(shell, tmp_path):
    words = ["vae", "digits", *TINY[2:], "--set", "patience=1000000", "--out", tmp_path / "run"]
    metrics = tmp_path / "run" / "metrics.jsonl"
    with process("fit", *words, "--set", "steps=100000000") as run:
        deadline = time.monotonic() + 300
        while not (metrics.exists() and metrics.read_text().count("\n") > 1):
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=120)
    assert (run.returncode, err) == (130, "") and "interrupted" in out and "--resume" in out
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert rv.load(tmp_path / "run").sample(2).shape == (2, 64)
    last = lines[-1]["step"] + 25
    status, out, err = shell("fit", *words, "--set", f"steps={last}", "--resume")
    assert (status, err) == (0, "") and "test rows" in out
    after = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert after[: len(lines)] == lines and after[-1]["step"] == last


@pytest.mark.slow
def test_a_reader_that_stops_reading_is_no_error(tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", "from ravine.cli import main; raise SystemExit(main())", "list"],
                          stdout=write, stderr=subprocess.PIPE, text=True)  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_progress_bar_appears_only_when_asked(capsys):
    X = load_dataset("iris").train
    rv.FactorAnalysis(iterations=3, progress=False, random_state=0).fit(X)
    assert capsys.readouterr().err == ""
    rv.FactorAnalysis(iterations=3, progress=True, random_state=0).fit(X)
    err = capsys.readouterr().err
    assert "FactorAnalysis" in err and "3/3" in err
