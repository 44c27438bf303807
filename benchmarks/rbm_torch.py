"""Contrastive divergence in PyTorch, written with care: no autograd, products and updates in place, shuffled ahead."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from common import Contender, throughput, with_threads

Draw = Callable[[torch.Tensor], torch.Tensor]
DRAWS: dict[str, Draw] = {
    "bernoulli": torch.bernoulli,
    "comparison": lambda p: (torch.rand_like(p) < p).to(p.dtype),
}


class Machine(NamedTuple):
    """Weights of shape (visible, hidden), and the biases of both groups."""

    weight: torch.Tensor
    visible: torch.Tensor
    hidden: torch.Tensor

    def step(self, v: torch.Tensor, rate: float, draw: Draw) -> None:
        """CD-1: hidden bits are drawn, then visible bits; the last hidden units are probabilities."""
        share = rate / len(v)
        h = torch.addmm(self.hidden, v, self.weight).sigmoid_()
        again = draw(torch.addmm(self.visible, draw(h), self.weight.T).sigmoid_())
        g = torch.addmm(self.hidden, again, self.weight).sigmoid_()
        self.visible.add_(v.sum(0) - again.sum(0), alpha=share)
        self.hidden.add_(h.sum(0) - g.sum(0), alpha=share)
        self.weight.addmm_(v.T, h, alpha=share)
        self.weight.addmm_(again.T, g, alpha=-share)


def machine(weight: np.ndarray, bias: np.ndarray) -> Machine:
    """A machine with these weights and biases of the visible units."""
    return Machine(torch.tensor(weight), torch.tensor(bias), torch.zeros(weight.shape[1]))


def eager(
    data: np.ndarray, make: Callable[[], Machine], batch: int, rate: float, threads: list[int]
) -> list[Contender]:
    """The loop as one writes it by hand, with every way to draw bits and every number of threads."""
    choices = itertools.product(DRAWS, threads)
    return [_loop("torch", name, Machine.step, data, make(), batch, rate, many) for name, many in choices]


def compiled(
    data: np.ndarray, make: Callable[[], Machine], batch: int, rate: float, threads: list[int]
) -> list[Contender]:
    """The same with a step compiled by `torch.compile`."""
    torch.compiler.reset()
    step = torch.compile(Machine.step, dynamic=False)
    choices = itertools.product(DRAWS, threads)
    return [_loop("compiled torch", name, step, data, make(), batch, rate, many) for name, many in choices]


def _loop(
    name: str, draw: str, step: Callable, data: np.ndarray, machine: Machine, batch: int, rate: float, threads: int
) -> Contender:
    batches = _batches(torch.from_numpy(data), batch)

    def one() -> int:
        step(machine, next(batches), rate, DRAWS[draw])
        return 1

    @torch.no_grad()
    def pace(seconds: float) -> float:
        torch.set_num_threads(threads)
        return throughput(one, seconds)

    return with_threads(f"{name}, {draw}", threads, pace)


def _batches(data: torch.Tensor, batch: int) -> Iterator[torch.Tensor]:
    while True:
        order = torch.randperm(len(data))
        for start in range(0, len(data) - batch + 1, batch):
            yield data[order[start : start + batch]]
