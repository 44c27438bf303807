"""The map of the latent space, and the rows that the model finds least likely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ravine.report.charts import Axis, axis, legend, plot, steps
from ravine.report.look import MAPPED, Column, Looked, label_names, some, take
from ravine.report.markup import (
    Html,
    as_json,
    count,
    details,
    figure,
    joined,
    number,
    section,
    short,
    table,
    tag,
    words,
)
from ravine.report.png import address, picture, tiles, tone

ODD = 10
ODD_COLUMNS = 8
FAR = 3.0  # robust standard deviations from which a cell is marked
THUMBNAIL_BYTES = 300_000  # pixels of all thumbnails of the map together
COLOURS = 10


def section_map(seen: Looked, real: Sequence[Column] | None) -> Html:
    """Every row as a point, where its two largest components put it."""
    places = some(len(seen.scored), MAPPED)
    rows = seen.scored[places]
    points, told = flat_map(_coordinates(seen, rows, real))
    colours, key = _colours(seen, rows, seen.log_p[places])
    data = {
        "x": _rounded(points[:, 0]),
        "y": _rounded(points[:, 1]),
        "c": colours["values"],
        "names": colours["names"],
        "row": seen.places[rows].tolist(),
        "p": [round(float(v), 2) for v in seen.log_p[places]],
        **_thumbnails(seen, rows),
    }
    name = f"Map of {count(len(rows), 'row')} in two dimensions, coloured by {colours['by']}."
    canvas = tag(
        "canvas", name, id="map-canvas", tabindex="0", role="application", aria_label=name, aria_describedby="map-help"
    )
    told_live = tag("output", id="map-tip", aria_live="polite")
    help_ = (
        "Hover over a point, or focus the map and use the arrow keys: left and right go along the first component, "
        "up and down along the second."
    )
    what = "rows (completed where cells are missing)" if seen.classes else "posterior means of the latents"
    intro = f"The first two principal components of the {what}. They hold {told}."
    return section(
        "map",
        "Map of the rows",
        words(intro),
        key,
        tag("div", canvas, told_live, class_="map"),
        tag("p", help_, id="map-help", class_="soft"),
        tag("script", as_json(data), type="application/json", id="map-data"),
        details("The numbers", _groups(points, colours)),
    )


def _coordinates(seen: Looked, rows: np.ndarray, real: Sequence[Column] | None) -> np.ndarray:
    """What the map is a projection of: latents, or for a model of classes the rows themselves, in units of spread."""
    if not seen.classes:
        return np.asarray(seen.model.transform(take(seen.X, rows)), float)
    table = np.asarray(seen.X, float)[rows] if real is None else np.stack([c.values[rows] for c in real], axis=1)
    if np.isnan(table).any():
        table = np.asarray(seen.model.impute(take(seen.X, rows)), float)
    spread = table.std(axis=0)
    return table / np.where(spread > 0, spread, 1.0)


def flat_map(latents: np.ndarray) -> tuple[np.ndarray, str]:
    """The first two principal components of rows, and in words the share of the variance that they hold.

    Examples
    --------
    >>> flat_map(np.array([[0.0, 0.0], [2.0, 0.0]]))[1]
    '100 % and 0 % of the variance'
    """
    centred = latents - latents.mean(axis=0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    total = float((s**2).sum()) or 1.0
    sign = np.where(vt[np.arange(len(vt)), np.abs(vt).argmax(axis=1)] < 0, -1.0, 1.0)  # the same picture every time
    points = np.zeros((len(latents), 2))
    kept = min(2, len(s))
    points[:, :kept] = (u * s * sign)[:, :kept]
    shares = [100 * float(s[i] ** 2) / total if i < len(s) else 0.0 for i in range(2)]
    return points, f"{number(shares[0], 2)} % and {number(shares[1], 2)} % of the variance"


def _rounded(values: np.ndarray) -> list[float]:
    low, high = float(values.min()), float(values.max())
    return np.round((values - low) / (high - low if high > low else 1.0), 4).tolist()


def _colours(seen: Looked, rows: np.ndarray, log_p: np.ndarray) -> tuple[dict[str, Any], Html]:
    """The colour of every point (place of a name, or a number between 0 and 1), and the key to it."""
    given = None if seen.labels is None else seen.labels[rows]
    by = "label"
    if given is None and seen.classes:
        given, by = np.asarray(seen.model.predict(take(seen.X, rows))), "most probable class"
    named = None if given is None else label_names(given, COLOURS)
    if named is not None:
        names, codes = named
        entries = [(f"dot c{i}", short(name, 24)) for i, name in enumerate(names)]
        return {"by": by, "names": names, "values": codes.tolist()}, legend(*entries)
    by, values = ("log p(x)", log_p) if given is None else ("label", given.astype(float))
    low, high = np.nanquantile(values, [0.02, 0.98])
    share = np.clip((np.nan_to_num(values, nan=low) - low) / ((high - low) or 1.0), 0, 1)
    unit = ", nats" if given is None else ""
    ends = tag("span", f"{by}{unit}: {number(low, 3)}"), tag("span", class_="ramp", aria_hidden="true"), number(high, 3)
    return {"by": by, "names": None, "values": np.round(share, 3).tolist()}, tag("p", ends, class_="legend")


def _thumbnails(seen: Looked, rows: np.ndarray) -> dict[str, Any]:
    """One sheet of all images on the map, when they are not too many pixels."""
    if seen.image is None:
        return {}
    height, width = seen.image[:2]
    channels = 4 if len(seen.image) > 2 and seen.image[2] == 3 else 2
    kept = min(len(rows), THUMBNAIL_BYTES // (height * width * channels // 2))
    images = seen.images(take(seen.X, rows[:kept]))
    if not kept:
        return {}
    how, across = tone(images), 40
    sheet = address(tiles(images, across, how, gap=0))
    return {"sheet": sheet, "across": across, "size": [width, height], "kept": kept, "ink": how.ink}


def _groups(points: np.ndarray, colours: dict[str, Any]) -> Html:
    """Where the groups of a map lie; without groups, where its quarters by colour lie."""
    values = np.asarray(colours["values"])
    if colours["names"] is None:
        edges = np.quantile(values, [0, 0.25, 0.5, 0.75])
        codes, names = np.searchsorted(edges, values, side="right") - 1, ["lowest", "second", "third", "highest"]
        title = f"Quarters of the rows by {colours['by']}"
    else:
        codes, names, title = values, colours["names"], f"Groups by {colours['by']}"
    rows = [
        (short(name, 40), int((codes == i).sum()), *map(float, points[codes == i].mean(axis=0)))
        for i, name in enumerate(names)
        if (codes == i).any()
    ]
    return table(title, ("Group", "Rows", "Mean of component 1", "Mean of component 2"), rows)


# --- odd rows


def section_odd(seen: Looked, real: Sequence[Column] | None) -> Html:
    """The rows of lowest log p(x), and where they lie among the others."""
    order = np.argsort(seen.log_p, kind="stable")[:ODD]
    rows = seen.scored[order]
    thinned = f" Of {seen.given:,} rows, {len(seen.scored):,} were scored." if len(seen.scored) < seen.given else ""
    which = f"The {count(len(rows), 'row')} of lowest log p(x)"
    intro = f"{which}: errors in the data, or what the model has not learned.{thinned}"
    holes = "A row with more observed cells has more to explain, so compare rows with holes with care."
    counted = "Rows are counted from 0."
    shown = _odd_images(seen, rows, order) if real is None else _odd_table(seen, real, rows, order)
    has_holes = real is not None and any(np.isnan(column.values).any() for column in real)
    return section(
        "odd", "Odd rows", words(intro, holes if has_holes else None, counted), _spread(seen.log_p, order), shown
    )


def _spread(log_p: np.ndarray, odd: np.ndarray) -> Html:
    low = max(float(log_p.min()), float(np.quantile(log_p, 0.5) - 12 * np.subtract(*np.quantile(log_p, [0.75, 0.25]))))
    x = axis(low, float(log_p.max()), "log p(x), nats", pad=0.02)
    edges = np.linspace(x.low, x.high, 49)
    heights = np.histogram(log_p, edges)[0].astype(float)
    y = Axis(0.0, max(1.0, float(heights.max())) * 1.05)
    every, few = steps(x, y, edges, heights, "fill real"), np.histogram(log_p[odd], edges)[0].astype(float)
    outside = int((log_p < x.low).sum())
    cut = f"{count(outside, 'row')} far below lie outside of the frame." if outside else None
    span = f"from {number(float(log_p.min()))} to {number(float(log_p.max()))} nats"
    name = f"Histogram of log p(x) {span}; the odd rows are at the left."
    marks = joined(every, steps(x, y, edges, few, "fill odd"))
    entries = legend(("fill real", "all rows that were scored"), ("fill odd", "the rows below"))
    return figure(entries, plot(name, x, y, marks, kind="low"), caption=cut)


def _odd_images(seen: Looked, rows: np.ndarray, order: np.ndarray) -> Html:
    images = seen.images(take(seen.X, rows))
    how = tone(seen.images(take(seen.X, seen.scored[:500])))
    made = [
        tag(
            "figure",
            picture(images[i : i + 1], f"Row {seen.places[row]}.", how, 1, 72),
            tag("figcaption", f"Row {seen.places[row]}", tag("br"), f"{number(float(seen.log_p[at]))} nats"),
        )
        for i, (row, at) in enumerate(zip(rows, order, strict=True))
    ]
    return tag("div", made, class_="odd-images")


def _odd_table(seen: Looked, real: Sequence[Column], rows: np.ndarray, order: np.ndarray) -> Html:
    far = np.stack([distance(column)[rows] for column in real], axis=1)
    kept = np.sort(np.argsort(-far.max(axis=0), kind="stable")[:ODD_COLUMNS])
    body = [
        (f"{seen.places[row]}", float(seen.log_p[at]), *(_cell(real[j], int(row), float(far[i, j])) for j in kept))
        for i, (row, at) in enumerate(zip(rows, order, strict=True))
    ]
    said = f"Cells more than {number(FAR)} robust standard deviations from the median of their column are marked."
    which = (
        f"The {len(kept)} of {len(real)} columns with the most unusual cells are shown."
        if len(kept) < len(real)
        else None
    )
    heads = ("Row", "log p(x), nats", *(short(real[j].name, 24) for j in kept))
    return joined(words(said, which), table("Odd rows", heads, body, quiet=True))


def distance(column: Column) -> np.ndarray:
    """Distance of each cell from the median, in units of the spread of the middle half; 0 where missing or named."""
    known = column.known()
    if column.levels is not None or not known.size:
        return np.zeros(len(column.values))
    q1, middle, q3 = np.quantile(known, [0.25, 0.5, 0.75])
    spread = (q3 - q1) / 1.349 or float(known.std()) or 1.0  # 1.349: width of the middle half of a standard normal
    return np.nan_to_num(np.abs(column.values - middle) / spread)


def _cell(column: Column, row: int, far: float) -> Any:
    value = column.values[row]
    if np.isnan(value):
        return tag("span", "missing", class_="soft")
    if column.levels is not None:
        return short(column.levels[int(value)], 24)
    return tag("mark", number(float(value))) if far > FAR else float(value)
