"""The command that compares recipes on one data set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ravine._check import require, shown

if TYPE_CHECKING:
    from ravine.compare import Comparison
    from ravine.data import Dataset

FORMATS = (".md", ".csv", ".json")
TOLD = ("kind", "levels", "binarise", "threshold")  # what a data set says of how to read it


def compare(
    data: str,
    /,
    *,
    recipes: str | None = None,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative=(), consume_multiple=False)] = None,
    test_size: float = 0.2,
    folds: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Compare recipes and baselines on the same held-out rows, in nats per row, with a verdict in words.

    Parameters
    ----------
    data
        Name of a built-in set, or a path to .csv, .parquet, .npy, .npz, or a folder of images.
    recipes
        Names of recipes with commas between; a few that suit the data unless given.
    settings
        A field of a recipe, as RECIPE.name=value; may be given several times.
    test_size
        Share of the rows that are held out when the data have no test rows of their own.
    folds
        Cross-validation with so many parts instead.
    seed
        Fixes every random choice.
    out
        File to write: .md, .csv or .json.
    as_json
        Print one JSON object.
    """
    ending = "" if out is None else out.suffix.lower()
    do = f"a name that ends in {', '.join(FORMATS)}"
    require(out is None or ending in FORMATS, f"--out {out}", do, shown(ending), "rename it")
    made = _compared(data, recipes, settings or [], test_size, folds, seed)
    if out is not None:
        out.write_text(_text(made, ending), encoding="utf-8")
    print(json.dumps(made.to_json()) if as_json else made)


def _compared(
    data: str, recipes: str | None, settings: list[str], test_size: float, folds: int | None, seed: int
) -> Comparison:
    from ravine.cli.work import shaped
    from ravine.compare.run import compare as run
    from ravine.data import load_dataset

    fields = _fields(settings)
    names = None if recipes is None else [name.strip() for name in recipes.split(",")]
    _refuse_early(names, fields)
    dataset = load_dataset(data)
    train = shaped(dataset.train, dataset)
    held_out = test_size if dataset.test is None or folds is not None else shaped(dataset.test, dataset)
    chosen = _chosen(train, dataset, names, fields)
    return run(train, chosen, held_out=held_out, folds=folds, random_state=seed)


def _fields(settings: Iterable[str]) -> dict[str, dict[str, str]]:
    """Recipe to its fields, as text."""
    found: dict[str, dict[str, str]] = {}
    for text in settings:
        where, equals, value = text.partition("=")
        recipe, dot, field = where.partition(".")
        good = equals and dot and field.isidentifier()
        require(good, "--set", "RECIPE.name=value", shown(text), "write it so, for example --set vae.latents=20")
        found.setdefault(recipe, {})[field] = value
    return found


def _refuse_early(names: list[str] | None, fields: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse what is misspelled before the data are read."""
    from ravine.registry import made

    for name in [*(names or []), *fields]:
        made(name, fields.get(name, {}))
        known = names is None or name in names
        require(known, "--set", f"fields of {', '.join(names or [])}", name, "name the recipe in --recipes too")


def _chosen(
    train: Any, dataset: Dataset, names: list[str] | None, fields: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """The recipes by name, reading the rows as the data set says of itself, or as they look."""
    from ravine.compare.entrants import named, suited
    from ravine.compare.reading import reading_of_data

    told = {field: value for field, value in dataset.hints.items() if field in TOLD}
    told = told or reading_of_data(train, None)
    listed = list(suited(train, told)) if names is None else names
    listed += [name for name in fields if name not in listed]
    return {name: named(name, told, train, fields.get(name)) for name in dict.fromkeys(listed)}


def _text(made: Comparison, ending: str) -> str:
    if ending == ".md":
        return made.markdown()
    return json.dumps(made.to_json(), indent=2) + "\n" if ending == ".json" else made.frame().to_csv(index=False)
