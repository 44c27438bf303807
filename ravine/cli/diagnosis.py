"""The command that says what went wrong with a fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ravine._check import require, shown

if TYPE_CHECKING:
    from ravine.data import Dataset
    from ravine.estimator import LatentVariableModel


def diagnose(
    folder: Path,
    data: str | None = None,
    /,
    *,
    gradients: Annotated[bool, Parameter(negative=())] = False,
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
    plot
        With --gradients, draw the comparison into this file.
    as_json
        Print one JSON object.
    """
    from ravine.checkpoint import load_record
    from ravine.cli.work import opened
    from ravine.data import load_dataset

    model = opened(folder)
    name = data or load_record(folder).get("numbers", {}).get("data")
    require(name, f"{folder}", "a record that names the data", "none", "name them: ravine diagnose DIR DATA")
    require(gradients or plot is None, "--plot", "--gradients beside it", "none", "add --gradients")
    train, held_out = divided(load_dataset(name), model)
    found = _estimators(model, train, plot) if gradients else model.diagnose(train, held_out)
    print(json.dumps(found.to_json()) if as_json else found)


def _estimators(model: LatentVariableModel, rows: Any, plot: Path | None) -> Any:
    from ravine import gradient_table

    found = gradient_table(model, rows)
    if plot is not None:
        found.plot(plot)
    return found


def divided(dataset: Dataset, model: LatentVariableModel) -> tuple[Any, Any]:
    """The rows a model was fitted on, and those it was not; the latter None when it was fitted on all.

    Raises
    ------
    ValueError
        When the data have fewer rows than the model was fitted on, or their test rows cannot be told from the others.
    """
    from ravine.cli.work import SEEDS, label_of, shaped, split

    rows, fitted_on, seed = len(dataset.train), model.schema_.rows, model.random_state
    do = "give the data it was fitted on"
    require(rows >= fitted_on, f"the data {dataset.name}", f"at least {fitted_on} rows", f"{rows}", do)
    known = rows == fitted_on or (dataset.test is None and isinstance(seed, int) and 0 <= seed < SEEDS)
    require(known, "random_state", "the seed that divided the rows", shown(seed), do)
    train, held_out = split(dataset, (rows - fitted_on) / rows, seed)
    label = label_of(model)
    return shaped(train, dataset, label), None if held_out is None else shaped(held_out, dataset, label)
