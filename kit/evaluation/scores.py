"""Scores of several methods on several test sets, and the tables of them beside published results."""

from functools import partial
from pathlib import Path

import numpy as np

from datasets import TestDataset
from kit.console import Table, progress_bar
from kit.evaluation.measure import ORIGINAL, Scores, evaluate, evaluate_indices, mean_scores, measurable, scale_of
from kit.files import write_csv, write_whole
from kit.language import tr
from utils import bicubic

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

COLUMNS = ["set", "picture", "method", *Scores._fields]


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
        method. Pictures too small for SSIM are named and left out.

    Raises ValueError for a set without any that is large enough.
    """
    sets = {Path(csv_file).stem: TestDataset(csv_file, scale or scale_of(methods)) for csv_file in csv_files}
    scores, ways, large = [], {**methods, **({ORIGINAL: None} if originals else {})}, {}
    for name, dataset in sets.items():
        large[name], small = measurable(dataset)
        if not large[name]:
            raise ValueError(f"{name}: all of its pictures are too small for SSIM: {', '.join(small)}")
        if small:
            print(tr("{set}: left out, for they are too small for SSIM: {names}", set=name, names=", ".join(small)))
    with progress_bar(None, tr("measuring"), progress, total=len(ways) * sum(map(len, large.values()))) as bar:
        for name, dataset in sets.items():
            for method, enlarge in ways.items():
                bar.set_postfix_str(f"{name}, {method}")
                scores += [{"set": name, "method": method, **row}
                           for row in evaluate_indices(enlarge, dataset, large[name], bar, also)]
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


def phase_table(histories, valid_set, limit=None):
    """How runs stand after each of their phases, beside bicubic interpolation, as a table.

    `histories` is a dict of str → list of dict (name of the run → its epochs), `valid_set` the TestDataset that
    they were validated on.
    """
    base = mean_scores(evaluate(partial(bicubic, scale=valid_set.scale), valid_set, limit, progress=False))
    rows = [[tr("bicubic"), f"{base.psnr:.2f}", "", f"{base.ssim:.4f}", _digits(base.niqe)]]
    for name, history in histories.items():
        for last in {row["phase"]: row for row in history}.values():
            rows.append([f"{name}, {last['phase']} {last['epoch']:.0f}", f"{last['psnr']:.2f}",
                         f"{last['psnr'] - base.psnr:+.2f}", f"{last['ssim']:.4f}", _digits(last.get("niqe"))])
    return Table(rows, [tr("after"), "PSNR (dB)", tr("over bicubic"), "SSIM", "NIQE"])


def _digits(value):
    return "" if value is None else f"{value:.2f}"
