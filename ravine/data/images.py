"""A folder of images as an array of 8-bit grey or colour values. Pillow is loaded when it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ravine._check import complaint, require, same_shape, translated

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")


def read_images(folder: Path) -> np.ndarray:
    """The images of a folder in the order of their names: (images, height, width), or (..., 3) when in colour.

    Files that are not images are passed over; folders inside it are not entered.

    Raises
    ------
    ValueError
        When there is no image, one is damaged, transparent, animated or deeper than 8 bits, or two differ in shape.
    """
    with translated(str(folder), "a folder that can be read", "check its permissions"):
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    do = "give the folder that directly holds the images"
    require(paths, str(folder), f"images ({', '.join(SUFFIXES)})", "none", do)
    images = [_read_image(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        same_shape(str(path), image.shape, images[0].shape, f"make every image as {paths[0].name}")
    return np.stack(images)


def _read_image(path: Path) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError:
        raise complaint(str(path), "Pillow to read images", "none", "pip install 'ravine[data]'") from None
    with translated(str(path), "a readable image", "replace or remove it"), Image.open(path) as image:
        image.load()
        return np.asarray(_eight_bit(image, str(path)))


def _eight_bit(image: Image.Image, what: str) -> Image.Image:
    still = getattr(image, "n_frames", 1) == 1
    require(still, what, "a still image", "an animation", "export one frame")
    known = image.mode in ("1", "L", "LA", "RGB", "RGBA", "P", "PA")
    require(known, what, "8-bit grey or colour", f"mode {image.mode}", "convert it to 8-bit grey or RGB")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    if image.mode in ("LA", "RGBA"):
        opaque = np.asarray(image.getchannel("A")).min() == 255
        require(opaque, what, "opaque pixels", "transparency", "flatten it onto a background")
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
