"""Validation: what the generator makes of the first pictures of a list, and how good that is."""

import zlib

import numpy as np

from datasets import TestDataset
from kit.evaluation.measure import evaluate, mean_scores, smallest_side
from kit.evaluation.niqe import BLOCK
from utils import Enlarger

FLAT = 3  # grey levels from the darkest to the lightest: of a picture of one colour, PSNR says nothing about training


def enlarger(generator, machine):
    """How validation enlarges: in the number format of training, if that is one that suits enlarging."""
    return Enlarger(generator, precision="auto" if machine.precision == "fp16" else machine.precision)


def low_resolutions(valid_set, cfg):
    """The sizes (height, width) of the first and of the largest validation picture, made small."""
    rows = valid_set.rows[: cfg.valid_pictures]
    shown = [rows[0], max(rows, key=lambda row: row.width * row.height)]
    return list(dict.fromkeys((row.height // cfg.scale, row.width // cfg.scale) for row in shown))


def validate(generator, valid_set, cfg, machine):
    """Enlarge and score the validation pictures; several processes share them.

    In all of them batch norm has the averages of the first, which are kept.
    Returns (scores, samples): mean `psnr`, `ssim` and, where there is one, `niqe`, and `judged`, by which divergence is
    told; and a list of (Pair, picture) of the first `cfg.sample_pictures`.
    """
    rank, world = machine.rank, machine.world
    machine.broadcast_buffers(generator)
    enlarge_one, mine = enlarger(generator, machine), []

    def enlarge(lr):
        picture = enlarge_one(lr)
        if rank + world * len(mine) < cfg.sample_pictures:
            mine.append(picture)
        return picture

    rows = evaluate(enlarge, valid_set, cfg.valid_pictures, progress=False, part=rank, parts=world)
    scores, pictures = {}, {}
    for part, (part_rows, part_pictures) in enumerate(machine.gather((rows, mine))):
        scores.update(zip(range(part, cfg.valid_pictures, world), part_rows))
        pictures.update(zip(range(part, cfg.valid_pictures, world), part_pictures))
    rows = [scores[index] for index in sorted(scores)]
    means = {name: value for name, value in mean_scores(rows)._asdict().items() if value is not None}
    judged = [row["psnr"] for index, row in enumerate(rows) if index not in valid_set.flat]
    return ({**means, "judged": judged},
            [(valid_set[index], pictures[index]) for index in sorted(pictures)])


def validation_set(cfg):
    """The pictures to validate with, a TestDataset. Raises ValueError for one that scores cannot be taken of."""
    valid_set = TestDataset(cfg.valid_list, cfg.scale, keep=cfg.valid_pictures)
    valid_set.flat = set()
    smallest = smallest_side(cfg.scale)
    for index, row in enumerate(valid_set.rows[: cfg.valid_pictures]):
        if min(row.width, row.height) < smallest:
            raise ValueError(f"{row.hr}: is {row.width}×{row.height}, too small to validate with (at least {smallest} "
                             f"on both sides); leave it out of the list")
        hr = valid_set[index].hr  # raises what reading it raises
        if np.ptp(hr) <= FLAT:
            valid_set.flat.add(index)
    blocks = [(row.width - 2 * cfg.scale) // BLOCK * ((row.height - 2 * cfg.scale) // BLOCK)
              for row in valid_set.rows[: cfg.valid_pictures]]
    if cfg.best_by == "niqe" and max(blocks) < 2:
        raise ValueError(f"best_by is 'niqe', but none of the first {len(blocks)} pictures of {cfg.valid_list} is "
                         f"large enough for it (two blocks of {BLOCK}×{BLOCK} pixels); set best_by to 'psnr'")
    return valid_set


def digest_of(valid_set, count):
    """A text that stands for the pixels of the first `count` validation pictures."""
    crc, count = 0, min(count, len(valid_set))
    for index in range(count):
        for picture in valid_set[index][1:]:
            crc = zlib.crc32(np.ascontiguousarray(picture), crc)
    return f"{count} pictures, {crc:08x}"
