"""The report drafts what the runs' folders say."""

import re
import shutil
from pathlib import Path

import pytest
from easydict import EasyDict
from PIL import Image
from warm import python

import solver
from kit.handin import report
from kit.handin.contents import collected
from kit.lessons.sheet import note_prediction


@pytest.mark.xdist_group("handed in")
def test_the_report_has_what_the_assignment_asks_for_and_keeps_own_words(student, tmp_path):
    text = (student / "report.md").read_text(encoding="utf-8")
    for wanted in ["def alternating_epoch", "| adversarial_weight |", "curves.png", "| bicubic | ", "![", "| demo | ",
                   "## 7  Sources"]:
        assert wanted in text, wanted
    for name in re.findall(r"\]\((report/.*?)\)", text):
        assert Image.open(student / name).size[0] > 300
    (student / "report.md").write_text(text.replace("My own words.", "Two words.", 1), encoding="utf-8")
    done = python("-m", "kit", "report", cwd=student)
    assert done.returncode == 0 and "renewed" in done.stdout
    assert (student / "report.md").read_text(encoding="utf-8") == text.replace("My own words.", "Two words.", 1)
    shutil.copy(student / "report.md", tmp_path)
    (tmp_path / "report.md").write_text(text.replace("<!-- kit: curves -->", ""), encoding="utf-8")
    with pytest.raises(ValueError, match="kit: curves"):
        report.write(tmp_path)


def test_a_report_without_runs_is_a_draft_with_all_headings(tmp_path):
    for language, words in [("en", "nothing yet"), ("zh", "暂无")]:
        (tmp_path / "report.md").unlink(missing_ok=True)
        text = report.write(tmp_path, language).read_text(encoding="utf-8")
        assert text.count(words) == 6 and text.count("\n## ") == 7
        assert len(report.unwritten(tmp_path / "report.md")[1]) == 7


def test_what_was_predicted_is_in_the_report_and_in_the_zip(tmp_path):
    note_prediction(tmp_path / "runs", "depth", "deeper | is better")
    note_prediction(tmp_path / "runs", "depth", "not so")
    text = report.write(tmp_path).read_text(encoding="utf-8")
    assert "| depth | deeper \\| is better |\n| depth | not so |" in text
    assert Path("runs", "predictions.json") in collected(tmp_path)


def test_best_settings_are_those_that_matter_and_all_that_were_changed(small_settings, tmp_path):
    cfg = EasyDict(small_settings, runs=str(tmp_path / "runs"), updates_per_epoch=3, clip_gradients=0.5)
    solver.Trainer(cfg, progress=False).train("warmup")
    text = report.write(tmp_path).read_text(encoding="utf-8")
    for row in ("| updates_per_epoch | 3 | None |", "| clip_gradients | 0.5 | None |", "| crop | 32 | 96 |",
                "| warmup_epochs | 2 | 200 | epochs of warm-up (the paper's are 10⁶ updates) |"):
        assert row in text, row
    assert "| runs |" not in text and "| device |" not in text and "| adam_eps |" not in text


def test_a_source_is_printed_once_whatever_its_comments(tmp_path):
    phases = [{"phase": "p", "first_epoch": i, "last_epoch": i, "trained_by": {}, "settings": {},
               "source": f"def smooth_epoch(batches):  # try {i}\n    yield {{'loss': 1}}\n"} for i in (1, 2)]
    assert report._training(phases).count("def smooth_epoch") == 1
    phases[1]["source"] = phases[1]["source"].replace("1}", "2}")
    assert report._training(phases).count("def smooth_epoch") == 2


def test_pictures_of_an_earlier_choice_are_not_handed_in(tmp_path):
    (tmp_path / "report").mkdir()
    for name in ("curves", "img 001", "other", "mine"):
        (tmp_path / "report" / f"{name}.png").write_bytes(b"a picture")
    (tmp_path / "report.md").write_text("![](report/curves.png) ![](report/img%20001.png) and report/mine.png",
                                        encoding="utf-8")
    found = {path.stem for path in collected(tmp_path) if path.suffix == ".png"}
    assert found == {"curves", "img 001", "mine"}
    assert (tmp_path / "report" / "other.png").is_file()  # it stays where it is


def test_a_report_that_windows_has_saved_is_renewed(tmp_path):
    path = report.write(tmp_path, language="zh")
    path.write_bytes(path.read_text(encoding="utf-8").replace(report.PEN, "自己的话", 1).encode("gb18030"))
    report.write(tmp_path)
    assert "自己的话" in path.read_text(encoding="utf-8")


def test_own_code_in_another_encoding_is_tried_as_it_is(tmp_path, monkeypatch):
    from kit.handin import trial

    monkeypatch.setattr(trial, "KIT", tmp_path / "kit")
    text = "# -*- coding: gbk -*-\n# 损失\n".encode("gbk")
    for name in ("mylosses.py", trial.TESTS):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text)
    (tmp_path / "trial").mkdir()
    trial.prepare(tmp_path, tmp_path / "trial")
    assert (tmp_path / "trial" / "mylosses.py").read_bytes() == text


def test_renewed_on_windows_its_lines_stay_as_they_are(tmp_path, monkeypatch):
    """There each end of a line that is written gets a carriage return."""
    usual = Path.write_text
    monkeypatch.setattr(Path, "write_text", lambda path, text, **options: usual(path, text, newline="\r\n", **options))
    report.write(tmp_path)
    first = (tmp_path / "report.md").read_bytes()
    report.write(tmp_path)
    assert (tmp_path / "report.md").read_bytes() == first and b"\r\n" in first and b"\r\r" not in first
