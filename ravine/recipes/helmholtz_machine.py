"""Helmholtz machine. Hinton, Dayan, Frey & Neal 1995, *The wake-sleep algorithm for unsupervised neural networks*.

By default with the reweighted lesson of Bornschein & Bengio 2015, arXiv:1406.2751. The trials put the two side by side
on three layers of 200 bits; neither paper reports that net, as far as we know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Fixed, Linear
from ravine.core import AbstractEvidence, AbstractLatentModel, Objective
from ravine.data import AnySchema
from ravine.dist import AbstractLink
from ravine.estimator import LatentVariableModel
from ravine.evidence import ImportanceWeighted
from ravine.latent_layers import LatentLayer, as_layers
from ravine.models.belief_net import layered_net
from ravine.models.directed import Helmholtz, with_learned
from ravine.objectives import Centring, ReweightedWakeSleep, WakeSleep
from ravine.recognisers import Filled, layers_upwards
from ravine.rules import Descend, Optimiser
from ravine.train import Stage
from ravine.trial import Trial

UNKNOWN = "Bornschein & Bengio 2015, arXiv:1406.2751, report other nets: no number of this very net is known to us"
WAYS: dict[str, dict[str, Any]] = {
    "small": {"steps": 50_000, "objective": ReweightedWakeSleep(5), "rate": Linear(3e-3, 0.0, 50_000.0)},
    "small-wake-sleep": {"steps": 120_000, "objective": WakeSleep(), "rate": Linear(3e-3, 0.0, 120_000.0)},
}
LONG = {"layers": (200, 200, 200), "batch_size": 100, "patience": 1000, "evidence": ImportanceWeighted(1000)}
TRIALS = {scale: Trial("mnist", LONG | way, None, UNKNOWN) for scale, way in WAYS.items()}


class HelmholtzMachine(LatentVariableModel):
    """Layers of latents and a recogniser that is their mirror image: each of the two learns from what the other draws.

    Layers are of bits, or of any law with deterministic layers below it: see `ravine.latent_layers.LatentLayer`. The
    prior of a top layer of bits, classes, levels or counts is learned; that of real numbers is standard normal.

    Parameters
    ----------
    layers : the one farthest from the data first: a number of bits, or ``LatentLayer((8,), Real(), hidden=(64,))``,
        ``LatentLayer((20, 10), Classes())``, ...
    likelihood : how the generator's outputs become p(x | z); None picks the one for the kind of cells.
    objective : what is lowered: ``ReweightedWakeSleep(5)``, ``WakeSleep()``, ``Equilibrium()``; or a bound with an
        estimator that suits the layers, such as ``IWAE(5, VIMCO())``, or ``ELBO(Pathwise())`` of real numbers.
    rate : step size of Adam, a number or a schedule.
    batch_size, steps : rows per step, and the number of steps at most.

    Examples
    --------
    >>> import numpy as np
    >>> X = (np.random.default_rng(0).uniform(size=(60, 6)) < 0.3).astype(float)
    >>> HelmholtzMachine(layers=(2, 3), steps=20, random_state=0).fit(X).transform(X).shape
    (60, 5)
    """

    layers: tuple[int | LatentLayer, ...] = (200, 200, 200)
    likelihood: AbstractLink | None = None
    objective: Objective = ReweightedWakeSleep(5)
    rate: float | AbstractSchedule = 1e-3
    batch_size: int = 100
    steps: int = 50_000
    evidence: AbstractEvidence = ImportanceWeighted(1000)
    standardise: bool = True

    kinds: ClassVar[tuple[str, ...]] = (*LatentVariableModel.kinds, "mixed")
    trials: ClassVar[Mapping[str, Trial]] = TRIALS

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> AbstractLatentModel:
        """The generator and its recogniser, sized for the data, and what an estimator learns."""
        down, up, beside = jr.split(key, 3)
        base = jnp.asarray(schema.base).reshape(schema.shape)
        read = Filled(Fixed(base), tells=schema.holes, counts=schema.counts)
        layers = as_layers(self.layers)
        p = layered_net(layers, schema.link(self.likelihood), base, key=down)
        model = Helmholtz(p, layers_upwards(layers, read, key=up))
        return with_learned(model, self.objective, schema.width, [z.cells() for z in layers[::-1]], key=beside)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent."""
        rule = Descend(Centring(self.objective), Optimiser(optax.adam, (self.rate,)))
        return [Stage(rule, self.steps, self.batch_size)]
