"""What happens around the loop: the progress bar, the log of metrics, checkpoints, a limit of time."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ravine._files import write_bytes
from ravine.checkpoint import save_checkpoint
from ravine.train import Chunk, Stage, TrainState

CHECKPOINT_SECONDS = 10.0


@dataclass
class Monitor:
    """Watches a run. ``folder`` receives ``metrics.jsonl`` and ``checkpoint/state.safetensors``; None keeps nothing."""

    stages: Sequence[Stage]
    folder: Path | None = None
    progress: bool | None = None
    max_seconds: float | None = None
    title: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)

    def watch(self, chunks: Iterator[Chunk]) -> Iterator[TrainState]:
        """Pass the states through; stop when time is up. The last state is saved whatever ends the loop."""
        started = saved = time.monotonic()
        state = None
        with self._bar() as advance, self._log() as log:
            try:
                for chunk in chunks:
                    state, now = chunk.state, time.monotonic()
                    line = self._line(chunk, now - started)
                    self.history.append(line)
                    log(line)
                    advance(line)
                    if now - saved > CHECKPOINT_SECONDS:
                        self._save(state)
                        saved = now
                    yield state
                    if self.max_seconds is not None and now - started >= self.max_seconds:
                        break
            finally:
                self._save(state)

    def done(self, state: TrainState) -> int:
        """Steps made so far, over all stages."""
        return int(state.step) + sum(s.steps for s in self.stages[: min(int(state.stage), len(self.stages) - 1)])

    def total(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def _line(self, chunk: Chunk, seconds: float) -> dict[str, Any]:
        stage, step = int(chunk.state.stage), int(chunk.state.step)
        means = {name: _last_or_mean(name, values) for name, values in chunk.metrics.items()}
        return {"stage": stage, "step": step, "done": self.done(chunk.state), "seconds": round(seconds, 3), **means}

    def _save(self, state: TrainState | None) -> None:
        if self.folder is not None and state is not None:
            over = int(state.stage) >= len(self.stages)
            save_checkpoint(self.folder, state, {"stage": int(state.stage), "step": int(state.step), "over": over})

    @contextlib.contextmanager
    def _log(self):
        if self.folder is None:
            yield lambda line: None
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as out:
            yield lambda line: (out.write(json.dumps(line) + "\n"), out.flush())

    @contextlib.contextmanager
    def _bar(self):
        wanted = sys.stderr.isatty() if self.progress is None else self.progress
        if not wanted:
            yield lambda line: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[objective]}"), console=Console(stderr=True)) as bar:
            task = bar.add_task(self.title, total=self.total(), objective="compiling")
            yield lambda line: bar.update(task, completed=line["done"], objective=_objective(line))


def keep_lines_up_to(folder: Path, done: int) -> None:
    """Drop the lines of ``metrics.jsonl`` that a resumed run will write again."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return
    lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    kept = [line for line in lines if json.loads(line)["done"] <= done]
    write_bytes(path, "".join(kept).encode())


def _last_or_mean(name: str, values: np.ndarray) -> float | bool | None:
    if values.dtype == bool:
        return bool(values[-1])
    finite = values[np.isfinite(values)]
    if name in ("held_out", "undone", "objective"):
        return float(values[-1]) if np.isfinite(values[-1]) else None
    return float(finite.mean(dtype=np.float64)) if finite.size else None


def _objective(line: dict[str, Any]) -> str:
    names = [n for n in ("elbo", "iwae", "objective", "loss", "held_out") if line.get(n) is not None]
    return "  ".join(f"{name} {line[name]:.4g}" for name in names[:2])
