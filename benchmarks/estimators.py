"""Training a categorical auto-encoder by three gradient estimators: Ravine's loop against a careful one in PyTorch.

Both sides have the same networks with the same starting weights, data, batch size, estimator and optimiser (Adam).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import estimators_torch
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from common import Contender, Effort, fastest, ratio, report, shown, spread, steps, take_turns, warmed
from estimators_torch import CategoricalBound
from vae import FOREVER, PIXELS, binary_digits
from vae_torch import compiled, eager

from ravine._spell import spell
from ravine.core import AbstractGradient, Row
from ravine.data import ArraySource, Schema
from ravine.gradients import RLOO, ReinMax, StraightThroughGumbel
from ravine.models.directed import Helmholtz
from ravine.objectives import AnalyticELBO
from ravine.recipes.gumbel_vae import GumbelVAE
from ravine.rules.descend import Descend, Optimiser
from ravine.train import Stage, train

LATENTS, CLASSES = 20, 10


class Case(NamedTuple):
    """An estimator here and there, and the network and batch it trains."""

    gradient: AbstractGradient
    peer: Any
    hidden: tuple[int, ...]
    batch: int

    def name(self) -> str:
        widths = "-".join(map(str, (PIXELS, *self.hidden, f"{LATENTS}x{CLASSES}")))
        return f"{spell(self.gradient)}, {widths}, batch {self.batch}"


PEERS = {
    StraightThroughGumbel(0.5): estimators_torch.straight_through_gumbel,
    ReinMax(1.3): estimators_torch.reinmax,
    RLOO(4): estimators_torch.leave_one_out,
}
CASES = [Case(ours, theirs, *size) for size in (((512, 256), 100), ((200,), 20)) for ours, theirs in PEERS.items()]


def main(effort: Effort) -> None:
    """Time every case, and report."""
    data, origin = binary_digits()
    results = {case.name(): compare(case, data, effort) for case in CASES}
    names = ["ravine / eager", "ravine / compiled"]
    cells = [[name, *(shown(found[n]) if n in found else "-" for n in names)] for name, found in results.items()]
    columns = ["estimator and network", "times eager", "times compiled"]
    report("estimators", columns, cells, {"data": origin, "rounds": effort.rounds, "sizes": results})


def compare(case: Case, data: np.ndarray, effort: Effort) -> dict[str, Any]:
    """How many times as fast as the peers."""
    model = GumbelVAE(latents=LATENTS, classes=CLASSES, hidden=case.hidden, gradient=case.gradient).build(
        Schema((PIXELS,), "binary"), key=jr.key(0)
    )
    bound = partial(CategoricalBound, model, LATENTS, CLASSES, case.peer)
    contenders, notes = [ravine(case, data, model), fastest(eager(case.batch, data, bound))], {}
    try:
        contenders.append(fastest(compiled(case.batch, data, bound)))
    except Exception as error:  # no compiler, or one that this PyTorch cannot use
        notes["compiled"] = f"{type(error).__name__}: {error}".splitlines()[0]
    rates = {name.partition(",")[0]: v for name, v in take_turns([*map(warmed, contenders)], effort).items()}
    ratios = {f"ravine / {name}": ratio(rates["ravine"], rates[name]) for name in rates if name != "ravine"}
    return notes | ratios | {"steps per second": {name: spread(values) for name, values in rates.items()}}


def ravine(case: Case, data: np.ndarray, model: Helmholtz) -> Contender:
    """The bare rule in the loop."""
    rule = Descend(AnalyticELBO(case.gradient), Optimiser(optax.adam, (1e-3,)))
    chunks = train(model, [Stage(rule, FOREVER, case.batch)], ArraySource(Row(jnp.asarray(data))), key=jr.key(1))
    return Contender("ravine", steps(chunks))
