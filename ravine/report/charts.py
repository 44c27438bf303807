"""Small charts: SVG that stretches to any width, with labels in HTML that keep their size.

Marks live in a square of 1000 x 1000 that is stretched over the frame; strokes do not stretch with it. Colours are
classes of the style sheet, so a chart follows the reader's light or dark setting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ravine.report.markup import Html, joined, number, short, tag

SIDE = 1000


@dataclass(frozen=True)
class Axis:
    """A span of values, and which of them are written beside the frame."""

    low: float
    high: float
    label: str = ""
    ticks: tuple[tuple[float, str], ...] = ()

    def at(self, values: Any) -> np.ndarray:
        """Where values lie, 0 to 1000."""
        return np.asarray((np.asarray(values, float) - self.low) / (self.high - self.low) * SIDE)

    def share(self, value: float) -> str:
        """Where a value lies, in percent, as CSS writes it."""
        return f"{float(self.at(value)) / 10:.4g}%"


def axis(low: float, high: float, label: str = "", most: int = 5, pad: float = 0.0) -> Axis:
    """An axis with round ticks.

    Examples
    --------
    >>> axis(0.0, 97.0).ticks
    ((0.0, '0'), (20.0, '20'), (40.0, '40'), (60.0, '60'), (80.0, '80'))
    """
    low, high = _apart(low, high)
    low, high = low - pad * (high - low), high + pad * (high - low)
    step = _round_step((high - low) / most)
    places = np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step
    return Axis(low, high, label, tuple((float(v), number(round(float(v), 12))) for v in places))


def _apart(low: float, high: float) -> tuple[float, float]:
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0.0, 1.0
    gap = max(abs(low), abs(high), 1e-6) * 1e-6
    return (low, high) if high - low > gap else (low - max(1.0, gap), high + max(1.0, gap))


def _round_step(rough: float) -> float:
    size = 10.0 ** math.floor(math.log10(rough))
    return next(size * k for k in (1, 2, 2.5, 5, 10) if size * k >= rough * (1 - 1e-9))


def level_axis(levels: Sequence[str], label: str = "", most: int = 6) -> Axis:
    """An axis of named places 0, 1, 2, ...; only so many names are written."""
    every = -(-len(levels) // most)
    named = tuple((float(i), short(text, 9)) for i, text in enumerate(levels) if i % every == 0)
    return Axis(-0.5, len(levels) - 0.5, label, named)


def plot(name: str, x: Axis, y: Axis, *marks: Html, kind: str = "wide") -> Html:
    """A framed chart. ``name`` says in a sentence what is to be seen, to those who do not see it."""
    grid = [tag("path", d=f"M0 {SIDE - float(y.at(v)):.0f}H{SIDE}", class_="grid") for v, _ in y.ticks]
    drawn = tag("svg", tag("title", name), *grid, *marks, viewBox=f"0 0 {SIDE} {SIDE}", preserveAspectRatio="none",
                role="img", aria_label=name)  # fmt: skip
    along = [tag("span", text, class_="xt", style=f"left:{x.share(v)}") for v, text in x.ticks]
    up = [tag("span", text, class_="yt", style=f"bottom:{y.share(v)}") for v, text in y.ticks]
    labels = tag("div", along, up, aria_hidden="true")
    above = tag("div", y.label, class_="yl", aria_hidden="true") if y.label else None
    below = tag("div", x.label, class_="xl", aria_hidden="true") if x.label else None
    bare = "" if y.ticks else " bare"
    return tag("div", above, tag("div", drawn, labels, class_="frame"), below, class_=f"plot {kind}{bare}")


def _points(x: Axis, y: Axis, xs: np.ndarray, ys: np.ndarray) -> list[tuple[int, int]]:
    across, up = x.at(xs), SIDE - y.at(ys)
    seen = np.isfinite(across) & np.isfinite(up)
    limit = 100 * SIDE  # far outside of the frame; a longer number would be of no use
    return [(round(a), round(b)) for a, b in np.clip(np.c_[across, up][seen], -limit, limit).tolist()]


def line(x: Axis, y: Axis, xs: np.ndarray, ys: np.ndarray, class_: str) -> Html:
    """A line from point to point, with a dot at each when they are few."""
    places = _points(x, y, xs, ys)
    path = tag("path", d="M" + "L".join(f"{a} {b}" for a, b in places) if places else "", class_=f"line {class_}")
    return joined(path, dots(x, y, xs, ys, f"{class_} large") if len(places) <= 40 else None)


def dots(x: Axis, y: Axis, xs: np.ndarray, ys: np.ndarray, class_: str) -> Html:
    """A cloud of points, in one path: each is a line of no length with a round end."""
    inside = [(a, b) for a, b in _points(x, y, xs, ys) if 0 <= a <= SIDE and 0 <= b <= SIDE]
    return tag("path", d="".join(f"M{a} {b}h0" for a, b in inside), class_=f"dots {class_}")


def steps(x: Axis, y: Axis, edges: np.ndarray, heights: np.ndarray, class_: str) -> Html:
    """A histogram as one outline, closed along the bottom."""
    across, up = x.at(edges), SIDE - y.at(heights)
    walk = "".join(f"V{b:.0f}H{a:.0f}" for a, b in zip(across[1:], up, strict=True))
    return tag("path", d=f"M{across[0]:.0f} {SIDE}{walk}V{SIDE}Z", class_=class_)


def lane(name: str, x: Axis, usual: Sequence[float], span: Sequence[float], middle: float, truth: float | None) -> Html:
    """An interval on a track: ``usual`` is where most values of the column lie, ``truth`` what was hidden."""
    u0, u1 = np.clip(x.at(usual), 0, SIDE)
    s0, s1 = np.clip(x.at(span), 4, SIDE - 4)
    dot = float(np.clip(x.at(middle), 4, SIDE - 4))
    marks = [
        tag("path", d=f"M{u0:.0f} 500H{u1:.0f}", class_="usual"),
        tag("path", d=f"M{s0:.0f} 500H{s1:.0f}", class_="span"),
        tag("path", d=f"M{dot:.0f} 500h0", class_="dots sampled large"),
    ]
    if truth is not None:
        place = float(np.clip(x.at(truth), 4, SIDE - 4))
        marks.append(tag("path", d=f"M{place:.0f} 120V880", class_="truth"))
    return tag("svg", tag("title", name), marks, viewBox=f"0 0 {SIDE} {SIDE}", preserveAspectRatio="none", role="img",
               aria_label=name, class_="lane")  # fmt: skip


def legend(*entries: tuple[str, str]) -> Html:
    """What the colours mean: (class of the swatch, words)."""
    made = [tag("li", tag("span", class_=f"swatch {class_}", aria_hidden="true"), text) for class_, text in entries]
    return tag("ul", made, class_="legend")
