"""What a run keeps in `runs/<name>/`, and what is read from there."""

from kit.runs.checkpoints import load_checkpoint, save_generator
from kit.runs.folder import Run
from kit.runs.history import (
    checkpoints,
    choose,
    current_run,
    read_histories,
    read_history,
    read_record,
    read_settings,
    run_names,
)

__all__ = ["Run", "checkpoints", "choose", "current_run", "load_checkpoint", "read_histories", "read_history",
           "read_record", "read_settings", "run_names", "save_generator"]
