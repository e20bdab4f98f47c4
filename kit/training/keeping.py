"""What training leaves in the folder of its run: history and record, pictures, checkpoints, the saved state."""

import math

from kit.files import require_room
from kit.runs import provenance
from kit.settings.schema import section
from kit.training.board import Board


class Keeper:
    """Writes to the folder of a run what its settings say; owns the record of what trained its epochs.

    `forked` is what is to be copied of another run, the arguments of `Run.copy_phases`, or None. Of several processes
    only the first, the one that `writes`, touches the folder.
    """

    def __init__(self, run, cfg, record, forked, writes):
        self.run, self.cfg, self.record, self.forked, self.writes = run, cfg, record, forked, writes
        self.board = Board(run, cfg)
        self._left = None  # the phase that ended before the present one, until its last state is kept

    def check_room(self, generator, epochs):
        """Raise OSError when the disk has no room for what the rest of a run, so many epochs, will leave."""
        size = 4 * sum(weight.numel() for weight in generator.parameters())
        numbered = min(epochs // self.cfg.checkpoint_every, self.cfg.keep_checkpoints or epochs)
        # A state has weights, moments and perhaps an average; two are kept.
        require_room(self.run.folder, (numbered + 12) * size, "the run",
                     "set keep_checkpoints to a small number, or runs to a folder on another disk")

    def leave_phase(self, name):
        """Note that a phase has ended, whose last state is worth keeping for forks."""
        self._left = name

    def begin(self, phase, state, extras, makers):
        """Bring the folder up to date: of a fork, of a phase left, and when it was killed just before."""
        self.record = provenance.extended(self.record, provenance.segment(phase, state.epoch + 1, self.cfg, extras,
                                                                          makers))
        if not self.writes:
            return
        if self.forked:
            self.run.copy_phases(*self.forked)
            self.forked = None
        if self._left:
            self.run.keep_state(self._left)
            self._left = None
        self.write_history(state.history)

    def write_history(self, history):
        if self.writes:
            self.run.write_history(history)
            self.run.write_settings(provenance.to_be_read(self.record, history))

    def keep(self, phase, history, generator, samples):
        """Keep the pictures and the generator of the epoch that has just ended, as far as the settings say so."""
        if not self.writes:
            return
        row, cfg = history[-1], self.cfg
        epoch, last = row["epoch"], row["epoch"] == phase.epochs
        if epoch % cfg.sample_every == 0 or last:
            self.run.keep_samples(phase.name, epoch, samples)
        self.board.write(row, samples)
        sign = -1 if cfg.best_by == "niqe" else 1  # the lower, the better
        values = [sign * old.get(cfg.best_by, math.nan) for old in history if old["phase"] == phase.name]
        notes = {name: row[name] for name in ("psnr", "ssim", "niqe", "updates") if name in row}
        self.run.keep_generator(phase.name, epoch, generator.state_dict(), section(cfg, "generator"), notes,
                                numbered=epoch % cfg.checkpoint_every == 0 or last, best=values[-1] == max(values),
                                most=cfg.keep_checkpoints)

    def save(self, saved):
        """Save everything that resuming needs."""
        if self.writes:
            self.run.save_state({**saved, "record": self.record, "settings": dict(self.cfg)})
