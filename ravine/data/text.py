"""Comma-separated text: read strictly, so that a slip in a file is named by its line instead of becoming a number."""

from __future__ import annotations

import array as buffers
import csv
import gzip
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ravine._check import Complaint, complaint, require, shown, translated
from ravine.data.arrays import Names, blocks

MISSING = frozenset({"", "NA", "NaN", "nan", "?"})
_ADVICE = "separate values with commas, leave a missing value empty, encode text as numbers"


def read_csv(path: Path) -> tuple[np.ndarray, Names]:
    """Numbers and column names of a ``.csv`` or ``.csv.gz`` file in UTF-8.

    Empty, ``NA``, ``NaN``, ``nan`` and ``?`` are missing. The first line is a header when it holds text and no number
    with a decimal point; without text it is data.

    Raises
    ------
    ValueError
        Naming the line: a line with more or fewer values than the first, text among the numbers, an infinite
        number, an integer float64 cannot hold; or no line of numbers at all.
    """
    with translated(str(path), "comma-separated text in UTF-8", "export the table again"):
        with opened(path) as stream:
            return _parsed(csv.reader(stream, strict=True), str(path))


def opened(path: Path) -> io.TextIOWrapper:
    """The text of a file, unpacked where it is packed."""
    stream = gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb")
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def _parsed(reader: Iterator[list[str]], where: str) -> tuple[np.ndarray, Names]:
    found = lines(reader, where)
    try:
        number, cells = next(found)
    except StopIteration:
        raise complaint(where, "lines of numbers", "an empty file", "check how it was written") from None
    names = header(cells, f"{where}, line {number}")
    data, width = buffers.array("d"), len(cells)
    if names is None:
        data.extend(_values(cells, names, f"{where}, line {number}"))
    for number, cells in found:
        line = f"{where}, line {number}"
        require(len(cells) == width, line, f"{width} values", f"{len(cells)}", "give every line as many as the first")
        data.extend(_values(cells, names, line))
    require(data, where, "at least one line of numbers", "only a header", "check how it was written")
    return np.frombuffer(data).reshape(-1, width), names


def lines(reader: Iterator[list[str]], where: str) -> Iterator[tuple[int, list[str]]]:
    """Lines with their numbers; empty ones are allowed at the end of the file only."""
    empty = 0
    for cells in reader:
        number = reader.line_num  # pyright: ignore[reportAttributeAccessIssue]
        if cells:
            require(not empty, f"{where}, line {empty}", "numbers", "an empty line", "remove it")
            yield number, cells
        else:
            empty = empty or number


def header(cells: Iterable[str], line: str) -> Names:
    """The names in a first line, or None when it holds numbers.

    Examples
    --------
    >>> header(["age", " height"], "line 1"), header(["1.5", "NA"], "line 1")
    (('age', 'height'), None)
    """
    names = tuple(cell.strip() for cell in cells)
    text = [name for name in names if name not in MISSING and not is_number(name)]
    if not text:
        return None
    decimal = any(is_number(name) and name not in MISSING and not name.isdigit() for name in names)
    require(not decimal, line, "either names or numbers", f"{shown(text[0])} beside numbers", _ADVICE)
    unnamed = names.index("") + 1 if "" in names else 0
    require(not unnamed, line, "a name for every column", f"none for column {unnamed}", "name it, or drop an index")
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    require(twice is None, line, "distinct names", f"{shown(twice)} twice", "rename one")
    return names


def is_number(cell: str) -> bool:
    """Whether a cell is a number; Python would read 1_000 as one."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _values(cells: list[str], names: Names, line: str) -> list[float]:
    values = _quick(cells)
    if values is None:
        values = [_value(cell, j, names, line) for j, cell in enumerate(cells)]
    if float("inf") in values or float("-inf") in values:
        j = next(j for j, value in enumerate(values) if value in (float("inf"), float("-inf")))
        raise complaint(_place(line, j, names), "a finite number", shown(cells[j]), "leave it empty if it is missing")
    if max(map(len, cells)) > 15:
        _refuse_rounded(cells, values, names, line)
    return values


def _quick(cells: list[str]) -> list[float] | None:
    """All cells as numbers, or None when one needs a closer look. Python would read 1_000 as a number."""
    try:
        return None if "_" in "".join(cells) else list(map(float, cells))
    except ValueError:
        return None


def _value(cell: str, column: int, names: Names, line: str) -> float:
    if cell.strip() in MISSING:
        return float("nan")
    require(is_number(cell), _place(line, column, names), "a number", shown(cell), _ADVICE)
    return float(cell)


def _refuse_rounded(cells: list[str], values: list[float], names: Names, line: str) -> None:
    for j, cell in enumerate(cells):
        digits = cell.strip().lstrip("+-")
        if digits.isascii() and digits.isdigit() and int(digits) != abs(values[j]):
            got = shown(cell, 30)
            raise complaint(_place(line, j, names), "an integer float64 can hold", got, "drop or rescale the column")


def _place(line: str, column: int, names: Names) -> str:
    return f"{line}, column {shown(names[column]) if names else column + 1}"


def write_csv(stream: Any, array: np.ndarray, names: Names) -> None:
    """Write a table as comma-separated text that `read_csv` gives back to the bit, as float64."""
    if names is not None:
        _check_header(names)
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    if names is not None:
        writer.writerow(names)
    for _, block in blocks(array):
        writer.writerows(block.astype(np.float64).tolist() if block.dtype.kind == "f" else block.tolist())
    text.flush()
    text.detach()


def _check_header(names: tuple[str, ...]) -> None:
    try:
        read_back = header(names, "names")
    except Complaint:
        read_back = None
    do = "rename the columns, or write another format"
    require(read_back == names, "names", "names a header can hold", shown(names), do)
