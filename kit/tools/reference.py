"""Train the reference generators from nothing, in the way that led to those in `weights/`.

    python -m kit.tools.reference FOLDER --more FOLDER2 --most FOLDER3 --vgg_weights vgg16-397923af.pth

FOLDER has the training pictures, FOLDER2 and FOLDER3 the same and more for the last stages. The same command goes on
where it was stopped. It takes some eighteen hours on two CPU cores. weights/README.md says what these generators get
to, what they were trained on, and why so.
"""

import sys
from pathlib import Path

import create_data_lists
import solver
from datasets import TestDataset, named_pairs
from kit import plots
from kit.console import Parser, progress_bar
from kit.evaluation.generators import load_generator
from kit.runs.checkpoints import load_checkpoint, save_generator
from solver import Phase
from utils import Enlarger, bicubic, save_picture, to_rgb

AVERAGED = 9  # of the last epochs of adversarial training, the first time
PHOTOGRAPHS = ["astronaut", "camera", "chelsea", "coffee", "motorcycle_left"]
COMMON = dict(valid_list="data/lists/demo_test.csv", content_loss="mse", ema_decay=0.999, updates_per_epoch=500,
              keep_checkpoints=AVERAGED)

# Three cycles, each from the average of the weights in the one before.
WARM_UP = [
    Phase("first", solver.warmup_epoch, 52, 1e-3, "one_cycle"),
    Phase("second", solver.warmup_epoch, 40, 6e-4, "one_cycle"),
    Phase("third", solver.warmup_epoch, 60, 5e-4, "one_cycle"),
]
# Towards the mean of the truth and the self-ensemble of what came out, then towards the latter alone.
HALFWAY = [Phase("halfway", solver.warmup_epoch, 4, 2e-4, "one_cycle")]
TAUGHT = [Phase("taught", solver.warmup_epoch, 8, 4e-4, "one_cycle")]


def settled_epoch(generator, batches):
    """`solver.warmup_epoch` with batch norm's averages as they are: the network is trained just as it is used."""
    generator.eval()
    yield from solver.warmup_epoch(generator, batches)


# Then towards true pictures again, of which there are more now, then more again, and those for longer.
MORE = [Phase("more", settled_epoch, 10, 2e-4, "cosine")]
MOST = [Phase("most", settled_epoch, 16, 3e-4, "cosine")]
LONGEST = [Phase("longest", settled_epoch, 34, 4e-4, "cosine")]

# Adversarial training from the third cycle's end, with a discriminator of pixels, then with one of features.
ADVERSARIAL = dict(ema_decay=0.998, updates_per_epoch=250, batch_size=8, adversarial_weight=3e-3)
BLURRED, SHARP = "0.5 mse + 0.006 vgg53", "0.1 mse + 0.006 vgg53"
KEEN = dict(content_loss=SHARP, adversarial_weight=5e-3, discriminator_rate=2)
PIXELS = [
    Phase("blurred", solver.alternating_epoch, 6, 1e-4, changes=dict(content_loss=BLURRED)),
    Phase("sharper", solver.alternating_epoch, 7, 1e-4, changes=dict(content_loss=SHARP)),
    Phase("keener", solver.alternating_epoch, 2, 1e-4, changes=KEEN),
]


def judged_by_features(lengths, first_loss, later_loss):
    """Phases of so many epochs with a new discriminator of features, which learns fast at first and slowly then.

    With four lengths the last three phases are left out.
    """
    slowly = dict(content_loss=later_loss, adversarial_weight=1e-2, discriminator_rate=0.25)
    calmly = {**slowly, "content_loss": f"{later_loss} + 2 flat_mse", "adversarial_weight": 3e-3}
    evenly = {**calmly, "content_loss": f"{calmly['content_loss']} + 3 mesh_mse"}
    kinds = [("features", 1e-4, {**KEEN, "content_loss": first_loss}),
             ("heavier", 1e-4, {**KEEN, "content_loss": first_loss, "adversarial_weight": 1e-2}),
             ("consistent", 1e-4, slowly), ("fine", 3e-5, slowly),
             ("lighter", 5e-5, {**slowly, "adversarial_weight": 5e-3}), ("calm", 5e-5, calmly), ("even", 5e-5, evenly)]
    return [Phase(name, solver.alternating_epoch, epochs, learning_rate, changes=changes)
            for (name, learning_rate, changes), epochs in zip(kinds, lengths)]


FEATURES = judged_by_features([2, 4, 7, 3], SHARP, "0.1 mse + lr_consistency + 0.006 vgg53")
# Once more, from these weights and what SRResNet has learned since, on more pictures, and with losses of finer maps.
FINER = "0.1 mse + lr_consistency + 0.001 vgg22 + 0.001 vgg33 + 0.0015 vgg43"
FINER_FEATURES = judged_by_features([1, 2, 2, 2, 2, 2, 2], FINER, FINER)


def combine(shares, path):
    """Save a sum of the weights of several checkpoints of one generator: `shares` is checkpoint → factor, 1 in all."""
    contents = [load_checkpoint(checkpoint) for checkpoint in shares]
    weights = {name: sum(share * content["generator"][name].double()
                         for content, share in zip(contents, shares.values())).to(value.dtype)
               if value.is_floating_point() else value for name, value in contents[-1]["generator"].items()}
    save_generator(path, weights, contents[-1]["generator_settings"])


def average(checkpoints, path):
    """Save the mean of the weights of several checkpoints of one generator."""
    combine({checkpoint: 1 / len(checkpoints) for checkpoint in checkpoints}, path)


def epochs_of(run, *phases):
    """The checkpoints of all epochs of some phases of a run, one phase after the other."""
    return [path for phase in phases for path in sorted(run.folder.glob(f"checkpoints/{phase}_[0-9]*.pt"))]


def teach(teacher, train_list, out):
    """Enlarge the low resolution of all pictures of a list with a generator's self-ensemble.

    The results go to the folder `taught` in `out`, their means with the pictures themselves to `halfway`. What is there
    stays.
    """
    enlarge, pictures = Enlarger(teacher, self_ensemble=True), TestDataset(train_list)
    for i in progress_bar(range(len(pictures)), "self-ensemble"):
        name = f"{i:05d}.png"  # numbered, for in several folders there may be pictures of one name
        if (out / "taught" / name).is_file():  # the last to be written
            continue
        pair = pictures[i]
        hr, sr = to_rgb(pair.hr), enlarge(to_rgb(pair.lr))
        save_picture(out / "halfway" / name, ((hr.astype(int) + sr + 1) // 2).astype("uint8"))
        save_picture(out / "taught" / name, sr)


def draw_details(generators, path):
    """Save details of photographs of scikit-image, enlarged by generators (name → generator): the README's picture."""
    lists = [report.csv_file for report in create_data_lists.create_demo_lists(progress=False)]
    enlargers = {"bicubic": bicubic, **{name: Enlarger(generator) for name, generator in generators.items()}}
    rows = {pair.name: {"low resolution": pair.lr, **{name: enlarge(pair.lr) for name, enlarge in enlargers.items()},
                        "original": pair.hr} for pair in named_pairs(lists, PHOTOGRAPHS)}
    plots.save_figure(plots.plot_rows(rows), path, dpi=70)


def train_reference(folder, more=None, most=None, vgg_weights=None, out="results/reference", runs="runs", epochs=None,
                    **changes):
    """Train `srresnet.safetensors`, and with a file of VGG16's weights `srgan.safetensors`, into the folder `out`.

    The last stages take the pictures of the folders `more` and, for SRResNet alone, `most`; without these folders they
    are left out. Beside the two `details.png` shows what they do. `epochs` is the most that a phase has, to try it all;
    `changes` are settings that all runs get.

    Raises ValueError, OSError and FloatingPointError as making lists and training does.
    """
    out = Path(out)

    def trained(name, phases, train_list, start_from=None, **more):
        """A run, trained to its end."""
        cfg = solver.settings("paper", **{
            **COMMON, "name": f"reference_{name}", "runs": str(runs), "train_list": str(train_list),
            "start_from": start_from and str(start_from), **more, **changes})
        trainer = solver.Trainer(cfg, [phase._replace(epochs=min(phase.epochs, epochs or phase.epochs))
                                       for phase in phases])
        trainer.train()
        return trainer.run

    def settled(phases, train_list, before, seed):
        """A checkpoint: a third of some weights, two thirds of what a run makes of them."""
        name = phases[0].name
        run = trained(name, phases, train_list, before, seed=seed, adam_beta2=0.99)
        combine({before: 1 / 3, run.checkpoint(name): 2 / 3}, out / f"{name}.pt")
        return out / f"{name}.pt"

    def listed(name, pictures):
        """The list of the pictures in a folder; made once, for a run hangs on it."""
        path = out / "lists" / name / "train.csv"
        if not path.is_file():
            create_data_lists.create_data_lists(pictures, out=path.parent)
        return path

    create_data_lists.create_demo_lists(progress=False)
    pictures = listed("pictures", folder)
    warm = trained("warmup", WARM_UP, pictures)
    average([warm.checkpoint("second"), warm.checkpoint("third")], out / "teacher.pt")
    teach(load_generator(out / "teacher.pt"), pictures, out)
    halfway = trained("halfway", HALFWAY, listed("halfway", out / "halfway"), out / "teacher.pt")
    taught = trained("taught", TAUGHT, listed("taught", out / "taught"), halfway.checkpoint("halfway"), seed=1)
    srresnet = taught.checkpoint("taught")
    if more:
        srresnet = learned = settled(MORE, listed("more", more), srresnet, seed=3)
    if most:
        srresnet = settled(MOST, listed("most", most), srresnet, seed=5)
        srresnet = settled(LONGEST, listed("most", most), srresnet, seed=7)
    if not (more and most):
        print("some of the last stages are left out: they need more pictures, see --more and --most")
    results = {"SRResNet": out / "srresnet.safetensors"}
    combine({srresnet: 1}, results["SRResNet"])
    if vgg_weights:
        results["SRGAN"], adversarial = out / "srgan.safetensors", {**ADVERSARIAL, "vgg_weights": str(vgg_weights)}
        pixels = trained("pixels", PIXELS, pictures, warm.checkpoint("third"), discriminator_halving_kernel=4,
                         **adversarial)
        features = trained("features", FEATURES, pictures, pixels.checkpoint("keener"), discriminator="features",
                           **adversarial)
        first = results["SRGAN"] if not more else out / "srgan_first.pt"
        average(epochs_of(features, "consistent", "fine")[-AVERAGED:], first)
        if more:
            start = out / "srgan_start.pt"  # which has what SRResNet had learned since then, too
            combine({first: 1, learned: 1, out / "teacher.pt": -1}, start)
            finer = trained("finer", FINER_FEATURES, listed("more", more), start, discriminator="features",
                            adam_beta2=0.99, **adversarial)
            shares = {first: 0.1}
            for phase, share in [("lighter", 0.2), ("calm", 0.35), ("even", 0.35)]:
                last = epochs_of(finer, phase)
                shares |= dict.fromkeys(last, share / len(last))
            combine(shares, results["SRGAN"])
    else:
        print("SRGAN is left out: its losses need torchvision's vgg16-397923af.pth, see --vgg_weights")
    draw_details({name: load_generator(path) for name, path in results.items()}, out / "details.png")


def main(arguments=None):
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="folder with the training pictures")
    parser.add_argument("--more", metavar="FOLDER2", help="folder with these pictures and more, for the last stages")
    parser.add_argument("--most", metavar="FOLDER3", help="folder with these and more again, for SRResNet's last")
    parser.add_argument("--out", default="results/reference", help="folder for the results (default: %(default)s)")
    parser.add_argument("--vgg_weights", metavar="FILE", help="torchvision's weights of VGG16, for SRGAN's losses")
    parser.add_argument("--epochs", type=int, help="train no phase longer than this, to try it all")
    options = parser.parse_args(arguments)
    try:
        train_reference(options.folder, options.more, options.most, options.vgg_weights, options.out,
                        epochs=options.epochs)
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"reference: error: {error}")
    except KeyboardInterrupt as stopped:
        sys.exit(str(stopped))
    print(f"\nthe generators are in {options.out}")


if __name__ == "__main__":
    main()
