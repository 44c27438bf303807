"""Laws over structures whose most likely one a solver finds: trees, paths, matchings."""

from __future__ import annotations

import abc

import equinox as eqx
from jaxtyping import Array, Float

from ravine.core import AbstractDistribution


class AbstractSolved(AbstractDistribution):
    r"""A law :math:`p(z) \propto \exp\langle z, l \rangle` over 0/1 structures, with a solver for its mode.

    Implement `map_state` to train through any combinatorial solver by `ravine.gradients.IMLE`; a solver outside JAX is
    called by ``jax.pure_callback`` with a ``vmap_method``. The solver maximises: one that minimises a total cost gets
    the logits with their sign changed.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> class Neighbours(AbstractSolved):
    ...     '''Two adjacent items of n.'''
    ...     logits: Float[Array, " n"]
    ...     def states(self):
    ...         n = self.logits.size
    ...         return jnp.eye(n)[:-1] + jnp.eye(n)[1:]
    ...     def map_state(self, logits):
    ...         return self.states()[jnp.argmax(self.states() @ logits)]
    ...     def log_prob(self, value, mask=None):
    ...         return value @ self.logits - jax.nn.logsumexp(self.states() @ self.logits)
    ...     def mean(self):
    ...         return jax.nn.softmax(self.states() @ self.logits) @ self.states()
    ...     def sample(self, *, key):
    ...         return self.states()[jr.categorical(key, self.states() @ self.logits)]
    >>> import jax, jax.random as jr
    >>> d = Neighbours(jnp.array([3.0, 0.0, 2.0, 2.0]))
    >>> d.map_state(d.logits).tolist()
    [0.0, 0.0, 1.0, 1.0]
    """

    logits: eqx.AbstractVar[Float[Array, "..."]]

    @abc.abstractmethod
    def map_state(self, logits: Float[Array, "..."]) -> Float[Array, "..."]:
        """The state z with the largest ``sum(z * logits)``, for logits other than its own; of their shape and type."""
