"""One bit and the cost (b - 0.45)^2, learned by each gradient estimator. Tucker et al. 2017, arXiv:1703.07370.

The logit of a Bernoulli b is moved down the expected cost by Adam. It is least where b is always 0; the costs of 0 and
of 1 are so near each other that the noise of a poor estimator hides which is less, and a biased one may go elsewhere.
For each estimator, over the seeds: the expected cost along the way, and the standard deviation of one estimate of the
gradient where it has come to. REBAR, RELAX and NVIL learn in the same steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ravine import gradients as g
from ravine._spell import spell
from ravine._tree import as_arrays, strong
from ravine.core import AbstractGradient, Metrics, Row, Scalar, averaged
from ravine.dist import Bernoulli
from ravine.rules import Descend, Optimiser

SCALES: Mapping[str, Mapping[str, Any]] = {
    "small": {"target": 0.45, "steps": 5_000},
    "close": {"target": 0.499, "steps": 20_000},
}
RATE, DRAWS, POINTS = 0.01, 1000, 50
SOLVED = 0.1  # of the way between the two costs
ESTIMATORS: tuple[AbstractGradient, ...] = (
    *(g.Enumerate(), g.ScoreFunction(2), g.RLOO(2), g.NVIL(width=4), g.ARM(), g.DisARM(), g.MuProp()),
    *(g.REBAR(0.5), g.RELAX(g.REBAR(0.5), 8), g.StraightThrough(), g.GumbelSoftmax(0.5), g.StraightThroughGumbel(0.5)),
    g.ReinMax(1.0),
)


class Bit(eqx.Module):
    """The logit of one bit, and the estimator that learns beside it."""

    logits: Float[Array, " 1"]
    gradient: AbstractGradient

    def expected(self, target: float, *, key: PRNGKeyArray) -> Scalar:
        """The expected cost as the estimator sees it."""
        given = self.gradient.given(Row(jnp.zeros(1)))
        return given(lambda b: jnp.sum((b - target) ** 2), Bernoulli(self.logits), key=key)


class Expected(eqx.Module):
    """The expected cost of a `Bit`: an objective."""

    target: float = eqx.field(static=True)

    def __call__(self, model: Bit, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        return averaged(lambda row, key: model.expected(self.target, key=key), batch, key=key), {}


def found(seeds: Sequence[int], target: float, steps: int) -> dict[str, Any]:
    """For each estimator, by name: mean cost and mean deviation at so many points, and the last cost of each seed.

    Examples
    --------
    >>> sorted(found([0], target=0.45, steps=50)["RLOO()"])
    ['cost', 'deviation', 'last']
    """
    return {spell(estimator): _curves(estimator, seeds, target, steps) for estimator in ESTIMATORS}


def _curves(estimator: AbstractGradient, seeds: Sequence[int], target: float, steps: int) -> dict[str, Any]:
    run = jax.jit(jax.vmap(lambda seed: _learned(estimator, seed, target, steps)))
    costs, noise = (np.asarray(part, float) for part in run(jnp.asarray(seeds)))
    curves = {"cost": costs.mean(axis=0), "deviation": noise.mean(axis=0), "last": costs[:, -1]}
    return {name: [float(f"{value:.6g}") for value in curve] for name, curve in curves.items()}


def _learned(
    estimator: AbstractGradient, seed: Array, target: float, steps: int
) -> tuple[Float[Array, " points"], Float[Array, " points"]]:
    """The expected cost along the way, and the standard deviation of an estimate of its slope there."""
    key, batch = jr.key(seed), Row(jnp.zeros((1, 1)))
    model = strong(as_arrays(Bit(jnp.zeros(1), estimator.learning(1, (1,), key=key))))
    rule = as_arrays(Descend(Expected(target), Optimiser(optax.adam, (RATE,))))
    arrays, rest = eqx.partition((model, rule.init(model, batch, key=key)), eqx.is_array)

    def step(arrays: Any, i: Array) -> tuple[Any, None]:
        model, state = eqx.combine(arrays, rest)
        model, state, _ = rule.step(model, state, batch, key=jr.fold_in(key, i), step=i)
        return eqx.filter((model, state), eqx.is_array), None

    def stretch(arrays: Any, i: Array) -> tuple[Any, tuple[Array, Array]]:
        arrays, _ = jax.lax.scan(step, arrays, i * (steps // POINTS) + jnp.arange(steps // POINTS))
        now = eqx.combine(arrays, rest)[0]
        noise = jnp.std(jax.vmap(lambda k: _slope(now, target, k))(jr.split(jr.fold_in(key, -1 - i), DRAWS)))
        p = jax.nn.sigmoid(now.logits[0])
        return arrays, (p * (1 - target) ** 2 + (1 - p) * target**2, noise)

    return jax.lax.scan(stretch, arrays, jnp.arange(POINTS))[1]


def _slope(model: Bit, target: float, key: PRNGKeyArray) -> Scalar:
    """One estimate of the derivative by the logit."""
    moved = lambda logits: eqx.tree_at(lambda m: m.logits, model, logits).expected(target, key=key)  # noqa: E731
    return jax.grad(moved)(model.logits)[0]


def words(result: Mapping[str, Any]) -> str:
    """A line for each estimator, as Markdown: how far it came, and how noisy it was half way."""
    target, steps = (result["settings"][name] for name in ("target", "steps"))
    least, most = target**2, (1 - target) ** 2
    heads = [f"cost after {steps} steps ({least:.4f} to {most:.4f})", "seeds that found 0", "deviation half way"]
    lines = [["estimator", *heads], ["---"] * (len(heads) + 1)]
    for name, runs in result["found"].items():
        costs = np.asarray(runs["last"])
        solved = np.sum(costs < least + SOLVED * (most - least))
        told = f"{costs.mean():.4f} ({costs.min():.4f} to {costs.max():.4f})"
        noise = f"{runs['deviation'][POINTS // 2]:.2g}"
        lines.append([f"`{name}`", told, f"{solved} of {len(costs)}", noise])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def picture(result: Mapping[str, Any]) -> Any:
    """Expected cost and deviation of one estimate along the steps, means over the seeds: a matplotlib figure."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    target, steps = (result["settings"][name] for name in ("target", "steps"))
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    cost, noise = figure.subplots(1, 2)
    at = (1 + np.arange(POINTS)) * (steps // POINTS)
    for i, (name, runs) in enumerate(result["found"].items()):
        line = {"color": colormaps["tab20"](i), "ls": ("-", "--")[i % 2], "label": name}
        cost.plot(at, runs["cost"], **line)
        if min(runs["deviation"]) > 0:
            noise.semilogy(at, runs["deviation"], **line)
    cost.set(xlabel="steps", ylabel="expected cost", title=f"cost along the way (least: {target**2:.4f})")
    noise.set(xlabel="steps", ylabel="standard deviation", title="one estimate of the gradient")
    figure.legend(*cost.get_legend_handles_labels(), loc="outside right center", fontsize="x-small")
    return figure
