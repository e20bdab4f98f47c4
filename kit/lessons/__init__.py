"""The textbook's figures: every claim of the notebooks' texts, computed, where it can be on the student's own run.

    lessons.edge(methods)              # an edge under every way to enlarge, with its profile
    lessons.block_contributions(net)   # what each residual block adds, and what is lost without it

Every function returns a matplotlib.figure.Figure (closed, so that a notebook shows it once) or a Table. None of them
changes a run or a network.
"""

from kit.lessons.enlarging import edge, ill_posed, tiles, twice

# BEGIN SOLUTION NO PROMPT
from kit.lessons.failures import failures as failures

# END SOLUTION
from kit.lessons.losses import balance, mse_blurs, saturation, shifted_texture, updates
from kit.lessons.measures import equal_psnr, psnr_by_hand
from kit.lessons.networks import activations, block_contributions, pixel_shuffle
from kit.lessons.sheet import SHEET, observe

__all__ = ["SHEET", "activations", "balance", "block_contributions", "edge", "equal_psnr", "ill_posed",
           "mse_blurs", "observe", "pixel_shuffle", "psnr_by_hand", "saturation", "shifted_texture", "tiles", "twice",
           "updates"]
