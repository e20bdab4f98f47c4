"""Settings to be read: as a table with the paper's values and their meaning."""

from pathlib import Path

from kit.console import Table
from kit.language import tr
from kit.settings.schema import SETTINGS

MAIN_SETTINGS = ["crop", "batch_size", "channels", "blocks", "batch_norm", "content_loss", "adversarial_weight",
                 "updates", "ema_decay", "start_from", "fork_of", "seed", "warmup_epochs", "warmup_lr",
                 "adversarial_epochs", "adversarial_lr", "discriminator_detail", "discriminator_rate",
                 "gradient_penalty"]


def describe(cfg, which="most important"):
    """Settings with the paper's value and the meaning, as a table: the most important ones, or "all".

    Another text takes the settings with that text in their name.
    """
    names = [name for name in SETTINGS if (name in MAIN_SETTINGS if which == "most important" else
                                           which == "all" or which in name) and name in cfg]
    if not names:
        raise ValueError(f'no setting has {which!r} in its name; describe(cfg, "all") shows all')
    rows = [[name, format_value(cfg[name]), format_value(SETTINGS[name].paper),
             tr(SETTINGS[name].meaning)]
            for name in names]
    return Table(rows, [tr("setting"), tr("here"), tr("paper"), tr("meaning")], left=4)


def format_value(value):
    """A value of a setting as a table shows it: few digits, and of a path its end."""
    return f"{value:.4g}" if isinstance(value, float) else Path(value).name if _is_path(value) else str(value)


def _is_path(value):
    return isinstance(value, str) and "/" in value
