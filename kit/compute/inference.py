"""What it takes to enlarge with a trained network of any build: a copy that is quick, and its receptive field.

Knows nothing of a network but its forward pass: N×3×H×W in [0, 1] → N×3×(scale·H)×(scale·W) in [-1, 1].
"""

import copy
import math

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kit.compute.device import layout_for
from kit.compute.layers import use_fast_layers


@torch.no_grad()
def prepare(generator, device, dtype):
    """A copy of a generator for enlarging, its scale, and how many numbers per input pixel its largest layer has.

    The copy is in evaluation mode, on `device` and in the number format `dtype`, its batch norm folded into the
    convolutions. Raises ValueError for a network that does not enlarge.
    """
    plain = use_fast_layers(copy.deepcopy(generator)).requires_grad_(False).eval()
    probe = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(device)
    widest = 0

    def record(module, inputs, output):
        nonlocal widest
        if isinstance(output, torch.Tensor):
            widest = max(widest, output.numel() / probe[0, 0].numel())

    hooks = [module.register_forward_hook(record) for module in plain.modules()]
    wanted = plain(probe)
    for hook in hooks:
        hook.remove()
    scale = wanted.shape[-1] // 16 if isinstance(wanted, torch.Tensor) and wanted.ndim == 4 else 0
    if not scale or wanted.shape != (1, 3, 16 * scale, 16 * scale):
        what = tuple(wanted.shape) if isinstance(wanted, torch.Tensor) else type(wanted).__name__
        raise ValueError(f"a generator must make N×3×(scale·H)×(scale·W) of N×3×H×W; this {type(generator).__name__} "
                         f"makes {what} of (1, 3, 16, 16)")
    network = plain
    if any(isinstance(module, nn.BatchNorm2d) for module in plain.modules()):
        network = _fold_batch_norm(plain)
        # A layer may be used in another way than its place suggests: what folding changes stays unfolded.
        if (network(probe) - wanted).abs().max() > 1e-3 * wanted.abs().max():
            network = use_fast_layers(copy.deepcopy(generator)).requires_grad_(False).eval()
    return network.to(device, dtype, memory_format=layout_for(device)), scale, widest


def _fold_batch_norm(network):
    """Put batch norms that directly follow a convolution into its weights."""
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for i in range(len(sequence) - 1):
            conv, norm = sequence[i], sequence[i + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) \
                    and norm.track_running_stats and norm.affine:
                sequence[i], sequence[i + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return network


PROBE_LENGTH = 288  # pixels, long enough for any usual network, and quick


def receptive_field(generator):
    """The radius of a generator's receptive field: how many low-resolution pixels away an input pixel still acts.

    Found by trying, so it holds for networks of any build: a NaN at one input pixel turns every output that
    depends on it into NaN. Tiles that overlap by as much give the picture that the uncut one would.

    Raises ValueError for a network that looks at whole pictures (a global pooling, say) or treats places
    differently (strides, windows, coordinates), because it cannot enlarge in tiles.
    """
    with torch.no_grad():
        # On the CPU and in fp32: on GPUs, quick ways to convolve mix neighbouring outputs.
        network = copy.deepcopy(generator).to("cpu", torch.float32, memory_format=torch.contiguous_format).eval()
        found = max(_spread(network, rotated) for rotated in (False, True))
        if found >= PROBE_LENGTH // 2 - 1:
            raise ValueError(f"this generator cannot enlarge in tiles: a pixel acts further than {PROBE_LENGTH // 2} "
                             f"pixels; give it pictures that fit into memory at once")
        if not all(_is_alike_everywhere(network, found, rotated) for rotated in (False, True)):
            raise ValueError("this generator cannot enlarge in tiles: it does not treat all places of a picture alike "
                             "(strides, windows or coordinates in it); give it pictures that fit into memory at once")
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


def _is_alike_everywhere(network, radius, rotated):
    """Whether a strip gives the same when five pixels of it are cut off, beyond the cut's receptive field."""
    values, cut = torch.rand(2 * radius + 32, generator=torch.Generator().manual_seed(0)), 5
    try:
        whole, part = _strip(network, values, rotated), _strip(network, values[cut:], rotated)
    except RuntimeError:  # it does not take every size
        return False
    begin = (part.shape[-1] // (len(values) - cut)) * radius
    whole, part = whole[..., whole.shape[-1] - part.shape[-1] + begin :], part[..., begin:]
    return bool((whole - part).abs().max() <= 1e-3 * whole.abs().max() + 1e-6)
