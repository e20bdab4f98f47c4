"""Training beside other programs: with all cores, as PyTorch does by itself, and with the number that the kit chooses.

A part of `python -m kit.tools.benchmark`.
"""

import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager

import numpy as np

import create_data_lists
import solver
from kit.compare.sweeps import sweep
from kit.compute.threads import counts

SECONDS = 30  # of training with each setting beside each kind of company
BUSY = "while True: sum(range(1000))"
COMING_AND_GOING = """
import random, time
while True:
    end = time.monotonic() + random.uniform(0.1, 1)
    while time.monotonic() < end: sum(range(1000))
    time.sleep(random.uniform(0.1, 1))
"""
COMPANY = {"nothing else running": [], "one core busy": [BUSY],
           "four programs that come and go": 4 * [COMING_AND_GOING]}


@contextmanager
def running(programs):
    """A context in which these programs run, too."""
    started = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


class TimeIsUp(Exception):
    pass


class Timed(solver.Trainer):
    """A trainer that notes the time after each update, and ends after so many seconds."""

    def _keep_watch(self, phase, display):
        self.ticks.append(time.perf_counter())
        if self.ticks[-1] - self.ticks[0] > SECONDS:
            raise TimeIsUp


def milliseconds(lists, threads, warm_up):
    """What an update of the demo takes on average, with all that choosing costs."""
    with tempfile.TemporaryDirectory() as runs:
        cfg = solver.settings("demo", runs=runs, train_list=str(lists["demo_train"]), threads=threads,
                              valid_list=str(lists["demo_test"]), updates_per_epoch=10**6, warmup_epochs=int(warm_up))
        trainer = Timed(cfg, progress=False)
        trainer.ticks = []
        try:
            trainer.train()
        except TimeIsUp:
            return 1000 * float(np.mean(np.diff(trainer.ticks)))


def milliseconds_of_sweep(lists, at_once, count):
    """What so many short runs of a sweep take, so many at once."""
    with tempfile.TemporaryDirectory() as runs:
        cfg = solver.settings("demo", runs=runs, train_list=str(lists["demo_train"]), adversarial_epochs=0,
                              valid_list=str(lists["demo_test"]), warmup_epochs=5)
        begin = time.perf_counter()
        sweep(cfg, seeds=count, variants=[{}], at_once=at_once)
        return 1000 * (time.perf_counter() - begin)


def benchmark_threads():
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        lists = {made.csv_file.stem: made.csv_file
                 for made in create_data_lists.create_demo_lists(folder, progress=False)}
        for company, programs in COMPANY.items():
            for phase in ("warm-up", "adversarial"):
                with running(programs):
                    usual, kit = (milliseconds(lists, threads, phase == "warm-up") for threads in (counts()[0], "auto"))
                rows.append((f"{phase} update, {company}", usual, kit, usual / kit))
        cores = counts()[0]
        if cores > 1:
            apart, beside = (milliseconds_of_sweep(lists, at_once, cores) for at_once in (1, cores))
            rows.append((f"{cores} runs of a sweep, one after the other | at once", apart, beside, apart / beside))
    return [f"threads (the demo, {SECONDS} s each)", f"{counts()[0]} threads (ms)", "kit (ms)", "ratio"], rows
