"""What a shell asks for of a table with holes: completed tables, and what to call the file of each."""

from __future__ import annotations

from typing import Any

from ravine._check import require, shown, whole


def named_tables(
    fitted: Any, X: Any, *, draws: int | None = None, interval: float | None = None, m: int | None = None
) -> dict[str, Any]:
    """Completed tables by what to add to the name of a file; at most one of the three may be asked for.

    Parameters
    ----------
    fitted : an estimator after `fit`.
    X : rows with NaN where a cell is missing; with ``m`` the table it was fitted on.
    draws : so many conditional draws, named ``-1``, ``-2``, ...: the fitted parameters are taken as known.
    interval : a probability; the completed table, and ``-low`` and ``-high`` with the ends of the intervals.
    m : so many tables of proper multiple imputation, named ``-1``, ``-2``, ...; see `multiple_impute`.

    Raises
    ------
    ValueError
        When more than one is asked for, or a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from ravine.recipes.factor_analysis import FactorAnalysis
    >>> X = np.random.default_rng(0).normal(size=(50, 3)).cumsum(axis=1)
    >>> model = FactorAnalysis(latents=1, random_state=0).fit(X)
    >>> list(named_tables(model, [[0.5, np.nan, 1.0]], interval=0.9))
    ['', '-low', '-high']
    """
    asked = {"draws": draws, "interval": interval, "m": m}
    given = [name for name, value in asked.items() if value is not None]
    require(len(given) < 2, "impute", "one of draws, interval, m", shown(given), "run it once for each")
    if interval is not None:
        low, high = fitted.impute(X, interval=interval)
        return {"": fitted.impute(X), "-low": low, "-high": high}
    if not given:
        return {"": fitted.impute(X)}
    tables = fitted.multiple_impute(X, m) if m is not None else fitted.impute(X, draws=whole("draws", draws))
    return {f"-{i}": table for i, table in enumerate(tables, 1)}
