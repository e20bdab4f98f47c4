"""What the script for GPUs checks: all of it where there is one; without, what can be, on the CPU against itself."""

import pytest
import torch

from kit.tools import gpu

CUDA = torch.device("cuda", 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", gpu.checks(CUDA))
def test_a_gpu(name):
    gpu.checks(CUDA)[name]()


@pytest.mark.parametrize("kind", gpu.KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_updates_are_told_apart_and_alike(kind, precision, monkeypatch):
    assert "apart" in gpu.check_update("cpu", kind, precision)
    wrong = gpu.gradients("warmup", "cpu", "fp32")[1]
    monkeypatch.setattr(gpu, "gradients", lambda kind, device, precision, clip=None: (
        {"loss": 1.0}, wrong if precision == "fp32" else [value * 2 for value in wrong]))
    with pytest.raises(AssertionError, match="gradients 1 apart"):
        gpu.check_update("cpu", kind, "bf16")


@pytest.mark.parametrize("changes", [{}, {"jpeg_noise": 0.5}, {"colour_jitter": 0.1}])
def test_batches_cut_on_a_device(changes):
    assert gpu.check_batches("cpu", **changes) == "up to 0 grey values apart"


def test_patches_of_a_cache_that_is_read_by_bytes():
    assert "equal in a cache of" in gpu.check_large_cache("cpu", pictures=3, width=204, height=136)


def test_resuming_in_another_precision():
    assert "dB, then" in gpu.check_resume("cpu", ("cpu", "fp32"), ("cpu", "bf16"))


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "PyTorch finds no GPU here" in capsys.readouterr().err


def test_findings_are_written_as_they_come(tmp_path, monkeypatch):
    def broken():
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(gpu, "checks", lambda device: {"one": lambda: "fine", "two": broken})
    monkeypatch.setattr(gpu, "measurements", lambda device: {"three": lambda: "5 ms"})
    gpu.main(["--out", str(tmp_path / "gpu.md")])
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "| fine |" in text and "FAILED: RuntimeError: no such kernel |" in text and "| 5 ms |" in text


@pytest.mark.parametrize("changes", [{}, {"jpeg_noise": 0.5}])
def test_the_check_of_waits_goes_through_all_phases(monkeypatch, changes):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    assert "each phase" in gpu.check_no_waits("cpu", **changes)
    assert modes == ["error", "default", "error", "default"]  # of warm-up and adversarial phase
