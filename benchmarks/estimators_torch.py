"""Categorical auto-encoders in PyTorch, trained by three gradient estimators, each in as few operations as it takes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from vae_torch import Net

from ravine.models.directed import Helmholtz


class CategoricalBound(torch.nn.Module):
    """Minus the evidence lower bound of a batch, with the divergence to a uniform prior in closed form."""

    def __init__(self, model: Helmholtz, latents: int, classes: int, estimate: Callable[..., torch.Tensor]):
        super().__init__()
        self.p, self.q = Net(model.p.conditional.net, torch.relu), Net(model.q.conditional.net, torch.relu)
        self.shape, self.estimate = (latents, classes), estimate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Nats per row, with the gradient of the estimator."""
        logits = self.q(x).unflatten(-1, self.shape)
        log_q = logits.log_softmax(-1)
        divergence = (log_q.exp() * log_q).sum() + len(x) * self.shape[0] * torch.log(torch.tensor(1.0 * self.shape[1]))
        return (self.estimate(self.cost, x, logits, log_q) + divergence) / len(x)

    def cost(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """-log p(x | z) of every row."""
        out = self.p(z.flatten(-2))
        return F.binary_cross_entropy_with_logits(out, x.expand_as(out), reduction="none").sum(-1)


Cost = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def straight_through_gumbel(
    cost: Cost, x: torch.Tensor, logits: torch.Tensor, log_q: torch.Tensor, t: float = 0.5
) -> torch.Tensor:
    """One-hot forwards; backwards the softmax of the noisy logits over t."""
    noise = -torch.empty_like(logits).exponential_().log()
    soft = ((logits + noise) / t).softmax(-1)
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
    return cost(x, hard + soft - soft.detach()).sum()


def reinmax(cost: Cost, x: torch.Tensor, logits: torch.Tensor, log_q: torch.Tensor, t: float = 1.3) -> torch.Tensor:
    """One-hot forwards; backwards Heun's rule: the slope at the middle twice, less half of that at the start."""
    with torch.no_grad():
        hard = _drawn(log_q)
        half = (hard + (logits / t).softmax(-1)) / 2
        offset = half.log() - logits
    surrogate = 2 * (offset + logits).softmax(-1) - 0.5 * logits.softmax(-1)
    return cost(x, hard + surrogate - surrogate.detach()).sum()


def leave_one_out(cost: Cost, x: torch.Tensor, logits: torch.Tensor, log_q: torch.Tensor, k: int = 4) -> torch.Tensor:
    """k draws, each with the mean cost of the others as its baseline."""
    with torch.no_grad():
        drawn = _drawn(log_q.expand(k, *log_q.shape))
    costs = cost(x, drawn)
    signals = (costs - costs.mean(0)).detach() * (k / (k - 1))
    score = (drawn * log_q).sum((-1, -2))
    return (costs + signals * (score - score.detach())).sum() / k


def _drawn(log_q: torch.Tensor) -> torch.Tensor:
    noise = torch.empty_like(log_q).exponential_()
    best = (log_q.exp() / noise).argmax(-1, keepdim=True)
    return torch.zeros_like(log_q).scatter_(-1, best, 1.0)
