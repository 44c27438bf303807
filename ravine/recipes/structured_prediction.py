"""Half of a picture from the other half, through layers of bits. Maddison, Mnih & Teh 2017, arXiv:1611.00712.

Paper: 58.5 nats (lower half of static MNIST given the upper half, two layers of 240 bits, bound of 100 draws after
training with 1), figure 4; see `ravine reproduce structured-prediction`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule
from ravine.core import AbstractEvidence, AbstractLatentModel, Objective
from ravine.data import AnySchema
from ravine.dist import AbstractLink
from ravine.evidence import ImportanceWeighted
from ravine.given import ConditionalModel, cells, places
from ravine.gradients import Pathwise
from ravine.models.conditioned import conditioned_net
from ravine.models.directed import Helmholtz, with_learned
from ravine.nets import Links
from ravine.objectives import IWAE, Centring, Relaxed
from ravine.recognisers import Unlooked
from ravine.rules import Descend, Optimiser
from ravine.train import Stage
from ravine.trial import Trial

HALF = {"given": 392, "layers": (240, 240), "evidence": ImportanceWeighted(100)}
SHORT = HALF | {"rate": 1e-3, "batch_size": 100, "steps": 5_000}
ANCHOR = "no paper: 10 epochs of static MNIST; the paper trains 2,000 times as long"
FIGURE_4 = "figure 4, 392V-240H-240H-392V, m = 1; there with weight decay"


class StructuredPrediction(ConditionalModel):
    """Layers of bits between the given columns and the others, trained relaxed or by any other gradient estimator.

    What is fitted is p(others | given) of the discrete model. The proposal of latents is their law given the given
    columns, so that the bound of m draws is ``log 1/m sum_i p(others | z_i)``.

    Parameters
    ----------
    given : the first so many columns, or a list of columns by name or place; they must be observed.
    layers : number of bits of each layer, that nearest to the given columns first.
    links : what is between layers: ``"-"`` an affine map, ``"~"`` two layers of tanh units.
    likelihood : how the outputs become the law of a row; None picks the one for the kind of cells.
    objective : what is lowered: ``Relaxed(IWAE(5, Pathwise()), 2 / 3, 2 / 3)``, ``IWAE(5, VIMCO())``,
        ``ELBO(RLOO(4))``, ``ELBO(StraightThroughGumbel(1.0))``, ...
    rate : step size of Adam, a number or a schedule.
    batch_size, steps : rows per step, and the number of steps at most.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.repeat(np.random.default_rng(0).uniform(size=(60, 3)) < 0.5, 2, axis=1).astype(float)
    >>> model = StructuredPrediction(given=2, layers=(3,), steps=20, random_state=0).fit(X)
    >>> model.sample_given(X[:1], draws=5).shape
    (5, 1, 6)
    """

    given: int | tuple[Any, ...] = 1
    layers: tuple[int, ...] = (200, 200)
    links: Links = "-"
    likelihood: AbstractLink | None = None
    objective: Objective = Relaxed(IWAE(1, Pathwise()), 2 / 3, 2 / 3)
    rate: float | AbstractSchedule = 3e-4
    batch_size: int = 64
    steps: int = 50_000
    evidence: AbstractEvidence = ImportanceWeighted(1000)
    standardise: bool = True

    kinds: ClassVar[tuple[str, ...]] = (*ConditionalModel.kinds, "mixed")
    trials: ClassVar[Mapping[str, Trial]] = {
        "small": Trial("mnist", SHORT, None, ANCHOR),
        "paper": Trial("mnist", HALF | {"steps": 10_000_000, "patience": 1000}, -58.5, FIGURE_4),
    }

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> AbstractLatentModel:
        """The net, sized for the data, and what the estimator learns."""
        down, beside = jr.split(key)
        base = jnp.asarray(schema.base).reshape(schema.shape)
        there = cells(places(self.given, schema), schema)
        net = conditioned_net(self.layers, self.links, schema.link(self.likelihood), base, there, key=down)
        return with_learned(Helmholtz(net, Unlooked()), self.objective, schema.width, self.layers, key=beside)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent."""
        rule = Descend(Centring(self.objective), Optimiser(optax.adam, (self.rate,)))
        return [Stage(rule, self.steps, self.batch_size)]
