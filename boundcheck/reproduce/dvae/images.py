"""Images for the experiment: scikit-learn's digits, or any file of train and test images, as numbers between 0 and 1.

A Bernoulli decoder wants binary pixels. Grey ones are binarised at random, a pixel being 1 with its grey value as
probability: anew at every use in training, and once, with a seed, for the test images, so that every model is
evaluated on the same data (Salakhutdinov & Murray 2008; Burda et al. 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput, require
from boundcheck.evidence.loading import load_data

DIGITS_FOR_TESTING = 360


@dataclass(frozen=True)
class Images:
    """Images as rows of pixels, of shape (images, pixels).

    Attributes:
        train: grey values between 0 and 1; binary ones stay as they are when they are binarised.
        test: binary.
        shape: height and width, for pictures; None if unknown.
        name: for the reader, with the binarisation.
    """

    train: NDArray[np.float32]
    test: NDArray[np.uint8]
    shape: tuple[int, int] | None
    name: str

    @property
    def pixels(self) -> int:
        """How many pixels an image has."""
        return self.train.shape[1]

    def first(self, train: int | None, test: int | None, seed: int) -> Images:
        """Fewer images, chosen at random: files may be sorted."""
        rng = np.random.default_rng(seed)
        return Images(_some(self.train, train, rng), _some(self.test, test, rng), self.shape, self.name)


def _some(rows: NDArray[Any], count: int | None, rng: np.random.Generator) -> NDArray[Any]:
    order = rng.permutation(len(rows))
    return rows if count is None or count >= len(rows) else rows[np.sort(order[:count])]


def digits(seed: int = 0) -> Images:
    """Scikit-learn's 1797 digits of 8x8 pixels, binarised by a threshold: 8 or more of 16 is 1; 360 are for testing.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    data = require("sklearn.datasets", extra="demo", feature="the digits").load_digits().data
    images = (data >= 8).astype(np.uint8)[np.random.default_rng(seed).permutation(len(data))]
    train, test = images[:-DIGITS_FOR_TESTING], images[-DIGITS_FOR_TESTING:]
    return Images(train.astype(np.float32), test, (8, 8), "scikit-learn's digits, pixels of 8/16 and more are 1")


def read_images(path: str | Path, *, pixels: int | None = None, seed: int = 0) -> Images:
    """The arrays `train` and `test` of an .npz file, of shape (images, *pixels).

    Integers from 0 to 255 are grey values, floats are grey values from 0 to 1, and 0 and 1 alone are binary. With
    `pixels`, rows of bytes are bits packed by `numpy.packbits`.

    Args:
        path: the file.
        pixels: how many bits of each packed row are pixels.
        seed: of the test images' binarisation.

    Raises:
        BadInput: a file without these arrays, arrays of different shapes, or values that are no grey values.
    """
    arrays = {part: load_data(path, part) for part in ("train", "test")}
    if arrays["train"].shape[1:] != arrays["test"].shape[1:]:
        raise BadInput(
            "the shape of test", arrays["test"].shape, f"(images, *{arrays['train'].shape[1:]}), as in train"
        )
    if pixels is not None:
        arrays = {part: _unpacked(array, pixels) for part, array in arrays.items()}
    size = arrays["train"].shape[1:]
    grey = {part: _grey(array, str(path)) for part, array in arrays.items()}
    binary = all(bool(np.isin(array, (0, 1)).all()) for array in grey.values())
    test = grey["test"] if binary else np.random.default_rng(seed).random(grey["test"].shape) < grey["test"]
    how = "binary" if binary else "grey pixels binarised at random, the test images once"
    shape = (int(size[0]), int(size[1])) if len(size) == 2 else _square(grey["train"].shape[1])
    return Images(grey["train"], test.astype(np.uint8), shape, f"{Path(path).name}, {how}")


def _unpacked(array: NDArray[Any], pixels: int) -> NDArray[Any]:
    if array.dtype != np.uint8 or array.ndim != 2 or not 0 <= 8 * array.shape[1] - pixels < 8:
        what = f"{array.dtype} of shape {array.shape}"
        raise BadInput("pixels", pixels, "the number of bits in each row of packed bytes", f"the rows are {what}")
    return np.unpackbits(array, axis=1, count=pixels)


def _grey(array: NDArray[Any], path: str) -> NDArray[np.float32]:
    rows = array.reshape(len(array), -1)
    largest, smallest = rows.max(), rows.min()
    scale = 255 if rows.dtype.kind in "iu" and largest > 1 else 1
    if smallest < 0 or largest > scale:
        raise BadInput(
            "the data",
            path,
            "grey values: integers from 0 to 255 or floats from 0 to 1",
            f"they go from {smallest} to {largest}",
        )
    return (rows / np.float32(scale)).astype(np.float32)


def _square(pixels: int) -> tuple[int, int] | None:
    side = round(pixels**0.5)
    return (side, side) if side * side == pixels else None
