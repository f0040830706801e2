"""MAF, IAF and NSF: normalised, invertible, conditional, bounded, trainable."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import scramble
from vector_models import (
    check_density_between_bounds,
    check_one_dimension_and_training,
)

from jflow.models import iaf, maf, nsf

KEY = jax.random.key(0)
MODELS = {
    "maf": lambda d=2, **kw: maf((d,), layers=2, hidden=(12,), **kw),
    "iaf": lambda d=2, **kw: iaf((d,), layers=2, hidden=(12,), **kw),
    "nsf": lambda d=2, **kw: nsf((d,), layers=2, hidden=(12,), bins=4, **kw),
    "nsf-ar": lambda d=2, **kw: nsf(
        (d,), layers=2, hidden=(12,), bins=4, autoregressive_layers=True, **kw
    ),
}
every = pytest.mark.parametrize("name", MODELS)


@every
def test_densities_with_a_condition_integrate_to_one_between_bounds(name):
    check_density_between_bounds(MODELS[name])


@every
def test_one_dimension_and_training(name):
    check_one_dimension_and_training(MODELS[name])


# Residual blocks need two layers.
TWO = {"maf-two": lambda d, **kw: maf((d,), layers=1, hidden=(8, 8), **kw)}


@functools.cache
def _outputs(name, **options):
    f, x = (MODELS | TWO)[name](d=3, **options), jax.random.normal(KEY, (16, 3))
    return f.log_prob(scramble(f.init(KEY, x), jax.random.key(1), 0.2), x)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("maf-two", {"residual": True}),
        ("maf", {"norm": "batch_norm"}),
        ("maf", {"mixing": "shuffle"}),
        ("maf", {"scale": "tanh"}),
        ("iaf", {"activation": jnp.tanh}),
        ("nsf", {"bound": 2.0}),
        ("nsf", {"parametrisation": "softmax"}),
        ("nsf", {"autoregressive_layers": True}),
    ],
)
def test_options_change_the_output(name, options):
    assert not np.array_equal(_outputs(name), _outputs(name, **options))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: maf((2, 2)), "flatten"),
        (lambda: maf((2,), layers=0), "layers"),
        (lambda: maf((2,), mixing="swap"), "mixing"),
        (lambda: maf((2,), hidden=()), "widths"),
        (lambda: iaf((2,), scale="relu"), "scale"),
        (lambda: nsf((2,), bins=0), "bins"),
        (lambda: nsf((2,), bounds=(1.0, 0.0)), "below"),
    ],
)
def test_unusable_arguments_are_refused_when_built(build, words):
    with pytest.raises(ValueError, match=words):
        build()
