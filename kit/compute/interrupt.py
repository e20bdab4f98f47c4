"""Ctrl-C, a notebook's stop button and a cluster's SIGTERM: never in the middle of an update."""

import signal
import sys
import threading
from contextlib import contextmanager, suppress

from tqdm import tqdm

from kit.language import tr


class Stopped(KeyboardInterrupt):
    """The user stopped training, and everything is saved. A notebook shows one line, and stops running cells."""

    def _render_traceback_(self):
        return [str(self)]


@contextmanager
def interruption(shown=True):
    """Yields an event that Ctrl-C, a notebook's stop button, or a cluster's SIGTERM sets.

    So an interruption never breaks into the middle of an update; a second one takes effect at once, as Stopped.
    If it is to be `shown`, the first is acknowledged with a line.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals reach the main thread only
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number, frame):
        if event.is_set():
            raise Stopped(tr("stopped at once; the run goes on from where it was last saved"))
        event.set()
        if shown:
            with suppress(RuntimeError):  # that it came in the middle of another print
                tqdm.write(tr("stopping after this update; a second time stops at once, without saving"),
                           file=sys.stdout)  # (a bar is taken away before, and is not left above)

    for number in usual:
        signal.signal(number, on_signal)
    try:
        yield event
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
