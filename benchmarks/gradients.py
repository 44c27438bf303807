"""How biased and how noisy each gradient estimator is: ``python benchmarks/gradients.py [--draws N]``.

Four small expectations whose gradient is known by enumeration: six bits and one categorical of five classes, each with
a cost that is quadratic in the draw and one that is not. For every estimator that can serve them: the size of its bias
and the standard deviation of one estimate, both relative to the size of the gradient, and the latter as if each
estimator had as many evaluations of the cost (the deviation times the root of their number). REBAR, RELAX and NVIL are
as they start, untrained. Writes ``results/gradients.md`` and ``results/gradients/found.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from ravine import gradients as G
from ravine._spell import spell
from ravine.core import AbstractDistribution
from ravine.dist import Bernoulli, OneHot

RESULTS = Path(__file__).parent / "results"
DRAWS, SEED = 50_000, 0
ESTIMATORS = (
    *(G.ScoreFunction(1), G.ScoreFunction(2), G.RLOO(2), G.RLOO(4), G.ARM(), G.DisARM(), G.MuProp(), G.REBAR(0.5)),
    *(G.PartialEnumerate(1), G.LocalExpectation(), G.StraightThrough()),
    *(cls(t) for cls in (G.GumbelSoftmax, G.StraightThroughGumbel, G.GumbelRao) for t in (1.0, 0.5, 0.1)),
    *(G.GappedStraightThrough(1.0), G.GappedStraightThrough(1.0, gap=None), G.ReinMax(1.0), G.ReinMax(1.3)),
)


class Case(NamedTuple):
    """An expectation over one node: its law, its logits, and the cost."""

    law: Callable[[Any], AbstractDistribution]
    logits: jax.Array
    cost: Callable[[jax.Array], jax.Array]


def cases() -> dict[str, Case]:
    """The four expectations, by a fixed seed."""
    stream = np.random.default_rng(SEED)
    made = {}
    for name, law, cells in (("six bits", Bernoulli, 6), ("five classes", OneHot, 5)):
        logits, a, b, c = (jnp.asarray(stream.normal(size=size)) for size in (cells, (cells, cells), cells, cells))
        made[f"{name}, quadratic"] = Case(law, 0.7 * logits, lambda z, a=a, b=b: z @ a @ z + b @ z + 1)
        made[f"{name}, bent"] = Case(law, 0.7 * logits, lambda z, b=b, c=c: jnp.sin(3 * c @ z) + jnp.exp(b @ z / 2) + 1)
    return made


def measured(case: Case, estimator: Any, draws: int) -> dict[str, float]:
    """Relative bias with its standard error, and relative deviation at equal evaluations."""
    value = lambda logits, key: estimator(case.cost, case.law(logits), key=key)  # noqa: E731
    exact = jax.grad(lambda logits: G.Enumerate()(case.cost, case.law(logits), key=jr.key(0)))(case.logits)
    keys = jr.split(jr.key(SEED), draws)
    got = np.asarray(jax.jit(jax.vmap(jax.grad(value), (None, 0)))(case.logits, keys)).reshape(draws, -1)
    size, variance = float(jnp.linalg.norm(exact)), float(got.var(axis=0).sum())
    evaluations = estimator.calls(case.law(case.logits))
    return {
        "evaluations": evaluations,
        "bias": float(np.linalg.norm(got.mean(axis=0) - exact)) / size,
        "bias_error": (variance / draws) ** 0.5 / size,
        "deviation": (variance * evaluations) ** 0.5 / size,
    }


def main() -> None:
    """Measure all, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=DRAWS)
    draws = parser.parse_args().draws
    jax.config.update("jax_enable_x64", True)
    found = {
        spell(estimator): {
            name: measured(case, estimator, draws)
            for name, case in cases().items()
            if estimator.refuses(case.law(case.logits)) is None
        }
        for estimator in ESTIMATORS
    }
    (RESULTS / "gradients").mkdir(parents=True, exist_ok=True)
    (RESULTS / "gradients" / "found.json").write_text(
        json.dumps({"draws": draws, "estimators": found}, indent=2) + "\n"
    )
    (RESULTS / "gradients.md").write_text(page(found))
    print(page(found))


def page(found: dict[str, Any]) -> str:
    """One table, an estimator a line: bias and deviation in each case."""
    names = list(cases())
    heads = ["estimator", "evaluations", *names]
    lines = [heads, ["---"] * len(heads)]
    for estimator, by_case in found.items():
        counts = sorted({str(one["evaluations"]) for one in by_case.values()})
        lines.append([f"`{estimator}`", " or ".join(counts), *(cell(by_case.get(name)) for name in names)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def cell(one: dict[str, float] | None) -> str:
    """Bias and deviation; a bias within three standard errors is none that was seen."""
    if one is None:
        return ""
    seen = one["bias"] > 3 * one["bias_error"] + 1e-9
    return f"{one['bias']:.2f}\u00a0/\u00a0{one['deviation']:.2f}" if seen else f"0\u00a0/\u00a0{one['deviation']:.2f}"


if __name__ == "__main__":
    main()
