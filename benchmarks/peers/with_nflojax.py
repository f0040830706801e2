"""RealNVP in nflojax: its builder, whose conditioners see all dimensions, masked."""

import jax
from nflojax.builders import build_realnvp

from peers import Case, Work
from peers.jax_work import jax_work


def build(case: Case, variant: str | None = None) -> Work:
    """Its conditioner is residual: a block is a layer of the width."""
    flow, params = build_realnvp(
        jax.random.key(0),
        dim=case.shape[0],
        num_layers=case.layers,
        hidden_dim=case.width,
        n_hidden_layers=1,
        activation=jax.nn.relu,
        use_loft=False,
    )

    def sample(params, key, n):
        return flow.sample(params, key, (n,))

    return jax_work(case, params, flow.log_prob, sample)
