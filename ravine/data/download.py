"""Downloads from the data sets' own homes into a cache, believed only when their SHA-256 is right."""

from __future__ import annotations

import gzip
import hashlib
import os
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ravine._check import complaint, one_line, require
from ravine._files import beside

CHUNK = 2**20


@dataclass(frozen=True)
class Remote:
    """A file elsewhere. Size and SHA-256 are those of the content, unpacked when a URL ends in ``.gz``.

    Attributes
    ----------
    name : name of the unpacked file in the cache.
    urls : tried in turn.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    size: int


def _mnist(name: str, sha256: str, size: int) -> Remote:
    homes = ("https://ossci-datasets.s3.amazonaws.com/mnist", "http://yann.lecun.com/exdb/mnist")
    return Remote(name, tuple(f"{home}/{name}.gz" for home in homes), sha256, size)


def _larochelle(part: str, sha256: str, size: int) -> Remote:
    name = f"binarized_mnist_{part}.amat"
    home = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
    return Remote(name, (f"{home}/{name}",), sha256, size)


MNIST = {
    "x_train": _mnist(
        "train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 47040016
    ),
    "y_train": _mnist(
        "train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 60008
    ),
    "x_test": _mnist(
        "t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 7840016
    ),
    "y_test": _mnist(
        "t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 10008
    ),
}
BINARISED_MNIST = {
    "x_train": _larochelle("train", "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d", 78400000),
    "x_valid": _larochelle("valid", "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2", 15680000),
    "x_test": _larochelle("test", "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c", 15680000),
}


def cache_folder() -> Path:
    """Where downloads are kept: ``RAVINE_CACHE``, else ``~/.cache/ravine``."""
    return Path(os.environ.get("RAVINE_CACHE") or Path.home() / ".cache" / "ravine")


def fetch(remote: Remote, folder: Path | None = None, timeout: float = 30.0) -> Path:
    """The file in the cache, downloaded first when it is absent or damaged.

    Parameters
    ----------
    folder : the cache; `cache_folder` unless given.
    timeout : seconds a server may stay silent.

    Raises
    ------
    ValueError
        In one line, when no server answers, the content is not what it should be, or the cache cannot be written.
    """
    path = (folder or cache_folder()) / remote.name
    if path.is_file() and digest(path) == remote.sha256:
        return path
    reasons = []
    for url in remote.urls:
        try:
            _download(url, remote, path, timeout)
            return path
        except Exception as error:  # refused connections, half answers, bad gzip: whatever a network can do
            reasons.append(f"{url}: {one_line(error, 150)}")
    do = f"connect, or set RAVINE_DATA to a folder with the data, or put the file at {path}"
    raise complaint(remote.name, "a download", "; ".join(reasons), do)


def digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(url: str, remote: Remote, path: Path, timeout: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    request = urllib.request.Request(url, headers={"User-Agent": "ravine"})
    seen, size = hashlib.sha256(), 0
    with urllib.request.urlopen(request, timeout=timeout) as answer, beside(path) as stream:
        for chunk in _chunks(gzip.GzipFile(fileobj=answer) if url.endswith(".gz") else answer):
            size += len(chunk)
            require(size <= remote.size, url, f"{remote.size} bytes", "more", "try again later")
            seen.update(chunk)
            stream.write(chunk)
        good = seen.hexdigest() == remote.sha256
        require(good, url, f"SHA-256 {remote.sha256[:16]}", f"{seen.hexdigest()[:16]}", "try again later")


def _chunks(stream: IO[bytes] | Any) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):
        yield chunk


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes in the IDX format: magic 2051 (images) or 2049 (labels), sizes as big-endian 32-bit words.

    Raises
    ------
    ValueError
        When the header or the length is not that of such a file.
    """
    content = path.read_bytes()
    axes = int.from_bytes(content[:4], "big") - 2048
    sizes = [int(n) for n in np.frombuffer(content[4 : 4 + 4 * min(axes, 3)], ">u4")] if axes in (1, 3) else []
    good = len(sizes) == axes and len(content) == 4 + 4 * axes + int(np.prod(sizes, dtype=object))
    require(good, str(path), "an IDX file of bytes", f"{len(content)} other bytes", "delete it and try again")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(sizes)


def read_amat(path: Path) -> np.ndarray:
    """Rows of 784 digits 0 or 1 with one blank between, as Larochelle's files have them.

    Raises
    ------
    ValueError
        When the file is anything else.
    """
    content = np.fromfile(path, np.uint8)
    whole_rows = content.size > 0 and content.size % 1568 == 0
    bits = content[::2] - np.uint8(ord("0"))
    good = whole_rows and bool((bits <= 1).all())
    require(good, str(path), "rows of 784 digits", f"{content.size} other bytes", "delete it and try again")
    return bits.reshape(-1, 784)
