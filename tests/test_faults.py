"""Faults of machines, programs side by side, and files from strangers: nothing wrong without a word, nothing lost."""

import io
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, copy_kit, start
from easydict import EasyDict
from PIL import Image

import create_data_lists
import datasets
import evaluation
import machine
import models
import packs
import runs
import solver
import trainer
import utils


def changed(cfg, **changes):
    return EasyDict({**cfg, **changes})


def train(cfg, **changes):
    made = solver.Trainer(changed(cfg, **changes), progress=False)
    made.train()
    return made


def last(cfg, name=None):
    return Path(cfg.runs, name or cfg.name, "checkpoints", "last.pt")


def weights(path):
    state = runs.load_checkpoint(path)
    return {f"{network}.{name}": value for network in ("generator", "discriminator")
            for name, value in state.get(network, {}).items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def own_lists(small_lists, tmp_path):
    """A copy of the small lists and their pictures that a test may spoil."""
    shutil.copytree(small_lists, tmp_path / "lists", ignore=shutil.ignore_patterns("*pack*", "*.lock"))
    return tmp_path / "lists"


# ----------------------------------------------------------------------------------------------- packs


def pack_of(csv_file):
    rows = datasets.read_list(csv_file)
    return packs.make_pack(csv_file, rows, 4, partial(datasets.read_pair, scale=4), progress=False)


def pack_and_tell(csv_file, target):
    Path(target).write_bytes(pack_of(csv_file).file.read_bytes())


def test_programs_that_make_one_pack_at_the_same_time_all_get_the_right_one(photograph, tmp_path):
    for i in range(60):
        utils.save_picture(tmp_path / "p" / f"{i}.png", np.ascontiguousarray(np.roll(photograph, i, axis=1)[:96, :128]))
    create_data_lists.create_data_lists(tmp_path / "p", None, tmp_path, progress=False)
    processes = [start(pack_and_tell, tmp_path / "train.csv", tmp_path / f"{i}.bytes") for i in range(3)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    wanted = b"".join(utils.to_rgb(part).tobytes() for row in datasets.read_list(tmp_path / "train.csv")
                      for part in datasets.read_pair(row, 4))
    assert all((tmp_path / f"{i}.bytes").read_bytes() == wanted for i in range(3))


def test_a_byte_of_a_pack_that_changes_is_noticed(own_lists):
    dataset = datasets.TrainDataset(own_lists / "train.csv", crop=32, progress=False)
    with open(dataset.pack.file, "r+b") as file:
        file.seek(dataset.bytes // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ValueError, match="is damaged.*delete it, and it will be made again"):
        dataset[range(8)]


def test_a_pack_that_is_cut_off_while_it_is_read_does_not_end_the_program(own_lists):
    patches = datasets.TrainDataset(own_lists / "train.csv", crop=32, progress=False)
    patches[range(8)]
    os.truncate(patches.pack.file, 100)
    with pytest.raises(ValueError, match="was cut off while it was read; delete it"):
        patches[range(8)]


def test_a_byte_of_weights_to_hand_on_that_changes_is_noticed(tmp_path):
    settings = {"channels": 4, "blocks": 1}
    path = tmp_path / "w.safetensors"
    runs.save_generator(path, models.Generator(channels=4, blocks=1).state_dict(), settings)
    whole = bytearray(path.read_bytes())
    whole[-1000] ^= 8
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="w.safetensors: not a readable checkpoint .its weights are damaged"):
        runs.load_checkpoint(path)


def test_an_unfinished_pack_that_ends_in_zeros_is_continued_where_it_is_sound(own_lists):
    whole = pack_of(own_lists / "train.csv")
    expected, note = whole.file.read_bytes(), whole.file.with_name(whole.file.name + ".json")
    part = whole.file.with_name(whole.file.name + ".part")
    half = len(expected) // 2
    part.write_bytes(expected[:half] + bytes(len(expected) // 4))
    part.with_name(part.name + ".crc").write_text("".join(f"{crc}\n" for crc in whole.crcs[:3]))
    whole.file.unlink()
    note.unlink()
    assert pack_of(own_lists / "train.csv").file.read_bytes() == expected


@pytest.mark.parametrize("spoil", ["picture", "list"])
def test_a_run_is_tied_to_the_pictures_it_was_begun_with(own_lists, small_settings, spoil):
    cfg = changed(small_settings, train_list=str(own_lists / "train.csv"), adversarial_epochs=0, updates_per_epoch=5)
    train(cfg, warmup_epochs=1)
    if spoil == "picture":
        path = own_lists / "train" / "2.png"
        utils.save_picture(path, 255 - utils.read_picture(path))
    else:
        text = (own_lists / "train.csv").read_text().splitlines(keepends=True)
        (own_lists / "train.csv").write_text("".join(text[:-1]))
    with pytest.raises(ValueError, match="the training pictures have changed since the run was begun"):
        train(cfg)


# ------------------------------------------------------------------------------------------ states of runs


def test_a_bit_that_flips_in_a_state_never_changes_weights_without_a_word(small_settings):
    trained = train(small_settings, warmup_epochs=1, adversarial_epochs=1)
    path, wanted = trained.run.checkpoint("last"), weights(trained.run.checkpoint("last"))
    content, draw, noticed = path.read_bytes(), random.Random(0), 0
    for _ in range(60):
        spoiled = bytearray(content)
        spoiled[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(spoiled)
        try:
            assert equal(weights(path), wanted)
        except ValueError as error:
            assert str(path) in str(error)
            noticed += 1
    assert noticed > 30


def test_a_run_that_was_trained_further_elsewhere_is_not_overwritten(small_settings):
    older = solver.Trainer(small_settings, progress=False)
    newer = solver.Trainer(small_settings, progress=False)
    newer.train()
    state = newer.run.checkpoint("last").read_bytes()
    with pytest.raises(ValueError, match="trained further, or deleted, by another program.*make the trainer again"):
        older.warm_up()
    assert newer.run.checkpoint("last").read_bytes() == state


def test_opening_a_run_writes_nothing_so_it_may_be_read_only_or_training(small_settings):
    folder = train(small_settings).run.folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    solver.Trainer(small_settings, progress=False)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_two_writers_of_one_file_and_the_longest_of_names_do_not_get_in_each_others_way(tmp_path):
    with utils.write_whole(tmp_path / "a") as first:
        first.write_text("first")
        with utils.write_whole(tmp_path / "a") as second:
            second.write_text("second")
    assert (tmp_path / "a").read_text() == "first"
    name = "图" * 82 + ".png"
    utils.save_picture(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    assert sorted(os.listdir(tmp_path)) == ["a", name]


def test_what_killed_programs_left_is_tidied(small_settings):
    folder = Path(small_settings.runs, "small")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / ".0123456789abcdef.part").write_bytes(b"half a state")
    train(small_settings, warmup_epochs=1, adversarial_epochs=0)
    assert not list(folder.rglob("*.part"))


def test_moments_of_other_shapes_are_refused(small_settings):
    path = train(small_settings, adversarial_epochs=0).run.checkpoint("last")
    state = runs.load_checkpoint(path)
    state["g_optimizer"]["state"][0]["exp_avg"] = torch.zeros(2)
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"last.pt: cannot be resumed from \(exp_avg of weight 0 is \(2,\)"):
        solver.Trainer(small_settings, progress=False)


@pytest.mark.parametrize("key", ["phase", "history", "g_optimizer", "sums", "scaler", "discriminator", "d_optimizer"])
def test_a_state_that_lacks_something_is_named(small_settings, key):
    path = train(small_settings, adversarial_epochs=1).run.checkpoint("last")
    state = runs.load_checkpoint(path)
    del state[key]
    torch.save(state, path)
    with pytest.raises(ValueError, match="last.pt: "):
        train(small_settings)


def test_an_epoch_is_not_lost_when_its_validation_fails(small_settings, monkeypatch):
    wanted = weights(train(small_settings, name="whole").run.checkpoint("last"))

    def broken(*arguments, **options):
        raise OSError("the disk is gone")

    made = solver.Trainer(small_settings, progress=False)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="the disk is gone"):
        patch.setattr(trainer, "evaluate", broken)
        made.train()
    state = runs.load_checkpoint(last(small_settings))
    assert state["step"] == 5 and state["epoch"] == 0
    assert equal(weights(train(small_settings).run.checkpoint("last")), wanted)


def test_validation_pictures_are_looked_at_first(own_lists, small_settings):
    utils.save_picture(own_lists / "tiny" / "t.png", np.zeros((16, 40, 3), np.uint8))
    create_data_lists.create_data_lists(None, {"tiny": own_lists / "tiny"}, own_lists, progress=False)
    with pytest.raises(ValueError, match="t.png: is 40×16, too small to validate with .at least 19"):
        solver.Trainer(changed(small_settings, valid_list=str(own_lists / "tiny.csv")), progress=False)
    (own_lists / "valid" / "eye.png").write_bytes(b"no picture any more")
    with pytest.raises(ValueError, match="eye.png: not a readable picture"):
        solver.Trainer(changed(small_settings, valid_list=str(own_lists / "valid.csv")), progress=False)
    assert not Path(small_settings.runs).exists()


def test_weights_that_explode_in_the_last_update_are_not_saved(small_settings, monkeypatch):
    made = solver.Trainer(changed(small_settings, adversarial_epochs=0), progress=False)
    descend, updates = machine.Learner.descend, []

    def exploding(self, loss):
        descend(self, loss)
        updates.append(1)
        if len(updates) == 10:  # the last of the second epoch
            with torch.no_grad():
                next(self.network.parameters()).fill_(1e30)

    monkeypatch.setattr(machine.Learner, "descend", exploding)
    with pytest.raises(FloatingPointError, match="a weight of Generator of warmup epoch 2 is no longer a number"):
        made.train()
    assert all(value.abs().max() < 1e3 for value in weights(made.run.checkpoint("last")).values())


def test_an_explosion_without_infinity_is_noticed_and_taken_back(small_settings, monkeypatch):
    cfg = changed(small_settings, adversarial_epochs=0)
    begun = train(cfg, warmup_epochs=1)
    good, bad = weights(last(cfg)), begun.history[-1]["psnr"] - 11
    monkeypatch.setattr(trainer, "mean_scores", lambda rows: evaluation.Scores(bad, 0.1, None))
    with pytest.raises(FloatingPointError, match=f"ended at {bad:.1f} dB.*put back.*Lower warmup_lr.*'small_2'"):
        train(cfg)
    assert equal(weights(last(cfg)), good)
    monkeypatch.undo()
    assert len(train(cfg).history) == 2


def test_a_full_disk_is_called_so(small_settings, monkeypatch):
    made = solver.Trainer(small_settings, progress=False)

    def full(content, path):
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    monkeypatch.setattr(runs.torch, "save", full)
    with pytest.raises(OSError, match="last.pt: could not be written; is the disk full"):
        made.train()


def test_a_history_that_was_edited_is_named(small_settings):
    folder = train(small_settings, warmup_epochs=1, adversarial_epochs=0).run.folder
    (folder / "history.csv").write_text("phase,epoch,updates,psnr,seconds\nwarmup,one,5,28,1\n")
    with pytest.raises(ValueError, match="history.csv: not a history as training writes it"):
        runs.read_history("small", small_settings.runs)


# --------------------------------------------------------------------------------- from machine to machine


VARIANTS = [dict(precision="fp32"), dict(precision="bf16"), dict(precision="fp16"), dict(channels_last=False),
            dict(fused_adam=False)]


@pytest.mark.parametrize("first, second", [(a, b) for a in VARIANTS for b in VARIANTS if a != b and (
    {"precision"} == {*a, *b} or VARIANTS[0] in (a, b))], ids=str)
def test_a_run_goes_on_on_a_machine_that_computes_in_another_way(small_settings, first, second):
    cfg = changed(small_settings, batch_norm=True, precision="fp32", adversarial_epochs=0, patches_per_picture=2,
                  discriminator_batch_norm=False)
    train(cfg, warmup_epochs=1, **first)
    made = train(cfg, **second)
    assert len(made.history) == 2
    for weight, moments in made.g_optimizer.state.items():
        assert moments["exp_avg"].stride() == weight.stride()


def test_resumed_in_another_layout_the_moments_stay_with_their_weights(small_settings):
    cfg = changed(small_settings, precision="fp32", adversarial_epochs=0, warmup_schedule="constant", channels=8)
    wanted = weights(train(cfg, name="whole").run.checkpoint("last"))
    train(cfg, warmup_epochs=1)
    found = weights(train(cfg, channels_last=False).run.checkpoint("last"))
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-5)


def test_a_gpu_that_is_seen_but_cannot_compute_is_left_alone(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def too_old(*shape, device=None, ones=torch.ones):
        if torch.device(device or "cpu").type == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
        return ones(*shape, device=device)

    monkeypatch.setattr(torch, "ones", too_old)
    assert machine.Machine().device.type == "cpu"
    assert "the GPU is left alone" in capsys.readouterr().out
    with pytest.raises(ValueError, match="device 'cuda' cannot be used .*no kernel image"):
        machine.Machine("cuda")
    with pytest.raises(ValueError, match="device 'gpu' cannot be used .did you mean 'cuda'"):
        machine.Machine("gpu")


@pytest.mark.parametrize("name, capability, good", [
    ("Tesla V100", (7, 0), True), ("NVIDIA GeForce GTX 1660", (7, 5), False),
    ("NVIDIA GeForce GTX 1080", (6, 1), False)])
def test_fp16_is_for_gpus_that_can(monkeypatch, name, capability, good):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert machine.has_fp16("cuda") == good and not machine.has_fp16("cpu")


def test_all_ways_to_say_that_memory_ran_out():
    for error in [torch.OutOfMemoryError("x"), MemoryError(), RuntimeError("CUDNN_STATUS_ALLOC_FAILED"),
                  RuntimeError("GET was unable to find an engine to execute this computation"),
                  RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]:
        assert machine.is_out_of_memory(error)
    assert not machine.is_out_of_memory(RuntimeError("shape mismatch"))


def test_memory_that_runs_out_in_training_gets_advice(small_settings, monkeypatch):
    def greedy(self, loss):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(machine.Learner, "descend", greedy)
    with pytest.raises(ValueError, match="warmup: memory ran out on cpu; choose a new name with a smaller batch_size"):
        train(small_settings)


@pytest.mark.parametrize("changes, what", [
    (dict(batch_size=1, crop=16, patches_per_picture=8, discriminator_batch_norm=True),
     "the discriminator cannot be trained on batches of 1 .*more than 1 value per channel"),
    (dict(batch_size=1, crop=8, discriminator="strided", batch_norm=True), "per channel")])
def test_batches_too_small_for_batch_norm_are_named_at_once(small_settings, changes, what):
    with pytest.raises(ValueError, match=what):
        solver.Trainer(changed(small_settings, **changes), progress=False)
    assert not Path(small_settings.runs).exists()


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

    end = time.monotonic() + 90
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


def test_sigterm_saves_as_ctrl_c_does(small_settings, monkeypatch):
    cfg = changed(small_settings, patches_per_picture=30)
    wanted = weights(train(cfg, name="whole").run.checkpoint("last"))
    made, usual = solver.Trainer(cfg, progress=False), signal.getsignal(signal.SIGTERM)
    descend = machine.Learner.descend

    def ended(self, loss):
        descend(self, loss)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(trainer.Stopped, match="stopped and saved: warmup at 0 of 2"):
        patch.setattr(machine.Learner, "descend", ended)
        made.train()
    assert runs.load_checkpoint(last(cfg))["step"] == 1 and signal.getsignal(signal.SIGTERM) == usual
    assert equal(weights(train(cfg).run.checkpoint("last")), wanted)


THREADS = r"""
import sys
from pathlib import Path
import machine, solver
arguments = sys.argv[1:]
leave, solver.leave = solver.leave, lambda status: None
solver.main(arguments)
machine.close_group()
names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
machine.os.write(1, f"GLOO {sum('gloo' in name for name in names)}\n".encode())  # in one piece
machine.os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads from /proc")
def test_no_thread_of_gloo_outlives_its_group(small_settings, tmp_path):
    (tmp_path / "threads.py").write_text(THREADS)
    arguments = [f"--{key}={value}" for key, value in small_settings.items() if value is not None]
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
                           tmp_path / "threads.py", "--recipe", "demo", *arguments], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line for line in done.stdout.splitlines() if line.startswith("GLOO")] == ["GLOO 0"] * 2


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
        processes = []
        for rank, node in enumerate(nodes):
            settings = changed(cfg, runs="runs", train_list="lists/train.csv", valid_list="lists/valid.csv",
                               warmup_epochs=epochs)
            arguments = [f"--{key}={value}" for key, value in settings.items() if value is not None]
            processes.append(subprocess.Popen(
                [sys.executable, ROOT / "solver.py", "--recipe", "demo", *arguments], cwd=node,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={**os.environ, "RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2",
                     "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}))
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors[-2000:]

    train_both(1)
    train_both(2)  # resumed, from the state that only the first has
    assert not (nodes[1] / "runs").exists() and len(list((nodes[1] / "lists").glob("*.pack"))) == 1
    both, one = runs.read_history("small", nodes[0] / "runs"), train(cfg).history
    for mine, wanted in zip(both, one):
        assert mine["content_loss"] == pytest.approx(wanted["content_loss"], rel=1e-3)


# --------------------------------------------------------------------------------- files from strangers


def hostile(path, **changes):
    generator = models.Generator(channels=4, blocks=1)
    settings = {"channels": 4, "blocks": 1}
    torch.save({"generator": generator.state_dict(), "generator_settings": settings, **changes}, path)


def test_a_checkpoint_cannot_ask_for_more_than_it_brings(tmp_path):
    good = models.Generator(channels=4, blocks=1).state_dict()
    cases = {
        "wide": dict(generator_settings={"channels": 4096, "blocks": 16}),
        "wider": dict(generator_settings={"channels": 12_000, "blocks": 1}),
        "deep": dict(generator_settings={"channels": 4, "blocks": 10**9}),
        "kernel": dict(generator_settings={"channels": 4, "blocks": 1, "first_kernel": 20_001}),
        "tanh": dict(generator_settings={"channels": 4, "blocks": 1, "tanh": 10**9}),
        "scale": dict(generator_settings={"channels": 4, "blocks": 1, "scale": 4.0}),
        "no settings": dict(generator_settings=3),
        "numbers": dict(generator=dict(enumerate(good.values()))),
        "nothing": dict(generator={}),
        "nan": dict(generator={**good, "last.0.bias": torch.full((3,), float("nan"))}),
        "integers": dict(generator={**good, "last.0.bias": torch.zeros(3, dtype=torch.int32)}),
        "complex": dict(generator={**good, "last.0.bias": torch.zeros(3, dtype=torch.complex64)}),
        "sparse": dict(generator={**good, "last.0.bias": torch.zeros(3).to_sparse()}),
    }
    began = time.monotonic()
    for name, changes in cases.items():
        hostile(tmp_path / f"{name}.pt", **changes)
        with pytest.raises(ValueError, match=f"{name}.pt: "):
            evaluation.load_generator(tmp_path / f"{name}.pt")
    assert time.monotonic() - began < 30  # none of them was built


def test_a_checkpoint_that_inflates_is_refused(tmp_path):
    hostile(tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as good, zipfile.ZipFile(tmp_path / "bomb.pt", "w",
                                                                       zipfile.ZIP_DEFLATED) as bomb:
        for entry in good.infolist():
            bomb.writestr(entry.filename, good.read(entry))
    with pytest.raises(ValueError, match="bomb.pt: not a readable checkpoint .it is compressed"):
        evaluation.load_generator(tmp_path / "bomb.pt")


def test_only_the_formats_of_the_kit_are_opened(tmp_path, photograph):
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    with pytest.raises(ValueError, match="x.png: not a readable picture .cannot identify"):
        utils.read_picture(tmp_path / "x.png")
    frames = [Image.fromarray(photograph), Image.fromarray(255 - photograph)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.raises(ValueError, match="moving.webp: has 2 frames"):
        utils.read_picture(tmp_path / "moving.webp")
    frames[0].save(tmp_path / "telephone.jpg", "MPO", save_all=True, append_images=frames[1:])
    difference = utils.read_picture(tmp_path / "telephone.jpg").astype(int) - photograph
    assert np.abs(difference).mean() < 5  # the first of its two


def test_unusual_names_do_not_stop_a_list(tmp_path, photograph):
    for name in ("²1.png", "٣.png", "ok.png", os.fsdecode(b"caf\xe9.png")):
        part = np.ascontiguousarray(np.roll(photograph, len(name), axis=0)[:40, :40])
        (tmp_path / "p").mkdir(exist_ok=True)
        stream = io.BytesIO()
        Image.fromarray(part + np.uint8(len(os.fsencode(name)))).save(stream, "PNG")
        (tmp_path / "p" / name).write_bytes(stream.getvalue())
    report, = create_data_lists.create_data_lists(None, {"a": tmp_path / "p"}, tmp_path, progress=False)
    assert len(report.rows) == 3 and report.left_out == [("'caf\\udce9.png'", "has a name with unusual characters; "
                                                                                "rename it")]


def test_large_pictures_are_decoded_one_after_the_other():
    budget, inside, most = create_data_lists.PixelBudget(100), [], []

    class File:
        pass

    import threading

    def decode(pixels):
        create_data_lists.pixels_of = lambda file: pixels
        with budget.of(File):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    usual = create_data_lists.pixels_of
    try:
        threads = [threading.Thread(target=decode, args=(80,)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        create_data_lists.pixels_of = usual
    assert max(most) == 1 and len(most) == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_notebooks_leaves_them_as_they_were(tmp_path, number):
    import nbformat

    copy_kit(tmp_path)
    cell = nbformat.v4.new_code_cell("import time; print('begun'); time.sleep(60)")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    nbformat.write(notebook, tmp_path / "slow.ipynb")
    before = (tmp_path / "slow.ipynb").read_bytes()
    process = subprocess.Popen([sys.executable, "-u", "-m", "tools.run_notebooks", "--inplace", "slow.ipynb"],
                               cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "begun" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1 and "stopped; what was trained is kept" in errors and "Traceback" not in errors
    assert (tmp_path / "slow.ipynb").read_bytes() == before
