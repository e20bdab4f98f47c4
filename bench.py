"""Comparing runs: a table of them, their curves and pictures side by side, many in one call, and following one.

    bench.table()                                      # every run, the best first, and in what they differ
    bench.sweep(cfg, adversarial_weight=[1e-4, 1e-2])  # trains what is not trained yet, and ends in the table

In a terminal: `python bench.py`, `python bench.py --follow demo`; see `--help`.
"""

import fnmatch
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, namedtuple
from pathlib import Path

import numpy as np
from easydict import EasyDict

import plots
import recipes
import records
import runs
import solver
from evaluation import score_captions
from machine import Stopped
from screen import epoch_line
from utils import Parser, Table, bicubic, progress_bar

# A run as the table has it: `settings` those of its last epochs, `progress` how it stands.
Entry = namedtuple("Entry", "name settings history progress")

ORDERS = {"psnr": lambda entry: -max(row["psnr"] for row in entry.history),
          "ssim": lambda entry: -max(row["ssim"] for row in entry.history),
          "niqe": lambda entry: min(row.get("niqe", math.inf) for row in entry.history),
          "minutes": lambda entry: sum(row["seconds"] for row in entry.history),
          "name": lambda entry: entry.name}
NOT_COMPARED = {"name", "runs", *recipes.SECTIONS["what is kept"], *recipes.SECTIONS["machine"]}


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
    entries = sorted(_entries(only, folder), key=lambda entry: (ORDERS[sort](entry), entry.name))
    names = _differing(entries)
    values = {entry.name: {name: recipes.short(entry.settings.get(name)) for name in names} for entry in entries}
    if len(names) > 3:  # too wide for a column each
        usual = {name: Counter(row[name] for row in values.values()).most_common(1)[0][0] for name in names}
        values = {run: {"differs in": ", ".join(f"{name} {value}" for name, value in row.items()
                                                if value != usual[name])} for run, row in values.items()}
        names = ["differs in"]
    rows = [[entry.name, *values[entry.name].values(), entry.progress["state"],
             _epochs(entry.history), f"{sum(row['seconds'] for row in entry.history) / 60:.1f}",
             f"{entry.history[-1]['psnr']:.2f}", f"{entry.history[-1]['ssim']:.4f}",
             f"{entry.history[-1]['niqe']:.2f}" if "niqe" in entry.history[-1] else "",
             f"{max(row['psnr'] for row in entry.history):.2f}"] for entry in entries]
    header = ["run", *names, "state", "epochs", "minutes", "PSNR", "SSIM", "NIQE", "best PSNR"]
    return Table(rows, header, left=1 + len(names))


def _entries(only, folder):
    """The runs of these names, in the order in which they are asked for; of one pattern the newest first."""
    patterns = [only] if isinstance(only, str) else list(only)
    names, entries = runs.names(folder), []
    for name in dict.fromkeys(name for pattern in patterns for name in names if fnmatch.fnmatchcase(name, pattern)):
        try:
            history = runs.read_history(name, folder)
        except ValueError as error:
            print(f"{name} is left out: {error}")
            continue
        if history:
            entries.append(Entry(name, runs.read_settings(name, folder), history, runs.Run(name, folder).progress()))
    return entries


def _differing(entries):
    """The settings in which runs differ."""
    return [name for name in recipes.SETTINGS if name not in NOT_COMPARED
            and len({str(entry.settings.get(name)) for entry in entries if entry.settings}) > 1]


def _epochs(history):
    """How many epochs of each phase: "12 + 3"."""
    return " + ".join(str(len(list(rows))) for _, rows in itertools.groupby(history, lambda row: row["phase"]))


# ------------------------------------------------------------------------------------------ side by side


def curves(only="*", folder="runs", lines=None):
    """The curves of runs laid over each other, over the updates that their generators have had in all.

    A run that starts from another's weights begins where these were. `lines` as for `plots.plot_history`.
    """
    return plots.plot_history({entry.name: entry.history for entry in _entries(only, folder)}, lines)


def pictures(only="*", picture=None, folder="runs", detail=96):
    """The same detail of the same validation picture as each run last kept it, beside bicubic and the original.

    `picture` is the name of one that the runs keep in `samples/`; without it the first. Runs without it are left out.
    Raises ValueError when none has it.
    """
    shown, original = {}, None
    for entry in _entries(only, folder):
        run = runs.Run(entry.name, folder)
        kept = sorted(path.stem for path in (run.folder / "samples" / "original").glob("*.png"))
        name = picture or (kept[0] if kept else None)
        phase = entry.history[-1]["phase"]
        epochs = run.sampled_epochs(phase, name) if name else []
        if epochs:
            picture, low, original = name, run.known("input", name), run.known("original", name)
            shown.setdefault("bicubic", bicubic(low, original.shape[0] // low.shape[0]))
            shown[f"{entry.name}, {phase} {epochs[-1]}"] = run.sample(phase, epochs[-1], name)
    if original is None:
        raise ValueError(f"no run of {only!r} in {folder} has kept {'a picture' if picture is None else repr(picture)}")
    shown["original"] = original
    return plots.plot_comparison(shown, detail, score_captions(shown))


# ------------------------------------------------------------------------------------------------ sweep


def sweep(cfg, variants=None, seeds=1, at_once=1, phases=None, **grid):
    """Train many runs in one call, and end in a table of them.

    What was trained before is not trained again, so a sweep that was stopped or killed is resumed by the same call. A
    run that fails is named at the end, and does not stop the others.

    Parameters
    ----------
    cfg : EasyDict
        Settings that all have in common; the runs are named after `cfg.name`. With `fork_of` each starts with what its
        settings leave valid of another run.
    variants : list of dict, optional
        The changes of each run. Instead of it, `grid`: names of settings with lists of values, in all combinations.
    seeds : int
        Train each with so many seeds, from `cfg.seed` on. The table then has mean and spread (standard deviation):
        a difference that is not larger may be noise.
    at_once : int
        How many are trained at the same time, in processes of their own (which know no phases of one's own).
    phases : callable, optional
        cfg → list of phases, instead of `solver.phases`.
    """
    if (variants is None) == (not grid):
        raise ValueError("give either a list of variants or lists of values by name, such as warmup_lr=[1e-4, 1e-3]")
    for name, values in grid.items():
        if not isinstance(values, (list, tuple)):
            raise ValueError(f"{name}: a sweep goes through a list of values; write {name}=[{values!r}, …]")
    if at_once > 1 and phases:
        raise ValueError("phases of one's own cannot be trained several at once; set at_once to 1")
    variants = variants or [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    planned = []
    for variant in variants:
        for seed in range(cfg.seed, cfg.seed + seeds):
            changes = {**variant, **({"seed": seed} if seeds > 1 else {})}
            named = "-".join([cfg.name, *(f"{name}_{_word(value)}" for name, value in changes.items())])
            planned.append((EasyDict(cfg, **{**changes, "name": named}), variant))
            recipes.check_settings(planned[-1][0])
    todo = [one for one, _ in planned if not has_ended(one, (phases or solver.phases)(one))]
    failed = _train_all(todo, at_once, phases, len(planned)) if todo else {}
    for name, reason in failed.items():
        print(f"{name} failed: {reason}")
    names = [one.name for one, _ in planned]
    if seeds == 1:
        return table(names, folder=cfg.runs)
    return _spread_table(planned, cfg.runs)


def has_ended(cfg, phases):
    """Whether a run was trained to its end, or diverged. Raises ValueError where that was with other settings."""
    run = runs.Run(cfg.name, cfg.runs)
    if run.progress()["state"] not in ("finished", "diverged"):
        return False
    state = run.load_state()
    if state:
        records.check_unchanged(state, phases, cfg, solver.EXTRAS)
    return True


def _word(value):
    """A value as part of a name."""
    return "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in str(value))


def _train_all(todo, at_once, phases, count):
    """Train runs; gives name → reason for those that failed."""
    failed, waiting, working = {}, list(todo), {}
    with progress_bar(None, "sweep", total=count, initial=count - len(todo), bar_format=(
            "{desc} |{bar:12}| {n_fmt}/{total_fmt} runs, {elapsed}{postfix}")) as bar:
        try:
            while waiting or working:
                if waiting and at_once == 1:
                    one = waiting.pop(0)
                    bar.set_postfix_str(one.name)
                    try:
                        solver.Trainer(one, phases and phases(one), progress=False).train(
                            on_epoch=lambda history, one=one: bar.set_postfix_str(
                                f"{one.name}, {epoch_line(history[-1], '…')}"[:60]))
                    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
                        failed[one.name] = str(error)
                    bar.update()
                    continue
                while waiting and len(working) < at_once:
                    one = waiting.pop(0)
                    working[one.name] = _start(one, at_once)
                for name, process in list(working.items()):
                    if process.poll() is not None:
                        errors = process.communicate()[1].strip().splitlines()
                        if process.returncode:
                            failed[name] = errors[-1] if errors else f"ended with {process.returncode}"
                        del working[name]
                        bar.update()
                bar.set_postfix_str(", ".join(working)[:60])
                time.sleep(0.2)
            bar.set_postfix_str("")
        except KeyboardInterrupt as stopped:
            for process in working.values():
                process.send_signal(signal.SIGTERM)
            for process in working.values():
                process.communicate()
            raise Stopped(f"stopped and saved; {len(waiting) + len(working)} runs wait for the same call again"
                          ) from stopped
    return failed


def _start(cfg, at_once):
    """A process that trains one run, saves and ends when it is told to, or when this program is gone."""
    threads = max(1, (os.cpu_count() or 1) // at_once)
    return subprocess.Popen([sys.executable, Path(__file__).resolve(), "--train", json.dumps(cfg)],
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
                            env={**os.environ, "OMP_NUM_THREADS": str(threads), "SR_PARENT": str(os.getpid())})


def _train_one(cfg):
    """Train one run of a sweep, in a process of its own."""
    parent = int(os.environ["SR_PARENT"])

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)  # saves what was trained

    if hasattr(os, "getppid") and os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()
    solver.Trainer(recipes.Settings(cfg), progress=False).train()


def _spread_table(planned, folder):
    """Mean and standard deviation over seeds of the last PSNR, SSIM and NIQE of each variant."""
    names = list(dict.fromkeys(name for _, variant in planned for name in variant))
    histories = {entry.name: entry.history for entry in _entries([one.name for one, _ in planned], folder)}
    rows = []
    for variant, group in itertools.groupby(planned, lambda pair: pair[1]):
        last = [histories[one.name][-1] for one, _ in group if one.name in histories]
        spread = [f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=len(values) > 1):.{digits}f}" if values else ""
                  for digits, values in [(2, [row["psnr"] for row in last]), (4, [row["ssim"] for row in last]),
                                         (2, [row["niqe"] for row in last if "niqe" in row])]]
        rows.append([*(recipes.short(variant.get(name, "")) for name in names), str(len(last)), *spread])
    return Table(rows, [*names, "seeds", "PSNR", "SSIM", "NIQE"], left=0)


# ------------------------------------------------------------------------------------------------ follow


def follow(name=None, folder="runs", seconds=2):
    """Show how a run goes on that another notebook or program trains, until it ends or this is interrupted.

    Reads the run's folder only: a stop here stops nothing there. `name` as for `runs.chosen`.
    """
    name = runs.chosen(name, folder)
    shown, handle, text = None, None, ""
    try:
        while name:
            run, history = runs.Run(name, folder), runs.read_history(name, folder)
            progress = run.progress()
            if (len(history), progress) != shown:
                shown, text = (len(history), progress), _standing(name, progress, history)
                handle = _display(text, history, name, handle)
            if progress["state"] != "running":
                break
            time.sleep(seconds)
    except KeyboardInterrupt:
        print("no longer followed; the run goes on")


def _standing(name, progress, history):
    """How a run stands, in a line or two."""
    lines = [f"run {name!r} is {progress['state']}"]
    if progress["state"] == "running" and "steps" in progress:
        left = progress.get("seconds_left")
        lines[0] += (f": {progress['phase']} epoch {progress['epoch'] + 1:.0f} of {progress['epochs']}, update "
                     f"{progress['step']} of {progress['steps']}")
        lines[0] += f", about {left / 60:.1f} min left" if left else ""
    if history:
        last = history[-1]
        planned = progress.get("epochs", "?") if progress.get("phase") == last["phase"] else f"{last['epoch']:.0f}"
        lines.append("last epoch: " + epoch_line(last, planned))
    if progress.get("message"):
        lines.append(progress["message"])
    return "\n".join(lines)


def _display(text, history, name, handle):
    """Show text and curves in a notebook, in place of what was shown before; in a terminal print the text."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        get_ipython = None
    if get_ipython is None or get_ipython() is None:
        print(text, flush=True)
        return None
    handle = handle or (display(display_id=True), display(display_id=True))
    handle[0].update({"text/plain": text}, raw=True)
    if history:
        handle[1].update(plots.plot_history({name: history}))
    return handle


# ------------------------------------------------------------------------------------------ command line


def main(arguments=None):
    parser = Parser(description="Compare runs: a table of all, the best first.")
    parser.add_argument("only", nargs="*", default=["*"], help="names of runs; * stands for any letters")
    parser.add_argument("--runs", default="runs", metavar="DIR", help="folder of the runs (default: %(default)s)")
    parser.add_argument("--sort", default="psnr", choices=ORDERS, help="what comes first (default: %(default)s)")
    parser.add_argument("--csv", metavar="FILE", help="write the table to a CSV file, too")
    parser.add_argument("--follow", metavar="NAME", help="show how a run goes on that is being trained")
    parser.add_argument("--train", metavar="JSON", help="train one run with these settings (what a sweep starts)")
    options = parser.parse_args(arguments)
    try:
        if options.train:
            _train_one(json.loads(options.train))
        elif options.follow:
            follow(options.follow, options.runs)
        else:
            found = table(options.only, options.sort, options.runs)
            print(found)
            if options.csv:
                found.save(options.csv)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"bench.py: error: {error}")
    except KeyboardInterrupt as stopped:
        sys.exit(str(stopped))


if __name__ == "__main__":
    main()
