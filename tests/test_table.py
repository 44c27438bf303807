"""Tables with columns of several kinds: what is inferred, the way to the model's cells and back, and every verb."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import some
from scipy import integrate
from sklearn.base import clone

import ravine as rv
from ravine.data import Schema, TableSchema, UnseenLevel
from ravine.data.columns import Bounded, Censored, Date, Numeric, Positive
from ravine.data.frames import Given
from ravine.data.inference import infer
from ravine.data.kinds import Dequantised, from_json, to_json
from ravine.dist import Bits, HeavyTailed
from ravine.evidence import ImportanceWeighted

ROWS = 60
STREAM = np.random.default_rng(0)


def frame(rows: int = ROWS, holes: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """A column of every kind and data type, each depending on one hidden number."""
    stream = np.random.default_rng(seed)
    z = stream.normal(size=rows)
    noise = lambda: stream.normal(size=rows)  # noqa: E731
    table = pd.DataFrame(
        {
            "id": [f"row {i}" for i in range(rows)],
            "height": 170 + 10 * z + noise(),
            "income": np.exp(8 + z + 0.5 * noise() + np.abs(noise())),
            "share": 1 / (1 + np.exp(-z)),
            "smoker": np.where(z + noise() > 0, "yes", "no"),
            "married": z + noise() > 0,
            "visits": stream.poisson(np.exp(0.5 * z + 1)),
            "city": pd.Categorical.from_codes(stream.integers(0, 3, rows), ["Rome", "Oslo", "Bonn"]),
            "size": pd.Categorical.from_codes(np.clip(np.rint(z + 1), 0, 2).astype(int), list("SML"), ordered=True),
            "born": pd.Timestamp("1980-01-01") + pd.to_timedelta(np.rint(1000 * z), unit="D"),
            "seen": pd.to_datetime(np.rint(1e9 + 1e6 * z), unit="s", utc=True),
            "planet": "Earth",
            "rank": pd.array(stream.integers(100, 900, rows), dtype="Int64"),
        },
        index=np.arange(rows) * 2 + 5,
    )
    table.loc[table.index[0], "income"] = 1e5
    for name in table.columns[1:] if holes else []:
        gone = stream.random(rows) < holes
        gone[:2] = False
        table[name] = table[name].astype("boolean" if name == "married" else table[name].dtype).mask(gone)
    return table


KINDS = {
    "id": "identifier",
    "height": "numeric",
    "income": "positive",
    "share": "bounded",
    "smoker": "binary",
    "married": "binary",
    "visits": "count",
    "city": "category",
    "size": "ordinal",
    "born": "date",
    "seen": "date",
    "planet": "constant",
    "rank": "numeric",
}
DECLARED = {"share": ("bounded", 0, 1)}


def columns_of(schema: TableSchema) -> dict[str, str]:
    return {column.name: column.kind for column in schema.columns}


# --- what is inferred


def test_every_kind_is_recognised():
    assert columns_of(TableSchema.infer(frame(), DECLARED)) == KINDS
    assert columns_of(TableSchema.infer(frame(holes=0.2), DECLARED)) == KINDS


INFERRED = {
    "two words": (["a", "b", "a"], "object", "binary"),
    "few words": (["a", "b", "c"] * 9, "object", "category"),
    "every word another": ([f"w{i}" for i in range(40)], "object", "identifier"),
    "zeros and ones": ([0.0, 1.0, 1.0], "int64", "binary"),
    "small whole numbers": ([0.0, 3.0, 1.0, 2.0], "int64", "count"),
    "negative whole numbers": ([0.0, -3.0, 1.0, 2.0], "int64", "numeric"),
    "large whole numbers": ([0.0, 3000.0, 1.0, 2.0], "int64", "numeric"),
    "running numbers": (list(np.arange(40.0)), "int64", "identifier"),
    "skewed": (list(np.exp(np.linspace(-5, 5, 40))), "float64", "positive"),
    "skewed with a zero": ([0.0, *np.exp(np.linspace(-5, 5, 40))], "float64", "numeric"),
    "one number": ([2.5, 2.5], "float64", "constant"),
    "nothing": ([np.nan, np.nan], "float64", "constant"),
}


@pytest.mark.parametrize("name", INFERRED)
def test_a_column_is_inferred_from_its_cells(name):
    cells, dtype, kind = INFERRED[name]
    values = np.array(cells, float if not isinstance(cells[0], str) else object)
    assert infer(Given("x", dtype, values)).kind == kind


def test_extra_zeros_and_limits_may_be_declared():
    """A censored cell has a mass at its limits, so only what lies between changes with the unit."""
    table = pd.DataFrame({"hours": np.clip(STREAM.normal(2, 3, 90), 0, 5), "falls": STREAM.integers(0, 4, 90)})
    schema = TableSchema.infer(table, {"hours": ("censored", 0, 5), "falls": ("count", "inflated")})
    assert schema.lines() == ["hours  censored at 0 and 5", "falls  count"]
    values, mask = schema.encode(schema.code(table), "float32")
    got, hours = schema.log_det(mask, values), cast(Censored, schema.columns[0])
    between = table["hours"].between(0, 5, inclusive="neither")
    assert 0 < between.sum() < 90 and np.allclose(got, np.where(between, -np.log(hours.scale), 0))
    law: Any = schema.link()(jnp.zeros(schema.link().size(schema.shape)), schema.shape)
    assert {type(part).__name__ for part in law.parts} == {"CensoredGaussian", "ZeroInflated"}


@pytest.mark.slow
def test_columns_of_one_kind_are_cells_of_one_law_that_leaves_each_as_it_was():
    """The numbers of a column give, by its own link, its part of the density."""
    unit, order = STREAM.random(40), ("ordinal", list("SML"))
    table = pd.DataFrame({"height": 10 * unit, "share": unit, "city": list("abcd") * 10, "part": 5 * unit**2})
    table = table.assign(width=unit - 3, town=list("wxyz") * 10, size=list("SMLLS") * 8, fit=list("MLLSS") * 8)
    limits = {"share": ("bounded", 0, 1), "part": ("bounded", 0, 6)}
    schema = TableSchema.infer(table, limits | {"size": order, "fit": order})
    link: Any = schema.link()
    assert [len(places) for places in link.places] == [2, 2, 8, 6]
    x, _ = schema.encode(schema.code(table[:1]), "float64")
    raw, total = STREAM.normal(size=link.size(schema.shape)), 0.0
    columns = dict(zip(schema.starts, schema.columns, strict=False))
    for numbers, places, shape in zip(
        np.split(raw, np.cumsum(link._sizes())[:-1]), link.places, link.shapes, strict=True
    ):
        own = numbers.reshape(shape) if len(shape) > 1 else numbers.reshape(-1, *shape).T
        for start, few in zip(places[:: math.prod(shape[1:])], own, strict=True):
            event = columns[start].shape() or (1,)
            law: Any = columns[start].link()(jnp.asarray(few), event)
            total += law.log_prob(jnp.asarray(x[0, start : start + columns[start].width]).reshape(event))
    assert link(jnp.asarray(raw), schema.shape).log_prob(jnp.asarray(x[0])) == pytest.approx(float(total), rel=1e-5)
    start = link.start(jnp.asarray(schema.base))
    np.testing.assert_allclose(link(start, schema.shape).mean(), schema.base, atol=1e-5)


WRONG = {
    "no such way to count": ({"visits": ("count", "twice")}, "visits"),
    "no such kind": ({"height": "colour"}, "colour"),
    "no such column": ({"hight": "numeric"}, "hight"),
    "text as numbers": ({"smoker": "numeric"}, "smoker"),
    "negative counts": ({"height": "count"}, "height"),
    "a zero that must be positive": ({"visits": "positive"}, "visits"),
    "three values that must be two": ({"city": "binary"}, "city"),
    "a level that is not listed": ({"size": ("ordinal", ["S", "M"])}, "size"),
    "values beyond the limits": ({"height": ("bounded", 0, 100)}, "height"),
    "one limit": ({"height": ("bounded", 0)}, "height"),
    "limits the wrong way": ({"height": ("bounded", 300, 100)}, "height"),
    "many values that must be one": ({"city": "constant"}, "city"),
    "nothing to model": (dict.fromkeys(KINDS, "identifier"), "column to be modelled"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_declaration_is_one_line_that_names_the_column(name):
    columns, word = WRONG[name]
    with pytest.raises(ValueError, match=word) as caught:
        TableSchema.infer(frame(), columns)
    assert "\n" not in str(caught.value)


def test_a_column_may_be_declared_by_its_place_and_an_array_has_columns_too():
    X = np.column_stack([STREAM.integers(0, 3, 50), STREAM.normal(size=50)]).astype(float)
    assert columns_of(TableSchema.infer(X, {0: "category"})) == {"x0": "category", "x1": "numeric"}
    assert columns_of(TableSchema.infer(X, {"x1": ("bounded", -9, 9)})) == {"x0": "count", "x1": "bounded"}


# --- there and back


@pytest.mark.parametrize("holes", [0.0, 0.3])
def test_coding_a_table_and_back_gives_the_table(holes):
    table = frame(holes=holes)
    schema = TableSchema.infer(table, DECLARED)
    codes = schema.code(table)
    back = schema.frame(codes, table.index)
    for name in table.columns:
        if name == "id":
            assert back[name].isna().all()
        elif holes == 0 or name not in ("visits",):
            pd.testing.assert_series_equal(back[name], table[name], check_dtype=holes == 0 or name != "married")
    values, mask = schema.encode(codes, "float64")
    assert values.shape == (ROWS, schema.width) and (mask is None) == (holes == 0)
    again = schema.point(values)
    modelled = [j for j, column in enumerate(schema.columns) if column.width]
    known = ~np.isnan(codes[:, modelled])
    np.testing.assert_allclose(again[:, modelled][known], codes[:, modelled][known], rtol=1e-9)


def test_the_schema_goes_through_a_file_to_the_bit():
    schema = TableSchema.infer(frame(), DECLARED)
    assert TableSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
    for column in schema.columns:
        assert from_json(to_json(column)) == column


DAMAGED = [
    {},
    {"columns": 3, "framed": True, "holes": False, "rows": 1},
    {"columns": [{"kind": "colour"}], "framed": True, "holes": False, "rows": 1},
    {"columns": [{"kind": "numeric", "name": "x"}], "framed": True, "holes": False, "rows": 1},
    {"columns": [], "framed": True, "holes": False, "rows": 1},
    {
        "columns": [{"kind": "numeric", "name": "x", "dtype": "float64", "shift": 0.0, "scale": 0.0}],
        "framed": True,
        "holes": False,
        "rows": 1,
    },
]


@pytest.mark.parametrize("fields", DAMAGED)
def test_a_damaged_schema_is_refused_in_one_line(fields):
    with pytest.raises(ValueError) as caught:
        TableSchema.from_json(fields)
    assert "\n" not in str(caught.value)


DENSE = {
    "numeric": (Numeric("x", "float64", 3.0, 2.0), -60.0, 60.0),
    "positive": (Positive("x", "float64", 0.5, 0.7), 1e-9, 400.0),
    "date": (Date("x", "datetime64[ns]", 100.0, 9.0), -200.0, 400.0),
}


@pytest.mark.parametrize("kind", DENSE)
def test_preprocessing_carries_its_log_determinant(kind):
    """A density of the cell, carried to the user's units, still integrates to 1."""
    column, low, high = DENSE[kind]

    def density(value: float) -> float:
        cell = column.encode(np.array([value]))
        return float(np.exp(-0.5 * cell[0, 0] ** 2 - 0.5 * np.log(2 * np.pi) + column.log_det(cell)[0]))

    total, _ = integrate.quad(density, low, high, points=[column.point(np.zeros((1, 1)))[0]], limit=200)
    assert total == pytest.approx(1, abs=1e-7)


def test_the_log_determinant_of_a_table_counts_observed_cells_only():
    table = frame(holes=0.3)
    schema = TableSchema.infer(table, DECLARED)
    values, mask = schema.encode(schema.code(table), "float64")
    assert mask is not None
    want = np.zeros(ROWS)
    for column, start in zip(schema.columns, schema.starts[:-1], strict=True):
        if isinstance(column, (Numeric, Bounded)):
            known = mask[:, start]
            step = np.where(known, np.log(column.scale), 0)
            want -= step + (np.where(known, np.log(table[column.name]), 0) if column.kind == "positive" else 0)
    np.testing.assert_allclose(schema.log_det(mask, values), want, rtol=1e-9)


def test_an_unseen_level_is_missing_and_said_to_be():
    table = frame()
    schema = TableSchema.infer(table, DECLARED)
    new = frame().astype({"smoker": object})
    new.loc[new.index[3], "smoker"] = "perhaps"
    with pytest.warns(UnseenLevel, match="'smoker'.*1 cells.*perhaps"):
        codes = schema.code(new)
    assert np.isnan(codes[3, 4]) and not np.isnan(np.delete(codes[:, 4], 3)).any()


def test_other_columns_are_refused():
    schema = TableSchema.infer(frame(), DECLARED)
    for other in (frame().drop(columns="height"), frame()[list(reversed(KINDS))], frame().assign(height="tall")):
        with pytest.raises(ValueError) as caught:
            schema.code(other)
        assert "\n" not in str(caught.value)


OUTSIDE = {"income": -1.0, "visits": 0.5, "share": 1.5, "height": np.inf}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_value_outside_its_support_is_refused_by_name(name):
    table = frame()
    schema = TableSchema.infer(table, DECLARED)
    table[name] = table[name].astype(float)
    table.loc[table.index[7], name] = OUTSIDE[name]
    with pytest.raises(ValueError, match=f"column '{name}', row 7"):
        schema.encode(schema.code(table), "float32")


# --- every verb, on a model of a table

TINY = {"latents": 2, "hidden": (8,), "steps": 60, "evidence": ImportanceWeighted(20), "particles": 20}


def small(**fields) -> rv.VAE:
    return rv.VAE(**(TINY | {"columns": DECLARED, "random_state": 0} | fields))


@pytest.fixture(scope="module")
def holed() -> pd.DataFrame:
    return frame(holes=0.2)


# Recipes that hold a table, each as small as it comes; a model of reals sees whole codes with noise.
HOLDS = {
    "vae": small,
    "latent-class": lambda: rv.LatentClass(components=2, steps=60, columns=DECLARED, random_state=0),
    "mixed-factor-analysis": lambda: rv.MixedFactorAnalysis(**TINY, columns=DECLARED, random_state=0),
    "miwae": lambda: rv.MIWAE(**TINY, columns=DECLARED, random_state=0),
    "gaussian": lambda: rv.GaussianMixture(components=1, columns=DECLARED, dequantise="uniform", random_state=0),
}
DEFAULT = ("vae",)


@pytest.fixture(scope="module", params=some(HOLDS, *DEFAULT))
def fitted(holed, request):
    return HOLDS[request.param]().fit(holed)


def check_types(made: pd.DataFrame, like: pd.DataFrame) -> None:
    assert list(made.columns) == list(like.columns)
    for name in like.columns:
        assert made[name].dtype == like[name].dtype or (name in ("born", "seen") and made[name].dtype.kind == "M"), name
    assert made["size"].cat.ordered and list(made["city"].cat.categories) == ["Rome", "Oslo", "Bonn"]


def test_what_is_drawn_has_the_types_and_supports_of_the_data(fitted, holed):
    drawn = fitted.sample(200)
    check_types(drawn, holed)
    assert drawn["id"].isna().all() and (drawn["planet"] == "Earth").all()
    assert not drawn.drop(columns="id").isna().any().any()
    assert (drawn["income"] > 0).all() and drawn["share"].between(0, 1).all()
    assert set(drawn["smoker"]) == {"yes", "no"} and set(drawn["size"]) == set("SML")
    assert (drawn["visits"] >= 0).all() and (drawn["visits"] % 1 == 0).all()
    assert (drawn["born"] == drawn["born"].dt.floor("D")).all() and str(drawn["seen"].dt.tz) == "UTC"


def test_holes_are_filled_and_no_observed_cell_is_touched(fitted, holed):
    for made in (fitted.impute(holed), *fitted.impute(holed, draws=2)):
        check_types(made, holed)
        assert not made.isna().any().any() and made.index.equals(holed.index)
        for name in holed.columns:
            known = holed[name].notna()
            assert (made[name][known] == holed[name][known]).all()
    one, two = fitted.impute(holed, draws=2)
    assert not one.equals(two)


def test_a_row_alone_gets_the_answer_it_gets_among_others(fitted, holed):
    places = [0, 7, 31]
    alone = [holed.iloc[i : i + 1] for i in places]
    assert np.concatenate([fitted.score_samples(row) for row in alone]).tolist() == (
        fitted.score_samples(holed)[places].tolist()
    )
    assert (np.concatenate([fitted.transform(row) for row in alone]) == fitted.transform(holed)[places]).all()
    pd.testing.assert_frame_equal(
        pd.concat([fitted.impute(row) for row in alone]), fitted.impute(holed).iloc[places], check_dtype=False
    )


def test_reconstruction_and_decoding_give_values_the_columns_can_hold(fitted, holed):
    made = fitted.reconstruct(holed)
    assert made.index.equals(holed.index) and set(made["city"].cat.categories) == {"Rome", "Oslo", "Bonn"}
    check_types(fitted.inverse_transform(np.zeros((3, fitted.transform(holed[:1]).shape[1]))), holed)


def test_the_number_is_in_the_units_of_the_table(fitted, holed):
    """Other units give the same cells: a density changes by the logarithm of the unit, a mass not at all."""
    other = holed.assign(height=holed["height"] / 100, income=holed["income"] * 1000)
    again = clone(fitted).fit(other)
    if fitted.schema_.dequantise == "uniform":  # the noise follows from what a row holds, to the bit
        noisy = [column.name for column in fitted.schema_.columns if isinstance(column, Dequantised)]
        other, holed = (table.assign(**{name: None for name in noisy}) for table in (other, holed))
    got, was = again.score_samples(other), fitted.score_samples(holed)
    change = np.log(100) * holed["height"].notna() - np.log(1000) * holed["income"].notna()
    np.testing.assert_allclose(got - was, change, atol=2e-3)  # the cells are rounded to float32
    assert fitted.evaluate(holed).measure == "mixed"


def test_an_empty_row_scores_zero(fitted, holed):
    empty = holed.iloc[:1].copy()
    for name in empty.columns:
        empty[name] = pd.Series([None], index=empty.index, dtype=holed[name].dtype if name != "height" else float)
    assert fitted.score_samples(empty).tolist() == [0.0]


def test_a_saved_table_model_answers_in_another_process(fitted, holed, tmp_path):
    folder = fitted.save(tmp_path / "run")
    holed.to_pickle(tmp_path / "holed.pickle")
    code = (
        "import pandas as pd, ravine as rv\n"
        f"model = rv.load({str(folder)!r})\n"
        f"model.sample(5).to_pickle({str(tmp_path / 'drawn.pickle')!r})\n"
        f"table = pd.read_pickle({str(tmp_path / 'holed.pickle')!r})\n"
        f"model.impute(table).to_pickle({str(tmp_path / 'filled.pickle')!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "drawn.pickle"), fitted.sample(5))
    pd.testing.assert_frame_equal(pd.read_pickle(tmp_path / "filled.pickle"), fitted.impute(holed))


def test_a_model_of_reals_takes_numbers_and_dates_and_refuses_the_rest():
    table = frame()
    model = rv.GaussianMixture(components=2, iterations=5, random_state=0).fit(table[["height", "born", "rank"]])
    check = model.sample(3)
    assert check["born"].dtype.kind == "M" and str(check["rank"].dtype) == "Int64"
    assert model.evaluate(table[["height", "born", "rank"]]).direction == "exact"
    with pytest.raises(ValueError, match="GaussianMixture.*1 category.*vae"):
        rv.GaussianMixture().fit(table[["height", "city"]])


def test_a_frame_of_plain_numbers_is_what_it_was():
    X = STREAM.normal(size=(40, 3))
    table = pd.DataFrame(X, columns=list("abc"))
    one, other = small(columns=None).fit(table), small(columns=None).fit(X)
    assert isinstance(one.schema_, Schema)
    np.testing.assert_allclose(one.score_samples(table), other.score_samples(X), rtol=1e-4)  # memory order differs


def test_heavy_tails_may_be_chosen_for_the_real_cells():
    table = frame()[["height", "city"]]
    model = small(columns=None, likelihood=HeavyTailed()).fit(table)
    assert np.isfinite(model.score(table))
    with pytest.raises(ValueError, match="a law of real cells"):
        small(columns=None, likelihood=Bits()).fit(table)


def test_no_warning_is_raised_on_the_way(holed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(steps=20).fit(holed).impute(holed)
