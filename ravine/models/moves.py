"""How chains move over real cells: which kernel an energy is given, and its settings, which are no parameters of it."""

from __future__ import annotations

import abc

import equinox as eqx

from ravine.core import AbstractEnergy, AbstractKernel, Row
from ravine.kernels import HMC, Langevin, Metropolis


class AbstractMoves(eqx.Module):
    """How a chain moves over real cells."""

    @abc.abstractmethod
    def __call__(self, model: AbstractEnergy, row: Row | None) -> AbstractKernel:
        """A kernel of an energy; cells that the row holds do not move."""


class LangevinMoves(AbstractMoves):
    """Unadjusted Langevin steps, see `Langevin`: fit to learn by, but what is annealed with them errs.

    Parameters
    ----------
    size : the step.
    noise : how much of the noise is added.
    """

    size: float = eqx.field(static=True, default=0.01)
    noise: float = eqx.field(static=True, default=1.0)

    def __call__(self, model: AbstractEnergy, row: Row | None) -> Langevin:
        return Langevin(model, row, self.size, self.noise)


class MetropolisMoves(AbstractMoves):
    """Langevin proposals that are tested, see `Metropolis`.

    Parameters
    ----------
    size : the step.
    """

    size: float = eqx.field(static=True, default=0.01)

    def __call__(self, model: AbstractEnergy, row: Row | None) -> Metropolis:
        return Metropolis(model, row, self.size)


class HamiltonianMoves(AbstractMoves):
    """Hamiltonian proposals that are tested, see `HMC`.

    Parameters
    ----------
    size, steps : length of a leapfrog, and how many make a proposal.
    """

    size: float = eqx.field(static=True, default=0.15)
    steps: int = eqx.field(static=True, default=5)

    def __call__(self, model: AbstractEnergy, row: Row | None) -> HMC:
        return HMC(model, row, self.size, self.steps)
