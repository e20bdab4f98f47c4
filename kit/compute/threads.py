"""How many threads a computation takes: the number that is quickest here and now, found by trying.

A second thread makes the update of a small network a quarter quicker while nothing else runs on the machine, and many
times slower as soon as anything does: PyTorch's threads wait for each other hundreds of times in an update, each time
until the other program's turn is over (PyTorch issues 57715 and 80777). No number is right for an hour, and none can
be known without trying.
"""

import math
import time
from contextlib import contextmanager
from statistics import median

import torch

from kit.compute.limits import quota

TRIED = 3  # so many updates are timed with another number, after one that is not: it prepares the layers for it
LATER = 10  # seconds at least until other numbers are tried again
SHARE = 40  # and so many times the seconds that trying them has cost: a fortieth of the time goes into it
RECENT = 9  # so many updates tell how quick they are now
SLOWER = 1.5  # so many times slower than they were, they are a reason to try other numbers earlier
CLEARLY = 1.2  # so many times slower with fewer threads, still fewer are not tried


def counts():
    """The numbers of threads that are tried, the largest first: all that PyTorch takes, and halves of it.

    Of a container's limit PyTorch knows nothing.
    """
    found = [min(torch.get_num_threads(), quota())]
    while found[-1] > 1:
        found.append(found[-1] // 2)
    return found


@contextmanager
def threads(count=None):
    """A context in which PyTorch computes with so many threads (None: as many as before); after it, as before."""
    usual = torch.get_num_threads()
    torch.set_num_threads(count or usual)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def quickest(candidates, measure):
    """The fewest seconds that `measure()` gives with any of these numbers of threads."""
    best = math.inf
    for count in candidates:
        with threads(count):
            seconds = measure()
        best = min(best, seconds)
        if seconds > CLEARLY * best:
            break
    return best


_now = None, -math.inf  # what `quickest_now` has found, and when


def quickest_now():
    """The number of threads that is the quickest for some small convolutions; tried again when that is a while ago.

    For work without updates that could be timed. It costs a fifth of a second, and touches no network and no random
    numbers.
    """
    global _now
    count, when = _now
    if time.monotonic() - when > LATER:
        best, count = math.inf, 1
        for more in reversed(counts()):
            with threads(more):
                seconds = _seconds_of_convolutions(best)
            if seconds > best:
                break
            best, count = seconds, more
        _now = count, time.monotonic()
    return count


@torch.inference_mode()
def _seconds_of_convolutions(limit):
    """What some convolutions take, enough of them to meet the turns of other programs; it ends beyond the limit."""
    maps, kernel = torch.zeros(1, 32, 48, 48), torch.zeros(32, 32, 3, 3)
    began = time.perf_counter()
    for _ in range(128):
        maps = torch.nn.functional.conv2d(maps, kernel, padding=1).relu_()
        if time.perf_counter() - began > limit:
            break
    return time.perf_counter() - began


def choosing(candidates, known=None):
    """A coroutine that chooses: it yields the number of threads for the next update, and is sent the seconds it took.

    At first all candidates are tried, from the largest down, until fewer are clearly slower, unless the number is
    `known` that was the quickest a moment ago; later, now and then, those beside the present one.
    """
    if known in candidates:
        count, usual, wait = known, math.inf, LATER
    else:
        count, usual, lost = yield from _first(candidates)
        wait = max(LATER, SHARE * lost)
    while True:
        usual = yield from _staying(count, usual, wait)
        place, lost = candidates.index(count), 0
        for other in candidates[max(place - 1, 0) : place + 2]:
            if other != count:
                seconds, spent = yield from _trying(other, usual)
                lost += max(0, spent - (TRIED + 1) * usual)
                if seconds < 0.95 * usual:
                    count, usual = other, seconds
        wait = max(LATER, SHARE * lost)


def _first(candidates):
    """The quickest of all candidates, the seconds of an update with it, and those that trying the others has cost.

    A second update of each is enough to tell those that are far slower, which beside a busy core may take seconds.
    """
    took, spent, updates = {}, 0, 0
    for count in candidates:
        began = yield count
        took[count] = yield count
        spent, updates = spent + began + took[count], updates + 2
        if took[count] > CLEARLY * min(took.values()):
            break
    close = [count for count in took if took[count] < 2 * min(took.values())]
    if len(close) > 1:
        for count in close:
            took[count], seconds = yield from _trying(count, math.inf)
            spent, updates = spent + seconds, updates + TRIED + 1
    count = min(close, key=took.get)
    return count, took[count], max(0, spent - updates * took[count])


def _trying(count, best):
    """Updates with another number; gives the seconds of one, and of all. It ends early where they are far slower."""
    spent, timed = (yield count), []
    while len(timed) < TRIED and not (timed and timed[-1] > 2 * best):
        timed.append((yield count))
    return median(timed), spent + sum(timed)


def _staying(count, usual, wait):
    """Updates with one number until it is time to try others; gives the seconds that one takes now."""
    waited, recent = 0, []
    while waited < wait or len(recent) < RECENT:
        recent = [*recent[1 - RECENT :], (yield count)]
        waited += recent[-1]
        if len(recent) == RECENT and waited > wait / 4 and median(recent) > SLOWER * usual:
            break  # something else runs now
    return median(recent)
