"""Trained generators from their checkpoints, built by the student's `models.make_generator`.

Of all that stands below `solver.py`, this file alone imports `models.py`.
"""

from functools import partial
from pathlib import Path

import torch
from torch import nn

from kit.compute.device import Machine, layout_for
from kit.compute.inference import reason_of, tried_sizes
from kit.compute.layers import placed, shapes_of
from kit.console import printable
from kit.evaluation.formats import misfit, network_for, stored
from kit.evaluation.measure import evaluate, mean_scores
from kit.language import tr
from kit.settings.recipes import generator_settings, settings
from models import make_generator
from utils import Enlarger, bicubic


def load_generator(path, device="cpu"):
    """The generator of a checkpoint, in evaluation mode, built by `models.make_generator`.

    The kit's own checkpoints; those of other programs that `kit.evaluation.formats` knows; and any state dict that fits
    the network that `make_generator` builds with the paper's settings.

    Raises FileNotFoundError, or ValueError for a damaged file and for weights that do not fit the network that
    `models.py` builds from the settings beside them.
    """
    return _built(path, device)[0]


def _built(path, device):
    """The generator of a checkpoint, and how many times it enlarges."""
    content, weights, ours = stored(path)
    generator = None
    try:
        cfg = generator_settings(content["generator_settings"]) if ours else settings("paper")
        if not ours:
            generator, scale = network_for(weights, make_generator)
    except ValueError as error:
        raise ValueError(f"{path}: {printable(error)[:500]}") from error
    if generator is None:
        generator, scale = _with_weights(path, weights, cfg), cfg.scale
    generator = placed(generator, device, layout_for(device)).eval()
    if not _makes_numbers(generator, device):
        raise ValueError(f"{path}: what its network makes of a picture is no number; its weights are damaged, or of a "
                         f"training that diverged")
    return generator, scale


def _makes_numbers(generator, device):
    """Whether a generator makes finite numbers of a picture; of one that does not enlarge others will say that."""
    try:
        with torch.inference_mode():
            *_, made, _ = tried_sizes(generator, device)
    except ValueError:
        return True
    return bool(made.isfinite().all())


def _with_weights(path, weights, cfg):
    """The generator that `models.make_generator` builds from settings, with these weights."""
    try:
        # First the shapes alone: a stranger's settings could ask for more memory than there is.
        shapes = shapes_of(make_generator, cfg)
        try:
            nn.Module.load_state_dict(shapes, weights, assign=True)
        except RuntimeError as error:  # of which the first line names none
            raise ValueError(misfit(shapes.state_dict(), weights) or reason_of(error)) from error
        generator = make_generator(cfg)
        nn.Module.load_state_dict(generator, weights)  # (a network may have another of its own)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        reason = printable(reason_of(error))[:500]
        raise ValueError(f"{path}: its weights do not fit your models.py with the settings in it, or the paper's where "
                         f"there are none ({reason}); models.make_generator must build the network that they are "
                         f"of") from error
    return generator


def load_generators(checkpoints, device="auto"):
    """The generators of several checkpoints, as far as there are such files, on the best device there is.

    Takes and gives dictionaries, name → path and name → generator. What is left out is printed: a file that
    is not there (yet), weights of another network than `models.py` builds, and a generator of another scale than
    the first. Raises ValueError when nothing remains.
    """
    generators, first_scale, device = {}, None, Machine(device).device
    for name, path in checkpoints.items():
        if not Path(path).is_file():
            print(tr("{name} is left out: there is no file {path} (yet)", name=name, path=path))
            continue
        try:
            generator, scale = _built(path, device)
        except ValueError as error:
            print(tr("{name} is left out: {error}", name=name, error=error))
            continue
        first_scale = first_scale or scale
        if scale != first_scale:
            print(tr("{name} is left out: {path} enlarges ×{scale}, and the first ×{first}", name=name, path=path,
                     scale=scale, first=first_scale))
        else:
            generators[name] = generator
    if not generators:
        raise ValueError(f"there is none of the checkpoints {', '.join(map(str, checkpoints.values()))}; train first, "
                         f"or correct the names")
    return generators


def baselines(valid_set, limit=None, checkpoints=None):
    """Mean PSNR of bicubic interpolation, and of the generators of some checkpoints, on a TestDataset: name → dB."""
    generators = {name: load_generator(path) for name, path in (checkpoints or {}).items() if Path(path).is_file()}
    ways = {"bicubic": partial(bicubic, scale=valid_set.scale),
            **{name: Enlarger(generator) for name, generator in generators.items()}}
    return {name: mean_scores(evaluate(enlarge, valid_set, limit, progress=False))[0]
            for name, enlarge in ways.items() if getattr(enlarge, "scale", valid_set.scale) == valid_set.scale}
