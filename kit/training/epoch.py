"""The updates of an epoch, made by its phase's function; and what they must have done when it is over."""

from functools import partial

import numpy as np

from datasets import batches
from kit.compute.device import is_out_of_memory
from kit.compute.inference import reason_of
from kit.compute.learner import Learner
from kit.language import tr
from kit.training.networks import fingerprint, seed_all
from utils import to_signed, to_unit


def batches_on(machine, train_set, cfg, first, count):
    """`count` batches from number `first` on as tensors on the device: lr in [0, 1], hr in [-1, 1].

    PyTorch's, NumPy's and Python's random numbers are seeded with the run's seed and the number of the batch before it
    is handed over: so noise or dropout in a phase is the same when a run is resumed.
    """
    found = batches(train_set, cfg.batch_size, first, count, cfg.workers, machine.rank, machine.world,
                    pinned=machine.device.type == "cuda")
    for number, (lr, hr) in enumerate(found, first):
        batch = to_unit(machine.move(lr)), to_signed(machine.move(hr))
        seed_all(seed_of(cfg.seed, number, machine.rank), machine.device)
        yield batch


def seed_of(*numbers):
    """One seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class Rest:
    """The batches of an epoch that are still to come; its length is that of the whole epoch, as of a DataLoader."""

    def __init__(self, batches, length):
        self.batches, self.length = batches, length

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return self.length


def rest_of_epoch(length, machine, train_set, cfg, first, count):
    """The batches of `batches_on`, with the length of the whole epoch."""
    return Rest(batches_on(machine, train_set, cfg, first, count), length)


def updates(phase, arguments, rest, state, seed, discriminator_rate, say):
    """Make the updates of an epoch that are not made yet, with the `rest` of its batches; yields the losses of each.

    The learners among the arguments are told the learning rate, and the number within the epoch, of the update that
    comes next. Random numbers are seeded with `seed`, that of the epoch, before its function is called: what that draws
    before its first batch is the same when the epoch is resumed.

    Raises ValueError for an epoch function that does not yield once for each batch, or makes no update.
    """
    learners = {name: argument for name, argument in arguments.items() if isinstance(argument, Learner)}
    if state.step == state.steps_per_epoch:  # it was saved before its validation, and that was killed
        return
    before, set_to, used, told, steps = fingerprint(learners.values()), {}, {}, [], []
    whole = state.step == 0
    # What it freezes is its own affair: the next epoch, or what resumes this one, begins as it did.
    learned = [(weight, weight.requires_grad) for one in learners.values() for weight in one.network.parameters()]

    def prepare():
        for name, learner in learners.items():
            if name in set_to and learner.learning_rate not in (set_to[name], used.get(name)) and not told:
                told.append(name)
                say(tr("the learning rate of the {network} was changed after an update of phase {phase!r}, and is set "
                       "anew before the next: give the phase a schedule instead, which may be a function of your own",
                       network=tr(name), phase=phase.name))
            factor = discriminator_rate if name == "discriminator" else 1
            learner.learning_rate = set_to[name] = factor * state.learning_rate(phase)
            learner.update = state.step

    def note(name, optimizer, *_):
        steps.append(name)
        used[name] = float(optimizer.param_groups[0]["lr"])  # (also of a number of NumPy's)
        state.rate = used.get("generator", state.rate)

    for learner in learners.values():
        learner.network.train()
    hooks = [learner.optimizer.register_step_pre_hook(partial(note, name)) for name, learner in learners.items()]
    prepare()
    try:
        state.torn = True  # until it is counted
        seed_all(seed)
        for losses in phase.losses(arguments, rest):
            yield losses
            prepare()
            state.torn = True
        state.torn = False
    finally:
        for hook in hooks:
            hook.remove()
        for weight, learns in learned:
            weight.requires_grad_(learns)
    if state.step != state.steps_per_epoch:
        raise ValueError(f"phase {phase.name!r}: its epoch function yielded {state.step} times for "
                         f"{state.steps_per_epoch} batches; it must yield its losses once for each")
    if whole and not steps and before == fingerprint(learners.values()):  # (it may have an optimizer of its own)
        raise ValueError(f"phase {phase.name!r}: its epoch function has made no update in a whole epoch, so it trains "
                         f"nothing: it must call generator.descend(loss), or step() of an optimizer, for each batch")


def explained(error, phase, cfg, machine):
    """An error of training as a ValueError that says what to do; None where it speaks for itself."""
    if isinstance(error, (RuntimeError, MemoryError)) and is_out_of_memory(error):
        return ValueError(f"{phase.name}: memory ran out on {machine.device}; choose a new name with a smaller "
                          f"batch_size (now {cfg.batch_size}) or crop (now {cfg.crop}), or end other programs "
                          f"({reason_of(error)})")
    if isinstance(error, RuntimeError) and "view size is not compatible" in str(error):
        return ValueError(f"{phase.name}: {error}; or set channels_last to False")
    return None
