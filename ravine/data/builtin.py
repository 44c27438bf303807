"""Data sets by name, and any file or folder by path."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from ravine._check import one_line, require, shown
from ravine.data import collection, generated, ising, music, protein, rectangles
from ravine.data.dataset import Dataset, from_table
from ravine.data.files import read_table


class Entry(NamedTuple):
    """A line of the list: what the set is in words, and how to load it."""

    words: str
    load: Callable[[], Dataset]


def _scikit(name: str, function: str, hints: dict[str, Any]) -> Dataset:
    """A set that comes with scikit-learn."""
    from sklearn import datasets

    bunch = getattr(datasets, function)()
    if "image_shape" not in hints:
        hints = hints | {"names": tuple(str(column) for column in bunch.feature_names)}
    return Dataset(name, bunch.data, labels=(bunch.target, None), hints=hints, source="comes with scikit-learn (UCI)")


def _entries() -> dict[str, Entry]:
    digits = {"levels": 17, "image_shape": (8, 8)}
    scikit = {
        "digits": ("1797 handwritten digits, 8 x 8 cells of 17 levels", "load_digits", digits | {"kind": "levels"}),
        "digits-binary": (
            "the same digits, 1 where a cell is at least 8",
            "load_digits",
            digits | {"binarise": "threshold", "threshold": 8.0},
        ),
        "iris": ("150 flowers, 4 lengths", "load_iris", {"kind": "real"}),
        "wine": ("178 wines, 13 chemical measurements", "load_wine", {"kind": "real"}),
        "breast-cancer": ("569 tumours, 30 measurements of cell nuclei", "load_breast_cancer", {"kind": "real"}),
        "diabetes": ("442 patients, 10 standardised measurements", "load_diabetes", {"kind": "real"}),
    }
    entries = {
        name: Entry(words, functools.partial(_scikit, name, function, hints))
        for name, (words, function, hints) in scikit.items()
    }
    entries["fa-tutorial"] = Entry("1000 + 1000 rows of a known factor analyser, 3 columns", generated.fa_tutorial)
    entries["moons"] = Entry("1000 + 1000 points on two half circles", generated.moons)
    entries["pinwheel"] = Entry("1000 + 1000 points on five curved arms", generated.pinwheel)
    entries["rect"] = Entry("1200 + 50000 outlines of rectangles, 28 x 28 bits, tall or wide", rectangles.rect)
    web, local = " (downloaded, or from RAVINE_DATA)", " (from RAVINE_DATA)"
    entries["mnist"] = Entry(f"50000 + 10000 + 10000 binary digits, 28 x 28, Larochelle{web}", collection.mnist)
    entries["mnist-60k"] = Entry(f"the same, training and validation rows together{web}", collection.mnist_60k)
    entries["mnist-grey"] = Entry(f"60000 + 10000 digits, 28 x 28, 256 grey levels{web}", collection.mnist_grey)
    entries["omniglot"] = Entry(f"24345 + 8070 characters, 28 x 28, grey levels{local}", collection.omniglot)
    entries["omniglot-bits"] = Entry(f"the same characters, drawn once as bits{local}", collection.omniglot_bits)
    entries["frey"] = Entry(f"1965 faces, 28 x 20, 256 grey levels{local}", collection.frey)
    entries["ising"] = Entry("20000 + 5000 lattices of 6 x 6 spins as bits, near where they order", ising.ising)
    entries["kunitz"] = Entry(f"9454 + 2365 aligned Kunitz domains, 53 places of 21 letters{local}", protein.kunitz)
    entries["lattice-proteins"] = Entry(
        f"37012 + 9253 sequences of one lattice fold, 27 places{local}", protein.lattice_proteins
    )
    pieces = {"jsb-chorales": "229 + 76 + 77", "muse-data": "524 + 135 + 124", "piano-midi": "87 + 12 + 25"}
    for name, counts in pieces.items():
        words = f"{counts} pieces of music, sequences of 88 bits{local}"
        entries[name] = Entry(words, functools.partial(music.music, name))
    families = (
        (DEBD, "binary columns", collection.debd),
        (REGRESSION, "real columns, UCI regression table", collection.uci_regression),
        (TABLES, "real columns, small UCI table", collection.uci_table),
    )
    for members, words, load in families:
        for name, columns in members.items():
            entries[name] = Entry(f"{columns} {words}{local}", functools.partial(load, name))
    return entries


DEBD = {
    "accidents": 111,
    "baudio": 100,
    "bbc": 1058,
    "bnetflix": 100,
    "dna": 180,
    "moviereview": 1001,
    "nips": 500,
    "nltcs": 16,
    "plants": 69,
    "pumsb_star": 163,
    "voting": 1359,
}
REGRESSION = {
    "bostonHousing": 13,
    "concrete": 8,
    "energy": 8,
    "kin8nm": 8,
    "naval-propulsion-plant": 16,
    "power-plant": 4,
    "protein-tertiary-structure": 9,
    "wine-quality-red": 11,
    "yacht": 6,
}
TABLES = {
    "abalone": 7,
    "banknote_authentication": 4,
    "pima-indians-diabetes": 8,
    "sonar": 60,
    "winequality-white": 11,
    "yeast": 8,
}


def dataset_names() -> dict[str, str]:
    """Every built-in name with one line about it. Nothing is loaded.

    Examples
    --------
    >>> dataset_names()["iris"]
    '150 flowers, 4 lengths'
    """
    return {name: entry.words for name, entry in _entries().items()}


def load_dataset(name_or_path: str | os.PathLike[str]) -> Dataset:
    """A data set by its built-in name, else the table or folder of images at a path.

    Sets that Ravine does not carry come from the folder that the environment variable ``RAVINE_DATA`` names; without
    it the MNIST sets are downloaded once into ``RAVINE_CACHE`` or ``~/.cache/ravine``.

    Raises
    ------
    ValueError
        In one line, when there is no such name or path, or the file or the download is not as it should be.

    Examples
    --------
    >>> data = load_dataset("iris")
    >>> data.train.shape, data.hints["names"][0]
    ((150, 4), 'sepal length (cm)')
    """
    entries, name = _entries(), os.fspath(name_or_path)
    if name in entries:
        return entries[name].load()
    near = difflib.get_close_matches(name, entries, 1)
    do = f"perhaps {shown(near[0])} was meant" if near else "see dataset_names(), or check the path"
    known = "\0" not in name and os.path.exists(name)
    require(known, shown(name), "the name of a data set or a path", "neither", do)
    return from_table(name, read_table(name), one_line(f"read from {name}"))
