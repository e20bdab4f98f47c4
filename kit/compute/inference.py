"""What it takes to enlarge with a trained network of any build: a copy that is quick, and its receptive field.

Knows nothing of a network but its forward pass: N×3×H×W in [0, 1] → N×3×(scale·H)×(scale·W) in [-1, 1].
"""

import math
from contextlib import nullcontext, suppress
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode

from kit.compute.device import is_out_of_memory, layout_for
from kit.compute.layers import copy_of, placed, use_fast_layers
from kit.language import tr


class QuickCopy:
    """A copy of a generator for enlarging: in evaluation mode, batch norm folded into the convolutions, few bits.

    `copy(lr)` takes a float tensor N×3×H×W in [0, 1] of any H and W, and gives N×3×(scale·H)×(scale·W) in [-1, 1].

    Parameters
    ----------
    generator : torch.nn.Module
    device : torch.device
        Where it is to compute.
    bf16 : bool
        Whether in bf16, if it can: a network that mixes in numbers of its own in fp32 cannot do so throughout; then
        PyTorch's autocast chooses, and where that fails, too, it is fp32.

    Attributes
    ----------
    network : torch.nn.Module
        The copy itself.
    scale : int
        How many times it enlarges.
    pad_to : int
        Pictures are padded to multiples of it, and their enlargements cut: 1 for networks that take any size.
    widest : float
        How many numbers per input pixel its largest layer has, `bits` of each.
    note : str or None
        What is not as was asked for, in a sentence.

    All of this is found by trying. Raises ValueError for a network that does not enlarge.
    """

    @torch.no_grad()
    def __init__(self, generator, device, bf16):
        self.device, self.note = torch.device(device), None
        network = self._copy(generator)
        self.pad_to, probe, wanted, self.widest = tried_sizes(network, self.device)
        self.scale = wanted.shape[-1] // probe.shape[-1]
        fold = False
        if _norms_behind_convolutions(network):
            folded = self._copy(generator, fold=True)
            # A layer may be used in another way than its place suggests: what folding changes stays unfolded.
            fold = bool((folded(probe) - wanted).abs().max() <= 1e-3 * wanted.abs().max())
            network = folded if fold else network

        def another():
            made = self._copy(generator, fold)
            made(probe)  # as the first was tried: some networks keep what they computed
            return made

        self._choose_format(network, another, probe, wanted, bf16)

    def _copy(self, generator, fold=False):
        """A copy to compute with, in fp32."""
        network = placed(use_fast_layers(copy_of(generator)), self.device, torch.contiguous_format, torch.float32)
        network.requires_grad_(False).eval()
        for sequence, i in _norms_behind_convolutions(network) if fold else []:
            sequence[i], sequence[i + 1] = fuse_conv_bn_eval(sequence[i], sequence[i + 1]), nn.Identity()
        return network

    def _choose_format(self, network, another, probe, wanted, bf16):
        """Take the first number format and layout, the quickest first, in which the network, or `another()`, computes.

        What has failed in one format is not tried in the next: it may have kept numbers of the first.
        """
        ways = [(torch.bfloat16, False), (torch.float32, True)] if bf16 else []
        reasons = []
        for dtype, autocast in [*ways, (torch.float32, False)]:
            for layout in dict.fromkeys([layout_for(self.device), torch.contiguous_format]):
                self._dtype, self._autocast, self._layout = dtype, autocast, layout
                self.network = placed(another() if reasons else network, self.device, layout, dtype)
                try:
                    sr = self(probe)
                except Exception as error:  # a network may raise anything where it is used as it was not meant to be
                    _raise_out_of_memory(error)
                    reasons.append(reason_of(error))
                    continue
                if wanted.isfinite().all() and not sr.isfinite().all():
                    reasons.append("its output is no number")
                    continue
                if bf16 and dtype != torch.bfloat16:
                    note = (tr("this {kind} does not compute in bf16 throughout ({reason}), so it enlarges in bf16 "
                               "where PyTorch's autocast takes it") if autocast else
                            tr("this {kind} does not compute in bf16 throughout ({reason}), so it enlarges in fp32"))
                    self.note = note.format(kind=type(network).__name__, reason=reasons[0])
                return
        raise ValueError(f"this {type(network).__name__} enlarges on its own, but not on {self.device} ({reasons[-1]})")

    @property
    def bits(self):
        """Of the numbers that it computes with, at most."""
        return 16 if self._dtype == torch.bfloat16 else 32

    def __call__(self, lr):
        height, width = lr.shape[2:]
        if self.pad_to > 1:
            lr = F.pad(lr, (0, -width % self.pad_to, 0, -height % self.pad_to), mode="replicate")
        lr = lr.to(self._dtype, memory_format=self._layout)
        with torch.autocast(self.device.type, torch.bfloat16) if self._autocast else nullcontext():
            return self.network(lr)[..., : self.scale * height, : self.scale * width]

    @torch.no_grad()
    def check_size(self, height, width):
        """Raise ValueError for a picture that cannot be enlarged in one piece, tried by shapes alone where possible."""
        shape = [1, 3, *(-(-side // self.pad_to) * self.pad_to for side in (height, width))]
        with suppress(Exception):
            copy_of(self.network).to("meta", torch.float32)(torch.empty(shape, device="meta"))
            return
        try:
            self(torch.zeros(1, 3, height, width, device=self.device))  # it may have failed for lack of values only
        except Exception as error:
            if not is_out_of_memory(error):  # of that, smaller pieces may need less
                raise ValueError(f"the generator cannot enlarge a picture of {width}×{height} "
                                 f"({reason_of(error)})") from error


def _raise_out_of_memory(error):
    """Raise an error again that says nothing about the network."""
    if is_out_of_memory(error):
        raise error


def reason_of(error):
    """The first line of an error, or what kind it is."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


# Sides to try a network with: of a small picture that nobody rounded, then multiples of what it may ask for.
_ODD_SIDES = [(1, (7, 11)), (1, (17, 23))]
_EVEN_SIDES = [(multiple, (-(-16 // multiple) * multiple, (-(-16 // multiple) + 1) * multiple))
               for multiple in (*range(2, 17), 20, 24, 32, 48, 64)]


def tried_sizes(network, device):
    """The multiple that pictures must be padded to, a probe, the network's output for it, and its largest layer.

    Raises ValueError for a network that does not enlarge.
    """
    widest = 0

    def record(module, inputs, output):
        nonlocal widest
        if isinstance(output, torch.Tensor):
            widest = max(widest, output.numel())

    for pad_to, (height, width) in [*_ODD_SIDES, *_EVEN_SIDES, (None, (16, 16))]:
        probe = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device)
        widest, hooks = 0, [module.register_forward_hook(record) for module in network.modules()]
        try:
            output, error = network(probe), None
        except Exception as raised:
            _raise_out_of_memory(raised)
            error = raised
            continue
        finally:
            for hook in hooks:
                hook.remove()
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        scale = shape[3] // width if isinstance(shape, tuple) and len(shape) == 4 else 0
        if pad_to and scale and shape == (1, 3, scale * height, scale * width):
            return pad_to, probe, output, widest / (height * width)
    if error:
        raise ValueError(f"the generator cannot enlarge a picture of 16×16 ({reason_of(error)})") from error
    raise ValueError(f"a generator must make N×3×(scale·H)×(scale·W) of N×3×H×W for pictures of any size; this "
                     f"{type(network).__name__} makes {shape} of (1, 3, 16, 16)")


def _norms_behind_convolutions(network):
    """Where batch norms directly follow a convolution, into whose weights they can be put: (sequence, its place)."""
    return [(sequence, i) for sequence in network.modules() if isinstance(sequence, nn.Sequential)
            for i, (conv, norm) in enumerate(pairwise(sequence))
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            and norm.track_running_stats and norm.affine and "weight" in conv._parameters]


class _WithoutAddresses(TorchDispatchMode):
    """Refuses what computes addresses from its input: a NaN there ends the process."""

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # else PyTorch imports its compiler at the first use, which takes seconds

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if "deform_conv" in str(function):
            raise ValueError("a deformable convolution looks wherever its input says")
        return function(*arguments, **(options or {}))


PROBE_LENGTH = 288  # pixels, long enough for any usual network, and quick


def receptive_field(generator):
    """The radius of a generator's receptive field: how many low-resolution pixels away an input pixel still acts.

    Found by trying, so it holds for networks of any build: a NaN at one input pixel turns every output that
    depends on it into NaN. Tiles that overlap by as much give the picture that the uncut one would.

    Raises ValueError for a network that looks at whole pictures (a global pooling, say) or treats places
    differently (strides, windows, coordinates), because it cannot enlarge in tiles.
    """
    # On the CPU and in fp32: on GPUs, quick ways to convolve mix neighbouring outputs.
    network = placed(copy_of(generator), "cpu", torch.contiguous_format, torch.float32).eval()
    with torch.no_grad(), _WithoutAddresses():
        try:
            found = max(_spread(network, rotated) for rotated in (False, True))
            is_alike = found >= PROBE_LENGTH // 2 - 1 or all(_is_alike_everywhere(network, found, rotated, cut)
                                                             for rotated in (False, True) for cut in (5, 7))
        except Exception as error:  # it does not take every size
            _raise_out_of_memory(error)
            is_alike = False
    if not is_alike:
        raise ValueError("this generator cannot enlarge in tiles: it does not treat all places of a picture alike "
                         "(strides, windows or coordinates in it); give it pictures that fit into memory at once")
    if found >= PROBE_LENGTH // 2 - 1:
        raise ValueError(f"this generator cannot enlarge in tiles: a pixel acts further than {PROBE_LENGTH // 2} "
                         f"pixels; give it pictures that fit into memory at once")
    return found


def _strip(network, values, rotated):
    """What a network makes of one row of values, repeated 16 times; rotated: of a column."""
    batch = values.expand(1, 3, 16, -1)
    return network(batch.mT.contiguous()).mT if rotated else network(batch.contiguous())


def _spread(network, rotated):
    """How far a NaN in the middle of a strip spreads, in low-resolution pixels."""
    values, middle = torch.full((PROBE_LENGTH,), 0.5), PROBE_LENGTH // 2
    values[middle] = math.nan
    output = _strip(network, values, rotated)
    touched = output.isnan().flatten(0, 2).any(dim=0).nonzero().flatten() // (output.shape[-1] // PROBE_LENGTH)
    return int((touched - middle).abs().max()) if len(touched) else PROBE_LENGTH


def _is_alike_everywhere(network, radius, rotated, cut):
    """Whether a strip gives the same when some pixels of it are cut off, beyond the cut's receptive field."""
    values = torch.rand(2 * radius + 32, generator=torch.Generator().manual_seed(0))
    whole, part = _strip(network, values, rotated), _strip(network, values[cut:], rotated)
    begin = (part.shape[-1] // (len(values) - cut)) * radius
    whole, part = whole[..., whole.shape[-1] - part.shape[-1] + begin :], part[..., begin:]
    return bool((whole - part).abs().max() <= 1e-3 * whole.abs().max() + 1e-6)


def spans(length, tile, overlap):
    """[start, stop) pieces of a side, of nearly equal length, each at most `tile` with its overlaps."""
    count = 1 if length <= tile else math.ceil(length / (tile - 2 * overlap))
    edges = [length * i // count for i in range(count + 1)]
    return list(zip(edges[:-1], edges[1:]))
