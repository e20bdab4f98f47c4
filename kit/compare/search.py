"""A search for good settings between limits, with Optuna: whoever calls it with the same settings joins in.

The study lies in `<runs>/<name>.sqlite`. Two terminals may work on it, also two machines that share a disk; for
network drives on which SQLite's locks do not hold, Optuna's documentation of storages says what to take instead.
"""

import warnings
from pathlib import Path

from easydict import EasyDict

import solver
from kit.compare.sweeps import has_ended, runs_bar
from kit.compare.tables import table
from kit.files import locked
from kit.language import tr
from kit.runs.history import read_history
from kit.runs.provenance import free_name
from kit.settings.describe import ELSEWHERE
from kit.settings.schema import SETTINGS, checked

HEARTBEAT = 30  # seconds between two signs of life of whoever trains
SILENT = 4  # so many of them without one, and its trial is begun again by another


def search(cfg, trials=20, early=True, phases=None, **ranges):
    """Train runs with settings that Optuna chooses between limits, and end in a table of them, the best first.

    The same call goes on with a search that was stopped or killed; in a second terminal it works on the same search at
    the same time. A trial of which nothing was heard for two minutes goes on in another's hands, where it was.

    Parameters
    ----------
    cfg : EasyDict
        Settings that all have in common; the runs are named after `cfg.name`, and a number. What is best is told by
        `cfg.best_by` of the last epoch.
    trials : int
        How many are trained in all, ended early or not.
    early : bool
        End a trial that stands below the median of those before it, after the same number of epochs (Optuna's
        MedianPruner). What diverges is ended in any case.
    phases : callable, optional
        cfg → list of phases, instead of `solver.default_phases`.
    ranges : dict
        Settings with (lowest, highest), whole numbers or others, or with a list of values: `warmup_lr=(1e-4, 1e-2),
        blocks=(2, 8), activation=["prelu", "relu"]`. What may be ten times as large as its lowest is looked for in its
        logarithm.

    Raises ImportError without Optuna, and ValueError for ranges that make no sense, and where a search of this name was
    begun with other settings, or looks for others.
    """
    for name, values in ranges.items():
        _check_range(cfg, name, values)
    if not ranges:
        raise ValueError("give the settings to look for with their limits, such as warmup_lr=(1e-4, 1e-2)")
    optuna, study = _optuna(), study_of(cfg, early, ranges)
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)

    with runs_bar(tr("search"), trials) as bar:
        def so_far(study, trial=None):
            bar.n = min(len(study.get_trials(deepcopy=False, states=ended)), trials)
            bar.refresh()
            if bar.n >= trials:
                study.stop()

        def judged(row):
            if cfg.best_by not in row:
                raise optuna.TrialPruned(f"its pictures have no {cfg.best_by}")
            return row[cfg.best_by]

        def objective(trial):
            chosen = {name: _suggested(trial, name, values) for name, values in ranges.items()}
            if "run" not in trial.user_attrs:  # else one that was stopped, or whose program was killed
                trial.set_user_attr("run", f"{cfg.name}-{trial.number:03}")
            one = checked(EasyDict(cfg, **chosen, name=trial.user_attrs["run"]))
            bar.set_postfix_str(one.name)
            told = 0  # epochs

            def judge(history):
                nonlocal told
                for row in history[told:]:  # the first time also those before a stop
                    trial.report(judged(row), told)
                    told += 1
                if trial.should_prune():
                    raise optuna.TrialPruned

            try:
                mine = (phases or solver.default_phases)(one)
                if not has_ended(one, mine):
                    solver.Trainer(one, mine, progress=False).train(on_epoch=judge)
                return judged(read_history(one.name, one.runs)[-1])
            except FloatingPointError as error:
                raise optuna.TrialPruned(str(error)) from error
            except KeyboardInterrupt:  # it is saved, and waits for the same call
                study.enqueue_trial(trial.params, trial.user_attrs)
                raise

        if len(study.get_trials(deepcopy=False, states=ended)) < trials:
            so_far(study)
            study.optimize(objective, callbacks=[so_far])
    return table(f"{cfg.name}-[0-9]*", sort=cfg.best_by, folder=cfg.runs)


def study_of(cfg, early=True, ranges=None):
    """Optuna's study of a search, for its own plots: `optuna.visualization.matplotlib.plot_contour(study_of(cfg))`.

    Raises ImportError without Optuna, and ValueError where it was begun with other settings than these with `ranges`.
    """
    optuna = _optuna()
    path = Path(cfg.runs, f"{cfg.name}.sqlite")
    path.parent.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with locked(path.with_suffix(".lock"), 60), warnings.catch_warnings():  # two cannot make its tables at once
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of signs of life, since 2021
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{path.resolve().as_posix()}", {"connect_args": {"timeout": 60}}, heartbeat_interval=HEARTBEAT,
            grace_period=SILENT * HEARTBEAT,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback())
        study = optuna.create_study(
            storage=storage, study_name=cfg.name, load_if_exists=True,
            direction="minimize" if cfg.best_by == "niqe" else "maximize",
            pruner=optuna.pruners.MedianPruner() if early else optuna.pruners.NopPruner())
        if ranges:
            _check_same(study, cfg, ranges)
        return study


def _check_same(study, cfg, ranges):
    """Raise ValueError where a study was begun with other settings, or looks for others; the first time note them."""
    now = {name: value for name, value in cfg.items() if name not in ELSEWHERE and name not in ranges}
    now |= {"best_by": cfg.best_by, "ranges": ", ".join(sorted(ranges))}
    if "settings" not in study.user_attrs:
        study.set_user_attr("settings", now)
    old = study.user_attrs["settings"]
    for name in now:
        if old.get(name, now[name]) != now[name]:
            raise ValueError(f"the search {cfg.name!r} was begun with {name} = {old[name]!r}, not {now[name]!r}; put "
                             f"it back, or choose a new name: cfg.name = {free_name(cfg.name, cfg.runs)!r}")


def _optuna():
    try:
        import optuna
    except ImportError as error:
        raise ImportError("a search needs Optuna 4.9 or newer: pip install optuna") from error
    if not hasattr(optuna.storages, "RetryHeartbeatStaleTrialCallback"):
        raise ImportError(f"a search needs Optuna 4.9 or newer, not {optuna.__version__}: pip install -U optuna")
    return optuna


def _check_range(cfg, name, values):
    """Raise ValueError for what no setting can be looked for in."""
    if name not in SETTINGS:
        checked(EasyDict({**cfg, name: None}))  # says what it may have meant
    numbers = isinstance(values, tuple) and len(values) == 2 and all(type(value) in (int, float) for value in values)
    if not (numbers and values[0] < values[1] or isinstance(values, list) and values):
        raise ValueError(f"{name}: a search goes through (lowest, highest), two numbers, or a list of values, not "
                         f"{values!r}")
    for value in values:
        checked(EasyDict({**cfg, name: value}))


def _suggested(trial, name, values):
    """What Optuna suggests for a setting."""
    if isinstance(values, list):
        return trial.suggest_categorical(name, values)
    low, high = values
    log = low > 0 and high >= 10 * low
    if all(type(value) is int for value in values):
        return trial.suggest_int(name, low, high, log=log)
    return trial.suggest_float(name, low, high, log=log)
