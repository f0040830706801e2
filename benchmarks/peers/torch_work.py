"""What the torch libraries have in common: Adam around a loss, eagerly."""

from collections.abc import Callable
from typing import Any

import torch

from peers import RATE, Case, Work, batch


def images(case: Case) -> torch.Tensor:
    """The case's batch, images with their channels first."""
    x = torch.from_numpy(batch(case))
    return x.permute(0, 3, 1, 2).contiguous() if x.ndim == 4 else x


def torch_work(case: Case, modules: Any, log_prob: Callable, sample: Callable) -> Work:
    """Work from a module, `log_prob(x)` and `sample(n)`."""
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    x = images(case)

    def step():
        optimizer.zero_grad()
        loss = -log_prob(x).mean()
        loss.backward()
        optimizer.step()
        return loss

    @torch.no_grad()
    def evaluate():
        return log_prob(x)

    @torch.no_grad()
    def draw():
        return sample(case.batch)

    return Work(
        parameters=sum(p.numel() for p in parameters),
        step=step,
        log_prob=evaluate,
        sample=draw,
        wait=lambda result: result,
    )
