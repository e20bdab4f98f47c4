"""Stopped, killed, damaged and moved: a run goes on as if nothing had happened, or says why not."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from warm import start

import solver
import utils
from helpers import changed, equal, last, train, weights
from kit import runs
from kit.compute.interrupt import Stopped
from kit.compute.learner import Learner
from kit.runs.checkpoints import save_checkpoint
from kit.training import validation


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
    whole = train(cfg, name="whole")
    for updates, phase in [(1, "warmup"), (40, "warmup"), (25, "adversarial")]:
        trainer = solver.Trainer(cfg, progress=False)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt_after(patch, updates)
            trainer.warm_up()
            trainer.train_adversarially()
        state = runs.load_checkpoint(trainer.run.folder / "checkpoints" / "last.pt")
        assert state["phase"] == phase and 0 < state["step"] < 30  # saved within an epoch
        assert trainer.state.seconds == state["seconds"] > 0
    save_checkpoint(trainer.run.folder / "checkpoints" / "last.pt", {**state, "seconds": 1000.0})
    trainer = train(cfg)
    assert equal(weights(trainer.run.folder), weights(whole.run.folder))
    for mine, wanted in zip(trainer.history, whole.history):
        assert {**mine, "seconds": 0} == {**wanted, "seconds": 0}
    assert [row["seconds"] > 1000 for row in trainer.history] == [False, False, True, False]


def test_killed_ten_times_the_weights_are_the_same_bit_for_bit(small_settings):
    """kill -9 at random moments, restarted each time, against one run that was left alone."""
    random_moments = random.Random(0)
    options = dict(patches_per_picture=60, warmup_epochs=5, adversarial_epochs=4, ema_decay=0.99, save_minutes=0.002,
                   gradient_penalty=0.1, penalty_every=3)
    whole = train(small_settings, name="whole", **options)
    arguments = changed(small_settings, name="killed", **options)
    kills = starts = 0
    while True:
        starts += 1
        assert starts < 60
        process = start(train, arguments)
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


@pytest.mark.parametrize("spoil", ["picture", "list"])
def test_a_run_is_tied_to_the_pictures_it_was_begun_with(own_lists, small_settings, spoil):
    cfg = changed(small_settings, train_list=str(own_lists / "train.csv"), adversarial_epochs=0, updates_per_epoch=5)
    train(cfg, warmup_epochs=1)
    if spoil == "picture":
        path = own_lists / "train" / "2.png"
        utils.save_picture(path, 255 - utils.read_picture(path))
    else:
        text = (own_lists / "train.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        (own_lists / "train.csv").write_text("".join(text[:-1]), encoding="utf-8")
    with pytest.raises(ValueError, match="the training pictures have changed since the run was begun"):
        train(cfg)


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
        patch.setattr(validation, "evaluate", broken)
        made.train()
    state = runs.load_checkpoint(last(small_settings))
    assert state["step"] == 5 and state["epoch"] == 0
    assert equal(weights(train(small_settings).run.checkpoint("last")), wanted)


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
    for weight, moments in made.networks.optimizers["generator"].state.items():
        assert moments["exp_avg"].stride() == weight.stride()


def test_sigterm_saves_as_ctrl_c_does(small_settings, monkeypatch):
    cfg = changed(small_settings, patches_per_picture=30)
    wanted = weights(train(cfg, name="whole").run.checkpoint("last"))
    made, usual = solver.Trainer(cfg, progress=False), signal.getsignal(signal.SIGTERM)
    descend = Learner.descend

    def ended(self, loss):
        descend(self, loss)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Stopped, match="stopped and saved: warmup at 0 of 2"):
        patch.setattr(Learner, "descend", ended)
        made.train()
    assert runs.load_checkpoint(last(cfg))["step"] == 1 and signal.getsignal(signal.SIGTERM) == usual
    assert equal(weights(train(cfg).run.checkpoint("last")), wanted)


def test_a_stop_is_acknowledged_at_once_and_a_second_ends_in_one_line(small_settings, monkeypatch, capsys):
    def pressed(self, loss, times=1, descend=Learner.descend):
        descend(self, loss)
        os.kill(os.getpid(), signal.SIGINT)
        heard.append("stopping after this update" in capsys.readouterr().out)
        if times == 2:
            os.kill(os.getpid(), signal.SIGINT)

    for times, words in [(1, "stopped and saved: warmup at 0 of 2 epochs and 1 of 5"), (2, "stopped at once")]:
        heard = []
        monkeypatch.setattr(Learner, "descend", lambda self, loss, n=times: pressed(self, loss, n))
        with pytest.raises(Stopped, match=words) as caught:
            solver.Trainer(changed(small_settings, name=f"run{times}")).train()
        assert heard == [True] and caught.value._render_traceback_() == [str(caught.value)]
