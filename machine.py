"""Where and how networks compute: device, number format, several processes, and quicker layers for CPUs.

Knows torch and nothing of the kit. A `Learner` is how an epoch of training sees a network: call it to
compute, `descend` to learn; everything here then happens inside.
"""

import ctypes
import gc
import importlib
import math
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


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


def keep_freed_memory():
    """Let this process keep the memory of tensors up to 32 MB for its next ones, where the C library is glibc.

    Else much of it goes back to the system at once, and comes back page by page, each of them cleared first: that
    takes longer than many a layer's arithmetic. (PyTorch does the same with the memory of GPUs.)
    """
    with suppress(OSError, TypeError, AttributeError):  # other systems and libraries
        library = ctypes.CDLL(None)
        library.mallopt(-3, 2**25)  # M_MMAP_THRESHOLD of malloc.h: what is larger comes and goes as ever
        library.mallopt(-1, 2**29)  # M_TRIM_THRESHOLD: so much may lie unused at the end


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
        if precision == "auto":
            precision = self._best_precision()
        self.precision = precision
        self.layout = layout_for(self.device) if channels_last else torch.contiguous_format
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        if precision == "fp32" and self.device.type == "cuda":  # what is promised, and not TF32 with its 10 bits
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def _device(self, wanted):
        """The torch device of this name, tried out; for "auto" the best that works."""
        if wanted == "auto":
            if torch.cuda.is_available():
                try:
                    return self._device("cuda")
                except ValueError as error:
                    if self.rank == 0:
                        print(f"the GPU is left alone: {error}", flush=True)
            # (several processes talk by gloo, which knows no MPS)
            return torch.device("mps" if torch.backends.mps.is_available() and self.world == 1 else "cpu")
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
            return batch.to(self.device, memory_format=self.layout)
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

    def gather(self, value):
        """What each process brings, as a list in the order of their ranks, in all of them."""
        values = [value]
        if self.world > 1:
            values *= self.world
            dist.all_gather_object(values, value)
        return values

    def equalise_buffers(self, network):
        """Give the buffers of a network, such as batch norm's averages, the first process's values in all."""
        if self.world > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    @contextmanager
    def tuned(self):
        """A context for batches that are all of one size: cuDNN tries out how to convolve quickest, memory is kept."""
        keep_freed_memory()
        usual, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = usual

    @property
    def is_orphan(self):
        """Whether the program that started this one among several, torchrun, is gone."""
        return self.world > 1 and os.getppid() != self._parent

    @property
    def memory(self):
        """Bytes of memory to compute in: what is free on a GPU, else all that the computer has (if it says so)."""
        if self.device.type == "cuda":
            return free_memory(self.device)
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):  # not on Windows
            return math.inf

    def has_room_for(self, size):
        """Whether a GPU can give away `size` bytes and keep more than half of its free memory."""
        return self.device.type == "cuda" and size < free_memory(self.device) / 2

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


def leave(status=0):
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


class Learner:
    """A network that learns: `learner(x)` computes, `learner.descend(loss)` makes one update of its weights.

    `learner(x, y)` gives the network's outputs for both batches; its weights are brought into the machine's number
    format only once for them. They go through it one after the other, or, which is quicker, as one batch, if the
    network has `judges_each_alone = True`.

    Parameters
    ----------
    network : torch.nn.Module
        On the machine's device.
    optimizer : torch.optim.Optimizer
        Of the network's weights; `learning_rate` sets what its next update takes.
    machine : Machine
        Gives number format, scaling of the loss (fp16) and averaging over processes.
    clip : float, optional
        Largest norm of the gradient.
    """

    def __init__(self, network, optimizer, machine, clip=None):
        self.network, self.optimizer, self.machine, self.clip = network, optimizer, machine, clip
        self._parallel, self._frozen = machine.data_parallel(network), False
        self.update = 0  # the batch's number within the epoch; the trainer counts

    def __call__(self, *batches):
        # Frozen, it goes without the wrapper of several processes, which counts on gradients of its weights.
        network = self.network if self._frozen else self._parallel
        with self.machine.autocast():
            if (len(batches) > 1 and getattr(self.network, "judges_each_alone", False) is True
                    and len({batch.shape[1:] for batch in batches}) == 1):
                together = network(torch.cat(batches))
                if isinstance(together, torch.Tensor):
                    return together.split([len(batch) for batch in batches])
            outputs = [network(batch) for batch in batches]
        return outputs[0] if len(outputs) == 1 else outputs

    @contextmanager
    def frozen(self):
        """A context in which gradients pass through the network and its own weights get none."""
        self.network.requires_grad_(False)
        self._frozen = True
        try:
            yield
        finally:
            for weight in self._weights():  # the optimizer's: others are frozen for good
                weight.requires_grad_(True)
            self._frozen = False

    def descend(self, loss):
        """One update of the weights down the gradient of the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        self.machine.scaler.scale(loss).backward()
        self._step()
        self.machine.scaler.update()

    def _step(self):
        if self.clip:
            self.machine.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self._weights(), self.clip)
        self.machine.scaler.step(self.optimizer)

    def _weights(self):
        return [weight for group in self.optimizer.param_groups for weight in group["params"]]

    @property
    def learning_rate(self):
        return self.optimizer.param_groups[0]["lr"]

    @learning_rate.setter
    def learning_rate(self, value):
        for group in self.optimizer.param_groups:
            group["lr"] = value


def load_optimizer(optimizer, state):
    """Give an Adam optimizer the moments of a saved one, whatever machine, number format or layout they come from.

    How it computes (its epsilon, fused or not) stays as it was made. Raises ValueError for moments of other shapes
    than its weights have; PyTorch's fused Adam would read beyond them.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    moments = state["state"]
    if moments and sorted(moments) != list(range(len(weights))):
        raise ValueError(f"moments of {len(moments)} weights, not of {len(weights)}")
    for index, values in moments.items():
        for name in ("exp_avg", "exp_avg_sq"):
            if values[name].shape != weights[index].shape or values[name].dtype != torch.float32:
                raise ValueError(f"{name} of weight {index} is {tuple(values[name].shape)}, {values[name].dtype}")
        if values["step"].numel() != 1:
            raise ValueError(f"step of weight {index} is no number")
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    for weight, values in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):  # in the layout of their weight, which fused Adam takes for granted
            values[name] = torch.empty_like(weight, requires_grad=False).copy_(values[name])


def descend_together(*losses):
    """One update of several learners, each down the gradient of its own loss, from one forward pass.

    Takes pairs (learner, loss).
    """
    for learner, loss in losses:
        learner.optimizer.zero_grad(set_to_none=True)
        learner.machine.scaler.scale(loss).backward(inputs=learner._weights(), retain_graph=loss is not losses[-1][1])
    for learner, _ in losses:
        learner._step()
    losses[0][0].machine.scaler.update()


class Stopped(KeyboardInterrupt):
    """The user stopped training, and everything is saved. A notebook shows one line, and stops running cells."""

    def _render_traceback_(self):
        return [str(self)]


@contextmanager
def interruption(shown=True):
    """Yields an event that Ctrl-C, a notebook's stop button, or a cluster's SIGTERM sets.

    So an interruption never breaks into the middle of an update; a second one takes effect at once, as Stopped.
    If it is to be `shown`, the first is acknowledged with a line.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals reach the main thread only
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number, frame):
        if event.is_set():
            raise Stopped("stopped at once; the run goes on from where it was last saved")
        event.set()
        if shown:
            with suppress(RuntimeError):  # that it came in the middle of another print
                print("\nstopping after this update; a second time stops at once, without saving", flush=True)

    for number in usual:
        signal.signal(number, on_signal)
    try:
        yield event
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


# ---------------------------------------------------------------------------------- quicker layers for CPUs


def quicken(network):
    """Give the layers of any network that CPUs are slow at a quicker way to the same result; returns the network.

    Weights, names and results stay: such a layer becomes one of a subclass that differs in `forward` alone, and
    only on a CPU. Layers of a class of one's own are left as they are.
    """
    for module in network.modules():
        if type(module) is nn.PReLU and module.num_parameters == 1:
            module.__class__ = QuickPReLU
        elif type(module) is nn.PixelShuffle:
            module.__class__ = QuickPixelShuffle
        elif type(module) is nn.Conv2d and _is_thin(module):
            module.__class__ = ThinConv2d
    return network


def _is_thin(conv):
    """Whether a convolution has few outputs, a large square kernel and nothing unusual."""
    k = conv.kernel_size[0]
    return (conv.out_channels <= 4 and conv.in_channels >= 8 and k >= 5 and conv.kernel_size == (k, k)
            and conv.padding == (k // 2, k // 2) and conv.padding_mode == "zeros" and k % 2 == 1
            and conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1)


class ThinConv2d(nn.Conv2d):
    """A convolution with few outputs and a large kernel, such as the generator's last, quick on CPUs.

    There, k×k kernels with 3 outputs leave most of the vector units idle. So it is done in two steps with
    the same sum: first k×1 kernels with 3·k outputs, one for each column of the kernel, then each of
    these is shifted to its column and added up, by a 1×k convolution of ones and zeros.
    """

    def forward(self, x):
        if x.device.type != "cpu":
            return super().forward(x)
        outputs, inputs, k, _ = self.weight.shape
        columns = self.weight.permute(3, 0, 1, 2).reshape(k * outputs, inputs, k, 1)
        kernel = torch.zeros(outputs, k * outputs, 1, k)
        for j in range(k):
            kernel[:, j * outputs : (j + 1) * outputs, 0, j] = torch.eye(outputs)
        x = nn.functional.conv2d(x, columns, padding=(k // 2, 0))
        return nn.functional.conv2d(x, kernel.to(x), self.bias, padding=(0, k // 2))


class QuickPReLU(nn.PReLU):
    """nn.PReLU with one slope, with a quicker backward pass on CPUs."""

    def forward(self, x):
        return _SlopeForAll.apply(x, self.weight) if x.device.type == "cpu" else super().forward(x)


class _SlopeForAll(torch.autograd.Function):
    """max(x, 0) + slope · min(x, 0): PyTorch's own backward pass sums the slope's gradient many times slower."""

    @staticmethod
    def forward(ctx, x, slope):
        ctx.save_for_backward(x, slope)
        return nn.functional.leaky_relu(x, slope.item())

    @staticmethod
    def backward(ctx, gradient):
        x, slope = ctx.saved_tensors
        of_x = torch.ops.aten.leaky_relu_backward(gradient, x, slope.item(), False)
        last = (0, *range(2, x.dim()), 1)  # channels last: flat without a copy, as training lays them out
        of_slope = torch.dot(gradient.permute(last).reshape(-1), x.clamp(max=0).permute(last).reshape(-1))
        return of_x, of_slope.to(slope.dtype).view_as(slope)


class QuickPixelShuffle(nn.PixelShuffle):
    """nn.PixelShuffle with a quicker backward pass on CPUs, in 16 bits."""

    def forward(self, x):
        quick = x.device.type == "cpu" and x.ndim == 4 and x.element_size() == 2
        return _Shuffle.apply(x, self.upscale_factor) if quick else super().forward(x)


class _Shuffle(torch.autograd.Function):
    """PyTorch's pixel shuffle; the way back gathers the maps of each place, many channels at a time."""

    @staticmethod
    def forward(x, factor):
        return nn.functional.pixel_shuffle(x, factor)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx, gradient):
        r, last = ctx.factor, gradient.permute(0, 2, 3, 1)  # channels last, as training lays them out
        places = [last[:, i::r, j::r] for i in range(r) for j in range(r)]
        return torch.stack(places, -1).flatten(3).permute(0, 3, 1, 2), None
