"""Bounds where the class of some rows is known."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from ravine._tree import unfix
from ravine.core import AbstractGradient, Metrics, Row, Scalar, weights
from ravine.dist import kl
from ravine.models.directed import Helmholtz, Learned
from ravine.models.labelled import ClassThenStyle, Labelled, one_hot
from ravine.posteriors import OneNode, check


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

    def __call__(self, model: Helmholtz, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        keys = jr.split(key, len(batch.x))
        bound, label = jax.vmap(lambda row, k: self.terms(model, row, key=k))(batch, keys)
        known = _known(batch) * (weights(batch) > 0)
        share = weights(batch) / jnp.maximum(jnp.sum(weights(batch)), 1e-12)
        value, told = share @ bound, jnp.sum(known * label) / jnp.maximum(jnp.sum(known), 1)
        return -value - self.alpha * told, {"elbo": value, "log_label": told}

    def terms(self, model: Helmholtz, row: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Scalar]:
        """The bound of one row, and log q(y | x) of its class; 0 where that is not known."""
        p, q = _halves(model)
        seen, (here, there) = q.read(row), jr.split(key)
        guess = q.label(seen)
        check(self.gradient, OneNode(guess))

        def fit(y: Array) -> Scalar:
            style = q.style(y, seen)
            told = model.log_likelihood((y, style.sample(key=there)), row)
            return told - kl(style, unfix(p.style))

        y = one_hot(row, guess.logits.shape[-1])
        unknown = -self.gradient(lambda y: -fit(y), guess, key=here) - kl(guess, p.shares)
        known = _known(row)
        label = jnp.where(known, guess.log_prob(y), 0)
        return jnp.where(known, fit(y) + p.shares.log_prob(y), unknown), label


def _known(row: Row) -> Array:
    if row.y is None:
        return jnp.zeros(row.x.shape[:-1], bool)
    return jnp.ones(row.y.shape, bool) if row.y_mask is None else row.y_mask


def _halves(model: Helmholtz | Learned) -> tuple[Labelled, ClassThenStyle]:
    model = model.model if isinstance(model, Learned) else model
    if not (isinstance(model.p, Labelled) and isinstance(model.q, ClassThenStyle)):
        raise TypeError("SemiSupervised needs a generator of a class and a style, and a recogniser of both.")
    return model.p, model.q
