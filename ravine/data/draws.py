"""The random part of preprocessing: parts that redraw a row every time it is used."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, PRNGKeyArray

from ravine._check import require, whole
from ravine.core import AbstractDraw, Row


class Binarise(AbstractDraw):
    """Dynamic binarisation: each observed cell x in [0, 1] becomes 1 with probability x, anew at every call.

    The likelihood then is E over the draw of log p(bits), in nats, and is not comparable with a fixed binarisation.
    Source: Salakhutdinov & Murray 2008, section 4; Burda, Grosse & Salakhutdinov 2016, section 5.1.

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> from ravine.core import AbstractDraw, Row
    >>> Binarise()(Row(jnp.array([0.0, 1.0])), key=jr.key(0)).x.tolist()
    [0.0, 1.0]
    """

    def __call__(self, row: Row, *, key: PRNGKeyArray) -> Row:
        """The row with bits for x. A cell that is not observed is 0 and stays 0."""
        bits = jr.uniform(key, row.x.shape, row.x.dtype) < row.x
        return eqx.tree_at(lambda r: r.x, row, bits.astype(row.x.dtype))


class Dequantise(AbstractDraw):
    """Uniform dequantisation: an observed cell that holds level k moves to a uniform place between k and k + 1.

    With x = k / levels the row becomes x + u / levels, u ~ U[0, 1), so that E_u[log p(k + u)] <= log P(k): a density
    trained this way is a lower bound on the log mass. Source: Theis, van den Oord & Bethge 2016, section 3.1, eq. 3-6.

    Parameters
    ----------
    levels : how many levels fit in one unit of x before ``scale``.
    scale : what each cell was divided by afterwards, in the order of the cells; () means 1.

    Examples
    --------
    >>> import jax.numpy as jnp, jax.random as jr
    >>> from ravine.core import AbstractDraw, Row
    >>> x = Dequantise(4)(Row(jnp.array([0.25])), key=jr.key(0)).x
    >>> bool(0.25 <= x[0] <= 0.5)
    True
    """

    levels: int = eqx.field(static=True)
    scale: tuple[float, ...] = eqx.field(static=True, default=())

    def __check_init__(self) -> None:
        whole("levels", self.levels)

    def __call__(self, row: Row, *, key: PRNGKeyArray) -> Row:
        """The row with noise added to x. A cell that is not observed stays 0."""
        noise = self._step(row.x) * jr.uniform(key, row.x.shape, row.x.dtype)
        if row.mask is not None:
            noise = jnp.where(row.mask, noise, jnp.zeros_like(noise))
        return eqx.tree_at(lambda r: r.x, row, row.x + noise)

    def _step(self, x: Array) -> Array:
        """Width of one level in each cell, in the units of x."""
        if not self.scale:
            return jnp.full_like(x, 1.0 / self.levels)
        require(len(self.scale) == x.size, "scale", f"{x.size} numbers", f"{len(self.scale)}", "give one for each cell")
        return 1.0 / (self.levels * jnp.reshape(jnp.asarray(self.scale, x.dtype), x.shape))
