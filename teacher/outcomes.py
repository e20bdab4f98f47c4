"""What the sheet "predict, run, observe" comes to: its rows run with several seeds, for the instructor."""

from create_data_lists import ensure_lists
from kit.compare.sweeps import gpus_for, sweep
from kit.compute.threads import counts
from kit.files import write_whole
from kit.handin.report import markdown
from kit.lessons.sheet import SHEET, sheet_settings
from kit.settings.recipes import settings


def write(path, seeds=3, rows=None, **changes):
    """Run rows of the sheet (all of them, if none is named) and write their tables, with mean ± spread, as Markdown.

    What was trained before is not trained again. Each has a thread of its own, so that equal settings come to equal
    figures whichever row they stand in. `changes` are settings, as for `solver.settings`.
    """
    cfg = settings("demo", **{"threads": 1, **changes})
    ensure_lists(cfg)
    small = sheet_settings(cfg, "loss")
    parts = ["# What the sheet comes to\n\n"
             f"The rows of `lessons.SHEET`, each variant trained with {seeds} seeds in the small setting "
             f"({small.warmup_epochs} epochs of warm-up, {small.adversarial_epochs} of adversarial training where that "
             f"is the question, each of {small.updates_per_epoch} updates): mean ± standard deviation on the held-out "
             "photographs. A difference that is not larger than the spread may be noise. These are of the whole kit's "
             "demo; the student edition starts from the paper's settings and comes to other figures. What they mean is "
             "said in answers.md."]
    at_once = len(gpus_for(cfg.device)) or counts()[0]
    for row in rows or SHEET:
        found = sweep(sheet_settings(cfg, row), seeds=seeds, at_once=at_once, **SHEET[row].grid)
        parts.append(f"## {row}\n\n{SHEET[row].question}\n\n{markdown(found)}")
    with write_whole(path) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path
