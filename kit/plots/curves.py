"""Curves of training, and scores as figures."""

import math

import matplotlib.pyplot as plt
import numpy as np

from kit.evaluation.measure import ORIGINAL, mean_scores
from kit.language import N_, tr
from kit.plots.pictures import NO_TICKS, detail_window, drawn, short_name
from kit.runs.folder import Run, losses_in
from kit.runs.history import read_history
from utils import to_rgb

# How the two losses of the game between the networks are drawn, in a panel of their own.
GAME = {"discriminator_loss": dict(linestyle="-", label=N_("discriminator")),
        "adversarial_loss": dict(linestyle=":", marker="^", label=N_("generator (−log D)"))}

PROBABILITIES = ["d_real", "d_fake"]


def plot_history(histories, lines=None, details=None):
    """Curves of one or more runs over the number of updates, laid over each other.

    Parameters
    ----------
    histories : dict of str → list of dict
        Name of the run → its epochs, as `kit.runs.read_history` gives them.
    lines : dict of str → float, optional
        PSNRs to compare with, such as `kit.evaluation.generators.baselines` gives them.
    details : dict of str → numpy.ndarray, optional
        Title → small uint8 picture: a row of them below.

    Returns
    -------
    matplotlib.figure.Figure
        The losses between pictures, those of the game between the networks, validation PSNR, and NIQE.
    """
    figure = plt.figure(figsize=(11, 8 if details else 6.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[6.2, 1.8]) if details else (figure, None)
    axes = above.subplots(2, 2).flat
    if details:
        for axis, (title, picture) in zip(below.subplots(1, len(details), subplot_kw=NO_TICKS), details.items()):
            axis.imshow(picture, interpolation="nearest")
            axis.set_title(title, fontsize=9)
    for name, rows, line in _curves(histories):
        x = [row["updates"] for row in rows]
        for loss in losses_in(rows[0]):
            if loss in PROBABILITIES:
                continue
            values = [row[loss] for row in rows]
            if loss in GAME:
                axes[1].plot(x, values, **{**line, **GAME[loss], "label": f"{name}, {tr(GAME[loss]['label'])}"})
            else:  # of a phase of one's own, whatever its name
                label = line["label"] if loss == "content_loss" else f"{line['label']}: {loss}"
                axes[0].semilogy(x, values, **{**line, "label": label})
        axes[2].plot(x, [row["psnr"] for row in rows], **line)
        if all("niqe" in row for row in rows):
            axes[3].plot(x, [row["niqe"] for row in rows], **line)
    for (name, value), style in zip((lines or {}).items(), ["--", "-.", ":"] * len(lines or {})):
        axes[2].axhline(value, color="grey", linewidth=1, linestyle=style, label=f"{drawn(name)}, {value:.2f}")
    titles = [tr("Content loss"), tr("Adversarial losses"), tr("Validation PSNR (dB), higher is better"),
              tr("Validation NIQE, lower is better")]
    for axis, title in zip(axes, titles):
        axis.set(title=title, xlabel=tr("updates of the generator"))
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
        else:
            axis.text(0.5, 0.5, tr("nothing yet"), ha="center", va="center",
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
    axis.set(xlabel=tr("minutes of training"), ylabel=tr("Validation PSNR (dB)"))
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
    """Curves in a notebook that grow with every epoch, and a detail that gets sharper: for the trainer's `on_epoch`.

    `also` names further runs whose curves are laid under the growing one, `lines` are as for `plot_history`. The detail
    is of the first validation picture of which the run keeps samples.
    """

    def __init__(self, name, also=(), lines=None, folder="runs"):
        self.name, self.lines, self.handle = name, lines, None
        self.others = {run: read_history(run, folder) for run in also}
        self.run, self._seen = Run(name, folder), {}

    def __call__(self, history):
        from IPython.display import display

        figure = plot_history({**self.others, self.name: history}, self.lines, self._details(history))
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)

    def _details(self, history, side=64, most=7):
        """The same detail after some epochs, from the first to the last, and of the original: title → picture."""
        names = self.run.sample_names()
        if not names:
            return {}
        kept = [(phase, epoch) for phase in dict.fromkeys(row["phase"] for row in history)
                for epoch in self.run.sampled_epochs(phase, names[0])]
        chosen = [kept[i] for i in sorted({round(x) for x in np.linspace(0, len(kept) - 1, min(most, len(kept)))})]
        if "original" not in self._seen:
            original = self.run.read_pair_image("original", names[0])
            self._window = detail_window(original, side)
            self._seen["original"] = self._cut(original)
        for phase, epoch in chosen:
            if (phase, epoch) not in self._seen:
                self._seen[phase, epoch] = self._cut(self.run.sample(phase, epoch, names[0]))
        return {**{f"{phase} {epoch}": self._seen[phase, epoch] for phase, epoch in chosen},
                tr("original"): self._seen["original"]}

    def _cut(self, picture):
        top, left, side = self._window
        return to_rgb(picture)[top : top + side, left : left + side]


def plot_scores(scores):
    """What each method gains over the first one (bicubic) on every picture, one panel per test set.

    The pictures of a set are in the order of the second method's gain. `scores` are rows of
    `kit.evaluation.score_sets`.
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
                      markersize=5 if few else 2.5, label=drawn(method))
        names = [drawn(short_name(picture)) for picture in order]
        axis.set_xticks(range(len(order)) if few else [], names if few else [], rotation=60, ha="right", fontsize=8)
        axis.set(title=drawn(name), ylabel=tr("dB over {method}", method=drawn(baseline)),
                 xlabel="" if few else tr("{count} pictures", count=len(order)))
        axis.grid(alpha=0.3)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    plt.close(figure)
    return figure


def plot_plane(scores, histories=None, validated_on=None):
    """The plane of perception and distortion (Blau & Michaeli, CVPR 2018): NIQE against PSNR, a panel for each set.

    Every method is a point, the originals a line, because their PSNR is infinite. `scores` are rows of
    `kit.evaluation.score_sets`; `histories`, name → epochs, are drawn as paths from epoch to epoch into the panel
    of the set that they were `validated_on`. No method gets into the lower right corner: what is nearer to the
    originals in one way is farther from them in the other.
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
                axis.axhline(found.niqe, color="black", linestyle="--", linewidth=1, label=tr("the originals"))
            elif found.niqe is not None:
                axis.plot(found.psnr, found.niqe, marker, markersize=8, label=drawn(method), zorder=3)
        axis.set(title=drawn(name), xlabel=tr("PSNR (dB): nearer to the original →"),
                 ylabel=tr("← NIQE: more natural"))
        axis.grid(alpha=0.3)
    for _, history, line in _curves(histories if histories and validated_on in sets else {}):
        if all("niqe" in row for row in history):
            axes.flat[sets.index(validated_on)].plot([row["psnr"] for row in history], [row["niqe"] for row in history],
                            **{**line, "label": tr("{run}, epoch by epoch", run=line["label"]), "alpha": 0.6})
    handles = {label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(len(handles), 4), fontsize=9)
    plt.close(figure)
    return figure
