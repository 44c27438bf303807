"""The command that says what went wrong with a fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ravine._check import require, shown

ATTACKED = 500  # rows

if TYPE_CHECKING:
    from ravine.data import Dataset
    from ravine.estimator import LatentVariableModel


def diagnose(
    folder: Path,
    data: str | None = None,
    /,
    *,
    gradients: Annotated[bool, Parameter(negative=())] = False,
    robustness: Annotated[bool, Parameter(negative=())] = False,
    plot: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Say in words what is right and wrong with a fit, and what to try.

    Parameters
    ----------
    folder
        A folder written by `ravine fit --out`.
    data
        The data it was fitted on, name or path; those in the record of the folder unless given. The rows that were
        kept for the test are found again.
    gradients
        Compare the gradient estimators that can serve the model instead: bias, noise, time and memory of each.
    robustness
        Move rows by a little until a classifier is wrong about them, instead: its accuracy for every size of the moves,
        as a share of the range of each column.
    plot
        With --gradients or --robustness, draw what was found into this file.
    as_json
        Print one JSON object.
    """
    from ravine import gradient_table
    from ravine.checkpoint import load_record
    from ravine.cli.work import either, opened
    from ravine.data import load_dataset

    model: Any = either(folder) if robustness else opened(folder)
    name = data or load_record(folder).get("numbers", {}).get("data")
    require(name, f"{folder}", "a record that names the data", "none", "name them: ravine diagnose DIR DATA")
    asked = gradients + robustness
    require(asked or plot is None, "--plot", "--gradients or --robustness beside it", "none", "add one of them")
    require(asked < 2, "what to look at", "--gradients or --robustness", "both", "ask for one at a time")
    found: Any
    if robustness:
        found = _robustness(model, load_dataset(name))
    else:
        train, held_out = divided(load_dataset(name), model)
        found = gradient_table(model, train) if gradients else model.diagnose(train, held_out)
    if plot is not None:
        found.plot(plot)
    print(json.dumps(found.to_json()) if as_json else found)


def _robustness(model: Any, dataset: Dataset) -> Any:
    """Of the rows that the fit kept for its test, or of all; without labels the model is held to its own word."""
    import numpy as np

    from ravine.cli.work import label_of, shaped
    from ravine.data.frames import taken
    from ravine.diagnose import cell_range, robust_accuracy
    from ravine.diagnose.outputs import classes_of
    from ravine.labels import members

    classes, label = classes_of(model), label_of(model)
    train, held_out = _parts(dataset, model)
    part = train if held_out is None else held_out
    if label is not None:
        part = taken(part, np.flatnonzero(members(classes, part[label]).any(axis=1))[:ATTACKED])
    rows = shaped(part, dataset, label)[:ATTACKED]
    lows, highs = zip(*(cell_range(model, X) for X in (shaped(train, dataset, label), rows)), strict=True)
    low, high = np.minimum(*lows), np.maximum(*highs)
    y = model.predict(rows) if label is None else part[label]
    scale = np.where(high > low, high - low, 1.0)
    return robust_accuracy(model, rows, y, bounds=(low, high), scale=scale)


def divided(dataset: Dataset, model: LatentVariableModel) -> tuple[Any, Any]:
    """The rows a model was fitted on, and those it was not; the latter None when it was fitted on all.

    Raises
    ------
    ValueError
        When the data have fewer rows than the model was fitted on, or their test rows cannot be told from the others.
    """
    from ravine.cli.work import label_of, shaped

    train, held_out = _parts(dataset, model)
    label = label_of(model)
    return shaped(train, dataset, label), None if held_out is None else shaped(held_out, dataset, label)


def _parts(dataset: Dataset, model: Any) -> tuple[Any, Any]:
    """The same as they came, with the column of labels."""
    from ravine.cli.work import SEEDS, split

    rows, fitted_on, seed = len(dataset.train), model.schema_.rows, model.random_state
    do = "give the data it was fitted on"
    require(rows >= fitted_on, f"the data {dataset.name}", f"at least {fitted_on} rows", f"{rows}", do)
    known = rows == fitted_on or (dataset.test is None and isinstance(seed, int) and 0 <= seed < SEEDS)
    require(known, "random_state", "the seed that divided the rows", shown(seed), do)
    return split(dataset, (rows - fitted_on) / rows, seed)
