"""Checkpoints of other programs, proven by equal outputs; what `formats/` holds is told in its README."""

import io
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import models
import solver
import utils
from helpers import changed, refused
from kit.evaluation import generators
from kit.evaluation.formats import weights_in
from kit.evaluation.generators import load_generator
from kit.runs import load_checkpoint
from kit.runs.checkpoints import read_checkpoint

FORMATS = Path(__file__).with_name("formats")
# File, and whether its program gives pictures in [0, 1].
PROGRAMS = {"leftthomas.pth": True, "leftthomas_2018.pth": True, "lornatang.pth.tar": True, "sgrvinod.pth.tar": False,
            "basicsr.pth": True, "tensorlayer.npz": False}


def proven(path, name):
    """Whether the generator of a file gives what the program's own code gave."""
    with np.load(FORMATS / f"{name.partition('.')[0]}_proof.npz") as proof:
        taken, given = torch.from_numpy(proof["input"]), proof["output"]
    with torch.inference_mode():
        mine = load_generator(path)(taken).numpy()
    return np.allclose((mine + 1) / 2 if PROGRAMS[name] else mine, given, atol=1e-5)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_s_file_gives_what_its_own_code_gave(name, photograph):
    assert proven(FORMATS / name, name)
    generator = load_generator(FORMATS / name)
    small = np.ascontiguousarray(photograph[:20, :24])
    assert utils.super_resolve(generator, small).shape[0] == 20 * utils.Enlarger(generator).scale


WRAPPED = {
    "bare": lambda weights: weights,
    "params": lambda weights: {"params": weights},
    "params_ema is better": lambda weights: {"params": {name: 0 * value for name, value in weights.items()},
                                             "params_ema": weights},
    "state_dict": lambda weights: {"epoch": 3, "state_dict": weights},
    "generator": lambda weights: {"generator": weights, "discriminator": {}},
    "model": lambda weights: {"model": weights, "note": "best"},
    "model in model": lambda weights: {"model": {"state_dict": weights}},
    "of DataParallel": lambda weights: {"state_dict": {f"module.{name}": value for name, value in weights.items()}},
    "compiled": lambda weights: {f"_orig_mod.{name}": value for name, value in weights.items()},
    "compiled, of DataParallel": lambda weights: {f"module._orig_mod.{name}": v for name, v in weights.items()},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_weights_are_found_wherever_they_stand(kind, tmp_path):
    weights = torch.load(FORMATS / "leftthomas.pth", weights_only=True)
    torch.save(WRAPPED[kind](weights), tmp_path / "a.pth")
    assert proven(tmp_path / "a.pth", "leftthomas.pth")


@pytest.mark.parametrize("name", ["leftthomas.pth", "lornatang.pth.tar", "sgrvinod.pth.tar", "tensorlayer.npz"])
def test_safetensors_have_their_names_in_another_order(name, tmp_path):
    weights = weights_in(read_checkpoint(FORMATS / name))
    save_file({name: weights[name].contiguous() for name in sorted(weights, reverse=True)}, tmp_path / "a.safetensors")
    assert proven(tmp_path / "a.safetensors", name)


def test_files_of_pytorch_before_1_6(tmp_path):
    weights = torch.load(FORMATS / "leftthomas.pth", weights_only=True)
    torch.save(weights, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert proven(tmp_path / "a.pth", "leftthomas.pth")


def test_names_that_lornatang_gave_at_first(tmp_path):
    weights = weights_in(torch.load(FORMATS / "lornatang.pth.tar", weights_only=True))
    older = {name.replace("conv1.", "conv_block1.").replace("conv2.", "conv_block2.").replace("conv3.", "conv_block3."):
             value for name, value in weights.items()}
    torch.save(older, tmp_path / "a.pth")
    assert proven(tmp_path / "a.pth", "lornatang.pth.tar")


class Backwards(nn.Module):
    """A student's generator, whose layers are made in another order than they are used in."""

    def __init__(self, cfg):
        super().__init__()
        inner = models.Generator(**{name: value for name, value in cfg.items()})
        self.d, self.c, self.b, self.a = inner.last, inner.upsample, inner.residual, inner.first

    def forward(self, lr):
        x = self.a(lr)
        return self.d(self.c(x + self.b(x)))


def test_a_student_s_network_may_make_its_layers_in_any_order(monkeypatch):
    monkeypatch.setattr(generators, "make_generator", Backwards)
    assert proven(FORMATS / "leftthomas.pth", "leftthomas.pth")


def test_a_network_with_other_layers_is_told_the_first_that_differs(monkeypatch):
    def refused_by(make, *words):
        monkeypatch.setattr(generators, "make_generator", make)
        refused(lambda: load_generator(FORMATS / "leftthomas.pth"), FORMATS, "leftthomas.pth: it is leftthomas/SRGAN's",
                *words)

    refused_by(lambda cfg: models.Generator(channels=4, blocks=2),
               "with 15 layers of convolution; your models.make_generator builds 9")
    refused_by(lambda cfg: models.Generator(channels=4, blocks=5, first_kernel=5),
               "in convolution 1, weight is 4×3×9×9 in the file and 4×3×5×5 in the network")


def test_a_student_s_network_may_hold_all_its_layers_in_one_module(tmp_path, monkeypatch):
    class Holder(nn.Module):
        def __init__(self, cfg=None):
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))

        def forward(self, lr):
            return self.net(lr)

    network = Holder()
    torch.save(nn.DataParallel(network).state_dict(), tmp_path / "mine.pth")  # (module.net.0.weight)
    monkeypatch.setattr(generators, "make_generator", Holder)
    assert torch.equal(load_generator(tmp_path / "mine.pth").net[0].weight, network.net[0].weight)


def test_other_networks_are_the_student_s_own(tmp_path, monkeypatch):
    """Any state dict that fits what `make_generator` builds; else the first key or shape that differs is named."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
    torch.save({"state_dict": network.state_dict()}, tmp_path / "mine.pth")
    monkeypatch.setattr(generators, "make_generator", lambda cfg: nn.Sequential(nn.Conv2d(3, 48, 3, padding=1),
                                                                                nn.PixelShuffle(4)))
    lr = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(load_generator(tmp_path / "mine.pth")(lr), network(lr))
    for make, words in [(lambda cfg: nn.Sequential(nn.Conv2d(3, 48, 5, padding=2)),
                         "0.weight is 48×3×3×3 in the file and 48×3×5×5 in the network"),
                        (lambda cfg: nn.Sequential(nn.Identity(), nn.Conv2d(3, 48, 3)),
                         "1.weight is missing, and 0.weight is there instead"),
                        (lambda cfg: nn.Sequential(nn.Conv2d(3, 48, 3, bias=False)),
                         "0.bias is in no layer of the network")]:
        monkeypatch.setattr(generators, "make_generator", make)
        refused(lambda: load_generator(tmp_path / "mine.pth"), tmp_path, "mine.pth", words)


def test_a_network_larger_than_its_weights_is_not_built(tmp_path, monkeypatch):
    content = read_checkpoint(FORMATS / "lornatang.pth.tar")
    weights = weights_in(content)
    name = next(name for name, value in weights.items() if value.dim() == 4)
    torch.save({**weights, name: torch.zeros(len(weights[name]), 3, 1, 61)}, tmp_path / "wide.pth")
    refused(lambda: load_generator(tmp_path / "wide.pth"), tmp_path, "wide.pth: it is Lornatang/SRGAN-PyTorch's, with",
            "values; your models.make_generator builds a network of")


class Payload:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("name, content, words", [
    ("a.pth", {"body.0.rdb1.conv1.weight": torch.zeros(4, 4, 3, 3)}, "it is the RRDBNet of ESRGAN and Real-ESRGAN"),
    ("a.pth", {"layers.0.residual_group.blocks.0.norm1.weight": torch.zeros(4)}, "it is a SwinIR"),
    ("a.pth", {"conv_after_body.weight": torch.zeros(4, 4, 3, 3)}, "it is an EDSR"),
    ("a.pth", {"block8.0.conv.weight": torch.zeros(4, 4, 3, 3)}, "it looks like leftthomas/SRGAN of 2018's, but its 1"),
    ("a.pth", {"upconv1.weight": torch.zeros(4, 4, 3, 3)}, "it looks like BasicSR's MSRResNet, but lacks 'conv_first"),
    ("a.pth", {"conv_first.weight": torch.zeros(10**6, 1), "upconv1.weight": torch.zeros(4 * 10**6, 1)},
     "it looks like BasicSR's MSRResNet, but conv_first.weight is 1000000×1 in the file"),
    ("a.pth", {"conv_first.weight": torch.zeros(1, 3, 3, 3), "upconv1.weight": torch.zeros(10_000, 1, 3, 3)},
     "it looks like BasicSR's MSRResNet, but enlarges ×100"),
    ("a.pth", {"block8.0\n.weight": torch.zeros(4, 4, 3, 3)}, "it looks like leftthomas/SRGAN of 2018's, but"),
    ("a.pth", {"block8.0.weight": torch.zeros(4, dtype=torch.complex64)}, "holds more than tensors"),
    ("a.pth", {"epoch": 3}, "holds no weights of a generator that the kit finds"),
    ("a.pth", {"state_dict": {"block8.0.weight": torch.tensor([float("nan")])}}, "values that are no numbers"),
])
def test_what_is_refused(name, content, words, tmp_path):
    torch.save(content, tmp_path / name)
    refused(lambda: load_generator(tmp_path / name), tmp_path, name, words)


def test_a_file_that_holds_itself_or_claims_more_than_it_brings(tmp_path):
    content = {"x": torch.zeros(1)}
    content["model"] = content
    torch.save(content, tmp_path / "loop.pth")
    refused(lambda: load_generator(tmp_path / "loop.pth"), tmp_path, "loop.pth", "holds no weights of a generator")
    torch.save({"block8.0.weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "wide.pth")
    refused(lambda: load_generator(tmp_path / "wide.pth"), tmp_path, "wide.pth", "block8.0.weight claims to have")
    np.savez_compressed(tmp_path / "bomb.npz", weight=np.zeros(10**7, np.float32))
    refused(lambda: load_generator(tmp_path / "bomb.npz"), tmp_path, "bomb.npz", "packed far tighter")


def test_pickled_modules_are_refused_in_all_formats(tmp_path, capsys):
    torch.save({"generator": nn.Conv2d(3, 3, 1)}, tmp_path / "module.pth")
    torch.save(Payload(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "objects.npz", params=np.array([Payload(), 1], dtype=object))
    for name in ("module.pth", "old.pth", "objects.npz"):
        refused(lambda name=name: load_generator(tmp_path / name), tmp_path, name, "loading it could run code",
                "state_dict() alone")
    with io.BytesIO() as file:  # what a pickle without PyTorch's mark would run
        pickle.dump(Payload(), file)
        (tmp_path / "plain.pth").write_bytes(file.getvalue())
    refused(lambda: load_generator(tmp_path / "plain.pth"), tmp_path, "plain.pth", "not a file that torch.save wrote")
    assert not capsys.readouterr().out


def test_a_run_starts_from_another_program_s_generator(small_settings):
    cfg = changed(small_settings, channels=4, blocks=2, batch_norm=True, first_kernel=9, last_kernel=9,
                  block_bias=False, start_from=str(FORMATS / "lornatang.pth.tar"))
    trainer = solver.Trainer(cfg, progress=False)
    with np.load(FORMATS / "lornatang_proof.npz") as proof, torch.inference_mode():
        mine = trainer.generator.eval()(torch.from_numpy(proof["input"]))
        assert np.allclose((mine + 1) / 2, proof["output"], atol=1e-5)
    for changes, words in [({"blocks": 3}, "lornatang.pth.tar: it was built with blocks = 2, not 3; make them equal"),
                           ({"start_from": str(FORMATS / "basicsr.pth")}, "it is BasicSR's MSRResNet, not an SRResNet"),
                           ({"start_from": str(FORMATS / "sgrvinod.pth.tar")}, "it was built with scale = 2, not 4")]:
        with pytest.raises(ValueError, match=re.escape(words)):
            solver.Trainer(changed(cfg, name="other", **changes), progress=False)


def test_load_checkpoint_takes_the_kit_s_own_alone():
    refused(lambda: load_checkpoint(FORMATS / "leftthomas.pth"), FORMATS, "not a checkpoint of this kit")
