"""Layers of any network: a copy of them, their shapes alone, and quicker ones for CPUs with the same results."""

import copy
from collections import deque
from itertools import chain
from types import ModuleType, SimpleNamespace

import torch
from torch import nn

PART = 2**20  # so many numbers of a layer's output are summed up at once


def copy_of(network):
    """A deep copy of a network, also of one that keeps results of its forward pass, as weight_norm's older form does.

    PyTorch refuses to copy those, because they hang on gradients; the copy has their values. Raises ValueError for what
    cannot be copied.
    """
    kept = {id(value): value.detach().clone() for module in network.modules()
            for value in _tensors_in(vars(module)) if not value.is_leaf}
    kept |= {id(value): value for module in network.modules() for value in vars(module).values()
             if isinstance(value, ModuleType)}  # `self.F = torch.nn.functional`
    try:
        return copy.deepcopy(network, kept)
    except (TypeError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "deepcopy" not in str(error):  # memory ran out, say
            raise
        raise ValueError(f"this {type(network).__name__} cannot be copied ({str(error).splitlines()[0]}); let it keep "
                         f"modules, tensors and plain values alone") from error


def _tensors_in(value):
    """The tensors in a value, or in lists, tuples, dictionaries and the like in it."""
    value = vars(value) if isinstance(value, SimpleNamespace) else value
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple, deque, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(part)


def placed(network, device, layout, dtype=None):
    """Bring a network to a device, its images' weights to a memory layout, and its real numbers to a format."""
    network.to(device)
    for tensor in chain(network.parameters(), network.buffers()):
        if dtype and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
        if tensor.dim() == 4:  # (the layouts are of images; three-dimensional convolutions have others)
            tensor.data = tensor.data.contiguous(memory_format=layout)
    return network


def shapes_of(make, *arguments):
    """The network that `make(*arguments)` makes on PyTorch's meta device: its shapes, without time or memory."""
    try:
        with torch.device("meta"):
            network = make(*arguments)
    except Exception:  # it puts real tensors into its weights, say
        network = make(*arguments)
    return network.to("meta")


def use_fast_layers(network):
    """Give the layers of any network that CPUs are slow at a quicker way to the same result; returns the network.

    Weights, names and results stay: such a layer becomes one of a subclass that differs in `forward` alone, and
    only on a CPU. Layers of a class of one's own are left as they are.
    """
    for module in network.modules():
        if type(module) is nn.PReLU and module.num_parameters == 1:
            module.__class__ = FastPReLU
        elif type(module) is nn.PixelShuffle:
            module.__class__ = FastPixelShuffle
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


class FastPReLU(nn.PReLU):
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
        if torch.is_grad_enabled():  # the gradient itself will be differentiated: the plain way
            below = x.clamp(max=0)
            return gradient * torch.where(x > 0, 1, slope), (gradient * below).sum().to(slope.dtype).view_as(slope)
        of_x = torch.ops.aten.leaky_relu_backward(gradient, x, slope.item(), False)
        of_slope = sum(_sum_below(*part) for part in _parts(gradient, x))
        return of_x, of_slope.to(slope.dtype).view_as(slope)


def _sum_below(gradient, x):
    """The sum of gradient · min(x, 0), in fp32: in bf16 it would be rounded to 8 bits."""
    return (gradient * x.clamp(max=0)).sum(dtype=torch.float32)


def _parts(*tensors):
    """The same tensors, large ones in flat parts that stay in the cache."""
    if tensors[0].numel() <= PART:
        return [tensors]
    last = (0, *range(2, tensors[0].dim()), 1)  # channels last: flat without a copy, as training lays them out
    return zip(*(tensor.permute(last).reshape(-1).split(PART) for tensor in tensors))


class FastPixelShuffle(nn.PixelShuffle):
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
