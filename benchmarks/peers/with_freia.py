"""RealNVP in FrEIA: `SequenceINN` of `AllInOneBlock`s."""

import FrEIA.framework as framework
import FrEIA.modules as modules
import torch
from torch import nn

from peers import Case, Work
from peers.torch_work import torch_work


def build(case: Case, variant: str | None = None) -> Work:
    """The case's model, under a standard normal."""
    torch.manual_seed(0)
    (d,) = case.shape

    def net(inputs, outputs):
        return nn.Sequential(
            nn.Linear(inputs, case.width),
            nn.ReLU(),
            nn.Linear(case.width, case.width),
            nn.ReLU(),
            nn.Linear(case.width, outputs),
        )

    model = framework.SequenceINN(d)
    for _ in range(case.layers):
        model.append(modules.AllInOneBlock, subnet_constructor=net)
    base = torch.distributions.Independent(
        torch.distributions.Normal(torch.zeros(d), torch.ones(d)), 1
    )

    def log_prob(x):
        z, log_det = model(x)
        return base.log_prob(z) + log_det

    def sample(n):
        return model(base.sample((n,)), rev=True)[0]

    return torch_work(case, model, log_prob, sample)
