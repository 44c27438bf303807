"""Outlines of rectangles, tall or wide: a set that can be drawn again, with a label that no few pixels tell.

Larochelle, Erhan, Courville, Bergstra & Bengio 2007, *An empirical evaluation of deep architectures on problems with
many factors of variation*: pixels of the border are white. Height and width are uniform, and drawn again where they
differ by less than three pixels; the corner is uniform where all of the rectangle fits. The range of the sizes is not
told: here they are 1 to 28. The rows are drawn anew; they are not those of the authors, whose set has as many.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt8

from ravine.data.dataset import Dataset

SIDE = 28
APART = 3  # pixels by which height and width differ at least
ROWS = (1_200, 50_000)


def rect() -> Dataset:
    """1200 + 50000 outlines of rectangles, 28 x 28 pixels of 0 and 1; the label is 1 where one is wide.

    The authors hold out 200 of the training rows.

    Examples
    --------
    >>> data = rect()
    >>> data.train.shape, data.test.shape
    ((1200, 784), (50000, 784))
    """
    images, wide = rectangles(sum(ROWS))
    train, test = np.split(images.reshape(len(images), -1), ROWS[:1])
    labels = (wide[: ROWS[0]], wide[ROWS[0] :])
    hints = {"kind": "binary", "image_shape": (SIDE, SIDE)}
    source = "outlines drawn with seed 0 as by Larochelle et al. 2007; not their draws"
    return Dataset("rect", train, None, test, labels, hints, source)


def rectangles(
    rows: int, side: int = SIDE, seed: int = 0
) -> tuple[UInt8[np.ndarray, "rows side side"], Int[np.ndarray, " rows"]]:
    """Images of one outline each, and 1 where it is wider than tall, else 0.

    Examples
    --------
    >>> image, wide = (part[0] for part in rectangles(1, side=5, seed=3))
    >>> image.sum().item() > 0, wide.item() in (0, 1)
    (True, True)
    """
    stream = np.random.default_rng(seed)
    sizes = np.array([(h, w) for h in range(1, side + 1) for w in range(1, side + 1) if abs(h - w) >= APART])
    chosen = sizes[stream.integers(len(sizes), size=rows)]  # uniform over the pairs that are not drawn again
    corner = stream.integers(side - chosen + 1)
    return _outlines(corner, corner + chosen, side), (chosen[:, 1] > chosen[:, 0]).astype(np.int64)


def _outlines(
    first: Int[np.ndarray, "rows 2"], end: Int[np.ndarray, "rows 2"], side: int
) -> UInt8[np.ndarray, "rows side side"]:
    """1 on the border of the rectangles between these rows and columns, 0 elsewhere."""
    solid, hollow = (_filled(first + edge, end - edge, side) for edge in (0, 1))
    return (solid & ~hollow).astype(np.uint8)


def _filled(first: np.ndarray, end: np.ndarray, side: int) -> np.ndarray:
    place = np.arange(side)
    inside = (first[..., None] <= place) & (place < end[..., None])
    return inside[:, 0, :, None] & inside[:, 1, None, :]
