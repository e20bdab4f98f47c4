"""Training: the two kinds of update, runs that are stopped, killed and resumed, and the command line."""

import csv
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import learner, save_generator, start
from easydict import EasyDict

import evaluation
import models
import recipes
import runs
import solver
import utils
import vgg
from machine import Learner
from trainer import scheduled

ROOT = Path(__file__).parent.parent


def changed(cfg, **changes):
    return EasyDict({**cfg, **changes})


def run(cfg, **changes):
    """Train a run to its end."""
    trainer = solver.Trainer(changed(cfg, **changes), progress=False)
    trainer.warm_up()
    trainer.train_adversarially()
    return trainer


def weights(folder):
    state = runs.load_checkpoint(Path(folder) / "checkpoints" / "last.pt")
    return {f"{network}.{name}": value for network in ("generator", "average", "discriminator")
            for name, value in state.get(network, {}).items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---------------------------------------------------------------------------------------- the two epochs


MSE = EasyDict(content_loss="mse", scale=4)


def test_the_low_loss_sees_only_what_imresize_keeps():
    high, loss = torch.rand(2, 3, 32, 32) * 2 - 1, solver.make_content_loss(EasyDict(MSE, content_loss="low + 0.1 mse"))
    noise = torch.zeros(2, 3, 32, 32)
    noise[..., ::2] += 0.5
    noise[..., 1::2] -= 0.5  # a pattern that is nearly gone when it is made small
    assert loss(high + 0.5, high).item() == pytest.approx(0.25 * 1.1, rel=1e-4)
    assert loss(high + noise, high).item() == pytest.approx(0.25 * 0.1, rel=0.1)


def tiny(seed=0):
    torch.manual_seed(seed)
    generator = models.Generator(4, channels=4, blocks=1)
    discriminator = models.Discriminator(16, channels=2, dense=4)
    low = torch.randint(0, 256, (8, 3, 4, 4), dtype=torch.uint8)
    high = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    return generator, discriminator, low, high


def test_a_warm_up_update_is_one_step_down_the_gradient_of_the_mse():
    generator, _, low, high = tiny()
    losses = list(solver.warmup_epoch(learner(generator, 0.1), [(utils.to_unit(low), utils.to_signed(high))]))
    plain, _, low, high = tiny()
    loss = ((plain(low / 255) - (high / 127.5 - 1)) ** 2).mean()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    loss.backward()
    optimizer.step()
    assert losses[0]["content_loss"].item() == pytest.approx(loss.item(), rel=1e-6)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(generator.state_dict()[name], value)


@pytest.mark.parametrize("penalty", [0, 0.5])
def test_an_adversarial_update_equals_the_equations_written_out(penalty):
    generator, discriminator, low, high = tiny()
    # Plain gradient descent: Adam's first step is the gradient's sign, which is chance where it is almost zero.
    losses = list(solver.alternating_epoch(learner(generator, 0.1), learner(discriminator, 0.1),
                                           [(utils.to_unit(low), utils.to_signed(high))],
                                           solver.make_content_loss(MSE), 1e-2, penalty))

    g, d, low, high = tiny()
    g_optimizer, d_optimizer = (torch.optim.SGD(n.parameters(), lr=0.1) for n in (g, d))
    low, high = low / 255, high / 127.5 - 1
    fake = g(low)
    d_loss = -torch.log(torch.sigmoid(d(high))).mean() - torch.log(1 - torch.sigmoid(d(fake.detach()))).mean()
    if penalty:
        slopes = torch.autograd.functional.jacobian(lambda x: d(x).sum(), high[:2], create_graph=True)
        (d_loss + penalty * (slopes**2).sum() / 2 / 2).backward()  # the mean of two pictures
    else:
        d_loss.backward()
    d_optimizer.step()
    adversarial = -torch.log(torch.sigmoid(d(fake))).mean()
    content = F.mse_loss(fake, high)
    g_optimizer.zero_grad()
    (content + 1e-2 * adversarial).backward()
    g_optimizer.step()

    for name, value in dict(discriminator_loss=d_loss, adversarial_loss=adversarial, content_loss=content).items():
        assert losses[0][name].item() == pytest.approx(value.item(), rel=1e-5)
    for mine, plain in [(generator, g), (discriminator, d)]:
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_a_lazy_penalty_is_as_many_times_as_heavy_and_left_out_between():
    def updated(*penalty, number=0):
        generator, discriminator, low, high = tiny()
        judge = learner(discriminator, 0.1)
        judge.update = number
        list(solver.alternating_epoch(learner(generator, 0.1), judge, [(utils.to_unit(low), utils.to_signed(high))],
                                      solver.make_content_loss(MSE), 1e-2, *penalty))
        return discriminator.state_dict()

    lazy = {number: updated(0.25, 3, number=number) for number in range(4)}
    assert equal(lazy[0], lazy[3]) and equal(lazy[1], lazy[2]) and not equal(lazy[0], lazy[1])
    assert equal(lazy[0], updated(0.75)) and equal(lazy[1], updated(0))


def test_a_discriminator_without_batch_norm_judges_two_batches_at_once_with_the_same_result():
    torch.manual_seed(0)
    network = models.Discriminator(crop=16, channels=4, dense=8, batch_norm=False)
    assert network.judges_each_alone and not models.Discriminator(crop=16, channels=4).judges_each_alone
    batches, calls = torch.rand(2, 3, 3, 16, 16), []
    network.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    together = learner(network, 0.1)(*batches)
    network.judges_each_alone = False
    apart = learner(network, 0.1)(*batches)
    assert calls == [6, 3, 3]
    torch.testing.assert_close(list(together), apart)


def test_batches_of_other_sizes_and_other_outputs_than_a_tensor_are_judged_one_after_the_other():
    network = models.Discriminator(crop=16, channels=4, dense=8, batch_norm=False, flatten=False)
    outputs = learner(network, 0.1)(torch.rand(2, 3, 16, 16), torch.rand(2, 3, 32, 32))
    assert [output.shape[-1] for output in outputs] == [1, 2]
    network.forward = lambda picture: (picture, 1)
    assert [one for _, one in learner(network, 0.1)(*torch.rand(2, 2, 3, 16, 16))] == [1, 1]


def test_the_cost_of_a_run_counts_a_lazy_penalty(small_settings, monkeypatch):
    calls, penalty = [], solver.r1_penalty
    monkeypatch.setattr(solver, "r1_penalty", lambda *given: calls.append(0) or penalty(*given))
    trainer = solver.Trainer(changed(small_settings, warmup_epochs=0, gradient_penalty=0.1, penalty_every=4),
                             progress=False)
    trainer.cost(updates=1)
    assert len(calls) == 2  # in the update that does not count, and in one of the four that do


def test_a_run_of_a_kit_that_did_not_know_a_setting_was_trained_with_the_papers_value(small_settings):
    cfg = changed(small_settings, gradient_penalty=0.1, penalty_every=1)
    run(cfg)
    for file in (Path(cfg.runs) / cfg.name / "checkpoints").glob("last*.pt"):
        state = torch.load(file, weights_only=True)
        for stretch in state["record"]:
            stretch["trained_by"].pop("penalty_every", None)
            stretch["settings"].pop("penalty_every", None)
        torch.save(state, file)
    solver.Trainer(changed(cfg, adversarial_epochs=9), progress=False)
    with pytest.raises(ValueError, match="its adversarial was trained with penalty_every = 1, not 4"):
        solver.Trainer(changed(cfg, penalty_every=4), progress=False)


def test_the_vgg_loss_is_the_mean_square_between_features(vgg19_weights):
    cfg = solver.settings("paper", content_loss="vgg22", vgg_weights=vgg19_weights[0])
    loss = solver.make_content_loss(cfg)
    features = vgg.VGGFeatures(2, 2, vgg19_weights[0])
    fake, high = (torch.rand(1, 3, 16, 16) * 2 - 1).requires_grad_(), torch.rand(1, 3, 16, 16) * 2 - 1
    value = loss(fake, high)
    assert value.item() == pytest.approx(F.mse_loss(features(fake), features(high)).item(), rel=1e-5)
    value.backward()
    assert fake.grad.abs().sum() > 0


def test_learning_rates():
    assert {scheduled(1e-4, "constant", t) for t in (0, 0.5, 1)} == {1e-4}
    assert [scheduled(1e-4, "step", t) for t in (0, 0.499, 0.5, 1)] == pytest.approx([1e-4] * 2 + [1e-5] * 2)
    rates = [scheduled(1.0, "one_cycle", t) for t in np.linspace(0, 1, 101)]
    assert rates[0] == pytest.approx(1 / 25) and rates[30] == pytest.approx(1) and rates[100] == pytest.approx(1e-5)
    assert np.argmax(rates) == 30 and np.abs(np.diff(rates)).max() < 0.06


def test_the_discriminator_can_have_a_rate_of_its_own(small_settings):
    seen = []

    def epoch(generator, discriminator, batches):
        for low, high in batches:
            seen.append(discriminator.learning_rate / generator.learning_rate)
            generator.descend(generator(low).mean() + discriminator(high).mean())
            yield {"loss": 0.0}

    cfg = EasyDict(small_settings, discriminator_rate=4, updates_per_epoch=2)
    phase = solver.Phase("own", epoch, 1, 1e-3, "one_cycle")
    solver.Trainer(cfg, [phase], progress=False).train()
    assert seen == pytest.approx([4, 4])
    with pytest.raises(ValueError, match="discriminator_rate = 4, not 2"):  # what its epochs hang on
        solver.Trainer(EasyDict(cfg, discriminator_rate=2), [phase._replace(epochs=2)], progress=False)


def test_a_discriminator_of_detail_sees_no_colours():
    judge = models.make_discriminator(solver.settings("demo", crop=32, discriminator_detail=True,
                                                      discriminator_batch_norm=False))
    colours = torch.tensor([0.3, -0.2, 0.1]).view(3, 1, 1) + 0.01 * torch.arange(4.0).view(4, 1, 1, 1)
    plain = judge(colours.expand(4, 3, 32, 32))
    torch.testing.assert_close(plain, plain[:1].expand(4, 1), atol=1e-5, rtol=0)
    assert judge(torch.rand(4, 3, 32, 32)).std() > 0.01  # and He's weights let it tell something from the first


def test_kernels_of_four_look_at_every_pixel_equally_often():
    spread = {}
    for kernel in (3, 4):
        judge = models.Discriminator(128, channels=2, dense=4, batch_norm=False, flatten=False, halving_kernel=kernel)
        for name, weight in judge.named_parameters():
            torch.nn.init.constant_(weight, 0.1 if name.endswith("weight") else 0)
        picture = torch.ones(1, 3, 128, 128, requires_grad=True)
        judge(picture).sum().backward()
        inner = picture.grad[..., 56:72, 56:72]  # far from the border
        spread[kernel] = (inner.max() / inner.min()).item()
    assert spread[4] == pytest.approx(1, abs=1e-4) and spread[3] > 1.5


def test_a_penalised_discriminator_has_layers_that_can_be_differentiated_twice(small_settings, monkeypatch):
    class PlainPReLU(torch.nn.PReLU):
        pass  # a class of one's own is never made quicker

    slopes = []
    for name, kind in dict(usual=torch.nn.PReLU, plain=PlainPReLU).items():
        monkeypatch.setattr("trainer.make_discriminator", lambda cfg, kind=kind: torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), kind(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 1)))
        cfg = EasyDict(small_settings, name=name, gradient_penalty=10.0, warmup_epochs=0, adversarial_epochs=1,
                       updates_per_epoch=3, precision="fp32")
        slopes.append(run(cfg).discriminator[1].weight.item())
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-6) != 0.25


def test_training_learns(small_settings):
    trainer = run(small_settings, warmup_epochs=8, adversarial_epochs=1, patches_per_picture=40, channels=16)
    warm = [row["content_loss"] for row in trainer.history if row["phase"] == "warmup"]
    assert warm[-1] < warm[0] / 3
    assert trainer.history[-2]["psnr"] > trainer.history[0]["psnr"] + 1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_the_same(small_settings, precision):
    options = dict(warmup_epochs=3, adversarial_epochs=1, patches_per_picture=20, channels=8)
    half = run(small_settings, name="half", precision=precision, **options)
    full = run(small_settings, name="full", precision="fp32", **options)
    assert half.history[-1]["content_loss"] == pytest.approx(full.history[-1]["content_loss"], rel=0.1)


def test_what_makes_it_fast_can_be_turned_off_and_changes_nothing_else(small_settings):
    quick = run(small_settings, name="quick", precision="fp32")
    plain = run(small_settings, name="plain", precision="fp32", channels_last=False, fused_adam=False)
    for row, wanted in zip(plain.history, quick.history):
        assert row["content_loss"] == pytest.approx(wanted["content_loss"], rel=1e-3)


# ------------------------------------------------------------------------------------------ a run's folder


def test_a_run_leaves_what_it_promises(small_settings):
    trainer = run(small_settings)
    folder = trainer.run.folder
    labels = ["adversarial_001", "adversarial_002", "warmup_001", "warmup_002"]
    assert sorted(p.stem for p in (folder / "samples").iterdir()) == sorted([*labels, "input", "original"])
    checkpoints = sorted(p.stem for p in (folder / "checkpoints").iterdir())
    assert checkpoints == sorted([*labels, "adversarial", "adversarial_best", "warmup", "warmup_best", "last",
                                  "last_epoch", "warmup_end"])
    assert runs.read_history("small", folder.parent)[3]["phase"] == "adversarial"
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["phase"], r["epoch"], r["updates"]) for r in rows] == [
        ("warmup", "1", "5"), ("warmup", "2", "10"), ("adversarial", "1", "15"), ("adversarial", "2", "20")]
    assert runs.load_checkpoint(folder / "checkpoints" / "last.pt")["settings"] == dict(small_settings)
    sample = utils.read_picture(folder / "samples" / "warmup_002" / "eye.png")
    pair = trainer.valid_set[0]
    generator = evaluation.load_generator(folder / "checkpoints" / "warmup.pt")
    assert np.array_equal(sample, utils.super_resolve(generator, pair.lr))
    score, = evaluation.evaluate(partial(utils.super_resolve, generator), trainer.valid_set, progress=False)
    assert score["psnr"] == pytest.approx(trainer.history[1]["psnr"])


def test_a_finished_run_says_so_and_goes_on_when_asked_for_more(small_settings, capsys):
    run(small_settings)
    trainer = solver.Trainer(small_settings)
    trainer.warm_up()
    trainer.train_adversarially()
    text = capsys.readouterr().out
    assert "resumed, adversarial at 2 of 2 epochs" in text and "2 of 2 epochs are done" in text
    small_settings.adversarial_epochs = 3
    assert len(solver.Trainer(small_settings, progress=False).train_adversarially()) == 5


def test_another_run_can_start_from_its_weights(small_settings):
    first = run(small_settings, adversarial_epochs=0)
    start = str(first.run.folder / "checkpoints" / "warmup.pt")
    second = solver.Trainer(changed(small_settings, name="second", warmup_epochs=0, start_from=start), progress=False)
    assert equal(second.generator.state_dict(), first.generator.state_dict())
    assert len(second.train_adversarially()) == 2
    half = str(first.run.folder / "warmup.safetensors")
    save_generator(half, evaluation.load_generator(start), **recipes.section(small_settings, "generator"))
    third = solver.Trainer(changed(small_settings, name="third", warmup_epochs=0, start_from=half), progress=False)
    for mine, wanted in zip(third.generator.parameters(), first.generator.parameters()):
        torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-6)


def test_the_average_follows_buffers_that_a_network_replaces(small_settings, monkeypatch):
    class Counting(torch.nn.Sequential):
        def __init__(self):
            super().__init__(torch.nn.Conv2d(3, 48, 3, padding=1), torch.nn.PixelShuffle(4))
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, low):
            if self.training:
                self.seen = self.seen + 1
            return super().forward(low)

    monkeypatch.setattr("trainer.make_generator", lambda cfg: Counting())
    trainer = run(small_settings, ema_decay=0.5, adversarial_epochs=0)
    assert trainer.generator.seen - 2 < trainer.average.seen < trainer.generator.seen


def test_the_average_of_the_weights_is_what_is_kept_and_trained_further(small_settings, monkeypatch):
    trainer = solver.Trainer(changed(small_settings, ema_decay=0.25), progress=False)
    course = [weights_of(trainer)]

    def watched(self, loss, descend=Learner.descend):
        descend(self, loss)
        course.append(weights_of(trainer))

    monkeypatch.setattr(Learner, "descend", watched)
    trainer.warm_up()
    average = course[0]
    for n, current in enumerate(course[1:], 1):
        decay = min(0.25, (1 + n) / (10 + n))
        average = {name: decay * average[name] + (1 - decay) * current[name] for name in average}
    kept = evaluation.load_generator(trainer.run.folder / "checkpoints" / "warmup.pt")
    for name, value in kept.state_dict().items():
        torch.testing.assert_close(value, average[name])
    assert not equal(kept.state_dict(), trainer.generator.state_dict())
    score, = evaluation.evaluate(utils.Enlarger(kept), trainer.valid_set, progress=False)
    assert score["psnr"] == pytest.approx(trainer.history[-1]["psnr"])
    monkeypatch.setattr(Learner, "descend", lambda self, loss: None)  # the adversarial phase without its updates
    trainer.train_adversarially()
    after = evaluation.load_generator(trainer.run.folder / "checkpoints" / "adversarial.pt").state_dict()
    assert equal(after, {name: kept.state_dict()[name] for name in after})


def test_settings_that_a_run_hangs_on_cannot_change(small_settings):
    run(small_settings)
    with pytest.raises(ValueError, match="run 'small' was begun with batch_size = 4, not 8"):
        solver.Trainer(changed(small_settings, batch_size=8), progress=False)


def test_two_programs_cannot_train_one_run(small_settings):
    trainer, other = (solver.Trainer(small_settings, progress=False) for _ in range(2))

    def meanwhile(history):
        with pytest.raises(ValueError, match="another program is training the run 'small'"):
            other.warm_up()
        seen.append(1)

    seen = []
    trainer.warm_up(on_epoch=meanwhile)
    assert len(seen) == 2


def test_the_warm_up_comes_first(small_settings):
    with pytest.raises(ValueError, match="call train\\('warmup'\\) first"):
        solver.Trainer(small_settings, progress=False).train_adversarially()


# -------------------------------------------------------------------------------- stopped, killed, resumed


def interrupt_after(monkeypatch, updates):
    """Send what Ctrl-C and a notebook's stop button send, after so many calls of `descend`."""
    remaining = iter(range(updates - 1, -1, -1))

    def counted(self, loss, descend=Learner.descend):
        descend(self, loss)
        if next(remaining, None) == 0:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Learner, "descend", counted)


def test_an_interruption_saves_and_the_rest_is_as_if_nothing_had_happened(small_settings, monkeypatch):
    cfg = changed(small_settings, patches_per_picture=30)
    whole = run(cfg, name="whole")
    for updates, phase in [(1, "warmup"), (40, "warmup"), (25, "adversarial")]:
        trainer = solver.Trainer(cfg, progress=False)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt_after(patch, updates)
            trainer.warm_up()
            trainer.train_adversarially()
        state = runs.load_checkpoint(trainer.run.folder / "checkpoints" / "last.pt")
        assert state["phase"] == phase and 0 < state["step"] < 30  # saved within an epoch
        assert trainer.seconds == state["seconds"] > 0
    runs.save_checkpoint(trainer.run.folder / "checkpoints" / "last.pt", {**state, "seconds": 1000.0})
    trainer = run(cfg)
    assert equal(weights(trainer.run.folder), weights(whole.run.folder))
    for mine, wanted in zip(trainer.history, whole.history):
        assert {**mine, "seconds": 0} == {**wanted, "seconds": 0}
    assert [row["seconds"] > 1000 for row in trainer.history] == [False, False, True, False]


def test_killed_ten_times_the_weights_are_the_same_bit_for_bit(small_settings):
    """kill -9 at random moments, restarted each time, against one run that was left alone."""
    random_moments = random.Random(0)
    options = dict(patches_per_picture=60, warmup_epochs=5, adversarial_epochs=4, ema_decay=0.99, save_minutes=0.002,
                   gradient_penalty=0.1, penalty_every=3)
    whole = run(small_settings, name="whole", **options)
    arguments = changed(small_settings, name="killed", **options)
    kills = starts = 0
    while True:
        starts += 1
        assert starts < 60
        process = start(run, arguments)
        if kills < 10:
            time.sleep(random_moments.uniform(0.1, 0.4))
            if process.is_alive():
                process.kill()
                kills += 1
        process.join()
        if process.exitcode == 0:
            break
    assert kills == 10
    folder = Path(small_settings.runs) / "killed"
    assert equal(weights(folder), weights(whole.run.folder))
    history = runs.read_history("killed", small_settings.runs)
    assert [row["content_loss"] for row in history] == [row["content_loss"] for row in whole.history]


def test_divergence_stops_with_an_explanation_and_keeps_the_last_good_state(small_settings):
    cfg = changed(small_settings, adversarial_lr=1e30, clip_gradients=None, precision="fp32")
    trainer = solver.Trainer(cfg, progress=False)
    trainer.warm_up()
    good = weights_of(trainer)
    broken = solver.Trainer(cfg, progress=False)
    with pytest.raises(FloatingPointError, match="adversarial epoch 1 is no longer.*Lower adversarial_lr.*clip_gradie"
                                                 "nts.*cfg.name = 'small_2', and cfg.fork_of = 'small' keeps what was"):
        broken.train_adversarially()
    assert equal(weights_of(solver.Trainer(cfg, progress=False)), good)
    assert broken.run.progress()["state"] == "diverged"
    cured = solver.Trainer(changed(cfg, name="small_2", fork_of="small", adversarial_lr=1e-4), progress=False)
    assert equal(weights_of(cured), good) and len(cured.train()) == 4


def weights_of(trainer):
    return {name: value.clone() for name, value in trainer.generator.state_dict().items()}


def test_training_outside_the_main_thread_works(small_settings):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(small_settings)))
    thread.start()
    thread.join()
    assert len(results[0].history) == 4


# -------------------------------------------------------------------------------------- several processes


def in_two_processes(cfg, name, tmp_path, **changes):
    """Train a run by `torchrun` on two processes of the CPU."""
    settings = {**changed(cfg, name=name), **changes}
    arguments = [f"--{key}={value}" for key, value in settings.items() if value is not None]
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
                           ROOT / "solver.py", "--recipe", "demo", *arguments], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return runs.read_history(name, cfg.runs)


def test_two_processes_train_as_one_does_and_one_can_go_on(small_settings, tmp_path):
    cfg = changed(small_settings, precision="fp32", warmup_epochs=3, warmup_schedule="constant", warmup_lr=1e-4,
                  adversarial_epochs=0, patches_per_picture=10)
    whole = run(cfg, name="whole").history
    two = in_two_processes(cfg, "two", tmp_path, warmup_epochs=2)
    assert len(two) == 2
    resumed = run(cfg, name="two").history  # from two processes to one
    for mine, wanted in zip(resumed, whole):
        assert mine["content_loss"] == pytest.approx(wanted["content_loss"], rel=1e-4)
        assert mine["psnr"] == pytest.approx(wanted["psnr"], abs=0.01)
    assert len(resumed) == 3


@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
def test_two_processes_train_adversarially(small_settings, tmp_path, updates):
    # without batch norm, whose statistics each process has for itself, the losses are those of one process
    cfg = changed(small_settings, precision="fp32", warmup_epochs=0, adversarial_epochs=2, updates=updates,
                  discriminator_batch_norm=False, batch_size=8, patches_per_picture=20)
    for mine, wanted in zip(in_two_processes(cfg, "two", tmp_path), run(cfg, name="one").history):
        for loss in ["content_loss", "adversarial_loss", "discriminator_loss", "d_real", "d_fake"]:
            assert mine[loss] == pytest.approx(wanted[loss], rel=1e-3)


# --------------------------------------------------------------------------------- scores, command line


def test_score_tables_stand_beside_the_paper(small_lists):
    csv_file = small_lists / "valid.csv"
    scores = evaluation.score_sets({"bicubic": utils.bicubic, "again": utils.bicubic}, [csv_file], progress=False)
    assert [row["method"] for row in scores] == ["bicubic", "again"] and scores[0]["picture"] == "eye"
    for row in scores:
        row["set"] = "Set5"
    scores += [{**row, "set": "mine", "psnr": row["psnr"] + 1} for row in scores]
    lines = [line.split() for line in evaluation.score_table(scores).splitlines()]
    psnr, ssim, _ = evaluation.mean_scores(scores[:2])
    assert lines[0] == ["PSNR", "/", "SSIM", "/", "NIQE", "Set5", "(1)", "mine", "(1)"]
    assert lines[2] == ["bicubic", f"{psnr:.2f}", "/", f"{ssim:.4f}", "/", "–", f"{psnr + 1:.2f}", "/",
                        f"{ssim:.4f}", "/", "–"]
    assert lines[3][0] == "again" and ["paper:", "SRResNet", "32.05", "/", "0.9019"] in lines
    assert len(evaluation.score_table(scores[2:]).splitlines()) == 4  # nothing is published of that set


def test_the_command_line(small_settings, tmp_path):
    changes = [f"--{name}={value}" for name, value in small_settings.items()
               if value is not None and name not in ("clip_gradients", "adversarial_epochs")]
    command = [sys.executable, ROOT / "solver.py", "--recipe", "demo", *changes]
    done = subprocess.run([*command, "--adversarial_epochs=1"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warmup 2/2" in done.stdout and (tmp_path / "runs/small/checkpoints/adversarial_001.pt").exists()
    done = subprocess.run([*command, "--blocks=0"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == ("solver.py: error: blocks must be a whole number from 1 to 4096, not 0 "
                           "(residual blocks of the generator)\n")
    done = subprocess.run([sys.executable, ROOT / "solver.py", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--warmup_lr" in done.stdout
