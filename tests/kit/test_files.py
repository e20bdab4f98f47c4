"""Files: written whole or not at all; locks."""

import errno
import os
import threading

import numpy as np
import pytest
from filelock import Timeout

import utils
from kit.files import locked, waiting_lock, write_whole


def test_files_are_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), write_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("ne")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_two_writers_of_one_file_and_the_longest_of_names_do_not_get_in_each_others_way(tmp_path):
    with write_whole(tmp_path / "a") as first:
        first.write_text("first")
        with write_whole(tmp_path / "a") as second:
            second.write_text("second")
    assert (tmp_path / "a").read_text() == "first"
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
    waiting.join(10)
    assert not waiting.is_alive() and "another program is packing; waiting for it" in capsys.readouterr().out
