"""The number of threads that each update of a run is computed with: chosen, noted, and taken again by a resumed run.

Sums of the same numbers in another order differ in their last bits, so the weights hang on it: a run is the same, bit
for bit, as another with the same numbers of threads.
"""

import time
from contextlib import closing

import torch

from kit.compute.threads import choosing, counts

END = object()


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

    def __init__(self, run, setting, machine):
        self.run, self._noted, self._choice, self._seconds = run, [], None, None
        if setting != "auto":
            self.candidates = [setting]
        else:
            alone = machine.device.type == "cpu" and machine.world == 1
            self.candidates = counts() if alone else [torch.get_num_threads()]

    @property
    def chooses(self):
        return len(self.candidates) > 1

    def begin_phase(self):
        """Begin to choose anew: another phase, or another hour."""
        torch.set_num_threads(self.candidates[0])
        if self.chooses:
            self._noted, self._choice = self.run.read_threads(), None

    def paced(self, updates, first, count):
        """Pass on what the next `count` updates give, from number `first` of the run on."""
        with closing(updates):
            for number in range(first, first + count) if self.chooses else ():
                self._set(number)
                began = time.perf_counter()
                losses = next(updates, END)
                if losses is END:
                    return
                self._seconds = time.perf_counter() - began
                yield losses
            yield from updates

    def _set(self, number):
        before = [threads for update, threads in self._noted if update <= number]
        if self._noted and number <= self._noted[-1][0]:  # made again
            threads = before[-1] if before else self.candidates[0]
        else:
            threads = self._next()
            if threads != (before or [None])[-1]:
                self._noted.append([number, threads])
                self.run.write_threads(self._noted)
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)

    def _next(self):
        if self._choice is None:
            self._choice = choosing(self.candidates)
            return next(self._choice)
        return self._choice.send(self._seconds)
