"""Imputation on show: cells that were hidden on purpose, and cells that are truly missing, each with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ravine.report.charts import Axis, lane, legend
from ravine.report.look import Column, Looked, columns, some, take
from ravine.report.markup import Html, count, details, number, section, short, table, tag, words

HIDDEN = 40  # cells that are hidden, one in a row
HOLES = 8  # rows with holes of their own
DRAWS = 40
SHOWN = 12
SPAN = (0.05, 0.95)


@dataclass(frozen=True)
class Filled:
    """One cell that was filled in; ``truth`` is what was hidden, None where nobody knows."""

    row: int
    column: Column
    draws: np.ndarray
    truth: float | None

    def span(self) -> tuple[float, float]:
        """The interval that nine draws in ten fall into."""
        low, high = np.quantile(self.draws, SPAN)
        return float(low), float(high)

    def covered(self) -> bool:
        """Whether the hidden value lies in the interval."""
        low, high = self.span()
        return self.truth is not None and low <= self.truth <= high


def section_holes(seen: Looked, real: Sequence[Column]) -> Html | None:
    """Imputation examples with intervals."""
    hidden, holes = filled(seen, real)
    if not hidden and not holes:
        return None
    covered = sum(one.covered() for one in hidden)
    test = (
        f"{count(len(hidden), 'observed cell')} of as many rows were hidden from the model and filled in again: "
        f"{covered} of the {len(hidden)} hidden values lie in their 90 % interval."
    )
    how = (
        f"Intervals hold nine in ten of {DRAWS} conditional draws. They take the fitted parameters as known, so they "
        "are somewhat too narrow."
    )
    marks = (("usual", "middle 90 % of the column"), ("span", "90 % interval"), ("dot sampled", "imputed value"))
    return section(
        "imputation",
        "Filling in cells",
        words(test if hidden else None, how),
        legend(*marks, *([("truth", "what was hidden")] if hidden else [])),
        _lanes("Cells that were hidden on purpose", hidden),
        _lanes("Cells that are missing in the data", holes),
        details("The numbers", _table("Hidden cells", hidden), _table("Missing cells", holes)),
    )


def filled(seen: Looked, real: Sequence[Column]) -> tuple[list[Filled], list[Filled]]:
    """Cells that were hidden and filled in, and cells that were missing and filled in."""
    numbers = [j for j, column in enumerate(real) if column.levels is None and np.unique(column.known()).size > 2]
    able = [j for j in numbers if j not in seen.held]
    if not able:
        return [], []
    known = ~np.isnan(np.stack([column.values for column in real], axis=1))
    stream = np.random.default_rng(1)
    may = known[:, able].any(axis=1) & (known.sum(axis=1) > 1)
    rows = np.flatnonzero(may)[some(int(may.sum()), HIDDEN)]
    cells = [int(stream.choice([j for j in able if known[i, j]])) for i in rows]
    with_holes = np.flatnonzero(~known[:, able].all(axis=1) & known.any(axis=1))
    with_holes = with_holes[some(len(with_holes), HOLES)]
    asked = _with_holes(take(seen.X, np.concatenate([rows, with_holes])), cells)
    drawn = [one for (one,) in (columns([table], seen.names) for table in seen.model.impute(asked, draws=DRAWS))]
    made = lambda at, j: np.array([one[j].values[at] for one in drawn])  # noqa: E731
    hidden = [
        Filled(int(seen.places[i]), real[j], made(at, j), float(real[j].values[i]))
        for at, (i, j) in enumerate(zip(rows, cells, strict=True))
    ]
    holes = [
        Filled(int(seen.places[i]), real[j], made(len(rows) + at, j), None)
        for at, i in enumerate(with_holes)
        for j in [j for j in able if not known[i, j]][:2]
    ]
    return hidden, holes


def _with_holes(table: Any, cells: Sequence[int]) -> Any:
    """A copy whose i-th row lacks the i-th of these cells."""
    if not hasattr(table, "iloc"):
        table = np.array(table, dtype=np.result_type(table, np.float32))
        table[np.arange(len(cells)), cells] = np.nan
        return table
    made = {}
    for j, name in enumerate(table.columns):
        at = np.flatnonzero(np.asarray(cells) == j)
        series = table.iloc[:, j].reset_index(drop=True)
        gone = np.isin(np.arange(len(table)), at)
        made[name] = series.mask(gone) if len(at) else series
    return type(table)(made)


def _lanes(title: str, cells: Sequence[Filled]) -> Html | None:
    return tag("div", tag("h3", title), tag("div", map(_lane, cells[:SHOWN]), class_="lanes")) if cells else None


def _lane(cell: Filled) -> Html:
    known = cell.column.known()
    low, high = np.quantile(known, [0.0, 1.0])
    x = Axis(float(low), float(high) if high > low else float(low) + 1.0)
    middle, (s0, s1) = float(np.mean(cell.draws)), cell.span()
    truth = "" if cell.truth is None else f"; hidden was {number(cell.truth, 3)}"
    told = f"{number(middle, 3)}, 90 % interval {number(s0, 3)} to {number(s1, 3)}{truth}"
    place = tag("span", short(cell.column.name, 28), tag("small", f" row {cell.row}"), class_="name")
    chart = lane(
        f"{short(cell.column.name)} of row {cell.row}: {told}.",
        x,
        np.quantile(known, SPAN).tolist(),
        (s0, s1),
        middle,
        cell.truth,
    )
    return tag("div", place, tag("span", chart, class_="track"), tag("span", number(middle, 3), class_="value"))


def _table(caption: str, cells: Sequence[Filled]) -> Html | None:
    if not cells:
        return None
    truths = cells[0].truth is not None
    rows = [
        (f"{c.row}", short(c.column.name), float(np.mean(c.draws)), *c.span(), *([c.truth] if truths else []))
        for c in cells
    ]
    heads = ("Row", "Column", "Imputed", "From", "To", *(["Hidden"] if truths else []))
    return table(caption, heads, rows)
