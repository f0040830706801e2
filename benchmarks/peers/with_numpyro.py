"""MAF in NumPyro: inverse autoregressive transforms turned round, reversed between."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.flows import InverseAutoregressiveTransform
from numpyro.distributions.transforms import PermuteTransform
from numpyro.nn import AutoregressiveNN

from peers import Case, Work
from peers.jax_work import jax_work


def build(case: Case, variant: str | None = None) -> Work:
    """`TransformedDistribution(base, transforms)`."""
    (d,) = case.shape
    init, apply = AutoregressiveNN(d, [case.width, case.width])
    keys = jax.random.split(jax.random.key(0), case.layers)
    params = [init(key, (d,))[1] for key in keys]
    turn = jnp.arange(d)[::-1]

    def distribution(params):
        transforms = []
        for layer in params:
            net = lambda x, layer=layer: apply(layer, x)  # noqa: E731
            transforms.append(InverseAutoregressiveTransform(net).inv)
            transforms.append(PermuteTransform(turn))
        base = dist.Normal(jnp.zeros(d), 1.0).to_event(1)
        return dist.TransformedDistribution(base, transforms)

    def log_prob(params, x):
        return distribution(params).log_prob(x)

    def sample(params, key, n):
        return distribution(params).sample(key, (n,))

    return jax_work(case, params, log_prob, sample)
