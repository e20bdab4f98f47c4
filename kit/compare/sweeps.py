"""Training many runs in one call, resumable, several at a time if so asked."""

import hashlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from easydict import EasyDict

import solver
from kit.compare.tables import entries_of, table
from kit.compute import limits
from kit.compute.device import Machine
from kit.compute.interrupt import Stopped
from kit.compute.threads import counts
from kit.console import Table, progress_bar
from kit.files import is_portable
from kit.language import tr
from kit.runs import provenance
from kit.runs.folder import Run
from kit.settings.describe import format_value
from kit.settings.schema import checked, current_names
from kit.training.command import PARENT
from kit.training.display import epoch_line

# Seconds of a run from which on several at once are quicker: each process imports PyTorch first, and with a thread each
# two runs take two thirds of the time that they take one after the other with two.
LONG = 20


def sweep(cfg, variants=None, seeds=1, at_once=None, phases=None, **grid):
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
    at_once : int, optional
        How many are trained at the same time, in processes of their own (which know no phases of one's own). Without
        it, as many as there are GPUs to train on, each with one of its own; on a CPU one, and where that took more than
        20 seconds, the others with one core each, as far as there is memory for them.
    phases : callable, optional
        cfg → list of phases, instead of `solver.default_phases`.
    """
    if (variants is None) == (not grid):
        raise ValueError("give either a list of variants or lists of values by name, such as warmup_lr=[1e-4, 1e-3]")
    grid = {name: values.tolist() if isinstance(values, np.ndarray) else values for name, values in grid.items()}
    for name, values in grid.items():
        if not isinstance(values, (list, tuple)):
            raise ValueError(f"{name}: a sweep goes through a list of values; write {name}=[{values!r}, …]")
    gpus = gpus_for(cfg.device)
    at_once = at_once or (1 if phases else len(gpus) or None)
    if phases and at_once > 1:
        raise ValueError("phases of one's own cannot be trained several at once; set at_once to 1")
    if variants is None:
        variants = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    if not variants:
        raise ValueError("there is nothing to train: a list of variants or values is empty")
    if seeds > 1 and any("seed" in variant for variant in variants):
        raise ValueError("seeds trains each with so many seeds, from cfg.seed on: either that, or a list of seed")
    planned = []
    for variant in variants:
        for seed in range(cfg.seed, cfg.seed + seeds):
            changes = {**variant, **({"seed": seed} if seeds > 1 else {})}
            named = "-".join([cfg.name, *(f"{name}_{_word(value)}" for name, value in changes.items())])
            if not is_portable(named) and not Path(cfg.runs, named).exists():  # too long for a folder
                named = f"{named[:60]}-{hashlib.sha256(named.encode()).hexdigest()[:12]}"
            planned.append((checked(EasyDict(current_names({**cfg, **changes, "name": named}))), variant))
    todo = [one for one, _ in planned if not has_ended(one, (phases or solver.default_phases)(one))]
    failed = _train_all(todo, at_once, gpus, phases, len(planned)) if todo else {}
    for name, reason in failed.items():
        print(tr("{name} failed: {reason}", name=name, reason=reason))
    names = [one.name for one, _ in planned]
    if seeds == 1:
        return table(names, folder=cfg.runs)
    return _spread_table(planned, cfg.runs)


def has_ended(cfg, phases):
    """Whether a run was trained to the end of these phases, or diverged.

    Raises ValueError where that was with other settings.
    """
    run = Run(cfg.name, cfg.runs)
    standing = run.progress()["state"]
    if standing not in ("finished", "diverged"):
        return False
    saved = run.load_state()
    if not saved:
        return True
    makers = {"generator": solver.make_generator, "discriminator": solver.make_discriminator}
    provenance.check_unchanged(saved, phases, cfg, solver.EXTRAS, makers)
    *_, last = [phase for phase in phases if phase.epochs] or [None]
    reached = last is None or saved["phase"] == last.name and saved["epoch"] >= last.epochs  # not asked for more since
    return standing == "diverged" or reached


def _word(value):
    """A value as part of a name."""
    return "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in str(value))


def runs_bar(title, total, done=0):
    """A progress bar over runs, with room for the name of the present one."""
    return progress_bar(None, title, total=total, initial=done, bar_format=(
        f"{{desc}} |{{bar:12}}| {{n_fmt}}/{{total_fmt}} {tr('runs')}, {{elapsed}}{{postfix}}"))


def gpus_for(device):
    """The GPUs that runs with this setting of `device` may have, each by the name that hides all others."""
    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[: torch.cuda.device_count()] if named else list(map(str, range(torch.cuda.device_count())))


def _train_all(todo, at_once, gpus, phases, count):
    """Train runs, so many at once (None: as the first shows); gives name → reason for those that failed."""
    failed, waiting, working = {}, list(todo), {}
    undecided, at_once = at_once is None, at_once or 1
    places = [gpus[i % len(gpus)] if gpus else None for i in range(at_once)]  # of those that are free
    with runs_bar(tr("sweep"), count, count - len(todo)) as bar:
        try:
            while waiting or working:
                if waiting and at_once == 1:
                    one = waiting.pop(0)
                    bar.set_postfix_str(one.name)
                    begun = time.monotonic()
                    try:
                        solver.Trainer(one, phases and phases(one), progress=False).train(
                            on_epoch=lambda history, one=one: bar.set_postfix_str(
                                f"{one.name}, {epoch_line(history[-1], '…')}"[:60]))
                    except Exception as error:  # whatever a network or phase of one's own does
                        plain = isinstance(error, (ValueError, OSError, FloatingPointError, RuntimeError))
                        failed[one.name] = str(error) if plain else f"{type(error).__name__}: {error}"
                    bar.update()
                    if (undecided and time.monotonic() - begun > LONG and one.threads == "auto"
                            and Machine(one.device).device.type == "cpu"):
                        at_once = max(1, min(len(waiting), counts()[0], _room()))
                        places = [None] * at_once
                    continue
                while waiting and len(working) < at_once:
                    one = waiting.pop(0)
                    place = places.pop(0)
                    working[one.name] = *_start(one, at_once, place), place
                for name, (process, said, place) in list(working.items()):
                    if process.poll() is not None:
                        if process.returncode:
                            failed[name] = _last_line(said) or f"status {process.returncode}"
                        said.close()
                        del working[name]
                        places.append(place)
                        bar.update()
                bar.set_postfix_str(", ".join(working)[:60])
                time.sleep(0.2)
            bar.set_postfix_str("")
        except KeyboardInterrupt as stopped:
            for process, *_ in working.values():
                process.send_signal(signal.SIGTERM)
            for process, *_ in working.values():
                process.wait()
            raise Stopped(tr("stopped and saved; {count} runs wait for the same call again",
                             count=len(waiting) + len(working))) from stopped
    return failed


def _room():
    """How many processes as large as this one has been have room in half of the memory (where the system says so)."""
    try:
        import resource

        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return int(limits.memory() / 2 / largest)
    except (ImportError, AttributeError, ValueError, OSError):  # not on Windows
        return 1


def _start(cfg, at_once, gpu):
    """A process that trains one run, on this GPU if it is given one, and the file of what it says of errors.

    It saves and ends when it is told to, or when this program is gone.
    """
    threads = max(1, limits.cores() // at_once)
    options = [f"--{name}={value!r}" for name, value in cfg.items()]
    said = tempfile.TemporaryFile("w+", errors="replace")  # (a pipe has no room for the bars that a phase may draw)
    return subprocess.Popen([sys.executable, Path(solver.__file__).resolve(), *options],
                            stdout=subprocess.DEVNULL, stderr=said, start_new_session=True,
                            env={**os.environ, "OMP_NUM_THREADS": str(threads), PARENT: str(os.getpid()),
                                 **({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})}), said


def _last_line(file):
    """The last line of a file in which a process has said why it ended."""
    file.seek(0)
    lines = file.read().strip().splitlines()
    return lines[-1] if lines else ""


def _spread_table(planned, folder):
    """Mean and standard deviation over seeds of the last PSNR, SSIM and NIQE of each variant."""
    names = list(dict.fromkeys(name for _, variant in planned for name in variant))
    histories = {entry.name: entry.history for entry in entries_of([one.name for one, _ in planned], folder)}
    rows = []
    for variant, group in itertools.groupby(planned, lambda pair: pair[1]):
        last = [histories[one.name][-1] for one, _ in group if one.name in histories]
        spread = [f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=len(values) > 1):.{digits}f}" if values else ""
                  for digits, values in [(2, [row["psnr"] for row in last]), (4, [row["ssim"] for row in last]),
                                         (2, [row["niqe"] for row in last if "niqe" in row])]]
        rows.append([*(format_value(variant.get(name, "")) for name in names), str(len(last)), *spread])
    return Table(rows, [*names, tr("seeds"), "PSNR", "SSIM", "NIQE"], left=0)
