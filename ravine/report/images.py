"""Images: drawn by the model, reconstructed, moved along a latent, and filled in."""

from __future__ import annotations

import numpy as np

from ravine.diagnose.traversals import STOPS, latent_traversal
from ravine.report.look import Looked, take
from ravine.report.markup import Html, count, figure, number, section, tag, words
from ravine.report.png import Tone, picture, tone

ACROSS = 10
LINES = 4
TILE = 64


def sections_images(seen: Looked) -> list[tuple[str, str, Html]]:
    """The sections of a report on images: place, title, content."""
    how = tone(seen.images(take(seen.X, np.arange(min(500, len(seen.places))))))
    made = [("samples", "Samples", _samples(seen, how)), ("reconstructions", "Reconstructions", _again(seen, how))]
    if seen.classes:
        made.append(("classes", "Classes", _classes(seen, how)))
    elif not seen.held and not hasattr(seen.model, "free_energy"):  # a hidden bit has no scale to move along
        made.append(("traversals", "Latents", _traversals(seen, how)))
    return [*made, ("inpainting", "Inpainting", _inpainting(seen, how))]


def _strip(label: str, images: np.ndarray, alt: str, how: Tone, columns: int = ACROSS) -> Html:
    said = tag("figcaption", label)
    return tag("figure", said, picture(images, alt, how, columns, TILE), class_="strip")


def _samples(seen: Looked, how: Tone) -> Html:
    drawn = seen.images(seen.drawn(LINES * ACROSS))
    shown = picture(drawn, f"{len(drawn)} images drawn from the model.", how, ACROSS, TILE)
    intro = "New images, drawn from the model and not chosen by anybody."
    if seen.held:
        intro = f"{len(seen.held)} pixels of each image are given, those of the first rows; the others are drawn."
    return section("samples", "Images the model makes up", words(intro), figure(shown))


def _first(seen: Looked) -> np.ndarray:
    """Rows to show: the first that have no hole."""
    values = np.asarray(seen.X, float)
    whole = np.flatnonzero(~np.isnan(values).any(axis=1))
    return values[(whole if len(whole) >= ACROSS else np.arange(len(values)))[:ACROSS]]


def _again(seen: Looked, how: Tone) -> Html:
    rows = _first(seen)
    made = np.asarray(seen.model.reconstruct(rows), float)
    error = float(np.sqrt(np.nanmean((made - rows) ** 2)))
    said = "What the model expects each image to be, given the latents it reads from it."
    size = f"The typical error of a pixel is {number(error, 3)} (root mean square)."
    return section(
        "reconstructions",
        "Images seen through the model",
        words(said, size),
        tag(
            "div",
            _strip("Given", seen.images(rows), f"{count(len(rows), 'image')} of the data.", how),
            _strip("Expected", seen.images(made), f"The same {len(rows)} as the model expects them.", how),
            class_="strips",
        ),
    )


def _traversals(seen: Looked, how: Tone) -> Html:
    found = latent_traversal(seen.model, take(seen.X, seen.scored))
    images = seen.images(found.rows.reshape(-1, found.rows.shape[-1]))
    images = images.reshape(len(found.latents), len(STOPS), *images.shape[1:])
    ends = f"from {number(STOPS[0])} to {number(STOPS[-1])}"
    strips = [
        _strip(f"Latent {k}", images[i], f"Latent {k} {ends}: {len(STOPS)} images.", how, len(STOPS))
        for i, k in enumerate(found.latents)
    ]
    said = f"One latent moves {ends}, the others stay at their mean."
    all_, shown = seen.model._n_features_out, len(found.latents)
    which = f"The {shown} of {all_} latents that vary most are shown." if shown < all_ else None
    return section("traversals", "What the latents do", words(said, which), tag("div", strips, class_="strips"))


def _classes(seen: Looked, how: Tone) -> Html:
    share = seen.model.predict_proba(take(seen.X, seen.scored)).mean(axis=0)
    order = np.argsort(-share, kind="stable")[: LINES * ACROSS]
    means = seen.images(seen.model.inverse_transform(np.eye(len(share))))[order]
    listed = ", ".join(f"class {k} {number(100 * float(share[k]), 2)} %" for k in order)
    shown = picture(means, f"The mean image of {count(len(order), 'class', 'classes')}, the most common first.", how)
    said = f"The mean image of each class, the most common first. Shares of the rows: {listed}."
    return section("classes", "Classes", words(said), figure(shown))


def _inpainting(seen: Looked, how: Tone) -> Html:
    """The lower half is hidden, or where the model is given some pixels, all the others."""
    rows, held = _first(seen), list(seen.held)
    part, half = (
        ("everything but the given pixels", "what is hidden") if held else ("the lower half", "the hidden half")
    )
    truth = seen.images(rows)
    upper = np.arange(truth[0].size) < truth[0, : truth.shape[1] // 2].size
    shows = np.isin(np.arange(truth[0].size), held) if held else upper
    flat = np.where(shows, rows, np.nan)
    holed = seen.images(flat)
    draws = [seen.images(one) for one in seen.model.impute(flat, draws=3)]
    made = seen.images(seen.model.impute(flat))
    hidden = np.isnan(holed) & ~np.isnan(truth)
    size = ""
    if hidden.any():
        error = float(np.sqrt(np.mean((made - truth)[hidden] ** 2)))
        size = f"The typical error of a hidden pixel is {number(error, 3)} (root mean square)."
    strips = [
        ("Hidden" if held else "Hidden half", holed, f"Images with {part} hidden."),
        ("Filled in", made, "The most plausible whole images."),
        *((f"Draw {i + 1}", one, f"Conditional draw {i + 1} of what is hidden.") for i, one in enumerate(draws)),
        ("Truth", truth, "The images as they were."),
    ]
    said = f"{part.capitalize()} of each image is hidden; the model fills it in."
    made_strips = [_strip(label, images, alt, how) for label, images, alt in strips]
    return section("inpainting", f"Filling in {half}", words(said, size), tag("div", made_strips, class_="strips"))
