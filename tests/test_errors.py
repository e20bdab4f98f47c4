"""Bad pictures, lists, settings and checkpoints: one clear error each, and no half-written file.

Every case is a function that does the wrong thing in an empty folder; the message must contain the
given words (what is wrong, where, what to do), and afterwards the folder must hold what the case put there.
"""

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from conftest import save_generator
from PIL import Image
from safetensors.torch import save_file

import create_data_lists
import datasets
import evaluation
import models
import runs
import solver
import utils

GOOD = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3).astype(np.uint8)
HEADER = "hr,lr,scale,width,height\n"


def files(folder):
    return sorted(os.path.relpath(os.path.join(d, f), folder) for d, _, names in os.walk(folder) for f in names)


def check(act, folder, *words):
    """Run `act`; it must raise one error with all these words and leave the files as they were."""
    before = files(folder)
    with pytest.raises((ValueError, OSError, TypeError)) as caught:
        act()
    for word in words:
        assert word in str(caught.value)
    assert files(folder) == before


# --------------------------------------------------------------------------------------------- pictures


def truncated(path):
    utils.save_picture(path, GOOD)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def corrupt(path):
    utils.save_picture(path, GOOD)
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)


def decompression_bomb(path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def animated(path):
    frames = [Image.fromarray(GOOD), Image.fromarray(255 - GOOD)]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])


PICTURES = {
    "missing": (lambda path: None, "there is no such file"),
    "a folder": (lambda path: path.mkdir(), "there is no such file"),
    "empty": (lambda path: path.write_bytes(b""), "not a readable picture"),
    "a text": (lambda path: path.write_text("not a picture"), "not a readable picture"),
    "truncated": (truncated, "not a readable picture"),
    "corrupt": (corrupt, "not a readable picture"),
    "a decompression bomb": (decompression_bomb, "not a readable picture"),
    "animated": (animated, "has 2 frames"),
    "transparent": (lambda path: Image.fromarray(np.dstack([GOOD, GOOD[..., 0]])).save(path), "partly transparent"),
    "floating point": (lambda path: Image.fromarray(GOOD[..., 0].astype(np.float32)).save(path, "TIFF"), "mode F"),
    "32-bit": (lambda path: Image.fromarray(GOOD[..., 0].astype(np.int32)).save(path, "TIFF"), "mode I"),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_bad_pictures(tmp_path, kind):
    make, words = PICTURES[kind]
    make(tmp_path / "bad.png")
    check(lambda: utils.read_picture(tmp_path / "bad.png"), tmp_path, "bad.png", words)


@pytest.mark.parametrize("picture", [GOOD.astype(float), GOOD[..., :2], GOOD[:0], "a.png", torch.zeros(3, 4, 4)])
@pytest.mark.parametrize("use", [
    lambda p, out: utils.save_picture(out / "out.png", p),
    lambda p, out: utils.psnr(p, GOOD),
    lambda p, out: utils.super_resolve(models.Generator(channels=2, blocks=1), p),
])
def test_what_is_no_picture(tmp_path, picture, use):
    check(lambda: use(picture, tmp_path), tmp_path, "takes a")


@pytest.mark.parametrize("act, words", [
    (lambda: utils.psnr(GOOD, GOOD[:-1]), "one shape"),
    (lambda: utils.psnr(GOOD, GOOD, 32), "too small for a border of 32"),
    (lambda: utils.psnr(GOOD, GOOD, -1), "border"),
    (lambda: utils.ssim(GOOD[:18], GOOD[:18]), "too small"),
    (lambda: utils.super_resolve(models.Generator(), GOOD, tile=80), "tile must be larger than 80"),
])
def test_bad_measurements(tmp_path, act, words):
    check(act, tmp_path, words)


# ------------------------------------------------------------------------------------------------ lists

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
    utils.save_picture(tmp_path / "a.png", GOOD)
    if content is not None:
        (tmp_path / "list.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    check(lambda: datasets.TestDataset(tmp_path / "list.csv"), tmp_path, "list.csv", words)
    check(lambda: datasets.TrainDataset(tmp_path / "list.csv", progress=False), tmp_path, "list.csv", words)


def test_a_list_whose_picture_has_changed_its_size(tmp_path):
    utils.save_picture(tmp_path / "a.png", GOOD)
    (tmp_path / "list.csv").write_text(HEADER + "a.png,,4,128,128\n")
    check(lambda: datasets.TestDataset(tmp_path / "list.csv")[0], tmp_path, "a.png", "another size", "list again")


def test_a_training_picture_smaller_than_the_crop(tmp_path):
    utils.save_picture(tmp_path / "a.png", GOOD)
    (tmp_path / "list.csv").write_text(HEADER + "a.png,,4,64,64\n")
    check(lambda: datasets.TrainDataset(tmp_path / "list.csv", progress=False), tmp_path,
          "a.png", "64×64, smaller than the crop of 96", "--crop 96")
    dataset = datasets.TrainDataset(tmp_path / "list.csv", crop=32, patches_per_picture=3, progress=False)
    check(lambda: datasets.batches(dataset, 4), tmp_path, "batch_size 4 is larger than an epoch of 3 patches")


def test_folders_of_which_no_list_can_be_made(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_text("no picture")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train.csv").write_text("an older list")

    def make(*arguments, **options):
        return lambda: create_data_lists.create_data_lists(*arguments, out=tmp_path / "out", progress=False, **options)

    check(make(tmp_path / "nowhere"), tmp_path, "nowhere: there is no such folder")
    check(make(tmp_path / "pictures"), tmp_path, "train: none of its pictures can be used", "a.png", "not a readable")
    check(make((tmp_path / "pictures", tmp_path / "low")), tmp_path, "low: there is no such folder")
    check(make(None, {"../Set5": tmp_path / "pictures"}), tmp_path, "'../Set5' cannot name a list")
    check(make(tmp_path / "pictures", scale=3), tmp_path, "scale must be 2, 4 or 8")
    check(make(), tmp_path, "no set named")
    check(lambda: create_data_lists.find_known_sets(tmp_path), tmp_path, "none of the known folders", "DIV2K_train_HR")
    assert (tmp_path / "out" / "train.csv").read_text() == "an older list"


# --------------------------------------------------------------------------------------------- settings

SETTINGS = [
    ({"batchsize": 8}, "there is no setting 'batchsize'"),
    ({"name": "a/b"}, "name must be a word"),
    ({"name": "../up"}, "name must be a word"),
    ({"scale": 3}, "scale must be 2 or 4 or 8, not 3"),
    ({"crop": 0}, "crop must be a whole number"),
    ({"crop": 50}, "crop must be a multiple of the scale (4), and of 16 for the discriminator, not 50"),
    ({"crop": 72}, "and of 16 for the discriminator, not 72"),
    ({"batch_size": 0}, "batch_size must be a whole number, at least 1"),
    ({"batch_size": "16"}, "batch_size must be a whole number, at least 1, not '16'"),
    ({"batch_size": True}, "batch_size"),
    ({"blocks": 1.5}, "blocks"),
    ({"batch_norm": "yes"}, "batch_norm must be True or False"),
    ({"first_kernel": 4}, "first_kernel must be an odd whole number"),
    ({"content_loss": "vgg"}, "content_loss must be 'mse', 'low', 'vgg54'"),
    ({"content_loss": "mse + vgg99"}, "content_loss must be 'mse', 'low', 'vgg54'"),
    ({"content_loss": "mse + mse"}, "content_loss must be 'mse', 'low', 'vgg54'"),
    ({"warmup_lr": 0}, "warmup_lr must be a number above 0"),
    ({"warmup_lr": float("nan")}, "warmup_lr must be a number above 0"),
    ({"warmup_schedule": "cosine"}, "warmup_schedule must be 'constant' or 'step' or 'one_cycle'"),
    ({"adversarial_weight": -1}, "adversarial_weight must be a number, at least 0"),
    ({"warmup_epochs": -1}, "warmup_epochs"),
    ({"clip_gradients": 0}, "clip_gradients must be a number above 0, or None"),
    ({"seed": -1}, "seed"),
    ({"precision": "fp8"}, "precision must be 'auto' or 'fp32'"),
    ({"train_list": None}, "train_list must be a text"),
]


@pytest.mark.parametrize("changes, words", SETTINGS, ids=lambda value: str(value)[:30])
def test_bad_settings(tmp_path, changes, words):
    check(lambda: solver.settings("demo", runs=str(tmp_path / "runs"), **changes), tmp_path, words)


def test_bad_settings_that_only_the_machine_can_tell(tmp_path, small_settings):
    def train(**changes):
        return lambda: solver.Trainer(type(small_settings)({**small_settings, **changes}), progress=False)

    check(lambda: solver.settings("papr"), tmp_path, "there is no recipe 'papr'", "paper, celeba, paddle")
    check(train(device="cuda:77"), tmp_path, "device 'cuda:77' cannot be used")
    check(train(device="gpu"), tmp_path, "device 'gpu' cannot be used")
    check(train(valid_list="nowhere.csv"), tmp_path, "nowhere.csv: there is no such list")
    check(train(start_from="nowhere.pt"), tmp_path, "nowhere.pt: there is no such checkpoint")
    missing = {name: value for name, value in small_settings.items() if name != "blocks"}
    check(lambda: solver.Trainer(type(small_settings)(missing)), tmp_path, "the setting blocks is missing")


# ------------------------------------------------------------------------------------------ checkpoints


def test_bad_checkpoints(tmp_path, small_settings):
    generator = models.Generator(channels=4, blocks=1)
    save_generator(tmp_path / "good.pt", generator, channels=4, blocks=1)
    (tmp_path / "half.pt").write_bytes((tmp_path / "good.pt").read_bytes()[:5000])
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    mixed = {"generator": generator.state_dict(), "generator_settings": {"channels": 8, "blocks": 1}}
    torch.save(mixed, tmp_path / "mixed.pt")
    unreadable = "not a readable checkpoint"
    for name, words in {"none": "there is no such checkpoint", "half": unreadable, "text": unreadable,
                        "empty": unreadable, "other": "not a checkpoint of this kit",
                        "mixed": "its weights do not fit its settings"}.items():
        check(lambda name=name: evaluation.load_generator(tmp_path / f"{name}.pt"), tmp_path, f"{name}.pt", words)
    save_generator(tmp_path / "good.safetensors", generator, channels=4, blocks=1)
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "good.safetensors").read_bytes()[:5000])
    (tmp_path / "text.safetensors").write_text("hello")
    save_file({"weights": torch.zeros(3)}, tmp_path / "other.safetensors", {"format": "pt"})
    save_file({"weights": torch.zeros(3)}, tmp_path / "notes.safetensors", {"author": "somebody"})
    for name, words in {"half": unreadable, "text": unreadable, "other": "not a checkpoint of this kit",
                        "notes": unreadable}.items():
        check(lambda name=name: evaluation.load_generator(tmp_path / f"{name}.safetensors"), tmp_path,
              f"{name}.safetensors", words)
    check(lambda: solver.Trainer(type(small_settings)({**small_settings, "start_from": str(tmp_path / "good.pt"),
                                                       "channels": 8})), tmp_path, "start_from", "make them equal")
    folder = tmp_path / "runs" / "small" / "checkpoints"
    folder.mkdir(parents=True)
    save_generator(folder / "last.pt", generator, channels=4, blocks=1)
    check(lambda: solver.Trainer(small_settings), tmp_path, "not a state to resume from", "delete")
    check(lambda: runs.read_history("nobody", tmp_path), tmp_path, "history.csv", "'nobody'")
