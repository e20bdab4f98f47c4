"""What the notebooks show: networks as tables, curves, scores, and pictures beside each other.

Every `plot_…` returns a matplotlib.figure.Figure that was closed, so that a notebook shows it once, as the value of
its cell.
"""

from kit.plots.architecture import layer_table, network_table
from kit.plots.curves import LiveCurve, plot_history, plot_minutes, plot_plane, plot_scores
from kit.plots.flip import flip
from kit.plots.fonts import use_chinese
from kit.plots.pictures import (
    detail_window,
    gallery,
    plot_comparison,
    plot_patches,
    plot_rows,
    plot_samples,
    save_figure,
    save_pictures,
)

__all__ = ["LiveCurve", "detail_window", "flip", "gallery", "layer_table", "network_table", "plot_comparison",
           "plot_history", "plot_minutes", "plot_patches", "plot_plane", "plot_rows", "plot_samples", "plot_scores",
           "save_figure", "save_pictures"]

use_chinese()
