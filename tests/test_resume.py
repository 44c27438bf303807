"""Around the loop: runs that are killed, interrupted and taken up again; what is logged, shown and kept."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import training
from jaxtyping import Array
from training import ADAM, RUNS, STEP, Counted, Distance, Halves, Run, halves, linear, one, same, schema, source

from ravine import _monitor, fitting
from ravine._monitor import Monitor
from ravine._tree import Linear, Power
from ravine.checkpoint import CHECKPOINT, checkpoint_record
from ravine.core import Row
from ravine.data import ArraySource
from ravine.fitting import Fit, Plan, evaluation_period, one_pass, split, staged, started
from ravine.gradients import Pathwise
from ravine.objectives import ELBO
from ravine.recipes.factor_analysis import FactorAnalysis
from ravine.recipes.vae import VAE
from ravine.rules import EM, Best, Descend, Guarded, Redrawn
from ravine.train import Chunk, Stage, TrainState, train

CHUNK = 5
TINY: dict[str, Any] = {"latents": 2, "hidden": (4,), "steps": 60, "batch_size": 16, "random_state": 3}


# one of the runs has steps that are not finite, and says so
pytestmark = pytest.mark.filterwarnings("ignore:.* undone and retried smaller:ravine.blame.RobustnessWarning")


@pytest.fixture
def often(monkeypatch):
    """Short chunks, and a checkpoint after each."""
    monkeypatch.setattr(fitting, "train", functools.partial(train, chunk=CHUNK))
    monkeypatch.setattr(_monitor, "CHECKPOINT_SECONDS", -1.0)


@dataclass
class Wishes:
    """What a recipe says about fitting, and a run in the place of the rest."""

    run: Run
    validation: float = 0.0
    patience: int = 10
    max_seconds: float | None = None
    progress: bool | None = None

    def build(self, schema: Any, *, key: Array) -> Any:
        return self.run.model()

    def stages(self, rows: int) -> list[Stage]:
        return self.run.stages()


def fit(
    run: Run, folder: Path | None = None, resume: bool = False, data: Any = None, seed: int = 0, **wishes: Any
) -> Fit:
    plan = Plan(run.model(), run.stages(), data or source(), jr.key(seed))
    return fitting.fit(Wishes(run, **wishes), plan, folder, resume)


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The log, which must be strict JSON, line by line."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def refuse(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def check_lines(folder: Path, steps: int) -> None:
    """One line a chunk, from the first step to the last, none twice."""
    done = [0, *(line["done"] for line in read_lines(folder))]
    assert done[-1] == steps
    assert all(0 < step <= CHUNK for step in np.diff(done))


# Killed.


@pytest.fixture
def moments(monkeypatch, tmp_path):
    """What a run leaves in its folder when it is killed before or after any of its checkpoints."""
    save, found = _monitor.save_checkpoint, []

    def kept(folder: Path) -> None:
        found.append(tmp_path / f"moment-{len(found)}")
        shutil.copytree(folder, found[-1])

    def watched(folder: Path, *rest: Any) -> None:
        kept(folder)
        save(folder, *rest)
        kept(folder)

    monkeypatch.setattr(_monitor, "save_checkpoint", watched)
    yield found
    monkeypatch.setattr(_monitor, "save_checkpoint", save)


@pytest.mark.parametrize(
    "name",
    [
        "nested",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("guarded", "em-in-batches", "two-stages")),
        "then-em",
    ],
)
def test_a_run_killed_at_any_moment_ends_at_the_same_bits(name, often, moments, tmp_path):
    run = RUNS[name]
    steps = sum(stage.steps for stage in run.stages())
    whole = fit(run, tmp_path / "whole")
    check_lines(tmp_path / "whole", steps)
    left = list(moments)
    assert len(left) >= 2 * (steps // CHUNK)
    for folder in left:
        again = fit(run, folder, resume=True)
        assert same(again.state, whole.state) and again.complete
        check_lines(folder, steps)


def test_half_a_line_is_dropped(often, tmp_path):
    """A kill may leave a line unfinished, and lines that no checkpoint knows of."""
    run = one(lambda: STEP, 12)
    whole = fit(run, tmp_path)
    for text in ('{"stage": 0, "step": 99, "done": 99}\n', '{"stage": 1, "st'):
        shutil.copytree(tmp_path, folder := tmp_path.parent / f"{tmp_path.name}-{len(text)}")
        with (folder / "metrics.jsonl").open("a") as log:
            log.write(text)
        assert same(fit(run, folder, resume=True).state, whole.state)
        lines = read_lines(folder)
        assert [line["done"] for line in lines] == [5, 10, 12] or text.startswith('{"stage": 0')


CHILD = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background of a shell ignores it
sys.path.insert(0, {tests!r})
import functools, training
from ravine import _monitor, fitting
from ravine.recipes.vae import VAE

fitting.train = functools.partial(fitting.train, chunk={chunk})
_monitor.CHECKPOINT_SECONDS = -1.0
save = _monitor.save_checkpoint

def told(*arguments):
    save(*arguments)
    print("saved", flush=True)
    time.sleep(0.2)

_monitor.save_checkpoint = told
model = VAE(**{fields!r}).fit(training.table(120), folder={folder!r}, resume=True)
print("over", model.complete_, model.history_[-1]["done"], hasattr(model, "model_"), flush=True)
"""


def child(folder: Path, cache: Path) -> subprocess.Popen:
    script = CHILD.format(tests=str(Path(__file__).parent), chunk=CHUNK, fields=TINY, folder=str(folder))
    kept = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-W", "error", "-c", script]
    return subprocess.Popen(
        command,
        env=os.environ | kept,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen, checkpoints: int) -> None:
    for _ in range(checkpoints):
        assert process.stdout is not None and process.stdout.readline() == "saved\n", process.communicate()


@pytest.mark.slow  # a shorter one of the command is in test_cli.py
def test_killed_then_interrupted_then_finished(often, tmp_path):
    """Three processes do what one would have done: kill -9, Ctrl-C, and the end, through the estimator."""
    folder, cache = tmp_path / "run", tmp_path / "cache"
    with child(folder, cache) as first:
        wait_for(first, 3)
        first.kill()
    assert first.returncode == -signal.SIGKILL
    killed = checkpoint_record(folder)
    assert killed is not None and 15 <= killed["step"] < 40

    second = child(folder, cache)
    wait_for(second, 2)
    second.send_signal(signal.SIGINT)
    out, err = second.communicate(timeout=60)
    interrupted = checkpoint_record(folder)
    assert (second.returncode, err) == (0, "")
    assert interrupted is not None and killed["step"] + 10 <= interrupted["step"] < 60
    assert out.splitlines()[-1] == f"over False {interrupted['step']} True"

    x, fields = training.table(120), TINY
    third = VAE(**fields).fit(x, folder=folder, resume=True)
    alone = VAE(**fields).fit(x)
    assert third.complete_ and same(third.model_, alone.model_)
    assert third.history_[-1]["done"] == alone.history_[-1]["done"] == 60
    check_lines(folder, 60)


# Interrupted.


class Interrupted(ArraySource):
    """Rows for some chunks; then Ctrl-C."""

    chunks = 3

    def block(self, positions: np.ndarray) -> Any:
        self.chunks -= 1
        if self.chunks < 0:
            raise KeyboardInterrupt
        return super().block(positions)


def interrupted(chunks: int = 3) -> Interrupted:
    data = Interrupted(training.rows(training.table(), schema(), dtype=training.default()))
    data.chunks = chunks  # the first block is for the rule's state
    return data


@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_an_interrupt_keeps_what_was_learned(chunks, often, tmp_path, capfd):
    run = RUNS["guarded"]
    cut = fit(run, tmp_path, data=interrupted(chunks))
    assert not cut.complete and int(cut.state.step) == CHUNK * (chunks - 1)
    assert (tmp_path / CHECKPOINT).exists() == (chunks > 1)
    assert same(cut.state.model, halves()) == (chunks == 1)
    assert same(fit(run, tmp_path, resume=True).state, fit(run).state)
    check_lines(tmp_path, 33)
    assert capfd.readouterr() == ("", "")


# Folders that were used before.


def test_a_finished_run_is_not_trained_again(often, tmp_path):
    run = one(lambda: STEP, 12)
    whole, lines = fit(run, tmp_path), read_lines(tmp_path)
    again = fit(run, tmp_path, resume=True)
    assert same(again.state, whole.state) and again.history == [] and again.complete
    assert read_lines(tmp_path) == lines


def test_a_new_run_forgets_the_old_one(often, tmp_path):
    run = one(lambda: STEP, 12)
    fit(run, tmp_path, seed=1)
    fit(run, tmp_path, data=interrupted(1))
    assert not (tmp_path / CHECKPOINT).exists() and (tmp_path / "metrics.jsonl").read_text() == ""
    assert same(fit(run, tmp_path, resume=True).state, fit(run).state)


def test_lines_without_a_checkpoint_are_forgotten(often, tmp_path):
    run = one(lambda: STEP, 12)
    fit(run, tmp_path)
    (tmp_path / CHECKPOINT).unlink()
    fit(run, tmp_path, resume=True)
    check_lines(tmp_path, 12)


def test_another_seed_is_refused(often, tmp_path):
    run = one(lambda: STEP, 12)
    fit(run, tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(ValueError, match="random_state"):
        fit(run, tmp_path, resume=True, seed=1)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_another_model_is_refused(often, tmp_path):
    fit(one(lambda: STEP, 12), tmp_path)
    with pytest.raises(ValueError, match="expected"):
        fit(one(lambda: Descend(Distance()), 12, prepare=training.Together()), tmp_path, resume=True)


@pytest.mark.parametrize("steps", [3, 10, 40])
def test_a_run_may_be_taken_up_with_other_numbers_of_steps(steps, often, tmp_path):
    fit(one(lambda: STEP, 20), tmp_path, data=interrupted())
    got = fit(one(lambda: STEP, steps), tmp_path, resume=True)
    assert int(got.state.step) == max(steps, 10) and int(got.state.stage) == 1
    assert same(got.state.model, fit(one(lambda: STEP, max(steps, 10))).state.model)


# Time, patience, and what is shown.


def test_time_is_limited():
    began = time.monotonic()
    got = fit(one(lambda: STEP, 100_000_000), max_seconds=0.2)
    assert got.complete and 0 < int(got.state.step) < 100_000_000
    assert 0.2 <= got.seconds <= time.monotonic() - began < 60


def test_patience_ends_a_run():
    got = fit(RUNS["best-stops"])
    assert got.history[-1]["stopped"] and got.complete and int(got.state.stage) == 1
    assert int(got.state.rule.waited) >= 2 and int(got.state.step) < 60


def test_em_ends_a_run():
    got = fit(Run(linear, lambda: [Stage(EM(1e-5), 500)]))
    assert got.history[-1]["stopped"] and not got.history[0]["stopped"]
    rises = [line["objective"] for line in got.history]
    assert rises == sorted(rises) and int(got.state.step) < 500


@pytest.mark.slow
def test_history_says_where_a_run_is(often):
    got = fit(RUNS["two-stages"], patience=99)
    assert [line["done"] for line in got.history] == [5, 10, 15, 20, 25, 30, 33]
    assert [(line["stage"], line["step"]) for line in got.history][2:5] == [(0, 15), (1, 0), (1, 5)]
    assert (got.history[-1]["stage"], got.history[-1]["step"]) == (2, 13)
    seconds = [line["seconds"] for line in got.history]
    assert seconds == sorted(seconds) and seconds[-1] <= got.seconds + 1e-3
    assert {"loss", "gradient_norm", "distance", "held_out", "stopped"} < set(got.history[0])
    assert all(type(value) in (int, float, bool, type(None)) for line in got.history for value in line.values())


@pytest.mark.parametrize(
    ("progress", "terminal", "shown"), [(None, False, 0), (None, True, 1), (False, True, 0), (True, False, 1)]
)
def test_a_bar_on_terminals_or_when_asked(progress, terminal, shown, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    fit(one(lambda: STEP, 12), progress=progress)
    out, err = capsys.readouterr()
    assert out == "" and (("Wishes" in err and "12/12" in err) if shown else err == "")


class Hopeless(eqx.Module):
    """Never a number."""

    def __call__(self, model: Halves, batch: Row, *, key: Array) -> tuple[Array, dict[str, Array]]:
        return jnp.nan * jnp.sum(model.p), {"elbo": jnp.array(jnp.inf)}


def test_a_log_without_numbers_is_still_json(often, tmp_path):
    with pytest.raises(ValueError, match="expected a finite step, got none in 12: a non-finite loss whatever the rows"):
        fit(one(lambda: Guarded(Descend(Hopeless(), ADAM)), 12), tmp_path)
    for line in read_lines(tmp_path):
        assert line["loss"] is None and line["elbo"] is None and line["undone"] == line["done"]


def test_lines_sum_up_a_chunk(tmp_path):
    """Large numbers do not overflow, what is not finite is left out of a mean, flags and counts are the last."""
    metrics = {
        "loss": np.array([3e38, 3e38, 3e38, np.nan], np.float32),
        "cells": np.array([[1, 3], [5, np.inf]], np.float32),
        "held_out": np.array([np.inf, 2.0], np.float32),
        "undone": np.array([1, 2], np.int32),
        "stopped": np.array([False, True]),
    }
    state = TrainState(jnp.array(0), jnp.array(4), halves(), (), jr.key(0))
    monitor = Monitor([Stage(STEP, 4, 2)], tmp_path)
    list(monitor.watch(iter([Chunk(state, metrics, 0.1)])))
    (line,) = read_lines(tmp_path)
    assert line == monitor.history[0]
    assert {name: line[name] for name in metrics} == {
        "loss": pytest.approx(3e38), "cells": 3.0, "held_out": 2.0, "undone": 2.0, "stopped": True
    }  # fmt: skip


# From a recipe to stages.


def test_stages_are_guarded_drawn_and_watched(key):
    x = (training.table(200) * 5).round()
    recipe = VAE(**TINY | {"objective": ELBO(Pathwise(), Linear(0.0, 1.0, 100.0))})
    sees = training.Schema.infer(x, dequantise="uniform", kind="real")
    rows = training.rows(x[:9], sees, dtype=training.default())
    (stage,) = staged(recipe, sees, 200, rows, key)
    rule = stage.rule
    assert isinstance(rule, Best) and isinstance(rule.rule, Redrawn) and isinstance(rule.rule.rule, Guarded)
    assert int(rule.patience) == recipe.patience and int(rule.every) == evaluation_period(stage, 200)
    assert np.isclose(rule.objective.beta, 0.6), "two looks must differ by the model alone"
    assert float(jnp.sum(rule.held_out.weight)) == 9
    (alone,) = staged(recipe, sees, 200, None, key)
    assert isinstance(alone.rule, Redrawn) and isinstance(alone.rule.rule, Guarded)


def test_a_warm_up_does_not_make_the_first_model_the_best(key):
    """With a factor that grows from 0 the loss of any model grows; the last of them is still the best."""
    run = one(
        lambda: Descend(Distance(Linear(0.0, 1.0, 60.0), 0.0), training.Optimiser(training.optax.sgd, (0.02,))), 60
    )
    held = training.held_out()
    stages = staged(Wishes(run, patience=5), schema(), training.ROWS, held, key)
    end = fit(Run(halves, lambda: stages))
    assert end.state.rule.waited <= 2 and int(end.state.step) == 60


@pytest.mark.parametrize(
    ("steps", "batch", "rows", "period"),
    [(10, 4, 8, 1), (60, 16, 100, 3), (10_000, 100, 60_000, 500), (10_000, 100, 900, 100)],
)
def test_looks_at_held_out_rows(steps, batch, rows, period):
    assert evaluation_period(Stage(STEP, steps, batch), rows) == period


def test_split():
    words = np.array([3, 4], np.uint32)
    kept, held = split(100, 0.1, words)
    assert len(held) == 10 and np.array_equal(np.sort([*kept, *held]), np.arange(100))
    assert np.array_equal(held, split(100, 0.1, words)[1]) and not np.array_equal(held, split(100, 0.1, words + 1)[1])
    assert len(split(10**6, 0.1, words)[1]) == fitting.HELD_OUT_AT_MOST
    assert [len(split(rows, 0.5, words)[1]) for rows in (1, 2, 3, 4)] == [0, 0, 1, 2]


def test_one_pass_sees_each_row_once_and_goes_on():
    recipe = Wishes(Run(halves, lambda: [Stage(STEP, 9, 4), Stage(Counted(), 9, 4)]))
    model, going = jnp.zeros(training.ROWS), None
    for count in (23, 5, 23, 1):
        data = ArraySource(jax.tree.map(lambda leaf, n=count: leaf[:n], training.rows(
            training.table(), schema(), dtype=training.default()
        )))  # fmt: skip
        before, (model, going) = model, one_pass(recipe, model, schema(), data, going, key=jr.key(0))
        assert np.array_equal(model - before, np.arange(training.ROWS) < count)
    assert going[1] == 6 + 2 + 6 + 1


@pytest.mark.slow
def test_a_first_pass_starts_where_a_fit_starts(x64):
    """Not from the blank model, where all causes are equal and EM stays for ever."""
    recipe = FactorAnalysis(latents=1, rate=Power(-0.6), batch_size=8)
    begun = started(recipe, schema(), source(), key=jr.key(0))
    assert np.all(begun.loading != 0)
    model, _ = one_pass(recipe, begun, schema(), source(), None, key=jr.key(0))
    assert np.isfinite(model.loading).all() and np.all(model.loading != 0)
