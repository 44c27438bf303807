"""A data set: arrays for training and test, and what is known about them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from ravine.data.arrays import blocks
from ravine.data.files import Labels, Table
from ravine.data.frames import is_frame


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows for training and, where the set has its own split, for validation and test.

    Attributes
    ----------
    name : built-in name or path.
    train, valid, test : (rows, columns), NaN where missing; the last two may be None. A data frame when some columns
        hold text or dates, a list of arrays (steps, columns) when the data are sequences.
    labels : (of train, of test or None), or None; one number a row.
    hints : keyword arguments for `Schema.infer` that describe the set, such as kind, levels, image_shape, names.
    source : one line that says where the numbers come from.

    Examples
    --------
    >>> Dataset("two", np.zeros((2, 1))).checksum[:8]
    '5daf164b'
    """

    name: str
    train: Any
    valid: Any = None
    test: Any = None
    labels: Labels | None = None
    hints: dict[str, Any] = dataclasses.field(default_factory=dict)
    source: str = ""

    @functools.cached_property
    def checksum(self) -> str:
        """SHA-256 of the training array: its type, its shape, its cells row by row; of a data frame as text.

        Of sequences: their types and shapes, then their cells.
        """
        if isinstance(self.train, list):
            digest = hashlib.sha256("".join(f"{part.dtype.str}{part.shape}" for part in self.train).encode())
            for part in self.train:
                digest.update(np.ascontiguousarray(part).data)
            return digest.hexdigest()
        if is_frame(self.train):
            return hashlib.sha256(self.train.to_csv(index=False).encode()).hexdigest()
        digest = hashlib.sha256(f"{self.train.dtype.str}{self.train.shape}".encode())
        for _, block in blocks(self.train):
            digest.update(np.ascontiguousarray(block).data)
        return digest.hexdigest()


def from_table(name: str, table: Table, source: str, **hints: Any) -> Dataset:
    """A data set out of what a file holds; hints given here win over what the file says of itself."""
    known = {"names": table.names, "image_shape": table.image_shape, "levels": table.levels} | hints
    hints = {option: value for option, value in known.items() if value is not None}
    return Dataset(name, table.x, table.valid, table.test, table.labels, hints, source)
