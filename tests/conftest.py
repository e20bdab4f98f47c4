"""What several tests need: small real pictures, lists of them, and the real benchmark pairs where they are."""

import os
import random
import re
import shutil
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from torch import nn
from warm import python

import create_data_lists
import models
import solver
import utils
from helpers import ROOT, make_quarter_lists, shorten_the_sheet, shrink_the_reference, substitute
from kit.handin import sandbox
from teacher import handout

LONGEST = ("test_browser.py", "test_notebooks.py", "test_processes.py")


def pytest_collection_modifyitems(items):
    """TEST_ORDER=number runs the tests in that random order: none may hang on another.

    Without it the longest come first, lest one process work on them while the others have nothing left to do.
    """
    if order := os.environ.get("TEST_ORDER"):
        random.Random(order).shuffle(items)
    else:
        items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def threads_as_before():
    """No test leaves PyTorch with another number of threads: the next would be slow, and of other last bits."""
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


@pytest.fixture(autouse=True)
def same_random_numbers():
    """Every test has the same random numbers each time, whatever ran before it: none may fail by chance."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def vgg19_weights(tmp_path_factory):
    """A file in the format of torchvision's VGG19 weights, with other numbers in it, and its network."""
    return _vgg_weights("vgg19", tmp_path_factory.mktemp("vgg"))


@pytest.fixture(scope="session")
def vgg16_weights(tmp_path_factory):
    """The same of VGG16."""
    return _vgg_weights("vgg16", tmp_path_factory.mktemp("vgg"))


def _vgg_weights(name, folder):
    import torchvision.models

    torch.manual_seed(3)
    with torch.device("meta"):
        network = getattr(torchvision.models, name)()
    features = network.features.to_empty(device="cpu").eval()
    for value in features.parameters():
        nn.init.kaiming_normal_(value) if value.dim() > 1 else nn.init.zeros_(value)
    path = folder / f"{name}.pth"  # without the classifier, which is six times as large
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, path)
    return str(path), features


@pytest.fixture(scope="session")
def photograph():
    """A real photograph, uint8 300×451×3."""
    return utils.read_picture(Path(skimage.__file__).parent / "data" / "chelsea.png")


@pytest.fixture(scope="session")
def benchmarks():
    """The folder with Set5/image_SRF_4 etc.; skips where there is none."""
    for folder in [os.environ.get("SR_DATA"), ROOT.parent / "shared" / "data"]:
        if folder and (Path(folder) / "Set5" / "image_SRF_4").is_dir():
            return Path(folder)
    pytest.skip("needs the ×4 pairs of Set5, Set14 and BSD100: set SR_DATA to the folder that holds Set5/image_SRF_4")


@pytest.fixture(scope="session")
def small_lists(tmp_path_factory, photograph):
    """A folder with train.csv (four 64×80 details of a photograph) and valid.csv (one, 48×64)."""
    folder = tmp_path_factory.mktemp("small")
    for i in range(4):
        detail = np.ascontiguousarray(photograph[60 * i : 60 * i + 64, 80 * i : 80 * i + 80])
        utils.save_picture(folder / "train" / f"{i}.png", detail)
    utils.save_picture(folder / "valid" / "eye.png", np.ascontiguousarray(photograph[90:138, 150:214]))
    create_data_lists.create_data_lists(folder / "train", {"valid": folder / "valid"}, folder, crop=32, progress=False)
    return folder


@pytest.fixture
def small_settings(small_lists, tmp_path):
    """Settings of a run of a second or two, in a temporary folder."""
    return solver.settings(
        "demo", name="small", runs=str(tmp_path / "runs"), train_list=str(small_lists / "train.csv"),
        valid_list=str(small_lists / "valid.csv"), crop=32, batch_size=4, patches_per_picture=5, channels=4, blocks=1,
        discriminator_channels=2, discriminator_dense=8, warmup_epochs=2, adversarial_epochs=2, ema_decay=0,
        # These whatever the demo is tuned to: tests name them.
        warmup_lr=2e-3, adam_beta2=0.999, content_loss="mse + 2 lr_consistency",
        device="cpu", threads=torch.get_num_threads())  # a number of its own choice would change the last bits


@pytest.fixture(scope="session")
def generator():
    """A small generator with random weights."""
    torch.manual_seed(1)
    return models.Generator(4, channels=8, blocks=2)


@pytest.fixture
def own_lists(small_lists, tmp_path):
    """A copy of the small lists and their pictures that a test may spoil."""
    shutil.copytree(small_lists, tmp_path / "lists", ignore=shutil.ignore_patterns("*pack*", "*.lock"))
    return tmp_path / "lists"


@pytest.fixture(scope="session")
def faces(tmp_path_factory, photograph):
    """Ten "faces" of CelebA's size and names, details of a photograph."""
    folder = tmp_path_factory.mktemp("celeba") / "img_align_celeba"
    for i in range(10):
        face = np.ascontiguousarray(np.rot90(photograph)[20 * i : 20 * i + 218, 10 * i : 10 * i + 178])
        utils.save_picture(folder / f"{i + 1:06}.png", face)
        (folder / f"{i + 1:06}.png").rename(folder / f"{i + 1:06}.jpg")
    return folder.parent


@pytest.fixture(scope="session")
def edition(tmp_path_factory):
    """The student edition, in a folder."""
    folder = tmp_path_factory.mktemp("edition") / "handout"
    handout.make(folder)
    return folder


def make_student(folder, edition, photograph):
    """A student's folder: the edition with networks, small pictures and settings; run, and reported."""
    shutil.copytree(edition, folder)
    shutil.copy(ROOT / "models.py", folder)
    make_quarter_lists(folder)
    Image.fromarray(photograph[:60, :80]).save(folder / "small.png")
    for name, usual, small in [
            ("super_resolution.ipynb", r'Path(skimage.__file__).parent / \"data\" / \"chelsea.png\"', r'\"small.png\"'),
            ("kit/settings/recipes.py", "adversarial_epochs=3,", "adversarial_epochs=1, updates_per_epoch=5,"),
            ("kit/settings/recipes.py", "channels=32, blocks=8", "channels=8, blocks=1")]:
        substitute(folder / name, usual, small)
    shorten_the_sheet(folder)
    shrink_the_reference(folder)
    done = python("-m", "kit.tools.run_notebooks", "--inplace", cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "own" not in done.stderr
    done = python("-m", "kit", "report", cwd=folder)
    assert done.returncode == 0 and re.search("7 (sections wait|节需要)", done.stdout), done.stderr
    text = (folder / "report.md").read_text(encoding="utf-8")
    (folder / "report.md").write_text(re.sub("(?m)^✎.*$", "My own words.", text), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def student(edition, tmp_path_factory, photograph):
    """A student's folder, executed and reported, to be handed in."""
    return make_student(tmp_path_factory.mktemp("student") / "ann", edition, photograph)


@pytest.fixture(scope="session")
def chinese_student(tmp_path_factory, photograph):
    """The same of the edition in Chinese."""
    edition = tmp_path_factory.mktemp("edition") / "zh"
    handout.make(edition, language="zh")
    return make_student(tmp_path_factory.mktemp("student") / "li", edition, photograph)


@pytest.fixture(scope="session")
def good(student):
    """The zip that `python -m kit zip` makes of it."""
    done = python("-m", "kit", "zip", "ann", cwd=student)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout and "29 of 29 tests passed" in done.stdout
    return student / "ann.zip"


@pytest.fixture
def removed(tmp_path):
    """A folder that is removed at the end, whatever is in it: pytest's own way fails on very deep ones."""
    yield tmp_path
    sandbox.remove(tmp_path)
