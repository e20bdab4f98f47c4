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
from kit.handin.texts import text_of
from utils import pixels_of, psnr, read_picture, ssim, to_rgb

PSNR_TOLERANCE, SSIM_TOLERANCE = 0.02, 5e-4  # another machine rounds otherwise
# On Set5, ×4, the best published networks of any size are below 33.5 dB: what is above did not come from the low
# resolution alone.
DOUBTFUL, IMPOSSIBLE = 32.8, 34.0
SET5 = ["baby", "bird", "butterfly", "head", "woman"]  # in the order of img_001 to img_005, as it is called elsewhere
OTHER_ENDINGS = [".PNG", ".jpg", ".jpeg", ".JPG", ".bmp", ".tif", ".tiff", ".webp"]


def check_pictures(root, lists):
    """Whether the graded pictures are there and of the right size, and whether test.ipynb says what they score."""
    try:
        said = json.loads(text_of(root / RESULT / "result.json"))
        graded, method = str(said["set"]), str(said["method"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{RESULT.as_posix()}/result.json is missing or damaged; run super_resolution.ipynb to its "
                         f"end") from error
    csv_file = Path(lists, f"{graded}.csv")
    if not re.fullmatch(r"\w+", graded) or not csv_file.is_file():
        raise ValueError(f"its pictures are of the set {sanitize(graded)!r}, of which there is no list in {lists}")
    findings, scores = [], {}
    for pair in TestDataset(csv_file, 4):
        path, (height, width) = picture_file(root / RESULT / graded, pair.name, graded), pair.hr.shape[:2]
        if path.is_file() and path.name != f"{pair.name}.png":
            lossy = "; what it has lost counts" if path.suffix.lower() in (".jpg", ".jpeg") else ""
            findings.append(Finding("pictures", "note", f"{graded}/{pair.name}.png was found as {sanitize(path.name)}"
                                                        f"{lossy}"))
        try:
            if path.is_file() and pixels_of(path) > 4 * height * width:
                raise ValueError(f"is far larger than {width}×{height}")
            picture = read_picture(path)
            if picture.shape[:2] != (height, width):
                raise ValueError(f"is {picture.shape[1]}×{picture.shape[0]}, and should be {width}×{height}")
            if picture.ndim != pair.hr.ndim:  # a grey one saved as RGB, or the other way round
                picture = picture[..., 0] if picture.ndim == 3 else to_rgb(picture)
            scores[pair.name] = psnr(picture, pair.hr), ssim(picture, pair.hr)
        except FileNotFoundError:
            findings.append(Finding("pictures", "problem", f"{graded}/{pair.name}.png is missing"))
        except ValueError as error:
            findings.append(Finding("pictures", "problem",
                                    f"{graded}/{pair.name}.png: {sanitize(str(error).rpartition(': ')[2])}"))
    if any(one.verdict == "problem" for one in findings):
        return findings, {}
    measured = tuple(np.mean(list(scores.values()), axis=0).tolist())
    text = f"{graded}: {measured[0]:.2f} dB / {measured[1]:.4f}, measured from the pictures"
    shown = shown_scores(root / "test.ipynb").get((graded, method))
    if shown is None:
        verdict = Finding("scores", "problem", f"{text}; test.ipynb shows no table with {graded} and "
                                               f"{sanitize(method)!r}")
    elif not are_equal(shown, measured):
        verdict = Finding("scores", "problem", f"{text}, but test.ipynb says {shown[0]:.2f} / {shown[1]:.4f} for "
                                               f"{sanitize(method)!r}; run both notebooks again with the same run")
    else:
        verdict = Finding("scores", "ok", f"{text}, as in test.ipynb")
    if graded != "Set5":
        findings.append(Finding("pictures", "note", f"they are of {graded}, and it is Set5 that is graded; to get it: "
                                                    f"python create_data_lists.py --download benchmarks --data data"))
    same = [name for name, (value, _) in scores.items() if math.isinf(value)]
    if same:
        findings.append(Finding("pictures", "problem", f"{', '.join(same)}: they are the originals themselves"))
    elif graded == "Set5" and measured[0] > DOUBTFUL:
        findings.append(Finding("pictures", "problem" if measured[0] > IMPOSSIBLE else "note",
                                f"{measured[0]:.2f} dB on Set5 is more than "
                                + ("any network can reach: are the originals in them?" if measured[0] > IMPOSSIBLE else
                                   "all but the largest published networks reach; have a look at how it was trained")))
    if method == "bicubic":
        findings.append(Finding("pictures", "problem", "they are bicubic interpolation, and no network's; choose "
                                                       "another MINE in super_resolution.ipynb"))
    made = f"all {len(scores)} of {graded}, by {sanitize(method)!r} of the run {sanitize(said.get('run'))!r}"
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
