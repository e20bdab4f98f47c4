"""The networks of a run: generator, discriminator, their optimizers, and the generator's average."""

import copy
from itertools import chain

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from kit.compute.layers import use_fast_layers
from kit.compute.learner import Learner, load_optimizer
from kit.runs.checkpoints import load_checkpoint
from kit.settings.recipes import generator_settings
from kit.settings.schema import section


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

    Raises ValueError for networks that cannot be trained with these settings.
    """

    def __init__(self, cfg, machine, make_generator, make_discriminator, judged):
        self.cfg, self.machine, self._discriminator_of = cfg, machine, make_discriminator
        torch.manual_seed(cfg.seed)
        self.generator, self.discriminator, self.average = self._placed(make_generator(cfg)), None, None
        # Of several processes one downloads what a network needs.
        machine.broadcast(lambda: check_networks(cfg, self.generator, make_discriminator if judged else None,
                                                 cfg.batch_size // machine.world, machine.memory))
        self.optimizers = {"generator": self._adam(self.generator)}
        self._begin_average()

    def __iter__(self):
        """Those that learn."""
        return iter([network for network in (self.generator, self.discriminator) if network is not None])

    @property
    def result(self):
        """The generator that is validated and kept: with `cfg.ema_decay` the average of the weights."""
        return self.average or self.generator

    def begin_phase(self):
        """Go on from the result, with optimizers anew: a new task, for which old momentum would mislead."""
        self.generator.load_state_dict(self.result.state_dict())
        self._begin_average()
        self.optimizers["generator"] = self._adam(self.generator)
        if self.discriminator:
            self.optimizers["discriminator"] = self._adam(self.discriminator)

    def add_discriminator(self):
        torch.manual_seed(self.cfg.seed + 1)
        self.discriminator = self.new_discriminator()
        self.optimizers["discriminator"] = self._adam(self.discriminator)

    def new_discriminator(self):
        return self._placed(self._discriminator_of(self.cfg), fast=not self.cfg.gradient_penalty)

    def learners(self, phase):
        """The networks that a phase asks for, as learners: name → Learner."""
        return {name: self._learner(name, self._compiled(name), self.optimizers[name], self.machine)
                for name in ("generator", "discriminator") if name in phase.parameters}

    def copies(self, phase):
        """The same of copies, which may learn what they like; the networks themselves stay as they are."""
        machine, learners = copy.copy(self.machine), {}
        machine.scaler = copy.deepcopy(machine.scaler)
        for name in ("generator", "discriminator"):
            if name in phase.parameters:
                with torch.random.fork_rng(devices=[]):
                    network = copy.deepcopy(getattr(self, name)) or self.new_discriminator()
                learners[name] = self._learner(name, network.train(), self._adam(network), machine)
        return learners

    def follow(self, steps):
        """Draw the average towards the generator after an update, the number `steps` of its phase."""
        if self.average:
            decay = min(self.cfg.ema_decay, (1 + steps) / (10 + steps))  # at first quickly, to forget random weights
            get_ema_multi_avg_fn(decay)(*map(_averaged, self._layers), steps)

    @staticmethod
    def is_finite(network):
        """Whether all weights are numbers, and not so large that their squares are none."""
        norms = torch._foreach_norm([weight.detach() for weight in network.parameters()])
        return bool(torch.stack(norms).isfinite().all())

    # ------------------------------------------------------------------------------------- saved and loaded

    def to_save(self):
        """What a saved state has of them."""
        saved = {"generator": self.generator.state_dict(), "generator_settings": section(self.cfg, "generator"),
                 "g_optimizer": self.optimizers["generator"].state_dict(), "scaler": self.machine.scaler.state_dict()}
        if self.average:
            saved["average"] = self.average.state_dict()
        if self.discriminator:
            saved |= {"discriminator": self.discriminator.state_dict(),
                      "d_optimizer": self.optimizers["discriminator"].state_dict()}
        return saved

    def load(self, saved):
        """Take weights and moments of a saved state."""
        self.generator.load_state_dict(saved["generator"])
        load_optimizer(self.optimizers["generator"], saved["g_optimizer"])
        if saved["scaler"] and self.machine.scaler.is_enabled():  # fp16, then and now
            self.machine.scaler.load_state_dict(saved["scaler"])
        self._begin_average()
        if self.average and "average" in saved:
            self.average.load_state_dict(saved["average"])
        if "discriminator" in saved:
            self.add_discriminator()
            self.discriminator.load_state_dict(saved["discriminator"])
            load_optimizer(self.optimizers["discriminator"], saved["d_optimizer"])

    def start_from(self, path):
        """Take the generator of a checkpoint; gives the number of updates that it has had.

        Raises ValueError for one that was built with other settings.
        """
        content, mine = load_checkpoint(path), section(self.cfg, "generator")
        other = generator_settings(content["generator_settings"])
        differences = [f"{name} = {other[name]!r}, not {mine[name]!r}" for name in mine if other[name] != mine[name]]
        if differences:
            raise ValueError(f"start_from: the generator in {path} was built with {', '.join(differences)}; make them "
                             f"equal")
        self.generator.load_state_dict(content["generator"])
        self._begin_average()
        return content.get("updates", 0)

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

    def _adam(self, network):
        learning = [weight for weight in network.parameters() if weight.requires_grad]  # a part may be frozen for good
        return torch.optim.Adam(learning, betas=(0.9, 0.999), eps=self.cfg.adam_eps,
                                fused=(self.cfg.fused_adam and self.machine.device.type != "mps") or None)

    def _begin_average(self):
        if self.cfg.ema_decay:
            self.average = copy.deepcopy(self.generator).requires_grad_(False)
            # Their layers, found once, for the search takes longer than the averaging.
            self._layers = [list(network.modules()) for network in (self.average, self.generator)]


def _averaged(layers):
    """What is averaged of a network's layers: weights and buffers, each once."""
    values = dict.fromkeys(chain.from_iterable(chain(layer._parameters.values(), layer._buffers.values())
                                               for layer in layers))
    return [value for value in values if value is not None and value.is_floating_point()]


def fingerprint(learners):
    """Something that changes with the weights of networks."""
    sums = [weight.detach().float().sum() for learner in learners for weight in learner.network.parameters()]
    return torch.stack(sums).tolist() if sums else []  # (a GPU waits once)


def check_networks(cfg, generator, make_discriminator, size, memory):
    """Raise ValueError when networks cannot be trained on batches of `size` patches, or are not what is needed.

    They are tried by shapes alone, which takes neither time nor memory. `memory` is what there is of it, in bytes; the
    least that training needs are the outputs of all convolutions. Without `make_discriminator` none is tried.
    """
    needed = 0

    def add_up(module, inputs, output):
        nonlocal needed
        if isinstance(module, torch.nn.Conv2d):
            needed += 2 * output.numel()  # in half precision, where the hardware has it

    def tried(network, side, what):
        if not any(weight.requires_grad for weight in network.parameters()):
            raise ValueError(f"the {what} that models.make_{what} builds has no weight that can learn; all have "
                             f"requires_grad = False")
        for module in network.modules():
            module.register_forward_hook(add_up)
        with torch.no_grad():
            try:
                return network.train()(torch.empty(size, 3, side, side, device="meta"))
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                if isinstance(error, NotImplementedError) or "meta tensor" in str(error):
                    return None  # what only works with values cannot be tried without
                raise ValueError(f"the {what} cannot be trained on batches of {size} patches with sides of {side} "
                                 f"({str(error).splitlines()[0]}); change batch_size, crop or the network") from error

    tried(copy.deepcopy(generator).to("meta"), cfg.crop // cfg.scale, "generator")
    check_enlarges(generator, cfg.scale)
    if make_discriminator:
        with torch.device("meta"):
            discriminator = make_discriminator(cfg)
        logits = tried(discriminator.to("meta"), cfg.crop, "discriminator")  # (weights from a file are real even so)
        if logits is not None and (logits.ndim < 1 or len(logits) != size):
            raise ValueError(f"the discriminator that models.make_discriminator builds must give its logits for each "
                             f"picture, not a result of shape {tuple(logits.shape)} for a batch of {size}")
    if needed > memory:
        raise ValueError(f"training on batches of {size} patches of {cfg.crop}×{cfg.crop} needs more than "
                         f"{needed / 1e9:.0f} GB of memory, and there are {memory / 1e9:.0f} GB; choose a smaller "
                         f"batch_size, crop or network")


def check_enlarges(generator, scale, side=16):
    """Raise ValueError unless a generator, as it is used when it is trained, enlarges a picture by `scale`."""
    name = type(generator).__name__
    try:
        with torch.no_grad():
            try:
                sr = copy.deepcopy(generator).to("meta").eval()(torch.empty(1, 3, side, side, device="meta"))
            except (RuntimeError, TypeError):  # what only works with values cannot be tried without
                device = next(generator.parameters()).device
                sr = copy.deepcopy(generator).eval()(torch.zeros(1, 3, side, side, device=device))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"the generator cannot enlarge a picture of {side}×{side} "
                         f"({str(error).splitlines()[0]})") from error
    found = sr.shape[-1] // side if isinstance(sr, torch.Tensor) and sr.ndim == 4 else 0
    if not found or sr.shape != (1, 3, found * side, found * side):
        what = tuple(sr.shape) if isinstance(sr, torch.Tensor) else type(sr).__name__
        raise ValueError(f"a generator must make N×3×(scale·H)×(scale·W) of N×3×H×W; this {name} makes {what} of "
                         f"(1, 3, {side}, {side})")
    if found != scale:
        raise ValueError(f"the generator that models.make_generator builds enlarges ×{found}, but the setting scale "
                         f"is {scale}")
