"""Whether importance sampling from q can be trusted: the tail of the weights p(x, z) / q(z | x)."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._check import require
from ravine._tree import row_keys
from ravine.core import AbstractLatentModel, Row, Scalar
from ravine.diagnose.words import Finding, share
from ravine.evidence import held_cells
from ravine.verbs import blockwise, few

HEAVY = 0.7  # shape above which a mean of so many weights is unreliable: Vehtari et al. 2024
LEAST_TAIL = 5
TOGETHER = 100  # draws evaluated side by side, so that memory does not grow with their number


@dataclass(frozen=True)
class ImportanceTail:
    """Tail shape of the importance weights of each row.

    Attributes
    ----------
    k : shape of the generalised Pareto law of the largest weights; above 0.7 estimates of log p(x) are unreliable,
        above 0.5 the weights have no variance.
    effective : effective number of draws, (sum w)^2 / sum w^2.
    draws : number of draws per row.
    """

    k: Float[np.ndarray, " n"]
    effective: Float[np.ndarray, " n"]
    draws: int

    @property
    def heavy(self) -> float:
        """Share of rows with k > 0.7."""
        return float(np.mean(self.k > HEAVY))

    def finding(self) -> Finding:
        """The verdict in words."""
        numbers = {
            "heavy": self.heavy,
            "median_k": float(np.median(self.k)),
            "largest_k": float(np.max(self.k)),
            "effective": float(np.median(self.effective)),
            "draws": float(self.draws),
            "rows": float(len(self.k)),
        }
        level = "good" if self.heavy <= 0.1 else "note" if self.heavy <= 0.3 else "warning"
        words = (
            f"Pareto k of the importance weights exceeds {HEAVY} in {share(self.heavy)} of {len(self.k)} rows (median "
            f"{numbers['median_k']:.2f}; {numbers['effective']:.0f} of {self.draws} draws count)"
        )
        if level == "good":
            words += ": importance sampling from q can be trusted."
        else:
            words += (
                ": there log p(x) and imputations come from a few lucky draws and are too low or too narrow. Use more "
                "draws, a wider q (train with IWAE or DReG), or a richer one."
            )
        return Finding("importance weights", level, words, numbers)


def importance_tail(model: AbstractLatentModel, batch: Row, *, key: PRNGKeyArray, draws: int = 1000) -> ImportanceTail:
    """Pareto-smoothed importance sampling's diagnostic, one number per row.

    Vehtari, Simpson, Gelman, Yao & Gabry 2024, JMLR 25(72), arXiv:1507.02646; see `pareto_k`.

    Parameters
    ----------
    draws : samples of q per row, at least 25.

    Raises
    ------
    ValueError
        When there are too few draws to have a tail.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
    >>> model = LinearGaussian(jnp.ones((2, 1)), jnp.zeros(2), DiagonalNoise(jnp.ones(2)))
    >>> importance_tail(model, Row(jnp.ones((1, 2))), key=jr.key(0), draws=50).heavy  # its posterior is exact
    0.0
    """
    log_w = np.asarray(blockwise(_log_weights, batch, model, draws, key, block=few(True), seldom=True), np.float64)
    w = np.exp(log_w - log_w.max(axis=1, keepdims=True))
    return ImportanceTail(pareto_k(log_w), w.sum(axis=1) ** 2 / (w**2).sum(axis=1), draws)


def _log_weights(block: Row, model: AbstractLatentModel, draws: int, key: PRNGKeyArray) -> Float[Array, "n draws"]:
    def one(row: Row, key: PRNGKeyArray) -> Float[Array, " draws"]:
        posterior = model.posterior(row)

        def weight(key: PRNGKeyArray) -> Scalar:
            z, log_q = posterior.sample(key=key)
            return model.log_joint(z, row) - log_q

        return jax.lax.map(weight, jr.split(key, draws), batch_size=min(draws, TOGETHER))

    return jax.vmap(one)(block, row_keys(key, held_cells(block)))


def pareto_k(log_weights: Float[np.ndarray, "n s"]) -> Float[np.ndarray, " n"]:
    r"""Shape of the generalised Pareto law fitted to the largest weights of each row.

    The largest :math:`\lceil\min(0.2\,s, 3\sqrt s)\rceil` of s weights are fitted by `pareto_shape`. Weights with
    :math:`P(w > t) \sim t^{-1/k}` have a finite mean for k < 1 and a finite variance for k < 1/2. Weights that are
    equal up to rounding have no tail: their k is 0.

    Raises
    ------
    ValueError
        When there are fewer than 25 weights in a row.

    Examples
    --------
    >>> stream = np.random.default_rng(0)
    >>> heavy, light = stream.pareto(1.0, 2000) + 1, 1 + stream.random(2000)  # tails t^-1, and bounded
    >>> (pareto_k(np.log([heavy, light])) > 0.7).tolist()
    [True, False]
    """
    draws = log_weights.shape[1]
    size = int(np.ceil(min(0.2 * draws, 3 * np.sqrt(draws))))
    require(size >= LEAST_TAIL, "draws", "at least 25 weights a row", f"{draws}", "draw more")
    ordered = np.sort(log_weights - log_weights.max(axis=1, keepdims=True), axis=1)
    rounding = 64 * np.finfo(np.float32).eps * (1 + np.abs(log_weights).max(axis=1))
    flat_ = ordered[:, -1] - ordered[:, -size - 1] <= rounding
    tails = np.exp(ordered[:, -size:]) - np.exp(ordered[:, -size - 1])[:, None]
    return np.array([0.0 if level else pareto_shape(tail) for tail, level in zip(tails, flat_, strict=True)])


def pareto_shape(excess: Float[np.ndarray, " m"]) -> float:
    r"""Shape k of the generalised Pareto law :math:`P(X > x) = (1 + k x / \sigma)^{-1/k}` of positive numbers.

    The quasi-Bayesian estimate of Zhang & Stephens 2009, Technometrics 51, 316-325: with :math:`\theta = -k/\sigma`,
    the profile likelihood weighs a grid of :math:`\theta`, and :math:`k(\theta) = \frac1m \sum_i \log(1 - \theta x_i)`
    is taken at their mean. As in Vehtari et al. 2024 it is pulled to 1/2 with the weight of ten numbers.

    Examples
    --------
    >>> x = np.random.default_rng(0).exponential(size=1000)  # k = 0
    >>> abs(pareto_shape(x)) < 0.1
    True
    """
    x = np.sort(excess)
    m, grid = len(x), 30 + int(np.sqrt(len(x)))
    quartile = max(x[int(m / 4 + 0.5) - 1], x[-1] * np.finfo(float).eps)
    theta = 1 / x[-1] + (1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3 * quartile)
    shapes = np.mean(np.log1p(-theta[:, None] * x[None]), axis=1)
    profile = m * (np.log(-theta / shapes) - shapes - 1)
    weight = np.exp(profile - profile.max())
    best = float(weight @ theta / weight.sum())
    return float((m * np.mean(np.log1p(-best * x)) + 10 * 0.5) / (m + 10))
