"""Bounds where the class of some rows is known."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.core import AbstractDirected, AbstractGradient, Metrics, Row, Scalar, weights
from ravine.dist import Ancestral, kl
from ravine.objectives.bounds import _estimator, _raised
from ravine.posteriors import Chain, OneNode


class SemiSupervised(eqx.Module):
    r"""The bound on log p(x, y) of labelled rows, that on log p(x) of others, and the log share of known classes.

    .. math::
        L(x, y) &= E_{q(z \mid x, y)}[\log p(x \mid y, z)] - KL(q(z \mid x, y) \,\|\, p(z)) + \log p(y) \\
        U(x) &= E_{q(y \mid x)}[L(x, y) - \log p(y)] - KL(q(y \mid x) \,\|\, p(y))

    Kingma, Rezende, Mohamed & Welling 2014, arXiv:1406.5298, equations 6 to 9. The expectation over the class is the
    estimator's: `Enumerate` sums over all classes; Jang, Gu & Poole 2017, arXiv:1611.01144, draw one. That over the
    style is one draw that is differentiated. A row has its class number in ``y``, where ``y_mask`` says so.

    Parameters
    ----------
    gradient : of the expectation over classes.
    alpha : weight of the mean of log q(y | x) over the labelled rows of a batch, in rows.
    """

    gradient: AbstractGradient
    alpha: float = 1.0

    def __call__(self, model: AbstractDirected, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        keys = jr.split(key, len(batch.x))
        bound, label = jax.vmap(lambda row, k: self.terms(model, row, key=k))(batch, keys)
        known = _known(batch) * (weights(batch) > 0)
        share = weights(batch) / jnp.maximum(jnp.sum(weights(batch)), 1e-12)
        value, told = share @ bound, jnp.sum(known * label) / jnp.maximum(jnp.sum(known), 1)
        return -value - self.alpha * told, {"elbo": value, "log_label": told}

    def terms(self, model: AbstractDirected, row: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Scalar]:
        """The bound of one row, and log q(y | x) of its class; 0 where that is not known."""
        posterior, prior = model.posterior(row), model.prior(row.context)  # pyright: ignore[reportAttributeAccessIssue]
        if not (isinstance(posterior, Chain) and isinstance(prior, Ancestral) and len(posterior.steps) == 1):
            raise TypeError("SemiSupervised needs a model of a class and then a style, such as `Labelled`.")
        guess, shares, (style,), (before,) = posterior.first, prior.first, posterior.steps, prior.conditionals
        gradient, (here, there) = _estimator(self.gradient, model, row), jr.split(key)

        def fit(y: Array) -> Scalar:
            q = style(y)
            return model.log_likelihood((y, q.sample(key=there)), row) - kl(q, before(y))

        y = one_hot(row, guess.mean().shape[-1])
        unknown = _raised(lambda y, log_q: fit(y), OneNode(guess), gradient, here) - kl(guess, shares)
        known = _known(row)
        label = jnp.where(known, guess.log_prob(y), 0)
        return jnp.where(known, fit(y) + shares.log_prob(y), unknown), label


def one_hot(row: Row, classes: int) -> Float[Array, " classes"]:
    """The class of a row, whose ``y`` is its number; nothing but zeros where it has none."""
    return jnp.asarray(jnp.arange(classes) == (-1 if row.y is None else row.y), row.x.dtype)


def _known(row: Row) -> Array:
    if row.y is None:
        return jnp.zeros(row.x.shape[:-1], bool)
    return jnp.ones(row.y.shape, bool) if row.y_mask is None else row.y_mask
