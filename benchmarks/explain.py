"""Which features explain a row, found by each gradient estimator: ``python benchmarks/explain.py [--seeds N]``.

The four synthetic sets of Chen et al. 2018, arXiv:1802.07814, section 4.1, whose relevant features are known. For each
set, estimator and seed: the share of the selected features that are relevant, the mean over rows of the median rank of
the relevant ones (those of a perfect ranking have 1.5, 2.5, 2.5 and 3), and the bound in nats on fresh rows, with what
it would be if the black box's own probabilities were told. Adds to ``results/explain/found.json`` what was not measured
with these settings before, and writes ``results/explain.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from ravine._spell import spell
from ravine.data.generated import EXPLAINED, Explained
from ravine.gradients import AIMLE, IMLE, RLOO, SIMPLE, ConcreteSubset
from ravine.recipes.learning_to_explain import LearningToExplain

RESULTS = Path(__file__).parent / "results"
ESTIMATORS = (SIMPLE(), AIMLE(rate=1e-3), IMLE(10.0), RLOO(4), ConcreteSubset(0.1))
FRESH = 10_000


def measured(data: Explained, fresh: Explained, k: int, gradient: Any, seed: int, settings: dict[str, int]) -> dict:
    """One fit, and how it does on fresh rows."""
    started = time.process_time()
    model = LearningToExplain(
        k=k, gradient=gradient, steps=settings["steps"], batch_size=settings["batch"], random_state=seed, progress=False
    ).fit(data.x, data.shares)
    seconds = time.process_time() - started
    found = model.explain(fresh.x)
    rank = 1 + np.argsort(np.argsort(-found.inclusion, axis=1, kind="stable"), axis=1)
    ranks = rank[fresh.relevant].reshape(len(fresh.x), -1)
    return {
        "relevant": float(np.take_along_axis(fresh.relevant, found.features, axis=1).mean()),
        "median_rank": float(np.median(ranks, axis=1).mean()),
        "bound": model.bound(fresh.x, fresh.shares),
        "steps": model.history_[-1]["done"],
        "seconds": round(seconds, 1),
    }


def ceiling(data: Explained) -> float:
    """Minus the entropy of Y given all features, in nats."""
    p = np.clip(data.shares, 1e-300, 1)
    return float(np.mean(np.sum(p * np.log(p), axis=1)))


def main() -> None:
    """Measure what is missing, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("seeds", 3), ("rows", 100_000), ("steps", 3000), ("batch", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    settings = vars(parser.parse_args())
    file, seeds = RESULTS / "explain" / "found.json", settings.pop("seeds")
    kept = json.loads(file.read_text()) if file.exists() else {}
    found = kept["sets"] if kept.get("settings") == settings else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        for name, (make, k) in EXPLAINED.items():
            data, fresh = make(settings["rows"], seed=seed), make(FRESH, seed=1_000_000 + seed)
            of_set = found.setdefault(name, {"ceiling": {}, "estimators": {}})
            of_set["ceiling"][str(seed)] = ceiling(fresh)
            for gradient in ESTIMATORS:
                runs = of_set["estimators"].setdefault(spell(gradient), {})
                if str(seed) not in runs:
                    runs[str(seed)] = measured(data, fresh, k, gradient, seed, settings)
                    file.write_text(json.dumps({"settings": settings, "sets": found}, indent=2) + "\n")
                    print(name, spell(gradient), seed, runs[str(seed)], flush=True)
    (RESULTS / "explain.md").write_text(page(found))
    print(page(found))


def page(found: dict[str, Any]) -> str:
    """One table: for each set the best bound, and for each estimator its means over seeds."""
    lines = [["set", "estimator", "seeds", "relevant", "median rank", "bound (nats)", "at most", "processor seconds"]]
    lines.append(["---"] * len(lines[0]))
    for name, of_set in found.items():
        most = statistics.fmean(of_set["ceiling"].values())
        for estimator, runs in of_set["estimators"].items():
            shown = [spread([run[key] for run in runs.values()]) for key in ("relevant", "median_rank", "bound")]
            seconds = statistics.fmean(run["seconds"] for run in runs.values())
            lines.append([name, f"`{estimator}`", str(len(runs)), *shown, f"{most:.4f}", f"{seconds:.0f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def spread(values: list[float]) -> str:
    """The mean over seeds, and the extremes."""
    return f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
