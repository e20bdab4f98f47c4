"""The four systems: networks counted by hand, adversarial updates written out, and whole small runs."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import learner
from torchvision.transforms import functional

import create_data_lists
import datasets
import evaluation
import models
import plots
import recipes
import runs
import solver
import utils
from imresize import imresize

ROOT = Path(__file__).parent.parent
SYSTEMS = ["paper", "celeba", "paddle", "paperspace"]


def count(network):
    return sum(p.numel() for p in network.parameters())


def k(kernel, inputs, outputs, bias=1):
    """Weights of a convolution by hand."""
    return kernel * kernel * inputs * outputs + bias * outputs


# --------------------------------------------------------------------------------------------- networks

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


@pytest.mark.parametrize("recipe, low", [("paper", 24), ("celeba", 32), ("paddle", 96), ("paperspace", 24)])
def test_every_stage_of_the_generators_has_the_shape_of_the_source(recipe, low):
    generator = solver.make_generator(solver.settings(recipe, blocks=2))
    assert stages(generator, torch.rand(1, 3, low, low)) == [
        (64, low), *[(64, low)] * 4, (64, low), (256, low), (64, 2 * low), (256, 2 * low), (64, 4 * low), (3, 4 * low)]
    sr = generator(torch.rand(1, 3, low, low))
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


# ------------------------------------------------------------------------------- one adversarial update


MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def content_by_hand(recipe, features, fake, high):
    """The content losses of the four sources, one line each; φ(5,4) are VGG19's first 36 layers."""
    if recipe == "celeba":
        return ((features[:36](high) - features[:36](fake)) ** 2).mean()
    if recipe == "paddle":  # its log line prints mse, vgg and adv; the weights are those of tensorlayer's SRGAN
        mse = ((high - fake) ** 2).mean()
        high, fake = (imresize(x, output_shape=(224, 224)) for x in (high, fake))
        return mse + 2e-6 * ((features(high) - features(fake)) ** 2).mean()
    high, fake = (features[:36](((x + 1) / 2 - MEAN) / STD) / 12.75 for x in (high, fake))
    return ((high - fake) ** 2).mean()


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
        low = torch.randint(0, 256, (2, 3, crop // 4, crop // 4), dtype=torch.uint8)
        high = torch.randint(0, 256, (2, 3, crop, crop), dtype=torch.uint8)
        return generator, discriminator, low, high

    g, d, low, high = start()
    before = {name: value.clone() for n in (g, d) for name, value in n.named_parameters(prefix=type(n).__name__)}
    epoch = solver.phases(cfg)[1].epoch
    losses = list(epoch(learner(g, 0.01), learner(d, 0.01), [(utils.to_unit(low), utils.to_signed(high))],
                        solver.make_content_loss(cfg), cfg.adversarial_weight, cfg.gradient_penalty))

    plain_g, plain_d, low, high = start()
    low, high = low / 255, high / 127.5 - 1
    g_weights, d_weights = list(plain_g.parameters()), list(plain_d.parameters())
    fake = plain_g(low)
    real_verdict, fake_verdict = plain_d(high).sigmoid(), plain_d(fake).sigmoid()
    d_loss = cross_entropy(real_verdict, 1) + cross_entropy(fake_verdict, 0)
    d_gradients = torch.autograd.grad(d_loss, d_weights, retain_graph=True)
    if recipe in ("paper", "paddle"):  # the discriminator moves before it judges for the generator
        with torch.no_grad():
            [w.sub_(0.01 * gradient) for w, gradient in zip(d_weights, d_gradients)]
        fake = plain_g.train()(low)
        fake_verdict = plain_d(fake).sigmoid()
    content, adversarial = content_by_hand(recipe, features, fake, high), cross_entropy(fake_verdict, 1)
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
            # (a bias before batch norm has no gradient but rounding)
            moved, should_move = ((x - before[name]).abs().max() > 1e-7 for x in (value, wanted))
            assert moved == should_move, name


# ----------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def faces(tmp_path_factory, photograph):
    """Ten "faces" of CelebA's size and names, details of a photograph."""
    folder = tmp_path_factory.mktemp("celeba") / "img_align_celeba"
    for i in range(10):
        face = np.ascontiguousarray(np.rot90(photograph)[20 * i : 20 * i + 218, 10 * i : 10 * i + 178])
        utils.save_picture(folder / f"{i + 1:06}.png", face)
        (folder / f"{i + 1:06}.png").rename(folder / f"{i + 1:06}.jpg")
    return folder.parent


def test_face_lists_take_the_middle_and_keep_the_last_five(faces, tmp_path):
    train, test = create_data_lists.create_recipe_lists("celeba", faces, out=tmp_path)
    assert [len(train.rows), len(test.rows)] == [5, 5]
    assert test.rows[-1]["hr"].endswith("img_align_celeba/000010.jpg")
    assert {tuple(row[f] for f in ("width", "height", "left", "top")) for row in train.rows} == {(128, 128, 25, 45)}
    pair = datasets.TestDataset(tmp_path / "celeba_test.csv")[4]
    whole = utils.read_picture(faces / "img_align_celeba" / "000010.jpg")
    assert np.array_equal(pair.hr, whole[45:173, 25:153]) and np.array_equal(pair.lr, imresize(pair.hr, 1 / 4))
    few = create_data_lists.create_face_lists(faces / "img_align_celeba", tmp_path, count=7, progress=False)
    assert len(few[0].rows) == 2 and few[1].rows[-1]["hr"].endswith("000007.jpg")


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
    assert trainer.phase == "adversarial" and trainer.epoch == 1
    trainer.train_adversarially()
    assert [row["epoch"] for row in trainer.history[-3:]] == [1, 2, 3]

    checkpoints = trainer.run.folder / "checkpoints"
    generator = evaluation.load_generator(checkpoints / "adversarial_best.pt")
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


def test_colours_are_changed_a_little_and_the_low_resolution_with_them(faces, tmp_path):
    create_data_lists.create_recipe_lists("celeba", faces, out=tmp_path)
    options = dict(scale=4, crop=128, patches_per_picture=1, turn=False, progress=False)
    plain = datasets.TrainDataset(tmp_path / "celeba_train.csv", **options)
    jittered = datasets.TrainDataset(tmp_path / "celeba_train.csv", colour_jitter=0.05, **options)
    assert jittered[7][1].equal(jittered[7][1])
    for n, changes in zip(range(5), (2 * jittered._patches(range(5))[1][:, :4] - 1) * 0.05):
        (_, high), (low, changed) = plain[n], jittered[n]
        wanted = functional.adjust_contrast(functional.adjust_saturation(high / 255, 1 + changes[0])
                                            .add(changes[1]).clamp(0, 1), 1 + changes[2])
        wanted = 255 * functional.adjust_hue(wanted, changes[3])
        assert (changed - wanted).abs().max() <= 0.51  # torchvision's, picture by picture
        difference = (high.float() - changed.float()).abs()
        assert 0 < difference.mean() < 40
        assert torch.equal(low, imresize(changed, 1 / 4))


def test_jpeg_noise_meets_its_share_of_the_patches(small_lists):
    options = dict(scale=4, crop=32, patches_per_picture=50, progress=False)
    plain = datasets.TrainDataset(small_lists / "train.csv", **options)
    noisy = datasets.TrainDataset(small_lists / "train.csv", jpeg_noise=0.5, **options)
    (low, high), (worse, same) = (d[range(200)] for d in (plain, noisy))
    assert torch.equal(high, same)
    changed = [not torch.equal(a, b) for a, b in zip(low, worse)]
    assert 70 < sum(changed) < 130
    assert (low.float() - worse.float()).abs().mean() < 10


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
    generator = evaluation.load_generator(trainer.run.folder / "checkpoints" / "adversarial.pt")
    pair = trainer.valid_set[0]
    pictures = evaluation.enlarge_all(pair, evaluation.methods({"GAN": generator}))
    assert pictures["GAN"].shape == pair.hr.shape and pictures["bicubic"].shape == pair.hr.shape
    score, *_ = evaluation.evaluate(partial(utils.super_resolve, generator), trainer.valid_set, progress=False)
    assert score["psnr"] == utils.psnr(pictures["GAN"], pair.hr, border=scale)
    assert evaluation.score_captions(pictures, scale)["GAN"].startswith(f"{score['psnr']:.2f}")


def test_the_command_makes_the_lists_of_a_recipe(faces, vgg19_weights, tmp_path):
    small = "--channels=4 --blocks=1 --discriminator_channels=2 --batch_size=5 --adversarial_epochs=1".split()
    done = subprocess.run([sys.executable, ROOT / "solver.py", "--recipe", "celeba", "--data", faces, *small,
                           "--vgg_weights", vgg19_weights[0]], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "celeba_train" in done.stdout and (tmp_path / "runs/celeba/checkpoints/adversarial_001.pt").exists()


def test_the_table_of_recipes_names_what_differs():
    lines = {line.split()[0]: line.split()[1:] for line in recipes.recipe_table().splitlines()}
    assert lines["setting"] == SYSTEMS and lines["crop"] == ["96", "128", "384", "96"]
    assert lines["updates"] == ["alternating", "simultaneous", "alternating", "simultaneous"]
    assert "seed" not in lines


def test_the_comparison_of_the_recipes(small_lists, tmp_path):
    from tools import compare_recipes

    table = compare_recipes.compare(
        tmp_path / "out", str(tmp_path / "runs"), train_list=str(small_lists / "train.csv"), crop=32,
        valid_list=str(small_lists / "valid.csv"), updates_per_epoch=2, channels=4, blocks=1,
        discriminator_channels=2, discriminator_dense=4, batch_size=4, device="cpu")
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["bicubic", *SYSTEMS]
    files = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert files == ["curves.png", "pictures.png", "scores.csv", "table.txt"]
    for recipe in SYSTEMS:  # the same number of updates for all
        assert runs.read_history(f"compare_{recipe}", tmp_path / "runs")[-1]["updates"] == 20


def test_the_benchmark_trains_both_the_plain_way_and_the_kits(monkeypatch, vgg19_weights):
    from tools import benchmark

    def once(*functions, rounds=None):
        for function in functions[:2]:
            function()
        return [1.0, 0.5]

    small = solver.settings("paper", channels=4, blocks=1, discriminator_channels=4, discriminator_dense=8)
    monkeypatch.setattr(benchmark, "in_turn", once)
    monkeypatch.setattr(benchmark, "matrix_product", lambda dtype: 1.0)
    monkeypatch.setattr(solver, "settings", lambda recipe: small)
    monkeypatch.setattr("torchvision.models.vgg19", lambda: torch.nn.ModuleDict({"features": vgg19_weights[1]}))
    header, rows = benchmark.benchmark_train(batch=1)
    assert [row[3] for row in rows] == [2.0, 2.0] and all(row[4] > 0 for row in rows)
