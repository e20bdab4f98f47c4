"""What trained each epoch of a run: recorded with it, compared when the run is resumed, carried along by a fork.

A *record* is a list of segments, each so many epochs in a row that were trained in the same way: the phase, the
number of its first epoch, what its epochs hang on (`trained_by`), how many were planned, all settings, the source of
the epoch function, and the digests of all code of the user's that it and the networks consist of (`code`).
"""

import hashlib
from pathlib import Path

from kit.console import did_you_mean
from kit.files import is_portable
from kit.runs.code import code_of, former_digest, is_own, lasting, source_of, told
from kit.runs.folder import Run
from kit.runs.history import run_names
from kit.settings.schema import SECTIONS, SETTINGS, fixed

# What every update of every phase hangs on, and every validation.
EVERYWHERE = ["adam_beta1", "adam_beta2", "adam_eps", "clip_gradients", "ema_decay", "valid_list", "valid_pictures"]


# The kit's own epoch functions, as they stand and as earlier versions had them with other names inside: the first
# digits of the SHA-256 of their sources. They compute the same.
KIT_SOURCES = {
    "8a20c1c6990d", "81fafdedc4fb", "e19f1a8729d3",  # warmup_epoch
    "4dc03e03c6aa", "0f80a9ba0e06", "eea54a490885", "2fd14ffdd3fb", "bc626e306e23",  # alternating_epoch
    "3b18f9bc6994", "f1bfe08f3fe7", "44bf8cbad0ce", "88fb6d48eb8b", "8ccfe41f9798",  # simultaneous_epoch
}
# What `code_of` gives of the kit's own functions, classes and constants, today's and those of earlier versions that
# compute the same: name → digests; None where a version has no such thing and computes the same without.
KIT_CODE = {
    "Discriminator": {"0eabc91168ea", "6723ed1e64a6"}, "FeatureDiscriminator": {"6bae9ac3b748"},
    "Generator": {"547b9fdfa78f"}, "HighFrequencyInput": {"707fac6f8ae6"}, "ResidualBlock": {"ea183338160a"},
    "SameConv2d": {"9d86f0c91e6a"}, "StridedDiscriminator": {"7093bef17ab4"}, "adversarial_loss": {"1ef45da54258"},
    "alternating_epoch": {"3d3436d45697", "e1b08f500c88"}, "conv": {"3d3077499deb"},
    "discriminator_loss": {"5f3f67306205"}, "flat_mse_loss": {None, "649ee5dd1c66"}, "lazy_r1": {"95ef47bf41a4"},
    "lr_consistency_loss": {"7fd19249b3f2"},
    "make_content_loss": {"c9b310ce1007", "04638d9c8aed", "a75f3ccf2a0b", "711f6f1b5156", "b601411997a7"},
    "make_discriminator": {"8c6c7722e3e9"}, "make_generator": {"658d4e9bb574"}, "mesh_mse_loss": {None, "b48b5de232d9"},
    "mse_loss": {"fe39bb23c51b"}, "probability": {"a1d24fe6181d"}, "r1_penalty": {"a3dc5f4e91ff"},
    "simultaneous_epoch": {"9d464437faac", "dd9957b8c3d0"}, "vgg_loss": {"60ade71dd808", "1304781187b1", None},
    "vgg_losses": {None, "a36ad9217550"}, "warmup_epoch": {"260f0c9a952e"},
}


def trained_by(phase, cfg, extras):
    """What the epochs of a phase hang on, but for their number: a dictionary from what a user sets to its value."""
    own = {name: parameter.default for name, parameter in phase.parameters.items()
           if name not in cfg and parameter.default is not parameter.empty} | phase.given
    own = {f"{name} of the epoch function": told(value) for name, value in own.items()}
    values = phase.settings(cfg)
    return {named(phase, "lr", cfg): phase.learning_rate, named(phase, "schedule", cfg): phase.schedule_text,
            "the epoch function": phase.function.__name__, **own,
            **{name: values[name] for name in EVERYWHERE + phase.hangs_on(cfg, extras)}}


def named(phase, what, cfg):
    """How a user sets the "epochs", the "schedule" or the learning rate ("lr") of a phase."""
    name = f"{phase.name}_{what}"
    field = "learning_rate" if what == "lr" else what
    return name if name in cfg else f"the {field} of the phase {phase.name!r}"


def code(phase, extras, makers, told_by=None):
    """The digests of what makes the updates of a phase; `makers` are the functions by networks: name → function."""
    made = {**makers, **{name: extra.make for name, extra in extras.items()}}
    return code_of(phase.function, *filter(is_own, phase.given.values()),
                   *(make for name, make in made.items() if name in phase.parameters), told_by=told_by)


def segment(phase, epoch, cfg, extras, makers):
    """The segment that begins with this epoch of a phase (the first is 1)."""
    try:
        source = source_of(phase.function)
    except (OSError, TypeError):  # typed into a terminal
        source = ""
    return {"phase": phase.name, "first_epoch": epoch, "planned_epochs": phase.epochs,
            "trained_by": trained_by(phase, cfg, extras), "settings": dict(phase.settings(cfg)), "source": source,
            "code": code(phase, extras, makers)}


def extended(record, new):
    """A record with a segment that begins now; nothing is added when it goes on as before."""
    record = [old for old in record if old["phase"] != new["phase"] or old["first_epoch"] < new["first_epoch"]]
    same = record and all(_what_matters(record[-1]).get(key) == value for key, value in _what_matters(new).items())
    return record if same else [*record, new]


def _what_matters(segment):
    """A segment without its first epoch, digests, and settings of what is kept; the kit's own sources as one."""
    settings = {name: value for name, value in segment["settings"].items()
                if name not in SECTIONS["what is kept"] and name not in SECTIONS["run"]}
    source = segment.get("source", "")  # (missing in the oldest records)
    if hashlib.sha256(source.encode()).hexdigest()[:12] in KIT_SOURCES:
        source = "the kit's"
    rest = {key: value for key, value in segment.items() if key not in ("first_epoch", "code")}
    return {**rest, "settings": settings, "source": source}


def to_be_read(record, history):
    """A record for `settings.json`: every segment also has its last epoch."""
    rows = []
    for old, following in zip(record, [*record[1:], None]):
        last = max((row["epoch"] for row in history if row["phase"] == old["phase"]), default=0)
        if following and following["phase"] == old["phase"]:
            last = following["first_epoch"] - 1
        rows.append({"phase": old["phase"], "first_epoch": old["first_epoch"], "last_epoch": last,
                     **{key: value for key, value in old.items() if key not in ("phase", "first_epoch")}})
    return rows


def check_unchanged(state, phases, cfg, extras, makers):
    """Raise ValueError when these settings and phases do not go with what a run, saved as `state`, was trained by."""
    old, name = state["settings"], cfg.name
    for setting, value in fixed(cfg).items():
        if setting == "train_list" and "data" in state:
            continue  # it may have been moved with its pictures, which the digest tells
        if old.get(setting, SETTINGS[setting].paper) != value:
            raise ValueError(f"run {name!r} was begun with {setting} = {old.get(setting)!r}, not {value!r}; all its "
                             f"epochs hang on it: put it back, or choose a new name: cfg.name = "
                             f"{free_name(name, cfg.runs)!r}")
    valid, reason = _still_valid(state, phases, cfg, extras, makers, may_have_moved=True)
    if reason:
        new, kept = free_name(name, cfg.runs), " and ".join(valid)
        raise ValueError(
            f"run {name!r}: {reason}. Put it back, or choose a new name: "
            + (f'cfg.name, cfg.fork_of = "{new}", "{name}" starts it with a copy of what is still valid, its {kept}'
               if valid else f'cfg.name = "{new}"'))


def forked(cfg, phases, extras, makers):
    """What a new run with these settings can take over from the run `cfg.fork_of`: (its Run, its phases, their state).

    As many of its phases, from the first on, as these settings would train in the same way; without any, the third
    is why. Raises ValueError when there is no such run.
    """
    other = Run(cfg.fork_of, cfg.runs)
    last = other.load_state()
    if not last:
        raise ValueError(f"fork_of: there is no run {cfg.fork_of!r} in {cfg.runs}"
                         f"{did_you_mean(cfg.fork_of, run_names(cfg.runs))}")
    for setting, value in fixed(cfg).items():
        old = last["settings"].get(setting, SETTINGS[setting].paper)
        if setting != "fork_of" and old != value:
            return other, [], f"it was begun with {setting} = {old!r}, not {value!r}"
    valid, reason = _still_valid(last, phases, cfg, extras, makers)
    if not valid:
        return other, [], reason
    state = last if valid[-1] == last["phase"] else other.load_state(f"{valid[-1]}_end")
    return other, valid, state or f"it kept no state of the end of its {valid[-1]}"


def _still_valid(state, phases, cfg, extras, makers, may_have_moved=False):
    """The phases of a saved run that these settings and phases would train in the same way, and why not more.

    Pictures that `may_have_moved` are told by their digest, which the state has, and not by the name of their list.
    """
    trained, record, valid = {}, state.get("record", []), []
    for row in state["history"]:
        trained[row["phase"]] = int(row["epoch"])
    if state["step"]:
        trained.setdefault(state["phase"], 0)
    for phase in phases:
        if phase.name not in trained:
            continue
        count, over = trained[phase.name], phase.name != state["phase"]
        old = [segment for segment in record if segment["phase"] == phase.name][-1:]
        # (Older kits gave an epoch function the setting, whatever a functools.partial said.)
        now = {**{name: value for name, value in phase.given.items() if name in cfg}, **trained_by(phase, cfg, extras)}
        for setting, value in _trained_by_then(old[0], now.keys()).items() if old else ():
            if may_have_moved and setting == "valid_list" and "validation" in state:
                continue
            if now.get(setting, value) != (lasting(value) if isinstance(value, str) else value):
                return valid, (f"its {phase.name} was trained with {setting} = {value!r}, not {now[setting]!r}")
        if different := _different_code(old[0].get("code") if old else None, phase, extras, makers):
            return valid, (f"the code of its {phase.name} differs from what trained its epochs 1 to {count}: "
                           f"{', '.join(different)}")
        epochs = named(phase, "epochs", cfg)
        if phase.epochs < count:
            return valid, f"{count} epochs of its {phase.name} are trained, and {epochs} = {phase.epochs} are fewer"
        valid.append(phase.name)
        if over and phase.epochs > count:
            return valid, (f"its {phase.name} ended after {count} epochs, and its {state['phase']} has begun, so "
                           f"{epochs} = {phase.epochs} comes too late")
    return valid, None


def _different_code(old, phase, extras, makers):
    """The names of functions, classes and constants that a phase is made of now, and was made of otherwise then."""
    if not old:  # the kit of that day did not record it
        return []
    now = code(phase, extras, makers)
    if not now:
        return []
    # What has a dot was not looked at by older kits; what uses it now, and did not then, is told by its own digest.
    now = {name: digest for name, digest in now.items() if name in old or "." not in name}
    other = [name for name in {*old, *now} if old.get(name) != now.get(name)
             and not {old.get(name), now.get(name)} <= KIT_CODE.get(name.rpartition(".")[2], set())]
    then = code(phase, extras, makers, former_digest) if other else {}  # what they would have been told by
    return sorted(name for name in other if old.get(name) != then.get(name))


def _trained_by_then(segment, names):
    """What a segment was trained by; what the kit of that day did not know is as in the paper."""
    unknown = names & SETTINGS.keys() - segment["settings"].keys()
    return {**segment["trained_by"], **{name: SETTINGS[name].paper for name in unknown}}


def check_name_is_new(cfg):
    """Raise ValueError for a new run whose name not every system takes, or differs only in case from another's."""
    if not is_portable(cfg.name):
        raise ValueError(f"a new run cannot be called {cfg.name!r}: its name must have 100 letters at most, not end in "
                         f"'.', and be none that Windows keeps for devices")
    other = next((name for name in run_names(cfg.runs) if name.lower() == cfg.name.lower() and name != cfg.name), None)
    if other:
        raise ValueError(f"there is a run {other!r} already, and on Windows and macOS {cfg.name!r} would be its "
                         f"folder; choose another name, such as {free_name(cfg.name, cfg.runs)!r}")


def free_name(name, runs):
    """A name like this one that no run and no search has yet: demo_2, demo_3, …"""
    base, _, number = name.rpartition("_")
    base, first = (base, int(number) + 1) if base and number.isdigit() else (name, 2)
    names = (f"{base}_{i}" for i in range(first, 10**6))
    return next(name for name in names if not any(Path(runs, name + end).exists() for end in ("", ".sqlite")))
