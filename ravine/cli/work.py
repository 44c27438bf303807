"""What the commands do, between the shell's words and the estimator's verbs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ravine.data import Dataset, load_dataset, write_table
from ravine.estimator import Evaluation, LatentVariableModel
from ravine.registry import made, reading

SPELLED = ("kind", "levels", "binarise", "threshold", "dequantise")


def fit_data(
    recipe: str,
    data: str,
    settings: list[str],
    out: Path | None,
    seed: int,
    test_size: float,
    resume: bool,
    as_json: bool,
) -> int:
    """Fit, evaluate on rows that were not seen, save, print; 130 when interrupted."""
    given = dict(_setting(text) for text in settings)
    dataset = load_dataset(data)
    train, test = split(dataset, test_size, seed)
    model = made(recipe, reading(recipe, dataset.hints) | given, random_state=seed)
    if resume and out is None:
        raise ValueError("--resume goes on from a folder: expected --out DIR, got none; name the folder of the run.")
    model.fit(shaped(train, dataset), held_out=dataset.valid, folder=out, resume=resume)
    got = {} if test is None else evaluation(model.evaluate(test))
    if out is not None:
        numbers = {"data": dataset.name, "checksum": dataset.checksum, "seconds": round(model.seconds_, 1)}
        model.save(out, numbers | ({"test": got} if got else {}))
    report = {"recipe": recipe, "data": dataset.name, "out": str(out) if out else None, **got}
    print(json.dumps(report) if as_json else _words(report, model))
    return 0 if model.complete_ else 130


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"--set expects name=value, got {text!r}; for example --set latents=20.")
    return name, value


def split(dataset: Dataset, test_size: float, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The set's own split where it has one; else a share of the rows, drawn by the seed, is kept for the test."""
    if not 0 <= test_size < 1:
        raise ValueError(f"--test-size must be at least 0 and below 1, got {test_size}.")
    rows = len(dataset.train)
    count = int(round(rows * test_size))
    if dataset.test is not None or count == 0:
        return dataset.train, dataset.test
    order = np.random.default_rng(seed).permutation(rows)
    return dataset.train[np.sort(order[count:])], dataset.train[np.sort(order[:count])]


def shaped(table: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Images as images, so that the model knows their shape."""
    shape = dataset.hints.get("image_shape")
    return table if shape is None or isinstance(table, np.memmap) else table.reshape(len(table), *shape)


def rows_of(data: str, folder: Path) -> np.ndarray:
    """The rows a command is asked about: the test rows of a built-in set that has any, else all of them."""
    dataset = load_dataset(data)
    return dataset.train if dataset.test is None else dataset.test


def evaluation(got: Evaluation) -> dict[str, Any]:
    """An evaluation as the JSON object of `ravine score`."""
    return {
        "log_likelihood": got.log_likelihood,
        "standard_error": got.standard_error,
        "rows": got.rows,
        "bits_per_dim": got.bits_per_dim,
        "bound": got.direction,
        "method": got.method,
        "measure": got.measure,
        "treated": got.treated,
        "seed": got.seed,
        "words": str(got),
    }


def write(out: Path, table: np.ndarray, model: LatentVariableModel, names: list[str] | None = None) -> None:
    """Write a table with its column names and say so."""
    if names is None and hasattr(model, "feature_names_in_"):
        names = [str(name) for name in model.feature_names_in_]
    write_table(out, np.asarray(table), names)
    print(f"{out}: {table.shape[0]} rows, {table.shape[1]} columns")


def _words(report: dict[str, Any], model: LatentVariableModel) -> str:
    lines = [f"{report['recipe']} fitted to {report['data']} in {model.seconds_:.0f} s"]
    if not model.complete_:
        lines[0] += " (interrupted)"
    if "words" in report:
        lines.append(f"test rows: {report['words']}")
    return "\n".join([*lines, *([f"kept in {report['out']}"] if report["out"] else [])])
