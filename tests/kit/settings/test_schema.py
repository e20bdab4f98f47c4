"""Settings that make no sense, and settings to be read."""

import pytest

import solver
from helpers import SYSTEMS, refused
from kit.settings.content_loss import loss_formula
from kit.settings.describe import describe
from kit.settings.recipes import recipe_table
from kit.settings.schema import SETTINGS

BAD = [
    ({"batchsize": 8}, "there is no setting 'batchsize'"),
    ({"name": "a/b"}, "name must be a word"),
    ({"name": "../up"}, "name must be a word"),
    ({"scale": 3}, "scale must be 2 or 4 or 8, not 3"),
    ({"crop": 0}, "crop must be a whole number"),
    ({"crop": 50}, "crop must be a multiple of the scale (4), and of 16 for the discriminator, not 50"),
    ({"crop": 72}, "and of 16 for the discriminator, not 72"),
    ({"batch_size": 0}, "batch_size must be a whole number, at least 1"),
    ({"batch_size": "16"}, "batch_size must be a whole number, at least 1, not '16'"),
    ({"batch_size": True}, "batch_size"),
    ({"blocks": 1.5}, "blocks"),
    ({"batch_norm": "yes"}, "batch_norm must be True or False"),
    ({"first_kernel": 4}, "first_kernel must be an odd whole number"),
    ({"content_loss": "vgg"}, "content_loss must be 'mse', 'lr_consistency', 'flat_mse', 'mesh_mse', 'vgg54'"),
    ({"content_loss": "mse + vgg99"}, "content_loss must be 'mse', 'lr_consistency', 'flat_mse', 'mesh_mse', 'vgg54'"),
    ({"content_loss": "mse + mse"}, "content_loss must be 'mse', 'lr_consistency', 'flat_mse', 'mesh_mse', 'vgg54'"),
    ({"warmup_lr": 0}, "warmup_lr must be a number above 0"),
    ({"warmup_lr": float("nan")}, "warmup_lr must be a number above 0"),
    ({"warmup_schedule": "poly"}, "warmup_schedule must be 'constant' or 'step' or 'cosine' or 'one_cycle'"),
    ({"adam_beta1": 1}, "adam_beta1 must be a number from 0 to below 1"),
    ({"adversarial_weight": -1}, "adversarial_weight must be a number, at least 0"),
    ({"warmup_epochs": -1}, "warmup_epochs"),
    ({"clip_gradients": 0}, "clip_gradients must be a number above 0, or None"),
    ({"seed": -1}, "seed"),
    ({"precision": "fp8"}, "precision must be 'auto' or 'fp32'"),
    ({"train_list": None}, "train_list must be a text"),
]


@pytest.mark.parametrize("changes, words", BAD, ids=lambda value: str(value)[:30])
def test_bad_settings(tmp_path, changes, words):
    refused(lambda: solver.settings("demo", runs=str(tmp_path / "runs"), **changes), tmp_path, words)


def test_bad_settings_that_only_the_machine_can_tell(tmp_path, small_settings):
    def train(**changes):
        return lambda: solver.Trainer(type(small_settings)({**small_settings, **changes}), progress=False)

    refused(lambda: solver.settings("papr"), tmp_path, "there is no recipe 'papr'", "paper, celeba, paddle")
    refused(train(device="cuda:77"), tmp_path, "device 'cuda:77' cannot be used")
    refused(train(device="gpu"), tmp_path, "device 'gpu' cannot be used")
    refused(train(valid_list="nowhere.csv"), tmp_path, "nowhere.csv: there is no such list")
    refused(train(start_from="nowhere.pt"), tmp_path, "nowhere.pt: there is no such checkpoint")
    missing = {name: value for name, value in small_settings.items() if name != "blocks"}
    refused(lambda: solver.Trainer(type(small_settings)(missing)), tmp_path, "the setting blocks is missing")


def test_settings_are_shown_as_a_table(small_settings):
    cfg = solver.settings("demo")
    shown = describe(cfg)
    assert 12 <= len(shown.cells) <= 20 and repr(cfg) == str(shown)
    assert len(describe(cfg, "all").cells) == 1 + len(SETTINGS)
    assert all("warmup" in row[0] for row in describe(cfg, "warmup").cells[1:])
    assert "lambda" not in repr(SETTINGS)
    with pytest.raises(ValueError, match="no setting has 'xyz'"):
        describe(cfg, "xyz")


def test_the_table_of_recipes_names_what_differs():
    lines = {line.split()[0]: line.split()[1:] for line in recipe_table().splitlines()}
    assert lines["setting"] == SYSTEMS and lines["crop"] == ["96", "128", "384", "96"]
    assert lines["updates"] == ["alternating", "simultaneous", "alternating", "simultaneous"]
    assert "seed" not in lines


def test_the_loss_is_shown_with_the_factors_in_force():
    terms = "mse + 2 lr_consistency + 10 flat_mse + mesh_mse + 2e-6 vgg54 + 0.5 pool3"
    cfg = solver.settings("paper", content_loss=terms)
    assert loss_formula(cfg) == (r"l^{SR} = l_{MSE} + 2\, l_{LR} + 10\, l_{flat} + l_{mesh} + 2 \cdot 10^{-6}\, "
                                 r"l_{VGG/5,4} + 0.5\, l_{VGG/pool3} + 0.001\, l_{Gen}")
