"""What TensorBoard is given of a run."""

import pytest

import solver
from kit.training import board


def test_without_tensorboard_nothing_changes(small_settings, monkeypatch):
    monkeypatch.setattr(board, "find_spec", lambda name: None)
    trainer = solver.Trainer(small_settings, progress=False)
    trainer.train()
    assert not (trainer.run.folder / "tensorboard").exists()


def test_what_goes_wrong_there_ends_no_training(small_settings, monkeypatch):
    monkeypatch.setattr(board, "find_spec", lambda name: True)
    monkeypatch.setattr(board.Board, "_begin", lambda self, step: 1 / 0)
    assert len(solver.Trainer(small_settings, progress=False).train()) == 4


def test_scalars_samples_and_settings_are_written_epoch_by_epoch(small_settings):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator",
                                      reason="needs pip install tensorboard")
    trainer = solver.Trainer(small_settings, progress=False)
    trainer.train("warmup")
    trainer = solver.Trainer(small_settings, progress=False)  # another program goes on
    trainer.train()
    events = accumulator.EventAccumulator(str(trainer.run.folder / "tensorboard"))
    events.Reload()
    for phase in ("warmup", "adversarial"):
        rows = [row for row in trainer.history if row["phase"] == phase]
        found = events.Scalars(f"{phase}/psnr")
        assert [event.step for event in found] == [row["updates"] for row in rows]
        assert [event.value for event in found] == pytest.approx([row["psnr"] for row in rows])
    assert len(events.Images("samples/eye")) >= 1
    assert "settings/text_summary" in events.Tags()["tensors"]
