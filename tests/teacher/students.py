"""Hand-ins made up for the tests.

Each is a small but whole hand-in, executed notebooks, pictures, report and all, made in an instant: its pictures come
from a filter of the student's own and not from a network, and its notebooks were executed by nobody but the test.
"""

import io
import json
import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

import nbformat
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

import create_data_lists
import utils
from datasets import TestDataset
from helpers import ROOT
from kit.handin import report
from kit.handin.contents import RESULT
from kit.notebook import digest
from utils import psnr, ssim

SET_UP = "from kit import notebook\nnotebook.set_up()"


def make_set5(folder, photograph):
    """Five details of a photograph as a Set5: writes Set5.csv to `folder`, and gives its pairs."""
    for i in range(1, 6):
        detail = np.ascontiguousarray(photograph[30 * i : 30 * i + 96, 50 * i : 50 * i + 96])
        utils.save_picture(folder / "Set5" / f"img_{i:03d}.png", detail)
    create_data_lists.create_data_lists(None, {"Set5": folder / "Set5"}, folder, progress=False)
    return list(TestDataset(folder / "Set5.csv", 4))


class Student:
    """A hand-in in the making: `folder` has its files, and is changed freely."""

    def __init__(self, folder, pairs, seed, code=True):
        self.folder, self.pairs = folder, pairs
        folder.mkdir(parents=True)
        for name in ("models.py", "solver.py"):
            if code:
                shutil.copy(ROOT / name, folder)
            else:  # (nobody's: else all were similar)
                (folder / name).write_text(f"NAME = 'student {seed}'\n", encoding="utf-8")
        random = np.random.default_rng(seed)
        self.pictures({pair.name: self.enlarged(pair, random) for pair in pairs})
        self.write_report("We tried this and that, and it helped.")
        (folder / "runs" / "mine").mkdir(parents=True)
        (folder / "runs" / "mine" / "history.csv").write_text("phase,epoch\nwarmup,1\n", encoding="utf-8")

    @staticmethod
    def enlarged(pair, random):
        """A third of what bicubic interpolation lacks, and a texture of one's own."""
        base = utils.bicubic(pair.lr).astype(float)
        texture = gaussian_filter(random.normal(0, 24, base.shape), (1, 1, 0))
        return np.clip(base + (pair.hr - base) / 3 + texture, 0, 255).round().astype(np.uint8)

    def pictures(self, pictures, name="mine", places=None, told=None):
        """Hand in these pictures, and a test.ipynb that says what they score, or what is `told`."""
        graded = self.folder / RESULT / "Set5"
        shutil.rmtree(graded, ignore_errors=True)
        graded.mkdir(parents=True)
        for key, picture in pictures.items():
            Image.fromarray(picture).save(graded / (places or {}).get(key, f"{key}.png"))
        result = {"set": "Set5", "method": name, "run": "mine"}
        (graded.parent / "result.json").write_text(json.dumps(result), encoding="utf-8")
        self.tell(told or self.scores_of(pictures), name)

    def scores_of(self, pictures):
        """The mean PSNR and SSIM of pictures."""
        return tuple(np.mean([(psnr(pictures[pair.name], pair.hr), ssim(pictures[pair.name], pair.hr))
                              for pair in self.pairs], axis=0))

    def tell(self, scores, name="mine"):
        """Make the three notebooks, with these scores in the table of test.ipynb."""
        table = f"PSNR / SSIM / NIQE  Set5 (5)\n{'─' * 20}\n{name}  {scores[0]:.2f} / {scores[1]:.4f} / 5.00\n"
        for notebook, output in (("train", "trained"), ("test", table), ("super_resolution", "shown")):
            self.notebook(notebook, [SET_UP, f"print('{notebook}')", "2 + 2"], output)

    def notebook(self, name, sources, output="done", first=None):
        """A notebook that was executed from top to bottom, and noted by the kit from the cell number `first` on."""
        cells = [nbformat.v4.new_code_cell(source, execution_count=i) for i, source in enumerate(sources, 1)]
        cells[-1].outputs = [nbformat.v4.new_output("stream", text=output)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), self.folder / f"{name}.ipynb")
        (self.folder / "results").mkdir(exist_ok=True)
        noted = self.folder / "results" / "cells.jsonl"
        lines = noted.read_text(encoding="utf-8").splitlines() if noted.is_file() else []
        lines = [line for line in lines if json.loads(line)["kernel"] != name]
        lines += [json.dumps({"kernel": name, "count": i, "source": digest(source)})
                  for i, source in list(enumerate(sources, 1))[(first or 2) - 1:]]
        noted.write_text("\n".join(lines), encoding="utf-8")

    def write_report(self, words, hints=False):
        with tempfile.TemporaryDirectory() as empty:
            draft = report.write(empty, "zh").read_text(encoding="utf-8")
        text = re.sub("(?m)^(✎.*)$", rf"\1\n\n{words}" if hints else words, draft)
        (self.folder / "report.md").write_text(text, encoding="utf-8")

    def add(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((path.read_text(encoding="utf-8") if path.is_file() else "") + text, encoding="utf-8")

    def read(self):
        """The pictures that are in it."""
        return {path.stem: utils.read_picture(path) for path in sorted((self.folder / RESULT / "Set5").glob("*.png"))}

    def zipped(self, path, prefix="", **options):
        """Hand in the zip of it, as `zipped` makes it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        zipped(self.folder, path, prefix, **options)
        shutil.rmtree(self.folder)


def zipped(folder, path, prefix="", encoding=None, separator="/", junk=()):
    """Make a zip of a folder, with names as some system writes them, and with what some put beside; gives its path."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in [path for path in sorted(folder.rglob("*")) if path.is_file()]:
            info = _Named("x")
            info.filename = (prefix + file.relative_to(folder).as_posix()).replace("/", separator)
            info.encoding = encoding
            archive.writestr(info, file.read_bytes())
        for name in junk:
            archive.writestr(name, "junk")
    return path


class _Named(zipfile.ZipInfo):
    """A file in a zip whose name has an encoding of its own, without the mark for UTF-8."""

    encoding = None

    def _encodeFilenameFlags(self):
        usual = super()._encodeFilenameFlags()
        return (self.filename.encode(self.encoding), self.flag_bits) if self.encoding else usual


def compressed(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=95)
    return np.array(Image.open(file))


def registers(table):
    """What adds a hand-in to a table: name → (what it is, deserved verdict, words that are said, tried?, its maker)."""
    def one(name, what, deserved, words="", code=False):
        def register(make):
            assert name not in table
            table[name] = (what, deserved, words, code, make)
            return make

        return register

    return one


def make_all(table, place, work, pairs, first=0):
    """Make the hand-ins of a table in the folder `place`; the first with the seed `first`.

    What a maker has not handed in itself becomes a zip of the hand-in's name.
    """
    place.mkdir(exist_ok=True)
    for seed, (name, (_, _, _, code, make_one)) in enumerate(table.items(), start=first):
        student = Student(Path(work, f"{seed}"), pairs, seed, code)
        make_one(student, place)
        if student.folder.exists():
            student.zipped(place / f"{name}.zip")
    assert not os.listdir(work)  # each of them was moved or packed
