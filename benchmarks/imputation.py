"""How far filled cells are from what was removed: ``python benchmarks/imputation.py [table ...] [--quick]``.

Two kinds of tables, from which cells were removed completely at random:

- The six of the MIWAE paper (Mattei & Frellsen 2019, arXiv:1812.02633): numbers alone, half of them removed by a fixed
  seed. The error is theirs, the mean square over the removed cells in units of the columns' standard deviations.
- The four of the HI-VAE paper (Nazabal et al. 2020, arXiv:1807.03653), of columns of several kinds, a tenth to a half
  of the cells removed by the first of the masks that its authors published for each share. The error is theirs, too:
  over the removed cells of a column, the root mean square divided by the range of the column (numbers, counts), the
  share of wrong cells (categories), the mean distance in levels divided by their number (ordinals); then the mean over
  the columns.

Contenders are the mean (the mode of levels), ridge regressions chained as by scikit-learn's `IterativeImputer`, on
numbers that itself, trees (the type of missForest: on numbers the same `IterativeImputer` with extremely randomised
trees, on several kinds missForest's own rounds of random forests), and Ravine's `MIWAE`. One setting serves all tables,
that of the recipe. Training stops by the bound of held-out rows with their holes. The step
size and the least scale were chosen by the squared error of a tenth of the observed cells of some of the six tables,
held out for that; the bound cannot judge a least scale where values repeat. No removed cell is looked at. Standard
errors take rows as the independent units, and those of differences are paired.

The tables are read from the folder that the environment variable RAVINE_DATA names (breast cancer is scikit-learn's
own); class labels of the six are left out. Each table is kept in ``results/imputation/`` when it is done, and
``results/imputation.md`` is written from all that are there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.linear_model import Ridge

import ravine as rv

RESULTS = Path(__file__).parent / "results"
SHARE, SEED, ROUNDS = 0.5, 0, 10
SHARES = (10, 20, 30, 40, 50)
SETTING: dict[str, Any] = {"random_state": SEED, "progress": False}
QUICK: dict[str, Any] = {"steps": 50, "particles": 20, "validation": 0.0}
TREES, FEWER, WIDE = 100, 30, 500_000  # trees of a forest; of tables with more cells than that
LARGE, CAP, SCORED = 10_000, 3_000, 5_000  # tables of more rows than that: at most so many steps, so many rows scored


def main() -> None:
    """Impute the tables that were named, or all, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = dict.fromkeys(NUMBERS, numbers) | dict.fromkeys(KINDS, several)
    parser.add_argument(
        "names", nargs="*", metavar="table", help=f"which of {', '.join(known)}; all when none is named"
    )
    parser.add_argument("--share", type=int, choices=SHARES, help="per cent removed, of the tables of several kinds")
    parser.add_argument("--quick", action="store_true", help="few steps and trees: to see that it runs; writes nothing")
    chosen = parser.parse_args()
    for name in set(chosen.names) - set(known):
        parser.error(f"no table is called {name}; there are {', '.join(known)}.")
    for name in chosen.names or known:
        for found in known[name](name, chosen.share, chosen.quick):
            print(line(found), flush=True)
            if not chosen.quick:
                keep(found)


class Cells(NamedTuple):
    """A table whose removed cells are known: as numbers, with each column's kind and the unit of its error.

    The first `scored` rows are judged; every row is there to learn from.
    """

    truth: np.ndarray
    removed: np.ndarray
    kinds: tuple[str, ...]
    units: tuple[float, ...]

    @property
    def scored(self) -> int:
        """How many rows are imputed and judged: of a large table some thousands tell enough."""
        return len(self.truth) if len(self.truth) <= LARGE else SCORED

    def judged(self) -> Cells:
        """The rows that are scored."""
        return self._replace(truth=self.truth[: self.scored], removed=self.removed[: self.scored])

    def holed(self) -> np.ndarray:
        """What a contender is given."""
        return np.where(self.removed, np.nan, self.truth)


# --- errors: the mean over columns of an error of each, and how it depends on every row


def numbers(name: str, _: int | None, quick: bool) -> Iterator[dict[str, Any]]:
    """One of the six tables."""
    table = NUMBERS[name]()
    truth = (table - table.mean(axis=0)) / table.std(axis=0)
    removed = np.random.default_rng(SEED).random(truth.shape) < SHARE
    cells = Cells(truth, removed, ("real",) * truth.shape[1], (1.0,) * truth.shape[1])
    fits = {"mean": lambda X: SimpleImputer(keep_empty_features=True).fit_transform(X), "ridge": iterated}
    fits |= {"trees": lambda X: iterated(X, trees(quick)), "MIWAE": lambda X: learned(X, None, quick)}
    yield compared(name, "numbers", 50, cells, fits, squared)


def several(name: str, only: int | None, quick: bool) -> Iterator[dict[str, Any]]:
    """One of the four tables, at each share of removed cells."""
    for share in (only,) if only else SHARES[-1:] if quick else SHARES:
        cells = published(KINDS[name], share)
        fits = {
            "mean": lambda X, cells=cells: usual(X, cells),
            "ridge": lambda X, cells=cells: of_levels(X, cells),
            "trees": lambda X, cells=cells: forests(X, cells, quick),
            "MIWAE": lambda X, cells=cells: learned(X, cells, quick),
        }
        yield compared(name, "several kinds", share, cells, fits, of_kinds)


Fill = Callable[[np.ndarray], np.ndarray]
Judge = Callable[[Cells, np.ndarray], tuple[float, np.ndarray]]


def compared(name: str, group: str, share: int, cells: Cells, fits: dict[str, Fill], judge: Judge) -> dict[str, Any]:
    """Errors with their standard errors, differences from MIWAE with theirs, and seconds."""
    errors, by_row, seconds = {}, {}, {}
    for contender, fill in fits.items():
        started = time.perf_counter()
        errors[contender], by_row[contender] = judge(cells.judged(), fill(cells.holed())[: cells.scored])
        seconds[contender] = time.perf_counter() - started
    spread = {contender: root_sum(rows) for contender, rows in by_row.items()}
    gaps = {other: (errors["MIWAE"] - errors[other], root_sum(by_row["MIWAE"] - by_row[other])) for other in errors}
    del gaps["MIWAE"]
    found = {"table": name, "group": group, "share": share, "shape": cells.truth.shape, "errors": errors}
    return found | {"standard_errors": spread, "gaps": gaps, "seconds": seconds}


def root_sum(rows: np.ndarray) -> float:
    return float(np.sqrt((rows**2).sum()))


def squared(cells: Cells, filled: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean square over the removed cells, and what each row adds to its deviation from the expectation."""
    off = np.where(cells.removed, (filled - cells.truth) ** 2, 0)
    count, mean = cells.removed.sum(), off.sum() / cells.removed.sum()
    return float(mean), (off - mean * cells.removed).sum(axis=1) / count


def of_kinds(cells: Cells, filled: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean over the columns of the error of its kind, and what each row adds to its deviation, to first order."""
    total, by_row = 0.0, np.zeros(len(filled))
    columns = zip(cells.truth.T, filled.T, cells.removed.T, cells.kinds, cells.units, strict=True)
    for x, made, gone, kind, unit in columns:
        number = kind not in ("cat", "ordinal")
        apart = x != made if kind == "cat" else np.abs(x - made) ** (2 if number else 1)
        part = apart[gone].mean()
        rows = np.where(gone, apart - part, 0) / gone.sum()
        error, slope = (np.sqrt(part), 0.5 / np.sqrt(part)) if number else (part, 1.0)
        total, by_row = total + error / unit, by_row + rows * slope / unit
    return float(total / len(cells.kinds)), by_row / len(cells.kinds)


# --- contenders: each is given nothing but the table with its holes


def learned(X: np.ndarray, cells: Cells | None, quick: bool) -> np.ndarray:
    """What Ravine's recipe fills in."""
    fields = SETTING | ({"steps": CAP} if len(X) > LARGE else {}) | (QUICK if quick else {})
    if cells is None:
        return np.asarray(rv.MIWAE(**fields).fit(X).impute(X))
    columns = {f"c{j}": said(X[:, j], kind) for j, kind in enumerate(cells.kinds)}
    frame = pd.DataFrame(X, columns=list(columns))
    return rv.MIWAE(columns=columns, **fields).fit(frame).impute(frame[: cells.scored]).to_numpy(float)


def said(x: np.ndarray, kind: str) -> Any:
    """The kind of a column in Ravine's words; numbers that may be 0 have no logarithm."""
    seen = np.unique(x[~np.isnan(x)])
    if kind == "pos":
        return "positive" if seen[0] > 0 else "numeric"
    levels = "binary" if len(seen) == 2 else "category"
    return {"real": "numeric", "count": "count", "ordinal": "ordinal", "cat": levels}[kind]


def iterated(X: np.ndarray, regressor: Any = None) -> np.ndarray:
    """Chained regressions, each column on the others; ten rounds are the default of scikit-learn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return IterativeImputer(regressor, max_iter=ROUNDS, random_state=SEED).fit_transform(X)


def trees(quick: bool) -> ExtraTreesRegressor:
    return ExtraTreesRegressor(n_estimators=5 if quick else TREES, random_state=SEED)


def usual(X: np.ndarray, cells: Cells) -> np.ndarray:
    """The mean of numbers, the most frequent level."""
    filled = X.copy()
    for j, kind in enumerate(cells.kinds):
        seen = X[~np.isnan(X[:, j]), j]
        values, counts = np.unique(seen, return_counts=True)
        filled[np.isnan(X[:, j]), j] = values[np.argmax(counts)] if kind in ("cat", "ordinal") else seen.mean()
    return filled


def of_levels(X: np.ndarray, cells: Cells) -> np.ndarray:
    """Chained ridge regressions on standardised columns, one for each level of a category; the largest level wins."""
    seen = [np.unique(x[~np.isnan(x)]) for x in X.T]
    columns = zip(X.T, seen, cells.kinds, strict=True)
    parts = [indicators(x, values) if kind == "cat" else x[:, None] for x, values, kind in columns]
    scales = [(np.nanmean(part, axis=0), np.nanstd(part, axis=0)) for part in parts]
    made = chained([(part - m) / s for part, (m, s) in zip(parts, scales, strict=True)])
    filled = X.copy()
    for j, (part, (m, s)) in enumerate(zip(made, scales, strict=True)):
        filled[:, j] = np.where(np.isnan(X[:, j]), levelled(part * s + m, seen[j], cells.kinds[j]), X[:, j])
    return filled


def chained(parts: list[np.ndarray]) -> list[np.ndarray]:
    """As `IterativeImputer`, but the levels of a category are predicted together and never from each other.

    Column by column, each level would be learned from the other levels of its own column, from which it follows, and
    would stay where it started.
    """
    gone = [np.isnan(part[:, 0]) for part in parts]
    parts = [np.nan_to_num(part) for part in parts]
    for _ in range(ROUNDS):
        for j in sorted(range(len(parts)), key=lambda j: gone[j].sum()):
            others = np.concatenate(parts[:j] + parts[j + 1 :], axis=1)
            if gone[j].any():
                learned = Ridge().fit(others[~gone[j]], parts[j][~gone[j]])
                parts[j][gone[j]] = learned.predict(others[gone[j]]).reshape(-1, parts[j].shape[1])
    return parts


def forests(X: np.ndarray, cells: Cells, quick: bool) -> np.ndarray:
    """missForest (Stekhoven & Buehlmann 2012, arXiv:1105.0828): each column from the others, fewest holes first.

    It stops, and takes the round before, when numbers and categories both change more than they did in the last round.
    Where a column has no holes it is not learned; on large tables each tree sees some thousands of rows.
    """
    many = FEWER if X.size > WIDE else TREES
    setting: dict[str, Any] = {"n_estimators": 5 if quick else many, "max_features": "sqrt", "random_state": SEED}
    setting |= {"n_jobs": -1, "max_samples": SCORED if len(X) > LARGE else None}
    gone, sorts = np.isnan(X), np.isin(cells.kinds, ["cat"])
    seen = [np.unique(x[~np.isnan(x)]) for x in X.T]
    filled, before = usual(X, cells), (np.inf, np.inf)
    for _ in range(ROUNDS):
        last, filled = filled, filled.copy()
        for j in sorted(np.flatnonzero(gone.any(axis=0)), key=lambda j: gone[:, j].sum()):
            kind, others = RandomForestClassifier if sorts[j] else RandomForestRegressor, np.delete(filled, j, axis=1)
            forest = kind(**setting).fit(others[~gone[:, j]], X[~gone[:, j], j])
            made = forest.predict(others[gone[:, j]])[:, None]
            filled[gone[:, j], j] = made[:, 0] if sorts[j] else levelled(made, seen[j], cells.kinds[j])
        change = moved(filled[:, ~sorts], last[:, ~sorts]), float((filled != last)[:, sorts].sum())
        if change[0] >= before[0] and (change[1] >= before[1] or not sorts.any()):
            return last
        before = change
    return filled


def moved(filled: np.ndarray, last: np.ndarray) -> float:
    """Squared change of numbers as a share of their squares."""
    return float(((filled - last) ** 2).sum() / (filled**2).sum())


def indicators(x: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A column of 0 and 1 for each level; NaN where missing."""
    return np.where(np.isnan(x)[:, None], np.nan, x[:, None] == values)


def levelled(part: np.ndarray, values: np.ndarray, kind: str) -> np.ndarray:
    """The value that a regression's numbers stand for."""
    if kind == "cat":
        return values[np.argmax(part, axis=1)]
    return np.clip(np.rint(part[:, 0]), values[0], values[-1]) if kind == "ordinal" else part[:, 0]


# --- what is written


def line(found: dict[str, Any]) -> str:
    """One row of the table: errors, and differences from MIWAE with their paired standard errors."""
    rows, columns = found["shape"]
    cells = [f"{found['table']}, {rows} x {columns}", f"{found['share']} %"]
    cells += [f"{error:.4f} ± {found['standard_errors'][name]:.4f}" for name, error in found["errors"].items()]
    cells += [f"{gap:+.4f} ± {error:.4f}" for gap, error in found["gaps"].values()]
    return f"| {' | '.join([*cells, format(found['seconds']['MIWAE'], '.0f')])} |"


def keep(found: dict[str, Any]) -> None:
    """Write one table's numbers, and the page of all that were ever written."""
    folder = RESULTS / "imputation"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found['table'].replace(' ', '-')}-{found['share']}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    known = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    order = [*NUMBERS, *KINDS]
    known.sort(key=lambda one: (order.index(one["table"]), one["share"]))
    (RESULTS / "imputation.md").write_text(page(known))


def page(known: list[dict[str, Any]]) -> str:
    """The tables of both groups."""
    words = {
        "numbers": "Six tables of numbers: mean squared error in units of the columns' standard deviations.",
        "several kinds": "Tables with columns of several kinds: mean over the columns of the root mean square divided\n"
        "by the range (numbers), the share of wrong cells (categories) or the mean distance in levels divided by\n"
        "their number (ordinals).",
    }
    parts = [
        HEAD.format(
            recipe=" ".join(repr(rv.MIWAE(**SETTING)).split()),
            rounds=ROUNDS,
            trees=TREES,
            fewer=FEWER,
            wide=WIDE,
            large=LARGE,
            cap=CAP,
            scored=SCORED,
        )
    ]
    for group, text in words.items():
        here = [one for one in known if one["group"] == group]
        if here:
            others = list(here[0]["gaps"])
            heads = [
                "table",
                "removed",
                *here[0]["errors"],
                *(f"MIWAE - {other}" for other in others),
                "seconds of MIWAE",
            ]
            parts += [text + "\n", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *map(line, here), ""]
    return "\n".join(parts)


HEAD = """Cells were removed completely at random; errors are over the removed cells, ± a standard error with rows as
units. Differences are paired: below 0, MIWAE is closer to the truth. *mean* is the mean, or the mode of levels; *ridge*
and *trees* are scikit-learn's `IterativeImputer`, {rounds} rounds of Bayesian ridge regressions or of 100 extremely
randomised trees; where there are levels, *ridge* is as many rounds of plain ridge regressions that predict the levels
of a column together, and *trees* are missForest's random forests, until its own rule stops them, of {trees} trees, or
{fewer} where a table has more than {wide:,} cells. One setting for all tables: `{recipe}`. On more
than {large} rows it has `steps={cap}`, each tree of a forest sees {scored} rows, and the first {scored} rows are
scored. The errors that the papers print are not beside them: none could be confirmed for these masks.
Written by `python benchmarks/imputation.py`.
"""


# --- the tables


def data() -> Path:
    return Path(os.environ["RAVINE_DATA"])


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


def published(name: str, share: int) -> Cells:
    """A table with the first published mask of this share of its cells; what was never known is not scored."""
    kept = np.load(data() / "hivae_missing" / f"{name}.npz")
    x = kept["x"]
    removed = np.unpackbits(kept[f"missing{share}_packed"][0])[: x.size].reshape(x.shape).astype(bool)
    kinds = tuple(text.split(",")[0] for text in kept["column_types"][1:])
    levels = [float(text.split(",")[1]) for text in kept["column_types"][1:]]
    spans = np.nanmax(x, axis=0) - np.nanmin(x, axis=0)
    units = {"cat": np.ones(len(kinds)), "ordinal": np.array(levels)}
    return Cells(x, removed & ~np.isnan(x), kinds, tuple(units.get(kind, spans)[j] for j, kind in enumerate(kinds)))


NUMBERS: dict[str, Callable[[], np.ndarray]] = {
    "banknote": lambda: lines_of("banknote_authentication", slice(0, 4)),
    "breast cancer": lambda: load_breast_cancer().data,
    "concrete": concrete,
    "red wine": lambda: red_or_white(1.0),
    "white wine": lambda: red_or_white(2.0),
    "yeast": lambda: lines_of("yeast", slice(0, 8)),
}
KINDS = {"wine": "wine", "breast": "breast", "adult": "adult", "default credit": "defaultcredit"}


if __name__ == "__main__":
    main()
