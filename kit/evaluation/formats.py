"""Checkpoints of other programs: which program's, and its layers brought into a network of ours.

An SRResNet is the same layers in the same order whatever they are called, so they are brought over in the order in
which networks use them. What its network takes and gives belongs to the program; the facts are from its public code.
"""

import re
from collections import defaultdict, namedtuple

import torch
from torch import nn

from kit.compute.layers import shapes_of
from kit.runs.checkpoints import LONGEST, check_weights, is_of_this_kit, read_checkpoint
from kit.settings.recipes import generator_settings

# `sign` is found in a name of its weights; `parts` begin names, in the order of layers; `settings` are those that
# weights do not show. Its network gives pictures in [0, 1] (`unit`), takes them standardised as ImageNet's, or has a
# PReLU where the paper has batch norm behind the last block (`trunk_slope`).
Format = namedtuple("Format", "name sign parts settings unit standardised trunk_slope",
                    defaults=({}, False, False, False))
BLOCKS = [f"block{number}." for number in range(1, 9)]
FORMATS = [
    Format("leftthomas/SRGAN", r"^block7\.1\.running_mean$", BLOCKS, {"tanh": True}),
    Format("leftthomas/SRGAN of 2018", r"^block8\.", BLOCKS, {"tanh": True}, trunk_slope=True),  # (its trained weights)
    Format("Lornatang/SRGAN-PyTorch", r"^trunk\.0\.rcb\.",
           ["conv1.", "conv_block1.", "trunk.", "conv2.", "conv_block2.", "upsampling.", "conv3.", "conv_block3."],
           unit=True),
    Format("sgrvinod/a-PyTorch-Tutorial-to-Super-Resolution", r"^residual_blocks\.0\.conv_block1\.conv_block\.",
           ["conv_block1.", "residual_blocks.", "conv_block2.", "subpixel_convolutional_blocks.", "conv_block3."],
           {"tanh": True}, standardised=True),
    Format("tensorlayer/SRGAN", r"^residual_block\.0\.conv1\.filters$|^conv2d_\d+/filters$",
           ["conv1.", "residual_block.", "conv2.", "bn1.", "conv3.", "conv4.", "conv5.", "conv2d_", "batchnorm2d_"],
           {"tanh": True, "signed_input": True}),
]
BASICSR = r"^upconv1\."  # MSRResNet
OTHERS = {BASICSR: "BasicSR's MSRResNet", r"^conv_after_body\.|^tail\.0\.0\.": "an EDSR",
          r"rdb1\.conv1|RDB1\.conv1": "the RRDBNet of ESRGAN and Real-ESRGAN", r"residual_group": "a SwinIR"}

UNDER = ["params_ema", "params", "ema_state_dict", "model_state_dict", "state_dict", "generator", "netG", "model"]
WRAPPERS = ("module.", "_orig_mod.")  # before all names: DataParallel's, torch.compile's
HOLDERS = ("net.", "generator.", "netG.")  # a module of the program's that holds the network
ROLES = {"filters": "weight", "gamma": "weight", "biases": "bias", "beta": "bias",
         "moving_mean": "running_mean", "moving_var": "running_var"}
LAYERS = {nn.Conv2d: "convolution", nn.BatchNorm2d: "batch norm", nn.PReLU: "PReLU"}

# A layer: its kind (of LAYERS), and role → tensor, such as "weight".
Layer = namedtuple("Layer", "kind values")
Known = namedtuple("Known", "format layers settings")


def stored(path):
    """What a file of weights holds, the generator's among them, and whether this kit wrote it.

    Of a run's state they are the average, where there is one: what was validated.
    Raises what `read_checkpoint` raises, and ValueError where there are no weights, or none of plain numbers.
    """
    content = read_checkpoint(path)
    ours = is_of_this_kit(content)
    weights = content.get("average", content["generator"]) if ours else weights_in(content)
    if weights is None:
        raise ValueError(f"{path}: holds no weights of a generator that the kit finds; save the state_dict() of its "
                         f"network")
    check_weights(path, weights)
    return content, weights, ours


def weights_in(content, depth=3):
    """The state dict in what a checkpoint holds, its names without those of wrappers; None where there is none.

    It may be the whole, or stand under one of the names in `UNDER`, of which the first that is there is taken; and so
    on, at most `depth` times.
    """
    if not isinstance(content, dict):
        return None
    for name in UNDER if depth else ():
        if found := weights_in(content.get(name), depth - 1):
            return found
    if not content or not all(isinstance(name, str) and len(name) <= LONGEST and isinstance(value, torch.Tensor)
                              for name, value in content.items()):
        return None
    return _without(content, WRAPPERS)


def _without(weights, prefixes):
    """A state dict without what all of its names begin with, if that is one of these."""
    while prefix := next((prefix for prefix in prefixes if all(name.startswith(prefix) for name in weights)), None):
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def recognised(weights):
    """Which program's SRResNet a state dict is: Known(format, layers, settings); None for others.

    Raises ValueError for weights that look like a program's and are not its network, and for programs that are known to
    have other networks.
    """
    weights = _without(weights, HOLDERS)
    found = next((each for each in FORMATS if _holds(weights, each.sign)), None)
    if found is None:
        if other := next((name for sign, name in OTHERS.items() if _holds(weights, sign)), None):
            raise ValueError(f"it is {other}, not an SRResNet; to use it, let your models.make_generator build its "
                             f"network")
        return None
    layers = layers_of(weights, found)
    return Known(found, layers, generator_settings({**settings_of(layers, found), **found.settings}))


def _holds(weights, sign):
    return any(re.search(sign, name) for name in weights)


def network_for(weights, make_generator):
    """The generator of a known program with these weights, and how many times it enlarges; (None, None) for others.

    It keeps to what the kit needs of generators: [0, 1] in, [-1, 1] out. `make_generator` builds it, but for BasicSR's,
    which is no SRResNet of the paper's. Raises what `recognised` raises, and ValueError where the layers do not fit.
    """
    if _holds(weights, BASICSR):
        return _basicsr(weights)
    known = recognised(weights)
    if known is None:
        return None, None
    theirs = sum(value.numel() for layer in known.layers for value in layer.values.values())
    mine = sum(value.numel() for value in shapes_of(make_generator, known.settings).parameters())
    if mine > 2 * theirs + 10_000:  # kernels larger than those in the file, say
        raise ValueError(f"it is {known.format.name}'s, with {theirs} values; your models.make_generator builds a "
                         f"network of {mine}")
    network = make_generator(known.settings)
    fill(network, known)
    return Standardised(network) if known.format.standardised else network, known.settings.scale


def _basicsr(weights):
    try:
        from kit.evaluation.msrresnet import MSRResNet
    except ModuleNotFoundError:  # (the student edition is without it)
        raise ValueError("it is BasicSR's MSRResNet, whose network this edition has not") from None
    # First the shapes alone: sizes in a stranger's file could ask for more memory than there is.
    if reason := misfit(shapes_of(MSRResNet.like, weights).state_dict(), weights):
        raise ValueError(f"it looks like BasicSR's MSRResNet, but {reason}")
    network = MSRResNet.like(weights)
    network.load_state_dict(weights)
    return network, network.scale


def layers_of(weights, found):
    """The layers in a state dict of a format, in order."""
    modules = defaultdict(dict)
    for name in sorted(weights, key=lambda name: _place(name, found)):
        module, role = re.fullmatch(r"(?s)(.*?)[./]?([^./]*)", name).groups()
        if role != "num_batches_tracked":
            modules[module][ROLES.get(role, role)] = weights[name]
    layers = []
    for module, values in modules.items():
        weight = values.get("weight", torch.empty(0, 0))
        kind = "batch norm" if "running_mean" in values else {4: "convolution", 1: "PReLU"}.get(weight.dim())
        if kind is None or not module:
            raise ValueError(f"it looks like {found.name}'s, but {module or 'a weight'} in it is no layer of an "
                             f"SRResNet")
        layers.append(Layer(kind, values))
    return layers


def _place(name, found):
    """What names are sorted by: the parts of the network in order, and in each by their numbers."""
    part = next((number for number, part in enumerate(found.parts) if name.startswith(part)), len(found.parts))
    return part, [(int(piece), "") if piece.isdecimal() else (0, piece) for piece in re.split(r"(\d+)", name)]


def settings_of(layers, found):
    """The settings of the generator whose layers these are, as far as weights show them."""
    convolutions, norms, slopes = ([layer.values for layer in layers if layer.kind == kind] for kind in LAYERS.values())
    shapes = [tuple(values["weight"].shape) for values in convolutions]
    channels = shapes[0][0] if shapes else 0
    stages = 0
    while stages < len(shapes) - 1 and shapes[-2 - stages][0] == 4 * channels:
        stages += 1
    blocks, odd = divmod(len(shapes) - 3 - stages, 2)
    wanted = {"batch norm": (len(norms), {2 * blocks} if found.trunk_slope else {0, 2 * blocks + 1, 2 * blocks + 2}),
              "PReLU": (len(slopes), {2 + blocks + stages} if found.trunk_slope else {0, 1 + blocks + stages})}
    inner = [shape[:2] for shape in shapes[1 : 2 + 2 * blocks]]
    if blocks < 1 or odd or stages < 1 or shapes[0][1] != 3 or set(inner) != {(channels, channels)}:
        raise ValueError(f"it looks like {found.name}'s, but its {len(shapes)} convolutions "
                         f"({', '.join('×'.join(map(str, shape)) for shape in shapes[:2])}, …) are not an SRResNet's")
    for kind, (count, counts) in wanted.items():
        if count not in counts:
            raise ValueError(f"it looks like {found.name}'s, but has {count} layers of {kind}, not "
                             f"{' or '.join(map(str, sorted(counts)))}")
    slope = slopes[0]["weight"].numel() if slopes else 0
    return {"scale": 2**stages, "channels": channels, "blocks": blocks, "first_kernel": shapes[0][-1],
            "last_kernel": shapes[-1][-1], "block_bias": "bias" in convolutions[1], "batch_norm": bool(norms),
            "first_norm": len(norms) == 2 * blocks + 2,
            "activation": {0: "relu", 1: "prelu"}.get(slope, "prelu_channels")}


def fill(network, known):
    """Give a network's layers, in the order in which it uses them, the values of what was `recognised`.

    Raises ValueError where they do not fit.
    """
    name = known.format.name
    if known.format.trunk_slope:
        _replace(network, _of_type(used_layers(network), nn.BatchNorm2d)[-1], nn.PReLU())
    used = used_layers(network)
    for type_, kind in LAYERS.items():
        theirs, mine = [layer.values for layer in known.layers if layer.kind == kind], _of_type(used, type_)
        if len(theirs) != len(mine):
            raise ValueError(f"it is {name}'s, with {len(theirs)} layers of {kind}; your models.make_generator builds "
                             f"{len(mine)}")
        for number, (values, module) in enumerate(zip(theirs, mine), 1):
            own = {role: tensor for role, tensor in module.state_dict().items() if role != "num_batches_tracked"}
            if "bias" in own and "bias" not in values:
                values = {**values, "bias": torch.zeros_like(own["bias"])}
            if reason := misfit(own, values):
                raise ValueError(f"it is {name}'s, and does not fit your models.make_generator: in {kind} {number}, "
                                 f"{reason}")
            module.load_state_dict(values, strict=False)  # (nobody counts batches)
    if known.format.unit:  # 2·y - 1, in the last convolution
        with torch.no_grad():
            last = _of_type(used, nn.Conv2d)[-1]
            last.weight.mul_(2)
            last.bias.mul_(2).sub_(1)


def _replace(network, layer, other):
    """Put another layer in the place of one, wherever it is in a network."""
    for module in network.modules():
        for name, child in module.named_children():
            if child is layer:
                setattr(module, name, other)


def _of_type(layers, type_):
    return [layer for layer in layers if isinstance(layer, type_)]


def used_layers(network):
    """A network's layers of the types in `LAYERS`, in the order in which it uses them."""
    used = []
    hooks = [module.register_forward_pre_hook(lambda module, _: used.append(module))
             for module in network.modules() if isinstance(module, tuple(LAYERS))]
    training = network.training
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 3, 16, 16))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return used


def misfit(mine, theirs):
    """The first thing in which the weights of a file differ from a network's in name or shape; None if they fit."""
    for name, value in mine.items():
        if name not in theirs:
            others = [other for other in theirs if other not in mine]
            return f"{name} is missing" + (f", and {others[0]} is there instead" if others else "")
        if value.shape != theirs[name].shape:
            return f"{name} is {_size(theirs[name])} in the file and {_size(value)} in the network"
    return next((f"{name} is in no layer of the network" for name in theirs if name not in mine), None)


def _size(tensor):
    return "×".join(map(str, tensor.shape)) or "one number"


class Standardised(nn.Module):
    """A generator that wants its pictures with the mean and spread of ImageNet's; takes them in [0, 1]."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("spread", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))

    def forward(self, lr):
        return self.network((lr - self.mean) / self.spread)
