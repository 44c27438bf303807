"""Pictures as PNG data addresses, written with zlib alone. Missing pixels are a half-transparent grey."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import NamedTuple

import numpy as np

from ravine.report.markup import Html, tag

HOLE = (128, 90)  # grey and opacity of a missing pixel: the same after the colours were inverted


class Tone(NamedTuple):
    """How values become pixels. With ``ink`` they are opacity of black, which a dark page turns into white."""

    low: float
    high: float
    ink: bool


def tone(images: np.ndarray) -> Tone:
    """The tone of images (n, height, width) or (n, height, width, channels): ink when the border is mostly empty.

    Examples
    --------
    >>> tone(np.pad(np.ones((1, 2, 2)), ((0, 0), (1, 1), (1, 1)))).ink
    True
    """
    seen = images[np.isfinite(images)]
    low, high = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
    high = high if high > low else low + 1.0
    frame = np.concatenate([images[:, [0, -1]].ravel(), images[:, :, [0, -1]].ravel()])
    empty = np.nanmedian(frame) <= low + 0.1 * (high - low) if np.isfinite(frame).any() else False
    return Tone(low, high, bool(empty) and images.ndim == 3)


def tiles(images: np.ndarray, columns: int, how: Tone, gap: int = 1) -> np.ndarray:
    """Images side by side, so many in a line, as pixels (height, width, 2 or 4) of 8 bits with opacity last."""
    n, height, width = images.shape[:3]
    lines = -(-n // columns)
    pixels = _pixels(images, how)
    sheet = np.zeros((lines * (height + gap) - gap, columns * (width + gap) - gap, pixels.shape[-1]), np.uint8)
    for i in range(n):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = pixels[i]
    return sheet


def _pixels(images: np.ndarray, how: Tone) -> np.ndarray:
    hole = np.isnan(images) if images.ndim == 3 else np.isnan(images).any(-1)
    grey = np.clip((np.nan_to_num(images) - how.low) / (how.high - how.low), 0, 1) * 255
    values = np.rint(grey).astype(np.uint8)
    full = np.full((*values.shape[:3], 1), 255, np.uint8)
    if images.ndim == 4 and images.shape[-1] == 3:
        made = np.concatenate([values, full], axis=-1)
    else:
        values = values if images.ndim == 3 else values[..., 0]
        made = np.stack([np.zeros_like(values), values] if how.ink else [values, full[..., 0]], axis=-1)
    made[hole] = (HOLE[0],) * (made.shape[-1] - 1) + (HOLE[1],)
    return made


def encode(pixels: np.ndarray) -> bytes:
    r"""A PNG file of pixels (height, width, 2) in grey and opacity, or (height, width, 4) in colour and opacity.

    Examples
    --------
    >>> encode(np.zeros((1, 1, 2), np.uint8))[:8]
    b'\x89PNG\r\n\x1a\n'
    """
    height, width, channels = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # filter: none
    head = struct.pack(">IIBBBBB", width, height, 8, {2: 4, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def address(pixels: np.ndarray) -> str:
    """The picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(encode(pixels)).decode()


def picture(images: np.ndarray, alt: str, how: Tone, columns: int = 10, tile: int = 64) -> Html:
    """Images in lines of so many; each is shown at most ``tile`` pixels wide."""
    columns = min(columns, len(images))
    pixels = tiles(images, columns, how)
    size = {"width": pixels.shape[1], "height": pixels.shape[0], "style": f"width:{columns * tile}px"}
    return tag("img", src=address(pixels), alt=alt, class_="picture ink" if how.ink else "picture", **size)
