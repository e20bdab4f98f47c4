"""What the notebooks show: tables of layers, training patches, curves, scores, and pictures beside each other.

Every `plot_…` returns a matplotlib.figure.Figure that was closed, so that a notebook shows it once, as the value of
its cell.
"""

import math
from itertools import groupby
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from evaluation import ORIGINAL, enlarge_all, mean_scores, score_captions
from imresize import imresize
from runs import losses_in, read_history
from utils import Table, read_picture, save_picture, to_rgb, write_whole

# For axes of pictures, also where they are off: placing ticks that nobody sees takes a third of a figure's time.
NO_TICKS = dict(xticks=[], yticks=[])

# -------------------------------------------------------------------------------------- tables of layers


def layer_table(network, *shape):
    """The layers of a network, one to a line, with their output shapes and parameters, as a table.

    `shape` is that of one input without the batch: `layer_table(Generator(), 3, 24, 24)`.
    The total in the last row also counts parameters that belong to no single layer.
    """
    rows = []

    def record(name):
        def hook(module, inputs, output):
            count = sum(p.numel() for p in module.parameters())
            rows.append((name, _describe(module), "×".join(map(str, output.shape[1:])), f"{count:,}"))
        return hook

    leaves = [(name, m) for name, m in network.named_modules() if not list(m.children())]
    hooks = [module.register_forward_hook(record(name)) for name, module in leaves]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *shape, device=next(network.parameters()).device))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    total = sum(p.numel() for p in network.parameters())
    return Table([*rows, ("total", "", "", f"{total:,}")], ["layer", "what", "output C×H×W", "parameters"], left=3)


def _describe(module):
    """A layer in the notation of the paper's figure 4."""
    if isinstance(module, nn.Conv2d):
        return f"conv k{module.kernel_size[0]}n{module.out_channels}s{module.stride[0]}"
    if isinstance(module, nn.Linear):
        return f"dense {module.out_features}"
    return type(module).__name__

def network_table(networks):
    """The parts of networks, a line each, repetitions counted, with their parameters, as a table.

    `networks` is a dict of str → torch.nn.Module; a part is a module that a network holds itself.
    """
    rows = []
    for name, network in networks.items():
        for part, module in network.named_children():
            rows.append((name, part, _notation(module), _count(module)))
            name = ""
        rows.append(("", "total", "", _count(network)))
    return Table(rows, ["network", "part", "layers", "parameters"], left=3)


def _count(network):
    return f"{sum(p.numel() for p in network.parameters()):,}"


def _notation(module):
    """What a module consists of, in the notation of the paper's figure 4: "16 × (conv k3n64s1, …), conv k3n64s1"."""
    children = list(module.children())
    if not children:
        return _describe(module)
    parts = []
    for notation, equal in groupby(map(_notation, children)):
        count = len(list(equal))
        parts.append(notation if count == 1 else f"{count} × ({notation})")
    return ", ".join(parts)


# --------------------------------------------------------------------------------------------- training


def plot_patches(train_set, count=8):
    """The first training patches: low resolution above, high resolution below."""
    figure, axes = plt.subplots(2, count, figsize=(13, 3.4), layout="constrained", subplot_kw=NO_TICKS)
    for column, pair in zip(axes.T, (train_set[n] for n in range(count))):
        for axis, patch in zip(column, pair):
            axis.imshow(patch.permute(1, 2, 0), interpolation="nearest")
            axis.set_axis_off()
    for axis, what, size in [(axes[0, 0], "low", train_set.crop // train_set.scale),
                             (axes[1, 0], "high", train_set.crop)]:
        axis.set_title(f"{what} resolution, {size}×{size}", loc="left", fontsize=10)
    plt.close(figure)
    return figure


# How the two losses of the game between the networks are drawn, in a panel of their own.
GAME = {"discriminator_loss": dict(linestyle="-", label="discriminator"),
        "adversarial_loss": dict(linestyle=":", marker="^", label="generator (−log D)")}
PROBABILITIES = ["d_real", "d_fake"]


def plot_history(histories, lines=None):
    """Curves of one or more runs over the number of updates, laid over each other.

    Parameters
    ----------
    histories : dict of str → list of dict
        Name of the run → its epochs, as `runs.read_history` gives them.
    lines : dict of str → float, optional
        PSNRs to compare with, such as `evaluation.baselines` gives them.

    Returns
    -------
    matplotlib.figure.Figure
        The losses between pictures, those of the game between the networks, validation PSNR, and NIQE.
    """
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.2), layout="constrained")
    axes = axes.flat
    for name, rows, line in _curves(histories):
        x = [row["updates"] for row in rows]
        for loss in losses_in(rows[0]):
            if loss in PROBABILITIES:
                continue
            values = [row[loss] for row in rows]
            if loss in GAME:
                axes[1].plot(x, values, **{**line, **GAME[loss], "label": f"{name}, {GAME[loss]['label']}"})
            else:  # of a phase of one's own, whatever its name
                label = line["label"] if loss == "content_loss" else f"{line['label']}: {loss}"
                axes[0].semilogy(x, values, **{**line, "label": label})
        axes[2].plot(x, [row["psnr"] for row in rows], **line)
        if all("niqe" in row for row in rows):
            axes[3].plot(x, [row["niqe"] for row in rows], **line)
    for (name, value), style in zip((lines or {}).items(), ["--", "-.", ":"] * len(lines or {})):
        axes[2].axhline(value, color="grey", linewidth=1, linestyle=style, label=f"{name}, {value:.2f}")
    titles = ["Content loss", "Adversarial losses", "Validation PSNR (dB), higher is better",
              "Validation NIQE, lower is better"]
    for axis, title in zip(axes, titles):
        axis.set(title=title, xlabel="updates of the generator")
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
        else:
            axis.text(0.5, 0.5, "nothing yet", ha="center", va="center",
                      transform=axis.transAxes, color="grey")
    plt.close(figure)  # a notebook shows what a cell returns; without this it would show it twice
    return figure


def plot_minutes(histories):
    """Validation PSNR over the minutes of training, on a logarithmic scale; histories as for `plot_history`.

    The time includes the validation after each epoch.
    """
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    timed = {}
    for name, history in histories.items():
        minutes = np.cumsum([row["seconds"] for row in history]) / 60
        timed[name] = [{**row, "minutes": m} for row, m in zip(history, minutes)]
    for _, rows, line in _curves(timed):
        axis.semilogx([row["minutes"] for row in rows], [row["psnr"] for row in rows], **line)
    axis.set(xlabel="minutes of training", ylabel="Validation PSNR (dB)")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.grid(alpha=0.3, which="both")
    if timed:
        axis.legend(fontsize=8)
    plt.close(figure)
    return figure


def _curves(histories):
    """(run, epochs, look of their line) of every run and phase: a colour for a run, a style for a phase."""
    phases = list(dict.fromkeys(row["phase"] for history in histories.values() for row in history))
    for (name, history), colour in zip(histories.items(), plt.cm.tab10.colors * 10):
        for phase, style in zip(phases, ["-", "--", ":", "-."] * len(phases)):
            rows = [row for row in history if row["phase"] == phase]
            if rows:
                yield name, rows, dict(linestyle=style, color=colour, marker="o", markersize=3,
                                              label=f"{name}, {phase}")


class LiveCurve:
    """Curves in a notebook that grow with every epoch: pass one as `on_epoch` to the trainer.

    `also` names further runs whose curves are laid under the growing one, `lines` are as for `plot_history`.
    """

    def __init__(self, name, also=(), lines=None, folder="runs"):
        self.name, self.lines, self.handle = name, lines, None
        self.others = {run: read_history(run, folder) for run in also}

    def __call__(self, history):
        from IPython.display import display

        figure = plot_history({**self.others, self.name: history}, self.lines)
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)


# ----------------------------------------------------------------------------------------------- scores


def plot_scores(scores):
    """What each method gains over the first one (bicubic) on every picture, one panel per test set.

    The pictures of a set are in the order of the second method's gain. `scores` are rows of
    `evaluation.score_sets`.
    """
    scores = [row for row in scores if row["method"] != ORIGINAL]
    sets, methods = (list(dict.fromkeys(row[key] for row in scores)) for key in ("set", "method"))
    columns = min(len(sets), 2)
    lines = math.ceil(len(sets) / columns)
    figure, axes = plt.subplots(lines, columns, layout="constrained", squeeze=False,
                                figsize=(5.2 * columns, 3.2 * lines + 0.4))
    for axis in axes.flat[len(sets) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, sets):
        values = {method: {} for method in methods}
        for row in scores:
            if row["set"] == name:
                values[row["method"]][row["picture"]] = row["psnr"]
        baseline, *others = methods
        gains = {method: {picture: values[method][picture] - base for picture, base in values[baseline].items()}
                 for method in others}
        order = sorted(values[baseline], key=(gains[others[0]] if others else values[baseline]).get)
        few = len(order) <= 14
        axis.axhline(0, color="black", linewidth=1)
        for method in others:
            axis.plot([gains[method][picture] for picture in order], "o",
                      markersize=5 if few else 2.5, label=method)
        names = [picture.removesuffix("_HR").removesuffix("_SRF_4") for picture in order]
        axis.set_xticks(range(len(order)) if few else [], names if few else [], rotation=60, ha="right", fontsize=8)
        axis.set(title=name, ylabel=f"dB over {baseline}", xlabel="" if few else f"{len(order)} pictures")
        axis.grid(alpha=0.3)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    plt.close(figure)
    return figure


def plot_plane(scores, histories=None, validated_on=None):
    """The plane of perception and distortion (Blau & Michaeli, CVPR 2018): NIQE against PSNR, a panel for each set.

    Every method is a point, the originals a line, because their PSNR is infinite. `scores` are rows of
    `evaluation.score_sets`; `histories`, name → epochs, are drawn as paths from epoch to epoch into the panel of the
    set that they were `validated_on`. No method gets into the lower right corner: what is nearer to the originals in
    one way is farther from them in the other.
    """
    sets, methods = (list(dict.fromkeys(row[key] for row in scores)) for key in ("set", "method"))
    columns = min(len(sets), 2)
    figure, axes = plt.subplots(math.ceil(len(sets) / columns), columns, layout="constrained", squeeze=False,
                                figsize=(5.5 * columns + 2 * (columns == 1), 3.8 * math.ceil(len(sets) / columns)))
    for axis in axes.flat[len(sets) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, sets):
        for method, marker in zip(methods, "osD^vP*X" * len(methods)):
            found = mean_scores([row for row in scores if (row["set"], row["method"]) == (name, method)])
            if found.niqe is not None and method == ORIGINAL:
                axis.axhline(found.niqe, color="black", linestyle="--", linewidth=1, label="the originals")
            elif found.niqe is not None:
                axis.plot(found.psnr, found.niqe, marker, markersize=8, label=method, zorder=3)
        axis.set(title=name, xlabel="PSNR (dB): nearer to the original →", ylabel="← NIQE: more natural")
        axis.grid(alpha=0.3)
    for _, history, line in _curves(histories if histories and validated_on in sets else {}):
        if all("niqe" in row for row in history):
            axes.flat[sets.index(validated_on)].plot([row["psnr"] for row in history], [row["niqe"] for row in history],
                            **{**line, "label": f"{line['label']}, epoch by epoch", "alpha": 0.6})
    shown = {label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=min(len(shown), 4), fontsize=9)
    plt.close(figure)
    return figure


# --------------------------------------------------------------------------------------------- pictures


def plot_comparison(pictures, detail=96, captions=None):
    """Pictures of one size side by side, at most five abreast: whole above, a magnified detail below.

    The detail is the square of `detail` pixels where the last picture (the original) has most that
    bicubic interpolation loses, so that it shows where the methods differ.

    Parameters
    ----------
    pictures : dict of str → numpy.ndarray
        Title → uint8 picture; all of one size, the original last. A smaller first picture (the low
        resolution) is drawn with its pixels enlarged.
    captions : dict of str → str, optional
        A second line under a title.

    """
    *_, original = pictures.values()
    top, left, side = detail_window(original, detail)
    ratio = original.shape[0] / original.shape[1]
    bands = math.ceil(len(pictures) / 5)  # more than five abreast would be too small to judge
    columns = math.ceil(len(pictures) / bands)
    figure, axes = plt.subplots(2 * bands, columns, layout="constrained", squeeze=False,
                                height_ratios=[ratio, 1] * bands, subplot_kw=NO_TICKS,
                                figsize=(3.2 * columns, (3.2 * (ratio + 1) + 0.5) * bands))
    places = axes.reshape(bands, 2, columns).transpose(0, 2, 1).reshape(-1, 2)  # (whole, detail), side by side
    for unused in places[len(pictures) :].flat:
        unused.set_axis_off()
    for column, (title, picture) in zip(places, pictures.items()):
        picture = _magnified(picture, original)
        column[0].imshow(picture)
        column[0].set_title(f"{title}\n{(captions or {}).get(title, '')}", fontsize=10)
        column[0].add_patch(plt.Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor="red"))
        column[1].imshow(picture[top : top + side, left : left + side], interpolation="nearest")
        for axis in column:
            axis.set_axis_off()
    plt.close(figure)
    return figure


def gallery(pairs, methods, folder, detail=96):
    """Write every pair enlarged by every method to a folder, as PNGs, with an overview of each; yields the overviews.

    The files are `<picture> <method>.png` and `<picture> overview.png`.
    """
    for pair in pairs:
        pictures = enlarge_all(pair, methods)
        save_pictures(pictures, folder, pair.name)
        scale = pair.hr.shape[0] // pair.lr.shape[0]
        figure = plot_comparison(pictures, detail, score_captions(pictures, scale))
        save_figure(figure, Path(folder, f"{pair.name} overview.png"))
        yield figure


def save_pictures(pictures, folder, name):
    """Write pictures, a dictionary title → picture, to a folder as `<name> <title>.png`."""
    for title, picture in pictures.items():
        save_picture(Path(folder, f"{name} {title}.png"), picture)


def save_figure(figure, path, dpi=100):
    """Write a figure as PNG, whole or not at all."""
    with write_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


def plot_rows(rows, detail=128):
    """A row of pictures for each of several runs or photographs: the magnified detail of `plot_comparison`.

    `rows` is a dict of str → dict of str → picture, each as for `plot_comparison`.
    """
    titles = list(next(iter(rows.values())))
    figure, axes = plt.subplots(len(rows), len(titles), layout="constrained", squeeze=False, subplot_kw=NO_TICKS,
                                figsize=(3 * len(titles), 3 * len(rows)))
    for line, (name, pictures) in zip(axes, rows.items()):
        *_, original = pictures.values()
        top, left, side = detail_window(original, detail)
        for axis, picture in zip(line, pictures.values()):
            picture = _magnified(picture, original)[top : top + side, left : left + side]
            axis.imshow(picture, interpolation="nearest")
        line[0].set_ylabel(name, fontsize=12)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=11)
    plt.close(figure)
    return figure


def _magnified(picture, original):
    """A picture as RGB, its pixels repeated until it is as large as the original."""
    factor = original.shape[0] // picture.shape[0]
    return to_rgb(picture).repeat(factor, axis=0).repeat(factor, axis=1)


def plot_samples(folder, epochs):
    """The pictures that a run keeps in `samples/`: input, some epochs, original; one row per picture.

    `folder` is the run's `samples` folder, `epochs` names folders in it such as "adversarial_060".
    Raises FileNotFoundError for an epoch that has no pictures.
    """
    columns = ["input", *epochs, "original"]
    names = sorted(path.name for path in Path(folder, "original").glob("*.png"))
    figure, axes = plt.subplots(len(names), len(columns), layout="constrained", squeeze=False, subplot_kw=NO_TICKS,
                                figsize=(2.4 * len(columns), 2.4 * len(names)))
    for row, name in zip(axes, names):
        for axis, column in zip(row, columns):
            axis.imshow(to_rgb(read_picture(Path(folder, column, name))))
            axis.set_axis_off()
    for axis, column in zip(axes[0], columns):
        axis.set_title(column, fontsize=10)
    plt.close(figure)
    return figure


def detail_window(picture, side):
    """(top, left, side) of the square with most of what a reduction to a quarter loses."""
    side = min(side, *picture.shape[:2])
    grey = picture.mean(axis=2) if picture.ndim == 3 else picture.astype(np.float64)
    lost = np.abs(grey - imresize(imresize(grey, 0.25), output_shape=grey.shape))
    total = np.pad(lost, ((1, 0), (1, 0))).cumsum(0).cumsum(1)  # an integral image
    boxes = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    top, left = np.unravel_index(boxes.argmax(), boxes.shape)
    return int(top), int(left), side
