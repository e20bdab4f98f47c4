"""What training will cost, found by a few updates of copies of the networks; the run does not notice."""

import time
from functools import partial

import torch

from kit.compute.learner import Learner
from kit.compute.threads import quickest
from kit.console import Table
from kit.evaluation.measure import evaluate
from kit.language import tr


def cost_table(state, measure, validating, candidates):
    """A table of what phases will take, and the minutes of all together.

    `state` is where the run stands, `measure(phase)` finds what an update takes, with one of the numbers of threads
    among the `candidates`, `validating` is what a validation takes, in seconds.
    """
    rows, total, steps_per_epoch = [], 0, state.steps_per_epoch
    for phase, epochs in state.ahead():
        if epochs > 0:
            one = quickest(candidates, partial(measure, phase))
            minutes = epochs * (steps_per_epoch * one + validating) / 60
            total += minutes
            rows.append([phase.name, str(epochs), f"{epochs * steps_per_epoch:,}", f"{1000 * one:,.0f}",
                         f"{minutes:,.1f}"])
    rows.append([tr("all"), "", "", "", f"{total:,.1f}"])
    return Table(rows, [tr("phase"), tr("epochs to do"), tr("updates"), tr("ms per update"), tr("minutes")]), total


def seconds_to_validate(make_enlarger, valid_set, pictures):
    """What a validation takes, by its first picture."""
    began = time.perf_counter()
    evaluate(make_enlarger(), valid_set, 1, progress=False)
    return (time.perf_counter() - began) * min(len(valid_set), pictures)


def seconds_per_update(phase, arguments, batches, updates):
    """What an update takes, by `updates` of them; the learners among the arguments are changed by it.

    There must be one batch more than that, for the first update takes longer and does not count.
    """
    ticks, learners = [], [value for value in arguments.values() if isinstance(value, Learner)]
    for losses in phase.losses(arguments, batches):
        sum(float(torch.as_tensor(loss).detach()) for loss in losses.values())  # (waits for a GPU)
        ticks.append(time.perf_counter())
        for learner in learners:
            learner.update += 1
    return (ticks[-1] - ticks[0]) / updates
