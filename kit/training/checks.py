"""Whether networks can be trained with these settings: tried before the first update, not after an hour."""

from contextlib import contextmanager, suppress
from functools import partial

import torch
from torch.nn.parameter import UninitializedParameter

from kit.compute import layers
from kit.compute.device import is_out_of_memory
from kit.compute.inference import reason_of
from kit.compute.layers import copy_of, shapes_of
from kit.language import tr
from kit.runs.checkpoints import LONGEST, STORED, can_be_loaded

MOST = 2**16  # numbers for each pixel of a patch, over a hundred times as many as the paper's networks have


@contextmanager
def memory_told(machine):
    """A context in which networks are made and tried, and in which memory that runs out raises ValueError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(f"memory ran out on {machine.device} when the networks were made and tried; choose a smaller "
                         f"crop or network, or end other programs ({reason_of(error)})") from error


def check_kind(network, what):
    """The network itself, if it is of PyTorch's plain modules; else raises ValueError."""
    if not isinstance(network, torch.nn.Module):
        raise ValueError(f"models.make_{what} must give a torch.nn.Module, not {type(network).__name__}")
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise ValueError(f"the {what} has parts in TorchScript, which cannot be trained here; make it of nn.Modules")
    if any(isinstance(weight, UninitializedParameter) for weight in network.parameters()):
        raise ValueError(f"the {what} has layers that do not know their sizes yet (Lazy…); name the sizes")
    if any(torch.is_complex(tensor) for tensor in (*network.parameters(), *network.buffers())):
        raise ValueError(f"the {what} has complex weights, which are not kept here; let it keep pairs of real numbers, "
                         f"see torch.view_as_complex")
    return network


def check_memory(cfg, generator, make_discriminator, size, memory):
    """Raise ValueError when training on batches of `size` patches needs more than `memory` bytes.

    The least that it needs are the outputs of all convolutions, found by shapes alone, as far as networks can be tried
    so, and only where `MOST` of them would be too many. Without `make_discriminator` there is none.
    """
    discriminator = None
    if make_discriminator:  # also where nothing is tried: this downloads what it needs
        discriminator = shapes_of(lambda: check_kind(make_discriminator(cfg), "discriminator"))
    if 2 * MOST * size * cfg.crop**2 <= memory:  # (to try small networks takes as long as to train them for an update)
        return
    needed = 0

    def add_up(module, inputs, output):
        nonlocal needed
        if isinstance(module, torch.nn.Conv2d):
            needed += 2 * output.numel()  # in half precision, where the hardware has it

    networks = [(copy_of(generator).to("meta"), cfg.crop // cfg.scale)]
    if discriminator is not None:
        networks.append((discriminator, cfg.crop))
    for network, side in networks:
        for module in network.modules():
            module.register_forward_hook(add_up)
        with torch.no_grad(), suppress(Exception):  # (what it fails at, it may do with real numbers)
            network.train()(torch.empty(size, 3, side, side, device="meta"))
    if needed > memory:
        raise ValueError(f"training on batches of {size} patches of {cfg.crop}×{cfg.crop} needs more than "
                         f"{needed / 1e9:.0f} GB of memory, and there are {memory / 1e9:.0f} GB; choose a smaller "
                         f"batch_size, crop or network")


def settle_format(machine, what, make, size, side, say, may_change):
    """Choose the memory layout and number format of the machine so that a network can learn in them.

    One that is written for PyTorch's usual layout, with `x.view(len(x), -1)` say, cannot in the one that is quickest;
    one that mixes in numbers of its own may need fp32, which is taken if the precision `may_change`. Each is tried by
    a forward and a backward pass of a network that `make()` makes, of two of `size` patches with sides of `side`, or of
    all where it asks for more.

    Returns what the network made of them, and how many they were. Raises ValueError for a network that cannot learn.
    """
    wanted, reasons = (machine.layout, machine.precision), []
    for precision in dict.fromkeys([machine.precision, "fp32"] if may_change else [machine.precision]):
        for layout in dict.fromkeys([wanted[0], torch.contiguous_format]):
            machine.layout = layout
            machine.set_precision(precision)
            network = machine.move(make())
            made = {name: getattr(value, "shape", None) for name, value in network.state_dict().items()}
            if not any(weight.requires_grad for weight in network.parameters()):
                raise ValueError(f"the {what} that models.make_{what} builds has no weight that can learn; all have "
                                 f"requires_grad = False")
            try:
                output = _tried(network, machine, size, side)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                reasons.append(reason_of(error))
                continue
            check_saved(what, made, network)
            if reasons:
                now = [name for name, changed in [(tr("the usual memory layout"), layout != wanted[0]),
                                                  ("fp32", precision != wanted[1])] if changed]
                say(tr("the {network} cannot be trained as is quickest here ({reason}), so both networks are in {now}, "
                       "which is slower", network=tr(what), reason=reasons[0], now=" + ".join(now)))
            return output
    advice = "" if may_change or wanted[1] == "fp32" else ", or its precision = 'fp32'"
    raise ValueError(f"the {what} cannot be trained on batches of {size} patches with sides of {side} "
                     f"({reasons[-1]}); change batch_size, crop or the network{advice}")


def _tried(network, machine, size, side):
    """What `_learned` gives for two patches, or for `size` where it fails for two; and how many they were."""
    try:
        return _learned(network, machine, min(size, 2), side), min(size, 2)
    except Exception:
        if size <= 2:
            raise
        return _learned(network, machine, size, side), size


def check_saved(what, made, network):
    """Raise ValueError for a network whose state could not be loaded again.

    `made` are the shapes in its state as it was made; now it was tried.
    """
    tried = network.state_dict()
    if odd := [name for name, value in tried.items() if not isinstance(value, torch.Tensor)]:
        raise ValueError(f"the {what} keeps {odd[0]} in its state, which is no tensor: a run could not be resumed")
    if odd := [name for name, value in tried.items()
               if value.numel() * value.element_size() > value.untyped_storage().nbytes()]:
        raise ValueError(f"the {what} keeps {odd[0]} as a view of fewer numbers (expand?), which cannot be saved "
                         f"whole; give it memory of its own with .clone()")
    if odd := [name for name in tried if name not in made or made[name] != tried[name].shape]:
        raise ValueError(f"the {what} makes or changes {odd[0]} in its forward pass: a run could not be resumed; make "
                         f"it in __init__, or register it with persistent=False")
    if odd := [name for name, value in tried.items()
               if value.dtype not in STORED or what == "generator" and not can_be_loaded(name, value)]:
        raise ValueError(f"the {what} keeps {odd[0][:LONGEST]} in its state ({tried[odd[0]].dtype}), and a run could "
                         f"not be resumed: what is kept may have no complex numbers, no uint16, uint32 or uint64, no "
                         f"NaN, and no name of more than {LONGEST} letters; register it with persistent=False")
    try:
        torch.nn.Module.load_state_dict(network, tried)
    except RuntimeError as error:
        raise ValueError(f"the {what} cannot be given back what its state_dict() gives, so a run could not be resumed; "
                         f"leave state_dict() as PyTorch has it ({' '.join(str(error).split())[:300]})") from error


def _learned(network, machine, size, side):
    """The output of a network for some patches, after a backward pass from it."""
    patches = torch.rand(size, 3, side, side, generator=torch.Generator().manual_seed(0))
    with machine.autocast(), place_told(network):
        output = network.train()(machine.move(patches))
    if isinstance(output, torch.Tensor) and output.requires_grad:
        output.float().mean().backward()
    return output


def check_same(cfg, given):
    """Raise ValueError where the settings that a trainer was made with, `cfg`, were changed since."""
    for setting, value in given.items():
        if cfg.get(setting) != value:
            raise ValueError(f"{setting} was {cfg.get(setting)!r} when the trainer was made, and cfg says {value!r} "
                             f"now; make it again: trainer = solver.Trainer(cfg)")


@contextmanager
def place_told(network):
    """A context in which an error of a network's forward pass names the layer, and the sizes of what that was given."""
    inside = []

    def enter(name, module, inputs):
        inside.append((name, module, [tuple(one.shape) for one in inputs if isinstance(one, torch.Tensor)]))

    def leave(*_):
        inside.pop()  # (what it returned would be the output)

    # (One that torch.compile has made takes no hooks, and compiles itself when it is tried.)
    inner = () if type(network).__name__ == "OptimizedModule" else network.named_modules()
    hooks = [hook for name, module in inner for hook in (
        module.register_forward_pre_hook(partial(enter, name)), module.register_forward_hook(leave))]
    try:
        yield
    except Exception as error:
        if not inside or is_out_of_memory(error):
            raise
        name, module, shapes = inside[-1]
        kind = type(module)
        kind = kind.__bases__[0] if kind.__module__ == layers.__name__ else kind  # a quicker one of the kit's
        kind = kind.__name__ + ("" if next(module.children(), None) else f"({module.extra_repr()})")
        given = " and ".join("×".join(map(str, shape)) for shape in shapes)
        raise RuntimeError(f"in {f'{name}, a ' if name else ''}{kind}, given {given}: {reason_of(error)}") from error
    finally:
        for hook in hooks:
            hook.remove()


def check_logits(logits, size):
    """Raise ValueError when a discriminator gives one tensor, and not with logits for each of `size` pictures; or None.

    What else it gives, a list of feature maps say, is between it and the epoch function.
    """
    if logits is None or isinstance(logits, torch.Tensor) and (logits.ndim < 1 or len(logits) != size):
        what = "None (is there no return?)" if logits is None else f"a result of shape {tuple(logits.shape)}"
        raise ValueError(f"the discriminator that models.make_discriminator builds must give its logits for each "
                         f"picture, not {what} for a batch of {size}")


def check_enlarges(enlarge, scale, sizes):
    """Raise ValueError unless an Enlarger enlarges by `scale`, and low-resolution pictures of these (height, width)."""
    if enlarge.scale != scale:
        raise ValueError(f"the generator that models.make_generator builds enlarges ×{enlarge.scale}, but the setting "
                         f"scale is {scale}")
    for height, width in sizes:
        enlarge.check_size(height, width)
