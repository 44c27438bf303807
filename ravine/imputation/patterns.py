"""Which columns of a table are missing together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ravine._check import require
from ravine.data.frames import is_frame


class MissingPatterns(NamedTuple):
    """Which columns are missing together. Prints as a table, the most frequent pattern first.

    Attributes
    ----------
    names : of the columns.
    patterns : shape (patterns, columns), True where missing; counts : rows of each, the most first.
    shares : share of missing cells of each column.
    """

    names: tuple[str, ...]
    patterns: np.ndarray
    counts: np.ndarray
    shares: np.ndarray

    def __str__(self) -> str:
        shown_here, rows = 20, int(self.counts.sum())
        lines = [f"{rows} rows, {len(self.counts)} patterns; . observed, x missing"]
        lines += [f"{share:7.1%}  {name}" for name, share in zip(self.names, self.shares, strict=True)]
        for pattern, count in list(zip(self.patterns, self.counts, strict=True))[:shown_here]:
            lines.append(f"{count:>7}  {''.join('x' if cell else '.' for cell in pattern)}")
        more = len(self.counts) - shown_here
        return "\n".join(lines + ([f"    ...  {more} more patterns"] if more > 0 else []))


def missing_patterns(X: Any, names: Sequence[Any] | None = None) -> MissingPatterns:
    """Which columns of a table are missing together, and how often.

    Parameters
    ----------
    X : array of shape (rows, columns) with NaN where a cell is missing, or a data frame.
    names : of the columns; those of a data frame are known.

    Raises
    ------
    ValueError
        When X has no rows, is no table, or the names do not fit.

    Examples
    --------
    >>> print(missing_patterns([[1.0, 2.0], [3.0, np.nan], [4.0, np.nan]], names=["age", "income"]))
    3 rows, 2 patterns; . observed, x missing
       0.0%  age
      66.7%  income
          2  .x
          1  ..
    """
    if is_frame(X):
        missing, names = X.isna().to_numpy(bool), list(X.columns) if names is None else names
    else:
        missing = np.isnan(np.asarray(X, float))
    good, do = missing.ndim == 2 and missing.size > 0, "give a table"
    require(good, "missing_patterns", "an array of shape (rows, columns)", f"shape {missing.shape}", do)
    names = [f"x{j}" for j in range(missing.shape[1])] if names is None else names
    same = len(names) == missing.shape[1]
    require(same, "names", f"one for each of {missing.shape[1]} columns", f"{len(names)}", "name every column")
    patterns, counts = np.unique(missing, axis=0, return_counts=True)
    order = np.lexsort((patterns.sum(axis=1), -counts))
    return MissingPatterns(tuple(map(str, names)), patterns[order], counts[order], missing.mean(axis=0))
