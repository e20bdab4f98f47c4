"""Files: written whole or not at all, on full disks and on Windows, too; locks, names, archives."""

import errno
import os
import shutil
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
from filelock import Timeout

import utils
from helpers import ROOT
from kit.files import NoRoom, is_portable, locked, members, remove_left_over, waiting_lock, write_whole


def test_files_are_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "a.txt").write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError), write_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("ne", encoding="utf-8")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_two_writers_of_one_file_and_the_longest_of_names_do_not_get_in_each_others_way(tmp_path):
    with write_whole(tmp_path / "a") as first:
        first.write_text("first", encoding="utf-8")
        with write_whole(tmp_path / "a") as second:
            second.write_text("second", encoding="utf-8")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "first"
    name = "图" * 82 + ".png"
    utils.save_picture(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    assert sorted(os.listdir(tmp_path)) == ["a", name]


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.EIO, errno.EINVAL])
def test_where_a_disk_has_no_locks_it_says_so_and_goes_on(tmp_path, monkeypatch, capsys, reason):
    def refused(file, how):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr("fcntl.flock", refused)
    with waiting_lock(tmp_path / ".lock", "packing"):
        pass
    with locked(tmp_path / ".lock", 0):
        pass
    assert capsys.readouterr().out.count("its disk has no locks; going on without") == 2


def test_another_program_is_waited_for(tmp_path, capsys):
    with locked(tmp_path / ".lock", 0):
        with pytest.raises(Timeout), locked(tmp_path / ".lock", 0.05):
            pass
        waiting = threading.Thread(target=lambda: waiting_lock(tmp_path / ".lock", "packing").__enter__())
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
    waiting.join(300)
    assert not waiting.is_alive() and "another program is packing; waiting for it" in capsys.readouterr().out


def open_elsewhere(monkeypatch, times):
    """Let `os.replace` fail so many times, as on Windows while another program has the file open."""
    left, replace = iter(range(times)), os.replace
    monkeypatch.setattr("kit.files.OPEN_FILES_STAY", True)

    def refusing(source, target):
        if next(left, None) is not None:
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refusing)


def test_a_file_that_another_program_reads_for_a_moment_is_replaced_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("old", encoding="utf-8")
    open_elsewhere(monkeypatch, 3)
    with write_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new"
    open_elsewhere(monkeypatch, 100)
    with pytest.raises(PermissionError), write_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("newer", encoding="utf-8")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_told_in_a_sentence(tmp_path):
    (tmp_path / "a.txt").write_text("old", encoding="utf-8")
    with pytest.raises(NoRoom, match="a.txt: the disk is full; what was there before is whole"):
        with write_whole(tmp_path / "a.txt"), open("/dev/full", "w", encoding="utf-8") as file:
            file.write("new")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "old" and os.listdir(tmp_path) == ["a.txt"]


FILL = """
import os, numpy as np, torch
from kit.runs.checkpoints import save_checkpoint
from pathlib import Path
small, large = Path("small.pt"), {"x": torch.zeros(10**6)}
save_checkpoint(small, {"x": torch.zeros(10)})
try:
    save_checkpoint(small, large)
except OSError as error:
    print(type(error).__name__, error, os.listdir())
"""


@pytest.mark.skipif(not shutil.which("unshare") or not hasattr(os, "getuid") or os.getuid() != 0,
                    reason="making a small disk takes the rights to")
def test_a_checkpoint_on_a_full_disk(tmp_path):
    command = 'mount -t tmpfs -o size=1m none "$1" && cd "$1" && exec "$2" -c "$3"'
    done = subprocess.run(["unshare", "-m", "sh", "-c", command, "-", tmp_path, sys.executable, FILL],
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("no small disk can be made here")
    assert "OSError small.pt: could not be written; is the disk full?" in done.stdout, done.stderr
    assert done.stdout.endswith("['small.pt']\n")


@pytest.mark.parametrize("name, portable", [
    ("demo", True), ("v1.2", True), ("连接", True), ("con", False), ("NUL", False), ("com1.old", False), ("com0", True),
    ("a.", False), ("a" * 100, True), ("a" * 101, False), ("图" * 80, True), ("图" * 81, False)])
def test_names_that_not_every_system_takes(name, portable):
    assert is_portable(name) == portable


def test_what_killed_programs_left_is_removed_after_a_while(tmp_path):
    for name, hours in [(".0123456789abcdef.part", 2), (".0123456789abcde0.part", 0), ("mine.part", 2),
                        (".mine.part", 2)]:
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (os.stat(tmp_path / name).st_mtime - 3600 * hours,) * 2)
    remove_left_over(tmp_path, hours=1)
    assert sorted(os.listdir(tmp_path)) == [".0123456789abcde0.part", ".mine.part", "mine.part"]
    remove_left_over(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".mine.part", "mine.part"]


def test_archives_that_cannot_be_read_say_why(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("plain.txt", "hello")
        archive.writestr("locked.txt", "hello")
        archive.infolist()[1].flag_bits |= 1  # (as it is noted at the end of the archive)
    with members(tmp_path / "a.zip") as entries:
        assert [problem for _, _, problem, _ in entries] == [None, "encrypted: make the archive without a password"]


def test_a_lock_in_a_folder_that_is_only_to_be_read_names_the_folder(tmp_path, monkeypatch):
    def acquire(*arguments, **options):
        raise PermissionError(13, "Permission denied", str(tmp_path / "lists" / ".train.x4.lock"))

    monkeypatch.setattr("kit.files.FileLock.acquire", acquire)  # root may write everywhere
    with pytest.raises(OSError, match=r"lists: cannot be written to \(Permission denied\); choose another folder"):
        with waiting_lock(tmp_path / "lists" / ".train.x4.lock", "caching"):
            pass
