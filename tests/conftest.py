"""What several tests need: small real pictures, lists of them, and the real benchmark pairs where they are."""

import multiprocessing
import os
import shutil
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import skimage
import torch
from torch import nn

import create_data_lists
import recipes
import runs
import solver
import utils
from imresize import imresize
from machine import Learner, Machine

ROOT = Path(__file__).parent.parent


def save_generator(path, generator, notes=(), **settings):
    """Save a generator that was built with the paper's settings but for these, as the kit does."""
    settings = recipes.section(recipes.settings("paper", **settings), "generator")
    runs.save_generator(path, generator.state_dict(), settings, **dict(notes))


@pytest.hookimpl(optionalhook=True)  # pytest-xdist asks for it
def pytest_xdist_make_scheduler(config, log):
    """Tests go to the processes one by one, but those that share the executed notebooks go together."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            groups = {"executed": ["test_they_run", "test_they_leave"],
                      "handed in": ["test_the_report_has", "test_each_of_a_class", "test_nothing_that_is_handed_in"]}
            return next((group for group, names in groups.items()
                         if any(f"::{name}" in nodeid for name in names)), nodeid)

    return Scheduling(config, log)


def start(function, *arguments):
    """Start a function in a process of its own, to be killed; where the system can, with the kit imported."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(["solver"])
    process = context.Process(target=function, args=arguments)
    process.start()
    return process


def copy_kit(folder):
    """Copy the kit, as a student has it, into a folder."""
    for file in [*ROOT.glob("*.py"), *ROOT.glob("*.ipynb")]:
        shutil.copy(file, folder)
    for part in ("tools", "weights"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))


def make_quarter_lists(folder):
    """Make the demo's lists in a copy of the kit, of its photographs at a quarter of their size."""
    source = Path(skimage.__file__).parent / "data"
    for name, files in [("demo_train", create_data_lists.DEMO_TRAIN), ("demo_test", create_data_lists.DEMO_TEST)]:
        for file in files:
            quarter = imresize(utils.read_picture(source / file), 1 / 4)
            utils.save_picture(folder / "quarters" / name / f"{Path(file).stem}.png", quarter)
        create_data_lists.create_data_lists(None, {name: folder / "quarters" / name}, folder / "data" / "lists",
                                            progress=False)


def substitute(path, usual, small):
    """Put something small in the one place where a file has something usual."""
    text = path.read_text(encoding="utf-8")
    assert text.count(usual) == 1, usual
    path.write_text(text.replace(usual, small), encoding="utf-8")


def shorten_the_sheet(folder):
    """Let the rows of the sheet take a second in a copy of the kit."""
    substitute(folder / "lessons.py", "updates_per_epoch=60, warmup_epochs=4", "updates_per_epoch=1, warmup_epochs=1")


def learner(network, learning_rate):
    """A network that learns by plain gradient descent, in fp32 on the CPU, so that updates show the gradients."""
    return Learner(network, torch.optim.SGD(network.parameters(), learning_rate), Machine("cpu", "fp32"))


@pytest.fixture(scope="session")
def vgg19_weights(tmp_path_factory):
    """A file in the format of torchvision's VGG19 weights, with other numbers in it, and its network."""
    from torchvision.models import vgg19

    torch.manual_seed(3)
    with torch.device("meta"):
        network = vgg19()
    features = network.features.to_empty(device="cpu").eval()
    for value in features.parameters():
        nn.init.kaiming_normal_(value) if value.dim() > 1 else nn.init.zeros_(value)
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"  # without the classifier, which is six times as large
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
        device="cpu")
