"""Couplings in bijx: pairs of layers under `ScanChain`, jitted over the split state.

Its splines map [0, 1] to itself, so -5 .. 5 is rescaled to it before and back after.
"""

import bijx
import jax.numpy as jnp
from flax import nnx

from peers import Case, Work
from peers.jax_work import jax_work


def build(case: Case, variant: str | None = None) -> Work:
    """`Transformed(IndependentNormal, bijection)`."""
    (d,) = case.shape
    rngs = nnx.Rngs(0)

    def layer(parity, rngs):
        mask = bijx.checker_mask((d,), parity)
        if case.kind == "affine":
            law = bijx.AffineLinear(rngs=rngs)
        else:
            law = bijx.MonotoneRQSpline(case.bins, (), rngs=rngs)
        law = bijx.ModuleReconstructor(law)
        active, passive = mask.counts
        net = bijx.nn.nets.MLP(
            passive,
            active * law.params_total_size,
            [case.width, case.width],
            activation=nnx.relu,
            final_kernel_init=nnx.initializers.normal(0.01),
            rngs=rngs,
        )

        def arranged(p):
            return p.reshape(*p.shape[:-1], active, law.params_total_size)

        net = nnx.Sequential(net, arranged)
        return bijx.GeneralCouplingLayer(net, mask, law, bijection_event_rank=0)

    def pair(rngs):
        return bijx.Chain(layer(True, rngs), layer(False, rngs))

    stack = bijx.stack_bijections(
        pair, transform=bijx.ScanChain, copies=case.layers // 2
    )(rngs)
    if case.kind == "spline":
        stack = bijx.Chain(_rescale(0.1, 0.5), stack, _rescale(10.0, -5.0))
    base = bijx.IndependentNormal((d,), rngs=rngs)
    graph, params, rest = nnx.split(bijx.Transformed(base, stack), nnx.Param, ...)

    def log_prob(params, x):
        return nnx.merge(graph, params, rest).log_density(x)

    def sample(params, key, n):
        model = nnx.merge(graph, params, rest)
        return model.sample(batch_shape=(n,), rng=key)[0]

    return jax_work(case, params, log_prob, sample)


def _rescale(scale, shift):
    """A fixed affine map."""
    return bijx.AffineLinear(
        scale=bijx.Const(jnp.log(scale)), shift=bijx.Const(jnp.asarray(shift))
    )
