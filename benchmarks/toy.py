"""One bit and the cost (b - 0.45)^2, learned by each gradient estimator: ``python benchmarks/toy.py [--seeds N]``.

The problem of Tucker et al. 2017, arXiv:1703.07370, section 4.1: the logit of a Bernoulli b is moved down the expected
cost, which is least, 0.2025, where b is always 0; the two costs are so near each other that the noise of a poor
estimator hides which is less. For each estimator, over the seeds: the expected cost along the way, and the standard
deviation of one estimate of the gradient where it has come to. REBAR, RELAX and NVIL learn in the same steps. Writes
``results/toy/found.json``, ``results/toy.md`` and ``results/toy/curves.png``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np
import optax

from ravine import gradients as G
from ravine._spell import spell
from ravine._tree import as_arrays, strong
from ravine.core import AbstractGradient, Row, averaged
from ravine.dist import Bernoulli
from ravine.rules import Descend, Optimiser

RESULTS = Path(__file__).parent / "results"
TARGET, START, DRAWS, POINTS = 0.45, 0.0, 1000, 50
ESTIMATORS = (
    *(G.Enumerate(), G.ScoreFunction(2), G.RLOO(2), G.NVIL(width=4), G.ARM(), G.DisARM(), G.MuProp()),
    *(G.REBAR(0.5), G.RELAX(G.REBAR(0.5), 8), G.StraightThrough(), G.GumbelSoftmax(0.5), G.StraightThroughGumbel(0.5)),
    G.ReinMax(1.0),
)


class Bit(eqx.Module):
    """The logit of one bit, and the estimator that learns beside it."""

    logits: jax.Array
    gradient: AbstractGradient


def cost(b: jax.Array) -> jax.Array:
    """(b - 0.45)^2 of the one bit."""
    return jnp.sum((b - TARGET) ** 2)


def expected(model: Bit, batch: Row, *, key: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The expected cost as the estimator sees it: an objective."""

    def one(row: Row, key: Any) -> jax.Array:
        return model.gradient.given(row)(cost, Bernoulli(model.logits), key=key)

    return averaged(one, batch, key=key), {}


def slope(model: Bit, key: Any) -> jax.Array:
    """One estimate of the derivative by the logit."""
    value = lambda logits: model.gradient.given(Row(jnp.zeros(1)))(cost, Bernoulli(logits), key=key)  # noqa: E731
    return jax.grad(value)(model.logits)[0]


def learned(estimator: AbstractGradient, steps: int, seed: jax.Array, rate: float) -> tuple[jax.Array, jax.Array]:
    """The expected cost at so many points of the way, and the standard deviation of an estimate there."""
    key = jr.key(seed)
    model = strong(as_arrays(Bit(jnp.full(1, START), estimator.learning(1, (1,), key=key))))
    rule, batch = as_arrays(Descend(expected, Optimiser(optax.adam, (rate,)))), Row(jnp.zeros((1, 1)))
    arrays, rest = eqx.partition((model, rule.init(model, batch, key=key)), eqx.is_array)

    def step(arrays: Any, i: jax.Array) -> tuple[Any, None]:
        model, state = eqx.combine(arrays, rest)
        model, state, _ = rule.step(model, state, batch, key=jr.fold_in(key, i), step=i)
        return eqx.filter((model, state), eqx.is_array), None

    def stretch(arrays: Any, i: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        arrays, _ = jax.lax.scan(step, arrays, i * (steps // POINTS) + jnp.arange(steps // POINTS))
        now = eqx.combine(arrays, rest)[0]
        noise = jnp.std(jax.vmap(lambda k: slope(now, k))(jr.split(jr.fold_in(key, -1 - i), DRAWS)))
        p = jax.nn.sigmoid(now.logits[0])
        return arrays, (p * (1 - TARGET) ** 2 + (1 - p) * TARGET**2, noise)

    return jax.lax.scan(stretch, arrays, jnp.arange(POINTS))[1]


def main() -> None:
    """Learn by each, draw the curves, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("seeds", 20), ("steps", 5000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rate", type=float, default=0.01)
    settings = vars(parser.parse_args())
    found = {}
    for estimator in ESTIMATORS:
        run = jax.jit(jax.vmap(lambda seed, e=estimator: learned(e, settings["steps"], seed, settings["rate"])))
        costs, noise = (np.asarray(part, float) for part in run(jnp.arange(settings["seeds"])))
        curves = {"cost": costs.mean(axis=0), "deviation": noise.mean(axis=0), "last": costs[:, -1]}
        found[spell(estimator)] = {what: np.round(curve, 6).tolist() for what, curve in curves.items()}
        print(spell(estimator), costs[:, -1].mean(), noise[:, -1].mean(), flush=True)
    (RESULTS / "toy").mkdir(parents=True, exist_ok=True)
    (RESULTS / "toy" / "found.json").write_text(json.dumps({"settings": settings, "found": found}) + "\n")
    (RESULTS / "toy.md").write_text(page(found, settings))
    drawn(found, settings, RESULTS / "toy" / "curves.png")
    print(page(found, settings))


def page(found: dict[str, Any], settings: dict[str, Any]) -> str:
    """A line for each estimator: how far it came, and how noisy it was half way and in the end."""
    lines = [["estimator", f"expected cost after {settings['steps']} steps", "seeds below 0.21", "deviation half way"]]
    lines.append(["---"] * len(lines[0]))
    for name, runs in found.items():
        costs, noise = np.asarray(runs["last"]), runs["deviation"][POINTS // 2]
        told = f"{costs.mean():.4f} ({costs.min():.4f} to {costs.max():.4f})"
        lines.append([f"`{name}`", told, f"{np.sum(costs < 0.21)} of {len(costs)}", f"{noise:.2g}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def drawn(found: dict[str, Any], settings: dict[str, Any], path: Path) -> None:
    """Means over the seeds, a line for each estimator."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    at = (1 + np.arange(POINTS)) * (settings["steps"] // POINTS)
    for i, (name, runs) in enumerate(found.items()):
        line = {"color": plt.get_cmap("tab20")(i), "ls": ("-", "--")[i % 2], "label": name}
        axes[0].plot(at, runs["cost"], **line)
        if min(runs["deviation"]) > 0:
            axes[1].semilogy(at, runs["deviation"], **line)
    axes[0].set(xlabel="steps", ylabel="expected cost", title="cost along the way (least: 0.2025)")
    axes[1].set(xlabel="steps", ylabel="standard deviation", title="one estimate of the gradient")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize="x-small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
