"""The folder of a run: what is in it, and who may write."""

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import solver
import utils
from helpers import train
from kit import evaluation, runs
from kit.evaluation.generators import load_generator


def test_a_run_leaves_what_it_promises(small_settings):
    trainer = train(small_settings)
    folder = trainer.run.folder
    labels = ["adversarial_001", "adversarial_002", "warmup_001", "warmup_002"]
    assert sorted(p.stem for p in (folder / "samples").iterdir()) == sorted([*labels, "input", "original"])
    checkpoints = sorted(p.stem for p in (folder / "checkpoints").iterdir())
    assert checkpoints == sorted([*labels, "adversarial", "adversarial_best", "warmup", "warmup_best", "last",
                                  "last_epoch", "warmup_end"])
    assert runs.read_history("small", folder.parent)[3]["phase"] == "adversarial"
    with open(folder / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["phase"], r["epoch"], r["updates"]) for r in rows] == [
        ("warmup", "1", "5"), ("warmup", "2", "10"), ("adversarial", "1", "15"), ("adversarial", "2", "20")]
    assert runs.load_checkpoint(folder / "checkpoints" / "last.pt")["settings"] == dict(small_settings)
    sample = utils.read_picture(folder / "samples" / "warmup_002" / "eye.png")
    pair = trainer.valid_set[0]
    generator = load_generator(folder / "checkpoints" / "warmup.pt")
    assert np.array_equal(sample, utils.super_resolve(generator, pair.lr))
    score, = evaluation.evaluate(partial(utils.super_resolve, generator), trainer.valid_set, progress=False)
    assert score["psnr"] == pytest.approx(trainer.history[1]["psnr"])


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


def test_what_killed_programs_left_is_tidied(small_settings):
    folder = Path(small_settings.runs, "small")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / ".0123456789abcdef.part").write_bytes(b"half a state")
    train(small_settings, warmup_epochs=1, adversarial_epochs=0)
    assert not list(folder.rglob("*.part"))


def test_a_full_disk_is_called_so(small_settings, monkeypatch):
    made = solver.Trainer(small_settings, progress=False)

    def full(content, path):
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="last.pt: could not be written; is the disk full"):
        made.train()


def test_two_programs_cannot_train_one_run(small_settings):
    trainer, other = (solver.Trainer(small_settings, progress=False) for _ in range(2))

    def meanwhile(history):
        with pytest.raises(ValueError, match="another program is training the run 'small'"):
            other.warm_up()
        seen.append(1)

    seen = []
    trainer.warm_up(on_epoch=meanwhile)
    assert len(seen) == 2
