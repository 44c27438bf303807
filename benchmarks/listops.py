"""How well latent trees of ListOps are learned: ``python benchmarks/listops.py [--steps N] [--seeds N] [--longest N]``.

A tree-LSTM is trained with two straight-through estimators of the gradient, those of Jang et al. 2017 and Fan et al.
2022, and along the left-branching tree; all else is equal, the seeds too. It learns from sentences that are drawn like
those of Nangia & Bowman 2018, none of more than so many tokens and none of the test, and is judged on the published
test sentences of no more tokens with an operator in them: by the share of right answers, and by the share of the merges
of the right tree that its own tree has. Standard errors take sentences as the independent units, averaged over seeds;
differences from the left-branching tree are paired. The published sentences are read from the folder that the
environment variable RAVINE_DATA names. Writes ``results/listops.md`` and ``results/listops/found.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import ravine as rv
from ravine._spell import spell
from ravine.data import listops
from ravine.gradients import GappedStraightThrough, StraightThroughGumbel
from ravine.models.latent_tree import LeftFirst

RESULTS = Path(__file__).parent / "results"
SENTENCES = 20_000
SIZE: dict[str, Any] = {"inputs": 16, "width": 32, "hidden": (32,), "batch_size": 32, "rate": 3e-3, "validation": 0.0}
LEFT = "left-branching"
CONTENDERS: dict[str, dict[str, Any]] = {
    "ST-GS": {"gradient": StraightThroughGumbel(1.0)},
    "GST": {"gradient": GappedStraightThrough(1.0)},
    LEFT: {"order": LeftFirst()},
}


def published(longest: int) -> tuple[list[str], np.ndarray]:
    """Test sentences with an operator and at most so many tokens, without brackets around merges; their answers."""
    sentences, answers = listops.read("test")
    words = [listops.tokens(sentence) for sentence in sentences]
    kept = [i for i, one in enumerate(words) if 1 < len(one) <= longest]
    return [" ".join(words[i]) for i in kept], answers[kept]


def generated(longest: int, without: list[str]) -> tuple[list[str], np.ndarray]:
    """Sentences to learn from, none of them among others; their answers."""
    left_out = set(without)
    X = [one for one in listops.generate(SENTENCES, longest=longest)[0] if one not in left_out]
    return X, listops.answers(X)


def judged(fields: dict[str, Any], train: Any, test: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Of every test sentence, whether the answer is right and the share of right merges; and seconds of training."""
    model = rv.LatentTreeClassifier(**SIZE | fields).fit(*train)
    X, y = test
    merges = [listops.shared_spans(ours, listops.tree(one)) for ours, one in zip(model.parse(X), X, strict=True)]
    return model.predict(X) == y, np.array(merges), model.seconds_


def mean(by_sentence: np.ndarray) -> dict[str, float]:
    """The mean over sentences, and its standard error."""
    return {"mean": float(by_sentence.mean()), "error": float(by_sentence.std() / np.sqrt(by_sentence.size))}


def main() -> None:
    """Train all, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--longest", type=int, default=24)
    chosen = parser.parse_args()
    test = published(chosen.longest)
    train = generated(chosen.longest, test[0])
    runs: dict[str, list[tuple[np.ndarray, np.ndarray, float]]] = {name: [] for name in CONTENDERS}
    for seed in range(chosen.seeds):
        for name, fields in CONTENDERS.items():
            runs[name].append(judged(fields | {"steps": chosen.steps, "random_state": seed}, train, test))
            print(f"{name}, seed {seed}: {runs[name][-1][0].mean():.4f} right in {runs[name][-1][2]:.0f} s", flush=True)
    found = vars(chosen) | {"learned": len(train[0]), "judged": len(test[0]), "size": {**SIZE}}
    found["most frequent answer"] = mean(test[1] == np.bincount(train[1]).argmax())
    found["contenders"] = {name: summary(name, runs) for name in runs}
    (RESULTS / "listops").mkdir(parents=True, exist_ok=True)
    (RESULTS / "listops" / "found.json").write_text(json.dumps(found, indent=2) + "\n")
    (RESULTS / "listops.md").write_text(page(found))
    print(page(found))


def summary(name: str, runs: dict[str, list[tuple[np.ndarray, np.ndarray, float]]]) -> dict[str, Any]:
    """What was found of one contender."""
    right, merges = (np.mean([run[i] for run in runs[name]], axis=0) for i in (0, 1))
    return {
        "fields": {field: spell(value) for field, value in CONTENDERS[name].items()},
        "right": mean(right),
        "right by seed": [float(run[0].mean()) for run in runs[name]],
        "more right than left-branching": mean(right - np.mean([run[0] for run in runs[LEFT]], axis=0)),
        "merges": mean(merges),
        "seconds by seed": [run[2] for run in runs[name]],
    }


def page(found: dict[str, Any]) -> str:
    """One table, a contender a line."""
    shown = lambda one: f"{100 * one['mean']:.1f} ± {100 * one['error']:.1f}"  # noqa: E731
    lines = [["", "right answers, %", "more than left-branching, %", "merges of the right tree, %"], ["---"] * 4]
    for name, one in found["contenders"].items():
        more = "" if name == LEFT else shown(one["more right than left-branching"])
        lines.append(
            [f"{name}: `{', '.join(one['fields'].values())}`", shown(one["right"]), more, shown(one["merges"])]
        )
    lines.append(["most frequent answer", shown(found["most frequent answer"]), "", ""])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    setting = f"{found['steps']} steps, sentences of at most {found['longest']} tokens, {found['judged']} in the test"
    return f"{table}\n\n{setting}; seeds: {found['seeds']}.\n"


if __name__ == "__main__":
    main()
