"""A run chooses its threads while it trains, notes each change before it takes effect, and makes it again when
resumed."""

import math
import os
import signal

import pytest
import torch
from warm import start

import solver
from helpers import changed, equal, train, weights
from kit.compute.threads import threads
from kit.runs.folder import Run
from kit.training import pace


@pytest.fixture
def auto(small_settings):
    return changed(small_settings, threads="auto", patches_per_picture=10)


def scripted(monkeypatch, script):
    """Let the machine have two cores, and what is chosen follow a script: number of the choice → threads."""
    def choosing(candidates, known=None):
        for number in range(10**6):
            yield script(number)

    monkeypatch.setattr(pace, "counts", lambda: [2, 1])
    monkeypatch.setattr(pace, "choosing", choosing)


def train_noting(cfg, script, kill_after=None):
    """Train; gives the threads of each update. In a process of its own, which may be killed after so many."""
    used = []

    class Noting(solver.Trainer):
        def _keep_watch(self, phase, display):
            used.append(torch.get_num_threads())
            if len(used) == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            super()._keep_watch(phase, display)

    with pytest.MonkeyPatch.context() as patch:
        scripted(patch, script)
        Noting(cfg, progress=False).train()
    return used


def told(changes, count):
    """The threads of each of the first `count` updates, by the changes that a run has noted."""
    return [[threads for update, threads in changes if update <= number][-1] for number in range(count)]


def by_threes(number):
    return 2 - number // 3 % 2


def test_a_run_that_was_killed_between_a_change_and_the_next_save_makes_it_again(auto):
    """And ends with the weights of one that was left alone with the same numbers of threads."""
    process = start(train_noting, auto, by_threes, 18)  # the last save is after the first epoch, of ten updates
    process.join()
    assert process.exitcode == -signal.SIGKILL
    run = Run(auto.name, auto.runs)
    before, resumed_at = run.read_threads(), len(run.load_state()["history"]) * 10
    assert resumed_at == 10 and [update for update, _ in before] == [0, 3, 6, 9, 12, 15]
    used = train_noting(auto, lambda number: 1 + number % 2)
    noted = run.read_threads()
    assert noted[:6] == before and len(noted) > 20
    assert used == told(noted, 40)[10:]

    other = Run("alone", auto.runs)
    other.folder.mkdir()
    other.write_threads(noted)
    assert train_noting(changed(auto, name="alone"), lambda number: 2) == told(noted, 40)
    assert equal(weights(other.folder), weights(run.folder))


def test_a_fork_takes_over_the_numbers_of_threads_of_what_it_takes_over(auto):
    train_noting(auto, by_threes)
    fork = changed(auto, name="fork", fork_of=auto.name, adversarial_weight=0.1)
    train_noting(fork, by_threes)
    mine, others = (Run(name, auto.runs).read_threads() for name in ("fork", auto.name))
    assert [change for change in mine if change[0] < 20] == [change for change in others if change[0] < 20]


def test_who_sets_the_number_has_it_throughout_and_afterwards_the_usual_one(small_settings):
    usual = torch.get_num_threads()
    with threads(usual + 1):
        assert set(train_noting(changed(small_settings, threads=2, name="two"), by_threes)) == {2}
        assert torch.get_num_threads() == usual + 1
    assert Run("two", small_settings.runs).read_threads() == []
    with pytest.raises(ValueError, match="threads must be a whole number, at least 1, or 'auto', not 0"):
        train(small_settings, threads=0)


def test_the_next_run_begins_with_what_was_the_quickest_a_moment_ago(auto, monkeypatch):
    asked = []

    def choosing(candidates, known=None):
        asked.append(known)
        for number in range(10**6):
            yield 2 if number % 20 == 19 else 1  # 2 is only tried

    monkeypatch.setattr(pace, "counts", lambda: [2, 1])
    monkeypatch.setattr(pace, "choosing", choosing)
    monkeypatch.setattr(pace.Pace, "_latest", (-math.inf, None))
    train(auto)
    assert asked == [None, 1]  # two phases
    monkeypatch.setattr(pace, "MOMENT", 0)
    train(auto, name="later")
    assert asked == [None, 1, None, None]


def test_an_epoch_function_that_yields_too_little_or_too_much_is_named_as_ever(auto, monkeypatch):
    scripted(monkeypatch, by_threes)

    def too_much(generator, batches):
        for lr, hr in batches:
            generator.descend((generator(lr) - hr).square().mean())
            yield {"loss": 1.0}
        yield {"loss": 1.0}

    def too_little(generator, batches):
        for lr, hr in list(batches)[1:]:
            generator.descend((generator(lr) - hr).square().mean())
            yield {"loss": 1.0}

    for function, times in [(too_much, 11), (too_little, 9)]:
        trainer = solver.Trainer(changed(auto, name=function.__name__), [solver.Phase("own", function, 1, 1e-3)],
                                 progress=False)
        with pytest.raises(ValueError, match=f"yielded {times} times for 10 batches"):
            trainer.train()


def test_what_training_will_cost_is_that_with_the_quickest_number_of_threads(auto, monkeypatch):
    scripted(monkeypatch, by_threes)
    monkeypatch.setattr("kit.training.trainer.seconds_per_update",
                        lambda *_: {2: 9.0, 1: 0.5}[torch.get_num_threads()])
    with threads():
        trainer = solver.Trainer(auto, progress=False)
        assert [row[3] for row in trainer.cost().cells[1:-1]] == ["500", "500"]
