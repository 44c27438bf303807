"""How long a comparison takes: ``python benchmarks/compare.py [--rows N]``.

A table of 30 mixed columns with a fifth of its cells missing, made from three hidden causes, and five models: the three
baselines, a latent class model and a variational auto-encoder. Prints the comparison and the seconds in all. The aim is
five minutes for 10,000 rows on two cores.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
from common import FULL, Effort, report, spread

import ravine as rv

SHARE, SEED = 0.2, 0
ROWS, FEW = 10_000, 1_000


def mixed_table(rows: int) -> pd.DataFrame:
    """Ten numbers, five positive numbers, five bits, five categories, five counts; a fifth of the cells is missing."""
    stream = np.random.default_rng(SEED)
    z = stream.normal(size=(rows, 3))

    def noisy() -> np.ndarray:
        return z @ stream.normal(size=3) + stream.normal(size=rows)

    columns: dict[str, object] = {f"number{i}": 10 * i + noisy() for i in range(10)}
    columns |= {f"positive{i}": np.exp(noisy()) for i in range(5)}
    columns |= {f"bit{i}": np.where(noisy() > 0.5, "yes", "no") for i in range(5)}
    columns |= {f"category{i}": np.array(list("abcd"))[np.digitize(noisy(), (-1, 0, 1))] for i in range(5)}
    columns |= {f"count{i}": stream.poisson(np.exp(np.clip(noisy() / 3, -2, 2))) for i in range(5)}
    frame = pd.DataFrame(columns)
    return frame.mask(stream.random(frame.shape) < SHARE)


def main(effort: Effort, rows: int | None = None) -> None:
    """Compare five models, print the comparison, and report how long it took."""
    table = mixed_table(rows or (ROWS if effort == FULL else FEW))
    before = time.perf_counter()
    found = rv.compare(table, ["latent-class", "vae"], progress=True)
    seconds = {"seconds in all": time.perf_counter() - before}
    seconds |= {f"{entry.model}, seconds of fitting": entry.seconds for entry in found.rows}
    print(found, end="\n\n")
    sizes = {f"{len(table)} rows, {table.shape[1]} columns": {name: spread([t]) for name, t in seconds.items()}}
    report("compare", ["what", "seconds"], [[name, f"{t:.1f}"] for name, t in seconds.items()], {"sizes": sizes})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    main(FULL, parser.parse_args().rows)
