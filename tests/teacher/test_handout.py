"""The student edition: the kit without its solution."""

import re
import shutil
import xml.etree.ElementTree as ET
import zipfile

import nbformat
import pytest
from warm import python

from helpers import ROOT
from kit.handin import report
from kit.handin.contents import NEEDED, NOTEBOOKS
from teacher import __main__ as teacher
from teacher import handout

SOURCES = [path.relative_to(ROOT).as_posix()
           for path in [*sorted(ROOT.glob("*.py")), *sorted(ROOT.glob("kit/**/*.py"))]] + ["Makefile"]


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_taken_out_and_put_back_is_the_kit_byte_for_byte(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    student, pieces = handout.cut(text, name)
    again, position = "", 0
    for new, old in pieces:
        place = text.index(old, len(again))
        between = text[len(again):place]
        assert student[position:position + len(between) + len(new)] == between + new
        again, position = again + between + old, position + len(between) + len(new)
    assert again + student[position:] == text
    assert bool(pieces) == (name in ("models.py", "solver.py", "kit/settings/recipes.py", "kit/lessons/__init__.py",
                                     "Makefile"))


def test_the_student_edition_has_no_solution_in_it(edition):
    pieces = [old for name in ("models.py", "solver.py", "kit/settings/recipes.py")
              for _, old in handout.cut((ROOT / name).read_text(encoding="utf-8"))[1]]
    lines = {line.strip() for piece in pieces for line in piece.splitlines()
             if len(line.strip()) > 40 and not line.strip().startswith("#")}
    assert len(lines) > 20
    for path in edition.rglob("*"):
        if path.is_file() and path.suffix != ".mo":  # gettext's catalogue
            text = path.read_text(encoding="utf-8")  # everything else is text: nothing compiled, no weights
            assert not [line for line in lines if line in text], path
            assert "BEGIN SOLUTION" not in text and "BEGIN PROMPT" not in text, path
            assert "warmup_epoch(" not in text and "UNPROTECTED" not in text, path  # nor what leads straight to it
    names = {path.relative_to(edition).as_posix() for path in edition.rglob("*") if path.is_file()}
    assert not [name for name in names if name.startswith(("teacher", ".git/", ".ci")) or "own_models" in name]
    assert {"README.md", "README.zh.md", *NOTEBOOKS, ".gitignore"} <= names
    for name in NOTEBOOKS:
        notebook = nbformat.read(edition / name, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert not [cell for cell in code if cell.outputs or cell.execution_count]
        assert "reference" not in "".join(cell.source for cell in code)
    for name in ("README.md", "README.zh.md"):
        assert "Colab" in (edition / name).read_text(encoding="utf-8")
        assert not re.search(r"\{\w+\}", (edition / name).read_text(encoding="utf-8"))


def test_both_readmes_name_the_same_facts(edition):
    english, chinese = ((edition / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    for fact in ["1,549,462", "23,565,505", "`Generator.forward`", "python -m kit check", "handin/", *NEEDED]:
        assert fact in english and fact in chinese, fact
    for language, text in [("en", english), ("zh", chinese)]:
        assert all(words[language][0] in text for words in report.SECTIONS.values())


def run_tests(folder):
    """The tests of networks in a folder: test → the first line of what went wrong, None where it passed."""
    done = python("-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "--junitxml=tests.xml",
                  "tests/test_models.py", cwd=folder)
    assert (folder / "tests.xml").is_file(), done.stdout + done.stderr
    return {case.get("name"): case[0].get("message") if len(case) else None
            for case in ET.parse(folder / "tests.xml").iter("testcase")}


def test_its_tests_fail_exactly_where_a_body_is_missing(edition, tmp_path):
    kit = tmp_path / "kit"
    shutil.copytree(edition, kit)
    results = run_tests(kit)
    missing = {name for name, why in results.items() if why}
    assert all("NotImplementedError" in results[name] and "yours to write" in results[name] for name in missing)
    assert missing == {name for name in results if "refused" not in name}
    pieces = handout.cut((ROOT / "models.py").read_text(encoding="utf-8"))[1]
    text = (kit / "models.py").read_text(encoding="utf-8")
    for new, old in pieces:  # all but the discriminator's
        if new and "Discriminator" not in new:
            text = text.replace(new, old, 1)
    (kit / "models.py").write_text(text, encoding="utf-8")
    still = {name for name, why in run_tests(kit).items() if why}
    assert still == {name for name in missing if "discriminator" in name}


@pytest.mark.parametrize("right, wrong, failing", [
    ("x = x + self.residual(x)  # the long", "x = self.residual(x)  # the long",
     "test_the_generator_adds_what_went_into_the_first_block_after_the_last"),
    ("self.first(2 * lr - 1 if self.signed_input else lr)", "self.first(lr)",
     "test_the_generator_takes_low_resolution_as_its_setting_signed_input_says")])
def test_its_tests_see_the_mistakes_that_shapes_do_not_show(edition, tmp_path, right, wrong, failing):
    shutil.copytree(edition, tmp_path / "kit")
    text = (ROOT / "models.py").read_text(encoding="utf-8")
    assert text.count(right) == 1
    (tmp_path / "kit" / "models.py").write_text(text.replace(right, wrong), encoding="utf-8")
    assert {name for name, why in run_tests(tmp_path / "kit").items() if why} == {failing}


def test_its_tests_come_layer_by_layer_and_tell_the_first_that_is_wrong_in_one_line(edition, tmp_path):
    kit = tmp_path / "kit"
    shutil.copytree(edition, kit)
    text = (ROOT / "models.py").read_text(encoding="utf-8")
    right = "conv(channels, 4 * channels, 3), nn.PixelShuffle(2)"
    assert text.count(right) == 1
    (kit / "models.py").write_text(text.replace(right, "conv(channels, 3 * channels, 3), nn.PixelShuffle(2)"),
                                   encoding="utf-8")
    done = python("-m", "pytest", "-p", "no:cacheprovider", cwd=kit, PYTEST_ADDOPTS="")
    lines = done.stdout.splitlines()
    told, = [line for line in lines if line.startswith("RuntimeError")]
    assert "in upsample.1.0, a Conv2d(" in told and "given 2×3×48×48" in told and "models.py, line" in told
    assert "Traceback" not in done.stdout and len(lines) < 15
    assert re.search(r"1 failed, \d+ passed, \d+ skipped", lines[-1])  # the discriminator's are made all the same


def test_an_edition_is_made_whole_or_not_at_all(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(SystemExit, match="there is there already"):
        teacher.main(["handout", "--out", str(tmp_path / "there")])
    teacher.main(["handout", "--out", str(tmp_path / "edition.zip")])
    with zipfile.ZipFile(tmp_path / "edition.zip") as archive:
        assert "edition/models.py" in archive.namelist()
    teacher.main(["handout", "--language", "both", "--out", str(tmp_path / "sr.zip")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edition.zip", "sr-en.zip", "sr-zh.zip", "there"]
    with zipfile.ZipFile(tmp_path / "sr-zh.zip") as archive:  # whose READMEs call it by its name
        for readme in "README.md", "README.en.md":
            text = archive.read(f"sr-zh/{readme}").decode()
            assert '!unzip "sr-zh.zip"' in text and "`%cd sr-zh`" in text and "handout" not in text


@pytest.mark.parametrize("text, message", [
    ("# BEGIN SOLUTION\nx\n", "has no end"), ("# END SOLUTION\n", "line 1.*does not fit"),
    ("# BEGIN SOLUTION\n# BEGIN PROMPT\n", "line 2.*does not fit"),
])
def test_marks_that_do_not_fit_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        handout.cut(text, "x.py")
