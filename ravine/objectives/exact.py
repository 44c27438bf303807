"""Maximum likelihood where log p(x) is known."""

from __future__ import annotations

import equinox as eqx
from jaxtyping import PRNGKeyArray

from ravine.core import AbstractTractable, Metrics, Row, Scalar, averaged


class MaximumLikelihood(eqx.Module):
    """log p(observed cells) itself, in nats per row, of a model that has it in closed form.

    Its gradient is what EM climbs, taken in every parameter at once: Fisher's identity, Dempster, Laird & Rubin 1977,
    equation 2.13.
    """

    def __call__(self, model: AbstractTractable, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        value = averaged(lambda row, key: model.log_evidence(row), batch, key=key)
        return -value, {"log_likelihood": value}
