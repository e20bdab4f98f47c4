"""Training: the losses, an epoch of each kind, and the phases that a run goes through.

    cfg = solver.settings("demo", name="first")    # or "paper", "celeba", "paddle", "paperspace"
    trainer = solver.Trainer(cfg)                  # a new run in runs/first, or the old one resumed
    trainer.train()                                # its phases, one after the other

Without a notebook: `python solver.py --help`; with several GPUs of one machine:
`torchrun --nproc-per-node=2 solver.py --recipe paper`. Equations and sections are those of arXiv 1609.04802v5.
"""

import os
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

import create_data_lists
import recipes
import trainer
from imresize import imresize
from machine import descend_together, layout_for, leave
from models import make_discriminator, make_generator  # noqa: F401  (also offered as solver.make_…)
from recipes import settings  # noqa: F401
from trainer import Extra, Phase
from utils import Parser
from vgg import VGGFeatures

# -------------------------------------------------------------------------------------------- the losses
# Pictures are batches in [-1, 1]; the discriminator gives logits, and D is their sigmoid.


def mse_loss(fake, high):
    """Mean squared error between pixels (eq. 4)."""
    return F.mse_loss(fake.float(), high)


def low_loss(scale, fake, high):
    """Mean squared error of what is left of both when they are made small: all that the low resolution can tell.

    What `imresize` removes is then the discriminator's to judge, not the content loss's to blur.
    """
    return imresize(fake.float() - high, 1 / scale).square().mean()  # (of a difference: made small once, not twice)


def vgg_loss(features, fake, high):
    """Mean squared error between feature maps φ (eq. 5); `features` is a VGGFeatures."""
    with torch.no_grad():
        wanted = features(high).float()
    return F.mse_loss(features(fake).float(), wanted)


def adversarial_loss(fake_logits):
    """−log D(G(low)): how little the discriminator was deceived (eq. 6)."""
    return F.softplus(-fake_logits.float()).mean()


def discriminator_loss(real_logits, fake_logits):
    """−log D(high) − log(1 − D(G(low))): the cross-entropy of telling real from fake (eq. 2)."""
    return F.softplus(-real_logits.float()).mean() + F.softplus(fake_logits.float()).mean()


def r1_penalty(discriminator, high):
    """½‖∇D‖² of D's logits at originals: how steeply its verdict rises and falls there (R1, arXiv 1801.04406, eq. 9).

    A discriminator whose verdict is smooth around photographs teaches their look; a steep one teaches whatever pattern
    it happens to be steepest along. A quarter of the batch stands for all of it, which is much quicker.
    """
    high = high[: max(1, len(high) // 4)].detach().requires_grad_()
    gradient, = torch.autograd.grad(discriminator(high).float().sum(), high, create_graph=True)
    return gradient.float().pow(2).sum(dim=(1, 2, 3)).mean() / 2


def lazy_r1(discriminator, high, weight, every):
    """The penalty of this update: in every so many of an epoch, and as many times as heavy, else 0.

    The slope changes slowly, and to find it takes long (StyleGAN2's lazy regularization, arXiv 1912.04958, sec. 3.1).
    """
    return every * weight * r1_penalty(discriminator, high) if weight and discriminator.update % every == 0 else 0


def probability(logits):
    """The mean of D: 1 where the discriminator takes everything for real, ½ where it can only guess."""
    return logits.float().sigmoid().mean()


# -------------------------------------------------------------------------------------------- the epochs
# An epoch goes once through its batches (low, high), makes an update for each, and yields its losses. It gets
# what it asks for by the names of its parameters: `generator`, `discriminator` (see machine.Learner), `batches`,
# `content_loss`, and any setting. Counting, learning rates, saving and stopping are the trainer's.


# BEGIN SOLUTION NO PROMPT
def warmup_epoch(generator, batches):
    """The generator alone, towards the smallest squared error (section 3.2)."""
    for low, high in batches:
        loss = mse_loss(generator(low), high)
        generator.descend(loss)
        yield {"content_loss": loss}


# END SOLUTION
def alternating_epoch(generator, discriminator, batches, content_loss, adversarial_weight, gradient_penalty=0,
                      penalty_every=1):
    """For every batch first the discriminator, then the generator, which it judges anew (eqs. 2 and 3)."""
    for low, high in batches:
        fake = generator(low)

        real_logits, fake_logits = discriminator(high, fake.detach())  # detached: the generator does not learn here
        d_loss = discriminator_loss(real_logits, fake_logits)
        penalty = lazy_r1(discriminator, high, gradient_penalty, penalty_every)
        discriminator.descend(d_loss + penalty)

        with discriminator.frozen():
            content, adversarial = content_loss(fake, high), adversarial_loss(discriminator(fake))
        generator.descend(content + adversarial_weight * adversarial)

        yield {"content_loss": content, "adversarial_loss": adversarial, "discriminator_loss": d_loss,
               "d_real": probability(real_logits), "d_fake": probability(fake_logits)}


def simultaneous_epoch(generator, discriminator, batches, content_loss, adversarial_weight, gradient_penalty=0,
                       penalty_every=1):
    """Both networks from one forward pass: the generator is judged by the discriminator as it was before."""
    for low, high in batches:
        fake = generator(low)
        real_logits, fake_logits = discriminator(high, fake)
        d_loss = discriminator_loss(real_logits, fake_logits)
        content, adversarial = content_loss(fake, high), adversarial_loss(fake_logits)
        penalty = lazy_r1(discriminator, high, gradient_penalty, penalty_every)
        descend_together((discriminator, d_loss + penalty), (generator, content + adversarial_weight * adversarial))

        yield {"content_loss": content, "adversarial_loss": adversarial, "discriminator_loss": d_loss,
               "d_real": probability(real_logits), "d_fake": probability(fake_logits)}


def make_content_loss(cfg, machine=None):
    """The content loss of these settings, a weighted sum, as a function of two batches in [-1, 1].

    Raises what `vgg.VGGFeatures` raises.
    """
    device, autocast = (machine.device, machine.autocast) if machine else ("cpu", nullcontext)
    terms = []
    for name, weight in recipes.content_terms(cfg.content_loss).items():
        if name in recipes.PIXEL_TERMS:
            terms.append((weight, mse_loss if name == "mse" else partial(low_loss, cfg.scale)))
            continue
        i, j = name[3:] if name.startswith("vgg") else (name[4], 0)
        make = partial(VGGFeatures, int(i), int(j) or None, cfg.vgg_weights, cfg.vgg_normalise, cfg.vgg_size)
        if machine and machine.world > 1:
            machine.broadcast(lambda make=make: make() and None)  # one process downloads, and the others find it
        features = make().to(device, memory_format=layout_for(device))
        if machine:
            features.layers.to(machine.dtype)  # once, rather than twice in every update
        terms.append((weight, partial(vgg_loss, features)))

    def content_loss(fake, high):
        with autocast():
            return sum(weight * loss(fake, high) for weight, loss in terms)

    return content_loss


# -------------------------------------------------------------------------------------------- the phases


def phases(cfg):
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
    """A run of these phases, or of others, kept in `runs/<name>/` and resumed from there.

    `phases` is a list of Phase; all else is as for `trainer.Trainer`, which does the work.
    """

    def __init__(self, cfg, phases=None, progress=True):
        super().__init__(cfg, phases or _phases(cfg), EXTRAS, progress)

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


_phases = phases  # under a name that the constructor's argument does not hide


# ---------------------------------------------------------------------------------------- command line


def main(arguments=None):
    parser = Parser(
        description="Train a run through its phases. A run of the same name is resumed.",
        epilog="Example: python solver.py --recipe paper --name mine --content_loss mse")
    parser.add_argument("--data", metavar="DIR", help="folder with the recipe's pictures as unpacked (DIV2K, "
                        "img_align_celeba, …), to make its lists from when they are not there yet")
    recipes.add_options(parser)
    options = parser.parse_args(arguments)
    status = 1
    try:
        cfg = recipes.chosen(options)
        if not (Path(cfg.train_list).exists() and Path(cfg.valid_list).exists()) and (
                options.data or options.recipe == "demo"):
            if int(os.environ.get("WORLD_SIZE", 1)) > 1:
                raise ValueError("several processes cannot make the lists; make them first with create_data_lists.py")
            print(create_data_lists.summary(
                create_data_lists.create_recipe_lists(options.recipe, options.data, cfg.scale)))
        run = Trainer(cfg)
        run.train()
        if run.machine.rank == 0:
            print(f"checkpoints, samples, settings and history are in {run.run.folder}")
        status = 0
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"solver.py: error: {error}", file=sys.stderr)
    except KeyboardInterrupt as stopped:
        print(stopped)
        status = 130
    leave(status)


if __name__ == "__main__":
    main()
