"""The recogniser of a belief net: layers of bits, drawn from the data upwards."""

from __future__ import annotations

import jax.random as jr
from jaxtyping import PRNGKeyArray

from ravine._tree import Fixed, unfix
from ravine.core import Row
from ravine.dist import Bits, Conditional
from ravine.nets import Links, Signed, centred, linked
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
    keys = jr.split(key, len(layers))
    seen = Fixed(2 * read(Row(unfix(read.fill))) - 1)

    def above(i: int) -> Conditional:
        net = linked(layers[i + 1], layers[i], layers[i], links, key=keys[i])
        return Conditional(Signed(net, centred(layers[i + 1]), i + 1), Bits(), (layers[i],))

    first = Signed(linked(read.inputs(), layers[-1], layers[-1], links, key=keys[-1]), seen)
    steps = tuple(above(i) for i in reversed(range(len(layers) - 1)))
    return BottomUp(read, Conditional(first, Bits(), (layers[-1],)), steps)
