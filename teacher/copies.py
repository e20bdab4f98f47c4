"""Whether two enlargements of a picture come from one network: what is left of them is compared.

All good enlargements of a picture are alike, so what they share is taken out first: of each the best fit by bicubic
interpolation and the original (least squares). What is left is the network's own. Its correlation between two
enlargements, the highest over small shifts, knows neither brightness nor contrast and little of compression, noise or
mixing.

How high it is by itself was tried on Set5 with 15 networks of the demo's size, which differ in seed, width, depth,
batch norm, activation or losses, trained for 800 to 4,000 updates and then with or without a discriminator, and with
the reference networks: of 480 pairs from different trainings none had more than 0.91 in any of the five pictures, nor
0.84 in their mean (the highest: the same settings with another seed). So a false alarm is rarer than 1 in 800
pictures, with 95 % confidence. The picture of one network with another brightness or contrast, with noise, saved as
JPEG (85 and 95), blurred, shifted, or mixed with 20 % of another network's had 0.91 to 1.00 in the mean, and at least
two of the five above `ALIKE`; mixed half and half 0.78 to 0.89, which goes unseen. But the same settings and the same
seed give the same pictures: the basic mode of two who wrote one architecture independently of each other has 1.00
(`similarity` says so where the records of their runs do). What is above is worth a look, and no proof.
"""

import numpy as np

from utils import bicubic, luma

ALIKE = 0.92  # in a picture
ORIGINALS = 0.9  # of all detail with the original's; the reference SRResNet has 0.49 to 0.87 on the pictures of Set5
EQUAL = 0.5  # mean difference of grey levels of pictures that are the same
SHIFT, MARGIN = 2, 8  # pixels that pictures may be shifted by, and that are cut from their edges


def alike(pictures, pairs, original):
    """The pictures that come from one network.

    Parameters
    ----------
    pictures : dict of str → dict of str → numpy.ndarray
        Whose → name of the picture → uint8, of the size of its original.
    pairs : list of Pair
        As `datasets.TestDataset` gives them.
    original : str
        Whose the originals are called.

    Returns a dict of (first, second) → {name of the picture: correlation}, first and second in the order of `pictures`,
    the originals behind them.
    """
    found = {}
    for pair in pairs:
        names = [name for name, own in pictures.items() if pair.name in own]
        base, truth = luma(bicubic(pair.lr)).astype(np.float32), luma(pair.hr).astype(np.float32)
        shown = [luma(pictures[name][pair.name]).astype(np.float32) for name in names]
        between, with_original = _correlations(shown, base, truth)
        for i, name in enumerate(names):
            for j in range(i + 1, len(names)):
                equal = np.abs(shown[i] - shown[j]).mean() < EQUAL  # of which nothing may be left to compare
                if equal or between[i, j] >= ALIKE:
                    found.setdefault((name, names[j]), {})[pair.name] = 1.0 if equal else float(between[i, j])
            if with_original[i] >= ORIGINALS:
                found.setdefault((name, original), {})[pair.name] = float(with_original[i])
    return found


def _correlations(shown, base, truth):
    """The highest correlations over small shifts: of what is left, between all; and of all detail with the original's.
    """
    if not shown:
        return np.zeros((0, 0)), np.zeros(0)
    shared, _ = np.linalg.qr(np.stack([np.ones(_cut(base).size), _cut(base), _cut(truth)], axis=1))
    shared = shared.astype(np.float32)
    detail = _unit((_cut(truth) - _cut(base))[None])[0]
    still = _unit(_without(np.stack([_cut(picture) for picture in shown]), shared))
    between, with_original = np.full((len(shown), len(shown)), -1.0), np.full(len(shown), -1.0)
    for down in range(-SHIFT, SHIFT + 1):
        for right in range(-SHIFT, SHIFT + 1):
            moved = np.stack([_cut(np.roll(picture, (down, right), axis=(0, 1))) for picture in shown])
            moved_left = _unit(_without(moved, shared)) * still.any(axis=1, keepdims=True)  # nothing: bicubic's own
            between = np.maximum(between, moved_left @ still.T)
            with_original = np.maximum(with_original, _unit(moved - _cut(base)) @ detail)
    return np.maximum(between, between.T), with_original


def _cut(picture):
    """The inner part of a picture as a row of numbers."""
    return picture[MARGIN:-MARGIN, MARGIN:-MARGIN].ravel()


def _without(rows, shared):
    """Rows without their best fit by the columns of `shared`, which are orthonormal."""
    return rows - (rows @ shared) @ shared.T


def _unit(rows):
    """Rows with mean 0 and length 1; a row that is constant but for rounding becomes 0."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(length > 0.05 * np.sqrt(rows.shape[1]), rows / np.maximum(length, 1e-9), 0)
