"""The tools: comparing recipes, the benchmark, running notebooks."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import datasets
import solver
import utils
from helpers import ROOT, SYSTEMS, changed, copy_kit
from imresize import imresize
from kit import runs
from kit.evaluation.generators import load_generator


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


def test_one_command_trains_the_reference_from_nothing(small_lists, photograph, tmp_path, vgg16_weights, monkeypatch):
    from kit.tools import reference

    monkeypatch.chdir(tmp_path)  # the lists of the demo are made there
    for folder, count in [("pictures", 3), ("more", 4), ("most", 5)]:
        for i in range(count):
            utils.save_picture(tmp_path / folder / f"{i}.png", photograph[40 * i : 40 * i + 98, 100:200])
    small = dict(valid_list=str(small_lists / "valid.csv"), updates_per_epoch=2, channels=4, blocks=1, crop=32,
                 batch_size=2, discriminator_channels=2, discriminator_dense=4, device="cpu",
                 threads=torch.get_num_threads())

    def train():
        reference.train_reference(tmp_path / "pictures", tmp_path / "more", tmp_path / "most", vgg16_weights[0],
                                  tmp_path / "out", tmp_path / "runs", 1, **small)
        return ({path: path.read_bytes() for path in tmp_path.glob("runs/*/history.csv")},
                [load_generator(tmp_path / "out" / f"{name}.safetensors") for name in ("srresnet", "srgan")])

    histories, first = train()
    again, second = train()  # what is done is not done again
    assert len(histories) == 9 and again == histories
    for one, other in zip(first, second):
        assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
    assert utils.read_picture(tmp_path / "out" / "details.png").shape[:2] == (1050, 1050)
    srresnet, srgan = first
    assert not torch.equal(srresnet.last[0].weight, srgan.last[0].weight)
    older, newer = ([runs.load_checkpoint(tmp_path / f"runs/reference_{run}/checkpoints/{phase}_001.pt")["generator"]
                     for phase in phases] for run, phases in
                    [("features", ["consistent", "fine"]), ("finer", ["lighter", "calm", "even"])])
    start, teacher, *learned = (runs.load_checkpoint(tmp_path / "out" / f"{name}.pt")["generator"]
                                for name in ("srgan_start", "teacher", "more", "most", "longest"))
    for name, value in srgan.state_dict().items():
        if value.is_floating_point():
            before = (older[0][name] + older[1][name]) / 2
            wanted = 0.1 * before + 0.2 * newer[0][name] + 0.35 * (newer[1][name] + newer[2][name])
            assert torch.allclose(value, wanted, rtol=2e-3, atol=1e-5)
            assert torch.allclose(start[name], before + learned[0][name] - teacher[name], rtol=2e-3, atol=1e-5), name
    recorded = json.loads((tmp_path / "runs" / "reference_pixels" / "settings.json").read_text(encoding="utf-8"))
    assert [segment["trained_by"]["discriminator_rate"] for segment in recorded] == [1, 1, 2]
    assert [segment["trained_by"]["content_loss"][:3] for segment in recorded] == ["0.5", "0.1", "0.1"]
    taught, *trained = (runs.load_checkpoint(tmp_path / f"runs/reference_{name}/checkpoints/{name}.pt")["generator"]
                        for name in ("taught", "more", "most", "longest"))
    for before, after, mean in zip([taught, *learned], trained, learned):
        for name, value in after.items():  # the statistics stay while the weights learn
            assert torch.equal(value, before[name]) == ("running" in name or "num_batches" in name), name
            if value.is_floating_point():
                assert torch.allclose(mean[name], (before[name] + 2 * value) / 3, rtol=1e-5, atol=1e-7)
    for name, value in srresnet.state_dict().items():  # (srresnet.safetensors is rounded)
        assert torch.allclose(value, learned[-1][name], rtol=1e-3, atol=1e-6), name
    lists = [datasets.read_list(tmp_path / "out" / "lists" / name / "train.csv") for name in ("more", "most")]
    assert [len(rows) for rows in lists] == [4, 5]
    teacher = utils.Enlarger(load_generator(tmp_path / "out" / "teacher.pt"), self_ensemble=True)
    for pair in datasets.TestDataset(tmp_path / "out" / "lists" / "taught" / "train.csv"):
        original, halfway = (utils.read_picture(tmp_path / folder / name) for folder, name in
                             [("pictures", f"{int(pair.name)}.png"), ("out/halfway", f"{pair.name}.png")])
        original = original[:96, :100]
        assert np.array_equal(pair.hr, teacher(imresize(original, 1 / 4)))
        assert np.abs((original.astype(int) + pair.hr) / 2 - halfway).max() <= 0.5


def test_the_benchmark_trains_both_the_plain_way_and_the_kits(monkeypatch, vgg19_weights):
    from kit.tools import benchmark

    def once(*functions, rounds=None):
        for function in functions[:2]:
            function()
        return [1.0, 4 * 0.5]  # an update the plain way, and the kit's epoch of four

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
    cell = nbformat.v4.new_code_cell("import time; print('begun'); time.sleep(600)")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    nbformat.write(notebook, tmp_path / "slow.ipynb")
    before = (tmp_path / "slow.ipynb").read_bytes()
    process = subprocess.Popen([sys.executable, "-u", "-m", "kit.tools.run_notebooks", "--inplace", "slow.ipynb"],
                               cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "begun" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
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


def test_a_kernel_that_dies_is_not_called_stopped(tmp_path):
    import nbformat

    cells = [nbformat.v4.new_code_cell("import os\nos.kill(os.getpid(), 9)")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "dies.ipynb")
    done = subprocess.run([sys.executable, "-m", "kit.tools.run_notebooks", str(tmp_path / "dies.ipynb"), "--out",
                           str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "the kernel that ran it could not go on (DeadKernelError" in done.stderr and "stopped" not in done.stderr
