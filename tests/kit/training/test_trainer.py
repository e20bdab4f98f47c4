"""A run from its first update to its last, and what is told on the way."""

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from easydict import EasyDict

import create_data_lists
import solver
import utils
from helpers import ROOT, changed, same_generator, train
from kit.compute.learner import Learner


def test_a_finished_run_says_so_and_goes_on_when_asked_for_more(small_settings, capsys):
    train(small_settings)
    trainer = solver.Trainer(small_settings)
    trainer.warm_up()
    trainer.train_adversarially()
    text = capsys.readouterr().out
    assert "resumed, adversarial at 2 of 2 epochs" in text
    assert "adversarial at 2 of 2 epochs; for more, raise adversarial_epochs" in text
    small_settings.adversarial_epochs = 3
    assert len(solver.Trainer(small_settings, progress=False).train_adversarially()) == 5


def test_settings_changed_after_the_trainer_was_made_are_noticed(small_settings):
    trainer = solver.Trainer(small_settings, progress=False)
    trainer.warm_up()
    small_settings.adversarial_epochs = 3
    with pytest.raises(ValueError, match="adversarial_epochs was 2 when the trainer was made, and cfg says 3 now"):
        trainer.train_adversarially()


def test_what_can_be_known_to_fail_fails_before_anything_is_trained(small_settings, tmp_path, monkeypatch):
    for changes, words in [
        (dict(content_loss="vgg99"), "content_loss must be"), (dict(content_loss="vgg14"), "content_loss must be"),
        (dict(content_loss="vgg22", vgg_weights=str(tmp_path / "none.pth")), "vgg_weights: there is no file .*none"),
        (dict(crop=50), "crop must be a multiple of the scale .4., and of 16 for the discriminator, not 50"),
        (dict(device="gpu"), "device 'gpu' cannot be used .did you mean 'cuda'"),
    ]:
        with pytest.raises(ValueError, match=words):
            solver.Trainer(changed(small_settings, **changes), progress=False)
    with pytest.raises(ValueError, match="needs more than [0-9,]+ GB of memory, and there are .* choose a smaller"):
        solver.Trainer(changed(small_settings, batch_size=10**6, updates_per_epoch=1, patches_per_picture=10**6,
                               channels=64), progress=False)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="GB.* are free; make room"):
        solver.Trainer(small_settings, progress=False)
    assert not Path(small_settings.runs).exists()


def test_what_a_stage_will_cost_is_told_and_the_run_does_not_notice(small_settings):
    wanted = train(small_settings, name="wanted")
    trainer = solver.Trainer(small_settings, progress=False)
    cost = trainer.cost()
    assert [row[0] for row in cost.cells] == ["phase", "warmup", "adversarial", "all"]
    assert [row[1:3] for row in cost.cells[1:3]] == [["2", "10"], ["2", "10"]]
    trainer.train()
    assert same_generator(trainer, wanted) and trainer.cost().cells[1:] == [["all", "", "", "", "0.0"]]


def test_the_cost_of_a_run_counts_a_lazy_penalty(small_settings, monkeypatch):
    calls, penalty = [], solver.r1_penalty
    monkeypatch.setattr(solver, "r1_penalty", lambda *given: calls.append(0) or penalty(*given))
    trainer = solver.Trainer(changed(small_settings, warmup_epochs=0, gradient_penalty=0.1, penalty_every=4),
                             progress=False)
    trainer.cost(updates=1)
    assert len(calls) == 2  # in the update that does not count, and in one of the four that do


def test_the_display_is_narrow_and_short(small_settings, capsys):
    solver.Trainer(small_settings).train()
    printed = capsys.readouterr().out
    lines = [line for text in printed.splitlines() for line in text.split("\r")]
    assert max(map(len, lines[1:])) <= 79
    assert sum("adversarial 2/2: content " in line for line in lines) == 1 and "D(fake)" not in printed.splitlines()[0]
    solver.Trainer(changed(small_settings, name="many", warmup_epochs=25, adversarial_epochs=0)).train()
    assert len(capsys.readouterr().out.split("\n")) <= 3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_the_same(small_settings, precision):
    options = dict(warmup_epochs=3, adversarial_epochs=1, patches_per_picture=20, channels=8)
    half = train(small_settings, name="half", precision=precision, **options)
    full = train(small_settings, name="full", precision="fp32", **options)
    assert half.history[-1]["content_loss"] == pytest.approx(full.history[-1]["content_loss"], rel=0.1)


def test_what_makes_it_fast_can_be_turned_off_and_changes_nothing_else(small_settings):
    quick = train(small_settings, name="quick", precision="fp32")
    plain = train(small_settings, name="plain", precision="fp32", channels_last=False, fused_adam=False)
    for row, wanted in zip(plain.history, quick.history):
        assert row["content_loss"] == pytest.approx(wanted["content_loss"], rel=1e-3)


def test_training_outside_the_main_thread_works(small_settings):
    results = []
    thread = threading.Thread(target=lambda: results.append(train(small_settings)))
    thread.start()
    thread.join()
    assert len(results[0].history) == 4


def test_validation_pictures_are_looked_at_first(own_lists, small_settings):
    utils.save_picture(own_lists / "tiny" / "t.png", np.zeros((16, 40, 3), np.uint8))
    create_data_lists.create_data_lists(None, {"tiny": own_lists / "tiny"}, own_lists, progress=False)
    with pytest.raises(ValueError, match="t.png: is 40×16, too small to validate with .at least 19"):
        solver.Trainer(changed(small_settings, valid_list=str(own_lists / "tiny.csv")), progress=False)
    (own_lists / "valid" / "eye.png").write_bytes(b"no picture any more")
    with pytest.raises(ValueError, match="eye.png: not a readable picture"):
        solver.Trainer(changed(small_settings, valid_list=str(own_lists / "valid.csv")), progress=False)
    assert not Path(small_settings.runs).exists()


def test_memory_that_runs_out_in_training_gets_advice(small_settings, monkeypatch):
    def greedy(self, loss):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(Learner, "descend", greedy)
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


def test_a_new_run_is_not_called_like_another_but_for_case(small_settings):
    train(small_settings, name="Demo", adversarial_epochs=0)
    with pytest.raises(ValueError, match="there is a run 'Demo' already, and on Windows and macOS 'demo' would be its"):
        solver.Trainer(changed(small_settings, name="demo"), progress=False)
    assert len(train(small_settings, name="Demo").history) == 4
    for name in ("con", "ends.", "n" * 101):
        with pytest.raises(ValueError, match="a new run cannot be called"):
            solver.Trainer(changed(small_settings, name=name), progress=False)
    Path(small_settings.runs, "Demo").rename(Path(small_settings.runs, "ends."))  # as an earlier kit has allowed
    assert len(train(small_settings, name="ends.").history) == 4


def test_what_others_read_never_ends_a_training(small_settings, monkeypatch):
    def refused(run, progress):
        raise PermissionError("open in another program")

    monkeypatch.setattr("kit.runs.Run.write_progress", refused)
    assert len(train(small_settings).history) == 4


LIMITED = """
import json, resource, sys
from easydict import EasyDict
import solver
from kit.compute.device import _taken
resource.setrlimit(resource.RLIMIT_AS, (_taken()[0] + 2**29,) * 2)
try:
    solver.Trainer(EasyDict(json.load(open(sys.argv[1], encoding="utf-8"))), progress=False).train()
except ValueError as error:
    print("ValueError", error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells how much address space is taken")
def test_memory_that_a_process_may_not_have_is_told_in_a_sentence(small_settings, tmp_path):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({**small_settings, "batch_size": 20, "channels": 512}), encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", LIMITED, settings], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "memory" in done.stdout and "choose a smaller" in done.stdout, done.stderr[-500:]


def test_no_bar_stays_above_what_is_shown_meanwhile(small_settings, capsys):
    trainer = solver.Trainer(small_settings)
    trainer.train(on_epoch=lambda history: print("FIGURE", flush=True))
    shown = capsys.readouterr().out.split("FIGURE")
    assert len(shown) > 4
    for before in shown[:-1]:  # what the last line shows after its carriage returns
        assert re.split("[\r\n]", before.rstrip(" "))[-1].strip() == ""


def test_a_phase_without_epochs_is_passed_over_in_silence(small_settings, capsys):
    cfg = EasyDict(small_settings, warmup_epochs=0)
    for _ in range(2):  # the second time the run stands behind the warm-up
        solver.Trainer(cfg).train()
    assert "warmup" not in capsys.readouterr().out.replace("warmup_", "")
