r"""Hidden units of which some may know a label, and the others not: the coupling, and what it needs of the labels.

Fernandez-de-Cossio-Diaz, Cocco & Monasson 2023, *Disentangling representations in restricted Boltzmann machines
without adversaries*, arXiv:2206.11600. The input of a hidden unit is linear in the statistics of the visible ones, so
that its covariance with a label over the training rows is linear in its weights:

.. math:: \mathrm{cov}(I_c, u_k) = q_k^\top W_c, \quad q_k = \mathrm{cov}(s(v), u_k)

`ravine.rules.Uncorrelated` keeps these at zero for the units that are not free.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ravine._check import require
from ravine._tree import Fixed
from ravine.core import Row, rows_in, weights
from ravine.models.energy import AbstractCoupling, Harmonium
from ravine.models.units import LEAST, AbstractUnits, Field, GaussianUnits, PottsUnits, wide

AT_ONCE = 4096  # rows whose statistics are held together


class LabelMeans(eqx.Module):
    r"""Mean statistics of the visible units in each class, and the share of each class, over the training rows.

    From these come the covariances with the labels, :math:`q_k = p_k (\bar s_k - \bar s)`; that of the first class is
    minus the sum of the others, and left out.

    Examples
    --------
    >>> told = LabelMeans(jnp.array([[0.0, 1.0], [1.0, 1.0]]), jnp.array([0.5, 0.5]))
    >>> told.covariance().ravel().tolist()
    [0.25, 0.0]
    """

    means: Float[Array, "classes visible"]
    shares: Float[Array, " classes"]

    def overall(self) -> Float[Array, " visible"]:
        """The mean statistics over all classes."""
        return self.shares @ self.means

    def covariance(self) -> Float[Array, "visible labels"]:
        """That of each statistic with each label but the first."""
        return (self.shares[1:, None] * (self.means[1:] - self.overall()[None])).T


class Constrained(AbstractCoupling):
    """Every visible statistic with every hidden unit, of which the first ``free`` ones may know the label.

    Parameters
    ----------
    weight : the first ``free`` columns are those of the released units.
    labels : a `LabelMeans` of the training rows, whose statistics are those at a scale of 1.
    free : how many units are released.
    """

    weight: Float[Array, "visible hidden"]
    labels: Fixed
    free: int = eqx.field(static=True)

    def up(self, visible: Field) -> Field:
        return visible @ self.weight

    def down(self, hidden: Field) -> Field:
        return self.weight @ hidden

    def directions(self, visible: AbstractUnits) -> Float[Array, "visible labels"]:
        """The covariance of each statistic with each label: what the weights of a constrained unit must not see."""
        return scales(visible)[:, None] * self.labels.value.covariance()

    def typical(self, visible: AbstractUnits) -> Float[Array, "classes free"]:
        """The mean input of each released unit in each class."""
        return (scales(visible)[None] * self.labels.value.means) @ self.weight[:, : self.free]

    def deviations(
        self, visible: AbstractUnits, batch: Row
    ) -> tuple[Float[Array, "n visible"], Float[Array, "n labels"]]:
        """Statistics and labels of complete rows less their means over the training rows.

        The labels are times the weight of their row over the mean weight; that of a row without a label is 0.
        """
        told, weight = self.labels.value, _labelled_weight(batch)
        away = jax.vmap(visible.statistic)(batch.x) - (scales(visible) * told.overall())[None]
        share = weight / jnp.maximum(jnp.mean(weight), jnp.finfo(weight.dtype).tiny)
        return away, share[:, None] * (_one_hot(batch, told.shares)[:, 1:] - told.shares[None, 1:])


def scales(units: AbstractUnits) -> Field:
    """What the statistics of units are multiples of: 1, but for Gaussian ones, which learn their precision."""
    if not isinstance(units, GaussianUnits):
        return jnp.ones(units.size)
    return jnp.exp(-2 * wide(units.log_scale, units.shape)).ravel()


def constrained(weight: Float[Array, "visible hidden"], free: int, classes: int) -> Constrained:
    """A coupling that has not been told of any label yet.

    Raises
    ------
    ValueError
        When more units are to be released than there are.
    """
    visible, hidden = weight.shape
    require(free <= hidden, "free", f"at most {hidden}, the number of hidden units", f"{free}", "release fewer")
    nothing = LabelMeans(jnp.zeros((classes, visible)), jnp.zeros(classes))
    return Constrained(weight, Fixed(nothing), free)


def with_labels(model: Harmonium, source: Any, *, key: PRNGKeyArray) -> Harmonium:
    """The model told of the labels of the training rows: a `ravine.train.Stage` may prepare it so.

    A missing cell counts as the mean of its statistic over all labelled rows. `PottsUnits` begin at the rates of their
    levels, which no mean level tells.

    Raises
    ------
    ValueError
        When the rows have no labels.
    """
    rows = source.all()
    require(rows.y is not None, "the rows", "labels", "none", "give y")
    told = label_means(model, rows)
    visible = _at_rates(model.visible, told.overall())
    coupling = dataclasses.replace(cast(Constrained, model.coupling), labels=Fixed(told))
    return dataclasses.replace(model, visible=visible, base=Fixed(visible), coupling=coupling)


def label_means(model: Harmonium, rows: Row) -> LabelMeans:
    """`LabelMeans` of rows of which some may lack a label, or cells."""
    classes, count = cast(Constrained, model.coupling).labels.value.shares, rows_in(rows)
    parts = [_sums(model.visible, jax.tree.map(lambda leaf, at=at: leaf[at : at + AT_ONCE], rows), classes)
             for at in range(0, count, AT_ONCE)]  # fmt: skip
    seen, sums, mass = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    mean = jnp.sum(sums, axis=0) / jnp.maximum(jnp.sum(seen, axis=0), 1e-12)
    filled = sums + (mass[:, None] - seen) * mean[None]
    means = jnp.where(mass[:, None] > 0, filled / jnp.where(mass > 0, mass, 1)[:, None], mean[None])
    return LabelMeans(means / scales(model.visible)[None], mass / jnp.sum(mass))


@eqx.filter_jit
def _sums(visible: AbstractUnits, rows: Row, like: Float[Array, " classes"]) -> tuple[Array, Array, Array]:
    """Class by class: the weight of the known cells of each statistic, their weighted sum, and the weight of rows."""
    mask = jax.tree.map(lambda x: jnp.ones(x.shape, bool), rows.x) if rows.mask is None else rows.mask
    seen = jax.vmap(lambda m: visible.spread(m.astype(like.dtype)))(mask)
    statistics = jnp.where(seen > 0, jax.vmap(visible.statistic)(rows.x), 0)
    member = _labelled_weight(rows)[:, None] * _one_hot(rows, like)
    return member.T @ seen, member.T @ statistics, jnp.sum(member, axis=0)


def _one_hot(rows: Row, like: Float[Array, " classes"]) -> Float[Array, "n classes"]:
    return jax.nn.one_hot(rows.y, like.shape[0], dtype=like.dtype)


def _labelled_weight(rows: Row) -> Float[Array, " n"]:
    """The weight of each row; 0 for those without a label."""
    return weights(rows) if rows.y_mask is None else jnp.where(rows.y_mask, weights(rows), 0)


def _at_rates(units: AbstractUnits, mean: Field) -> AbstractUnits:
    """The units, on their own with these mean statistics where they are levels; else as they are."""
    if not isinstance(units, PottsUnits):
        return units
    return dataclasses.replace(units, bias=jnp.log(jnp.clip(mean, LEAST**2, 1)).reshape(*units.shape, units.levels))


def relabelled(
    model: Harmonium, row: Row, label: Int[Array, ""], sweeps: int | Int[Array, ""] = 1, *, key: PRNGKeyArray
) -> PyTree[Array]:
    """Cells like those of a row, but of another label.

    The constrained hidden units are drawn given the row, the released ones at the mean input of the label. Then the
    cells are drawn given all of them; with more ``sweeps`` the constrained units and the cells in turn, the released
    ones held as they are.
    """
    first, begin, go = jr.split(key, 3)
    coupling = cast(Constrained, model.coupling)
    free, aim = coupling.free, coupling.typical(model.visible)[label]
    h = model.hidden(coupling.up(model.filled(row)).at[:free].set(aim)).sample(key=first)

    def again(i: Int[Array, ""], v: PyTree[Array]) -> PyTree[Array]:
        up, down = jr.split(jr.fold_in(go, i))
        given = model.hidden(model.up(v)).sample(key=up).at[:free].set(h[:free])
        return model.likelihood(given).sample(key=down)

    return jax.lax.fori_loop(1, sweeps, again, model.likelihood(h).sample(key=begin))
