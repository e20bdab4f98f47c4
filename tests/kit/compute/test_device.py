"""Devices, number formats and memory."""

import platform
import sys

import pytest
import torch
from warm import python

from helpers import ROOT
from kit.compute import device
from kit.compute.device import Machine


def test_a_gpu_that_is_seen_but_cannot_compute_is_left_alone(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def too_old(*shape, device=None, ones=torch.ones):
        if torch.device(device or "cpu").type == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
        return ones(*shape, device=device)

    monkeypatch.setattr(torch, "ones", too_old)
    assert Machine().device.type == "cpu"
    assert "the GPU is left alone" in capsys.readouterr().out
    with pytest.raises(ValueError, match="device 'cuda' cannot be used .*no kernel image"):
        Machine("cuda")
    with pytest.raises(ValueError, match="device 'gpu' cannot be used .did you mean 'cuda'"):
        Machine("gpu")


@pytest.mark.parametrize("name, capability, good", [
    ("Tesla V100", (7, 0), True), ("NVIDIA GeForce GTX 1660", (7, 5), False),
    ("NVIDIA GeForce GTX 1080", (6, 1), False)])
def test_fp16_is_for_gpus_that_can(monkeypatch, name, capability, good):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert device.has_fp16("cuda") == good and not device.has_fp16("cpu")


def test_all_ways_to_say_that_memory_ran_out():
    for error in [torch.OutOfMemoryError("x"), MemoryError(), RuntimeError("CUDNN_STATUS_ALLOC_FAILED"),
                  RuntimeError("GET was unable to find an engine to execute this computation"),
                  RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]:
        assert device.is_out_of_memory(error)
    assert not device.is_out_of_memory(RuntimeError("shape mismatch"))


def test_where_the_c_library_has_no_such_switch_memory_comes_and_goes_as_ever(monkeypatch):
    def missing(name):
        raise TypeError("there is none")

    for library in (missing, lambda name: object()):
        monkeypatch.setattr("ctypes.CDLL", library)
        with Machine("cpu").tuned():
            pass


KEPT = """
import os, torch
from kit.compute.device import freed_memory_kept
def held():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
with freed_memory_kept():
    tensors = [torch.ones(2**24) for _ in range(20)]  # 64 MB each
    full = held()
    del tensors
    kept = held()
print(full, kept, held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc for it")
def test_freed_memory_is_kept_while_it_is_computed_and_most_of_it_goes_back_then():
    full, kept, after = map(float, python("-c", KEPT).stdout.split())
    assert kept > full - 100 and after < full - 400


THREADS = r"""
import sys
from pathlib import Path
import os
import solver
from kit.compute.device import close_group
from kit.training import command
command.shutdown = lambda status: None
solver.main(sys.argv[1:])
close_group()
names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
os.write(1, f"GLOO {sum('gloo' in name for name in names)}\n".encode())  # in one piece
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads from /proc")
def test_no_thread_of_gloo_outlives_its_group(small_settings, tmp_path):
    (tmp_path / "threads.py").write_text(THREADS, encoding="utf-8")
    arguments = [f"--{key}={value}" for key, value in small_settings.items() if value is not None]
    done = python("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", tmp_path / "threads.py",
                  "--recipe", "demo", *arguments, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line for line in done.stdout.splitlines() if line.startswith("GLOO")] == ["GLOO 0"] * 2


def test_a_gpu_of_apple_s_that_is_there_and_does_not_work_is_left_alone(monkeypatch, capsys):
    """As in virtual machines, which say that they have one."""
    usual = torch.ones

    def ones(*shape, device=None, **options):
        if str(device) == "mps":
            raise RuntimeError("MPS backend out of memory")
        return usual(*shape, device=device, **options)

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", ones)
    assert Machine("auto").device.type == "cpu" and "left alone: device 'mps' cannot be used" in capsys.readouterr().out
