"""MIWAE: an importance-weighted auto-encoder for tables with holes. Mattei & Frellsen 2019, arXiv:1812.02633.

Paper: squared error of imputation on six UCI tables with half of the cells removed; see `benchmarks/imputation.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Fixed
from ravine.core import AbstractEvidence, AbstractLatentModel, Objective
from ravine.data import AnySchema
from ravine.dist import AbstractLink, Conditional, Gaussian, HeavyTailed, Real
from ravine.estimator import LatentVariableModel
from ravine.evidence import ImportanceWeighted
from ravine.gradients import Pathwise
from ravine.models.directed import Directed, Helmholtz
from ravine.models.missingness import AbstractMissingness, AtRandom
from ravine.nets import MLP, tanh
from ravine.objectives import IWAE
from ravine.recognisers import Amortised, Filled
from ravine.rules import Descend, Optimiser
from ravine.train import Stage


class MIWAE(LatentVariableModel):
    """A variational auto-encoder learned from the observed cells alone; holes are filled by importance sampling.

    Missing cells are at their mean for the recogniser and absent from the likelihood: valid if missing at random,
    or as ``missingness`` says.

    Parameters
    ----------
    latents : number of latent dimensions.
    hidden : widths of the hidden layers of the recogniser; the generator has them in reverse.
    activation : nonlinearity between layers.
    likelihood : p(x | z) of real cells; Student's t unless chosen, of a scale of at least a tenth of a column's
        deviation: with less (the authors use 0.001) a column of repeated values is all that is learned.
    missingness : why cells are missing: `AtRandom()`, or `SelfMasking()`, which is learned with the rest (not-MIWAE,
        arXiv:2006.12871); then log p(x) is that of the observed cells and of which they are.
    objective : what is lowered; the importance-weighted bound with 20 draws.
    rate : step size of Adam, a number or a schedule.
    batch_size, steps : rows per step, and the number of steps at most; with ``validation`` and ``patience`` as they
        are, a table of a few thousand rows stops after three to five thousand.

    The authors' networks have three layers of 128; with two of 64 a step takes a third of the time.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(60, 3)).cumsum(axis=1)
    >>> X[::2, 1] = np.nan
    >>> bool(np.isfinite(MIWAE(latents=1, hidden=(8,), steps=20, particles=20, random_state=0).fit(X).impute(X)).all())
    True
    """

    latents: int = 10
    hidden: tuple[int, ...] = (64, 64)
    activation: Callable = tanh
    likelihood: AbstractLink = HeavyTailed(0.1)
    missingness: AbstractMissingness = AtRandom()
    objective: Objective = IWAE(20, Pathwise())
    rate: float | AbstractSchedule = 2e-3
    batch_size: int = 64
    steps: int = 10_000
    evidence: AbstractEvidence = ImportanceWeighted(1000)
    standardise: bool = True

    kinds: ClassVar[tuple[str, ...]] = ("real", "mixed")

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> AbstractLatentModel:
        """A Gaussian prior, a generator of heavy-tailed cells, and a recogniser that is not told what is missing."""
        down, up = jr.split(key)
        link, shape, z = schema.link(self.likelihood), schema.shape, (self.latents,)
        base = jnp.asarray(schema.base).reshape(shape)
        read = Filled(Fixed(base), counts=schema.counts)
        p_net = MLP(self.latents, link.size(shape), self.hidden[::-1], self.activation, bias=link.start(base), key=down)
        q_net = MLP(read.inputs(), Real().size(z), self.hidden, self.activation, key=up)
        p = Directed(Fixed(Gaussian(jnp.zeros(z), jnp.ones(z))), Conditional(p_net, link, shape))
        model = Helmholtz(p, Amortised(read, Conditional(q_net, Real(), z)))
        return self.missingness(model, schema.width)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent."""
        rule = Descend(self.objective, Optimiser(optax.adam, (self.rate,)))
        return [Stage(rule, self.steps, self.batch_size)]
