"""Forward-Forward in PyTorch, written with care: one pass for rows and others, a fused optimiser, slopes by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from common import Contender, single_thread_or_all, throughput

CLASSES, EPS = 10, 1e-8
Slopes = Callable[["Layers", torch.Tensor, torch.Tensor], None]


class Layers(torch.nn.Module):
    """Weights of shape (units, inputs) and biases, the lowest first; a layer's threshold is the number of its units."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        super().__init__()
        self.arrays = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(array)) for array in arrays])

    def pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The weights and the biases of each layer."""
        return zip(self.arrays[::2], self.arrays[1::2], strict=True)

    def forward(self, seen: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
        """The loss of rows (``sign`` is 1) and others (-1): as many of the ones as of the others."""
        loss = seen.new_zeros(())
        for weight, bias in self.pairs():
            y = F.relu(F.linear(normalised(seen), weight, bias))
            loss = loss + F.softplus(-sign * (y.square().sum(1) - len(bias))).sum()
            seen = y.detach()
        return loss / (len(sign) // 2)


def normalised(y: torch.Tensor) -> torch.Tensor:
    """Rows at a mean square of 1."""
    return y * torch.rsqrt(y.square().mean(1, keepdim=True) + EPS)


def by_autograd(layers: Layers, seen: torch.Tensor, sign: torch.Tensor) -> None:
    """Leave the slopes in ``.grad``: by one backward pass."""
    for array in layers.arrays:
        array.grad = None
    layers(seen, sign).backward()


@torch.no_grad()
def by_hand(layers: Layers, seen: torch.Tensor, sign: torch.Tensor) -> None:
    """Leave the slopes in ``.grad``: by what they come to, written where they were."""
    share = len(sign) // 2
    for weight, bias in layers.pairs():
        seen = normalised(seen)
        y = torch.addmm(bias, seen, weight.T).relu_()
        away = -2 / share * sign * torch.sigmoid(sign * (len(bias) - y.square().sum(1)))
        slope = y * away[:, None]  # y is 0 where its own slope is
        _keep(weight, slope.T, seen)
        bias.grad = slope.sum(0)
        seen = y


def _keep(weight: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    if weight.grad is None:
        weight.grad = torch.empty_like(weight)
    torch.mm(left, right, out=weight.grad)


def shown(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Rows with their own label in the first cells; below them the same with another one."""
    n = len(x)
    away = torch.randint(1, CLASSES, (n,))
    both = torch.cat([x, x])
    both[:, :CLASSES] = 0
    both[torch.arange(2 * n), torch.cat([y, (y + away) % CLASSES])] = 1
    return both


def eager(data: np.ndarray, labels: np.ndarray, make: Callable[[], Layers], batch: int, rate: float) -> list[Contender]:
    """The loop as one writes it by hand: slopes from either, every implementation of Adam, and of threads."""
    ways = ({"autograd": by_autograd}, {"by hand": by_hand})
    adams = ({"foreach": True}, {"fused": True})
    choices = itertools.product(ways, adams, single_thread_or_all())
    return [_loop("torch", way, data, labels, make(), batch, rate, adam, many) for way, adam, many in choices]


def compiled(
    data: np.ndarray, labels: np.ndarray, make: Callable[[], Layers], batch: int, rate: float
) -> list[Contender]:
    """The same with the loss and its backward pass compiled by `torch.compile`."""
    torch.compiler.reset()  # it compiles only so many versions of one function, and each number of threads is one
    made = lambda: torch.compile(make(), dynamic=False)  # noqa: E731
    way, adam = {"autograd": by_autograd}, {"fused": True}
    threads = single_thread_or_all()
    return [_loop("compiled torch", way, data, labels, made(), batch, rate, adam, many) for many in threads]


def _loop(
    name: str,
    way: dict[str, Slopes],
    data: np.ndarray,
    labels: np.ndarray,
    layers: Layers,
    batch: int,
    rate: float,
    adam: dict[str, bool],
    threads: int,
) -> Contender:
    ((named, slopes),) = way.items()
    optimiser = torch.optim.Adam(layers.parameters(), rate, **adam)
    batches = _batches(torch.from_numpy(data), torch.from_numpy(labels).long(), batch)
    sign = torch.cat([torch.ones(batch), -torch.ones(batch)])

    def step() -> int:
        slopes(layers, shown(*next(batches)), sign)
        optimiser.step()
        return 1

    def pace(seconds: float) -> float:
        torch.set_num_threads(threads)
        return throughput(step, seconds)

    return Contender(f"{name}, {named}, {next(iter(adam))} Adam, {threads} threads", pace)


def _batches(data: torch.Tensor, labels: torch.Tensor, batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        order = torch.randperm(len(data))
        for start in range(0, len(data) - batch + 1, batch):
            places = order[start : start + batch]
            yield data[places], labels[places]
