"""The image cache: all pictures of a list decoded once into a file of raw pixels beside it, from which patches are cut.

A cache is memory-mapped, so training needs no more memory for many pictures than for few, and decodes nothing.
"""

import glob
import hashlib
import json
import os
import zlib
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from kit.compute.limits import cores
from kit.console import progress_bar
from kit.files import full_disk_told, patiently, remove, require_room, waiting_lock, write_whole
from kit.language import tr
from utils import to_rgb

# Its file, and the CRC-32 of the pixels of each pair in it.
ImageCache = namedtuple("ImageCache", "file crcs")


def make_image_cache(csv_file, rows, scale, read, progress=True):
    """Decode the pictures of a list into one file of raw pixels, unless that was done before.

    `rows` are those of the list, and `read(row)` gives the low and the high resolution of one.
    The file holds, for one row after the other, the low and the high resolution as H×W×3 bytes. A JSON
    file beside it says from which files, with which sizes and times, and has a CRC-32 of each pair. When one of the
    files changes, another cache is made, under another name. Making it is parallel, and goes on where it was stopped.
    Of several programs one makes it and the others wait.

    Returns an ImageCache: its path and the CRCs. Raises OSError when the disk lacks room, ValueError for a bad picture.
    """
    csv_file = Path(csv_file)
    sources = {"version": 2, "scale": scale, "pictures": [_source(row) for row in rows]}
    stamp = hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:12]
    cache = csv_file.with_name(f"{csv_file.stem}.x{scale}.{stamp}.pack")
    note = cache.with_name(cache.name + ".json")
    if found := _finished_cache(cache, note, rows, scale):
        return found
    lock = csv_file.with_name(f".{csv_file.stem}.x{scale}.lock")
    with waiting_lock(lock, tr("caching {name}", name=csv_file.name), progress):
        found = _finished_cache(cache, note, rows, scale) or _decode(csv_file, rows, scale, read, sources, cache, note,
                                                                           progress)
        for other in csv_file.parent.glob(f"{glob.escape(csv_file.stem)}.x{scale}.*pack*"):  # of pictures as they were
            if not other.name.startswith(cache.name):
                remove(other)
    return found


def _decode(csv_file, rows, scale, read, sources, cache, note, progress):
    part, checks = cache.with_name(cache.name + ".part"), cache.with_name(cache.name + ".part.crc")
    ends = ends_of(rows, scale)
    crcs = _sound_part(part, checks, ends)
    done, start = len(crcs), int(ends[len(crcs) - 1]) if crcs else 0
    require_room(cache.parent, int(ends[-1]) - start, f"caching {csv_file.name}",
                 "put the list on another disk (create_data_lists.py --out)")

    # The file grows by whole pairs in the order of the list; their CRCs tell how far it has come.
    workers = cores()
    with full_disk_told(part), open(part, "ab") as file, open(checks, "w", encoding="ascii") as lines, \
            ThreadPoolExecutor(workers) as pool, \
            progress_bar(None, tr("caching {name}", name=csv_file.stem), progress, total=len(rows),
                         initial=done) as bar:
        file.truncate(start)  # what was not written whole
        lines.writelines(f"{crc}\n" for crc in crcs)
        remaining = iter(rows[done:])
        while window := list(islice(remaining, 2 * workers)):  # not all at once: memory
            for lr, hr in pool.map(read, window):
                pixels = to_rgb(lr).tobytes() + to_rgb(hr).tobytes()
                file.write(pixels)
                crcs.append(zlib.crc32(pixels))
                lines.write(f"{crcs[-1]}\n")
                bar.update()
            file.flush()
            lines.flush()
        os.fsync(file.fileno())
    patiently(os.replace, part, cache)
    with write_whole(note) as temporary:  # last: without it the cache does not count
        temporary.write_text(json.dumps({**sources, "crc": crcs}, indent=0), encoding="utf-8")
    remove(checks)
    return ImageCache(cache, crcs)


def _finished_cache(cache, note, rows, scale):
    """The ImageCache when it is there and whole, else None."""
    try:
        crcs = json.loads(note.read_bytes())["crc"]
        whole = len(crcs) == len(rows) and cache.stat().st_size == ends_of(rows, scale)[-1]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return ImageCache(cache, crcs) if whole else None


def _sound_part(part, checks, ends):
    """The CRCs of the pairs at the beginning of an unfinished cache that are as they were written."""
    try:
        noted, pixels = [int(line) for line in checks.read_text(encoding="ascii").split()], open(part, "rb")
    except (OSError, ValueError):
        return []
    crcs = []
    with pixels:
        for crc, size in zip(noted, np.diff(ends, prepend=0)):
            if zlib.crc32(pixels.read(int(size))) != crc:
                break
            crcs.append(crc)
    return crcs


def open_image_cache(cache, rows, scale):
    """The (lr, hr) pictures of a cache as memory-mapped H×W×3 arrays, in the order of the list."""
    pixels = np.memmap(cache, np.uint8, mode="r")
    pictures, offset = [], 0
    for row in rows:
        pair = []
        for height, width in [(row.height // scale, row.width // scale), (row.height, row.width)]:
            # as plain arrays: slicing a memmap object costs several times as much
            pair.append(np.asarray(pixels[offset : offset + height * width * 3]).reshape(height, width, 3))
            offset += height * width * 3
        pictures.append(tuple(pair))
    return pictures


def ends_of(rows, scale):
    """The bytes of a cache after each pair."""
    return np.cumsum([_pair_bytes(row, scale) for row in rows], dtype=np.int64)


def _source(row):
    def file(path):
        return path and [os.path.abspath(path), path.stat().st_size, path.stat().st_mtime_ns]

    return [file(row.hr), file(row.lr), *row[2:]]


def _pair_bytes(row, scale):
    return 3 * row.width * row.height + 3 * (row.width // scale) * (row.height // scale)
