"""Factor analysis of cells of every kind. Bartholomew, Knott & Moustaki 2011, *Latent variable models*, chapter 4.

Learned with a recogniser, as in Kingma & Welling 2014, arXiv:1312.6114. No number is reported to aim at.
"""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Fixed
from ravine.core import AbstractEvidence, Objective
from ravine.data import AnySchema
from ravine.dist import AbstractLink, Conditional, Gaussian, Real
from ravine.estimator import LatentVariableModel
from ravine.evidence import ImportanceWeighted
from ravine.gradients import Pathwise
from ravine.models.directed import Directed, Helmholtz
from ravine.nets import MLP, LinearPredictor
from ravine.objectives import AnalyticELBO
from ravine.recognisers import Amortised, Filled
from ravine.rules import Descend, Optimiser
from ravine.train import Stage


class MixedFactorAnalysis(LatentVariableModel):
    """A few Gaussian causes that move the location of every cell linearly, through the law of its kind.

    Logits of bits and categories, log means of counts, locations of real, bounded and ordinal cells are linear in the
    causes; scales are not. With real cells alone it is factor analysis, for which `FactorAnalysis` is exact.

    Parameters
    ----------
    latents : number of causes.
    hidden : widths of the hidden layers of the recogniser.
    likelihood : the law of a cell given the causes; None picks the one for the kind of cells.
    objective : what is lowered; `AnalyticELBO`, `ELBO`, `IWAE`, ... with their gradient estimator.
    rate : step size of Adam, a number or a schedule.
    batch_size, steps : rows per step, and the number of steps at most.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).integers(0, 2, size=(60, 4))
    >>> MixedFactorAnalysis(latents=1, hidden=(8,), steps=20, random_state=0).fit(X).transform(X).shape
    (60, 1)
    """

    latents: int = 2
    hidden: tuple[int, ...] = (100,)
    likelihood: AbstractLink | None = None
    objective: Objective = AnalyticELBO(Pathwise())
    rate: float | AbstractSchedule = 3e-3
    batch_size: int = 100
    steps: int = 5_000
    evidence: AbstractEvidence = ImportanceWeighted(1000)
    standardise: bool = True

    kinds: ClassVar[tuple[str, ...]] = (*LatentVariableModel.kinds, "mixed")

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> Helmholtz:
        """Small random loadings around the mean of the data, and a recogniser sized for it."""
        down, up = jr.split(key)
        link, shape, z = schema.link(self.likelihood), schema.shape, (self.latents,)
        base = jnp.asarray(schema.base).reshape(shape)
        places = link.locations(shape)
        loading = 0.1 * jr.normal(down, (len(places), self.latents))
        prior = Fixed(Gaussian(jnp.zeros(z), jnp.ones(z)))
        p = Directed(prior, Conditional(LinearPredictor(loading, link.start(base), places), link, shape))
        read = Filled(Fixed(base), tells=schema.holes, counts=schema.counts)
        net = MLP(read.inputs(), Real().size(z), self.hidden, key=up)
        return Helmholtz(p, Amortised(read, Conditional(net, Real(), z)))

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent."""
        rule = Descend(self.objective, Optimiser(optax.adam, (self.rate,)))
        return [Stage(rule, self.steps, self.batch_size)]
