"""The scikit-learn contract over any recipe. Training, models and evaluation do not know scikit-learn."""

from __future__ import annotations

import abc
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast, get_args

import jax
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree
from sklearn.base import clone
from sklearn.utils import Tags, check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, validate_data

from ravine._check import require, whole
from ravine._containers import check_names, image_axes
from ravine._jax import key_words, precision
from ravine._record import remembered, schema_of, table_of, texts, wants_table
from ravine.answers import Answers
from ravine.checkpoint import load_run
from ravine.core import AbstractEvidence
from ravine.data import ArraySource, MappedSource, Schema
from ravine.data.frames import taken
from ravine.data.plan import Kind
from ravine.data.table import schema_from_json
from ravine.evidence import Exact
from ravine.fitting import Plan, blank, fit, one_pass, plan, reached, split, started
from ravine.learner import Learner, Saving
from ravine.rules import EM
from ravine.train import Source, Subset, train_together

KINDS: tuple[str, ...] = get_args(Kind)


def _continues(recipe: LatentVariableModel) -> bool:
    rule = recipe.stages(1)[-1].rule
    return not isinstance(rule, EM) or rule.rate is not None


class LatentVariableModel(Saving, Answers, Learner):
    """A recipe: hyper-parameters that say which parts.

    A recipe defines ``build(schema, *, key) -> model`` and ``stages(rows) -> list[Stage]``; every verb follows.
    ``kinds`` are the kinds of cells that its model can hold; ``of_rows`` is false where a datum is no row of a table.

    Parameters
    ----------
    kind : how the cells are read: ``"real"``, ``"binary"``, ``"levels"`` (integers 0..levels-1), ``"count"``;
        None looks at the data.
    levels : number of values when ``kind="levels"``.
    binarise : ``"none"``, ``"threshold"`` (above ``threshold``), ``"static"`` (already done) or ``"dynamic"``
        (drawn anew whenever a row is read, with the grey value as probability).
    threshold : where ``binarise="threshold"`` cuts.
    dequantise : ``"none"`` or ``"uniform"``: noise that makes integers continuous; the likelihood is a lower bound.
    standardise : let the model see columns of mean 0 and variance 1; likelihoods are still in the user's units.
    evidence : how log p(x) is evaluated.
    particles : draws per row behind an imputation that has no closed form.
    columns : what the columns of a table hold where it is known better than it looks, by name: ``"numeric"``,
        ``"positive"``, ``"bounded"``, ``"censored"``, ``"binary"``, ``"count"``, ``"category"``, ``"ordinal"``,
        ``"date"``, ``"constant"`` or ``"identifier"``, or such a word with what belongs to it:
        ``("ordinal", ["low", "high"])``, ``("bounded", 0, 1)``, ``("count", "inflated")`` for extra zeros. An empty
        mapping looks at each column of an array of numbers too.
    """

    kind: str | None = None
    levels: int | None = None
    binarise: str = "none"
    threshold: float | None = None
    dequantise: str = "none"
    standardise: bool = False
    columns: Mapping[Any, Any] | None = None
    evidence: AbstractEvidence = Exact()
    particles: int = 200

    kinds: ClassVar[tuple[str, ...]] = KINDS
    of_rows: ClassVar[bool] = True

    @abc.abstractmethod
    def build(self, schema: Schema, *, key: PRNGKeyArray) -> Any:
        """The untrained model for data of this schema."""

    # --- learning

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        held_out: Any = None,
        folder: str | Path | None = None,
        resume: bool = False,
    ) -> Self:
        """Learn from rows. NaN marks a cell that was not observed.

        Parameters
        ----------
        X : array or DataFrame of shape (rows, columns), images of shape (rows, height, width), or a memory-mapped
            array that need not fit in memory.
        y : ignored.
        sample_weight : array of shape (rows,); an integer weight counts a row so many times, 0 leaves it out.
        held_out : rows for early stopping, instead of a share of ``X``.
        folder : where metrics and checkpoints are kept while training.
        resume : go on from the checkpoint in ``folder``, to the bit.

        Returns
        -------
        The estimator itself.
        """
        require(not resume or folder is not None, "resume", "a folder to go on from", "None", "name it: folder=...")
        values, weight = self._begin(X, sample_weight)
        if folder is not None:
            texts(self)  # what cannot be written is refused before training
        with precision(self.precision):
            done = fit(self, self._plan(values, weight, held_out), None if folder is None else Path(folder), resume)
            self._remember(done.state.model, jr.key(self.seed_))
        self.history_, self.seconds_, self.complete_ = done.history, done.seconds, done.complete
        return self

    def fit_seeds(self, X: Any, seeds: int | Sequence[int] = 3, sample_weight: Any = None) -> list[Self]:
        """Fit once per seed; the i-th result equals a clone with ``random_state=seeds[i]`` fitted alone (to 1e-5).

        A number draws that many seeds from ``random_state``. Whether the fits run side by side in one program or one
        after another is decided by timing both.
        """
        drawn = (
            seeds
            if isinstance(seeds, Sequence)
            else check_random_state(self.random_state).randint(2**31 - 1, size=whole("seeds", seeds)).tolist()
        )
        fits = [clone(self).set_params(random_state=int(seed)) for seed in drawn]
        with precision(self.precision):
            plans = [one._plan(*one._begin(X, sample_weight)) for one in fits]
            models, stages, sources, keys = zip(*plans, strict=True)
            before = time.perf_counter()
            states = train_together(models, stages, sources, keys=keys)
            for one, state in zip(fits, states, strict=True):
                one._remember(reached(state).model, jr.key(one.seed_))
                one.history_, one.seconds_, one.complete_ = [], time.perf_counter() - before, True
        return fits

    def _begin(self, X: Any, sample_weight: Any) -> tuple[Any, np.ndarray | None]:
        """What is settled before there is a model: fields, seed, columns, weights, schema."""
        self._settle()
        return self._seen(X, sample_weight)

    def _seen(self, X: Any, sample_weight: Any) -> tuple[Any, np.ndarray | None]:
        """The rows that count as numbers, and how much; from them, what the columns hold."""
        check_names(X)
        if wants_table(self, X):
            validate_data(self, X, skip_check_array=True, reset=True)
            places, weight = self._weighted(np.arange(len(X)), sample_weight)
            X = taken(X, places)
            self.schema_ = table_of(self, X)
            return self.schema_.code(X), weight
        values, weight = self._weighted(self._checked(X, reset=True), sample_weight)
        self.schema_ = schema_of(self, values, getattr(self, "feature_names_in_", None), image_axes(X))
        return values, weight

    def _plan(self, values: Any, weight: np.ndarray | None, held_out: Any = None) -> Plan:
        key = jr.key(self.seed_)
        places, held = split(len(values), 0.0 if held_out is not None else self.validation, key_words(key))
        kept = None
        if held_out is not None:
            kept = self._row(self._checked(held_out))
        elif len(held):
            kept = self._row(values[held], None if weight is None else weight[held])
        return plan(self, self.schema_, Subset(self._source(values, weight), places), kept, key=key)

    def _weighted(self, values: Any, sample_weight: Any) -> tuple[Any, np.ndarray | None]:
        """The rows that count, and how much; a mapped file keeps all of its rows."""
        if sample_weight is None:
            return values, None
        weight = _check_sample_weight(sample_weight, values, ensure_non_negative=True)
        counts = weight > 0
        return (values, weight) if isinstance(values, np.memmap) or counts.all() else (values[counts], weight[counts])

    @available_if(_continues)
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """One ordered pass over ``X`` by the last stage's rule, going on from what was learned before."""
        first = not hasattr(self, "model_")
        values, weight = self._begin(X, sample_weight) if first else self._weighted(self._checked(X), sample_weight)
        with precision(self.precision):
            key, source = jr.key(self.seed_), self._source(values, weight)
            if first:
                self._remember(started(self, self.schema_, source, key=key), key)
            self.model_, self._going = one_pass(self, self.model_, self.schema_, source, self._going, key=key)
        return self

    # --- files

    @classmethod
    def _restore(cls, kept: dict[str, Any], fields: dict[str, Any], folder: Path) -> Self:
        """The fitted estimator a record describes, with the arrays of its folder."""
        made, fitted = cls(**fields), kept["data"]
        made.schema_ = schema_from_json(kept["schema"])
        remembered(made, fitted)
        with precision(made.precision):
            made._remember(load_run(folder, made._blank()), jr.key(made.seed_))
        return made

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {**state, "_going": None} if "model_" in state else state

    def _blank(self) -> PyTree:
        return blank(self, self.schema_, jr.key(self.seed_))

    # --- for scikit-learn and the loop

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _source(self, values: Any, weight: np.ndarray | None) -> Source:
        if isinstance(values, np.memmap):
            return MappedSource(values, cast(Schema, self.schema_), np.dtype(self.precision), weight=weight)
        return ArraySource(self._row(values, weight))

    def _remember(self, model: PyTree, key: PRNGKeyArray) -> None:
        self.model_, self._going = model, None
        self._key_words = key_words(key)
        self._n_features_out = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(self._latent_like()))
