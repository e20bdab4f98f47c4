"""One way to enlarge, measured: PSNR, SSIM and NIQE picture by picture, and their means.

A *method* is a function from a picture to an enlarged one. Nothing here knows how networks are trained.
"""

import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from kit.console import progress_bar
from kit.evaluation.niqe import niqe
from kit.language import N_, tr
from utils import Enlarger, bicubic, luma, psnr, ssim

Scores = namedtuple("Scores", "psnr ssim niqe")
ORIGINAL = "original"  # as a method: no enlargement at all
LARGE = 10**6  # pixels from which on enlarging a picture takes so long that it has to be said


# What is shown of methods and pictures in other languages; all other names are people's own, and stay.
KNOWN = {N_("bicubic"), N_("bilinear"), N_("nearest"), N_("low resolution"), N_("original"), N_("input"), N_("mine")}


def shown(name):
    """The name of a method or picture as it is shown: in the language that is spoken, if it is one of the kit's."""
    return tr(name) if name in KNOWN else name


def methods(generators, ensembles=(), **options):
    """Bicubic interpolation and the generators, as a dictionary name → method; `options` go to `utils.Enlarger`.

    Generators named in `ensembles` stand there once more, with "+" behind their names as in the literature: as the
    means of eight flips and turns, in eight times the time. What an enlarger has to note is printed.
    """
    enlargers = {}
    for name, generator in generators.items():
        enlargers[name] = Enlarger(generator, **options)
        if enlargers[name].note:
            print(f"{name}: {enlargers[name].note}")
        if name in ensembles:
            enlargers[f"{name}+"] = Enlarger(generator, self_ensemble=True, **options)
    return {"bicubic": partial(bicubic, scale=scale_of(enlargers)), **enlargers}


def scale_of(methods):
    """How many times the generators among the methods enlarge (4 without one)."""
    return next((method.scale for method in methods.values() if isinstance(method, Enlarger)), 4)


def enlarge_all(pair, methods):
    """A pair enlarged in every way that is compared: title → picture, the original last.

    The first picture is the low resolution itself, small as it is.
    """
    return {"low resolution": pair.lr, **{name: enlarge(pair.lr) for name, enlarge in methods.items()},
            "original": pair.hr}


def enlarge_each(picture, methods):
    """A picture that has no original, enlarged in every way: title → picture.

    Of a large one it is said what that takes, found by a small part of it, and bars show how far it has come.
    """
    height, width = picture.shape[:2]
    large, enlarged, scale = height * width > LARGE, {}, scale_of(methods)
    if large:
        part = np.ascontiguousarray(picture[:192, :192])
        began = time.perf_counter()
        for enlarge in methods.values():
            enlarge(part)
        seconds = (time.perf_counter() - began) * height * width / (part.shape[0] * part.shape[1])
        print(tr("{size} becomes {larger}, which takes about {minutes:.1f} minutes in all; a part of it is quicker, "
                 "such as picture[:600, :600]", size=f"{width}×{height}", larger=f"{scale * width}×{scale * height}",
                 minutes=seconds / 60), flush=True)
    for name, enlarge in methods.items():
        shows = getattr(enlarge, "progress", None)
        if large and shows is not None:
            print(f"{name}:", flush=True)
            enlarge.progress = True
        try:
            enlarged[name] = enlarge(picture)
        finally:
            if shows is not None:
                enlarge.progress = shows
    return enlarged


def evaluate(enlarge, dataset, limit=None, progress=True, label="evaluating", part=0, parts=1):
    """PSNR and SSIM of a way to enlarge, picture by picture.

    Parameters
    ----------
    enlarge : callable
        A method: uint8 picture → uint8 picture `dataset.scale` times as large.
    dataset : datasets.TestDataset
        The pictures; `limit` takes the first so many.
    part, parts : int
        Of these only number `part`, `part + parts`, …, which several processes share.

    Returns
    -------
    list of dict
        `picture` (name), `psnr` (dB) and `ssim`, by the protocol of `utils.psnr`, and `niqe`, see `naturalness`.
    """
    indices = range(part, min(limit or len(dataset), len(dataset)), parts)
    with progress_bar(None, label, progress, total=len(indices)) as bar:
        return evaluate_indices(enlarge, dataset, indices, bar)


def evaluate_indices(enlarge, dataset, indices, bar, also=None):
    """What `evaluate` does, for pictures of these numbers under a progress bar of the caller's; `also` as `score_sets`.

    Without `enlarge` the originals themselves are measured.
    """
    def score(pair, picture):
        return {"picture": pair.name, "psnr": psnr(picture, pair.hr, dataset.scale),
                "ssim": ssim(picture, pair.hr, dataset.scale), "niqe": naturalness(picture, dataset.scale),
                **{name: measure(picture, pair.hr) for name, measure in (also or {}).items()}}

    with ThreadPoolExecutor(2) as pool:  # a picture is scored while the next is enlarged
        rows = []
        for index in indices:
            pair = dataset[index]
            rows.append(pool.submit(score, pair, enlarge(pair.lr) if enlarge else pair.hr))
            if len(rows) > 4:
                rows[-5].result()  # not all pictures in memory at once
            bar.update()
        return [row.result() for row in rows]


def smallest_side(scale):
    """How many pixels a picture must have on both sides for SSIM: the border that is cut, and its window."""
    return 2 * scale + 11


def measurable(dataset):
    """The numbers of the pictures that PSNR and SSIM can be taken of, and the names of those that are too small."""
    smallest = smallest_side(dataset.scale)
    large = [index for index, row in enumerate(dataset.rows) if min(row.width, row.height) >= smallest]
    return large, [row.hr.stem for row in dataset.rows if min(row.width, row.height) < smallest]


def naturalness(picture, border=4):
    """The NIQE of a picture on its luma, `border` pixels cut from every side; None where it is too small for it."""
    inside = luma(picture)[border : picture.shape[0] - border, border : picture.shape[1] - border]
    try:
        return niqe(inside)
    except ValueError:
        return None


def mean_scores(rows):
    """The means over the rows of `evaluate`: (PSNR, SSIM, NIQE), the last None where no picture has one."""
    natural = [row["niqe"] for row in rows if row.get("niqe") is not None]
    return Scores(float(np.mean([row["psnr"] for row in rows])), float(np.mean([row["ssim"] for row in rows])),
                  float(np.mean(natural)) if natural else None)


def score_captions(pictures, border=4):
    """PSNR and SSIM against the last picture for all others of its size: captions for `kit.plots.plot_comparison`."""
    *_, original = pictures.values()
    same = {title: p for title, p in pictures.items() if p.shape == original.shape and p is not original}
    return {title: f"{psnr(p, original, border):.2f} dB / {ssim(p, original, border):.3f}" for title, p in same.items()}
