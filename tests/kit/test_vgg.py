"""VGG's features, and the discriminator that sees them."""

import pytest
import torch
import torchvision
from torch import nn

import solver
from kit import vgg


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
    (lambda: vgg.VGGFeatures(2, 3), "no layer"),
    (lambda: vgg.VGGFeatures(6, 1), "no layer"),
    (lambda: vgg.VGGFeatures(weights="nowhere.pth"), "no file nowhere.pth"),
    (lambda: vgg.VGGFeatures(weights=__file__), "cannot be read"),
])
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_weights_of_another_network_are_refused(tmp_path, vgg19_weights):
    state = torch.load(vgg19_weights[0], weights_only=True)
    for other in ({"features.0.weight": torch.zeros(3)},
                  {name: value for name, value in state.items() if name != "features.0.bias"},
                  {name: value[:1] for name, value in state.items()}):
        torch.save(other, tmp_path / "other.pth")
        with pytest.raises(ValueError, match="other.pth holds neither torchvision's VGG19 nor its VGG16"):
            vgg.VGGFeatures(weights=tmp_path / "other.pth")


def test_a_file_of_vgg16_is_taken_for_what_it_is(tmp_path):
    torch.manual_seed(0)
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    torch.save({f"features.{name}": value for name, value in layers.state_dict().items()}, tmp_path / "vgg16.pth")
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    features = vgg.VGGFeatures(4, 3, tmp_path / "vgg16.pth", normalise=False)
    torch.testing.assert_close(features(picture), layers[:23](picture))  # up to its tenth ReLU
    with pytest.raises(ValueError, match=r"VGG16 has no layer φ\(5,4\).*2, 2, 3, 3, 3"):
        vgg.VGGFeatures(5, 4, tmp_path / "vgg16.pth")


def test_the_maps_are_those_before_the_poolings(vgg19_weights):
    picture = torch.rand(1, 3, 32, 48) * 2 - 1
    maps = vgg.VGGFeatures(4, None, vgg19_weights[0]).maps(picture)
    for found, (i, j) in zip(maps, [(1, 2), (2, 2), (3, 4), (4, 4)]):
        assert torch.equal(found, vgg.VGGFeatures(i, j, vgg19_weights[0])(picture))
    assert len(maps) == 4
    assert vgg.VGGFeatures(1, 2, vgg19_weights[0]).maps(picture) == []


@pytest.mark.parametrize("crop", [16, 32, 100])
def test_every_place_is_judged_at_four_depths(vgg19_weights, crop):
    cfg = solver.settings(discriminator="features", vgg_weights=vgg19_weights[0], discriminator_channels=4)
    logits = solver.make_discriminator(cfg)(torch.rand(2, 3, crop, crop) * 2 - 1)
    assert logits.shape == (2, 4 * (crop // 8) ** 2)


@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
def test_only_its_heads_learn_and_a_resumed_run_is_the_same(small_settings, vgg19_weights, updates):
    cfg = small_settings
    cfg.update(discriminator="features", vgg_weights=vgg19_weights[0], updates=updates, content_loss="mse", crop=16,
               patches_per_picture=2, warmup_epochs=1, adversarial_schedule="constant")
    whole = solver.Trainer(cfg, progress=False)
    whole.train()
    cfg.update(name="stopped")
    begun = solver.Trainer(cfg, progress=False)
    begun.warm_up()
    begun.phases[1] = begun.phases[1]._replace(epochs=1)
    begun.train()
    resumed = solver.Trainer(cfg, progress=False)
    resumed.train()
    fresh = solver.make_discriminator(cfg).state_dict()
    for name, value in whole.discriminator.state_dict().items():
        assert torch.equal(value, resumed.discriminator.state_dict()[name])
        assert torch.equal(value, fresh[name]) == name.startswith("features."), name
    for name, value in whole.generator.state_dict().items():
        assert torch.equal(value, resumed.generator.state_dict()[name])


def test_a_missing_file_names_the_discriminator_as_a_way_out(small_settings):
    small_settings.update(discriminator="features", vgg_weights="nowhere.pth", content_loss="mse")
    with pytest.raises(ValueError, match="no file nowhere.pth.*discriminator=\"srgan\""):
        solver.Trainer(small_settings, progress=False)
