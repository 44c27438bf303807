"""How long one row waits for an answer of a fitted model: ``python benchmarks/run.py answers``.

A data frame of 30 columns of several kinds with holes, and the three recipes that hold such a table; besides, numbers
alone as an array. A row is asked for after the first answer, when nothing is compiled any more; every question goes
through as many different rows. What is learned does not matter here, so little is. There is no peer; the aim is an
imputed row in less than 20 milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from common import Effort, report, spread
from compare import mixed_table

import ravine as rv

ROWS, ASKED, AIM = 500, 10, 20.0
QUESTIONS = ("impute", "score_samples", "transform")
SETTING: dict[str, Any] = {"steps": 30, "validation": 0.0, "random_state": 0, "progress": False}


def main(effort: Effort) -> None:
    """Ask every model every question in turn, and report."""
    mixed = mixed_table(ROWS)
    numbers = mixed.filter(regex="number").to_numpy()
    models: dict[str, tuple[Any, Callable[[int], Any]]] = {
        "latent-class, 30 mixed columns": (rv.LatentClass(**SETTING).fit(mixed), lambda i: mixed[i : i + 1]),
        "vae, 30 mixed columns": (rv.VAE(**SETTING).fit(mixed), lambda i: mixed[i : i + 1]),
        "miwae, 30 mixed columns": (rv.MIWAE(**SETTING).fit(mixed), lambda i: mixed[i : i + 1]),
        "miwae, 10 numbers in an array": (rv.MIWAE(**SETTING).fit(numbers), lambda i: numbers[i : i + 1]),
    }
    times: dict[str, dict[str, list[float]]] = {name: {verb: [] for verb in QUESTIONS} for name in models}
    for i in range(-2, effort.rounds * ASKED):
        for name, (model, row) in models.items():
            for verb in QUESTIONS:
                waited = _milliseconds(getattr(model, verb), row(i % ROWS))
                times[name][verb] += [waited] if i >= 0 else []
    found = {name: {f"{verb}, milliseconds": spread(t) for verb, t in of.items()} for name, of in times.items()}
    rows = [[name, *(_shown(measured) for measured in of.values())] for name, of in found.items()]
    report("answers", ["one row of", *QUESTIONS], rows, {"rounds": effort.rounds, "aim": AIM, "sizes": found})


def _milliseconds(answer: Callable[[Any], Any], row: Any) -> float:
    started = time.perf_counter()
    answer(row)
    return 1000 * (time.perf_counter() - started)


def _shown(measured: dict[str, float]) -> str:
    return f"{measured['median']:.1f} ms ({measured['min']:.1f} to {measured['max']:.1f})"
