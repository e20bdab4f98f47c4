"""Training: one epoch of warm-up, one epoch of alternating updates, and the run around them.

    cfg = solver.settings("demo", name="first")    # or "paper", "celeba", "paddle", "paperspace"
    trainer = solver.Trainer(cfg)                  # a new run in runs/first, or the old one resumed
    trainer.warm_up()                              # the generator alone, MSE
    trainer.train_adversarially()                  # discriminator and generator in turn

Without a notebook: `python solver.py --help`; with several GPUs of one machine:
`torchrun --nproc-per-node=2 solver.py --recipe paper`. Equations and sections are those of arXiv 1609.04802v5.
"""

import argparse
import ast
import json
import math
import os
import re
import signal
import sys
import threading
import time
from collections import namedtuple
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from easydict import EasyDict
from filelock import FileLock, Timeout
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

import create_data_lists
from datasets import TestDataset, TrainDataset, batches
from models import Discriminator, Generator, StridedDiscriminator, VGGFeatures
from utils import (PUBLISHED_RESULTS, enlarger, has_bf16, load_checkpoint, progress_bar, psnr, read_picture,
                   save_checkpoint, save_generator, save_picture, ssim, text_table, to_signed, to_unit, write_csv,
                   write_whole)

# ------------------------------------------------------------------------------------------- settings

Check = namedtuple("Check", "holds wanted")
Setting = namedtuple("Setting", "paper check meaning")

_TEXT = Check(lambda v: isinstance(v, str) and v != "", "a text")
_NAME = Check(lambda v: isinstance(v, str) and re.fullmatch(r"\w[\w.-]*", v),
              "a word of letters, digits, '_', '-' and '.'")
_FILE = Check(lambda v: v is None or isinstance(v, str) and v != "", "a file, or None")
_COUNT = Check(lambda v: type(v) is int and v >= 1, "a whole number, at least 1")
_COUNT_0 = Check(lambda v: type(v) is int and v >= 0, "a whole number, at least 0")
_COUNT_OR_NONE = Check(lambda v: v is None or _COUNT.holds(v), "a whole number, at least 1, or None")
_SHARE = Check(lambda v: type(v) in (int, float) and 0 <= v <= 1, "a number from 0 to 1")
_DECAY = Check(lambda v: type(v) in (int, float) and 0 <= v < 1, "a number from 0 to below 1")
_POSITIVE = Check(lambda v: type(v) in (int, float) and 0 < v < math.inf, "a number above 0")
_WEIGHT = Check(lambda v: type(v) in (int, float) and 0 <= v < math.inf, "a number, at least 0")
_LIMIT = Check(lambda v: v is None or _POSITIVE.holds(v), "a number above 0, or None")
_FLAG = Check(lambda v: type(v) is bool, "True or False")
_KERNEL = Check(lambda v: type(v) is int and v >= 1 and v % 2 == 1, "an odd whole number")


def _one_of(*values):
    return Check(lambda v: v in values, " or ".join(map(repr, values)))


# Every setting: its value in the paper (or the assignment), what it may be, what it means.
SETTINGS = {
    "name": Setting("paper", _NAME, "name of the run; its results go to <runs>/<name>/"),
    "runs": Setting("runs", _TEXT, "folder of all runs"),
    # data
    "train_list": Setting("data/lists/train.csv", _TEXT, "list of the training pictures"),
    "valid_list": Setting("data/lists/DIV2K_valid.csv", _TEXT, "list of the pictures for validation"),
    "valid_pictures": Setting(10, _COUNT, "how many of them are enlarged after each epoch"),
    "scale": Setting(4, _one_of(2, 4, 8), "factor of enlargement"),
    "crop": Setting(96, _COUNT, "side of a training patch, in high-resolution pixels"),
    "patches_per_picture": Setting(100, _COUNT, "random patches per picture and epoch"),
    "updates_per_epoch": Setting(None, _COUNT_OR_NONE, "length of an epoch in updates; None: all its patches once"),
    "batch_size": Setting(16, _COUNT, "patches per update"),
    "flip": Setting(True, _FLAG, "flip patches left-right at random"),
    "turn": Setting(True, _FLAG, "turn patches by quarters at random"),
    "colour_jitter": Setting(0, _SHARE, "largest random change of saturation, brightness, contrast and hue"),
    "jpeg_noise": Setting(0, _SHARE, "share of the low-resolution patches that go through JPEG"),
    # generator
    "channels": Setting(64, _COUNT, "feature maps of the generator"),
    "blocks": Setting(16, _COUNT, "residual blocks of the generator"),
    "batch_norm": Setting(True, _FLAG, "batch norm in the generator's residual part"),
    "first_norm": Setting(False, _FLAG, "batch norm after its first convolution, too"),
    "block_bias": Setting(True, _FLAG, "bias in the convolutions of its residual blocks"),
    "first_kernel": Setting(9, _KERNEL, "kernel size of its first convolution"),
    "last_kernel": Setting(9, _KERNEL, "kernel size of its last convolution"),
    "activation": Setting("prelu", _one_of("prelu", "prelu_channels", "relu"), "its activations"),
    "tanh": Setting(False, _FLAG, "tanh at its end"),
    "signed_input": Setting(False, _FLAG, "low resolution in [-1, 1] instead of [0, 1]"),
    "bn_momentum": Setting(0.1, _SHARE, "share of the new batch in batch norm's averages (1 - Keras' momentum)"),
    "trunk_bn_momentum": Setting(0.1, _SHARE, "the same for the batch norm outside the generator's blocks"),
    "bn_eps": Setting(1e-5, _POSITIVE, "batch norm's epsilon"),
    # discriminator
    "discriminator": Setting("srgan", _one_of("srgan", "strided"), "which of models.py's two"),
    "discriminator_channels": Setting(64, _COUNT, "feature maps of the discriminator's first convolution"),
    "discriminator_dense": Setting(1024, _COUNT, "width of its dense layer (srgan)"),
    "discriminator_batch_norm": Setting(True, _FLAG, "batch norm in it (srgan)"),
    "discriminator_flatten": Setting(True, _FLAG, "one verdict per picture, or one per position (srgan)"),
    # losses and updates
    "content_loss": Setting("vgg54", Check(lambda v: isinstance(v, str) and re.fullmatch(r"mse|vgg\d\d|pool[1-5]", v),
                                           "'mse', 'vgg54', 'vgg22', … for φ(5,4), φ(2,2), …, or 'pool5', …"),
                            "content loss of adversarial training"),
    "vgg_weights": Setting(None, _FILE, "local file of torchvision's VGG19 weights; None downloads them"),
    "vgg_rescale": Setting(1 / 12.75, _POSITIVE, "factor on the VGG features"),
    "vgg_normalise": Setting(True, _FLAG, "show VGG pictures in ImageNet's colours, not in [-1, 1]"),
    "vgg_size": Setting(None, _COUNT_OR_NONE, "show VGG pictures resized to this side; None: as they are"),
    "adversarial_weight": Setting(1e-3, _WEIGHT, "weight of the adversarial loss (eq. 3)"),
    "updates": Setting("alternating", _one_of("alternating", "simultaneous"),
                       "discriminator first, or both networks from the same forward pass"),
    "adam_eps": Setting(1e-8, _POSITIVE, "epsilon of Adam (its betas are 0.9 and 0.999)"),
    "clip_gradients": Setting(None, _LIMIT, "largest norm of the generator's gradient; None does not clip"),
    "ema_decay": Setting(0, _DECAY, "validate and keep an exponential moving average of the generator's weights, "
                                    "which keeps this share of itself at each update; 0: the weights themselves"),
    # schedules: 800 pictures × 100 patches / 16 = 5,000 updates per epoch of DIV2K
    "start_from": Setting(None, _FILE, "checkpoint whose generator the run starts from; None: random weights"),
    "warmup_epochs": Setting(200, _COUNT_0, "epochs of warm-up (10⁶ updates)"),
    "warmup_lr": Setting(1e-4, _POSITIVE, "learning rate of the warm-up"),
    "warmup_schedule": Setting("constant", _one_of("constant", "step", "one_cycle"), "its course, see learning_rate()"),
    "adversarial_epochs": Setting(40, _COUNT_0, "epochs of adversarial training (2·10⁵ updates)"),
    "adversarial_lr": Setting(1e-4, _POSITIVE, "learning rate of both networks there"),
    "adversarial_schedule": Setting("step", _one_of("constant", "step", "one_cycle"), "its course (10⁻⁴, then 10⁻⁵)"),
    # what is kept
    "sample_pictures": Setting(1, _COUNT, "validation pictures whose enlargements are kept as PNG"),
    "sample_every": Setting(1, _COUNT, "after every so many epochs"),
    "checkpoint_every": Setting(1, _COUNT, "epochs between the numbered checkpoints"),
    "keep_checkpoints": Setting(None, _COUNT_OR_NONE, "how many of these are kept; None: all"),
    # machine
    "seed": Setting(0, _COUNT_0, "first weights and all patches follow from it"),
    "device": Setting("auto", _TEXT, "'cpu', 'cuda', 'mps', or 'auto' for the best there is"),
    "precision": Setting("auto", _one_of("auto", "fp32", "bf16", "fp16"), "number format of the convolutions"),
    "channels_last": Setting(True, _FLAG, "the memory layout that convolutions are quickest in"),
    "fused_adam": Setting(True, _FLAG, "PyTorch's fused implementation of Adam, where there is one"),
    "compile": Setting(False, _FLAG, "torch.compile the networks; what cannot be compiled runs as it is"),
    "data_on_gpu": Setting("auto", _one_of("auto", True, False), "keep the training pictures in GPU memory"),
    "workers": Setting(0, _COUNT_0, "processes that cut patches; 0 cuts them in the training process"),
    "save_minutes": Setting(10, _POSITIVE, "save at least this often within long epochs"),
}

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
        content_loss="vgg54", vgg_rescale=1.0, vgg_normalise=False, updates="simultaneous",
        warmup_epochs=0, adversarial_epochs=60, adversarial_schedule="constant",
        sample_pictures=5, checkpoint_every=20,
    ),
    # The Paddle reproduction. Its code takes VGG's map after the fifth pooling, of pictures in [-1, 1].
    # Batch size, learning rates and epochs are open: those of tensorlayer's SRGAN, whose code it follows.
    "paddle": dict(
        crop=384, patches_per_picture=1, flip=False, turn=False,
        first_kernel=3, last_kernel=1, first_norm=True, activation="relu", tanh=True, signed_input=True,
        bn_momentum=0.01, trunk_bn_momentum=0.01, bn_eps=1e-3,
        discriminator="strided",
        content_loss="pool5", vgg_rescale=1.0, vgg_normalise=False, vgg_size=224,
        warmup_epochs=100, adversarial_epochs=2000,
        sample_every=10, checkpoint_every=10,
    ),
    # The Keras article on DIV2K. It starts from a trained SRResNet: name one in start_from and set
    # warmup_epochs to 0, or let the warm-up make it (its length is open). 100 updates count as an epoch,
    # because that is how often it validates and saves.
    "paperspace": dict(
        updates_per_epoch=100, jpeg_noise=0.5,
        activation="prelu_channels", tanh=True, bn_momentum=0.2, trunk_bn_momentum=0.01, bn_eps=1e-3,
        updates="simultaneous", adam_eps=1e-7,
        warmup_epochs=10000, adversarial_epochs=2000,
        keep_checkpoints=3,
    ),
    # The paper's way with a small network on scikit-image's photographs: minutes on a laptop.
    "demo": dict(
        train_list="data/lists/demo_train.csv", valid_list="data/lists/demo_test.csv",
        crop=64, batch_size=8, patches_per_picture=400,
        channels=32, blocks=8, batch_norm=False, first_kernel=3, last_kernel=3,
        discriminator_channels=16, discriminator_dense=128,
        content_loss="mse", clip_gradients=0.1,
        warmup_epochs=12, warmup_lr=2e-3, warmup_schedule="one_cycle", adversarial_epochs=3,
    ),
}

GENERATOR = ["scale", "channels", "blocks", "batch_norm", "first_kernel", "last_kernel", "activation", "tanh",
             "signed_input", "first_norm", "block_bias", "bn_momentum", "trunk_bn_momentum", "bn_eps"]
PATCHES = ["train_list", "crop", "patches_per_picture", "updates_per_epoch", "batch_size", "flip", "turn",
           "colour_jitter", "jpeg_noise"]

# A run that has begun cannot change these: its weights, or the patches it has seen, hang on them.
FIXED = [*GENERATOR, *PATCHES, *(name for name in SETTINGS if name.startswith("discriminator")), "start_from", "seed"]


def settings(recipe="paper", **changes):
    """The settings of a recipe (one of `RECIPES`) with changes, as an EasyDict; checked.

    The run is named after the recipe, unless the changes give another name.

    Raises ValueError that names the recipe or setting that is unknown or has no meaning.
    """
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}; choose one of {', '.join(RECIPES)}")
    cfg = EasyDict({name: setting.paper for name, setting in SETTINGS.items()})
    cfg.update(RECIPES[recipe], name=recipe)
    cfg.update(changes)
    check_settings(cfg)
    return cfg


def recipe_table(recipes=("paper", "celeba", "paddle", "paperspace")):
    """The settings in which recipes differ, side by side, as text."""
    columns = [settings(recipe) for recipe in recipes]
    rows = [[name, *(cfg[name] if not isinstance(cfg[name], float) else f"{cfg[name]:.4g}" for cfg in columns)]
            for name in SETTINGS if len({str(cfg[name]) for cfg in columns}) > 1]
    return text_table(rows, ["setting", *recipes])


def check_settings(cfg):
    """Raise ValueError for the first setting that is unknown, missing or has no meaning."""
    for name in cfg:
        if name not in SETTINGS:
            raise ValueError(f"there is no setting {name!r}; the settings are {', '.join(SETTINGS)}")
    for name, setting in SETTINGS.items():
        if name not in cfg:
            raise ValueError(f"the setting {name} is missing; start from solver.settings()")
        if not setting.check.holds(cfg[name]):
            raise ValueError(f"{name} must be {setting.check.wanted}, not {cfg[name]!r} ({setting.meaning})")
    if cfg.crop % cfg.scale:
        raise ValueError(f"crop must be a multiple of the scale ({cfg.scale}), not {cfg.crop}")
    if cfg.adversarial_epochs and cfg.discriminator == "srgan" and cfg.crop % 16:
        raise ValueError(f"crop must be a multiple of 16 for the discriminator, not {cfg.crop}")


# -------------------------------------------------------------------------------------- the two epochs


def warmup_epoch(generator, optimizer, loader, machine, rate, after_step):
    """One epoch of warm-up: the generator alone, with the pixel-wise MSE loss (eq. 4).

    Parameters
    ----------
    generator, optimizer
        The network to train and its optimizer.
    loader : iterable of (low, high)
        uint8 batches N×3×h×w and N×3×H×W.
    machine : Machine
        Device, number format and how to apply a loss.
    rate : callable () → float
        The learning rate of the next update.
    after_step : callable (**losses)
        Called after every update with the losses as tensors on the device; may end the epoch by raising.
    """
    generator.train()
    for low, high in loader:
        low, high = machine.inputs(low, high)
        with machine.autocast():
            fake = generator(low)
        loss = F.mse_loss(fake.float(), high)
        machine.descend(loss, optimizer, rate())
        after_step(content_loss=loss)


def adversarial_epoch(generator, discriminator, g_optimizer, d_optimizer, loader, machine, rate, after_step,
                      content_loss, adversarial_weight, alternating=True):
    """One epoch of adversarial training: for every batch first the discriminator, then the generator.

    The discriminator's loss is the cross-entropy of eq. 2, the generator's is
    content_loss + adversarial_weight · (−log D(G(low))) (eqs. 3 and 6). Parameters as for
    `warmup_epoch`; `content_loss(fake, high)` takes batches in [-1, 1] and gives one number. Without
    `alternating` the generator is judged by the discriminator as it was before its update: both
    networks are updated from the same forward pass.
    """
    generator.train()
    discriminator.train()
    for low, high in loader:
        low, high = machine.inputs(low, high)
        learning_rate_now = rate()
        with machine.autocast():
            fake = generator(low)

        discriminator.requires_grad_(True)
        with machine.autocast():
            real_logits, fake_logits = discriminator(high), discriminator(fake.detach() if alternating else fake)
        real_logits, fake_logits = real_logits.float(), fake_logits.float()
        d_loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()  # −log D(hr) − log(1 − D(sr))
        if alternating:
            machine.descend(d_loss, d_optimizer, learning_rate_now, clip=False)
            discriminator.requires_grad_(False)  # a frozen judge: gradients pass through to the generator only

        with machine.autocast():
            content = content_loss(fake, high)
            # (without the wrapper of several processes, which counts on gradients for the discriminator)
            logits = getattr(discriminator, "module", discriminator)(fake) if alternating else fake_logits
        adversarial = F.softplus(-logits.float()).mean()  # −log D(sr)
        g_loss = content + adversarial_weight * adversarial
        if alternating:
            machine.descend(g_loss, g_optimizer, learning_rate_now)
        else:
            machine.descend_both(d_loss, d_optimizer, g_loss, g_optimizer, learning_rate_now)
        after_step(content_loss=content, adversarial_loss=adversarial, discriminator_loss=d_loss,
                   d_real=real_logits.sigmoid().mean(), d_fake=fake_logits.sigmoid().mean())


LOSSES = {"warmup": ["content_loss"],
          "adversarial": ["content_loss", "adversarial_loss", "discriminator_loss", "d_real", "d_fake"]}


def make_train_set(cfg, progress=True):
    """The training patches of these settings."""
    return TrainDataset(cfg.train_list, cfg.scale, cfg.crop, cfg.patches_per_picture, cfg.flip, cfg.turn,
                        cfg.colour_jitter, cfg.jpeg_noise, cfg.seed, progress)


def make_generator(cfg):
    """The generator of these settings, with random weights."""
    return Generator(**{name: cfg[name] for name in GENERATOR})


def make_discriminator(cfg):
    """The discriminator of these settings, with random weights."""
    if cfg.discriminator == "strided":
        return StridedDiscriminator(cfg.crop, cfg.discriminator_channels, cfg.bn_momentum, cfg.bn_eps)
    return Discriminator(cfg.crop, cfg.discriminator_channels, cfg.discriminator_dense, cfg.discriminator_batch_norm,
                         cfg.discriminator_flatten, cfg.bn_momentum, cfg.bn_eps)


def make_content_loss(cfg, device="cpu"):
    """The content loss of these settings (eq. 4 or 5) as a function of two batches in [-1, 1].

    Raises what `models.VGGFeatures` raises.
    """
    if cfg.content_loss == "mse":
        return lambda fake, high: F.mse_loss(fake.float(), high)
    i, j = cfg.content_loss[3:] if cfg.content_loss.startswith("vgg") else (cfg.content_loss[4], 0)
    features = VGGFeatures(int(i), int(j) or None, cfg.vgg_weights, cfg.vgg_rescale, cfg.vgg_normalise, cfg.vgg_size)
    features.to(device, memory_format=torch.channels_last)

    def vgg_loss(fake, high):
        with torch.no_grad():
            wanted = features(high).float()
        return F.mse_loss(features(fake).float(), wanted)

    return vgg_loss


def learning_rate(peak, schedule, progress):
    """The learning rate at `progress` (0…1) of a phase.

    "constant"; "step": a tenth in the second half (the paper's adversarial training); "one_cycle":
    up from peak/25 within the first 30 %, then down to almost zero, both as half a cosine (Smith &
    Topin, arXiv 1708.07120), which gets most out of few updates.
    """
    if schedule == "constant":
        return peak
    if schedule == "step":
        return peak if progress < 0.5 else peak / 10
    low, high, t = (peak / 25, peak, progress / 0.3) if progress < 0.3 else (peak / 1e5, peak, (1 - progress) / 0.7)
    return low + (high - low) * (1 - math.cos(math.pi * t)) / 2


class Machine:
    """Where and in which number format training computes.

    `device` is "auto" or a torch device; `precision` is "auto" (bf16 where the hardware has it, else
    fp16 on CUDA, else fp32), "fp32", "bf16" or "fp16". Weights, losses and optimizer stay fp32.

    Under `torchrun` each process makes its own; `rank` and `world` count them, and `share` wraps a network
    so that its gradients are averaged over all.
    """

    def __init__(self, device="auto", precision="auto", clip=None, channels_last=True):
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if device == "auto" and self.world > 1 and torch.cuda.is_available():
            device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(device)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        try:
            self.device = torch.device(device)
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device {device!r} cannot be used ({error}); choose another or 'auto'") from error
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        if precision == "auto":
            precision = self._best_precision()
        self.precision, self.clip = precision, clip
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")

    def _best_precision(self):
        if has_bf16(self.device):
            return "bf16"
        return "fp16" if self.device.type == "cuda" else "fp32"

    def autocast(self):
        return torch.autocast(self.device.type, self.dtype, enabled=self.precision != "fp32")

    def inputs(self, low, high):
        """uint8 batches → float batches on the device, low in [0, 1] and high in [-1, 1]."""
        low, high = (x.to(self.device, non_blocking=True, memory_format=self.layout) for x in (low, high))
        return to_unit(low), to_signed(high)

    def share(self, network):
        """The network, or with several processes one that averages its gradients over them."""
        return DistributedDataParallel(network, broadcast_buffers=False) if self.world > 1 else network

    def total(self, tensor):
        """The sum of a tensor over all processes."""
        if self.world > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def from_first(self, make):
        """What `make()` gives in the first process, in all of them; the others wait for it."""
        result = [make() if self.rank == 0 else None]
        if self.world > 1:
            dist.broadcast_object_list(result, device=self.device)
        return result[0]

    def has_room_for(self, size):
        """Whether a GPU can give away `size` bytes and keep more than half of its free memory."""
        return self.device.type == "cuda" and size < torch.cuda.mem_get_info(self.device)[0] / 2

    def descend(self, loss, optimizer, rate, clip=True):
        """One update of the optimizer's weights down the gradient of the loss."""
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self._step(optimizer, rate, clip)
        self.scaler.update()

    def descend_both(self, d_loss, d_optimizer, g_loss, g_optimizer, rate):
        """One update of two networks, each down the gradient of its own loss, from one forward pass."""
        for loss, optimizer in [(d_loss, d_optimizer), (g_loss, g_optimizer)]:
            optimizer.zero_grad(set_to_none=True)
            own = [weight for group in optimizer.param_groups for weight in group["params"]]
            self.scaler.scale(loss).backward(inputs=own, retain_graph=loss is d_loss)
        for optimizer in (d_optimizer, g_optimizer):
            self._step(optimizer, rate, clip=optimizer is g_optimizer)
        self.scaler.update()

    def _step(self, optimizer, rate, clip):
        for group in optimizer.param_groups:
            group["lr"] = rate
        if clip and self.clip:
            self.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], self.clip)
        self.scaler.step(optimizer)


# ----------------------------------------------------------------------------------------- evaluation


def evaluate(enlarge, dataset, limit=None, progress=True, label="evaluating"):
    """PSNR and SSIM of a way to enlarge, picture by picture.

    Parameters
    ----------
    enlarge : callable
        uint8 picture → uint8 picture `dataset.scale` times as large: `utils.bicubic`, or
        `utils.enlarger(generator)`.
    dataset : datasets.TestDataset
        The pictures; `limit` takes the first so many.

    Returns
    -------
    list of dict
        `picture` (name), `psnr` (dB) and `ssim`, by the protocol of `utils.psnr`.
    """
    count = min(limit or len(dataset), len(dataset))
    rows = []
    for index in progress_bar(range(count), label, progress):
        pair = dataset[index]
        picture = enlarge(pair.lr)
        rows.append({"picture": pair.name, "psnr": psnr(picture, pair.hr, dataset.scale),
                     "ssim": ssim(picture, pair.hr, dataset.scale)})
    return rows


def mean_scores(rows):
    """(mean PSNR, mean SSIM) of the rows of `evaluate`."""
    return float(np.mean([row["psnr"] for row in rows])), float(np.mean([row["ssim"] for row in rows]))


def score_sets(methods, csv_files, scale=4, progress=True):
    """Evaluate several ways to enlarge on several test sets.

    Parameters
    ----------
    methods : dict of str → callable
        Name → what `evaluate` takes.
    csv_files : list of path
        The lists of the sets; a set is called after its file.

    Returns
    -------
    list of dict
        `set`, `picture`, `method`, `psnr` (dB), `ssim`: one for each picture and method.
    """
    scores = []
    for csv_file in map(Path, csv_files):
        dataset = TestDataset(csv_file, scale)
        for method, enlarge in methods.items():
            rows = evaluate(enlarge, dataset, None, progress, f"{csv_file.stem}, {method}")
            scores += [{"set": csv_file.stem, "method": method, **row} for row in rows]
    return scores


def score_table(scores, published=PUBLISHED_RESULTS):
    """The mean PSNR (dB) / SSIM of each method on each set as text, with published results below."""
    sets, methods = (list(dict.fromkeys(row[key] for row in scores)) for key in ("set", "method"))
    rows = {(name, method): [r for r in scores if (r["set"], r["method"]) == (name, method)]
            for name in sets for method in methods}
    table = [[method, *("{:.2f} / {:.4f}".format(*mean_scores(rows[name, method])) for name in sets)]
             for method in methods]
    table += [[method, *(row.get(name, "") for name in sets)] for method, row in published.items() if row.keys() & sets]
    return text_table(table, ["PSNR / SSIM", *(f"{name} ({len(rows[name, methods[0]])})" for name in sets)])


# ------------------------------------------------------------------------------------------------ runs

HISTORY = ["phase", "epoch", "updates", "learning_rate", *LOSSES["adversarial"], "psnr", "ssim", "seconds"]


class Stopped(Exception):
    """Raised at the end of an update to leave an epoch when the user asked to stop."""


class Trainer:
    """A run: networks, optimizers and history, kept in `runs/<name>/` and resumed from there.

    The folder holds `settings.json`, `history.csv`, `samples/` (the first validation pictures in `input/`,
    `original/` and, enlarged, in `<phase>_<epoch>/`) and `checkpoints/`: `<phase>_<epoch>.pt`,
    `<phase>.pt` (the newest) and `<phase>_best.pt` (the highest PSNR) with a generator each, and `last.pt`
    with everything that resuming needs. All randomness follows from the seed and the number of the
    update, so a run that was stopped or killed anywhere and resumed ends with the same weights as one
    that was not.

    Parameters
    ----------
    cfg : EasyDict
        From `settings()`.
    progress : bool
        Show progress bars and messages.

    Raises
    ------
    ValueError, FileNotFoundError
        For settings, lists, pictures and checkpoints that cannot be used.
    """

    def __init__(self, cfg, progress=True):
        check_settings(cfg)
        self.cfg, self.folder = EasyDict(cfg), Path(cfg.runs, cfg.name)
        self.machine = Machine(cfg.device, cfg.precision, cfg.clip_gradients, cfg.channels_last)
        self.progress = progress and self.machine.rank == 0
        self.history, self.phase, self.epoch, self.step, self.sums = [], "warmup", 0, 0, None
        self.seconds = 0  # spent on this epoch before it was last saved
        state = self._old_state()
        if self.machine.world > 1:
            self.machine.from_first(lambda: make_train_set(cfg, self.progress).bytes)  # one process makes the pack
        self.train_set = make_train_set(cfg, self.progress)
        if self.machine.device.type != "cpu" and (
                self.machine.has_room_for(self.train_set.bytes) if cfg.data_on_gpu == "auto" else cfg.data_on_gpu):
            self.train_set.keep_on(self.machine.device)
        self.valid_set = TestDataset(cfg.valid_list, cfg.scale)
        self.steps_per_epoch = cfg.updates_per_epoch or len(batches(self.train_set, cfg.batch_size))

        torch.manual_seed(cfg.seed)
        self.generator = self._on_device(make_generator(cfg))
        self.g_optimizer = self._adam(self.generator)
        self.discriminator = self.d_optimizer = None  # until adversarial training begins
        if state:
            self._restore(state)
        elif cfg.start_from:
            self._start_from(cfg.start_from)
        self._begin_average(state)
        self._say(f"run {str(self.folder)!r}: {'resumed, ' + self._position() if state else 'new'}, "
                  f"on {self.machine.device} in {self.machine.precision}")

    # ------------------------------------------------------------------------------------ the two phases

    def warm_up(self, on_epoch=None):
        """Train the generator alone until `cfg.warmup_epochs` are done; `on_epoch(history)` after each.

        Returns the history, a list of dictionaries. Raises FloatingPointError when the loss is no
        longer a number, and KeyboardInterrupt, after saving, when the user stops it.
        """
        if self.phase == "adversarial":
            self._say("the warm-up of this run is over; its adversarial training has begun")
            return self.history
        return self._train(on_epoch)

    def train_adversarially(self, on_epoch=None):
        """Train discriminator and generator in turn until `cfg.adversarial_epochs` are done.

        Starts from the weights that the warm-up (or `cfg.start_from`) has left. Returns and raises as
        `warm_up` does.
        """
        if self.phase == "warmup" and self.cfg.adversarial_epochs:
            if self.step or self.epoch < self.cfg.warmup_epochs:
                raise ValueError(f"the warm-up of run {self.cfg.name!r} is not finished ({self._position()}): call "
                                 f"warm_up() first, or set warmup_epochs to {self.epoch}")
            self.phase, self.epoch = "adversarial", 0
            self.generator.load_state_dict(self.result.state_dict())
            self._begin_average()
            self.g_optimizer = self._adam(self.generator)  # a new task: old momentum would mislead
            self._make_discriminator()
        return self._train(on_epoch)

    @property
    def result(self):
        """The generator that is validated and kept: with `cfg.ema_decay` the average of the weights."""
        return self.average or self.generator

    def sample(self, phase, epoch, index=0):
        """What the generator made of a validation picture after an epoch, from the run's folder (uint8)."""
        return read_picture(self.folder / "samples" / f"{phase}_{epoch:03d}" / f"{self.valid_set[index].name}.png")

    def _train(self, on_epoch):
        total = self.cfg[f"{self.phase}_epochs"]
        if on_epoch and self.history:
            on_epoch(self.history)  # the curves so far
        if self.epoch >= total:
            self._say(f"{self.phase}: {self.epoch} of {total} epochs are done; for more, raise {self.phase}_epochs")
            return self.history
        content_loss = None
        if self.phase == "adversarial":
            content_loss = make_content_loss(self.cfg, self.machine.device)
        with self._locked(), _interruption() as self.interruption:
            if self.machine.rank == 0:
                self._write_settings()
            try:
                networks = [network and self._for_training(network) for network in (self.generator, self.discriminator)]
                while self.epoch < total:
                    self._run_epoch(total, content_loss, *networks)
                    if on_epoch:
                        on_epoch(self.history)
                    if self.interruption.is_set():
                        raise Stopped
            except Stopped:
                self._say(f"stopped and saved: {self._position()}; run the cell or command again to go on")
                raise KeyboardInterrupt from None
        return self.history

    def _run_epoch(self, total, content_loss, generator, discriminator):
        self.began, names = time.monotonic() - self.seconds, LOSSES[self.phase]
        # Counted through both phases, so that the second does not see the patches of the first again.
        first = len(self.history) * self.steps_per_epoch + self.step
        loader = batches(self.train_set, self.cfg.batch_size, first, self.steps_per_epoch - self.step, self.cfg.workers,
                         self.machine.rank, self.machine.world)
        if self.sums is None:
            self.sums = torch.zeros(len(names), dtype=torch.float64, device=self._float64_device())
        bar = progress_bar(None, f"{self.phase} {self.epoch + 1}/{total}", self.progress,
                           total=self.steps_per_epoch, initial=self.step)
        last_look = last_save = time.monotonic()

        def after_step(**losses):
            nonlocal last_look, last_save
            # Sums stay on the device; reading them makes a GPU wait, so that is done twice a second at most.
            self.sums += torch.stack([losses[name].detach() for name in names]).to(self.sums)
            self.step += 1
            self._follow()
            bar.update()
            now = time.monotonic()
            if now - last_look > 0.5:
                last_look, means = now, self._checked((self.sums / self.step).tolist())
                bar.set_postfix({name: f"{mean:.4g}" for name, mean in zip(names, means)}, refresh=False)
            stop, save = self._agree(self.interruption.is_set(), now - last_save > 60 * self.cfg.save_minutes)
            if stop or save:
                self._save()
                last_save = now
            if stop:
                raise Stopped

        with bar:
            if self.phase == "warmup":
                warmup_epoch(generator, self.g_optimizer, loader, self.machine, self._rate, after_step)
            else:
                adversarial_epoch(generator, discriminator, self.g_optimizer, self.d_optimizer, loader,
                                  self.machine, self._rate, after_step, content_loss, self.cfg.adversarial_weight,
                                  self.cfg.updates == "alternating")
            means, pictures = dict(zip(names, self._means())), []
            row = self.machine.from_first(lambda: self._validated(means, pictures))
        self.history.append(row)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, None
        if self.machine.rank == 0:
            self._keep_samples(pictures)
            self._keep_generator(row)
        self._save()  # last: if this is not reached, the epoch is done again and all of the above rewritten
        if self.machine.rank == 0:
            write_csv(self.folder / "history.csv", self.history, HISTORY)

    def _validated(self, means, pictures):
        """The row of history for this epoch; the first enlarged validation pictures are added to `pictures`."""
        enlarge_one = enlarger(self.result)

        def enlarge(picture):
            result = enlarge_one(picture)
            if len(pictures) < self.cfg.sample_pictures:
                pictures.append(result)
            return result

        row = {"phase": self.phase, "epoch": self.epoch + 1, "learning_rate": self._rate(), **means,
               "updates": len(self.history) * self.steps_per_epoch + self.step}
        row["psnr"], row["ssim"] = mean_scores(
            evaluate(enlarge, self.valid_set, self.cfg.valid_pictures, progress=False))
        return {**row, "seconds": round(time.monotonic() - self.began, 3)}

    def _begin_average(self, state=None):
        self.average = deepcopy(self.generator).requires_grad_(False) if self.cfg.ema_decay else None
        if self.average and state and "average" in state:
            self.average.load_state_dict(state["average"])

    def _follow(self):
        """Draw the average towards the generator after an update."""
        if not self.average:
            return
        done = self.epoch * self.steps_per_epoch + self.step
        decay = min(self.cfg.ema_decay, (1 + done) / (10 + done))  # at first quickly, to forget the random weights
        averaged, current = ([value for value in chain(network.parameters(), network.buffers())
                              if value.is_floating_point()] for network in (self.average, self.generator))
        get_ema_multi_avg_fn(decay)(averaged, current, done)

    def _agree(self, stop, save):
        """Whether to stop and to save: what any process wants, all do, and after the same update."""
        if self.machine.world > 1:
            if self.step % 20:
                return False, False  # asking costs time
            stop, save = self.machine.total(torch.tensor([stop, save], dtype=torch.float32,
                                                         device=self.machine.device)).tolist()
        return bool(stop), bool(save)

    def _keep_samples(self, pictures):
        if self.epoch % self.cfg.sample_every and self.epoch < self.cfg[f"{self.phase}_epochs"]:
            return
        samples = self.folder / "samples"
        for index, picture in enumerate(pictures):
            pair = self.valid_set[index]
            save_picture(samples / f"{self.phase}_{self.epoch:03d}" / f"{pair.name}.png", picture)
            for folder, original in [("input", pair.lr), ("original", pair.hr)]:
                if not (samples / folder / f"{pair.name}.png").exists():
                    save_picture(samples / folder / f"{pair.name}.png", original)

    def _keep_generator(self, row):
        names = [self.phase]
        if self.epoch % self.cfg.checkpoint_every == 0 or self.epoch == self.cfg[f"{self.phase}_epochs"]:
            names.append(f"{self.phase}_{self.epoch:03d}")
        if row["psnr"] == max(old["psnr"] for old in self.history if old["phase"] == self.phase):
            names.append(f"{self.phase}_best")
        for name in names:
            save_generator(self._checkpoint(name), self.result, phase=self.phase, epoch=self.epoch,
                           psnr=row["psnr"], ssim=row["ssim"])
        if self.cfg.keep_checkpoints:
            numbered = self.folder.glob(f"checkpoints/{self.phase}_[0-9]*.pt")
            for path in sorted(numbered, key=lambda p: int(p.stem.split("_")[1]))[: -self.cfg.keep_checkpoints]:
                path.unlink()

    def _rate(self):
        """The learning rate of the next update."""
        total = max(self.cfg[f"{self.phase}_epochs"] * self.steps_per_epoch - 1, 1)
        done = min(self.epoch * self.steps_per_epoch + self.step, total)
        return learning_rate(self.cfg[f"{self.phase}_lr"], self.cfg[f"{self.phase}_schedule"], done / total)

    def _means(self):
        """Mean losses of the epoch so far over all processes. Raises FloatingPointError when one is no number."""
        return self._checked((self.machine.total(self.sums) / self.machine.world / max(self.step, 1)).tolist())

    def _checked(self, means):
        if not all(map(math.isfinite, means)):
            raise FloatingPointError(
                f"training has diverged: a loss of {self.phase} epoch {self.epoch + 1} is no longer a number. "
                f"Nothing of this epoch was saved over the last good state, so lower {self.phase}_lr (now "
                f"{self.cfg[f'{self.phase}_lr']:g}) or set clip_gradients (now {self.cfg.clip_gradients}; 0.1 is "
                f"strong), and run again: training goes on from there")
        return means

    # -------------------------------------------------------------------------------------- run's folder

    def _save(self):
        sums = None
        if self.sums is not None:
            self._means()  # never save what is no number
            sums = (self.machine.total(self.sums) / self.machine.world).tolist()
        self.seconds = time.monotonic() - self.began if self.step else 0
        if self.machine.rank > 0:
            return
        state = {"phase": self.phase, "epoch": self.epoch, "step": self.step,
                 "sums": sums, "seconds": self.seconds, "history": self.history,
                 "settings": dict(self.cfg), "generator": self.generator.state_dict(),
                 "generator_settings": self.generator.settings, "g_optimizer": self.g_optimizer.state_dict(),
                 "scaler": self.machine.scaler.state_dict()}
        if self.average:
            state["average"] = self.average.state_dict()
        if self.discriminator:
            state |= {"discriminator": self.discriminator.state_dict(), "d_optimizer": self.d_optimizer.state_dict()}
        save_checkpoint(self._checkpoint("last"), state)

    def _old_state(self):
        """The saved state of this run, or None for a new one."""
        path = self._checkpoint("last")
        if not path.exists():
            return None
        state = load_checkpoint(path)
        if "g_optimizer" not in state or "settings" not in state:
            raise ValueError(f"{path}: not a state to resume from; delete {self.folder} or choose another name")
        old = state["settings"]
        for name in FIXED:
            if old.get(name) != self.cfg[name]:
                raise ValueError(f"run {self.cfg.name!r} was begun with {name} = {old.get(name)!r}, not "
                                 f"{self.cfg[name]!r}: choose another name, put the setting back, or delete "
                                 f"{self.folder}")
        for name, value in self.cfg.items():
            if old.get(name) != value:
                self._say(f"{name} was {old.get(name)!r} and is now {value!r}")
        return state

    def _restore(self, state):
        self.phase, self.epoch, self.step, self.history = (state[k] for k in ("phase", "epoch", "step", "history"))
        self.generator.load_state_dict(state["generator"])
        self.g_optimizer.load_state_dict(state["g_optimizer"])
        self.machine.scaler.load_state_dict(state["scaler"])
        self.seconds = state.get("seconds", 0)
        if state["sums"] is not None:
            self.sums = torch.tensor(state["sums"], dtype=torch.float64, device=self._float64_device())
        if "discriminator" in state:
            self._make_discriminator()
            self.discriminator.load_state_dict(state["discriminator"])
            self.d_optimizer.load_state_dict(state["d_optimizer"])
        if self.machine.rank == 0:
            write_csv(self.folder / "history.csv", self.history, HISTORY)  # in case it was killed just before

    def _start_from(self, path):
        content = load_checkpoint(path)
        if content["generator_settings"] != self.generator.settings:
            raise ValueError(f"start_from: the generator in {path} was built with {content['generator_settings']}, "
                             f"this run's with {self.generator.settings}; make them equal")
        self.generator.load_state_dict(content["generator"])

    def _write_settings(self):
        with write_whole(self.folder / "settings.json") as temporary:
            temporary.write_text(json.dumps(self.cfg, indent=2) + "\n", encoding="utf-8")

    def _checkpoint(self, name):
        return self.folder / "checkpoints" / f"{name}.pt"

    @contextmanager
    def _locked(self):
        if self.machine.rank > 0:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                yield
        except Timeout:
            raise ValueError(f"another program is training the run {self.cfg.name!r}; stop it, or choose "
                             f"another name") from None

    # ------------------------------------------------------------------------------------------- helpers

    def _on_device(self, network):
        return network.to(self.machine.device, memory_format=self.machine.layout)

    def _adam(self, network):
        return torch.optim.Adam(network.parameters(), betas=(0.9, 0.999), eps=self.cfg.adam_eps,
                                fused=self.cfg.fused_adam and self.machine.device.type != "mps")

    def _for_training(self, network):
        if self.cfg.compile:
            torch._dynamo.config.suppress_errors = True  # fall back to running a part as it is
            network.compile()
        return self.machine.share(network)

    def _make_discriminator(self):
        torch.manual_seed(self.cfg.seed + 1)
        self.discriminator = self._on_device(make_discriminator(self.cfg))
        self.d_optimizer = self._adam(self.discriminator)

    def _float64_device(self):
        return "cpu" if self.machine.device.type == "mps" else self.machine.device  # MPS has no float64

    def _position(self):
        total = self.cfg[f"{self.phase}_epochs"]
        within = f" and {self.step} of {self.steps_per_epoch} updates" if self.step else ""
        return f"{self.phase} at {self.epoch} of {total} epochs{within}"

    def _say(self, message):
        if self.progress:
            print(message, flush=True)


@contextmanager
def _interruption():
    """Yields an event that Ctrl-C, or a notebook's stop button, sets.

    So an interruption never breaks into the middle of an update; a second one takes effect at once.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals reach the main thread only
        return
    usual = signal.getsignal(signal.SIGINT)

    def on_signal(number, frame):
        if event.is_set() and callable(usual):
            usual(number, frame)
        event.set()

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, usual)


# ---------------------------------------------------------------------------------------- command line


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description="Train a run: warm-up, then adversarial training. A run of the same name is resumed.",
        epilog="Example: python solver.py --recipe paper --name mine --content_loss mse")
    parser.add_argument("--recipe", default="paper", choices=RECIPES,
                        help="settings to start from (default: %(default)s)")
    parser.add_argument("--data", metavar="DIR", help="folder with the recipe's pictures as unpacked (DIV2K, "
                        "img_align_celeba, …), to make its lists from when they are not there yet")
    for name, setting in SETTINGS.items():
        parser.add_argument(f"--{name}", metavar="VALUE", type=_value, default=argparse.SUPPRESS,
                            help=f"{setting.meaning}: {setting.check.wanted} (paper: {setting.paper})")
    changes = vars(parser.parse_args(arguments))
    try:
        recipe, data = changes.pop("recipe"), changes.pop("data")
        cfg = settings(recipe, **changes)
        if not (Path(cfg.train_list).exists() and Path(cfg.valid_list).exists()) and (data or recipe == "demo"):
            if "WORLD_SIZE" in os.environ:
                raise ValueError("several processes cannot make the lists; make them first with create_data_lists.py")
            print(create_data_lists.summary(create_data_lists.create_recipe_lists(recipe, data, cfg.scale)))
        trainer = Trainer(cfg)
        trainer.warm_up()
        trainer.train_adversarially()
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"solver.py: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    if trainer.machine.rank == 0:
        print(f"checkpoints, samples, settings and history are in {trainer.folder}")
    if trainer.machine.world > 1:
        dist.destroy_process_group()


def _value(text):
    """A value from the command line: a Python literal where it is one, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


if __name__ == "__main__":
    main()
