"""The cases in normflows: `NormalizingFlow` and `MultiscaleFlow`."""

import normflows as nf
import torch

from peers import Case, Work
from peers.torch_work import torch_work


def build(case: Case, variant: str | None = None) -> Work:
    """The case's model."""
    torch.manual_seed(0)
    if case.kind == "glow":
        return _glow(case)
    (d,) = case.shape
    flows = []
    for i in range(case.layers):
        flows += _layer(case, d, i)
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(d, trainable=False), flows)
    return torch_work(case, model, model.log_prob, lambda n: model.sample(n)[0])


def _layer(case, d, i):
    if case.kind == "affine":
        net = nf.nets.MLP([d // 2, case.width, case.width, d], init_zeros=True)
        return [
            nf.flows.AffineCouplingBlock(net),
            nf.flows.Permute(d, mode="swap"),
        ]
    if case.kind == "spline":
        return [
            nf.flows.CoupledRationalQuadraticSpline(
                d,
                1,
                case.width,
                num_bins=case.bins,
                tail_bound=5.0,
                reverse_mask=bool(i % 2),
            )
        ]
    # As shipped it is an IAF; turned round, training is parallel.
    layer = nf.flows.MaskedAffineAutoregressive(
        d, case.width, num_blocks=1, use_residual_blocks=False
    )
    return [nf.flows.Reverse(layer), nf.flows.Permute(d, mode="swap")]


def _glow(case):
    height, _, channels = case.shape
    bases, merges, flows = [], [], []
    for i in range(case.levels):
        # normflows counts levels from the latents.
        deep = case.levels - i
        c = channels * 2 ** (deep + 1)
        blocks = [
            nf.flows.GlowBlock(c, case.width, split_mode="channel", scale=True)
            for _ in range(case.layers)
        ]
        flows.append([*blocks, nf.flows.Squeeze()])
        side = height // 2**deep
        if i == 0:
            shape = (c, side, side)
        else:
            merges.append(nf.flows.Merge())
            shape = (c // 2, side, side)
        bases.append(nf.distributions.DiagGaussian(shape, trainable=False))
    model = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)
    return torch_work(
        case, model, lambda x: model.log_prob(x, None), lambda n: model.sample(n)[0]
    )
