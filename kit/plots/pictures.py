"""Pictures beside each other: training patches, comparisons with a magnified detail, galleries, samples of a run."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from imresize import imresize
from kit.console import progress_bar
from kit.evaluation.measure import enlarge_all, score_captions, shown
from kit.files import write_whole
from kit.language import tr
from utils import read_picture, save_picture, to_rgb

# For axes of pictures, also where they are off: placing ticks that nobody sees takes a third of a figure's time.
NO_TICKS = dict(xticks=[], yticks=[])


def plot_patches(train_set, count=8):
    """The first training patches: low resolution above, high resolution below."""
    figure, axes = plt.subplots(2, count, figsize=(13, 3.4), layout="constrained", subplot_kw=NO_TICKS)
    for column, pair in zip(axes.T, (train_set[n] for n in range(count))):
        for axis, patch in zip(column, pair):
            axis.imshow(patch.permute(1, 2, 0).numpy(), interpolation="nearest")
            axis.set_axis_off()
    for axis, what, size in [(axes[0, 0], tr("low resolution"), train_set.crop // train_set.scale),
                             (axes[1, 0], tr("high resolution"), train_set.crop)]:
        axis.set_title(f"{what}, {size}×{size}", loc="left", fontsize=10)
    plt.close(figure)
    return figure


def plot_comparison(pictures, detail=96, captions=None):
    """Pictures of one size side by side, at most four abreast: whole above, a magnified detail below.

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
    bands = math.ceil(len(pictures) / 4)  # more than four abreast would be too small to judge, as would their titles
    columns = math.ceil(len(pictures) / bands)
    figure, axes = plt.subplots(2 * bands, columns, layout="constrained", squeeze=False,
                                height_ratios=[ratio, 1] * bands, subplot_kw=NO_TICKS,
                                figsize=(3.2 * columns, (3.2 * (ratio + 1) + 0.5) * bands))
    places = axes.reshape(bands, 2, columns).transpose(0, 2, 1).reshape(-1, 2)  # (whole, detail), side by side
    for unused in places[len(pictures) :].flat:
        unused.set_axis_off()
    height, width = original.shape[:2]
    for column, (title, picture) in zip(places, pictures.items()):
        column[0].imshow(reduced(picture), extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        column[0].set_title(f"{drawn(title)}\n{(captions or {}).get(title, '')}", fontsize=12)
        column[0].add_patch(plt.Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor="red"))
        column[1].imshow(_cut(picture, original, top, left, side), interpolation="nearest")
        for axis in column:
            axis.set_axis_off()
    plt.close(figure)
    return figure


def gallery(pairs, methods, folder, detail=96):
    """Write every pair enlarged by every method to a folder, as PNGs, with an overview of each; gives all the pictures.

    The files are `<picture> <method>.png` and `<picture> overview.png`. Returns a dict of str → dict of str → picture,
    for `kit.plots.flip`: the picture's name, without what all of a set have in common → the method → the picture.
    """
    enlarged = {}
    for pair in pairs:
        pictures = enlarge_all(pair, methods)
        save_pictures(pictures, folder, pair.name)
        scale = pair.hr.shape[0] // pair.lr.shape[0]
        figure = plot_comparison(pictures, detail, score_captions(pictures, scale))
        save_figure(figure, Path(folder, f"{pair.name} overview.png"))
        enlarged[short_name(pair.name)] = pictures
    return enlarged


def short_name(picture):
    """The name of a picture without what those of a benchmark have in common."""
    return picture.removesuffix("_HR").removesuffix("_SRF_4")


def drawn(name):
    """The name of a method or picture for a figure, where what is between two "$" would be a formula."""
    return shown(name).replace("$", r"\$")


def save_pictures(pictures, folder, name):
    """Write pictures, a dictionary title → picture, to a folder as `<name> <title>.png`; a bar where they are large."""
    large = sum(picture.size for picture in pictures.values()) > 10**8
    for title, picture in progress_bar(pictures.items(), tr("saving"), large):
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
            axis.imshow(_cut(picture, original, top, left, side), interpolation="nearest")
        line[0].set_ylabel(drawn(name), fontsize=12)
    for axis, title in zip(axes[0], titles):
        axis.set_title(drawn(title), fontsize=11)
    plt.close(figure)
    return figure


def reduced(picture, longest=1600):
    """A picture as RGB, made smaller by a whole factor where it has more pixels than a figure shows."""
    picture = to_rgb(picture)
    factor = max(picture.shape[:2]) // longest
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).reduce(factor)) if factor > 1 else picture


def _cut(picture, original, top, left, side):
    """A square of a picture as RGB, its pixels repeated as if it were as large as the original."""
    factor = original.shape[0] // picture.shape[0]
    rows, columns = (slice(start // factor, -(-(start + side) // factor)) for start in (top, left))
    part = to_rgb(picture[rows, columns]).repeat(factor, axis=0).repeat(factor, axis=1)
    return part[top % factor :, left % factor :][:side, :side]


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
        axis.set_title(drawn(column), fontsize=10)
    plt.close(figure)
    return figure


def detail_window(picture, side):
    """(top, left, side) of the square with most of what a reduction to a quarter loses.

    In a picture of more pixels than any screen has it is looked for in a smaller version.
    """
    side, step = min(side, *picture.shape[:2]), max(picture.shape[:2]) // 3000
    if step > 1:
        top, left, _ = detail_window(reduced(picture, 3000), side // step)
        return top * step, left * step, side
    grey = picture.mean(axis=2) if picture.ndim == 3 else picture.astype(np.float64)
    lost = np.abs(grey - imresize(imresize(grey, 0.25), output_shape=grey.shape))
    total = np.pad(lost, ((1, 0), (1, 0))).cumsum(0).cumsum(1)  # an integral image
    boxes = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    top, left = np.unravel_index(boxes.argmax(), boxes.shape)
    return int(top), int(left), side
