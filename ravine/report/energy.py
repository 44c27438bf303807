"""What is to be seen of an energy: its value over rows, its experts, its chains, rows of a label, its landscape."""

from __future__ import annotations

from typing import Any

import numpy as np

from ravine.report.charts import axis, legend, plot, steps
from ravine.report.look import SCORED, Looked, some, take
from ravine.report.markup import Html, count, details, figure, joined, number, section, table, tag, words
from ravine.report.png import Tone, picture, tone

BINS = 40
FIELDS, ACROSS = 40, 10
CHAINS = 10
SWEEPS = (0, 1, 3, 10, 30, 100, 300, 1000)
GRID = 48
TILE = 64

Part = tuple[str, str, Html | None]


def sections_energy(seen: Looked) -> list[Part]:
    """The sections that only an energy has: place, title, content."""
    made: list[Part] = []
    if hasattr(seen.model, "free_energy"):
        made.append(("energies", "Energies", _histogram(seen)))
    if hasattr(seen.model, "dream") and seen.image is not None:
        made.append(("labels", "Labels", _labels(seen)))
    if hasattr(seen.model, "receptive_fields") and seen.image is not None and not seen.model.schema_.levels:
        made.append(("fields", "Fields", _fields(seen)))
    if hasattr(seen.model, "unroll") and seen.image is not None:
        made.append(("chains", "Chains", _chains(seen)))
    if hasattr(seen.model, "free_energy") and seen.model.schema_.shape == (2,) and seen.model.schema_.kind == "real":
        made.append(("landscape", "Landscape", _landscape(seen)))
    return made


def _whole(X: Any) -> np.ndarray:
    values = np.asarray(X, float)
    return values[~np.isnan(values).any(axis=1)]


def _histogram(seen: Looked) -> Html | None:
    """Free energies of the rows here, of rows that the fit has learned from, and of rows that it draws."""
    here = _whole(take(seen.X, seen.scored))
    if not len(here):
        return None
    groups = [("rows of this report", "real", here), ("rows drawn", "sampled", np.asarray(seen.drawn(200), float))]
    if seen.learned is not None:
        rows = _whole(take(seen.learned, some(len(seen.learned), SCORED)))
        groups.append(("rows that were learned from", "third", rows))
    values = [(name, class_, seen.model.free_energy(rows)) for name, class_, rows in groups if len(rows)]
    low, high = (float(pick([pick(v) for *_, v in values])) for pick in (min, max))
    edges = np.linspace(low, high + 1e-6 * max(1.0, abs(high)), BINS + 1)
    shares = [np.histogram(v, edges)[0] / len(v) for *_, v in values]
    x, y = axis(low, high, "free energy, nats"), axis(0.0, float(np.max(shares)), "share")
    marks = [steps(x, y, edges, share, f"line {class_}") for share, (_, class_, _) in zip(shares, values, strict=True)]
    means = [(name, float(np.mean(v)), float(np.std(v)), len(v)) for name, _, v in values]
    told = "; ".join(f"{name}: {number(mean)} on average" for name, mean, *_ in means)
    chart = plot(f"Free energies. {told}.", x, y, joined(*marks))
    why = (
        "The free energy is minus log p(x) but for log Z, which is the same for all rows: no number of it alone says "
        "how good a model is. Rows that were learned from and lie lower than new ones speak of overfitting; rows that "
        "the model draws and that lie elsewhere than the data, of chains that do not reach the data."
    )
    numbers = table("Free energies, nats", ("Rows", "Mean", "Standard deviation", "Number"), means)
    key = legend(*((f"line {class_}", name) for name, class_, _ in values))
    return section("energies", "Free energies", words(why), figure(key, chart), details("The numbers", numbers))


def _fields(seen: Looked) -> Html:
    fields = seen.model.receptive_fields()
    strongest = np.argsort(-np.linalg.norm(fields, axis=1), kind="stable")[:FIELDS]
    images = seen.images(fields[strongest])
    top = float(np.abs(images).max()) or 1.0
    shown = picture(images, f"Weights of {len(images)} hidden units.", Tone(-top, top, False), ACROSS, TILE)
    which = f"The {len(images)} of {len(fields)} hidden units with the largest weights, the largest first."
    said = "What each hidden unit looks for: its weights to the pixels, grey where there is none."
    return section("fields", "Receptive fields", words(said, which), figure(shown))


def _chains(seen: Looked) -> Html:
    rows = _whole(take(seen.X, seen.scored))[:CHAINS]
    marks = tuple(mark for mark in SWEEPS if mark <= max(seen.model.sweeps, 10))
    made = seen.model.unroll(rows, marks)
    how = tone(seen.images(rows))
    strips = [
        tag(
            "figure",
            tag("figcaption", f"After {count(mark, 'sweep')}" if mark else "Rows"),
            picture(seen.images(images), f"{len(rows)} chains after {mark} sweeps.", how, CHAINS, TILE),
            class_="strip",
        )
        for mark, images in zip(marks, made, strict=True)
    ]
    said = "Chains that begin at rows of the data. Where they stay what they were, chains from elsewhere will not meet."
    return section("chains", "Chains", words(said), tag("div", strips, class_="strips"))


def _labels(seen: Looked) -> Html:
    classes = seen.model.classes_[:ACROSS]
    made = [seen.images(seen.model.dream(label, CHAINS)) for label in classes]
    how = tone(np.concatenate(made))
    strips = [
        tag(
            "figure",
            tag("figcaption", str(label)),
            picture(images, f"{len(images)} images of label {label}.", how, CHAINS, TILE),
            class_="strip",
        )
        for label, images in zip(classes, made, strict=True)
    ]
    said = "Images that the model makes up for a label: chains with the label held, not chosen by anybody."
    return section("labels", "Images of a label", words(said), tag("div", strips, class_="strips"))


def _landscape(seen: Looked) -> Html:
    rows = _whole(seen.X)
    low, high = rows.min(axis=0), rows.max(axis=0)
    low, high = low - 0.2 * (high - low), high + 0.2 * (high - low)
    across, up = (np.linspace(a, b, GRID) for a, b in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(across, up[::-1]), axis=-1).reshape(-1, 2)
    energies = seen.model.free_energy(grid).reshape(GRID, GRID)
    depth = np.exp(-(energies - energies.min()))
    ends = ", ".join(f"{number(a)} to {number(b)}" for a, b in zip(low, high, strict=True))
    images = np.stack([depth, -np.clip(energies - energies.min(), 0, 20)])
    names = ("Density, up to a factor", "Minus the energy, cut 20 nats below its highest place")
    strips = [
        tag("figure", tag("figcaption", name), picture(one[None], f"{name}, over {ends}.", tone(one[None]), 1, 360))
        for name, one in zip(names, images, strict=True)
    ]
    return section("landscape", "Landscape", words(f"The two columns go from {ends}."), tag("div", strips))
