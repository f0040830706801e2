"""The registry: a public bijector or scalar that is not here fails the suite."""

import cases_autoregressive
import cases_block
import cases_bounds
import cases_classic
import cases_mixed
import cases_monotone
import cases_splines
import jax
import jax.numpy as jnp
import numpy as np
from case import Case, pixels, unit

import jflow
from jflow import nets, scalars

IMAGE, SMALL = (4, 4, 2), (8,)
net = nets.mlp(*SMALL)
conv = nets.glow_net(6)


def _coupling(mask="half", law=None, net=net, **kwargs):
    return lambda: jflow.coupling(law or scalars.affine(), net, mask, **kwargs)


def _step(net=net):
    return jflow.chain(
        jflow.actnorm(),
        jflow.invertible_linear(),
        jflow.coupling(scalars.affine(), net),
    )


class _Embed:
    """A hand-written net for `embed_condition`."""

    def init(self, key, condition):
        return jax.random.normal(key, (condition.shape[1], 3))

    def apply(self, params, condition):
        return jnp.tanh(condition @ params)


MASK = np.array([True, False, False, True, False])
PATCH = np.arange(32).reshape(IMAGE) % 3 == 0

CASES = [
    Case("identity", "identity", jflow.identity, identity=True),
    Case("chain", "chain", _step, condition=(3,), reached=0.6),
    Case(
        "chain-reversible",
        "chain",
        lambda: jflow.chain(_step(), _step(), jflow.reverse(), reversible=True),
        condition=(3,),
        f32=1e-4,
        scramble=0.1,
    ),
    Case(
        "chain-anchor",
        "chain",
        lambda: jflow.chain(_step(), _step(), _step(), reversible=True, anchor=2),
        f32=1e-4,
        scramble=0.1,
    ),
    Case("invert", "invert", lambda: jflow.invert(_step()), condition=(3,)),
    Case(
        "repeat",
        "repeat",
        lambda: jflow.repeat(_step(), 3),
        condition=(3,),
        f32=1e-4,
        scramble=0.1,
    ),
    Case(
        "repeat-reversible",
        "repeat",
        lambda: jflow.repeat(_step(), 5, reversible=True, anchor=2),
        condition=(3,),
        f32=1e-4,
        scramble=0.1,
    ),
    Case("remat", "remat", lambda: jflow.remat(_step()), condition=(3,), reached=0.6),
    Case(
        "frozen", "frozen", lambda: jflow.frozen(_step()), condition=(3,), reached=0.6
    ),
    Case(
        "embed_condition",
        "embed_condition",
        lambda: jflow.embed_condition(_step(), _Embed()),
        condition=(2,),
        reached=0.6,
    ),
    Case(
        "standardise_condition",
        "standardise_condition",
        lambda: jflow.standardise_condition(_step()),
        condition=(2,),
        reached=0.6,
    ),
    Case(
        "split",
        "split",
        lambda: jflow.split(_step(conv)),
        shape=(2, 2, 4),
        scramble=0.1,
    ),
    Case("split-keep", "split", lambda: jflow.split(_step(), keep=4)),
    Case(
        "elementwise",
        "elementwise affine",
        lambda: jflow.elementwise(scalars.affine()),
        identity=True,
    ),
    Case("diagonal_scale", "diagonal_scale", jflow.diagonal_scale, identity=True),
    Case(
        "diagonal_scale-data",
        "diagonal_scale",
        lambda: jflow.diagonal_scale(deviation=2.0),
    ),
    *(
        Case(
            f"elementwise-{name}",
            "elementwise multiplicative",
            lambda name=name: jflow.elementwise(scalars.multiplicative(name)),
            identity=name != "sigmoid",
        )
        for name in scalars.SCALE_MAPS
    ),
    Case(
        "coupling-shift",
        "coupling shift",
        _coupling("interleaved", scalars.shift()),
        condition=(3,),
        identity=True,
        reached=0.4,
    ),
    Case("coupling-subtract", "shift", _coupling(law=scalars.shift(subtract=True))),
    *(
        Case(
            f"coupling-{mask}-{swap}",
            "coupling",
            _coupling(mask, swap=swap),
            condition=(3,),
            identity=True,
            reached=0.4,
        )
        for mask in ("half", "interleaved")
        for swap in (False, True)
    ),
    *(
        Case(
            f"coupling-{name}",
            "coupling affine",
            _coupling(
                law=scalars.affine(name, shift_first=True),
                passive=scalars.multiplicative(),
            ),
            identity=name != "sigmoid",
        )
        for name in ("tanh", "sigmoid")
    ),
    Case("coupling-mask", "coupling", _coupling(MASK, passive=scalars.affine())),
    Case(
        "coupling-two", "coupling", _coupling(), shape=(2,), condition=(1,), reached=0.5
    ),
    Case(
        "coupling-checkerboard",
        "coupling",
        _coupling(
            "checkerboard",
            scalars.affine("tanh"),
            nets.residual_net(4, 1),
            passive=scalars.affine(),
        ),
        shape=(3, 4, 2),
        condition=(3,),
        identity=True,
        reached=0.4,
    ),
    Case(
        "coupling-checkerboard-swap",
        "coupling",
        _coupling("checkerboard", net=conv, swap=True),
        shape=IMAGE,
        condition=(8, 4, 3),
        reached=0.5,
        scramble=0.1,
    ),
    Case(
        "coupling-image-mask",
        "coupling",
        _coupling(PATCH, net=conv),
        shape=IMAGE,
        scramble=0.1,
    ),
    Case(
        "coupling-channels",
        "coupling",
        _coupling(net=nets.glow_net(6, mark_edges=True, actnorm=False)),
        shape=IMAGE,
        condition=(3,),
        reached=0.5,
        scramble=0.1,
    ),
    Case(
        "coupling-zero-conv", "coupling", _coupling(net=nets.zero_conv()), shape=IMAGE
    ),
    Case("reverse", "reverse", jflow.reverse),
    Case("reverse-rows", "reverse", lambda: jflow.reverse(-3), shape=IMAGE),
    Case("roll", "roll", jflow.roll),
    Case("roll-places", "roll", lambda: jflow.roll(-2), shape=IMAGE),
    Case("permutation", "permutation", lambda: jflow.permutation([2, 0, 4, 1, 3])),
    Case(
        "permutation-columns",
        "permutation",
        lambda: jflow.permutation([0, 3, 1, 4, 2, 5]),
        shape=(2, 6),
    ),
    Case("random_permutation", "random_permutation", jflow.random_permutation),
    *(
        Case(
            f"invertible_linear-{kind}-{len(shape)}",
            "invertible_linear",
            lambda kind=kind: jflow.invertible_linear(kind),
            shape=shape,
            f32=1e-4,
        )
        for kind in ("lu", "dense", "rotation")
        for shape in ((5,), IMAGE)
    ),
    Case("triangular_affine", "triangular_affine", jflow.triangular_affine, f32=1e-3),
    Case(
        "triangular_affine-unfitted",
        "triangular_affine",
        lambda: jflow.triangular_affine(fit=False),
        shape=(2, 3),
        identity=True,
        f32=1e-4,
    ),
    *(
        Case(
            f"whitening-{kind}",
            "whitening",
            lambda kind=kind: jflow.whitening(kind),
            f32=1e-3,
        )
        for kind in ("cholesky", "zca", "pca")
    ),
    Case("actnorm", "actnorm", jflow.actnorm, whitens=True),
    Case(
        "actnorm-image",
        "actnorm",
        lambda: jflow.actnorm(gain=3.0),
        shape=IMAGE,
        whitens=True,
        f32=1e-4,
    ),
    Case("batch_norm", "batch_norm", jflow.batch_norm, shape=IMAGE, whitens=True),
    Case("reshape", "reshape", lambda: jflow.reshape((2, 3), (3, 2)), shape=(2, 3)),
    Case("flatten", "flatten", lambda: jflow.flatten((2, 3)), shape=(2, 3)),
    *(
        Case(
            f"squeeze-{order}",
            "squeeze",
            lambda order=order: jflow.squeeze(order=order),
            shape=(2, 4, 2),
        )
        for order in ("channel_major", "block_major", "diagonal")
    ),
    Case("squeeze-3", "squeeze", lambda: jflow.squeeze(3), shape=(3, 6, 1)),
    *(
        Case(
            f"unsqueeze-{order}",
            "unsqueeze",
            lambda order=order: jflow.unsqueeze(order=order),
            shape=(1, 2, 8),
        )
        for order in ("channel_major", "block_major", "diagonal")
    ),
    Case("logit", "logit", jflow.logit, data=unit),
    Case("logit-mnist", "logit", lambda: jflow.logit(1e-6), data=unit),
    Case("rescale", "rescale", lambda: jflow.rescale(-1.0, 3.0), data=unit),
    Case(
        "dequantize",
        "dequantize",
        lambda: jflow.dequantize(3),
        data=pixels,
        integers=True,
    ),
    Case("training_noise", "training_noise", jflow.training_noise),
]

CASES += cases_autoregressive.CASES
CASES += cases_block.CASES
CASES += cases_splines.CASES
CASES += cases_bounds.CASES
CASES += cases_mixed.CASES
CASES += cases_classic.CASES
CASES += cases_monotone.CASES
