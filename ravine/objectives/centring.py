"""Let the nets that read centred activities follow the means of these."""

from __future__ import annotations

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ravine._tree import Running
from ravine.core import AbstractLatentModel, Latent, Metrics, Objective, Row, Scalar, averaged
from ravine.nets import Signed


class Centring(eqx.Module):
    """An objective of a model whose nets read signs around a running mean (`ravine.nets.Signed`), and what tells them.

    The loss is that of the objective: the terms that are added have value 0, and move the running means towards the
    posterior means of the batch. Below the layer nearest the data these are taken at the means of the layer before.
    """

    objective: Objective

    def __call__(self, model: AbstractLatentModel, batch: Row, *, key: PRNGKeyArray) -> tuple[Scalar, Metrics]:
        loss, metrics = self.objective(model, batch, key=key)
        means = averaged(lambda row, key: model.posterior(row).mean(), batch, key=key)
        return loss + sum(lessons(model, means)), metrics


def lessons(model: AbstractLatentModel, means: Latent) -> list[Scalar]:
    """Terms of value 0 whose gradient leads every running centre of the model to the signs of the layer it is of."""
    signed = lambda node: isinstance(node, Signed)  # noqa: E731
    nets = [node for node in jax.tree.leaves(model, is_leaf=signed) if signed(node)]
    pairs = [(net.centre, net.signs(means[net.layer].ravel())) for net in nets if isinstance(net.centre, Running)]
    return [centre.told(mean) for centre, mean in pairs]
