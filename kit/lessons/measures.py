"""The measures by hand: PSNR step by step, and blur and noise of one PSNR."""

import math

import numpy as np

from imresize import imresize
from kit.console import Table
from kit.evaluation.measure import naturalness
from kit.language import tr
from kit.lessons.figure import detail, picture_row
from utils import bicubic, luma, psnr, ssim, ssim_map, to_rgb


def psnr_by_hand(sr, hr, name, border=4):
    """PSNR step by step, as a table: luma, squared error, decibels."""
    inside = tuple(slice(border, side - border) for side in hr.shape[:2])
    a, b = luma(sr)[inside], luma(hr)[inside]
    mse = np.mean((a - b) ** 2)
    rows = [[tr("luma of the first pixel inside"), tr("{one:.0f} and {other:.0f}", one=a[0, 0], other=b[0, 0])],
            [tr("mean of the squared differences (MSE)"), f"{mse:.2f}"],
            [tr("its root, in grey values"), f"{math.sqrt(mse):.2f}"],
            ["10 · log10(255² / MSE)", f"{10 * math.log10(255**2 / mse):.4f} dB" if mse else "∞"],
            ["utils.psnr", f"{psnr(sr, hr, border):.4f} dB"]]
    return Table(rows, [name, tr("value")], left=1)


def equal_psnr(picture, side=208, seed=0):
    """Blur and noise at one PSNR, with their SSIM, its map, and NIQE."""
    original = to_rgb(detail(picture, side))
    blurred = bicubic(imresize(original, 0.25))
    wanted, noise = psnr(blurred, original), np.random.default_rng(seed).normal(size=original.shape[:2])[..., None]
    low, high = 0.0, 120.0
    for _ in range(30):  # the strength at which both have one PSNR, by halving
        middle = (low + high) / 2
        noisy = np.clip(original + middle * noise, 0, 255).round().astype(np.uint8)
        low, high = (middle, high) if psnr(noisy, original) > wanted else (low, middle)
    maps = [ssim_map(one, original) for one in (blurred, noisy)]
    titles = [f"{name}: {psnr(one, original):.2f} dB\nSSIM {ssim(one, original):.3f}, NIQE {_niqe(one)}"
              for name, one in ((tr("blurred"), blurred), (tr("noisy"), noisy))]
    return picture_row([original, blurred, maps[0] * 255, noisy, maps[1] * 255],
                [f"{tr('original')}\nNIQE {_niqe(original)}", titles[0], tr("its SSIM,\nplace by place"), titles[1],
                 tr("its SSIM,\nplace by place")])


def _niqe(picture):
    value = naturalness(picture)
    return "–" if value is None else f"{value:.1f}"
