"""Resuming, where it is hard: buffers of whole numbers, idle weights, random numbers in a phase, moved pictures."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import create_data_lists
import datasets
import solver
import utils
from helpers import changed, equal, interrupted, last, same_generator, train, weights
from kit import runs
from kit.compare.sweeps import sweep
from kit.evaluation.generators import load_generator
from kit.training.trainer import Trainer


class OfAllKinds(nn.Module):
    """A generator with a table of whole numbers (as window attention has), a flag, and a weight that never learns."""

    def __init__(self):
        super().__init__()
        self.body, self.idle = nn.Conv2d(3, 48, 3, padding=1), nn.Conv2d(2, 2, 1)
        self.register_buffer("order", torch.arange(48).flip(0))
        self.register_buffer("flag", torch.tensor([True, False]))

    def forward(self, lr):
        return F.pixel_shuffle(self.body(lr)[:, self.order], 4) * (1 if self.flag[0] else 0)


def test_whole_numbers_flags_and_idle_weights_are_saved_resumed_and_loaded(small_settings, monkeypatch):
    monkeypatch.setattr(solver, "make_generator", lambda cfg: OfAllKinds())
    wanted = train(small_settings, name="whole")
    resumed = interrupted(small_settings, monkeypatch, 7)
    assert equal(weights(resumed.run.folder), weights(wanted.run.folder))
    monkeypatch.setattr("kit.evaluation.generators.make_generator", lambda cfg: OfAllKinds())
    loaded = load_generator(resumed.run.checkpoint("adversarial"))
    assert loaded.order.tolist() == list(range(47, -1, -1)) and loaded.flag.tolist() == [True, False]


def test_random_numbers_in_a_phase_are_the_same_when_it_is_resumed(small_settings, monkeypatch):
    def noisy_epoch(generator, batches):
        for lr, hr in batches:
            loss = F.mse_loss(F.dropout(generator(lr + 0.1 * torch.randn_like(lr)).float(), 0.2), hr)
            generator.descend(loss)
            yield {"content_loss": loss}

    phases = [solver.Phase("noisy", noisy_epoch, 3, 1e-3)]
    whole = solver.Trainer(changed(small_settings, name="whole"), phases, progress=False)
    whole.train()
    resumed = interrupted(small_settings, monkeypatch, 7, phases)
    assert same_generator(resumed, whole)
    other = solver.Trainer(changed(small_settings, name="other", seed=1), phases, progress=False)
    other.train()
    assert not same_generator(other, whole)


def test_a_sweep_asked_for_more_epochs_trains_them(small_settings):
    cfg = changed(small_settings, name="s", adversarial_epochs=0, warmup_schedule="constant")
    sweep(cfg, warmup_lr=[1e-3])
    table = sweep(changed(cfg, warmup_epochs=4), warmup_lr=[1e-3])
    assert table.cells[1][table.cells[0].index("epochs")] == "4"


def test_a_fork_has_nothing_of_epochs_that_its_origin_had_later(small_settings):
    small_settings.adversarial_epochs, small_settings.warmup_schedule = 0, "constant"
    train(small_settings)
    fork = solver.Trainer(changed(small_settings, name="fork", fork_of="small", adversarial_epochs=1), progress=False)
    longer = train(small_settings, warmup_epochs=4)
    fork.train()
    assert longer.run.sampled_epochs("warmup", "eye") == [1, 2, 3, 4]
    assert fork.run.sampled_epochs("warmup", "eye") == [1, 2]
    kept = {path.stem for path in fork.run.folder.glob("checkpoints/warmup*.pt")}
    assert {"warmup", "warmup_001", "warmup_002"} <= kept and not kept & {"warmup_003", "warmup_004"}
    assert runs.load_checkpoint(fork.run.checkpoint("warmup"))["epoch"] == 2


def test_validation_pictures_that_change_are_noticed(own_lists, small_settings):
    cfg = changed(small_settings, valid_list=str(own_lists / "valid.csv"))
    train(cfg)
    picture = utils.read_picture(own_lists / "valid" / "eye.png")
    utils.save_picture(own_lists / "valid" / "eye.png", 255 - picture)
    with pytest.raises(ValueError, match="the validation pictures have changed since the run was begun: 1 pictures"):
        solver.Trainer(cfg, progress=False)


def test_a_run_goes_on_in_a_copied_folder(own_lists, small_settings, tmp_path):
    """Its lists are named by their whole paths; the digests tell that the pictures are the same."""
    def settings(folder):
        return changed(small_settings, train_list=str(folder / "train.csv"), valid_list=str(folder / "valid.csv"))

    wanted = train(settings(own_lists), name="whole")
    train(settings(own_lists), adversarial_epochs=0)
    shutil.copytree(own_lists, tmp_path / "copy")
    resumed = train(settings(tmp_path / "copy"))
    assert equal(weights(resumed.run.folder), weights(wanted.run.folder))
    picture = utils.read_picture(tmp_path / "copy" / "train" / "1.png")
    utils.save_picture(tmp_path / "copy" / "train" / "1.png", 255 - picture)
    with pytest.raises(ValueError, match="the training pictures have changed"):
        solver.Trainer(settings(tmp_path / "copy"), progress=False)


def test_a_cache_that_another_program_has_replaced_is_read_to_the_end(own_lists):
    patches = datasets.TrainDataset(own_lists / "train.csv", 4, 32, 5, progress=False)
    wanted = patches[[0, 1, 2]]
    utils.save_picture(own_lists / "train" / "9.png", utils.read_picture(own_lists / "train" / "1.png")[::-1].copy())
    create_data_lists.create_data_lists(own_lists / "train", None, own_lists, crop=32, progress=False)
    datasets.TrainDataset(own_lists / "train.csv", 4, 32, 5, progress=False)  # as another program does
    assert not patches.cache.file.exists()
    assert all(torch.equal(a, b) for a, b in zip(patches[[0, 1, 2]], wanted))


def test_a_run_whose_files_are_read_only_can_be_forked_and_the_fork_trained(small_settings):
    first = train(small_settings)
    for path in first.run.folder.rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    fork = train(small_settings, name="fork", fork_of="small", adversarial_weight=0.1)
    for path in fork.run.folder.rglob("*.pt"):
        assert path.stat().st_mode & 0o200, path
    assert len(fork.history) == 4 and last(small_settings).stat().st_mode & 0o222 == 0


def test_a_run_that_was_killed_while_validating_makes_no_update_more(small_settings, monkeypatch):
    def epoch(generator, batches):
        for losses in solver.warmup_epoch(generator, batches):
            yield losses
        assert losses["content_loss"] > 0  # of the last update

    def killed(*arguments):
        raise KeyboardInterrupt

    phases = [solver.Phase("mine", epoch, 1, 1e-4)]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("kit.training.trainer.validate", killed)
        solver.Trainer(small_settings, phases, progress=False).train()
    resumed = solver.Trainer(small_settings, phases, progress=False)
    assert resumed.state.step == resumed.state.steps_per_epoch
    assert len(resumed.train()) == 1


def test_a_trainer_whose_update_was_broken_off_does_not_go_on_from_between_two(small_settings):
    slips = [True]

    def epoch(generator, batches):
        for number, (lr, hr) in enumerate(batches):
            loss = solver.mse_loss(generator(lr), hr)
            generator.descend(loss)
            if number == 2 and slips.pop():
                raise RuntimeError("a slip")
            yield {"content_loss": loss}

    def trainer(**changes):
        phases = [solver.Phase("mine", epoch, 1, 1e-4)]
        return solver.Trainer(changed(small_settings, **changes), phases, progress=False)

    broken = trainer()
    with pytest.raises(RuntimeError, match="a slip"):
        broken.train()
    with pytest.raises(ValueError, match="was broken off, .* make it again, trainer = solver.Trainer"):
        broken.train()
    slips.append(False)
    again = trainer()
    again.train()
    slips.append(False)
    whole = trainer(name="whole")
    whole.train()
    assert same_generator(again, whole)


def test_a_state_that_could_not_be_saved_whole_is_told_before_training(small_settings):
    class Expanded(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
            self.register_buffer("mean", torch.tensor([0.5]).expand(3))

        def forward(self, lr):
            return self.body(lr - self.mean.view(1, 3, 1, 1))

    with pytest.raises(ValueError, match="the generator keeps mean as a view of fewer numbers .* with .clone"):
        Trainer(small_settings, solver.default_phases(small_settings), lambda cfg: Expanded(),
                solver.make_discriminator, solver.EXTRAS, progress=False)


def test_the_best_by_a_score_that_no_picture_has_is_refused(small_settings):
    with pytest.raises(ValueError, match="best_by is 'niqe', but none of the first 1 pictures of .*valid.csv is large"):
        solver.Trainer(changed(small_settings, best_by="niqe"), progress=False)
