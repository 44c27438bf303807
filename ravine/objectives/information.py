"""A variational lower bound on how much the selected cells tell about the classes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import equinox as eqx
from jaxtyping import PRNGKeyArray

from ravine.core import AbstractGradient, AbstractPosterior, Latent, Metrics, Row, Scalar, averaged
from ravine.objectives.bounds import _estimator, _raised


@runtime_checkable
class Selecting(Protocol):
    """What the bound needs of a model: q(S | x), and ``sum_y p(y | x) log q(y | x_S)``."""

    def posterior(self, row: Row) -> AbstractPosterior:
        """q(S | x)."""
        ...

    def log_likelihood(self, z: Latent, row: Row) -> Scalar:
        """The expected log share of the classes, in nats."""
        ...


class InformationBound(eqx.Module):
    r"""``E_{q(S | x)}[sum_y p(y | x) log q(y | x_S)]``, averaged over rows: at most minus H(Y | X_S).

    .. math:: I(X_S; Y) = H(Y) - H(Y \mid X_S) \ge H(Y) + E_x E_{S \mid x} E_{y \mid x}[\log q(y \mid x_S)]

    with equality where q(y | x_S) is the conditional law. Chen, Song, Wainwright & Jordan 2018, arXiv:1802.07814,
    section 3.2, after Barber & Agakov 2003. Here X_S is the selected cells *and* which they are.
    """

    gradient: AbstractGradient | None = None

    def __call__(self, model: Selecting, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        value = averaged(lambda row, key: self.bound(model, row, key=key), batch, key=key)
        return -value, {"bound": value}

    def bound(self, model: Selecting, row: Row, *, key: PRNGKeyArray) -> Scalar:
        """The bound of one row, in nats."""
        gradient = _estimator(self.gradient, model, row)
        return _raised(lambda z, log_q: model.log_likelihood(z, row), model.posterior(row), gradient, key)
