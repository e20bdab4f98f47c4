"""Phases written as PyTorch's tutorials are, other people's training functions, betas and schedules of one's own."""

import itertools
import math
import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import solver
from helpers import changed, equal, interrupted, same_generator, train, weights
from kit.compute.device import Machine
from kit.training.phases import Phase, settle_precision


def tutorial_epoch(generator, discriminator, g_optimizer, d_optimizer, batches, adversarial_weight):
    bce = nn.BCEWithLogitsLoss()
    generator.train(), discriminator.train()
    for lr, hr in batches:
        sr = generator(lr)
        assert sr.dtype == torch.float32  # whatever it is computed in: the losses below count on it
        d_optimizer.zero_grad()
        real, fake = discriminator(hr), discriminator(sr.detach())
        d_loss = bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))
        d_loss.backward()
        d_optimizer.step()

        g_optimizer.zero_grad()
        fake = discriminator(sr)
        g_loss = F.mse_loss(sr, hr) + adversarial_weight * bce(fake, torch.ones_like(fake))
        g_loss.backward()
        nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
        g_optimizer.step()
        yield {"g_loss": g_loss.item(), "d_loss": d_loss}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_phase_written_as_in_a_tutorial_trains_and_resumes_bit_for_bit(small_settings, monkeypatch, precision):
    cfg, phases = changed(small_settings, precision=precision), [Phase("gan", tutorial_epoch, 3, 1e-3, "step")]
    whole = solver.Trainer(changed(cfg, name="whole"), phases, progress=False)
    before = {name: value.clone() for name, value in whole.generator.state_dict().items()}
    whole.train()
    assert not equal(before, whole.generator.state_dict())
    steps = []

    def stopping_step(optimizer, *rest, step=torch.optim.Adam.step, **options):
        steps.append(step(optimizer, *rest, **options))
        if len(steps) == 16:  # in the middle of the second epoch
            os.kill(os.getpid(), 2)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.optim.Adam, "step", stopping_step)
        solver.Trainer(cfg, phases, progress=False).train()
    resumed = solver.Trainer(cfg, phases, progress=False)
    assert resumed.state.step == 3 and resumed.cost().cells
    resumed.train()
    assert equal(weights(resumed.run.folder), weights(whole.run.folder))


def their_train(train_loader, generator, discriminator, content_loss_criterion, adversarial_loss_criterion,
                optimizer_g, optimizer_d, beta):
    """In the manner of public solutions: one call goes through all batches and gives mean losses."""
    generator.train()
    discriminator.train()
    losses_c, losses_d = [], []
    for lr_imgs, hr_imgs in train_loader:
        sr_imgs = generator(lr_imgs)
        sr_discriminated = discriminator(sr_imgs)
        content_loss = content_loss_criterion(sr_imgs, hr_imgs)
        perceptual_loss = content_loss + beta * adversarial_loss_criterion(
            sr_discriminated, torch.ones_like(sr_discriminated))
        optimizer_g.zero_grad()
        perceptual_loss.backward()
        optimizer_g.step()
        losses_c.append(content_loss.item())
        hr_discriminated, sr_discriminated = discriminator(hr_imgs), discriminator(sr_imgs.detach())
        adversarial_loss = (adversarial_loss_criterion(sr_discriminated, torch.zeros_like(sr_discriminated))
                            + adversarial_loss_criterion(hr_discriminated, torch.ones_like(hr_discriminated)))
        optimizer_d.zero_grad()
        adversarial_loss.backward()
        optimizer_d.step()
        losses_d.append(adversarial_loss.item())
    return sum(losses_c) / len(losses_c), sum(losses_d) / len(losses_d)


def test_somebodys_train_function_becomes_a_phase_in_a_few_lines(small_settings):
    def their_epoch(generator, discriminator, g_optimizer, d_optimizer, batches):
        for batch in batches:
            content, judged = their_train([batch], generator, discriminator, nn.MSELoss(), nn.BCEWithLogitsLoss(),
                                          g_optimizer, d_optimizer, beta=1e-3)
            yield {"content_loss": content, "discriminator_loss": judged}

    trainer = solver.Trainer(small_settings, [Phase("theirs", their_epoch, 3, 1e-3)], progress=False)
    history = trainer.train()
    assert history[-1]["content_loss"] < history[0]["content_loss"] and len(history) == 3


def test_fp16_is_not_for_phases_that_call_their_optimizers(capsys):
    machine, phases = Machine("cpu", "fp32"), [Phase("gan", tutorial_epoch, 1, 1e-3)]
    machine.set_precision("fp16")
    with pytest.raises(ValueError, match="'gan' calls its optimizers itself.*precision to 'fp32' or 'bf16'"):
        settle_precision(phases, machine, False, print)
    settle_precision(phases, machine, True, print)
    assert machine.precision == "fp32" and "it trains in fp32" in capsys.readouterr().out
    machine.set_precision("fp16")
    settle_precision([Phase("plain", solver.alternating_epoch, 1, 1e-3)], machine, False, print)
    assert machine.precision == "fp16"


def test_a_phase_must_ask_for_the_network_of_an_optimizer(small_settings):
    def epoch(g_optimizer, batches):
        yield {}

    with pytest.raises(ValueError, match="asks for g_optimizer, and not for the generator"):
        solver.Trainer(small_settings, [Phase("gan", epoch, 1, 1e-3)], progress=False)


def test_betas_are_settings_and_what_epochs_hang_on(small_settings):
    usual, other = train(small_settings), train(small_settings, name="other", adam_beta1=0.5)
    assert other.networks.optimizers["generator"].param_groups[0]["betas"] == (0.5, 0.999)
    assert not same_generator(usual, other)
    with pytest.raises(ValueError, match="adam_beta1 = 0.9, not 0.5"):
        solver.Trainer(changed(small_settings, adam_beta1=0.5, adversarial_epochs=3), progress=False)


def l1_epoch(generator, batches):
    for lr, hr in batches:
        loss = F.l1_loss(generator(lr).float(), hr)
        generator.descend(loss)
        yield {"l1": loss}


def halving(progress):
    return 0.5 ** int(progress * 4)


def test_a_schedule_of_ones_own_and_the_true_rate_are_in_the_history(small_settings, monkeypatch):
    phases = [Phase("l1", l1_epoch, 4, 1e-3, halving)]
    whole = solver.Trainer(changed(small_settings, name="whole"), phases, progress=False)
    rates = [row["learning_rate"] for row in whole.train()]
    assert rates == pytest.approx([1e-3, 5e-4, 2.5e-4, 6.25e-5])  # of the last update of each epoch
    resumed = interrupted(small_settings, monkeypatch, 5, phases)  # at the end of an epoch, before it was validated
    assert same_generator(resumed, whole) and [row["learning_rate"] for row in resumed.history] == rates
    assert (resumed.run.folder / "checkpoints" / "l1_004.pt").is_file()
    with pytest.raises(ValueError, match="the schedule of the phase 'l1'.*of factors 1, 1, 1, 0.5"):
        solver.Trainer(small_settings, [Phase("l1", l1_epoch, 4, 1e-3, "constant")], progress=False)

    def own_rate_epoch(generator, batches):
        for lr, hr in batches:
            generator.learning_rate = 1e-5 / (1 + generator.update)
            generator.descend(F.l1_loss(generator(lr).float(), hr))
            yield {"l1": 0.0}

    own = solver.Trainer(changed(small_settings, name="own"), [Phase("own", own_rate_epoch, 1, 1e-3)], progress=False)
    assert own.train()[0]["learning_rate"] == pytest.approx(1e-5 / 5)


@pytest.mark.parametrize("schedule", ["poly", lambda progress: -1.0, lambda: 1.0, lambda progress: math.nan, 3])
def test_a_schedule_that_is_none_is_refused(small_settings, schedule):
    with pytest.raises(ValueError, match="phase 'mine': its schedule must be 'constant' or .* or a function from 0…1"):
        solver.Trainer(small_settings, [Phase("mine", l1_epoch, 1, 1e-3, schedule)], progress=False)


@pytest.mark.parametrize("name", ["last", "l1_001", "l1_best", "input", "gan_end", "con", "a" * 101])
def test_a_phase_is_not_called_like_a_file_of_a_run(small_settings, name):
    with pytest.raises(ValueError, match="needs another name, for files of a run cannot be, or are, called so"):
        solver.Trainer(small_settings, [Phase(name, l1_epoch, 1, 1e-3)], progress=False)


def test_a_scheduler_within_a_phase_is_named_and_the_history_has_the_rate_that_was_used(small_settings, capsys):
    def scheduled_epoch(generator, g_optimizer, batches):
        scheduler = torch.optim.lr_scheduler.StepLR(g_optimizer, 1, gamma=0.1)
        for lr, hr in batches:
            g_optimizer.zero_grad()
            loss = F.mse_loss(generator(lr), hr)
            loss.backward()
            g_optimizer.step()
            scheduler.step()
            yield {"loss": loss}

    trainer = solver.Trainer(small_settings, [Phase("mine", scheduled_epoch, 1, 1e-3)])
    assert trainer.train()[0]["learning_rate"] == 1e-3
    assert capsys.readouterr().out.count("give the phase a schedule instead, which may be a function of your own") == 1


def test_what_a_learner_gives_back_is_the_learner(small_settings):
    def epoch(generator, discriminator, g_optimizer, batches):
        generator, discriminator = generator.to("cpu").train(), discriminator.eval()
        for lr, hr in batches:
            loss = F.mse_loss(generator(lr=lr), hr)
            assert loss.dtype == torch.float32 and hasattr(discriminator, "descend")
            generator.descend(loss)
            yield {"loss": loss}

    solver.Trainer(changed(small_settings, precision="bf16"), [Phase("mine", epoch, 1, 1e-3)], progress=False).train()


@pytest.mark.parametrize("read", ["all at once", "one ahead", "before the loop"])
def test_rates_and_numbers_of_updates_do_not_hang_on_when_a_batch_is_read(small_settings, monkeypatch, read):
    seen = []

    def epoch(generator, batches):
        first = generator.learning_rate, generator.update
        batches = list(batches) if read == "all at once" else iter(batches)
        kept = [] if read == "all at once" else [next(batches)] if read == "one ahead" else []
        for batch in itertools.chain(batches, [None] if kept else []):
            (lr, hr), kept = (kept[0], [batch]) if kept else (batch, [])
            seen.append(first if read == "before the loop" else (generator.learning_rate, generator.update))
            loss = F.mse_loss(generator(lr).float(), hr)
            generator.descend(loss)
            first = generator.learning_rate, generator.update
            yield {"loss": loss}

    cfg, phases = changed(small_settings, save_minutes=100), [Phase("mine", epoch, 2, 1e-3, "one_cycle")]
    whole = solver.Trainer(changed(cfg, name="whole"), phases, progress=False)
    whole.train()
    if read != "before the loop":
        assert [update for _, update in seen] == [0, 1, 2, 3, 4] * 2 and len({rate for rate, _ in seen}) == 10
    assert same_generator(interrupted(cfg, monkeypatch, 8, phases), whole)
