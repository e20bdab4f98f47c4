"""The folder of a run and the files in it: settings, history, checkpoints, samples, lock, the state to resume from.

    runs/<name>/settings.json                   what trained its epochs, see records.py
    runs/<name>/history.csv                     a line per epoch
    runs/<name>/progress.json                   how it stands, for those who follow it
    runs/<name>/samples/                        validation pictures: input/, original/, <phase>_<epoch>/
    runs/<name>/checkpoints/<phase>_<epoch>.pt  a generator, also as <phase>.pt (the newest) and
                                                <phase>_best.pt (the highest PSNR)
    runs/<name>/checkpoints/last.pt             everything that resuming needs; last_epoch.pt: the same at the
                                                end of an epoch, to go back to; <phase>_end.pt: at the end of a
                                                phase, for a fork
    runs/.chosen                                the name of the run that the notebooks look at

It is handed values and knows no trainer. Checkpoints are read without running code from them.
"""

import csv
import json
import os
import re
import shutil
import zipfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import safe_open
from safetensors.torch import save as safetensors_bytes

from utils import TEMPORARY, did_you_mean, read_picture, save_picture, write_csv, write_whole

FIRST_COLUMNS, LAST_COLUMNS = ["phase", "epoch", "updates", "learning_rate"], ["psnr", "ssim", "niqe", "seconds"]
SAFETENSORS = ".safetensors"


class Run:
    """The folder `<runs>/<name>/`."""

    def __init__(self, name, runs="runs"):
        self.name, self.folder = name, Path(runs, name)
        self._known = None  # the state that was loaded or saved last, told by its file's size and time

    @contextmanager
    def locked(self):
        """A context in which no other program can train this run.

        Raises ValueError when one does, and when one has trained it since the state was loaded here.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with _locked(self.folder / ".lock", 1):  # (whoever asks whether it is locked has it for a moment)
                if self._state_on_disk() != self._known:
                    raise ValueError(f"the run {self.name!r} has been trained further, or deleted, by another program "
                                     f"since it was opened here; make the trainer again to go on from there")
                for left in self.folder.rglob(f".*{TEMPORARY}"):  # by a program that was killed while writing
                    left.unlink()
                yield
        except Timeout:
            raise ValueError(f"another program is training the run {self.name!r}; stop it, or choose "
                             f"another name") from None

    def checkpoint(self, name):
        """Where the checkpoint of this name is."""
        return self.folder / "checkpoints" / f"{name}.pt"

    # ------------------------------------------------------------------------------------------- state

    def save_state(self, state):
        """Keep everything that resuming needs: a dictionary with `settings`, `history`, `generator`, …"""
        save_checkpoint(self.checkpoint("last"), state)
        self._known = self._state_on_disk()
        if not state["step"]:
            self._copy("last", "last_epoch")

    def go_back(self):
        """Put the state back to that at the end of an epoch; without one the run begins anew."""
        if self.checkpoint("last_epoch").is_file():
            self._copy("last_epoch", "last")
        else:
            self.checkpoint("last").unlink(missing_ok=True)
        self._known = self._state_on_disk()

    def _copy(self, name, other):
        with write_whole(self.checkpoint(other)) as temporary:
            _link(self.checkpoint(name), temporary)

    def keep_state(self, phase):
        """Keep the state, which is that of the end of a phase, for forks."""
        if self.checkpoint("last").is_file():
            self._copy("last", f"{phase}_end")

    def load_state(self, name="last"):
        """What `save_state` kept, or None for a new run. Raises ValueError for a file that is something else."""
        path = self.checkpoint(name)
        if name == "last":
            self._known = self._state_on_disk()
        if not path.exists():
            return None
        state = load_checkpoint(path)
        if "g_optimizer" not in state or "settings" not in state:
            raise ValueError(f"{path}: not a state to resume from; delete {self.folder} or choose another name")
        return state

    def _state_on_disk(self):
        path = self.checkpoint("last")
        return (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None

    # --------------------------------------------------------------------------------------- what is kept

    def write_settings(self, record):
        self._write_json("settings", record)

    def write_progress(self, progress):
        self._write_json("progress", progress)

    def _write_json(self, name, content):
        with write_whole(self.folder / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def take_over(self, other, phases):
        """Copy what another run has kept of these phases: samples and checkpoints, and the states at their ends."""
        wanted = [path for pattern in ("samples/input/*", "samples/original/*") for path in other.folder.glob(pattern)]
        for phase in phases:
            wanted += [*other.folder.glob(f"samples/{phase}_[0-9]*/*"), *other.folder.glob(f"checkpoints/{phase}.pt"),
                       *other.folder.glob(f"checkpoints/{phase}_*.pt")]
        for path in wanted:
            with write_whole(self.folder / path.relative_to(other.folder)) as temporary:
                _link(path, temporary)

    def progress(self):
        """How the run stands: what was last written, `state` being "running", "stopped", "finished" or "diverged"."""
        try:
            progress = json.loads((self.folder / "progress.json").read_bytes())
            state = progress["state"]
        except (OSError, ValueError, LookupError, TypeError):
            progress, state = {}, "stopped"
        if self.is_locked():
            state = "running"
        elif state == "running":  # it was killed
            state = "stopped"
        return {**progress, "state": state}

    def is_locked(self):
        """Whether a program is training this run."""
        if not (self.folder / ".lock").is_file():
            return False
        try:
            with _locked(self.folder / ".lock", 0):
                return False
        except Timeout:
            return True
        except OSError:  # of a folder that cannot be written to
            return False

    def write_history(self, history):
        """Write the epochs, a dictionary each; between the usual columns those of the losses, as they first appear."""
        losses = dict.fromkeys(name for row in history for name in losses_in(row))
        write_csv(self.folder / "history.csv", history, [*FIRST_COLUMNS, *losses, *LAST_COLUMNS])

    def keep_samples(self, phase, epoch, samples):
        """Keep what the generator made of some pairs, a list of (Pair, picture), and once the pairs themselves."""
        for pair, picture in samples:
            save_picture(self._sample(f"{phase}_{epoch:03d}", pair.name), picture)
            for folder, known in [("input", pair.lr), ("original", pair.hr)]:
                if not self._sample(folder, pair.name).exists():
                    save_picture(self._sample(folder, pair.name), known)

    def sample(self, phase, epoch, name):
        """The kept picture of this name after an epoch of a phase (uint8). Raises FileNotFoundError without one."""
        return read_picture(self._sample(f"{phase}_{epoch:03d}", name))

    def known(self, folder, name):
        """The "input" or the "original" of a kept picture (uint8)."""
        return read_picture(self._sample(folder, name))

    def sampled_epochs(self, phase, name):
        """The epochs of a phase after which the picture of this name was kept, in order."""
        folders = self.folder.glob(f"samples/{phase}_[0-9]*")
        return sorted(int(epoch[1]) for path in folders
                      if (epoch := re.fullmatch(rf"{re.escape(phase)}_(\d{{3,}})", path.name))
                      and (path / f"{name}.png").is_file())

    def keep_generator(self, phase, epoch, weights, settings, scores, numbered, best, most=None):
        """Keep the weights of a generator as the newest of its phase, and if so asked as the epoch's and the best.

        Of the numbered checkpoints of the phase the last `most` are left, or all.
        """
        names = [phase] + [f"{phase}_{epoch:03d}"] * numbered + [f"{phase}_best"] * best
        for name in names:
            save_generator(self.checkpoint(name), weights, settings, phase=phase, epoch=epoch, **scores)
        if most:
            kept = [path for path in self.folder.glob(f"checkpoints/{phase}_[0-9]*.pt")
                    if re.fullmatch(rf"{re.escape(phase)}_\d{{3,}}", path.stem)]
            for path in sorted(kept, key=lambda path: int(path.stem.rpartition("_")[2]))[:-most]:
                path.unlink()

    def _sample(self, folder, name):
        return self.folder / "samples" / folder / f"{name}.png"


@contextmanager
def _locked(path, timeout):
    lock = FileLock(path, timeout=timeout)
    with suppress(NotImplementedError):  # of a disk that has no locks, as some in a network
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _link(path, other):
    """Give the bytes of a file a second name: files are replaced here, and never changed."""
    try:
        os.link(path, other)
    except OSError:  # not on every disk
        shutil.copyfile(path, other)


def losses_in(row):
    """The names of the losses among the columns of an epoch of a history."""
    return [name for name in row if name not in FIRST_COLUMNS + LAST_COLUMNS]


def names(folder="runs"):
    """The names of all runs in a folder, the newest first."""
    histories = sorted(Path(folder).glob("*/history.csv"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.parent.name for path in histories]


def choose(name, folder="runs"):
    """Note the run that all notebooks look at."""
    with write_whole(Path(folder, ".chosen")) as temporary:
        temporary.write_text(name + "\n", encoding="utf-8")


def chosen(name=None, folder="runs"):
    """The name of the run to look at: the one that is named, else that of `choose`, else the newest. Says which.

    Raises FileNotFoundError when there is no such run.
    """
    known = names(folder)
    if name is not None:
        if name not in known:
            raise FileNotFoundError(f"{folder}: there is no run {name!r}{did_you_mean(name, known)}; there "
                                    f"{'are ' + ', '.join(known) if known else 'is none yet'}")
        why = "as named"
    else:
        try:
            name, why = Path(folder, ".chosen").read_text(encoding="utf-8").strip(), "the one chosen in train.ipynb"
        except (OSError, UnicodeDecodeError):
            name = None
        if name not in known:
            name, why = (known[0], "the newest") if known else (None, "")
    if name is None:
        print(f"there is no run in {folder} yet: train first")
    else:
        others = [other for other in known if other != name]
        print(f"run {name!r}, {why}")
        if others:  # a line that a narrow notebook need not break inside words
            print(f"others: {', '.join(others[:3])}{' …' * (len(others) > 3)}")
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
    """What trained each stretch of a run's epochs, from its `settings.json`, see records.py; else empty."""
    try:
        record = json.loads(Path(folder, run, "settings.json").read_bytes())
        return record if isinstance(record, list) else []  # (else of an older version of the kit)
    except (OSError, ValueError):
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
            print(f"{name} is left out: {error}")
    return histories


# ---------------------------------------------------------------------------------------- checkpoints


def save_checkpoint(path, content):
    """Save a dictionary of tensors, numbers, strings, lists and dictionaries, whole or not at all."""
    with write_whole(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # what its writer of zip files makes of a full disk
            raise OSError(f"{path}: could not be written; is the disk full? ({str(error).splitlines()[0]})") from error


def load_checkpoint(path):
    """Load what `save_checkpoint` or `save_generator` wrote, onto the CPU, without running any code from the file.

    Raises FileNotFoundError, or ValueError for a damaged file, one that is no checkpoint of this kit,
    or one that holds pickled objects, which could run anything on being loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint; train first, or correct the name")
    try:
        content = _load_safetensors(path) if path.suffix == SAFETENSORS else _load_zip(path)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise ValueError(f"{path}: refused, because it holds more than tensors and plain values; loading "
                             f"it could run code. Use a checkpoint that this kit saved") from error
        raise ValueError(f"{path}: not a readable checkpoint ({reason})") from error
    if not isinstance(content, dict) or "generator" not in content or "generator_settings" not in content:
        raise ValueError(f"{path}: not a checkpoint of this kit (no generator in it)")
    _check_weights(path, content["generator"])
    return content


def save_generator(path, weights, settings, **notes):
    """Save the weights of a generator (its state dict) with the settings to build it again, and plain values as notes.

    A path that ends in `.safetensors` gets a file of that format with the weights rounded to fp16: half
    the size, for handing on.
    """
    if Path(path).suffix != SAFETENSORS:
        save_checkpoint(path, {"generator": weights, "generator_settings": settings, **notes})
        return
    weights = {name: (value.half() if value.is_floating_point() else value).contiguous()
               for name, value in weights.items()}
    notes = {"generator_settings": settings, "crc": _crc(weights), **notes}
    with write_whole(path) as temporary:
        temporary.write_bytes(safetensors_bytes(weights, {name: json.dumps(value) for name, value in notes.items()}))


def _load_zip(path):
    """What torch.save wrote, its bytes compared with the CRCs that a zip file has."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is cut off, or not a file that torch.save wrote")
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed, which torch.save never does")
        if damaged := archive.testzip():
            raise ValueError(f"its part {damaged} is damaged")
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_weights(path, weights):
    """Raise ValueError for anything but a state dict of finite numbers."""
    if not isinstance(weights, dict) or not weights:
        raise ValueError(f"{path}: not a checkpoint of this kit (its generator has no weights)")
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(f"{path}: not a checkpoint of this kit (its weight {name!r} is no tensor with a name)")
        usual = value.dtype == torch.int64 if name.endswith("num_batches_tracked") else value.is_floating_point()
        if not usual or value.layout != torch.strided or value.is_quantized:
            raise ValueError(f"{path}: its weight {name} is of the kind {value.dtype}, {value.layout}, not of plain "
                             f"floating-point numbers")
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{path}: its weight {name} has values that are no numbers")


def _load_safetensors(path):
    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}
        notes = {name: json.loads(text) for name, text in (file.metadata() or {}).items() if name != "format"}
    if notes.pop("crc", None) not in (None, _crc(weights)):
        raise ValueError("its weights are damaged")
    weights = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    return {"generator": weights, **notes}


def _crc(weights):
    """The CRC-32 of tensors with their names."""
    crc = 0
    for name in sorted(weights):
        crc = zlib.crc32(weights[name].contiguous().flatten().view(torch.uint8).numpy(), zlib.crc32(name.encode(), crc))
    return crc
