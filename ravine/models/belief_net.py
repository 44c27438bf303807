"""Belief nets: layers of bits, or of latents of any law, each given the one above, and the data given the lowest."""

from __future__ import annotations

import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ravine.dist import AbstractLink, Ancestral, Conditional
from ravine.latent_layers import LatentLayer, bits_linked
from ravine.models.directed import Directed
from ravine.nets import MLP, Links, tanh


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
    >>> import jax.numpy as jnp
    >>> from ravine.dist import Bits
    >>> p = belief_net((2, 3), "-", Bits(), jnp.full(4, 0.25), key=jr.key(0))
    >>> z, x = p.sample(key=jr.key(1))
    >>> [layer.shape for layer in z], x.shape
    ([(2,), (3,)], (4,))
    """
    return layered_net(bits_linked(layers, links), link, base, key=key)


def layered_net(
    layers: tuple[LatentLayer, ...], link: AbstractLink, base: Float[Array, "..."], *, key: PRNGKeyArray
) -> Directed:
    r"""The same with latents of any law, and deterministic layers between; `layers_upwards` makes the recogniser.

    Layers of real numbers are those of a deep latent Gaussian model, :math:`h_l = T_l(h_{l+1}) + G_l(h_{l+1}) \xi_l`
    with a diagonal :math:`G`: Rezende, Mohamed and Wierstra 2014, arXiv:1401.4082.

    Parameters
    ----------
    layers : top first, as the latent lists them.
    link, base : as for `belief_net`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ravine.dist import Bits, Real
    >>> layers = LatentLayer((2,), Real(), hidden=(8,)), LatentLayer((3,))
    >>> z, x = layered_net(layers, Bits(), jnp.full(4, 0.25), key=jr.key(0)).sample(key=jr.key(1))
    >>> [layer.shape for layer in z], x.shape
    ([(2,), (3,)], (4,))
    """
    keys = jr.split(key, len(layers))

    def below(i: int, link: AbstractLink, shape: tuple[int, ...], bias: Array | None = None) -> Conditional:
        net = MLP(layers[i].cells(), link.size(shape), layers[i].hidden, tanh, key=keys[i], bias=bias)
        return Conditional(layers[i].read(net, i), link, shape)

    steps = [below(i, low.law, low.shape) for i, low in enumerate(layers[1:])]
    shown = below(len(layers) - 1, link, base.shape, link.start(base))
    return Directed(Ancestral(layers[0].prior(), *steps), shown)
