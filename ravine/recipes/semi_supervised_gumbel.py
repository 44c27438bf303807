"""A class that is known of some rows, and a style. Jang, Gu & Poole 2017, arXiv:1611.01144, section 4.3.

Paper: accuracy 92.4 % with 100 labels of MNIST, by single draws of the class (table 2); 92.6 % by summing over it; see
`ravine reproduce semi-supervised-gumbel`. The model is M2 of Kingma et al. 2014, arXiv:1406.5298.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import AbstractSchedule, Decay, Fixed
from ravine.core import AbstractEvidence, AbstractGradient, AbstractLatentModel, Objective
from ravine.data import AnySchema
from ravine.dist import AbstractLink, Classes, Conditional, Gaussian, OneHot, Real
from ravine.evidence import ImportanceWeighted
from ravine.gradients import RLOO, Enumerate, GumbelSoftmax, ReinMax, StraightThroughGumbel
from ravine.labelled import LabelledModel
from ravine.models.directed import Helmholtz, with_learned
from ravine.models.labelled import Labelled
from ravine.nets import reader, relu, writer
from ravine.objectives import SemiSupervised
from ravine.recognisers import ClassThenStyle, Filled
from ravine.rules import Descend, Optimiser
from ravine.train import Stage
from ravine.trial import Trial

IMAGES = {"channels": (16, 32, 64), "hidden": (256,), "validation": 0.0, "evidence": ImportanceWeighted(1)}
SMALL = IMAGES | {"steps": 6_000}
ANNEALED = Decay(3e-5, floor=0.5)
TABLE_2 = {  # estimator: nats, share of right classes
    "": (GumbelSoftmax(ANNEALED), 109.6, 0.924),
    "-st-gs": (StraightThroughGumbel(ANNEALED), 110.7, 0.936),
    "-enumerate": (Enumerate(), 106.8, 0.926),
}
JANG = "Jang et al. 2017, table 2, 100 labels; there other convolutions, and the best of five alphas by the test rows"
TRIALS = {
    f"{scale}{name}": Trial(
        "mnist-grey",
        fields | {"gradient": gradient},
        -nats,
        f"{JANG}{differs}",
        10,
        right,
    )
    for scale, fields, differs in (
        ("small", SMALL, ", and steps unknown here"),
        ("long", IMAGES | {"steps": 30_000}, ", and steps unknown here"),
        ("paper", IMAGES | {"steps": 1_000_000}, ""),
    )
    for name, (gradient, nats, right) in TABLE_2.items()
} | {
    name: Trial("mnist-grey", SMALL | {"gradient": gradient}, None, "in no table", 10)
    for name, gradient in {"small-reinmax": ReinMax(1.3), "small-rloo": RLOO(4)}.items()
}


class SemiSupervisedGumbel(LabelledModel):
    """A class and a Gaussian style behind each row; labels of a few rows say which class is which.

    ``gradient=Enumerate()`` sums over the classes instead of drawing one, as in M2.

    Parameters
    ----------
    latents : number of Gaussian latents of the style.
    hidden : widths of the hidden layers of each net; the generator has them in reverse.
    channels : for images, feature maps of convolutions in each net, sides halved after each, such as ``(16, 32, 64)``.
    activation : nonlinearity between layers.
    likelihood : how the generator's outputs become p(x | y, z); None picks the one for the kind of cells.
    gradient : of the expectation over classes, such as ``Enumerate()``, ``ReinMax(1.3)``, ``RLOO(4)``.
    alpha : weight of the mean log share of the known labels, beside the bound of a row.
    rate : step size of Adam, a number or a schedule.
    batch_size, steps : rows per step, and the number of steps at most.

    Examples
    --------
    >>> import numpy as np
    >>> stream = np.random.default_rng(0)
    >>> y = stream.integers(0, 2, size=60)
    >>> X = stream.normal(size=(60, 3)) + 3 * y[:, None]
    >>> some = np.where(np.arange(60) < 20, y, -1)
    >>> SemiSupervisedGumbel(latents=1, hidden=(8,), steps=50, random_state=0).fit(X, some).predict_proba(X).shape
    (60, 2)
    """

    latents: int = 50
    hidden: tuple[int, ...] = (500,)
    channels: tuple[int, ...] = ()
    activation: Callable = relu
    likelihood: AbstractLink | None = None
    gradient: AbstractGradient = GumbelSoftmax(Decay(3e-5, floor=0.5))
    alpha: float = 10.0
    rate: float | AbstractSchedule = 1e-3
    batch_size: int = 100
    steps: int = 50_000
    evidence: AbstractEvidence = ImportanceWeighted(1000)
    standardise: bool = True

    kinds: ClassVar[tuple[str, ...]] = (*LabelledModel.kinds, "mixed")
    trials: ClassVar[Mapping[str, Trial]] = TRIALS

    @property
    def objective(self) -> Objective:
        """The bound with the chosen estimator."""
        return SemiSupervised(self.gradient, self.alpha)

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> AbstractLatentModel:
        """Class shares that start even, a generator and two recognisers, and what the estimator learns."""
        first, second, third, beside = jr.split(key, 4)
        link, shape, k, n = schema.link(self.likelihood), schema.shape, self.class_count(), self.latents
        base, hidden, code = jnp.asarray(schema.base).reshape(shape), self.hidden, Real()
        read = Filled(Fixed(base), tells=schema.holes, counts=schema.counts)
        form = {"activation": self.activation, "image": schema.image_shape, "channels": self.channels}
        p_net = writer(k + n, link.size(shape), hidden[::-1], bias=jnp.ravel(link.start(base)), key=first, **form)
        q_label = reader(read.inputs(), k, hidden, key=second, **form)
        q_style = reader(k + read.inputs(), code.size((n,)), hidden, beside=k, key=third, **form)
        style = Fixed(Gaussian(jnp.zeros(n), jnp.ones(n)))
        p = Labelled(OneHot(jnp.zeros(k)), style, Conditional(p_net, link, shape))
        q = ClassThenStyle(read, Conditional(q_label, Classes(), (k,)), Conditional(q_style, code, (n,)))
        return with_learned(Helmholtz(p, q), self.gradient, schema.width, (k,), key=beside)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent."""
        return [Stage(Descend(self.objective, Optimiser(optax.adam, (self.rate,))), self.steps, self.batch_size)]
