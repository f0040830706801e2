"""Linear maps against explicit matrices, scipy and numpy, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import scipy.linalg
from case import scramble

import jflow
from jflow.bijectors.matrices import triangular_inverse

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def _matrix(b, params, n):
    """What `x W` does to the rows of the identity."""
    return np.asarray(b.forward(params, jnp.eye(n))[0])


def _moved(b, n):
    return scramble(b.init(KEY, jnp.ones((2, n))), jax.random.key(1), 0.5)


@pytest.mark.parametrize(
    ("kind", "determinant"), [("cayley", 1), ("skew_expm", 1), ("householder", -1)]
)
def test_learned_rotations_are_orthogonal(kind, determinant):
    b = jflow.invertible_linear(kind)
    w = _matrix(b, _moved(b, 5), 5)
    np.testing.assert_allclose(w @ w.T, np.eye(5), atol=1e-13)
    np.testing.assert_allclose(np.linalg.det(w), determinant, atol=1e-12)


def test_matrices_are_those_of_their_factors():
    b = jflow.invertible_linear("expm")
    params = _moved(b, 5)
    np.testing.assert_allclose(_matrix(b, params, 5), scipy.linalg.expm(params["a"]))

    b = jflow.invertible_linear("svd")
    params = _moved(b, 5)
    singular = np.linalg.svd(_matrix(b, params, 5), compute_uv=False)
    np.testing.assert_allclose(singular, np.sort(np.exp(params["log_s"]))[::-1])

    b = jflow.invertible_linear("qr")
    params = _moved(b, 5)
    r = np.linalg.qr(_matrix(b, params, 5), mode="r")
    diagonal = np.exp(params["log_s"])
    np.testing.assert_allclose(np.abs(np.diagonal(r)), diagonal)


@pytest.mark.parametrize("n", [1, 2, 5, 48, 64, 65])
def test_triangular_inverses_are_numpys_and_so_are_their_derivatives(n):
    def random(seed):
        noise = jax.random.normal(jax.random.key(seed), (2, n, n))
        return jnp.tril(noise / n**0.5 + 2 * jnp.eye(n))

    a, change = random(0), random(1)
    found, moved = jax.jvp(triangular_inverse, (a,), (change,))
    expected = np.linalg.inv(a)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(moved, -expected @ change @ expected, atol=1e-11)
    pulled = jax.grad(lambda a: (triangular_inverse(a) * change).sum())(a)
    turned = np.swapaxes(expected, -1, -2)
    np.testing.assert_allclose(pulled, -turned @ change @ turned, atol=1e-11)


def test_a_zero_reflection_is_the_identity():
    b = jflow.invertible_linear("householder")
    params = {"q": jnp.zeros((3, 3))}
    np.testing.assert_array_equal(_matrix(b, params, 3), np.eye(3))
    gradient = jax.grad(lambda p: b.forward(p, jnp.ones((1, 3)))[0].sum())(params)
    assert np.isfinite(gradient["q"]).all()


@pytest.mark.parametrize("pull", [-50.0, -1.0, 3.0])
def test_low_rank_maps_are_regular_whatever_the_parameters(pull):
    b = jflow.low_rank_linear(3)
    params = _moved(b, 7)
    params["u"] = pull * params["w"] + 0.1 * params["u"]
    params["offset"]["raw"] = jnp.zeros(7)
    x = jax.random.normal(KEY, (4, 7))
    z, log_det = b.forward(params, x)
    w = _matrix(b, params, 7)
    np.testing.assert_allclose(z, x @ w, atol=1e-10)
    sign, expected = np.linalg.slogdet(w)
    assert sign == 1
    np.testing.assert_allclose(log_det, expected, atol=1e-7)
    np.testing.assert_allclose(b.inverse(params, z)[0], x, atol=1e-6)
    params["raw_scale"] = jnp.zeros(7)
    assert np.linalg.matrix_rank(_matrix(b, params, 7) - np.eye(7), tol=1e-9) == 3


def test_zero_raw_parameters_give_the_identity():
    b = jflow.low_rank_linear(2)
    x = jax.random.normal(KEY, (4, 3))
    params = jax.tree.map(jnp.zeros_like, b.init(KEY, x))
    z, log_det = b.forward(params, x)
    np.testing.assert_array_equal(z, x)
    np.testing.assert_array_equal(log_det, 0)
    gradient = jax.jit(jax.grad(lambda p: (b.forward(p, x)[0] ** 2).sum()))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_the_offset_depends_on_the_condition_alone():
    net = jflow.nets.mlp(4, activation=jnp.tanh, zero_last=False)
    b = jflow.invertible_linear("cayley", net=net)
    x = jax.random.normal(KEY, (3, 2, 2, 5))
    condition = jnp.arange(6.0).reshape(3, 2)
    params = b.init(KEY, x, condition)
    offset = b.forward(params, 0 * x, condition)[0]
    np.testing.assert_allclose(offset, jnp.broadcast_to(offset[:, :1, :1], x.shape))
    assert len(np.unique(offset[:, 0, 0, 0])) == 3
    straight = x @ _matrix(jflow.invertible_linear("cayley"), params, 5)
    z = b.forward(params, x, condition)[0]
    np.testing.assert_allclose(z, straight + offset, atol=1e-12)
    with pytest.raises(ValueError, match="without a condition"):
        b.forward(params, x)
    with pytest.raises(ValueError, match="expected"):
        b.forward(params, x, condition[:2])


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_dct_is_scipys(n):
    x = jax.random.normal(KEY, (3, n))
    z, _ = jflow.dct().forward((), x)
    np.testing.assert_allclose(z, scipy.fft.dct(x, norm="ortho"), atol=1e-12)


def test_haar_transforms_are_orthonormal_and_sort_by_band():
    w = _matrix(jflow.haar(), (), 6)
    np.testing.assert_allclose(w @ w.T, np.eye(6), atol=1e-15)

    x = np.asarray(jax.random.normal(KEY, (2, 4, 6, 3)))
    z, _ = jflow.haar_squeeze().forward((), x)
    assert z.shape == (2, 2, 3, 12)
    a, b, c, d = (x[:, i::2, j::2] for i in (0, 1) for j in (0, 1))
    bands = [a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d]
    np.testing.assert_allclose(z, np.concatenate(bands, -1) / 2, atol=1e-14)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: jflow.invertible_linear("lr"), ValueError, "kind"),
        (lambda: jflow.invertible_linear(net=3), TypeError, "out_features"),
        (lambda: jflow.low_rank_linear(0), ValueError, "rank"),
        (lambda: jflow.reverse("rows"), TypeError, "axis"),
        (lambda: jflow.reverse(0), ValueError, "from the end"),
        (lambda: jflow.reverse(-2).forward((), jnp.ones((2, 3))), ValueError, "axis"),
        (lambda: jflow.haar().init(KEY, jnp.ones((1, 3))), ValueError, "even"),
        (
            lambda: jflow.haar_squeeze().inverse((), jnp.ones((1, 2, 2, 3))),
            ValueError,
            "divisible",
        ),
    ],
)
def test_bad_arguments_are_named(build, error, words):
    with pytest.raises(error, match=words):
        build()


def test_lu_rows_that_tie_keep_their_order():
    """As scores do that were rounded to a short dtype: W stays regular."""
    b, x = jflow.invertible_linear(), jax.random.normal(KEY, (4, 6))
    params = b.init(KEY, x)
    for scores in (jnp.zeros(6), jnp.array([2.0, 1.0, 2.0, 1.0, 0.0, 1.0])):
        params["fixed"]["rows"] = scores
        w = _matrix(b, params, 6)
        rows = jnp.argsort(jnp.argsort(scores))
        undone = b.inverse(params, b.forward(params, x)[0])[0]
        np.testing.assert_allclose(undone, x, atol=1e-5)
        params["fixed"]["rows"] = jnp.arange(6.0)
        np.testing.assert_allclose(w, _matrix(b, params, 6)[rows], atol=1e-12)
