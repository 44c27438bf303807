"""The same auto-encoder in PyTorch, written with care: no data loader, no distribution objects, a fused optimiser."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from common import Contender, single_thread_or_all, throughput

from ravine.models.directed import Helmholtz
from ravine.nets import MLP

Activation = Callable[[torch.Tensor], torch.Tensor]


class Net(torch.nn.Module):
    """The weights of one of our networks, for `torch.nn.functional.linear`."""

    def __init__(self, net: MLP, activation: Activation = torch.tanh):
        super().__init__()
        self.activation = activation
        arrays = [array for layer in net.layers for array in (layer.weight, layer.bias)]
        self.arrays = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(np.asarray(array))) for array in arrays])

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """The outputs for a batch."""
        weights, biases = self.arrays[::2], self.arrays[1::2]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            h = self.activation(F.linear(h, weight, bias))
        return F.linear(h, weights[-1], biases[-1])


class Bound(torch.nn.Module):
    """The loss of a batch: minus the evidence lower bound, divergence in closed form."""

    def __init__(self, model: Helmholtz):
        super().__init__()
        self.p, self.q = Net(model.p.conditional.net), Net(model.q.conditional.net)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Nats per row."""
        mean, raw = self.q(x).chunk(2, -1)
        scale = 1e-3 + F.softplus(raw)
        logits = self.p(mean + scale * torch.randn_like(mean))
        fit = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        divergence = (0.5 * (scale.square() + mean.square() - 1) - scale.log()).sum()
        return (fit + divergence) / len(x)


def eager(batch: int, data: np.ndarray, make: Callable[[], torch.nn.Module]) -> list[Contender]:
    """The loop as one writes it by hand, with every choice of Adam's implementation and of threads."""
    choices = itertools.product(({"foreach": True}, {"fused": True}), single_thread_or_all())
    return [_torch_loop("eager", batch, data, make(), adam, threads) for adam, threads in choices]


def compiled(batch: int, data: np.ndarray, make: Callable[[], torch.nn.Module]) -> list[Contender]:
    """The same with the loss and its gradient compiled by `torch.compile`."""
    torch.compiler.reset()  # it compiles only so many versions of one function, and each number of threads is one
    bound = lambda: torch.compile(make(), dynamic=False)  # noqa: E731
    return [
        _torch_loop("compiled", batch, data, bound(), {"fused": True}, threads) for threads in single_thread_or_all()
    ]


def _torch_loop(
    name: str, batch: int, data: np.ndarray, bound: torch.nn.Module, adam: dict[str, bool], threads: int
) -> Contender:
    optimiser, batches = (
        torch.optim.Adam(bound.parameters(), 1e-3, **adam),
        _batches(torch.from_numpy(data), batch),
    )

    def step() -> int:
        optimiser.zero_grad(set_to_none=True)
        bound(next(batches)).backward()
        optimiser.step()
        return 1

    def rate(seconds: float) -> float:
        torch.set_num_threads(threads)
        return throughput(step, seconds)

    return Contender(f"{name}, {next(iter(adam))} Adam, {threads} threads", rate)


def _batches(data: torch.Tensor, batch: int) -> Iterator[torch.Tensor]:
    while True:
        order = torch.randperm(len(data))
        for start in range(0, len(data) - batch + 1, batch):
            yield data[order[start : start + batch]]
