"""What is told of odd rows: a sentence, a line for each row, a data frame, JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ravine._check import complaint, one_line
from ravine.core import Direction

LISTED = 5  # rows in words
CELLS = 3  # of a row
WORTH = 3.0  # nats that make a cell after the first worth a word

Value = float | str
DIRECTIONS = {"lower": "a lower bound", "upper": "an upper bound", "exact": "exact", "estimate": "an estimate"}


@dataclass(frozen=True)
class OddCell:
    """A cell of an odd row, or a patch of an image.

    Attributes
    ----------
    name : of the column, or where the patch is; lines and columns of an image are counted from 0.
    value, expected : what is there, and what the model expects given all other cells; means over a patch.
    nats : how much log p(row) would rise with the expected value there.
    error : Monte Carlo standard error of ``nats``; 0 when exact.
    log_p : log p(cell | the other observed cells), in nats.
    """

    name: str
    value: Value
    expected: Value
    nats: float
    error: float
    log_p: float

    def __str__(self) -> str:
        return f"{self.name} = {_short(self.value)} where {_short(self.expected)} is expected ({self.nats:.1f} nats)"


@dataclass(frozen=True)
class OddRow:
    """A row that is listed.

    Attributes
    ----------
    rank : 1 for the oddest.
    place : where it is in the table, from 0.
    label : its index in a data frame; the place elsewhere.
    log_p, error : log p(row) in nats and its Monte Carlo standard error.
    tail : share of the model's own rows that are at most as likely.
    cells : all that were looked at, the worst first.
    """

    rank: int
    place: int
    label: Any
    log_p: float
    error: float
    tail: float
    cells: tuple[OddCell, ...]

    def __str__(self) -> str:
        told = [cell for i, cell in enumerate(self.cells[:CELLS]) if i == 0 or cell.nats >= WORTH]
        why = "; ".join(map(str, told)) or f"log p = {self.log_p:.1f} nats"
        return one_line(f"row {self.label} (1 in {_odds(self.tail)}): {why}")


@dataclass(frozen=True)
class Anomalies:
    """Rows in the order of how unlikely they are. Printed, it is the words.

    Attributes
    ----------
    odd : the rows that are listed, the oddest first.
    log_p : log p of every row, in nats, in the order of the table; see ``direction``.
    tail : of every row, the share of ``draws`` rows of the model that are at most as likely on the same cells.
    order : the places of all rows, the oddest first.
    nats : of each listed row, how much log p would rise with the expected value in a cell: (listed, columns), or
        (listed, height, width) for images, where the cells of a patch share its number; NaN where a cell is missing or
        was not looked at. None when no cell was.
    draws : rows drawn from the model.
    direction, method : what kind of number ``log_p`` is.
    """

    odd: tuple[OddRow, ...]
    log_p: Float[np.ndarray, " n"]
    tail: Float[np.ndarray, " n"]
    order: Int[np.ndarray, " n"]
    nats: Float[np.ndarray, "k ..."] | None
    draws: int
    direction: Direction
    method: str

    def count(self) -> int:
        """Rows as unlikely as can be told: no more likely than the least likely of the model's own rows."""
        return int(np.count_nonzero(self.tail <= 1.0000001 / (self.draws + 1)))

    def words(self) -> str:
        """The finding in one sentence, and what kind of number it rests on."""
        rows, count = len(self.tail), self.count()
        verb = "row is" if count == 1 else "rows are"
        chance = rows / (self.draws + 1)
        told = f"{count:,} of {rows:,} {verb} less likely than 1 in {self.draws + 1:,} rows drawn from the model"
        kind = f"log p is {DIRECTIONS[self.direction]} ({self.method})"
        return f"{told}; {chance:.2g} would be by chance if the model were right. {kind}."

    def __str__(self) -> str:
        more = len(self.odd) - LISTED
        last = [f"and {more} more rows in this order"] if more > 0 else []
        return "\n".join([self.words(), *map(str, self.odd[:LISTED]), *last])

    def frame(self) -> Any:
        """The listed rows as a data frame: rank, place, log p, tail probability, the three worst cells.

        Its index is that of the table. Values are text where some are no numbers.

        Raises
        ------
        ValueError
            When pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise complaint("a data frame", "pandas to be installed", "none", "pip install 'ravine[data]'") from None
        lines = [dict(_line(row)) for row in self.odd]
        frame = pandas.DataFrame(lines, index=pandas.Index([row.label for row in self.odd], name="row"))
        for name in frame.columns:
            if name.startswith(("value", "expected")) and any(isinstance(v, str) for v in frame[name]):
                frame[name] = frame[name].map(_text)
        return frame

    def to_json(self) -> dict[str, Any]:
        """Plain lists, text and numbers; None stands for a number that is not finite."""
        return {
            "words": self.words(),
            "rows": len(self.tail),
            "odd_rows": self.count(),
            "draws": self.draws,
            "bound": self.direction,
            "method": self.method,
            "odd": [_json(row) for row in self.odd],
        }


def _line(row: OddRow) -> Iterator[tuple[str, Any]]:
    yield from {"rank": row.rank, "place": row.place, "log_p": row.log_p, "tail": row.tail}.items()
    for i, cell in enumerate(row.cells[:CELLS], start=1):
        yield f"cell_{i}", cell.name
        yield f"value_{i}", cell.value
        yield f"expected_{i}", cell.expected
        yield f"nats_{i}", cell.nats


def _json(row: OddRow) -> dict[str, Any]:
    label = row.label if isinstance(row.label, (int, str)) else str(row.label)
    cells = [
        {"name": cell.name, "value": _plain(cell.value), "expected": _plain(cell.expected)}
        | {name: _plain(getattr(cell, name)) for name in ("nats", "error", "log_p")}
        for cell in row.cells
    ]
    numbers = {"log_likelihood": _plain(row.log_p), "standard_error": _plain(row.error), "tail": row.tail}
    return {"rank": row.rank, "place": row.place, "row": label, **numbers, "cells": cells}


def _plain(value: Value) -> Value | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _odds(tail: float) -> str:
    return f"{1 / tail:.2g}" if tail > 0.1 else f"{round(1 / tail):,}"


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def _text(value: Any) -> Any:
    return f"{value:.10g}" if isinstance(value, float) and not math.isnan(value) else value
