"""Which latents carry anything about the row: divergence per latent, active units, posterior collapse."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._tree import row_keys
from ravine.core import (
    AbstractDirected,
    AbstractDistribution,
    AbstractLatentModel,
    AbstractPosterior,
    Latent,
    Row,
    Scalar,
)
from ravine.diagnose._rows import nodes_of
from ravine.diagnose.words import Finding
from ravine.dist import FullGaussian, Gaussian, LowRankGaussian, OneHot, has_kl, has_kl_cells, kl, kl_cells
from ravine.evidence import held_cells
from ravine.verbs import blockwise, flat

ACTIVE = 0.01  # variance of the posterior mean above which a unit counts as active: Burda et al. 2016
NOTHING = 0.05  # nats per row below which latents are said to carry nothing


@dataclass(frozen=True)
class LatentUse:
    """How much every latent carries; all in nats per row but ``spread``.

    Attributes
    ----------
    kl : mean over rows of KL(q(z_i | x) || p(z_i)) for each latent cell i; one number for all where q has several
        layers or no closed form.
    total : mean over rows of KL(q(z | x) || p(z)), which bounds the mutual information of x and z.
    spread : variance over rows of the posterior mean of each unit.
    reliance : mean over rows of E_q[log p(x | z)] - E_p(z)[log p(x | z)]: 0 where the generator ignores z.
    """

    kl: Float[np.ndarray, " cells"]
    total: float
    spread: Float[np.ndarray, " units"]
    reliance: float

    @property
    def active(self) -> int:
        """Number of units whose posterior mean varies with the row by more than 0.01."""
        return int(np.sum(self.spread > ACTIVE))

    @property
    def collapsed(self) -> bool:
        """No unit is active, or z holds, or the generator uses, less than 0.05 nats of a row."""
        return self.active == 0 or min(self.total, self.reliance) < NOTHING

    def finding(self) -> Finding:
        """The verdict in words."""
        units = len(self.spread)
        numbers = {"active": float(self.active), "units": float(units), "kl": self.total, "reliance": self.reliance}
        numbers |= {f"kl_{i}": float(value) for i, value in enumerate(self.kl)}
        facts = f"{self.active} of {units} latent units vary with the row; they carry {self.total:.3g} nats per row"
        if self.collapsed:
            words = (
                f"Posterior collapse: {facts}, and knowing them raises log p(x | z) by {self.reliance:.3g} nats. Try "
                "free bits (free_bits=0.1), a beta that rises from 0 (beta=Linear(0.0, 1.0, steps)), a smaller beta, "
                "or a smaller decoder; where the columns are truly independent, there is nothing to carry."
            )
            return Finding("latents", "warning", words, numbers)
        if self.active < units:
            words = f"{facts}. The others are left unused, which costs little: fewer latents would do as well."
            return Finding("latents", "note", words, numbers)
        return Finding("latents", "good", f"{facts}.", numbers)


def latent_use(model: AbstractLatentModel, batch: Row, *, key: PRNGKeyArray, draws: int = 16) -> LatentUse:
    r"""Divergence per latent cell, active units, and what the generator gains from the latents.

    .. math:: A_i = \mathrm{Var}_x(E_{q(z|x)}[z_i]) > 0.01, \qquad KL_i = E_x[KL(q(z_i \mid x) \,\|\, p(z_i))]

    Burda, Grosse & Salakhutdinov 2016, arXiv:1509.00519. Divergences are closed forms where the two laws
    have one; for a Gaussian q with correlated cells those of its marginals, which do not add up to the total. Otherwise
    they are means over ``draws`` samples. A categorical latent is one unit.

    Parameters
    ----------
    model : with a posterior for a row.
    batch : at least two rows.
    draws : samples of z per row, from q and from p(z).

    Examples
    --------
    >>> from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
    >>> model = LinearGaussian(jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.zeros(2), DiagonalNoise(jnp.ones(2)))
    >>> batch = Row(jnp.array([[1.0, 2.0], [-1.0, 0.5], [0.0, 3.0]]))
    >>> latent_use(model, batch, key=jr.key(0)).active  # the second cause has no effect
    1
    """
    cells, total, mean, reliance = blockwise(_uses, batch, model, draws, key, seldom=True)
    spread = np.var(np.asarray(mean, np.float64), axis=0)
    nodes = nodes_of(model, batch)
    if len(nodes) == 1 and isinstance(nodes[0], OneHot):
        spread = spread.reshape(-1, nodes[0].logits.shape[-1]).sum(axis=1)
    return LatentUse(
        np.asarray(cells, np.float64).mean(axis=0), float(np.mean(total)), spread, float(np.mean(reliance))
    )


def _uses(block: Row, model: AbstractLatentModel, draws: int, key: PRNGKeyArray) -> tuple[Array, ...]:
    return jax.vmap(lambda row, k: _use(model, row, draws, k))(block, row_keys(key, held_cells(block)))


def _use(
    model: AbstractLatentModel, row: Row, draws: int, key: PRNGKeyArray
) -> tuple[Float[Array, " cells"], Scalar, Float[Array, " units"], Scalar]:
    posterior, (here, there) = model.posterior(row), jr.split(key)
    z, log_q = jax.vmap(lambda k: posterior.sample(key=k))(jr.split(here, draws))
    blind = jax.vmap(lambda k: _blind(model, row, k))(jr.split(there, draws))
    both = jax.tree.map(lambda *parts: jnp.concatenate(parts), z, blind)
    fit = jnp.mean(jax.vmap(lambda z: model.log_likelihood(z, row))(both).reshape(2, draws), axis=1)
    drawn = jnp.mean(log_q - jax.vmap(lambda z: model.log_prior(z, row))(z))
    cells, total = _divergences(model, row, posterior, drawn)
    return cells, total, flat(posterior.mean()), fit[0] - fit[1]


def _blind(model: AbstractLatentModel, row: Row, key: PRNGKeyArray) -> Latent:
    """A latent that knows nothing of the row; a program that draws cells as well would take long to compile."""
    if isinstance(model, AbstractDirected):
        return model.prior(row.context).sample(key=key)
    return model.sample(row.context, key=key)[0]


def _divergences(
    model: AbstractLatentModel, row: Row, posterior: AbstractPosterior, drawn: Scalar
) -> tuple[Float[Array, " cells"], Scalar]:
    """Per latent cell and in all; ``drawn`` is the sampled total, for want of a closed form."""
    q, *others = posterior.nodes()
    if others or not isinstance(model, AbstractDirected):
        return drawn[None], drawn
    p = model.prior(row.context)
    marginals = _marginals(q)
    total = kl(q, p) if has_kl(q, p) else drawn
    cells = jnp.ravel(kl_cells(marginals, p)) if has_kl_cells(marginals, p) else total[None]
    return cells, total


def _marginals(q: AbstractDistribution) -> AbstractDistribution:
    """A Gaussian with correlated cells as if they were independent; any other law as it is."""
    if isinstance(q, FullGaussian):
        return Gaussian(q.location, jnp.linalg.norm(q.lower(), axis=1))
    if isinstance(q, LowRankGaussian):
        return Gaussian(q.location, jnp.sqrt(q.scale**2 + jnp.sum(q.loading**2, axis=1)))
    return q
