"""Every setting of a run, its meaning and its value in the paper; the recipes that change some; command-line options.

    cfg = recipes.settings("demo", name="first", warmup_lr=1e-3)
    recipes.describe(cfg)        # what differs from the paper, and what it means
"""

import argparse
import ast
import math
import re
from collections import namedtuple
from pathlib import Path

from easydict import EasyDict

from utils import Table, did_you_mean

class Check(namedtuple("Check", "holds wanted")):
    def __repr__(self):
        return self.wanted


Setting = namedtuple("Setting", "paper check meaning")

_TEXT = Check(lambda v: isinstance(v, str) and v != "", "a text")
_NAME = Check(lambda v: isinstance(v, str) and re.fullmatch(r"\w[\w.-]*", v),
              "a word of letters, digits, '_', '-' and '.'")
_NAME_OR_NONE = Check(lambda v: v is None or _NAME.holds(v), "the name of a run, or None")
_FILE = Check(lambda v: v is None or isinstance(v, str) and v != "", "a file, or None")
_COUNT = Check(lambda v: type(v) is int and v >= 1, "a whole number, at least 1")
_COUNT_0 = Check(lambda v: type(v) is int and v >= 0, "a whole number, at least 0")
_COUNT_OR_NONE = Check(lambda v: v is None or _COUNT.holds(v), "a whole number, at least 1, or None")
_FRACTION = Check(lambda v: type(v) in (int, float) and 0 <= v <= 1, "a number from 0 to 1")
_DECAY = Check(lambda v: type(v) in (int, float) and 0 <= v < 1, "a number from 0 to below 1")
_POSITIVE = Check(lambda v: type(v) in (int, float) and 0 < v < math.inf, "a number above 0")
_WEIGHT = Check(lambda v: type(v) in (int, float) and 0 <= v < math.inf, "a number, at least 0")
_LIMIT = Check(lambda v: v is None or _POSITIVE.holds(v), "a number above 0, or None")
_FLAG = Check(lambda v: type(v) is bool, "True or False")
_KERNEL = Check(lambda v: type(v) is int and 1 <= v < 64 and v % 2 == 1, "an odd whole number below 64")
_SEED = Check(lambda v: type(v) is int and 0 <= v < 2**32, "a whole number from 0 to 4294967295")
_WIDTH = Check(lambda v: type(v) is int and 1 <= v <= 4096, "a whole number from 1 to 4096")


def _one_of(*values):
    return Check(lambda v: any(type(v) is type(value) and v == value for value in values),
                 " or ".join(map(repr, values)))


SCHEDULE = _one_of("constant", "step", "one_cycle")
PIXEL_TERMS = "mse", "low"  # of a content loss: they do without VGG's weights, a large download


def content_terms(text):
    """The terms of a content loss such as "mse + 2e-6 vgg54", as a dictionary: name → weight.

    Names are `mse` (eq. 4), `low` (the same after both were made small), `vgg54`, `vgg22`, … for features φ(5,4),
    φ(2,2), … (eq. 5), and `pool1` to `pool5` for the maps after VGG's poolings. A term without a number has the
    weight 1.
    Raises ValueError for any other text.
    """
    terms = {}
    for part in str(text).split(" + "):
        found = re.fullmatch(r"\s*(?:([\d.]+(?:e[+-]?\d+)?)\s*\*?\s+)?(\w+)\s*", part)
        known = found and (found[2] in PIXEL_TERMS or re.fullmatch(r"vgg([12][12]|[345][1-4])|pool[1-5]", found[2]))
        if not known or found[2] in terms:
            raise ValueError(f"content_loss: {part.strip()!r} is not a term such as mse, low, vgg54 or 0.006 vgg22")
        terms[found[2]] = float(found[1] or 1)
    return terms


def _is_content_loss(value):
    try:
        return isinstance(value, str) and bool(content_terms(value))
    except ValueError:
        return False


_CONTENT_LOSS = Check(_is_content_loss, "'mse', 'low', 'vgg54', 'vgg22', … for φ(5,4), φ(2,2), …, 'pool5', …, or a "
                                        "weighted sum of them, such as 'mse + 2e-6 vgg54',")


# Every setting, by what it is about: its value in the paper (or the assignment), what it may be, what it means.
# A run that has begun cannot change the sections marked so in FIXED_SECTIONS: its weights, or the patches that
# it has seen, hang on them. The section "generator" is stored with every checkpoint, to build the network again.
# Phases: 800 pictures × 100 patches / 16 = 5,000 updates are an epoch of DIV2K.
SECTIONS = {
    "run": {
        "name": Setting("paper", _NAME, "name of the run; its results go to <runs>/<name>/"),
        "runs": Setting("runs", _TEXT, "folder of all runs"),
    },
    "training patches": {
        "train_list": Setting("data/lists/train.csv", _TEXT, "list of the training pictures"),
        "crop": Setting(96, _COUNT, "side of a training patch, in high-resolution pixels"),
        "patches_per_picture": Setting(100, _COUNT, "random patches per picture and epoch"),
        "updates_per_epoch": Setting(None, _COUNT_OR_NONE, "length of an epoch in updates; None: all its patches once"),
        "batch_size": Setting(16, _COUNT, "patches per update"),
        "flip": Setting(True, _FLAG, "flip patches left-right at random"),
        "turn": Setting(True, _FLAG, "turn patches by quarters at random"),
        "colour_jitter": Setting(0, _FRACTION, "largest random change of saturation, brightness, contrast and hue"),
        "jpeg_noise": Setting(0, _FRACTION, "fraction of the low-resolution patches that go through JPEG"),
    },
    "validation": {
        "valid_list": Setting("data/lists/DIV2K_valid.csv", _TEXT, "list of the pictures for validation"),
        "valid_pictures": Setting(10, _COUNT, "how many of them are enlarged after each epoch"),
    },
    "generator": {
        "scale": Setting(4, _one_of(2, 4, 8), "factor of enlargement"),
        "channels": Setting(64, _WIDTH, "feature maps of the generator"),
        "blocks": Setting(16, _WIDTH, "residual blocks of the generator"),
        "batch_norm": Setting(True, _FLAG, "batch norm in the generator's residual part"),
        "first_norm": Setting(False, _FLAG, "batch norm after its first convolution, too"),
        "block_bias": Setting(True, _FLAG, "bias in the convolutions of its residual blocks"),
        "first_kernel": Setting(9, _KERNEL, "kernel size of its first convolution"),
        "last_kernel": Setting(9, _KERNEL, "kernel size of its last convolution"),
        "activation": Setting("prelu", _one_of("prelu", "prelu_channels", "relu"), "its activations"),
        "tanh": Setting(False, _FLAG, "tanh at its end"),
        "signed_input": Setting(False, _FLAG, "low resolution in [-1, 1] instead of [0, 1]"),
        "bn_momentum": Setting(0.1, _FRACTION, "weight of a new batch in batch norm's averages (1 - Keras' momentum)"),
        "trunk_bn_momentum": Setting(0.1, _FRACTION, "the same for the batch norm outside the generator's blocks"),
        "bn_eps": Setting(1e-5, _POSITIVE, "batch norm's epsilon"),
    },
    "discriminator": {
        "discriminator": Setting("srgan", _one_of("srgan", "strided", "features"), "which of models.py's three"),
        "discriminator_channels": Setting(64, _COUNT, "feature maps of the discriminator's first convolution"),
        "discriminator_dense": Setting(1024, _COUNT, "width of its dense layer (srgan)"),
        "discriminator_batch_norm": Setting(True, _FLAG, "batch norm in it (srgan)"),
        "discriminator_flatten": Setting(True, _FLAG, "one verdict per picture, or one per position (srgan)"),
        "discriminator_halving_kernel": Setting(3, _one_of(3, 4), "kernel size where it halves the picture (srgan)"),
        "discriminator_detail": Setting(False, _FLAG, "let it see only what a smaller picture has lost (srgan)"),
    },
    "losses and updates": {
        # (features divided by 12.75, which is their squared distance divided by 12.75²)
        "content_loss": Setting("0.00615148 vgg54", _CONTENT_LOSS, "content loss of adversarial training"),
        "vgg_weights": Setting(None, _FILE, "local file of torchvision's VGG19 or VGG16; None downloads VGG19's"),
        "vgg_normalise": Setting(True, _FLAG, "show VGG pictures in ImageNet's colours, not in [-1, 1]"),
        "vgg_size": Setting(None, _COUNT_OR_NONE, "show VGG pictures resized to this side; None: as they are"),
        "adversarial_weight": Setting(1e-3, _WEIGHT, "weight of the adversarial loss (eq. 3)"),
        "gradient_penalty": Setting(0, _WEIGHT, "weight of the penalty on the discriminator's slope (R1)"),
        "penalty_every": Setting(1, _COUNT, "in every so many updates of an epoch it is there, as many times as heavy"),
        "updates": Setting("alternating", _one_of("alternating", "simultaneous"),
                           "discriminator first, or both networks from the same forward pass"),
        "adam_eps": Setting(1e-8, _POSITIVE, "epsilon of Adam (its betas are 0.9 and 0.999)"),
        "clip_gradients": Setting(None, _LIMIT, "largest norm of the generator's gradient; None does not clip"),
        "ema_decay": Setting(0, _DECAY, "decay of the moving average of the generator's weights that is validated "
                                        "and kept; 0: the weights themselves"),
    },
    "beginning": {
        "start_from": Setting(None, _FILE, "checkpoint whose generator the run starts from; None: random weights"),
        "fork_of": Setting(None, _NAME_OR_NONE, "run to start with a copy of, as far as these settings leave it valid"),
        "seed": Setting(0, _SEED, "first weights and all patches follow from it"),
    },
    "phases": {
        "warmup_epochs": Setting(200, _COUNT_0, "epochs of warm-up (10⁶ updates)"),
        "warmup_lr": Setting(1e-4, _POSITIVE, "learning rate of the warm-up"),
        "warmup_schedule": Setting("constant", SCHEDULE, "its course, see trainer.scheduled"),
        "adversarial_epochs": Setting(40, _COUNT_0, "epochs of adversarial training (2·10⁵ updates)"),
        "adversarial_lr": Setting(1e-4, _POSITIVE, "learning rate of both networks there"),
        "discriminator_rate": Setting(1, _POSITIVE, "the discriminator's learning rate, in multiples of that"),
        "adversarial_schedule": Setting("step", SCHEDULE, "its course (10⁻⁴, then 10⁻⁵)"),
    },
    "what is kept": {
        "sample_pictures": Setting(1, _COUNT, "validation pictures whose enlargements are kept as PNG"),
        "sample_every": Setting(1, _COUNT, "after every so many epochs"),
        "checkpoint_every": Setting(1, _COUNT, "epochs between the numbered checkpoints"),
        "best_by": Setting("psnr", _one_of("psnr", "niqe"), "which score makes an epoch the best of its phase"),
        "keep_checkpoints": Setting(None, _COUNT_OR_NONE, "how many of these are kept; None: all"),
    },
    "machine": {
        "device": Setting("auto", _TEXT, "'cpu', 'cuda', 'mps', or 'auto' for the best there is"),
        "precision": Setting("auto", _one_of("auto", "fp32", "bf16", "fp16"), "number format of the convolutions"),
        "channels_last": Setting(True, _FLAG, "the memory layout that convolutions are quickest in"),
        "sync_batch_norm": Setting(False, _FLAG, "batch norm over the batches of all GPUs together, under torchrun"),
        "fused_adam": Setting(True, _FLAG, "PyTorch's fused implementation of Adam, where there is one"),
        "compile": Setting(False, _FLAG, "torch.compile the networks; what cannot be compiled runs as it is"),
        "data_on_gpu": Setting("auto", _one_of("auto", True, False), "keep the training pictures in GPU memory"),
        "workers": Setting(0, _COUNT_0, "processes that cut patches; 0 cuts them in the training process"),
        "save_minutes": Setting(10, _POSITIVE, "save at least this often within long epochs"),
    },
}
SETTINGS = {name: setting for section in SECTIONS.values() for name, setting in section.items()}
FIXED_SECTIONS = ["training patches", "generator", "discriminator", "beginning"]

# What the other recipes change. Where the text of a source and its code disagree, its code is followed; what
# it leaves open is marked (open) and as in the paper, or in the code it was derived from.
RECIPES = {
    "paper": {},
    # The CelebA case study (TensorFlow). Its text has batch norm in the residual blocks, its code has not.
    "celeba": dict(
        train_list="data/lists/celeba_train.csv", valid_list="data/lists/celeba_test.csv",
        crop=128, patches_per_picture=1, batch_size=30, turn=False, colour_jitter=0.05,
        batch_norm=False, block_bias=False, activation="prelu_channels", tanh=True, signed_input=True,
        discriminator_batch_norm=False, discriminator_flatten=False,
        content_loss="vgg54", vgg_normalise=False, updates="simultaneous",  # its features without a factor
        warmup_epochs=0, adversarial_epochs=60, adversarial_schedule="constant",
        sample_pictures=5, checkpoint_every=20,
    ),
    # The Paddle reproduction. Its code takes VGG's map after the fifth pooling, of pictures in [-1, 1].
    # Its log line has an MSE, a VGG and an adversarial loss, whose weights its text leaves open, as well as batch
    # size, learning rates and epochs: those of tensorlayer's SRGAN, whose code it follows.
    "paddle": dict(
        crop=384, patches_per_picture=1, flip=False, turn=False,
        first_kernel=3, last_kernel=1, first_norm=True, activation="relu", tanh=True, signed_input=True,
        bn_momentum=0.01, trunk_bn_momentum=0.01, bn_eps=1e-3,
        discriminator="strided",
        content_loss="mse + 2e-6 pool5", vgg_normalise=False, vgg_size=224,
        warmup_epochs=100, adversarial_epochs=2000,
        sample_every=10, checkpoint_every=10,
    ),
    # The Keras article on DIV2K. It starts from a trained SRResNet: name one in start_from and set
    # warmup_epochs to 0, or let the warm-up make it (its length is open). 100 updates count as an epoch,
    # because that is how often it validates and saves.
    "paperspace": dict(
        updates_per_epoch=100, jpeg_noise=0.5,  # (features divided by 12.75, as in the paper)
        activation="prelu_channels", tanh=True, bn_momentum=0.2, trunk_bn_momentum=0.01, bn_eps=1e-3,
        updates="simultaneous", adam_eps=1e-7,
        warmup_epochs=10000, adversarial_epochs=2000,
        keep_checkpoints=3,
    ),
    # The paper's way with a small network on scikit-image's photographs: minutes on a laptop.
    "demo": dict(
        train_list="data/lists/demo_train.csv", valid_list="data/lists/demo_test.csv",
        crop=48, batch_size=8, patches_per_picture=250,
        channels=32, blocks=8, batch_norm=False, first_kernel=3, last_kernel=3,
        discriminator_channels=16, discriminator_dense=128,
        content_loss="mse + 2 low", adversarial_epochs=4,
        # BEGIN SOLUTION NO PROMPT
        clip_gradients=0.1, ema_decay=0.999, warmup_epochs=16, warmup_lr=2e-3, warmup_schedule="one_cycle",
        # A discriminator that sees only detail and all pixels equally often, keeps up (two time scales,
        # arXiv 1706.08500), and is held smooth.
        discriminator_detail=True, discriminator_halving_kernel=4, discriminator_batch_norm=False,
        discriminator_rate=4, gradient_penalty=0.04, penalty_every=4, adversarial_weight=8e-3,
        # END SOLUTION
        # BEGIN PROMPT
        # warmup_epochs=0,  # the basic mode
        # END PROMPT
    ),
}


class Settings(EasyDict):
    """The settings of a run; printed as the table of those that matter most."""

    def __repr__(self):
        return str(describe(self))


def settings(recipe="paper", **changes):
    """The settings of a recipe (one of `RECIPES`) with changes, as an EasyDict; checked.

    The run is named after the recipe, unless the changes give another name.

    Raises ValueError that names the recipe or setting that is unknown or has no meaning.
    """
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}{did_you_mean(recipe, RECIPES)}; choose one of "
                         f"{', '.join(RECIPES)}")
    cfg = Settings({name: setting.paper for name, setting in SETTINGS.items()})
    cfg.update(RECIPES[recipe], name=recipe)
    cfg.update(changes)
    check_settings(cfg)
    return cfg


def section(cfg, name):
    """The settings of one section, as a dictionary."""
    return {key: cfg[key] for key in SECTIONS[name]}


def generator_settings(values):
    """The section "generator" from a checkpoint, checked; what is missing there is as in the paper.

    Raises ValueError for values that make no sense.
    """
    if not isinstance(values, dict):
        raise ValueError(f"not settings of a generator, but {type(values).__name__}")
    cfg = settings("paper", **{name: value for name, value in values.items() if name in SECTIONS["generator"]})
    return EasyDict(section(cfg, "generator"))


def fixed(cfg):
    """The settings that a run which has begun cannot change."""
    return {key: value for name in FIXED_SECTIONS for key, value in section(cfg, name).items()}


def check_settings(cfg):
    """Raise ValueError for the first setting that is unknown, missing or has no meaning."""
    for name in cfg:
        if name not in SETTINGS:
            near = did_you_mean(name, SETTINGS)
            raise ValueError(f"there is no setting {name!r}{near or '; the settings are ' + ', '.join(SETTINGS)}")
    for name, setting in SETTINGS.items():
        if name not in cfg:
            raise ValueError(f"the setting {name} is missing; start from solver.settings()")
        if not setting.check.holds(cfg[name]):
            raise ValueError(f"{name} must be {setting.check.wanted}, not {cfg[name]!r} ({setting.meaning})")
    for_discriminator = cfg.adversarial_epochs and cfg.discriminator == "srgan"
    if cfg.crop % cfg.scale or for_discriminator and cfg.crop % 16:
        both = ", and of 16 for the discriminator" if for_discriminator else ""
        raise ValueError(f"crop must be a multiple of the scale ({cfg.scale}){both}, not {cfg.crop}")


# -------------------------------------------------------------------------------------------- to be read


MATTER = ["crop", "batch_size", "channels", "blocks", "batch_norm", "content_loss", "adversarial_weight", "updates",
          "ema_decay", "start_from", "fork_of", "seed", "warmup_epochs", "warmup_lr", "adversarial_epochs",
          "adversarial_lr", "discriminator_detail", "discriminator_rate", "gradient_penalty"]


def describe(cfg, which="most important"):
    """Settings with the paper's value and the meaning, as a table: the most important ones, or "all".

    Another text takes the settings with that text in their name.
    """
    names = [name for name in SETTINGS if (name in MATTER if which == "most important" else
                                           which == "all" or which in name) and name in cfg]
    if not names:
        raise ValueError(f'no setting has {which!r} in its name; describe(cfg, "all") shows all')
    rows = [[name, short(cfg[name]), short(SETTINGS[name].paper), SETTINGS[name].meaning] for name in names]
    return Table(rows, ["setting", "here", "paper", "meaning"], left=4)


def recipe_table(recipes=("paper", "celeba", "paddle", "paperspace")):
    """The settings in which recipes differ, side by side, as a table."""
    columns = [settings(recipe) for recipe in recipes]
    rows = [[name, *(short(cfg[name]) for cfg in columns)]
            for name in SETTINGS if len({str(cfg[name]) for cfg in columns}) > 1 and name != "name"]
    return Table(rows, ["setting", *recipes])


def short(value):
    """A value of a setting as a table shows it: few digits, and of a path its end."""
    return f"{value:.4g}" if isinstance(value, float) else Path(value).name if _is_path(value) else str(value)


def _is_path(value):
    return isinstance(value, str) and "/" in value


def loss_formula(cfg):
    """The generator's loss in the adversarial phase with the factors in force (eq. 3), in LaTeX."""
    names = {"mse": "l_{MSE}", "low": "l_{low}"}
    terms = [(weight, names.get(name, rf"l_{{{name[:-2].upper()}/{name[-2]},{name[-1]}}}" if name.startswith("vgg")
                                else rf"l_{{VGG/{name}}}")) for name, weight in content_terms(cfg.content_loss).items()]
    terms.append((cfg.adversarial_weight, "l_{Gen}"))
    return "l^{SR} = " + " + ".join(_times(weight) + loss for weight, loss in terms)


def _times(weight):
    if weight == 1:
        return ""
    mantissa, exponent = f"{weight:.3g}".split("e") if "e" in f"{weight:.3g}" else (f"{weight:.3g}", None)
    if exponent is None:
        return rf"{mantissa}\, "
    power = f"10^{{{int(exponent)}}}"
    return (power if mantissa == "1" else rf"{mantissa} \cdot {power}") + r"\, "


# ------------------------------------------------------------------------------------------ command line


def add_options(parser):
    """Give an argument parser `--recipe` and an option for every setting; `chosen` reads them."""
    parser.add_argument("--recipe", default="paper", choices=RECIPES,
                        help="settings to start from (default: %(default)s)")
    for name, setting in SETTINGS.items():
        parser.add_argument(f"--{name}", metavar="VALUE", type=_value, default=argparse.SUPPRESS,
                            help=f"{setting.meaning}: {setting.check.wanted} (paper: {setting.paper})")


def chosen(options):
    """The settings of the recipe and options that a parser has read. Raises as `settings` does."""
    return settings(options.recipe, **{name: value for name, value in vars(options).items() if name in SETTINGS})


def _value(text):
    """A value from the command line: a Python literal where it is one, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
