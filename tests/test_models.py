"""The networks of models.py, layer by layer: what they must be able to do, and whether they are the paper's.

Tests marked `paper` hold the networks against the paper, its figure 4 and this kit's settings: the check of a hand-in
tells what they find as a note. The others ask what the assignment needs of any network.
"""

import inspect

import pytest
import torch
from torch import nn

import models
import solver
from kit import plots
from kit.language import tr
from kit.training.checks import place_told

CROPS = [96, 48, 32]


def settings(recipe="paper", **changes):
    return solver.settings(recipe, **changes)


def count(network):
    return sum(p.numel() for p in network.parameters())


def parameters_of(name):
    return list(inspect.signature(getattr(models, name)).parameters) if hasattr(models, name) else []


def given(network, *inputs):
    """What a network gives; where it fails, the error names the layer, and what that was given."""
    with place_told(network):
        return network(*inputs)


def in_words(shape):
    return "×".join(map(str, shape))


def same_layers(found, wanted):
    """Compare layers one after the other; says which is the first that differs, and how."""
    found = [layer for layer in found if layer not in ("Identity", "Flatten")]  # which compute nothing
    for number, (mine, papers) in enumerate(zip(found, wanted), 1):
        assert mine == papers, tr("layer {number} is {mine}, and in figure 4 it is {papers}", number=number,
                                  mine=mine, papers=papers)
    more, fewer = found[len(wanted):], wanted[len(found):]
    assert not more, tr("behind the {count} layers of figure 4 there are {more} more: {names}", count=len(wanted),
                        more=len(more), names=", ".join(more[:3]))
    assert not fewer, tr("the last {count} layers of figure 4 are not there: {names}", count=len(fewer),
                         names=", ".join(fewer[:3]))


# ---------------------------------------------------------------------------------- the residual block


def residual_block(channels=8):
    """A residual block as the kit makes it; the test is skipped where somebody's is made in another way."""
    if parameters_of("ResidualBlock")[:3] != ["channels", "norm", "activation"]:
        pytest.skip(tr("models.py has no class ResidualBlock, or one that is made in another way"))
    return models.ResidualBlock(channels, lambda n: [nn.BatchNorm2d(n)], lambda n: nn.PReLU())


@pytest.mark.paper
def test_a_residual_block_keeps_the_size():
    shape = given(residual_block(), torch.rand(2, 8, 5, 7)).shape
    assert shape[1] == 8, tr("your residual block gives {count} maps, and 8 came in", count=shape[1])
    assert shape == (2, 8, 5, 7), tr("your residual block makes {size} of 5×7 pixels", size=in_words(shape[2:]))


@pytest.mark.paper
def test_a_residual_block_adds_its_input():
    network, x = residual_block().eval(), torch.rand(2, 8, 5, 7)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)  # then it has nothing to add to it
    same = torch.allclose(given(network, x), x)
    assert same, tr("with all its weights 0 your residual block should give back what came in, and does not")


@pytest.mark.paper
def test_a_residual_block_is_that_of_figure_4():
    layers = [row[1] for row in plots.layer_table(residual_block(64), 64, 24, 24).cells[1:-1]]
    same_layers(layers, ["conv k3n64s1", "BatchNorm2d", "PReLU", "conv k3n64s1", "BatchNorm2d"])


# --------------------------------------------------------------------------------------- the generator


def enlarged(scale, height, width):
    network = models.make_generator(settings(scale=scale, channels=4, blocks=2)).eval()
    sr = given(network, torch.rand(2, 3, height, width))
    wanted = (2, 3, height * scale, width * scale)
    assert sr.shape == wanted, tr("with the setting scale={scale} your generator makes {made} of {given}, not {wanted}",
                                  scale=scale, made=in_words(sr.shape[1:]), given=in_words((3, height, width)),
                                  wanted=in_words(wanted[1:]))


def test_the_generator_enlarges_by_4():
    enlarged(4, 24, 24)


@pytest.mark.paper
def test_the_generator_enlarges_any_size():
    enlarged(4, 7, 11)


@pytest.mark.paper
@pytest.mark.parametrize("scale", [2, 8])
def test_the_generator_enlarges_by_other_scales(scale):
    enlarged(scale, 24, 24)


def test_the_generator_learns():
    generator = models.make_generator(settings("demo", blocks=2))
    given(generator, torch.rand(2, 3, 24, 24)).square().sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in generator.parameters()), \
        tr("no gradient reaches its weights")


def idle(network):
    """The weights that could learn and get no gradient; biases may be taken away again by a batch norm behind them."""
    return [name for name, p in network.named_parameters()
            if p.requires_grad and (p.grad is None or not p.grad.any()) and not name.endswith("bias")]


@pytest.mark.paper
@pytest.mark.parametrize("recipe", ["demo", "paper"])
def test_every_parameter_of_the_generator_learns(recipe):
    generator = models.make_generator(settings(recipe, blocks=2))
    given(generator, torch.rand(2, 3, 24, 24)).square().sum().backward()
    assert not idle(generator), tr("no gradient reaches {names}", names=", ".join(idle(generator)[:5]))


def test_the_generator_makes_values_on_both_sides_of_zero():
    fakes = []
    for seed in range(12):  # one alone may happen to lie on one side
        torch.manual_seed(seed)
        fakes.append(given(models.make_generator(settings("demo")).eval(), torch.rand(1, 3, 24, 24)))
    least, most = min(sr.min().item() for sr in fakes), max(sr.max().item() for sr in fakes)
    assert least < 0 < most, tr("its values are from {least:.2f} to {most:.2f}; it is trained towards [-1, 1], so "
                                "something that cannot be negative, a ReLU or a sigmoid, must not be its end",
                                least=least, most=most)


@pytest.mark.paper
def test_the_generator_is_figure_4_layer_by_layer():
    text = plots.layer_table(models.make_generator(settings()), 3, 24, 24)
    block = ["conv k3n64s1", "BatchNorm2d", "PReLU", "conv k3n64s1", "BatchNorm2d"]
    stage = ["conv k3n256s1", "PixelShuffle", "PReLU"]
    same_layers([row[1] for row in text.cells[1:-1]],
                ["conv k9n64s1", "PReLU", *block * 16, "conv k3n64s1", "BatchNorm2d", *stage * 2, "conv k9n3s1"])


@pytest.mark.paper
def test_the_generator_adds_what_went_into_the_first_block_after_the_last():
    torch.manual_seed(0)
    generator = models.make_generator(settings(channels=8, blocks=2, batch_norm=False)).eval()
    for layer in generator.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels == layer.out_channels == 8:
            nn.init.zeros_(layer.weight)  # then blocks give back what came in, and the last of these layers nothing
            nn.init.zeros_(layer.bias)
    one, other = (given(generator, picture) for picture in (torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)))
    assert not torch.allclose(one, other), tr(
        "with all its k3n64s1 convolutions at 0 the picture should still come through, by the skip connection from "
        "before the first block to behind the last, and does not")


@pytest.mark.paper
def test_the_generator_takes_low_resolution_as_its_setting_signed_input_says():
    lr, made = torch.rand(1, 3, 8, 8), []
    for signed, seen in [(True, lr), (False, 2 * lr - 1)]:
        torch.manual_seed(0)
        made.append(given(models.make_generator(settings("demo", signed_input=signed)).eval(), seen))
    assert torch.allclose(*made, atol=1e-5), tr("with signed_input=True your generator should take its input x as "
                                                "2·x − 1, and does not")


@pytest.mark.paper
def test_the_generator_has_as_many_parameters_as_in_the_paper():
    found = count(models.make_generator(settings()))
    assert found == 1_549_462, tr("it has {found:,} parameters, and the paper's {papers:,}", found=found,
                                   papers=1_549_462)


@pytest.mark.paper
def test_the_generator_follows_its_settings():
    generator = models.make_generator(settings("demo", channels=32, blocks=8))
    convolutions = [m for m in generator.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not norms, tr("with batch_norm=False it has {count} batch norms", count=len(norms))
    assert len(convolutions) == 1 + 2 * 8 + 1 + 2 + 1, tr("with blocks=8 it has {count} convolutions, not 21",
                                                          count=len(convolutions))
    maps = {m.out_channels for m in convolutions[:-1]}
    assert maps == {32, 128}, tr("with channels=32 its convolutions give {maps} maps, not 32 and 128",
                               maps=sorted(maps))
    kernels = convolutions[0].kernel_size, convolutions[-1].kernel_size
    assert kernels == ((3, 3), (3, 3)), tr("with first_kernel=3 and last_kernel=3 the kernels are {kernels}",
                                              kernels=kernels)


# ----------------------------------------------------------------------------------- the discriminator


def judged(crop, pictures=3):
    """The logits of pictures of a size. Raises ValueError where they are none."""
    discriminator = models.make_discriminator(settings("paper" if crop == 96 else "demo", crop=crop))
    logits = given(discriminator, torch.rand(pictures, 3, crop, crop) * 2 - 1)
    if not isinstance(logits, torch.Tensor) or logits.ndim < 1 or len(logits) != pictures:
        what = in_words(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(tr("for {count} pictures it gives {what}, not a verdict for each", count=pictures, what=what))
    return logits


def test_the_discriminator_judges_every_picture_of_a_batch():
    failures = []
    for crop in CROPS:
        try:
            judged(crop)
            return
        except NotImplementedError:
            raise
        except Exception as error:  # whatever a network raises that was written for another size
            failures.append(f"{crop}×{crop}: {error}")
    pytest.fail(tr("it can judge pictures of no size") + ": " + "; ".join(failures))


@pytest.mark.paper
@pytest.mark.parametrize("crop", CROPS)
def test_the_discriminator_judges_pictures_of_every_size_that_is_trained(crop):
    judged(crop)


def for_some_size():
    """A discriminator and pictures that it can judge."""
    for crop in CROPS[::-1]:
        try:
            judged(crop)
        except NotImplementedError:
            raise
        except Exception:
            continue
        return (models.make_discriminator(settings("demo" if crop < 96 else "paper", crop=crop)),
                torch.rand(4, 3, crop, crop) * 2 - 1)
    pytest.skip(tr("it can judge pictures of no size"))


@pytest.mark.paper
def test_the_discriminator_gives_logits_and_no_probabilities():
    lowest = []
    for seed in range(12):
        torch.manual_seed(seed)
        discriminator, pictures = for_some_size()
        lowest.append(given(discriminator, pictures).min().item())
    assert min(lowest) < 0, tr("its verdicts are never below 0: a sigmoid at its end? The kit's losses have it already "
                               "(one of your own may not)")


def test_the_discriminator_learns():
    discriminator, pictures = for_some_size()
    given(discriminator, pictures).square().sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in discriminator.parameters()), \
        tr("no gradient reaches its weights")


@pytest.mark.paper
def test_every_parameter_of_the_discriminator_learns():
    discriminator, pictures = for_some_size()
    given(discriminator, pictures).square().sum().backward()
    assert not idle(discriminator), tr("no gradient reaches {names}", names=", ".join(idle(discriminator)[:5]))


@pytest.mark.paper
def test_the_discriminator_is_figure_4_layer_by_layer():
    network = models.make_discriminator(settings())
    layers = [f"conv k{m.kernel_size[0]}n{m.out_channels}s{m.stride[0]}"
              for m in network.modules() if isinstance(m, nn.Conv2d)]
    same_layers(layers, [f"conv k3n{maps}s{stride}" for maps in (64, 128, 256, 512) for stride in (1, 2)])
    slopes = {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.2}, tr("its leaky ReLUs have the slopes {slopes}, not 0.2", slopes=sorted(slopes))
    shape = given(network, torch.rand(2, 3, 96, 96)).shape
    assert shape == (2, 1), tr("for 2 pictures it gives {shape} verdicts, not one for each", shape=in_words(shape))


@pytest.mark.paper
def test_the_discriminator_has_as_many_parameters_as_in_the_paper():
    found = count(models.make_discriminator(settings()))
    assert found == 23_565_505, tr("it has {found:,} parameters, and the paper's {papers:,}", found=found,
                                    papers=23_565_505)


# -------------------------------------------------------------------------------------- what is refused


@pytest.mark.paper
@pytest.mark.parametrize("network, wrong, message", [
    ("Generator", {"scale": 3}, "scale must be 2, 4 or 8"),
    ("Generator", {"channels": 0}, "channels"),
    ("Generator", {"blocks": -1}, "blocks"),
    ("Discriminator", {"crop": 100}, "multiple of 16"),
])
def test_what_makes_no_sense_is_refused(network, wrong, message):
    name, = wrong
    if name not in parameters_of(network):
        pytest.skip(tr("models.{network} is made in another way here", network=network))
    with pytest.raises(ValueError, match=message):
        getattr(models, network)(**wrong)
