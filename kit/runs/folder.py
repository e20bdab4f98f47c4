"""The folder of a run and the files in it: settings, history, checkpoints, samples, lock, the state to resume from.

    runs/<name>/settings.json                   what trained its epochs, see provenance.py
    runs/<name>/history.csv                     a line per epoch
    runs/<name>/progress.json                   how it stands, for those who follow it
    runs/<name>/threads.json                    from which update on with how many threads, see training/pace.py
    runs/<name>/samples/                        validation pictures: input/, original/, <phase>_<epoch>/
    runs/<name>/checkpoints/<phase>_<epoch>.pt  a generator, also as <phase>.pt (the newest) and
                                                <phase>_best.pt (the highest PSNR)
    runs/<name>/checkpoints/last.pt             everything that resuming needs; last_epoch.pt: the same at the
                                                end of an epoch, to go back to; <phase>_end.pt: at the end of a
                                                phase, for a fork
    runs/.chosen                                the name of the run that the notebooks look at

It is handed values and knows no trainer. Checkpoints are read without running code from them.
"""

import json
import os
import re
import shutil
import stat
import zlib
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from kit.files import TEMPORARY, locked, patiently, remove, write_csv, write_whole
from kit.language import N_, tr
from kit.runs.checkpoints import load_checkpoint, save_checkpoint, save_generator
from kit.settings.schema import current_names, current_record
from utils import read_picture, save_picture

FIRST_COLUMNS, LAST_COLUMNS = ["phase", "epoch", "updates", "learning_rate"], ["psnr", "ssim", "niqe", "seconds"]


STATES = [N_("running"), N_("stopped"), N_("finished"), N_("diverged")]


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
            with locked(self.folder / ".lock", 1):  # (whoever asks whether it is locked has it for a moment)
                if self._state_on_disk() != self._known:
                    raise ValueError(f"the run {self.name!r} has been trained further, or deleted, by another program "
                                     f"since it was opened here; make the trainer again to go on from there")
                for left in self.folder.rglob(f".*{TEMPORARY}"):  # by a program that was killed while writing
                    remove(left)
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

    def rollback(self):
        """Put the state back to that at the end of an epoch; without one the run begins anew."""
        if self.checkpoint("last_epoch").is_file():
            self._copy("last_epoch", "last")
        else:
            patiently(self.checkpoint("last").unlink, True)  # if it is there
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
        state["settings"] = current_names(state["settings"])
        state["record"] = current_record(state.get("record", []))
        return state

    def _state_on_disk(self):
        """What tells the state of now from another: its end, where PyTorch writes a checksum of all that is in it.

        (Not its time, which disks in a cloud change afterwards.)
        """
        path = self.checkpoint("last")
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            file.seek(-min(path.stat().st_size, 2**18), os.SEEK_END)
            return path.stat().st_size, zlib.crc32(file.read())

    # --------------------------------------------------------------------------------------- what is kept

    def write_settings(self, record):
        self._write_json("settings", record)

    def write_progress(self, progress):
        self._write_json("progress", progress)

    def write_threads(self, changes):
        self._write_json("threads", changes, indent=None)  # a line: they may be many

    def read_threads(self):
        """The changes of the number of threads: [number of the first update, threads], …"""
        try:
            return json.loads((self.folder / "threads.json").read_bytes())
        except (OSError, ValueError):
            return []

    def _write_json(self, name, content, indent=2):
        with write_whole(self.folder / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8")

    def copy_phases(self, other, phases, saved):
        """Copy what another run has kept of these phases, as far as its state `saved` had come.

        Samples, checkpoints, and the states at the ends of phases; nothing of epochs that were trained since.
        """
        last = {row["phase"]: int(row["epoch"]) for row in saved["history"]}
        wanted = [path for pattern in ("samples/input/*", "samples/original/*") for path in other.folder.glob(pattern)]
        for phase in phases:
            for path in [*other.folder.glob(f"samples/{phase}_[0-9]*"), *other.folder.glob(f"checkpoints/{phase}*.pt")]:
                found = re.fullmatch(rf"{re.escape(phase)}(_\d{{3,}}|_best|_end|)", path.stem)
                if found and self._epoch_of(path, found[1]) <= last.get(phase, 0):
                    wanted += path.iterdir() if path.is_dir() else [path]
        for path in wanted:
            with write_whole(self.folder / path.relative_to(other.folder)) as temporary:
                _link(path, temporary)
        if changes := other.read_threads():
            updates = sum(row["updates"] for row in saved["history"][-1:]) - saved.get("initial_updates", 0)
            self.write_threads([change for change in changes if change[0] < updates + saved["step"]])
        for phase in phases:  # its newest generator may have come from an epoch since
            newest, numbered = self.checkpoint(phase), self.checkpoint(f"{phase}_{last.get(phase, 0):03d}")
            if not newest.exists() and numbered.exists():
                with write_whole(newest) as temporary:
                    _link(numbered, temporary)

    @staticmethod
    def _epoch_of(path, ending):
        """The epoch that something kept of a phase belongs to: by its name, else by what is written in it."""
        return int(ending[1:]) if ending[1:].isdigit() else int(load_checkpoint(path)["epoch"])

    def progress(self):
        """How the run stands: what was last written, `state` being one of STATES."""
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
            with locked(self.folder / ".lock", 0, say=False):
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

    def read_pair_image(self, folder, name):
        """The "input" or the "original" of a kept picture (uint8)."""
        return read_picture(self._sample(folder, name))

    def sampled_epochs(self, phase, name):
        """The epochs of a phase after which the picture of this name was kept, in order."""
        folders = self.folder.glob(f"samples/{phase}_[0-9]*")
        return sorted(int(epoch[1]) for path in folders
                      if (epoch := re.fullmatch(rf"{re.escape(phase)}_(\d{{3,}})", path.name))
                      and (path / f"{name}.png").is_file())

    def sample_names(self):
        """The validation pictures of which samples are kept."""
        return sorted(path.stem for path in (self.folder / "samples" / "original").glob("*.png"))

    def samples_of(self, name, history):
        """The first kept sample of a picture and the last of each phase of a history: title → picture."""
        shown = {}
        for i, phase in enumerate(dict.fromkeys(row["phase"] for row in history)):
            epochs = self.sampled_epochs(phase, name)
            for epoch in dict.fromkeys((epochs[:1] if i == 0 else []) + epochs[-1:]):
                shown[tr("{phase}, epoch {epoch}", phase=phase, epoch=epoch)] = self.sample(phase, epoch, name)
        return shown

    def keep_generator(self, phase, epoch, weights, settings, scores, numbered, best, most=None):
        """Keep the weights of a generator as the newest of its phase, and if so asked as the epoch's and the best.

        Of the numbered checkpoints of the phase the last `most` are left, or all.
        """
        names = {phase: True, f"{phase}_{epoch:03d}": numbered, f"{phase}_best": best}
        for name in [name for name, wanted in names.items() if wanted]:
            save_generator(self.checkpoint(name), weights, settings, phase=phase, epoch=epoch, **scores)
        if most:
            kept = [path for path in self.folder.glob(f"checkpoints/{phase}_[0-9]*.pt")
                    if re.fullmatch(rf"{re.escape(phase)}_\d{{3,}}", path.stem)]
            for path in sorted(kept, key=lambda path: int(path.stem.rpartition("_")[2]))[:-most]:
                remove(path)

    def _sample(self, folder, name):
        return self.folder / "samples" / folder / f"{name}.png"


def _link(path, other):
    """Give the bytes of a file a second name: files are replaced here, and never changed."""
    try:
        if not path.stat().st_mode & stat.S_IWUSR:  # a second name would have the same mode, and could not be replaced
            raise PermissionError(f"{path} is read-only")
        os.link(path, other)
    except OSError:  # not on every disk
        shutil.copyfile(path, other)


def losses_in(row):
    """The names of the losses among the columns of an epoch of a history."""
    return [name for name in row if name not in FIRST_COLUMNS + LAST_COLUMNS]
