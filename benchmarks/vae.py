"""Training a variational auto-encoder: Ravine's loop against a careful loop in PyTorch, eager and compiled.

Both sides have the same networks with the same starting weights, data, batch size, objective (the evidence lower bound
with its divergence in closed form) and optimiser (Adam, step size 1e-3).
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from common import (
    Contender,
    Effort,
    fastest,
    matmul_peak,
    ratio,
    report,
    shown,
    spread,
    steps,
    take_turns,
    warmed,
)
from vae_torch import Bound, compiled, eager

from ravine._tree import Fixed
from ravine.core import Objective, Row
from ravine.data import ArraySource, Schema
from ravine.dist import Bits, Conditional, Gaussian, Real
from ravine.fitting import plan
from ravine.gradients import Pathwise
from ravine.models.directed import Directed, Helmholtz
from ravine.nets import MLP
from ravine.objectives import AnalyticELBO
from ravine.recipes.vae import VAE
from ravine.recognisers import Amortised, Filled
from ravine.rules.descend import Descend, Optimiser
from ravine.train import Stage, train

PIXELS = 784
FOREVER = 2**30
TRACES = 0


class Size(NamedTuple):
    """A network 784-hidden-latents, mirrored in the generator, and the batch it trains on."""

    hidden: tuple[int, ...]
    latents: int
    batch: int

    def name(self) -> str:
        widths = "-".join(map(str, (PIXELS, *self.hidden, self.latents)))
        return f"{widths}, batch {self.batch}"

    def operations(self) -> int:
        """Floating-point operations of one step: two forwards, four backwards, per weight and row."""
        up, down = (PIXELS, *self.hidden, 2 * self.latents), (self.latents, *self.hidden[::-1], PIXELS)
        return 6 * self.batch * sum(a * b for widths in (up, down) for a, b in itertools.pairwise(widths))


SIZES = (Size((400, 400), 20, 128), Size((200, 200), 50, 20), Size((200, 200), 50, 100), Size((400, 400), 20, 500))


def main(effort: Effort) -> None:
    """Time every size, count the traces of three fits, and report."""
    data, origin = binary_digits()
    results = {size.name(): compare(size, data, effort) for size in SIZES}
    columns = ["network", "times eager", "as default fit", "times compiled", "share of peak", "eager's share"]
    names = ["ravine / eager", "default fit / eager", "ravine / compiled", "ravine share", "eager share"]
    cells = [[name, *(_cell(result, n) for n in names)] for name, result in results.items()]
    traces = count_traces(data[:1000])
    report("vae", columns, cells, {"data": origin, "rounds": effort.rounds, "traces": traces, "sizes": results})
    print("traces of the objective in three fits of one recipe:", traces)


def _cell(result: dict[str, Any], name: str) -> str:
    return shown(result[name], "%" if "share" in name else "") if name in result else "-"


def binary_digits() -> tuple[np.ndarray, str]:
    """Binary MNIST where the environment variable RAVINE_DATA says it lies; random bits otherwise."""
    path = Path(os.environ.get("RAVINE_DATA", ".")) / "mnist_binarized_larochelle.npz"
    if path.exists():
        return np.load(path)["x_train"].reshape(-1, PIXELS).astype(np.float32), path.name
    return np.random.default_rng(0).integers(0, 2, (50_000, PIXELS)).astype(np.float32), "random bits"


def compare(size: Size, data: np.ndarray, effort: Effort) -> dict[str, Any]:
    """Ratios and shares of the machine's peak for one size of network."""
    model = network(size)
    bound = lambda: Bound(model)  # noqa: E731
    contenders = [ravine(size, data, model), default_fit(size, data), fastest(eager(size.batch, data, bound))]
    notes = {}
    try:
        contenders.append(fastest(compiled(size.batch, data, bound)))
    except Exception as error:  # no compiler, or one that this PyTorch cannot use
        notes["compiled"] = f"{type(error).__name__}: {error}".splitlines()[0]
    rates = take_turns([*map(warmed, contenders), warmed(matmul_peak())], effort)
    return notes | _summary(rates, size.operations())


def _summary(rates: dict[str, list[float]], operations: int) -> dict[str, Any]:
    peak = rates.pop("peak")
    plain = {name.partition(",")[0]: values for name, values in rates.items()}
    peers = [name for name in ("eager", "compiled") if name in plain]
    pairs = itertools.product(("ravine", "default fit"), peers)
    ratios = {f"{ours} / {theirs}": ratio(plain[ours], plain[theirs]) for ours, theirs in pairs}
    shares = {f"{name} share": ratio([operations * v for v in values], peak) for name, values in plain.items()}
    paces = {name: spread(values) for name, values in rates.items()}
    return ratios | shares | {"steps per second": paces, "peak gigaflops": spread(v / 1e9 for v in peak)}


def network(size: Size) -> Helmholtz:
    """The model both sides start from."""
    down, up = jr.split(jr.key(0))
    z = (size.latents,)
    p = Conditional(MLP(size.latents, PIXELS, size.hidden[::-1], jnp.tanh, key=down), Bits(), (PIXELS,))
    q = Conditional(MLP(PIXELS, 2 * size.latents, size.hidden, jnp.tanh, key=up), Real(), z)
    prior = Fixed(Gaussian(jnp.zeros(z), jnp.ones(z)))
    return Helmholtz(Directed(prior, p), Amortised(Filled(Fixed(jnp.zeros(PIXELS))), q))


def ravine(size: Size, data: np.ndarray, model: Helmholtz) -> Contender:
    """The bare rule in the loop."""
    source = ArraySource(Row(jnp.asarray(data)))
    return Contender("ravine", steps(train(model, [Stage(descend(), FOREVER, size.batch)], source, key=jr.key(1))))


def default_fit(size: Size, data: np.ndarray) -> Contender:
    """As ``fit`` runs it: steps that are not finite are undone, and held-out rows are looked at once an epoch."""
    held, rest = (Row(jnp.asarray(rows)) for rows in np.split(data, [len(data) // 10]))
    recipe = VAE(latents=size.latents, hidden=size.hidden, batch_size=size.batch, steps=FOREVER, patience=FOREVER)
    made = plan(recipe, Schema((PIXELS,), "binary"), ArraySource(rest), held, key=jr.key(0))
    return Contender("default fit", steps(train(made.model, made.stages, made.source, key=made.key)))


def descend() -> Descend:
    """The rule of the recipe `VAE`."""
    return Descend(AnalyticELBO(Pathwise()), Optimiser(optax.adam, (1e-3,)))


class Counted(eqx.Module):
    """An objective that counts how often it is traced."""

    objective: Objective

    def __call__(self, model: Any, batch: Row, *, key: Any) -> Any:
        global TRACES
        TRACES += 1
        return self.objective(model, batch, key=key)


def count_traces(data: np.ndarray) -> list[int]:
    """How often the objective was traced in each of three fits of one recipe."""
    counts = []
    for seed in range(3):
        before = TRACES
        VAE(latents=2, hidden=(8,), steps=20, objective=Counted(AnalyticELBO(Pathwise())), random_state=seed).fit(data)
        counts.append(TRACES - before)
    return counts
