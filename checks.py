"""What can be known to go wrong, before hours are spent on it: phases, validation pictures, networks, weights."""

import copy
import inspect
import re
import shutil

import torch

import recipes
from models import make_discriminator
from utils import Enlarger


def check_phases(phases, cfg, extras):
    """Raise ValueError for a phase whose name, schedule or epoch function cannot work.

    `extras` are the names of what epoch functions can ask for beside networks, batches and settings.
    """
    if not all(hasattr(phase, "learning_rate") and callable(getattr(phase, "epoch", None)) for phase in phases):
        raise ValueError("phases must be a list of solver.Phase(name, function, epochs, learning_rate)")
    names, known = [phase.name for phase in phases], ["generator", "discriminator", "batches", *extras]
    for phase in phases:
        if not re.fullmatch(r"[a-z]\w*?(?<!\d)", phase.name) or names.count(phase.name) > 1:
            raise ValueError(f"phase {phase.name!r}: needs a name of its own, of small letters, digits and '_', "
                             f"with a letter at both ends")
        if not recipes.SCHEDULE.holds(phase.schedule):
            raise ValueError(f"phase {phase.name!r}: its schedule must be {recipes.SCHEDULE.wanted}, not "
                             f"{phase.schedule!r}")
        for name, parameter in inspect.signature(phase.epoch).parameters.items():
            if name not in known and name not in cfg and parameter.default is parameter.empty:
                raise ValueError(f"phase {phase.name!r}: its epoch function asks for {name!r}; it can have "
                                 f"{', '.join(known)}, and every setting")


def check_valid_set(valid_set, count):
    """Raise for one of the first `count` pictures of a TestDataset that scores cannot be taken of."""
    smallest = 2 * valid_set.scale + 11  # the border that is cut, and SSIM's window
    for index, row in enumerate(valid_set.rows[:count]):
        if min(row.width, row.height) < smallest:
            raise ValueError(f"{row.hr}: is {row.width}×{row.height}, too small to validate with (at least {smallest} "
                             f"on both sides); leave it out of the list")
        valid_set[index]  # raises what reading it raises


def check_generator(generator, scale):
    """Raise ValueError for a network that does not enlarge by `scale`."""
    found = Enlarger(generator).scale
    if found != scale:
        raise ValueError(f"the generator that models.make_generator builds enlarges ×{found}, but the setting scale "
                         f"is {scale}")


def check_batches(cfg, generator, needs_discriminator, size, memory):
    """Raise ValueError when the networks of these settings cannot be trained on batches of `size` patches.

    `memory` is what there is of it, in bytes; the least that training needs are the outputs of all convolutions.
    """
    needed = 0

    def add_up(module, inputs, output):
        nonlocal needed
        if isinstance(module, torch.nn.Conv2d):
            needed += 2 * output.numel()  # in half precision, where the hardware has it

    def check(network, side, what):
        if not any(weight.requires_grad for weight in network.parameters()):
            raise ValueError(f"the {what} that models.make_{what} builds has no weight that can learn; all have "
                             f"requires_grad = False")
        for module in network.modules():
            module.register_forward_hook(add_up)
        with torch.no_grad():
            try:
                return network.train()(torch.empty(size, 3, side, side, device="meta"))
            except NotImplementedError:  # what only works with values cannot be tried without
                return None
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                raise ValueError(f"the {what} cannot be trained on batches of {size} patches with sides of {side} "
                                 f"({str(error).splitlines()[0]}); change batch_size, crop or the network") from error

    check(copy.deepcopy(generator).to("meta"), cfg.crop // cfg.scale, "generator")
    if needs_discriminator:
        with torch.device("meta"):
            discriminator = make_discriminator(cfg)
        logits = check(discriminator.to("meta"), cfg.crop, "discriminator")  # (weights from a file are real even so)
        if logits is not None and (logits.ndim < 1 or len(logits) != size):
            raise ValueError(f"the discriminator that models.make_discriminator builds must give its logits for each "
                             f"picture, not a result of shape {tuple(logits.shape)} for a batch of {size}")
    if needed > memory:
        raise ValueError(f"training on batches of {size} patches of {cfg.crop}×{cfg.crop} needs more than "
                         f"{needed / 1e9:.0f} GB of memory, and there are {memory / 1e9:.0f} GB; choose a smaller "
                         f"batch_size, crop or network")


def check_room(folder, size):
    """Raise OSError when the disk of a folder (which need not be there yet) has less room than `size` bytes."""
    there = next(parent for parent in [folder, *folder.absolute().parents] if parent.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise OSError(f"{folder}: the run will take about {size / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free; "
                      f"make room, set keep_checkpoints to a small number, or runs to a folder on another disk")


def is_finite(network):
    """Whether all weights are numbers, and not so large that their squares are none."""
    norms = torch._foreach_norm([weight.detach() for weight in network.parameters()])
    return bool(torch.stack(norms).isfinite().all())
