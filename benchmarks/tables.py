"""Tables of numbers for `tabular.py`, prepared as the papers do; nothing is downloaded.

The five sets of the MAF paper are read from the files of its own archive
(https://zenodo.org/records/1161203), and prepared as its code does (Papamakarios et al.
2017, appendix D, https://arxiv.org/abs/1705.07057).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Table(NamedTuple):
    """Examples of an unconditional density.

    Attributes:
        name: of the data set.
        train: `(N, ...)`, as stored.
        validation: the same, for choosing the parameters.
        test: `(N, D)`, float32, noise added already.
        enter: `(key, stored) -> (n, D)`: what a flow is given; draws noise where values
            are whole numbers.
        anomalies: `(N, D)` that a density should find unlikely, or None.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    enter: Callable[[jax.Array, Any], jax.Array]
    anomalies: np.ndarray | None = None


class Regression(NamedTuple):
    """Examples of a conditional density, and what is held out in each split.

    Attributes:
        name: of the data set.
        x: `(N, features)`, the condition.
        y: `(N, 1)`, in its own units.
        test_index: `(splits, n)`, rows.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    test_index: np.ndarray


def regression(name: str, data: str) -> Regression:
    """UCI data with the splits of Hernandez-Lobato & Adams 2015.

    `data` is a directory of .npz files with `x`, `y` and `test_index`. Where y is a
    whole number, noise of one unit's width is added to it: a density could else be as
    large as it likes there.
    """
    with np.load(_found(data, f"{name}.npz")) as arrays:
        x, y, test = arrays["x"], arrays["y"], arrays["test_index"]
    if (y == y.round()).all():
        y = y + np.random.default_rng(2).uniform(-0.5, 0.5, y.shape)
    return Regression(name, x.astype(np.float32), y[:, None].astype(np.float32), test)


def load(name: str, data: str) -> Table:
    """The table of that name, from the directory `data` or one below it."""
    return READERS[name](name, data)


# --- readers --------------------------------------------------------------------------


def _patches(name, data):
    """8 x 8 patches: noise added, the patch's mean taken off, the last pixel dropped.

    The test set's noise is fixed.
    """
    with np.load(_found(data, "bsds300_patches.npz")) as arrays:
        train, validation, test = (arrays[k] for k in ("train", "valid", "test"))

    def centred(pixels, xp):
        return (pixels - pixels.mean(axis=1, keepdims=True))[:, :-1].astype(xp.float32)

    def enter(key, patches):
        pixels = patches.reshape(-1, 64).astype(jnp.float32)
        return centred((pixels + jax.random.uniform(key, pixels.shape)) / 256, jnp)

    noise = np.random.default_rng(2).random((len(test), 64))
    fixed = centred((test.reshape(-1, 64) + noise) / 256, np)
    return Table(name, train, validation, fixed, enter)


def _labelled(name, data):
    """Normal examples and anomalies; whole numbers get uniform noise."""
    with np.load(_found(data, f"{name}.npz")) as arrays:
        parts = [arrays[k] for k in ("train", "valid", "test", "anomalies")]
    if not np.issubdtype(parts[0].dtype, np.integer):
        return Table(name, *parts[:3], _as_it_is, parts[3])

    def enter(key, counts):
        return counts + jax.random.uniform(key, counts.shape)

    rng = np.random.default_rng(2)
    test, anomalies = (
        (part + rng.random(part.shape)).astype(np.float32) for part in parts[2:]
    )
    return Table(name, *parts[:2], test, enter, anomalies)


def _power(name, data):
    """Household power: shuffled, date and reactive power dropped, noise added."""
    rng = np.random.RandomState(42)
    values = np.load(_found(data, "power/data.npy"))
    rng.shuffle(values)
    values = np.delete(values, [1, 3], axis=1)
    n = len(values)
    voltage = 0.01 * rng.rand(n, 1)
    intensity = 0.001 * rng.rand(n, 1)
    meters = rng.rand(n, 3)
    values = values + np.hstack([intensity, voltage, meters, np.zeros((n, 1))])
    return _tenths(name, values)


def _gas(name, data):
    """Gas sensors: one of every pair with a correlation above 0.98 dropped."""
    try:
        import pandas
    except ImportError:
        raise SystemExit("gas: the archive's file needs pandas to be read.") from None
    frame = pandas.read_pickle(_found(data, "gas/ethylene_CO.pickle"))
    values = frame.drop(columns=["Meth", "Eth", "Time"]).to_numpy(np.float64)
    while True:
        alike = (np.corrcoef(values.T) > 0.98).sum(axis=1)
        if not (alike > 1).any():
            break
        values = np.delete(values, np.flatnonzero(alike > 1)[0], axis=1)
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    return _tenths(name, values, standardise=False)


def _hepmass(name, data):
    """Particle collisions with signal; features that repeat a value often dropped."""
    train, test = (
        np.loadtxt(_found(data, f"hepmass/1000_{part}.csv"), delimiter=",", skiprows=1)
        for part in ("train", "test")
    )
    # The first column is the class; the test file has one column more at its end.
    train, test = (part[part[:, 0] == 1, 1:28] for part in (train, test))
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    train, test = ((part - mean) / deviation for part in (train, test))
    kept = [np.unique(c, return_counts=True)[1].max() <= 5 for c in train.T]
    train, test = train[:, kept], test[:, kept]
    cut = len(train) - int(0.1 * len(train))
    return _float(name, train[:cut], train[cut:], test)


def _miniboone(name, data):
    return _tenths(name, np.load(_found(data, "miniboone/data.npy")))


def _bsds300(name, data):
    try:
        import h5py
    except ImportError:
        raise SystemExit("bsds300: the archive's file needs h5py to be read.") from None
    with h5py.File(_found(data, "BSDS300/BSDS300.hdf5")) as file:
        return _float(name, *(file[k][:] for k in ("train", "validation", "test")))


ANOMALIES = ("magic_gamma", "cover", "shuttle")
REGRESSIONS = (
    "concrete",
    "kin8nm",
    "power-plant",
    "protein-tertiary-structure",
    "wine-quality-red",
)
READERS = {
    "bsds300_patches": _patches,
    **{name: _labelled for name in ANOMALIES},
    "power": _power,
    "gas": _gas,
    "hepmass": _hepmass,
    "miniboone": _miniboone,
    "bsds300": _bsds300,
}


# --- parts ----------------------------------------------------------------------------


def _found(data, path):
    """`path` in the directory, or where a directory below holds it."""
    if data is None:
        raise SystemExit(f"--data must name the directory that holds {path}.")
    places = [Path(data) / path, *Path(data).glob(f"*/{path}")]
    for place in places:
        if place.is_file():
            return place
    raise SystemExit(f"--data {data}: neither it nor a directory in it holds {path}.")


def _as_it_is(key, x):
    return jnp.asarray(x, jnp.float32)


def _float(name, *parts):
    return Table(name, *(part.astype(np.float32) for part in parts), _as_it_is)


def _tenths(name, values, standardise=True):
    """The last tenth for testing, the tenth before for validation."""
    last = len(values) - int(0.1 * len(values))
    cut = last - int(0.1 * last)
    if standardise:
        values = (values - values[:last].mean(axis=0)) / values[:last].std(axis=0)
    return _float(name, values[:cut], values[cut:last], values[last:])
