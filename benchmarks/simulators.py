"""Four tasks of sbibm: prior, simulator, and the exact posterior where there is one.

Lueckmann et al. 2021, "Benchmarking simulation-based inference", appendix T,
https://arxiv.org/abs/2101.04653.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Task(NamedTuple):
    """A model of data x given parameters theta.

    Attributes:
        name: sbibm's.
        dimension: of theta.
        bounds: the prior's support, as `jflow.models` take it; None for all of R^D.
        prior: `(key, n) -> (n, dimension)`.
        simulate: `(key, theta) -> x`, `(n, data)`.
        features: what a network is given of x.
        posterior: `(key, x, n) -> (n, dimension)` for one x, where it is known.
    """

    name: str
    dimension: int
    bounds: tuple[Any, Any] | None
    prior: Callable[[jax.Array, int], jax.Array]
    simulate: Callable[[jax.Array, jax.Array], jax.Array]
    features: Callable[[Any], Any]
    posterior: Callable[[jax.Array, jax.Array, int], jax.Array] | None = None


def two_moons() -> Task:
    """A crescent of radius 0.1, moved by theta so that two thetas fit every x."""

    def simulate(key, theta):
        angle_key, radius_key = jax.random.split(key)
        shape = theta.shape[:1]
        angle = jax.random.uniform(angle_key, shape, minval=-0.5, maxval=0.5) * math.pi
        radius = 0.1 + 0.01 * jax.random.normal(radius_key, shape)
        crescent = jnp.stack(
            [radius * jnp.cos(angle) + 0.25, radius * jnp.sin(angle)], axis=1
        )
        total, difference = theta[:, 0] + theta[:, 1], theta[:, 1] - theta[:, 0]
        return crescent + jnp.stack([-jnp.abs(total), difference], 1) / math.sqrt(2)

    return Task("two_moons", 2, (-1.0, 1.0), _box(2, 1.0), simulate, _same)


def slcp() -> Task:
    """Simple likelihood, complex posterior: four draws of a plane Gaussian."""

    def simulate(key, theta):
        noise = jax.random.normal(key, (theta.shape[0], 4, 2))
        first, second = theta[:, 2] ** 2, theta[:, 3] ** 2
        correlation = jnp.tanh(theta[:, 4])
        covariance = jnp.stack(
            [
                jnp.stack([first**2, correlation * first * second], axis=1),
                jnp.stack([correlation * first * second, second**2], axis=1),
            ],
            axis=1,
        )
        root = _plane_cholesky(covariance + 1e-6 * jnp.eye(2))
        x = theta[:, None, :2] + jnp.einsum("nij,nkj->nki", root, noise)
        return x.reshape(-1, 8)

    return Task("slcp", 5, (-3.0, 3.0), _box(5, 3.0), simulate, _same)


def gaussian_linear() -> Task:
    """theta ~ N(0, 0.1 I), x ~ N(theta, 0.1 I): the posterior is N(x / 2, 0.05 I)."""

    def prior(key, n):
        return math.sqrt(0.1) * jax.random.normal(key, (n, 10))

    def simulate(key, theta):
        return theta + math.sqrt(0.1) * jax.random.normal(key, theta.shape)

    def posterior(key, x, n):
        return x / 2 + math.sqrt(0.05) * jax.random.normal(key, (n, 10))

    return Task("gaussian_linear", 10, None, prior, simulate, _same, posterior)


def lotka_volterra(steps: int = 200) -> Task:
    """Predators and prey, seen at ten times with 10 % noise.

    The logarithms of both are integrated, which keeps them positive, by Runge and
    Kutta's fourth-order rule, `steps` of them from each time to the next. sbibm has an
    adaptive solver. Networks are given log x.
    """
    log_mean = np.array([-0.125, -3.0, -0.125, -3.0], np.float32)
    start = np.log(np.array([30.0, 1.0], np.float32))
    h = 2.1 / steps

    def prior(key, n):
        return jnp.exp(log_mean + 0.5 * jax.random.normal(key, (n, 4)))

    def log_populations(theta):
        birth, predation, death, growth = theta.T

        def slope(state):
            prey, predators = jnp.exp(state)
            return jnp.stack([birth - predation * predators, growth * prey - death])

        def step(state, _):
            k1 = slope(state)
            k2 = slope(state + h / 2 * k1)
            k3 = slope(state + h / 2 * k2)
            k4 = slope(state + h * k3)
            return state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

        def onwards(state, _):
            return jax.lax.scan(step, state, length=steps)[0], state

        initial = jnp.broadcast_to(start[:, None], (2, theta.shape[0]))
        states = jax.lax.scan(onwards, initial, length=10)[1]
        return states.transpose(2, 1, 0).reshape(-1, 20)

    def simulate(key, theta):
        # sbibm's limits, which its solver needs.
        clean = jnp.clip(log_populations(theta), math.log(1e-10), math.log(1e4))
        return jnp.exp(clean + 0.1 * jax.random.normal(key, clean.shape))

    return Task("lotka_volterra", 4, (0.0, math.inf), prior, simulate, jnp.log)


TASKS = {t.__name__: t for t in (two_moons, slcp, gaussian_linear, lotka_volterra)}


def _box(dimension, half_width):
    def prior(key, n):
        # Among so many draws some round to the edge itself, where log-densities end.
        inside = jax.random.uniform(key, (n, dimension), minval=-1.0)
        return half_width * jnp.clip(inside, -1 + 1e-6, 1 - 1e-6)

    return prior


def _plane_cholesky(covariance):
    """Of 2 x 2 matrices; written out, since a batch of tiny ones is slow otherwise."""
    a = jnp.sqrt(covariance[:, 0, 0])
    b = covariance[:, 1, 0] / a
    c = jnp.sqrt(jnp.maximum(covariance[:, 1, 1] - b**2, 0.0))
    zero = jnp.zeros_like(a)
    return jnp.stack([jnp.stack([a, zero], 1), jnp.stack([b, c], 1)], axis=1)


def _same(x):
    return x
