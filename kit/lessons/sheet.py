"""The sheet "predict, run, observe"."""

import itertools
import json
from collections import namedtuple
from pathlib import Path

from easydict import EasyDict

import solver
from kit.compare.sweeps import sweep
from kit.console import did_you_mean
from kit.files import write_whole
from kit.language import tr
from kit.runs.history import PREDICTIONS, read_predictions

# A row of the sheet: what is varied, how many epochs of adversarial training show it, and what to think about first.
Row = namedtuple("Row", "grid adversarial_epochs question")

SHEET = {
    "adversarial weight": Row(dict(adversarial_weight=[1e-4, 1e-3, 1e-2, 1e-1]), 2,
                              "How do PSNR and NIQE move as the adversarial loss counts for more?"),
    "warm-up": Row(dict(warmup_epochs=[0, 3, 12]), 2, "What does the adversarial phase make of a longer warm-up?"),
    "learning rate": Row(dict(warmup_lr=[2e-4, 2e-3, 2e-2]), 0, "Where is it too slow, and where does it break?"),
    "depth": Row(dict(blocks=[2, 8, 16]), 0, "Do more residual blocks pay in so few updates?"),
    "width": Row(dict(channels=[16, 32, 64]), 0,
                 "Which is better in the same number of updates, which in the same time?"),
    "batch norm": Row(dict(batch_norm=[False, True]), 0, "Does it help a network as small as this one?"),
    "loss": Row(dict(content_loss=["mse", "lr_consistency + 0.1 mse"]), 2,
                "What changes when the content loss is mostly about the picture made small, and hardly about pixels?"),
}


def sheet_settings(cfg, row):
    """The small setting in which a row of the sheet takes a minute or two on a laptop."""
    return EasyDict(cfg, name=f"sheet-{cfg.name}", updates_per_epoch=60, warmup_epochs=4, ema_decay=0, start_from=None,
                    fork_of=None, adversarial_epochs=SHEET[row].adversarial_epochs)


def observe(cfg, row, prediction="", seeds=1):
    """Run a row of the sheet, and show what was predicted beside what came of it.

    Parameters
    ----------
    cfg : EasyDict
        Settings to start from; see `sheet_settings` for what is made small.
    row : str
        A row of `SHEET`.
    prediction : str
        What you expect, in your own words; without, nothing is run. It is noted in `<runs>/predictions.json` when it is
        made, and stays there; another one later is noted behind it.
    seeds : int
        Train each with so many seeds.

    Returns a table, with the question and what was predicted above it, or None without a prediction. Raises ValueError
    for another row, and for one that varies what `solver.default_phases` does not use.
    """
    if row not in SHEET:
        raise ValueError(f"the sheet has no row {row!r}{did_you_mean(row, SHEET)}; its rows are {', '.join(SHEET)}")
    small, grid = sheet_settings(cfg, row), SHEET[row].grid
    epochs = [sum(phase.epochs for phase in solver.default_phases(EasyDict(small, **dict(zip(grid, values)))))
              for values in itertools.product(*grid.values())]
    if not any(epochs) or "warmup_epochs" in grid and len(set(epochs)) == 1:
        raise ValueError(f"the row {row!r} needs a warm-up, and solver.default_phases has no phase that takes its "
                         f"epochs from cfg.warmup_epochs; write one first, or take the row 'adversarial weight'")
    noted = note_prediction(cfg.runs, row, prediction)
    print(tr(SHEET[row].question))
    if not noted:
        print(tr("predict first: write down what you expect, and why, as prediction=\"…\"; then run this cell again"))
        return None
    print(tr("predicted: {text}", text=tr("; and later: ").join(noted)))
    return sweep(small, seeds=seeds, **grid)


def note_prediction(runs, row, prediction):
    """Note a prediction, unless it is empty or the last one; gives all that were made for this row."""
    noted = read_predictions(runs)
    own, text = noted.setdefault(row, []), str(prediction).strip()
    if text and own[-1:] != [text]:
        own.append(text)
        with write_whole(Path(runs, PREDICTIONS)) as temporary:
            temporary.write_text(json.dumps(noted, indent=1, ensure_ascii=False), encoding="utf-8")
    return own
