"""Categorical VAE by Gaussian noise mapped onto the simplex. Potapczynski et al. 2020, arXiv:1912.09588, section 5.

Paper: curves and tables that could not be read, so no number is aimed at; see `ravine reproduce igrvae`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Fixed
from ravine.core import AbstractEvidence, Objective
from ravine.data import AnySchema
from ravine.dist import AbstractLink, Conditional, IGRClasses, even
from ravine.estimator import LatentVariableModel
from ravine.evidence import ImportanceWeighted
from ravine.gradients import Pathwise
from ravine.models.directed import Directed, Helmholtz
from ravine.nets import MLP, relu
from ravine.objectives import AnalyticELBO, Relaxed, warming
from ravine.recognisers import Amortised, Filled
from ravine.rules import Descend, Optimiser
from ravine.train import Stage
from ravine.trial import Trial

EPOCHS_15 = {"rate": 1e-3, "steps": 7_500, "evidence": ImportanceWeighted(1)}
ANCHOR = "no paper: 15 epochs of static MNIST; the paper trains 300"


class IGRVAE(LatentVariableModel):
    """Categorical latents that are rounded points of the simplex, trained without the rounding.

    The map is softmax with one more class (IGR-I): the divergence of the Gaussians is that of the points, in closed
    form, and the probabilities of the rounded classes are integrals in one dimension. What is fitted is the discrete
    model: likelihoods, samples and reconstructions come from one-hot latents, and early stopping looks at their bound.

    Parameters
    ----------
    latents, classes : number of categorical latents, and of values of each (at least 2).
    temperature : of the map onto the simplex; the lower, the nearer the points are to the corners, and the trained
        model to the discrete one.
    hidden : widths of the hidden layers of the recogniser; the generator has them in reverse.
    activation : nonlinearity between layers.
    likelihood : how the generator's outputs become p(x | z); None picks the one for the kind of cells.
    warm_up : share of ``steps`` over which the weight of the divergence goes from 0 to 1 in a straight line; without it
        latents stay unused.
    rate : step size of Adam, a number or a schedule.
    batch_size, steps : rows per step, and the number of steps; what held-out rows like best of them is kept.
    patience : held-out evaluations without improvement before training stops; few of them would end the warm-up.

    Examples
    --------
    >>> import numpy as np
    >>> X = (np.random.default_rng(0).uniform(size=(60, 6)) < 0.3).astype(float)
    >>> IGRVAE(latents=2, classes=3, hidden=(8,), steps=20, random_state=0).fit(X).transform(X).shape
    (60, 6)
    """

    latents: int = 20
    classes: int = 10
    temperature: float = 0.2
    hidden: tuple[int, ...] = (512, 256)
    activation: Callable = relu
    likelihood: AbstractLink | None = None
    warm_up: float = 1 / 3
    rate: float | AbstractSchedule = 1e-4
    batch_size: int = 100
    steps: int = 50_000
    evidence: AbstractEvidence = ImportanceWeighted(1000)
    patience: int = 1_000
    standardise: bool = True

    kinds: ClassVar[tuple[str, ...]] = (*LatentVariableModel.kinds, "mixed")
    trials: ClassVar[Mapping[str, Trial]] = {"small": Trial("mnist", EPOCHS_15, None, ANCHOR)}

    @property
    def objective(self) -> Objective:
        """The bound of the relaxed model, and a divergence that comes in slowly."""
        return AnalyticELBO(Pathwise(), warming(self.warm_up, self.steps))

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> Helmholtz:
        """A prior of equal classes, a generator and a recogniser sized for the data."""
        down, up = jr.split(key)
        link, shape, z = schema.link(self.likelihood), schema.shape, (self.latents, self.classes)
        code, base = IGRClasses(self.temperature), jnp.asarray(schema.base).reshape(schema.shape)
        read = Filled(Fixed(base), tells=schema.holes, counts=schema.counts)
        widths, f = self.hidden, self.activation
        p_net = MLP(self.latents * self.classes, link.size(shape), widths[::-1], f, bias=link.start(base), key=down)
        q_net = MLP(read.inputs(), code.size(z), widths, f, bias=code.start(jnp.zeros(z)), key=up)
        p = Directed(Fixed(even(z, self.temperature)), Conditional(p_net, link, shape))
        return Helmholtz(p, Amortised(read, Conditional(q_net, code, z)))

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent on the relaxed bound."""
        rule = Descend(Relaxed(self.objective), Optimiser(optax.adam, (self.rate,)))
        return [Stage(rule, self.steps, self.batch_size)]
