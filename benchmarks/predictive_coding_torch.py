"""Predictive coding in PyTorch, written with care: what no step of settling changes is computed once, none by autograd.

Three ways to slopes: ``by_autograd`` takes that of the whole energy in the latents at every step, as public
implementations do; ``by_hand`` writes it out, with the prediction of the first layer made once for all steps; and
``fixed`` propagates the errors with fixed predictions, for as many steps as there are hidden layers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from common import Contender, single_thread_or_all, throughput

SETTLE, PACE = 20, 0.1
Way = Callable[["Net", torch.Tensor, torch.Tensor], None]


class Net:
    """Weights and biases in turn, layer by layer; hidden layers are rectified where the next one reads them."""

    def __init__(self, arrays: list[np.ndarray]):
        self.arrays = [torch.nn.Parameter(torch.tensor(array)) for array in arrays]
        self.weights, self.biases = self.arrays[::2], self.arrays[1::2]

    def learn(self, slopes: list[torch.Tensor], below: list[torch.Tensor]) -> None:
        """Slopes of the weights and biases from those of what each layer adds up, and what it reads."""
        for weight, bias, slope, read in zip(self.weights, self.biases, slopes, below, strict=True):
            weight.grad, bias.grad = slope.T @ read, slope.sum(0)


def by_autograd(net: Net, x: torch.Tensor, y: torch.Tensor) -> None:
    """Settling and learning by the slope of the energy."""
    with torch.no_grad():
        z = forward(net, x)

    def energy(z: list[torch.Tensor]) -> torch.Tensor:
        total, below = torch.zeros(()), x
        for weight, bias, here in zip(net.weights[:-1], net.biases[:-1], z, strict=True):
            total = total + 0.5 * (here - F.linear(below, weight, bias)).square().sum()
            below = torch.relu(here)
        return total + F.cross_entropy(F.linear(below, net.weights[-1], net.biases[-1]), y, reduction="sum")

    for _ in range(SETTLE):
        z = [layer.requires_grad_() for layer in z]
        down = torch.autograd.grad(energy(z), z)
        z = [(layer - PACE * slope).detach() for layer, slope in zip(z, down, strict=True)]
    for array, slope in zip(net.arrays, torch.autograd.grad(energy(z) / len(x), net.arrays), strict=True):
        array.grad = slope


@torch.no_grad()
def by_hand(net: Net, x: torch.Tensor, y: torch.Tensor) -> None:
    """The same, written out."""
    z, label = forward(net, x), F.one_hot(y, len(net.biases[-1]))
    bottom = z[0].clone()
    for _ in range(SETTLE):
        errors, _ = missed(net, z, bottom, label)
        for layer, error, above, weight in zip(z, errors, errors[1:], net.weights[1:], strict=False):
            pull = (above @ weight).mul_(layer > 0)
            layer.sub_(error - pull, alpha=PACE)
    errors, read = missed(net, z, bottom, label)
    net.learn([error / -len(x) for error in errors], [x, *read])


def missed(
    net: Net, z: list[torch.Tensor], bottom: torch.Tensor, label: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The errors of all layers, that of the label last, and what is read of the hidden ones."""
    read = [torch.relu(layer) for layer in z]
    errors = [z[0] - bottom]
    for weight, bias, below, here in zip(net.weights[1:-1], net.biases[1:-1], read, z[1:], strict=False):
        errors.append(here - F.linear(below, weight, bias))
    errors.append(label - torch.softmax(F.linear(read[-1], net.weights[-1], net.biases[-1]), 1))
    return errors, read


def forward(net: Net, x: torch.Tensor) -> list[torch.Tensor]:
    """The hidden layers where they are predicted."""
    z = [F.linear(x, net.weights[0], net.biases[0])]
    for weight, bias in zip(net.weights[1:-1], net.biases[1:-1], strict=True):
        z.append(F.linear(torch.relu(z[-1]), weight, bias))
    return z


@torch.no_grad()
def fixed(net: Net, x: torch.Tensor, y: torch.Tensor) -> None:
    """Errors that travel a layer at each step, all layers at once, while predictions stay."""
    read = [x, *map(torch.relu, forward(net, x))]
    label = F.one_hot(y, len(net.biases[-1]))
    last = torch.softmax(F.linear(read[-1], net.weights[-1], net.biases[-1]), 1) - label
    slopes = [*(torch.zeros_like(layer) for layer in read[1:]), last]
    for _ in read[1:]:
        pulled = [slope @ weight for slope, weight in zip(slopes[1:], net.weights[1:], strict=True)]
        slopes = [*(pull * (layer > 0) for pull, layer in zip(pulled, read[1:], strict=True)), last]
    net.learn([slope / len(x) for slope in slopes], read)


def contenders(
    name: str, way: Way, data: tuple[np.ndarray, np.ndarray], arrays: list[np.ndarray], batch: int, rate: float
) -> list[Contender]:
    """A loop with every number of threads worth trying."""
    return [_loop(name, way, data, Net(arrays), batch, rate, threads) for threads in single_thread_or_all()]


def compiled(
    name: str, way: Way, data: tuple[np.ndarray, np.ndarray], arrays: list[np.ndarray], batch: int, rate: float
) -> list[Contender]:
    """The same with settling and slopes compiled by `torch.compile`."""
    torch.compiler.reset()
    return contenders(name, torch.compile(way, dynamic=False), data, arrays, batch, rate)


def _loop(
    name: str, way: Way, data: tuple[np.ndarray, np.ndarray], net: Net, batch: int, rate: float, threads: int
) -> Contender:
    optimiser, batches = torch.optim.Adam(net.arrays, rate, fused=True), _batches(data, batch)

    def step() -> int:
        way(net, *next(batches))
        optimiser.step()
        return 1

    def pace(seconds: float) -> float:
        torch.set_num_threads(threads)
        return throughput(step, seconds)

    return Contender(f"{name}, {threads} threads", pace)


def _batches(data: tuple[np.ndarray, np.ndarray], batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    rows, labels = (torch.from_numpy(np.ascontiguousarray(array)) for array in data)
    while True:
        order = torch.randperm(len(rows))
        for start in itertools.takewhile(lambda i: i + batch <= len(rows), itertools.count(0, batch)):
            places = order[start : start + batch]
            yield rows[places], labels[places]
