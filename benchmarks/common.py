"""What every benchmark needs: contenders that take turns, ratios with their spread, the machine, tables and files."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from ravine.train import Chunk

RESULTS = Path(__file__).parent / "results"
PEAK_SIZE = 2048


class Contender(NamedTuple):
    """Something that can be timed: ``rate(seconds)`` works for about that long and returns units of work per second."""

    name: str
    rate: Callable[[float], float]


class Effort(NamedTuple):
    """How often everybody has a turn, and how long a turn lasts."""

    rounds: int
    seconds: float


# many short turns: a busy machine changes its speed from one second to the next
FULL, QUICK, TRIAL = Effort(21, 0.7), Effort(5, 0.3), Effort(3, 0.3)


def warmed(contender: Contender) -> Contender:
    """The contender after it has compiled and found its pace."""
    contender.rate(0.2)
    contender.rate(0.2)
    return contender


def fastest(contenders: Sequence[Contender]) -> Contender:
    """The quickest of several ways to do the same, by a short trial."""
    rates = take_turns([warmed(contender) for contender in contenders], TRIAL)
    return max(contenders, key=lambda contender: statistics.median(rates[contender.name]))


def single_thread_or_all() -> list[int]:
    """The numbers of threads worth trying."""
    return sorted({1, cores()})


def with_threads(name: str, threads: int, rate: Callable[[float], float]) -> Contender:
    """A contender whose linear algebra runs on so many threads."""

    def limited(seconds: float) -> float:
        with threadpool_limits(threads):
            return rate(seconds)

    return Contender(f"{name}, {threads} threads", limited)


def take_turns(contenders: Sequence[Contender], effort: Effort) -> dict[str, list[float]]:
    """The rate of every contender in every round. They alternate, so that a busy machine disturbs all alike.

    Every other round runs backwards: who comes after whom changes, too.
    """
    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for i in range(effort.rounds):
        for contender in contenders[:: -1 if i % 2 else 1]:
            rates[contender.name].append(contender.rate(effort.seconds))
    return rates


def steps(chunks: Iterator[Chunk]) -> Callable[[float], float]:
    """Steps per second of a training that goes on."""
    done = 0

    def advance() -> int:
        nonlocal done
        before, done = done, int(next(chunks).state.step)
        return done - before

    return lambda seconds: throughput(advance, seconds)


def throughput(work: Callable[[], float], seconds: float, calls: int = 1) -> float:
    """Units per second of ``work``, which returns how many it has done; called at least ``calls`` times."""
    done, started = 0.0, time.perf_counter()
    while calls > 0 or time.perf_counter() - started < seconds:
        done += work()
        calls -= 1
    return done / (time.perf_counter() - started)


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, least and greatest, to four digits."""
    values = list(values)
    picked = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in picked.items()}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times as fast we are, round by round."""
    return spread(a / b for a, b in zip(ours, theirs, strict=True))


def matmul_peak() -> Contender:
    """Floating-point operations per second of the better of two float32 matrix products, JAX's and PyTorch's."""
    a = np.random.default_rng(0).standard_normal((PEAK_SIZE, PEAK_SIZE), np.float32)
    x, t, dot, operations = jnp.asarray(a), torch.from_numpy(a), jax.jit(jnp.dot), 2.0 * PEAK_SIZE**3

    def with_jax() -> float:
        dot(x, x).block_until_ready()
        return operations

    def with_torch() -> float:
        torch.mm(t, t)
        return operations

    def rate(seconds: float) -> float:
        torch.set_num_threads(cores())
        return max(throughput(product, seconds / 2, 2) for product in (with_jax, with_torch))

    return Contender("peak", rate)


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Where a number was measured."""
    packages = {name: version(name) for name in ("jax", "jaxlib", "torch", "scikit-learn", "numpy")}
    return {"processor": _processor(), "cores": cores(), "python": platform.python_version(), **packages}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def shown(numbers: dict[str, float], unit: str = "") -> str:
    """A spread as a person reads it: median (min to max)."""
    digits = (f"{numbers[name]:.0%}" if unit == "%" else f"{numbers[name]:.2f}{unit}" for name in numbers)
    median, low, high = digits
    return f"{median} ({low} to {high})"


def report(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], results: dict[str, Any]) -> None:
    """Print the table and write ``results/<name>.json``."""
    table = Table(*columns, title=name)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"benchmark": name, "machine": machine(), **results}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n")
