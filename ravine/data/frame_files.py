"""Files with columns of text or dates, as data frames; files of numbers are read by `ravine.data.files` alone."""

from __future__ import annotations

import csv
import gzip
import re
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

from ravine._check import complaint, require, shown
from ravine.data.text import MISSING, is_number, lines, opened
from ravine.data.text import header as header_of

_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?")


def pandas_for(what: str) -> ModuleType:
    """Pandas, or a line that says what it is needed for."""
    try:
        import pandas
    except ImportError:
        raise complaint(what, "pandas to be installed", "none", "pip install 'ravine[data]'") from None
    return pandas


def read_csv_frame(path: Path, limit: int = 2**31) -> Any | None:
    """A data frame of a ``.csv`` or ``.csv.gz`` file, or None when it is no table with a header and text in it.

    A column is text when most of its values are, dates when all are written as 2026-01-31 or 2026-01-31T12:00, else
    numbers: a stray word among numbers is a mistake, not a column of text, and so is a file of one such column.
    """
    try:
        with opened(path) as stream:
            found = [cells for _, cells in lines(csv.reader(stream, strict=True), str(path))]
            names = header_of(found[0], str(path)) if found else None
    except Exception:  # whatever is wrong, the reader of numbers has said it better
        return None
    if names is None or len(found) < 2 or any(len(cells) != len(names) for cells in found):
        return None
    columns = [[None if c.strip() in MISSING else c.strip() for c in column] for column in zip(*found[1:], strict=True)]
    kinds = [_kind(column) for column in columns]
    if "broken" in kinds or set(kinds) == {"numbers"} or kinds == ["text"]:
        return None
    pandas = pandas_for(str(path))
    parts = zip(names, columns, kinds, strict=True)
    return pandas.DataFrame({name: _column(pandas, name, column, kind) for name, column, kind in parts})


def _kind(column: list[str | None]) -> str:
    known = [cell for cell in column if cell is not None]
    numbers = sum(map(is_number, known))
    if numbers == len(known):
        return "numbers"
    if all(map(_DATE.fullmatch, known)):
        return "dates"
    return "broken" if 2 * numbers >= len(known) else "text"


def _column(pandas: ModuleType, name: str, column: list[str | None], kind: str) -> Any:
    if kind == "text":
        return np.array(column, object)
    if kind == "numbers":
        return np.array([np.nan if cell is None else float(cell) for cell in column])
    try:
        return pandas.to_datetime(column, format="ISO8601", utc=any(cell and _zoned(cell) for cell in column))
    except ValueError:
        bad = next(cell for cell in column if cell is not None)
        raise complaint(f"column {shown(name)}", "dates", shown(bad), "write them as 2026-01-31") from None


def _zoned(cell: str) -> bool:
    return bool(re.search(r"(Z|[+-]\d\d:?\d\d)$", cell[10:]))


def read_parquet_frame(path: Path, table: Any) -> Any | None:
    """A data frame of an arrow table, or None when all of its columns are numbers."""
    from pyarrow import types

    plain = (types.is_integer, types.is_floating, types.is_boolean, types.is_null)
    if all(any(is_(kind) for is_ in plain) for kind in table.schema.types):
        return None
    held = (*plain, types.is_string, types.is_large_string, types.is_dictionary, types.is_date, types.is_timestamp)
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        good = any(is_(kind) for is_ in held)
        do = "convert it to numbers, text or dates"
        require(good, f"{path}, column {shown(name)}", "numbers, text, categories or dates", str(kind), do)
    pandas = pandas_for(str(path))
    frame = table.to_pandas(ignore_metadata=False, date_as_object=False)
    return frame.reset_index(drop=True) if isinstance(frame, pandas.DataFrame) else None


def write_frame(kind: str, stream: IO[bytes], frame: Any) -> None:
    """Write a data frame as ``.csv``, ``.csv.gz`` or ``.parquet``.

    Raises
    ------
    ValueError
        For a format of numbers alone.
    """
    fits = kind in (".csv", ".csv.gz", ".parquet")
    require(fits, "--out", "a .csv or .parquet file for columns of text and dates", kind, "rename it")
    if kind == ".parquet":
        frame.to_parquet(stream, index=False)
    elif kind == ".csv":
        stream.write(frame.to_csv(index=False, lineterminator="\n").encode())
    else:
        with gzip.GzipFile(fileobj=stream, mode="wb", filename="", mtime=0) as packed:
            packed.write(frame.to_csv(index=False, lineterminator="\n").encode())
