"""Fonts for Chinese: found where there are any, and a line where there are none."""

import subprocess

import matplotlib
import pytest
from matplotlib import font_manager

from kit.language import speaking
from kit.plots import fonts


@pytest.fixture
def without(monkeypatch):
    """A matplotlib that knows no font for Chinese; a program that is started fails the test."""
    plain = [font for font in font_manager.fontManager.ttflist if font.name not in fonts.CHINESE]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", plain)
    monkeypatch.setitem(matplotlib.rcParams, "font.family", ["sans-serif"])
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **options: pytest.fail(f"started {arguments}"))


def test_one_that_was_installed_since_is_found(without, monkeypatch, tmp_path):
    file = font_manager.findfont("DejaVu Sans")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "NotoSansCJK-Regular.ttc").write_bytes(open(file, "rb").read())
    monkeypatch.setattr(font_manager, "X11FontDirectories", [str(tmp_path), str(tmp_path / "nowhere")])
    monkeypatch.setattr(fonts, "CHINESE", ["DejaVu Sans"])
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    fonts.use_chinese()
    assert matplotlib.rcParams["font.family"] == ["sans-serif", "DejaVu Sans"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_where_there_is_none_chinese_students_are_told_what_to_install(without, monkeypatch, capsys, language):
    """And no program is asked: in the check of a hand-in that would count as an attempt of the student's code."""
    for places in ("X11FontDirectories", "OSXFontDirectories", "MSUserFontDirectories"):
        monkeypatch.setattr(font_manager, places, [])
    with speaking(language):
        fonts.use_chinese()
    assert capsys.readouterr().out.count("apt install fonts-noto-cjk") == (language == "zh")
    assert matplotlib.rcParams["font.family"] == ["sans-serif"]
