"""Forward-Forward in PyTorch, written with care: both kinds of rows in one product, slopes by hand or by autograd.

The algorithm of Hinton 2022, arXiv:2212.13345, with labels in the first cells: all layers learn at every step, each by
an optimiser of its own, and no slope crosses layers.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from common import Contender, throughput, with_threads
from torch.nn.functional import softplus

CLASSES, EPS = 10, 1e-8
Layer = tuple[torch.Tensor, torch.Tensor]
Slopes = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def layers(weights: Sequence[np.ndarray]) -> list[Layer]:
    """Weights of shape (units, inputs) and biases of 0."""
    return [(torch.tensor(w, requires_grad=True), torch.zeros(len(w), requires_grad=True)) for w in weights]


def by_hand(weight: torch.Tensor, bias: torch.Tensor, seen: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """The activities of a layer; the slopes of its loss are left in the weights."""
    with torch.no_grad():
        y = torch.addmm(bias, seen, weight.T).relu_()
        odds = y.square().sum(1) - y.shape[1]
        blame = y * (-2 * sign * torch.sigmoid(-sign * odds) / (len(y) / 2))[:, None]
        weight.grad, bias.grad = blame.T @ seen, blame.sum(0)
    return y


def by_autograd(weight: torch.Tensor, bias: torch.Tensor, seen: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """The same, as one writes it."""
    weight.grad = bias.grad = None
    y = torch.addmm(bias, seen, weight.T).relu()
    odds = y.square().sum(1) - y.shape[1]
    (softplus(-sign * odds).sum() / (len(y) / 2)).backward()
    return y.detach()


def contenders(
    data: np.ndarray, labels: np.ndarray, weights: Sequence[np.ndarray], batch: int, rate: float, threads: list[int]
) -> list[Contender]:
    """Slopes by hand and by autograd, with every number of threads; each with compiled layers, too, where it works."""
    ways: dict[str, Slopes] = {"by hand": by_hand, "autograd": by_autograd}
    return [
        _loop(f"torch, {name}", slopes, (data, labels), layers(weights), batch, rate, many)
        for (name, slopes), many in itertools.product(ways.items(), threads)
    ]


def compiled(
    data: np.ndarray, labels: np.ndarray, weights: Sequence[np.ndarray], batch: int, rate: float, threads: list[int]
) -> list[Contender]:
    """Slopes by hand, in layers compiled by `torch.compile`."""
    torch.compiler.reset()
    slopes = torch.compile(_plain, dynamic=False)
    made = functools.partial(_compiled, slopes)
    return [_loop("compiled torch", made, (data, labels), layers(weights), batch, rate, many) for many in threads]


def _plain(weight: torch.Tensor, bias: torch.Tensor, seen: torch.Tensor, sign: torch.Tensor) -> tuple:
    y = torch.addmm(bias, seen, weight.T).relu()
    odds = y.square().sum(1) - y.shape[1]
    blame = y * (-2 * sign * torch.sigmoid(-sign * odds) / (len(y) / 2))[:, None]
    return y, blame.T @ seen, blame.sum(0)


def _compiled(slopes: Callable, weight: torch.Tensor, bias: torch.Tensor, seen: torch.Tensor, sign: torch.Tensor):
    with torch.no_grad():
        y, weight.grad, bias.grad = slopes(weight, bias, seen, sign)
    return y


def _loop(name: str, slopes: Slopes, rows: tuple, net: list[Layer], batch: int, rate: float, threads: int) -> Contender:
    optimisers = [torch.optim.Adam(layer, rate, fused=True) for layer in net]
    batches, sign = _batches(*map(torch.from_numpy, rows), batch), torch.ones(2 * batch)
    sign[batch:] = -1

    def one() -> int:
        seen = next(batches)
        for (weight, bias), optimiser in zip(net, optimisers, strict=True):
            seen = seen * torch.rsqrt(seen.square().mean(1, keepdim=True) + EPS)
            seen = slopes(weight, bias, seen, sign)
            optimiser.step()
        return 1

    def pace(seconds: float) -> float:
        torch.set_num_threads(threads)
        return throughput(one, seconds)

    return with_threads(name, threads, pace)


def _batches(data: torch.Tensor, labels: torch.Tensor, batch: int) -> Iterator[torch.Tensor]:
    """Rows with their labels above the same rows with wrong ones."""
    every = torch.eye(CLASSES)
    while True:
        order = torch.randperm(len(data))
        for start in range(0, len(data) - batch + 1, batch):
            places = order[start : start + batch]
            both, y = data[places].repeat(2, 1), labels[places]
            both[:batch, :CLASSES] = every[y]
            both[batch:, :CLASSES] = every[(y + torch.randint(1, CLASSES, (batch,))) % CLASSES]
            yield both
