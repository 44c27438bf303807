"""Digits told apart from a hundred labels, by each gradient estimator: ``python benchmarks/few_labels.py [--seeds N]``.

MNIST (1 where a cell is above half), ten labels of each class drawn by the seed, all other training rows without one:
the accuracy on the test rows of `SemiSupervisedGumbel`, as in table 2 of Jang, Gu & Poole 2017, arXiv:1611.01144, and
of a logistic regression and a net that see the labelled rows alone. Adds to ``results/few_labels/found.json`` what was
not measured with these settings before, and writes ``results/few_labels.md``. Needs the folder RAVINE_DATA.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from ravine._spell import spell
from ravine._tree import Decay
from ravine.data import load_dataset
from ravine.gradients import RLOO, Enumerate, GumbelSoftmax, ReinMax, StraightThroughGumbel
from ravine.recipes.semi_supervised_gumbel import SemiSupervisedGumbel
from ravine.reproduce import labelled

RESULTS = Path(__file__).parent / "results"
ANNEALED = Decay(3e-5, floor=0.5)
ESTIMATORS = (GumbelSoftmax(ANNEALED), StraightThroughGumbel(ANNEALED), ReinMax(1.3), RLOO(4), Enumerate())
PUBLISHED = {spell(ESTIMATORS[0]): "92.4 %", spell(ESTIMATORS[1]): "93.6 %", spell(ESTIMATORS[4]): "92.6 %"}


def alone(X: np.ndarray, some: np.ndarray, fresh: np.ndarray, y: np.ndarray, seed: int) -> dict[str, float]:
    """Accuracies of classifiers that see the labelled rows alone."""
    those = some >= 0
    kinds = {
        "logistic regression": LogisticRegression(max_iter=1000),
        "a net of 500": MLPClassifier((500,), max_iter=500, random_state=seed),
    }
    return {name: float(kind.fit(X[those], some[those]).score(fresh, y)) for name, kind in kinds.items()}


def main() -> None:
    """Measure what is missing, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("seeds", 3), ("steps", 20_000), ("of_each", 10)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    settings = vars(parser.parse_args())
    file, seeds = RESULTS / "few_labels" / "found.json", settings.pop("seeds")
    kept = json.loads(file.read_text()) if file.exists() else {}
    found = kept["runs"] if kept.get("settings") == settings else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    data = load_dataset("mnist-grey")
    assert data.labels is not None and data.labels[1] is not None and data.test is not None
    y, truth = data.labels[0], data.labels[1]
    X, fresh = ((cells > 127).astype(np.float32) for cells in (data.train, data.test))
    for seed in range(seeds):
        some = labelled(y, settings["of_each"], seed)
        if str(seed) not in found.get("logistic regression", {}):
            for name, right in alone(X, some, fresh, truth, seed).items():
                found.setdefault(name, {})[str(seed)] = {"accuracy": right}
        for gradient in ESTIMATORS:
            runs = found.setdefault(spell(gradient), {})
            if str(seed) not in runs:
                started = time.process_time()
                fields = {"gradient": gradient, "steps": settings["steps"], "random_state": seed}
                model = SemiSupervisedGumbel(kind="binary", validation=0.0, **fields).fit(X, some)
                right = float(np.mean(model.predict(fresh) == truth))
                runs[str(seed)] = {"accuracy": right, "seconds": round(time.process_time() - started)}
                file.write_text(json.dumps({"settings": settings, "runs": found}, indent=2) + "\n")
                print(spell(gradient), seed, runs[str(seed)], flush=True)
    text = f"{page(found)}\n{settings['steps']} steps; {settings['of_each']} labels of each class.\n"
    (RESULTS / "few_labels.md").write_text(text)
    print(text)


def page(found: dict[str, Any]) -> str:
    """A line for each estimator: accuracies over the seeds, the published one, and what it cost."""
    lines = [["learned by", "seeds", "accuracy", "published", "processor seconds"]]
    lines.append(["---"] * len(lines[0]))
    for name, runs in found.items():
        right = [100 * run["accuracy"] for run in runs.values()]
        seconds = [run["seconds"] for run in runs.values() if "seconds" in run]
        told = f"{statistics.fmean(right):.1f} % ({min(right):.1f} to {max(right):.1f})"
        cost = f"{statistics.fmean(seconds):.0f}" if seconds else ""
        lines.append([f"`{name}`" if seconds else name, str(len(runs)), told, PUBLISHED.get(name, ""), cost])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    main()
