"""Training: the losses, an epoch of each kind, and the phases that a run goes through.

    cfg = solver.settings("demo", name="first")    # or "paper", "celeba", "paddle", "paperspace"
    trainer = solver.Trainer(cfg)                  # a new run in runs/first, or the old one resumed
    trainer.train()                                # its phases, one after the other

Without a notebook: `python solver.py --help`; with several GPUs of one machine:
`torchrun --nproc-per-node=2 solver.py --recipe paper`. Equations and sections are those of arXiv 1609.04802v5.
"""

import math
from contextlib import nullcontext
from functools import partial

import torch
import torch.nn.functional as F

from imresize import imresize
from kit.compute.device import layout_for
from kit.compute.learner import joint_step
from kit.settings.content_loss import content_terms, vgg_layer
from kit.settings.recipes import settings
from kit.training import command, trainer
from kit.training.phases import Extra, Phase
from kit.vgg import VGGFeatures
from models import make_discriminator, make_generator

# What a run is made with; `settings`, `Phase` and the two makers of networks come from elsewhere.
__all__ = ["Phase", "Trainer", "default_phases", "make_content_loss", "make_discriminator", "make_generator",
           "settings"]

# -------------------------------------------------------------------------------------------- the losses
# Pictures are batches in [-1, 1]; the discriminator gives logits, and D is their sigmoid.


def mse_loss(sr, hr):
    """Mean squared error between pixels (eq. 4)."""
    return F.mse_loss(sr.float(), hr)


def lr_consistency_loss(scale, sr, hr):
    """Mean squared error of what is left of both when they are made small: all that the low resolution can tell.

    What `imresize` removes is then the discriminator's to judge, not the content loss's to blur.
    """
    return imresize(sr.float() - hr, 1 / scale).square().mean()  # (of a difference: made small once, not twice)


def flat_mse_loss(sr, hr):
    """Mean squared error where the original is flat, for there is no detail to be invented there.

    A network sees the same everywhere in such an area, so whatever it invents to deceive the discriminator comes again
    with each pixel of the low resolution: as a mesh of dots. The errors' weight is 1 / (1 + σ²/σ₀²), where σ² is the
    variance of the grey levels in the 9×9 pixels around, and σ₀ 6 of 255 grey levels.
    """
    hr = hr.float()
    grey, flat = hr.mean(dim=1, keepdim=True), 6 / 127.5
    mean, mean_square = (F.avg_pool2d(x, 9, 1, padding=4, count_include_pad=False) for x in (grey, grey.square()))
    return ((sr.float() - hr).square() / (1 + (mean_square - mean.square()) / flat**2)).mean()


def mesh_mse_loss(scale, sr, hr):
    """Mean squared error of what comes again with each pixel of the low resolution, as a mesh does and texture not.

    A network without noise can invent little that is not a mesh where its input is uniform, such as grass or gravel.
    So the pictures' difference is parted into the `scale`² places within a low-resolution pixel, and each is averaged
    over 5×5 of these: what is irregular goes, what repeats stays.
    """
    places = F.pixel_unshuffle(sr.float() - hr, scale)
    return F.avg_pool2d(places, [min(5, side) for side in places.shape[-2:]], stride=1).square().mean()


def vgg_loss(features, sr, hr):
    """Mean squared error between feature maps φ (eq. 5); `features` is a VGGFeatures."""
    return vgg_losses(lambda picture: [features(picture)], sr, hr)[0]


def vgg_losses(maps, sr, hr):
    """The same for several layers: a list; `maps` is what VGGFeatures gives as `several`, in one pass."""
    with torch.no_grad():
        wanted = maps(hr)
    return [F.mse_loss(found.float(), original.float()) for found, original in zip(maps(sr), wanted)]


def adversarial_loss(fake_logits):
    """−log D(G(lr)): how little the discriminator was deceived (eq. 6)."""
    return F.softplus(-fake_logits.float()).mean()


def discriminator_loss(real_logits, fake_logits):
    """−log D(hr) − log(1 − D(G(lr))): the cross-entropy of telling real from fake (eq. 2)."""
    return F.softplus(-real_logits.float()).mean() + F.softplus(fake_logits.float()).mean()


def r1_penalty(discriminator, hr):
    """½‖∇D‖² of D's logits at originals: how steeply its verdict rises and falls there (R1, arXiv 1801.04406, eq. 9).

    A discriminator whose verdict is smooth around photographs teaches their look; a steep one teaches whatever pattern
    it happens to be steepest along. A quarter of the batch stands for all of it, which is much quicker.
    """
    hr = hr[: max(1, len(hr) // 4)].detach().requires_grad_()
    gradient, = torch.autograd.grad(discriminator(hr).float().sum(), hr, create_graph=True)
    return gradient.float().pow(2).sum(dim=(1, 2, 3)).mean() / 2


def lazy_r1(discriminator, hr, weight, every):
    """The penalty of this update: in every so many of an epoch, and as many times as heavy, else 0.

    The slope changes slowly, and to find it takes long (StyleGAN2's lazy regularization, arXiv 1912.04958, sec. 3.1).
    """
    return every * weight * r1_penalty(discriminator, hr) if weight and discriminator.update % every == 0 else 0


def probability(logits):
    """The mean of D: 1 where the discriminator takes everything for real, ½ where it can only guess."""
    return logits.float().sigmoid().mean()


# -------------------------------------------------------------------------------------------- the epochs
# An epoch goes once through its batches (lr, hr), makes an update for each, and yields its losses. It gets
# what it asks for by the names of its parameters: `generator`, `discriminator` (see kit/compute/learner.py), `batches`,
# `content_loss`, and any setting; and `g_optimizer` and `d_optimizer`, if it is to be written as PyTorch's tutorials
# are (zero_grad, backward, step) rather than with `descend`, which also clips, and scales losses for fp16.
# Counting, learning rates, saving and stopping are the trainer's. A resumed epoch gets the batches that are left, so
# what counts them asks `generator.update`, and not `enumerate`.


# BEGIN SOLUTION NO PROMPT
def warmup_epoch(generator, batches):
    """The generator alone, towards the smallest squared error (section 3.2)."""
    for lr, hr in batches:
        loss = mse_loss(generator(lr), hr)
        generator.descend(loss)
        yield {"content_loss": loss}


# END SOLUTION
def alternating_epoch(generator, discriminator, batches, content_loss, adversarial_weight, gradient_penalty=0,
                      penalty_every=1):
    """For every batch first the discriminator, then the generator, which it judges anew (eqs. 2 and 3)."""
    for lr, hr in batches:
        sr = generator(lr)

        real_logits, fake_logits = discriminator(hr, sr.detach())  # detached: the generator does not learn here
        d_loss = discriminator_loss(real_logits, fake_logits)
        penalty = lazy_r1(discriminator, hr, gradient_penalty, penalty_every)
        discriminator.descend(d_loss + penalty)

        with discriminator.frozen():
            content, adversarial = content_loss(sr, hr), adversarial_loss(discriminator(sr))
        generator.descend(content + adversarial_weight * adversarial)

        yield {"content_loss": content, "adversarial_loss": adversarial, "discriminator_loss": d_loss,
               "d_real": probability(real_logits), "d_fake": probability(fake_logits)}


def simultaneous_epoch(generator, discriminator, batches, content_loss, adversarial_weight, gradient_penalty=0,
                       penalty_every=1):
    """Both networks from one forward pass: the generator is judged by the discriminator as it was before."""
    for lr, hr in batches:
        sr = generator(lr)
        real_logits, fake_logits = discriminator(hr, sr)
        d_loss = discriminator_loss(real_logits, fake_logits)
        content, adversarial = content_loss(sr, hr), adversarial_loss(fake_logits)
        penalty = lazy_r1(discriminator, hr, gradient_penalty, penalty_every)
        joint_step((discriminator, d_loss + penalty), (generator, content + adversarial_weight * adversarial))

        yield {"content_loss": content, "adversarial_loss": adversarial, "discriminator_loss": d_loss,
               "d_real": probability(real_logits), "d_fake": probability(fake_logits)}


def make_content_loss(cfg, machine=None):
    """The content loss of these settings, a weighted sum, as a function of two batches in [-1, 1].

    Raises what `kit.vgg.VGGFeatures` raises.
    """
    device, autocast = (machine.device, machine.autocast) if machine else ("cpu", nullcontext)
    of_pixels = {"mse": mse_loss, "lr_consistency": partial(lr_consistency_loss, cfg.scale), "flat_mse": flat_mse_loss,
                 "mesh_mse": partial(mesh_mse_loss, cfg.scale)}
    weights = content_terms(cfg.content_loss)
    layers = {name: vgg_layer(name) for name in weights if name not in of_pixels}
    if layers:
        # One network, as deep as any term asks for; a pooling follows its convolutions.
        deepest = max(layers.values(), key=lambda layer: (layer[0], layer[1] or math.inf))
        make = partial(VGGFeatures, *deepest, cfg.vgg_weights, cfg.vgg_normalise, cfg.vgg_size)
        features = (machine.in_turn(make) if machine else make()).to(device, memory_format=layout_for(device))
        if machine:
            features.layers.to(machine.dtype)  # once, rather than twice in every update
        maps = features.several(layers.values())

    def content_loss(sr, hr):
        with autocast():
            losses = dict(zip(layers, vgg_losses(maps, sr, hr))) if layers else {}
            losses |= {name: loss(sr, hr) for name, loss in of_pixels.items() if name in weights}
            return sum(weight * losses[name] for name, weight in weights.items())

    return content_loss


# -------------------------------------------------------------------------------------------- the phases


def default_phases(cfg):
    """The phases of these settings, in the order in which they are trained. Add your own to the list."""
    adversarial_epoch = alternating_epoch if cfg.updates == "alternating" else simultaneous_epoch
    return [
        # BEGIN SOLUTION NO PROMPT
        Phase("warmup", warmup_epoch, cfg.warmup_epochs, cfg.warmup_lr, cfg.warmup_schedule),
        # END SOLUTION
        Phase("adversarial", adversarial_epoch, cfg.adversarial_epochs, cfg.adversarial_lr, cfg.adversarial_schedule),
    ]


# What an epoch function can ask for beside networks, batches and settings.
EXTRAS = {"content_loss": Extra(make_content_loss, ["content_loss", "vgg_normalise", "vgg_size"])}


class Trainer(trainer.Trainer):
    """A run of these networks and phases, kept in `runs/<name>/` and resumed from there.

    `phases` is a list of Phase, instead of the default ones; all else is as for `kit.training.trainer.Trainer`, which
    does the work.
    """

    def __init__(self, cfg, phases=None, progress=True):
        super().__init__(cfg, phases or default_phases(cfg), make_generator, make_discriminator, EXTRAS, progress)

    # BEGIN SOLUTION NO PROMPT
    def warm_up(self, on_epoch=None):
        """Train the generator alone until `cfg.warmup_epochs` are done; see `train`."""
        return self.train("warmup", on_epoch)

    # END SOLUTION
    def train_adversarially(self, on_epoch=None):
        """Train discriminator and generator until `cfg.adversarial_epochs` are done; see `train`.

        Starts from the weights that the phase before it (or `cfg.start_from`) has left.
        """
        return self.train("adversarial", on_epoch)


def main(arguments=None, prog=None):
    """The command to train, see `python solver.py --help`."""
    command.main(Trainer, arguments, prog)


if __name__ == "__main__":
    main()
