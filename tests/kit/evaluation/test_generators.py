"""Trained generators from their checkpoints, the reference first."""

import re

import pytest

import create_data_lists
import datasets
import models
import solver
import utils
from helpers import ROOT, save_generator
from kit import evaluation, runs
from kit.evaluation.generators import load_generator, load_generators
from kit.settings.schema import section


def test_of_several_checkpoints_those_are_loaded_that_are_there_and_fit(tmp_path, generator, capsys):
    save_generator(tmp_path / "four.pt", generator, channels=8, blocks=2)
    save_generator(tmp_path / "two.pt", models.Generator(2, channels=4, blocks=1), scale=2, channels=4, blocks=1)
    files = {name: tmp_path / f"{name}.pt" for name in ("none", "four", "two")}
    assert list(load_generators(files)) == ["four"]
    text = capsys.readouterr().out
    assert f"none is left out: there is no file {files['none']}" in text
    assert f"two is left out: {files['two']} enlarges ×2, and the first ×4" in text
    with pytest.raises(ValueError, match="there is none of the checkpoints .*none.pt; train first"):
        load_generators({"none": files["none"]})


@pytest.mark.parametrize("name", ["srresnet", "srgan"])
def test_the_reference_is_the_papers_generator_and_scores_what_its_card_says(name, benchmarks, tmp_path):
    generator = load_generator(ROOT / "weights" / f"{name}.safetensors")
    kept = runs.load_checkpoint(ROOT / "weights" / f"{name}.safetensors")["generator_settings"]
    assert kept == section(solver.settings("paper"), "generator")
    card = (ROOT / "weights" / "README.md").read_text(encoding="utf-8")
    said = re.search(rf"\| `{name}\.safetensors` \|[^|]*\| ([\d.]+) / ([\d.]+) / ([\d.]+) \|", card)
    create_data_lists.create_data_lists(None, {"Set5": benchmarks / "Set5"}, tmp_path, progress=False)
    enlarger = utils.Enlarger(generator, precision="fp32")  # as the card's were found; bf16 moves NIQE by 0.05
    found = evaluation.mean_scores(evaluation.evaluate(enlarger, datasets.TestDataset(tmp_path / "Set5.csv"),
                                                       progress=False))
    for value, text, margin in zip(found, said.groups(), (0.02, 0.001, 0.05), strict=True):
        assert value == pytest.approx(float(text), abs=margin)
