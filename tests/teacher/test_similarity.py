"""Pairs of hand-ins worth a look."""

import shutil

import numpy as np
import pytest

import create_data_lists
import utils
from helpers import ROOT
from imresize import imresize
from kit import evaluation
from kit.evaluation.generators import load_generators
from kit.handin.contents import RESULT
from teacher import __main__ as teacher
from teacher import classes, similarity


def test_copies_and_reference_pictures_are_found_and_independent_work_is_not(tmp_path, photograph, monkeypatch):
    own = (ROOT / "tests" / "own_models.py").read_text(encoding="utf-8")
    solution = (ROOT / "models.py").read_text(encoding="utf-8")
    renamed = own.replace('"""', '"""Another text. ', 1).replace("class Judge", "# a comment\nclass Judge")
    for old, new in [("width", "breadth"), ("TwoPaths", "Fork"), ("mix", "merge"), ("self.factor", "self.times")]:
        renamed = renamed.replace(old, new)
    original = np.ascontiguousarray(photograph[:96, :128])
    utils.save_picture(tmp_path / "originals" / "cat.png", original)
    listed, = create_data_lists.create_data_lists(None, {"one": tmp_path / "originals"}, tmp_path, progress=False)
    generators = load_generators({"r": ROOT / "weights" / "srgan.safetensors"})
    reference = evaluation.methods(generators)["r"](imresize(original, 1 / 4))
    noisy = np.clip(original + np.random.default_rng(0).normal(0, 9, original.shape), 0, 255).astype(np.uint8)
    hand_ins = {"ann": (own, noisy), "bob": (renamed, original // 2 * 2), "cem": (solution, reference),
                "dee": ("import torch\n", noisy)}
    for name, (code, picture) in hand_ins.items():
        utils.save_picture(tmp_path / "in" / name / RESULT / "one" / "cat.png", picture)
        (tmp_path / "in" / name / "models.py").write_text(code, encoding="utf-8")
        shutil.copy(ROOT / "datasets.py", tmp_path / "in" / name)  # handed out: counts for nothing
    monkeypatch.chdir(ROOT)
    teacher.main(["similarity", str(tmp_path / "in"), "--list", str(listed.csv_file), "--out", str(tmp_path / "out")])
    found = {(pair.first, pair.second): pair for pair in similarity.find(tmp_path / "in", listed.csv_file)}
    assert found["ann", "bob"].code == 1 and not found["ann", "bob"].pictures
    assert found["cem", similarity.SOLUTION].code == 1
    assert found["cem", "(reference srgan)"].pictures == ["cat"]
    assert found["ann", "dee"].pictures == ["cat"]
    assert set(found) == {("ann", "bob"), ("ann", "dee"), ("cem", similarity.SOLUTION), ("cem", "(reference srgan)")}
    page = (tmp_path / "out" / "similarity.html").read_text(encoding="utf-8")
    assert "ann and bob" in page and "<summary>models.py" in page and "data:image/jpeg" in page


def test_a_class_without_hand_ins_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="holds no hand-ins"):
        classes.check_all(tmp_path / "in", tmp_path / "out")
