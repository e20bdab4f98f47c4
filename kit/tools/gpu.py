"""All that only a GPU can show, for whoever has one for a short time: it is right, never waits, and how fast it is.

    python -m kit.tools.gpu [--out results/gpu.md]

Each finding is written as soon as it is there, so a session that ends early leaves what it has found. The checks are
also tests, see `tests/kit/tools/test_gpu.py`; those that need no GPU run there on the CPU, against itself.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import skimage
import torch
import torch.nn.functional as F

import create_data_lists
import datasets
import solver
import utils
from kit.compute.device import Machine, free_memory
from kit.compute.inference import reason_of
from kit.compute.layers import use_fast_layers
from kit.compute.learner import Learner
from kit.console import Parser
from kit.data.image_cache import ends_of, open_image_cache
from kit.data.ondevice import DeviceCache
from kit.runs import load_checkpoint
from kit.training.state import RunState


def small_settings(folder, **changes):
    """Settings of a run of a few seconds on details of a photograph, in a folder."""
    folder, photograph = Path(folder), skimage.data.chelsea()
    for i in range(4):
        detail = np.ascontiguousarray(photograph[60 * i : 60 * i + 64, 80 * i : 80 * i + 80])
        utils.save_picture(folder / "train" / f"{i}.png", detail)
    utils.save_picture(folder / "valid" / "eye.png", np.ascontiguousarray(photograph[90:138, 150:214]))
    create_data_lists.create_data_lists(folder / "train", {"valid": folder / "valid"}, folder, crop=32, progress=False)
    small = dict(runs=str(folder / "runs"), train_list=str(folder / "train.csv"), valid_list=str(folder / "valid.csv"),
                 crop=32, batch_size=4, patches_per_picture=30, channels=8, blocks=2, discriminator_channels=4,
                 discriminator_dense=16, warmup_epochs=2, adversarial_epochs=2)
    return solver.settings("demo", **{**small, **changes})


# --------------------------------------------------------------------------------------- that it is right


KINDS = ["warmup", "alternating", "simultaneous"]


def gradients(kind, device, precision, clip=None):
    """What one update of a kind does to the weights, by plain gradient descent, on a device."""
    torch.manual_seed(0)
    cfg = solver.settings("demo", channels=8, blocks=2, discriminator_channels=4, discriminator_dense=16, crop=32)
    networks = [solver.make_generator(cfg), solver.make_discriminator(cfg)]
    lr, hr = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 32, 32) * 2 - 1
    before = [weight.detach().clone() for network in networks for weight in network.parameters()]
    machine = Machine(device, precision)
    if precision == "fp16":  # the usual first scale is lowered by leaving updates out
        machine.scaler = torch.amp.GradScaler(machine.device.type, init_scale=256)
    networks = [machine.move(use_fast_layers(network)) for network in networks]
    generator, discriminator = (
        Learner(network, torch.optim.SGD(network.parameters(), 0.1), machine, limit)
        for network, limit in zip(networks, (clip, None)))
    batch = [(machine.move(lr), machine.move(hr))]
    if kind == "warmup":
        steps = solver.warmup_epoch(generator, batch)
    else:
        epoch = getattr(solver, f"{kind}_epoch")
        steps = epoch(generator, discriminator, batch, solver.make_content_loss(cfg, machine), 0.1)
    losses, = steps
    after = [weight.detach().cpu() for network in networks for weight in network.parameters()]
    return {name: float(loss.detach()) for name, loss in losses.items()}, [a - b for a, b in zip(after, before)]


def check_update(device, kind, precision, clip=None):
    """An update does what it does on the CPU in fp32: how far losses and gradients are apart, of the largest."""
    wanted_losses, wanted = gradients(kind, "cpu", "fp32", clip)
    losses, found = gradients(kind, device, precision, clip)
    apart = max(float((a - b).norm() / b.norm().clamp(min=1e-6)) for a, b in zip(found, wanted))
    of_losses = max(abs(losses[name] - value) / max(abs(value), 0.01) for name, value in wanted_losses.items())
    allowed = {"fp32": 1e-3, "bf16": 0.5, "fp16": 0.2}[precision]
    assert apart < allowed and of_losses < allowed, f"gradients {apart:.2g} apart, losses {of_losses:.2g}"
    return f"gradients {apart:.1g} apart, losses {of_losses:.1g}"


def check_batches(device, **changes):
    """Batches that are cut on a device equal those that are cut on the CPU, also where an epoch ends."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = small_settings(folder, **changes)
        sets = [datasets.training_patches(cfg, None, progress=False) for _ in range(2)]
        sets[1].keep_on(torch.device(device))
        most = 0
        for first in (0, 40, len(sets[0]) - 2):
            numbers = range(first, first + 16)
            for here, there in zip(sets[0][numbers], sets[1][numbers]):
                most = max(most, int((here.int() - there.cpu().int()).abs().max()))
        assert most <= (1 if cfg.colour_jitter else 0), f"up to {most} grey values apart"
        return f"up to {most} grey values apart"


def check_large_cache(device, pictures=250, width=2040, height=1356):
    """Patches from beyond the 2³¹st byte of a cache on the device are the right ones."""
    rows = [datasets.Row(Path(f"{i}.png"), None, width, height, 0, 0) for i in range(pictures)]
    ends = ends_of(rows, 4)
    with tempfile.TemporaryDirectory() as folder:
        file, random = Path(folder, "cache"), np.random.default_rng(0)
        with open(file, "wb") as stream:
            for size in np.diff(ends, prepend=0).tolist():
                stream.write(random.bytes(size))
        cache, pairs = DeviceCache(file, rows, ends, 4, 96, torch.device(device)), open_image_cache(file, rows, 4)
        plan = np.array([[pictures - 1, height // 4 - 24, width // 4 - 24, 0, 0], [0, 0, 0, 0, 0],
                         [pictures - 2, 3, 5, 0, 0]])
        lr, hr = (part.cpu() for part in cache.gather([(0, plan, np.arange(3))]))
        for i, (picture, top, left, _, _) in enumerate(plan.tolist()):
            for patch, whole, factor, size in [(lr[i], pairs[picture][0], 1, 24), (hr[i], pairs[picture][1], 4, 96)]:
                y, x = factor * top, factor * left
                assert np.array_equal(patch.permute(1, 2, 0).numpy(), whole[y : y + size, x : x + size])
        del pairs
    return f"equal in a cache of {int(ends[-1]):,} bytes"


def check_resume(device, first, then):
    """A run that was stopped with the first (device, precision) goes on with the second to its end."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = small_settings(folder, name="stopped", device=first[0], precision=first[1], adversarial_epochs=0)
        solver.Trainer(cfg, progress=False).train()
        cfg.update(device=then[0], precision=then[1], adversarial_epochs=2)
        trainer = solver.Trainer(cfg, progress=False)
        history = trainer.train()
        state = load_checkpoint(trainer.run.checkpoint("last"))
        finite = all(value.isfinite().all() for value in state["generator"].values())
        assert len(history) == 4 and finite and history[-1]["psnr"] > 10
        return f"{history[1]['psnr']:.2f} dB, then {history[-1]['psnr']:.2f} dB"


def check_no_waits(device, recipe="demo", **changes):
    """20 updates run without the CPU waiting for the GPU, which PyTorch tells by an error."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = small_settings(folder, device=str(device), data_on_gpu=True, **changes)
        trainer = solver.Trainer(cfg, progress=False)
        for phase in trainer.phases:
            if phase.asks_for("discriminator") and trainer.discriminator is None:
                trainer.networks.add_discriminator()
            arguments = phase.arguments(trainer.cfg, {**trainer._made.of(phase), **trainer.networks.learners(phase)})
            try:
                state = RunState(trainer.phases, 24, trainer.machine)
                for number, losses in enumerate(phase.losses(arguments, trainer._batches(0, 24))):
                    state.count(losses, phase)
                    trainer.networks.follow(number + 1)
                    if number == 3:
                        torch.cuda.set_sync_debug_mode("error")
            finally:
                torch.cuda.set_sync_debug_mode("default")
    return "no wait in 20 updates of each phase"


def check_little_memory(device):
    """A picture is enlarged, in smaller tiles, to the same with nearly all of the GPU's memory taken."""
    torch.manual_seed(0)
    cfg = solver.settings("demo")
    generator = solver.make_generator(cfg).to(device)
    picture = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    wanted = utils.super_resolve(generator, picture, precision="fp32")
    torch.cuda.empty_cache()
    taken = torch.empty(max(0, free_memory(device) - 600 * 2**20), dtype=torch.uint8, device=device)
    found = utils.super_resolve(generator, picture, precision="fp32")
    del taken
    apart = int(np.abs(found.astype(int) - wanted).max())
    assert apart <= 1, f"up to {apart} grey values apart"
    return f"up to {apart} grey values apart"


def checks(device):
    """All checks of a GPU: name → function."""
    found = {f"{kind} update in {precision}{', clipped' if clip else ''}": partial(
        check_update, device, kind, precision, clip)
        for kind in KINDS for precision, clip in [("fp32", None), ("bf16", None), ("fp16", None), ("fp16", 0.1)]}
    found |= {"batches cut on it": partial(check_batches, device),
              "batches with JPEG": partial(check_batches, device, jpeg_noise=0.5),
              "batches with other colours": partial(check_batches, device, colour_jitter=0.1),
              "a cache above 2³¹ bytes": partial(check_large_cache, device),
              "no hidden wait": partial(check_no_waits, device),
              "no hidden wait with JPEG": partial(check_no_waits, device, jpeg_noise=0.5),
              "no hidden wait with other colours": partial(check_no_waits, device, colour_jitter=0.1),
              "enlarging in little memory": partial(check_little_memory, device)}
    ways = {"CPU": ("cpu", "fp32"), "GPU in fp32": ("cuda", "fp32"), "GPU in bf16": ("cuda", "bf16"),
            "GPU in fp16": ("cuda", "fp16")}
    found |= {f"resumed: {a}, then {b}": partial(check_resume, device, first, then)
              for a, first in ways.items() for b, then in ways.items() if a != b}
    return found


# ------------------------------------------------------------------------------------- how fast it is


def paper_step(device, way, kind="adversarial", batch=16):
    """An update of the paper's networks with a loss on φ(5,4) of random weights, to be called again and again.

    `way`: "plain" is PyTorch in fp32 (without TF32), in its usual layout; "eager" the kit's; "compiled" that with
    torch.compile; "graph" that as a CUDA graph.
    """
    from torchvision.models import vgg19

    torch.manual_seed(0)
    cfg, plain = solver.settings("paper"), way == "plain"
    machine = Machine(device, "fp32" if plain else "auto", channels_last=not plain)
    networks = [solver.make_generator(cfg), solver.make_discriminator(cfg)]
    networks = [machine.move(network if plain else use_fast_layers(network)) for network in networks]
    features = machine.move(vgg19(weights=None).features[:36].requires_grad_(False).eval()).to(machine.dtype)
    if way == "compiled":
        for network in networks:
            network.compile()
    generator, discriminator = (
        Learner(network, torch.optim.Adam(network.parameters(), 1e-4, fused=not plain, capturable=way == "graph"),
                machine) for network in networks)
    lr, hr = machine.move(torch.rand(batch, 3, 24, 24)), machine.move(torch.rand(batch, 3, 96, 96) * 2 - 1)

    def content_loss(sr, hr):
        with machine.autocast():
            return 1e-4 * F.mse_loss(features(sr.to(machine.dtype)).float(), features(hr.to(machine.dtype)).float())

    def step():
        if kind == "warmup":
            list(solver.warmup_epoch(generator, [(lr, hr)]))
        else:
            list(solver.alternating_epoch(generator, discriminator, [(lr, hr)], content_loss, 1e-3))

    if way != "graph":
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is tried out and made at first must not be in the graph
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay(kept=step):  # what the graph works on must live as long as it
        graph.replay()

    return replay


def measure(device, way, kind, steps=20):
    """Milliseconds of an update, the median of five rounds."""
    times = []
    with Machine(device).tuned():
        step = paper_step(device, way, kind)
        for _ in range(6):
            began = time.perf_counter()
            for _ in range(steps):
                step()
            torch.cuda.synchronize()
            times.append((time.perf_counter() - began) / steps)
    return f"{1000 * np.median(times[1:]):.2f} ms"


def measurements(device):
    """All measurements of a GPU: name → function."""
    return {f"{kind} update of the paper's networks, {way}": partial(measure, device, way, kind)
            for kind in ("warmup", "adversarial") for way in ("plain", "eager", "compiled", "graph")}


def main(arguments=None):
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="results/gpu.md", help="where findings go (default: %(default)s)")
    out = Path(parser.parse_args(arguments).out)
    if not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here")
    out.parent.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda", 0)
    with open(out, "a", encoding="utf-8") as file:
        def write(line):
            print(line, flush=True)
            file.write(line + "\n")
            file.flush()

        write(f"\n{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, {time.strftime('%Y-%m-%d %H:%M')}\n\n"
              f"| what | seconds | found |\n| --- | --- | --- |")
        for name, function in {**checks(device), **measurements(device)}.items():
            began = time.monotonic()
            try:
                found = function()
            except Exception as error:  # the others are tried all the same
                found = f"FAILED: {type(error).__name__}: {reason_of(error)}"
            write(f"| {name} | {time.monotonic() - began:.1f} | {found} |")


if __name__ == "__main__":
    main()
