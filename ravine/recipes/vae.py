"""Variational auto-encoder. Kingma & Welling 2014, arXiv:1312.6114.

Paper: bound curves only, no table. Reference: the 784-200-200-50 network of Burda et al. 2016 on binary MNIST.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Cosine, Fixed
from ravine.core import AbstractEvidence, Objective
from ravine.data import AnySchema
from ravine.dist import AbstractLink, Conditional, Gaussian, Real
from ravine.estimator import LatentVariableModel
from ravine.evidence import ImportanceWeighted
from ravine.gradients import Pathwise
from ravine.models.directed import Directed, Helmholtz
from ravine.nets import MLP, tanh
from ravine.objectives import AnalyticELBO
from ravine.recognisers import Amortised, Filled
from ravine.rules import Descend, Optimiser
from ravine.train import Stage
from ravine.trial import Trial


class VAE(LatentVariableModel):
    """Gaussian latents, a network for p(x | z) and one for q(z | x), trained together on the evidence lower bound.

    Parameters
    ----------
    latents : number of latent dimensions.
    hidden : widths of the hidden layers of the recogniser; the generator has them in reverse.
    activation : nonlinearity between layers.
    likelihood : how the generator's outputs become p(x | z); None picks the one for the kind of cells.
    objective : what is lowered; `AnalyticELBO`, `ELBO`, `IWAE`, ... with their gradient estimator.
    rate : step size of Adam, a number or a schedule.
    batch_size, steps : rows per step, and the number of steps at most.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(60, 3))
    >>> VAE(latents=2, hidden=(8,), steps=20, random_state=0).fit(X).transform(X).shape
    (60, 2)
    """

    latents: int = 50
    hidden: tuple[int, ...] = (200, 200)
    activation: Callable = tanh
    likelihood: AbstractLink | None = None
    objective: Objective = AnalyticELBO(Pathwise())
    rate: float | AbstractSchedule = 1e-3
    batch_size: int = 100
    steps: int = 10_000
    evidence: AbstractEvidence = ImportanceWeighted(1000)
    standardise: bool = True

    kinds: ClassVar[tuple[str, ...]] = (*LatentVariableModel.kinds, "mixed")
    trials: ClassVar[Mapping[str, Trial]] = {
        "small": Trial(
            "mnist",
            {"steps": 10_000, "evidence": ImportanceWeighted(64)},
            -97.10,
            "altosaar/variational-autoencoder, README: fixed binarisation, mean field, 65k steps",
        ),
        "paper": Trial(
            "mnist-grey",
            {"binarise": "dynamic", "steps": 100_000, "rate": Cosine(1e-3, 1e5, 1e-4), "patience": 1000},
            -86.76,
            "Burda et al. 2016, table 1, VAE with k=1 and one layer, 3280 epochs; as quoted in the README of parmesan",
        ),
    }

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> Helmholtz:
        """A Gaussian prior, a generator and a recogniser sized for the data."""
        down, up = jr.split(key)
        link, shape, z = schema.link(self.likelihood), schema.shape, (self.latents,)
        base = jnp.asarray(schema.base).reshape(shape)
        read = Filled(Fixed(base), tells=schema.holes, counts=schema.counts)
        p_net = MLP(self.latents, link.size(shape), self.hidden[::-1], self.activation, bias=link.start(base), key=down)
        q_net = MLP(read.inputs(), Real().size(z), self.hidden, self.activation, key=up)
        prior = Fixed(Gaussian(jnp.zeros(z), jnp.ones(z)))
        return Helmholtz(
            Directed(prior, Conditional(p_net, link, shape)), Amortised(read, Conditional(q_net, Real(), z))
        )

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent."""
        rule = Descend(self.objective, Optimiser(optax.adam, (self.rate,)))
        return [Stage(rule, self.steps, self.batch_size)]
