"""Phases, the kit's and one's own."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from easydict import EasyDict
from warm import start

import solver
from kit import evaluation, plots, runs
from kit.evaluation.generators import load_generator
from kit.training.phases import scheduled


def test_learning_rates():
    assert {scheduled(1e-4, "constant", t) for t in (0, 0.5, 1)} == {1e-4}
    assert [scheduled(1e-4, "step", t) for t in (0, 0.499, 0.5, 1)] == pytest.approx([1e-4] * 2 + [1e-5] * 2)
    assert [scheduled(1e-4, "cosine", t) for t in (0, 0.5, 1)] == pytest.approx([1e-4, 5e-5, 0])
    rates = [scheduled(1.0, "one_cycle", t) for t in np.linspace(0, 1, 101)]
    assert rates[0] == pytest.approx(1 / 25) and rates[30] == pytest.approx(1) and rates[100] == pytest.approx(1e-5)
    assert np.argmax(rates) == 30 and np.abs(np.diff(rates)).max() < 0.06


def test_the_warm_up_comes_first(small_settings):
    with pytest.raises(ValueError, match="call train\\('warmup'\\) first"):
        solver.Trainer(small_settings, progress=False).train_adversarially()


def hinge_epoch(generator, discriminator, batches, adversarial_weight, margin=1.0):
    for lr, hr in batches:
        sr = generator(lr)
        real, judged = discriminator(hr, sr.detach())
        d_loss = F.relu(margin - real.float()).mean() + F.relu(margin + judged.float()).mean()
        discriminator.descend(d_loss)
        with discriminator.frozen():
            g_loss = adversarial_weight * -discriminator(sr).float().mean() + solver.mse_loss(sr, hr)
        generator.descend(g_loss)
        yield {"generator_loss": g_loss, "hinge_loss": d_loss}


def l1_epoch(generator, batches):
    for lr, hr in batches:
        loss = (generator(lr).float() - hr).abs().mean()
        generator.descend(loss)
        yield {"l1_loss": loss}


def own_phases(cfg):
    return [*solver.default_phases(cfg), solver.Phase("finetuning", l1_epoch, 3, 1e-3, "one_cycle"),
            solver.Phase("hinge", hinge_epoch, 2, 1e-4)]


def train_own_phases(cfg):
    trainer = solver.Trainer(cfg, phases=own_phases(cfg), progress=False)
    trainer.train()
    return trainer


def test_phases_of_ones_own_have_all_that_the_kits_have_and_resume_bit_for_bit(small_settings):
    cfg = EasyDict(small_settings, patches_per_picture=30, warmup_epochs=1, adversarial_epochs=1, save_minutes=0.0005)
    whole = train_own_phases(EasyDict(cfg, name="whole"))
    state, killed_in = Path(cfg.runs, "small", "checkpoints", "last.pt"), []
    for phase in ("finetuning", "hinge"):
        process = start(train_own_phases, cfg)
        while process.is_alive() and not (state.exists() and runs.load_checkpoint(state)["phase"] == phase):
            time.sleep(0.01)
        process.kill()
        process.join()
        killed_in.append(runs.load_checkpoint(state)["phase"])
    assert killed_in == ["finetuning", "hinge"]
    trainer = train_own_phases(cfg)
    mine, wanted = (runs.load_checkpoint(run.run.checkpoint("last")) for run in (trainer, whole))
    for network in ("generator", "discriminator"):
        assert all(torch.equal(mine[network][name], value) for name, value in wanted[network].items())
    for row, other in zip(trainer.history, whole.history):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}

    history = runs.read_history("small", cfg.runs)
    assert [row["phase"] for row in history] == ["warmup", "adversarial"] + ["finetuning"] * 3 + ["hinge"] * 2
    assert history[2]["l1_loss"] == pytest.approx(trainer.history[2]["l1_loss"]) and "l1_loss" not in history[0]
    assert "content_loss" not in history[2] and history[-1]["hinge_loss"] > 0
    labels = [line.get_label() for axis in plots.plot_history({"small": history}).axes for line in axis.lines]
    assert "small, finetuning: l1_loss" in labels and "small, hinge" in labels
    for phase, epochs in [("finetuning", 3), ("hinge", 2)]:
        assert trainer.run.sampled_epochs(phase, "eye") == list(range(1, epochs + 1))
        checkpoints = trainer.run.checkpoint(phase).parent
        assert (checkpoints / f"{phase}_best.pt").is_file() and (checkpoints / f"{phase}_{epochs:03d}.pt").is_file()
    assert list(trainer.pictures())[-3:] == ["finetuning, epoch 3", "hinge, epoch 2", "original"]
    methods = evaluation.methods({"mine": load_generator(trainer.run.checkpoint("hinge"))})
    scores = evaluation.score_sets(methods, [cfg.valid_list], progress=False)
    assert scores[-1]["psnr"] == pytest.approx(history[-1]["psnr"])


def test_phases_go_in_order_and_are_not_gone_back_to(small_settings, capsys):
    cfg = EasyDict(small_settings, warmup_epochs=1, adversarial_epochs=1)
    trainer = solver.Trainer(cfg, phases=own_phases(cfg))
    trainer.warm_up()
    with pytest.raises(ValueError, match=r"the adversarial of run 'small' is not finished .*train\('adversarial'\)"):
        trainer.train("finetuning")
    trainer.train_adversarially()
    trainer.train("finetuning")
    trainer.warm_up()
    assert "warmup is over: finetuning has begun" in capsys.readouterr().out
    again = solver.Trainer(cfg)  # without one's own phases: nothing is lost, and what is there is said
    assert len(again.train_adversarially()) == 5
    assert "adversarial is over: finetuning has begun" in capsys.readouterr().out


def changing_phases(**changes):
    return [solver.Phase("one", solver.alternating_epoch, 1, 1e-3),
            solver.Phase("two", solver.alternating_epoch, 2, 1e-3, "one_cycle", changes)]


CHANGES = dict(content_loss="0.5 mse + lr_consistency", adversarial_weight=0.1, discriminator_rate=3)


def test_a_phase_with_other_settings_is_trained_by_them(small_settings):
    """As one of a run of these settings is, whose first phase has those of the rest here."""
    trainer = solver.Trainer(small_settings, changing_phases(**CHANGES), progress=False)
    trainer.train()
    before = {name: small_settings[name] for name in CHANGES}
    one, two = changing_phases()
    other = solver.Trainer(EasyDict(small_settings, name="other", **CHANGES), [one._replace(changes=before), two],
                           progress=False)
    other.train()
    plain = solver.Trainer(EasyDict(small_settings, name="plain"), changing_phases(), progress=False)
    plain.train()
    mine, same, another = ([*t.generator.state_dict().values(), *t.discriminator.state_dict().values()]
                           for t in (trainer, other, plain))
    assert all(map(torch.equal, mine, same)) and not all(map(torch.equal, mine, another))

    recorded = json.loads((trainer.run.folder / "settings.json").read_text(encoding="utf-8"))
    assert [segment["trained_by"]["adversarial_weight"] for segment in recorded] == [before["adversarial_weight"], 0.1]
    assert [segment["settings"]["content_loss"] for segment in recorded] == [before["content_loss"],
                                                                            CHANGES["content_loss"]]
    assert len(trainer.cost(1).cells) == 2
    solver.Trainer(small_settings, changing_phases(**CHANGES), progress=False)
    with pytest.raises(ValueError, match="its two was trained with discriminator_rate = 3, not 2"):
        solver.Trainer(small_settings, changing_phases(**{**CHANGES, "discriminator_rate": 2}), progress=False)


def test_what_phases_of_equal_settings_ask_for_is_made_once(small_settings, monkeypatch):
    made = []
    extra = solver.EXTRAS["content_loss"]
    monkeypatch.setitem(solver.EXTRAS, "content_loss", extra._replace(
        make=lambda cfg, machine: made.append(cfg.content_loss) or extra.make(cfg, machine)))
    phases = [*changing_phases(adversarial_weight=1e-2),
              changing_phases(content_loss="2 mse")[1]._replace(name="three")]
    solver.Trainer(small_settings, phases, progress=False)
    assert made == [small_settings.content_loss, "2 mse"]


@pytest.mark.parametrize("changes, message", [
    ({"adversarial_wieght": 1}, "'adversarial_wieght' cannot be changed in it .did you mean 'adversarial_weight'"),
    ({"crop": 32}, "phase 'two': 'crop' cannot be changed in it; its updates hang on content_loss, adv"),
    ({"discriminator_rate": -1}, "phase 'two': discriminator_rate must be a number above 0, not -1"),
    ({"content_loss": "mes"}, "phase 'two': content_loss must be 'mse', "),
])
def test_a_phase_can_only_change_what_its_updates_hang_on(small_settings, changes, message):
    with pytest.raises(ValueError, match=message):
        solver.Trainer(small_settings, changing_phases(**changes), progress=False)


def mute_epoch(generator, batches):
    for lr, _ in batches:
        generator.descend(generator(lr).mean())


def silent_epoch(batches):
    list(batches)
    yield {"loss": 0.0}


def wordy_epoch(generator, batches):
    for lr, _ in batches:
        yield {"loss": generator(lr)}


@pytest.mark.parametrize("phase, message", [
    (solver.Phase("warmup", l1_epoch, 1, 1e-3), "needs a name of its own"),
    (solver.Phase("GAN 2", l1_epoch, 1, 1e-3), "needs a name of its own"),
    (solver.Phase("2_mine", l1_epoch, 1, 1e-3), "needs a name of its own"),
    (solver.Phase("mine", lambda generators, batches: [], 1, 1e-3), "asks for 'generators'; it can have generator, "),
    (solver.Phase("mine", silent_epoch, 1, 1e-3), "yielded 1 times for 5 batches"),
    (solver.Phase("mine", mute_epoch, 1, 1e-3), "must yield its losses after each update"),
    (solver.Phase("mine", wordy_epoch, 1, 1e-3), "must yield a dictionary of losses"),
])
def test_a_phase_that_cannot_work_says_why(small_settings, phase, message):
    cfg = EasyDict(small_settings, warmup_epochs=0, adversarial_epochs=0)
    with pytest.raises(ValueError, match=message):
        solver.Trainer(cfg, phases=[*solver.default_phases(cfg), phase], progress=False).train()


def idle_epoch(generator, batches):
    for lr, _ in batches:
        yield {"mine": generator(lr).mean()}


def backward_epoch(generator, batches):
    for lr, _ in batches:
        loss = generator(lr).mean()
        loss.backward()
        yield {"mine": loss}


def tiny_epoch(generator, batches):
    for lr, hr in batches:
        loss = (generator(lr) - hr).square().mean()
        generator.descend(loss)
        yield {"mine": loss}


def own_optimizer_epoch(generator, batches):
    optimizer = torch.optim.SGD(generator.network.parameters(), lr=1e-3)
    for lr, hr in batches:
        loss = (generator(lr) - hr).square().mean()
        loss.backward()
        optimizer.step()
        yield {"mine": loss}


@pytest.mark.parametrize("epoch", [idle_epoch, backward_epoch])
def test_a_phase_that_trains_nothing_ends_and_says_so(small_settings, epoch):
    cfg = EasyDict(small_settings, warmup_epochs=0, adversarial_epochs=0)
    trainer = solver.Trainer(cfg, phases=[solver.Phase("mine", epoch, 3, 1e-3)], progress=False)
    with pytest.raises(ValueError, match="phase 'mine': its epoch function has made no update in a whole epoch"):
        trainer.train()
    assert trainer.history == []


@pytest.mark.parametrize("epoch, rate", [(tiny_epoch, 1e-30), (own_optimizer_epoch, 1e-3)])
def test_updates_are_counted_however_small_and_whoever_makes_them(small_settings, epoch, rate, capsys):
    cfg = EasyDict(small_settings, warmup_epochs=0, adversarial_epochs=0)
    assert len(solver.Trainer(cfg, phases=[solver.Phase("mine", epoch, 1, rate)]).train()) == 1
    assert "mine 1/1: mine " in capsys.readouterr().out


def mse_epoch(generator, batches, loss_function=F.mse_loss):
    for lr, hr in batches:
        loss = loss_function(generator(lr).float(), hr)
        generator.descend(loss)
        yield {"content_loss": loss}


@pytest.mark.parametrize("epochs, learning_rate, told", [
    (1e-4, 2, "its epochs must be a whole number, at least 0, not 0.0001; a phase is Phase.name, function, epochs"),
    (2.5, 1e-4, "its epochs must be"), ("2", 1e-4, "its epochs must be"), (-1, 1e-4, "its epochs must be"),
    (1, -1e-3, "its learning_rate must be a number above 0, not -0.001"), (1, "1e-4", "its learning_rate must be"),
    (1, float("nan"), "its learning_rate must be")])
def test_numbers_of_a_phase_are_checked(small_settings, epochs, learning_rate, told):
    with pytest.raises(ValueError, match=f"phase 'mine': {told}"):
        solver.Trainer(small_settings, [solver.Phase("mine", mse_epoch, epochs, learning_rate)], progress=False)


def test_an_epoch_function_that_is_none_is_refused(small_settings):
    class Mine:
        def __call__(self, generator, batches):
            yield from mse_epoch(generator, batches)

    with pytest.raises(ValueError, match="phases must be a list of"):
        solver.Trainer(small_settings, [solver.Phase("mine", Mine(), 1, 1e-4)], progress=False)


def test_numbers_of_numpy_can_be_saved_and_resumed(small_settings):
    def epoch(generator, batches):
        for number, losses in enumerate(mse_epoch(generator, batches)):
            for group in generator.optimizer.param_groups:
                group["lr"] = np.float64(1e-4) * np.cos(number)
            yield losses

    phases = [solver.Phase("mine", epoch, np.int64(1), np.geomspace(1e-4, 1e-2, 3)[1])]
    trained = solver.Trainer(small_settings, phases, progress=False).train()
    assert trained[0]["learning_rate"] == pytest.approx(1e-3) or trained[0]["learning_rate"] < 1e-3
    assert solver.Trainer(small_settings, phases, progress=False).history == trained


def test_a_default_that_is_a_function_is_the_same_in_the_next_process(small_settings):
    def phases():
        def loss_function(sr, hr):  # made anew, at another address
            return F.l1_loss(sr, hr)

        def epoch(generator, batches, loss_function=loss_function, both=(loss_function, 1)):
            return mse_epoch(generator, batches, loss_function)
        return [solver.Phase("mine", epoch, 1, 1e-4)]

    kept = phases()
    history = solver.Trainer(small_settings, kept, progress=False).train()
    assert solver.Trainer(small_settings, phases(), progress=False).history == history


@pytest.mark.parametrize("losses, told", [
    ([{"a": 1, "b": 2}, {"b": 3}], "in the updates before they were a, b"),
    ([{"a": 1}, {"b": 100}], "in the updates before they were a"),
    ([{"epoch": 1}], "'epoch' is another column of the history"), ([{"niqe": 1}], "'niqe' is another column")])
def test_losses_have_names_of_their_own_and_keep_them(small_settings, losses, told):
    def epoch(generator, batches):
        for number, _ in enumerate(mse_epoch(generator, batches)):
            yield losses[number % len(losses)]

    with pytest.raises(ValueError, match=f"the same single numbers each time, not .*{told}"):
        solver.Trainer(small_settings, [solver.Phase("mine", epoch, 1, 1e-4)], progress=False).train()


def test_losses_may_come_in_another_order(small_settings):
    def epoch(generator, batches):
        for number, _ in enumerate(mse_epoch(generator, batches)):
            yield {"one": 1, "two": 2} if number % 2 else {"two": 2, "one": 1}

    row, = solver.Trainer(small_settings, [solver.Phase("mine", epoch, 1, 1e-4)], progress=False).train()
    assert (row["one"], row["two"]) == (1, 2)
