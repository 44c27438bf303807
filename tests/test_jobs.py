"""Odd rows and made-up rows: what is planted is found, probabilities are calibrated, copying is seen."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
from helpers import some

import ravine as rv
from ravine.anomalies import anomalies
from ravine.anomalies.cells import cells_of, log_p
from ravine.cli import main
from ravine.data import read_table
from ravine.diagnose.samples import LEAST
from ravine.evidence import ImportanceWeighted
from ravine.models.families import Diagonal
from ravine.synthesis import synthesize
from ravine.synthesis.privacy import privacy

LIMIT = 2.5  # of sqrt(n) times a Kolmogorov-Smirnov distance: passed with probability 2 exp(-2 LIMIT^2) = 7e-6
NET = {
    "latents": 1,
    "hidden": (4,),
    "steps": 30,
    "evidence": ImportanceWeighted(5),
    "particles": 5,
    "validation": 0.0,
    "random_state": 0,
}
FA = {"latents": 1, "iterations": 30}
COLUMNS = 5


def correlated(rows: int, seed: int = 0, columns: int = COLUMNS) -> np.ndarray:
    """Rows with one cause in common."""
    stream = np.random.default_rng([seed, columns])
    return stream.normal(size=(rows, 1)) + 0.5 * stream.normal(size=(rows, columns))


def with_holes(X, share: float = 0.3, seed: int = 1):
    gone = np.random.default_rng(seed).random(X.shape) < share
    gone[gone.all(axis=1), 0] = False
    return X.mask(gone) if isinstance(X, pd.DataFrame) else np.where(gone, np.nan, X)


def people(rows: int = 90) -> pd.DataFrame:
    stream = np.random.default_rng(0)
    z = stream.normal(size=rows)
    sizes = pd.Categorical.from_codes(np.clip(np.rint(z + 1), 0, 2).astype(int), ["S", "M", "L"], ordered=True)
    frame = pd.DataFrame(
        {
            "height": 170 + 8 * z + stream.normal(size=rows),
            "smoker": np.where(z + stream.normal(size=rows) > 0, "yes", "no"),
            "size": sizes,
            "born": pd.Timestamp("1980-01-01") + pd.to_timedelta(np.rint(900 * z), unit="D"),
        },
        index=pd.Index([f"p{i}" for i in range(rows)]),
    )
    frame.loc[frame.index[::5], "height"] = np.nan
    frame.loc[frame.index[1::7], "smoker"] = None
    return frame


def dated(rows: int = 200) -> pd.DataFrame:
    """Numbers and a date, with holes."""
    frame = pd.DataFrame(correlated(rows), columns=[*"abcd", "on"], index=[f"p{i}" for i in range(rows)])
    frame["on"] = pd.Timestamp("2000-01-01") + pd.to_timedelta(np.rint(100 * frame["on"]), unit="D")
    return with_holes(frame, 0.1)


def images(rows: int = 60, side: int = 4, top: int = 16) -> np.ndarray:
    stream = np.random.default_rng(0)
    ink = stream.random((rows, 1, 1)) < 0.5
    return (top * (stream.random((rows, side, side)) < np.where(ink, 0.8, 0.2))).astype(float)


# what rows look like, and a model of them
WORLDS = {
    "dates": lambda: (rv.FactorAnalysis(**FA, random_state=0), dated()),
    "array": lambda: (rv.FactorAnalysis(**FA, random_state=0), correlated(200)),
    "holes": lambda: (rv.FactorAnalysis(**FA, random_state=0), with_holes(correlated(200))),
    "people": lambda: (rv.VAE(**NET), people()),
    "images": lambda: (rv.VAE(**NET, binarise="dynamic"), images()),
}
DEAR = ("people", "images")  # they take long to compile
EACH = [pytest.param(name, marks=pytest.mark.slow) if name in DEAR else name for name in WORLDS]
FITTED = {}


def world(name: str):
    if name not in FITTED:
        model, X = WORLDS[name]()
        FITTED[name] = model.fit(X), X
    model, X = FITTED[name]
    return model, copy.deepcopy(X)


def gaussian(model) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of a factor analysis."""
    fitted = model.model_
    W, noise = np.asarray(fitted.loading, float), np.asarray(fitted.noise.scale(len(fitted.loading)), float) ** 2
    return np.asarray(fitted.bias, float), W @ W.T + np.diag(noise)


# --- odd rows


@pytest.mark.parametrize("name", EACH)
def test_scores_are_those_of_the_estimator(name):
    model, X = world(name)
    got, want = log_p(model, cells_of(model, X)[0])[0], model.log_likelihood(X).value
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["array", "holes"])
@pytest.mark.parametrize("place", [3, 77])
def test_a_planted_cell_is_ranked_and_blamed_first(name, place):
    model, X = world(name)
    X[place] = correlated(200)[place]
    X[place, 2] += 6
    found = anomalies(model, X, top=2, draws=199)
    first = found.odd[0]
    assert (found.order[0], first.place, first.label) == (place, place, place)
    assert first.cells[0].name == "column 'x2'" and np.nanargmax(found.nats[0]) == 2
    assert first.cells[0].value == X[place, 2] and abs(first.cells[0].expected - X[place, 2] + 6) < 3
    assert f"row {place} (1 in 200): column 'x2' = " in str(found)


@pytest.mark.slow
def test_a_planted_cell_of_a_frame_is_blamed():
    model, X = world("people")
    X.loc["p40", "height"] = 260.0
    found = anomalies(model, X, top=3, draws=99)
    assert (found.odd[0].label, found.odd[0].cells[0].name) == ("p40", "column 'height'")
    assert found.frame().index[0] == "p40" and found.frame()["value_1"].iloc[0] == "260"


@pytest.mark.slow
def test_between_two_classes_the_nearer_value_is_expected():
    stream = np.random.default_rng(0)
    X = np.concatenate([stream.normal(-6, 1, (150, 1)), stream.normal(6, 1, (150, 1))])
    model = rv.GaussianMixture(components=2, random_state=0).fit(X)
    cell = anomalies(model, [[0.1]], draws=99).odd[0].cells[0]
    assert abs(abs(cell.expected) - 6) < 3 and cell.nats > 8  # the mean of both classes is 0


@pytest.mark.parametrize("name", ["array", "holes"])
def test_blame_is_the_gaussian_conditional(name):
    model, X = world(name)
    mean, covariance = gaussian(model)
    found = anomalies(model, X, top=10, draws=9)
    for row in found.odd:
        x, seen = X[row.place], ~np.isnan(X[row.place])
        assert len(row.cells) == seen.sum()
        for cell in row.cells:
            j = int(cell.name[-2])
            rest = seen & (np.arange(len(x)) != j)
            gain = np.linalg.solve(covariance[np.ix_(rest, rest)], covariance[rest, j])
            expected = mean[j] + gain @ (x[rest] - mean[rest])
            variance = covariance[j, j] - gain @ covariance[rest, j]
            half = (x[j] - expected) ** 2 / (2 * variance)
            want = (expected, half, -half - 0.5 * np.log(2 * np.pi * variance))
            np.testing.assert_allclose((cell.expected, cell.nats, cell.log_p), want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_tail_probabilities_of_rows_of_the_model_are_uniform(share):
    """The largest distance from P(p <= v) = v over the values that p takes; few probability is 7e-6 to be passed."""
    model, _ = world("array")
    rows, draws = 1000, 999
    X = with_holes(model.sample(rows, random_state=5), share)
    tail = anomalies(model, X, blame=False, draws=draws).tail
    values = np.unique(tail)
    far = np.abs([np.mean(tail <= v) - v for v in values]).max()
    assert far < LIMIT * np.sqrt(1 / rows + 1 / draws) + 1 / draws
    holes = np.isnan(X).mean(axis=1)
    for part in (holes <= np.median(holes), holes >= np.median(holes)):  # many holes are not taken for likely rows
        assert abs(tail[part].mean() - 0.5) < 4.5 * np.sqrt(1 / 12) * np.sqrt(1 / part.sum() + 1 / draws) + 0.01


def test_a_row_with_holes_stops_at_the_tenth_draw_that_is_as_likely():
    model, X = world("holes")
    tail = anomalies(model, X, blame=False, draws=499).tail
    early = np.isnan(X).any(axis=1) & (tail > 10 / 499)
    assert early.sum() > 100
    np.testing.assert_allclose(10 / tail[early], np.rint(10 / tail[early]), rtol=1e-12)
    np.testing.assert_allclose(500 * tail[~early], np.rint(500 * tail[~early]), rtol=1e-12)


def test_a_row_alone_has_the_answer_that_it_has_among_others():
    model, X = world("holes")
    places = np.array([5, 50, 120])
    many, few = anomalies(model, X, top=200, draws=199), anomalies(model, X[places], draws=199)
    assert few.tail.tolist() == many.tail[places].tolist()
    cells = {row.place: row.cells for row in many.odd}
    assert all(row.cells == cells[int(places[row.place])] for row in few.odd)


@pytest.mark.parametrize("name", EACH)
def test_what_is_told_of_odd_rows(name):
    model, X = world(name)
    before = copy.deepcopy(X)
    found = anomalies(model, X, top=3, draws=19)
    pd.testing.assert_frame_equal(X, before) if isinstance(X, pd.DataFrame) else np.testing.assert_array_equal(
        X, before
    )
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["bound"] == model.log_likelihood(X).direction and len(told["odd"]) == 3 == len(found.frame())
    assert np.all(np.diff(found.tail[found.order]) >= 0) and sorted(found.order) == list(range(len(X)))
    assert found.nats.shape == (3, *np.shape(X)[1:])
    assert str(found).startswith(f"{found.count()} of {len(X)} row")
    labels = list(X.index[found.order[:3]]) if isinstance(X, pd.DataFrame) else found.order[:3].tolist()
    assert found.frame().index.tolist() == labels
    missing = (
        pd.isna(X.iloc[found.order[:3]]).to_numpy() if isinstance(X, pd.DataFrame) else np.isnan(X[found.order[:3]])
    )
    assert np.isnan(found.nats[missing]).all() and np.isfinite(found.nats[~missing]).all()


@pytest.mark.slow
def test_large_images_are_hidden_in_patches():
    X = images(20, side=16, top=1)
    model = rv.VAE(**(NET | {"steps": 5})).fit(X)
    found = anomalies(model, X, top=1, draws=9)
    assert found.nats.shape == (1, 16, 16)
    assert found.odd[0].cells[0].name.startswith("lines ") and len(found.odd[0].cells) == 64
    assert (found.nats[0, :2, :2] == found.nats[0, 0, 0]).all()


@pytest.mark.slow
def test_in_a_wide_table_the_cell_is_searched_for():
    X = correlated(60, columns=230)
    model = rv.FactorAnalysis(**FA, random_state=0).fit(X)
    X[9, 170] += 8
    found = anomalies(model, X, top=1, draws=9)
    assert (found.odd[0].place, found.odd[0].cells[0].name) == (9, "column 'x170'")
    assert np.isfinite(found.nats).sum() == 48  # three groups of sixteen


def test_an_empty_row_is_the_least_odd():
    model, X = world("array")
    X[4] = np.nan
    found = anomalies(model, X, top=200, draws=49)
    assert found.tail[4] == 1 and found.log_p[4] == 0
    assert next(row.cells for row in found.odd if row.place == 4) == ()


# --- made-up rows


class Copying(rv.FactorAnalysis):
    """Knows its rows by heart, and gives them out with a little noise."""

    noise: float = 0.0

    def sample(self, n_samples: int = 1, *, random_state=None):
        stream = np.random.default_rng(random_state)
        chosen = self.kept_[stream.integers(len(self.kept_), size=n_samples)]
        return chosen + self.noise * stream.normal(size=chosen.shape)

    def fit(self, X, y=None, **options):
        self.kept_ = np.array(X)
        return rv.FactorAnalysis.fit(self, X, y, **options)


@pytest.mark.parametrize("noise", [0.0, 1e-5, 0.02])
def test_a_model_that_copies_is_flagged(noise):
    found = synthesize(Copying(**FA, random_state=0, noise=noise), correlated(200)).privacy
    assert found.good() is False and "leak" in found.words() and found.nearer > 0.9
    assert found.exact == (1 if noise < 1e-4 else 0)


@pytest.mark.parametrize("seed", range(3))
def test_an_honest_model_is_not_flagged(seed):
    found = synthesize(rv.FactorAnalysis(**FA), correlated(200, seed), random_state=seed)
    assert found.privacy.good() is True and found.privacy.exact == 0 and "leak" not in found.privacy.words()
    assert found.fidelity.good(), found.fidelity.words()
    assert "differential privacy" in str(found)


def test_the_error_of_nearer_is_that_of_repetitions():
    """The variance over 400 repetitions: its ratio to the stated one has a standard error of sqrt(2 / 400) = 0.07."""
    stream, got = np.random.default_rng(0), []
    seen = [np.ones((rows, 2), bool) for rows in (30, 40)]
    for _ in range(400):
        train, fresh, made = (stream.normal(size=(rows, 2)) for rows in (30, 40, 60))
        got.append(privacy((train, seen[0]), (fresh, seen[1]), made))
    z = [(one.nearer - 0.5) / one.error for one in got]
    assert abs(np.mean(z)) < 4.5 / 20 and abs(np.var(z) - 1) < 4.5 * 0.071


@pytest.mark.slow
def test_independent_columns_are_told_from_a_law_with_one_cause():
    made = synthesize(rv.GaussianMixture(components=1, covariance=Diagonal()), correlated(200)).fidelity
    assert not made.good() and not made.columns.off().any()
    upper = np.triu_indices(COLUMNS, 1)
    assert made.pairs.off()[upper].all() and made.told.z > 5
    assert "association of 10 of 10 pairs is off" in made.words()


def test_a_column_of_another_shape_is_told():
    X = correlated(200)
    X[:, 3] = np.exp(2 * X[:, 3])  # a Gaussian does not suit it
    made = synthesize(rv.FactorAnalysis(**FA), X).fidelity
    assert made.columns.off().tolist() == [False, False, False, True, False] and "'x3'" in made.words()


@pytest.mark.parametrize("holes", some([False, True], True))
def test_new_rows_are_as_the_data_were(holes):
    model, X = world("people")
    before = X.copy()
    made = synthesize(model, X, n=50, held_out=X.iloc[:30], holes=holes)
    pd.testing.assert_frame_equal(X, before)
    assert (made.table.dtypes == X.dtypes).all() and len(made.table) == 50
    assert list(made.table["size"].cat.categories) == ["S", "M", "L"] and made.table["size"].cat.ordered
    assert set(made.table["smoker"].dropna()) <= {"yes", "no"} and made.table["born"].dt.normalize().notna().all()
    gone = made.table.isna().any()
    assert gone[["height", "smoker"]].all() == gone.any() == holes
    told = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert told["rows"] == 50 and set(told["fidelity"]["columns"]) == set(X.columns)


@pytest.mark.parametrize(("dtype", "framed"), [("int64", False), ("uint8", True), ("float32", True)])
def test_data_types_of_plain_numbers_are_kept(dtype, framed):
    X = np.clip(np.rint(4 + 3 * correlated(200)), 0, 20).astype(dtype)
    X = pd.DataFrame(X, columns=list("abcde")) if framed else X
    table = synthesize(rv.FactorAnalysis(**FA), X, n=5).table
    assert type(table) is type(X) and table.shape == (5, COLUMNS)
    assert (np.asarray(table).dtype, list(getattr(table, "columns", []))) == (dtype, list(getattr(X, "columns", [])))


def test_holes_are_as_many_as_in_the_data():
    model, X = world("holes")
    made = [synthesize(model, X, n=40, holes=holes) for holes in (True, False)]
    assert [0.1 < np.isnan(one.table).mean() < 0.5 for one in made] == [True, False]
    assert made[0].fidelity.good() and not np.isnan(made[1].table).any()


@pytest.mark.slow
def test_images_come_back_as_images():
    model, X = world("images")
    made = synthesize(model, X[:40], n=10, held_out=X[40:])
    assert made.table.shape == (10, 4, 4) and set(np.unique(made.table)) <= {0, 16}
    assert made.privacy.rows == (40, 40, 20) and json.dumps(made.to_json(), allow_nan=False)


def test_new_rows_depend_on_the_seed_alone():
    model, X = world("array")
    a, b, c = (synthesize(model, X, n=30, random_state=seed).table for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not (a == c).any()


def test_a_recipe_is_not_altered_and_sees_no_held_out_row():
    recipe, X = rv.FactorAnalysis(**FA), correlated(200)
    made = synthesize(recipe, X)
    assert not hasattr(recipe, "model_") and recipe.random_state is None
    assert made.model.schema_.rows == 160 and made.privacy.rows[1:] == (160, 40)


@pytest.mark.parametrize("rows", [2, 30])
def test_few_rows_are_compared_as_far_as_they_can_be(rows):
    made = synthesize(world("array")[0], correlated(rows))
    assert made.privacy.good() is None and f"takes {LEAST} rows" in made.privacy.words().replace("that takes", "takes")
    assert (made.fidelity is None) and "too few rows" in str(made)
    assert json.dumps(made.to_json(), allow_nan=False)


# --- mistakes and the shell

MISTAKES = {
    "top": (lambda m, X: anomalies(m, X, top=0), "top: expected a whole number"),
    "draws": (lambda m, X: anomalies(m, X, draws=0), "draws: expected a whole number"),
    "no rows": (lambda m, X: anomalies(m, X[:0]), "the rows: expected at least one"),
    "n": (lambda m, X: synthesize(m, X, n=0), "n: expected a whole number"),
    "seed": (lambda m, X: synthesize(m, X, random_state=-1), "random_state: expected a whole number"),
    "share": (lambda m, X: synthesize(rv.FactorAnalysis(), X, held_out=1.0), "held_out: expected rows, or a share"),
    "not fitted": (lambda m, X: anomalies(rv.FactorAnalysis(), X), "not fitted"),
    "columns": (lambda m, X: anomalies(m, X[:, :2]), "features"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name):
    call, words = MISTAKES[name]
    with pytest.raises(ValueError, match=words) as got:
        call(*world("array"))
    assert "\n" not in str(got.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on a file with an odd row."""
    place = tmp_path_factory.mktemp("jobs")
    X = with_holes(pd.DataFrame(correlated(200), columns=list("abcde")), 0.1)
    X.loc[17, "c"] = 9.0
    X.to_csv(place / "rows.csv", index=False)
    words = [
        "fit",
        "factor-analysis",
        place / "rows.csv",
        "--set",
        "latents=1",
        "--set",
        "iterations=30",
        "--test-size",
        "0.2",
        "--out",
        place / "run",
    ]
    assert main(list(map(str, words))) == 0
    return place


def shell(capsys, *words) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def test_odd_rows_from_the_shell(folder, capsys):
    status, out, _ = shell(capsys, "anomalies", folder / "run", "--top", 4, "--out", folder / "odd.csv")
    assert status == 0 and "row 17 (1 in 1,000): column 'c' = 9 where" in out
    kept = pd.read_csv(folder / "odd.csv")
    assert kept["row"].iloc[0] == 17 and kept["cell_1"].iloc[0] == "column 'c'" and len(kept) == 4
    status, out, _ = shell(capsys, "anomalies", folder / "run", folder / "rows.csv", "--json")
    assert status == 0 and json.loads(out)["odd"][0]["cells"][0]["value"] == 9


def test_new_rows_from_the_shell(folder, capsys):
    new = folder / "new.csv"
    status, out, _ = shell(capsys, "synthesize", folder / "run", "--out", new, "--rows", 33)
    assert status == 0 and "privacy: 0 of 160 new rows equal" in out and "differential privacy" in out
    made = read_table(new)
    assert made.x.shape == (33, COLUMNS) and list(made.names) == list("abcde") and not np.isnan(made.x).any()
    status, out, _ = shell(capsys, "synthesize", folder / "run", "--out", new, "--holes", "--json")
    assert status == 0 and json.loads(out)["privacy"]["rows"] == [160, 160, 40] and np.isnan(read_table(new).x).any()


@pytest.mark.parametrize("command", [["anomalies", "--top", "0"], ["synthesize", "--out", "x.txt"]])
def test_a_mistake_in_the_shell_is_one_line(folder, capsys, command):
    status, out, err = shell(capsys, command[0], folder / "run", *command[1:])
    assert (status, out) == (2, "") and err.startswith("ravine: ") and err.count("\n") == 1
