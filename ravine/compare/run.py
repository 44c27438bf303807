"""Fit everybody on the same rows, score everybody on the same other rows."""

from __future__ import annotations

import dataclasses
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ravine._check import one_line, require, whole
from ravine.blame import RobustnessWarning
from ravine.compare import entrants as parties
from ravine.compare.comparison import Comparison, compared
from ravine.compare.judge import Gap, Outcome, main_footing
from ravine.compare.reading import Reading, column_names, footing, reading_of_data, reading_of_fit
from ravine.core import LogLikelihood
from ravine.data.frames import is_frame, taken


class Division(NamedTuple):
    """Rows to learn from, rows to be scored on, and the places of the latter in the result."""

    train: Any
    held_out: Any
    places: np.ndarray


def compare(
    X: Any,
    recipes: Any = None,
    *,
    held_out: Any = 0.2,
    folds: int | None = None,
    baselines: bool = True,
    random_state: int = 0,
    columns: Mapping[Any, Any] | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Fit several recipes and the baselines to the same rows, and compare log p of the same held-out rows.

    Model A is better than model B when the mean of the paired differences ``d_i = log p_A(x_i) - log p_B(x_i)`` is
    above two of its standard errors ``sqrt(var(d) / n + Monte Carlo variance)``, and the numbers make it safe: A's is
    exact or a lower bound, B's is exact or an upper bound. Everything else is undecided. The error of log Z, which
    the numbers of an energy share, counts once and in full; beside the upper bound that annealing gives, `RAISE` finds
    how far below a lower one lies, on some rows, and that may decide. Numbers of different base
    measures (densities and probabilities) are never ranked; the base measure that most models share is.

    Parameters
    ----------
    X : rows to learn from: an array (rows, columns), images, or a data frame; NaN where a cell is missing.
    recipes : a list of estimators, which are copied, and of names of recipes, or a mapping from label to either.
        None takes a few that suit the data. An estimator reads the data as its fields say; a name stands for the
        recipe's defaults, on the base measure of the data: a recipe for real cells sees others through uniform noise.
    held_out : rows to score on, or the share of the rows of ``X`` that is kept for that.
    folds : number of parts for cross-validation: every row is scored by the models that were fitted to the other parts.
    baselines : compare with independent columns, one full Gaussian, and the tree of Chow & Liu (1968) too. They read
        the data as most of the recipes do.
    random_state : seed of the division, and of every estimator that has none of its own.
    columns : declared kinds of columns, for every recipe that declares none; see `LatentVariableModel`.
    progress : say on standard error what is being fitted; None says it to a terminal.

    Returns
    -------
    A `Comparison`. A recipe that refuses the data is in it, with the line that says why. Ctrl-C ends the fitting; when
    at least two models are done, these are compared.

    Raises
    ------
    ValueError
        When there are too few rows to divide, a recipe is unknown, or the options contradict each other.

    Examples
    --------
    >>> import ravine as rv
    >>> X = np.random.default_rng(0).normal(size=(200, 3)).cumsum(axis=1)
    >>> made = compare(X, [rv.FactorAnalysis(latents=1, random_state=0)], baselines=False)
    >>> made.rows[0].direction, made.scores["factor-analysis"].shape
    ('exact', (40,))
    """
    seed = whole("random_state", random_state, 0)
    divisions = _divided(_rows(X), held_out, folds, seed)
    first = divisions[0].train
    run = Run(divisions, sys.stderr.isatty() if progress is None else progress)
    run.all(parties.entrants(first, recipes, columns, seed))
    if baselines and not run.interrupted:
        run.all(_baselines(first, run, columns, seed))
    names = column_names(first, int(np.prod(np.shape(first)[1:])))
    setting = {"train_rows": max(len(d.train) for d in divisions), "folds": folds, "seed": seed}
    for line, kind in run.noted.items():
        warnings.warn(line, kind, stacklevel=2)
    require(run.outcomes, "recipes", "at least one, or baselines", "none", "name some")
    return compared(run.outcomes, names, held_out_rows=sum(len(d.places) for d in divisions), **setting)


def _baselines(X: Any, run: Run, columns: Any, seed: int) -> dict[str, Any]:
    """The baselines, reading the data as most of the recipes have."""
    shared = main_footing(run.outcomes)
    readings = [run.readings[o.label] for o in run.outcomes if o.reason is None and o.footing == shared]
    return parties.baselines(X, readings[0] if readings else reading_of_data(X, columns), seed)


class Run:
    """What came of everybody so far.

    Attributes
    ----------
    outcomes : of each model, in the order of fitting.
    readings : label to how a recipe has read the data.
    noted : what was warned of, and by which kind of warning.
    interrupted : Ctrl-C was pressed.
    """

    def __init__(self, divisions: Sequence[Division], tell: bool) -> None:
        self.divisions, self.tell = divisions, tell
        self.outcomes: list[Outcome] = []
        self.readings: dict[str, Reading] = {}
        self.noted: dict[str, type[Warning]] = {}
        self.interrupted = False

    def all(self, entrants: Mapping[str, Any]) -> None:
        """Fit and score one after the other; Ctrl-C ends it, with what is done when at least two are."""
        try:
            for label, entrant in entrants.items():
                self.outcomes.append(self._one(label, entrant))
        except KeyboardInterrupt:
            if len(self.outcomes) < 2:
                raise
            self.interrupted = True

    def _one(self, label: str, entrant: Any) -> Outcome:
        seconds, got, fitted = 0.0, [], None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                for i, division in enumerate(self.divisions):
                    self._say(label, i)
                    before = time.perf_counter()
                    fitted = _fitted(entrant, division.train)
                    seconds += time.perf_counter() - before
                    got.append(_scored(fitted, division.held_out))
            except ValueError as error:
                return Outcome(label, seconds, one_line(error).rstrip("."))
        warning = self._warned(caught)
        self.readings[label] = {} if isinstance(fitted, parties.TreeOfColumns) else reading_of_fit(fitted)
        made = _joined(label, got, [division.places for division in self.divisions])
        return dataclasses.replace(made, seconds=seconds, parameters=parties.parameters(fitted), warning=warning)

    def _warned(self, caught: list[warnings.WarningMessage]) -> str | None:
        """The line on numbers that were not finite, if any; other lines are kept to be told once."""
        lines = {str(one.message): one.category for one in caught}
        self.noted |= {line: kind for line, kind in lines.items() if kind is not RobustnessWarning}
        return next((line for line, kind in lines.items() if kind is RobustnessWarning), None)

    def _say(self, label: str, fold: int) -> None:
        if self.tell:
            where = f", fold {fold + 1} of {len(self.divisions)}" if len(self.divisions) > 1 else ""
            print(f"fitting {label}{where}", file=sys.stderr, flush=True)


def _fitted(entrant: Any, X: Any) -> Any:
    fitted = parties.fresh(entrant)
    fitted.fit(X)
    if not getattr(fitted, "complete_", True):  # training ends at Ctrl-C with what it has
        raise KeyboardInterrupt
    return fitted


class Scored(NamedTuple):
    """The base measure of every column, the numbers of held-out rows, and how far a lower bound is below them."""

    footing: tuple[str, ...]
    numbers: LogLikelihood
    gap: Gap | None


def _scored(fitted: Any, X: Any) -> Scored:
    numbers = fitted.log_likelihood(X)
    return Scored(footing(fitted.schema_, fitted.given_columns()), numbers, parties.gap(fitted, X, numbers))


def _joined(label: str, got: list[Scored], places: list[np.ndarray]) -> Outcome:
    """The numbers of all divisions, each in the place of its row."""
    values, errors = (np.empty(sum(map(len, places))) for _ in range(2))
    for at, one in zip(places, got, strict=True):
        values[at], errors[at] = one.numbers.value, one.numbers.standard_error
    first, share = got[0].numbers, np.array([len(at) for at in places]) / len(values)
    base = tuple(word for one in got for word in one.footing)
    told = {"direction": first.direction, "method": first.method, "footing": base}
    common = float(np.linalg.norm(share * [one.numbers.shared_error for one in got]))
    return Outcome(label, values=values, errors=errors, shared=common, gap=_joined_gap(got, share), **told)


def _joined_gap(got: list[Scored], share: np.ndarray) -> Gap | None:
    gaps = [one.gap for one in got if one.gap is not None]
    if len(gaps) < len(got):
        return None
    means, errors, methods = zip(*gaps, strict=True)
    return Gap(float(share @ means), float(np.linalg.norm(share * errors)), methods[0])


def _rows(X: Any) -> Any:
    return X if is_frame(X) or isinstance(X, np.ndarray) else np.asarray(X)


def _divided(X: Any, held_out: Any, folds: int | None, seed: int) -> list[Division]:
    """The rows to learn from and to score, once or for each fold; drawn as `ravine fit` draws them."""
    rows, order = len(X), np.random.default_rng(seed).permutation(len(X))
    if not isinstance(held_out, (int, float)):
        held_out = _rows(held_out)
        require(folds is None, "folds", "None beside rows to score on", f"{folds}", "leave one of the two out")
        require(len(held_out), "held_out", "at least one row", "0 rows", "check how it was made")
        return [Division(X, held_out, np.arange(len(held_out)))]
    if folds is None:
        require(0 < held_out < 1, "held_out", "rows, or a share above 0 and below 1", f"{held_out}", "change it")
        count = int(round(rows * held_out))
        enough = 1 <= count <= rows - 2
        require(enough, "X", "enough rows to hold some out", f"{rows}", "give more, or rows to score on")
        held = np.sort(order[:count])
        return [Division(taken(X, np.sort(order[count:])), taken(X, held), np.arange(count))]
    parts = np.array_split(order, whole("folds", folds, 2))
    require(folds <= rows // 2, "folds", "at most half as many as rows", f"{folds}", "choose fewer")
    return [_fold(X, np.sort(part)) for part in parts]


def _fold(X: Any, held: np.ndarray) -> Division:
    return Division(taken(X, np.setdiff1d(np.arange(len(X)), held)), taken(X, held), held)
