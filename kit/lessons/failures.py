"""How adversarial training fails: five ways, each trained in a few seconds."""

import matplotlib.pyplot as plt
import numpy as np
from easydict import EasyDict

import solver
from kit.compare.sweeps import has_ended
from kit.language import N_, tr
from kit.lessons.figure import closed
from kit.plots.pictures import NO_TICKS, detail_window
from kit.runs.folder import Run
from kit.runs.history import read_history

# The paper's discriminator, without what the demo does against failing, and pictures of the weights as they are.
UNPROTECTED = dict(discriminator_detail=False, discriminator_halving_kernel=3, discriminator_batch_norm=True,
                   discriminator_rate=1, gradient_penalty=0, content_loss="mse", updates="alternating", ema_decay=0,
                   adam_beta2=0.999)

# Five ways to fail, by settings of an adversarial phase that starts from a warm-up.
FAILURES = {
    N_("discriminator wins"): dict(start_from=None),
    N_("mesh"): dict(adversarial_weight=0.3),
    N_("colour shift"): dict(content_loss="0.003 mse", adversarial_weight=3e-3),
    N_("over smooth"): dict(adversarial_weight=1e-7),
    N_("divergence"): dict(adversarial_lr=0.1, clip_gradients=None),
}


def failures(cfg, start_from, updates=25, epochs=3):
    """Train five failures, a few seconds each, and show what each looks like and which curve announces it.

    The runs are called `fail-<name>-…`; what was trained before is not trained again. `start_from` is the checkpoint of
    a warm-up. Returns a figure. Raises ValueError where runs of these names have other settings.
    """
    base = EasyDict(cfg, updates_per_epoch=updates, warmup_epochs=0, adversarial_epochs=epochs, start_from=start_from,
                    fork_of=None, adversarial_lr=5e-4, adversarial_schedule="constant", adversarial_weight=1e-3,
                    valid_pictures=1, **UNPROTECTED)
    histories, pictures, original = {}, {}, None
    for name, changes in FAILURES.items():
        one = EasyDict(base, **{**changes, "name": f"fail-{cfg.name}-{name.replace(' ', '_')}"})
        run = Run(one.name, one.runs)
        if not has_ended(one, solver.default_phases(one)):
            try:
                solver.Trainer(one, progress=False).train()
            except FloatingPointError:
                pass  # the failure that was to be shown
        histories[name] = read_history(one.name, one.runs) if (run.folder / "history.csv").is_file() else []
        if histories[name]:  # else it did not survive its first epoch
            kept = run.sample_names()[0]
            original = run.read_pair_image("original", kept)
            pictures[name] = run.sample("adversarial", run.sampled_epochs("adversarial", kept)[-1], kept)
    figure, axes = plt.subplots(3, len(FAILURES), figsize=(10, 6), layout="constrained")
    top, left, side = detail_window(original, 96)
    for column, (name, history) in zip(axes.T, histories.items()):
        column[0].set_title(tr(name), fontsize=10)
        picture = pictures.get(name, np.zeros_like(original))
        column[0].imshow(picture[top : top + side, left : left + side], interpolation="nearest")
        column[0].set(**NO_TICKS)  # (with a frame, for the picture may be white)
        steps = [row["epoch"] * updates for row in history]
        column[1].plot(steps, [row["psnr"] for row in history], "o-", color="tab:blue")
        column[1].set_title("PSNR (dB)", fontsize=8)
        column[2].plot(steps, [row["d_fake"] for row in history], "o-", color="tab:red")
        column[2].set(ylim=(-0.05, 1.05), xlabel=tr("updates"))
        column[2].set_title("D(fake)", fontsize=8)
        if not history:
            column[1].text(0.5, 0.5, tr("no epoch survived"), ha="center", transform=column[1].transAxes, fontsize=8)
        for axis, first in zip(column[1:], axes[1:, 0]):
            axis.sharey(first)  # one scale, to compare them
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.3)
    return closed(figure)
