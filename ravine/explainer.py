"""The scikit-learn contract of models that explain a classifier by the features it needs, row by row."""

from __future__ import annotations

import abc
import copy
from pathlib import Path
from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float, PRNGKeyArray, Shaped
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import ClassifierTags, Tags, assert_all_finite, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ravine._check import complaint, require, shown, whole
from ravine._containers import check_names
from ravine._jax import highest_matmul, key_words, precision
from ravine._record import record, remembered
from ravine._tree import as_arrays
from ravine.checkpoint import load_run, save_run
from ravine.core import AbstractGradient, Row
from ravine.data import ArraySource, Schema, rows
from ravine.dist import Subset
from ravine.fitting import Plan, fit, split, staged
from ravine.learner import Learner
from ravine.models.selection import Selective
from ravine.posteriors import AbstractManyDraws, serving
from ravine.train import Subset as Some
from ravine.verbs import blockwise

SUM = 1e-3  # by how much probabilities may miss 1


class Explanation(NamedTuple):
    """Which features matter to each row: numbers and names of k of them, the surest first, and how sure of each.

    ``features`` and ``names`` are (rows, k); ``inclusion`` is (rows, features), the exact probability under q(S | x)
    that a feature is among the k.
    """

    features: Shaped[np.ndarray, "rows k"]
    names: Shaped[np.ndarray, "rows k"]
    inclusion: Float[np.ndarray, "rows features"]


class Answer(NamedTuple):
    """What is computed for a row: the most probable subset, the probability of each feature, log q(y | x_S) there."""

    chosen: Any
    inclusion: Any
    log_shares: Any


class Explainer(OneToOneFeatureMixin, TransformerMixin, Learner):
    """A recipe that selects k features of each row and a classifier that sees only those.

    A recipe defines ``build(schema, classes, *, key) -> Selective`` and ``stages(rows) -> list[Stage]``. As a
    transformer it returns the selection, as a classifier the shares of the classes given the selected cells. What it
    sees is standardised; NaN marks a cell that was not observed: where it is selected it tells that, and no more.

    The classifier sees *which* features were selected too, so that a selector could tell the class by its choice
    (Jethani et al. 2021, arXiv:2103.01890): a high score alone does not show that the features are the right ones.

    Parameters
    ----------
    k : number of features that are selected in each row.
    gradient : of the expectation over subsets.
    black_box : a fitted classifier whose ``predict_proba`` is explained wherever no ``y`` is given;
        `sklearn.frozen.FrozenEstimator` keeps it fitted when the explainer is cloned.
    """

    k: int
    gradient: AbstractGradient
    black_box: Any = None

    @abc.abstractmethod
    def build(self, schema: Schema, classes: int = 2, *, key: PRNGKeyArray) -> Selective:
        """The untrained model for data of this schema and so many classes."""

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn which features explain ``y``.

        Parameters
        ----------
        X : array or DataFrame of shape (rows, features).
        y : probabilities of the classes, of shape (rows, classes), or labels, of shape (rows,); None asks the black
            box.
        sample_weight : array of shape (rows,), not negative; 0 leaves a row out.

        Returns
        -------
        The estimator itself.

        Raises
        ------
        ValueError
            One line: a field, X or y is not what it has to be, or the estimator of gradients is not for subsets.
        """
        self._settle()
        check_names(X)
        if self.black_box is None:
            validate_data(self, X, y, skip_check_array=True)  # its own line where there is no y
        values = self._checked(X, reset=True)
        self._refuse(values.shape[1])
        self.classes_, target = self._target(X, y)
        require(len(target) == len(values), "y", f"{len(values)} rows", f"{len(target)}", "give one for each row of X")
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, values, ensure_non_negative=True)
            values, target, weight = values[weight > 0], target[weight > 0], weight[weight > 0]
        self.schema_ = Schema.infer(values, kind="real", standardise=True, names=self._names())
        with precision(self.precision):
            done = fit(self, self._plan(values, target, weight))
        self.model_, self.history_ = done.state.model, done.history
        self.seconds_, self.complete_ = done.seconds, done.complete
        return self

    # --- what it says of rows

    def transform(self, X: Any) -> np.ndarray:
        """1 for each feature of the most probable subset of a row, 0 for the others: shape (rows, features)."""
        chosen = self._answers(X).chosen
        return chosen.astype(_kind(X), copy=False)

    def explain(self, X: Any) -> Explanation:
        """The features of the most probable subset of each row in the order of their probabilities: `Explanation`."""
        inclusion = self._answers(X).inclusion
        order = np.argsort(-inclusion, axis=1, kind="stable")[:, : self.k]
        return Explanation(order, self.get_feature_names_out()[order], inclusion)

    def predict_proba(self, X: Any) -> np.ndarray:
        """q(y | x_S) at the most probable subset S of a row, shape (rows, classes)."""
        shares = np.exp(self._answers(X).log_shares.astype(float))
        return shares / shares.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class given the selected features, shape (rows,)."""
        best = np.argmax(self._answers(X).log_shares, axis=1)
        return self.classes_[best]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Accuracy: how often the class told from the selected features is that of ``y``, or of the black box.

        Of probabilities the largest counts. See `bound` for nats.
        """
        found = self.predict(X)
        classes, target = self._target(X, y)
        return float(np.average(found == classes[np.argmax(target, axis=1)], weights=sample_weight))

    def bound(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean ``sum_y p(y | x) log q(y | x_S)`` at the most probable subsets, in nats: at most -H(Y | X_S).

        With the entropy of Y added it is a lower bound on the information that the selected features have about Y.
        """
        log_shares = self._answers(X).log_shares.astype(float)
        classes, target = self._target(X, y)
        unseen = np.setdiff1d(classes, self.classes_)
        known = f"classes of the fit, {shown(self.classes_.tolist())}"
        require(not unseen.size, "y", known, shown(unseen.tolist()), "leave these rows out")
        spread = np.zeros_like(log_shares)
        spread[:, np.searchsorted(self.classes_, classes)] = target
        return float(np.average(np.sum(spread * log_shares, axis=1), weights=sample_weight))

    # --- files

    def save(self, folder: str | Path, figures: dict[str, Any] | None = None) -> Path:
        """Write the fitted model to a folder, arrays as safetensors and all else as JSON; `ravine.load` reads it.

        The black box is left behind: what was loaded wants ``y`` where it is told against something.
        """
        check_is_fitted(self)
        save_run(folder, self.model_, record(copy.copy(self).set_params(black_box=None), figures or {}))
        return Path(folder)

    @classmethod
    def _restore(cls, kept: dict[str, Any], fields: dict[str, Any], folder: Path) -> Self:
        """The fitted estimator a record describes, with the arrays of its folder."""
        made, fitted = cls(**fields), kept["data"]
        made.schema_ = Schema.from_json(kept["schema"])
        remembered(made, fitted)
        with precision(made.precision):
            made.model_ = load_run(folder, made._blank())
        return made

    def _blank(self) -> Selective:
        made = lambda key: as_arrays(self.build(self.schema_, len(self.classes_), key=key))  # noqa: E731
        return eqx.filter_eval_shape(made, jr.key(self.seed_))

    # --- for scikit-learn and the loop

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        tags.target_tags.required = self.black_box is None
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _names(self) -> tuple[str, ...] | None:
        names = getattr(self, "feature_names_in_", None)
        return None if names is None else tuple(names)

    def _checked(self, X: Any, reset: bool = False) -> np.ndarray:
        # infinite cells are left to the schema, whose line names the column
        return validate_data(self, X, dtype=[np.float64, np.float32], ensure_all_finite=False, reset=reset)

    def _refuse(self, features: int) -> None:
        """What can be known to fail before anything is traced."""
        what = type(self).__name__
        most = f"at most {features}, the number of features"
        require(whole("k", self.k) <= features, f"{what}, k", most, f"{self.k}", "choose fewer")
        law, weighted = Subset(jnp.zeros(features), self.k), isinstance(self.gradient, AbstractManyDraws)
        why = "it is made for importance-weighted bounds" if weighted else self.gradient.refuses(law)
        got = f"{type(self.gradient).__name__}: {why}"
        require(why is None, f"{what}, gradient", "an estimator for subsets", got, f"use {', '.join(serving(law))}")

    def _target(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """The classes, and the probability of each in every row."""
        if y is None:
            return self._asked(X)
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] > 1:
            return np.arange(y.shape[1]), _probabilities(y)
        labels = column_or_1d(y, warn=True)
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        classes, places = np.unique(labels, return_inverse=True)
        return classes, np.eye(len(classes))[places]

    def _asked(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        can = hasattr(self.black_box, "predict_proba")
        do = "give y, or a fitted classifier with predict_proba"
        require(can, "black_box", "a classifier with predict_proba", shown(self.black_box), do)
        try:
            shares = _probabilities(self.black_box.predict_proba(X))
        except NotFittedError as error:
            do = "fit it, and wrap it in sklearn.frozen.FrozenEstimator where it is cloned"
            raise complaint("black_box", "a fitted classifier", "one that is not", do) from error
        return np.asarray(getattr(self.black_box, "classes_", np.arange(shares.shape[1]))), shares

    def _row(self, values: np.ndarray, target: Any = None, weight: np.ndarray | None = None) -> Row:
        return rows(values, self.schema_, y=target, weight=weight, dtype=np.dtype(self.precision))

    def _plan(self, values: np.ndarray, target: np.ndarray, weight: np.ndarray | None) -> Plan:
        key = jr.key(self.seed_)
        build_key, run_key = jr.split(key)
        places, held = split(len(values), self.validation, key_words(key))
        row = self._row(values, target, weight)
        kept = jax.tree.map(lambda leaf: leaf[held], row) if len(held) else None
        model = self.build(self.schema_, len(self.classes_), key=build_key)
        return Plan(model, staged(self, self.schema_, len(places), kept, key), Some(ArraySource(row), places), run_key)

    def _ready(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self._checked(X)

    def _answers(self, X: Any) -> Answer:
        values = self._ready(X)
        with precision(self.precision), highest_matmul():
            return blockwise(_answer, self._row(values), self.model_)


def _answer(block: Row, model: Selective) -> Answer:
    def one(row: Row) -> Answer:
        law = model.posterior(row).distribution
        chosen = law.mode()  # pyright: ignore[reportAttributeAccessIssue]  (a Subset)
        return Answer(chosen, law.mean(), model.log_shares(chosen, row))

    return jax.vmap(one)(block)


def _probabilities(y: Any) -> np.ndarray:
    """Rows of probabilities, or a complaint."""
    shares = np.asarray(y, dtype=float)
    fine = shares.ndim == 2 and bool(np.all(shares >= 0)) and bool(np.all(np.abs(shares.sum(axis=1) - 1) < SUM))
    do = "give probabilities of the classes, or labels as one column"
    require(fine, "y", "rows of probabilities that add up to 1", "others", do)
    return shares / shares.sum(axis=1, keepdims=True)


def _kind(X: Any) -> np.dtype:
    """The floating type of an array; double precision for everything else."""
    kind = getattr(X, "dtype", None)
    return np.dtype(np.float32 if kind == np.float32 else float)
