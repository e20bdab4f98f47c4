"""Files: written whole or not at all; room on disk, locks between programs, and what archives hold."""

import csv
import errno
import os
import secrets
import shutil
import stat
import tarfile
import zipfile
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

KIT = Path(__file__).resolve().parent  # the package; beside it stand the six modules
TEMPORARY = ".part"  # how the name of a file ends that is being written


@contextmanager
def write_whole(path):
    """Write a file whole or not at all.

    Yields a temporary path beside `path` to write to; when the block succeeds it is renamed to
    `path`. Whatever happens, a reader finds the old file or the new one, never half of one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The writer's own, for two may write the same file; short, for the name of the file may be as long as names can be.
    temporary = path.with_name(f".{secrets.token_hex(8)}{TEMPORARY}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # else a power cut can leave the new name on an empty file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path, rows, fields):
    """Write dictionaries as a CSV file with a header line; values missing in a row stay empty."""
    with write_whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


class NoRoom(OSError):
    """The disk has no room for what is to be written."""


def require_room(folder, size, what, way_out):
    """Raise NoRoom when the disk of a folder, which need not be there yet, has less room than `size` bytes."""
    there = next(parent for parent in [Path(folder), *Path(folder).absolute().parents] if parent.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise NoRoom(f"{folder}: {what} takes {size / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free; make room, "
                     f"or {way_out}")


NO_LOCKS = {getattr(errno, name) for name in ("ENOLCK", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EINVAL", "EIO")
            if hasattr(errno, name)}


@contextmanager
def locked(path, timeout, say=True):
    """A context that one program at a time is in. Raises filelock's Timeout when another is after these seconds.

    Some disks in a network have no locks: there it says so, if it is to `say` it, and goes on without.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=timeout)
    except (NotImplementedError, OSError) as error:
        if not _tells_of_no_locks(error, path):
            raise
        if say:
            print(f"{path.parent}: its disk has no locks; going on without, so let only one program work there",
                  flush=True)
    try:
        yield
    finally:
        lock.release()


def _tells_of_no_locks(error, path):
    """Whether a lock could not be had because there are none, which filelock may take for a locked file."""
    if isinstance(error, Timeout) and fcntl:
        with open(path, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
            except OSError as reason:
                error = reason
    return isinstance(error, NotImplementedError) or error.errno in NO_LOCKS


@contextmanager
def waiting_lock(path, what, progress=True):
    """A context that one program at a time is in; the others say that they wait for it, and do."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path, 0.1))
        except Timeout:
            if progress:
                print(f"another program is {what}; waiting for it", flush=True)
            stack.enter_context(locked(path, -1))
        yield


@contextmanager
def members(file):
    """The files of a zip or tar archive as a list of (name, size, what is wrong with it or None, how to open it)."""

    def leads_out(name):
        path = PurePosixPath(name)
        out = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name
        return "which leads out of the folder" if out else "which is too deep" if len(path.parts) > 20 else None

    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            yield [(item.filename, item.file_size,
                    "a link" if stat.S_ISLNK(item.external_attr >> 16) else leads_out(item.filename),
                    partial(archive.open, item)) for item in archive.infolist() if not item.is_dir()]
    else:
        with tarfile.open(file) as archive:
            yield [(item.name, item.size, leads_out(item.name) if item.isreg() else "a link or a device",
                    partial(archive.extractfile, item)) for item in archive.getmembers() if not item.isdir()]
