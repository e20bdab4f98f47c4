"""What students write themselves: networks that the kit has never seen, and phases of their own."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import own_models
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, copy_kit, start
from easydict import EasyDict
from torch import nn

import checks
import create_data_lists
import evaluation
import inference
import machine
import plots
import runs
import solver
import trainer
import utils
from models import Generator

# ------------------------------------------------------------------------------------------- networks


def settings_file(folder, small_settings, **changes):
    path = folder / "settings.json"
    path.write_text(json.dumps({**small_settings, **changes}))
    return path


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


def test_networks_of_ones_own_train_resume_validate_enlarge_and_are_measured(small_settings, small_lists, photograph,
                                                                             tmp_path):
    """In a copy of the kit whose models.py is another, as a student would have it; killed once with kill -9."""
    kit = tmp_path / "kit"
    kit.mkdir()
    copy_kit(kit)
    shutil.copy(ROOT / "tests" / "own_models.py", kit / "models.py")
    settings = settings_file(tmp_path, small_settings, patches_per_picture=40, save_minutes=0.0005)
    command = [sys.executable, "-c", PROGRAM, settings]
    process = subprocess.Popen([*command, "demo"], cwd=kit, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    state = Path(small_settings.runs, "demo", "checkpoints", "last.pt")
    while not state.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert runs.load_checkpoint(state)["phase"] == "warmup"
    subprocess.run([*command, "demo", "whole"], cwd=kit, check=True, stdout=subprocess.DEVNULL)
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
    done = subprocess.run([sys.executable, "-c", program], cwd=kit, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "reference SRResNet is left out" in done.stdout
    assert "do not fit its settings and your models.py" in done.stdout
    table = (kit / "results" / "table.txt").read_text(encoding="utf-8")
    assert [line.split("  ")[0] for line in table.splitlines()[2:]] == ["bicubic", "warmup", "adversarial", "original"]
    assert f"{killed['history'][-1]['psnr']:.2f}" in table

    # and enlarged in tiles
    generator = own_models.make_generator(small_settings)
    generator.load_state_dict(killed["generator"])
    image = np.ascontiguousarray(photograph[:70, :93])
    tiled, untiled = (utils.super_resolve(generator, image, tile=tile) for tile in (50, None))
    assert np.abs(tiled.astype(int) - untiled).max() <= 1


class Around(nn.Module):
    """Pixels from `distance` away, in one direction; scale 2."""

    def __init__(self, distance, axis):
        super().__init__()
        self.distance, self.axis = distance, axis
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, low):
        padded = F.pad(low, (0, self.distance, 0, 0) if self.axis == 3 else (0, 0, 0, self.distance))
        shifted = padded.narrow(self.axis, self.distance, low.shape[self.axis])
        return F.interpolate(low + self.weight * F.relu(shifted - 10), scale_factor=2)  # (mostly without an effect)


class Whole(nn.Module):
    """Every pixel of the result depends on all of the picture."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, low):
        return F.interpolate(low * low.mean(dim=(2, 3), keepdim=True) * self.weight, scale_factor=2)


class Strided(nn.Module):
    """Goes down to half the size and back, so that odd and even places are treated differently."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 3, 3, 2, 1), nn.ConvTranspose2d(3, 3, 4, 2, 1)

    def forward(self, low):
        low = F.pad(low, (0, low.shape[3] % 2, 0, low.shape[2] % 2), mode="replicate")
        return F.interpolate(self.up(self.down(low)), scale_factor=2)[..., : 2 * low.shape[2], : 2 * low.shape[3]]


def test_reach_is_how_far_a_pixel_acts():
    generator = Generator(4, channels=4, blocks=2, batch_norm=False).double().eval()
    reach = inference.reach(generator.float())
    generator.double()
    assert reach == 12  # 4 + 2·2 + 1 at full size, 1 + 1/2 in the upsampling, 4/4 at the end: 11.5
    for parameter in generator.parameters():
        nn.init.constant_(parameter, 0.1)  # nothing cancels
    low = torch.rand(1, 3, 64, 1, dtype=torch.float64)
    changed = low.clone()
    changed[0, 0, 32] += 1
    rows = (generator(low) != generator(changed)).any(dim=1)[0, :, 0].nonzero().flatten() / 4
    assert 32 - rows.min() <= reach and rows.max() - 32 < reach + 1
    assert 32 - rows.min() > reach - 2


@pytest.mark.parametrize("distance", [1, 14, 40, 120])
@pytest.mark.parametrize("axis", [2, 3])
def test_how_far_a_pixel_acts_is_found_in_any_network(distance, axis):
    assert inference.reach(Around(distance, axis)) == distance


def test_where_it_cannot_be_known_tiles_are_refused_and_small_pictures_still_enlarged(photograph):
    with pytest.raises(ValueError, match="cannot enlarge in tiles: a pixel acts further than"):
        utils.super_resolve(Whole(), photograph[:40, :40], tile=30)
    with pytest.raises(ValueError, match="cannot enlarge in tiles: it does not treat all places"):
        utils.super_resolve(Strided(), photograph[:40, :40], tile=30)
    assert utils.super_resolve(Whole(), photograph[:40, :40]).shape == (80, 80, 3)


def test_a_network_that_does_not_enlarge_is_named(small_settings):
    with pytest.raises(ValueError, match=r"this Conv2d makes \(1, 5, 16, 16\) of \(1, 3, 16, 16\)"):
        utils.super_resolve(nn.Conv2d(3, 5, 1), np.zeros((8, 8, 3), np.uint8))


class UsesTheMiddle(nn.Module):
    """A convolution and a batch norm in a row, but what is between them is used, too: they must not become one."""

    def __init__(self):
        super().__init__()
        self.row = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12, affine=True))
        nn.init.uniform_(self.row[1].running_mean, -1, 1)

    def forward(self, low):
        middle = self.row[0](low)
        return F.pixel_shuffle(self.row[1](middle) + middle, 2)


def test_batch_norm_is_folded_only_where_nothing_changes_by_it(photograph):
    torch.manual_seed(0)
    network = UsesTheMiddle().eval()
    image = photograph[:20, :30]
    with torch.no_grad():
        plain = utils.to_uint8(network(utils.to_unit(utils.to_batch(image))))[0].permute(1, 2, 0).numpy()
    assert np.abs(utils.super_resolve(network, image, precision="fp32").astype(int) - plain).max() <= 1


def test_quick_layers_change_neither_names_nor_results():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.PReLU(), nn.PixelShuffle(2), nn.PReLU(8),
                            nn.Conv2d(8, 3, 9, padding=4))
    names, low = list(network.state_dict()), torch.rand(2, 3, 12, 14, requires_grad=True)
    plain = network(low)
    plain.square().sum().backward()
    wanted = [low.grad.clone(), *(p.grad.clone() for p in network.parameters())]
    low.grad = None
    network.zero_grad()
    machine.quicken(network)
    assert [type(m) for m in network] == [nn.Conv2d, machine.QuickPReLU, machine.QuickPixelShuffle, nn.PReLU,
                                          machine.ThinConv2d]
    assert list(network.state_dict()) == names
    torch.testing.assert_close(network(low), plain)
    network(low).square().sum().backward()
    for value, gradient in zip([low, *network.parameters()], wanted):
        torch.testing.assert_close(value.grad, gradient, rtol=1e-4, atol=1e-3)


def test_the_way_back_through_a_quick_shuffle_is_that_of_pytorch():
    low, gradient = torch.rand(2, 12, 4, 6).bfloat16().requires_grad_(), torch.rand(2, 3, 8, 12).bfloat16()
    for layer in (nn.PixelShuffle(2), machine.quicken(nn.Sequential(nn.PixelShuffle(2)))):
        layer(low).backward(gradient)
    assert type(layer[0]) is machine.QuickPixelShuffle
    torch.testing.assert_close(low.grad, 2 * torch.nn.functional.pixel_unshuffle(gradient, 2), rtol=0, atol=0)


def test_where_the_c_library_has_no_such_switch_memory_comes_and_goes_as_ever(monkeypatch):
    def missing(name):
        raise TypeError("there is none")

    monkeypatch.setattr("ctypes.CDLL", missing)
    with machine.Machine("cpu").tuned():
        pass


# --------------------------------------------------------------------------------------------- phases


def l1_epoch(generator, batches):
    for low, high in batches:
        loss = (generator(low).float() - high).abs().mean()
        generator.descend(loss)
        yield {"l1_loss": loss}


def hinge_epoch(generator, discriminator, batches, adversarial_weight, margin=1.0):
    for low, high in batches:
        fake = generator(low)
        real, judged = discriminator(high, fake.detach())
        d_loss = F.relu(margin - real.float()).mean() + F.relu(margin + judged.float()).mean()
        discriminator.descend(d_loss)
        with discriminator.frozen():
            g_loss = adversarial_weight * -discriminator(fake).float().mean() + solver.mse_loss(fake, high)
        generator.descend(g_loss)
        yield {"generator_loss": g_loss, "hinge_loss": d_loss}


def own_phases(cfg):
    return [*solver.phases(cfg), solver.Phase("finetuning", l1_epoch, 3, 1e-3, "one_cycle"),
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
    methods = evaluation.methods({"mine": evaluation.load_generator(trainer.run.checkpoint("hinge"))})
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
    assert "the warmup of this run is over; its finetuning has begun" in capsys.readouterr().out
    again = solver.Trainer(cfg)  # without one's own phases: nothing is lost, and what is there is said
    assert len(again.train_adversarially()) == 5
    assert "the adversarial of this run is over; its finetuning has begun" in capsys.readouterr().out


def silent_epoch(batches):
    list(batches)
    yield {"loss": 0.0}


def mute_epoch(generator, batches):
    for low, _ in batches:
        generator.descend(generator(low).mean())


def idle_epoch(generator, batches):
    for low, _ in batches:
        yield {"mine": generator(low).mean()}


def wordy_epoch(generator, batches):
    for low, _ in batches:
        yield {"loss": generator(low)}


@pytest.mark.parametrize("phase, message", [
    (solver.Phase("warmup", l1_epoch, 1, 1e-3), "needs a name of its own"),
    (solver.Phase("GAN 2", l1_epoch, 1, 1e-3), "needs a name of its own"),
    (solver.Phase("mine_2", l1_epoch, 1, 1e-3), "needs a name of its own"),
    (solver.Phase("mine", l1_epoch, 1, 1e-3, "cosine"), "its schedule must be 'constant' or 'step'"),
    (solver.Phase("mine", lambda generators, batches: [], 1, 1e-3), "asks for 'generators'; it can have generator, "),
    (solver.Phase("mine", silent_epoch, 1, 1e-3), "yielded 1 times for 5 batches"),
    (solver.Phase("mine", mute_epoch, 1, 1e-3), "must yield its losses after each update"),
    (solver.Phase("mine", wordy_epoch, 1, 1e-3), "must yield a dictionary of losses"),
])
def test_a_phase_that_cannot_work_says_why(small_settings, phase, message):
    cfg = EasyDict(small_settings, warmup_epochs=0, adversarial_epochs=0)
    with pytest.raises(ValueError, match=message):
        solver.Trainer(cfg, phases=[*solver.phases(cfg), phase], progress=False).train()


def test_an_epoch_that_trains_nothing_is_noticed_and_any_loss_is_shown(small_settings, capsys):
    cfg = EasyDict(small_settings, warmup_epochs=0, adversarial_epochs=0)
    solver.Trainer(cfg, phases=[solver.Phase("mine", idle_epoch, 1, 1e-3)]).train()
    printed = capsys.readouterr().out
    assert "no weight has changed in this epoch of phase 'mine': does its epoch function call" in printed
    assert "mine 1/1: mine " in printed


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_network_that_cannot_learn_is_refused(small_settings, monkeypatch, network):
    module = trainer if network == "generator" else checks
    make = getattr(module, f"make_{network}")
    monkeypatch.setattr(module, f"make_{network}", lambda cfg: make(cfg).requires_grad_(False))
    with pytest.raises(ValueError, match=f"models.make_{network} builds has no weight that can learn"):
        solver.Trainer(small_settings, progress=False)
