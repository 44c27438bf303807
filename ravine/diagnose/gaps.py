"""What the recogniser loses: to its network (amortisation gap) and to its family of laws (approximation gap)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ravine._check import require
from ravine._jax import hasty_jit
from ravine._tree import row_keys
from ravine.core import AbstractDirected, AbstractLatentModel, AbstractTractable, Direction, Row, Scalar
from ravine.diagnose._rows import exact_part, mean_and_error, nodes_of
from ravine.diagnose.words import Finding
from ravine.dist import FullGaussian, Gaussian, has_kl, kl
from ravine.evidence import held_cells
from ravine.verbs import blockwise

NORMAL = Gaussian | FullGaussian
RATE = 0.1  # of Adam, in units of the scale of q
TOGETHER = 100  # draws evaluated side by side, so that memory does not grow with their number
SMALL = 0.1  # share of KL(q || p), or nats, below which a gap is called small


class Search(NamedTuple):
    """How the best q of a row is looked for: steps of Adam, draws per step, draws to judge with, draws for log p."""

    steps: int = 200
    draws: int = 8
    judges: int = 256
    evidence: int = 1000


SEARCH = Search()


@dataclass(frozen=True)
class Gaps:
    """The two gaps of each row, in nats.

    Attributes
    ----------
    amortisation : ELBO(q*) - ELBO(q), with q* the best law of q's family for that row.
    approximation : log p(x) - ELBO(q*).
    log_evidence : log p(x), exact or a lower bound.
    error : Monte Carlo standard error of ``log_evidence``.
    divergence : mean of KL(q || p(z)), to compare the gaps with.
    direction, method : of ``log_evidence``; the approximation gap errs in the same direction.
    """

    amortisation: Float[np.ndarray, " n"]
    approximation: Float[np.ndarray, " n"]
    log_evidence: Float[np.ndarray, " n"]
    error: Float[np.ndarray, " n"]
    divergence: float
    direction: Direction
    method: str

    def finding(self) -> Finding:
        """The verdict in words."""
        (lost, lost_error), (rest, rest_error) = map(mean_and_error, (self.amortisation, self.approximation))
        at_least = "" if self.direction == "exact" else "at least "
        words = (
            f"A row's own best q would gain {lost:.2f} +- {lost_error:.2f} nats (amortisation gap); the family of q "
            f"then still loses {at_least}{rest:.2f} +- {rest_error:.2f} nats of log p(x) (approximation gap, "
            f"{self.method}; {len(self.amortisation)} rows)"
        )
        numbers = {"amortisation": lost, "amortisation_error": lost_error, "kl": self.divergence}
        numbers |= {"approximation": rest, "approximation_error": rest_error, "rows": float(len(self.amortisation))}
        scale = max(SMALL, SMALL * self.divergence)
        level = "good" if lost <= scale else "note" if lost <= 5 * scale else "warning"
        if level != "good":
            words += ". Train longer, or give the recogniser a larger network"
            words += ", or refine q per row." if level == "warning" else "."
            return Finding("recogniser", level, words, numbers)
        if rest > 5 * scale:
            words += ". The network is not at fault: a richer q (correlated cells, IWAE) would help."
            return Finding("recogniser", "note", words, numbers)
        return Finding("recogniser", "good", f"{words}. Both are small.", numbers)


def no_gaps(model: AbstractLatentModel, batch: Row) -> str | None:
    """Why the gaps cannot be measured; None when they can.

    Examples
    --------
    >>> from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
    >>> no_gaps(LinearGaussian(jnp.ones((2, 1)), jnp.zeros(2), DiagonalNoise(jnp.ones(2))), Row(jnp.ones((1, 2))))
    "the model's posterior is exact, so there is no recogniser to lose anything"
    """
    if isinstance(model, AbstractTractable):
        return "the model's posterior is exact, so there is no recogniser to lose anything"
    first, *others = nodes_of(model, batch)
    if others:
        return f"q has {1 + len(others)} layers, and only a q of one Gaussian layer is optimised per row"
    if not isinstance(first, NORMAL):
        return f"q is a {type(first).__name__}, and only a Gaussian q is optimised per row"
    return None


def inference_gaps(model: AbstractLatentModel, batch: Row, *, key: PRNGKeyArray, search: Search = SEARCH) -> Gaps:
    r"""Amortisation gap and approximation gap of each row.

    .. math:: \log p(x) - L(q) = [\log p(x) - L(q^*)] + [L(q^*) - L(q)]

    Cremer, Li & Duvenaud 2018, arXiv:1801.03558, equation 7: approximation gap, then amortisation gap. The best law q*
    of q's family (Gaussian with independent, or with correlated cells) is reached from q by Adam on that row's bound.
    Noise comes in pairs e, -e that are scaled to unit second moments, jointly where there are enough of them: bounds
    that are quadratic in z are then exact. Both bounds are judged on the same fresh noise. log p(x) is exact where the
    generator knows it, else the importance-weighted bound with proposals from q*.

    Raises
    ------
    ValueError
        When q is not one Gaussian layer, or the posterior is exact; `no_gaps` says which.

    Examples
    --------
    >>> from ravine._tree import Fixed
    >>> from ravine.dist import Conditional, Homoscedastic
    >>> from ravine.models.directed import Helmholtz
    >>> from ravine.models.linear_gaussian import DiagonalNoise, LinearGaussian
    >>> from ravine.nets import MLP
    >>> from ravine.recognisers import Amortised, Filled
    >>> p = LinearGaussian(jnp.ones((2, 1)), jnp.zeros(2), DiagonalNoise(jnp.ones(2)))
    >>> law = Homoscedastic(jnp.zeros(1), floor=0.0)  # N(net(x), 1), where the best has variance 1/3
    >>> q = Amortised(Filled(Fixed(jnp.zeros(2))), Conditional(MLP(2, 1, (), key=jr.key(0)), law, (1,)))
    >>> gaps = inference_gaps(Helmholtz(p, q), Row(jnp.ones((1, 2))), key=jr.key(1), search=Search(steps=200))
    >>> bool(gaps.amortisation[0] > 0.4 and abs(gaps.approximation[0]) < 1e-3)
    True
    """
    reason = no_gaps(model, batch)
    require(reason is None, "inference_gaps", "a recogniser with one Gaussian layer", f"{reason}", "leave it out")
    cells = int(np.prod(nodes_of(model, batch)[0].location.shape))
    dtype = jnp.result_type(*jax.tree.leaves(batch.x))
    noise = _noise(jr.fold_in(key, 1), (search.steps, search.draws, cells), dtype)
    exact = exact_part(model)
    made = blockwise(_gaps, batch, model, exact, noise, search, key, seldom=True)
    elbo, best, log_p, error, divergence = (np.asarray(part, np.float64) for part in made)
    direction, method = ("exact", "closed form") if exact is not None else ("lower", f"importance-{search.evidence}")
    return Gaps(best - elbo, log_p - best, log_p, error, float(np.mean(divergence)), direction, method)


def _gaps(
    block: Row,
    model: AbstractLatentModel,
    exact: AbstractTractable | None,
    noise: Float[Array, "steps draws z"],
    search: Search,
    key: PRNGKeyArray,
) -> tuple[Float[Array, " n"], ...]:
    """ELBO(q), ELBO(q*), log p(x), its error, and KL(q || p(z)) of every row."""

    def one(row: Row, key: PRNGKeyArray) -> tuple[Scalar, ...]:
        q: NORMAL = model.posterior(row).nodes()[0]  # pyright: ignore[reportAssignmentType]
        best = _optimised(model, row, q, noise)
        judge, weigh = jr.split(key)
        fresh = standardised(jr.normal(judge, (search.judges, noise.shape[2]), noise.dtype))
        both = jax.tree.map(lambda *leaves: jnp.stack(leaves), q, best)  # judged by one program, which compiles once
        (fit, best_fit), (divergence, best_divergence) = jax.vmap(lambda d: _terms(model, row, d, fresh))(both)
        if exact is not None:
            log_p, error = exact.log_evidence(row.after(fit)), jnp.zeros_like(fit)
        else:
            log_p, error = _importance(model, row, best, search.evidence, weigh)
        return fit - divergence, best_fit - best_divergence, log_p, error, divergence

    return jax.vmap(one)(block, row_keys(key, held_cells(block)))


def _terms(model: AbstractLatentModel, row: Row, d: NORMAL, noise: Float[Array, "draws z"]) -> tuple[Scalar, Scalar]:
    """E_d[log p(x | z)] and KL(d || p(z)) with these draws of standard noise."""
    z = jax.vmap(lambda e: _placed(d, e))(noise)
    fit = jnp.mean(jax.vmap(lambda z: model.log_likelihood(z, row))(z))
    if isinstance(model, AbstractDirected) and has_kl(d, model.prior(row.context)):
        return fit, kl(d, model.prior(row.context))
    return fit, jnp.mean(jax.vmap(lambda z: d.log_prob(z) - model.log_prior(z, row))(z))


def _optimised(model: AbstractLatentModel, row: Row, start: NORMAL, noise: Float[Array, "steps draws z"]) -> NORMAL:
    """The law that Adam reaches from ``start`` on this row's bound; changes are in units of the scale of ``start``."""
    optimiser = optax.adam(optax.cosine_decay_schedule(RATE, noise.shape[0]))

    def loss(change: tuple[Array, Array], noise: Float[Array, "draws z"]) -> Scalar:
        fit, divergence = _terms(model, row, _moved(start, change), noise)
        return divergence - fit

    def step(carry: tuple, noise: Float[Array, "draws z"]) -> tuple[tuple, None]:
        change, state = carry
        updates, state = optimiser.update(jax.grad(loss)(change, noise), state)
        return (optax.apply_updates(change, updates), state), None

    spread = start.factor if isinstance(start, FullGaussian) else start.scale
    still = (jnp.zeros_like(start.location), jnp.zeros_like(spread))
    (change, _), _ = jax.lax.scan(step, (still, optimiser.init(still)), noise)
    return _moved(start, change)


def _placed(d: NORMAL, noise: Float[Array, " z"]) -> Array:
    """The draw that standard noise becomes."""
    if isinstance(d, FullGaussian):
        return d.location + d.lower() @ noise
    return d.location + d.scale * noise.reshape(d.location.shape)


def _moved(d: NORMAL, change: tuple[Array, Array]) -> NORMAL:
    """The law moved and stretched relative to its own scale; no change leaves it as it is."""
    shift, stretch = change
    if isinstance(d, FullGaussian):
        grown = jnp.tril(stretch, -1) + jnp.diag(jnp.exp(jnp.diagonal(stretch)))
        return FullGaussian(d.location + d.lower() @ shift, d.lower() @ grown)
    return Gaussian(d.location + d.scale * shift, d.scale * jnp.exp(stretch))


def _importance(
    model: AbstractLatentModel, row: Row, d: NORMAL, draws: int, key: PRNGKeyArray
) -> tuple[Scalar, Scalar]:
    """The importance-weighted bound on log p(x) with proposals from ``d``, and its standard error to first order."""

    def weight(key: PRNGKeyArray) -> Scalar:
        z = d.sample(key=key)
        return model.log_joint(z, row) - d.log_prob(z)

    log_w = jax.lax.map(weight, jr.split(key, draws), batch_size=min(draws, TOGETHER))
    w = jnp.exp(log_w - jnp.max(log_w))
    return jax.nn.logsumexp(log_w) - jnp.log(draws), jnp.std(w) / (jnp.mean(w) * jnp.sqrt(draws))


@hasty_jit
def _noise(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Float[Array, "steps draws z"]:
    """Standardised noise for every step."""
    return jax.vmap(standardised)(jr.normal(key, shape, dtype))


def standardised(noise: Float[Array, "draws z"]) -> Float[Array, "draws z"]:
    """Noise in pairs e, -e with unit second moments: jointly when there are twice as many pairs as cells.

    Examples
    --------
    >>> e = standardised(jr.normal(jr.key(0), (8, 2)))
    >>> bool(jnp.allclose(e.T @ e / 8, jnp.eye(2), atol=1e-5)), abs(float(e.sum())) < 1e-5
    (True, True)
    """
    half = noise[: noise.shape[0] // 2]
    e = jnp.concatenate([half, -half])
    if half.shape[0] < 2 * half.shape[1]:
        return e / jnp.sqrt(jnp.mean(e**2, axis=0))[None]
    root = jnp.linalg.cholesky(e.T @ e / e.shape[0])
    return jax.scipy.linalg.solve_triangular(root, e.T, lower=True).T
