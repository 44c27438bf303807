"""How noisy one training step is: mean and variance of the gradient over repeated draws, for each part of the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Int, Key, PRNGKeyArray, PyTree

from ravine._check import whole
from ravine._jax import hasty_jit
from ravine._tree import as_arrays, resolve, trainable
from ravine.core import Objective, Row
from ravine.diagnose.words import Finding

LATE = 2**30  # the step at which schedules are read: their end
FAINT = 0.01  # signal-to-noise ratio below which a step is mostly noise


@dataclass(frozen=True)
class PartNoise:
    """The gradient of one part of a model over repeated draws on one batch; sums over its parameters.

    Attributes
    ----------
    signal : sum of E[g]^2, estimated without bias, so it may be slightly negative.
    variance : sum of Var[g] of one draw.
    parameters : how many numbers the part has.
    """

    signal: float
    variance: float
    parameters: int

    @property
    def ratio(self) -> float:
        """Signal over variance of one draw; infinite without noise."""
        return max(self.signal, 0.0) / self.variance if self.variance > 0 else float("inf")


@dataclass(frozen=True)
class GradientNoise:
    """`PartNoise` of every part of the model that learns, by name; ``p`` and ``q`` for a generator and recogniser."""

    parts: Mapping[str, PartNoise]
    draws: int

    def finding(self) -> Finding:
        """The verdict in words."""
        ratios = {name: part.ratio for name, part in self.parts.items()}
        listed = ", ".join(f"{name} {ratio:.2g}" for name, ratio in ratios.items())
        words = f"Signal-to-noise ratio of one gradient, E[g]^2 / Var[g]: {listed} ({self.draws} draws)."
        numbers = {f"{kind}_{name}": getattr(part, kind) for name, part in self.parts.items() for kind in KINDS}
        faint = [name for name, ratio in ratios.items() if ratio < FAINT]
        if not faint:
            return Finding("gradient", "good", words, numbers)
        words += (
            f" A step of {' and '.join(faint)} is mostly noise: expected at the end of training; if the loss should "
            "still fall, use larger batches, a smaller rate, or an estimator with less variance (DReG for IWAE)."
        )
        return Finding("gradient", "note", words, numbers)


KINDS = ("signal", "variance", "ratio")


def gradient_noise(
    model: eqx.Module, objective: Objective, batch: Row, *, key: PRNGKeyArray, draws: int = 32
) -> GradientNoise:
    r"""Signal and variance of the gradient of an objective on one batch, for each field of the model that learns.

    .. math:: \mathrm{SNR} = \sum_j E[g_j]^2 / \sum_j \mathrm{Var}[g_j]

    over the draws of the objective's key, with ``batch`` held. The squared mean is corrected for the noise of the mean,
    :math:`\bar g_j^2 - s_j^2 / R`. Rainforth et al. 2018, arXiv:1802.04537, study it for importance-weighted bounds.
    Schedules are taken at their end.

    Parameters
    ----------
    objective : called as ``objective(model, batch, key=key) -> (loss, metrics)``.
    draws : R, at least 2.

    Raises
    ------
    ValueError
        When there are fewer than two draws.

    Examples
    --------
    >>> class Rough(eqx.Module):
    ...     def __call__(self, model, batch, *, key):
    ...         return model.weight @ (2.0 + jr.normal(key, (4,))), {}
    >>> class Four(eqx.Module):
    ...     weight: jax.Array
    >>> noise = gradient_noise(Four(jnp.zeros(4)), Rough(), Row(jnp.zeros((1, 1))), key=jr.key(0), draws=4000)
    >>> round(noise.parts["weight"].ratio, 1)  # 4 * 2^2 / (4 * 1^2)
    4.0
    """
    keys = jr.split(key, whole("draws", draws, 2))
    objective, batch = as_arrays(resolve(objective, jnp.asarray(LATE))), jax.tree.map(jnp.asarray, batch)
    mean, variance, size = _moments(objective, model, batch, keys)
    parts = {}
    for field in dataclasses.fields(model):
        m, v, n = (jax.tree.leaves(getattr(tree, field.name)) for tree in (mean, variance, size))
        if m:
            noise = float(sum(v))
            parts[field.name] = PartNoise(float(sum(m)) - noise / draws, noise, int(sum(n)))
    return GradientNoise(parts, draws)


@hasty_jit
def _moments(objective: Objective, model: PyTree, batch: Row, keys: Key[Array, " draws"]) -> tuple[PyTree, ...]:
    """For each array: the summed squares of the mean gradient, its summed variances, and its size."""
    parameters, rest = trainable(model)
    gradient = jax.grad(lambda parameters, key: objective(eqx.combine(parameters, rest), batch, key=key)[0])
    nothing = jax.tree.map(jnp.zeros_like, parameters)

    # Welford's running mean and sum of squares: no gradient is kept, and nothing cancels
    def more(carry: tuple[PyTree, PyTree], at: tuple[Int[Array, ""], PRNGKeyArray]) -> tuple[tuple, None]:
        (mean, squares), (i, key) = carry, at
        new = gradient(parameters, key)
        after = jax.tree.map(lambda m, g: m + (g - m) / (i + 1), mean, new)
        squares = jax.tree.map(lambda s, m, a, g: s + (g - m) * (g - a), squares, mean, after, new)
        return (after, squares), None

    (mean, squares), _ = jax.lax.scan(more, (nothing, nothing), (jnp.arange(keys.size), keys))
    signal = jax.tree.map(lambda m: jnp.sum(m**2), mean)
    variance = jax.tree.map(lambda s: jnp.sum(s) / (keys.size - 1), squares)
    return signal, variance, jax.tree.map(lambda m: m.size, mean)
