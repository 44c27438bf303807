"""Everything that depends on the version of JAX, and every switch of its global state, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PRNGKeyArray, PyTree

Precision = Literal["float32", "float64"]


@contextmanager
def precision(name: Precision) -> Iterator[None]:
    """Run the body in single or double precision; the caller's own setting is restored afterwards."""
    with jax.enable_x64(name == "float64"):
        yield


@contextmanager
def highest_matmul() -> Iterator[None]:
    """Matrix products at full precision, as every evaluation of a likelihood needs."""
    with jax.default_matmul_precision("highest"):
        yield


def key_words(key: PRNGKeyArray) -> np.ndarray:
    """A typed key as plain words, for files and for numpy's generators."""
    return np.asarray(jr.key_data(key))


def key_from_words(words: np.ndarray) -> PRNGKeyArray:
    """The inverse of `key_words`."""
    return jr.wrap_key_data(jnp.asarray(words, jnp.uint32))


def local_devices() -> int:
    """How many devices this process computes on."""
    return jax.local_device_count()


def spread_rows(batch: PyTree[Array], rows: int) -> PyTree[Array]:
    """Ask that the rows of a batch be divided among the local devices, as many as divide it evenly."""
    devices = int(np.gcd(rows, jax.local_device_count()))
    if devices == 1:
        return batch
    mesh = Mesh(np.asarray(jax.local_devices()[:devices]), ("rows",))
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec("rows")))
