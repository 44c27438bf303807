"""The scikit-learn contract over any recipe. Training, models and evaluation do not know scikit-learn."""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast, get_args, no_type_check

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils import Tags, check_array, check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ravine import verbs
from ravine._check import require, whole
from ravine._containers import as_given, flattened, framed, image_axes
from ravine._fields import check_fields
from ravine._jax import Precision, key_from_words, key_words, precision
from ravine._record import record, schema_of, texts
from ravine.checkpoint import load_run, save_run
from ravine.core import AbstractDirected, AbstractEvidence, AbstractLatentModel, LogLikelihood, Row
from ravine.data import ArraySource, MappedSource, Schema
from ravine.data import rows as rows_of
from ravine.data.plan import Kind
from ravine.evaluation import Evaluation, evaluation
from ravine.evidence import Exact
from ravine.fitting import Plan, blank, fit, one_pass, plan, reached, split, started
from ravine.rules import EM
from ravine.train import Stage, Subset, train_together
from ravine.trial import Trial

KINDS: tuple[str, ...] = get_args(Kind)
MAPPED_BYTES = 2**27  # memory-mapped arrays of more bytes are read as they are needed


def _continues(recipe: LatentVariableModel) -> bool:
    rule = recipe.stages(1)[-1].rule
    return not isinstance(rule, EM) or rule.rate is not None


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class LatentVariableModel(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, abc.ABC):
    """A recipe: hyper-parameters that say which parts. Subclasses are keyword-only dataclasses by themselves.

    A recipe defines ``build(schema, *, key) -> model`` and ``stages(rows) -> list[Stage]``; every verb follows.
    ``kinds`` are the kinds of cells that its model can hold.

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
    validation : share of the rows held out for early stopping (at most 10,000 rows); 0 trains on all.
    patience : held-out evaluations without improvement before training stops.
    max_seconds : training stops after about this time.
    particles : draws per row behind an imputation that has no closed form.
    precision : ``"float32"`` or ``"float64"`` for training and every verb.
    progress : show a progress bar; None shows one when standard error is a terminal.
    random_state : seed or `numpy.random.RandomState`; a given seed fixes every result.
    """

    kind: str | None = None
    levels: int | None = None
    binarise: str = "none"
    threshold: float | None = None
    dequantise: str = "none"
    standardise: bool = False
    evidence: AbstractEvidence = Exact()
    validation: float = 0.1
    patience: int = 10
    max_seconds: float | None = None
    particles: int = 200
    precision: Precision = "float32"
    progress: bool | None = None
    random_state: Any = None

    kinds: ClassVar[tuple[str, ...]] = KINDS
    trials: ClassVar[Mapping[str, Trial]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(eq=False, repr=False, kw_only=True)(cls)
        no_type_check(cls.__init__)  # takes anything; `fit` refuses, as scikit-learn asks

    @abc.abstractmethod
    def build(self, schema: Schema, *, key: PRNGKeyArray) -> AbstractLatentModel:
        """The untrained model for data of this schema."""

    @abc.abstractmethod
    def stages(self, rows: int) -> list[Stage]:
        """The training of a data set with so many rows."""

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

    def _begin(self, X: Any, sample_weight: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """What is settled before there is a model: fields, columns, weights, schema, seed."""
        check_fields(self)
        share = "a share of at least 0 and below 1"
        require(0 <= self.validation < 1, "validation", share, f"{self.validation}", "change it")
        values, weight = self._weighted(self._checked(X, reset=True), sample_weight)
        self.schema_ = schema_of(self, values, getattr(self, "feature_names_in_", None), image_axes(X))
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        return values, weight

    def _plan(self, values: np.ndarray, weight: np.ndarray | None, held_out: Any = None) -> Plan:
        key = jr.key(self.seed_)
        places, held = split(len(values), 0.0 if held_out is not None else self.validation, key_words(key))
        kept = None
        if held_out is not None:
            kept = self._row(self._checked(held_out))
        elif len(held):
            kept = self._row(values[held], None if weight is None else weight[held])
        return plan(self, self.schema_, Subset(self._source(values, weight), places), kept, key=key)

    def _weighted(self, values: np.ndarray, sample_weight: Any) -> tuple[np.ndarray, np.ndarray | None]:
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

    # --- answering

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
            got = verbs.log_likelihood(self.model_, self.evidence, row, self.schema_.draw(), key=self._key())
            log_det = np.asarray(self.schema_.log_det(row.mask))
        direction = got.direction
        if self.schema_.dequantise != "none":  # E_u[log p(x + u)] <= log P(x)
            direction = "lower" if direction in ("exact", "lower") else "estimate"
        value, error = (np.asarray(part, float) for part in (got.value, got.standard_error))
        return LogLikelihood(value + log_det, error, direction, got.method)

    def evaluate(self, X: Any) -> Evaluation:
        """The mean log-likelihood of ``X`` with its standard error, units, direction, method and treatment."""
        cells = int(np.count_nonzero(~np.isnan(self._ready(X))))
        return evaluation(self.log_likelihood(X), cells, self.schema_, self.seed_)

    def transform(self, X: Any) -> np.ndarray:
        """Posterior mean of the latent causes, shape (rows, latents); missing cells are allowed for."""
        return self._latents(X)

    def inverse_transform(self, Z: Any) -> np.ndarray:
        """Expected row for given latents, in the units of the training data; shape (rows, columns)."""
        check_is_fitted(self)
        latents, width = check_array(Z, dtype=[np.float64, np.float32]), self._n_features_out
        got = latents.shape[1]
        require(got == width, "Z", f"{width} columns, one for each latent", f"{got}", "give what transform returns")
        with precision(self.precision):
            means = verbs.decoded_mean(
                cast(AbstractDirected, self.model_), latents.astype(self.precision), self._latent_like()
            )
        return self._outward(self.schema_.decode(means) - self._noise_mean()).astype(latents.dtype)

    def reconstruct(self, X: Any) -> Any:
        """Every row as the model expects it, given the posterior mean of its latents."""
        return as_given(X, self.inverse_transform(self._latents(X)))

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
        return framed(self._outward(self.schema_.point(drawn)), getattr(self, "feature_names_in_", None))

    def impute(self, X: Any, draws: int | None = None) -> Any:
        """Fill the missing cells; an observed cell is never altered.

        Parameters
        ----------
        X : rows with NaN where a cell is missing.
        draws : None for one completed table of the kind of X: the conditional mean of real cells, the most plausible
            value of discrete ones. A number m gives m conditional draws, an array of shape ``(m, *X.shape)``; they use
            the fitted parameters as if they were known, so they understate the uncertainty.
        """
        values = self._ready(X)
        with precision(self.precision):
            row, draw, key = self._row(values), self.schema_.draw(), jr.fold_in(self._key(), 3)
            if draws is None:
                made = verbs.completed(self.model_, row, draw, self.particles, key=key)
            else:
                count = whole("draws", draws)
                made = verbs.completions(self.model_, row, draw, self.particles, count, key=key)
        made = np.where(np.isnan(values), self._outward(self.schema_.point(made)), values)
        return as_given(X, made.astype(values.dtype))

    # --- files

    def save(self, folder: str | Path, figures: dict[str, Any] | None = None) -> Path:
        """Write the fitted model to a folder, arrays as safetensors and all else as JSON; `ravine.load` reads it."""
        check_is_fitted(self)
        save_run(folder, self.model_, record(self, figures or {}))
        return Path(folder)

    @classmethod
    def _restore(cls, kept: dict[str, Any], fields: dict[str, Any], folder: Path) -> Self:
        """The fitted estimator a record describes, with the arrays of its folder."""
        made, fitted = cls(**fields), kept["data"]
        made.schema_ = Schema.from_json(kept["schema"])
        made.n_features_in_, made.seed_ = int(fitted["features"]), int(fitted["seed"])
        if "names" in fitted:
            made.feature_names_in_ = np.asarray(fitted["names"], dtype=object)
        with precision(made.precision):
            key = jr.key(made.seed_)
            model = load_run(folder, blank(made, made.schema_, key))
            made._remember(model, key)
        return made

    def __getstate__(self) -> dict[str, Any]:
        state = BaseEstimator.__getstate__(self)
        if "model_" in state:
            leaves = jax.tree.leaves(eqx.filter(state["model_"], eqx.is_array))
            state = {**state, "model_": [np.asarray(leaf) for leaf in leaves], "_going": None}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        BaseEstimator.__setstate__(self, state)
        if "model_" in state:
            with precision(self.precision):
                like, rest = eqx.partition(blank(self, self.schema_, self._key()), _is_shape)
                leaves = [jnp.asarray(leaf) for leaf in state["model_"]]
                self.model_ = eqx.combine(jax.tree.unflatten(jax.tree.structure(like), leaves), rest)

    # --- between the user's arrays and the model's rows

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _ready(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self._checked(X)

    def _checked(self, X: Any, reset: bool = False) -> np.ndarray:
        X = flattened(X)
        if isinstance(X, np.memmap) and X.nbytes > MAPPED_BYTES:  # its cells are checked as they are read
            return validate_data(self, X, skip_check_array=True, reset=reset)
        return validate_data(self, X, dtype=[np.float64, np.float32], ensure_all_finite="allow-nan", reset=reset)

    def _row(self, values: np.ndarray, weight: np.ndarray | None = None) -> Row:
        return rows_of(values, self.schema_, weight=weight, dtype=np.dtype(self.precision))

    def _source(self, values: np.ndarray, weight: np.ndarray | None) -> ArraySource | MappedSource:
        if isinstance(values, np.memmap):
            return MappedSource(values, self.schema_, np.dtype(self.precision), weight=weight)
        return ArraySource(self._row(values, weight))

    def _remember(self, model: AbstractLatentModel, key: PRNGKeyArray) -> None:
        self.model_, self._going = model, None
        self._key_words = key_words(key)
        self._n_features_out = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(self._latent_like()))

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

    def _noise_mean(self) -> float:
        """What the noise of dequantisation adds to a cell on average."""
        return 0.5 if self.schema_.dequantise == "uniform" else 0.0


class Clusters:
    """Verbs of a model whose latent is a class: `predict` and `predict_proba`."""

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class given the observed cells of a row, shape (rows, classes)."""
        return self._latents(X)  # pyright: ignore[reportAttributeAccessIssue]

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, shape (rows,)."""
        return np.argmax(self.predict_proba(X), axis=1)


def _is_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct) or eqx.is_array(leaf)
