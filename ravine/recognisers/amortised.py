"""Recognition networks: one pass from a row to a posterior. Missing cells are filled, and told apart if wanted."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ravine._tree import Fixed, unfix
from ravine.core import (
    AbstractDirected,
    AbstractDistribution,
    AbstractGenerator,
    AbstractPosterior,
    AbstractRecogniser,
    Row,
)
from ravine.dist import Ancestral
from ravine.posteriors import Chain, Flipped, OneNode


class Filled(eqx.Module):
    """A row as one vector: missing cells hold ``fill``, and the mask follows the values when ``tells`` is set.

    A network that sees the mask can tell "unknown" from "average"; it needs ``2 * cells`` inputs. Cells listed in
    ``counts`` are shown as log(1 + x), because counts may be large.
    """

    fill: Fixed
    tells: bool = eqx.field(static=True, default=False)
    counts: tuple[int, ...] = eqx.field(static=True, default=())

    def __call__(self, row: Row) -> Float[Array, " inputs"]:
        """The network's input for one row."""
        mask = jnp.ones(row.x.shape, bool) if row.mask is None else row.mask
        x = row.x if row.mask is None else jnp.where(mask, row.x, unfix(self.fill))
        if self.counts:
            places = np.asarray(self.counts)
            x = x.at[places].set(jnp.log1p(x[places]))
        return jnp.concatenate([x.ravel(), mask.ravel().astype(x.dtype)]) if self.tells else x.ravel()

    def inputs(self) -> int:
        """How many numbers the network receives."""
        return unfix(self.fill).size * (2 if self.tells else 1)


class Amortised(AbstractRecogniser):
    """``q(z | x) = conditional(filled row)``: one stochastic node.

    Examples
    --------
    >>> import jax.random as jr
    >>> from ravine.dist import Conditional, Gaussian, Real
    >>> from ravine.models.directed import Directed
    >>> from ravine.nets import MLP
    >>> read = Filled(Fixed(jnp.zeros(4)), tells=True)
    >>> q = Amortised(read, Conditional(MLP(read.inputs(), 4, (8,), key=jr.key(0)), Real(), (2,)))
    >>> prior = Fixed(Gaussian(jnp.zeros(2), jnp.ones(2)))
    >>> p = Directed(prior, Conditional(MLP(2, 8, (), key=jr.key(1)), Real(), (4,)))
    >>> row = Row(jnp.array([1.0, 0, 0, 2]), jnp.array([True, False, True, True]))
    >>> q(p, row).mean().shape
    (2,)
    """

    read: Filled
    conditional: Callable[[Array], AbstractDistribution]

    def __call__(self, generator: AbstractGenerator, row: Row) -> AbstractPosterior:
        return OneNode(self.conditional(self.read(row)))


class BottomUp(AbstractRecogniser):
    """Several stochastic nodes, drawn from the data upwards: ``z1 ~ first(x)``, ``z2 ~ steps[0](z1)``, ...

    The latent lists them top layer first, as the generator does: ``(..., z2, z1)``.
    """

    read: Filled
    first: Callable[[Array], AbstractDistribution]
    steps: tuple[Callable[[Array], AbstractDistribution], ...]

    def __call__(self, generator: AbstractGenerator, row: Row) -> AbstractPosterior:
        return Flipped(Chain(self.first(self.read(row)), self.steps))


class Unlooked(AbstractRecogniser):
    """``q(z | x) = p(z)``, or p(z | context): latents as the generator draws them, whatever the row holds.

    The weight of a draw is p(x | z) alone.

    Examples
    --------
    >>> from ravine.dist import Bernoulli
    >>> from ravine.models.directed import Directed
    >>> Unlooked()(Directed(Bernoulli(jnp.zeros(2)), Bernoulli), Row(jnp.ones(2))).mean().tolist()
    [0.5, 0.5]
    """

    def __call__(self, generator: AbstractGenerator, row: Row) -> AbstractPosterior:
        if not isinstance(generator, AbstractDirected):
            raise TypeError(f"{type(generator).__name__} has no law of its latents that could be proposed.")
        law = generator.prior(row.context)
        return Chain(law.first, law.conditionals) if isinstance(law, Ancestral) else OneNode(law)
