"""The assignment: the student edition, report and hand-in, checking a class, and pairs worth a look."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
import zipfile

import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT, make_quarter_lists, shorten_the_sheet, substitute
from PIL import Image

import create_data_lists
import evaluation
import handin
import report
import sandbox
import utils
from imresize import imresize
from teacher import __main__ as teacher
from teacher import classes, handout, pairs

walls = pytest.mark.skipif(sandbox.lacking() is not None, reason=f"no sandbox here: {sandbox.lacking()}")

SOURCES = [path.name for path in sorted(ROOT.glob("*.py"))] + ["Makefile"]

# ---------------------------------------------------------------------------------------- student edition


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edition") / "handout"
    handout.make(folder)
    return folder


def run_tests(folder):
    """The tests of networks in a folder: test → the first line of what went wrong, None where it passed."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider",
                           "--junitxml=tests.xml", "tests/test_models.py"], cwd=folder, capture_output=True, text=True)
    assert (folder / "tests.xml").is_file(), done.stdout + done.stderr
    return {case.get("name"): case[0].get("message") if len(case) else None
            for case in ET.parse(folder / "tests.xml").iter("testcase")}


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
    assert bool(pieces) == (name in ("models.py", "solver.py", "recipes.py", "Makefile"))


def test_the_student_edition_has_no_solution_in_it(edition):
    pieces = [old for name in ("models.py", "solver.py", "recipes.py")
              for _, old in handout.cut((ROOT / name).read_text(encoding="utf-8"))[1]]
    lines = {line.strip() for piece in pieces for line in piece.splitlines()
             if len(line.strip()) > 40 and not line.strip().startswith("#")}
    assert len(lines) > 20
    for path in edition.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")  # everything is text: nothing compiled, no weights
            assert not [line for line in lines if line in text], path
            assert "BEGIN SOLUTION" not in text and "BEGIN PROMPT" not in text, path
    names = {path.relative_to(edition).as_posix() for path in edition.rglob("*") if path.is_file()}
    assert not [name for name in names if name.startswith(("teacher", ".git/", ".ci")) or "own_models" in name]
    assert {"README.md", "README.zh.md", *handin.NOTEBOOKS, ".gitignore"} <= names
    for name in handin.NOTEBOOKS:
        notebook = nbformat.read(edition / name, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert not [cell for cell in code if cell.outputs or cell.execution_count]
        assert "reference" not in "".join(cell.source for cell in code)
    assert not re.search(r"\{\w+\}", (edition / "README.md").read_text() + (edition / "README.zh.md").read_text())


def test_both_readmes_name_the_same_facts(edition):
    english, chinese = ((edition / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    for fact in ["1,549,462", "23,565,505", "`Generator.forward`", "handin.py check", "handin/", *handin.NEEDED]:
        assert fact in english and fact in chinese, fact
    for language, text in [("en", english), ("zh", chinese)]:
        assert all(words[language][0] in text for words in report.SECTIONS.values())


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


def test_an_edition_is_made_whole_or_not_at_all(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(SystemExit, match="there is there already"):
        teacher.main(["handout", "--out", str(tmp_path / "there")])
    teacher.main(["handout", "--out", str(tmp_path / "edition.zip")])
    with zipfile.ZipFile(tmp_path / "edition.zip") as archive:
        assert "edition/models.py" in archive.namelist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edition.zip", "there"]


@pytest.mark.parametrize("text, message", [
    ("# BEGIN SOLUTION\nx\n", "has no end"), ("# END SOLUTION\n", "line 1.*does not fit"),
    ("# BEGIN SOLUTION\n# BEGIN PROMPT\n", "line 2.*does not fit"),
])
def test_marks_that_do_not_fit_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        handout.cut(text, "x.py")


# ------------------------------------------------------------------------------- a student's whole way


@pytest.fixture(scope="module")
def student(edition, tmp_path_factory, photograph):
    """A student's folder: the edition with networks, small pictures and settings; run, reported, and handed in."""
    folder = tmp_path_factory.mktemp("student") / "ann"
    shutil.copytree(edition, folder)
    shutil.copy(ROOT / "models.py", folder)
    make_quarter_lists(folder)
    Image.fromarray(photograph[:60, :80]).save(folder / "small.png")
    for name, usual, small in [
            ("super_resolution.ipynb", r'Path(skimage.__file__).parent / \"data\" / \"chelsea.png\"', r'\"small.png\"'),
            ("recipes.py", "adversarial_epochs=4,", "adversarial_epochs=1, updates_per_epoch=5,"),
            ("recipes.py", "channels=32, blocks=8", "channels=8, blocks=1")]:
        substitute(folder / name, usual, small)
    shorten_the_sheet(folder)
    done = subprocess.run([sys.executable, "-m", "tools.run_notebooks", "--inplace"], cwd=folder, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "own" not in done.stderr
    done = subprocess.run([sys.executable, "report.py"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and "7 sections wait for your own words" in done.stdout, done.stderr
    text = (folder / "report.md").read_text(encoding="utf-8")
    (folder / "report.md").write_text(re.sub("(?m)^✎.*$", "My own words.", text), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def good(student):
    """The zip that `handin.py zip` makes of it."""
    done = subprocess.run([sys.executable, "handin.py", "zip", "ann"], cwd=student, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout and "23 of 23 tests passed" in done.stdout
    return student / "ann.zip"


def test_the_report_has_what_the_assignment_asks_for_and_keeps_own_words(student, tmp_path):
    text = (student / "report.md").read_text(encoding="utf-8")
    for wanted in ["def alternating_epoch", "| adversarial_weight |", "curves.png", "| bicubic | ", "![", "| demo | ",
                   "## 7  Sources"]:
        assert wanted in text, wanted
    for name in re.findall(r"\]\((report/.*?)\)", text):
        assert Image.open(student / name).size[0] > 300
    (student / "report.md").write_text(text.replace("My own words.", "Two words.", 1), encoding="utf-8")
    done = subprocess.run([sys.executable, "report.py"], cwd=student, capture_output=True, text=True)
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
        assert len(report.unwritten(tmp_path / "report.md")) == 7


# ---------------------------------------------------------------------------------------------- a class

HEAD = "import os, shutil, urllib.request, torch\n"
# Put before a models.py that is good otherwise.
HOSTILE = {
    "endless": "while True: pass\n",
    "memory": "kept = [torch.ones(2**28) for _ in range(100)]\n",
    "fork": "while True: os.fork()\n",
    "deletes": "shutil.rmtree({canary!r}, ignore_errors=True)\nos.system('rm -rf ' + {canary!r})\n",
    "network": "try: urllib.request.urlopen('http://127.0.0.1:{port}/', timeout=2)\nexcept OSError: pass\n",
}


@pytest.fixture(scope="module")
def members(good, tmp_path_factory, photograph):
    """A folder with the hand-ins of a class, its canary, and who has called a server that nobody should call."""
    folder, calls = tmp_path_factory.mktemp("members"), []
    canary = tmp_path_factory.mktemp("canary") / "kept"
    canary.mkdir()
    (canary / "thesis.txt").write_text("years of work")
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: calls.append(server.accept()), daemon=True).start()

    def member(name):
        with zipfile.ZipFile(good) as archive:
            archive.extractall(folder / name)
        return folder / name

    shutil.copy(good, folder / "good.zip")
    shutil.copy(ROOT / "tests" / "own_models.py", member("other_names") / "models.py")
    picture = next((member("wrong_size") / handin.RESULT / "demo_test").glob("*.png"))
    Image.open(picture).resize((64, 64)).save(picture)
    path = member("not_executed") / "test.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)
    path = member("edited") / "train.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("YOUR CODE HERE: settings", "MY CODE"), encoding="utf-8")
    weights = member("with_model") / "results" / "notes.txt"
    torch.save({"w": torch.zeros(3)}, weights)
    path = member("forged") / "test.ipynb"
    text = path.read_text(encoding="utf-8")
    shown = handin._shown_scores(path, "demo_test", "adversarial")
    assert f"{shown[0]:.2f} / " in text
    path.write_text(text.replace(f"{shown[0]:.2f} / ", "31.23 / "), encoding="utf-8")
    path = member("unwritten") / "report.md"
    path.write_text(re.sub(r"(?s)(## 7  Sources\s+).*", r"\1", path.read_text(encoding="utf-8")), encoding="utf-8")
    with zipfile.ZipFile(folder / "zip_slip.zip", "w") as archive:
        archive.writestr("models.py", "")
        archive.writestr("../../slipped.txt", "outside")
    with zipfile.ZipFile(folder / "zip_bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("models.py", bytes(300 * 2**20))
    (folder / "no_zip.rar").write_bytes(b"Rar!")
    for name, code in HOSTILE.items():
        path = member(name) / "models.py"
        code = code.format(canary=str(canary), port=server.getsockname()[1])
        path.write_text(HEAD + code + path.read_text(encoding="utf-8"), encoding="utf-8")
    return folder, canary, calls


def hostile_data(folder, good):
    """Hand-ins whose files are made to stop, fool or steer whoever reads them; name → what is said of each."""
    def member(name):
        with zipfile.ZipFile(good) as archive:
            archive.extractall(folder / name)
        return folder / name

    def cells(name, change):
        path = member(name) / "test.ipynb"
        notebook = json.loads(path.read_text(encoding="utf-8"))
        change(next(cell for cell in notebook["cells"] if cell["cell_type"] == "code"))
        path.write_text(json.dumps(notebook), encoding="utf-8")

    cells("surrogate", lambda cell: cell.update(execution_count="\ud800"))
    cells("steering", lambda cell: cell.update(execution_count="\x1b]0;pwned\x07" * 10**4))
    cells("odd_outputs", lambda cell: cell.update(outputs=["x"]))
    cells("odd_source", lambda cell: cell.update(source="\ud800"))
    path = member("nan") / "test.ipynb"
    shown = handin._shown_scores(path, "demo_test", "adversarial")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(f"{shown[0]:.2f} / {shown[1]:.4f}", "nan / nan"), encoding="utf-8")
    path = member("bicubic") / handin.RESULT / "result.json"
    path.write_text(path.read_text().replace("adversarial", "bicubic"))
    (member("regex") / "report.md").write_text("<!-- kit: " * 10**5)
    (member("=HYPERLINK(1)") / "models.py").unlink()
    with zipfile.ZipFile(folder / "deep.zip", "w") as archive:
        archive.writestr("a/" * 1000 + "models.py", "")
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("models.py", bytes(2**20))
    (folder / ("long" * 60 + ".zip")).write_bytes(b"")
    (folder / os.fsdecode(b"\xd5\xc5.zip")).write_bytes(b"")
    (folder / "names").mkdir()
    (folder / "names" / os.fsdecode(b"\xff.txt")).write_bytes(b"")
    deep = folder / "folders"
    deep.mkdir()
    os.chdir(deep)
    for _ in range(1200):
        os.mkdir("a")
        os.chdir("a")
    os.chdir(ROOT)
    return {"surrogate": "test.ipynb: it is not a notebook as", "steering": "test.ipynb: it is not a notebook as",
            "odd_outputs": "test.ipynb: it is not a notebook as", "odd_source": "notebooks: ", "nan": "says nan / nan",
            "bicubic": "they are bicubic interpolation", "regex": "report: it has no section",
            "=HYPERLINK(1)": "models.py is missing", "deep": "too deep", "bomb": "compressed in an unusual way",
            "names": "is missing", "folders": "more than 20 deep"}


@pytest.fixture
def removed(tmp_path):
    """A folder that is removed at the end, whatever is in it: pytest's own way fails on very deep ones."""
    yield tmp_path
    sandbox.remove(tmp_path)


@walls
def test_nothing_that_is_handed_in_stops_the_others(good, student, removed, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    expected = hostile_data(tmp_path / "in", good)
    shutil.copy(good, tmp_path / "in" / "zz.zip")
    monkeypatch.setattr(handin, "check_code", lambda *arguments: [])  # none of it is about code
    rows = classes.check_all(tmp_path / "in", tmp_path / "out", student / "data" / "lists", progress=False)
    assert len(rows) == len(list((tmp_path / "in").iterdir())) == len(expected) + 3
    found = {row["handin"].lstrip("'"): row for row in rows}
    assert found["zz"]["complete"] == "yes" and sum(row["complete"] == "yes" for row in rows) == 1
    for name, words in expected.items():
        assert words in found[name]["findings"], (name, found[name])
    text = (tmp_path / "out" / "checks.csv").read_text(encoding="utf-8")
    assert "\x1b" not in text and "\n=" not in text and max(map(len, text.splitlines())) < 3000
    print(classes.class_table(rows))
    copies, listed = str(tmp_path / "out" / "handins"), str(student / "data" / "lists" / "demo_test.csv")
    teacher.main(["pairs", copies, "--list", listed, "--out", str(tmp_path / "out")])
    teacher.main(["rating", copies, "--list", listed, "--out", str(tmp_path / "page.html")])


EXPECTED = {  # of each hand-in the only problem, or None
    "good": None, "other_names": None,
    "wrong_size": "pictures: .*is 64×64, and should be", "not_executed": "test.ipynb: it was not executed",
    "edited": "train.ipynb: it was changed after it had been executed",
    "with_model": "files: results/notes.txt is a model file", "forged": "scores: .*but test.ipynb says 31.23",
    "unwritten": "report: .*'Sources' has none of your own words",
    "zip_slip": "refused, because it contains '../../slipped.txt'", "zip_bomb": "more than 2000 files or 100 MB",
    "no_zip": "neither a folder nor a zip",
    "endless": "did not end within", "memory": "memory", "fork": "not permitted", "deletes": "shutil.rmtree",
    "network": "127.0.0.1",
}


@walls
def test_each_of_a_class_gets_the_verdict_it_deserves_and_the_machine_is_unharmed(members, student, tmp_path, capsys,
                                                                                  monkeypatch):
    folder, canary, calls = members
    whole, other_code = handin.check_code, ("good", "other_names", *HOSTILE)  # the others' code is that of the first

    def only_where_code_matters(root, kit, trusted, seconds):
        return whole(root, kit, trusted, 8 if root.name == "endless" else seconds) if root.name in other_code else []

    monkeypatch.setattr(handin, "check_code", only_where_code_matters)
    arguments = ["check", str(folder), "--out", str(tmp_path / "out"), "--lists", str(student / "data" / "lists")]
    with pytest.raises(SystemExit) as ended:
        teacher.main(arguments)
    assert ended.value.code == 1
    rows = (tmp_path / "out" / "checks.csv").read_text(encoding="utf-8")
    assert len(rows.splitlines()) == 1 + len(EXPECTED)
    for name, expected in EXPECTED.items():
        result = json.loads((tmp_path / "out" / f"{name}.json").read_bytes())
        problems = [f"{one['what']}: {one['text']}" for one in result["findings"] if one["verdict"] == "problem"]
        assert result["complete"] == (expected is None), (name, problems)
        assert expected is None or re.search(expected, "\n".join(problems)), (name, problems)
        if name not in HOSTILE and name != "not_executed":
            assert len(problems) == (expected is not None), (name, problems)
    assert (canary / "thesis.txt").read_text() == "years of work" and not calls
    assert not list(tmp_path.rglob("slipped.txt"))
    capsys.readouterr()
    with pytest.raises(SystemExit):  # nothing has changed: nothing is run again
        teacher.main(arguments)
    again = capsys.readouterr().out
    assert f"{len(EXPECTED)}/{len(EXPECTED)}" in again and "2 of 16 are complete" in again
    assert (tmp_path / "out" / "checks.csv").read_text(encoding="utf-8") == rows


# What a program may try, and what it gets for it; all in one process, so that whatever succeeds shows.
ATTEMPTS = [
    ("open('/etc/passwd')", "Permission denied"), ("open({outside!r}, 'w')", "Permission denied"),
    ("__import__('os').kill(__import__('os').getppid(), 9)", "not permitted"),
    ("open(f'/proc/{{__import__(\"os\").getppid()}}/environ').read()", "Permission denied"),
    ("__import__('socket').socket(1)", "not permitted"), ("__import__('os').memfd_create('x')", "not permitted"),
    ("__import__('os').chmod({outside!r}, 0o777)", "not permitted"),
    ("__import__('os').execv('/bin/true', ['true'])", "not permitted"),
    ("__import__('os').symlink('/etc', 'etc')", "not permitted"),
    ("__import__('os').mkfifo('trial.json')", "not permitted"),
    ("__import__('socket').socketpair()", "not permitted"),
    ("import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, __import__('os').getppid())", "not permitted"),
    ("__import__('os').setxattr({outside!r}, 'user.x', b'x')", "not permitted"),
    ("__import__('os').posix_fallocate(__import__('os').open('big', 66), 0, 10**9)", "not permitted"),
    ("__import__('mmap').mmap(-1, 2**20)", "not permitted"),
    ("import ctypes; 1 / (ctypes.CDLL(None).prctl(1, 0) + 1)", "ZeroDivisionError"),
    ("import ctypes; 1 / (ctypes.CDLL(None).syscall(463, -100, 0, 0, 0, 0, 0) + 1)", "ZeroDivisionError"),
]
TRY_ALL = """
for code in {attempts!r}:
    try:
        exec(code)
        print("done")
    except Exception as error:
        print(type(error).__name__, error)
"""


@walls
def test_the_sandbox_holds(tmp_path):
    (tmp_path / "work").mkdir()
    outside = tmp_path / "outside"
    outside.write_text("kept")
    program = tmp_path / "work" / "program.py"
    program.write_text(TRY_ALL.format(attempts=[code.format(outside=str(outside)) for code, _ in ATTEMPTS]))
    outcome = sandbox.run(program, [], tmp_path / "work", 30)
    came_of = outcome.output.splitlines()
    assert len(came_of) == len(ATTEMPTS), outcome
    for (code, attempt), line in zip(ATTEMPTS, came_of, strict=True):
        assert attempt in line, (code, line)
    assert outside.read_text() == "kept" and outside.stat().st_mode & 0o777 != 0o777


@walls
@pytest.mark.parametrize("code, limit", [
    ("import os\nwhile True:\n    file = open('x', 'wb'); file.write(bytes(50 * 2**20)); os.unlink('x')", "disk"),
    ("import os, time\nfor i in range(10**6): os.mkdir(str(i)) or time.sleep(0.0005)", "disk"),
    ("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=[99]).start()", "threads"),
    ("kept = [bytearray(2**26) for i in range(1000)]", None),  # a MemoryError of its own
    ("import time; time.sleep(99)", "time"),
])
def test_what_a_program_takes_is_limited(code, limit, removed, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "MOST_FILES", 1000)  # soon made, and soon removed
    program = tmp_path / "work" / "program.py"
    program.parent.mkdir()
    program.write_text(code)
    seconds = 1 if limit == "time" else 120  # enough on a machine however slow
    outcome = sandbox.run(program, [], program.parent, seconds, megabytes=4000 if limit == "threads" else 1500)
    assert outcome.reason == limit and (limit or "MemoryError" in outcome.output), outcome
    sandbox.remove(program.parent)
    assert not program.parent.exists()


@walls
def test_what_a_program_leaves_is_not_followed(removed, tmp_path):
    program = tmp_path / "work" / "program.py"
    program.parent.mkdir()
    (tmp_path / "secret").write_text("secret")
    program.write_text("import os, shutil\nfor name in os.listdir('.home'): shutil.rmtree('.home/' + name, True)\n"
                       "os.rename('.home', 'gone')\nfor i in range(1500): os.mkdir('a'); os.chdir('a')\nprint('done')")
    outcome = sandbox.run(program, [], program.parent, 30)
    assert outcome.output.strip() == "done", outcome
    os.symlink(tmp_path / "secret", program.parent / "link")
    os.mkfifo(program.parent / "pipe")
    (program.parent / "large").write_bytes(bytes(2 * 2**20))
    assert [sandbox.read_left(program.parent, name) for name in ("link", "pipe", "large", "a", "none")] == [None] * 5
    sandbox.remove(program.parent)
    assert not program.parent.exists()


def test_without_walls_only_ones_own_code_is_run(monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "lacking", lambda: "this kernel has no Landlock")
    program = tmp_path / "program.py"
    program.write_text("print('ran')")
    with pytest.raises(OSError, match="only where it can do no harm, and this kernel has no Landlock"):
        sandbox.run(program, [], tmp_path)
    assert "ran" in sandbox.run(program, [], tmp_path, trusted=True).output


# ---------------------------------------------------------------------------------------------- pairs


def test_copies_and_reference_pictures_are_found_and_independent_work_is_not(tmp_path, photograph, monkeypatch):
    own = (ROOT / "tests" / "own_models.py").read_text(encoding="utf-8")
    solution = (ROOT / "models.py").read_text(encoding="utf-8")
    renamed = own.replace('"""', '"""Another text. ', 1).replace("class Judge", "# a comment\nclass Judge")
    for old, new in [("width", "breadth"), ("TwoPaths", "Fork"), ("mix", "merge"), ("self.factor", "self.times")]:
        renamed = renamed.replace(old, new)
    original = np.ascontiguousarray(photograph[:96, :128])
    utils.save_picture(tmp_path / "originals" / "cat.png", original)
    listed, = create_data_lists.create_data_lists(None, {"one": tmp_path / "originals"}, tmp_path, progress=False)
    generators = evaluation.load_generators({"r": ROOT / "weights" / "srgan.safetensors"})
    reference = evaluation.methods(generators)["r"](imresize(original, 1 / 4))
    noisy = np.clip(original + np.random.default_rng(0).normal(0, 9, original.shape), 0, 255).astype(np.uint8)
    hand_ins = {"ann": (own, noisy), "bob": (renamed, original // 2 * 2), "cem": (solution, reference),
                "dee": ("import torch\n", noisy)}
    for name, (code, picture) in hand_ins.items():
        utils.save_picture(tmp_path / "in" / name / handin.RESULT / "one" / "cat.png", picture)
        (tmp_path / "in" / name / "models.py").write_text(code, encoding="utf-8")
        shutil.copy(ROOT / "datasets.py", tmp_path / "in" / name)  # handed out: counts for nothing
    monkeypatch.chdir(ROOT)
    teacher.main(["pairs", str(tmp_path / "in"), "--list", str(listed.csv_file), "--out", str(tmp_path / "out")])
    found = {(pair.first, pair.second): pair for pair in pairs.find(tmp_path / "in", listed.csv_file)}
    assert found["ann", "bob"].code == 1 and not found["ann", "bob"].pictures
    assert found["cem", pairs.SOLUTION].code == 1
    assert found["cem", "(reference srgan)"].pictures == ["cat"]
    assert found["ann", "dee"].pictures == ["cat"]
    assert set(found) == {("ann", "bob"), ("ann", "dee"), ("cem", pairs.SOLUTION), ("cem", "(reference srgan)")}
    page = (tmp_path / "out" / "pairs.html").read_text(encoding="utf-8")
    assert "ann and bob" in page and "<summary>models.py" in page and "data:image/jpeg" in page


def test_a_class_without_hand_ins_or_with_two_of_one_name_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="holds no hand-ins"):
        classes.check_all(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "ann").mkdir()
    (tmp_path / "in" / "ann.zip").write_bytes(b"")
    with pytest.raises(ValueError, match="have one name"):
        classes.check_all(tmp_path / "in", tmp_path / "out")
