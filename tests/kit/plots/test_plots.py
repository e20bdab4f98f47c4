"""Figures show what they are given."""

import numpy as np
from matplotlib.text import Text

import models
import solver
import utils
from kit import evaluation, lessons, plots


def test_plots_show_what_they_are_given(photograph, tmp_path):
    pair = type("Pair", (), dict(name="x", lr=photograph[:40, :40], hr=photograph[:160, :160]))
    methods = evaluation.methods({"G": models.Generator(4, channels=4, blocks=1)})
    pictures = evaluation.enlarge_all(pair, methods)
    assert list(pictures) == ["low resolution", "bicubic", "G", "original"]
    captions = evaluation.score_captions(pictures)
    assert list(captions) == ["bicubic", "G"]
    assert captions["bicubic"].startswith(f"{utils.psnr(pictures['bicubic'], pair.hr):.2f} dB")
    figure = plots.plot_comparison(pictures, captions=captions)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:4] == ["low resolution\n", f"bicubic\n{captions['bicubic']}", f"G\n{captions['G']}", "original\n"]
    six = plots.plot_comparison({str(n): pair.hr for n in range(6)})
    assert [axis.get_title().strip() for axis in six.axes if axis.get_title()] == list("012345")
    assert len(six.axes) == 4 * 3  # two bands of three, each with wholes and details


def test_dollars_in_names_are_dollars(photograph, small_lists, tmp_path):
    """Between two of them matplotlib reads a formula, and ends with an error where it is none."""
    name, hr = "5$_per_{10$", photograph[:64, :64]
    generator = models.Generator(4, channels=4, blocks=1)
    methods = evaluation.methods({name: generator})
    list_file = small_lists / "valid.csv"
    scores = [{**row, "set": name, "picture": name} for row in evaluation.score_sets(methods, [list_file])]
    for figure in [plots.plot_comparison({name: hr}), plots.plot_rows({name: {name: hr}}), plots.plot_scores(scores),
                   plots.plot_plane(scores), plots.plot_history({}, lines={name: 20.0}), lessons.edge(methods)]:
        plots.save_figure(figure, tmp_path / "figure.png")
        assert r"5\$_per_{10\$" in "".join(text.get_text() for text in figure.findobj(Text))


def test_rows_of_pictures_show_the_detail_of_their_own_photograph():
    rows = {}
    for name, left in [("near", 8), ("far", 200)]:
        picture = np.full((128, 256, 3), 90, np.uint8)
        picture[80:112:2, left : left + 32] = 200
        rows[name] = {"plain": np.full_like(picture, 90), "original": picture}
    figure = plots.plot_rows(rows, 48)
    shown = [axis.images[0].get_array() for axis in figure.axes]
    assert [picture.shape for picture in shown] == [(48, 48, 3)] * 4
    assert all((picture == 200).sum() == 16 * 32 * 3 for picture in shown[1::2])


def test_minutes_add_up(tmp_path):
    history = [{"phase": "warmup", "seconds": 60, "psnr": 27.0}, {"phase": "warmup", "seconds": 120, "psnr": 28.0},
               {"phase": "adversarial", "seconds": 60, "psnr": 26.0}]
    lines = plots.plot_minutes({"mine": history}).axes[0].lines
    assert [list(line.get_xdata()) for line in lines] == [[1, 3], [4]]
    assert [list(line.get_ydata()) for line in lines] == [[27, 28], [26]]


def test_the_detail_is_where_the_fine_structure_is():
    picture = np.full((128, 160, 3), 90, np.uint8)
    picture[80:112:2, 40:72] = 200
    top, left, side = plots.detail_window(picture, 48)
    assert side == 48 and 80 - 20 < top <= 80 and 40 - 20 < left <= 40


def test_pictures_larger_than_any_screen_are_drawn_from_smaller_ones():
    original = np.zeros((2400, 6400, 3), np.uint8)
    original[1600:1664:2, 5000:5064] = 200  # all detail that there is
    figure = plots.plot_comparison({"low": original[::4, ::4], "original": original}, detail=96)
    wholes, details = ([axis.images[0].get_array() for axis in figure.axes[i : i + 2]] for i in (0, 2))
    assert all(max(picture.shape) <= 3200 for picture in wholes)
    assert [picture.shape for picture in details] == [(96, 96, 3)] * 2
    assert (details[1] == 200).sum() > 32 * 64  # most of it is in the detail


def test_a_detail_of_the_low_resolution_is_as_if_it_had_been_enlarged_whole(photograph):
    low = {"low": photograph[:40, :60], "original": photograph[:160, :240]}
    shown = plots.plot_comparison(low, detail=50).axes[2].images[0].get_array()
    top, left, side = plots.detail_window(low["original"], 50)
    whole = low["low"].repeat(4, axis=0).repeat(4, axis=1)
    assert np.array_equal(shown, whole[top : top + side, left : left + side])


def test_training_shows_the_picture_getting_sharper(small_settings):
    live, shown = plots.LiveCurve("small", folder=small_settings.runs), []

    class Handle:
        def update(self, figure):
            shown.append(figure)

    live.handle = Handle()
    trainer = solver.Trainer(small_settings, progress=False)
    trainer.train(on_epoch=live)
    titles = [axis.get_title() for axis in shown[-1].axes if axis.images]
    assert titles == ["warmup 1", "warmup 2", "adversarial 1", "adversarial 2", "original"]
    last = [axis.images[0].get_array() for axis in shown[-1].axes if axis.images][3]
    top, left, side = plots.detail_window(trainer.run.read_pair_image("original", "eye"), 64)
    sample = trainer.run.sample("adversarial", 2, "eye")
    assert np.array_equal(last, sample[top : top + side, left : left + side])
