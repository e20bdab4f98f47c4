"""The updates of an epoch, made by its phase's function; and what they must have done when it is over."""

import numpy as np
import torch

from datasets import batches
from kit.compute.learner import Learner
from kit.training.networks import fingerprint
from utils import to_signed, to_unit


def batches_on(machine, train_set, cfg, first, count):
    """`count` batches from number `first` on as tensors on the device: lr in [0, 1], hr in [-1, 1].

    PyTorch's generators of random numbers are seeded with the run's seed and the number of the batch before it is
    handed over: so noise or dropout in a phase is the same when a run is resumed.
    """
    found = batches(train_set, cfg.batch_size, first, count, cfg.workers, machine.rank, machine.world,
                    pinned=machine.device.type == "cuda")
    for number, (lr, hr) in enumerate(found, first):
        batch = to_unit(machine.move(lr)), to_signed(machine.move(hr))
        torch.manual_seed(int(np.random.SeedSequence([cfg.seed, number, machine.rank]).generate_state(1)[0]))
        yield batch


def updates(phase, arguments, rest, state, discriminator_rate, say):
    """Make the updates of an epoch that are not made yet, with the `rest` of its batches; yields the losses of each.

    The learners among the arguments are told the learning rate, and the number within the epoch, of the update that
    comes next. Raises ValueError for an epoch function that does not yield once for each batch.
    """
    learners = {name: argument for name, argument in arguments.items() if isinstance(argument, Learner)}
    before = fingerprint(learners.values())

    def prepare():
        for name, learner in learners.items():
            factor = discriminator_rate if name == "discriminator" else 1
            learner.learning_rate, learner.update = factor * state.learning_rate(phase), state.step

    def prepared():
        for batch in rest:
            prepare()
            yield batch

    for learner in learners.values():
        learner.network.train()
    watched = arguments.get("generator")
    for losses in phase.losses(arguments, prepared()):
        state.rate = watched.learning_rate if watched else None  # whatever the epoch function made of it
        yield losses
    if state.step != state.steps_per_epoch:
        raise ValueError(f"phase {phase.name!r}: its epoch function yielded {state.step} times for "
                         f"{state.steps_per_epoch} batches; it must yield its losses once for each")
    if before == fingerprint(learners.values()):
        say(f"no weight has changed in this epoch of phase {phase.name!r}: does its epoch function call "
            f"generator.descend(loss), or step() of an optimizer?")


def out_of_memory(error, phase, cfg, machine):
    """What to say when memory ran out in a phase."""
    return (f"{phase.name}: memory ran out on {machine.device}; choose a new name with a smaller batch_size (now "
            f"{cfg.batch_size}) or crop (now {cfg.crop}), or end other programs ({str(error).splitlines()[0]})")
