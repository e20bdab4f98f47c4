"""Whether the graded pictures are there, of the right size, and score what the notebook says."""

import json
import math
import re
from pathlib import Path

import numpy as np

from datasets import TestDataset
from kit.handin.contents import RESULT
from kit.handin.findings import Finding, sanitize
from kit.handin.notebooks import shown_scores
from kit.handin.texts import JSON, text_of
from kit.language import tr
from kit.picture_files import pixels_of
from utils import psnr, read_picture, ssim, to_rgb

PSNR_TOLERANCE, SSIM_TOLERANCE = 0.02, 5e-4  # another machine rounds otherwise
# On Set5, ×4, the best published networks of any size are below 33.5 dB: what is above did not come from the low
# resolution alone.
DOUBTFUL, IMPOSSIBLE = 32.8, 34.0
SET5 = ["baby", "bird", "butterfly", "head", "woman"]  # in the order of img_001 to img_005, as it is called elsewhere
OTHER_ENDINGS = [".PNG", ".jpg", ".jpeg", ".JPG", ".bmp", ".tif", ".tiff", ".webp"]


def check_pictures(root, lists):
    """Whether the graded pictures are there and of the right size, and whether test.ipynb says what they score."""
    try:
        said = json.loads(text_of(root / RESULT / "result.json", JSON))
        graded, method = str(said["set"]), str(said["method"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(tr("{file} is missing or damaged; run super_resolution.ipynb to its end",
                            file=f"{RESULT.as_posix()}/result.json")) from error
    csv_file = Path(lists, f"{graded}.csv")
    if not re.fullmatch(r"\w+", graded) or not csv_file.is_file():
        raise ValueError(tr("its pictures are of the set {set!r}, of which there is no list in {lists}",
                            set=sanitize(graded), lists=lists))
    findings, scores = [], {}
    for pair in TestDataset(csv_file, 4):
        path, (height, width) = picture_file(root / RESULT / graded, pair.name, graded), pair.hr.shape[:2]
        if path.is_file() and path.name != f"{pair.name}.png":
            lossy = tr("; what it has lost counts") if path.suffix.lower() in (".jpg", ".jpeg") else ""
            findings.append(Finding("pictures", "note", tr("{picture} was found as {name}{lossy}", lossy=lossy,
                                                           picture=f"{graded}/{pair.name}.png",
                                                           name=sanitize(path.name))))
        try:
            if path.is_file() and pixels_of(path) > 4 * height * width:
                raise ValueError(tr("is far larger than {size}", size=f"{width}×{height}"))
            picture = read_picture(path)  # in the colours in which raters see it
            if picture.shape[:2] != (height, width):
                raise ValueError(tr("is {size}, and should be {wanted}", wanted=f"{width}×{height}",
                                    size=f"{picture.shape[1]}×{picture.shape[0]}"))
            if picture.ndim != pair.hr.ndim:  # a grey one saved as RGB, or the other way round
                picture = picture[..., 0] if picture.ndim == 3 else to_rgb(picture)
            scores[pair.name] = psnr(picture, pair.hr), ssim(picture, pair.hr)
        except FileNotFoundError:
            findings.append(Finding("pictures", "problem", tr("{name} is missing", name=f"{graded}/{pair.name}.png")))
        except ValueError as error:
            findings.append(Finding("pictures", "problem",
                                    f"{graded}/{pair.name}.png: {sanitize(str(error).rpartition(': ')[2])}"))
    if any(one.verdict == "problem" for one in findings):
        return findings, {}
    measured = tuple(np.mean(list(scores.values()), axis=0).tolist())
    text = tr("{set}: {psnr:.2f} dB / {ssim:.4f}, measured from the pictures", set=graded, psnr=measured[0],
              ssim=measured[1])
    shown = shown_scores(root / "test.ipynb").get((graded, method))
    if shown is None:
        verdict = Finding("scores", "problem", tr("{text}; test.ipynb shows no table with {set} and {method!r}",
                                                  text=text, set=graded, method=sanitize(method)))
    elif not any(are_equal(one, measured) for one in shown):
        verdict = Finding("scores", "problem", tr(
            "{text}, but test.ipynb says {psnr:.2f} / {ssim:.4f} for {method!r}; run both notebooks again with the "
            "same run", text=text, psnr=shown[0][0], ssim=shown[0][1], method=sanitize(method)))
    else:
        verdict = Finding("scores", "ok", tr("{text}, as in test.ipynb", text=text))
    other = RESULT / "Set5"
    if graded != "Set5" and Path(lists, "Set5.csv").is_file() and (root / other).is_dir():
        findings.append(Finding("pictures", "problem", tr(
            "result.json says that they are of {set}, and there are others in {folder}; run super_resolution.ipynb "
            "again, with Set5", set=graded, folder=other.as_posix())))
    if graded != "Set5":
        findings.append(Finding("pictures", "note", tr(
            "they are of {set}, and it is Set5 that is graded; to get it: {command}", set=graded,
            command="python create_data_lists.py --download benchmarks --data data")))
    same = [name for name, (value, _) in scores.items() if math.isinf(value)]
    if same:
        findings.append(Finding("pictures", "problem", tr("{names}: they are the originals themselves",
                                                          names=", ".join(same))))
    elif graded == "Set5" and measured[0] > DOUBTFUL:
        impossible = measured[0] > IMPOSSIBLE
        doubt = tr("{psnr:.2f} dB on Set5 is more than any network can reach: are the originals in them?") \
            if impossible else tr("{psnr:.2f} dB on Set5 is more than all but the largest published networks reach; "
                                  "have a look at how it was trained")
        findings.append(Finding("pictures", "problem" if impossible else "note", doubt.format(psnr=measured[0])))
    if method == "bicubic":
        findings.append(Finding("pictures", "problem", tr("they are bicubic interpolation, and no network's; choose "
                                                          "another MINE in super_resolution.ipynb")))
    made = tr("all {count} of {set}, by {method!r} of the run {run!r}", count=len(scores), set=graded,
              method=sanitize(method), run=sanitize(said.get("run")))
    return [*findings, Finding("pictures", "ok", made), verdict], dict(
        zip(("psnr", "ssim"), measured))


def are_equal(scores, others):
    """Whether two pairs of PSNR and SSIM are the same but for rounding."""
    return all(one == other or abs(one - other) <= tolerance
               for one, other, tolerance in zip(scores, others, (PSNR_TOLERANCE, SSIM_TOLERANCE)))


def picture_file(folder, name, graded):
    """Where a picture is in the folder of a set, and where it would be if it is not there.

    It is called as the kit calls it, or has another ending, or another of the usual names of Set5's pictures.
    """
    keys = [name]
    if graded == "Set5":
        number = re.match(r"img_(\d+)", name)
        index = int(number[1]) - 1 if number else SET5.index(name) if name in SET5 else len(SET5)
        keys += [SET5[index], f"img_{index + 1:03d}"] if 0 <= index < len(SET5) else []
    files = [folder / f"{key}{ending}" for key in keys for ending in (".png", *OTHER_ENDINGS)]
    more = [path for path in sorted(folder.glob("*")) if path.suffix in (".png", *OTHER_ENDINGS)
            and any(path.stem.startswith(f"{key}_") for key in keys[1:])]
    return next((path for path in [*files, *more] if path.is_file() and not path.is_symlink()), files[0])
