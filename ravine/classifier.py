"""scikit-learn's contract of a classifier over a recipe that reads sentences: no p(x), so none of its verbs."""

from __future__ import annotations

import abc
import dataclasses
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d

from ravine._check import require, translated
from ravine._jax import key_words, precision
from ravine._record import texts
from ravine.checkpoint import load_run
from ravine.core import Row
from ravine.data import ArraySource
from ravine.data.sentences import Sentences, words_of
from ravine.fitting import Plan, blank, fit, plan, split
from ravine.learner import Learner, Saving
from ravine.models.latent_tree import LatentTree
from ravine.train import Subset
from ravine.verbs import blockwise

Pairs = Any  # a word, or a pair of such
HELD_OUT_AT_MOST = 1_000  # sentences: they are all read at once


class SentenceClassifier(Saving, ClassifierMixin, Learner):
    """A recipe for labelled sentences, at most 1000 of which are held out.

    A recipe defines ``build(schema, *, key) -> model`` and ``stages(rows) -> list[Stage]``; every verb follows.
    Sentences are a list, array or column of texts, or whole numbers padded with -1: see `ravine.data.sentences`.

    Parameters
    ----------
    longest : sentences of more words are not learned from; the cost grows with the square. They can be predicted.
    """

    longest: int = 100

    @abc.abstractmethod
    def build(self, schema: Sentences, *, key: PRNGKeyArray) -> LatentTree:
        """The untrained model for sentences of this vocabulary."""

    # --- learning

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, *, folder: str | Path | None = None, resume: bool = False
    ) -> Self:
        """Learn from labelled sentences.

        Parameters
        ----------
        X : sentences.
        y : a label of each, of shape (sentences,).
        sample_weight : array of shape (sentences,); 0 leaves a sentence out.
        folder : where metrics and checkpoints are kept while training.
        resume : go on from the checkpoint in ``folder``, to the bit.

        Returns
        -------
        The estimator itself.
        """
        self._settle()
        require(not resume or folder is not None, "resume", "a folder to go on from", "None", "name it: folder=...")
        sentences, labels, weight = self._seen(X, y, sample_weight)
        self.schema_ = Sentences.of(sentences, labels)
        if folder is not None:
            texts(self)  # what cannot be written is refused before training
        with precision(self.precision):
            planned = self._plan(sentences, labels, weight)
            done = fit(self, planned, None if folder is None else Path(folder), resume)
            self._remember(done.state.model)
        self.history_, self.seconds_, self.complete_ = done.history, done.seconds, done.complete
        return self

    def _seen(self, X: Any, y: Any, sample_weight: Any) -> tuple[list[list[str]], np.ndarray, np.ndarray | None]:
        """The sentences that are learned from, their labels and weights."""
        sentences = words_of(X)
        rows = len(sentences)
        with translated("y", f"{rows} labels, one a sentence", "give one a sentence"):
            labels = column_or_1d(y)
            check_classification_targets(labels)
        fits = len(labels) == rows and labels.dtype.kind in "biufUO"
        got = f"{len(labels)} of type {labels.dtype}"
        require(fits, "y", f"{rows} labels, one a sentence", got, "give a number or text for each")
        with translated("sample_weight", "a number of at least 0 for each sentence", "correct it"):
            weight = _check_sample_weight(sample_weight, sentences, ensure_non_negative=True)
        kept = (weight > 0) & [len(words) <= self.longest for words in sentences]
        classes = len(np.unique(labels[kept]))
        got = f"{classes} in {kept.sum()} sentences of at most {self.longest} words"
        require(classes > 1, "y", "at least 2 classes", got, "raise longest, or add some")
        sentences = [words for words, keep in zip(sentences, kept, strict=True) if keep]
        return sentences, labels[kept], None if sample_weight is None else weight[kept]

    def _plan(self, sentences: list[list[str]], labels: np.ndarray, weight: np.ndarray | None) -> Plan:
        key, schema = jr.key(self.seed_), self.schema_
        codes, lengths = schema.encode(sentences, schema.longest)
        row = Row(jnp.asarray(codes), length=jnp.asarray(lengths), y=jnp.asarray(schema.labels(labels)))
        if weight is not None:
            row = dataclasses.replace(row, weight=jnp.asarray(weight, self.precision))
        share = min(self.validation, HELD_OUT_AT_MOST / len(labels))
        places, held = split(len(labels), share, key_words(key))
        kept = jax.tree.map(lambda leaf: leaf[held], row) if len(held) else None
        return plan(self, schema, Subset(ArraySource(row), places), kept, key=key)

    def _remember(self, model: LatentTree) -> None:
        self.model_, self.classes_ = model, np.asarray(self.schema_.classes)

    # --- answers

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class along the likeliest merges, shape (sentences, classes)."""
        log_p, _ = self._read(words_of(X))
        return np.exp(log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each sentence, shape (sentences,)."""
        p = self.predict_proba(X)
        return self.classes_[np.argmax(p, axis=1)]

    def parse(self, X: Any) -> list[Pairs]:
        """The tree that each sentence was read along, as nested pairs of words."""
        sentences = words_of(X)
        return [nested(words, places) for words, places in zip(sentences, self._read(sentences)[1], strict=True)]

    def _read(self, sentences: list[list[str]]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Log probabilities of the classes, and where each merge of the likeliest tree was made.

        Sentences are read in room for a power of two words, which depends on the sentence alone.
        """
        check_is_fitted(self)
        rooms = np.array([max(4, 1 << (len(words) - 1).bit_length()) for words in sentences])
        log_p = np.zeros((len(sentences), len(self.classes_)))
        places: list[np.ndarray] = [np.zeros(0, int)] * len(sentences)
        for room in np.unique(rooms):
            here = np.flatnonzero(rooms == room)
            codes, lengths = self.schema_.encode([sentences[i] for i in here], int(room))
            with precision(self.precision):
                batch = Row(jnp.asarray(codes), length=jnp.asarray(lengths))
                log_p[here], merges = blockwise(_greedy, batch, self.model_)
            for i, made in zip(here, merges, strict=True):
                places[i] = made
        return log_p, places

    # --- files

    @classmethod
    def _restore(cls, kept: dict[str, Any], fields: dict[str, Any], folder: Path) -> Self:
        """The fitted estimator a record describes, with the arrays of its folder."""
        made = cls(**fields)
        made.schema_, made.seed_ = Sentences.from_json(kept["schema"]), int(kept["data"]["seed"])
        with precision(made.precision):
            made._remember(load_run(folder, made._blank()))
        return made

    def _blank(self) -> LatentTree:
        return blank(self, self.schema_, jr.key(self.seed_))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        return tags


def _greedy(block: Row, model: LatentTree) -> tuple[Float[Array, "n classes"], Int[Array, "n merges"]]:
    def one(row: Row) -> tuple[Array, Array]:
        tree = model.posterior(row).likeliest()
        return model.log_labels(tree), jnp.argmax(tree.merges, axis=1)

    return jax.vmap(one)(block)


def nested(words: list[str], places: np.ndarray) -> Pairs:
    """The tree over some words whose i-th merge is that of the nodes at ``places[i]`` and behind it.

    Examples
    --------
    >>> nested(["a", "b", "c"], np.array([1, 0, 0]))
    ('a', ('b', 'c'))
    """
    nodes: list[Pairs] = list(words)
    for place in places[: len(words) - 1].tolist():
        nodes[place : place + 2] = [(nodes[place], nodes[place + 1])]
    return nodes[0]
