"""What TensorBoard shows of a run, where it is installed: `tensorboard --logdir runs`, or in a notebook

    %load_ext tensorboard
    %tensorboard --logdir runs

Scalars, samples and settings of each epoch go to `runs/<name>/tensorboard/`. Without it nothing is written.
"""

from contextlib import suppress
from importlib.util import find_spec

from kit.language import tr
from kit.settings.describe import format_value


class Board:
    """Writes for TensorBoard to the folder of a run, from its first epoch here on."""

    def __init__(self, run, cfg):
        self.folder, self.cfg, self._writer, self._fails = run.folder / "tensorboard", cfg, None, False

    def write(self, row, samples):
        """Write an epoch that was validated: its row of the history, and its samples as `Run.keep_samples` takes them.

        What this program or another wrote of later updates, before it was stopped, is no longer shown. Whatever goes
        wrong here ends no training.
        """
        if self._fails or find_spec("tensorboard") is None:
            return
        self._fails = True
        with suppress(Exception):
            step = int(row["updates"])
            self._writer = self._writer or self._begin(step)
            for name, value in row.items():
                if name not in ("phase", "epoch", "updates"):
                    self._writer.add_scalar(f"{row['phase']}/{name}", value, step)
            for pair, picture in samples:
                self._writer.add_image(f"samples/{pair.name}", picture, step,
                                       dataformats="HWC" if picture.ndim == 3 else "HW")
            self._writer.flush()
            self._fails = False

    def _begin(self, step):
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(self.folder), purge_step=step)
        rows = "\n".join(f"| {name} | {format_value(value)} |" for name, value in self.cfg.items())
        writer.add_text("settings", f"| {tr('setting')} | {tr('value')} |\n| --- | --- |\n{rows}", step)
        return writer
