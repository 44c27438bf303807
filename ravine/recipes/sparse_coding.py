"""Sparse coding. Olshausen & Field 1996; as reviewed by Bengio, Courville & Vincent 2013, arXiv:1206.5538.

*Emergence of simple-cell receptive field properties by learning a sparse code for natural images.* Codes by Beck &
Teboulle 2009, *A fast iterative shrinkage-thresholding algorithm for linear inverse problems*; the dictionary by
gradient steps, or in closed form by Engan, Aase & Husoy 1999, *Method of optimal directions for frame design*.
"""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray

from ravine._tree import Fixed, Part
from ravine.core import AbstractRule
from ravine.data import Schema
from ravine.models.sparse_coding import (
    FISTA,
    AbstractPursuit,
    AbstractShrinkage,
    FromRows,
    SoftShrinkage,
    SparseCoder,
    random_dictionary,
)
from ravine.objectives import LeastCost
from ravine.row_encoder import RowEncoder
from ravine.rules import Descend, NormClip, Optimiser, Projected
from ravine.train import Stage

ATOMS = Part("dictionary")
ADAM = Descend(LeastCost(), Optimiser(optax.adam, (1e-2,)), on=ATOMS)


class SparseCoding(RowEncoder):
    """Rows as sums of few atoms of a dictionary that is learned; missing cells have no part in the error.

    Parameters
    ----------
    atoms : columns of the dictionary, of norm 1 at most.
    penalty : what a unit of code costs, beside half the squared error of a row.
    shrinkage : ``SoftShrinkage()``, or ``NonnegativeShrinkage()`` for codes of at least 0.
    pursuit : how codes are found, and when they are good enough: ``FISTA(GapBelow(1e-3))``, ``FISTA(AfterSteps(100))``.
    learning : how the dictionary learns from the codes of a batch: ``MOD()`` in closed form, or a gradient step such as
        ``Descend(LeastCost(), gradient_descent(0.1), on=Part("dictionary"))``; None is one of Adam at a rate of 0.01.
    batch_size, steps : rows per step, all of them where None, and the number of steps at most.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).laplace(size=(60, 4))
    >>> model = SparseCoding(atoms=6, penalty=0.5, steps=5, random_state=0).fit(X)
    >>> codes = model.transform(X)
    >>> codes.shape, bool((codes == 0).mean() > 0.1)
    ((60, 6), True)
    """

    atoms: int = 100
    penalty: float = 0.1
    shrinkage: AbstractShrinkage = SoftShrinkage()
    pursuit: AbstractPursuit = FISTA()
    learning: AbstractRule | None = None
    batch_size: int | None = 100
    steps: int = 1_000

    def build(self, schema: Schema, *, key: PRNGKeyArray) -> SparseCoder:
        """Directions by lot, and rows counted from their mean."""
        centre, penalty = Fixed(jnp.asarray(schema.base)), Fixed(jnp.asarray(self.penalty))
        dictionary = random_dictionary(schema.width, self.atoms, key=key)
        return SparseCoder(dictionary, centre, penalty, self.shrinkage, self.pursuit)

    def stages(self, rows: int) -> list[Stage]:
        """Codes and a dictionary in turn, from a dictionary of rows."""
        rule = Projected(self.learning or ADAM, NormClip(1.0, ATOMS))
        return [Stage(rule, self.steps, self.batch_size, prepare=FromRows(), judge=LeastCost())]
