"""Learning without a backward pass through all layers, side by side on the digits of MNIST.

Errors and log-likelihoods are those that the trials of the recipes measured, and are read from their recorded results;
what a step of learning costs is counted anew, on a batch of digits. The last columns say what each rule asks of a net
of cells: that what a weight learns from is at its own layer; that the way back does not share the weights of the way
there, or there is none; and that one phase is enough, in which a row comes as it is: no dreams, no wrong labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np

import ravine.recipes
from ravine._check import require
from ravine._spell import kebab
from ravine.core import Row
from ravine.data import load_dataset
from ravine.diagnose import step_cost
from ravine.labelled import LabelledModel
from ravine.network_classifier import NetworkClassifier
from ravine.recipes.coupled_network import CoupledClassifier
from ravine.recipes.forward_forward import ForwardForward
from ravine.recipes.helmholtz_machine import HelmholtzMachine
from ravine.recipes.predictive_coding import PredictiveCoding, PredictiveCodingClassifier
from ravine.recipes.stacked_denoising import StackedDenoising
from ravine.recipes.unsupervised_forward_forward import UnsupervisedForwardForward

SCALES: Mapping[str, Mapping[str, Any]] = {"small": {"rows": 256}}
RECORDED = Path(ravine.recipes.__file__).parent / "results"
TRAINED = 60_000  # rows of MNIST, of which the steps of a stage may depend
HEADS = ("learning", "test error", "nats", "operations a row", "bytes a row", "steps")
MARKS = "os^vDP*X<>"
ASKS = ("at its own layer", "no way back shared", "one phase")


class Way(NamedTuple):
    """A trial whose result is recorded, and what its rule asks of a net: the answers to `ASKS`."""

    made: type
    scale: str
    kept: tuple[bool, bool, bool]

    @property
    def title(self) -> str:
        """The words that name the trial in the shell."""
        return f"{kebab(self.made.__name__)} --scale {self.scale}"


WAYS = {
    "errors sent back": Way(PredictiveCodingClassifier, "small-back-propagated", (False, False, True)),
    "predictive coding": Way(PredictiveCodingClassifier, "small", (True, False, True)),
    "predictive coding, generative": Way(PredictiveCoding, "small", (True, False, True)),
    "Forward-Forward, 2 x 500": Way(ForwardForward, "small", (True, True, False)),
    "Forward-Forward, 4 x 2000": Way(ForwardForward, "paper", (True, True, False)),
    "Forward-Forward, hybrids": Way(UnsupervisedForwardForward, "paper", (True, True, False)),
    "coupled, transposed": Way(CoupledClassifier, "small", (True, False, False)),
    "coupled, separate": Way(CoupledClassifier, "small-separate", (True, True, False)),
    "coupled, label sent back": Way(CoupledClassifier, "small-back-propagated", (False, False, False)),
    "coupled, of maps": Way(CoupledClassifier, "small-maps", (True, False, False)),
    "denoising, then errors sent back": Way(StackedDenoising, "small", (False, False, True)),
    "wake-sleep": Way(HelmholtzMachine, "small-wake-sleep", (True, True, False)),
    "reweighted wake-sleep": Way(HelmholtzMachine, "small", (True, True, False)),
}


def found(
    seeds: Sequence[int], rows: int, ways: Mapping[str, Way] = WAYS, results: Path = RECORDED
) -> dict[str, dict[str, Any]]:
    """What the trial of each way measured; how many steps its stages have, and what one of them costs by the row."""
    digits = load_dataset("mnist-grey")
    assert digits.labels is not None
    known = digits.train[:rows].reshape(rows, 28, 28), digits.labels[0][:rows]
    return {name: recorded(way, results) | {"stages": costs(way, known, seeds[0])} for name, way in ways.items()}


def recorded(way: Way, results: Path) -> dict[str, Any]:
    """The share of test rows that were told rightly, and log p(x) with its standard error, where they were measured.

    Raises
    ------
    ValueError
        When the trial has left no result.
    """
    path = results / f"{kebab(way.made.__name__)}-{way.scale}.json"
    do = f"run ravine reproduce {way.title}"
    require(path.exists(), path.name, "what a trial has measured", "no such file", do)
    result = json.loads(path.read_text(encoding="utf-8"))
    measured = result["measured"]
    share = measured.get("accuracy", result.get("accuracy", {}).get("measured"))
    kept = {key: measured[key] for key in ("log_likelihood", "standard_error", "direction") if key in measured}
    return {"accuracy": share, "seeds": len(measured["seeds"]), "kept": list(way.kept)} | kept


def costs(way: Way, known: tuple[np.ndarray, np.ndarray], seed: int) -> list[dict[str, int | float]]:
    """Steps of each stage of a trial, and what one of them costs by the row."""
    fields = way.made.trials[way.scale].fields
    told = (known[1],) if issubclass(way.made, NetworkClassifier | LabelledModel) else ()
    short = {name: 2 for name in ("steps", "tuning") if name in way.made().get_params()}
    begun = way.made(**fields | short | {"progress": False, "random_state": seed}).fit(known[0], *told)
    bits = (known[0] > known[0].max() / 2).astype(begun.precision).reshape(len(known[0]), *begun.schema_.shape)
    made = []
    for stage in way.made(**fields).stages(TRAINED):
        n = stage.batch_size or len(bits)
        batch = Row(jnp.asarray(bits[:n]), y=jnp.asarray(known[1][:n]), y_mask=jnp.ones(n, bool))
        cost = step_cost(stage.rule, begun.model_, batch, key=jr.key(seed))
        made.append({"steps": stage.steps, "operations": cost.operations_per_row, "bytes": cost.bytes_per_row})
    return made


def mean_cost(stages: Sequence[Mapping[str, int | float]], which: str) -> float:
    """``operations`` or ``bytes`` by the row, over the steps of all stages."""
    return sum(stage["steps"] * stage[which] for stage in stages) / sum(stage["steps"] for stage in stages)


def words(result: Mapping[str, Any]) -> str:
    """A line for each way, as Markdown; the cost of a row is the mean over the steps of all stages."""
    lines = [[*HEADS, *ASKS], ["---"] * (len(HEADS) + len(ASKS))]
    for name, one in result["found"].items():
        error = "" if one["accuracy"] is None else f"{100 * (1 - one['accuracy']):.2f} %"
        nats = f"{one['log_likelihood']:.2f} ± {one['standard_error']:.2f}" if "log_likelihood" in one else ""
        means = [f"{mean_cost(one['stages'], which):.2g}" for which in ("operations", "bytes")]
        steps = sum(stage["steps"] for stage in one["stages"])
        lines.append([name, error, nats, *means, f"{steps}", *("yes" if kept else "no" for kept in one["kept"])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def picture(result: Mapping[str, Any]) -> Any:
    """Test error over the operations of the whole of learning. A matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name, one in result["found"].items():
        if one["accuracy"] is not None:
            work = sum(stage["steps"] * stage["operations"] for stage in one["stages"])
            axes.plot(work, 100 * (1 - one["accuracy"]), MARKS[len(axes.lines) % len(MARKS)], label=name)
    axes.set(xscale="log", xlabel="operations for each row of a batch, all steps", ylabel="test error, %")
    figure.legend(loc="outside right center", frameon=False)
    return figure
