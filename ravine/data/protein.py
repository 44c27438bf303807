"""Aligned protein sequences: letters of one family as codes, a row each; read from the folder ``RAVINE_DATA``.

Tubiana, Cocco & Monasson 2019, *Learning protein constitutive motifs from sequence data*, arXiv:1803.08718, whose data
these are. Codes count the letters of `LETTERS`; 0 is a gap.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from ravine._check import require, translated
from ravine.data.collection import _local
from ravine.data.dataset import Dataset

LETTERS = "-ACDEFGHIKLMNPQRSTVWY"
CYSTEINE_14 = 10  # its place in the alignment
TRAIN = 0.8  # share of the distinct sequences
PGM = "github.com/jertubiana/PGM"


def kunitz() -> Dataset:
    """Kunitz domains, 53 places of 21 letters; the label is 1 where cysteine 14 is there.

    It is one end of a bridge, 14-38, that some of the family lack. The label is a cell of the row itself, so what is
    uncorrelated with it must ignore that cell and whatever goes along with it.
    """
    sequences, _ = _read("kunitz_pf00014_msa.npz", "kunitz")
    label = (sequences[:, CYSTEINE_14] == LETTERS.index("C")).astype(np.int64)
    return _split("kunitz", sequences, label, f"Pfam PF00014, from {PGM}; label: cysteine 14 is there")


def lattice_proteins() -> Dataset:
    """Sequences that fold into one structure of a lattice model, 27 places of 20 letters and no gap.

    The label is 1 where the probability of the native structure is above its median over all sequences: a property of
    the whole sequence that no single place tells. Jacquin, Gilson, Shakhnovich, Cocco & Monasson 2016.
    """
    sequences, p_native = _read("lattice_SA_msa.npz", "lattice-proteins")
    label = (p_native > np.median(p_native)).astype(np.int64)
    return _split("lattice-proteins", sequences, label, f"structure S_A, from {PGM}; label: p_native above its median")


def spelled(codes: Int[np.ndarray, "rows places"]) -> list[str]:
    """Sequences as text.

    Examples
    --------
    >>> spelled(np.array([[2, 0, 1]]))
    ['C-A']
    """
    return ["".join(LETTERS[int(code)] for code in row) for row in codes]


def _read(file: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The codes, and p_native where the file has it."""
    do = "replace the file"
    with translated(name, f"the arrays of {file}", do), np.load(_local(f"protein/{file}", name)) as archive:
        sequences, alphabet = archive["sequences"], "".join(archive["alphabet"].tolist())
        p_native = archive["p_native"] if "p_native" in archive else np.zeros(0)
    require(alphabet == LETTERS, file, f"the letters {LETTERS}", alphabet, do)
    return sequences.astype(np.uint8), p_native


def _split(name: str, sequences: np.ndarray, label: np.ndarray, source: str) -> Dataset:
    """Four fifths for training; copies of a sequence stay together."""
    _, member = np.unique(sequences, axis=0, return_inverse=True)
    order = np.random.default_rng(0).permutation(member.max() + 1)
    train = order[member] < TRAIN * len(order)
    labels, hints = (label[train], label[~train]), {"kind": "levels", "levels": len(LETTERS)}
    return Dataset(name, sequences[train], None, sequences[~train], labels, hints, source)
