"""Honest hand-ins of many kinds: nobody is accused of what is only otherwise."""

import json
import re

import nbformat
import numpy as np
import pytest
from PIL import Image

import create_data_lists
import utils
from helpers import ROOT, copy_kit, walls
from imresize import imresize
from kit.handin import report, sandbox, trial
from kit.handin.check import check_files, check_numbers
from kit.handin.contents import NEEDED, RESULT
from kit.handin.findings import NOT_HERE
from kit.handin.notebooks import check_notebooks, shown_scores
from kit.handin.pictures import check_pictures
from kit.notebook import digest


def notebook(path, *sources, outputs=None):
    """A notebook that was executed from top to bottom."""
    cells = [nbformat.v4.new_code_cell(source, execution_count=i) for i, source in enumerate(sources, 1)]
    cells[-1].outputs = outputs or [nbformat.v4.new_output("stream", text="done\n")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def noted(folder, *sources, first=1):
    """What the kit notes of the cells from number `first` on."""
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / "cells.jsonl").write_text("".join(
        json.dumps({"kernel": "k", "count": i, "source": digest(source)}) + "\n"
        for i, source in enumerate(sources, first)), encoding="utf-8")


COLAB = ["from google.colab import drive\ndrive.mount('/content/drive')", "%cd /content/drive/MyDrive/srgan"]
OWN = ["from kit import notebook\nnotebook.set_up()", "a = 1", "a + 1"]


def test_cells_before_the_kits_first_one_are_excused_and_named(tmp_path):
    notebook(tmp_path / "train.ipynb", *COLAB, *OWN)
    noted(tmp_path, *OWN[1:], first=4)
    found = [(one.verdict, one.text) for one in check_notebooks(tmp_path)]
    assert found[0] == ("ok", "executed from top to bottom, as it stands")
    assert found[1][0] == "note" and "its first 2 cells, before the kit's own, are not recorded" in found[1][1]
    notebook(tmp_path / "train.ipynb", *COLAB, *OWN[:2], "a + 2")  # but not what comes later
    (one,) = check_notebooks(tmp_path)
    assert one.verdict == "problem" and "changed after it had been executed, for example in cell [5]" in one.text


TABLE = """method       Set5 (5)
───────────  ─────────────────────────
bicubic      28.42 / 0.8101 / 7.37
adversarial  29.13 / 0.8402 / 4.96
"""


@pytest.mark.parametrize("before", ["", "on the test sets:\n\n"])
def test_a_table_that_is_printed_is_a_table(tmp_path, before):
    for output in (nbformat.v4.new_output("stream", text=before + TABLE),
                   nbformat.v4.new_output("execute_result", data={"text/plain": before + TABLE}, execution_count=1)):
        notebook(tmp_path / "test.ipynb", "print(table)", outputs=[output])
        assert shown_scores(tmp_path / "test.ipynb") == {("Set5", "bicubic"): [(28.42, 0.8101)],
                                                         ("Set5", "adversarial"): [(29.13, 0.8402)]}


def test_the_tables_of_a_report_are_those_of_the_notebook(tmp_path):
    table = "| PSNR / SSIM | Set5 (5) |\n| --- | ---: |\n| bicubic | 28.42 / 0.8101 |\n| adversarial | {} |\n"
    notebook(tmp_path / "test.ipynb", "print(table)", outputs=[nbformat.v4.new_output("stream", text=TABLE)])

    def said(generated, own="29.13 / 0.8402"):
        (tmp_path / "report.md").write_text(f"<!-- kit: scores -->\n{table.format(generated)}<!-- /kit -->\n\n"
                                            f"{table.format(own)}", encoding="utf-8")
        return [(one.verdict, one.text) for one in check_numbers(tmp_path)]

    assert said("29.13 / 0.8402 / 4.96") == said("29.14 / 0.8401") == []
    assert said("31.13 / 0.8402") == [("problem", "a table says 31.13 / 0.8402 of 'adversarial' on Set5, but "
                                                  "test.ipynb 29.13 / 0.8402; run python -m kit report again")]
    ((verdict, text),) = said("29.13 / 0.8402", "28.9 / 0.8402")
    assert verdict == "note" and text.endswith("is it of another run?")
    (tmp_path / "test.ipynb").unlink()
    assert said("31.13 / 0.8402") == []  # which is missing is said already


@pytest.mark.parametrize("language", ["en", "zh"])
def test_own_words_count_with_or_without_the_hint(tmp_path, language):
    text = report.write(tmp_path, language).read_text(encoding="utf-8")
    path = tmp_path / "report.md"
    path.write_text(re.sub("(?m)^(✎.*)$", r"\1\n\nI trained it for a night. 训练了一夜。", text), encoding="utf-8")
    assert report.unwritten(path) == ([], [])
    path.write_text(re.sub("(?m)^(✎.*)$", r"\1 We tried this and that.", text), encoding="utf-8")
    assert report.unwritten(path) == ([], [])
    path.write_text(re.sub("(?m)^✎.*$", ".", text), encoding="utf-8")
    assert len(report.unwritten(path)[1]) == 7
    path.write_text(re.sub("(?m)^(✎.*)$", "无", text), encoding="utf-8")
    assert len(report.unwritten(path)[1]) == 6  # enough for sources alone


# ----------------------------------------------------------------------------------------------- its code


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """What `check_code` says when the trial has left these results; and what it was tried with."""
    def check(files=(), word="word", **results):
        for name, text in {"models.py": "", **dict(files)}.items():
            (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "root" / name).write_text(text, encoding="utf-8")

        def run(program, arguments, folder, seconds, trusted, readable=()):
            text = json.dumps(results)
            (folder / "trial.json").write_text(f"{text}\n{trial.sandbox.signature(text, word)}", encoding="utf-8")
            return sandbox.Outcome(0, None, "", [], 1.0, "word")

        monkeypatch.setattr(trial.sandbox, "run", run)
        folder = tmp_path / f"trial{len(list(tmp_path.iterdir()))}"
        edition = {"kit/x.py": "", trial.TESTS: "def test_t(): ..."}
        findings = trial.check_code(tmp_path / "root", folder, False, 10, edition)
        return [f"{one.verdict} {one.what}: {one.text}" for one in findings], folder

    return check


FINE = {"modules": {}, "networks": {"tests": [{"test": "test_t[1]", "paper": False, "outcome": "passed", "why": ""}]},
        "training": {"phases": ["warmup"]}}


def test_results_that_somebody_else_has_written_count_for_nothing(tried):
    assert not [one for one in tried(**FINE)[0] if one.startswith("problem")]
    said, _ = tried(word="guessed", **FINE)
    assert any(one.startswith("problem networks: none of their tests was run") for one in said)
    assert any("ended on its own, with status 0" in one for one in said)
    other = {**FINE, "networks": {"tests": [{"test": "test_u", "paper": False, "outcome": "passed", "why": ""}]}}
    assert "problem networks: 1 of their 1 tests were not run, such as t" in tried(**other)[0]


def test_a_package_that_is_not_installed_is_no_fault(tried):
    said, _ = tried(modules={"error": "ModuleNotFoundError: No module named 'einops' (models.py, line 3)"})
    assert said == ["note code: it was not tried: it asks for the package einops, which is not installed here; if you "
                    "know that package, install it to try the code"]
    said, _ = tried(modules={"error": "ModuleNotFoundError: No module named 'mysr.deep' (models.py, line 3)"},
                    files={"mysr/net.py": ""})
    assert said[0].startswith("problem code: it cannot be imported")


def test_weights_that_are_not_here_are_no_fault(tried):
    error = f"ConnectionError: the VGG19 weights could not be downloaded ({NOT_HERE})"
    assert "note training: it was not tried: it needs weights that are not here" in tried(
        **{**FINE, "training": {"error": error}})[0]


OF_FEATURES = """
from kit.settings.recipes import settings
from kit.training import trainer
from kit.training.phases import Phase
from kit.vgg import VGGFeatures
from models import make_discriminator, make_generator

def features_epoch(generator, batches):
    features = VGGFeatures(2, 2)
    for lr, hr in batches:
        loss = (features(generator(lr)) - features(hr)).square().mean()
        generator.descend(loss)
        yield {"feature_loss": loss}

class Trainer(trainer.Trainer):
    def __init__(self, cfg, progress=True):
        phases = [Phase("features", features_epoch, 1, 1e-4)]
        super().__init__(cfg, phases, make_generator, make_discriminator, {}, progress)
"""


@walls
@pytest.mark.parametrize("name, verdict", [("vgg19-dcbb9e9d.pth", "ok"), (None, "note")])
def test_losses_of_vgg_are_tried_with_its_weights_where_these_are_given(name, verdict, vgg19_weights, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "models.py").write_bytes((ROOT / "models.py").read_bytes())
    (root / "solver.py").write_text(OF_FEATURES, encoding="utf-8")
    if name:
        (tmp_path / name).symlink_to(vgg19_weights[0])
    edition = trial._own_edition() | {trial.TESTS: "def test_t(): ..."}
    found = trial.check_code(root, tmp_path / "trial", False, 60, edition, tmp_path / name if name else None)
    assert [one.verdict for one in found if one.what == "training"] == [verdict], found
    assert not any("tried what no training needs" in one.text for one in found)


@walls
def test_code_cannot_write_the_tests_that_it_is_tried_with(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    rewrites = """
import pathlib, sys
for path in [*pathlib.Path().rglob("test_models.py"), pathlib.Path(sys.argv[-1])]:
    try:
        path.write_text("def test_t(): pass")
    except OSError:
        pass
"""
    (root / "models.py").write_text((ROOT / "models.py").read_text(encoding="utf-8") + rewrites, encoding="utf-8")
    edition = trial._own_edition() | {trial.TESTS: "def test_t(): assert False"}
    found = trial.check_code(root, tmp_path / "trial", False, 60, edition)
    assert [one.verdict for one in found if one.what == "networks" and "t" in one.text][0] == "problem", found


def test_what_the_system_ended_is_no_fault(tried, monkeypatch):
    monkeypatch.setattr(sandbox.Outcome, "reason", "server")
    assert tried()[0] == ["note code: it was not tried: the system has ended what it was tried in, for want of memory "
                          "perhaps; check it again"]


def test_packages_of_ones_own_are_tried_unless_they_are_called_like_an_installed_one(tried):
    said, folder = tried({"mysr/net.py": "", "torch/nn.py": "", "json/x.py": ""}, **FINE)
    assert (folder / "mysr" / "net.py").is_file() and not (folder / "torch").exists()
    assert sum("is called like an installed package" in one for one in said) == 2


def test_it_is_tried_with_the_settings_that_it_was_trained_with(tried):
    settings = {"crop": 96, "channels_last": False, "channels": 24, "content_loss": "0.006 vgg54", "rubbish": 1,
                "blocks": "many", "device": "cuda", "colour_jitter": 0.1}
    files = {"results/handin/result.json": '{"set": "Set5", "method": "m", "run": "../../mine"}',
             "runs/mine/settings.json": json.dumps([{"settings": settings}])}
    _, folder = tried(files, **FINE)
    given = json.loads((folder / "trial_settings.json").read_bytes())
    assert given == {"crop": 96, "channels_last": False, "channels": 24, "content_loss": "mse", "colour_jitter": 0.1}


# ------------------------------------------------------------------------------- the tests of networks

OTHERS = {
    "a residual block of another make": (
        "class ResidualBlock(nn.Module):\n    def __init__(self, kernel, channels, n):\n        super().__init__()\n",
        None),
    "only by 4": ("class Generator(models_.Generator):\n    pass\n"
                  "def make_generator(cfg):\n    return models_.make_generator(type(cfg)({**cfg, 'scale': 4}))\n",
                  "with the setting scale=2 your generator makes 3×96×96 of 3×24×24, not 3×48×48"),
    "a frozen layer": ("def make_generator(cfg):\n    network = models_.make_generator(cfg)\n"
                       "    next(network.parameters()).requires_grad_(False)\n    return network\n", None),
    "a discriminator for 96 alone": (
        "def make_discriminator(cfg):\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 96 * 96, 1))\n",
        "mat1 and mat2 shapes cannot be multiplied"),
    "ends in nothing": (
        "def make_generator(cfg):\n    return nn.Sequential(models_.make_generator(cfg), nn.Identity())\n", None),
    "ends in a sigmoid": ("def make_discriminator(cfg):\n"
                          "    return nn.Sequential(models_.make_discriminator(cfg), nn.Sigmoid())\n",
                          "its verdicts are never below 0: a sigmoid at its end?"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_networks_that_are_otherwise_get_notes_in_words(name, tmp_path):
    """Of the tests that the check runs, only such fail as are told as notes, and they say what is otherwise."""
    code, message = OTHERS[name]
    copy_kit(tmp_path)
    (tmp_path / "models_.py").write_bytes((tmp_path / "models.py").read_bytes())
    head = "import torch\nfrom torch import nn\nimport models_\nfrom models_ import *\n"
    (tmp_path / "models.py").write_text(head + code, encoding="utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_models.py").write_bytes((ROOT / "tests" / "test_models.py").read_bytes())
    (tmp_path / "program.py").write_text(
        "import json\nfrom kit.handin import smoke_test\n"
        "json.dump(smoke_test.try_networks('tests/test_models.py'), open('tried.json', 'w'))", encoding="utf-8")
    outcome = sandbox.run(tmp_path / "program.py", [], tmp_path, trusted=True)
    assert outcome.status == 0, outcome
    rows = json.loads((tmp_path / "tried.json").read_bytes())["tests"]
    failed = [row for row in rows if row["outcome"] == "failed"]
    assert len(rows) > 20 and all(row["paper"] for row in failed), failed
    if message:
        assert any(message in row["why"] for row in failed), failed
    else:
        assert not [row for row in failed if "parameters" not in row["why"]], failed


# ------------------------------------------------------------------------------------------- its pictures


@pytest.fixture
def set5(tmp_path, photograph):
    """Lists with a "Set5" of details of a photograph, a hand-in without pictures, and the originals."""
    lists, root = tmp_path / "lists", tmp_path / "root"
    originals = {}
    for i in range(1, 6):
        detail = np.ascontiguousarray(photograph[40 * i : 40 * i + 64, 60 * i : 60 * i + 64])
        originals[f"img_{i:03d}"] = detail
        utils.save_picture(tmp_path / "Set5" / f"img_{i:03d}.png", detail)
    create_data_lists.create_data_lists(None, {"Set5": tmp_path / "Set5"}, lists, progress=False)
    (root / RESULT / "Set5").mkdir(parents=True)
    (root / RESULT / "result.json").write_text('{"set": "Set5", "method": "mine", "run": "r"}', encoding="utf-8")
    return root, lists, originals


def said_of(root, lists):
    return [f"{one.verdict} {one.what}: {one.text}" for one in check_pictures(root, lists)[0]]


def test_pictures_under_other_names_and_of_other_formats_are_measured_and_told(set5):
    root, lists, originals = set5
    names = ["baby.png", "bird.jpg", "img_003_SRF_4_HR.png", "img_004.PNG", "woman.bmp"]
    for name, original in zip(names, originals.values()):
        picture = utils.bicubic(imresize(original, 0.25))
        Image.fromarray(picture).save(root / RESULT / "Set5" / name, quality=95)
    said = said_of(root, lists)
    assert "note pictures: Set5/img_001.png was found as baby.png" in said
    assert "note pictures: Set5/img_002.png was found as bird.jpg; what it has lost counts" in said
    assert sum("was found as" in one for one in said) == 5 and sum("measured from the pictures" in one for one in said)
    for name in names[1:]:
        (root / RESULT / "Set5" / name).unlink()
    assert [one for one in said_of(root, lists) if one.startswith("problem")] == [
        f"problem pictures: Set5/img_00{i}.png is missing" for i in range(2, 6)]


@pytest.mark.parametrize("noise, verdict, words", [
    (0, "problem", "they are the originals themselves"), (1, "problem", "are the originals in them?"),
    (4, "problem", "more than any network can reach"), (16, None, "")])
def test_scores_that_no_network_reaches(set5, noise, verdict, words):
    root, lists, originals = set5
    random = np.random.default_rng(0)
    for name, original in originals.items():
        noisy = np.clip(original + random.normal(0, noise, original.shape), 0, 255).round().astype(np.uint8)
        utils.save_picture(root / RESULT / "Set5" / f"{name}.png", noisy)
    found = [one for one in said_of(root, lists) if "dB on Set5" in one or "themselves" in one]
    assert len(found) == (verdict is not None) and all(one.startswith(verdict) and words in one for one in found)


def test_a_hand_in_without_records_of_its_runs_is_noted(tmp_path):
    for name in NEEDED:
        (tmp_path / name).write_text("x", encoding="utf-8")
    (one,) = check_files(tmp_path)
    assert one.verdict == "note" and "how it was trained cannot be seen" in one.text
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "history.csv").write_text("phase,epoch\n", encoding="utf-8")
    (one,) = check_files(tmp_path)
    assert one.verdict == "ok"
