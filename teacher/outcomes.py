"""What the sheet "predict, run, observe" comes to: its rows run with several seeds, for the instructor."""

import recipes
from bench import sweep
from lessons import SHEET, sheet_settings
from report import markdown
from utils import write_whole


def write(path, seeds=3, rows=None, **changes):
    """Run rows of the sheet (all of them, if none is named) and write their tables, with mean ± spread, as Markdown.

    What was trained before is not trained again. `changes` are settings, as for `recipes.settings`.
    """
    cfg = sheet_settings(recipes.settings("demo", **changes))
    parts = ["# What the sheet comes to\n\nThe rows of `lessons.SHEET`, each variant trained with "
             f"{seeds} seeds in the small setting ({cfg.warmup_epochs} + {cfg.adversarial_epochs} epochs of "
             f"{cfg.updates_per_epoch} updates): mean ± standard deviation on the held-out photographs. A difference "
             "that is not larger than the spread may be noise."]
    for row in rows or SHEET:
        grid, question = SHEET[row]
        parts.append(f"## {row}\n\n{question}\n\n{markdown(sweep(cfg, seeds=seeds, **grid))}")
    with write_whole(path) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path
