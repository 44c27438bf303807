"""The recogniser of a belief net: layers of bits, or of latents of any law, drawn from the data upwards."""

from __future__ import annotations

import jax.random as jr
from jaxtyping import PRNGKeyArray

from ravine._tree import Fixed, unfix
from ravine.core import Row
from ravine.dist import Conditional
from ravine.latent_layers import LatentLayer, bits_linked
from ravine.nets import MLP, Links, Signed, mirrored, tanh
from ravine.recognisers.amortised import BottomUp, Filled


def bits_upwards(layers: tuple[int, ...], links: Links, read: Filled, *, key: PRNGKeyArray) -> BottomUp:
    r"""The mirror image of `ravine.models.belief_net.belief_net`: ``q(z | x) = q(z_L | x) prod_l q(z_l | z_{l+1})``.

    Every net reads signs around their mean; that of the data is where missing cells are filled.

    Parameters
    ----------
    layers : number of bits of each layer, top first, as the latent lists them.
    links : ``"-"`` for affine maps between layers, ``"~"`` for two hidden layers of tanh units, as many as there are
        bits above.
    read : how the recogniser sees a row.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ravine.dist import Bernoulli
    >>> from ravine.models.directed import Directed
    >>> q = bits_upwards((2, 3), "~", Filled(Fixed(jnp.full(4, 0.25))), key=jr.key(0))
    >>> p = Directed(Bernoulli(jnp.zeros(2)), Bernoulli)  # which generator it serves makes no difference
    >>> [z.shape for z in q(p, Row(jnp.ones(4))).mean()]
    [(2,), (3,)]
    """
    return layers_upwards(bits_linked(layers, links), read, key=key)


def layers_upwards(layers: tuple[LatentLayer, ...], read: Filled, *, key: PRNGKeyArray) -> BottomUp:
    """The mirror image of `ravine.models.belief_net.layered_net`: the laws of the layers, each given the one below.

    Parameters
    ----------
    layers : top first, as the latent lists them.
    read : how the recogniser sees a row.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ravine.dist import Bernoulli, Real
    >>> from ravine.models.directed import Directed
    >>> layers = LatentLayer((2,), Real(), hidden=(8,)), LatentLayer((3,))
    >>> q = layers_upwards(layers, Filled(Fixed(jnp.full(4, 0.25))), key=jr.key(0))
    >>> p = Directed(Bernoulli(jnp.zeros(2)), Bernoulli)  # which generator it serves makes no difference
    >>> [z.shape for z in q(p, Row(jnp.ones(4))).mean()]
    [(2,), (3,)]
    """
    keys = jr.split(key, len(layers))
    seen = Fixed(2 * read(Row(unfix(read.fill))) - 1)

    def upper(inputs: int, i: int) -> MLP:
        return MLP(inputs, layers[i].law.size(layers[i].shape), mirrored(layers[i].hidden), tanh, key=keys[i])

    def above(i: int) -> Conditional:
        low = layers[i + 1]
        return Conditional(low.read(upper(low.cells(), i), i + 1), layers[i].law, layers[i].shape)

    first = Signed(upper(read.inputs(), len(layers) - 1), seen)
    steps = tuple(above(i) for i in reversed(range(len(layers) - 1)))
    return BottomUp(read, Conditional(first, layers[-1].law, layers[-1].shape), steps)
