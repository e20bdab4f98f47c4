"""Where and how networks compute: device, number format, several processes, and quicker layers for CPUs.

Knows torch and nothing of the kit. A `Learner` is how an epoch of training sees a network: call it to
compute, `descend` to learn; everything here then happens inside.
"""

import os
import signal
import threading
from contextlib import contextmanager

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


class Machine:
    """Where and in which number format training computes.

    `device` is "auto" or a torch device; `precision` is "auto" (bf16 where the hardware has it, else
    fp16 on CUDA, else fp32), "fp32", "bf16" or "fp16". Weights, losses and optimizer stay fp32.

    Under `torchrun` each process makes its own; `rank` and `world` count them.
    Raises ValueError for a device that is not there.
    """

    def __init__(self, device="auto", precision="auto", channels_last=True):
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if device == "auto" and self.world > 1 and torch.cuda.is_available():
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        try:
            self.device = torch.device(device)
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device {device!r} cannot be used ({error}); choose another or 'auto'") from error
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        if precision == "auto":
            precision = self._best_precision()
        self.precision = precision
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")

    def _best_precision(self):
        if has_bf16(self.device):
            return "bf16"
        return "fp16" if self.device.type == "cuda" else "fp32"

    def autocast(self):
        """A context in which convolutions compute in the machine's number format."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.precision != "fp32")

    def move(self, batch):
        """A batch, or a network, on the device and in the layout that it computes best in."""
        if isinstance(batch, nn.Module):
            return batch.to(self.device, memory_format=self.layout)
        return batch.to(self.device, non_blocking=True, memory_format=self.layout)

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
        """What `make()` gives in the first process, in all of them; the others wait for it."""
        result = [make() if self.rank == 0 else None]
        if self.world > 1:
            dist.broadcast_object_list(result, device=self.device)
        return result[0]

    def has_room_for(self, size):
        """Whether a GPU can give away `size` bytes and keep more than half of its free memory."""
        return self.device.type == "cuda" and size < torch.cuda.mem_get_info(self.device)[0] / 2

    @property
    def float64_device(self):
        """Where sums are kept in float64, which MPS does not have."""
        return torch.device("cpu") if self.device.type == "mps" else self.device


class Learner:
    """A network that learns: `learner(x)` computes, `learner.descend(loss)` makes one update of its weights.

    `learner(x, y)` gives the network's outputs for both batches, one after the other; its weights are brought into
    the machine's number format only once for them.

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

    def __call__(self, *batches):
        # Frozen, it goes without the wrapper of several processes, which counts on gradients of its weights.
        network = self.network if self._frozen else self._parallel
        with self.machine.autocast():
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
            self.network.requires_grad_(True)
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


@contextmanager
def interruption():
    """Yields an event that Ctrl-C, or a notebook's stop button, sets.

    So an interruption never breaks into the middle of an update; a second one takes effect at once.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals reach the main thread only
        return
    usual = signal.getsignal(signal.SIGINT)

    def on_signal(number, frame):
        if event.is_set() and callable(usual):
            usual(number, frame)
        event.set()

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, usual)


# ---------------------------------------------------------------------------------- quicker layers for CPUs


def quicken(network):
    """Give the layers of any network that CPUs are slow at a quicker way to the same result; returns the network.

    Weights, names and results stay: such a layer becomes one of a subclass that differs in `forward` alone, and
    only on a CPU. Layers of a class of one's own are left as they are.
    """
    for module in network.modules():
        if type(module) is nn.PReLU and module.num_parameters == 1:
            module.__class__ = QuickPReLU
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
