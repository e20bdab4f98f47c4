"""Going on with a run: its saved state, or that of the run that it forks, and whether they go with the settings."""

from contextlib import contextmanager

from kit.compute.inference import reason_of
from kit.language import tr
from kit.runs import provenance
from kit.training.phases import scheduled


def open_saved(run, phases, cfg, extras, makers, say, machine):
    """The saved state of a run, or of the run that it forks, and what is to be copied of the latter.

    Returns (saved, forked): a dictionary, or None for a new run; and None, or what `Run.copy_phases` takes.
    Raises ValueError for settings that do not go with what was trained.
    """
    with _resuming(run):  # of several machines perhaps only the first has the folder
        return machine.broadcast(lambda: _open(run, phases, cfg, extras, makers, say))


def _open(run, phases, cfg, extras, makers, say):
    saved = run.load_state()
    if saved:
        provenance.check_unchanged(saved, phases, cfg, extras, makers)
        old = saved["settings"]
        for name, value in cfg.items():
            if name in old and old[name] != value:
                say(tr("{name} was {old!r} and is now {new!r}", name=name, old=old[name], new=value))
        _explain_extension(saved, phases, say)
        return saved, None
    provenance.check_name_is_new(cfg)
    if not cfg.fork_of:
        return None, None
    other, kept, saved = provenance.forked(cfg, phases, extras, makers)
    if isinstance(saved, str):
        say(tr("nothing of run {run!r} is valid with these settings, so all is trained anew: {reason}", run=cfg.fork_of,
               reason=saved))
        return None, None
    return saved, (other, kept, saved)


def restore(saved, run, digests, state, networks):
    """Go on from a saved state. Raises ValueError when it does not go with the pictures or the networks.

    `digests` are those of the training and of the validation pictures, as the state has them.
    """
    with _resuming(run, ValueError, RuntimeError):
        for name, pictures in [("data", "training"), ("validation", "validation")]:
            if saved.get(name, digests[name]) != digests[name]:
                raise ValueError(f"the {pictures} pictures have changed since the run was begun: {saved[name]} then, "
                                 f"{digests[name]} now (number and CRC)")
        state.load(saved)
        networks.load(saved)


@contextmanager
def _resuming(run, *also):
    """A context in which errors, these and some others, say that the saved state does not fit."""
    try:
        yield
    except (KeyError, AttributeError, TypeError, *also) as error:
        reason = reason_of(error)
        raise ValueError(f"{run.checkpoint('last')}: cannot be resumed from ({reason}); put back the pictures, "
                         f"settings and models.py that the run was begun with, or choose another name") from error


def _explain_extension(saved, phases, say):
    """Say what it means that a phase with a schedule becomes longer than was planned."""
    planned = {segment["phase"]: segment["planned_epochs"] for segment in saved["record"]}
    for phase in phases:
        old = planned.get(phase.name, phase.epochs)
        if phase.name == saved["phase"] and phase.epochs not in (0, old) and phase.schedule != "constant":
            was, now = (scheduled(phase.learning_rate, phase.schedule, min(saved["epoch"] / epochs, 1))
                        for epochs in (old, phase.epochs))
            say(tr("its schedule, {schedule}, is stretched from {old} to {new} epochs: the learning rate, {was:.2g} so "
                   "far, goes on from {now:.2g}; a run of {new} epochs from the beginning would have had another "
                   "course", schedule=phase.schedule_text, old=old, new=phase.epochs, was=was, now=now))


def beginning_told(saved, forked, state):
    """How a run begins, in words: new, with phases of another, or resumed."""
    if forked:
        other, phases, _ = forked
        return tr("new, with {phases} of {run!r}: {position}", phases=" + ".join(phases), run=other.name,
                  position=state.position)
    return tr("resumed, {position}", position=state.position) if saved else tr("new")
