"""Files that are never half written, and JSON that is read with suspicion."""

from __future__ import annotations

import contextlib
import glob
import json
import math
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

from ravine._check import complaint, shown

LARGEST_TEXT = 2**25  # bytes; a record or a header that is longer is no file of ours
LONGEST_INTEGER = 20  # digits and sign; enough for 64 bits
ABANDONED = 3600.0  # seconds after which an unfinished file belongs to a process that was killed


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write beside, flush to the disk, rename: whoever reads sees the old file or the new one, never half of one.

    Raises
    ------
    ValueError
        When the folder cannot be written or the disk is full; the old file is then untouched.
    """
    path = Path(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as file:
            file.write(data)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[IO[bytes]]:
    """A file next to ``path`` that takes its place when the body ends well, and vanishes when it does not."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    _remove_abandoned(path)
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _flush_folder(path.parent)


def rename(source: Path, target: Path) -> None:
    """Put ``source`` in the place of ``target``, at once and for good."""
    with _writing(target):
        os.replace(source, target)
        _flush_folder(target.parent)


def write_json(path: str | os.PathLike[str], obj: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, beside and renamed. Arrays become lists; NaN and infinities, which JSON lacks, null.

    Raises
    ------
    ValueError
        When a value is no text, number, truth value, None, list, mapping or array, or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json(f"{folder}/a.json", {"nats": -1.5, "shape": (2, 3)})
    ...     read_json(f"{folder}/a.json")
    {'nats': -1.5, 'shape': [2, 3]}
    """
    write_bytes(path, (json_text(obj, indent=2) + "\n").encode("utf-8", "backslashreplace"))


def json_text(obj: Mapping[str, Any], indent: int | None = None) -> str:
    """Strict JSON of a mapping: for people when indented, else for programs, in ASCII and with sorted keys."""
    try:
        for_programs = indent is None
        plain = _plain(obj, "")
        return json.dumps(plain, ensure_ascii=for_programs, allow_nan=False, indent=indent, sort_keys=for_programs)
    except RecursionError:
        raise complaint("this record", "a few levels", "one that is too deep or holds itself", "flatten it") from None


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises
    ------
    ValueError
        One line that names the file: not there, not a file, too large, not JSON, damaged, keys twice, nested too
        deeply, numbers that are not finite or have more than 20 digits.
    """
    with reading(path) as file:
        data = file.read(LARGEST_TEXT + 1)
    try:
        return parse_json(data)
    except ValueError as error:
        raise complaint(os.fspath(path), "one JSON object", f"damage ({error})", "restore it from a copy") from None


def parse_json(data: bytes) -> dict[str, Any]:
    """One JSON object, strictly; a ValueError says in a few words what is wrong with it."""
    if len(data) > LARGEST_TEXT:
        raise ValueError(f"longer than {LARGEST_TEXT >> 20} MiB")
    try:
        value = json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=_unique,
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_integer,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__} instead of an object")
    return value


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """The file, open; what the system objects to is a ValueError of one line."""
    path = Path(path)
    try:
        if not os.path.isfile(path):  # asked first: opening a pipe would wait for ever
            raise complaint(str(path), "a file", _what(path), "check the path")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise complaint(str(path), "a file one can read", str(error.strerror or error), "check the path") from error


def _what(path: Path) -> str:
    if os.path.isdir(path):
        return "a folder"
    return "a pipe or device" if os.path.exists(path) else "nothing there"


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = str(error.strerror or error)
        raise complaint(str(path), "a place to write", why, "choose another folder or make room") from error


def _remove_abandoned(path: Path) -> None:
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > ABANDONED:
                partial.unlink()


def _flush_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system lets one flush a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _plain(value: Any, where: str) -> Any:
    """The value in the types that JSON has."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return int(value)
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {str(name): _plain(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if (tolist := getattr(value, "tolist", None)) is not None:
        return _plain(tolist(), where)
    what = f"the record's entry {shown(where.lstrip('.'))}"
    raise complaint(what, "text, numbers, lists or mappings by name", type(value).__name__, "convert it")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shown(twice)} twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{shown(text)}, which is no finite number")
    return number


def _integer(text: str) -> int:
    if len(text) > LONGEST_INTEGER:
        raise ValueError(f"a whole number has {len(text)} digits")
    return int(text)
