"""A search between limits, by several programs at once, stopped and killed."""

import sys
import time
from pathlib import Path

import pytest
from warm import start

from helpers import changed
from kit import runs
from kit.compare import search as module
from kit.compare.search import search, study_of
from kit.compute.interrupt import Stopped

RANGES = dict(warmup_lr=(1e-4, 1e-2), blocks=(1, 3))


@pytest.fixture
def cfg(small_settings):
    pytest.importorskip("optuna", reason="needs Optuna: pip install optuna")
    return changed(small_settings, name="s", adversarial_epochs=0, warmup_epochs=3, patches_per_picture=4,
                   sample_every=3)


def search_with(cfg, trials, silent):
    module.HEARTBEAT = 1
    module.SILENT = silent
    search(cfg, trials, **RANGES)


def states(cfg):
    return [trial.state.name for trial in study_of(cfg).get_trials()]


def test_twenty_trials_by_two_programs_one_of_them_killed(cfg):
    first, second = (start(search_with, cfg, 20, 3) for _ in range(2))
    while len(list(Path(cfg.runs).glob("s-*/checkpoints/last.pt"))) < 4:
        assert first.is_alive() and second.is_alive()
        time.sleep(0.05)
    first.kill()
    second.join()
    assert second.exitcode == 0
    found = study_of(cfg).get_trials()
    ended = [trial for trial in found if trial.state.name in ("COMPLETE", "PRUNED")]
    lost = [trial for trial in found if trial.state.name == "FAIL"]
    assert 20 <= len(ended) <= 21 and len(lost) <= 1
    ended_runs = {trial.user_attrs["run"] for trial in ended}
    assert {trial.user_attrs["run"] for trial in lost if "run" in trial.user_attrs} <= ended_runs  # it went on
    assert {"PRUNED"} <= set(states(cfg))
    table = search(cfg, 20, **RANGES)  # all is done
    assert len(table.cells) == 1 + len(ended_runs)
    assert table.cells[0][:3] == ["run", "blocks", "warmup_lr"]
    psnr = [float(row[table.cells[0].index("best PSNR")]) for row in table.cells[1:]]
    assert psnr == sorted(psnr, reverse=True)
    for trial in ended:
        assert 1e-4 <= trial.params["warmup_lr"] <= 1e-2 and trial.params["blocks"] in (1, 2, 3)
        if trial.state.name == "COMPLETE":
            assert trial.value == runs.read_history(trial.user_attrs["run"], cfg.runs)[-1]["psnr"]


def test_a_search_that_is_stopped_goes_on_with_the_run_that_it_was_at(cfg, monkeypatch):
    class Stopping(module.solver.Trainer):
        def train(self, name=None, on_epoch=None):
            def stop(history):
                on_epoch(history)
                if len(history) == 2:
                    raise Stopped
            return super().train(name, stop)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module.solver, "Trainer", Stopping)
        search(cfg, 2, early=False, **RANGES)
    assert len(runs.read_history("s-000", cfg.runs)) == 2
    search(cfg, 2, early=False, **RANGES)
    assert states(cfg) == ["FAIL", "COMPLETE", "COMPLETE"] and len(runs.run_names(cfg.runs)) == 2
    assert len(runs.read_history("s-000", cfg.runs)) == 3


def test_what_diverges_is_ended_and_the_search_goes_on(cfg):
    search(changed(cfg, clip_gradients=None, warmup_schedule="constant", precision="fp32"), 2, early=False,
           warmup_lr=[1e30])
    assert states(cfg) == ["PRUNED", "PRUNED"]


def test_a_search_of_other_settings_needs_another_name(cfg):
    search(changed(cfg, warmup_epochs=1), 1, warmup_lr=(1e-4, 1e-2))
    for other, ranges, told in [(dict(channels=8), {}, "channels = 4, not 8"), (dict(best_by="niqe"), {}, "best_by = "),
                                ({}, dict(blocks=(1, 3)), "ranges = 'warmup_lr', not 'blocks, warmup_lr'")]:
        with pytest.raises(ValueError, match=f"the search 's' was begun with .*{told}.*cfg.name = 's_2'"):
            search(changed(cfg, warmup_epochs=1, **other), 2, warmup_lr=(1e-4, 1e-2), **ranges)
    Path(cfg.runs, "s_2.sqlite").touch()  # another search
    with pytest.raises(ValueError, match="cfg.name = 's_3'"):
        search(changed(cfg, warmup_epochs=1, channels=8), 2, warmup_lr=(1e-4, 1e-2))
    assert states(cfg) == ["COMPLETE"]
    search(changed(cfg, warmup_epochs=1, sample_every=1), 2, warmup_lr=(1e-4, 1e-2))  # on which nothing hangs
    assert states(cfg) == ["COMPLETE", "COMPLETE"]


@pytest.mark.parametrize("ranges, told", [
    ({}, "give the settings"), (dict(warmup_lrr=(1, 2)), "did you mean 'warmup_lr'"),
    (dict(warmup_lr=1e-3), "warmup_lr: a search goes through"), (dict(warmup_lr=(1e-2, 1e-3)), "lowest, highest"),
    (dict(blocks=(0, 4)), "blocks must be a whole number from 1"), (dict(updates=["both"]), "updates must be"),
    (dict(warmup_lr=[]), "a list of values")])
def test_ranges_that_make_no_sense_are_named_before_anything_is_trained(cfg, ranges, told):
    with pytest.raises(ValueError, match=told):
        search(cfg, 2, **ranges)
    assert not Path(cfg.runs).exists()


def test_without_optuna_it_is_said_what_to_install(small_settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match="pip install optuna"):
        search(small_settings, 2, **RANGES)
