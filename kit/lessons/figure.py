"""What the figures of the lessons share: rows of pictures under titles, and the most detailed square of one."""

import itertools

import matplotlib.pyplot as plt
import numpy as np

from kit.plots.pictures import NO_TICKS, detail_window

GREYS = dict(cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def picture_row(pictures, titles, size=2.0, **options):
    """A figure with a row of pictures under titles."""
    return picture_rows([pictures], [titles], size, **options)


def picture_rows(pictures, titles, size=2.0, **options):
    """A figure with rows of pictures under titles."""
    figure, axes = plt.subplots(len(pictures), len(pictures[0]), layout="constrained", squeeze=False,
                                subplot_kw=NO_TICKS,
                                figsize=(size * len(pictures[0]), (size + 0.5) * len(pictures)))
    for axis, picture, title in zip(axes.flat, itertools.chain(*pictures), itertools.chain(*titles)):
        axis.imshow(picture, **(GREYS if np.ndim(picture) == 2 else {}) | options)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    return closed(figure)


def closed(figure):
    plt.close(figure)
    return figure


def detail(picture, side):
    """The most detailed square of a picture, of a side that is a multiple of 4."""
    top, left, side = detail_window(picture, side)
    side -= side % 4
    return picture[top : top + side, left : left + side]
