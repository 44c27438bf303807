"""Comparing models: the tree of Chow & Liu against enumeration, the verdict as a table, and tables of every kind."""

import itertools
import json
import os

import numpy as np
import pandas as pd
import pytest
from helpers import LIMIT, some
from scipy.integrate import quad

import ravine as rv
from ravine.cli import main
from ravine.compare import ChowLiu, compare, verdict
from ravine.compare.cuts import Levels, pieces, recorded, whole
from ravine.compare.entrants import TreeOfColumns
from ravine.compare.judge import Gap, Outcome, best_of, difference, standard_error
from ravine.compare.reading import footing, reading_of_data
from ravine.data import Schema, TableSchema, load_dataset
from ravine.evidence import AIS, ImportanceWeighted, Normalised

BITS = (Levels(2),) * 4
GRID = np.array(list(itertools.product((0.0, 1.0), repeat=4)))
QUICK = {"latents": 1, "hidden": (4,), "steps": 20, "evidence": ImportanceWeighted(5)}


def bits_of_a_tree(rows, seed=0):
    """Rows of 0 - 1 - 2, 0 - 3: each bit repeats its parent with probability 0.9."""
    stream = np.random.default_rng(seed)
    X = np.empty((rows, 4))
    X[:, 0] = stream.random(rows) < 0.4
    for child, parent in ((1, 0), (2, 1), (3, 0)):
        X[:, child] = np.where(stream.random(rows) < 0.9, X[:, parent], 1 - X[:, parent])
    return X


def log_p_of_the_tree(X):
    same = [np.where(X[:, child] == X[:, parent], 0.9, 0.1) for child, parent in ((1, 0), (2, 1), (3, 0))]
    return np.log(np.where(X[:, 0], 0.4, 0.6)) + np.log(same).sum(axis=0)


def trees(nodes):
    """Every tree over so many nodes, as a set of edges."""
    for edges in itertools.combinations(itertools.combinations(range(nodes), 2), nodes - 1):
        groups = [{i} for i in range(nodes)]
        for a, b in edges:
            joined = next(g for g in groups if a in g) | next(g for g in groups if b in g)
            groups = [g for g in groups if not g & joined] + [joined]
        if len(groups) == 1:
            yield edges


def log_likelihood_of(edges, X):
    """Of the tree that fits best among those with these edges, by counting."""

    def share(columns):
        return {v: np.mean((X[:, columns] == v).all(axis=1)) for v in set(map(tuple, X[:, columns]))}

    total = 0.0
    for columns in map(list, edges):
        both = share(columns)
        total += sum(p * np.log(p / (share([columns[0]])[v[:1]] * share([columns[1]])[v[1:]])) for v, p in both.items())
    return total + sum(sum(p * np.log(p) for p in share([j]).values()) for j in range(X.shape[1]))


@pytest.mark.skipif("RAVINE_DATA" not in os.environ, reason="RAVINE_DATA names no folder of data")
@pytest.mark.parametrize(("name", "published"), [("nltcs", -6.75904), ("plants", -16.5241), ("accidents", -33.1881)])
def test_tree_of_real_bits_is_that_of_another_hand(name, published):
    """N. A. Khargonkar 2019, kninad/clt-mlproj, doc/report.md: one row more for each pair of states than here."""
    data = load_dataset(name)
    tree = ChowLiu.fit(data.train, (Levels(2),) * data.train.shape[1])
    assert np.mean(tree.log_prob(data.test)) == pytest.approx(published, abs=0.005)


@pytest.mark.parametrize("seed", range(5))
def test_no_tree_fits_better(seed):
    X = bits_of_a_tree(60, seed)
    made = ChowLiu.fit(X, BITS)
    found = tuple(sorted(tuple(sorted((j, int(p)))) for j, p in enumerate(made.parents) if p >= 0))
    best = max(log_likelihood_of(edges, X) for edges in trees(4))
    assert len(list(trees(4))) == 16
    assert log_likelihood_of(found, X) == pytest.approx(best, abs=1e-3)  # one spread-out row smooths the counts
    assert made.log_prob(X).mean() == pytest.approx(best, abs=0.02)


def test_probabilities_of_a_tree_sum_to_one_and_holes_are_sums():
    made = ChowLiu.fit(np.where(np.random.default_rng(1).random((50, 4)) < 0.2, np.nan, bits_of_a_tree(50)), BITS)
    p = np.exp(made.log_prob(GRID))
    assert p.sum() == pytest.approx(1, abs=1e-12)
    for seen in itertools.product((True, False), repeat=4):
        holed = np.where(seen, GRID, np.nan)
        want = [p[(GRID[:, list(seen)] == row[list(seen)]).all(axis=1)].sum() for row in GRID]
        np.testing.assert_allclose(np.exp(made.log_prob(holed)), want, atol=1e-12)
    assert made.log_prob(np.full((1, 4), np.nan))[0] == 0.0
    assert made.parameters == 7


def test_a_row_of_a_tree_does_not_depend_on_its_company():
    made, X = ChowLiu.fit(bits_of_a_tree(50), BITS), np.where(GRID + np.arange(4) == 3, np.nan, GRID)
    alone = np.concatenate([made.log_prob(row[None]) for row in X])
    np.testing.assert_allclose(made.log_prob(X), alone, atol=1e-12)
    np.testing.assert_allclose(made.log_prob(np.tile(X, (200, 1)))[-len(X) :], alone, atol=1e-12)


def skewed(rows=400):
    return np.random.default_rng(0).gamma(2.0, 3.0, size=rows)


CUTS = {
    "open": pieces(skewed()),
    "few": pieces(skewed(12)),
    "limits": pieces(skewed(), low=0.0, high=80.0),
    "repeated": pieces(np.repeat([0.0, 1.0, 5.0], [300, 20, 5])),
    "constant": pieces(np.full(20, 3.0)),
    "unseen": pieces(np.zeros(0)),
    "wild": pieces(np.append(skewed(), 1e6)),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_density_of_pieces_integrates_to_one_in_each(name):
    cut = CUTS[name]
    ends = [cut.low, *cut.edges, cut.high]
    for state, (a, b) in enumerate(itertools.pairwise(ends)):
        a, b = max(a, ends[1] - 60 * cut.tails[0]), min(b, ends[-2] + 60 * cut.tails[1])
        total = quad(lambda x: np.exp(cut.log_within(np.array([x])))[0], np.nextafter(a, b), b, limit=200)[0]
        assert total == pytest.approx(1, abs=1e-6)
        assert cut.places(np.array([(a + b) / 2]))[0] == state


WHOLES = {
    "few": whole(np.array([0.0, 1, 1, 2])),
    "many": whole(np.random.default_rng(0).poisson(40.0, 500).astype(float)),
    "ended": whole(np.random.default_rng(0).integers(0, 200, 500).astype(float), end=256),
    "unseen": whole(np.zeros(0)),
}


@pytest.mark.parametrize("name", WHOLES)
def test_a_mass_of_groups_sums_to_one_in_each(name):
    cut, numbers = WHOLES[name], np.arange(WHOLES[name].end or 2_000).astype(float)
    mass = np.bincount(cut.places(numbers), np.exp(cut.log_within(numbers)), cut.states)
    np.testing.assert_allclose(mass, 1, atol=1e-9)


def test_a_recorded_limit_is_a_state():
    cut = recorded(np.clip(skewed(), 1, 10), 1.0, 10.0)
    assert cut.places(np.array([1.0, 10.0, 5.0])).tolist()[:2] == [0, cut.states - 1]
    assert cut.log_within(np.array([1.0, 10.0])).tolist() == [0.0, 0.0] and cut.log_within(np.array([5.0]))[0] < 0


def test_a_tree_of_cut_columns_is_a_density():
    stream = np.random.default_rng(0)
    x = stream.normal(size=300)
    frame = pd.DataFrame({"a": 5 * x, "b": np.exp(x + stream.normal(size=300)), "c": stream.poisson(np.exp(x / 2))})
    tree = TreeOfColumns({"columns": {"b": "positive", "c": "count"}}).fit(frame)

    def one(**cells):
        holed = {"a": np.nan, "b": np.nan, "c": np.nan} | cells
        return np.exp(tree.log_likelihood(pd.DataFrame([holed])).value[0])

    assert sum(one(c=float(c)) for c in range(40)) == pytest.approx(1, abs=1e-3)
    grid = np.linspace(-60, 60, 40_001)
    table = pd.DataFrame({"a": grid, "b": np.nan, "c": 1.0})
    joint = np.trapezoid(np.exp(tree.log_likelihood(table).value), grid)
    assert joint == pytest.approx(one(c=1.0), rel=2e-3)
    log_grid = np.linspace(-12, 12, 40_001)
    table = pd.DataFrame({"a": np.nan, "b": np.exp(log_grid), "c": np.nan})
    p = np.exp(tree.log_likelihood(table).value + log_grid)
    assert np.trapezoid(p, log_grid) == pytest.approx(1, abs=2e-3)


CASES = [  # difference, direction of A, direction of B, verdict at a standard error of 1
    *((3.0, a, b, "better") for a in ("exact", "lower") for b in ("exact", "upper")),
    *((-3.0, a, b, "worse") for a in ("exact", "upper") for b in ("exact", "lower")),
    *((3.0, a, b, "undecided") for a in ("exact", "lower") for b in ("lower", "estimate")),
    *((3.0, a, b, "undecided") for a in ("upper", "estimate") for b in ("exact", "lower", "upper", "estimate")),
    *((-3.0, a, b, "undecided") for a in ("lower", "estimate") for b in ("exact", "lower", "upper", "estimate")),
    *((s * 1.9, a, b, "undecided") for s in (-1, 1) for a in ("exact", "lower", "upper") for b in ("exact", "upper")),
]


@pytest.mark.parametrize(("mean", "a", "b", "want"), CASES)
def test_verdicts(mean, a, b, want):
    assert verdict(mean, 1.0, a, b) == want
    turned = {"better": "worse", "worse": "better", "undecided": "undecided"}[want]
    assert verdict(-mean, 1.0, b, a) == turned


def test_one_row_decides_nothing():
    one = Outcome("a", values=np.array([5.0]), errors=np.zeros(1))
    other = Outcome("b", values=np.array([1.0]), errors=np.zeros(1))
    assert difference(one, other).verdict == "undecided"


def test_errors_of_differences_are_paired_and_hold_the_noise_of_draws():
    a = np.random.default_rng(0).normal(size=100)
    noise = np.full(100, 2.0)
    assert standard_error(a) == pytest.approx(a.std(ddof=1) / 10)
    assert standard_error(np.ones(100), noise) == pytest.approx(0.2)
    assert standard_error(np.ones(100), noise, noise) == pytest.approx(0.2 * np.sqrt(2))


def test_what_rows_share_is_in_every_error_once():
    a = np.random.default_rng(0).normal(size=100)
    assert standard_error(a, shared=0.3) == pytest.approx(np.hypot(a.std(ddof=1) / 10, 0.3))
    one = Outcome("a", values=a + 1, errors=np.zeros(100), shared=0.3)
    other = Outcome("b", values=a, errors=np.zeros(100), shared=0.4)
    assert one.standard_error() == pytest.approx(standard_error(a, shared=0.3))
    assert difference(one, other).standard_error == pytest.approx(0.5)
    assert difference(one, Outcome("c", values=a, errors=np.zeros(100))).verdict == "better"
    assert difference(one, Outcome("d", values=a, errors=np.zeros(100), shared=0.6)).verdict == "undecided"


def bracketed(value, gap, error=0.1, shared=0.2):
    """A model whose numbers are ``value`` at most, and below that by ``gap`` at least."""
    values, apart = np.full(50, value), Gap(gap, error, "raise")
    return Outcome("e", values=values, errors=np.zeros(50), shared=shared, gap=apart, direction="upper")


def plain(value, direction="exact"):
    return Outcome(direction, values=np.full(50, value), errors=np.zeros(50), direction=direction)


LOWS = [  # of an energy between 4 and 5: the other number, its direction, the verdict on the energy
    *((3.0, d, "better") for d in ("exact", "upper")),
    *((3.0, d, "undecided") for d in ("lower", "estimate")),
    *((v, d, "undecided") for v in (3.85, 4.5, 5.3) for d in ("exact", "upper", "lower", "estimate")),
    *((6.0, d, "worse") for d in ("exact", "lower")),
    *((6.0, d, "undecided") for d in ("upper", "estimate")),
]


@pytest.mark.parametrize(("value", "direction", "want"), LOWS)
def test_a_lower_bound_beside_an_upper_one_decides_what_it_can(value, direction, want):
    turned = {"better": "worse", "worse": "better", "undecided": "undecided"}[want]
    energy, other = bracketed(5.0, 1.0), plain(value, direction)
    assert difference(energy, other).verdict == want and difference(other, energy).verdict == turned


def test_differences_are_those_that_decide_and_the_first_has_the_highest_lower_bound():
    d = difference(bracketed(5.0, 1.0), plain(3.0))
    assert d[:2] == pytest.approx((1.0, 0.1))  # from the lower bound, without the error of log Z
    assert difference(bracketed(5.0, 1.0), plain(4.5))[:2] == pytest.approx((0.5, 0.2))
    assert difference(bracketed(5.0, 1.0), bracketed(2.0, 0.5)).mean == pytest.approx(2.0)
    for gap, first in ((1.0, "e"), (3.0, "exact")):
        assert best_of([plain(3.0), bracketed(5.0, gap), plain(9.0, "estimate")]).label == first


@pytest.mark.parametrize("folds", some([None, 2]))
def test_an_energy_is_bracketed(folds):
    X = bits_of_a_tree(300)
    annealed = Normalised(AIS(200, 50))
    machine = rv.RBM(hidden=4, steps=2_000, rate=0.1, evidence=annealed, random_state=0)
    made = compare(X, {"rbm": machine, "listed": rv.RBM(**machine.get_params(deep=False) | {"evidence": Normalised()})},
                   folds=folds)  # fmt: skip
    entries = {entry.model: entry for entry in made.rows}
    found, exact = entries["rbm"], entries["listed"]
    assert exact.verdict[:7] != "refused", exact.verdict
    assert (found.direction, exact.direction) == ("upper", "exact") and exact.low is None and exact.shared_error == 0
    assert 0 < found.shared_error < found.standard_error
    paired = made.scores["rbm"] - made.scores["listed"]
    assert np.ptp(paired) < 1e-4 if folds is None else True  # they differ by log Z alone
    assert abs(paired.mean()) < LIMIT * found.shared_error
    assert found.low < exact.log_likelihood + LIMIT * np.hypot(found.low_error, found.shared_error)
    assert found.low > exact.log_likelihood - 0.2
    assert made.difference("rbm", "independent").verdict == "better"
    line = next(line for line in str(made).splitlines() if line.startswith("rbm "))
    assert f"upper, lower {found.low:.3f}" in line and max(map(len, str(made).splitlines())) <= 120


@pytest.mark.slow
def test_rows_with_holes_have_no_bracket():
    X = bits_of_a_tree(60)
    X[::3, 1] = np.nan
    made = compare(X, {"rbm": rv.RBM(hidden=2, steps=20, evidence=Normalised(AIS(20, 10)))}, baselines=False)
    assert made.rows[0].direction == "upper" and made.rows[0].low is None


@pytest.fixture(scope="module")
def gaussian():
    """A comparison where the truth is one Gaussian with dependent columns."""
    X = np.random.default_rng(0).normal(size=(300, 4)) @ np.random.default_rng(1).normal(size=(4, 4))
    X[::7, 1] = np.nan
    given = rv.GaussianMixture(components=2, iterations=20)
    made = compare(X, {"mixture": given}, progress=False)
    assert given.random_state is None and not hasattr(given, "model_")
    return made


def test_a_gaussian_is_best_of_gaussian_data(gaussian):
    assert gaussian.difference("gaussian", "chow-liu").mean > 0
    assert gaussian.difference("gaussian", "independent").verdict == "better"
    assert gaussian.difference("independent", "gaussian").verdict == "worse"
    assert gaussian.rows[0].difference == 0
    assert all(entry.difference is None or entry.difference <= 0 for entry in gaussian.rows)
    near = gaussian.difference("gaussian", "mixture")
    entry = next(entry for entry in gaussian.rows if entry.model == "gaussian")
    assert near.standard_error < 0.5 * entry.standard_error
    assert near.mean == pytest.approx((gaussian.scores["gaussian"] - gaussian.scores["mixture"]).mean())


def test_a_comparison_is_written_in_every_form(gaussian, tmp_path):
    text, record = str(gaussian), json.loads(json.dumps(gaussian.to_json()))
    assert max(map(len, text.splitlines())) <= 120 and text.splitlines()[0][:20] in gaussian.words
    assert [row["model"] for row in record["rows"]] == [entry.model for entry in gaussian.rows]
    assert set(record) == {"words", "rows", "train_rows", "held_out_rows", "folds", "seed"}
    assert len(gaussian.frame()) == len(gaussian.rows) == gaussian.markdown().count("\n| ") - 2
    gaussian.plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[1:4] == b"PNG"
    with pytest.raises(ValueError, match="model: expected one of"):
        gaussian.difference("gaussian", "nobody")


@pytest.mark.slow
def test_a_tree_is_best_of_a_tree():
    X = bits_of_a_tree(600)
    fresh = bits_of_a_tree(2_000, seed=1)
    made = compare(X, [], held_out=fresh)
    assert made.difference("chow-liu", "independent").verdict == "better"
    assert "chow-liu is better than independent" in made.words and "gaussian: undecided" in made.words
    share = X.mean(axis=0)
    apart = np.log(np.where(fresh == 1, share, 1 - share)).sum(axis=1)
    np.testing.assert_allclose(made.scores["independent"], apart, atol=0.02)  # learned by gradient
    gap = log_p_of_the_tree(fresh) - made.scores["chow-liu"]
    assert abs(gap.mean()) < LIMIT * gap.std() / np.sqrt(len(gap)) + 0.01
    directions = {entry.model: entry.direction for entry in made.rows}
    assert directions == {"chow-liu": "exact", "independent": "exact", "gaussian": "lower"}


@pytest.mark.slow
def test_refusals_and_other_measures_are_lines_of_the_table():
    X = bits_of_a_tree(80)
    recipes = {
        "density": rv.FactorAnalysis(latents=1, iterations=3),
        "bits": rv.VAE(**QUICK),
        "refused": rv.FactorAnalysis(latents=1, kind="binary"),
        "other bits": rv.VAE(**QUICK, random_state=1),
    }
    made = compare(X, recipes, baselines=False)
    lines = {entry.model: entry.verdict for entry in made.rows}
    assert lines["density"].startswith("not ranked: density in every column, where the others have: probability")
    assert lines["refused"].startswith("refused: FactorAnalysis, the data: expected real cells")
    assert {entry.model for entry in made.rows if entry.difference is None} == {"density", "refused"}
    assert "density" in made.scores and "refused" not in made.scores
    assert made.difference("bits", "other bits").verdict == "undecided"
    with pytest.raises(ValueError, match="expected one that is ranked"):
        made.difference("bits", "density")


def people(rows=120):
    stream = np.random.default_rng(0)
    z = stream.normal(size=rows)
    frame = pd.DataFrame(
        {
            "height": 170 + 8 * z + stream.normal(size=rows),
            "visits": stream.poisson(np.exp(0.5 * z)),
            "smoker": np.where(z + stream.normal(size=rows) > 0, "yes", "no"),
            "town": stream.choice(["a", "b", "c"], size=rows),
        }
    )
    frame.loc[::5, "height"] = np.nan
    frame.loc[1::7, "smoker"] = None
    return frame


def test_folds_hold_out_each_row_once():
    X = np.random.default_rng(0).normal(size=(40, 2))
    recipes = [rv.FactorAnalysis(latents=n, iterations=3) for n in (1, 2)]
    made = compare(X, recipes, folds=2, baselines=False)
    assert (made.folds, made.held_out_rows, made.train_rows) == (2, 40, 20)
    assert set(made.scores) == {"factor-analysis(latents=1)", "factor-analysis(latents=2)"}
    for held in np.array_split(np.random.default_rng(0).permutation(40), 2):
        rest = np.setdiff1d(np.arange(40), held)
        alone = rv.FactorAnalysis(latents=1, iterations=3, random_state=0).fit(X[rest]).score_samples(X[held])
        np.testing.assert_allclose(made.scores["factor-analysis(latents=1)"][held], alone, atol=1e-6)


@pytest.mark.slow
def test_baselines_of_a_table_share_a_base_measure():
    frame = people()
    made = compare(frame, [], columns={"height": "positive"})
    assert [entry.model for entry in made.rows if entry.difference is None] == []
    assert {entry.measure for entry in made.rows} == {"density, probability"}
    directions = {entry.model: entry.direction for entry in made.rows}
    assert directions == {"independent": "exact", "gaussian": "lower", "chow-liu": "exact"}
    rest, held = (frame.iloc[np.sort(part)] for part in np.split(np.random.default_rng(0).permutation(120)[::-1], [96]))
    tree = TreeOfColumns({"columns": {"height": "positive"}}).fit(rest)
    np.testing.assert_allclose(made.scores["chow-liu"], tree.log_likelihood(held).value, atol=1e-9)


def test_one_column_of_a_tree_has_its_own_shares():
    full = people().dropna()
    tree = TreeOfColumns({"columns": {}}).fit(full)
    lone = pd.DataFrame({"height": [np.nan], "visits": [np.nan], "smoker": ["yes"], "town": [None]})
    share = (full["smoker"].eq("yes").sum() + 0.5) / (len(full) + 1)
    assert np.exp(tree.log_likelihood(lone).value[0]) == pytest.approx(share, abs=1e-9)


def test_images_are_rows():
    X = (np.random.default_rng(0).random((60, 3, 3)) < 0.3).astype(float)
    X[0, 0, 0] = np.nan
    made = compare(X, [rv.FactorAnalysis(latents=1, iterations=3)], baselines=False, held_out=0.5)
    assert made.scores["factor-analysis"].shape == (30,) and "nothing to be compared with" in made.words
    levels = np.floor(X * 3 + np.random.default_rng(1).random(X.shape)).clip(0, 3)
    tree = TreeOfColumns({"kind": "levels", "levels": 4}).fit(levels).log_likelihood(levels)
    assert np.isfinite(tree.value).all()


def test_footings():
    frame = people()
    table = TableSchema.infer(frame)
    assert footing(table) == ("density", "probability", "probability", "probability")
    thresholded = Schema.infer(np.eye(3) * 9, binarise="threshold", threshold=4.0)
    assert footing(thresholded) != footing(Schema.infer(np.eye(3)))
    assert reading_of_data(frame, None) == {"columns": {}}


MISTAKES = {
    "one of": lambda X: compare(X, ["nobody"]),
    "estimators of Ravine": lambda X: compare(X, [3]),
    "labels that are not taken": lambda X: compare(X, {"gaussian": rv.FactorAnalysis()}),
    "None beside rows to score on": lambda X: compare(X, [], held_out=X, folds=2),
    "at most half as many": lambda X: compare(X, [], folds=9),
    "a share above 0": lambda X: compare(X, [], held_out=0.0),
    "enough rows": lambda X: compare(X[:2], []),
    "at least one, or baselines": lambda X: compare(X, [], baselines=False),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_one_line(words):
    with pytest.raises(ValueError, match=words) as caught:
        MISTAKES[words](np.random.default_rng(0).normal(size=(10, 2)))
    assert "\n" not in str(caught.value)


class Interrupted(rv.FactorAnalysis):
    """A recipe during whose training somebody presses Ctrl-C."""

    def fit(self, X, y=None, sample_weight=None, **options):
        raise KeyboardInterrupt


def test_ctrl_c_shows_what_is_done():
    X = np.random.default_rng(0).normal(size=(25, 2))
    done = {"a": rv.FactorAnalysis(latents=1, iterations=3), "b": rv.FactorAnalysis(latents=2, iterations=3)}
    assert len(compare(X, {**done, "c": Interrupted()}).rows) == 2
    with pytest.raises(KeyboardInterrupt):
        compare(X, {"a": done["a"], "c": Interrupted()})


def test_the_command(tmp_path, capsys):
    np.save(tmp_path / "bits.npy", bits_of_a_tree(200))
    tiny = ["--set", "factor-analysis.iterations=3", "--set", "factor-analysis.latents=1"]
    data, out = str(tmp_path / "bits.npy"), tmp_path / "table.md"
    assert main(["compare", data, "--recipes", "factor-analysis", *tiny, "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    directions = {row["model"]: row["direction"] for row in printed["rows"]}
    found = {"independent": "exact", "gaussian": "lower", "chow-liu": "exact", "factor-analysis": "lower"}
    assert directions == found  # a name reads the data as they look: bits, with noise for a model of reals
    assert printed["held_out_rows"] == 40 and out.read_text().startswith(printed["words"])
    for words, expected in {
        ("--set", "latents=2"): "RECIPE.name=value",
        ("--recipes", "vay"): "one like vae",
        ("--out", "table.txt"): "a name that ends in",
        ("--recipes", "vae", "--set", "factor-analysis.latents=2"): "fields of vae",
    }.items():
        assert main(["compare", data, *words]) == 2
        assert expected in capsys.readouterr().err
