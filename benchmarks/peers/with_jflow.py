"""The cases in jflow.

The train step is compiled as `fit` compiles that of a long training, Glow's quickly, as
`jflow.models.glow` says; the variants `"quick"` and `"full"` are the other way. With
`"reversible"` it takes memory flat in depth.
"""

import functools

import jax
import jax.numpy as jnp
import optax

import jflow
from jflow.train import init_state, make_train_step
from peers import RATE, Case, Fitted, Work, batch, moons
from peers.jax_work import count, temporaries


def build(case: Case, variant: str | None = None) -> Work:
    """The case's model, trained by `make_train_step`, as `fit` does."""
    options = {"reversible": True} if variant == "reversible" else {}
    flow = MODELS[case.kind](case, **options)
    x, key = jnp.asarray(batch(case)), jax.random.key(1)
    params = flow.init(jax.random.key(0), x)
    optimizer = optax.adam(RATE)
    quick = {"quick": True, "full": False}.get(variant, case.kind == "glow")
    step = jax.jit(
        make_train_step(flow, optimizer),
        donate_argnums=0,
        compiler_options=jflow.compiler_options(quick=quick),
    )
    state = [init_state(params, optimizer, key)]

    def train():
        state[0], metrics = step(state[0], x)
        return state[0].params, metrics

    return Work(
        parameters=count(params),
        step=train,
        log_prob=lambda: flow.log_prob(state[0].params, x),
        sample=lambda: flow.sample(state[0].params, key, case.batch),
        wait=jax.block_until_ready,
        temporaries=lambda: temporaries(step, state[0], x),
    )


def fit(case: Case, variant: str | None = None) -> Fitted:
    """`jflow.fit` on small data, a tenth held out, the best parameters kept."""
    flow, optimizer = _fitted_objects(case)
    x, test = moons(case.size, 0), moons(case.size, 1)
    params = flow.init(jax.random.key(0), x[:1024])
    steps = case.epochs * int(0.9 * case.size // case.batch)
    params, _ = jflow.fit(
        flow,
        params,
        x,
        optimizer,
        key=jax.random.key(1),
        steps=steps,
        batch_size=case.batch,
        validation=0.1,
        progress=False,
    )
    loss = -float(flow.log_prob(params, test).mean())
    return Fitted(count(params), steps, loss)


@functools.cache
def _fitted_objects(case):
    """Built once: another `fit` with the same objects compiles nothing."""
    return spline(case), optax.adam(1e-3)


def realnvp(case: Case, **options) -> jflow.Flow:
    """The model of that name, without the normalisation that no peer has there."""
    hidden = (case.width, case.width)
    return jflow.models.realnvp(
        case.shape, couplings=case.layers, hidden=hidden, norm=None, **options
    )


def spline(case: Case, **options) -> jflow.Flow:
    """Spline couplings; exchanging halves lets one be compiled for all.

    As in `jflow.models.nsf` only each layer's input is kept for the backward pass.
    """
    law = jflow.scalars.rational_quadratic_spline(case.bins)
    net = jflow.nets.mlp(case.width, case.width)
    layer = jflow.chain(jflow.coupling(law, net), jflow.roll())
    stack = jflow.repeat(layer, case.layers, **(options or {"keep": ()}))
    return jflow.flow(stack, jflow.normal(case.shape))


def maf(case: Case, **options) -> jflow.Flow:
    """Papamakarios' flow, with the default inverse."""
    hidden = (case.width, case.width)
    return jflow.models.maf(case.shape, layers=case.layers, hidden=hidden, **options)


def glow(case: Case, **options) -> jflow.Flow:
    """Glow with unit priors, which is what the peers have."""
    return jflow.models.glow(
        case.shape,
        levels=case.levels,
        depth=case.layers,
        width=case.width,
        prior="unit",
        **options,
    )


MODELS = {"affine": realnvp, "spline": spline, "maf": maf, "glow": glow}
