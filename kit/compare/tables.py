"""Runs side by side: a table of them, the best first; their curves; the same detail as each has it."""

import fnmatch
import itertools
import math
import sys
from collections import Counter, namedtuple

from kit.compare.following import follow
from kit.console import Parser, Table
from kit.evaluation.measure import score_captions
from kit.language import tr
from kit.plots.curves import plot_history
from kit.plots.pictures import plot_comparison
from kit.runs.folder import Run
from kit.runs.history import read_history, read_settings, run_names
from kit.settings.describe import format_value
from kit.settings.schema import SECTIONS, SETTINGS
from utils import bicubic

# A run as the table has it: `settings` those of its last epochs, `progress` how it stands.
Entry = namedtuple("Entry", "name settings history progress")

ORDERS = {"psnr": lambda entry: -max(row["psnr"] for row in entry.history),
          "ssim": lambda entry: -max(row["ssim"] for row in entry.history),
          "niqe": lambda entry: min(row.get("niqe", math.inf) for row in entry.history),
          "minutes": lambda entry: sum(row["seconds"] for row in entry.history),
          "name": lambda entry: entry.name}
NOT_COMPARED = {"name", "runs", *SECTIONS["what is kept"], *SECTIONS["machine"]}


def table(only="*", sort="psnr", folder="runs"):
    """The runs in a folder as a table: in which settings they differ, how they stand, how long they took, their scores.

    Parameters
    ----------
    only : str or list of str
        Names of runs; "*" stands for any letters.
    sort : {"psnr", "ssim", "niqe", "minutes", "name"}
        What comes first: the best, the shortest, or by the alphabet.

    Where they differ in many settings, each run has those that are unlike most runs'. The scores are PSNR (dB),
    SSIM and NIQE of the last epoch, and the best PSNR, on the pictures that each run was validated on.
    `.save(path)` writes the table as CSV. Raises ValueError for another `sort`.
    """
    if sort not in ORDERS:
        raise ValueError(f"sort must be one of {', '.join(ORDERS)}, not {sort!r}")
    entries = sorted(entries_of(only, folder), key=lambda entry: (ORDERS[sort](entry), entry.name))
    names = _differing(entries)
    values = {entry.name: {name: format_value(entry.settings.get(name)) for name in names} for entry in entries}
    if len(names) > 3:  # too wide for a column each
        usual = {name: Counter(row[name] for row in values.values()).most_common(1)[0][0] for name in names}
        values = {run: {tr("differs in"): ", ".join(f"{name} {value}" for name, value in row.items()
                                                if value != usual[name])} for run, row in values.items()}
        names = [tr("differs in")]
    rows = [[entry.name, *values[entry.name].values(), tr(entry.progress["state"]),
             _epochs(entry.history), f"{sum(row['seconds'] for row in entry.history) / 60:.1f}",
             f"{entry.history[-1]['psnr']:.2f}", f"{entry.history[-1]['ssim']:.4f}",
             f"{entry.history[-1]['niqe']:.2f}" if "niqe" in entry.history[-1] else "",
             f"{max(row['psnr'] for row in entry.history):.2f}"] for entry in entries]
    header = [tr("run"), *names, tr("state"), tr("epochs"), tr("minutes"), "PSNR", "SSIM", "NIQE", tr("best PSNR")]
    return Table(rows, header, left=1 + len(names))


def entries_of(only, folder):
    """The runs of these names, in the order in which they are asked for; of one pattern the newest first."""
    patterns = [only] if isinstance(only, str) else list(only)
    names, entries = run_names(folder), []
    for name in dict.fromkeys(name for pattern in patterns for name in names if fnmatch.fnmatchcase(name, pattern)):
        try:
            history = read_history(name, folder)
        except ValueError as error:
            print(tr("{name} is left out: {error}", name=name, error=error))
            continue
        if history:
            entries.append(Entry(name, read_settings(name, folder), history, Run(name, folder).progress()))
    return entries


def _differing(entries):
    """The settings in which runs differ."""
    return [name for name in SETTINGS if name not in NOT_COMPARED
            and len({str(entry.settings.get(name)) for entry in entries if entry.settings}) > 1]


def _epochs(history):
    """How many epochs of each phase: "12 + 3"."""
    return " + ".join(str(len(list(rows))) for _, rows in itertools.groupby(history, lambda row: row["phase"]))


def curves(only="*", folder="runs", lines=None):
    """The curves of runs laid over each other, over the updates that their generators have had in all.

    A run that starts from another's weights begins where these were. `lines` as for `plot_history`.
    """
    return plot_history({entry.name: entry.history for entry in entries_of(only, folder)}, lines)


def pictures(only="*", picture=None, folder="runs", detail=96):
    """The same detail of the same validation picture as each run last kept it, beside bicubic and the original.

    `picture` is the name of one that the runs keep in `samples/`; without it the first. Runs without it are left out.
    Raises ValueError when none has it.
    """
    shown, original = {}, None
    for entry in entries_of(only, folder):
        run = Run(entry.name, folder)
        kept = run.sample_names()
        name = picture or (kept[0] if kept else None)
        phase = entry.history[-1]["phase"]
        epochs = run.sampled_epochs(phase, name) if name else []
        if epochs:
            picture, lr, original = name, run.read_pair_image("input", name), run.read_pair_image("original", name)
            scale = original.shape[0] // lr.shape[0]
            shown.setdefault("bicubic", bicubic(lr, scale))
            shown[f"{entry.name}, {phase} {epochs[-1]}"] = run.sample(phase, epochs[-1], name)
    if original is None:
        raise ValueError(f"no run of {only!r} in {folder} has kept {'a picture' if picture is None else repr(picture)}")
    shown["original"] = original
    return plot_comparison(shown, detail, score_captions(shown, scale))


def main(arguments=None, prog="python -m kit runs"):
    """The command `python -m kit runs`."""
    parser = Parser(prog=prog, description="Compare runs: a table of all, the best first.",
                    epilog=f"Example: {prog} 'demo*' --sort minutes")
    parser.add_argument("only", nargs="*", default=["*"], help="names of runs; * stands for any letters")
    parser.add_argument("--runs", default="runs", metavar="DIR", help="folder of the runs (default: %(default)s)")
    parser.add_argument("--sort", default="psnr", choices=ORDERS, help="what comes first (default: %(default)s)")
    parser.add_argument("--csv", metavar="FILE", help="write the table to a CSV file, too")
    parser.add_argument("--follow", metavar="NAME", help="show how a run goes on that is being trained")
    options = parser.parse_args(arguments)
    try:
        if options.follow:
            follow(options.follow, options.runs)
        else:
            found = table(options.only, options.sort, options.runs)
            print(found)
            if options.csv:
                found.save(options.csv)
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {error}")
    except KeyboardInterrupt as stopped:
        sys.exit(str(stopped))
