"""The contract of a recipe whose row is a whole sequence: every verb of a model of rows, and forecasts besides."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ravine import verbs
from ravine._check import Absent, require, shown, whole
from ravine._containers import framed
from ravine._jax import folded_key, precision
from ravine._record import schema_of
from ravine.core import Row, rows_in, weights
from ravine.data import rows as rows_of
from ravine.data.sequences import Read, Sequences, read_sequences
from ravine.estimator import LatentVariableModel
from ravine.evaluation import Evaluation, evaluation

SHORTEST = 8  # steps; shorter sequences are padded to so many


class SequenceModel(LatentVariableModel):
    """A recipe for sequences of unequal lengths, with gaps: what `LatentVariableModel` is for rows.

    Wherever ``X`` stands it is a list of arrays of shape (steps, columns) or (steps,), an array of shape (sequences,
    steps, columns), an array of shape (steps, columns), which is one sequence, steps one after another as
    `ravine.Sequences` with their lengths, or a data frame with a row per step. NaN marks a cell that was not observed;
    a step may be all NaN. Answers about steps come back in the same kind of container, in the order of its rows.
    Likelihoods and weights are per sequence.

    Parameters
    ----------
    sequence : of a data frame, the column that says which sequence a row belongs to; None is one sequence.
    order : of a data frame, the column by which the rows of a sequence are sorted; None keeps their order.
    """

    sequence: str | None = None
    order: str | None = None

    of_rows: ClassVar[bool] = False
    lacking: ClassVar[str] = "describes tables; for sequences there are score, impute and forecast"

    # --- answers

    def transform(self, X: Any) -> Any:
        """Posterior mean of the latent of every step given the whole sequence, ``(..., latents)``."""
        read = self._asked(X)
        return self._as_came(X, read, self._latents(read.sequences), self.get_feature_names_out())

    def impute(self, X: Any, draws: int | None = None, interval: float | None = None) -> Any:
        """Fill the missing cells; an observed cell is never altered.

        Parameters
        ----------
        X : sequences with NaN where a cell is missing.
        draws : None for one completed set: the conditional mean of real cells, the most plausible value of discrete
            ones. A number m gives a list of m conditional draws.
        interval : a probability, such as 0.9: two sets instead, ``low`` and ``high``, the ends of central credible
            intervals of the missing cells, from a thousand draws of each sequence.
        """
        require(draws is None or interval is None, "impute", "draws or interval", "both", "ask for one at a time")
        read = self._asked(X)
        known = read.sequences.steps
        made = self._filled(read.sequences, draws, interval)
        made = np.where(np.isnan(known), made, known)
        return self._sets(made, lambda one: self._as_came(X, read, one, None))

    def forecast(self, X: Any, steps: int = 1, draws: int | None = None, interval: float | None = None) -> Any:
        """What follows after the last step of each sequence, shape (sequences, ``steps``, columns).

        The mean of real cells given the whole sequence, the most plausible value of discrete ones. ``draws`` and
        ``interval`` are as in `impute`: a list, of draws or of the two ends. Parameters are taken as known. Of a data
        frame it is one with the column that tells sequences, and ``ahead``, the number of steps from the last one on.
        """
        require(draws is None or interval is None, "forecast", "draws or interval", "both", "ask for one at a time")
        read, ahead = self._asked(X), whole("steps", steps)
        known = read.sequences
        blank = np.full((ahead, known.steps.shape[1]), np.nan)
        parts = [np.concatenate([part, blank]) for part in known]
        longer = Sequences(np.concatenate(parts), known.lengths + ahead)
        made = self._filled(longer, draws, interval)
        tails = np.stack([part[..., -ahead:, :] for part in longer.cut(made, axis=-2)], axis=-3)
        back = lambda tail: tail if read.frame is None else self._ahead(read, tail)  # noqa: E731
        return back(tails) if tails.ndim == 3 else [back(tail) for tail in tails]

    def sample(self, n_samples: int = 1, steps: int | None = None, *, random_state: Any = None) -> Any:
        """New sequences of so many ``steps``, the longest of the training data unless given.

        An array of shape (n_samples, steps, columns); a data frame with a row per step where the model was fitted on
        one, its sequences numbered from 0. The first ones stay the same when more are asked for.
        """
        check_is_fitted(self)
        rows, long = whole("n_samples", n_samples), whole("steps", self.steps_ if steps is None else steps)
        with precision(self.precision):
            seed = None if random_state is None else int(check_random_state(random_state).randint(2**31 - 1))
            key = jr.fold_in(self._key() if seed is None else jr.key(seed), 2)
            drawn = self.schema_.point(verbs.samples(self.model_.of_length(long), rows, key=key))
        names = getattr(self, "feature_names_in_", None)
        if names is None:
            return drawn
        made = framed(drawn.reshape(rows * long, -1), names)
        if self.order is not None:
            made.insert(0, self.order, np.tile(np.arange(long), rows))
        made.insert(0, self.sequence or "sequence", np.repeat(np.arange(rows), long))
        return made

    def inverse_transform(self, Z: Any) -> Any:
        """Expected steps for given latents of every step, in the units of the training data."""
        check_is_fitted(self)
        read = read_sequences(Z)
        latents, width = read.sequences.steps.astype(self.precision), self._n_features_out
        got = latents.shape[1]
        require(got == width, "Z", f"{width} columns, one for each latent", f"{got}", "give what transform returns")
        with precision(self.precision):
            paths = Row(jnp.asarray(read.sequences.padded(latents, self._room(read.sequences), 0)))
            shape = self._latent_like().shape[1:]
            means = self.schema_.decode(verbs.blockwise(_expected, paths, self.model_, shape))
        return self._as_came(Z, read, read.sequences.joined(means), None)

    def reconstruct(self, X: Any) -> Any:
        """Every step as the model expects it, given the posterior mean of its latents."""
        read = self._asked(X)
        made = self.inverse_transform(Sequences(self._latents(read.sequences), read.sequences.lengths))
        return self._as_came(X, read, made.steps, None)

    @property
    def multiple_impute(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Absent: it is of tables."""
        raise Absent(f"{type(self).__name__}: multiple_impute {self.lacking}.")

    @property
    def missing_patterns(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Absent: it is of tables."""
        raise Absent(f"{type(self).__name__}: missing_patterns {self.lacking}.")

    @property
    def diagnose(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Absent: it is of tables."""
        raise Absent(f"{type(self).__name__}: diagnose {self.lacking}.")

    def evaluate(self, X: Any) -> Evaluation:
        """The mean log-likelihood of the sequences, and per step, with its standard error, units and direction."""
        known = self._checked(X)
        cells, steps = ~np.isnan(known.steps), int(np.count_nonzero(~np.isnan(known.steps).all(axis=1)))
        return evaluation(self.log_likelihood(X), int(cells.sum()), self.schema_, self.seed_, steps)

    # --- between the user's containers and the model's rows

    def read(self, X: Any) -> Sequences:
        """The sequences of a container, as the model was asked to read them."""
        return read_sequences(X, self.sequence, self.order).sequences

    def _seen(self, X: Any, sample_weight: Any) -> tuple[Any, np.ndarray | None]:
        read = read_sequences(X, self.sequence, self.order)
        if hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        if read.names is not None:
            self.feature_names_in_ = np.asarray(read.names, dtype=object)
        values, weight = self._weighted(cast(Any, read.sequences), sample_weight)
        self.n_features_in_, self.steps_ = values.steps.shape[1], int(values.lengths.max())
        self.schema_ = schema_of(self, values.steps, read.names, None)
        return values, weight

    def _asked(self, X: Any) -> Read:
        """The sequences of a container, whose columns must be those of the training data."""
        check_is_fitted(self)
        read = read_sequences(X, self.sequence, self.order)
        want, got = getattr(self, "feature_names_in_", None), read.names
        same = want is None or got is None or tuple(want) == tuple(got)
        do = "give the columns of the training data, in their order"
        require(same, "the columns", shown(want if want is None else tuple(want), 200), shown(got, 200), do)
        steps = read.sequences.steps.astype(np.float64)
        return read._replace(sequences=Sequences(steps, read.sequences.lengths))

    def _checked(self, X: Any, reset: bool = False) -> Any:
        return self._asked(X).sequences

    def _ready(self, X: Any) -> Any:
        return X if isinstance(X, Sequences) and X.steps.dtype == np.float64 else self._checked(X)

    def _row(self, values: Any, weight: np.ndarray | None = None) -> Row:
        steps = rows_of(values.steps, self.schema_, dtype=np.dtype(self.precision))
        room = self._room(values)
        unequal = bool((values.lengths < room).any())
        return Row(
            jnp.asarray(values.padded(np.asarray(steps.x), room, 0)),
            None if steps.mask is None else jnp.asarray(values.padded(np.asarray(steps.mask), room, False)),
            length=jnp.asarray(values.lengths.astype(np.int32)) if unequal else None,
            index=jnp.asarray(np.arange(len(values), dtype=np.int32)),
            weight=None if weight is None else jnp.asarray(np.asarray(weight, self.precision)),
        )

    def _room(self, values: Sequences) -> int:
        """How many steps are computed: those of the training data, or a fourth or four times as many, and so on."""
        longest, room = int(values.lengths.max()), self.steps_
        while room < longest:
            room *= 4
        while room // 4 >= max(longest, SHORTEST):
            room = room // 4
        return room

    def _log_det(self, row: Row) -> np.ndarray:
        n, steps = row.x.shape[:2]
        mask = np.ones(row.x.shape, bool) if row.mask is None else np.asarray(row.mask)
        there = np.arange(steps)[None] < (np.full(n, steps) if row.length is None else np.asarray(row.length))[:, None]
        return np.asarray(self.schema_.log_det(mask & there[..., None])).sum(axis=1)

    def _source(self, values: Any, weight: np.ndarray | None) -> Any:
        return _InMemory(self._row(values, weight))

    def _latent_like(self) -> Any:
        one = jax.ShapeDtypeStruct((self.steps_, *self.schema_.shape), np.dtype(self.precision))
        return eqx.filter_eval_shape(lambda model, x: model.posterior(Row(x)).mean(), self.model_, one)

    def _remember(self, model: Any, key: Any) -> None:
        super()._remember(model, key)
        self._n_features_out //= self.steps_

    def _latents(self, X: Any) -> np.ndarray:
        values = self._ready(X)
        with precision(self.precision):
            row = self._row(values)
            means = verbs.latent_mean(self.model_, row, self.schema_.draw(), key=self._key())
        return values.joined(means.reshape(*row.x.shape[:2], -1)).astype(np.float64)

    def _filled(self, values: Sequences, draws: int | None, interval: float | None) -> np.ndarray:
        """Steps with the missing cells filled in, in the user's units, with a leading axis of draws or of two ends."""
        with precision(self.precision):
            row, draw, key = self._row(values), self.schema_.draw(), folded_key(self._key(), 3)
            if draws is None and interval is None:
                return values.joined(self.schema_.point(verbs.completed(self.model_, row, draw, 1, key=key)))
            count = 1000 if draws is None else whole("draws", draws)
            made = values.joined(
                self.schema_.point(verbs.completions(self.model_, row, draw, 1, count, key=key)), axis=1
            )
        if interval is None:
            return made
        good = 0 < interval < 1
        require(good, "interval", "a probability between 0 and 1", f"{interval}", "ask for one such as 0.9")
        return np.quantile(made, [(1 - interval) / 2, (1 + interval) / 2], axis=0)

    def _ahead(self, read: Read, tails: np.ndarray) -> Any:
        """Forecasts as a data frame."""
        count, steps = tails.shape[:2]
        made = framed(tails.reshape(count * steps, -1), read.names)
        made.insert(0, "ahead", np.tile(np.arange(1, steps + 1), count))
        if read.keys is not None:
            made.insert(0, self.sequence, np.repeat(np.asarray(read.keys), steps))
        return made

    def _sets(self, made: np.ndarray, back: Any) -> Any:
        return back(made) if made.ndim == 2 else [back(one) for one in made]

    def _as_came(self, X: Any, read: Read, values: np.ndarray, names: Any) -> Any:
        """Values of all steps in the kind of container that the sequences came in."""
        if read.frame is not None and read.places is not None:
            told = [name for name in (self.sequence, self.order) if name is not None]
            unsorted = np.empty_like(values)
            unsorted[read.places] = values
            columns = list(read.names or () if names is None else names)
            return read.frame[told].join(type(read.frame)(unsorted, index=read.frame.index, columns=columns))
        if isinstance(X, Sequences):
            return Sequences(values, read.sequences.lengths)
        if isinstance(X, list | tuple):
            return read.sequences.cut(values)
        axes = np.shape(X)[:2] if np.ndim(X) == 3 else np.shape(X)[:1]
        return values.reshape(*axes, -1)


class States:
    """Verbs of a model whose latent is one of several states at every step."""

    def predict_proba(self, X: Any) -> Any:
        """Probability of each state at every step given the whole sequence, ``(..., states)``."""
        return self.transform(X)  # pyright: ignore[reportAttributeAccessIssue]

    def predict(self, X: Any) -> Any:
        """The path of states of highest probability given the whole sequence, as Viterbi finds it; ``(..., 1)``.

        An array of whole numbers for each sequence; for a data frame its id and order columns and one called
        ``state``. The most probable state of each step alone is the largest of `predict_proba`.
        """
        made = cast(SequenceModel, self)
        read = made._asked(X)
        with precision(made.precision):
            row = made._row(read.sequences)
            paths = verbs.blockwise(_decoded, row, made.model_)
        states = read.sequences.joined(paths)
        told = made._as_came(X, read, states.reshape(len(states), -1), _state_names(states))
        return told if states.ndim > 1 else _flat(told)


class _InMemory:
    """Sequences that are all in memory: padded in steps, not in number."""

    def __init__(self, row: Row):
        self.rows, self.row = rows_in(row), row
        self.whole = dataclasses.replace(row, weight=weights(row))

    def block(self, positions: np.ndarray) -> tuple[Row, np.ndarray]:
        """Every sequence, and the positions as they are."""
        return self.row, positions

    def all(self) -> Row:
        """Every sequence, with weights."""
        return self.whole


def _state_names(states: np.ndarray) -> list[str]:
    return ["state"] if states.ndim == 1 else [f"state{i}" for i in range(states.shape[1])]


def _flat(told: Any) -> Any:
    """Arrays of one column without their last axis; anything else as it is."""
    if isinstance(told, list):
        return [_flat(part) for part in told]
    if isinstance(told, np.ndarray):
        return told[..., 0]
    return told


def _decoded(block: Row, model: Any) -> Array:
    return jax.vmap(lambda row: model.decode(row)[0])(block)


def _expected(block: Row, model: Any, shape: tuple[int, ...]) -> Array:
    """E[x | z] of paths whose steps are flat vectors."""
    return jax.vmap(lambda z: model.likelihood(z.reshape(z.shape[0], *shape)).mean())(block.x)
