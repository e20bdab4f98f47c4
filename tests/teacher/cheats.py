"""Cheats, and what each deserves: "problem"; "note" where only a person can judge; "similar" where `similarity` has to
name whom it is like; "unseen" where nothing can tell; "ok" where there is nothing to be gained.
"""

import io
import json
import re
import shutil
import struct
import zipfile

import nbformat
import numpy as np
from PIL import Image, ImageCms
from students import SET_UP, compressed, registers

import utils
from helpers import ROOT
from kit import evaluation
from kit.evaluation.generators import load_generators
from kit.handin.contents import RESULT

CHEATS = {}
cheat = registers(CHEATS)

# Put behind a models.py that is good otherwise.
CODE = {
    "leaves with forged results": "import json, os\n"
                                  "row = {'test': 't', 'paper': False, 'outcome': 'passed', 'why': ''}\n"
                                  "results = {'modules': {}, 'networks': {'tests': [row] * 15}, "
                                  "'training': {'phases': ['warmup']}}\n"
                                  "open('trial.json', 'w').write(json.dumps(results))\nos._exit(0)\n",
    "leaves while it is tried": "import os\ndef make_generator(cfg):\n    os._exit(0)\n",
    "tries the network": "import urllib.request\ntry: urllib.request.urlopen('http://127.0.0.1:9/', timeout=1)\n"
                         "except OSError: pass\n",
    "hides what it has tried": "import os\ntry: os.system('true')\nexcept OSError: pass\n"
                               "raise ModuleNotFoundError(\"No module named 'einops'\")\n",
}
# In place of models.py, and at the end of solver.py.
SKIPS = """import pytest
def make_generator(*a, **k): pytest.skip("")
def __getattr__(name):
    if name.startswith("__"): raise AttributeError(name)
    return make_generator
"""
TRAINS_NOTHING = """
class Trainer:
    def __init__(self, *a, **k): pass
    def train(self): return [{"phase": "warmup", "psnr": 1.0}]
"""


def _reference(student):
    generators = load_generators({"srgan": ROOT / "weights" / "srgan.safetensors"})
    enlarge = evaluation.methods(generators)["srgan"]
    return {pair.name: enlarge(pair.lr) for pair in student.pairs}


def _changed(name, what, change):
    """A cheat that hands in the reference's pictures, changed."""
    @cheat(name, f"the reference's pictures, {what}", "similar", "(reference srgan)")
    def make(student, place):
        own = student.read()
        student.pictures({key: np.ascontiguousarray(change(picture, own[key]).astype(np.uint8))
                          for key, picture in _reference(student).items()})


_changed("reference", "as they are", lambda picture, own: picture)
_changed("brighter", "one grey level brighter", lambda picture, own: np.minimum(picture.astype(int) + 1, 255))
_changed("jpeg95", "through JPEG 95", lambda picture, own: compressed(picture))
_changed("mixed", "mixed 80/20 with one's own", lambda picture, own: 0.8 * picture + 0.2 * own)
_changed("shifted", "shifted by a pixel", lambda picture, own: np.roll(picture, 1, axis=1))


@cheat("original", "the originals", "problem", "they are the originals themselves")
def _original(student, place):
    student.pictures({pair.name: pair.hr for pair in student.pairs})


@cheat("flipped", "the originals, last bits flipped", "problem", "more than any network can reach")
def _flipped(student, place):
    random = np.random.default_rng(0)
    student.pictures({pair.name: pair.hr ^ (random.random(pair.hr.shape) < 0.2).astype(np.uint8)
                      for pair in student.pairs})


@cheat("infinite", "originals, and a table that says ∞", "problem", "they are the originals themselves")
def _infinite(student, place):
    student.pictures({pair.name: pair.hr for pair in student.pairs}, told=(float("inf"), 1))


@cheat("classmate", "a classmate's pictures", "similar", "2021012301_李娜")
def _classmate(student, place):
    other = place / "2021012301_李娜_超分辨率.zip"
    with zipfile.ZipFile(other) as archive:
        for name in archive.namelist():
            if name.endswith(".png"):
                target = student.folder / name.partition("/")[2]
                target.write_bytes(archive.read(name))
        test = archive.read(next(name for name in archive.namelist() if name.endswith("test.ipynb")))
    (student.folder / "test.ipynb").write_bytes(test)


@cheat("renamed", "a classmate's code with other names", "similar", "2021012318_UNet")
def _renamed(student, place):
    text = (ROOT / "tests" / "own_models.py").read_text(encoding="utf-8")
    for old, new in [("width", "breadth"), ("TwoPaths", "Fork"), ("mix", "merge"), ("factor", "times")]:
        text = text.replace(old, new)
    (student.folder / "models.py").write_text(text, encoding="utf-8")


@cheat("marked", "the same code behind a byte order mark", "similar", "2021012318_UNet")
def _marked(student, place):
    code = (ROOT / "tests" / "own_models.py").read_bytes()
    (student.folder / "models.py").write_bytes(b"\xef\xbb\xbf" + code)


@cheat("raised", "test.ipynb says 2 dB more", "problem", "but test.ipynb says")
def _raised(student, place):
    student.pictures(student.read(), told=(31.5, 0.9))


@cheat("raised_report", "the report says 2 dB more", "problem", "a table says 31.50")
def _raised_report(student, place):
    text = (student.folder / "report.md").read_text(encoding="utf-8")
    table = "<!-- kit: scores -->\n| PSNR / SSIM | Set5 (5) |\n| --- | --- |\n| mine | 31.50 / 0.9000 |\n<!-- /kit -->"
    text, count = re.subn(r"<!-- kit: scores -->.*?<!-- /kit -->", table, text, flags=re.DOTALL)
    assert count == 1
    (student.folder / "report.md").write_text(text, encoding="utf-8")


@cheat("dots", "a dot in every section of the report", "problem", "none of your own words")
def _dots(student, place):
    student.write_report(".")


@cheat("no_runs", "no records of any run", "note", "how it was trained cannot be seen")
def _no_runs(student, place):
    shutil.rmtree(student.folder / "runs")


@cheat("not_executed", "notebooks that were not executed", "problem", "it was not executed")
def _not_executed(student, place):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), student.folder / "train.ipynb")


@cheat("edited", "a cell that was changed afterwards", "problem", "it was changed after it had been executed")
def _edited(student, place):
    path = student.folder / "train.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("print('train')", "print('mine')"), encoding="utf-8")


@cheat("stripped", "outputs taken out", "problem", "its outputs were removed")
def _stripped(student, place):
    notebook = nbformat.read(student.folder / "train.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.outputs = []
    nbformat.write(notebook, student.folder / "train.ipynb")


@cheat("invented", "outputs and the list of executed cells made by hand", "unseen")
def _invented(student, place):
    student.notebook("train", [SET_UP, "trainer.train()"], "warmup 12/12: 29.9 dB")


@cheat("invented_runs", "a history of a run that never was", "unseen")
def _invented_runs(student, place):
    (student.folder / "runs" / "mine" / "history.csv").write_text("phase,epoch,psnr\nwarmup,1,31.9\n", encoding="utf-8")


@cheat("bicubic", "bicubic interpolation, named as such", "problem", "they are bicubic interpolation")
def _bicubic(student, place):
    student.pictures({pair.name: utils.bicubic(pair.lr) for pair in student.pairs}, name="bicubic")


@cheat("weights", "a model file under another name", "problem", "is a model file")
def _weights(student, place):
    shutil.copy(ROOT / "weights" / "srgan.safetensors", student.folder / "results" / "notes.txt")


@cheat("slip", "a zip that leads out of its folder", "problem", "which leads out of the folder")
def _slip(student, place):
    student.zipped(place / "slip.zip", junk=["../../slipped.txt"])


@cheat("=HYPERLINK(1)", "a formula for a name", "ok")
def _formula(student, place):
    pass


@cheat("changed_kit", "the machinery changed", "note", "changed: kit/files.py; the code is tried with")
def _changed_kit(student, place):
    student.add("kit.json", json.dumps({"files.py": "0" * 16}))


@cheat("forged", "results of the trial written by the code itself", "problem", "none of their tests was run", code=True)
def _forged(student, place):
    student.add("models.py", CODE["leaves with forged results"])


@cheat("leaves", "ends the process while it is tried", "problem", "it ended on its own", code=True)
def _leaves(student, place):
    student.add("models.py", CODE["leaves while it is tried"])


@cheat("calls_home", "opens a connection", "problem", "it tried what no training needs: urllib.Request", code=True)
def _calls_home(student, place):
    student.add("models.py", CODE["tries the network"])


@cheat("hidden", "hides what it has tried behind a package that is lacking", "problem",
       "what no training needs: os.system", code=True)
def _hidden(student, place):
    student.add("models.py", CODE["hides what it has tried"])


@cheat("skips", "networks that skip their tests", "problem", "0 of", code=True)
def _skips(student, place):
    (student.folder / "models.py").write_text(SKIPS, encoding="utf-8")


@cheat("trains_nothing", "a trainer that trains nothing", "note", "its Trainer is of its own", code=True)
def _trains_nothing(student, place):
    student.add("solver.py", TRAINS_NOTHING)


@cheat("profile", "the originals, darkened, under a colour profile that undoes it", "problem",
       "more than any network can reach")
def _profile(student, place):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    other = srgb.tobytes().replace(struct.pack(">i", round(2.4 * 65536)), struct.pack(">i", round(2.05 * 65536)))
    convert = ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(other)), srgb, "RGB", "RGB")
    ramp = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2))
    shown = np.asarray(ImageCms.applyTransform(ramp, convert))[0, :, 1].astype(int)
    undone = np.array([np.abs(shown - value).argmin() for value in range(256)], np.uint8)
    student.pictures({pair.name: undone[pair.hr] for pair in student.pairs})
    for path in sorted((student.folder / RESULT / "Set5").glob("*.png")):
        picture = Image.open(path)
        picture.load()
        picture.save(path, icc_profile=other)


@cheat("coding", "a models.py in a comment, which Python reads as code", "note", "what one sees in it is not what runs")
def _coding(student, place):
    code = (student.folder / "models.py").read_text(encoding="utf-8")
    (student.folder / "models.py").write_bytes(b"# coding: unicode_escape\n# " + code.encode("unicode_escape"))
