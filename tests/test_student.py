"""The student's hour: runs that say what trained them, comparing many, a calm screen, mistakes in one sentence."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, start
from easydict import EasyDict

import bench
import create_data_lists
import machine
import plots
import recipes
import runs
import solver
import utils


def changed(cfg, **changes):
    return EasyDict({**cfg, **changes})


def train(cfg, **changes):
    made = solver.Trainer(changed(cfg, **changes), progress=False)
    made.train()
    return made


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.generator.state_dict().values(), b.generator.state_dict().values()))


def stretches(cfg):
    return json.loads(Path(cfg.runs, cfg.name, "settings.json").read_bytes())


# ------------------------------------------------------------------------------- runs that tell the truth


def test_a_change_that_touches_trained_epochs_asks_for_a_new_name(small_settings):
    train(small_settings)
    weight = small_settings.adversarial_weight
    for changes, words in [
        (dict(warmup_lr=1e-3), "its warmup was trained with warmup_lr = 0.002, not 0.001.*cfg.name = \"small_2\"$"),
        (dict(warmup_schedule="constant"), "warmup_schedule = 'one_cycle', not 'constant'"),
        (dict(ema_decay=0.5), "its warmup was trained with ema_decay"),
        (dict(adversarial_weight=0.1), f"its adversarial was trained with adversarial_weight = {weight}, not 0.1.*"
                                       "cfg.name, cfg.fork_of = \"small_2\", \"small\" starts it with .* its warmup$"),
        (dict(content_loss="2 mse"), "its adversarial was trained with content_loss = 'mse [+] 2 low', not '2 mse'"),
        (dict(updates="simultaneous"), "the epoch function = 'alternating_epoch', not 'simultaneous_epoch'"),
        (dict(warmup_epochs=3), "its warmup ended after 2 epochs, and its adversarial has begun, so warmup_epochs = 3 "
                                "comes too late.*fork_of"),
        (dict(warmup_epochs=1), "2 epochs of its warmup are trained, and warmup_epochs = 1 are fewer"),
        (dict(adversarial_epochs=1), "2 epochs of its adversarial are trained"),
    ]:
        with pytest.raises(ValueError, match=words):
            solver.Trainer(changed(small_settings, **changes), progress=False)
    assert [s["settings"]["warmup_lr"] for s in stretches(small_settings)] == [0.002] * 2
    train(small_settings, device="cpu", save_minutes=3, sample_pictures=1)  # none of these touches what is trained


def test_a_fork_keeps_what_is_valid_and_ends_as_if_trained_from_the_beginning(small_settings, capsys):
    train(small_settings)
    wanted = train(small_settings, name="whole", adversarial_weight=0.1)
    other = changed(small_settings, name="forked", fork_of="small", adversarial_weight=0.1)
    forked = solver.Trainer(other)
    assert "new, with the warmup of 'small': warmup at 2 of 2 epochs" in capsys.readouterr().out
    assert not Path(small_settings.runs, "forked").exists()  # opening writes nothing
    forked.train()
    assert equal(forked, wanted)
    assert [{**row, "seconds": 0} for row in forked.history] == [{**row, "seconds": 0} for row in wanted.history]
    folder = forked.run.folder
    assert (folder / "checkpoints" / "warmup.pt").is_file() and forked.run.sampled_epochs("warmup", "eye") == [1, 2]
    assert [(s["phase"], s["settings"]["adversarial_weight"]) for s in stretches(other)] == [
        ("warmup", small_settings.adversarial_weight), ("adversarial", 0.1)]
    assert train(other).history == forked.history  # resumed like any other
    longer = train(small_settings, name="longer", fork_of="small", warmup_epochs=3)
    assert [row["phase"] for row in longer.history] == ["warmup"] * 3 + ["adversarial"] * 2
    with pytest.raises(ValueError, match="fork_of: there is no run 'smal' .*did you mean 'small'"):
        solver.Trainer(changed(small_settings, name="x", fork_of="smal"), progress=False)
    for changes, words in [(dict(warmup_lr=1e-3), "anew: its warmup was trained with warmup_lr = 0.002, not 0.001"),
                           (dict(channels=8), "anew: it was begun with channels = 4, not 8")]:
        solver.Trainer(changed(small_settings, name="x", fork_of="small", **changes))
        assert words in capsys.readouterr().out


def test_what_trained_each_epoch_is_recorded_with_it(small_settings, capsys):
    cfg = changed(small_settings, adversarial_epochs=1)
    train(cfg)
    longer = changed(cfg, adversarial_epochs=3, precision="fp32")
    solver.Trainer(changed(longer, precision="auto", adversarial_epochs=2)).train()
    solver.Trainer(longer).train()
    printed = capsys.readouterr().out
    assert "its schedule, step, is stretched from 1 to 2 epochs" in printed
    assert [(s["phase"], s["first_epoch"], s["last_epoch"], s["planned_epochs"], s["settings"]["precision"])
            for s in stretches(cfg)] == [("warmup", 1, 2, 2, "auto"), ("adversarial", 1, 1, 1, "auto"),
                                         ("adversarial", 2, 2, 2, "auto"), ("adversarial", 3, 3, 3, "fp32")]
    assert "def warmup_epoch(generator, batches):" in stretches(cfg)[0]["source"]


def test_own_hyperparameters_are_recorded_and_compared(small_settings):
    def epoch(generator, batches, power=1.0):
        for low, high in batches:
            loss = (generator(low).float() - high).abs().pow(power).mean()
            generator.descend(loss)
            yield {"power_loss": loss}

    phase = solver.Phase("own", epoch, 1, 1e-3)
    solver.Trainer(small_settings, [phase], progress=False).train()
    assert stretches(small_settings)[0]["trained_by"]["power of the epoch function"] == "1.0"
    epoch.__defaults__ = (2.0,)
    with pytest.raises(ValueError, match="own was trained with power of the epoch function = '1.0', not '2.0'"):
        solver.Trainer(small_settings, [phase], progress=False)


def test_settings_changed_after_the_trainer_was_made_are_noticed(small_settings):
    trainer = solver.Trainer(small_settings, progress=False)
    trainer.warm_up()
    small_settings.adversarial_epochs = 3
    with pytest.raises(ValueError, match="adversarial_epochs was 2 when the trainer was made, and cfg says 3 now"):
        trainer.train_adversarially()


def test_what_can_be_known_to_fail_fails_before_anything_is_trained(small_settings, tmp_path, monkeypatch):
    for changes, words in [
        (dict(content_loss="vgg99"), "content_loss must be"), (dict(content_loss="vgg14"), "content_loss must be"),
        (dict(content_loss="vgg22", vgg_weights=str(tmp_path / "none.pth")), "vgg_weights: there is no file .*none"),
        (dict(crop=50), "crop must be a multiple of the scale .4., and of 16 for the discriminator, not 50"),
        (dict(device="gpu"), "device 'gpu' cannot be used .did you mean 'cuda'"),
    ]:
        with pytest.raises(ValueError, match=words):
            solver.Trainer(changed(small_settings, **changes), progress=False)
    with pytest.raises(ValueError, match="needs more than [0-9,]+ GB of memory, and there are .* choose a smaller"):
        solver.Trainer(changed(small_settings, batch_size=10**6, updates_per_epoch=1, patches_per_picture=10**6,
                               channels=64), progress=False)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="GB.* are free; make room"):
        solver.Trainer(small_settings, progress=False)
    assert not Path(small_settings.runs).exists()


# ---------------------------------------------------------------------------------------------- one name


def test_the_run_to_look_at_is_named_chosen_or_the_newest_and_said(small_settings, capsys):
    folder = small_settings.runs
    assert runs.chosen(folder=folder) is None and "train first" in capsys.readouterr().out
    for name in ("one", "two"):
        train(small_settings, name=name, adversarial_epochs=0)
    assert runs.chosen(folder=folder) == "two" and "run 'two', the newest\nothers: one" in capsys.readouterr().out
    runs.choose("one", folder)
    assert runs.chosen(folder=folder) == "one" and "the one chosen in train.ipynb" in capsys.readouterr().out
    assert runs.chosen("two", folder) == "two"
    with pytest.raises(FileNotFoundError, match="no run 'tow' .did you mean 'two'"):
        runs.chosen("tow", folder)
    assert list(runs.checkpoints("one", folder)) == ["warmup"]


# --------------------------------------------------------------------------------------------- the bench


def test_the_table_of_runs(small_settings, tmp_path, capsys):
    train(small_settings, name="low", warmup_lr=1e-5, adversarial_epochs=0)
    train(small_settings, name="high", warmup_lr=1e-2, warmup_schedule="constant")
    with pytest.raises(FloatingPointError):
        train(small_settings, name="wild", adversarial_lr=1e30, clip_gradients=None, precision="fp32")
    table = bench.table(folder=small_settings.runs)
    header, *rows = table.cells
    assert header == ["run", "differs in", "state", "epochs", "minutes", "PSNR", "SSIM", "NIQE", "best PSNR"]
    best = [float(row[-1]) for row in rows]
    assert best == sorted(best, reverse=True)
    states = {row[0]: row[header.index("state")] for row in rows}
    assert states == {"low": "finished", "high": "finished", "wild": "diverged"}
    assert {row[0]: row[header.index("epochs")] for row in rows} == {"low": "2", "high": "2 + 2", "wild": "2"}
    two = bench.table(["low", "high"], "name", small_settings.runs)
    assert two.cells[0][:3] == ["run", "warmup_lr", "warmup_schedule"] and two.cells[1][:2] == ["high", "0.01"]
    assert "<th" in two._repr_html_()
    assert bench.main(["low", "--runs", small_settings.runs, "--csv", str(tmp_path / "t.csv")]) is None
    assert "low" in capsys.readouterr().out
    with open(tmp_path / "t.csv", newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["low"]
    with pytest.raises(ValueError, match="sort must be one of psnr"):
        bench.table(sort="colour", folder=small_settings.runs)


def test_curves_lie_on_one_axis_and_pictures_side_by_side(small_settings):
    first = train(small_settings, adversarial_epochs=0)
    train(small_settings, name="second", warmup_epochs=0,
          start_from=runs.checkpoints("small", small_settings.runs)["warmup"])
    assert [row["updates"] for row in runs.read_history("second", small_settings.runs)] == [15, 20]
    lines = {"bicubic": 20.0}
    figure = bench.curves(folder=small_settings.runs, lines=lines)
    labels = figure.axes[2].get_legend_handles_labels()[1]
    assert labels == ["second, adversarial", "small, warmup", "bicubic, 20.00"]
    titles = [axis.get_title().split("\n")[0] for axis in bench.pictures(folder=small_settings.runs).axes[:4]]
    assert titles == ["bicubic", "second, adversarial 2", "small, warmup 2", "original"]
    with pytest.raises(ValueError, match="has kept 'nose'"):
        bench.pictures(picture="nose", folder=small_settings.runs)
    assert plots.plot_history({"none": []}) and first


def sweep(cfg, at_once, grid):
    bench.sweep(cfg, at_once=at_once, **grid)


@pytest.mark.parametrize("at_once, rates", [(1, [1e-4, 1e-3, 1e-2]), (2, [1e-3])])
def test_a_sweep_that_is_killed_is_resumed_and_ends_as_if_it_had_not_been(small_settings, at_once, rates):
    cfg = changed(small_settings, name="s", patches_per_picture=30, adversarial_epochs=1)
    grid = dict(warmup_lr=rates, adversarial_weight=[1e-3, 1e-2])
    count = 2 * len(rates)
    process = start(sweep, cfg, at_once, grid)
    while len(list(Path(cfg.runs).glob("*/checkpoints/last.pt"))) < count // 2:
        assert process.is_alive()
        time.sleep(0.05)
    process.kill()
    process.join()
    end = time.monotonic() + 30  # its processes notice, save and end
    while any(runs.Run(name, cfg.runs).is_locked() for name in runs.names(cfg.runs)):
        assert time.monotonic() < end
        time.sleep(0.1)
    states = [runs.Run(name, cfg.runs).progress()["state"] for name in runs.names(cfg.runs)]
    assert states.count("finished") < count
    table = bench.sweep(cfg, at_once=at_once, **grid)
    assert len(table.cells) == 1 + count and [row[table.cells[0].index("state")] for row in table.cells[1:]] == [
        "finished"] * count
    if at_once == 1:
        assert table.cells[0][:4] == ["run", "adversarial_weight", "warmup_lr", "state"]
        alone = train(cfg, name="alone", warmup_lr=1e-3, adversarial_weight=1e-2)
        swept = solver.Trainer(changed(cfg, name="s-warmup_lr_0.001-adversarial_weight_0.01", warmup_lr=1e-3,
                                       adversarial_weight=1e-2), progress=False)
        assert equal(swept, alone)


def test_a_failure_does_not_stop_a_sweep_and_seeds_show_the_spread(small_settings, capsys):
    cfg = changed(small_settings, name="s", adversarial_epochs=0, warmup_epochs=1, clip_gradients=None,
                  precision="fp32", warmup_schedule="constant")
    table = bench.sweep(cfg, [dict(warmup_lr=1e30), dict(warmup_lr=1e-3)], seeds=2)
    printed = capsys.readouterr().out
    assert printed.count(" failed: training has diverged") == 2
    assert table.cells[0] == ["warmup_lr", "seeds", "PSNR", "SSIM", "NIQE"]
    assert [row[:2] for row in table.cells[1:]] == [["1e+30", "0"], ["0.001", "2"]] and "±" in table.cells[2][2]
    last = [runs.read_history(f"s-warmup_lr_0.001-seed_{seed}", cfg.runs)[-1]["psnr"] for seed in (0, 1)]
    assert table.cells[2][2] == f"{np.mean(last):.2f} ± {np.std(last, ddof=1):.2f}"
    with pytest.raises(ValueError, match="give either a list of variants or lists of values"):
        bench.sweep(cfg)
    with pytest.raises(ValueError, match=r"write warmup_lr=\[0.001, …\]"):
        bench.sweep(cfg, warmup_lr=1e-3)
    with pytest.raises(ValueError, match="'s-warmup_lr_0.001' was begun with channels = 4, not 6"):
        bench.sweep(cfg, warmup_lr=[1e-3])
        bench.sweep(changed(cfg, channels=6), warmup_lr=[1e-3])


def test_what_a_stage_will_cost_is_told_and_the_run_does_not_notice(small_settings):
    wanted = train(small_settings, name="wanted")
    trainer = solver.Trainer(small_settings, progress=False)
    cost = trainer.cost()
    assert [row[0] for row in cost.cells] == ["phase", "warmup", "adversarial", "all"]
    assert [row[1:3] for row in cost.cells[1:3]] == [["2", "10"], ["2", "10"]]
    trainer.train()
    assert equal(trainer, wanted) and trainer.cost().cells[1:] == [["all", "", "", "", "0.0"]]


# ---------------------------------------------------------------------------------------- a calm screen


def test_the_screen_is_narrow_and_short(small_settings, capsys):
    solver.Trainer(small_settings).train()
    printed = capsys.readouterr().out
    lines = [line for text in printed.splitlines() for line in text.split("\r")]
    assert max(map(len, lines[1:])) <= 79
    assert sum("adversarial 2/2: content " in line for line in lines) == 1 and "D(fake)" not in printed.splitlines()[0]
    solver.Trainer(changed(small_settings, name="many", warmup_epochs=25, adversarial_epochs=0)).train()
    assert len(capsys.readouterr().out.split("\n")) <= 3


def test_a_stop_is_acknowledged_at_once_and_a_second_ends_in_one_line(small_settings, monkeypatch, capsys):
    def pressed(self, loss, times=1, descend=machine.Learner.descend):
        descend(self, loss)
        os.kill(os.getpid(), signal.SIGINT)
        heard.append("stopping after this update" in capsys.readouterr().out)
        if times == 2:
            os.kill(os.getpid(), signal.SIGINT)

    for times, words in [(1, "stopped and saved: warmup at 0 of 2 epochs and 1 of 5"), (2, "stopped at once")]:
        heard = []
        monkeypatch.setattr(machine.Learner, "descend", lambda self, loss, n=times: pressed(self, loss, n))
        with pytest.raises(machine.Stopped, match=words) as caught:
            solver.Trainer(changed(small_settings, name=f"run{times}")).train()
        assert heard == [True] and caught.value._render_traceback_() == [str(caught.value)]


def test_a_run_can_be_followed_from_its_folder(small_settings, capsys):
    trainer = solver.Trainer(small_settings, progress=False)
    seen = []

    def meanwhile(history):
        run = runs.Run("small", small_settings.runs)
        seen.append(run.progress()["state"])

    trainer.train(on_epoch=meanwhile)
    assert seen.count("running") == 4
    bench.follow("small", small_settings.runs)
    assert "run 'small' is finished\nlast epoch: adversarial 2/2: content" in capsys.readouterr().out


def test_settings_are_shown_as_a_table(small_settings):
    cfg = solver.settings("demo")
    shown = recipes.describe(cfg)
    assert 12 <= len(shown.cells) <= 20 and repr(cfg) == str(shown)
    assert len(recipes.describe(cfg, "all").cells) == 1 + len(recipes.SETTINGS)
    assert all("warmup" in row[0] for row in recipes.describe(cfg, "warmup").cells[1:])
    assert "lambda" not in repr(recipes.SETTINGS)
    with pytest.raises(ValueError, match="no setting has 'xyz'"):
        recipes.describe(cfg, "xyz")


@pytest.mark.parametrize("act, words", [
    (lambda: solver.settings("dem"), "did you mean 'demo'"),
    (lambda: solver.settings("demo", warmup_Ir=1), "no setting 'warmup_Ir' .did you mean 'warmup_lr'"),
    (lambda: runs.load_checkpoint(ROOT / "README.md"), "README.md: not a readable checkpoint"),
])
def test_mistakes_get_one_sentence(act, words):
    with pytest.raises(ValueError, match=words) as caught:
        act()
    assert len(str(caught.value)) < 250


def test_a_start_from_that_does_not_fit_says_what_differs(small_settings):
    train(small_settings, adversarial_epochs=0)
    with pytest.raises(ValueError, match="was built with channels = 4, not 8, blocks = 1, not 2; make them equal"):
        solver.Trainer(changed(small_settings, name="other", channels=8, blocks=2, start_from=runs.checkpoints(
            "small", small_settings.runs)["warmup"]), progress=False)


def test_a_notebook_shows_mistakes_in_one_line_and_bugs_in_full():
    program = "\n".join([
        "from IPython.core.interactiveshell import InteractiveShell", "shell = InteractiveShell.instance()",
        "for cell in ['import notebook, solver; notebook.set_up()', 'solver.settings(\"dmo\")', 'int(\"x\")']:",
        "    print('CELL', shell.run_cell(cell).success)"])
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "MPLBACKEND": "agg"})
    _, first, second, third = done.stdout.split("CELL")
    assert first.strip().splitlines()[0] == "True" and "there is no recipe 'dmo' (did you mean 'demo'?)" in first
    assert len(first.strip().splitlines()) == 2  # its result, and the next cell's error
    assert "Traceback" in second and third.strip() == "False"


def test_an_old_console_can_show_the_help():
    program = "\n".join([
        "import sys, solver, create_data_lists, bench", "from contextlib import suppress",
        "for module in (solver, create_data_lists, bench):",
        "    with suppress(SystemExit): module.main(['--help'])", "solver.main(['--warmup_Ir', '1'])"])
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True,
                          env={**os.environ, "PYTHONIOENCODING": "cp1252"})
    assert done.stdout.count(b"usage: ") == 3, done.stderr
    assert done.returncode == 2 and b"did you mean '--warmup_lr'" in done.stderr


def test_lists_of_bundled_pictures_survive_a_move(tmp_path):
    cfg = solver.settings("demo", train_list=str(tmp_path / "demo_train.csv"),
                          valid_list=str(tmp_path / "demo_test.csv"))
    create_data_lists.ensure_lists(cfg)
    for csv_file in (cfg.train_list, cfg.valid_list):
        text = Path(csv_file).read_text(encoding="utf-8")
        Path(csv_file).write_text(text.replace("skimage", "elsewhere"), encoding="utf-8")
    create_data_lists.ensure_lists(cfg)
    assert len(create_data_lists.test_lists(tmp_path)) == 1
    assert utils.read_picture(Path(cfg.valid_list).parent / next(csv.DictReader(open(cfg.valid_list)))["hr"]).ndim
