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

from ravine._tree import AbstractSchedule, Decay
from ravine.core import AbstractEvidence, AbstractLatentModel, Objective
from ravine.data import AnySchema
from ravine.dist import AbstractLink
from ravine.evidence import ImportanceWeighted
from ravine.given import ConditionalModel, cells, places
from ravine.gradients import DARN, NVIL, VIMCO, GumbelSoftmax, MuProp, Pathwise, StraightThrough, StraightThroughGumbel
from ravine.models.conditioned import Layer, conditioned_net, units
from ravine.models.directed import Helmholtz, with_learned
from ravine.nets import Links
from ravine.objectives import ELBO, IWAE, Centring, Relaxed
from ravine.recognisers import Unlooked
from ravine.rules import Descend, Optimiser
from ravine.train import Stage
from ravine.trial import Trial

HALF = {"given": 392, "evidence": ImportanceWeighted(100)}
SHORT = HALF | {"rate": 1e-3, "batch_size": 100, "steps": 5_000}
LONG = HALF | {"steps": 10_000_000, "patience": 1000}
FIGURE_4 = {  # nets, method: nats after training with 1, 5 and 50 draws
    ("", ""): (58.5, 54.3, 53.4),
    ("", "-vimco"): (61.4, 54.5, 51.8),
    ("-3", ""): (56.3, 52.7, 52.0),
    ("-3", "-vimco"): (59.7, 53.5, 50.2),
}
NETS = {"": ("392V-240H-240H-392V", (240, 240)), "-3": ("392V-240H-240H-240H-392V", (240, 240, 240))}
JANG_TRAINED = "there by gradient descent with momentum, in steps unknown here"
WIDTHS = {"-bits": (200, 200), "-classes": ((20, 10), (20, 10))}
JANG = {  # estimator: nats by 1000 draws after training with 1, of bits and of classes
    "-gs": (GumbelSoftmax(1.0), 58.5, 59.0),
    "-st-gs": (StraightThroughGumbel(1.0), 59.3, 59.7),
    "-st": (StraightThrough(), 58.9, 61.8),
    "-annealed-st": (StraightThrough(Decay(1e-5, floor=0.5)), 58.7, 61.1),
    "-muprop": (MuProp(), 58.9, 63.0),
    "-darn": (DARN(), 59.7, 67.9),
    "-score": (NVIL(width=0), 72.0, 73.1),
}
TABLE_1 = {
    f"{kind}{name}": (layers, gradient, nats[i])
    for name, (gradient, *nats) in JANG.items()
    for i, (kind, layers) in enumerate(WIDTHS.items())
}


def trained(method: str, draws: int) -> Objective:
    """What figure 4 lowers: VIMCO, of which NVIL is the case of one draw, or the relaxed bound."""
    if not method:
        return Relaxed(IWAE(draws, Pathwise()), 2 / 3, 2 / 3)
    return IWAE(draws, VIMCO()) if draws > 1 else ELBO(NVIL())


TRIALS = {
    f"{scale}{net}{method}{suffix}": Trial(
        "mnist",
        fields | {"layers": NETS[net][1], "objective": trained(method, draws)},
        -value,
        f"Maddison et al. 2017, figure 4, {NETS[net][0]}, m = {draws}; there with weight decay{differs}",
    )
    for scale, fields, differs in (("small", SHORT, ", and 10 million steps, not 5,000"), ("paper", LONG, ""))
    for (net, method), values in FIGURE_4.items()
    for (draws, suffix), value in zip({1: "", 5: "-5", 50: "-50"}.items(), values, strict=True)
} | {
    f"{scale}{name}": Trial(
        "mnist",
        fields | {"layers": layers, "objective": ELBO(gradient), "evidence": ImportanceWeighted(draws)},
        -value,
        f"Jang, Gu & Poole 2017, arXiv:1611.01144, table 1, a bound of 1,000 draws; {JANG_TRAINED}",
    )
    for scale, fields, draws in (("small", SHORT, 100), ("paper", LONG, 1000))
    for name, (layers, gradient, value) in TABLE_1.items()
}


class StructuredPrediction(ConditionalModel):
    """Layers of bits or classes between given columns and the others, by any gradient estimator or trained relaxed.

    What is fitted is p(others | given) of the discrete model. The proposal of latents is their law given the given
    columns, so that the bound of m draws is ``log 1/m sum_i p(others | z_i)``.

    Parameters
    ----------
    given : the first so many columns, or a list of columns by name or place; they must be observed.
    layers : number of bits of each layer, or (number of one-hot latents, of classes) for one such as ``(20, 10)``;
        that nearest to the given columns first.
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
    layers: tuple[Layer, ...] = (200, 200)
    links: Links = "-"
    likelihood: AbstractLink | None = None
    objective: Objective = Relaxed(IWAE(1, Pathwise()), 2 / 3, 2 / 3)
    rate: float | AbstractSchedule = 3e-4
    batch_size: int = 64
    steps: int = 50_000
    evidence: AbstractEvidence = ImportanceWeighted(1000)
    standardise: bool = True

    kinds: ClassVar[tuple[str, ...]] = (*ConditionalModel.kinds, "mixed")
    trials: ClassVar[Mapping[str, Trial]] = TRIALS

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> AbstractLatentModel:
        """The net, sized for the data, and what the estimator learns."""
        down, beside = jr.split(key)
        base = jnp.asarray(schema.base).reshape(schema.shape)
        there = cells(places(self.given, schema), schema)
        net = conditioned_net(self.layers, self.links, schema.link(self.likelihood), base, there, key=down)
        sizes = [link.size(shape) for link, shape in map(units, self.layers)]
        return with_learned(Helmholtz(net, Unlooked()), self.objective, schema.width, sizes, key=beside)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent."""
        rule = Descend(Centring(self.objective), Optimiser(optax.adam, (self.rate,)))
        return [Stage(rule, self.steps, self.batch_size)]
