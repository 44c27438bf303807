"""Losses that lower the energy of the right answer, and raise that of others.

LeCun, Chopra, Hadsell, Ranzato & Huang 2006, *A tutorial on energy-based learning*, table 1. Grathwohl et al. 2020,
arXiv:1912.03263, for a classifier that is a density too.
"""

from __future__ import annotations

import abc
import math
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ravine._tree import Part
from ravine.core import AbstractEnergy, Metrics, Row, Scalar, weights
from ravine.objectives.contrast import Contrast

Energies = Float[Array, " answers"]
Answer = Int[Array, ""] | int


def most_offending(energies: Energies, correct: Answer) -> Int[Array, ""]:
    """The wrong answer of the lowest energy.

    Examples
    --------
    >>> int(most_offending(jnp.array([0.0, 3.0, 1.0]), 0))
    2
    """
    return jnp.argmin(_others(energies, correct))


def free_energy(energies: Energies, beta: float = 1.0) -> Scalar:
    r"""What is left of the answers when they are summed out, :math:`-\frac1\beta \log \sum_y e^{-\beta E_y}`.

    Examples
    --------
    >>> round(float(free_energy(jnp.array([1.0, 1.0]))), 4)
    0.3069
    """
    return -jax.nn.logsumexp(-beta * energies) / beta


def _others(energies: Energies, correct: Answer) -> Energies:
    """The energies, infinite at the right answer."""
    return jnp.where(jnp.arange(energies.size) == correct, jnp.inf, energies)


def _pair(energies: Energies, correct: Answer) -> tuple[Scalar, Scalar]:
    """The energy of the right answer, and the lowest of the others."""
    return energies[correct], jnp.min(_others(energies, correct))


class AbstractEnergyLoss(eqx.Module):
    r"""A loss of the energies of all answers, of which one is right.

    Below, :math:`E_c` is the energy of the right answer and :math:`E_o` that of the most offending wrong one.
    """

    @abc.abstractmethod
    def __call__(self, energies: Energies, correct: Answer) -> Scalar:
        """The loss, which goes down as the answer becomes better."""

    @property
    @abc.abstractmethod
    def margin(self) -> float | None:
        r"""Up to which gap :math:`E_o - E_c` the loss goes on falling.

        Infinite where it never ends, None where it does not look at wrong answers. Without a margin above 0 energies
        that are the same everywhere are good enough.
        """


class EnergyLoss(AbstractEnergyLoss):
    r""":math:`E_c`. Energies fall everywhere, unless the architecture forbids it, as that of least squares does.

    Examples
    --------
    >>> float(EnergyLoss()(jnp.array([2.0, 5.0]), 0))
    2.0
    """

    def __call__(self, energies: Energies, correct: Answer) -> Scalar:
        return energies[correct]

    @property
    def margin(self) -> None:
        return None


class PerceptronLoss(AbstractEnergyLoss):
    r""":math:`E_c - \min_y E_y`. Collins 2002 for sequences.

    Examples
    --------
    >>> float(PerceptronLoss()(jnp.array([2.0, 5.0]), 1))
    3.0
    """

    def __call__(self, energies: Energies, correct: Answer) -> Scalar:
        return energies[correct] - jnp.min(energies)

    @property
    def margin(self) -> float:
        return 0.0


class HingeLoss(AbstractEnergyLoss):
    r""":math:`\max(0, m + E_c - E_o)`. Altun, Tsochantaridis & Hofmann 2003; of max-margin Markov nets.

    Parameters
    ----------
    m : the margin.

    Examples
    --------
    >>> float(HingeLoss(1.0)(jnp.array([2.0, 2.5]), 0))
    0.5
    """

    m: float = eqx.field(static=True, default=1.0)

    def __call__(self, energies: Energies, correct: Answer) -> Scalar:
        right, wrong = _pair(energies, correct)
        return jax.nn.relu(self.m + right - wrong)

    @property
    def margin(self) -> float:
        return self.m


class LogLoss(AbstractEnergyLoss):
    r""":math:`\log(1 + e^{E_c - E_o})`: a hinge that is soft.

    Examples
    --------
    >>> round(float(LogLoss()(jnp.array([2.0, 2.0]), 0)), 4)
    0.6931
    """

    def __call__(self, energies: Energies, correct: Answer) -> Scalar:
        right, wrong = _pair(energies, correct)
        return jax.nn.softplus(right - wrong)

    @property
    def margin(self) -> float:
        return math.inf


class LVQ2Loss(AbstractEnergyLoss):
    r""":math:`\min(M, \max(0, E_c - E_o))`: rows that are very wrong count no more than M. Kohonen et al. 1988.

    Parameters
    ----------
    most : M.

    Examples
    --------
    >>> float(LVQ2Loss(1.0)(jnp.array([9.0, 2.0]), 0))
    1.0
    """

    most: float = eqx.field(static=True, default=1.0)

    def __call__(self, energies: Energies, correct: Answer) -> Scalar:
        right, wrong = _pair(energies, correct)
        return jnp.minimum(self.most, jax.nn.relu(right - wrong))

    @property
    def margin(self) -> float:
        return 0.0


class MCELoss(AbstractEnergyLoss):
    r""":math:`1 / (1 + e^{E_o - E_c})`: a soft count of errors. Juang, Chou & Lee 1997.

    Examples
    --------
    >>> float(MCELoss()(jnp.array([2.0, 2.0]), 0))
    0.5
    """

    def __call__(self, energies: Energies, correct: Answer) -> Scalar:
        right, wrong = _pair(energies, correct)
        return jax.nn.sigmoid(right - wrong)

    @property
    def margin(self) -> float:
        return math.inf


class SquareSquareLoss(AbstractEnergyLoss):
    r""":math:`E_c^2 + \max(0, m - E_o)^2`, for energies of at least 0. LeCun & Huang 2005.

    Parameters
    ----------
    m : the margin.

    Examples
    --------
    >>> float(SquareSquareLoss(1.0)(jnp.array([2.0, 0.5]), 0))
    4.25
    """

    m: float = eqx.field(static=True, default=1.0)

    def __call__(self, energies: Energies, correct: Answer) -> Scalar:
        right, wrong = _pair(energies, correct)
        return right**2 + jax.nn.relu(self.m - wrong) ** 2

    @property
    def margin(self) -> float:
        return self.m


class SquareExponentialLoss(AbstractEnergyLoss):
    r""":math:`E_c^2 + \beta e^{-E_o}`, for energies of at least 0. Osadchy, Miller & LeCun 2005.

    Parameters
    ----------
    beta : weight of wrong answers.

    Examples
    --------
    >>> float(SquareExponentialLoss(1.0)(jnp.array([2.0, 0.0]), 0))
    5.0
    """

    beta: float = eqx.field(static=True, default=1.0)

    def __call__(self, energies: Energies, correct: Answer) -> Scalar:
        right, wrong = _pair(energies, correct)
        return right**2 + self.beta * jnp.exp(-wrong)

    @property
    def margin(self) -> float:
        return math.inf


class NLLLoss(AbstractEnergyLoss):
    r""":math:`E_c + \frac1\beta \log \sum_y e^{-\beta E_y}`, minus the log of the share of the answer over beta.

    With answers that are paths through a chain it is the loss of a conditional random field, and the discriminative
    forward score of LeCun, Bottou, Bengio & Haffner 1998. As beta grows it becomes the `PerceptronLoss`.

    Parameters
    ----------
    beta : how cold.

    Examples
    --------
    >>> round(float(NLLLoss()(jnp.array([2.0, 2.0]), 0)), 4)
    0.6931
    """

    beta: float = eqx.field(static=True, default=1.0)

    def __call__(self, energies: Energies, correct: Answer) -> Scalar:
        return energies[correct] - free_energy(energies, self.beta)

    @property
    def margin(self) -> float:
        return math.inf


class MEELoss(AbstractEnergyLoss):
    r""":math:`1 - e^{-\beta E_c} / \sum_y e^{-\beta E_y}`: the expected share of errors. Ney 1995.

    Parameters
    ----------
    beta : how cold.

    Examples
    --------
    >>> float(MEELoss()(jnp.array([2.0, 2.0]), 0))
    0.5
    """

    beta: float = eqx.field(static=True, default=1.0)

    def __call__(self, energies: Energies, correct: Answer) -> Scalar:
        return 1 - jax.nn.softmax(-self.beta * energies)[correct]

    @property
    def margin(self) -> float:
        return math.inf


@runtime_checkable
class Answering(Protocol):
    """A model that has an energy for each answer that a row may be given."""

    def answers(self, row: Row) -> Energies:
        """The energy of each answer."""
        ...


class Discriminative(eqx.Module):
    """Mean of a loss over the rows whose answer is known; ``row.y`` is its number.

    Metrics are ``accuracy``, the share of rows with the lowest energy at their answer, and ``gap``, the mean of
    the lowest energy of a wrong answer less that of the right one.

    Parameters
    ----------
    loss : such as ``NLLLoss()`` or ``HingeLoss(1.0)``.
    """

    loss: AbstractEnergyLoss = NLLLoss()

    def __call__(self, model: Answering, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        energies = jax.vmap(model.answers)(batch)
        known = weights(batch) if batch.y_mask is None else weights(batch) * batch.y_mask
        share = known / jnp.maximum(jnp.sum(known), jnp.finfo(known.dtype).tiny)
        correct = jnp.where(known > 0, batch.y, 0)
        right, wrong = jax.vmap(_pair)(energies, correct)
        seen = {"accuracy": share @ (right < wrong).astype(share.dtype), "gap": share @ (wrong - right)}
        return share @ jax.vmap(self.loss)(energies, correct), seen


class JointContrast(eqx.Module):
    r"""A loss of the answers, and a contrast of the rows themselves: :math:`p(y \mid x)` and :math:`p(x)` of one net.

    .. math:: -\log p(x, y) = -\log p(y \mid x) - \log p(x)

    where the loss is `NLLLoss` and the negatives are draws of the model. Grathwohl et al. 2020, arXiv:1912.03263,
    equation 7. For `ravine.rules.Contrastive`.

    Parameters
    ----------
    loss : of the answers.
    share : weight of the contrast.
    """

    loss: AbstractEnergyLoss = NLLLoss()
    share: float = 1.0

    def __call__(
        self, model: AbstractEnergy, batch: Row, negatives: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[Scalar, Metrics]:
        if not isinstance(model, Answering):
            raise TypeError(f"{type(model).__name__} has no answers(row): use Contrast() for a model of rows alone.")
        told, seen = Discriminative(self.loss)(model, batch, key=key)
        apart, energies = Contrast(0.0, Part("net"))(model, batch, negatives, key=key)
        return told + self.share * apart, seen | energies
