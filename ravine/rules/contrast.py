"""Learning by contrast: lower the energy of the data, raise that of what chains of the model find.

Hinton 2002 (contrastive divergence); Younes 1999 and Tieleman 2008 (persistent chains); Tieleman & Hinton 2009 (fast
weights); Desjardins et al. 2010 (tempered chains); Montavon & Mueller 2012 (centring).
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ravine._tree import Layer, Part, Whole, number, resolve, trainable
from ravine.core import AbstractEnergy, AbstractRule, Metrics, Row, Scalar, rows_in, walk
from ravine.kernels import Tempering
from ravine.rules.descend import Descend, Number, Optimiser, gradient_descent

ContrastObjective = Callable[..., tuple[Scalar, Metrics]]  # (model, batch, negatives, *, key): batch.x are positions


class AbstractNegatives(eqx.Module):
    """Where the negative phase takes its positions from; all memory is in the state."""

    @abc.abstractmethod
    def init(self, model: AbstractEnergy, data: PyTree[Array], *, key: PRNGKeyArray) -> PyTree:
        """The state before the first step; ``data`` are the positions of a batch."""

    @abc.abstractmethod
    def __call__(
        self, model: AbstractEnergy, state: PyTree, data: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[PyTree[Array], PyTree]:
        """Positions for this step, and the next state."""

    def told(self, state: PyTree, slope: Callable[[], PyTree]) -> PyTree:
        """The state after a step of learning; ``slope()`` is the gradient of its loss in the model's parameters."""
        return state


def _walked(model: AbstractEnergy, positions: PyTree[Array], steps: int, key: PRNGKeyArray) -> PyTree[Array]:
    keys = jr.split(key, jax.tree.leaves(positions)[0].shape[0])
    return jax.vmap(lambda x, k: walk(model.kernel(), x, steps, key=k))(positions, keys)


def _started(model: AbstractEnergy, chains: int, key: PRNGKeyArray) -> PyTree[Array]:
    return jax.vmap(lambda k: model.start(key=k))(jr.split(key, chains))


class ContrastiveDivergence(AbstractNegatives):
    """CD-k: ``k`` sweeps from the data, anew at every step. Hinton 2002. Biased towards where the data are."""

    k: int = eqx.field(static=True, default=1)

    def init(self, model: AbstractEnergy, data: PyTree[Array], *, key: PRNGKeyArray) -> None:
        return None

    def __call__(
        self, model: AbstractEnergy, state: None, data: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[PyTree[Array], None]:
        return _walked(model, data, self.k, key), None


class Persistent(AbstractNegatives):
    """PCD-k: chains that go on from step to step, ``k`` sweeps each. Younes 1999; Tieleman 2008."""

    k: int = eqx.field(static=True, default=1)
    chains: int = eqx.field(static=True, default=100)

    def init(self, model: AbstractEnergy, data: PyTree[Array], *, key: PRNGKeyArray) -> PyTree[Array]:
        return _started(model, self.chains, key)

    def __call__(
        self, model: AbstractEnergy, state: PyTree[Array], data: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        state = _walked(model, state, self.k, key)
        return state, state


class Tempered(AbstractNegatives):
    """Persistent chains at several temperatures that exchange positions; those at 1 are the negatives.

    Desjardins et al. 2010. Each of ``chains`` has its own ladder of ``temperatures`` rungs.
    """

    chains: int = eqx.field(static=True, default=20)
    temperatures: int = eqx.field(static=True, default=10)
    k: int = eqx.field(static=True, default=1)

    def init(self, model: AbstractEnergy, data: PyTree[Array], *, key: PRNGKeyArray) -> PyTree[Array]:
        first = _started(model, self.chains * self.temperatures, key)
        return jax.tree.map(lambda x: x.reshape(self.chains, self.temperatures, *x.shape[1:]), first)

    def __call__(
        self, model: AbstractEnergy, state: PyTree[Array], data: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        kernel = Tempering(model, jnp.linspace(0.0, 1.0, self.temperatures))

        def again(i: Int[Array, ""], state: PyTree) -> PyTree:
            keys = jr.split(jr.fold_in(key, i), self.chains)
            return jax.vmap(lambda x, k: kernel.step(x, key=k)[0])(state, keys)

        state = again(jnp.array(0), state) if self.k == 1 else jax.lax.fori_loop(0, self.k, again, state)
        return jax.vmap(kernel.position)(state), state


class FastWeights(AbstractNegatives):
    """Persistent chains of a model that leaves where they are: fast weights on top of its own follow every gradient.

    Tieleman & Hinton 2009. After each step the overlay keeps ``decay`` of itself and moves by ``rate`` down the slope.

    Parameters
    ----------
    k, chains : sweeps at each step, and chains.
    rate : of the fast weights; a number or a schedule.
    decay : share of the overlay that is left after a step; 19/20 in the paper.
    """

    k: int = eqx.field(static=True, default=1)
    chains: int = eqx.field(static=True, default=100)
    rate: Number = 0.01
    decay: float = 0.95

    def init(self, model: AbstractEnergy, data: PyTree[Array], *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        return _started(model, self.chains, key), jax.tree.map(jnp.zeros_like, trainable(model)[0])

    def __call__(
        self, model: AbstractEnergy, state: tuple[PyTree, PyTree], data: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[PyTree[Array], tuple[PyTree, PyTree]]:
        positions, overlay = state
        slow, rest = trainable(model)
        fast = eqx.combine(jax.tree.map(jnp.add, slow, overlay), rest)
        positions = _walked(fast, positions, self.k, key)
        return positions, (positions, overlay)

    def told(self, state: tuple[PyTree, PyTree], slope: Callable[[], PyTree]) -> tuple[PyTree, PyTree]:
        positions, overlay = state
        return positions, jax.tree.map(lambda f, g: self.decay * f - number(self.rate) * g, overlay, slope())


class Contrastive(AbstractRule):
    """One step down the slope of a contrast of the data with negatives.

    Missing cells, and cells that no row holds, are drawn given the others before, by ``fill`` sweeps. Chains that begin
    at the data begin at each row as often as its weight says.

    Parameters
    ----------
    objective : what is lowered, given positions of the data and negatives.
    negatives : where the negatives come from.
    optimiser : of the parameters in ``on``.
    on : what learns.
    fill : sweeps that draw what a row does not hold.
    """

    objective: ContrastObjective
    negatives: AbstractNegatives = Persistent()
    optimiser: Optimiser = gradient_descent(0.05)
    on: Whole | Part | Layer = Whole()
    fill: int = eqx.field(static=True, default=10)

    def init(self, model: AbstractEnergy, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        fill, begin = jr.split(key)
        rows = self._filled(model, batch, fill)
        return self._descend(rows.x).init(model, batch, key=key), self.negatives.init(model, rows.x, key=begin)

    def step(
        self, model: AbstractEnergy, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[AbstractEnergy, PyTree, Metrics]:
        fill, chain, luck = jr.split(key, 3)
        inner, memory = state
        rows, source = self._filled(model, batch, fill), resolve(self.negatives, step)
        positions, memory = source(model, memory, _by_weight(rows, jr.fold_in(chain, 0)), key=chain)
        rule = self._descend(positions)

        def slope() -> PyTree:
            parameters, rest = trainable(model)
            loss = lambda p: rule.objective(eqx.combine(p, rest), rows, key=luck)[0]  # noqa: E731
            return jax.grad(loss)(parameters)

        after, inner, metrics = rule.step(model, inner, rows, key=luck, step=step)
        return after, (inner, source.told(memory, slope)), metrics

    def _descend(self, negatives: PyTree[Array]) -> Descend:
        return Descend(Against(self.objective, negatives), self.optimiser, self.on)

    def _filled(self, model: AbstractEnergy, batch: Row, key: PRNGKeyArray) -> Row:
        """The batch with whole positions in place of rows."""
        rows = jax.vmap(model.lifted)(batch)
        if rows.mask is None:
            return rows

        def one(row: Row, key: PRNGKeyArray) -> PyTree[Array]:
            begin, go = jr.split(key)
            return walk(model.kernel(row), row.clamp(model.start(key=begin)), self.fill, key=go)

        filled = jax.vmap(one)(rows, jr.split(key, rows_in(batch)))
        return dataclasses.replace(rows, x=filled, mask=None)


def _by_weight(rows: Row, key: PRNGKeyArray) -> PyTree[Array]:
    """As many positions as rows; each is there, on average, as often as its share of the weight says, to within one."""
    if rows.weight is None:
        return rows.x
    share, n = jnp.cumsum(rows.weight), rows.weight.shape[0]
    at = share[-1] * (jr.uniform(key) + jnp.arange(n)) / n
    places = jnp.minimum(jnp.searchsorted(share, at, side="right"), n - 1)
    return jax.tree.map(lambda leaf: leaf[places], rows.x)


class Against(eqx.Module):
    """A contrast with its negatives: an objective."""

    objective: ContrastObjective
    negatives: PyTree[Array]

    def __call__(self, model: PyTree, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        return self.objective(model, batch, self.negatives, key=key)


@runtime_checkable
class Centrable(Protocol):
    """A model whose statistics may be counted from an offset."""

    def offsets(self, positions: PyTree[Array]) -> PyTree[Array]:
        """The mean statistics of a batch of positions, and of what is summed out."""
        ...

    def centred(self, offsets: PyTree[Array]) -> PlainAgain:
        """The same law, with parameters of statistics less their offsets."""
        ...


@runtime_checkable
class PlainAgain(Protocol):
    """A model with offsets."""

    def plain(self) -> AbstractEnergy:
        """The same law without them."""
        ...


class Centred(AbstractRule):
    """A rule whose gradient is taken with respect to centred parameters: it does not care which value is called 1.

    The offsets follow the means of the data with weight ``follow`` per step. Montavon & Mueller 2012; Melchior, Fischer
    & Wiskott 2016, arXiv:1311.1354.
    """

    rule: AbstractRule
    follow: float = 0.01

    def init(self, model: Centrable, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        offsets = model.offsets(batch.x)
        return offsets, self.rule.init(model.centred(offsets), batch, key=key)

    def step(
        self, model: Centrable, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, Metrics]:
        offsets, inner = state
        offsets = jax.tree.map(lambda old, new: old + self.follow * (new - old), offsets, model.offsets(batch.x))
        after, inner, metrics = self.rule.step(model.centred(offsets), inner, batch, key=key, step=step)
        return after.plain(), (offsets, inner), metrics


def centred(rule: AbstractRule, follow: float) -> AbstractRule:
    """The rule with centred gradients; the rule itself where ``follow`` is 0."""
    return Centred(rule, follow) if follow else rule


class Projected(AbstractRule):
    """A rule after each step of which the model is projected: weight constraints, bounded norms, a gauge.

    Parameters
    ----------
    rule : what learns.
    projection : model to model; a module, so that equal ones compare equal.
    """

    rule: AbstractRule
    projection: Callable[[PyTree], PyTree]

    def init(self, model: PyTree, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        return self.rule.init(model, batch, key=key)

    def step(
        self, model: PyTree, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, Metrics]:
        model, state, metrics = self.rule.step(model, state, batch, key=key, step=step)
        return self.projection(model), state, metrics
