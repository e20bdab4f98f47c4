"""Pairs of hand-ins worth a look."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import create_data_lists
import utils
from datasets import TestDataset
from helpers import ROOT, train
from imresize import imresize
from kit import evaluation
from kit.evaluation.generators import load_generators
from kit.handin.contents import RESULT
from teacher import __main__ as teacher
from teacher import classes, copies, similarity
from teacher.rating import ORIGINAL


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
    shifted = np.roll(reference, 1, axis=0) // 5 * 4 + utils.bicubic(imresize(original, 1 / 4)) // 5 + 3
    noisy = np.clip(original + np.random.default_rng(0).normal(0, 9, original.shape), 0, 255).astype(np.uint8)
    hand_ins = {"ann": (own, noisy), "bob": (renamed, original // 2 * 2), "cem": (solution, shifted),
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
    assert found["cem", "(reference srgan)"].pictures.keys() == {"cat"}
    assert found["ann", "dee"].pictures.keys() == {"cat"} and found["bob", ORIGINAL].pictures.keys() == {"cat"}
    assert set(found) == {("ann", "bob"), ("ann", "dee"), ("cem", similarity.SOLUTION), ("cem", "(reference srgan)"),
                          ("bob", ORIGINAL)}
    page = (tmp_path / "out" / "similarity.html").read_text(encoding="utf-8")
    assert "ann and bob" in page and "<summary>models.py" in page and "data:image/jpeg" in page


def compressed(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=95)
    return np.array(Image.open(file))


def test_pictures_of_one_network_are_alike_whatever_was_done_to_them_and_of_two_they_are_not(small_settings, photograph,
                                                                                             tmp_path):
    """Networks that differ in their seed alone: nearer to each other no independent ones can be."""
    small_settings.update(updates_per_epoch=60, warmup_epochs=1, adversarial_epochs=0, channels=8, warmup_lr=3e-3)
    original = np.ascontiguousarray(photograph[60:188, 100:260])
    utils.save_picture(tmp_path / "one" / "cat.png", original)
    listed, = create_data_lists.create_data_lists(None, {"one": tmp_path / "one"}, tmp_path, progress=False)
    pairs = list(TestDataset(listed.csv_file, 4))
    made = []
    for seed in range(3):
        trainer = train(small_settings, name=f"seed{seed}", seed=seed)
        made.append(utils.super_resolve(trainer.result, pairs[0].lr))
    first, second, third = made
    random = np.random.default_rng(0)
    changed = {
        "same": first, "brighter": np.clip(first.astype(int) + 3, 0, 255).astype(np.uint8), "jpeg": compressed(first),
        "shifted": np.roll(first, (1, -1), axis=(0, 1)),
        "mixed": (0.8 * first + 0.2 * utils.bicubic(pairs[0].lr)).astype(np.uint8),
        "last bits": first ^ (random.random(first.shape) < 0.3).astype(np.uint8)}
    whose = {"first": first, "second": second, "third": third, **changed}
    found = copies.alike({name: {"cat": picture} for name, picture in whose.items()}, pairs, ORIGINAL)
    copied = {"first", *changed}
    assert {pair for pair in found if set(pair) & {"second", "third", ORIGINAL}} == set()
    assert {pair for pair in found if "first" in pair} == {("first", name) for name in changed}, found
    assert all(set(pair) <= copied for pair in found)
    flipped = original ^ (random.random(original.shape) < 0.3).astype(np.uint8)  # nothing of the original's last bits
    assert set(copies.alike({"ann": {"cat": flipped}}, pairs, ORIGINAL)) == {("ann", ORIGINAL)}


def test_a_class_without_hand_ins_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="holds no hand-ins"):
        classes.check_all(tmp_path / "in", tmp_path / "out")


def test_the_same_settings_and_seed_are_told_beside_pictures_that_are_alike(tmp_path, photograph, monkeypatch):
    picture = np.ascontiguousarray(photograph[:96, :128])
    utils.save_picture(tmp_path / "originals" / "cat.png", picture)
    listed, = create_data_lists.create_data_lists(None, {"one": tmp_path / "originals"}, tmp_path, progress=False)
    for name, seed in (("ann", 0), ("bob", 0), ("cem", 1), ("dee", None)):
        root = tmp_path / "in" / name
        utils.save_picture(root / RESULT / "one" / "cat.png", picture // 2)
        (root / "models.py").write_text("import torch\n", encoding="utf-8")
        (root / RESULT / "result.json").write_text(json.dumps({"run": name}), encoding="utf-8")
        settings = {"seed": seed, "name": name, "threads": name, "crop": 96}
        record = json.dumps([{"phase": "p", "last_epoch": 2, "settings": settings}]) if name != "dee" else "{"
        (root / "runs" / name).mkdir(parents=True)
        (root / "runs" / name / "settings.json").write_text(record, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = similarity.find(tmp_path / "in", listed.csv_file)
    assert {(pair.first, pair.second) for pair in found if pair.same_settings} == {("ann", "bob")}
    assert {(pair.first, pair.second) for pair in found if pair.pictures} >= {("ann", "cem"), ("bob", "dee")}
    similarity.save(found, tmp_path / "in", tmp_path / "out", "one")
    said = (tmp_path / "out" / "similarity.csv").read_text(encoding="utf-8-sig")
    assert said.count("trained with the same settings and seed") == 1


def test_many_lines_that_are_nearly_alike_are_shown_and_not_compared(tmp_path):
    """Python's own comparison of 500 such lines takes minutes, and ends in a RecursionError."""
    for name, shift in (("ann", 0), ("bob", 1)):
        (tmp_path / name).mkdir()
        rows = (", ".join(str((7 * i + j + shift) % 10) for j in range(20)) for i in range(100))
        (tmp_path / name / "models.py").write_text("\n".join(f"x{i} = [{row}]" for i, row in enumerate(rows)),
                                                   encoding="utf-8")
    similarity.save([similarity.Pair("ann", "bob", 0.9, {})], tmp_path, tmp_path / "out")
    page = (tmp_path / "out" / "similarity.html").read_text(encoding="utf-8")
    assert page.count("<pre>x0 = [") == 2 and "table class=\"diff\"" not in page
