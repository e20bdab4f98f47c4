"""How many cores and how much memory a process may use: of what the machine has, what a container leaves it."""

import math
import os
from contextlib import suppress
from pathlib import Path

GROUP, CONTROLLERS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")  # where Linux says what a process may have


def cores():
    """How many cores this process may use."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Windows and macOS
        count = os.cpu_count() or 1
    return min(count, quota())


def quota():
    """How many cores' time a container leaves this process, at least 1; infinite without such a limit."""
    shares = [math.inf]
    for share, period in (text.split() for text in _said("cpu.max") if not text.startswith("max")):
        shares.append(math.ceil(int(share) / int(period)))
    for share, period in zip(_said("cpu.cfs_quota_us", "cpu"), _said("cpu.cfs_period_us", "cpu")):
        if int(share) > 0:
            shares.append(math.ceil(int(share) / int(period)))
    return min(shares)


def memory():
    """Bytes of memory that this process may use; infinite where the system does not say."""
    sizes = [math.inf]
    with suppress(AttributeError, ValueError, OSError):  # not on Windows
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for text in (*_said("memory.max"), *_said("memory.limit_in_bytes", "memory")):
        if text.isdecimal():  # and not "max"
            sizes.append(int(text))
    return min(sizes)


def _said(name, controller=None):
    """What the files of this name say, of the process's control group and those around it: version 2's, or, of a
    `controller`, version 1's.
    """
    with suppress(OSError, ValueError):
        for line in GROUP.read_text(encoding="utf-8").splitlines():
            _, controllers, place = line.split(":", 2)
            if (controller in controllers.split(",")) if controller else not controllers:
                base = CONTROLLERS / (controllers if controller else "")
                inside = Path(base, place.lstrip("/"))
                groups = [inside, *(group for group in inside.parents if group.is_relative_to(base))]
                return [(group / name).read_text(encoding="utf-8").strip() for group in groups
                        if (group / name).is_file()]
    return []
