"""Which runs there are and which is looked at; their histories, records and checkpoints, as read from their folders."""

import csv
import json
from pathlib import Path

from kit.console import did_you_mean
from kit.files import write_whole
from kit.language import tr
from kit.runs.folder import Run
from kit.settings.schema import current_record

PREDICTIONS = "predictions.json"  # in the folder of all runs: what was predicted of rows of the sheet


def run_names(folder="runs"):
    """The names of all runs in a folder, the newest first."""
    histories = sorted(Path(folder).glob("*/history.csv"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.parent.name for path in histories]


def choose(name, folder="runs"):
    """Note the run that all notebooks look at."""
    with write_whole(Path(folder, ".chosen")) as temporary:
        temporary.write_text(name + "\n", encoding="utf-8")


def current_run(name=None, folder="runs"):
    """The name of the run to look at: the one that is named, else that of `choose`, else the newest. Says which.

    Raises FileNotFoundError when there is no such run.
    """
    known = run_names(folder)
    if name is not None:
        if name not in known:
            raise FileNotFoundError(f"{folder}: there is no run {name!r}{did_you_mean(name, known)}; there "
                                    f"{'are ' + ', '.join(known) if known else 'is none yet'}")
        why = tr("as named")
    else:
        try:
            name, why = Path(folder, ".chosen").read_text(encoding="utf-8").strip(), tr("the one chosen in train.ipynb")
        except (OSError, UnicodeDecodeError):
            name = None
        if name not in known:
            name, why = (known[0], tr("the newest")) if known else (None, "")
    if name is None:
        print(tr("there is no run in {folder} yet: train first", folder=folder))
    else:
        others = [other for other in known if other != name]
        print(tr("run {name!r}, {why}", name=name, why=why))
        if others:  # a line that a narrow notebook need not break inside words
            print(tr("others: {names}", names=", ".join(others[:3]) + " …" * (len(others) > 3)))
    return name


def checkpoints(name, folder="runs"):
    """The newest generator of each phase of a run: phase → its file, in the order of training; none without a name.

    Raises FileNotFoundError for a run that has no epoch yet.
    """
    phases = dict.fromkeys(row["phase"] for row in read_history(name, folder)) if name else {}
    if name and not phases:
        raise FileNotFoundError(f"run {name!r} has no whole epoch yet; train it first")
    return {phase: str(Run(name, folder).checkpoint(phase)) for phase in phases}


def read_history(run, folder="runs"):
    """The epochs of a run as a list of dictionaries with numbers, from `runs/<run>/history.csv`.

    A loss that belongs to another phase is not in an epoch's dictionary.
    """
    path = Path(folder, run, "history.csv")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such history; is {run!r} the name of a run?")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            history = [{key: value if key == "phase" else float(value) for key, value in row.items() if value}
                       for row in csv.DictReader(file)]
        for row in history:
            row["phase"], row["updates"], row["psnr"], row["seconds"]
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(f"{path}: not a history as training writes it ({error}); delete it, and resuming the run "
                         f"writes it again") from error
    return history


def read_record(run, folder="runs"):
    """What trained each segment of a run's epochs, from its `settings.json`, see kit/runs/provenance.py; else empty."""
    try:
        record = json.loads(Path(folder, run, "settings.json").read_bytes())
        return current_record(record) if isinstance(record, list) else []  # (else of an older version of the kit)
    except (OSError, ValueError, TypeError, AttributeError):  # none there, or not as training writes it
        return []


def read_settings(run, folder="runs"):
    """The settings that trained the last epochs of a run; empty where none are kept."""
    record = read_record(run, folder)
    return record[-1]["settings"] if record else {}


def read_histories(names, folder="runs"):
    """The histories of several runs, name → epochs, as far as there are any; what is left out is printed."""
    histories = {}
    for name in names:
        try:
            histories[name] = read_history(name, folder)
        except FileNotFoundError as error:
            print(tr("{name} is left out: {error}", name=name, error=error))
    return histories


def read_predictions(runs="runs"):
    """What was predicted of rows of the sheet: row → what was written, the first first."""
    file = Path(runs, PREDICTIONS)
    noted = json.loads(file.read_bytes()) if file.is_file() else {}
    return {row: [said] if isinstance(said, str) else said for row, said in noted.items()}  # (one, in older runs)
