"""Data frames with columns of several kinds, as bad as they come.

A frame has one of four layouts: a number of rows, and for each column what a model sees of it, so that programs are
compiled once. Which unpleasant column of that sort stands there is drawn by seed.
"""

import datetime
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from test_fuzz import Stream, scaled, spike

# Columns, by what a model sees of them. The first three rows are never missing, and differ where a column varies.

Column = Callable[[Stream, int], Any]


def anchored(made: Column, *first: float) -> Column:
    """Numbers that begin with these."""

    def column(rng: Stream, n: int) -> np.ndarray:
        x = np.asarray(made(rng, n)).copy()
        x[: len(first)] = first[:n]
        return x

    return column


def typed(made: Column, dtype: str) -> Column:
    return lambda rng, n: pd.Series(made(rng, n)).astype(dtype)


def words(*levels: Any, dtype: str = "str") -> Column:
    """Levels in any order, after each of them once."""

    def column(rng: Stream, n: int) -> pd.Series:
        places = np.r_[np.arange(len(levels)), rng.integers(len(levels), size=n)][:n]
        return pd.Series([levels[i] for i in places], dtype=dtype)

    return column


def listed(levels: Sequence[Any], used: Sequence[int], ordered: bool = False) -> Column:
    """A category of which only some levels are used."""

    def column(rng: Stream, n: int) -> pd.Series:
        return pd.Series(pd.Categorical.from_codes(rng.choice(used, size=n), list(levels), ordered=ordered))

    return column


def days(low: float, high: float, dtype: str, step: float = 1 / 86400) -> Column:
    """Points in time, this many days apart or a multiple of it."""

    def column(rng: Stream, n: int) -> pd.Series:
        x = np.round(rng.uniform(low, high, size=n) / step) * step
        return pd.Series((x * 86400 * 10**6).astype("int64").astype("datetime64[us]")).astype(dtype)

    return column


def in_zone(made: Column, zone: str) -> Column:
    return lambda rng, n: made(rng, n).dt.tz_localize("UTC").dt.tz_convert(zone)


def whole(low: int, high: int, dtype: Any = float) -> Column:
    return lambda rng, n: rng.integers(low, high, size=n, dtype=np.int64 if high < 2**63 else np.uint64).astype(dtype)


def piled(rng: Stream, n: int) -> np.ndarray:
    """Fractions, most of them 0 or 1."""
    return np.where(rng.uniform(size=n) < 0.8, rng.integers(0, 2, size=n), rng.uniform(size=n))


FLOATS: dict[str, Column] = {
    "normal": scaled(1.0),
    "outlier": spike(1e30),
    "vast": scaled(1e140),
    "vanishing": scaled(1e-160),
    "skewed": lambda rng, n: np.exp(rng.normal(scale=5, size=n)),
    "piled-up": anchored(piled, 0.5, 0.25, 0.75),
    "float16": typed(lambda rng, n: rng.uniform(-65000, 65000, size=n), "float16"),
    "float32": typed(lambda rng, n: rng.uniform(-3e38, 3e38, size=n), "float32"),
    "Float64": typed(scaled(1e-3, 5.0), "Float64"),
    "objects": typed(anchored(scaled(3.0), -1.0, 2.5, 7.0), "object"),
    "Int64": typed(anchored(whole(-9, 9), -9, 3, 8), "Int64"),
    "UInt8": typed(anchored(whole(0, 256), 0, 200, 255), "UInt8"),
    "huge-counts": anchored(whole(2**50, 2**53), 2**50, 2**52, 2**53),
    "dates": days(18_000, 19_000, "datetime64[ns]"),
    "midnights": days(0, 20_000, "datetime64[s]", step=1.0),
    "sentinels": lambda rng, n: days(2_932_896, 2_932_897, "datetime64[us]")(rng, n).where(
        np.arange(n) % 2 > 0, days(-700_000, 19_000, "datetime64[us]")(rng, n)
    ),
    "all-of-time": days(-106_000, 106_000, "datetime64[ns]"),
    "universal": in_zone(days(18_000, 19_000, "datetime64[us]"), "UTC"),
    "zoned": in_zone(days(18_000, 19_000, "datetime64[ns]"), "Europe/Paris"),
}
INTEGERS: dict[str, Column] = {  # these types have no missing value
    "int64": anchored(whole(-5, 5, "int64"), -5, 3, 4),
    "int8": anchored(whole(-128, 128, "int8"), -128, 3, 127),
    "uint8": anchored(whole(0, 256, "uint8"), 0, 200, 255),
    "int64-at-its-end": whole(2**63 - 2**54, 2**63 - 1, "int64"),
    "uint64-at-its-end": whole(2**63, 2**64 - 1, "uint64"),
}
BITS: dict[str, Column] = {
    "yes-no": words("yes", "no"),
    "bool": words(True, False, dtype="bool"),
    "bool-objects": words(True, False, dtype="object"),
    "one-truth": words(True, dtype="bool"),
    "boolean": words(True, False, dtype="boolean"),
    "zeros-ones": words(0, 1, dtype="int64"),
    "unicode": words("ß", "女\u200d🦀", dtype="object"),
    "empty-text": words("", "x", dtype="string"),
    "lines": words("one\ntwo", "\ttab", dtype="object"),
    "one-of-two": listed(["a", "b"], [1]),
    "category-of-bits": listed([False, True], [0, 1]),
}
THREE: dict[str, Column] = {
    "text": words("a", "b", "c"),
    "text-objects": words("", " ", "nan", dtype="object"),
    "string": words("été", "Ελλάδα", "None", dtype="string"),
    "mixed-objects": words(1, "1", 2.5, dtype="object"),
    "two-of-three": listed(["", "b", "c"], [0, 2]),
    "category-of-numbers": listed([3, 1, 2], [0, 1, 2]),
}
SIXTY: dict[str, Column] = {
    "sixty": listed([f"city {i}" for i in range(60)], range(60)),
    "sixty-unused": listed([f"'{i}'" * i for i in range(60)], [7, 8]),
    "sixty-numbers": listed([i * i - 7.5 for i in range(60)], range(0, 60, 5)),
}
FOUR: dict[str, Column] = {
    "ordered": listed(list("SMLX"), range(4), True),
    "ends": listed(["none", "some", "more", "all"], [0, 3], True),
    "one-of-four": listed(list("SMLX"), [2], True),
    "ordered-numbers": listed([-1, 10, 2, 0], range(4), True),
}
COUNTS: dict[str, Column] = {
    "counts": lambda rng, n: rng.poisson(2, size=n),
    "zeros": lambda rng, n: np.zeros(n),
    "vast-counts": whole(0, 2**53),
    "counts-uint8": whole(0, 256, "uint8"),
    "counts-Int64": typed(whole(0, 4), "Int64"),
    "one-in-a-crowd": lambda rng, n: np.where(np.arange(n) == 1, 10**9, 0),
    "heavy-counts": lambda rng, n: np.floor(np.minimum(np.exp(rng.normal(0, 9, size=n)), 2.0**53)),
}
NOTHING: dict[str, Column] = {
    "constant-text": words("Earth"),
    "empty-texts": words("", dtype="object"),
    "constant-truth": lambda rng, n: pd.Series([True, None] * n, dtype=object)[:n],
    "constant-Int64": words(7, dtype="Int64"),
    "constant-date": days(18_000, 18_000, "datetime64[ns]"),
    "constant-zero": words(0, dtype="int64"),
    "one-level": listed(["only"], [0]),
    "no-objects": words(None, dtype="object"),
    "no-numbers": words(np.nan, dtype="float64"),
    "no-integers": words(None, dtype="Int32"),
    "no-dates": words(pd.NaT, dtype="datetime64[ns]"),
}
IDENTIFIERS: dict[str, Column] = {  # of more than twenty rows
    "names": lambda rng, n: [f"row {i}" for i in rng.permutation(n)],
    "running": lambda rng, n: np.arange(n) + 10**6,
    "running-Int64": lambda rng, n: pd.array(np.arange(n), dtype="Int64"),
    "running-objects": lambda rng, n: pd.Series([f"{i:040}" for i in range(n)], dtype=object),
}
REFUSED: dict[str, Column] = {
    "infinite": spike(np.inf),
    "infinite-skewed": lambda rng, n: np.r_[np.exp(rng.normal(size=n - 1)), np.inf],
    "infinite-running": lambda rng, n: np.r_[np.arange(n - 2.0), np.inf, np.inf],
    "infinite-Float64": typed(spike(-np.inf), "Float64"),
    "beyond": spike(1e160),
    "complex": lambda rng, n: rng.normal(size=n) + 1j,
    "durations": lambda rng, n: pd.to_timedelta(rng.normal(size=n), unit="D"),
    "dicts": words({"a": 1}, None, dtype="object"),
    "lists": words([1, 2], "text", 3.0, dtype="object"),
    "bytes": words(b"a", b"b", dtype="object"),
    "decimals": words(Decimal("1.5"), Decimal(2), dtype="object"),
    "day-objects": words(datetime.date(2020, 1, 1), "2020-01-02", dtype="object"),
    "intervals": lambda rng, n: pd.cut(np.arange(n), 3),
    "periods": lambda rng, n: pd.period_range("2020-01", periods=n, freq="M"),
    "category-of-dates": lambda rng, n: pd.Series(pd.date_range("2020", periods=n)).astype("category"),
    "no-levels-seen": lambda rng, n: pd.Categorical([None] * n, categories=["a", "b"]),
    "no-bits-seen": words(None, dtype="boolean"),
}
REFUSED_COUNTS: dict[str, Column] = {
    "negative": whole(-9, 0),
    "halves": lambda rng, n: np.full(n, 0.5),
    "uncountable": spike(1e40),
    "tall": words("tall", "small"),
    "no-counts": words(np.nan, dtype="float64"),
}


# Frames.

REALS = FLOATS | INTEGERS
LAYOUTS: dict[str, tuple[int, list[dict[str, Column]]]] = {
    "few": (7, [FLOATS, THREE]),
    "answers": (17, [FLOATS, FOUR, COUNTS, NOTHING]),
    "records": (24, [FLOATS, BITS, THREE, FOUR, COUNTS, NOTHING | IDENTIFIERS, REALS]),
    "all": (40, [FLOATS, REALS, BITS, BITS, SIXTY, FOUR, COUNTS, COUNTS, NOTHING | IDENTIFIERS, THREE]),
}
NAMES = ["", "two\nlines", "a \"quoted\" 'name'", "naïve 女", "x" * 90, "a.b c", "0", "True", "column 1", "NaN"]


class Fuzzed(NamedTuple):
    """A frame, what is told of its columns, what it is made of, and the column that must be refused."""

    X: pd.DataFrame
    counts: dict[str, str]
    made_of: list[str]
    refused: int | None


def holed(rng: Stream, column: pd.Series) -> pd.Series:
    """A column with some cells missing where its type has a word for that, the last one always."""
    if column.dtype.kind in "biu" and isinstance(column.dtype, np.dtype):
        return column
    gone = rng.uniform(size=len(column)) < rng.choice([0.1, 0.5, 0.9])
    gone[:3], gone[-1:] = False, True
    return column.mask(gone)


def fuzzed(seed: int, names: Sequence[str] = tuple(LAYOUTS)) -> Fuzzed:
    rng = np.random.default_rng([20260202, seed])
    rows, sorts = LAYOUTS[names[int(rng.integers(len(names)))]]
    made_of = [str(rng.choice(list(sort))) for sort in sorts]
    columns = [pd.Series(sort[name](rng, rows)) for sort, name in zip(sorts, made_of, strict=True)]
    columns = [c if name in IDENTIFIERS else holed(rng, c) for c, name in zip(columns, made_of, strict=True)]
    called, refused = NAMES[: len(sorts)], None
    if (chance := rng.uniform()) < 0.2:
        refused = int(rng.integers(1, len(sorts)))
        bad = (
            {"twice": sorts[0]["normal"]} if chance < 0.01 else REFUSED_COUNTS if sorts[refused] is COUNTS else REFUSED
        )
        made_of[refused] = str(rng.choice(list(bad)))
        columns[refused] = pd.Series(bad[made_of[refused]](rng, rows))
        called[refused] = called[0] if "twice" in bad else called[refused]
    X = pd.concat(columns, axis=1).set_axis(called, axis=1)
    X.index = [X.index, X.index[::-1] * 3, pd.Index(rng.integers(3, size=rows))][rng.integers(3)]
    return Fuzzed(X, {called[j]: "count" for j, sort in enumerate(sorts) if sort is COUNTS}, made_of, refused)
