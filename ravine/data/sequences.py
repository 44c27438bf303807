"""Sequences as users bring them: lists of arrays, padded arrays, steps one after another, long data frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ravine._check import require, shown
from ravine.data.arrays import as_table
from ravine.data.frames import is_frame


class Sequences:
    """Sequences whose steps lie one after another, as hmmlearn takes them.

    Parameters
    ----------
    steps : array of shape (all steps, columns), or of shape (all steps,) for one column.
    lengths : how many steps each sequence has; None is one sequence.

    Raises
    ------
    ValueError
        When the lengths are not whole numbers of at least 1 that add up to the number of steps.

    Examples
    --------
    >>> two = Sequences(np.arange(10.0).reshape(5, 2), [2, 3])
    >>> len(two), two[1].shape
    (2, (3, 2))
    """

    def __init__(self, steps: Any, lengths: Any = None):
        self.steps = _columns(steps)
        total = len(self.steps)
        self.lengths = np.asarray([total] if lengths is None else lengths)
        good = self.lengths.ndim == 1 and self.lengths.dtype.kind in "iu" and bool((self.lengths >= 1).all())
        got = shown(self.lengths.tolist())
        require(good, "lengths", "whole numbers of at least 1, one for each sequence", got, "leave out empty sequences")
        told = int(self.lengths.sum())
        require(told == total, "lengths", f"a sum of {total}, the number of steps", f"{told}", "count them again")

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.cut(self.steps))

    def __getitem__(self, which: Any) -> Any:
        """One sequence by its number; those of several numbers, or where an array of bools is true, as `Sequences`."""
        parts = self.cut(self.steps)
        if isinstance(which, int | np.integer):
            return parts[int(which)]
        chosen = np.arange(len(self))[which]
        return Sequences(np.concatenate([parts[i] for i in chosen]), self.lengths[chosen])

    def cut(self, values: np.ndarray, axis: int = 0) -> list[np.ndarray]:
        """Values of all steps, sequence by sequence."""
        return np.split(values, np.cumsum(self.lengths)[:-1], axis=axis)

    def padded(self, values: np.ndarray, steps: int, blank: Any) -> np.ndarray:
        """Values of all steps as an array (sequences, steps, ...), ``blank`` beyond the end of each.

        Examples
        --------
        >>> Sequences([1.0, 2.0, 3.0], [1, 2]).padded(np.array([1.0, 2.0, 3.0]), 2, np.nan).tolist()
        [[1.0, nan], [2.0, 3.0]]
        """
        there = np.arange(steps)[None] < self.lengths[:, None]
        made = np.full((len(self), steps, *values.shape[1:]), blank, values.dtype)
        made[there] = values
        return made

    def joined(self, padded: np.ndarray, axis: int = 0) -> np.ndarray:
        """The inverse of `padded`; ``axis`` is that of the sequences, the next one is that of steps."""
        there = np.arange(padded.shape[axis + 1])[None] < self.lengths[:, None]
        return padded[(slice(None),) * axis + (there,)]


class Read(NamedTuple):
    """What a container holds: the sequences, names of the columns, and for a data frame where each step came from."""

    sequences: Sequences
    names: tuple[str, ...] | None = None
    frame: Any = None
    places: np.ndarray | None = None
    keys: Any = None


def read_sequences(X: Any, sequence: str | None = None, order: str | None = None) -> Read:
    """The sequences of whatever container holds them.

    Parameters
    ----------
    X : `Sequences`; a list of arrays of shape (steps, columns) or (steps,); an array of shape (sequences, steps,
        columns), all of one length; an array of shape (steps, columns), one sequence; a data frame with a row per step.
    sequence : of a data frame, the column that says which sequence a row belongs to; None is one sequence.
    order : of a data frame, the column by which the rows of a sequence are sorted; None keeps their order.

    Raises
    ------
    ValueError
        When there is nothing in it, the sequences differ in columns, or a column is not there.

    Examples
    --------
    >>> read_sequences([[[0.0], [1.0]], [[2.0]]]).sequences.lengths.tolist()
    [2, 1]
    """
    if isinstance(X, Sequences):
        return Read(X)
    if is_frame(X):
        return _of_frame(X, sequence, order)
    do = "give a data frame with that column, or leave sequence and order out"
    require(sequence is None and order is None, "the data", "a data frame", type(X).__name__, do)
    if isinstance(X, list | tuple):
        return Read(_of_list(X))
    table = X if getattr(X, "ndim", 0) == 1 else as_table(X, "the sequences")
    if table.ndim > 2:
        require(
            table.ndim == 3, "an array of sequences", "at most 3 axes", f"{table.ndim}", "flatten the cells of a step"
        )
        return Read(Sequences(table.reshape(-1, table.shape[2]), np.full(len(table), table.shape[1])))
    return Read(Sequences(table))


def _columns(steps: Any) -> np.ndarray:
    array = steps if isinstance(steps, np.ndarray) else np.asarray(steps)
    return as_table(array[:, None] if array.ndim == 1 else array, "the sequences")


def _of_list(X: Sequence[Any]) -> Sequences:
    require(len(X) > 0, "the sequences", "at least one", "none", "check how the list was made")
    scalars = all(np.ndim(part) == 0 for part in X)
    require(not scalars, "a list of sequences", "arrays of shape (steps, columns)", "numbers", "wrap it: [values]")
    parts = [_columns(part) for part in X]
    widths = sorted({part.shape[1] for part in parts})
    got = f"{' and '.join(map(str, widths))} columns"
    require(len(widths) == 1, "the sequences", "as many columns in each", got, "NaN stands for a missing cell")
    return Sequences(
        np.concatenate([part.astype(np.result_type(*parts)) for part in parts]), [len(part) for part in parts]
    )


def _of_frame(X: Any, sequence: str | None, order: str | None) -> Read:
    for name in (name for name in (sequence, order) if name is not None):
        there = name in X.columns
        require(
            there, "the columns", f"one called {shown(name)}", shown(list(map(str, X.columns)), 200), "name another"
        )
    told = [name for name in (sequence, order) if name is not None]
    holes = [name for name in told if X[name].isna().any()]
    require(
        not holes, f"the column {shown(''.join(holes[:1]))}", "a value in every row", "missing ones", "fill them in"
    )
    codes, keys = (np.zeros(len(X), int), None) if sequence is None else _factorised(X[sequence])
    rank = np.arange(len(X)) if order is None else np.argsort(np.argsort(X[order].to_numpy(), kind="stable"))
    places = np.lexsort((rank, codes))
    cells = X.drop(columns=told)
    steps = as_table(cells, "the sequences")[places]
    names = tuple(map(str, cells.columns))
    return Read(Sequences(steps, np.bincount(codes)), names, X, places, keys)


def _factorised(ids: Any) -> tuple[np.ndarray, Any]:
    """The number of each row's sequence, in order of first appearance, and what the sequences are called."""
    import pandas

    codes, keys = pandas.factorize(ids)
    return np.asarray(codes), keys
