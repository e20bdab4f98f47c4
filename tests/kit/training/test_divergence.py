"""Training that diverges."""

import pytest
import torch

import solver
from helpers import changed, equal, last, train, weights, weights_of
from kit.compute.learner import Learner
from kit.training import validation


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


def test_weights_that_explode_in_the_last_update_are_not_saved(small_settings, monkeypatch):
    made = solver.Trainer(changed(small_settings, adversarial_epochs=0), progress=False)
    descend, updates = Learner.descend, []

    def exploding(self, loss):
        descend(self, loss)
        updates.append(1)
        if len(updates) == 10:  # the last of the second epoch
            with torch.no_grad():
                next(self.network.parameters()).fill_(1e30)

    monkeypatch.setattr(Learner, "descend", exploding)
    with pytest.raises(FloatingPointError, match="a weight of Generator of warmup epoch 2 is no longer a number"):
        made.train()
    assert all(value.abs().max() < 1e3 for value in weights(made.run.checkpoint("last")).values())


def test_an_explosion_without_infinity_is_noticed_and_taken_back(small_settings, monkeypatch):
    cfg = changed(small_settings, adversarial_epochs=0)
    begun = train(cfg, warmup_epochs=1)
    good, bad = weights(last(cfg)), begun.history[-1]["psnr"] - 11
    monkeypatch.setattr(validation, "evaluate", lambda *rest, **options: [{"psnr": bad, "ssim": 0.1}])
    with pytest.raises(FloatingPointError, match=f"ended at {bad:.1f} dB.*put back.*Lower warmup_lr.*'small_2'"):
        train(cfg)
    assert equal(weights(last(cfg)), good)
    monkeypatch.undo()
    assert len(train(cfg).history) == 2


def test_a_second_call_after_weights_that_are_no_numbers_keeps_nothing_either(small_settings):
    """As when a cell is run again: the losses are fine, and the weights of the last update are not."""
    def breaking_epoch(generator, batches):
        for number, (lr, hr) in enumerate(batches):
            loss = (generator(lr).float() - hr).square().mean()
            generator.descend(loss)
            if number == 4:
                with torch.no_grad():
                    next(generator.network.parameters()).fill_(float("nan"))
            yield {"content_loss": loss}

    trainer = solver.Trainer(small_settings, [solver.Phase("mine", breaking_epoch, 2, 1e-3)], progress=False)
    for _ in range(3):
        with pytest.raises(FloatingPointError, match="a weight of Generator of mine epoch 1 is no longer a number"):
            trainer.train()
    assert not trainer.history and not list(trainer.run.folder.glob("checkpoints/mine*.pt"))


def test_a_flat_picture_among_those_of_validation_cannot_decide_alone(small_settings, monkeypatch):
    """Of one colour, it is nearly perfect after the warm-up, and then no longer: no divergence."""
    psnrs = iter([[26.0, 97.0], [25.0, 24.0], [26.0, 80.0], [12.0, 13.0]])
    monkeypatch.setattr(validation, "evaluate",
                        lambda *rest, **options: [{"psnr": psnr, "ssim": 0.5} for psnr in next(psnrs)])
    trainer = solver.Trainer(small_settings, progress=False)
    with pytest.raises(FloatingPointError, match="adversarial epoch 2 ended at 12.5 dB, after 61.5 dB before"):
        trainer.train()
    assert [row["psnr"] for row in trainer.history] == [61.5, 24.5, 53.0]
    assert solver.Trainer(small_settings, progress=False).state.best == [26.0, 97.0]


def test_easy_pictures_that_all_fall_are_a_divergence_and_flat_ones_alone_never(small_settings, monkeypatch):
    psnrs = iter([[42.0] * 4, [41.0, 43.0, 29.0, 30.0], [25.0] * 4])
    monkeypatch.setattr(validation, "evaluate",
                        lambda *rest, **options: [{"psnr": psnr, "ssim": 0.5} for psnr in next(psnrs)])
    trainer = solver.Trainer(small_settings, progress=False)
    with pytest.raises(FloatingPointError, match="adversarial epoch 1 ended at 25.0 dB, after 42.0 dB before"):
        trainer.train()
    monkeypatch.setattr(validation, "evaluate", lambda *rest, **options: [{"psnr": next(values), "ssim": 0.5}])
    values = iter([60.0, 41.0, 23.5, 20.0])
    monkeypatch.setattr(validation, "FLAT", 255)  # as if the picture had one colour
    assert len(train(small_settings, name="flat").history) == 4
