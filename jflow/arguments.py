"""What users hand to a flow, checked while it is traced: shapes and dtypes, no values.

Each message names the argument, what it is, and what to pass instead.
"""

import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import Array

# Examples in the batch for which `init` is evaluated, of which only shapes are kept:
# enough for layers that are fitted to a batch.
MANY = 1024


def as_batch(owner: str, name: str, x: Any) -> Array:
    """A batch `(N, *event)` of real numbers; integers become floats.

    Raises:
        TypeError: no array of real numbers.
        ValueError: no event axis, or no example.
    """
    try:
        x = jnp.asarray(x)
        real = not jnp.issubdtype(x.dtype, jnp.complexfloating)
    except (TypeError, ValueError):
        real = False
    if not real:
        raise TypeError(
            f"{owner}: {name} must be an array of real numbers, got {_kind(x)}; "
            "convert it first."
        )
    if x.ndim < 2 or x.shape[0] == 0:
        raise ValueError(
            f"{owner}: {name}: expected a batch (N, *event) with N >= 1, got shape "
            f"{x.shape}; add the batch axis with {name}[None], and an event axis with "
            f"{name}[:, None]."
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(jnp.result_type(float))
    return x


def broadcast_condition(owner: str, condition: Any, n: int) -> Any:
    """Every array of the condition over the `n` examples.

    Raises:
        ValueError: an array's axis 0 is neither `n` nor 1.
    """

    def leaf(c):
        c = jnp.asarray(c)
        if c.ndim == 0 or c.shape[0] not in (1, n):
            raise ValueError(
                f"{owner}: condition: axis 0 of every array must be the batch of {n} "
                f"(or 1, which is broadcast), got shape {c.shape}."
            )
        return jnp.broadcast_to(c, (n, *c.shape[1:]))

    return jax.tree.map(leaf, condition)


def check_key(owner: str, key: Any) -> None:
    """Raise TypeError where `key` is none of `jax.random`'s."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not (
        jnp.issubdtype(dtype, jax.dtypes.prng_key)
        or (dtype == jnp.uint32 and np.ndim(key) == 1)
    ):
        raise TypeError(
            f"{owner}: key is {_kind(key)}, not a random key; pass jax.random.key(0)."
        )


def typed_key(key: Array) -> Array:
    """The key as a typed one, also from `jax.random.PRNGKey`."""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    return jax.random.wrap_key_data(key)


def as_count(owner: str, name: str, value: Any) -> int:
    """The positive integer, or a TypeError or ValueError that names it."""
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{owner}: {name} must be an integer that is known when the function is "
            f"traced, got {_kind(value)}; close over it, or pass a Python int."
        ) from None
    if count < 1:
        raise ValueError(f"{owner}: {name} must be at least 1, got {count}.")
    return count


def check_dtype(owner: str, dtype: Any) -> None:
    """Raise ValueError for a network's dtype that JAX would silently narrow."""
    if dtype is not None and jax.dtypes.canonicalize_dtype(dtype) != jnp.dtype(dtype):
        raise ValueError(
            f"{owner}: dtype={jnp.dtype(dtype)} needs double precision, which is off; "
            'call jax.config.update("jax_enable_x64", True) first, or leave it out.'
        )


def cached(function: Callable) -> Callable:
    """The same result for the same arguments; ones without a hash are named."""
    memo = functools.lru_cache(maxsize=64)(function)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args, **options):
        try:
            return memo(*args, **options)
        except TypeError:
            for name, value in signature.bind(*args, **options).arguments.items():
                try:
                    hash(value)
                except TypeError:
                    raise TypeError(
                        f"{function.__name__}: {name}={_kind(value)} cannot be hashed, "
                        "so it could not be found again; pass a function, a tuple or a "
                        "number."
                    ) from None
            raise

    return call


def check_finite(owner: str, **trees: Any) -> None:
    """Raise ValueError for values that are not finite, where values are known."""
    for name, tree in trees.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if isinstance(leaf, jax.core.Tracer) or not _at_hand(leaf):
                continue
            # In the dtype that JAX will use, in which large doubles are infinite.
            with np.errstate(over="ignore"):
                used = np.asarray(leaf, jax.dtypes.canonicalize_dtype(leaf.dtype))
            bad = ~np.isfinite(used)
            if bad.any():
                place = [int(i) for i in np.argwhere(bad)[0]]
                raise ValueError(
                    f"{owner}: {name}{jax.tree_util.keystr(path)} holds {bad.sum()} "
                    f"values that are not finite as {used.dtype}, the first at "
                    f"{place}; drop or fill such examples, or rescale what is too "
                    "large."
                )


def parameter_check(
    init: Callable[..., Any],
) -> tuple[Callable[..., Any], Callable[..., None]]:
    """`init`, and a check: ValueError unless it makes such params.

    The check is `(owner, params, x, condition)`. What `init` made of a shape of event
    and condition is known; else it is evaluated for shapes alone, once for each.
    """
    known = {}

    def name(data):
        leaves, treedef = jax.tree.flatten(data)
        return treedef, tuple((a.shape[1:], jnp.result_type(a)) for a in leaves)

    def noted(key, x, condition):
        params = init(key, x, condition)
        known[name((x, condition))] = _shapes(params)
        return params

    def form(x, condition):
        data = x, condition
        key = name(data)
        if key not in known:
            spec = jax.tree.map(
                lambda a: jax.ShapeDtypeStruct((MANY, *a.shape[1:]), a.dtype), data
            )
            jax.eval_shape(lambda *data: noted(jax.random.key(0), *data), *spec)
        return known[key]

    def check(owner, params, x, condition):
        given = _shapes(params)
        try:
            made = form(x, condition)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{owner}: x with events {x.shape[1:]} and condition "
                f"{_described(condition)} do not fit this flow: {error}"
            ) from error
        if given == made:
            return
        lines = [f"only in params: {p}" for p in given if p not in made]
        lines += [f"not in params: {p}" for p in made if p not in given]
        lines += [
            f"params{p} is {given[p]}, not {made[p]}"
            for p in given
            if p in made and given[p] != made[p]
        ]
        raise ValueError(
            f"{owner}: params do not fit x with events {x.shape[1:]} and condition "
            f"{_described(condition)}; pass x and condition of the kind that init had, "
            "and this flow's own params.\n  " + "\n  ".join(lines[:5])
        )

    return noted, check


def _shapes(params):
    shapes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name, dtype = jax.tree_util.keystr(path), jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"params{name} is {dtype}, but parameters are floating-point arrays; "
                "close over what is static."
            )
        shapes[name] = jnp.shape(leaf)
    return shapes


def _described(condition):
    if condition is None:
        return None
    return jax.tree.map(lambda a: f"(N, {', '.join(map(str, a.shape[1:]))})", condition)


def _at_hand(leaf):
    """Whether this process has the values, and they are real numbers."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return False
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def _kind(value):
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{value.shape}"
    return repr(value)[:80]
