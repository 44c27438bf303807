"""The one loop. It scans a rule over batches, a chunk of steps at a time, and hands every chunk to the caller."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, Key, PRNGKeyArray, PyTree

from ravine._jax import key_words, spread_rows
from ravine._tree import as_arrays, stacked, strong, unstacked
from ravine.core import AbstractRule, Metrics, Objective, Row, rows_in, weights

Prepare = Callable[..., PyTree]


@runtime_checkable
class Source(Protocol):
    """Where rows come from: an array in memory, or a file too large for it."""

    rows: int

    def block(self, positions: np.ndarray) -> tuple[Row, np.ndarray]:
        """A Row that holds at least the rows named, and the places of those rows within it."""
        ...

    def all(self) -> Row:
        """Every row, in order, with weights; rows of weight 0 are no rows."""
        ...


class Stage(eqx.Module):
    """One phase of training: a rule, for so many steps, on batches of so many rows.

    ``batch_size=None`` gives the rule all rows at once, in order. With ``ordered`` the batches follow the data and
    the last of a pass is padded with rows of weight 0; otherwise every epoch has its own permutation and a batch
    may span two epochs. ``prepare(model, source, key=key)`` may replace the model before the first step.
    ``judge`` is the objective that held-out rows are judged by where the rule has none of its own; None keeps the last
    model.
    """

    rule: AbstractRule
    steps: int = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True, default=None)
    ordered: bool = eqx.field(static=True, default=False)
    prepare: Prepare | None = eqx.field(static=True, default=None)
    judge: Objective | None = None


class TrainState(eqx.Module):
    """All that a run is: save it, and it can go on to the bit. ``stage`` equals the number of stages at the end."""

    stage: Int[Array, ""]
    step: Int[Array, ""]
    model: PyTree
    rule: PyTree
    key: PRNGKeyArray


class Chunk(NamedTuple):
    """What the loop hands over: the state after a chunk, each metric at each of its steps, and how long it took."""

    state: TrainState
    metrics: dict[str, np.ndarray]
    seconds: float


def train(
    model: PyTree,
    stages: Sequence[Stage],
    source: Source,
    *,
    key: PRNGKeyArray,
    chunk: int = 1000,
    seconds: float = 1.0,
    state: TrainState | None = None,
) -> Iterator[Chunk]:
    """Run the stages; yield after every chunk of at most ``chunk`` steps or about ``seconds`` seconds.

    Logging, saving and giving up are the caller's ``for``. Pass ``state`` to go on from where a run was: then
    ``model`` is ignored. Neither the chunk size nor an interruption changes a single bit of the result.

    Examples
    --------
    >>> from ravine.data import ArraySource
    >>> from ravine.rules import Descend
    >>> class Square(eqx.Module):
    ...     def __call__(self, model, batch, *, key):
    ...         return jnp.mean((model[None] - batch.x) ** 2), {}
    >>> data = ArraySource(Row(jnp.ones((8, 1))))
    >>> *_, last = train(jnp.zeros(1), [Stage(Descend(Square()), 50, batch_size=4)], data, key=jr.key(0))
    >>> bool(last.state.model[0] > 0.04)
    True
    """
    now = begin(model, stages, 0, source, key=key) if state is None else state
    while int(now.stage) < len(stages):
        i = int(now.stage)
        if int(now.step) >= stages[i].steps:  # a longer run was interrupted, and is resumed as a shorter one
            now = _onwards(now, stages, source)
            yield Chunk(now, {}, 0.0)
            continue
        for chunk_done in _run_stage(now, stages[i], source, chunk, seconds):
            now = chunk_done.state
            over = int(now.step) >= stages[i].steps or bool(chunk_done.metrics.get("stopped", np.zeros(1))[-1])
            now = _onwards(now, stages, source) if over else now
            yield chunk_done._replace(state=now)
            if over:
                break


def _onwards(state: TrainState, stages: Sequence[Stage], source: Source) -> TrainState:
    """The beginning of the next stage; after the last one the state itself, marked as the end."""
    i = int(state.stage) + 1
    if i < len(stages):
        return begin(state.model, stages, i, source, key=state.key)
    return eqx.tree_at(lambda s: s.stage, state, jnp.asarray(i))


def begin(model: PyTree, stages: Sequence[Stage], i: int, source: Source, *, key: PRNGKeyArray) -> TrainState:
    """The state before the first step of stage ``i``."""
    stage, (prepare_key, init_key, run_key) = stages[i], stage_keys(key, i)
    if stage.prepare is not None:
        model = stage.prepare(model, source, key=prepare_key)
    model = strong(as_arrays(model))
    rule = strong(_init(as_arrays(stage.rule), model, batch_at(stage, source, run_key, 0), init_key))
    return TrainState(jnp.asarray(i), jnp.asarray(0), model, rule, key)


def stage_keys(key: PRNGKeyArray, i: int) -> tuple[PRNGKeyArray, ...]:
    """The keys with which stage ``i`` of a run prepares, sets up its rule, and makes its steps."""
    return tuple(jr.split(jr.fold_in(key, i), 3))


def batch_at(stage: Stage, source: Source, key: PRNGKeyArray, step: int) -> Row:
    """The rows that a step sees; ``key`` is the last of `stage_keys`."""
    if stage.batch_size is None:
        return source.all()
    rows, places = source.block(positions(stage, source.rows, key, step, 1))
    return _take(rows, jnp.asarray(places[0]), stage.ordered)


def _run_stage(state: TrainState, stage: Stage, source: Source, chunk: int, seconds: float) -> Iterator[Chunk]:
    rule, key, pace = as_arrays(stage.rule), stage_keys(state.key, int(state.stage))[2], _Pace(chunk, seconds)
    step = int(state.step)
    while step < stage.steps:
        count = min(pace.steps, stage.steps - step)
        rows, places = _wanted(stage, source, key, step, count, chunk)
        started = time.perf_counter()
        start, span = (state.model, state.rule), (jnp.asarray(step), jnp.asarray(count), chunk)
        model, inner, metrics = _advance(rule, start, rows, places, key, span, stage.ordered)
        metrics = {name: np.asarray(values)[:count] for name, values in metrics.items()}
        pace.took(count, time.perf_counter() - started)
        step += count
        state = TrainState(state.stage, jnp.asarray(step), model, inner, state.key)
        yield Chunk(state, metrics, time.perf_counter() - started)


def _wanted(
    stage: Stage, source: Source, key: PRNGKeyArray, step: int, count: int, chunk: int
) -> tuple[Row, np.ndarray | None]:
    if stage.batch_size is None:
        return source.all(), None
    rows, places = source.block(positions(stage, source.rows, key, step, count))
    return rows, np.concatenate([places, np.zeros((chunk - count, *places.shape[1:]), places.dtype)])


class _Pace:
    """How many steps to run before looking up again."""

    def __init__(self, most: int, seconds: float):
        self.most, self.seconds, self.steps, self.compiled = most, seconds, min(most, 10), False

    def took(self, steps: int, seconds: float) -> None:
        if self.compiled:  # the first chunk's time is mostly compilation and says nothing
            self.steps = int(np.clip(self.seconds * steps / max(seconds, 1e-6), 1, self.most))
        self.compiled = True


@eqx.filter_jit
def _init(rule: AbstractRule, model: PyTree, batch: Row, key: PRNGKeyArray) -> PyTree:
    return rule.init(model, batch, key=key)


def _loop(
    rule: AbstractRule,
    start: tuple[PyTree, PyTree],
    rows: Row,
    places: Int[Array | np.ndarray, "steps batch"] | None,
    key: PRNGKeyArray,
    span: tuple[Int[Array, ""], Int[Array, ""], int],
    ordered: bool,
) -> tuple[PyTree, PyTree, Metrics]:
    """The steps from ``first``, ``count`` of them, in one compiled loop.

    ``chunk`` bounds it, so that a shorter chunk compiles nothing new: ``span`` is the three of them.
    """
    first, count, chunk = span
    arrays, static = eqx.partition(start, eqx.is_array)

    def one(i: Int[Array, ""], arrays: PyTree) -> tuple[PyTree, Metrics]:
        model, state = eqx.combine(arrays, static)
        batch = rows if places is None else _take(rows, jnp.asarray(places)[i], ordered)
        step = first + i
        model, state, metrics = rule.step(model, state, batch, key=jr.fold_in(key, step), step=step)
        return eqx.filter((model, state), eqx.is_array), metrics

    shapes = jax.eval_shape(one, jnp.asarray(0), arrays)[1]
    history = jax.tree.map(lambda m: jnp.zeros((chunk, *m.shape), m.dtype), shapes)

    def body(i: Int[Array, ""], carry: tuple[PyTree, Metrics]) -> tuple[PyTree, Metrics]:
        arrays, metrics = one(i, carry[0])
        return arrays, jax.tree.map(lambda past, now: past.at[i].set(now), carry[1], metrics)

    arrays, history = jax.lax.fori_loop(0, count, body, (arrays, history))
    return *eqx.combine(arrays, static), history


_advance = eqx.filter_jit(_loop)


@eqx.filter_jit
def _advance_together(
    rules: AbstractRule,
    common: AbstractRule,
    starts: tuple[PyTree, PyTree],
    rows: Row,
    places: Int[Array | np.ndarray, "seeds steps batch"] | None,
    keys: Key[Array, " seeds"],
    *rest: Any,
) -> tuple[PyTree, PyTree, Metrics]:
    """`_loop` for several runs at once: every array of ``rules`` and ``starts`` has a leading axis of runs.

    What the runs have in ``common``, such as when to look at held-out rows, has no such axis: a `jax.lax.cond` on a
    batched flag would compute both branches.
    """
    each = eqx.if_array(0)
    axes = (each, each, None, None if places is None else 0, 0, *(None for _ in rest))
    one = lambda rule, *run: _loop(eqx.combine(rule, common), *run)  # noqa: E731
    return eqx.filter_vmap(one, in_axes=axes)(rules, starts, rows, places, keys, *rest)


def _take(rows: Row, places: Int[Array, " batch"], ordered: bool) -> Row:
    batch = jax.tree.map(lambda leaf: leaf[jnp.maximum(places, 0)], rows)
    if ordered:
        leaf = jax.tree.leaves(batch.x)[0]
        weight = jnp.ones(places.shape, leaf.dtype) if batch.weight is None else batch.weight
        batch = eqx.tree_at(lambda b: b.weight, batch, jnp.where(places < 0, 0, weight), is_leaf=lambda n: n is None)
    return spread_rows(batch, places.shape[0])


def positions(stage: Stage, rows: int, key: PRNGKeyArray, start: int, count: int) -> np.ndarray:
    """Which rows steps ``start`` to ``start + count`` see, shape (count, batch_size); -1 is padding."""
    batch = stage.batch_size
    assert batch is not None
    if stage.ordered:
        passes = -(-rows // batch)
        places = (np.arange(start, start + count) % passes)[:, None] * batch + np.arange(batch)
        return np.where(places < rows, places, -1).astype(np.int32)
    first, last = start * batch, (start + count) * batch
    epochs = range(first // rows, (last - 1) // rows + 1)
    words = tuple(int(w) for w in key_words(key).ravel())
    stream = np.concatenate([permutation(words, epoch, rows) for epoch in epochs])
    offset = first - epochs[0] * rows
    return stream[offset : offset + count * batch].reshape(count, batch)


@functools.lru_cache(maxsize=4)
def permutation(words: tuple[int, ...], epoch: int, rows: int) -> np.ndarray:
    """The order of the rows in one epoch: a function of the key and the epoch alone."""
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence((*words, epoch)))).permutation(rows)
    return order.astype(np.int32 if rows < 2**31 else np.int64)


class Subset:
    """Some rows of a source, by their places; what a validation split leaves to train on."""

    def __init__(self, source: Source, places: np.ndarray):
        self.source, self.places, self.rows = source, places, len(places)

    def block(self, positions: np.ndarray) -> tuple[Row, np.ndarray]:
        """The rows named, where position 0 is the first of the subset."""
        return self.source.block(np.where(positions < 0, -1, self.places[np.maximum(positions, 0)]))

    def all(self) -> Row:
        """Every row of the source; those outside the subset have weight 0."""
        rows = self.source.all()
        inside = jnp.zeros(rows_in(rows), bool).at[self.places].set(True)
        return eqx.tree_at(lambda r: r.weight, rows, jnp.where(inside, weights(rows), 0))


def train_together(
    models: Sequence[PyTree],
    stages: Sequence[Sequence[Stage]],
    sources: Sequence[Source],
    *,
    keys: Sequence[PRNGKeyArray],
    chunk: int = 1000,
    seconds: float = 1.0,
) -> list[TrainState]:
    """Several runs of one recipe, each equal to its own `train` up to rounding (relative 1e-5).

    The runs share shapes and differ in keys, held-out rows and starting points; ``sources`` draw from the same rows.
    A few steps are timed with the runs side by side in one program (`jax.vmap`) and one after another; the faster
    way does the rest: side by side halves the cost of small networks and can double that of wide ones.
    """
    states: list[TrainState] = []
    for i in range(len(stages[0])):
        begun = zip(models if i == 0 else [s.model for s in states], stages, sources, keys, strict=True)
        states = [begin(model, own, i, source, key=key) for model, own, source, key in begun]
        states = _run_together(states, [own[i] for own in stages], sources, chunk, seconds)
    return [eqx.tree_at(lambda s: s.stage, state, jnp.asarray(len(stages[0]))) for state in states]


def _run_together(
    states: list[TrainState], stages: Sequence[Stage], sources: Sequence[Source], chunk: int, seconds: float
) -> list[TrainState]:
    step, pace = 0, _Pace(chunk, seconds)
    ways = [_side_by_side, _one_after_another] if _one_table(stages[0], sources) else [_one_after_another]
    while step < stages[0].steps:
        count = min(pace.steps, stages[0].steps - step)
        times, after, stopped = [], states, False
        for way in ways:
            if len(ways) > 1:
                jax.block_until_ready(way(states, stages, sources, step, count, chunk))  # compile before timing
            started = time.perf_counter()
            after, stopped = jax.block_until_ready(way(states, stages, sources, step, count, chunk))
            times.append(time.perf_counter() - started)
        ways = [ways[int(np.argmin(times))]]
        pace.took(count, min(times))
        states, step = after, step + count
        if stopped:
            break
    return states


def _one_table(stage: Stage, sources: Sequence[Source]) -> bool:
    """True when every run takes its batches out of the same rows; false for a file that each reads in its own order."""
    if stage.batch_size is None:
        tables = [source.all() for source in sources]
    else:
        tables = [source.block(np.zeros((1, 1), np.int32))[0] for source in sources]
        if any(rows_in(table) < source.rows for table, source in zip(tables, sources, strict=True)):
            return False
    return jax.tree.all(jax.tree.map(lambda *leaves: all(bool(jnp.all(b == leaves[0])) for b in leaves), *tables))


def _one_after_another(
    states: list[TrainState], stages: Sequence[Stage], sources: Sequence[Source], step: int, count: int, chunk: int
) -> tuple[list[TrainState], bool]:
    after, stopped = [], []
    for state, stage, source in zip(states, stages, sources, strict=True):
        key = stage_keys(state.key, int(state.stage))[2]
        rows, places = _wanted(stage, source, key, step, count, chunk)
        start, span = (state.model, state.rule), (jnp.asarray(step), jnp.asarray(count), chunk)
        model, rule, metrics = _advance(as_arrays(stage.rule), start, rows, places, key, span, stage.ordered)
        after.append(TrainState(state.stage, jnp.asarray(step + count), model, rule, state.key))
        stopped.append(_has_stopped(metrics, count))
    return after, all(stopped)


def _side_by_side(
    states: list[TrainState], stages: Sequence[Stage], sources: Sequence[Source], step: int, count: int, chunk: int
) -> tuple[list[TrainState], bool]:
    keys = [stage_keys(state.key, int(state.stage))[2] for state in states]
    wanted = [_wanted(s, src, k, step, count, chunk) for s, src, k in zip(stages, sources, keys, strict=True)]
    places = None if wanted[0][1] is None else np.stack([places for _, places in wanted if places is not None])
    rules, common = _stacked_rules([as_arrays(s.rule) for s in stages])
    starts = stacked([(s.model, s.rule) for s in states])
    rest = (jnp.asarray(step), jnp.asarray(count), chunk), stages[0].ordered
    model, rule, metrics = _advance_together(rules, common, starts, wanted[0][0], places, jnp.stack(keys), *rest)
    models, inner, n = unstacked(model, len(states)), unstacked(rule, len(states)), jnp.asarray(step + count)
    after = [TrainState(s.stage, n, m, r, s.key) for s, m, r in zip(states, models, inner, strict=True)]
    return after, all(_has_stopped(m, count) for m in unstacked(metrics, len(states)))


def _has_stopped(metrics: Metrics, count: int) -> bool:
    return "stopped" in metrics and bool(metrics["stopped"][count - 1])


def _stacked_rules(rules: Sequence[AbstractRule]) -> tuple[AbstractRule, AbstractRule]:
    """The rules `stacked`, without the scalars in which they agree; and those scalars."""
    arrays, static = eqx.partition(list(rules), eqx.is_array)
    agree = jax.tree.map(lambda *leaves: leaves[0].ndim == 0 and all(bool(b == leaves[0]) for b in leaves), *arrays)
    own = [eqx.filter(tree, agree, inverse=True) for tree in arrays]
    return eqx.combine(stacked(own), static[0]), eqx.filter(arrays[0], agree)
