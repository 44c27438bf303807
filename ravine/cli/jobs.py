"""The commands that find odd rows and that make up new ones."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ravine._check import require

Json = Annotated[bool, Parameter(name="--json", negative=())]
Out = Annotated[Path | None, Parameter(show_default=False)]


def anomalies(
    folder: Path, data: str | None = None, /, *, top: int = 20, out: Out = None, as_json: Json = False
) -> None:
    """Rank rows by how unlikely they are under a fitted model, and say which cells are to blame.

    Parameters
    ----------
    folder
        A folder written by `ravine fit --out`.
    data
        Rows to rank, name or path; those in the record of the folder unless given, the rows it was fitted on included.
    top
        How many rows are listed.
    out
        File for the listed rows: .csv or .parquet.
    as_json
        Print one JSON object.
    """
    from ravine.anomalies import anomalies as search
    from ravine.cli.work import opened, rows_of
    from ravine.data import write_table

    model = opened(folder, out)
    found = search(model, rows_of(data or _recorded(folder, "anomalies"), model), top)
    if out is not None:
        write_table(out, found.frame().reset_index())
    print(json.dumps(found.to_json()) if as_json else found)


def synthesize(
    folder: Path,
    data: str | None = None,
    /,
    *,
    out: Path,
    rows: int | None = None,
    seed: int = 0,
    holes: Annotated[bool, Parameter(negative=())] = False,
    as_json: Json = False,
) -> None:
    """Write a table of new rows, and say how well they stand for the real ones and what they give away.

    Parameters
    ----------
    folder
        A folder written by `ravine fit --out`.
    data
        The data it was fitted on, name or path; those in the record of the folder unless given. The rows that were
        kept for the test are found again: without any, privacy cannot be judged.
    out
        File to write: .csv, .npy, .npz or .parquet.
    rows
        How many new rows; as many as the fit had unless given.
    seed
        Fixes the new rows.
    holes
        Leave cells missing as they are in the data.
    as_json
        Print one JSON object.
    """
    from ravine.cli.diagnosis import divided
    from ravine.cli.work import opened, write
    from ravine.data import load_dataset
    from ravine.synthesis import synthesize as make

    model = opened(folder, out)
    train, held_out = divided(load_dataset(data or _recorded(folder, "synthesize")), model)
    made = make(model, train, rows, held_out=held_out, holes=holes, random_state=seed)
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):  # standard output is JSON alone
        write(out, made.table, model)
    print(json.dumps(made.to_json()) if as_json else made)


def _recorded(folder: Path, command: str) -> str:
    """The data that the folder says it was fitted on."""
    from ravine.checkpoint import load_record

    name = load_record(folder).get("numbers", {}).get("data")
    require(name, f"{folder}", "a record that names the data", "none", f"name them: ravine {command} DIR DATA")
    return str(name)
