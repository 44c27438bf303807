"""Some cells of a row given the others: chains of latents that start from what is given."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from ravine._tree import Fixed
from ravine.core import AbstractDirected, AbstractDistribution, Latent
from ravine.dist import AbstractLink, Ancestral, Bits, Classes, Conditional
from ravine.models.laws import Held
from ravine.nets import Links, Signed, centred, linked

Layer = int | tuple[int, int]


class Conditioned(AbstractDirected):
    r"""Latents drawn one layer after the other from the given cells ``c``, and the other cells from the last layer.

    .. math:: p(x, z \mid c) = p(z_1 \mid c) \prod_l p(z_{l+1} \mid z_l) \, p(x \mid z_L)

    The context of a row are its given cells, which its mask does not list as observed: of them there is no density.
    Laws of x are of whole rows, in which the given cells are held.

    Parameters
    ----------
    first : from the given cells to the law of the first layer.
    steps : from each layer to the law of the next.
    conditional : from the last layer to the law of a whole row; of the given cells it is not used.
    given : True for given cells, of the shape of a row.

    Raises
    ------
    TypeError
        When it is asked for draws without a context.

    Examples
    --------
    >>> net = conditioned_net((3,), "-", Bits(), jnp.full(4, 0.5), np.arange(4) < 2, key=jr.key(0))
    >>> z, x = net.sample(jnp.array([1.0, 0.0]), key=jr.key(1))
    >>> [layer.shape for layer in z], x[:2].tolist()
    ([(3,)], [1.0, 0.0])
    """

    first: Callable[[Array], AbstractDistribution]
    steps: tuple[Callable[[Array], AbstractDistribution], ...]
    conditional: Callable[[Latent], AbstractDistribution]
    given: Fixed

    def prior(self, context: PyTree = None) -> Ancestral:
        if context is None:
            raise TypeError("A model of some cells given others needs these: give the context of a row.")
        return Ancestral(self.first(context), *self.steps)

    def likelihood(self, z: Latent, context: PyTree = None) -> Held:
        law, there = self.conditional(z[-1]), self.given.value
        held = jnp.zeros(there.shape) if context is None else self.spread(context)
        return Held(law, held, there)

    def spread(self, context: Float[Array, " given"]) -> Float[Array, "..."]:
        """The given cells in their places, and 0 elsewhere."""
        there = self.given.value
        place = jnp.maximum(jnp.cumsum(there.ravel()) - 1, 0).reshape(there.shape)
        return jnp.where(there, context[place], 0)


def units(layer: Layer) -> tuple[AbstractLink, tuple[int, ...]]:
    """How numbers become the law of a layer, and the shape of its draws.

    Examples
    --------
    >>> units(3), units((20, 10))
    ((Bits(), (3,)), (Classes(), (20, 10)))
    """
    return (Bits(), (layer,)) if isinstance(layer, int) else (Classes(), layer)


def conditioned_net(
    layers: tuple[Layer, ...],
    links: Links,
    link: AbstractLink,
    base: Float[Array, "..."],
    given: Bool[np.ndarray, "..."],
    *,
    key: PRNGKeyArray,
) -> Conditioned:
    """Layers of bits or classes between the given cells and the others; nets read signs around their running mean.

    Maddison, Mnih and Teh 2017, arXiv:1611.00712, section 5.3 and appendix.

    Parameters
    ----------
    layers : number of bits of each layer, or the number of one-hot latents and of classes of each; that nearest to
        the given cells first.
    links : ``"-"`` for affine maps between layers, ``"~"`` for two hidden layers of tanh units.
    link : how the last net's outputs become the law of a row.
    base : means of the cells, of the shape of a row.
    given : True for given cells.

    Examples
    --------
    >>> net = conditioned_net((3, 2), "-", Bits(), jnp.full(4, 0.5), np.arange(4) < 2, key=jr.key(0))
    >>> [z.shape for z in net.prior(jnp.ones(2)).mean()]
    [(3,), (2,)]
    """
    keys, known, laws = jr.split(key, len(layers) + 1), base[given], [units(layer) for layer in layers]
    sizes = (*(law.size(shape) for law, shape in laws), link.size(base.shape))
    first = Signed(linked(known.size, sizes[0], sizes[0], links, key=keys[0]), Fixed(2 * known - 1))

    def below(i: int, bias: Array | None = None) -> Signed:
        net = linked(sizes[i], sizes[i + 1], sizes[i], links, key=keys[i + 1], bias=bias)
        return Signed(net, centred(sizes[i]), i)

    steps = tuple(Conditional(below(i), *laws[i + 1]) for i in range(len(layers) - 1))
    shown = Conditional(below(len(layers) - 1, link.start(base)), link, base.shape)
    return Conditioned(Conditional(first, *laws[0]), steps, shown, Fixed(jnp.asarray(given)))
