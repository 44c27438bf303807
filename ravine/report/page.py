"""One page from the sections: style, script and pictures inside, nothing asked of any other place."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ravine.report.again import Origin, section_again
from ravine.report.energy import sections_energy
from ravine.report.groups import section_classes
from ravine.report.holes import section_holes
from ravine.report.images import sections_images
from ravine.report.latent import section_map, section_odd
from ravine.report.look import SAMPLES, Looked, columns
from ravine.report.markup import Html, joined, short, tag
from ravine.report.overview import key_figures, lead, section_curve, section_findings, section_quality
from ravine.report.tables import section_marginals, section_missing, section_pairs

HERE = Path(__file__).parent

Part = tuple[str, str, Html | None]  # place, short title for the list of contents, content


def written(seen: Looked, findings: Iterable[Any], title: str | None, origin: Origin) -> str:
    """The whole document."""
    real, drawn = (None, None) if seen.image else columns([seen.X, seen.drawn(SAMPLES)], seen.names)
    cells = np.asarray(seen.X, float)[None] if real is None else [c.values for c in real]
    holes = float(np.mean([np.isnan(one).mean() for one in cells]))
    middle = sections_images(seen) if real is None or drawn is None else _tables(seen, real, drawn)
    parts: list[Part] = [
        ("quality", "Likelihood", section_quality(seen)),
        ("findings", "Findings", section_findings(findings)),
        ("curve", "Learning", section_curve(seen.model)),
        *middle,
        *sections_energy(seen),
        ("map", "Map", section_map(seen, real)),
        ("odd", "Odd rows", section_odd(seen, real)),
        ("again", "Reproduce", section_again(seen.model, origin)),
    ]
    kept = [(place, name, content) for place, name, content in parts if content is not None]
    data = f" on {short(origin.data)}" if origin.data else ""
    heading = title or f"{type(seen.model).__name__}{data}"
    links = tag("ul", [tag("li", tag("a", name, href=f"#{place}")) for place, name, _ in kept])
    header = tag(
        "header", tag("p", "Ravine report", class_="over"), tag("h1", heading), lead(seen), key_figures(seen, holes)
    )
    main = tag("main", [content for *_, content in kept])
    return document(heading, joined(header, tag("nav", links, aria_label="Contents"), main))


def _tables(seen: Looked, real: Any, drawn: Any) -> list[Part]:
    return [
        ("classes", "Classes", section_classes(seen) if seen.classes else None),
        ("marginals", "Columns", section_marginals(real, drawn)),
        ("pairs", "Pairs", section_pairs(real, drawn)),
        ("imputation", "Imputation", section_holes(seen, real)),
        ("missing", "Missing", section_missing(real)),
    ]


def document(title: str, body: Html) -> str:
    """A document that may load nothing and run nothing but its own script."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(style)),
    )
    inside = tag("body", body, tag("script", Html(script)))
    return f"<!doctype html>\n{tag('html', head, inside, lang='en')}\n"
