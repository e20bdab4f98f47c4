"""The tools: comparing recipes, the benchmark, running notebooks."""

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import solver
from helpers import SYSTEMS, changed, copy_kit
from kit import runs


def test_the_comparison_of_the_recipes(small_lists, tmp_path):
    from kit.tools import compare_recipes

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
    from kit.tools import benchmark

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_notebooks_leaves_them_as_they_were(tmp_path, number):
    import nbformat

    copy_kit(tmp_path)
    cell = nbformat.v4.new_code_cell("import time; print('begun'); time.sleep(60)")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    nbformat.write(notebook, tmp_path / "slow.ipynb")
    before = (tmp_path / "slow.ipynb").read_bytes()
    process = subprocess.Popen([sys.executable, "-u", "-m", "kit.tools.run_notebooks", "--inplace", "slow.ipynb"],
                               cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "begun" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1 and "stopped; what was trained is kept" in errors and "Traceback" not in errors
    assert (tmp_path / "slow.ipynb").read_bytes() == before


def test_the_benchmark_of_threads_trains_beside_other_programs(monkeypatch, small_settings):
    from kit.tools import benchmark_threads

    monkeypatch.setattr(benchmark_threads, "SECONDS", 0.2)
    monkeypatch.setattr(benchmark_threads, "COMPANY", {"one core busy": [benchmark_threads.BUSY]})
    monkeypatch.setattr(benchmark_threads.create_data_lists, "create_demo_lists", lambda *_, **__: [
        SimpleNamespace(csv_file=Path(f"demo_{what}")) for what in ("train", "test")])
    monkeypatch.setattr(solver, "settings", lambda recipe, train_list, valid_list, **given: changed(
        small_settings, **given))
    monkeypatch.setattr(benchmark_threads, "counts", lambda: [2, 1])
    _, rows = benchmark_threads.benchmark_threads()
    assert [row[0] for row in rows] == ["warm-up update, one core busy", "adversarial update, one core busy",
                                        "2 runs of a sweep, one after the other | at once"]
    assert all(0 < value < 1e5 for row in rows for value in row[1:])
