"""The number of threads follows what updates take; simulated, so that no test hangs on this machine's load."""

from collections import Counter

import numpy as np
import pytest
import torch

import utils
from kit.compute import threads as module
from kit.compute.threads import choosing, counts, quickest, quickest_now, threads


def run_for(seconds, candidates, took, at=0.0):
    """(time, threads, seconds) of each update until so many seconds have passed; `took(time, threads)` is what it
    takes."""
    choice, found = choosing(candidates), []
    count = next(choice)
    while at < seconds:
        found.append((at, count, took(at, count)))
        at += found[-1][2]
        count = choice.send(found[-1][2])
    return found


def share(found, count, begin, end):
    """The share of the time from `begin` to `end` that was spent with so many threads."""
    spent = Counter()
    for at, threads_then, seconds in found:
        if begin <= at < end:
            spent[threads_then] += seconds
    return spent[count] / sum(spent.values())


IDLE, BUSY = {2: 0.024, 1: 0.030}, {2: 0.75, 1: 0.032}


def test_while_nothing_else_runs_all_cores_compute():
    found = run_for(300, [2, 1], lambda at, count: IDLE[count])
    assert share(found, 2, 0, 300) > 0.98


def test_beside_a_busy_core_one_thread_computes_almost_from_the_start():
    found = run_for(300, [2, 1], lambda at, count: BUSY[count])
    assert {count for at, count, _ in found if 5 < at < 10} == {1}
    assert share(found, 1, 10, 300) > 0.95
    assert len(found) > 0.9 * 300 / BUSY[1]  # of the updates that one thread makes from the start


def test_where_two_threads_take_seconds_only_two_updates_are_lost_at_first_and_none_where_the_number_is_known():
    """As it was measured beside a busy core in a notebook: 4 s for an update of 0.03."""
    found = run_for(60, [2, 1], lambda at, count: {2: 4.0, 1: 0.03}[count])
    assert sum(count == 2 for _, count, _ in found) == 2
    choice = choosing([2, 1], known=1)
    assert [next(choice), *(choice.send(0.03) for _ in range(300))] == [1] * 301


def test_a_program_that_comes_and_goes_is_noticed():
    found = run_for(400, [2, 1], lambda at, count: (BUSY if 100 <= at < 200 else IDLE)[count])
    assert share(found, 2, 0, 100) > 0.95
    assert share(found, 1, 125, 200) > 0.9
    assert share(found, 2, 330, 400) > 0.9


def test_large_networks_keep_all_cores_also_beside_a_busy_one():
    found = run_for(600, [2, 1], lambda at, count: {2: 3.0, 1: 4.5}[count])
    assert len(found) > 0.95 * 600 / 3


def test_of_many_cores_the_quickest_number_is_found_from_above_and_from_below():
    took = {16: 0.040, 8: 0.022, 4: 0.018, 2: 0.024, 1: 0.040}
    found = run_for(200, list(took), lambda at, count: took[count])
    assert share(found, 4, 0, 200) > 0.9
    later = {16: 0.010, 8: 0.014, 4: 0.018, 2: 0.024, 1: 0.040}
    found = run_for(200, list(took), lambda at, count: (took if at < 50 else later)[count])
    assert share(found, 16, 120, 200) > 0.85


def test_candidates_are_halves_of_what_pytorch_takes_and_a_context_leaves_it_as_it_was():
    usual = torch.get_num_threads()
    with threads(12):
        assert counts() == [12, 6, 3, 1]
        with threads(1):
            assert counts() == [1]
        assert torch.get_num_threads() == 12
    assert torch.get_num_threads() == usual
    with pytest.raises(KeyError), threads(3):
        raise KeyError
    assert torch.get_num_threads() == usual


def test_what_is_estimated_is_the_quickest():
    took = {8: 3.0, 4: 1.0, 2: 1.1, 1: 0.5}
    with threads():
        assert quickest([8, 4, 2, 1], lambda: took[torch.get_num_threads()]) == 0.5
        assert quickest([8, 4, 1], lambda: {8: 1, 4: 2, 1: 0.1}[torch.get_num_threads()]) == 1  # far slower: no further


@pytest.mark.parametrize("took, wanted, tried", [
    ({1: 0.03, 2: 0.02, 4: 0.012}, 4, [1, 2, 4]), ({1: 0.03, 2: 0.04, 4: 0.012}, 1, [1, 2])])
def test_work_without_updates_takes_what_is_quickest_now(monkeypatch, took, wanted, tried):
    """More threads are tried as long as they are quicker, and a number that has been found is kept for a while."""
    seen, clock = [], [1000.0]

    def seconds(limit):
        seen.append(torch.get_num_threads())
        return took[seen[-1]]

    usual = torch.get_num_threads()
    monkeypatch.setattr(module, "counts", lambda: [4, 2, 1])
    monkeypatch.setattr(module, "_seconds_of_convolutions", seconds)
    monkeypatch.setattr(module, "_now", (None, -1e9))
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    assert quickest_now() == quickest_now() == wanted and seen == tried
    clock[0] += 60
    assert quickest_now() == wanted and seen == 2 * tried
    assert torch.get_num_threads() == usual


def test_enlarging_computes_with_that_number_and_gives_the_number_back(generator, photograph, monkeypatch):
    seen, usual = [], torch.get_num_threads()
    monkeypatch.setattr("utils.quickest_now", lambda: 1 if usual > 1 else 2)
    enlarge = utils.Enlarger(generator)
    forward = type(enlarge.network.network).forward
    monkeypatch.setattr(type(enlarge.network.network), "forward",
                        lambda self, lr: seen.append(torch.get_num_threads()) or forward(self, lr))
    enlarge(np.ascontiguousarray(photograph[:20, :30]))
    assert set(seen) == {1 if usual > 1 else 2} and torch.get_num_threads() == usual


@pytest.mark.parametrize("limit, convolutions", [(0, 1), (1e9, 128)])
def test_the_convolutions_end_where_they_take_too_long(monkeypatch, limit, convolutions):
    done, convolve = [], torch.nn.functional.conv2d
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda *one, **more: done.append(1) or convolve(*one, **more))
    assert module._seconds_of_convolutions(limit) > 0 and len(done) == convolutions
