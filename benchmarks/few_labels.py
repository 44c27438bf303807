"""Digits told apart from a hundred labels: ``python benchmarks/few_labels.py [--seeds N]``.

MNIST, ten labels of each class drawn by the seed: the accuracy on the test rows of classifiers that see the labelled
rows alone, beside what ``ravine reproduce semi-supervised-gumbel`` found with all other training rows without a label.
Writes ``results/few_labels.md``. Needs the folder RAVINE_DATA.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from ravine._spell import spell
from ravine.data import load_dataset
from ravine.recipes.semi_supervised_gumbel import SemiSupervisedGumbel
from ravine.reproduce import labelled

RESULTS = Path(__file__).parent / "results"
MEASURED = Path(__file__).parent.parent / "ravine" / "recipes" / "results"
OF_EACH = 10


def alone(seeds: int) -> dict[str, list[float]]:
    """Accuracies of classifiers that see the labelled rows alone, for each seed."""
    data = load_dataset("mnist-grey")
    assert data.labels is not None and data.labels[1] is not None and data.test is not None
    X, fresh = (cells / 255 for cells in (data.train, data.test))
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        those = labelled(data.labels[0], OF_EACH, seed) >= 0
        kinds = {
            "logistic regression": LogisticRegression(max_iter=1000),
            "a net of 500": MLPClassifier((500,), max_iter=500, random_state=seed),
        }
        for name, kind in kinds.items():
            fitted = kind.fit(X[those], data.labels[0][those])
            found.setdefault(name, []).append(float(np.mean(fitted.predict(fresh) == data.labels[1])))
    return found


def page(plain: dict[str, list[float]]) -> str:
    """A line for each classifier: accuracies over the seeds, and the published one."""
    lines = [["learned by", "steps", "seeds", "accuracy", "published"], ["---"] * 5]
    lines += [[f"{name}, labelled rows alone", "", str(len(right)), shares(right), ""] for name, right in plain.items()]
    for path in sorted(MEASURED.glob("semi-supervised-gumbel-*.json")):
        result = json.loads(path.read_text())
        trial, found = SemiSupervisedGumbel.trials[result["scale"]], result["accuracy"]
        published = "" if found["reported"] is None else f"{100 * found['reported']:.1f} %"
        name, steps = f"`{spell(trial.fields['gradient'])}`", str(trial.fields["steps"])
        lines.append([name, steps, str(len(found["seeds"])), shares(found["seeds"]), published])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def shares(right: list[float]) -> str:
    """A mean and its range, in per cent."""
    mean, low, high = (100 * value for value in (statistics.fmean(right), min(right), max(right)))
    return f"{mean:.1f} %" if len(right) == 1 else f"{mean:.1f} % ({low:.1f} to {high:.1f})"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    text = page(alone(parser.parse_args().seeds))
    (RESULTS / "few_labels.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
