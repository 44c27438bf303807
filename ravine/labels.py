"""Labels of rows: which rows have one, how they are coded, and what tells them."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ravine._check import require, shown
from ravine.core import AbstractDraw, Row
from ravine.data.frames import is_frame, without
from ravine.models.experts import ClassExperts
from ravine.models.selection import Selective
from ravine.objectives.energy_losses import Answering
from ravine.verbs import drawn


class Classed:
    """What every estimator that learns from labels answers about classes."""

    classes_: np.ndarray
    predict_proba: Any

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each row, shape (rows,)."""
        best = np.argmax(self.predict_proba(X), axis=1)
        return self.classes_[best]

    def class_count(self) -> int:
        """How many classes there are; two before anything was learned."""
        return len(getattr(self, "classes_", (0, 1)))


def parted(X: Any, label: str) -> tuple[Any, Any]:
    """A data frame without the column of labels, and that column."""
    rest = without(X, label)
    found = is_frame(X) and label in X.columns
    require(found, "label", f"a data frame with a column {label!r}", "none", "name one of its columns, or give y")
    return rest, X[label]


def coded(y: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The classes, and the number of each row's; -1 for those without a label.

    Raises
    ------
    ValueError
        When there are not as many labels as rows, or not two classes among them.

    Examples
    --------
    >>> classes, codes = coded(["b", None, "a"], 3)
    >>> classes.tolist(), codes.tolist()
    (['a', 'b'], [1, -1, 0])
    """
    do = "give y, or the name of its column as label, with None, NaN or -1 for rows without one"
    labels = np.asarray(y).ravel()
    require(len(labels) == rows, "y", f"{rows} labels, one for each row", f"{len(labels)}", do)
    known = ~np.asarray(pd.isna(labels))
    if labels.dtype.kind == "i" or (labels.dtype.kind == "f" and (labels[known] == np.rint(labels[known])).all()):
        known &= labels != -1
    return numbered(labels, known, do)


def unlabelled(labels: np.ndarray) -> Bool[np.ndarray, " n"]:
    """Which rows have no label: None, NaN, and -1 among whole numbers with two other classes at least.

    Where there is only one other, -1 is a class, as everywhere in scikit-learn.

    Examples
    --------
    >>> unlabelled(np.array([-1, 0, 1])).tolist(), unlabelled(np.array([-1, 1])).tolist()
    ([True, False, False], [False, False])
    """
    lacking = np.asarray(pd.isna(labels))
    some = np.asarray(labels[~lacking].tolist())
    whole_numbers = some.dtype.kind == "i" or (some.dtype.kind == "f" and bool((some == np.rint(some)).all()))
    if not whole_numbers or len(np.unique(some[some != -1])) < 2:
        return lacking
    return lacking | np.asarray(labels == -1, bool)


def numbered(labels: np.ndarray, known: np.ndarray, do: str = "add rows of another") -> tuple[np.ndarray, np.ndarray]:
    """The classes among the known labels, and the number of each row's; -1 where it is not known.

    Raises
    ------
    ValueError
        When there are not two classes at least.
    """
    found, places = np.unique(labels[known], return_inverse=True)
    got = "none" if len(found) == 0 else f"1 class, {shown(found.tolist())}"
    require(len(found) > 1, "y", "labels of two classes at least", got, do)
    codes = np.full(len(labels), -1)
    codes[known] = places
    return found, codes


def told(batch: Row, codes: Int[np.ndarray, " n"]) -> Row:
    """The batch with the number of each row's class, of which -1 is not known.

    Examples
    --------
    >>> told(Row(jnp.zeros((2, 3))), np.array([1, -1])).y_mask.tolist()
    [True, False]
    """
    return dataclasses.replace(batch, y=jnp.asarray(codes, jnp.int32), y_mask=jnp.asarray(codes >= 0))


def places_of(classes: np.ndarray, label: Any, rows: int, what: str = "label") -> Int[np.ndarray, " rows"]:
    """The number of the class that is asked for in each row, by one label for all of them or one for each.

    Raises
    ------
    ValueError
        When there are as many labels as neither, or one of them is no class.

    Examples
    --------
    >>> places_of(np.array(["a", "b"]), "b", 2).tolist()
    [1, 1]
    """
    wanted = np.asarray(label, object)
    good = wanted.shape in ((), (rows,))
    require(good, what, f"one label, or {rows}", f"shape {wanted.shape}", "give one for each row")
    found = members(classes, np.broadcast_to(wanted, (rows,)))
    unknown = np.broadcast_to(wanted, (rows,))[~found.any(axis=1)][:1].tolist()
    require(not unknown, what, f"one of {shown(classes.tolist())}", shown(unknown), "choose one")
    return np.argmax(found, axis=1)


def members(classes: np.ndarray, labels: Any) -> Bool[np.ndarray, "rows classes"]:
    """Which class each label is; none for what is no class."""
    return np.asarray(labels, object).ravel()[:, None] == np.asarray(classes, object)[None]


def evened(places: np.ndarray, codes: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Places with labelled rows repeated until they are about half of all; and weights that make up for it.

    Examples
    --------
    >>> evened(np.arange(5), np.array([-1, -1, 0, -1, -1]), None)[0].tolist()
    [0, 1, 2, 3, 4, 2, 2, 2]
    """
    labelled = places[codes[places] >= 0]
    times = max(1, (len(places) - len(labelled)) // max(1, len(labelled)))
    scale = np.where(codes >= 0, 1 / times, 1.0) * (1 if weight is None else weight)
    return np.concatenate([places, np.tile(labelled, times - 1)]), scale


def label_shares(block: Row, model: Any, draw: AbstractDraw | None, key: PRNGKeyArray) -> Float[Array, "n classes"]:
    """What a model says of the labels of a block of rows."""
    if isinstance(model, Telling):  # grey pixels go in as they are: probabilities of bits
        return jax.vmap(model.label_shares)(block)
    return jax.vmap(lambda row: model.posterior(row).nodes()[0].mean())(drawn(block, draw, key))


def log_shares(row: Row, model: Any) -> Float[Array, " classes"]:
    """log p(y | x) of a row as it stands, in nats: what `predict_proba` says, without its rounding near 0 and 1."""
    if isinstance(model, Selective):
        law: Any = model.posterior(row).distribution
        return model.log_shares(law.mode(), row)
    if isinstance(model, ClassExperts):
        return jax.nn.log_softmax(model.logits(row.x))
    if isinstance(model, Answering):
        return jax.nn.log_softmax(-model.answers(row))
    if isinstance(model, Classifying):
        return jax.nn.log_softmax(model.logits(row))
    return jax.nn.log_softmax(model.posterior(row).nodes()[0].logits)


@runtime_checkable
class Telling(Protocol):
    """A model that tells labels without a draw of the row."""

    def label_shares(self, row: Row) -> Float[Array, " classes"]:
        """q(y | x)."""
        ...


@runtime_checkable
class Classifying(Protocol):
    """A model that tells the class of a row, and no more: it has no law of rows."""

    def logits(self, row: Row) -> Float[Array, " classes"]:
        """log p(y | x) of each class, up to a constant, in nats."""
        ...

    def features(self, row: Row) -> Float[Array, " features"]:
        """What it makes of a row for others to go on with."""
        ...
