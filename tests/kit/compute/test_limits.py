"""What a container leaves a process of cores and memory."""

import math
import os

import pytest
import torch

from kit.compute import limits, threads
from kit.compute.device import Machine


@pytest.fixture
def container(tmp_path, monkeypatch):
    """A function that makes control groups on a machine of 64 cores and 256 GB: line of the group, file → text."""
    def make(line, **files):
        (tmp_path / "cgroup").write_text(f"12:pids:/other\n{line}\n", encoding="utf-8")
        for name, text in files.items():
            path = tmp_path / "controllers" / name.replace("__", "/").replace("-", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n", encoding="utf-8")

    monkeypatch.setattr(limits, "GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "CONTROLLERS", tmp_path / "controllers")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 256 * 2**18}.get, raising=False)
    return make


@pytest.mark.parametrize("line, files", [
    ("0::/", {"cpu-max": "200000 100000", "memory-max": str(2**32)}),
    ("0::/pod/one", {"pod__cpu-max": "150000 100000", "pod__one__cpu-max": "max 100000", "pod__memory-max": str(2**32),
                     "pod__one__memory-max": "max"}),
    ("7:cpu:/docker/x\n4:memory:/docker/x", {
        "cpu__docker__x__cpu-cfs_quota_us": "200000", "cpu__docker__x__cpu-cfs_period_us": "100000",
        "memory__docker__x__memory-limit_in_bytes": str(2**32)}),
    ("7:cpu:/docker/x\n4:memory:/docker/x", {
        "cpu__cpu-cfs_quota_us": "200000", "cpu__cpu-cfs_period_us": "100000",
        "memory__memory-limit_in_bytes": str(2**32)}),
])
def test_what_a_container_leaves_is_what_is_reckoned_with(container, line, files, monkeypatch):
    container(line, **files)
    assert limits.cores() == 2 and limits.memory() == Machine("cpu").memory == 2**32
    monkeypatch.setattr(torch, "get_num_threads", lambda: 32)
    assert threads.counts() == [2, 1]


@pytest.mark.parametrize("line, files", [("0::/", {"cpu-max": "max 100000", "memory-max": "max"}), ("0::/gone", {}),
                                         ("nonsense", {})])
def test_without_limits_all_is_there(container, line, files):
    container(line, **files)
    assert limits.cores() == 64 and limits.memory() == 2**38


def test_where_nothing_is_said_nothing_is_reckoned_with(container, monkeypatch):
    container("0::/")
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert limits.cores() == 1 and limits.memory() == math.inf
