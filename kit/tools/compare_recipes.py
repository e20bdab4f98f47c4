"""Train the four recipes small, on the same pictures and for the same number of updates, and compare them.

    python -m kit.tools.compare_recipes      # a few minutes on two CPU cores; results in results/recipes/

What this shows is how the systems differ in kind: in their networks, updates and training data. It cannot
show how good each one gets: the networks are small, the updates few, and the content loss is MSE for all,
because the weights of VGG19 are a large download.
"""

import sys
from pathlib import Path

import create_data_lists
import solver
from kit import evaluation, plots
from kit.console import Parser

RECIPES = ["paper", "celeba", "paddle", "paperspace"]
EPOCHS = 10

# The same for all: pictures, sizes, number of updates, learning rate. Everything else is the recipe's own.
SMALL = dict(
    train_list="data/lists/demo_train.csv", valid_list="data/lists/demo_test.csv",
    crop=64, patches_per_picture=100, batch_size=8, updates_per_epoch=150,
    channels=24, blocks=4, discriminator_channels=8, discriminator_dense=64, content_loss="mse",
    warmup_lr=5e-4, adversarial_lr=5e-4, clip_gradients=1.0, checkpoint_every=EPOCHS, sample_every=1,
)


def small_settings(recipe, runs="runs", **changes):
    """The settings of one small run: four fifths of it are warm-up, where the recipe has one."""
    warmup = EPOCHS * 4 // 5 if solver.settings(recipe).warmup_epochs else 0
    return solver.settings(recipe, **{**SMALL, "name": f"compare_{recipe}", "runs": runs, "warmup_epochs": warmup,
                                      "adversarial_epochs": EPOCHS - warmup, **changes})


def compare(out="results/recipes", runs="runs", **changes):
    """Train (or resume) the four runs; write and return the table of their scores.

    Leaves `table.txt`, `scores.csv`, `curves.png` and `pictures.png` in `out`. `changes` are settings that
    all four get.
    """
    out = Path(out)
    trainers = {}
    for recipe in RECIPES:
        trainers[recipe] = solver.Trainer(small_settings(recipe, runs, **changes))
        trainers[recipe].train()
    methods = evaluation.methods({name: trainer.result for name, trainer in trainers.items()})
    first = next(iter(trainers.values()))
    table = evaluation.save_scores(evaluation.score_sets(methods, [first.cfg.valid_list]), out, published={})

    pair = first.valid_set[0]
    rows = {}
    for name, trainer in trainers.items():
        warm = trainer.cfg.warmup_epochs
        four_fifths = ("warmup", warm) if warm else ("adversarial", EPOCHS * 4 // 5)
        rows[name] = {
            "low resolution": pair.lr,
            "after 4/5": trainer.run.sample(*four_fifths, pair.name),
            "at the end": trainer.run.sample("adversarial", trainer.cfg.adversarial_epochs, pair.name),
            "original": pair.hr,
        }
    plots.save_figure(plots.plot_history({n: t.history for n, t in trainers.items()}), out / "curves.png")
    plots.save_figure(plots.plot_rows(rows), out / "pictures.png")
    return table


def main(arguments=None):
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="results/recipes", help="folder for the results (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        if not Path(SMALL["train_list"]).exists():
            create_data_lists.create_demo_lists()
        print("\n" + compare(options.out))
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"compare_recipes: error: {error}")
    print(f"\ntable, scores, curves and pictures are in {options.out}")


if __name__ == "__main__":
    main()
