"""The verbs of a fitted estimator, and the way between the user's tables and the rows of a model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ravine import verbs
from ravine._check import require, whole
from ravine._containers import as_given, flattened, framed
from ravine._jax import Precision, folded_key, key_from_words, precision
from ravine.core import AbstractDirected, AbstractEvidence, AbstractLatentModel, LogLikelihood, Row
from ravine.data import AnySchema, TableSchema
from ravine.data import rows as rows_of
from ravine.data.frames import is_frame
from ravine.evaluation import Evaluation, evaluation

if TYPE_CHECKING:
    from ravine.diagnose import Diagnosis, Effort
    from ravine.imputation import MissingPatterns

MAPPED_BYTES = 2**27  # memory-mapped arrays of more bytes are read as they are needed


class Answers(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """What a fitted estimator answers about rows, from what `fit` has set and the fields of the recipe."""

    evidence: AbstractEvidence
    particles: int
    precision: Precision
    model_: Any
    schema_: AnySchema
    seed_: int
    _key_words: np.ndarray
    _n_features_out: int

    def score_samples(self, X: Any) -> np.ndarray:
        """log p(x) of every row in nats, in the units of ``X``; see `log_likelihood` for what kind of number it is."""
        return np.asarray(self.log_likelihood(X).value)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean of `score_samples`, in nats per row."""
        values = self.score_samples(X)
        weight = (
            None if sample_weight is None else _check_sample_weight(sample_weight, values, ensure_non_negative=True)
        )
        return float(np.average(values, weights=weight))

    def log_likelihood(self, X: Any) -> LogLikelihood:
        """log p(x) per row in nats with its Monte Carlo standard error, direction and method."""
        values = self._ready(X)
        with precision(self.precision):
            row = self._row(values)
            evidence = self._prepared_evidence()
            got = verbs.log_likelihood(self.model_, evidence, row, self.schema_.draw(), key=self._key())
            log_det = self._log_det(row)
        direction = got.direction
        if self.schema_.dequantise != "none":  # E_u[log p(x + u)] <= log P(x)
            direction = "lower" if direction in ("exact", "lower") else "estimate"
        value, error = (np.asarray(part, float) for part in (got.value, got.standard_error))
        return LogLikelihood(value + log_det, error, direction, got.method, got.shared_error)

    def _log_det(self, row: Row) -> np.ndarray:
        """What turns the density of the cells that the model sees into that of the user's, per row."""
        return np.asarray(self.schema_.log_det(row.mask, row.x))

    def _prepared_evidence(self) -> AbstractEvidence:
        """The evidence with what it needs of this model, such as log Z: computed once."""
        of, kept = getattr(self, "_kept_evidence", (None, self.evidence))
        if of is None or of[0] is not self.model_ or of[1] is not self.evidence:
            kept = self.evidence.prepared(self.model_, key=self._key())
            self._kept_evidence = ((self.model_, self.evidence), kept)
        return kept

    def evaluate(self, X: Any) -> Evaluation:
        """The mean log-likelihood of ``X`` with its standard error, units, direction, method and treatment."""
        return evaluation(self.log_likelihood(X), self._scored_cells(self._ready(X)), self.schema_, self.seed_)

    def transform(self, X: Any) -> np.ndarray:
        """Posterior mean of the latent causes, shape (rows, latents); missing cells are allowed for."""
        return self._latents(X)

    def inverse_transform(self, Z: Any) -> Any:
        """Expected row for given latents, in the units of the training data; shape (rows, columns).

        A model of a table with columns of several kinds gives a data frame of values that the columns can hold.
        """
        check_is_fitted(self)
        latents, width = check_array(Z, dtype=[np.float64, np.float32]), self._n_features_out
        got = latents.shape[1]
        require(got == width, "Z", f"{width} columns, one for each latent", f"{got}", "give what transform returns")
        with precision(self.precision):
            means = verbs.decoded_mean(
                cast(AbstractDirected, self.model_), latents.astype(self.precision), self._latent_like()
            )
        codes = self._outward(self.schema_.decode(means))
        if isinstance(self.schema_, TableSchema):
            return self.schema_.frame(codes)
        noise = 0.5 if self.schema_.dequantise == "uniform" else 0.0
        return (codes - noise).astype(latents.dtype)

    def reconstruct(self, X: Any) -> Any:
        """Every row as the model expects it, given the posterior mean of its latents."""
        made = self.inverse_transform(self._latents(X))
        return made.set_axis(X.index) if is_frame(made) and is_frame(X) else as_given(X, made)

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> Any:
        """New rows, shape (n_samples, columns); a DataFrame where the model was fitted on one.

        The first rows stay the same when more are asked for.
        """
        check_is_fitted(self)
        rows = whole("n_samples", n_samples)
        with precision(self.precision):
            seed = None if random_state is None else int(check_random_state(random_state).randint(2**31 - 1))
            key = jr.fold_in(self._key() if seed is None else jr.key(seed), 2)
            drawn = verbs.samples(self.model_, rows, key=key)
        codes = self._outward(self.schema_.point(drawn))
        if isinstance(self.schema_, TableSchema):
            return self.schema_.frame(codes)
        return framed(codes, getattr(self, "feature_names_in_", None))

    def impute(self, X: Any, draws: int | None = None, interval: float | None = None) -> Any:
        """Fill the missing cells; an observed cell is never altered.

        Parameters are taken as known, so draws and intervals understate the uncertainty; see `multiple_impute`.

        Parameters
        ----------
        X : rows with NaN where a cell is missing.
        draws : None for one completed table of the kind of X: the conditional mean of real cells, the most plausible
            value of discrete ones. A number m gives m conditional draws, an array of shape ``(m, *X.shape)``, or a
            list of m data frames where columns are of several kinds.
        interval : a probability, such as 0.9: two tables instead, ``low`` and ``high``, the ends of central credible
            intervals of the missing cells; a category without an order has none and stays missing.
        """
        require(draws is None or interval is None, "impute", "draws or interval", "both", "ask for one at a time")
        if interval is not None:
            from ravine.imputation import imputed_interval

            return imputed_interval(cast(Any, self), X, interval)
        values = self._ready(X)
        with precision(self.precision):
            row, draw, key = self._row(values), self.schema_.draw(), folded_key(self._key(), 3)
            if draws is None:
                made = verbs.completed(self.model_, row, draw, self.particles, key=key)
            else:
                count = whole("draws", draws)
                made = verbs.completions(self.model_, row, draw, self.particles, count, key=key)
        made = np.where(np.isnan(values), self._outward(self.schema_.point(made)), values)
        if isinstance(self.schema_, TableSchema):
            return self.schema_.filled(X, made)
        return as_given(X, made.astype(values.dtype))

    def multiple_impute(self, X: Any, m: int = 20) -> Any:
        """``m`` completed tables, each with a draw of the parameters of its own; `ravine.imputation` says how.

        Valid when cells are missing at random and the model is correctly specified. ``X`` is the training table.
        """
        from ravine.imputation import multiple_impute

        return multiple_impute(cast(Any, self), X, m)

    def missing_patterns(self, X: Any) -> MissingPatterns:
        """Which columns are missing together, and how often; its text is a picture of it."""
        from ravine.imputation import missing_patterns

        self._ready(X)
        return missing_patterns(X, None if is_frame(X) else getattr(self, "feature_names_in_", None))

    def diagnose(self, X: Any, held_out: Any = None, effort: Effort | None = None) -> Diagnosis:
        """What is right and wrong with the fit, in words, and what to try: see `ravine.diagnose`.

        Parameters
        ----------
        X : the training rows.
        held_out : rows that the fit has not seen; without them nothing is said of overfitting.
        effort : how many rows and draws to spend.
        """
        from ravine import diagnose

        seen, fresh = self._ready(X), None if held_out is None else self._ready(held_out)
        told = {"objective": getattr(self, "objective", None), "effort": effort or diagnose.Effort()}
        with precision(self.precision):
            rows, other = self._row(seen), None if fresh is None else self._row(fresh)
            key, draw = jr.fold_in(self._key(), 4), self.schema_.draw()
            if not isinstance(self.model_, AbstractLatentModel):
                told["evidence"] = self._prepared_evidence()
            return diagnose.diagnose(self.model_, rows, other, key=key, draw=draw, **told)

    # --- between the user's arrays and the model's rows

    def _ready(self, X: Any) -> Any:
        check_is_fitted(self)
        return self._checked(X)

    def _checked(self, X: Any, reset: bool = False) -> Any:
        if not reset and isinstance(self.schema_, TableSchema):
            codes = self.schema_.code(X)  # first: it has the better line for other columns
            validate_data(self, X, skip_check_array=True, reset=False)
            return codes
        X = flattened(X)
        if isinstance(X, np.memmap) and X.nbytes > MAPPED_BYTES:  # its cells are checked as they are read
            return validate_data(self, X, skip_check_array=True, reset=reset)
        # infinite cells are left to the schema, whose line names the column
        return validate_data(self, X, dtype=[np.float64, np.float32], ensure_all_finite=False, reset=reset)

    def given_columns(self) -> list[int]:
        """The places of the columns that are given, of which there is no law: none, unless a recipe says so."""
        return []

    def _scored_cells(self, values: Any) -> int:
        """How many cells a log-likelihood of these rows is of."""
        return int(np.count_nonzero(~np.isnan(np.delete(values, self.given_columns(), axis=1))))

    def _row(self, values: Any, weight: np.ndarray | None = None) -> Row:
        """The rows as the model sees them: with a mask where it learned from one, so that they are computed alike."""
        row = rows_of(values, self.schema_, weight=weight, dtype=np.dtype(self.precision))
        if row.mask is None and self.schema_.holes:
            return dataclasses.replace(row, mask=jnp.asarray(np.ones(row.x.shape, bool)))
        return row

    def _key(self) -> PRNGKeyArray:
        return key_from_words(self._key_words)

    def _latent_like(self) -> Any:
        one = jax.ShapeDtypeStruct(self.schema_.shape, np.dtype(self.precision))
        return eqx.filter_eval_shape(lambda model, x: model.posterior(Row(x)).mean(), self.model_, one)

    def _latents(self, X: Any) -> np.ndarray:
        values = self._ready(X)
        with precision(self.precision):
            means = verbs.latent_mean(self.model_, self._row(values), self.schema_.draw(), key=self._key())
        return means.astype(values.dtype)

    def _outward(self, values: np.ndarray) -> np.ndarray:
        """One vector a row, whatever the shape of a row is to the model."""
        return values.reshape(*values.shape[: values.ndim - len(self.schema_.shape)], -1)


class Clusters:
    """Verbs of a model whose latent is a class: `predict` and `predict_proba`."""

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class given the observed cells of a row, shape (rows, classes)."""
        return self._latents(X)  # pyright: ignore[reportAttributeAccessIssue]

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, shape (rows,)."""
        return np.argmax(self.predict_proba(X), axis=1)
