"""From lists to patches and pairs."""

import csv
import multiprocessing
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

import create_data_lists
import datasets
import utils
from helpers import PICTURE, display_p3, make_lists, refused
from imresize import imresize


def test_patches_are_aligned_pairs_of_their_pictures(small_lists):
    plain = datasets.TrainDataset(small_lists / "train.csv", 4, 32, 5, flip=False, rotate=False, progress=False)
    rows = datasets.read_list(small_lists / "train.csv")
    pairs = [datasets.read_pair(row, 4) for row in rows]
    found = set()
    for n in range(2 * len(plain)):
        lr, hr = plain[n]
        places = [(i, y, x) for i, (small, _) in enumerate(pairs) for y in range(9) for x in range(13)
                  if np.array_equal(small[y : y + 8, x : x + 8], lr.permute(1, 2, 0))]
        assert len(places) == 1
        i, y, x = places[0]
        assert np.array_equal(pairs[i][1][4 * y : 4 * y + 32, 4 * x : 4 * x + 32], hr.permute(1, 2, 0))
        found.add((y, x))
    assert {y for y, _ in found} == set(range(9)) and max(x for _, x in found) == 12  # corners are reached


@pytest.fixture
def train_set(small_lists):
    return datasets.TrainDataset(small_lists / "train.csv", 4, 32, 5, progress=False)


def test_flips_and_rotations_keep_the_pair_aligned(train_set):
    seen = set()
    for n in range(len(train_set)):
        lr, hr = train_set[n]
        again = imresize(hr, 1 / 4).float()  # inside, the reduced patch is the patch of the reduced picture
        assert (again - lr.float()).abs()[:, 2:-2, 2:-2].max() <= 1
        seen.add(tuple(train_set._patches([n])[0][0, 3:]))
    assert len(seen) == 8


def test_a_batch_equals_its_patches_and_an_epoch_spreads_over_the_pictures(train_set):
    assert len(train_set) == 4 * 5
    lr, hr = train_set[[3, 7, 25]]
    assert lr.shape == (3, 3, 8, 8) and hr.shape == (3, 3, 32, 32) and lr.dtype == hr.dtype == torch.uint8
    for i, n in enumerate([3, 7, 25]):
        assert torch.equal(lr[i], train_set[n][0]) and torch.equal(hr[i], train_set[n][1])
    for first in range(0, 40, 4):  # any four in a row come from four pictures
        assert sorted(train_set._patches(range(first, first + 4))[0][:, 0]) == [0, 1, 2, 3]
    assert not torch.equal(train_set[0][0], train_set[20][0])


def test_a_cache_on_the_device_gives_the_same_batches(small_lists, train_set):
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
    lr, hr = next(iter(torch.utils.data.DataLoader(train_set, batch_size=4)))
    assert lr.shape == (4, 3, 8, 8) and torch.equal(hr, train_set[range(4)][1])


def test_test_pictures_stay_grey_when_they_are_grey(tmp_path, photograph):
    utils.save_picture(tmp_path / "p" / "grey.png", photograph[:40, :40, 0].copy())
    make_lists(None, {"grey": tmp_path / "p"}, tmp_path)
    pair = datasets.TestDataset(tmp_path / "grey.csv")[0]
    assert pair.hr.shape == (40, 40) and pair.lr.shape == (10, 10)
    with open(tmp_path / "grey.csv", newline="", encoding="utf-8") as file:
        row, = csv.DictReader(file)
    assert row == {"hr": "p/grey.png", "lr": "", "scale": "4", "width": "40", "height": "40", "left": "0", "top": "0"}


HEADER = "hr,lr,scale,width,height\n"
LISTS = {
    "missing": (None, "there is no such list"),
    "empty": ("", "lacks the column"),
    "without rows": (HEADER, "lists no picture"),
    "without a column": ("hr,lr,scale,width\na.png,,4,64\n", "lacks the column 'height'"),
    "of another scale": (HEADER + "a.png,,2,64,64\n", "line 2: the list was made for scale 2, not 4"),
    "with a missing picture": (HEADER + "a.png,,4,64,64\nb.png,,4,64,64\n", "line 3: there is no file"),
    "with words for numbers": (HEADER + "a.png,,4,wide,64\n", "line 2: scale, width, height, left and top must be"),
    "with an impossible size": (HEADER + "a.png,,4,63,64\n", "line 2: 63×64 is not a size that scale 4 divides"),
    "without a file name": (HEADER + ",,4,64,64\n", "line 2: names no high-resolution picture"),
    "with a short line": (HEADER + "a.png\n", "line 2"),
    "of bytes": (b"\xff\xfe\x00\x01" * 9, "not a CSV file"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_bad_lists(tmp_path, kind):
    content, words = LISTS[kind]
    utils.save_picture(tmp_path / "a.png", PICTURE)
    if content is not None:
        (tmp_path / "list.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(lambda: datasets.TestDataset(tmp_path / "list.csv"), tmp_path, "list.csv", words)
    refused(lambda: datasets.TrainDataset(tmp_path / "list.csv", progress=False), tmp_path, "list.csv", words)


@pytest.mark.parametrize("encoding, mark", [("gb18030", ","), ("big5", ","), ("utf-8-sig", ";"), ("utf-8", "\t")])
def test_a_list_that_a_spreadsheet_has_saved(tmp_path, photograph, encoding, mark):
    name = "照片.png"  # (the same letters in China and Taiwan)
    if name != os.fsdecode(os.fsencode(name)):
        pytest.skip("this system's file names have no Chinese letters")
    utils.save_picture(tmp_path / name, photograph[:48, :48])
    [report] = make_lists(tests={"mine": tmp_path}, out=tmp_path)
    report.csv_file.write_bytes(report.csv_file.read_text(encoding="utf-8").replace(",", mark).encode(encoding))
    assert [row.hr.name for row in datasets.read_list(report.csv_file)] == [name]


def test_a_list_whose_picture_has_changed_its_size(tmp_path):
    utils.save_picture(tmp_path / "a.png", PICTURE)
    (tmp_path / "list.csv").write_text(HEADER + "a.png,,4,128,128\n", encoding="utf-8")
    refused(lambda: datasets.TestDataset(tmp_path / "list.csv")[0], tmp_path, "a.png", "another size", "list again")


def test_a_training_picture_smaller_than_the_crop(tmp_path):
    utils.save_picture(tmp_path / "a.png", PICTURE)
    (tmp_path / "list.csv").write_text(HEADER + "a.png,,4,64,64\n", encoding="utf-8")
    refused(lambda: datasets.TrainDataset(tmp_path / "list.csv", progress=False), tmp_path,
          "a.png", "64×64, smaller than the crop of 96", "--crop 96")
    dataset = datasets.TrainDataset(tmp_path / "list.csv", crop=32, patches_per_picture=3, progress=False)
    refused(lambda: datasets.batches(dataset, 4), tmp_path, "batch_size 4 is larger than an epoch of 3 patches")


def test_colours_are_changed_a_little_and_the_low_resolution_with_them(faces, tmp_path):
    create_data_lists.create_recipe_lists("celeba", faces, out=tmp_path)
    options = dict(scale=4, crop=128, patches_per_picture=1, rotate=False, progress=False)
    plain = datasets.TrainDataset(tmp_path / "celeba_train.csv", **options)
    jittered = datasets.TrainDataset(tmp_path / "celeba_train.csv", colour_jitter=0.05, **options)
    assert jittered[7][1].equal(jittered[7][1])
    for n, changes in zip(range(5), (2 * jittered._patches(range(5))[1][:, :4] - 1) * 0.05):
        (_, hr), (lr, changed) = plain[n], jittered[n]
        wanted = functional.adjust_contrast(functional.adjust_saturation(hr / 255, 1 + changes[0])
                                            .add(changes[1]).clamp(0, 1), 1 + changes[2])
        wanted = 255 * functional.adjust_hue(wanted, changes[3])
        assert (changed - wanted).abs().max() <= 0.51  # torchvision's, picture by picture
        difference = (hr.float() - changed.float()).abs()
        assert 0 < difference.mean() < 40
        assert torch.equal(lr, imresize(changed, 1 / 4))


def test_jpeg_noise_meets_its_share_of_the_patches(small_lists):
    options = dict(scale=4, crop=32, patches_per_picture=50, progress=False)
    plain = datasets.TrainDataset(small_lists / "train.csv", **options)
    noisy = datasets.TrainDataset(small_lists / "train.csv", jpeg_noise=0.5, **options)
    (lr, hr), (worse, same) = (d[range(200)] for d in (plain, noisy))
    assert torch.equal(hr, same)
    changed = [not torch.equal(a, b) for a, b in zip(lr, worse)]
    assert 70 < sum(changed) < 130
    assert (lr.float() - worse.float()).abs().mean() < 10


def test_pictures_of_training_and_tests_are_read_as_they_are_stored(photograph, tmp_path):
    """What a profile says is for the eye: the values of benchmarks are those in their files, as in the literature."""
    picture = np.ascontiguousarray(photograph[:96, :128])
    (tmp_path / "hr").mkdir()
    Image.fromarray(picture).save(tmp_path / "hr" / "p3.png", icc_profile=display_p3())
    create_data_lists.create_data_lists(tmp_path / "hr", {"test": tmp_path / "hr"}, tmp_path, progress=False)
    assert np.array_equal(datasets.TestDataset(tmp_path / "test.csv")[0].hr, picture)
    patches = datasets.TrainDataset(tmp_path / "train.csv", crop=96, flip=False, rotate=False, progress=False)
    assert {tuple(pixel) for pixel in patches[0][1].flatten(1).T.tolist()} <= {
        tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
