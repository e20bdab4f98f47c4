"""What is inside a network: what its blocks add, PixelShuffle by numbers, its activations."""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from kit.compute.inference import QuickCopy, reason_of
from kit.language import tr
from kit.lessons.figure import closed
from kit.plots.pictures import NO_TICKS
from utils import psnr, to_batch, to_rgb, to_uint8, to_unit


def _blocks(generator):
    """The residual blocks of a generator, which are told by the name of their class."""
    return [module for module in generator.modules()
            if all(word in type(module).__name__.lower() for word in ("residual", "block"))]


def block_contributions(generator, pair):
    """How much each residual block adds to what goes through it, and the PSNR without it.

    Parameters
    ----------
    generator : torch.nn.Module
        A trained network with modules whose class is called something like ResidualBlock.
    pair : datasets.Pair
        The picture to try it on.

    Returns a figure; a sentence where there are no such modules, or none that can be left out.
    """
    enlarge = QuickCopy(generator, "cpu", bf16=False)
    blocks = _blocks(enlarge.network)
    if not blocks:
        return tr("this network has no modules called ResidualBlock, so there is nothing to bypass")
    shares = [0.0] * len(blocks)

    def watch(i, _, inputs, output):
        shares[i] = ((output - inputs[0]).norm() / inputs[0].norm()).item()

    hooks = [block.register_forward_hook(partial(watch, i)) for i, block in enumerate(blocks)]
    lr, original = to_unit(to_batch(to_rgb(pair.lr))), to_rgb(pair.hr)

    def score():
        with torch.no_grad():
            sr = to_uint8(enlarge(lr))[0].permute(1, 2, 0)
        return psnr(sr.numpy(), original)

    without = []
    try:
        whole = score()
        for hook in hooks:
            hook.remove()
        for block in blocks:
            hook = block.register_forward_hook(lambda _, inputs, output: inputs[0])  # as if it added nothing
            without.append(score())
            hook.remove()
    except Exception as error:
        return tr("the blocks of this network do not simply add to what goes through them, so none can be left out "
                  "({reason})", reason=reason_of(error))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
    numbers = range(1, len(blocks) + 1)
    left.bar(numbers, [100 * share for share in shares], color="tab:blue")
    left.set(title=tr("what a block adds, in % of what goes in"), xlabel=tr("block"), xticks=numbers)
    right.bar(numbers, [value - whole for value in without], color="tab:red")
    title = tr("change of PSNR without it ({whole:.2f} dB with all)", whole=whole)
    right.set(title=title, xlabel=tr("block"), ylabel="dB",
              xticks=numbers)
    return closed(figure)


def pixel_shuffle():
    """PixelShuffle by numbers, and what a transposed convolution makes of a constant instead."""
    maps = torch.arange(16.0).view(1, 4, 2, 2)
    shuffled = F.pixel_shuffle(maps, 2)[0, 0].int().numpy()
    colours = np.array([plt.get_cmap("Pastel1")(i)[:3] for i in range(4)])
    figure, axes = plt.subplots(1, 7, figsize=(10, 2.1), layout="constrained", width_ratios=[1] * 4 + [1.6, 1.6, 1.6])
    for i in range(4):
        _cells(axes[i], maps[0, i].int().numpy(), np.full((2, 2), i), colours, tr("map {number}", number=i + 1))
    _cells(axes[4], shuffled, np.tile([[0, 1], [2, 3]], (2, 2)), colours, "PixelShuffle(2)")
    constant = torch.ones(1, 1, 6, 6)
    for axis, kernel in [(axes[5], 3), (axes[6], 4)]:
        made = F.conv_transpose2d(constant, torch.ones(1, 1, kernel, kernel), stride=2, padding=1)
        made = made[0, 0, 2:-2, 2:-2].numpy()
        axis.imshow(made, cmap="gray", vmin=0, vmax=made.max() * 1.1, interpolation="nearest")
        axis.set_title(tr("transposed, kernel {kernel},\nof a constant", kernel=kernel), fontsize=8)
        axis.set_axis_off()
    return closed(figure)


def _cells(axis, numbers, kinds, colours, title):
    axis.imshow(colours[kinds])
    for (row, column), number in np.ndenumerate(numbers):
        axis.text(column, row, str(number), ha="center", va="center", fontsize=9)
    axis.set_title(title, fontsize=8)
    axis.set(**NO_TICKS)


def activations(generator):
    """The slopes that a generator's PReLUs have learned, beside ReLU and the discriminator's leaky ReLU."""
    slopes = [module.weight.detach().float().mean().item() for module in generator.modules()
              if isinstance(module, nn.PReLU)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
    x = np.linspace(-3, 3, 61)
    shown = {"ReLU": 0.0, "leaky ReLU, 0.2": 0.2}
    if slopes:
        shown |= {tr("PReLU, least learned: {slope:.2f}", slope=min(slopes)): min(slopes),
                  tr("PReLU, most learned: {slope:.2f}", slope=max(slopes)): max(slopes)}
        right.bar(range(1, len(slopes) + 1), slopes)
        right.axhline(0.25, color="grey", linestyle="--", label=tr("where they began"))
        right.legend(fontsize=8)
    for name, slope in shown.items():
        left.plot(x, np.where(x > 0, x, slope * x), label=name)
    left.legend(fontsize=8)
    left.set(title=tr("activations"))
    left.grid(alpha=0.3)
    right.set(title=tr("slope for negative values"), xlabel=tr("PReLU, from the input to the output"),
              xticks=range(1, len(slopes) + 1))
    return closed(figure)
