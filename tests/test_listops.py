"""ListOps: answers and trees of every published sentence, and sentences of our own drawn from the same law."""

import functools
import os

import numpy as np
import pytest
from scipy import stats

from ravine.data import listops

with_data = pytest.mark.skipif(
    not os.environ.get("RAVINE_DATA"), reason="the environment variable RAVINE_DATA names no folder of data"
)
RARE = 1e-4  # a comparison of two samples of one law has a smaller p-value once in 10,000 times


def bracketed(tree) -> str:
    return tree if isinstance(tree, str) else f"( {bracketed(tree[0])} {bracketed(tree[1])} )"


@with_data
@pytest.mark.parametrize("split, rows", [("valid", 1_000), ("test", 10_000)])
def test_every_published_answer_and_tree(split, rows):
    sentences, answers = listops.read(split)
    assert len(sentences) == rows and np.array_equal(listops.answers(sentences), answers)
    assert all(bracketed(listops.tree(sentence)) == sentence for sentence in sentences)


def nested_evaluate(sentence: str) -> int:
    """The answer by rewriting innermost lists, unlike `listops.evaluate`."""
    words = listops.tokens(sentence)
    while len(words) > 1:
        end = words.index("]")
        start = max(i for i in range(end) if words[i].startswith("["))
        v = sorted(int(word) for word in words[start + 1 : end])
        middle = (v[(len(v) - 1) // 2] + v[len(v) // 2]) // 2
        value = {"[MAX": v[-1], "[MIN": v[0], "[MED": middle, "[SM": sum(v) % 10}[words[start]]
        words[start : end + 1] = [str(value)]
    return int(words[0])


def test_answers_without_the_published_ones():
    sentences, answers = listops.generate(500, seed=3)
    assert [nested_evaluate(sentence) for sentence in sentences] == answers.tolist()


@pytest.mark.parametrize(
    "wrong", ["", "[MAX 2 3", "2 3", "]", "[MAX ]", "[MAX 2 ] ]", "[ADD 2 3 ]", "[MAX 12 ]", "( )"]
)
def test_what_is_no_sentence_is_refused_in_one_line(wrong):
    for verb in (listops.evaluate, listops.tree):
        with pytest.raises(ValueError, match="a ListOps sentence: expected digits") as refusal:
            verb(wrong)
        assert "\n" not in str(refusal.value)


# --- the generator


def features(sentences) -> dict[str, np.ndarray]:
    """Lengths, depths, answers; and of every operator its kind and its number of arguments."""
    length, depth, kind, arguments = [], [], [], []
    for sentence in sentences:
        words, open_lists, deepest = listops.tokens(sentence), [], 0
        for word in words:
            if word == "]":
                arguments.append(open_lists.pop())
                continue
            if open_lists:
                open_lists[-1] += 1
            if word in listops.OPERATORS:
                kind.append(list(listops.OPERATORS).index(word))
                open_lists.append(0)
                deepest = max(deepest, len(open_lists))
        length.append(len(words))
        depth.append(deepest)
    answer = listops.answers(sentences)
    return {
        name: np.array(values)
        for name, values in dict(length=length, depth=depth, answer=answer, kind=kind, arguments=arguments).items()
    }


def p_values(ours, theirs, counted=("depth", "answer", "kind", "arguments")) -> dict[str, float]:
    """That both are of one law: Kolmogorov-Smirnov for lengths, chi-squared for counts, those from 8 on together."""
    ours, theirs = features(ours), features(theirs)
    found = {"length": stats.ks_2samp(ours["length"], theirs["length"]).pvalue}
    for name in counted:
        most = 8 if name == "depth" else 9
        table = np.stack([np.bincount(np.minimum(f[name], most), minlength=most + 1) for f in (ours, theirs)])
        found[name] = stats.chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue
    return found


def long(sentences) -> list[str]:
    """Sentences of at least 8 tokens: of those hardly any was drawn twice, however many were drawn."""
    return [sentence for sentence in sentences if len(listops.tokens(sentence)) >= 8]


@pytest.mark.slow
@with_data
def test_generated_sentences_are_like_the_published_ones():
    """Five comparisons: with another seed a right generator fails once in 2000 times. Wrong ones are told apart."""
    published = long(listops.read("valid")[0])
    drawn = lambda n, **law: long(listops.generate(n, seed=1, **law)[0])  # noqa: E731
    assert min(p_values(drawn(4_000), published).values()) > RARE
    assert p_values(drawn(1_500, share=0.2), published)["length"] < RARE
    assert p_values(drawn(1_500, arguments=4), published)["arguments"] < RARE
    assert p_values(drawn(1_500, depth=8), published)["depth"] < RARE


@with_data
@pytest.mark.slow
def test_a_drawing_of_the_papers_size_is_like_the_published_one():
    """As above, the short sentences, of which most are drawn many times, included; once in 2000 times."""
    assert min(p_values(listops.generate(100_000)[0], listops.read("test")[0]).values()) > RARE


def test_a_drawing_of_all_there_are():
    """Ten digits, and four operators on two digits."""
    sentences, answers = listops.generate(410, depth=2, arguments=2)
    assert len(set(sentences)) == 410 and {len(listops.tokens(s)) for s in sentences} == {1, 4}
    assert {s for s in sentences if len(s) == 1} == set(listops.DIGITS)
    assert answers[sentences.index("[MED 4 7 ]")] == 5
    with pytest.raises(ValueError, match="expected 411 distinct sentences, got 410"):
        listops.generate(411, depth=2, arguments=2)


def test_limits_and_seeds():
    one, other = listops.generate(300, seed=5, depth=4, longest=12), listops.generate(300, seed=5, depth=4, longest=12)
    assert one[0] == other[0] and np.array_equal(one[1], other[1])
    assert one[0] != listops.generate(300, seed=6, depth=4, longest=12)[0]
    seen = features(one[0])
    assert seen["length"].max() == 12 and seen["depth"].max() <= 3
    for wrong in (dict(n=0), dict(depth=0), dict(arguments=1), dict(share=1.5), dict(share=float("nan"))):
        with pytest.raises(ValueError, match="expected"):
            listops.generate(**{"n": 3} | wrong)


def test_the_order_does_not_show_when_a_sentence_was_drawn():
    """Short ones come first in the drawing; the chance of a rank correlation of 4.5 standard errors is 7e-6."""
    length = features(listops.generate(2_000, seed=2)[0])["length"]
    assert abs(stats.spearmanr(np.arange(2_000), length).statistic) < 4.5 / np.sqrt(2_000)


def test_spans_of_right_and_wrong_trees():
    right = listops.tree("[MAX 2 [MIN 4 7 ] ]")
    assert listops.spans(right) == (7, {(0, 2), (2, 4), (2, 5), (2, 6), (0, 6), (0, 7)})
    assert listops.shared_spans(right, right) == 1 and listops.shared_spans("7", "7") == 1
    first, *others = listops.tokens("[MAX 2 [MIN 4 7 ] ]")
    left = functools.reduce(lambda tree, word: (tree, word), others, first)
    assert listops.shared_spans(left, right) == pytest.approx(3 / 6)
