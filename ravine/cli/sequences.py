"""Between the shell's tables and sequences: a row per step, and a column that says whose."""

from __future__ import annotations

from typing import Any

import numpy as np

from ravine._check import require
from ravine.data import Dataset
from ravine.data.frames import is_frame
from ravine.sequence_model import SequenceModel


def split_sequences(model: SequenceModel, dataset: Dataset, test_size: float, seed: int) -> tuple[Any, Any]:
    """The set's own split where it has one; else a share of the sequences, drawn by the seed, is kept for the test."""
    require(0 <= test_size < 1, "--test-size", "a share of at least 0 and below 1", f"{test_size}", "change it")
    train = table_of(dataset.train, dataset)
    if dataset.test is not None:
        return train, table_of(dataset.test, dataset)
    owners = _owners(model, train)
    numbers, count = len(np.unique(owners)), int(round(len(np.unique(owners)) * test_size))
    if count == 0:
        return train, None
    kept = np.isin(owners, np.random.default_rng(seed).permutation(numbers)[:count])
    return _some(train, owners, ~kept), _some(train, owners, kept)


def table_of(table: Any, dataset: Dataset) -> Any:
    """Sequences as they are; a table with names as a data frame."""
    import pandas

    names = dataset.hints.get("names")
    plain = names is None or is_frame(table) or isinstance(table, list)
    return table if plain else pandas.DataFrame(np.asarray(table), columns=list(names or ()))


def long_frame(told: Any, columns: Any) -> Any:
    """A data frame with a row per step out of an answer about steps, such as a list of arrays."""
    import pandas

    if is_frame(told):
        return told
    arrays = [np.asarray(told)] if getattr(told, "ndim", 3) < 3 else list(told)
    arrays = [part.reshape(len(part), -1) for part in arrays]
    width = arrays[0].shape[1]
    names = [f"x{i}" for i in range(width)] if columns is None else list(columns)
    made = pandas.DataFrame(np.concatenate(arrays), columns=names)
    made.insert(0, "step", np.concatenate([np.arange(len(part)) for part in arrays]))
    made.insert(0, "sequence", np.repeat(np.arange(len(arrays)), [len(part) for part in arrays]))
    return made


def states_of(model: Any, rows: Any) -> Any:
    """A data frame of the most probable path, and of the probability of each state at each step."""
    paths, shares = long_frame(model.predict(rows), ["state"]), long_frame(model.predict_proba(rows), None)
    own = shares.columns[-model.model_.start.size :]
    told = {f"p({i})": shares[name] for i, name in enumerate(own)}
    return paths.assign(**told)


def _owners(model: SequenceModel, table: Any) -> np.ndarray:
    """The number of the sequence that each row of a table, or each entry of a list, belongs to."""
    if not is_frame(table) or model.sequence is None or model.sequence not in table.columns:
        return np.arange(len(table)) if isinstance(table, list) or np.ndim(table) == 3 else np.zeros(len(table), int)
    import pandas

    return np.asarray(pandas.factorize(table[model.sequence])[0])


def _some(table: Any, owners: np.ndarray, chosen: np.ndarray) -> Any:
    if isinstance(table, list):
        return [table[i] for i in np.flatnonzero(chosen)]
    return table[chosen]
