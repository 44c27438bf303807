r"""Sparse coding: rows as sums of few columns of a dictionary.

.. math:: h(x) = \arg\min_h \tfrac12 \lVert x - D h \rVert^2 + \lambda \lVert h \rVert_1, \quad \lVert d_j \rVert \le 1

Olshausen & Field 1996, *Emergence of simple-cell receptive field properties by learning a sparse code for natural
images*. Codes are found by iterative shrinkage: Beck & Teboulle 2009, *A fast iterative shrinkage-thresholding
algorithm for linear inverse problems*. A cell that a row does not hold has no part in the error.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, Self, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ravine._tree import Fixed, unfix
from ravine.core import Row, Scalar, weights

Cells = Float[Array, " cells"]
Codes = Float[Array, " atoms"]
ROUNDING = 1.0001  # the largest eigenvalue is computed, and must not be too small
JITTER = 0.01  # of the rows that a dictionary begins with, so that no two columns are the same


class AbstractShrinkage(eqx.Module):
    """The part of the problem that is not smooth, and how one steps through it."""

    @abc.abstractmethod
    def __call__(self, h: Codes, by: Scalar) -> Codes:
        """The nearest codes, where each unit of absolute value costs ``by``."""

    @abc.abstractmethod
    def most(self, pull: Codes) -> Scalar:
        """The largest pull of an atom on the error that a penalty has to hold."""


class SoftShrinkage(AbstractShrinkage):
    """Codes of either sign, nearer to 0 by so much.

    Examples
    --------
    >>> SoftShrinkage()(jnp.array([2.0, -2.0, 0.5]), jnp.array(1.0)).tolist()
    [1.0, -1.0, 0.0]
    """

    def __call__(self, h: Codes, by: Scalar) -> Codes:
        return jnp.sign(h) * jnp.maximum(jnp.abs(h) - by, 0)

    def most(self, pull: Codes) -> Scalar:
        return jnp.max(jnp.abs(pull))


class NonnegativeShrinkage(AbstractShrinkage):
    """Codes of at least 0, smaller by so much.

    Examples
    --------
    >>> NonnegativeShrinkage()(jnp.array([2.0, -2.0, 0.5]), jnp.array(1.0)).tolist()
    [1.0, 0.0, 0.0]
    """

    def __call__(self, h: Codes, by: Scalar) -> Codes:
        return jnp.maximum(h - by, 0)

    def most(self, pull: Codes) -> Scalar:
        return jnp.max(pull)


class SparseProblem(eqx.Module):
    r"""The problem of one row.

    Attributes
    ----------
    dictionary : D, shape (cells, atoms); 0 in the rows of cells that are not held.
    x : the cells; 0 where not held.
    penalty : :math:`\lambda`.
    """

    dictionary: Float[Array, "cells atoms"]
    x: Cells
    penalty: Scalar
    shrinkage: AbstractShrinkage

    def slope(self, h: Codes) -> Codes:
        """The gradient of half the squared error."""
        return (h @ self.dictionary.T - self.x) @ self.dictionary

    def value(self, h: Codes) -> Scalar:
        """Half the squared error, and the penalty."""
        return 0.5 * jnp.sum((self.x - h @ self.dictionary.T) ** 2) + self.penalty * jnp.sum(jnp.abs(h))

    def stepped(self, h: Codes, curvature: Scalar) -> Codes:
        """The codes after a step down the error and through the penalty."""
        return self.shrinkage(h - self.slope(h) / curvature, self.penalty / curvature)

    def gap(self, h: Codes) -> Scalar:
        r"""How much at most the value is above the least one.

        The residual r, shrunk to where no atom pulls on it by more than the penalty, :math:`u = s r`, is a point of
        the dual problem, of value :math:`\tfrac12 \lVert x \rVert^2 - \tfrac12 \lVert x - u \rVert^2`.
        """
        residual = self.x - h @ self.dictionary.T
        most = jnp.maximum(self.shrinkage.most(residual @ self.dictionary), jnp.finfo(h.dtype).tiny)
        u = jnp.minimum(1, self.penalty / most) * residual
        return self.value(h) - 0.5 * (jnp.sum(self.x**2) - jnp.sum((self.x - u) ** 2))


class AbstractStop(eqx.Module):
    """When codes are good enough."""

    @abc.abstractmethod
    def looks(self) -> tuple[int, int]:
        """Steps between two looks at the codes, and steps at most."""

    @abc.abstractmethod
    def met(self, problem: SparseProblem, h: Codes) -> Bool[Array, ""]:
        """Whether these are."""


class AfterSteps(AbstractStop):
    """After so many steps."""

    steps: int = eqx.field(static=True, default=100)

    def looks(self) -> tuple[int, int]:
        return self.steps, self.steps

    def met(self, problem: SparseProblem, h: Codes) -> Bool[Array, ""]:
        return jnp.array(True)


class GapBelow(AbstractStop):
    r"""When the value is above the least one by at most ``tolerance`` times :math:`\tfrac12 \lVert x \rVert^2`.

    It is known to be, by the duality gap.

    Parameters
    ----------
    tolerance : share of half the squared norm of the row.
    most : steps at most.
    look : steps between two looks at the gap, each of which costs as much as a step.
    """

    tolerance: float = eqx.field(static=True, default=1e-3)
    most: int = eqx.field(static=True, default=1000)
    look: int = eqx.field(static=True, default=10)

    def looks(self) -> tuple[int, int]:
        return self.look, self.most

    def met(self, problem: SparseProblem, h: Codes) -> Bool[Array, ""]:
        return problem.gap(h) <= self.tolerance * 0.5 * jnp.sum(problem.x**2)


class AbstractPursuit(eqx.Module):
    """How the codes of a row are found."""

    stop: eqx.AbstractVar[AbstractStop]

    @abc.abstractmethod
    def start(self, h: Codes) -> Any:
        """What is kept between two steps, before the first; its first part is the codes."""

    @abc.abstractmethod
    def step(self, problem: SparseProblem, state: Any, curvature: Scalar) -> Any:
        """The same one step later."""

    def __call__(self, problem: SparseProblem, curvature: Scalar) -> Codes:
        """The codes of a row; ``curvature`` is at least the largest eigenvalue of D'D."""
        every, most = self.stop.looks()
        forth = lambda i, state: self.step(problem, state, curvature)  # noqa: E731

        def some(carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
            state, done, _ = carry
            count = jnp.minimum(every, most - done)
            state = jax.lax.fori_loop(0, count, forth, state)
            return state, done + count, self.stop.met(problem, state[0])

        nothing = jnp.zeros(problem.dictionary.shape[1], problem.dictionary.dtype)
        begin = (self.start(nothing), jnp.array(0), jnp.array(False))
        state, _, _ = jax.lax.while_loop(lambda carry: ~carry[2] & (carry[1] < most), some, begin)
        return state[0]


class ISTA(AbstractPursuit):
    r"""Iterative shrinkage: after k steps at most :math:`L \lVert h^* \rVert^2 / 2k` above the least value."""

    stop: AbstractStop = GapBelow()

    def start(self, h: Codes) -> tuple[Codes]:
        return (h,)

    def step(self, problem: SparseProblem, state: tuple[Codes], curvature: Scalar) -> tuple[Codes]:
        return (problem.stepped(state[0], curvature),)


class FISTA(AbstractPursuit):
    r"""Iterative shrinkage with momentum: at most :math:`2 L \lVert h^* \rVert^2 / (k + 1)^2` above the least value."""

    stop: AbstractStop = GapBelow()

    def start(self, h: Codes) -> tuple[Codes, Codes, Scalar]:
        return h, h, jnp.ones((), h.dtype)

    def step(
        self, problem: SparseProblem, state: tuple[Codes, Codes, Scalar], curvature: Scalar
    ) -> tuple[Codes, Codes, Scalar]:
        before, ahead, t = state
        h = problem.stepped(ahead, curvature)
        further = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        return h, h + (t - 1) / further * (h - before), further


class SparseCoder(eqx.Module):
    r"""A dictionary, and how rows are coded by it.

    Parameters
    ----------
    dictionary : D, shape (cells, atoms).
    centre : what is taken from rows before they are coded, shape (cells,); `Fixed`.
    penalty : :math:`\lambda`, in the units of squared cells for each unit of code; `Fixed`.
    shrinkage : ``SoftShrinkage()``, or ``NonnegativeShrinkage()`` for codes of one sign.
    pursuit : ``FISTA()`` or ``ISTA()``, with its rule to stop.

    Examples
    --------
    >>> model = SparseCoder(jnp.eye(2), Fixed(jnp.zeros(2)), Fixed(jnp.array(0.5)))
    >>> model.code(Row(jnp.array([2.5, 0.1]))).round(2).tolist()
    [2.0, 0.0]
    """

    dictionary: Float[Array, "cells atoms"]
    centre: Fixed
    penalty: Fixed
    shrinkage: AbstractShrinkage = SoftShrinkage()
    pursuit: AbstractPursuit = FISTA()

    def problem(self, row: Row) -> SparseProblem:
        """What the codes of a row solve."""
        x, dictionary = row.x.ravel() - unfix(self.centre), self.dictionary
        if row.mask is not None:
            held = row.mask.ravel()
            x, dictionary = jnp.where(held, x, 0), jnp.where(held[:, None], dictionary, 0)
        return SparseProblem(dictionary, x, unfix(self.penalty), self.shrinkage)

    def code(self, row: Row) -> Codes:
        """The codes of a row, as far as the pursuit goes."""
        return self.pursuit(self.problem(row), largest_curvature(self.dictionary))

    def decoded(self, h: Codes) -> Cells:
        """The cells that some codes stand for."""
        return h @ self.dictionary.T + unfix(self.centre)

    def denoised(self, row: Row) -> Cells:
        """The row without what the dictionary has no atoms for."""
        return self.decoded(self.code(row))

    def value(self, h: Codes, row: Row) -> Scalar:
        """Half the squared error of the cells that a row holds, and the penalty of its codes."""
        return self.problem(row).value(h)

    def refitted(self, batch: Row, codes: Float[Array, "n atoms"], inertia: float | Array) -> Self:
        r"""The dictionary of least squared error at these codes, with a pull to where it is.

        .. math:: D \leftarrow (\bar{x h^\top} + \rho D) (\bar{h h^\top} + \rho I)^{-1}

        An atom that no row needs stays. A cell that is not held counts as what the dictionary says of it: the error
        of the others does not rise.
        """
        x = batch.x.reshape(codes.shape[0], -1) - unfix(self.centre)[None]
        if batch.mask is not None:
            x = jnp.where(batch.mask.reshape(x.shape), x, jnp.matmul(codes, self.dictionary.T))
        share = weights(batch)[:, None] / jnp.maximum(jnp.sum(weights(batch)), jnp.finfo(x.dtype).tiny)
        second = jnp.matmul(codes.T, share * codes, precision="highest")
        pull = inertia * jnp.trace(second) / codes.shape[1] + jnp.finfo(x.dtype).tiny
        wanted = jnp.matmul(codes.T, share * x, precision="highest") + pull * self.dictionary.T
        made = jnp.linalg.solve(second + pull * jnp.eye(codes.shape[1], dtype=x.dtype), wanted)
        return dataclasses.replace(self, dictionary=made.T)


def largest_curvature(dictionary: Float[Array, "cells atoms"]) -> Scalar:
    """The largest eigenvalue of D'D, and a little more.

    Examples
    --------
    >>> round(float(largest_curvature(jnp.eye(2))), 2)
    1.0
    """
    wide = dictionary.shape[0] < dictionary.shape[1]
    gram = jnp.matmul(*((dictionary, dictionary.T) if wide else (dictionary.T, dictionary)), precision="highest")
    return ROUNDING * jnp.maximum(jnp.linalg.eigvalsh(gram)[-1], jnp.finfo(dictionary.dtype).tiny)


def unit_columns(dictionary: Float[Array, "cells atoms"]) -> Float[Array, "cells atoms"]:
    """The columns with norm 1; one of zeros stays."""
    norm = jnp.linalg.norm(dictionary, axis=0, keepdims=True)
    return dictionary / jnp.where(norm > 0, norm, 1)


def random_dictionary(cells: int, atoms: int, *, key: PRNGKeyArray) -> Float[Array, "cells atoms"]:
    """Columns of norm 1 in directions without preference.

    Examples
    --------
    >>> random_dictionary(3, 5, key=jr.key(0)).shape
    (3, 5)
    """
    return unit_columns(jr.normal(key, (cells, atoms)))


@dataclasses.dataclass(frozen=True)
class FromRows:
    """A preparation: the dictionary begins with training rows of norm 1, a little moved."""

    def __call__(self, model: SparseCoder, source: Any, *, key: PRNGKeyArray) -> SparseCoder:
        """The model with such a dictionary."""
        choice, jitter = jr.split(key)
        cells, atoms = model.dictionary.shape
        places = np.asarray(jr.choice(choice, source.rows, (atoms,), replace=atoms > source.rows))
        block, found = source.block(places[None])
        rows = jax.tree.map(lambda leaf: leaf[jnp.asarray(found[0])], block)
        x = jax.vmap(lambda row: model.problem(row).x)(rows).T
        moved = unit_columns(x) + JITTER * random_dictionary(cells, atoms, key=jitter)
        return dataclasses.replace(model, dictionary=cast(Any, unit_columns(moved)))
