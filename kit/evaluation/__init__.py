"""How good an enlargement is. Trained generators come from `kit.evaluation.generators`, which imports `models`."""

from kit.evaluation.lpips import lpips
from kit.evaluation.measure import (
    ORIGINAL,
    enlarge_all,
    enlarge_each,
    evaluate,
    mean_scores,
    methods,
    scale_of,
    score_captions,
)
from kit.evaluation.niqe import niqe
from kit.evaluation.scores import phase_table, save_scores, score_sets, score_table

__all__ = ["ORIGINAL", "enlarge_all", "enlarge_each", "evaluate", "lpips", "mean_scores", "methods", "niqe",
           "phase_table", "save_scores", "scale_of", "score_captions", "score_sets", "score_table"]
