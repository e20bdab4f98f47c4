"""Many runs in one call."""

import time
from pathlib import Path
from types import SimpleNamespace as Namespace

import numpy as np
import pytest
import torch
from warm import start

import solver
from helpers import changed, same_generator, train
from kit import runs
from kit.compare import sweeps
from kit.compare.sweeps import sweep


def sweep_of(cfg, at_once, grid):
    sweep(cfg, at_once=at_once, **grid)


@pytest.mark.parametrize("at_once, rates", [(1, [1e-4, 1e-3, 1e-2]), (2, [1e-3])])
def test_a_sweep_that_is_killed_is_resumed_and_ends_as_if_it_had_not_been(small_settings, at_once, rates):
    cfg = changed(small_settings, name="s", patches_per_picture=30, adversarial_epochs=1)
    grid = dict(warmup_lr=rates, adversarial_weight=[1e-3, 1e-2])
    count = 2 * len(rates)
    process = start(sweep_of, cfg, at_once, grid)
    while len(list(Path(cfg.runs).glob("*/checkpoints/last.pt"))) < count // 2:
        assert process.is_alive()
        time.sleep(0.05)
    process.kill()
    process.join()
    end = time.monotonic() + 300  # its processes notice, save and end
    while any(runs.Run(name, cfg.runs).is_locked() for name in runs.run_names(cfg.runs)):
        assert time.monotonic() < end
        time.sleep(0.1)
    states = [runs.Run(name, cfg.runs).progress()["state"] for name in runs.run_names(cfg.runs)]
    assert states.count("finished") < count
    table = sweep(cfg, at_once=at_once, **grid)
    assert len(table.cells) == 1 + count and [row[table.cells[0].index("state")] for row in table.cells[1:]] == [
        "finished"] * count
    if at_once == 1:
        assert table.cells[0][:4] == ["run", "adversarial_weight", "warmup_lr", "state"]
        alone = train(cfg, name="alone", warmup_lr=1e-3, adversarial_weight=1e-2)
        swept = solver.Trainer(changed(cfg, name="s-warmup_lr_0.001-adversarial_weight_0.01", warmup_lr=1e-3,
                                       adversarial_weight=1e-2), progress=False)
        assert same_generator(swept, alone)


def test_a_failure_does_not_stop_a_sweep_and_seeds_show_the_spread(small_settings, capsys):
    cfg = changed(small_settings, name="s", adversarial_epochs=0, warmup_epochs=1, clip_gradients=None,
                  precision="fp32", warmup_schedule="constant")
    table = sweep(cfg, [dict(warmup_lr=1e30), dict(warmup_lr=1e-3)], seeds=2)
    printed = capsys.readouterr().out
    assert printed.count(" failed: training has diverged") == 2
    assert table.cells[0] == ["warmup_lr", "seeds", "PSNR", "SSIM", "NIQE"]
    assert [row[:2] for row in table.cells[1:]] == [["1e+30", "0"], ["0.001", "2"]] and "±" in table.cells[2][2]
    last = [runs.read_history(f"s-warmup_lr_0.001-seed_{seed}", cfg.runs)[-1]["psnr"] for seed in (0, 1)]
    assert table.cells[2][2] == f"{np.mean(last):.2f} ± {np.std(last, ddof=1):.2f}"
    with pytest.raises(ValueError, match="give either a list of variants or lists of values"):
        sweep(cfg)
    with pytest.raises(ValueError, match=r"write warmup_lr=\[0.001, …\]"):
        sweep(cfg, warmup_lr=1e-3)
    with pytest.raises(ValueError, match="'s-warmup_lr_0.001' was begun with channels = 4, not 6"):
        sweep(cfg, warmup_lr=[1e-3])
        sweep(changed(cfg, channels=6), warmup_lr=[1e-3])


def test_a_sweep_through_many_settings_gets_names_that_folders_can_have(small_settings):
    cfg = changed(small_settings, name="s", adversarial_epochs=0, warmup_epochs=1)
    many = dict(warmup_lr=1e-3, content_loss="mse + 2 lr_consistency", discriminator_channels=2, ema_decay=0.5,
                discriminator_dense=8, clip_gradients=0.1)
    for _ in range(2):  # the second time it is there
        table = sweep(cfg, [many])
    name, = runs.run_names(cfg.runs)
    assert len(name) <= 100 and name.startswith("s-warmup_lr_0.001-content_loss") and name in table


class Finished:
    """A process that ends at once, beside what is written down of it."""

    returncode = 0

    def __init__(self, started, command, env, **_):
        started.append(env)

    def poll(self):
        return 0

    def communicate(self):
        return "", ""


@pytest.mark.parametrize("visible, count, device, wanted", [
    (None, 3, "auto", ["0", "1", "2", "0", "1"]), ("5,GPU-7", 2, "cuda", ["5", "GPU-7", "5", "GPU-7", "5"])])
def test_each_of_several_gpus_has_a_run_of_its_own(small_settings, monkeypatch, visible, count, device, wanted):
    """No machine with several GPUs is needed: each process is told by its environment which one is its own."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    started = []
    monkeypatch.setattr(sweeps.subprocess, "Popen", lambda command, **options: Finished(started, command, **options))
    monkeypatch.setattr(sweeps.time, "sleep", lambda _: None)
    sweep(changed(small_settings, device=device), warmup_lr=[1e-4, 2e-4, 3e-4, 4e-4, 5e-4])
    assert [env["CUDA_VISIBLE_DEVICES"] for env in started] == wanted
    assert sweeps.gpus_for("cpu") == []


@pytest.mark.parametrize("device, threads, cores, room, processes, of_threads", [
    ("cpu", "auto", 4, 9, 4, "1"), ("cpu", "auto", 4, 2, 4, "2"), ("cpu", "auto", 1, 9, 0, None),
    ("cpu", 1, 4, 9, 0, None), ("mps", "auto", 4, 9, 0, None)])
def test_long_runs_are_trained_side_by_side_on_a_cpu(small_settings, monkeypatch, device, threads, cores, room,
                                                     processes, of_threads):
    """The first shows how long one takes; then there are as many at once as there are cores, and room in memory."""
    started = []
    monkeypatch.setattr(sweeps, "Machine", lambda _: Namespace(device=torch.device(device)))
    monkeypatch.setattr(sweeps.subprocess, "Popen", lambda command, **options: Finished(started, command, **options))
    monkeypatch.setattr(sweeps.time, "sleep", lambda _: None)
    monkeypatch.setattr(sweeps, "LONG", 0)
    monkeypatch.setattr(sweeps, "counts", lambda: [cores])
    monkeypatch.setattr(sweeps.limits, "cores", lambda: 4)
    monkeypatch.setattr(sweeps, "_room", lambda: room)
    cfg = changed(small_settings, threads=threads, warmup_epochs=1, adversarial_epochs=0, patches_per_picture=1)
    sweep(cfg, warmup_lr=[1e-4, 2e-4, 3e-4, 4e-4, 5e-4])
    assert [env["OMP_NUM_THREADS"] for env in started] == [of_threads] * processes


def test_the_room_for_more_processes_is_that_of_the_memory():
    assert 1 <= sweeps._room() < 10_000


def test_a_run_that_says_much_of_its_errors_does_not_wait_for_a_reader(small_settings, tmp_path, monkeypatch, capsys):
    program = tmp_path / "solver.py"
    program.write_text("import signal, sys\nsignal.alarm(20)\nprint('x' * 300_000, file=sys.stderr)\nsys.exit('why')\n",
                       encoding="utf-8")
    monkeypatch.setattr(sweeps.solver, "__file__", str(program))
    sweep(changed(small_settings, name="s"), at_once=2, warmup_lr=[1e-4, 1e-3])
    assert capsys.readouterr().out.count(" failed: why\n") == 2


def test_a_slip_in_a_phase_of_ones_own_does_not_stop_a_sweep(small_settings, capsys):
    def phases(cfg):
        def epoch(generator, batches):
            if cfg.seed == 1:
                len(None)
            yield from solver.warmup_epoch(generator, batches)
        return [solver.Phase("mine", epoch, 1, 1e-4)]

    table = sweep(changed(small_settings, name="s", updates_per_epoch=2), phases=phases, seed=[0, 1, 2])
    assert "s-seed_1 failed: TypeError: object of type 'NoneType' has no len()" in capsys.readouterr().out
    assert [row[0] for row in table.cells[1:]].count("s-seed_2") == 1


def test_what_a_sweep_cannot_mean_is_refused(small_settings):
    with pytest.raises(ValueError, match="either that, or a list of seed"):
        sweep(small_settings, seed=[5, 9], seeds=2)
    for nothing in (dict(variants=[]), dict(warmup_lr=[])):
        with pytest.raises(ValueError, match="there is nothing to train"):
            sweep(small_settings, **nothing)
