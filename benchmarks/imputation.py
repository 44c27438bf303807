"""Squared error of imputation on the six tables of the MIWAE paper: ``python benchmarks/imputation.py [table ...]``.

Half of the cells of each table are removed completely at random, by a fixed seed; the error is the mean square over the
removed cells, in units of the columns' standard deviations. Contenders are the column mean, scikit-learn's
`IterativeImputer` with Bayesian ridge regression and with extremely randomised trees (the type of missForest), and
Ravine's `MIWAE`. One setting serves all tables; early stopping looks at held-out rows with their holes, never at a
removed cell. Standard errors of differences are paired: over removed cells, with the rows as independent units.

The tables are read from the folder that the environment variable RAVINE_DATA names (breast is scikit-learn's own).
Class labels are left out. A run over all tables is written to ``results/imputation.md``.
"""

from __future__ import annotations

import argparse
import gzip
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, SimpleImputer

import ravine as rv

RESULTS = Path(__file__).parent / "results"
SHARE, SEED = 0.5, 0
QUICK_STEPS = 200


def main() -> None:
    """Impute the tables that were named, or all, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="table", help=f"which of {', '.join(TABLES)}; all when none is named"
    )
    parser.add_argument("--quick", action="store_true", help="few steps and trees: to see that it runs; writes nothing")
    chosen = parser.parse_args()
    for name in set(chosen.names) - set(TABLES):
        parser.error(f"no table is called {name}; there are {', '.join(TABLES)}.")
    found = {}
    for name in chosen.names or TABLES:
        found[name] = compare(name, TABLES[name](), chosen.quick)
        print(line(name, found[name]), flush=True)
    if list(found) == list(TABLES) and not chosen.quick:
        keep(found)


def compare(name: str, table: np.ndarray, quick: bool) -> dict[str, Any]:
    """Squared errors of the removed cells for every contender, and how long each took."""
    truth = (table - table.mean(axis=0)) / table.std(axis=0)
    removed = np.random.default_rng(SEED).random(truth.shape) < SHARE
    holed = np.where(removed, np.nan, truth)
    found: dict[str, Any] = {"shape": truth.shape, "rows": np.nonzero(removed)[0], "errors": {}, "seconds": {}}
    for contender, impute in contenders(quick).items():
        started = time.perf_counter()
        filled = impute(holed)
        found["seconds"][contender] = time.perf_counter() - started
        found["errors"][contender] = ((filled - truth) ** 2)[removed]
    return found


def contenders(quick: bool) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Ways to fill a table, by name; each is given nothing but the table with its holes."""
    steps = {"steps": QUICK_STEPS} if quick else {}
    trees = ExtraTreesRegressor(n_estimators=5 if quick else 100, random_state=SEED)
    rounds = 2 if quick else 10
    return {
        "mean": SimpleImputer(keep_empty_features=True).fit_transform,
        "ridge": lambda X: iterated(X, None, rounds),
        "trees": lambda X: iterated(X, trees, rounds),
        "MIWAE": lambda X: np.asarray(rv.MIWAE(random_state=SEED, progress=False, **steps).fit(X).impute(X)),
    }


def iterated(X: np.ndarray, regressor: Any, rounds: int) -> np.ndarray:
    """Chained regressions, each column on the others; ten rounds are the default of scikit-learn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return IterativeImputer(regressor, max_iter=rounds, random_state=SEED).fit_transform(X)


def clustered(values: np.ndarray, rows: np.ndarray) -> float:
    """Standard error of the mean of values whose rows are the independent units."""
    sums = np.bincount(rows, values - values.mean())
    return float(np.sqrt((sums**2).sum()) / len(values))


def line(name: str, found: dict[str, Any]) -> str:
    """One row of the table: mean squared errors, and differences from MIWAE with their paired standard errors."""
    errors, rows = found["errors"], found["rows"]
    cells = [f"{name} ({found['shape'][0]} x {found['shape'][1]})"]
    cells += [f"{values.mean():.3f} +- {clustered(values, rows):.3f}" for values in errors.values()]
    for other in ("mean", "ridge", "trees"):
        gap = errors["MIWAE"] - errors[other]
        cells.append(f"{gap.mean():+.3f} +- {clustered(gap, rows):.3f}")
    cells.append(f"{found['seconds']['MIWAE']:.0f}")
    return f"| {' | '.join(cells)} |"


HEAD = """# Imputation of removed cells

Mean squared error in standardised units, {share:.0%} of the cells removed completely at random (seed {seed}); standard
errors over the removed cells with rows as units, paired for differences (below 0: MIWAE is closer to the truth).
Settings: `{recipe}`, the same for all tables. Written by `python benchmarks/imputation.py`.

| table | mean | ridge | trees | MIWAE | MIWAE - mean | MIWAE - ridge | MIWAE - trees | seconds of MIWAE |
|---|---|---|---|---|---|---|---|---|
"""


def keep(found: dict[str, dict[str, Any]]) -> None:
    """Write the table."""
    RESULTS.mkdir(exist_ok=True)
    head = HEAD.format(share=SHARE, seed=SEED, recipe=" ".join(repr(rv.MIWAE(random_state=SEED)).split()))
    lines = [line(name, one) for name, one in found.items()]
    (RESULTS / "imputation.md").write_text(head + "\n".join(lines) + "\n")


# --- the tables, class labels left out


def lines_of(name: str, columns: slice) -> np.ndarray:
    """Numbers of a compressed text file."""
    with gzip.open(data() / "uci_tables" / f"{name}.csv.gz", "rt") as text:
        return np.genfromtxt(text, delimiter=",")[:, columns]


def red_or_white(colour: float) -> np.ndarray:
    """Eleven measurements and the quality score of one kind of wine."""
    x = np.load(data() / "hivae_missing" / "wine.npz")["x"]
    return x[x[:, -1] == colour, :-1]


def concrete() -> np.ndarray:
    """Eight ingredients and the strength."""
    kept = np.load(data() / "uci_regression" / "concrete.npz")
    return np.column_stack([kept["x"], kept["y"]])


def data() -> Path:
    return Path(os.environ["RAVINE_DATA"])


TABLES: dict[str, Callable[[], np.ndarray]] = {
    "banknote": lambda: lines_of("banknote_authentication", slice(0, 4)),
    "breast": lambda: load_breast_cancer().data,
    "concrete": concrete,
    "red wine": lambda: red_or_white(1.0),
    "white wine": lambda: red_or_white(2.0),
    "yeast": lambda: lines_of("yeast", slice(0, 8)),
}


if __name__ == "__main__":
    main()
