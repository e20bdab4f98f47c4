"""From folders of pictures to pairs of files, each opened and checked; and the tables in which these are listed."""

import csv
import hashlib
import io
import re
import threading
import unicodedata
from contextlib import contextmanager
from pathlib import Path

from kit.language import tr
from kit.picture_files import SUFFIXES, UNREADABLE, pixels_of
from utils import read_picture

# How sets are laid out, {scale} in place of the number: folders of high and of low resolution within that of the set.
WITHIN = {"HR": "LR_bicubic/X{scale}",  # EDSR's benchmarks
          "GTmod12": "LRbicx{scale}"}  # BasicSR's
# And, beside a folder …_HR, for DIV2K as its archives are unpacked: into one folder, or each into its own.
BESIDE = ["{name}_LR_bicubic/X{scale}", "{name}_LR_bicubic_X{scale}/{name}_LR_bicubic/X{scale}"]

ENCODINGS = ["utf-8-sig", "gb18030", "big5"]  # of tables: the kit's; and what Excel saves in China, and in Taiwan


def find_pairs(folder, lr_folder=None, scale=4):
    """Pair the high- and low-resolution files of a set by their names.

    Understands `HR/` beside `LR_bicubic/X4/` (EDSR's benchmarks), `GTmod12/` beside `LRbicx4/` (BasicSR's), `…_HR/`
    beside `…_LR_bicubic/X4/` (DIV2K), `image_SRF_4/` with `…_HR.png` and `…_LR.png` in one folder, two folders named
    outright, and a folder with high resolution only; and each of them one folder deeper, where nothing else is.

    Returns (pairs, left_out): lists of (hr path, lr path or None) and of (file name, reason).
    Raises FileNotFoundError when a folder is missing or holds no file, naming the folders that it holds.
    """
    folder = Path(folder).expanduser()
    if lr_folder is None:
        folder, lr_folder = _parts(folder, scale)
    else:
        folder, lr_folder = _with_files(folder), _with_files(Path(lr_folder).expanduser())
    hr, left_out = picture_files(folder)
    if not hr and not left_out:
        inside = ", ".join(path.name for path in _folders_in(folder))
        raise FileNotFoundError(f"{folder}: holds no pictures" + (f", but the folders {inside}; name the one that is "
                                                                   f"meant" if inside else ""))

    if lr_folder is not None:
        lr, foreign = picture_files(Path(lr_folder))
        partner = {stem: next((name for name in (f"{stem}x{scale}", stem) if name in lr), None) for stem in hr}
        expected = {stem: f"{stem}x{scale}.png in {lr_folder}" for stem in hr}
        left_out += foreign
    elif _has_low_resolution(hr):
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


def _has_low_resolution(pictures):
    """Whether those that are called …_LR are low resolution, and not each a photograph that happens to be called so."""
    low, names = [name for name in pictures if name.endswith("_LR")], {name.lower() for name in pictures}
    return low and (len(low) == len(pictures) or any(re.sub("_LR$", "_hr", name).lower() in names for name in low))


def _parts(folder, scale):
    """The folders of high and of low resolution (None where that is to be made) of a set."""
    for place in (folder, *_only_folder_in(folder)):
        for hr, lr in WITHIN.items():
            if (place / hr).is_dir():  # (without any low resolution it is to be made; without that of this scale not)
                lr = place / lr.format(scale=scale)
                return place / hr, lr if lr.is_dir() or _folders_in(place) != [place / hr] else None
        if (place / f"image_SRF_{scale}").is_dir():
            return place / f"image_SRF_{scale}", None
    hr, base = _with_files(folder), folder.name.removesuffix("_HR")
    if base != folder.name:
        lows = [folder.parent / low.format(name=base, scale=scale) for low in BESIDE]
        return hr, next((_with_files(low) for low in lows if low.is_dir()), None)
    return hr, None


def _with_files(folder):
    """A folder, or the only one in it where it holds nothing else, as those who unpack archives often make one."""
    return next(iter(_only_folder_in(folder)), folder)


def _only_folder_in(folder):
    """A list with the folder that a folder holds, if it holds nothing else that is to be seen."""
    folders = _folders_in(folder)
    alone = len(folders) == 1 and not any(path.is_file() and not path.name.startswith(".") for path in folder.iterdir())
    return folders if alone else []


def _folders_in(folder):
    """The folders in a folder, without hidden ones and macOS's `__MACOSX`."""
    inside = folder.iterdir() if folder.is_dir() else []
    return sorted(path for path in inside if path.is_dir() and not path.name.startswith((".", "__")))


def picture_files(folder):
    """({stem: path} in natural order, [(file name, reason)]) of a folder; hidden files do not count."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    pictures, left_out = {}, []
    for path in sorted(folder.iterdir(), key=_natural_order):
        if path.name.startswith(".") or path.is_dir():
            continue
        if not _can_be_listed(path.name):
            left_out.append((ascii(path.name), tr("has a name with unusual characters; rename it")))
        elif path.suffix.lower() in UNREADABLE:
            left_out.append((path.name, tr("is in the format {name}, which is not read here; save it as PNG or JPEG",
                                           name=path.suffix[1:].upper())))
        elif path.suffix.lower() not in SUFFIXES:
            left_out.append((path.name, tr("is not a picture file")))
        elif path.stem in pictures:
            left_out.append((path.name, tr("has the same name as {name}", name=pictures[path.stem].name)))
        else:
            pictures[path.stem] = path
    return pictures, left_out


def _can_be_listed(name):
    """Whether a list can have a name: it is in UTF-8, and has no ends of lines or other controls in it."""
    return not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name)


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


def read_list_file(csv_file):
    """(names of the columns, lines) of a list, whatever a spreadsheet has made of its encoding and its commas.

    Raises ValueError for one in no encoding that is known, and csv.Error for what is no CSV.
    """
    data = csv_file.read_bytes()
    for encoding in ENCODINGS:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        delimiter = next((mark for mark in ",;\t" if mark in text.partition("\n")[0]), ",")
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        fields, lines = reader.fieldnames or [], list(reader)
        if encoding == ENCODINGS[0] or all((csv_file.parent / (line.get("hr") or "")).is_file() for line in lines):
            return fields, lines
    raise ValueError(f"{csv_file}: not a CSV file in UTF-8; save it as one, or make it with create_data_lists.py")
