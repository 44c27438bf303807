"""A readable name for every array of a tree."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from ravine._check import complaint, shown


def leaf_names(tree: PyTree) -> dict[str, Any]:
    """Every array of a tree under a name made of the path to it.

    Arrays are JAX and numpy arrays and scalars and ``jax.ShapeDtypeStruct``; other leaves (functions, Python numbers)
    have no name. A typed random key appears as its words, with its kind in the name. A dictionary key that would make
    a name ambiguous is written in brackets.

    Raises
    ------
    ValueError
        When two leaves have one name.

    Examples
    --------
    >>> list(leaf_names({"p": (jnp.ones(2), jnp.ones(3)), "f": jnp.tanh, "key": jr.key(0), "a.b": np.ones(1)}))
    ["['a.b']", 'key#key<fry>', 'p.0', 'p.1']
    """
    named = [(name, leaf) for name, leaf in named_leaves(tree)[0] if name is not None]
    found = dict(named)
    if len(found) < len(named):
        names = [name for name, _ in named]
        twice = next(name for name in names if names.count(name) > 1)
        raise complaint(f"leaf {shown(twice)}", "a name of its own", "two of this name", "use other dictionary keys")
    return {name: _words(leaf) for name, leaf in found.items()}


def named_leaves(tree: PyTree) -> tuple[list[tuple[str | None, Any]], Any]:
    """Name (None unless it is an array) and value of every leaf, in order, and the structure."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    return [(_name(path, leaf) if _is_array(leaf) else None, leaf) for path, leaf in leaves], structure


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct))


def is_key(leaf: Any) -> bool:
    """True for typed random keys, and for structs that stand for them."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _name(path: tuple[Any, ...], leaf: Any) -> str:
    return (".".join(map(_segment, path)) or "value") + (f"#{leaf.dtype}" if is_key(leaf) else "")


def _segment(entry: Any) -> str:
    if isinstance(entry, jax.tree_util.SequenceKey):
        return str(entry.idx)
    if isinstance(entry, jax.tree_util.GetAttrKey):
        return entry.name
    key = entry.key
    plain = isinstance(key, str) and key.isprintable() and re.fullmatch(r"[^.#\[\]'\"\\]+", key)
    return key if plain and key != "__metadata__" else f"[{key!r}]"


def _words(leaf: Any) -> Any:
    """The leaf, or the words of a random key."""
    if not is_key(leaf):
        return leaf
    return jax.eval_shape(jr.key_data, leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else jr.key_data(leaf)
