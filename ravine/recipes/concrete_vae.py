"""Bits trained as Concrete variables. Maddison, Mnih & Teh 2017, arXiv:1611.00712, sections 4 and 5.

Paper: 92.1 nats (NLL, static MNIST, one layer of 200 bits and two of tanh units, 1 draw), table 1; 107.3 with an
affine map for the two layers; see `ravine reproduce concrete-vae`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Fixed
from ravine.core import AbstractEvidence, Objective
from ravine.data import AnySchema
from ravine.dist import AbstractLink
from ravine.estimator import LatentVariableModel
from ravine.evidence import ImportanceWeighted
from ravine.gradients import Pathwise
from ravine.models.belief_net import belief_net
from ravine.models.directed import Helmholtz
from ravine.nets import Links
from ravine.objectives import IWAE, Centring, Relaxed
from ravine.recognisers import Filled, bits_upwards
from ravine.rules import Descend, Optimiser
from ravine.train import Stage
from ravine.trial import Trial, belief_nets

EPOCHS_10 = {"rate": 1e-3, "batch_size": 100, "steps": 5_000, "evidence": ImportanceWeighted(64)}
EPOCHS_64 = {"links": "~", "rate": 1e-3, "steps": 50_000, "patience": 1000}
FIRST = "Maddison et al. 2017, table 1, 200H~784V, m = 1; there 10 million steps, 200 times as many"
LONG = {"steps": 10_000_000, "patience": 1000, "evidence": ImportanceWeighted(50_000)}
TABLE_1 = {
    ("", ""): (92.1, 89.5, 88.5),
    ("-linear", ""): (107.3, 104.9, 104.3),
    ("-2", ""): (87.9, 86.3, 85.7),
    ("-linear-2", ""): (102.1, 99.9, 99.5),
    ("", "-omniglot"): (108.4, 107.5, 108.1),
    ("-linear", "-omniglot"): (118.7, 118.0, 118.9),
    ("-2", "-omniglot"): (105.9, 105.8, 106.8),
    ("-linear-2", "-omniglot"): (116.3, 116.0, 117.0),
}
TRIALS = belief_nets(TABLE_1, LONG, EPOCHS_10, lambda draws: IWAE(draws, Pathwise())) | {
    "long": Trial("mnist", EPOCHS_64, -92.1, FIRST)
}


class ConcreteVAE(LatentVariableModel):
    """The belief net of `SigmoidBeliefNet`, trained with its bits relaxed to numbers between 0 and 1.

    Prior, posterior and draws are relaxed together, and the draws differentiated. What is fitted is the discrete model:
    likelihoods, samples and reconstructions come from bits, and early stopping looks at its bound.

    Parameters
    ----------
    layers : number of bits of each layer, the one farthest from the data first.
    links : what is between layers: ``"-"`` an affine map, ``"~"`` two layers of tanh units of the width of the layer
        of bits above.
    likelihood : how the generator's outputs become p(x | z); None picks the one for the kind of cells.
    objective : the bound of the relaxed model that is lowered, such as ``IWAE(5, Pathwise())`` or ``DReG(5)``.
    posterior, prior : temperatures of the relaxed q(z | x) and p(z), numbers or schedules.
    rate : step size of Adam, a number or a schedule.
    batch_size, steps : rows per step, and the number of steps at most.

    Examples
    --------
    >>> import numpy as np
    >>> X = (np.random.default_rng(0).uniform(size=(60, 6)) < 0.3).astype(float)
    >>> ConcreteVAE(layers=(3,), steps=20, random_state=0).fit(X).transform(X).shape
    (60, 3)
    """

    layers: tuple[int, ...] = (200,)
    links: Links = "-"
    likelihood: AbstractLink | None = None
    objective: Objective = IWAE(1, Pathwise())
    posterior: float | AbstractSchedule = 2 / 3
    prior: float | AbstractSchedule = 1 / 2
    rate: float | AbstractSchedule = 3e-4
    batch_size: int = 64
    steps: int = 50_000
    evidence: AbstractEvidence = ImportanceWeighted(1000)
    standardise: bool = True

    kinds: ClassVar[tuple[str, ...]] = (*LatentVariableModel.kinds, "mixed")
    trials: ClassVar[Mapping[str, Trial]] = TRIALS

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> Helmholtz:
        """The belief net and its recogniser, sized for the data."""
        down, up = jr.split(key)
        base = jnp.asarray(schema.base).reshape(schema.shape)
        read = Filled(Fixed(base), tells=schema.holes, counts=schema.counts)
        p = belief_net(self.layers, self.links, schema.link(self.likelihood), base, key=down)
        return Helmholtz(p, bits_upwards(self.layers, self.links, read, key=up))

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent on the relaxed bound."""
        relaxed = Centring(Relaxed(self.objective, self.posterior, self.prior))
        return [Stage(Descend(relaxed, Optimiser(optax.adam, (self.rate,))), self.steps, self.batch_size)]
