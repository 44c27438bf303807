"""Latent trees against plain loops and sums over all trees; and a classifier's contract where rows are sentences."""

from __future__ import annotations

import functools
import json
import pickle
import subprocess
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pandas as pd
import pytest
from helpers import LIMIT, some
from scipy.special import expit, log_softmax
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

import ravine as rv
from ravine.blame import RobustnessWarning
from ravine.classifier import nested
from ravine.cli import main
from ravine.core import Row
from ravine.data import listops
from ravine.data.sentences import words_of
from ravine.gradients import (
    IMLE,
    RLOO,
    Enumerate,
    GappedStraightThrough,
    GumbelRao,
    GumbelSoftmax,
    Pathwise,
    ReinMax,
    ScoreFunction,
    StraightThrough,
    StraightThroughGumbel,
)
from ravine.models.latent_tree import AffineLeaf, LatentTree, LearnedOrder, LeftFirst, RecurrentLeaf
from ravine.objectives import CrossEntropy

WORDS, CLASSES, AFFINE = 5, 3, AffineLeaf()
HARD = {
    "straight-through": StraightThrough(0.7),
    "straight-through-gumbel": StraightThroughGumbel(0.5),
    "gumbel-rao": GumbelRao(0.5, 3),
    "rein-max": ReinMax(1.1),
    "gapped": GappedStraightThrough(0.5),
    "gapped-p": GappedStraightThrough(0.5, None),
}


def model(leaf: Any = AFFINE) -> LatentTree:
    """A small model whose merges are far from even."""
    made = LatentTree(WORDS, CLASSES, 4, 3, (5,), leaf, LearnedOrder(), key=jr.key(1))
    gates, query = made.cell.gates.layers[0].weight, jnp.array([2.0, -3.0, 1.5])
    return eqx.tree_at(lambda m: (m.order.query, m.cell.gates.layers[0].weight), made, (query, 2 * gates))


def sentence(words: tuple[int, ...], room: int, label: int = 1) -> Row:
    padded = np.full(room, 2, np.int32)
    padded[: len(words)] = words
    return Row(jnp.asarray(padded), length=jnp.asarray(len(words)), y=jnp.asarray(label))


# --- in plain numpy


def leaves(m: LatentTree, words: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    net, embedded = m.leaf.net.layers[0], np.asarray(m.embedding)[list(words)]
    return [tuple(np.split(np.asarray(net.weight) @ x + np.asarray(net.bias), 2)) for x in embedded]


def parent(m: LatentTree, left: tuple, right: tuple) -> tuple[np.ndarray, np.ndarray]:
    gates = m.cell.gates.layers[0]
    i, fl, fr, o, u = np.split(
        np.asarray(gates.weight) @ np.concatenate([left[0], right[0]]) + np.asarray(gates.bias), 5
    )
    c = expit(fl) * left[1] + expit(fr) * right[1] + expit(i) * np.tanh(u)
    return expit(o) * np.tanh(c), c


def sequences(
    m: LatentTree, nodes: list, so_far: tuple = (), log_q: float = 0.0
) -> list[tuple[tuple, float, np.ndarray]]:
    """Every sequence of merges with its log probability and the output at the root."""
    if len(nodes) == 1:
        return [(so_far, log_q, nodes[0][0])]
    pairs = [parent(m, a, b) for a, b in zip(nodes[:-1], nodes[1:], strict=True)]
    log_p = log_softmax([np.asarray(m.order.query) @ h / np.sqrt(len(h)) for h, _ in pairs])
    found = []
    for i, pair in enumerate(pairs):
        found += sequences(m, [*nodes[:i], pair, *nodes[i + 2 :]], (*so_far, i), log_q + log_p[i])
    return found


def one_hots(merges: tuple[int, ...], room: int) -> jax.Array:
    places = [*merges, *[0] * (room - 1 - len(merges))]
    return jax.nn.one_hot(jnp.array(places), room - 1)


def log_label(m: LatentTree, root: np.ndarray, label: int) -> float:
    first, last = m.head.layers
    h = np.maximum(np.asarray(first.weight) @ root + np.asarray(first.bias), 0)
    return float(log_softmax(np.asarray(last.weight) @ h + np.asarray(last.bias))[label])


FOUR = (3, 0, 4, 1)


@pytest.mark.parametrize("room", [6, pytest.param(4, marks=pytest.mark.slow)])
def test_roots_and_laws_of_all_merges_are_those_of_a_plain_loop(room, x64):
    m, row = model(), sentence(FOUR, room)

    @eqx.filter_jit
    def grown(m, merges):
        tree = m.posterior(row).grown(merges)
        return tree.root, m.posterior(row).log_prob(tree), m.log_label(tree, row)

    found = sequences(m, leaves(m, FOUR))
    assert len(found) == 6 and sum(np.exp(log_q) for _, log_q, _ in found) == pytest.approx(1, abs=1e-12)
    assert max(log_q for _, log_q, _ in found) - min(log_q for _, log_q, _ in found) > 1
    for merges, log_q, root in found:
        got = grown(m, one_hots(merges, room))
        np.testing.assert_allclose(got[0], root, rtol=1e-10)
        assert float(got[1]) == pytest.approx(log_q, abs=1e-10)
        assert float(got[2]) == pytest.approx(log_label(m, root, 1), abs=1e-10)
    best = eqx.filter_jit(lambda m: m.posterior(row).likeliest())(m)
    greedy, nodes = [], leaves(m, FOUR)
    while len(nodes) > 1:
        pairs = [parent(m, a, b) for a, b in zip(nodes[:-1], nodes[1:], strict=True)]
        i = int(np.argmax([np.asarray(m.order.query) @ h for h, _ in pairs]))
        greedy, nodes = [*greedy, i], [*nodes[:i], pairs[i], *nodes[i + 2 :]]
    assert np.argmax(best.merges, axis=1)[:3].tolist() == greedy
    np.testing.assert_allclose(best.root, nodes[0][0], rtol=1e-10)


def test_drawn_trees_have_the_frequencies_of_the_sum_over_merges():
    """Five trees of four words; with another seed a right law fails once in 30,000 times."""
    m, n, words = model(), 20_000, list("abcd")
    truth: dict[Any, float] = {}
    for merges, log_q, _ in sequences(m, leaves(m, FOUR)):
        tree = nested(words, np.array(merges))
        truth[tree] = truth.get(tree, 0.0) + np.exp(log_q)
    assert len(truth) == 5 and sum(truth.values()) == pytest.approx(1, abs=1e-5) and min(truth.values()) > 0.01
    row = sentence(FOUR, 5)
    draw = lambda m, k: jnp.argmax(m.posterior(row).sample(key=k)[0].merges, axis=1)  # noqa: E731
    draws = eqx.filter_jit(lambda m, keys: jax.vmap(lambda k: draw(m, k))(keys))(m, jr.split(jr.key(0), n))
    codes, counts = np.unique(np.asarray(draws), axis=0, return_counts=True)
    seen = dict.fromkeys(truth, 0.0)
    for code, count in zip(codes, counts, strict=True):
        seen[nested(words, code)] += count / n
    for tree, p in truth.items():
        assert abs(seen[tree] - p) < LIMIT * np.sqrt(p * (1 - p) / n), tree


def loss_of(gradient: Any, row: Row) -> Any:
    return lambda m, key: CrossEntropy(gradient).loss(m, row, key=key)


def test_the_sum_over_trees_is_that_of_a_plain_loop(x64):
    m, row = model(), sentence(FOUR, 4)
    truth = sum(np.exp(log_q) * -log_label(m, root, 1) for _, log_q, root in sequences(m, leaves(m, FOUR)))
    assert float(eqx.filter_jit(loss_of(Enumerate(), row))(m, jr.key(0))) == pytest.approx(truth, abs=1e-10)


@pytest.mark.parametrize("gradient", [RLOO(3), pytest.param(ScoreFunction(), marks=pytest.mark.slow)], ids=str)
def test_score_functions_follow_the_sum_over_trees(gradient, x64):
    """Every entry of the gradient, that of the composition included, within 4.5 standard errors: see helpers."""
    m, row = model(), sentence((3, 0, 4), 3)
    exact = eqx.filter_jit(eqx.filter_grad(loss_of(Enumerate(), row)))(m, jr.key(0))
    estimate = eqx.filter_grad(loss_of(gradient, row))
    many = eqx.filter_jit(lambda m, keys: jax.vmap(lambda k: estimate(m, k))(keys))(m, jr.split(jr.key(3), 5_000))
    flat = lambda tree, n: np.concatenate([np.asarray(x).reshape(*n, -1) for x in jax.tree.leaves(tree)], axis=-1)  # noqa: E731
    truth, draws = flat(exact, ()), flat(many, (5_000,))
    assert np.abs(truth).max() > 0.01
    error = draws.std(axis=0) / np.sqrt(len(draws))
    off = np.abs(draws.mean(axis=0) - truth)
    assert (off <= LIMIT * error + 1e-10).all()


# --- straight through


QUICK = ("straight-through-gumbel", "gapped")


@pytest.mark.parametrize("name", some(HARD, *QUICK))
def test_forwards_a_straight_through_draw_is_a_tree(name, x64):
    """Its merges are zeros and ones to the bit; what follows from them differs by the rounding of two programs."""
    m, row = model(), sentence((3, 0, 4, 1, 1), 7)

    @eqx.filter_jit
    def both(m, key):
        posterior = m.posterior(row)
        tree, log_q = posterior.drawn(HARD[name].drawn, key=key)
        again = posterior.grown(jax.nn.one_hot(jnp.argmax(tree.merges, axis=1), 6))
        loss, slope = eqx.filter_value_and_grad(loss_of(HARD[name], row))(m, key)
        return (tree, log_q, loss), (again, posterior.log_prob(again), -m.log_label(again, row)), slope

    for seed in range(3):
        soft, hard, slope = both(m, jr.key(seed))
        assert np.array_equal(soft[0].merges, hard[0].merges)
        assert soft[0].merges[4:, 0].tolist() == [1.0, 1.0] and len(np.unique(soft[0].merges)) == 2
        for ours, theirs in zip(jax.tree.leaves(soft), jax.tree.leaves(hard), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-15)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(slope))
    assert float(jnp.abs(slope.order.query).max()) > 1e-9


def test_a_soft_draw_is_no_tree_but_a_gradient_of_its_own_value():
    m, row = model(), sentence(FOUR, 4)
    tree = m.posterior(row).drawn(GumbelSoftmax(1.0).drawn, key=jr.key(0))[0]
    assert 0.01 < float(tree.merges[0].max()) < 0.99 and np.allclose(tree.merges.sum(axis=1), 1)


@pytest.mark.slow
def test_other_estimators_are_nested_and_too_many_calls_refused():
    m, row = model(), sentence(FOUR, 4)
    slope = eqx.filter_jit(eqx.filter_grad(loss_of(IMLE(5.0), row)))(m, jr.key(0))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(slope))
    with pytest.raises(ValueError, match="Enumerate: expected at most 4096 evaluations of the cost, got 46656"):
        loss_of(Enumerate(), sentence(FOUR, 7))(m, jr.key(0))
    with pytest.raises(TypeError, match="Pathwise cannot differentiate through OneHot"):
        loss_of(Pathwise(), row)(m, jr.key(0))


# --- padding


@pytest.mark.parametrize("leaf", [AFFINE, RecurrentLeaf()], ids=str)
def test_padding_changes_nothing(leaf):
    m, words = model(leaf), (3, 0, 4, 1, 2, 2)

    @eqx.filter_jit
    def answer(m, row):
        tree = m.posterior(row).likeliest()
        return m.log_labels(tree), tree.merges[:5, :5]

    narrow, wide = answer(m, sentence(words, 6)), answer(m, sentence(words, 11))
    assert np.array_equal(narrow[1], wide[1])
    np.testing.assert_allclose(narrow[0], wide[0], atol=1e-6)
    assert np.abs(answer(m, sentence((3, 0, 4, 1, 2, 3), 6))[0] - narrow[0]).max() > 1e-4


@pytest.mark.parametrize("name", some(HARD, "gapped"))
def test_left_first_is_the_left_branching_tree(name):
    """The law is certain, so a draw is no draw, and its gradient the exact one."""
    m = eqx.tree_at(lambda m: m.order, model(), LeftFirst().built(3, key=jr.key(0)))
    row, left = sentence(FOUR, 6), one_hots((0, 0, 0), 6)

    @eqx.filter_jit
    def both(m, key):
        exact = eqx.filter_grad(lambda m: -m.log_label(m.posterior(row).grown(left), row))(m)
        return (
            m.posterior(row).drawn(HARD[name].drawn, key=key),
            eqx.filter_grad(loss_of(HARD[name], row))(m, key),
            exact,
        )

    (tree, log_q), slope, exact = both(m, jr.key(2))
    assert np.array_equal(tree.merges, left) and log_q == 0
    for ours, theirs in zip(jax.tree.leaves(slope), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_batch_with_an_empty_row_of_no_weight_is_finite():
    m = model()
    rows = [sentence(FOUR, 5), sentence((2,), 5), sentence((), 5)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *rows)
    loss = eqx.filter_jit(
        eqx.filter_value_and_grad(lambda m, b: CrossEntropy(StraightThroughGumbel())(m, b, key=jr.key(0))[0])
    )
    whole, short = (
        Row(batch.x, y=batch.y, length=batch.length, weight=jnp.array(w)) for w in ([1.0, 1, 0], [0.0, 1, 0])
    )
    value, slope = loss(m, whole)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(slope))
    assert float(loss(m, short)[0]) == pytest.approx(
        -float(m.log_label(m.posterior(rows[1]).likeliest(), rows[1])), abs=1e-6
    )


# --- the classifier

TINY: dict[str, Any] = {"inputs": 4, "width": 6, "hidden": (), "steps": 4, "batch_size": 16, "random_state": 0}


@functools.cache
def data() -> tuple[list[str], np.ndarray]:
    return listops.generate(80, seed=4, longest=9)


@functools.cache
def fitted() -> Any:
    return rv.LatentTreeClassifier(**TINY).fit(*data())


@pytest.mark.slow
def test_a_fit_is_a_classifier():
    X, y = data()
    p = fitted().predict_proba(X)
    assert is_classifier(fitted()) and p.shape == (80, 10) and np.allclose(p.sum(axis=1), 1) and p.dtype == float
    assert fitted().classes_.tolist() == list(range(10))
    assert np.array_equal(fitted().predict(X), p.argmax(axis=1))
    assert fitted().score(X, y) == np.mean(p.argmax(axis=1) == y)
    again = clone(fitted()).fit(X, y)
    assert np.array_equal(again.predict_proba(X), p)
    other = clone(fitted()).set_params(random_state=1).fit(X, y)
    assert np.abs(other.predict_proba(X) - p).max() > 1e-3


@pytest.mark.slow
def test_a_sentence_is_answered_alone_as_among_others():
    X = [*data()[0][:30], listops.generate(9, seed=17, longest=16)[0][0]]
    p, trees = fitted().predict_proba(X), fitted().parse(X)
    assert len(listops.tokens(X[30])) > 9
    for i in (0, 7, 30):
        assert np.array_equal(fitted().predict_proba([X[i]])[0], p[i]) and fitted().parse([X[i]]) == [trees[i]]


def words(tree: Any) -> list[str]:
    return [tree] if isinstance(tree, str) else words(tree[0]) + words(tree[1])


@pytest.mark.slow
def test_trees_hold_the_words_in_order():
    X = data()[0]
    trees = fitted().parse(X)
    assert [words(tree) for tree in trees] == [listops.tokens(sentence) for sentence in X]
    assert all(listops.spans(tree)[0] == len(listops.tokens(s)) for tree, s in zip(trees, X, strict=True))


def bracketed(tree: Any) -> str:
    return tree if isinstance(tree, str) else f"( {bracketed(tree[0])} {bracketed(tree[1])} )"


def test_sentences_may_be_written_in_several_ways():
    X = data()[0][:20]
    p = fitted().predict_proba(X)
    published = [bracketed(listops.tree(sentence)) for sentence in X]
    for other in (published, np.array(X), np.array(X, dtype=object), [s.replace(" ]", "]") for s in X], tuple(X)):
        assert np.array_equal(fitted().predict_proba(other), p)


def test_what_sentences_are():
    texts = [["1", "0"], ["2"]]
    numbers = np.array([[1, 0, -1], [2, -1, -1]])
    for X in (numbers, numbers.tolist(), pd.DataFrame(numbers), pd.Series(["1 0", "2"]), ("(1 0)", "2")):
        assert words_of(X) == texts
    assert words_of(["a b]c"]) == [["a", "b", "]", "c"]]


@pytest.mark.slow
def test_whole_numbers_padded_with_minus_one_are_sentences():
    rng = np.random.default_rng(0)
    X = np.where(np.arange(6) < rng.integers(1, 7, size=(50, 1)), rng.integers(3, size=(50, 6)), -1)
    y = np.array(["no", "yes"])[rng.integers(2, size=50)]
    model = rv.LatentTreeClassifier(**TINY).fit(X, y)
    assert set(model.predict(X)) <= {"no", "yes"} and model.schema_.words == ("0", "1", "2")
    as_text = [" ".join(str(word) for word in row if word >= 0) for row in X]
    assert np.array_equal(model.predict_proba(as_text), model.predict_proba(X))


@pytest.mark.slow
def test_a_weight_of_nothing_leaves_a_sentence_out():
    X, y = np.array(data()[0], dtype=object), data()[1]
    weight = (np.arange(80) % 3).astype(float)
    part = clone(fitted()).fit(X[weight > 0], y[weight > 0], weight[weight > 0])
    assert np.array_equal(clone(fitted()).fit(X, y, weight).predict_proba(X), part.predict_proba(X))
    even = clone(fitted()).fit(X[weight > 0], y[weight > 0])
    assert np.abs(even.predict_proba(X) - part.predict_proba(X)).max() > 1e-4


def test_a_fit_touches_nothing_that_is_given():
    X, y = list(data()[0]), data()[1].copy()
    model = rv.LatentTreeClassifier(**TINY)
    before = model.get_params()
    assert model.fit(X, y) is model and model.get_params() == before
    assert X == data()[0] and np.array_equal(y, data()[1])
    again = model.fit(X, y[::-1]).fit(X, y)  # what was learned before is forgotten
    assert np.array_equal(again.predict_proba(X), fitted().predict_proba(X))


def test_saved_loaded_and_pickled(tmp_path):
    X = data()[0]
    read = rv.load(fitted().save(tmp_path))
    assert repr(read) == repr(fitted()) and np.array_equal(read.classes_, fitted().classes_)
    for other in (read, pickle.loads(pickle.dumps(fitted()))):
        assert np.array_equal(other.predict_proba(X), fitted().predict_proba(X)) and other.parse(X) == fitted().parse(X)


@pytest.mark.slow
def test_double_precision_is_saved_and_pickled_with_all_digits(tmp_path):
    X, y = data()
    model = rv.LatentTreeClassifier(**TINY | {"precision": "float64", "leaf": RecurrentLeaf()}).fit(X, y)
    for other in (rv.load(model.save(tmp_path)), pickle.loads(pickle.dumps(model))):
        assert other.model_.embedding.dtype == np.float64 and isinstance(other.leaf, RecurrentLeaf)
        assert np.array_equal(other.predict_proba(X[:9]), model.predict_proba(X[:9]))


@pytest.mark.slow
def test_another_process_loads_what_was_saved(tmp_path):
    """With nothing but `ravine` imported, as a user does."""
    X = data()[0][:9]
    kept = str(fitted().save(tmp_path))
    code = f"import json, ravine; print(json.dumps(ravine.load({kept!r}).predict_proba({X!r}).tolist()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == fitted().predict_proba(X).tolist()


def test_the_shell_serves_rows_not_sentences(tmp_path, capsys):
    kept = str(fitted().save(tmp_path))
    for words in (["fit", "latent-tree-classifier", "iris"], ["score", kept, "iris"], ["report", kept]):
        assert main(words) == 2
        assert "the shell: expected a model of rows, got LatentTreeClassifier" in capsys.readouterr().err
    with pytest.raises(ValueError, match="recipes: expected recipes for rows, got 'latent-tree-classifier'"):
        rv.compare(np.eye(4), ["latent-tree-classifier"])


def test_a_run_goes_on_to_the_bit(tmp_path):
    rv.LatentTreeClassifier(**TINY | {"steps": 2}).fit(*data(), folder=tmp_path)
    resumed = clone(fitted()).fit(*data(), folder=tmp_path, resume=True)
    assert np.array_equal(resumed.predict_proba(data()[0]), fitted().predict_proba(data()[0]))


@pytest.mark.slow
def test_cross_validation_serves_sentences():
    X, y = data()
    scores = cross_val_score(rv.LatentTreeClassifier(**TINY), np.array(X, dtype=object), (y > 4).astype(int), cv=2)
    assert ((scores >= 0) & (scores <= 1)).all() and len(scores) == 2


REFUSED = {
    "one text": (lambda m: m.fit("[MAX 1 2 ]", [1]), "X: expected sentences"),
    "no sentence": (lambda m: m.fit([], []), "X: expected sentences"),
    "a number among texts": (lambda m: m.fit(["1", 2], [0, 1]), "sentence 1: expected text"),
    "reals": (lambda m: m.fit([[0.5, 1.0]], [0]), "X: expected texts or whole numbers"),
    "no words": (lambda m: m.fit(["1", "( )"], [0, 1]), "sentence 1: expected at least one word"),
    "lists of several lengths": (lambda m: m.fit([[0, 1], [1]], [0, 1]), "X: expected texts or whole numbers"),
    "a set": (lambda m: m.fit({"1", "2"}, [0, 1]), "X: expected sentences"),
    "a frame of texts": (lambda m: m.fit(pd.DataFrame({"text": ["1", "2"]}), [0, 1]), "X: expected texts or whole"),
    "padding before a word": (lambda m: m.fit([[-1, 2], [1, 2]], [0, 1]), "X: expected word numbers, then -1"),
    "too few labels": (lambda m: m.fit(["1", "2"], [0]), "y: expected 2 labels"),
    "no labels": (lambda m: m.fit(["1", "2"], None), "y: expected 2 labels"),
    "labels with a hole": (lambda m: m.fit(["1", "2"], [0, np.nan]), "y: expected 2 labels"),
    "labels that are amounts": (lambda m: m.fit(["1", "2"], [0.5, 1.7]), "y: expected 2 labels"),
    "labels that are dates": (lambda m: m.fit(["1", "2"], np.array(["2020", "2021"], "M8[Y]")), "y: expected 2 labels"),
    "one class": (lambda m: m.fit(["1", "2"], [0, 0]), "y: expected at least 2 classes"),
    "a weight below 0": (lambda m: m.fit(["1", "2"], [0, 1], [1, -1]), "sample_weight: expected"),
    "a weight that is missing": (lambda m: m.fit(["1", "2"], [0, 1], [1, np.nan]), "sample_weight: expected"),
    "all too long": (lambda m: m.set_params(longest=1).fit(["1 2", "2 1"], [0, 1]), "y: expected at least 2 classes"),
    "a word that is new": (lambda m: fitted().predict(["[AVG 1 2 ]"]), r"sentence 0: expected words that were learned"),
    "a share of more than all": (lambda m: m.set_params(validation=1.5).fit(*data()), "validation: expected a share"),
    "no folder": (lambda m: m.fit(*data(), resume=True), "resume: expected a folder"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_mistakes_are_refused_in_one_line(what):
    act, line = REFUSED[what]
    with pytest.raises(ValueError, match=line) as refusal:
        act(rv.LatentTreeClassifier(**TINY))
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_numbers_that_are_not_finite_are_not_blamed_on_words():
    with pytest.warns(RobustnessWarning, match="3 of 4 steps were undone .* whatever the rows hold"):
        rv.LatentTreeClassifier(**TINY | {"rate": 1e38}).fit(*data())


def test_before_fit_nothing_is_answered():
    with pytest.raises(NotFittedError):
        rv.LatentTreeClassifier().predict(["1"])


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [StraightThroughGumbel(1.0), GappedStraightThrough(1.0)], ids=["st-gs", "gst"])
def test_short_sentences_are_learned(gradient):
    """One operator on two or three digits, of which a fifth is kept aside.

    By another seed, what had learned nothing but the most frequent answer would pass once in three million times.
    """
    X, y = listops.generate(2_500, seed=0, depth=2, arguments=3)
    fields: dict[str, Any] = {"inputs": 16, "width": 24, "hidden": (32,), "rate": 5e-3, "steps": 400, "validation": 0.0}
    model = rv.LatentTreeClassifier(gradient=gradient, random_state=0, **fields).fit(X[:2_000], y[:2_000])
    most = np.mean(y[2_000:] == np.bincount(y[:2_000]).argmax())
    assert model.score(X[2_000:], y[2_000:]) > most + 5 * np.sqrt(most * (1 - most) / 500)
