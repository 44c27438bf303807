"""The command that writes a report on a fit, and what the folder of a run tells about where its rows came from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ravine._check import require, translated

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from ravine.data import Dataset
    from ravine.estimator import LatentVariableModel
    from ravine.report import Origin

METRICS = "metrics.jsonl"


def report(
    folder: Path,
    data: str | None = None,
    /,
    *,
    out: Annotated[Path | None, Parameter(show_default=False)] = None,
    quick: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Write a report on a fit: one HTML file that opens without a network.

    Parameters
    ----------
    folder
        A folder written by `ravine fit --out`.
    data
        Rows to report on, name or path; those that the fit kept for its test unless given.
    out
        The file to write; report.html in the folder unless given.
    quick
        Leave out what `ravine diagnose` finds, which takes longest.
    """
    from ravine.cli.work import opened
    from ravine.report import report as write

    model = opened(folder)
    remember(model, folder)
    rows, labels, unseen, origin = asked(model, folder, data)
    own = data in (None, origin.data)
    findings = _findings(model, str(origin.data)) if own and not quick else ()
    where, seen = out or folder / "report.html", _learned(model, str(origin.data)) if unseen else None
    told = {"labels": labels, "findings": findings, "unseen": unseen, "learned": seen, "origin": origin}
    path = write(model, rows, where, **told)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KB")


def _findings(model: LatentVariableModel, name: str) -> Iterable[Any]:
    """What is said of the fit with the rows that it was fitted to, and those kept for its test."""
    from ravine.cli.diagnosis import divided
    from ravine.data import load_dataset

    return model.diagnose(*divided(load_dataset(name), model)).findings


def _learned(model: LatentVariableModel, name: str) -> np.ndarray:
    """The rows that the fit has learned from."""
    from ravine.cli.diagnosis import divided
    from ravine.data import load_dataset

    return divided(load_dataset(name), model)[0]


def remember(model: LatentVariableModel, folder: Path) -> None:
    """Give a loaded model the history and the training time that its folder holds."""
    path = folder / METRICS
    if not path.exists():
        return
    with translated(str(path), "one JSON object in a line", "remove the file, or fit again"):
        history = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        seconds = float(history[-1]["seconds"]) if history else None
    if seconds is not None:
        model.history_, model.seconds_ = history, seconds


def asked(
    model: LatentVariableModel, folder: Path, data: str | None
) -> tuple[Any, np.ndarray | None, bool | None, Origin]:
    """The rows to report on, their labels, whether the fit has not seen them, and where it got its own from.

    Raises
    ------
    ValueError
        When no data are named and the folder does not say which they were, or they have changed since the fit.
    """
    from ravine.checkpoint import load_record
    from ravine.cli.work import rows_of
    from ravine.data import load_dataset
    from ravine.report import Origin

    numbers = load_record(folder).get("numbers", {})
    origin = Origin(numbers.get("data"), None, str(folder), numbers.get("checksum"))
    if data is not None and data != origin.data:
        dataset = load_dataset(data)
        return rows_of(data, model), _labels(dataset, dataset.test is not None), None, origin
    do = f"name the rows: ravine report {folder} DATA"
    require(origin.data, str(folder), "a record that names the data", "none", do)
    dataset = load_dataset(str(origin.data))
    same = origin.checksum == dataset.checksum
    require(same, f"the data {dataset.name}", "the rows that were fitted", "others", "fit again")
    return _own(model, dataset, origin)


def _own(
    model: LatentVariableModel, dataset: Dataset, origin: Origin
) -> tuple[Any, np.ndarray | None, bool | None, Origin]:
    """The rows that the fit kept for its test; where it kept none, those that it was fitted to."""
    from ravine.cli.diagnosis import divided
    from ravine.cli.work import split_places

    train, held_out = divided(dataset, model)
    if dataset.test is not None:
        return held_out, _labels(dataset, True), True, origin
    share = 1 - model.schema_.rows / len(dataset.train)
    origin = dataclasses.replace(origin, test_size=_rounded(share, len(dataset.train)))
    if held_out is None:
        return train, _labels(dataset, False), False, origin
    labels = _labels(dataset, False)
    kept = split_places(dataset, share, int(model.random_state))[1]
    return held_out, None if labels is None else labels[kept], True, origin


def _labels(dataset: Dataset, of_test: bool) -> np.ndarray | None:
    return None if dataset.labels is None else dataset.labels[int(of_test)]


def _rounded(share: float, rows: int) -> float:
    """The shortest share that keeps as many rows for the test."""
    kept = round(share * rows)
    return next((short for digits in range(1, 9) if round((short := round(share, digits)) * rows) == kept), share)
