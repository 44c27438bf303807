"""Which kind of column it is: decided from the cells, unless the user says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ravine._check import complaint, one_of, require, shown
from ravine.data.arrays import LARGEST
from ravine.data.columns import AbstractColumn, Bounded, Censored, Date, Numeric, Positive
from ravine.data.discrete import Binary, Category, Constant, Count, Identifier, Ordinal
from ravine.data.frames import Given
from ravine.data.kinds import KINDS

MOST_LEVELS = 1000
FEW_COUNTS = 30  # whole numbers with more values than this are taken for measurements
LARGEST_COUNT = 100
SKEWED = 2.0


def infer(column: Given, wish: Any = None) -> AbstractColumn:
    """The column that holds these cells.

    Parameters
    ----------
    wish : None, a kind such as ``"count"``, or a kind with what it needs: ``("ordinal", ["low", "high"])``,
        ``("bounded", 0, 100)``, ``("censored", 0, inf)``, ``("count", "inflated")`` for extra zeros.

    Raises
    ------
    ValueError
        When there is no such kind, or the cells cannot be of it.

    Examples
    --------
    >>> infer(Given("smoker", "object", np.array(["yes", None, "no"], object))).words()
    "binary: 'no' or 'yes'"
    >>> infer(Given("age", "float64", np.array([20.5, 31.0, np.nan]))).kind
    'numeric'
    """
    asked = (wish,) if isinstance(wish, str) else tuple(wish or ())
    (name, dtype, cells, levels), what = column, f"column {shown(column.name)}"
    seen = cells[~column.missing()]
    if seen.dtype.kind == "f" and len(seen):
        size = float(np.abs(seen).max())
        require(size <= LARGEST, what, f"values within {LARGEST:g}", f"{size:g}", "rescale it or remove such a value")
    kind = str(asked[0]) if asked else _guess(dtype, seen, levels)
    one_of(f"the kind of {what}", kind, tuple(KINDS))
    if kind in ("constant", "identifier"):
        return _unmodelled(name, dtype, kind, seen)
    require(len(seen), what, "at least one observed cell", "none", "drop it, or declare it 'constant'")
    if kind in ("binary", "category", "ordinal"):
        return _levelled(name, dtype, kind, seen, tuple(asked[1]) if len(asked) > 1 else levels)
    require(seen.dtype.kind == "f", what, f"numbers in a {kind} column", shown(seen[0]), "declare it 'category'")
    return _measured(name, dtype, kind, seen, asked[1:])


def _guess(dtype: str, seen: np.ndarray, levels: tuple[Any, ...] | None) -> str:
    distinct = len(set(seen.tolist()))
    if levels is not None and len(levels) > 1:
        return "binary" if len(levels) == 2 else ("ordinal" if dtype == "ordered" else "category")
    if distinct < 2:
        return "constant"
    if dtype.startswith("datetime64"):
        return "date"
    if distinct == 2 and (seen.dtype.kind != "f" or set(seen.tolist()) == {0.0, 1.0}):
        return "binary"
    if seen.dtype.kind != "f":
        return "identifier" if distinct > max(20, 0.5 * len(seen)) or distinct > MOST_LEVELS else "category"
    return _guess_number(seen, distinct)


def _guess_number(seen: np.ndarray, distinct: int) -> str:
    if (seen == np.floor(seen)).all():
        if len(seen) > 20 and (np.diff(seen) == 1).all():
            return "identifier"
        return "count" if seen.min() >= 0 and seen.max() <= LARGEST_COUNT and distinct <= FEW_COUNTS else "numeric"
    if seen.min() <= 0:
        return "numeric"
    raw, logs = _skewness(seen), _skewness(np.log(seen))
    return "positive" if raw > SKEWED and abs(logs) < raw else "numeric"


def _skewness(values: np.ndarray) -> float:
    centred = values / np.abs(values).max()
    centred = centred - centred.mean()
    spread = centred.std()
    return float((centred**3).mean() / spread**3) if spread > 0 else 0.0


def _unmodelled(name: str, dtype: str, kind: str, seen: np.ndarray) -> AbstractColumn:
    if kind == "identifier":
        return Identifier(name, dtype)
    values = set(seen.tolist())
    do = "declare another kind"
    require(len(values) < 2, f"column {shown(name)}", "one value in a constant column", f"{len(values)}", do)
    return Constant(name, dtype, next(iter(values), None))


def _levelled(name: str, dtype: str, kind: str, seen: np.ndarray, levels: tuple[Any, ...] | None) -> AbstractColumn:
    found = sorted(set(seen.tolist()), key=lambda v: (isinstance(v, str), v))
    listed = tuple(found if levels is None else levels)
    what, extra = f"column {shown(name)}", [v for v in found if v not in listed]
    require(not extra, what, f"one of {shown(list(listed))}", shown(extra[:1]), "list every level")
    most = f"at most {MOST_LEVELS} levels"
    require(len(listed) <= MOST_LEVELS, what, most, f"{len(listed)}", "drop it or group them")
    do = "declare another kind, or list the levels: (kind, [level, ...])"
    require(len(listed) >= 2, what, "at least two levels", f"{len(listed)}", do)
    shares = tuple(float(np.mean([v == level for v in seen.tolist()])) for level in listed)
    if kind == "binary":
        require(len(listed) == 2, what, "two levels in a binary column", f"{len(listed)}", "declare it 'category'")
        return Binary(name, dtype, listed, shares[1])
    return (Ordinal if kind == "ordinal" else Category)(name, dtype, listed, shares)


def _measured(name: str, dtype: str, kind: str, seen: np.ndarray, ends: tuple[Any, ...]) -> AbstractColumn:
    if kind == "count":
        known = ends in ((), ("inflated",))
        require(known, f"column {shown(name)}", "'count' or ('count', 'inflated')", shown(ends), "change it")
        made = Count(name, dtype, float(seen.mean()), bool(ends))
        made.encode(seen)
        return made
    what, integers = f"column {shown(name)}", bool((seen == np.floor(seen)).all())
    if kind == "positive":
        require(seen.min() > 0, what, "positive numbers", f"{seen.min():g}", "declare it 'numeric'")
        return Positive(name, dtype, *_standard(np.log(seen)), integers)
    shift, scale = _standard(seen)
    if kind in ("date", "numeric"):
        return (Date if kind == "date" else Numeric)(name, dtype, shift, scale, integers)
    if len(ends) not in (0, 2):
        raise complaint(what, f"('{kind}', low, high)", shown((kind, *ends)), "give both limits")
    low, high = map(float, ends) if ends else (float(seen.min()), float(seen.max()))
    require(low < high, what, "a lower limit below the upper one", f"{low:g} and {high:g}", "change them")
    made = (Censored if kind == "censored" else Bounded)(name, dtype, shift, scale, integers, low, high)
    made.encode(seen)
    return made


def _standard(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, 1 where there is none; scaled first, so that squares neither vanish nor grow."""
    size = float(np.abs(values).max()) or 1.0
    mean, spread = float((values / size).mean()) * size, float((values / size).std()) * size
    return mean, spread if spread > 0 else 1.0


def wishes(columns: Mapping[Any, Any] | None, names: list[str]) -> dict[str, Any]:
    """The declared kinds by name; a whole number names a column by its place.

    Raises
    ------
    ValueError
        When there is no such column.
    """
    made = {}
    for name, wish in (columns or {}).items():
        known = (isinstance(name, int) and 0 <= name < len(names)) or str(name) in names
        require(known, "columns", f"names among {shown(names, 200)}", shown(name), "choose one of these")
        made[str(name) if str(name) in names else names[name]] = wish
    return made
