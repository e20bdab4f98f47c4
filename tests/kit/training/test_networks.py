"""Networks in training: averages, rates, layers, other people's builds."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from easydict import EasyDict
from torch import nn
from warm import python

import create_data_lists
import own_models
import solver
import utils
from helpers import ROOT, changed, copy_kit, equal, save_generator, train, weights_of
from kit import evaluation, runs
from kit.compute.learner import Learner
from kit.evaluation.generators import load_generator
from kit.settings.schema import section


def test_the_discriminator_can_have_a_rate_of_its_own(small_settings):
    seen = []

    def epoch(generator, discriminator, batches):
        for lr, hr in batches:
            seen.append(discriminator.learning_rate / generator.learning_rate)
            generator.descend(generator(lr).mean() + discriminator(hr).mean())
            yield {"loss": 0.0}

    cfg = EasyDict(small_settings, discriminator_rate=4, updates_per_epoch=2)
    phase = solver.Phase("own", epoch, 1, 1e-3, "one_cycle")
    solver.Trainer(cfg, [phase], progress=False).train()
    assert seen == pytest.approx([4, 4])
    with pytest.raises(ValueError, match="discriminator_rate = 4, not 2"):  # what its epochs hang on
        solver.Trainer(EasyDict(cfg, discriminator_rate=2), [phase._replace(epochs=2)], progress=False)


def test_a_penalised_discriminator_has_layers_that_can_be_differentiated_twice(small_settings, monkeypatch):
    class PlainPReLU(torch.nn.PReLU):
        pass  # a class of one's own is never made quicker

    slopes = []
    for name, kind in dict(usual=torch.nn.PReLU, plain=PlainPReLU).items():
        monkeypatch.setattr("solver.make_discriminator", lambda cfg, kind=kind: torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), kind(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 1)))
        cfg = EasyDict(small_settings, name=name, gradient_penalty=10.0, warmup_epochs=0, adversarial_epochs=1,
                       updates_per_epoch=3, precision="fp32")
        slopes.append(train(cfg).discriminator[1].weight.item())
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-6) != 0.25


def test_another_run_can_start_from_its_weights(small_settings):
    first = train(small_settings, adversarial_epochs=0)
    start = str(first.run.folder / "checkpoints" / "warmup.pt")
    second = solver.Trainer(changed(small_settings, name="second", warmup_epochs=0, start_from=start), progress=False)
    assert equal(second.generator.state_dict(), first.generator.state_dict())
    assert len(second.train_adversarially()) == 2
    half = str(first.run.folder / "warmup.safetensors")
    save_generator(half, load_generator(start), **section(small_settings, "generator"))
    third = solver.Trainer(changed(small_settings, name="third", warmup_epochs=0, start_from=half), progress=False)
    for mine, wanted in zip(third.generator.parameters(), first.generator.parameters()):
        torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-6)


def test_a_start_from_that_does_not_fit_says_what_differs(small_settings):
    train(small_settings, adversarial_epochs=0)
    with pytest.raises(ValueError, match="was built with channels = 4, not 8, blocks = 1, not 2; make them equal"):
        solver.Trainer(changed(small_settings, name="other", channels=8, blocks=2, start_from=runs.checkpoints(
            "small", small_settings.runs)["warmup"]), progress=False)


def test_a_state_with_other_weights_is_told_by_the_first_of_them(small_settings):
    path = train(small_settings, adversarial_epochs=0).run.checkpoint("last")
    state = runs.load_checkpoint(path)
    state["generator"]["last.0.weight"] = torch.zeros(3, 4, 5, 5)
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"last.pt: cannot be resumed from \(last.0.weight is 3×4×5×5 in the file and "
                                         r"3×4×3×3 in the network\)"):
        solver.Trainer(small_settings, progress=False)


def test_the_average_follows_buffers_that_a_network_replaces(small_settings, monkeypatch):
    class Counting(torch.nn.Sequential):
        def __init__(self):
            super().__init__(torch.nn.Conv2d(3, 48, 3, padding=1), torch.nn.PixelShuffle(4))
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, lr):
            if self.training:
                self.seen = self.seen + 1
            return super().forward(lr)

    monkeypatch.setattr("solver.make_generator", lambda cfg: Counting())
    trainer = train(small_settings, ema_decay=0.5, adversarial_epochs=0)
    assert trainer.generator.seen - 2 < trainer.networks.average.seen < trainer.generator.seen


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
    kept = load_generator(trainer.run.folder / "checkpoints" / "warmup.pt")
    for name, value in kept.state_dict().items():
        torch.testing.assert_close(value, average[name])
    assert not equal(kept.state_dict(), trainer.generator.state_dict())
    score, = evaluation.evaluate(utils.Enlarger(kept), trainer.valid_set, progress=False)
    assert score["psnr"] == pytest.approx(trainer.history[-1]["psnr"])

    def without_gradients(self, loss):
        self.optimizer.zero_grad()
        self.optimizer.step()

    monkeypatch.setattr(Learner, "descend", without_gradients)  # the adversarial phase with updates that change nothing
    trainer.train_adversarially()
    after = load_generator(trainer.run.folder / "checkpoints" / "adversarial.pt").state_dict()
    assert equal(after, {name: kept.state_dict()[name] for name in after})


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_network_that_cannot_learn_is_refused(small_settings, monkeypatch, network):
    make = getattr(solver, f"make_{network}")
    monkeypatch.setattr(solver, f"make_{network}", lambda cfg: make(cfg).requires_grad_(False))
    with pytest.raises(ValueError, match=f"models.make_{network} builds has no weight that can learn"):
        solver.Trainer(small_settings, progress=False)


PROGRAM = """
import json, sys
from easydict import EasyDict
import solver
cfg = EasyDict(json.load(open(sys.argv[1])))
for cfg.name in sys.argv[2:]:
    trainer = solver.Trainer(cfg, progress=False)
    print("ready", flush=True)
    trainer.train()
"""


def settings_file(folder, small_settings, **changes):
    path = folder / "settings.json"
    path.write_text(json.dumps({**small_settings, **changes}), encoding="utf-8")
    return path


def test_networks_of_ones_own_train_resume_validate_enlarge_and_are_measured(small_settings, small_lists, photograph,
                                                                             tmp_path):
    """In a copy of the kit whose models.py is another, as a student would have it; killed once with kill -9."""
    kit = tmp_path / "kit"
    kit.mkdir()
    copy_kit(kit)
    shutil.copy(ROOT / "tests" / "own_models.py", kit / "models.py")
    settings = settings_file(tmp_path, small_settings, patches_per_picture=40, save_minutes=0.0005)
    command = ["-c", PROGRAM, settings]
    process = subprocess.Popen([sys.executable, *command, "demo"], cwd=kit, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    state = Path(small_settings.runs, "demo", "checkpoints", "last.pt")
    while not state.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert runs.load_checkpoint(state)["phase"] == "warmup"
    python(*command, "demo", "whole", cwd=kit).check_returncode()
    killed, whole = (runs.load_checkpoint(Path(small_settings.runs, name, "checkpoints", "last.pt"))
                     for name in ("demo", "whole"))
    for network in ("generator", "discriminator"):
        assert all(torch.equal(killed[network][name], value) for name, value in whole[network].items())
    assert "body.trunk.1.paths.far.weight" in killed["generator"] and len(killed["history"]) == 4
    assert all(np.isfinite(row["psnr"]) for row in killed["history"])

    # test.ipynb, cell by cell: the student's checkpoints are measured, the references of other networks left out
    (kit / "runs").symlink_to(small_settings.runs)
    create_data_lists.create_data_lists(None, {"demo_test": small_lists / "valid"}, kit / "data" / "lists",
                                        progress=False)
    cells = [cell for cell in json.loads((kit / "test.ipynb").read_text(encoding="utf-8"))["cells"]
             if cell["cell_type"] == "code"]
    program = "\n".join("".join(cell["source"]) for cell in cells)
    done = python("-c", program, cwd=kit)
    assert done.returncode == 0, done.stderr
    assert "reference SRResNet is left out" in done.stdout
    assert "do not fit your models.py with the settings in it" in done.stdout
    table = (kit / "results" / "table.txt").read_text(encoding="utf-8")
    assert [line.split("  ")[0] for line in table.splitlines()[2:]] == ["bicubic", "warmup", "warmup+", "adversarial",
                                                                       "original"]
    assert f"{killed['history'][-1]['psnr']:.2f}" in table

    # and enlarged in tiles
    generator = own_models.make_generator(small_settings)
    generator.load_state_dict(killed["generator"])
    image = np.ascontiguousarray(photograph[:70, :93])
    tiled, untiled = (utils.super_resolve(generator, image, tile=tile) for tile in (50, None))
    assert np.abs(tiled.astype(int) - untiled).max() <= 1


class OnlyPatches(nn.Module):
    """A generator that takes nothing but the patches of its training."""

    def __init__(self, in_training):
        super().__init__()
        self.body, self.in_training = nn.Conv2d(3, 48, 3, padding=1), in_training

    def forward(self, lr):
        if not self.training and self.in_training:
            return self.body(lr)
        sr = F.pixel_shuffle(self.body(lr), 4)
        return sr if self.in_training else sr.reshape(len(lr), 3, 32, 32)


@pytest.mark.parametrize("in_training, message", [(True, r"makes \(1, 48, 16, 16\) of \(1, 3, 16, 16\)"),
                                                  (False, "cannot enlarge a picture of 16×16")])
def test_a_generator_that_cannot_enlarge_is_refused_before_it_is_trained(small_settings, monkeypatch, in_training,
                                                                        message):
    monkeypatch.setattr(solver, "make_generator", lambda cfg: OnlyPatches(in_training))
    with pytest.raises(ValueError, match=message):
        solver.Trainer(small_settings, progress=False)


class Unpadded(nn.Module):
    """A residual block without padding."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())

    def forward(self, x):
        return x + self.body(x)


@pytest.mark.parametrize("layers, place", [
    ([nn.Conv2d(3, 4, 3, padding=1), Unpadded()], "in 1, a Unpadded, given 4×4×8×8: The size of tensor a"),
    ([nn.Conv2d(3, 6, 3, padding=1), nn.PixelShuffle(2)], r"in 1, a PixelShuffle\(upscale_factor=2\), given 4×6×8×8: "),
    ([nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(8, 48, 1), nn.PixelShuffle(4)],
     r"in 1, a Conv2d\(8, 48, kernel_size=\(1, 1\), stride=\(1, 1\)\), given 4×4×8×8: Given groups=1"),
])
def test_a_mistake_in_a_network_is_told_with_its_layer_and_sizes(small_settings, monkeypatch, layers, place):
    monkeypatch.setattr(solver, "make_generator", lambda cfg: nn.Sequential(*layers))
    with pytest.raises(ValueError, match=f"the generator cannot be trained on batches .*{place}") as caught:
        solver.Trainer(small_settings, progress=False)
    assert "\n" not in str(caught.value)
