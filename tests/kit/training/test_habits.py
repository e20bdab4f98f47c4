"""Habits that people bring from other code of training: freezing, fading in, NumPy's numbers, functools.partial."""

import collections
import functools
import os
import threading
import types

import numpy as np
import pytest
import torch
from torch import nn

import models
import solver
from helpers import changed, equal, interrupted, last, learner, train, weights_of
from kit.compare.sweeps import sweep
from kit.compute.inference import receptive_field
from kit.evaluation.generators import load_generator
from kit.runs.provenance import trained_by
from solver import Phase


def plain_epoch(generator, batches):
    for lr, hr in batches:
        loss = solver.mse_loss(generator(lr), hr)
        generator.descend(loss)
        yield {"content_loss": loss}


def weighted_epoch(generator, batches, adversarial_weight, content_loss, terms=frozenset({"a"})):
    for lr, hr in batches:
        loss = adversarial_weight * content_loss(generator(lr), hr)
        generator.descend(loss)
        yield {"content_loss": loss}


def half_loss(sr, hr):
    return (sr - hr).square().mean() / 2


def test_what_a_partial_gives_is_what_the_epoch_function_gets(small_settings):
    phase = Phase("mine", functools.partial(weighted_epoch, adversarial_weight=0.0, content_loss=half_loss), 1, 1e-3)
    trainer = solver.Trainer(small_settings, [phase], progress=False)
    before = weights_of(trainer)
    assert trainer.train()[-1]["content_loss"] == 0 and equal(weights_of(trainer), before)
    told = trained_by(phase, small_settings, solver.EXTRAS)
    assert told["adversarial_weight of the epoch function"] == "0.0" and "half_loss" in str(told)
    other = phase._replace(epoch=functools.partial(weighted_epoch, adversarial_weight=0.5, content_loss=half_loss))
    with pytest.raises(ValueError, match="its mine was trained with adversarial_weight of the epoch function = '0.0'"):
        solver.Trainer(small_settings, [other], progress=False)


def test_a_set_is_told_by_the_same_text_in_each_process(small_settings):
    def told(*names):
        phase = Phase("mine", functools.partial(weighted_epoch, terms=set(names)), 1, 1e-3)
        return trained_by(phase, small_settings, solver.EXTRAS)["terms of the epoch function"]

    assert told("l1", "l2", "huber") == told("huber", "l2", "l1") == "{'huber', 'l1', 'l2'}"


def numpy_rate_epoch(generator, batches):
    for losses in plain_epoch(generator, batches):
        generator.learning_rate = np.interp(generator.update, [0, 5], [1e-3, 1e-4])
        generator.optimizer.param_groups[0]["eps"] = np.float64(1e-8)
        yield losses


def test_numbers_of_numpy_in_an_optimizer_can_be_saved(small_settings, monkeypatch):
    phases = [Phase("mine", numpy_rate_epoch, 2, 1e-3)]
    assert len(interrupted(small_settings, monkeypatch, 2, phases).history) == 2


def head_epoch(generator, batches):
    generator.residual.requires_grad_(False)
    yield from plain_epoch(generator, batches)


def test_what_one_phase_freezes_the_next_can_train(small_settings, monkeypatch):
    phases = [Phase("head", head_epoch, 1, 1e-3), Phase("everything", plain_epoch, 2, 1e-3)]
    trainer = solver.Trainer(changed(small_settings, name="whole"), phases, progress=False)
    start = weights_of(trainer)
    trainer.train("head")
    frozen = [name for name, value in weights_of(trainer).items() if torch.equal(value, start[name])]
    assert any(name.startswith("residual") for name in frozen)
    trainer.train()
    now = weights_of(trainer)
    assert not [name for name in frozen if "num_batches" not in name and torch.equal(now[name], start[name])]
    updates = 5 * 4 // 4 + 2  # in the second phase
    assert equal(weights_of(interrupted(small_settings, monkeypatch, updates, phases)), now)


def test_what_was_frozen_between_two_phases_stays_so(small_settings):
    trainer = solver.Trainer(small_settings, progress=False)
    trainer.train("warmup")
    trainer.generator.residual.requires_grad_(False)
    before = weights_of(trainer)
    trainer.train("adversarial")
    now = weights_of(trainer)
    frozen = [name for name, _ in trainer.generator.named_parameters() if name.startswith("residual")]
    assert frozen and all(torch.equal(now[name], before[name]) for name in frozen)
    assert not equal(now, before)


def pix2pix_epoch(generator, discriminator, batches):
    for lr, hr in batches:
        sr = generator(lr)
        discriminator.requires_grad_(True)
        real, fake = discriminator(hr, sr.detach())
        discriminator.descend(solver.discriminator_loss(real, fake))
        discriminator.requires_grad_(False)
        loss = solver.mse_loss(sr, hr) + 1e-3 * solver.adversarial_loss(discriminator(sr))
        generator.descend(loss)
        yield {"content_loss": loss}


def test_a_discriminator_that_a_phase_leaves_frozen_learns_in_the_next(small_settings):
    phases = [Phase("first", pix2pix_epoch, 1, 1e-3), Phase("second", pix2pix_epoch, 1, 1e-3)]
    trainer = solver.Trainer(small_settings, phases, progress=False)
    trainer.train("first")
    before = {name: value.clone() for name, value in trainer.discriminator.state_dict().items()}
    trainer.cost()
    trainer.train()
    assert not equal(before, trainer.discriminator.state_dict())


def test_what_was_frozen_before_stays_so_after_the_discriminator_was_held():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 3))
    one = learner(network, 0.1)
    network[0].requires_grad_(False)
    with one.frozen():
        assert not any(weight.requires_grad for weight in network.parameters())
    assert [weight.requires_grad for weight in network.parameters()] == [False, False, True, True]


class FadesIn(models.Generator):
    alpha = 0.0

    def forward(self, lr):
        return super().forward(lr) * (1 - self.alpha)


def test_an_attribute_of_a_network_can_be_set_through_its_learner():
    one = learner(FadesIn(4, channels=4, blocks=1), 0.1)
    one.alpha, one.of_mine = 1.0, 5
    assert one.network.alpha == 1.0 and not hasattr(one.network, "of_mine") and one.of_mine == 5
    assert not one(torch.rand(1, 3, 8, 8)).any()


def noisy_epoch(generator, batches):
    shift = torch.rand(())
    for lr, hr in batches:
        loss = solver.mse_loss(generator(lr) + shift, hr)
        generator.descend(loss)
        yield {"content_loss": loss}


def test_what_is_drawn_before_the_first_batch_is_the_same_when_resumed(small_settings, monkeypatch):
    phases = [Phase("mine", noisy_epoch, 2, 1e-3)]
    whole = solver.Trainer(changed(small_settings, name="whole"), phases, progress=False)
    whole.train()
    assert equal(weights_of(interrupted(small_settings, monkeypatch, 7, phases)), weights_of(whole))


def judging_epoch(generator, discriminator, batches):
    for lr, hr in batches:
        real, fake = discriminator(hr, generator(lr).detach())
        loss = solver.discriminator_loss(real, fake)
        discriminator.descend(loss)
        yield {"discriminator_loss": loss}


def test_the_rate_of_a_phase_in_which_the_generator_does_not_learn_is_its_own(small_settings):
    phases = [Phase("first", plain_epoch, 1, 5e-3), Phase("judge", judging_epoch, 1, 1e-4)]
    trainer = solver.Trainer(small_settings, phases, progress=False)
    assert [row["learning_rate"] for row in trainer.train()] == [5e-3, 1e-4]


def counted_epoch(generator, batches):
    for losses in plain_epoch(generator, batches):
        yield {name: loss / len(batches) for name, loss in losses.items()}


def test_the_cost_of_an_epoch_that_asks_for_its_length(small_settings):
    trainer = solver.Trainer(small_settings, [Phase("mine", counted_epoch, 1, 1e-3)], progress=False)
    assert "mine" in str(trainer.cost())


def test_of_a_generator_that_could_not_be_loaded_again_it_is_told(small_settings, monkeypatch, capsys):
    monkeypatch.setattr(solver, "make_generator", lambda cfg: models.Generator(cfg.scale, channels=cfg.crop // 8))
    solver.Trainer(small_settings).train("warmup")
    assert "make_generator asks for other settings than scale" in capsys.readouterr().out


class Busy(models.Generator):
    """A generator with an attribute and a method that a learner has, too."""

    clip = 1.0

    def update(self):
        return "its own"


def test_what_a_network_and_its_learner_both_have_stays_each_its_own():
    one = learner(Busy(4, channels=4, blocks=1), 0.1)
    one.update, one.clip = 3, None
    assert (one.network.clip, one.network.update()) == (1.0, "its own") and (one.update, one.clip) == (3, None)


class Windows(nn.Module):
    """Each pixel of a window of 5×5 gets the window's mean."""

    def forward(self, lr):
        means = nn.functional.avg_pool2d(lr, 5, ceil_mode=True)
        return nn.functional.interpolate(means.repeat_interleave(5, 2).repeat_interleave(5, 3)[
            ..., : lr.shape[2], : lr.shape[3]], scale_factor=4)


def test_windows_of_five_pixels_are_no_reason_for_seams():
    with pytest.raises(ValueError, match="cannot enlarge in tiles"):
        receptive_field(Windows())


class Kept(models.Generator):
    """A generator that keeps something odd in its state."""

    def __init__(self, value, name="kept"):
        super().__init__(4, channels=4, blocks=1)
        self.register_buffer(name, value)


class Forgetful(models.Generator):
    def state_dict(self, *arguments, **options):
        kept = super().state_dict(*arguments, **options)
        return {name: value for name, value in kept.items() if "first" not in name}


@pytest.mark.parametrize("make, words", [
    (lambda cfg: Kept(torch.tensor(float("nan"))), r"keeps kept in its state .torch.float32.*no NaN"),
    (lambda cfg: Kept(torch.zeros(2, dtype=torch.uint16)), r"keeps kept in its state .torch.uint16."),
    (lambda cfg: Kept(torch.zeros(2), "k" * 301), "no name of more than 300 letters"),
    (lambda cfg: Forgetful(4, channels=4, blocks=1), "cannot be given back what its state_dict.. gives"),
])
def test_what_could_not_be_resumed_is_refused_before_it_is_trained(small_settings, monkeypatch, make, words):
    monkeypatch.setattr(solver, "make_generator", make)
    with pytest.raises(ValueError, match=words):
        train(small_settings)


class NotKnownYet(models.Discriminator):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.register_buffer("lowest", torch.tensor(float("nan")))


def test_a_discriminator_may_keep_what_is_not_known_yet(small_settings, monkeypatch):
    monkeypatch.setitem(solver.make_discriminator.__globals__, "Discriminator", NotKnownYet)
    train(small_settings, adversarial_epochs=1)
    assert len(train(small_settings, adversarial_epochs=2).history) == 4


def test_a_disk_that_changes_the_time_of_a_file_is_no_other_program(small_settings):
    trainer = solver.Trainer(small_settings, progress=False)
    trainer.train("warmup")
    os.utime(last(small_settings), (1e9, 1e9))
    trainer.train()
    assert trainer.history[-1]["phase"] == "adversarial"


def test_a_state_with_an_average_is_the_generator_that_was_validated(small_settings):
    trainer = train(small_settings, ema_decay=0.9)
    loaded = load_generator(last(small_settings))
    assert equal(dict(loaded.state_dict()), dict(trainer.result.state_dict()))
    other = solver.Trainer(changed(small_settings, name="other", start_from=str(last(small_settings))), progress=False)
    assert equal(weights_of(other), dict(trainer.result.state_dict()))


def test_numbers_of_numpy_are_numbers_in_settings_and_sweeps(small_settings):
    cfg = changed(small_settings, warmup_lr=np.float64(1e-3), warmup_epochs=np.int64(1), adversarial_epochs=0)
    assert len(solver.Trainer(cfg, progress=False).train()) == 1
    table = sweep(cfg, warmup_lr=np.logspace(-4, -3, 2))
    assert "0.0001" in str(table) and "0.001" in str(table)


class Keeps(models.Generator):
    """A generator that keeps what it is made with, and puts what it has made into it."""

    def __init__(self, kept):
        super().__init__(4, channels=4, blocks=1)
        self.kept = kept

    def forward(self, lr):
        made = super().forward(lr)
        if isinstance(self.kept, types.SimpleNamespace):
            self.kept.made = made
        elif isinstance(self.kept, collections.deque):
            self.kept.append(made)
        return made


@pytest.mark.parametrize("kept", [lambda: nn.functional, types.SimpleNamespace, lambda: collections.deque(maxlen=2)])
def test_networks_that_keep_modules_of_python_and_results_are_trained(small_settings, monkeypatch, kept):
    monkeypatch.setattr(solver, "make_generator", lambda cfg: Keeps(kept()))
    assert len(train(small_settings).history) == 4


def test_a_network_that_cannot_be_copied_is_refused_in_a_sentence(small_settings, monkeypatch):
    monkeypatch.setattr(solver, "make_generator", lambda cfg: Keeps(threading.Lock()))
    with pytest.raises(ValueError, match="this Keeps cannot be copied .cannot pickle .*; let it keep"):
        train(small_settings)


def test_a_compiled_network_is_trained_and_resumed(small_settings, monkeypatch):
    monkeypatch.setattr(solver, "make_generator", lambda cfg: torch.compile(
        models.Generator(4, channels=4, blocks=1), backend="eager"))
    trainer = interrupted(changed(small_settings, adversarial_epochs=0), monkeypatch, 3)
    assert len(trainer.history) == 2
