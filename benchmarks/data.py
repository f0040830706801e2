"""Image data for the benchmarks: integer pixels, split as the papers do.

Nothing is downloaded: MNIST and CIFAR-10 are read from files that are there, and the
digits come with scikit-learn.
"""

import gzip
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Images(NamedTuple):
    """Integer pixels `(N, H, W, C)`, uint8, values 0 .. 2^bits - 1.

    Attributes:
        name: of the data set, for tables.
        train: what is fitted.
        validation: the end of the training file, for choosing a model.
        test: what is reported.
        bits: per pixel.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    bits: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.train.shape[1:]


def load(path: str) -> Images:
    """The data set at `path`.

    Args:
        path: `"digits"`, a directory with MNIST's idx files (gzipped or not), or an
            .npz file with the arrays `x_train` and `x_test`.

    Raises:
        ValueError: nothing of the kind is there.
    """
    if path == "digits":
        return digits()
    where = Path(path)
    if where.is_dir():
        return mnist(where)
    if where.suffix == ".npz" and where.is_file():
        return npz(where)
    raise ValueError(
        f"data: {path!r} is neither 'digits', nor a directory of idx files, nor an "
        ".npz file that exists."
    )


def digits() -> Images:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8, brought to 4 bits.

    Their values are counts 0 .. 16; 16, nine pixels in a hundred, becomes 15. Of every
    ten images in the file's order two are for testing and one is for validation.
    """
    from sklearn.datasets import load_digits

    pixels = np.minimum(load_digits().images, 15).astype(np.uint8)[..., None]
    place = np.arange(len(pixels)) % 10
    return Images(
        "digits", pixels[place > 2], pixels[place == 2], pixels[place < 2], bits=4
    )


def mnist(directory: Path) -> Images:
    """The four idx files; the last sixth of the training images is for validation.

    For MNIST that is 50,000 and 10,000, as in NICE and in MAF.
    """
    train, test = (read_idx(directory, f"{part}-images") for part in ("train", "t10k"))
    return _hold_out(directory.name, train[..., None], test[..., None], 6)


def npz(path: Path) -> Images:
    """`x_train` and `x_test`; the last tenth of training is for validation."""
    with np.load(path) as arrays:
        train, test = arrays["x_train"], arrays["x_test"]
    if train.ndim == 3:
        train, test = train[..., None], test[..., None]
    return _hold_out(path.stem, train, test, 10)


def read_idx(directory: Path, stem: str) -> np.ndarray:
    """The bytes of one idx file, gzipped or not, in the shape of its header.

    Raises:
        ValueError: the file is missing or is not an idx file of bytes.
    """
    found = sorted(directory.glob(f"{stem}*"))
    if not found:
        raise ValueError(f"data: no file {stem}* in {directory}.")
    raw = found[0].read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    # Two zeros, the type (8: unsigned bytes), the number of axes, then their sizes.
    axes = raw[3]
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", axes, offset=4))
    if raw[:3] != b"\0\0\x08" or len(raw) != 4 + 4 * axes + math.prod(shape):
        raise ValueError(f"data: {found[0]} is not an idx file of unsigned bytes.")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _hold_out(name, train, test, share):
    if train.dtype != np.uint8 or test.dtype != np.uint8:
        raise ValueError(
            f"data: {name} must hold uint8 pixels, got {train.dtype} and {test.dtype}."
        )
    kept = len(train) - len(train) // share
    return Images(name, train[:kept], train[kept:], test, bits=8)
