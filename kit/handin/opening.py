"""Opening what somebody has handed in: archives of all kinds, names of all encodings, files wherever they were put.

Nothing that is opened is run, and nothing is written outside the new folder.
"""

import importlib
import os
import re
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
from contextlib import suppress
from pathlib import Path

from kit.files import Link, TooMuch, extract, is_no_room, members
from kit.handin import sandbox
from kit.handin.contents import NEEDED, NOT_OWN, RESULT
from kit.handin.findings import Finding, sanitize
from kit.language import tr

LARGEST, MOST_FILES, DEEPEST = 100, 2000, 20  # megabytes unpacked, files, folders
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
UNREADABLE = {".7z": "7-Zip", ".rar": "RAR"}
# What systems and editors put beside the files of a person.
JUNK = {"__MACOSX", ".ipynb_checkpoints", "__pycache__", ".DS_Store", "Thumbs.db", "desktop.ini", ".git", ".idea",
        ".vscode", ".pytest_cache"}


class Refused(ValueError):
    """A hand-in that is not looked into."""


def opened(handin, target):
    """Copy the files of a hand-in into the new folder `target`, and arrange them as the kit has them.

    Parameters
    ----------
    handin : path, list of paths, or dict of path → str
        An archive, a folder, one that holds an archive, or several files, with what they are called, from the oldest
        to the newest.
    target : path

    Returns
    -------
    root : pathlib.Path
        The folder that holds models.py and all that belongs beside it.
    findings : list of Finding
        What was found in another place, or under another name, than the kit writes it.

    Symbolic links are left out. Raises Refused for another file, for a damaged archive, one that leads out of its
    folder, and one that is too large; OSError where the disk is full.
    """
    target = Path(target)
    target.mkdir(parents=True)
    try:
        names, several = files_of(handin), isinstance(handin, (list, dict))
        whole, notes = [path for path in names if not several or path.is_dir() or is_archive(path)], []
        for path in whole:
            _bring(path, target, True)
        _open_inner(target)
        root, newest = root_of(target), max((list(names).index(path) for path in whole), default=-1)
        for number, path in enumerate(names):  # beside what is in the archive (a .docx is a zip, too, and stays so)
            if path not in whole and (number > newest or not (root / names[path]).exists()):
                notes += _put_beside(path, root, names[path], whole)
        root = root_of(target)
        notes += _copies(target)
        return root, [*notes, *_arrange(root, target)]
    except Refused:
        sandbox.remove(target)
        raise
    except TooMuch:
        sandbox.remove(target)
        raise Refused(_too_large(_named(handin))) from None
    except Exception as error:  # of all that can be wrong with a stranger's files, nothing may come through
        sandbox.remove(target)
        if is_no_room(error):  # here, which is not theirs
            raise
        raise Refused(tr("{name}: cannot be unpacked ({error})", name=_named(handin),
                         error=sanitize(error)[:200])) from error


def _too_large(name):
    return tr("{name}: has more than {count} files or {size} MB in it; was it made by python -m kit zip?", name=name,
              count=MOST_FILES, size=LARGEST)


def files_of(handin):
    """The files and folders of a hand-in, as `opened` takes it, and what they are called: path → name."""
    if isinstance(handin, dict):
        return {Path(path): name for path, name in handin.items()}
    return {Path(path): Path(path).name for path in (handin if isinstance(handin, list) else [handin])}


def _named(handin):
    return sanitize(next(iter(files_of(handin))).name)


def is_junk(path):
    """Whether a path, relative to a hand-in, is of what systems and editors leave beside a person's files."""
    return any(part in JUNK or part.startswith("._") for part in Path(path).parts)


def is_archive(path):
    return Path(path).name.lower().endswith(ARCHIVES)


def _bring(path, target, unpack, name=None):
    """Copy a file, as `name`, or a folder into the folder `target`, or `unpack` it there if it is an archive."""
    if path.is_dir():
        _copy_folder(path, target)
    elif unpack and (zipfile.is_zipfile(path) or is_archive(path) and tarfile.is_tarfile(path)):
        _unpack(path, target)
    elif path.suffix.lower() in UNREADABLE:
        kind = UNREADABLE[path.suffix.lower()]
        raise Refused(tr("{name}: is neither a folder nor a zip, but of {kind}, which cannot be opened here; unpack "
                         "it, and put the folder in its place", name=sanitize(path.name), kind=kind))
    elif is_archive(path) or path.stat().st_size > LARGEST * 2**20 or not path.suffix:
        raise Refused(tr("{name}: is neither a folder nor a zip", name=sanitize(path.name)))
    else:
        shutil.copyfile(path, target / (name or path.name))


def _put_beside(path, root, name, whole):
    """Copy a single file; says as a note that it is left out, where there is a `whole` archive and it cannot be."""
    try:
        _bring(path, root, False, name)
        return []
    except Refused:
        if not whole:
            raise
        return [Finding("files", "note", tr("{name} was not looked at: it is too large, or has no ending",
                                            name=sanitize(name)))]


def _open_inner(target):
    """Unpack the one archive in what was handed in, as platforms wrap them, where no file that counts is beside it."""
    for _ in range(3):
        files = [path for path in target.rglob("*") if path.is_file() and not is_junk(path.relative_to(target))]
        archives = [path for path in files if is_archive(path) or path.suffix.lower() in UNREADABLE]
        if len(archives) != 1 or _needed_in(target):
            return
        with tempfile.TemporaryDirectory() as place:  # out of the way of what is in it
            inner = Path(shutil.move(archives[0], place))
            _bring(inner, target, True)


def _copy_folder(folder, target):
    """Copy the plain files of a folder, no links."""
    room, left = LARGEST * 2**20, MOST_FILES
    for place, _, names in os.walk(folder):  # (which does not follow links)
        inside = Path(place).relative_to(folder)
        if is_junk(inside):
            continue
        if len(inside.parts) > DEEPEST:
            raise Refused(tr("{name}: has folders in folders in it, more than {count} deep",
                             name=sanitize(folder.name), count=DEEPEST))
        for name in names:
            path = Path(place, name)
            about = path.lstat()
            if not stat.S_ISREG(about.st_mode) or is_junk(name):
                continue
            room, left = room - about.st_size, left - 1
            if room < 0 or left < 0:
                raise Refused(_too_large(sanitize(folder.name)))
            (target / inside).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / inside / name)


def _unpack(path, target):
    """Unpack an archive within limits, all names looked at before the first file is written."""
    name = sanitize(path.name)
    if _is_far_too_large(path):
        raise Refused(_too_large(name))
    if zipfile.is_zipfile(path):  # what Python unpacks at once, however large it is, is not unpacked
        with zipfile.ZipFile(path) as archive:
            if any(item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
                   for item in archive.infolist()):
                raise Refused(tr("{name}: is compressed in an unusual way; make it with python -m kit zip", name=name))
    with members(path, largest=2 * LARGEST * 2**20) as entries:  # (with headers and what systems leave)
        # (`tar` takes links along, to where the pictures are, say.)
        entries = [entry for entry in entries if not is_junk(entry[0]) and not isinstance(entry[2], Link)]
        for inside, _, problem, _ in entries:
            if problem:
                raise Refused(tr("{name}: refused, because it contains {inside!r}, {problem}", name=name,
                                 inside=sanitize(inside)[:100], problem=problem))
        if len(entries) > MOST_FILES or sum(size for _, size, _, _ in entries) > LARGEST * 2**20:
            raise Refused(_too_large(name))
        extract(entries, target)


def _is_far_too_large(path):
    """Whether an archive has so many names, or so much in it, that it is not even listed."""
    if zipfile.is_zipfile(path):
        with open(path, "rb") as file:  # (asked as zipfile asks, whatever else a file says)
            return zipfile._EndRecData(file)[zipfile._ECD_SIZE] > 1000 * MOST_FILES  # bytes of its directory
    for kind in ("gzip", "bz2", "lzma"):  # (not every Python has all)
        with suppress(Exception), importlib.import_module(kind).open(path) as unpacked:
            size, most = 0, 2 * LARGEST * 2**20
            while size <= most and (read := len(unpacked.read(2**20))):
                size += read
            return size > most
    return False


# ------------------------------------------------------------------------------------------- where things are


def root_of(folder):
    """The folder that holds what is handed in, wherever it is within it; the folder itself without anything."""
    found = [path.parent for path in _needed_in(Path(folder)).values()]
    return Path(os.path.commonpath(found)) if found else Path(folder)


def _copies(folder):
    """A note for the first file that is there in two folders, none in the other: which one is looked at."""
    files = _own_files(folder)
    for name, path in _needed_in(folder).items():
        for other in files:
            if (other != path and other.name == path.name and len(other.parts) == len(path.parts)
                    and other.read_bytes() != path.read_bytes()):
                return [Finding("files", "note", tr(
                    "there are two of {name}, and they differ: {found} was looked at, and not {other}", name=name,
                    found=sanitize(path.relative_to(folder)), other=sanitize(other.relative_to(folder))))]
    return []


def _own_files(folder):
    """The files in a folder, the least deep first, but for those in folders of the kit and of what it makes."""
    files = [path for path in folder.rglob("*")
             if path.is_file() and not set(path.relative_to(folder).parts[:-1]) & NOT_OWN]
    return sorted(files, key=lambda path: (len(path.parts), str(path)))


def _needed_in(folder):
    """Where the files are that are handed in: name → path, of several the least deep, and rather of the right name.

    Folders of the kit and of what it makes are left out: what is called alike there was not handed in.
    """
    files, found = _own_files(folder), {}
    for name in NEEDED:
        fits = ([path for path in files if path.name == name]
                or [path for path in files if path.name not in NEEDED and _plain(path.name) == name])
        if fits:
            found[name] = fits[0]
    return found


def _plain(name):
    """A file's name without what copies, browsers and attempts add to it: "train (1).ipynb" is "train.ipynb"."""
    name = unicodedata.normalize("NFKC", name).lower()
    stem, dot, ending = name.rpartition(".")
    marks = r"[-_\s]*(\(\d+\)|copy|副本|最终版?|final|v\d+|\d+)$"
    while (shorter := re.sub(marks, "", stem)) != stem and shorter:
        stem = shorter
    return f"{stem}{dot}{ending}"


def _arrange(root, folder):
    """Move what is needed to where the kit has it; says as notes what was found elsewhere."""
    files = sorted(filter(Path.is_file, folder.rglob("*")), key=lambda path: (len(path.parts), str(path)))
    notes = []

    def move(path, place):
        place.parent.mkdir(parents=True, exist_ok=True)
        found = sanitize(path.relative_to(root) if path.is_relative_to(root) else path.relative_to(folder))
        notes.append(_found_as(place.relative_to(root), found))
        path.rename(place)

    for name, path in _needed_in(folder).items():
        if (root / name).is_file():
            continue
        beside = [other for other in path.parent.iterdir() if other != path] if name == "models.py" else []
        move(path, root / name)
        for other in beside:  # the packages that it imports
            if path.parent != root and not (root / other.name).exists() and (other.is_dir() or other.suffix == ".py"):
                other.rename(root / other.name)
    if not (root / RESULT / "result.json").is_file():
        path = next((path for path in files if path.is_file() and path.name == "result.json"), None)
        if path and not (root / RESULT).exists():
            place = path.parent
            notes.append(_found_as(RESULT, sanitize(place.relative_to(folder)) or "."))
            (root / RESULT).mkdir(parents=True)
            for other in list(place.iterdir()):
                if other == path or other.is_dir() and other.name not in ("results", *NOT_OWN):
                    other.rename(root / RESULT / other.name)
    if not (root / "results" / "cells.jsonl").is_file():
        path = next((path for path in files if path.is_file() and path.name == "cells.jsonl"), None)
        if path:
            move(path, root / "results" / "cells.jsonl")
    return notes


def _found_as(name, found):
    return Finding("files", "note", tr("{name} was found as {found}", name=name.as_posix(), found=found))
