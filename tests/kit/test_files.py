"""Files: written whole or not at all."""

import os

import numpy as np
import pytest

import utils
from kit.files import write_whole


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
