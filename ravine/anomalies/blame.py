"""Which cells of a row are to blame: each is hidden in turn, and what the model expects there is put in its place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ravine.anomalies.cells import CELLS, Cells, Part, fillings, log_p

DRAWS = 4  # conditional draws that are tried beside the imputation
SEARCHED = 3  # groups of columns that are looked at one by one


class Judged(NamedTuple):
    """Parts of rows, one hidden at a time.

    Attributes
    ----------
    row, part : which row and which part.
    log_p : log p(part | the other observed cells), nats.
    nats : how much log p(row) rises with the expected value put in.
    error : Monte Carlo standard error of ``nats``.
    expected : cells of the row with that value put in.
    """

    row: Int[np.ndarray, " m"]
    part: Int[np.ndarray, " m"]
    log_p: Float[np.ndarray, " m"]
    nats: Float[np.ndarray, " m"]
    error: Float[np.ndarray, " m"]
    expected: Float[np.ndarray, "m d"]


def judged(model: Any, cells: Cells, parts: Sequence[Part]) -> Judged:
    """Every observed part of every row, or, where there are many columns, those in the groups that are worst."""
    if model.schema_.image_shape is not None or len(parts) <= CELLS:
        return _judged(model, cells, parts, np.ones((len(cells.x), len(parts)), bool))
    size = math.isqrt(len(parts) - 1) + 1
    groups = [_joined(parts[i : i + size]) for i in range(0, len(parts), size)]
    coarse = _judged(model, cells, groups, np.ones((len(cells.x), len(groups)), bool))
    worth = np.full((len(cells.x), len(groups)), -np.inf)
    worth[coarse.row, coarse.part] = coarse.nats
    worst = np.argsort(-worth, axis=1, kind="stable")[:, :SEARCHED]
    chosen = np.zeros(worth.shape, bool)
    np.put_along_axis(chosen, worst, True, axis=1)
    return _judged(model, cells, parts, np.repeat(chosen, size, axis=1)[:, : len(parts)])


def _joined(parts: Sequence[Part]) -> Part:
    columns, cells = (tuple(i for part in parts for i in getattr(part, name)) for name in ("columns", "cells"))
    return Part(f"{parts[0].name} to {parts[-1].name}", columns, cells)


def _judged(model: Any, cells: Cells, parts: Sequence[Part], chosen: Bool[np.ndarray, "n p"]) -> Judged:
    inside = np.zeros((len(parts), cells.x.shape[1]), bool)
    for i, part in enumerate(parts):
        inside[i, list(part.cells)] = True
    row, part = np.nonzero(chosen & ((cells.seen.astype(int) @ inside.T.astype(int)) > 0))
    whole, gone = cells.at(row), inside[part] & cells.seen[row]
    left = whole.without(gone)
    known, known_error = (each[row] for each in log_p(model, cells))
    rest, _ = log_p(model, left)
    # a mean may lie where nothing ever is, between two classes: a draw that is likelier takes its place
    draws = DRAWS if model.schema_.image_shape is None else 0
    tries = [np.where(gone, made, whole.x) for made in fillings(model, left, draws)]
    scored = [log_p(model, Cells(made, whole.seen)) for made in tries]
    value, error, made = (np.stack(each) for each in (*zip(*scored, strict=True), tries))
    best = np.argmax(value, axis=0), np.arange(len(row))
    both = np.hypot(error[best], known_error)
    return Judged(row, part, known - rest, value[best] - known, both, made[best])
