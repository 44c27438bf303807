"""Latent class and latent profile models: a mixture for cells of every kind. Lazarsfeld & Henry 1968.

Mixtures and their likelihood as in Makin 2022, arXiv:2207.10185, chapter 2. No number is reported to aim at: every
number here is exact.
"""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray

from ravine._check import whole
from ravine._tree import Cosine
from ravine.answers import Clusters
from ravine.core import Row
from ravine.data import AnySchema
from ravine.dist import AbstractLink
from ravine.estimator import LatentVariableModel
from ravine.models.latent_classes import LatentClasses, Trials
from ravine.objectives import MaximumLikelihood
from ravine.rules import Descend, Optimiser
from ravine.train import Stage


class LatentClass(Clusters, LatentVariableModel):
    """A hidden class per row, and columns of any kind that are independent given the class; every answer is exact.

    Binary, categorical, ordinal, count, bounded and real columns side by side, with holes. One class is the model of
    independent columns. Learned by gradient on log p(x).

    Parameters
    ----------
    components : number of classes.
    likelihood : the law of a cell in a class; None picks the one for the kind of cells.
    starts : how many starts are tried for a hundred steps on 500 rows; training goes on from the best.
    rate : step size of Adam at first; it falls to 0 along half a cosine.
    batch_size, steps : rows per step, and the number of steps at most.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).integers(0, 2, size=(100, 1)) ^ np.array([[0, 0, 1, 1]])
    >>> LatentClass(components=2, steps=50, random_state=0).fit(X).predict_proba(X).shape
    (100, 2)
    """

    components: int = 2
    likelihood: AbstractLink | None = None
    starts: int = 10
    rate: float = 2e-2
    batch_size: int = 256
    steps: int = 3_000
    standardise: bool = True

    kinds: ClassVar[tuple[str, ...]] = (*LatentVariableModel.kinds, "mixed")

    def build(self, schema: AnySchema, *, key: PRNGKeyArray) -> LatentClasses:
        """Classes drawn around the mean; `stages` puts them where learning starts."""
        base = jnp.asarray(schema.base, jnp.asarray(0.0).dtype).reshape(schema.shape)
        one = Row(base[None], weight=jnp.ones(1))
        return LatentClasses.spread(one, self.components, schema.link(self.likelihood), schema.shape, key=key)

    def stages(self, rows: int) -> list[Stage]:
        """One stage of minibatch descent, from classes around rows that lie far apart."""
        tried = Trials(whole("starts", self.starts), 5 * float(self.rate))
        rule = Descend(MaximumLikelihood(), Optimiser(optax.adam, (Cosine(float(self.rate), float(self.steps)),)))
        return [Stage(rule, self.steps, self.batch_size, prepare=tried)]
