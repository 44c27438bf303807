"""Data frames as bad as they come: each ends in a model that keeps its promises, or in one line that names the column.

What `test_fuzz` asks of tables of numbers, asked of columns of several kinds; `bad_frames` draws them.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pandas as pd
import pytest
from bad_frames import (
    BITS,
    COUNTS,
    FLOATS,
    FOUR,
    IDENTIFIERS,
    INTEGERS,
    LAYOUTS,
    NOTHING,
    REALS,
    REFUSED,
    REFUSED_COUNTS,
    SIXTY,
    THREE,
    Fuzzed,
    fuzzed,
)
from helpers import some
from test_fuzz import NET, SHAPES, problems, told

import ravine as rv
from ravine.data import TableSchema, UnseenLevel
from ravine.evidence import ImportanceWeighted
from ravine.gradients import Pathwise
from ravine.objectives import IWAE

TINY = NET | {"evidence": ImportanceWeighted(4), "particles": 4}
RECIPES: dict[str, Callable[..., Any]] = {
    "classes": lambda **told: rv.LatentClass(starts=1, steps=10, batch_size=4, random_state=0, **told),
    "factors": lambda **told: rv.MixedFactorAnalysis(hidden=(3,), **TINY, **told),
    "vae": lambda **told: rv.VAE(hidden=(3,), **TINY, **told),
    "miwae": lambda **told: rv.MIWAE(hidden=(3,), objective=IWAE(2, Pathwise()), **TINY, **told),
}


# What must hold.


def less_of(X: pd.DataFrame) -> pd.DataFrame:
    """The frame without its first row, and without a cell of its last row."""
    rows = np.arange(len(X))
    gone = {name: (rows == 0) | ((rows == len(X) - 1) & (j == 0)) for j, name in enumerate(X)}
    return X.apply(lambda column: column.mask(gone[column.name]))


def promises(model: Any, X: pd.DataFrame, draws: bool = True) -> list[str]:
    """What the verbs of a model do that they must not."""
    asked = less_of(X)
    modelled = [column.name for column in model.schema_.columns if column.width]
    empty, scores, drawn = asked[modelled].isna().all(axis=1), model.score_samples(asked), model.sample(50)
    leaves = jax.tree.leaves(eqx.filter(model.model_, eqx.is_inexact_array))
    kept = {
        "finite parameters": all(np.isfinite(leaf).all() for leaf in leaves),
        "finite scores": np.isfinite(scores).all(),
        "a row of which nothing is known scores 0": empty.iloc[0] and (scores[empty] == 0).all(),
        "finite latents": np.isfinite(model.transform(asked)).all(),
        "columns and rows of a sample": list(drawn) == list(X) and len(drawn) == 50,
    }
    found = [promise for promise, holds in kept.items() if not holds]
    found += [f"drawn {bad}" for name in X for bad in unlike(drawn[name], X[name], X[name], name in modelled)]
    made = [model.impute(asked), *(model.impute(asked, draws=2) if draws else [])]
    return found + [bad for filled in made for bad in badly_filled(filled, asked, X, modelled)]


def unlike(made: pd.Series, like: pd.Series, learned: pd.Series, modelled: bool) -> list[str]:
    """How a column differs in type from one of the user's, in its objects from what was learned, or is not filled."""
    name, found = made.name, []
    numbers = not modelled and isinstance(like.dtype, np.dtype) and like.dtype.kind in "iu"  # has no missing value
    if str(made.dtype) != ("float64" if numbers and made.isna().any() else str(like.dtype)):
        found.append(f"{name!r}: {made.dtype}, not {like.dtype}")
    if str(like.dtype) == "category":
        same = list(made.cat.categories) == list(like.cat.categories) and made.cat.ordered == like.cat.ordered
        found += [] if same else [f"{name!r}: other levels"]
    if str(like.dtype) == "object" and not {type(v) for v in made.dropna()} <= {type(v) for v in learned.dropna()}:
        found.append(f"{name!r}: other types of objects")
    finite = made.dtype.kind != "f" or np.isfinite(made.dropna().to_numpy(float)).all()
    return found + ([] if finite and not (modelled and made.isna().any()) else [f"{name!r}: not finite or not filled"])


def badly_filled(made: pd.DataFrame, asked: pd.DataFrame, X: pd.DataFrame, modelled: list[str]) -> list[str]:
    if list(made) != list(asked) or not made.index.equals(asked.index):
        return ["other columns or rows"]
    found = [f"filled {bad}" for name in asked for bad in unlike(made[name], asked[name], X[name], name in modelled)]
    known = {name: asked[name].notna().to_numpy() for name in asked}
    same = [identical(made[name][known[name]], asked[name][known[name]]) for name in asked]
    return found + [f"altered {name!r}" for name, good in zip(asked, same, strict=True) if not good]


def identical(one: pd.Series, other: pd.Series) -> bool:
    """Equal cell by cell, in value and in type."""
    pairs = zip(one.tolist(), other.tolist(), strict=True)
    return all(a == b and type(a) is type(b) for a, b in pairs)


def found_in(table: Fuzzed, seed: int, name: str, draws: bool = True) -> list[str]:
    X, counts, made_of, refused = table
    kept = lambda model, X: promises(model, X, draws)  # noqa: E731
    bad = problems(lambda: RECIPES[name](columns=counts or None), X, refused, kept)
    return told(seed, name, X, made_of, bad)


@pytest.mark.parametrize("name", some(RECIPES, "vae"))
def test_a_few_frames(name):
    """Of one layout."""
    tables = [(fuzzed(seed, ("answers",)), seed) for seed in range(15)]
    assert [bad for table, seed in tables for bad in found_in(table, seed, name, draws=False)] == []


@pytest.mark.slow
@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", RECIPES)
def test_five_hundred_frames(name, layout):
    """Those of one layout together; with the fifteen hundred tables of `test_fuzz` two thousand in all."""
    rows, sorts = LAYOUTS[layout]
    tables = [(fuzzed(seed), seed) for seed in range(500)]
    here = [(table, seed) for table, seed in tables if table.X.shape == (rows, len(sorts))]
    assert [bad for table, seed in here for bad in found_in(table, seed, name)] == []


NARROW = ["float16", "float32", "UInt8", "dates", "sentinels", "all-of-time", "zoned", *INTEGERS, "counts-uint8"]


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("far", [-1e4, 1e4])
def test_a_draw_beyond_a_data_type_is_at_its_end(name, far):
    cells = (REALS | COUNTS)[name](np.random.default_rng(0), 17)
    X = pd.DataFrame({"x": cells})
    for dequantise in ("none", "uniform"):
        schema = TableSchema.infer(X, {"x": "count"} if name in COUNTS else None, dequantise)
        drawn = schema.frame(schema.point(np.full((3, schema.width), far)))
        assert unlike(drawn["x"], X["x"], X["x"], modelled=True) == []
        assert (drawn["x"] >= X["x"].max() if far > 0 else drawn["x"] <= X["x"].min()).all()


# Another frame than the one that was learned from.


@pytest.fixture(scope="module")
def fitted() -> Any:
    """A model of a frame of plain columns, and the frame."""
    rng, n = np.random.default_rng(0), 17
    made = {"real": FLOATS["normal"], "whole": INTEGERS["int64"], "day": FLOATS["universal"], "bit": BITS["yes-no"]}
    made |= {"city": THREE["two-of-three"], "size": FOUR["ordered"], "rank": COUNTS["counts-Int64"]}
    X = pd.DataFrame({name: column(rng, n) for name, column in made.items()})
    return RECIPES["factors"](columns={"rank": "count"}).fit(X), X


RETYPED: dict[str, Callable[[pd.Series], Any]] = {
    "real": lambda column: column.astype(object),
    "whole": lambda column: column.astype(float),
    "whole-nullable": lambda column: column.astype("Int64"),
    "day": lambda column: column.dt.tz_convert("Asia/Tokyo"),
    "day-naive": lambda column: column.dt.tz_localize(None),
    "bit": lambda column: column.astype("category"),
    "bit-objects": lambda column: column.astype(object),
    "city": lambda column: column.astype(object),
    "city-fewer": lambda column: column.where(column == "c").cat.remove_unused_categories(),
    "city-more": lambda column: column.cat.add_categories(["nowhere"]).where(column != "c", "nowhere"),
    "city-text": lambda column: column.astype("string"),
    "size": lambda column: pd.Categorical(column, categories=list("XLMS"), ordered=True),
    "size-unordered": lambda column: pd.Categorical(
        column.astype(object).where(column.isin(["X", "S"])), categories=["X", "S"]
    ),
    "rank": lambda column: column.astype(float),
    "rank-objects": lambda column: column.astype(object),
    "rank-fractions": lambda column: column.astype("Float32"),
}


@pytest.mark.filterwarnings("ignore::ravine.data.UnseenLevel")
@pytest.mark.parametrize(
    "what", [w if i % 4 == 0 else pytest.param(w, marks=pytest.mark.slow) for i, w in enumerate(RETYPED)]
)
def test_a_column_in_another_type_is_taken(fitted, what):
    """Its cells get the numbers they got before, its holes are filled, and what was known stays to the bit."""
    (model, X), name = fitted, what.split("-")[0]
    other = X.assign(**{name: RETYPED[what](X[name])})
    known = other[name].notna().to_numpy() & (other[name].astype(object) != "nowhere").to_numpy()
    assert (model.score_samples(other)[known] == model.score_samples(X)[known]).all() and known.any()
    asked = other.assign(**{name: other[name].mask(np.arange(len(X)) % 3 == 0)})
    filled = model.impute(asked)
    assert list(filled) == list(X) and not filled.isna().any().any()
    for column in X:
        seen = asked[column].notna()
        assert identical(filled[column][seen], asked[column][seen])
        assert filled[column].dtype.kind == asked[column].dtype.kind or "nullable" in what


def replaced(X: pd.DataFrame, name: str, cells: Any) -> pd.DataFrame:
    return X.assign(**{name: pd.Series([*cells], index=X.index[: len(cells)]).reindex(X.index)})


OTHERS: dict[str, tuple[Callable[[pd.DataFrame], Any], str]] = {
    "one column less": (lambda X: X.drop(columns="city"), r"^the columns: .*'city'"),
    "one column more": (lambda X: X.assign(more=1.0), r"^the columns: .*'more'"),
    "swapped columns": (lambda X: X[[*X.columns[::-1]]], r"^the columns: .*'real'"),
    "a column twice": (lambda X: pd.concat([X, X[["bit"]]], axis=1), r"^the columns: .*'bit'"),
    "another name": (lambda X: X.rename(columns={"bit": "bits"}), r"^the columns: .*'bits'"),
    "text for numbers": (lambda X: X.assign(real="tall"), r"^column 'real': expected numbers, got text"),
    "dates for numbers": (lambda X: X.assign(real=X["day"]), r"^column 'real': expected numbers, got dates"),
    "numbers for dates": (lambda X: X.assign(day=X["real"]), r"^column 'day': expected dates, got numbers"),
    "infinity": (lambda X: replaced(X, "real", [1.0, np.inf]), r"^column 'real', row 1: expected finite"),
    "a count below zero": (lambda X: replaced(X, "rank", [0, -1]), r"^column 'rank', row 1: expected whole"),
    "half a count": (lambda X: replaced(X, "rank", [0.5]), r"^column 'rank', row 0: expected whole"),
    "dicts": (lambda X: X.assign(city=[{}] * len(X)), r"^column 'city': expected numbers or text"),
    "durations": (lambda X: X.assign(whole=pd.to_timedelta(X["whole"])), r"^column 'whole': expected numbers"),
    "text in an array": (lambda X: X.to_numpy(dtype=object), r"^the data: expected numbers"),
}


@pytest.mark.parametrize("verb", ["score_samples", "impute", "transform"])
@pytest.mark.parametrize("what", OTHERS)
def test_another_frame_is_refused_in_one_line(fitted, what, verb):
    (model, X), (change, line) = fitted, OTHERS[what]
    with pytest.raises(ValueError, match=line) as caught:
        getattr(model, verb)(change(X))
    assert str(caught.value).isprintable()


def test_levels_that_were_never_seen_count_as_missing(fitted):
    model, X = fitted
    new = X.assign(bit="perhaps", city="nowhere")
    with pytest.warns(UnseenLevel):
        scores = model.score_samples(new)
        filled = model.impute(new)
    gone = X.assign(bit=X["bit"].mask(X["bit"].notna()), city=X["city"].mask(X["city"].notna()))
    assert (scores == model.score_samples(gone)).all()
    assert (filled["bit"] == "perhaps").all() and (filled["city"] == "nowhere").all()


NAMELESS = {
    "numbers and text": ([0, "a"], r"^the columns: expected names that are all text, or none, got \['a'\] and \[0\]"),
    "one name twice": (["a", "a"], r"^the columns: expected distinct names, got \['a'\] twice"),
}


@pytest.mark.parametrize("cells", ["text", "number"])
@pytest.mark.parametrize("what", NAMELESS)
def test_names_that_tell_nothing_are_refused_in_one_line(what, cells):
    X = pd.DataFrame([[1.5, "x" if cells == "text" else 2.5], [2.5, "y" if cells == "text" else 7.5]])
    for name in RECIPES:
        with pytest.raises(ValueError, match=NAMELESS[what][1]):
            RECIPES[name]().fit(X.set_axis(NAMELESS[what][0], axis=1))


def test_a_model_of_reals_refuses_other_cells_with_a_line_about_the_data():
    table = fuzzed(0, ("all",))
    with pytest.raises(ValueError, match=r"^GaussianMixture, the data: .*dequantise='uniform'"):
        rv.GaussianMixture(columns=table.counts).fit(table.X)


@pytest.mark.slow
@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("name", ["mixture", "vae"])
def test_whole_codes_may_be_seen_with_noise(name):
    """A few frames only: the noise is a part of the program, so each compiles its own."""
    recipes = {
        "mixture": lambda **told: rv.GaussianMixture(iterations=3, random_state=0, **told),
        "vae": RECIPES["vae"],
    }
    for seed in [seed for seed in range(20) if fuzzed(seed, ("answers",)).refused is None][:6]:
        X, counts, made_of, _ = fuzzed(seed, ("answers",))
        make = lambda counts=counts: recipes[name](columns=counts, dequantise="uniform")  # noqa: E731
        assert told(seed, name, X, made_of, problems(make, X, None, promises)) == []


def test_the_generator_reaches_everything():
    """Five hundred frames hold every layout and every column, are of shapes that `test_fuzz` has, and stay the same."""
    seen = [fuzzed(seed) for seed in range(500)]
    sorts = [FLOATS, INTEGERS, BITS, THREE, SIXTY, FOUR, COUNTS, NOTHING, IDENTIFIERS, REFUSED, REFUSED_COUNTS]
    assert {word for table in seen for word in table.made_of} == {"twice", *(word for sort in sorts for word in sort)}
    shapes = {table.X.shape for table in seen}
    assert shapes == {(rows, len(columns)) for rows, columns in LAYOUTS.values()} and shapes <= set(SHAPES)
    assert 60 < sum(table.refused is not None for table in seen) < 140
    pd.testing.assert_frame_equal(fuzzed(7).X, fuzzed(7).X)
