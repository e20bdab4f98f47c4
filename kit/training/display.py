"""What a run shows while it trains: a bar for a phase, a line for an epoch, and a file from which others follow it."""

import sys
import time
from contextlib import contextmanager, suppress

from kit.console import progress_bar
from kit.language import N_, tr
from kit.runs.folder import losses_in

# Names of losses as they are shown where room is short.
SHORT = {"content_loss": N_("content"), "adversarial_loss": N_("adversarial"),
         "discriminator_loss": N_("discriminator"),
         "d_real": "D(real)", "d_fake": "D(fake)"}

FEW = 20  # so many epochs get a line each; more would bury a notebook
HOURS = 2  # from so many on, a warning says what a phase will take
SECONDS = 5  # between two writings of the file that others read


class Display:
    """What is shown of one phase of a run, used as a context.

    `run` is the folder of the run, `phase` a Phase, `state` a RunState, in which the display sees where it stands.
    """

    def __init__(self, run, phase, state, shown=True, writes=True):
        self.run, self.phase, self.state, self.shown, self.writes = run, phase, state, shown, writes
        self.total, self.first = phase.epochs * state.steps_per_epoch, state.steps_in_phase
        self.began, self._written = time.monotonic(), 0.0
        self.bar = progress_bar(None, phase.name, shown, total=self.total, initial=self.first, leave=False,
                                bar_format=f"{{desc}} {{percentage:3.0f}}%|{{bar:12}}| {{elapsed}}, {tr('left')} "
                                           "{remaining}{postfix}")

    def __enter__(self):
        self.write("running")
        return self

    def __exit__(self, kind, error, trace):
        self.bar.close()

    def update(self):
        """An update was made."""
        self.bar.update()
        if self.state.steps_in_phase - self.first == 20:
            hours = self.left / 3600
            if hours > HOURS and self.shown:
                self.bar.write(f"{self.phase.name}: {long_told(hours)}", file=sys.stdout)

    @property
    def left(self):
        """Seconds that the phase will still take, going by its updates so far."""
        done = self.state.steps_in_phase
        new = done - self.first
        return (time.monotonic() - self.began) * (self.total - done) / new if new else None

    def losses(self, means):
        """Show the mean losses of the epoch so far: the first, and the discriminator's opinion where there is one."""
        first = next(iter(means))
        shown = {first: means[first], **({"d_fake": means["d_fake"]} if "d_fake" in means else {})}
        self.bar.set_postfix_str(", ".join(f"{_short(name)} {mean:.3g}" for name, mean in shown.items()),
                                 refresh=False)
        if time.monotonic() - self._written > SECONDS:
            self.write("running", means)

    @contextmanager
    def aside(self):
        """A context in which something else is shown: without the bar, which would stay above it as it was."""
        self.bar.clear()
        yield

    def epoch_done(self):
        """An epoch was validated: a line for it, while they are few."""
        if self.shown and self.phase.epochs <= FEW:
            self.bar.write(epoch_line(self.state.history[-1], self.phase.epochs), file=sys.stdout)
        self.write("running")

    def write(self, standing, means=None, message=""):
        """Write how the run stands, "running" or how it ended, to its folder, for `kit.compare`."""
        self._written = time.monotonic()
        if self.writes:
            with suppress(OSError):  # what others read never ends a training
                self.run.write_progress({
                    "state": standing, "phase": self.phase.name, "epoch": self.state.epoch,
                    "epochs": self.phase.epochs, "step": self.state.step, "steps": self.state.steps_per_epoch,
                    "seconds_left": self.left, "losses": means or {}, "message": message})


def long_told(hours):
    """What is said of a training that takes so many hours."""
    return tr("this will take about {hours:.0f} hours on this machine; it can be stopped and resumed at any time",
              hours=hours)


def epoch_line(row, epochs):
    """An epoch of a history as a line: "warmup 3/12: content 0.0123, 27.93 dB, SSIM 0.781, NIQE 6.80, 12 s"."""
    first = next((f"{_short(name)} {row[name]:.3g}, " for name in losses_in(row)), "")
    return (f"{row['phase']} {row['epoch']:.0f}/{epochs}: {first}{row['psnr']:.2f} dB, SSIM {row['ssim']:.4f}, "
            + (f"NIQE {row['niqe']:.2f}, " if "niqe" in row else "") + f"{row['seconds']:.0f} s")


def _short(loss):
    return tr(SHORT[loss]) if loss in SHORT else loss
