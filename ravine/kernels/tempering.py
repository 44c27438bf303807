"""Parallel tempering: chains along the path of an energy that exchange their positions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ravine.core import AbstractEnergy, AbstractKernel, Metrics, Row


class Tempering(AbstractKernel):
    r"""A chain at each of ``betas``; after each has moved, neighbours exchange their positions now and then.

    .. math:: \log r = E_i(x_i) + E_{i+1}(x_{i+1}) - E_i(x_{i+1}) - E_{i+1}(x_i)

    is the log odds of an exchange; pairs that begin with an even place are tried, then those that begin with an odd
    one. The product of the laws is left as it is. Swendsen & Wang 1986; for Boltzmann machines Desjardins et al. 2010.

    Parameters
    ----------
    model : the energy and its path.
    betas : increasing, the last one 1.
    row : held, see `AbstractEnergy.kernel`.
    """

    model: AbstractEnergy
    betas: Float[Array, " chains"]
    row: Row | None = None

    def init(self, position: PyTree[Array], *, key: PRNGKeyArray) -> PyTree[Array]:
        """All chains begin where the one at 1 does; a state may also be given to `step` as it is."""
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(self.betas), *leaf.shape)), position)

    def step(self, state: PyTree[Array], *, key: PRNGKeyArray) -> tuple[PyTree[Array], Metrics]:
        move, even, odd = jr.split(key, 3)

        def moved(beta: Array, x: PyTree, key: PRNGKeyArray) -> PyTree:
            return self.model.at(beta).kernel(self.row).step(x, key=key)[0]

        state = jax.vmap(moved)(self.betas, state, jr.split(move, len(self.betas)))
        state, first = self._exchanged(state, 0, key=even)
        state, second = self._exchanged(state, 1, key=odd)
        return state, {"exchanged": 0.5 * (first + second)}

    def position(self, state: PyTree[Array]) -> PyTree[Array]:
        return jax.tree.map(lambda leaf: leaf[-1], state)

    def _exchanged(self, state: PyTree, first: int, *, key: PRNGKeyArray) -> tuple[PyTree, Array]:
        """The positions after the pairs that begin at even or odd places were tried, and the share that exchanged."""
        chains = len(self.betas)
        energy = jax.vmap(jax.vmap(lambda b, x: self.model.at(b).energy(x), (0, None)), (None, 0))(self.betas, state)
        low = jnp.arange(first, chains - 1, 2)
        log_odds = energy[low, low] + energy[low + 1, low + 1] - energy[low + 1, low] - energy[low, low + 1]
        taken = jnp.log(jr.uniform(key, low.shape, energy.dtype)) < log_odds
        places = jnp.arange(chains)
        places = places.at[low].set(jnp.where(taken, low + 1, low)).at[low + 1].set(jnp.where(taken, low, low + 1))
        return jax.tree.map(lambda leaf: leaf[places], state), jnp.mean(taken) if low.size else jnp.array(0.0)
