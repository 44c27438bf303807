"""Sigmoid belief net by VIMCO, or NVIL, RLOO, DisARM, ... Mnih & Rezende 2016, arXiv:1602.06725.

Paper: 91.4 nats (NLL, static MNIST, one layer of 200 bits and two of tanh units, VIMCO with 5 draws), as reported by
Maddison, Mnih & Teh 2017, arXiv:1611.00712, table 1; see `ravine reproduce sigmoid-belief-net`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Fixed
from ravine.core import AbstractEvidence, AbstractInference, AbstractLatentModel, Objective
from ravine.data import AnySchema
from ravine.dist import AbstractLink
from ravine.estimator import LatentVariableModel
from ravine.evidence import ImportanceWeighted
from ravine.gradients import NVIL, VIMCO
from ravine.models.belief_net import belief_net
from ravine.models.directed import Helmholtz, with_learned
from ravine.nets import Links
from ravine.objectives import ELBO, IWAE, Centring
from ravine.recognisers import Filled, bits_upwards
from ravine.rules import Descend, Optimiser
from ravine.train import Stage
from ravine.trial import Trial, belief_nets

EPOCHS_10 = {"rate": 1e-3, "batch_size": 100, "steps": 5_000, "evidence": ImportanceWeighted(64)}
LONG = {"steps": 10_000_000, "patience": 1000, "evidence": ImportanceWeighted(50_000)}
TABLE_1 = {
    ("", ""): (93.8, 91.4, 89.3),
    ("-linear", ""): (104.4, 101.9, 98.8),
    ("-2", ""): (88.4, 86.4, 85.5),
    ("-linear-2", ""): (92.9, 91.7, 90.7),
    ("", "-omniglot"): (116.4, 118.2, 116.0),
    ("-linear", "-omniglot"): (115.7, 113.5, 113.0),
    ("-2", "-omniglot"): (111.7, 108.2, 113.2),
    ("-linear-2", "-omniglot"): (109.2, 107.5, 108.1),
}
TRIALS = belief_nets(TABLE_1, LONG, EPOCHS_10, lambda draws: ELBO(NVIL()) if draws == 1 else IWAE(draws, VIMCO()))


class SigmoidBeliefNet(LatentVariableModel):
    """Layers of bits, each given the one above, and the data given the lowest; all draws discrete, also in training.

    Nets read bits as -1 and 1, less their running mean. The prior of the top layer is learned.

    Parameters
    ----------
    layers : number of bits of each layer, the one farthest from the data first.
    links : what is between layers: ``"-"`` an affine map, ``"~"`` two layers of tanh units of the width of the layer
        of bits above.
    likelihood : how the generator's outputs become p(x | z); None picks the one for the kind of cells.
    objective : what is lowered, with its gradient estimator: ``IWAE(5, VIMCO())``, ``ELBO(RLOO(4))``,
        ``ELBO(NVIL())``, ``ELBO(DisARM())``, ``ELBO(REBAR())``, ...
    inference : None learns a recognition network beside the generator; ``MeanFieldInference()``, ``GibbsSampling()``
        and ``ExactInference()`` work the posterior of each row out instead. ``VariationalEM()`` is the objective of the
        first and the last of them, ``MonteCarloEM()`` that of the other.
    rate : step size of Adam, a number or a schedule.
    batch_size, steps : rows per step, and the number of steps at most.

    Examples
    --------
    >>> import numpy as np
    >>> X = (np.random.default_rng(0).uniform(size=(60, 6)) < 0.3).astype(float)
    >>> SigmoidBeliefNet(layers=(2, 3), steps=20, random_state=0).fit(X).transform(X).shape
    (60, 5)
    """

    layers: tuple[int, ...] = (200,)
    links: Links = "-"
    likelihood: AbstractLink | None = None
    objective: Objective = IWAE(5, VIMCO())
    inference: AbstractInference | None = None
    rate: float | AbstractSchedule = 3e-4
    batch_size: int = 64
    steps: int = 50_000
    evidence: AbstractEvidence = ImportanceWeighted(1000)
    standardise: bool = True

    kinds: ClassVar[tuple[str, ...]] = (*LatentVariableModel.kinds, "mixed")
    trials: ClassVar[Mapping[str, Trial]] = TRIALS

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> AbstractLatentModel:
        """The belief net and its recogniser, sized for the data, and what the estimator learns."""
        down, up, beside = jr.split(key, 3)
        base = jnp.asarray(schema.base).reshape(schema.shape)
        read = Filled(Fixed(base), tells=schema.holes, counts=schema.counts)
        p = belief_net(self.layers, self.links, schema.link(self.likelihood), base, key=down)
        model = Helmholtz(p, self.inference or bits_upwards(self.layers, self.links, read, key=up))
        return with_learned(model, self.objective, schema.width, self.layers[::-1], key=beside)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent."""
        rule = Descend(Centring(self.objective), Optimiser(optax.adam, (self.rate,)))
        return [Stage(rule, self.steps, self.batch_size)]
