"""Measure the kit on this machine, each part beside the plain way of doing the same, in one run.

    python benchmark.py data

A table goes to the screen and the same figures as JSON to `results/benchmark.json`. Machines differ and
are noisy: quote ratios, and the machine's name.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import create_data_lists
import datasets
import utils

PHOTOGRAPHS = ["astronaut.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "chelsea.png"]


def rate(batches, seconds):
    """Patches per second of an endless iterable of (low, high) batches, after one for warming up."""
    next(batches)
    patches, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        patches += len(next(batches)[0])
    return patches / (time.perf_counter() - began)


# ------------------------------------------------------------------------------------------------ data


class PlainDataset(Dataset):
    """The usual way: a patch is cut from a picture that is opened and decoded for it; LR files exist."""

    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return 100 * len(self.pairs)

    def __getitem__(self, index):
        low, high = (np.array(Image.open(file)) for file in self.pairs[index % len(self.pairs)])
        random = np.random.default_rng(index)
        top, left = random.integers(low.shape[0] - 23), random.integers(low.shape[1] - 23)
        low = low[top : top + 24, left : left + 24]
        high = high[4 * top : 4 * top + 96, 4 * left : 4 * left + 96]
        if random.integers(2):
            low, high = low[:, ::-1], high[:, ::-1]
        turns = random.integers(4)
        low, high = (torch.from_numpy(np.rot90(x, turns).transpose(2, 0, 1).copy()).float() for x in (low, high))
        return low / 255, high / 127.5 - 1


def make_pictures(folder, count):
    """`count` different 2040×1356 PNGs, the size of DIV2K's, put together from photographs."""
    source = Path(skimage.__file__).parent / "data"
    photographs = [utils.read_picture(source / name)[:300, :450] for name in PHOTOGRAPHS]
    for i in range(count):
        random = np.random.default_rng(i)
        rows = [np.concatenate([photographs[k] for k in random.permutation(5)], axis=1) for _ in range(5)]
        picture = np.roll(np.concatenate(rows), random.integers(2250), axis=1)[:1356, :2040]
        path = folder / "DIV2K_train_HR" / f"{i + 1:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, compress_level=1 if count > 16 else 6)
        low = folder / "DIV2K_train_LR_bicubic" / "X4" / f"{i + 1:04}x4.png"
        utils.save_picture(low, datasets.imresize(picture, 0.25))
    create_data_lists.create_data_lists(folder / "DIV2K_train_HR", out=folder, progress=False)
    return folder / "train.csv"


def packed_batches(dataset):
    """The kit's way: whole batches from the memory-mapped pack, as float tensors."""
    for low, high in datasets.batches(dataset, 16, 0, 100_000):
        yield utils.to_unit(low), utils.to_signed(high)


MEMORY_PROGRAM = """
import re, sys
import solver
cfg = solver.settings("demo", runs=sys.argv[1], train_list=sys.argv[2], valid_list=sys.argv[2], valid_pictures=1,
                      channels=8, blocks=1, warmup_epochs=1, patches_per_picture=int(sys.argv[3]), batch_size=16)
solver.Trainer(cfg, progress=False).warm_up()
print(re.search("RssAnon:\\\\s*(\\\\d+)", open("/proc/self/status").read())[1])
"""


def training_memory(csv_file, patches):
    """Memory of its own (MB, without the page cache that files share) of a process after training an epoch."""
    with tempfile.TemporaryDirectory() as runs:
        done = subprocess.run([sys.executable, "-c", MEMORY_PROGRAM, runs, csv_file, str(patches)], text=True,
                              capture_output=True, cwd=Path(__file__).parent)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return int(done.stdout.split()[-1]) / 1024


def benchmark_data():
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        csv_file = make_pictures(folder / "16", 16)
        pairs = [(row.lr, row.hr) for row in datasets.read_list(csv_file)]
        plain_loader = DataLoader(PlainDataset(pairs), batch_size=16, shuffle=True, num_workers=2)
        began = time.perf_counter()
        dataset = datasets.TrainDataset(csv_file, progress=False)
        print(f"packing 16 pictures of 2040×1356 took {time.perf_counter() - began:.1f} s, once")
        kit = packed_batches(dataset)
        plain, packed = [], []
        for _ in range(3):  # in turn, because the machine's speed drifts
            plain.append(rate(iter(plain_loader), 8))
            packed.append(rate(kit, 2))
        rows.append(("training patches per second", np.median(plain), np.median(packed),
                     np.median(packed) / np.median(plain)))
        if sys.platform == "linux":
            big = make_pictures(folder / "160", 160)
            rows.append(("memory of training on 16 pictures (MB)", None, training_memory(csv_file, 100), None))
            rows.append(("memory of training on 160 pictures (MB)", None, training_memory(big, 10), None))
    return ["data (2040×1356 PNGs, batch 16, crop 96)", "plain", "kit", "ratio"], rows


BENCHMARKS = {"data": benchmark_data}


def machine_name():
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":")[1].strip() if lines else name
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {torch.get_num_threads()} threads{gpu}, PyTorch {torch.__version__}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", default="all", choices=[*BENCHMARKS, "all"])
    what = parser.parse_args(arguments).what
    print(machine_name(), flush=True)
    results = {"machine": machine_name()}
    for name in BENCHMARKS if what == "all" else [what]:
        header, rows = BENCHMARKS[name]()
        cells = [[label, *("" if value is None else f"{value:,.1f}" for value in values)] for label, *values in rows]
        print("\n" + utils.text_table(cells, header), flush=True)
        results[name] = {label: dict(zip(header[1:], values)) for label, *values in rows}
    with utils.write_whole("results/benchmark.json") as temporary:
        temporary.write_text(json.dumps(results, indent=2, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
