"""The cases in Zuko: its lazy flows of coupling and autoregressive parts."""

import torch
import zuko
from zuko.flows import MAF, Flow, GeneralCouplingTransform, UnconditionalDistribution
from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

from peers import Case, Work
from peers.torch_work import torch_work


def build(case: Case, variant: str | None = None) -> Work:
    """The case's model."""
    torch.manual_seed(0)
    (d,) = case.shape
    hidden = {"hidden_features": (case.width, case.width)}
    if case.kind == "maf":
        flow = MAF(d, transforms=case.layers, **hidden)
    else:
        shapes = [(), ()]
        law = MonotonicAffineTransform
        if case.kind == "spline":
            shapes = [(case.bins,), (case.bins,), (case.bins - 1,)]
            law = MonotonicRQSTransform
        transforms = [
            GeneralCouplingTransform(
                d,
                mask=torch.arange(d) % 2 == i % 2,
                univariate=law,
                shapes=shapes,
                **hidden,
            )
            for i in range(case.layers)
        ]
        base = UnconditionalDistribution(
            zuko.distributions.DiagNormal, torch.zeros(d), torch.ones(d), buffer=True
        )
        flow = Flow(transforms, base)
    return torch_work(
        case, flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,))
    )
