"""Learning a net by its own chains: those of the machine on top of it."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ravine._tree import Part, resolve
from ravine.core import AbstractEnergy, AbstractRule, Metrics, Row, walk
from ravine.rules.contrast import AbstractNegatives, Against, ContrastObjective, Persistent, _started
from ravine.rules.descend import Descend, Optimiser


class HeldLabels(AbstractNegatives):
    """Persistent chains of a machine of rows and labels, each with a label that it keeps; as many of each label.

    What is learned so is the law of the rows of each label: chains need not travel from one to another. How often each
    label comes is left to what tells them.

    Parameters
    ----------
    k : sweeps at each step.
    chains : how many; a multiple of the number of labels.
    """

    k: int = eqx.field(static=True, default=5)
    chains: int = eqx.field(static=True, default=100)

    def init(self, model: AbstractEnergy, data: PyTree[Array], *, key: PRNGKeyArray) -> PyTree[Array]:
        cells, labels = _started(model, self.chains, key)
        classes = labels.shape[1]
        return cells, jnp.eye(classes, dtype=labels.dtype)[jnp.arange(self.chains) % classes]

    def __call__(
        self, model: AbstractEnergy, state: PyTree[Array], data: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        keys = jr.split(key, self.chains)
        state = jax.vmap(lambda x, k: walk(model.given(x[1]), x, self.k, key=k))(state, keys)  # pyright: ignore
        return state, state


class ContrastiveTop(AbstractRule):
    """One step down the slope of an objective of a net and of where chains of a part of it are.

    Parameters
    ----------
    objective : called with the net, a batch and positions of the chains.
    negatives : the chains, which do not begin at the data.
    optimiser : of all parameters.
    of : the machine whose chains they are.
    """

    objective: ContrastObjective
    negatives: AbstractNegatives = Persistent()
    optimiser: Optimiser = Optimiser()
    of: Part = eqx.field(static=True, default=Part("top"))

    def init(self, model: PyTree, batch: Row, *, key: PRNGKeyArray) -> PyTree:
        chains = self.negatives.init(self.of.get(model), None, key=key)
        return Descend(self.objective, self.optimiser).init(model, batch, key=key), chains

    def step(
        self, model: PyTree, state: PyTree, batch: Row, *, key: PRNGKeyArray, step: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, Metrics]:
        chain, luck = jr.split(key)
        inner, memory = state
        positions, memory = resolve(self.negatives, step)(self.of.get(model), memory, None, key=chain)
        rule = Descend(Against(self.objective, positions), self.optimiser)
        model, inner, metrics = rule.step(model, inner, batch, key=luck, step=step)
        return model, (inner, memory), metrics
