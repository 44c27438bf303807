"""Classes of a table: how many rows each has, and what its rows are like."""

from __future__ import annotations

import numpy as np

from ravine.report.look import Looked, take
from ravine.report.markup import Html, count, details, number, section, short, table, tag, words

CLASSES = 12
COLUMNS = 40


def section_classes(seen: Looked) -> Html:
    """The share of each class, and the mean of its rows."""
    chance = np.asarray(seen.model.predict_proba(take(seen.X, seen.scored)), float)
    share, best = chance.mean(axis=0), chance.argmax(axis=1)
    order = np.argsort(-share, kind="stable")[:CLASSES]
    means = np.asarray(seen.model.inverse_transform(np.eye(chance.shape[1])), float)
    names = seen.names or tuple(f"x{j}" for j in range(means.shape[1]))
    sure = float((chance.max(axis=1) > 0.9).mean())
    said = (
        f"{count(chance.shape[1], 'class', 'classes')}; {number(100 * sure, 3)} % of the rows belong to theirs with a "
        "probability above 0.9."
    )
    rows = [(f"class {k}", round(100 * float(share[k]), 2), int((best == k).sum())) for k in order]
    profile = [(short(names[j]), *means[order, j].tolist()) for j in range(min(len(names), COLUMNS))]
    return section(
        "classes",
        "Classes",
        words(said),
        tag("div", [_bar(*row) for row in rows], class_="lanes bars"),
        details(
            "The numbers",
            table("Share of the rows", ("Class", "Share, %", "Rows, most probable"), rows),
            table("Mean of each column", ("Column", *(f"class {k}" for k in order)), profile),
        ),
    )


def _bar(name: str, percent: float, rows: int) -> Html:
    bar = tag("span", class_="bar", style=f"width:{percent:.4g}%")
    track = tag("span", bar, class_="track", aria_hidden="true")
    return tag("div", tag("span", name, class_="name"), track, tag("span", f"{number(percent, 3)} %", class_="value"))
