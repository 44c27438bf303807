"""Everything that depends on the version of JAX, and every switch of its global state, in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import equinox as eqx
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


@jax.jit
def key_from_words(words: np.ndarray | Array) -> PRNGKeyArray:
    """The inverse of `key_words`."""
    return jr.wrap_key_data(jnp.asarray(words, jnp.uint32))


@jax.jit
def folded_key(key: PRNGKeyArray, number: int | Array) -> PRNGKeyArray:
    """`jax.random.fold_in` as one program: step by step it takes as long as the answer to a row."""
    return jr.fold_in(key, number)


def hasty_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """A program for what is asked seldom: it compiles in about 60 % of the time, and runs up to 20 % slower."""
    options = {"xla_backend_optimization_level": 1}
    return eqx.filter_jit(function, compiler_options=options)  # pyright: ignore[reportCallIssue]


def live(traced: Any) -> Any:
    """A traced function without the equations that no result depends on."""
    from jax.interpreters import partial_eval

    needed, _ = partial_eval.dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars), instantiate=True)
    return traced.replace(jaxpr=needed)


def temporary_bytes(compiled: Any) -> float:
    """What a compiled program needs beside its arguments and results; NaN where the platform does not tell."""
    return float(getattr(compiled.memory_analysis(), "temp_size_in_bytes", np.nan))


def on_processor() -> bool:
    """Whether programs run on the central processor, where a few rows fill it; an accelerator needs many."""
    return jax.default_backend() == "cpu"


def local_devices() -> int:
    """How many devices this process computes on."""
    return jax.local_device_count()


def spread_rows(batch: PyTree[Array], rows: int) -> PyTree[Array]:
    """Ask that the rows of a batch be divided among the local devices, in as many shares as divide it evenly.

    All devices take part, with copies of a share where there are fewer shares than devices, and always as the same
    mesh of prime sides: a program on another mesh could not go on with what this one left.
    """
    left = int(np.gcd(rows, jax.local_device_count()))
    if left == 1:
        return batch
    sides, along = prime_factors(jax.local_device_count()), []
    for axis, side in enumerate(sides):
        if left % side == 0:
            along.append(f"rows{axis}")
            left //= side
    mesh = Mesh(np.asarray(jax.local_devices()).reshape(sides), tuple(f"rows{axis}" for axis in range(len(sides))))
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec(tuple(along))))


def prime_factors(n: int) -> list[int]:
    """The primes whose product is ``n``.

    Examples
    --------
    >>> prime_factors(12)
    [2, 2, 3]
    """
    for p in range(2, n + 1):
        if n % p == 0:
            return [p, *prime_factors(n // p)]
    return []
