"""The networks: the paper's sizes, and features that are VGG19's."""

import pytest
import torch
from torch import nn

import inference
import models
import plots
import vgg


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_the_papers_generator_and_discriminator_have_the_known_sizes():
    assert count(models.Generator()) == 1_549_462
    assert count(models.Discriminator()) == 23_565_505


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_generator_enlarges_any_size(scale):
    generator = models.Generator(scale, channels=4, blocks=2).eval()
    assert generator(torch.rand(2, 3, 7, 11)).shape == (2, 3, 7 * scale, 11 * scale)


def test_the_generator_is_figure_4_layer_by_layer():
    text = plots.layer_table(models.Generator(), 3, 24, 24)
    layers = [row[1] for row in text.cells[1:-1]]
    block = ["conv k3n64s1", "BatchNorm2d", "PReLU", "conv k3n64s1", "BatchNorm2d"]
    stage = ["conv k3n256s1", "PixelShuffle", "PReLU"]
    assert layers == ["conv k9n64s1", "PReLU", *block * 16, "conv k3n64s1", "BatchNorm2d", *stage * 2, "conv k9n3s1"]
    assert text.splitlines()[-1].split() == ["total", "1,549,462"]


def test_the_discriminator_is_figure_4_layer_by_layer():
    network = models.Discriminator()
    convolutions = [(m.out_channels, m.stride[0]) for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert convolutions == [(64, 1), (64, 2), (128, 1), (128, 2), (256, 1), (256, 2), (512, 1), (512, 2)]
    assert {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}
    assert network(torch.rand(2, 3, 96, 96)).shape == (2, 1)


def test_reach_is_how_far_a_pixel_acts():
    generator = models.Generator(4, channels=4, blocks=2, batch_norm=False).double().eval()
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


@pytest.mark.parametrize("i, j", [(1, 1), (2, 2), (3, 4), (5, 4)])
def test_vgg_features_are_those_after_the_jth_activation_before_the_ith_pooling(vgg19_weights, i, j):
    path, layers = vgg19_weights
    picture = torch.rand(1, 3, 48, 48) * 2 - 1
    x = ((picture + 1) / 2 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) \
        / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pooling, convolution, wanted = 1, 0, None
    for layer in layers:
        x = layer(x)
        pooling += isinstance(layer, nn.MaxPool2d)
        convolution = 0 if isinstance(layer, nn.MaxPool2d) else convolution + isinstance(layer, nn.Conv2d)
        if (pooling, convolution) == (i, j) and isinstance(layer, nn.ReLU):
            wanted = x.clone()
    features = vgg.VGGFeatures(i, j, path)
    torch.testing.assert_close(features(picture), wanted)
    assert not any(p.requires_grad for p in features.parameters())


def test_a_failed_download_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *a, **k: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(OSError, match="(?s)no route.*vgg19-dcbb9e9d.pth.*vgg_weights.*mse"):
        vgg.VGGFeatures()


@pytest.mark.parametrize("call, message", [
    (lambda: models.Generator(3), "scale must be 2, 4 or 8"),
    (lambda: models.Generator(channels=0), "channels"),
    (lambda: models.Generator(blocks=-1), "blocks"),
    (lambda: models.Discriminator(100), "multiple of 16"),
    (lambda: vgg.VGGFeatures(2, 3), "no layer"),
    (lambda: vgg.VGGFeatures(6, 1), "no layer"),
    (lambda: vgg.VGGFeatures(weights="nowhere.pth"), "no file nowhere.pth"),
    (lambda: vgg.VGGFeatures(weights=__file__), "cannot be read"),
])
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth does not hold torchvision's VGG19"):
        vgg.VGGFeatures(weights=tmp_path / "other.pth")
