"""Every setting of a run: its value in the paper, what it may be, what it means; and the check of them."""

import math
import re
from collections import namedtuple

from easydict import EasyDict

from kit.console import did_you_mean
from kit.settings.content_loss import current_text, is_content_loss


class Check(namedtuple("Check", "holds wanted")):
    """What a value must be: `holds(value)` says whether it is, `wanted` says it in words."""

    def __repr__(self):
        return self.wanted


Setting = namedtuple("Setting", "paper check meaning")

_TEXT = Check(lambda v: isinstance(v, str) and v != "", "a text")
_NAME = Check(lambda v: isinstance(v, str) and re.fullmatch(r"\w[\w.-]*", v),
              "a word of letters, digits, '_', '-' and '.'")
_NAME_OR_NONE = Check(lambda v: v is None or _NAME.holds(v), "the name of a run, or None")
_FILE = Check(lambda v: v is None or isinstance(v, str) and v != "", "a file, or None")
_COUNT = Check(lambda v: type(v) is int and v >= 1, "a whole number, at least 1")
COUNT_0 = Check(lambda v: type(v) is int and v >= 0, "a whole number, at least 0")
_COUNT_OR_NONE = Check(lambda v: v is None or _COUNT.holds(v), "a whole number, at least 1, or None")
_FRACTION = Check(lambda v: type(v) in (int, float) and 0 <= v <= 1, "a number from 0 to 1")
_DECAY = Check(lambda v: type(v) in (int, float) and 0 <= v < 1, "a number from 0 to below 1")
POSITIVE = Check(lambda v: type(v) in (int, float) and 0 < v < math.inf, "a number above 0")
_WEIGHT = Check(lambda v: type(v) in (int, float) and 0 <= v < math.inf, "a number, at least 0")
_COUNT_OR_AUTO = Check(lambda v: v == "auto" or _COUNT.holds(v), "a whole number, at least 1, or 'auto'")
_LIMIT = Check(lambda v: v is None or POSITIVE.holds(v), "a number above 0, or None")
_FLAG = Check(lambda v: type(v) is bool, "True or False")
_KERNEL = Check(lambda v: type(v) is int and 1 <= v < 64 and v % 2 == 1, "an odd whole number below 64")
_SEED = Check(lambda v: type(v) is int and 0 <= v < 2**32, "a whole number from 0 to 4294967295")
_WIDTH = Check(lambda v: type(v) is int and 1 <= v <= 4096, "a whole number from 1 to 4096")


def _one_of(*values):
    return Check(lambda v: any(type(v) is type(value) and v == value for value in values),
                 " or ".join(map(repr, values)))


SCHEDULE = _one_of("constant", "step", "cosine", "one_cycle")
_CONTENT_LOSS = Check(is_content_loss, "'mse', 'lr_consistency', 'flat_mse', 'mesh_mse', 'vgg54', 'vgg22', … for "
                                       "φ(5,4), φ(2,2), …, 'pool5', …, or a weighted sum of them, such as "
                                       "'mse + 2e-6 vgg54'")

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
        "rotate": Setting(True, _FLAG, "rotate patches by quarter turns at random"),
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
        "bn_eps": Setting(1e-5, POSITIVE, "batch norm's epsilon"),
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
        "adam_beta1": Setting(0.9, _DECAY, "Adam's first beta, how long its momentum lasts; many GANs have 0.5"),
        "adam_beta2": Setting(0.999, _DECAY, "Adam's second beta, how long gradients' squares are averaged"),
        "adam_eps": Setting(1e-8, POSITIVE, "Adam's epsilon"),
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
        "warmup_epochs": Setting(200, COUNT_0, "epochs of warm-up (the paper's are 10⁶ updates)"),
        "warmup_lr": Setting(1e-4, POSITIVE, "learning rate of the warm-up"),
        "warmup_schedule": Setting("constant", SCHEDULE, "its course, see kit.training.phases.scheduled"),
        "adversarial_epochs": Setting(40, COUNT_0, "epochs of adversarial training (the paper's are 2·10⁵ updates)"),
        "adversarial_lr": Setting(1e-4, POSITIVE, "learning rate of both networks there"),
        "discriminator_rate": Setting(1, POSITIVE, "the discriminator's learning rate, in multiples of that"),
        "adversarial_schedule": Setting("step", SCHEDULE, "its course (the paper's: 10⁻⁴, then 10⁻⁵)"),
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
        "threads": Setting("auto", _COUNT_OR_AUTO, "threads that a CPU computes with; 'auto': what is quickest now, by "
                                                   "trying; results differ in their last bits"),
        "channels_last": Setting(True, _FLAG, "the memory layout that convolutions are quickest in"),
        "sync_batch_norm": Setting(False, _FLAG, "batch norm over the batches of all GPUs together, under torchrun"),
        "fused_adam": Setting(True, _FLAG, "PyTorch's fused implementation of Adam, where there is one"),
        "compile": Setting(False, _FLAG, "torch.compile the networks; what cannot be compiled runs as it is"),
        "data_on_gpu": Setting("auto", _one_of("auto", True, False), "keep the training pictures in GPU memory"),
        "workers": Setting(0, COUNT_0, "processes that cut patches; 0 cuts them in the training process"),
        "save_minutes": Setting(10, POSITIVE, "save at least this often within long epochs"),
    },
}

SETTINGS = {name: setting for section in SECTIONS.values() for name, setting in section.items()}
FIXED_SECTIONS = ["training patches", "generator", "discriminator", "beginning"]
RENAMED = {"turn": "rotate"}  # settings of older kits: their name then and now


def current_names(values):
    """Settings that an older kit has stored, or somebody knows by heart, under their names of today."""
    values = {RENAMED.get(name, name): value for name, value in values.items()}
    if isinstance(values.get("content_loss"), str):
        values["content_loss"] = current_text(values["content_loss"])
    return values


def current_record(record):
    """What an older kit has recorded of a run's epochs, see kit/runs/provenance.py, under the names of today."""
    return [{**segment, **{key: current_names(segment[key]) for key in ("settings", "trained_by") if key in segment}}
            for segment in record]


def section(cfg, name):
    """The settings of one section, as a dictionary."""
    return {key: cfg[key] for key in SECTIONS[name]}


def fixed(cfg):
    """The settings that a run which has begun cannot change."""
    return {key: value for name in FIXED_SECTIONS for key, value in section(cfg, name).items()}


def plain(value):
    """What NumPy or PyTorch counted or computed as Python's number, which can be saved; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def checked(cfg):
    """A copy of settings with all texts as they are written today, and NumPy's numbers as Python's.

    Raises ValueError for the first setting that is unknown, missing or has no meaning.
    """
    cfg = EasyDict({name: plain(value) for name, value in cfg.items()})
    copy = EasyDict(current_names(cfg))
    for name in cfg:
        if name not in SETTINGS:
            near = f"; it is called {RENAMED[name]} now" if name in RENAMED else did_you_mean(name, SETTINGS)
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
    return copy
