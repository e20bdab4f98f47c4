"""NIQE, LPIPS and other measures."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch

import models
import utils
from helpers import make_lists
from kit import evaluation
from kit.evaluation import measure
from kit.evaluation.measure import naturalness
from kit.evaluation.niqe import niqe
from kit.handin import report

# Of BasicSR's program on the same lumas, 4 pixels cut. In areas of one grey (astronaut, rocket, ihc), the signs of its
# rounding errors decide, so it is met less closely there.
INDEPENDENT = {
    "astronaut.png": (3.015032, 0.03), "camera.png": (3.046749, 1e-4), "chelsea.png": (2.689314, 1e-5),
    "coffee.png": (4.079650, 1e-3), "motorcycle_left.png": (2.682329, 1e-4), "rocket.jpg": (6.729312, 0.005),
    "coins.png": (3.974569, 1e-4), "brick.png": (9.829083, 1e-4), "grass.png": (6.487821, 1e-5),
    "gravel.png": (4.390309, 1e-5), "moon.png": (9.214489, 1e-4), "ihc.png": (3.271406, 0.005),
    "hubble_deep_field.jpg": (7.830951, 1e-5), "page.png": (9.484811, 1e-3)}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_it_gives_what_an_independent_program_gives(name):
    value, tolerance = INDEPENDENT[name]
    picture = utils.read_picture(Path(skimage.__file__).parent / "data" / name, stored=True)
    assert naturalness(picture) == pytest.approx(value, abs=tolerance)


def test_it_gives_what_matlab_gives(benchmarks):
    baboon = utils.read_picture(benchmarks / "Set14" / "image_SRF_4" / "img_001_SRF_4_HR.png")
    assert niqe(utils.luma(baboon)) == pytest.approx(5.72957338, abs=2e-6)  # MATLAB R2021a, by BasicSR's notes


def test_blur_is_unnatural_and_noise_deceives_it(photograph):
    blurred = utils.bicubic(utils.imresize(photograph[:296, :448], 1 / 4))
    noisy = np.clip(blurred + np.random.default_rng(0).normal(0, 1, blurred.shape), 0, 255).astype(np.uint8)
    original, blur, noise = (naturalness(p) for p in (photograph, blurred, noisy))
    assert original < noise < blur


def test_pictures_that_are_too_small_have_none(photograph):
    with pytest.raises(ValueError, match="two blocks of 96×96 pixels; a picture of 100×100 is too small"):
        niqe(utils.luma(photograph[:100, :100]))
    with pytest.raises(ValueError, match="not of one grey"):
        niqe(np.full((200, 200), 7.0))
    assert naturalness(photograph[:100, :100]) is None
    assert evaluation.mean_scores([{"psnr": 20, "ssim": 0.5, "niqe": None}]) == (20, 0.5, None)


def test_other_measures_stand_behind_the_three(small_lists, tmp_path):
    def contrast(picture, original):
        return float(picture.std() / original.std())

    scores = evaluation.score_sets({"bicubic": utils.bicubic}, [small_lists / "valid.csv"], progress=False,
                                   originals=True, also={"contrast": contrast})
    assert 0.5 < scores[0]["contrast"] < 1 == scores[1]["contrast"]
    table = evaluation.save_scores(scores, tmp_path)
    assert "NIQE / contrast" in table and table.splitlines()[3].endswith("/ 1.0000")
    assert f"/ {scores[0]['contrast']:.4f}" in report._scores(tmp_path / "scores.csv")


def test_lpips_says_what_it_lacks(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", None)
    with pytest.raises(ImportError, match="pip install torchmetrics"):
        evaluation.lpips()


def test_lpips_with_a_file_of_the_format_of_alexnets_weights(monkeypatch, tmp_path, photograph):
    pytest.importorskip("torchmetrics", reason="LPIPS is an option that needs torchmetrics, which is not installed")
    from torchvision.models import alexnet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *a, **k: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(ConnectionError, match="no route.*put https.*alexnet-owt-7be5be79.pth into"):
        evaluation.lpips()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save(alexnet().state_dict(), tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth")
    measure = evaluation.lpips()
    blurred = utils.bicubic(utils.imresize(photograph[:96, :96], 1 / 4))
    assert measure(photograph[:96, :96], photograph[:96, :96]) == 0 < measure(blurred, photograph[:96, :96])


def test_score_tables_stand_beside_the_paper(small_lists):
    csv_file = small_lists / "valid.csv"
    scores = evaluation.score_sets({"bicubic": utils.bicubic, "again": utils.bicubic}, [csv_file], progress=False)
    assert [row["method"] for row in scores] == ["bicubic", "again"] and scores[0]["picture"] == "eye"
    for row in scores:
        row["set"] = "Set5"
    scores += [{**row, "set": "mine", "psnr": row["psnr"] + 1} for row in scores]
    lines = [line.split() for line in evaluation.score_table(scores).splitlines()]
    psnr, ssim, _ = evaluation.mean_scores(scores[:2])
    assert lines[0] == ["PSNR", "/", "SSIM", "/", "NIQE", "Set5", "(1)", "mine", "(1)"]
    assert lines[2] == ["bicubic", f"{psnr:.2f}", "/", f"{ssim:.4f}", "/", "–", f"{psnr + 1:.2f}", "/",
                        f"{ssim:.4f}", "/", "–"]
    assert lines[3][0] == "again" and ["paper:", "SRResNet", "32.05", "/", "0.9019"] in lines
    assert len(evaluation.score_table(scores[2:]).splitlines()) == 4  # nothing is published of that set


def test_of_a_large_picture_it_is_said_what_it_takes_and_bars_show_it(photograph, monkeypatch, capsys):
    methods = evaluation.methods({"G": models.Generator(4, channels=4, blocks=1)})
    picture = np.ascontiguousarray(photograph[:60, :80])
    small = evaluation.enlarge_each(picture, methods)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(measure, "LARGE", 1000)
    large = evaluation.enlarge_each(picture, methods)
    out = capsys.readouterr().out
    assert re.search(r"80×60 becomes 320×240, which takes about [\d.]+ minutes in all", out)
    assert "G:\n" in out and "enlarging: 100%" in out
    assert list(large) == ["bicubic", "G"] and all(np.array_equal(large[name], small[name]) for name in small)
    assert not methods["G"].progress  # as before


def test_a_picture_too_small_for_ssim_is_named_and_left_out(tmp_path, photograph, capsys):
    utils.save_picture(tmp_path / "set" / "large.png", photograph[:48, :48])
    utils.save_picture(tmp_path / "set" / "icon.png", photograph[:16, :16])
    [report] = make_lists(tests={"mine": tmp_path / "set"}, out=tmp_path)
    scores = evaluation.score_sets({"bicubic": utils.bicubic}, [report.csv_file], progress=False)
    assert [row["picture"] for row in scores] == ["large"]
    assert capsys.readouterr().out == "mine: left out, for they are too small for SSIM: icon\n"
    assert "mine (1)" in evaluation.score_table(scores)
    (tmp_path / "set" / "large.png").unlink()
    [report] = make_lists(tests={"mine": tmp_path / "set"}, out=tmp_path)
    with pytest.raises(ValueError, match="mine: all of its pictures are too small for SSIM: icon"):
        evaluation.score_sets({"bicubic": utils.bicubic}, [report.csv_file], progress=False)


def test_a_self_ensemble_stands_behind_its_generator(generator, photograph):
    found = evaluation.methods({"warmup": generator, "other": generator}, ensembles=["warmup", "not there"])
    assert list(found) == ["bicubic", "warmup", "warmup+", "other"]
    small = np.ascontiguousarray(photograph[:20, :24])
    assert np.array_equal(found["warmup+"](small), utils.super_resolve(generator, small, self_ensemble=True))
