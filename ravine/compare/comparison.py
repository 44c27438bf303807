"""What `compare` returns: a record for each model, and the table as text, JSON, Markdown, data frame and picture."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ravine._check import one_of, require
from ravine.compare import judge
from ravine.compare.judge import KINDS, Difference, Gap, Outcome
from ravine.core import Direction
from ravine.data.frame_files import pandas_for

WIDTH = 118
HEADS = ("model", "nats per row", "below the first", "number", "method", "parameters", "seconds")


@dataclass(frozen=True)
class Entry:
    """One line of a comparison.

    Attributes
    ----------
    model : its label.
    verdict : one line in words; why, when it was refused or cannot be ranked.
    log_likelihood, standard_error : mean over the held-out rows in nats, None when refused.
    shared_error : the part of that error which no number of rows makes smaller, such as that of log Z.
    low, low_error, low_method : a lower bound beside an upper one, and the error of their distance, which some of the
        rows tell; None where there is none.
    difference, difference_error : it minus the model ranked first, paired by row; None where not ranked.
    direction, method : ``exact``, ``lower``, ``upper`` or ``estimate``, and how the number was computed.
    measure : base measure of its columns, in words.
    parameters : how many numbers it has learned.
    seconds : of fitting, in all folds.
    warning : what went wrong on the way of a fit that was finished all the same, or None.
    """

    model: str
    verdict: str
    log_likelihood: float | None = None
    standard_error: float | None = None
    difference: float | None = None
    difference_error: float | None = None
    shared_error: float = 0.0
    low: float | None = None
    low_error: float | None = None
    low_method: str | None = None
    direction: Direction | None = None
    method: str | None = None
    measure: str | None = None
    parameters: int | None = None
    seconds: float = 0.0
    warning: str | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Models beside each other on the same held-out rows. Printing it shows the sentence, the table and the verdicts.

    Attributes
    ----------
    words : the whole comparison in one sentence.
    rows : one `Entry` for each model, the first in rank first; those that are not ranked at the end.
    scores : label to log p(x) of every held-out row, in nats and in the order of the data; not for refused models.
    monte_carlo : label to the Monte Carlo standard error of every such number.
    train_rows, held_out_rows : how many; with folds every row is held out once, and training has the most of a fold.
    folds : number of folds, or None for one division.
    seed : what the division was drawn with.
    """

    words: str
    rows: tuple[Entry, ...]
    scores: Mapping[str, np.ndarray]
    monte_carlo: Mapping[str, np.ndarray]
    train_rows: int
    held_out_rows: int
    folds: int | None
    seed: int

    def difference(self, a: str, b: str) -> Difference:
        """Model ``a`` minus model ``b``, paired by row: mean and standard error in nats, and the verdict.

        Raises
        ------
        ValueError
            When there is no such model, or the numbers of the two cannot be ranked.
        """
        found = []
        for label in (a, b):
            one_of("model", label, tuple(self.scores))
            entry = next(entry for entry in self.rows if entry.model == label)
            ranked = entry.difference is not None
            require(ranked, f"model {label}", "one that is ranked", entry.verdict, "choose another")
            found.append(self._outcome(label, entry))
        return judge.difference(*found)

    def _outcome(self, label: str, entry: Any) -> Outcome:
        gap = None if entry.low is None else Gap(entry.log_likelihood - entry.low, entry.low_error, entry.low_method)
        told = {"shared": entry.shared_error, "gap": gap, "direction": entry.direction}
        return Outcome(label, values=self.scores[label], errors=self.monte_carlo[label], **told)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, text and lists, without the scores; a number that is not finite is None."""
        entries = [{k: _plain(v) for k, v in dataclasses.asdict(entry).items()} for entry in self.rows]
        return {"words": self.words, "rows": entries, **self._setting()}

    def frame(self) -> Any:
        """The records as a pandas data frame, one row for each model."""
        return pandas_for("a comparison as a data frame").DataFrame([dataclasses.asdict(entry) for entry in self.rows])

    def __str__(self) -> str:
        cells = [list(HEADS), *(_cells(entry) for entry in self.rows if entry.log_likelihood is not None)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(HEADS))]
        widths[0] = min(widths[0], max(20, WIDTH - sum(widths[1:]) - 2 * (len(HEADS) - 1)))
        lines = ["  ".join(_fitted(c, w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
        verdicts = [f"{entry.model}: {entry.verdict}." for entry in self.rows]
        verdicts += [f"{entry.model}: {entry.warning}" for entry in self.rows if entry.warning]
        blocks = [_wrapped(self.words), "\n".join(lines), "\n".join(map(_wrapped, verdicts)), _wrapped(self._how())]
        return "\n\n".join(blocks)

    def markdown(self) -> str:
        """The sentence and the table with its verdicts, as Markdown."""
        heads = [*HEADS, "verdict"]
        lines = [heads, ["---"] * len(heads), *([*_cells(entry), entry.verdict] for entry in self.rows)]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return f"{self.words}\n\n{table}\n\n{self._how()}\n"

    def plot(self, path: str | Path | None = None) -> Any:
        """A picture of the differences to the model ranked first, with 2 standard errors on either side.

        An arrow points to where the truth of a bound may lie. Needs matplotlib (``pip install ravine[plot]``).

        Returns
        -------
        The figure, which is also written to ``path`` if one is given.
        """
        from matplotlib.figure import Figure

        ranked = [entry for entry in self.rows if entry.difference is not None]
        figure = Figure(figsize=(7, 1.2 + 0.45 * len(ranked)), layout="constrained")
        axes = figure.subplots()
        for place, entry in enumerate(reversed(ranked)):
            _draw(axes, place, entry)
        axes.set_yticks(range(len(ranked)), [entry.model for entry in reversed(ranked)])
        axes.axvline(0.0, color="0.7", linewidth=1, zorder=0)
        axes.set_xlabel("nats per row above the first\n(bars: 2 standard errors; arrows: bounds)")
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def _setting(self) -> dict[str, Any]:
        names = ("train_rows", "held_out_rows", "folds", "seed")
        return {name: getattr(self, name) for name in names}

    def _how(self) -> str:
        way = f" in {self.folds} folds" if self.folds else ""
        rows = f"{self.held_out_rows} held-out rows{way}, {self.train_rows} to learn from, seed {self.seed}."
        return f"{rows} Nats per row: mean log p(row) +- one standard error; differences are paired by row."


def compared(outcomes: Sequence[Outcome], names: Sequence[str], **setting: Any) -> Comparison:
    """The comparison of what came of each model; ``names`` are those of the columns."""
    shared = judge.main_footing(outcomes)
    why = {outcome.label: judge.unranked(outcome, shared, names) for outcome in outcomes}
    ranked = [outcome for outcome in outcomes if why[outcome.label] is None]
    left = sorted((o for o in outcomes if why[o.label] is not None), key=lambda o: o.reason is not None)
    words, entries = _ranking(ranked, [outcome.label for outcome in left])
    entries += [_entry(outcome, str(why[outcome.label])) for outcome in left]
    numbered = [outcome for outcome in outcomes if outcome.reason is None]
    scores = {outcome.label: outcome.values for outcome in numbered}
    return Comparison(words, tuple(entries), scores, {o.label: o.errors for o in numbered}, **setting)


def _ranking(ranked: list[Outcome], left: list[str]) -> tuple[str, list[Entry]]:
    """The sentence, and the entries of the models that can be ranked."""
    if not ranked:
        return "No model could be ranked; see below.", []
    best = judge.best_of(ranked)
    ordered = sorted(ranked, key=lambda outcome: (outcome is not best, -outcome.mean))
    others = {outcome.label: judge.difference(outcome, best) for outcome in ordered[1:]}
    words = {o.label: judge.words_of_other(o, best.label, others[o.label]) for o in ordered[1:]}
    words[best.label] = judge.words_of_best(best, others)
    entries = [_entry(o, words[o.label], others.get(o.label, Difference(0.0, 0.0, "undecided"))) for o in ordered]
    return judge.sentence(best.label, words, others, left), entries


def _entry(outcome: Outcome, verdict: str, d: Difference | None = None) -> Entry:
    entry = Entry(outcome.label, verdict, seconds=outcome.seconds, warning=outcome.warning)
    if outcome.reason is not None:
        return entry
    if outcome.gap is not None:
        apart, error, method = outcome.gap
        entry = dataclasses.replace(entry, low=outcome.mean - apart, low_error=error, low_method=method)
    return dataclasses.replace(
        entry,
        log_likelihood=outcome.mean,
        shared_error=outcome.shared,
        standard_error=outcome.standard_error() if np.isfinite(outcome.values).all() else math.nan,
        difference=None if d is None else d.mean,
        difference_error=None if d is None else d.standard_error,
        direction=outcome.direction,
        method=outcome.method,
        measure=", ".join(sorted(set(outcome.footing))),
        parameters=outcome.parameters,
    )


def _cells(entry: Entry) -> list[str]:
    """The cells of a line of the table, as text."""
    number = "" if entry.log_likelihood is None else f"{entry.log_likelihood:.3f} +- {entry.standard_error:.3f}"
    below = "" if not entry.difference_error else f"{-(entry.difference or 0.0):.3f} +- {entry.difference_error:.3f}"
    kind = "" if entry.direction is None else KINDS[entry.direction]
    kind = kind if entry.low is None else f"upper, lower {entry.low:.3f}"
    count = "" if entry.parameters is None else f"{entry.parameters}"
    return [entry.model, number, below, kind, entry.method or "", count, f"{entry.seconds:.1f}"]


def _fitted(text: str, width: int) -> str:
    return (text if len(text) <= width else text[: width - 3] + "...").ljust(width)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _draw(axes: Any, place: int, entry: Entry) -> None:
    """One model: a point with its bar, and an arrow to the side where the truth may be."""
    middle, reach = float(entry.difference or 0.0), judge.ERRORS * float(entry.difference_error or 0.0)
    reach = reach if math.isfinite(reach) else 0.0
    axes.errorbar(middle, place, xerr=reach, fmt="o", color="C0", capsize=3)
    if entry.low is not None:
        axes.plot(
            [middle - (entry.log_likelihood or 0.0) + entry.low, middle], [place, place], color="C1", linewidth=1.5
        )
        return
    side = {"lower": 1, "upper": -1}.get(entry.direction or "", 0)
    if side:
        arrow = {"arrowstyle": "<-", "color": "C1", "linewidth": 1.5}  # drawn from the text's place to the point
        start, away = (middle + side * reach, place), (25 * side, 0)
        axes.annotate("", start, away, textcoords="offset points", arrowprops=arrow)
