"""Packs: all pictures of a list decoded once into a file of raw pixels beside it, from which patches are cut.

A pack is memory-mapped, so training needs no more memory for many pictures than for few, and decodes nothing.
"""

import glob
import hashlib
import json
import os
import shutil
import zlib
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from utils import progress_bar, to_rgb, write_whole

# Its file, and the CRC-32 of the pixels of each pair in it.
Pack = namedtuple("Pack", "file crcs")


def make_pack(csv_file, rows, scale, read, progress=True):
    """Decode the pictures of a list into one file of raw pixels, unless that was done before.

    `rows` are those of the list, and `read(row)` gives the low and the high resolution of one.
    The file holds, for one row after the other, the low and the high resolution as H×W×3 bytes. A JSON
    file beside it says from which files, with which sizes and times, and has a CRC-32 of each pair. When one of the
    files changes, another pack is made, under another name. Making it is parallel, and goes on where it was stopped.
    Of several programs one makes it and the others wait.

    Returns a Pack: its path and the CRCs. Raises OSError when the disk lacks room, ValueError for a bad picture.
    """
    csv_file = Path(csv_file)
    sources = {"version": 2, "scale": scale, "pictures": [_source(row) for row in rows]}
    stamp = hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:12]
    pack = csv_file.with_name(f"{csv_file.stem}.x{scale}.{stamp}.pack")
    note = pack.with_name(pack.name + ".json")
    if found := _finished_pack(pack, note, rows, scale):
        return found
    with waiting_lock(csv_file.with_name(f".{csv_file.stem}.x{scale}.lock"), f"packing {csv_file.name}", progress):
        found = _finished_pack(pack, note, rows, scale) or _make_pack(csv_file, rows, scale, read, sources, pack, note,
                                                                          progress)
        for other in csv_file.parent.glob(f"{glob.escape(csv_file.stem)}.x{scale}.*pack*"):  # of pictures as they were
            if not other.name.startswith(pack.name):
                with suppress(OSError):  # (Windows keeps what another program has open)
                    other.unlink()
    return found


def _make_pack(csv_file, rows, scale, read, sources, pack, note, progress):
    part, checks = pack.with_name(pack.name + ".part"), pack.with_name(pack.name + ".part.crc")
    ends = ends_of(rows, scale)
    crcs = _sound_part(part, checks, ends)
    done, start = len(crcs), int(ends[len(crcs) - 1]) if crcs else 0
    _require_room(pack.parent, int(ends[-1]) - start, csv_file)

    # The file grows by whole pairs in the order of the list; their CRCs tell how far it has come.
    workers = os.cpu_count() or 1
    with open(part, "ab") as file, open(checks, "w", encoding="ascii") as lines, \
            ThreadPoolExecutor(workers) as pool, \
            progress_bar(None, f"packing {csv_file.stem}", progress, total=len(rows), initial=done) as bar:
        file.truncate(start)  # what was not written whole
        lines.writelines(f"{crc}\n" for crc in crcs)
        remaining = iter(rows[done:])
        while window := list(islice(remaining, 2 * workers)):  # not all at once: memory
            for low, high in pool.map(read, window):
                pixels = to_rgb(low).tobytes() + to_rgb(high).tobytes()
                file.write(pixels)
                crcs.append(zlib.crc32(pixels))
                lines.write(f"{crcs[-1]}\n")
                bar.update()
            file.flush()
            lines.flush()
        os.fsync(file.fileno())
    os.replace(part, pack)
    with write_whole(note) as temporary:  # last: without it the pack does not count
        temporary.write_text(json.dumps({**sources, "crc": crcs}, indent=0), encoding="utf-8")
    checks.unlink()
    return Pack(pack, crcs)


def _finished_pack(pack, note, rows, scale):
    """The Pack when it is there and whole, else None."""
    try:
        crcs = json.loads(note.read_bytes())["crc"]
        whole = len(crcs) == len(rows) and pack.stat().st_size == ends_of(rows, scale)[-1]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return Pack(pack, crcs) if whole else None


def _sound_part(part, checks, ends):
    """The CRCs of the pairs at the beginning of an unfinished pack that are as they were written."""
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


@contextmanager
def waiting_lock(path, what, progress=True):
    """A context that one program at a time is in; the others say that they wait for it, and do."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.1)
    except Timeout:
        if progress:
            print(f"another program is {what}; waiting for it", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def open_pack(pack, rows, scale):
    """The (low, high) pictures of a pack as memory-mapped H×W×3 arrays, in the order of the list."""
    pixels = np.memmap(pack, np.uint8, mode="r")
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
    """The bytes of a pack after each pair."""
    return np.cumsum([_pair_bytes(row, scale) for row in rows], dtype=np.int64)


def _source(row):
    def file(path):
        return path and [os.path.abspath(path), path.stat().st_size, path.stat().st_mtime_ns]

    return [file(row.hr), file(row.lr), *row[2:]]


def _pair_bytes(row, scale):
    return 3 * row.width * row.height + 3 * (row.width // scale) * (row.height // scale)


def _require_room(folder, wanted, csv_file):
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise OSError(f"{folder}: packing {csv_file.name} takes {wanted / 1e9:.1f} GB, but only {free / 1e9:.1f} GB "
                      f"are free; make room, or put the list on another disk (create_data_lists.py --out)")
