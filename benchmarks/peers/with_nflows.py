"""The cases in nflows: `Flow(CompositeTransform, StandardNormal)`."""

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms import (
    ActNorm,
    AffineCouplingTransform,
    CompositeTransform,
    MaskedAffineAutoregressiveTransform,
    MultiscaleCompositeTransform,
    OneByOneConvolution,
    PiecewiseRationalQuadraticCouplingTransform,
    ReversePermutation,
    SqueezeTransform,
)
from nflows.utils import create_alternating_binary_mask, create_mid_split_binary_mask
from torch import nn

from peers import Case, Work
from peers.torch_work import torch_work


def build(case: Case, variant: str | None = None) -> Work:
    """The case's model."""
    torch.manual_seed(0)
    transform = {
        "affine": _couplings,
        "spline": _couplings,
        "maf": _maf,
        "glow": _glow,
    }[case.kind](case)
    shape = case.shape[::-1] if case.kind == "glow" else case.shape
    shape = [int(torch.tensor(shape).prod())] if case.kind == "glow" else shape
    flow = Flow(transform, StandardNormal(shape))
    return torch_work(case, flow, flow.log_prob, flow.sample)


class _MLP(nn.Sequential):
    def __init__(self, inputs, outputs, width):
        super().__init__(
            nn.Linear(inputs, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, outputs),
        )

    def forward(self, x, context=None):
        return super().forward(x)


def _couplings(case):
    def net(inputs, outputs):
        return _MLP(inputs, outputs, case.width)

    def layer(even):
        mask = create_alternating_binary_mask(case.shape[0], even=even)
        if case.kind == "affine":
            return AffineCouplingTransform(mask, net)
        return PiecewiseRationalQuadraticCouplingTransform(
            mask, net, num_bins=case.bins, tails="linear", tail_bound=5.0
        )

    return CompositeTransform([layer(i % 2 == 0) for i in range(case.layers)])


def _maf(case):
    (d,) = case.shape
    layers = []
    for _ in range(case.layers):
        layers += [
            # One block after the first layer: two hidden layers.
            MaskedAffineAutoregressiveTransform(
                d, case.width, num_blocks=1, use_residual_blocks=False
            ),
            ReversePermutation(d),
        ]
    return CompositeTransform(layers)


class _ConvNet(nn.Sequential):
    def __init__(self, inputs, outputs, width):
        super().__init__(
            nn.Conv2d(inputs, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, outputs, 3, padding=1),
        )
        nn.init.zeros_(self[-1].weight)
        nn.init.zeros_(self[-1].bias)

    def forward(self, x, context=None):
        return super().forward(x)


def _glow(case):
    side, channels = case.shape[0], case.shape[2]
    whole = MultiscaleCompositeTransform(num_transforms=case.levels)

    def net(inputs, outputs):
        return _ConvNet(inputs, outputs, case.width)

    for _ in range(case.levels):
        side, channels = side // 2, channels * 4
        layers = [SqueezeTransform()]
        for _ in range(case.layers):
            layers += [
                ActNorm(channels),
                OneByOneConvolution(channels),
                AffineCouplingTransform(create_mid_split_binary_mask(channels), net),
            ]
        shape = whole.add_transform(CompositeTransform(layers), (channels, side, side))
        channels = channels // 2 if shape else channels
    return whole
