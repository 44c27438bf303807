"""Decides, from a summary of the columns and what the user asked for, how a model will see the data."""

from __future__ import annotations

import math
from typing import Any, Literal, TypedDict, get_args

import numpy as np

from ravine._check import one_of, require, same_shape, shown, whole
from ravine.data.arrays import LARGEST, Summary, share_at_least, spread

Kind = Literal["real", "binary", "levels", "count"]
Binarisation = Literal["none", "threshold", "static", "dynamic"]
Dequantisation = Literal["none", "uniform"]
Measure = Literal["counting", "lebesgue", "mixed"]

MOST_LEVELS = 2**24
EDGE = 1e-4  # share of a level by which single precision may miss its lower edge


class Treatment(TypedDict, total=False):
    """How `Schema.infer` is asked to treat the data; what is left out is decided from the data."""

    kind: Kind | None
    levels: int | None
    binarise: Binarisation
    threshold: float | None
    dequantise: Dequantisation
    standardise: bool


def plan(summary: Summary, treatment: Treatment) -> dict[str, Any]:
    """The fields of a schema that follow from the extremes of the data and the wishes of the user."""
    for option in treatment:
        one_of("option", option, tuple(Treatment.__annotations__))
    binarise, dequantise = treatment.get("binarise", "none"), treatment.get("dequantise", "none")
    kind, threshold = treatment.get("kind"), treatment.get("threshold")
    one_of("binarise", binarise, get_args(Binarisation))
    one_of("dequantise", dequantise, get_args(Dequantisation))
    one_of("kind", kind, (None, *get_args(Kind)))
    both = binarise != "none" and dequantise != "none"
    require(not both, "dequantise", "'none' beside binarise", shown(dequantise), "choose one of the two")
    lost = threshold is not None and binarise != "threshold"
    require(not lost, "threshold", "None without binarise='threshold'", shown(threshold), "set binarise='threshold'")
    if binarise != "none":
        sees_bits = kind in (None, "binary", "levels")
        require(sees_bits, "kind", "None or 'binary' with binarisation", shown(kind), "drop kind or binarise")
        return {"kind": "binary", "binarise": binarise, **_binarised(binarise, summary, treatment)}
    if dequantise == "uniform":
        levels = 0 if kind == "count" else _levels(summary, treatment)
        return {"kind": "real", "dequantise": "uniform", "levels": levels, "divisor": float(levels or 1)}
    kind = kind or _guess(summary, treatment)
    return {"kind": kind, "levels": _levels(summary, treatment) if kind == "levels" else 0}


def _guess(summary: Summary, treatment: Treatment) -> Kind:
    if treatment.get("levels") is not None:
        return "levels"
    return "binary" if summary.seen.any() and summary.within(1.0) else "real"


def _extremes(summary: Summary) -> tuple[float, float]:
    """Smallest and largest observed value; 0 and 1 when nothing was observed."""
    if not summary.seen.any():
        return 0.0, 1.0
    return float(summary.low.min()), float(summary.high.max())


def _levels(summary: Summary, treatment: Treatment) -> int:
    given = treatment.get("levels")
    if given is not None:
        return whole("levels", given, 2)
    most = _extremes(summary)[1]
    fits = most < MOST_LEVELS
    require(fits, "the data", f"fewer than {MOST_LEVELS} levels", f"the value {most:g}", "use kind='count' or 'real'")
    return max(2, math.floor(most) + 1)


def _binarised(binarise: Binarisation, summary: Summary, treatment: Treatment) -> dict[str, Any]:
    if binarise == "static":
        return {}
    if binarise == "threshold":
        return _thresholded(summary, treatment)
    if treatment.get("levels") is None and _extremes(summary)[1] <= 1:
        return {}
    levels = _levels(summary, treatment)
    return {"levels": levels, "divisor": float(levels - 1)}


def _thresholded(summary: Summary, treatment: Treatment) -> dict[str, Any]:
    """The threshold, and the two values of the user's that black and white decode to, one on either side of it."""
    black, white = _extremes(summary)
    threshold, levels = treatment.get("threshold"), treatment.get("levels")
    if threshold is None:
        do = "give threshold= in the units of the data"
        require(0 <= black and white <= 1, "threshold", "a number", f"None for data up to {white:g}", do)
        threshold = 0.5
    require(math.isfinite(threshold), "threshold", "a finite number", shown(threshold), "change it")
    if levels is not None:
        black, white = 0.0, whole("levels", levels, 2) - 1.0
    black = black if black < threshold else threshold - 1
    scale = max(white, threshold) - black
    while black + scale < threshold:  # rounding must not carry white below the threshold
        scale = math.nextafter(scale, math.inf)
    width = len(summary.seen)
    return {"threshold": float(threshold), "levels": levels or 0, "shift": (black,) * width, "scale": (scale,) * width}


def fitted(fields: dict[str, Any], table: np.ndarray, summary: Summary, standardise: bool) -> dict[str, Any]:
    """Per-cell numbers of a schema: the standardisation, and the mean of what the model sees."""
    if fields.get("binarise") == "threshold":
        return {"base": _floats(share_at_least(table, fields["threshold"], summary))}
    real, noisy = fields["kind"] == "real", fields.get("dequantise") == "uniform"
    sizes = np.where(summary.seen > 0, np.maximum(np.abs(summary.low), np.abs(summary.high)), 0.0)
    if real:
        got = f"{sizes.max():g} in column {int(sizes.argmax())}"
        require(sizes.max() <= LARGEST, "the data", f"values within {LARGEST:g}", got, "rescale or remove that column")
    divisor = fields.get("divisor", 1.0)
    mean = (summary.mean() + 0.5 * noisy) / divisor
    if not (real and standardise):
        return {"base": _floats(np.where(summary.seen > 0, mean, 0.0))}
    # a uniform draw of width 1 has variance 1/12
    deviation = np.hypot(spread(table, summary), math.sqrt(1 / 12) * noisy) / divisor
    unit = np.maximum(1.0, 8 * np.finfo(float).eps * sizes / divisor)  # of a column that is constant up to rounding
    shift, scale = np.where(summary.seen > 0, mean, 0.0), np.where(deviation > 0, deviation, unit)
    return {"shift": _floats(shift), "scale": _floats(scale), "base": (0.0,) * len(mean)}


def _floats(cells: np.ndarray) -> tuple[float, ...]:
    return tuple(float(v) for v in cells)


def check_fields(schema: Any) -> None:
    """Raise when the fields of a schema contradict each other, as those of a damaged file may."""
    for name, choices in (("kind", Kind), ("binarise", Binarisation), ("dequantise", Dequantisation)):
        one_of(name, getattr(schema, name), get_args(choices))
    for name in ("shift", "scale", "base"):
        cells = getattr(schema, name)
        same_shape(f"schema.{name}", (len(cells),), (schema.width,), "give one number for each cell")
        finite = all(map(math.isfinite, cells))
        require(finite, f"schema.{name}", "finite numbers", "inf or NaN", "infer the schema again")
    positive = min(schema.scale) > 0 and 0 < schema.divisor < math.inf
    require(positive, "schema.scale and divisor", "positive numbers", "0 or less", "infer the schema again")
    _check_sizes(schema)
    _check_agreement(schema)


def _check_sizes(schema: Any) -> None:
    for name, least in (("levels", 2 if schema.kind == "levels" else 0), ("rows", 0)):
        whole(f"schema.{name}", getattr(schema, name), least)
    if schema.names is not None:
        same_shape("schema.names", (len(schema.names),), (schema.width,), "name every column")
    if schema.image_shape is not None:
        cells = math.prod(whole("schema.image_shape", n) for n in schema.image_shape)
        require(cells == schema.width, "schema.image_shape", f"{schema.width} cells", f"{cells}", "correct the shape")


def _check_agreement(schema: Any) -> None:
    bits = schema.binarise == "none" or schema.kind == "binary"
    require(bits, "schema.kind", "'binary' with binarisation", shown(schema.kind), "drop kind or binarise")
    reals = schema.dequantise == "none" or schema.kind == "real"
    require(reals, "schema.kind", "'real' with dequantisation", shown(schema.kind), "drop kind or dequantise")
    known = (schema.binarise == "threshold") == (schema.threshold is not None)
    require(known, "schema.threshold", "a number with binarise='threshold' only", shown(schema.threshold), "change it")
