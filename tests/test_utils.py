"""Pictures, metrics, enlarging, checkpoints, plots."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_generator
from PIL import Image

import create_data_lists
import datasets
import evaluation
import models
import plots
import recipes
import runs
import utils

ROOT = Path(__file__).parent.parent

# --------------------------------------------------------------------------------------------- pictures


def saved(image, tmp_path, name="a.png", **options):
    image.save(tmp_path / name, **options)
    return utils.read_picture(tmp_path / name)


def test_every_usual_kind_of_picture_is_read(tmp_path, photograph):
    rgb, grey = Image.fromarray(photograph), Image.fromarray(photograph[..., 0])
    assert np.array_equal(saved(rgb, tmp_path), photograph)
    assert np.array_equal(saved(grey, tmp_path), photograph[..., 0])
    palette = rgb.quantize(64)
    assert np.array_equal(saved(palette, tmp_path), np.array(palette.convert("RGB")))
    opaque = rgb.copy()
    opaque.putalpha(255)
    assert np.array_equal(saved(opaque, tmp_path), photograph)
    assert saved(rgb.convert("CMYK"), tmp_path, "a.tif").shape == photograph.shape
    deep = Image.fromarray(photograph[..., 0].astype(np.uint16) * 257)
    assert np.array_equal(saved(deep, tmp_path), photograph[..., 0])
    bits = Image.fromarray(photograph[..., 0] > 99)
    assert np.array_equal(saved(bits, tmp_path), (photograph[..., 0] > 99) * np.uint8(255))


def test_exif_rotation_is_applied(tmp_path, photograph):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise to show
    assert np.array_equal(saved(Image.fromarray(photograph), tmp_path, exif=exif), np.rot90(photograph, -1))


def test_a_picture_survives_saving(tmp_path, photograph):
    utils.save_picture(tmp_path / "new" / "a.png", photograph)
    assert np.array_equal(utils.read_picture(tmp_path / "new" / "a.png"), photograph)


def test_files_are_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), utils.write_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("ne")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_value_ranges_are_inverse_to_each_other():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(utils.to_uint8(utils.to_signed(values)), values)
    assert utils.to_signed(values)[[0, 255]].tolist() == [-1, 1] and utils.to_unit(values)[[0, 255]].tolist() == [0, 1]
    assert utils.to_uint8(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


# ---------------------------------------------------------------------------------------------- metrics


@pytest.mark.parametrize("name, folder, wanted", [
    ("Set5", "Set5", (28.4177, 0.8101)), ("Set14", "Set14", (25.9933, 0.7023)), ("B100", "BSD100", (25.9565, 0.6672))])
def test_bicubic_equals_the_published_row_to_every_digit(benchmarks, tmp_path, name, folder, wanted):
    report, = create_data_lists.create_data_lists(None, {name: benchmarks / folder}, tmp_path, progress=False)
    scores = evaluation.score_sets({"bicubic": utils.bicubic}, [report.csv_file], progress=False)
    assert tuple(round(mean, 4) for mean in evaluation.mean_scores(scores)[:2]) == wanted


def test_psnr_worked_by_hand():
    grey = np.full((20, 20), 100, np.uint8)
    other = grey.copy()
    other[4:16, 4:16] += 5
    other[0] = 255  # border: does not count
    assert utils.psnr(other, grey) == pytest.approx(20 * math.log10(255 / 5))
    assert utils.psnr(grey, grey) == math.inf
    white, black = np.full((20, 20, 3), 255, np.uint8), np.zeros((20, 20, 3), np.uint8)
    assert utils.psnr(white, black) == pytest.approx(20 * math.log10(255 / 219))  # luma 235 and 16


def test_ssim_worked_by_hand(photograph):
    assert utils.ssim(photograph, photograph) == pytest.approx(1)
    a, b = np.full((30, 30), 100, np.uint8), np.full((30, 30), 120, np.uint8)
    assert utils.ssim(a, b) == pytest.approx((2 * 100 * 120 + 2.55**2) / (100**2 + 120**2 + 2.55**2))
    # a picture and its own transpose, computed plainly from the article's equation 13
    x, y = (utils.luma(p)[4:-4, 4:-4] for p in (photograph[:40, :40], photograph[:40, :40].transpose(1, 0, 2)))
    g = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(g, g) / g.sum() ** 2
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            p, q = (image[top : top + 11, left : left + 11] for image in (x, y))
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * p * p).sum() - mp * mp, (window * q * q).sum() - mq * mq
            c = (window * p * q).sum() - mp * mq
            values.append((2 * mp * mq + 2.55**2) * (2 * c + 7.65**2)
                          / ((mp * mp + mq * mq + 2.55**2) * (vp + vq + 7.65**2)))
    other = np.ascontiguousarray(photograph[:40, :40].transpose(1, 0, 2))
    assert utils.ssim(photograph[:40, :40], other) == pytest.approx(np.mean(values), abs=1e-6)


# -------------------------------------------------------------------------------------------- enlarging


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(1)
    return models.Generator(4, channels=8, blocks=2)


@pytest.mark.parametrize("tile", [30, 40, 64, 200])
def test_tiles_leave_no_seam(generator, photograph, tile):
    image = photograph[:70, :93]
    whole = utils.super_resolve(generator, image, tile=1000)
    tiled = utils.super_resolve(generator, image, tile=tile)
    assert whole.shape == (280, 372, 3)
    assert np.abs(whole.astype(int) - tiled).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (64, 64)])
def test_any_size_is_enlarged(generator, size):
    assert utils.super_resolve(generator, np.zeros((*size, 3), np.uint8)).shape == (size[0] * 4, size[1] * 4, 3)


def test_grey_stays_grey_and_the_generator_stays_in_its_mode(generator, photograph):
    generator.train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    assert utils.super_resolve(generator, photograph[:20, :30, 0].copy()).shape == (80, 120)
    assert generator.training
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_memory_is_bounded_by_the_tile():
    """With 64 channels, uncut, a single float activation at the full size would take 2.8 GB here."""
    program = ("import numpy as np, models, utils\n"
               "generator = models.Generator(blocks=1, first_kernel=3, last_kernel=1, channels=64)\n"
               "picture = np.zeros((678, 1020, 3), np.uint8)\n"
               "assert utils.super_resolve(generator, picture).shape == (2712, 4080, 3)\n"
               "import re; print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1_900_000  # kB


def test_when_memory_runs_out_smaller_tiles_are_tried(generator, photograph, monkeypatch):
    image, seen = photograph[:70, :93], []
    wanted = utils.super_resolve(generator, image)

    def forward(self, low, forward=models.Generator.forward):
        seen.append(low.shape[-1])
        if low.shape[-1] > 60 and low.shape[-2] > 16:  # (a strip of 16 is how the reach is found)
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, low)

    monkeypatch.setattr(models.Generator, "forward", forward)
    assert np.abs(utils.super_resolve(generator, image, tile=200).astype(int) - wanted).max() <= 1
    assert max(seen) > 60 and seen[-1] <= 60


def test_batch_norm_is_folded_away_without_a_trace(photograph):
    torch.manual_seed(2)
    trained = models.Generator(4, channels=8, blocks=2, first_norm=True)
    for module in trained.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values, low, high in [(module.running_mean, -1, 1), (module.running_var, 0.5, 2), (module.bias, -1, 1)]:
                torch.nn.init.uniform_(values, low, high)
    image = photograph[:40, :50]
    with torch.no_grad():
        plain = utils.to_uint8(trained.eval()(utils.to_unit(utils.to_batch(image))))[0].permute(1, 2, 0).numpy()
    exact = utils.super_resolve(trained, image, precision="fp32")
    assert np.abs(exact.astype(int) - plain).max() <= 1 and (exact == plain).mean() > 0.999
    rounded = utils.super_resolve(trained, image, precision="bf16")
    assert np.abs(rounded.astype(int) - plain).mean() < 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_enlarger_keeps_the_weights_it_was_made_with(photograph, precision):
    network = models.Generator(4, channels=4, blocks=1, batch_norm=False)
    enlarge = utils.Enlarger(network, precision=precision)
    before = enlarge(photograph[:20, :20])
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1)
    assert np.array_equal(enlarge(photograph[:20, :20]), before)


def test_a_folder_is_enlarged_in_one_call(generator, photograph, tmp_path):
    for name in ("a.png", "b.png"):
        utils.save_picture(tmp_path / "in" / name, photograph[:20, :30])
    (tmp_path / "in" / "notes.txt").write_text("hello")
    written, left_out = utils.super_resolve_folder(generator, tmp_path / "in", tmp_path / "out", progress=False)
    assert [path.name for path in written] == ["a.png", "b.png"] and [name for name, _ in left_out] == ["notes.txt"]
    assert np.array_equal(utils.read_picture(written[1]), utils.super_resolve(generator, photograph[:20, :30]))


# ------------------------------------------------------------------------------------------ checkpoints


class Payload:
    """Pickled, this creates a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_generator_survives_saving(tmp_path, generator, photograph):
    save_generator(tmp_path / "g.pt", generator, {"epoch": 3}, channels=8, blocks=2)
    again = evaluation.load_generator(tmp_path / "g.pt")
    image = photograph[:20, :20]
    assert np.array_equal(utils.super_resolve(again, image), utils.super_resolve(generator, image))
    assert runs.load_checkpoint(tmp_path / "g.pt")["epoch"] == 3


def test_a_generator_can_be_handed_on_as_safetensors_in_half_the_size(tmp_path, generator, photograph):
    save_generator(tmp_path / "g.pt", generator, channels=8, blocks=2)
    save_generator(tmp_path / "g.safetensors", generator, {"updates": 3}, channels=8, blocks=2)
    assert (tmp_path / "g.safetensors").stat().st_size < 0.6 * (tmp_path / "g.pt").stat().st_size
    again, image = evaluation.load_generator(tmp_path / "g.safetensors"), photograph[:20, :20]
    assert all(value.dtype == torch.float32 for value in again.parameters())
    difference = utils.super_resolve(again, image, precision="fp32") - utils.super_resolve(
        generator, image, precision="fp32").astype(int)
    assert np.abs(difference).max() <= 1
    assert runs.load_checkpoint(tmp_path / "g.safetensors")["updates"] == 3


def test_of_several_checkpoints_those_are_loaded_that_are_there_and_fit(tmp_path, generator, capsys):
    save_generator(tmp_path / "four.pt", generator, channels=8, blocks=2)
    save_generator(tmp_path / "two.pt", models.Generator(2, channels=4, blocks=1), scale=2, channels=4, blocks=1)
    files = {name: tmp_path / f"{name}.pt" for name in ("none", "four", "two")}
    assert list(evaluation.load_generators(files)) == ["four"]
    text = capsys.readouterr().out
    assert f"none is left out: there is no file {files['none']}" in text
    assert f"two is left out: {files['two']} enlarges ×2, and the first ×4" in text
    with pytest.raises(ValueError, match="there is none of the checkpoints .*none.pt; train first"):
        evaluation.load_generators({"none": files["none"]})


@pytest.mark.parametrize("name", ["srresnet", "srgan"])
def test_the_reference_is_the_papers_generator_and_scores_what_its_card_says(name, benchmarks, tmp_path):
    generator = evaluation.load_generator(ROOT / "weights" / f"{name}.safetensors")
    kept = runs.load_checkpoint(ROOT / "weights" / f"{name}.safetensors")["generator_settings"]
    assert kept == recipes.section(recipes.settings("paper"), "generator")
    card = (ROOT / "weights" / "README.md").read_text(encoding="utf-8")
    said = re.search(rf"\| `{name}\.safetensors` \|[^|]*\| ([\d.]+) / ([\d.]+) / ([\d.]+) \|", card)
    create_data_lists.create_data_lists(None, {"Set5": benchmarks / "Set5"}, tmp_path, progress=False)
    found = evaluation.mean_scores(evaluation.evaluate(utils.Enlarger(generator),
                                                       datasets.TestDataset(tmp_path / "Set5.csv"), progress=False))
    for value, text, margin in zip(found, said.groups(), (0.02, 0.001, 0.05), strict=True):
        assert value == pytest.approx(float(text), abs=margin)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_that_carries_code_is_refused_and_the_code_not_run(tmp_path, generator, legacy):
    content = {"generator": generator.state_dict(), "generator_settings": {"channels": 8, "blocks": 2},
               "note": Payload(tmp_path / "ran")}
    torch.save(content, tmp_path / "evil.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match="evil.pt: (refused, because it holds more than tensors|not a readable check)"):
        runs.load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------------------ plots


def test_plots_show_what_they_are_given(photograph, tmp_path):
    pair = type("Pair", (), dict(name="x", lr=photograph[:40, :40], hr=photograph[:160, :160]))
    methods = evaluation.methods({"G": models.Generator(4, channels=4, blocks=1)})
    pictures = evaluation.enlarge_all(pair, methods)
    assert list(pictures) == ["low resolution", "bicubic", "G", "original"]
    captions = evaluation.score_captions(pictures)
    assert list(captions) == ["bicubic", "G"]
    assert captions["bicubic"].startswith(f"{utils.psnr(pictures['bicubic'], pair.hr):.2f} dB")
    figure = plots.plot_comparison(pictures, captions=captions)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:4] == ["low resolution\n", f"bicubic\n{captions['bicubic']}", f"G\n{captions['G']}", "original\n"]
    six = plots.plot_comparison({str(n): pair.hr for n in range(6)})
    assert [axis.get_title().strip() for axis in six.axes if axis.get_title()] == list("012345")
    assert len(six.axes) == 4 * 3  # two bands of three, each with wholes and details


def test_rows_of_pictures_show_the_detail_of_their_own_photograph():
    rows = {}
    for name, left in [("near", 8), ("far", 200)]:
        picture = np.full((128, 256, 3), 90, np.uint8)
        picture[80:112:2, left : left + 32] = 200
        rows[name] = {"plain": np.full_like(picture, 90), "original": picture}
    figure = plots.plot_rows(rows, 48)
    shown = [axis.images[0].get_array() for axis in figure.axes]
    assert [picture.shape for picture in shown] == [(48, 48, 3)] * 4
    assert all((picture == 200).sum() == 16 * 32 * 3 for picture in shown[1::2])


def test_minutes_add_up(tmp_path):
    history = [{"phase": "warmup", "seconds": 60, "psnr": 27.0}, {"phase": "warmup", "seconds": 120, "psnr": 28.0},
               {"phase": "adversarial", "seconds": 60, "psnr": 26.0}]
    lines = plots.plot_minutes({"mine": history}).axes[0].lines
    assert [list(line.get_xdata()) for line in lines] == [[1, 3], [4]]
    assert [list(line.get_ydata()) for line in lines] == [[27, 28], [26]]


def test_the_detail_is_where_the_fine_structure_is():
    picture = np.full((128, 160, 3), 90, np.uint8)
    picture[80:112:2, 40:72] = 200
    top, left, side = plots.detail_window(picture, 48)
    assert side == 48 and 80 - 20 < top <= 80 and 40 - 20 < left <= 40


def test_text_tables_are_aligned():
    lines = utils.Table([["a", 1], ["long", 22]], ["name", "n"]).splitlines()
    assert lines == ["name   n", "────  ──", "a      1", "long  22"]
