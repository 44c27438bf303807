"""Tables: marginals and pairs of columns real against sampled, and which cells are missing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import rankdata

from ravine.report.charts import Axis, axis, dots, legend, level_axis, plot, steps
from ravine.report.look import FEW_LEVELS, Column, some
from ravine.report.markup import Html, count, details, figure, joined, number, section, short, table, tag, words

MARGINALS = 24
PAIRED = 5
PAIRS_OPEN = 6
RANKED = 200  # columns among which dependence is looked for
DOTS = 250
BINS = 24  # at most
PATTERNS = 12
PATTERN_COLUMNS = 40
SERIES = (("fill real", "the data"), ("line sampled", "drawn from the model"))


def section_marginals(real: Sequence[Column], drawn: Sequence[Column]) -> Html:
    """A histogram of each column, the data and the model's own rows on top of each other."""
    able = [(a, b) for a, b in zip(real, drawn, strict=True) if a.shown()]
    far = np.array([apart(a.known(), b.known()) for a, b in able])
    kept = np.sort(np.argsort(-far, kind="stable")[:MARGINALS]).tolist()
    left = len(real) - len(kept)
    charts = [marginal(able[i][0], able[i][1], float(far[i])) for i in kept]
    heads = ("Column", "Distance", "Mean, data", "Mean, model", "Spread, data", "Spread, model", "Missing, %")
    numbers = table("Columns, data against model", heads, (_row(able[i][0], able[i][1], float(far[i])) for i in kept))
    legends = (
        "Outlined: rows drawn from the model. Filled: the data. Where the two agree, the outline follows the fill."
    )
    most = "The columns that agree least are shown; " if len(able) > MARGINALS else ""
    omitted = f"{most}{count(left, 'column')} left out." if left else None
    meaning = "Distance is the largest gap between the two cumulative shares (Kolmogorov-Smirnov): 0 is perfect."
    return section(
        "marginals",
        "Each column: data and model",
        words(legends, omitted),
        legend(*SERIES),
        tag("div", charts, class_="grid"),
        details("The numbers", words(meaning), numbers),
    )


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance: the largest gap between the shares of two samples that lie below a value.

    Examples
    --------
    >>> apart(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    0.5
    """
    if not (a.size and b.size):
        return 1.0
    both = np.concatenate([a, b])
    shares = [np.searchsorted(np.sort(one), both, side="right") / one.size for one in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def _row(a: Column, b: Column, far: float) -> tuple[object, ...]:
    means = [float(one.known().mean()) if one.known().size else float("nan") for one in (a, b)]
    spreads = [float(one.known().std()) if one.known().size else float("nan") for one in (a, b)]
    if a.levels is not None:
        means = spreads = [float("nan")] * 2
    return (short(a.name), round(far, 3), *means, *spreads, round(100 * float(np.isnan(a.values).mean()), 1))


def marginal(a: Column, b: Column, far: float) -> Html:
    """One histogram with two outlines."""
    x, edges = binned(a, b)
    heights = [np.histogram(one.known(), edges)[0] / max(1, one.known().size) for one in (a, b)]
    y = Axis(0.0, max(float(max(h.max() for h in heights)), 1e-9) * 1.05)
    marks = [steps(x, y, edges, h, c) for h, c in zip(heights, ("fill real", "line sampled"), strict=True)]
    name = f"Histogram of {short(a.name)}: data and model differ by {number(far, 2)} (Kolmogorov-Smirnov distance)."
    return figure(tag("h3", short(a.name, 28), title=short(a.name)), plot(name, x, y, *marks, kind="small"))


def binned(a: Column, b: Column) -> tuple[Axis, np.ndarray]:
    """The axis of a column and the edges of its bins: one bin for each value where they are few."""
    if a.levels is not None:
        return level_axis(a.levels), np.arange(len(a.levels) + 1) - 0.5
    known, other = a.known(), b.known()
    beyond = 0.25 * float(np.ptp(known))  # the model may go this far beyond the data before it leaves the frame
    other = other[(other >= known.min() - beyond) & (other <= known.max() + beyond)]
    low, high = np.quantile(np.concatenate([known, other]), [0.005, 0.995])
    whole = _whole(known) and (not other.size or _whole(other))
    if whole and high - low < FEW_LEVELS:
        x = axis(float(low), float(high))
        edges = np.arange(np.rint(low), np.rint(high) + 2) - 0.5
        ticks = tuple((float(v), number(float(v))) for v in edges[:-1] + 0.5)
        return Axis(edges[0], edges[-1], "", ticks[:: -(-len(ticks) // 6)]), edges
    x = axis(float(low), float(high), most=4, pad=0.05)
    bins = int(np.clip(1.2 * np.sqrt(known.size), 6, BINS))
    return x, np.linspace(x.low, x.high, bins + 1)


def _whole(values: np.ndarray) -> bool:
    return bool((values == np.rint(values)).all())


# --- pairs


def section_pairs(real: Sequence[Column], drawn: Sequence[Column]) -> Html | None:
    """The most dependent columns against each other, the data beside the model's own rows."""
    able = [i for i, column in enumerate(real) if column.shown() and _ordered(column)][:RANKED]
    chosen = most_dependent([real[i] for i in able])
    if len(chosen) < 2:
        return None
    places = [able[i] for i in chosen]
    pairs = sorted(
        ((i, j, dependence(real[i], real[j]), dependence(drawn[i], drawn[j]))
         for i, j in itertools.combinations(places, 2)),
        key=lambda pair: -abs(pair[2]),
    )  # fmt: skip
    charts = [_pair(real, drawn, *pair) for pair in pairs]
    rows = [
        (f"{short(real[i].name, 28)} and {short(real[j].name, 28)}", round(a, 3), round(b, 3)) for i, j, a, b in pairs
    ]
    numbers = table("Rank correlation (Spearman)", ("Columns", "Data", "Model"), rows)
    more = charts[PAIRS_OPEN:]
    rest = details(f"{count(len(more), 'more pair')}", tag("div", more, class_="grid pairs")) if more else None
    intro = f"The {len(places)} columns that depend most on each other, two at a time: the data left, the model right."
    wide = f"Chosen among the first {RANKED}." if len(real) > RANKED else None
    return section(
        "pairs",
        "Pairs of columns",
        words(intro, wide),
        tag("div", charts[:PAIRS_OPEN], class_="grid pairs"),
        rest,
        details("The numbers", numbers),
    )


def _ordered(column: Column) -> bool:
    return (column.levels is None or len(column.levels) == 2) and bool(np.ptp(column.known()) > 0)


def most_dependent(columns: Sequence[Column]) -> list[int]:
    """At most five places: the columns of the largest rank correlations, in their order."""
    if len(columns) < 2:
        return list(range(len(columns)))
    ranks = np.stack([_ranks(column.values) for column in columns])
    strength = np.abs(np.nan_to_num(np.corrcoef(ranks)))
    pairs = sorted(itertools.combinations(range(len(columns)), 2), key=lambda pair: -strength[pair])
    return sorted(list(dict.fromkeys(itertools.chain.from_iterable(pairs)))[:PAIRED])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, a missing cell in the middle."""
    ranks = np.full(len(values), np.nan)
    known = ~np.isnan(values)
    ranks[known] = rankdata(values[known])
    return np.where(known, ranks, (known.sum() + 1) / 2)


def dependence(a: Column, b: Column) -> float:
    """Spearman's rank correlation over the rows that have both cells; 0 where one does not vary."""
    both = ~(np.isnan(a.values) | np.isnan(b.values))
    ranks = [rankdata(one.values[both]) for one in (a, b)]
    varies = both.sum() > 2 and all(np.ptp(r) > 0 for r in ranks)
    return float(np.corrcoef(*ranks)[0, 1]) if varies else 0.0


def _pair(real: Sequence[Column], drawn: Sequence[Column], i: int, j: int, here: float, there: float) -> Html:
    across, up = binned(real[i], drawn[i])[0], binned(real[j], drawn[j])[0]
    names = short(real[i].name, 28), short(real[j].name, 28)
    bare = Axis(up.low, up.high)
    charts = []
    for columns, y, class_, who, r in (
        (real, up, "real", "Data", here),
        (drawn, bare, "sampled", "Model", there),
    ):
        a, b = columns[i].values, columns[j].values
        both = np.flatnonzero(~(np.isnan(a) | np.isnan(b)))
        places = both[some(len(both), DOTS)]
        name = f"{who}: {names[1]} against {names[0]}, rank correlation {number(r, 2)}."
        charts.append(plot(name, across, y, dots(across, y, a[places], b[places], class_), kind="square"))
    title = tag("h3", names[1], tag("span", " against "), names[0])
    caption = f"Rank correlation {number(here, 2)} in the data, {number(there, 2)} in the model."
    return figure(title, tag("div", charts, class_="two"), caption=caption)


# --- missing cells


def section_missing(real: Sequence[Column]) -> Html | None:
    """How many cells of each column are missing, and which are missing together."""
    missing = np.stack([np.isnan(column.values) for column in real], axis=1)
    if not missing.any():
        return None
    share = missing.mean(axis=0)
    order = [i for i in np.argsort(-share, kind="stable").tolist() if share[i] > 0]
    patterns, counts = np.unique(missing, axis=0, return_counts=True)
    complete = int((~missing.any(axis=1)).sum())
    intro = (
        f"{number(100 * float(missing.mean()), 3)} % of the cells are missing. "
        f"{count(complete, 'row')} of {len(missing):,} have no hole. "
        f"The holes form {count(len(counts) - (complete > 0), 'pattern')}."
    )
    listed = [(short(real[i].name), round(100 * float(share[i]), 2), int(missing[:, i].sum())) for i in order]
    numbers = table("Missing cells by column", ("Column", "Missing, %", "Rows"), listed[:200])
    return section(
        "missing",
        "What is missing",
        words(intro),
        tag("h3", "By column"),
        tag("div", [_share(*row) for row in listed[:MARGINALS]], class_="lanes bars"),
        words(f"The {MARGINALS} columns with the most holes are shown.") if len(listed) > MARGINALS else None,
        joined(_patterns(real, patterns, counts, order)),
        details("The numbers", numbers),
    )


def _share(name: str, percent: float, rows: int) -> Html:
    track = tag("span", tag("span", class_="bar", style=f"width:{percent:.4g}%"), class_="track", aria_hidden="true")
    return tag("div", tag("span", name, class_="name"), track, tag("span", f"{number(percent, 3)} %", class_="value"))


def _patterns(real: Sequence[Column], patterns: np.ndarray, counts: np.ndarray, order: list[int]) -> Iterator[Html]:
    """The most common patterns, as a table of marks: a square for a missing cell."""
    if len(real) > PATTERN_COLUMNS:
        return
    places = sorted(order)
    common = np.argsort(-counts, kind="stable")[:PATTERNS]
    rows = [(f"{counts[p]:,}", *(_mark(bool(patterns[p, i])) for i in places)) for p in common]
    made = table("Missing together", ("Rows", *(short(real[i].name, 18) for i in places)), rows, quiet=True)
    yield tag("h3", "Missing together")
    yield words("The most common patterns: a filled square is a missing cell, a dot an observed one.")
    yield tag("div", made, class_="patterns")


def _mark(missing: bool) -> Html:
    word = "missing" if missing else "observed"
    return tag("span", tag("span", word, class_="hidden"), class_=f"mark {word}")
