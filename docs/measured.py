"""The benchmark page, made from the files that `make bench` writes."""

import json
from pathlib import Path
from typing import Any

from gallery import table

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
INTRODUCTION = """# Benchmarks

Ratios of speed, measured side by side in one run: above 1, Ravine is faster. Contenders take turns, and each ratio is
the median over the rounds with its least and greatest value. `make bench` measures them again on your machine.
"""


def spread(found: dict[str, float]) -> str:
    """A median and its range."""
    return f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f})"


def section(result: dict[str, Any]) -> str:
    """One benchmark: a line for every size and every ratio or share in it."""
    rows = [
        [size, name, spread(value)]
        for size, measured in result["sizes"].items()
        for name, value in measured.items()
        if isinstance(value, dict) and "median" in value and ("/" in name or "share" in name or "seconds" in name)
    ]
    machine = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    return f"## {result['benchmark']}\n\n{table(rows, ['size', 'what', 'median (range)'])}\nMachine: {machine}.\n"


def pages() -> dict[str, str]:
    """File name to text."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    return {"benchmarks.md": "\n".join([INTRODUCTION, *map(section, results)])}
