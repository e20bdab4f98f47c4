"""The networks of a run: generator, discriminator, their optimizers, and the generator's average."""

import copy
import random
import re
from functools import partial

import numpy as np
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from kit.compute.inference import reason_of
from kit.compute.layers import copy_of, use_fast_layers
from kit.compute.learner import Learner, load_optimizer
from kit.console import printable
from kit.evaluation.formats import fill, misfit, recognised, stored
from kit.language import N_, tr
from kit.settings.recipes import generator_settings
from kit.settings.schema import plain, section
from kit.training.checks import check_kind, check_logits, check_memory, settle_format
from kit.training.phases import OPTIMIZERS


class Networks:
    """Makes the networks of these settings, checks that they can be trained, lets them learn, saves and loads them.

    Parameters
    ----------
    cfg : EasyDict
    machine : kit.compute.device.Machine
    make_generator, make_discriminator : callable
        cfg → network, as in `models.py`.
    judged : bool
        Whether a discriminator will be needed; it is made when a phase asks for it.
    say : callable
        Takes a sentence for the user.

    Raises ValueError for networks that cannot be trained with these settings.
    """

    def __init__(self, cfg, machine, make_generator, make_discriminator, judged, say):
        self.cfg, self.machine, self._discriminator_of = cfg, machine, make_discriminator
        seed_all(cfg.seed)
        self.generator = self._placed(check_kind(_made(make_generator, cfg, say), "generator"))
        self.discriminator = self.average = None
        size = cfg.batch_size // machine.world
        # Of several processes one downloads what a network needs.
        machine.broadcast(lambda: check_memory(cfg, self.generator, make_discriminator if judged else None, size,
                                               machine.memory))
        settle_format(machine, N_("generator"), partial(copy_of, self.generator), size, cfg.crop // cfg.scale, say,
                      cfg.precision == "auto")
        if judged:
            check_logits(*settle_format(machine, "discriminator", self.new_discriminator, size, cfg.crop, say,
                                        cfg.precision == "auto"))
        self.generator = machine.move(self.generator)
        self._learning = {}  # network → the names of its weights that learn; a part may be frozen for good
        self.optimizers = {"generator": self._adam(self.generator, "generator")}
        self._begin_average()

    def __iter__(self):
        """Those that learn."""
        return iter([network for network in (self.generator, self.discriminator) if network is not None])

    @property
    def result(self):
        """The generator that is validated and kept: with `cfg.ema_decay` the average of the weights."""
        return self.generator if self.average is None else self.average

    def begin_phase(self):
        """Go on from the result, with optimizers anew: a new task, for which old momentum would mislead."""
        _load(self.generator, self.result.state_dict())
        self._begin_average()
        self.optimizers = {name: self._adam(getattr(self, name), name) for name in self.optimizers}

    def add_discriminator(self):
        seed_all(self.cfg.seed + 1)
        self.discriminator = self.new_discriminator()
        self.optimizers["discriminator"] = self._adam(self.discriminator, "discriminator")

    def new_discriminator(self):
        network = check_kind(self._discriminator_of(self.cfg), "discriminator")
        return self._placed(network, fast=not self.cfg.gradient_penalty)

    def learners(self, phase):
        """The networks that a phase asks for as learners, by name, and their optimizers, if it asks for those."""
        return _with_optimizers(phase, {
            name: self._learner(name, self._compiled(name), self.optimizers[name], self.machine)
            for name in ("generator", "discriminator") if name in phase.parameters})

    def copies(self, phase):
        """The same of copies, which may learn what they like; the networks themselves stay as they are."""
        machine, learners = copy.copy(self.machine), {}
        machine.scaler = copy.deepcopy(machine.scaler)
        for name in ("generator", "discriminator"):
            if name in phase.parameters:
                with torch.random.fork_rng(devices=[]):
                    network = getattr(self, name)
                    network = self.new_discriminator() if network is None else copy_of(network)
                learners[name] = self._learner(name, network.train(), self._adam(network, name), machine)
        return _with_optimizers(phase, learners)

    def follow(self, steps):
        """Draw the average towards the generator after an update, the number `steps` of its phase."""
        if self.average is not None:
            decay = min(self.cfg.ema_decay, (1 + steps) / (10 + steps))  # at first quickly, to forget random weights
            get_ema_multi_avg_fn(decay)(*([getattr(layers[i], kind)[name] for i, kind, name in self._averaged]
                                          for layers in self._layers), steps)

    @staticmethod
    def is_finite(network):
        """Whether all weights are numbers, and not so large that their squares are none."""
        norms = torch._foreach_norm([weight.detach() for weight in network.parameters() if weight.is_floating_point()])
        return bool(torch.stack(norms).isfinite().all())

    # ------------------------------------------------------------------------------------- saved and loaded

    def to_save(self):
        """What a saved state has of them."""
        saved = {"generator": self.generator.state_dict(), "generator_settings": section(self.cfg, "generator"),
                 "g_optimizer": _state_of(self.optimizers["generator"]), "scaler": self.machine.scaler.state_dict()}
        if self.average is not None:
            saved["average"] = self.average.state_dict()
        if self.discriminator is not None:
            saved |= {"discriminator": self.discriminator.state_dict(),
                      "d_optimizer": _state_of(self.optimizers["discriminator"])}
        return saved

    def load(self, saved):
        """Take weights and moments of a saved state."""
        _load(self.generator, saved["generator"])
        load_optimizer(self.optimizers["generator"], saved["g_optimizer"])
        if saved["scaler"] and self.machine.scaler.is_enabled():  # fp16, then and now
            self.machine.scaler.load_state_dict(saved["scaler"])
        self._begin_average()
        if self.average is not None and "average" in saved:
            _load(self.average, saved["average"])
        if "discriminator" in saved:
            self.add_discriminator()
            _load(self.discriminator, saved["discriminator"])
            load_optimizer(self.optimizers["discriminator"], saved["d_optimizer"])

    def start_from(self, path):
        """Take the generator of a checkpoint, of this kit or another program; gives the number of updates it has had.

        Raises ValueError for one that was built with other settings, or that does not fit.
        """
        content, weights, ours = stored(path)
        mine, known = section(self.cfg, "generator"), None
        try:
            if ours:
                other = generator_settings(content["generator_settings"])
            else:
                known = recognised(weights)
                other = known.settings if known else mine
            differences = ", ".join(f"{name} = {other[name]!r}, not {value!r}" for name, value in mine.items()
                                    if other[name] != value)
            if differences:
                raise ValueError(f"it was built with {differences}; make them equal")
            if known is None:
                _load(self.generator, weights)
            elif known.format.standardised or known.format.trunk_slope:
                raise ValueError(f"it is {known.format.name}'s, whose network is another than these settings build")
            else:
                fill(self.generator, known)
        except ValueError as error:
            raise ValueError(f"start_from: {path}: {printable(error)[:500]}") from error
        self._begin_average()
        updates = content.get("updates") if ours else 0
        return updates if type(updates) is int else 0

    # ------------------------------------------------------------------------------------------- helpers

    def _learner(self, name, network, optimizer, machine):
        return Learner(network, optimizer, machine, self.cfg.clip_gradients if name == "generator" else None)

    def _compiled(self, name):
        network = getattr(self, name)
        if self.cfg.compile and not (name == "discriminator" and self.cfg.gradient_penalty):
            torch._dynamo.config.suppress_errors = True  # fall back to running a part as it is
            network.compile()
        return network

    def _placed(self, network, fast=True):
        """A network on the machine; neither `fast` layers nor compiled ones can be differentiated twice."""
        if self.cfg.sync_batch_norm and self.machine.world > 1 and self.machine.device.type == "cuda":
            network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return self.machine.move(use_fast_layers(network) if fast else network)

    def _adam(self, network, name):
        """An optimizer of all weights that learned when the network was made, whatever a phase has frozen since."""
        weights = dict(network.named_parameters())
        names = self._learning.setdefault(name, [one for one, weight in weights.items() if weight.requires_grad])
        learning = [weights[one] for one in names]
        return torch.optim.Adam(learning, betas=(self.cfg.adam_beta1, self.cfg.adam_beta2), eps=self.cfg.adam_eps,
                                fused=(self.cfg.fused_adam and self.machine.device.type != "mps") or None)

    def _begin_average(self):
        if self.cfg.ema_decay:
            self.average = copy_of(self.generator).requires_grad_(False)
            # Their layers, found once, for the search takes longer than the averaging.
            self._layers = [list(network.modules()) for network in (self.average, self.generator)]
            self._averaged = _averaged(self._layers[0])


def _made(make_generator, cfg, say):
    """A generator, made of its own settings: when a checkpoint of it is loaded there are no others."""
    own = section(cfg, "generator")
    try:
        return make_generator(type(cfg)(own))
    except (AttributeError, KeyError) as error:
        if not (set(cfg) - set(own)) & set(re.findall(r"\w+", str(error))):
            raise
        say(tr("make_generator asks for other settings than {names} ({error}): it is trained, but its checkpoints "
               "cannot be loaded, for without them it cannot be made again", names=", ".join(own), error=error))
        return make_generator(cfg)


def _with_optimizers(phase, learners):
    """Learners, and their optimizers under the names by which a phase asks for those, with losses of its own, then."""
    optimizers = {short: learners[name].optimizer for short, name in OPTIMIZERS.items() if short in phase.parameters}
    for learner in learners.values():
        learner.gives_fp32 = bool(optimizers)
    return learners | optimizers


def _state_of(optimizer):
    """What is saved of an optimizer; an epoch function may have set numbers of NumPy's in it."""
    state = optimizer.state_dict()
    groups = [{name: plain(value) for name, value in group.items()} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def _averaged(layers):
    """What is averaged of a network's layers, each once: (number of the layer, "_parameters" or "_buffers", name).

    Infinities, of a mask say, have no average; they stay, as does what is not saved, but made anew.
    """
    found = {}
    for i, layer in enumerate(layers):
        for kind in ("_parameters", "_buffers"):
            for name, value in getattr(layer, kind).items():
                if (value is not None and name not in layer._non_persistent_buffers_set
                        and value.is_floating_point() and value.isfinite().all()):
                    found.setdefault(id(value), (i, kind, name))
    return list(found.values())


def _load(network, weights):
    """Give a network weights as PyTorch does; it may have a way of its own, which does another thing.

    Raises ValueError that names the first weight that does not fit, where PyTorch's error begins with none.
    """
    try:
        torch.nn.Module.load_state_dict(network, weights)
    except RuntimeError as error:
        raise ValueError(misfit(network.state_dict(), weights) or reason_of(error)) from error


def seed_all(seed, device=None):
    """Seed all random numbers that networks and losses may draw, on this device (without it: on all)."""
    # For devices that are not in use PyTorch notes from where it was called: half a millisecond, in each update.
    only_cpu = device is not None and device.type == "cpu"
    (torch.default_generator if only_cpu else torch).manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def fingerprint(learners):
    """Something that changes with the weights of networks."""
    sums = [weight.detach().float().sum() for learner in learners for weight in learner.network.parameters()]
    return torch.stack(sums).tolist() if sums else []  # (a GPU waits once)
