"""The folder of a run: a model, the record of how to build it again, and the newest checkpoint.

Each file is written beside and renamed: after a crash at any moment a folder holds the previous save or the new one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from ravine._check import complaint
from ravine._files import json_text, parse_json, read_json, rename, write_json
from ravine.checkpoint.arrays import RESTORE, Where, check_version, damaged, load_arrays, load_metadata, save_arrays

MODEL, RECIPE, CHECKPOINT = "model.safetensors", "recipe.json", "checkpoint/state.safetensors"
RECORD_VERSION = 1

_NEXT_RECIPE = ".recipe.json.next"
_NEEDED = {"ravine": str, "recipe": str, "fields": dict, "schema": dict}
_KINDS = _NEEDED | dict.fromkeys(("fitted", "versions", "data", "numbers"), dict)


def save_run(folder: Where, state: PyTree, record: Mapping[str, Any]) -> None:
    """Write ``model.safetensors`` and ``recipe.json``; after a crash the folder holds the old pair or the new one.

    Parameters
    ----------
    folder : made if it is not there.
    state : the arrays to keep, usually the fitted model.
    record : "ravine" (version), "recipe" (registry name), "fields" (name to text in the literal grammar), "schema";
        perhaps "fitted", "versions", "data", "numbers" and more. The model file is tied to all of it but "numbers",
        which may be edited later.

    Raises
    ------
    ValueError
        When the record is incomplete or cannot be written as JSON, or the folder cannot be written.
    """
    folder, record = Path(folder), {"format": RECORD_VERSION, **record}
    record = _checked_record(folder / RECIPE, parse_json(json_text(record).encode()))
    # the model decides: whichever of the two records its tie names is the one that counts
    write_json(folder / _NEXT_RECIPE, record)
    save_arrays(folder / MODEL, state, {"tie": _tie(record)})
    rename(folder / _NEXT_RECIPE, folder / RECIPE)


def load_record(folder: Where) -> dict[str, Any]:
    """``recipe.json`` of a run folder, checked for format, types and, where there is a model, for belonging to it.

    Raises
    ------
    ValueError
        One line: no run folder, a damaged file, a newer format, or files of two different runs.
    """
    folder = Path(folder)
    tie = load_metadata(folder / MODEL).get("tie") if os.path.exists(folder / MODEL) else None
    names = (RECIPE,) if tie is None else (RECIPE, _NEXT_RECIPE)
    paths = [folder / name for name in names if os.path.exists(folder / name)]
    if not paths:
        raise complaint(os.fspath(folder), f"a folder with {RECIPE}", "none", "check the path, or fit and save first")
    for path in paths:
        record = _checked_record(path, read_json(path))
        if tie is None or tie == _tie(record):
            return record
    raise complaint(os.fspath(folder), f"{RECIPE} and {MODEL} of one run", "two that do not belong together", RESTORE)


def load_run(folder: Where, like: PyTree) -> PyTree:
    """The arrays that `save_run` wrote, in the tree ``like``; see `load_arrays`."""
    return load_arrays(Path(folder) / MODEL, like)


def save_checkpoint(folder: Where, state: PyTree, record: Mapping[str, Any]) -> None:
    """Replace the checkpoint of a run by this state, record included, in one rename."""
    save_arrays(Path(folder) / CHECKPOINT, state, record)


def load_checkpoint(folder: Where, like: PyTree) -> PyTree:
    """The newest complete state of a run; see `load_arrays`."""
    return load_arrays(Path(folder) / CHECKPOINT, like)


def checkpoint_record(folder: Where) -> dict[str, Any] | None:
    """The record of the newest complete checkpoint of a run; None when there is none yet."""
    path = Path(folder) / CHECKPOINT
    return load_metadata(path) if os.path.exists(path) else None


def _checked_record(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    check_version(path, record.get("format"), RECORD_VERSION)
    for name, kind in _KINDS.items():
        if name in _NEEDED and name not in record:
            raise damaged(path, f"{name!r} is missing")
        if not isinstance(record.get(name, kind()), kind):
            raise damaged(path, f"{name!r} must be a {kind.__name__}, got a {type(record[name]).__name__}")
    if not all(isinstance(text, str) for text in record["fields"].values()):
        raise damaged(path, "every field must be text")
    return record


def _tie(record: Mapping[str, Any]) -> str:
    kept = {name: value for name, value in record.items() if name != "numbers"}
    return hashlib.sha256(json_text(kept).encode()).hexdigest()
