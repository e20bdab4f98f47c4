"""What enlarging is: an edge under every method, why it cannot be undone, tiles, enlarging twice."""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

from imresize import imresize
from kit.compute.inference import receptive_field
from kit.language import tr
from kit.lessons.figure import closed, detail, picture_row, picture_rows
from kit.plots.pictures import detail_window, drawn
from utils import super_resolve, to_batch, to_rgb


def slanted_edge(size=96, supersampling=8):
    """A picture uint8 size×size×3 of one slanted edge between dark and light, as a camera would see it."""
    fine = np.arange(size * supersampling) / supersampling
    light = (fine[None] - size / 2 + 0.45 * (fine[:, None] - size / 2)) > 0
    grey = light.reshape(size, supersampling, size, supersampling).mean(axis=(1, 3)) * 170 + 45
    return to_rgb(np.round(grey).astype(np.uint8))


def edge(methods):
    """A slanted edge made small and enlarged by every method, and the grey values along a line across it.

    `methods` as `kit.evaluation.methods` makes them; nearest neighbour and bilinear interpolation are put before them,
    the original behind.
    """
    original = slanted_edge()
    lr = imresize(original, 0.25)
    bilinear = F.interpolate(to_batch(lr).float(), scale_factor=4, mode="bilinear", align_corners=False)
    pictures = {"nearest": lr.repeat(4, 0).repeat(4, 1),
                "bilinear": bilinear[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy(),
                **{name: method(lr) for name, method in methods.items()}, "original": original}
    figure = plt.figure(figsize=(10, 4.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.5])
    middle, axes = original.shape[0] // 2, above.subplots(1, len(pictures))
    profile = below.subplots()
    for axis, (name, picture) in zip(axes, pictures.items()):
        axis.imshow(picture[24:72, 24:72], interpolation="nearest")
        axis.axhline(middle - 24, color="tab:red", linewidth=0.8)
        axis.set_title(drawn(name), fontsize=8)
        axis.set_axis_off()
        plain = name in ("nearest", "bilinear", "bicubic")
        profile.plot(picture[middle, :, 1], label=drawn(name), linewidth=2.5 if name == "original" else 1.4,
                     color="black" if name == "original" else None, linestyle=":" if plain else "-")
    profile.set(xlim=(34, 62), xlabel=tr("column along the red line, in pixels"), ylabel=tr("grey value"))
    profile.legend(fontsize=8, loc="upper left")
    profile.grid(alpha=0.3)
    return closed(figure)


def ill_posed(picture, contrast=55, side=128):
    """Two different originals that are made small to the same picture.

    The second is the first plus stripes from which everything was taken that survives `imresize`: what is left lies in
    the null space of that linear map.
    """
    first = detail(picture, side)
    side = len(first)
    first = (first.mean(axis=2) if first.ndim == 3 else first).astype(np.float64) * 0.5 + 64
    rows, columns = np.mgrid[:side, :side]
    ring = np.hypot(rows - side / 2, columns - side / 2)
    stripes = contrast * np.sin(2 * np.pi * (rows + columns) / 5) * (ring < side * 0.4)
    matrix = imresize(torch.eye(side, dtype=torch.float64), output_shape=(side // 4, side)).numpy()
    kept = np.linalg.pinv(matrix) @ matrix
    second = first + stripes - kept @ stripes @ kept.T
    pictures = [np.clip(np.round(one), 0, 255).astype(np.uint8) for one in (first, second)]
    lows = [imresize(one, 0.25) for one in pictures]
    apart = [np.abs(a.astype(int) - b).max() for a, b in (pictures, lows)]
    mean = np.round((pictures[0].astype(float) + pictures[1]) / 2)
    return picture_row([*pictures, *lows, mean], [
        tr("an original"), tr("another, up to {count} grey values away", count=apart[0]), tr("the first, made small"),
        tr("the second: {count} away at most", count=apart[1]), tr("the mean of both originals")], size=2.1)


def tiles(generator, picture, tile=48):
    """Why tiles have no seam: cut without an overlap, and with one as wide as the receptive field's radius.

    Returns a figure: the picture of the whole, and where each way differs from it; a sentence for a network that
    cannot enlarge in tiles. `picture` is uint8 H×W×3.
    """
    try:
        radius = receptive_field(generator)
    except ValueError as error:
        return tr("there is nothing to compare: {error}", error=error)
    side = min(96, *picture.shape[:2])
    top, left, side = detail_window(picture, side)
    lr = to_rgb(picture)[top : top + side, left : left + side]
    enlarge = partial(super_resolve, generator, precision="fp32")
    whole = enlarge(lr)
    naive = np.zeros_like(whole)
    step, scale = tile, whole.shape[0] // side
    for y in range(0, side, step):
        for x in range(0, side, step):
            piece = enlarge(np.ascontiguousarray(lr[y : y + step, x : x + step]))
            naive[scale * y : scale * y + piece.shape[0], scale * x : scale * x + piece.shape[1]] = piece
    overlapped = super_resolve(generator, lr, tile=min(2 * radius + 16, 10**4), precision="fp32")
    apart = [np.abs(whole.astype(int) - one).max(axis=2) for one in (naive, overlapped)]
    return picture_row([whole, apart[0] * 8, apart[1] * 8],
                [tr("uncut"), tr("cut every {tile} pixels: up to {off} off (× 8)", tile=tile, off=apart[0].max()),
                 tr("overlapping by its radius, {radius}: up to {off} off", radius=radius, off=apart[1].max())],
                size=3)


def twice(methods, picture, side=32):
    """A detail enlarged ×4, and ×16 by enlarging twice, beside bicubic interpolation."""
    top, left, _ = detail_window(picture, side)
    lr = np.ascontiguousarray(to_rgb(picture)[top : top + side, left : left + side])
    once = [method(lr) for method in methods.values()]
    twice = [method(picture) for method, picture in zip(methods.values(), once)]
    return picture_rows([once, twice], [[f"{drawn(name)}, ×{factor}" for name in methods] for factor in (4, 16)],
                 size=2.4, interpolation="nearest")
