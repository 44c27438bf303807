"""Sentences and their labels as numbers: a vocabulary, word numbers, lengths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from ravine._check import complaint, require, shown, translated
from ravine.data.frames import is_frame

Label = bool | int | float | str

_AROUND = re.compile(r"[()]")


def words_of(X: Any) -> list[list[str]]:
    """The words of every sentence.

    Parameters
    ----------
    X : a list, array or column of texts, each split at white space and before ``]``, round brackets left out; or whole
        numbers of shape (sentences, places), each a word, with -1 behind the last one.

    Raises
    ------
    ValueError
        In one line, when it is neither, or a sentence has no words.

    Examples
    --------
    >>> words_of(["( ( [SM 7 ) ] )"]), words_of(np.array([[3, 0, -1]]))
    ([['[SM', '7', ']']], [['3', '0']])
    """
    do = "give texts, or whole numbers padded with -1"
    X = X.to_numpy() if is_frame(X) else X
    listed = isinstance(X, Sequence) or (hasattr(X, "__array__") and np.ndim(X) > 0)
    require(listed and not isinstance(X, str | bytes) and len(X), "X", "sentences", shown(X), do)
    if not any(isinstance(text, str) for text in X):
        with translated("X", "texts or whole numbers", do):
            return _numbered(np.asarray(X))
    made = []
    for i, text in enumerate(X):
        if not isinstance(text, str):
            raise complaint(f"sentence {i}", "text", shown(text), do)
        made.append(_AROUND.sub(" ", text).replace("]", " ] ").split())
        if not made[-1]:
            raise complaint(f"sentence {i}", "at least one word", "none", "leave it out")
    return made


def _numbered(array: np.ndarray) -> list[list[str]]:
    require(array.dtype.kind in "iu", "X", "texts or whole numbers", f"type {array.dtype}", "change it")
    require(array.ndim == 2, "X", "whole numbers of shape (sentences, places)", f"shape {array.shape}", "reshape it")
    lengths = (array >= 0).sum(axis=1)
    packed = ((array >= 0) == (np.arange(array.shape[1]) < lengths[:, None])).all() and (lengths > 0).all()
    require(packed, "X", "word numbers, then -1", "-1 before a word, or no word", "move the padding to the end")
    return [[str(word) for word in row[:n]] for row, n in zip(array.tolist(), lengths, strict=True)]


@dataclass(frozen=True)
class Sentences:
    """What is known of labelled sentences: their words and classes in order, and how many there were.

    Attributes
    ----------
    words : the vocabulary; a word is written as its place in it.
    classes : the labels; a label is written as its place among them.
    longest : words of the longest sentence to learn from, at least 2.
    rows : sentences to learn from.

    Examples
    --------
    >>> seen = Sentences.of([["b", "a"], ["b"]], np.array([1, 0]))
    >>> seen.words, seen.classes, seen.encode([["b", "a"]], 3)
    (('a', 'b'), (0, 1), (array([[1, 0, 0]], dtype=int32), array([2], dtype=int32)))
    """

    words: tuple[str, ...]
    classes: tuple[Label, ...]
    longest: int
    rows: int

    @classmethod
    def of(cls, sentences: list[list[str]], labels: np.ndarray) -> Self:
        """What is in these sentences."""
        words = sorted({word for sentence in sentences for word in sentence})
        longest = max(map(len, sentences))
        return cls(tuple(words), tuple(np.unique(labels).tolist()), max(2, longest), len(sentences))

    def draw(self) -> None:
        """Reading a sentence has no random part."""

    def encode(self, sentences: list[list[str]], room: int) -> tuple[np.ndarray, np.ndarray]:
        """Word numbers, 0 behind the last word, of shape (sentences, room), and lengths.

        Raises
        ------
        ValueError
            In one line, when a word is not in the vocabulary.
        """
        number = {word: i for i, word in enumerate(self.words)}
        codes = np.zeros((len(sentences), room), np.int32)
        for i, sentence in enumerate(sentences):
            new = [word for word in sentence if word not in number]
            if new:
                raise complaint(f"sentence {i}", "words that were learned from", shown(new[0]), "leave it out")
            codes[i, : len(sentence)] = [number[word] for word in sentence]
        return codes, np.array([len(sentence) for sentence in sentences], np.int32)

    def labels(self, y: np.ndarray) -> np.ndarray:
        """Class numbers of labels that are all among the classes."""
        return np.searchsorted(np.asarray(self.classes), y).astype(np.int32)

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(tuple(kept["words"]), tuple(kept["classes"]), int(kept["longest"]), int(kept["rows"]))
