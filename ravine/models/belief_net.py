"""Sigmoid belief nets: layers of bits, each given the one above, and the data given the lowest."""

from __future__ import annotations

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.dist import AbstractLink, Ancestral, Bernoulli, Bits, Conditional
from ravine.models.directed import Directed
from ravine.nets import Links, Signed, centred, linked


def belief_net(
    layers: tuple[int, ...], links: Links, link: AbstractLink, base: Float[Array, "..."], *, key: PRNGKeyArray
) -> Directed:
    r"""Bits in ``layers``, top first, with a learned factorised prior; `bits_upwards` makes the recogniser.

    .. math:: p(x, z) = p(z_1) \prod_l p(z_{l+1} \mid z_l) \, p(x \mid z_L)

    Neal 1992, *Connectionist learning of belief networks*; in the form of Mnih and Rezende 2016, arXiv:1602.06725.
    Every net reads signs around their running mean.

    Parameters
    ----------
    layers : number of bits of each layer, top first, as the latent lists them.
    links : ``"-"`` for affine maps between layers, ``"~"`` for two hidden layers of tanh units, as many as there are
        bits above.
    link : how the lowest net's outputs become p(x | z).
    base : means of the cells, of the data's shape: where the output bias starts.

    Examples
    --------
    >>> p = belief_net((2, 3), "-", Bits(), jnp.full(4, 0.25), key=jr.key(0))
    >>> z, x = p.sample(key=jr.key(1))
    >>> [layer.shape for layer in z], x.shape
    ([(2,), (3,)], (4,))
    """
    keys, sizes = jr.split(key, len(layers)), (*layers, link.size(base.shape))

    def below(i: int, bias: Array | None = None) -> Signed:
        net = linked(sizes[i], sizes[i + 1], sizes[i], links, key=keys[i], bias=bias)
        return Signed(net, centred(sizes[i]), i)

    lower = [Conditional(below(i), Bits(), (layers[i + 1],)) for i in range(len(layers) - 1)]
    shown = Conditional(below(len(layers) - 1, link.start(base)), link, base.shape)
    return Directed(Ancestral(Bernoulli(jnp.zeros(layers[0])), *lower), shown)
