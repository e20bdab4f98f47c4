"""The number of threads that each update of a run is computed with: chosen, noted, and taken again by a resumed run.

Sums of the same numbers in another order differ in their last bits, so the weights hang on it: a run is the same, bit
for bit, as another with the same numbers of threads.
"""

import math
import time
from contextlib import closing, contextmanager

import torch

from kit.compute.threads import TRIED, choosing, counts, threads

END = object()
MOMENT = 60  # seconds in which what was the quickest for one phase or run is where the next one begins


class Pace:
    """Sets the number of threads before each update, and measures what it took.

    Parameters
    ----------
    run : kit.runs.folder.Run
        Whose `threads.json` has the changes: [number of the first update, threads], …; a change is written there before
        it takes effect, and those that a killed program made after it had last saved are made again.
    setting : "auto" or int
        `cfg.threads`: what is quickest, or so many.
    machine : kit.compute.device.Machine
        On a GPU, and where several processes share a run, the number stays what it is.
    """

    _latest = (-math.inf, None)  # when a number was the chosen one last in this process, and which

    def __init__(self, run, setting, machine):
        self.run, self._noted, self._choice, self._seconds, self._alike = run, None, None, None, 0
        if setting != "auto":
            self.candidates = [setting]
        else:
            alone = machine.device.type == "cpu" and machine.world == 1
            self.candidates = counts() if alone else [torch.get_num_threads()]

    @contextmanager
    def phase(self):
        """A context for the updates of a phase, for which it begins to choose anew; after it all is as before."""
        self._noted = self._choice = None
        with threads(self.candidates[0]):
            yield

    def paced(self, updates, state):
        """Pass on what the updates of an epoch give that are not made yet; `state` is where the run stands."""
        with closing(updates):
            for _ in range(state.step, state.steps_per_epoch) if len(self.candidates) > 1 else ():
                self._set(state.steps)
                began = time.perf_counter()
                losses = next(updates, END)
                if losses is END:
                    return
                self._seconds = time.perf_counter() - began
                yield losses
            yield from updates

    def _set(self, number):
        """Set the number of threads for the update of this number."""
        if self._noted is None:
            self._noted = self.run.read_threads()
        before = [count for update, count in self._noted if update <= number]
        if self._noted and number <= self._noted[-1][0]:  # made again
            count = before[-1] if before else self.candidates[0]
        else:
            count = self._next()
            if before[-1:] != [count]:
                self._noted.append([number, count])
                self.run.write_threads(self._noted)
        if count != torch.get_num_threads():
            torch.set_num_threads(count)

    def _next(self):
        if self._choice is None:
            when, known = Pace._latest
            self._choice = choosing(self.candidates, known if time.monotonic() - when < MOMENT else None)
            return next(self._choice)
        count = self._choice.send(self._seconds)
        self._alike = self._alike + 1 if count == torch.get_num_threads() else 0
        if self._alike > 2 * (TRIED + 1):  # chosen, and not only tried
            Pace._latest = time.monotonic(), count
        return count
