"""The phases of a run: what they are, what their epoch functions ask for, and the course of their learning rates."""

import inspect
import math
import re
from collections import namedtuple

from kit.console import did_you_mean
from kit.settings.schema import SCHEDULE

# What an epoch function can ask for beside networks, batches and settings: `make(cfg, machine)`, and the names of
# the settings that it hangs on.
Extra = namedtuple("Extra", "make settings")


class Phase(namedtuple("Phase", "name epoch epochs learning_rate schedule", defaults=["constant"])):
    """A part of a run: its name, its epoch function, how many epochs, the learning rate and its course.

    The epoch function goes once through its batches, makes an update for each, and yields its losses; see `solver.py`.
    It gets what it asks for by the names of its parameters.
    """

    @property
    def function(self):
        """The epoch function itself, where a functools.partial gives some of its arguments."""
        return getattr(self.epoch, "func", self.epoch)

    @property
    def parameters(self):
        """What the epoch function asks for: name → inspect.Parameter."""
        return inspect.signature(self.epoch).parameters

    def asks_for(self, name):
        """Whether something is needed: that the phase has epochs, and that they ask for it."""
        return self.epochs > 0 and name in self.parameters

    def arguments(self, cfg, offered):
        """What the epoch function is called with, but for its batches: of what is `offered`, and of the settings."""
        return {name: offered[name] if name in offered else cfg[name]
                for name in self.parameters if name in offered or name in cfg}

    def losses(self, arguments, batches):
        """What the epoch function yields, if it does; else raises ValueError."""
        steps = self.epoch(**arguments, batches=batches)
        if not hasattr(steps, "__next__"):
            raise ValueError(f"phase {self.name!r}: its epoch function must yield its losses after each update, such "
                             f'as yield {{"content_loss": loss}}')
        return steps


def find_phase(phases, name):
    """The phase of this name. Raises ValueError when there is none."""
    names = [phase.name for phase in phases]
    if name not in names:
        raise ValueError(f"there is no phase {name!r} here, but {', '.join(names)}{did_you_mean(name, names)}; make "
                         f"the trainer with phases=[*solver.default_phases(cfg), …]")
    return phases[names.index(name)]


def check_phases(phases, cfg, extras):
    """Raise ValueError for a phase whose name, schedule or epoch function cannot work.

    `extras` are the names of what epoch functions can ask for beside networks, batches and settings.
    """
    if not all(isinstance(phase, Phase) and callable(phase.epoch) for phase in phases):
        raise ValueError("phases must be a list of solver.Phase(name, function, epochs, learning_rate)")
    names, known = [phase.name for phase in phases], ["generator", "discriminator", "batches", *extras]
    for phase in phases:
        if not re.fullmatch(r"[a-z]\w*?(?<!\d)", phase.name) or names.count(phase.name) > 1:
            raise ValueError(f"phase {phase.name!r}: needs a name of its own, of small letters, digits and '_', "
                             f"with a letter at both ends")
        if not SCHEDULE.holds(phase.schedule):
            raise ValueError(f"phase {phase.name!r}: its schedule must be {SCHEDULE.wanted}, not {phase.schedule!r}")
        for name, parameter in phase.parameters.items():
            if name not in known and name not in cfg and parameter.default is parameter.empty:
                raise ValueError(f"phase {phase.name!r}: its epoch function asks for {name!r}; it can have "
                                 f"{', '.join(known)}, and every setting")


def scheduled(peak, schedule, progress):
    """The learning rate at `progress` (0…1) of a phase.

    "constant"; "step": a tenth in the second half (the paper's adversarial training); "one_cycle":
    up from peak/25 within the first 30 %, then down to almost zero, both as half a cosine (Smith &
    Topin, arXiv 1708.07120), which gets most out of few updates.
    """
    if schedule == "constant":
        return peak
    if schedule == "step":
        return peak if progress < 0.5 else peak / 10
    least, t = (peak / 25, progress / 0.3) if progress < 0.3 else (peak / 1e5, (1 - progress) / 0.7)
    return least + (peak - least) * (1 - math.cos(math.pi * t)) / 2
