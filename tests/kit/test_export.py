"""`python -m kit export`: generators for other programs."""

import numpy as np
import pytest
import torch
from torch import nn

import utils
from helpers import refused, save_generator
from kit import export


@pytest.fixture
def weights(tmp_path, generator):
    save_generator(tmp_path / "mine.pt", generator, channels=8, blocks=2)
    return tmp_path / "mine.pt"


def within_one(made, generator, picture):
    wanted = utils.super_resolve(generator, picture, precision="fp32").astype(int)
    return np.abs(np.round(255 * made[0].transpose(1, 2, 0)) - wanted).max() <= 1


@pytest.mark.parametrize("size", [(20, 24), (33, 17)])
def test_onnx_makes_the_same_pictures_of_any_size(weights, generator, photograph, tmp_path, size, capsys):
    pytest.importorskip("onnxscript", reason="ONNX's packages are not installed")
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    export.main([str(weights), "--out", str(tmp_path / "out" / "mine.onnx")])
    assert "mine.onnx is written; what it makes of a photograph differs" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.onnx"]  # no second file with the weights
    session = runtime.InferenceSession(tmp_path / "out" / "mine.onnx", providers=["CPUExecutionProvider"])
    picture = np.ascontiguousarray(photograph[: size[0], : size[1]])
    [made] = session.run(None, {"lr": utils.to_unit(utils.to_batch(picture)).numpy()})
    assert within_one(made, generator, picture)


def test_pytorch_s_own_format(weights, generator, photograph, tmp_path, capsys):
    export.main([str(weights), "--out", str(tmp_path / "mine.pt2")])
    assert "mine.pt2 is written" in capsys.readouterr().out
    picture = np.ascontiguousarray(photograph[:33, :17])
    network = torch.export.load(tmp_path / "mine.pt2").module()
    assert within_one(network(utils.to_unit(utils.to_batch(picture))).detach().numpy(), generator, picture)


class Fickle(nn.Module):
    """A network whose export would be wrong: it enlarges otherwise while it is looked at."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 48, 1)

    def forward(self, lr):
        x = self.conv(lr)
        return nn.functional.pixel_shuffle(x / 2 if torch.compiler.is_compiling() else x, 4)


class OneByOne(nn.Module):
    """A network that looks at values, which no export can follow."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 48, 1)

    def forward(self, lr):
        return nn.functional.pixel_shuffle(self.conv(lr) * (2 if lr.mean() > 0.5 else 1), 4)


def test_what_cannot_be_exported_is_told_and_nothing_is_kept(tmp_path, generator, monkeypatch):
    refused(lambda: export.export(Fickle().eval(), tmp_path / "a.pt2", "pt2"), tmp_path, "grey values from", "not kept")
    refused(lambda: export.export(OneByOne().eval(), tmp_path / "a.pt2", "pt2"), tmp_path,
            "this network cannot be written as pt2")
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    refused(lambda: export.export(generator, tmp_path / "a.onnx"), tmp_path,
            "onnx needs onnx and onnxscript: pip install onnx onnxscript")


def test_a_name_that_says_another_format(weights, tmp_path):
    for arguments in (["--out", str(tmp_path / "a.pth")], ["--out", str(tmp_path / "a.pt2"), "--format", "onnx"]):
        with pytest.raises(SystemExit, match="does not end in .onnx"):
            export.main([str(weights), *arguments])


def test_without_a_name_it_is_called_after_the_weights(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "mine.pth", "mine.pth.tar"):
        weights = weights.rename(tmp_path / name)
        export.main([name, "--format", "pt2"])
        (tmp_path / "mine.pt2").unlink()
