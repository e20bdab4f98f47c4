"""Losses and updates: why MSE blurs, what other losses forgive, how they balance, where gradients flow."""

import inspect
import math
import textwrap
from functools import lru_cache

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import solver
from imresize import imresize
from kit.compute.layers import copy_of, placed
from kit.console import Table
from kit.language import tr
from kit.lessons.figure import closed, detail, picture_row
from kit.settings.content_loss import PIXEL_TERMS, content_terms
from utils import bicubic, to_batch, to_rgb, to_signed, to_unit


def mse_blurs(period=8, height=24):
    """Stripes in two phases that are equally likely, and what each answer costs on average."""
    columns = np.arange(4 * period)
    phases = [np.tile(np.where((columns + shift) // (period // 2) % 2, 200.0, 55.0), (height, 1))
              for shift in (0, period // 2)]
    answers = {tr("one of them"): phases[0], tr("the other"): phases[1], tr("their mean"): (phases[0] + phases[1]) / 2}
    costs = {name: np.mean([np.mean((answer - truth) ** 2) for truth in phases]) for name, answer in answers.items()}
    titles = [tr("answer: {name}\nexpected MSE {cost:,.0f}", name=name, cost=cost) for name, cost in costs.items()]
    return picture_row(list(answers.values()), titles, size=2.6)


def updates():
    """The two updates of `solver.alternating_epoch`: what flows forward, where gradients flow, what is frozen."""
    figure, axes = plt.subplots(2, 1, figsize=(10, 5.2), layout="constrained")
    for axis, generator_learns, title, code in [
            (axes[0], False, tr("1  the discriminator's update"),
             _lines_of_epoch("sr = ", "discriminator.descend")),
            (axes[1], True, tr("2  the generator's update"), _lines_of_epoch("frozen()", "generator.descend"))]:
        _diagram(axis, generator_learns)
        axis.set_title(title, fontsize=11, loc="left")
        axis.text(0, -0.05, code, transform=axis.transAxes, family="monospace", fontsize=8, va="top")
    return closed(figure)


def _lines_of_epoch(first, last):
    """The lines of `solver.alternating_epoch` from one text to another; a remark where somebody has rewritten them."""
    lines = [line.partition("  #")[0] for line in inspect.getsource(solver.alternating_epoch).splitlines()]
    places = [next((i for i, line in enumerate(lines) if text in line), None) for text in (first, last)]
    if None in places or places[0] > places[1]:
        return tr("(solver.alternating_epoch was rewritten: these are the paper's updates)")
    return textwrap.dedent("\n".join(line for line in lines[places[0] : places[1] + 1] if line.strip()))


def _diagram(axis, generator_learns):
    learns, frozen, loss = "#7fc97f", "#d9d9d9", "#ffe9a8"
    boxes = {"lr": (0, 0, "white", "lr"), "hr": (3.6, 1, "white", "hr"), "sr": (3.6, 0, "white", "sr")}
    if generator_learns:
        boxes |= {"G": (1.8, 0, learns, "G"), "D": (6, 0, frozen, tr("D, frozen")),
                  "loss": (8.6, 0, loss, tr("adversarial loss")), "content": (6, 1, loss, tr("content loss"))}
        forward = [("lr", "G"), ("G", "sr"), ("sr", "D"), ("D", "loss"), ("sr", "content"), ("hr", "content")]
        backward = [("loss", "D"), ("D", "sr"), ("sr", "G"), ("content", "sr")]
    else:
        boxes |= {"G": (1.8, 0, frozen, "G"), "D": (6, 0.5, learns, "D"),
                  "loss": (8.6, 0.5, loss, "−log D(hr) − log(1 − D(sr))")}
        forward = [("lr", "G"), ("G", "sr"), ("sr", "D"), ("hr", "D"), ("D", "loss")]
        backward = [("loss", "D")]
        axis.text(4.7, 0.02, tr("detach: gradients end here"), fontsize=8, color="tab:red", ha="left")
    drawn = {name: axis.text(x, y, label, ha="center", va="center", fontsize=9, zorder=3,
                             bbox=dict(boxstyle="round,pad=0.4", facecolor=colour, edgecolor="black"))
             for name, (x, y, colour, label) in boxes.items()}
    for pairs, colour, style, bend in [(forward, "black", "-", 0.0), (backward, "tab:red", "--", -0.35)]:
        for start, end in pairs:
            axis.annotate("", boxes[end][:2], boxes[start][:2], zorder=4, arrowprops=dict(  # (after its boxes)
                arrowstyle="->", color=colour, linestyle=style, linewidth=1.5, connectionstyle=f"arc3,rad={bend}",
                shrinkA=2, shrinkB=2, patchA=drawn[start].get_bbox_patch(), patchB=drawn[end].get_bbox_patch()))
    axis.plot([], [], color="black", label=tr("forward"))
    axis.plot([], [], color="tab:red", linestyle="--", label=tr("gradients"))
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
    left.set(xlabel="D(fake)", title=tr("what the generator minimises"), ylim=(-5, 8))
    right.plot(probability, 1 - probability, label=tr("of −log D"))
    right.plot(probability, probability, label=tr("of log(1 − D)"))
    right.set(xlabel="D(fake)", title=tr("size of the gradient at D's logit"))
    for axis in (left, right):
        if seen:
            axis.axvspan(min(seen), max(seen), color="tab:green", alpha=0.25, label=tr("this run's epochs"))
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    return closed(figure)


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
    generator, discriminator = (
        placed(copy_of(network), "cpu", torch.contiguous_format, torch.float32).train()
        for network in (trainer.generator, trainer.discriminator or solver.make_discriminator(cfg)))
    lr, hr = (part.cpu() for part in trainer.train_set[range(cfg.batch_size)])
    lr, hr = to_unit(lr), to_signed(hr)
    vgg, sr = random_vgg(), generator(lr)
    losses = {"mse": solver.mse_loss(sr, hr)}
    if set(content_terms(cfg.content_loss)) <= set(PIXEL_TERMS):
        losses[cfg.content_loss] = solver.make_content_loss(cfg)(sr, hr)
    losses |= {tr("vgg (random)"): F.mse_loss(vgg(sr), vgg(hr)),
               "adversarial": solver.adversarial_loss(discriminator(sr))}
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
    return Table(rows, [tr("loss"), tr("value"), tr("factor"), tr("gradient"), tr("with factor"), tr("angle to mse's")])


def shifted_texture(picture, side=96, most=6):
    """What a texture costs that is right but for a shift, beside the same texture blurred to grey."""
    texture = to_rgb(detail(picture, side + most))
    side = (len(texture) - most) // 4 * 4
    vgg = random_vgg()

    def signed(one):
        return to_signed(to_batch(one))

    truth = signed(texture[:side, :side])
    flat = truth.mean(dim=(2, 3), keepdim=True).expand_as(truth)
    blurred = signed(bicubic(imresize(texture[:side, :side], 0.25)))
    curves = {"mse": lambda x: F.mse_loss(x, truth).item(),
              tr("vgg (random)"): lambda x: F.mse_loss(vgg(x), vgg(truth)).item()}
    figure, axis = plt.subplots(figsize=(6.5, 2.9), layout="constrained")
    for (name, loss), colour in zip(curves.items(), ("tab:blue", "tab:orange")):
        unit = loss(flat)
        shifts = [loss(signed(texture[i : i + side, i : i + side])) / unit for i in range(most + 1)]
        axis.plot(shifts, "o-", color=colour, label=tr("{name}: shifted", name=name))
        axis.axhline(loss(blurred) / unit, color=colour, linestyle="--", label=tr("{name}: blurred", name=name))
    axis.set(xlabel=tr("shift in pixels, down and to the right"), ylabel=tr("loss (of plain grey: 1)"))
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return closed(figure)
