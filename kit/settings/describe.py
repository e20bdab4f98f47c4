"""Settings to be read: as a table with the paper's values and their meaning."""

from pathlib import Path

from kit.console import Table
from kit.language import tr
from kit.settings.schema import SECTIONS, SETTINGS

MAIN_SETTINGS = ["crop", "batch_size", "channels", "blocks", "batch_norm", "content_loss", "adversarial_weight",
                 "updates", "ema_decay", "start_from", "fork_of", "seed", "warmup_epochs", "warmup_lr",
                 "adversarial_epochs", "adversarial_lr", "discriminator_detail", "discriminator_rate",
                 "gradient_penalty"]


# What says nothing of how a network is trained: where things are, and on what machine.
ELSEWHERE = {"name", "runs", "train_list", "valid_list", "fork_of", *SECTIONS["what is kept"], *SECTIONS["machine"]}


def describe(cfg, which="most important"):
    """Settings with the paper's value and the meaning, as a table.

    `which` is "most important", "changed" (those and all that are not the paper's), "all", or a part of their names.
    """
    def is_wanted(name):
        main = name in MAIN_SETTINGS
        changed = name not in ELSEWHERE and cfg[name] != SETTINGS[name].paper
        return {"most important": main, "changed": main or changed, "all": True}.get(which, which in name)

    names = [name for name in SETTINGS if name in cfg and is_wanted(name)]
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
