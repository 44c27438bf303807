"""What few hidden units that know a label leave to the others, and what that costs. arXiv:2206.11600.

Fernandez-de-Cossio-Diaz, Cocco & Monasson 2023. Restricted Boltzmann machines of which all units may know the label,
or one, the inputs of the others being uncorrelated with it; and the same with a penalty on second moments, too. On
the Ising model the label is the sign of the magnetisation, log Z is exact, and second moments tell nothing by symmetry;
on the digits 0 and 1 the label is the digit.
For each machine: log p of the test rows, how often a linear classifier of the inputs finds the label of a test row,
and how often a row that was given the other label is taken for it, while its other features stay correlated: where
all units are released nothing of the row is left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._jax import highest_matmul, precision
from ravine._tree import Fixed, Linear, Part
from ravine.core import Row
from ravine.data import ArraySource, load_dataset
from ravine.data.ising import ising
from ravine.evidence.normalised import usual_partition
from ravine.models.disentangled import constrained, relabelled, with_labels
from ravine.models.energy import Harmonium
from ravine.models.units import BinaryUnits
from ravine.objectives import Contrast
from ravine.rules import Contrastive, ContrastiveDivergence, gradient_descent
from ravine.rules.projections import ZeroSum, disentangling, with_second_order
from ravine.train import Stage, train

SCALES: Mapping[str, Mapping[str, Any]] = {
    "small": {"data": "ising", "hidden": 16, "steps": 8_000, "rate": 0.2, "k": 5, "penalty": 0.0},
    "digits": {"data": "digits", "hidden": 256, "steps": 2_000, "rate": 0.05, "k": 1, "penalty": 0.01},
}
SWEEPS = (1, 3, 10)  # of an edit
Pair = tuple[np.ndarray, np.ndarray]
BATCH = 128
EDITED = 1000  # test rows


class Sides(NamedTuple):
    """Training and test rows of bits, their labels, 0 or 1, and features of a row that are none of the label."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    features: Mapping[str, Callable[[np.ndarray], np.ndarray]]


def found(
    seeds: Sequence[int], data: str, hidden: int, steps: int, rate: float, k: int, penalty: float
) -> dict[str, dict[str, list[float]]]:
    """For each machine, by its name, what was measured of each seed; ``k`` is that of contrastive divergence.

    Examples
    --------
    >>> sorted(found([0], "ising", hidden=2, steps=2, rate=0.1, k=1, penalty=0.0)["one released"])[:3]
    ['by constrained inputs', 'by released inputs', 'edited, 1 sweeps']
    """
    sides = _ising() if data == "ising" else _digits()
    judge, many = logistic(sides.x, sides.y), (hidden, steps, rate, k)
    kinds = {"all released": (hidden, 0.0), "one released": (1, 0.0)}
    kinds |= {"and second moments": (1, penalty)} if penalty else {}
    made: dict[str, dict[str, list[float]]] = {}
    for name, (free, weight) in kinds.items():
        runs = [_measured(_trained(sides, free, weight, seed, *many), sides, judge) for seed in seeds]
        made[name] = {what: [float(f"{run[what]:.6g}") for run in runs] for what in runs[0]}
    return made


def _ising() -> Sides:
    data = ising()
    (y, test_y), test = cast(Pair, data.labels), cast(np.ndarray, data.test)
    return Sides(data.train.astype(float), y, test.astype(float), test_y, {"wave": wave})


def _digits() -> Sides:
    data = load_dataset("mnist-grey")
    parts = zip(cast(Pair, (data.train, data.test)), cast(Pair, data.labels), strict=True)
    pairs = [(x[y < 2] > 127, y[y < 2]) for x, y in parts]
    (x, y), (test_x, test_y) = ((x.astype(float), y.astype(int)) for x, y in pairs)
    return Sides(x, y, test_x, test_y, {"ink": lambda x: x.sum(axis=1), "slant": slant})


def wave(x: np.ndarray) -> np.ndarray:
    """How much of one wave across a lattice there is: it does not tell how many spins point up.

    Examples
    --------
    >>> wave(np.eye(9)[:1]).tolist()
    [1.0]
    """
    side = round(x.shape[1] ** 0.5)
    return x.reshape(-1, side, side).sum(axis=1) @ np.cos(2 * np.pi * np.arange(side) / side)


def slant(x: np.ndarray) -> np.ndarray:
    """How far the ink of an image moves to the side from one line to the next, by its second moments.

    Examples
    --------
    >>> slant(np.eye(3).reshape(1, 9)).tolist()
    [1.0]
    """
    side = round(x.shape[1] ** 0.5)
    share = (x / np.maximum(x.sum(axis=1, keepdims=True), 1)).reshape(-1, side, side)
    down, across = np.mgrid[:side, :side]
    down, across = (at - (share * at).sum(axis=(1, 2), keepdims=True) for at in (down, across))
    return (share * down * across).sum(axis=(1, 2)) / np.maximum((share * down**2).sum(axis=(1, 2)), 1e-9)


def _trained(
    sides: Sides, free: int, penalty: float, seed: int, hidden: int, steps: int, rate: float, k: int
) -> Harmonium:
    """A machine that was trained in double precision."""
    with precision("float64"):
        begin, go = jr.split(jr.key(seed))
        visible, units = BinaryUnits().sized((sides.x.shape[1],), sides.x.mean(axis=0)), BinaryUnits().sized((hidden,))
        coupling = constrained(0.01 * jr.normal(begin, (visible.size, hidden)), free, 2)
        contrast = with_second_order(Contrast(0.0, Part("coupling.weight")), penalty)
        optimiser = gradient_descent(Linear(rate, 0.0, float(steps)))
        rule = disentangling(Contrastive(contrast, ContrastiveDivergence(k), optimiser), ZeroSum())
        source = ArraySource(Row(jnp.asarray(sides.x), y=jnp.asarray(sides.y)))
        stage = Stage(rule, steps, BATCH, prepare=with_labels)
        *_, last = train(Harmonium(visible, units, coupling, Fixed(visible)), [stage], source, key=go)
        return last.state.model


def _measured(model: Harmonium, sides: Sides, judge: np.ndarray) -> dict[str, float]:
    free = model.coupling.free  # pyright: ignore[reportAttributeAccessIssue]
    with precision("float64"), highest_matmul():
        log_z = usual_partition(model)(model, key=jr.key(0)).value
        energy = np.mean(np.asarray(jax.jit(jax.vmap(model.energy))(jnp.asarray(sides.test_x))))
        inputs, test = (np.asarray(jax.jit(jax.vmap(model.up))(jnp.asarray(x))) for x in (sides.x, sides.test_x))
    told = {"log_likelihood": float(-energy - log_z)}
    told["by released inputs"] = told_right(inputs[:, :free], sides.y, test[:, :free], sides.test_y)
    if free < inputs.shape[1]:
        told["by constrained inputs"] = told_right(inputs[:, free:], sides.y, test[:, free:], sides.test_y)
        away, labels = inputs[:, free:] - inputs[:, free:].mean(axis=0), sides.y - sides.y.mean()
        told["largest covariance"] = float(np.max(np.abs(away.T @ labels / len(labels))))
        told["second moments"] = _second_moments(away, labels)
    return told | _edits(model, sides, judge)


def _second_moments(inputs: np.ndarray, labels: np.ndarray) -> float:
    """How much the covariance of the inputs differs between two labels, over what it is on the whole."""
    apart = (inputs * labels[:, None]).T @ inputs / labels.var()
    return float(np.linalg.norm(apart) / np.linalg.norm(inputs.T @ inputs))


def _edits(model: Harmonium, sides: Sides, judge: np.ndarray) -> dict[str, float]:
    """The share of test rows that are taken for the label they were given, and what is left of other features."""
    x, other, made = sides.test_x[:EDITED], 1 - sides.test_y[:EDITED], {}
    for sweeps in SWEEPS:
        with precision("float64"):
            rows = Row(jnp.asarray(x), y=jnp.asarray(other))
            after = np.asarray(_edited(model, rows, jnp.asarray(sweeps), jr.key(sweeps)))
        made[f"edited, {sweeps} sweeps"] = float(np.mean((after @ judge[:-1] + judge[-1] > 0) == other))
        for name, value in sides.features.items():
            made[f"{name}, {sweeps} sweeps"] = _correlation(value(x), value(after), other)
    return made


@eqx.filter_jit
def _edited(model: Harmonium, rows: Row, sweeps: Array, key: PRNGKeyArray) -> Array:
    keys = jr.split(key, rows.x.shape[0])
    return jax.vmap(lambda row, k: relabelled(model, row, row.y, sweeps, key=k))(rows, keys)


def _correlation(before: np.ndarray, after: np.ndarray, other: np.ndarray) -> float:
    """Of a feature before and after, the mean over the two labels."""
    return float(np.mean([np.corrcoef(before[other == k], after[other == k])[0, 1] for k in (0, 1)]))


def logistic(x: Float[np.ndarray, "rows columns"], y: np.ndarray) -> Float[np.ndarray, " columns_and_one"]:
    """Weights and bias of a logistic regression, with half the sum of the squared weights of standardised columns.

    Examples
    --------
    >>> weights = logistic(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1]))
    >>> bool(weights[0] > 0), round(float(-weights[1] / weights[0]), 3)
    (True, 1.5)
    """
    from scipy.optimize import minimize

    mean, scale = x.mean(axis=0), np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    z, sign = (x - mean) / scale, 2 * y - 1

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (z @ w[:-1] + w[-1])
        slope = -sign / (1 + np.exp(np.clip(margin, -500, 500)))
        penalty = np.append(w[:-1], 0)
        return np.logaddexp(0, -margin).sum() + 0.5 * penalty @ penalty, np.append(slope @ z, slope.sum()) + penalty

    w = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    return np.append(w[:-1] / scale, w[-1] - w[:-1] @ (mean / scale))


def told_right(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> float:
    """The share of test rows whose label a linear classifier finds.

    Examples
    --------
    >>> x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
    >>> told_right(x, y, x, y)
    1.0
    """
    w = logistic(x, y)
    return float(np.mean((test_x @ w[:-1] + w[-1] > 0) == test_y))


def words(result: Mapping[str, Any]) -> str:
    """A line for each measurement and a column for each machine, as Markdown: the mean over the seeds."""
    machines = result["found"]
    rows = list(dict.fromkeys(what for runs in machines.values() for what in runs))
    lines = [["", *machines], ["---"] * (len(machines) + 1)]
    lines += [[what, *(_mean(runs.get(what)) for runs in machines.values())] for what in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _mean(values: Sequence[float] | None) -> str:
    return "" if values is None else f"{np.mean(values):.4g}"


def picture(result: Mapping[str, Any]) -> Any:
    """What linear classifiers find, and what edits do, machine by machine: a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    probes, edits = figure.subplots(1, 2)
    told = ("by released inputs", "by constrained inputs")
    for i, (name, runs) in enumerate(result["found"].items()):
        shares = [np.mean(runs.get(what, np.nan)) for what in told]
        probes.bar(np.arange(2) + 0.25 * i, shares, 0.25, label=name)
        edits.plot(SWEEPS, [np.mean(runs[f"edited, {k} sweeps"]) for k in SWEEPS], "o-", label=name)
    probes.set(xticks=np.arange(2) + 0.25, xticklabels=told, ylim=(0.4, 1), title="share of labels found")
    edits.set(xscale="log", xlabel="sweeps", title="share of rows with the label they were given")
    probes.legend(fontsize="small")
    return figure
