"""The scikit-learn contract of a recipe that codes rows and gives them back, and has no p(x): a transformer."""

from __future__ import annotations

import abc
import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_array, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ravine import verbs
from ravine._check import require, whole
from ravine._containers import as_given, check_names, flattened, framed, image_axes
from ravine._jax import Precision, highest_matmul, key_words, precision
from ravine._record import remembered, schema_of, texts
from ravine._tree import AbstractSchedule, Layer, as_arrays, resolve
from ravine.checkpoint import load_run
from ravine.core import Objective, Row
from ravine.data import ArraySource, Schema
from ravine.data import rows as rows_of
from ravine.evaluation import Faithfulness, faithfulness
from ravine.fitting import Plan, fit, plan, split
from ravine.learner import Learner, Saving
from ravine.models.autoencoder import AffineReading, LogisticReading, StackedAutoencoder, Tie, autoencoder_stack
from ravine.objectives import OfLayer
from ravine.rules import Descend, Optimiser
from ravine.train import Stage, Subset
from ravine.verbs import blockwise

Code = Float[Array, " codes"]


@runtime_checkable
class Encoding(Protocol):
    """A model that codes a row, and gives it back."""

    def code(self, row: Row) -> Code:
        """The code of a row; a missing cell has no part in it."""
        ...

    def decoded(self, h: Code) -> Float[Array, " cells"]:
        """The cells that a code stands for."""
        ...

    def denoised(self, row: Row) -> Float[Array, " cells"]:
        """The row without its noise."""
        ...


def stack_of(
    schema: Schema, sizes: tuple[int, ...], tie: Tie, learning: Objective, steps: int, passes: int, *, key: PRNGKeyArray
) -> StackedAutoencoder:
    """A stack for the cells of a schema, which chains spoil as at the last step; levels are grey values, 0 to 1."""
    top = schema.levels - 1 if schema.kind == "levels" else 1
    lowest = AffineReading() if schema.kind == "real" else LogisticReading()
    form = {
        "corruption": getattr(resolve(learning, jnp.asarray(steps)), "corruption", None),
        "top": top,
        "passes": passes,
    }
    return autoencoder_stack(sizes, lowest, jnp.asarray(schema.base) / top, tie, **form, key=key)


def layer_by_layer(
    objective: Objective, layers: int, rate: float | AbstractSchedule, steps: int, batch: int
) -> list[Stage]:
    """A stage for each layer, in which it alone learns."""
    adam = Optimiser(optax.adam, (rate,))
    return [Stage(Descend(OfLayer(i, objective), adam, on=Layer(i)), steps, batch) for i in range(layers)]


class GivesBack:
    """What an estimator answers whose model gives rows back."""

    schema_: Schema
    model_: Any
    seed_: int
    precision: Precision
    _ready: Any
    _row: Any

    def denoise(self, X: Any) -> Any:
        """Rows as the model gives them back from what may be spoilt or missing; in the units and the kind of X.

        Observed cells change as well; of 0 and 1 it gives the probability of a 1.
        """
        values = self._ready(X)
        with precision(self.precision), highest_matmul():
            means = blockwise(_denoised, self._row(values), self.model_)
        return as_given(X, self._outward(means).astype(values.dtype))

    def _outward(self, means: np.ndarray) -> np.ndarray:
        """Means of cells in the user's units, a row each."""
        noise = 0.5 if self.schema_.dequantise == "uniform" else 0.0
        return self.schema_.decode(means).reshape(len(means), -1) - noise


class Wanders(GivesBack):
    """What an estimator answers whose model goes up and down again, drawing its units."""

    def sample(self, n_samples: int = 1, *, start: Any = None, random_state: Any = None) -> Any:
        """Rows at the ends of chains that go up and down, shape (n_samples, columns); a DataFrame where fitted on one.

        The law of the chain is not known: there is no p(x). Where cells were masked for learning it comes to hold too
        many of them, since nothing has told it to take one back; `ravine.objectives.SaltAndPepper` does. The last cells
        are means, probabilities of a 1 where they are 0 or 1. The first rows stay when more are asked for.

        Parameters
        ----------
        n_samples : how many.
        start : rows to begin at, each drawn by lot; None begins at cells drawn each on its own, at their rates.
        random_state : seed or `numpy.random.RandomState`; None takes that of the fit.
        """
        check_is_fitted(self)
        rows = whole("n_samples", n_samples)
        seed = self.seed_ if random_state is None else int(check_random_state(random_state).randint(2**31 - 1))
        with precision(self.precision):
            key = jr.fold_in(jr.key(seed), 2)
            if start is None:
                drawn = verbs.samples(self.model_, rows, key=key)
            else:
                values = self._ready(start)
                places = np.random.default_rng(seed).integers(len(values), size=rows)
                begun = dataclasses.replace(self._row(values[places]), index=jnp.asarray(np.arange(rows)))
                drawn = blockwise(_walked, begun, self.model_, key)
        return framed(self._outward(drawn), getattr(self, "feature_names_in_", None))


class RowEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, GivesBack, Saving, Learner):
    """A recipe for a model that codes rows, and has no law of them: `Encoding`.

    A recipe defines ``build(schema, *, key) -> Encoding`` and ``stages(rows) -> list[Stage]``; every verb follows. NaN
    marks a cell that was not observed: autoencoders see 0 there, the mean where columns are standardised; it costs
    nothing.

    Parameters
    ----------
    kind, levels, binarise, threshold, dequantise, standardise : how the cells are read, as every recipe for rows reads
        them. With ``binarise="dynamic"`` bits are drawn to learn from, and grey values are coded.
    """

    kind: str | None = None
    levels: int | None = None
    binarise: str = "none"
    threshold: float | None = None
    dequantise: str = "none"
    standardise: bool = True

    kinds: ClassVar[tuple[str, ...]] = ("binary", "levels", "real")

    @abc.abstractmethod
    def build(self, schema: Schema, *, key: PRNGKeyArray) -> Any:
        """The untrained model for data of this schema."""

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
        """Learn from rows.

        Parameters
        ----------
        X : array or DataFrame of shape (rows, columns), or images of shape (rows, height, width[, channels]).
        y : ignored.
        sample_weight : array of shape (rows,), not negative; 0 leaves a row out.
        held_out : rows for early stopping, instead of a share of ``X``.
        folder : where metrics and checkpoints are kept while training.
        resume : go on from the checkpoint in ``folder``, to the bit.

        Returns
        -------
        The estimator itself.

        Raises
        ------
        ValueError
            One line: a field or a cell is not what it has to be.
        """
        require(not resume or folder is not None, "resume", "a folder to go on from", "None", "name it: folder=...")
        self._settle()
        check_names(X)
        values, weight = self._cells(X, reset=True), None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, values, ensure_non_negative=True)
            values, weight = values[weight > 0], weight[weight > 0]
        self.schema_ = schema_of(self, values, getattr(self, "feature_names_in_", None), image_axes(X))
        apart = None if held_out is None else self._cells(held_out)
        if folder is not None:
            texts(self)  # what cannot be written is refused before training
        with precision(self.precision):
            done = fit(self, self._plan(values, weight, apart), None if folder is None else Path(folder), resume)
            self._remember(done.state.model)
        self.history_, self.seconds_, self.complete_ = done.history, done.seconds, done.complete
        return self

    def _plan(self, values: np.ndarray, weight: np.ndarray | None, apart: np.ndarray | None) -> Plan:
        key = jr.key(self.seed_)
        places, held = split(len(values), self.validation if apart is None else 0.0, key_words(key))
        kept = None
        if apart is not None:
            kept = self._row(apart)
        elif len(held):
            kept = self._row(values[held], None if weight is None else weight[held])
        return plan(self, self.schema_, Subset(ArraySource(self._row(values, weight)), places), kept, key=key)

    def _remember(self, model: Encoding) -> None:
        one = jax.ShapeDtypeStruct(self.schema_.shape, np.dtype(self.precision))
        (self._n_features_out,) = eqx.filter_eval_shape(lambda model, x: model.code(Row(x)), model, one).shape
        self.model_ = model

    # --- what it says of rows

    def transform(self, X: Any) -> np.ndarray:
        """The code of each row, shape (rows, codes)."""
        values = self._ready(X)
        return self._codes(values).astype(values.dtype)

    def inverse_transform(self, H: Any) -> np.ndarray:
        """The row that each code stands for, in the units of the training data; shape (rows, columns)."""
        check_is_fitted(self)
        codes, width = check_array(H, dtype=[np.float64, np.float32]), self._n_features_out
        got = codes.shape[1]
        require(got == width, "H", f"{width} columns, one for each code", f"{got}", "give what transform returns")
        return self._rows(codes.astype(self.precision)).astype(codes.dtype)

    def reconstruct(self, X: Any) -> Any:
        """Every row there and back, by its code alone; in the units and the kind of X."""
        values = self._ready(X)
        return as_given(X, self._rows(self._codes(values)).astype(values.dtype))

    def impute(self, X: Any) -> Any:
        """Missing cells as the model gives them back from the others; an observed cell is never altered."""
        values = self._ready(X)
        return as_given(X, np.where(np.isnan(values), flattened(self.denoise(X)), values).astype(values.dtype))

    def evaluate(self, X: Any) -> Faithfulness:
        """How near rows come back from their codes alone, cell by cell as the model reads them.

        Raises
        ------
        ValueError
            One line: no cell is observed.
        """
        values = self._ready(X)
        seen = ~np.isnan(values)
        require(seen.any(), "X", "an observed cell", "none", "give rows to compare")
        with precision(self.precision), highest_matmul():
            row = self._row(values)
            back = blockwise(_decoded, Row(jnp.asarray(self._codes(values))), self.model_)
        cells, base = np.asarray(row.x, float).reshape(back.shape), np.asarray(self.schema_.base, float).ravel()
        away, spread = (np.where(seen, made, np.nan) for made in (back - cells, cells - base))
        return faithfulness(away, spread, self.schema_, self.seed_)

    def score(self, X: Any, y: Any = None) -> float:
        """The share of the squared distances from the means that is gone in rows there and back: R^2."""
        return self.evaluate(X).explained

    def _codes(self, values: np.ndarray) -> np.ndarray:
        with precision(self.precision), highest_matmul():
            return blockwise(_codes, self._row(values), self.model_)

    def _rows(self, codes: np.ndarray) -> np.ndarray:
        with precision(self.precision), highest_matmul():
            return self._outward(blockwise(_decoded, Row(jnp.asarray(codes)), self.model_))

    # --- files

    @classmethod
    def _restore(cls, kept: dict[str, Any], fields: dict[str, Any], folder: Path) -> Self:
        """The fitted estimator a record describes, with the arrays of its folder."""
        made = cls(**fields)
        made.schema_ = Schema.from_json(kept["schema"])
        remembered(made, kept["data"])
        with precision(made.precision):
            made._remember(load_run(folder, made._blank()))
        return made

    def _blank(self) -> Any:
        build_key, _ = jr.split(jr.key(self.seed_))
        return eqx.filter_eval_shape(lambda: as_arrays(self.build(self.schema_, key=build_key)))

    # --- for scikit-learn and the loop

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _ready(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self._cells(X)

    def _cells(self, X: Any, reset: bool = False) -> np.ndarray:
        # infinite cells are left to the schema, whose line names the column
        return validate_data(self, flattened(X), dtype=[np.float64, np.float32], ensure_all_finite=False, reset=reset)

    def _row(self, values: np.ndarray, weight: np.ndarray | None = None) -> Row:
        return rows_of(values, self.schema_, weight=weight, dtype=np.dtype(self.precision))


def _codes(block: Row, model: Encoding) -> Float[Array, "n codes"]:
    return jax.vmap(model.code)(block)


def _decoded(block: Row, model: Encoding) -> Float[Array, "n cells"]:
    return jax.vmap(model.decoded)(block.x)


def _walked(block: Row, model: Any, key: PRNGKeyArray) -> Float[Array, "n cells"]:
    one = lambda row: model.walked(model.entered(row), key=jr.fold_in(key, row.index))[1]  # noqa: E731
    return jax.vmap(one)(block)


def _denoised(block: Row, model: Encoding) -> Float[Array, "n cells"]:
    return jax.vmap(model.denoised)(block)
