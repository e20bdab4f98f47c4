"""Tables in a terminal, in an old one, and in a notebook."""

import os
import subprocess
import sys

import pytest

from helpers import ROOT
from kit.console import Table


def test_text_tables_are_aligned():
    lines = Table([["a", 1], ["long", 22]], ["name", "n"]).splitlines()
    assert lines == ["name   n", "────  ──", "a      1", "long  22"]


@pytest.mark.parametrize("encoding", ["gbk", "cp1252", "ascii"])
def test_an_old_console_shows_settings_and_tables(encoding):
    program = """
import solver
from kit.settings.describe import describe
print(solver.settings("demo"))
print(describe(solver.settings("paper"), "all"))
print("\\u2713 \\u2076 \\u00d7 \\u56fe")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True,
                          env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    assert done.returncode == 0 and done.stdout.count(b"warmup_epochs") == 2, done.stderr[-300:]
