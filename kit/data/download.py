"""Fetch the public archives of DIV2K and the benchmarks: continued when broken off, checked, safely unpacked.

Used by `create_data_lists.py --download`.
"""

import errno
import hashlib
import os
import shutil
import tarfile
import time
import zipfile
from collections import namedtuple
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from kit.console import progress_bar
from kit.files import NoRoom, extract, members, patiently, require_room, waiting_lock
from kit.language import tr

# Where an archive is, the MD5 of the file, and the folder in it that is wanted.
Archive = namedtuple("Archive", "url md5 folder")

_DIV2K = "http://data.vision.ee.ethz.ch/cvl/DIV2K/"
ARCHIVES = {
    "div2k": [
        Archive(_DIV2K + "DIV2K_train_HR.zip", "bdc2d9338d4e574fe81bf7d158758658", "DIV2K_train_HR"),
        Archive(_DIV2K + "DIV2K_train_LR_bicubic_X4.zip", "76c43ec4155851901ebbe8339846d93d",
                "DIV2K_train_LR_bicubic/X4"),
        Archive(_DIV2K + "DIV2K_valid_HR.zip", "9fcdda83005c5e5997799b69f955ff88", "DIV2K_valid_HR"),
        Archive(_DIV2K + "DIV2K_valid_LR_bicubic_X4.zip", "21962de700c8d368c6ff83314480eff0",
                "DIV2K_valid_LR_bicubic/X4"),
    ],
    "benchmarks": [
        Archive("https://cv.snu.ac.kr/research/EDSR/benchmark.tar", "4ace41d33c2384b97e6b320cd0afd6ba", "benchmark"),
    ],
}
DISK_FULL = [errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)]
ATTEMPTS = 5  # in a row without a single new byte
PAUSE = 2  # seconds between them
OTHER_DISK = "choose another disk with --data"


def download(names, data="data", source=None, progress=True):
    """Fetch, check and unpack archives, each only when its folder is not there yet.

    Parameters
    ----------
    names : list of {"div2k", "benchmarks"}
        What to fetch.
    data : path
        Folder to unpack in: `DIV2K_train_HR/0001.png`, `benchmark/Set5/HR/baby.png`, …
    source : str, optional
        Where to fetch from instead: the address of a mirror's folder, or a local folder, that holds the
        archives under their usual names. Local archives are left where they are.

    A folder appears when all of it is unpacked, and not before. A download that broke off stays as
    `<archive>.part` in `data` and is continued by the next call.

    Raises
    ------
    ValueError
        For an unknown name, an archive with a wrong checksum, a damaged one, and one that would write
        outside `data`; what was downloaded of it is removed.
    OSError
        When the server cannot be reached or has no such file, and when the disk is full.
    """
    data = Path(data)
    for name in names:
        if name not in ARCHIVES:
            raise ValueError(f"there is nothing to download called {name!r}; choose from {', '.join(ARCHIVES)}")
    data.mkdir(parents=True, exist_ok=True)
    with waiting_lock(data / ".lock", tr("downloading to {folder}", folder=data), progress):
        for archive in (archive for name in names for archive in ARCHIVES[name]):
            _get(archive, data, source, progress)


def _get(archive, data, source, progress):
    """Fetch, check and unpack one archive, unless its folder is there."""
    if (data / archive.folder).is_dir():
        print(tr("{folder} is there already", folder=data / archive.folder), flush=True)
        _tidy(archive, data)
        return
    name = archive.url.rpartition("/")[2]
    local = source is not None and "://" not in source
    if local:
        file = Path(source, name)
        if not file.is_file():
            raise FileNotFoundError(f"{file}: there is no such archive")
    else:
        file = data / f"{name}.part"
        _fetch(f"{source.rstrip('/')}/{name}" if source else archive.url, file, progress)
    try:
        _check(file, archive.md5)
        _unpack(file, archive.folder, data, progress)
    except ValueError as error:
        if local:
            raise
        file.unlink()  # else the next call would take it for a download to continue
        raise ValueError(f"{error}. It was removed; try again, or name another place with --source") from error
    if not local:
        _tidy(archive, data)


def _tidy(archive, data):
    """Remove what is left of an archive that has been unpacked, also by a call that was killed right after."""
    name = archive.url.rpartition("/")[2]
    (data / f"{name}.part").unlink(missing_ok=True)
    for file in (name, f"{name}.part"):
        shutil.rmtree(data / f".unpacking {file}", ignore_errors=True)


def _fetch(url, part, progress):
    """Download to `part`, continuing what is there and whatever breaks off on the way."""
    failures = 0
    while True:
        before = _size(part)
        try:
            return _fetch_rest(url, part, progress)
        except NoRoom:
            raise
        except (OSError, HTTPException) as error:
            if getattr(error, "errno", None) in DISK_FULL:
                raise NoRoom(f"{part}: the disk is full; {_size(part) / 1e6:.1f} MB are kept there: make room and run "
                             f"the command again to continue, or choose another disk with --data") from error
            reason = getattr(error, "reason", error)
            if isinstance(error, HTTPError) and error.code < 500:
                raise OSError(f"{url}: the server answers {error.code} {reason}; name another place "
                              f"with --source") from error
            failures = 1 if _size(part) > before else failures + 1
            if failures >= ATTEMPTS:
                kept = f"{_size(part) / 1e6:.1f} MB are kept in {part}: run the command again to continue"
                raise OSError(f"{url}: {reason}; {kept}, or name another place with --source") from error
            print(tr("{name}: broke off at {size:.1f} MB ({reason}); going on", name=part.stem,
                     size=_size(part) / 1e6, reason=reason), flush=True)
            time.sleep(PAUSE)


def _fetch_rest(url, part, progress):
    done = _size(part)
    request = Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        reply = urlopen(request, timeout=60)
    except HTTPError as error:
        if error.code == 416 and done:
            return  # nothing is left to send: complete, which the checksum will tell
        raise
    with reply:
        if done and not reply.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            done = 0  # the server cannot continue, and sends it all again
        length = reply.headers.get("Content-Length")
        total = done + int(length) if length else None
        if total:
            require_room(part.parent, total - done, part.name, OTHER_DISK)
        with open(part, "ab" if done else "wb") as file, progress_bar(
                None, part.stem, progress, total=total, initial=done, unit="B", unit_scale=True) as bar:
            while chunk := reply.read(1 << 18):
                file.write(chunk)
                bar.update(len(chunk))
    if total and _size(part) < total:
        raise ConnectionError("the connection was closed early")


def _check(file, md5):
    digest = hashlib.md5(usedforsecurity=False)
    with open(file, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != md5:
        raise ValueError(f"{file}: has the MD5 {digest.hexdigest()}, not {md5}: it is damaged or another file")


def _unpack(file, folder, data, progress):
    """Unpack the files below `folder` of an archive to `data`, all or none."""
    work = data / f".unpacking {file.name}"
    shutil.rmtree(work, ignore_errors=True)  # of an earlier call that was killed
    try:
        with members(file) as entries:
            for name, _, problem, _ in entries:  # all names before the first file is written
                if problem:
                    raise ValueError(f"{file}: refused, because it contains {name!r}, {problem}; nothing of it was "
                                     f"unpacked")
            require_room(data, sum(size for _, size, _, _ in entries), folder, OTHER_DISK)
            extract(progress_bar(entries, tr("unpacking {folder}", folder=folder), progress, unit=f" {tr('files')}"),
                    work)
        if not (work / folder).is_dir():
            raise ValueError(f"{file}: does not contain the folder {folder}")
        (data / folder).parent.mkdir(parents=True, exist_ok=True)
        patiently(os.replace, work / folder, data / folder)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise ValueError(f"{file}: is a damaged archive ({error}); nothing of it was unpacked") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _size(path):
    return path.stat().st_size if path.is_file() else 0
