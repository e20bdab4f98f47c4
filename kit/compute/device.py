"""Where and how networks compute: device, number format, memory layout, and several processes."""

import ctypes
import gc
import importlib
import os
import sys
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kit.compute import limits
from kit.compute.layers import placed
from kit.language import tr


def has_bf16(device):
    """Whether a device computes with bf16 in hardware; without, it would be slower than fp32."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # PyTorch has no public question for this on CPUs yet; where this one should go away, "no" is safe.
    return device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def has_fp16(device):
    """Whether a GPU convolves quickly and rightly in fp16: not before Volta, nor a GTX 16xx, which gives NaN."""
    device = torch.device(device)
    return (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
            and "GTX 16" not in torch.cuda.get_device_name(device))


def layout_for(device):
    """The memory layout in which a device convolves quickest; on MPS the other one gives wrong gradients."""
    return torch.contiguous_format if torch.device(device).type == "mps" else torch.channels_last


def free_memory(device):
    """Bytes that can be had on a GPU: what is free, and what PyTorch keeps for itself and does not use."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def _taken():
    """Bytes that this process has taken, of addresses and of memory, where Linux says so."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return [int(pages) * os.sysconf("SC_PAGE_SIZE") for pages in file.read().split()[:2]]
    except OSError:
        return 0, 0


@contextmanager
def freed_memory_kept():
    """A context in which memory that is freed is kept for the next tensors, where the C library is glibc.

    Else that of large ones goes back to the system at once, and comes back page by page, each of them cleared first:
    that takes longer than many a layer's arithmetic. (PyTorch does so with the memory of GPUs.) After it a process
    that holds more than a gigabyte gives back what is free but for half a gigabyte.
    """
    library = None
    with suppress(OSError, TypeError):  # not on Windows
        library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        yield
        return
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4  # as malloc.h numbers them
    stays = 2**29
    library.mallopt(mmap_max, 0)  # no block gets pages of its own, which are gone with it
    library.mallopt(trim_threshold, 2**31 - 1)
    try:
        yield
    finally:
        library.mallopt(mmap_max, 65536)  # the usual number; and the largest block without, which glibc finds itself,
        library.mallopt(mmap_threshold, 2**25)  # but no longer once something was set
        library.mallopt(trim_threshold, stays + 2**26)  # else what stays now would go with the next block
        if _taken()[1] > 2**30:  # (to look for what is free takes long, beside a small picture)
            library.malloc_trim(ctypes.c_size_t(stays))


def is_out_of_memory(error):
    """Whether an error says, in any of the ways in which PyTorch does, that memory ran out."""
    words = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        sign in words for sign in ("out of memory", "allocate memory", "enough memory", "alloc_failed",
                                   "unable to find an engine", "could not create a primitive"))


class Machine:
    """Where and in which number format training computes.

    `device` is "auto" or a torch device; `precision` is "auto" (bf16 where the hardware has it, else
    fp16 on CUDA, else fp32), "fp32", "bf16" or "fp16". Weights, losses and optimizer stay fp32.

    Under `torchrun` each process makes its own; `rank` and `world` count them.
    Raises ValueError for a device that is not there.
    """

    def __init__(self, device="auto", precision="auto", channels_last=True):
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))
        self.device = self._device(device)
        if self.world > 1 and not dist.is_initialized():
            # Imported here, before there is a group: later, DistributedDataParallel would do it, and the default
            # arguments in that module would hold the group, and with it threads, beyond the end of Python.
            importlib.import_module("torch.distributed.nn.functional")

            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo", timeout=timedelta(hours=2))
        self._parent = os.getppid()
        self.layout = layout_for(self.device) if channels_last else torch.contiguous_format
        self.set_precision(self._best_precision() if precision == "auto" else precision)

    def set_precision(self, precision):
        """Compute in this number format from now on: "fp32", "bf16" or "fp16"."""
        self.precision = precision
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        if precision == "fp32" and self.device.type == "cuda":  # what is promised, and not TF32 with its 10 bits
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def _device(self, wanted):
        """The torch device of this name, tried out; for "auto" the best that works."""
        if wanted == "auto":
            # (several processes talk by gloo, which knows no MPS)
            there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available() and self.world == 1}
            for name in (name for name in there if there[name]):
                try:
                    return self._device(name)
                except ValueError as error:
                    if self.rank == 0:
                        print(tr("the GPU is left alone: {error}", error=error), flush=True)
            return torch.device("cpu")
        try:
            device = torch.device(f"cuda:{self.local_rank}" if wanted == "cuda" and self.world > 1 else wanted)
            # A GPU can be seen and yet be too old for the kernels of this PyTorch, so one is run.
            ones = torch.ones(1, 1, 4, 4, device=device)
            nn.functional.conv2d(ones, ones[..., :3, :3]).sum().item()
            if device.type == "cuda":
                torch.cuda.set_device(device)
        except (RuntimeError, AssertionError) as error:
            hint = " (did you mean 'cuda'?)" if wanted == "gpu" else ""
            reason = str(error).splitlines()[0]
            raise ValueError(f"device {wanted!r} cannot be used{hint} ({reason}); choose another or 'auto'") from error
        return device

    def _best_precision(self):
        if has_bf16(self.device):
            return "bf16"
        return "fp16" if has_fp16(self.device) else "fp32"

    def autocast(self):
        """A context in which convolutions compute in the machine's number format."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.precision != "fp32")

    def move(self, batch):
        """A batch, or a network, on the device and in the layout that it computes best in."""
        if isinstance(batch, nn.Module):
            return placed(batch, self.device, self.layout)
        return batch.to(self.device, non_blocking=self.device.type == "cuda", memory_format=self.layout)

    def data_parallel(self, network):
        """The network, or with several processes one that averages its gradients over them."""
        return DistributedDataParallel(network, broadcast_buffers=False) if self.world > 1 else network

    def all_reduce(self, tensor):
        """The sum of a tensor over all processes."""
        if self.world > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def any(self, *flags):
        """For each of some flags whether it is set in any process, as a list."""
        flags = torch.tensor(flags, dtype=torch.float32, device=self.device)
        return [bool(flag) for flag in self.all_reduce(flags).tolist()]

    def broadcast(self, make):
        """What `make()` gives in the first process, in all of them, or the error that it raises; the others wait."""
        if self.world == 1:
            return make()
        result = [None, None]
        if self.rank == 0:
            try:
                result[0] = make()
            except (ValueError, OSError) as error:
                result[1] = error
        dist.broadcast_object_list(result, device=self.device)
        if result[1]:
            raise result[1]
        return result[0]

    def in_turn(self, make):
        """What `make()` gives in each process: first in the first one, which may download what the others then find."""
        if self.world == 1:
            return make()
        made = []
        self.broadcast(lambda: made.append(make()))
        return made[0] if made else make()

    def gather(self, value):
        """What each process brings, as a list in the order of their ranks, in all of them."""
        values = [value]
        if self.world > 1:
            values *= self.world
            dist.all_gather_object(values, value)
        return values

    def broadcast_buffers(self, network):
        """Give the buffers of a network, such as batch norm's averages, the first process's values in all."""
        if self.world > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    @contextmanager
    def tuned(self):
        """A context for batches that are all of one size: cuDNN tries out how to convolve quickest, memory is kept."""
        usual, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
        try:
            with freed_memory_kept():
                yield
        finally:
            torch.backends.cudnn.benchmark = usual

    @property
    def is_orphan(self):
        """Whether the program that started this one among several, torchrun, is gone."""
        return self.world > 1 and os.getppid() != self._parent

    @property
    def memory(self):
        """Bytes of memory to compute in: what is free on a GPU, else what the computer has (if it says so).

        A process may have been allowed less (`ulimit -v`); beyond it, PyTorch's threads end the process without a word.
        """
        if self.device.type == "cuda":
            return free_memory(self.device)
        all_there = limits.memory()
        try:
            import resource

            allowed, used = resource.getrlimit(resource.RLIMIT_AS)[0], _taken()[0]
        except (ImportError, AttributeError, ValueError, OSError):  # not on Windows
            return all_there
        return all_there if allowed == resource.RLIM_INFINITY else min(all_there, allowed - used)

    def can_keep(self, size, wanted="auto"):
        """Whether `size` bytes shall stay on the device: if `wanted`, or if a GPU then has half of its memory left."""
        if wanted == "auto":
            return self.device.type == "cuda" and size < free_memory(self.device) / 2
        return wanted and self.device.type != "cpu"

    @property
    def float64_device(self):
        """Where sums are kept in float64, which MPS does not have."""
        return torch.device("cpu") if self.device.type == "mps" else self.device


def close_group(wait=True):
    """Part from the other processes, with all threads that talked to them; `wait` until they have come here, too."""
    if wait:
        dist.barrier()
    gc.collect()  # what refers to itself, as DistributedDataParallel does, would hold the group
    dist.destroy_process_group()


def shutdown(status=0):
    """End the program; under torchrun without the part of Python's end in which a thread of gloo can crash it.

    There, a thread may drop the last reference to a tensor while the interpreter is already gone, which ends the
    process with "terminate called without an active exception" (PyTorch issue 190489).
    """
    if not dist.is_initialized():
        if status:
            sys.exit(status)
        return
    try:
        close_group(wait=not status)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
