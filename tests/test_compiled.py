"""What programs hold, read from their text: nothing nobody asked for, flat in depth."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest

import jflow
from jflow import models, nets, scalars

# Every constructor, by how deep it is and the event it is over.
DEEP = {
    "nice": ((6,), lambda n: models.nice((6,), bits=None, couplings=n, hidden=(8,))),
    "realnvp": ((6,), lambda n: models.realnvp((6,), couplings=n, hidden=(8,))),
    "glow": ((8, 8, 2), lambda n: models.glow((8, 8, 2), levels=2, depth=n, width=4)),
    "maf": ((6,), lambda n: models.maf((6,), layers=n, hidden=(8,))),
    "iaf": ((6,), lambda n: models.iaf((6,), layers=n, hidden=(8,))),
    "nsf": ((6,), lambda n: models.nsf((6,), layers=n, hidden=(8,), bins=3)),
    "planar_flow": ((6,), lambda n: models.planar_flow((6,), layers=n)),
    "sylvester_flow": ((6,), lambda n: models.sylvester_flow((6,), layers=n)),
    "circular_nsf": (
        (6,),
        lambda n: models.circular_nsf((6,), [0, 1], layers=n, hidden=(8,)),
    ),
    **{
        name: (
            (3,),
            partial(lambda name, n: getattr(models, name)((3,), layers=n), name),
        )
        for name in ("made", "naf", "umnn", "sos", "bpf", "bnaf", "gaussianization")
    },
}


def test_every_constructor_is_here():
    assert set(DEEP) == set(models.__all__)


@pytest.mark.parametrize("name", DEEP)
def test_a_gradients_program_does_not_grow_with_depth(name):
    shape, build = DEEP[name]
    x = jax.ShapeDtypeStruct((4, *shape), jnp.float32)

    def size(n):
        flow = build(n)
        params = jax.eval_shape(flow.init, jax.random.key(0), x)

        def loss(params, x):
            return flow.log_prob(params, x).mean()

        return str(jax.make_jaxpr(jax.grad(loss))(params, x)).count(" = ")

    sizes = {n: size(n) for n in (4, 16, 64)}
    assert sizes[16] == sizes[64]
    if name in ("nice", "realnvp"):
        # Up to 8 are written out, each adding the same; from 16 on the backward pass
        # computes them again.
        assert size(8) - size(6) == size(6) - sizes[4]
        assert size(9) == size(14) < sizes[4]
        assert sizes[16] < 1.5 * size(9)
    else:
        assert sizes[4] == sizes[16]


LAWS = {
    "affine": scalars.affine(),
    "spline": scalars.rational_quadratic_spline(3),
}


@pytest.mark.parametrize("law", LAWS)
def test_decoding_computes_no_log_det(law):
    """Neither the layers' logarithms nor the base's sums are in what is compiled."""
    layer = jflow.chain(jflow.actnorm(), jflow.coupling(LAWS[law], nets.mlp(4)))
    flow = jflow.flow(jflow.repeat(layer, 3), jflow.normal((4,)))
    x = jax.ShapeDtypeStruct((8, 4), jnp.float32)
    params = jax.eval_shape(flow.init, jax.random.key(0), x)

    def logarithms(function):
        text = function.lower(params, x).compile().as_text()
        return len(re.findall(r"\b(?:log|log-plus-one)\(", text))

    assert logarithms(flow.decode) == 0
    if law == "spline":
        assert logarithms(flow.log_prob) > 0


@pytest.mark.parametrize("pass_", ["forward", "inverse"])
@pytest.mark.parametrize(
    "layers, operation",
    [
        ([jflow.reverse(), jflow.random_permutation(), jflow.roll()], "gather"),
        ([jflow.invertible_linear("dense"), jflow.reverse()], "dot_general"),
        ([jflow.roll(), *[jflow.invertible_linear()] * 3], "dot_general"),
    ],
)
def test_neighbouring_permutations_and_matrices_are_one_operation(
    layers, operation, pass_
):
    b, x = jflow.chain(*layers), jnp.ones((64, 5))
    program = str(jax.make_jaxpr(getattr(b, pass_))(b.init(jax.random.key(0), x), x))
    made = re.findall(r":f32\[64,5\] = (\w+)", program)
    assert [name for name in made if name not in ("jit", "pjit")] == [operation]


def test_loops_with_exponentials_slice_no_parameters():
    """XLA vectorises no exponential in a loop that slices a scan's biases itself."""
    flow = models.realnvp((4,), couplings=3, hidden=(4,), norm=None)
    x = jax.ShapeDtypeStruct((8, 4), jnp.float32)
    params = jax.eval_shape(flow.init, jax.random.key(0), x)
    text = flow.decode.lower(params, x).compile().as_text()
    loops = [f for f in text.split("\n\n") if " exponential(" in f]
    assert loops and not any("dynamic-slice(" in f for f in loops)


@pytest.mark.parametrize("width", [32, 48])
def test_a_rectifiers_argument_is_not_kept_for_the_backward_pass(width):
    """One array for each of 8 layers and what one layer needs, not two for each."""
    x, kernels = jnp.ones((256, width)), [jnp.ones((width, width))] * 8

    def loss(kernels, x):
        for kernel in kernels:
            x = nets.relu(x @ kernel + 1)
        return (x**2).sum()

    program = jax.jit(jax.grad(loss)).lower(kernels, x).compile()
    assert program.memory_analysis().temp_size_in_bytes <= 10 * x.nbytes


@pytest.mark.parametrize("law", [scalars.affine(), scalars.affine("sigmoid")])
def test_cotangents_of_a_couplings_parts_are_not_padded(law):
    # XLA's CPU back end does not vectorise sums of padded parts.
    b = jflow.chain(jflow.coupling(law, nets.mlp(8)), jflow.roll())
    x = jnp.ones((4, 6))
    params = b.init(jax.random.key(0), x)

    def loss(params, x):
        z, log_det = b.forward(params, x)
        return (z**2).sum() + log_det.sum()

    program = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(params, x))
    assert re.search(r"\bconcatenate\b", program)
    assert not re.search(r"\bpad\b", program)


@pytest.mark.parametrize("build", [partial(models.realnvp, couplings=9), models.maf])
def test_a_scan_keeps_no_signs_of_hidden_units(build):
    flow, x = build((6,), hidden=(16,)), jax.ShapeDtypeStruct((4, 6), jnp.float32)
    params = jax.eval_shape(flow.init, jax.random.key(0), x)

    def loss(params, x):
        return flow.log_prob(params, x).mean()

    program = str(jax.make_jaxpr(jax.grad(loss))(params, x))
    assert re.search(r"f32\[\d,4,16\]", program)
    assert not re.search(r"bool\[\d,4,16\]", program)


def test_the_backward_pass_of_a_spline_searches_no_bin():
    law = scalars.rational_quadratic_spline(8)
    raw, x = jnp.zeros((4, law.size)), jnp.ones(4)

    def loss(raw, x):
        return sum(out.sum() for out in law.forward(raw, x))

    def comparisons(function):
        return len(re.findall(r"= ge\b", str(jax.make_jaxpr(function)(raw, x))))

    # Seven knots, and the box's end, which both passes ask for.
    assert comparisons(loss) == 8
    assert comparisons(jax.grad(loss, argnums=(0, 1))) == 9
