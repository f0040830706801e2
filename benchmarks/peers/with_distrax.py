"""Couplings in distrax, `Transformed(base, Inverse(Chain(...)))`, unrolled.

It has no networks, squeeze or factoring out: those are the caller's, here.
"""

import distrax
import jax
import jax.numpy as jnp

from peers import Case, Work
from peers.jax_work import jax_work


def build(case: Case, variant: str | None = None) -> Work:
    """Split couplings, which compute the active half alone."""
    if case.kind == "glow":
        return _glow(case)
    (d,) = case.shape
    half = d // 2
    size = 2 if case.kind == "affine" else 3 * case.bins + 1
    keys = jax.random.split(jax.random.key(0), case.layers)
    sizes = (half, case.width, case.width, size * half)
    params = [_dense_init(key, sizes) for key in keys]

    def law(raw):
        if case.kind == "affine":
            return distrax.ScalarAffine(shift=raw[..., 0], log_scale=raw[..., 1])
        return distrax.RationalQuadraticSpline(raw, -5.0, 5.0)

    def bijector(layer):
        def conditioner(x):
            raw = _dense(layer, x)
            # distrax has the parameters last; numbers that lie together are cheaper.
            return jnp.moveaxis(raw.reshape(*x.shape[:-1], size, half), -2, -1)

        return conditioner

    def distribution(params):
        layers = [
            distrax.SplitCoupling(
                half, 1, bijector(layer), law, swap=bool(i % 2), split_axis=-1
            )
            for i, layer in enumerate(params)
        ]
        base = distrax.MultivariateNormalDiag(jnp.zeros(d), jnp.ones(d))
        return distrax.Transformed(base, distrax.Inverse(distrax.Chain(layers)))

    return jax_work(case, params, *_passes(distribution))


def _passes(distribution):
    def log_prob(params, x):
        return distribution(params).log_prob(x)

    def sample(params, key, n):
        return distribution(params).sample(seed=key, sample_shape=(n,))

    return log_prob, sample


def _dense_init(key, sizes):
    keys = jax.random.split(key, len(sizes))
    normal = jax.nn.initializers.he_normal()
    pairs = list(zip(keys, sizes[:-1], sizes[1:], strict=False))
    layers = [(normal(k, (m, n)), jnp.zeros(n)) for k, m, n in pairs]
    return [*layers[:-1], (jnp.zeros_like(layers[-1][0]), layers[-1][1])]


def _dense(layers, x):
    for w, b in layers[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = layers[-1]
    return x @ w + b


# --- Glow -----------------------------------------------------------------------------


def _glow(case):
    """Actnorm, `Lu`-convolution and coupling; squeeze and split between levels."""
    side, channels = case.shape[0], case.shape[2]
    params, shapes = [], []
    for level in range(case.levels):
        side, channels = side // 2, channels * 4
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), level), 64)
        steps = [_step_init(k, channels, case.width) for k in keys[: case.layers]]
        params.append(steps)
        last = level == case.levels - 1
        kept = channels if last else channels // 2
        shapes.append((side, side, kept))
        channels = channels - kept

    def level(steps):
        layers = [layer for step in steps for layer in _step(step)]
        return distrax.Chain(layers[::-1])

    def log_prob(params, x):
        total = 0.0
        for i, steps in enumerate(params):
            x, log_det = level(steps).forward_and_log_det(_squeeze(x))
            done = x if i == case.levels - 1 else x[..., x.shape[-1] // 2 :]
            x = x[..., : x.shape[-1] // 2]
            normal = distrax.Normal(jnp.zeros(()), jnp.ones(()))
            total = total + log_det + normal.log_prob(done).sum((1, 2, 3))
        return total

    def sample(params, key, n):
        keys = jax.random.split(key, case.levels)
        latents = [
            jax.random.normal(k, (n, *shape))
            for k, shape in zip(keys, shapes, strict=True)
        ]
        x = level(params[-1]).inverse(latents[-1])
        for steps, z in zip(params[-2::-1], latents[-2::-1], strict=True):
            x = jnp.concatenate([_unsqueeze(x), z], axis=-1)
            x = level(steps).inverse(x)
        return _unsqueeze(x)

    return jax_work(case, params, log_prob, sample)


def _step_init(key, channels, width):
    k = jax.random.split(key, 4)
    half = channels // 2
    normal = jax.nn.initializers.normal(0.05)
    rotation = jnp.linalg.qr(jax.random.normal(k[0], (channels, channels)))[0]
    return {
        "bias": jnp.zeros(channels),
        "log_scale": jnp.zeros(channels),
        "matrix": rotation,
        "net": [
            (normal(k[1], (3, 3, half, width)), jnp.zeros(width), jnp.zeros(width)),
            (normal(k[2], (1, 1, width, width)), jnp.zeros(width), jnp.zeros(width)),
            (
                jnp.zeros((3, 3, width, channels)),
                jnp.zeros(channels),
                jnp.zeros(channels),
            ),
        ],
    }


def _step(params):
    norm = distrax.ScalarAffine(
        shift=params["bias"] * jnp.exp(params["log_scale"]),
        log_scale=params["log_scale"],
    )
    mix = distrax.LowerUpperTriangularAffine(
        params["matrix"], jnp.zeros(params["bias"].shape)
    )
    channels = params["bias"].size

    def net(x):
        for i, (w, b, log_s) in enumerate(params["net"]):
            x = jax.lax.conv_general_dilated(
                x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = (x + b) * jnp.exp(3.0 * log_s)
            x = x if i == 2 else jax.nn.relu(x)
        return x

    def law(raw):
        shift, log_scale = raw[..., : channels // 2], raw[..., channels // 2 :]
        log_scale = jax.nn.log_sigmoid(log_scale + 2.0)
        return distrax.ScalarAffine(shift=shift, log_scale=log_scale)

    return (
        distrax.Block(norm, 3),
        distrax.Block(mix, 2),
        distrax.SplitCoupling(channels // 2, 3, net, law, split_axis=-1),
    )


def _squeeze(x):
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // 2, w // 2, 4 * c)


def _unsqueeze(x):
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4)
