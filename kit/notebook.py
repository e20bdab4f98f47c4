"""What makes a notebook calm: photographs that keep it small, the user's mistakes in one line; and what was executed.

What each cell was when it was executed is noted in results/cells.jsonl, by which the check of a hand-in can tell
whether a notebook was changed afterwards.
"""

import hashlib
import json
import secrets
import traceback
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from IPython import get_ipython
from IPython.core.pylabtools import print_figure
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib_inline.backend_inline import set_matplotlib_formats
from PIL import Image

from kit.files import KIT, write_whole
from kit.settings.describe import describe
from kit.settings.recipes import Settings

# What the kit raises for what is not its fault; everything else is shown in full.
MISTAKES = (ValueError, TypeError, OSError, ImportError, FloatingPointError, NotImplementedError)

EXECUTED = Path("results", "cells.jsonl")
LONGEST = 2**20  # bytes of it; then its older half goes


def set_up(quality=90):
    """Show figures as JPEG of this quality, and errors that the kit raises on purpose without their traceback."""
    set_matplotlib_formats("jpeg")  # photographs as PNG would make a large notebook
    shell = get_ipython()
    shell.display_formatter.formatters["image/jpeg"].for_type(Figure, partial(_as_jpeg, quality=quality))
    shell.set_custom_exc(MISTAKES, _show)
    # (EasyDict takes every method of its class with a usual name for an entry, so this is none of Settings.)
    if not any(getattr(callback, "func", None) is _note for callback in shell.events.callbacks["post_run_cell"]):
        shell.events.register("post_run_cell", partial(_note, secrets.token_hex(4)))
    shell.display_formatter.formatters["text/html"].for_type(Settings, lambda cfg: describe(cfg)._repr_html_())


def _as_jpeg(figure, quality):
    if not figure.get_layout_engine():
        return print_figure(figure, "jpeg", bbox_inches="tight", pil_kwargs={"quality": quality})
    # With a layout of its own a figure has no margins to cut off; so it is drawn once: print_figure does so twice.
    usual, canvas, jpeg = figure.canvas, FigureCanvasAgg(figure), BytesIO()
    canvas.draw()
    figure.set_canvas(usual)  # which may be one to be drawn on, of another backend
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(jpeg, "jpeg", quality=quality)
    return jpeg.getvalue()


def digest(source):
    """What a cell's source is told by: a short hash."""
    return hashlib.sha256(source.strip().encode()).hexdigest()[:16]


def _note(kernel, result):
    """Note what was executed."""
    if result.execution_count and result.info.store_history:
        with suppress(OSError):  # a folder that cannot be written to is no reason to disturb
            EXECUTED.parent.mkdir(exist_ok=True)
            if EXECUTED.is_file() and EXECUTED.stat().st_size > LONGEST:
                lines = EXECUTED.read_text(encoding="utf-8").splitlines(keepends=True)
                with write_whole(EXECUTED) as temporary:
                    temporary.write_text("".join(lines[len(lines) // 2 :]), encoding="utf-8")
            with open(EXECUTED, "a", encoding="utf-8") as file:
                row = {"kernel": kernel, "count": result.execution_count, "source": digest(result.info.raw_cell)}
                file.write(json.dumps(row) + "\n")


def _show(shell, kind, error, trace, tb_offset=None):
    if _is_on_purpose(trace):
        error._render_traceback_ = lambda: [f"\x1b[31m{kind.__name__}\x1b[0m: {error}"]
    shell.showtraceback((kind, error, trace))


def _is_on_purpose(trace):
    """Whether a traceback ends at a `raise` of the kit, and not in a bug or a student's own code."""
    *_, last = traceback.extract_tb(trace)
    path = Path(last.filename).resolve()
    return (path.parent == KIT.parent or path.is_relative_to(KIT)) and last.line.startswith("raise")
