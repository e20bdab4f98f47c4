"""What several tests do: train small runs and compare their weights, copy the kit."""

import json
import os
import shutil
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from easydict import EasyDict
from warm import ROOT

import create_data_lists
import datasets
import solver
import utils
from imresize import imresize
from kit import runs
from kit.compute.device import Machine
from kit.compute.interrupt import Stopped
from kit.compute.learner import Learner
from kit.data.image_cache import make_image_cache
from kit.handin import sandbox
from kit.settings.schema import section

# The browser that some tests drive, or None.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


SYSTEMS = ["paper", "celeba", "paddle", "paperspace"]
PICTURE = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3).astype(np.uint8)
walls = pytest.mark.skipif(sandbox.lacking() is not None, reason=f"no sandbox here: {sandbox.lacking()}")


def files_in(folder):
    """The files below a folder, as sorted relative paths."""
    return sorted(os.path.relpath(os.path.join(d, f), folder) for d, _, names in os.walk(folder) for f in names)


def refused(act, folder, *words):
    """Run `act`; it must raise one error with all these words and leave the files as they were."""
    before = files_in(folder)
    with pytest.raises((ValueError, OSError, TypeError)) as caught:
        act()
    for word in words:
        assert word in str(caught.value)
    assert files_in(folder) == before


def make_lists(train=None, tests=None, out=None, **options):
    return create_data_lists.create_data_lists(train, tests, out, progress=False, **options)


# ------------------------------------------------------------------------------------------------- runs


def changed(cfg, **changes):
    """Settings with changes that nobody has checked."""
    return EasyDict({**cfg, **changes})


def train(cfg, **changes):
    """Train a run to its end; gives the trainer."""
    trainer = solver.Trainer(changed(cfg, **changes), progress=False)
    trainer.train()
    return trainer


def last(cfg, name=None):
    """Where the saved state of a run is."""
    return Path(cfg.runs, name or cfg.name, "checkpoints", "last.pt")


def weights(path):
    """All weights in a saved state, or in that of a run's folder."""
    state = runs.load_checkpoint(path / "checkpoints" / "last.pt" if Path(path).is_dir() else path)
    return {f"{network}.{name}": value for network in ("generator", "average", "discriminator")
            for name, value in state.get(network, {}).items()}


def weights_of(trainer):
    """The weights of a trainer's generator, as they are now."""
    return {name: value.clone() for name, value in trainer.generator.state_dict().items()}


def equal(a, b):
    """Whether weights are the same, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def same_generator(a, b):
    return equal(weights_of(a), weights_of(b))


def segments(cfg):
    """What trained the epochs of a run, as its folder says."""
    return json.loads(Path(cfg.runs, cfg.name, "settings.json").read_bytes())


def save_generator(path, generator, notes=(), **settings):
    """Save a generator that was built with the paper's settings but for these, as the kit does."""
    settings = section(solver.settings("paper", **settings), "generator")
    runs.save_generator(path, generator.state_dict(), settings, **dict(notes))


def learner(network, learning_rate):
    """A network that learns by plain gradient descent, in fp32 on the CPU, so that updates show the gradients."""
    return Learner(network, torch.optim.SGD(network.parameters(), learning_rate), Machine("cpu", "fp32"))


def image_cache_of(csv_file, rows=None):
    """The image cache of a list."""
    rows = datasets.read_list(csv_file) if rows is None else rows
    return make_image_cache(csv_file, rows, 4, partial(datasets.read_pair, scale=4), progress=False)


def interrupted(cfg, monkeypatch, updates, phases=None):
    """Train a run, stopped once after so many updates, then resumed to its end."""
    count = iter(range(updates, -1, -1))

    def counted(self, loss, descend=Learner.descend):
        descend(self, loss)
        if next(count, None) == 1:
            os.kill(os.getpid(), 2)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Learner, "descend", counted)
        solver.Trainer(cfg, phases, progress=False).train()
    trainer = solver.Trainer(cfg, phases, progress=False)
    trainer.train()
    return trainer


# ----------------------------------------------------------------------------------------------- copies


def copy_kit(folder):
    """Copy the kit, as a student has it, into a folder."""
    for file in [*ROOT.glob("*.py"), *ROOT.glob("*.ipynb")]:
        shutil.copy(file, folder)
    for part in ("kit", "weights"):
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
    substitute(folder / "kit" / "lessons" / "sheet.py", "updates_per_epoch=60, warmup_epochs=4",
               "updates_per_epoch=1, warmup_epochs=1")


def shrink_the_reference(folder):
    """Let small networks stand for the reference in a copy of the kit: its own take most of the time of a notebook."""
    small = solver.make_generator(solver.settings("paper", channels=8, blocks=1))
    for file in (folder / "weights").glob("*.safetensors"):
        save_generator(file, small, channels=8, blocks=1)


def png_by_hand(path, width, height, bits, data=b"", colour=2, transparent=None):
    """Write a picture as PNG of what Pillow cannot write; the colour 2 is RGB, 0 grey, 4 grey with alpha."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    alpha = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + alpha + chunk(b"IDAT", data)
                     + chunk(b"IEND", b""))


def png_of_16_bits(path, values):
    """Write uint16 H×W×3 as PNG."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    png_by_hand(path, values.shape[1], values.shape[0], 16, zlib.compress(rows))


def display_p3():
    """An ICC profile of Display P3 (D65, sRGB's curve; its colorants adapted to D50), of version 2, as bytes."""
    levels = np.arange(1024) / 1023
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return icc_profile("Display P3", linear, (0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189),
                       (0.15710, 0.06657, 0.78407))


def adobe_rgb():
    """The same of Adobe RGB (1998)."""
    return icc_profile("Adobe RGB", (np.arange(1024) / 1023) ** (563 / 256), (0.60974, 0.31111, 0.01947),
                       (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))


def icc_profile(name, linear, red, green, blue):
    """An ICC profile, as bytes, by its curve from 0 to 1 and its colorants."""
    def number(value):
        return struct.pack(">i", round(value * 65536))

    curve = b"curv" + bytes(4) + struct.pack(">I", len(linear)) + np.round(linear * 65535).astype(">u2").tobytes()
    colours = {b"wtpt": (0.96420, 1, 0.82491), b"rXYZ": red, b"gXYZ": green, b"bXYZ": blue}
    tags = {name: b"XYZ " + bytes(4) + b"".join(map(number, values)) for name, values in colours.items()}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    text = name.encode() + b"\0"
    tags[b"desc"] = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    table, data, place = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", place + len(data), len(content))
        data += content
    header = struct.pack(">I4sI4s4s4s12s4s", place + len(data), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ",
                         bytes(12), b"acsp")
    return header.ljust(68, b"\0") + number(0.96420) + number(1) + number(0.82491) + bytes(48) + table + data
