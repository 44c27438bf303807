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

import ravine as rv

SHARE, SEED = 0.2, 0


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


def main() -> None:
    """Compare five models and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    table = mixed_table(parser.parse_args().rows)
    before = time.perf_counter()
    print(rv.compare(table, ["latent-class", "vae"], progress=True))
    print(f"\n{len(table)} rows, {table.shape[1]} columns: {time.perf_counter() - before:.0f} s")


if __name__ == "__main__":
    main()
