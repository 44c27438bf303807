"""Run a recipe as its paper did, and keep the paper's number beside ours; run the studies."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from ravine._check import complaint
from ravine._spell import spell
from ravine.checkpoint import write_json
from ravine.data import Dataset, load_dataset
from ravine.estimator import LatentVariableModel
from ravine.evaluation import Accuracy, Evaluation
from ravine.evidence import AIS
from ravine.likeness import Real, likeness
from ravine.network_classifier import NetworkClassifier
from ravine.registry import STUDIES, made, reading, recipe, study
from ravine.trial import Trial

ACROSS = 20  # images of each label in a picture
Fitted = LatentVariableModel | NetworkClassifier
Run = tuple[Fitted, Evaluation | Accuracy]


def reproduce(name: str, scale: str, out: Path | None, seed: int, seeds: int, resume: bool) -> int:
    """Run the trial of a recipe, or a study, at a scale with one or several seeds; print, and write ``result.json``.

    A study also draws ``curves.png`` into ``out``, where matplotlib is installed.
    """
    if name in STUDIES:
        return _studied(name, scale, out, range(seed, seed + seeds))
    trial = trial_of(name, scale)
    dataset = load_dataset(trial.data)
    if dataset.test is None:
        raise ValueError(f"{trial.data} has no test rows of its own to compare a published number on.")
    runs: list[Run] = []
    for s in range(seed, seed + seeds):
        folder = None if out is None else out if seeds == 1 else out / f"seed-{s}"
        model = _fitted(name, trial, dataset, s, folder, resume)
        if not model.complete_:
            return 130
        runs.append((model, _evaluated(model, trial, dataset)))
        print(f"seed {s}: {runs[-1][1]} after {model.seconds_:.0f} s", flush=True)
    result = (
        _result(name, scale, trial, runs)
        | _beside(trial, dataset, runs[0][0])
        | _classes(trial, dataset, [model for model, _ in runs])
        | _dreams(trial, dataset, [model for model, _ in runs])
        | _annealed(trial, dataset, [model for model, _ in runs])
        | _active(dataset, [model for model, _ in runs])
    )
    print(_comparison(result))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "result.json", result)
        _dreams_drawn(trial, dataset, runs[0][0], out)
    return 0


def trial_of(name: str, scale: str) -> Trial:
    """The trial a recipe declares for a scale."""
    return _at(name, recipe(name).trials, scale)


def _at(name: str, scales: Mapping[str, Any], scale: str) -> Any:
    if scale not in scales:
        do = "choose one" if scales else "fit it to data of your own"
        raise complaint(name, f"a trial at scale {scale}", ", ".join(scales) or "none", do)
    return scales[scale]


def _studied(name: str, scale: str, out: Path | None, seeds: Sequence[int]) -> int:
    it, started = study(name), time.perf_counter()
    settings = _at(name, it.SCALES, scale)
    found = it.found(seeds, **settings)
    result = {"study": name, "scale": scale, "command": _command(name, scale, len(seeds)), "settings": dict(settings)}
    result |= {"seeds": list(seeds), "found": found, "seconds": time.perf_counter() - started, **_machine()}
    print(it.words(result))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "result.json", result)
        if importlib.util.find_spec("matplotlib") is None:
            print("curves.png: not drawn, for want of matplotlib; pip install ravine[plot]")
        else:
            it.picture(result).savefig(out / "curves.png", dpi=150)
    return 0


def unfitted(name: str, trial: Trial, hints: Mapping[str, Any], seed: int) -> Fitted:
    """The recipe as a trial has it; what the data set hints at counts where the trial says nothing."""
    said = {field: text for field, text in reading(name, hints).items() if field not in trial.fields}
    return made(name, said, random_state=seed, **trial.fields)


def _evaluated(model: Fitted, trial: Trial, dataset: Dataset) -> Evaluation | Accuracy:
    if isinstance(model, NetworkClassifier):
        return cast(Any, model).evaluate(dataset.test, _labels(dataset)[1])
    return model.evaluate(_evenly(cast(np.ndarray, dataset.test), trial.tested))


def _evenly(test: np.ndarray, rows: int | None) -> np.ndarray:
    """So many rows that lie evenly among those of the test, or all."""
    return test if rows is None else test[:: max(1, len(test) // rows)][:rows]


def _fitted(name: str, trial: Trial, dataset: Dataset, seed: int, out: Path | None, resume: bool) -> Fitted:
    model = unfitted(name, trial, dataset.hints, seed)
    shape = dataset.hints.get("image_shape")
    train = dataset.train if shape is None else dataset.train.reshape(len(dataset.train), *shape)
    told, valid = _told(model, trial, dataset, seed), dataset.valid
    # what tells classes cannot stop by rows without labels
    model.fit(train, *told, held_out=None if isinstance(model, NetworkClassifier) else valid, folder=out, resume=resume)
    if out is not None:
        model.save(out)
        model.seconds_ = max(model.seconds_, took(out / "metrics.jsonl"))
    return model


def _told(model: Fitted, trial: Trial, dataset: Dataset, seed: int) -> tuple[np.ndarray, ...]:
    """The labels that are learned from, where there are any: those of some rows of each class, or all."""
    if trial.labels is not None:
        return (labelled(_labels(dataset)[0], trial.labels, seed),)
    return (_labels(dataset)[0],) if isinstance(model, NetworkClassifier) else ()


def took(metrics: Path) -> float:
    """Seconds of all the runs whose lines are in a file: in one that went on from another they begin at 0 again."""
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    seconds = [json.loads(line)["seconds"] for line in lines]
    return sum((end for end, begin in pairwise([*seconds, 0.0]) if begin < end), 0.0)


def labelled(labels: np.ndarray, of_each: int, seed: int) -> np.ndarray:
    """The labels of so many rows of each class, -1 elsewhere.

    Examples
    --------
    >>> some = labelled(np.array([0, 1, 1, 0, 1, 1]), 2, seed=0)
    >>> [int((some == c).sum()) for c in (-1, 0, 1)]
    [2, 2, 2]
    """
    stream, some = np.random.default_rng(seed), np.full(len(labels), -1)
    for c in np.unique(labels):
        some[stream.permutation(np.flatnonzero(labels == c))[:of_each]] = c
    return some


def _labels(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    if dataset.labels is None or dataset.labels[1] is None:
        raise complaint(dataset.name, "labels of training and test rows", "none", "choose another set")
    return dataset.labels[0], dataset.labels[1]


def _classes(trial: Trial, dataset: Dataset, models: list[Any]) -> dict[str, Any]:
    """What a trial with a few labels adds to the result."""
    if trial.labels is None:
        return {}
    if isinstance(models[0], NetworkClassifier):
        return {"labels of each class": trial.labels}
    shares = [float(np.mean(model.predict(dataset.test) == _labels(dataset)[1])) for model in models]
    told = {"reported": trial.accuracy, "measured": float(np.mean(shares)), "seeds": shares}
    return {"accuracy": told | {"labels of each class": trial.labels}}


def _beside(trial: Trial, dataset: Dataset, model: Any) -> dict[str, Any]:
    """The first model evaluated in other ways, each on rows that lie evenly among those of the test."""
    found = []
    for evidence, rows in trial.beside:
        got = clone_with(model, evidence).evaluate(_evenly(cast(np.ndarray, dataset.test), rows))
        print(f"beside: {got}", flush=True)
        numbers = {"log_likelihood": got.log_likelihood, "standard_error": got.standard_error, "rows": got.rows}
        found.append(numbers | {"direction": got.direction, "method": got.method})
    return {"beside": found} if found else {}


def _dreams(trial: Trial, dataset: Dataset, models: Sequence[Any]) -> dict[str, Any]:
    """How what the models make of each label is told, and what it teaches."""
    if not trial.dreams:
        return {}
    (train, test), (known, truth) = (dataset.train, cast(np.ndarray, dataset.test)), _labels(dataset)
    told = likeness(models, Real(train, known, test, truth), trial.dreams)
    right = (100 * told[which] for which in ("measured", "judge"))
    print("dreams: {:.1f} % told as their label; the judge is right in {:.1f} %".format(*right))
    return {"dreams": told}


def _dreams_drawn(trial: Trial, dataset: Dataset, model: Any, out: Path) -> None:
    """A picture of images that a model makes of each label, a line of it for each label."""
    image = dataset.hints.get("image_shape")
    if trial.dreams and image is not None and importlib.util.find_spec("matplotlib") is not None:
        from matplotlib.image import imsave

        made = np.stack([model.dream(label, ACROSS).reshape(ACROSS, *image[:2]) for label in model.classes_])
        made = made / max(float(np.max(dataset.train)), 1.0)
        framed = np.pad(made, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=0.3)
        sheet = framed.transpose(0, 2, 1, 3).reshape(made.shape[0] * (image[0] + 2), -1)
        imsave(out / "dreams.png", np.kron(sheet, np.ones((2, 2))), cmap="gray", vmin=0, vmax=1)


def _annealed(trial: Trial, dataset: Dataset, models: Sequence[Any]) -> dict[str, Any]:
    """log Z of the models and how far the weights of its chains are apart, where a trial anneals it.

    Of a net also the energies on top, of rows and of draws: log Z is of no use where they are in different regions.
    """
    ways = [trial.fields.get("evidence"), *(way for way, _ in trial.beside)]
    annealing = [way.partition for way in ways if isinstance(getattr(way, "partition", None), AIS)]
    longest = max(annealing, key=lambda way: way.steps, default=None)
    if longest is None:
        return {}
    found = [model.log_partition(longest) for model in models]
    print(f"{found[0]}; its log weights deviate by {found[0].deviation:.2f}")
    return {"log_partition": [one._asdict() for one in found]} | _regions(dataset, models)


def _regions(dataset: Dataset, models: Sequence[Any]) -> dict[str, Any]:
    if not all(hasattr(model, "top_energies") for model in models):
        return {}
    found = [model.top_energies(cast(np.ndarray, dataset.test)[:1000]) for model in models]
    for one in found:
        told = "the same region" if one.same_region else "DIFFERENT REGIONS, log Z is of no use"
        print(f"energies on top: {one.rows:.0f} of rows, {one.draws:.0f} of draws: {told}")
    return {"top_energies": [one._asdict() | {"same_region": one.same_region} for one in found]}


def _active(dataset: Dataset, models: Sequence[Any]) -> dict[str, Any]:
    """The share of cells of each layer that are active on test rows, the lowest layer first, where cells fire."""
    if not all(hasattr(model, "sparsity") for model in models):
        return {}
    found = [model.sparsity(cast(np.ndarray, dataset.test)[:1000]).tolist() for model in models]
    print(f"active cells, the lowest layer first: {', '.join(f'{share:.2f}' for share in np.mean(found, axis=0))}")
    return {"active": found}


def clone_with(model: LatentVariableModel, evidence: Any) -> LatentVariableModel:
    """The same fitted model, evaluated in another way."""
    other = copy.copy(model)
    other.evidence = evidence
    return other


def _result(name: str, scale: str, trial: Trial, runs: list[Run]) -> dict[str, Any]:
    model, first = runs[0]
    return {
        "recipe": name,
        "scale": scale,
        "command": _command(name, scale, len(runs)),
        "data": trial.data,
        "fields": {field: spell(value) for field, value in trial.fields.items()},
        "treated": first.treated,
        **_numbers(trial, [got for _, got in runs]),
        "seconds": float(np.mean([m.seconds_ for m, _ in runs])),
        **_machine(),
        "curve": _curve(model),
    }


def _numbers(trial: Trial, found: Sequence[Any]) -> dict[str, Any]:
    """What is reported, and what was measured: means over the seeds."""
    mean, first = (lambda name: float(np.mean([getattr(got, name) for got in found]))), found[0]
    error = {"standard_error": mean("standard_error"), "rows": first.rows}
    if isinstance(first, Accuracy):
        share, seeds = mean("accuracy"), [got.accuracy for got in found]
        measured = {"accuracy": share, "test error, %": 100 * (1 - share), **error, "seeds": seeds}
        return {"reported": {"accuracy": trial.accuracy, "source": trial.source}, "measured": measured}
    measured = {"log_likelihood": mean("log_likelihood"), **error, "bits_per_dim": mean("bits_per_dim")}
    measured |= {"direction": first.direction, "method": first.method, "seeds": [got.log_likelihood for got in found]}
    return {"reported": {"log_likelihood": trial.reported, "source": trial.source}, "measured": measured}


def _command(name: str, scale: str, seeds: int) -> str:
    return f"ravine reproduce {name} --scale {scale}" + (f" --seeds {seeds}" if seeds > 1 else "")


def _machine() -> dict[str, Any]:
    kind = jax.devices()[0].device_kind
    device = f"{kind}, {os.cpu_count()} cores" if jax.default_backend() == "cpu" else kind
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    return {"device": device, "versions": versions, "date": time.strftime("%Y-%m-%d")}


def _curve(model: Fitted, points: int = 200) -> list[dict[str, Any]]:
    """The learning curve, thinned: step, seconds, held-out loss and training bound where there are any.

    Of a classifier, its loss on the training rows.
    """
    names = ("elbo", "held_out", *(("loss",) if isinstance(model, NetworkClassifier) else ()))
    lines = [line for line in model.history_ if any(line.get(name) is not None for name in names)]
    kept = lines[:: max(1, len(lines) // points)]
    names = ("done", "seconds", *names, "objective")
    return [{name: line[name] for name in names if line.get(name) is not None} for line in kept]


def _comparison(result: dict[str, Any]) -> str:
    ours, theirs = result["measured"], result["reported"]
    if "accuracy" in ours:
        return f"{_told_right(ours)}; {_reported_right(theirs)}"
    number = f"measured {ours['log_likelihood']:.2f} +- {ours['standard_error']:.2f} nats"
    line = f"{number} ({ours['direction']}, {ours['method']}){_right(result.get('accuracy'))}"
    if theirs["log_likelihood"] is None:
        return f"{line}; {theirs['source'] or 'the paper reports no such number'}"
    return f"{line}; reported {theirs['log_likelihood']:.2f} ({theirs['source']})"


def _right(accuracy: dict[str, Any] | None) -> str:
    if accuracy is None:
        return ""
    theirs = "" if accuracy["reported"] is None else f", reported {100 * accuracy['reported']:.2f} %"
    return f", accuracy {100 * accuracy['measured']:.2f} %{theirs}"


def _told_right(ours: Mapping[str, Any]) -> str:
    share, error = (100 * ours[name] for name in ("accuracy", "standard_error"))
    return f"measured {share:.2f} +- {error:.2f} % right (test error {ours['test error, %']:.2f} %)"


def _reported_right(theirs: Mapping[str, Any]) -> str:
    if theirs["accuracy"] is None:
        return theirs["source"] or "the paper reports no such number"
    return f"reported {100 * theirs['accuracy']:.2f} % ({theirs['source']})"
