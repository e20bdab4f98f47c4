"""Four systems, each held against its source."""

import argparse
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import create_data_lists
import models
import solver
import utils
from helpers import SYSTEMS, learner
from imresize import imresize
from kit import evaluation, plots, runs
from kit.evaluation.generators import load_generator
from kit.settings import recipes


def k(kernel, inputs, outputs, bias=1):
    """Weights of a convolution by hand."""
    return kernel * kernel * inputs * outputs + bias * outputs


EIGHT = sum(k(3, i, o) for i, o in [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512),
                                    (512, 512)])
EIGHT_NORMS = 2 * (64 + 128 + 128 + 256 + 256 + 512 + 512)
STRIDED = [64, 128, 256, 512, 1024, 2048, 1024, 512]
DISCRIMINATORS = {
    "paper": EIGHT + EIGHT_NORMS + (512 * 6 * 6 + 1) * 1024 + 1025,
    "celeba": EIGHT + (512 + 1) * 1024 + 1025,
    "paddle": sum(k(4, i, o) for i, o in zip([3, *STRIDED], STRIDED)) + 2 * sum(STRIDED[1:])
    + k(3, 512, 512) + 2 * 512 + 512 * 2 * 2 + 1,
    "paperspace": EIGHT + EIGHT_NORMS + (512 * 6 * 6 + 1) * 1024 + 1025,
}
GENERATORS = {
    # first convolution, activation, 16 blocks, trunk, two enlargements, last convolution; BN has 2 per map
    "paper": k(9, 3, 64) + 1 + 16 * (2 * k(3, 64, 64) + 2 * 128 + 1) + k(3, 64, 64) + 128
    + 2 * (k(3, 64, 256) + 1) + k(9, 64, 3),
    "celeba": k(9, 3, 64) + 64 + 16 * (2 * k(3, 64, 64, bias=0) + 64) + k(3, 64, 64)
    + 2 * (k(3, 64, 256) + 64) + k(9, 64, 3),
    "paddle": k(3, 3, 64) + 128 + 16 * (2 * k(3, 64, 64) + 2 * 128) + k(3, 64, 64) + 128
    + 2 * k(3, 64, 256) + k(1, 64, 3),
    "paperspace": k(9, 3, 64) + 64 + 16 * (2 * k(3, 64, 64) + 2 * 128 + 64) + k(3, 64, 64) + 128
    + 2 * (k(3, 64, 256) + 64) + k(9, 64, 3),
}


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("recipe", SYSTEMS)
def test_parameters_are_those_counted_by_hand_from_the_source(recipe):
    cfg = solver.settings(recipe)
    assert count(solver.make_generator(cfg)) == GENERATORS[recipe]
    assert count(solver.make_discriminator(cfg)) == DISCRIMINATORS[recipe]


def test_the_papers_counts_are_the_known_ones():
    assert (GENERATORS["paper"], DISCRIMINATORS["paper"]) == (1_549_462, 23_565_505)


def stages(network, picture):
    """(channels, side) after every convolution, pixel shuffle and dense layer."""
    sizes = []
    for module in network.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.PixelShuffle, torch.nn.Linear)):
            module.register_forward_hook(lambda m, i, o: sizes.append(tuple(o.shape[1:3])))
    with torch.no_grad():
        network.eval()(picture)
    return sizes


@pytest.mark.parametrize("recipe, lr", [("paper", 24), ("celeba", 32), ("paddle", 96), ("paperspace", 24)])
def test_every_stage_of_the_generators_has_the_shape_of_the_source(recipe, lr):
    generator = solver.make_generator(solver.settings(recipe, blocks=2))
    assert stages(generator, torch.rand(1, 3, lr, lr)) == [
        (64, lr), *[(64, lr)] * 4, (64, lr), (256, lr), (64, 2 * lr), (256, 2 * lr), (64, 4 * lr), (3, 4 * lr)]
    sr = generator(torch.rand(1, 3, lr, lr))
    assert (sr.abs().max() <= 1) or recipe == "paper"


@pytest.mark.parametrize("recipe, wanted", [
    ("paper", [(64, 96), (64, 48), (128, 48), (128, 24), (256, 24), (256, 12), (512, 12), (512, 6), (1024,), (1,)]),
    ("celeba", [(64, 128), (64, 64), (128, 64), (128, 32), (256, 32), (256, 16), (512, 16), (512, 8),
                (1024, 8), (1, 8)]),
    ("paddle", [(64, 192), (128, 96), (256, 48), (512, 24), (1024, 12), (2048, 6), (1024, 3), (512, 2),
                (512, 2), (1,)]),
    ("paperspace", [(64, 96), (64, 48), (128, 48), (128, 24), (256, 24), (256, 12), (512, 12), (512, 6),
                    (1024,), (1,)]),
])
def test_every_stage_of_the_discriminators_has_the_shape_of_the_source(recipe, wanted):
    cfg = solver.settings(recipe)
    assert stages(solver.make_discriminator(cfg), torch.rand(1, 3, cfg.crop, cfg.crop)) == wanted


def test_batch_norm_counts_its_momentum_as_the_sources_do():
    def norms(recipe):
        cfg = solver.settings(recipe, blocks=2)
        networks = [solver.make_generator(cfg), solver.make_discriminator(cfg)]
        return [{(m.momentum, m.eps) for m in n.modules() if isinstance(m, torch.nn.BatchNorm2d)} for n in networks]

    assert norms("celeba") == [set(), set()]
    assert norms("paddle") == [{(0.01, 1e-3)}, {(0.01, 1e-3)}]  # 0.99 there
    assert norms("paperspace") == [{(0.2, 1e-3), (0.01, 1e-3)}, {(0.2, 1e-3)}]  # 0.8, and Keras' 0.99 in the trunk


@pytest.mark.parametrize("size", [5, 6, 7, 8])
def test_same_padding_is_tensorflows(size):
    # total padding (ceil(n / s) - 1)·s + k - n, the odd one behind
    layer = models.SameConv2d(1, 1, 4, 2, bias=False)
    x = torch.rand(1, 1, size, size)
    total = (-(-size // 2) - 1) * 2 + 4 - size
    padded = F.pad(x, [total // 2, total - total // 2] * 2)
    torch.testing.assert_close(layer(x), F.conv2d(padded, layer.weight, stride=2))


def cancelled_biases(network, prefix):
    """The names of biases that the batch norm directly behind them takes away again: their gradient is rounding."""
    for name, sequence in network.named_modules(prefix=prefix):
        layers = list(sequence.named_children()) if isinstance(sequence, torch.nn.Sequential) else []
        for (inner, layer), (_, following) in zip(layers, layers[1:]):
            if isinstance(layer, torch.nn.Conv2d) and isinstance(following, torch.nn.BatchNorm2d):
                yield f"{name}.{inner}.bias"


MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def content_by_hand(recipe, features, sr, hr):
    """The content losses of the four sources, one line each; φ(5,4) are VGG19's first 36 layers."""
    if recipe == "celeba":
        return ((features[:36](hr) - features[:36](sr)) ** 2).mean()
    if recipe == "paddle":  # its log line prints mse, vgg and adv; the weights are those of tensorlayer's SRGAN
        mse = ((hr - sr) ** 2).mean()
        hr, sr = (imresize(x, output_shape=(224, 224)) for x in (hr, sr))
        return mse + 2e-6 * ((features(hr) - features(sr)) ** 2).mean()
    hr, sr = (features[:36](((x + 1) / 2 - MEAN) / STD) / 12.75 for x in (hr, sr))
    return ((hr - sr) ** 2).mean()


def cross_entropy(probability, label):
    return -(torch.log(probability) if label else torch.log(1 - probability)).mean()


@pytest.mark.parametrize("recipe", SYSTEMS)
def test_an_adversarial_update_equals_the_source_written_out(recipe, vgg19_weights):
    path, features = vgg19_weights
    crop = 384 if recipe == "paddle" else 64  # its eight halvings need the size
    cfg = solver.settings(recipe, channels=4, blocks=1, crop=crop, discriminator_channels=2, discriminator_dense=4,
                          vgg_weights=path)

    def start():
        torch.manual_seed(5)
        generator, discriminator = solver.make_generator(cfg), solver.make_discriminator(cfg)
        lr = torch.randint(0, 256, (2, 3, crop // 4, crop // 4), dtype=torch.uint8)
        hr = torch.randint(0, 256, (2, 3, crop, crop), dtype=torch.uint8)
        return generator, discriminator, lr, hr

    g, d, lr, hr = start()
    cancelled = {name for n in (g, d) for name in cancelled_biases(n, type(n).__name__)}
    before = {name: value.clone() for n in (g, d) for name, value in n.named_parameters(prefix=type(n).__name__)}
    epoch = solver.default_phases(cfg)[1].epoch
    losses = list(epoch(learner(g, 0.01), learner(d, 0.01), [(utils.to_unit(lr), utils.to_signed(hr))],
                        solver.make_content_loss(cfg), cfg.adversarial_weight, cfg.gradient_penalty))

    plain_g, plain_d, lr, hr = start()
    lr, hr = lr / 255, hr / 127.5 - 1
    g_weights, d_weights = list(plain_g.parameters()), list(plain_d.parameters())
    sr = plain_g(lr)
    real_verdict, fake_verdict = plain_d(hr).sigmoid(), plain_d(sr).sigmoid()
    d_loss = cross_entropy(real_verdict, 1) + cross_entropy(fake_verdict, 0)
    d_gradients = torch.autograd.grad(d_loss, d_weights, retain_graph=True)
    if recipe in ("paper", "paddle"):  # the discriminator moves before it judges for the generator
        with torch.no_grad():
            [w.sub_(0.01 * gradient) for w, gradient in zip(d_weights, d_gradients)]
        sr = plain_g.train()(lr)
        fake_verdict = plain_d(sr).sigmoid()
    content, adversarial = content_by_hand(recipe, features, sr, hr), cross_entropy(fake_verdict, 1)
    g_gradients = torch.autograd.grad(content + 1e-3 * adversarial, g_weights)
    with torch.no_grad():
        [w.sub_(0.01 * gradient) for w, gradient in zip(g_weights, g_gradients)]
        if recipe in ("celeba", "paperspace"):
            [w.sub_(0.01 * gradient) for w, gradient in zip(d_weights, d_gradients)]

    for name, value in dict(discriminator_loss=d_loss, adversarial_loss=adversarial, content_loss=content).items():
        assert losses[0][name].item() == pytest.approx(value.item(), rel=1e-5), name
    for mine, plain in [(g, plain_g), (d, plain_d)]:
        for (name, value), wanted in zip(mine.named_parameters(prefix=type(mine).__name__), plain.parameters()):
            torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-6)
            if name not in cancelled:
                assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize("recipe", SYSTEMS)
def test_a_small_run_of_each_recipe_from_lists_to_an_enlarged_picture(recipe, faces, small_lists, vgg19_weights,
                                                                      tmp_path):
    if recipe == "celeba":
        create_data_lists.create_recipe_lists("celeba", faces, out=tmp_path)
        lists = dict(train_list=str(tmp_path / "celeba_train.csv"), valid_list=str(tmp_path / "celeba_test.csv"))
        size = dict(batch_size=5, checkpoint_every=2)
    else:
        lists = dict(train_list=str(small_lists / "train.csv"), valid_list=str(small_lists / "valid.csv"))
        size = dict(batch_size=2, crop=32, patches_per_picture=2)
    if recipe == "paperspace":
        size |= dict(updates_per_epoch=2, keep_checkpoints=2)
    if recipe == "paddle":
        size |= dict(updates_per_epoch=1)  # each looks at pictures of 224 × 224, whatever the crop
    cfg = solver.settings(recipe, runs=str(tmp_path / "runs"), channels=4, blocks=1, discriminator_channels=2,
                          discriminator_dense=4, vgg_weights=vgg19_weights[0], adversarial_epochs=3, sample_every=1,
                          warmup_epochs=min(1, solver.settings(recipe).warmup_epochs), device="cpu", **lists, **size)
    first = solver.Trainer(cfg, progress=False)
    first.warm_up()
    assert len(first.history) == cfg.warmup_epochs
    cfg.adversarial_epochs = 1
    first = solver.Trainer(cfg, progress=False)
    first.train_adversarially()
    cfg.adversarial_epochs = 3
    trainer = solver.Trainer(cfg, progress=False)  # resumed
    assert trainer.state.phase == "adversarial" and trainer.state.epoch == 1
    trainer.train_adversarially()
    assert [row["epoch"] for row in trainer.history[-3:]] == [1, 2, 3]

    checkpoints = trainer.run.folder / "checkpoints"
    generator = load_generator(checkpoints / "adversarial_best.pt")
    assert runs.load_checkpoint(checkpoints / "adversarial_best.pt")["psnr"] == max(
        row["psnr"] for row in trainer.history if row["phase"] == "adversarial")
    scores = evaluation.score_sets({"GAN": partial(utils.super_resolve, generator)}, [cfg.valid_list], progress=False)
    assert len(scores) == len(trainer.valid_set) and all(np.isfinite(row["psnr"]) for row in scores)
    numbered = sorted(p.stem for p in checkpoints.glob("adversarial_[0-9]*.pt"))
    every = ["adversarial_001", "adversarial_002", "adversarial_003"]  # 1 and 3 as the last of their calls
    assert numbered == {"paddle": [every[0], every[2]], "paperspace": every[1:]}.get(recipe, every)
    samples = trainer.run.folder / "samples"
    if recipe == "celeba":  # inputs, labels, and the outputs of every epoch
        for folder in ("input", "original", "adversarial_001", "adversarial_003"):
            assert [p.stem for p in sorted((samples / folder).iterdir())] == [f"{i:06}" for i in range(6, 11)]
        figure = plots.plot_samples(samples, ["adversarial_001", "adversarial_003"])
        titles = [axis.get_title() for axis in figure.axes[:4]]
        assert titles == ["input", "adversarial_001", "adversarial_003", "original"]
        assert len(figure.axes) == 4 * 5


@pytest.mark.parametrize("scale", [2, 8])
def test_other_scales_go_through_the_whole_kit(scale, photograph, tmp_path):
    for i in range(2):
        picture = np.ascontiguousarray(photograph[100 * i : 100 * i + 98, :130])
        utils.save_picture(tmp_path / "p" / f"{i}.png", picture)
    create_data_lists.create_data_lists(tmp_path / "p", {"valid": tmp_path / "p"}, tmp_path, scale, progress=False)
    cfg = solver.settings("demo", runs=str(tmp_path / "runs"), train_list=str(tmp_path / "train.csv"), scale=scale,
                          valid_list=str(tmp_path / "valid.csv"), crop=64, patches_per_picture=8, channels=4, blocks=1,
                          warmup_epochs=1, adversarial_epochs=1, device="cpu")
    trainer = solver.Trainer(cfg, progress=False)
    trainer.warm_up()
    trainer.train_adversarially()
    generator = load_generator(trainer.run.folder / "checkpoints" / "adversarial.pt")
    pair = trainer.valid_set[0]
    pictures = evaluation.enlarge_all(pair, evaluation.methods({"GAN": generator}))
    assert pictures["GAN"].shape == pair.hr.shape and pictures["bicubic"].shape == pair.hr.shape
    score, *_ = evaluation.evaluate(partial(utils.super_resolve, generator), trainer.valid_set, progress=False)
    assert score["psnr"] == utils.psnr(pictures["GAN"], pair.hr, border=scale)
    assert evaluation.score_captions(pictures, scale)["GAN"].startswith(f"{score['psnr']:.2f}")


def test_a_discriminator_of_detail_sees_no_colours():
    judge = models.make_discriminator(solver.settings("demo", crop=32, discriminator_detail=True,
                                                      discriminator_batch_norm=False))
    colours = torch.tensor([0.3, -0.2, 0.1]).view(3, 1, 1) + 0.01 * torch.arange(4.0).view(4, 1, 1, 1)
    plain = judge(colours.expand(4, 3, 32, 32))
    torch.testing.assert_close(plain, plain[:1].expand(4, 1), atol=1e-5, rtol=0)
    assert judge(torch.rand(4, 3, 32, 32)).std() > 0.01  # and He's weights let it tell something from the first


def test_kernels_of_four_look_at_every_pixel_equally_often():
    spread = {}
    for kernel in (3, 4):
        judge = models.Discriminator(128, channels=2, dense=4, batch_norm=False, flatten=False, halving_kernel=kernel)
        for name, weight in judge.named_parameters():
            torch.nn.init.constant_(weight, 0.1 if name.endswith("weight") else 0)
        picture = torch.ones(1, 3, 128, 128, requires_grad=True)
        judge(picture).sum().backward()
        inner = picture.grad[..., 56:72, 56:72]  # far from the border
        spread[kernel] = (inner.max() / inner.min()).item()
    assert spread[4] == pytest.approx(1, abs=1e-4) and spread[3] > 1.5


@pytest.mark.parametrize("option, text", [("name", "20210123"), ("name", "1_2"), ("fork_of", "007"),
                                          ("train_list", "2024"), ("runs", "1e5")])
def test_texts_that_look_like_numbers_stay_texts(option, text):
    parser = argparse.ArgumentParser()
    recipes.add_options(parser)
    cfg = recipes.from_options(parser.parse_args(["--recipe", "demo", f"--{option}", text, "--seed", "7"]))
    assert cfg[option] == text and cfg.seed == 7
