"""Files: written whole or not at all, and what they are called; room on disk, locks, and what archives hold."""

import base64
import csv
import errno
import math
import os
import re
import secrets
import shutil
import stat
import sys
import tarfile
import time
import zipfile
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile

from filelock import FileLock, Timeout

from kit.language import tr

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

KIT = Path(__file__).resolve().parent  # the package; beside it stand the six modules
OPEN_FILES_STAY = os.name == "nt"  # whether a file that is open can be neither replaced nor deleted
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
        with full_disk_told(path):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())  # else a power cut can leave the new name on an empty file
        patiently(os.replace, temporary, path)
    finally:
        remove(temporary)


def patiently(act, *arguments):
    """Do to a file what Windows refuses as long as another program has it open, a virus scanner say: for 4 seconds."""
    for seconds in (*((0.02, 0.05, 0.1, 0.3, 0.5, 1, 2) if OPEN_FILES_STAY else ()), None):
        try:
            return act(*arguments)
        except PermissionError:
            if seconds is None:
                raise
            time.sleep(seconds)


def remove(path):
    """Delete a file that nobody needs any longer, if it is there; what another program keeps open on Windows stays."""
    with suppress(OSError):
        path.unlink()


def remove_left_over(folder, hours=0):
    """Remove what programs that were killed while they wrote files left in a folder, so many hours ago at least."""
    for path in Path(folder).glob(f".*{TEMPORARY}"):
        with suppress(OSError):
            if not re.fullmatch(rf"\.[0-9a-f]{{16}}{re.escape(TEMPORARY)}", path.name):
                continue  # another program's
            if path.stat().st_mtime <= time.time() - 3600 * hours:
                remove(path)


FULL = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name)}  # (Windows knows no quotas)


@contextmanager
def full_disk_told(path):
    """A context in which a full disk raises NoRoom, with a sentence about the file that was being written.

    Other errors about a temporary file in its place name the file that is meant.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            if str(error.filename).endswith(TEMPORARY):
                error.filename = str(path)
            raise
        raise NoRoom(f"{path}: the disk is full; what was there before is whole: make room, do it again") from error


def write_csv(path, rows, fields, for_spreadsheets=False):
    """Write dictionaries as a CSV file with a header line; values missing in a row stay empty.

    `for_spreadsheets`: with a byte order mark, without which Excel takes it for the system's encoding, and with texts
    that are no formulas, whoever has written them.
    """
    encoding = "utf-8-sig" if for_spreadsheets else "utf-8"
    with write_whole(path) as temporary, open(temporary, "w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, fields, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _no_formula(value) for key, value in row.items()} if for_spreadsheets else row
                         for row in rows)


def _no_formula(value):
    """A value that a spreadsheet does not compute."""
    return "'" + value if isinstance(value, str) and re.match(r"'*[=+\-@\t\r]", value) else value


class TooMuch(ValueError):
    """An archive has more in it than it may."""


class Link(str):
    """What is wrong with a file of an archive that is a symbolic link: it leads to what is not in there."""


class NoRoom(OSError):
    """The disk has no room for what is to be written."""


def is_no_room(error):
    """Whether an error says that the disk is full."""
    return isinstance(error, NoRoom) or isinstance(error, OSError) and error.errno in FULL


# Names that Windows keeps for devices, whatever ending they have.
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


def is_portable(name):
    """Whether files and folders can be called so on every system."""
    return (name.partition(".")[0].lower() not in DEVICES and not name.endswith((".", " "))
            and len(name) <= 100 and len(name.encode()) <= 240)  # (255 bytes, with an ending)


def require_room(folder, size, what, way_out):
    """Raise NoRoom when the disk of a folder, which need not be there yet, has less room than `size` bytes."""
    there = next(parent for parent in [Path(folder), *Path(folder).absolute().parents] if parent.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise NoRoom(f"{folder}: {what} takes {size / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free; make room, "
                     f"or {way_out}")


def require_writable(folder):
    """Make a folder if need be. Raises OSError when no file can be written there."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"{folder}: cannot be written to ({error.strerror}); choose another folder") from error


NO_LOCKS = {getattr(errno, name) for name in ("ENOLCK", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EINVAL", "EIO")
            if hasattr(errno, name)}


def result_names(pictures, ending=".png"):
    """What results are called, as paths: each after its picture, with that one's ending where it alone tells two apart.

    (There are systems that know one case only.)
    """
    stems = Counter(str(path.with_suffix("")).lower() for path in pictures)
    return [path.with_suffix(ending) if stems[str(path.with_suffix("")).lower()] == 1
            else path.with_name(path.name + ending) for path in pictures]


def data_uri(data, kind="PNG"):
    """The bytes of a picture file as an address within an HTML page."""
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"


@contextmanager
def locked(path, timeout, say=True):
    """A context that one program at a time is in. Raises filelock's Timeout when another is after these seconds, and
    OSError for a folder that cannot be written to.

    Some disks in a network have no locks: there it says so, if it is to `say` it, and goes on without.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=timeout)
    except (NotImplementedError, OSError) as error:
        if getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OSError(f"{path.parent}: cannot be written to ({error.strerror}); choose another folder, or copy "
                          f"what is in it") from error
        if not _tells_of_no_locks(error, path):
            raise
        if say:
            print(tr("{folder}: its disk has no locks; going on without, so let only one program work there",
                     folder=path.parent), flush=True)
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
                print(tr("another program is {what}; waiting for it", what=what), flush=True)
            stack.enter_context(locked(path, -1))
        yield


@contextmanager
def members(file, largest=math.inf):
    """The files of a zip or tar archive as a list of (name, size, what is wrong with it or None, how to open it).

    Names are as their writer saw them, with "/" between folders. Raises TooMuch for a tar with more than `largest`
    bytes in it.
    """

    def leads_out(name):
        path = PurePosixPath(name)
        out = path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name) or "\0" in name
        return tr("which leads out of the folder") if out else tr("which is too deep") if len(path.parts) > 20 else None

    def unreadable(item):
        if stat.S_ISLNK(item.external_attr >> 16):
            return Link(tr("a link"))
        if item.flag_bits & 1:
            return tr("encrypted: make the archive without a password")
        known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        return None if item.compress_type in known else tr("compressed in a way that Python cannot read")

    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            names = [(_zip_name(item), item) for item in archive.infolist()]
            yield [(name, item.file_size, unreadable(item) or leads_out(name), partial(archive.open, item))
                   for name, item in names if not name.endswith("/")]
    else:
        with tarfile.open(file) as archive:
            names = [(item.name.replace("\\", "/"), item) for item in _upto(archive, largest) if not item.isdir()]
            other = tr("a link or a device")
            yield [(name, item.size, leads_out(name) if item.isreg() else Link(other) if item.issym() else other,
                    partial(archive.extractfile, item)) for name, item in names]


def extract(entries, folder):
    """Write files of an archive, entries of `members` that were looked at before, to a folder."""
    for name, _, _, read in entries:  # (no more comes out than the size that it says)
        target = folder / writable(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with read() as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file, 2**20)


def writable(name):
    """A name with the numbers of those letters that the system's file names cannot have (Korean on Linux under GBK)."""
    try:
        name.encode(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
        return name
    except UnicodeEncodeError:
        system = sys.getfilesystemencoding()
        return "".join(letter if letter == letter.encode(system, "ignore").decode(system) else f"_{ord(letter):x}"
                       for letter in name)


def _zip_name(item):
    """The name of a file in a zip: in UTF-8, where it says so, else in what Chinese systems write, else as it is."""
    name = item.filename
    if not item.flag_bits & 0x800:
        for encoding in ("utf-8", "gbk", "big5"):
            with suppress(UnicodeError):
                name = name.encode("cp437").decode(encoding)  # (as cp437 Python has read it)
                break
    return name.replace("\\", "/")  # (of PowerShell)


def _upto(archive, largest):
    """The members of a tar archive; raises TooMuch at the one by which they have more than so many bytes."""
    size = 0
    for item in archive:
        if item.size < 0:
            raise ValueError(f"{item.name[:100]!r} has a size below 0")
        yield item
        size += item.size + tarfile.BLOCKSIZE  # (with its header: there may be millions of empty ones)
        if size > largest:
            raise TooMuch(f"it has more than {largest} bytes in it")
