"""Runs side by side, and followed."""

import csv

import pytest

import solver
from helpers import train
from kit import compare, plots, runs
from kit.compare import tables


def test_the_table_of_runs(small_settings, tmp_path, capsys):
    train(small_settings, name="low", warmup_lr=1e-5, adversarial_epochs=0)
    train(small_settings, name="high", warmup_lr=1e-2, warmup_schedule="constant")
    with pytest.raises(FloatingPointError):
        train(small_settings, name="wild", adversarial_lr=1e30, clip_gradients=None, precision="fp32")
    table = compare.table(folder=small_settings.runs)
    header, *rows = table.cells
    assert header == ["run", "differs in", "state", "epochs", "minutes", "PSNR", "SSIM", "NIQE", "best PSNR"]
    best = [float(row[-1]) for row in rows]
    assert best == sorted(best, reverse=True)
    states = {row[0]: row[header.index("state")] for row in rows}
    assert states == {"low": "finished", "high": "finished", "wild": "diverged"}
    assert {row[0]: row[header.index("epochs")] for row in rows} == {"low": "2", "high": "2 + 2", "wild": "2"}
    two = compare.table(["low", "high"], "name", small_settings.runs)
    assert two.cells[0][:3] == ["run", "warmup_lr", "warmup_schedule"] and two.cells[1][:2] == ["high", "0.01"]
    assert "<th" in two._repr_html_()
    assert tables.main(["low", "--runs", small_settings.runs, "--csv", str(tmp_path / "t.csv")]) is None
    assert "low" in capsys.readouterr().out
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["low"]
    with pytest.raises(ValueError, match="sort must be one of psnr"):
        compare.table(sort="colour", folder=small_settings.runs)


def test_curves_lie_on_one_axis_and_pictures_side_by_side(small_settings):
    first = train(small_settings, adversarial_epochs=0)
    train(small_settings, name="second", warmup_epochs=0,
          start_from=runs.checkpoints("small", small_settings.runs)["warmup"])
    assert [row["updates"] for row in runs.read_history("second", small_settings.runs)] == [15, 20]
    lines = {"bicubic": 20.0}
    figure = compare.curves(folder=small_settings.runs, lines=lines)
    labels = figure.axes[2].get_legend_handles_labels()[1]
    assert labels == ["second, adversarial", "small, warmup", "bicubic, 20.00"]
    titles = [axis.get_title().split("\n")[0] for axis in compare.pictures(folder=small_settings.runs).axes[:4]]
    assert titles == ["bicubic", "second, adversarial 2", "small, warmup 2", "original"]
    with pytest.raises(ValueError, match="has kept 'nose'"):
        compare.pictures(picture="nose", folder=small_settings.runs)
    assert plots.plot_history({"none": []}) and first


def test_a_run_can_be_followed_from_its_folder(small_settings, capsys):
    trainer = solver.Trainer(small_settings, progress=False)
    seen = []

    def meanwhile(history):
        run = runs.Run("small", small_settings.runs)
        seen.append(run.progress()["state"])

    trainer.train(on_epoch=meanwhile)
    assert seen.count("running") == 4
    compare.follow("small", small_settings.runs)
    assert "run 'small': finished\nlast epoch: adversarial 2/2: content" in capsys.readouterr().out
