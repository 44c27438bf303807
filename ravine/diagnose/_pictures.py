"""Pictures of what is found inside of a model. Needs matplotlib (``pip install ravine[plot]``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ravine._check import require

Line = tuple[str, np.ndarray, Sequence[str] | None]  # what is on a line, one vector for each image, and their titles


def strips(lines: Sequence[Line], image_shape: tuple[int, ...] | None, path: Any = None) -> Any:
    """Lines of images, each line in one tone."""
    from matplotlib.figure import Figure

    do = "fit images, of shape (rows, height, width)"
    require(image_shape is not None, "the picture", "rows that are images", "a table", do)
    across = max(len(images) for _, images, _ in lines)
    figure = Figure(figsize=(1.1 + across, 0.3 + 1.1 * len(lines)), layout="constrained")
    grid = figure.subplots(len(lines), across, squeeze=False)
    for axes, (name, images, titles) in zip(grid, lines, strict=True):
        _line(axes, images.reshape(len(images), *(image_shape or ())), titles)
        axes[0].set_ylabel(name)
    return saved(figure, path)


def _line(axes: Any, images: np.ndarray, titles: Sequence[str] | None) -> None:
    seen = images[np.isfinite(images)]
    low, high = (seen.min(), seen.max()) if seen.size else (0.0, 1.0)
    for one in axes:
        one.set_xticks([])
        one.set_yticks([])
        one.set_frame_on(False)
    for i, image in enumerate(images):
        coloured = image.ndim == 3 and image.shape[-1] == 3
        shown = (image - low) / (high - low or 1.0) if coloured else image.reshape(image.shape[:2])
        axes[i].imshow(shown, cmap="gray", vmin=None if coloured else low, vmax=None if coloured else high)
        if titles is not None:
            axes[i].set_title(titles[i], fontsize=8)


def curve(xs: np.ndarray, ys: np.ndarray, errors: np.ndarray, labels: tuple[str, str], path: Any = None) -> Any:
    """A line with errors, from 0 to 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.errorbar(xs, ys, yerr=errors, marker="o", capsize=3)
    axes.set(xlabel=labels[0], ylabel=labels[1], ylim=(-0.02, 1.02))
    axes.grid(color="0.92")
    return saved(figure, path)


def bundles(xs: np.ndarray, groups: Sequence[tuple[str, np.ndarray]], names: Sequence[str], path: Any = None) -> Any:
    """For each group a frame, with a line over ``xs`` for each name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.0 + 2.6 * len(groups), 3.0), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        axes.plot(xs, lines, label=list(names) if len(names) <= 10 else None)
        axes.set(xlabel=title)
        axes.grid(color="0.92")
    if len(names) <= 10:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=8)
    return saved(figure, path)


def saved(figure: Any, path: Any) -> Any:
    """The figure, which is also written where a path is given."""
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
