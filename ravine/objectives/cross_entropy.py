"""Learning a label through a latent that is nowhere observed."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import equinox as eqx
from jaxtyping import PRNGKeyArray

from ravine.core import AbstractGradient, AbstractPosterior, Latent, Metrics, Row, Scalar, averaged


@runtime_checkable
class Labelling(Protocol):
    """A model of a label given a row, p(y | x) = E_q(z | x)[p(y | z, x)]."""

    def posterior(self, row: Row) -> AbstractPosterior:
        """q(z | x)."""
        ...

    def log_label(self, z: Latent, row: Row) -> Scalar:
        """log p(y | z, x), in nats."""
        ...


class CrossEntropy(eqx.Module):
    r"""Mean cross-entropy of the label, :math:`E_{q(z \mid x)}[-\log p(y \mid z, x)]`, in nats.

    At least :math:`-\log p(y \mid x)`, by Jensen's inequality; equal where q is certain. Whatever the estimator of the
    gradient, it is the loss of single draws that is lowered, not that of their mixture.
    """

    gradient: AbstractGradient

    def __call__(self, model: Labelling, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        return averaged(lambda row, key: self.loss(model, row, key=key), batch, key=key), {}

    def loss(self, model: Labelling, row: Row, *, key: PRNGKeyArray) -> Scalar:
        """The loss of one row."""
        return model.posterior(row).expect(lambda z, log_q: -model.log_label(z, row), self.gradient, key=key)
