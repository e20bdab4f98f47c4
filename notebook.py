"""What makes a notebook calm: photographs that keep it small, and the user's mistakes in one line."""

import traceback
from pathlib import Path

from IPython import get_ipython
from matplotlib_inline.backend_inline import set_matplotlib_formats

from recipes import Settings, describe

KIT = Path(__file__).resolve().parent
# What the kit raises for what is not its fault; everything else is shown in full.
MISTAKES = (ValueError, TypeError, OSError, FloatingPointError)


def set_up(quality=90):
    """Show figures as JPEG of this quality, and errors that the kit raises on purpose without their traceback."""
    set_matplotlib_formats("jpeg", pil_kwargs={"quality": quality})  # photographs as PNG would make a large notebook
    shell = get_ipython()
    shell.set_custom_exc(MISTAKES, _show)
    # (EasyDict takes every method of its class with a usual name for an entry, so this is none of Settings.)
    shell.display_formatter.formatters["text/html"].for_type(Settings, lambda cfg: describe(cfg)._repr_html_())


def _show(shell, kind, error, trace, tb_offset=None):
    if _is_on_purpose(trace):
        error._render_traceback_ = lambda: [f"\x1b[31m{kind.__name__}\x1b[0m: {error}"]
    shell.showtraceback((kind, error, trace))


def _is_on_purpose(trace):
    """Whether a traceback ends at a `raise` of the kit, and not in a bug or a student's own code."""
    *_, last = traceback.extract_tb(trace)
    return Path(last.filename).resolve().parent == KIT and last.line.startswith("raise")
