"""What several tests need: small real pictures, lists of them, and the real benchmark pairs where they are."""

import os
from pathlib import Path

import numpy as np
import pytest
import skimage

import create_data_lists
import solver
import utils

ROOT = Path(__file__).parent.parent


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
        discriminator_channels=2, discriminator_dense=8, warmup_epochs=2, adversarial_epochs=2, device="cpu")
