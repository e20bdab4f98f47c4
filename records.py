"""What trained each epoch of a run: recorded with it, compared when the run is resumed, carried along by a fork.

A *record* is a list of stretches, each so many epochs in a row that were trained in the same way: the phase, the
number of its first epoch, what its epochs hang on (`trained_by`), how many were planned, all settings, and the source
of the epoch function.
"""

import inspect
from pathlib import Path

import recipes
from runs import Run, names
from utils import did_you_mean

# What every update of every phase hangs on, and every validation.
EVERYWHERE = ["adam_eps", "clip_gradients", "ema_decay", "valid_list", "valid_pictures"]


def trained_by(phase, cfg, extras):
    """What the epochs of a phase hang on, but for their number: a dictionary from what a user sets to its value."""
    asked = inspect.signature(phase.epoch).parameters
    settings = [name for name in asked if name in cfg]
    if "discriminator" in asked:
        settings += ["discriminator_rate"] + ["vgg_normalise", "vgg_size"] * (cfg.discriminator == "features")
    settings += [name for extra in asked if extra in extras for name in extras[extra].settings]
    own = {f"{name} of the epoch function": repr(parameter.default) for name, parameter in asked.items()
           if name not in cfg and parameter.default is not parameter.empty}
    function = getattr(phase.epoch, "func", phase.epoch)  # (a functools.partial gives some of the arguments)
    return {named(phase, "lr", cfg): phase.learning_rate, named(phase, "schedule", cfg): phase.schedule,
            "the epoch function": function.__name__, **own, **{name: cfg[name] for name in EVERYWHERE + settings}}


def named(phase, what, cfg):
    """How a user sets the "epochs", the "schedule" or the learning rate ("lr") of a phase."""
    name = f"{phase.name}_{what}"
    field = "learning_rate" if what == "lr" else what
    return name if name in cfg else f"the {field} of the phase {phase.name!r}"


def stretch(phase, epoch, cfg, extras):
    """The stretch that begins with this epoch of a phase (the first is 1)."""
    try:
        source = inspect.getsource(getattr(phase.epoch, "func", phase.epoch))
    except (OSError, TypeError):  # typed into a terminal
        source = ""
    return {"phase": phase.name, "first_epoch": epoch, "planned_epochs": phase.epochs,
            "trained_by": trained_by(phase, cfg, extras), "settings": dict(cfg), "source": source}


def extended(record, new):
    """A record with a stretch that begins now; nothing is added when it goes on as before."""
    record = [old for old in record if old["phase"] != new["phase"] or old["first_epoch"] < new["first_epoch"]]
    same = record and all(_what_matters(record[-1]).get(key) == value for key, value in _what_matters(new).items())
    return record if same else [*record, new]


def _what_matters(stretch):
    """A stretch without the number of its first epoch, and without settings of what is kept."""
    settings = {name: value for name, value in stretch["settings"].items()
                if name not in recipes.SECTIONS["what is kept"] and name not in recipes.SECTIONS["run"]}
    return {**{key: value for key, value in stretch.items() if key != "first_epoch"}, "settings": settings}


def to_be_read(record, history):
    """A record for `settings.json`: every stretch also has its last epoch."""
    rows = []
    for old, following in zip(record, [*record[1:], None]):
        last = max((row["epoch"] for row in history if row["phase"] == old["phase"]), default=0)
        if following and following["phase"] == old["phase"]:
            last = following["first_epoch"] - 1
        rows.append({"phase": old["phase"], "first_epoch": old["first_epoch"], "last_epoch": last,
                     **{key: value for key, value in old.items() if key not in ("phase", "first_epoch")}})
    return rows


# ------------------------------------------------------------------------------ may these settings go on?


def check_unchanged(state, phases, cfg, extras):
    """Raise ValueError when these settings and phases do not go with what a run, saved as `state`, was trained by."""
    old, name = state["settings"], cfg.name
    for setting, value in recipes.fixed(cfg).items():
        if old.get(setting, recipes.SETTINGS[setting].paper) != value:
            raise ValueError(f"run {name!r} was begun with {setting} = {old.get(setting)!r}, not {value!r}; all its "
                             f"epochs hang on it: put it back, or choose a new name: cfg.name = "
                             f"{free_name(name, cfg.runs)!r}")
    valid, reason = _still_valid(state, phases, cfg, extras)
    if reason:
        new, kept = free_name(name, cfg.runs), " and ".join(valid)
        raise ValueError(
            f"run {name!r}: {reason}. Put it back, or choose a new name: "
            + (f'cfg.name, cfg.fork_of = "{new}", "{name}" starts it with a copy of what is still valid, its {kept}'
               if valid else f'cfg.name = "{new}"'))


def forked(cfg, phases, extras):
    """What a new run with these settings can take over from the run `cfg.fork_of`: (its Run, its phases, their state).

    As many of its phases, from the first on, as these settings would train in the same way; without any, the third
    is why. Raises ValueError when there is no such run.
    """
    other = Run(cfg.fork_of, cfg.runs)
    last = other.load_state()
    if not last:
        raise ValueError(f"fork_of: there is no run {cfg.fork_of!r} in {cfg.runs}"
                         f"{did_you_mean(cfg.fork_of, names(cfg.runs))}")
    for setting, value in recipes.fixed(cfg).items():
        old = last["settings"].get(setting, recipes.SETTINGS[setting].paper)
        if setting != "fork_of" and old != value:
            return other, [], f"it was begun with {setting} = {old!r}, not {value!r}"
    valid, reason = _still_valid(last, phases, cfg, extras)
    if not valid:
        return other, [], reason
    state = last if valid[-1] == last["phase"] else other.load_state(f"{valid[-1]}_end")
    return other, valid, state or f"it kept no state of the end of its {valid[-1]}"


def _still_valid(state, phases, cfg, extras):
    """The phases of a saved run that these settings and phases would train in the same way, and why not more."""
    trained, record, valid = {}, state.get("record", []), []
    for row in state["history"]:
        trained[row["phase"]] = int(row["epoch"])
    if state["step"]:
        trained.setdefault(state["phase"], 0)
    for phase in phases:
        if phase.name not in trained:
            continue
        count, over = trained[phase.name], phase.name != state["phase"]
        old = [stretch for stretch in record if stretch["phase"] == phase.name][-1:]
        now = trained_by(phase, cfg, extras)
        for setting, value in _trained_by_then(old[0], now.keys()).items() if old else ():
            if now.get(setting, value) != value:
                return valid, (f"its {phase.name} was trained with {setting} = {value!r}, not {now[setting]!r}")
        epochs = named(phase, "epochs", cfg)
        if phase.epochs < count:
            return valid, f"{count} epochs of its {phase.name} are trained, and {epochs} = {phase.epochs} are fewer"
        valid.append(phase.name)
        if over and phase.epochs > count:
            return valid, (f"its {phase.name} ended after {count} epochs, and its {state['phase']} has begun, so "
                           f"{epochs} = {phase.epochs} comes too late")
    return valid, None


def _trained_by_then(stretch, names):
    """What a stretch was trained by; what the kit of that day did not know is as in the paper."""
    unknown = names & recipes.SETTINGS.keys() - stretch["settings"].keys()
    return {**stretch["trained_by"], **{name: recipes.SETTINGS[name].paper for name in unknown}}


def free_name(name, runs):
    """A name like this one that no run has yet: demo_2, demo_3, …"""
    base, _, number = name.rpartition("_")
    base, first = (base, int(number) + 1) if base and number.isdigit() else (name, 2)
    return next(f"{base}_{i}" for i in range(first, 10**6) if not Path(runs, f"{base}_{i}").exists())
