"""Following a run that another notebook or program trains."""

import time

from kit.language import tr
from kit.plots.curves import plot_history
from kit.runs.folder import Run
from kit.runs.history import current_run, read_history
from kit.training.display import epoch_line


def follow(name=None, folder="runs", seconds=2):
    """Show how a run goes on that another notebook or program trains, until it ends or this is interrupted.

    Reads the run's folder only: a stop here stops nothing there. `name` as for `current_run`.
    """
    name = current_run(name, folder)
    shown, handle, text = None, None, ""
    try:
        while name:
            run, history = Run(name, folder), read_history(name, folder)
            progress = run.progress()
            if (len(history), progress) != shown:
                shown, text = (len(history), progress), _standing(name, progress, history)
                handle = _display(text, history, name, handle)
            if progress["state"] != "running":
                break
            time.sleep(seconds)
    except KeyboardInterrupt:
        print(tr("no longer followed; the run goes on"))


def _standing(name, progress, history):
    """How a run stands, in a line or two."""
    lines = [tr("run {name!r}: {state}", name=name, state=tr(progress["state"]))]
    if progress["state"] == "running" and "steps" in progress:
        left = progress.get("seconds_left")
        lines[0] += tr(", {phase} epoch {epoch:.0f} of {epochs}, update {step} of {steps}", **{
            **progress, "epoch": progress["epoch"] + 1})
        lines[0] += tr(", about {minutes:.1f} min left", minutes=left / 60) if left else ""
    if history:
        last = history[-1]
        planned = progress.get("epochs", "?") if progress.get("phase") == last["phase"] else f"{last['epoch']:.0f}"
        lines.append(tr("last epoch: ") + epoch_line(last, planned))
    if progress.get("message"):
        lines.append(progress["message"])
    return "\n".join(lines)


def _display(text, history, name, handle):
    """Show text and curves in a notebook, in place of what was shown before; in a terminal print the text."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        get_ipython = None
    if get_ipython is None or get_ipython() is None:
        print(text, flush=True)
        return None
    handle = handle or (display(display_id=True), display(display_id=True))
    handle[0].update({"text/plain": text}, raw=True)
    if history:
        handle[1].update(plot_history({name: history}))
    return handle
