"""Where a run stands: phase, epoch and update, the losses of the epoch so far, and the epochs before it."""

import math
import time

import torch

from kit.language import tr
from kit.runs.folder import FIRST_COLUMNS, LAST_COLUMNS
from kit.training.phases import find_phase, scheduled

# How the losses were called in states of runs that were begun before losses had their names beside them.
FIRST_LOSSES = ["content_loss", "adversarial_loss", "discriminator_loss", "d_real", "d_fake"]


class RunState:
    """Counts the updates of a run, and adds their losses up.

    Parameters
    ----------
    phases : list of Phase
    steps_per_epoch : int
        Updates in an epoch.
    machine : kit.compute.device.Machine
        Where losses are added up.

    `epoch` epochs of the phase called `phase` are done, and `step` updates of the next; `history` has a dictionary for
    each epoch that is done; `initial_updates` are those of the generator that the run began with.
    """

    def __init__(self, phases, steps_per_epoch, machine):
        self.phases, self.steps_per_epoch, self.machine = phases, steps_per_epoch, machine
        self.phase, self.epoch, self.step, self.history = phases[0].name, 0, 0, []
        self.best = []  # the highest PSNR of each picture that divergence is told by
        self.rate = None  # the generator's learning rate in the update before
        self.saved_step = 0  # of this epoch, in the state that was saved last
        self.torn = False  # whether an update was begun, and did not come to its end
        self.initial_updates, self.seconds = 0, 0  # seconds were spent on this epoch before it was last saved
        self._losses, self._sums, self._began = [], None, 0.0

    # ----------------------------------------------------------------------------------------- where it is

    @property
    def steps(self):
        """Updates since the run began: the number of the next batch. Counted through all phases, so that the second
        does not see the patches of the first again."""
        return len(self.history) * self.steps_per_epoch + self.step

    @property
    def steps_in_phase(self):
        return self.epoch * self.steps_per_epoch + self.step

    @property
    def position(self):
        """Where it is, in words."""
        total = next((phase.epochs for phase in self.phases if phase.name == self.phase), self.epoch)
        if self.step:
            return tr("{phase} at {done} of {epochs} epochs and {step} of {steps} updates", phase=self.phase,
                      done=self.epoch, epochs=total, step=self.step, steps=self.steps_per_epoch)
        return tr("{phase} at {done} of {epochs} epochs", phase=self.phase, done=self.epoch, epochs=total)

    @property
    def best_psnr(self):
        return max((row["psnr"] for row in self.history), default=-math.inf)

    def ahead(self):
        """The phases from the present one on, with the number of epochs that they still have to be trained."""
        names = [phase.name for phase in self.phases]
        first = names.index(self.phase) if self.phase in names else len(names)
        return [(phase, phase.epochs - (self.epoch if phase.name == self.phase else 0))
                for phase in self.phases[first:]]

    def has_passed(self, phase):
        """Whether the run has gone beyond a phase, which was trained or left out."""
        names = [phase.name for phase in self.phases]
        return (phase.name in {row["phase"] for row in self.history}
                or self.phase in names[names.index(phase.name):])

    def unfinished_before(self, phase):
        """The first phase that has to be trained before this one, or None."""
        names = [phase.name for phase in self.phases]
        current = find_phase(self.phases, self.phase)
        if self.step > 0 or self.epoch < current.epochs:
            return current
        between = self.phases[names.index(self.phase) + 1 : names.index(phase.name)]
        return next((other for other in between if other.epochs), None)

    def outcome(self, phase):
        """How the run stands after this phase has ended or was stopped: "finished" or "stopped"."""
        later = any(later.epochs for later in self.phases[self.phases.index(phase) + 1 :])
        return "finished" if self.epoch >= phase.epochs and not later else "stopped"

    def waiting(self):
        """The phases that still have to be trained, the present one among them."""
        return [phase for phase, epochs in self.ahead() if epochs > 0]

    def learning_rate(self, phase):
        """The learning rate of the next update."""
        updates = max(phase.epochs * self.steps_per_epoch - 1, 1)
        return scheduled(phase.learning_rate, phase.schedule, min(self.steps_in_phase, updates) / updates)

    def last_rate(self, phase):
        """The learning rate of the update before, whatever an epoch function made of it."""
        return self.learning_rate(phase) if self.rate is None else self.rate

    def check_whole(self):
        """Raise ValueError where an update was broken off: networks are between two updates then."""
        if self.torn:
            raise ValueError("an update of this trainer was broken off, so it cannot go on; make it again, trainer = "
                             "solver.Trainer(cfg), which goes on from where the run was last saved")

    # -------------------------------------------------------------------------------------------- counting

    def begin_phase(self, phase):
        self.phase, self.epoch, self.rate = phase.name, 0, None

    def start_clock(self):
        """Begin to time an epoch, or go on with it."""
        self._began = time.monotonic() - self.seconds

    def elapsed(self):
        return time.monotonic() - self._began

    def count(self, losses, phase):
        """Count an update and add its losses up, on the device.

        Raises ValueError for anything but a dictionary of single numbers, the same ones each time.
        """
        try:
            names = list(losses) if self._sums is None else self._losses
            if losses.keys() != set(names):
                raise ValueError(f"in the updates before they were {', '.join(names)}")
            if taken := losses.keys() & {*FIRST_COLUMNS, *LAST_COLUMNS}:
                raise ValueError(f"{min(taken)!r} is another column of the history")
            values = torch.stack([torch.as_tensor(losses[name], dtype=torch.float32, device=self.machine.device)
                                  for name in names]).detach()
            if self._sums is None:
                self._losses = names
                self._sums = torch.zeros(len(losses), dtype=torch.float64, device=self.machine.float64_device)
            self._sums += values.to(self._sums.device)
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"phase {phase.name!r}: its epoch function must yield a dictionary of losses, the same "
                             f"single numbers each time, not {losses!r} ({error})") from error
        self.step += 1

    def mean_losses(self, shared=False):
        """The mean losses of the epoch so far, name → number; if `shared`, of all processes, which then meet here."""
        if self._sums is None:
            return {}
        sums = self._shared_sums() if shared else self._sums
        return dict(zip(self._losses, (sums / max(self.step, 1)).tolist()))

    def _shared_sums(self):
        return self.machine.all_reduce(self._sums) / self.machine.world

    def end_epoch(self, row, judged):
        self.history.append(row)
        self.best = list(map(max, self.best, judged)) if len(self.best) == len(judged) else judged
        self.epoch, self.step, self.saved_step, self.seconds, self._sums = self.epoch + 1, 0, 0, 0, None

    # ------------------------------------------------------------------------------------- saved and loaded

    def to_save(self):
        """What a saved state has of it; several processes meet here."""
        sums = None if self._sums is None else dict(zip(self._losses, self._shared_sums().tolist()))
        self.seconds = self.elapsed() if self.step else 0
        return {"phase": self.phase, "epoch": self.epoch, "step": self.step, "history": self.history,
                "initial_updates": self.initial_updates, "sums": sums, "seconds": self.seconds,
                "best": self.best, "rate": self.rate}

    def load(self, saved):
        """Stand where a saved state was."""
        self.phase, self.epoch, self.step, self.history = (saved[k] for k in ("phase", "epoch", "step", "history"))
        self.initial_updates = saved.get("initial_updates", saved.get("begun_after", 0))
        self.seconds, self.saved_step = saved.get("seconds", 0), self.step
        self.rate = saved.get("rate")
        self.best = saved.get("best", [])
        sums = saved["sums"]
        if sums is not None:
            sums = sums if isinstance(sums, dict) else dict(zip(FIRST_LOSSES, sums))
            self._losses = list(sums)
            self._sums = torch.tensor(list(sums.values()), dtype=torch.float64, device=self.machine.float64_device)
