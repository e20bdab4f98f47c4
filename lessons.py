"""The textbook's figures: every claim of the notebooks' texts, computed, where it can be on the student's own run.

    lessons.edge(methods)              # an edge under every way to enlarge, with its profile
    lessons.block_contributions(net)   # what each residual block adds, and what is lost without it

Every function returns a matplotlib.figure.Figure (closed, so that a notebook shows it once) or a Table. None of them
changes a run or a network.
"""

import copy
import inspect
import itertools
import json
import math
import textwrap
from collections import namedtuple
from functools import lru_cache, partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from easydict import EasyDict
from torch import nn

import bench
import recipes
import runs
import solver
from evaluation import naturalness
from imresize import imresize
from inference import reach
from plots import NO_TICKS, detail_window
from utils import (Table, bicubic, did_you_mean, luma, psnr, ssim, ssim_map, super_resolve, to_batch, to_rgb, to_signed,
                   to_uint8, to_unit, write_whole)

GREYS = dict(cmap="gray", vmin=0, vmax=255, interpolation="nearest")

# ------------------------------------------------------------------- what super-resolution is (train §2, prediction)


def _row(pictures, titles, size=2.0, **options):
    """A figure with a row of pictures under titles."""
    return _rows([pictures], [titles], size, **options)


def _rows(pictures, titles, size=2.0, **options):
    """A figure with rows of pictures under titles."""
    figure, axes = plt.subplots(len(pictures), len(pictures[0]), layout="constrained", squeeze=False,
                                subplot_kw=NO_TICKS,
                                figsize=(size * len(pictures[0]), (size + 0.5) * len(pictures)))
    for axis, picture, title in zip(axes.flat, itertools.chain(*pictures), itertools.chain(*titles)):
        axis.imshow(picture, **(GREYS if np.ndim(picture) == 2 else {}) | options)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    return _closed(figure)


def _closed(figure):
    plt.close(figure)
    return figure


def _detail(picture, side):
    """The most detailed square of a picture, of a side that is a multiple of 4."""
    top, left, side = detail_window(picture, side)
    side -= side % 4
    return picture[top : top + side, left : left + side]


def slanted_edge(size=96, supersampling=8):
    """A picture uint8 size×size×3 of one slanted edge between dark and light, as a camera would see it."""
    fine = np.arange(size * supersampling) / supersampling
    light = (fine[None] - size / 2 + 0.45 * (fine[:, None] - size / 2)) > 0
    grey = light.reshape(size, supersampling, size, supersampling).mean(axis=(1, 3)) * 170 + 45
    return to_rgb(np.round(grey).astype(np.uint8))


def edge(methods):
    """A slanted edge made small and enlarged by every method, and the grey values along a line across it.

    `methods` as `evaluation.methods` makes them; nearest neighbour and bilinear interpolation are put before them, the
    original behind.
    """
    original = slanted_edge()
    low = imresize(original, 0.25)
    bilinear = F.interpolate(to_batch(low).float(), scale_factor=4, mode="bilinear", align_corners=False)
    pictures = {"nearest": low.repeat(4, 0).repeat(4, 1),
                "bilinear": bilinear[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy(),
                **{name: method(low) for name, method in methods.items()}, "original": original}
    figure = plt.figure(figsize=(10, 4.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.5])
    middle, axes = original.shape[0] // 2, above.subplots(1, len(pictures))
    profile = below.subplots()
    for axis, (name, picture) in zip(axes, pictures.items()):
        axis.imshow(picture[24:72, 24:72], interpolation="nearest")
        axis.axhline(middle - 24, color="tab:red", linewidth=0.8)
        axis.set_title(name, fontsize=8)
        axis.set_axis_off()
        plain = name in ("nearest", "bilinear", "bicubic")
        profile.plot(picture[middle, :, 1], label=name, linewidth=2.5 if name == "original" else 1.4,
                     color="black" if name == "original" else None, linestyle=":" if plain else "-")
    profile.set(xlim=(34, 62), xlabel="column along the red line, in pixels", ylabel="grey value")
    profile.legend(fontsize=8, loc="upper left")
    profile.grid(alpha=0.3)
    return _closed(figure)


def ill_posed(picture, contrast=55, side=128):
    """Two different originals that are made small to the same picture.

    The second is the first plus stripes from which everything was taken that survives `imresize`: what is left lies in
    the null space of that linear map.
    """
    first = _detail(picture, side)
    side = len(first)
    first = (first.mean(axis=2) if first.ndim == 3 else first).astype(np.float64) * 0.5 + 64
    rows, columns = np.mgrid[:side, :side]
    ring = np.hypot(rows - side / 2, columns - side / 2)
    stripes = contrast * np.sin(2 * np.pi * (rows + columns) / 5) * (ring < side * 0.4)
    matrix = imresize(torch.eye(side, dtype=torch.float64), output_shape=(side // 4, side)).numpy()
    kept = np.linalg.pinv(matrix) @ matrix
    second = first + stripes - kept @ stripes @ kept.T
    pictures = [np.clip(np.round(one), 0, 255).astype(np.uint8) for one in (first, second)]
    lows = [imresize(one, 0.25) for one in pictures]
    apart = [np.abs(a.astype(int) - b).max() for a, b in (pictures, lows)]
    mean = np.round((pictures[0].astype(float) + pictures[1]) / 2)
    return _row([*pictures, *lows, mean], ["an original", f"another, up to {apart[0]} grey values away",
                                           "the first, made small", f"the second: {apart[1]} away at most",
                                           "the mean of both originals"], size=2.1)


def mse_blurs(period=8, height=24):
    """Stripes in two phases that are equally likely, and what each answer costs on average."""
    columns = np.arange(4 * period)
    phases = [np.tile(np.where((columns + shift) // (period // 2) % 2, 200.0, 55.0), (height, 1))
              for shift in (0, period // 2)]
    answers = {"one of them": phases[0], "the other": phases[1], "their mean": (phases[0] + phases[1]) / 2}
    costs = {name: np.mean([np.mean((answer - truth) ** 2) for truth in phases]) for name, answer in answers.items()}
    return _row(list(answers.values()), [f"answer: {name}\nexpected MSE {cost:,.0f}" for name, cost in costs.items()],
                size=2.6)


# --------------------------------------------------------------------------------------------- the networks


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

    Returns a figure; a sentence where there are no such modules.
    """
    network = copy.deepcopy(generator).float().cpu().eval()
    blocks = _blocks(network)
    if not blocks:
        return "this network has no modules called ResidualBlock, so there is nothing to bypass"
    shares = [0.0] * len(blocks)

    def watch(i, _, inputs, output):
        shares[i] = ((output - inputs[0]).norm() / inputs[0].norm()).item()

    hooks = [block.register_forward_hook(partial(watch, i)) for i, block in enumerate(blocks)]
    low, original = to_unit(to_batch(to_rgb(pair.lr))), to_rgb(pair.hr)

    def score():
        with torch.no_grad():
            fake = to_uint8(network(low))[0].permute(1, 2, 0)
        return psnr(fake.numpy(), original)

    whole = score()
    for hook in hooks:
        hook.remove()
    without = []
    for block in blocks:
        hook = block.register_forward_hook(lambda _, inputs, output: inputs[0])  # as if it added nothing
        without.append(score())
        hook.remove()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
    numbers = range(1, len(blocks) + 1)
    left.bar(numbers, [100 * share for share in shares], color="tab:blue")
    left.set(title="what a block adds, in % of what goes in", xlabel="block", xticks=numbers)
    right.bar(numbers, [value - whole for value in without], color="tab:red")
    right.set(title=f"PSNR without it ({whole:.2f} dB with all)", xlabel="block", ylabel="dB", xticks=numbers)
    return _closed(figure)


def pixel_shuffle():
    """PixelShuffle by numbers, and what a transposed convolution makes of a constant instead."""
    maps = torch.arange(16.0).view(1, 4, 2, 2)
    shuffled = F.pixel_shuffle(maps, 2)[0, 0].int().numpy()
    colours = np.array([plt.get_cmap("Pastel1")(i)[:3] for i in range(4)])
    figure, axes = plt.subplots(1, 7, figsize=(10, 2.1), layout="constrained", width_ratios=[1] * 4 + [1.6, 1.6, 1.6])
    for i in range(4):
        _cells(axes[i], maps[0, i].int().numpy(), np.full((2, 2), i), colours, f"map {i + 1}")
    _cells(axes[4], shuffled, np.tile([[0, 1], [2, 3]], (2, 2)), colours, "PixelShuffle(2)")
    constant = torch.ones(1, 1, 6, 6)
    for axis, kernel, text in [(axes[5], 3, "transposed, kernel 3"), (axes[6], 4, "transposed, kernel 4")]:
        made = F.conv_transpose2d(constant, torch.ones(1, 1, kernel, kernel), stride=2, padding=1)[0, 0, 2:-2, 2:-2]
        axis.imshow(made, cmap="gray", vmin=0, vmax=made.max() * 1.1, interpolation="nearest")
        axis.set_title(f"{text}\nof a constant", fontsize=8)
        axis.set_axis_off()
    return _closed(figure)


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
        shown |= {f"PReLU, least learned: {min(slopes):.2f}": min(slopes),
                  f"PReLU, most learned: {max(slopes):.2f}": max(slopes)}
        right.bar(range(1, len(slopes) + 1), slopes)
        right.axhline(0.25, color="grey", linestyle="--", label="where they began")
        right.legend(fontsize=8)
    for name, slope in shown.items():
        left.plot(x, np.where(x > 0, x, slope * x), label=name)
    left.legend(fontsize=8)
    left.set(title="activations")
    left.grid(alpha=0.3)
    right.set(title="slope for negative values", xlabel="PReLU, from the input to the output",
              xticks=range(1, len(slopes) + 1))
    return _closed(figure)


# ----------------------------------------------------------------------------------------------- the updates


def updates():
    """The two updates of `solver.alternating_epoch`: what flows forward, where gradients flow, what is frozen."""
    figure, axes = plt.subplots(2, 1, figsize=(10, 5.2), layout="constrained")
    lines = inspect.getsource(solver.alternating_epoch).splitlines()
    first = next(i for i, line in enumerate(lines) if "real_logits, fake_logits =" in line)
    second = next(i for i, line in enumerate(lines) if "frozen()" in line)
    code = [[lines[first - 2], *lines[first : first + 4]], lines[second : second + 3]]
    for axis, generator_learns, title, text in [
            (axes[0], False, "1  the discriminator's update", code[0]),
            (axes[1], True, "2  the generator's update", code[1])]:
        _diagram(axis, generator_learns)
        axis.set_title(title, fontsize=11, loc="left")
        shown = textwrap.dedent("\n".join(line.partition("  #")[0] for line in text))
        axis.text(0, -0.05, shown, transform=axis.transAxes, family="monospace", fontsize=8, va="top")
    return _closed(figure)


def _diagram(axis, generator_learns):
    learns, frozen, loss = "#7fc97f", "#d9d9d9", "#ffe9a8"
    boxes = {"low": (0, 0, "white", "low"), "high": (3.6, 1, "white", "high"), "fake": (3.6, 0, "white", "fake")}
    if generator_learns:
        boxes |= {"G": (1.8, 0, learns, "G"), "D": (6, 0, frozen, "D, frozen"),
                  "loss": (8.6, 0, loss, "adversarial loss"), "content": (6, 1, loss, "content loss")}
        forward = [("low", "G"), ("G", "fake"), ("fake", "D"), ("D", "loss"), ("fake", "content"), ("high", "content")]
        backward = [("loss", "D"), ("D", "fake"), ("fake", "G"), ("content", "fake")]
    else:
        boxes |= {"G": (1.8, 0, frozen, "G"), "D": (6, 0.5, learns, "D"),
                  "loss": (8.6, 0.5, loss, "−log D(high) − log(1 − D(fake))")}
        forward = [("low", "G"), ("G", "fake"), ("fake", "D"), ("high", "D"), ("D", "loss")]
        backward = [("loss", "D")]
        axis.text(4.7, 0.02, "detach: gradients end here", fontsize=8, color="tab:red", ha="left")
    drawn = {name: axis.text(x, y, label, ha="center", va="center", fontsize=9, zorder=3,
                             bbox=dict(boxstyle="round,pad=0.4", facecolor=colour, edgecolor="black"))
             for name, (x, y, colour, label) in boxes.items()}
    for pairs, colour, style, bend in [(forward, "black", "-", 0.0), (backward, "tab:red", "--", -0.35)]:
        for start, end in pairs:
            axis.annotate("", boxes[end][:2], boxes[start][:2], zorder=4, arrowprops=dict(  # (after its boxes)
                arrowstyle="->", color=colour, linestyle=style, linewidth=1.5, connectionstyle=f"arc3,rad={bend}",
                shrinkA=2, shrinkB=2, patchA=drawn[start].get_bbox_patch(), patchB=drawn[end].get_bbox_patch()))
    axis.plot([], [], color="black", label="forward")
    axis.plot([], [], color="tab:red", linestyle="--", label="gradients")
    axis.legend(loc="upper left", fontsize=8)
    axis.set(xlim=(-0.6, 10.4), ylim=(-0.45, 1.45))
    axis.set_axis_off()


def saturation(history):
    """−log D against log(1 − D): the losses, and the gradient that reaches the generator, at the run's own D(fake)."""
    logits = np.linspace(-8, 4, 200)
    probability = 1 / (1 + np.exp(-logits))
    seen = [row["d_fake"] for row in history if row.get("d_fake") is not None]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.9), layout="constrained")
    left.plot(probability, -np.log(probability), label="−log D")
    left.plot(probability, np.log(1 - probability), label="log(1 − D)")
    left.set(xlabel="D(fake)", title="what the generator minimises", ylim=(-5, 8))
    right.plot(probability, 1 - probability, label="of −log D")
    right.plot(probability, probability, label="of log(1 − D)")
    right.set(xlabel="D(fake)", title="size of the gradient at D's logit")
    for axis in (left, right):
        if seen:
            axis.axvspan(min(seen), max(seen), color="tab:green", alpha=0.25, label="this run's epochs")
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    return _closed(figure)


# ------------------------------------------------------------------------------------------------ the losses


@lru_cache(1)
def random_vgg(seed=0):
    """VGG19 up to φ(5,4) with random weights: the shape of the loss where the trained weights are not there."""
    from torchvision.models import vgg19

    with torch.device("meta"):  # without drawing the weights of its classifier, which are six times as many
        layers = vgg19(weights=None).features[:36]
    layers.to_empty(device="cpu")
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for weight in layers.parameters():
            nn.init.kaiming_normal_(weight, mode="fan_out") if weight.dim() > 1 else nn.init.zeros_(weight)
    return layers.eval().requires_grad_(False)


def balance(trainer):
    """Values and gradients of the generator's losses on a batch of the run: what each of them wants, and how strongly.

    The gradient's norm is that at the generator's weights, with the run's factors and alone; "vgg (random)" is the
    squared distance of features of a VGG19 with random weights. A content loss of several terms has a line of its own.
    """
    cfg = trainer.cfg
    generator, discriminator = (copy.deepcopy(network).cpu().float().train() for network in (
        trainer.generator, trainer.discriminator or solver.make_discriminator(cfg)))
    low, high = (part.cpu() for part in trainer.train_set[range(cfg.batch_size)])
    low, high = to_unit(low), to_signed(high)
    vgg, fake = random_vgg(), generator(low)
    losses = {"mse": solver.mse_loss(fake, high)}
    if set(recipes.content_terms(cfg.content_loss)) <= set(recipes.PIXEL_TERMS):
        losses[cfg.content_loss] = solver.make_content_loss(cfg)(fake, high)
    losses |= {"vgg (random)": F.mse_loss(vgg(fake), vgg(high)),
               "adversarial": solver.adversarial_loss(discriminator(fake))}
    weights = [p for p in generator.parameters() if p.requires_grad]
    rows, gradients = [], {}
    for name, loss in losses.items():
        found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        gradients[name] = torch.cat([g.flatten() for g in found if g is not None])
    for name, loss in losses.items():
        factor = cfg.adversarial_weight if name == "adversarial" else 1.0
        norm = gradients[name].norm().item()
        cosine = F.cosine_similarity(gradients[name], gradients["mse"], dim=0).item()
        rows.append([name, f"{loss.item():.4g}", f"{factor:g}", f"{norm:.3g}", f"{factor * norm:.3g}",
                     f"{math.degrees(math.acos(max(-1.0, min(1.0, cosine)))):.0f}°"])
    return Table(rows, ["loss", "value", "factor", "gradient", "with factor", "angle to mse's"])


def shifted_texture(picture, side=96, most=6):
    """What a texture costs that is right but for a shift, beside the same texture blurred to grey."""
    texture = to_rgb(_detail(picture, side + most))
    side = (len(texture) - most) // 4 * 4
    vgg = random_vgg()

    def signed(one):
        return to_signed(to_batch(one))

    truth = signed(texture[:side, :side])
    flat = truth.mean(dim=(2, 3), keepdim=True).expand_as(truth)
    blurred = signed(bicubic(imresize(texture[:side, :side], 0.25)))
    curves = {"mse": lambda x: F.mse_loss(x, truth).item(),
              "vgg (random)": lambda x: F.mse_loss(vgg(x), vgg(truth)).item()}
    figure, axis = plt.subplots(figsize=(6.5, 2.9), layout="constrained")
    for (name, loss), colour in zip(curves.items(), ("tab:blue", "tab:orange")):
        unit = loss(flat)
        shifts = [loss(signed(texture[i : i + side, i : i + side])) / unit for i in range(most + 1)]
        axis.plot(shifts, "o-", color=colour, label=f"{name}: shifted")
        axis.axhline(loss(blurred) / unit, color=colour, linestyle="--", label=f"{name}: blurred")
    axis.set(xlabel="shift in pixels, down and to the right", ylabel="loss (of plain grey: 1)")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return _closed(figure)


# ---------------------------------------------------------------------------------------------- the measures


def psnr_by_hand(sr, hr, name="picture", border=4):
    """PSNR step by step, as a table: luma, squared error, decibels."""
    cut = np.s_[border:-border, border:-border]
    a, b = luma(sr)[cut], luma(hr)[cut]
    mse = np.mean((a - b) ** 2)
    rows = [["luma of the first pixel inside", f"{a[0, 0]:.0f} and {b[0, 0]:.0f}"],
            ["mean of the squared differences (MSE)", f"{mse:.2f}"],
            ["its root, in grey values", f"{math.sqrt(mse):.2f}"],
            ["10 · log10(255² / MSE)", f"{10 * math.log10(255**2 / mse):.4f} dB" if mse else "∞"],
            ["utils.psnr", f"{psnr(sr, hr, border):.4f} dB"]]
    return Table(rows, [name, "value"], left=1)


def equal_psnr(picture, side=208, seed=0):
    """Blur and noise at one PSNR, with their SSIM, its map, and NIQE."""
    original = to_rgb(_detail(picture, side))
    blurred = bicubic(imresize(original, 0.25))
    wanted, noise = psnr(blurred, original), np.random.default_rng(seed).normal(size=original.shape[:2])[..., None]
    low, high = 0.0, 120.0
    for _ in range(30):  # the strength at which both have one PSNR, by halving
        middle = (low + high) / 2
        noisy = np.clip(original + middle * noise, 0, 255).round().astype(np.uint8)
        low, high = (middle, high) if psnr(noisy, original) > wanted else (low, middle)
    maps = [ssim_map(one, original) for one in (blurred, noisy)]
    titles = [f"{name}: {psnr(one, original):.2f} dB\nSSIM {ssim(one, original):.3f}, NIQE {_niqe(one)}"
              for name, one in (("blurred", blurred), ("noisy", noisy))]
    return _row([original, blurred, maps[0] * 255, noisy, maps[1] * 255],
                [f"original\nNIQE {_niqe(original)}", titles[0], "its SSIM,\nplace by place", titles[1],
                 "its SSIM,\nplace by place"])


def _niqe(picture):
    value = naturalness(picture)
    return "–" if value is None else f"{value:.1f}"


# ------------------------------------------------------------------------------------------------ prediction


def tiles(generator, picture, tile=48):
    """Why tiles have no seam: cut without an overlap, and with one as wide as the network's reach.

    Returns a figure: the picture of the whole, and where each way differs from it. `picture` is uint8 H×W×3.
    """
    side = min(96, *picture.shape[:2])
    top, left, side = detail_window(picture, side)
    low = to_rgb(picture)[top : top + side, left : left + side]
    far = reach(generator)
    enlarge = partial(super_resolve, generator, precision="fp32")
    whole = enlarge(low)
    naive = np.zeros_like(whole)
    step, scale = tile, whole.shape[0] // side
    for y in range(0, side, step):
        for x in range(0, side, step):
            piece = enlarge(np.ascontiguousarray(low[y : y + step, x : x + step]))
            naive[scale * y : scale * y + piece.shape[0], scale * x : scale * x + piece.shape[1]] = piece
    overlapped = super_resolve(generator, low, tile=min(2 * far + 16, 10**4), precision="fp32")
    apart = [np.abs(whole.astype(int) - one).max(axis=2) for one in (naive, overlapped)]
    return _row([whole, apart[0] * 8, apart[1] * 8],
                ["uncut", f"cut every {tile} pixels: up to {apart[0].max()} off (× 8)",
                 f"overlapping by the reach, {far}: up to {apart[1].max()} off"], size=3)


def twice(methods, picture, side=32):
    """A detail enlarged ×4, and ×16 by enlarging twice, beside bicubic interpolation."""
    top, left, _ = detail_window(picture, side)
    low = np.ascontiguousarray(to_rgb(picture)[top : top + side, left : left + side])
    once = [method(low) for method in methods.values()]
    twice = [method(picture) for method, picture in zip(methods.values(), once)]
    return _rows([once, twice], [[f"{name}, ×4" for name in methods], [f"{name}, ×16" for name in methods]],
                 size=2.4, interpolation="nearest")


# ------------------------------------------------------------------------------------------ how training fails

# The paper's discriminator, without what the demo does against failing, and pictures of the weights as they are.
UNPROTECTED = dict(discriminator_detail=False, discriminator_halving_kernel=3, discriminator_batch_norm=True,
                   discriminator_rate=1, gradient_penalty=0, content_loss="mse", updates="alternating", ema_decay=0)
# Five ways to fail, by settings of an adversarial phase that starts from a warm-up.
FAILURES = {
    "discriminator_wins": dict(start_from=None),
    "mesh": dict(adversarial_weight=0.3),
    "colour_shift": dict(content_loss="0.003 mse", adversarial_weight=3e-3),
    "over_smooth": dict(adversarial_weight=1e-7),
    "divergence": dict(adversarial_lr=0.1, clip_gradients=None),
}


def failures(cfg, start_from, updates=25, epochs=3):
    """Train five failures, a few seconds each, and show what each looks like and which curve announces it.

    The runs are called `fail-<name>-…`; what was trained before is not trained again. `start_from` is the checkpoint of
    a warm-up. Returns a figure. Raises ValueError where runs of these names have other settings.
    """
    base = EasyDict(cfg, updates_per_epoch=updates, warmup_epochs=0, adversarial_epochs=epochs, start_from=start_from,
                    fork_of=None, adversarial_lr=5e-4, adversarial_schedule="constant", adversarial_weight=1e-3,
                    valid_pictures=1, **UNPROTECTED)
    histories, pictures, original = {}, {}, None
    for name, changes in FAILURES.items():
        one = EasyDict(base, **{**changes, "name": f"fail-{cfg.name}-{name}"})
        run = runs.Run(one.name, one.runs)
        if not bench.has_ended(one, solver.phases(one)):
            try:
                solver.Trainer(one, progress=False).train()
            except FloatingPointError:
                pass  # the failure that was to be shown
        histories[name] = runs.read_history(one.name, one.runs) if (run.folder / "history.csv").is_file() else []
        if histories[name]:  # else it did not survive its first epoch
            kept = min(path.stem for path in (run.folder / "samples" / "original").glob("*.png"))
            original = run.known("original", kept)
            pictures[name] = run.sample("adversarial", run.sampled_epochs("adversarial", kept)[-1], kept)
    figure, axes = plt.subplots(3, len(FAILURES), figsize=(10, 6), layout="constrained")
    top, left, side = detail_window(original, 96)
    for column, (name, history) in zip(axes.T, histories.items()):
        column[0].set_title(name.replace("_", " "), fontsize=10)
        picture = pictures.get(name, np.zeros_like(original))
        column[0].imshow(picture[top : top + side, left : left + side], interpolation="nearest")
        column[0].set(**NO_TICKS)  # (with a frame, for the picture may be white)
        steps = [row["epoch"] * updates for row in history]
        column[1].plot(steps, [row["psnr"] for row in history], "o-", color="tab:blue")
        column[1].set_title("PSNR (dB)", fontsize=8)
        column[2].plot(steps, [row["d_fake"] for row in history], "o-", color="tab:red")
        column[2].set(ylim=(-0.05, 1.05), xlabel="updates")
        column[2].set_title("D(fake)", fontsize=8)
        if not history:
            column[1].text(0.5, 0.5, "no epoch survived", ha="center", transform=column[1].transAxes, fontsize=8)
        for axis, first in zip(column[1:], axes[1:, 0]):
            axis.sharey(first)  # one scale, to compare them
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.3)
    return _closed(figure)


# ----------------------------------------------------------------------------------- predict, run, observe

# A row of the sheet: what is varied, how many epochs of adversarial training show it, and what to think about first.
Row = namedtuple("Row", "grid adversarial_epochs question")
SHEET = {
    "adversarial weight": Row(dict(adversarial_weight=[1e-4, 1e-3, 1e-2, 1e-1]), 2,
                              "How do PSNR and NIQE move as the adversarial loss counts for more?"),
    "warm-up": Row(dict(warmup_epochs=[0, 3, 12]), 2, "What does the adversarial phase make of a longer warm-up?"),
    "learning rate": Row(dict(warmup_lr=[2e-4, 2e-3, 2e-2]), 0, "Where is it too slow, and where does it break?"),
    "depth": Row(dict(blocks=[2, 8, 16]), 0, "Do more residual blocks pay in so few updates?"),
    "width": Row(dict(channels=[16, 32, 64]), 0,
                 "Which is better in the same number of updates, which in the same time?"),
    "batch norm": Row(dict(batch_norm=[False, True]), 0, "Does it help a network as small as this one?"),
    "loss": Row(dict(content_loss=["mse", "low + 0.1 mse"]), 2,
                "What changes when the content loss sees only what is left of a picture that was made small?"),
}


def sheet_settings(cfg, row):
    """The small setting in which a row of the sheet takes a minute or two on a laptop."""
    return EasyDict(cfg, name=f"sheet-{cfg.name}", updates_per_epoch=60, warmup_epochs=4, ema_decay=0, start_from=None,
                    fork_of=None, adversarial_epochs=SHEET[row].adversarial_epochs)


def observe(cfg, row, prediction, seeds=1):
    """Run a row of the sheet, and show what was predicted beside what came of it.

    Parameters
    ----------
    cfg : EasyDict
        Settings to start from; see `sheet_settings` for what is made small.
    row : str
        A row of `SHEET`.
    prediction : str
        What you expect, in your own words. It is noted in `<runs>/predictions.json` when it is made, and stays there.
    seeds : int
        Train each with so many seeds.

    Returns a table, with the prediction above it. Raises ValueError for another row and for an empty prediction.
    """
    if row not in SHEET:
        raise ValueError(f"the sheet has no row {row!r}{did_you_mean(row, SHEET)}; its rows are {', '.join(SHEET)}")
    if not str(prediction).strip():
        raise ValueError("predict first: write down what you expect, and why")
    file = Path(cfg.runs, "predictions.json")
    noted = json.loads(file.read_bytes()) if file.is_file() else {}
    noted.setdefault(row, str(prediction).strip())
    with write_whole(file) as temporary:
        temporary.write_text(json.dumps(noted, indent=1, ensure_ascii=False), encoding="utf-8")
    print(f"{SHEET[row].question}\npredicted: {noted[row]}")
    return bench.sweep(sheet_settings(cfg, row), seeds=seeds, **SHEET[row].grid)
