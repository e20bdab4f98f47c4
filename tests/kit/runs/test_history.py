"""Histories, and which run is looked at."""

import pytest

from helpers import train
from kit import runs


def test_a_history_that_was_edited_is_named(small_settings):
    folder = train(small_settings, warmup_epochs=1, adversarial_epochs=0).run.folder
    (folder / "history.csv").write_text("phase,epoch,updates,psnr,seconds\nwarmup,one,5,28,1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="history.csv: not a history as training writes it"):
        runs.read_history("small", small_settings.runs)


def test_the_run_to_look_at_is_named_chosen_or_the_newest_and_said(small_settings, capsys):
    folder = small_settings.runs
    assert runs.current_run(folder=folder) is None and "train first" in capsys.readouterr().out
    for name in ("one", "two"):
        train(small_settings, name=name, adversarial_epochs=0)
    assert runs.current_run(folder=folder) == "two" and "run 'two', the newest\nothers: one" in capsys.readouterr().out
    runs.choose("one", folder)
    assert runs.current_run(folder=folder) == "one" and "the one chosen in train.ipynb" in capsys.readouterr().out
    assert runs.current_run("two", folder) == "two"
    with pytest.raises(FileNotFoundError, match="no run 'tow' .did you mean 'two'"):
        runs.current_run("tow", folder)
    assert list(runs.checkpoints("one", folder)) == ["warmup"]


@pytest.mark.parametrize("content", ["{", '{"a": 1}', '[{"settings": "no", "trained_by": [1]}]', "[1]"])
def test_a_record_that_is_none_is_none(tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text(content, encoding="utf-8")
    assert runs.read_record("run", tmp_path) == [] and runs.read_settings("run", tmp_path) == {}
