"""Whether the machine on top of a net is, by its own chains, where rows lead to.

Salakhutdinov & Murray 2008 anneal log Z of such machines; a region that no chain has seen is not in what they find.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import Row, rows_in
from ravine.models.deep_belief import DeepBelief

FAR = 3.0  # deviations


class TopEnergies(NamedTuple):
    """Energies of the topmost states, the label summed out, in nats: of rows, and of draws of the machine on top.

    Attributes
    ----------
    rows, draws : their means.
    rows_deviation, draws_deviation : their standard deviations.
    """

    rows: float
    draws: float
    rows_deviation: float
    draws_deviation: float

    @property
    def apart(self) -> float:
        """How far apart the means are, in the larger of the deviations."""
        return abs(self.rows - self.draws) / max(self.rows_deviation, self.draws_deviation, 1e-12)

    @property
    def same_region(self) -> bool:
        """Whether they are less than three deviations apart.

        Elsewhere chains have settled in a region of low energy that rows never lead to, or have missed one: what is
        annealed is log Z of that region alone, and a log-likelihood computed with it means nothing.
        """
        return self.apart < FAR


def top_energies(model: DeepBelief, batch: Row, draws: int = 100, *, key: PRNGKeyArray) -> TopEnergies:
    """The energies on top of some rows, each by one draw of the way up, and of as many draws as asked.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ravine.models.coupled import AssociativeMemory, coupled_net
    >>> from ravine.models.units import BinaryUnits
    >>> net = coupled_net(BinaryUnits().sized((4,)), (3,), AssociativeMemory(2), 0, 20, key=jr.key(0))
    >>> top_energies(net, Row(jnp.ones((8, 4))), key=jr.key(1)).same_region
    True
    """
    first, second = jr.split(key)
    found = [np.asarray(one, float) for one in (_of_rows(model, batch, first), _of_draws(model, draws, second))]
    (rows, drawn), (rows_sd, drawn_sd) = ([float(f(one)) for one in found] for f in (np.mean, np.std))
    return TopEnergies(rows, drawn, rows_sd, drawn_sd)


@eqx.filter_jit
def _of_rows(model: DeepBelief, batch: Row, key: PRNGKeyArray) -> Float[Array, " n"]:
    def one(row: Row, key: PRNGKeyArray) -> Array:
        return -model.log_top(model.posterior(row).sample(key=key)[0][-1])

    return jax.vmap(one)(batch, jr.split(key, rows_in(batch)))


@eqx.filter_jit
def _of_draws(model: DeepBelief, draws: int, key: PRNGKeyArray) -> Float[Array, " draws"]:
    def one(key: PRNGKeyArray) -> Array:
        return -model.log_top(model.top.shown(model.top.sample(key=key)[0]))

    return jax.vmap(one)(jr.split(key, draws))
