"""What the commands do, between the shell's words and the estimator's verbs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

import ravine
from ravine._check import require, shown
from ravine._containers import framed
from ravine.cli.sequences import long_frame, split_sequences, states_of, table_of
from ravine.data import Dataset, TableSchema, load_dataset, write_table
from ravine.data.files import FORMATS
from ravine.data.frames import is_mixed, taken, without
from ravine.estimator import LatentVariableModel
from ravine.evaluation import Accuracy, Evaluation, Faithfulness
from ravine.labels import parted
from ravine.network_classifier import NetworkClassifier
from ravine.registry import made, reading
from ravine.row_encoder import RowEncoder
from ravine.sequence_model import SequenceModel

Fitted = LatentVariableModel | NetworkClassifier | RowEncoder
SEEDS = 2**32  # those that numpy takes


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
    require(0 <= seed < SEEDS, "--seed", "a whole number of at least 0, of 32 bits", f"{seed}", "choose another")
    require(out is not None or not resume, "--resume", "--out DIR to go on from", "none", "name the folder of the run")
    of_shell(made(recipe, given, random_state=seed))  # refuses what is misspelled before the data are read
    dataset = load_dataset(data)
    model = made(recipe, reading(recipe, dataset.hints) | given, random_state=seed)
    train, held_out, test = material(model, dataset, test_size, seed)
    model.fit(*train, held_out=held_out, folder=out, resume=resume)
    table = model.schema_.lines() if isinstance(model.schema_, TableSchema) else []
    if not as_json:
        print(*table, sep="\n", end="\n" if table else "")
    figures = {"data": dataset.name, "checksum": dataset.checksum, "seconds": round(model.seconds_, 1)}
    _keep(model, out, figures)
    got = {}
    if test is not None and model.complete_:
        got = evaluation(model.evaluate(*test))
    _keep(model, out, figures | ({"test": got} if got else {}))
    report = {"recipe": recipe, "data": dataset.name, "out": str(out) if out else None, "complete": model.complete_}
    print(json.dumps(report | got) if as_json else _words(report | got, model))
    return 0 if model.complete_ else 130


def _keep(model: Fitted, out: Path | None, figures: dict[str, Any]) -> None:
    if out is not None:
        model.save(out, figures)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    good = equals and name.isidentifier()
    require(good, "--set", "name=value", shown(text), "write it so, for example --set latents=20")
    return name, value


class Material(NamedTuple):
    """What `fit` and `evaluate` are called with; None where there are no such rows."""

    train: tuple[Any, ...]
    held_out: Any
    test: tuple[Any, ...] | None


def material(model: Fitted, dataset: Dataset, test_size: float, seed: int) -> Material:
    """The rows to learn from, those that say when to stop, and those to evaluate on."""
    if isinstance(model, NetworkClassifier):
        return _labelled(model.label, dataset, test_size, seed)
    if isinstance(model, SequenceModel):
        learned, asked_for = split_sequences(model, dataset, test_size, seed)
        apart = None if dataset.valid is None else table_of(dataset.valid, dataset)
        return Material((learned,), apart, None if asked_for is None else (asked_for,))
    train, test = split(dataset, test_size, seed)
    held_out = None if dataset.valid is None else shaped(dataset.valid, dataset)
    kept = None if test is None else (shaped(test, dataset, label_of(model)),)
    return Material((shaped(train, dataset),), held_out, kept)


def asked_of(model: Fitted, data: str) -> tuple[Any, ...]:
    """What `evaluate` is called with, of the data that a command is asked about."""
    if not isinstance(model, NetworkClassifier):
        return (rows_of(data, model),)
    dataset = load_dataset(data)
    rows = rows_of(data, model, dataset=dataset)
    own = dataset.test is not None
    if model.label is not None:
        return rows, parted(shaped(dataset.test if own else dataset.train, dataset), model.label)[1]
    labels = None if dataset.labels is None else dataset.labels[int(own)]
    require(labels is not None, data, "labels of the rows", "none", "ask ravine predict for classes")
    return rows, labels


def _labelled(label: str | None, dataset: Dataset, test_size: float, seed: int) -> Material:
    """Rows and labels: those of a column, or those that a built-in set has beside its rows.

    Rows for validation that have no labels are of no use.
    """
    train, test = (None if part is None else shaped(part, dataset) for part in split(dataset, test_size, seed))
    if label is not None:
        valid = None if dataset.valid is None else shaped(dataset.valid, dataset)
        told = [None if table is None else parted(table, label) for table in (train, valid, test)]
        return Material(told[0] or (), *told[1:])
    do = "name their column: --label COLUMN"
    require(dataset.labels is not None, dataset.name, "labels beside the rows", "none", do)
    known, asked_for = labels_of(dataset, test_size, seed)
    return Material((train, known), None, None if asked_for is None else (test, asked_for))


def split(dataset: Dataset, test_size: float, seed: int) -> tuple[Any, Any]:
    """The set's own split where it has one; else a share of the rows, drawn by the seed, is kept for the test."""
    learned, kept = split_places(dataset, test_size, seed)
    if kept is None:
        return dataset.train, dataset.test
    return taken(dataset.train, learned), taken(dataset.train, kept)


def split_places(dataset: Dataset, test_size: float, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Which of the training rows are learned from, and which are kept for the test.

    The latter None where the set has test rows of its own, or none are kept.
    """
    require(0 <= test_size < 1, "--test-size", "a share of at least 0 and below 1", f"{test_size}", "change it")
    rows = len(dataset.train)
    count = int(round(rows * test_size))
    if dataset.test is not None or count == 0:
        return np.arange(rows), None
    order = np.random.default_rng(seed).permutation(rows)
    return np.sort(order[count:]), np.sort(order[:count])


def labels_of(dataset: Dataset, test_size: float, seed: int) -> tuple[Any, Any]:
    """The labels beside the rows that `split` gives, of a set that has them."""
    assert dataset.labels is not None
    learned, kept = split_places(dataset, test_size, seed)
    return dataset.labels if kept is None else (dataset.labels[0][learned], dataset.labels[0][kept])


def shaped(table: Any, dataset: Dataset, label: str | None = None) -> Any:
    """Images as images, so that the model knows their shape; named columns as a data frame, so that it knows them.

    The column of labels is left out.
    """
    shape, names = dataset.hints.get("image_shape"), dataset.hints.get("names")
    do = "choose a recipe for sequences, such as hidden-markov-model"
    require(not isinstance(table, list), dataset.name, "rows of one table", "sequences", do)
    if isinstance(table, np.memmap):
        return table
    return without(framed(table, names), label) if shape is None else table.reshape(len(table), *shape)


def opened(folder: Path, out: Path | None = None, verb: str = "") -> Any:
    """The model of rows in a folder, or another that answers to a verb.

    A file that could not be written afterwards is refused before.
    """
    model = either(folder, out)
    which = "a classifier" if isinstance(model, NetworkClassifier) else "a coder of rows"
    good = isinstance(model, LatentVariableModel) or hasattr(model, verb)
    do = "score, predict and encode are for classifiers; score, encode and impute for coders"
    require(good, "this command", "a model of rows", f"{type(model).__name__}, {which}", do)
    return model


def either(folder: Path, out: Path | None = None) -> Fitted:
    """The model of rows, the classifier or the coder of rows in a folder."""
    if out is not None:
        named(out, "")
    return of_shell(ravine.load(folder))


def sequential(model: Any) -> SequenceModel:
    """The model, refused when it is not one of sequences."""
    good = isinstance(model, SequenceModel)
    require(good, "forecast", "a model of sequences", type(model).__name__, "fit one such as hidden-markov-model")
    return model


def of_shell(model: Any) -> Fitted:
    """The model, refused when what it learns from is no table: the shell knows rows alone."""
    good = isinstance(model, Fitted)
    require(good, "the shell", "a model of rows", type(model).__name__, "use it from Python")
    return model


def named(out: Path, addition: str) -> Path:
    """The path with an addition to its name: rows-1.csv for rows.csv and -1."""
    ending = next((ending for ending in FORMATS if out.name.lower().endswith(ending)), "")
    require(ending, f"--out {out}", f"a name that ends in {', '.join(FORMATS)}", shown(out.suffix), "rename it")
    return out.with_name(f"{out.name[: -len(ending)]}{addition}{out.name[-len(ending) :]}")


def rows_of(data: str, model: Fitted, training: bool = False, dataset: Dataset | None = None) -> Any:
    """The rows a command is asked about: the test rows of a built-in set that has any, else all of them.

    ``training`` asks for the rows to learn from instead. Columns with names must be those of the training data, in
    their order. ``dataset`` is what the data are, where they were read before.
    """
    dataset = dataset or load_dataset(data)
    if isinstance(model, SequenceModel):
        return table_of(dataset.train if training or dataset.test is None else dataset.test, dataset)
    label, want = label_of(model), model.schema_.names
    got = [name for name in dataset.hints.get("names") or () if name != label] or None
    same = want is None or got is None or list(want) == list(got)
    require(same, f"the columns of {data}", shown(want, 200), shown(got, 200), "give those of the training data")
    return shaped(dataset.train if training or dataset.test is None else dataset.test, dataset, label)


def label_of(model: Fitted) -> str | None:
    """The column of labels of a recipe that has one."""
    return getattr(model, "label", None)


def predicted(model: Fitted, rows: Any) -> Any:
    """A data frame of the most probable class of each row, and of the probability of each class."""
    import pandas as pd

    if isinstance(model, SequenceModel) and hasattr(model, "predict_proba"):
        return states_of(model, rows)
    classed = hasattr(model, "predict_proba")
    require(classed, "the shell", "a model with classes", type(model).__name__, "ask one such as gaussian-mixture")
    shares = cast(Any, model).predict_proba(rows)
    classes = getattr(model, "classes_", np.arange(shares.shape[1]))
    told = {f"p({name})": shares[:, i] for i, name in enumerate(classes)}
    return pd.DataFrame({"class": classes[np.argmax(shares, axis=1)]} | told)


def evaluation(got: Evaluation | Accuracy | Faithfulness) -> dict[str, Any]:
    """An evaluation as the JSON object of `ravine score`."""
    if isinstance(got, Accuracy | Faithfulness):
        return got._asdict() | {"words": str(got)}
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
    } | ({} if got.per_step is None else {"per_step": got.per_step})


def write(out: Path, table: Any, model: Fitted, names: list[str] | None = None) -> None:
    """Write a table with its column names and say so."""
    if isinstance(model, SequenceModel):
        table = long_frame(table, names or getattr(model, "feature_names_in_", None))
        names = list(map(str, table.columns))
    if names is None and hasattr(model, "feature_names_in_"):
        names = [str(name) for name in model.feature_names_in_]
    write_table(out, table if is_mixed(table) else np.asarray(table), names)
    print(f"{out}: {table.shape[0]} rows, {table.shape[1]} columns")


def _words(report: dict[str, Any], model: Fitted) -> str:
    lines = [f"{report['recipe']} fitted to {report['data']} in {model.seconds_:.0f} s"]
    if not model.complete_:
        lines[0] += ", interrupted" + ("; --resume goes on" if report["out"] else "")
    if "words" in report:
        lines.append(f"test rows: {report['words']}")
    return "\n".join([*lines, *([f"kept in {report['out']}"] if report["out"] else [])])
