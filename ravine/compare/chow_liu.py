"""A tree of dependence between columns. Chow & Liu 1968, IEEE Transactions on Information Theory 14(3), 462-467."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from ravine._check import require
from ravine.compare.cuts import Variable

MOST_STATES = 6_000  # of all columns together: the table of all pairs has the square of it
BLOCK = 2_048  # rows at a time


@dataclass(frozen=True, eq=False)
class ChowLiu:
    """The most likely tree-shaped law of discrete variables, with exact answers for rows with holes.

    ``log p(x) = sum_j log p(x_j | x_parent(j))``, where the tree maximises ``sum_j I(x_j; x_parent(j))``, the mutual
    information of its pairs (equation 11 of the paper). Pairs are counted over the rows that observe both, plus one
    row that is spread evenly over their states, so that no state has probability 0.

    Attributes
    ----------
    variables : the columns; numbers are cut into intervals with a law inside each.
    order : the columns, each after its parent.
    parents : the parent of each column; -1 for the root.
    tables : p(column | parent) of each column, shape (states of the parent, states); one row for the root.

    Examples
    --------
    >>> from ravine.compare.cuts import Levels
    >>> X = np.array([[0.0, 0, 1], [1, 1, 1], [0, 0, 0], [1, 1, 0]])
    >>> tree = ChowLiu.fit(X, (Levels(2), Levels(2), Levels(2)))
    >>> int(tree.parents[1])
    0
    >>> float(np.exp(tree.log_prob(np.array([[1, np.nan, np.nan]]))).round(6)[0])
    0.5
    """

    variables: tuple[Variable, ...]
    order: np.ndarray
    parents: np.ndarray
    tables: tuple[np.ndarray, ...]

    @classmethod
    def fit(cls, values: np.ndarray, variables: tuple[Variable, ...]) -> ChowLiu:
        """Learn the tree from values of shape (rows, columns), NaN where missing.

        Raises
        ------
        ValueError
            When the columns have more states than the table of all pairs can hold.
        """
        states = [variable.states for variable in variables]
        do = "group rare levels, or leave such columns out"
        require(sum(states) <= MOST_STATES, "chow-liu", f"at most {MOST_STATES} levels in all", f"{sum(states)}", do)
        starts = np.cumsum([0, *states])
        counts = _pair_counts(_states_of(values, variables), starts)
        order, parents = _tree(_information(counts, starts))
        spans = [slice(a, b) for a, b in pairwise(starts.tolist())]
        tables = [_conditional(counts, spans[j], spans[p] if p >= 0 else None) for j, p in enumerate(parents)]
        return cls(variables, order, parents, tuple(tables))

    @property
    def parameters(self) -> int:
        """How many numbers were learned: free probabilities, edges and tails."""
        free = sum(table.shape[0] * (table.shape[1] - 1) for table in self.tables)
        return free + sum(variable.numbers for variable in self.variables)

    def log_prob(self, values: np.ndarray) -> np.ndarray:
        """Log p(observed cells) of each row in nats, exact; a row without any has 0."""
        parts = [self._log_block(values[i : i + BLOCK]) for i in range(0, len(values), BLOCK)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _log_block(self, values: np.ndarray) -> np.ndarray:
        """Sum over the states of missing cells from the leaves to the root, in numbers relative to their largest."""
        codes, total = _states_of(values, self.variables), np.zeros(len(values))
        told: list[np.ndarray | None] = [None] * len(self.variables)
        for j in self.order[::-1]:
            belief = _held(codes[:, j], self.variables[j].states, told[j])
            up = belief @ self.tables[j].T
            largest = up.max(axis=1, keepdims=True)
            total += np.log(largest[:, 0])
            parent = self.parents[j]
            if parent >= 0:
                before = told[parent]
                told[parent] = up / largest if before is None else before * (up / largest)
            told[j] = None
        empty = (codes < 0).all(axis=1)
        return np.where(empty, 0.0, total + _within(values, self.variables))


def _states_of(values: np.ndarray, variables: tuple[Variable, ...]) -> np.ndarray:
    """The state of every cell; -1 where missing."""
    made = np.full(values.shape, -1)
    for j, variable in enumerate(variables):
        seen = ~np.isnan(values[:, j])
        made[seen, j] = variable.places(values[seen, j])
    return made


def _within(values: np.ndarray, variables: tuple[Variable, ...]) -> np.ndarray:
    """Log law of the values inside their states, summed over the observed cells of each row."""
    total = np.zeros(len(values))
    for column, variable in zip(values.T, variables, strict=True):
        seen = ~np.isnan(column)
        total[seen] += variable.log_within(column[seen])
    return total


def _held(codes: np.ndarray, states: int, told: np.ndarray | None) -> np.ndarray:
    """What is known of a column, shape (rows, states): from below, and from its own cell where it is observed."""
    agrees = (codes[:, None] == np.arange(states)) | (codes[:, None] < 0)
    return agrees.astype(float) if told is None else agrees * told


def _pair_counts(codes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """How many rows have each pair of states, shape (states, states) over all columns, as matrix products."""
    counts = np.zeros((starts[-1], starts[-1]))
    for i in range(0, len(codes), BLOCK):
        block = codes[i : i + BLOCK]
        hot = np.zeros((len(block), starts[-1]), np.float32)
        rows, columns = np.nonzero(block >= 0)
        hot[rows, starts[columns] + block[rows, columns]] = 1
        counts += hot.T @ hot
    return counts


def _information(counts: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Mutual information of every pair of columns in nats, shape (columns, columns); the diagonal means nothing."""
    at, states = starts[:-1], np.diff(starts)
    place = np.repeat(np.arange(len(states)), states)
    both = _summed(_summed(counts, at, 0), at, 1)  # rows that observe both columns
    joint = counts + 1 / (states[place][:, None] * states[place][None, :])
    joint /= both[place][:, place] + 1
    own = _summed(joint, at, 1)  # of each state, among the rows that observe the other column
    entropy = -_summed(own * np.log(own), at, 0)
    np.multiply(joint, np.log(joint), out=joint)
    return entropy + entropy.T + _summed(_summed(joint, at, 0), at, 1)


def _summed(table: np.ndarray, at: np.ndarray, axis: int) -> np.ndarray:
    return np.add.reduceat(table, at, axis=axis)


def _tree(information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tree of largest total information: its columns from the root on, and the parent of each."""
    # the sparse routine takes 0 for no edge, so every length is made positive
    length = information.max() + 1 - (information + information.T) / 2
    np.fill_diagonal(length, 0)
    order, parents = breadth_first_order(minimum_spanning_tree(length), 0, directed=False)
    return order, np.where(parents < 0, -1, parents)


def _conditional(counts: np.ndarray, own: slice, parent: slice | None) -> np.ndarray:
    """p(column | parent), shape (states of the parent, states); of the root, its law as one row."""
    table = np.diagonal(counts)[None, own] if parent is None else counts[parent, own]
    table = table + 1 / table.size
    return table / table.sum(axis=1, keepdims=True)
