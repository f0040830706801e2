"""What every bijector must satisfy, tested on one of the user's own.

The same promises as the library's own layers are held to by `tests/test_contract.py`:
the passes undo each other, log-dets are those of autodiff's Jacobian, gradients are
finite, and nothing depends on how the passes are run.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import (
    Array,
    Bijector,
    Condition,
    Params,
    check_bijector_type,
    log_det_dtype,
)

# Multiples of the batch at which gradients must be finite, though values need not be.
FAR = (1.0, -30.0, 1e3, -1e6)
JACOBIANS = 2

Finding = tuple[bool, str]


class BijectorReport(NamedTuple):
    """What `check_bijector` found; `print(report)` shows it.

    Attributes:
        ok: whether every check passed.
        lines: one per check, each beginning with `ok` or `FAIL`.
    """

    ok: bool
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)


class _Subject(NamedTuple):
    bijector: Bijector
    params: Params
    x: Array
    condition: Condition
    key: Array | None
    tolerance: float


def check_bijector(
    bijector: Bijector,
    params: Params,
    x: Array,
    condition: Condition = None,
    *,
    key: Array | None = None,
    tolerance: float | None = None,
    scramble: float = 0.1,
) -> BijectorReport:
    """Hold a bijector to the protocol, and say in words what it does not keep.

    Checked are: parameters are floating arrays; `init` is deterministic and runs under
    `jit`; shapes and dtypes; the passes undo each other both ways; log-dets cancel and
    equal `log |det J|` of autodiff's Jacobian `J` in nats; gradients are finite, far
    outside of the data too; `jit` changes nothing; an example's result does not depend
    on the rest of its batch; the condition reaches outputs.

    Args:
        bijector: the one to test.
        params: its parameters, from `bijector.init`.
        x: a batch `(N, *event)` of data it is meant for; the Jacobian of two examples
            is formed, D^2 numbers each for events of size D.
        condition: of the batch, as the bijector takes it.
        key: for stochastic layers.
        tolerance: of the round trip, relative to 1 + the largest entry; ten times as
            much of log-dets, relative to 1 + their size. By default 1e-4 for float32
            and 1e-9 for float64.
        scramble: learned parameters are first moved by normal noise of this standard
            deviation, since a start at the identity hides mistakes. 0 leaves them.

    Returns:
        A `BijectorReport`: `ok`, and a line for each check.

    Raises:
        TypeError: `bijector` is not a Bijector.
        ValueError: `x` is not a batch, or `scramble` or `tolerance` is negative.

    Example:
        >>> import jflow
        >>> b, x = jflow.actnorm(), jax.random.normal(jax.random.key(0), (8, 2))
        >>> report = check_bijector(b, b.init(jax.random.key(1), x), x)
        >>> report.ok
        True
    """
    check_bijector_type("check_bijector", bijector)
    x = jnp.asarray(x)
    if x.ndim < 2 or x.shape[0] == 0:
        raise ValueError(
            f"check_bijector: expected x (N, *event) with N >= 1, got shape {x.shape}."
        )
    if tolerance is None:
        tolerance = 1e-9 if x.dtype == jnp.float64 else 1e-4
    if scramble < 0 or tolerance < 0:
        raise ValueError(
            f"check_bijector: scramble={scramble} and tolerance={tolerance} must not "
            "be negative."
        )
    found = _run("parameters", lambda: _parameters(params))
    if found[-1][0]:
        moved = _moved(params, scramble) if scramble else params
        subject = _Subject(bijector, moved, x, condition, key, tolerance)
        found += _run("init", lambda: _init(subject, params))
        shapes = _run("shapes", lambda: _shapes(subject))
        found += shapes
        if all(ok for ok, _ in shapes):
            for name, check in CHECKS.items():
                found += _run(name, lambda check=check: check(subject))
    lines = tuple(f"{'ok  ' if ok else 'FAIL'}  {line}" for ok, line in found)
    return BijectorReport(all(ok for ok, _ in found), lines)


def _run(name: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """A check's findings under its name; an exception is one of them."""
    findings = []
    try:
        for ok, line in check():
            findings.append((ok, f"{name}: {line}"))
    # Whatever a user's own code raises is what the report is for.
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        findings.append((False, f"{name}: raised {type(error).__name__}: {first}"))
    return findings


def _moved(params, scale):
    """Learned parameters away from where they start."""
    # `jflow.train` imports the diagnostics that this is one of.
    from jflow.train.labels import LEARNED, label_params

    leaves, treedef = jax.tree.flatten(params)
    labels = jax.tree.leaves(label_params(params))
    keys = jax.random.split(jax.random.key(0), max(len(leaves), 1))
    moved = [
        a + scale * jax.random.normal(k, a.shape, a.dtype) if label == LEARNED else a
        for a, label, k in zip(map(jnp.asarray, leaves), labels, keys, strict=False)
    ]
    return jax.tree.unflatten(treedef, moved)


# --- the checks -----------------------------------------------------------------------


def _parameters(params):
    wrong = [
        f"params{jax.tree_util.keystr(path)} is {jnp.result_type(leaf)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    ]
    if wrong:
        yield (
            False,
            f"{'; '.join(wrong)}, where all are floating-point arrays: close over what "
            "is static, and keep random choices as floats under a key `fixed`",
        )
    else:
        yield True, f"{len(jax.tree.leaves(params))} floating-point arrays"


def _init(s, params):
    init = jax.jit(s.bijector.init)
    key = jax.random.key(1)
    first, again = (init(key, s.x, s.condition) for _ in range(2))
    eager = s.bijector.init(key, s.x, s.condition)
    if jax.tree.structure(first) != jax.tree.structure(params):
        yield (
            False,
            f"makes {jax.tree.structure(first)}, and the params given are "
            f"{jax.tree.structure(params)}",
        )
        return
    equal = all(map(_identical, jax.tree.leaves(first), jax.tree.leaves(again)))
    yield equal, "the same key and batch give the same parameters" + _not(equal)
    gap = max(map(_gap, jax.tree.leaves(first), jax.tree.leaves(eager)), default=0.0)
    close = gap <= 1e-3
    yield close, f"under jit it gives what it gives without, to {gap:.1e}" + _not(close)


def _shapes(s):
    z, log_det = jax.eval_shape(s.bijector.forward, s.params, s.x, s.condition, s.key)
    x, back = jax.eval_shape(s.bijector.inverse, s.params, z, s.condition, s.key)
    n, size = s.x.shape[0], s.x.size
    good = z.shape[:1] == (n,) and np.prod(z.shape) == size
    yield good, f"forward maps {s.x.shape} to {z.shape}" + _not(good, "the same size")
    good = x.shape == s.x.shape
    yield good, f"inverse gives back {x.shape}" + _not(good, f"{s.x.shape}")
    least = log_det_dtype(s.x) if _floating(s.x) else jnp.dtype(jnp.float32)
    for name, found in (("forward", log_det), ("inverse", back)):
        good = found.shape == (n,) and found.dtype == least
        wanted = f"({n},) of {least}: one number per example"
        yield (
            good,
            f"{name}'s log_det is {found.shape} of {found.dtype}" + _not(good, wanted),
        )


def _round_trip(s):
    z, there = _forward(s)
    x, back = _inverse(s, z)
    again = jax.jit(s.bijector.forward)(s.params, x, s.condition, s.key)[0]
    finite = all(bool(jnp.isfinite(a).all()) for a in (z, there, x, back))
    yield finite, "values and log-dets are finite on the batch" + _not(finite)
    for text, found, wanted in (
        ("inverse(forward(x)) is x", x, s.x),
        *([("forward(inverse(z)) is z", again, z)] if s.key is None else []),
    ):
        gap, bound = _gap(found, wanted), s.tolerance * (1 + _largest(wanted))
        good = gap <= bound
        yield good, f"{text} to {gap:.1e} (bound {bound:.1e})" + _not(good)
    gap = _gap(there, -back)
    bound = 10 * s.tolerance * (1 + _largest(there))
    good = gap <= bound
    yield good, f"the two log-dets cancel to {gap:.1e} (bound {bound:.1e})" + _not(good)


def _jacobian(s):
    if not _floating(s.x):
        yield True, f"none to compare with, since the data are {s.x.dtype}"
        return
    z, there = _forward(s)
    back = _inverse(s, z)[1]
    for name, apply, start, found in (
        ("forward", s.bijector.forward, s.x, there),
        ("inverse", s.bijector.inverse, z, back),
    ):
        truth = jax.jit(
            lambda a, apply=apply: _jacobian_log_dets(
                apply, s.params, a, s.condition, s.key
            )
        )(start)
        found = found[: len(truth)]
        gap, bound = _gap(found, truth), 10 * s.tolerance * (1 + _largest(truth))
        good = gap <= bound
        text = f"{name}'s log_det is autodiff's log |det J| to {gap:.1e}"
        if not good:
            opposite = _gap(found, -truth) <= bound
            text += (
                f" (bound {bound:.1e}): NOT SO; log_det says {float(found[0]):.4g}, "
                f"autodiff {float(truth[0]):.4g}"
                + (", the sign is the other" if opposite else "")
            )
        yield good, text


def _gradients(s):
    def total(apply):
        def loss(params, a):
            y, log_det = apply(params, a, s.condition, s.key)
            inside = jnp.where(jnp.isfinite(log_det), log_det, 0.0)
            return jnp.tanh(y * 1e-6).sum() + inside.sum()

        return jax.jit(jax.grad(loss, argnums=(0, 1) if _floating(s.x) else (0,)))

    forward, inverse = total(s.bijector.forward), total(s.bijector.inverse)
    z = _forward(s)[0]
    where = [(f"forward at {far:g} x", forward, s.x * far) for far in FAR]
    if not _floating(s.x):
        where = [("forward", forward, s.x)]
    elif _floating(z):
        where.append(("inverse at the latents", inverse, z))
    bad = []
    for name, gradient, at in where:
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(s.params, at)):
            if not bool(jnp.isfinite(leaf).all()):
                bad.append(f"{name}: {_argument(path)}")
                break
    if bad:
        yield False, f"not finite for {'; '.join(bad)}"
    else:
        names = ", ".join(name for name, *_ in where)
        yield True, f"finite for params and arguments ({names})"


def _runs_alike(s):
    jitted, eager = _forward(s), s.bijector.forward(s.params, s.x, s.condition, s.key)
    gap = max(map(_gap, jitted, eager))
    bound = 10 * s.tolerance * (1 + max(map(_largest, jitted)))
    good = gap <= bound
    yield good, f"with and without jit differ by {gap:.1e}" + _not(good, f"{bound:.1e}")
    if s.key is not None:  # Noise depends on the shape that it is drawn for.
        return
    x, condition = jax.tree.map(lambda a: a[:1], (s.x, s.condition))
    alone = jax.jit(s.bijector.forward)(s.params, x, condition)
    gap = max(_gap(a, b[:1]) for a, b in zip(alone, jitted, strict=True))
    good = gap <= bound
    yield (
        good,
        f"an example alone and in its batch differ by {gap:.1e}"
        + _not(good, f"{bound:.1e}"),
    )


def _reach(s):
    if s.condition is None:
        return
    moved = jax.tree.map(_another, s.condition)
    if all(map(_identical, jax.tree.leaves(moved), jax.tree.leaves(s.condition))):
        yield True, "not checked, since all examples have the same"
        return
    z = _forward(s)[0]
    other = jax.jit(s.bijector.forward)(s.params, s.x, moved, s.key)[0]
    share = float((z != other).any(axis=0).mean())
    good = share > 0
    yield good, f"reaches {share:.0%} of the outputs" + _not(good, "some")


CHECKS = {
    "round trip": _round_trip,
    "Jacobian": _jacobian,
    "gradients": _gradients,
    "agreement": _runs_alike,
    "condition": _reach,
}


# --- what they share ------------------------------------------------------------------


def _forward(s):
    return jax.jit(s.bijector.forward)(s.params, s.x, s.condition, s.key)


def _inverse(s, z):
    return jax.jit(s.bijector.inverse)(s.params, z, s.condition, s.key)


def _jacobian_log_dets(apply, params, x, condition, key):
    """`log |det J|` of one pass at the first examples, by autodiff."""

    def one(example):
        example, condition = example

        def image(flat):
            batch = flat.reshape(1, *x.shape[1:])
            return apply(params, batch, condition, key)[0].reshape(-1)

        # Reverse mode, since a reversible layer has no other.
        return jnp.linalg.slogdet(jax.jacrev(image)(example.reshape(-1)))[1]

    # One after the other: compiled once, and a batch of one is what a pass is given.
    first = jax.tree.map(lambda a: a[:JACOBIANS, None], (x, condition))
    return jax.lax.map(one, first)


def _another(leaf):
    """A condition that differs from the one given: shifted, or labels dealt anew."""
    leaf = jnp.asarray(leaf)
    return leaf + 0.5 if _floating(leaf) else jnp.roll(leaf, 1, axis=0)


def _not(good, wanted=None):
    if good:
        return ""
    return ": NOT SO" if wanted is None else f": NOT SO, expected {wanted}"


def _argument(path):
    """A gradient's path by the name of what it is the gradient of."""
    return ("params", "the argument")[path[0].idx] + jax.tree_util.keystr(path[1:])


def _gap(a, b):
    """The largest difference; infinite where one is not finite and they differ."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):
        gaps = np.where(a == b, 0.0, np.abs(a - b))
    return float(np.where(np.isnan(gaps), np.inf, gaps).max(initial=0.0))


def _largest(a):
    a = np.abs(np.asarray(a, np.float64))
    return float(a[np.isfinite(a)].max(initial=0.0))


def _identical(a, b):
    return np.array_equal(a, b)


def _floating(leaf):
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
