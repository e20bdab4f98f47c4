"""NIQE: how natural a picture looks, measured without its original.

Mittal, Soundararajan and Bovik, "Making a 'completely blind' image quality analyzer", IEEE Signal Processing Letters
20(3), 2013. A photograph, after local normalisation, has pixels and products of neighbours that follow certain
distributions; NIQE is the distance of a picture's from those of 125 good photographs. Lower is better: good photographs
have 2 to 5.

Mind its limits. It knows nothing of the original, so what a network makes up counts as well as what is right; noise
lowers it, too; and a GAN can score better than a photograph. It belongs beside PSNR and one's eyes.
"""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np

from imresize import imresize

BLOCK = 96  # pixels; the good photographs were measured in blocks of this size
PARAMETERS = Path(__file__).with_name("niqe.csv")
SHAPES = np.arange(200, 10_001) / 1000  # among which the shape of a distribution is looked for


def niqe(luma):
    """The NIQE of a picture, given its luma, as the authors' program and its copies compute it.

    Parameters
    ----------
    luma : numpy.ndarray
        H×W, whole numbers from 0 to 255, such as `utils.luma` gives; the published figures cut 4 pixels from its sides.

    Returns
    -------
    float
        The distance, 0 or more; lower is better.

    In areas of one grey, signs are those of rounding errors, so programs differ there, by up to 0.05 in all.
    Raises ValueError for a picture with fewer than two blocks of 96×96 pixels.
    """
    rows, columns = (side // BLOCK for side in luma.shape)
    if rows * columns < 2:
        raise ValueError(f"NIQE needs two blocks of {BLOCK}×{BLOCK} pixels; a picture of "
                         f"{luma.shape[1]}×{luma.shape[0]} is too small")
    picture = luma[: rows * BLOCK, : columns * BLOCK].astype(np.float64)
    features = np.concatenate([_features(_normalised(picture), BLOCK),
                               _features(_normalised(255 * imresize(picture / 255, 0.5)), BLOCK // 2)], axis=1)
    whole = features[~np.isnan(features).any(axis=1)]  # a block of one grey has no distribution
    if len(whole) < 2:
        raise ValueError("NIQE needs two blocks that are not of one grey")
    mean, covariance = _good_photographs()
    difference = mean - np.nanmean(features, axis=0)
    inverse = np.linalg.pinv((covariance + np.cov(whole, rowvar=False)) / 2)
    return float(np.sqrt(difference @ inverse @ difference))  # eq. 10


@lru_cache(maxsize=1)
def _good_photographs():
    """Mean and covariance of the features of good photographs, as the authors published them."""
    table = np.loadtxt(PARAMETERS, delimiter=",")
    return table[0], table[1:]


def _normalised(picture):
    """Every pixel less the local mean, by the local contrast (eq. 1)."""
    mean = _blurred(picture)
    contrast = np.sqrt(np.abs(_blurred(picture**2) - mean**2))
    return (picture - mean) / (contrast + 1)


def _blurred(picture):
    """The mean under a Gaussian of 7×7 pixels, σ = 7/6; at the border its pixels are repeated."""
    weights = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    for axis in (0, 1):
        padded = np.pad(picture, [(3, 3) if axis == a else (0, 0) for a in (0, 1)], mode="edge")
        parts = [padded[i : i + len(picture)] if axis == 0 else padded[:, i : i + picture.shape[1]] for i in range(7)]
        picture = sum(weight * part for weight, part in zip(weights / weights.sum(), parts))
    return picture


def _features(normalised, side):
    """18 numbers for each block: the distribution of its pixels, and of the products of neighbours in 4 directions."""
    height, width = normalised.shape
    blocks = normalised.reshape(height // side, side, width // side, side).swapaxes(1, 2).reshape(-1, side, side)
    shape, left, right = _asymmetric_gaussian(blocks)
    features = [shape, (left + right) / 2]
    for shift in [(0, 1), (1, 0), (1, 1), (1, -1)]:
        shape, left, right = _asymmetric_gaussian(blocks * np.roll(blocks, shift, axis=(1, 2)))
        mean = (right - left) * _gamma(2 / shape) / _gamma(1 / shape)  # eq. 8
        features += [shape, mean, left, right]
    return np.stack(features, axis=1)


def _asymmetric_gaussian(blocks):
    """Shape and the scales to the left and right of the generalised Gaussian that fits each block (eq. 7)."""
    square = blocks**2
    with np.errstate(invalid="ignore", divide="ignore"):
        left, right = (np.sqrt((square * side).sum(axis=(1, 2)) / side.sum(axis=(1, 2)))
                       for side in (blocks < 0, blocks > 0))
        ratio = left / right
        wanted = np.abs(blocks).mean(axis=(1, 2)) ** 2 / square.mean(axis=(1, 2))
        wanted *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = SHAPES[np.abs(_moments()[:, None] - wanted).argmin(axis=0)]
    scale = np.sqrt(_gamma(1 / shape) / _gamma(3 / shape))
    return shape, left * scale, right * scale


@lru_cache(maxsize=1)
def _moments():
    """The squared mean size over the mean square, for every shape."""
    return _gamma(2 / SHAPES) ** 2 / (_gamma(1 / SHAPES) * _gamma(3 / SHAPES))


_gamma = np.vectorize(math.gamma, otypes=[np.float64])
