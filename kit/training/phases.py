"""The phases of a run: what they are, what their epoch functions ask for, and the course of their learning rates."""

import inspect
import math
import re
from collections import namedtuple
from functools import partial

from kit.console import did_you_mean
from kit.files import is_portable
from kit.language import tr
from kit.settings.schema import COUNT_0, POSITIVE, SCHEDULE, checked, fixed, plain

# What an epoch function can ask for beside networks, batches and settings: `make(cfg, machine)`, and the names of
# the settings that it hangs on.
Extra = namedtuple("Extra", "make settings")

# Names of files and folders of a run, see kit/runs/folder.py.
RESERVED = {"last", "last_epoch", "input", "original"}


# The optimizers that an epoch function can ask for, to call them itself, and of which network each is.
OPTIMIZERS = {"g_optimizer": "generator", "d_optimizer": "discriminator"}


class Phase(namedtuple("Phase", "name epoch epochs learning_rate schedule changes", defaults=["constant", None])):
    """A part of a run: its name, its epoch function, how many epochs, the learning rate and its course.

    The epoch function goes once through its batches, makes an update for each, and yields its losses; see `solver.py`.
    It gets what it asks for by the names of its parameters. The course of the learning rate is a name, see `scheduled`,
    or a function of one's own: how much of the phase is done, 0…1 → factor. `changes` are settings, of those that its
    updates hang on, that are others here than in the rest of the run: {"adversarial_weight": 1e-2}.
    """

    @property
    def function(self):
        """The epoch function itself, where a functools.partial gives some of its arguments."""
        return getattr(self.epoch, "func", self.epoch)

    @property
    def schedule_text(self):
        """The course of the learning rate as it is recorded: its name, or of a function eleven factors."""
        if isinstance(self.schedule, str):
            return self.schedule
        return "of factors " + ", ".join(f"{self.schedule(i / 10):.4g}" for i in range(11))

    @property
    def parameters(self):
        """What the epoch function asks for: name → inspect.Parameter."""
        given = self.given
        return {name: parameter for name, parameter in inspect.signature(self.epoch).parameters.items()
                if name not in given}

    @property
    def given(self):
        """What a functools.partial gives to the epoch function: name → value."""
        if not isinstance(self.epoch, partial):
            return {}
        return inspect.signature(self.function).bind_partial(*self.epoch.args, **self.epoch.keywords).arguments

    def asks_for(self, name):
        """Whether something is needed: that the phase has epochs, and that they ask for it."""
        return self.epochs > 0 and name in self.parameters

    def settings(self, cfg):
        """The settings of its run, with what it changes."""
        return type(cfg)({**cfg, **(self.changes or {})})

    def hangs_on(self, cfg, extras):
        """The names of the settings that its updates hang on, beside those that all updates of all phases do."""
        names = [name for name in self.parameters if name in cfg]
        if "discriminator" in self.parameters:
            names.append("discriminator_rate")
            if cfg.discriminator == "features":
                names += ["vgg_normalise", "vgg_size"]
        return names + [name for extra in self.parameters if extra in extras for name in extras[extra].settings]

    def arguments(self, cfg, offered):
        """What the epoch function is called with, but for its batches: of what is `offered`, and of the settings."""
        cfg = self.settings(cfg)
        return {name: offered[name] if name in offered else cfg[name]
                for name in self.parameters if name in offered or name in cfg}

    def losses(self, arguments, batches):
        """What the epoch function yields, if it does; else raises ValueError."""
        steps = self.epoch(**arguments, batches=batches)
        if not hasattr(steps, "__next__"):
            raise ValueError(f"phase {self.name!r}: its epoch function must yield its losses after each update, such "
                             f'as yield {{"content_loss": loss}}')
        return steps


class Made:
    """What epoch functions ask for beside networks, batches and settings; made once for phases of equal settings.

    That of `phases` is made at once, so that what cannot be made is told before they are trained.
    """

    def __init__(self, extras, cfg, machine, phases):
        self.extras, self.cfg, self.machine, self._made = extras, cfg, machine, {}
        for phase in phases:
            self.of(phase)

    def of(self, phase):
        """What the epoch function of a phase asks for: name → what was made. Raises what making it raises."""
        cfg, found = phase.settings(self.cfg), {}
        for name, extra in self.extras.items():
            if name not in phase.parameters:
                continue
            key = (name, *(cfg[setting] for setting in extra.settings))
            if key not in self._made:
                self._made[key] = extra.make(cfg, self.machine)
            found[name] = self._made[key]
        return found


def find_phase(phases, name):
    """The phase of this name. Raises ValueError when there is none."""
    names = [phase.name for phase in phases]
    if name not in names:
        raise ValueError(f"there is no phase {name!r} here, but {', '.join(names)}{did_you_mean(name, names)}; make "
                         f"the trainer with phases=[*solver.default_phases(cfg), …]")
    return phases[names.index(name)]


def with_plain_numbers(phases):
    """The same phases, their numbers as Python's."""
    return [phase._replace(epochs=plain(phase.epochs), learning_rate=plain(phase.learning_rate))
            if isinstance(phase, Phase) else phase for phase in phases]


def check_phases(phases, cfg, extras):
    """Raise ValueError for a phase whose name, numbers, schedule, epoch function or changes cannot work.

    `extras` is what epoch functions can ask for beside networks, batches and settings: name → Extra.
    """
    if not all(isinstance(phase, Phase) and hasattr(phase.function, "__name__") for phase in phases):
        raise ValueError("phases must be a list of solver.Phase(name, function, epochs, learning_rate)")
    names, known = [phase.name for phase in phases], ["generator", "discriminator", "batches", *OPTIMIZERS, *extras]
    for phase in phases:
        name_is_plain = re.fullmatch(r"(?!\d|_)\w+", phase.name) and phase.name == phase.name.lower()
        if names.count(phase.name) > 1 or not name_is_plain:
            raise ValueError(f"phase {phase.name!r}: needs a name of its own, of small letters, digits and '_', "
                             f"that begins with a letter")
        if phase.name in RESERVED or re.fullmatch(r".*_(\d{3,}|best|end)", phase.name) or not is_portable(phase.name):
            raise ValueError(f"phase {phase.name!r}: needs another name, for files of a run cannot be, or are, called "
                             f"so")
        for field, check in ("epochs", COUNT_0), ("learning_rate", POSITIVE):
            if not check.holds(getattr(phase, field)):
                raise ValueError(f"phase {phase.name!r}: its {field} must be {check.wanted}, not "
                                 f"{getattr(phase, field)!r}; a phase is Phase(name, function, epochs, learning_rate)")
        if not SCHEDULE.holds(phase.schedule) and not _is_course(phase.schedule):
            raise ValueError(f"phase {phase.name!r}: its schedule must be {SCHEDULE.wanted}, or a function from 0…1 to "
                             f"a factor of the learning rate, not {phase.schedule!r}")
        for optimizer, network in OPTIMIZERS.items():
            if optimizer in phase.parameters and network not in phase.parameters:
                raise ValueError(f"phase {phase.name!r}: its epoch function asks for {optimizer}, and not for the "
                                 f"{network}")
        for name, parameter in phase.parameters.items():
            if name not in known and name not in cfg and parameter.default is parameter.empty:
                raise ValueError(f"phase {phase.name!r}: its epoch function asks for {name!r}; it can have "
                                 f"{', '.join(known)}, and every setting")
        _check_changes(phase, cfg, extras)


def _check_changes(phase, cfg, extras):
    """Raise ValueError for changes of a phase that have no meaning, or that its updates would not notice."""
    can = [name for name in dict.fromkeys(phase.hangs_on(cfg, extras)) if name not in fixed(cfg)]
    try:
        for name in phase.changes or ():
            if name not in can:
                raise ValueError(f"{name!r} cannot be changed in it{did_you_mean(name, can)}; its updates hang on "
                                 f"{', '.join(can) or 'no setting'}")
        checked(phase.settings(cfg))
    except ValueError as error:
        raise ValueError(f"phase {phase.name!r}: {error}") from error


def _is_course(schedule):
    """Whether a schedule is a function from 0…1 to a factor."""
    try:
        return all(0 <= float(schedule(i / 10)) < math.inf for i in range(11))
    except Exception:  # whatever somebody's function raises
        return False


def settle_precision(phases, machine, may_change, say):
    """See that phases which call optimizers themselves do not train in fp16: its losses must be scaled, as `descend`
    does, else small gradients vanish. Raises ValueError where the precision may not change.
    """
    own = [phase.name for phase in phases if phase.epochs and not OPTIMIZERS.keys().isdisjoint(phase.parameters)]
    if own and machine.precision == "fp16":
        if not may_change:
            raise ValueError(f"phase {own[0]!r} calls its optimizers itself, so nothing scales its losses as fp16 "
                             f"needs it: set precision to 'fp32' or 'bf16', or make its updates by descend(loss)")
        machine.set_precision("fp32")
        say(tr("phase {phase!r} calls its optimizers itself, so nothing scales its losses as fp16 needs it: it trains "
               "in fp32", phase=own[0]))


def scheduled(peak, schedule, progress):
    """The learning rate at `progress` (0…1) of a phase.

    "constant"; "step": a tenth in the second half (the paper's adversarial training); "cosine": half a cosine down to
    zero (arXiv 1608.03983); "one_cycle": up from peak/25 within the first 30 %, then down to almost zero, both as half
    a cosine (Smith & Topin, arXiv 1708.07120), which gets most out of few updates. A function gives the factor.
    """
    if callable(schedule):
        return peak * float(schedule(progress))
    if schedule == "cosine":
        return peak * (1 + math.cos(math.pi * progress)) / 2
    if schedule == "constant":
        return peak
    if schedule == "step":
        return peak if progress < 0.5 else peak / 10
    least, t = (peak / 25, progress / 0.3) if progress < 0.3 else (peak / 1e5, (1 - progress) / 0.7)
    return least + (peak - least) * (1 - math.cos(math.pi * t)) / 2
