"""Models whose laws are monotone networks, polynomials and mixtures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import scramble
from vector_models import check_density_between_bounds, check_one_dimension_and_training

import jflow
from jflow.models import bnaf, bpf, gaussianization, made, maf, naf, sos, umnn

KEY = jax.random.key(0)
SMALL = {"layers": 2, "hidden": (12,)}
MODELS = {
    "made": lambda d=2, **kw: made((d,), hidden=(12,), **kw),
    "made-mog": lambda d=2, **kw: made((d,), components=3, hidden=(12,), **kw),
    "naf": lambda d=2, **kw: naf((d,), **{"units": 3} | SMALL | kw),
    "umnn": lambda d=2, **kw: umnn((d,), **{"units": 3, "nodes": 16} | SMALL | kw),
    "sos": lambda d=2, **kw: sos((d,), **{"degree": 2, "terms": 2} | SMALL | kw),
    "bpf": lambda d=2, **kw: bpf((d,), **{"degree": 5} | SMALL | kw),
    "bnaf": lambda d=2, **kw: bnaf((d,), **{"layers": 2, "hidden": (4,)} | kw),
    "gaussianization": lambda d=2, **kw: gaussianization(
        (d,), **{"components": 4} | SMALL | kw
    ),
}
every = pytest.mark.parametrize("name", MODELS)


@every
def test_densities_with_a_condition_integrate_to_one_between_bounds(name):
    # At 0.2 tails of NAF and UMNN have slope 0.2, and MADE's normals are as wide: some
    # lies nearer to a bound than float64 ends (all is found without the bounds).
    wide = name in ("made", "naf", "umnn")
    check_density_between_bounds(MODELS[name], 0.1 if wide else 0.2)


@every
def test_one_dimension_and_training(name):
    check_one_dimension_and_training(MODELS[name])


@pytest.mark.parametrize("name", ["made-mog", "naf", "umnn", "sos", "bpf"])
def test_strategies_agree_with_the_sequential_one(name):
    with jax.enable_x64(True):
        x = jax.random.normal(KEY, (8, 3), float)
        params = scramble(MODELS[name](d=3).init(KEY, x), jax.random.key(1), 0.2)

        def decoded(inverse):
            return MODELS[name](d=3, inverse=inverse).decode(params, x)

        expected = decoded("sequential")
        for inverse in ("incremental", "jacobi"):
            np.testing.assert_allclose(decoded(inverse), expected, atol=1e-11)


def test_a_mixture_made_of_one_dimension_is_that_mixture():
    """Against the density of the mixture that the network's bias describes."""
    f = made((1,), components=3, hidden=(4,))
    x = jax.random.normal(KEY, (32, 1))
    params = scramble(f.init(KEY, x), jax.random.key(1), 0.5)
    front, stack = params["bijector"]["bijector"]
    # Nothing comes before the one dimension: the network's output is constant.
    first, last = jax.tree.map(lambda a: a[0], stack[0]["net"]["layers"])
    raw = np.maximum(first["bias"], 0.0) @ last["kernel"] + last["bias"]
    logits, means, scales = np.split(np.asarray(raw, np.float64), 3)
    gain = np.array([2 / 3, 1.0, 4 / 3])
    means, scales = means * gain, scales * gain[::-1]
    width = np.exp(scales / (1 + np.abs(scales) / np.log(1000.0)))
    weight = np.exp(logits) / np.exp(logits).sum()
    scale = np.exp(np.asarray(front["log_scale"], np.float64))
    v = (np.asarray(x, np.float64) + np.asarray(front["bias"])) * scale
    each = np.exp(-0.5 * ((v - means) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    expected = np.log((each * weight).sum(axis=1) * scale)
    np.testing.assert_allclose(f.log_prob(params, x), expected, atol=1e-4)


def test_gaussianization_starts_at_the_marginals():
    u = jax.random.normal(KEY, (512, 2))
    x = jnp.stack([jnp.exp(u[:, 0]), jnp.where(u[:, 1] > 0, 3.0, -3.0)], axis=1)
    x = x + 0.3 * jax.random.normal(jax.random.key(1), (512, 2))
    f = gaussianization((2,), layers=4, components=16)
    gaussian = jflow.flow(jflow.whitening(), jflow.normal((2,)))
    mean = [m.log_prob(m.init(KEY, x[:256]), x[256:]).mean() for m in (f, gaussian)]
    assert mean[0] > mean[1] + 0.8


@functools.cache
def _outputs(name, **options):
    f, x = MODELS[name](d=3, **options), jax.random.normal(KEY, (16, 3))
    return f.log_prob(scramble(f.init(KEY, x), jax.random.key(1), 0.2), x)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("made", {"components": 2}),
        ("made", {"passes": 1}),
        ("naf", {"depth": 2}),
        ("naf", {"mixing": "linear"}),
        ("umnn", {"nodes": 17}),
        ("umnn", {"bound": 1.0}),
        ("sos", {"terms": 3}),
        ("sos", {"bound": 1.0}),
        ("bpf", {"bound": 1.0}),
        ("bpf", {"norm": "actnorm"}),
        ("bnaf", {"residual": False}),
        ("gaussianization", {"rotation": "cayley"}),
    ],
)
def test_options_change_the_output(name, options):
    assert not np.array_equal(_outputs(name), _outputs(name, **options))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: made((2,), components=0), "components"),
        (lambda: maf((2,), passes=0), "passes"),
        (lambda: naf((2,), depth=4), "layers"),
        (lambda: naf((2, 2)), "naf: shape"),
        (lambda: umnn((2,), nodes=8), "nodes"),
        (lambda: sos((2,), degree=0), "degree"),
        (lambda: bpf((2,), layers=0), "bpf: layers"),
        (lambda: bnaf((2,), hidden=()), "hidden"),
        (lambda: bnaf((2,), hidden=(0,)), "hidden"),
        (lambda: gaussianization((2,), rotation="lu"), "rotation"),
        (lambda: gaussianization((2,), components=0), "components"),
    ],
)
def test_unusable_arguments_are_refused_when_built(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="widths"):
        naf((2,), widths=3)
