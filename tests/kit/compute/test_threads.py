"""The number of threads follows what updates take; simulated, so that no test hangs on this machine's load."""

from collections import Counter

import pytest
import torch

from kit.compute.threads import choosing, counts, quickest, threads


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
