"""The recipes: what each of four systems, and the demo, changes in the paper's settings; options of a command line."""

import argparse
import ast
from functools import partial

from easydict import EasyDict

from kit.console import Table, did_you_mean
from kit.settings.describe import describe, format_value
from kit.settings.schema import RENAMED, SECTIONS, SETTINGS, checked, current_names, section

# What the other recipes change. Where the text of a source and its code disagree, its code is followed; what
# it leaves open is marked (open) and as in the paper, or in the code it was derived from.
RECIPES = {
    "paper": {},
    # The CelebA case study (TensorFlow). Its text has batch norm in the residual blocks, its code has not.
    "celeba": dict(
        train_list="data/lists/celeba_train.csv", valid_list="data/lists/celeba_test.csv",
        crop=128, patches_per_picture=1, batch_size=30, rotate=False, colour_jitter=0.05,
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
        crop=384, patches_per_picture=1, flip=False, rotate=False,
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
        crop=48, batch_size=8, patches_per_picture=160,
        channels=32, blocks=8, batch_norm=False, first_kernel=3, last_kernel=3,
        discriminator_channels=16, discriminator_dense=128,
        content_loss="mse + 2 lr_consistency + 10 mesh_mse", adversarial_epochs=3,
        # BEGIN SOLUTION NO PROMPT
        # Adam with a short memory of the gradients' squares gets as far in four fifths of the updates.
        adam_beta2=0.95, clip_gradients=0.1, ema_decay=0.999,
        warmup_epochs=16, warmup_lr=1.5e-3, warmup_schedule="one_cycle", adversarial_lr=1.4e-4,
        # A discriminator that sees only detail and all pixels equally often, keeps up (two time scales,
        # arXiv 1706.08500), and is held smooth.
        discriminator_detail=True, discriminator_halving_kernel=4, discriminator_batch_norm=False,
        discriminator_rate=4, gradient_penalty=0.04, penalty_every=4, adversarial_weight=1e-2,
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
    cfg.update(current_names(changes))
    checked(cfg)
    return cfg


def generator_settings(values):
    """The section "generator" from a checkpoint, checked; what is missing there is as in the paper.

    Raises ValueError for values that make no sense.
    """
    if not isinstance(values, dict):
        raise ValueError(f"not settings of a generator, but {type(values).__name__}")
    values = {name: values[name] for name in SECTIONS["generator"] if name in values}
    for name, value in values.items():  # before they are copied: lists of lists can be endless
        if not isinstance(value, (str, int, float, type(None))):
            raise ValueError(f"{name} must be a number or a text, not {type(value).__name__}")
    return EasyDict(section(settings("paper", **values), "generator"))


def recipe_table(recipes=("paper", "celeba", "paddle", "paperspace")):
    """The settings in which recipes differ, side by side, as a table."""
    columns = [settings(recipe) for recipe in recipes]
    rows = [[name, *(format_value(cfg[name]) for cfg in columns)]
            for name in SETTINGS if len({str(cfg[name]) for cfg in columns}) > 1 and name != "name"]
    return Table(rows, ["setting", *recipes])


def add_options(parser):
    """Give an argument parser `--recipe` and an option for every setting; `from_options` reads them."""
    parser.add_argument("--recipe", default="paper", choices=RECIPES,
                        help="settings to start from (default: %(default)s)")
    for name, setting in SETTINGS.items():
        read = partial(_value, setting.check)
        parser.add_argument(f"--{name}", metavar="VALUE", type=read, default=argparse.SUPPRESS,
                            help=f"{setting.meaning}: {setting.check.wanted} (paper: {setting.paper})")
        for old in (old for old, new in RENAMED.items() if new == name):
            parser.add_argument(f"--{old}", dest=name, type=read, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def from_options(options):
    """The settings of the recipe and options that a parser has read. Raises as `settings` does."""
    return settings(options.recipe, **{name: value for name, value in vars(options).items() if name in SETTINGS})


def _value(check, text):
    """A value from the command line: a Python literal where it is one, else the text itself, as is a name of digits."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return text if check.holds(text) and not check.holds(value) else value
