"""Where a step of training that was not finite came from: which row, which column, else which array.

Nothing here costs a run that goes well: `Ledger` only reads the metrics that the loop hands over. Once a step was not
finite, the run is repeated to the bit up to that step, and its batch is taken apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from ravine._check import complaint, one_line, shown
from ravine._suspects import culprit, missed_column, named, widest
from ravine._tree import all_finite, as_arrays, resolve, trainable
from ravine.checkpoint import leaf_names
from ravine.core import AbstractRule, Metrics, Row
from ravine.rules import EM, Best, Descend, Guarded, Redrawn
from ravine.rules.em import EMState
from ravine.rules.watch import BestState, GuardedState
from ravine.train import Chunk, Source, Stage, Subset, TrainState, batch_at, stage_keys, train

WIDE = 1e6  # what a model sees is of the order of 1, or should be


class RobustnessWarning(UserWarning):
    """A training that met numbers that are not finite and went on without them: one line says where they came from.

    Examples
    --------
    >>> issubclass(RobustnessWarning, UserWarning)
    True
    """


class Accident(NamedTuple):
    """The state at the start of a chunk, and the first of its steps that was not finite."""

    before: TrainState
    step: int


class Ledger:
    """Passes the chunks of a training through, and keeps what is needed to say where its first bad step came from.

    A step is bad when one of its metrics is not finite or a rule says that it was ``undone``; steps after a rule has
    stopped are not counted.

    Attributes
    ----------
    steps, bad : how many steps were seen, and how many of them were bad.
    first : where the first one was, or None.
    """

    def __init__(self, state: TrainState):
        self.before, self.steps, self.bad = state, 0, 0
        self.first: Accident | None = None

    def watch(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """The chunks, as they come."""
        for chunk in chunks:
            bad = bad_steps(chunk.metrics, undone(self.before.rule))
            self.steps, self.bad = self.steps + bad.size, self.bad + int(bad.sum())
            if self.first is None and bad.any():
                self.first = Accident(self.before, int(self.before.step) + int(np.argmax(bad)))
            self.before = chunk.state
            yield chunk


def undone(state: PyTree) -> int:
    """How many steps the rules whose state this is have undone.

    Examples
    --------
    >>> undone((GuardedState(None, jnp.array(1.0), jnp.array(2)), jnp.ones(3)))
    2
    """
    counts = lambda node: isinstance(node, (EMState, GuardedState))  # noqa: E731
    nodes = [node for node in jax.tree.leaves(state, is_leaf=counts) if counts(node)]
    return sum(int(node.undone) + (undone(node.inner) if isinstance(node, GuardedState) else 0) for node in nodes)


def bad_steps(metrics: dict[str, Any], before: int = 0) -> Bool[np.ndarray, " steps"]:
    """Which steps of a chunk were bad; ``before`` were undone before it. The held-out loss may be infinite.

    Examples
    --------
    >>> bad_steps({"loss": np.array([1.0, np.nan, 1.0, 1.0]), "stopped": np.array([False, False, True, True])}).tolist()
    [False, True, False]
    """
    if not metrics:
        return np.zeros(0, bool)
    series = [(name.rsplit(".", 1)[-1], np.asarray(values)) for name, values in metrics.items()]
    steps = len(series[0][1])
    bad, counts, stopped = np.zeros(steps, bool), np.zeros(steps, int), np.zeros(steps, bool)
    for name, values in series:
        if name == "undone":
            counts += values
        elif name == "stopped":
            stopped |= values
        elif name != "held_out":
            bad |= ~np.isfinite(values.reshape(steps, -1)).all(axis=1)
    bad |= np.diff(counts, prepend=before) > 0
    return bad[: int(np.argmax(stopped)) + 1] if stopped.any() else bad


def verdict(
    ledger: Ledger, state: TrainState, stages: Sequence[Stage], source: Source, schema: Any = None
) -> str | None:
    """What a training that met numbers that are not finite has to say for itself, on one line; None when it met none.

    Parameters
    ----------
    ledger : has seen every chunk.
    state : the end of the training.
    stages, source : what was trained, on what.
    schema : names the columns and knows their units; without it they have numbers.

    Raises
    ------
    ValueError
        When not one step was finite, or a parameter is not: there is nothing to return.
    """
    given = stages, source, schema
    cause = None if ledger.first is None else _cause(ledger.first, *given)
    if cause is not None and ledger.bad == ledger.steps:
        raise complaint("the training", "a finite step", f"none in {ledger.steps}: {cause}", _advice(cause))
    broken = first_broken(trainable(state.model)[0])
    if broken is not None:
        raise complaint("the training", "finite parameters", f"NaN or infinity in {broken}", "use precision='float64'")
    if cause is not None:
        return f"{_counted(ledger, state.rule)}: {cause}."
    judge = state.rule
    if isinstance(judge, BestState) and int(judge.waited) > 0 and not bool(jnp.isfinite(judge.loss)):
        return f"held-out rows could not choose a model, and the last one is kept: {_unjudged(state, *given)}."
    return None


def _cause(accident: Accident, *given: Any) -> str:
    try:
        return blamed(accident, *given)
    except Exception as error:  # a fit must not be lost to the search for what was wrong with it
        return f"what was not finite could not be found, for {one_line(error, 100) or type(error).__name__}"


def _advice(cause: str) -> str:
    if "row " in cause:
        return "rescale or clip such values, or write NaN where they are wrong"
    return "try a smaller rate, or precision='float64'"


def _counted(ledger: Ledger, state: PyTree) -> str:
    many = f"{ledger.bad} of {ledger.steps} steps {'was' if ledger.bad == 1 else 'were'}"
    if isinstance(state, EMState):
        return f"{many} undone, and the model before {'it' if ledger.bad == 1 else 'them'} kept"
    return f"{many} undone and retried smaller" if undone(state) else f"{many} not finite"


def blamed(accident: Accident, stages: Sequence[Stage], source: Source, schema: Any = None) -> str:
    """The cause of a bad step: ``row 17, column 'income' = 1e+06 gives a non-finite loss``.

    The step is repeated with parts of its batch replaced by the medians of their columns: first all rows but some,
    then all columns but some of the row that was found. When rows are not to blame the first array, by path name, that
    is not finite is named: of the model, else of the gradient.
    """
    state = replayed(accident, stages, source)
    stage = stages[int(state.stage)]
    key = stage_keys(state.key, int(state.stage))[2]
    batch, step = batch_at(stage, source, key, int(state.step)), state.step
    given = as_arrays(stage.rule), state.model, state.rule
    before, step_key = undone(state.rule), jr.fold_in(key, step)

    def metrics(rows: Row) -> dict[str, np.ndarray]:
        return jax.tree.map(lambda m: np.asarray(m)[None], _metrics(*given, rows, step_key, step))

    wrong = lambda rows: bool(bad_steps(metrics(rows), before).any())  # noqa: E731
    symptom = _symptom(metrics(batch))
    found = culprit(batch, wrong, schema)
    if found is not None:
        row = found.row if batch.index is None else int(batch.index[found.row])
        return f"row {row}{found.words} gives {symptom}"
    layer, column = _layer(*given, batch, step_key, step), None
    if layer is None or not layer.startswith("the model's"):
        column = missed_column(batch, wrong, schema)
    farthest, away = widest(source, schema, column)
    if column is not None:
        return f"{farthest if away > WIDE else named(column, schema)} gives {symptom}"
    first = f", first in {layer}" if layer else ""
    return f"{symptom} whatever the rows hold{first}" + (f"; the widest value is {farthest}" if away > WIDE else "")


def replayed(accident: Accident, stages: Sequence[Stage], source: Source) -> TrainState:
    """The state right before the bad step: the chunk that it was in, run again up to there."""
    state, i = accident.before, int(accident.before.stage)
    if accident.step > int(state.step):
        short = [*stages[:i], dataclasses.replace(stages[i], steps=accident.step)]
        for chunk in train(None, short, source, key=state.key, state=state):
            state = chunk.state
    return eqx.tree_at(lambda s: s.stage, state, jnp.asarray(i))


def _symptom(metrics: dict[str, np.ndarray]) -> str:
    """What was not finite, in a word; the loss before what follows from it."""
    names = [name for name in metrics if not name.endswith("undone")]
    bad = {name.rsplit(".", 1)[-1] for name in names if bad_steps({name: metrics[name]}).any()}
    words = {"loss": "loss", "objective": "log-likelihood", "rate": "step size", "gradient_norm": "gradient"}
    named = [word for name, word in words.items() if name in bad] or sorted(bad) or ["statistic"]
    return f"a non-finite {named[0]}"


@eqx.filter_jit
def _metrics(
    rule: AbstractRule, model: PyTree, state: PyTree, batch: Row, key: PRNGKeyArray, step: Int[Array, ""]
) -> Metrics:
    return rule.step(model, state, batch, key=key, step=step)[2]


def _layer(
    rule: AbstractRule, model: PyTree, state: PyTree, batch: Row, key: PRNGKeyArray, step: Int[Array, ""]
) -> str | None:
    """The first array of the model, else of what one step makes of it, that is not finite."""
    if isinstance(rule, Best):
        return _layer(rule.rule, state.working, state.inner, batch, key, step)
    if isinstance(rule, Guarded):
        return _layer(rule.rule, model, state.inner, batch, key, step)
    if isinstance(rule, Redrawn):
        return _layer(rule.rule, model, state, batch, key, step)
    broken = first_broken(model)
    if broken is not None or not isinstance(rule, (Descend, EM)):
        return broken and f"the model's {broken}"
    if isinstance(rule, Descend):
        broken = first_broken(_gradient(rule, model, batch, key, step))
        return broken and f"the gradient of {broken}"
    broken = first_broken(_sums(model, batch))
    return broken and f"the statistic {broken}"


def first_broken(tree: PyTree) -> str | None:
    """The path name of the first array of a tree that holds NaN or infinity, quoted.

    Examples
    --------
    >>> first_broken({"a": jnp.ones(2), "b": (jnp.ones(1), jnp.array([1.0, jnp.nan]))})
    "'b.1'"
    """
    broken = (name for name, leaf in leaf_names(tree).items() if not bool(all_finite(leaf)))
    return next((shown(name) for name in broken), None)


@eqx.filter_jit
def _gradient(rule: Descend, model: PyTree, batch: Row, key: PRNGKeyArray, step: Int[Array, ""]) -> PyTree:
    objective, (parameters, rest) = resolve(rule.objective, step), trainable(rule.on.get(model))
    value = lambda part: objective(rule.on.set(model, eqx.combine(part, rest)), batch, key=key)[0]  # noqa: E731
    return jax.grad(value)(parameters)


@eqx.filter_jit
def _sums(model: Any, batch: Row) -> PyTree:
    return model.expected(batch)[0]


def _unjudged(state: TrainState, stages: Sequence[Stage], source: Source, schema: Any) -> str:
    """Why no look at the held-out rows was finite."""
    rule, judge = stages[-1].rule, state.rule
    assert isinstance(rule, Best)
    objective = as_arrays(resolve(rule.objective, state.step))
    wrong = lambda rows: not bool(_judged(objective, judge.working, rows, judge.key))  # noqa: E731
    found = culprit(rule.held_out, wrong, schema)
    if found is None:
        return "their loss is not finite whatever they hold"
    return f"{_held_out_row(source, found.row)}{found.words} gives a non-finite loss"


@eqx.filter_jit
def _judged(objective: Any, model: PyTree, rows: Row, key: PRNGKeyArray) -> Bool[Array, ""]:
    return jnp.isfinite(objective(model, rows, key=key)[0])


def _held_out_row(source: Source, row: int) -> str:
    """The row's number in the table it was held out from; in its own table when it came in one."""
    if isinstance(source, Subset):
        others = np.setdiff1d(np.arange(source.source.rows), source.places)
        if len(others):
            return f"row {others[row]}"
    return f"held-out row {row}"
