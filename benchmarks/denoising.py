"""Stacked denoising autoencoders against their paper, and linear probes of their units.

``python benchmarks/denoising.py trial SCALE [--seeds N]`` runs a trial of `StackedDenoising` ("small", "paper",
"rect-small", ...) and prints the test error beside that of the paper; for the rectangles, whose rows are not
those of the authors, also that of a support vector machine on the same rows.

``python benchmarks/denoising.py probe [--seeds N]`` tells wide rectangles from tall ones by logistic regressions, on
pixels and on the units of each layer, where the layers and the regression have seen 1,200 or 10,000 rows.

Writes ``results/denoising/WHAT.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from ravine.core import Row
from ravine.data import load_dataset
from ravine.data.rectangles import rectangles
from ravine.objectives import Denoising, Masking, Reconstruction
from ravine.recipes.stacked_denoising import DenoisingAutoencoder, StackedDenoising

RESULTS = Path(__file__).parent / "results" / "denoising"
ROWS, FRESH = (1_200, 10_000), 5_000
LEARNING = {"masked": Denoising(Masking(0.1)), "plain": Reconstruction()}


def trial(scale: str, seed: int) -> dict[str, Any]:
    """The test error of one fit, in per cent, and what it is measured against."""
    it = StackedDenoising.trials[scale]
    data = load_dataset(it.data)
    (labels, truth), started = data.labels, time.perf_counter()
    model = StackedDenoising(**dict(it.fields), random_state=seed).fit(data.train, labels)
    error = 100 * (1 - model.score(data.test, truth))
    found = {"error": error, "reported": 100 * (1 - it.accuracy), "seconds": round(time.perf_counter() - started)}
    return found | {"steps": model.history_[-1]["done"], "source": it.source, "data": it.data}


def machine() -> float:
    """The test error of a support vector machine on the rectangles, in per cent, chosen on 200 of the training rows."""
    data = load_dataset("rect")
    X, (y, truth) = data.train.astype(float), data.labels
    fits = [
        SVC(C=C, gamma=gamma).fit(X[:1000], y[:1000]) for C in (1, 3, 10, 100) for gamma in (0.01, 0.02, 0.03, 0.05)
    ]
    return 100 * (1 - max(fits, key=lambda fit: fit.score(X[1000:], y[1000:])).score(data.test.astype(float), truth))


def probed(features: np.ndarray, wide: np.ndarray, rows: int) -> float:
    """The error on fresh rows of a logistic regression whose penalty is chosen on the last fourth of those it has."""
    cut = 3 * rows // 4
    fit = lambda C, n: LogisticRegression(C=C, max_iter=1000).fit(features[:n], wide[:n])  # noqa: E731
    best = max((0.003, 0.03, 0.3, 3.0), key=lambda C: fit(C, cut).score(features[cut:rows], wide[cut:rows]))
    return 100 * (1 - fit(best, rows).score(features[-FRESH:], wide[-FRESH:]))


def probe(seed: int) -> dict[str, float]:
    """Errors in per cent, by what was probed, how many rows it has seen, and how many the probe."""
    images, wide = rectangles(ROWS[-1] + FRESH, seed=100 + seed)
    X = images.reshape(len(images), -1).astype(np.float32)
    found = {f"pixels, {n}": probed(X, wide, n) for n in ROWS}
    for name, learning in LEARNING.items():
        for rows in ROWS:
            fields: dict[str, Any] = {"layers": (500, 500), "steps": 1500, "validation": 0.0, "random_state": seed}
            model = DenoisingAutoencoder(learning=learning, **fields).fit(X[:rows]).model_
            for depth in (1, 2):
                code = jax.jit(jax.vmap(lambda x, model=model, depth=depth: model.code(Row(x), depth)))
                units = np.asarray(code(jnp.asarray(X)))
                found |= {f"{name}, layer {depth}, {rows}, {n}": probed(units, wide, n) for n in ROWS}
    return found


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("trial", "probe"))
    parser.add_argument("scale", nargs="?", default="small", choices=tuple(StackedDenoising.trials))
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    runs = [trial(asked.scale, seed) if asked.what == "trial" else probe(seed) for seed in range(asked.seeds)]
    found: dict[str, Any] = {"runs": runs}
    if asked.what == "trial" and runs[0]["data"] == "rect":
        found["support vector machine"] = machine()
    RESULTS.mkdir(parents=True, exist_ok=True)
    name = asked.scale if asked.what == "trial" else "probe"
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
