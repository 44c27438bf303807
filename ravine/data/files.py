"""Tables from files and back: .csv, .csv.gz, .parquet, .npy, .npz, and folders of images. Nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import gzip
import importlib
import math
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

from ravine._check import Complaint, complaint, one_line, require, shown, translated
from ravine._files import beside
from ravine.data.arrays import Names, as_table, column_names, refuse_infinite
from ravine.data.frame_files import read_csv_frame, read_parquet_frame, write_frame
from ravine.data.frames import is_mixed
from ravine.data.images import read_images
from ravine.data.text import read_csv, write_csv

FORMATS = (".csv", ".csv.gz", ".parquet", ".npy", ".npz")
MAPPED_BYTES = 2**30
_ARCHIVE = "an array x, or x_train with x_test, or a single array"

Labels = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True, eq=False)
class Table:
    """What a file holds: rows for training, perhaps rows for validation and test, and what is known of the columns.

    Attributes
    ----------
    x, valid, test : two-axis arrays of numbers, NaN where missing; ``x`` is memory-mapped when the file is large, and
        a data frame when some columns hold text or dates.
    labels : (of x, of test or None), or None.
    names : of the columns, or None.
    image_shape : (height, width[, channels]) when each row is an image, else None.
    levels : 256 for 8-bit images, else None.
    """

    x: Any
    valid: np.ndarray | None = None
    test: np.ndarray | None = None
    labels: Labels | None = None
    names: Names = None
    image_shape: tuple[int, ...] | None = None
    levels: int | None = None


def read_table(path: str | os.PathLike[str], *, limit: int = MAPPED_BYTES) -> Table:
    """Read a table from a file, or images from a folder.

    Parameters
    ----------
    path : a file whose name ends in .csv, .csv.gz, .parquet, .npy or .npz, or a folder of images of one size.
    limit : a .npy file of more bytes is memory-mapped.

    Raises
    ------
    ValueError
        In one line, for everything that can be wrong with a file: absent, damaged, not numbers, infinite, empty.

    Examples
    --------
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_table(os.path.join(folder, "rows.csv"), np.eye(2), ("a", "b"))
    ...     table = read_table(os.path.join(folder, "rows.csv"))
    >>> table.names, table.x.tolist()
    (('a', 'b'), [[1.0, 0.0], [0.0, 1.0]])
    """
    place, what = Path(path), str(path)
    with translated(what, "a path", "check the name"):
        folder, exists = place.is_dir(), place.exists()
    require(exists, what, "a file or folder that exists", "nothing there", "check the path")
    if folder:
        return _table(read_images(place), what)
    kind = _format(place)
    if kind in (".csv", ".csv.gz"):
        return _read_csv(place)
    readers = {".parquet": _read_parquet, ".npz": _read_npz}
    return readers[kind](place) if kind in readers else _read_npy(place, limit)


def _read_csv(path: Path) -> Table:
    try:
        x, names = read_csv(path)
        return _table(x, str(path), names)
    except Complaint:
        frame = read_csv_frame(path)
        if frame is None:  # nothing but numbers was meant, and the complaint says where one is wrong
            raise
        return _framed(frame)


def _framed(frame: Any) -> Table:
    return Table(frame, names=tuple(map(str, frame.columns)))


def _format(path: Path) -> str:
    name = path.name.lower()
    found = [suffix for suffix in FORMATS if name.endswith(suffix)]
    got = shown(path.suffix) if path.suffix else "no ending"
    require(found, str(path), f"a name that ends in {', '.join(FORMATS)}", got, "convert or rename it")
    return found[0]


def _table(array: np.ndarray, what: str, names: Sequence[str] | None = None, **more: Any) -> Table:
    """Check an array and describe it; images are flattened and remember their shape."""
    array = as_table(array, what)
    named = column_names(names, None, math.prod(array.shape[1:]))
    refuse_infinite(array, what, named)
    if isinstance(array, np.memmap):
        flat = array.ndim == 2 or array.flags.c_contiguous
        require(
            flat, what, "images in row-major order in so large a file", "column-major", "use numpy.ascontiguousarray"
        )
    else:
        array = _native(array)
    image_shape = array.shape[1:] if array.ndim > 2 else None
    pixels = image_shape is not None and array.dtype == np.uint8 and array.max() > 1
    flat = array.reshape(len(array), -1)
    return Table(flat, names=named, image_shape=image_shape, levels=256 if pixels else None, **more)


def _native(array: np.ndarray) -> np.ndarray:
    """The array in this machine's byte order, as an integer, float32 or float64."""
    odd = {2: np.dtype(np.float32), 12: np.dtype(np.float64), 16: np.dtype(np.float64)}
    wanted = odd.get(array.dtype.itemsize, array.dtype) if array.dtype.kind == "f" else array.dtype
    return array.astype(wanted.newbyteorder("="), copy=False)


def _read_npy(path: Path, limit: int) -> Table:
    with translated(str(path), "an array of numbers in NumPy's format", "write it with numpy.save"):
        if path.stat().st_size > limit:
            return _table(np.lib.format.open_memmap(path, mode="r"), str(path))
        with open(path, "rb") as stream:
            return _table(np.lib.format.read_array(stream, allow_pickle=False), str(path))


def _read_npz(path: Path) -> Table:
    do = "write it with numpy.savez"
    require(zipfile.is_zipfile(path), str(path), "a .npz archive", "another or a damaged file", do)
    with translated(str(path), "a .npz archive of numbers", do), np.load(path, allow_pickle=False) as archive:
        names = {name.lower(): name for name in archive.files}
        return _from_archive(
            {low: np.asarray(archive[name]) for low, name in _wanted(names, archive.files, path).items()}, path
        )


def _wanted(names: dict[str, str], listed: list[str], path: Path) -> dict[str, str]:
    """Which arrays of an archive to read, by their role: x, valid, test, y, y_test, names."""
    do = "save the table alone or call it x"
    got = one_line(f"arrays {', '.join(map(repr, listed))}" if listed else "none", 300)
    require(len(names) == len(listed), str(path), _ARCHIVE, got, do)
    if "x_train" in names and "x" not in names:
        roles = {"x": "x_train", "valid": "x_valid", "test": "x_test", "y": "y_train", "y_test": "y_test"}
    elif "x" in names and "x_train" not in names:
        roles = {"x": "x", "y": "y"}
    else:
        require(len(names) == 1, str(path), _ARCHIVE, got, do)
        roles = {"x": next(iter(names))}
    roles["names"] = "names"
    return {role: names[name] for role, name in roles.items() if name in names}


def _from_archive(parts: dict[str, np.ndarray], path: Path) -> Table:
    names = [str(name) for name in parts["names"].ravel()] if "names" in parts else None
    main = _table(parts["x"], f"{path}, x", names)
    splits = {role: _table(parts[role], f"{path}, {role}").x for role in ("valid", "test") if role in parts}
    for role, split in splits.items():
        got, want = split.shape[1], main.x.shape[1]
        require(got == want, f"{path}, {role}", f"{want} columns as in training", f"{got}", "correct it")
    labels = None
    if "y" in parts:
        tested = "test" in splits and "y_test" in parts
        other = _labels(parts["y_test"], splits["test"], f"{path}, y_test") if tested else None
        labels = (_labels(parts["y"], main.x, f"{path}, y"), other)
    return dataclasses.replace(main, labels=labels, **splits)


def _labels(y: np.ndarray, x: np.ndarray, what: str) -> np.ndarray:
    """One label a row; text becomes the place of each word in the sorted list of words."""
    good = y.ndim == 1 and y.dtype.kind in "buifUS" and len(y) == len(x)
    require(good, what, f"{len(x)} labels", f"shape {y.shape}, type {y.dtype}", "give one for each row")
    return np.unique(y, return_inverse=True)[1] if y.dtype.kind in "US" else y


def _library(name: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.split(".")[0]
        raise complaint(what, f"{package} to be installed", "none", "pip install 'ravine[data]'") from None


def _read_parquet(path: Path) -> Table:
    parquet = _library("pyarrow.parquet", str(path))
    with translated(str(path), "a parquet file of numbers, text or dates", "write it again"):
        with parquet.ParquetFile(path) as file:
            table = file.read()
        names = [n for n in table.column_names if not re.fullmatch(r"__index_level_\d+__", n)]
        require(names, str(path), "at least one column", "none", "write it again")
        require(len(set(names)) == len(names), str(path), "distinct column names", "a name twice", "rename one")
        frame = read_parquet_frame(path, table.select(names))
        if frame is not None:
            return _framed(frame)
        return _table(
            np.column_stack([_column(table[n], f"{path}, column {shown(n)}") for n in names]), str(path), names
        )


def _column(column: Any, what: str) -> np.ndarray:
    """One parquet column as numbers, with NaN for null."""
    arrow = _library("pyarrow", what)
    kind = column.type
    numeric = any(is_(kind) for is_ in (arrow.types.is_integer, arrow.types.is_floating, arrow.types.is_boolean))
    require(numeric or arrow.types.is_null(kind), what, "numbers", str(kind), "encode it as numbers")
    if arrow.types.is_null(kind):
        return np.full(len(column), np.nan)
    if arrow.types.is_boolean(kind):
        column = column.cast(arrow.uint8())
    if column.null_count and not arrow.types.is_floating(kind):
        column = column.cast(arrow.float64())
    cells = column.to_numpy()
    return as_table(cells[:, None], what)[:, 0] if len(cells) else cells


def write_table(path: str | os.PathLike[str], array: Any, names: Sequence[str] | None = None) -> None:
    """Write rows to .csv, .csv.gz, .npy, .npz (as ``x``) or .parquet; `read_table` gives the same bits back.

    The file appears whole or not at all: it is written beside and renamed.

    Parameters
    ----------
    array : (rows, columns), images, or one number a row; a data frame with text or dates has its own names, and goes
        into a .csv or .parquet file.
    names : of the columns; a .npy file has no place for them.

    Raises
    ------
    ValueError
        When the ending is unknown, the place cannot be written, or there is nothing to write.
    """
    if is_mixed(array):
        with translated(str(path), "a place that can be written", "choose another path"), beside(Path(path)) as stream:
            return write_frame(_format(Path(path)), stream, array)
    place, array = Path(path), np.asarray(array)
    table = as_table(array[:, None] if array.ndim == 1 else array, "what is to be written")
    named = column_names(names, None, math.prod(table.shape[1:]))
    kind = _format(place)
    with translated(str(path), "a place that can be written", "choose another path"), beside(place) as stream:
        _write(kind, stream, np.ascontiguousarray(table), named)


def _write(kind: str, stream: IO[bytes], array: np.ndarray, names: Names) -> None:
    if kind == ".csv":
        write_csv(stream, array, names)
    elif kind == ".csv.gz":
        with gzip.GzipFile(fileobj=stream, mode="wb", filename="", mtime=0) as packed:
            write_csv(packed, array, names)
    elif kind == ".npy":
        np.save(stream, array, allow_pickle=False)
    elif kind == ".npz":
        np.savez(stream, allow_pickle=False, x=array, **({} if names is None else {"names": np.array(names)}))
    else:
        arrow, parquet = _library("pyarrow", "parquet"), _library("pyarrow.parquet", "parquet")
        flat = array.reshape(len(array), -1)
        named = names or [f"x{j}" for j in range(flat.shape[1])]
        parquet.write_table(arrow.table([flat[:, j] for j in range(flat.shape[1])], names=list(named)), stream)
