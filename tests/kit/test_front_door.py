"""The front door: `python -m kit` and its commands."""

import os
import shutil
import zipfile

import pytest
from warm import python

from helpers import ROOT, copy_kit
from kit.__main__ import COMMANDS
from kit.handin import contents


def kit(*arguments, folder=ROOT):
    return python("-m", "kit", *arguments, cwd=folder)


def test_it_lists_what_a_student_can_do_and_knows_near_misses():
    for arguments in ([], ["--help"]):
        done = kit(*arguments)
        assert done.returncode == 0 and all(f"\n  {name} " in done.stdout for name in COMMANDS)
    done = kit("chek")
    assert done.returncode == 1 and "there is no command 'chek' (did you mean 'check'?)" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name):
    done = kit(name, "--help")
    assert done.returncode == 0 and f"usage: python -m kit {name}" in done.stdout
    assert f"Example: python -m kit {name}" in done.stdout


def test_a_syntax_error_in_the_students_files_is_found_by_the_check_and_stops_nothing_else(tmp_path):
    copy_kit(tmp_path)
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "test_models.py", tmp_path / "tests")
    (tmp_path / "models.py").write_text("def make_generator(cfg\n", encoding="utf-8")
    done = kit("check", folder=tmp_path)
    assert done.returncode == 1
    assert "it cannot be imported: SyntaxError" in done.stdout and "Traceback" not in done.stderr
    for command in ("runs", "report"):
        assert "SyntaxError" not in kit(command, folder=tmp_path).stderr


def test_files_of_a_computer_without_a_clock_are_packed(tmp_path):
    copy_kit(tmp_path)
    os.utime(tmp_path / "models.py", (150_000_000, 150_000_000))  # 1974: zip files begin in 1980
    done = kit("check", folder=tmp_path)
    assert done.returncode == 1 and not done.stderr.startswith("python -m kit check: error")
    contents.make_zip(tmp_path, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.getinfo("models.py").date_time[0] == 1980
