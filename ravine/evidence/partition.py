"""The log partition function of an energy: by listing all states, or by annealed importance sampling."""

from __future__ import annotations

import abc
import math
from typing import NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine._check import require
from ravine.core import AbstractEnergy, Direction, Scalar
from ravine.evidence.annealing import adapted_betas, backward, bootstrap_error, forward, log_mean


class PartitionFunction(NamedTuple):
    """log Z in nats, and how far to trust it.

    Attributes
    ----------
    value : log Z, or what was estimated in its place.
    standard_error : of the Monte Carlo, by the bootstrap; 0 when exact.
    direction : ``exact``, or ``lower``: by Jensen's inequality the estimate is expected to lie below log Z.
    method : in short, such as ``ais-1000x100``.
    low, high : ends of an interval of log Z from both directions, three standard errors wide on each side, or None.
    bracket : whether the chains back began at exact draws, so that ``high`` is an upper bound; else it is an estimate
        of one, too low by what the draws have not reached.
    deviation : standard deviation of the log weights of the chains; from about 2 on log Z errs low by nats.
    """

    value: float
    standard_error: float
    direction: Direction
    method: str
    low: float | None = None
    high: float | None = None
    bracket: bool = False
    deviation: float = 0.0

    def __str__(self) -> str:
        text = f"log Z {self.value:.4f} +- {self.standard_error:.4f} nats ({self.direction}, {self.method})"
        if self.low is None or self.high is None:
            return text
        kind = "bracket" if self.bracket else "reverse estimate, no bracket"
        return f"{text}; [{self.low:.4f}, {self.high:.4f}] ({kind})"


@runtime_checkable
class Listable(Protocol):
    """An energy whose states can be listed, where they are few."""

    def log_partition(self) -> Scalar:
        """log Z, exact."""
        ...

    def bits(self) -> float:
        """log2 of the number of states that this takes."""
        ...


class AbstractPartition(eqx.Module):
    """A way to find log Z."""

    @abc.abstractmethod
    def __call__(self, model: AbstractEnergy, *, key: PRNGKeyArray) -> PartitionFunction: ...


class Enumerated(AbstractPartition):
    """Exact, by listing the states of the group of units that has fewer, at most 2^``bits`` of them.

    Raises
    ------
    ValueError
        When there are more.
    """

    bits: int = eqx.field(static=True, default=25)

    def __call__(self, model: AbstractEnergy, *, key: PRNGKeyArray) -> PartitionFunction:
        got = model.bits() if isinstance(model, Listable) else math.inf
        do = "anneal: AIS()"
        require(got <= self.bits, "log Z by enumeration", f"at most 2^{self.bits} states", f"2^{got:.0f}", do)
        assert isinstance(model, Listable)
        return PartitionFunction(float(_listed(model)), 0.0, "exact", "enumerated")


class AIS(AbstractPartition):
    """Annealed importance sampling along the path of the model, at ``steps`` temperatures, in ``chains`` chains.

    The estimate of Z is unbiased; that of log Z errs low. Neal 2001. With ``back`` as many chains run in the other
    direction, from draws that each took the model's ``sweeps``.

    Parameters
    ----------
    steps : temperatures; placed where the law changes most.
    chains : independent chains.
    back : chains in the other direction, too, for an interval. They begin at draws of the model: it is a bracket only
        where these are exact, which no chain knows; see `bracketed` for a model whose states can be listed.
    """

    steps: int = eqx.field(static=True, default=2000)
    chains: int = eqx.field(static=True, default=100)
    back: bool = eqx.field(static=True, default=False)

    def __call__(self, model: AbstractEnergy, *, key: PRNGKeyArray) -> PartitionFunction:
        there, again = jr.split(key)
        log_w, betas, value, error = _forwards(model, self.steps, self.chains, there)
        method, deviation = f"ais-{self.steps}x{self.chains}", float(np.std(log_w, ddof=1))
        found = PartitionFunction(float(value), float(error), "lower", method, deviation=deviation)
        return found if not self.back else _with_ends(found, log_w, _back(model, betas, self.chains, again), False)


def bracketed(
    model: AbstractEnergy, exact: PyTree[Array], steps: int = 2000, chains: int = 100, *, key: PRNGKeyArray
) -> PartitionFunction:
    """`AIS` with chains back from ``exact`` draws of the model, on a leading axis: log Z lies between, up to noise.

    The ends are the mean of log w over the chains there, less three standard errors, and that over the chains back,
    plus three. Exact draws there are of models whose states can be listed, and of data that the model has made.
    """
    there, again = jr.split(key)
    log_w, betas, value, error = _forwards(model, steps, chains, there)
    method, deviation = f"bdmc-{steps}x{chains}", float(np.std(log_w, ddof=1))
    found = PartitionFunction(float(value), float(error), "lower", method, deviation=deviation)
    return _with_ends(found, log_w, _from(model, betas, exact, again), True)


def _with_ends(found: PartitionFunction, there: Array, back: Array, bracket: bool) -> PartitionFunction:
    low, high = (np.asarray(log_w, float) for log_w in (there, back))
    error = lambda log_w: 3 * float(np.std(log_w, ddof=1)) / math.sqrt(len(log_w))  # noqa: E731
    return found._replace(low=float(low.mean()) - error(low), high=float(high.mean()) + error(high), bracket=bracket)


@eqx.filter_jit
def _listed(model: Listable) -> Scalar:
    return model.log_partition()


@eqx.filter_jit
def _forwards(
    model: AbstractEnergy, steps: int, chains: int, key: PRNGKeyArray
) -> tuple[Float[Array, " chains"], Float[Array, " betas"], Scalar, Scalar]:
    place, go, again = jr.split(key, 3)
    betas = adapted_betas(model, steps, key=place)
    log_w = jax.vmap(lambda k: forward(model, betas, key=k))(jr.split(go, chains))
    return log_w, betas, log_mean(log_w), bootstrap_error(log_w, key=again)


@eqx.filter_jit
def _back(model: AbstractEnergy, betas: Array, chains: int, key: PRNGKeyArray) -> Float[Array, " chains"]:
    draw, go = jr.split(key)
    starts = jax.vmap(lambda k: model.settled(None, key=k))(jr.split(draw, chains))
    return _from(model, betas, starts, go)


@eqx.filter_jit
def _from(model: AbstractEnergy, betas: Array, starts: PyTree[Array], key: PRNGKeyArray) -> Float[Array, " chains"]:
    keys = jr.split(key, jax.tree.leaves(starts)[0].shape[0])
    return jax.vmap(lambda x, k: backward(model, betas, x, key=k))(starts, keys)
