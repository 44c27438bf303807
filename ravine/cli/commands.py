"""The commands. Everything heavy is imported inside a command, so that help answers at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

import ravine
from ravine.cli.comparing import compare
from ravine.cli.diagnosis import diagnose
from ravine.cli.jobs import anomalies, synthesize
from ravine.cli.reporting import report

app = App(
    name="ravine",
    version=ravine.__version__,
    help="Latent-variable generative models of your data, from the shell.",
    help_format="plaintext",  # markdown would double the time to the first word
    suppress_keyboard_interrupt=False,
)

app.command(compare)
app.command(diagnose)
app.command(report)
app.command(anomalies)
app.command(synthesize)

Set = Annotated[list[str] | None, Parameter(name="--set", negative=(), consume_multiple=False)]
Json = Annotated[bool, Parameter(name="--json", negative=())]
Resume = Annotated[bool, Parameter(negative=())]
Number = Annotated[int, Parameter(name=["-n", "--number"])]


@app.command(name="list")
def list_all(*, as_json: Json = False) -> None:
    """What there is: recipes, built-in data sets, and studies to reproduce.

    Parameters
    ----------
    as_json
        Print one JSON object.
    """
    from ravine.data.builtin import dataset_names
    from ravine.registry import STUDIES, headline, recipes

    known = {"recipes": {name: headline(name) for name in recipes()}, "data": dataset_names()}
    known["studies"] = {name: headline(name) for name in STUDIES}
    if as_json:
        print(json.dumps(known, indent=2))
        return
    for title, names in known.items():
        print(f"{title}:")
        width = max(map(len, names))
        for name, words in names.items():
            print(f"  {name:<{width}}  {words}")


@app.command
def info(recipe: str, /) -> None:
    """Paper, citation, expected and measured numbers, and parameters of a recipe.

    Parameters
    ----------
    recipe
        Name of a recipe; `ravine list` shows them.
    """
    from ravine.registry import describe

    print(describe(recipe))


@app.command
def fit(
    recipe: str,
    data: str,
    /,
    *,
    settings: Set = None,
    label: str | None = None,
    out: Path | None = None,
    seed: int = 0,
    test_size: float = 0.1,
    resume: Resume = False,
    as_json: Json = False,
) -> int:
    """Fit a recipe to data, evaluate it on rows it has not seen, and keep the result.

    Parameters
    ----------
    recipe
        Name of a recipe; `ravine list` shows them.
    data
        Name of a built-in set, or a path to .csv, .parquet, .npy, .npz, or a folder of images.
    settings
        A field of the recipe, as name=value; may be given several times. `ravine info RECIPE` shows them.
    label
        The column that holds the labels, for a recipe that learns from them; a classifier takes those that a built-in
        set has beside its rows unless one is given.
    out
        Folder for the model, its record, metrics and checkpoints.
    seed
        Fixes every random choice.
    test_size
        Share of the rows kept for the test when the data have no test rows of their own; 0 tests on none.
    resume
        Go on from the checkpoint in --out.
    as_json
        Print one JSON object.
    """
    from ravine.cli.work import fit_data

    told = [] if label is None else [f"label={label!r}"]
    return fit_data(recipe, data, [*(settings or []), *told], out, seed, test_size, resume, as_json)


@app.command
def score(folder: Path, data: str, /, *, as_json: Json = False) -> None:
    """Mean log-likelihood of data under a fitted model, with standard error, direction and method.

    Of a classifier: the share of the rows whose class it tells right, with its standard error. Of a model that only
    codes rows: how near they come back.

    Parameters
    ----------
    folder
        A folder written by `ravine fit --out`.
    data
        Name of a built-in set (its test rows where it has any) or a path.
    as_json
        Print one JSON object.
    """
    from ravine.cli.work import asked_of, either, evaluation

    model = either(folder)
    got = evaluation(model.evaluate(*asked_of(model, data)))
    print(json.dumps(got) if as_json else got["words"])


@app.command
def sample(folder: Path, /, *, number: Number = 16, out: Path, seed: int | None = None) -> None:
    """Draw new rows.

    Parameters
    ----------
    folder
        A folder written by `ravine fit --out`.
    number
        How many rows.
    out
        File to write: .csv, .npy, .npz or .parquet.
    seed
        Other draws than the model's own.
    """
    from ravine.cli.work import opened, write

    model = opened(folder, out, "sample")
    write(out, model.sample(number, random_state=seed), model)


@app.command
def encode(folder: Path, data: str, /, *, out: Path) -> None:
    """Posterior means of the latent causes, or features or codes of other models, one row per row of the data.

    Parameters
    ----------
    folder
        A folder written by `ravine fit --out`.
    data
        Name of a built-in set or a path.
    out
        File to write: .csv, .npy, .npz or .parquet.
    """
    from ravine.cli.work import either, rows_of, write

    model = either(folder, out)
    write(out, model.transform(rows_of(data, model)), model, names=list(model.get_feature_names_out()))


@app.command
def predict(folder: Path, data: str, /, *, out: Path) -> None:
    """The most probable class of each row, and the probability of every class.

    Parameters
    ----------
    folder
        A folder written by `ravine fit --out`, of a model with classes.
    data
        Name of a built-in set or a path.
    out
        File to write: .csv, .npy, .npz or .parquet.
    """
    from ravine.cli.work import either, predicted, rows_of, write

    model = either(folder, out)
    told = predicted(model, rows_of(data, model))
    write(out, told, model, names=list(told))


@app.command
def impute(
    folder: Path,
    data: str,
    /,
    *,
    out: Path,
    draws: int | None = None,
    interval: float | None = None,
    multiple: int | None = None,
) -> None:
    """Fill the missing cells; observed cells are kept as they are.

    Parameters
    ----------
    folder
        A folder written by `ravine fit --out`.
    data
        Name of a built-in set or a path.
    out
        File to write: .csv, .npy, .npz or .parquet; more than one table gives files named after it.
    draws
        Number of conditional draws instead of one completed table, numbered from 1.
    interval
        A probability: besides, the ends of intervals for the missing cells, in files -low and -high.
    multiple
        Number of tables for multiple imputation of the training rows, each by a model learned anew, numbered from 1.
    """
    from ravine.cli.work import named, opened, rows_of, write
    from ravine.imputation import named_tables

    plain = draws is interval is multiple is None
    model = opened(folder, out, "impute" if plain else "")
    rows = rows_of(data, model, training=multiple is not None)
    asked = {"draws": draws, "interval": interval, "m": multiple}
    tables = {"": model.impute(rows)} if plain else named_tables(model, rows, **asked)
    for ending, table in tables.items():
        write(named(out, ending), table, model)


@app.command
def forecast(folder: Path, data: str, /, *, steps: int = 1, draws: int | None = None, out: Path) -> None:
    """What follows after the last step of each sequence.

    Parameters
    ----------
    folder
        A folder written by `ravine fit --out`, of a model of sequences.
    data
        Name of a built-in set or a path, with a row per step.
    steps
        How many steps.
    draws
        Number of draws instead of the mean, numbered from 1.
    out
        File to write: .csv, .npy, .npz or .parquet; more than one table gives files named after it.
    """
    from ravine.cli.work import named, opened, rows_of, sequential, write

    model = sequential(opened(folder, out))
    told = model.forecast(rows_of(data, model), steps, draws)
    tables = {"": told} if draws is None else {f"-{i + 1}": table for i, table in enumerate(told)}
    for ending, table in tables.items():
        write(named(out, ending), table, model)


@app.command
def reproduce(
    recipe: str,
    /,
    *,
    scale: str = "small",
    out: Path | None = None,
    seed: int = 0,
    seeds: int = 1,
    resume: Resume = False,
) -> int:
    """Run a recipe as its paper did and print the paper's number beside ours, or run a study.

    Parameters
    ----------
    recipe
        Name of a recipe or of a study; `ravine list` shows them.
    scale
        ``small`` runs in minutes on two cores, ``paper`` is the full schedule. Some recipes have more, such as
        ``small-reinmax`` of ``gumbel-vae``; another word lists them.
    out
        Folder for the model, checkpoints and the result as JSON.
    seed
        Fixes every random choice.
    seeds
        Runs with this many seeds, counting up from --seed, and reports their mean.
    resume
        Go on from the checkpoint in --out.
    """
    from ravine.reproduce import reproduce as run

    return run(recipe, scale, out, seed, seeds, resume)
