"""How likely a row is, as a function of its cells that has a slope; up to a constant where no more is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.random as jr

from ravine._check import complaint
from ravine.core import AbstractEnergy, AbstractTractable, Row, Scalar
from ravine.evidence.annealing import log_mean
from ravine.evidence.likelihood import Proposing
from ravine.models.labelled_energy import Labelling

DRAWS = 16  # of the latents of a row, the same at every row

LogDensity = Callable[[Row, Any], Scalar]


def log_density(model: Any, row: Row) -> LogDensity:
    """A function of (row, model): log p(x) in nats, or a bound of it by the same few draws; or without log Z.

    Parameters
    ----------
    model : any model.
    row : one such as will be asked about.

    Raises
    ------
    ValueError
        When the model has no law of rows, or one that sums over units that would have to be listed.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
    >>> model, row = LinearGaussian(jnp.zeros((1, 1)), jnp.zeros(1), DiagonalNoise(jnp.ones(1))), Row(jnp.zeros(1))
    >>> round(float(log_density(model, row)(row, model)), 4)  # of a standard normal
    -0.9189
    """
    if isinstance(model, AbstractTractable):
        return _exact
    if isinstance(model, Labelling):
        return _unlabelled
    if isinstance(model, AbstractEnergy):
        if eqx.filter_eval_shape(lambda model, row: model.lifted(row).mask, model, row) is None:
            return _unnormalised
    elif isinstance(model, Proposing):
        return _bounded
    raise complaint("pull", "a model whose log p(x) has a slope", f"a {type(model).__name__}", "leave it at 0")


def _exact(row: Row, model: Any) -> Scalar:
    return model.log_evidence(row)


def _unlabelled(row: Row, model: Any) -> Scalar:
    return -model.cells_energy(row.x)


def _unnormalised(row: Row, model: Any) -> Scalar:
    return -model.energy(model.lifted(row).x)


def _bounded(row: Row, model: Any) -> Scalar:
    posterior = model.posterior(row)

    def one(key: Any) -> Scalar:
        z, log_q = posterior.sample(key=key)
        return model.log_joint(z, row) - log_q

    return log_mean(jax.vmap(one)(jr.split(jr.key(0), DRAWS)))
