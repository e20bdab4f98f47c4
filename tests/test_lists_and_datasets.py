"""From folders to lists to batches: the four layouts, the report, packs, patches."""

import csv
import multiprocessing
import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import start
from PIL import Image

import create_data_lists
import datasets
import packs
import utils
from imresize import imresize

ROOT = Path(__file__).parent.parent


def picture(path, width, height, seed=0):
    noise = np.random.default_rng([seed, width, height]).integers(0, 256, (height, width, 3), np.uint8)
    utils.save_picture(path, noise)


def make(train=None, tests=None, out=None, **options):
    return create_data_lists.create_data_lists(train, tests, out, progress=False, **options)


def names(report):
    folder = report.csv_file.parent
    return [((folder / row["hr"]).name, row["lr"] and (folder / row["lr"]).name) for row in report.rows]


# ---------------------------------------------------------------------------------------------- lists


def test_div2k(tmp_path):
    for i in (1, 2, 10):
        picture(tmp_path / "DIV2K_train_HR" / f"{i:04}.png", 100, 96, i)
        picture(tmp_path / "DIV2K_train_LR_bicubic" / "X4" / f"{i:04}x4.png", 25, 24, i)
    train, tests = create_data_lists.find_known_sets(tmp_path)
    report, = make(train, tests, tmp_path / "lists")
    assert names(report) == [("0001.png", "0001x4.png"), ("0002.png", "0002x4.png"), ("0010.png", "0010x4.png")]
    assert report.rows[0]["width"] == 100 and report.csv_file == tmp_path / "lists" / "train.csv"


def test_edsr_benchmarks_whose_pictures_are_not_multiples_of_the_scale(tmp_path):
    picture(tmp_path / "benchmark/B100/HR/101085.png", 321, 481)
    picture(tmp_path / "benchmark/B100/LR_bicubic/X4/101085x4.png", 80, 120)
    picture(tmp_path / "benchmark/B100/LR_bicubic/X2/101085x2.png", 160, 240)
    _, tests = create_data_lists.find_known_sets(tmp_path)
    report, = make(None, tests, tmp_path / "lists")
    assert report.name == "B100" and names(report) == [("101085.png", "101085x4.png")]
    pair = datasets.TestDataset(report.csv_file)[0]
    assert pair.name == "101085" and pair.hr.shape == (480, 320, 3) and pair.lr.shape == (120, 80, 3)
    report, = make(None, tests, tmp_path / "two", scale=2)
    assert names(report) == [("101085.png", "101085x2.png")]


def test_high_and_low_resolution_in_one_folder(tmp_path):
    for i in (1, 2):
        picture(tmp_path / f"Set5/image_SRF_4/img_00{i}_SRF_4_HR.png", 40, 32, i)
        picture(tmp_path / f"Set5/image_SRF_4/img_00{i}_SRF_4_LR.png", 10, 8, i)
    report, = make(None, {"Set5": tmp_path / "Set5"}, tmp_path / "lists")
    assert names(report) == [(f"img_00{i}_SRF_4_HR.png", f"img_00{i}_SRF_4_LR.png") for i in (1, 2)]


def test_high_resolution_only(tmp_path):
    picture(tmp_path / "img_align_celeba/000001.jpg", 178, 218)
    report, = make(None, {"faces": tmp_path / "img_align_celeba"}, tmp_path / "lists")
    pair = datasets.TestDataset(report.csv_file)[0]
    assert pair.hr.shape == (216, 176, 3)
    assert np.array_equal(pair.lr, imresize(pair.hr, 1 / 4))


def test_two_folders_named_outright(tmp_path):
    picture(tmp_path / "sharp/a.png", 16, 16)
    picture(tmp_path / "small/a.png", 4, 4)
    report, = make(None, {"mine": (tmp_path / "sharp", tmp_path / "small")}, tmp_path / "lists")
    assert names(report) == [("a.png", "a.png")]


def test_what_is_left_out_is_named_with_the_reason(tmp_path):
    high, low = tmp_path / "DIV2K_train_HR", tmp_path / "DIV2K_train_LR_bicubic" / "X4"
    for i in range(1, 8):
        picture(high / f"{i:04}.png", 100, 96, i)
        picture(low / f"{i:04}x4.png", 25, 24, i)
    (low / "0002x4.png").unlink()
    picture(low / "0003x4.png", 24, 24)
    (high / "0004.png").write_bytes((high / "0004.png").read_bytes()[:999])
    (high / "0005.png").write_bytes((high / "0001.png").read_bytes())
    picture(high / "0006.png", 40, 40)
    picture(low / "0006x4.png", 10, 10)
    (high / "notes.txt").write_text("hello")
    picture(low / "0099x4.png", 25, 24)
    Image.open(high / "0007.png").save(high / "0007.bmp")
    report, = make(high, None, tmp_path / "lists")
    assert [hr for hr, _ in names(report)] == ["0001.png", "0007.bmp"]
    reasons = dict(report.left_out)
    for file, words in {"0002.png": "no low-resolution partner", "0003.png": "not 4 times its low resolution",
                        "0004.png": "not a readable picture", "0005.png": "same picture as 0001.png",
                        "0006.png": "too small", "notes.txt": "not a picture file", "0007.png": "same name as 0007.bmp",
                        "0099x4.png": "no high-resolution partner"}.items():
        assert words in reasons.pop(file)
    assert not reasons
    text = create_data_lists.summary([report])
    assert "0003.png is 100×96" in text and text.splitlines()[2].split()[:3] == ["train", "2", "8"]


def test_lists_and_pictures_can_be_moved_together(tmp_path):
    picture(tmp_path / "before/pictures/a.png", 16, 16)
    make(None, {"a": tmp_path / "before/pictures"}, tmp_path / "before/lists")
    os.rename(tmp_path / "before", tmp_path / "after")
    assert len(datasets.TestDataset(tmp_path / "after/lists/a.csv")) == 1


def test_the_command(tmp_path):
    picture(tmp_path / "faces/1.png", 40, 40)
    command = [sys.executable, "create_data_lists.py", "--demo", "--test", f"faces={tmp_path / 'faces'}"]
    done = subprocess.run([*command, "--out", tmp_path / "lists"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "demo_train" in done.stdout and "faces" in done.stdout
    assert [p.name for p in create_data_lists.test_lists(tmp_path / "lists")] == ["demo_test.csv", "faces.csv"]
    done = subprocess.run([sys.executable, "create_data_lists.py", "--train", tmp_path / "no"], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 1 and "no: there is no such folder" in done.stderr and "Traceback" not in done.stderr


def test_the_demo_photographs_are_split(tmp_path):
    train, test = create_data_lists.create_demo_lists(tmp_path, progress=False)
    assert not train.left_out and not test.left_out
    assert not {row["hr"] for row in train.rows} & {row["hr"] for row in test.rows}


# ------------------------------------------------------------------------------------------- patches


@pytest.fixture
def train_set(small_lists):
    return datasets.TrainDataset(small_lists / "train.csv", 4, 32, 5, progress=False)


def test_patches_are_aligned_pairs_of_their_pictures(small_lists):
    plain = datasets.TrainDataset(small_lists / "train.csv", 4, 32, 5, flip=False, turn=False, progress=False)
    rows = datasets.read_list(small_lists / "train.csv")
    pairs = [datasets.read_pair(row, 4) for row in rows]
    found = set()
    for n in range(2 * len(plain)):
        low, high = plain[n]
        places = [(i, y, x) for i, (small, _) in enumerate(pairs) for y in range(9) for x in range(13)
                  if np.array_equal(small[y : y + 8, x : x + 8], low.permute(1, 2, 0))]
        assert len(places) == 1
        i, y, x = places[0]
        assert np.array_equal(pairs[i][1][4 * y : 4 * y + 32, 4 * x : 4 * x + 32], high.permute(1, 2, 0))
        found.add((y, x))
    assert {y for y, _ in found} == set(range(9)) and max(x for _, x in found) == 12  # corners are reached


def test_flips_and_turns_keep_the_pair_aligned(train_set):
    seen = set()
    for n in range(len(train_set)):
        low, high = train_set[n]
        again = imresize(high, 1 / 4).float()  # inside, the reduced patch is the patch of the reduced picture
        assert (again - low.float()).abs()[:, 2:-2, 2:-2].max() <= 1
        seen.add(tuple(train_set._patches([n])[0][0, 3:]))
    assert len(seen) == 8


def test_a_batch_equals_its_patches_and_an_epoch_spreads_over_the_pictures(train_set):
    assert len(train_set) == 4 * 5
    low, high = train_set[[3, 7, 25]]
    assert low.shape == (3, 3, 8, 8) and high.shape == (3, 3, 32, 32) and low.dtype == high.dtype == torch.uint8
    for i, n in enumerate([3, 7, 25]):
        assert torch.equal(low[i], train_set[n][0]) and torch.equal(high[i], train_set[n][1])
    for first in range(0, 40, 4):  # any four in a row come from four pictures
        assert sorted(train_set._patches(range(first, first + 4))[0][:, 0]) == [0, 1, 2, 3]
    assert not torch.equal(train_set[0][0], train_set[20][0])


def test_a_pack_on_the_device_gives_the_same_batches(small_lists, train_set):
    resident = datasets.TrainDataset(small_lists / "train.csv", 4, 32, 5, progress=False)
    resident.keep_on("cpu")  # any device: the arithmetic is the same
    for size in (10, 6):  # whole epochs, and batches that end in the next
        for one, other in zip(datasets.batches(train_set, size, 3, 4), datasets.batches(resident, size, 3, 4)):
            assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    for parts in ([3, 7, 25], [7, 3], [4]):  # in any order
        assert all(torch.equal(a, b) for a, b in zip(train_set[parts], resident[parts]))


def test_seeds_give_other_patches_and_the_same_seed_the_same(small_lists):
    def first(seed):
        return datasets.TrainDataset(small_lists / "train.csv", 4, 32, 5, seed=seed, progress=False)[0][1]

    assert torch.equal(first(1), first(1)) and not torch.equal(first(1), first(2))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_an_epoch_can_begin_anywhere(train_set, workers):
    whole = list(datasets.batches(train_set, 6))
    assert len(whole) == 3  # of 20 patches
    rest = list(datasets.batches(train_set, 6, first=1, count=5, workers=workers))
    assert len(rest) == 5 and torch.equal(rest[2][0][2], train_set[20][0])  # on into the next epoch
    assert all(torch.equal(a, b) for x, y in zip(whole[1:], rest[:2]) for a, b in zip(x, y))


def test_processes_can_be_spawned(train_set):
    loader = datasets.batches(train_set, 6, workers=1)
    loader.multiprocessing_context = multiprocessing.get_context("spawn")
    assert torch.equal(next(iter(loader))[1], next(iter(datasets.batches(train_set, 6)))[1])


def test_it_works_with_an_ordinary_data_loader(train_set):
    low, high = next(iter(torch.utils.data.DataLoader(train_set, batch_size=4)))
    assert low.shape == (4, 3, 8, 8) and torch.equal(high, train_set[range(4)][1])


# --------------------------------------------------------------------------------------------- packs


def pack_of(csv_file, rows):
    return packs.make_pack(csv_file, rows, 4, partial(datasets.read_pair, scale=4), progress=False).file


def test_a_pack_is_made_once_and_again_when_a_picture_changes(tmp_path, photograph):
    for i in range(3):
        utils.save_picture(tmp_path / "p" / f"{i}.png", np.ascontiguousarray(photograph[i * 40 : i * 40 + 40, :48]))
    make(tmp_path / "p", None, tmp_path, crop=32)
    rows = datasets.read_list(tmp_path / "train.csv")
    pack = pack_of(tmp_path / "train.csv", rows)
    low, high = packs.open_pack(pack, rows, 4)[1]
    assert np.array_equal(high, photograph[40:80, :48]) and np.array_equal(low, imresize(high, 1 / 4))
    made = pack.stat().st_mtime_ns
    pack_of(tmp_path / "train.csv", rows)
    assert pack.stat().st_mtime_ns == made
    utils.save_picture(tmp_path / "p" / "1.png", 255 - photograph[40:80, :48])
    other = pack_of(tmp_path / "train.csv", rows)
    assert other != pack  # so that nobody who has the old one open can mistake it
    assert np.array_equal(packs.open_pack(other, rows, 4)[1][1], 255 - photograph[40:80, :48])
    assert {p.name for p in tmp_path.iterdir()} == {"p", "train.csv", other.name, other.name + ".json",
                                                    ".train.x4.lock"}


def test_an_interrupted_pack_is_continued(tmp_path, photograph, monkeypatch):
    for i in range(40):
        utils.save_picture(tmp_path / "p" / f"{i}.png", np.ascontiguousarray(photograph[i : i + 40, i : i + 48]))
    make(tmp_path / "p", None, tmp_path, crop=32)
    rows = datasets.read_list(tmp_path / "train.csv")
    whole = pack_of(tmp_path / "train.csv", rows)
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
        pack_of(tmp_path / "train.csv", rows)
    part = next(tmp_path.glob("*.part"))
    with open(part, "ab") as file:
        file.write(b"half a picture")
    calls.clear()
    monkeypatch.setattr(datasets, "read_pair", lambda row, scale: calls.append(row) or read(row, scale))
    assert pack_of(tmp_path / "train.csv", rows).read_bytes() == expected
    assert 0 < len(calls) < 40  # what was packed before was kept


def pack_again(csv_file):
    pack_of(csv_file, datasets.read_list(csv_file))


def test_a_pack_killed_ten_times_is_the_same_as_one_made_in_one_go(tmp_path, photograph):
    for i in range(110):
        utils.save_picture(tmp_path / "p" / f"{i}.png", np.ascontiguousarray(np.roll(photograph, 4 * i, axis=1)))
    make(tmp_path / "p", None, tmp_path)
    rows = datasets.read_list(tmp_path / "train.csv")
    pack = pack_of(tmp_path / "train.csv", rows)
    expected, part = pack.read_bytes(), pack.with_name(pack.name + ".part")
    pack.unlink()
    moments, kills = random.Random(0), 0
    while not pack.exists():
        process = start(pack_again, tmp_path / "train.csv")
        if kills < 10:  # when a little more is packed than the last time
            wanted = len(expected) * (kills + moments.random()) / 11
            while process.is_alive() and not (part.exists() and part.stat().st_size > wanted):
                time.sleep(0.0005)
            kills += process.is_alive()
            process.kill()
        process.join()
    assert kills == 10 and pack.read_bytes() == expected and not part.exists()


def test_a_full_disk_is_named_before_anything_is_written(tmp_path, photograph, monkeypatch):
    utils.save_picture(tmp_path / "p" / "0.png", photograph)
    make(tmp_path / "p", None, tmp_path)
    monkeypatch.setattr(packs.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="train.csv takes 0.0 GB, but only 0.0 GB are free"):
        datasets.TrainDataset(tmp_path / "train.csv", progress=False)
    assert not list(tmp_path.glob("*.part"))


def test_test_pictures_stay_grey_when_they_are_grey(tmp_path, photograph):
    utils.save_picture(tmp_path / "p" / "grey.png", photograph[:40, :40, 0].copy())
    make(None, {"grey": tmp_path / "p"}, tmp_path)
    pair = datasets.TestDataset(tmp_path / "grey.csv")[0]
    assert pair.hr.shape == (40, 40) and pair.lr.shape == (10, 10)
    with open(tmp_path / "grey.csv", newline="") as file:
        row, = csv.DictReader(file)
    assert row == {"hr": "p/grey.png", "lr": "", "scale": "4", "width": "40", "height": "40", "left": "0", "top": "0"}
