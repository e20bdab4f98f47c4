"""The textbook's figures: what they claim is so."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from easydict import EasyDict
from matplotlib.figure import Figure
from torch import nn

import models
import solver
import utils
from datasets import Pair, TestDataset
from imresize import imresize
from kit import evaluation, lessons
from kit.lessons import sheet
from kit.lessons.enlarging import slanted_edge
from kit.lessons.failures import FAILURES
from kit.runs.history import read_predictions
from other_networks import GENERATORS


def shown(figure):
    """The pictures in a figure, from left to right."""
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]


def test_two_originals_have_one_low_resolution(photograph):
    first, second, *lows, mean = shown(lessons.ill_posed(photograph))
    assert np.abs(first.astype(int) - second).max() > 40
    assert all(np.array_equal(lr, imresize(original, 0.25)) for lr, original in zip(lows, (first, second)))
    assert np.abs(lows[0].astype(int) - lows[1]).max() <= 1


@pytest.mark.parametrize("size", [(45, 70), (64, 300)])
def test_small_pictures_do_as_well(size, photograph):
    small = np.ascontiguousarray(photograph[: size[0], : size[1]])
    for figure in (lessons.ill_posed(small), lessons.shifted_texture(small), lessons.equal_psnr(small),
                   lessons.twice({"bicubic": utils.bicubic}, small)):
        assert isinstance(figure, Figure)


def test_the_mean_has_the_lowest_expected_error():
    one, other, mean = shown(lessons.mse_blurs())
    costs = [np.mean([np.mean((answer - truth) ** 2) for truth in (one, other)]) for answer in (one, other, mean)]
    assert costs[2] == costs[0] / 2 == costs[1] / 2
    titles = [axis.get_title() for axis in lessons.mse_blurs().axes]
    assert [f"{cost:,.0f}" in title for cost, title in zip(costs, titles)] == [True] * 3


def small_generator():
    torch.manual_seed(0)
    return models.Generator(4, channels=4, blocks=3, batch_norm=False).eval()


def test_an_edge_is_what_each_method_makes_of_it():
    methods = evaluation.methods({"mine": small_generator()})
    figure = lessons.edge(methods)
    lines = [line for axis in figure.axes for line in axis.lines if len(line.get_ydata()) > 2]
    profile = {line.get_label(): line.get_ydata() for line in lines}
    assert list(profile) == ["nearest", "bilinear", "bicubic", "mine", "original"]
    lr = imresize(slanted_edge(), 0.25)
    assert np.array_equal(profile["bicubic"], utils.bicubic(lr)[48, :, 1])
    steepest = {name: np.abs(np.diff(values.astype(int))).max() for name, values in profile.items()}
    assert steepest["original"] > steepest["bilinear"]


def test_pixels_are_shuffled_as_numbered():
    figure = lessons.pixel_shuffle()
    numbers = [[int(text.get_text()) for text in axis.texts] for axis in figure.axes[:5]]
    shuffled = F.pixel_shuffle(torch.tensor(numbers[:4]).view(1, 4, 2, 2).float(), 2).flatten().int().tolist()
    assert numbers[4] == shuffled
    checkers = shown(figure)[-2:]
    assert checkers[0].std() > 0 and checkers[1].std() == 0  # a kernel that is a multiple of the stride has none


def test_a_block_is_bypassed_and_the_network_left_as_it_was(small_lists):
    generator, pair = small_generator(), TestDataset(small_lists / "valid.csv")[0]
    nn.init.zeros_(generator.residual[1].body[2].weight)
    nn.init.zeros_(generator.residual[1].body[2].bias)
    before = [p.clone() for p in generator.parameters()]
    added, lost = (axis.patches for axis in lessons.block_contributions(generator, pair).axes)
    assert [bar.get_height() > 0 for bar in added] == [True, False, True]
    assert lost[1].get_height() == 0 and lost[0].get_height() != 0
    assert all(torch.equal(a, b) for a, b in zip(before, generator.parameters()))
    assert not any(module._forward_hooks for module in generator.modules())
    assert "no modules called ResidualBlock" in lessons.block_contributions(nn.Conv2d(3, 3, 1), pair)


def test_the_slopes_are_those_of_the_network():
    generator = small_generator()
    nn.init.constant_(generator.first[1].weight, 0.7)
    bars = [bar.get_height() for bar in lessons.activations(generator).axes[1].patches]
    assert bars == pytest.approx([0.7, 0.25, 0.25, 0.25, 0.25, 0.25])


def test_the_diagram_shows_the_lines_of_the_epoch():
    texts = [text.get_text() for axis in lessons.updates().axes for text in axis.texts]
    assert any("discriminator(hr, sr.detach())" in text for text in texts)
    assert any("with discriminator.frozen():" in text and "generator.descend" in text for text in texts)


def test_the_balance_is_that_of_the_run_and_changes_nothing(small_settings):
    trainer = solver.Trainer(small_settings, progress=False)
    trainer.train()
    before = [p.clone() for p in trainer.generator.parameters()]
    table = lessons.balance(trainer)
    rows = {row[0]: row[1:] for row in table.cells[1:]}
    assert list(rows) == ["mse", "mse + 2 lr_consistency", "vgg (random)", "adversarial"] and rows["mse"][-1] == "0°"
    assert float(rows["mse + 2 lr_consistency"][0]) > float(rows["mse"][0])  # the sum of its terms
    assert float(rows["adversarial"][3]) == pytest.approx(
        small_settings.adversarial_weight * float(rows["adversarial"][2]), rel=0.02)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.generator.parameters()))
    assert isinstance(lessons.saturation(trainer.history), Figure)


def test_psnr_by_hand_is_psnr_and_blur_and_noise_have_the_same(photograph):
    lr = imresize(photograph[:100, :100], 0.25)
    table = lessons.psnr_by_hand(utils.bicubic(lr), photograph[:100, :100], "chelsea")
    assert table.cells[-2][1] == table.cells[-1][1]
    table = lessons.psnr_by_hand(utils.bicubic(lr), photograph[:100, :100], "chelsea", border=0)
    assert table.cells[-2][1] == table.cells[-1][1]
    titles = [axis.get_title() for axis in lessons.equal_psnr(photograph).axes]
    assert titles[1].split(" dB")[0].split()[-1] == pytest.approx(titles[3].split(" dB")[0].split()[-1])


def test_lessons_of_networks_of_other_builds_say_what_they_cannot_show(photograph):
    for build in ("windows", "padded windows", "u-net"):
        said = lessons.tiles(GENERATORS[build](), photograph)
        assert "there is nothing to compare: this generator cannot enlarge in tiles" in said

    class ResidualBlock(nn.Module):  # its input is not what it adds to
        def forward(self, x):
            return x.mean(1, keepdim=True).expand(-1, 48, -1, -1)

    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), ResidualBlock(), nn.PixelShuffle(4))
    pair = Pair("cat", photograph[:10, :11], photograph[:40, :44])
    assert "none can be left out" in lessons.block_contributions(network, pair)


def test_tiles_have_no_seam_and_cuts_have(photograph):
    generator = small_generator()
    titles = [axis.get_title() for axis in lessons.tiles(generator, photograph).axes]
    cut, overlapping = (int(re.search(r"up to (\d+) off", title)[1]) for title in titles[1:])
    assert overlapping <= 1 < cut  # (1: where a value lies on the edge between two grey levels)
    assert shown(lessons.twice(evaluation.methods({"mine": generator}), photograph, side=8))[-1].shape == (128, 128, 3)


def test_every_failure_is_shown_once_and_kept(small_settings):
    cfg = small_settings
    solver.Trainer(cfg, progress=False).warm_up()
    start = f"{cfg.runs}/{cfg.name}/checkpoints/warmup.pt"
    figure = lessons.failures(cfg, start, updates=2, epochs=1)
    assert [axis.get_title() for axis in figure.axes if axis.images] == [n.replace("_", " ") for n in FAILURES]
    kept = {path: path.stat().st_mtime_ns for path in (Path(cfg.runs)).glob("fail-*/history.csv")}
    lessons.failures(cfg, start, updates=2, epochs=1)
    assert kept and all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_a_prediction_comes_first_and_stays(small_settings, capsys, monkeypatch):
    monkeypatch.setattr(sheet, "sheet_settings", lambda cfg, row: EasyDict(
        cfg, name="sheet", updates_per_epoch=1, warmup_epochs=1, adversarial_epochs=0))
    with pytest.raises(ValueError, match="did you mean 'depth'"):
        lessons.observe(small_settings, "dept", "x")
    assert lessons.observe(small_settings, "depth", " ") is None
    assert "predict first: write down" in capsys.readouterr().out and not Path(small_settings.runs).exists()
    table = lessons.observe(small_settings, "depth", "deeper is better")
    lessons.observe(small_settings, "depth", "deeper is better")
    lessons.observe(small_settings, "depth", "I knew it")
    printed = capsys.readouterr().out
    assert printed.count("predicted: deeper is better\n") == 2
    assert "predicted: deeper is better; and later: I knew it\n" in printed
    assert {row[1] for row in table.cells[1:]} == {"2", "8", "16"}
    assert read_predictions(small_settings.runs) == {"depth": ["deeper is better", "I knew it"]}


def test_a_row_that_would_train_nothing_says_what_it_needs(small_settings, monkeypatch):
    """In the basic mode there is no warm-up: four rows of the sheet would show an empty table as if done."""
    phase = solver.default_phases(small_settings)[-1]
    monkeypatch.setattr(solver, "default_phases", lambda cfg: [phase._replace(epochs=cfg.adversarial_epochs)])
    needs = []
    for row in sheet.SHEET:
        try:
            assert lessons.observe(small_settings, row) is None  # it would run, with a prediction
        except ValueError as error:
            assert "needs a warm-up, and solver.default_phases has no phase" in str(error)
            needs.append(row)
    assert needs == ["warm-up", "learning rate", "depth", "width", "batch norm"]


def test_the_diagram_is_drawn_when_somebody_has_rewritten_the_epoch(monkeypatch):
    def alternating_epoch(generator, batches):
        yield {}

    monkeypatch.setattr(solver, "alternating_epoch", alternating_epoch)
    texts = [text.get_text() for axis in lessons.updates().axes for text in axis.texts]
    assert sum("was rewritten" in text for text in texts) == 2
