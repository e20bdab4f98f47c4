"""Networks of other builds are trained, stopped, resumed bit for bit, validated, kept, measured and enlarge."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import solver
import utils
from helpers import changed, equal, interrupted, train, weights
from kit import evaluation
from kit.compute.device import layout_for
from kit.compute.inference import receptive_field
from kit.evaluation.generators import load_generator, load_generators
from other_networks import GENERATORS, Flattens, UNet


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")  # (public code has it)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("build", GENERATORS)
def test_a_network_of_another_build_goes_all_the_way(small_settings, monkeypatch, photograph, build, precision):
    monkeypatch.setattr(solver, "make_generator", lambda cfg: GENERATORS[build]())
    monkeypatch.setattr(solver, "make_discriminator", lambda cfg: Flattens(cfg.crop))
    monkeypatch.setattr("kit.evaluation.generators.make_generator", lambda cfg: GENERATORS[build]())
    cfg = changed(small_settings, precision=precision, ema_decay=0.5)
    whole = train(cfg, name="whole")
    resumed = interrupted(cfg, monkeypatch, 8)
    assert equal(weights(resumed.run.folder), weights(whole.run.folder)) and len(resumed.history) == 4
    checkpoint = resumed.run.checkpoint("adversarial")
    methods = evaluation.methods(load_generators({"mine": checkpoint}, device="cpu"), precision=precision)
    scores = evaluation.score_sets(methods, [cfg.valid_list], progress=False)
    assert scores[-1]["psnr"] == pytest.approx(resumed.history[-1]["psnr"])
    picture = np.ascontiguousarray(photograph[:30, :45])  # no multiple of anything
    exact = utils.super_resolve(load_generator(checkpoint), picture, precision="fp32")
    assert exact.shape == (120, 180, 3)
    rounded = utils.super_resolve(load_generator(checkpoint), picture, precision="bf16")
    assert np.abs(exact.astype(int) - rounded).mean() < 3


def test_a_network_that_asks_for_multiples_of_a_size_gets_pictures_padded(photograph):
    torch.manual_seed(0)
    enlarge = utils.Enlarger(UNet(), precision="fp32")
    assert enlarge.network.pad_to == 4
    picture = np.ascontiguousarray(photograph[:30, :45])
    padded = np.pad(picture, ((0, 2), (0, 3), (0, 0)), mode="edge")
    assert (enlarge(picture) == enlarge(padded)[:120, :180]).all()


def test_the_layout_goes_back_to_the_usual_one_with_a_sentence(small_settings, monkeypatch, capsys):
    monkeypatch.setattr(solver, "make_discriminator", lambda cfg: Flattens(cfg.crop))
    trainer = solver.Trainer(small_settings)
    if layout_for("cpu") != torch.contiguous_format:
        assert "the discriminator cannot be trained as is quickest here (in Flattens, given 4×3×32×32: view size" \
               in capsys.readouterr().out
    assert trainer.machine.layout == torch.contiguous_format
    assert trainer.generator(torch.rand(1, 3, 8, 8)).is_contiguous()


class NeedsFp32(nn.Module):
    """Multiplies by a matrix of its own, which neither bf16 nor autocast turns into another format."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 48, 3, padding=1)

    def forward(self, lr):
        maps = self.body(lr)
        with torch.autocast(lr.device.type, enabled=False):
            maps = torch.einsum("nchw,dc->ndhw", maps, torch.eye(48, device=lr.device))
        return nn.functional.pixel_shuffle(maps, 4)


def test_a_network_that_needs_fp32_gets_it_if_nothing_else_was_asked_for(small_settings, monkeypatch, photograph):
    monkeypatch.setattr(solver, "make_generator", lambda cfg: NeedsFp32())
    with pytest.raises(ValueError, match="the generator cannot be trained.*change .*its precision = 'fp32'"):
        solver.Trainer(changed(small_settings, precision="bf16"), progress=False)
    trainer = train(small_settings)
    assert trainer.machine.precision == "fp32" and len(trainer.history) == 4
    enlarge = utils.Enlarger(NeedsFp32(), precision="bf16")
    assert "does not compute in bf16 throughout" in enlarge.note and enlarge.note.endswith("in fp32")
    assert enlarge(photograph[:20, :20]).shape == (80, 80, 3)


def test_validation_computes_in_the_precision_of_the_settings(small_settings, monkeypatch):
    seen = []
    init = utils.Enlarger.__init__

    def watched(self, generator, **options):
        seen.append(options["precision"])
        init(self, generator, **options)

    monkeypatch.setattr(utils.Enlarger, "__init__", watched)
    train(changed(small_settings, precision="fp32", adversarial_epochs=0))
    assert set(seen) == {"fp32"}


class Fixed(nn.Module):
    """Takes pictures of one size only: it knows a number for each of their places."""

    def __init__(self):
        super().__init__()
        self.body, self.places = nn.Conv2d(3, 48, 3, padding=1), nn.Parameter(torch.zeros(48, 8, 8))

    def forward(self, lr):
        return nn.functional.pixel_shuffle(self.body(lr) + self.places, 4)


def test_a_network_that_takes_one_size_only_is_refused_before_it_is_trained(small_settings, monkeypatch):
    monkeypatch.setattr(solver, "make_generator", lambda cfg: Fixed())
    with pytest.raises(ValueError, match="the generator cannot enlarge a picture of 16×16"):
        solver.Trainer(small_settings, progress=False)
    assert not Path(small_settings.runs).exists()


class Small(nn.Module):
    """Refuses pictures wider than 12, as a table of positions may."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 48, 3, padding=1)

    def forward(self, lr):
        assert max(lr.shape[2:]) <= 12, "too wide for me"
        return nn.functional.pixel_shuffle(self.body(lr), 4)


def test_the_first_validation_picture_is_tried_before_training(small_settings, monkeypatch):
    monkeypatch.setattr(solver, "make_generator", lambda cfg: Small())
    with pytest.raises(ValueError, match=r"cannot enlarge a picture of 16×12 \(too wide for me\)"):
        solver.Trainer(small_settings, progress=False)


class Deep(nn.Module):
    """Three-dimensional weights, a mask with infinities, an average of its own, and a way of its own to be loaded."""

    def __init__(self):
        super().__init__()
        self.head, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv3d(1, 1, 3, padding=1)
        self.tail = nn.Conv2d(8, 48, 3, padding=1)
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))
        self.scale = nn.Parameter(torch.FloatTensor([1.0]))
        self.kept = []

    def load_state_dict(self, state, strict=True):
        raise RuntimeError("only my own weights")

    def forward(self, lr):
        x = self.head(lr)
        self.kept = [x]  # results that hang on gradients cannot be copied deeply
        share = torch.softmax(self.mask, 0)[0]
        return nn.functional.pixel_shuffle(self.tail(x + share * self.scale * self.deep(x[:, None])[:, 0]), 4)


class Random(nn.Module):
    """Drops at random, by Python's and NumPy's random numbers."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 48, 3, padding=1)
        nn.init.constant_(self.body.bias, random.random())

    def forward(self, lr):
        keep = random.random() + np.random.rand() if self.training else 1
        return nn.functional.pixel_shuffle(self.body(keep * lr), 4)


@pytest.mark.parametrize("build", [Deep, Random])
@pytest.mark.parametrize("ema_decay", [0, 0.5])
def test_a_network_with_habits_of_its_own_resumes_and_is_measured(small_settings, monkeypatch, build, ema_decay):
    monkeypatch.setattr(solver, "make_generator", lambda cfg: build())
    monkeypatch.setattr("kit.evaluation.generators.make_generator", lambda cfg: build())
    cfg = changed(small_settings, ema_decay=ema_decay, precision="fp32")
    whole = train(cfg, name="whole")
    resumed = interrupted(cfg, monkeypatch, 8)
    assert equal(weights(resumed.run.folder), weights(whole.run.folder))
    loaded = load_generator(resumed.run.checkpoint("adversarial"))
    assert utils.super_resolve(loaded, np.zeros((9, 7, 3), np.uint8)).shape == (36, 28, 3)


@pytest.mark.parametrize("odd, message", [
    (lambda: torch.jit.script(nn.Conv2d(3, 48, 3, padding=1)), "the generator has parts in TorchScript"),
    (lambda: nn.Sequential(nn.LazyConv2d(48, 3, padding=1), nn.PixelShuffle(4)), "do not know their sizes yet"),
    (lambda: nn.ParameterList([torch.zeros(2, dtype=torch.complex64)]), "has complex weights, which are not kept here"),
    (lambda: "a generator", "models.make_generator must give a torch.nn.Module, not str"),
])
def test_what_cannot_be_trained_or_kept_is_refused_in_a_sentence(small_settings, monkeypatch, odd, message):
    monkeypatch.setattr(solver, "make_generator", lambda cfg: odd())
    with pytest.raises(ValueError, match=message):
        solver.Trainer(small_settings, progress=False)


class Late(nn.Module):
    """Makes a buffer in its forward pass, so that a saved state has more than a new network."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 48, 3, padding=1)

    def forward(self, lr):
        self.register_buffer("grid", torch.zeros(2))
        return nn.functional.pixel_shuffle(self.body(lr), 4)


def test_a_state_that_could_not_be_loaded_is_noticed_before_training(small_settings, monkeypatch):
    monkeypatch.setattr(solver, "make_generator", lambda cfg: Late())
    with pytest.raises(ValueError, match="makes or changes grid in its forward pass: a run could not be resumed"):
        solver.Trainer(small_settings, progress=False)


class Fours(nn.Module):
    """A discriminator that compares pictures four by four, and gives more than logits if asked to."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 1, 3)

    def forward(self, pictures, features=False):
        maps = self.body(pictures)
        spread = maps.view(4, -1, *maps.shape[1:]).std(0).mean()
        return (maps.mean((1, 2, 3)) + spread, [maps]) if features else maps.mean((1, 2, 3)) + spread


def test_a_discriminator_for_batches_of_a_size_that_gives_more_if_asked(small_settings, monkeypatch):
    def epoch(generator, discriminator, batches):
        assert len(batches) == 5
        for lr, hr in batches:
            logits, (maps,) = discriminator(hr, features=True)
            discriminator.descend(logits.mean() + maps.square().mean())
            loss = solver.mse_loss(generator(lr), hr)
            generator.descend(loss)
            yield {"loss": loss}

    monkeypatch.setattr(solver, "make_discriminator", lambda cfg: Fours())
    phases = [solver.Phase("mine", epoch, 1, 1e-3)]
    assert len(solver.Trainer(changed(small_settings, channels_last=False), phases, progress=False).train()) == 1


def test_a_deformable_convolution_is_not_probed_with_nan():
    from torchvision.ops import DeformConv2d

    class Deformed(nn.Module):
        def __init__(self):
            super().__init__()
            self.offset, self.body = nn.Conv2d(3, 18, 3, padding=1), DeformConv2d(3, 48, 3, padding=1)

        def forward(self, lr):
            return nn.functional.pixel_shuffle(self.body(lr, self.offset(lr)), 4)

    with pytest.raises(ValueError, match="cannot enlarge in tiles"):
        receptive_field(Deformed())
