"""How long a user waits before anything happens: importing, the first recipe, the help of the command.

There is no peer; the interpreter that does nothing is timed beside, for the machine's own pace.
"""

from __future__ import annotations

import subprocess
import sys
import time

from common import Effort, report, spread

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import ravine": ["-c", "import ravine"],
    "first use of ravine.VAE": ["-c", "import ravine; ravine.VAE"],
    "ravine --help": ["-m", "ravine", "--help"],
    "ravine fit --help": ["-m", "ravine", "fit", "--help"],
}


def main(effort: Effort) -> None:
    """Time every command in turn, each in a process of its own, and report."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(effort.rounds):
        for name, words in COMMANDS.items():
            times[name].append(_seconds(words))
    found = {name: {"seconds": spread(values)} for name, values in times.items()}
    rows = [[name, f"{s['median']:.2f} ({s['min']:.2f} to {s['max']:.2f})"] for name, s in _flat(found)]
    report("startup", ["command", "seconds"], rows, {"rounds": effort.rounds, "sizes": found})


def _flat(found: dict[str, dict[str, dict[str, float]]]) -> list[tuple[str, dict[str, float]]]:
    return [(name, measured["seconds"]) for name, measured in found.items()]


def _seconds(words: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started
