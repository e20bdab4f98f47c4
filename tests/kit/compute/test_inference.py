"""A quick copy of any network, and its receptive field."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import models
import utils
from helpers import ROOT
from kit.compute.inference import receptive_field
from models import Generator


def test_the_receptive_field_is_how_far_a_pixel_acts():
    generator = Generator(4, channels=4, blocks=2, batch_norm=False).double().eval()
    radius = receptive_field(generator.float())
    generator.double()
    assert radius == 12  # 4 + 2·2 + 1 at full size, 1 + 1/2 in the upsampling, 4/4 at the end: 11.5
    for parameter in generator.parameters():
        nn.init.constant_(parameter, 0.1)  # nothing cancels
    lr = torch.rand(1, 3, 64, 1, dtype=torch.float64)
    changed = lr.clone()
    changed[0, 0, 32] += 1
    rows = (generator(lr) != generator(changed)).any(dim=1)[0, :, 0].nonzero().flatten() / 4
    assert 32 - rows.min() <= radius and rows.max() - 32 < radius + 1
    assert 32 - rows.min() > radius - 2


@pytest.mark.skipif(not hasattr(TorchDispatchMode, "_should_skip_dynamo"), reason="this PyTorch has no such switch")
def test_no_compiler_is_imported_to_find_it():
    """Which takes seconds, at the first picture that a program enlarges in tiles."""
    program = ("import sys, models\nfrom kit.compute.inference import receptive_field\n"
               "print(receptive_field(models.Generator(4, channels=4, blocks=1)), 'torch._dynamo' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["10", "False"], done.stderr


class Around(nn.Module):
    """Pixels from `distance` away, in one direction; scale 2."""

    def __init__(self, distance, axis):
        super().__init__()
        self.distance, self.axis = distance, axis
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, lr):
        padded = F.pad(lr, (0, self.distance, 0, 0) if self.axis == 3 else (0, 0, 0, self.distance))
        shifted = padded.narrow(self.axis, self.distance, lr.shape[self.axis])
        return F.interpolate(lr + self.weight * F.relu(shifted - 10), scale_factor=2)  # (mostly without an effect)


@pytest.mark.parametrize("distance", [1, 14, 40, 120])
@pytest.mark.parametrize("axis", [2, 3])
def test_how_far_a_pixel_acts_is_found_in_any_network(distance, axis):
    assert receptive_field(Around(distance, axis)) == distance


class UsesTheMiddle(nn.Module):
    """A convolution and a batch norm in a row, but what is between them is used, too: they must not become one."""

    def __init__(self):
        super().__init__()
        self.row = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12, affine=True))
        nn.init.uniform_(self.row[1].running_mean, -1, 1)

    def forward(self, lr):
        middle = self.row[0](lr)
        return F.pixel_shuffle(self.row[1](middle) + middle, 2)


def test_batch_norm_is_folded_only_where_nothing_changes_by_it(photograph):
    torch.manual_seed(0)
    network = UsesTheMiddle().eval()
    image = photograph[:20, :30]
    with torch.no_grad():
        plain = utils.to_uint8(network(utils.to_unit(utils.to_batch(image))))[0].permute(1, 2, 0).numpy()
    assert np.abs(utils.super_resolve(network, image, precision="fp32").astype(int) - plain).max() <= 1


def test_batch_norm_is_folded_away_without_a_trace(photograph):
    torch.manual_seed(2)
    trained = models.Generator(4, channels=8, blocks=2, first_norm=True)
    for module in trained.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values, least, most in [(module.running_mean, -1, 1), (module.running_var, 0.5, 2),
                                        (module.bias, -1, 1)]:
                torch.nn.init.uniform_(values, least, most)
    image = photograph[:40, :50]
    with torch.no_grad():
        plain = utils.to_uint8(trained.eval()(utils.to_unit(utils.to_batch(image))))[0].permute(1, 2, 0).numpy()
    exact = utils.super_resolve(trained, image, precision="fp32")
    assert np.abs(exact.astype(int) - plain).max() <= 1 and (exact == plain).mean() > 0.999
    rounded = utils.super_resolve(trained, image, precision="bf16")
    assert np.abs(rounded.astype(int) - plain).mean() < 1


class OnlyOnce(nn.Module):
    """Gives numbers at first and none later, or none in one memory layout."""

    def __init__(self, channels_last_fails):
        super().__init__()
        self.body, self.fails, self.calls = nn.Conv2d(3, 48, 3, padding=1), channels_last_fails, 0

    def forward(self, lr):
        self.calls += 1
        maps = self.body(lr)
        wrong = not maps.is_contiguous() if self.fails else self.calls > 1
        return F.pixel_shuffle(maps + (float("nan") if wrong else 0), 4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_that_gives_no_numbers_is_told_and_a_layout_alone_is_no_reason_for_a_note(precision, photograph):
    with pytest.raises(ValueError, match="enlarges on its own, but not on cpu .its output is no number"):
        utils.Enlarger(OnlyOnce(False), precision=precision)
    enlarge = utils.Enlarger(OnlyOnce(True), precision=precision)
    assert enlarge.note is None and enlarge(photograph[:8, :9]).shape == (32, 36, 3)
