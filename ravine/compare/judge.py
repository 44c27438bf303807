"""Which of two models is better, from the log-likelihoods of the same rows; and how to say it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from ravine.core import Direction

Verdict = Literal["better", "worse", "undecided"]
ERRORS = 2.0  # a difference counts from so many standard errors on

AT_LEAST = ("exact", "lower")  # the truth is not below such a number
AT_MOST = ("exact", "upper")
KINDS = {"exact": "exact", "lower": "lower bound", "upper": "upper bound", "estimate": "estimate"}
WITH_ARTICLE = {"exact": "exact", "lower": "a lower bound", "upper": "an upper bound", "estimate": "an estimate"}


class Gap(NamedTuple):
    """How far a lower bound of a model lies below its upper one, in nats per row: the mean over some held-out rows."""

    mean: float
    standard_error: float
    method: str


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one model: a number for each held-out row, or the line with which it was refused.

    ``values`` and ``errors`` (Monte Carlo) are in nats per row; ``shared`` is the standard error of what all of them
    have in common, such as log Z; ``gap`` leads to a lower bound where the numbers are upper ones; ``footing`` is the
    base measure of every column; ``seconds`` were spent on fitting.
    """

    label: str
    seconds: float = 0.0
    reason: str | None = None
    values: np.ndarray = field(default_factory=lambda: np.zeros(0))
    errors: np.ndarray = field(default_factory=lambda: np.zeros(0))
    shared: float = 0.0
    gap: Gap | None = None
    direction: Direction = "exact"
    method: str = ""
    footing: tuple[str, ...] = ()
    parameters: int | None = None
    warning: str | None = None

    @property
    def mean(self) -> float:
        """Mean log-likelihood in nats per row."""
        return float(np.mean(self.values))

    def standard_error(self) -> float:
        """Of the mean, over rows and Monte Carlo draws; infinite for a single row."""
        return standard_error(self.values, self.errors, shared=self.shared)

    def lowest(self) -> Outcome:
        """With the lower bound in place of the numbers, where there is one.

        What the numbers have in common is in the gap, too, and cancels.
        """
        if self.gap is None:
            return self
        mean, error, method = self.gap
        return replace(self, values=self.values - mean, shared=error, gap=None, direction="lower", method=method)


class Difference(NamedTuple):
    """How far the first of two models is above the second: mean of the paired differences, in nats per row."""

    mean: float
    standard_error: float
    verdict: Verdict


def standard_error(values: np.ndarray, *errors: np.ndarray, shared: float = 0.0) -> float:
    """Standard error of the mean of ``values``, Monte Carlo errors per row and of all rows added in quadrature.

    ``sqrt(var(values) / n + sum(errors^2) / n^2 + shared^2)``. The variance over rows already holds some of the Monte
    Carlo noise, so this errs on the careful side. Infinite for fewer than two rows.

    Examples
    --------
    >>> standard_error(np.array([1.0, 3.0])), standard_error(np.ones(1))
    (1.0, inf)
    """
    rows = len(values)
    if rows < 2:
        return math.inf
    noise = sum(float(np.sum(np.square(error))) for error in errors)
    return math.sqrt(float(np.var(values, ddof=1)) / rows + noise / rows**2 + shared**2)


def verdict(mean: float, error: float, a: Direction, b: Direction) -> Verdict:
    """Whether model A is better than model B, where A - B is ``mean`` with this standard error.

    A is better when the difference is above 2 standard errors and both numbers make it safe: A's is exact or a lower
    bound (the truth is not lower), and B's is exact or an upper bound (the truth is not higher). A is worse when B is
    better. All else is undecided: nobody is called worse for a lower bound that is low.

    Examples
    --------
    >>> verdict(1.0, 0.1, "lower", "exact"), verdict(1.0, 0.1, "exact", "lower"), verdict(-1.0, 0.1, "exact", "exact")
    ('better', 'undecided', 'worse')
    """
    if mean > ERRORS * error and a in AT_LEAST and b in AT_MOST:
        return "better"
    if -mean > ERRORS * error and b in AT_LEAST and a in AT_MOST:
        return "worse"
    return "undecided"


def difference(a: Outcome, b: Outcome) -> Difference:
    """A minus B, paired by row; from the lower bound of either, where it has one and only that decides."""
    tried = [_paired(*pair) for pair in ((a, b), (a.lowest(), b), (a, b.lowest()))]
    return next((d for d in tried if d.verdict != "undecided"), tried[0])


def _paired(a: Outcome, b: Outcome) -> Difference:
    paired, shared = a.values - b.values, math.hypot(a.shared, b.shared)
    mean, error = float(np.mean(paired)), standard_error(paired, a.errors, b.errors, shared=shared)
    return Difference(mean, error, verdict(mean, error, a.direction, b.direction))


def main_footing(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """The base measure that most models share; the first one's when several are as common."""
    counts = Counter(outcome.footing for outcome in outcomes if outcome.reason is None)
    return counts.most_common(1)[0][0] if counts else ()


def unranked(outcome: Outcome, shared: tuple[str, ...], names: Sequence[str]) -> str | None:
    """Why the number of a model cannot be ranked among the others; None when it can."""
    if outcome.reason is not None:
        return f"refused: {outcome.reason}"
    if outcome.footing != shared:
        return "not ranked: " + _other_measure(outcome.footing, shared, names)
    lost = int(np.count_nonzero(~np.isfinite(outcome.values)))
    return f"not ranked: it leaves {lost} of {len(outcome.values)} held-out rows without probability" if lost else None


def _other_measure(own: tuple[str, ...], shared: tuple[str, ...], names: Sequence[str]) -> str:
    """In which columns two base measures differ. A footing has one entry for each column of each fold."""
    if len(own) != len(shared):
        return "it models other columns than the others"
    differing = [i for i, (a, b) in enumerate(zip(own, shared, strict=True)) if a != b]
    first, columns = differing[0], len({i % len(names) for i in differing})
    where = "every column" if columns == len(names) else f"{names[first % len(names)]!r}"
    where += f" and {columns - 1} more" if 1 < columns < len(names) else ""
    return f"{own[first]} in {where}, where the others have: {shared[first]}; different base measures have no order"


def best_of(ranked: Sequence[Outcome]) -> Outcome:
    """The highest number, or lower bound, that does not err high; the highest of all where there is none."""
    safe = [outcome for outcome in ranked if outcome.lowest().direction in AT_LEAST]
    return max(safe or ranked, key=lambda outcome: outcome.lowest().mean)


def words_of_best(best: Outcome, others: Mapping[str, Difference]) -> str:
    """The verdict on the model that is ranked first. ``others`` holds each minus the best."""
    beaten = [label for label, d in others.items() if d.verdict == "worse"]
    open_ = [label for label, d in others.items() if d.verdict != "worse"]
    parts = [f"better than {listed(beaten)}"] if beaten else []
    parts += [f"undecided against {listed(open_)}"] if open_ else []
    return "first: " + ("; ".join(parts) if parts else "nothing to compare with")


def words_of_other(outcome: Outcome, best: str, d: Difference) -> str:
    """The verdict on a model that is not ranked first; ``d`` is it minus the best."""
    by = f"{abs(d.mean):.3g} +- {d.standard_error:.2g}"
    side = "below" if d.mean < 0 else "above"
    if d.verdict == "worse":
        return f"worse than {best} by {by}"
    if abs(d.mean) <= ERRORS * d.standard_error:
        return f"undecided, {by} {side} {best} is within two standard errors"
    return f"undecided, its number is {WITH_ARTICLE[outcome.direction]} {by} {side} {best}"


def sentence(best: str, verdicts: Mapping[str, str], others: Mapping[str, Difference], left: Sequence[str]) -> str:
    """The whole comparison in one sentence.

    ``others`` holds each ranked model minus the best, ``verdicts`` its words, ``left`` those that were not ranked.
    """
    beaten = [label for label, d in others.items() if d.verdict == "worse"]
    head = f"{best} is better than {listed(beaten)}" if beaten else f"{best} is first, but better than no other"
    if not others:
        head = f"{best} has nothing to be compared with"
    open_ = [f"{label}: {verdicts[label]}" for label, d in others.items() if d.verdict != "worse"]
    tail = [f"{listed(left)}: not ranked, see below"] if left else []
    return "; ".join([head, *open_, *tail]) + "."


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them.

    Examples
    --------
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
