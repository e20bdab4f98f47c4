"""Scores: PSNR and SSIM of any way to enlarge, on any test set, and the tables they stand in.

    generators = evaluation.load_generators({"mine": "runs/demo/checkpoints/warmup.pt"})
    scores = evaluation.score_sets(evaluation.methods(generators), ["data/lists/demo_test.csv"])
    evaluation.score_table(scores)

A *method* is a function from a picture to an enlarged one. Nothing here knows how networks are trained.
"""

from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from datasets import TestDataset
from machine import Machine, layout_for
from models import make_generator
from recipes import generator_settings
from runs import load_checkpoint
from niqe import niqe
from utils import (Enlarger, Table, bicubic, luma, progress_bar, psnr, ssim, to_batch, to_rgb, to_signed, write_csv,
                   write_whole)

# PSNR (dB) and SSIM at ×4 as published: table 2 of arXiv 1609.04802v5, and the READMEs of two implementations on
# GitHub, sgrvinod/a-PyTorch-Tutorial-to-Super-Resolution and Lornatang/SRGAN-PyTorch. The paper's SSIM comes
# from another tool (daala) and lies above this protocol's; its PSNR is comparable.
PUBLISHED_RESULTS = {
    "paper: bicubic": {"Set5": "28.43 / 0.8211", "Set14": "25.99 / 0.7486", "B100": "25.94 / 0.6935"},
    "paper: SRResNet": {"Set5": "32.05 / 0.9019", "Set14": "28.49 / 0.8184", "B100": "27.58 / 0.7620"},
    "paper: SRGAN": {"Set5": "29.40 / 0.8472", "Set14": "26.02 / 0.7397", "B100": "25.16 / 0.6688"},
    "sgrvinod: SRResNet": {"Set5": "31.927 / 0.902", "Set14": "28.588 / 0.799", "B100": "27.587 / 0.756"},
    "sgrvinod: SRGAN": {"Set5": "29.719 / 0.859", "Set14": "26.509 / 0.729", "B100": "25.531 / 0.678"},
    "Lornatang: SRResNet": {"Set5": "32.16 / 0.8938", "Set14": "28.57 / 0.7815", "B100": "27.56 / 0.7367"},
    "Lornatang: SRGAN": {"Set5": "30.67 / 0.8627", "Set14": "27.12 / 0.7321", "B100": "26.22 / 0.6867"},
}


Scores = namedtuple("Scores", "psnr ssim niqe")
COLUMNS = ["set", "picture", "method", *Scores._fields]
ORIGINAL = "original"  # as a method: no enlargement at all

# ------------------------------------------------------------------------------------------- methods


def load_generator(path, device="cpu"):
    """The generator of a checkpoint, in evaluation mode, built by `models.make_generator`.

    Raises FileNotFoundError, or ValueError for a damaged file and for weights that do not fit the network that
    `models.py` builds from the settings beside them.
    """
    return _built(path, device)[0]


def _built(path, device):
    """The generator of a checkpoint, and the settings that it was built from."""
    content = load_checkpoint(path)
    try:
        cfg = generator_settings(content["generator_settings"])
        with torch.device("meta"):  # the shapes alone: a stranger's settings could ask for more memory than there is
            make_generator(cfg).load_state_dict(content["generator"], assign=True)
        generator = make_generator(cfg)
        generator.load_state_dict(content["generator"])
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: its weights do not fit its settings and your models.py ({reason})") from error
    return generator.to(device, memory_format=layout_for(device)).eval(), cfg


def load_generators(checkpoints, device="auto"):
    """The generators of several checkpoints, as far as there are such files, on the best device there is.

    Takes and gives dictionaries, name → path and name → generator. What is left out is printed: a file that
    is not there (yet), weights of another network than `models.py` builds, and a generator of another scale than
    the first. Raises ValueError when nothing remains.
    """
    generators, first_scale, device = {}, None, Machine(device).device
    for name, path in checkpoints.items():
        if not Path(path).is_file():
            print(f"{name} is left out: there is no file {path} (yet)")
            continue
        try:
            generator, cfg = _built(path, device)
        except ValueError as error:
            print(f"{name} is left out: {error}")
            continue
        first_scale = first_scale or cfg.scale
        if cfg.scale != first_scale:
            print(f"{name} is left out: {path} enlarges ×{cfg.scale}, and the first ×{first_scale}")
        else:
            generators[name] = generator
    if not generators:
        raise ValueError(f"there is none of the checkpoints {', '.join(map(str, checkpoints.values()))}; train first, "
                         f"or correct the names")
    return generators


def methods(generators, **options):
    """Bicubic interpolation and the generators, as a dictionary name → method; `options` go to `utils.Enlarger`."""
    enlargers = {name: Enlarger(generator, **options) for name, generator in generators.items()}
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


# ------------------------------------------------------------------------------------------- scores


def lpips():
    """LPIPS (Zhang et al., CVPR 2018; lower is better), as one of the measures that `score_sets` takes in `also`.

    The distance of AlexNet's features, weighted by what people find similar; unlike NIQE it knows the original, and
    unlike PSNR it forgives a texture that is not quite in its place. The network is that of torchmetrics, with
    AlexNet's weights from torchvision (a download of 233 MB, once).

    Returns a function of two uint8 pictures. Raises ImportError without torchmetrics, and ConnectionError where the
    weights can neither be found nor downloaded; both say what to do.
    """
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    except ImportError as error:
        raise ImportError("LPIPS is measured by torchmetrics; install it with: pip install torchmetrics") from error
    from torchvision.models import AlexNet_Weights

    weights = AlexNet_Weights.IMAGENET1K_V1
    try:
        weights.get_state_dict(progress=True, check_hash=True, weights_only=True)  # what torchmetrics loads after it
    except Exception as error:
        raise ConnectionError(f"AlexNet's weights are not there ({error}); put {weights.url} into "
                              f"{Path(torch.hub.get_dir(), 'checkpoints')}") from error
    network = LearnedPerceptualImagePatchSimilarity("alex").eval()

    def measure(picture, original):
        pair = [to_signed(to_batch(to_rgb(one))).clamp(-1, 1) for one in (picture, original)]
        with torch.no_grad():
            return float(network(*pair))

    return measure


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
        return _evaluate(enlarge, dataset, indices, bar)


def _evaluate(enlarge, dataset, indices, bar, also=None):
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


def score_sets(methods, csv_files, scale=None, progress=True, originals=False, also=None):
    """Evaluate several ways to enlarge on several test sets, under one progress bar.

    Parameters
    ----------
    methods : dict of str → callable
        Name → what `evaluate` takes.
    csv_files : list of path
        The lists of the sets; a set is called after its file.
    scale : int, optional
        Of the lists; without it that of the methods.
    originals : bool
        Measure the originals, too, as the last method: their NIQE is the aim of all others.
    also : dict of str → callable
        More measures: name → function of two uint8 pictures, the enlarged one and the original, that gives a number;
        `{"LPIPS": lpips()}`, or your own.

    Returns
    -------
    list of dict
        `set`, `picture`, `method`, `psnr` (dB), `ssim`, `niqe`, and what else is measured: one for each picture and
        method.
    """
    sets = {Path(csv_file).stem: TestDataset(csv_file, scale or scale_of(methods)) for csv_file in csv_files}
    scores, ways = [], {**methods, **({ORIGINAL: None} if originals else {})}
    with progress_bar(None, "measuring", progress, total=len(ways) * sum(map(len, sets.values()))) as bar:
        for name, dataset in sets.items():
            for method, enlarge in ways.items():
                bar.set_postfix_str(f"{name}, {method}")
                scores += [{"set": name, "method": method, **row}
                           for row in _evaluate(enlarge, dataset, range(len(dataset)), bar, also)]
    return scores


def score_table(scores, published=PUBLISHED_RESULTS):
    """The mean PSNR (dB) / SSIM / NIQE of each method on each set as a table, with published results below.

    Measures of your own (`also` of `score_sets`) follow behind a further stroke.
    """
    sets, methods = (list(dict.fromkeys(row[key] for row in scores)) for key in ("set", "method"))
    rows = {(name, method): [r for r in scores if (r["set"], r["method"]) == (name, method)]
            for name in sets for method in methods}
    also = _more(scores)
    table = [[method, *(_cell(rows[name, method], also) for name in sets)] for method in methods]
    table += [[method, *(row.get(name, "") for name in sets)] for method, row in published.items() if row.keys() & sets]
    return Table(table, [" / ".join(["PSNR", "SSIM", "NIQE", *also]),
                         *(f"{name} ({len(rows[name, methods[0]])})" for name in sets)])


def _more(scores):
    """The names of the measures beside PSNR, SSIM and NIQE."""
    return [name for name in (scores[0] if scores else {}) if name not in COLUMNS]


def _cell(rows, also):
    scores = mean_scores(rows)
    psnr = "∞" if np.isinf(scores.psnr) else f"{scores.psnr:.2f}"
    niqe = "–" if scores.niqe is None else f"{scores.niqe:.2f}"
    more = [f"{np.mean([row[name] for row in rows]):.4f}" for name in also]
    return " / ".join([psnr, f"{scores.ssim:.4f}", niqe, *more])


def save_scores(scores, folder, published=PUBLISHED_RESULTS):
    """Write `scores.csv` (every picture) and `table.txt` (the means) to a folder; gives the table."""
    table = score_table(scores, published)
    write_csv(Path(folder, "scores.csv"), scores, [*COLUMNS, *_more(scores)])
    with write_whole(Path(folder, "table.txt")) as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    return table


def baselines(valid_set, limit=None, checkpoints=None):
    """Mean PSNR of bicubic interpolation, and of the generators of some checkpoints, on a TestDataset: name → dB."""
    generators = {name: load_generator(path) for name, path in (checkpoints or {}).items() if Path(path).is_file()}
    ways = {"bicubic": partial(bicubic, scale=valid_set.scale),
            **{name: Enlarger(generator) for name, generator in generators.items()}}
    return {name: mean_scores(evaluate(enlarge, valid_set, limit, progress=False))[0]
            for name, enlarge in ways.items() if getattr(enlarge, "scale", valid_set.scale) == valid_set.scale}


def phase_table(histories, valid_set, limit=None):
    """How runs stand after each of their phases, beside bicubic interpolation, as a table.

    `histories` is a dict of str → list of dict (name of the run → its epochs), `valid_set` the TestDataset that
    they were validated on.
    """
    base = mean_scores(evaluate(partial(bicubic, scale=valid_set.scale), valid_set, limit, progress=False))
    rows = [["bicubic", f"{base.psnr:.2f}", "", f"{base.ssim:.4f}", _digits(base.niqe)]]
    for name, history in histories.items():
        for last in {row["phase"]: row for row in history}.values():
            rows.append([f"{name}, {last['phase']} {last['epoch']:.0f}", f"{last['psnr']:.2f}",
                         f"{last['psnr'] - base.psnr:+.2f}", f"{last['ssim']:.4f}", _digits(last.get("niqe"))])
    return Table(rows, ["after", "PSNR (dB)", "over bicubic", "SSIM", "NIQE"])


def _digits(value):
    return "" if value is None else f"{value:.2f}"


def score_captions(pictures, border=4):
    """PSNR and SSIM against the last picture for all others of its size, as captions for `plots.plot_comparison`."""
    *_, original = pictures.values()
    same = {title: p for title, p in pictures.items() if p.shape == original.shape and p is not original}
    return {title: f"{psnr(p, original, border):.2f} dB / {ssim(p, original, border):.3f}" for title, p in same.items()}
