"""Training through convolutions on a CPU: a step of an auto-encoder of images, as products of matrices and otherwise.

28 x 28 images, three halvings of the sides and three doublings, a hundred images at a step, plain gradient descent, all
steps in one compiled loop. Beside it the same with Equinox's layers, whose convolutions XLA runs slowly within a loop,
and PyTorch's layers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import torch
from common import (
    Contender,
    Effort,
    fastest,
    ratio,
    report,
    shown,
    single_thread_or_all,
    take_turns,
    throughput,
    warmed,
    with_threads,
)
from jax import lax

from ravine.nets import ConvDecoder, ConvEncoder, relu
from ravine.nets.conv import Doubling, Halving

SIDE, CODE, CHANNELS, BATCH, RATE, STEPS = 28, 64, (16, 32, 64), 100, 1e-4, 5


def nets() -> tuple[ConvEncoder, ConvDecoder]:
    """Encoder and decoder, with the weights that all start from."""
    first, second = jr.split(jr.key(0))
    encoder = ConvEncoder((SIDE, SIDE), CODE, CHANNELS, relu, key=first)
    return encoder, ConvDecoder(CODE, (SIDE, SIDE), SIDE * SIDE, CHANNELS, relu, key=second)


def plain(model: Any) -> Any:
    """The same nets with Equinox's layers in place of ours."""
    ours = lambda leaf: isinstance(leaf, (Halving, Doubling))  # noqa: E731
    return jax.tree.map(lambda leaf: leaf.conv if ours(leaf) else leaf, model, is_leaf=ours)


def descent(model: Any) -> Callable[[float], float]:
    """Steps per second of a compiled loop of steps."""
    arrays, rest = eqx.partition(model, eqx.is_array)
    images = jr.normal(jr.key(1), (BATCH, SIDE * SIDE))

    def loss(arrays: Any) -> jax.Array:
        encoder, decoder = eqx.combine(arrays, rest)
        return jnp.mean((jax.vmap(lambda x: decoder(relu(encoder(x))))(images) - images) ** 2)

    def step(arrays: Any, _: None) -> tuple[Any, None]:
        return jax.tree.map(lambda a, g: a - RATE * g, arrays, jax.grad(loss)(arrays)), None

    several = jax.jit(lambda arrays: lax.scan(step, arrays, None, STEPS)[0])
    held = [arrays]

    def work() -> int:
        held[0] = jax.block_until_ready(several(held[0]))
        return STEPS

    return functools.partial(throughput, work)


def torch_descent() -> Callable[[float], float]:
    """Steps per second of PyTorch's layers."""
    down, up, maps = [], [], (1, *CHANNELS)
    for a, b in zip(maps[:-1], maps[1:], strict=True):
        down += [torch.nn.Conv2d(a, b, 3, stride=2, padding=1), torch.nn.ReLU()]
    for a, b, odd in zip(maps[:0:-1], maps[-2::-1], (0, 1, 1), strict=True):
        up += [torch.nn.ReLU(), torch.nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=odd)]
    small = 4 * 4 * CHANNELS[-1]
    middle = [torch.nn.Flatten(), torch.nn.Linear(small, CODE), torch.nn.ReLU(), torch.nn.Linear(CODE, small)]
    model = torch.nn.Sequential(*down, *middle, torch.nn.Unflatten(1, (CHANNELS[-1], 4, 4)), *up)
    optimiser, images = torch.optim.SGD(model.parameters(), RATE), torch.randn(BATCH, 1, SIDE, SIDE)

    def work() -> int:
        optimiser.zero_grad()
        torch.mean((model(images) - images) ** 2).backward()
        optimiser.step()
        return 1

    return functools.partial(throughput, work)


def main(effort: Effort) -> None:
    """Let all take turns, and report."""
    ours, theirs = Contender("ours", descent(nets())), Contender("equinox", descent(plain(nets())))
    others = [with_threads("torch", n, torch_descent()) for n in single_thread_or_all()]
    pytorch = fastest(others)
    rates = take_turns([warmed(c) for c in (ours, theirs, pytorch)], effort)
    found = {
        "ravine / equinox": ratio(rates["ours"], rates["equinox"]),
        f"ravine / {pytorch.name}": ratio(rates["ours"], rates[pytorch.name]),
    }
    rows = [[name, shown(spread)] for name, spread in found.items()]
    size = f"{SIDE} x {SIDE}, channels {CHANNELS}, batch {BATCH}"
    report("convolutions", ["ratio", "median (range)"], rows, {"rounds": effort.rounds, "sizes": {size: found}})
