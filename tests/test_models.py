"""The networks of models.py, layer by layer: how far they are, and whether they are the paper's.

Tests marked `paper` hold the networks against the paper's figure 4; the others ask what any network must be able to do.
"""

import pytest
import torch
from torch import nn

import models
import solver
from kit import plots

BLOCK = getattr(models, "ResidualBlock", None)  # networks of one's own may do without
block = pytest.mark.skipif(BLOCK is None, reason="models.py has no class ResidualBlock")


def settings(recipe="paper", **changes):
    return solver.settings(recipe, **changes)


def count(network):
    return sum(p.numel() for p in network.parameters())


def residual_block(channels=8):
    return BLOCK(channels, lambda n: [nn.BatchNorm2d(n)], lambda n: nn.PReLU())


# ---------------------------------------------------------------------------------- the residual block


@block
def test_a_residual_block_keeps_the_size():
    assert residual_block()(torch.rand(2, 8, 5, 7)).shape == (2, 8, 5, 7)


@block
def test_a_residual_block_adds_its_input():
    network, x = residual_block().eval(), torch.rand(2, 8, 5, 7)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)  # then it has nothing to add to it
    torch.testing.assert_close(network(x), x)


@block
@pytest.mark.paper
def test_a_residual_block_is_that_of_figure_4():
    layers = [row[1] for row in plots.layer_table(residual_block(64), 64, 24, 24).cells[1:-1]]
    assert layers == ["conv k3n64s1", "BatchNorm2d", "PReLU", "conv k3n64s1", "BatchNorm2d"]


# --------------------------------------------------------------------------------------- the generator


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_generator_enlarges_any_size(scale):
    generator = models.make_generator(settings(scale=scale, channels=4, blocks=2)).eval()
    assert generator(torch.rand(2, 3, 7, 11)).shape == (2, 3, 7 * scale, 11 * scale)


@pytest.mark.parametrize("recipe", ["demo", "paper"])
def test_every_parameter_of_the_generator_learns(recipe):
    generator = models.make_generator(settings(recipe, blocks=2))
    generator(torch.rand(2, 3, 12, 12)).square().sum().backward()
    idle = [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    # (a bias before batch norm is taken away again by it)
    assert not [name for name in idle if not name.endswith("bias")], f"no gradient reaches {', '.join(idle)}"


def test_the_generator_makes_values_on_both_sides_of_zero():
    fakes = []
    for seed in range(12):  # one alone may happen to lie on one side
        torch.manual_seed(seed)
        fakes.append(models.make_generator(settings("demo")).eval()(torch.rand(1, 3, 24, 24)))
    assert min(sr.min() for sr in fakes) < 0 < max(sr.max() for sr in fakes), "it is trained towards [-1, 1]"


@pytest.mark.paper
def test_the_generator_has_as_many_parameters_as_in_the_paper():
    assert count(models.make_generator(settings())) == 1_549_462


@pytest.mark.paper
def test_the_generator_is_figure_4_layer_by_layer():
    text = plots.layer_table(models.make_generator(settings()), 3, 24, 24)
    layers = [row[1] for row in text.cells[1:-1]]
    block = ["conv k3n64s1", "BatchNorm2d", "PReLU", "conv k3n64s1", "BatchNorm2d"]
    stage = ["conv k3n256s1", "PixelShuffle", "PReLU"]
    assert layers == ["conv k9n64s1", "PReLU", *block * 16, "conv k3n64s1", "BatchNorm2d", *stage * 2, "conv k9n3s1"]
    assert text.splitlines()[-1].split() == ["total", "1,549,462"]


@pytest.mark.paper
def test_the_generator_follows_its_settings():
    generator = models.make_generator(settings("demo", channels=32, blocks=8))
    convolutions = [m for m in generator.modules() if isinstance(m, nn.Conv2d)]
    assert not [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {m.out_channels for m in convolutions[:-1]} == {32, 128} and len(convolutions) == 1 + 2 * 8 + 1 + 2 + 1
    assert convolutions[0].kernel_size == convolutions[-1].kernel_size == (3, 3)


# ----------------------------------------------------------------------------------- the discriminator


@pytest.mark.parametrize("recipe, crop", [("paper", 96), ("demo", 48), ("demo", 32)])
def test_the_discriminator_judges_every_picture_of_a_batch(recipe, crop):
    discriminator = models.make_discriminator(settings(recipe, crop=crop))
    assert len(discriminator(torch.rand(3, 3, crop, crop) * 2 - 1)) == 3


def test_the_discriminator_gives_logits_and_no_probabilities():
    lowest = []
    for seed in range(12):
        torch.manual_seed(seed)
        discriminator = models.make_discriminator(settings("demo", crop=32))
        lowest.append(discriminator(torch.rand(4, 3, 32, 32) * 2 - 1).min().item())
    assert min(lowest) < 0, "a sigmoid at its end? The loss has it already"


def test_every_parameter_of_the_discriminator_learns():
    discriminator = models.make_discriminator(settings("demo", crop=32))
    discriminator(torch.rand(4, 3, 32, 32) * 2 - 1).square().sum().backward()
    idle = [name for name, p in discriminator.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in idle if not name.endswith("bias")], f"no gradient reaches {', '.join(idle)}"


@pytest.mark.paper
def test_the_discriminator_has_as_many_parameters_as_in_the_paper():
    assert count(models.make_discriminator(settings())) == 23_565_505


@pytest.mark.paper
def test_the_discriminator_is_figure_4_layer_by_layer():
    network = models.make_discriminator(settings())
    convolutions = [(m.out_channels, m.stride[0]) for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions == [(64, 1), (64, 2), (128, 1), (128, 2), (256, 1), (256, 2), (512, 1), (512, 2)]
    assert {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}
    assert network(torch.rand(2, 3, 96, 96)).shape == (2, 1)


# -------------------------------------------------------------------------------------- what is refused


@pytest.mark.paper
@pytest.mark.parametrize("make, message", [
    (lambda: models.Generator(3), "scale must be 2, 4 or 8"),
    (lambda: models.Generator(channels=0), "channels"),
    (lambda: models.Generator(blocks=-1), "blocks"),
    (lambda: models.Discriminator(100), "multiple of 16"),
])
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
