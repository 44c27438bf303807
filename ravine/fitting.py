"""From a recipe and rows to a fitted model: hold out, wrap the rules, run the loop, keep what is needed to go on."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from ravine._check import complaint
from ravine._jax import key_words
from ravine._monitor import Monitor, keep_lines_up_to
from ravine._tree import as_arrays, resolve
from ravine.blame import Ledger, RobustnessWarning, verdict
from ravine.checkpoint import CHECKPOINT, checkpoint_record, load_checkpoint
from ravine.core import AbstractDraw, AbstractGradient, AbstractRule, Objective, Row
from ravine.data import AnySchema, padded
from ravine.gradients import ScoreFunction
from ravine.objectives import Relaxed
from ravine.rules import EM, Best, Descend, Guarded, Redrawn
from ravine.rules.watch import BestState
from ravine.train import Source, Stage, TrainState, begin, train
from ravine.verbs import drawn

HELD_OUT_AT_MOST = 10_000


@runtime_checkable
class Recipe(Protocol):
    """What fitting needs to know of a recipe."""

    validation: float
    patience: int
    max_seconds: float | None
    progress: bool | None

    def build(self, schema: Any, *, key: PRNGKeyArray) -> PyTree:
        """The untrained model."""
        ...

    def stages(self, rows: int) -> list[Stage]:
        """The training of so many rows."""
        ...


class Fit(NamedTuple):
    """A finished, or interrupted, training; ``warning`` says what was not finite on the way."""

    state: TrainState
    history: list[dict[str, Any]]
    seconds: float
    complete: bool
    warning: str | None = None


class Plan(NamedTuple):
    """Everything `train` needs."""

    model: PyTree
    stages: list[Stage]
    source: Source
    key: PRNGKeyArray


def plan(recipe: Recipe, schema: Any, source: Source, held_out: Row | None, *, key: PRNGKeyArray) -> Plan:
    """The start of a fit: the untrained model, and the stages wrapped for this data."""
    build_key, run_key = jr.split(key)
    stages = staged(recipe, schema, source.rows, held_out, key)
    return Plan(recipe.build(schema, key=build_key), stages, source, run_key)


def fit(recipe: Recipe, plan: Plan, folder: Path | None = None, resume: bool = False) -> Fit:
    """Train a recipe. Ctrl-C ends the training with what there is: ``complete`` is then False.

    What was not finite on the way is told in a `RobustnessWarning`.

    Raises
    ------
    ValueError
        When nothing finite was learned; the line says why.
    """
    model, stages, source, key = plan
    monitor = Monitor(stages, folder, recipe.progress, recipe.max_seconds, title=type(recipe).__name__)
    state = begin(model, stages, 0, source, key=key)
    if folder is not None:
        state = resumed(state, stages, source, folder, key) if resume else _afresh(state, folder)
        keep_lines_up_to(folder, monitor.done(state))
    started, complete, ledger = time.perf_counter(), True, Ledger(state)
    try:
        for after in monitor.watch(ledger.watch(train(model, stages, source, key=key, state=state))):
            state = after
    except KeyboardInterrupt:
        complete = False
    told = _told(recipe, ledger, state, plan) if complete and monitor.history else None
    if told is not None:
        monitor.history[-1]["warning"] = told
        warnings.warn(told, RobustnessWarning, stacklevel=3)
    return Fit(reached(state), monitor.history, time.perf_counter() - started, complete, told)


def _told(recipe: Recipe, ledger: Ledger, state: TrainState, plan: Plan) -> str | None:
    """What was not finite, with the columns called as the recipe calls them."""
    return verdict(ledger, state, plan.stages, plan.source, getattr(recipe, "schema_", None))


def reached(state: TrainState) -> TrainState:
    """The state with the latest model in it when held-out rows could not judge any: training was cut short."""
    judged = not isinstance(state.rule, BestState) or bool(jnp.isfinite(state.rule.loss))
    return state if judged else eqx.tree_at(lambda s: s.model, state, state.rule.working)


def resumed(state: TrainState, stages: Sequence[Stage], source: Source, folder: Path, key: PRNGKeyArray) -> TrainState:
    """The state that was saved last in this folder; the fresh one when nothing was saved yet."""
    record = checkpoint_record(folder)
    if record is None:
        return _afresh(state, folder)
    over = bool(record.get("over", int(record["stage"]) >= len(stages)))
    done = int(record["stage"]) - over  # the stage whose rule has left its state
    state = load_checkpoint(folder, _entered(state, stages, done, source, key))
    if (key_words(state.key) != key_words(key)).any():
        do = "resume with the random_state that the run was started with"
        raise complaint(f"the checkpoint in {folder}", "one of this random_state", "one of another", do)
    last = len(stages) - 1
    goes_on = over and (done < last or int(state.step) < stages[last].steps)  # it was over, and is wanted longer
    return eqx.tree_at(lambda s: s.stage, state, jnp.asarray(min(done, last))) if goes_on else state


def _afresh(state: TrainState, folder: Path) -> TrainState:
    """The state as it is, after the checkpoint that an earlier run left in the folder was dropped."""
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return state


def _entered(state: TrainState, stages: Sequence[Stage], last: int, source: Source, key: PRNGKeyArray) -> TrainState:
    """The state at the beginning of stage ``last``, had the stages between learned nothing."""
    for i in range(1, min(last + 1, len(stages))):
        state = begin(state.model, stages, i, source, key=key)
    return state


def staged(recipe: Recipe, schema: Any, rows: int, held_out: Row | None, key: PRNGKeyArray) -> list[Stage]:
    """The recipe's stages, each rule guarded, its batches drawn as the schema says, and watched on held-out rows."""
    draw = schema.draw()
    if held_out is not None:
        held_out = padded(drawn(held_out, draw, key))
    return [_staged(recipe, stage, draw, rows, held_out) for stage in recipe.stages(rows)]


def _staged(recipe: Recipe, stage: Stage, draw: AbstractDraw | None, rows: int, held_out: Row | None) -> Stage:
    rule = stage.rule
    objective = rule.objective if isinstance(rule, Descend) else stage.judge
    if not isinstance(rule, EM):
        rule = Guarded(rule)
    if draw is not None:
        rule = Redrawn(draw, rule)
    if objective is not None and held_out is not None:
        every = jnp.asarray(evaluation_period(stage, rows))
        # a moving beta would make the first models the best, and a soft draw flatters
        yardstick = hardened(resolve(objective, jnp.asarray(stage.steps)))
        rule = Best(rule, yardstick, held_out, every, jnp.asarray(recipe.patience))
    return _with_rule(stage, rule)


def hardened(objective: Objective) -> Objective:
    """The objective of the discrete model: every gradient estimator replaced by one whose value is right."""
    soft = lambda node: isinstance(node, AbstractGradient | Relaxed)  # noqa: E731
    return jax.tree.map(lambda node: _hard(node) if soft(node) else node, objective, is_leaf=soft)


def _hard(node: AbstractGradient | Relaxed) -> AbstractGradient | Objective:
    return node.discrete(ScoreFunction()) if isinstance(node, Relaxed) else node.hard()


def _with_rule(stage: Stage, rule: AbstractRule) -> Stage:
    return dataclasses.replace(stage, rule=rule)


def evaluation_period(stage: Stage, rows: int) -> int:
    """Steps between two looks at the held-out rows: one epoch, but at least twenty looks in all."""
    epoch = -(-rows // (stage.batch_size or rows))
    return max(1, min(max(epoch, 100), stage.steps // 20))


def split(rows: int, share: float, key_words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the rows to train on and to hold out; a function of the key. Too few rows are not divided."""
    held = min(int(rows * share), HELD_OUT_AT_MOST)
    if held < 1 or rows - held < 2:
        return np.arange(rows), np.arange(0)
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence([*key_words.tolist(), 1]))).permutation(rows)
    return np.sort(order[held:]), np.sort(order[:held])


def one_pass(
    recipe: Recipe, model: PyTree, schema: AnySchema, source: Source, going: PyTree, *, key: PRNGKeyArray
) -> tuple[PyTree, PyTree]:
    """One ordered pass by the rule of the recipe's last stage; ``going`` is what the previous pass left, or None.

    Returns the model and what the next pass goes on from.
    """
    last = _staged(recipe, recipe.stages(source.rows)[-1], schema.draw(), source.rows, None)
    size = last.batch_size or source.rows
    steps = -(-source.rows // size)
    stage = Stage(last.rule, steps, size, ordered=True)
    state = begin(model, [stage], 0, source, key=key)
    if going is not None:
        rule, done = going
        stage = Stage(last.rule, done + steps, size, ordered=True)
        state = TrainState(state.stage, jnp.asarray(done), state.model, rule, state.key)
    done = int(state.step)
    *_, chunk = train(model, [stage], source, key=key, state=state)
    return chunk.state.model, (chunk.state.rule, done + steps)


def started(recipe: Recipe, schema: AnySchema, source: Source, *, key: PRNGKeyArray) -> PyTree:
    """The model from which the recipe's last stage starts to learn, when there was no training before."""
    model, stages, source, key = plan(recipe, schema, source, None, key=key)
    state = begin(model, stages, 0, source, key=key)
    return _entered(state, stages, len(stages) - 1, source, key).model


def blank(recipe: Recipe, schema: Any, key: PRNGKeyArray) -> PyTree:
    """The shapes of the recipe's model, without computing any of it: what a file of arrays is read into."""
    return eqx.filter_eval_shape(lambda key: as_arrays(recipe.build(schema, key=key)), key)


def emptied(model: PyTree) -> list[np.ndarray]:
    """The arrays of a model, for a pickle: those of JAX would lose digits where they are read in another precision."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))]


def filled(like: PyTree, arrays: Sequence[np.ndarray]) -> PyTree:
    """The inverse of `emptied`, for a model that is `blank`."""
    shapes, rest = eqx.partition(like, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct) or eqx.is_array(leaf))
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(shapes), [jnp.asarray(leaf) for leaf in arrays]), rest)
