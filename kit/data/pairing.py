"""From folders of pictures to pairs of files, each opened and checked."""

import hashlib
import re
import threading
from contextlib import contextmanager
from pathlib import Path

from kit.language import tr
from utils import pixels_of, read_picture

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}


def find_pairs(folder, lr_folder=None, scale=4):
    """Pair the high- and low-resolution files of a set by their names.

    Understands `HR/` beside `LR_bicubic/X4/` (EDSR's benchmarks), `…_HR/` beside `…_LR_bicubic/X4/`
    (DIV2K), `image_SRF_4/` with `…_HR.png` and `…_LR.png` in one folder, two folders named outright,
    and a folder with high resolution only.

    Returns (pairs, left_out): lists of (hr path, lr path or None) and of (file name, reason).
    Raises FileNotFoundError when a folder is missing.
    """
    folder = Path(folder)
    if (folder / "HR").is_dir() and lr_folder is None:
        folder, lr_folder = folder / "HR", folder / "LR_bicubic" / f"X{scale}"
    elif (folder / f"image_SRF_{scale}").is_dir():
        folder = folder / f"image_SRF_{scale}"
    elif folder.name.endswith("_HR") and lr_folder is None:
        sibling = folder.with_name(folder.name[: -len("HR")] + "LR_bicubic") / f"X{scale}"
        lr_folder = sibling if sibling.is_dir() else None
    hr, left_out = picture_files(folder)

    if lr_folder is not None:
        lr, foreign = picture_files(Path(lr_folder))
        partner = {stem: next((name for name in (f"{stem}x{scale}", stem) if name in lr), None) for stem in hr}
        expected = {stem: f"{stem}x{scale}.png in {lr_folder}" for stem in hr}
        left_out += foreign
    elif any(stem.endswith("_LR") for stem in hr):
        lr = {stem: hr.pop(stem) for stem in list(hr) if stem.endswith("_LR")}
        partner = {stem: re.sub("_HR$", "_LR", stem) for stem in hr}
        expected = {stem: f"{partner[stem]}.png" for stem in hr}
        partner = {stem: name if name in lr else None for stem, name in partner.items()}
    else:
        return [(path, None) for path in hr.values()], left_out

    pairs = [(hr[stem], lr[name]) for stem, name in partner.items() if name]
    left_out += [(hr[stem].name, tr("has no low-resolution partner (expected {name})", name=expected[stem]))
                 for stem, name in partner.items() if not name]
    left_out += [(lr[stem].name, tr("has no high-resolution partner")) for stem in lr
                 if stem not in partner.values()]
    return pairs, left_out


def picture_files(folder):
    """({stem: path} in natural order, [(file name, reason)]) of a folder; hidden files do not count."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    pictures, left_out = {}, []
    for path in sorted(folder.iterdir(), key=_natural_order):
        if path.name.startswith(".") or path.is_dir():
            continue
        if not path.name.isprintable():  # (what is not UTF-8 cannot be written to a list)
            left_out.append((ascii(path.name), tr("has a name with unusual characters; rename it")))
        elif path.suffix.lower() not in SUFFIXES:
            left_out.append((path.name, tr("is not a picture file")))
        elif path.stem in pictures:
            left_out.append((path.name, tr("has the same name as {name}", name=pictures[path.stem].name)))
        else:
            pictures[path.stem] = path
    return pictures, left_out


def _natural_order(path):
    return [int(part) if part.isdecimal() else part for part in re.split("([0-9]+)", path.name)]


MOST_PIXELS = 64_000_000  # decoded at a time, unless one picture alone has more


class PixelBudget:
    """Lets as many pictures be decoded at a time as have so many pixels together, and a larger one alone."""

    def __init__(self, pixels):
        self.pixels, self.used, self.changed = pixels, 0, threading.Condition()

    @contextmanager
    def of(self, file):
        """A context for decoding a file."""
        pixels = min(pixels_of(file), self.pixels)
        with self.changed:
            self.changed.wait_for(lambda: self.used + pixels <= self.pixels)
            self.used += pixels
        try:
            yield
        finally:
            with self.changed:
                self.used -= pixels
                self.changed.notify_all()


def check_pair(hr_file, lr_file, scale, smallest, square, room):
    """(rectangle to use, digest of the pixels, None) or (None, None, what is wrong).

    The rectangle is the whole picture cut to a multiple of the scale, or the `square` in its middle.
    """
    try:
        with room.of(hr_file):
            return _checked_pair(hr_file, lr_file, scale, smallest, square)
    except (ValueError, OSError) as error:
        return None, None, re.sub(rf"^{re.escape(str(hr_file))}: ", "", str(error))


def _checked_pair(hr_file, lr_file, scale, smallest, square):
    hr = read_picture(hr_file, stored=True)
    lr = read_picture(lr_file, stored=True) if lr_file else None
    smallest = square or max(smallest, scale)
    if min(hr.shape[:2]) < smallest:
        return None, None, tr("is {size}, too small (at least {smallest} on both sides)", smallest=smallest,
                              size=f"{hr.shape[1]}×{hr.shape[0]}")
    height, width = ((square or side) // scale * scale for side in hr.shape[:2])
    top, left = ((side - square) // 2 if square else 0 for side in hr.shape[:2])
    if lr is not None and (lr.shape[0] * scale, lr.shape[1] * scale) != (height, width):
        return None, None, tr("is {size}, which is not {scale} times its low resolution {name} ({small})", scale=scale,
                              size=f"{hr.shape[1]}×{hr.shape[0]}", name=lr_file.name,
                              small=f"{lr.shape[1]}×{lr.shape[0]}")
    rectangle = {"width": width, "height": height, "left": left, "top": top}
    return rectangle, hashlib.sha256(repr(hr.shape).encode() + hr.tobytes()).digest(), None
