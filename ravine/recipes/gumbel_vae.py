"""Categorical VAE by Gumbel-Softmax, or any other estimator. Jang, Gu & Poole 2017, arXiv:1611.01144, section 4.2.

Paper: 101.5 nats (-ELBO, static MNIST, a 784-(20x10)-200-784 network); see `ravine reproduce gumbel-vae`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Decay, Fixed, held
from ravine.core import AbstractEvidence, AbstractGradient, AbstractLatentModel, Objective
from ravine.data import AnySchema
from ravine.dist import AbstractLink, Classes, Conditional, OneHot
from ravine.estimator import LatentVariableModel
from ravine.evidence import ImportanceWeighted
from ravine.gradients import (
    DARN,
    NVIL,
    RLOO,
    GappedStraightThrough,
    GumbelSoftmax,
    MuProp,
    ReinMax,
    StraightThrough,
    StraightThroughGumbel,
)
from ravine.models.directed import Directed, Helmholtz, with_learned
from ravine.nets import MLP, mirrored, relu
from ravine.objectives import AnalyticELBO
from ravine.recognisers import Amortised, Filled
from ravine.rules import Descend, Optimiser
from ravine.train import Stage
from ravine.trial import Trial

EPOCHS_15 = {"latents": 20, "steps": 7_500, "evidence": ImportanceWeighted(1)}
ALL_ROWS = EPOCHS_15 | {"steps": 9_000, "validation": 0.0}
ANCHOR = "no paper: 15 epochs of static MNIST; the papers report -ELBO after far more"
SHORT = {
    "small": GumbelSoftmax(Decay(1e-4, floor=0.5)),
    "small-reinmax": ReinMax(1.3),
    "small-st-gs": StraightThroughGumbel(0.5),
    "small-gst": GappedStraightThrough(),
    "small-st": StraightThrough(),
    "small-rloo": RLOO(2),
}
NETS = {
    "-classes": {"latents": 20, "hidden": (), "generator": (200,)},
    "-bits": {"latents": 200, "classes": 2, "hidden": (), "generator": ()},
}
SETTING = {"patience": 1000, "learned_prior": True, "evidence": ImportanceWeighted(1000)}
TABLE_1 = {  # estimator: nats with bits, with classes
    "": (GumbelSoftmax(Decay(1e-5, floor=0.5)), {"-bits": 105.0, "-classes": 101.5}),
    "-st-gs": (StraightThroughGumbel(Decay(1e-5, floor=0.5)), {"-bits": 111.5, "-classes": 107.8}),
    "-st": (StraightThrough(), {"-bits": 116.0, "-classes": 110.9}),
    "-annealed-st": (StraightThrough(Decay(1e-5, floor=0.5)), {"-bits": 111.5, "-classes": 107.8}),
    "-muprop": (MuProp(), {"-bits": 109.7, "-classes": 107.0}),
    "-darn": (DARN(), {"-bits": 110.9, "-classes": 128.8}),
    "-score": (NVIL(width=0), {"-bits": 112.2, "-classes": 110.6}),
}
JANG = "Jang et al. 2017, table 1"
TRIALS = (
    {name: Trial("mnist", EPOCHS_15 | {"gradient": gradient}, None, ANCHOR) for name, gradient in SHORT.items()}
    | {f"{name}-60k": Trial("mnist-60k", ALL_ROWS | {"gradient": g}, None, ANCHOR) for name, g in SHORT.items()}
    | {
        name: Trial(
            "mnist",
            NETS["-classes"] | {"steps": 50_000, "patience": 1000, "evidence": ImportanceWeighted(draws)},
            -101.5,
            f"{JANG}, a bound of 1,000 draws; there by gradient descent with momentum, in steps unknown here, and"
            " with a learned prior",
        )
        for name, draws in (("long", 1), ("long-1000", 1000))
    }
    | {
        f"{scale}{net}{name}": Trial(
            "mnist",
            SETTING | NETS[net] | {"gradient": gradient, "steps": steps},
            -value,
            f"{JANG}, a bound of 1,000 draws; there by gradient descent with momentum, in steps unknown here",
        )
        for scale, steps in (("small", 7_500), ("paper", 1_000_000))
        for name, (gradient, values) in TABLE_1.items()
        for net, value in values.items()
    }
)


class GumbelVAE(LatentVariableModel):
    """Categorical latents, a network for p(x | z) and one for q(z | x); the gradient passes the draw as you choose.

    The divergence to the prior is exact. The model stays discrete whatever the estimator: likelihoods, samples
    and reconstructions come from one-hot latents.

    Parameters
    ----------
    latents, classes : number of categorical latents, and of values of each.
    hidden : widths of the hidden layers of the recogniser.
    generator : widths of the hidden layers of the generator; None takes those of the recogniser in reverse.
    activation : nonlinearity between layers.
    likelihood : how the generator's outputs become p(x | z); None picks the one for the kind of cells.
    learned_prior : whether the probabilities of the classes are learned; otherwise they are equal.
    gradient : of the expectation over latents, such as ``ReinMax(1.3)``, ``RLOO(4)``, ``REBAR()``.
    rate : step size of Adam, a number or a schedule.
    batch_size, steps : rows per step, and the number of steps at most.

    Examples
    --------
    >>> import numpy as np
    >>> X = (np.random.default_rng(0).uniform(size=(60, 6)) < 0.3).astype(float)
    >>> model = GumbelVAE(latents=2, classes=3, hidden=(8,), steps=20, random_state=0).fit(X)
    >>> model.transform(X).shape
    (60, 6)
    """

    latents: int = 30
    classes: int = 10
    hidden: tuple[int, ...] = (512, 256)
    generator: tuple[int, ...] | None = None
    activation: Callable = relu
    likelihood: AbstractLink | None = None
    learned_prior: bool = False
    gradient: AbstractGradient = GumbelSoftmax(Decay(3e-5, floor=0.5))
    rate: float | AbstractSchedule = 1e-3
    batch_size: int = 100
    steps: int = 50_000
    evidence: AbstractEvidence = ImportanceWeighted(1000)
    standardise: bool = True

    kinds: ClassVar[tuple[str, ...]] = (*LatentVariableModel.kinds, "mixed")
    trials: ClassVar[Mapping[str, Trial]] = TRIALS

    @property
    def objective(self) -> Objective:
        """The evidence lower bound with the chosen estimator."""
        return AnalyticELBO(self.gradient)

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> AbstractLatentModel:
        """A prior, a generator and a recogniser sized for the data, and what the estimator learns."""
        down, up, beside = jr.split(key, 3)
        link, shape, z, code = schema.link(self.likelihood), schema.shape, (self.latents, self.classes), Classes()
        base = jnp.asarray(schema.base).reshape(shape)
        read = Filled(Fixed(base), tells=schema.holes, counts=schema.counts)
        widths = mirrored(self.hidden, self.generator)
        p_net = MLP(code.size(z), link.size(shape), widths, self.activation, bias=link.start(base), key=down)
        q_net = MLP(read.inputs(), code.size(z), self.hidden, self.activation, key=up)
        p = Directed(held(OneHot(jnp.zeros(z)), not self.learned_prior), Conditional(p_net, link, shape))
        model = Helmholtz(p, Amortised(read, Conditional(q_net, code, z)))
        return with_learned(model, self.gradient, schema.width, (code.size(z),), key=beside)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent."""
        return [Stage(Descend(self.objective, Optimiser(optax.adam, (self.rate,))), self.steps, self.batch_size)]
