"""Hand-ins of all kinds, hostile ones among them, and the verdicts on them."""

import json
import os
import re
import shutil
import socket
import threading
import zipfile

import nbformat
import pytest
import torch
from PIL import Image

from helpers import ROOT, walls
from kit.handin import check as handin
from kit.handin import contents, opening
from kit.handin.contents import RESULT
from kit.handin.notebooks import shown_scores
from teacher import __main__ as teacher
from teacher import classes


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
    (shown,) = shown_scores(path)["demo_test", "adversarial"]
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(f"{shown[0]:.2f} / {shown[1]:.4f}", "nan / nan"), encoding="utf-8")
    path = member("bicubic") / RESULT / "result.json"
    path.write_text(path.read_text(encoding="utf-8").replace("adversarial", "bicubic"), encoding="utf-8")
    (member("regex") / "report.md").write_text("<!-- kit: " * 10**5, encoding="utf-8")
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


@walls
@pytest.mark.xdist_group("handed in")
def test_nothing_that_is_handed_in_stops_the_others(good, student, removed, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    expected = hostile_data(tmp_path / "in", good)
    shutil.copy(good, tmp_path / "in" / "zz.zip")
    monkeypatch.setattr(handin, "check_code", lambda *arguments: [])  # none of it is about code
    rows = classes.check_all(tmp_path / "in", tmp_path / "out", student / "data" / "lists", progress=False)
    assert len(rows) == len(list((tmp_path / "in").iterdir())) == len(expected) + 3
    found = {row["handin"]: row for row in rows}
    assert found["zz"]["complete"] == "yes" and sum(row["complete"] == "yes" for row in rows) == 1
    for name, words in expected.items():
        assert words in found[name]["findings"], (name, found[name])
    text = (tmp_path / "out" / "checks.csv").read_text(encoding="utf-8")
    assert "\x1b" not in text and "\n=" not in text and max(map(len, text.splitlines())) < 3000
    print(classes.class_table(rows))
    copies, listed = str(tmp_path / "out" / "handins"), str(student / "data" / "lists" / "demo_test.csv")
    teacher.main(["similarity", copies, "--list", listed, "--out", str(tmp_path / "out")])
    teacher.main(["rating", copies, "--list", listed, "--out", str(tmp_path / "page.html")])


EXPECTED = {  # of each hand-in the only problem, or None
    "good": None, "other_names": None,
    "wrong_size": "pictures: .*is 64×64, and should be", "not_executed": "test.ipynb: it was not executed",
    "edited": "train.ipynb: it was changed after it had been executed",
    "with_model": "files: results/notes.txt is a model file", "forged": "scores: .*but test.ipynb says 31.23",
    "unwritten": "report: none of your own words are yet in its section 'Sources'",
    "zip_slip": "refused, because it contains '../../slipped.txt'", "zip_bomb": "more than 2000 files or 100 MB",
    "no_zip": "neither a folder nor a zip",
    "endless": "did not end within", "memory": "memory", "fork": "not permitted", "deletes": "shutil.rmtree",
    "network": "127.0.0.1",
}

# Put before a models.py that is good otherwise.
HOSTILE = {
    "endless": "while True: pass\n",
    "memory": "kept = [torch.ones(2**28) for _ in range(100)]\n",
    "fork": "while True: os.fork()\n",
    "deletes": "shutil.rmtree({canary!r}, ignore_errors=True)\nos.system('rm -rf ' + {canary!r})\n",
    "network": "try: urllib.request.urlopen('http://127.0.0.1:{port}/', timeout=2)\nexcept OSError: pass\n",
}
HEAD = "import os, shutil, urllib.request, torch\n"


@pytest.fixture(scope="module")
def members(good, tmp_path_factory, photograph):
    """A folder with the hand-ins of a class, its canary, and who has called a server that nobody should call."""
    folder, calls = tmp_path_factory.mktemp("members"), []
    canary = tmp_path_factory.mktemp("canary") / "kept"
    canary.mkdir()
    (canary / "thesis.txt").write_text("years of work", encoding="utf-8")
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: calls.append(server.accept()), daemon=True).start()

    def member(name):
        with zipfile.ZipFile(good) as archive:
            archive.extractall(folder / name)
        return folder / name

    shutil.copy(good, folder / "good.zip")
    other = member("other_names")  # in a package of the student's
    (other / "mysr").mkdir()
    shutil.copy(ROOT / "tests" / "own_models.py", other / "mysr" / "networks.py")
    (other / "models.py").write_text("""from mysr.networks import make_discriminator as judge, make_generator
def make_discriminator(cfg):
    if cfg.gradient_penalty:  # 0 in the student edition, and not in the solution
        raise NotImplementedError("not in my settings")
    return judge(cfg)
""", encoding="utf-8")
    picture = next((member("wrong_size") / RESULT / "demo_test").glob("*.png"))
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
    (shown,) = shown_scores(path)["demo_test", "adversarial"]
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


@walls
@pytest.mark.xdist_group("handed in")
def test_each_of_a_class_gets_the_verdict_it_deserves_and_the_machine_is_unharmed(members, student, tmp_path, capsys,
                                                                                  monkeypatch):
    folder, canary, calls = members
    whole, other_code = handin.check_code, ("good", "other_names", *HOSTILE)  # the others' code is that of the first

    def only_where_code_matters(root, folder, trusted, seconds, edition, vgg):
        if root.name not in other_code:
            return []
        return whole(root, folder, trusted, 8 if root.name == "endless" else seconds, edition, vgg)

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
        if name not in HOSTILE and name not in ("not_executed", "forged"):  # (of which two things are wrong)
            assert len(problems) == (expected is not None), (name, problems)
    assert (canary / "thesis.txt").read_text(encoding="utf-8") == "years of work" and not calls
    assert not list(tmp_path.rglob("slipped.txt"))
    capsys.readouterr()
    with pytest.raises(SystemExit):  # nothing has changed: nothing is run again
        teacher.main(arguments)
    again = capsys.readouterr().out
    assert f"{len(EXPECTED)}/{len(EXPECTED)}" in again and "2 of 16 are complete" in again
    assert (tmp_path / "out" / "checks.csv").read_text(encoding="utf-8") == rows


def test_handed_in_is_the_students_own_and_changed_machinery_is_named(tmp_path):
    own = ["models.py", "mysr/__init__.py", "mysr/blocks/residual.py", "train.ipynb"]
    others = ["kit/files.py", "tests/test_models.py", "env/lib/x.py", ".hidden/y.py", "data/z.py", "weights/a.pt",
              "conda/lib/u.py", "handout/models.py", "handout/kit/__init__.py"]
    for name in [*own, *others, "env/pyvenv.cfg", "conda/conda-meta/history"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}", encoding="utf-8")
    contents.make_zip(tmp_path, tmp_path / "ann.zip")
    with zipfile.ZipFile(tmp_path / "ann.zip") as archive:
        assert archive.namelist() == [*own, contents.DIGESTS]
    root, _ = opening.opened(tmp_path / "ann.zip", tmp_path / "opened")
    def named(root, **digests):
        edition = {f"kit/{contents.HANDED_OUT}": json.dumps(digests)}
        return [(one.verdict, one.text) for one in handin.check_kit(root, edition)]

    same = contents.text_digest("# kit/files.py\r\n")  # (line ends do not count)
    assert named(root, **{"files.py": same}) == []
    (verdict, text), = named(root, **{"files.py": "another", "more.py": "one"})
    assert verdict == "note" and "changed: kit/files.py; the code is tried with the kit as it was handed out" in text
    assert "changed: kit/files.py" in named(tmp_path)[0][1]  # a folder that was handed in whole, with its kit/
    assert handin.check_kit(root) == []  # the whole kit does not know what was handed out
    (root / contents.DIGESTS).write_text("[1, 2", encoding="utf-8")
    assert "cannot be read" in named(root)[0][1]
