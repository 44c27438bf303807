"""ListOps: nested operators on lists of digits, each sentence with one answer and one right tree.

Nangia & Bowman 2018, "ListOps: a diagnostic dataset for latent tree learning", arXiv:1804.06028. A sentence such as
``[MAX 2 9 [MIN 4 7 ] 0 ]`` has the answer 9. Its tree is binary: operator and first argument are merged, then the
second argument is, and so on to the closing bracket.
"""

from __future__ import annotations

import random
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ravine._check import Complaint, complaint, require, shown, whole
from ravine.data.collection import _local
from ravine.data.text import opened

OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "[MAX": max,
    "[MIN": min,
    "[MED": lambda values: int(statistics.median(values)),
    "[SM": lambda values: sum(values) % 10,
}
DIGITS = tuple("0123456789")
VOCABULARY = (*DIGITS, *OPERATORS, "]")
TRIES = 100  # draws for each sentence that is wanted, before it is said that there are too few

BinaryTree = Any  # a token, or a pair of trees

_TOKEN = re.compile(r"\[?\w+|\]|\S")


def tokens(sentence: str) -> list[str]:
    """The tokens of a sentence, without the round brackets that some files put around each merge.

    Examples
    --------
    >>> tokens("( ( ( [SM 7 ) 5 ) ] )"), tokens("[SM 7 5]")
    (['[SM', '7', '5', ']'], ['[SM', '7', '5', ']'])
    """
    return [token for token in _TOKEN.findall(sentence) if token not in "()"]


def evaluate(sentence: str) -> int:
    """The answer of a sentence; the median of an even number of values is rounded down.

    Raises
    ------
    ValueError
        In one line, when the sentence is not one expression with at least one argument for each operator.

    Examples
    --------
    >>> evaluate("[SM 8 [MED 1 2 4 9 ] ]")
    1
    """
    lists: list[tuple[str, list[int]]] = [("", [])]  # the outermost has no operator
    for token in tokens(sentence):
        if token in OPERATORS:
            lists.append((token, []))
        elif token in DIGITS:
            lists[-1][1].append(int(token))
        elif token == "]" and len(lists) > 1 and lists[-1][1]:
            name, values = lists.pop()
            lists[-1][1].append(OPERATORS[name](values))
        else:
            raise _ungrammatical(sentence)
    if len(lists) > 1 or len(lists[0][1]) != 1:
        raise _ungrammatical(sentence)
    return lists[0][1][0]


def _ungrammatical(sentence: str) -> Complaint:
    one = f"digits, {', '.join(OPERATORS)} and ], as one expression"
    return complaint("a ListOps sentence", one, shown(sentence), "correct it")


def tree(sentence: str) -> BinaryTree:
    """The tree that its brackets say, as nested pairs of tokens.

    Examples
    --------
    >>> tree("[MAX 2 [MIN 4 7 ] ]")
    ((('[MAX', '2'), ((('[MIN', '4'), '7'), ']')), ']')
    """
    evaluate(sentence)  # refuses what is no sentence
    lists: list[BinaryTree] = []
    node: BinaryTree = None
    for token in tokens(sentence):
        if token in OPERATORS:
            lists.append(token)
            continue
        node = (lists.pop(), "]") if token == "]" else token
        if lists:
            lists[-1] = (lists[-1], node)
    return node


def spans(parsed: BinaryTree, start: int = 0) -> tuple[int, set[tuple[int, int]]]:
    """Number of tokens of a tree, and the (first, last + 1) of each of its merges.

    Examples
    --------
    >>> spans((("a", "b"), "c"))
    (3, {(0, 2), (0, 3)})
    """
    if not isinstance(parsed, tuple):
        return 1, set()
    left, within = spans(parsed[0], start)
    right, others = spans(parsed[1], start + left)
    return left + right, within | others | {(start, start + left + right)}


def shared_spans(parsed: BinaryTree, reference: BinaryTree) -> float:
    """Share of the merges of one binary tree that another of the same sentence has: unlabelled precision, recall, F1.

    The merge of the whole sentence counts. A tree without merges agrees, with 1.

    Examples
    --------
    >>> shared_spans((("a", "b"), "c"), ("a", ("b", "c")))
    0.5
    """
    ours, theirs = spans(parsed)[1], spans(reference)[1]
    return len(ours & theirs) / len(ours) if ours else 1.0


def generate(
    n: int, seed: int = 0, *, depth: int = 20, arguments: int = 5, share: float = 0.25, longest: int | None = None
) -> tuple[list[str], np.ndarray]:
    """``n`` distinct sentences, drawn as those of the paper, in random order, and their answers.

    A node is an operator with probability ``share``, with 2 to ``arguments`` arguments, else a digit; all choices are
    uniform. Repetitions are drawn again: of many sentences few are short.

    Parameters
    ----------
    n : how many; the paper's files are 100,000 of one drawing.
    seed : fixes the sentences, on every machine.
    depth : levels of nesting at most, of which the last are digits.
    arguments : of an operator at most, at least 2.
    share : probability of an operator, from 0 to 1.
    longest : tokens of a sentence at most; longer ones are drawn again.

    Raises
    ------
    ValueError
        In one line, when a number is out of range, or there seem to be fewer such sentences.

    Examples
    --------
    >>> generate(3)
    (['2', '4', '7'], array([2, 4, 7]))
    """
    for name, got, least in (("n", n, 1), ("depth", depth, 1), ("arguments", arguments, 2)):
        whole(name, got, least)
    require(0 <= share <= 1, "share", "a probability", shown(share), "change it")
    rng, made, tries = random.Random(seed), set(), 0
    drawn: list[str] = []
    while len(drawn) < n:
        words = list(_words(rng, depth, arguments, share))
        sentence, tries = " ".join(words), tries + 1
        if sentence not in made and (longest is None or len(words) <= longest):
            made.add(sentence)
            drawn.append(sentence)
        if tries > TRIES * (n + TRIES):
            raise complaint("ListOps", f"{n} distinct sentences", f"{len(drawn)}", "allow longer or deeper ones")
    drawn.sort(key=lambda _: rng.random())  # the short ones were met first
    return drawn, np.array([evaluate(sentence) for sentence in drawn])


def _words(rng: random.Random, depth: int, arguments: int, share: float) -> Iterator[str]:
    """The tokens of one expression with at most ``depth`` levels."""
    if depth < 2 or rng.random() >= share:
        yield DIGITS[int(rng.random() * 10)]
        return
    yield list(OPERATORS)[int(rng.random() * 4)]
    for _ in range(2 + int(rng.random() * (arguments - 1))):
        yield from _words(rng, depth - 1, arguments, share)
    yield "]"


def read(split: str) -> tuple[list[str], np.ndarray]:
    """The published sentences and answers of a split, ``"valid"`` or ``"test"``, from the folder ``RAVINE_DATA``.

    The sentences are as in the file, with round brackets around each merge. ``listops/valid.tsv.gz`` and
    ``listops/test.tsv.gz`` are 1000 and 10,000 lines of an answer, a tab and a sentence.

    Raises
    ------
    ValueError
        In one line, when the file is not there, or a line is not so.
    """
    file, sentences, labels = f"listops/{split}.tsv.gz", [], []
    with opened(_local(file, "listops")) as lines:
        for number, line in enumerate(lines, 1):
            answer, tab, sentence = line.rstrip("\n").partition("\t")
            if not tab or answer not in DIGITS:
                what = f"{file}, line {number}"
                raise complaint(what, "a digit, a tab and a sentence", shown(line), "restore the file")
            sentences.append(sentence)
            labels.append(int(answer))
    return sentences, np.array(labels)


def answers(sentences: Sequence[str]) -> np.ndarray:
    """The answer of each sentence.

    Examples
    --------
    >>> answers(["[MAX 2 9 ]", "3"]).tolist()
    [9, 3]
    """
    return np.array([evaluate(sentence) for sentence in sentences])
