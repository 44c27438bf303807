"""Schemas and sources: every property here is asked of every row of the tables."""

import json
import tracemalloc

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ravine.core import Row
from ravine.data import ArraySource, Binarise, Dequantise, MappedSource, Schema, rows
from ravine.data.arrays import as_table

RNG = np.random.RandomState(3)
NAN = float("nan")


def holed(x):
    x = x.astype(float)
    x[::3, 0] = NAN
    x[4] = NAN
    return x


REAL = RNG.normal(size=(40, 5)) * [1e-3, 1.0, 7.0, 1e4, 1.0] + [0.0, 3.0, -50.0, 1e6, 0.0]
BITS = RNG.randint(2, size=(40, 5))
GREY = RNG.randint(256, size=(40, 2, 3)).astype(np.uint8)
COUNTS = RNG.poisson(3.0, size=(40, 5))

# name -> (data, how it is asked to be seen, what it is said to be)
SCHEMAS = {
    "real": (REAL, {}, "5 real cells"),
    "real, holes": (holed(REAL), {}, "5 real cells, with missing values"),
    "standardised": (REAL, {"standardise": True}, "5 real cells (standardised)"),
    "standardised, holes": (holed(REAL), {"standardise": True}, "5 real cells (standardised), with missing values"),
    "bits": (BITS, {}, "5 binary cells"),
    "booleans": (BITS.astype(bool), {}, "5 binary cells"),
    "bits, holes": (holed(BITS), {"binarise": "static"}, "5 binary cells (static binarisation), with missing values"),
    "bits as reals": (BITS, {"kind": "real"}, "5 real cells"),
    "threshold": (REAL, {"binarise": "threshold", "threshold": 2.0}, "5 binary cells (1 where at least 2)"),
    "threshold, holes": (
        holed(COUNTS / 20),
        {"binarise": "threshold"},
        "5 binary cells (1 where at least 0.5), with missing values",
    ),
    "grey, threshold": (
        GREY,
        {"binarise": "threshold", "threshold": 128.0, "levels": 256},
        "6 binary cells (1 where at least 128)",
    ),
    "dynamic": (GREY, {"binarise": "dynamic", "levels": 256}, "6 binary cells (dynamic binarisation of 256 levels)"),
    "dynamic, shares": (holed(GREY[:, 0] / 255), {"binarise": "dynamic"}, None),
    "levels": (GREY, {"kind": "levels", "levels": 256}, "6 cells as 256-level counts"),
    "levels, holes": (holed(COUNTS), {"kind": "levels"}, None),
    "counts": (COUNTS, {"kind": "count"}, "5 cells as counts without a limit"),
    "dequantised": (GREY, {"levels": 256, "dequantise": "uniform"}, "6 real cells dequantised from 256 levels"),
    "dequantised, standardised": (
        holed(COUNTS),
        {"dequantise": "uniform", "standardise": True},
        "5 real cells dequantised from 10 levels (standardised), with missing values",
    ),
    "dequantised counts": (COUNTS, {"kind": "count", "dequantise": "uniform"}, None),
}


@pytest.fixture(params=SCHEMAS, ids=lambda name: name.replace(", ", "-").replace(" ", "-"))
def case(request):
    data, options, words = SCHEMAS[request.param]
    return data, Schema.infer(data, **options), words


def flat(data):
    return np.asarray(data, float).reshape(len(data), -1)


def test_describe(case):
    _, schema, words = case
    assert words is None or schema.describe() == words
    assert "\n" not in schema.describe()


def test_json_keeps_every_field(case):
    _, schema, _ = case
    again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert again == schema and hash(again) == hash(schema)
    assert schema != Schema.from_json(schema.to_json() | {"rows": schema.rows + 1})


def test_missing_cells_are_masked_and_zero(case):
    data, schema, _ = case
    values, mask = schema.encode(data, "float64")
    missing = np.isnan(flat(data))
    assert schema.holes == missing.any() == (mask is not None)
    if mask is not None:
        assert np.array_equal(mask, ~missing)
        assert (values[missing] == 0).all()


def test_decode_inverts_encode(case):
    data, schema, _ = case
    values, mask = schema.encode(data, "float64")
    mask = np.ones(values.shape, bool) if mask is None else mask
    user = schema.decode(values)
    if schema.binarise == "threshold":
        user = np.where(mask, user, NAN)
        assert np.array_equal(schema.encode(user, "float64")[0], values)
        assert np.nanmin(user) >= np.nanmin(flat(data)) - 1e-9 and np.nanmax(user) <= max(255, np.nanmax(flat(data)))
    else:
        np.testing.assert_allclose(user[mask], flat(data)[mask], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [0.1, 9e149])
def test_a_column_that_is_constant_up_to_rounding_stays_small(size):
    """Its mean may be off by rounding, which is a large number beside 1 where the column is large."""
    X = np.full((40, 2), size)
    X[::2, 1] = np.nextafter(size, 0)
    values, _ = Schema.infer(X, standardise=True).encode(X, "float32")
    assert np.array_equal(values[:, 0], np.zeros(40)) and (np.abs(values) < 1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_as_asked(case, dtype):
    data, schema, _ = case
    low, high = schema.encode(data, dtype)[0], schema.encode(data, "float64")[0]
    assert low.dtype == dtype and low.shape == (len(data), *schema.shape)
    np.testing.assert_allclose(low, high, rtol=1e-6, atol=1e-7)


def test_base_is_the_mean_of_what_the_model_sees(case):
    data, schema, _ = case
    values, mask = schema.encode(data, "float64")
    mean = np.where(np.ones_like(values) if mask is None else mask, values, NAN)
    noise = 0.5 / schema.divisor / np.asarray(schema.scale) if schema.dequantise == "uniform" else 0.0
    np.testing.assert_allclose(schema.base, np.nanmean(mean, axis=0) + noise, rtol=1e-9, atol=1e-9)


def test_log_det_is_that_of_the_numerical_jacobian(case):
    data, schema, _ = case
    values, mask = schema.encode(data, "float64")
    mask = np.ones(values.shape, bool) if mask is None else mask
    if schema.kind != "real":
        assert not schema.log_det(mask).any() and schema.log_det() == 0 and schema.measure == "counting"
        return
    steps = np.eye(schema.width)
    for row, seen, got in zip(values[:6], mask, schema.log_det(mask), strict=False):
        jacobian = (schema.decode(row + steps) - schema.decode(row - steps)) / 2
        want = -np.linalg.slogdet(jacobian[np.ix_(seen, seen)])[1]
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(schema.log_det(), schema.log_det(np.ones(schema.shape, bool)))


def test_log_det_of_a_traced_mask(case):
    data, schema, _ = case
    mask = ~np.isnan(flat(data))
    got = jax.jit(jax.vmap(schema.log_det))(jnp.asarray(mask))
    np.testing.assert_allclose(got, schema.log_det(mask), rtol=1e-5)


def test_point_is_in_the_support_and_stays(case):
    data, schema, _ = case
    spread = 3 * np.std(schema.encode(data, "float64")[0])
    means = np.random.RandomState(0).normal(size=(30, *schema.shape)) * spread
    means = means if schema.kind != "binary" else np.clip(means, 0, 1)
    point = schema.point(means)
    again = schema.encode(point, "float64")[0]
    np.testing.assert_allclose(schema.point(again), point, rtol=1e-9, atol=1e-9)
    if schema.levels and schema.binarise == "none":
        assert point.min() >= 0 and point.max() <= schema.levels - 1
    if schema.measure == "counting" and schema.binarise in ("none", "static"):
        assert (point == np.floor(point)).all()


def test_draw_keeps_to_its_cell(case, key):
    data, schema, _ = case
    draw, row = schema.draw(), rows(data, schema, dtype="float32")
    assert isinstance(draw, Binarise) == (schema.binarise == "dynamic")
    assert isinstance(draw, Dequantise) == (schema.dequantise == "uniform")
    if draw is None:
        return
    drawn = jax.vmap(lambda r, k: draw(r, key=k))(row, jr.split(key, len(data)))
    assert jax.tree.structure(drawn) == jax.tree.structure(row) and drawn.x.dtype == row.x.dtype
    seen = np.ones(row.x.shape, bool) if row.mask is None else np.asarray(row.mask)
    assert not np.asarray(drawn.x)[~seen].any()
    if isinstance(draw, Binarise):
        assert set(np.unique(drawn.x)) == {0.0, 1.0}
    else:
        added = schema.decode(drawn.x) - schema.decode(row.x)
        assert (added[seen] >= -1e-3).all() and (added[seen] <= 1 + 1e-3).all() and added[seen].std() > 0.2
        assert np.array_equal(schema.point(np.where(seen, drawn.x, row.x))[seen], flat(data)[seen])


def test_link_gives_a_law_over_what_the_model_sees(case, key):
    data, schema, _ = case
    link, row = schema.link(), rows(data, schema, dtype="float32")
    draw = schema.draw()
    if draw is not None:
        row = jax.vmap(lambda r, k: draw(r, key=k))(row, jr.split(key, len(data)))
    law = link(jnp.zeros(link.size(schema.shape)), schema.shape)
    value = jax.vmap(lambda r: law.log_prob(r.x, r.mask))(row)
    assert value.shape == (len(data),) and bool(jnp.isfinite(value).all())


@pytest.fixture
def mapped(tmp_path):
    def save(data):
        np.save(tmp_path / "data.npy", data)
        return np.load(tmp_path / "data.npy", mmap_mode="r")

    return save


def taken(source, positions):
    """A batch the way the loop takes it."""
    block, places = source.block(positions)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[np.maximum(places, 0)], block), places < 0


@pytest.mark.parametrize("order", ["C", "F"])
def test_mapped_batches_equal_those_in_memory_to_the_bit(case, mapped, order):
    data, schema, _ = case
    on_disk = mapped(np.asarray(data, order=order))
    assert Schema.infer(on_disk, **{}).holes == schema.holes
    count = len(data)
    weight, y = np.arange(count) / 7, np.where(np.arange(count) % 5, np.arange(count) / 3, NAN)
    in_memory = ArraySource(rows(data, schema, weight=weight, y=y, dtype="float32"))
    from_disk = MappedSource(on_disk, schema, "float32", weight=weight, y=y)
    assert in_memory.rows == from_disk.rows == count
    rng = np.random.RandomState(1)
    whole = np.flatnonzero(~np.isnan(flat(data)).any(axis=1))  # a block without a hole in data that have some
    for positions in [whole, *(rng.randint(-1, count, size=shape) for shape in [(1,), (3, 4), (2, 5, 2), (7, 40)])]:
        (a, pad_a), (b, pad_b) = taken(in_memory, positions), taken(from_disk, positions)
        assert jax.tree.structure(a) == jax.tree.structure(b) and np.array_equal(pad_a, pad_b)
        for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            assert left.dtype == right.dtype and left.tobytes() == right.tobytes()
        assert np.array_equal(a.index, np.maximum(positions, 0))


def test_inference_does_not_depend_on_where_the_array_lies(mapped):
    for data, options, _ in SCHEMAS.values():
        assert Schema.infer(mapped(data), **options) == Schema.infer(data, **options)
    frame = pd.DataFrame(holed(COUNTS), columns=list("abcde")).astype("Int64")
    assert Schema.infer(frame) == Schema.infer(holed(COUNTS), names=list("abcde"))


def test_a_mapped_file_is_never_copied_whole(mapped):
    on_disk = mapped(np.zeros((40_000, 100)))
    tracemalloc.start()
    schema = Schema.infer(on_disk, standardise=True)
    source = MappedSource(on_disk, schema, "float32")
    block, _ = source.block(np.arange(0, 40_000, 400))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert block.x.shape == (128, 100)
    assert peak < 0.75 * on_disk.nbytes  # working space is a constant, whatever the size of the file
    with pytest.raises(ValueError, match="give a batch size"):
        source.all()


def test_standardised_columns(x64):
    x = np.stack(
        [np.full(9, 0.1), np.arange(9.0), np.full(9, NAN), [1e6, *[0.0] * 8], 1e9 + np.arange(9) * 1e-9], axis=1
    )
    schema = Schema.infer(x, standardise=True)
    values, mask = schema.encode(x, "float64")
    assert schema.scale[0] == schema.scale[2] == schema.scale[4] == 1.0
    assert schema.base[2] == schema.shift[2] == 0.0
    np.testing.assert_allclose(values[:, [1, 3]].mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(values[:, [1, 3]].std(axis=0), 1.0)
    column = Schema.infer(x[:, 1:2], standardise=True)
    encoded = column.encode(x[:, 1:2], "float64")[0]
    user = stats.norm(4.0, np.sqrt(60 / 9)).logpdf(x[:, 1])
    np.testing.assert_allclose(stats.norm(0, 1).logpdf(encoded[:, 0]) + column.log_det(), user, rtol=1e-12)


def test_dequantised_and_standardised_cells_have_mean_0_and_variance_1(key):
    x = np.stack([COUNTS[:, 0], np.full(40, 2)], axis=1)
    schema = Schema.infer(x, dequantise="uniform", standardise=True)
    draw, batch = schema.draw(), rows(x, schema, dtype="float32")
    noisy = jax.vmap(lambda k: jax.vmap(lambda r, j: draw(r, key=j).x)(batch, jr.split(k, 40)))(jr.split(key, 500))
    np.testing.assert_allclose(noisy.mean(axis=(0, 1)), 0.0, atol=0.03)
    np.testing.assert_allclose(noisy.std(axis=(0, 1)), 1.0, atol=0.03)


def test_dynamic_bits_have_the_grey_level_as_mean(key):
    row = Row(jnp.array([0.0, 0.25, 0.5, 1.0]))
    draws = jax.vmap(lambda k: Binarise()(row, key=k).x)(jr.split(key, 4000))
    np.testing.assert_allclose(draws.mean(axis=0), row.x, atol=4.5 * np.sqrt(0.25 / 4000))


def test_dequantised_density_bounds_the_mass_from_below(key, x64):
    """For any density, E_u[log p(k + u)] <= log of its integral over [k, k + 1); equal when it is flat there."""
    x = np.array([[0.0], [1.0], [3.0]])
    schema = Schema.infer(x, kind="levels", dequantise="uniform")
    draw, row = schema.draw(), rows(x, schema, dtype="float64")
    noisy = jax.vmap(lambda k: jax.vmap(lambda r: draw(r, key=k))(row).x)(jr.split(key, 2000))
    law = stats.norm(0.5, 0.2)
    bound = law.logpdf(noisy).mean(axis=0)[:, 0] + schema.log_det()
    mass = np.log(law.cdf((x[:, 0] + 1) / 4) - law.cdf(x[:, 0] / 4))
    assert (bound < mass).all() and (bound > mass - 0.5).all()
    assert schema.measure == "counting"
    np.testing.assert_allclose(schema.log_det(), -np.log(4))


SIMPLE = Schema((2,), "levels", levels=5, names=("a", "b"))

# what is wrong -> (what is called, part of the line that says so)
MISTAKES = {
    "width": (lambda: SIMPLE.encode(np.zeros((3, 4)), "float32"), "expected 2 columns, got 4; "),
    "order of columns": (
        lambda: SIMPLE.encode(pd.DataFrame({"b": [1], "a": [2]}), "float32"),
        "expected ('a', 'b'), got",
    ),
    "support": (
        lambda: SIMPLE.encode([[0, 5]], "float32"),
        "whole numbers between 0 and 4, got 5 at [0, 1] (column 'b')",
    ),
    "fraction": (lambda: SIMPLE.encode([[0, 1], [0.5, 1]], "float32"), "got 0.5 at [1, 0] (column 'a')"),
    "negative": (lambda: Schema.infer([[-1.0, 2.0]], kind="count"), "whole numbers of at least 0, got -1 at [0, 0]"),
    "infinite": (lambda: Schema.infer([[1.0, -np.inf]]), "expected finite numbers, got -inf at [0, 1]; write NaN"),
    "infinite later": (lambda: Schema((1,), "real").encode([[np.inf]], "float32"), "got inf at [0, 0]"),
    "not static": (lambda: Schema.infer([[0.5, 1]], binarise="static"), "between 0 and 1, got 0.5 at [0, 0]"),
    "too grey": (lambda: Schema.infer([[300, 1]], binarise="dynamic", levels=256), "between 0 and 255, got 300"),
    "no threshold": (lambda: Schema.infer([[0, 16]], binarise="threshold"), "threshold: expected a number, got None"),
    "lost threshold": (lambda: Schema.infer([[0, 16]], threshold=8.0), "set binarise='threshold'"),
    "two treatments": (lambda: Schema.infer([[0]], binarise="static", dequantise="uniform"), "choose one of the two"),
    "kind": (
        lambda: Schema.infer([[0]], kind="bits"),
        "expected one of None, 'real', 'binary', 'levels', 'count', got 'bits'",
    ),
    "kind and bits": (lambda: Schema.infer([[0]], kind="real", binarise="static"), "drop kind or binarise"),
    "option": (lambda: Schema.infer([[0]], standardize=True), "got 'standardize'"),
    "levels": (lambda: Schema.infer([[0]], kind="levels", levels=1), "at least 2, got 1"),
    "many levels": (lambda: Schema.infer([[1e9]], kind="levels"), "use kind='count' or 'real'"),
    "names": (lambda: Schema.infer([[0, 1]], names=["a"]), "expected 2 names, got 1"),
    "equal names": (lambda: Schema.infer([[0, 1]], names=["a", "a"]), "distinct names"),
    "image": (lambda: Schema.infer([[0, 1]], image_shape=(2, 2)), "expected a shape of 2 cells, got (2, 2)"),
    "dtype": (lambda: SIMPLE.encode([[0, 1]], "int32"), "use 'float32' or 'float64'"),
    "overflow": (lambda: Schema((1,), "real").encode([[1e39]], "float32"), "standardise or use float64"),
    "magnitude": (lambda: Schema.infer([[1e200]]), "values within 1e+150, got 1e+200"),
    "precision": (lambda: rows([[0, 1]], SIMPLE, dtype="float64"), "precision('float64')"),
    "weight": (lambda: rows([[0, 1]], SIMPLE, weight=[-1.0], dtype="float32"), "weight: expected 1 finite numbers"),
    "weights": (lambda: rows([[0, 1]], SIMPLE, weight=[1.0, 1.0], dtype="float32"), "give one for each row"),
    "label": (lambda: rows([[0, 1]], SIMPLE, y=["cat"], dtype="float32"), "y: expected 1 numbers"),
    "text": (lambda: as_table([["a", "b"]]), "encode text"),
    "objects": (lambda: as_table(np.array([[1, {}]], dtype=object)), "expected numbers, got {} at [0, 1]"),
    "numbers as text": (lambda: as_table(np.array([["1", 2.0]], dtype=object)), "got '1' at [0, 0]"),
    "ragged": (lambda: as_table([[1, 2], [3]]), "rows of equal length"),
    "one axis": (lambda: as_table([1.0, 2.0]), "X.reshape(-1, 1)"),
    "no rows": (lambda: as_table(np.zeros((0, 2))), "expected at least one row, got 0 rows"),
    "no columns": (lambda: as_table(np.zeros((2, 0))), "expected at least one column"),
    "huge integer": (lambda: as_table(np.array([[2**60]])), "2**53"),
    "json fields": (lambda: Schema.from_json({"shape": [1]}), "the schema: expected the fields base, "),
    "json types": (lambda: Schema.from_json(SIMPLE.to_json() | {"shift": ["x", 1]}), "the schema: expected numbers"),
    "json sizes": (lambda: Schema.from_json(SIMPLE.to_json() | {"scale": [1.0]}), "expected shape (2,), got (1,)"),
    "json scale": (lambda: Schema.from_json(SIMPLE.to_json() | {"scale": [1.0, 0.0]}), "positive numbers"),
    "json text": (lambda: Schema.from_json("schema"), "the schema: expected the fields"),
    "mapped width": (lambda: MappedSource(np.zeros((3, 4)), SIMPLE, "float32"), "expected 2 columns, got 4"),
    "mapped support": (lambda: MappedSource(np.full((3, 2), 9), SIMPLE, "float32"), "got 9 at [0, 0]"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line(mistake):
    call, words = MISTAKES[mistake]
    with pytest.raises(ValueError) as caught:
        call()
    line = str(caught.value)
    assert words in line and "\n" not in line and "expected" in line and "got" in line


def test_masked_arrays_and_nullable_frames_keep_their_holes():
    hidden = np.ma.MaskedArray([[1, 2], [3, 4]], mask=[[0, 1], [0, 0]])
    assert np.isnan(as_table(hidden)).tolist() == [[False, True], [False, False]]
    frame = pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": [True, False]})
    assert np.isnan(as_table(frame)).tolist() == [[False, False], [True, False]]
    assert np.isnan(as_table([[1.0, None]])).tolist() == [[False, True]]


def test_a_fully_missing_row_is_empty():
    batch = rows([[NAN, NAN], [1.0, NAN]], Schema((2,), "real"), dtype="float32")
    assert jax.vmap(lambda row: row.is_empty())(batch).tolist() == [True, False]
