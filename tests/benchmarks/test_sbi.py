"""`benchmarks/sbi.py` end to end, tiny; the simulators and the metric against truth."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import sbi
import simulators

import jflow

KEY = jax.random.key(0)


def test_a_quick_run_leaves_a_table_pictures_and_metrics(tmp_path, capsys):
    options = ["--quick", "--out", f"{tmp_path}/out", "--results", f"{tmp_path}/m.json"]
    metrics = sbi.main(["gaussian_linear", "--model", "realnvp", *options])
    assert json.loads((tmp_path / "m.json").read_text()) == metrics
    results = metrics["results"]
    assert results["steps"] == 8 and len(results["c2st"]) == 1
    assert 0.4 < results["c2st_mean"] <= 1.0
    assert -1 <= results["coverage_error"] <= 1
    assert {"machine", "versions", "commit", "command", "timing"} <= set(metrics)
    assert f"{results['c2st_mean']:.4f}" in capsys.readouterr().out
    made = sorted(path.stem for path in (tmp_path / "out").glob("*.png"))
    assert made == ["coverage", "posterior", "ranks", "reference", "training"]


def test_the_reference_is_read_from_disk_or_exact(tmp_path):
    options = sbi.parse(["gaussian_linear", "--observations", "2", "--samples", "2000"])
    exact = sbi.load(simulators.gaussian_linear(), options)
    assert exact.observations.shape == (2, 10)
    expected = exact.observations / 2
    np.testing.assert_allclose(exact.posteriors.mean(axis=1), expected, atol=0.03)
    np.testing.assert_allclose(exact.posteriors.var(axis=1), 0.05, atol=0.008)
    np.savez(
        tmp_path / "gaussian_linear.npz",
        observation=exact.observations,
        reference_posterior=exact.posteriors,
    )
    options.data, options.samples = str(tmp_path), 50
    read = sbi.load(simulators.gaussian_linear(), options)
    np.testing.assert_array_equal(read.posteriors, exact.posteriors[:, :50])
    options.samples = 3_000
    with pytest.raises(SystemExit, match="ask for no more"):
        sbi.load(simulators.gaussian_linear(), options)
    with pytest.raises(SystemExit, match="--data"):
        sbi.load(simulators.slcp(), sbi.parse(["slcp"]))


def test_the_classifier_tells_what_can_be_told():
    a, b = np.random.default_rng(0).normal(size=(2, 400, 1))
    assert abs(sbi.c2st(a, b) - 0.5) < 0.08
    # The best accuracy for unit normals two deviations apart is Phi(1) = 0.841.
    assert abs(sbi.c2st(a, b + 2) - 0.841) < 0.05
    assert sbi.c2st(a, np.full_like(b, np.nan)) == 1.0


def test_samples_outside_the_support_are_drawn_anew():
    flow = jflow.flow(jflow.identity(), jflow.normal((1,)))
    params = flow.init(KEY, jnp.zeros((2, 1)))
    inside = sbi.within(flow, (-0.5, 2.0))
    x, log_prob = inside.sample_and_log_prob(params, KEY, 2_000)
    assert scipy.stats.kstest(x[:, 0], scipy.stats.truncnorm(-0.5, 2.0).cdf)[1] > 0.01
    np.testing.assert_allclose(log_prob, flow.log_prob(params, x), atol=1e-6)
    np.testing.assert_array_equal(inside.sample(params, KEY, 2_000), x)
    # A support that is never met ends, too.
    nowhere = sbi.within(flow, (50.0, 51.0), rounds=3)
    assert nowhere.sample(params, KEY, 4).shape == (4, 1)


def test_a_task_has_its_recipe_and_what_is_given_goes_before_it():
    options = sbi.parse(["two_moons", "--layers", "3"])
    assert (options.support, options.layers, options.model) == ("reject", 3, "nsf")
    assert sbi.parse(["two_moons", "--support", "map"]).support == "map"


# --- simulators -----------------------------------------------------------------------


@pytest.mark.parametrize("name", list(simulators.TASKS))
def test_priors_and_data_have_their_shapes_and_support(name):
    task = simulators.TASKS[name]()
    theta = task.prior(KEY, 64)
    x = jax.jit(task.simulate)(KEY, theta)
    data = {"two_moons": 2, "slcp": 8, "gaussian_linear": 10, "lotka_volterra": 20}
    assert theta.shape == (64, task.dimension) and x.shape == (64, data[name])
    assert bool(jnp.isfinite(task.features(x)).all())
    low, high = task.bounds or (-np.inf, np.inf)
    assert bool(((theta > low) & (theta < high)).all())


def test_the_moons_are_crescents_about_both_parameters():
    task = simulators.two_moons()
    theta = task.prior(KEY, 4_000)
    x = np.asarray(task.simulate(KEY, theta))
    np.testing.assert_allclose(x, task.simulate(KEY, -theta[:, ::-1]), atol=1e-6)
    first, second = np.asarray(theta).T
    x = x + np.stack([abs(first + second), first - second], axis=1) / np.sqrt(2)
    crescent = x - [0.25, 0.0]
    radius = np.linalg.norm(crescent, axis=1)
    assert abs(radius.mean() - 0.1) < 1e-3 and abs(radius.std() - 0.01) < 1e-3
    angle = np.arctan2(crescent[:, 1], crescent[:, 0])
    assert abs(angle.mean()) < 0.05 and abs(angle.std() - np.pi / 12**0.5) < 0.03


def test_slcps_draws_have_their_mean_and_covariance():
    theta = jnp.array([0.7, -2.0, -1.2, 0.8, 0.9])
    x = simulators.slcp().simulate(KEY, jnp.tile(theta, (5_000, 1))).reshape(-1, 2)
    np.testing.assert_allclose(x.mean(axis=0), theta[:2], atol=0.04)
    s1, s2, rho = 1.44, 0.64, np.tanh(0.9)
    expected = np.array([[s1**2, rho * s1 * s2], [rho * s1 * s2, s2**2]])
    np.testing.assert_allclose(np.cov(x.T), expected, atol=0.06)


def test_lotka_volterra_is_solved_as_scipy_solves_it():
    task = simulators.lotka_volterra()
    theta = np.asarray(task.prior(KEY, 6), np.float64)

    def slope(t, state, a, b, c, d):
        prey, predators = state
        return [a * prey - b * prey * predators, d * prey * predators - c * predators]

    times = 2.1 * np.arange(10)
    clean = [
        scipy.integrate.solve_ivp(
            slope,
            (0, times[-1]),
            (30.0, 1.0),
            "LSODA",
            times,
            args=p,
            rtol=1e-9,
            atol=1e-12,
        ).y.ravel()
        for p in theta
    ]
    many = jnp.asarray(np.repeat(theta, 500, axis=0), jnp.float32)
    log_x = np.log(jax.jit(task.simulate)(KEY, many)).reshape(6, 500, 20)
    expected = np.log(np.clip(clean, 1e-10, 1e4))
    np.testing.assert_allclose(log_x.mean(axis=1), expected, atol=0.02)
    np.testing.assert_allclose(log_x.std(axis=1), 0.1, atol=0.015)
