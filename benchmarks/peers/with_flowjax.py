"""The cases in flowjax: its constructors, its training step, its loop."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import paramax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import Normal
from flowjax.flows import coupling_flow, masked_autoregressive_flow
from flowjax.train import fit_to_data
from flowjax.train.losses import MaximumLikelihoodLoss
from flowjax.train.train_utils import step as train_step

from peers import RATE, Case, Fitted, Work, batch, moons
from peers.jax_work import count


@functools.cache
def flow_of(case: Case):
    """The case's distribution."""
    options = {
        "base_dist": Normal(jnp.zeros(case.shape)),
        "flow_layers": case.layers,
        "nn_width": case.width,
        "nn_depth": 2,
    }
    key = jax.random.key(0)
    if case.kind == "maf":
        return masked_autoregressive_flow(key, **options)
    if case.kind in ("spline", "fit"):
        # Knots within the interval, whose ends are two more.
        knots = case.bins - 1
        options["transformer"] = RationalQuadraticSpline(knots=knots, interval=5)
    return coupling_flow(key, **options)


def _partition(flow):
    return eqx.partition(
        flow,
        eqx.is_inexact_array,
        is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable),
    )


def build(case: Case, variant: str | None = None) -> Work:
    """`train_utils.step`, which `fit_to_data` calls."""
    params, static = _partition(flow_of(case))
    x, key = jnp.asarray(batch(case)), jax.random.key(1)
    optimizer, loss = optax.adam(RATE), MaximumLikelihoodLoss()
    state = [params, optimizer.init(params)]

    def step():
        *state[:], value = train_step(
            state[0],
            static,
            x,
            key=key,
            optimizer=optimizer,
            opt_state=state[1],
            loss_fn=loss,
        )
        return state, value

    @eqx.filter_jit
    def log_prob(params, x):
        return eqx.combine(params, static).log_prob(x)

    @eqx.filter_jit
    def sample(params, key):
        return eqx.combine(params, static).sample(key, (case.batch,))

    return Work(
        parameters=count(params),
        step=step,
        log_prob=lambda: log_prob(state[0], x),
        sample=lambda: sample(state[0], key),
        wait=jax.block_until_ready,
    )


def fit(case: Case, variant: str | None = None) -> Fitted:
    """`fit_to_data`, a tenth held out, the best parameters kept."""
    flow = flow_of(case)
    x, test = moons(case.size, 0), moons(case.size, 1)
    flow, losses = fit_to_data(
        jax.random.key(1),
        flow,
        x,
        optimizer=optax.adam(1e-3),
        max_epochs=case.epochs,
        max_patience=case.epochs,
        batch_size=case.batch,
        show_progress=False,
    )
    loss = -float(eqx.filter_jit(lambda f, x: f.log_prob(x).mean())(flow, test))
    steps = len(losses["train"]) * int(0.9 * case.size // case.batch)
    return Fitted(count(_partition(flow)[0]), steps, loss)
