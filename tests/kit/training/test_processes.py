"""Several processes train one run."""

import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from warm import python

from helpers import ROOT, changed, last, train
from kit import runs


def in_two_processes(cfg, name, tmp_path, **changes):
    """Train a run by `torchrun` on two processes of the CPU."""
    settings = {**changed(cfg, name=name), **changes}
    arguments = [f"--{key}={value}" for key, value in settings.items() if value is not None]
    done = python("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", ROOT / "solver.py", "--recipe",
                  "demo", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    return runs.read_history(name, cfg.runs)


def test_two_processes_train_as_one_does_and_one_can_go_on(small_settings, tmp_path):
    cfg = changed(small_settings, precision="fp32", warmup_epochs=3, warmup_schedule="constant", warmup_lr=1e-4,
                  adversarial_epochs=0, patches_per_picture=10)
    whole = train(cfg, name="whole").history
    two = in_two_processes(cfg, "two", tmp_path, warmup_epochs=2)
    assert len(two) == 2
    resumed = train(cfg, name="two").history  # from two processes to one
    for mine, wanted in zip(resumed, whole):
        assert mine["content_loss"] == pytest.approx(wanted["content_loss"], rel=1e-4)
        assert mine["psnr"] == pytest.approx(wanted["psnr"], abs=0.01)
    assert len(resumed) == 3


@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
def test_two_processes_train_adversarially(small_settings, tmp_path, updates):
    # without batch norm, whose statistics each process has for itself, the losses are those of one process
    cfg = changed(small_settings, precision="fp32", warmup_epochs=0, adversarial_epochs=2, updates=updates,
                  discriminator_batch_norm=False, batch_size=8, patches_per_picture=20)
    for mine, wanted in zip(in_two_processes(cfg, "two", tmp_path), train(cfg, name="one").history):
        for loss in ["content_loss", "adversarial_loss", "discriminator_loss", "d_real", "d_fake"]:
            assert mine[loss] == pytest.approx(wanted[loss], rel=1e-3)


@pytest.mark.skipif(sys.platform != "linux", reason="kills a group of processes by its names in /proc")
def test_processes_whose_torchrun_was_killed_end_by_themselves(small_settings):
    cfg = changed(small_settings, warmup_epochs=1, patches_per_picture=100_000, name="orphans")
    arguments = [f"--{key}={value}" for key, value in cfg.items() if value is not None]
    torchrun = subprocess.Popen([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
                                 ROOT / "solver.py", "--recipe", "demo", *arguments],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def trained_by():
        commands = {path.parent.name: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")
                    if path.exists()}
        return [pid for pid, command in commands.items()
                if small_settings.runs.encode() in command and b"torch.distributed" not in command]

    end = time.monotonic() + 300
    while not (Path(cfg.runs, cfg.name) / "settings.json").exists():
        assert torchrun.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    assert len(trained_by()) == 2
    torchrun.kill()
    torchrun.wait()
    while trained_by():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert runs.load_checkpoint(last(cfg))["step"] > 0  # and they saved


def test_two_machines_without_a_common_disk(own_lists, small_settings, tmp_path):
    """Two processes that think they are the first of their machine, each with its own folder."""
    cfg = changed(small_settings, precision="fp32", warmup_epochs=2, warmup_schedule="constant", warmup_lr=1e-4,
                  adversarial_epochs=0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = [tmp_path / "one", tmp_path / "two"]
    for node in nodes:
        shutil.copytree(own_lists, node / "lists")

    def train_both(epochs):
        settings = changed(cfg, runs="runs", train_list="lists/train.csv", valid_list="lists/valid.csv",
                           warmup_epochs=epochs)
        arguments = [f"--{key}={value}" for key, value in settings.items() if value is not None]

        def train_on(rank):
            return python(ROOT / "solver.py", "--recipe", "demo", *arguments, cwd=nodes[rank], RANK=str(rank),
                          LOCAL_RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))

        with ThreadPoolExecutor(2) as both:
            for done in both.map(train_on, range(2)):
                assert done.returncode == 0, done.stderr[-2000:]

    train_both(1)
    train_both(2)  # resumed, from the state that only the first has
    assert not (nodes[1] / "runs").exists() and len(list((nodes[1] / "lists").glob("*.pack"))) == 1
    both, one = runs.read_history("small", nodes[0] / "runs"), train(cfg).history
    for mine, wanted in zip(both, one):
        assert mine["content_loss"] == pytest.approx(wanted["content_loss"], rel=1e-3)
