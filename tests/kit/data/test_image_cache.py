"""The image cache: made once, whole, and watched over."""

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from warm import start

import create_data_lists
import datasets
import utils
from helpers import image_cache_of, make_lists
from imresize import imresize
from kit.data.image_cache import open_image_cache


def test_a_cache_is_made_once_and_again_when_a_picture_changes(tmp_path, photograph):
    for i in range(3):
        utils.save_picture(tmp_path / "p" / f"{i}.png", np.ascontiguousarray(photograph[i * 40 : i * 40 + 40, :48]))
    make_lists(tmp_path / "p", None, tmp_path, crop=32)
    rows = datasets.read_list(tmp_path / "train.csv")
    cache = image_cache_of(tmp_path / "train.csv", rows).file
    lr, hr = open_image_cache(cache, rows, 4)[1]
    assert np.array_equal(hr, photograph[40:80, :48]) and np.array_equal(lr, imresize(hr, 1 / 4))
    made = cache.stat().st_mtime_ns
    image_cache_of(tmp_path / "train.csv", rows)
    assert cache.stat().st_mtime_ns == made
    utils.save_picture(tmp_path / "p" / "1.png", 255 - photograph[40:80, :48])
    other = image_cache_of(tmp_path / "train.csv", rows).file
    assert other != cache  # so that nobody who has the old one open can mistake it
    assert np.array_equal(open_image_cache(other, rows, 4)[1][1], 255 - photograph[40:80, :48])
    assert {p.name for p in tmp_path.iterdir()} == {"p", "train.csv", other.name, other.name + ".json",
                                                    ".train.x4.lock"}


def test_an_interrupted_cache_is_continued(tmp_path, photograph, monkeypatch):
    for i in range(40):
        utils.save_picture(tmp_path / "p" / f"{i}.png", np.ascontiguousarray(photograph[i : i + 40, i : i + 48]))
    make_lists(tmp_path / "p", None, tmp_path, crop=32)
    rows = datasets.read_list(tmp_path / "train.csv")
    whole = image_cache_of(tmp_path / "train.csv", rows).file
    expected = whole.read_bytes()
    whole.unlink()
    read, calls = datasets.read_pair, []

    def failing(row, scale):
        calls.append(row)
        if len(calls) > 25:
            raise KeyboardInterrupt
        return read(row, scale)

    monkeypatch.setattr(datasets, "read_pair", failing)
    with pytest.raises(KeyboardInterrupt):
        image_cache_of(tmp_path / "train.csv", rows)
    part = next(tmp_path.glob("*.part"))
    with open(part, "ab") as file:
        file.write(b"half a picture")
    calls.clear()
    monkeypatch.setattr(datasets, "read_pair", lambda row, scale: calls.append(row) or read(row, scale))
    assert image_cache_of(tmp_path / "train.csv", rows).file.read_bytes() == expected
    assert 0 < len(calls) < 40  # what was cached before was kept


def cache_again(csv_file):
    image_cache_of(csv_file, datasets.read_list(csv_file))


def test_a_cache_killed_ten_times_is_the_same_as_one_made_in_one_go(tmp_path, photograph):
    for i in range(110):
        utils.save_picture(tmp_path / "p" / f"{i}.png", np.ascontiguousarray(np.roll(photograph, 4 * i, axis=1)))
    make_lists(tmp_path / "p", None, tmp_path)
    rows = datasets.read_list(tmp_path / "train.csv")
    cache = image_cache_of(tmp_path / "train.csv", rows).file
    expected, part = cache.read_bytes(), cache.with_name(cache.name + ".part")
    cache.unlink()
    moments, kills = random.Random(0), 0
    while not cache.exists():
        process = start(cache_again, tmp_path / "train.csv")
        if kills < 10:  # when a little more is cached than the last time
            wanted = len(expected) * (kills + moments.random()) / 11
            while process.is_alive() and not (part.exists() and part.stat().st_size > wanted):
                time.sleep(0.0005)
            kills += process.is_alive()
            process.kill()
        process.join()
    assert kills == 10 and cache.read_bytes() == expected and not part.exists()


def test_a_full_disk_is_named_before_anything_is_written(tmp_path, photograph, monkeypatch):
    utils.save_picture(tmp_path / "p" / "0.png", photograph)
    make_lists(tmp_path / "p", None, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="train.csv takes 0.0 GB, but only 0.0 GB are free"):
        datasets.TrainDataset(tmp_path / "train.csv", progress=False)
    assert not list(tmp_path.glob("*.part"))


def cache_and_tell(csv_file, target):
    Path(target).write_bytes(image_cache_of(csv_file).file.read_bytes())


def test_programs_that_make_one_cache_at_the_same_time_all_get_the_right_one(photograph, tmp_path):
    for i in range(60):
        utils.save_picture(tmp_path / "p" / f"{i}.png", np.ascontiguousarray(np.roll(photograph, i, axis=1)[:96, :128]))
    create_data_lists.create_data_lists(tmp_path / "p", None, tmp_path, progress=False)
    processes = [start(cache_and_tell, tmp_path / "train.csv", tmp_path / f"{i}.bytes") for i in range(3)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    wanted = b"".join(utils.to_rgb(part).tobytes() for row in datasets.read_list(tmp_path / "train.csv")
                      for part in datasets.read_pair(row, 4))
    assert all((tmp_path / f"{i}.bytes").read_bytes() == wanted for i in range(3))


def test_a_byte_of_a_cache_that_changes_is_noticed(own_lists):
    dataset = datasets.TrainDataset(own_lists / "train.csv", crop=32, progress=False)
    with open(dataset.cache.file, "r+b") as file:
        file.seek(dataset.bytes // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ValueError, match="is damaged.*end the programs that use it, delete it, and it will be"):
        dataset[range(8)]


def test_a_cache_that_is_cut_off_while_it_is_read_does_not_end_the_program(own_lists):
    patches = datasets.TrainDataset(own_lists / "train.csv", crop=32, progress=False)
    patches[range(8)]
    os.truncate(patches.cache.file, 100)
    with pytest.raises(ValueError, match="was cut off while it was read; end the programs that use it"):
        patches[range(8)]


def test_an_unfinished_cache_that_ends_in_zeros_is_continued_where_it_is_sound(own_lists):
    whole = image_cache_of(own_lists / "train.csv")
    expected, note = whole.file.read_bytes(), whole.file.with_name(whole.file.name + ".json")
    part = whole.file.with_name(whole.file.name + ".part")
    half = len(expected) // 2
    part.write_bytes(expected[:half] + bytes(len(expected) // 4))
    part.with_name(part.name + ".crc").write_text("".join(f"{crc}\n" for crc in whole.crcs[:3]), encoding="utf-8")
    whole.file.unlink()
    note.unlink()
    assert image_cache_of(own_lists / "train.csv").file.read_bytes() == expected
