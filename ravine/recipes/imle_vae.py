"""VAE with subsets as latents, by implicit MLE. Niepert, Minervini & Franceschi 2021, arXiv:2106.01798, section 6.2.

20 groups of 20 bits, 10 of each group set; the adaptive estimator is that of Minervini et al. 2023, arXiv:2209.04862.
The papers plot the loss, with another divergence, and print no -ELBO; see `ravine reproduce imlevae`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Fixed
from ravine.core import AbstractEvidence, AbstractGradient, AbstractLatentModel, Objective
from ravine.data import AnySchema
from ravine.dist import AbstractLink, Conditional, KHot, Subset
from ravine.estimator import LatentVariableModel
from ravine.evidence import ImportanceWeighted
from ravine.gradients import AIMLE, SIMPLE
from ravine.models.directed import Directed, Helmholtz, with_learned
from ravine.nets import MLP, relu
from ravine.objectives import AnalyticELBO, warming
from ravine.recognisers import Amortised, Filled
from ravine.rules import Descend, Optimiser
from ravine.train import Stage
from ravine.trial import Trial

EPOCHS_5 = {"steps": 2_500, "evidence": ImportanceWeighted(1)}
ANCHOR = "no paper: 5 epochs of static MNIST"
CURVE = "Minervini et al. 2023, 100 epochs; their curves show a loss whose divergence is not that of the k-subset law"


class IMLEVAE(LatentVariableModel):
    """Latent subsets of fixed size, a network for p(x | z) and one for q(z | x), trained through the top-k solver.

    The divergence to a uniform prior over subsets is exact, and so are the draws behind likelihoods and samples. It
    comes in slowly: with all of it from the first step on, the latents stay unused.

    Parameters
    ----------
    groups, items, chosen : number of subsets, size of the set each is taken from, and size of each subset.
    hidden : widths of the hidden layers of the recogniser; the generator has them in reverse.
    activation : nonlinearity between layers.
    likelihood : how the generator's outputs become p(x | z); None picks the one for the kind of cells.
    gradient : of the expectation over latents, such as ``IMLE(10.0)``, ``SIMPLE()`` or ``RLOO(4)``.
    warm_up : share of ``steps`` over which the weight of the divergence goes from 0 to 1 in a straight line.
    rate : step size of Adam, a number or a schedule.
    batch_size, steps : rows per step, and the number of steps; what held-out rows like best of them is kept.
    patience : held-out evaluations without improvement before training stops; few of them would end the warm-up.

    Examples
    --------
    >>> import numpy as np
    >>> X = (np.random.default_rng(0).uniform(size=(60, 6)) < 0.3).astype(float)
    >>> model = IMLEVAE(groups=2, items=4, chosen=2, hidden=(8,), steps=20, random_state=0).fit(X)
    >>> model.transform(X).shape
    (60, 8)
    """

    groups: int = 20
    items: int = 20
    chosen: int = 10
    hidden: tuple[int, ...] = (512, 256)
    activation: Callable = relu
    likelihood: AbstractLink | None = None
    gradient: AbstractGradient = AIMLE(target=8.0, rate=0.02)
    warm_up: float = 1 / 3
    rate: float | AbstractSchedule = 1e-3
    batch_size: int = 100
    steps: int = 50_000
    evidence: AbstractEvidence = ImportanceWeighted(1000)
    patience: int = 1_000
    standardise: bool = True

    kinds: ClassVar[tuple[str, ...]] = (*LatentVariableModel.kinds, "mixed")
    trials: ClassVar[Mapping[str, Trial]] = {
        "small": Trial("mnist", EPOCHS_5, None, ANCHOR),
        "small-simple": Trial("mnist", EPOCHS_5 | {"gradient": SIMPLE()}, None, ANCHOR),
        "paper": Trial("mnist", {"steps": 50_000, "evidence": ImportanceWeighted(1)}, None, CURVE),
    }

    @property
    def objective(self) -> Objective:
        """The evidence lower bound with the chosen estimator, and a divergence that comes in slowly."""
        return AnalyticELBO(self.gradient, warming(self.warm_up, self.steps))

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> AbstractLatentModel:
        """A uniform prior, a generator and a recogniser sized for the data, and what the estimator learns."""
        down, up, beside = jr.split(key, 3)
        link, shape, z, code = schema.link(self.likelihood), schema.shape, (self.groups, self.items), KHot(self.chosen)
        base = jnp.asarray(schema.base).reshape(shape)
        read = Filled(Fixed(base), tells=schema.holes, counts=schema.counts)
        p_net = MLP(code.size(z), link.size(shape), self.hidden[::-1], self.activation, bias=link.start(base), key=down)
        q_net = MLP(read.inputs(), code.size(z), self.hidden, self.activation, key=up)
        p = Directed(Fixed(Subset(jnp.zeros(z), self.chosen)), Conditional(p_net, link, shape))
        model = Helmholtz(p, Amortised(read, Conditional(q_net, code, z)))
        return with_learned(model, self.gradient, schema.width, (code.size(z),), key=beside)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent."""
        return [Stage(Descend(self.objective, Optimiser(optax.adam, (self.rate,))), self.steps, self.batch_size)]
