"""Measure the kit on this machine, each part beside the plain way of doing the same, in one run.

    python -m kit.tools.benchmark [data|train|enlarge|threads|all]

A table goes to the screen and the same figures as JSON to `results/benchmark_<what>.json`. Machines
differ and are noisy: quote ratios, and the machine's name.
"""

import copy
import json
import platform
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import skimage
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

import create_data_lists
import datasets
import models
import solver
import utils
from imresize import imresize
from kit import vgg
from kit.compute import layers
from kit.compute.device import Machine
from kit.compute.layers import use_fast_layers
from kit.compute.learner import Learner
from kit.console import Parser, Table
from kit.evaluation.measure import evaluate
from kit.files import write_whole
from kit.tools.benchmark_threads import benchmark_threads

ROOT = Path(__file__).resolve().parents[2]
UPDATES = 4  # in an epoch of the kit: what that begins and ends with counts little, as in training
PHOTOGRAPHS = ["astronaut.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "chelsea.png"]


def rate(batches, seconds):
    """Patches per second of an endless iterable of (lr, hr) batches, after one for warming up."""
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
        lr, hr = (np.array(Image.open(file)) for file in self.pairs[index % len(self.pairs)])
        random = np.random.default_rng(index)
        top, left = random.integers(lr.shape[0] - 23), random.integers(lr.shape[1] - 23)
        lr = lr[top : top + 24, left : left + 24]
        hr = hr[4 * top : 4 * top + 96, 4 * left : 4 * left + 96]
        if random.integers(2):
            lr, hr = lr[:, ::-1], hr[:, ::-1]
        turns = random.integers(4)
        lr, hr = (torch.from_numpy(np.rot90(x, turns).transpose(2, 0, 1).copy()).float() for x in (lr, hr))
        return lr / 255, hr / 127.5 - 1


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
        lr = folder / "DIV2K_train_LR_bicubic" / "X4" / f"{i + 1:04}x4.png"
        utils.save_picture(lr, imresize(picture, 0.25))
    create_data_lists.create_data_lists(folder / "DIV2K_train_HR", out=folder, progress=False)
    return folder / "train.csv"


def cached_batches(dataset):
    """The kit's way: whole batches from the memory-mapped image cache, as float tensors."""
    for lr, hr in datasets.batches(dataset, 16, 0, 100_000):
        yield utils.to_unit(lr), utils.to_signed(hr)


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
                              capture_output=True, cwd=ROOT)
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
        print(f"caching 16 pictures of 2040×1356 took {time.perf_counter() - began:.1f} s, once")
        kit = cached_batches(dataset)
        plain, cached = [], []
        for _ in range(3):  # in turn, because the machine's speed drifts
            plain.append(rate(iter(plain_loader), 8))
            cached.append(rate(kit, 2))
        rows.append(("training patches per second", np.median(plain), np.median(cached),
                     np.median(cached) / np.median(plain)))
        if sys.platform == "linux":
            big = make_pictures(folder / "160", 160)
            rows.append(("memory of training on 16 pictures (MB)", None, training_memory(csv_file, 100), None))
            rows.append(("memory of training on 160 pictures (MB)", None, training_memory(big, 10), None))
    return ["data (2040×1356 PNGs, batch 16, crop 96)", "plain", "kit", "ratio"], rows


# -------------------------------------------------------------------------------------- plain and kit


def in_turn(plain, kit, rounds=5):
    """Median seconds of two functions, called in turn because the machine's speed drifts, after one call each."""
    times = [[], []]
    for i in range(rounds + 1):
        for function, seconds in zip((plain, kit), times):
            began = time.perf_counter()
            function()
            if DEVICE.type != "cpu":
                getattr(torch, DEVICE.type).synchronize()
            if i:
                seconds.append(time.perf_counter() - began)
    return [float(np.median(seconds)) for seconds in times]


def matrix_product(dtype):
    """GFLOP/s of a product of two square matrices of random numbers: the ceiling of everything below."""
    size = 8192 if DEVICE.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=DEVICE).to(dtype) for _ in range(2))
    return 2 * size**3 / min(in_turn(lambda: a @ b, lambda: a @ b)) / 1e9


def plain_network(network):
    """The same network without the quicker layers, fp32, in the default memory layout."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if type(module).__module__ == layers.__name__:
            module.__class__ = type(module).__base__
    return network


def row(label, plain, kit, operations, ceiling):
    """Milliseconds of both, their ratio, and the share of the matrix product's speed that the kit reaches."""
    return label, 1000 * plain, 1000 * kit, plain / kit, 100 * operations / kit / 1e9 / ceiling


def operations_of(function):
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


HEADER = ["plain (ms)", "kit (ms)", "ratio", "% of matrix product"]


def ceilings():
    here = Machine()
    fp32, best = matrix_product(torch.float32), matrix_product(here.dtype)
    print(f"matrix product: {fp32:,.0f} GFLOP/s in fp32, {best:,.0f} in {here.precision}", flush=True)
    return best


def benchmark_train(batch=16):
    ceiling = ceilings()
    cfg = solver.settings("paper")
    torch.manual_seed(0)
    lr = torch.randint(0, 256, (batch, 3, 24, 24), dtype=torch.uint8)
    hr = torch.randint(0, 256, (batch, 3, 96, 96), dtype=torch.uint8)
    here = Machine()

    with tempfile.TemporaryDirectory() as folder:  # random weights take as long as ImageNet's
        from torchvision.models import vgg19

        cfg.vgg_weights = str(Path(folder, "vgg19.pth"))
        torch.save(vgg19().state_dict(), cfg.vgg_weights)
        content_loss = solver.make_content_loss(cfg, here)
        features = vgg.VGGFeatures(5, 4, cfg.vgg_weights).to(DEVICE)
    generator, discriminator = (
        Learner(network, torch.optim.Adam(network.parameters(), 1e-4, fused=True), here)
        for network in (here.move(use_fast_layers(make(cfg)))
                        for make in (solver.make_generator, solver.make_discriminator)))

    def batches():
        for _ in range(UPDATES):
            yield utils.to_unit(here.move(lr)), utils.to_signed(here.move(hr))

    def kit_warm_up():
        with here.tuned():
            list(solver.warmup_epoch(generator, batches()))

    def kit_adversarial():
        with here.tuned():
            list(solver.alternating_epoch(generator, discriminator, batches(), content_loss, 1e-3))

    plain_g = plain_network(generator.network).to(memory_format=torch.contiguous_format)
    plain_d = solver.make_discriminator(cfg).to(DEVICE)
    plain_g_optimizer, plain_d_optimizer = (torch.optim.Adam(n.parameters()) for n in (plain_g, plain_d))

    def plain_inputs():
        return lr.to(DEVICE).float() / 255, hr.to(DEVICE).float() / 127.5 - 1

    def plain_warm_up():
        x, y = plain_inputs()
        loss = F.mse_loss(plain_g(x), y)
        plain_g_optimizer.zero_grad()
        loss.backward()
        plain_g_optimizer.step()
        loss.item()

    def plain_adversarial():
        x, y = plain_inputs()
        sr = plain_g(x)
        real_logits, fake_logits = plain_d(y), plain_d(sr.detach())
        ones, zeros = torch.ones_like(real_logits), torch.zeros_like(real_logits)
        d_loss = (F.binary_cross_entropy_with_logits(real_logits, ones)
                  + F.binary_cross_entropy_with_logits(fake_logits, zeros))
        plain_d_optimizer.zero_grad()
        d_loss.backward()
        plain_d_optimizer.step()
        content = F.mse_loss(features(sr) / 12.75, features(y).detach() / 12.75)
        g_loss = content + 1e-3 * F.binary_cross_entropy_with_logits(plain_d(sr), ones)
        plain_g_optimizer.zero_grad()
        g_loss.backward()
        plain_g_optimizer.step()
        d_loss.item(), g_loss.item()

    rows = []
    for label, plain, kit, rounds in [("warm-up step", plain_warm_up, kit_warm_up, 5),
                                      ("adversarial step, VGG(5,4)", plain_adversarial, kit_adversarial, 3)]:
        plain_seconds, kit_seconds = in_turn(plain, kit, rounds)
        rows.append(row(label, plain_seconds, kit_seconds / UPDATES, operations_of(kit) / UPDATES, ceiling))
    return [f"train (the paper's networks, batch {batch}, crop 96)", *HEADER], rows


BIG_PROGRAM = """
import re, time
import numpy as np
import models, utils
picture, generator = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8), models.Generator()
began = time.perf_counter()
utils.super_resolve(generator, picture)
print(time.perf_counter() - began, re.search("VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
"""


def benchmark_enlarge():
    ceiling = ceilings()
    torch.manual_seed(0)
    generator = models.Generator().to(DEVICE, memory_format=torch.channels_last).eval()
    plain = copy.deepcopy(generator).to(memory_format=torch.contiguous_format)
    rows = []

    @torch.no_grad()
    def plain_enlarge(picture):
        x = torch.from_numpy(picture).permute(2, 0, 1)[None].float().to(DEVICE) / 255
        return ((plain(x) + 1) * 127.5).round().clamp(0, 255).byte()[0].permute(1, 2, 0).cpu().numpy()

    picture = np.random.default_rng(0).integers(0, 256, (339, 510, 3), np.uint8)
    times = in_turn(lambda: plain_enlarge(picture), lambda: utils.super_resolve(generator, picture), 3)
    operations = operations_of(lambda: utils.super_resolve(generator, picture))
    rows.append(row("enlarging 510×339", *times, operations, ceiling))

    with tempfile.TemporaryDirectory() as folder:
        _, test = create_data_lists.create_demo_lists(folder, progress=False)
        dataset = datasets.TestDataset(test.csv_file)

        def kit():
            return evaluate(utils.Enlarger(generator), dataset, progress=False)

        usual = partial(evaluate, lambda p: plain_enlarge(utils.to_rgb(p)) if p.ndim == 3
                        else plain_enlarge(utils.to_rgb(p))[..., 0], dataset, progress=False)
        rows.append((f"evaluating {len(dataset)} photographs", *row("", *in_turn(usual, kit, 3), 0, 1)[1:4], None))

    if sys.platform == "linux" and DEVICE.type == "cpu":
        done = subprocess.run([sys.executable, "-c", BIG_PROGRAM], text=True, capture_output=True, check=True,
                              cwd=ROOT)
        seconds, peak = map(float, done.stdout.split())
        rows.append(("enlarging 1920×1080 to 7680×4320", None, 1000 * seconds, None, None))
        rows.append(("  peak memory of the process, in MB", None, peak / 1024, None, None))

    big = np.random.default_rng(0).integers(0, 256, (1356, 2040, 3), np.uint8)
    tensor = torch.from_numpy(big).permute(2, 0, 1)[None].float()
    times = in_turn(lambda: F.interpolate(tensor, scale_factor=0.25, mode="bicubic", antialias=True),
                    lambda: imresize(big, 0.25))
    rows.append(("imresize of 2040×1356 to a quarter", *row("", *times, 0, 1)[1:4], None))
    return ["enlarge (the paper's generator)", *HEADER], rows


BENCHMARKS = {"data": benchmark_data, "train": benchmark_train, "enlarge": benchmark_enlarge,
              "threads": benchmark_threads}
DEVICE = Machine().device  # the one that is trained on


def machine_name():
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = [line for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
                 if line.startswith("model name")]
        name = lines[0].split(":")[1].strip() if lines else name
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {torch.get_num_threads()} threads{gpu}, PyTorch {torch.__version__}"


def main(arguments=None):
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", default="all", choices=[*BENCHMARKS, "all"])
    what = parser.parse_args(arguments).what
    if what == "all":  # a process for each: what one leaves in memory would change the times of the next
        for name in BENCHMARKS:
            subprocess.run([sys.executable, "-m", "kit.tools.benchmark", name], check=True, cwd=ROOT)
        return
    print(machine_name(), flush=True)
    header, rows = BENCHMARKS[what]()
    cells = [[label, *("" if value is None else f"{value:,.1f}" for value in values)] for label, *values in rows]
    print("\n" + Table(cells, header) + "\n", flush=True)
    results = {"machine": machine_name(), **{label: dict(zip(header[1:], values)) for label, *values in rows}}
    with write_whole(f"results/benchmark_{what}.json") as temporary:
        temporary.write_text(json.dumps(results, indent=2, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
